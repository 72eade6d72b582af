//! On which way an answer has come.

use std::fmt;
use std::future::{Future, IntoFuture as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use commipc_protocol::{Address, HubId};

use super::call::{Call, PendingCall};
use crate::error::CallError;

/// Who answered a call, and through which hubs the answer has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// Who answered.
    pub provider: Address,
    /// The hubs before the own one, the provider's first; empty if the provider is at the own one.
    pub path: Vec<HubId>,
}

impl<R> Call<R> {
    /// Makes the call, and tells on which way its answer has come.
    ///
    /// # Cancel safety
    /// As for the call itself: dropping it before it is ready cancels the call.
    pub fn traced(self) -> TracedCall<R> {
        TracedCall(self.into_future())
    }
}

/// A call that is being made, and that tells on which way its answer has come.
#[must_use = "a call is made and waited for only while it is polled"]
pub struct TracedCall<R>(PendingCall<R>);

impl<R> Future for TracedCall<R> {
    type Output = Result<(R, Trace), CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.poll_traced(cx)
    }
}

impl<R> fmt::Debug for TracedCall<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TracedCall").field(&self.0).finish()
    }
}
