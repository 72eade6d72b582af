//! An owner whose hub answers late, in another order than it was asked, or not at all: what it keeps its channel by.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use commipc_protocol::auth::{Kdf, Secret};
use commipc_protocol::client::{
    Access, ChannelSalt, Command, Event, Failure, Outgoing, Reconnect, ReconnectEvent, Token,
};
use commipc_protocol::hub::Event as Told;
use commipc_protocol::wire::{Control as _, Done, FrameType, Hop, Message, Open, Protect, Unprotect};
use commipc_protocol::{AfterGrace, Input, Limits, Misuse, OwnerPolicy, Refusal};
use core::time::Duration;
use support::{Disk, Works, World, hub, lasting, name, outgoing, payload};

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

const fn salt(number: u8) -> ChannelSalt {
    ChannelSalt { kdf: Kdf::Key, salt: [number; 16], iterations: 0 }
}

/// An owner and a member of a channel with the first password, and another client; they come back by themselves.
fn world() -> World {
    let clients = ["owner", "member", "other"].map(|name| lasting(name, Reconnect::default())).into();
    let mut world = World::with(hub(Limits::default()), clients);
    world.connect_all();
    let policy = Some(OwnerPolicy::Hold { grace: Duration::from_secs(60), then: AfterGrace::Terminate });
    let access = Access { policy, ..Access::default() };
    world.command(0, Command::Open { token: Token(1), channel: name("ch"), access });
    world.expect_done(0, 1);
    world.protect(0, "ch", &key(1), 1);
    world.join(1, "ch", &key(1));
    world.passwords.clear();
    world
}

fn unprotect(world: &mut World, token: u64) {
    world.command(0, Command::Unprotect { token: Token(token), channel: name("ch") });
}

/// What the owner asked for takes too long.
fn expires(world: &mut World, token: u64) {
    world.pass(Limits::default().registration);
    let late = Err(Failure::Local(Misuse::Deadline));
    assert!(matches!(world.next(0), Event::Done { token: got, result } if got == Token(token) && result == late));
}

/// Its hub says that something is done.
fn says_done(world: &mut World, id: u64) -> Vec<Event> {
    let mut body = bytes::BytesMut::new();
    Done { id, code: 0, epoch: None, owner: None, last_epoch: None, owned_by: None, proof: None }.encode(&mut body);
    world.show(0, FrameType::Done, &body)
}

fn last_protect(world: &World) -> u64 {
    Protect::parse(&world.last_said(0, FrameType::Protect)).unwrap().id
}

/// Whether what the owner says now would be signed.
fn signs(world: &mut World) -> bool {
    let outgoing = Outgoing { guarded: true, ..outgoing("ch", "ev", b"mine") };
    world.command(0, Command::Broadcast { token: Token(99), outgoing });
    let unsigned = Err(Failure::Local(Misuse::UnknownToken));
    let is_refused = |event: &Event| matches!(event, Event::Sent { result, .. } if *result == unsigned);
    !world.events[0].drain(..).any(|event| is_refused(&event))
}

#[test]
fn v13_a_hub_that_keeps_its_word_back_takes_no_password_away_that_was_given_since() {
    let mut world = world();
    world.deceived = Some(0);
    unprotect(&mut world, 7);
    let withheld = Unprotect::parse(&world.last_said(0, FrameType::Unprotect)).unwrap().id;
    expires(&mut world, 7);
    world.try_to_protect(0, 8, "ch", &key(3), 3);
    let given = last_protect(&world);
    assert!(matches!(&says_done(&mut world, given)[..], [Event::Done { token: Token(8), result: Ok(()) }]));
    assert!(says_done(&mut world, withheld).is_empty());
    assert_eq!(world.passwords, [(0, name("ch"), Some(salt(3)))]);
    assert!(signs(&mut world));
}

#[test]
fn v13_a_hub_that_keeps_its_word_back_puts_no_older_password_in_the_place_of_a_newer() {
    for late in [true, false] {
        let mut world = world();
        world.deceived = Some(0);
        world.try_to_protect(0, 7, "ch", &key(2), 2);
        let withheld = last_protect(&world);
        if late {
            expires(&mut world, 7);
        }
        world.try_to_protect(0, 8, "ch", &key(3), 3);
        let given = last_protect(&world);
        assert!(matches!(&says_done(&mut world, given)[..], [Event::Done { token: Token(8), result: Ok(()) }]));
        let told = says_done(&mut world, withheld);
        let refused = Err(Failure::Refused(Refusal::EpochMismatch));
        match &told[..] {
            [] => assert!(late, "whoever waits is told"),
            [Event::Done { token: Token(7), result }] => assert_eq!((late, *result), (false, refused)),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.passwords, [(0, name("ch"), Some(salt(3)))], "late: {late}");
    }
}

#[test]
fn s23_an_owner_is_told_of_a_password_that_comes_into_force_too_late() {
    let mut world = world();
    world.deceived = Some(0);
    world.try_to_protect(0, 7, "ch", &key(2), 2);
    let id = last_protect(&world);
    expires(&mut world, 7);
    assert!(world.passwords.is_empty());
    assert!(says_done(&mut world, id).is_empty(), "it ends once");
    assert_eq!(world.passwords, [(0, name("ch"), Some(salt(2)))]);
}

#[test]
fn s23_asking_twice_to_take_a_password_away_is_safe() {
    let mut world = world();
    unprotect(&mut world, 7);
    world.expect_done(0, 7);
    unprotect(&mut world, 8);
    assert_eq!(world.expect_refused(0), Refusal::NotProtected);
    world.protect(0, "ch", &key(2), 2);
    assert_eq!(world.passwords, [(0, name("ch"), None), (0, name("ch"), Some(salt(2)))]);
}

#[test]
fn v13_s72_an_owner_whose_answer_went_with_the_link_comes_back_with_its_new_password() {
    for late in [false, true] {
        let mut world = world();
        world.provide(0, 5, "ch", "ev");
        world.deceived = Some(0);
        world.try_to_protect(0, 7, "ch", &key(2), 2);
        if late {
            expires(&mut world, 7);
        }
        world.deceived = None;
        world.cut(0);
        let told = world.restored(0);
        let over = |event: &Event| matches!(event, Event::ChannelClosed { .. } | Event::DeriveChannelKey { .. });
        assert!(!told.iter().any(over), "{told:?}");
        assert_eq!(world.passwords, [(0, name("ch"), Some(salt(2)))], "late: {late}");
        assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
        world.events[1].clear();
        world.join(1, "ch", &key(2));
        world.call(1, 9, "ch", "ev", b"");
        let request = world.expect_request(0).id;
        world.command(0, Command::Answer { request, result: Ok(payload(b"signed")) });
        assert_eq!(world.expect_answered(1).1.unwrap().payload, payload(b"signed"));
        world.protect(0, "ch", &key(3), 3);
        assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed, "it owns the channel still");
    }
}

/// The hub takes the first of several that were meant to follow the same one, and refuses the others.
#[test]
fn v13_s72_of_several_passwords_without_an_answer_none_that_may_be_in_force_is_forgotten() {
    let mut world = world();
    world.deceived = Some(0);
    for number in 2..6 {
        world.try_to_protect(0, u64::from(number), "ch", &key(number), number);
    }
    world.try_to_protect(0, 6, "ch", &key(6), 6);
    let too_many = Err(Failure::Local(Misuse::TooMany));
    assert!(matches!(world.next(0), Event::Done { token: Token(6), result } if result == too_many));
    expires(&mut world, 2);
    world.events[0].clear();
    world.try_to_protect(0, 7, "ch", &key(7), 7);
    assert!(matches!(world.next(0), Event::Done { token: Token(7), result } if result == too_many));
    world.deceived = None;
    world.cut(0);
    let told = world.restored(0);
    assert!(!told.iter().any(|event| matches!(event, Event::ChannelClosed { .. })), "{told:?}");
    assert_eq!(world.passwords, [(0, name("ch"), Some(salt(2)))]);
    world.protect(0, "ch", &key(8), 8);
    assert_eq!(world.passwords[1..], [(0, name("ch"), Some(salt(8)))]);
}

/// A client never joins without a password where it had one, so that its channel is over; it is the owner's all the same.
#[test]
fn v13_s72_an_owner_whose_password_is_gone_without_an_answer_owns_the_channel_when_it_opens_it_again() {
    let mut world = world();
    world.deceived = Some(0);
    unprotect(&mut world, 7);
    world.deceived = None;
    world.cut(0);
    let told = world.restored(0);
    assert!(told.iter().any(|event| matches!(event, Event::ChannelClosed { .. })), "{told:?}");
    world.open(0, "ch");
    assert_eq!(world.expect_owner(0).as_deref(), Some("owner"));
    world.protect(0, "ch", &key(2), 2);
    assert!(signs(&mut world));
}

#[test]
fn v13_s72_an_owner_whose_claim_goes_with_the_link_claims_again() {
    let mut world = world();
    world.deceived = Some(0);
    unprotect(&mut world, 7);
    world.deceived = None;
    world.cut(0);
    world.restored(0);
    // The hub says that the channel is open, and the link goes before it hears whose it is.
    world.deceived = Some(0);
    world.command(0, Command::Open { token: Token(8), channel: name("ch"), access: Access::default() });
    let id = Open::parse(&world.last_said(0, FrameType::Open)).unwrap().id;
    let mut body = bytes::BytesMut::new();
    Done { id, code: 0, epoch: None, owner: Some(false), last_epoch: Some(2), owned_by: None, proof: None }
        .encode(&mut body);
    let told = world.show(0, FrameType::Done, &body);
    assert!(matches!(told[..], [Event::Done { token: Token(8), result: Ok(()) }]), "{told:?}");
    world.deceived = None;
    world.cut(0);
    world.restored(0);
    world.protect(0, "ch", &key(2), 2);
}

#[test]
fn s71_who_is_told_that_its_channel_is_anothers_opens_it_as_anybody() {
    let mut world = world();
    world.mute = Some(0);
    world.replace_hub(hub(Limits::default()));
    world.restored(2);
    world.open(2, "ch");
    world.mute = None;
    world.cut(0);
    let told = world.restored(0);
    let anothers = Failure::Refused(Refusal::NotOwner);
    let over = |event: &Event| matches!(event, Event::ChannelClosed { why, .. } if *why == anothers);
    assert!(told.iter().any(over), "{told:?}");
    world.hold_dials = true;
    world.cut(0);
    world.command(0, Command::Open { token: Token(8), channel: name("ch"), access: Access::default() });
    world.release_dials();
    let told = world.restored(0);
    let asked = |event: &Event| matches!(event, Event::Done { token: Token(8), result: Ok(()) });
    assert!(told.iter().any(asked), "{told:?}");
    let unrestored = |event: &Event| matches!(event, Event::Reconnect(ReconnectEvent::Unrestored { .. }));
    assert!(!told.iter().any(unrestored), "{told:?}");
}

#[test]
fn s29_v28_who_opens_a_channel_while_away_is_not_let_in_by_anothers_words() {
    let with = |secret| Access { secret, ..Access::default() };
    for (first, second) in [(None, Some(Kdf::Key)), (Some(Kdf::Key), None)] {
        let mut world = World::with(hub(Limits::default()), vec![lasting("c", Reconnect::default())]);
        world.connect_all();
        world.hold_dials = true;
        world.cut(0);
        world.events[0].clear();
        for (token, secret) in [(11, first), (12, second)] {
            let open = Command::Open { token: Token(token), channel: name("other"), access: with(secret) };
            world.command(0, open);
        }
        let refused = Err(Failure::Local(Misuse::TooMany));
        assert!(matches!(world.next(0), Event::Done { token: Token(12), result } if result == refused));
        world.release_dials();
        let told = world.restored(0);
        let opened = |event: &Event| match event {
            Event::Done { token: Token(11), result } => Some(*result),
            _ => None,
        };
        let not_protected = Err(Failure::Refused(Refusal::NotProtected));
        let expected = if first.is_some() { not_protected } else { Ok(()) };
        let opened: Vec<_> = told.iter().filter_map(opened).chain(world.events[0].iter().filter_map(opened)).collect();
        assert_eq!(opened, [expected]);
    }
}

/// Who leaves a channel while it comes back signs nothing there any more, before it is back and left again.
#[test]
fn s72_a_member_that_leaves_a_channel_that_comes_back_has_no_keys_of_it() {
    let mut world = world();
    world.cut(1);
    world.pass(Duration::from_millis(1));
    let asked = |event: &Event| matches!(event, Event::DeriveChannelKey { .. });
    assert!(world.events[1].iter().any(asked), "it is on its way: {:?}", world.events[1]);
    world.command(1, Command::Leave { token: Token(6), channel: name("ch") });
    world.command(1, Command::Broadcast { token: Token(7), outgoing: outgoing("ch", "ev", b"late") });
    let said = world.last_said(1, FrameType::Broadcast);
    let message = Message::parse(Hop::split(&said).unwrap().1).unwrap();
    assert_eq!((message.header.epoch, message.tag.len()), (0, 0), "it is unsigned");
    world.events[1].retain(asked);
    world.derive(1, &key(1));
    assert!(world.hub_events.iter().any(|event| matches!(event, Told::Left { client, .. } if &**client == "member")));
    world.events[1].clear();
    world.join(1, "ch", &key(1));
}

/// Who has left keeps nothing of it, and owns the next channel of that name as the first one.
#[test]
fn s72_a_password_that_is_in_force_after_its_owner_has_left_is_none_of_the_channel_that_it_opens_next() {
    let clients = ["owner", "other"].map(|name| lasting(name, Reconnect::default())).into();
    let mut world = World::with(hub(Limits::default()), clients);
    world.disk = Some(Disk::default());
    world.feed_hub(Input::Command(commipc_protocol::hub::Command::Restore(Vec::new())));
    world.connect_all();
    world.open(0, "ch");
    world.disk().works = Works::Later;
    world.try_to_protect(0, 5, "ch", &key(1), 1);
    world.command(0, Command::Leave { token: Token(6), channel: name("ch") });
    world.catch_up();
    world.disk().works = Works::AtOnce;
    world.expect_done(0, 5);
    world.expect_done(0, 6);
    let policy = Some(OwnerPolicy::Hold { grace: Duration::from_secs(60), then: AfterGrace::Terminate });
    let access = Access { policy, ..Access::default() };
    world.command(0, Command::Open { token: Token(7), channel: name("ch"), access });
    world.expect_done(0, 7);
    world.cut(0);
    world.pass(Duration::from_secs(5));
    let told: Vec<Event> = world.events[0].drain(..).collect();
    let restored = |event: &Event| matches!(event, Event::Reconnect(ReconnectEvent::Restored { channels: 1 }));
    assert!(told.iter().any(restored), "{told:?}");
    assert!(!told.iter().any(|event| matches!(event, Event::ChannelClosed { .. })), "{told:?}");
    world.open(1, "ch");
    world.protect(0, "ch", &key(2), 2);
}
