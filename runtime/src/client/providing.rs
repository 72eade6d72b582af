//! Events that are provided, and how: a builder, then a handle that stands for the event.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use commipc_protocol::client::{Command, Token};
use commipc_protocol::{EventName, NameError};

use super::channel::{ChannelHandle, ask};
use super::desk::withdraw;
use super::handlers::Service;
use super::provide::{Bounds, ProviderCell, RUNNING_MAX, WAITING_MAX};
use super::tickets::{Target, Undo};
use crate::error::ProvideError;
use crate::runtime::BoxFuture;
use crate::schema::Schema;

/// An event that is not provided yet: await it.
#[must_use = "nothing is provided before this is awaited"]
pub struct Providing {
    channel: Arc<ChannelHandle>,
    event: Result<EventName, NameError>,
    service: Service,
    bounds: Bounds,
    schema: Schema,
}

impl Providing {
    pub(super) fn new(channel: Arc<ChannelHandle>, event: Result<EventName, NameError>, service: Service) -> Self {
        Self {
            channel,
            event,
            service,
            bounds: Bounds { running: RUNNING_MAX, waiting: WAITING_MAX },
            schema: Schema::default(),
        }
    }

    /// How many requests are handled at a time, at least 1. [`RUNNING_MAX`] unless set.
    pub const fn running(mut self, requests: usize) -> Self {
        self.bounds.running = if requests == 0 { 1 } else { requests };
        self
    }

    /// How many more may wait for their turn; callers of the rest are told `Overloaded`. [`WAITING_MAX`] unless set.
    pub const fn waiting(mut self, requests: usize) -> Self {
        self.bounds.waiting = requests;
        self
    }

    /// What requests must look like: calls, requests for streams and sends that do not are refused before the handler runs.
    /// Of no use for raw bytes, which look like nothing.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    async fn provide(self) -> Result<Provider, ProvideError> {
        let Self { channel, event, service, bounds, schema } = self;
        let event = event?;
        if let Some(why) = channel.life().ended() {
            return Err(why.into());
        }
        let kind = service.kind();
        let cell = ProviderCell::new(service, bounds, schema);
        let target = Target::Provider(Arc::clone(&cell));
        let name = channel.name().clone();
        let command = |token| Command::Provide { token, channel: name, event, kind };
        let token = ask(channel.driver(), Some(target), Undo::Withdraw, command).await?;
        Ok(Provider::new(token, cell, channel))
    }
}

impl IntoFuture for Providing {
    type Output = Result<Provider, ProvideError>;
    type IntoFuture = PendingProvide;

    fn into_future(self) -> PendingProvide {
        PendingProvide(Box::pin(self.provide()))
    }
}

/// An event that is about to be provided. Dropped midway, it is withdrawn again.
#[must_use = "an event is provided only while this is polled"]
pub struct PendingProvide(BoxFuture<'static, Result<Provider, ProvideError>>);

impl Future for PendingProvide {
    type Output = Result<Provider, ProvideError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Providing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, bounds, schema, .. } = self;
        f.debug_struct("Providing")
            .field("event", event)
            .field("bounds", bounds)
            .field("schema", schema)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PendingProvide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingProvide(..)")
    }
}

/// An event that is provided. Dropping it withdraws the event; requests that run go on. If this client has provided the
/// event anew, the newer one stands for it, and dropping this one withdraws nothing.
#[must_use = "an event is withdrawn when its provider is dropped; keep it, or detach() it"]
pub struct Provider {
    inner: Option<Inner>,
}

struct Inner {
    token: Token,
    cell: Arc<ProviderCell>,
    channel: Arc<ChannelHandle>,
}

impl Provider {
    const fn new(token: Token, cell: Arc<ProviderCell>, channel: Arc<ChannelHandle>) -> Self {
        Self { inner: Some(Inner { token, cell, channel }) }
    }

    /// Provides for as long as the connection stands, and keeps the connection and the channel open for that.
    pub fn detach(self) {
        let client = self.inner.as_ref().map(|inner| Arc::clone(inner.channel.client()));
        if let Some(client) = client {
            client.keep(self);
        }
    }

    /// What it stands for, which from now on is the taker's to end.
    pub(super) fn take(&mut self) -> Option<(Token, Arc<ProviderCell>, Arc<ChannelHandle>)> {
        self.inner.take().map(|Inner { token, cell, channel }| (token, cell, channel))
    }

    /// Withdraws the event, like dropping, and says so.
    pub fn withdraw(self) {}
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(Inner { token, cell, channel }) = mem::take(&mut self.inner) {
            withdraw(channel.driver(), token, Some(cell));
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("token", &self.inner.as_ref().map(|inner| inner.token)).finish()
    }
}
