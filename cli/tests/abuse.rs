//! A hub under connections that mean no good: it stays small, honest clients get in, and all others are shown out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]
#![expect(clippy::print_stdout, reason = "what was measured, for those who ask for it")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
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
const SLACK: Duration = Duration::from_secs(1);
/// Between one honest client's leaving and the next one's coming.
const BETWEEN: Duration = Duration::from_millis(5);
/// Open files that a system may allow a hub that asks for no more.
const FEW_FILES: u32 = 1_024;

/// What a member that is stopped may cost others: their time with it, over their time without. It is about one where nothing
/// else runs; the rest is for a busy machine.
const FACTOR: u32 = 3;
/// What a hub keeps for a member that does not read: the default limit of an outbox.
const OUTBOX: u64 = 8 << 20;
/// What a busy machine costs at most, far less than the time for which a hub tries to write to who does not read.
const NOISE: Duration = Duration::from_secs(2);

/// What the connections say, in turn. None of it can become a handshake.
const SAID: [&[u8]; 6] = [
    b"",
    b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    // A frame of 200 bytes that stops in the middle.
    b"CIPC\r\n\x1a\x01\0\0\0\xc8\x01\xaa\0\x81\x01\x01\x81\x02",
    &HALF,
    // One that claims 4 GiB.
    b"CIPC\r\n\x1a\x01\xff\xff\xff\xff\x01",
    // A frame that belongs to a conversation which has not begun.
    b"CIPC\r\n\x1a\x01\0\0\0\x02\x06\xa0",
];

/// 900 bytes of a frame as long as a stranger's may be: more than an honest client says before it is let in.
const HALF: [u8; 912] = {
    let mut said = [0xaa; 912];
    let head = *b"CIPC\r\n\x1a\x01\0\0\x04\0";
    let mut at = 0;
    while at < head.len() {
        said[at] = head[at];
        at += 1;
    }
    said
};

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
fn intrude<S: Stream>(connect: impl Fn() -> std::io::Result<S>, said: &[u8]) -> S {
    let mut stream = connect().unwrap();
    stream.set_nonblocking().unwrap();
    let _ = stream.write_all(said);
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

/// What a hub's memory is, or was at its peak, in bytes.
fn memory(hub: &Process, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.child.id())).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Lets an honest client in and out, and tells how long it took to get in.
async fn honest(url: &str, key: &str) -> Duration {
    let started = Instant::now();
    let client = commipc_tokio::client(url).secret_file(key).connect().await.unwrap();
    let took = started.elapsed();
    client.close().await;
    took
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Lets honest clients in and out, one after the other, until it is over; counts them, and tells how long each took.
fn honest_throughout(url: &str, key: &str, over: &AtomicBool, count: &AtomicUsize) -> Vec<Duration> {
    let mut took = Vec::new();
    block_on(async {
        while !over.load(Ordering::Relaxed) {
            took.push(honest(url, key).await);
            count.store(took.len(), Ordering::Relaxed);
            tokio::time::sleep(BETWEEN).await;
        }
    });
    took
}

/// The whole assault, in waves; `said` is what the connections say, in turn.
fn assault<S: Stream>(hub: &Process, [url, key]: [&str; 2], said: &[&[u8]], connect: impl Fn() -> std::io::Result<S>) {
    // One at a time: what is promised holds for a hub that has a processor.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    allow_files();
    // What a first client makes the hub allocate for good is no growth.
    block_on(honest(url, key));
    let before = memory(hub, "VmRSS");
    let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (gone, took) = thread::scope(|scope| {
        let honest = scope.spawn(|| honest_throughout(url, key, &over, &count));
        let end = AtTheEnd(&over);
        let mut strangers = Vec::new();
        for _ in 0..WAVES {
            strangers.extend((0..WAVE).map(|number| intrude(&connect, said[number % said.len()])));
            // One more may have been let in already; the next one has come after this wave.
            let next = count.load(Ordering::Relaxed) + 2;
            while count.load(Ordering::Relaxed) < next && !honest.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let gone = outlast(strangers);
        drop(end);
        (gone, honest.join().unwrap())
    });
    let (slowest, grown) = (took.iter().max().unwrap(), memory(hub, "VmHWM").saturating_sub(before));
    println!(
        "{url}: grew by {} KiB, slowest of {} honest clients {slowest:?}, last stranger gone after {gone:?}",
        grown >> 10,
        took.len()
    );
    assert!(took.len() > 100, "only {} honest clients were let in", took.len());
    assert!(*slowest < SOON, "an honest client took {slowest:?}");
    assert!(grown < GROWTH, "the hub grew by {grown} bytes");
}

/// Tells that it is over, also where an assertion fails.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until the hub has shown out all of them; tells how long that took.
fn outlast(mut strangers: Vec<impl Stream>) -> Duration {
    let last = Instant::now();
    while !strangers.is_empty() {
        strangers.retain_mut(|stranger| !is_over(stranger));
        assert!(last.elapsed() < STAY + SLACK, "{} of {} are still there", strangers.len(), WAVES * WAVE);
        thread::sleep(Duration::from_millis(20));
    }
    last.elapsed()
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
    assault(&hub, [&scene.url(), &key], &SAID, || UnixStream::connect(&path));
}

#[test]
fn v23_a_hub_with_few_files_lets_honest_clients_in_beside_ten_thousand_silent_strangers() {
    let scene = Scene::new();
    let key = scene.file("hub.key", &format!("key:{}\n", "5a".repeat(32)));
    let path: PathBuf = scene.path("hub.sock");
    for files in [FEW_FILES, FEW_FILES / 10] {
        let mut hub = scene.start_with_files(files, &["hub", "--secret-file", &key]);
        assert!(hub.line().starts_with("listening on "));
        assault(&hub, [&scene.url(), &key], &[b""], || UnixStream::connect(&path));
    }
}

#[test]
fn v21_v22_v23_ten_thousand_strangers_of_one_address_leave_no_trace() {
    let scene = Scene::new();
    let key = scene.file("hub.key", &format!("key:{}\n", "5a".repeat(32)));
    let mut hub = scene.start(&["hub", "--secret-file", &key, "--listen", "tcp://127.0.0.1:0"]);
    let line = hub.line();
    let url = line.strip_prefix("listening on ").unwrap();
    let address: SocketAddr = url.strip_prefix("tcp://").unwrap().parse().unwrap();
    assault(&hub, [url, &key], &SAID, || TcpStream::connect(address));
}

/// Broadcasts twice what an outbox holds, every message acknowledged, to a listener that gets all of it; tells how long all
/// of it took, and the slowest message.
async fn broadcast_much(
    channel: &commipc_tokio::Channel,
    listener: &mut commipc_tokio::Listener<String>,
    size: usize,
) -> (Duration, Duration) {
    let text = "x".repeat(size);
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    for number in 0..2 * OUTBOX / size as u64 {
        let said = Instant::now();
        channel.broadcast("news", &text).await.unwrap();
        let message = listener.next().await.unwrap();
        assert_eq!((message.len(), message.missed()), (size, 0), "message {number}");
        slowest = slowest.max(said.elapsed());
    }
    (started.elapsed(), slowest)
}

#[test]
fn v25_a_member_that_is_stopped_costs_its_outbox_and_others_go_on() {
    [500, 8 << 10, 33_000].into_iter().for_each(beside_a_stopped_member);
}

/// Messages of a size alone, and beside a member that was stopped.
fn beside_a_stopped_member(size: usize) {
    let scene = Scene::new();
    let hub = scene.hub();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let speaker = runtime.block_on(commipc_tokio::client(&scene.url()).connect()).unwrap();
    let channel = runtime.block_on(async { speaker.open("math").await }).unwrap();
    let hearer = runtime.block_on(commipc_tokio::client(&scene.url()).connect()).unwrap();
    let heard = runtime.block_on(async { hearer.open("math").await }).unwrap();
    let mut listener = runtime.block_on(heard.listen::<String>("news").into_future()).unwrap();
    // What the hub allocates once for all is no growth.
    runtime.block_on(broadcast_much(&channel, &mut listener, size));
    let alone = runtime.block_on(broadcast_much(&channel, &mut listener, size));
    let before = memory(&hub, "VmRSS");
    let stopped = scene.listener(&["math", "news"]);
    stopped.signal(Signal::STOP);
    let beside = runtime.block_on(broadcast_much(&channel, &mut listener, size));
    let most = memory(&hub, "VmHWM").saturating_sub(before);
    let members = runtime.block_on(speaker.members("math")).unwrap();
    assert_eq!(members.len(), 2, "who left that much unread is no member any more");
    stopped.signal(Signal::CONT);
    let done = stopped.end();
    assert_eq!(done.code, Some(7), "{}", done.stderr);
    assert!(done.stderr.contains("keeping up"), "{}", done.stderr);
    println!(
        "{size} B, 16 MiB alone: {alone:?}, beside a stopped member: {beside:?}; the hub grew by {} KiB",
        most >> 10
    );
    assert!((OUTBOX / 2..OUTBOX + OUTBOX / 4).contains(&most), "{size} B: the hub grew by {most} bytes");
    assert!(beside.0 < FACTOR * alone.0 + NOISE, "{size} B: {beside:?} instead of {alone:?}");
    assert!(beside.1 < NOISE, "{size} B: one of them took {:?}", beside.1);
}
