//! What waits for one listener, and what becomes of what does not fit.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use commipc_protocol::Instant;
use commipc_protocol::client::{self, Event, Failure, Incoming, Token};

use super::brake::Brake;
use crate::error::ListenError;
use crate::sync::lock;

/// Messages that wait for one listener, unless it says otherwise.
pub const QUEUE_MAX: usize = 1_024;

/// What becomes of messages that come faster than their listener takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// Nothing is dropped, and the whole connection waits instead: nothing is read from it while the queue is full, so that
    /// answers, requests, items and other listeners' messages wait as well, and with them everybody who waits for those.
    ///
    /// That bridges a burst and no more, since the hub keeps only so much for a connection: after [`BLOCK_MAX`] without
    /// room the listener ends as with [`Overflow::Disconnect`], and the connection goes on. A listener that waits for an
    /// answer on its own connection with a full queue waits for itself, until then. What the connection had read before the
    /// queue was full is kept beyond its length.
    ///
    /// [`BLOCK_MAX`]: crate::BLOCK_MAX
    Block,
    /// The message that waits for longest.
    #[default]
    DropOldest,
    /// The one that comes.
    DropNewest,
    /// Only the newest message waits, however long the queue may be: for what replaces what was said before.
    Latest,
    /// The listener ends after what waits, with [`ListenError::TooSlow`]: for whom a gap is worse than an end.
    Disconnect,
}

/// What waits for one listener.
pub(crate) struct Queue {
    overflow: Overflow,
    length: usize,
    brake: Arc<Brake>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Next>,
    /// What is to be told with the next message that comes.
    before: Loss,
    end: Option<ListenError>,
    /// The connection waits for room here.
    holds: bool,
    waker: Option<Waker>,
}

/// What comes out of a queue.
pub(super) struct Next {
    pub(super) incoming: Incoming,
    pub(super) number: u64,
    pub(super) before: Loss,
}

/// What is missing before a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// Dropped here.
    pub(super) missed: u64,
    /// Never came, though it was said.
    pub(super) lost: u64,
}

impl Loss {
    pub(super) const fn add(&mut self, other: Self) {
        self.missed = self.missed.saturating_add(other.missed);
        self.lost = self.lost.saturating_add(other.lost);
    }
}

impl Queue {
    pub(super) fn new(overflow: Overflow, length: usize, brake: &Arc<Brake>) -> Arc<Self> {
        let length = if overflow == Overflow::Latest { 1 } else { length };
        Arc::new(Self { overflow, length, brake: Arc::clone(brake), waiting: Mutex::default() })
    }

    /// Takes a message in, and those at the front of `more` that are for the same listener, or does what is to be done when
    /// there is no room for it. `now` is asked only if the connection is to wait.
    pub(super) fn push(
        self: &Arc<Self>,
        message: client::Message,
        more: &mut VecDeque<Event>,
        now: impl FnOnce() -> Instant,
    ) {
        let to = message.to;
        let mut dropped = Vec::new();
        let waker = {
            let mut waiting = lock(&self.waiting);
            let mut next = Some(message);
            while let Some(message) = next {
                dropped.extend(waiting.offer(message.message, message.number, self.overflow, self.length));
                next = next_to(more, to);
            }
            let full = waiting.messages.len() >= self.length && waiting.end.is_none();
            if self.overflow == Overflow::Block && full && !mem::replace(&mut waiting.holds, true) {
                self.brake.hold(self, now());
            }
            waiting.waker.take()
        };
        // Whatever their bytes lie in is given back without the lock.
        drop(dropped);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Broadcasts are missing before the next message, if one comes.
    pub(super) fn lost(&self, count: u64) {
        lock(&self.waiting).before.add(Loss { missed: 0, lost: count });
    }

    /// Nothing comes after what waits.
    pub(super) fn close(&self, why: Failure) {
        self.end(ListenError::Failed(why));
    }

    /// The connection has waited for too long.
    pub(super) fn overdue(&self) {
        self.end(ListenError::TooSlow(self.length));
    }

    fn end(&self, why: ListenError) {
        let waker = {
            let mut waiting = lock(&self.waiting);
            waiting.end.get_or_insert(why);
            self.let_go(&mut waiting);
            waiting.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Nobody takes what waits.
    pub(super) fn discard(&self) {
        let _dropped = {
            let mut waiting = lock(&self.waiting);
            waiting.end.get_or_insert(ListenError::TooSlow(self.length));
            self.let_go(&mut waiting);
            mem::take(&mut waiting.messages)
        };
    }

    /// The next message, or `None` when nothing comes any more.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Next>> {
        let mut waiting = lock(&self.waiting);
        if let Some(next) = waiting.messages.pop_front() {
            if waiting.messages.len() < self.length {
                self.let_go(&mut waiting);
            }
            return Poll::Ready(Some(next));
        }
        if waiting.end.is_some() {
            return Poll::Ready(None);
        }
        if !waiting.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            waiting.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn ended(&self) -> Option<ListenError> {
        lock(&self.waiting).end.clone()
    }

    /// What is missing that no message taken out has told of.
    pub(super) fn untold(&self) -> Loss {
        let waiting = lock(&self.waiting);
        let mut untold = waiting.before;
        waiting.messages.iter().for_each(|next| untold.add(next.before));
        untold
    }

    fn let_go(&self, waiting: &mut Waiting) {
        if mem::take(&mut waiting.holds) {
            self.brake.release(self);
        }
    }
}

/// The next event, if it is a message for the same listener.
fn next_to(events: &mut VecDeque<Event>, to: Token) -> Option<client::Message> {
    if !matches!(events.front(), Some(Event::Message(message)) if message.to == to) {
        return None;
    }
    if let Some(Event::Message(message)) = events.pop_front() { Some(message) } else { None }
}

impl Waiting {
    /// Gives back what is to be dropped without the lock.
    fn offer(&mut self, incoming: Incoming, number: u64, overflow: Overflow, length: usize) -> Option<Incoming> {
        if self.end.is_some() {
            self.before.missed += 1;
            return Some(incoming);
        }
        let mut dropped = None;
        if self.messages.len() >= length {
            match overflow {
                Overflow::Block => {}
                Overflow::DropOldest | Overflow::Latest => dropped = self.drop_oldest(),
                Overflow::DropNewest => {
                    self.before.missed += 1;
                    return Some(incoming);
                }
                Overflow::Disconnect => {
                    self.before.missed += 1;
                    self.end = Some(ListenError::TooSlow(length));
                    return Some(incoming);
                }
            }
        }
        self.messages.push_back(Next { incoming, number, before: mem::take(&mut self.before) });
        dropped
    }

    fn drop_oldest(&mut self) -> Option<Incoming> {
        let Next { incoming, number: _, mut before } = self.messages.pop_front()?;
        before.missed += 1;
        self.messages.front_mut().map_or(&mut self.before, |next| &mut next.before).add(before);
        Some(incoming)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use commipc_protocol::client::{Payload, Source};
    use commipc_protocol::{Address, ChannelName, ClientId, EventName, HubId, UnixMillis};

    fn message(to: u64, number: u64) -> client::Message {
        let sender = Address { client: ClientId::new("me").unwrap(), hub: HubId::new("hub").unwrap() };
        let (channel, event) = (ChannelName::new("math").unwrap(), EventName::new("news").unwrap());
        let incoming = Incoming {
            source: Arc::new(Source { channel, event, sender, path: Vec::new() }),
            payload: Payload { bytes: Bytes::new(), raw: true },
            metadata: Bytes::new(),
            sent_at: UnixMillis(0),
            hops: 1,
        };
        client::Message { to: Token(to), message: incoming, number }
    }

    /// Numbers of all that waits, each with how many were missed before it.
    fn drain(queue: &Queue) -> Vec<(u64, u64)> {
        let cx = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match queue.poll(&cx) {
            Poll::Ready(Some(next)) => Some((next.number, next.before.missed)),
            Poll::Ready(None) | Poll::Pending => None,
        })
        .collect()
    }

    #[test]
    fn messages_in_a_row_are_taken_over_at_once_and_no_others() {
        let queue = Queue::new(Overflow::DropOldest, 2, &Arc::default());
        let mut more: VecDeque<Event> = [(1, 2), (1, 3), (2, 4), (1, 5)]
            .into_iter()
            .map(|(to, number)| Event::Message(message(to, number)))
            .collect();
        queue.push(message(1, 1), &mut more, || Instant::ZERO);
        assert_eq!(more.len(), 2);
        assert!(matches!(more.front(), Some(Event::Message(message)) if message.number == 4));
        assert_eq!(drain(&queue), [(2, 1), (3, 0)], "of three the oldest had to go");
    }
}
