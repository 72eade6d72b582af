//! Many seeds of one scenario, and what is said of the one that fails.

use std::any::Any;
use std::env;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core::time::Duration;

use super::simnet::{Plan, SimNet, SimNetBuilder};
use super::{Sim, foreign};
use crate::trace::TraceHash;

/// What came of seeds that all went well.
#[derive(Clone, Debug)]
pub struct Report {
    /// Seeds run.
    pub seeds: u64,
    /// The time that passed in all of them together.
    pub simulated: Duration,
    /// The hash over everything that happened in the last one, if there was one. Equal runs have equal hashes.
    pub trace: Option<TraceHash>,
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which.
    pub seed: u64,
    /// The text of the panic, or why the run could never end.
    pub why: String,
    /// After so much time of the simulation.
    pub after: Duration,
    /// The hash over everything that happened.
    pub trace: TraceHash,
    /// A second run of the seed went the same way. Where it did not, the program takes time, randomness or order (of a hash
    /// map, say) from somewhere else than the simulation.
    pub again: bool,
    /// What happened, readable.
    pub conversation: Vec<String>,
    /// The one command that replays it.
    pub replay: String,
}

/// Names the one seed that is run.
const SEED: &str = "COMMIPC_SIM_SEED";
/// So many lines of a conversation are printed, the last ones.
const LINES: usize = 60;

impl SimNetBuilder {
    /// Runs the scenario with each seed.
    ///
    /// # Panics
    /// When a seed fails: when the scenario or a program panics, or when the run could never end. The message tells what
    /// happened, and the one command that replays it.
    pub fn run<Fut: Future<Output = ()>>(self, scenario: impl Fn(SimNet) -> Fut) -> Report {
        match self.search(scenario) {
            Ok(report) => report,
            Err(broken) => panic!("{broken}"),
        }
    }

    /// Runs the scenario with one seed after the other until one fails.
    ///
    /// # Errors
    /// The seed that failed. The panic itself is printed where it happens, as always.
    ///
    /// # Panics
    /// When `COMMIPC_SIM_SEED` is no number.
    pub fn search<Fut: Future<Output = ()>>(self, scenario: impl Fn(SimNet) -> Fut) -> Result<Report, Box<Broken>> {
        let asked = env::var(SEED).ok().map(|seed| seed.parse::<u64>().expect("COMMIPC_SIM_SEED is a number"));
        let seeds = asked.map_or(self.seeds, |seed| seed..seed.saturating_add(1));
        let plan = Arc::new(self.plan);
        let mut report = Report { seeds: 0, simulated: Duration::ZERO, trace: None };
        for seed in seeds {
            let run = once(&plan, seed, &scenario, false);
            report.seeds += 1;
            report.simulated += run.took;
            report.trace = Some(run.trace);
            let Err(why) = run.result else { continue };
            let second = foreign::quietly(|| once(&plan, seed, &scenario, true));
            return Err(Box::new(Broken {
                seed,
                after: run.took,
                trace: run.trace,
                again: second.trace == run.trace && second.result.as_ref() == Err(&why),
                why,
                conversation: second.lines,
                replay: replay(seed, self.replay.as_deref()),
            }));
        }
        Ok(report)
    }
}

struct Run {
    result: Result<(), String>,
    took: Duration,
    trace: TraceHash,
    lines: Vec<String>,
}

fn once<Fut: Future<Output = ()>>(plan: &Arc<Plan>, seed: u64, scenario: impl Fn(SimNet) -> Fut, talking: bool) -> Run {
    let sim = Sim::seeded(seed);
    let sim = if talking { sim.talking() } else { sim };
    let net = SimNet::new(&sim, plan, seed);
    let main = async {
        net.start().await;
        scenario(net.clone()).await;
    };
    // The simulation is not used again but for its record.
    let result = match catch_unwind(AssertUnwindSafe(|| sim.drive(pin!(main)))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(stalled)) => Err(stalled.to_string()),
        Err(panic) => Err(match foreign::reached() {
            Some(what) => format!("a real runtime was reached for ({what}). {}", foreign::INSTEAD),
            None => text(&*panic).to_owned(),
        }),
    };
    let (took, trace) = (sim.elapsed(), sim.trace_hash());
    sim.judged.store(true, Ordering::Relaxed);
    let result = result.and_then(|()| sim.leftovers().map_or(Ok(()), Err));
    let lines = sim.shared.with(|state| state.lines.take()).unwrap_or_default();
    Run { result, took, trace, lines }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

/// Runs this very test or program again, with one seed.
fn replay(seed: u64, given: Option<&str>) -> String {
    let command = given.map(|given| given.replace("{seed}", &seed.to_string()));
    command
        .unwrap_or_else(|| format!("{SEED}={seed} {}", this_program().unwrap_or_else(|| "<this program>".to_owned())))
}

/// How this program was started, as far as that can be seen: a test by its thread's name, an example by its folder.
fn this_program() -> Option<String> {
    let path = env::current_exe().ok()?;
    let file = path.file_stem()?.to_str()?.to_owned();
    let folder = path.parent()?.file_name()?.to_str()?.to_owned();
    let thread = std::thread::current();
    let by_hand =
        || Some([path.to_str()?.to_owned()].into_iter().chain(env::args().skip(1)).collect::<Vec<_>>().join(" "));
    // Cargo tells the package only to what it runs itself.
    let Ok(package) = env::var("CARGO_PKG_NAME") else { return by_hand() };
    let release = if path.iter().any(|part| part == "release") { " --release" } else { "" };
    let arguments: Vec<_> = env::args().skip(1).collect();
    let behind = if arguments.is_empty() { String::new() } else { format!(" -- {}", arguments.join(" ")) };
    Some(match (folder.as_str(), thread.name()) {
        ("deps", Some(test)) if test != "main" => {
            let target = file.rsplit_once('-').map_or(&*file, |(target, _)| target);
            // Library and program of a package are both called like it: the test is looked for in each.
            let target = if *target == package.replace('-', "_") { String::new() } else { format!(" --test {target}") };
            format!("cargo test{release} -p {package}{target} -- --exact {test} --nocapture")
        }
        ("examples", _) => format!("cargo run{release} -p {package} --example {file}{behind}"),
        ("debug" | "release", _) => format!("cargo run{release} -p {package} --bin {file}{behind}"),
        _ => return by_hand(),
    })
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, why, after, trace, again, conversation, replay } = self;
        for line in conversation.iter().skip(conversation.len().saturating_sub(LINES)) {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {seed} failed after {after:?} of the simulation: {why}")?;
        if !again {
            writeln!(
                f,
                "A second run of the seed went another way: the program takes time, randomness or an order from somewhere else \
                 than the simulation."
            )?;
        }
        let threads = foreign::threads();
        if !threads.is_empty() {
            writeln!(
                f,
                "In this process run threads of real runtimes ({}). A handler that waits for one waits in vain. {}",
                threads.join(", "),
                foreign::INSTEAD
            )?;
        }
        write!(f, "trace {trace}; replay it with:\n  {replay}")
    }
}

impl std::error::Error for Broken {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seeds, {:?} of simulated time, none failed", self.seeds, self.simulated)
    }
}
