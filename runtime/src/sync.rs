//! Locks and a one-shot result, small enough not to need a dependency.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::runtime::Runtime;

/// Locks, also after a panic elsewhere: what is guarded here is never left half-changed.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs work on a blocking thread. `None` when the runtime drops it, or it panics.
pub(crate) fn blocking<T: Send + 'static>(
    runtime: &dyn Runtime,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Option<T>> + Send {
    offload(|work| runtime.spawn_blocking(work), work)
}

/// Runs work elsewhere, and tells when it is done: `start` is given the work, to be run on another thread. For adapters.
///
/// `None` when the work is dropped, or panics.
pub fn offload<T: Send + 'static>(
    start: impl FnOnce(Box<dyn FnOnce() + Send>),
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Option<T>> + Send {
    let shared = Arc::new(Mutex::new(Slot { value: None, waker: None, over: false }));
    let promise = Promise(Arc::clone(&shared));
    start(Box::new(move || {
        let value = work();
        lock(&promise.0).value = Some(value);
        // Dropping the promise wakes.
    }));
    Promised(shared)
}

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
    over: bool,
}

struct Promise<T>(Arc<Mutex<Slot<T>>>);

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = lock(&self.0);
            slot.over = true;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Promised<T>(Arc<Mutex<Slot<T>>>);

impl<T> Future for Promised<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = lock(&self.0);
        if slot.over {
            return Poll::Ready(slot.value.take());
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
