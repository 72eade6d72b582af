//! A client whose connection comes back while its hub cannot store what that changes.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Event, Failure, Reconnect, ReconnectEvent, Token};
use commipc_protocol::{Input, Limits, Refusal, hub};
use support::{Disk, Works, World, lasting, name, payload};

const OWNER: usize = 0;
const OTHER: usize = 1;

/// An owner of a channel that ends with its connection, so that its return is a claim that has to be stored; and a member of
/// somebody else's channel, where nothing has to be.
fn world() -> World {
    let clients = ["owner", "other"].map(|name| lasting(name, Reconnect::default()));
    let mut world = World::with(support::hub(Limits::default()), clients.into());
    world.disk = Some(Disk::default());
    world.feed_hub(Input::Command(hub::Command::Restore(Vec::new())));
    world.connect_all();
    world.open(OTHER, "others");
    world.open(OWNER, "mine");
    world.provide(OWNER, 5, "mine", "sum");
    world.open(OWNER, "others");
    world.listen(OWNER, 6, "others", None);
    world
}

/// The owner's connection goes, and comes back to a hub whose disk works so. Gives what the owner is told, and how long until
/// everything is decided.
fn comes_back(world: &mut World, works: Works) -> (Vec<Event>, Duration) {
    world.hold_dials = true;
    world.cut(OWNER);
    world.events[OWNER].clear();
    world.disk().works = works;
    let before = world.now.mono;
    world.release_dials();
    (world.restored(OWNER), world.now.mono.saturating_since(before))
}

fn progress(told: &[Event]) -> Vec<(usize, usize)> {
    let progress = |event: &Event| match event {
        Event::Reconnect(ReconnectEvent::Restoring { done, of }) => Some((*done, *of)),
        Event::Reconnect(ReconnectEvent::Restored { channels }) => Some((*channels, *channels)),
        _ => None,
    };
    told.iter().filter_map(progress).collect()
}

/// What is told not to be as it was.
fn missing(told: &[Event]) -> Vec<&Event> {
    let missing = |event: &&Event| {
        matches!(event, Event::ChannelClosed { .. } | Event::Reconnect(ReconnectEvent::Unrestored { .. }))
    };
    told.iter().filter(missing).collect()
}

fn others_is_as_it_was(world: &mut World) {
    world.say(OTHER, "others", "up", b"heard");
    assert_eq!(world.expect_message(OWNER), "heard");
}

#[test]
fn s71_a_disk_that_fails_for_a_while_costs_who_comes_back_only_time() {
    let longest = [1, 3, 7, 15].map(Duration::from_secs);
    for (failures, longest) in (1..=4).zip(longest) {
        let mut world = world();
        // Behind each claim the hub stores what holds instead, which fails as well.
        let (told, took) = comes_back(&mut world, Works::After(2 * failures - 1));
        assert_eq!(world.disk().failed, failures);
        assert!(missing(&told).is_empty(), "{failures}: {told:?}");
        assert_eq!(progress(&told), [(0, 2), (1, 2), (2, 2)], "{failures}: it is told to be on its way");
        assert!(took <= longest + Duration::from_secs(1), "{failures}: {took:?}");
        world.call(OTHER, 9, "mine", "sum", b"");
        let request = world.expect_request(OWNER).id;
        world.command(OWNER, Command::Answer { request, result: Ok(payload(b"3")) });
        assert!(world.expect_answered(OTHER).1.is_ok());
        world.protect(OWNER, "mine", &Secret::key([1; 32]), 1);
        others_is_as_it_was(&mut world);
    }
}

#[test]
fn s71_a_disk_that_fails_for_ever_is_told_after_five_tries_and_ends_that_channel_alone() {
    let mut world = world();
    let (told, took) = comes_back(&mut world, Works::Never);
    let failed = Failure::Refused(Refusal::StorageFailed);
    assert_eq!(world.disk().failed, 5);
    let [Event::ChannelClosed { channel, why }] = missing(&told)[..] else { panic!("{told:?}") };
    assert_eq!((channel, *why), (&name("mine"), failed));
    assert!(took <= Duration::from_secs(16), "{took:?}");
    assert_eq!(progress(&told), [(0, 2), (1, 2), (2, 2)]);
    others_is_as_it_was(&mut world);
    world.pass(Duration::from_secs(600));
    assert_eq!(world.disk().failed, 5, "nobody tries any more");
    // Whoever opens it anew is told at once, and once more has five tries with the next connection.
    world.command(OWNER, Command::Open { token: Token(8), channel: name("mine"), access: Default::default() });
    assert_eq!(world.expect_refused(OWNER), Refusal::StorageFailed);
    world.disk().works = Works::AtOnce;
    world.open(OWNER, "mine");
    let (told, _) = comes_back(&mut world, Works::After(7));
    assert!(missing(&told).is_empty(), "{told:?}");
}
