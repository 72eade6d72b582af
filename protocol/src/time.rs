//! Time as an argument. The core never asks what time it is; it is told.

use core::ops::Add;
use core::time::Duration;

/// A point on the driver's monotonic clock, in nanoseconds since an origin that only the driver knows.
///
/// There is no `now()` and no `elapsed()`: whoever feeds the machine feeds the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);

    /// The instant `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since 1970-01-01 UTC on the driver's wall clock, which may jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

/// Both clocks, read once by the driver for a batch of inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For every deadline.
    pub mono: Instant,
    /// For `sent at` and for judging how old a message is; never for a deadline.
    pub wall: UnixMillis,
}

/// When a machine next wants [`Input::Timeout`](crate::Input::Timeout), and why.
///
/// May be earlier than needed, never later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The moment on the monotonic clock.
    pub at: Instant,
    /// What falls due.
    pub reason: TimerReason,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TimerReason {
    /// A connection must have proved itself by then.
    Handshake,
    /// The rest of a started frame must have come by then.
    PartialFrame,
    /// A channel's owner must be back, an offer taken, or a record asked for by then.
    Ownership,
    /// A join that was challenged must have been proved by then.
    Join,
    /// A join that failed is told so then.
    JoinFailed,
    /// A connection that failed to prove itself is told so then.
    LoginFailed,
    /// What was left out in telling observers is summed up then.
    Summary,
    /// The oldest message that came over a bridge is forgotten then.
    Doubles,
    /// What still runs of what is drained is ended then.
    Drain,
    /// Some of what the driver holds must have been written by then.
    Write,
    /// The hub must have answered what it was asked about a channel.
    Registration,
    /// Something must have been heard by then, or it is asked whether anybody is there.
    Heartbeat,
    /// A connection that was lost is made again then, or a channel opened again.
    Reconnect,
    /// The number of a sender's last broadcast is told again.
    Beacon,
    /// A call or send must have ended by then.
    Call,
}
