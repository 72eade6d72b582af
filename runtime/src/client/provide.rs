//! Handlers: polled once where the request came in, and given a task of their own only if they wait.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use commipc_protocol::client::{
    self, Command, Credit, EventKind, Incoming, Payload, RequestId, Source, StreamCommand, StreamId,
};
use commipc_protocol::{FaultCode, Instant, Refusal};

use super::desk::{ClientDriver, refused};
use super::drain::SendGuard;
use super::feed::{Feed, ItemStream, Pump};
use super::handlers::{Answer, HandlerFuture, Service};
use super::items::{DEFAULT_CREDIT, DEFAULT_CREDIT_BYTES, ItemQueue};
use super::request::{About, Facts};
use crate::schema::Schema;
use crate::sync::lock;

/// Handlers of one provider that run at a time, unless it says otherwise.
pub const RUNNING_MAX: usize = 64;
/// Requests of one provider that wait for a handler, unless it says otherwise. At more, callers are told `Overloaded`.
pub const WAITING_MAX: usize = 256;

/// How much one provider does at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) running: usize,
    pub(super) waiting: usize,
}

/// One provider: its handler, and how much it has to do.
pub(crate) struct ProviderCell {
    service: Service,
    bounds: Bounds,
    schema: Schema,
    load: Mutex<Load>,
}

#[derive(Default)]
struct Load {
    running: usize,
    waiting: VecDeque<Job>,
    /// Who waits until nothing runs.
    idle: Vec<Waker>,
}

/// A request or a send, on its way to a handler.
pub(super) struct Job {
    /// `None` for a send, which wants no answer.
    request: Option<RequestId>,
    incoming: Incoming,
    deadline: Option<Instant>,
    idempotent: bool,
    /// Of a send.
    guard: Option<SendGuard>,
}

impl Job {
    pub(super) fn request(request: client::Request) -> Self {
        let client::Request { id, provider: _, message, deadline, whole, idempotent } = request;
        // A handler runs when the request is taken: that of a stream has no other deadline.
        let deadline = whole.then_some(deadline);
        Self { request: Some(id), incoming: message, deadline, idempotent, guard: None }
    }

    pub(super) fn send(incoming: Incoming, guard: SendGuard) -> Self {
        Self { request: None, incoming, deadline: None, idempotent: false, guard: Some(guard) }
    }
}

enum Admission {
    Run(Job),
    /// Whose it is.
    Wait(Arc<Source>),
    Refuse(Job),
}

impl ProviderCell {
    pub(super) fn new(service: Service, bounds: Bounds, schema: Schema) -> Arc<Self> {
        Arc::new(Self { service, bounds, schema, load: Mutex::default() })
    }

    pub(super) fn kind(&self) -> EventKind {
        self.service.kind()
    }

    fn admit(&self, job: Job) -> Admission {
        let mut load = lock(&self.load);
        if load.running < self.bounds.running {
            load.running += 1;
            Admission::Run(job)
        } else if load.waiting.len() < self.bounds.waiting {
            let source = Arc::clone(&job.incoming.source);
            load.waiting.push_back(job);
            Admission::Wait(source)
        } else {
            Admission::Refuse(job)
        }
    }

    /// One handler is through; the next request takes its place.
    fn next(&self) -> Option<Job> {
        let (next, idle) = {
            let mut load = lock(&self.load);
            let next = load.waiting.pop_front();
            load.running -= usize::from(next.is_none());
            let idle = if load.running == 0 { mem::take(&mut load.idle) } else { Vec::new() };
            (next, idle)
        };
        idle.into_iter().for_each(Waker::wake);
        next
    }

    /// Forgets the sends that wait for their turn. Tells how many.
    pub(super) fn forget_sends(&self) -> usize {
        let sends: VecDeque<Job> = {
            let mut load = lock(&self.load);
            let (requests, sends) = mem::take(&mut load.waiting).into_iter().partition(|job| job.request.is_some());
            load.waiting = requests;
            sends
        };
        sends.len()
    }

    /// Waits until nothing runs.
    pub(super) fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        let mut load = lock(&self.load);
        if load.running == 0 {
            return Poll::Ready(());
        }
        if !load.idle.iter().any(|known| known.will_wake(cx.waker())) {
            load.idle.push(cx.waker().clone());
        }
        Poll::Pending
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
    source: Arc<Source>,
    cell: Arc<ProviderCell>,
    /// Once it runs.
    facts: Option<Arc<Facts>>,
    stream: Option<Served>,
}

/// A stream that runs: what its items are asked for with, and where those of the caller go.
type Served = (Arc<Feed>, Option<Arc<ItemQueue>>);

/// Tells a handler's task that nobody wants it any more.
#[derive(Default)]
pub(super) struct Ended(Mutex<(bool, Option<Waker>)>);

impl Tracked {
    /// Drops the handler's future, in its own task.
    pub(super) fn end(&self) {
        drop(self.cell.forget(self.request));
        if let Some((feed, _)) = &self.stream {
            feed.end();
        }
        if let Some(facts) = &self.facts {
            facts.ended.end();
        }
    }

    pub(super) fn stream(&self) -> Option<Served> {
        self.stream.clone()
    }

    /// Who asks, and what.
    pub(super) const fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

impl Ended {
    pub(super) fn end(&self) {
        let waker = {
            let mut ended = lock(&self.0);
            ended.0 = true;
            ended.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> bool {
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
        Admission::Wait(source) => {
            if let Some(request) = request {
                let cell = Arc::clone(cell);
                driver.sink().track(request, Tracked { request, source, cell, facts: None, stream: None });
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
    while let Some(Job { request, incoming, deadline, idempotent, mut guard }) = next {
        let (payload, about) = About::split(incoming, deadline, idempotent, driver.runtime());
        let facts = Arc::clone(about.facts());
        match begin(driver, cell, request, payload, about) {
            Begun::Over(answer) => {
                finish(driver, request, &facts, answer, reply);
                next = cell.next();
            }
            Begun::Waits(future) => {
                let (driver_, cell_) = (Arc::clone(driver), Arc::clone(cell));
                if let Some(request) = request {
                    let (source, facts) = (Arc::clone(&facts.source), Some(Arc::clone(&facts)));
                    let tracked = Tracked { request, source, cell: Arc::clone(cell), facts, stream: None };
                    driver.sink().track(request, tracked);
                }
                if let Some(guard) = &mut guard {
                    guard.waits(cell, &facts);
                }
                let task =
                    HandlerTask { driver: driver_, cell: cell_, request, facts, future: Some(future), _guard: guard };
                driver.runtime().spawn(Box::pin(task));
                return;
            }
            Begun::Streams(request, items, input) => {
                let feed = Arc::<Feed>::default();
                let (source, stream) = (Arc::clone(&facts.source), Some((Arc::clone(&feed), input)));
                let tracked = Tracked { request, source, cell: Arc::clone(cell), facts: None, stream };
                driver.sink().track(request, tracked);
                reply(Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
                let pump = Pump::new(Arc::clone(driver), StreamId::Request(request), feed, items);
                let (driver_, cell) = (Arc::clone(driver), Arc::clone(cell));
                driver.runtime().spawn(Box::pin(StreamTask { driver: driver_, cell, request, facts, pump }));
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

fn begin(
    driver: &Arc<ClientDriver>,
    cell: &ProviderCell,
    request: Option<RequestId>,
    payload: Payload,
    about: About,
) -> Begun {
    if let Err(fault) = cell.schema.check(&payload) {
        return Begun::Over(Err(fault));
    }
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
            let input = (handler.kind() == EventKind::Exchange).then(|| ItemQueue::new(about.facts().place(), None));
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

fn finish(
    driver: &ClientDriver,
    request: Option<RequestId>,
    facts: &Facts,
    result: Answer,
    reply: &mut dyn FnMut(Command),
) {
    if let Err(fault) = &result {
        driver.sink().troubles().failed(facts, fault);
    }
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
    facts: Arc<Facts>,
    future: Option<HandlerFuture>,
    _guard: Option<SendGuard>,
}

impl HandlerTask {
    fn poll_handler(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let Some(future) = &mut self.future else { return Poll::Ready(None) };
        if self.facts.ended.poll(cx) && !self.facts.is_detached() {
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
            finish(driver, this.request, &this.facts, answer, &mut reply);
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
    facts: Arc<Facts>,
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
        if let Some(fault) = this.pump.fault() {
            this.driver.sink().troubles().failed(&this.facts, fault);
        }
        if let Some(job) = this.cell.next() {
            if let Some(request) = job.request {
                this.driver.sink().untrack(request);
            }
            run(&this.driver, &this.cell, job, &mut |command| this.driver.issue(command));
        }
        Poll::Ready(())
    }
}
