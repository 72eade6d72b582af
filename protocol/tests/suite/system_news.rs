//! What the hub says on its own channels of owners, passwords and whoever leaves; and who has no say in a channel's policy.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::collections::VecDeque;
use std::time::Duration;

use ciborium::Value;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Access, Command, Event, Message, Reconnect, Token};
use commipc_protocol::hub::{ERRORS_CHANNEL, LOGS_CHANNEL, SYSTEM_CHANNEL};
use commipc_protocol::{AfterGrace, Limits, OwnerPolicy, Refusal};
use support::{World, lasting, name};

const MONITOR: usize = 0;
const OWNER: usize = 1;
const MEMBER: usize = 2;

/// One that watches the hub, and an owner and a member of `ch`.
fn watched(policy: Option<OwnerPolicy>, protected: bool) -> World {
    let clients = ["monitor", "owner", "member"].map(|name| lasting(name, Reconnect::default()));
    let mut world = World::with(support::hub(Limits::default()), clients.into());
    world.connect_all();
    let access = Access { policy, ..Access::default() };
    world.command(OWNER, Command::Open { token: Token(1), channel: name("ch"), access });
    world.expect_done(OWNER, 1);
    if protected {
        world.protect(OWNER, "ch", &secret(1), 1);
        world.join(MEMBER, "ch", &secret(1));
    } else {
        world.open(MEMBER, "ch");
    }
    world.open(MONITOR, SYSTEM_CHANNEL);
    world.listen(MONITOR, 7, SYSTEM_CHANNEL, None);
    world.events.iter_mut().for_each(VecDeque::clear);
    world
}

fn secret(number: u8) -> Secret {
    Secret::key([number; 32])
}

/// What the monitor was told under this name since it was asked last, as the values of these fields.
fn told(world: &mut World, event: &str, fields: &[&str]) -> Vec<Vec<Value>> {
    let heard = world.events[MONITOR].drain(..).filter_map(|told| match told {
        Event::Message(Message { message, .. }) if &*message.event == event => {
            Some(ciborium::from_reader(&message.payload.bytes[..]).unwrap())
        }
        _ => None,
    });
    let field = |map: &Value, name: &str| {
        let entry = map.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some(name));
        entry.unwrap_or_else(|| panic!("no {name} in {map:?}")).1.clone()
    };
    heard.map(|value: Value| fields.iter().map(|name| field(&value, name)).collect()).collect()
}

fn owners(world: &mut World) -> Vec<Value> {
    told(world, "owner_changed", &["owner"]).concat()
}

#[test]
fn s64_a_channel_that_needs_no_password_any_more_is_told() {
    let mut world = watched(None, true);
    world.command(OWNER, Command::Unprotect { token: Token(2), channel: name("ch") });
    world.expect_done(OWNER, 2);
    let fields = ["channel", "epoch", "protected"];
    let change = vec![Value::from("ch"), Value::from(2), Value::Bool(false)];
    assert_eq!(told(&mut world, "protection_changed", &fields), [change]);
}

#[test]
fn s64_d14_every_change_of_an_owner_is_told_who_is_promoted_held_and_back() {
    let (owner, member, nobody) = (|| Value::from("owner"), || Value::from("member"), || Value::Null);
    // Its place is taken at once.
    let mut world = watched(Some(OwnerPolicy::Promote), false);
    world.cut(OWNER);
    world.pass(Duration::from_millis(10));
    assert_eq!(owners(&mut world), [member()]);
    // It is kept for the owner, who comes back to it.
    let hold = OwnerPolicy::Hold { grace: Duration::from_secs(30), then: AfterGrace::Promote };
    let mut world = watched(Some(hold), false);
    world.cut(OWNER);
    assert_eq!(owners(&mut world), [nobody()]);
    world.pass(Duration::from_secs(10));
    assert_eq!(owners(&mut world), [owner()]);
    // And once more, and then it stays away.
    world.mute = Some(OWNER);
    world.cut(OWNER);
    assert_eq!(owners(&mut world), [nobody()]);
    world.pass(Duration::from_secs(31));
    assert_eq!(owners(&mut world), [member()]);
}

#[test]
fn s24_s64_who_leaves_a_channel_of_the_hub_hears_no_more_of_it_and_that_is_told_like_any_leaving() {
    for channel in [SYSTEM_CHANNEL, LOGS_CHANNEL, ERRORS_CHANNEL] {
        let mut world = watched(None, false);
        world.open(MEMBER, channel);
        world.listen(MEMBER, 8, channel, None);
        world.events.iter_mut().for_each(VecDeque::clear);
        world.command(MEMBER, Command::Leave { token: Token(9), channel: name(channel) });
        world.expect_done(MEMBER, 9);
        let ended = told(&mut world, "registration_ended", &["channel", "client_id"]);
        assert_eq!(ended, [[Value::from(channel), Value::from("member")]]);
        world.cut(OWNER);
        assert!(!heard(&world, channel), "{channel}: {:?}", world.events[MEMBER]);
        // It can come again, and hears what is said from then on.
        world.events[MEMBER].clear();
        world.open(MEMBER, channel);
        world.listen(MEMBER, 8, channel, None);
        world.pass(Duration::from_secs(5));
        world.cut(OWNER);
        assert_eq!(heard(&world, channel), channel != ERRORS_CHANNEL, "{channel}");
    }
}

fn heard(world: &World, channel: &str) -> bool {
    world.events[MEMBER].iter().any(|event| matches!(event, Event::Message(told) if *told.message.channel == *channel))
}

#[test]
fn s24_a_listener_that_is_undone_and_a_channel_that_is_left_are_heard_no_more_while_others_go_on() {
    let mut world = World::ready(&["speaker", "listener", "other"]);
    for client in 0..3 {
        world.open(client, "ch");
    }
    world.listen(1, 5, "ch", Some("ev"));
    world.listen(1, 6, "ch", None);
    world.listen(2, 5, "ch", Some("ev"));
    let says = |world: &mut World| {
        world.say(0, "ch", "ev", b"heard");
        [1, 2].map(|client| world.events[client].drain(..).filter(|it| matches!(it, Event::Message(_))).count())
    };
    assert_eq!(says(&mut world), [2, 1], "once for each listener");
    world.command(1, Command::Unlisten { token: Token(7), listener: Token(5) });
    world.expect_done(1, 7);
    assert_eq!(says(&mut world), [1, 1]);
    world.command(1, Command::Leave { token: Token(8), channel: name("ch") });
    world.expect_done(1, 8);
    assert_eq!(says(&mut world), [0, 1]);
    world.command(1, Command::Unlisten { token: Token(9), listener: Token(6) });
    assert!(world.events[1].iter().all(|event| !matches!(event, Event::Message(_))));
    world.events[1].clear();
    // What is left is left with all that hung on it: nothing comes back with the channel.
    world.open(1, "ch");
    assert_eq!(says(&mut world), [0, 1]);
    world.listen(1, 5, "ch", Some("ev"));
    assert_eq!(says(&mut world), [1, 1]);
}

#[test]
fn s20_the_first_openers_policy_stands_whatever_later_ones_ask_for() {
    for (first, later, ends) in
        [(OwnerPolicy::Promote, OwnerPolicy::Terminate, false), (OwnerPolicy::Terminate, OwnerPolicy::Promote, true)]
    {
        let mut world = World::ready(&["first", "later", "last"]);
        for (client, policy) in [(0, first), (1, later), (2, later)] {
            let access = Access { policy: Some(policy), ..Access::default() };
            world.command(client, Command::Open { token: Token(1), channel: name("ch"), access });
            world.expect_done(client, 1);
        }
        world.cut(0);
        world.pass(Duration::from_millis(10));
        for client in [1, 2] {
            if ends {
                assert_eq!(world.expect_closed(client, "ch"), Refusal::Terminated, "{first:?}");
            } else {
                assert_eq!(world.expect_owner(client).as_deref(), Some("later"), "{first:?}");
            }
        }
    }
}
