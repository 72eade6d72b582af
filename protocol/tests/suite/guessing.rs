//! Who guesses a secret waits; who knows it does not.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::net::IpAddr;
use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Event};
use commipc_protocol::{CloseReason, CredentialId, Input, Limits, Machine as _, Refusal};
use support::{KEY, World, client, client_as, hub};

const SECOND: Duration = Duration::from_secs(1);

/// Guesses once; tells whether the answer has come.
fn guess(world: &mut World, client: usize) -> bool {
    world.clients[client] = support::client("guesser", Secret::key([8; 32]));
    world.command(client, Command::Connect);
    let failed = |event: &Event| matches!(event, Event::Closed(CloseReason::Refused(Refusal::AuthFailed)));
    world.events[client].pop_front().is_some_and(|event| failed(&event))
}

#[test]
fn v20_guesses_wait_and_honest_clients_do_not() {
    let mut limits = Limits::default();
    limits.free_failures = 3;
    limits.failure_delay = SECOND;
    limits.failure_delay_max = SECOND * 2;
    let clients = ["honest", "g", "g", "g"].map(|id| client(id, Secret::key(KEY))).into();
    let mut world = World::with(hub(limits), clients);
    for _ in 0..3 {
        assert!(guess(&mut world, 1), "the first are free");
    }
    assert!(!guess(&mut world, 1));
    assert!(!guess(&mut world, 2));
    assert!(!guess(&mut world, 3));
    world.command(0, Command::Connect);
    assert!(matches!(world.next(0), Event::Ready(_)), "who knows the secret does not wait");
    world.pass(SECOND);
    let told = |world: &World| [1, 2, 3].map(|client| !world.events[client].is_empty());
    assert_eq!(told(&world), [true, false, false]);
    world.pass(SECOND);
    assert_eq!(told(&world), [true, true, true], "no wait is longer than the longest");
    assert_eq!(world.hub.load().links, 1);
}

#[test]
fn v20_those_who_wait_hold_no_place_and_are_few() {
    let mut limits = Limits::default();
    limits.free_failures = 0;
    limits.failure_table = 10;
    limits.unauthenticated = 2;
    let clients = ["honest", "g", "g", "g", "g"].map(|id| client(id, Secret::key(KEY))).into();
    let mut world = World::with(hub(limits), clients);
    for client in 1..=4 {
        assert!(!guess(&mut world, client));
    }
    assert_eq!([1, 2, 3, 4].map(|client| world.is_linked(client)), [false, false, true, true]);
    world.command(0, Command::Connect);
    assert!(matches!(world.next(0), Event::Ready(_)));
}

#[test]
fn v20_who_hangs_up_is_forgiven_nothing_and_leaves_nothing_but_a_count() {
    let clients = ["honest", "g"].map(|id| client(id, Secret::key(KEY))).into();
    let mut world = World::with(hub(Limits::default()), clients);
    let told: Vec<bool> = (0..15)
        .map(|_| {
            let told = guess(&mut world, 1);
            world.cut(1);
            assert_eq!((world.hub.load().links, world.hub.poll_timeout()), (0, None), "nothing waits for who is gone");
            told
        })
        .collect();
    assert_eq!(told.iter().filter(|told| **told).count(), 5, "hanging up makes no guess free");
    // The sixteenth waits as long as if all had been waited for: 2^10 s, which is more than the longest wait.
    assert!(!guess(&mut world, 1));
    world.command(0, Command::Connect);
    assert!(matches!(world.next(0), Event::Ready(_)), "who knows the secret does not wait");
    // Its client would not wait so long.
    let mut pass = |time| {
        world.now.mono = world.now.mono + time;
        world.feed_hub(Input::Timeout);
        world.run();
        world.is_linked(1)
    };
    assert!(pass(SECOND * 299));
    assert!(!pass(SECOND));
    assert!(matches!(world.next(1), Event::Closed(CloseReason::Refused(Refusal::AuthFailed))));
}

#[test]
fn v20_who_invents_names_waits_all_the_same() {
    let mut limits = Limits::default();
    limits.free_failures_per_source = 20;
    limits.failure_table = 30;
    let clients = ["honest", "g", "elsewhere"].map(|id| client(id, Secret::key(KEY))).into();
    let mut world = World::with(hub(limits), clients);
    let from = |address: &str| Some(address.parse::<IpAddr>().unwrap());
    world.sources = vec![from("10.0.0.1"), from("10.0.0.1"), from("10.0.0.2")];
    for _ in 0..5 {
        assert!(guess(&mut world, 1));
    }
    let mut free = 0;
    for number in 0..100 {
        let invented = CredentialId::new(&format!("invented {number}")).unwrap();
        world.clients[1] = client_as("g", invented, Secret::key([8; 32]), Limits::default());
        world.command(1, Command::Connect);
        free += usize::from(world.events[1].pop_front().is_some());
        world.cut(1);
        world.events[1].clear();
    }
    assert_eq!(free, 14, "the first twenty of a source, less the last");
    assert!(!guess(&mut world, 1), "and its own count it did not get rid of");
    assert!(guess(&mut world, 2), "which is nothing to others");
    world.command(0, Command::Connect);
    assert!(matches!(world.next(0), Event::Ready(_)), "nor to who knows the secret");
}

#[test]
fn v20_who_guesses_much_keeps_no_others_refusal_short() {
    let mut limits = Limits::default();
    limits.free_failures = 0;
    limits.unauthenticated = 4;
    limits.unauthenticated_per_source = 3;
    let clients = (0..8).map(|_| client("g", Secret::key(KEY))).collect();
    let mut world = World::with(hub(limits), clients);
    let from = |address: &str| Some(address.parse::<IpAddr>().unwrap());
    world.sources = (0..8).map(|number| from(if number == 0 { "10.0.0.2" } else { "10.0.0.1" })).collect();
    for client in 0..8 {
        assert!(!guess(&mut world, client), "{client}");
    }
    let waiting: Vec<usize> = (0..8).filter(|client| world.is_linked(*client)).collect();
    assert_eq!(waiting, [0, 5, 6, 7], "three of the source that guesses, and the other's own");
    let told = |event: Option<&Event>| matches!(event, Some(Event::Closed(CloseReason::Refused(Refusal::AuthFailed))));
    assert!(told(world.events[1].front()), "a refusal that is cut short is told: silence would say as much");
}
