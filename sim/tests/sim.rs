//! The simulation of programs itself: time, tasks, death, and runs that can never end.

#![allow(missing_docs, reason = "a test binary")]

use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use commipc_runtime::{Endpoint, Runtime as _};
use commipc_sim::{Sim, Stalled};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_deadlock_is_told_as_one() {
    let sim = Sim::seeded(1);
    let stalled = sim.try_run(async {
        drop(sim.process("p").spawn(pending::<()>()));
        sim.process("p").sleep(SECOND).await;
        pending::<()>().await;
    });
    let Err(stalled @ Stalled::Deadlock { tasks: 1, .. }) = stalled else { panic!("{stalled:?}") };
    let text = stalled.to_string();
    assert!(text.starts_with("deadlock after 1s: the main future waits, and so do 1 tasks"), "{text}");
    assert!(text.contains("A real timer, socket or thread is never waited for here"), "{text}");
}

#[test]
fn what_repeats_for_ever_is_told() {
    let sim = Sim::seeded(1);
    let spinning = sim.try_run(poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    assert!(matches!(spinning, Err(Stalled::Spinning { .. })), "{spinning:?}");
    let sim = Sim::seeded(1);
    let endless = sim.try_run(async {
        let process = sim.process("p");
        let mine = process.clone();
        drop(process.spawn(async move {
            loop {
                mine.sleep(3_600 * SECOND).await;
            }
        }));
        pending::<()>().await;
    });
    assert!(matches!(endless, Err(Stalled::Endless { .. })), "{endless:?}");
}

#[test]
fn sleepers_wake_in_their_order_and_exactly_then() {
    for seed in 0..20 {
        let sim = Sim::seeded(seed);
        let woken = Arc::new(Mutex::new(Vec::new()));
        sim.run(async {
            let process = sim.process("p");
            let sleepers: Vec<_> = [3, 1, 2]
                .map(|seconds| {
                    let (mine, woken) = (process.clone(), Arc::clone(&woken));
                    process.spawn(async move {
                        let before = mine.now();
                        mine.sleep(seconds * SECOND).await;
                        woken.lock().unwrap().push((seconds, mine.now().saturating_since(before)));
                    })
                })
                .into();
            for sleeper in sleepers {
                sleeper.await;
            }
        });
        assert_eq!(*woken.lock().unwrap(), [1, 2, 3].map(|seconds| (seconds, seconds * SECOND)));
        assert_eq!(sim.elapsed(), 3 * SECOND);
    }
}

/// What is due at once goes in every order, over the seeds.
#[test]
fn tasks_take_every_order() {
    let order = |seed| {
        let sim = Sim::seeded(seed);
        let order = Arc::new(Mutex::new(String::new()));
        sim.run(async {
            let process = sim.process("p");
            let tasks = ["a", "b", "c"].map(|name| {
                let order = Arc::clone(&order);
                process.spawn(async move { order.lock().unwrap().push_str(name) })
            });
            for task in tasks {
                task.await;
            }
        });
        Arc::try_unwrap(order).unwrap().into_inner().unwrap()
    };
    let orders: std::collections::BTreeSet<String> = (0..100).map(order).collect();
    assert_eq!(orders.len(), 6, "{orders:?}");
}

#[test]
fn recorded_choices_replay_a_run() {
    let play = |sim: &Sim| {
        sim.run(async {
            let _hub = sim.process("h").hub().await.unwrap();
            let client = sim.process("c").client("h").await.unwrap();
            drop(client.open("a").await.unwrap());
        });
        sim.trace_hash()
    };
    let first = Sim::seeded(5);
    let hash = play(&first);
    let text = first.choices().to_string();
    assert_eq!(play(&Sim::replaying(text.parse().unwrap())), hash);
    assert_ne!(play(&Sim::seeded(6)), hash);
}

#[test]
fn a_killed_process_does_nothing_more() {
    let sim = Sim::seeded(1);
    sim.run(async {
        let process = sim.process("p");
        let killer = process.clone();
        let waiting = process.spawn(pending::<()>());
        let suicidal = process.spawn(async move {
            killer.kill();
            pending::<()>().await;
        });
        assert_eq!((waiting.await, suicidal.await), (None, None));
        assert_eq!(process.spawn(async { 1 }).await, None, "too late");
        assert!(process.hub().await.is_err());
        assert_eq!(sim.process("p").spawn(async { 1 }).await, Some(1), "another process of the name");
    });
}

#[test]
fn blocking_work_takes_virtual_time() {
    let sim = Sim::seeded(1);
    sim.run(async {
        let process = sim.process("p");
        let done = Arc::new(Mutex::new(false));
        let set = Arc::clone(&done);
        process.spawn_blocking(Box::new(move || *set.lock().unwrap() = true));
        assert!(!*done.lock().unwrap(), "not where it was asked for");
        process.sleep(SECOND).await;
        assert!(*done.lock().unwrap());
    });
}

#[test]
fn a_name_is_listened_to_once_and_only_in_memory() {
    let sim = Sim::seeded(1);
    sim.run(async {
        let hub = sim.process("h").hub().await.unwrap();
        let taken = sim.process("h").hub().await.unwrap_err().to_string();
        assert!(taken.contains("somebody listens at memory:h already"), "{taken}");
        drop(hub);
        sim.process("h").sleep(10 * SECOND).await;
        let _again = sim.process("h").hub().await.unwrap();
        let tcp = Endpoint::Tcp { host: "h".to_owned(), port: 1 };
        let error = sim.process("h").dial(tcp).await.err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("a simulation has no sockets like tcp://h:1: write memory:name"));
    });
}

#[test]
fn an_ended_simulation_leaves_its_handles_harmless() {
    let sim = Sim::seeded(1);
    let (hub, client) = sim.run(async {
        let hub = sim.process("h").hub().await.unwrap();
        (hub, sim.process("c").client("h").await.unwrap())
    });
    let process = sim.process("c");
    drop(sim);
    drop((hub, client));
    drop(process.spawn(async {}));
    process.kill();
}
