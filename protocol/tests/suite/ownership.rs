//! Who owns a channel, and what becomes of it when its owner goes.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Access, CallFailure, Command, Event, Failure, Token};
use commipc_protocol::wire::{Accept, Control as _, FrameType, Offer};
use commipc_protocol::{AfterGrace, OwnerPolicy, Refusal, Transport, hub};
use support::{World, name, payload};

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

/// Opens a channel with a policy of its own.
fn open_with(world: &mut World, client: usize, channel: &str, policy: OwnerPolicy) {
    let access = Access { secret: None, policy: Some(policy), plain: false };
    world.command(client, Command::Open { token: Token(1), channel: name(channel), access });
    world.expect_done(client, 1);
}

fn owner(world: &World, channel: &str) -> Option<String> {
    let owners = world.hub_events.iter().rev().find_map(|event| match event {
        hub::Event::OwnerChanged { channel: of, owner } if **of == *channel => Some(owner.clone()),
        _ => None,
    });
    owners.flatten().map(|owner| owner.to_string())
}

#[test]
fn s19_the_first_to_open_a_channel_owns_it() {
    let mut world = World::ready(&["a", "b"]);
    world.open(0, "ch");
    world.open(1, "ch");
    assert_eq!(owner(&world, "ch").as_deref(), Some("a"));
    world.try_to_protect(1, 2, "ch", &key(1), 1);
    assert_eq!(world.expect_refused(1), Refusal::NotOwner);
    assert!(world.events[0].is_empty(), "the owner does not even notice");
}

/// Also on the owner's own link: whoever could speak there has not its key.
#[test]
fn v13_nothing_that_only_owners_may_do_is_done_without_a_proof() {
    type Act = fn(&mut World);
    let acts: [(FrameType, Act); 3] = [
        (FrameType::Protect, |world| world.try_to_protect(0, 7, "ch", &key(2), 2)),
        (FrameType::Unprotect, |world| world.command(0, Command::Unprotect { token: Token(7), channel: name("ch") })),
        (FrameType::Terminate, |world| world.command(0, Command::Terminate { token: Token(7), channel: name("ch") })),
    ];
    let scene = || {
        let mut world = World::ready(&["owner", "member"]);
        world.open(0, "ch");
        world.protect(0, "ch", &key(1), 1);
        world.join(1, "ch", &key(1));
        world.hub_events.clear();
        world
    };
    for (kind, act) in acts {
        // A world like the other shows what the owner would say.
        let mut twin = scene();
        act(&mut twin);
        let proved = twin.last_said(0, kind);
        let mut forged = proved.clone();
        *forged.last_mut().unwrap() ^= 1;
        let mut world = scene();
        assert_eq!(world.answer_to(0, kind, &forged), Refusal::NotOwner.code(), "{kind:?}");
        assert!(world.hub_events.is_empty(), "{:?}", world.hub_events);
        world.say(1, "ch", "ev", b"still a member");
        assert_eq!(world.answer_to(0, kind, &proved), 0, "{kind:?}: the proof makes the difference");
        assert!(!world.hub_events.is_empty(), "{kind:?}");
    }
}

#[test]
fn s18_to_open_to_listen_and_to_provide_are_three_things() {
    let mut world = World::ready(&["first", "listener", "provider", "outsider"]);
    for client in 0..3 {
        world.open(client, "ch");
    }
    world.listen(1, 5, "ch", Some("ev"));
    world.provide(2, 6, "ch", "ev");
    world.say(0, "ch", "ev", b"to all");
    assert_eq!(&world.expect_message(1)[..], b"to all");
    assert!(
        world.events.iter().all(std::collections::VecDeque::is_empty),
        "who opened or provides hears nothing by that"
    );
    world.command(0, Command::Send { token: Token(7), outgoing: support::outgoing("ch", "ev", b"to one") });
    assert!(matches!(world.next(0), Event::Sent { result: Ok(()), .. }));
    assert_eq!(&world.expect_message(2)[..], b"to one");
    assert!(world.events[1].is_empty());
    // Whoever is no member can do neither.
    let event = commipc_protocol::EventName::new("ev").unwrap();
    world.command(3, Command::Listen { token: Token(8), channel: name("ch"), event: Some(event) });
    assert_eq!(world.expect_refused(3), Refusal::NotMember);
    assert_eq!(owner(&world, "ch").as_deref(), Some("first"), "the first in the order of joining");
}

#[test]
fn s20_with_the_owner_the_channel_ends_and_everybody_is_told_which() {
    let mut world = World::ready(&["owner", "provider", "caller"]);
    for client in 0..3 {
        world.open(client, "ch");
    }
    world.provide(1, 5, "ch", "ev");
    world.call(2, 9, "ch", "ev", b"");
    world.expect_request(1);
    world.cut(0);
    let failure = Failure::Refused(Refusal::Terminated);
    let ended = world.expect_answered(2).1;
    assert_eq!(ended, Err(CallFailure::Failed { failure, maybe_executed: true }), "calls in flight end");
    assert!(matches!(world.next(1), Event::RequestEnded { .. }));
    for client in [1, 2] {
        assert_eq!(world.expect_closed(client, "ch"), Refusal::Terminated);
    }
    world.call(2, 10, "ch", "ev", b"");
    let nobody = Failure::Refused(Refusal::NoProvider);
    assert!(matches!(world.expect_answered(2).1, Err(CallFailure::Failed { failure, .. }) if failure == nobody));
    assert_eq!(world.hub.load().channels, 0);
    world.open(2, "ch");
    assert_eq!(owner(&world, "ch").as_deref(), Some("caller"), "who comes next owns it");
}

#[test]
fn s21_s22_a_promoted_channel_goes_on_with_the_earliest_member() {
    for transport in [Transport::Memory, Transport::Tcp] {
        let mut world = World::new(&["owner", "first", "second"]);
        world.transport = transport;
        world.connect_all();
        open_with(&mut world, 0, "ch", OwnerPolicy::Promote);
        world.open(1, "ch");
        world.open(2, "ch");
        world.provide(2, 5, "ch", "ev");
        world.cut(0);
        for client in [1, 2] {
            assert_eq!(world.expect_owner(client).as_deref(), Some("first"));
        }
        world.call(1, 9, "ch", "ev", b"");
        let request = world.expect_request(2);
        assert_eq!(request.message.sender.client.as_str(), "first", "providers stay");
        world.command(2, Command::Answer { request: request.id, result: Ok(payload(b"")) });
        assert!(world.expect_answered(1).1.is_ok());
        world.protect(1, "ch", &key(1), 1);
        assert_eq!(owner(&world, "ch").as_deref(), Some("first"), "with a key of its own");
    }
}

#[test]
fn an_offer_that_is_not_taken_passes_on_and_ends_with_the_last() {
    let mut world = World::ready(&["owner", "silent", "next"]);
    open_with(&mut world, 0, "ch", OwnerPolicy::Promote);
    world.open(1, "ch");
    world.open(2, "ch");
    world.stalled = Some(1);
    world.cut(0);
    world.pass(Duration::from_millis(4_999));
    assert!(world.events[2].is_empty(), "the first has five seconds");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.expect_owner(2).as_deref(), Some("next"));
    world.cut(2);
    world.pass(Duration::from_secs(5));
    assert!(world.hub_events.iter().any(|event| matches!(event, hub::Event::Terminated { .. })), "nobody is left");
}

/// An offer is for one link, and for who has heard it.
#[test]
fn v13_nobody_takes_an_offer_that_was_made_to_another() {
    let accept = |world: &mut World, client: usize, offer: &[u8; 16]| {
        let mut body = bytes::BytesMut::new();
        Accept { offer, channel: name("ch").as_name(), owner: &[0x5a; 32] }.encode(&mut body);
        world.says(client, FrameType::Accept, &body);
    };
    let mut world = World::ready(&["owner", "evicted", "first", "second"]);
    open_with(&mut world, 0, "ch", OwnerPolicy::Promote);
    world.open(1, "ch");
    world.protect(0, "ch", &Secret::key([1; 32]), 1);
    (2..4).for_each(|member| world.join(member, "ch", &Secret::key([1; 32])));
    world.mute = Some(2);
    world.cut(0);
    let heard = world.last_heard(2, FrameType::Offer);
    let offer = *Offer::parse(&heard).unwrap().offer;
    world.hub_events.clear();
    accept(&mut world, 1, &offer);
    accept(&mut world, 3, &offer);
    accept(&mut world, 2, &[0; 16]);
    assert!(world.hub_events.is_empty(), "{:?}", world.hub_events);
    accept(&mut world, 2, &offer);
    let owner = |event: &hub::Event| matches!(event, hub::Event::OwnerChanged { owner: Some(owner), .. } if &**owner == "first");
    assert!(world.hub_events.iter().any(owner), "{:?}", world.hub_events);
}

#[test]
fn a_channel_is_offered_to_eight_who_say_nothing_and_to_no_more() {
    let names = ["owner", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9"];
    let mut world = World::ready(&names);
    open_with(&mut world, 0, "ch", OwnerPolicy::Promote);
    (1..names.len()).for_each(|member| world.open(member, "ch"));
    world.mute = Some(1);
    world.cut(0);
    for member in 2..=9 {
        world.mute = Some(member);
        assert!(world.hub_events.iter().all(|event| !matches!(event, hub::Event::Terminated { .. })), "{member}");
        world.pass(Duration::from_secs(5));
    }
    assert!(world.hub_events.iter().any(|event| matches!(event, hub::Event::Terminated { .. })));
    let offered: Vec<bool> = (1..=9).map(|it| !world.last_heard(it, FrameType::Offer).is_empty()).collect();
    assert_eq!(offered, [true, true, true, true, true, true, true, true, false]);
}

#[test]
fn an_offered_member_that_leaves_passes_the_offer_on_at_once() {
    let mut world = World::ready(&["owner", "silent", "next"]);
    open_with(&mut world, 0, "ch", OwnerPolicy::Promote);
    world.open(1, "ch");
    world.open(2, "ch");
    world.stalled = Some(1);
    world.cut(0);
    world.stalled = None;
    world.cut(1);
    assert_eq!(world.expect_owner(2).as_deref(), Some("next"));
}

#[test]
fn a_held_channel_waits_for_its_owner_and_nobody_else_can_have_it() {
    let mut world = World::ready(&["owner", "member", "late"]);
    let hold = OwnerPolicy::Hold { grace: Duration::from_secs(30), then: AfterGrace::Terminate };
    open_with(&mut world, 0, "ch", hold);
    world.open(1, "ch");
    world.cut(0);
    assert_eq!(world.expect_owner(1), None);
    world.open(2, "ch");
    world.try_to_protect(2, 3, "ch", &key(1), 1);
    assert_eq!(world.expect_refused(2), Refusal::NotOwner);
    world.pass(Duration::from_secs(29));
    world.events[0].clear();
    world.command(0, Command::Connect);
    world.next(0);
    world.open(0, "ch");
    world.try_to_protect(0, 2, "ch", &key(1), 1);
    assert_eq!(world.expect_refused(0), Refusal::NotOwner, "not by its name alone");
    world.command(0, Command::Reclaim { token: Token(3), channel: name("ch") });
    assert_eq!(world.expect_owner(0).as_deref(), Some("owner"));
    world.expect_done(0, 3);
    world.protect(0, "ch", &key(1), 1);
    assert_eq!(world.expect_owner(1).as_deref(), Some("owner"));
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
}

#[test]
fn a_held_channel_ends_or_is_promoted_when_its_owner_stays_away() {
    for (then, ends) in [(AfterGrace::Terminate, true), (AfterGrace::Promote, false)] {
        let mut world = World::ready(&["owner", "member"]);
        open_with(&mut world, 0, "ch", OwnerPolicy::Hold { grace: Duration::from_secs(30), then });
        world.open(1, "ch");
        world.cut(0);
        assert_eq!(world.expect_owner(1), None);
        world.pass(Duration::from_secs(30));
        if ends {
            assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated);
        } else {
            assert_eq!(world.expect_owner(1).as_deref(), Some("member"));
        }
    }
}

#[test]
fn s23_a_member_that_leaves_ends_nothing_but_what_it_provides() {
    let mut world = World::ready(&["owner", "member"]);
    world.open(0, "ch");
    world.open(1, "ch");
    world.provide(1, 5, "ch", "ev");
    world.cut(1);
    world.call(0, 9, "ch", "ev", b"");
    let nobody = Failure::Refused(Refusal::NoProvider);
    assert!(matches!(world.expect_answered(0).1, Err(CallFailure::Failed { failure, .. }) if failure == nobody));
    world.provide(0, 6, "ch", "ev");
    assert_eq!(world.hub.load().channels, 1);
    world.command(0, Command::Leave { token: Token(2), channel: name("ch") });
    world.expect_done(0, 2);
    assert_eq!(world.hub.load().channels, 0);
}

#[test]
fn an_owner_can_end_its_channel_for_all() {
    let mut world = World::ready(&["owner", "member"]);
    world.open(0, "ch");
    world.open(1, "ch");
    world.command(1, Command::Terminate { token: Token(2), channel: name("ch") });
    assert_eq!(world.expect_refused(1), Refusal::NotOwner);
    world.command(0, Command::Terminate { token: Token(3), channel: name("ch") });
    assert_eq!(world.expect_closed(0, "ch"), Refusal::Terminated);
    world.expect_done(0, 3);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated);
    assert_eq!(world.hub.load().channels, 0);
}

#[test]
fn a_call_outlives_a_channel_that_is_forgotten_and_nothing_of_another_one_ends_it() {
    let mut world = World::ready(&["owner", "provider", "caller"]);
    let access = Access { plain: true, ..Access::default() };
    world.command(1, Command::Open { token: Token(1), channel: name("old"), access });
    world.expect_done(1, 1);
    world.provide(1, 5, "old", "ev");
    world.call(2, 9, "old", "ev", b"");
    let request = world.expect_request(1);
    world.command(1, Command::Leave { token: Token(2), channel: name("old") });
    world.expect_done(1, 2);
    assert_eq!(world.hub.load().channels, 0);
    world.open(0, "new");
    world.command(0, Command::Terminate { token: Token(3), channel: name("new") });
    assert_eq!(world.expect_closed(0, "new"), Refusal::Terminated);
    assert!(world.events[1].is_empty() && world.events[2].is_empty(), "{:?}", world.events);
    world.command(1, Command::Answer { request: request.id, result: Ok(payload(b"yes")) });
    assert!(world.expect_answered(2).1.is_ok());
}

#[test]
fn s26_who_owns_a_name_that_had_a_password_before_may_give_it_another() {
    for restarts in [false, true] {
        let mut world = World::storing(&["first", "next", "member"]);
        world.open(0, "ch");
        world.protect(0, "ch", &key(1), 1);
        world.command(0, Command::Leave { token: Token(2), channel: name("ch") });
        world.expect_done(0, 2);
        if restarts {
            world.restart();
        }
        world.open(1, "ch");
        world.protect(1, "ch", &key(2), 2);
        world.join(2, "ch", &key(2));
    }
    // Promoted, and a member only since the password is gone.
    let mut world = World::ready(&["first", "next", "member"]);
    open_with(&mut world, 0, "ch", OwnerPolicy::Promote);
    world.protect(0, "ch", &key(1), 1);
    world.command(0, Command::Unprotect { token: Token(2), channel: name("ch") });
    world.expect_done(0, 2);
    world.open(1, "ch");
    world.cut(0);
    assert_eq!(world.expect_owner(1).as_deref(), Some("next"));
    world.protect(1, "ch", &key(2), 2);
    world.join(2, "ch", &key(2));
}
