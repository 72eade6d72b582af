//! Channels with passwords, and streams, across hubs that bridges join.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::{Kdf, Secret};
use commipc_protocol::bridge::Side;
use commipc_protocol::client::{
    CallFailure, ChannelSalt, Command, Credit, Event, EventKind, Failure, Payload, StreamCommand, StreamEvent,
    StreamId, Token,
};
use commipc_protocol::hub;
use commipc_protocol::{HubId, Misuse, Refusal};
use support::net::{Net, Node, address, hub_name};
use support::{name, outgoing, payload};

const WINDOW: Credit = Credit { items: 8, bytes: 64 << 10 };

fn password(number: u8) -> Secret {
    Secret::key([number; 32])
}

/// A line of three hubs: the owner of `vault` is at the first, and others at all.
fn vault(seed: u64) -> Net {
    let clients = [("owner", 0), ("here", 0), ("middle", 1), ("far", 2), ("far-2", 2)];
    let mut net = Net::new(seed, 3, &clients);
    net.bridge(0, 1);
    net.bridge(1, 2);
    net.run();
    net.open(0, "vault");
    net.protect(0, "vault", &password(1), 1);
    net
}

fn expect_closed(net: &mut Net, client: usize) -> Refusal {
    match net.next(client) {
        Event::ChannelClosed { channel, why: Failure::Refused(why) } if *channel == *"vault" => why,
        other => panic!("client {client}: {other:?}"),
    }
}

#[test]
fn s82_v32_members_of_a_protected_channel_understand_each_other_over_any_number_of_bridges() {
    for seed in 0..10 {
        let mut net = vault(seed);
        for client in 1..5 {
            net.join(client, "vault", &password(1));
            net.listen(client, 7, "vault", None);
        }
        net.listen(0, 7, "vault", None);
        net.events.iter_mut().for_each(std::collections::VecDeque::clear);
        for (client, hub) in [(0, 0), (2, 1), (3, 2)] {
            net.say(client, "vault", "up", b"signed");
            for other in (0..5).filter(|other| *other != client) {
                let heard = net.expect_message(other).message;
                assert_eq!(&heard.payload.bytes[..], b"signed");
                assert_eq!(heard.sender, address(["owner", "", "middle", "far"][client], hub), "seed {seed}");
            }
        }
        net.provide(3, 8, "vault", "sum");
        net.call_guarded(0, 1, "vault", "sum");
        let request = net.expect_request(3).id;
        net.command(3, Command::Answer { request, result: Ok(payload(b"4")) });
        let answer = net.expect_answered(0).unwrap();
        assert_eq!((answer.provider, &answer.payload.bytes[..]), (address("far", 2), &b"4"[..]));
    }
}

#[test]
fn s82_who_does_not_know_the_password_joins_from_nowhere() {
    let mut net = vault(1);
    net.try_to_join(3, 1, "vault", &password(9));
    assert_eq!(net.expect_not_done(3), Refusal::PasswordWrong);
    net.open_plain(4, 1, "vault");
    assert_eq!(net.expect_not_done(4), Refusal::PasswordRequired);
    net.call(4, 2, "vault", "sum", b"");
    assert_eq!(net.expect_refused(4), Refusal::NoProvider);
    // A guess costs what it costs at home: after some of them the answer waits.
    for _ in 0..4 {
        net.try_to_join(3, 1, "vault", &password(9));
        assert_eq!(net.expect_not_done(3), Refusal::PasswordWrong);
    }
    net.try_to_join(3, 1, "vault", &password(9));
    assert!(net.events[3].is_empty());
    net.pass(Duration::from_secs(1));
    assert_eq!(net.expect_not_done(3), Refusal::PasswordWrong);
    // Another one is not held up by that.
    net.join(4, "vault", &password(1));
}

#[test]
fn s26_s82_a_rotation_ends_memberships_at_every_hub() {
    let mut net = vault(2);
    for client in 1..5 {
        net.join(client, "vault", &password(1));
    }
    net.protect(0, "vault", &password(2), 2);
    for client in 1..5 {
        assert_eq!(expect_closed(&mut net, client), Refusal::Rekeyed);
    }
    net.try_to_join(3, 1, "vault", &password(1));
    assert_eq!(net.expect_not_done(3), Refusal::PasswordWrong);
    net.join(4, "vault", &password(2));
    net.listen(4, 7, "vault", None);
    net.say(0, "vault", "up", b"new");
    assert_eq!(net.expect_message(4).message.payload.bytes, &b"new"[..]);
    // Without a password it is another channel from then on, which anybody may open.
    net.command(0, Command::Unprotect { token: Token(3), channel: name("vault") });
    net.expect_done(0, 3);
    assert_eq!(expect_closed(&mut net, 4), Refusal::Rekeyed);
    net.open_plain(3, 1, "vault");
    net.expect_done(3, 1);
    net.call(3, 2, "vault", "nobody's", b"");
    assert_eq!(net.expect_refused(3), Refusal::NoProvider);
    for hub in 0..3 {
        assert_eq!(conflicts(&net, hub), [], "the channel that was there before is no other one");
    }
}

#[test]
fn v13_s82_only_the_owner_changes_a_channel_from_whichever_hub_somebody_asks() {
    let mut net = vault(6);
    for client in 1..5 {
        net.join(client, "vault", &password(1));
        net.listen(client, 7, "vault", None);
    }
    for client in 1..5 {
        let salt = ChannelSalt { kdf: Kdf::Key, salt: [9; 16], iterations: 0 };
        let master = support::master(&password(9), salt);
        let channel = || name("vault");
        for command in [
            Command::Protect { token: Token(2), channel: channel(), salt, master },
            Command::Unprotect { token: Token(2), channel: channel() },
            Command::Terminate { token: Token(2), channel: channel() },
        ] {
            net.command(client, command.clone());
            assert_eq!(net.expect_not_done(client), Refusal::NotOwner, "{client}: {command:?}");
        }
    }
    // Nothing has changed, and the owner can.
    net.say(0, "vault", "up", b"as before");
    for client in 1..5 {
        assert_eq!(net.expect_message(client).message.payload.bytes, &b"as before"[..]);
    }
    net.protect(0, "vault", &password(2), 2);
    for client in 1..5 {
        assert_eq!(expect_closed(&mut net, client), Refusal::Rekeyed);
    }
}

#[test]
fn s82_cut_off_from_its_home_a_channels_members_go_on_and_nobody_joins() {
    let mut net = vault(3);
    net.join(3, "vault", &password(1));
    net.join(4, "vault", &password(1));
    net.listen(4, 7, "vault", None);
    net.kill_hub(0);
    net.run();
    net.say(3, "vault", "up", b"still here");
    assert_eq!(net.expect_message(4).message.payload.bytes, &b"still here"[..]);
    let late = net.add_client("late", 2);
    net.run();
    assert!(matches!(net.next(late), Event::Ready(_)));
    net.try_to_join(late, 1, "vault", &password(1));
    assert_eq!(net.expect_not_done(late), Refusal::HomeGone);
}

/// The homes of the channels that a hub has said to be in conflict with its own `vault`.
fn conflicts(net: &Net, hub: usize) -> Vec<Option<HubId>> {
    let told = net.hub_events[hub].iter();
    told.filter_map(|event| match event {
        hub::Event::ProtectionConflict { channel, home } if **channel == *"vault" => Some(home.clone()),
        _ => None,
    })
    .collect()
}

#[test]
fn s82_a_channel_that_is_protected_on_one_side_only_is_not_bridged_and_both_hubs_say_so() {
    let mut net = Net::new(4, 2, &[("owner", 0), ("other", 1)]);
    net.open(0, "vault");
    net.protect(0, "vault", &password(1), 1);
    net.listen(0, 7, "vault", None);
    net.open(1, "vault");
    net.listen(1, 7, "vault", None);
    net.provide(1, 8, "vault", "sum");
    net.provide(0, 8, "vault", "product");
    net.bridge(0, 1);
    net.run();
    assert_eq!(conflicts(&net, 0), [None]);
    assert_eq!(conflicts(&net, 1), [Some(HubId::new(&hub_name(0)).unwrap())]);
    let before = net.crossed;
    net.say(0, "vault", "up", b"signed");
    net.say(1, "vault", "up", b"open");
    assert_eq!(net.crossed, before);
    net.call(1, 1, "vault", "product", b"");
    assert_eq!(net.expect_refused(1), Refusal::ProtectionConflict);
    net.call_guarded(0, 1, "vault", "sum");
    assert_eq!(net.expect_refused(0), Refusal::ProtectionConflict);
    // It is over when one side gives way.
    net.command(1, Command::Leave { token: Token(9), channel: name("vault") });
    net.expect_done(1, 9);
    net.call_guarded(0, 2, "vault", "sum");
    assert_eq!(net.expect_refused(0), Refusal::NoProvider);
    net.join(1, "vault", &password(1));
    net.listen(1, 7, "vault", None);
    net.say(0, "vault", "up", b"signed");
    assert_eq!(net.expect_message(1).message.payload.bytes, &b"signed"[..]);
}

/// A channel with a password and an owner at the first hub and at the last, which bridges join afterwards.
fn two_homes(seed: u64, hubs: usize, passwords: [u8; 2]) -> Net {
    let last = hubs - 1;
    let mut net = Net::new(seed, hubs, &[("one", 0), ("two", last)]);
    for (client, event) in ["product", "sum"].into_iter().enumerate() {
        net.open(client, "vault");
        net.protect(client, "vault", &password(passwords[client]), 1 + u8::try_from(client).unwrap());
        net.listen(client, 7, "vault", None);
        net.provide(client, 8, "vault", event);
    }
    for hub in 0..last {
        net.bridge(hub, hub + 1);
    }
    net.run();
    let home = |hub: usize| [Some(HubId::new(&hub_name(hub)).unwrap())];
    assert_eq!((conflicts(&net, 0), conflicts(&net, last)), (home(last).to_vec(), home(0).to_vec()));
    expect_nothing_passes(&mut net);
    net
}

fn expect_nothing_passes(net: &mut Net) {
    let before = net.crossed;
    net.say(0, "vault", "up", b"one");
    net.say(1, "vault", "up", b"two");
    for (client, event) in [(0, "sum"), (1, "product")] {
        net.call_guarded(client, 1, "vault", event);
        assert_eq!(net.expect_refused(client), Refusal::ProtectionConflict, "client {client}");
    }
    assert_eq!(net.crossed, before);
    assert!(net.events.iter().all(std::collections::VecDeque::is_empty), "{:?}", net.events);
}

#[test]
fn s82_channels_with_passwords_of_two_hubs_are_two_though_the_password_is_the_same_or_a_hub_is_between() {
    for (hubs, passwords) in [(2, [1, 2]), (2, [1, 1]), (3, [1, 2]), (3, [1, 1])] {
        // It is over when one of them is no more.
        let mut net = two_homes(11, hubs, passwords);
        net.command(1, Command::Unprotect { token: Token(9), channel: name("vault") });
        net.expect_done(1, 9);
        net.command(1, Command::Leave { token: Token(10), channel: name("vault") });
        net.expect_done(1, 10);
        net.call_guarded(0, 2, "vault", "sum");
        assert_eq!(net.expect_refused(0), Refusal::NoProvider);
        // Or when neither has a password any more, and not before.
        let mut net = two_homes(12, hubs, passwords);
        for client in [1, 0] {
            net.command(client, Command::Unprotect { token: Token(9), channel: name("vault") });
            net.expect_done(client, 9);
            if client == 1 {
                net.call(1, 2, "vault", "product", b"");
                assert_eq!(net.expect_refused(1), Refusal::ProtectionConflict);
                net.say(1, "vault", "up", b"still another");
                assert!(net.events[0].is_empty(), "{:?}", net.events[0]);
            }
        }
        let told = [0, hubs - 1].map(|hub| conflicts(&net, hub).len());
        net.say(0, "vault", "up", b"open");
        assert_eq!(net.expect_message(1).message.payload.bytes, &b"open"[..]);
        net.call(0, 3, "vault", "sum", b"");
        let request = net.expect_request(1).id;
        net.command(1, Command::Answer { request, result: Ok(payload(b"4")) });
        assert_eq!(net.expect_answered(0).unwrap().payload.bytes, &b"4"[..]);
        net.call(0, 4, "vault", "nobody's", b"");
        assert_eq!(net.expect_refused(0), Refusal::NoProvider);
        assert_eq!([0, hubs - 1].map(|hub| conflicts(&net, hub).len()), told, "nothing new to tell");
    }
}

#[test]
fn s26_s82_a_new_password_is_heard_of_over_another_bridge_when_the_one_it_was_joined_over_is_half_open() {
    let mut net = Net::new(8, 2, &[("owner", 0), ("far", 1)]);
    let old = net.bridge(0, 1);
    net.run();
    net.open(0, "vault");
    net.protect(0, "vault", &password(1), 1);
    net.join(1, "vault", &password(1));
    net.held.push(Node::Bridge(old));
    net.protect(0, "vault", &password(2), 2);
    net.bridge(0, 1);
    net.run();
    assert!(net.events[1].is_empty(), "the way to the home says nothing: {:?}", net.events[1]);
    // Both hubs give the old bridge up.
    net.pass(Duration::from_secs(120));
    assert_eq!(expect_closed(&mut net, 1), Refusal::Rekeyed);
    net.join(1, "vault", &password(2));
}

#[test]
fn s82_a_member_elsewhere_that_leaves_with_its_listeners_seems_to_be_of_no_other_channel() {
    let mut net = vault(6);
    net.join(3, "vault", &password(1));
    net.listen(3, 7, "vault", None);
    net.listen(3, 8, "vault", Some("up"));
    net.command(3, Command::Leave { token: Token(9), channel: name("vault") });
    net.expect_done(3, 9);
    for told in &net.hub_events {
        assert!(!told.iter().any(|event| matches!(event, hub::Event::ProtectionConflict { .. })), "{told:?}");
    }
}

#[test]
fn s20_s82_a_channel_ends_with_its_owner_for_its_members_at_every_hub() {
    let mut net = vault(9);
    net.join(2, "vault", &password(1));
    net.join(3, "vault", &password(1));
    net.command(0, Command::Terminate { token: Token(3), channel: name("vault") });
    for client in [2, 3] {
        assert_eq!(expect_closed(&mut net, client), Refusal::Terminated);
    }
    // The owner's going is as good.
    let mut net = vault(10);
    net.join(3, "vault", &password(1));
    net.command(0, Command::Close);
    assert_eq!(expect_closed(&mut net, 3), Refusal::Terminated);
    net.join(4, "vault", &password(1));
}

type Ends = fn(&mut Net);

/// What ends a channel with a password.
const ENDS: [(&str, Ends); 3] = [
    ("its owner ends it", |net| net.command(0, Command::Terminate { token: Token(3), channel: name("vault") })),
    ("its owner leaves", |net| net.command(0, Command::Leave { token: Token(3), channel: name("vault") })),
    ("its owner's link is lost, and that is its end", |net| net.cut_all(Node::Client(0))),
];

#[test]
fn s20_s82_who_was_cut_off_when_a_channel_ended_learns_it_when_its_hub_hears_of_the_home_again() {
    for (seed, (what, ends)) in (20..).zip(ENDS) {
        // From the home itself, or from a hub between; with somebody there who has joined since, or not.
        for (cut, back) in [(0, false), (1, false), (0, true), (1, true)] {
            let mut net = vault(seed);
            for client in [2, 3, 4] {
                net.join(client, "vault", &password(1));
            }
            net.cut(cut, Side::A);
            net.held.push(Node::Bridge(cut));
            net.events.iter_mut().for_each(std::collections::VecDeque::clear);
            ends(&mut net);
            net.run();
            if back {
                net.pass(Duration::from_secs(5));
            }
            let between = net.events[2].iter().any(|event| matches!(event, Event::ChannelClosed { .. }));
            assert_eq!(between, cut == 1, "{what}");
            assert!(net.events[3].is_empty(), "{what}: {:?}", net.events[3]);
            net.held.clear();
            net.pass(Duration::from_secs(60));
            let told = |event: &&Event| {
                let ended = Failure::Refused(Refusal::Terminated);
                matches!(event, Event::ChannelClosed { channel, why } if **channel == *"vault" && *why == ended)
            };
            for client in [2, 3, 4] {
                let count = net.events[client].iter().filter(told).count();
                assert_eq!(count, 1, "{what}, {cut}: client {client} was told {:?}", net.events[client]);
            }
        }
    }
}

#[test]
fn s20_s82_a_channel_that_ended_before_somebody_joined_has_not_ended_for_them_when_bridges_come_and_go() {
    let mut net = vault(30);
    net.cut_all(Node::Client(0));
    net.pass(Duration::from_millis(10));
    for round in 0..3 {
        net.events.iter_mut().for_each(std::collections::VecDeque::clear);
        for client in [2, 3] {
            if round == 0 {
                net.join(client, "vault", &password(1));
            }
        }
        for bridge in [0, 1] {
            net.cut(bridge, Side::B);
            net.pass(Duration::from_secs(60));
        }
        for client in [2, 3] {
            let closed = net.events[client].iter().any(|event| matches!(event, Event::ChannelClosed { .. }));
            assert!(!closed, "{round}: {:?}", net.events[client]);
        }
    }
}

#[test]
fn s82_when_the_way_to_a_home_is_lost_in_the_middle_of_a_join_that_is_told() {
    let mut net = vault(5);
    net.held.push(support::net::Node::Hub(0));
    net.try_to_join(3, 1, "vault", &password(1));
    assert!(net.events[3].is_empty());
    net.cut(1, Side::A);
    net.held.clear();
    net.run();
    assert_eq!(net.expect_not_done(3), Refusal::HomeGone);
    net.pass(Duration::from_secs(5));
    net.join(3, "vault", &password(1));
}

/// Asks for a stream and has the provider take it.
fn begun(net: &mut Net, (caller, provider): (usize, usize), guarded: bool) -> StreamId {
    let (mut outgoing, time_left) = (outgoing("vault", "ev", b""), Duration::from_secs(30));
    outgoing.guarded = guarded;
    let ask = StreamCommand::Ask { token: Token(9), outgoing, time_left, whole: None, window: WINDOW, exchange: false };
    net.command(caller, Command::Stream(ask));
    let request = net.expect_request(provider).id;
    net.command(provider, Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
    assert!(matches!(net.next(caller), Event::Stream(StreamEvent::Accepted { token: Token(9) })));
    StreamId::Request(request)
}

/// Gives as many items as are asked for, at most up to `count`.
fn give(net: &mut Net, provider: usize, stream: StreamId, given: &mut u32, count: u32) {
    while let Some(Event::Stream(StreamEvent::Demand { amount, .. })) = net.events[provider].pop_front() {
        for _ in 0..amount.items {
            if *given < count {
                let bytes = Bytes::copy_from_slice(&given.to_be_bytes());
                let payloads = vec![Payload { bytes, raw: true }];
                net.command(provider, Command::Stream(StreamCommand::Items { stream, payloads }));
                *given += 1;
            }
        }
    }
}

/// Takes one item, and says so.
fn take(net: &mut Net, caller: usize) -> Bytes {
    let Event::Stream(StreamEvent::Item { stream, payload, cost }) = net.next(caller) else { panic!("no item") };
    let amount = Credit { items: 1, bytes: cost };
    net.command(caller, Command::Stream(StreamCommand::Consumed { stream, amount }));
    payload.bytes
}

#[test]
fn s52_a_stream_crosses_bridges_at_the_pace_of_whoever_takes_it_and_is_all_its_items() {
    for (seed, guarded) in [(6, false), (7, true)] {
        let mut net = Net::new(seed, 3, &[("caller", 0), ("provider", 2)]);
        net.bridge(0, 1);
        net.bridge(1, 2);
        net.run();
        net.open(1, "vault");
        if guarded {
            net.protect(1, "vault", &password(1), 1);
            net.join(0, "vault", &password(1));
        }
        net.provide_kind(1, 5, ("vault", "ev"), EventKind::Stream);
        let stream = begun(&mut net, (0, 1), guarded);
        let mut given = 0;
        give(&mut net, 1, stream, &mut given, 100);
        assert!(given < 40, "nobody takes them yet: {given}");
        for number in 0_u32..100 {
            give(&mut net, 1, stream, &mut given, 100);
            assert_eq!(take(&mut net, 0), number.to_be_bytes()[..]);
        }
        net.command(1, Command::Stream(StreamCommand::Finish { stream }));
        assert!(matches!(net.next(0), Event::Stream(StreamEvent::Ended { token: Token(9), result: Ok(()) })));
        assert!(net.hubs.iter().flatten().all(|hub| hub.load().calls == 0));
    }
}

#[test]
fn s52_a_stream_ends_at_both_ends_when_either_gives_up_or_a_hop_is_lost() {
    let mut net = Net::new(8, 3, &[("caller", 0), ("provider", 2)]);
    let bridge = net.bridge(0, 1);
    net.bridge(1, 2);
    net.run();
    net.open(1, "vault");
    net.provide_kind(1, 5, ("vault", "ev"), EventKind::Stream);
    let StreamId::Request(request) = begun(&mut net, (0, 1), false) else { unreachable!() };
    net.events[1].clear();
    net.command(0, Command::Cancel { call: Token(9) });
    let why = Failure::Local(Misuse::Cancelled);
    assert!(matches!(net.next(1), Event::RequestEnded { request: of, why: told } if of == request && told == why));
    net.events[0].clear();
    let StreamId::Request(request) = begun(&mut net, (0, 1), false) else { unreachable!() };
    net.events[1].clear();
    net.cut(bridge, Side::B);
    net.run();
    match net.next(0) {
        Event::Stream(StreamEvent::Ended { result: Err(CallFailure::Failed { failure, .. }), .. }) => {
            assert_eq!(failure, Failure::Refused(Refusal::ProviderGone));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(net.next(1), Event::RequestEnded { request: of, .. } if of == request));
    assert!(net.hubs.iter().flatten().all(|hub| hub.load().calls == 0));
}
