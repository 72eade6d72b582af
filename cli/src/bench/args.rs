//! The command line of the benchmarks, and of the processes that they start.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::args::Common;

/// What `commipc bench --help` starts with.
pub(crate) const EXAMPLES: &str = "\
Examples:
  commipc bench rpc                                        calls
  commipc bench stream                                     streams
  commipc bench fanout --members 100                       broadcasts
  commipc bench hops                                       calls over 0, 1, 2 and 4 bridges
  commipc bench connect                                    connections that come and go
  commipc bench idle --clients 5000 --json                 connections that stay";
const RPC: &str = "\
Examples:
  commipc bench rpc
  commipc bench rpc --size 65536 --in-flight 8
  commipc bench rpc --protected                            what signing costs
  commipc bench rpc --hub-url unix:/run/user/1000/commipc.sock --secret-file hub.key
  commipc bench rpc --seconds 5 --rounds 5 --json";
const STREAM: &str = "\
Examples:
  commipc bench stream
  commipc bench stream --size 1024
  commipc bench stream --size 64 --size 65536 --raw --seconds 5 --rounds 5 --json";
const FANOUT: &str = "\
Examples:
  commipc bench fanout
  commipc bench fanout --size 64 --members 1000
  commipc bench fanout --clients 100                       the same as --members 100
  commipc bench fanout --protected
  commipc bench fanout --raw --seconds 5 --rounds 5 --json";
const HOPS: &str = "\
Examples:
  commipc bench hops
  commipc bench hops --size 65536 --in-flight 8 --seconds 5 --rounds 5 --json";
const CONNECT: &str = "\
Examples:
  commipc bench connect
  commipc bench connect --clients 4 --seconds 5 --json";
const IDLE: &str = "\
Examples:
  commipc bench idle
  commipc bench idle --clients 10000 --json";

/// Measure a hub
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    Rpc(BenchRpc),
    Stream(BenchStream),
    Fanout(BenchFanout),
    Hops(BenchHops),
    Connect(BenchConnect),
    Idle(BenchIdle),
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
    #[command(flatten)]
    pub(crate) time: Time,
    /// Send the payload as the application's own bytes instead of a CBOR value
    #[arg(long)]
    pub(crate) raw: bool,
    /// Measure a channel with a password, where every message is signed, against one without, instead of the floor
    #[arg(long, conflicts_with = "hub_url")]
    pub(crate) protected: bool,
    /// Measure through a hub that runs already (its CPU and switches are then unknown)
    #[arg(long, value_name = "URL")]
    pub(crate) hub_url: Option<String>,
}

/// Streams: items and bytes a second, the hub's CPU and context switches per item
///
/// Hub, provider and consumer are processes of their own on a temporary Unix socket. The provider gives what is wanted,
/// the consumer wants more as it takes items, with the credit that streams have unless they say otherwise. A relay that
/// only forwards frames, without protocol, is measured alternately in the same run with the same credit: it is the floor.
#[derive(Args, Clone, Debug)]
#[command(before_help = STREAM)]
pub(crate) struct BenchStream {
    /// Size of an item in bytes; may be given several times
    #[arg(long, value_name = "B", default_values_t = [64, 65_536],
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) size: Vec<u32>,
    /// Connections of the consumer process, with a stream each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) clients: u32,
    #[command(flatten)]
    pub(crate) time: Time,
    /// Send items as the application's own bytes instead of CBOR values
    #[arg(long)]
    pub(crate) raw: bool,
    /// Measure through a hub that runs already (its CPU and switches are then unknown)
    #[arg(long, value_name = "URL")]
    pub(crate) hub_url: Option<String>,
}

/// Broadcasts: deliveries a second, the hub's CPU and context switches per delivery
///
/// Hub, broadcaster and two processes with the members are processes of their own on a temporary Unix socket. The
/// broadcaster keeps so many broadcasts in flight to the hub, and never goes further ahead of the slowest member than a
/// listener has room for, so that nothing is lost; what is lost is counted all the same. A relay that only copies what
/// it reads to every member, without protocol, is measured alternately in the same run: it is the floor.
#[derive(Args, Clone, Debug)]
#[command(before_help = FANOUT)]
pub(crate) struct BenchFanout {
    /// Payload size in bytes
    #[arg(long, value_name = "B", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=262_144))]
    pub(crate) size: u32,
    /// Members, in two processes
    #[arg(long, visible_alias = "clients", value_name = "N", default_value_t = 32,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) members: u32,
    /// Broadcasts in flight that the hub has not taken yet
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) in_flight: u32,
    #[command(flatten)]
    pub(crate) time: Time,
    /// Send the payload as the application's own bytes instead of a CBOR value
    #[arg(long)]
    pub(crate) raw: bool,
    /// Measure a channel with a password, where every message is signed, against one without, instead of the floor
    #[arg(long, conflicts_with = "hub_url")]
    pub(crate) protected: bool,
    /// Measure through a hub that runs already (its CPU and switches are then unknown)
    #[arg(long, value_name = "URL")]
    pub(crate) hub_url: Option<String>,
}

/// Calls over bridges: latency with 1 in flight, rate with many, CPU of all hubs and bridges on the way per call
///
/// A line of five hubs with four bridges, and the provider at the first: processes of their own on temporary Unix sockets.
/// The consumer is at the same hub, one bridge away, two, and four, in turns. All figures are medians of the rounds.
#[derive(Args, Clone, Debug)]
#[command(before_help = HOPS)]
pub(crate) struct BenchHops {
    /// Payload size in bytes
    #[arg(long, value_name = "B", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub(crate) size: u32,
    /// Calls in flight when the rate is measured
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) in_flight: u32,
    #[command(flatten)]
    pub(crate) time: Time,
    /// Send the payload as the application's own bytes instead of a CBOR value
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Connections: authenticated ones set up and closed again a second, the hub's CPU for each
///
/// A client process keeps so many at once being set up. The floor is a relay that only answers as often as a handshake
/// needs, without any proof.
#[derive(Args, Clone, Debug)]
#[command(before_help = CONNECT)]
pub(crate) struct BenchConnect {
    /// Connections that are set up at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) clients: u32,
    #[command(flatten)]
    pub(crate) time: Time,
    /// Measure a hub that runs already (its CPU is then unknown)
    #[arg(long, value_name = "URL")]
    pub(crate) hub_url: Option<String>,
}

/// Connections that do nothing: the hub's memory for each
///
/// Counts resident memory as Linux tells it, before all are there and after. The floor is a relay that reads from each.
#[derive(Args, Clone, Debug)]
#[command(before_help = IDLE)]
pub(crate) struct BenchIdle {
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) clients: u32,
    /// Rounds, each with a fresh hub
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
}

/// How long.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Time {
    /// Seconds for each figure and round
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Rounds
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
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
    /// An end of the floor.
    Raw {
        /// The relay's socket.
        socket: PathBuf,
        /// Which.
        role: Role,
        #[command(flatten)]
        load: Load,
    },
    /// An end that speaks the protocol.
    Real {
        /// Which.
        role: Role,
        #[command(flatten)]
        load: Load,
    },
}

/// What an end does.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    /// Echoes.
    Provider,
    /// Calls.
    Consumer,
    /// Gives endless streams.
    Streamer,
    /// Takes their items.
    Taker,
    /// Says much.
    Broadcaster,
    /// Hear it.
    Members,
    /// Connects, again and again.
    Connector,
    /// Connects and does nothing more.
    Idle,
    /// Gives the channel a password and stays.
    Owner,
}

/// How much an end does.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Payload size in bytes.
    #[arg(long, default_value_t = 64)]
    pub(crate) size: u32,
    /// Payloads as bytes instead of CBOR.
    #[arg(long)]
    pub(crate) raw: bool,
    /// On a channel with a password.
    #[arg(long)]
    pub(crate) protected: bool,
    /// Requests in flight for each connection.
    #[arg(long, default_value_t = 1)]
    pub(crate) in_flight: u32,
    /// Connections. For a broadcaster: processes that tell what they have heard.
    #[arg(long, default_value_t = 1)]
    pub(crate) clients: u32,
    /// How long.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) seconds: f64,
}

impl Load {
    /// The same as options.
    pub(super) fn options(&self) -> Vec<String> {
        let Self { size, raw, protected, in_flight, clients, seconds } = self;
        let mut options: Vec<String> =
            ["--size", &size.to_string(), "--in-flight", &in_flight.to_string(), "--clients", &clients.to_string()]
                .map(str::to_owned)
                .into();
        options.extend(["--seconds".to_owned(), seconds.to_string()]);
        options.extend(raw.then(|| "--raw".to_owned()));
        options.extend(protected.then(|| "--protected".to_owned()));
        options
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.01 and 3600 seconds".into()) }
}
