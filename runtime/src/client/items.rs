//! Streams as their receiver sees them: asked for with a builder, then one item after the other until they end.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::client::{
    Away, CallFailure, Command, Credit, Event, Outgoing, Payload, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::{Instant, Misuse, client};
use futures_core::Stream;

use super::ClientHandle;
use super::call::{DEFAULT_DEADLINE, Deadline, Decode, sooner};
use super::desk::ClientDriver;
use super::feed::{Feed, ItemStream, Pump};
use super::request::Request;
use super::tap::Place;
use super::tickets::Target;
use crate::error::CallError;
use crate::sync::lock;

/// How much of a stream may be on its way at a time, unless it says otherwise: so many items.
pub const DEFAULT_CREDIT: u64 = 1_024;
/// And so many bytes.
pub const DEFAULT_CREDIT_BYTES: u64 = 512 << 10;

/// What the driver is told of after so many bytes, while more items wait: of the default an eighth, where half is granted
/// at a time.
const REPORT: u64 = DEFAULT_CREDIT_BYTES / 8;

/// Items that have come and nobody has taken yet.
pub(super) struct ItemQueue {
    place: Place,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<(Payload, u64)>,
    accepted: bool,
    end: Option<Result<(), CallFailure>>,
    waker: Option<Waker>,
    /// Of an exchange that we asked for: what gives our own items.
    feed: Option<Arc<Feed>>,
}

/// What comes out of a queue.
enum Next {
    Item(Payload, u64),
    End(Result<(), CallFailure>),
}

impl ItemQueue {
    pub(super) fn new(place: Place, feed: Option<Arc<Feed>>) -> Arc<Self> {
        Arc::new(Self { place, waiting: Mutex::new(Waiting { feed, ..Waiting::default() }) })
    }

    /// What was asked for these items.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// Adds an item, and those at the front of `more` that are of the same stream.
    pub(super) fn push(&self, stream: StreamId, item: (Payload, u64), more: &mut VecDeque<Event>) {
        let waker = {
            let mut waiting = lock(&self.waiting);
            let mut next = Some(item);
            while let Some(item) = next {
                waiting.items.push_back(item);
                next = next_of(more, stream);
            }
            waiting.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// A provider has taken the request.
    pub(super) fn accept(&self) {
        let waker = {
            let mut waiting = lock(&self.waiting);
            waiting.accepted = true;
            waiting.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Nothing comes after what is there.
    pub(super) fn end(&self, result: Result<(), CallFailure>) {
        let (waker, feed) = {
            let mut waiting = lock(&self.waiting);
            waiting.end.get_or_insert(result);
            (waiting.waker.take(), waiting.feed.take())
        };
        waker.into_iter().for_each(Waker::wake);
        feed.into_iter().for_each(|feed| feed.end());
    }

    /// Our own items are wanted.
    pub(super) fn demand(&self, amount: Credit) {
        let feed = lock(&self.waiting).feed.clone();
        feed.into_iter().for_each(|feed| feed.demand(amount));
    }

    /// Whether a provider has taken the request, or why none has.
    fn poll_accepted(&self, cx: &Context<'_>) -> Poll<Result<(), CallFailure>> {
        let mut waiting = lock(&self.waiting);
        if waiting.accepted {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = waiting.end.clone() {
            return Poll::Ready(end);
        }
        waiting.register(cx);
        Poll::Pending
    }

    /// The next of what was taken already, or else of what has come, which is taken then.
    fn poll(&self, taken: &mut VecDeque<(Payload, u64)>, cx: &Context<'_>) -> Poll<Next> {
        if let Some((payload, cost)) = taken.pop_front() {
            return Poll::Ready(Next::Item(payload, cost));
        }
        let mut waiting = lock(&self.waiting);
        mem::swap(&mut waiting.items, taken);
        if let Some((payload, cost)) = taken.pop_front() {
            return Poll::Ready(Next::Item(payload, cost));
        }
        if let Some(end) = waiting.end.clone() {
            return Poll::Ready(Next::End(end));
        }
        waiting.register(cx);
        Poll::Pending
    }
}

impl Waiting {
    fn register(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }
}

/// The first of these events, if it is an item of this stream.
fn next_of(events: &mut VecDeque<Event>, of: StreamId) -> Option<(Payload, u64)> {
    let is_next = matches!(events.front(), Some(Event::Stream(StreamEvent::Item { stream, .. })) if *stream == of);
    let Event::Stream(StreamEvent::Item { payload, cost, .. }) = is_next.then(|| events.pop_front()).flatten()? else {
        return None;
    };
    Some((payload, cost))
}

/// The items of a stream, in order.
///
/// What waits here is bounded by the credit the stream was asked for with: a provider is slowed down to the speed at
/// which items are taken. Dropping it cancels the stream: its provider's handler is dropped.
#[must_use = "a stream that is dropped is cancelled"]
pub struct Items<T> {
    driver: Arc<ClientDriver>,
    queue: Arc<ItemQueue>,
    id: StreamId,
    decode: Decode<T>,
    /// Out of the queue, and not taken.
    next: VecDeque<(Payload, u64)>,
    /// Taken, and the driver not told.
    taken: Credit,
    /// Told at this many items at the latest.
    half: u64,
    over: bool,
    /// Of a stream that we asked for.
    _client: Option<Arc<ClientHandle>>,
    marker: PhantomData<fn() -> T>,
}

impl<T> Items<T> {
    /// What a caller sends in an exchange.
    pub(super) fn of_caller(
        driver: Arc<ClientDriver>,
        queue: Arc<ItemQueue>,
        request: client::RequestId,
        decode: Decode<T>,
    ) -> Self {
        let (id, half) = (StreamId::Request(request), DEFAULT_CREDIT / 2);
        let (next, taken) = (VecDeque::new(), Credit::NONE);
        Self { driver, queue, id, decode, next, taken, half, over: false, _client: None, marker: PhantomData }
    }

    /// Waits for the next item; `None` when the stream has ended well and all of it was taken. An error is the last thing,
    /// unless it is only that an item is of another type.
    ///
    /// Cancel safe: an item is either returned or still there.
    pub async fn next(&mut self) -> Option<Result<T, CallError>> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    /// Waits for the next item, with the error in front.
    ///
    /// # Errors
    /// As [`Items::next`].
    pub async fn try_next(&mut self) -> Result<Option<T>, CallError> {
        self.next().await.transpose()
    }

    /// Polls for the next item, for hand-written futures.
    pub fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.queue.poll(&mut self.next, cx) {
            Poll::Ready(Next::Item(payload, cost)) => {
                self.taken = self.taken.plus(Credit { items: 1, bytes: cost });
                if self.taken.items >= self.half || self.taken.bytes >= REPORT {
                    self.report();
                }
                Poll::Ready(Some((self.decode)(payload).map_err(CallError::from)))
            }
            Poll::Ready(Next::End(result)) => {
                self.over = true;
                Poll::Ready(result.err().map(|failure| Err(failure.into())))
            }
            Poll::Pending => {
                // Everything is taken, so that nothing but this can make the provider go on.
                self.report();
                Poll::Pending
            }
        }
    }

    fn report(&mut self) {
        if self.taken != Credit::NONE {
            let amount = mem::take(&mut self.taken);
            self.driver.issue(Command::Stream(StreamCommand::Consumed { stream: self.id, amount }));
        }
    }
}

impl<T> Stream for Items<T> {
    type Item = Result<T, CallError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(cx)
    }
}

impl<T> Drop for Items<T> {
    fn drop(&mut self) {
        match self.id {
            StreamId::Call(token) => cancel(&self.driver, token, &self.queue),
            // The request goes on without the caller's items.
            StreamId::Request(_) => {}
        }
    }
}

fn cancel(driver: &ClientDriver, token: Token, queue: &ItemQueue) {
    if lock(&queue.waiting).end.is_none() {
        let target = lock(driver.sink().tickets()).disconnect(token);
        driver.issue(Command::Cancel { call: token });
        drop(target);
    }
    queue.end(Ok(()));
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A stream that is not asked for yet: await it. It is ready when a provider has taken the request.
#[must_use = "nothing is asked for before this is awaited"]
pub struct StreamCall<R> {
    client: Arc<ClientHandle>,
    outgoing: Result<Outgoing, CallError>,
    deadline: Deadline,
    /// How long all of it may take.
    total: Option<Duration>,
    window: Credit,
    input: Option<ItemStream>,
    decode: Decode<R>,
}

impl<R> StreamCall<R> {
    pub(super) fn new(
        client: Arc<ClientHandle>,
        mut outgoing: Result<Outgoing, CallError>,
        input: Option<ItemStream>,
        decode: Decode<R>,
    ) -> Self {
        if let Ok(outgoing) = &mut outgoing {
            outgoing.away = client.away;
        }
        let window = Credit { items: DEFAULT_CREDIT, bytes: DEFAULT_CREDIT_BYTES };
        let deadline = Deadline { time: DEFAULT_DEADLINE, until: None };
        Self { client, outgoing, deadline, total: None, window, input, decode }
    }

    /// How long it may take until a provider has taken the request, at most a day; half a minute unless it is said. From then
    /// on the stream has no deadline, unless it has a [total](StreamCall::total_deadline) one: a provider that says nothing
    /// more, or a hub that keeps the end to itself, is waited for until the items are dropped or the connection goes.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline.time = time;
        self
    }

    /// How long all of it may take, from its being asked for to its end, at most a day. Then it ends in any case: here with
    /// [`Misuse::Deadline`], after the items that have come; the hub, and the provider, whose handler is dropped and is told
    /// by [`Request::deadline`], know the time themselves.
    ///
    /// ```
    /// use std::time::Duration;
    /// use commipc_runtime::{CallError, Channel};
    ///
    /// async fn lines(channel: &Channel) -> Result<Vec<String>, CallError> {
    ///     let mut lines = channel.stream::<String>("lines", &()).total_deadline(Duration::from_secs(60)).await?;
    ///     let mut all = Vec::new();
    ///     while let Some(line) = lines.try_next().await? {
    ///         all.push(line);
    ///     }
    ///     Ok(all)
    /// }
    /// ```
    pub fn total_deadline(mut self, time: Duration) -> Self {
        self.total = Some(time);
        self
    }

    /// Asks for a request that is being handled: all of it takes no longer than that request's caller still waits. Without
    /// effect for one that has no deadline, as a send, or a stream without a total one.
    pub fn within<T>(self, request: &Request<T>) -> Self {
        self.until(request.deadline())
    }

    /// The same, by a time.
    pub(super) fn until(mut self, until: Option<Instant>) -> Self {
        self.deadline.until = sooner(self.deadline.until, until);
        self
    }

    /// What becomes of it while the connection is away: it fails at once, or waits until its deadline. A stream that runs
    /// ends with its connection.
    pub fn while_away(mut self, away: Away) -> Self {
        if let Ok(outgoing) = &mut self.outgoing {
            outgoing.away = away;
        }
        self
    }

    /// How many items may be on their way at a time, at least 1.
    pub fn credit(mut self, items: u64) -> Self {
        self.window.items = items.max(1);
        self
    }

    /// How many bytes may be on their way at a time; less with many streams at once, and at least about 16 KiB.
    pub fn credit_bytes(mut self, bytes: u64) -> Self {
        self.window.bytes = bytes;
        self
    }

    /// A CBOR map that goes with the request, for the provider to read.
    pub fn metadata(mut self, map: Bytes) -> Self {
        if let Ok(outgoing) = &mut self.outgoing {
            outgoing.metadata = map;
        }
        self
    }
}

impl<R> IntoFuture for StreamCall<R> {
    type Output = Result<Items<R>, CallError>;
    type IntoFuture = PendingStream<R>;

    fn into_future(self) -> PendingStream<R> {
        PendingStream { step: Step::Start(Box::new(self)) }
    }
}

/// A stream that is being asked for. Dropping it before it is ready cancels the request.
#[must_use = "a stream is asked for only while this is polled"]
pub struct PendingStream<R> {
    step: Step<R>,
}

enum Step<R> {
    Start(Box<StreamCall<R>>),
    Waiting(Items<R>),
    Over,
}

impl<R> Future for PendingStream<R> {
    type Output = Result<Items<R>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let items = match mem::replace(&mut this.step, Step::Over) {
            Step::Start(call) => match start(*call) {
                Ok(items) => items,
                Err(error) => return Poll::Ready(Err(error)),
            },
            Step::Waiting(items) => items,
            Step::Over => return Poll::Pending,
        };
        match items.queue.poll_accepted(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(items)),
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure.into())),
            Poll::Pending => {
                this.step = Step::Waiting(items);
                Poll::Pending
            }
        }
    }
}

fn start<R>(call: StreamCall<R>) -> Result<Items<R>, CallError> {
    let StreamCall { client, outgoing, deadline, total, window, input, decode } = call;
    let outgoing = outgoing?;
    let driver = Arc::clone(&client.driver);
    let feed = input.is_some().then(Arc::<Feed>::default);
    let queue = ItemQueue::new((outgoing.channel.clone(), outgoing.event.clone()), feed.clone());
    let token = lock(driver.sink().tickets()).standing(Target::Items(Arc::clone(&queue)));
    if let (Some(feed), Some(items)) = (feed, input) {
        let pump = Pump::new(Arc::clone(&driver), StreamId::Call(token), feed, items);
        driver.runtime().spawn(Box::pin(pump));
    }
    let (time_left, inherited) = (deadline.time_left(&driver), deadline.inherited(&driver));
    let whole = total.into_iter().chain(inherited).min();
    let exchange = lock(&queue.waiting).feed.is_some();
    driver.issue(Command::Stream(StreamCommand::Ask { token, outgoing, time_left, whole, window, exchange }));
    let (id, half) = (StreamId::Call(token), window.items.div_ceil(2));
    let (next, taken, over, marker) = (VecDeque::new(), Credit::NONE, false, PhantomData);
    Ok(Items { driver, queue, id, decode, next, taken, half, over, _client: Some(client), marker })
}

/// How the items of a caller ended, as its provider sees it.
pub(super) fn caller_ended(result: Result<(), Misuse>) -> Result<(), CallFailure> {
    let failed = |why| CallFailure::Failed { failure: client::Failure::Local(why), maybe_executed: false };
    result.map_err(failed)
}

impl<R> fmt::Debug for StreamCall<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCall").field("deadline", &self.deadline.time).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for PendingStream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingStream").finish_non_exhaustive()
    }
}
