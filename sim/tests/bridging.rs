//! Hubs that bridges join: worlds of any graph and any faults.

#![allow(missing_docs, reason = "a test binary")]

use std::time::Duration;

use commipc_protocol::client::{CallFailure, Failure, Reconnect};
use commipc_protocol::{Limits, OwnerPolicy, Refusal};
use commipc_sim::{Profile, Reply, Source, World, run_as, run_seeds_as};

fn seeds() -> u64 {
    std::env::var("COMMIPC_BRIDGES").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(120)
}

/// What must befall bridges again and again, and what must come of it, or nothing is shown: in how many of a hundred worlds'
/// counts at least.
const MARKS: [(&str, u64); 34] = [
    ("fault: a bridge comes late", 20),
    ("fault: a bridge is cut", 20),
    ("fault: a bridge is cut on one side", 30),
    ("fault: a bridge is half-open", 20),
    ("fault: a bridge is killed", 30),
    ("fault: a bridge loses one direction", 20),
    ("fault: a bridge says goodbye", 10),
    ("fault: a bridge vanishes", 20),
    ("fault: a client is cut", 20),
    ("fault: a hub comes late", 10),
    ("fault: a hub is killed", 5),
    ("fault: a hub is killed beside a password", 1),
    ("the channel with a password ended", 5),
    ("lie: a message is changed", 1),
    ("lie: a path is stripped", 1),
    ("lie: a protection is made up", 5),
    ("lie: doubles are flooded", 1),
    ("lie: somebody is announced in another's name", 5),
    ("lie: something is kept back", 1),
    ("lie: something is said again", 5),
    ("a message crosses a bridge", 300),
    ("a request crosses a bridge", 150),
    ("an answer crosses a bridge", 80),
    ("a stream is whole", 100),
    ("a call loses its way", 3),
    ("a call ends with its link", 5),
    ("a channel is told to be closed", 30),
    ("an owner's key is used at home", 1),
    ("an owner's key is used from afar", 2),
    ("channels are restored", 30),
    ("quiet: a call is answered", 200),
    ("quiet: a stream is whole", 80),
    ("quiet: heard at another hub", 200),
    ("quiet: nobody provides it", 150),
];

#[test]
fn s78_d15_d16_v31_v34_whatever_befalls_bridges_nothing_comes_twice_or_circles_and_all_heals() {
    let seeds = seeds();
    let tally = run_seeds_as(0, seeds, 3, Profile::Bridges);
    assert!(tally.is_fine(), "{tally}");
    let rare = MARKS.iter().filter(|(mark, least)| tally.marks.get(mark).copied().unwrap_or(0) * 100 < least * seeds);
    let rare: Vec<&(&str, u64)> = rare.collect();
    assert!(rare.is_empty(), "too rare in {seeds} worlds: {rare:?} of {:?}", tally.marks);
}

/// Worlds in which something was found once: sim/CHANGELOG.md says what.
const FOUND: [u64; 7] = [32, 42, 116, 1092, 1126, 1241, 1411];

#[test]
fn what_was_found_once_is_not_found_again() {
    for seed in FOUND {
        assert!(include_str!("../CHANGELOG.md").contains(&format!("{seed} B")), "what did {seed} find?");
        let tally = run_seeds_as(seed, 1, 1, Profile::Bridges);
        assert!(tally.is_fine(), "{tally}");
    }
}

#[test]
fn a_world_of_bridges_is_replayed_by_its_choices() {
    let first = run_as(Source::Seed(3), Profile::Bridges, false);
    let again = run_as(Source::Choices(first.choices), Profile::Any, false);
    assert_eq!(first.trace_hash, again.trace_hash);
}

#[test]
fn s75_d16_a_suite_joins_hubs_and_parts_them() {
    let mut policy = Reconnect::default();
    policy.initial = true;
    let hub = |world: World, name| world.joined_hub(name, Limits::default(), OwnerPolicy::default());
    let world = hub(World::seeded(7).bridged(), "a").client("p");
    let world = hub(world, "b").client("c").beside("a").client("d");
    let mut world = world.bridge("ab", ["a", "b"], Limits::default(), policy).connected();
    world.at("p").opens("math").provides("math", "sum");
    world.serves("p", |_| Reply::text("40"));
    let bridge = world.bridges()[0];
    world.start_bridge(bridge);
    world.run_until(|world| world.is_bridged(bridge));
    let answer = |world: &mut World, name: &str| {
        let call = world.at(name).calls("math", "sum", "15 25", Duration::from_secs(2));
        world.answer(call).map(|answer| answer.hops)
    };
    assert_eq!([answer(&mut world, "d"), answer(&mut world, "c")], [Ok(1), Ok(2)]);
    world.kill_bridge(bridge, false);
    world.run_for(Duration::from_secs(1));
    let nobody = CallFailure::Failed { failure: Failure::Refused(Refusal::NoProvider), maybe_executed: false };
    assert_eq!(answer(&mut world, "c"), Err(nobody));
    world.start_bridge(bridge);
    world.run_until(|world| world.is_bridged(bridge));
    assert_eq!(answer(&mut world, "c"), Ok(2));
}
