//! What a handler gets.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::client::{Incoming, Source};
use commipc_protocol::{Address, ChannelName, EventName, Instant, UnixMillis};

use crate::runtime::{BoxFuture, Runtime};

/// A request for a provider: the value that was sent, and what is known about it.
///
/// Dereferences to the value. When the caller gives up, the handler's future is dropped where it waits.
pub struct Request<T> {
    value: T,
    about: About,
}

/// What is known of a request beside its value.
pub(super) struct About {
    pub(super) source: Arc<Source>,
    pub(super) metadata: Bytes,
    pub(super) sent_at: UnixMillis,
    pub(super) hops: u8,
    pub(super) deadline: Option<Instant>,
    pub(super) idempotent: bool,
    pub(super) runtime: Arc<dyn Runtime>,
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
        &self.about.source.sender
    }

    /// When the caller will have given up, on the clock of [`Runtime::now`]. `None` for a send, which nobody waits for.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.about.deadline
    }

    /// How long the caller still waits; a nested call may take no longer. `None` for a send.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.about.deadline.map(|deadline| deadline.saturating_since(self.about.runtime.now()))
    }

    /// The caller's metadata, a CBOR map as bytes, or empty.
    #[must_use]
    pub const fn metadata(&self) -> &Bytes {
        &self.about.metadata
    }

    /// When it was said, by the caller's wall clock.
    #[must_use]
    pub const fn sent_at(&self) -> UnixMillis {
        self.about.sent_at
    }

    /// How many hubs it passed.
    #[must_use]
    pub const fn hops(&self) -> u8 {
        self.about.hops
    }

    /// The channel it came on.
    #[must_use]
    pub fn channel(&self) -> &ChannelName {
        &self.about.source.channel
    }

    /// The event it asks for.
    #[must_use]
    pub fn event(&self) -> &EventName {
        &self.about.source.event
    }

    /// Whether the caller says that repeating it does no harm.
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        self.about.idempotent
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
    ) -> (commipc_protocol::client::Payload, Self) {
        let Incoming { source, payload, metadata, sent_at, hops } = incoming;
        let runtime = Arc::clone(runtime);
        (payload, Self { source, metadata, sent_at, hops, deadline, idempotent, runtime })
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
