//! Wakers, sleepers, and who waits for a task.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};

use commipc_protocol::Instant;

use super::state::{Happening, Shared, lock};

/// The number of the future that [`super::Sim::run`] was given.
pub(super) const MAIN: u64 = 0;

/// Wakes one task.
pub(super) struct TaskWaker {
    shared: Weak<Shared>,
    task: u64,
    /// It will be polled anyway.
    woken: AtomicBool,
}

impl TaskWaker {
    pub(super) const fn new(shared: Weak<Shared>, task: u64) -> Self {
        Self { shared, task, woken: AtomicBool::new(false) }
    }

    /// It is polled now: what wakes it from now on counts again.
    pub(super) fn begin(&self) {
        self.woken.store(false, Ordering::Release);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.woken(self.task);
        }
    }
}

/// Is ready once the simulation's time has come to `at`.
pub(super) struct Sleep {
    shared: Weak<Shared>,
    at: Instant,
    sleeper: Option<u64>,
}

impl Sleep {
    pub(super) const fn new(shared: Weak<Shared>, at: Instant) -> Self {
        Self { shared, at, sleeper: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = self.shared.upgrade() else { return Poll::Pending };
        let at = self.at;
        let known = self.sleeper;
        shared.with(|state| {
            if state.agenda.now() >= at {
                return Poll::Ready(());
            }
            let sleeper = known.unwrap_or_else(|| {
                let sleeper = state.serial();
                state.agenda.plan(at, Happening::Wake(sleeper));
                sleeper
            });
            state.sleepers.insert(sleeper, cx.waker().clone());
            self.sleeper = Some(sleeper);
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some(sleeper), Some(shared)) = (self.sleeper, self.shared.upgrade()) {
            let waker = shared.with(|state| state.sleepers.remove(&sleeper));
            drop(waker);
        }
    }
}

/// What a task comes to; `None` when its process is killed before. Dropping it leaves the task alone.
#[derive(Debug)]
#[must_use = "the task runs all the same; drop() what is not waited for"]
pub struct Joining<T>(Arc<Mutex<Outcome<T>>>);

/// The task's side of a [`Joining`].
pub(super) struct Promise<T>(Arc<Mutex<Outcome<T>>>);

#[derive(Debug)]
struct Outcome<T> {
    value: Option<T>,
    over: bool,
    waker: Option<Waker>,
}

pub(super) fn promise<T>() -> (Promise<T>, Joining<T>) {
    let outcome = Arc::new(Mutex::new(Outcome { value: None, over: false, waker: None }));
    (Promise(Arc::clone(&outcome)), Joining(outcome))
}

impl<T> Promise<T> {
    /// Dropping tells.
    pub(super) fn keep(self, value: T) {
        lock(&self.0).value = Some(value);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let waker = {
            let mut outcome = lock(&self.0);
            outcome.over = true;
            outcome.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Joining<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut outcome = lock(&self.0);
        if outcome.over {
            return Poll::Ready(outcome.value.take());
        }
        outcome.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
