//! A hub under connections that mean no good: it stays small, honest clients get in, and all others are shown out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]
#![expect(clippy::print_stdout, reason = "what was measured, for those who ask for it")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Process, Scene};

/// Connections in one wave.
const WAVE: usize = 1_000;
const WAVES: usize = 10;
/// How much a hub may grow.
const GROWTH: u64 = 32 << 20;
/// How long an honest client may take to get in.
const SOON: Duration = Duration::from_secs(1);
/// How long a stranger may stay: the limit on handshakes.
const STAY: Duration = Duration::from_secs(5);
/// What a busy machine adds to that.
const SLACK: Duration = Duration::from_secs(2);

/// What the connections say, in turn. None of it can become a handshake.
const SAID: [&[u8]; 5] = [
    b"",
    b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    // A frame of 200 bytes that stops in the middle.
    b"CIPC\r\n\x1a\x01\0\0\0\xc8\x01\xaa\0\x81\x01\x01\x81\x02",
    // One that claims 4 GiB.
    b"CIPC\r\n\x1a\x01\xff\xff\xff\xff\x01",
    // A frame that belongs to a conversation which has not begun.
    b"CIPC\r\n\x1a\x01\0\0\0\x02\x06\xa0",
];

/// The frame AUTH_FAILED with `TooManyConnections`.
const AUTH_FAILED: [u8; 9] = [0, 0, 0, 5, 5, 0xa1, 0, 0x18, 105];

trait Stream: Read + Write {
    fn set_nonblocking(&self) -> std::io::Result<()>;
}

impl Stream for UnixStream {
    fn set_nonblocking(&self) -> std::io::Result<()> {
        Self::set_nonblocking(self, true)
    }
}

impl Stream for TcpStream {
    fn set_nonblocking(&self) -> std::io::Result<()> {
        Self::set_nonblocking(self, true)
    }
}

/// Connects and says something; the hub may have closed it before all is said.
fn intrude<S: Stream>(connect: impl Fn() -> std::io::Result<S>, number: usize) -> S {
    let mut stream = connect().unwrap();
    stream.set_nonblocking().unwrap();
    let _ = stream.write_all(SAID[number % SAID.len()]);
    stream
}

/// Whether the other side has ended a connection. It says no more to a stranger than that there is no room.
fn is_over(stream: &mut impl Stream) -> bool {
    let mut said = [0; 64];
    match stream.read(&mut said) {
        Ok(0) => true,
        Ok(bytes) => {
            assert_eq!(said[..bytes], AUTH_FAILED, "what a stranger is told");
            false
        }
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Resident memory, in bytes.
fn memory(hub: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.child.id())).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Lets an honest client in and out, and tells how long it took to get in.
fn honest(url: &str, key: &str) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let started = Instant::now();
        let client = commipc_tokio::client(url).secret_file(key).connect().await.unwrap();
        let took = started.elapsed();
        client.close().await;
        took
    })
}

/// The whole assault, in waves.
fn assault<S: Stream>(hub: &Process, url: &str, key: &str, connect: impl Fn() -> std::io::Result<S>) {
    allow_files();
    // What a first client makes the hub allocate for good is no growth.
    honest(url, key);
    let before = memory(hub);
    let (mut strangers, mut slowest, mut most) = (Vec::new(), Duration::ZERO, 0);
    for _ in 0..WAVES {
        strangers.extend((0..WAVE).map(|number| intrude(&connect, number)));
        slowest = slowest.max(honest(url, key));
        most = most.max(memory(hub).saturating_sub(before));
    }
    let last = Instant::now();
    while !strangers.is_empty() {
        strangers.retain_mut(|stranger| !is_over(stranger));
        assert!(last.elapsed() < STAY + SLACK, "{} of {} are still there", strangers.len(), WAVES * WAVE);
        thread::sleep(Duration::from_millis(20));
    }
    let gone = last.elapsed();
    slowest = slowest.max(honest(url, key));
    assert!(slowest < SOON, "an honest client took {slowest:?}");
    assert!(most < GROWTH, "the hub grew by {most} bytes");
    println!(
        "{}: grew by {} KiB, slowest honest client {slowest:?}, last stranger gone after {gone:?}",
        url,
        most >> 10
    );
}

/// This process holds all the other ends.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = (WAVES * WAVE) as u64 + 200;
    assert!(limit.maximum.is_none_or(|most| most >= wanted), "this test needs {wanted} open files: ulimit -Hn");
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).unwrap();
    }
}

#[test]
fn v21_v22_v23_ten_thousand_strangers_on_a_unix_socket_leave_no_trace() {
    let scene = Scene::new();
    let key = scene.file("hub.key", &format!("key:{}\n", "5a".repeat(32)));
    let path: PathBuf = scene.path("hub.sock");
    let mut hub = scene.start(&["hub", "--secret-file", &key]);
    assert!(hub.line().starts_with("listening on "));
    assault(&hub, &scene.url(), &key, || UnixStream::connect(&path));
}

#[test]
fn v21_v22_v23_ten_thousand_strangers_of_one_address_leave_no_trace() {
    let scene = Scene::new();
    let key = scene.file("hub.key", &format!("key:{}\n", "5a".repeat(32)));
    let mut hub = scene.start(&["hub", "--secret-file", &key, "--listen", "tcp://127.0.0.1:0"]);
    let line = hub.line();
    let url = line.strip_prefix("listening on ").unwrap();
    let address: SocketAddr = url.strip_prefix("tcp://").unwrap().parse().unwrap();
    assault(&hub, url, &key, || TcpStream::connect(address));
}
