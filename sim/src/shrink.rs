//! Makes a failing run small: fewer nodes, then less work, then fewer faults, then lower choices, as long as the same oracle
//! finds something.
//!
//! ```text
//!   choices ──► leave something out ──► run ──► same oracle, and smaller? ──► its record is the next to begin with
//! ```
//!
//! A run is a list of choices, stream by stream; a node has streams of its own, and what one stream lacks is decided in the
//! dullest way. So leaving out needs to know nothing of what is decided, but where a piece of work begins.

use std::collections::BTreeMap;

use crate::decisions::Choices;
use crate::run::{Outcome, Source, run};
use crate::world::Failure;

/// How much there is to a failing run: what is compared first stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// How often an application asks for something or a connection breaks, up to the failure.
    pub steps: u64,
    /// Inputs and outputs of machines, up to the failure.
    pub events: u64,
    /// Choices that are not the dullest.
    pub choices: usize,
    /// How far these are from the dullest, in bits.
    pub bits: u32,
    /// The numbers of the nodes that decide anything, added up: fewer nodes, and first those with low numbers.
    pub numbers: u32,
}

/// What a failing run was shrunk to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The run.
    pub choices: Choices,
    /// What is found in it.
    pub failure: Failure,
    /// How much there is to it.
    pub size: Size,
    /// How much there was to the run that it was made from.
    pub before: Size,
    /// How many runs that took.
    pub runs: u64,
}

/// Shrinks a failing run; nothing if it does not fail. Asks before each run whether to go on, with what it has so far.
#[must_use]
pub fn shrink(source: Source, mut goes_on: impl FnMut(&Shrunk) -> bool) -> Option<Shrunk> {
    let outcome = run(source, false);
    let (failure, size) = (outcome.failures.first()?.clone(), Size::of(&outcome));
    let best = Shrunk { choices: outcome.choices, failure, size, before: size, runs: 1 };
    let mut shrinker = Shrinker { best, pieces: outcome.pieces, goes_on: &mut goes_on, stopped: false };
    let passes = [Shrinker::nodes, Shrinker::pieces, Shrinker::streams, Shrinker::stretches, Shrinker::choices];
    loop {
        let before = shrinker.best.size;
        passes.iter().for_each(|pass| pass(&mut shrinker));
        if shrinker.stopped || shrinker.best.size >= before {
            return Some(shrinker.best);
        }
    }
}

struct Shrinker<'a> {
    best: Shrunk,
    /// Of each stream of the best run, where its pieces of work begin.
    pieces: BTreeMap<String, Vec<usize>>,
    goes_on: &'a mut dyn FnMut(&Shrunk) -> bool,
    stopped: bool,
}

/// A stretch of a stream is left out or dulled in so many parts at least, and in single choices where it is short.
const PARTS: usize = 32;

impl Shrinker<'_> {
    /// Takes the best run with a change; true if it is the best now.
    fn tries(&mut self, change: impl FnOnce(&mut Choices)) -> bool {
        let mut choices = self.best.choices.clone();
        change(&mut choices);
        if self.stopped || choices == self.best.choices {
            return false;
        }
        if !(self.goes_on)(&self.best) {
            self.stopped = true;
            return false;
        }
        self.best.runs += 1;
        let outcome = run(Source::Choices(choices), false);
        let size = Size::of(&outcome);
        let Some(failure) = outcome.failures.into_iter().next() else { return false };
        if failure.oracle != self.best.failure.oracle || size >= self.best.size {
            return false;
        }
        let Shrunk { before, runs, .. } = self.best;
        self.best = Shrunk { choices: outcome.choices, failure, size, before, runs };
        self.pieces = outcome.pieces;
        true
    }

    fn names(&self) -> Vec<String> {
        self.best.choices.streams().map(|(name, _)| name.to_owned()).collect()
    }

    fn length(&self, name: &str) -> usize {
        self.best.choices.streams().find(|(other, _)| *other == name).map_or(0, |(_, taken)| taken.len())
    }

    /// Leaves whole nodes out: all that they decide.
    fn nodes(&mut self) {
        let names = self.names();
        let mut nodes: Vec<&str> = names.iter().filter_map(|name| name.split_once('/').map(|(_, node)| node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes.into_iter().rev() {
            let of = |name: &&String| name.split_once('/').is_some_and(|(_, other)| other == node);
            let streams: Vec<&String> = names.iter().filter(of).collect();
            if !self.tries(|choices| streams.iter().for_each(|name| choices.drop_stream(name))) {
                self.renumber(node, &streams);
            }
        }
    }

    /// Lets a node take the place of one that decides nothing, so that the last ones need not be there.
    fn renumber(&mut self, node: &str, streams: &[&String]) {
        let Some(number) = number_of(node) else { return };
        for free in 0..number {
            let taken = self.names().iter().any(|name| number_of(name) == Some(free));
            let moves = |choices: &mut Choices| {
                for name in streams {
                    let moved = std::mem::take(choices.stream_mut(name));
                    choices.drop_stream(name);
                    let kind = name.split_once('/').map_or("", |(kind, _)| kind);
                    *choices.stream_mut(&format!("{kind}/c{free}")) = moved;
                }
            };
            if !taken && self.tries(moves) {
                return;
            }
        }
    }

    /// Leaves work out: many pieces at once, then fewer, from the last.
    fn pieces(&mut self) {
        for name in self.names() {
            let mut many = self.pieces.get(&name).map_or(0, Vec::len).div_ceil(2);
            while many > 0 {
                let mut end = self.pieces.get(&name).map_or(0, Vec::len);
                while end > 0 && !self.stopped {
                    let first = end.saturating_sub(many);
                    let Some(bounds) = self.pieces.get(&name) else { break };
                    let (from, to) = (bounds.get(first).copied(), bounds.get(end).copied());
                    self.tries(|choices| leave_out(choices.stream_mut(&name), from.unwrap_or(0), to));
                    end = first;
                }
                many /= 2;
            }
        }
    }

    /// Leaves whole streams out.
    fn streams(&mut self) {
        for name in self.names() {
            self.tries(|choices| choices.drop_stream(&name));
        }
    }

    /// Dulls stretches of streams, and leaves some out: long ones first.
    fn stretches(&mut self) {
        for name in self.names() {
            let length = self.length(&name);
            let mut width = length / 2;
            while width > length / PARTS && width > 0 && !self.stopped {
                let mut end = self.length(&name);
                while end > 0 {
                    let from = end.saturating_sub(width);
                    let dulled = self.tries(|choices| {
                        let stretch = choices.stream_mut(&name).get_mut(from..end);
                        stretch.into_iter().flatten().for_each(|choice| *choice = 0);
                    });
                    if !dulled {
                        self.tries(|choices| leave_out(choices.stream_mut(&name), from, Some(end)));
                    }
                    end = from.min(self.length(&name));
                }
                width /= 2;
            }
        }
    }

    /// Lowers single choices: to nothing, or to the least that does.
    fn choices(&mut self) {
        for name in self.names() {
            let mut index = self.length(&name);
            while index > 0 && !self.stopped {
                index -= 1;
                self.lower(&name, index);
                index = index.min(self.length(&name));
            }
        }
    }

    fn lower(&mut self, name: &str, index: usize) {
        let value = |shrinker: &Self| {
            let mut streams = shrinker.best.choices.streams();
            streams.find(|(other, _)| *other == name).and_then(|(_, taken)| taken.get(index).copied()).unwrap_or(0)
        };
        let set = |to: u64| {
            move |choices: &mut Choices| {
                if let Some(choice) = choices.stream_mut(name).get_mut(index) {
                    *choice = to;
                }
            }
        };
        if value(self) == 0
            || self.tries(set(0))
            || self.tries(|choices| leave_out(choices.stream_mut(name), index, Some(index + 1)))
        {
            return;
        }
        // What is too low, and what is known to do.
        let (mut low, mut high) = (0, value(self));
        while high - low > 1 && !self.stopped {
            let middle = low + (high - low) / 2;
            if self.tries(set(middle)) {
                high = value(self).min(middle);
            } else {
                low = middle;
            }
        }
    }
}

/// Which client a stream belongs to.
fn number_of(name: &str) -> Option<u32> {
    name.rsplit('/').next()?.strip_prefix('c')?.parse().ok()
}

fn leave_out(stream: &mut Vec<u64>, from: usize, to: Option<usize>) {
    let to = to.unwrap_or(stream.len()).min(stream.len());
    if from < to {
        stream.drain(from..to);
    }
}

impl Size {
    fn of(outcome: &Outcome) -> Self {
        let (mut choices, mut bits) = (0, 0);
        for choice in outcome.choices.streams().flat_map(|(_, taken)| taken).filter(|choice| **choice > 0) {
            choices += 1;
            bits += u64::BITS - choice.leading_zeros();
        }
        let numbers = outcome.choices.streams().filter_map(|(name, _)| number_of(name)).sum();
        Self { steps: outcome.steps, events: outcome.events, choices, bits, numbers }
    }
}
