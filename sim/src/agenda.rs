//! What happens when: a heap of times, where what falls on one moment is taken in an order that is decided.
//!
//! The order of a tie is decided when it is broken, not when it is made: of `k` happenings due at once, `below(k)` says
//! which goes first. That takes every order over the seeds, like a drawn tie-break in the key, but asks nothing where
//! nothing is open; choice 0 is the order of planning.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use commipc_protocol::Instant;

use crate::decisions::Chooser;

/// Plans happenings and gives them back in order of time.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    later: BinaryHeap<Planned<T>>,
    due: Vec<T>,
    now: Instant,
    serial: u64,
}

#[derive(Debug)]
struct Planned<T> {
    at: Instant,
    serial: u64,
    what: T,
}

impl<T> Agenda<T> {
    pub(crate) const fn new() -> Self {
        Self { later: BinaryHeap::new(), due: Vec::new(), now: Instant::ZERO, serial: 0 }
    }

    /// Plans something; what lies in the past is due now.
    pub(crate) fn plan(&mut self, at: Instant, what: T) {
        if at <= self.now {
            self.due.push(what);
        } else {
            self.serial += 1;
            self.later.push(Planned { at, serial: self.serial, what });
        }
    }

    /// The time of the next happening.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        if self.due.is_empty() { self.later.peek().map(|planned| planned.at) } else { Some(self.now) }
    }

    /// The next happening, and the time it brings.
    pub(crate) fn take(&mut self, mut order: Chooser<'_>) -> Option<(Instant, T)> {
        if self.due.is_empty() {
            self.now = self.later.peek()?.at;
            while let Some(planned) = self.later.pop_if_at(self.now) {
                self.due.push(planned);
            }
        }
        let index = order.index(self.due.len());
        Some((self.now, self.due.remove(index)))
    }

    /// Lets time pass with nothing happening.
    pub(crate) fn advance(&mut self, to: Instant) {
        if self.next_at().is_none_or(|at| at > to) {
            self.now = self.now.max(to);
        }
    }

    pub(crate) const fn now(&self) -> Instant {
        self.now
    }
}

trait PopIfAt<T> {
    fn pop_if_at(&mut self, at: Instant) -> Option<T>;
}

impl<T> PopIfAt<T> for BinaryHeap<Planned<T>> {
    fn pop_if_at(&mut self, at: Instant) -> Option<T> {
        if self.peek()?.at == at { self.pop().map(|planned| planned.what) } else { None }
    }
}

impl<T> Ord for Planned<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Reversed: the heap gives its greatest first.
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl<T> PartialOrd for Planned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Planned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Planned<T> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::decisions::Decisions;

    fn order(seed: u64) -> String {
        let mut decisions = Decisions::seeded(seed);
        let stream = decisions.stream("order");
        let mut agenda = Agenda::new();
        for (at, what) in [(5, 'x'), (9, 'z'), (5, 'y'), (5, 'w')] {
            agenda.plan(Instant::from_nanos(at), what);
        }
        std::iter::from_fn(|| agenda.take(decisions.on(stream))).map(|(_, what)| what).collect()
    }

    #[test]
    fn ties_take_every_order_and_time_only_one() {
        let orders: BTreeSet<String> = (0..200).map(order).collect();
        assert_eq!(orders.len(), 6, "{orders:?}");
        assert!(orders.iter().all(|order| order.ends_with('z')));
    }

    #[test]
    fn what_is_planned_for_the_past_is_due_now() {
        let mut decisions = Decisions::from_bytes(&[]);
        let stream = decisions.stream("order");
        let mut agenda = Agenda::new();
        agenda.advance(Instant::from_nanos(10));
        agenda.plan(Instant::from_nanos(3), ());
        assert_eq!(agenda.take(decisions.on(stream)), Some((Instant::from_nanos(10), ())));
        assert_eq!(agenda.take(decisions.on(stream)), None);
    }
}
