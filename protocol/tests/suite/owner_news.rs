//! Who is told who owns a channel: everybody who does not know it already, and nobody twice.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Access, Command, Event, Reconnect, ReconnectEvent, Token, Unrestored};
use commipc_protocol::{AfterGrace, Input, Limits, OwnerPolicy, hub};
use support::{Disk, World, lasting, name};

const OWNER: usize = 0;
const FIRST: usize = 1;
const SECOND: usize = 2;

fn secret() -> Secret {
    Secret::key([1; 32])
}

/// An owner of a channel with such a policy, with a password or without, and two members of it.
fn world(policy: OwnerPolicy, protected: bool, stores: bool) -> World {
    let clients = ["owner", "first", "second"].map(|name| lasting(name, Reconnect::default()));
    let mut world = World::with(support::hub(Limits::default()), clients.into());
    if stores {
        world.disk = Some(Disk::default());
        world.feed_hub(Input::Command(hub::Command::Restore(Vec::new())));
    }
    world.connect_all();
    let access = Access { policy: Some(policy), ..Access::default() };
    world.command(OWNER, Command::Open { token: Token(1), channel: name("ch"), access });
    world.expect_done(OWNER, 1);
    if protected {
        world.protect(OWNER, "ch", &secret(), 1);
    }
    for member in [FIRST, SECOND] {
        if protected { world.join(member, "ch", &secret()) } else { world.open(member, "ch") }
    }
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world
}

/// Lets time pass, derives whenever that is asked for, and gives what each client was told meanwhile.
fn passes(world: &mut World, seconds: u64) -> [Vec<Event>; 3] {
    let mut told: [Vec<Event>; 3] = Default::default();
    for _ in 0..20 * seconds {
        for client in [OWNER, FIRST, SECOND] {
            while let Some(event) = world.events[client].pop_front() {
                if matches!(event, Event::DeriveChannelKey { .. }) {
                    world.events[client].push_front(event);
                    world.derive(client, &secret());
                } else {
                    told[client].push(event);
                }
            }
        }
        world.pass(Duration::from_millis(50));
    }
    told
}

/// The owners that a client is told of, in order; nothing else may be told to be over.
fn owners(told: &[Event]) -> Vec<Option<String>> {
    let owner = |event: &Event| match event {
        Event::OwnerChanged { owner, .. } => Some(owner.as_ref().map(ToString::to_string)),
        Event::ChannelClosed { .. } => panic!("{told:?}"),
        _ => None,
    };
    told.iter().filter_map(owner).collect()
}

fn hold(grace: u64) -> OwnerPolicy {
    OwnerPolicy::Hold { grace: Duration::from_secs(grace), then: AfterGrace::Promote }
}

fn nobody() -> Vec<Option<String>> {
    Vec::new()
}

#[test]
fn d14_s72_nobody_is_told_again_who_owns_a_channel_by_a_hub_that_knows_it() {
    for (policy, protected) in [
        (OwnerPolicy::Terminate, false),
        (OwnerPolicy::Terminate, true),
        (OwnerPolicy::Promote, false),
        (OwnerPolicy::Promote, true),
        (hold(30), false),
        (hold(30), true),
    ] {
        // Whether members are back before their owner, or it before them.
        for late in [OWNER, FIRST] {
            let mut world = world(policy, protected, true);
            world.mute = Some(late);
            world.start_again();
            let before = passes(&mut world, 3);
            world.mute = None;
            world.cut(late);
            let after = passes(&mut world, 30);
            for told in before.iter().chain(&after) {
                assert_eq!(owners(told), nobody(), "{policy:?}, {protected}, {late}: {told:?}");
            }
            world.protect(OWNER, "ch", &Secret::key([2; 32]), 2);
        }
    }
}

#[test]
fn d14_s72_members_are_told_once_that_their_owner_does_not_come_back_to_a_hub_that_has_started_again() {
    let rows = [
        (hold(10), true, Some("first")),
        (OwnerPolicy::Promote, false, Some("first")),
        // It ends for nobody: whoever has joined since the owner went knows the password, and does without it.
        (OwnerPolicy::Terminate, true, None),
    ];
    for (policy, protected, next) in rows {
        let mut world = world(policy, protected, true);
        // The first joins again before the second.
        world.mute = Some(SECOND);
        world.start_again();
        world.command(OWNER, Command::Close);
        let early = passes(&mut world, 3);
        world.mute = None;
        world.cut(SECOND);
        let [_, first, second] = passes(&mut world, 90);
        for told in [&early[FIRST], &early[SECOND]] {
            assert_eq!(owners(told), nobody(), "{policy:?}: too early");
        }
        let expected = vec![next.map(ToOwned::to_owned)];
        assert_eq!([owners(&first), owners(&second)], [expected.clone(), expected], "{policy:?}, {protected}");
    }
}

#[test]
fn s71_who_was_away_is_told_who_owns_the_channel_now() {
    // The ownership passes on.
    let mut passed_on = world(OwnerPolicy::Promote, false, false);
    passed_on.hold_dials = true;
    passed_on.cut(SECOND);
    passed_on.command(OWNER, Command::Close);
    let [_, first, _] = passes(&mut passed_on, 1);
    assert_eq!(owners(&first), [Some("first".to_owned())]);
    passed_on.release_dials();
    let [_, first, second] = passes(&mut passed_on, 5);
    assert_eq!([owners(&first), owners(&second)], [nobody(), vec![Some("first".to_owned())]]);
    // It is held.
    let mut held = world(hold(60), true, false);
    held.hold_dials = true;
    held.cut(SECOND);
    held.cut(OWNER);
    let [_, first, _] = passes(&mut held, 1);
    assert_eq!(owners(&first), [None]);
    held.mute = Some(OWNER);
    held.release_dials();
    let [_, first, second] = passes(&mut held, 5);
    assert_eq!([owners(&first), owners(&second)], [nobody(), vec![None]]);
    held.mute = None;
    held.cut(OWNER);
    let [owner, first, second] = passes(&mut held, 10);
    let back = vec![Some("owner".to_owned())];
    assert_eq!([owners(&owner), owners(&first), owners(&second)], [nobody(), back.clone(), back]);
}

#[test]
fn s71_an_owner_whose_channel_has_passed_on_is_told_so_and_to_whom() {
    let mut world = world(OwnerPolicy::Promote, true, false);
    world.hold_dials = true;
    world.cut(OWNER);
    let [_, first, second] = passes(&mut world, 1);
    let passed_on = || vec![Some("first".to_owned())];
    assert_eq!([owners(&first), owners(&second)], [passed_on(), passed_on()]);
    world.release_dials();
    let [owner, first, second] = passes(&mut world, 10);
    let disowned = |event: &&Event| {
        matches!(event, Event::Reconnect(ReconnectEvent::Unrestored { what: Unrestored::Ownership(_), .. }))
    };
    assert_eq!(owner.iter().filter(disowned).count(), 1);
    assert_eq!([owners(&owner), owners(&first), owners(&second)], [passed_on(), nobody(), nobody()]);
}

#[test]
fn d14_members_of_a_hub_that_has_forgotten_are_told_that_nobody_owns_the_channel() {
    let mut world = world(OwnerPolicy::Terminate, false, false);
    world.mute = Some(OWNER);
    world.replace_hub(support::hub(Limits::default()));
    let [_, first, second] = passes(&mut world, 5);
    assert_eq!([owners(&first), owners(&second)], [vec![None], vec![None]]);
    world.mute = None;
    world.cut(OWNER);
    // The owner too: it is told that it does not own it any more.
    let [owner, first, second] = passes(&mut world, 5);
    assert_eq!([owners(&owner), owners(&first), owners(&second)], [vec![None], nobody(), nobody()]);
}

#[test]
fn s71_an_owner_that_loses_its_link_once_more_on_the_way_back_is_told_who_owns_its_channel_in_the_end() {
    let mut world = world(OwnerPolicy::Promote, false, false);
    world.hold_dials = true;
    world.cut(OWNER);
    let owned_by_first = |event: &Event| matches!(event, Event::OwnerChanged { owner: Some(_), .. });
    world.cut_on = Some((OWNER, owned_by_first));
    world.release_dials();
    let [early, ..] = passes(&mut world, 5);
    assert_eq!(owners(&early), [Some("first".to_owned())]);
    assert!(!world.is_linked(OWNER), "it is cut before it hears what became of its ownership");
    // The channel ends, and the other member opens it anew: nobody owns it.
    world.cut(SECOND);
    world.command(FIRST, Command::Close);
    world.mute = Some(OWNER);
    world.release_dials();
    let [_, _, second] = passes(&mut world, 5);
    assert_eq!(owners(&second), [None]);
    world.mute = None;
    world.cut(OWNER);
    let [late, ..] = passes(&mut world, 30);
    assert_eq!(owners(&late), [None]);
}
