//! Listeners: one queue each, in order, and never silent about what did not fit.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use commipc_protocol::client::{Command, Incoming, Payload, Token};
use commipc_protocol::{Address, ChannelName, EventName, UnixMillis};
use futures_core::Stream;
use serde::de::DeserializeOwned;

use super::channel::ChannelHandle;
use super::desk::Undo;
use crate::payload;
use crate::sync::lock;

/// Messages that wait for one listener. At more, the oldest is dropped and counted.
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

/// What comes out of a queue.
struct Next {
    incoming: Incoming,
    number: u64,
    missed: u64,
    lost: u64,
}

impl Queue {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    pub(super) fn push(&self, message: Incoming, number: u64) {
        let (waker, _dropped) = {
            let mut waiting = lock(&self.0);
            let dropped = if waiting.messages.len() >= QUEUE_MAX { waiting.messages.pop_front() } else { None };
            waiting.missed += u64::from(dropped.is_some());
            waiting.messages.push_back((message, number));
            (waiting.waker.take(), dropped)
        };
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

    /// The next message and how many were dropped before it.
    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Next>> {
        let mut waiting = lock(&self.0);
        if let Some((incoming, number)) = waiting.messages.pop_front() {
            let (missed, lost) = (std::mem::take(&mut waiting.missed), std::mem::take(&mut waiting.lost));
            return Poll::Ready(Some(Next { incoming, number, missed, lost }));
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

/// Turns payloads into what a listener hands out.
type Decode<T> = fn(Payload) -> Option<T>;

/// The broadcasts of one event, or of all events of a channel, in the order they came.
///
/// Ends when the connection does. At most [`QUEUE_MAX`] messages wait; then the oldest is dropped, and the next message
/// tells how many were [`missed`](Message::missed). Dropping the listener stops listening.
#[must_use = "a listener that is dropped hears nothing"]
pub struct Listener<T> {
    queue: Arc<Queue>,
    token: Token,
    channel: Arc<ChannelHandle>,
    decode: Decode<T>,
    missed: u64,
    lost: u64,
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
            let Poll::Ready(next) = self.queue.poll(cx) else { return Poll::Pending };
            let Some(Next { incoming, number, missed, lost }) = next else { return Poll::Ready(None) };
            self.missed += missed;
            self.lost += lost;
            let Incoming { channel, event, sender, payload, metadata, sent_at, hops } = incoming;
            let Some(value) = (self.decode)(payload) else {
                tracing::debug!(%channel, %event, %sender, "a message is not of the type that is listened for");
                self.unreadable += 1;
                continue;
            };
            let (missed, unreadable) = (std::mem::take(&mut self.missed), std::mem::take(&mut self.unreadable));
            let lost = std::mem::take(&mut self.lost);
            let about =
                MessageAbout { channel, event, sender, metadata, sent_at, hops, number, missed, lost, unreadable };
            return Poll::Ready(Some(Message { value, about }));
        }
    }

    pub(super) fn new(queue: Arc<Queue>, token: Token, channel: Arc<ChannelHandle>, decode: Decode<T>) -> Self {
        Self { queue, token, channel, decode, missed: 0, lost: 0, unreadable: 0, marker: PhantomData }
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
    channel: ChannelName,
    event: EventName,
    sender: Address,
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
    pub const fn channel(&self) -> &ChannelName {
        &self.about.channel
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &EventName {
        &self.about.event
    }

    /// Who says it: its id and its hub.
    #[must_use]
    pub const fn sender(&self) -> &Address {
        &self.about.sender
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
