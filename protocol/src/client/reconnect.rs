//! A connection that comes back: when it is dialled again, and what ends it for good.
//!
//! ```text
//!  Ready ──link lost──► waiting ──► Dialling ──► … ──► Ready, then everything is restored
//!                          ▲  at once, then within 1 s, then 1…2 s, 2…4 s … 30…60 s later
//!                          └──────────── not reached, refused for now, lost again
//! ```

use core::time::Duration;

use super::{Client, Due, Event, Failure, Phase, Token};
use crate::error::{CloseReason, Refusal, Violation};
use crate::machine::Flush;
use crate::names::{ChannelName, EventName};
use crate::time::TimerReason;
use crate::timers::TimerId;

/// How a lost connection is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconnect {
    /// The longest wait before the second try; doubled with each further one, of which each waits half of that at least. The
    /// first is made at once.
    pub first: Duration,
    /// The longest wait at all.
    pub longest: Duration,
    /// How many tries in a row; 0 for any number.
    pub tries: u32,
    /// Whether a connection that never stood is tried again, too.
    pub initial: bool,
    /// How long a connection that stands again waits for what the hub does not open yet, a day at most: a channel whose owner
    /// is not back, or for which there is no room. What is missing then is told by [`Unrestored::Channel`], and everything
    /// else is as it was; it is tried on.
    pub settle: Duration,
    /// How long in all, connected, such a channel is tried on: then [`Event::ChannelClosed`] has the hub's last word.
    pub missing: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            tries: 0,
            initial: false,
            settle: Duration::from_secs(30),
            missing: Duration::from_secs(600),
        }
    }
}

/// What an application is told of a connection that comes back by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReconnectEvent {
    /// The connection is away, and is made again by itself. What was pending has had its event; what was open comes back.
    Lost {
        /// Why.
        reason: CloseReason,
        /// When the next try is made.
        retry: Duration,
    },
    /// After the connection has come back, so many channels are as they were, of so many.
    Restoring {
        /// Those that are.
        done: usize,
        /// All that were open.
        of: usize,
    },
    /// Everything is as it was, but for what was told otherwise.
    Restored {
        /// How many channels.
        channels: usize,
    },
    /// A channel that was told to be missing is as it was.
    Returned {
        /// Which.
        channel: ChannelName,
    },
    /// Something that was there before the connection went is not any more, or a channel not yet. For a channel that is over:
    /// [`Event::ChannelClosed`].
    Unrestored {
        /// What.
        what: Unrestored,
        /// Why.
        why: Failure,
    },
}

/// What did not come back with a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrestored {
    /// A channel that the hub does not open yet. It is tried on: [`ReconnectEvent::Returned`] tells that it is as it was, or
    /// [`Event::ChannelClosed`] that it will not be.
    #[error("the channel {0}, so far")]
    Channel(ChannelName),
    /// A provider.
    #[error("the provider of {event} in {channel}")]
    Provider {
        /// The token of its command.
        token: Token,
        /// The channel.
        channel: ChannelName,
        /// The event.
        event: EventName,
    },
    /// A listener.
    #[error("a listener in {channel}")]
    Listener {
        /// The token of its command.
        token: Token,
        /// The channel.
        channel: ChannelName,
    },
    /// That we own a channel.
    #[error("the ownership of {0}")]
    Ownership(ChannelName),
}

/// Refusals that nobody has proved to come from the hub: so many in a row are believed.
const CLAIMS: u32 = 5;

/// Where the tries stand.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// In a row.
    count: u32,
    /// Refusals in a row that nobody has proved.
    claims: u32,
    /// Proofs of ours in a row that the hub has not answered in time.
    silences: u32,
    /// The refusal at hand came with the hub's proof.
    pub(super) proved: bool,
    /// It stood once.
    stood: bool,
    /// The application knows that it is away.
    told: bool,
    since: Option<crate::time::Instant>,
    /// Until when channels that come back are waited for.
    pub(super) settles: Option<TimerId>,
}

impl Client {
    /// Whether the connection is away, and comes back by itself.
    pub(super) const fn is_away(&self) -> bool {
        let on_its_way = self.redial.is_some() || !matches!(self.phase, Phase::Idle);
        !matches!(self.phase, Phase::Ready(_)) && self.config.reconnect.is_some() && on_its_way
    }

    /// The connection stands: again, if it was said to be away.
    pub(super) fn stands(&mut self) {
        (self.tries.since, self.tries.stood) = (Some(self.now.mono), true);
        (self.tries.claims, self.tries.silences) = (0, 0);
        let again = core::mem::take(&mut self.tries.told);
        self.restore_channels(again);
        self.unpark();
    }

    /// How long to wait for the next try, if there is to be one.
    pub(super) fn next_try(&mut self, reason: CloseReason) -> Option<Duration> {
        let policy = self.config.reconnect?;
        let stood = self.tries.since.take();
        let proved = core::mem::take(&mut self.tries.proved);
        if !(self.tries.stood || policy.initial) || self.is_final(reason, proved) {
            return None;
        }
        // One that is lost as soon as it stands is no reason to begin anew.
        if stood.is_some_and(|since| self.now.mono.saturating_since(since) >= policy.first) {
            self.tries.count = 0;
        }
        self.tries.count = self.tries.count.saturating_add(1);
        if policy.tries > 0 && self.tries.count > policy.tries {
            return None;
        }
        let Some(doublings) = self.tries.count.checked_sub(2) else { return Some(Duration::ZERO) };
        let most = policy.first.saturating_mul(1 << doublings.min(20)).min(policy.longest);
        // Whoever was cut off together is spread by the first wait. The later ones keep them apart, and from trying three
        // times in the first second.
        let least = if doublings == 0 { Duration::ZERO } else { most / 2 };
        Some(least + self.jitter(most - least))
    }

    /// Something between nothing and this much: so that those who were cut off together do not come back together.
    pub(super) fn jitter(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.waits.u64() % most.saturating_add(1).max(1))
    }

    fn is_final(&mut self, reason: CloseReason, proved: bool) -> bool {
        let CloseReason::Refused(refusal) = reason else {
            self.tries.claims = 0;
            if reason != CloseReason::Violation(Violation::HandshakeTimeout) {
                self.tries.silences = 0;
            }
            return matches!(reason, CloseReason::Local | CloseReason::Goodbye(Refusal::Superseded));
        };
        if refusal.is_retryable() {
            return false;
        }
        self.tries.claims = self.tries.claims.saturating_add(1);
        proved || self.tries.claims >= CLAIMS
    }

    /// The hub has not answered our proof in time. Of wrong ones it refuses each later than the one before, whoever of the
    /// same credential gives them: after one that it has refused this is another refusal.
    pub(super) fn proof_unanswered(&mut self) {
        self.tries.silences = self.tries.silences.saturating_add(1);
        if self.tries.claims == 0 {
            return self.violated(Violation::HandshakeTimeout);
        }
        self.close_link(Flush::Nothing);
        self.lose(CloseReason::Refused(Refusal::AuthFailed));
    }

    /// Waits longer for the answer to our proof after each that had none, at most for as long as a hub keeps a refusal back.
    pub(super) fn outwait_refusal(&mut self) {
        if self.tries.silences == 0 {
            return;
        }
        let limits = &self.config.limits;
        let wait = limits.handshake.saturating_mul(1 << self.tries.silences.min(20));
        let longest = limits.failure_delay_max.saturating_add(limits.handshake);
        let due = self.now.mono + wait.min(longest);
        self.stop_handshake_timer();
        self.handshake_timer = Some(self.timers.insert(due, TimerReason::Handshake, Due::Handshake));
    }

    /// Dials again after this time.
    pub(super) fn redial_in(&mut self, wait: Duration) {
        self.redial = Some(self.timers.insert(self.now.mono + wait, TimerReason::Reconnect, Due::Redial));
    }

    pub(super) fn stop_redialling(&mut self) {
        if let Some(timer) = self.redial.take() {
            self.timers.cancel(timer);
        }
    }

    /// What was said of a connection that is over: told once everything that hung on it has had its end.
    pub(super) fn tell_lost(&mut self, reason: CloseReason, wait: Duration) {
        self.redial_in(wait);
        self.tries.told = true;
        self.event(Event::Reconnect(ReconnectEvent::Lost { reason, retry: wait }));
    }
}
