//! Nobody waits for what somebody else is about, in virtual time: who gives up is heard of at the speed of the lines, and
//! what is small does not queue behind what is large.

#![allow(missing_docs, reason = "a test binary")]

use std::future::{Future, IntoFuture as _, pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use commipc_runtime::{Channel, Fault, Hub, Items, Request, Runtime};
use commipc_sim::{Sim, Weather};
use futures_lite::stream::{self, Stream, StreamExt as _};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// How long a line takes, one way.
const LINE: Duration = Duration::from_millis(10);

/// A hub `h`, a provider `p` and a consumer `c`, each with its handle of one channel.
async fn cast(sim: &Sim) -> (Hub, Channel, Channel) {
    let hub = sim.process("h").hub().await.expect("a hub");
    let provided = sim.process("p").client("h").await.expect("a provider").open("math").await.expect("a channel");
    let math = sim.process("c").client("h").await.expect("a consumer").open("math").await.expect("a channel");
    (hub, provided, math)
}

/// Notes when it is dropped.
struct Noted(Arc<dyn Runtime>, Arc<Mutex<Vec<Duration>>>, commipc_runtime::Instant);

impl Drop for Noted {
    fn drop(&mut self) {
        if let Ok(mut noted) = self.1.lock() {
            noted.push(self.0.now().saturating_since(self.2));
        }
    }
}

/// One item and no end.
fn endless(noted: Noted) -> Pin<Box<dyn Stream<Item = Result<u8, Fault>> + Send>> {
    let more = stream::once_future(async move {
        let _noted = noted;
        pending().await
    });
    Box::pin(stream::iter([Ok(1)]).chain(more))
}

/// ```text
/// c ──call, stream, exchange──► h ──► p   works on them for ever
/// c drops one
/// c ──cancel──► h ──► p                   drops its handler when that has come, and not later
/// ```
#[test]
fn s37_s49_whoever_gives_up_is_heard_of_at_the_speed_of_the_lines() {
    for seed in 0..3 {
        let sim = Sim::seeded(seed).weather(Weather::still().delayed(LINE, LINE));
        let dropped = Arc::<Mutex<Vec<Duration>>>::default();
        let given_up = sim.run(async {
            let (_hub, provided, math) = cast(&sim).await;
            let runtime = sim.process("p").runtime();
            let begun = runtime.now();
            let noted = {
                let (runtime, dropped) = (Arc::clone(&runtime), Arc::clone(&dropped));
                move || Noted(Arc::clone(&runtime), Arc::clone(&dropped), begun)
            };
            let (feeds, trades) = (noted.clone(), noted.clone());
            let never = move |_: Request<()>| {
                let noted = noted();
                async move {
                    let _noted = noted;
                    pending::<Result<u8, Fault>>().await
                }
            };
            let _never = provided.provide("never", never).await.expect("an event");
            let _feed =
                provided.provide_stream("feed", move |_: Request<()>| endless(feeds())).await.expect("an event");
            let trade = move |_: Request<()>, _: Items<u8>| endless(trades());
            let _trade = provided.provide_exchange("trade", trade).await.expect("an event");
            let mut given_up = Vec::new();
            let mut call = math.call::<u8>("never", &()).deadline(HOUR).into_future();
            let waits = poll_fn(|cx| Poll::Ready(Pin::new(&mut call).poll(cx).is_pending())).await;
            assert!(waits);
            sim.process("c").sleep(SECOND).await;
            given_up.push(runtime.now().saturating_since(begun));
            drop(call);
            sim.process("c").sleep(SECOND).await;
            let mut stream = math.stream::<u8>("feed", &()).await.expect("it is taken");
            assert_eq!(stream.next().await, Some(Ok(1)));
            given_up.push(runtime.now().saturating_since(begun));
            drop(stream);
            sim.process("c").sleep(SECOND).await;
            let mine = stream::pending::<u8>();
            let mut exchange = math.exchange::<u8, u8>("trade", &(), mine).await.expect("it is taken");
            assert_eq!(exchange.next().await, Some(Ok(1)));
            given_up.push(runtime.now().saturating_since(begun));
            drop(exchange);
            sim.process("c").sleep(SECOND).await;
            given_up
        });
        let dropped = dropped.lock().expect("nobody panics").clone();
        assert_eq!(dropped.len(), 3, "seed {seed}");
        for ((what, given_up), dropped) in ["call", "stream", "exchange"].iter().zip(given_up).zip(dropped.iter()) {
            let took = *dropped - given_up;
            assert!(took >= 2 * LINE && took < 3 * LINE, "seed {seed}: the {what} took {took:?}");
        }
    }
}

const LARGE: usize = 4 << 20;
/// What a line carries in a second.
const SPEED: u64 = 1 << 20;

/// ```text
/// p ══ one item of 4 MiB, in four seconds ══► h ══► c
/// c ──echo──► h ──► p ──► h ──► c             beside it, again and again
/// ```
#[test]
fn s6_a_small_call_is_not_delayed_by_the_large_item_that_comes_with_it() {
    let slow = Weather { buffer: (64 << 10, 64 << 10), ..Weather::still().delayed(LINE, LINE).carrying(SPEED) };
    let sim = Sim::seeded(1).weather(slow);
    let (item, longest, calls) = sim.run(async {
        let (_hub, provided, math) = cast(&sim).await;
        let large = |_: Request<Bytes>| stream::iter([Ok::<_, Fault>(Bytes::from(vec![7; LARGE]))]);
        let _large = provided.provide_stream_raw("large", large).await.expect("an event");
        let echo = async |payload: Request<u32>| Ok::<_, Fault>(*payload);
        let _echo = provided.provide("echo", echo).await.expect("an event");
        let mut items = math.stream_raw("large", Bytes::new()).await.expect("it is taken");
        let begun = sim.elapsed();
        let taking = sim.process("c").spawn(async move { items.next().await.expect("an item").expect("whole").len() });
        let (mut longest, mut calls) = (Duration::ZERO, 0);
        while sim.elapsed() - begun < 3 * SECOND {
            let asked = sim.elapsed();
            assert_eq!(math.call::<u32>("echo", &calls).await, Ok(calls));
            longest = longest.max(sim.elapsed() - asked);
            calls += 1;
        }
        assert_eq!(taking.await.expect("it lives"), LARGE);
        (sim.elapsed() - begun, longest, calls)
    });
    assert!(item > 4 * SECOND && item < 12 * SECOND, "the item took {item:?}");
    assert!(longest < SECOND / 2 && calls > 6, "of {calls} calls one took {longest:?}");
}
