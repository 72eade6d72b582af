//! A client takes over its old link while the hub still stores what was asked on it.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Access, Command, Event, Token};
use commipc_protocol::{AfterGrace, OwnerPolicy, Refusal};
use support::{Works, World, name};

const SECOND: Duration = Duration::from_secs(1);
const HELD_SHORTLY: OwnerPolicy = OwnerPolicy::Hold { grace: SECOND, then: AfterGrace::Terminate };

/// An owner and two members of a protected channel, at a hub that stores, whose disk takes its time from now on.
fn stored(policy: OwnerPolicy) -> World {
    let mut world = World::storing(&["owner", "member", "late"]);
    let access = Access { secret: None, policy: Some(policy), plain: false };
    world.command(0, Command::Open { token: Token(1), channel: name("ch"), access });
    world.expect_done(0, 1);
    world.protect(0, "ch", &key(1), 1);
    (1..3).for_each(|member| world.join(member, "ch", &key(1)));
    world.disk().works = Works::Later;
    world
}

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

fn back(world: &mut World) {
    world.sever(0);
    world.connect_again(0);
}

/// The owner takes over while something is stored, and asks to open the channel before that is done with.
fn back_in_between(world: &mut World, secret: Option<&Secret>, durable: bool) {
    back(world);
    let access = Access { secret: secret.map(Secret::kdf), policy: None, plain: false };
    world.command(0, Command::Open { token: Token(2), channel: name("ch"), access });
    assert!(world.events[0].is_empty(), "it waits: {:?}", world.events[0]);
    world.settle(durable);
    if let Some(secret) = secret {
        world.derive(0, secret);
    }
    world.expect_done(0, 2);
}

/// Who of all can do what only an owner can.
fn owners(world: &mut World) -> Vec<usize> {
    world.run();
    let able = |client: &usize| {
        world.events[*client].clear();
        world.command(*client, Command::Terminate { token: Token(9), channel: name("ch") });
        let done = |event: &Event| matches!(event, Event::Done { token: Token(9), result: Ok(()) });
        world.events[*client].iter().any(done)
    };
    (0..3).filter(able).collect()
}

#[test]
fn d9_taking_over_while_a_new_password_is_stored_keeps_the_owner() {
    for durable in [true, false] {
        let mut world = stored(OwnerPolicy::Terminate);
        world.try_to_protect(0, 5, "ch", &key(2), 2);
        back_in_between(&mut world, Some(&key(if durable { 2 } else { 1 })), durable);
        if durable {
            assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
            world.try_to_join(1, 3, "ch", &key(1));
            assert_eq!(world.expect_refused(1), Refusal::PasswordWrong);
        } else {
            assert_eq!(world.expect_owner(1), None, "held");
            assert_eq!(world.expect_owner(1).as_deref(), Some("owner"));
        }
        world.pass(SECOND * 60);
        assert_eq!(owners(&mut world), [0], "{durable}");
    }
}

#[test]
fn d9_taking_over_while_the_password_is_taken_away_keeps_the_owner() {
    for durable in [true, false] {
        let mut world = stored(OwnerPolicy::Terminate);
        world.command(0, Command::Unprotect { token: Token(5), channel: name("ch") });
        back_in_between(&mut world, (!durable).then(|| key(1)).as_ref(), durable);
        if durable {
            assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
            world.open(1, "ch");
        }
        world.pass(SECOND * 60);
        assert_eq!(owners(&mut world), [0], "{durable}");
    }
}

#[test]
fn d9_taking_over_while_the_channel_ends_leaves_it_ended_or_whole() {
    let mut ended = stored(OwnerPolicy::Terminate);
    ended.command(0, Command::Terminate { token: Token(5), channel: name("ch") });
    back_in_between(&mut ended, None, true);
    assert_eq!(ended.expect_closed(1, "ch"), Refusal::Terminated);
    assert_eq!(owners(&mut ended), [0], "of a new channel with an old name");
    // Where it could not be stored the owner has its ten seconds, as if it had not asked.
    for seconds in [9, 10] {
        let mut whole = stored(OwnerPolicy::Terminate);
        whole.command(0, Command::Terminate { token: Token(5), channel: name("ch") });
        back(&mut whole);
        whole.settle(false);
        assert_eq!(whole.expect_owner(1), None, "held");
        whole.pass(SECOND * seconds);
        if seconds < 10 {
            assert!(whole.events[1].is_empty(), "{:?}", whole.events[1]);
            whole.join(0, "ch", &key(1));
            assert_eq!(whole.expect_owner(1).as_deref(), Some("owner"));
            whole.pass(SECOND * 60);
            assert_eq!(owners(&mut whole), [0]);
        } else {
            assert_eq!(whole.expect_closed(1, "ch"), Refusal::Terminated);
            whole.join(1, "ch", &key(1));
            assert_eq!(owners(&mut whole), [0; 0], "the password waits for its owner");
        }
    }
}

#[test]
fn d9_taking_over_while_the_owner_leaves_brings_nothing_back() {
    let mut left = stored(OwnerPolicy::Terminate);
    left.command(0, Command::Leave { token: Token(5), channel: name("ch") });
    back_in_between(&mut left, None, true);
    assert_eq!(left.expect_closed(1, "ch"), Refusal::Terminated);
    assert_eq!(owners(&mut left), [0], "of a new channel with an old name");
    // Where it could not be stored the channel ends all the same, and its password waits for the owner.
    let mut kept = stored(OwnerPolicy::Terminate);
    kept.command(0, Command::Leave { token: Token(5), channel: name("ch") });
    back(&mut kept);
    kept.settle(false);
    kept.pass(SECOND * 5);
    assert_eq!(kept.expect_closed(1, "ch"), Refusal::Terminated);
    assert_eq!(kept.expect_closed(2, "ch"), Refusal::Terminated);
    kept.try_to_join(2, 3, "ch", &key(2));
    assert_eq!(kept.expect_refused(2), Refusal::PasswordWrong);
    kept.join(0, "ch", &key(1));
    kept.reclaim(0, "ch");
    assert_eq!(owners(&mut kept), [0]);
}

#[test]
fn d9_who_takes_over_while_its_promotion_is_stored_has_left() {
    for durable in [true, false] {
        let mut world = stored(OwnerPolicy::Promote);
        world.cut(0);
        // The going of the owner, then the taking of the offer.
        world.work_disk();
        world.run();
        assert_eq!(world.disk().asked.len(), 1, "the first member has taken it");
        world.sever(1);
        world.connect_again(1);
        world.settle(durable);
        assert_eq!(world.expect_owner(2).as_deref(), Some("late"), "it passes on");
        world.join(1, "ch", &key(1));
        world.pass(SECOND * 60);
        assert_eq!(owners(&mut world), [2], "{durable}");
    }
}

#[test]
fn d9_taking_over_once_more_while_the_end_of_the_wait_is_stored_is_too_late() {
    let then_promote = OwnerPolicy::Hold { grace: SECOND, then: AfterGrace::Promote };
    for (policy, durable) in [(then_promote, true), (then_promote, false), (HELD_SHORTLY, true), (HELD_SHORTLY, false)]
    {
        let mut world = World::storing(&["owner", "member", "late"]);
        let access = Access { secret: None, policy: Some(policy), plain: false };
        world.command(0, Command::Open { token: Token(1), channel: name("ch"), access });
        world.expect_done(0, 1);
        (1..3).for_each(|member| world.open(member, "ch"));
        back(&mut world);
        assert_eq!(world.expect_owner(1), None, "held");
        world.disk().works = Works::Later;
        world.pass(SECOND * 10);
        back_in_between(&mut world, None, durable);
        match (durable, policy == then_promote) {
            (true, true) => assert_eq!(world.expect_owner(1).as_deref(), Some("member")),
            (true, false) => assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated),
            // It is waited for a little longer, and it can prove who it is.
            (false, _) => world.reclaim(0, "ch"),
        }
        world.pass(SECOND * 60);
        let owner = if durable && policy == then_promote { 1 } else { 0 };
        assert_eq!(owners(&mut world), [owner], "{policy:?} {durable}");
    }
}

#[test]
fn d9_taking_over_while_a_claim_is_stored_keeps_the_name_for_the_claimant() {
    let held = OwnerPolicy::Hold { grace: SECOND * 60, then: AfterGrace::Terminate };
    for (policy, durable) in [(held, true), (held, false), (OwnerPolicy::Terminate, true)] {
        let mut world = World::storing(&["owner", "member", "late"]);
        world.disk().works = Works::Later;
        let access = Access { secret: None, policy: Some(policy), plain: false };
        world.command(0, Command::Open { token: Token(1), channel: name("ch"), access });
        back_in_between(&mut world, None, durable);
        if policy == held && durable {
            world.reclaim(0, "ch");
        }
        world.open(1, "ch");
        assert_eq!(owners(&mut world), [0], "{policy:?} {durable}");
    }
}
