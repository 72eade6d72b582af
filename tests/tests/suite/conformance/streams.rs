//! Streams between processes' handles: every item once and in order, at the pace of whoever takes them, and an end for each.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use commipc_runtime::{CallError, Failure, Fault, Items, Misuse, Refusal, Request};
use smol::stream::{self, Stream, StreamExt as _};

use crate::scene::{Scene, Watched, over_all, watch};

over_all! {
    s45_items_come_in_order_and_all_of_them,
    s46_s47_nothing_is_an_item_and_an_error_comes_after_the_items_before_it,
    s49_v27_a_dropped_stream_drops_its_provider,
    s50_a_provider_is_no_faster_than_its_consumer,
    s51_v27_a_stream_ends_when_its_provider_goes,
    s42_a_stream_is_no_call_and_a_call_no_stream,
    d1_v6_streams_of_protected_channels_are_signed_item_by_item,
    an_exchange_runs_in_both_directions,
    an_exchange_ends_with_the_answering_stream,
    s6_long_items_come_whole_and_raw_ones_untouched,
    a_stream_that_panics_is_a_fault_and_harms_nothing_else,
    s48_what_a_stream_is_asked_with_is_checked,
}

fn numbers(request: &Request<u32>) -> impl Stream<Item = Result<u32, Fault>> + Send + use<> {
    stream::iter((0..**request).map(Ok))
}

async fn all<T>(mut items: Items<T>) -> (Vec<T>, Option<CallError>) {
    let mut come = Vec::new();
    loop {
        match items.next().await {
            Some(Ok(item)) => come.push(item),
            Some(Err(error)) => return (come, Some(error)),
            None => return (come, None),
        }
    }
}

async fn s45_items_come_in_order_and_all_of_them(scene: Scene) {
    let cast = scene.cast().await;
    let _numbers = cast.provided.provide_stream("numbers", |r: Request<u32>| numbers(&r)).await.unwrap();
    for (count, credit) in [(0, 1), (1, 1), (10, 1), (1_000, 3), (20_000, 256)] {
        let items = cast.math.stream::<u32>("numbers", &count).credit(credit).await.unwrap();
        let (come, error) = all(items).await;
        assert_eq!((error, come), (None, (0..count).collect::<Vec<_>>()));
    }
    // Several at a time on one connection do not get into each other's way.
    let mut three = Vec::new();
    for count in [3_000_u32, 1_000, 2_000] {
        three.push((count, cast.math.stream::<u32>("numbers", &count).await.unwrap()));
    }
    for (count, items) in three {
        assert_eq!(all(items).await, (((0..count).collect::<Vec<_>>()), None));
    }
}

async fn s46_s47_nothing_is_an_item_and_an_error_comes_after_the_items_before_it(scene: Scene) {
    let cast = scene.cast().await;
    let some = |_: Request<()>| {
        let refusal = Fault { code: 1_001, message: "enough".into(), details: Bytes::new(), retryable: false };
        stream::iter([Ok(Some(0)), Ok(None), Ok(Some(2)), Err(refusal), Ok(Some(4))])
    };
    let _some = cast.provided.provide_stream("some", some).await.unwrap();
    let (come, error) = all(cast.math.stream::<Option<u8>>("some", &()).await.unwrap()).await;
    assert_eq!(come, [Some(0), None, Some(2)]);
    let Some(CallError::Fault(fault)) = error else { panic!("{error:?}") };
    assert_eq!((fault.code, fault.message.as_str()), (1_001, "enough"));
}

/// Endless, counted, and dropped in public.
struct Endless {
    made: Arc<AtomicU64>,
    _watched: Watched,
}

impl Stream for Endless {
    type Item = Result<u64, Fault>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(Some(Ok(self.made.fetch_add(1, Ordering::Relaxed))))
    }
}

async fn s49_v27_a_dropped_stream_drops_its_provider(scene: Scene) {
    let cast = scene.cast().await;
    let (watched, dropped) = watch();
    let made = Arc::new(AtomicU64::new(0));
    let endless = move |_: Request<()>| Endless { made: Arc::clone(&made), _watched: watched.clone() };
    let _endless = cast.provided.provide_stream("endless", endless).await.unwrap();
    let mut items = cast.math.stream::<u64>("endless", &()).await.unwrap();
    for n in 0..5 {
        assert_eq!(items.next().await, Some(Ok(n)));
    }
    drop(items);
    dropped.recv().await.unwrap();
}

async fn s50_a_provider_is_no_faster_than_its_consumer(scene: Scene) {
    let cast = scene.cast().await;
    let (watched, _dropped) = watch();
    let made = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&made);
    let endless = move |_: Request<()>| Endless { made: Arc::clone(&counted), _watched: watched.clone() };
    let _endless = cast.provided.provide_stream("endless", endless).await.unwrap();
    let mut items = cast.math.stream::<u64>("endless", &()).credit(10).await.unwrap();
    assert_eq!(items.next().await, Some(Ok(0)));
    while made.load(Ordering::Relaxed) < 10 {
        smol::Timer::after(Duration::from_millis(5)).await;
    }
    smol::Timer::after(Duration::from_millis(200)).await;
    let ahead = made.load(Ordering::Relaxed);
    assert!(ahead <= 20, "one was taken and ten may be on their way, but {ahead} were made");
    for n in 1..1_000 {
        assert_eq!(items.next().await, Some(Ok(n)));
    }
    assert!(made.load(Ordering::Relaxed) <= 1_020);
}

async fn s51_v27_a_stream_ends_when_its_provider_goes(scene: Scene) {
    let cast = scene.cast().await;
    let few = |_: Request<()>| stream::iter([Ok::<_, Fault>(1), Ok(2)]).chain(stream::pending());
    let _few = cast.provided.provide_stream("few", few).await.unwrap();
    let mut items = cast.math.stream::<u8>("few", &()).await.unwrap();
    assert_eq!((items.next().await, items.next().await), (Some(Ok(1)), Some(Ok(2))));
    cast.provider.close().await;
    let failure = Failure::Refused(Refusal::ProviderGone);
    assert_eq!(items.next().await, Some(Err(CallError::Failed { failure, maybe_executed: true })));
    assert_eq!(items.next().await, None);
}

async fn s42_a_stream_is_no_call_and_a_call_no_stream(scene: Scene) {
    let cast = scene.cast().await;
    let _numbers = cast.provided.provide_stream("numbers", |r: Request<u32>| numbers(&r)).await.unwrap();
    let _one = cast.provided.provide("one", async |_: Request<()>| Ok::<_, Fault>(1)).await.unwrap();
    let wrong = Refusal::WrongKind.code();
    assert_eq!(cast.math.call::<u32>("numbers", &3).await.unwrap_err().code().0, wrong);
    assert_eq!(cast.math.stream::<u32>("one", &()).await.unwrap_err().code().0, wrong);
    assert_eq!(cast.math.send("numbers", &3).await.unwrap_err().code().0, wrong);
    let exchange = cast.math.exchange::<u32, u32>("numbers", &3, stream::empty()).await;
    assert_eq!(exchange.unwrap_err().code().0, wrong);
    assert_eq!(cast.math.stream::<u32>("nobody", &()).await.unwrap_err().code().0, Refusal::NoProvider.code());
}

async fn d1_v6_streams_of_protected_channels_are_signed_item_by_item(scene: Scene) {
    let cast = scene.cast().await;
    let owned = cast.provider.open("vault").await.unwrap();
    owned.protect("correct horse").await.unwrap();
    let _numbers = owned.provide_stream("numbers", |r: Request<u32>| numbers(&r)).await.unwrap();
    let member = cast.consumer.open("vault").password("correct horse").await.unwrap();
    let (come, error) = all(member.stream::<u32>("numbers", &3_000).await.unwrap()).await;
    assert_eq!((error, come), (None, (0..3_000).collect::<Vec<_>>()));
    let stranger = cast.consumer.stream::<u32>("vault2", "numbers", &1).await.unwrap_err();
    assert_eq!(stranger.code().0, Refusal::NoProvider.code());
}

async fn an_exchange_runs_in_both_directions(scene: Scene) {
    let cast = scene.cast().await;
    let doubled = |_: Request<()>, items: Items<u32>| items.map(|item| item.map(|n| 2 * n).map_err(|_| failed()));
    let _doubled = cast.provided.provide_exchange("doubled", doubled).await.unwrap();
    let items = cast.math.exchange::<u32, u32>("doubled", &(), stream::iter(0..5_000)).await.unwrap();
    let (come, error) = all(items).await;
    assert_eq!((error, come), (None, (0..5_000).map(|n| 2 * n).collect::<Vec<_>>()));
    // A sum needs all of the caller's items before its own only one.
    let sum = |_: Request<()>, mut items: Items<u64>| {
        stream::once_future(async move {
            let mut sum = 0;
            while let Some(item) = items.try_next().await.map_err(|_| failed())? {
                sum += item;
            }
            Ok::<_, Fault>(sum)
        })
    };
    let _sum = cast.provided.provide_exchange("sum", sum).await.unwrap();
    let items = cast.math.exchange::<u64, u64>("sum", &(), stream::iter(1..=10_000)).await.unwrap();
    assert_eq!(all(items).await, (vec![50_005_000], None));
    // Asked for as a stream, it gets no items.
    assert_eq!(all(cast.math.stream::<u64>("sum", &()).await.unwrap()).await, (vec![0], None));
}

fn failed() -> Fault {
    Fault { code: 1_002, message: "the caller's items ended".into(), details: Bytes::new(), retryable: false }
}

async fn an_exchange_ends_with_the_answering_stream(scene: Scene) {
    let cast = scene.cast().await;
    let first = |_: Request<()>, items: Items<u8>| items.take(1).map(|item| item.map_err(|_| failed()));
    let _first = cast.provided.provide_exchange("first", first).await.unwrap();
    let (watched, dropped) = watch();
    let endless = stream::repeat(7).map(move |n| {
        let _ = &watched;
        n
    });
    let items = cast.math.exchange::<u8, u8>("first", &(), endless).await.unwrap();
    assert_eq!(all(items).await, (vec![7], None));
    dropped.recv().await.unwrap();
}

async fn s6_long_items_come_whole_and_raw_ones_untouched(scene: Scene) {
    let cast = scene.cast().await;
    let long: Bytes = (0..2_500_000_u32).map(|n| (n % 251) as u8).collect();
    let provided = long.clone();
    let raw = move |_: Request<Bytes>| stream::iter([Ok::<_, Fault>(provided.clone()), Ok(Bytes::new())]);
    let _raw = cast.provided.provide_stream_raw("raw", raw).await.unwrap();
    let echo = async |r: Request<u32>| Ok::<_, Fault>(*r);
    let _echo = cast.provided.provide("echo", echo).await.unwrap();
    let mut items = cast.math.stream_raw("raw", "").await.unwrap();
    assert_eq!(cast.math.call::<u32>("echo", &5).await.unwrap(), 5);
    assert!(items.next().await.unwrap().unwrap() == long);
    assert_eq!(items.next().await, Some(Ok(Bytes::new())));
    assert_eq!(items.next().await, None);
}

async fn a_stream_that_panics_is_a_fault_and_harms_nothing_else(scene: Scene) {
    let cast = scene.cast().await;
    let panics = |r: Request<u32>| {
        assert!(*r != 0, "asked for");
        stream::iter(0..3).map(|n| if n < 2 { Ok::<_, Fault>(n) } else { panic!("asked for") })
    };
    let _panics = cast.provided.provide_stream("panics", panics).await.unwrap();
    let panicked = commipc_runtime::FaultCode::HandlerPanicked.code();
    let (come, error) = all(cast.math.stream::<u32>("panics", &1).await.unwrap()).await;
    assert_eq!((come, error.unwrap().code().0), (vec![0, 1], panicked));
    let error = match cast.math.stream::<u32>("panics", &0).await {
        Ok(items) => all(items).await.1.unwrap(),
        Err(error) => error,
    };
    assert_eq!(error.code().0, panicked);
    let _one = cast.provided.provide("one", async |_: Request<()>| Ok::<_, Fault>(1)).await.unwrap();
    assert_eq!(cast.math.call::<u32>("one", &()).await.unwrap(), 1);
}

async fn s48_what_a_stream_is_asked_with_is_checked(scene: Scene) {
    let cast = scene.cast().await;
    let _numbers = cast.provided.provide_stream("numbers", |r: Request<u32>| numbers(&r)).await.unwrap();
    let error = cast.math.stream::<u32>("numbers", "three").await.unwrap_err();
    assert_eq!(error.code().0, commipc_runtime::FaultCode::BadPayload.code());
    let error = cast.math.stream_raw("numbers", "three").await.unwrap_err();
    assert_eq!(error.code().0, commipc_runtime::FaultCode::WrongContent.code());
    // An item of another type is told, and the rest still comes.
    let mut items = cast.math.stream::<String>("numbers", &2).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap_err().code().0, Misuse::Decode.code());
    drop(items);
    let hang = |_: Request<()>| stream::once_future(async { pending::<Result<u8, Fault>>().await });
    let _hang = cast.provided.provide_stream("hang", hang).await.unwrap();
    let items = cast.math.stream::<u8>("hang", &()).deadline(Duration::from_millis(500)).await.unwrap();
    smol::Timer::after(Duration::from_millis(700)).await;
    cast.consumer.close().await;
    let failure = Failure::Local(Misuse::Closed);
    assert_eq!(all(items).await, (vec![], Some(CallError::Failed { failure, maybe_executed: true })));
}
