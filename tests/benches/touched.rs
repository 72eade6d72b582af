//! What a call costs must not depend on what it does not touch.
//!
//! A hub routes the same calls alone, beside 10,000 idle links, beside 10,000 channels, and beside a channel with 1,000
//! members, or on a channel with a password, where they are signed; a broadcast is delivered to 32 and to 1,000. Counted in instructions, which hold on a noisy machine, by
//! running this program again under valgrind. Fails where a cost is more than 10 % above that of the smallest hub.
#![allow(clippy::unwrap_used, reason = "a bench may fail loudly")]
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::process::{Command as Process, ExitCode, Stdio};

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Event, Token};
use commipc_protocol::hub::{self, Hub};
use commipc_protocol::{Input, Instant, LinkId, Machine as _, Now, Output, Peer, Transport, UnixMillis};

#[path = "../../protocol/tests/support/mod.rs"]
mod support;

use support::{KEY, name};

/// Worlds in which calls are routed, the smallest first.
const CALLS: [&str; 5] = ["alone", "signed", "10,000 idle links", "10,000 channels", "1,000 members elsewhere"];
/// Worlds in which broadcasts are delivered, the smallest first.
const DELIVERIES: [&str; 2] = ["32 listeners", "1,000 listeners"];
/// Calls measured.
const ROUTED: u64 = 2_560;
/// Broadcasts measured.
const SAID: u64 = 16;
/// How much more than in the smallest hub is the same.
const TOLERANCE: f64 = 1.10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [only, world] = &arguments[..]
        && only == "--world"
    {
        run(world);
        return ExitCode::SUCCESS;
    }
    if Process::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("NOT MEASURED: valgrind is not installed, so there are no instruction counts");
        return ExitCode::FAILURE;
    }
    let calls = table("instructions a call, both ways", &CALLS, |_| ROUTED);
    let deliveries = table("instructions a delivery", &DELIVERIES, |world| SAID * listeners(world));
    if calls && deliveries { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn listeners(world: &str) -> u64 {
    if world == DELIVERIES[0] { 32 } else { 1_000 }
}

/// Measures the worlds and prints them; whether all cost as much as the first.
fn table(what: &str, worlds: &[&str], operations: impl Fn(&str) -> u64) -> bool {
    println!("{what}");
    let (mut first, mut fine) = (None, true);
    for world in worlds {
        let cost = measure(world) as f64 / operations(world) as f64;
        let ratio = cost / *first.get_or_insert(cost);
        fine &= ratio <= TOLERANCE;
        println!("  {world:<26} {cost:>9.0}   × {ratio:.3}");
    }
    fine
}

/// Instructions inside of [`support::feed`].
fn measure(world: &str) -> u64 {
    let output = Process::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"])
        .arg(std::env::current_exe().unwrap())
        .args(["--world", world])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected :")).map(|(_, count)| count.trim().to_owned());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("valgrind counted nothing:\n{text}"))
}

/// Builds a world, not counted, and does the counted work in it.
fn run(world: &str) {
    let (setup, steady) = if DELIVERIES.contains(&world) {
        let listeners = usize::try_from(listeners(world)).unwrap();
        let (setup, _) = support::recorded::recorded_broadcasts(listeners, 0, 256);
        (setup, broadcasts(listeners))
    } else {
        // What is signed by those who talk costs the hub nothing.
        let password = (world == "signed").then(|| Secret::key([9; 32]));
        support::recorded::recorded_calls_with(password.as_ref(), 10, ROUTED / 10, 64)
    };
    let mut hub = support::fed(setup);
    match world {
        "10,000 idle links" => crowd(&mut hub, 10_000, |_| Vec::new()),
        "10,000 channels" => {
            crowd(&mut hub, 10, |client| (0..1_000).map(|number| open(&format!("channel {client}-{number}"))).collect())
        }
        "1,000 members elsewhere" => crowd(&mut hub, 1_000, |_| {
            let listen = Command::Listen { token: Token(2), channel: name("elsewhere"), event: None };
            vec![open("elsewhere"), listen]
        }),
        _ => {}
    }
    // What the first messages allocate is no cost of the next ones.
    let warm = steady.clone();
    support::feed(&mut hub, warm);
    measured(&mut hub, steady);
}

#[inline(never)]
fn measured(hub: &mut Hub, inputs: Vec<Input<hub::Command>>) {
    support::feed(hub, inputs);
}

fn open(channel: &str) -> Command {
    Command::Open { token: Token(1), channel: name(channel), access: commipc_protocol::client::Access::default() }
}

/// Broadcasts of a client with so many listeners, which other links acknowledge.
fn broadcasts(listeners: usize) -> Vec<Input<hub::Command>> {
    support::recorded::recorded_broadcasts(listeners, SAID, 256).1
}

/// Connects clients beside those that are there, and lets each ask for something.
fn crowd(hub: &mut Hub, count: u32, asks: impl Fn(u32) -> Vec<Command>) {
    let now = Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) };
    for number in 0..count {
        let accepted = LinkId::accepted(100 + number, 1);
        let mut client = support::client(&format!("crowd-{number}"), Secret::key(KEY));
        client.handle_input(now, Input::Command(Command::Connect));
        let (mut asks, mut granted) = (asks(number).into_iter(), true);
        loop {
            let mut busy = false;
            while let Some(output) = client.poll_output() {
                busy = true;
                match output {
                    Output::Dial { link, .. } => {
                        let peer = Peer::unknown(Transport::Memory);
                        hub.handle_input(now, Input::Accepted { link: accepted, peer: peer.clone() });
                        client.handle_input(now, Input::Dialled { link, peer });
                    }
                    Output::Transmit { link, data } => {
                        client.handle_input(now, Input::Written { link, bytes: data.len() });
                        hub.handle_input(now, Input::Received { link: accepted, data });
                    }
                    Output::Event(event) => {
                        granted &= !matches!(event, Event::Closed(_) | Event::Done { result: Err(_), .. });
                    }
                    Output::Close { .. } => granted = false,
                }
            }
            while let Some(output) = hub.poll_output() {
                busy = true;
                let Output::Transmit { link, data } = output else { continue };
                hub.handle_input(now, Input::Written { link, bytes: data.len() });
                if link == accepted {
                    client.handle_input(now, Input::Received { link: LinkId::dialled(0, 1), data });
                }
            }
            if !busy {
                let Some(command) = asks.next() else { break };
                client.handle_input(now, Input::Command(command));
            }
        }
        assert!(client.load() == Default::default(), "everything asked is answered");
        assert!(granted, "everything asked is granted");
    }
}
