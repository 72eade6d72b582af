//! Processes with a bad network between them: whatever happens there, each call ends once, and nothing is left of it.
//!
//! ```text
//!   hub on one ◄──── proxy: cuts, stalls, splits ────► provider on the next, consumer on the one after
//! ```

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::puppets::{Holdings, Puppet};

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

/// What the network does follows from this: `COMMIPC_NETWORK_SEED`, or the clock.
fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    std::env::var("COMMIPC_NETWORK_SEED").map_or_else(|_| now(), |seed| seed.parse().expect("a seed is a number"))
}

/// What each of the processes may have grown by, in KiB: what it has kept of its buffers, and of the allocator's.
const GROWTH: u64 = 4 << 10;
/// How long it may take until nothing is left of what happened. A runtime may keep a thread for ten seconds.
const CALM: Duration = Duration::from_secs(30);
/// Longer than the calls' deadline, which is two seconds.
const LONG: Duration = Duration::from_secs(3);
/// In so many rounds there is one that long.
const ROUNDS_A_LONG_STALL: u64 = 20;
/// Of so many pieces that are passed on, one may have it.
const PIECES_A_LONG_STALL: u64 = 100;

#[expect(clippy::print_stdout, reason = "long runs tell how they went, and those that fail their seed")]
fn every_call_ends_once_over_a_bad_network(hub: &str, provider: &str, consumer: &str) {
    let seed = seed();
    println!("hub {hub}, provider {provider}, consumer {consumer}; COMMIPC_NETWORK_SEED={seed}");
    let (mut hub, url) = Puppet::start(hub, "hub", "tcp://127.0.0.1:0", None);
    let proxy = Proxy::start(&url, seed);
    let (mut provider, _) = Puppet::start(provider, "provider", &proxy.url, None);
    let (mut consumer, _) = Puppet::start(consumer, "consumer", &proxy.url, Some(rounds()));
    let before = [&hub, &provider, &consumer].map(Puppet::holdings);
    proxy.network.bad.store(true, Ordering::SeqCst);
    for round in 0..rounds() {
        let is = format!("waits in round {round} for a call or a stream that does not end");
        assert_eq!(consumer.line(&is), format!("round {round} is over"));
    }
    let ends = Ends::parse(&consumer.line("counts"));
    proxy.network.bad.store(false, Ordering::SeqCst);

    let seen = proxy.network.seen();
    let Ends { answered, failed, wrong, unexecuted } = ends;
    println!(
        "answered {answered}, failed {failed} ({} calls without being carried out), wrong {wrong}; \
         cuts, stalls, splits, long stalls: {seen:?}",
        unexecuted.len()
    );
    assert_eq!(answered + failed, rounds() * 21, "every call and every stream has ended, once");
    assert_eq!(wrong, 0, "nothing was answered wrongly");
    // There is about one cut a round, on either side of the hub, and it ends all that is asked at the time: between a half
    // and three quarters are answered. When hardly anything is, connections do not come back.
    assert!(answered >= rounds() * 21 / 4, "many are answered");
    assert!(seen.iter().all(|count| *count > 0), "it cut, stalled, and split: {seen:?}");

    nothing_is_left([&hub, &provider, &consumer], before);
    settles("links 2 clients 2 calls 0 routes 0 streams 0 joins 0 buffered 0", || hub.ask());
    settles("", || consumer.ask());
    settles("streams 0", || provider.ask().split(", ").next().unwrap().to_owned());
    let done = provider.ask();
    let [_, repeated, done] = done.split(", ").collect::<Vec<_>>()[..] else { panic!("the provider says '{done}'") };
    assert_eq!(repeated, "repeated 0", "nothing was carried out twice");
    let done: BTreeSet<u64> = numbers(done).collect();
    let denied: Vec<_> = unexecuted.iter().filter(|number| done.contains(number)).collect();
    assert!(denied.is_empty(), "{denied:?} were carried out, though their errors say that they cannot have been");
}

/// Waits until each process holds no more than before.
#[expect(clippy::print_stdout, reason = "long runs tell how they went")]
fn nothing_is_left(puppets: [&Puppet; 3], before: [Holdings; 3]) {
    let started = Instant::now();
    for (puppet, before) in puppets.into_iter().zip(before) {
        while puppet.holdings().exceed(&before, GROWTH) {
            assert!(started.elapsed() < CALM, "{}: {before:?} became {:?}", puppet.name, puppet.holdings());
            thread::sleep(Duration::from_millis(50));
        }
        println!("{}: {before:?} became {:?}", puppet.name, puppet.holdings());
    }
}

fn settles(expected: &str, mut say: impl FnMut() -> String) {
    let started = Instant::now();
    loop {
        let said = say();
        if said == expected {
            return;
        }
        assert!(started.elapsed() < CALM, "it says '{said}', and should '{expected}'");
        thread::sleep(Duration::from_millis(50));
    }
}

fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split(' ').filter_map(|word| word.parse().ok())
}

/// What became of a consumer's calls and streams.
struct Ends {
    answered: u64,
    failed: u64,
    wrong: u64,
    /// The calls that failed with a word that they were not carried out.
    unexecuted: Vec<u64>,
}

impl Ends {
    fn parse(told: &str) -> Self {
        let all: Vec<_> = numbers(told).collect();
        let [answered, failed, wrong, ref unexecuted @ ..] = all[..] else { panic!("the consumer says '{told}'") };
        Self { answered, failed, wrong, unexecuted: unexecuted.to_vec() }
    }
}

/// Passes bytes on; once it is bad, only as it pleases.
struct Proxy {
    url: String,
    network: Arc<Network>,
}

#[derive(Default)]
struct Network {
    bad: AtomicBool,
    /// Cuts, stalls, splits, long stalls.
    seen: [AtomicUsize; 4],
    /// Pieces that were passed on.
    pieces: AtomicU64,
    /// Long stalls that may still come.
    long: AtomicU64,
}

const CUT: usize = 0;
const STALL: usize = 1;
const SPLIT: usize = 2;
const LONG_STALL: usize = 3;

/// One connection's way in one direction.
struct Way {
    from: TcpStream,
    to: TcpStream,
    network: Arc<Network>,
    random: u64,
}

impl Proxy {
    fn start(hub: &str, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let (long, pieces) = (rounds().div_ceil(ROUNDS_A_LONG_STALL), seed % PIECES_A_LONG_STALL);
        let network = Arc::new(Network { pieces: pieces.into(), long: long.into(), ..Network::default() });
        let proxy = Self { url, network: Arc::clone(&network) };
        let hub = hub.strip_prefix("tcp://").unwrap().to_owned();
        thread::spawn(move || {
            let mut random = seed ^ 0x9E37_79B9_7F4A_7C15_u64;
            for client in listener.incoming() {
                let (client, Ok(served)) = (client.unwrap(), TcpStream::connect(&hub)) else { return };
                for (from, to) in [(&client, &served), (&served, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    to.set_nodelay(true).unwrap();
                    random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                    let way = Way { from, to, network: Arc::clone(&network), random };
                    thread::spawn(move || way.go());
                }
            }
        });
        proxy
    }
}

impl Network {
    /// Whether the next piece is to have a long stall.
    fn stalls_long(&self) -> bool {
        let piece = self.pieces.fetch_add(1, Ordering::SeqCst);
        let less = |left: u64| left.checked_sub(1).filter(|_| piece.is_multiple_of(PIECES_A_LONG_STALL));
        let taken = self.long.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        self.seen[LONG_STALL].fetch_add(taken.into(), Ordering::SeqCst);
        taken
    }

    /// How often it cut, stalled, split and stalled for long.
    fn seen(&self) -> [usize; 4] {
        self.seen.each_ref().map(|count| count.load(Ordering::SeqCst))
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
            if self.network.bad.load(Ordering::SeqCst) {
                if self.happens(CUT, 60) {
                    return false;
                }
                if self.happens(STALL, 10) {
                    thread::sleep(Duration::from_millis(self.below(60)));
                }
                if self.network.stalls_long() {
                    thread::sleep(LONG);
                }
                if bytes.len() > 1 && self.happens(SPLIT, 2) {
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
            self.network.seen[what].fetch_add(1, Ordering::SeqCst);
        }
        happens
    }

    /// A number below this one, always the same for the same seed, connection and direction.
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.random >> 33) % end
    }
}
