//! Handlers: polled once where the request came in, and given a task of their own only if they wait.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use commipc_protocol::client::{
    self, Command, Credit, EventKind, Incoming, Payload, RequestId, StreamCommand, StreamId, Token,
};
use commipc_protocol::{Fault, FaultCode, Instant, Refusal};
use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::Decode;
use super::channel::ChannelHandle;
use super::desk::{ClientDriver, refused, withdraw};
use super::feed::{Feed, ItemStream, Pump};
use super::items::{DEFAULT_CREDIT, DEFAULT_CREDIT_BYTES, ItemQueue, Items};
use super::request::{About, Request};
use crate::payload::{self, DecodeError};
use crate::runtime::BoxFuture;
use crate::sync::lock;

/// Handlers of one provider that run at a time.
pub const RUNNING_MAX: usize = 64;
/// Requests of one provider that wait for a handler. At more, callers are told `Overloaded`.
pub const WAITING_MAX: usize = 256;

type Answer = Result<Payload, Fault>;
type HandlerFuture = BoxFuture<'static, Answer>;

/// What runs for each request.
pub(super) trait Handler: Send + Sync + 'static {
    fn start(&self, payload: Payload, about: About) -> Result<HandlerFuture, Fault>;
}

/// A handler of values.
pub(super) struct ValueHandler<T, F>(F, PhantomData<fn(T)>);
/// A handler of raw bytes.
pub(super) struct RawHandler<F>(F);

impl<T, F> ValueHandler<T, F> {
    pub(super) const fn new(handler: F) -> Self {
        Self(handler, PhantomData)
    }
}

impl<F> RawHandler<F> {
    pub(super) const fn new(handler: F) -> Self {
        Self(handler)
    }
}

impl<T, R, E, F, Fut> Handler for ValueHandler<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Request<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: Serialize,
    E: Into<Fault>,
{
    fn start(&self, payload: Payload, about: About) -> Result<HandlerFuture, Fault> {
        let value = payload::decode(&payload).map_err(|error| bad_payload(&error))?;
        let answer = (self.0)(Request::new(value, about));
        Ok(Box::pin(async move {
            let value = answer.await.map_err(Into::into)?;
            // What cannot be encoded is this side's fault; the text says nothing a stranger should read.
            payload::encode(&value).map_err(|_| Fault::from(FaultCode::HandlerFailed))
        }))
    }
}

impl<E, F, Fut> Handler for RawHandler<F>
where
    F: Fn(Request<Bytes>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Bytes, E>> + Send + 'static,
    E: Into<Fault>,
{
    fn start(&self, payload: Payload, about: About) -> Result<HandlerFuture, Fault> {
        let bytes = payload::raw(payload).map_err(|error| bad_payload(&error))?;
        let answer = (self.0)(Request::new(bytes, about));
        Ok(Box::pin(async move {
            let bytes = answer.await.map_err(Into::into)?;
            Ok(Payload { bytes, raw: true })
        }))
    }
}

/// What runs for each request for a stream.
pub(super) trait StreamHandler: Send + Sync + 'static {
    fn kind(&self) -> EventKind;
    /// `caller` is what an exchange's caller sends through.
    fn start(&self, payload: Payload, about: About, caller: Option<Caller>) -> Result<ItemStream, Fault>;
}

/// What makes [`Items`] of what a caller sends.
type Caller = (Arc<ClientDriver>, Arc<ItemQueue>, RequestId);

/// Takes requests as `T` and gives items that `encode` turns into payloads.
pub(super) struct Streams<T, R, F> {
    pub(super) handler: F,
    pub(super) decode: Decode<T>,
    pub(super) encode: fn(R) -> Result<Payload, String>,
}

/// The same, with the caller's items as `U`.
pub(super) struct Exchanges<T, U, R, F> {
    pub(super) handler: F,
    pub(super) decode: Decode<T>,
    pub(super) decode_item: Decode<U>,
    pub(super) encode: fn(R) -> Result<Payload, String>,
}

impl<T, R, E, F, S> StreamHandler for Streams<T, R, F>
where
    T: 'static,
    R: 'static,
    F: Fn(Request<T>) -> S + Send + Sync + 'static,
    S: Stream<Item = Result<R, E>> + Send + 'static,
    E: Into<Fault> + 'static,
{
    fn kind(&self) -> EventKind {
        EventKind::Stream
    }

    fn start(&self, payload: Payload, about: About, _: Option<Caller>) -> Result<ItemStream, Fault> {
        let value = (self.decode)(payload).map_err(|error| bad_payload(&error))?;
        let items = Box::pin((self.handler)(Request::new(value, about)));
        Ok(Box::pin(Encoded { items, encode: self.encode }))
    }
}

impl<T, U, R, E, F, S> StreamHandler for Exchanges<T, U, R, F>
where
    T: 'static,
    U: 'static,
    R: 'static,
    F: Fn(Request<T>, Items<U>) -> S + Send + Sync + 'static,
    S: Stream<Item = Result<R, E>> + Send + 'static,
    E: Into<Fault> + 'static,
{
    fn kind(&self) -> EventKind {
        EventKind::Exchange
    }

    fn start(&self, payload: Payload, about: About, caller: Option<Caller>) -> Result<ItemStream, Fault> {
        let value = (self.decode)(payload).map_err(|error| bad_payload(&error))?;
        // An exchange is never started without.
        let (driver, queue, request) = caller.ok_or(FaultCode::HandlerFailed)?;
        let input = Items::of_caller(driver, queue, request, self.decode_item);
        let items = Box::pin((self.handler)(Request::new(value, about), input));
        Ok(Box::pin(Encoded { items, encode: self.encode }))
    }
}

/// A stream whose items are turned into payloads.
struct Encoded<S, R> {
    items: Pin<Box<S>>,
    encode: fn(R) -> Result<Payload, String>,
}

impl<S, R, E> Stream for Encoded<S, R>
where
    S: Stream<Item = Result<R, E>>,
    E: Into<Fault>,
{
    type Item = Result<Payload, Fault>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Poll::Ready(next) = this.items.as_mut().poll_next(cx) else { return Poll::Pending };
        Poll::Ready(next.map(|item| {
            // What cannot be encoded is this side's fault; the text says nothing a stranger should read.
            (this.encode)(item.map_err(Into::into)?).map_err(|_| Fault::from(FaultCode::HandlerFailed))
        }))
    }
}

fn bad_payload(error: &DecodeError) -> Fault {
    Fault::from(match error {
        DecodeError::WrongContent => FaultCode::WrongContent,
        DecodeError::Malformed(_) => FaultCode::BadPayload,
    })
}

/// What runs for each request of a provider.
pub(super) enum Service {
    Call(Box<dyn Handler>),
    Stream(Box<dyn StreamHandler>),
}

/// One provider: its handler, and how much it has to do.
pub(crate) struct ProviderCell {
    service: Service,
    load: Mutex<Load>,
}

#[derive(Default)]
struct Load {
    running: usize,
    waiting: VecDeque<Job>,
}

/// A request or a send, on its way to a handler.
pub(super) struct Job {
    /// `None` for a send, which wants no answer.
    request: Option<RequestId>,
    incoming: Incoming,
    deadline: Option<Instant>,
    idempotent: bool,
}

impl Job {
    pub(super) fn request(request: client::Request) -> Self {
        let client::Request { id, provider: _, message, deadline, idempotent } = request;
        Self { request: Some(id), incoming: message, deadline: Some(deadline), idempotent }
    }

    pub(super) fn send(incoming: Incoming) -> Self {
        Self { request: None, incoming, deadline: None, idempotent: false }
    }
}

enum Admission {
    Run(Job),
    Wait,
    Refuse(Job),
}

impl ProviderCell {
    pub(super) fn new(service: Service) -> Arc<Self> {
        Arc::new(Self { service, load: Mutex::default() })
    }

    pub(super) fn kind(&self) -> EventKind {
        match &self.service {
            Service::Call(_) => EventKind::Call,
            Service::Stream(handler) => handler.kind(),
        }
    }

    fn admit(&self, job: Job) -> Admission {
        let mut load = lock(&self.load);
        if load.running < RUNNING_MAX {
            load.running += 1;
            Admission::Run(job)
        } else if load.waiting.len() < WAITING_MAX {
            load.waiting.push_back(job);
            Admission::Wait
        } else {
            Admission::Refuse(job)
        }
    }

    /// One handler is through; the next request takes its place.
    fn next(&self) -> Option<Job> {
        let mut load = lock(&self.load);
        let next = load.waiting.pop_front();
        load.running -= usize::from(next.is_none());
        next
    }

    /// The caller of a request that still waits gave up.
    fn forget(&self, request: RequestId) -> Option<Job> {
        let mut load = lock(&self.load);
        let position = load.waiting.iter().position(|job| job.request == Some(request))?;
        load.waiting.remove(position)
    }
}

/// A request that is running or waiting, so that its end can be told.
pub(super) struct Tracked {
    request: RequestId,
    cell: Arc<ProviderCell>,
    ended: Arc<Ended>,
    stream: Option<Served>,
}

/// A stream that runs: what its items are asked for with, and where those of the caller go.
type Served = (Arc<Feed>, Option<Arc<ItemQueue>>);

/// Tells a handler's task that its caller is gone.
#[derive(Default)]
struct Ended(Mutex<(bool, Option<Waker>)>);

impl Tracked {
    /// Drops the handler's future, in its own task.
    pub(super) fn end(&self) {
        drop(self.cell.forget(self.request));
        if let Some((feed, _)) = &self.stream {
            feed.end();
        }
        let waker = {
            let mut ended = lock(&self.ended.0);
            ended.0 = true;
            ended.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn stream(&self) -> Option<Served> {
        self.stream.clone()
    }
}

impl Ended {
    fn poll(&self, cx: &Context<'_>) -> bool {
        let mut ended = lock(&self.0);
        if !ended.1.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            ended.1 = Some(cx.waker().clone());
        }
        ended.0
    }
}

/// Runs a job, or lets it wait, or refuses it. Answers that are there at once go to `reply`.
pub(super) fn take(driver: &Arc<ClientDriver>, cell: &Arc<ProviderCell>, job: Job, reply: &mut dyn FnMut(Command)) {
    let request = job.request;
    match cell.admit(job) {
        Admission::Run(job) => run(driver, cell, job, reply),
        Admission::Wait => {
            if let Some(request) = request {
                let ended = Arc::default();
                driver.sink().track(request, Tracked { request, cell: Arc::clone(cell), ended, stream: None });
            }
        }
        Admission::Refuse(job) => {
            tracing::debug!(channel = %job.incoming.channel, event = %job.incoming.event, "refused: too much waits");
            if let Some(request) = request {
                reply(Command::Answer { request, result: Err(refused(Refusal::Overloaded)) });
            }
        }
    }
}

/// Runs a job, and those that waited for its place, until one of them waits itself.
fn run(driver: &Arc<ClientDriver>, cell: &Arc<ProviderCell>, job: Job, reply: &mut dyn FnMut(Command)) {
    let mut next = Some(job);
    while let Some(job) = next {
        let request = job.request;
        match begin(driver, cell, job) {
            Begun::Over(answer) => {
                finish(driver, request, answer, reply);
                next = cell.next();
            }
            Begun::Waits(future) => {
                let ended = Arc::<Ended>::default();
                if let Some(request) = request {
                    let ended = Arc::clone(&ended);
                    driver.sink().track(request, Tracked { request, cell: Arc::clone(cell), ended, stream: None });
                }
                let (driver_, cell) = (Arc::clone(driver), Arc::clone(cell));
                let task = HandlerTask { driver: driver_, cell, request, ended, future: Some(future) };
                driver.runtime().spawn(Box::pin(task));
                return;
            }
            Begun::Streams(request, items, input) => {
                let (feed, ended) = (Arc::<Feed>::default(), Arc::default());
                let stream = Some((Arc::clone(&feed), input));
                driver.sink().track(request, Tracked { request, cell: Arc::clone(cell), ended, stream });
                reply(Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
                let pump = Pump::new(Arc::clone(driver), StreamId::Request(request), feed, items);
                let (driver_, cell) = (Arc::clone(driver), Arc::clone(cell));
                driver.runtime().spawn(Box::pin(StreamTask { driver: driver_, cell, request, pump }));
                return;
            }
        }
    }
}

/// How much of a caller's own items may be on its way.
const WINDOW: Credit = Credit { items: DEFAULT_CREDIT, bytes: DEFAULT_CREDIT_BYTES };

enum Begun {
    Over(Answer),
    Waits(HandlerFuture),
    Streams(RequestId, ItemStream, Option<Arc<ItemQueue>>),
}

fn begin(driver: &Arc<ClientDriver>, cell: &ProviderCell, job: Job) -> Begun {
    let Job { request, incoming, deadline, idempotent } = job;
    let (payload, about) = About::split(incoming, deadline, idempotent, driver.runtime());
    let begun = catch_unwind(AssertUnwindSafe(|| match (&cell.service, request) {
        (Service::Call(handler), _) => match handler.start(payload, about) {
            Err(fault) => Begun::Over(Err(fault)),
            // If it waits, its task polls it again at once, with that task's own waker.
            Ok(mut future) => match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => Begun::Over(answer),
                Poll::Pending => Begun::Waits(future),
            },
        },
        (Service::Stream(handler), Some(request)) => {
            let input = (handler.kind() == EventKind::Exchange).then(|| ItemQueue::new(None));
            let caller = input.clone().map(|queue| (Arc::clone(driver), queue, request));
            match handler.start(payload, about, caller) {
                Ok(items) => Begun::Streams(request, items, input),
                Err(fault) => Begun::Over(Err(fault)),
            }
        }
        // The hub sends nobody a stream that was not asked for.
        (Service::Stream(_), None) => Begun::Over(Err(refused(Refusal::WrongKind))),
    }));
    begun.unwrap_or_else(|_| Begun::Over(panicked()))
}

fn panicked() -> Answer {
    tracing::warn!("a handler panicked");
    Err(FaultCode::HandlerPanicked.into())
}

fn finish(driver: &ClientDriver, request: Option<RequestId>, result: Answer, reply: &mut dyn FnMut(Command)) {
    match request {
        Some(request) => reply(Command::Answer { request, result }),
        None => {
            if let Err(fault) = result {
                tracing::debug!(client = ?driver.sink().own_id(), %fault, "a send was not handled");
            }
        }
    }
}

/// A handler that waits. Its caller's end drops the handler's future; its own end starts the next request.
struct HandlerTask {
    driver: Arc<ClientDriver>,
    cell: Arc<ProviderCell>,
    request: Option<RequestId>,
    ended: Arc<Ended>,
    future: Option<HandlerFuture>,
}

impl HandlerTask {
    fn poll_handler(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let Some(future) = &mut self.future else { return Poll::Ready(None) };
        if self.ended.poll(cx) {
            return Poll::Ready(None);
        }
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(answer)) => Poll::Ready(Some(answer)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(Some(panicked())),
        }
    }
}

impl Future for HandlerTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Poll::Ready(answer) = this.poll_handler(cx) else { return Poll::Pending };
        let future = this.future.take();
        // Its `Drop` is the user's, and may panic as well.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
        if let Some(request) = this.request {
            this.driver.sink().untrack(request);
        }
        let (driver, cell) = (&this.driver, &this.cell);
        let mut reply = |command| driver.issue(command);
        if let Some(answer) = answer {
            finish(driver, this.request, answer, &mut reply);
        }
        if let Some(job) = cell.next() {
            if let Some(request) = job.request {
                driver.sink().untrack(request);
            }
            run(driver, cell, job, &mut reply);
        }
        Poll::Ready(())
    }
}

/// A stream that runs. Its end starts the next request.
struct StreamTask {
    driver: Arc<ClientDriver>,
    cell: Arc<ProviderCell>,
    request: RequestId,
    pump: Pump,
}

impl Future for StreamTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if Pin::new(&mut this.pump).poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.driver.sink().untrack(this.request);
        if let Some(job) = this.cell.next() {
            if let Some(request) = job.request {
                this.driver.sink().untrack(request);
            }
            run(&this.driver, &this.cell, job, &mut |command| this.driver.issue(command));
        }
        Poll::Ready(())
    }
}

/// An event that is provided. Dropping it withdraws the event; requests that run go on. If this client has provided the
/// event anew, the newer one stands for it, and dropping this one withdraws nothing.
#[must_use = "an event is withdrawn when its provider is dropped; keep it, or detach() it"]
pub struct Provider {
    inner: Option<Inner>,
}

struct Inner {
    token: Token,
    cell: Arc<ProviderCell>,
    channel: Arc<ChannelHandle>,
}

impl Provider {
    pub(super) fn new(token: Token, cell: Arc<ProviderCell>, channel: Arc<ChannelHandle>) -> Self {
        Self { inner: Some(Inner { token, cell, channel }) }
    }

    /// Provides for as long as the connection stands, and keeps the connection and the channel open for that.
    pub fn detach(mut self) {
        if let Some(Inner { channel, .. }) = self.inner.take() {
            channel.keep();
        }
    }

    /// Withdraws the event, like dropping, and says so.
    pub fn withdraw(self) {}
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(Inner { token, cell, channel }) = mem::take(&mut self.inner) {
            withdraw(channel.driver(), token, Some(cell));
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("token", &self.inner.as_ref().map(|inner| inner.token)).finish()
    }
}
