//! Owners that are at another hub than their channel, and keys of owners that outlive their processes.

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

use bytes::BytesMut;
use commipc_protocol::auth::{OwnerKey, Secret};
use commipc_protocol::bridge::Side;
use commipc_protocol::client::{Access, ChannelSalt, Command, Event, Failure, Token};
use commipc_protocol::hub;
use commipc_protocol::wire::{Control as _, FrameType, Protect, Remote, Told};
use commipc_protocol::{AfterGrace, Input, Limits, Misuse, OwnerPolicy, Refusal};
use support::net::{Evil, Net};
use support::{name, payload};

/// At the home hub the one who made `vault`, and a member; members at the others. The owner acts from two bridges away.
const MAKER: usize = 0;
const HERE: usize = 1;
const MIDDLE: usize = 2;
const OWNER: usize = 3;
const FAR: usize = 4;

const OPERATE: u64 = 2;

fn password(number: u8) -> Secret {
    Secret::key([number; 32])
}

fn patient() -> Limits {
    let mut limits = Limits::default();
    (limits.free_failures, limits.free_failures_per_source) = (10_000, 10_000);
    limits
}

/// The channel and its members. The owner's key is in other hands than those that made it.
fn scene(seed: u64, limits: Limits) -> (Net, OwnerKey) {
    let clients = [("maker", 0), ("here", 0), ("middle", 1), ("owner", 2), ("far", 2)];
    let mut net = Net::with(seed, 3, &clients, limits);
    net.bridge(0, 1);
    net.bridge(1, 2);
    net.run();
    net.open(MAKER, "vault");
    net.protect(MAKER, "vault", &password(1), 1);
    let key = net.clients[MAKER].owner_key(&name("vault")).unwrap();
    for client in [HERE, MIDDLE, OWNER, FAR] {
        net.join(client, "vault", &password(1));
    }
    net.command(OWNER, Command::SetOwnerKey(key.clone()));
    net.listen(OWNER, 7, "vault", None);
    net.provide(OWNER, 8, "vault", "sum");
    net.events.iter_mut().for_each(std::collections::VecDeque::clear);
    (net, key)
}

fn protects(client: usize, net: &mut Net, number: u8) {
    let secret = password(number);
    let salt = ChannelSalt { kdf: secret.kdf(), salt: [number; 16], iterations: 0 };
    let master = support::master(&secret, salt);
    net.command(client, Command::Protect { token: Token(2), channel: name("vault"), salt, master });
}

fn unprotect() -> Command {
    Command::Unprotect { token: Token(2), channel: name("vault") }
}

fn terminate() -> Command {
    Command::Terminate { token: Token(2), channel: name("vault") }
}

fn expect_closed(net: &mut Net, client: usize) -> Refusal {
    match net.next(client) {
        Event::ChannelClosed { channel, why: Failure::Refused(why) } if *channel == *"vault" => why,
        other => panic!("client {client}: {other:?}"),
    }
}

/// How often the home has changed the channel's password since it was made.
fn changes(net: &Net) -> usize {
    let changed = |event: &&hub::Event| matches!(event, hub::Event::ProtectionChanged { .. });
    net.hub_events[0].iter().filter(changed).count() - 1
}

fn expect_nothing_held(net: &Net) {
    for hub in net.hubs.iter().flatten() {
        assert_eq!((hub.load().errands, hub.load().calls), (0, 0));
    }
}

/// That nothing has changed for anybody.
fn expect_as_before(net: &mut Net) {
    assert_eq!(changes(net), 0);
    net.events.iter_mut().for_each(std::collections::VecDeque::clear);
    net.listen(FAR, 70, "vault", None);
    for client in [MAKER, HERE, MIDDLE, OWNER] {
        net.events[OWNER].clear();
        net.say(client, "vault", "up", b"as before");
        assert_eq!(net.expect_message(FAR).message.payload.bytes, &b"as before"[..]);
    }
}

/// That the owner, and nobody else, is a member with this password, and is as good a member as before.
fn expect_rotated(net: &mut Net, number: u8) {
    net.try_to_join(FAR, 1, "vault", &password(1));
    assert_eq!(net.expect_not_done(FAR), Refusal::PasswordWrong);
    for client in [HERE, MIDDLE, FAR] {
        net.join(client, "vault", &password(number));
        net.say(client, "vault", "up", b"again");
        assert_eq!(net.expect_message(OWNER).message.payload.bytes, &b"again"[..], "{client}");
    }
    net.call_guarded(HERE, 9, "vault", "sum");
    let request = net.expect_request(OWNER).id;
    net.command(OWNER, Command::Answer { request, result: Ok(payload(b"4")) });
    assert!(net.expect_answered(HERE).is_ok());
    net.listen(HERE, 71, "vault", None);
    net.say(OWNER, "vault", "up", b"mine");
    assert_eq!(net.expect_message(HERE).message.payload.bytes, &b"mine"[..]);
}

#[test]
fn v13_s26_s82_an_owner_two_bridges_away_gives_a_channel_a_new_password_and_everybody_else_has_to_join_again() {
    for seed in 0..5 {
        let (mut net, _) = scene(seed, Limits::default());
        protects(OWNER, &mut net, 2);
        net.expect_done(OWNER, 2);
        assert!(net.events[OWNER].is_empty(), "its handle goes on");
        for client in [MAKER, HERE, MIDDLE, FAR] {
            if [MAKER, HERE].contains(&client) {
                assert!(matches!(net.next(client), Event::OwnerChanged { owner: None, .. }));
            }
            assert_eq!(expect_closed(&mut net, client), Refusal::Rekeyed, "{client}");
        }
        expect_rotated(&mut net, 2);
        // Once more, from where it is by now, and from nowhere else.
        protects(OWNER, &mut net, 3);
        net.expect_done(OWNER, 2);
        protects(FAR, &mut net, 4);
        assert_eq!(expect_closed(&mut net, FAR), Refusal::Rekeyed);
        assert_eq!(net.expect_not_done(FAR), Refusal::NotMember);
        assert_eq!(changes(&net), 2);
        expect_nothing_held(&net);
    }
}

#[test]
fn s20_s82_an_owner_two_bridges_away_ends_a_channel_or_its_password_for_all() {
    for (command, why) in [(terminate(), Refusal::Terminated), (unprotect(), Refusal::Rekeyed)] {
        let (mut net, _) = scene(1, Limits::default());
        net.command(OWNER, command);
        assert_eq!(expect_closed(&mut net, OWNER), why, "there is nothing to be a member of");
        net.expect_done(OWNER, 2);
        net.events[MAKER].clear();
        for client in [HERE, MIDDLE, FAR] {
            net.events[client].retain(|event| !matches!(event, Event::OwnerChanged { .. }));
            assert_eq!(expect_closed(&mut net, client), why, "{client}");
        }
        // Whoever comes first owns it.
        net.open(HERE, "vault");
        net.protect(HERE, "vault", &password(5), 5);
        net.join(FAR, "vault", &password(5));
        expect_nothing_held(&net);
    }
}

#[test]
fn v13_s82_without_the_key_or_with_another_one_nothing_is_done_from_afar() {
    let (mut net, key) = scene(2, Limits::default());
    let foreign = OwnerKey::new([9; 32], key.hub().clone(), key.channel().clone());
    let misplaced = OwnerKey::parse(key.to_text().replace("hub-a", "hub-c").as_bytes()).unwrap();
    for (number, wrong) in [None, Some(foreign), Some(misplaced)].into_iter().enumerate() {
        if let Some(wrong) = wrong {
            net.command(FAR, Command::SetOwnerKey(wrong));
        }
        protects(FAR, &mut net, 2);
        assert_eq!(net.expect_not_done(FAR), Refusal::NotOwner, "{number}");
        for command in [unprotect(), terminate()] {
            net.command(FAR, command);
            assert_eq!(net.expect_not_done(FAR), Refusal::NotOwner, "{number}");
        }
    }
    expect_as_before(&mut net);
    expect_nothing_held(&net);
}

#[test]
fn v20_s82_whoever_tries_keys_from_afar_waits_longer_and_longer_and_holds_up_nobody() {
    let (mut net, key) = scene(3, Limits::default());
    net.command(FAR, Command::SetOwnerKey(OwnerKey::new([9; 32], key.hub().clone(), key.channel().clone())));
    for _ in 0..5 {
        net.command(FAR, terminate());
        assert_eq!(net.expect_not_done(FAR), Refusal::NotOwner);
    }
    for seconds in [1, 2, 4] {
        net.command(FAR, terminate());
        net.pass(Duration::from_millis(seconds * 1_000 - 1));
        assert!(net.events[FAR].is_empty(), "{seconds}");
        net.pass(Duration::from_millis(1));
        assert_eq!(net.expect_not_done(FAR), Refusal::NotOwner);
    }
    protects(OWNER, &mut net, 2);
    net.expect_done(OWNER, 2);
    expect_nothing_held(&net);
}

/// A bridge that makes something else of the operations that cross it.
fn spoils(change: impl Fn(&mut Remote<'_>, &mut Vec<u8>) + 'static) -> Evil {
    Box::new(move |kind, body| match Remote::parse(body) {
        Ok(mut remote) if kind == FrameType::Remote.number() && remote.asks == OPERATE => {
            let mut inner = remote.body.unwrap().to_vec();
            change(&mut remote, &mut inner);
            let (mut out, nonce) = (BytesMut::new(), remote.nonce.copied());
            Remote { body: Some(&inner), nonce: nonce.as_ref(), ..remote }.encode(&mut out);
            vec![(kind, out.to_vec())]
        }
        _ => vec![(kind, body.to_vec())],
    })
}

#[test]
fn v13_a7_a_bridge_can_change_no_byte_of_what_an_owner_says() {
    let (mut net, _) = scene(4, patient());
    let length = Rc::new(RefCell::new(usize::MAX));
    let mut at = 0;
    while at < *length.borrow() {
        let seen = Rc::clone(&length);
        net.evil = Some((
            0,
            spoils(move |_, inner| {
                *seen.borrow_mut() = inner.len();
                inner[at] ^= 1;
            }),
        ));
        protects(OWNER, &mut net, 2);
        assert_eq!(net.expect_not_done(OWNER), Refusal::NotOwner, "byte {at}");
        at += 1;
    }
    assert!(at > 140, "{at}");
    for kind in [FrameType::Unprotect, FrameType::Terminate, FrameType::Reclaim, FrameType::Hello] {
        net.evil = Some((0, spoils(move |remote, _| remote.kind = Some(kind.number().into()))));
        protects(OWNER, &mut net, 2);
        assert_eq!(net.expect_not_done(OWNER), Refusal::NotOwner, "{kind:?}");
    }
    net.evil = Some((0, spoils(|remote, _| remote.nonce = Some(&[7; 32]))));
    protects(OWNER, &mut net, 2);
    assert_eq!(net.expect_not_done(OWNER), Refusal::NotOwner);
    net.evil = None;
    expect_as_before(&mut net);
    protects(OWNER, &mut net, 2);
    net.expect_done(OWNER, 2);
}

/// Keeps operations that cross the first bridge, and passes them on or not.
fn keeps(passes: bool) -> (Rc<RefCell<Vec<Vec<u8>>>>, Evil) {
    let kept: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let keep = Rc::clone(&kept);
    let evil: Evil = Box::new(move |kind, body| {
        let is_operation = kind == FrameType::Remote.number() && Remote::parse(body).unwrap().asks == OPERATE;
        if is_operation {
            keep.borrow_mut().push(body.to_vec());
        }
        if is_operation && !passes { Vec::new() } else { vec![(kind, body.to_vec())] }
    });
    (kept, evil)
}

#[test]
fn v2_v13_a7_an_operation_that_a_bridge_repeats_later_is_nothing() {
    let (mut net, _) = scene(5, Limits::default());
    let (kept, evil) = keeps(false);
    net.evil = Some((0, evil));
    net.command(OWNER, terminate());
    net.pass(Duration::from_secs(70));
    match net.next(OWNER) {
        Event::Done { result: Err(Failure::Local(Misuse::Deadline)), .. } => {}
        other => panic!("{other:?}"),
    }
    net.evil = None;
    let old = kept.borrow_mut().pop().unwrap();
    let replay = Remote::parse(&old).unwrap();
    // As it was, and as the answer to challenges that are made for it.
    net.forge(0, Side::A, FrameType::Remote.number(), &old);
    for id in 1_000..1_003 {
        let ask = Remote { id, asks: 0, nonce: None, kind: None, body: None, ..replay.clone() };
        for remote in [ask, Remote { id, ..replay.clone() }] {
            let mut body = BytesMut::new();
            remote.encode(&mut body);
            net.forge(0, Side::A, FrameType::Remote.number(), &body);
        }
    }
    expect_as_before(&mut net);
    net.pass(Duration::from_secs(70));
    expect_nothing_held(&net);
}

/// The next link's frame would be longer than the one it came in, and longer than any may be.
#[test]
fn an_operation_as_long_as_a_frame_may_be_ends_nobody_elses_link() {
    let (mut net, _) = scene(8, Limits::default());
    let (kept, evil) = keeps(false);
    net.evil = Some((0, evil));
    net.command(OWNER, terminate());
    net.pass(Duration::from_secs(70));
    net.evil = None;
    let old = kept.borrow_mut().pop().unwrap();
    let remote = Remote { id: 1, asks: 0, nonce: None, kind: None, body: None, ..Remote::parse(&old).unwrap() };
    let most = Limits::default().frame as usize;
    let junk = vec![0; most];
    let length = |remote: &Remote<'_>| {
        let mut body = BytesMut::new();
        remote.encode(&mut body);
        body
    };
    // The hub in the middle has given out many numbers, so that its own is longer than the last one here.
    for id in (1_000..1_300).chain([1]) {
        net.forge(1, Side::A, FrameType::Remote.number(), &length(&Remote { id, ..remote.clone() }));
    }
    let mut asked = Remote { asks: OPERATE, nonce: Some(&[1; 32]), kind: Some(1), body: Some(&junk), ..remote };
    let over = length(&asked).len() + 1 - most;
    asked.body = Some(&junk[over..]);
    net.forge(1, Side::A, FrameType::Remote.number(), &length(&asked));
    let lost = |event: &hub::Event| matches!(event, hub::Event::BridgeDown { .. });
    assert!(net.hub_events.iter().flatten().all(|event| !lost(event)), "{:?}", net.hub_events);
    expect_as_before(&mut net);
}

#[test]
fn a7_a_bridge_learns_nothing_by_which_it_could_join_and_says_no_yes_for_the_home() {
    let (mut net, _) = scene(6, Limits::default());
    let (kept, evil) = keeps(true);
    net.evil = Some((0, evil));
    protects(OWNER, &mut net, 2);
    net.expect_done(OWNER, 2);
    let seen = kept.borrow_mut().pop().unwrap();
    let protect = Protect::parse(Remote::parse(&seen).unwrap().body.unwrap()).unwrap();
    let salt = ChannelSalt { kdf: password(2).kdf(), salt: [2; 16], iterations: 0 };
    let verifier = support::master(&password(2), salt).keys("vault", &salt.salt, 2).join().verifier();
    assert_eq!(protect.record.salt, &salt.salt);
    assert_ne!((protect.record.stored_key, protect.record.server_key), (verifier.stored_key(), verifier.server_key()));
    // One that answers operations itself: the owner does not believe it, and comes back to what is so.
    let evil: Evil = Box::new(|kind, body| {
        let told = kind == FrameType::Told.number();
        match Told::parse(body) {
            Ok(told) if kind == FrameType::Told.number() && told.code != 0 => {
                let mut out = BytesMut::new();
                Told { proof: Some(&[1; 32]), ..Told::bare(told.id, 0) }.encode(&mut out);
                vec![(kind, out.to_vec())]
            }
            _ if told => vec![(kind, body.to_vec())],
            _ => match Remote::parse(body) {
                // Makes the home say no.
                Ok(remote) if kind == FrameType::Remote.number() && remote.asks == OPERATE => {
                    let mut out = BytesMut::new();
                    Remote { nonce: Some(&[7; 32]), ..remote }.encode(&mut out);
                    vec![(kind, out.to_vec())]
                }
                _ => vec![(kind, body.to_vec())],
            },
        }
    });
    net.evil = Some((0, evil));
    protects(OWNER, &mut net, 3);
    assert!(net.events[OWNER].iter().all(|event| !matches!(event, Event::Done { result: Ok(()), .. })));
    assert_eq!(changes(&net), 1);
}

#[test]
fn s82_when_the_way_home_is_lost_in_the_middle_of_an_operation_that_is_told_and_nothing_stays() {
    for side in [Side::A, Side::B] {
        let (mut net, _) = scene(7, Limits::default());
        net.held.push(support::net::Node::Hub(0));
        protects(OWNER, &mut net, 2);
        assert!(net.events[OWNER].is_empty());
        net.cut(1, side);
        net.held.clear();
        net.run();
        assert_eq!(net.expect_not_done(OWNER), Refusal::HomeGone);
        // The home waits a minute for proofs.
        net.pass(Duration::from_secs(60));
        expect_as_before(&mut net);
        expect_nothing_held(&net);
        protects(OWNER, &mut net, 2);
        net.expect_done(OWNER, 2);
    }
    // A home that says nothing, and one that is no more.
    let (mut net, _) = scene(8, Limits::default());
    net.held.push(support::net::Node::Hub(0));
    net.command(OWNER, terminate());
    net.pass(Duration::from_secs(10));
    assert!(matches!(net.next(OWNER), Event::Done { result: Err(Failure::Local(Misuse::Deadline)), .. }));
    net.held.clear();
    net.kill_hub(0);
    net.pass(Duration::from_secs(60));
    net.events[OWNER].clear();
    net.command(OWNER, terminate());
    assert_eq!(net.expect_not_done(OWNER), Refusal::HomeGone);
    net.pass(Duration::from_secs(60));
    expect_nothing_held(&net);
}

/// A bridge that loses what homes answer, and if `deaf` what they announce too.
fn loses_answers(deaf: bool) -> Evil {
    Box::new(move |kind, body| {
        let answer = kind == FrameType::Told.number() && Told::parse(body).unwrap().nonce.is_none();
        let news = kind == FrameType::Announce.number() || kind == FrameType::Forget.number();
        if answer || deaf && news { Vec::new() } else { vec![(kind, body.to_vec())] }
    })
}

/// The bridge is honest again, and both its ends hear what they have missed.
fn heals(net: &mut Net) {
    net.evil = None;
    net.cut(0, Side::A);
    net.pass(Duration::from_secs(5));
}

#[test]
fn v13_s82_an_owner_whose_answer_was_lost_asks_again_for_the_same_and_it_is_done_once() {
    let (mut net, _) = scene(9, Limits::default());
    net.evil = Some((0, loses_answers(true)));
    protects(OWNER, &mut net, 2);
    net.pass(Duration::from_secs(10));
    assert!(matches!(net.next(OWNER), Event::Done { result: Err(Failure::Local(Misuse::Deadline)), .. }));
    assert_eq!(changes(&net), 1);
    net.evil = None;
    protects(OWNER, &mut net, 2);
    net.expect_done(OWNER, 2);
    assert_eq!(changes(&net), 1, "it is what is stored");
    assert_eq!(expect_closed(&mut net, FAR), Refusal::Rekeyed);
    net.say(OWNER, "vault", "up", b"new");
    heals(&mut net);
    net.join(FAR, "vault", &password(2));
    net.pass(Duration::from_secs(60));
    expect_nothing_held(&net);
}

#[test]
fn v13_s82_an_owner_that_is_told_nothing_comes_back_with_its_new_password_and_no_handle_of_its_is_closed() {
    let (mut net, _) = scene(10, Limits::default());
    net.evil = Some((0, loses_answers(false)));
    protects(OWNER, &mut net, 2);
    net.evil = None;
    net.pass(Duration::from_secs(12));
    let told: Vec<Event> = net.events[OWNER].drain(..).collect();
    let [Event::Done { token: Token(2), result: Err(Failure::Local(Misuse::Deadline)) }] = &told[..] else {
        panic!("{told:?}");
    };
    for client in [MAKER, HERE, MIDDLE, FAR] {
        net.events[client].retain(|event| !matches!(event, Event::OwnerChanged { .. }));
        assert_eq!(expect_closed(&mut net, client), Refusal::Rekeyed, "{client}");
    }
    expect_rotated(&mut net, 2);
    net.pass(Duration::from_secs(60));
    expect_nothing_held(&net);
    // Nor when its hub goes: its application has been told what to remember.
    net.command(FAR, Command::Close);
    net.kill_hub(2);
    net.start_hub(2);
    for _ in 0..60 {
        net.pass(Duration::from_secs(1));
        net.derive(OWNER, &password(2));
    }
    assert!(!net.events[OWNER].drain(..).any(|event| is_over(&event)));
    net.say(HERE, "vault", "up", b"again");
    assert_eq!(net.expect_message(OWNER).message.payload.bytes, &b"again"[..]);
}

/// That a membership ends, or needs its application for going on.
fn is_over(event: &Event) -> bool {
    matches!(event, Event::ChannelClosed { .. } | Event::DeriveChannelKey { .. })
}

#[test]
fn v13_s72_s82_an_owner_whose_hub_dies_over_its_answer_comes_back_with_its_new_password() {
    let (mut net, _) = scene(13, Limits::default());
    net.command(FAR, Command::Close);
    net.evil = Some((0, loses_answers(true)));
    protects(OWNER, &mut net, 2);
    net.kill_hub(2);
    heals(&mut net);
    net.start_hub(2);
    net.pass(Duration::from_secs(60));
    let told: Vec<Event> = net.events[OWNER].drain(..).collect();
    assert!(!told.iter().any(is_over), "{told:?}");
    assert_eq!(changes(&net), 1);
    net.events[HERE].clear();
    net.join(HERE, "vault", &password(2));
    net.say(HERE, "vault", "up", b"again");
    assert_eq!(net.expect_message(OWNER).message.payload.bytes, &b"again"[..]);
    net.pass(Duration::from_secs(60));
    expect_nothing_held(&net);
}

#[test]
fn v28_s82_what_an_owner_wants_from_afar_is_stored_before_anybody_is_told_and_others_wait_for_that() {
    for durable in [true, false] {
        let (mut net, key) = scene(11, Limits::default());
        net.feed_hub(0, Input::Command(hub::Command::Restore(Vec::new())));
        net.command(FAR, Command::SetOwnerKey(key));
        protects(OWNER, &mut net, 2);
        net.command(FAR, terminate());
        assert!(net.events.iter().all(std::collections::VecDeque::is_empty));
        let ticket = |net: &mut Net| match net.hub_events[0].pop() {
            Some(hub::Event::Store { ticket, record, .. }) => (ticket, record),
            other => panic!("{other:?}"),
        };
        let (number, record) = ticket(&mut net);
        let record = record.unwrap();
        assert_eq!((record.epoch(), record.is_protected(), record.is_owned()), (2, true, true));
        net.feed_hub(0, Input::Command(hub::Command::Stored { ticket: number, durable }));
        net.run();
        if durable {
            net.expect_done(OWNER, 2);
            assert_eq!(expect_closed(&mut net, FAR), Refusal::Rekeyed);
            assert_eq!(net.expect_not_done(FAR), Refusal::EpochMismatch, "it is another channel than it thought");
            net.join(FAR, "vault", &password(2));
            continue;
        }
        assert_eq!(net.expect_not_done(OWNER), Refusal::StorageFailed);
        // The other one's turn.
        let (number, record) = ticket(&mut net);
        assert!(record.is_some_and(|record| !record.is_owned() && !record.is_protected()));
        net.feed_hub(0, Input::Command(hub::Command::Stored { ticket: number, durable: false }));
        net.run();
        assert_eq!(net.expect_not_done(FAR), Refusal::StorageFailed);
        net.pass(Duration::from_secs(60));
        net.hub_events[0].retain(|event| !matches!(event, hub::Event::Store { .. }));
        expect_as_before(&mut net);
        expect_nothing_held(&net);
    }
}

#[test]
fn s21_s82_what_is_held_for_its_owner_is_so_for_as_long_again_when_the_owner_acts_from_afar() {
    let mut net = Net::new(14, 2, &[("maker", 0), ("here", 0), ("owner", 1)]);
    net.bridge(0, 1);
    net.run();
    let policy = Some(OwnerPolicy::Hold { grace: Duration::from_secs(30), then: AfterGrace::Terminate });
    let access = Access { policy, ..Access::default() };
    net.command(0, Command::Open { token: Token(1), channel: name("vault"), access });
    net.expect_done(0, 1);
    net.protect(0, "vault", &password(1), 1);
    let key = net.clients[0].owner_key(&name("vault")).unwrap();
    net.join(2, "vault", &password(1));
    net.command(2, Command::SetOwnerKey(key));
    net.command(0, Command::Close);
    net.pass(Duration::from_secs(20));
    protects(2, &mut net, 2);
    net.expect_done(2, 2);
    net.pass(Duration::from_secs(29));
    assert!(net.events[2].is_empty());
    net.join(1, "vault", &password(2));
    net.pass(Duration::from_secs(1));
    for client in [1, 2] {
        assert_eq!(expect_closed(&mut net, client), Refusal::Terminated);
    }
}

#[test]
fn v13_a_key_outlives_the_process_that_made_it_and_owns_its_channel_at_home() {
    let (mut net, key) = scene(12, Limits::default());
    // From a file, into another process.
    let read = OwnerKey::parse(key.to_text().as_bytes()).unwrap();
    net.command(MAKER, Command::Close);
    for client in [HERE, MIDDLE, OWNER, FAR] {
        assert_eq!(expect_closed(&mut net, client), Refusal::Terminated);
    }
    net.command(HERE, Command::SetOwnerKey(read));
    net.join(HERE, "vault", &password(1));
    match net.next(HERE) {
        Event::OwnerChanged { owner: Some(owner), .. } => assert_eq!(owner.as_str(), "here"),
        other => panic!("{other:?}"),
    }
    net.protect(HERE, "vault", &password(2), 2);
    // A process of the same owner that still runs gives way.
    let late = net.add_client("late", 0);
    net.run();
    net.events[late].clear();
    net.command(late, Command::SetOwnerKey(net.clients[HERE].owner_key(&name("vault")).unwrap()));
    net.join(late, "vault", &password(2));
    for client in [HERE, late] {
        match net.next(client) {
            Event::OwnerChanged { owner: Some(owner), .. } => assert_eq!(owner.as_str(), "late"),
            other => panic!("{other:?}"),
        }
    }
    net.protect(late, "vault", &password(3), 3);
    assert_eq!(expect_closed(&mut net, HERE), Refusal::Rekeyed);
    // And whoever is only a member has no key to give away.
    net.join(FAR, "vault", &password(3));
    assert!(net.clients[FAR].owner_key(&name("vault")).is_none());
}
