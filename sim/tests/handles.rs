//! Hub, client and channel as applications hold them, in virtual time.

#![allow(missing_docs, reason = "a test binary")]

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant as RealInstant};

use commipc_runtime::{
    Call, CallError, Channel, Client, CloseReason, Failure, Fault, Hub, Misuse, Provider, RUNNING_MAX, Refusal,
    Request, Runtime as _, WAITING_MAX,
};
use commipc_sim::decisions::Decisions;
use commipc_sim::{Sim, TraceHash, Weather};

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// A hub `h`, a provider `p` of math/sum, and a consumer `c`.
struct Math {
    _hub: Hub,
    _sum: Provider,
    provider: Channel,
    consumer: Client,
}

impl Math {
    /// The sum takes as long as `takes` says.
    async fn new(sim: &Sim, takes: Duration) -> Self {
        Self::with(sim, move |numbers: Request<(i64, i64)>| async move {
            numbers.sleep(takes).await;
            Ok(numbers.0 + numbers.1)
        })
        .await
    }

    async fn with<F, Fut>(sim: &Sim, sum: F) -> Self
    where
        F: Fn(Request<(i64, i64)>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<i64, Fault>> + Send + 'static,
    {
        let hub = sim.process("h").hub().await.expect("a hub");
        let provider = sim.process("p").client("h").await.expect("a provider").open("math").await.expect("a channel");
        let sum = provider.provide("sum", sum).await.expect("an event");
        let consumer = sim.process("c").client("h").await.expect("a consumer");
        Self { _hub: hub, _sum: sum, provider, consumer }
    }

    fn sum(&self, a: i64, b: i64) -> Call<i64> {
        self.consumer.call("math", "sum", &(a, b))
    }
}

/// Polls a call once, so that it is on its way.
async fn started<F: Future + Unpin>(call: &mut F) {
    poll_fn(|cx| {
        assert!(Pin::new(&mut *call).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

fn failed(result: Result<i64, CallError>) -> (Failure, bool) {
    match result {
        Err(CallError::Failed { failure, maybe_executed }) => (failure, maybe_executed),
        other => panic!("{other:?}"),
    }
}

/// ```text
/// c ──sum(15, 25)──► h ──► p
/// c ◄──────── 40 ─── h ◄── p
/// ```
#[test]
fn s37_a_call_is_answered() {
    for seed in 0..50 {
        let sim = Sim::seeded(seed);
        let total = sim.run(async { Math::new(&sim, Duration::ZERO).await.sum(15, 25).await });
        assert_eq!(total, Ok(40), "seed {seed}");
        assert!(sim.elapsed() < Duration::from_secs(1), "{:?}", sim.elapsed());
    }
}

/// ```text
/// c ──sum──► h ──► p   thinks for two hours
/// c ◄─ deadline        after one
/// ```
#[test]
fn a_deadline_of_an_hour_takes_no_time() {
    let real = RealInstant::now();
    let sim = Sim::seeded(1);
    let (failure, took) = sim.run(async {
        let math = Math::new(&sim, 2 * HOUR).await;
        let before = sim.elapsed();
        let failure = failed(math.sum(15, 25).deadline(HOUR).await);
        (failure, sim.elapsed() - before)
    });
    assert_eq!(failure, (Failure::Local(Misuse::Deadline), true), "the caller's own timer decides");
    assert!(took >= HOUR && took < HOUR + MINUTE, "{took:?}");
    assert!(real.elapsed() < Duration::from_secs(10), "{:?}", real.elapsed());
}

/// ```text
/// c ──sum──► h ──► p   waits a minute: Request::sleep
///                  └──► a task of its own for another: Request::spawn
/// c ◄── 40 ─ h ◄── p
/// ```
#[test]
fn a_handler_has_time_and_tasks_in_virtual_time() {
    let noted = Arc::new(Mutex::new(None));
    let sim = Sim::seeded(2);
    sim.run(async {
        let note = Arc::clone(&noted);
        let math = Math::with(&sim, move |numbers: Request<(i64, i64)>| {
            let note = Arc::clone(&note);
            async move {
                numbers.sleep(MINUTE).await;
                let later = numbers.sleep(MINUTE);
                numbers.spawn(async move {
                    later.await;
                    *note.lock().unwrap() = Some("a task outlives its request");
                });
                Ok(numbers.0 + numbers.1)
            }
        })
        .await;
        assert_eq!(math.sum(15, 25).deadline(2 * MINUTE).await, Ok(40));
        assert!(sim.elapsed() >= MINUTE && sim.elapsed() < 2 * MINUTE, "{:?}", sim.elapsed());
        assert_eq!(*noted.lock().unwrap(), None);
        sim.process("c").sleep(MINUTE).await;
        assert!(noted.lock().unwrap().is_some());
    });
}

/// ```text
/// c ──sum──► h ──► p   thinks
///            h     ✗   killed
/// c ◄─ ProviderGone, maybe executed
/// ```
#[test]
fn v26_a_call_ends_when_its_provider_dies() {
    for seed in 0..50 {
        let sim = Sim::seeded(seed);
        let (failure, took) = sim.run(async {
            let math = Math::new(&sim, HOUR).await;
            let mut call = math.sum(15, 25).deadline(2 * HOUR).into_future();
            started(&mut call).await;
            sim.process("c").sleep(MINUTE).await;
            sim.process("p").kill();
            (failed(call.await), sim.elapsed())
        });
        assert_eq!(failure, (Failure::Refused(Refusal::ProviderGone), true), "seed {seed}");
        assert!(took < 2 * MINUTE, "seed {seed}: {took:?}");
    }
}

/// ```text
/// c ──sum──► h ──► p   thinks
/// c    ✗     h         the connection breaks
/// c: Disconnected, maybe executed
/// ```
#[test]
fn s43_a_broken_connection_ends_the_call() {
    for seed in 0..50 {
        let sim = Sim::seeded(seed);
        let (failure, reason) = sim.run(async {
            let math = Math::new(&sim, HOUR).await;
            let mut call = math.sum(15, 25).deadline(2 * HOUR).into_future();
            started(&mut call).await;
            sim.process("c").sleep(MINUTE).await;
            sim.process("c").cut();
            (failed(call.await), math.consumer.closed().await)
        });
        assert_eq!(failure, (Failure::Local(Misuse::Disconnected), true), "seed {seed}");
        assert_eq!(reason, CloseReason::Lost, "seed {seed}");
    }
}

/// Counts its drops.
struct Guard(Arc<AtomicU32>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// ```text
/// c ──sum──► h ──► p   thinks for an hour
/// c drops the call
/// c ──cancel─► h ──► p   the handler is dropped where it waits
/// ```
#[test]
fn s49_a_dropped_call_drops_its_handler() {
    for seed in 0..50 {
        let sim = Sim::seeded(seed);
        let (begun, dropped, finished) = <(Arc<AtomicU32>, Arc<AtomicU32>, Arc<AtomicU32>)>::default();
        let counts = [&begun, &dropped, &finished].map(Arc::clone);
        sim.run(async {
            let math = Math::with(&sim, move |numbers: Request<(i64, i64)>| {
                let [begun, dropped, finished] = [&counts[0], &counts[1], &counts[2]].map(Arc::clone);
                async move {
                    begun.fetch_add(1, Ordering::Relaxed);
                    let _guard = Guard(dropped);
                    numbers.sleep(HOUR).await;
                    finished.fetch_add(1, Ordering::Relaxed);
                    Ok(0)
                }
            })
            .await;
            let mut call = math.sum(15, 25).deadline(2 * HOUR).into_future();
            started(&mut call).await;
            sim.process("c").sleep(MINUTE).await;
            assert_eq!((begun.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed)), (1, 0), "seed {seed}");
            drop(call);
            sim.process("c").sleep(MINUTE).await;
        });
        assert_eq!((dropped.load(Ordering::Relaxed), finished.load(Ordering::Relaxed)), (1, 0), "seed {seed}");
    }
}

/// ```text
/// p ──"p 0", "p 1", …──► h ──► c   each sender's in its order
/// q ──"q 0", "q 1", …──┘
/// ```
#[test]
fn v37_a_listener_hears_each_sender_in_order() {
    const EACH: u32 = 40;
    for seed in 0..25 {
        let sim = Sim::seeded(seed);
        let heard = sim.run(async {
            let _hub = sim.process("h").hub().await.unwrap();
            let listening = sim.process("c").client("h").await.unwrap().open("news").await.unwrap();
            let mut listener = listening.listen::<(String, u32)>("tick").await.unwrap();
            for name in ["p", "q"] {
                let process = sim.process(name);
                let client = process.client("h").await.unwrap();
                drop(process.spawn(async move {
                    let channel = client.open("news").await.unwrap();
                    for number in 0..EACH {
                        channel.broadcast("tick", &(name, number)).await.unwrap();
                    }
                }));
            }
            let mut heard = Vec::new();
            while heard.len() < 2 * EACH as usize {
                heard.push(listener.next().await.expect("the connection stands").into_inner());
            }
            heard
        });
        for name in ["p", "q"] {
            let numbers = heard.iter().filter(|(sender, _)| sender == name).map(|(_, number)| *number);
            assert!(numbers.eq(0..EACH), "seed {seed}: {heard:?}");
        }
    }
}

/// ```text
/// c ──sum──► p   RUNNING_MAX at work
/// c ──sum──► p   WAITING_MAX wait
/// c ──sum──► p   Overloaded, at once and for certain not executed
/// ```
#[test]
fn a_provider_with_too_much_to_do_says_so() {
    const TOO_MANY: usize = 10;
    for seed in 0..5 {
        let sim = Sim::seeded(seed);
        let (answered, refused) = sim.run(async {
            let math = Math::new(&sim, MINUTE).await;
            let calls: Vec<_> = (0..RUNNING_MAX + WAITING_MAX + TOO_MANY)
                .map(|number| {
                    let call = math.sum(number as i64, 0).deadline(HOUR).into_future();
                    sim.process("c").spawn(call)
                })
                .collect();
            let (mut answered, mut refused) = (0, 0);
            for call in calls {
                match call.await.expect("its process lives") {
                    Ok(_) => answered += 1,
                    Err(error) => {
                        assert_eq!(error.code().0, Refusal::Overloaded.code(), "{error}");
                        assert!(!error.maybe_executed() && error.is_retryable(), "{error:?}");
                        refused += 1;
                    }
                }
            }
            (answered, refused)
        });
        assert_eq!((answered, refused), (RUNNING_MAX + WAITING_MAX, TOO_MANY), "seed {seed}");
        // Every place is taken five times, a minute each.
        assert!(sim.elapsed() >= 5 * MINUTE && sim.elapsed() < 6 * MINUTE, "{:?}", sim.elapsed());
    }
}

/// Weather with everything in it: refused dials, connections that break anywhere, rude ends.
fn any_weather(seed: u64) -> Weather {
    let mut decisions = Decisions::seeded(seed);
    let stream = decisions.stream("weather");
    Weather::drawn(decisions.on(stream))
}

/// A provider and two consumers that connect again whenever their connection breaks; gives what became of each call.
fn bustle(sim: &Sim) -> Vec<Result<i64, CallError>> {
    sim.run(async {
        let _hub = sim.process("h").hub().await.expect("a hub");
        let provider = sim.process("p");
        let serving = provider.clone();
        drop(provider.spawn(async move {
            loop {
                serving.sleep(Duration::from_millis(300)).await;
                let Ok(client) = serving.client("h").await else { continue };
                let Ok(channel) = client.open("math").await else { continue };
                let sum = channel.provide("sum", async |numbers: Request<(i64, i64)>| {
                    numbers.sleep(Duration::from_millis(200)).await;
                    Ok::<_, Fault>(numbers.0 + numbers.1)
                });
                let Ok(_sum) = sum.await else { continue };
                client.closed().await;
            }
        }));
        let consumers = ["c", "d"].map(|name| {
            let process = sim.process(name);
            let mine = process.clone();
            process.spawn(async move {
                let mut results = Vec::new();
                mine.sleep(Duration::from_secs(3)).await;
                while results.len() < 30 {
                    mine.sleep(Duration::from_millis(100)).await;
                    let Ok(client) = mine.client("h").await else { continue };
                    for number in 0..10 {
                        mine.sleep(Duration::from_millis(100)).await;
                        let (before, deadline) = (mine.now(), Duration::from_secs(5));
                        let call = client.call("math", "sum", &(number, 1_i64)).deadline(deadline);
                        let result = call.await.inspect(|sum| assert_eq!(*sum, number + 1));
                        assert!(mine.now().saturating_since(before) <= deadline);
                        let lost = matches!(result, Err(CallError::Failed { failure: Failure::Local(_), .. }));
                        results.push(result);
                        if lost {
                            break;
                        }
                    }
                }
                results
            })
        });
        let [storm, p, c, d] = ["storm", "p", "c", "d"].map(|name| sim.process(name));
        drop(storm.clone().spawn(async move {
            for victim in [&p, &c, &d].into_iter().cycle() {
                storm.sleep(Duration::from_millis(700)).await;
                victim.cut();
            }
        }));
        let mut results = Vec::new();
        for consumer in consumers {
            results.extend(consumer.await.expect("its process lives"));
        }
        results
    })
}

/// Whatever the weather, every call ends within its deadline, with its own sum or a typed error.
#[test]
fn every_call_ends_in_any_weather() {
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..60 {
        let sim = Sim::seeded(seed).weather(any_weather(seed));
        for result in bustle(&sim) {
            let end = result.map_or_else(|error| format!("{:?}", failed(Err(error))), |_| "answered".to_owned());
            *ends.entry(end).or_default() += 1;
        }
    }
    let of = |end: &str| ends.get(end).copied().unwrap_or_default();
    assert!(of("answered") > 500, "{ends:#?}");
    for failure in ["(Local(Disconnected), true)", "(Refused(ProviderGone), true)", "(Refused(NoProvider), false)"] {
        assert!(of(failure) > 20, "{failure} is met as well: {ends:#?}");
    }
}

#[test]
fn the_same_seed_makes_the_same_run_and_another_does_not() {
    let run = |seed| -> (TraceHash, Duration) {
        let sim = Sim::seeded(seed).weather(any_weather(seed));
        bustle(&sim);
        (sim.trace_hash(), sim.elapsed())
    };
    let mut before = None;
    for seed in 0..100 {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed}");
        assert_ne!(before.replace(first), Some(first), "seed {seed}");
    }
}

/// ```text
/// h killed: c is told; h started again: c connects again
/// ```
#[test]
fn a_killed_hub_is_noticed_and_may_come_back() {
    for seed in 0..25 {
        let sim = Sim::seeded(seed);
        sim.run(async {
            let math = Math::new(&sim, HOUR).await;
            sim.process("h").kill();
            assert_eq!(math.consumer.closed().await, CloseReason::Lost, "seed {seed}");
            let refused = sim.process("c").client("h").await;
            assert!(refused.is_err(), "nobody listens");
            let _again = sim.process("h").hub().await.unwrap();
            let client = sim.process("c").client("h").await.unwrap();
            let missing = failed(client.call("math", "sum", &(1_i64, 2_i64)).await);
            assert_eq!(missing, (Failure::Refused(Refusal::NoProvider), false), "a new hub knows nothing");
            assert_eq!(math.provider.name().as_str(), "math");
        });
    }
}

/// Two calls at once take as long as the longer one.
#[test]
fn calls_overlap() {
    let sim = Sim::seeded(3);
    sim.run(async {
        let math = Math::with(&sim, async |seconds: Request<(i64, i64)>| {
            seconds.sleep(Duration::from_secs(seconds.0.unsigned_abs())).await;
            Ok(seconds.0)
        })
        .await;
        let before = sim.elapsed();
        let (mut long, mut short) = (pin!(math.sum(20, 0).into_future()), pin!(math.sum(5, 0).into_future()));
        started(&mut long).await;
        started(&mut short).await;
        assert_eq!((long.await, short.await), (Ok(20), Ok(5)));
        let took = sim.elapsed() - before;
        assert!(took < Duration::from_secs(21), "{took:?}");
    });
}
