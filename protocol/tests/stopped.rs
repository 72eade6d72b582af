//! A member that is stopped, among many.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

mod support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Token};
use commipc_protocol::{Limits, LinkId, Refusal, hub};
use support::{KEY, World, client, hub, outgoing};

/// One who talks and thirty-two who listen, the last of them stopped or not; and by how much the hub grew at most.
fn to_thirty_two(stopped: bool, outbox: usize, in_flight: usize) -> (World, usize) {
    let clients = (0..=32).map(|number| client(&format!("client-{number}"), Secret::key(KEY))).collect();
    let mut limits = Limits::default();
    (limits.outbox, limits.in_flight) = (outbox, in_flight);
    let mut world = World::with(hub(limits), clients);
    world.connect_all();
    for client in 1..=32 {
        world.open(client, "ch");
        world.listen(client, 7, "ch", None);
    }
    world.stalled = stopped.then_some(32);
    let (before, mut most) = (world.hub.load().memory, 0);
    for token in 0..200 {
        world.command(0, Command::Broadcast { token: Token(token), outgoing: outgoing("ch", "ev", &[9; 500]) });
        most = most.max(world.hub.load().memory.saturating_sub(before));
        world.pass(Duration::from_millis(20));
    }
    (world, most)
}

#[test]
fn v25_d13_of_thirty_two_listeners_the_others_do_not_notice_that_one_is_stopped() {
    // What waits at the hub, and what its driver holds.
    let (outbox, in_flight) = (40_000, 10_000);
    let ((all, little), (rest, most)) =
        (to_thirty_two(false, outbox, in_flight), to_thirty_two(true, outbox, in_flight));
    for client in 0..32 {
        assert_eq!(format!("{:?}", all.events[client]), format!("{:?}", rest.events[client]), "{client}");
        let link = LinkId::accepted(client as u32, client as u32 + 1);
        assert_eq!(all.wire[&link], rest.wire[&link], "to the byte, and with the same times in it");
    }
    assert!((1..=31).all(|client| rest.events[client].len() == 200), "everybody heard everything");
    assert!(
        little < 1_000 && (outbox..=outbox + in_flight).contains(&most),
        "the hub grew by {most}, without it by {little}"
    );
    let slow = hub::DisconnectReason::Refused(Refusal::SlowConsumer);
    let ended = |event: &&hub::Event| matches!(event, hub::Event::Disconnected { why, .. } if *why == slow);
    assert_eq!(rest.hub_events.iter().filter(ended).count(), 1);
}
