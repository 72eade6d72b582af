//! The conversation of hub, provider and consumer, told as a suite.

use std::time::Duration;

use commipc_protocol::client::{CallFailure, Event, Failure};
use commipc_protocol::{CloseReason, Refusal, hub};
use commipc_sim::{Reply, Weather, World};

const SOON: Duration = Duration::from_secs(2);
/// How old the time may be that a driver hands in.
const OLDEST_READING: Duration = Duration::from_millis(1);

fn math(seed: u64) -> World {
    let mut world = World::seeded(seed).with_habits().hub("h").client("p").client("c").connected();
    world.at("p").opens("math").provides("math", "sum");
    world
}

#[test]
fn a_call_is_answered() {
    for seed in 0..50 {
        let mut world = math(seed);
        world.serves("p", |request| {
            assert_eq!(&request.message.payload.bytes[..], b"15 25");
            Reply::text("40")
        });
        let call = world.at("c").calls("math", "sum", "15 25", SOON);
        assert_eq!(&world.answer(call).unwrap().payload.bytes[..], b"40");
    }
}

#[test]
fn a_call_without_an_answer_ends_at_its_deadline() {
    for seed in 0..50 {
        let mut world = math(seed);
        let before = world.now();
        let call = world.at("c").calls("math", "sum", "15 25", SOON);
        let failed = world.answer(call);
        assert!(matches!(failed, Err(CallFailure::Failed { maybe_executed: true, .. })), "{failed:?}");
        let took = world.now().saturating_since(before);
        assert!(took + OLDEST_READING >= SOON && took < SOON * 2, "{took:?}");
    }
}

#[test]
fn a_lost_provider_ends_the_call() {
    for seed in 0..50 {
        let mut world = math(seed);
        world.serves("p", |_| Reply::silence());
        let call = world.at("c").calls("math", "sum", "", Duration::from_secs(3_600));
        world.run_until(|world| world.told("p").iter().any(|event| matches!(event, Event::Request(_))));
        world.at("p").is_cut();
        let gone = Failure::Refused(Refusal::ProviderGone);
        assert_eq!(world.answer(call), Err(CallFailure::Failed { failure: gone, maybe_executed: true }));
    }
}

#[test]
fn a_broadcast_reaches_everybody_else() {
    for seed in 0..50 {
        let mut world = World::seeded(seed).hub("h").client("a").client("b").client("c").connected();
        for name in ["a", "b", "c"] {
            world.at(name).opens("news").listens("news", None);
        }
        for text in ["one", "two", "three"] {
            let sent = world.at("a").broadcasts("news", "any", text);
            assert_eq!(world.done(sent), Ok(()));
        }
        world.run_to_end();
        assert_eq!([0, 3, 3], ["a", "b", "c"].map(|name| world.heard(name).len()));
    }
}

#[test]
fn a_stranger_stays_outside() {
    for seed in 0..50 {
        let world = World::seeded(seed).hub("h").stranger("x").connected();
        let told = world.told("x");
        assert!(matches!(told, [Event::Closed(CloseReason::Refused(Refusal::AuthFailed))]), "{told:?}");
        assert!(!world.hub_told("h").iter().any(|event| matches!(event, hub::Event::Connected { .. })));
    }
}

/// Everything both clients were told in a conversation, with reads cut by the weights of [`Weather::chunks`].
fn told(seed: u64, chunks: [u64; 4]) -> [String; 2] {
    let still = Weather { chunks, ..Weather::still() };
    let mut world = World::seeded(seed).weather(still).hub("h").client("p").connected().client("c").connected();
    world.at("p").opens("math").provides("math", "sum");
    world.at("c").opens("math").listens("math", None);
    world.serves("p", |request| Reply::text(&"4".repeat(request.message.payload.bytes.len())));
    for size in [1, 100, 5_000, 70_000] {
        let call = world.at("c").calls("math", "sum", &"1".repeat(size), SOON);
        assert!(world.answer(call).is_ok());
        let sent = world.at("p").broadcasts("math", "news", &"n".repeat(size));
        assert_eq!(world.done(sent), Ok(()));
    }
    world.run_to_end();
    ["p", "c"].map(|name| format!("{:#?}", world.told(name)))
}

#[test]
fn how_reads_are_cut_does_not_show() {
    for seed in 0..20 {
        let whole = told(seed, [1, 0, 0, 0]);
        for chunks in [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] {
            assert!(told(seed, chunks) == whole, "seed {seed}, chunks {chunks:?}");
        }
    }
}
