//! Lets a connection wait for listeners that lose nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::time::Duration;

use commipc_protocol::Instant;

use super::queue::Queue;
use crate::sync::lock;

/// How long a connection waits for a listener with [`Overflow::Block`](crate::Overflow::Block) whose queue is full. Half of
/// what a hub waits by default for a connection that takes nothing ([`Limits::write`](crate::Limits::write)).
pub const BLOCK_MAX: Duration = Duration::from_secs(5);

/// The queues that a connection waits for.
#[derive(Default)]
pub(crate) struct Brake {
    /// Whether there are any, told without the lock.
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    full: Vec<(Instant, Weak<Queue>)>,
    waker: Option<Waker>,
}

impl Brake {
    /// Nothing is to be read until there is room in the queue.
    pub(super) fn hold(&self, queue: &Arc<Queue>, now: Instant) {
        let mut state = lock(&self.state);
        state.full.push((now + BLOCK_MAX, Arc::downgrade(queue)));
        self.on.store(true, Ordering::Release);
    }

    /// There is room in the queue, or nobody takes anything from it any more.
    pub(super) fn release(&self, queue: &Queue) {
        let waker = {
            let mut state = lock(&self.state);
            state.full.retain(|(_, full)| !std::ptr::eq(full.as_ptr(), queue));
            if state.full.is_empty() {
                self.on.store(false, Ordering::Release);
                state.waker.take()
            } else {
                None
            }
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// How many queues the connection waits for.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).full.len()
    }

    /// Until when nothing is to be read, unless `waker` is woken before. Ends listeners that were waited for too long.
    pub(super) fn held(&self, waker: &Waker, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if !self.on.load(Ordering::Acquire) {
            return None;
        }
        let now = now();
        let (overdue, until) = {
            let mut state = lock(&self.state);
            let overdue: Vec<_> = state.full.extract_if(.., |(until, _)| *until <= now).collect();
            let until = state.full.iter().map(|(until, _)| *until).min();
            self.on.store(until.is_some(), Ordering::Release);
            state.waker = until.map(|_| waker.clone());
            (overdue, until)
        };
        for queue in overdue.iter().filter_map(|(_, queue)| queue.upgrade()) {
            queue.overdue();
        }
        until
    }
}
