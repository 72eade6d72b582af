//! Listeners: one queue each, in order, and never silent about what did not fit.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use commipc_protocol::client::{Command, Incoming, Payload, Source, Token};
use commipc_protocol::{Address, ChannelName, EventName, HubId, NameError, UnixMillis};
use futures_core::Stream;
use serde::de::DeserializeOwned;

use super::channel::{ChannelHandle, ask};
use super::queue::{Loss, Next, Overflow, QUEUE_MAX, Queue};
use super::tickets::{Target, Undo};
use crate::error::ListenError;
use crate::payload;
use crate::runtime::BoxFuture;
use crate::sync::lock;

/// Turns payloads into what a listener hands out.
type Decode<T> = fn(Payload) -> Option<T>;

/// Listening that has not begun: await it.
#[must_use = "nothing is listened to before this is awaited"]
pub struct Listen<T> {
    channel: Arc<ChannelHandle>,
    event: Result<Option<EventName>, NameError>,
    overflow: Overflow,
    length: usize,
    decode: Decode<T>,
}

impl<T> Listen<T> {
    pub(super) fn new(
        channel: Arc<ChannelHandle>,
        event: Result<Option<EventName>, NameError>,
        decode: Decode<T>,
    ) -> Self {
        Self { channel, event, overflow: Overflow::default(), length: QUEUE_MAX, decode }
    }

    /// What becomes of messages that come faster than they are taken. [`Overflow::DropOldest`] unless set.
    pub const fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// How many messages may wait, at least 1. [`QUEUE_MAX`] unless set.
    pub const fn queue(mut self, messages: usize) -> Self {
        self.length = if messages == 0 { 1 } else { messages };
        self
    }
}

impl<T> IntoFuture for Listen<T> {
    type Output = Result<Listener<T>, ListenError>;
    type IntoFuture = PendingListen<T>;

    fn into_future(self) -> PendingListen<T> {
        let Self { channel, event, overflow, length, decode } = self;
        PendingListen { begun: Box::pin(begin(channel, event, overflow, length)), decode }
    }
}

async fn begin(
    channel: Arc<ChannelHandle>,
    event: Result<Option<EventName>, NameError>,
    overflow: Overflow,
    length: usize,
) -> Result<Begun, ListenError> {
    let event = event?;
    if let Some(why) = channel.life().ended() {
        return Err(why.into());
    }
    let queue = Queue::new(overflow, length, channel.driver().sink().brake());
    channel.life().attach(&queue);
    let target = Target::Listener(Arc::clone(&queue));
    let name = channel.name().clone();
    let command = |token| Command::Listen { token, channel: name, event };
    let token = ask(channel.driver(), Some(target), Undo::Unlisten, command).await?;
    Ok((queue, token, channel))
}

type Begun = (Arc<Queue>, Token, Arc<ChannelHandle>);

/// Listening that begins. Dropped midway, it stops again.
#[must_use = "listening begins only while this is polled"]
pub struct PendingListen<T> {
    begun: BoxFuture<'static, Result<Begun, ListenError>>,
    decode: Decode<T>,
}

impl<T> Future for PendingListen<T> {
    type Output = Result<Listener<T>, ListenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(begun) = self.begun.as_mut().poll(cx) else { return Poll::Pending };
        let decode = self.decode;
        Poll::Ready(begun.map(|(queue, token, channel)| Listener {
            queue,
            token,
            channel,
            decode,
            untold: Loss::default(),
            unreadable: 0,
            marker: PhantomData,
        }))
    }
}

impl<T> fmt::Debug for Listen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, overflow, length, .. } = self;
        f.debug_struct("Listen")
            .field("event", event)
            .field("overflow", overflow)
            .field("queue", length)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for PendingListen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingListen(..)")
    }
}

/// The broadcasts of one event, or of all events of a channel, in the order they came.
///
/// Ends when the connection or the channel does, and [`Listener::ended`] tells which. At most [`QUEUE_MAX`] messages wait,
/// or as many as [`Listen::queue`] says; then the oldest is dropped, or what [`Listen::overflow`] says, and the next message
/// tells how many were [`missed`](Message::missed). Dropping the listener stops listening.
#[must_use = "a listener that is dropped hears nothing"]
pub struct Listener<T> {
    queue: Arc<Queue>,
    token: Token,
    channel: Arc<ChannelHandle>,
    decode: Decode<T>,
    /// Of messages that could not be read.
    untold: Loss,
    unreadable: u64,
    marker: PhantomData<fn() -> T>,
}

impl<T> Listener<T> {
    /// Waits for the next message; `None` when nothing comes any more.
    ///
    /// Cancel safe: a message is either returned or still there.
    pub async fn next(&mut self) -> Option<Message<T>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Polls for the next message, for hand-written futures.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message<T>>> {
        loop {
            let Poll::Ready(next) = self.queue.poll(cx) else { return Poll::Pending };
            let Some(Next { incoming, number, before }) = next else { return Poll::Ready(None) };
            self.untold.add(before);
            let Incoming { source, payload, metadata, sent_at, hops } = incoming;
            let Some(value) = (self.decode)(payload) else {
                let Source { channel, event, sender, path: _ } = &*source;
                tracing::debug!(%channel, %event, %sender, "a message is not of the type that is listened for");
                self.unreadable += 1;
                continue;
            };
            let unreadable = std::mem::take(&mut self.unreadable);
            let Loss { missed, lost } = std::mem::take(&mut self.untold);
            let about = MessageAbout { source, metadata, sent_at, hops, number, missed, lost, unreadable };
            return Poll::Ready(Some(Message { value, about }));
        }
    }

    /// Why nothing comes any more after what waits, if so: the connection or the channel is over, or this listener was too
    /// slow for its [`Overflow`].
    #[must_use]
    pub fn ended(&self) -> Option<ListenError> {
        self.queue.ended()
    }

    /// How many messages were dropped that no message has told of yet. After the last one, this alone tells of them.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.untold.missed + self.queue.untold().missed
    }

    /// How many broadcasts never came that no message has told of yet: on a protected channel their senders' beacons tell
    /// within ten seconds, also of the last one. Nothing wakes up for that; whoever has to know asks.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.untold.lost + self.queue.untold().lost
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
        // Whoever waits for room in it need not any more.
        self.queue.discard();
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

    /// The hubs it has come through before the own one, the sender's first; empty if the sender is at the own one.
    #[must_use]
    pub fn path(&self) -> &[HubId] {
        &self.about.source.path
    }

    /// The sender's count of its broadcasts of this event: dense, so that a gap shows what was lost on the way.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.about.number
    }

    /// How many messages were dropped between the one before and this one, because this listener was too slow.
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
