//! Accept loops: one task a listener, which no error of the system ends.

use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use commipc_protocol::{Input, Instant, Machine};
use rustix::io::Errno;

use super::{Driver, Sink};
use crate::runtime::{Acceptor, BoxFuture};
use crate::sync::lock;

/// Whether connections are still taken, and whom to tell when that ends.
#[derive(Default)]
pub(super) struct Accepting {
    over: AtomicBool,
    loops: Mutex<Loops>,
}

#[derive(Default)]
struct Loops {
    /// Listeners that are open.
    count: usize,
    /// Of the loops, which are to end.
    wakers: Vec<Waker>,
    /// Of those who wait until the last one has ended.
    waiting: Vec<Waker>,
}

impl Accepting {
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Release);
        let wakers = mem::take(&mut lock(&self.loops).wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ready when every listener is closed.
    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut loops = lock(&self.loops);
        if loops.count == 0 {
            return Poll::Ready(());
        }
        if !loops.waiting.iter().any(|known| known.will_wake(cx.waker())) {
            loops.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Takes connections from one listener.
pub(super) struct AcceptLoop<M: Machine, S> {
    acceptor: Box<dyn Acceptor>,
    registered: bool,
    failures: u32,
    warned: Option<Instant>,
    pause: Option<BoxFuture<'static, ()>>,
    driver: Arc<Driver<M, S>>,
    /// Goes last, when the listener is closed.
    _counted: Counted<M, S>,
}

/// One of the loops of a driver.
struct Counted<M: Machine, S>(Arc<Driver<M, S>>);

impl<M: Machine, S> Counted<M, S> {
    fn new(driver: &Arc<Driver<M, S>>) -> Self {
        lock(&driver.accepting.loops).count += 1;
        Self(Arc::clone(driver))
    }
}

impl<M: Machine, S> Drop for Counted<M, S> {
    fn drop(&mut self) {
        let waiting = {
            let mut loops = lock(&self.0.accepting.loops);
            loops.count -= 1;
            if loops.count == 0 { mem::take(&mut loops.waiting) } else { Vec::new() }
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Connections taken in one poll, before other tasks get their turn.
const ACCEPTS: usize = 16;
/// The first pause after an error, doubled with each further one up to the longest: who waits outside is let in soon after
/// there is room again.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How often errors are worth a word.
const WARNINGS: Duration = Duration::from_secs(1);

impl<M, S> AcceptLoop<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    pub(super) fn new(driver: Arc<Driver<M, S>>, acceptor: Box<dyn Acceptor>) -> Self {
        let counted = Counted::new(&driver);
        Self { acceptor, registered: false, failures: 0, warned: None, pause: None, driver, _counted: counted }
    }

    fn failed(&mut self, error: &io::Error) {
        // The connection was gone before it was taken; the listener is well.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected
                | io::ErrorKind::Interrupted
        ) {
            return;
        }
        if is_shortage(error) {
            self.driver.pump(true, |core, round, now| {
                core.end_lingering(0, round);
                core.machine.handle_input(now, Input::Shortage);
            });
        }
        let pause = PAUSE.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        let now = self.driver.runtime.now();
        if self.warned.is_none_or(|warned| warned + WARNINGS <= now) {
            self.warned = Some(now);
            tracing::warn!(listener = %self.acceptor.local(), %error, "cannot take a connection; trying again");
        }
        self.pause = Some(self.driver.runtime.sleep_until(now + pause));
    }
}

impl<M, S> Future for AcceptLoop<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if !mem::replace(&mut this.registered, true) {
            lock(&this.driver.accepting.loops).wakers.push(cx.waker().clone());
        }
        for _ in 0..ACCEPTS {
            if this.driver.accepting.is_over() {
                return Poll::Ready(());
            }
            if let Some(pause) = &mut this.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.pause = None;
            }
            match this.acceptor.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => this.failed(&error),
                Poll::Ready(Ok(connection)) => {
                    this.failures = 0;
                    this.driver.attach(connection);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whether the system has no files or no memory for another connection.
fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
