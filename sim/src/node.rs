//! A machine with its own clocks and the habits of the driver that feeds it.

use std::collections::BTreeMap;
use std::fmt;

use commipc_protocol::{Instant, LinkId, Machine, Now, UnixMillis};
use core::time::Duration;

use crate::decisions::{Chooser, Stream};

/// Names a machine in an engine, in the order of adding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// The node that was added as number `index`, from 0.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Counted from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// What a driver may do and the contract allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Of 256 inputs, after how many the outputs are left for later.
    pub lazy: u64,
    /// How much later than due a timeout may be fed, in nanoseconds.
    pub drowsy: u64,
    /// Of 256 inputs, after how many a timeout is fed that is not due.
    pub hasty: u64,
    /// How old the clock reading handed in may be, in nanoseconds: it was read once for a batch.
    pub stale: u64,
    /// Of 256 links the machine closed, for how many the driver still has inputs in hand.
    pub stray: u64,
}

impl Habits {
    /// Habits drawn for one node, about half of them absent.
    #[must_use]
    pub fn drawn(mut choose: Chooser<'_>) -> Self {
        let mut maybe = |most: u64| if choose.chance(1, 2) { choose.log_uniform(1, most) } else { 0 };
        Self {
            lazy: maybe(128),
            drowsy: maybe(20_000_000),
            hasty: maybe(64),
            stale: maybe(1_000_000),
            stray: maybe(256),
        }
    }
}

/// How a node's clocks differ from the world's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// What the monotonic clock showed when the world began, in nanoseconds.
    pub mono: u64,
    /// How far the wall clock is ahead, in milliseconds.
    pub wall: i64,
}

/// What wall clocks show when a world begins: some time in 2025.
const WALL_START: u64 = 1_750_000_000_000;

/// What a wall clock shows that is so many milliseconds ahead, when the world's clock shows `at`.
pub(crate) const fn wall_clock(at: Instant, ahead: i64) -> UnixMillis {
    UnixMillis((WALL_START + at.as_nanos() / 1_000_000).saturating_add_signed(ahead))
}

pub(crate) struct Node<M: Machine> {
    pub(crate) name: String,
    pub(crate) machine: M,
    pub(crate) habits: Habits,
    pub(crate) clocks: Clocks,
    pub(crate) stream: Stream,
    pub(crate) links: BTreeMap<LinkId, (usize, usize)>,
    /// Dials that will be refused.
    pub(crate) dialling: Vec<LinkId>,
    pub(crate) accepted: Slots,
    /// Inputs fed since the outputs were last drained to the end.
    pub(crate) undrained: u32,
    pub(crate) draining: bool,
    /// The planned timeout: when, and which plan counts.
    pub(crate) timer: Option<Instant>,
    pub(crate) timer_serial: u64,
    /// The deadline for which a timeout was fed last, how many more it took, and whether it was one too many.
    pub(crate) fed_for: Option<Instant>,
    pub(crate) spins: u32,
    pub(crate) spinning: bool,
    /// Its process is dead: nobody can dial it.
    pub(crate) down: bool,
    /// Until when it stands still, and for how long it has in all: its monotonic clock did too.
    pub(crate) still: Instant,
    stood: Duration,
    /// Until when nothing gets to it or away from it.
    pub(crate) silent: Instant,
    /// The latest that its monotonic clock has shown to its machine.
    newest: Instant,
}

impl<M: Machine> Node<M> {
    pub(crate) fn new(name: &str, machine: M, stream: Stream) -> Self {
        Self {
            name: name.to_owned(),
            machine,
            habits: Habits::default(),
            clocks: Clocks::default(),
            stream,
            links: BTreeMap::new(),
            dialling: Vec::new(),
            accepted: Slots::default(),
            undrained: 0,
            draining: false,
            timer: None,
            timer_serial: 0,
            fed_for: None,
            spins: 0,
            spinning: false,
            down: false,
            still: Instant::ZERO,
            stood: Duration::ZERO,
            silent: Instant::ZERO,
            newest: Instant::ZERO,
        }
    }

    /// Another machine takes its place, of which nothing is asked yet.
    pub(crate) fn dies(&mut self, machine: M) {
        self.machine = machine;
        self.links.clear();
        self.dialling.clear();
        (self.undrained, self.timer, self.fed_for, self.spins, self.spinning) = (0, None, None, 0, false);
        // What was planned for the machine that is gone does not count any more.
        self.timer_serial += 1;
        (self.down, self.newest) = (true, Instant::ZERO);
    }

    /// It stands still for so long from now on; gives how much that adds to what it stands still anyway.
    pub(crate) fn stands_still(&mut self, now: Instant, time: Duration) -> Duration {
        let (from, until) = (self.still.max(now), self.still.max(now + time));
        let more = until.saturating_since(from);
        (self.still, self.stood) = (until, self.stood + more);
        more
    }

    /// Both clocks of this node when the world's shows `at`, as its machine is told.
    pub(crate) fn now(&mut self, at: Instant) -> Now {
        let mono = at + Duration::from_nanos(self.clocks.mono);
        let mono = Instant::from_nanos(mono.saturating_since(Instant::ZERO + self.stood).as_nanos() as u64);
        self.newest = self.newest.max(mono);
        Now { mono, wall: wall_clock(at, self.clocks.wall) }
    }

    /// Whether the machine may do what its deadline is for. A clock that runs backwards does not undo what it has shown.
    pub(crate) fn is_due(&mut self, at: Instant) -> bool {
        let newest = self.now(at).mono.max(self.newest);
        self.machine.poll_timeout().is_some_and(|deadline| deadline.at <= newest)
    }

    /// When the machine next wants a timeout, by the world's clock.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadline = self.machine.poll_timeout()?;
        let at = deadline.at + self.stood;
        Some(Instant::from_nanos(at.as_nanos().saturating_sub(self.clocks.mono)))
    }
}

/// Indexes of accepted links, reused at once, each use with a new generation.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    free: Vec<u32>,
    generations: Vec<u32>,
}

impl Slots {
    pub(crate) fn take(&mut self) -> LinkId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.generations.push(0);
            u32::try_from(self.generations.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = self.generations.get_mut(index as usize).map_or(0, |generation| {
            *generation += 1;
            *generation
        });
        LinkId::accepted(index, generation)
    }

    pub(crate) fn give_back(&mut self, link: LinkId) {
        if !link.is_dialled() {
            self.free.push(u32::try_from(link.index()).unwrap_or(u32::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_reused_with_another_generation() {
        let mut slots = Slots::default();
        let (first, second) = (slots.take(), slots.take());
        assert_ne!(first.index(), second.index());
        slots.give_back(first);
        let third = slots.take();
        assert_eq!(third.index(), first.index());
        assert_ne!(third, first);
    }
}
