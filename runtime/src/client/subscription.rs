//! Handlers of broadcasts: a listener with a task of its own that runs a function for each message.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use serde::de::DeserializeOwned;

use super::Channel;
use super::listen::{Listen, Listener, Message};
use super::names::IntoEvent;
use super::provide::Ended;
use super::queue::Overflow;
use crate::error::ListenError;
use crate::runtime::{BoxFuture, Runtime};
use crate::sync::lock;

/// Messages that are handled before other tasks get their turn.
const AT_A_TIME: usize = 64;

impl Channel {
    /// Runs `handler` for each broadcast of one event, in the order they came and one at a time, unless
    /// [`Handling::concurrency`] says otherwise: the next message waits until the handler's future is done. Those that are no
    /// `T` are counted, not delivered. Await it.
    ///
    /// The handler runs in a task of its own, beside every other listener. A panic ends the handling of its message alone, and
    /// is logged. As with any [`Listener`], at most [`QUEUE_MAX`](crate::QUEUE_MAX) messages wait, and the next one tells how
    /// many were [`missed`](Message::missed); [`Handling::overflow`] and [`Handling::queue`] set that.
    ///
    /// ```
    /// use commipc_runtime::{Channel, ListenError, Message, Subscription};
    ///
    /// async fn watch(channel: &Channel) -> Result<Subscription, ListenError> {
    ///     channel
    ///         .on("temperature", async |degrees: Message<f64>| {
    ///             println!("{} says {}", degrees.sender(), *degrees);
    ///         })
    ///         .await
    /// }
    /// ```
    ///
    /// # Errors
    /// When the name is none, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it stops listening again.
    pub fn on<T, F, Fut>(&self, event: impl IntoEvent, handler: F) -> Handling<T, F>
    where
        T: DeserializeOwned + 'static,
        F: FnMut(Message<T>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Handling { runtime: self.runtime(), listen: self.listen(event), handler, concurrency: 1 }
    }

    /// Runs `handler` for each broadcast of the channel, as [`Channel::on`] does for those of one event. Await it.
    ///
    /// # Errors
    /// When the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it stops listening again.
    pub fn on_all<T, F, Fut>(&self, handler: F) -> Handling<T, F>
    where
        T: DeserializeOwned + 'static,
        F: FnMut(Message<T>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Handling { runtime: self.runtime(), listen: self.listen_all(), handler, concurrency: 1 }
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(self.driver().runtime())
    }
}

/// A handler of broadcasts that is not called yet: await it.
#[must_use = "a handler is not called before this is awaited"]
pub struct Handling<T, F> {
    runtime: Arc<dyn Runtime>,
    listen: Listen<T>,
    handler: F,
    concurrency: usize,
}

impl<T, F> Handling<T, F> {
    /// How many messages may be handled at a time, at least 1, which is what keeps their order. With more the handler is still
    /// called in order, and what it returns runs beside the others.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.concurrency = messages.max(1);
        self
    }

    /// What becomes of messages that come faster than they are handled, as [`Listen::overflow`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.listen = self.listen.overflow(overflow);
        self
    }

    /// How many messages may wait to be handled, as [`Listen::queue`].
    pub fn queue(mut self, messages: usize) -> Self {
        self.listen = self.listen.queue(messages);
        self
    }
}

impl<T, F, Fut> IntoFuture for Handling<T, F>
where
    T: 'static,
    F: FnMut(Message<T>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    type Output = Result<Subscription, ListenError>;
    type IntoFuture = PendingHandling;

    fn into_future(self) -> PendingHandling {
        let Self { runtime, listen, handler, concurrency } = self;
        PendingHandling(Box::pin(async move {
            let listener = listen.await?;
            let (subscription, running) = Subscription::new();
            let places = (concurrency > 1).then(|| Places::new(Arc::clone(&runtime), concurrency));
            runtime.spawn(Box::pin(run(listener, handler, places, running)));
            Ok(subscription)
        }))
    }
}

impl<T, F> fmt::Debug for Handling<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listen, concurrency, .. } = self;
        f.debug_struct("Handling").field("listen", listen).field("concurrency", concurrency).finish_non_exhaustive()
    }
}

/// A handler of broadcasts that is about to be called. Dropped midway, it is not.
#[must_use = "a handler is called only once this was polled to its end"]
pub struct PendingHandling(BoxFuture<'static, Result<Subscription, ListenError>>);

impl Future for PendingHandling {
    type Output = Result<Subscription, ListenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for PendingHandling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingHandling(..)")
    }
}

/// Room for handlers that run beside each other, each in a task of its own.
struct Places {
    runtime: Arc<dyn Runtime>,
    free: Arc<Mutex<(usize, Option<Waker>)>>,
}

impl Places {
    fn new(runtime: Arc<dyn Runtime>, count: usize) -> Self {
        Self { runtime, free: Arc::new(Mutex::new((count, None))) }
    }

    /// Whether there is none; `cx` is woken when there is.
    fn are_full(&self, cx: &Context<'_>) -> bool {
        let mut free = lock(&self.free);
        if free.0 == 0 {
            free.1 = Some(cx.waker().clone());
        }
        free.0 == 0
    }

    fn run(&self, future: BoxFuture<'static, ()>, running: &Arc<Running>) {
        lock(&self.free).0 -= 1;
        let place = (Place(Arc::clone(&self.free)), Arc::clone(running));
        self.runtime.spawn(Box::pin(async move {
            note(handle(future).await);
            drop(place);
        }));
    }
}

/// One that is taken.
struct Place(Arc<Mutex<(usize, Option<Waker>)>>);

impl Drop for Place {
    fn drop(&mut self) {
        let waker = {
            let mut free = lock(&self.0);
            free.0 += 1;
            free.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// What a subscription and its tasks share.
struct Running {
    /// Nobody wants the handler to be called any more.
    ended: Arc<Ended>,
    /// It is called no more, and nothing of what it returned runs.
    over: Arc<Ended>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.over.end();
    }
}

async fn run<T, F, Fut>(mut listener: Listener<T>, mut handler: F, places: Option<Places>, running: Running)
where
    F: FnMut(Message<T>) -> Fut + Send,
    Fut: Future<Output = ()> + Send + 'static,
{
    let running = Arc::new(running);
    let mut handled = 0;
    loop {
        let next = poll_fn(|cx| {
            if running.ended.poll(cx) {
                Poll::Ready(None)
            } else if places.as_ref().is_some_and(|places| places.are_full(cx)) {
                Poll::Pending
            } else {
                listener.poll_message(cx)
            }
        });
        let Some(message) = next.await else { return };
        match (start(&mut handler, message), &places) {
            (Some(future), Some(places)) => places.run(future, &running),
            (Some(future), None) => note(handle(future).await),
            (None, _) => note(false),
        }
        handled += 1;
        if handled % AT_A_TIME == 0 {
            give_way().await;
        }
    }
}

/// Calls a handler, unless that panics.
fn start<T, Fut>(handler: &mut impl FnMut(T) -> Fut, with: T) -> Option<BoxFuture<'static, ()>>
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let future = catch_unwind(AssertUnwindSafe(|| handler(with))).ok()?;
    Some(Box::pin(future))
}

fn note(through: bool) {
    if !through {
        tracing::warn!("a function that is called for what comes panicked");
    }
}

/// Runs a handler for each thing that `next` gives, one at a time, until there is no more.
pub(super) fn subscribe<T, F, Fut>(
    runtime: &dyn Runtime,
    mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<T>> + Send + 'static,
    mut handler: F,
) -> Subscription
where
    T: Send + 'static,
    F: FnMut(T) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (subscription, running) = Subscription::new();
    runtime.spawn(Box::pin(async move {
        while let Some(thing) = poll_fn(|cx| if running.ended.poll(cx) { Poll::Ready(None) } else { next(cx) }).await {
            match start(&mut handler, thing) {
                Some(future) => note(handle(future).await),
                None => note(false),
            }
        }
    }));
    subscription
}

/// Runs one handler to its end, or until it panics.
async fn handle(mut future: BoxFuture<'static, ()>) -> bool {
    let through = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(())) => Poll::Ready(true),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(false),
    });
    let through = through.await;
    // Its `Drop` is the user's, and may panic as well.
    catch_unwind(AssertUnwindSafe(|| drop(future))).is_ok() && through
}

/// Lets other tasks run.
async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A handler that is called as things come. Dropping it stops that; what it is at is handled to the end.
#[must_use = "a handler is called no more when its subscription is dropped; keep it, or detach() it"]
pub struct Subscription {
    ended: Option<Arc<Ended>>,
    over: Arc<Ended>,
}

impl Subscription {
    fn new() -> (Self, Running) {
        let (ended, over) = (Arc::<Ended>::default(), Arc::<Ended>::default());
        let running = Running { ended: Arc::clone(&ended), over: Arc::clone(&over) };
        (Self { ended: Some(ended), over }, running)
    }

    /// Waits until nothing more comes and all that came is handled: after the channel or the connection has ended, as by
    /// [`Client::drain`](crate::Client::drain), which does not wait for what was heard.
    ///
    /// # Cancel safety
    /// Dropped midway, the handler is called no more, as with the subscription itself.
    pub async fn finished(self) {
        poll_fn(|cx| if self.over.poll(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Goes on for as long as the connection stands, and keeps the connection and the channel open for that.
    pub fn detach(mut self) {
        self.ended = None;
    }

    /// Stops calling the handler, like dropping, and says so.
    pub fn stop(self) {}
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended.end();
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription(..)")
    }
}
