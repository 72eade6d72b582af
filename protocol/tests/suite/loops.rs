//! Messages that come back to a hub they have passed, and messages that say they come from afar.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use commipc_protocol::auth::{Capabilities, Credential, IdPattern, Secret, Verifier};
use commipc_protocol::bridge::{self, Bridge, BridgeClosed, BridgeConfig, BridgeEnd, Side};
use commipc_protocol::client::Event;
use commipc_protocol::hub;
use commipc_protocol::wire::{
    Announce, Attach, Control, Fail, Flags, Forget, FrameType, Header, Kind, Remote, Target, Told,
};
use commipc_protocol::{
    ClientId, CloseReason, CredentialId, HubId, Input, Limits, Machine as _, Name, Refusal, Seed, Violation,
};
use support::net::{BRIDGE_KEY, Net, hub_name};
use support::{KEY, World, client, client_as, name};

/// A bridge to `hub-b`, and a client that listens and provides. The hub is `hub-a`.
fn world(set: impl FnOnce(&mut Limits)) -> World {
    let mut limits = Limits::default();
    set(&mut limits);
    let (secret, id) = (Secret::key([8; 32]), CredentialId::new("bridges").unwrap());
    let verifier = Verifier::new(&secret, [4; 16], 100_000).unwrap();
    let entry = Credential::new(verifier, Capabilities::BRIDGE, vec![IdPattern::any()]);
    let credentials = support::credentials(&Secret::key(KEY)).with(id.clone(), entry);
    let clients = vec![client_as("bridge", id, secret, Limits::default()), client("local", Secret::key(KEY))];
    let mut world = World::with(support::hub(limits), clients);
    world.hub.handle_input(world.now, Input::Command(hub::Command::SetCredentials(credentials)));
    world.connect_all();
    world.open(1, "news");
    world.listen(1, 7, "news", None);
    world.provide(1, 8, "news", "sum");
    let attach = Attach { id: 1, far: Some(Name::new("hub-b").unwrap()) };
    let mut body = BytesMut::new();
    attach.encode(&mut body);
    // The client, which has not sent it, does not hear the answer.
    world.deceived = Some(0);
    world.inject(0, &framed(FrameType::Attach, &body));
    world.deceived = None;
    world
}

/// Where a frame says that it has been.
struct Way<'a> {
    hops: u8,
    visited: &'a [&'a str],
}

fn framed(kind: FrameType, body: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(body.len()).unwrap() + 1);
    frame.put_u8(kind.number());
    frame.put_slice(body);
    frame.to_vec()
}

/// A message frame for the event `sum`, as the client of this name sends it at the beginning of this way.
fn frame(kind: Kind, sender: &'static str, route: u32, way: &Way<'_>) -> Vec<u8> {
    let needs_number = !matches!(kind, Kind::Broadcast | Kind::Send | Kind::Beacon);
    let replies = matches!(kind, Kind::Answer | Kind::Fault);
    let header = Header {
        kind,
        flags: Flags::RAW,
        channel: Name::new("news").unwrap(),
        event: Name::new("sum").unwrap(),
        epoch: 0,
        sender: Name::new(sender).unwrap(),
        origin: Name::new(way.visited.first().copied().unwrap_or("hub-a")).unwrap(),
        instance: &[1; 16],
        seq: 1,
        bseq: u64::from(matches!(kind, Kind::Broadcast | Kind::Beacon)),
        sent_at: 1,
        time_left: 1_000,
        request: u64::from(needs_number),
        reference: &[],
        index: 0,
        target: if replies { Target::new(Name::new("x").unwrap(), Name::new("hub-x").unwrap()) } else { Target::NONE },
        metadata: &[],
    };
    let mut protected = BytesMut::new();
    header.encode(&mut protected);
    let mut body = BytesMut::new();
    body.put_u32(route);
    body.put_u8(way.hops);
    body.put_u8(u8::try_from(way.visited.len()).unwrap());
    for hub in way.visited {
        body.put_u8(u8::try_from(hub.len()).unwrap());
        body.put_slice(hub.as_bytes());
    }
    body.put_slice(&[0x84, 0x58, u8::try_from(protected.len()).unwrap()]);
    body.put_slice(&protected);
    body.put_slice(&[0xa0, 0x40, 0x40]);
    framed(kind.into(), &body)
}

/// Gives the hub a frame on a client's link; the frames of one type that it answers with, without their heads. The client,
/// which has not sent it, does not hear of them.
fn answers(world: &mut World, client: usize, frame: &[u8], wanted: FrameType) -> Vec<Vec<u8>> {
    let before = said_to(world, client).len();
    world.deceived = Some(client);
    world.inject(client, frame);
    world.deceived = None;
    let mut rest = &said_to(world, client)[before..];
    let mut found = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (body, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        if body[0] == wanted.number() {
            found.push(body[1..].to_vec());
        }
        rest = after;
    }
    found
}

fn said_to(world: &World, client: usize) -> Vec<u8> {
    world.wire.values().nth(client).unwrap().1.clone()
}

/// Ways that a message cannot honestly have gone when it reaches `hub-a`, for a hop limit of 3.
const LOOPS: [Way<'_>; 4] = [
    Way { hops: 2, visited: &["hub-a", "hub-b"] },
    Way { hops: 2, visited: &["hub-b", "hub-a"] },
    Way { hops: 3, visited: &["hub-b"] },
    Way { hops: 255, visited: &[] },
];
const FAR: Way<'_> = Way { hops: 2, visited: &["hub-c", "hub-b"] };
const NEAR: Way<'_> = Way { hops: 0, visited: &[] };

#[test]
fn s60_v34_v38_a_call_that_comes_back_is_answered_and_runs_nowhere() {
    let mut world = world(|limits| limits.hops = 3);
    for (round, way) in (1..).zip(&LOOPS) {
        let failed = answers(&mut world, 0, &frame(Kind::Call, "bridge", round, way), FrameType::Fail);
        let [fail] = &failed[..] else { panic!("{failed:?}") };
        assert_eq!(fail[..4], round.to_be_bytes(), "under the number that the call came with");
        assert_eq!(Fail::parse(&fail[4..]).unwrap().code, Refusal::Loop.code());
        assert_eq!((world.hub.load().calls, world.hub.counters().looped), (0, u64::from(round)));
    }
    assert!(world.events[1].is_empty(), "no provider was asked");
    let looped = hub::Event::Looped { client: ClientId::new("bridge").unwrap(), channel: name("news") };
    assert_eq!(world.hub_events.iter().filter(|event| **event == looped).count(), LOOPS.len());
    // What a client of this hub said, brought back by the bridge, though its way was erased.
    let failed = answers(&mut world, 0, &frame(Kind::Call, "local", 9, &NEAR), FrameType::Fail);
    assert_eq!(failed.len(), 1);
    assert!(world.is_linked(0), "going in circles is no crime of the bridge");
    // A call that has come far is a call.
    world.inject(0, &frame(Kind::Call, "bridge", 10, &FAR));
    assert_eq!(world.expect_request(1).message.hops, 3);
}

#[test]
fn s60_what_comes_back_is_dropped_and_counted() {
    let mut world = world(|limits| limits.hops = 3);
    for (round, way) in (1..).zip(&LOOPS) {
        for kind in [Kind::Broadcast, Kind::Send, Kind::Beacon, Kind::Cancel, Kind::Answer, Kind::Fault] {
            let route = u32::from(matches!(kind, Kind::Cancel | Kind::Answer | Kind::Fault));
            world.inject(0, &frame(kind, "bridge", route, way));
        }
        assert_eq!(world.hub.counters().looped, 6 * round);
    }
    assert!(world.events[1].is_empty(), "nobody hears of it");
    assert_eq!(world.hub.counters().forwarded, 0);
    world.inject(0, &frame(Kind::Broadcast, "bridge", 0, &FAR));
    let Event::Message(heard) = world.next(1) else { panic!("not heard") };
    assert_eq!(heard.message.hops, 3);
}

#[test]
fn s79_a_bridge_brings_only_what_has_come_from_its_origin_to_the_hub_behind_it() {
    let mut world = world(|_| {});
    for (number, way) in (1..).zip([
        Way { hops: 1, visited: &["hub-c", "hub-b"] },
        Way { hops: 3, visited: &["hub-c", "hub-b"] },
        Way { hops: 2, visited: &["hub-b", "hub-c"] },
        Way { hops: 3, visited: &["hub-b", "hub-c", "hub-b"] },
        Way { hops: 1, visited: &["hub-d"] },
    ]) {
        world.inject(0, &frame(Kind::Broadcast, "bridge", 0, &way));
        assert_eq!(world.hub.counters().mismatched, number);
    }
    assert!(world.events[1].is_empty() && world.is_linked(0));
}

#[test]
fn s60_v34_only_bridges_say_where_a_message_was() {
    for way in
        [Way { hops: 1, visited: &[] }, Way { hops: 0, visited: &["hub-a"] }, Way { hops: 0, visited: &["hub-b"] }]
    {
        for kind in [Kind::Broadcast, Kind::Send, Kind::Call, Kind::Answer, Kind::Cancel, Kind::Beacon] {
            let mut world = world(|_| {});
            // Nor does it hear of the end of the other one.
            world.deceived = Some(0);
            let route = u32::from(!matches!(kind, Kind::Broadcast | Kind::Send | Kind::Beacon));
            world.inject(1, &frame(kind, "local", route, &way));
            let code = Violation::BadHop.code();
            let told = world.next(1);
            assert!(matches!(told, Event::Closed(CloseReason::GoodbyeCode(told)) if told == code), "{kind:?} {told:?}");
            assert_eq!(world.hub.counters().looped, 0);
            assert!(world.is_linked(0) && !world.is_linked(1));
        }
    }
}

#[test]
fn a_call_that_comes_back_still_needs_a_free_number() {
    for route in [0, 1 << 31] {
        let mut world = world(|_| {});
        world.inject(0, &frame(Kind::Call, "bridge", route, &LOOPS[0]));
        let code = Violation::BadRoute.code();
        assert!(matches!(world.next(0), Event::Closed(CloseReason::GoodbyeCode(told)) if told == code));
    }
}

/// Every frame that only bridges say, as one says it.
fn words_of_bridges() -> Vec<(FrameType, BytesMut)> {
    fn word<'a, C: Control<'a>>(said: &C) -> (FrameType, BytesMut) {
        let mut body = BytesMut::new();
        said.encode(&mut body);
        (C::TYPE, body)
    }
    let name = |text| Name::new(text).unwrap();
    let (channel, hub, client) = (name("news"), name("hub-b"), name("thief"));
    let (event, kind) = (Some(name("steal")), None);
    let announce = Announce {
        goal: 0,
        channel,
        event,
        path: vec![hub],
        client: Some(client),
        kind: Some(0),
        epoch: None,
        home: None,
        terms: None,
        ended: None,
    };
    let forget = Forget { goal: 0, channel, event, hub, client: Some(client), epoch: None, home: None };
    let (id, epoch, nonce, body, proof) = (1, 1, None, None, None);
    let remote = Remote { id, home: name("hub-a"), channel, asks: 0, hub, client, epoch, nonce, kind, body, proof };
    let mut fail = BytesMut::new();
    fail.put_u32(1);
    Fail { code: Refusal::Loop.code() }.encode(&mut fail);
    vec![
        word(&Attach { id, far: Some(hub) }),
        word(&announce),
        word(&forget),
        word(&remote),
        word(&Told::bare(id, 0)),
        (FrameType::Fail, fail),
    ]
}

#[test]
fn d17_v33_who_is_no_bridge_ends_with_the_first_word_that_only_bridges_say() {
    for capabilities in [Capabilities::NONE, Capabilities::OBSERVER | Capabilities::ADMIN] {
        for (kind, body) in words_of_bridges() {
            let (secret, id) = (Secret::key([8; 32]), CredentialId::new("others").unwrap());
            let verifier = Verifier::new(&secret, [4; 16], 100_000).unwrap();
            let entry = Credential::new(verifier, capabilities, vec![IdPattern::any()]);
            let credentials = support::credentials(&Secret::key(KEY)).with(id.clone(), entry);
            let clients = vec![client_as("liar", id, secret, Limits::default()), client("local", Secret::key(KEY))];
            let mut world = World::with(support::hub(Limits::default()), clients);
            world.hub.handle_input(world.now, Input::Command(hub::Command::SetCredentials(credentials)));
            world.connect_all();
            for client in [0, 1] {
                world.open(client, "news");
            }
            world.inject(0, &framed(kind, &body));
            let code = Violation::UnexpectedFrame.code();
            let told = world.next(0);
            assert!(
                matches!(told, Event::Closed(CloseReason::GoodbyeCode(told)) if told == code),
                "{kind:?}: {told:?}"
            );
            assert!(!world.is_linked(0) && world.is_linked(1), "{kind:?}");
            assert_eq!(world.hub.load().announced, 0, "{kind:?}");
            let up = |event: &hub::Event| matches!(event, hub::Event::BridgeUp { .. });
            assert!(!world.hub_events.iter().any(up), "{kind:?}");
        }
    }
}

#[test]
fn s74_d17_v33_a_bridge_that_may_be_none_at_either_hub_joins_nothing_and_says_where() {
    for side in [Side::A, Side::B] {
        let mut net = Net::new(1, 2, &[("a", 0), ("b", 1)]);
        for client in 0..2 {
            net.open(client, "news");
            net.provide(client, 5, "news", "sum");
        }
        let end = |of: Side| {
            let (id, key) = if of == side {
                (CredentialId::shared(), KEY)
            } else {
                (CredentialId::new("bridge").unwrap(), BRIDGE_KEY)
            };
            BridgeEnd { hub: Arc::from((of as usize).to_string()), credential: id, secret: Secret::key(key) }
        };
        let config = BridgeConfig {
            a: end(Side::A),
            b: end(Side::B),
            id: None,
            allow: Vec::new(),
            one_way: false,
            rate: None,
            limits: Limits::default(),
            reconnect: None,
        };
        net.bridges.push(Some(Bridge::new(config, &Seed::new([6; 32]))));
        net.bridge_events.push(Vec::new());
        net.feed_bridge(0, Input::Command(bridge::Command::Connect));
        net.run();
        let hub = HubId::new(&hub_name(side as usize)).unwrap();
        let closed = bridge::Event::Closed(BridgeClosed::NoBridge { side, hub });
        assert_eq!(net.bridge_events[0].last(), Some(&closed));
        for hub in net.hubs.iter().flatten() {
            assert_eq!((hub.load().announced, hub.load().clients), (0, 1), "{side:?}");
        }
    }
}
