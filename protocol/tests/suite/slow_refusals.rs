//! Hubs refuse wrong secrets later and later, counted for all of one credential and source: whoever comes back with one is
//! refused in the end all the same, however many there are.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Event, Failure, Reconnect, ReconnectEvent};
use commipc_protocol::hub::{Hub, HubConfig};
use commipc_protocol::wire::FrameType;
use commipc_protocol::{CloseReason, Limits, OwnerPolicy, Refusal, Seed, Violation};
use support::{World, hub, lasting, name};

const SECOND: Duration = Duration::from_secs(1);

fn clients(count: usize) -> World {
    let clients = (0..count).map(|number| lasting(&format!("c{number}"), Reconnect::default())).collect();
    let mut world = World::with(hub(Limits::default()), clients);
    world.connect_all();
    world
}

/// After how many seconds each has been told that its secret is refused, once a hub with another is there.
fn refused(count: usize) -> Vec<u64> {
    let mut world = clients(count);
    let other = HubConfig {
        id: None,
        credentials: support::credentials(&Secret::key([8; 32])),
        limits: Limits::default(),
        owner_policy: OwnerPolicy::default(),
    };
    world.replace_hub(Hub::new(other, &Seed::new([4; 32])));
    let mut ended = vec![None; count];
    for second in 0..7_200 {
        for (events, ended) in world.events.iter_mut().zip(&mut ended) {
            for event in events.drain(..) {
                if let Event::Closed(why) = event {
                    assert_eq!(why, CloseReason::Refused(Refusal::AuthFailed));
                    assert_eq!(ended.replace(second), None, "it ends once");
                }
            }
        }
        world.pass(SECOND);
    }
    ended.into_iter().map(|ended| ended.unwrap_or_else(|| panic!("somebody is tried for ever"))).collect()
}

#[test]
fn s70_d18_everybody_with_a_wrong_secret_is_refused_in_the_end_though_hubs_refuse_later_and_later() {
    for (count, within) in [(1, 60), (3, 300), (40, 3_600)] {
        let ended = refused(count);
        assert!(ended.iter().all(|second| *second <= within), "{count}: {ended:?}");
        println!("{count} clients: {} s", ended.iter().max().unwrap());
    }
}

/// A hub that stands still before a handshake, or in the middle of it, has refused nobody.
#[test]
fn s70_a_hub_that_answers_nothing_is_tried_for_as_long_as_that_lasts() {
    for answers_first in [false, true] {
        let mut world = clients(1);
        world.replace_hub(hub(Limits::default()));
        world.cut(0);
        if answers_first {
            world.ignores = Some(FrameType::Proof);
        } else {
            world.mute = Some(0);
        }
        for _ in 0..7_200 {
            world.pass(SECOND);
        }
        let told = &world.events[0];
        assert!(!told.iter().any(|event| matches!(event, Event::Closed(_))));
        let lost = |event: &&Event| matches!(event, Event::Reconnect(ReconnectEvent::Lost { reason, .. }) if *reason == CloseReason::Violation(Violation::HandshakeTimeout));
        assert!(told.iter().filter(lost).count() > 10, "it is tried again and again");
        (world.mute, world.ignores) = (None, None);
        world.pass(Duration::from_secs(400));
        let told = world.restored(0);
        assert!(!told.iter().any(|event| matches!(event, Event::Closed(_))), "{told:?}");
    }
}

/// However long a hub may keep a refusal back.
#[test]
fn limits_without_end_are_waited_for_without_end() {
    let mut limits = Limits::default();
    limits.failure_delay_max = Duration::MAX;
    let client = support::lasting_with("c", Reconnect::default(), limits);
    let mut world = World::with(hub(Limits::default()), vec![client]);
    world.connect_all();
    world.ignores = Some(FrameType::Proof);
    world.cut(0);
    for _ in 0..10_000 {
        world.pass(SECOND);
    }
    world.ignores = None;
    assert!(!world.events[0].iter().any(|event| matches!(event, Event::Closed(_))));
}

#[test]
fn s72_every_member_whose_password_no_longer_fits_is_told_so_though_hubs_refuse_later_and_later() {
    const MEMBERS: usize = 30;
    let mut world = clients(1 + MEMBERS);
    world.open(0, "vault");
    world.protect(0, "vault", &Secret::key([1; 32]), 1);
    for member in 1..=MEMBERS {
        world.join(member, "vault", &Secret::key([1; 32]));
    }
    world.hold_dials = true;
    for member in 1..=MEMBERS {
        world.cut(member);
        world.events[member].clear();
    }
    world.protect(0, "vault", &Secret::key([2; 32]), 2);
    world.release_dials();
    let mut told = vec![None; MEMBERS];
    for _ in 0..400 {
        for member in 1..=MEMBERS {
            world.derive_all(member, &Secret::key([1; 32]));
            for event in world.events[member].drain(..) {
                match event {
                    Event::ChannelClosed { channel, why } if channel == name("vault") => {
                        assert_eq!(told[member - 1].replace(why), None, "it is told once");
                    }
                    Event::Reconnect(ReconnectEvent::Lost { .. }) | Event::Closed(_) => panic!("{event:?}"),
                    _ => {}
                }
            }
        }
        world.pass(SECOND);
    }
    assert_eq!(told, [Some(Failure::Refused(Refusal::PasswordWrong)); MEMBERS]);
}
