//! The task of one link: reads, waits for what its socket refused, and sees the link to its end.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use commipc_protocol::{Input, Instant, LinkEnd, Machine};

use super::core::{BLOCKED, BRIEF, BROKEN, CLOSING, FLUSHED, KILLED, Wire};
use super::{Driver, Sink};
use crate::buffers;
use crate::runtime::BoxFuture;

/// Reads one link until it ends. Dropped midway (the runtime goes), it reports the link as broken.
pub(super) struct LinkTask<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    driver: Arc<Driver<M, S>>,
    wire: Arc<Wire>,
    waker: Option<Waker>,
    /// The inbox is claimed: callers that were served add their next commands, to be written all at once.
    collecting: bool,
    linger: Option<BoxFuture<'static, ()>>,
    /// The application reads no more until then.
    hold: Option<(Instant, BoxFuture<'static, ()>)>,
    over: bool,
}

/// Reads in one poll, before other tasks get their turn.
const READS: usize = 8;
/// How long a closed link may take to write its rest and to see the peer close too.
const LINGER: Duration = Duration::from_secs(5);
/// Undelivered events at which reading waits for the task that delivers.
const BACKLOG: usize = 1_024;

type Step = ControlFlow<Poll<()>>;

impl<M, S> LinkTask<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    pub(super) fn new(driver: Arc<Driver<M, S>>, wire: Arc<Wire>) -> Self {
        Self { driver, wire, waker: None, collecting: false, linger: None, hold: None, over: false }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        let flags = self.wire.flags.load(Ordering::Acquire);
        if flags & KILLED != 0 {
            return self.end(None);
        }
        if flags & BLOCKED != 0 {
            match self.wire.transport.poll_writable(cx) {
                Poll::Ready(Ok(())) => {
                    let id = self.wire.id;
                    self.driver.pump(true, |core, round, _| core.unblock(id, round));
                    return Step::Continue(());
                }
                Poll::Ready(Err(_)) => return self.end(Some(LinkEnd::Reset)),
                Poll::Pending => {}
            }
        }
        if flags & CLOSING != 0 {
            return self.step_closing(cx, flags);
        }
        if self.is_held(cx) {
            return Step::Break(Poll::Pending);
        }
        match self.wire.transport.poll_readable(cx) {
            Poll::Ready(Ok(())) => self.read(cx),
            Poll::Ready(Err(_)) => self.end(Some(LinkEnd::Reset)),
            Poll::Pending if flags & BROKEN != 0 => self.end(Some(LinkEnd::Reset)),
            Poll::Pending => Step::Break(Poll::Pending),
        }
    }

    /// Whether the application is to have room first. Looks again when it has, and when it may wait no longer.
    fn is_held(&mut self, cx: &mut Context<'_>) -> bool {
        let runtime = self.driver.runtime();
        while let Some(until) = self.driver.sink().held(&**runtime, cx.waker()) {
            if self.hold.as_ref().is_none_or(|(at, _)| *at != until) {
                self.hold = Some((until, runtime.sleep_until(until)));
            }
            if self.hold.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_pending()) {
                return true;
            }
            self.hold = None;
        }
        self.hold = None;
        false
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Step {
        let mut buffer = buffers::take();
        let count = match self.wire.transport.try_read(&mut buffer) {
            Ok(0) => return self.end(Some(LinkEnd::Eof)),
            Ok(count) => count,
            Err(e) if is_transient(&e) => {
                buffers::give(buffer);
                return Step::Continue(());
            }
            Err(_) => return self.end(Some(LinkEnd::Reset)),
        };
        let claimed = self.driver.claim_inbox();
        let whole = buffer.freeze();
        let (link, data) = (self.wire.id, whole.slice(..count));
        let progress = self.driver.pump(true, |core, _, now| {
            core.machine.handle_input(now, Input::Received { link, data });
        });
        if let Ok(buffer) = whole.try_into_mut() {
            buffers::give(buffer);
        }
        if claimed && progress.served > 1 {
            // Those served run before this task's next turn, which writes all they ask for at once.
            self.collecting = true;
            cx.waker().wake_by_ref();
            return Step::Break(Poll::Pending);
        }
        if claimed && !self.driver.release_inbox() {
            self.driver.work_inbox(true);
        }
        if progress.backlog > BACKLOG && crate::sync::lock(&self.driver.core).pause(cx.waker()) {
            return Step::Break(Poll::Pending);
        }
        Step::Continue(())
    }

    /// The machine has closed the link: write the rest, say so, and where it is worth it wait a while for the peer, since
    /// closing with unread bytes could destroy what it has not read yet.
    fn step_closing(&mut self, cx: &mut Context<'_>, flags: u8) -> Step {
        if flags & (BRIEF | FLUSHED) == BRIEF | FLUSHED {
            // What is there already is read in any case: most likely that is all.
            if let Poll::Ready(Ok(())) = self.wire.transport.poll_readable(cx) {
                let _ = self.read_unwanted();
            }
            return self.end(None);
        }
        let driver = &self.driver;
        let linger = self.linger.get_or_insert_with(|| driver.runtime.sleep_until(driver.runtime.now() + LINGER));
        if linger.as_mut().poll(cx).is_ready() || flags & BROKEN != 0 {
            return self.end(None);
        }
        if flags & FLUSHED != 0 {
            self.wire.transport.shutdown();
        }
        match self.wire.transport.poll_readable(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return self.end(None),
            Poll::Pending => return Step::Break(Poll::Pending),
        }
        match self.read_unwanted() {
            // The peer has said all it had to say, but may still be reading.
            Ok(0) if flags & FLUSHED == 0 => Step::Break(Poll::Pending),
            Ok(0) => self.end(None),
            Ok(_) => Step::Continue(()),
            Err(e) if is_transient(&e) => Step::Continue(()),
            Err(_) => self.end(None),
        }
    }

    fn read_unwanted(&self) -> io::Result<usize> {
        let mut unwanted = buffers::take();
        let result = self.wire.transport.try_read(&mut unwanted);
        buffers::give(unwanted);
        result
    }

    fn end(&mut self, how: Option<LinkEnd>) -> Step {
        if !std::mem::replace(&mut self.over, true) {
            let id = self.wire.id;
            self.wire.transport.shutdown();
            self.driver.pump(true, |core, round, now| core.ended(id, how, round, now));
            self.feed_collected();
        }
        Step::Break(Poll::Ready(()))
    }

    fn feed_collected(&mut self) {
        if std::mem::take(&mut self.collecting) {
            self.driver.work_inbox(true);
        }
    }

    fn register(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.driver.register(self.wire.id, cx.waker());
            self.waker = Some(cx.waker().clone());
        }
    }
}

impl<M, S> Future for LinkTask<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(());
        }
        this.register(cx);
        this.feed_collected();
        for _ in 0..READS {
            if let Step::Break(poll) = this.step(cx) {
                ready!(poll);
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<M, S> Drop for LinkTask<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    fn drop(&mut self) {
        if !self.over {
            let _ = self.end(Some(LinkEnd::Reset));
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
