//! Streams between machines in virtual time: what is left behind of many of them is nothing.

use std::time::Duration;

use commipc_protocol::client::{CallFailure, Event, Failure, StreamEvent};
use commipc_protocol::{Limits, Misuse};
use commipc_sim::decisions::Decisions;
use commipc_sim::{Feed, NodeId, Ticket, World};

const SOON: Duration = Duration::from_secs(20);
const MANY: usize = 1_000;

/// A provider and a consumer, each with one connection that carries so many streams.
fn crowd(seed: u64) -> World {
    let mut limits = Limits::default();
    // Room for 16 KiB of each, whatever the weather.
    (limits.streams, limits.pending_calls, limits.outbox) = (MANY, MANY, MANY * (32 << 10));
    let world = World::seeded(seed).with_habits().hub_with("h", limits.clone());
    let mut world = world.client_with("p", "p", limits.clone(), true).client_with("c", "c", limits, true).connected();
    let _ = world.at("p").opens("ch").provides_streams("ch", "down").provides_exchanges("ch", "both");
    world.feeds("p", |request| {
        let number = request.message.payload.bytes.len();
        let items = (0..number % 7).map(move |item| vec![b'.'; item * 400]);
        if number % 5 == 0 { Feed::of(items).endless() } else { Feed::of(items) }
    });
    world
}

/// What a machine holds of what was asked: everything but its links, and what goes with them.
fn held(world: &World, node: NodeId) -> Vec<(&'static str, usize)> {
    let stays = ["links", "clients", "channels", "memory", "timers"];
    world.census(node).0.into_iter().filter(|(what, count)| *count > 0 && !stays.contains(what)).collect()
}

fn is_end(event: &Event, wanted: &Result<(), CallFailure>) -> bool {
    matches!(event, Event::Stream(StreamEvent::Ended { result, .. }) if result == wanted)
}

/// ```text
/// c ══ 1,000 streams and exchanges, a third of them given up at some time ══► h ══► p
/// ```
#[test]
fn s49_nothing_is_left_of_a_thousand_streams_over_one_link_of_which_many_are_given_up() {
    let seeds = std::env::var("COMMIPC_STREAM_SEEDS").map_or(5, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let (mut world, mut decisions) = (crowd(seed), Decisions::seeded(seed));
        let stream = decisions.stream("cancels");
        let mut asked: Vec<Ticket> = Vec::new();
        for number in 0..MANY {
            let text = "x".repeat(number);
            asked.push(if number % 3 == 0 {
                world.at("c").exchanges("ch", "both", &text, SOON, Feed::of([vec![b'u'; 2_000], vec![b'v'; 30_000]]))
            } else {
                world.at("c").streams("ch", "down", &text, SOON)
            });
        }
        let everybody = ["h", "p", "c"].map(|name| world.engine().find(name).unwrap());
        let streams = |world: &World| world.census(everybody[2]).0.iter().find(|it| it.0 == "streams").unwrap().1;
        assert_eq!(streams(&world), MANY, "all at a time");
        for (number, ticket) in asked.iter().enumerate() {
            if number % 5 == 0 || decisions.on(stream).chance(1, 4) {
                let _ = world.at("c").cancels(*ticket);
                let pause = decisions.on(stream).log_uniform(1, 20_000_000);
                world.run_for(Duration::from_nanos(pause));
            }
        }
        world.run_for(SOON);
        let gave_up = CallFailure::Failed { failure: Failure::Local(Misuse::Cancelled), maybe_executed: true };
        let ends =
            |wanted: &Result<(), CallFailure>| world.told("c").iter().filter(|event| is_end(event, wanted)).count();
        let (well, cancelled) = (ends(&Ok(())), ends(&Err(gave_up)));
        // Every fifth has no end of its own; many others are over before they are given up, or not, as the weather is.
        assert!(well + cancelled == MANY && well > 100 && cancelled >= MANY / 5, "seed {seed}: {well} and {cancelled}");
        for node in everybody {
            assert_eq!(held(&world, node), [], "seed {seed}: {}", world.engine().name(node));
        }
        world.end();
    }
}
