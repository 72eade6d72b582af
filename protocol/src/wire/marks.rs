//! Since when what was written for a link waits, for the few links where that matters.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::time::Instant;

/// Marks lie at least so far apart.
const APART: Duration = Duration::from_millis(100);

/// Where parts of what was written end, and since when they wait.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Bytes that have left the driver's hands.
    gone: u64,
    list: VecDeque<(Instant, u64)>,
}

impl Marks {
    /// Notes that the last of so many bytes which have not left the driver's hands waits from now on.
    pub(crate) fn mark(&mut self, now: Instant, left: usize) {
        let end = self.gone + left as u64;
        match self.list.back_mut() {
            Some((since, last)) if now.saturating_since(*since) < APART => *last = end,
            Some(_) | None => self.list.push_back((now, end)),
        }
    }

    /// So many bytes more have left the driver's hands.
    pub(crate) fn written(&mut self, bytes: usize) {
        self.gone += bytes as u64;
        while self.list.front().is_some_and(|(_, end)| *end <= self.gone) {
            self.list.pop_front();
        }
    }

    /// Whether the oldest of what was noted has waited for so long, to within a tenth of a second.
    pub(crate) fn is_late(&self, now: Instant, time: Duration) -> bool {
        self.list.front().is_some_and(|(since, _)| *since + time <= now)
    }
}
