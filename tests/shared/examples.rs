//! The examples of an adapter are programs that find each other. This test belongs to each of the adapters.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as loudly as tests")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

#[test]
fn hub_provider_and_consumer_find_each_other() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("unix:{}", place.path().join("hub.sock").display());
    let (mut hub, told, _hub_says) = start("hub", &url);
    assert_eq!(told, format!("listening on {url}"));
    let (mut provider, told, _provider_says) = start("provider", &url);
    assert_eq!(told, "providing");

    let consumer = Command::new(program("consumer")).env("COMMIPC_HUB", &url).output().unwrap();
    let told = String::from_utf8(consumer.stdout).unwrap();
    assert_eq!(told, "15 + 25 = 40\n0\n1\n2\n3\n4\nthe provider was asked 1 time(s)\n");

    hub.kill().unwrap();
    hub.wait().unwrap();
    assert!(provider.wait().unwrap().success(), "a provider that does not reconnect ends with its hub");
}

/// Starts a program, and waits for the first thing it says. What it says later must find a reader.
fn start(name: &str, url: &str) -> (Child, String, BufReader<ChildStdout>) {
    let mut child = Command::new(program(name)).env("COMMIPC_HUB", url).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    let mut says = BufReader::new(child.stdout.take().unwrap());
    says.read_line(&mut told).unwrap();
    (child, told.trim_end().to_owned(), says)
}

/// Cargo builds the examples of a package beside its tests: `commipc-async-std` has one `async_std_hub`.
fn program(name: &str) -> PathBuf {
    let adapter = env!("CARGO_PKG_NAME").trim_start_matches("commipc-").replace('-', "_");
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples").join(format!("{adapter}_{name}"));
    assert!(
        program.exists(),
        "the examples are not built: `cargo test` does it where no target is chosen, and `cargo build --examples`"
    );
    program
}
