//! Runtimes side by side: in one process, and as processes with a bad network between them.
//!
//! ```text
//!   hub on one ◄──── proxy: cuts, stalls, splits ────► provider on the next, consumer on the one after
//! ```

use std::fs;
use std::future::IntoFuture as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commipc_runtime::memory::memory_pair;
use commipc_runtime::{Away, CallError, Connection, ConnectionState, Fault, Reconnect, Request, Secret};

use crate::scene::{ASYNC_STD, Adapter, BLOCKING, KEY, SMOL, Scene, TOKIO, Transport, make, run};

const ADAPTERS: [(&str, Adapter); 4] =
    [("tokio", TOKIO), ("smol", SMOL), ("async-std", ASYNC_STD), ("blocking", BLOCKING)];

/// And a fourth, which is none.
#[test]
fn three_runtimes_one_process() {
    run(TOKIO, Transport::Unix, |scene| async move {
        for (hub, adapter) in ADAPTERS {
            everybody_calls_everybody(&scene.on(adapter), hub).await;
        }
    });
}

/// A hub on this scene's adapter serves clients on all of them.
async fn everybody_calls_everybody(scene: &Scene, name: &str) {
    let hub = scene.bare_hub().listen(&scene.url(name)).await.unwrap();
    let mut clients = Vec::new();
    let mut provided = Vec::new();
    for (id, adapter) in ADAPTERS {
        let client = scene.on(adapter).client(&hub, id).await.unwrap();
        let channel = client.open("all").await.unwrap();
        let greet = async |own: &'static str, to: Request<String>| Ok::<_, Fault>(format!("{own} greets {}", *to));
        provided.push(channel.provide_with(id, id, greet).await.unwrap());
        let items = |limit: Request<u32>| smol::stream::iter((0..*limit).map(Ok::<_, Fault>));
        provided.push(channel.provide_stream(&format!("{id}-items"), items).await.unwrap());
        clients.push((id, client, channel));
    }
    for (own, _, channel) in &clients {
        let mut heard = channel.listen::<String>("news").await.unwrap();
        for (other, _, others) in &clients {
            let greeting: String = channel.call(*other, own).await.unwrap();
            assert_eq!(greeting, format!("{other} greets {own}"));
            let mut items = channel.stream::<u32>(&format!("{other}-items"), &3).await.unwrap();
            for expected in 0..3 {
                assert_eq!(items.try_next().await.unwrap(), Some(expected));
            }
            assert_eq!(items.try_next().await.unwrap(), None);
            // Whoever says something does not hear it.
            if other != own {
                others.broadcast("news", other).await.unwrap();
                assert_eq!(*heard.next().await.unwrap(), **other);
            }
        }
    }
    hub.shutdown().await;
    for (_, client, _) in clients {
        client.closed().await;
    }
}

crate::scene::over_all! {
    s71_a_client_comes_back_after_its_hub_is_killed,
}

#[test]
fn a_child_provides_over_its_standard_input_and_output() {
    for (name, adapter) in ADAPTERS {
        run(adapter, Transport::Tcp, |scene| calls_a_child(scene, name));
    }
}

async fn calls_a_child(scene: Scene, name: &str) {
    let hub = scene.bare_hub().listen_nowhere().secret(Secret::key(KEY)).await.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_puppet"));
    command.args([name, "child", "tcp://nowhere:1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (reads, writes) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    hub.attach(Connection::over_halves(smol::Unblock::new(reads), smol::Unblock::new(writes)));
    let (ours, theirs) = memory_pair();
    hub.attach(theirs);
    let client = scene.bare_client("tcp://nowhere:1").secret(Secret::key(KEY)).over(ours).await.unwrap();
    let math = client.open("math").await.unwrap();
    let started = Instant::now();
    let doubled = loop {
        match math.call::<u64>("double", &21).await {
            Ok(doubled) => break doubled,
            Err(error) => assert!(error.code().0 == 300 && started.elapsed() < Duration::from_secs(60), "{error}"),
        }
        smol::Timer::after(Duration::from_millis(5)).await;
    };
    assert_eq!((doubled, hub.load().clients), (42, 2));
    child.kill().unwrap();
    child.wait().unwrap();
    while hub.load().clients > 1 {
        assert!(started.elapsed() < Duration::from_secs(90), "{:?}", hub.load());
        smol::Timer::after(Duration::from_millis(5)).await;
    }
    assert_eq!(math.call::<u64>("double", &21).await.unwrap_err().code().0, 300, "nobody provides it");
}

/// `kill -9`: nothing is said, nothing is stored, and the next hub knows nobody.
async fn s71_a_client_comes_back_after_its_hub_is_killed(scene: Scene) {
    let (mut hub, url) = Puppet::start("smol", "hub", &scene.url("killed"), None);
    let mut soon = Reconnect::default();
    (soon.first, soon.longest) = (Duration::from_millis(20), Duration::from_millis(100));
    let client = |id: &str| scene.bare_client(&url).id(id).secret(Secret::key(KEY)).reconnect(soon);
    let (provider, consumer) = (client("provider").await.unwrap(), client("consumer").await.unwrap());
    let (provided, math) = (provider.open("math").await.unwrap(), consumer.open("math").await.unwrap());
    let _double = provided.provide("double", async |r: Request<u32>| Ok::<_, Fault>(2 * *r)).await.unwrap();
    let wait = async |r: Request<u64>| {
        r.sleep(Duration::from_secs(*r)).await;
        Ok::<_, Fault>(())
    };
    let _wait = provided.provide("wait", wait).await.unwrap();
    let mut news = math.listen::<u32>("news").await.unwrap();
    for round in 1..=2 {
        let mut both = [provider.states(), consumer.states()];
        for states in &mut both {
            assert_eq!(states.next().await, Some(ConnectionState::Ready));
        }
        let mut lost = [math.call::<()>("wait", &60).into_future()];
        make(&mut lost).await;
        // Answered, so that the call before it is with the provider.
        assert_eq!(math.call::<u32>("double", &round).await.unwrap(), 2 * round);
        drop(hub);
        let [lost] = lost;
        let error = lost.await.unwrap_err();
        assert!(matches!(error, CallError::Failed { maybe_executed: true, .. }), "{error:?}");
        hub = Puppet::start("smol", "hub", &url, None).0;
        for states in &mut both {
            while states.next().await != Some(ConnectionState::Ready) {}
        }
        assert_eq!(math.call::<u32>("double", &round).while_away(Away::Wait).await.unwrap(), 2 * round);
        provided.broadcast("news", &round).while_away(Away::Wait).await.unwrap();
        assert_eq!(*news.next().await.unwrap(), round);
    }
}

macro_rules! bad_networks {
    ($($name:ident: $hub:literal, $provider:literal, $consumer:literal;)+) => {
        $(
            #[test]
            fn $name() {
                every_call_ends_once_over_a_bad_network($hub, $provider, $consumer);
            }
        )+
    };
}

bad_networks! {
    every_call_ends_once_over_a_bad_network_to_tokio: "tokio", "smol", "async-std";
    every_call_ends_once_over_a_bad_network_to_smol: "smol", "async-std", "blocking";
    every_call_ends_once_over_a_bad_network_to_async_std: "async-std", "blocking", "tokio";
    every_call_ends_once_over_a_bad_network_to_threads: "blocking", "tokio", "smol";
}

/// Rounds, each of twenty calls and a stream: `COMMIPC_ROUNDS`, or few.
fn rounds() -> u64 {
    std::env::var("COMMIPC_ROUNDS").map_or(20, |rounds| rounds.parse().expect("COMMIPC_ROUNDS is a number"))
}

/// What each of the processes may have grown by, in KiB: what it has kept of its buffers, and of the allocator's.
const GROWTH: u64 = 16 << 10;

#[expect(clippy::print_stdout, reason = "long runs tell how they went")]
fn every_call_ends_once_over_a_bad_network(hub: &str, provider: &str, consumer: &str) {
    let names = [hub, provider, consumer];
    let (mut hub, url) = Puppet::start(hub, "hub", "tcp://127.0.0.1:0", None);
    let proxy = Proxy::start(&url);
    let (mut provider, _) = Puppet::start(provider, "provider", &proxy.url, None);
    let (mut consumer, _) = Puppet::start(consumer, "consumer", &proxy.url, Some(rounds()));
    let before = [&hub, &provider, &consumer].map(Puppet::holdings);
    proxy.bad.store(true, Ordering::SeqCst);
    let told = consumer.line();
    proxy.bad.store(false, Ordering::SeqCst);

    let numbers: Vec<u64> = told.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [answered, failed, wrong] = numbers[..] else { panic!("the consumer says '{told}'") };
    let seen = proxy.seen();
    println!("hub {}, provider {}, consumer {}: {told}; cuts, stalls, splits {seen:?}", names[0], names[1], names[2]);
    assert_eq!(answered + failed, rounds() * 21, "every call and every stream has ended, once: {told}; {seen:?}");
    assert_eq!(wrong, 0, "nothing was done twice or answered wrongly: {told}; {seen:?}");
    // There is about one cut a round, on either side of the hub, and it ends all that is asked at the time: between a half
    // and three quarters are answered. When hardly anything is, connections do not come back.
    assert!(answered >= rounds() * 21 / 4, "many are answered: {told}; {seen:?}");
    assert!(seen.iter().all(|count| *count > 0), "it cut, stalled and split: {seen:?}");

    let started = Instant::now();
    for (puppet, before) in [&mut hub, &mut provider, &mut consumer].into_iter().zip(before) {
        loop {
            let after = puppet.holdings();
            let leaked = after.sockets > before.sockets || after.kilobytes > before.kilobytes + GROWTH;
            if !leaked {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{before:?} became {after:?}; {told}; {seen:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A process, which ends with this one.
struct Puppet(Child, BufReader<ChildStdout>);

/// What a process holds.
#[derive(Debug)]
struct Holdings {
    sockets: usize,
    kilobytes: u64,
}

impl Puppet {
    /// Starts it; gives what it says when it is ready.
    fn start(adapter: &str, role: &str, url: &str, rounds: Option<u64>) -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_puppet"));
        command.args([adapter, role, url]).args(rounds.map(|rounds| rounds.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        let mut puppet = Self(child, told);
        let line = puppet.line();
        (puppet, line)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the process has ended");
        line.trim_end().to_owned()
    }

    fn holdings(&self) -> Holdings {
        let process = format!("/proc/{}", self.0.id());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let lead =
            |file: std::io::Result<fs::DirEntry>| Some(fs::read_link(file.ok()?.path()).ok()?.display().to_string());
        let files = fs::read_dir(format!("{process}/fd")).unwrap().filter_map(lead);
        Holdings { sockets: files.filter(|file| file.starts_with("socket:")).count(), kilobytes }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Passes bytes on; once it is bad, only as it pleases.
struct Proxy {
    url: String,
    bad: Arc<AtomicBool>,
    seen: Arc<[AtomicUsize; 3]>,
}

/// One connection's way in one direction.
struct Way {
    from: TcpStream,
    to: TcpStream,
    bad: Arc<AtomicBool>,
    /// Cuts, stalls, splits.
    seen: Arc<[AtomicUsize; 3]>,
    random: u64,
}

impl Proxy {
    fn start(hub: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let (bad, seen) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicUsize::new(0) }; 3]));
        let proxy = Self { url, bad: Arc::clone(&bad), seen: Arc::clone(&seen) };
        let hub = hub.strip_prefix("tcp://").unwrap().to_owned();
        thread::spawn(move || {
            let mut random = 0x9E37_79B9_7F4A_7C15_u64;
            for client in listener.incoming() {
                let (client, Ok(served)) = (client.unwrap(), TcpStream::connect(&hub)) else { return };
                for (from, to) in [(&client, &served), (&served, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    to.set_nodelay(true).unwrap();
                    random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                    let way = Way { from, to, bad: Arc::clone(&bad), seen: Arc::clone(&seen), random };
                    thread::spawn(move || way.go());
                }
            }
        });
        proxy
    }

    /// How often it cut, stalled and split.
    fn seen(&self) -> [usize; 3] {
        [0, 1, 2].map(|what| self.seen[what].load(Ordering::SeqCst))
    }
}

impl Way {
    fn go(mut self) {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = self.from.read(&mut buffer) {
            if !self.pass(&buffer[..count]) {
                break;
            }
        }
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    /// Whether the connection stands.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let mut piece = bytes.len();
            if self.bad.load(Ordering::SeqCst) {
                if self.happens(0, 60) {
                    return false;
                }
                if self.happens(1, 10) {
                    thread::sleep(Duration::from_millis(self.below(60)));
                }
                if bytes.len() > 1 && self.happens(2, 2) {
                    piece = 1 + usize::try_from(self.below(bytes.len() as u64 - 1)).unwrap();
                }
            }
            if self.to.write_all(&bytes[..piece]).is_err() {
                return false;
            }
            bytes = &bytes[piece..];
        }
        true
    }

    fn happens(&mut self, what: usize, once_in: u64) -> bool {
        let happens = self.below(once_in) == 0;
        if happens {
            self.seen[what].fetch_add(1, Ordering::SeqCst);
        }
        happens
    }

    /// A number below this one, always the same for the same connection and direction.
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.random >> 33) % end
    }
}
