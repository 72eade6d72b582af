//! What a client tells everybody who wants to hear all of a kind: bounded, told what did not fit, free while nobody does.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use commipc_protocol::ChannelName;

use super::queue::QUEUE_MAX;
use crate::sync::lock;

/// Where one kind of thing is told.
pub(super) struct Outlets<T> {
    /// Whether anybody hears it, told without the lock.
    wanted: AtomicBool,
    state: Mutex<Open<T>>,
}

struct Open<T> {
    list: Vec<Weak<Flow<T>>>,
    closed: bool,
}

impl<T> Default for Outlets<T> {
    fn default() -> Self {
        Self { wanted: AtomicBool::new(false), state: Mutex::new(Open { list: Vec::new(), closed: false }) }
    }
}

impl<T: Clone> Outlets<T> {
    /// Whether anybody would hear what is told.
    pub(super) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Hears everything from now on, or what concerns one channel.
    pub(super) fn open(self: &Arc<Self>, only: Option<ChannelName>) -> Outlet<T> {
        let flow = Arc::new(Flow { only, state: Mutex::default() });
        let mut open = lock(&self.state);
        if open.closed {
            lock(&flow.state).closed = true;
        } else {
            open.list.push(Arc::downgrade(&flow));
            self.wanted.store(true, Ordering::Release);
        }
        Outlet { flow, all: Arc::clone(self) }
    }

    pub(super) fn tell(&self, channel: Option<&ChannelName>, item: &T) {
        for flow in self.living() {
            if flow.only.as_ref().is_none_or(|only| Some(only) == channel) {
                flow.push(item.clone());
            }
        }
    }

    /// Nothing is told any more.
    pub(super) fn close(&self) {
        let living = self.living();
        {
            let mut open = lock(&self.state);
            open.closed = true;
            open.list.clear();
            self.wanted.store(false, Ordering::Release);
        }
        living.iter().for_each(|flow| flow.close());
    }

    /// How many hear.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).list.len()
    }

    fn living(&self) -> Vec<Arc<Flow<T>>> {
        lock(&self.state).list.iter().filter_map(Weak::upgrade).collect()
    }
}

/// What waits for one who hears.
struct Flow<T> {
    only: Option<ChannelName>,
    state: Mutex<Waiting<T>>,
}

struct Waiting<T> {
    /// Each with how many were dropped before it.
    items: VecDeque<(T, u64)>,
    length: usize,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), length: QUEUE_MAX, missed: 0, closed: false, waker: None }
    }
}

impl<T> Flow<T> {
    /// At most so many wait; of more the oldest is dropped.
    fn push(&self, item: T) {
        let (waker, _dropped) = {
            let mut waiting = lock(&self.state);
            let dropped = if waiting.items.len() >= waiting.length { waiting.items.pop_front() } else { None };
            if let Some((_, before)) = &dropped {
                let missed = before + 1;
                match waiting.items.front_mut() {
                    Some((_, next)) => *next += missed,
                    None => waiting.missed += missed,
                }
            }
            let missed = mem::take(&mut waiting.missed);
            waiting.items.push_back((item, missed));
            (waiting.waker.take(), dropped)
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        let waker = {
            let mut waiting = lock(&self.state);
            waiting.closed = true;
            waiting.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Hears what is told, until it is dropped.
pub(super) struct Outlet<T> {
    flow: Arc<Flow<T>>,
    all: Arc<Outlets<T>>,
}

impl<T> Outlet<T> {
    pub(super) fn set_length(&self, length: usize) {
        lock(&self.flow.state).length = length.max(1);
    }

    /// The next thing and how many were dropped before it; `None` when nothing comes any more.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Option<(T, u64)>> {
        let mut waiting = lock(&self.flow.state);
        if let Some(next) = waiting.items.pop_front() {
            return Poll::Ready(Some(next));
        }
        if waiting.closed {
            return Poll::Ready(None);
        }
        if !waiting.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            waiting.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<T> Drop for Outlet<T> {
    fn drop(&mut self) {
        let mut open = lock(&self.all.state);
        open.list.retain(|flow| !std::ptr::eq(flow.as_ptr(), &raw const *self.flow));
        self.all.wanted.store(!open.list.is_empty(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(outlet: &Outlet<u8>) -> Option<(u8, u64)> {
        match outlet.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => next,
            Poll::Pending => panic!("nothing is there"),
        }
    }

    #[test]
    fn nothing_is_wanted_before_the_first_and_after_the_last() {
        let outlets = Arc::<Outlets<u8>>::default();
        assert!(!outlets.are_wanted());
        let (one, two) = (outlets.open(None), outlets.open(None));
        outlets.tell(None, &1);
        assert_eq!((take(&one), take(&two)), (Some((1, 0)), Some((1, 0))));
        drop(one);
        assert!(outlets.are_wanted());
        drop(two);
        assert!(!outlets.are_wanted());
    }

    #[test]
    fn what_was_dropped_is_told_before_what_came_after_it() {
        let outlets = Arc::<Outlets<u8>>::default();
        let outlet = outlets.open(None);
        outlet.set_length(2);
        for item in 0..5 {
            outlets.tell(None, &item);
        }
        assert_eq!(take(&outlet), Some((3, 3)));
        outlets.tell(None, &5);
        outlets.tell(None, &6);
        assert_eq!((take(&outlet), take(&outlet)), (Some((5, 1)), Some((6, 0))));
        outlets.close();
        assert_eq!(take(&outlet), None);
        assert_eq!(take(&outlets.open(None)), None);
    }
}
