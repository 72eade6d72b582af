//! What the hub allocates: for a message in the steady state, and for somebody who has proved nothing.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

mod support;

use bytes::{Bytes, BytesMut};
use commipc_protocol::client::{Command, Token};
use commipc_protocol::hub::{self, Hub};
use commipc_protocol::wire::{Control as _, Hello, MAGIC, VERSION};
use commipc_protocol::{
    Input, Instant, Limits, LinkId, Machine as _, Name, Now, Output, Peer, READ_BUFFER, Transport, UnixMillis,
};
use support::recorded::{recorded_calls, recorded_items};
use support::{World, fed, feed, outgoing};

#[test]
fn a_routed_call_allocates_nothing() {
    for (rounds, in_flight) in [(500, 1), (40, 64)] {
        let (setup, steady) = recorded_calls(rounds, in_flight, 64);
        let mut hub = fed(setup);
        // What grows to its size once has grown after the first half.
        let mut rest = steady;
        let measured = rest.split_off(rest.len() / 2);
        feed(&mut hub, rest);
        let info = allocation_counter::measure(|| feed(&mut hub, measured));
        assert_eq!(hub.load().calls, 0);
        assert_eq!(info.count_total, 0, "for {} calls, {in_flight} at a time", rounds as u64 * in_flight / 2);
    }
}

/// What is longer than an eighth of the largest buffer lies in one of its own.
#[test]
fn a_routed_call_of_many_kilobytes_allocates_once_each_way() {
    const CALLS: usize = 100;
    for (size, most) in [(6 << 10, 0), (12 << 10, 2)] {
        let (setup, mut steady) = recorded_calls(2 * CALLS, 1, size);
        let mut hub = fed(setup);
        let measured = steady.split_off(steady.len() / 2);
        feed(&mut hub, steady);
        let info = allocation_counter::measure(|| feed(&mut hub, measured));
        assert_eq!(hub.load().calls, 0);
        assert!(info.count_total <= most * CALLS as u64, "{} for {CALLS} calls of {size} bytes", info.count_total);
    }
}

#[test]
fn a_passed_item_allocates_nothing() {
    const ITEMS: usize = 4_096;
    let (setup, mut steady) = recorded_items(2 * ITEMS, 64);
    let mut hub = fed(setup);
    // What grows to its size once has grown after the first half.
    let measured = steady.split_off(steady.len() / 2);
    feed(&mut hub, steady);
    let before = hub.counters().forwarded;
    let info = allocation_counter::measure(|| feed(&mut hub, measured));
    let passed = hub.counters().forwarded - before;
    assert!(passed as usize >= ITEMS / 2, "{passed} items were passed on");
    assert_eq!(info.count_total, 0, "for {passed} items");
}

/// Connects so many strangers that say the same, and takes what the hub answers them.
fn strangers(hub: &mut Hub, count: u32, said: &[u8]) {
    let now = Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) };
    for index in 0..count {
        let link = LinkId::accepted(index, 1);
        hub.handle_input(now, Input::Accepted { link, peer: Peer::unknown(Transport::Memory) });
        hub.handle_input(now, Input::Received { link, data: Bytes::copy_from_slice(said) });
        while let Some(output) = hub.poll_output() {
            let Output::Transmit { link, data } = output else { panic!("{output:?}") };
            hub.handle_input(now, Input::Written { link, bytes: data.len() });
        }
    }
}

#[test]
fn v24_a_stranger_costs_two_kibibytes() {
    const COUNT: u32 = 256;
    let long = "n".repeat(128);
    let mut hello = BytesMut::new();
    Hello {
        versions: vec![VERSION],
        kdfs: vec![2],
        credential: Name::new(&long).unwrap(),
        client: Name::new(&long).unwrap(),
        instance: &[1; 16],
        nonce: &[2; 32],
        records: true,
        binding: 0,
        takeover: &[3; 32],
        features: 0,
    }
    .encode(&mut hello);
    let frame = |length: u32, body: &[u8]| [&MAGIC[..], &length.to_be_bytes(), &[1], body].concat();
    let challenged = frame(u32::try_from(hello.len()).unwrap() + 1, &hello);
    // Silence, a part of the greeting, all of a frame but its last byte, a challenge that is never answered, and one more
    // half frame as long as it may then be.
    let more = [&challenged[..], &512_u32.to_be_bytes(), &[2], &[0; 510]].concat();
    for said in [&[][..], &MAGIC[..5], &frame(1_024, &[0; 1_022]), &challenged, &more] {
        let mut hub = support::hub(Limits::default());
        let cost = allocation_counter::measure(|| strangers(&mut hub, COUNT, said));
        let each = cost.bytes_current / i64::from(COUNT);
        println!("{} bytes said: {each} bytes kept", said.len());
        assert_eq!(hub.load().links, 256, "{} bytes were too many", said.len());
        assert!(each <= 2_048, "{each} bytes for one that has said {}", said.len());
        let estimated = i64::try_from(hub.load().memory).unwrap();
        assert!(cost.bytes_current <= estimated, "more than the {estimated} bytes that the hub counts");
    }
}

/// What a hub is fed by so many clients that connect, are members of one channel, and each say and hear one message.
fn members(count: usize) -> Vec<Input<hub::Command>> {
    let names: Vec<String> = (0..count).map(|number| format!("client-{number}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    world.record = Some(Vec::new());
    world.connect_all();
    for client in 0..count {
        world.open(client, "news");
    }
    for client in 0..count {
        world.listen(client, 5, "news", Some("up"));
        let say = Command::Broadcast { token: Token(7), outgoing: outgoing("news", "up", &[1; 64]) };
        world.command((client + 1) % count, say);
        assert!(world.events[client].iter().any(|event| format!("{event:?}").starts_with("Message")));
        world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    }
    world.record.unwrap()
}

#[test]
fn an_idle_member_costs_three_kibibytes_and_no_buffer() {
    const COUNT: usize = 256;
    let inputs = members(COUNT);
    let mut hub = support::hub(Limits::default());
    let cost = allocation_counter::measure(|| {
        for input in &inputs {
            let input = match input {
                // As a driver reads: a buffer of its own, of which the frame is a small part, and which nobody keeps.
                Input::Received { link, data } => {
                    let mut read = Vec::with_capacity(READ_BUFFER);
                    read.extend_from_slice(data);
                    Input::Received { link: *link, data: Bytes::from(read) }
                }
                Input::Accepted { link, peer } => Input::Accepted { link: *link, peer: peer.clone() },
                Input::Written { link, bytes } => Input::Written { link: *link, bytes: *bytes },
                other => panic!("{other:?}"),
            };
            feed(&mut hub, vec![input]);
        }
    });
    assert_eq!((hub.load().links, hub.load().calls), (COUNT, 0));
    let each = cost.bytes_current / i64::try_from(COUNT).unwrap();
    println!("{each} bytes kept for a member that is idle");
    assert!(each <= 3_072, "{each} bytes for a member that is idle");
}
