//! Messages that a client has not believed.

use std::sync::atomic::{AtomicU64, Ordering};

use commipc_protocol::client::Dropped;

use super::Client;

/// How many messages a client has refused since it connected: on protected channels nothing counts that no member has
/// signed, whoever delivers it. An honest hub that has just changed a password may cause a few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedMessages {
    /// Those whose signature does not fit what they say.
    pub altered: u64,
    /// Those without a signature, or of another password's time.
    pub unsigned: u64,
    /// Those that were heard before, or are older than the connection.
    pub repeated: u64,
}

/// The counters behind [`RefusedMessages`].
#[derive(Debug, Default)]
pub(super) struct Refusals {
    altered: AtomicU64,
    unsigned: AtomicU64,
    repeated: AtomicU64,
}

impl Refusals {
    /// Counts a frame that was dropped, if it was not believed.
    pub(super) fn note(&self, why: Dropped) {
        let counter = match why {
            Dropped::BadSignature => &self.altered,
            Dropped::WrongEpoch => &self.unsigned,
            Dropped::Replayed | Dropped::Stale | Dropped::Own => &self.repeated,
            // What leads nowhere, for honest reasons too.
            Dropped::EndedRoute | Dropped::Mismatch | Dropped::NoListener | Dropped::TooManySenders => {
                return tracing::debug!(?why, "a frame was dropped");
            }
            _ => return tracing::debug!(?why, "a frame was dropped"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(?why, "a message was refused");
    }

    fn read(&self) -> RefusedMessages {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Self { altered, unsigned, repeated } = self;
        RefusedMessages { altered: read(altered), unsigned: read(unsigned), repeated: read(repeated) }
    }
}

impl Client {
    /// How many messages were refused because nobody who may has said them.
    #[must_use]
    pub fn refused_messages(&self) -> RefusedMessages {
        self.handle.driver.sink().refusals().read()
    }
}
