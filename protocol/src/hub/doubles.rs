//! Messages that came over bridges lately, so that nobody gets one twice however many ways lead to it.
//!
//! What is remembered is told by the whole message, its tag included: a copy that somebody has changed is another message,
//! and cannot keep the honest one from anybody. Each bridge has places of its own: one that fills them keeps out what comes over it
//! from as far away, and further. Those that are gone have as many as one together: who comes and goes finds no more room.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::shares::Quota;
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
    /// In the order of coming, with the bridge that brought each first, and over how many hubs.
    order: VecDeque<(Instant, (u64, u8), Digest)>,
    /// How many each bridge that is there has brought first: of those from one hub away, from two, and so on.
    held: BTreeMap<u64, Vec<usize>>,
    /// How many those brought that are gone.
    gone: usize,
}

impl Doubles {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self { seen: hash.map(), order: VecDeque::new(), held: BTreeMap::new(), gone: 0 }
    }

    /// Who has got a message so far; `None` if the bridge that brings it for the first time has no place for it.
    pub(crate) fn of(
        &mut self,
        digest: Digest,
        (bridge, hubs): (u64, u8),
        now: Instant,
        quota: Quota,
    ) -> Option<&mut Seen> {
        if !self.seen.contains_key(&digest) {
            let held = self.held.entry(bridge).or_default();
            if !quota.has_room(held.iter().copied(), usize::from(hubs)) {
                return None;
            }
            let at = usize::from(hubs.saturating_sub(1));
            if held.len() <= at {
                held.resize(at + 1, 0);
            }
            *held.get_mut(at)? += 1;
            self.order.push_back((now, (bridge, hubs), digest));
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

    /// Who has got a message that is remembered.
    pub(crate) fn get_mut(&mut self, digest: Digest) -> Option<&mut Seen> {
        self.seen.get_mut(&digest)
    }

    /// Forgets what is old.
    pub(crate) fn forget(&mut self, now: Instant) {
        while let Some((_, (bridge, hubs), digest)) =
            self.order.front().copied().filter(|(since, ..)| *since + REMEMBERED <= now)
        {
            self.order.pop_front();
            self.seen.remove(&digest);
            let held = self.held.get_mut(&bridge);
            match held.and_then(|held| held.get_mut(usize::from(hubs.saturating_sub(1)))) {
                Some(held) => *held -= 1,
                None => self.gone -= 1,
            }
            if self.held.get(&bridge).is_some_and(|held| held.iter().all(|held| *held == 0)) {
                self.held.remove(&bridge);
            }
        }
    }

    /// A bridge is gone. What it brought is remembered as long as there are places for all that are gone; then the older half
    /// of those is forgotten.
    pub(crate) fn leave(&mut self, bridge: u64, most: usize) {
        self.gone += self.held.remove(&bridge).into_iter().flatten().sum::<usize>();
        if self.gone <= most {
            return;
        }
        let Self { seen, order, held, gone } = self;
        order.retain(|(_, (bridge, _), digest)| {
            let kept = *gone <= most / 2 || held.contains_key(bridge);
            if !kept {
                seen.remove(digest);
                *gone -= 1;
            }
            kept
        });
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

    fn quota(most: usize) -> Quota {
        let limits = crate::limits::Limits { bridge_doubles: most, ..Default::default() };
        Quota::of_doubles(&limits)
    }

    #[test]
    fn d15_v31_one_who_fills_its_places_takes_none_of_anothers_and_nothing_is_forgotten_early() {
        let mut doubles = doubles();
        let start = Instant::from_nanos(5);
        for number in 0..3 {
            doubles.of([number; 16], (1, 1), start, quota(3)).unwrap().here = true;
        }
        assert!(doubles.of([9; 16], (1, 1), start, quota(3)).is_none(), "no place");
        assert!(!doubles.of([9; 16], (2, 1), start, quota(3)).unwrap().here, "another has its own");
        assert!(doubles.of([0; 16], (1, 1), start, quota(3)).unwrap().here, "a copy needs no place");
        doubles.forget(start + (REMEMBERED - Duration::from_nanos(1)));
        assert!(doubles.of([0; 16], (2, 1), start, quota(3)).unwrap().here);
        assert_eq!(doubles.due(), Some(start + REMEMBERED));
        doubles.forget(start + REMEMBERED);
        assert_eq!((doubles.size(), doubles.due()), (0, None));
        assert!(doubles.of([9; 16], (1, 1), start, quota(3)).is_some());
    }

    #[test]
    fn d15_v31_a7_a_flood_from_afar_leaves_places_to_what_is_nearer_until_it_is_forgotten() {
        let mut doubles = doubles();
        let start = Instant::from_nanos(5);
        let mut taken = |hubs: u8, now: Instant| {
            doubles.forget(now);
            let flood = (0..=u8::MAX).map(|number| [[hubs; 8], [number; 8]].concat().try_into().unwrap());
            flood.filter(|digest| doubles.of(*digest, (1, hubs), now, quota(80)).is_some()).count()
        };
        for now in [start, start + REMEMBERED] {
            assert_eq!([3, 5, 2, 1, 1].map(|hubs| taken(hubs, now)), [60, 0, 10, 10, 10], "the last are copies");
        }
    }

    #[test]
    fn d15_v31_a7_whoever_comes_and_goes_fills_no_more_places_than_one_who_stays() {
        let mut doubles = doubles();
        let (start, most) = (Instant::from_nanos(5), 8);
        let digest = |bridge: u64, number: u8| [[bridge as u8; 8], [number; 8]].concat().try_into().unwrap();
        doubles.of(digest(1, 0), (1, 1), start, quota(most)).unwrap().here = true;
        for bridge in 2..50 {
            for number in 0..9 {
                assert_eq!(doubles.of(digest(bridge, number), (bridge, 1), start, quota(most)).is_some(), number < 8);
            }
            doubles.leave(bridge, most);
            assert!(doubles.size() <= (most + 1) * DIGEST_SIZE, "{}", doubles.size());
        }
        assert!(doubles.of(digest(1, 0), (3, 1), start, quota(most)).unwrap().here, "who stays loses nothing");
        assert!(
            doubles.of(digest(49, 7), (1, 1), start, quota(most)).unwrap().bridges.contains(&49),
            "the latest are remembered"
        );
        doubles.forget(start + REMEMBERED);
        assert_eq!((doubles.size(), doubles.gone, doubles.held.len()), (0, 0, 0));
    }
}
