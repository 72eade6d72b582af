//! Calls, sends and broadcasts: builders that do nothing until they are awaited.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::client::{Answer, Away, Command, Outgoing, Payload, Token};
use commipc_protocol::{ChannelName, EventName, Instant};
use serde::de::DeserializeOwned;

use super::ClientHandle;
use super::desk::ClientDriver;
use super::request::Request;
use super::tickets::{Outcome, Target, Undo};
use super::trace::Trace;
use crate::error::{CallError, SendError};
use crate::payload::{self, DecodeError};
use crate::sync::lock;

/// How long a call may take unless it says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// Turns a payload into what the caller wants.
pub(super) type Decode<R> = fn(Payload) -> Result<R, DecodeError>;

pub(super) fn decode_value<R: DeserializeOwned>(payload: Payload) -> Result<R, DecodeError> {
    payload::decode(&payload)
}

/// A call that is not made yet: await it.
#[must_use = "nothing is called before this is awaited"]
pub struct Call<R> {
    client: Arc<ClientHandle>,
    outgoing: Result<Outgoing, CallError>,
    deadline: Duration,
    /// By when whoever it is made for stops waiting.
    until: Option<Instant>,
    decode: Decode<R>,
}

impl<R> Call<R> {
    pub(super) fn new(client: Arc<ClientHandle>, mut outgoing: Result<Outgoing, CallError>, decode: Decode<R>) -> Self {
        if let Ok(outgoing) = &mut outgoing {
            outgoing.away = client.away;
        }
        Self { client, outgoing, deadline: DEFAULT_DEADLINE, until: None, decode }
    }

    /// How long the answer may take, at most a day. The hub and the provider are told.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = time;
        self
    }

    /// Makes the call for a request that is being handled: whatever its own deadline is, it takes no longer than that
    /// request's caller still waits. Without effect for a send, which nobody waits for. For all that a handler asks there is
    /// [`Channel::within`](crate::Channel::within).
    ///
    /// ```
    /// use commipc_runtime::{Channel, Fault, FaultCode, ProvideError, Provider, Request};
    ///
    /// async fn serve(channel: &Channel) -> Result<Provider, ProvideError> {
    ///     let total = async |channel: Channel, order: Request<u32>| {
    ///         let net: u32 = channel.call("net", &*order).within(&order).await.map_err(|_| FaultCode::HandlerFailed)?;
    ///         Ok::<_, Fault>(net + net / 5)
    ///     };
    ///     channel.provide_with(channel.clone(), "total", total).await
    /// }
    /// ```
    pub fn within<T>(self, request: &Request<T>) -> Self {
        self.until(request.deadline())
    }

    /// The same, by a time.
    pub(super) fn until(mut self, until: Option<Instant>) -> Self {
        self.until = sooner(self.until, until);
        self
    }

    /// Whether repeating the call does no harm. Told to the provider.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        if let Ok(outgoing) = &mut self.outgoing {
            outgoing.idempotent = idempotent;
        }
        self
    }

    /// What becomes of it while the connection is away: it fails at once, or waits until its deadline. With
    /// [`Away::Repeat`], a call that is [`idempotent`](Self::idempotent) is also made again if the connection goes before
    /// its answer.
    pub fn while_away(mut self, away: Away) -> Self {
        if let Ok(outgoing) = &mut self.outgoing {
            outgoing.away = away;
        }
        self
    }

    /// A CBOR map that goes with the call, for the provider to read.
    pub fn metadata(mut self, map: Bytes) -> Self {
        if let Ok(outgoing) = &mut self.outgoing {
            outgoing.metadata = map;
        }
        self
    }
}

impl<R> IntoFuture for Call<R> {
    type Output = Result<R, CallError>;
    type IntoFuture = PendingCall<R>;

    fn into_future(self) -> PendingCall<R> {
        let Self { client, outgoing, deadline, until, decode } = self;
        let deadline = Deadline { time: deadline, until };
        PendingCall { client, step: Step::Start(outgoing, deadline), decode, marker: PhantomData }
    }
}

/// A call that is being made.
///
/// Dropping it before it is ready cancels the call: the provider is told and its handler dropped. Whether it was
/// executed is then unknown.
#[must_use = "a call is made and waited for only while it is polled"]
pub struct PendingCall<R> {
    client: Arc<ClientHandle>,
    step: Step,
    decode: Decode<R>,
    marker: PhantomData<fn() -> R>,
}

enum Step {
    Start(Result<Outgoing, CallError>, Deadline),
    Waiting(Token),
    Over,
}

/// How long something may take from when it is begun, and at what time it must be over all the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) time: Duration,
    pub(super) until: Option<Instant>,
}

impl Deadline {
    pub(super) fn time_left(self, driver: &ClientDriver) -> Duration {
        self.inherited(driver).map_or(self.time, |left| left.min(self.time))
    }

    /// How long whoever it is made for still waits.
    pub(super) fn inherited(self, driver: &ClientDriver) -> Option<Duration> {
        self.until.map(|until| until.saturating_since(driver.runtime().now()))
    }
}

/// The earlier of two moments, of which either may never come.
pub(super) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

impl<R> PendingCall<R> {
    fn start(&mut self, outgoing: Outgoing, deadline: Deadline, cx: &Context<'_>) {
        let driver = &self.client.driver;
        let asked = || Target::Asked(Arc::new((outgoing.channel.clone(), outgoing.event.clone())));
        let target = driver.sink().taps().are_wanted().then(asked);
        let token = lock(driver.sink().tickets()).waiting(Some(cx.waker().clone()), target);
        self.step = Step::Waiting(token);
        let time_left = deadline.time_left(driver);
        driver.issue(Command::Call { token, outgoing, time_left });
    }
}

impl<R> PendingCall<R> {
    fn poll_answer(&mut self, cx: &Context<'_>) -> Poll<Result<Answer, CallError>> {
        let this = self;
        match mem::replace(&mut this.step, Step::Over) {
            Step::Start(Err(error), _) => Poll::Ready(Err(error)),
            Step::Start(Ok(outgoing), deadline) => {
                this.start(outgoing, deadline, cx);
                // The answer wakes the waker that was left with the ticket.
                Poll::Pending
            }
            Step::Waiting(token) => {
                let polled = lock(this.client.driver.sink().tickets()).poll(token, cx);
                match polled {
                    Poll::Pending => {
                        this.step = Step::Waiting(token);
                        Poll::Pending
                    }
                    Poll::Ready(Outcome::Answered(Ok(answer))) => Poll::Ready(Ok(answer)),
                    Poll::Ready(Outcome::Answered(Err(failure))) => Poll::Ready(Err(failure.into())),
                    // Calls end with `Answered` only.
                    Poll::Ready(Outcome::Done(_)) => Poll::Pending,
                }
            }
            Step::Over => Poll::Pending,
        }
    }

    /// Polls for the answer and the way that it has come.
    pub(super) fn poll_traced(&mut self, cx: &Context<'_>) -> Poll<Result<(R, Trace), CallError>> {
        let decode = self.decode;
        self.poll_answer(cx).map(|answer| {
            let Answer { payload, provider, path, .. } = answer?;
            Ok((decode(payload)?, Trace { provider, path }))
        })
    }
}

impl<R> Future for PendingCall<R> {
    type Output = Result<R, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let decode = this.decode;
        this.poll_answer(cx).map(|answer| decode(answer?.payload).map_err(Into::into))
    }
}

impl<R> Drop for PendingCall<R> {
    fn drop(&mut self) {
        let Step::Waiting(token) = self.step else { return };
        let driver = &self.client.driver;
        let (completed, _) = lock(driver.sink().tickets()).abandon(token, Undo::Nothing);
        // If the answer is there, nobody is left to be told.
        if completed.unwanted.is_none() {
            driver.issue(Command::Cancel { call: token });
        }
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for PendingCall<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCall").finish_non_exhaustive()
    }
}

/// A send or broadcast that is not made yet: await it.
///
/// It is ready when the hub has taken the message. Dropped before its first poll, nothing is sent; dropped later, the
/// message goes out all the same.
#[must_use = "nothing is sent before this is awaited"]
pub struct Sending {
    client: Arc<ClientHandle>,
    outgoing: Option<Result<Outgoing, SendError>>,
    broadcast: bool,
    token: Option<Token>,
}

impl Sending {
    pub(super) fn new(client: Arc<ClientHandle>, mut outgoing: Result<Outgoing, SendError>, broadcast: bool) -> Self {
        if let Ok(outgoing) = &mut outgoing {
            outgoing.away = client.away;
        }
        Self { client, outgoing: Some(outgoing), broadcast, token: None }
    }

    /// What becomes of it while the connection is away: it fails at once, or waits for up to half a minute. What was on its
    /// way when the connection went is never said to be taken.
    pub fn while_away(mut self, away: Away) -> Self {
        if let Some(Ok(outgoing)) = &mut self.outgoing {
            outgoing.away = away;
        }
        self
    }

    /// A CBOR map that goes with the message, for the receivers to read.
    pub fn metadata(mut self, map: Bytes) -> Self {
        if let Some(Ok(outgoing)) = &mut self.outgoing {
            outgoing.metadata = map;
        }
        self
    }
}

impl Future for Sending {
    type Output = Result<(), SendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let driver = &this.client.driver;
        match this.outgoing.take() {
            Some(Err(error)) => return Poll::Ready(Err(error)),
            Some(Ok(outgoing)) => {
                let token = lock(driver.sink().tickets()).waiting(Some(cx.waker().clone()), None);
                this.token = Some(token);
                driver.issue(if this.broadcast {
                    Command::Broadcast { token, outgoing }
                } else {
                    Command::Send { token, outgoing }
                });
                return Poll::Pending;
            }
            None => {}
        }
        let Some(token) = this.token else { return Poll::Pending };
        let polled = lock(driver.sink().tickets()).poll(token, cx);
        match polled {
            Poll::Ready(Outcome::Done(result)) => {
                this.token = None;
                Poll::Ready(result.map_err(Into::into))
            }
            // Sends end with `Sent` only.
            Poll::Ready(Outcome::Answered(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            let gone = lock(self.client.driver.sink().tickets()).abandon(token, Undo::Nothing);
            drop(gone);
        }
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("broadcast", &self.broadcast).finish_non_exhaustive()
    }
}

/// A message out of its parts.
pub(super) fn outgoing(channel: ChannelName, event: EventName, payload: Payload, guarded: bool) -> Outgoing {
    Outgoing { channel, event, payload, metadata: Bytes::new(), idempotent: false, guarded, away: Away::Fail }
}
