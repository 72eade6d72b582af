//! Clients and providers that come to their end: what runs is finished, and cut off when the time is over.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use commipc_protocol::client::{Command, DrainCommand, Failure, Token};
use commipc_protocol::{CloseReason, Misuse};

use super::desk::ClientDriver;
use super::provide::ProviderCell;
use super::providing::Provider;
use super::request::Facts;
use super::{Client, closed};
use crate::drain::{DrainError, Progress};
use crate::sync::lock;

/// What a client knows of its drains, and of the handlers of sends, which its machine knows nothing of.
#[derive(Default)]
pub(super) struct Drains {
    whole: Progress,
    begun: AtomicBool,
    providers: Mutex<HashMap<Token, Arc<Progress>>>,
    /// Sends that are handled or wait for that.
    sends: AtomicUsize,
    /// Of those, the handlers that wait for something.
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    handlers: BTreeMap<u64, (Arc<ProviderCell>, Arc<Facts>)>,
}

/// Stands for a send until its handler is through.
pub(super) struct SendGuard {
    driver: Arc<ClientDriver>,
    waits: Option<u64>,
}

impl SendGuard {
    pub(super) fn new(driver: &Arc<ClientDriver>) -> Self {
        driver.sink().drains().sends.fetch_add(1, Ordering::SeqCst);
        Self { driver: Arc::clone(driver), waits: None }
    }

    /// Its handler waits for something, and can be dropped there.
    pub(super) fn waits(&mut self, cell: &Arc<ProviderCell>, facts: &Arc<Facts>) {
        let mut waiting = lock(&self.driver.sink().drains().waiting);
        waiting.last += 1;
        let number = waiting.last;
        waiting.handlers.insert(number, (Arc::clone(cell), Arc::clone(facts)));
        self.waits = Some(number);
    }
}

impl Drop for SendGuard {
    fn drop(&mut self) {
        let drains = self.driver.sink().drains();
        let gone = self.waits.and_then(|number| lock(&drains.waiting).handlers.remove(&number));
        drop(gone);
        if drains.sends.fetch_sub(1, Ordering::SeqCst) == 1 && drains.begun.load(Ordering::SeqCst) {
            self.driver.issue(Command::Drain(DrainCommand::Finished));
        }
    }
}

impl Drains {
    /// The machine tells how much runs.
    fn note(&self, provider: Option<Token>, running: usize, cut: usize) {
        match provider {
            None => {
                self.whole.running(running);
                self.whole.cut(cut);
            }
            Some(token) => {
                let progress = lock(&self.providers).get(&token).cloned();
                if let Some(progress) = progress {
                    progress.running(running);
                    progress.cut(cut);
                    if running == 0 {
                        progress.end();
                    }
                }
            }
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// The connection is over: what a drain has not finished by then is cut off.
    pub(super) fn closed(&self) {
        if self.has_begun() {
            self.whole.cut(self.cut_sends(None));
            self.whole.end();
        }
    }

    /// Drops the handlers of sends where they wait, of one provider or of all. Tells how many.
    fn cut_sends(&self, of: Option<&Arc<ProviderCell>>) -> usize {
        let handlers: Vec<(Arc<ProviderCell>, Arc<Facts>)> = {
            let waiting = lock(&self.waiting);
            let all = waiting.handlers.values();
            all.filter(|(cell, _)| of.is_none_or(|of| Arc::ptr_eq(of, cell))).cloned().collect()
        };
        // Those that wait for their turn first, or they would get it.
        let forgotten: usize = handlers.iter().map(|(cell, _)| cell.forget_sends()).sum();
        handlers.iter().for_each(|(_, facts)| facts.ended.end());
        handlers.len() + forgotten
    }
}

impl Client {
    /// Comes to an end in good order: nothing more is listened to, every event is withdrawn, what is new is turned down with
    /// [`Misuse::Draining`], what runs is finished; then goodbye, flush, close. Returns when that is done.
    ///
    /// What runs are own calls, streams and messages, and requests to own providers; while such requests are handled, their
    /// handlers may still call, send and broadcast. What is not finished after `within` is cut off: own calls end with
    /// [`Misuse::Closed`], handlers are dropped where they wait, and their callers are told
    /// [`Refusal::ProviderGone`](crate::Refusal::ProviderGone). What was heard and is not handled yet is not waited for here:
    /// [`Subscription::finished`](crate::Subscription::finished) does that.
    ///
    /// # Errors
    /// When something had to be cut off, or the connection was lost before.
    ///
    /// # Cancel safety
    /// The client drains from the first poll on, also if this is dropped. Called again, the time counts anew.
    pub async fn drain(&self, within: Duration) -> Result<(), DrainError> {
        let driver = &self.handle.driver;
        let drains = driver.sink().drains();
        if let super::State::Closed(reason) = driver.sink().state() {
            return if reason == CloseReason::Local { Ok(()) } else { Err(DrainError::Closed(reason)) };
        }
        drains.begun.store(true, Ordering::SeqCst);
        let busy = drains.sends.load(Ordering::SeqCst) > 0;
        driver.issue(Command::Drain(DrainCommand::Client { time: within, busy }));
        // The last of them may have been through before that.
        if busy && drains.sends.load(Ordering::SeqCst) == 0 {
            driver.issue(Command::Drain(DrainCommand::Finished));
        }
        let reason = closed(driver).await;
        driver.links_over().await;
        if reason == CloseReason::Local { drains.whole.result() } else { Err(DrainError::Closed(reason)) }
    }

    /// How much still runs of what [`Client::drain`] waits for; `None` before it was called.
    #[must_use]
    pub fn draining(&self) -> Option<usize> {
        let drains = self.handle.driver.sink().drains();
        drains.whole.left().map(|running| running + drains.sends.load(Ordering::SeqCst))
    }
}

impl Provider {
    /// Withdraws the event and finishes the requests that run or wait for their turn. Callers that come later are told
    /// [`Refusal::NoProvider`](crate::Refusal::NoProvider). What is not finished after `within` is cut off: handlers are
    /// dropped where they wait, and their callers are told [`Refusal::ProviderGone`](crate::Refusal::ProviderGone).
    ///
    /// # Errors
    /// When something had to be cut off.
    ///
    /// # Cancel safety
    /// The event is withdrawn and drained from the first poll on, also if this is dropped.
    pub async fn drain(mut self, within: Duration) -> Result<(), DrainError> {
        let Some((token, cell, channel)) = self.take() else { return Ok(()) };
        let driver = Arc::clone(channel.driver());
        let drains = driver.sink().drains();
        if let super::State::Closed(reason) = driver.sink().state() {
            return Err(DrainError::Closed(reason));
        }
        let (requests, all) = <(Arc<Progress>, Arc<Progress>)>::default();
        lock(&drains.providers).insert(token, Arc::clone(&requests));
        driver.issue(Command::Drain(DrainCommand::Provider { provider: token, time: within }));
        let runtime = Arc::clone(driver.runtime());
        let due = runtime.sleep_until(runtime.now() + within);
        let done = Arc::clone(&all);
        runtime.spawn(Box::pin(async move {
            let result = poll_fn(|cx| requests.poll_over(cx)).await;
            let drains = driver.sink().drains();
            lock(&drains.providers).remove(&token);
            // Sends that are handled are nothing the machine knows of.
            let mut due = due;
            let late = poll_fn(|cx| match (cell.poll_idle(cx), due.as_mut().poll(cx)) {
                (Poll::Ready(()), _) => Poll::Ready(false),
                (Poll::Pending, Poll::Ready(())) => Poll::Ready(true),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            });
            if let Err(DrainError::Cut(cut)) = result {
                done.cut(cut);
            }
            if late.await {
                done.cut(drains.cut_sends(Some(&cell)));
            }
            let target = lock(driver.sink().tickets()).retire(token);
            drop((target, channel));
            done.end();
        }));
        poll_fn(|cx| all.poll_over(cx)).await
    }
}

/// The machine tells that so much still runs. Nothing more is listened to by whole clients that drain.
pub(super) fn told(driver: &ClientDriver, provider: Option<Token>, running: usize, cut: usize) {
    tracing::debug!(?provider, running, cut, "draining");
    let desk = driver.sink();
    if provider.is_none() {
        let listeners = lock(desk.tickets()).listeners();
        listeners.iter().for_each(|queue| queue.close(Failure::Local(Misuse::Draining)));
    }
    desk.drains().note(provider, running, cut);
}
