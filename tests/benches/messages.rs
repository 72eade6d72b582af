//! What a message costs each machine it touches, and what signing it costs: instructions, which hold on a noisy machine.
//!
//! Calls, items of a stream and broadcasts go between real machines, 64 at a time and more, on an open channel and on one
//! with a password; what a machine does is counted by running this program again under valgrind. Fails where signing costs
//! the hub anything but the copying of 32 bytes more.
//!
//! Valgrind's processor has no instructions for SHA-256, so that what is signed costs several times what it costs on one that
//! has them: the figures for signing are those of a plain processor. What that comes to in time is told first: how many signed
//! messages a core takes from their sender through the hub to who verifies them, in seconds that this program had the
//! processor.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a bench may fail loudly")]
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::hint::black_box;
use std::process::{Command as Process, ExitCode, Stdio};
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    self, Client, Command, Credit, Event, EventKind, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::hub::Hub;
use commipc_protocol::{EventName, Input, LinkId, Machine, Now, Output};

#[path = "../../protocol/tests/support/mod.rs"]
mod support;

use support::{World, name, outgoing, payload};

/// Who says something, and who hears it first.
const SENDER: usize = 0;
const RECEIVER: usize = 1;
/// Machines that are counted: by the functions that they do everything in.
const PLACES: [(&str, &str); 3] = [("sender", "*at_sender*"), ("hub", "*at_hub*"), ("receiver", "*at_receiver*")];
/// What is said, and how much of it is counted.
const MESSAGES: [(&str, u64); 4] = [
    ("call and answer, 64 B", 2 * IN_FLIGHT),
    ("item of 64 B", 2_048),
    ("item of 64 KiB", 128),
    ("delivery of 256 B, 1 to 32", 32 * SAID),
];
/// Calls at a time.
const IN_FLIGHT: u64 = 256;
/// Broadcasts.
const SAID: u64 = 16;
const LISTENERS: usize = 32;
/// What the commands ask of a stream that does not say otherwise.
const WINDOW: Credit = Credit { items: 256, bytes: 256 << 10 };
/// How much more instructions a signed message may cost the hub.
const TOLERANCE: f64 = 1.10;
/// For how long signed messages are counted.
const MEASURED: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [only, world, signed] = &arguments[..]
        && only == "--world"
    {
        run(world, signed == "signed");
        return ExitCode::SUCCESS;
    }
    rates();
    if Process::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("NOT MEASURED: valgrind is not installed, so there are no instruction counts");
        return ExitCode::FAILURE;
    }
    println!("instructions a message         {:>10} {:>10} {:>7}", "unsigned", "signed", "×");
    let mut fine = true;
    for (message, count) in MESSAGES {
        for (place, functions) in PLACES {
            let [plain, signed] = ["plain", "signed"].map(|signed| measure(message, signed, functions) / count as f64);
            let ratio = signed / plain;
            println!("{message:<27} {place:<8} {plain:>10.0} {signed:>10.0} {ratio:>7.2}");
            fine &= place != "hub" || ratio <= TOLERANCE;
        }
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tells how many signed messages a core takes in a second. The goals are for people to compare: processors differ.
fn rates() {
    println!("signed messages a second of a core: signed, routed and verified");
    for (kind, (message, count)) in MESSAGES.iter().enumerate() {
        let mut wires = connected(if kind == 3 { LISTENERS } else { 1 }, kind, Some(&Secret::key([9; 32])));
        wires.goes(kind);
        let (began, mut done) = (processor(), 0);
        while processor() - began < MEASURED {
            wires.goes(kind);
            done += count;
        }
        println!("{message:<27} {:>19.0}", done as f64 / (processor() - began).as_secs_f64());
    }
}

/// How long this program has had a processor.
fn processor() -> Duration {
    let told = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}

/// Instructions inside of the functions of one machine.
fn measure(world: &str, signed: &str, functions: &str) -> f64 {
    let output = Process::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", &format!("--toggle-collect={functions}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--world", world, signed])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected :")).map(|(_, count)| count.trim().to_owned());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("valgrind counted nothing:\n{text}"))
}

fn run(world: &str, signed: bool) {
    let password = signed.then(|| Secret::key([9; 32]));
    let kind = MESSAGES.iter().position(|(message, _)| *message == world).unwrap();
    let mut wires = connected(if kind == 3 { LISTENERS } else { 1 }, kind, password.as_ref());
    // What the first messages allocate is no cost of the next ones.
    for counted in [false, true] {
        wires.counted = counted;
        wires.goes(kind);
        wires.counted = false;
    }
}

/// A sender and its receivers, who provide or listen.
fn connected(receivers: usize, kind: usize, password: Option<&Secret>) -> Wires {
    let names: Vec<String> = (0..=receivers).map(|number| format!("client-{number}")).collect();
    let mut world = World::ready(&names.iter().map(String::as_str).collect::<Vec<_>>());
    // Who gives the items of a stream is its provider, and else who receives.
    let (owner, asks) = if matches!(kind, 1 | 2) { (SENDER, RECEIVER) } else { (RECEIVER, SENDER) };
    world.open(owner, "channel");
    if let Some(password) = password {
        world.protect(owner, "channel", password, 1);
        for other in (0..names.len()).filter(|other| *other != owner) {
            world.join(other, "channel", password);
        }
    }
    let provides = if asks == RECEIVER { EventKind::Stream } else { EventKind::Call };
    if kind == 3 {
        for listener in 1..names.len() {
            if listener != owner && password.is_none() {
                world.open(listener, "channel");
            }
            world.listen(listener, 5, "channel", Some("event"));
        }
    } else {
        let (channel, event) = (name("channel"), EventName::new("event").unwrap());
        world.command(owner, Command::Provide { token: Token(5), channel, event, kind: provides });
        world.expect_done(owner, 5);
    }
    Wires { hub: world.hub, clients: world.clients, now: world.now, counted: false }
}

/// Machines, and the wires between them.
struct Wires {
    hub: Hub,
    clients: Vec<Client>,
    now: Now,
    counted: bool,
}

impl Wires {
    /// Does something with a machine, in the function in which that is counted.
    fn client<T>(&mut self, client: usize, act: impl FnOnce(&mut Client, Now) -> T) -> T {
        let (machine, now) = (&mut self.clients[client], self.now);
        match (client, self.counted) {
            (_, false) => act(machine, now),
            (SENDER, true) => at_sender(machine, now, act),
            (_, true) => at_receiver(machine, now, act),
        }
    }

    fn hub<T>(&mut self, act: impl FnOnce(&mut Hub, Now) -> T) -> T {
        let (machine, now) = (&mut self.hub, self.now);
        if self.counted { at_hub(machine, now, act) } else { act(machine, now) }
    }

    fn command(&mut self, client: usize, command: Command) {
        self.client(client, |machine, now| machine.handle_input(now, Input::Command(command)));
    }

    /// Everything that one client has to say, and hears.
    fn flush(&mut self, client: usize, events: &mut Vec<Event>) -> bool {
        let link = LinkId::accepted(u32::try_from(client).unwrap(), u32::try_from(client + 1).unwrap());
        let mut busy = false;
        while let Some(output) = self.client(client, |machine, _| machine.poll_output()) {
            busy = true;
            match output {
                Output::Event(event) => events.push(event),
                Output::Transmit { link: dialled, data } => {
                    let bytes = data.len();
                    for data in read(&data) {
                        self.hub(|hub, now| hub.handle_input(now, Input::Received { link, data }));
                    }
                    drop(data);
                    self.client(client, |it, now| it.handle_input(now, Input::Written { link: dialled, bytes }));
                }
                other => panic!("{other:?}"),
            }
        }
        busy
    }

    /// Everything that can happen, and what the clients are told of it.
    fn run(&mut self) -> Vec<(usize, Event)> {
        let mut told = Vec::new();
        loop {
            let mut busy = false;
            for client in 0..self.clients.len() {
                let mut events = Vec::new();
                busy |= self.flush(client, &mut events);
                told.extend(events.into_iter().map(|event| (client, event)));
            }
            while let Some(output) = self.hub(|hub, _| hub.poll_output()) {
                busy = true;
                let Output::Transmit { link, data } = output else { continue };
                let bytes = data.len();
                for data in read(&data) {
                    let received = Input::Received { link: LinkId::dialled(0, 1), data };
                    self.client(link.index(), |client, now| client.handle_input(now, received));
                }
                drop(data);
                self.hub(|hub, now| hub.handle_input(now, Input::Written { link, bytes }));
            }
            if !busy {
                return told;
            }
        }
    }

    /// As many messages of one kind as are counted at a time.
    fn goes(&mut self, kind: usize) {
        let count = MESSAGES[kind].1;
        match kind {
            0 => self.call(count),
            1 => self.stream(count, 64),
            2 => self.stream(count, 64 << 10),
            _ => self.broadcast(SAID),
        }
    }

    fn call(&mut self, count: u64) {
        let body = vec![1; 64].leak();
        for _ in 0..count / IN_FLIGHT {
            for token in 0..IN_FLIGHT {
                let (outgoing, time_left) = (outgoing("channel", "event", body), Duration::from_secs(30));
                self.command(SENDER, Command::Call { token: Token(token), outgoing, time_left });
            }
            for (client, event) in self.run() {
                let Event::Request(request) = event else { panic!("{client}: {event:?}") };
                self.command(RECEIVER, Command::Answer { request: request.id, result: Ok(payload(body)) });
            }
            let answered = self.run().into_iter().filter(|(_, it)| matches!(it, Event::Answered { result: Ok(_), .. }));
            assert_eq!(answered.count() as u64, IN_FLIGHT);
        }
    }

    /// Asks for a stream, takes so many items of it and gives it up.
    fn stream(&mut self, count: u64, size: usize) {
        let item = payload(vec![1; size].leak());
        let (token, outgoing) = (Token(9), outgoing("channel", "event", b""));
        let ask = StreamCommand::Ask { token, outgoing, time_left: DAY, whole: None, window: WINDOW, exchange: false };
        self.command(RECEIVER, Command::Stream(ask));
        let mut told = self.run();
        let (mut items, mut taken, mut wanted) = (0, Credit::NONE, Credit::NONE);
        while items < count {
            for (_, event) in told {
                match event {
                    Event::Request(client::Request { id, .. }) => {
                        self.command(SENDER, Command::Stream(StreamCommand::Accept { request: id, window: WINDOW }));
                    }
                    Event::Stream(StreamEvent::Demand { stream, amount }) => {
                        wanted = wanted.plus(amount);
                        let mut payloads = Vec::new();
                        while wanted.items > 0 && wanted.bytes > 0 {
                            wanted = wanted.minus(Credit { items: 1, bytes: size as u64 + 256 });
                            payloads.push(item.clone());
                        }
                        self.command(SENDER, Command::Stream(StreamCommand::Items { stream, payloads }));
                    }
                    Event::Stream(StreamEvent::Item { cost, .. }) => {
                        items += 1;
                        taken = taken.plus(Credit { items: 1, bytes: cost });
                    }
                    Event::Stream(StreamEvent::Accepted { .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
            let (stream, amount) = (StreamId::Call(token), std::mem::replace(&mut taken, Credit::NONE));
            self.command(RECEIVER, Command::Stream(StreamCommand::Consumed { stream, amount }));
            told = self.run();
            assert!(!told.is_empty(), "the stream has stopped");
        }
        self.counted = false;
        self.command(RECEIVER, Command::Cancel { call: token });
        self.run();
    }

    fn broadcast(&mut self, count: u64) {
        let body = vec![1; 256].leak();
        for token in 0..count {
            let outgoing = outgoing("channel", "event", body);
            self.command(SENDER, Command::Broadcast { token: Token(token), outgoing });
        }
        let heard = self.run().into_iter().filter(|(_, event)| matches!(event, Event::Message(_)));
        assert_eq!(heard.count() as u64, count * LISTENERS as u64);
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// Bytes as a driver reads them: at most 64 KiB at a time, in buffers of its own.
fn read(data: &Bytes) -> impl Iterator<Item = Bytes> {
    data.chunks(64 << 10).map(Bytes::copy_from_slice)
}

// Each with a word of its own: functions that are the same would become one.

#[inline(never)]
fn at_sender<T>(machine: &mut Client, now: Now, act: impl FnOnce(&mut Client, Now) -> T) -> T {
    black_box("sender");
    act(machine, now)
}

#[inline(never)]
fn at_receiver<T>(machine: &mut Client, now: Now, act: impl FnOnce(&mut Client, Now) -> T) -> T {
    black_box("receiver");
    act(machine, now)
}

#[inline(never)]
fn at_hub<T>(machine: &mut Hub, now: Now, act: impl FnOnce(&mut Hub, Now) -> T) -> T {
    black_box("hub");
    act(machine, now)
}
