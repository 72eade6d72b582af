//! What the hub allocates for a message in the steady state.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

mod support;

use support::{fed, feed, recorded_calls};

#[test]
fn a_routed_call_allocates_nothing() {
    for (rounds, in_flight) in [(500, 1), (40, 64)] {
        let (setup, steady) = recorded_calls(rounds, in_flight, 64);
        let mut hub = fed(setup);
        // What grows to its size once has grown after the first half.
        let mut rest = steady;
        let measured = rest.split_off(rest.len() / 2);
        feed(&mut hub, rest);
        let info = allocation_counter::measure(|| feed(&mut hub, measured));
        assert_eq!(hub.load().calls, 0);
        assert_eq!(info.count_total, 0, "for {} calls, {in_flight} at a time", rounds as u64 * in_flight / 2);
    }
}
