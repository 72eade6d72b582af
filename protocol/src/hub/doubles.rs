//! Messages that came over bridges lately, so that nobody gets one twice however many ways lead to it.
//!
//! What is remembered is told by the whole message, its tag included: a copy that somebody has changed is another message,
//! and cannot keep the honest one from anybody. Each link has places of its own; one that fills them hurts itself alone.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::canary::Canary;
use crate::hash::{Keyed, Map};
use crate::time::Instant;

/// How long a message is remembered: longer than its copies can be under way.
const REMEMBERED: Duration = Duration::from_secs(60);
/// What a message takes: its digest in two tables, and a few links. Estimated, and rounded up.
const DIGEST_SIZE: usize = 160;

/// What a message is told by.
pub(crate) type Digest = [u8; 16];

/// Who has got a message.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The bridges, by their serial numbers.
    pub(crate) bridges: Vec<u64>,
    /// Those who are here.
    pub(crate) here: bool,
}

/// What was seen, and since when.
#[derive(Debug)]
pub(crate) struct Doubles {
    seen: Map<Digest, Seen>,
    /// In the order of coming, with the bridge that brought each first.
    order: VecDeque<(Instant, u64, Digest)>,
    /// How many each bridge has brought first.
    held: BTreeMap<u64, usize>,
}

impl Doubles {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self { seen: hash.map(), order: VecDeque::new(), held: BTreeMap::new() }
    }

    /// Who has got a message so far; `None` if the bridge that brings it for the first time has no place for it.
    pub(crate) fn of(&mut self, digest: Digest, bridge: u64, now: Instant, most: usize) -> Option<&mut Seen> {
        if !self.seen.contains_key(&digest) {
            let held = self.held.entry(bridge).or_default();
            if *held >= most {
                return None;
            }
            *held += 1;
            self.order.push_back((now, bridge, digest));
            self.seen.insert(digest, Seen::default());
        }
        let seen = self.seen.get_mut(&digest)?;
        if Canary::Doubles.sings() {
            *seen = Seen::default();
        }
        // Whoever brings it has it.
        if !seen.bridges.contains(&bridge) {
            seen.bridges.push(bridge);
        }
        Some(seen)
    }

    /// Forgets what is old.
    pub(crate) fn forget(&mut self, now: Instant) {
        while let Some((_, bridge, digest)) =
            self.order.front().copied().filter(|(since, ..)| *since + REMEMBERED <= now)
        {
            self.order.pop_front();
            self.seen.remove(&digest);
            if let Some(held) = self.held.get_mut(&bridge) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(&bridge);
                }
            }
        }
    }

    /// When the next one is old.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.order.front().map(|(since, ..)| *since + REMEMBERED)
    }

    /// An estimate of the memory that everything here takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.order.len() * DIGEST_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Purpose, Seed};

    fn doubles() -> Doubles {
        Doubles::new(Keyed::new(&mut Seed::new([1; 32]).stream(Purpose::HashKeys)))
    }

    #[test]
    fn d15_v31_one_who_fills_its_places_takes_none_of_anothers_and_nothing_is_forgotten_early() {
        let mut doubles = doubles();
        let start = Instant::from_nanos(5);
        for number in 0..3 {
            doubles.of([number; 16], 1, start, 3).unwrap().here = true;
        }
        assert!(doubles.of([9; 16], 1, start, 3).is_none(), "no place");
        assert!(!doubles.of([9; 16], 2, start, 3).unwrap().here, "another has its own");
        assert!(doubles.of([0; 16], 1, start, 3).unwrap().here, "a copy needs no place");
        doubles.forget(start + (REMEMBERED - Duration::from_nanos(1)));
        assert!(doubles.of([0; 16], 2, start, 3).unwrap().here);
        assert_eq!(doubles.due(), Some(start + REMEMBERED));
        doubles.forget(start + REMEMBERED);
        assert_eq!((doubles.size(), doubles.due()), (0, None));
        assert!(doubles.of([9; 16], 1, start, 3).is_some());
    }
}
