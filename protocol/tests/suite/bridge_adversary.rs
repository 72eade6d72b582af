//! A bridge that is not honest: nothing it makes up counts on a channel with a password, and elsewhere it harms those who
//! trust it, and no others.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use commipc_protocol::auth::Secret;
use commipc_protocol::bridge::Side;
use commipc_protocol::client::{Command, Event, Token};
use commipc_protocol::hub::{self, DisconnectReason};
use commipc_protocol::wire::{Announce, Control as _, FrameType, Hop, Message, Terms};
use commipc_protocol::{Input, Limits, LinkId, Name, Refusal};
use support::net::{Between, Evil, Net, Node, address};
use support::payload;

fn password() -> Secret {
    Secret::key([1; 32])
}

/// Two hubs and an evil bridge, a channel with a password at the first, and members at both; and an open channel.
fn scene(seed: u64) -> Net {
    let mut net = Net::new(seed, 2, &[("a", 0), ("b", 1)]);
    net.bridge(0, 1);
    net.run();
    for (client, channel) in [(0, "vault"), (0, "open"), (1, "open")] {
        net.open(client, channel);
    }
    net.protect(0, "vault", &password(), 1);
    net.join(1, "vault", &password());
    for client in 0..2 {
        net.listen(client, 7, "vault", None);
        net.listen(client, 8, "open", None);
    }
    net
}

/// The first bridge keeps the bodies of these frames, from now on, before it passes on what `makes` makes of them.
fn keeps(net: &mut Net, what: FrameType, makes: fn(&[u8]) -> Vec<Vec<u8>>) -> Rc<RefCell<Vec<Vec<u8>>>> {
    let kept = Rc::new(RefCell::new(Vec::new()));
    let keeps = Rc::clone(&kept);
    let evil: Evil = Box::new(move |kind, body| {
        if kind != what.number() {
            return vec![(kind, body.to_vec())];
        }
        let made = makes(body);
        keeps.borrow_mut().extend(made.last().cloned());
        made.into_iter().map(|body| (kind, body)).collect()
    });
    net.evil = Some((0, evil));
    kept
}

fn is_broadcast(kind: u8) -> bool {
    kind == FrameType::Broadcast.number()
}

/// What listeners heard of one channel since this was asked last.
fn heard(net: &mut Net, client: usize, channel: &str) -> usize {
    let told = std::mem::take(&mut net.events[client]);
    told.iter().filter(|event| matches!(event, Event::Message(message) if *message.message.channel == *channel)).count()
}

#[test]
fn v1_v32_a_bridge_can_change_no_bit_of_what_is_signed() {
    let mut net = scene(1);
    let mut length = None;
    let mut at = 0;
    while length.is_none_or(|length| at < 8 * length) {
        let seen = Rc::new(RefCell::new(None));
        let tells = Rc::clone(&seen);
        let evil: Evil = Box::new(move |kind, body| {
            let mut body = body.to_vec();
            if is_broadcast(kind) {
                let (_, message) = Hop::split(&body).unwrap();
                let (start, size) = (body.len() - message.len(), message.len());
                *tells.borrow_mut() = Some(size);
                body[start + at / 8 % size] ^= 1 << (at % 8);
            }
            vec![(kind, body)]
        });
        net.evil = Some((0, evil));
        net.say(0, "vault", "up", b"true");
        net.evil = None;
        length = *seen.borrow();
        assert!(length.is_some(), "bit {at} has crossed");
        assert_eq!(heard(&mut net, 1, "vault"), 0, "bit {at}");
        // What is no message any more ends the link, and the bridge comes back.
        net.pass(Duration::from_secs(3));
        net.events[0].clear();
        at += 1;
    }
    net.pass(Duration::from_secs(130));
    net.events[1].clear();
    net.say(0, "vault", "up", b"true");
    // What is not changed is heard, as it was said.
    let heard = net.expect_message(1).message;
    assert_eq!((&heard.payload.bytes[..], heard.sender.clone()), (&b"true"[..], address("a", 0)));
}

#[test]
fn v2_what_a_bridge_repeats_is_heard_once_and_where_nothing_is_signed_once_a_minute() {
    let mut net = scene(2);
    let kept = keeps(&mut net, FrameType::Broadcast, |body| vec![body.to_vec()]);
    net.say(0, "vault", "up", b"once");
    net.say(0, "open", "up", b"once");
    assert_eq!((kept.borrow().len(), net.events[1].len()), (2, 2));
    net.events[1].clear();
    net.evil = None;
    for (after, opens) in [(1, 0), (61, 1), (5, 0), (200, 1)] {
        net.pass(Duration::from_secs(after));
        for body in kept.borrow().iter() {
            net.forge(0, Side::B, FrameType::Broadcast.number(), body);
        }
        let told = std::mem::take(&mut net.events[1]);
        let of = |channel: &str| {
            told.iter().filter(|it| matches!(it, Event::Message(m) if *m.message.channel == *channel)).count()
        };
        assert_eq!((of("vault"), of("open")), (0, opens), "after {after} s more");
    }
}

#[test]
fn a7_a_stripped_or_made_up_path_gets_a_message_nowhere() {
    let mut net = scene(3);
    let hub = |net: &Net| net.hubs[1].as_ref().unwrap().counters();
    for path in [&b"\0"[..], b"\x02\x05hub-a\x05hub-b", b"\x02\x05hub-c\x05hub-a", b"\x01\x05hub-b"] {
        let path = path.to_vec();
        let evil: Evil = Box::new(move |kind, body| {
            let mut said = body.to_vec();
            if is_broadcast(kind) {
                let (_, message) = Hop::split(body).unwrap();
                said = [&[0, 0, 0, 0, path[0]], &path[..], message].concat();
            }
            vec![(kind, said)]
        });
        let before = hub(&net);
        net.evil = Some((0, evil));
        net.say(0, "open", "up", b"");
        assert_eq!(heard(&mut net, 1, "open"), 0);
        let after = hub(&net);
        assert_eq!(after.mismatched + after.looped, before.mismatched + before.looped + 1);
    }
}

fn name(text: &'static str) -> Name<'static> {
    Name::new(text).unwrap()
}

/// What no honest bridge to `hub-a` announces to `hub-b`.
fn impossible() -> Vec<(&'static str, Announce<'static>)> {
    let terms = Terms { kdf: 2, salt: &[9; 16], iterations: 0 };
    let (a, b, c) = (name("hub-a"), name("hub-b"), name("hub-c"));
    let good = || provider(vec![a], "thief");
    vec![
        ("a client of the hub itself", provider(vec![b], "b")),
        ("the same through itself", provider(vec![a, b], "b")),
        ("not from the hub behind it", provider(vec![c], "thief")),
        ("a circle", provider(vec![a, c, a], "thief")),
        ("the hub's own channel", Announce { channel: name("__comm_ipc_system"), ..good() }),
        ("the hub's own name", Announce { client: Some(name("system")), ..good() }),
        ("no such kind", Announce { kind: Some(9), ..good() }),
        ("an epoch without a home", Announce { epoch: Some(1), ..good() }),
        (
            "a home elsewhere than it says",
            Announce {
                goal: 3,
                event: None,
                client: None,
                kind: None,
                epoch: Some(5),
                home: Some(c),
                terms: Some(terms),
                ..good()
            },
        ),
        (
            "the hub's own protection",
            Announce {
                goal: 3,
                event: None,
                client: None,
                kind: None,
                epoch: Some(5),
                home: Some(b),
                path: vec![a, b],
                terms: Some(terms),
                ended: None,
                channel: name("open"),
            },
        ),
    ]
}

fn provider(path: Vec<Name<'static>>, client: &'static str) -> Announce<'static> {
    Announce {
        goal: 0,
        channel: name("open"),
        event: Some(name("steal")),
        path,
        client: Some(name(client)),
        kind: Some(0),
        epoch: None,
        home: None,
        terms: None,
        ended: None,
    }
}

#[test]
fn d17_v33_a7_a_bridge_announces_nothing_of_the_hub_it_talks_to_nor_what_cannot_be() {
    let mut net = scene(4);
    for (what, announced) in impossible() {
        net.announce(0, Side::B, &announced);
        net.call(1, 1, "open", "steal", b"");
        assert_eq!(net.expect_refused(1), Refusal::NoProvider, "{what}");
        net.open_plain(1, 2, "fresh");
        net.expect_done(1, 2);
        net.command(1, Command::Leave { token: Token(3), channel: support::name("fresh") });
        net.expect_done(1, 3);
    }
    assert_eq!(net.hubs[1].as_ref().unwrap().counters().misannounced, 8);
    // What it may say, and what is the harm of a bridge that lies: who calls on an open channel may be answered by it.
    net.announce(0, Side::B, &provider(vec![name("hub-a")], "thief"));
    net.call(1, 1, "open", "steal", b"");
    assert!(
        matches!(net.expect_refused(1), Refusal::NoProvider),
        "the honest hub behind it does not know the provider"
    );
}

#[test]
fn s82_a7_a_made_up_protection_opens_nothing_and_closes_nothing_but_new_names() {
    let mut net = scene(5);
    let terms = Terms { kdf: 2, salt: &[9; 16], iterations: 0 };
    let record = |channel: &'static str, epoch: u64, home: &'static str| Announce {
        goal: 3,
        channel: name(channel),
        event: None,
        path: if home == "hub-a" { vec![name("hub-a")] } else { vec![name("hub-a"), name(home)] },
        client: None,
        kind: None,
        epoch: Some(epoch),
        home: Some(name(home)),
        terms: Some(terms),
        ended: None,
    };
    // Another home for a name whose members are here: they stay, and are told nothing.
    net.announce(0, Side::B, &record("vault", 9, "hub-x"));
    net.events[1].clear();
    net.say(0, "vault", "up", b"still");
    assert_eq!(heard(&mut net, 1, "vault"), 1);
    // A home for an open channel with members is a conflict that is told; the channel goes on here.
    net.announce(0, Side::B, &record("open", 9, "hub-x"));
    let conflict =
        |event: &hub::Event| matches!(event, hub::Event::ProtectionConflict { channel, .. } if **channel == *"open");
    assert!(net.hub_events[1].iter().any(conflict));
    net.open_plain(1, 1, "open");
    net.expect_done(1, 1);
    // A later epoch from the way to the home: whoever has the password can join again, or not; nobody is let in without it.
    net.announce(0, Side::B, &record("vault", 7, "hub-a"));
    let told = std::mem::take(&mut net.events[1]);
    assert!(told.iter().any(|event| matches!(event, Event::ChannelClosed { .. })), "as bad as cutting the line");
    net.try_to_join(1, 1, "vault", &Secret::key([9; 32]));
    assert_eq!(net.expect_not_done(1), Refusal::PasswordWrong);
}

#[test]
fn d15_v31_a7_who_floods_the_doubles_of_a_hub_keeps_nobody_elses_messages_out() {
    let mut limits = Limits::default();
    limits.bridge_doubles = 20;
    let mut net = Net::with(6, 3, &[("a", 0), ("b", 1), ("c", 2)], limits);
    net.bridge(0, 1);
    net.bridge(2, 1);
    net.run();
    for client in 0..3 {
        net.open(client, "open");
        net.listen(client, 8, "open", None);
    }
    let copies: Evil = Box::new(|kind, body| {
        if !is_broadcast(kind) {
            return vec![(kind, body.to_vec())];
        }
        // Its payload ends the message, before an empty tag.
        let copy = |number: u8| {
            let mut body = body.to_vec();
            let at = body.len() - 2;
            body[at] = number;
            (kind, body)
        };
        (0..50).map(copy).collect()
    });
    net.evil = Some((0, copies));
    net.say(0, "open", "up", b"flood");
    net.evil = None;
    assert_eq!(heard(&mut net, 1, "open"), 1, "all have one number");
    assert_eq!(net.hubs[1].as_ref().unwrap().counters().unremembered, 30);
    net.events[2].clear();
    net.say(2, "open", "up", b"honest");
    assert_eq!(heard(&mut net, 1, "open"), 1);
    net.events[0].clear();
    net.say(0, "open", "up", b"later");
    assert_eq!(heard(&mut net, 1, "open"), 0);
    net.pass(Duration::from_secs(60));
    net.events[0].clear();
    net.say(0, "open", "up", b"later");
    assert_eq!(heard(&mut net, 1, "open"), 1, "in a minute it may again");
}

#[test]
fn v4_v7_a7_nothing_that_a_bridge_answers_itself_is_an_answer_where_calls_are_signed() {
    let mut net = scene(7);
    net.provide(0, 9, "vault", "sum");
    // The provider's answer is replaced by a changed one.
    net.evil = Some((
        0,
        Box::new(|kind, body| {
            let mut body = body.to_vec();
            if kind == FrameType::Answer.number() {
                let (_, bytes) = Hop::split(&body).unwrap();
                let len = Message::parse(bytes).unwrap().payload.len();
                let at = body.len() - 34 - len;
                body[at] ^= 1;
            }
            vec![(kind, body)]
        }),
    ));
    net.call_guarded(1, 1, "vault", "sum");
    let request = net.expect_request(0);
    assert_eq!(request.message.sender, address("b", 1));
    net.command(0, Command::Answer { request: request.id, result: Ok(payload(b"true")) });
    assert!(net.events[1].iter().all(|event| !matches!(event, Event::Answered { .. })), "{:?}", net.events[1]);
    net.pass(Duration::from_secs(31));
    let ended = net.events[1].iter().filter(|event| matches!(event, Event::Answered { result: Err(_), .. })).count();
    assert_eq!(ended, 1, "the caller's deadline ends it");
}

#[test]
fn v25_a_bridge_for_which_a_broadcast_waits_too_long_is_ended_and_nobody_waits_for_it() {
    let mut net = scene(8);
    net.deaf.push(Node::Bridge(0));
    net.say(0, "open", "up", b"1");
    net.pass(Duration::from_secs(4));
    net.say(0, "open", "up", b"2");
    assert!(net.hub_events[0].iter().all(|event| !matches!(event, hub::Event::BridgeDown { .. })));
    net.pass(Duration::from_secs(1));
    net.say(0, "open", "up", b"3");
    let ended = |event: &hub::Event| {
        matches!(event, hub::Event::Disconnected { why: DisconnectReason::Refused(Refusal::SlowConsumer), .. })
    };
    assert!(net.hub_events[0].iter().any(ended));
    net.deaf.clear();
    net.pass(Duration::from_secs(90));
    net.events[1].clear();
    net.say(0, "open", "up", b"4");
    assert_eq!(heard(&mut net, 1, "open"), 1, "it is back, without what has waited");
}

#[test]
fn s78_v2_a_call_that_a_bridge_doubles_runs_once_at_a_time_and_where_it_is_signed_once() {
    let mut net = scene(9);
    let kept = keeps(&mut net, FrameType::Call, |body| {
        let mut again = body.to_vec();
        again[2] ^= 1;
        vec![body.to_vec(), again]
    });
    for (channel, runs_again) in [("open", true), ("vault", false)] {
        net.provide(1, 9, channel, "sum");
        if channel == "vault" {
            net.call_guarded(0, 1, channel, "sum")
        } else {
            net.call(0, 1, channel, "sum", b"")
        };
        let request = net.expect_request(1).id;
        assert!(net.events[1].is_empty(), "{channel}: the same call does not run beside itself");
        net.command(1, Command::Answer { request, result: Ok(payload(b"4")) });
        assert!(net.expect_answered(0).is_ok(), "{channel}");
        let body = kept.borrow().last().unwrap().clone();
        net.forge(0, Side::B, FrameType::Call.number(), &body);
        let asked = std::mem::take(&mut net.events[1]);
        let asked = asked.iter().filter(|event| matches!(event, Event::Request(_))).count();
        assert_eq!(asked, usize::from(runs_again), "{channel}");
        // What it has started there, its caller's hub knows nothing of.
        assert!(net.events[0].iter().all(|event| !matches!(event, Event::Answered { .. })));
        net.events[0].clear();
    }
}

#[test]
fn a7_on_an_open_channel_a_bridge_speaks_for_anybody_elsewhere() {
    let mut net = scene(10);
    let evil: Evil = Box::new(|kind, body| {
        let mut body = body.to_vec();
        if is_broadcast(kind) {
            // The payload ends the message, before an empty tag; the sender is `a`.
            let at = body.len() - 2;
            body[at] = b'?';
            let sender = body.windows(2).rposition(|two| two == b"\x61a").unwrap();
            body[sender + 1] = b'z';
        }
        vec![(kind, body)]
    });
    net.evil = Some((0, evil));
    net.say(0, "open", "up", b"!");
    let message = net.expect_message(1).message;
    assert_eq!((message.sender.clone(), &message.payload.bytes[..]), (address("z", 0), &b"?"[..]));
}

#[test]
fn a7_a_bridge_reads_what_passes() {
    let mut net = scene(11);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let keeps = Rc::clone(&seen);
    net.evil = Some((
        0,
        Box::new(move |kind, body| {
            if is_broadcast(kind) {
                let (_, bytes) = Hop::split(body).unwrap();
                keeps.borrow_mut().push(Message::parse(bytes).unwrap().payload.to_vec());
            }
            vec![(kind, body.to_vec())]
        }),
    ));
    for channel in ["open", "vault"] {
        net.say(0, channel, "up", b"between us");
    }
    assert_eq!(*seen.borrow(), [b"between us", b"between us"]);
}

/// Hides one broadcast on a channel with a password, and all beacons as well if that is said; what the member there is told.
fn hidden(seed: u64, beacons: bool) -> usize {
    let mut net = scene(seed);
    net.say(0, "vault", "up", b"first");
    assert_eq!(heard(&mut net, 1, "vault"), 1);
    net.evil = Some((
        0,
        Box::new(move |kind, body| {
            let hides = is_broadcast(kind) || (beacons && kind == FrameType::Beacon.number());
            if hides { Vec::new() } else { vec![(kind, body.to_vec())] }
        }),
    ));
    net.say(0, "vault", "up", b"hidden");
    net.pass(Duration::from_secs(11));
    net.events[1].iter().filter(|event| matches!(event, Event::Gap(gap) if (gap.first, gap.last) == (2, 2))).count()
}

#[test]
fn a7_what_a_bridge_hides_shows_where_beacons_pass() {
    assert_eq!(hidden(12, false), 1);
}

#[test]
fn a7_what_a_bridge_hides_with_all_beacons_stays_hidden() {
    assert_eq!(hidden(13, true), 0);
}

/// Not even a hub that told of its own channels would be heard beyond the bridge.
#[test]
fn s77_d17_nothing_of_a_hubs_own_channels_passes_whatever_is_allowed() {
    for (allow, channel, passes) in [
        ("__comm_ipc*", "__comm_ipc_system", false),
        ("*", "__comm_ipc_system", false),
        ("*", "news", true),
        ("__comm_ipc*", "news", false),
    ] {
        let mut net = Net::new(1, 2, &[("a", 0), ("b", 1)]);
        net.bridge_with(0, 1, &Between { allow: vec![allow], ..Between::default() });
        net.open(1, "news");
        net.open(1, "__comm_ipc_system");
        net.listen(1, 7, "__comm_ipc_system", None);
        net.run();
        assert!(net.is_bridged(0));
        let before = net.crossed;
        net.call(0, 1, "__comm_ipc_system", "members", b"\xa1\x67channel\x64news");
        if allow == "*" {
            net.expect_answered(0).unwrap();
        } else {
            assert_eq!(net.expect_refused(0), Refusal::NoSuchChannel, "{allow}");
            assert_eq!(net.crossed, before, "{allow}");
        }
        // The first hub says that there is something at it, on whichever of the bridge's links is open.
        let announced = Announce {
            goal: 2,
            channel: name(channel),
            event: None,
            path: Vec::new(),
            client: Some(name("liar")),
            kind: None,
            epoch: None,
            home: None,
            terms: None,
            ended: None,
        };
        let mut body = BytesMut::new();
        announced.encode(&mut body);
        let mut frame = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
        frame.push(FrameType::Announce.number());
        frame.extend_from_slice(&body);
        let before = net.crossed;
        for generation in 0..4 {
            let link = LinkId::dialled(Side::A as u32, generation);
            net.feed_bridge(0, Input::Received { link, data: Bytes::copy_from_slice(&frame) });
        }
        net.run();
        assert_eq!(net.crossed > before, passes, "{allow} {channel}");
    }
}
