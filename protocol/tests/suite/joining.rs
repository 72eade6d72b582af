//! What a hub keeps of joins that nobody finishes, and of names that nobody needs any more.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::{Credential, Kdf, Secret, Verifier};
use commipc_protocol::client::{Access, ChannelSalt, Command, Event, Failure, Token};
use commipc_protocol::{AfterGrace, CredentialId, Input, Limits, Machine as _, OwnerPolicy, Refusal, TimerReason};
use support::{KEY, Works, World, client, client_as, hub, master, name};

const MINUTE: Duration = Duration::from_secs(60);

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

/// An owner of so many protected channels, `c0` and on, and another client.
fn world(channels: u8, set: impl FnOnce(&mut Limits)) -> World {
    let mut limits = Limits::default();
    set(&mut limits);
    let clients = ["owner", "other"].map(|id| client(id, Secret::key(KEY))).into();
    let mut world = World::with(hub(limits), clients);
    world.connect_all();
    for number in 0..channels {
        world.open(0, &format!("c{number}"));
        world.protect(0, &format!("c{number}"), &key(1), number + 1);
    }
    world
}

/// Opens a channel with a password; what the client has to derive if the hub asks for a proof.
fn challenged(world: &mut World, token: u64, channel: &str) -> Option<ChannelSalt> {
    let access = Access { secret: Some(Kdf::Key), policy: None, plain: false };
    world.command(1, Command::Open { token: Token(token), channel: name(channel), access });
    match world.events[1].front() {
        Some(Event::DeriveChannelKey { salt, .. }) => {
            let salt = *salt;
            world.events[1].pop_front();
            Some(salt)
        }
        _ => None,
    }
}

fn derived(world: &mut World, channel: &str, salt: ChannelSalt) {
    let command = Command::ChannelKeyDerived { channel: name(channel), salt, master: master(&key(1), salt) };
    world.command(1, command);
}

#[test]
fn v22_join_challenges_leave_nothing_behind() {
    let mut world = world(5, |limits| limits.joins = 3);
    let salts = ["c0", "c1", "c2"].map(|channel| challenged(&mut world, 1, channel).unwrap());
    world.pass(MINUTE / 2);
    world.pass(MINUTE / 2);
    let reason = |world: &World| world.hub.poll_timeout().unwrap().reason;
    assert_ne!(reason(&world), TimerReason::Join, "nothing is left to fall due");
    // A proof that took longer than the hub waits is refused, and costs the connection nothing.
    derived(&mut world, "c0", salts[0]);
    assert_eq!(world.expect_refused(1), Refusal::Deadline);
    // Those that were never proved hold no place, and those that are proved or lost are not waited for.
    world.join(1, "c0", &key(1));
    for channel in ["c3", "c4"] {
        challenged(&mut world, 1, channel).unwrap();
    }
    world.cut(1);
    world.pass(MINUTE / 2);
    assert_ne!(world.hub.poll_timeout().map(|deadline| deadline.reason), Some(TimerReason::Join));
}

#[test]
fn s28_v22_a_client_has_so_many_joins_that_are_not_proved() {
    let mut world = world(4, |limits| {
        limits.joins = 3;
        limits.join = MINUTE / 2;
    });
    for channel in ["c0", "c1", "c2"] {
        assert!(challenged(&mut world, 1, channel).is_some());
    }
    assert!(challenged(&mut world, 2, "c3").is_none());
    assert_eq!(world.expect_refused(1), Refusal::Overloaded);
    world.pass(MINUTE / 2 - Duration::from_millis(1));
    assert!(challenged(&mut world, 3, "c3").is_none());
    assert_eq!(world.expect_refused(1), Refusal::Overloaded);
    world.pass(Duration::from_millis(1));
    world.join(1, "c3", &key(1));
}

fn opened(world: &mut World, channel: &str, policy: OwnerPolicy) -> Result<(), Refusal> {
    let access = Access { secret: None, policy: Some(policy), plain: false };
    world.command(1, Command::Open { token: Token(1), channel: name(channel), access });
    match world.next(1) {
        Event::Done { result: Ok(()), .. } => Ok(()),
        Event::Done { result: Err(Failure::Refused(refusal)), .. } => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn leave(world: &mut World, channel: &str) {
    world.command(1, Command::Leave { token: Token(2), channel: name(channel) });
    world.expect_done(1, 2);
}

#[test]
fn names_that_are_remembered_are_few_for_each_credential() {
    let mut world = world(0, |limits| limits.names = 3);
    for round in 1..=2 {
        for number in 0..100 {
            let channel = format!("round {round} number {number}");
            opened(&mut world, &channel, OwnerPolicy::Terminate).unwrap();
            world.try_to_protect(1, 3, &channel, &key(1), 1);
            if number < 3 {
                world.expect_done(1, 3);
            } else {
                assert_eq!(world.expect_refused(1), Refusal::TooManyNames, "{channel}");
            }
            leave(&mut world, &channel);
            assert!(world.hub.load().channels <= 3);
        }
        assert_eq!(opened(&mut world, "waits", HOLD), Err(Refusal::TooManyNames));
        // What counts already may be protected again.
        let known = format!("round {round} number 0");
        opened(&mut world, &known, OwnerPolicy::Terminate).unwrap();
        world.protect(1, &known, &key(2), 2);
        leave(&mut world, &known);
        world.pass(MINUTE * 60 * 24);
        assert_eq!(world.hub.load().channels, 0, "after a day they are forgotten");
    }
}

const HOLD: OwnerPolicy = OwnerPolicy::Hold { grace: Duration::from_millis(u64::MAX), then: AfterGrace::Terminate };

#[test]
fn names_that_wait_for_their_owner_are_few_for_each_credential() {
    let mut world = world(0, |limits| limits.names = 3);
    for number in 0..10 {
        let expected = if number < 3 { Ok(()) } else { Err(Refusal::TooManyNames) };
        assert_eq!(opened(&mut world, &format!("c{number}"), HOLD), expected);
        world.cut(1);
        world.events[1].clear();
        world.command(1, Command::Connect);
        world.next(1);
    }
    assert_eq!(world.hub.load().channels, 3);
    for number in 10..20 {
        assert_eq!(
            opened(&mut world, &format!("c{number}"), OwnerPolicy::Promote),
            Ok(()),
            "these end with their members"
        );
    }
    world.cut(1);
    assert_eq!(world.hub.load().channels, 3);
}

#[test]
fn names_whose_protection_is_being_stored_count_already() {
    let mut limits = Limits::default();
    limits.names = 3;
    let mut world = World::storing_with(&["other", "owner"], limits);
    for number in 0..10 {
        opened(&mut world, &format!("c{number}"), OwnerPolicy::Terminate).unwrap();
    }
    for (round, durable) in [(1, false), (2, true)] {
        world.disk().works = Works::Later;
        for number in 0..10 {
            // The last one is asked for twice: it counts once.
            world.try_to_protect(1, number, &format!("c{}", number.min(8)), &key(round), round);
        }
        world.settle(durable);
        let mut done: Vec<(Token, Result<(), Refusal>)> = Vec::new();
        while let Some(event) = world.events[1].pop_front() {
            let Event::Done { token, result } = event else { panic!("{event:?}") };
            done.push((token, result.map_err(|why| if let Failure::Refused(why) = why { why } else { panic!() })));
        }
        assert_eq!(done.len(), 10);
        for (Token(number), result) in done {
            let expected = match (number, durable) {
                (0..3, true) => Ok(()),
                (0..3, false) => Err(Refusal::StorageFailed),
                _ => Err(Refusal::TooManyNames),
            };
            assert_eq!(result, expected, "round {round}, number {number}");
        }
    }
    // One that counts may be protected again, and no other has taken a place.
    world.protect(1, "c0", &key(3), 3);
    assert_eq!(opened(&mut world, "waits", HOLD), Err(Refusal::TooManyNames));
    for number in 0..10 {
        leave(&mut world, &format!("c{number}"));
    }
    assert_eq!(world.hub.load().channels, 3);
}

#[test]
fn a_password_that_is_being_changed_counts_once() {
    let mut limits = Limits::default();
    limits.records = 2;
    let mut world = World::storing_with(&["other", "owner"], limits);
    for channel in ["c0", "c1", "c2"] {
        world.open(1, channel);
    }
    world.protect(1, "c0", &key(1), 1);
    world.disk().works = Works::Later;
    for (token, channel) in [(0, "c0"), (1, "c1"), (2, "c2")] {
        world.try_to_protect(1, token, channel, &key(2), 2);
    }
    world.settle(true);
    assert_eq!(world.expect_refused(1), Refusal::TooManyRecords, "the third");
    world.expect_done(1, 0);
    world.expect_done(1, 1);
}

#[test]
fn a_password_counts_for_whoever_set_it_last() {
    let mut world = of_two_credentials(|limits| limits.records = 1);
    assert_eq!(opened(&mut world, "c0", OwnerPolicy::Promote), Ok(()));
    world.protect(1, "c0", &key(1), 1);
    world.join(0, "c0", &key(1));
    world.open(0, "own");
    world.protect(0, "own", &key(1), 1);
    world.cut(1);
    assert_eq!(world.expect_owner(0).as_deref(), Some("first"));
    world.try_to_protect(0, 2, "c0", &key(2), 2);
    assert_eq!(world.expect_refused(0), Refusal::TooManyRecords, "it has one already");
    world.command(0, Command::Unprotect { token: Token(3), channel: name("own") });
    world.expect_done(0, 3);
    world.protect(0, "c0", &key(2), 2);
}

/// A client `first` of a credential of its own, and one of the shared secret.
fn of_two_credentials(set: impl FnOnce(&mut Limits)) -> World {
    let secret = Secret::key([8; 32]);
    let id = CredentialId::new("second").unwrap();
    let verifier = Verifier::new(&secret, [4; 16], 100_000).unwrap();
    let table = support::credentials(&Secret::key(KEY)).with(id.clone(), Credential::shared(verifier));
    let mut limits = Limits::default();
    set(&mut limits);
    let clients = vec![client_as("first", id, secret, Limits::default()), client("other", Secret::key(KEY))];
    let mut world = World::with(hub(limits), clients);
    world.hub.handle_input(world.now, Input::Command(commipc_protocol::hub::Command::SetCredentials(table)));
    world.connect_all();
    world
}

#[test]
fn a_name_counts_for_whoever_claimed_it_last() {
    let mut world = of_two_credentials(|limits| limits.names = 1);
    world.open(0, "c0");
    world.protect(0, "c0", &key(1), 1);
    world.command(0, Command::Leave { token: Token(2), channel: name("c0") });
    world.expect_done(0, 2);
    opened(&mut world, "c1", HOLD).unwrap();
    assert_eq!(opened(&mut world, "c0", OwnerPolicy::Terminate), Err(Refusal::TooManyNames), "it has none left");
    leave(&mut world, "c1");
    opened(&mut world, "c0", OwnerPolicy::Terminate).unwrap();
    world.open(0, "c2");
    world.protect(0, "c2", &key(1), 2);
}
