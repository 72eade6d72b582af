//! How far ahead of whoever takes its items a stream is made, by the credit that it was asked for with, in virtual time.

#![allow(missing_docs, reason = "a test binary")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use commipc_runtime::{DEFAULT_CREDIT_BYTES, Fault, Items, Request};
use commipc_sim::Sim;
use futures_lite::stream;

const MINUTE: Duration = Duration::from_secs(60);
const ITEMS: usize = 400;
const SIZE: usize = 4_096;

/// How many items were made, a minute after nobody took any of the first and a minute after so many were taken.
async fn made(sim: &Sim, credit: Option<(u64, u64)>, taken: usize) -> [usize; 2] {
    let _hub = sim.process("h").hub().await.expect("a hub");
    let p = sim.process("p").client("h").await.expect("a client").open("ch").await.expect("a channel");
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let feed = move |_: Request<Bytes>| {
        let made = Arc::clone(&counted);
        stream::iter((0..ITEMS).map(move |number| {
            made.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Fault>(Bytes::from(vec![u8::try_from(number % 251).expect("a byte"); SIZE]))
        }))
    };
    let _feed = p.provide_stream_raw("feed", feed).await.expect("an event");
    let c = sim.process("c").client("h").await.expect("a client").open("ch").await.expect("a channel");
    let asked = c.stream_raw("feed", Bytes::new());
    let asked = match credit {
        Some((items, bytes)) => asked.credit(items).credit_bytes(bytes),
        None => asked,
    };
    let mut items = asked.await.expect("it is taken");
    sim.process("c").sleep(MINUTE).await;
    let first = made.load(Ordering::Relaxed);
    take(&mut items, 0..taken).await;
    sim.process("c").sleep(MINUTE).await;
    let then = made.load(Ordering::Relaxed);
    take(&mut items, taken..ITEMS).await;
    assert!(items.next().await.is_none(), "all of them came");
    [first, then]
}

async fn take(items: &mut Items<Bytes>, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let item = items.next().await.expect("more comes").expect("an item");
        assert!(item.len() == SIZE && usize::from(item[0]) == number % 251, "{number}");
    }
}

#[test]
fn s50_a_stream_is_made_ahead_by_so_many_bytes_as_its_caller_gives() {
    for seed in 0..3 {
        let made = |credit| {
            let sim = Sim::seeded(seed);
            sim.run(made(&sim, credit, 40))
        };
        for bytes in [32 << 10, 64 << 10, 256 << 10] {
            let [first, then] = made(Some((1_000, bytes)));
            let fit = usize::try_from(bytes).expect("a size") / SIZE;
            // The one that uses the credit up is sent whole, and one more may wait at the provider.
            assert!((fit - fit / 4..=fit + 2).contains(&first), "seed {seed}, {bytes}: {first}");
            // What is taken is told in parts of an eighth of the default.
            assert!((first + 20..=first + 42).contains(&then), "seed {seed}, {bytes}: {first} and {then}");
        }
        // Whichever is used up first.
        assert!(made(Some((10, 256 << 10)))[0] <= 12, "seed {seed}: items count too");
        let [first, _] = made(None);
        let fit = usize::try_from(DEFAULT_CREDIT_BYTES).expect("a size") / SIZE;
        assert!((fit - fit / 4..=fit + 2).contains(&first), "seed {seed}: {first} unless it says otherwise");
    }
}

/// How many items a caller has made of its exchange, a minute after its provider took none and a minute after it took so many.
async fn made_by_caller(sim: &Sim, taken: usize) -> [usize; 2] {
    let _hub = sim.process("h").hub().await.expect("a hub");
    let provider = sim.process("p").client("h").await.expect("a client");
    let p = provider.open("ch").await.expect("a channel");
    let made = Arc::new(AtomicUsize::new(0));
    let (counted, clock) = (Arc::clone(&made), provider.clone());
    let takes = move |_: Request<Bytes>, mut items: Items<Bytes>| {
        let (made, clock) = (Arc::clone(&counted), clock.clone());
        stream::once_future(async move {
            clock.sleep(MINUTE).await;
            let first = made.load(Ordering::Relaxed);
            take(&mut items, 0..taken).await;
            clock.sleep(MINUTE).await;
            let then = made.load(Ordering::Relaxed);
            take(&mut items, taken..ITEMS).await;
            assert!(items.next().await.is_none(), "all of them came");
            Ok::<_, Fault>(Bytes::from([first, then].map(|it| u8::try_from(it).expect("few")).to_vec()))
        })
    };
    let _takes = p.provide_exchange_raw("takes", takes).await.expect("an event");
    let c = sim.process("c").client("h").await.expect("a client").open("ch").await.expect("a channel");
    let feed = stream::iter((0..ITEMS).map(move |number| {
        made.fetch_add(1, Ordering::Relaxed);
        Bytes::from(vec![u8::try_from(number % 251).expect("a byte"); SIZE])
    }));
    let mut answers = c.exchange_raw("takes", Bytes::new(), feed).await.expect("it is taken");
    let answer = answers.next().await.expect("more comes").expect("an item");
    [usize::from(answer[0]), usize::from(answer[1])]
}

#[test]
fn s50_a_caller_is_no_faster_with_its_items_than_who_takes_them() {
    for seed in 0..3 {
        let sim = Sim::seeded(seed);
        let [first, then] = sim.run(made_by_caller(&sim, 80));
        let fit = usize::try_from(DEFAULT_CREDIT_BYTES).expect("a size") / SIZE;
        assert!((fit - fit / 4..=fit + 2).contains(&first), "seed {seed}: {first}");
        // Room is given again by the half of what may be on its way.
        assert!((first + fit / 2 - 2..=first + 82).contains(&then), "seed {seed}: {first} and {then}");
    }
}
