//! Programs in virtual time: hubs, clients and handlers on one thread, with connections in the simulator's weather.
//!
//! ```text
//!   main future ─┐                     ┌──► poll a task        (woken)
//!   tasks ───────┼─► agenda ─► one ────┼──► wake a sleeper     (its time has come)
//!   sleepers ────┤   thread            ├──► run blocking work  (a drawn while after it was asked for)
//!   connections ─┘                     └──► bytes, ends, breaks
//! ```
//!
//! What falls on one moment goes in an order drawn from the seed; time jumps to the next moment when nothing is left
//! to do. So an hour costs nothing, and one seed is one run.

mod disk;
mod ending;
mod faults;
mod foreign;
mod net;
mod process;
mod search;
mod simnet;
mod state;
mod storm;
mod tasks;

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use commipc_protocol::Instant;
use core::time::Duration;

pub use disk::SimDisk;
pub use process::Process;
pub use search::{Broken, Report};
pub use simnet::{SimNet, SimNetBuilder};
use state::{Happening, Shared, State};
pub use storm::Storm;
pub use tasks::Joining;
use tasks::MAIN;

use crate::decisions::{Choices, Decisions};
use crate::trace::TraceHash;
use crate::weather::Weather;

/// A simulation of programs that use [`commipc_runtime`]'s handles, unchanged.
///
/// ```
/// use commipc_runtime::{Fault, Request};
/// use commipc_sim::Sim;
/// use std::time::Duration;
///
/// let sim = Sim::seeded(7);
/// let total: i64 = sim.run(async {
///     let _hub = sim.process("h").hub().await.unwrap();
///     let provider = sim.process("p").client("h").await.unwrap();
///     let math = provider.open("math").await.unwrap();
///     let _sum = math
///         .provide("sum", async |numbers: Request<(i64, i64)>| {
///             numbers.sleep(Duration::from_secs(60)).await;
///             Ok::<_, Fault>(numbers.0 + numbers.1)
///         })
///         .await
///         .unwrap();
///     let consumer = sim.process("c").client("h").await.unwrap();
///     consumer.call("math", "sum", &(15, 25)).deadline(Duration::from_secs(90)).await.unwrap()
/// });
/// assert_eq!(total, 40);
/// ```
///
/// Handlers take time and tasks from [`Request`](commipc_runtime::Request), everything else from its [`Process`]. What
/// waits for a real timer, socket or thread is told to wait for ever: see [`Stalled`].
///
/// When it is dropped all programs end and all connections are closed; hubs and clients that then hold anything of what was
/// done fail the test.
pub struct Sim {
    shared: Arc<Shared>,
    origin: String,
    /// What is left was looked at, or need not be any more.
    judged: AtomicBool,
}

/// Why a run can never end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stalled {
    /// Nothing is planned that could wake anybody.
    Deadlock {
        /// The simulation's time.
        at: Instant,
        /// Tasks that wait beside the main future.
        tasks: usize,
    },
    /// Tasks wake each other, and time does not pass.
    Spinning {
        /// The simulation's time.
        at: Instant,
    },
    /// A program reached for a real runtime, of which there is none here.
    RealRuntime {
        /// The simulation's time.
        at: Instant,
        /// What gave it away.
        what: String,
    },
    /// Longer than anything takes: something repeats for ever, and the main future waits.
    Endless {
        /// The simulation's time.
        at: Instant,
    },
}

/// Happenings without time passing that no program needs.
const SPINS: u64 = 1_000_000;
/// Longer than any run takes, in virtual time: thirty of the longest calls.
const EVER: Duration = Duration::from_secs(30 * 86_400);

impl Sim {
    /// A simulation that follows from a seed, in fair weather.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::new(Decisions::seeded(seed), format!("seed {seed}"))
    }

    /// A simulation that follows from recorded choices.
    #[must_use]
    pub fn replaying(choices: Choices) -> Self {
        Self::new(Decisions::replaying(choices), "recorded choices".to_owned())
    }

    fn new(decisions: Decisions, origin: String) -> Self {
        let shared = Arc::new(Shared::new(State::new(decisions)));
        Self { shared, origin, judged: AtomicBool::new(false) }
    }

    /// What connections are like from now on.
    #[must_use]
    pub fn weather(self, weather: Weather) -> Self {
        self.shared.with(|state| state.weather = weather);
        self
    }

    /// Keeps what connections carry readable, and prints it when a test fails.
    #[must_use]
    pub fn talking(self) -> Self {
        self.shared.with(|state| state.lines = Some(Vec::new()));
        self
    }

    /// The process of this name, started if it does not run: one computer's clocks, tasks and sockets.
    #[must_use]
    pub fn process(&self, name: &str) -> Process {
        let index = self.shared.with(|state| state.process(name));
        Process::new(Arc::downgrade(&self.shared), index)
    }

    /// Runs until the future is ready.
    ///
    /// # Panics
    /// When that can never be. [`Sim::try_run`] tells instead.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let _origin = TellOrigin(self);
        match self.drive(pin!(main)) {
            Ok(output) => output,
            Err(stalled) => panic!("{stalled}"),
        }
    }

    /// Runs until the future is ready.
    ///
    /// # Errors
    /// When that can never be.
    pub fn try_run<T>(&self, main: impl Future<Output = T>) -> Result<T, Stalled> {
        let _origin = TellOrigin(self);
        self.drive(pin!(main))
    }

    /// How much time has passed in the simulation.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.with(|state| state.agenda.now()).saturating_since(Instant::ZERO)
    }

    /// The hash over every byte moved and every task polled, and when. Equal runs have equal hashes.
    #[must_use]
    pub fn trace_hash(&self) -> TraceHash {
        self.shared.with(|state| state.tape.hash())
    }

    /// Everything that was decided, for [`Sim::replaying`].
    #[must_use]
    pub fn choices(&self) -> Choices {
        self.shared.with(|state| state.decisions.record())
    }

    fn drive<T>(&self, main: Pin<&mut impl Future<Output = T>>) -> Result<T, Stalled> {
        let driven = self.go(main);
        if driven.is_err() {
            self.judged.store(true, Ordering::Relaxed);
        }
        driven
    }

    fn go<T>(&self, mut main: Pin<&mut impl Future<Output = T>>) -> Result<T, Stalled> {
        let _watch = foreign::watch();
        self.shared.is_home();
        let waker = self.shared.waker(MAIN);
        waker.wake_by_ref();
        let latest = self.shared.with(|state| state.agenda.now()) + EVER;
        let (mut moment, mut spins) = (Instant::ZERO, 0);
        loop {
            let (at, happening) = self.shared.next()?;
            spins = if at == moment { spins + 1 } else { 0 };
            moment = at;
            if spins > SPINS {
                return Err(Stalled::Spinning { at });
            }
            if at > latest {
                return Err(Stalled::Endless { at });
            }
            if let Happening::Poll(MAIN) = happening {
                self.shared.begin(MAIN);
                if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Ok(output);
                }
            } else {
                self.happen(happening);
            }
            if let Some(what) = foreign::reached() {
                return Err(Stalled::RealRuntime { at, what });
            }
        }
    }

    fn happen(&self, happening: Happening) {
        match happening {
            Happening::Poll(task) => self.poll_task(task),
            Happening::Wake(sleeper) => {
                let waker = self.shared.with(|state| state.sleepers.remove(&sleeper));
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Happening::Work(number) => {
                let work = self.shared.with(|state| state.works.remove(&number));
                if let Some((_, work)) = work {
                    work();
                }
            }
            Happening::Readable { link, side } => self.shared.with(|state| state.readable(link, side)),
            Happening::Break { link, side } => self.shared.with(|state| state.broken(link, side)),
        }
    }

    fn poll_task(&self, task: u64) {
        let Some((mut future, waker)) = self.shared.take_task(task) else { return };
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            let orphan = self.shared.with(|state| state.put_back(task, future));
            // Its process was killed while it ran. Its drop is a program's, and may use the simulation.
            drop(orphan);
        } else {
            self.shared.with(|state| state.tasks.remove(&task));
        }
    }
}

impl Drop for Sim {
    /// # Panics
    /// When it went well so far, and hubs or clients still hold something of what was done.
    fn drop(&mut self) {
        let _origin = TellOrigin(self);
        let judged = std::thread::panicking() || self.judged.load(Ordering::Relaxed);
        let left = if judged { None } else { self.leftovers() };
        let remains = self.shared.with(State::kill_all);
        drop(remains);
        if let Some(left) = left {
            panic!("{left}");
        }
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("origin", &self.origin).field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

/// A failing test must tell its seed, whatever it was that failed.
struct TellOrigin<'a>(&'a Sim);

impl Drop for TellOrigin<'_> {
    #[expect(clippy::print_stderr, reason = "a failing test must tell its seed, whatever it was that failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.0.shared.with(|state| state.lines.take()).into_iter().flatten() {
                eprintln!("{line}");
            }
            eprintln!("this simulation followed from {}; its trace is {}", self.0.origin, self.0.trace_hash());
        }
    }
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |at: &Instant| Duration::from_nanos(at.as_nanos());
        match self {
            Self::Deadlock { at, tasks } => write!(
                f,
                "deadlock after {:?}: the main future waits, and so do {tasks} tasks, but nothing is planned that could \
                 wake one. A real timer, socket or thread is never waited for here. {}",
                seconds(at),
                foreign::INSTEAD
            ),
            Self::Spinning { at } => {
                write!(f, "tasks wake each other for ever after {:?}: time does not pass any more", seconds(at))
            }
            Self::RealRuntime { at, what } => {
                write!(f, "after {:?} a program reached for a real runtime ({what}). {}", seconds(at), foreign::INSTEAD)
            }
            Self::Endless { at } => {
                write!(f, "after {:?} something still repeats, and the main future still waits", seconds(at))
            }
        }
    }
}

impl std::error::Error for Stalled {}

/// Wakers to be woken when no lock is held.
type Wakes = Vec<Waker>;
