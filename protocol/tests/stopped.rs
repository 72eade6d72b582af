//! Who is stopped, among many, and what goes on without it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

mod support;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Client, Command, Event, Failure, Token};
use commipc_protocol::{Input, Limits, LinkId, Machine as _, Output, Refusal, hub};
use support::{KEY, World, client, hub, outgoing};

/// One who talks and thirty-two who listen, the last of them stopped or not; and by how much the hub grew at most.
fn to_thirty_two(stopped: bool, outbox: usize, in_flight: usize) -> (World, usize) {
    let clients = (0..=32).map(|number| client(&format!("client-{number}"), Secret::key(KEY))).collect();
    let mut limits = Limits::default();
    (limits.outbox, limits.in_flight) = (outbox, in_flight);
    let mut world = World::with(hub(limits), clients);
    world.connect_all();
    for client in 1..=32 {
        world.open(client, "ch");
        world.listen(client, 7, "ch", None);
    }
    world.stalled = stopped.then_some(32);
    let (before, mut most) = (world.hub.load().memory, 0);
    for token in 0..200 {
        world.command(0, Command::Broadcast { token: Token(token), outgoing: outgoing("ch", "ev", &[9; 500]) });
        most = most.max(world.hub.load().memory.saturating_sub(before));
        world.pass(Duration::from_millis(20));
    }
    (world, most)
}

#[test]
fn v25_d13_of_thirty_two_listeners_the_others_do_not_notice_that_one_is_stopped() {
    // What waits at the hub, and what its driver holds.
    let (outbox, in_flight) = (40_000, 10_000);
    let ((all, little), (rest, most)) =
        (to_thirty_two(false, outbox, in_flight), to_thirty_two(true, outbox, in_flight));
    for client in 0..32 {
        assert_eq!(format!("{:?}", all.events[client]), format!("{:?}", rest.events[client]), "{client}");
        let link = LinkId::accepted(client as u32, client as u32 + 1);
        assert_eq!(all.wire[&link], rest.wire[&link], "to the byte, and with the same times in it");
    }
    assert!((1..=31).all(|client| rest.events[client].len() == 200), "everybody heard everything");
    assert!(
        little < 1_000 && (outbox..=outbox + in_flight).contains(&most),
        "the hub grew by {most}, without it by {little}"
    );
    let slow = hub::DisconnectReason::Refused(Refusal::SlowConsumer);
    let ended = |event: &&hub::Event| matches!(event, hub::Event::Disconnected { why, .. } if *why == slow);
    assert_eq!(rest.hub_events.iter().filter(ended).count(), 1);
}

/// What is really allocated, measured, beside what is counted and what the link is charged for.
#[test]
fn v25_what_waits_for_a_member_that_reads_nothing_takes_the_memory_that_is_counted() {
    for (size, count) in
        [(64, 10_000), (300, 10_000), (500, 8_000), (4_090, 900), (9_000, 400), (33_000, 100), (60_000, 60)]
    {
        let payload: &'static [u8] = vec![9; size].leak();
        let mut limits = Limits::default();
        limits.in_flight = 1;
        let clients = ["talker", "sleeper"].map(|name| client(name, Secret::key(KEY))).into();
        let mut world = World::with(hub(limits), clients);
        world.connect_all();
        world.open(1, "ch");
        world.listen(1, 7, "ch", None);
        world.stalled = Some(1);
        let before = world.hub.load().memory;
        let info = allocation_counter::measure(|| waits(&mut world, payload, count));
        let (held, counted) = (info.bytes_current, (world.hub.load().memory - before) as i64);
        assert!(counted > i64::from(count) * size as i64, "{size}: all of it waits: {counted}");
        assert!(held * 5 < 6 * counted, "{size}: {held} bytes are held, {counted} are counted");
        let said = i64::from(count) * (size as i64 + 200);
        assert!(counted * 5 < 6 * said, "{size}: {counted} are counted, about {said} were said");
    }
}

#[test]
fn v25_lists_that_nobody_reads_take_the_memory_that_is_counted() {
    let mut world = World::ready(&["owner", "asker"]);
    for number in 0..300 {
        world.open(0, &format!("channel {number}"));
    }
    world.stalled = Some(1);
    let before = world.hub.load().memory;
    let info = allocation_counter::measure(|| {
        for token in 0..100 {
            world.call(1, token, hub::SYSTEM_CHANNEL, "channels", &[0xf6]);
            world.events[1].clear();
        }
    });
    let (held, counted) = (info.bytes_current, (world.hub.load().memory - before) as i64);
    assert!(counted > 100 * 10_000, "all of it waits: {counted}");
    assert!(held * 5 < 6 * counted, "{held} bytes are held, {counted} are counted");
}

/// The first client says something that often, of which its hub reads each by itself.
fn waits(world: &mut World, payload: &'static [u8], count: u32) {
    let (talker, now) = (LinkId::accepted(0, 1), world.now);
    let client: &mut Client = &mut world.clients[0];
    for token in 0..u64::from(count) {
        let outgoing = outgoing("ch", "ev", payload);
        client.handle_input(now, Input::Command(Command::Broadcast { token: Token(token), outgoing }));
        let mut said = BytesMut::new();
        while let Some(output) = client.poll_output() {
            let Output::Transmit { link, data } = output else { continue };
            client.handle_input(now, Input::Written { link, bytes: data.len() });
            said.extend_from_slice(&data);
        }
        // As a driver reads: a buffer of its own, of which the frame is a part.
        for said in said.chunks(commipc_protocol::READ_BUFFER) {
            let mut read = vec![0; commipc_protocol::READ_BUFFER];
            read[..said.len()].copy_from_slice(said);
            let data = Bytes::from(read).slice(..said.len());
            world.hub.handle_input(now, Input::Received { link: talker, data });
        }
        while let Some(output) = world.hub.poll_output() {
            if let Output::Transmit { link, data } = output {
                world.hub.handle_input(now, Input::Written { link, bytes: usize::from(link == talker) * data.len() });
            }
        }
    }
}

/// Each of them by its own clock: the hub when nobody says anything any more, the provider when it hears nothing of the hub.
#[test]
fn s37_a_deadline_is_kept_by_the_hub_and_by_the_provider_alone() {
    for provider_alone in [false, true] {
        let mut world = World::ready(&["provider", "caller"]);
        world.open(0, "math");
        world.provide(0, 5, "math", "sum");
        world.call(1, 1, "math", "sum", b"");
        let request = world.expect_request(0).id;
        let mut now = world.now;
        now.mono = now.mono + Duration::from_secs(30);
        if provider_alone {
            world.clients[0].handle_input(now, Input::Timeout);
            world.take_events(0);
            let late = Failure::Refused(Refusal::Deadline);
            assert!(matches!(world.next(0), Event::RequestEnded { request: id, why } if id == request && why == late));
            assert_eq!(world.clients[0].load().serving, 0);
        } else {
            assert_eq!(world.hub.load().calls, 1);
            world.hub.handle_input(now, Input::Timeout);
            assert_eq!(world.hub.load().calls, 0);
        }
    }
}

/// Between a quarter and half of its outbox nothing is news: who reads a little, and never catches up, is told of once.
#[test]
fn v25_a_reader_that_reads_a_little_is_told_of_once_and_not_with_every_message() {
    let mut limits = Limits::default();
    (limits.outbox, limits.in_flight) = (40_000, 1_000);
    let clients = ["speaker", "slow"].map(|id| client(id, Secret::key(KEY)));
    let mut world = World::with(hub(limits), clients.into());
    world.connect_all();
    world.open(1, "ch");
    world.listen(1, 7, "ch", None);
    let idle = world.hub.load().buffered;
    world.stalled = Some(1);
    let waits = |world: &World| world.hub.load().buffered - idle;
    let fills = |world: &mut World, to: usize| {
        while waits(world) < to {
            world.say(0, "ch", "ev", &[0; 500]);
        }
    };
    let reads = |world: &mut World, to: usize| while waits(world) > to && world.read_once() {};
    let told = |world: &mut World| {
        let events = std::mem::take(&mut world.hub_events);
        events.iter().filter(|event| matches!(event, hub::Event::SlowConsumer { .. })).count()
    };
    world.hub_events.clear();
    fills(&mut world, 25_000);
    assert_eq!(told(&mut world), 1, "it has fallen behind");
    for _ in 0..200 {
        world.read_once();
        fills(&mut world, 25_000);
    }
    for _ in 0..20 {
        reads(&mut world, 13_000);
        fills(&mut world, 25_000);
    }
    assert_eq!(told(&mut world), 0, "it never caught up");
    reads(&mut world, 5_000);
    fills(&mut world, 25_000);
    assert_eq!(told(&mut world), 1, "once more, when it had");
    assert!(world.is_linked(1));
}
