//! What is done to connections and processes on purpose, rather than by the weather.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::state::{Happening, State};
use crate::weather::Weather;

/// What holds until it is taken back.
#[derive(Default)]
pub(super) struct Faults {
    /// The weather between two names, where it differs.
    between: BTreeMap<(String, String), Weather>,
    /// Between which names nothing arrives, in both orders.
    parted: BTreeSet<(String, String)>,
    paused: BTreeSet<usize>,
    /// What would have happened to those that are parted or paused.
    pub(super) waiting: Vec<Happening>,
}

/// Connections.
impl State {
    /// Gives connections between two names a weather of their own.
    pub(super) fn set_weather_between(&mut self, one: &str, other: &str, weather: &Weather) {
        for pair in pairs(one, other) {
            self.faults.between.insert(pair, weather.clone());
        }
    }

    /// The weather of a new connection to whoever listens at a name.
    pub(super) fn weather_to(&self, process: usize, name: &str) -> Weather {
        let pair = (self.name(process).to_owned(), self.host_of(name).to_owned());
        self.faults.between.get(&pair).unwrap_or(&self.weather).clone()
    }

    /// The process that listens at a name, or the name.
    fn host_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.listeners.get(name).map_or(name, |listener| self.name(listener.process))
    }

    /// Breaks the connections between two names; both learn of it.
    pub(super) fn cut_between(&mut self, one: &str, other: &str) {
        for (link, _) in self.links_between(one, other) {
            self.break_link(link);
        }
    }

    /// What one says to another on connections that stand never arrives, and nobody is told.
    pub(super) fn mute(&mut self, from: &str, to: &str) {
        self.tell(|_| format!("nothing that {from} says arrives at {to} any more"));
        for (link, side) in self.links_between(from, to) {
            if let Some(link) = self.links.get_mut(&link) {
                link.pipes[side].leads_nowhere();
                self.wakes.extend(link.ends[side].writer.take());
            }
        }
    }

    /// Connections between two names, and the side of the first.
    fn links_between(&self, one: &str, other: &str) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (number, link) in &self.links {
            let names = [0, 1].map(|side| self.name(link.ends[side].process));
            let side = [[one, other], [other, one]].iter().position(|order| *order == names);
            found.extend(side.map(|side| (*number, side)));
        }
        found
    }

    /// From now on nothing arrives between the two groups: it waits.
    pub(super) fn part(&mut self, some: &[&str], others: &[&str]) {
        self.tell(|_| format!("nothing arrives between {} and {}", some.join(", "), others.join(", ")));
        for one in some {
            for other in others.iter().filter(|other| *other != one) {
                self.faults.parted.extend(pairs(one, other));
            }
        }
    }

    /// Everything arrives again, what waited as well.
    pub(super) fn heal(&mut self) {
        if mem::take(&mut self.faults.parted).is_empty() {
            return;
        }
        self.tell(|_| "everything arrives again".to_owned());
        let links: Vec<usize> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| [0, 1].into_iter().for_each(|side| self.plan_reading(link, side)));
        self.catch_up();
    }

    pub(super) fn is_parted(&self, link: usize) -> bool {
        if self.faults.parted.is_empty() {
            return false;
        }
        self.links.get(&link).is_some_and(|link| {
            let [one, other] = [0, 1].map(|side| self.name(link.ends[side].process).to_owned());
            self.faults.parted.contains(&(one, other))
        })
    }

    pub(super) fn is_parted_from(&self, process: usize, name: &str) -> bool {
        !self.faults.parted.is_empty()
            && self.faults.parted.contains(&(self.name(process).to_owned(), self.host_of(name).to_owned()))
    }
}

/// Processes.
impl State {
    /// Nothing of a process goes on, while its clocks do.
    pub(super) fn pause(&mut self, process: usize) {
        self.tell(|state| format!("{} is paused", state.name(process)));
        self.faults.paused.insert(process);
    }

    pub(super) fn resume(&mut self, process: usize) {
        if self.faults.paused.remove(&process) {
            self.tell(|state| format!("{} goes on", state.name(process)));
            self.catch_up();
        }
    }

    /// Whether something has to wait until its process goes on, or its connection's ends are together again.
    pub(super) fn waits(&self, happening: &Happening) -> bool {
        let paused = |process: Option<usize>| process.is_some_and(|process| self.faults.paused.contains(&process));
        match happening {
            Happening::Poll(task) => paused(self.tasks.get(task).map(|task| task.process)),
            Happening::Work(number) => paused(self.works.get(number).map(|(process, _)| *process)),
            Happening::Break { link, .. } => self.is_parted(*link),
            Happening::Wake(_) | Happening::Readable { .. } => false,
        }
    }

    fn catch_up(&mut self) {
        let now = self.agenda.now();
        mem::take(&mut self.faults.waiting).into_iter().for_each(|happening| self.agenda.plan(now, happening));
    }
}

fn pairs(one: &str, other: &str) -> [(String, String); 2] {
    [(one.to_owned(), other.to_owned()), (other.to_owned(), one.to_owned())]
}
