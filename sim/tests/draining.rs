//! A drain that is finished in time loses nothing: each call is answered, or has certainly not run.

#![allow(missing_docs, reason = "a test binary")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use commipc_runtime::{Away, CallError, Fault, Reconnect, Request};
use commipc_sim::Sim;

const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drained {
    Hub,
    Provider,
    Caller,
}

/// Calls without end while somebody drains: how many were answered, how many were handled, and the error that came last.
fn load(seed: u64, who: Drained) -> (u64, u64, Vec<CallError>) {
    let sim = Sim::seeded(seed);
    let handled = Arc::new(AtomicU64::new(0));
    sim.run(async {
        let hub = sim.process("h").hub().await.expect("a hub");
        let provider = sim.process("p").client("h").await.expect("a provider");
        let channel = provider.open("math").await.expect("a channel");
        let count = async |handled: Arc<AtomicU64>, number: Request<u64>| {
            number.sleep(Duration::from_millis(*number % 7 * 40)).await;
            handled.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Fault>(*number)
        };
        let _count = channel.provide_with(Arc::clone(&handled), "count", count).await.expect("an event");
        let caller = sim.process("c").client("h").await.expect("a caller");
        let callers: Vec<_> = (0..8)
            .map(|start| {
                let caller = caller.clone();
                sim.process("c").spawn(async move {
                    for number in start.. {
                        match caller.call::<u64>("math", "count", &number).await {
                            Ok(same) => assert_eq!(same, number),
                            Err(error) => return (number - start, error),
                        }
                    }
                    unreachable!("numbers do not end");
                })
            })
            .collect();
        sim.process("h").sleep(Duration::from_millis(500 + seed * 7)).await;
        let drained = match who {
            Drained::Hub => hub.drain(LONG).await,
            Drained::Provider => provider.drain(LONG).await,
            Drained::Caller => caller.drain(LONG).await,
        };
        assert_eq!(drained, Ok(()), "seed {seed}");
        let (mut answered, mut errors) = (0, Vec::new());
        for caller in callers {
            let (count, error) = caller.await.expect("its process lives");
            answered += count;
            errors.push(error);
        }
        (answered, handled.load(Ordering::Relaxed), errors)
    })
}

/// ```text
/// c ──count, count, count…──► h ──► p     one of them drains
/// ```
#[test]
fn s86_a_drain_that_is_finished_loses_nothing() {
    for who in [Drained::Hub, Drained::Provider, Drained::Caller] {
        for seed in 0..15 {
            let (answered, handled, errors) = load(seed, who);
            assert!(answered > 20, "{who:?}, seed {seed}: {answered}");
            assert_eq!(answered, handled, "{who:?}, seed {seed}: what was handled was answered");
            for error in errors {
                assert!(!error.maybe_executed() && error.is_retryable(), "{who:?}, seed {seed}: {error:?}");
            }
        }
    }
}

/// ```text
/// c ──count, count…──► h drains, and is started again ──► p
/// ```
/// Whoever says that calls may wait does not notice that the hub was replaced.
#[test]
fn s86_calls_that_may_wait_do_not_notice_that_their_hub_is_replaced() {
    for seed in 0..15 {
        let sim = Sim::seeded(seed);
        let sums = sim.run(async {
            let hub = sim.process("h").hub().await.expect("a hub");
            let reconnect = Reconnect::default();
            let provider = sim.process("p").client("h").reconnect(reconnect).await.expect("a provider");
            let channel = provider.open("math").await.expect("a channel");
            let double = async |number: Request<u64>| {
                number.sleep(Duration::from_millis(50)).await;
                Ok::<_, Fault>(2 * *number)
            };
            let _double = channel.provide("double", double).await.expect("an event");
            let caller = sim.process("c").client("h").reconnect(reconnect).await.expect("a caller");
            let math = caller.open("math").await.expect("a channel");
            let process = sim.process("c");
            let calls = process.clone().spawn(async move {
                let mut sums = Vec::new();
                for number in 0..100_u64 {
                    let sum = loop {
                        let call = math.call::<u64>("double", &number).while_away(Away::Wait).deadline(LONG * 10);
                        match call.await {
                            Ok(sum) => break sum,
                            // The caller was back before the provider was.
                            Err(error) if error.code().0 == commipc_runtime::Refusal::NoProvider.code() => {
                                process.sleep(Duration::from_millis(100)).await;
                            }
                            Err(error) => panic!("seed {seed}: {error:?}"),
                        }
                    };
                    sums.push(sum);
                }
                sums
            });
            sim.process("h").sleep(Duration::from_millis(700 + seed * 11)).await;
            assert_eq!(hub.drain(LONG).await, Ok(()), "seed {seed}");
            drop(hub);
            sim.process("h").sleep(Duration::from_secs(3)).await;
            let _next = sim.process("h").hub().await.expect("another hub");
            calls.await.expect("its process lives")
        });
        assert!(sums.iter().copied().eq((0..100).map(|number| 2 * number)), "seed {seed}: {sums:?}");
    }
}
