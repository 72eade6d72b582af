//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  commipc demo                                       see it work, nothing to set up
  commipc hub                                        start a hub on the default socket
  commipc provide math twice --exec 'jq \".*2\"'       answer calls with a shell command
  commipc call math twice 21                         call it: prints 42
  commipc call math twice @numbers.json --deadline 2s
  commipc bench rpc --json                           measure calls through a hub
  commipc sim run --seeds 1000                       simulate hubs and clients in any weather

A hub writes its key beside its socket, where clients of the same user find it. For TCP, or another user:
  commipc keygen --out hub.key
  commipc hub --listen tcp://0.0.0.0:7117 --secret-file hub.key
  commipc call math twice 21 --hub tcp://host:7117 --secret-file hub.key

Exit codes: 0 ok, 1 other, 2 usage, 3 no provider, 4 deadline, 5 fault, 6 refused or authentication, 7 hub unreachable
";

/// Calls between processes, through a hub.
#[derive(Debug, Parser)]
#[command(name = "commipc", version, before_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command, before or after its name.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// The hub: unix:/path or tcp://host:port [default: commipc.sock in $XDG_RUNTIME_DIR]
    #[arg(long, global = true, env = "COMMIPC_HUB", value_name = "URL")]
    pub(crate) hub: Option<String>,

    /// The own id, of a client or of the hub [default: made up]
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) id: Option<String>,

    /// A file with the hub's secret, readable by its owner alone: a line key:<64 hex>, or a password
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,

    /// Which entry of the hub's credentials to prove [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) credential: Option<String>,

    /// No authentication at all; hub and clients must both say it
    #[arg(long, global = true, conflicts_with_all = ["secret_file", "credential"])]
    pub(crate) insecure_no_auth: bool,

    /// One JSON object a line instead of text, on stdout and for errors on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Log to stderr: -v what happens, -vv details, -vvv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Log to stderr: off, error, warn, info, debug or trace [default: off]
    #[arg(long, global = true, value_name = "LEVEL", conflicts_with = "verbose")]
    pub(crate) log: Option<tracing::level_filters::LevelFilter>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Hub(Hub),
    Call(Call),
    Provide(Provide),
    Keygen(Keygen),
    /// Hub, provider and consumer in one process, with every step explained
    Demo,
    #[command(subcommand)]
    Bench(Bench),
    #[command(subcommand)]
    Sim(Sim),
    /// Processes that a benchmark starts for itself.
    #[command(subcommand, hide = true)]
    BenchPart(BenchPart),
}

/// Run a hub until SIGTERM or Ctrl-C
///
/// Prints one line `listening on URL` for each listener when it is ready.
#[derive(Args, Debug)]
pub(crate) struct Hub {
    /// Where to listen, may be repeated; tcp port 0 takes a free one [default: the common option --hub]
    #[arg(long, value_name = "URL")]
    pub(crate) listen: Vec<String>,
}

/// Call an event once and print the answer as JSON
///
/// What JSON cannot say is written {"$bytes":"<hex>"}, {"$float":"NaN"}, {"$tag":[number,value]} or
/// {"$map":[[key,value],…]}, in payloads and answers alike.
#[derive(Args, Debug)]
pub(crate) struct Call {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// The event
    #[arg(value_name = "EVENT")]
    pub(crate) event: String,
    /// The payload: JSON, @FILE with JSON, or - for stdin
    #[arg(value_name = "JSON|@FILE|-", default_value = "null", allow_hyphen_values = true)]
    pub(crate) payload: String,
    /// How long the answer may take: 2s, 500ms, 1m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(crate) deadline: Duration,
    /// Repeat the call and print how long the answers took instead
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,
}

/// Answer calls of an event until SIGTERM, Ctrl-C or the loss of the hub
///
/// Prints `providing CHANNEL/EVENT` when ready.
#[derive(Args, Debug)]
pub(crate) struct Provide {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// The event
    #[arg(value_name = "EVENT")]
    pub(crate) event: String,
    #[command(flatten)]
    pub(crate) with: Answering,
}

/// What a provider answers with.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Answering {
    /// Answer with what was asked
    #[arg(long)]
    pub(crate) echo: bool,
    /// Always answer this
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) reply: Option<String>,
    /// Run CMD with sh -c, payload as JSON on stdin; its stdout (JSON, else text) is the answer
    #[arg(long, value_name = "CMD")]
    pub(crate) exec: Option<String>,
}

/// Make a secret for a hub: prints key:<64 hex>, or writes it to a new file
#[derive(Args, Debug)]
pub(crate) struct Keygen {
    /// Write a new file only its owner can read; an existing one is left alone
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

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

const SIM_EXAMPLES: &str = "\
Examples:
  commipc sim run                                    a thousand worlds; nothing is found
  commipc sim run --seeds 200000 --from 1000000      more of them, others
  commipc sim replay --seed 4711                     one of them, told as a conversation
  commipc sim replay --seed 4711 --save case.txt     and kept as a list of choices, to be edited
  commipc sim replay --choices case.txt              replayed from that
";

/// Run hubs and clients in simulated worlds, each of which follows from a seed
#[derive(Debug, Subcommand)]
#[command(before_help = SIM_EXAMPLES)]
pub(crate) enum Sim {
    Run(SimRun),
    Replay(SimReplay),
}

/// Run many seeds and judge what happens; ends with 1 if something is found
///
/// Every seed is a hub, its clients, their work and the weather between them: slow and broken connections, refused
/// dials, late timers. Whatever must not be is found by oracles, and told with the one command that replays it.
#[derive(Args, Debug)]
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
}

/// Run one world again and print all that is said in it; ends with 1 if something is found
#[derive(Args, Debug)]
pub(crate) struct SimReplay {
    #[command(flatten)]
    pub(crate) what: Replayed,
    /// Write the run's choices to a new file, for --choices
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
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

/// `2s`, `500ms`, `1.5m`, `1h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write 2s, 500ms, 1m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time > Duration::ZERO && seconds <= 86_400.0 => Ok(time),
        _ => Err("a deadline is more than nothing and at most a day".into()),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.01 and 3600 seconds".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_or_after_the_command() {
        for line in ["commipc --json --hub unix:/x call a b", "commipc call a b --hub unix:/x --json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.common.json);
            assert_eq!(cli.common.hub.as_deref(), Some("unix:/x"));
        }
    }

    #[test]
    fn negative_numbers_are_payloads() {
        let cli = Cli::try_parse_from(["commipc", "call", "a", "b", "-5", "--deadline", "1m"]).unwrap();
        let Command::Call(call) = cli.command else { panic!("not a call") };
        assert_eq!(call.payload, "-5");
        assert_eq!(call.deadline, Duration::from_secs(60));
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("20ms"), Ok(Duration::from_millis(20)));
        for wrong in ["", "2", "s", "-1s", "0s", "25h", "1..2s", "2 s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
