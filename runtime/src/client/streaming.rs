//! Streams and exchanges of a channel: asked for and provided.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use commipc_protocol::client::Payload;
use commipc_protocol::{EventName, Fault, FaultCode, NameError};
use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call;
use super::channel::Channel;
use super::feed::ItemStream;
use super::handlers::{Exchanges, Service, Streams};
use super::items::{Items, StreamCall};
use super::names::{IntoChannel, IntoEvent};
use super::providing::Providing;
use super::request::Request;
use super::{Client, ClientHandle, Place, message};
use crate::error::CallError;
use crate::payload;

/// Streams.
impl Channel {
    /// Provides an event that is answered with a stream: `handler` makes one for every request.
    ///
    /// The stream is polled only for what the caller has room for, and dropped when the caller gives up. Its first error
    /// ends it, after the items before. At most 64 streams run at a time; 256 more requests wait, the rest is refused.
    ///
    /// # Errors
    /// As for [`Channel::provide`].
    ///
    /// # Cancel safety
    /// Dropped midway, it withdraws the event again.
    pub fn provide_stream<T, R, E, F, S>(&self, event: impl IntoEvent, handler: F) -> Providing
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Request<T>) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<R, E>> + Send + 'static,
        R: Serialize + 'static,
        E: Into<Fault> + 'static,
    {
        let streams = Streams { handler, decode: call::decode_value::<T>, encode: encode::<R> };
        self.provide_service(event.into_event(), Service::Stream(Box::new(streams)))
    }

    /// Provides a stream of raw bytes: they reach the caller untouched.
    ///
    /// # Errors
    /// As for [`Channel::provide`].
    ///
    /// # Cancel safety
    /// Dropped midway, it withdraws the event again.
    pub fn provide_stream_raw<E, F, S>(&self, event: impl IntoEvent, handler: F) -> Providing
    where
        F: Fn(Request<Bytes>) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Fault> + 'static,
    {
        let streams = Streams { handler, decode: payload::raw, encode: as_is };
        self.provide_service(event.into_event(), Service::Stream(Box::new(streams)))
    }

    /// Provides an exchange: `handler` gets the caller's own items beside the request, and makes the stream that answers.
    /// A caller that only asks for a stream sends none. Both directions end together with the answering stream.
    ///
    /// # Errors
    /// As for [`Channel::provide`].
    ///
    /// # Cancel safety
    /// Dropped midway, it withdraws the event again.
    pub fn provide_exchange<T, U, R, E, F, S>(&self, event: impl IntoEvent, handler: F) -> Providing
    where
        T: DeserializeOwned + Send + 'static,
        U: DeserializeOwned + Send + 'static,
        F: Fn(Request<T>, Items<U>) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<R, E>> + Send + 'static,
        R: Serialize + 'static,
        E: Into<Fault> + 'static,
    {
        let (decode, decode_item) = (call::decode_value::<T>, call::decode_value::<U>);
        let exchanges = Exchanges { handler, decode, decode_item, encode: encode::<R> };
        self.provide_service(event.into_event(), Service::Stream(Box::new(exchanges)))
    }

    /// Provides an exchange of raw bytes in both directions.
    ///
    /// # Errors
    /// As for [`Channel::provide`].
    ///
    /// # Cancel safety
    /// Dropped midway, it withdraws the event again.
    pub fn provide_exchange_raw<E, F, S>(&self, event: impl IntoEvent, handler: F) -> Providing
    where
        F: Fn(Request<Bytes>, Items<Bytes>) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Fault> + 'static,
    {
        let exchanges = Exchanges { handler, decode: payload::raw, decode_item: payload::raw, encode: as_is };
        self.provide_service(event.into_event(), Service::Stream(Box::new(exchanges)))
    }

    /// Asks for a stream whose items are decoded as `R`. Await it: it is ready when a provider has taken the request, within
    /// half a minute unless [`StreamCall::deadline`] says otherwise.
    ///
    /// From then on it lasts until its end, or an error. A provider that is there and says nothing more, or a hub that keeps
    /// the end to itself, cannot be told from one that has nothing to say: only a [`StreamCall::total_deadline`], or
    /// dropping the items, bounds those. One of them is for every stream of which the end is waited for.
    pub fn stream<R: DeserializeOwned>(
        &self,
        event: impl IntoEvent,
        argument: &(impl Serialize + ?Sized),
    ) -> StreamCall<R> {
        let outgoing =
            message(self.place(), event.into_event(), || payload::encode(argument).map_err(CallError::Encode));
        StreamCall::new(Arc::clone(self.client()), outgoing, None, call::decode_value).until(self.until())
    }

    /// Asks for a stream with raw bytes, and gets raw bytes. Await it.
    pub fn stream_raw(&self, event: impl IntoEvent, argument: impl Into<Bytes>) -> StreamCall<Bytes> {
        raw(self.client(), self.place(), event.into_event(), argument.into(), None).until(self.until())
    }

    /// Asks for an exchange: `items` go to the provider as it has room for them, and what it answers is decoded as `R`.
    /// Await it: it is ready when a provider has taken the request. An item that cannot be encoded cancels it. What bounds
    /// it is the same as for [`Channel::stream`].
    pub fn exchange<R: DeserializeOwned, T: Serialize + 'static>(
        &self,
        event: impl IntoEvent,
        argument: &(impl Serialize + ?Sized),
        items: impl Stream<Item = T> + Send + 'static,
    ) -> StreamCall<R> {
        let outgoing =
            message(self.place(), event.into_event(), || payload::encode(argument).map_err(CallError::Encode));
        let input = Box::pin(Input { items: Box::pin(items), encode: encode::<T> });
        StreamCall::new(Arc::clone(self.client()), outgoing, Some(input), call::decode_value).until(self.until())
    }

    /// Asks for an exchange of raw bytes in both directions. Await it.
    pub fn exchange_raw(
        &self,
        event: impl IntoEvent,
        argument: impl Into<Bytes>,
        items: impl Stream<Item = Bytes> + Send + 'static,
    ) -> StreamCall<Bytes> {
        let input: ItemStream = Box::pin(Input { items: Box::pin(items), encode: as_is });
        raw(self.client(), self.place(), event.into_event(), argument.into(), Some(input)).until(self.until())
    }
}

/// Streams.
impl Client {
    /// Asks for a stream of a channel that need not be open. Await it.
    pub fn stream<R: DeserializeOwned>(
        &self,
        channel: impl IntoChannel,
        event: impl IntoEvent,
        argument: &(impl Serialize + ?Sized),
    ) -> StreamCall<R> {
        let encoded = || payload::encode(argument).map_err(CallError::Encode);
        let outgoing = message(Place::anywhere(channel.into_channel()), event.into_event(), encoded);
        StreamCall::new(Arc::clone(&self.handle), outgoing, None, call::decode_value)
    }

    /// Asks for a stream of raw bytes of a channel that need not be open. Await it.
    pub fn stream_raw(
        &self,
        channel: impl IntoChannel,
        event: impl IntoEvent,
        argument: impl Into<Bytes>,
    ) -> StreamCall<Bytes> {
        raw(&self.handle, Place::anywhere(channel.into_channel()), event.into_event(), argument.into(), None)
    }
}

fn raw(
    client: &Arc<ClientHandle>,
    place: Place,
    event: Result<EventName, NameError>,
    bytes: Bytes,
    input: Option<ItemStream>,
) -> StreamCall<Bytes> {
    let outgoing = message(place, event, || Ok(Payload { bytes, raw: true }));
    StreamCall::new(Arc::clone(client), outgoing, input, payload::raw)
}

fn encode<T: Serialize>(value: T) -> Result<Payload, String> {
    payload::encode(&value)
}

#[expect(clippy::unnecessary_wraps, reason = "one of two ways to make a payload, of which the other can fail")]
const fn as_is(bytes: Bytes) -> Result<Payload, String> {
    Ok(Payload { bytes, raw: true })
}

/// A caller's items, turned into payloads.
struct Input<S, T> {
    items: Pin<Box<S>>,
    encode: fn(T) -> Result<Payload, String>,
}

impl<S: Stream<Item = T>, T> Stream for Input<S, T> {
    type Item = Result<Payload, Fault>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Poll::Ready(next) = this.items.as_mut().poll_next(cx) else { return Poll::Pending };
        Poll::Ready(next.map(|item| (this.encode)(item).map_err(|_| Fault::from(FaultCode::HandlerFailed))))
    }
}
