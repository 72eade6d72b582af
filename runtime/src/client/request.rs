//! What a handler gets.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::client::{Incoming, Payload, Source};
use commipc_protocol::{Address, ChannelName, EventName, HubId, Instant, UnixMillis};

use super::provide::Ended;
use super::tap::Place;
use crate::runtime::{BoxFuture, Runtime};

/// A request for a provider: the value that was sent, and what is known about it.
///
/// Dereferences to the value. When the caller gives up, the handler's future is dropped where it waits, unless it is
/// [detached](Request::detach).
pub struct Request<T> {
    value: T,
    about: About,
}

/// What is known of a request beside its value.
pub(super) struct About {
    facts: Arc<Facts>,
    runtime: Arc<dyn Runtime>,
}

/// What a handler and the task that runs it share of a request.
pub(super) struct Facts {
    pub(super) source: Arc<Source>,
    metadata: Bytes,
    sent_at: UnixMillis,
    hops: u8,
    deadline: Option<Instant>,
    idempotent: bool,
    detached: AtomicBool,
    /// The caller gave up.
    pub(super) ended: Ended,
}

impl Facts {
    /// Whether the handler goes on without its caller.
    pub(super) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    /// What was asked.
    pub(super) fn place(&self) -> Place {
        (self.source.channel.clone(), self.source.event.clone())
    }
}

impl<T> Request<T> {
    pub(super) const fn new(value: T, about: About) -> Self {
        Self { value, about }
    }

    /// The value alone.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Who asks: its id and its hub, as the hub has checked them.
    #[must_use]
    pub fn caller(&self) -> &Address {
        &self.about.facts.source.sender
    }

    /// When the caller will have given up, on the clock of [`Runtime::now`]. `None` for a send, which nobody waits for, and
    /// for a stream or exchange without a [total deadline](crate::StreamCall::total_deadline), which lasts as long as its
    /// caller wants.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.about.facts.deadline
    }

    /// How long the caller still waits, `None` as for [`Request::deadline`]. What is asked for this request takes no longer
    /// if that is said, by [`Channel::within`](crate::Channel::within) or [`Call::within`](crate::Call::within).
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.about.facts.deadline.map(|deadline| deadline.saturating_since(self.about.runtime.now()))
    }

    /// The caller's metadata, a CBOR map as bytes, or empty.
    #[must_use]
    pub fn metadata(&self) -> &Bytes {
        &self.about.facts.metadata
    }

    /// When it was said, by the caller's wall clock.
    #[must_use]
    pub fn sent_at(&self) -> UnixMillis {
        self.about.facts.sent_at
    }

    /// How many hubs it passed.
    #[must_use]
    pub fn hops(&self) -> u8 {
        self.about.facts.hops
    }

    /// The hubs it has come through before the own one, the caller's first; empty if the caller is at the own one.
    #[must_use]
    pub fn path(&self) -> &[HubId] {
        &self.about.facts.source.path
    }

    /// The channel it came on.
    #[must_use]
    pub fn channel(&self) -> &ChannelName {
        &self.about.facts.source.channel
    }

    /// The event it asks for.
    #[must_use]
    pub fn event(&self) -> &EventName {
        &self.about.facts.source.event
    }

    /// Whether the caller says that repeating it does no harm.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.about.facts.idempotent
    }

    /// Lets the handler go on to its end when the caller gives up, or the connection is lost; nobody hears its answer
    /// then. For what must not be left half done. It keeps its place among those that run until then.
    ///
    /// A handler's future is dropped only where it waits, so that from the call of this on nothing is lost. A stream is
    /// dropped with its caller all the same.
    ///
    /// ```
    /// use commipc_runtime::{Channel, Fault, ProvideError, Provider, Request};
    ///
    /// async fn serve(channel: &Channel) -> Result<Provider, ProvideError> {
    ///     let transfer = async |sum: Request<u64>| {
    ///         sum.detach();
    ///         take(*sum).await;
    ///         give(*sum).await;
    ///         Ok::<_, Fault>(())
    ///     };
    ///     channel.provide("transfer", transfer).await
    /// }
    /// # async fn take(_: u64) {}
    /// # async fn give(_: u64) {}
    /// ```
    pub fn detach(&self) {
        self.about.facts.detached.store(true, Ordering::Release);
    }

    /// Waits, on the runtime the client uses. Dropping the future gives the wait up.
    pub fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let runtime = &self.about.runtime;
        runtime.sleep_until(runtime.now() + time)
    }

    /// Starts a task on the runtime the client uses. It goes on whatever becomes of the request.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.about.runtime.spawn(Box::pin(task));
    }
}

impl About {
    /// Splits what came in into its payload and what is known about it.
    pub(super) fn split(
        incoming: Incoming,
        deadline: Option<Instant>,
        idempotent: bool,
        runtime: &Arc<dyn Runtime>,
    ) -> (Payload, Self) {
        let Incoming { source, payload, metadata, sent_at, hops } = incoming;
        let (detached, ended) = (AtomicBool::new(false), Ended::default());
        let facts = Facts { source, metadata, sent_at, hops, deadline, idempotent, detached, ended };
        (payload, Self { facts: Arc::new(facts), runtime: Arc::clone(runtime) })
    }

    pub(super) const fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }
}

impl<T> Deref for Request<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("channel", self.channel())
            .field("event", self.event())
            .field("caller", self.caller())
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}
