//! How a simulation ends: programs and their handles go, connections close, and then nothing of what was done may be left.

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use commipc_runtime::{BoxFuture, Inside, STANDING};
use core::time::Duration;

use super::state::{Happening, State, Task};
use super::tasks::MAIN;
use super::{Sim, foreign};
use crate::oracles::Census;

/// By then every silence has been noticed and every goodbye written.
const SETTLES: Duration = Duration::from_secs(300);
/// How often it is asked whether all is gone.
const LOOKS: Duration = Duration::from_secs(1);
/// More happenings than any end takes: programs that were started without their node may go on and on.
const HAPPENINGS: u64 = 1_000_000;

/// A hub, client or bridge, and where it runs.
pub(super) type Machine = (usize, Weak<dyn Inside>);

impl Sim {
    /// What the hubs and clients of a process hold of what is under way, by their own word.
    #[must_use]
    pub fn census(&self, process: &str) -> Census {
        let machines = self.machines();
        let here = machines.iter().filter(|(name, _)| name == process);
        Census(here.flat_map(|(_, machine)| machine.held()).collect())
    }

    /// Ends all programs, closes all connections, and tells what is left then.
    pub(super) fn leftovers(&self) -> Option<String> {
        self.judged.store(true, Ordering::Relaxed);
        let _watch = foreign::watch();
        self.shared.is_home();
        // Held on to, so that who lets the last handle go does not take what is to be looked at along.
        let machines = self.machines();
        let programs = self.shared.with(State::wind_up);
        drop(programs);
        machines.iter().for_each(|(_, machine)| machine.close());
        self.settle(|| machines.iter().any(|(name, machine)| left_of(name, &**machine).is_some()));
        let left: Vec<String> = machines.iter().filter_map(|(name, machine)| left_of(name, &**machine)).collect();
        (!left.is_empty()).then(|| format!("when all connections were closed {}", left.join(", and ")))
    }

    /// Goes on while anything is held, but not for ever.
    fn settle(&self, holding: impl Fn() -> bool) {
        let now = self.shared.with(|state| state.agenda.now());
        let (latest, mut look) = (now + SETTLES, now);
        for _ in 0..HAPPENINGS {
            let Ok((at, happening)) = self.shared.next() else { return };
            if at > latest || (at >= look && !holding()) {
                return;
            }
            if at >= look {
                look = at + LOOKS;
            }
            if !matches!(happening, Happening::Poll(MAIN)) {
                self.happen(happening);
            }
        }
    }

    fn machines(&self) -> Vec<(String, Arc<dyn Inside>)> {
        self.shared.with(|state| {
            let living = state.machines.iter().filter(|(process, _)| state.is_alive(*process));
            living.filter_map(|(process, it)| Some((state.name(*process).to_owned(), it.upgrade()?))).collect()
        })
    }
}

impl State {
    /// A hub or client runs from now on.
    pub(super) fn begun(&mut self, process: usize, machine: Weak<dyn Inside>) {
        self.machines.retain(|(_, machine)| machine.strong_count() > 0);
        self.machines.push((process, machine));
    }

    /// Nothing hinders anybody any more, nobody dials any more, and programs are over.
    #[must_use = "programs must be dropped without the lock"]
    fn wind_up(&mut self) -> Vec<BoxFuture<'static, ()>> {
        self.over = true;
        self.heal();
        (0..self.processes.len()).for_each(|process| self.resume(process));
        let programs = mem::take(&mut self.tasks).into_iter();
        let (programs, others) = programs.partition(|(_, task)| task.program);
        self.tasks = others;
        programs.into_values().filter_map(|task: Task| task.future).collect()
    }

    /// Whether nobody can be reached because the simulation ends.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }
}

fn left_of(name: &str, machine: &dyn Inside) -> Option<String> {
    // Whoever has got a handle out of the simulation may still look at what it stands for.
    let excused = |what: &str| what == STANDING && machine.has_handles();
    let left = machine.held().into_iter().filter(|(what, count)| *count > 0 && !excused(what));
    let left: Vec<String> = left.map(|(what, count)| format!("{count} {what}")).collect();
    (!left.is_empty()).then(|| format!("{name} still held {}", left.join(", ")))
}
