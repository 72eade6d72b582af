//! Handlers: how many run at a time, for how long, and what they ask in turn.

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use commipc_runtime::{CallError, Channel, DEFAULT_DEADLINE, Failure, Fault, FaultCode, Items, Refusal, Request};
use smol::channel::{Receiver, Sender, unbounded};
use smol::lock::Semaphore;
use smol::stream::{self, StreamExt as _};

use crate::scene::{Scene, Watched, make, over_all, watch};

over_all! {
    a_provider_runs_and_queues_as_many_as_it_says,
    a_provider_that_runs_one_at_a_time_keeps_their_order,
    a_provider_of_streams_runs_as_many_as_it_says,
    a_detached_handler_goes_on_without_its_caller_and_no_other_does,
    a_detached_handler_keeps_its_place_and_outlives_its_connection,
    s37_what_a_handler_asks_in_turn_takes_no_longer_than_its_caller_waits,
    s37_all_that_a_handler_asks_for_a_request_inherits_its_deadline,
}

fn is_overloaded(error: &CallError) -> bool {
    *error == CallError::Failed { failure: Failure::Refused(Refusal::Overloaded), maybe_executed: false }
}

async fn a_provider_runs_and_queues_as_many_as_it_says(scene: Scene) {
    let cast = scene.cast().await;
    let gate = Arc::new(Semaphore::new(0));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let state = (Arc::clone(&gate), now, Arc::clone(&most));
    let wait = async |(gate, now, most): (Arc<Semaphore>, Arc<AtomicUsize>, Arc<AtomicUsize>), number: Request<u32>| {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        gate.acquire().await.forget();
        now.fetch_sub(1, Ordering::SeqCst);
        Ok::<_, Fault>(*number)
    };
    let _wait = cast.provided.provide_with(state, "wait", wait).running(2).waiting(3).await.unwrap();
    let mut calls: Vec<_> = (0..5).map(|number| cast.math.call::<u32>("wait", &number).into_future()).collect();
    make(&mut calls).await;
    let error = cast.math.call::<u32>("wait", &5).await.unwrap_err();
    assert!(is_overloaded(&error), "{error:?}");
    gate.add_permits(5);
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap(), number);
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    // Afterwards there is room again.
    gate.add_permits(1);
    assert_eq!(cast.math.call::<u32>("wait", &6).await.unwrap(), 6);
}

async fn a_provider_that_runs_one_at_a_time_keeps_their_order(scene: Scene) {
    const COUNT: u32 = 100;
    let cast = scene.cast().await;
    let (began, begins) = unbounded();
    let one = async |began: Sender<u32>, number: Request<u32>| {
        began.send(*number).await.unwrap();
        smol::future::yield_now().await;
        Ok::<_, Fault>(*number)
    };
    let _one = cast.provided.provide_with(began, "one", one).running(1).await.unwrap();
    let mut calls: Vec<_> = (0..COUNT).map(|number| cast.math.call::<u32>("one", &number).into_future()).collect();
    make(&mut calls).await;
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap(), number);
    }
    let order: Vec<_> = std::iter::from_fn(|| begins.try_recv().ok()).collect();
    assert_eq!(order, (0..COUNT).collect::<Vec<_>>());
}

async fn a_provider_of_streams_runs_as_many_as_it_says(scene: Scene) {
    let cast = scene.cast().await;
    let (watched, dropped) = watch();
    let ticks = move |_: Request<()>| {
        let watched = watched.clone();
        stream::iter([Ok::<_, Fault>(1)]).chain(stream::pending()).map(move |item| {
            let _ = &watched;
            item
        })
    };
    let _ticks = cast.provided.provide_stream("ticks", ticks).running(1).waiting(0).await.unwrap();
    let mut first = cast.math.stream::<u8>("ticks", &()).await.unwrap();
    assert_eq!(first.next().await, Some(Ok(1)));
    let error = cast.math.stream::<u8>("ticks", &()).await.unwrap_err();
    assert!(is_overloaded(&error), "{error:?}");
    drop(first);
    dropped.recv().await.unwrap();
    // The place is free when the provider knows of the end, a moment after the stream is dropped.
    let mut again = loop {
        match cast.math.stream::<u8>("ticks", &()).await {
            Ok(items) => break items,
            Err(error) => assert!(is_overloaded(&error), "{error:?}"),
        }
    };
    assert_eq!(again.next().await, Some(Ok(1)));
}

/// What handlers that may be detached tell, and wait for.
#[derive(Clone)]
struct Work {
    began: Sender<()>,
    gate: Receiver<()>,
    done: Sender<bool>,
    _watched: Watched,
}

async fn work(work: Work, detached: Request<bool>) -> Result<(), Fault> {
    if *detached {
        detached.detach();
    }
    work.began.send(()).await.unwrap();
    let _ = work.gate.recv().await;
    work.done.send(*detached).await.unwrap();
    Ok(())
}

async fn a_detached_handler_goes_on_without_its_caller_and_no_other_does(scene: Scene) {
    let cast = scene.cast().await;
    let ((began, begins), (open, gate), (done, is_done)) = (unbounded(), unbounded(), unbounded());
    let (watched, dropped) = watch();
    let state = Work { began, gate, done, _watched: watched };
    let _ping = cast.provided.provide("ping", async |_: Request<()>| Ok::<_, Fault>(())).await.unwrap();
    let _work = cast.provided.provide_with(state, "work", work).await.unwrap();
    for detached in [false, true] {
        let mut call = [cast.math.call::<()>("work", &detached).into_future()];
        make(&mut call).await;
        begins.recv().await.unwrap();
        drop(call);
        if !detached {
            dropped.recv().await.unwrap();
        }
    }
    // The end has come to the provider before this has.
    cast.math.call::<()>("ping", &()).await.unwrap();
    open.send(()).await.unwrap();
    open.send(()).await.unwrap();
    assert!(is_done.recv().await.unwrap(), "the detached one alone comes to its end");
    dropped.recv().await.unwrap();
    assert!(is_done.is_empty());
    // One that has its caller is answered as ever.
    open.send(()).await.unwrap();
    cast.math.call::<()>("work", &true).await.unwrap();
}

async fn a_detached_handler_keeps_its_place_and_outlives_its_connection(scene: Scene) {
    let cast = scene.cast().await;
    let ((began, begins), (open, gate), (done, is_done)) = (unbounded(), unbounded(), unbounded());
    let state = Work { began, gate, done, _watched: watch().0 };
    let _work = cast.provided.provide_with(state, "work", work).running(1).waiting(0).await.unwrap();
    let mut call = [cast.math.call::<()>("work", &true).into_future()];
    make(&mut call).await;
    begins.recv().await.unwrap();
    drop(call);
    // Behind the end of the one before, on the same connection.
    let error = cast.math.call::<()>("work", &true).await.unwrap_err();
    assert!(is_overloaded(&error), "{error:?}");
    cast.provider.close().await;
    open.send(()).await.unwrap();
    assert!(is_done.recv().await.unwrap());
}

async fn s37_what_a_handler_asks_in_turn_takes_no_longer_than_its_caller_waits(scene: Scene) {
    const OUTER: Duration = Duration::from_secs(7);
    let cast = scene.cast().await;
    let left = async |r: Request<()>| Ok::<_, Fault>(r.remaining().map(|left| left.as_millis() as u64));
    let _left = cast.provided.provide("left", left).await.unwrap();
    let lefts = |r: Request<()>| stream::iter([Ok::<_, Fault>(r.remaining().map(|left| left.as_millis() as u64))]);
    let _lefts = cast.provided.provide_stream("lefts", lefts).await.unwrap();
    // What is left for a call of its own, one within the request, one that is to take less, and one of a stream.
    let ask = async |channel: Channel, request: Request<()>| {
        let call = || channel.call::<Option<u64>>("left", &());
        let failed = |_: CallError| Fault::from(FaultCode::HandlerFailed);
        let own = call().await.map_err(failed)?;
        let within = call().within(&request).await.map_err(failed)?;
        let longer = call().within(&request).deadline(2 * OUTER).await.map_err(failed)?;
        let shorter = call().deadline(OUTER / 2).within(&request).await.map_err(failed)?;
        let mut items = channel.stream::<Option<u64>>("lefts", &()).within(&request).await.map_err(failed)?;
        let streamed = items.try_next().await.map_err(failed)?.flatten();
        Ok::<_, Fault>([own, within, longer, shorter, streamed].map(Option::unwrap))
    };
    let _ask = cast.provided.provide_with(cast.math.clone(), "ask", ask).await.unwrap();
    let lefts: [u64; 5] = cast.consumer.call("math", "ask", &()).deadline(OUTER).await.unwrap();
    let [own, within, longer, shorter, streamed] = lefts.map(Duration::from_millis);
    assert!(own > OUTER && own <= DEFAULT_DEADLINE, "{lefts:?}");
    assert!(within <= OUTER && longer <= OUTER && shorter <= OUTER / 2, "{lefts:?}");
    assert!(streamed <= OUTER, "{lefts:?}");
    assert!(longer > OUTER / 2, "{lefts:?}: not less than there is");
}

/// What a handler asks with a handle for its request: calls, streams and exchanges, three deep.
async fn s37_all_that_a_handler_asks_for_a_request_inherits_its_deadline(scene: Scene) {
    const OUTER: Duration = Duration::from_secs(7);
    let cast = scene.cast().await;
    let _left = cast.provided.provide("left", async |r: Request<()>| Ok::<_, Fault>(left(&r))).await.unwrap();
    let lefts = move |r: Request<()>| stream::iter([Ok::<_, Fault>(left(&r))]);
    let _lefts = cast.provided.provide_stream("lefts", lefts).await.unwrap();
    let trades = move |r: Request<()>, _: Items<u8>| stream::iter([Ok::<_, Fault>(left(&r))]);
    let _trades = cast.provided.provide_exchange("trades", trades).await.unwrap();
    let math = cast.math.clone();
    let _asks = cast.provided.provide("asks", move |r: Request<()>| ask_all(math.clone(), r)).await.unwrap();
    let math = cast.math.clone();
    let streams = move |r: Request<()>| stream::once_future(ask_all(math.clone(), r));
    let _streams = cast.provided.provide_stream("streams", streams).await.unwrap();
    let math = cast.math.clone();
    let deep = async |math: Channel, r: Request<()>| {
        let failed = |_: CallError| Fault::from(FaultCode::HandlerFailed);
        math.within(&r).call::<[Option<u64>; 3]>("asks", &()).await.map_err(failed)
    };
    let _deep = cast.provided.provide_with(math, "deep", deep).await.unwrap();

    let inherited = |lefts: [Option<u64>; 3]| lefts.iter().all(|left| left.is_some_and(|it| it <= 7_000));
    let lefts = cast.math.call("deep", &()).deadline(OUTER).await.unwrap();
    assert!(inherited(lefts), "{lefts:?}");
    let mut total = cast.math.stream("streams", &()).total_deadline(OUTER).await.unwrap();
    let lefts = total.try_next().await.unwrap().unwrap();
    assert!(inherited(lefts), "{lefts:?}");
    // A stream without a total deadline, whose caller waits for as long as it likes, passes none on.
    let mut endless = cast.math.stream("streams", &()).deadline(OUTER).await.unwrap();
    let [call, stream, exchange]: [Option<u64>; 3] = endless.try_next().await.unwrap().unwrap();
    assert!(call.is_some_and(|left| left > 7_000) && stream.is_none() && exchange.is_none(), "{call:?}");
}

fn left(request: &Request<()>) -> Option<u64> {
    request.remaining().map(|left| left.as_millis() as u64)
}

/// What is left for a call, a stream and an exchange that are asked for a request.
async fn ask_all(math: Channel, request: Request<()>) -> Result<[Option<u64>; 3], Fault> {
    let (math, failed) = (math.within(&request), |_: CallError| Fault::from(FaultCode::HandlerFailed));
    let call = math.call("left", &()).await.map_err(failed)?;
    let mut stream = math.stream::<Option<u64>>("lefts", &()).await.map_err(failed)?;
    let mut exchange = math.exchange::<Option<u64>, u8>("trades", &(), stream::empty()).await.map_err(failed)?;
    let mut taken = [call, None, None];
    taken[1] = stream.try_next().await.map_err(failed)?.flatten();
    taken[2] = exchange.try_next().await.map_err(failed)?.flatten();
    Ok(taken)
}
