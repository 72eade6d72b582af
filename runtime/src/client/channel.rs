//! A channel that is open: provide, call, send, broadcast, listen.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use commipc_protocol::client::{Command, Failure, Payload, Token};
use commipc_protocol::{ChannelName, EventName, Fault, Instant, NameError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{Call, Sending, sooner};
use super::desk::ClientDriver;
use super::handlers::{RawHandler, Service, ValueHandler};
use super::life::Life;
use super::listen::{self, Listen};
use super::names::IntoEvent;
use super::providing::Providing;
use super::request::Request;
use super::tickets::{Outcome, Target, Undo};
use super::{ClientHandle, Place};
use crate::sync::lock;

/// An open channel. Clones are the same channel; it is left when the last clone, provider and listener of it are gone.
#[derive(Clone)]
#[must_use = "a channel is left when its last handle is dropped"]
pub struct Channel {
    handle: Arc<ChannelHandle>,
    /// By when whatever is asked must be over.
    until: Option<Instant>,
}

/// One `Open` of a channel, to be undone.
pub(super) struct ChannelHandle {
    client: Arc<ClientHandle>,
    name: ChannelName,
    life: Arc<Life>,
}

impl ChannelHandle {
    pub(super) fn driver(&self) -> &Arc<ClientDriver> {
        &self.client.driver
    }

    pub(super) const fn name(&self) -> &ChannelName {
        &self.name
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    pub(super) const fn client(&self) -> &Arc<ClientHandle> {
        &self.client
    }
}

impl Drop for ChannelHandle {
    fn drop(&mut self) {
        // The hub has ended it, and another opening may have taken its place.
        if self.life.ended().is_some() {
            return;
        }
        let driver = &self.client.driver;
        let token = lock(driver.sink().tickets()).abandoned(Undo::Nothing);
        driver.issue(Command::Leave { token, channel: self.name.clone() });
    }
}

impl Channel {
    pub(super) fn new(client: Arc<ClientHandle>, name: ChannelName, life: Arc<Life>) -> Self {
        Self { handle: Arc::new(ChannelHandle { client, name, life }), until: None }
    }

    pub(super) fn driver(&self) -> &Arc<ClientDriver> {
        self.handle.driver()
    }

    pub(super) fn client(&self) -> &Arc<ClientHandle> {
        &self.handle.client
    }

    pub(super) fn life(&self) -> &Life {
        &self.handle.life
    }

    /// What messages on this channel are to be like.
    pub(super) fn place(&self) -> Place {
        Place { channel: Ok(self.handle.name.clone()), guarded: self.life().is_guarded(), ended: self.life().ended() }
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &ChannelName {
        &self.handle.name
    }

    /// The same channel for a request that is being handled: what is asked with this handle, calls, streams and exchanges
    /// alike, takes no longer than that request's caller still waits, whatever its own deadline is.
    ///
    /// ```
    /// use commipc_runtime::{CallError, Channel, Fault, FaultCode, ProvideError, Provider, Request};
    ///
    /// async fn serve(channel: &Channel) -> Result<Provider, ProvideError> {
    ///     let report = async |channel: Channel, request: Request<u32>| {
    ///         let channel = channel.within(&request);
    ///         let failed = |_: CallError| Fault::from(FaultCode::HandlerFailed);
    ///         let title: String = channel.call("title", &*request).await.map_err(failed)?;
    ///         let mut lines = channel.stream::<String>("lines", &*request).await.map_err(failed)?;
    ///         let first = lines.try_next().await.map_err(failed)?;
    ///         Ok::<_, Fault>((title, first))
    ///     };
    ///     channel.provide_with(channel.clone(), "report", report).await
    /// }
    /// ```
    pub fn within<T>(&self, request: &Request<T>) -> Self {
        Self { handle: Arc::clone(&self.handle), until: sooner(self.until, request.deadline()) }
    }

    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Provides an event: `handler` runs for every request, at most 64 at a time; 256 more wait, the rest is refused,
    /// unless [`Providing::running`] and [`Providing::waiting`] say otherwise. Await it.
    ///
    /// The handler is polled once where the request came in and gets a task of its own if it waits, so it must not
    /// block. Its future is dropped when the caller gives up, unless it was [detached](Request::detach). A panic becomes a
    /// fault and harms nothing else. An error leaves as the [`Fault`] it turns into and never with more text than that.
    ///
    /// Provided once more by the same client, the event goes to the newer handler from then on. Requests that the older one
    /// has begun, or that wait for it, are still its own and end as they would have; its [`Provider`](crate::Provider)
    /// stands for nothing any more, and dropping that withdraws nothing. So it is also where the newer one then fails.
    ///
    /// # Errors
    /// When the name is none, somebody else provides the event, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it withdraws the event again.
    pub fn provide<T, R, E, F, Fut>(&self, event: impl IntoEvent, handler: F) -> Providing
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Request<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Serialize + 'static,
        E: Into<Fault> + 'static,
    {
        self.provide_service(event.into_event(), Service::Call(Box::new(ValueHandler::<T, F>::new(handler))))
    }

    /// Provides an event like [`Channel::provide`], with a clone of `state` for every request.
    ///
    /// # Errors
    /// As for [`Channel::provide`].
    ///
    /// # Cancel safety
    /// Dropped midway, it withdraws the event again.
    pub fn provide_with<S, T, R, E, F, Fut>(&self, state: S, event: impl IntoEvent, handler: F) -> Providing
    where
        S: Clone + Send + Sync + 'static,
        T: DeserializeOwned + Send + 'static,
        F: Fn(S, Request<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Serialize + 'static,
        E: Into<Fault> + 'static,
    {
        self.provide(event, move |request| handler(state.clone(), request))
    }

    /// Provides an event of raw bytes: they reach the handler untouched, and its answer the caller.
    ///
    /// # Errors
    /// As for [`Channel::provide`].
    ///
    /// # Cancel safety
    /// Dropped midway, it withdraws the event again.
    pub fn provide_raw<E, F, Fut>(&self, event: impl IntoEvent, handler: F) -> Providing
    where
        F: Fn(Request<Bytes>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, E>> + Send + 'static,
        E: Into<Fault> + 'static,
    {
        self.provide_service(event.into_event(), Service::Call(Box::new(RawHandler::new(handler))))
    }

    /// Calls an event: its provider's answer is decoded as `R`. Await it.
    pub fn call<R: DeserializeOwned>(&self, event: impl IntoEvent, argument: &(impl Serialize + ?Sized)) -> Call<R> {
        self.handle.client.call(self.place(), event.into_event(), argument).until(self.until)
    }

    /// Calls an event with raw bytes, and gets raw bytes. Await it.
    pub fn call_raw(&self, event: impl IntoEvent, argument: impl Into<Bytes>) -> Call<Bytes> {
        self.handle.client.call_raw(self.place(), event.into_event(), argument.into()).until(self.until)
    }

    /// Says something to the event's provider without wanting an answer. Await it: it is ready when the hub took it.
    pub fn send(&self, event: impl IntoEvent, value: &(impl Serialize + ?Sized)) -> Sending {
        self.handle.client.say(self.place(), event.into_event(), value, false)
    }

    /// Sends raw bytes to the event's provider. Await it: it is ready when the hub took it.
    pub fn send_raw(&self, event: impl IntoEvent, bytes: impl Into<Bytes>) -> Sending {
        self.handle.client.say_raw(self.place(), event.into_event(), bytes.into(), false)
    }

    /// Says something to every listener but oneself. Await it: it is ready when the hub took it.
    pub fn broadcast(&self, event: impl IntoEvent, value: &(impl Serialize + ?Sized)) -> Sending {
        self.handle.client.say(self.place(), event.into_event(), value, true)
    }

    /// Broadcasts raw bytes. Await it: it is ready when the hub took it.
    pub fn broadcast_raw(&self, event: impl IntoEvent, bytes: impl Into<Bytes>) -> Sending {
        self.handle.client.say_raw(self.place(), event.into_event(), bytes.into(), true)
    }

    /// Listens to the broadcasts of one event. Those that are no `T` are counted, not delivered. Await it.
    ///
    /// ```
    /// use commipc_runtime::{Channel, ListenError, Overflow};
    ///
    /// async fn follow(channel: &Channel) -> Result<(), ListenError> {
    ///     let mut prices = channel.listen::<f64>("prices").overflow(Overflow::DropNewest).queue(64).await?;
    ///     while let Some(price) = prices.next().await {
    ///         println!("{} (missed {})", *price, price.missed());
    ///     }
    ///     prices.ended().map_or(Ok(()), Err)
    /// }
    /// ```
    ///
    /// # Errors
    /// When the name is none, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it stops listening again.
    pub fn listen<T: DeserializeOwned>(&self, event: impl IntoEvent) -> Listen<T> {
        self.listen_to(event.into_event().map(Some), listen::decode_value)
    }

    /// Listens to all broadcasts of the channel. Those that are no `T` are counted, not delivered. Await it.
    ///
    /// # Errors
    /// When the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it stops listening again.
    pub fn listen_all<T: DeserializeOwned>(&self) -> Listen<T> {
        self.listen_to(Ok(None), listen::decode_value)
    }

    /// Listens to the raw broadcasts of one event, or without one, of all events of the channel. Await it.
    ///
    /// # Errors
    /// When the name is none, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it stops listening again.
    pub fn listen_raw(&self, event: Option<&str>) -> Listen<Bytes> {
        self.listen_to(event.map(EventName::new).transpose(), listen::decode_raw)
    }

    /// Listens to values and raw bytes alike, as they came. Await it.
    ///
    /// # Errors
    /// When the name is none, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it stops listening again.
    pub fn listen_payloads(&self, event: Option<&str>) -> Listen<Payload> {
        self.listen_to(event.map(EventName::new).transpose(), Some)
    }

    pub(super) fn provide_service(&self, event: Result<EventName, NameError>, service: Service) -> Providing {
        Providing::new(Arc::clone(&self.handle), event, service)
    }

    fn listen_to<T>(&self, event: Result<Option<EventName>, NameError>, decode: fn(Payload) -> Option<T>) -> Listen<T> {
        Listen::new(Arc::clone(&self.handle), event, decode)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.handle.name).finish()
    }
}

/// Asks for something with a token and waits for its end. Dropped midway, it is undone once it is done.
pub(super) async fn ask(
    driver: &Arc<ClientDriver>,
    target: Option<Target>,
    undo: Undo,
    command: impl FnOnce(Token) -> Command,
) -> Result<Token, Failure> {
    let token = lock(driver.sink().tickets()).waiting(None, target.clone());
    let mut asked = Asked { driver, token, undo: Some(undo) };
    driver.issue(command(token));
    let outcome = poll_fn(|cx| lock(driver.sink().tickets()).poll(token, cx)).await;
    asked.undo = None;
    // Kept until here, so that a handler that is refused is not dropped under a lock.
    drop(target);
    match outcome {
        Outcome::Done(result) => result.map(|()| token),
        // Nothing asked here ends with an answer.
        Outcome::Answered(_) => Ok(token),
    }
}

struct Asked<'a> {
    driver: &'a Arc<ClientDriver>,
    token: Token,
    undo: Option<Undo>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let Some(undo) = mem::take(&mut self.undo) else { return };
        let (completed, target) = lock(self.driver.sink().tickets()).abandon(self.token, undo);
        if let Some(command) = completed.undo {
            self.driver.issue(command);
        }
        drop((completed.unwanted, target));
    }
}
