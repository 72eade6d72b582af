//! Listeners: one queue each, in order, and never silent about what did not fit.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::mem;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use commipc_protocol::client::{self, Command, Event, Incoming, Payload, Source, Token};
use commipc_protocol::{Address, ChannelName, EventName, UnixMillis};
use futures_core::Stream;
use serde::de::DeserializeOwned;

use super::channel::ChannelHandle;
use super::desk::Undo;
use crate::payload;
use crate::sync::lock;

/// Messages that wait for one listener, beside a few that it has taken over already. At more, the oldest is dropped and
/// counted.
pub const QUEUE_MAX: usize = 1_024;

/// What waits for one listener.
pub(crate) struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    messages: VecDeque<(Incoming, u64)>,
    missed: u64,
    /// Broadcasts that never came, told of since the last message.
    lost: u64,
    closed: bool,
    waker: Option<Waker>,
}

/// What a listener has taken out of its queue: several messages at a time.
#[derive(Default)]
struct Taken {
    messages: VecDeque<(Incoming, u64)>,
    /// What was dropped, and what never came, before the first of them.
    missed: u64,
    lost: u64,
}

/// Messages taken out of a queue at a time.
const TAKEN: usize = 32;

impl Queue {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Adds a message, and those at the front of `more` that are for the same listener.
    pub(super) fn push(&self, message: client::Message, more: &mut VecDeque<Event>) {
        let to = message.to;
        let mut dropped = Vec::new();
        let waker = {
            let mut waiting = lock(&self.0);
            let mut next = Some(message);
            while let Some(message) = next {
                if waiting.messages.len() >= QUEUE_MAX {
                    dropped.extend(waiting.messages.pop_front());
                }
                waiting.messages.push_back((message.message, message.number));
                next = next_to(more, to);
            }
            waiting.missed += dropped.len() as u64;
            waiting.waker.take()
        };
        // Whatever their bytes lie in is given back without the lock.
        drop(dropped);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Broadcasts are missing before the next message, if one comes.
    pub(super) fn lost(&self, count: u64) {
        let mut waiting = lock(&self.0);
        waiting.lost = waiting.lost.saturating_add(count);
    }

    pub(super) fn close(&self) {
        let waker = {
            let mut waiting = lock(&self.0);
            waiting.closed = true;
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next message: of those taken already, or of the next ones, which are taken then.
    fn poll(&self, taken: &mut Taken, cx: &Context<'_>) -> Poll<Option<(Incoming, u64)>> {
        if let Some(next) = taken.messages.pop_front() {
            return Poll::Ready(Some(next));
        }
        let mut waiting = lock(&self.0);
        if let Some(next) = waiting.messages.pop_front() {
            let count = waiting.messages.len().min(TAKEN - 1);
            taken.messages.extend(waiting.messages.drain(..count));
            taken.missed += mem::take(&mut waiting.missed);
            taken.lost += mem::take(&mut waiting.lost);
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

/// The next event, if it is a message for the same listener.
fn next_to(events: &mut VecDeque<Event>, to: Token) -> Option<client::Message> {
    if !matches!(events.front(), Some(Event::Message(message)) if message.to == to) {
        return None;
    }
    if let Some(Event::Message(message)) = events.pop_front() { Some(message) } else { None }
}

/// Turns payloads into what a listener hands out.
type Decode<T> = fn(Payload) -> Option<T>;

/// The broadcasts of one event, or of all events of a channel, in the order they came.
///
/// Ends when the connection does. At most [`QUEUE_MAX`] messages wait, beside a few that were taken over already; then the oldest is dropped, and the next message
/// tells how many were [`missed`](Message::missed). Dropping the listener stops listening.
#[must_use = "a listener that is dropped hears nothing"]
pub struct Listener<T> {
    queue: Arc<Queue>,
    token: Token,
    channel: Arc<ChannelHandle>,
    decode: Decode<T>,
    taken: Taken,
    unreadable: u64,
    marker: PhantomData<fn() -> T>,
}

impl<T> Listener<T> {
    /// Waits for the next message; `None` when the connection is over.
    ///
    /// Cancel safe: a message is either returned or still there.
    pub async fn next(&mut self) -> Option<Message<T>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Polls for the next message, for hand-written futures.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message<T>>> {
        loop {
            let Poll::Ready(next) = self.queue.poll(&mut self.taken, cx) else { return Poll::Pending };
            let Some((incoming, number)) = next else { return Poll::Ready(None) };
            let Incoming { source, payload, metadata, sent_at, hops } = incoming;
            let Some(value) = (self.decode)(payload) else {
                let Source { channel, event, sender } = &*source;
                tracing::debug!(%channel, %event, %sender, "a message is not of the type that is listened for");
                self.unreadable += 1;
                continue;
            };
            let (missed, lost) = (mem::take(&mut self.taken.missed), mem::take(&mut self.taken.lost));
            let unreadable = mem::take(&mut self.unreadable);
            let about = MessageAbout { source, metadata, sent_at, hops, number, missed, lost, unreadable };
            return Poll::Ready(Some(Message { value, about }));
        }
    }

    pub(super) fn new(queue: Arc<Queue>, token: Token, channel: Arc<ChannelHandle>, decode: Decode<T>) -> Self {
        Self { queue, token, channel, decode, taken: Taken::default(), unreadable: 0, marker: PhantomData }
    }
}

pub(super) fn decode_value<T: DeserializeOwned>(payload: Payload) -> Option<T> {
    payload::decode(&payload).ok()
}

pub(super) fn decode_raw(payload: Payload) -> Option<Bytes> {
    payload::raw(payload).ok()
}

impl<T> Stream for Listener<T> {
    type Item = Message<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message<T>>> {
        self.get_mut().poll_message(cx)
    }
}

impl<T> Drop for Listener<T> {
    fn drop(&mut self) {
        let driver = self.channel.driver();
        let token = lock(driver.sink().tickets()).abandoned(Undo::Release(self.token));
        let target = lock(driver.sink().tickets()).disconnect(self.token);
        driver.issue(Command::Unlisten { token, listener: self.token });
        drop(target);
    }
}

impl<T> fmt::Debug for Listener<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("token", &self.token).finish_non_exhaustive()
    }
}

/// A broadcast that was heard. Dereferences to its value.
pub struct Message<T> {
    value: T,
    about: MessageAbout,
}

struct MessageAbout {
    source: Arc<Source>,
    metadata: Bytes,
    sent_at: UnixMillis,
    hops: u8,
    number: u64,
    missed: u64,
    lost: u64,
    unreadable: u64,
}

impl<T> Message<T> {
    /// The value alone.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &ChannelName {
        &self.about.source.channel
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &EventName {
        &self.about.source.event
    }

    /// Who says it: its id and its hub.
    #[must_use]
    pub fn sender(&self) -> &Address {
        &self.about.source.sender
    }

    /// The sender's metadata, a CBOR map as bytes, or empty.
    #[must_use]
    pub const fn metadata(&self) -> &Bytes {
        &self.about.metadata
    }

    /// When it was said, by the sender's wall clock.
    #[must_use]
    pub const fn sent_at(&self) -> UnixMillis {
        self.about.sent_at
    }

    /// How many hubs it passed.
    #[must_use]
    pub const fn hops(&self) -> u8 {
        self.about.hops
    }

    /// The sender's count of its broadcasts of this event: dense, so that a gap shows what was lost on the way.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.about.number
    }

    /// How many messages were dropped just before this one, because this listener was too slow.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.about.missed
    }

    /// How many broadcasts never came that were made before this one: on a protected channel their senders' numbers tell,
    /// and a hub that holds something back is found out within seconds. Always 0 on an unprotected channel.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.about.lost
    }

    /// How many messages just before this one were not of the type that is listened for.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.about.unreadable
    }
}

impl<T> Deref for Message<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("channel", self.channel())
            .field("event", self.event())
            .field("sender", self.sender())
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commipc_protocol::{ClientId, HubId};
    use std::task::Waker;

    fn message(to: u64, number: u64) -> client::Message {
        let sender = Address { client: ClientId::new("me").unwrap(), hub: HubId::new("hub").unwrap() };
        let (channel, event) = (ChannelName::new("math").unwrap(), EventName::new("news").unwrap());
        let incoming = Incoming {
            source: Arc::new(Source { channel, event, sender }),
            payload: Payload { bytes: Bytes::new(), raw: true },
            metadata: Bytes::new(),
            sent_at: UnixMillis(0),
            hops: 1,
        };
        client::Message { to: Token(to), message: incoming, number }
    }

    /// Numbers of all that waits, each with how many were missed before it.
    fn drain(queue: &Queue, taken: &mut Taken) -> Vec<(u64, u64)> {
        let cx = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match queue.poll(taken, &cx) {
            Poll::Ready(Some((_, number))) => Some((number, mem::take(&mut taken.missed))),
            Poll::Ready(None) | Poll::Pending => None,
        })
        .collect()
    }

    #[test]
    fn messages_in_a_row_are_taken_over_at_once_and_no_others() {
        let queue = Queue::new();
        let mut more: VecDeque<Event> = [(1, 2), (1, 3), (2, 4), (1, 5)]
            .into_iter()
            .map(|(to, number)| Event::Message(message(to, number)))
            .collect();
        queue.push(message(1, 1), &mut more);
        assert_eq!(more.len(), 2);
        assert!(matches!(more.front(), Some(Event::Message(message)) if message.number == 4));
        assert_eq!(drain(&queue, &mut Taken::default()), [(1, 0), (2, 0), (3, 0)]);
    }

    #[test]
    fn what_a_listener_has_taken_over_is_not_dropped_and_the_gap_is_told_behind_it() {
        let (queue, mut taken) = (Queue::new(), Taken::default());
        let push = |from: u64, count: u64| {
            let mut more = (from + 1..from + count).map(|number| Event::Message(message(1, number))).collect();
            queue.push(message(1, from), &mut more);
            assert!(more.is_empty());
        };
        push(1, TAKEN as u64 + 1);
        let cx = Context::from_waker(Waker::noop());
        assert!(matches!(queue.poll(&mut taken, &cx), Poll::Ready(Some((_, 1)))));
        // One waits still, and has to go for the last of these.
        push(100, QUEUE_MAX as u64);
        let heard = drain(&queue, &mut taken);
        assert_eq!(heard.len(), TAKEN - 1 + QUEUE_MAX);
        assert!(heard.iter().take(TAKEN - 1).map(|(number, _)| *number).eq(2..=TAKEN as u64));
        assert_eq!(heard[TAKEN - 1], (100, 1), "one was missed");
        assert!(heard[TAKEN..].iter().all(|(_, missed)| *missed == 0));
    }
}
