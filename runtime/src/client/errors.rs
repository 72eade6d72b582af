//! What went wrong on a connection, in one place: for logs, and for what nobody waits for.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use commipc_protocol::client::{CallFailure, Event, Failure, ReconnectEvent, StreamEvent, Unrestored};
use commipc_protocol::{Address, ChannelName, CloseReason, Code, EventName, Fault, Misuse};
use futures_core::Stream;
use thiserror::Error;

use super::Client;
use super::outlet::{Outlet, Outlets};
use super::request::Facts;
use super::subscription::{Subscription, subscribe};
use crate::error::close_code;

impl Client {
    /// What goes wrong from now on: the connection, what the hub refuses, and requests that end with a fault here. Whoever
    /// waits for one of these is told as ever.
    ///
    /// At most [`QUEUE_MAX`](crate::QUEUE_MAX) wait, or as many as [`Errors::queue`] says; then the oldest is dropped, and
    /// [`ClientError::Missed`] stands in its place. It does not keep the connection open, and hears of its end.
    pub fn errors(&self) -> Errors {
        Errors { outlet: self.handle.driver.sink().troubles().open(), next: None }
    }

    /// Runs `handler` for each of [`Client::errors`], one at a time, until what this returns is dropped or the connection is
    /// over. It does not keep the connection open, detached or not.
    ///
    /// ```
    /// use commipc_runtime::{Client, ClientError, Subscription};
    ///
    /// fn report(client: &Client) -> Subscription {
    ///     client.on_error(async |error: ClientError| eprintln!("{error} ({})", error.code().0))
    /// }
    /// ```
    pub fn on_error<F, Fut>(&self, handler: F) -> Subscription
    where
        F: FnMut(ClientError) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut errors = self.errors();
        subscribe(&**self.handle.driver.runtime(), move |cx| errors.poll_error(cx), handler)
    }
}

/// What went wrong on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// So many errors before the next were dropped, because nobody took them.
    #[error("{0} errors were dropped")]
    Missed(u64),
    /// The connection is over, and not because this side closed it.
    #[error("the connection is over: {0}")]
    Connection(CloseReason),
    /// The connection is away, and is tried again.
    #[error("the connection is lost and tried again: {0}")]
    Lost(CloseReason),
    /// Something that was there before the connection went did not come back with it, or a channel not yet: messages that
    /// may wait ([`Away::Wait`](crate::Away::Wait)) wait for it, and it comes, or [`ClientError::Channel`] says that it is over.
    #[error("not restored: {what}: {why}")]
    Unrestored {
        /// What.
        what: Unrestored,
        /// Why.
        why: Failure,
    },
    /// The hub has ended the membership of a channel.
    #[error("the channel {channel} is over: {why}")]
    Channel {
        /// Which.
        channel: ChannelName,
        /// Why.
        why: Failure,
    },
    /// The hub said no to something that was asked.
    #[error("the hub refused: {0}")]
    Refused(Failure),
    /// A request or a send ended with a fault here: its handler failed or panicked, or it was not what the handler takes.
    #[error("{channel}/{event} failed for {caller}: {fault}")]
    Handler {
        /// The channel.
        channel: ChannelName,
        /// The event that is provided.
        event: EventName,
        /// Who asked.
        caller: Address,
        /// What the caller is told.
        fault: Fault,
    },
}

impl ClientError {
    /// The stable number.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Missed(_) => Code(Misuse::TooMany.code()),
            Self::Connection(reason) | Self::Lost(reason) => close_code(*reason),
            Self::Channel { why, .. } | Self::Unrestored { why, .. } => why.code(),
            Self::Refused(failure) => failure.code(),
            Self::Handler { fault, .. } => Code(fault.code),
        }
    }
}

/// What goes wrong, as it does. Ends with the connection.
#[must_use = "errors are told only to who listens"]
pub struct Errors {
    outlet: Outlet<ClientError>,
    /// Comes after [`ClientError::Missed`].
    next: Option<ClientError>,
}

impl Errors {
    /// How many errors may wait, at least 1.
    pub fn queue(self, errors: usize) -> Self {
        self.outlet.set_length(errors);
        self
    }

    /// Waits for the next error; `None` when the connection is over and has said why.
    ///
    /// Cancel safe: an error is either returned or still there.
    pub async fn next(&mut self) -> Option<ClientError> {
        poll_fn(|cx| self.poll_error(cx)).await
    }

    /// Polls for the next error, for hand-written futures.
    pub fn poll_error(&mut self, cx: &mut Context<'_>) -> Poll<Option<ClientError>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(next));
        }
        let Poll::Ready(next) = self.outlet.poll(cx) else { return Poll::Pending };
        Poll::Ready(next.map(|(error, missed)| {
            if missed == 0 {
                return error;
            }
            self.next = Some(error);
            ClientError::Missed(missed)
        }))
    }
}

impl Stream for Errors {
    type Item = ClientError;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientError>> {
        self.get_mut().poll_error(cx)
    }
}

impl fmt::Debug for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errors(..)")
    }
}

/// Where the errors of a client are told.
#[derive(Default)]
pub(super) struct Troubles(Arc<Outlets<ClientError>>);

impl Troubles {
    fn open(&self) -> Outlet<ClientError> {
        self.0.open(None)
    }

    pub(super) fn close(&self) {
        self.0.close();
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.0.are_wanted()
    }

    /// A request that came in ends with a fault.
    pub(super) fn failed(&self, facts: &Facts, fault: &Fault) {
        if self.are_wanted() {
            let source = &facts.source;
            let (channel, event, caller) = (source.channel.clone(), source.event.clone(), source.sender.clone());
            self.0.tell(None, &ClientError::Handler { channel, event, caller, fault: fault.clone() });
        }
    }

    /// Tells what is an error of what came.
    pub(super) fn note(&self, event: &Event) {
        let error = match event {
            Event::Done { result: Err(failure), .. } | Event::Sent { result: Err(failure), .. } => refused(*failure),
            Event::Answered { result: Err(failure), .. }
            | Event::Stream(StreamEvent::Ended { result: Err(failure), .. }) => match failure {
                CallFailure::Failed { failure, .. } => refused(*failure),
                // What another provider says to us is no trouble of this connection.
                CallFailure::Fault(_) => None,
            },
            Event::ChannelClosed { channel, why } => {
                Some(ClientError::Channel { channel: channel.clone(), why: *why })
            }
            Event::Reconnect(ReconnectEvent::Lost { reason, .. }) => Some(ClientError::Lost(*reason)),
            Event::Reconnect(ReconnectEvent::Unrestored { what, why }) => Some(ClientError::Unrestored { what: what.clone(), why: *why }),
            Event::Closed(CloseReason::Local) => None,
            Event::Closed(reason) => Some(ClientError::Connection(*reason)),
            Event::Done { .. }
            | Event::Sent { .. }
            | Event::Answered { .. }
            | Event::Stream(_)
            | Event::Request(_)
            | Event::RequestEnded { .. }
            | Event::Message(_)
            | Event::Gap(_)
            | Event::Draining { .. }
            | Event::OwnerChanged { .. }
            | Event::PasswordChanged { .. }
            | Event::DeriveKey { .. }
            | Event::DeriveChannelKey { .. }
            | Event::Ready(_)
            | Event::Reconnect(ReconnectEvent::Restoring { .. } | ReconnectEvent::Restored { .. } | ReconnectEvent::Returned { .. })
            // What follows from it is the end of the connection, which tells of it.
            | Event::Violation(_)
            | Event::Dropped(_) => None,
        };
        if let Some(error) = error {
            self.0.tell(None, &error);
        }
    }
}

/// Only what the hub says. What ends here, by a deadline or with the connection, is known to who asked.
const fn refused(failure: Failure) -> Option<ClientError> {
    match failure {
        Failure::Refused(_) | Failure::RefusedCode(_) => Some(ClientError::Refused(failure)),
        Failure::Local(_) => None,
    }
}
