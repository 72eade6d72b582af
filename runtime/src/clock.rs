//! The machine's clocks on top of the system's.

use std::sync::OnceLock;
use std::time::{Instant as SystemInstant, SystemTime, UNIX_EPOCH};

use commipc_protocol::{Instant, UnixMillis};

/// Nanoseconds since this process first asked.
#[must_use]
pub fn monotonic() -> Instant {
    Instant::from_nanos(u64::try_from(origin().elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970.
#[must_use]
pub fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The system's own instant for one of [`monotonic`], for timers that want that.
///
/// An instant too far in the future for the system becomes one in thirty years.
#[must_use]
pub fn to_system(at: Instant) -> SystemInstant {
    const THIRTY_YEARS: std::time::Duration = std::time::Duration::from_secs(30 * 365 * 86_400);
    let since = std::time::Duration::from_nanos(at.as_nanos());
    origin().checked_add(since.min(THIRTY_YEARS)).unwrap_or_else(origin)
}

/// One origin for the process: instants of different clients can be compared.
fn origin() -> SystemInstant {
    static ORIGIN: OnceLock<SystemInstant> = OnceLock::new();
    *ORIGIN.get_or_init(SystemInstant::now)
}
