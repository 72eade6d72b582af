//! Failed logins: the first few are told at once, further ones wait longer and longer.
//!
//! Counted by source and credential, so that one who guesses slows down nobody else. A login that succeeds is never held
//! up, and forgives what failed before it.

use alloc::collections::BTreeMap;
use core::net::IpAddr;
use core::time::Duration;

use super::Limits;
use crate::machine::Peer;
use crate::time::Instant;

/// Where a connection comes from, as far as sources differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// This machine: one source for all, or a Unix socket would be as slow as its worst user.
    Local,
    /// An address of IPv4, or the network that IPv6 gives to one site.
    Network([u8; 8]),
}

impl Source {
    pub(crate) fn of(peer: &Peer) -> Self {
        let mut network = [0; 8];
        match peer.source.map(|address| address.to_canonical()) {
            None => return Self::Local,
            Some(IpAddr::V4(address)) => {
                // No address of IPv6 begins so: the second half tells the two apart.
                network = [0, 0, 0, 0xff, 0, 0, 0, 0];
                if let Some(place) = network.last_chunk_mut() {
                    *place = address.octets();
                }
            }
            Some(IpAddr::V6(address)) => {
                if let Some(first) = address.octets().first_chunk() {
                    network = *first;
                }
            }
        }
        Self::Network(network)
    }
}

/// One who may be guessing: a source, and the hash of the credential it names.
pub(super) type Guesser = (Source, u64);

/// Who failed how often.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: BTreeMap<Guesser, Failures>,
    /// By the last failure: the first is forgotten first.
    by_age: BTreeMap<(Instant, Guesser), ()>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Throttle {
    /// Counts a failure; tells how long the answer has to wait.
    pub(super) fn failed(&mut self, guesser: Guesser, now: Instant, limits: &Limits) -> Duration {
        self.forget_before(now, limits);
        let count = self.forgive(guesser).map_or(1, |known| known.count.saturating_add(1));
        while self.failures.len() >= limits.failure_table.max(1) {
            let Some(((_, quiet), ())) = self.by_age.pop_first() else { break };
            self.failures.remove(&quiet);
        }
        self.failures.insert(guesser, Failures { count, last: now });
        self.by_age.insert((now, guesser), ());
        match count.saturating_sub(limits.free_failures) {
            0 => Duration::ZERO,
            excess => {
                let doubled = 1_u32.checked_shl(excess - 1).unwrap_or(u32::MAX);
                limits.failure_delay.saturating_mul(doubled).min(limits.failure_delay_max)
            }
        }
    }

    /// A login succeeded.
    pub(super) fn succeeded(&mut self, guesser: Guesser) {
        self.forgive(guesser);
    }

    fn forgive(&mut self, guesser: Guesser) -> Option<Failures> {
        let known = self.failures.remove(&guesser)?;
        self.by_age.remove(&(known.last, guesser));
        Some(known)
    }

    fn forget_before(&mut self, now: Instant, limits: &Limits) {
        while let Some(first) = self.by_age.first_entry() {
            let (last, guesser) = *first.key();
            // Counted from when the longest wait that it may have earned is over.
            if last + limits.failure_delay_max.saturating_mul(2) > now {
                return;
            }
            first.remove();
            self.failures.remove(&guesser);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Transport;

    const ANYBODY: Guesser = (Source::Local, 1);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn delays(throttle: &mut Throttle, guesser: Guesser, count: usize) -> alloc::vec::Vec<u64> {
        (0..count).map(|_| throttle.failed(guesser, at(0), &Limits::default()).as_secs()).collect()
    }

    #[test]
    fn v20_guesses_wait_longer_and_longer() {
        let mut throttle = Throttle::default();
        let waits = delays(&mut throttle, ANYBODY, 16);
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(delays(&mut throttle, (Source::Local, 2), 1), [0], "another credential");
        assert_eq!(delays(&mut throttle, (Source::Network([1; 8]), 1), 1), [0], "another source");
        throttle.succeeded(ANYBODY);
        assert_eq!(delays(&mut throttle, ANYBODY, 1), [0], "forgiven");
        assert_eq!(delays(&mut throttle, ANYBODY, 1_000).last(), Some(&300), "no overflow");
    }

    #[test]
    fn what_is_quiet_is_forgotten_and_the_table_is_bounded() {
        let mut throttle = Throttle::default();
        let limits = Limits { failure_table: 3, ..Limits::default() };
        delays(&mut throttle, ANYBODY, 9);
        for credential in 2..10 {
            throttle.failed((Source::Local, credential), at(1), &limits);
            assert!(throttle.failures.len() <= 3 && throttle.by_age.len() == throttle.failures.len());
        }
        assert_eq!(throttle.failed(ANYBODY, at(2), &limits), Duration::ZERO, "the oldest had to go");
        throttle.failed(ANYBODY, at(700), &limits);
        assert_eq!(throttle.failures.len(), 1, "after ten minutes nobody is remembered");
    }

    #[test]
    fn sources_are_addresses_and_sites() {
        let of = |text: &str| Source::of(&Peer { source: text.parse().ok(), ..Peer::unknown(Transport::Tcp) });
        assert_eq!(of("unknown"), Source::Local);
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
    }
}
