//! The binary `commipc`: a hub, a provider, a caller, benchmarks and the simulator on the command line.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "comments on arguments are what --help prints"
)]

mod args;
mod bench;
mod bridge;
mod call;
mod connect;
mod demo;
mod errors;
mod exec;
mod failure;
mod hub;
mod json;
mod keygen;
mod listen;
mod manual;
mod metrics;
mod observe;
mod payload;
mod protect;
mod provide;
mod say;
mod sim;
mod stop;
mod stream;
mod tamper;

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tracing::level_filters::LevelFilter;

use args::{Channels, Cli, Command, Common, Demo};
use bench::args::PartCli;
use failure::{Failure, Outcome};

fn main() -> ExitCode {
    if let Some(PartCli { common, part }) = PartCli::of(std::env::args_os()) {
        let outcome = on_one_thread(bench::run_part(part, &common));
        return outcome.map_or_else(|failure| failure.report(common.json), |()| ExitCode::SUCCESS);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    start_log(&cli.common);
    let json = cli.common.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn run(cli: Cli) -> Outcome {
    let common = cli.common;
    match cli.command {
        Command::Hub(args) => on_one_thread(hub::run(args, &common)),
        Command::Call(args) => {
            let payload = payload::read(&args.what.payload)?;
            on_one_thread(call::run(&args, payload, &common))
        }
        Command::Stream(args) => {
            let payload = payload::read(&args.what.payload)?;
            on_one_thread(stream::run(&args, payload, &common))
        }
        Command::Send(args) => {
            let payload = payload::read(&args.what.payload)?;
            on_one_thread(say::send(&args, payload, &common))
        }
        Command::Broadcast(args) => {
            let payload = payload::read(&args.what.payload)?;
            on_one_thread(say::broadcast(&args, payload, &common))
        }
        Command::Listen(args) => on_one_thread(listen::run(&args, &common)),
        Command::Channels(Channels {}) => on_one_thread(observe::channels(&common)),
        Command::Members(args) => on_one_thread(observe::members(&args, &common)),
        Command::Clear(args) => on_one_thread(observe::clear(&args, &common)),
        Command::Provide(args) => {
            let answers = provide::Answers::of(&args)?;
            on_one_thread(provide::run(&args, answers, &common))
        }
        Command::Demo(Demo {}) => on_one_thread(demo::run(common.json)),
        Command::Bridge(args) => on_one_thread(bridge::run(&args, &common)),
        Command::Protect(args) => on_one_thread(protect::run(&args, &common)),
        Command::Keygen(args) => keygen::run(&args, common.json),
        Command::Completions(args) => manual::completions(&args, common.json),
        Command::Man(args) => manual::man(&args, common.json),
        Command::Bench(args) => bench::run(&args, &common),
        Command::Sim(args) => sim::run(&args, common.json),
    }
}

/// Runs a future on a current-thread runtime, which ends, with all that was spawned on it, before this returns. What
/// blocks a thread of its own, as a pipe that nobody reads does, is not waited for.
fn on_one_thread(future: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("starting the runtime", &error))?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background();
    outcome
}

/// Prints one line on stdout.
fn say(line: impl Display) {
    say_raw(&format!("{line}\n"));
}

/// Prints on stdout. Somebody who has stopped reading is not told any more; that is no error.
fn say_raw(text: &str) {
    let _ = try_say(text);
}

/// Prints on stdout, and tells whether it is still open: for what would else go on for nobody.
fn try_say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Prints one line on stderr. Nobody is left to tell when it is closed.
fn say_beside(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says on stderr what is no failure, for people or as one line of JSON.
fn note(text: &str, json: bool) {
    if json {
        say_beside(serde_json::json!({ "note": text }));
    } else {
        say_beside(format_args!("commipc: {text}"));
    }
}

/// Help, version, or a command line that makes no sense.
fn not_understood(error: &clap::Error) -> ExitCode {
    // The options were not understood, so neither was --json, which may stand anywhere.
    let json = std::env::args_os().any(|arg| arg == "--json");
    if error.use_stderr() && json {
        let text = error.render().to_string();
        let mut lines = text.lines().map(|line| line.trim_start_matches("error: ")).filter(|line| !line.is_empty());
        let message = lines.next().unwrap_or("the command line makes no sense").to_owned();
        return Failure::usage(message).hint("try 'commipc --help'").report(true);
    }
    // With stdout or stderr closed there is nobody to tell.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

fn start_log(common: &Common) {
    let level = common.log.unwrap_or(match common.verbose {
        0 => LevelFilter::OFF,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    });
    if level != LevelFilter::OFF {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colour = colour && std::io::stderr().is_terminal();
        let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(colour);
        if common.json { log.json().init() } else { log.init() }
    }
}
