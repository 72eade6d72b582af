//! Everything that comes in, before it goes where it belongs: for logs, recorders and the curious.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use commipc_protocol::client::{Answer, Event, EventKind, Incoming, Payload, StreamEvent, StreamId, Token};
use commipc_protocol::{Address, ChannelName, EventName, UnixMillis};
use futures_core::Stream;
use serde::de::DeserializeOwned;

use super::desk::Desk;
use super::outlet::{Outlet, Outlets};
use super::provide::Tracked;
use super::tickets::Target;
use super::{Channel, Client};
use crate::error::CallError;
use crate::payload;
use crate::sync::lock;

impl Client {
    /// Copies of everything that comes in from now on, in order and before it is dispatched: calls and requests for
    /// streams, sends, broadcasts, items, and the answers to calls that are made from now on. Nothing is kept from where it
    /// belongs, and payloads are shared rather than copied.
    ///
    /// At most [`QUEUE_MAX`](crate::QUEUE_MAX) wait, or as many as [`Tap::queue`] says; then the oldest is dropped, and the
    /// next tells how many were [`missed`](Tapped::missed). A tap does not keep the connection open.
    ///
    /// ```
    /// use commipc_runtime::Client;
    ///
    /// async fn record(client: Client) {
    ///     let mut tap = client.tap();
    ///     while let Some(copy) = tap.next().await {
    ///         println!("{:?} {}/{}: {} bytes", copy.kind(), copy.channel(), copy.event(), copy.payload().bytes.len());
    ///     }
    /// }
    /// ```
    pub fn tap(&self) -> Tap {
        Tap { outlet: self.handle.driver.sink().taps().open(None) }
    }
}

impl Channel {
    /// As [`Client::tap`], for what comes in on this channel. It does not keep the channel open.
    pub fn tap(&self) -> Tap {
        Tap { outlet: self.driver().sink().taps().open(Some(self.name().clone())) }
    }
}

/// Copies of what comes in. Ends with the connection; dropping it costs and changes nothing.
#[must_use = "a tap that is dropped tells nothing"]
pub struct Tap {
    outlet: Outlet<Tapped>,
}

impl Tap {
    /// How many copies may wait, at least 1.
    pub fn queue(self, copies: usize) -> Self {
        self.outlet.set_length(copies);
        self
    }

    /// Waits for the next copy; `None` when the connection is over.
    ///
    /// Cancel safe: a copy is either returned or still there.
    pub async fn next(&mut self) -> Option<Tapped> {
        poll_fn(|cx| self.poll_copy(cx)).await
    }

    /// Polls for the next copy, for hand-written futures.
    pub fn poll_copy(&mut self, cx: &mut Context<'_>) -> Poll<Option<Tapped>> {
        let Poll::Ready(next) = self.outlet.poll(cx) else { return Poll::Pending };
        Poll::Ready(next.map(|(copy, missed)| Tapped { missed, ..copy }))
    }
}

impl Stream for Tap {
    type Item = Tapped;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Tapped>> {
        self.get_mut().poll_copy(cx)
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap(..)")
    }
}

/// What a [`Tapped`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TapKind {
    /// A call of an event that is provided here.
    Call,
    /// A request for a stream that is provided here.
    Stream,
    /// A request for an exchange that is provided here.
    Exchange,
    /// A send to an event that is provided here.
    Send,
    /// A broadcast that is listened to here.
    Broadcast,
    /// The answer to a call made here.
    Answer,
    /// An item of a stream, whichever side asked for it.
    Item,
}

/// A copy of what came in.
#[derive(Clone)]
pub struct Tapped {
    kind: TapKind,
    channel: ChannelName,
    event: EventName,
    sender: Option<Address>,
    payload: Payload,
    metadata: Bytes,
    sent_at: Option<UnixMillis>,
    missed: u64,
}

impl Tapped {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> TapKind {
        self.kind
    }

    /// The channel.
    #[must_use]
    pub const fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &EventName {
        &self.event
    }

    /// Who says it. Items do not tell.
    #[must_use]
    pub const fn sender(&self) -> Option<&Address> {
        self.sender.as_ref()
    }

    /// What is said, as it came.
    #[must_use]
    pub const fn payload(&self) -> &Payload {
        &self.payload
    }

    /// What is said, as a value.
    ///
    /// # Errors
    /// When it is not of this type, or raw.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        payload::decode(&self.payload).map_err(CallError::from)
    }

    /// The sender's metadata, a CBOR map as bytes, or empty.
    #[must_use]
    pub const fn metadata(&self) -> &Bytes {
        &self.metadata
    }

    /// When it was said, by the sender's wall clock. Answers and items do not tell.
    #[must_use]
    pub const fn sent_at(&self) -> Option<UnixMillis> {
        self.sent_at
    }

    /// How many copies were dropped just before this one, because the tap was too slow.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    fn said(kind: TapKind, incoming: &Incoming) -> Self {
        let Incoming { source, payload, metadata, sent_at, hops: _ } = incoming.clone();
        let (channel, event, sender) = (source.channel.clone(), source.event.clone(), source.sender.clone());
        Self { kind, channel, event, sender: Some(sender), payload, metadata, sent_at: Some(sent_at), missed: 0 }
    }

    fn answered(place: &Place, answer: &Answer) -> Self {
        let Answer { payload, provider, metadata, hops: _, path: _ } = answer.clone();
        let sender = Some(provider);
        Self { sender, metadata, ..Self::item(place, &payload, TapKind::Answer) }
    }

    fn item(place: &Place, payload: &Payload, kind: TapKind) -> Self {
        let (channel, event) = place.clone();
        let (payload, metadata) = (payload.clone(), Bytes::new());
        Self { kind, channel, event, sender: None, payload, metadata, sent_at: None, missed: 0 }
    }
}

impl fmt::Debug for Tapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tapped")
            .field("kind", &self.kind)
            .field("channel", &self.channel)
            .field("event", &self.event)
            .field("sender", &self.sender)
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

/// What was asked, or is answered with a stream.
pub(super) type Place = (ChannelName, EventName);

/// All taps of a client.
#[derive(Default)]
pub(super) struct Taps {
    outlets: Arc<Outlets<Tapped>>,
    /// The broadcast that was copied last, and for which listener: each listener is told of it by an event of its own.
    copied: Mutex<Option<(Token, Address, Place, u64)>>,
}

impl Taps {
    pub(super) fn open(&self, only: Option<ChannelName>) -> Outlet<Tapped> {
        self.outlets.open(only)
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.outlets.are_wanted()
    }

    pub(super) fn close(&self) {
        self.outlets.close();
    }

    /// Copies what came in, if it is a message.
    pub(super) fn copy(&self, desk: &Desk, event: &Event) {
        let copy = match event {
            Event::Request(request) => {
                let cell = lock(desk.tickets()).provider(request.provider);
                let kind = cell.map_or(TapKind::Call, |cell| kind_of(cell.kind()));
                Some(Tapped::said(kind, &request.message))
            }
            // Only broadcasts are counted.
            Event::Message(message) if message.number == 0 => Some(Tapped::said(TapKind::Send, &message.message)),
            Event::Message(message) => self
                .is_first(message.to, &message.message, message.number)
                .then(|| Tapped::said(TapKind::Broadcast, &message.message)),
            Event::Answered { token, result: Ok(answer) } => match lock(desk.tickets()).target(*token) {
                Some(Target::Asked(place)) => Some(Tapped::answered(&place, answer)),
                Some(Target::Provider(_) | Target::Listener(_) | Target::Items(_)) | None => None,
            },
            Event::Stream(StreamEvent::Item { stream, payload, cost: _ }) => {
                place_of(desk, *stream).map(|place| Tapped::item(&place, payload, TapKind::Item))
            }
            Event::Stream(_)
            | Event::Answered { .. }
            | Event::Done { .. }
            | Event::Sent { .. }
            | Event::RequestEnded { .. }
            | Event::DeriveKey { .. }
            | Event::DeriveChannelKey { .. }
            | Event::ChannelClosed { .. }
            | Event::OwnerChanged { .. }
            | Event::PasswordChanged { .. }
            | Event::Gap(_)
            | Event::Draining { .. }
            | Event::Ready(_)
            | Event::Reconnect(_)
            | Event::Closed(_)
            | Event::Violation(_)
            | Event::Dropped(_) => None,
        };
        if let Some(copy) = copy {
            self.outlets.tell(Some(&copy.channel), &copy);
        }
    }

    /// Whether a broadcast is not the one before, for the next listener.
    fn is_first(&self, to: Token, incoming: &Incoming, number: u64) -> bool {
        let mut copied = lock(&self.copied);
        let again = copied.as_ref().is_some_and(|(first, sender, (channel, event), last)| {
            let same = (sender, channel, event) == (&incoming.sender, &incoming.channel, &incoming.event);
            same && *last == number && *first != to
        });
        if !again {
            let place = (incoming.channel.clone(), incoming.event.clone());
            *copied = Some((to, incoming.sender.clone(), place, number));
        }
        !again
    }
}

fn kind_of(kind: EventKind) -> TapKind {
    if kind == EventKind::Stream {
        TapKind::Stream
    } else if kind == EventKind::Exchange {
        TapKind::Exchange
    } else {
        TapKind::Call
    }
}

fn place_of(desk: &Desk, stream: StreamId) -> Option<Place> {
    let queue = match stream {
        StreamId::Call(token) => match lock(desk.tickets()).target(token) {
            Some(Target::Items(queue)) => Some(queue),
            Some(Target::Provider(_) | Target::Listener(_) | Target::Asked(_)) | None => None,
        },
        StreamId::Request(request) => desk.tracked(request, Tracked::stream).and_then(|(_, input)| input),
    };
    queue.map(|queue| queue.place().clone())
}
