//! The verbs as a program without async uses them.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as loudly as tests")]

use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use commipc_blocking::{
    CallError, Channel, Client, Fault, FaultCode, Items, Iterate as _, Loopback, Message, Request, Wait as _, each,
    hub, on_thread,
};

const SOON: Duration = Duration::from_secs(20);

struct Cast {
    _hub: Loopback,
    provider: Client,
    consumer: Client,
    provided: Channel,
    math: Channel,
}

fn cast() -> Cast {
    let hub = hub().loopback().wait().unwrap();
    let (provider, consumer) = (hub.client("provider").wait().unwrap(), hub.client("consumer").wait().unwrap());
    let (provided, math) = (provider.open("math").wait().unwrap(), consumer.open("math").wait().unwrap());
    Cast { _hub: hub, provider, consumer, provided, math }
}

#[test]
fn calls_and_sends_are_answered_in_plain_code() {
    let cast = cast();
    let sum = on_thread(|n: Request<(i64, i64)>| Ok::<_, Fault>(n.0 + n.1));
    let _sum = cast.provided.provide("sum", sum).wait().unwrap();
    assert_eq!(cast.math.call::<i64>("sum", &(15, 25)).wait().unwrap(), 40);
    assert_eq!(cast.consumer.call::<i64>("math", "sum", &(1, 2)).wait().unwrap(), 3);
    let (said, hears) = mpsc::channel();
    let note = on_thread(move |word: Request<String>| {
        said.send((*word).clone()).unwrap();
        Ok::<_, Fault>(())
    });
    let _note = cast.provided.provide("note", note).wait().unwrap();
    cast.math.send("note", "remember").wait().unwrap();
    assert_eq!(hears.recv_timeout(SOON).unwrap(), "remember");
    let missing = cast.math.call::<i64>("difference", &(15, 25)).wait().unwrap_err();
    assert!(matches!(missing, CallError::Failed { maybe_executed: false, .. }), "{missing:?}");
}

#[test]
fn streams_are_iterators() {
    let cast = cast();
    let count = |limit: Request<u32>| each((0..*limit).map(Ok::<_, Fault>));
    let _count = cast.provided.provide_stream("count", count).wait().unwrap();
    let items = cast.math.stream::<u32>("count", &1_000).wait().unwrap();
    let items: Vec<u32> = items.into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(items, (0..1_000).collect::<Vec<_>>());
    let endless = |_: Request<()>| each((0_u64..).map(Ok::<_, Fault>));
    let _endless = cast.provided.provide_stream("endless", endless).wait().unwrap();
    let some: Vec<_> = cast.math.stream::<u64>("endless", &()).wait().unwrap().into_iter().take(700).collect();
    assert!(some.into_iter().map(Result::unwrap).eq(0..700), "an iterator takes what it wants, and drops the rest");
    let broken = |_: Request<()>| each([Ok(1_u32), Err(Fault::from(FaultCode::HandlerFailed))]);
    let _broken = cast.provided.provide_stream("broken", broken).wait().unwrap();
    let mut items = cast.math.stream::<u32>("broken", &()).wait().unwrap().into_iter();
    assert_eq!(items.next().unwrap().unwrap(), 1);
    assert!(matches!(items.next(), Some(Err(CallError::Fault(_)))));
    assert!(items.next().is_none());
}

#[test]
fn exchanges_send_iterators_and_get_them() {
    let cast = cast();
    let double = |_: Request<()>, numbers: Items<u32>| Doubled(numbers);
    let _double = cast.provided.provide_exchange("double", double).wait().unwrap();
    let doubled = cast.math.exchange::<u32, _>("double", &(), each(0..300_u32)).wait().unwrap();
    let doubled: Vec<u32> = doubled.into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(doubled, (0..300).map(|n| 2 * n).collect::<Vec<_>>());
}

struct Doubled(Items<u32>);

impl futures_core::Stream for Doubled {
    type Item = Result<u32, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let double = |item: Result<u32, CallError>| item.map(|n| 2 * n).map_err(|_| FaultCode::HandlerFailed.into());
        self.0.poll_item(cx).map(|item| item.map(double))
    }
}

#[test]
fn listeners_are_iterators_and_can_be_given_a_time() {
    let cast = cast();
    let mut news = cast.math.listen::<u32>("news").wait().unwrap();
    let started = Instant::now();
    assert!(news.next().wait_for(Duration::from_millis(30)).is_none(), "nobody has said anything");
    assert!(started.elapsed() >= Duration::from_millis(30));
    let (said, hears) = mpsc::channel();
    let handled = on_thread(move |message: Message<u32>| said.send(*message).unwrap());
    let _handled = cast.math.on("news", handled).wait().unwrap();
    for number in 1..=3 {
        cast.provided.broadcast("news", &number).wait().unwrap();
    }
    let heard: Vec<u32> = news.into_iter().take(3).map(|message| *message).collect();
    assert_eq!(heard, [1, 2, 3]);
    let handled: Vec<u32> = (0..3).map(|_| hears.recv_timeout(SOON).unwrap()).collect();
    assert_eq!(handled, [1, 2, 3]);
}

#[test]
fn channels_are_protected_and_clients_close() {
    let cast = cast();
    let vault = cast.provider.open("vault").wait().unwrap();
    vault.protect("correct horse").wait().unwrap();
    assert!(cast.consumer.open("vault").wait().is_err());
    let member = cast.consumer.open("vault").password("correct horse").wait().unwrap();
    let echo = on_thread(|word: Request<String>| Ok::<_, Fault>((*word).clone()));
    let _echo = vault.provide("echo", echo).wait().unwrap();
    assert_eq!(member.call::<String>("echo", "signed").wait().unwrap(), "signed");
    cast.consumer.close().wait();
    assert!(cast.consumer.is_closed());
    assert!(member.call::<String>("echo", "late").wait().is_err());
}

#[test]
fn a_handler_that_waits_does_so_on_a_thread() {
    let cast = cast();
    let _half = cast.provided.provide("half", on_thread(|n: Request<u32>| Ok::<_, Fault>(*n / 2))).wait().unwrap();
    // Asks another provider of the same connection, which answers meanwhile.
    let asks = cast.provided.clone();
    let quarter = on_thread(move |n: Request<u32>| {
        let half: u32 = asks.call("half", &*n).within(&n).wait().map_err(|_| FaultCode::HandlerFailed)?;
        asks.call::<u32>("half", &half).within(&n).wait().map_err(|_| Fault::from(FaultCode::HandlerFailed))
    });
    let _quarter = cast.provided.provide("quarter", quarter).wait().unwrap();
    assert_eq!(cast.math.call::<u32>("quarter", &40).wait().unwrap(), 10);
}

#[test]
fn a_handler_that_would_wait_for_itself_panics_and_its_caller_is_told() {
    let cast = cast();
    let _half = cast.provided.provide("half", on_thread(|n: Request<u32>| Ok::<_, Fault>(*n / 2))).wait().unwrap();
    let asks = cast.provided.clone();
    let hangs = move |n: Request<u32>| {
        let half = asks.call::<u32>("half", &*n).wait();
        async move { half.map_err(|_| Fault::from(FaultCode::HandlerFailed)) }
    };
    let _hangs = cast.provided.provide("hangs", hangs).wait().unwrap();
    let panics = on_thread(|_: Request<u32>| -> Result<u32, Fault> { panic!("on its thread") });
    let _panics = cast.provided.provide("panics", panics).wait().unwrap();
    for event in ["hangs", "panics"] {
        let panicked = cast.math.call::<u32>(event, &40).wait().unwrap_err();
        assert_eq!(panicked.code().0, FaultCode::HandlerPanicked.code(), "{event}: {panicked}");
        assert_eq!(cast.math.call::<u32>("half", &40).wait().unwrap(), 20, "and the connection goes on");
    }
}

#[test]
fn slow_handlers_hold_up_nobody_and_calls_can_be_given_up() {
    let cast = cast();
    let slow = on_thread(|time: Request<u64>| {
        thread::sleep(Duration::from_millis(*time));
        Ok::<_, Fault>(())
    });
    let _slow = cast.provided.provide("slow", slow).wait().unwrap();
    let math = cast.math.clone();
    let slow = thread::spawn(move || math.call::<()>("slow", &400).wait());
    assert!(cast.math.call::<()>("slow", &5_000).wait_for(Duration::from_millis(20)).is_none());
    let mut quick = 0;
    while !slow.is_finished() {
        cast.math.call::<()>("slow", &0).wait().unwrap();
        quick += 1;
    }
    slow.join().unwrap().unwrap();
    assert!(quick > 3, "{quick} quick calls while a slow one ran");
    let started = Instant::now();
    let late = cast.math.call::<()>("slow", &5_000).deadline(Duration::from_millis(50)).wait();
    assert!(late.is_err() && started.elapsed() < Duration::from_secs(4), "{late:?}");
}
