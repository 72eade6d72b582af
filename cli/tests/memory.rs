//! What a hub's process holds of a channel's password, after members have proved it and talked: nothing. And nothing of the
//! passwords it was given at its start, of which it keeps what checks them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

#[path = "../../tests/shared/memory.rs"]
mod memory;
mod support;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use hkdf::Hkdf;
use memory::{MemberKeys, Memory};
use sha2::{Digest as _, Sha256};
use support::Scene;

/// Nothing else in the world is likely to hold these.
const PASSWORD: &str = "plover-xyzzy-1f0c6e53-plugh-97b2d4";
const CHANNEL: &str = "cellar-6d1be0aa-control";

/// The ways in which a secret may lie around: as it is, in hex of either case, in base64 at any of three offsets. Half of it
/// is enough, and of what was freed the front may be gone.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    [&secret[..16], &secret[secret.len() - 16..]].into_iter().flat_map(forms_of).collect()
}

fn forms_of(half: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = half.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![("raw", half.to_vec()), ("hex", hex.to_uppercase().into_bytes()), ("hex", hex.into_bytes())];
    for skip in 0..3 {
        forms.push(("base64", base64(&half[skip..skip + 12])));
    }
    forms
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, place: u32| DIGITS[(group >> (18 - 6 * place) & 63) as usize];
    bytes
        .chunks_exact(3)
        .flat_map(|three| {
            let group = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            [0, 1, 2, 3].map(|place| digit(group, place))
        })
        .collect()
}

/// What the hub has stored of the channel: salt, rounds, and the key that checks joins.
fn stored(state: &Path) -> ([u8; 16], u32, [u8; 32]) {
    let file = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.to_string_lossy().contains("channel-")).unwrap();
    let bytes = fs::read(file).unwrap();
    // Entry 5, an array of six: kdf 1, a salt of 16 bytes, rounds of 4, and the stored key of 32.
    let at = bytes.windows(4).position(|window| window == [0x05, 0x86, 0x01, 0x50]).unwrap() + 4;
    let salt = bytes[at..at + 16].try_into().unwrap();
    assert_eq!((bytes[at + 16], &bytes[at + 21..at + 23]), (0x1a, &[0x58, 0x20][..]));
    let rounds = u32::from_be_bytes(bytes[at + 17..at + 21].try_into().unwrap());
    (salt, rounds, bytes[at + 23..at + 55].try_into().unwrap())
}

#[test]
fn s27_v18_d3_the_memory_of_a_hub_holds_no_password_and_no_key_that_signs() {
    let scene = Scene::new();
    let state = scene.path("state");
    let mut hub = scene.start(&["hub", "--state-dir", &state.display().to_string()]);
    hub.line();
    let file = scene.file("password", PASSWORD);
    let wrong = scene.file("wrong", "another one altogether");
    let mut owner = scene.start(&["protect", CHANNEL, "--password-file", &file]);
    assert_eq!(owner.line(), format!("protecting {CHANNEL}"));
    let mut provider = scene.start(&["provide", CHANNEL, "open", "--echo", "--password-file", &file]);
    assert_eq!(provider.line(), format!("providing {CHANNEL}/open"));
    scene
        .run(&["call", CHANNEL, "open", "\"spoken in the cellar\"", "--password-file", &file])
        .printed("\"spoken in the cellar\"");
    assert_eq!(scene.run(&["call", CHANNEL, "open", "1", "--password-file", &wrong]).code, Some(6));

    let (salt, rounds, stored_key) = stored(&state);
    let mut master = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(PASSWORD.as_bytes(), &salt, rounds, &mut master);
    let keys = MemberKeys::of(&master, CHANNEL, &salt, 1);

    let made = key_in(&fs::read_to_string(scene.path("hub.sock.key")).unwrap());
    let memory = Memory::of(hub.child.id());
    // The search finds what is there, or it would prove nothing: a name, and the key that checks joins.
    assert!(memory.holds(CHANNEL.as_bytes()));
    assert!(forms(&stored_key).iter().any(|(form, bytes)| *form == "raw" && memory.holds(bytes)));
    for (name, secret) in [
        ("password", PASSWORD.as_bytes()),
        ("master", &master),
        ("key of all keys", &keys.all),
        ("key of joins", &keys.join),
        ("end-to-end key", &keys.end_to_end),
        ("key of its socket, which it made itself", &made),
    ] {
        for (form, bytes) in forms(secret) {
            assert!(!memory.holds(&bytes), "the hub holds the {name}, {form}");
        }
    }
    // The same search in a process that does know them.
    let knowing = Memory::of(owner.child.id());
    for (name, key) in [("owner's key", &keys.end_to_end), ("key of the socket", &made)] {
        assert!(forms(key).iter().any(|(_, bytes)| knowing.holds(bytes)), "the {name}");
    }
}

/// The salt of a credential's secret: made of the key that stands, behind its length, in what a hub stores of itself.
fn salt(state: &Path, credential: &[u8]) -> [u8; 16] {
    let bytes = fs::read(state.join("hub")).unwrap();
    let at = bytes.windows(2).position(|window| window == [0x58, 0x20]).unwrap() + 2;
    let length = u32::try_from(credential.len()).unwrap().to_be_bytes();
    // To extract is an HMAC.
    let (mac, _) = extract(&bytes[at..at + 32], &[&b"fake\0"[..], &length, credential].concat());
    mac[..16].try_into().unwrap()
}

#[test]
fn v18_v35_the_memory_of_a_hub_holds_no_password_that_it_was_given_at_its_start() {
    const SECRET: &str = "rutabaga-4a7c1f-quernstone-90be52-e81d";
    const SYSTEM: &str = "pomfret-c3d9a0-whiffletree-17f468-b2c5";
    let scene = Scene::new();
    let state = scene.path("state");
    let (secret, system) = (scene.file("secret", SECRET), scene.file("system", SYSTEM));
    let given = ["--secret-file", &secret, "--system-password-file", &system];
    let mut hub = scene.start(&[&["hub", "--state-dir", &state.display().to_string()][..], &given].concat());
    hub.line();
    let watches = ["listen", "__comm_ipc_system", "--secret-file", &secret, "--password-file", &system];
    let mut monitor = scene.start(&watches);
    assert!(monitor.line_beside().contains("listening"));
    let mut provider = scene.start(&["provide", "math", "echo", "--echo", "--secret-file", &secret]);
    assert_eq!(provider.line(), "providing math/echo");
    scene.run(&["call", "math", "echo", "1", "--secret-file", &secret]).printed("1");
    let wrong = scene.file("wrong", "another one altogether");
    assert_eq!(scene.run(&["call", "math", "echo", "1", "--secret-file", &wrong]).code, Some(6));

    let derived = |password: &str, credential: &[u8]| {
        let mut derived = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt(&state, credential), 600_000, &mut derived);
        derived
    };
    let (salted, master) = (derived(SECRET, b"default"), derived(SYSTEM, b"\0system"));
    let (login, keys) = extract(b"commipc/1 conn", &salted);
    let stored_key: [u8; 32] = Sha256::digest(expand(&keys, b"client key")).into();

    let memory = Memory::of(hub.child.id());
    // What checks a login is there, and found.
    assert!(memory.holds(&stored_key), "what clients are checked with is not as it is taken for");
    let (channel, _) = extract(b"commipc/1 channel", &master);
    for (name, secret) in [
        ("secret", SECRET.as_bytes()),
        ("secret, derived", &salted),
        ("key of all keys of a login", &login),
        ("system password", SYSTEM.as_bytes()),
        ("system password, derived", &master),
        ("key of all keys of the system channels", &channel),
    ] {
        for (form, bytes) in forms(secret) {
            assert!(!memory.holds(&bytes), "the hub holds the {name}, {form}");
        }
    }
    // The same search in processes that do know them.
    for (knowing, secret) in [(&provider, SECRET), (&monitor, SECRET)] {
        let memory = Memory::of(knowing.child.id());
        assert!(forms(secret.as_bytes()).iter().any(|(_, bytes)| memory.holds(bytes)), "{secret}");
    }
}

/// A key that stands in no program, as it is and as a hub is given it.
fn key() -> ([u8; 32], String) {
    let mut key = [0; 32];
    File::open("/dev/urandom").unwrap().read_exact(&mut key).unwrap();
    (key, key.iter().fold("key:".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

/// The same from its text.
fn key_in(text: &str) -> [u8; 32] {
    let digits = text.trim_end().strip_prefix("key:").unwrap();
    std::array::from_fn(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
}

fn extract(salt: &[u8], input: &[u8]) -> ([u8; 32], Hkdf<Sha256>) {
    let (extracted, keys) = Hkdf::<Sha256>::extract(Some(salt), input);
    (extracted.into(), keys)
}

fn expand(keys: &Hkdf<Sha256>, label: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    keys.expand(label, &mut key).unwrap();
    key
}

fn lacks(memory: &Memory, what: &str, secret: &[u8]) {
    for (form, bytes) in forms(secret) {
        assert!(!memory.holds(&bytes), "the hub holds {what}, {form}");
    }
}

/// And what proves the hub.
fn keeps_what_checks_a_login_alone(memory: &Memory, name: &str, salt: &[u8; 16], key: &[u8; 32]) {
    let (salted, _) = extract(salt, key);
    let (login, keys) = extract(b"commipc/1 conn", &salted);
    let (client, server) = (expand(&keys, b"client key"), expand(&keys, b"server key"));
    let checks: [u8; 32] = Sha256::digest(client).into();
    assert!(memory.holds(&checks) && memory.holds(&server), "{name} is not kept as it is taken for");
    lacks(memory, &format!("the key of {name}"), key);
    lacks(memory, &format!("the key of {name}, derived"), &salted);
    lacks(memory, &format!("the key of all keys of {name}"), &login);
    // Whoever logs in shows it to its own hub; no bridge has.
    if name == "bridge" {
        lacks(memory, "what a bridge would prove", &client);
    }
}

/// By a file, in a table and by a file that a table names.
#[test]
fn v18_v35_the_memory_of_a_hub_holds_no_key_that_it_was_given_at_its_start_and_what_checks_them() {
    let [shared, system, bridges, teller, monitor] = std::array::from_fn(|_| key());
    let scene = Scene::new();
    let state = scene.path("state");
    let [secret, watched, bridge, tellers, monitors] = [
        ("secret", &shared),
        ("system", &system),
        ("bridge", &bridges),
        ("teller.key", &teller),
        ("monitor.key", &monitor),
    ]
    .map(|(name, (_, text))| scene.file(name, &format!("{text}\n")));
    let entries = format!("teller {} ids=teller\nmonitor file:monitor.key ids=monitor can=observer\n", teller.1);
    let table = scene.file("table", &entries);
    let given = ["--secret-file", &secret, "--system-password-file", &watched, "--bridge-secret-file", &bridge];
    let dir = state.display().to_string();
    let stored = ["hub", "--credentials", &table, "--state-dir", &dir];
    let mut hub = scene.start(&[&stored[..], &given].concat());
    hub.line();
    let as_monitor = ["--secret-file", &monitors, "--credential", "monitor", "--id", "monitor"];
    let watches = ["listen", "__comm_ipc_system", "--password-file", &watched];
    let mut watcher = scene.start(&[&watches[..], &as_monitor].concat());
    assert!(watcher.line_beside().contains("listening"));
    let mut provider = scene.start(&["provide", "math", "echo", "--echo", "--secret-file", &secret]);
    assert_eq!(provider.line(), "providing math/echo");
    let as_teller = ["--secret-file", &tellers, "--credential", "teller", "--id", "teller"];
    scene.run(&[&["call", "math", "echo", "1"][..], &as_teller].concat()).printed("1");

    let memory = Memory::of(hub.child.id());
    for (name, (key, _)) in [("default", &shared), ("bridge", &bridges), ("teller", &teller), ("monitor", &monitor)] {
        keeps_what_checks_a_login_alone(&memory, name, &salt(&state, name.as_bytes()), key);
    }
    let salt = salt(&state, b"\0system");
    let (master, _) = extract(&salt, &system.0);
    let keys = MemberKeys::of(&master, "__comm_ipc_system", &salt, 1);
    let proves = expand(&Hkdf::from_prk(&keys.join).unwrap(), b"client key");
    assert!(memory.holds(&Sha256::digest(proves)), "what checks who joins the system channels");
    lacks(&memory, "the system password", &system.0);
    lacks(&memory, "the system password, derived", &master);
    lacks(&memory, "the key of all keys of the system channels", &keys.all);
    lacks(&memory, "the key of joins of the system channels", &keys.join);
    // The same search in processes that do know them.
    for (knowing, key) in [(&provider, &shared.0), (&watcher, &monitor.0)] {
        let memory = Memory::of(knowing.child.id());
        assert!(forms(key).iter().any(|(_, bytes)| memory.holds(bytes)));
    }
}

#[test]
fn the_search_finds_every_form() {
    let secret = b"0123456789abcdefghijklmnopqrstuv";
    let (raw, hex) = (&secret[..], b"30313233343536373839616263646566");
    for text in [raw, hex, b"MDEyMzQ1Njc4OWFiY2RlZg==", b"x-MTIzNDU2Nzg5YWJjZGVm", &secret[16..]] {
        let memory = Memory(vec![[b"before ", text, b" after"].concat()]);
        assert!(forms(secret).iter().any(|(_, bytes)| memory.holds(bytes)), "{}", String::from_utf8_lossy(text));
    }
    assert!(!Memory(vec![b"0123456789abcde".to_vec()]).holds(&forms(secret)[0].1));
}
