//! What a hub and a client hold at most, and what happens at each bound.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Event, Failure, Token};
use commipc_protocol::hub::{self, Hub};
use commipc_protocol::wire::MAGIC;
use commipc_protocol::{
    CloseReason, EventName, Flush, Input, Limits, LinkId, Machine as _, Misuse, Output, Peer, Refusal, Transport,
    Violation,
};
use support::{KEY, World, client, hub, name, outgoing};

const SECOND: Duration = Duration::from_secs(1);

/// A hub with other limits, and clients that are connected.
fn world(names: &[&str], set: impl FnOnce(&mut Limits)) -> World {
    let mut limits = Limits::default();
    set(&mut limits);
    let mut world = World::with(hub(limits), names.iter().map(|id| client(id, Secret::key(KEY))).collect());
    world.connect_all();
    world
}

fn event(text: &str) -> EventName {
    EventName::new(text).unwrap()
}

fn refused(world: &mut World, client: usize) -> Refusal {
    match world.next(client) {
        Event::Done { result: Err(Failure::Refused(refusal)), .. }
        | Event::Sent { result: Err(Failure::Refused(refusal)), .. } => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// A connection that no client of ours makes.
fn accept(hub: &mut Hub, now: commipc_protocol::Now, index: u32, source: Option<&str>) -> LinkId {
    let link = LinkId::accepted(index, 1);
    let source: Option<IpAddr> = source.map(|text| text.parse().unwrap());
    hub.handle_input(now, Input::Accepted { link, peer: Peer { source, ..Peer::unknown(Transport::Tcp) } });
    link
}

fn closed(hub: &mut Hub) -> Vec<LinkId> {
    let outputs = std::iter::from_fn(|| hub.poll_output());
    outputs.filter_map(|output| if let Output::Close { link, .. } = output { Some(link) } else { None }).collect()
}

#[test]
fn v23_a_connection_that_says_nothing_is_closed_after_the_handshake_limit() {
    let World { mut hub, mut now, .. } = world(&[], |limits| limits.handshake = SECOND * 3);
    let link = accept(&mut hub, now, 0, None);
    now.mono = now.mono + SECOND * 3;
    hub.handle_input(now, Input::Timeout);
    assert_eq!(closed(&mut hub), [link]);
    assert_eq!((hub.load(), hub.poll_timeout()), (hub::Load::default(), None));
}

#[test]
fn s15_before_authentication_only_the_handshake_is_understood() {
    for frame in [&[0, 0, 0, 2, 6, 0xa0][..], &[0, 0, 0, 2, 16, 0xa0], &[0, 0, 0, 2, 33, 0], &[0, 0, 0, 2, 200, 0]] {
        let World { mut hub, now, .. } = world(&[], |_| {});
        let link = accept(&mut hub, now, 0, None);
        hub.handle_input(now, Input::Received { link, data: [&MAGIC, frame].concat().into() });
        assert_eq!(closed(&mut hub), [link], "{frame:?}");
        assert_eq!(hub.load(), hub::Load::default());
    }
}

#[test]
fn v24_a_stranger_makes_the_hub_keep_less_than_a_frame() {
    let World { mut hub, now, .. } = world(&[], |limits| limits.handshake_frame = 500);
    let (empty, link) = (hub.load().memory, accept(&mut hub, now, 0, None));
    let with_link = hub.load().memory - empty;
    let longest = [&MAGIC[..], &500_u32.to_be_bytes(), &[1], &[0; 498]].concat();
    hub.handle_input(now, Input::Received { link, data: longest.into() });
    assert!(hub.load().memory <= with_link + 2 * 500, "{}", hub.load().memory);
    assert_eq!(closed(&mut hub), []);
    let other = accept(&mut hub, now, 1, None);
    hub.handle_input(now, Input::Received { link: other, data: [&MAGIC[..], &501_u32.to_be_bytes()].concat().into() });
    assert_eq!(closed(&mut hub), [other], "the length alone is enough");
}

#[test]
fn s1_a_frame_has_a_limit_that_hub_and_client_know() {
    let mut world = world(&["a", "b"], |limits| limits.frame = 2_000);
    world.open(0, "ch");
    world.command(0, Command::Broadcast { token: Token(1), outgoing: outgoing("ch", "ev", &[0; 2_000]) });
    assert!(matches!(world.next(0), Event::Sent { result: Err(Failure::Local(Misuse::TooLarge)), .. }));
    world.inject(0, &2_001_u32.to_be_bytes());
    let code = Violation::FrameTooLarge.code();
    assert!(matches!(world.next(0), Event::Closed(CloseReason::GoodbyeCode(got)) if got == code));
    world.open(1, "ch");
}

#[test]
fn the_defaults_are_those_of_the_protocol() {
    let it = Limits::default();
    let times = [it.handshake, it.partial_frame, it.write, it.failure_delay, it.failure_delay_max];
    assert_eq!(times.map(|time| time.as_secs()), [5, 10, 10, 1, 300]);
    let times = [it.registration, it.heartbeat, it.idle, it.join];
    assert_eq!(times.map(|time| time.as_secs()), [10, 30, 60, 60]);
    let frames = [it.handshake_frame, it.frame, commipc_protocol::FRAME_CAP];
    assert_eq!(frames, [1 << 10, 1 << 20, 64 << 20]);
    assert_eq!([it.outbox, it.memory, it.metadata], [8 << 20, 1 << 30, 4 << 10]);
    assert_eq!([it.unauthenticated, it.unauthenticated_per_source, it.free_failures as usize], [256, 32, 5]);
    assert_eq!(
        [it.channels, it.members, it.providers, it.pending_calls, it.streams],
        [1_024, 10_000, 4_096, 1_024, 256]
    );
}

/// A client that never asks is asked, and stays because it answers.
#[test]
fn s68_the_hub_asks_a_silent_client_itself() {
    let mut limits = Limits::default();
    (limits.heartbeat, limits.idle) = (SECOND * 36_000, SECOND * 72_000);
    let lasting = support::lasting_with("a", commipc_protocol::client::Reconnect::default(), limits);
    let mut world = World::with(hub(Limits::default()), vec![lasting]);
    world.connect_all();
    let said = |world: &World| world.wire.values().map(|(up, down)| (up.len(), down.len())).next().unwrap();
    let before = said(&world);
    world.pass(SECOND * 44);
    assert_eq!(said(&world), before);
    world.pass(SECOND);
    let after = said(&world);
    assert!(after.0 > before.0 && after.1 > before.1, "it is asked after three quarters of the time, and answers");
    for _ in 0..1_000 {
        world.pass(SECOND);
    }
    assert!(world.is_linked(0) && world.events[0].is_empty());
}

#[test]
fn no_limit_allows_a_frame_beyond_the_cap() {
    let mut world = world(&["a"], |limits| limits.frame = u32::MAX);
    world.inject(0, &(commipc_protocol::FRAME_CAP + 1).to_be_bytes());
    assert!(!world.is_linked(0));
}

#[test]
fn v24_a_half_frame_is_closed_in_time_and_grows_only_with_what_comes() {
    let mut world = world(&["a"], |limits| limits.partial_frame = SECOND * 2);
    let before = world.hub.load().memory;
    world.inject(0, &[0, 15, 0, 0, 33, 1, 2, 3]);
    assert!(world.hub.load().memory < before + 100, "a length is a claim");
    world.pass(SECOND);
    world.inject(0, &[4; 100]);
    world.pass(SECOND);
    assert!(!world.is_linked(0), "it counts from the first byte of the frame");
}

#[test]
fn a_client_waits_only_so_long_for_the_rest_of_a_frame() {
    let mut world = world(&["a"], |_| {});
    world.open(0, "ch");
    world.deceived = Some(0);
    world.command(0, Command::Broadcast { token: Token(3), outgoing: outgoing("ch", "ev", b"") });
    // A frame that is said to be longer than it is: what comes behind it is taken for its rest.
    let data = Bytes::from_static(&[0, 15, 0, 0, 9, 1]);
    world.clients[0].handle_input(world.now, Input::Received { link: LinkId::dialled(0, 1), data });
    world.pass(SECOND * 9);
    assert!(world.events[0].is_empty());
    world.pass(SECOND);
    assert!(matches!(world.next(0), Event::Violation(Violation::PartialFrame)));
    let lost = Err(Failure::Local(Misuse::Disconnected));
    assert!(matches!(world.next(0), Event::Sent { token: Token(3), result } if result == lost));
    assert!(matches!(world.next(0), Event::Closed(CloseReason::Violation(Violation::PartialFrame))));
}

#[test]
fn a_stream_whose_reads_all_end_within_a_frame_goes_on() {
    let mut world = world(&["a"], |limits| limits.partial_frame = SECOND * 2);
    // Frames of a type to be skipped, each cut behind its type.
    world.inject(0, &[0, 0, 0, 3, 200]);
    for _ in 0..10 {
        world.pass(SECOND);
        world.inject(0, &[1, 2, 0, 0, 0, 3, 200]);
    }
    assert!(world.is_linked(0), "every frame had its rest within a second");
    world.pass(SECOND * 2);
    assert!(!world.is_linked(0), "the last one had not");
}

#[test]
fn strangers_are_few_and_the_one_that_sent_least_has_to_go() {
    let World { mut hub, now, .. } = world(&[], |limits| limits.unauthenticated = 3);
    let links: Vec<LinkId> = (0..3).map(|index| accept(&mut hub, now, index, None)).collect();
    for (link, bytes) in links.iter().zip([3, 1, 2]) {
        let data = Bytes::copy_from_slice(&MAGIC[..bytes]);
        hub.handle_input(now, Input::Received { link: *link, data });
    }
    accept(&mut hub, now, 3, None);
    assert_eq!(closed(&mut hub), [links[1]]);
    accept(&mut hub, now, 4, None);
    assert_eq!(closed(&mut hub), [links[2]], "and not the one that came last and had no time to say anything");
    assert_eq!(hub.load().links, 3);
}

#[test]
fn a_source_cannot_take_the_places_of_all_strangers() {
    let World { mut hub, now, .. } = world(&[], |limits| {
        limits.unauthenticated_per_source = 2;
        limits.unauthenticated = 4;
    });
    let honest = accept(&mut hub, now, 0, Some("10.0.0.1"));
    for index in 1..100 {
        accept(&mut hub, now, index, Some("2001:db8::1"));
    }
    let gone = closed(&mut hub);
    assert_eq!((gone.len(), gone.contains(&honest)), (97, false));
    assert_eq!(hub.load().links, 3);
}

#[test]
fn connections_are_bounded() {
    let World { mut hub, now, .. } = world(&[], |limits| limits.connections = 2);
    let links: Vec<LinkId> = (0..3).map(|index| accept(&mut hub, now, index, None)).collect();
    assert_eq!(closed(&mut hub), [links[2]]);
}

#[test]
fn a_client_opens_so_many_channels() {
    let mut world = world(&["a", "b"], |limits| limits.channels = 2);
    for (number, channel) in ["x", "y", "z"].into_iter().enumerate() {
        world.command(
            0,
            Command::Open {
                token: Token(number as u64),
                channel: name(channel),
                access: commipc_protocol::client::Access::default(),
            },
        );
    }
    world.expect_done(0, 0);
    world.expect_done(0, 1);
    assert_eq!(refused(&mut world, 0), Refusal::TooManyChannels);
    world.open(1, "z");
    assert_eq!(world.hub.load().channels, 3);
}

#[test]
fn a_channel_has_so_many_members() {
    let mut world = world(&["a", "b", "c"], |limits| limits.members = 2);
    world.open(0, "ch");
    world.open(1, "ch");
    world.command(
        2,
        Command::Open { token: Token(1), channel: name("ch"), access: commipc_protocol::client::Access::default() },
    );
    assert_eq!(refused(&mut world, 2), Refusal::TooManyMembers);
    world.cut(0);
    world.open(2, "ch");
}

#[test]
fn a_client_provides_and_listens_to_so_many_events() {
    let mut world = world(&["a"], |limits| {
        limits.providers = 2;
        limits.listeners = 3;
    });
    world.open(0, "ch");
    for number in 0..2 {
        world.provide(0, number, "ch", &format!("event {number}"));
    }
    let provide = Command::Provide {
        token: Token(9),
        channel: name("ch"),
        event: event("one more"),
        kind: commipc_protocol::client::EventKind::Call,
    };
    world.command(0, provide);
    assert_eq!(refused(&mut world, 0), Refusal::TooManyProviders);
    for number in 10..13 {
        world.listen(0, number, "ch", Some(&format!("event {number}")));
    }
    world.command(0, Command::Listen { token: Token(20), channel: name("ch"), event: None });
    assert_eq!(refused(&mut world, 0), Refusal::TooManyListeners);
}

#[test]
fn a_client_has_so_many_calls_without_an_answer() {
    let mut world = world(&["provider", "caller"], |limits| limits.pending_calls = 2);
    world.open(0, "ch");
    world.provide(0, 1, "ch", "ev");
    for token in 0..3 {
        world.call(1, token, "ch", "ev", b"");
    }
    let (token, result) = world.expect_answered(1);
    assert_eq!(token, Token(2));
    assert!(format!("{result:?}").contains("Overloaded"), "{result:?}");
    assert_eq!(world.hub.load().calls, 2);
}

#[test]
fn metadata_is_bounded_at_its_sender() {
    let mut limits = Limits::default();
    limits.metadata = 100;
    let mut world = World::with(hub(Limits::default()), vec![support::client_with("a", Secret::key(KEY), limits)]);
    world.connect_all();
    world.open(0, "ch");
    for (len, fits) in [(100, true), (101, false)] {
        let mut outgoing = outgoing("ch", "ev", b"");
        outgoing.metadata = vec![0; len].into();
        world.command(0, Command::Broadcast { token: Token(1), outgoing });
        let Event::Sent { result, .. } = world.next(0) else { panic!("not sent") };
        assert_eq!(result, if fits { Ok(()) } else { Err(Failure::Local(Misuse::TooLarge)) });
    }
}

#[test]
fn the_driver_holds_at_most_what_is_in_flight() {
    let mut world = world(&["a", "b"], |limits| limits.in_flight = 1_000);
    world.open(0, "ch");
    world.listen(0, 1, "ch", None);
    world.stalled = Some(0);
    let mut held = 0;
    for token in 0..50 {
        let command = Command::Broadcast { token: Token(token), outgoing: outgoing("ch", "ev", &[0; 200]) };
        world.clients[1].handle_input(world.now, Input::Command(command));
        while let Some(output) = world.clients[1].poll_output() {
            let Output::Transmit { data, .. } = output else { continue };
            world.feed_hub(Input::Received { link: LinkId::accepted(1, 2), data });
        }
        while let Some(output) = world.hub.poll_output() {
            match output {
                Output::Transmit { link, data } if link == LinkId::accepted(0, 1) => held += data.len(),
                _ => {}
            }
        }
    }
    assert!((500..=1_000).contains(&held), "{held}");
    assert!(world.hub.load().memory > 50 * 200, "the rest waits");
}

/// One who talks, one who listens, and one who listens until it stops reading.
fn fan_out(stalled: bool, set: impl FnOnce(&mut Limits)) -> World {
    let mut world = world(&["talker", "listener", "sleeper"], set);
    for client in [1, 2] {
        world.open(client, "ch");
        world.listen(client, 7, "ch", None);
    }
    world.stalled = stalled.then_some(2);
    for round in 0..40 {
        for token in 0..5 {
            let command = Command::Broadcast { token: Token(token), outgoing: outgoing("ch", "ev", &[9; 500]) };
            world.clients[0].handle_input(world.now, Input::Command(command));
        }
        world.run();
        assert_eq!(world.events[1].len(), 5 * (round + 1), "every broadcast is there at once");
        world.pass(Duration::from_millis(20));
    }
    world
}

#[test]
fn v25_one_who_stops_reading_costs_its_outbox_and_nobody_else_notices() {
    let limits = |limits: &mut Limits| {
        limits.outbox = 20_000;
        limits.in_flight = 10_000;
    };
    let (awake, asleep) = (fan_out(false, limits), fan_out(true, limits));
    for client in [0, 1] {
        assert_eq!(format!("{:?}", awake.events[client]), format!("{:?}", asleep.events[client]));
    }
    for link in [LinkId::accepted(0, 1), LinkId::accepted(1, 2)] {
        assert_eq!(awake.wire[&link], asleep.wire[&link], "to the byte, and with the same times in it");
    }
    let slow = hub::DisconnectReason::Refused(Refusal::SlowConsumer);
    assert!(
        asleep.hub_events.iter().any(|event| matches!(event, hub::Event::Disconnected { why, .. } if *why == slow))
    );
    assert!(!format!("{:?}", awake.hub_events).contains("SlowConsumer"));
}

#[test]
fn v25_what_waits_for_one_who_was_ended_counts_until_the_driver_lets_go_of_it() {
    // Short messages, which each outbox holds itself, and long ones, which are shared.
    for size in [700, 20_000] {
        let mut world = world(&["talker", "sleeper"], |limits| {
            limits.outbox = 200_000;
            limits.in_flight = 50_000;
        });
        world.open(1, "ch");
        world.listen(1, 7, "ch", None);
        let before = world.hub.load().memory;
        world.stalled = Some(1);
        let say = Command::Broadcast { token: Token(1), outgoing: outgoing("ch", "ev", vec![0; size].leak()) };
        let (mut left, mut most, sleeper) = (Vec::new(), 0, LinkId::accepted(1, 2));
        while left.is_empty() {
            most = most.max(world.hub.load().memory - before);
            world.clients[0].handle_input(world.now, Input::Command(say.clone()));
            while let Some(output) = world.clients[0].poll_output() {
                let Output::Transmit { data, link } = output else { continue };
                world.clients[0].handle_input(world.now, Input::Written { link, bytes: data.len() });
                world.feed_hub(Input::Received { link: LinkId::accepted(0, 1), data });
            }
            let outputs: Vec<Output<hub::Event>> = std::iter::from_fn(|| world.hub.poll_output()).collect();
            if outputs.iter().any(|output| matches!(output, Output::Close { link, .. } if *link == sleeper)) {
                left = outputs;
            }
        }
        let of_sleeper = |output: &Output<_>| matches!(output, Output::Transmit { link, .. } if *link == sleeper);
        left.retain(of_sleeper);
        let held = (before + most).saturating_sub(world.hub.load().memory);
        assert!(most > 200_000 && held < 10_000, "{held} of {most} bytes are no longer counted");
        let bound = 200_000 + 50_000 + size + 2_048;
        assert!(most <= bound, "{most} bytes wait for one who does not read, of at most {bound}");
        drop(left);
        assert!(world.hub.load().memory <= before, "{} and before {before}", world.hub.load().memory);
    }
}

#[test]
fn v25_one_that_takes_nothing_for_too_long_is_closed_though_little_waits() {
    let mut world = world(&["talker", "sleeper"], |limits| limits.write = SECOND * 3);
    world.open(1, "ch");
    world.listen(1, 7, "ch", None);
    world.pass(SECOND * 30);
    assert!(world.is_linked(1), "idle is not stalled");
    world.stalled = Some(1);
    world.command(0, Command::Broadcast { token: Token(1), outgoing: outgoing("ch", "ev", b"x") });
    for _ in 0..29 {
        world.pass(Duration::from_millis(100));
    }
    assert!(world.is_linked(1));
    world.pass(Duration::from_millis(100));
    assert!(!world.is_linked(1));
    assert!(world.is_linked(0));
}

#[test]
fn a_frame_that_many_wait_for_is_counted_once() {
    let names: Vec<String> = (0..21).map(|number| format!("client-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = world(&names, |limits| limits.in_flight = 1);
    for client in 1..21 {
        world.open(client, "ch");
        world.listen(client, 7, "ch", None);
    }
    let before = world.hub.load().memory;
    let command = Command::Broadcast { token: Token(1), outgoing: outgoing("ch", "ev", vec![7; 500_000].leak()) };
    world.clients[0].handle_input(world.now, Input::Command(command));
    while let Some(output) = world.clients[0].poll_output() {
        let Output::Transmit { data, link } = output else { continue };
        world.clients[0].handle_input(world.now, Input::Written { link, bytes: data.len() });
        world.feed_hub(Input::Received { link: LinkId::accepted(0, 1), data });
    }
    let held = world.hub.load().memory - before;
    assert!((500_000..600_000).contains(&held), "{held}");
    world.run();
    assert_eq!(world.hub.load().memory, before, "and given back when the last one has it");
}

#[test]
fn a_full_hub_refuses_what_would_fill_it_more_and_forgets_nothing() {
    let mut world = world(&["talker", "sleeper", "other"], |limits| limits.memory = 120_000);
    (0..3).for_each(|client| world.open(client, "ch"));
    world.listen(1, 7, "ch", None);
    world.provide(1, 8, "ch", "ev");
    world.stalled = Some(1);
    let mut results = Vec::new();
    for token in 0..300 {
        world.command(0, Command::Broadcast { token: Token(token), outgoing: outgoing("ch", "ev", &[0; 700]) });
        let Event::Sent { result, .. } = world.next(0) else { panic!("not sent") };
        results.push(result.is_ok());
    }
    let taken = results.iter().filter(|taken| **taken).count();
    assert!((50..200).contains(&taken), "{taken}");
    assert_eq!(results.iter().position(|taken| !taken), Some(taken), "once full it stays so");
    assert!(world.hub.load().memory < 125_000);
    world.command(
        2,
        Command::Open { token: Token(1), channel: name("more"), access: commipc_protocol::client::Access::default() },
    );
    assert_eq!(refused(&mut world, 2), Refusal::Overloaded);
    let (channel, kind) = (name("ch"), commipc_protocol::client::EventKind::Call);
    for command in [
        Command::Send { token: Token(1), outgoing: outgoing("ch", "ev", b"") },
        Command::Provide { token: Token(1), channel: channel.clone(), event: event("more"), kind },
        Command::Listen { token: Token(1), channel, event: Some(event("more")) },
    ] {
        world.command(0, command);
        assert_eq!(refused(&mut world, 0), Refusal::Overloaded);
    }
    world.call(2, 2, "ch", "ev", b"");
    assert!(format!("{:?}", world.expect_answered(2).1).contains("Overloaded"));
    world.call(2, 3, hub::SYSTEM_CHANNEL, "channels", &[0xf6]);
    assert!(format!("{:?}", world.expect_answered(2).1).contains("Overloaded"), "nor does it write long lists");
    let stranger = LinkId::accepted(50, 1);
    world.feed_hub(Input::Accepted { link: stranger, peer: Peer::unknown(Transport::Memory) });
    assert_eq!(closed(&mut world.hub), [stranger]);
    world.cut(1);
    world.open(2, "more");
}

#[test]
fn a_full_hub_takes_no_long_frame() {
    let mut world = world(&["a", "b"], |limits| limits.memory = 200_000);
    let head = [&900_000_u32.to_be_bytes()[..], &[33]].concat();
    world.inject(0, &head);
    for _ in 0..250 {
        if world.is_linked(0) {
            world.inject(0, &[0; 1_000]);
        }
    }
    assert!(matches!(world.next(0), Event::Closed(CloseReason::Goodbye(Refusal::Overloaded))));
    world.open(1, "ch");
}

#[test]
fn a_hub_is_dialled_for_so_long() {
    let mut limits = Limits::default();
    limits.dial = SECOND * 3;
    let mut dialler = support::client_with("a", Secret::key(KEY), limits);
    let mut now = World::new(&[]).now;
    dialler.handle_input(now, Input::Command(Command::Connect));
    assert!(matches!(dialler.poll_output(), Some(Output::Dial { .. })));
    now.mono = now.mono + SECOND * 3;
    dialler.handle_input(now, Input::Timeout);
    assert!(matches!(dialler.poll_output(), Some(Output::Close { flush: Flush::Nothing, .. })));
    let unreachable = CloseReason::Unreachable(commipc_protocol::LinkEnd::Unreachable);
    assert!(matches!(dialler.poll_output(), Some(Output::Event(Event::Closed(why))) if why == unreachable));
    assert_eq!(dialler.poll_timeout(), None);
}

#[test]
fn a_full_hub_sends_those_away_who_ask_and_do_not_read() {
    let mut world = world(&["asks", "other"], |limits| limits.memory = 200_000);
    world.stalled = Some(0);
    let ping = [0, 0, 0, 4, 6, 0xa1, 0, 1];
    for _ in 0..100_000 {
        if world.is_linked(0) {
            world.inject(0, &ping);
        }
    }
    assert!(!world.is_linked(0));
    assert!(world.hub.load().memory < 100_000, "and what waited for it is gone");
    world.open(1, "ch");
}

#[test]
fn a_client_owes_its_hub_only_so_much() {
    let mut limits = Limits::default();
    limits.outbox = 10_000;
    let mut world = World::with(hub(Limits::default()), vec![support::client_with("a", Secret::key(KEY), limits)]);
    world.connect_all();
    let ping: Vec<u8> = std::iter::repeat_n([0, 0, 0, 4, 6, 0xa1, 0, 1], 10_000).flatten().collect();
    let input = Input::Received { link: LinkId::dialled(0, 1), data: ping.into() };
    world.clients[0].handle_input(world.now, input);
    world.take_events(0);
    assert!(world.events[0].iter().any(|event| matches!(event, Event::Violation(Violation::Flood))));
}

#[test]
fn a_hub_that_has_stopped_takes_nobody_any_more() {
    let mut world = world(&["a"], |_| {});
    world.feed_hub(Input::Command(hub::Command::Shutdown));
    world.run();
    let late = accept(&mut world.hub, world.now, 9, None);
    assert_eq!(closed(&mut world.hub), [late]);
    assert_eq!(world.hub_events.iter().filter(|event| **event == hub::Event::Stopped).count(), 1);
}
