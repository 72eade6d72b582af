//! The simulator's part of the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

const SIM: &str = "\
Examples:
  commipc sim run                                          a thousand worlds; nothing is found
  commipc sim replay --seed 4711                           one of them, told as a conversation";

const SIM_RUN: &str = "\
Examples:
  commipc sim run                                          a thousand worlds; nothing is found
  commipc sim run --seeds 200000 --from 1000000            more of them, others
  commipc sim run --seeds 20000 --profile reconnect        connections that come back, and what befell them";

const SIM_REPLAY: &str = "\
Examples:
  commipc sim replay --seed 4711                           one world, told as a conversation
  commipc sim replay --seed 4711 --save case.txt           and kept as a list of choices, to be edited
  commipc sim replay --choices case.txt                    replayed from that";

const SIM_SELFTEST: &str = "\
Examples:
  commipc sim selftest                                     every planted bug is found, and in how many seeds
  commipc sim selftest --only 7 --within 100000            one of them, with more patience";

/// Run hubs and clients in simulated worlds, each of which follows from a seed
#[derive(Debug, Subcommand)]
#[command(before_help = SIM)]
pub(crate) enum Sim {
    Run(SimRun),
    Replay(SimReplay),
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
    /// End when so many seeds have failed
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) enough: u64,
    /// Which worlds
    #[arg(long, value_enum, default_value_t)]
    pub(crate) profile: SimProfile,
}

/// Which worlds to make.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum SimProfile {
    /// As each seed says
    #[default]
    Any,
    /// Such in which links are cut or half-open, hubs die and clocks jump, and connections come back
    Reconnect,
}

impl From<SimProfile> for commipc_sim::Profile {
    fn from(profile: SimProfile) -> Self {
        match profile {
            SimProfile::Any => Self::Any,
            SimProfile::Reconnect => Self::Reconnect,
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
    /// Which world the seed stands for
    #[arg(long, value_enum, default_value_t)]
    pub(crate) profile: SimProfile,
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
}
