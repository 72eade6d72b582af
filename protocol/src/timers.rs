//! Many deadlines, few of which fire.
//!
//! ```text
//!   insert ──► wheel: 7 levels of 64 slots, 67 ms, 4.3 s, 4.6 min … each ──► near: exact order ──► expire
//!                 └───────────────────────── cancel ────────────────────────────┘
//! ```
//!
//! A deadline of 30 s that is cancelled within microseconds costs two links in a list and no allocation. Only what
//! lives until its slot begins is sorted further, at most once a level, and finally into exact order.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::canary::Canary;
use crate::time::{Deadline, Instant, TimerReason};

/// Deadlines with a key each, which is told when one fires.
pub(crate) struct Timers<K> {
    entries: Vec<Entry<K>>,
    free: u32,
    inserted: u64,
    /// Every entry whose tick is later than this one is in the wheel, every other in `near`.
    tick: u64,
    wheel: Wheel,
    near: BTreeMap<(Instant, u64), u32>,
}

/// Names one insertion. Of no effect when that has fired or was cancelled, whatever took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId {
    index: u32,
    number: u64,
}

struct Entry<K> {
    at: Instant,
    /// Counts insertions: orders equal deadlines and tells an entry from an earlier one in the same place.
    number: u64,
    reason: TimerReason,
    key: K,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    /// Unused; the next unused one.
    Free(u32),
    Near,
    Wheel {
        slot: Slot,
        before: u32,
        after: u32,
    },
}

impl<K: Copy> Timers<K> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: NONE,
            inserted: 0,
            tick: 0,
            wheel: Wheel { used: [0; LEVELS], heads: vec![NONE; LEVELS << SLOT_BITS] },
            near: BTreeMap::new(),
        }
    }

    /// Adds a deadline, which may have passed already.
    pub(crate) fn insert(&mut self, at: Instant, reason: TimerReason, key: K) -> TimerId {
        let number = self.inserted;
        self.inserted = self.inserted.wrapping_add(1);
        let entry = Entry { at, number, reason, key, place: Place::Near };
        let index = self.allocate(entry);
        self.place(index);
        TimerId { index, number }
    }

    /// Takes a deadline out before it fires.
    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<K> {
        if Canary::TimerCancel.sings() {
            return None;
        }
        let entry = self.entries.get(id.index as usize).filter(|entry| entry.number == id.number)?;
        match entry.place {
            Place::Free(_) => return None,
            Place::Near => {
                self.near.remove(&(entry.at, entry.number));
            }
            Place::Wheel { slot, before, after } => self.unlink(slot, before, after),
        }
        self.release(id.index)
    }

    /// When to call [`Timers::expire`]: at the first deadline, or earlier to sort what is still unsorted. Later than the
    /// last time given to `expire`, unless something has fallen due since.
    pub(crate) fn next(&self) -> Option<Deadline> {
        if let Some((&(at, _), &index)) = self.near.first_key_value() {
            return self.entries.get(index as usize).map(|entry| Deadline { at, reason: entry.reason });
        }
        let slot = self.wheel.first()?;
        let at = Instant::from_nanos(slot.first_tick(self.tick) << TICK_BITS);
        self.entries.get(self.wheel.head(slot) as usize).map(|entry| Deadline { at, reason: entry.reason })
    }

    /// Takes out the first deadline that is not after `now`: the earliest, and of equal ones the one inserted first.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<K> {
        let seen = if Canary::TimerLate.sings() { now.as_nanos().saturating_sub(LATE) } else { now.as_nanos() };
        let now = Instant::from_nanos(seen);
        self.advance(seen >> TICK_BITS);
        let first = self.near.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let index = first.remove();
        self.release(index)
    }

    /// How many are for this. Looks at all, so that nobody pays for it but who asks.
    pub(crate) fn count(&self, reason: TimerReason) -> usize {
        let waits = |entry: &&Entry<K>| !matches!(entry.place, Place::Free(_)) && entry.reason == reason;
        self.entries.iter().filter(waits).count()
    }

    /// Moves on to a tick, sorting every slot that begins until then.
    fn advance(&mut self, to: u64) {
        while self.tick < to {
            // Slots begin in the order in which `first` finds them, and none begins twice. What is in one that has
            // not begun stays where it belongs: until then the tick differs from its own in the same digit.
            let begun =
                self.wheel.first().map(|slot| (slot, slot.first_tick(self.tick))).filter(|(_, tick)| *tick <= to);
            let Some((slot, tick)) = begun else {
                self.tick = to;
                return;
            };
            self.tick = tick;
            let mut index = self.wheel.head(slot);
            self.wheel.set_head(slot, NONE);
            while let Some(Place::Wheel { after, .. }) = self.entries.get(index as usize).map(|entry| entry.place) {
                self.place(index);
                index = after;
            }
        }
    }

    /// Puts an entry where the current tick wants it.
    fn place(&mut self, index: u32) {
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        let Some(slot) = Slot::of(entry.at.as_nanos() >> TICK_BITS, self.tick) else {
            entry.place = Place::Near;
            self.near.insert((entry.at, entry.number), index);
            return;
        };
        let after = self.wheel.head(slot);
        entry.place = Place::Wheel { slot, before: NONE, after };
        self.wheel.set_head(slot, index);
        self.relink(after, |before, _| *before = index);
    }

    fn unlink(&mut self, slot: Slot, before: u32, after: u32) {
        if before == NONE {
            self.wheel.set_head(slot, after);
        }
        self.relink(before, |_, its_after| *its_after = after);
        self.relink(after, |its_before, _| *its_before = before);
    }

    /// Changes the links of an entry, if there is one.
    fn relink(&mut self, index: u32, change: impl FnOnce(&mut u32, &mut u32)) {
        if let Some(Place::Wheel { before, after, .. }) =
            self.entries.get_mut(index as usize).map(|entry| &mut entry.place)
        {
            change(before, after);
        }
    }

    fn allocate(&mut self, entry: Entry<K>) -> u32 {
        let index = self.free;
        if let Some(unused) = self.entries.get_mut(index as usize) {
            if let Place::Free(next) = unused.place {
                self.free = next;
            }
            *unused = entry;
            return index;
        }
        // Four thousand million entries do not fit into memory.
        let index = u32::try_from(self.entries.len()).unwrap_or(NONE);
        self.entries.push(entry);
        index
    }

    fn release(&mut self, index: u32) -> Option<K> {
        let entry = self.entries.get_mut(index as usize)?;
        entry.place = Place::Free(self.free);
        self.free = index;
        Some(entry.key)
    }
}

impl<K> fmt::Debug for Timers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").field("inserted", &self.inserted).finish_non_exhaustive()
    }
}

/// Lists of entries by when they fall due, counted in ticks, written with digits of [`SLOT_BITS`] bits.
///
/// An entry is in the level of the first digit in which its tick differs from the current one, in the slot of that
/// digit. So what is in a lower level comes before what is in a higher, and within a level the lower slot comes first.
struct Wheel {
    /// For each level, which slots are not empty.
    used: [u64; LEVELS],
    heads: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Slot {
    level: u8,
    digit: u8,
}

impl Slot {
    /// Where `tick` belongs while `current` is the tick; nowhere if it has begun.
    fn of(tick: u64, current: u64) -> Option<Self> {
        if tick <= current {
            return None;
        }
        let level = (tick ^ current).ilog2() / SLOT_BITS;
        let digit = tick >> (level * SLOT_BITS) & DIGIT;
        // Both are small: a tick has 38 bits, a digit 6.
        Some(Self { level: u8::try_from(level).ok()?, digit: u8::try_from(digit).ok()? })
    }

    /// The first tick of this slot, given the current one, with which it shares all higher digits.
    fn first_tick(self, current: u64) -> u64 {
        let shift = u32::from(self.level) * SLOT_BITS;
        let higher = current >> (shift + SLOT_BITS) << SLOT_BITS;
        (higher | u64::from(self.digit)) << shift
    }

    fn index(self) -> usize {
        usize::from(self.level) << SLOT_BITS | usize::from(self.digit)
    }
}

impl Wheel {
    /// The slot that begins first of those that are not empty.
    fn first(&self) -> Option<Slot> {
        let (level, used) = (0..).zip(self.used).find(|(_, used)| *used != 0)?;
        // At most 63, because a bit is set.
        u8::try_from(used.trailing_zeros()).ok().map(|digit| Slot { level, digit })
    }

    fn head(&self, slot: Slot) -> u32 {
        self.heads.get(slot.index()).copied().unwrap_or(NONE)
    }

    fn set_head(&mut self, slot: Slot, to: u32) {
        let (Some(head), Some(used)) = (self.heads.get_mut(slot.index()), self.used.get_mut(usize::from(slot.level)))
        else {
            return;
        };
        *head = to;
        let bit = 1 << slot.digit;
        *used = if to == NONE { *used & !bit } else { *used | bit };
    }
}

/// A tick has 2²⁶ ns, which is 67 ms: much longer than an answer takes, much shorter than a deadline.
const TICK_BITS: u32 = 26;
/// Bits of a digit: as many slots in a level as a word has bits.
const SLOT_BITS: u32 = 6;
const DIGIT: u64 = (1 << SLOT_BITS) - 1;
/// Enough digits for the ticks of every [`Instant`].
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(SLOT_BITS) as usize;
/// No entry.
const NONE: u32 = u32::MAX;
/// How late a planted bug is, in nanoseconds.
const LATE: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn drain(timers: &mut Timers<u32>, now: u64) -> Vec<u32> {
        core::iter::from_fn(|| timers.expire(at(now))).collect()
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn fires_in_order_of_deadline_then_insertion() {
        let mut timers = Timers::new();
        for (key, nanos) in [(0, 30 * SECOND), (1, 5), (2, 30 * SECOND), (3, u64::MAX), (4, 0), (5, 30 * SECOND - 1)] {
            timers.insert(at(nanos), TimerReason::Call, key);
        }
        assert_eq!(drain(&mut timers, 4), [4]);
        assert_eq!(drain(&mut timers, 30 * SECOND - 1), [1, 5]);
        assert_eq!(drain(&mut timers, 30 * SECOND), [0, 2]);
        assert_eq!(drain(&mut timers, u64::MAX - 1), []);
        assert_eq!(drain(&mut timers, u64::MAX), [3]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn cancelled_ids_stay_dead() {
        let mut timers = Timers::new();
        let first = timers.insert(at(30 * SECOND), TimerReason::Call, 1);
        assert_eq!(timers.cancel(first), Some(1));
        assert_eq!(timers.cancel(first), None);
        let second = timers.insert(at(30 * SECOND), TimerReason::Call, 2);
        assert_eq!(timers.cancel(first), None, "the place is another's now");
        assert_eq!(drain(&mut timers, 31 * SECOND), [2]);
        assert_eq!(timers.cancel(second), None);
    }

    #[test]
    fn nothing_is_allocated_once_warm() {
        let mut timers = Timers::new();
        let mut now = 0;
        for round in 0..10_000 {
            let id = timers.insert(at(now + 30 * SECOND), TimerReason::Call, round);
            now += 3 * SECOND / 1_000;
            assert_eq!(timers.expire(at(now)), None);
            assert_eq!(timers.cancel(id), Some(round));
            assert_eq!(timers.next(), None);
        }
        assert_eq!((timers.entries.len(), timers.wheel.heads.len()), (1, LEVELS << SLOT_BITS));
        assert!(timers.near.is_empty());
    }

    #[test]
    fn a_lone_deadline_is_reached_in_few_steps() {
        for nanos in [1, SECOND / 10, SECOND, 30 * SECOND, 86_400 * SECOND, u64::MAX / 3, u64::MAX] {
            let mut timers = Timers::new();
            timers.insert(at(nanos), TimerReason::Handshake, 7);
            let mut steps = 0;
            let fired_at = loop {
                let next = timers.next().unwrap();
                assert_eq!(next.reason, TimerReason::Handshake);
                steps += 1;
                if let Some(key) = timers.expire(next.at) {
                    assert_eq!(key, 7);
                    break next.at;
                }
            };
            assert_eq!(fired_at, at(nanos));
            assert!(steps <= LEVELS + 1, "{steps} steps to {nanos}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Cancel(usize),
        Wait(u64),
        /// Do as a driver does: call when told to.
        Follow,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Deadlines and waits of every magnitude, so that every level is met.
        let span = || (0_u32..45, any::<u64>()).prop_map(|(bits, nanos)| nanos & ((1 << bits) - 1));
        prop_oneof![
            4 => span().prop_map(Step::Insert),
            1 => Just(Step::Insert(u64::MAX)),
            2 => any::<usize>().prop_map(Step::Cancel),
            2 => span().prop_map(Step::Wait),
            2 => Just(Step::Follow),
        ]
    }

    /// What is expected, written as plainly as can be: (deadline, number) in a list.
    #[derive(Default)]
    struct Model(Vec<(u64, u32)>);

    impl Model {
        fn expire(&mut self, now: u64) -> Option<u32> {
            let first = self.0.iter().copied().filter(|(at, _)| *at <= now).min()?;
            self.0.retain(|entry| *entry != first);
            Some(first.1)
        }
    }

    fn agree(steps: Vec<Step>) -> Result<(), TestCaseError> {
        let (mut timers, mut model, mut now, mut ids) = (Timers::new(), Model::default(), 0_u64, Vec::new());
        for step in steps {
            match step {
                Step::Insert(span) => {
                    let (deadline, key) = (now.saturating_add(span), u32::try_from(ids.len()).unwrap());
                    ids.push(timers.insert(at(deadline), TimerReason::Call, key));
                    model.0.push((deadline, key));
                }
                Step::Cancel(which) if !ids.is_empty() => {
                    let key = which % ids.len();
                    let alive = model.0.iter().position(|(_, of)| *of as usize == key);
                    let expected = alive.map(|position| model.0.remove(position).1);
                    prop_assert_eq!(timers.cancel(ids[key]), expected);
                }
                Step::Cancel(_) => {}
                Step::Wait(span) => now = now.saturating_add(span),
                Step::Follow => now = timers.next().map_or(now, |next| next.at.as_nanos().max(now)),
            }
            if matches!(step, Step::Wait(_) | Step::Follow) {
                loop {
                    let fired = timers.expire(at(now));
                    prop_assert_eq!(fired, model.expire(now));
                    if fired.is_none() {
                        break;
                    }
                }
                prop_assert!(timers.next().is_none_or(|next| next.at > at(now)), "no progress");
            }
            let first = model.0.iter().map(|(at, _)| *at).min();
            let told = timers.next().map(|next| next.at.as_nanos());
            prop_assert_eq!(told.is_some(), first.is_some());
            prop_assert!(told <= first, "late: {:?} after {:?}", told, first);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(steps in proptest::collection::vec(step(), 0..200)) {
            agree(steps)?;
        }
    }
}
