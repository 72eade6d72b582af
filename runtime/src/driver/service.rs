//! The one task a driver has besides its links: the timer, and what callers leave behind.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use commipc_protocol::{Input, Instant, Machine};

use super::{Driver, Sink};
use crate::runtime::BoxFuture;
use crate::sync::lock;

/// Sleeps until the machine's deadline. Re-armed only when that gets earlier, or has fired.
pub(super) struct Service<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    driver: Arc<Driver<M, S>>,
    sleep: Option<(Instant, BoxFuture<'static, ()>)>,
}

/// Timeouts in one poll, before other tasks get their turn.
const TIMEOUTS: usize = 8;

impl<M, S> Service<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    pub(super) fn new(driver: Arc<Driver<M, S>>) -> Self {
        Self { driver, sleep: None }
    }
}

impl<M, S> Future for Service<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for _ in 0..TIMEOUTS {
            let (armed, events, stopped) = lock(&this.driver.core).serve(cx.waker());
            if this.driver.inbox_left.swap(false, Ordering::AcqRel) {
                this.driver.work_inbox(true);
                continue;
            }
            if events {
                this.driver.pump(true, |_, _, _| {});
                continue;
            }
            if stopped {
                return Poll::Ready(());
            }
            let Some(at) = armed else { return Poll::Pending };
            if this.sleep.as_ref().is_none_or(|(until, _)| *until != at) {
                this.sleep = Some((at, this.driver.runtime.sleep_until(at)));
            }
            let Some((_, sleep)) = &mut this.sleep else { return Poll::Pending };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.sleep = None;
            this.driver.pump(true, |core, _, now| {
                core.fired();
                core.machine.handle_input(now, Input::Timeout);
            });
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<M, S> Drop for Service<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    fn drop(&mut self) {
        // The runtime goes: from now on callers deliver the events of their own commands.
        drop(lock(&self.driver.core).stop());
    }
}
