//! What a user's handler is turned into: takes a payload, gives an answer or a stream of items.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use commipc_protocol::client::{EventKind, Payload, RequestId};
use commipc_protocol::{Fault, FaultCode};
use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::Decode;
use super::desk::ClientDriver;
use super::feed::ItemStream;
use super::items::{ItemQueue, Items};
use super::request::{About, Request};
use crate::payload::{self, DecodeError};
use crate::runtime::BoxFuture;

pub(super) type Answer = Result<Payload, Fault>;
pub(super) type HandlerFuture = BoxFuture<'static, Answer>;

/// What runs for each request.
pub(super) trait Handler: Send + Sync + 'static {
    fn start(&self, payload: Payload, about: About) -> Result<HandlerFuture, Fault>;
}

/// A handler of values.
pub(super) struct ValueHandler<T, F>(F, PhantomData<fn(T)>);
/// A handler of raw bytes.
pub(super) struct RawHandler<F>(F);

impl<T, F> ValueHandler<T, F> {
    pub(super) const fn new(handler: F) -> Self {
        Self(handler, PhantomData)
    }
}

impl<F> RawHandler<F> {
    pub(super) const fn new(handler: F) -> Self {
        Self(handler)
    }
}

impl<T, R, E, F, Fut> Handler for ValueHandler<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Request<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: Serialize,
    E: Into<Fault>,
{
    fn start(&self, payload: Payload, about: About) -> Result<HandlerFuture, Fault> {
        let value = payload::decode(&payload).map_err(|error| bad_payload(&error))?;
        let answer = (self.0)(Request::new(value, about));
        Ok(Box::pin(async move {
            let value = answer.await.map_err(Into::into)?;
            // What cannot be encoded is this side's fault; the text says nothing a stranger should read.
            payload::encode(&value).map_err(|_| Fault::from(FaultCode::HandlerFailed))
        }))
    }
}

impl<E, F, Fut> Handler for RawHandler<F>
where
    F: Fn(Request<Bytes>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Bytes, E>> + Send + 'static,
    E: Into<Fault>,
{
    fn start(&self, payload: Payload, about: About) -> Result<HandlerFuture, Fault> {
        let bytes = payload::raw(payload).map_err(|error| bad_payload(&error))?;
        let answer = (self.0)(Request::new(bytes, about));
        Ok(Box::pin(async move {
            let bytes = answer.await.map_err(Into::into)?;
            Ok(Payload { bytes, raw: true })
        }))
    }
}

/// What runs for each request for a stream.
pub(super) trait StreamHandler: Send + Sync + 'static {
    fn kind(&self) -> EventKind;
    /// `caller` is what an exchange's caller sends through.
    fn start(&self, payload: Payload, about: About, caller: Option<Caller>) -> Result<ItemStream, Fault>;
}

/// What makes [`Items`] of what a caller sends.
pub(super) type Caller = (Arc<ClientDriver>, Arc<ItemQueue>, RequestId);

/// Takes requests as `T` and gives items that `encode` turns into payloads.
pub(super) struct Streams<T, R, F> {
    pub(super) handler: F,
    pub(super) decode: Decode<T>,
    pub(super) encode: fn(R) -> Result<Payload, String>,
}

/// The same, with the caller's items as `U`.
pub(super) struct Exchanges<T, U, R, F> {
    pub(super) handler: F,
    pub(super) decode: Decode<T>,
    pub(super) decode_item: Decode<U>,
    pub(super) encode: fn(R) -> Result<Payload, String>,
}

impl<T, R, E, F, S> StreamHandler for Streams<T, R, F>
where
    T: 'static,
    R: 'static,
    F: Fn(Request<T>) -> S + Send + Sync + 'static,
    S: Stream<Item = Result<R, E>> + Send + 'static,
    E: Into<Fault> + 'static,
{
    fn kind(&self) -> EventKind {
        EventKind::Stream
    }

    fn start(&self, payload: Payload, about: About, _: Option<Caller>) -> Result<ItemStream, Fault> {
        let value = (self.decode)(payload).map_err(|error| bad_payload(&error))?;
        let items = Box::pin((self.handler)(Request::new(value, about)));
        Ok(Box::pin(Encoded { items, encode: self.encode }))
    }
}

impl<T, U, R, E, F, S> StreamHandler for Exchanges<T, U, R, F>
where
    T: 'static,
    U: 'static,
    R: 'static,
    F: Fn(Request<T>, Items<U>) -> S + Send + Sync + 'static,
    S: Stream<Item = Result<R, E>> + Send + 'static,
    E: Into<Fault> + 'static,
{
    fn kind(&self) -> EventKind {
        EventKind::Exchange
    }

    fn start(&self, payload: Payload, about: About, caller: Option<Caller>) -> Result<ItemStream, Fault> {
        let value = (self.decode)(payload).map_err(|error| bad_payload(&error))?;
        // An exchange is never started without.
        let (driver, queue, request) = caller.ok_or(FaultCode::HandlerFailed)?;
        let input = Items::of_caller(driver, queue, request, self.decode_item);
        let items = Box::pin((self.handler)(Request::new(value, about), input));
        Ok(Box::pin(Encoded { items, encode: self.encode }))
    }
}

/// A stream whose items are turned into payloads.
struct Encoded<S, R> {
    items: Pin<Box<S>>,
    encode: fn(R) -> Result<Payload, String>,
}

impl<S, R, E> Stream for Encoded<S, R>
where
    S: Stream<Item = Result<R, E>>,
    E: Into<Fault>,
{
    type Item = Result<Payload, Fault>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Poll::Ready(next) = this.items.as_mut().poll_next(cx) else { return Poll::Pending };
        Poll::Ready(next.map(|item| {
            // What cannot be encoded is this side's fault; the text says nothing a stranger should read.
            (this.encode)(item.map_err(Into::into)?).map_err(|_| Fault::from(FaultCode::HandlerFailed))
        }))
    }
}

fn bad_payload(error: &DecodeError) -> Fault {
    Fault::from(match error {
        DecodeError::WrongContent => FaultCode::WrongContent,
        DecodeError::Malformed(_) => FaultCode::BadPayload,
    })
}

/// What runs for each request of a provider.
pub(super) enum Service {
    Call(Box<dyn Handler>),
    Stream(Box<dyn StreamHandler>),
}

impl Service {
    pub(super) fn kind(&self) -> EventKind {
        match self {
            Self::Call(_) => EventKind::Call,
            Self::Stream(handler) => handler.kind(),
        }
    }
}
