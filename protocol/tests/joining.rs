//! What a hub keeps of joins that nobody finishes, and of names that nobody needs any more.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

mod support;

use std::time::Duration;

use commipc_protocol::auth::{Kdf, Secret};
use commipc_protocol::client::{Access, ChannelSalt, Command, Event, Token};
use commipc_protocol::{Limits, Machine as _, Refusal, TimerReason};
use support::{KEY, World, client, hub, master, name};

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
    assert_eq!(world.hub.poll_timeout().unwrap().reason, TimerReason::Join);
    world.pass(MINUTE / 2);
    assert_eq!(world.hub.poll_timeout(), None, "nothing is left to fall due");
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
    assert_eq!(world.hub.poll_timeout(), None);
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
