//! The simulator's part of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::parse_duration;

const SIM: &str = "\
Examples:
  commipc sim run                                          a thousand worlds; nothing is found
  commipc sim hunt --time 10m                              looks for failures, makes them small and keeps them
  commipc sim replay --seed 4711                           one of them, told as a conversation";

const SIM_HUNT: &str = "\
Examples:
  commipc sim hunt                                         on every core, from a random seed, until Ctrl-C
  commipc sim hunt --jobs 1 --time 1h --from 0             one at a time, an hour long, always the same
  commipc sim hunt --profile reconnect --keep failures     connections that come back; what fails goes to ./failures";

const SIM_SHRINK: &str = "\
Examples:
  commipc sim shrink --seed 4711 --save small.txt          the least that fails as this seed does
  commipc sim shrink --choices case.txt                    the same of a recorded run
  commipc sim shrink --bytes fuzz/artifacts/simulator/crash-x --save small.txt
                                                           the same of what a fuzzer has found";

const SIM_RUN: &str = "\
Examples:
  commipc sim run                                          a thousand worlds; nothing is found
  commipc sim run --seeds 200000 --from 1000000            more of them, others
  commipc sim run --jobs 1                                 on one core
  commipc sim run --seeds 20000 --profile reconnect        connections that come back, and what befell them
  commipc sim run --seeds 2000 --profile bridges           several hubs, and what befell the bridges between them";

const SIM_REPLAY: &str = "\
Examples:
  commipc sim replay --seed 4711                           one world, told as a conversation
  commipc sim replay --seed 4711 --save case.txt           and kept as a list of choices, to be edited
  commipc sim replay --choices case.txt                    replayed from that
  commipc sim replay --choices case.txt --mermaid          as a sequence diagram in Mermaid's language
  commipc sim replay --bytes fuzz/artifacts/simulator/crash-x
                                                           what a fuzzer has found";

const SIM_SELFTEST: &str = "\
Examples:
  commipc sim selftest                                     every planted bug is found, and in how many seeds
  commipc sim selftest --only 7 --within 100000            one of them, with more patience";

/// Run hubs and clients in simulated worlds, each of which follows from a seed
#[derive(Debug, Subcommand)]
#[command(before_help = SIM)]
pub(crate) enum Sim {
    Run(SimRun),
    Hunt(SimHunt),
    Replay(SimReplay),
    Shrink(SimShrink),
    Selftest(SimSelftest),
}

/// Run many seeds and judge what happens; ends with 1 if something is found
///
/// Every seed is a hub, its clients, their work and the weather between them: slow and broken connections, refused
/// dials, late timers. Whatever must not be is found by oracles, and told with the one command that replays it.
#[derive(Args, Debug)]
#[command(before_help = SIM_RUN)]
pub(crate) struct SimRun {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) from: u64,
    /// How many at a time; as many as there are cores if not given
    #[arg(long, value_name = "N", value_parser = parse_jobs)]
    pub(crate) jobs: Option<usize>,
    /// End when so many seeds have failed; what others are at is finished
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) enough: u64,
    /// Which worlds
    #[arg(long, value_enum, default_value_t)]
    pub(crate) profile: SimProfile,
}

/// Look for worlds that fail until stopped, make each failure small and keep it; ends with 1 if something is found
///
/// Progress is told on stderr. Each kind of failure is kept once, as a file for `sim replay --choices` that tells what is found.
#[derive(Args, Debug)]
#[command(before_help = SIM_HUNT)]
pub(crate) struct SimHunt {
    /// How many at a time; as many as there are cores if not given
    #[arg(long, value_name = "N", value_parser = parse_jobs)]
    pub(crate) jobs: Option<usize>,
    /// Stop after so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) time: Option<Duration>,
    /// Stop when so many kinds of failure were found
    #[arg(long, value_name = "N")]
    pub(crate) enough: Option<usize>,
    /// The first seed; a random one if not given
    #[arg(long, value_name = "S")]
    pub(crate) from: Option<u64>,
    /// Where to keep what fails
    #[arg(long, value_name = "FOLDER", default_value = "found")]
    pub(crate) keep: PathBuf,
    /// How long to make one failure smaller
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) worlds: Worlds,
}

/// Make a failing run small: fewer nodes, less work, fewer faults; ends with 1, as what it fails with is found
#[derive(Args, Debug)]
#[command(before_help = SIM_SHRINK)]
pub(crate) struct SimShrink {
    #[command(flatten)]
    pub(crate) what: Replayed,
    /// Write what is left to a new file, for `sim replay --choices`
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// How long to try
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) worlds: Worlds,
}

fn parse_jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(jobs @ 1..=1_024) => Ok(jobs),
        Ok(_) | Err(_) => Err("not a number from 1 to 1024".to_owned()),
    }
}

/// Which worlds to make.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum SimProfile {
    /// As each seed says
    #[default]
    Any,
    /// Such in which links are cut or half-open, hubs die and clocks jump, and connections come back
    Reconnect,
    /// Such of several hubs, in which bridges are cut, half-open, killed and come back
    Bridges,
}

impl From<SimProfile> for commipc_sim::Profile {
    fn from(profile: SimProfile) -> Self {
        match profile {
            SimProfile::Any => Self::Any,
            SimProfile::Reconnect => Self::Reconnect,
            SimProfile::Bridges => Self::Bridges,
        }
    }
}

/// Run one world again and print all that is said in it; ends with 1 if something is found
#[derive(Args, Debug)]
#[command(before_help = SIM_REPLAY)]
pub(crate) struct SimReplay {
    #[command(flatten)]
    pub(crate) what: Replayed,
    /// Write the run's choices to a new file, for --choices
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) worlds: Worlds,
    /// As a sequence diagram in Mermaid's language
    #[arg(long)]
    pub(crate) mermaid: bool,
}

/// Plant bugs and see that each is found; ends with 1 if one is not
///
/// Only a build with planted bugs can do that, which is never one that is shipped: RUSTFLAGS='--cfg commipc_canary', in a
/// target directory of its own.
#[derive(Args, Debug)]
#[command(before_help = SIM_SELFTEST)]
pub(crate) struct SimSelftest {
    /// In how many seeds at most each must be found
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) within: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) from: u64,
    /// Only the bug with this number
    #[arg(long, value_name = "N")]
    pub(crate) only: Option<u32>,
}

/// Which worlds, and what is wrong in them.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Worlds {
    /// Which worlds a seed stands for
    #[arg(long, value_enum, default_value_t)]
    pub(crate) profile: SimProfile,
    /// With this bug planted, in a build where that can be done
    #[arg(long, value_name = "N")]
    pub(crate) plant: Option<u32>,
}

/// Which world.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Replayed {
    /// The seed it follows from
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// A file with the choices it follows from
    #[arg(long, value_name = "FILE")]
    pub(crate) choices: Option<PathBuf>,
    /// A file with a fuzzer's bytes, which it follows from
    #[arg(long, value_name = "FILE")]
    pub(crate) bytes: Option<PathBuf>,
}
