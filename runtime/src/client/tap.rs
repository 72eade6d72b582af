//! Everything that comes in, before it goes where it belongs: for logs, recorders and the curious.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use commipc_protocol::client::{
    Answer, CallFailure, Event, EventKind, Failure, Incoming, Payload, Source, StreamEvent, StreamId, Token,
};
use commipc_protocol::{Address, ChannelName, EventName, UnixMillis};
use futures_core::Stream;
use serde::de::DeserializeOwned;

use super::desk::Desk;
use super::items;
use super::outlet::{Outlet, Outlets};
use super::provide::Tracked;
use super::tickets::Target;
use super::{Channel, Client};
use crate::error::CallError;
use crate::payload;
use crate::sync::lock;

impl Client {
    /// Copies of everything that comes in from now on, in order and before it is dispatched: calls and requests for
    /// streams, sends, broadcasts, items, the ends of streams, cancels of what is asked here, and the answers, faults and
    /// failures of calls that are made from now on. Nothing is kept from where it belongs, and payloads are shared rather
    /// than copied. What the hub says of the connection and its channels is told by [`Client::states`] and
    /// [`Client::errors`].
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
    /// The provider's fault in place of an answer to a call made here: see [`Tapped::error`].
    Fault,
    /// A call made here ended without its provider: by the hub, by its deadline or with the connection. A call that was
    /// given up here is not told.
    Failure,
    /// A provider has taken a request for a stream or an exchange made here.
    Accept,
    /// An item of a stream, whichever side asked for it.
    Item,
    /// The end of a stream, whichever side asked for it; of an exchange that is provided here, of the caller's items.
    /// [`Tapped::error`] tells whether all of it came. A stream that was given up here is not told.
    End,
    /// A request that is handled here, or waits for it, ended before its answer: its caller gave up or is gone, its time is
    /// over, or the connection is. [`Tapped::error`] tells which.
    Cancel,
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
    error: Option<CallError>,
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

    /// Who says it; of a cancel, whose request it is. What concerns a stream that was asked for does not tell, nor do faults
    /// and failures.
    #[must_use]
    pub const fn sender(&self) -> Option<&Address> {
        self.sender.as_ref()
    }

    /// What is said, as it came. Empty where nothing is but that something ended.
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

    /// When it was said, by the sender's wall clock. Only requests, sends and broadcasts tell.
    #[must_use]
    pub const fn sent_at(&self) -> Option<UnixMillis> {
        self.sent_at
    }

    /// What went wrong: always of a fault, a failure and a cancel, of the end of a stream unless all of it came, and of
    /// nothing else.
    #[must_use]
    pub const fn error(&self) -> Option<&CallError> {
        self.error.as_ref()
    }

    /// How many copies were dropped just before this one, because the tap was too slow.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    fn said(kind: TapKind, incoming: &Incoming) -> Self {
        let Incoming { source, payload, metadata, sent_at, hops: _ } = incoming.clone();
        let (sender, sent_at) = (Some(source.sender.clone()), Some(sent_at));
        Self { sender, payload, metadata, sent_at, ..Self::bare(kind, place(&source)) }
    }

    fn answered(place: &Place, result: &Result<Answer, CallFailure>) -> Self {
        match result {
            Ok(Answer { payload, provider, metadata, hops: _, path: _ }) => {
                let (payload, metadata) = (payload.clone(), metadata.clone());
                Self { sender: Some(provider.clone()), payload, metadata, ..Self::bare(TapKind::Answer, place.clone()) }
            }
            Err(failure @ CallFailure::Fault(_)) => Self::bare(TapKind::Fault, place.clone()).failed(failure),
            Err(failure @ CallFailure::Failed { .. }) => Self::bare(TapKind::Failure, place.clone()).failed(failure),
        }
    }

    fn item(place: Place, payload: &Payload) -> Self {
        Self { payload: payload.clone(), ..Self::bare(TapKind::Item, place) }
    }

    fn ended(place: Place, result: Result<(), CallFailure>) -> Self {
        let end = Self::bare(TapKind::End, place);
        match result {
            Ok(()) => end,
            Err(failure) => end.failed(&failure),
        }
    }

    fn cancelled(source: &Source, why: Failure) -> Self {
        let sender = Some(source.sender.clone());
        let failure = CallFailure::Failed { failure: why, maybe_executed: true };
        Self { sender, ..Self::bare(TapKind::Cancel, place(source)) }.failed(&failure)
    }

    fn failed(self, failure: &CallFailure) -> Self {
        Self { error: Some(failure.clone().into()), ..self }
    }

    fn bare(kind: TapKind, (channel, event): Place) -> Self {
        let payload = Payload { bytes: Bytes::new(), raw: true };
        let (sender, metadata, sent_at, error) = (None, Bytes::new(), None, None);
        Self { kind, channel, event, sender, payload, metadata, sent_at, error, missed: 0 }
    }
}

impl fmt::Debug for Tapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tapped")
            .field("kind", &self.kind)
            .field("channel", &self.channel)
            .field("event", &self.event)
            .field("sender", &self.sender)
            .field("error", &self.error)
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

/// What was asked, or is answered with a stream.
pub(super) type Place = (ChannelName, EventName);

fn place(source: &Source) -> Place {
    (source.channel.clone(), source.event.clone())
}

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

    pub(super) fn count(&self) -> usize {
        self.outlets.count()
    }

    pub(super) fn close(&self) {
        self.outlets.close();
    }

    /// Copies what came in, if it is a message or the end of something.
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
            Event::Answered { token, result } => match lock(desk.tickets()).target(*token) {
                Some(Target::Asked(place)) => Some(Tapped::answered(&place, result)),
                Some(Target::Provider(_) | Target::Listener(_) | Target::Items(_)) | None => None,
            },
            Event::Stream(event) => streamed(desk, event),
            Event::RequestEnded { request, why } => desk
                .tracked(*request, |tracked| Some(Arc::clone(tracked.source())))
                .map(|source| Tapped::cancelled(&source, *why)),
            Event::Done { .. }
            | Event::Sent { .. }
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

fn streamed(desk: &Desk, event: &StreamEvent) -> Option<Tapped> {
    match event {
        StreamEvent::Accepted { token } => {
            place_of(desk, StreamId::Call(*token)).map(|place| Tapped::bare(TapKind::Accept, place))
        }
        StreamEvent::Item { stream, payload, cost: _ } => {
            place_of(desk, *stream).map(|place| Tapped::item(place, payload))
        }
        StreamEvent::Finished { request, result } => {
            place_of(desk, StreamId::Request(*request)).map(|place| Tapped::ended(place, items::caller_ended(*result)))
        }
        StreamEvent::Ended { token, result } => {
            place_of(desk, StreamId::Call(*token)).map(|place| Tapped::ended(place, result.clone()))
        }
        // How much more is wanted is said to the machine that gives it, and means nothing to anybody else.
        StreamEvent::Demand { .. } => None,
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
