//! The thread that reads: it waits in `poll(2)` until a socket has something, the next deadline has come, or another
//! thread has something for it. It lasts as long as there is a connection or a listener.
//!
//! ```text
//!   callers ──► command ──► machine ──► write at once            this thread ──► poll ──► read ──► machine ──► wake callers
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use commipc_runtime::{BoxFuture, Instant, clock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::waiting;

/// How long it waits at most where nothing can interrupt it.
const UNALARMED: Duration = Duration::from_millis(5);

/// What one thread does for a client or a hub. Clones share the thread.
#[derive(Clone)]
pub(crate) struct Reactor {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Interrupts the waiting: bytes written here are found there. `None` where the system had no more files.
    alarm: Option<(UnixStream, UnixStream)>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Arc<Task>>,
    /// Futures that are not over.
    tasks: usize,
    timers: BTreeMap<(Instant, u64), Waker>,
    last_timer: u64,
    waits: BTreeMap<(RawFd, Direction), (Arc<dyn Source>, Waker)>,
    running: bool,
    /// The thread waits, or is about to.
    asleep: bool,
}

/// A socket that can be waited for.
pub(crate) trait Source: AsFd + Send + Sync + 'static {}

impl<S: AsFd + Send + Sync + 'static> Source for S {}

/// What a socket is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// Bytes, or a connection.
    In,
    /// Room.
    Out,
}

/// A future, polled by the thread.
struct Task {
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    queued: AtomicBool,
    reactor: Reactor,
}

impl Reactor {
    pub(crate) fn new() -> Self {
        let alarm = UnixStream::pair()
            .ok()
            .filter(|(there, here)| there.set_nonblocking(true).is_ok() && here.set_nonblocking(true).is_ok());
        Self { shared: Arc::new(Shared { state: Mutex::default(), alarm }) }
    }

    pub(crate) fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.lock().tasks += 1;
        let task = Task { future: Mutex::new(Some(future)), queued: AtomicBool::new(false), reactor: self.clone() };
        Arc::new(task).wake();
    }

    /// Wakes once when the socket is ready, or broken.
    pub(crate) fn wait(&self, source: &Arc<impl Source>, direction: Direction, waker: &Waker) {
        let mut state = self.lock();
        let key = (source.as_fd().as_raw_fd(), direction);
        let source = Arc::clone(source);
        let old = state.waits.insert(key, (source as Arc<dyn Source>, waker.clone()));
        self.changed(state);
        drop(old);
    }

    /// Nobody waits for a socket any more.
    pub(crate) fn forget(&self, source: RawFd) {
        let mut state = self.lock();
        let gone = [Direction::In, Direction::Out].map(|direction| state.waits.remove(&(source, direction)));
        // Its thread may hold it, and only closes it when it looks.
        self.noticed(state);
        drop(gone);
    }

    pub(crate) fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(Sleep { at, timer: None, reactor: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the thread looks at what was changed.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        if !std::mem::replace(&mut state.running, true) {
            drop(state);
            let me = self.clone();
            thread::spawn(move || me.run());
        } else if std::mem::take(&mut state.asleep) {
            drop(state);
            if let Some((alarm, _)) = &self.shared.alarm {
                // A full pipe wakes as well.
                let _ = (&*alarm).write(&[0]);
            }
        }
    }

    /// As `changed`, but for nothing that a thread would have to be started for.
    fn noticed(&self, state: MutexGuard<'_, State>) {
        if state.running {
            self.changed(state);
        }
    }

    fn run(&self) {
        waiting::forbid();
        loop {
            // Those that were ready, and then sockets and timers, or a task with much to do would keep them waiting.
            let ready = std::mem::take(&mut self.lock().ready);
            ready.into_iter().for_each(Task::run);
            let mut state = self.lock();
            if state.tasks == 0 && state.timers.is_empty() {
                state.running = false;
                return;
            }
            state.asleep = state.ready.is_empty();
            let sources: Vec<_> =
                state.waits.iter().map(|((_, direction), (source, _))| (*direction, Arc::clone(source))).collect();
            let now = clock::monotonic();
            let next = state.timers.first_key_value().map(|((at, _), _)| at.saturating_since(now));
            let timeout = if state.asleep { next } else { Some(Duration::ZERO) };
            drop(state);
            let ready = self.sleep(&sources, timeout);
            self.woken(&ready);
        }
    }

    /// Waits in `poll(2)`; gives the sockets that are ready.
    fn sleep(&self, sources: &[(Direction, Arc<dyn Source>)], timeout: Option<Duration>) -> Vec<(RawFd, Direction)> {
        let flags = |direction| match direction {
            Direction::In => PollFlags::IN,
            Direction::Out => PollFlags::OUT,
        };
        let mut polled: Vec<_> =
            sources.iter().map(|(direction, source)| PollFd::new(source, flags(*direction))).collect();
        polled.extend(self.shared.alarm.iter().map(|(_, alarm)| PollFd::new(alarm, PollFlags::IN)));
        let longest = if self.shared.alarm.is_some() { Duration::MAX } else { UNALARMED };
        let timeout = Timespec::try_from(timeout.unwrap_or(longest).min(longest)).ok();
        // An interruption is a turn without news.
        let _ = poll(&mut polled, timeout.as_ref());
        if let Some((_, alarm)) = &self.shared.alarm {
            while (&*alarm).read(&mut [0; 64]).is_ok_and(|count| count == 64) {}
        }
        let is_ready = |(fd, _): &(&PollFd<'_>, _)| !fd.revents().is_empty();
        let ready = polled.iter().zip(sources).filter(is_ready);
        ready.map(|(_, (direction, source))| (source.as_fd().as_raw_fd(), *direction)).collect()
    }

    fn woken(&self, ready: &[(RawFd, Direction)]) {
        let now = clock::monotonic();
        let mut state = self.lock();
        state.asleep = false;
        let later = state.timers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.timers, later);
        let waits: Vec<_> = ready.iter().filter_map(|key| state.waits.remove(key)).collect();
        drop(state);
        due.into_values().chain(waits.into_iter().map(|(_, waker)| waker)).for_each(Waker::wake);
    }
}

impl Task {
    fn run(self: Arc<Self>) {
        self.queued.store(false, Ordering::Release);
        let mut slot = self.future.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = Waker::from(Arc::clone(&self));
        let Some(mut future) = slot.take() else { return };
        // What panics is over, and nothing else is.
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        if matches!(poll, Ok(Poll::Pending)) {
            *slot = Some(future);
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let reactor = self.reactor.clone();
            let mut state = reactor.lock();
            state.ready.push_back(self);
            reactor.changed(state);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // The future goes before its count, so that what it spawns finds the thread running.
        drop(self.future.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        let mut state = self.reactor.lock();
        state.tasks -= 1;
        if state.tasks == 0 {
            self.reactor.noticed(state);
        }
    }
}

struct Sleep {
    at: Instant,
    timer: Option<u64>,
    reactor: Reactor,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if clock::monotonic() >= self.at {
            return Poll::Ready(());
        }
        let reactor = self.reactor.clone();
        let mut state = reactor.lock();
        let timer = self.timer.unwrap_or(state.last_timer + 1);
        state.last_timer = state.last_timer.max(timer);
        self.timer = Some(timer);
        let old = state.timers.insert((self.at, timer), cx.waker().clone());
        reactor.changed(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let gone = self.reactor.lock().timers.remove(&(self.at, timer));
            drop(gone);
        }
    }
}
