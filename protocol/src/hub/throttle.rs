//! Failed logins: the first few are told at once, further ones wait longer and longer.
//!
//! Counted by source and credential, so that one who guesses slows down nobody else; and by source alone, more generously,
//! so that it is of no use to name other credentials. A login that succeeds is never held up, and forgives what failed
//! before it. Nobody who hangs up is forgiven anything: failures are counted when they happen.

use alloc::collections::{BTreeMap, BTreeSet};
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
    guessers: Failures<Guesser>,
    /// The failures of each source, by when they happened: whoever fails much loses its own oldest first.
    by_source: BTreeSet<(Source, Instant, u64)>,
    sources: Failures<Source>,
}

impl Throttle {
    /// Counts a failure; tells how long the answer has to wait.
    pub(super) fn failed(&mut self, guesser: Guesser, now: Instant, limits: &Limits) -> Duration {
        self.forget_before(now, limits);
        let (source, what) = guesser;
        let known = self.forgive(guesser);
        let count = known.map_or(1, |known| known.count.saturating_add(1));
        while self.guessers.len() >= limits.failure_table.max(1) {
            let own = self.by_source.range((source, Instant::ZERO, 0)..).next().filter(|first| first.0 == source);
            let oldest = own.map(|&(source, _, what)| (source, what)).or_else(|| self.guessers.oldest());
            let Some(oldest) = oldest else { break };
            self.forgive(oldest);
        }
        self.guessers.insert(guesser, Failed { count, last: now });
        self.by_source.insert((source, now, what));
        let of_source = self.sources.remove(source).map_or(1, |known| known.count.saturating_add(1));
        while self.sources.len() >= limits.failure_table.max(1) {
            let Some(oldest) = self.sources.oldest() else { break };
            self.sources.remove(oldest);
        }
        self.sources.insert(source, Failed { count: of_source, last: now });
        let steps = count.saturating_sub(limits.free_failures);
        delay(steps.max(of_source / limits.free_failures_per_source.max(1)), limits)
    }

    /// A login succeeded. What others of its source did stays counted.
    pub(super) fn succeeded(&mut self, guesser: Guesser) {
        let (source, _) = guesser;
        if let Some(known) = self.forgive(guesser)
            && let Some(of_source) = self.sources.remove(source)
        {
            let count = of_source.count.saturating_sub(known.count);
            if count > 0 {
                self.sources.insert(source, Failed { count, ..of_source });
            }
        }
    }

    fn forgive(&mut self, guesser: Guesser) -> Option<Failed> {
        let (source, what) = guesser;
        let known = self.guessers.remove(guesser)?;
        self.by_source.remove(&(source, known.last, what));
        Some(known)
    }

    fn forget_before(&mut self, now: Instant, limits: &Limits) {
        // Counted from when the longest wait that it may have earned is over.
        let memory = limits.failure_delay_max.saturating_mul(2);
        while let Some(guesser) = self.guessers.before(now, memory) {
            self.forgive(guesser);
        }
        while let Some(source) = self.sources.before(now, memory) {
            self.sources.remove(source);
        }
    }
}

/// How long the answer waits after so many steps: each twice as long as the one before.
fn delay(steps: u32, limits: &Limits) -> Duration {
    let Some(doublings) = steps.checked_sub(1) else { return Duration::ZERO };
    let doubled = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    limits.failure_delay.saturating_mul(doubled).min(limits.failure_delay_max)
}

/// Failures of one kind of culprit.
#[derive(Debug)]
struct Failures<K> {
    of: BTreeMap<K, Failed>,
    /// By the last failure: the first is forgotten first.
    by_age: BTreeSet<(Instant, K)>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    count: u32,
    last: Instant,
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), by_age: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Failures<K> {
    fn len(&self) -> usize {
        self.of.len()
    }

    fn insert(&mut self, culprit: K, failed: Failed) {
        self.of.insert(culprit, failed);
        self.by_age.insert((failed.last, culprit));
    }

    fn remove(&mut self, culprit: K) -> Option<Failed> {
        let known = self.of.remove(&culprit)?;
        self.by_age.remove(&(known.last, culprit));
        Some(known)
    }

    fn oldest(&self) -> Option<K> {
        self.by_age.first().map(|(_, culprit)| *culprit)
    }

    /// One that has been quiet for so long.
    fn before(&self, now: Instant, memory: Duration) -> Option<K> {
        self.by_age.first().filter(|(last, _)| *last + memory <= now).map(|(_, culprit)| *culprit)
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
            assert!(throttle.guessers.len() <= 3 && throttle.by_source.len() == throttle.guessers.len());
        }
        assert_eq!(throttle.failed(ANYBODY, at(2), &limits), Duration::ZERO, "the oldest had to go");
        throttle.failed(ANYBODY, at(700), &limits);
        assert_eq!((throttle.guessers.len(), throttle.sources.len()), (1, 1), "after ten minutes nobody is remembered");
    }

    #[test]
    fn v20_who_invents_names_waits_and_crowds_out_nobody_but_itself() {
        let mut throttle = Throttle::default();
        let limits = Limits { failure_table: 20, free_failures_per_source: 10, ..Limits::default() };
        let (culprit, other) = (Source::Network([1; 8]), Source::Network([2; 8]));
        for _ in 0..6 {
            throttle.failed((other, 7), at(0), &limits);
        }
        for _ in 0..5 {
            assert_eq!(throttle.failed((culprit, 7), at(1), &limits), Duration::ZERO);
        }
        let waits: alloc::vec::Vec<u64> =
            (100..200).map(|name| throttle.failed((culprit, name), at(2), &limits).as_secs()).collect();
        assert_eq!((waits[3], waits[4], waits[15], waits[99]), (0, 1, 2, 300), "it does not matter whom it names");
        assert!(
            throttle.failed((culprit, 7), at(3), &limits) > Duration::from_secs(200),
            "its own count it cannot flush"
        );
        assert_eq!(throttle.failed((other, 7), at(3), &limits).as_secs(), 2, "nor another's");
        assert_eq!(throttle.failed((other, 8), at(3), &limits), Duration::ZERO, "who does not wait for it");
        assert!(throttle.guessers.len() <= 20);
    }

    #[test]
    fn v20_success_forgives_what_was_its_own() {
        let mut throttle = Throttle::default();
        let limits = Limits { free_failures_per_source: 8, ..Limits::default() };
        for _ in 0..4 {
            throttle.failed((Source::Local, 1), at(0), &limits);
            throttle.failed((Source::Local, 2), at(0), &limits);
        }
        throttle.succeeded((Source::Local, 1));
        let waits: alloc::vec::Vec<u64> =
            (10..15).map(|name| throttle.failed((Source::Local, name), at(0), &limits).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 1, 1], "the four of the other credential still count");
        let waits = delays(&mut throttle, (Source::Local, 2), 3);
        assert_eq!(waits[1], 1, "with those that were its own");
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
