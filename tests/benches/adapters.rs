//! What each adapter makes of the same work: hub, provider and consumer in three processes over a Unix socket, 64 bytes a call.
//! Prints the two columns of the README's table of adapters. Adapters take turns, so that a busy moment hits all of them.
//!
//! `cargo bench -p commipc-tests --bench adapters`
#![expect(clippy::print_stdout, reason = "it is a program")]
#![expect(clippy::unwrap_used, reason = "what goes wrong ends the bench")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

const ADAPTERS: [&str; 4] = ["tokio", "smol", "async-std", "blocking"];
const ROUNDS: usize = 3;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut results = [const { Vec::new() }; ADAPTERS.len()];
    for _ in 0..ROUNDS {
        for (adapter, results) in ADAPTERS.iter().zip(&mut results) {
            results.push(measure(adapter));
        }
    }
    println!("| adapter | a call alone, µs | calls a second, 256 at a time |\n|---|---|---|");
    for (adapter, mut results) in ADAPTERS.iter().zip(results) {
        results.sort_by(|one, other| one.0.total_cmp(&other.0));
        let alone = results[ROUNDS / 2].0;
        results.sort_by(|one, other| one.1.total_cmp(&other.1));
        println!("| {adapter} | {alone:.0} | {:.0} |", results[ROUNDS / 2].1);
    }
}

/// Microseconds of a call, and calls a second.
fn measure(adapter: &str) -> (f64, f64) {
    let place = tempfile::tempdir().unwrap();
    let url = format!("unix:{}", place.path().join("hub.sock").display());
    let start = |role: &str| Puppet::start(adapter, role, &url);
    let (_hub, _provider, mut bench) = (start("hub"), start("provider"), start("bench"));
    let line = bench.line();
    let (nanoseconds, rate) = line.split_once(' ').unwrap();
    (nanoseconds.parse::<f64>().unwrap() / 1_000.0, rate.parse().unwrap())
}

/// A process that ends with this one.
struct Puppet(Child, BufReader<ChildStdout>);

impl Puppet {
    fn start(adapter: &str, role: &str, url: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_puppet"));
        let command = command.args([adapter, role, url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        let mut puppet = Self(child, told);
        puppet.line();
        puppet
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
