//! Coming to an end in good order: nothing new, what runs is finished, and what is not in time ends on both sides.

use std::future::pending;
use std::time::{Duration, Instant};

use commipc_runtime::{
    Away, CallError, CloseReason, ConnectionState, DEFAULT_DEADLINE, DrainError, Failure, Fault, FaultCode,
    ListenError, Message, Misuse, PendingCall, Provider, Reconnect, Refusal, Request,
};
use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::stream::{self, StreamExt as _};

use crate::scene::{Cast, Scene, Watched, make, over_all, watch};

over_all! {
    s86_a_client_finishes_what_it_asked_and_says_goodbye,
    s86_a_client_finishes_what_it_works_on,
    s86_what_was_heard_before_a_drain_is_handled,
    s86_a_provider_finishes_what_it_works_on_and_its_client_stays,
    s86_a_hub_finishes_what_runs_and_the_next_one_goes_on,
    s86_what_is_sent_is_finished_too,
    s86_what_is_not_finished_in_time_ends_on_both_sides,
    endings_of_a_call_that_is_cut_off_by_each_who_drains,
    endings_of_a_stream_whose_provider_is_drained,
    endings_of_an_exchange_whose_hub_is_drained,
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

/// A provider of `slow`, whose handlers wait for the gate.
struct Slow {
    cast: Cast,
    provider: Option<Provider>,
    open: Sender<()>,
    runs: Receiver<()>,
    dropped: Receiver<()>,
}

impl Slow {
    async fn new(scene: &Scene) -> Self {
        Self::with(scene.cast().await).await
    }

    async fn with(cast: Cast) -> Self {
        let ((open, gate), (running, runs), (watched, dropped)) = (bounded::<()>(8), unbounded(), watch());
        let slow = async |(gate, running, _watched): (Receiver<()>, Sender<()>, Watched), number: Request<u32>| {
            running.send(()).await.unwrap();
            gate.recv().await.unwrap();
            Ok::<_, Fault>(2 * *number)
        };
        let provider = cast.provided.provide_with((gate, running, watched), "slow", slow).await.unwrap();
        Self { cast, provider: Some(provider), open, runs, dropped }
    }

    /// A call whose handler runs.
    async fn call(&self) -> PendingCall<u32> {
        let mut call = [self.cast.math.call::<u32>("slow", &4).into_future()];
        make(&mut call).await;
        self.runs.recv().await.unwrap();
        let [call] = call;
        call
    }
}

fn failed(failure: Failure, maybe_executed: bool) -> CallError {
    CallError::Failed { failure, maybe_executed }
}

/// Drains beside a script, which goes on when the drain has begun.
async fn beside<T>(
    drain: impl Future<Output = Result<(), DrainError>>,
    begun: impl Fn() -> bool,
    script: impl Future<Output = T>,
) -> (Result<(), DrainError>, T) {
    let script = async {
        while !begun() {
            smol::future::yield_now().await;
        }
        script.await
    };
    smol::future::zip(drain, script).await
}

async fn s86_a_client_finishes_what_it_asked_and_says_goodbye(scene: Scene) {
    let slow = Slow::new(&scene).await;
    let consumer = slow.cast.consumer.clone();
    let mut listener = slow.cast.math.listen::<u32>("news").await.unwrap();
    let call = slow.call().await;
    assert_eq!(consumer.draining(), None);
    let (drained, answer) = beside(consumer.drain(LONG), || consumer.draining().is_some(), async {
        let new = slow.cast.math.call::<u32>("slow", &1).await.unwrap_err();
        assert_eq!(new, failed(Failure::Local(Misuse::Draining), false));
        assert!(new.is_retryable());
        assert!(consumer.draining().unwrap() > 0);
        assert!(listener.next().await.is_none());
        assert_eq!(listener.ended(), Some(ListenError::Failed(Failure::Local(Misuse::Draining))));
        slow.open.send(()).await.unwrap();
        call.await
    })
    .await;
    assert_eq!((drained, answer), (Ok(()), Ok(8)));
    assert_eq!(consumer.closed().await, CloseReason::Local);
    assert_eq!(consumer.draining(), Some(0));
    assert_eq!(consumer.drain(LONG).await, Ok(()), "twice is no harm");
}

async fn s86_what_was_heard_before_a_drain_is_handled(scene: Scene) {
    let cast = scene.cast().await;
    for at_once in [1, 3] {
        let listener = scene.client(&cast.hub, "listener").await.unwrap();
        let math = listener.open("math").await.unwrap();
        let (heard, hears) = unbounded();
        let (open, opens) = unbounded::<()>();
        let slow = move |message: Message<u32>| {
            let (heard, opens) = (heard.clone(), opens.clone());
            async move {
                heard.send(*message).await.unwrap();
                // Until it is closed.
                let _ = opens.recv().await;
                heard.send(*message).await.unwrap();
            }
        };
        let handled = math.on("news", slow).concurrency(at_once).await.unwrap();
        for number in 0..5 {
            cast.provided.broadcast("news", &number).await.unwrap();
        }
        let first = hears.recv().await.unwrap();
        assert!(
            usize::try_from(first).unwrap() < at_once,
            "of those that run beside each other it may be any: {first}"
        );
        // What comes on one connection comes in order: all five have come.
        let _: Result<(), _> = math.call("nobody", &()).await;
        assert_eq!(listener.drain(LONG).await, Ok(()));
        let mut finished = std::pin::pin!(handled.finished());
        assert!(smol::future::poll_once(&mut finished).await.is_none(), "it is at work");
        open.close();
        finished.await;
        let mut all: Vec<u32> = std::iter::once(first).chain(std::iter::from_fn(|| hears.try_recv().ok())).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    }
}

async fn s86_a_client_finishes_what_it_works_on(scene: Scene) {
    let slow = Slow::new(&scene).await;
    let provider = slow.cast.provider.clone();
    let calls = [slow.call().await, slow.call().await];
    let (drained, ()) = beside(provider.drain(LONG), || provider.draining().is_some(), async {
        let new = slow.cast.math.call::<u32>("slow", &1).await.unwrap_err();
        assert_eq!(new, failed(Failure::Refused(Refusal::NoProvider), false));
        for call in calls {
            slow.open.send(()).await.unwrap();
            assert_eq!(call.await, Ok(8));
        }
    })
    .await;
    assert_eq!(drained, Ok(()));
}

async fn s86_a_provider_finishes_what_it_works_on_and_its_client_stays(scene: Scene) {
    let mut slow = Slow::new(&scene).await;
    let call = slow.call().await;
    let provider = slow.provider.take().unwrap();
    let (drained, answer) = beside(provider.drain(LONG), || true, async {
        let refused = failed(Failure::Refused(Refusal::NoProvider), false);
        while slow.cast.math.call::<u32>("slow", &1).deadline(SHORT).await.unwrap_err() != refused {}
        slow.open.send(()).await.unwrap();
        call.await
    })
    .await;
    assert_eq!((drained, answer), (Ok(()), Ok(8)));
    // Its place is free, and what is not finished in time is cut off without the client.
    let mut slow = Slow::with(slow.cast).await;
    let call = slow.call().await;
    let provider = slow.provider.take().unwrap();
    assert_eq!(provider.drain(SHORT).await, Err(DrainError::Cut(1)));
    assert_eq!(call.await, Err(failed(Failure::Refused(Refusal::ProviderGone), true)));
    slow.dropped.recv().await.unwrap();
    let _again = slow.cast.provided.provide("slow", async |_: Request<u32>| Ok::<_, Fault>(1)).await.unwrap();
    assert_eq!(slow.cast.math.call::<u32>("slow", &1).await, Ok(1));
}

async fn s86_a_hub_finishes_what_runs_and_the_next_one_goes_on(scene: Scene) {
    let mut soon = Reconnect::default();
    (soon.first, soon.longest) = (Duration::from_millis(20), Duration::from_millis(100));
    let hub = scene.hub().await.unwrap();
    let provider = scene.client(&hub, "provider").reconnect(soon).await.unwrap();
    let consumer = scene.client(&hub, "consumer").reconnect(soon).await.unwrap();
    let (provided, math) = (provider.open("math").await.unwrap(), consumer.open("math").await.unwrap());
    let slow = Slow::with(Cast { hub, provider, consumer, provided, math }).await;
    let call = slow.call().await;
    let hub = slow.cast.hub.clone();
    let mut states = slow.cast.consumer.states();
    let url = hub.urls()[0].clone();
    let (drained, answer) = beside(hub.drain(LONG), || hub.draining() == Some(1), async {
        let new = slow.cast.math.call::<u32>("slow", &1).await.unwrap_err();
        assert_eq!(new, failed(Failure::Refused(Refusal::Draining), false));
        assert!(new.is_retryable());
        assert!(scene.client(&hub, "late").await.is_err(), "nobody new gets in");
        slow.open.send(()).await.unwrap();
        call.await
    })
    .await;
    assert_eq!((drained, answer), (Ok(()), Ok(8)));
    while !matches!(states.next().await, Some(ConnectionState::Lost { .. })) {}
    let Slow { cast: Cast { hub: old, provider, consumer: _consumer, provided: _provided, math }, open, .. } = slow;
    drop((hub, old));
    let _next = scene.hub_at(&url).await.unwrap();
    provider.ready().await.unwrap();
    open.send(()).await.unwrap();
    assert_eq!(math.call::<u32>("slow", &4).while_away(Away::Wait).await, Ok(8));
}

async fn s86_what_is_sent_is_finished_too(scene: Scene) {
    let slow = Slow::new(&scene).await;
    let provider = slow.cast.provider.clone();
    slow.cast.math.send("slow", &1).await.unwrap();
    slow.runs.recv().await.unwrap();
    let (drained, ()) = beside(provider.drain(LONG), || provider.draining().is_some(), async {
        slow.cast.provided.broadcast("done", &1).await.unwrap();
        slow.open.send(()).await.unwrap();
    })
    .await;
    assert_eq!(drained, Ok(()));
    // And what hangs is cut off.
    let slow = Slow::new(&scene.again()).await;
    slow.cast.math.send("slow", &1).await.unwrap();
    slow.runs.recv().await.unwrap();
    assert_eq!(slow.cast.provider.drain(SHORT).await, Err(DrainError::Cut(1)));
    slow.dropped.recv().await.unwrap();
}

async fn s86_what_is_not_finished_in_time_ends_on_both_sides(scene: Scene) {
    let slow = Slow::new(&scene).await;
    let started = Instant::now();
    let calls = [slow.call().await, slow.call().await];
    assert_eq!(slow.cast.hub.drain(SHORT).await, Err(DrainError::Cut(2)));
    for call in calls {
        assert_eq!(call.await, Err(failed(Failure::Refused(Refusal::ShuttingDown), true)));
    }
    slow.dropped.recv().await.unwrap();
    for client in [&slow.cast.consumer, &slow.cast.provider] {
        assert_eq!(client.closed().await, CloseReason::Goodbye(Refusal::ShuttingDown));
    }
    assert!(started.elapsed() < DEFAULT_DEADLINE / 2, "{:?}", started.elapsed());
}

/// The rows of `docs/endings.md` "drains, and it is not" for calls, from both sides.
async fn endings_of_a_call_that_is_cut_off_by_each_who_drains(scene: Scene) {
    let slow = Slow::new(&scene).await;
    let call = slow.call().await;
    assert_eq!(slow.cast.consumer.drain(SHORT).await, Err(DrainError::Cut(1)));
    assert_eq!(call.await, Err(failed(Failure::Local(Misuse::Closed), true)));
    slow.dropped.recv().await.unwrap();

    let slow = Slow::new(&scene.again()).await;
    let call = slow.call().await;
    assert_eq!(slow.cast.provider.drain(SHORT).await, Err(DrainError::Cut(1)));
    assert_eq!(call.await, Err(failed(Failure::Refused(Refusal::ProviderGone), true)));
    slow.dropped.recv().await.unwrap();
}

/// The row "the provider drains, and it is not" for streams: what had come stays, and the end is typed.
async fn endings_of_a_stream_whose_provider_is_drained(scene: Scene) {
    let cast = scene.cast().await;
    let (watched, dropped) = watch();
    let feed = move |_: Request<()>| {
        let watched = watched.clone();
        stream::iter([Ok::<_, Fault>(1), Ok(2)]).chain(stream::once_future(async move {
            let _watched = watched;
            pending().await
        }))
    };
    let _feed = cast.provided.provide_stream("feed", feed).await.unwrap();
    let mut items = cast.math.stream::<u8>("feed", &()).await.unwrap();
    assert_eq!((items.next().await, items.next().await), (Some(Ok(1)), Some(Ok(2))));
    assert_eq!(cast.provider.drain(SHORT).await, Err(DrainError::Cut(1)));
    assert_eq!(items.next().await, Some(Err(failed(Failure::Refused(Refusal::ProviderGone), true))));
    assert_eq!(items.next().await, None);
    dropped.recv().await.unwrap();
}

/// The row "the hub drains, and it is not" for exchanges: both ends are told, and what the caller sends is dropped.
async fn endings_of_an_exchange_whose_hub_is_drained(scene: Scene) {
    let cast = scene.cast().await;
    let (watched, dropped) = watch();
    let echo = |_: Request<()>, items: commipc_runtime::Items<u8>| {
        items.map(|item| item.map_err(|_| Fault::from(FaultCode::HandlerFailed)))
    };
    let _echo = cast.provided.provide_exchange("echo", echo).await.unwrap();
    let endless = stream::once(7).chain(stream::once_future(async move {
        let _watched = watched;
        pending().await
    }));
    let mut items = cast.math.exchange::<u8, u8>("echo", &(), endless).await.unwrap();
    assert_eq!(items.next().await, Some(Ok(7)));
    assert_eq!(cast.hub.drain(SHORT).await, Err(DrainError::Cut(1)));
    assert_eq!(items.next().await, Some(Err(failed(Failure::Refused(Refusal::ShuttingDown), true))));
    dropped.recv().await.unwrap();
}
