//! What lies in the memory of a process in which a hub runs, and nobody else: of a channel's password nothing.
//!
//! ```text
//! this process: clients that know the password ──► what their hub is fed ──► a process of its own: a hub ◄── searched
//! ```

#![cfg(target_os = "linux")]
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

#[path = "../../tests/shared/memory.rs"]
mod memory;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use commipc_protocol::auth::{Kdf, Secret};
use commipc_protocol::client::ChannelSalt;
use commipc_protocol::hub;
use commipc_protocol::{Input, LinkId, Peer, Transport};
use hkdf::Hkdf;
use memory::{MemberKeys, Memory};
use sha2::{Digest as _, Sha256};
use support::{World, name};

/// Tells this program that it is the process with the hub.
const IS_HUB: &str = "COMMIPC_TEST_HUB_MEMORY";
const FED: &str = "the hub was fed";
/// Of the first password and of the next.
const SALTS: [[u8; 16]; 2] = [[3; 16], [4; 16]];
const CHANNEL: &str = "cellar-6d1be0aa";

/// One that stands in no program.
fn password() -> [u8; 32] {
    let mut random = [0; 32];
    File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    random
}

/// What a hub is fed by an owner and a member that prove a password and talk under it, and by one that guesses it; and then by
/// the same under a new password.
fn recorded([secret, next]: [&Secret; 2]) -> Vec<Input<hub::Command>> {
    let mut world = World::new(&["owner", "member", "guesser"]);
    // Frames are tagged and keys masked: what the hub knows it has from taking that off.
    world.transport = Transport::Tcp;
    world.record = Some(Vec::new());
    world.connect_all();
    world.open(0, CHANNEL);
    world.protect(0, CHANNEL, secret, SALTS[0][0]);
    world.join(1, CHANNEL, secret);
    world.try_to_join(2, 3, CHANNEL, &Secret::key([2; 32]));
    world.expect_refused(2);
    world.provide(0, 5, CHANNEL, "ev");
    world.listen(1, 6, CHANNEL, None);
    world.say(0, CHANNEL, "news", b"in the cellar");
    world.expect_message(1);
    world.call(1, 7, CHANNEL, "ev", b"is anybody there?");
    world.expect_request(0);
    world.try_to_protect(0, 8, CHANNEL, next, SALTS[1][0]);
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world.join(1, CHANNEL, next);
    world.listen(1, 8, CHANNEL, None);
    world.say(0, CHANNEL, "news", b"in the attic");
    world.expect_message(1);
    // Who knows the old one alone is out.
    world.try_to_join(2, 4, CHANNEL, secret);
    world.expect_refused(2);
    assert_eq!(world.hub.load().channels, 1);
    world.record.unwrap()
}

/// One input a line.
fn written(inputs: &[Input<hub::Command>]) -> String {
    let mut text = String::new();
    for input in inputs {
        match input {
            Input::Accepted { link, .. } => writeln!(text, "accepted {} {}", link.index(), link.generation()),
            Input::Written { link, bytes } => writeln!(text, "written {} {bytes}", link.index()),
            Input::Received { link, data } => {
                let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(text, "received {} {hex}", link.index())
            }
            other => panic!("{other:?} was recorded"),
        }
        .unwrap();
    }
    text
}

fn read(text: &str) -> Vec<Input<hub::Command>> {
    let mut links = BTreeMap::new();
    let lines = text.lines().map(|line| {
        let [what, index, rest] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let index: u32 = index.parse().unwrap();
        if what == "accepted" {
            links.insert(index, LinkId::accepted(index, rest.parse().unwrap()));
        }
        let link = links[&index];
        match what {
            "accepted" => Input::Accepted { link, peer: Peer::unknown(Transport::Tcp) },
            "written" => Input::Written { link, bytes: rest.parse().unwrap() },
            _ => {
                let digits = (0..rest.len()).step_by(2).map(|at| u8::from_str_radix(&rest[at..at + 2], 16).unwrap());
                Input::Received { link, data: digits.collect::<Vec<_>>().into() }
            }
        }
    });
    lines.collect()
}

/// Everything that this process does where it is the one with the hub. It ends when nobody wants it any more.
fn be_the_hub() {
    let mut stdin = BufReader::new(std::io::stdin());
    let mut file = String::new();
    stdin.read_line(&mut file).unwrap();
    let hub = support::fed(read(&fs::read_to_string(file.trim()).unwrap()));
    let load = hub.load();
    println!("\n{FED}: {} clients, {} channels", load.clients, load.channels);
    stdin.read_line(&mut file).unwrap();
    drop(hub);
}

/// The process with the hub, which was fed all this.
struct HubProcess {
    child: Child,
    /// What it says, to which nobody listens any more.
    _said: ChildStdout,
}

impl HubProcess {
    fn fed(inputs: &[Input<hub::Command>], file: &str) -> Self {
        fs::write(file, written(inputs)).unwrap();
        let mut hub = Command::new(std::env::current_exe().unwrap());
        hub.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).env(IS_HUB, "1");
        let mut child = hub.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{file}").unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.by_ref().lines().map(Result::unwrap);
        let said = lines.find(|line| line.starts_with(FED)).expect("it dies before it was fed");
        assert_eq!(said, format!("{FED}: 3 clients, 1 channels"));
        fs::remove_file(file).unwrap();
        Self { child, _said: stdout.into_inner() }
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

const NAME: &str = "s27_v18_d3_in_the_memory_of_a_hub_that_was_fed_lies_no_password_and_no_key_that_signs";

#[test]
fn s27_v18_d3_in_the_memory_of_a_hub_that_was_fed_lies_no_password_and_no_key_that_signs() {
    if std::env::var_os(IS_HUB).is_some() {
        return be_the_hub();
    }
    let passwords = [password(), password()];
    let [old, new] = passwords.map(Secret::key);
    let file = std::env::temp_dir().join(format!("commipc-fed-{}", std::process::id()));
    let hub = HubProcess::fed(&recorded([&old, &new]), file.to_str().unwrap());
    let memory = Memory::of(hub.child.id());

    // The search finds what is there, or it would prove nothing: a name, and the key that checks joins.
    assert!(memory.holds(CHANNEL.as_bytes()));
    for (((password, secret), salt), epoch) in passwords.iter().zip([&old, &new]).zip(&SALTS).zip(1..) {
        let (master, _) = Hkdf::<Sha256>::extract(Some(salt), password);
        let keys = MemberKeys::of(&master, CHANNEL, salt, epoch);
        let mut client_key = [0; 32];
        Hkdf::<Sha256>::from_prk(&keys.join).unwrap().expand(b"client key", &mut client_key).unwrap();
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        let told = support::master(secret, ChannelSalt { kdf: Kdf::Key, salt: *salt, iterations: 0 });
        let verifier = told.keys(&name(CHANNEL), salt, epoch).join().verifier();
        assert_eq!(*verifier.stored_key(), stored, "they are those of members");
        assert!(memory.holds(&stored) || epoch == 1, "it checks joins under the password of now");
        for (what, secret) in [
            ("password", *password),
            ("master", master.into()),
            ("key of all keys", keys.all),
            ("key of joins", keys.join),
            ("end-to-end key", keys.end_to_end),
        ] {
            // Half of it is enough.
            let holds = memory.holds(&secret[..16]) || memory.holds(&secret[16..]);
            assert!(!holds, "the hub holds the {what} of epoch {epoch}");
        }
    }
}
