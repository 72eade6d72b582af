//! Waiting without async: what is awaited elsewhere is waited for here, and streams are iterators.

use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use commipc_runtime::{BoxFuture, offload};
use futures_core::Stream;

thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

/// Forbids this thread to wait: others wait for it.
pub(crate) fn forbid() {
    FORBIDDEN.set(true);
}

/// What can be waited for: everything that is awaited with the other adapters.
pub trait Wait: IntoFuture + Sized {
    /// Does it, and waits for what comes of it.
    ///
    /// # Panics
    /// Inside a handler that is not [`on_thread`]: it would wait for its own thread.
    fn wait(self) -> Self::Output {
        let mut future = pin!(self.into_future());
        let waker = own_waker();
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            thread::park();
        }
    }

    /// Does it, and waits for at most this long. Then it is given up, as if it were dropped: a call is cancelled, an
    /// opening undone.
    ///
    /// # Panics
    /// As [`Wait::wait`].
    fn wait_for(self, time: Duration) -> Option<Self::Output> {
        let started = Instant::now();
        let mut future = pin!(self.into_future());
        let waker = own_waker();
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(output);
            }
            let left = time.saturating_sub(started.elapsed());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }
}

impl<F: IntoFuture> Wait for F {}

/// Streams as iterators: items of an event, broadcasts that are heard, the states of a connection.
pub trait Iterate: Stream + Unpin + Sized {
    /// An iterator that waits for each item. It ends when the stream does; dropping it drops the stream.
    fn into_iter(self) -> IntoIter<Self> {
        IntoIter(self)
    }
}

impl<S: Stream + Unpin> Iterate for S {}

/// See [`Iterate`].
#[derive(Debug)]
#[must_use = "an iterator takes nothing before it is asked"]
pub struct IntoIter<S>(S);

impl<S: Stream + Unpin> Iterator for IntoIter<S> {
    type Item = S::Item;

    fn next(&mut self) -> Option<S::Item> {
        Wait::wait(std::future::poll_fn(|cx| Pin::new(&mut self.0).poll_next(cx)))
    }
}

/// An iterator as a stream: what an event answers with, or what is sent along with an exchange. Its `next` is called by
/// the thread that reads, and must not wait for anything.
pub fn each<I: IntoIterator>(items: I) -> Each<I::IntoIter> {
    Each(items.into_iter())
}

/// See [`each`].
#[derive(Debug)]
pub struct Each<I>(I);

// Never pinned: the iterator is only called.
impl<I> Unpin for Each<I> {}

impl<I: Iterator> Stream for Each<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

/// What a handler returns that runs on a thread.
pub type OnThread<R> = BoxFuture<'static, R>;

/// A handler that may wait, for `provide`, `on` and wherever else a handler is wanted: each request runs on a thread of its
/// own. When its caller gives up, the thread goes on, and its answer goes nowhere.
pub fn on_thread<A, R>(
    handler: impl Fn(A) -> R + Send + Sync + 'static,
) -> impl Fn(A) -> OnThread<R> + Send + Sync + 'static
where
    A: Send + 'static,
    R: Send + 'static,
{
    let handler = Arc::new(handler);
    move |argument| {
        let handler = Arc::clone(&handler);
        Box::pin(async move {
            let run = move || catch_unwind(AssertUnwindSafe(|| handler(argument)));
            match offload(start, run).await {
                Some(Ok(result)) => result,
                // A panic is the handler's, wherever it ran.
                Some(Err(panic)) => resume_unwind(panic),
                None => resume_unwind(Box::new("there was no thread for the handler")),
            }
        })
    }
}

/// Starts work on a thread of its own.
pub(crate) fn start(work: Box<dyn FnOnce() + Send>) {
    // Where the system has no thread, the work is dropped, which tells whoever waits for it.
    let _ = thread::Builder::new().spawn(work);
}

fn own_waker() -> Waker {
    assert!(!FORBIDDEN.get(), "a handler that waits would wait for its own thread: make it `on_thread`");
    Waker::from(Arc::new(Unpark(thread::current())))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
