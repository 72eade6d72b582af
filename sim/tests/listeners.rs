//! Listeners that are too slow, in virtual time: who waits for whom, and for how long.

#![allow(missing_docs, reason = "a test binary")]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use commipc_runtime::{BLOCK_MAX, Channel, Fault, Hub, Limits, ListenError, Listener, Overflow, Request};
use commipc_sim::decisions::Decisions;
use commipc_sim::{Sim, Weather};

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
/// p, q ──up 0, down 1, down 2, up 3 …──► l   one listener to all, and one to each event
/// ```
#[test]
fn s58_v37_a_listener_to_all_events_hears_each_sender_in_the_order_in_which_it_speaks() {
    const EACH: u32 = 100;
    for seed in 0..20 {
        let sim = Sim::seeded(seed);
        let (heard, apart) = sim.run(async {
            let _hub = hub(&sim).await;
            let listens = member(&sim, "l").await;
            let mut all = listens.listen_all::<u32>().await.expect("a listener");
            let mut each = [listens.listen::<u32>("up").await, listens.listen::<u32>("down").await]
                .map(|listener| listener.expect("a listener"));
            let (mut decisions, mut speaking) = (Decisions::seeded(seed), Vec::new());
            for name in ["p", "q"] {
                let speaker = member(&sim, name).await;
                let draws = decisions.stream(name);
                let ups: Vec<bool> = (0..EACH).map(|_| decisions.on(draws).chance(1, 2)).collect();
                speaking.push(sim.process(name).spawn(async move {
                    for (number, up) in (0..).zip(ups) {
                        speaker.broadcast(if up { "up" } else { "down" }, &number).await.expect("it is said");
                    }
                }));
            }
            let mut heard = Vec::new();
            while heard.len() < 2 * EACH as usize {
                let message = all.next().await.expect("more comes");
                sim.process("l").sleep(Duration::from_millis(u64::from(*message % 3))).await;
                heard.push((message.sender().client.to_string(), message.event().to_string(), *message));
            }
            for speaks in speaking {
                speaks.await.expect("it said all");
            }
            // The others have it all by now.
            let mut apart = Vec::new();
            for (listener, event) in each.iter_mut().zip(["up", "down"]) {
                let of_it: Vec<_> = heard.iter().filter(|(_, of, _)| of == event).cloned().collect();
                let mut alone = Vec::new();
                while alone.len() < of_it.len() {
                    let message = listener.next().await.expect("more comes");
                    alone.push((message.sender().client.to_string(), message.event().to_string(), *message));
                }
                apart.push((of_it, alone));
            }
            (heard, apart)
        });
        for name in ["p", "q"] {
            let said = heard.iter().filter(|(sender, ..)| sender == name);
            assert!(said.clone().map(|(.., number)| *number).eq(0..EACH), "seed {seed}: {heard:?}");
            let events: BTreeSet<&str> = said.map(|(_, event, _)| event.as_str()).collect();
            assert_eq!(events.len(), 2, "seed {seed}: {name} speaks of two things");
        }
        for (of_it, alone) in apart {
            assert_eq!(of_it, alone, "seed {seed}");
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

const MEMBERS: usize = 32;

/// How much is said to everybody, and what a hub and a listener may hold of it.
struct Load {
    said: u32,
    /// Of each message, in bytes.
    size: usize,
    /// Messages that may wait at a listener.
    queue: usize,
    /// What the socket between hub and listener takes, in bytes.
    socket: u64,
    limits: Limits,
}

/// What the others saw and the hub held, while the first of many listeners did as told.
#[derive(PartialEq, Eq)]
struct Seen {
    /// When each message came to each of the others, and when each broadcast was taken.
    times: Vec<Duration>,
    /// The most that the hub held for links, in bytes.
    buffered: usize,
    /// Whether the hub has ended the stopped one's connection.
    closed: bool,
}

fn number(bytes: &Bytes) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("each begins with its number"))
}

/// The first listener stops by this policy; without one it takes everything, as the others do.
async fn one_of_many(sim: &Sim, load: &Load, stopped: Option<Overflow>) -> Seen {
    let hub = sim.process("h").hub().limits(load.limits.clone()).await.expect("a hub");
    let p = member(sim, "p").await;
    let mut listeners = Vec::new();
    for number in 0..MEMBERS {
        let overflow = stopped.filter(|_| number == 0).unwrap_or_default();
        let channel = member(sim, &format!("l{number}")).await;
        let listens = channel.listen_raw(Some("up")).overflow(overflow).queue(load.queue);
        listeners.push(listens.await.expect("a listener"));
    }
    let mut first = listeners.remove(0);
    let (others, mut seen) = (listeners, Seen { times: Vec::new(), buffered: 0, closed: false });
    let said = load.said;
    // Each hears by itself, so that its time is its own.
    let hearing: Vec<_> = others
        .into_iter()
        .zip(1..)
        .map(|(mut listener, own)| {
            let process = sim.process(&format!("l{own}"));
            let (now, begun) = (process.runtime(), process.runtime().now());
            process.spawn(async move {
                let mut times = Vec::new();
                for heard in 0..said {
                    let message = listener.next().await.expect("the others hear all");
                    assert_eq!((number(&message), message.missed()), (heard, 0));
                    times.push(now.now().saturating_since(begun));
                }
                times
            })
        })
        .collect();
    for said in 0..said {
        let mut bytes = vec![0; load.size];
        bytes[..4].copy_from_slice(&said.to_be_bytes());
        p.broadcast_raw("up", bytes).await.expect("it is said");
        seen.times.push(sim.elapsed());
        seen.buffered = seen.buffered.max(hub.load().buffered);
        if stopped.is_none() {
            assert_eq!(number(&first.next().await.expect("it hears all too")), said);
        }
    }
    for hears in hearing {
        seen.times.extend(hears.await.expect("it hears all"));
    }
    seen.closed = hub.load().clients <= MEMBERS;
    sim.process("l0").sleep(MINUTE).await;
    if let Some(stopped) = stopped {
        is_told(load, stopped, seen.closed, first).await;
    }
    seen
}

/// What was missed, or that it is over, as the policy says.
async fn is_told(load: &Load, stopped: Overflow, closed: bool, mut stops: Listener<Bytes>) {
    let (said, mut come, mut missed) = (u64::from(load.said), 0, 0);
    while let Some(message) = stops.next().await {
        come += 1;
        missed += message.missed();
        if stops.ended().is_none() && come + missed == said - stops.missed() {
            break;
        }
    }
    let ended = matches!(stops.ended(), Some(ListenError::TooSlow(queue)) if queue == load.queue);
    assert_eq!(ended, matches!(stopped, Overflow::Block | Overflow::Disconnect), "{stopped:?}: {:?}", stops.ended());
    // What came to a hub after it had ended the connection is not known there.
    assert!(closed || come + missed + stops.missed() == said, "{stopped:?}: all is heard or told");
}

/// Whoever takes part notices nothing of it, by each policy; gives what was seen of each and where all listened.
fn nobody_notices(seed: u64, load: &Load) -> (Vec<(Overflow, Seen)>, Seen) {
    let every = [Overflow::Block, Overflow::DropOldest, Overflow::DropNewest, Overflow::Latest, Overflow::Disconnect];
    let seen = |stopped| {
        let millis = Duration::from_millis(2);
        let weather = Weather { buffer: (load.socket, load.socket), ..Weather::still().delayed(millis, millis) };
        let sim = Sim::seeded(seed).weather(weather);
        sim.run(one_of_many(&sim, load, stopped))
    };
    let all_listen = seen(None);
    let each = every.map(|stopped| (stopped, seen(Some(stopped))));
    for (stopped, one_stops) in &each {
        assert!(one_stops.times == all_listen.times, "seed {seed}, {stopped:?}: somebody noticed");
    }
    (each.into(), all_listen)
}

/// In weather in which nothing is drawn, so that whatever differs is the stopped one's doing.
///
/// ```text
/// p ──up──► l0 … l31   one of them stops, by each policy
/// ```
#[test]
fn d13_v25_nobody_notices_that_one_of_many_listeners_stops() {
    let load = Load { said: 250, size: 4, queue: 100, socket: 1 << 20, limits: Limits::default() };
    for seed in 0..3 {
        let (each, all_listen) = nobody_notices(seed, &load);
        for (stopped, seen) in each {
            assert!(!seen.closed && seen.buffered < all_listen.buffered + (64 << 10), "{stopped:?}");
        }
    }
}

/// The same with more than the hub will hold for anybody: whoever reads on and drops costs it nothing, and who does not read
/// costs it an outbox and then its connection.
#[test]
fn d13_v25_a_listener_that_stops_costs_its_hub_an_outbox_at_most() {
    let mut limits = Limits::default();
    (limits.in_flight, limits.outbox, limits.streams) = (32 << 10, 128 << 10, 4);
    let load = Load { said: 120, size: 4 << 10, queue: 20, socket: 16 << 10, limits };
    let (each, all_listen) = nobody_notices(0, &load);
    // The message that is too much is counted before it is known to be, and so is the last that its driver gets.
    let (outbox, most) = (load.limits.outbox, load.limits.outbox + load.limits.in_flight + 2 * (load.size + 512));
    for (stopped, seen) in each {
        let more = seen.buffered.saturating_sub(all_listen.buffered);
        assert!(more <= most, "{stopped:?}: the hub held {more} bytes more");
        let stops_reading = stopped == Overflow::Block;
        assert_eq!((seen.closed, more > outbox / 2), (stops_reading, stops_reading), "{stopped:?}: {more}");
    }
}
