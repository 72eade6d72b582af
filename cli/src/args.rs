//! The command line. Every command's help starts with examples.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use commipc_tokio::{AfterGrace, OwnerPolicy};

use crate::bench::{self, args::Bench};
use crate::bridge;

mod simulating;
pub(crate) use simulating::{Replayed, Sim, SimHunt, SimReplay, SimRun, SimSelftest, SimShrink};

const EXAMPLES: &str = "\
Examples:
  commipc demo                                       see it work, nothing to set up
  commipc hub                                        start a hub on the default socket
  commipc provide math twice --exec 'jq \".*2\"'       answer calls with a shell command
  commipc call math twice 21                         call it: prints 42
  commipc call math twice @numbers.json --deadline 2s
  commipc stream math primes --take 10               items as they come, one a line
  commipc listen math                                hear all broadcasts of a channel
  commipc broadcast math news '\"pi is still 3\"'      say something to all who listen
  commipc channels                                   what the hub holds
  commipc bridge URL_A URL_B --secret-file bridge.key
                                                     join two hubs
  commipc bench rpc --json                           measure calls through a hub
  commipc sim run --seeds 1000                       simulate hubs and clients in any weather

A hub writes its key beside its socket, where clients of the same user find it. For TCP, or another user:
  commipc keygen --out hub.key
  commipc hub --listen tcp://0.0.0.0:7117 --secret-file hub.key
  commipc call math twice 21 --hub tcp://host:7117 --secret-file hub.key

Exit codes: 0 ok, 1 other, 2 usage, 3 no provider, 4 deadline, 5 fault, 6 refused or authentication, 7 hub unreachable";

const HUB: &str = "\
Examples:
  commipc hub                                              on the default socket, with a key beside it
  commipc hub --listen tcp://127.0.0.1:0 --secret-file hub.key
  commipc hub --credentials hub.credentials                each with a secret of its own
  kill -HUP PID                                            read the table anew";
const CALL: &str = "\
Examples:
  commipc call math twice 21
  commipc call math sum '{\"a\": 15, \"b\": 25}' --deadline 2s
  commipc call math sum @numbers.json
  date +%s | commipc call math twice -
  commipc call math twice 21 -n 1000                       how long answers take";
const PROVIDE: &str = "\
Examples:
  commipc provide math echo --echo
  commipc provide math pi --reply 3.14159
  commipc provide math twice --exec 'jq \".*2\"'
  commipc provide math count --stream --reply '[1, 2, 3]'
  commipc provide logs follow --stream --exec 'tail -f /var/log/syslog'";
const STREAM: &str = "\
Examples:
  commipc stream math count
  commipc stream math primes '{\"above\": 1000}' --take 10
  commipc stream logs follow | grep error";
const SEND: &str = "\
Examples:
  commipc send printer print '{\"pages\": 3}'
  commipc send printer print @job.json";
const BROADCAST: &str = "\
Examples:
  commipc broadcast math news '\"pi is still 3\"'
  commipc broadcast math tick --count 1000
  commipc broadcast math news - <news.json";
const LISTEN: &str = "\
Examples:
  commipc listen math                                      all events
  commipc listen math news --count 1                       wait for one message
  commipc listen math --json | jq .data
  commipc listen __comm_ipc_system                         who joins, leaves and provides";
const CHANNELS: &str = "\
Examples:
  commipc channels
  commipc channels --json | jq -r .name";
const MEMBERS: &str = "\
Examples:
  commipc members math
  commipc members math --json | jq -r .client";
const CLEAR: &str = "\
Examples:
  commipc clear vault --credential boss --secret-file boss.key
  commipc channels --json | jq -r 'select(.members == 0).name'     passwords that outlive their members";
const PROTECT: &str = "\
Examples:
  commipc protect vault --password-file vault.key          a file with a password, or what keygen makes
  commipc call vault open 1 --password-file vault.key      for members; the secret of the hub is another one
  kill -HUP PID                                            change the password to what the file holds now
  commipc protect vault --password-file vault.key --owner-key-file vault.owner
                                                           keep the owner's key: the channel goes on without this command
  commipc protect vault --password-file vault.key --owner-key-file vault.owner --new-password-file new.key --hub tcp://b:7117
                                                           change the password, also from another hub, over bridges";
const KEYGEN: &str = "\
Examples:
  commipc keygen --out hub.key
  commipc hub --listen tcp://0.0.0.0:7117 --secret-file hub.key";
const DEMO: &str = "\
Examples:
  commipc demo";
const COMPLETIONS: &str = "\
Examples:
  commipc completions bash >~/.local/share/bash-completion/completions/commipc
  commipc completions zsh >~/.zfunc/_commipc
  commipc completions fish >~/.config/fish/completions/commipc.fish";
const MAN: &str = "\
Examples:
  commipc man | man -l -
  commipc man --out ~/.local/share/man/man1";
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

    /// A file with the channel's password, readable by its owner alone: a line key:<64 hex>, or any text
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

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
    Stream(Stream),
    Provide(Provide),
    Send(Send),
    Broadcast(Broadcast),
    Listen(Listen),
    Channels(Channels),
    Members(Members),
    Bridge(bridge::Args),
    Clear(Clear),
    Protect(Protect),
    Keygen(Keygen),
    Demo(Demo),
    #[command(subcommand, before_help = bench::args::EXAMPLES)]
    Bench(Bench),
    #[command(subcommand)]
    Sim(Sim),
    Completions(Completions),
    Man(Man),
}

/// Run a hub until SIGTERM or Ctrl-C
///
/// Prints one line `listening on URL` for each listener when it is ready. SIGTERM or Ctrl-C drains it: it takes no new
/// connections and requests, finishes what runs, and ends with 0, or with 4 if --drain was over before.
///
/// With --credentials, who may connect is read from a table, one line for each, # for comments:
///
///     # credential  secret               for which client ids   what it may beyond
///     alice         file:alice.key       ids=alice,alice-*
///     monitor       key:<64 hex digits>  ids=monitor-*          can=observer
///     default       password:<no spaces> ids=*
///
/// A secret is file:PATH (which starts where the table lies), key: or password:. can= takes, separated by commas, observer,
/// who may ask for channels and members and listen to the hub's own channels, admin, who may end channels of others
/// (`commipc clear`), and bridge, who may join this hub with another. Clients name their entry with --credential; those that
/// name none prove `default`, which --secret-file may give instead of a line.
///
/// SIGHUP reads the table and the secret file anew: new connections are asked by the new table, those that stand are not
/// touched. A table that makes no sense is reported on stderr, and the old one stays in force.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, before_help = HUB)]
pub(crate) struct Hub {
    /// Where to listen, may be repeated; tcp port 0 takes a free one [default: the common option --hub]
    #[arg(long, value_name = "URL")]
    pub(crate) listen: Vec<String>,
    /// A table of credentials, readable by its owner alone; SIGHUP reads it anew
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_no_auth")]
    pub(crate) credentials: Option<PathBuf>,
    /// What becomes of a channel when its owner goes: terminate, promote, or hold:30s (wait for it, then terminate; hold:30s,promote to promote then)
    #[arg(long, value_name = "POLICY", default_value = "terminate", value_parser = parse_policy)]
    pub(crate) on_owner_leave: OwnerPolicy,
    /// A file with a password for the hub's own channels: who listens to them, or asks for channels and members, must know it
    #[arg(long, value_name = "FILE")]
    pub(crate) system_password_file: Option<PathBuf>,
    /// A file with the secret of bridges to other hubs; without one there are none
    #[arg(long, value_name = "FILE")]
    pub(crate) bridge_secret_file: Option<PathBuf>,
    /// Where to keep who owns the channels and what checks their passwords, so that both survive a restart of the hub;
    /// made when absent, for this user only
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Tell what the hub holds and has done, in the text format of Prometheus, at http://ADDR/metrics; to whoever asks, so
    /// that ADDR should be on a loopback interface; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    #[command(flatten)]
    pub(crate) draining: crate::stop::Draining,
}

/// Give a channel a password and stay as its owner
///
/// The channel must be new, or without members: who opens it first owns it. The hub never hears the password, and every
/// message is signed from end to end. Prints `protecting CHANNEL` when the password is in force. SIGHUP reads the file anew
/// and changes the password: everybody else has to join again. The channel ends with this command, and is anybody's then, or
/// goes on as `hub --on-owner-leave` says. A hub that goes is waited for. Where this command is killed, the password stays with
/// the name for a day.
///
/// With --owner-key-file the channel outlives this command by a day, for whoever comes back with that file and the password: at
/// the hub where the channel was made, or at any hub that bridges join with it. Whoever has the file owns the channel.
#[derive(Args, Debug)]
#[command(before_help = PROTECT)]
pub(crate) struct Protect {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// The key of the channel's owner: written, for this user only, when this command makes the channel, and read when there is
    /// such a file
    #[arg(long, value_name = "FILE")]
    pub(crate) owner_key_file: Option<PathBuf>,
    /// The password from now on, where the channel has the one in --password-file; SIGHUP reads this file then
    #[arg(long, value_name = "FILE", requires = "owner_key_file")]
    pub(crate) new_password_file: Option<PathBuf>,
}

/// Call an event once and print the answer as JSON
///
/// What JSON cannot say is written {"$bytes":"<hex>"}, {"$float":"NaN"}, {"$tag":[number,value]} or
/// {"$map":[[key,value],…]}, in payloads and answers alike.
#[derive(Args, Debug)]
#[command(before_help = CALL)]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) topic: Topic,
    #[command(flatten)]
    pub(crate) what: Payload,
    /// How long it may take, from connecting to the answer: 2s, 500ms, 1m; with -n for each answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(crate) deadline: Duration,
    /// Repeat the call and print how long the answers took instead
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,
    /// Tell on stderr who has answered, and over which hubs the answer has come
    #[arg(long, conflicts_with = "repeat")]
    pub(crate) trace: bool,
}

/// Which event of which channel.
#[derive(Args, Debug)]
pub(crate) struct Topic {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// The event
    #[arg(value_name = "EVENT")]
    pub(crate) event: String,
}

/// What is said.
#[derive(Args, Debug)]
pub(crate) struct Payload {
    /// The payload: JSON, @FILE with JSON, or - for stdin
    #[arg(value_name = "JSON|@FILE|-", default_value = "null", allow_hyphen_values = true)]
    pub(crate) payload: String,
}

/// Print the items of a stream as JSON, one a line, as they come
///
/// Ends with the stream, after so many items, or with SIGTERM or Ctrl-C, which cancel it: its provider stops. A stream that
/// fails does so after the items before it. The provider is no faster than what reads these lines.
#[derive(Args, Debug)]
#[command(before_help = STREAM)]
pub(crate) struct Stream {
    #[command(flatten)]
    pub(crate) topic: Topic,
    #[command(flatten)]
    pub(crate) what: Payload,
    /// End after so many items
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) take: Option<u64>,
    /// How long it may take, from connecting to a provider's taking the request; items have all the time
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(crate) deadline: Duration,
}

/// Answer calls of an event until SIGTERM, Ctrl-C or the loss of the hub
///
/// Prints `providing CHANNEL/EVENT` when ready. SIGTERM or Ctrl-C withdraws the event and finishes what runs; it ends with 0,
/// or with 4 if --drain was over before.
///
/// With --stream every request is answered with a stream: --echo gives one item, --reply the elements of an array, or
/// whatever else it is as the only item, and --exec each line that CMD prints (JSON, else text) as it comes. CMD is read
/// no faster than items are wanted, and killed with its children when the caller gives up; if it exits with
/// anything but 0, the stream fails after its items.
#[derive(Args, Debug)]
#[command(before_help = PROVIDE)]
pub(crate) struct Provide {
    #[command(flatten)]
    pub(crate) topic: Topic,
    #[command(flatten)]
    pub(crate) with: Answering,
    /// Answer with a stream
    #[arg(long)]
    pub(crate) stream: bool,
    #[command(flatten)]
    pub(crate) draining: crate::stop::Draining,
}

/// Say something to an event's provider, without an answer
///
/// Ends when the hub has taken it. What the provider makes of it is not told.
#[derive(Args, Debug)]
#[command(before_help = SEND)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) topic: Topic,
    #[command(flatten)]
    pub(crate) what: Payload,
}

/// Say something to all who listen
///
/// Ends when the hub has taken it. That nobody listens is no error.
#[derive(Args, Debug)]
#[command(before_help = BROADCAST)]
pub(crate) struct Broadcast {
    #[command(flatten)]
    pub(crate) topic: Topic,
    #[command(flatten)]
    pub(crate) what: Payload,
    /// Say it so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,
}

/// Print the broadcasts of a channel, one a line, until SIGTERM, Ctrl-C or the loss of the hub
///
/// Says `listening to CHANNEL` on stderr when ready. A line is the sender, the event and the payload as JSON, with
/// `(N missed)` behind it where so many messages before it were dropped because this command was too slow, and `(N lost)`
/// where so many never came, which only a protected channel can tell. A payload of raw bytes is shown as
/// {"$bytes":"<hex>"}.
///
/// With --json: sender, hub, channel, event, data, number (the sender's count for this event), sent_at (ms since 1970, by
/// the sender's clock), hops, metadata, missed and lost.
#[derive(Args, Debug)]
#[command(before_help = LISTEN)]
pub(crate) struct Listen {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// The event [default: all]
    #[arg(value_name = "EVENT")]
    pub(crate) event: Option<String>,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// List the channels of a hub: who owns them, whether they have a password, how many members and providers they have
///
/// Needs the hub's own secret, or a credential with can=observer.
#[derive(Args, Debug)]
#[command(before_help = CHANNELS)]
pub(crate) struct Channels {}

/// List the members of a channel, in the order in which they joined: who owns it, and the events they provide
///
/// Needs the hub's own secret, or a credential with can=observer.
#[derive(Args, Debug)]
#[command(before_help = MEMBERS)]
pub(crate) struct Members {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
}

/// End a channel of others for all its members, and make the hub forget its password
///
/// For who proves a credential with can=admin: where a password has outlived everybody who knows it (a day without members
/// ends it as well), or an owner does harm. Prints `cleared CHANNEL`. Whoever opens the channel next owns it.
#[derive(Args, Debug)]
#[command(before_help = CLEAR)]
pub(crate) struct Clear {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
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
#[command(before_help = KEYGEN)]
pub(crate) struct Keygen {
    /// Write a new file only its owner can read; an existing one is left alone
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Hub, provider and consumer in one process, with every step explained
#[derive(Args, Debug)]
#[command(before_help = DEMO)]
pub(crate) struct Demo {}

/// Print a script that completes this command line in a shell
#[derive(Args, Debug)]
#[command(before_help = COMPLETIONS)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Print the manual page, or write one for each command
#[derive(Args, Debug)]
#[command(before_help = MAN)]
pub(crate) struct Man {
    /// Write commipc.1 and a page for each command to this folder, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// `terminate`, `promote`, `hold:30s`, `hold:30s,promote`.
fn parse_policy(text: &str) -> Result<OwnerPolicy, String> {
    let held = text.strip_prefix("hold:").map(|held| held.split_once(',').unwrap_or((held, "terminate")));
    match (text, held) {
        ("terminate", _) => Ok(OwnerPolicy::Terminate),
        ("promote", _) => Ok(OwnerPolicy::Promote),
        (_, Some((grace, "terminate"))) => hold(grace, AfterGrace::Terminate),
        (_, Some((grace, "promote"))) => hold(grace, AfterGrace::Promote),
        (_, Some(_) | None) => {
            Err(format!("{text:?} is no policy; write terminate, promote, hold:30s or hold:30s,promote"))
        }
    }
}

fn hold(grace: &str, then: AfterGrace) -> Result<OwnerPolicy, String> {
    Ok(OwnerPolicy::Hold { grace: parse_duration(grace)?, then })
}

/// `2s`, `500ms`, `1.5m`, `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn what_becomes_of_channels_without_their_owners_is_said_in_a_word() {
        let hold = |then| Ok(OwnerPolicy::Hold { grace: Duration::from_secs(90), then });
        assert_eq!(parse_policy("hold:1.5m"), hold(AfterGrace::Terminate));
        assert_eq!(parse_policy("hold:90s,terminate"), hold(AfterGrace::Terminate));
        assert_eq!(parse_policy("hold:90s,promote"), hold(AfterGrace::Promote));
        assert_eq!(parse_policy("promote"), Ok(OwnerPolicy::Promote));
        for wrong in ["hold", "hold:", "hold:0s", "hold:9s,", "hold:9s,keep", "Promote", ""] {
            assert!(parse_policy(wrong).is_err(), "{wrong}");
        }
    }

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
        assert_eq!(call.what.payload, "-5");
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
