//! The command line of the benchmarks, and of the processes that they start.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::args::Common;

/// What `commipc bench --help` starts with.
pub(crate) const EXAMPLES: &str = "\
Examples:
  commipc bench rpc
  commipc bench rpc --size 1024 --json";
const RPC: &str = "\
Examples:
  commipc bench rpc
  commipc bench rpc --size 65536 --in-flight 8
  commipc bench rpc --hub-url unix:/run/user/1000/commipc.sock --secret-file hub.key
  commipc bench rpc --seconds 5 --rounds 5 --json";

/// Measure a hub
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    Rpc(BenchRpc),
}

/// Calls: latency with 1 in flight, rate with many, the hub's CPU and context switches per call
///
/// Hub, provider and consumer are processes of their own on a temporary Unix socket. A relay that only forwards
/// frames, without protocol, is measured alternately in the same run: it is the floor. All figures are medians of the
/// rounds.
#[derive(Args, Clone, Debug)]
#[command(before_help = RPC)]
pub(crate) struct BenchRpc {
    /// Payload size in bytes
    #[arg(long, value_name = "B", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub(crate) size: u32,
    /// Calls in flight for each client when the rate is measured
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) in_flight: u32,
    /// Connections of the consumer process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) clients: u32,
    /// Seconds for each figure and round
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Rounds
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Send the payload as the application's own bytes instead of a CBOR value
    #[arg(long)]
    pub(crate) raw: bool,
    /// Measure through a hub that runs already (its CPU and switches are then unknown)
    #[arg(long, value_name = "URL")]
    pub(crate) hub_url: Option<String>,
}

/// The command line of a process that a benchmark starts: no command that anybody else should see, or complete.
#[derive(Debug, Parser)]
pub(crate) struct PartCli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) part: BenchPart,
}

impl PartCli {
    /// The first argument of these processes.
    pub(crate) const COMMAND: &str = "bench-part";

    /// Whether this process is one, and which.
    pub(crate) fn of(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        args.nth(1).filter(|command| command == Self::COMMAND)?;
        Some(Self::parse_from([Self::COMMAND.into()].into_iter().chain(args)))
    }
}

/// The processes of a benchmark.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BenchPart {
    /// The floor's relay.
    RawRelay {
        /// Its socket.
        socket: PathBuf,
    },
    /// The floor's provider.
    RawProvider {
        /// The relay's socket.
        socket: PathBuf,
    },
    /// The floor's consumer.
    RawConsumer {
        /// The relay's socket.
        socket: PathBuf,
        #[command(flatten)]
        load: Load,
    },
    /// A provider that echoes.
    Provider {
        /// Payloads as bytes.
        #[arg(long)]
        raw: bool,
    },
    /// A consumer of that provider.
    Consumer {
        /// Payloads as bytes.
        #[arg(long)]
        raw: bool,
        #[command(flatten)]
        load: Load,
    },
}

/// What a consumer does.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Payload size in bytes.
    #[arg(long)]
    pub(crate) size: u32,
    /// Calls in flight for each connection.
    #[arg(long)]
    pub(crate) in_flight: u32,
    /// Connections.
    #[arg(long)]
    pub(crate) clients: u32,
    /// How long.
    #[arg(long)]
    pub(crate) seconds: f64,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.01 and 3600 seconds".into()) }
}
