//! Listeners that are too slow, in virtual time: who waits for whom, and for how long.

#![allow(missing_docs, reason = "a test binary")]

use std::time::Duration;

use commipc_runtime::{BLOCK_MAX, Channel, Fault, Hub, ListenError, Listener, Overflow, Request};
use commipc_sim::Sim;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

async fn hub(sim: &Sim) -> Hub {
    sim.process("h").hub().await.expect("a hub")
}

async fn member(sim: &Sim, name: &str) -> Channel {
    sim.process(name).client("h").await.expect("a client").open("news").await.expect("a channel")
}

async fn listens(channel: &Channel, overflow: Overflow, length: usize) -> Listener<u32> {
    channel.listen("up").overflow(overflow).queue(length).await.expect("a listener")
}

/// ```text
/// p, q ──up 0, 1, 2 …──► l   takes each for as long as it likes
/// ```
#[test]
fn s58_v37_a_listener_that_takes_its_time_hears_each_sender_in_order() {
    const EACH: u32 = 100;
    for seed in 0..20 {
        let sim = Sim::seeded(seed);
        let heard = sim.run(async {
            let _hub = hub(&sim).await;
            let mut listener = listens(&member(&sim, "l").await, Overflow::default(), 1_024).await;
            let mut speaking = Vec::new();
            for name in ["p", "q"] {
                let speaker = member(&sim, name).await;
                speaking.push(sim.process(name).spawn(async move {
                    for number in 0..EACH {
                        speaker.broadcast("up", &number).await.expect("it is said");
                    }
                }));
            }
            let mut heard = Vec::new();
            while heard.len() < 2 * EACH as usize {
                let message = listener.next().await.expect("more comes");
                sim.process("l").sleep(Duration::from_millis(u64::from(*message % 3))).await;
                heard.push((message.sender().client.to_string(), *message));
            }
            for speaks in speaking {
                speaks.await.expect("it said all");
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
/// p ──up──► l   stops taking them: `Block`, and nothing more is read
/// l ──echo──► p ──► l   waits as well
///                   ends as too slow, and everything goes on
/// ```
#[test]
fn a_connection_waits_for_its_slow_listener_and_not_for_ever() {
    for seed in 0..20 {
        let sim = Sim::seeded(seed);
        sim.run(async {
            let _hub = hub(&sim).await;
            let (p, l) = (member(&sim, "p").await, member(&sim, "l").await);
            let echo = async |number: Request<u32>| Ok::<_, Fault>(*number);
            let _echo = p.provide("echo", echo).await.expect("an event");
            let mut slow = listens(&l, Overflow::Block, 3).await;
            for number in 0..3_u32 {
                p.broadcast("up", &number).await.expect("it is said");
            }
            sim.process("l").sleep(SECOND).await;
            let before = sim.elapsed();
            assert_eq!(l.call::<u32>("echo", &7).await, Ok(7));
            let waited = sim.elapsed() - before;
            assert!(waited > BLOCK_MAX - 2 * SECOND && waited < BLOCK_MAX, "seed {seed}: {waited:?}");
            assert_eq!(slow.ended(), Some(ListenError::TooSlow(3)), "seed {seed}");
            for number in 0..3 {
                let message = slow.next().await.expect("what waited is still there");
                assert_eq!((*message, message.missed()), (number, 0), "seed {seed}");
            }
            assert!(slow.next().await.is_none());
            // Who makes room in time is not ended.
            let mut steady = listens(&l, Overflow::Block, 1).await;
            for number in 0..10_u32 {
                p.broadcast("up", &number).await.expect("it is said");
            }
            for number in 0..10 {
                sim.process("l").sleep(BLOCK_MAX / 20).await;
                assert_eq!(*steady.next().await.expect("it is not too slow"), number, "seed {seed}");
            }
            let before = sim.elapsed();
            assert_eq!(l.call::<u32>("echo", &8).await, Ok(8));
            assert!(sim.elapsed() - before < SECOND, "seed {seed}: nobody waits any more");
        });
    }
}

/// ```text
/// p ──up──► l0 … l31   one of them stops, by each policy
/// ```
#[test]
fn d13_v25_nobody_notices_that_one_of_many_listeners_stops() {
    const MEMBERS: usize = 32;
    const SAID: u32 = 500;
    let every = [Overflow::Block, Overflow::DropOldest, Overflow::DropNewest, Overflow::Latest, Overflow::Disconnect];
    // As a yardstick, one that does not stop.
    let mut took = Vec::new();
    for stopped in [None].into_iter().chain(every.map(Some)) {
        let sim = Sim::seeded(7);
        let time = sim.run(async {
            let _hub = hub(&sim).await;
            let p = member(&sim, "p").await;
            let mut listeners = Vec::new();
            for number in 0..MEMBERS {
                let overflow = stopped.filter(|_| number == 0).unwrap_or_default();
                let member = member(&sim, &format!("l{number}")).await;
                listeners.push(listens(&member, overflow, 100).await);
            }
            let stops = stopped.map(|_| listeners.remove(0));
            let before = sim.elapsed();
            for number in 0..SAID {
                p.broadcast("up", &number).await.expect("it is said");
                for listener in &mut listeners {
                    let message = listener.next().await.expect("the others hear all");
                    assert_eq!((*message, message.missed()), (number, 0));
                }
            }
            let time = sim.elapsed() - before;
            sim.process("l0").sleep(MINUTE).await;
            if let (Some(stopped), Some(mut stops)) = (stopped, stops) {
                let mut come = 0;
                let mut missed = 0;
                while let Some(message) = stops.next().await {
                    come += 1;
                    missed += message.missed();
                    if stops.ended().is_none() && come + missed == u64::from(SAID) - stops.missed() {
                        break;
                    }
                }
                let ended = matches!(stops.ended(), Some(ListenError::TooSlow(100)));
                assert_eq!(ended, matches!(stopped, Overflow::Block | Overflow::Disconnect), "{stopped:?}");
                assert_eq!(come + missed + stops.missed(), u64::from(SAID), "{stopped:?}: all is heard or told");
            }
            time
        });
        took.push(time);
    }
    let alone = took[0];
    assert!(took.iter().all(|time| *time < alone * 2), "as if all of them listened: {took:?}");
}
