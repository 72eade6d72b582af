//! The dense numbers of one sender's broadcasts: what is missing, and what comes too late.

use alloc::vec::Vec;

/// What becomes of a broadcast or beacon of an event that is listened to. Ranges are first and last number, both missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A broadcast, later than all that were delivered of its event.
    Deliver {
        /// Those directly before it, if they never came.
        missing: Option<(u64, u64)>,
    },
    /// A broadcast that was overtaken: a later one was delivered, or this one was already told of as missing.
    Old,
    /// A beacon tells of broadcasts that never came.
    Missing(u64, u64),
    /// A beacon tells nothing new.
    Nothing,
}

/// Where the events of one sender's instance stand.
///
/// At most [`EVENTS`]. One more takes the place of the one that is silent for longest, whose numbers then begin anew: what is
/// missing from it meanwhile stays unknown. What is delivered rises all the same, since an event that is not kept is held
/// against `floor`.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// In the order of the events' hashes.
    kept: Vec<Last>,
    /// The highest `seq` of what is no longer kept.
    floor: u64,
}

/// The last broadcast that is known of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    /// The event's name, as a keyed hash: a sender chooses up to [`EVENTS`] names, which would be long, and no two of so few
    /// meet in 64 bits but once in 2⁴⁹.
    pub(super) event: u64,
    /// The broadcast's number among those of its event.
    pub(super) bseq: u64,
    /// Its number among all of its sender's messages, which rises as time goes by.
    pub(super) seq: u64,
}

impl Numbers {
    /// A broadcast. `earlier` is where the event stood when it came another way, if it is not kept here.
    pub(super) fn broadcast(&mut self, this: Last, earlier: Option<u64>) -> Heard {
        match self.advance(this, earlier) {
            Some(before) => Heard::Deliver { missing: gap(before, this.bseq - 1) },
            None => Heard::Old,
        }
    }

    /// The number of the last broadcast, told by its sender. Where the event is not kept it is where its numbers begin,
    /// if it is not older than `newest`, the last message the sender is known by.
    pub(super) fn beacon(&mut self, this: Last, newest: u64, earlier: Option<u64>) -> Heard {
        if self.last(this.event).is_none() && this.seq < newest {
            return Heard::Nothing;
        }
        match self.advance(this, earlier).and_then(|before| gap(before, this.bseq)) {
            Some((first, last)) => Heard::Missing(first, last),
            None => Heard::Nothing,
        }
    }

    /// The number of the last broadcast of an event that is kept.
    pub(super) fn last(&self, event: u64) -> Option<u64> {
        let at = self.find(event).ok()?;
        self.kept.get(at).map(|last| last.bseq)
    }

    /// Keeps only these events. What comes of another one begins anew.
    pub(super) fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.kept.retain(|last| keep(last.event));
    }

    /// Moves an event forward. `None` if this is not forward; else where it stood, if that is known.
    fn advance(&mut self, this: Last, earlier: Option<u64>) -> Option<Option<u64>> {
        if let Some(last) = self.find(this.event).ok().and_then(|at| self.kept.get_mut(at)) {
            let before = last.bseq;
            let forward = this.bseq > before;
            if forward {
                *last = Last { seq: this.seq.max(last.seq), ..this };
            }
            return forward.then_some(Some(before));
        }
        if this.seq <= self.floor {
            return None;
        }
        self.keep(this);
        Some(earlier)
    }

    fn keep(&mut self, this: Last) {
        if self.kept.len() >= EVENTS {
            let silent = self.kept.iter().enumerate().min_by_key(|(_, last)| last.seq).map(|(at, _)| at);
            let silent = silent.map(|at| self.kept.remove(at));
            self.floor = silent.map_or(self.floor, |silent| self.floor.max(silent.seq));
        }
        let at = self.kept.partition_point(|last| last.event < this.event);
        self.kept.insert(at, this);
    }

    fn find(&self, event: u64) -> Result<usize, usize> {
        self.kept.binary_search_by_key(&event, |last| last.event)
    }
}

/// What lies between a number and the one after `last`.
fn gap(before: Option<u64>, last: u64) -> Option<(u64, u64)> {
    before.filter(|&before| before < last).map(|before| (before + 1, last))
}

/// Events of one instance whose numbers are kept, so that nobody's names fill our memory: 6 KiB.
pub(super) const EVENTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn last(event: u64, bseq: u64, seq: u64) -> Last {
        Last { event, bseq, seq }
    }

    const fn all(missing: Option<(u64, u64)>) -> Heard {
        Heard::Deliver { missing }
    }

    #[test]
    fn broadcasts_rise_and_what_they_jump_over_is_missing() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.broadcast(last(1, 7, 10), None), all(None), "the first is where the numbers begin");
        assert_eq!(numbers.broadcast(last(1, 8, 11), None), all(None));
        assert_eq!(numbers.broadcast(last(1, 12, 20), None), all(Some((9, 11))));
        assert_eq!(numbers.broadcast(last(1, 10, 18), None), Heard::Old);
        assert_eq!(numbers.broadcast(last(1, 12, 20), None), Heard::Old);
        assert_eq!(numbers.broadcast(last(2, 1, 21), None), all(None), "each event has its own numbers");
        assert_eq!(numbers.broadcast(last(1, u64::MAX, 22), None), all(Some((13, u64::MAX - 1))));
    }

    #[test]
    fn a_beacon_tells_what_is_missing_once() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.broadcast(last(1, 7, 10), None), all(None));
        assert_eq!(numbers.beacon(last(1, 7, 11), 10, None), Heard::Nothing);
        assert_eq!(numbers.beacon(last(1, 9, 12), 10, None), Heard::Missing(8, 9));
        assert_eq!(numbers.beacon(last(1, 9, 13), 10, None), Heard::Nothing);
        assert_eq!(numbers.beacon(last(1, 6, 9), 10, None), Heard::Nothing);
        assert_eq!(numbers.broadcast(last(1, 9, 11), None), Heard::Old, "it was told of as missing");
        assert_eq!(numbers.broadcast(last(1, 10, 14), None), all(None));
    }

    #[test]
    fn numbers_may_begin_with_a_beacon_that_is_not_older_than_its_sender() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.beacon(last(1, 3, 9), 10, None), Heard::Nothing);
        assert_eq!(numbers.broadcast(last(1, 5, 12), None), all(None), "the old beacon began nothing");
        assert_eq!(numbers.beacon(last(2, 3, 13), 12, None), Heard::Nothing);
        assert_eq!(numbers.broadcast(last(2, 5, 14), None), all(Some((4, 4))));
    }

    #[test]
    fn numbers_go_on_from_where_they_stood_elsewhere() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.broadcast(last(1, 7, 10), Some(4)), all(Some((5, 6))));
        assert_eq!(numbers.broadcast(last(1, 8, 11), Some(4)), all(None), "only where nothing better is known");
        assert_eq!(numbers.broadcast(last(2, 3, 12), Some(9)), all(None), "nobody elsewhere can hold this one back");
        assert_eq!(numbers.beacon(last(3, 3, 13), 12, Some(1)), Heard::Missing(2, 3));
    }

    #[test]
    fn an_event_that_is_forgotten_begins_anew() {
        let mut numbers = Numbers::default();
        numbers.broadcast(last(1, 7, 10), None);
        numbers.broadcast(last(2, 7, 11), None);
        numbers.retain(|event| event != 1);
        assert_eq!(numbers.broadcast(last(1, 20, 30), None), all(None));
        assert_eq!(numbers.broadcast(last(2, 9, 31), None), all(Some((8, 8))));
    }

    #[test]
    fn one_event_too_many_takes_the_place_of_the_silent_one() {
        let mut numbers = Numbers::default();
        let events = 0..EVENTS as u64;
        for event in events.clone() {
            assert_eq!(numbers.broadcast(last(event, 1, 100 + event), None), all(None));
        }
        assert_eq!(numbers.broadcast(last(0, 2, 1_000), None), all(None));
        assert_eq!(numbers.broadcast(last(5_000, 1, 1_001), None), all(None));
        assert_eq!(numbers.kept.len(), EVENTS);
        assert_eq!(numbers.last(1), None, "it was silent for longest");
        assert_eq!(numbers.broadcast(last(1, 1, 101), None), Heard::Old, "and yet it does not go back");
        assert_eq!(numbers.beacon(last(1, 1, 101), 0, None), Heard::Nothing);
        assert_eq!(numbers.broadcast(last(1, 9, 1_002), None), all(None));
        for event in events.skip(3) {
            assert_eq!(numbers.broadcast(last(event, 3, 2_000 + event), None), all(Some((2, 2))), "{event}");
        }
    }

    proptest! {
        /// However many events there are and whatever is overtaken or told by beacons: what is delivered of an event rises,
        /// and nothing that was told of as missing is delivered, or the other way round.
        #[test]
        fn what_is_delivered_rises_and_what_is_missing_stays_so(
            steps in proptest::collection::vec((0..600_u64, 1..40_u64, any::<bool>()), 0..3_000),
            swaps in proptest::collection::vec((0..3_000_usize, 0..3_000_usize), 0..40),
        ) {
            let mut sent = alloc::vec![0; 600];
            let mut messages: Vec<(Last, bool)> = Vec::new();
            for (seq, (event, lost, beacon)) in (1..).zip(steps) {
                sent[event as usize] += if beacon { lost % 3 } else { 1 + lost / 36 };
                let bseq = sent[event as usize].max(1);
                sent[event as usize] = bseq;
                messages.push((last(event, bseq, seq), beacon));
            }
            for (a, b) in swaps {
                if a.max(b) < messages.len() {
                    messages.swap(a, b);
                }
            }
            let mut numbers = Numbers::default();
            let mut settled = alloc::vec![0; 600];
            for (this, beacon) in messages {
                let at = &mut settled[this.event as usize];
                let heard = if beacon { numbers.beacon(this, 0, None) } else { numbers.broadcast(this, None) };
                let (from, to) = match heard {
                    Heard::Deliver { missing } => (missing.map_or(this.bseq, |gap| gap.0), this.bseq),
                    Heard::Missing(first, last) => (first, last),
                    Heard::Old | Heard::Nothing => continue,
                };
                prop_assert!(*at < from && from <= to, "{:?} after {}", heard, at);
                *at = to;
                prop_assert!(numbers.kept.len() <= EVENTS);
            }
        }
    }
}
