//! What a simulation holds, behind one lock that no program's code ever runs under.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use commipc_protocol::{Instant, UnixMillis};
use commipc_runtime::{BoxFuture, Connection};
use core::time::Duration;

use super::ending::Machine;
use super::faults::Faults;
use super::foreign::Woken;
use super::net::{Link, Listener};
use super::tasks::{MAIN, TaskWaker};
use super::{Stalled, Wakes};
use crate::agenda::Agenda;
use crate::decisions::{Decisions, Stream};
use crate::node::{Clocks, wall_clock};
use crate::trace::Tape;
use crate::weather::Weather;

/// What happens at a moment.
#[derive(Debug)]
pub(super) enum Happening {
    Poll(u64),
    Wake(u64),
    Work(u64),
    Readable { link: usize, side: usize },
    Break { link: usize, side: usize },
}

/// How long blocking work takes, in nanoseconds: key derivation takes the longer part of that.
const LEAST_WORK: u64 = 100_000;
const MOST_WORK: u64 = 400_000_000;

/// Work that would block, to be run once.
pub(super) type Work = Box<dyn FnOnce() + Send>;

pub(super) struct State {
    pub(super) agenda: Agenda<Happening>,
    pub(super) decisions: Decisions,
    order: Stream,
    pub(super) net: Stream,
    pub(super) fault: Stream,
    pub(super) work: Stream,
    pub(super) weather: Weather,
    pub(super) faults: Faults,
    pub(super) processes: Vec<Living>,
    pub(super) tasks: BTreeMap<u64, Task>,
    pub(super) sleepers: BTreeMap<u64, Waker>,
    /// Blocking work and whose it is.
    pub(super) works: BTreeMap<u64, (usize, Work)>,
    pub(super) links: BTreeMap<usize, Link>,
    pub(super) listeners: BTreeMap<String, Listener>,
    /// To be woken when the lock is released.
    pub(super) wakes: Wakes,
    pub(super) tape: Tape,
    pub(super) lines: Option<Vec<String>>,
    /// What runs, or ran.
    pub(super) machines: Vec<Machine>,
    /// It ends.
    pub(super) over: bool,
    serials: u64,
}

/// A process.
pub(super) struct Living {
    pub(super) name: String,
    pub(super) stream: Stream,
    pub(super) clocks: Clocks,
    pub(super) alive: bool,
}

pub(super) struct Task {
    pub(super) process: usize,
    /// It is a program's own, and not of what a client or hub is made of.
    pub(super) program: bool,
    /// Taken while it is polled.
    pub(super) future: Option<BoxFuture<'static, ()>>,
    waker: Arc<TaskWaker>,
}

/// What is left of a process; its drop is a program's code.
#[derive(Default)]
pub(super) struct Remains {
    futures: Vec<BoxFuture<'static, ()>>,
    works: Vec<Work>,
    connections: Vec<Connection>,
}

/// The state, and the tasks woken since it was last looked at.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Beside the state, so that anybody may wake anybody at any time.
    woken: Mutex<Woken>,
    main: Mutex<Option<Arc<TaskWaker>>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), woken: Mutex::default(), main: Mutex::new(None) }
    }

    /// Changes the state, then wakes whom that concerns.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (output, wakes) = {
            let mut state = lock(&self.state);
            (change(&mut state), mem::take(&mut state.wakes))
        };
        wakes.into_iter().for_each(Waker::wake);
        output
    }

    pub(super) fn woken(&self, task: u64) {
        lock(&self.woken).add(task);
    }

    /// This thread runs the simulation from now on: nobody else may wake anybody.
    pub(super) fn is_home(&self) {
        lock(&self.woken).is_home();
    }

    /// The waker of the main future.
    pub(super) fn waker(self: &Arc<Self>, task: u64) -> Waker {
        let waker = Arc::new(TaskWaker::new(Arc::downgrade(self), task));
        *lock(&self.main) = Some(Arc::clone(&waker));
        waker.into()
    }

    /// The main future is polled now.
    pub(super) fn begin(&self, task: u64) {
        if let Some(waker) = &*lock(&self.main) {
            waker.begin();
        }
        self.with(|state| state.polled(task));
    }

    /// The next happening and its time.
    pub(super) fn next(&self) -> Result<(Instant, Happening), Stalled> {
        let woken = lock(&self.woken).take();
        let mut state = lock(&self.state);
        let now = state.agenda.now();
        for task in woken.map_err(|what| Stalled::RealRuntime { at: now, what })? {
            state.agenda.plan(now, Happening::Poll(task));
        }
        loop {
            let State { agenda, decisions, order, tasks, .. } = &mut *state;
            let Some((at, happening)) = agenda.take(decisions.on(*order)) else {
                return Err(Stalled::Deadlock { at: agenda.now(), tasks: tasks.len() });
            };
            if !state.waits(&happening) {
                return Ok((at, happening));
            }
            state.faults.waiting.push(happening);
        }
    }

    /// Starts a task, unless its process is dead; then the task comes back.
    pub(super) fn spawn(
        self: &Arc<Self>,
        process: usize,
        program: bool,
        future: BoxFuture<'static, ()>,
    ) -> Option<BoxFuture<'static, ()>> {
        let task = {
            let mut state = lock(&self.state);
            if !state.is_alive(process) {
                return Some(future);
            }
            let task = state.serial();
            let waker = Arc::new(TaskWaker::new(Arc::downgrade(self), task));
            state.tasks.insert(task, Task { process, program, future: Some(future), waker: Arc::clone(&waker) });
            waker
        };
        Waker::from(task).wake();
        None
    }

    /// A task's future, to be polled with the waker.
    pub(super) fn take_task(&self, task: u64) -> Option<(BoxFuture<'static, ()>, Waker)> {
        let mut state = lock(&self.state);
        let entry = state.tasks.get_mut(&task)?;
        entry.waker.begin();
        let taken = (entry.future.take()?, Waker::from(Arc::clone(&entry.waker)));
        state.polled(task);
        Some(taken)
    }
}

impl State {
    pub(super) fn new(mut decisions: Decisions) -> Self {
        let [order, net, fault, work] = ["order", "net", "fault", "work"].map(|name| decisions.stream(name));
        Self {
            agenda: Agenda::new(),
            decisions,
            order,
            net,
            fault,
            work,
            weather: Weather::fair(),
            faults: Faults::default(),
            processes: Vec::new(),
            tasks: BTreeMap::new(),
            sleepers: BTreeMap::new(),
            works: BTreeMap::new(),
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            wakes: Vec::new(),
            tape: Tape::default(),
            lines: None,
            machines: Vec::new(),
            over: false,
            serials: MAIN,
        }
    }

    /// A number that nothing else has.
    pub(super) const fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// The living process of this name.
    pub(super) fn process(&mut self, name: &str) -> usize {
        let known = self.processes.iter().position(|process| process.alive && process.name == name);
        known.unwrap_or_else(|| {
            let stream = self.decisions.stream(&format!("node/{name}"));
            let mut choose = self.decisions.on(stream);
            let mono = choose.log_uniform(1, 1 << 50) - 1;
            let wall = choose.below(4_001) as i64 - 2_000;
            let clocks = Clocks { mono, wall };
            self.processes.push(Living { name: name.to_owned(), stream, clocks, alive: true });
            self.processes.len() - 1
        })
    }

    pub(super) fn is_alive(&self, process: usize) -> bool {
        self.processes.get(process).is_some_and(|process| process.alive)
    }

    pub(super) fn name(&self, process: usize) -> &str {
        self.processes.get(process).map_or("?", |process| process.name.as_str())
    }

    /// A process's monotonic clock.
    pub(super) fn mono(&self, process: usize) -> Instant {
        let ahead = self.processes.get(process).map_or(0, |process| process.clocks.mono);
        self.agenda.now() + Duration::from_nanos(ahead)
    }

    /// A process's wall clock.
    pub(super) fn wall(&self, process: usize) -> UnixMillis {
        let ahead = self.processes.get(process).map_or(0, |process| process.clocks.wall);
        wall_clock(self.agenda.now(), ahead)
    }

    /// The simulation's time when a process's monotonic clock shows `at`.
    pub(super) fn world_time(&self, process: usize, at: Instant) -> Instant {
        let ahead = self.processes.get(process).map_or(0, |process| process.clocks.mono);
        Instant::from_nanos(at.as_nanos().saturating_sub(ahead))
    }

    /// Plans work that would block; given back if its process is dead.
    pub(super) fn work_later(&mut self, process: usize, work: Work) -> Option<Work> {
        let Some(living) = self.processes.get(process).filter(|living| living.alive) else { return Some(work) };
        let takes = self.decisions.on(living.stream).log_uniform(LEAST_WORK, MOST_WORK);
        let number = self.serial();
        self.works.insert(number, (process, work));
        self.agenda.plan(self.agenda.now() + Duration::from_nanos(takes), Happening::Work(number));
        None
    }

    /// Bytes for a machine's seed.
    pub(super) fn seed(&mut self, process: usize) -> [u8; 32] {
        let stream = self.processes.get(process).map_or(self.order, |process| process.stream);
        self.decisions.on(stream).seed()
    }

    fn polled(&mut self, task: u64) {
        self.tape.number(self.agenda.now().as_nanos());
        self.tape.number(task);
        self.tape.wind();
    }

    /// A task waits again; given back if its process is dead.
    pub(super) fn put_back(&mut self, task: u64, future: BoxFuture<'static, ()>) -> Option<BoxFuture<'static, ()>> {
        match self.tasks.get_mut(&task) {
            Some(entry) => entry.future.replace(future),
            None => Some(future),
        }
    }

    /// Ends a process as `kill -9` does: its tasks are gone, its connections are reset.
    #[must_use = "what is left must be dropped without the lock"]
    pub(super) fn kill(&mut self, process: usize) -> Remains {
        let mut remains = Remains::default();
        if let Some(living) = self.processes.get_mut(process) {
            living.alive = false;
        }
        self.tell(|state| format!("{} is killed", state.name(process)));
        self.cut(process);
        for task in take_where(&mut self.tasks, |task| task.process == process) {
            remains.futures.extend(task.future);
        }
        remains.works.extend(take_where(&mut self.works, |(owner, _)| *owner == process).map(|(_, work)| work));
        for listener in take_where(&mut self.listeners, |listener| listener.process == process) {
            remains.connections.extend(listener.queue);
        }
        remains
    }

    #[must_use = "what is left must be dropped without the lock"]
    pub(super) fn kill_all(&mut self) -> Vec<Remains> {
        (0..self.processes.len()).map(|process| self.kill(process)).collect()
    }

    /// Adds a readable line, if they are kept.
    pub(super) fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        let Some(mut lines) = self.lines.take() else { return };
        let at = self.agenda.now().as_nanos();
        lines.push(format!("{:>8}.{:03} ms  {}", at / 1_000_000, at / 1_000 % 1_000, line(self)));
        self.lines = Some(lines);
    }
}

fn take_where<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, wanted: impl Fn(&V) -> bool) -> impl Iterator<Item = V> {
    let keys: Vec<K> = map.iter().filter(|(_, value)| wanted(value)).map(|(key, _)| key.clone()).collect();
    let taken: Vec<V> = keys.iter().filter_map(|key| map.remove(key)).collect();
    taken.into_iter()
}
