//! What is left of what programs did through their handles, in virtual time: nothing, and every simulation holds that.

#![allow(missing_docs, reason = "a test binary")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use commipc_runtime::{Channel, Fault, Inside, Items, Limits, PendingStream, Request};
use commipc_sim::decisions::Decisions;
use commipc_sim::{Sim, SimNet};
use futures_lite::future;
use futures_lite::stream::{self, Stream, StreamExt as _};

const MANY: usize = 1_000;
/// By then all are asked for.
const ASKED: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What stands for as long as members do: their connections, and what their own handles are for.
const STAYS: [&str; 4] = ["links", "clients", "channels", "standing tickets"];

fn many() -> Limits {
    let mut limits = Limits::default();
    (limits.streams, limits.pending_calls, limits.outbox) = (MANY, MANY, MANY * (32 << 10));
    limits
}

async fn member(sim: &Sim, name: &str) -> Channel {
    let client = sim.process(name).client("h").limits(many()).await.expect("a client");
    client.open("ch").await.expect("a channel")
}

fn held(sim: &Sim, process: &str) -> Vec<(&'static str, usize)> {
    sim.census(process).0.into_iter().filter(|(what, count)| *count > 0 && !STAYS.contains(what)).collect()
}

fn count(sim: &Sim, process: &str, what: &str) -> usize {
    sim.census(process).0.iter().find(|(kind, _)| *kind == what).expect("such a kind").1
}

type Boxed = Pin<Box<dyn Stream<Item = Result<usize, Fault>> + Send>>;

/// So many items, and of some no end.
fn down(r: Request<usize>) -> Boxed {
    let items = stream::iter((0..*r % 7).map(Ok));
    if r.is_multiple_of(5) { Box::pin(items.chain(stream::pending())) } else { Box::pin(items) }
}

/// Gives back what the caller gives.
fn both(_: Request<usize>, items: Items<usize>) -> Boxed {
    Box::pin(items.filter_map(|item| item.ok().map(Ok)))
}

/// What becomes of one of many.
#[derive(Default)]
struct Ends {
    well: AtomicUsize,
    given_up: AtomicUsize,
}

/// ```text
/// c ══ 1,000 streams and exchanges at a time, many given up at some time ══► h ══► p
/// ```
#[test]
fn s49_nothing_is_left_anywhere_of_a_thousand_streams_that_handles_hold_and_drop() {
    for seed in 0..seeds() {
        let (sim, ends) = (Sim::seeded(seed), Arc::new(Ends::default()));
        sim.run(async {
            let _hub = sim.process("h").hub().limits(many()).await.expect("a hub");
            let (p, c) = (member(&sim, "p").await, member(&sim, "c").await);
            let _down = p.provide_stream("down", down).running(MANY).await.expect("an event");
            let _both = p.provide_exchange("both", both).running(MANY).await.expect("an event");
            let mut decisions = Decisions::seeded(seed);
            let draws = decisions.stream("cancels");
            let mut all = Vec::new();
            for number in 0..MANY {
                // Those without an end must be given up.
                let cancels = number % 5 == 0 || decisions.on(draws).chance(1, 4);
                let after =
                    cancels.then(|| ASKED + Duration::from_nanos(decisions.on(draws).log_uniform(1, 2_000_000_000)));
                let ask = if number % 3 == 0 {
                    c.exchange::<usize, usize>("both", &number, stream::iter(0..number % 7))
                } else {
                    c.stream::<usize>("down", &number)
                };
                let (process, ends) = (sim.process("c"), Arc::clone(&ends));
                all.push(sim.process("c").spawn(async move {
                    let taken = take(ask.into_future(), number % 7);
                    match after {
                        None => taken.await,
                        Some(after) => stream_or_time(taken, process.sleep(after)).await,
                    }
                    .map_or(&ends.given_up, |()| &ends.well)
                    .fetch_add(1, Ordering::Relaxed);
                }));
            }
            let mut at_a_time = 0;
            // On a fast network the first are over when the last are asked for.
            for _ in 0..100 {
                sim.process("c").sleep(ASKED / 100).await;
                at_a_time = at_a_time.max(count(&sim, "c", "streams"));
            }
            assert!(at_a_time > MANY * 9 / 10, "seed {seed}: {at_a_time} at a time");
            for one in all {
                one.await.expect("each has an end");
            }
            sim.process("c").sleep(MINUTE).await;
            for process in ["h", "p", "c"] {
                assert_eq!(held(&sim, process), [], "seed {seed}: {process}");
            }
            assert_eq!(count(&sim, "c", "standing tickets"), 0, "seed {seed}");
            assert_eq!(count(&sim, "p", "standing tickets"), 2, "seed {seed}: what is provided");
        });
        let [well, given_up] = [&ends.well, &ends.given_up].map(|it| it.load(Ordering::Relaxed));
        assert!(well + given_up == MANY && well > 300 && given_up > 200, "seed {seed}: {well} and {given_up}");
    }
}

fn seeds() -> u64 {
    std::env::var("COMMIPC_STREAM_SEEDS").map_or(5, |seeds| seeds.parse().expect("a number"))
}

/// All of a stream, which has so many items.
async fn take(asked: PendingStream<usize>, many: usize) -> Option<()> {
    let mut items = asked.await.expect("it is taken");
    for number in 0..many {
        assert_eq!(items.next().await, Some(Ok(number)));
    }
    assert_eq!(items.next().await, None);
    Some(())
}

/// A stream that is dropped, wherever it is, when the time is over.
async fn stream_or_time(taken: impl Future<Output = Option<()>>, time: impl Future<Output = ()>) -> Option<()> {
    future::or(taken, async {
        time.await;
        None
    })
    .await
}

/// Something that never lets go of what it holds.
struct Leaky;

impl Inside for Leaky {
    fn close(&self) {}

    fn has_handles(&self) -> bool {
        false
    }

    fn held(&self) -> Vec<(&'static str, usize)> {
        vec![("calls", 3), ("streams", 0)]
    }
}

#[test]
fn a_simulation_that_ends_with_something_left_fails_and_says_what() {
    let leaky: Arc<dyn Inside> = Arc::new(Leaky);
    let at = |process: commipc_sim::Process| process.runtime().begun(Arc::downgrade(&leaky));
    let why = "when all connections were closed p still held 3 calls";
    let broken = SimNet::builder().hub("h").search(async |net: SimNet| at(net.node("p"))).expect_err("it leaks");
    assert_eq!(broken.why, why);
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        let sim = Sim::seeded(1);
        sim.run(async { at(sim.process("p")) });
    }));
    assert_eq!(dropped.unwrap_err().downcast_ref::<String>().map(String::as_str), Some(why));
    // What dies takes it along.
    let sim = Sim::seeded(1);
    sim.run(async {
        at(sim.process("p"));
        sim.process("p").kill();
    });
}

/// Whatever a program is in the middle of, its end leaves nothing behind.
#[test]
fn programs_that_are_ended_in_the_middle_of_everything_leave_nothing_behind() {
    let provider = async |net: SimNet| {
        let channel = net.client("p", "h").connect().await.expect("a hub").open("ch").await.expect("a channel");
        let never = async |_: Request<()>| future::pending::<Result<(), Fault>>().await;
        channel.provide("never", never).await.expect("an event").detach();
        channel.provide_stream("down", down).await.expect("an event").detach();
        channel.provide_exchange("both", both).await.expect("an event").detach();
        channel.on("news", async |_: commipc_runtime::Message<u32>| {}).await.expect("a listener").detach();
    };
    let caller = async |net: SimNet| {
        let channel = net.client("c", "h").connect().await.expect("a hub").open("ch").await.expect("a channel");
        net.sleep(2 * SECOND).await;
        let (_tap, _listener) = (channel.tap(), channel.listen::<u32>("news").await.expect("a listener"));
        let never = channel.call::<()>("never", &()).deadline(10 * MINUTE).into_future();
        let endless = take(channel.stream::<usize>("down", &5).into_future(), 6);
        let both = channel.exchange::<usize, usize>("both", &0, stream::iter(0..3).chain(stream::pending()));
        let both = take(both.into_future(), 4);
        let _ = future::zip(future::zip(never, endless), both).await;
    };
    SimNet::builder().seeds(0..20).hub("h").program("p", provider).program("c", caller).run(async |net| {
        net.sleep(Duration::from_millis(net.draw(5_000))).await;
    });
}
