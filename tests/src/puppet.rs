//! One role of a play between processes, on any adapter: `puppet tokio hub tcp://127.0.0.1:0`. It says one line when it is
//! ready, a consumer one after each round and one when it is done. Each line of its standard input asks what it holds or has
//! done, and with the last it ends. A `child` speaks with its hub over standard input and output, and says nothing else there.
#![expect(clippy::print_stdout, reason = "it is a program")]
#![expect(clippy::unwrap_used, reason = "what goes wrong fails the test that started it")]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::{Future, IntoFuture as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commipc_blocking::Wait as _;
use commipc_tokio::{
    Away, CallError, Channel, Client, ClientBuilder, Connection, Fault, HubBuilder, OwnerPolicy, Reconnect, Request,
    Secret,
};

/// What it says when it is asked.
static ANSWER: OnceLock<Box<dyn Fn() -> String + Send + Sync>> = OnceLock::new();
/// All of a play share a key, so that no files have to be carried about.
const KEY: [u8; 32] = [7; 32];
/// Calls of one round, all made at once, and items of its stream.
const CALLS: u64 = 20;
const ITEMS: u64 = 50;
const PAUSE: Duration = Duration::from_millis(30);
/// After a round in which nothing was answered: nobody provides anything for a while.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// How a bench loads a hub: calls one after the other, then so many at a time for so long.
const ALONE: usize = 4_000;
const IN_FLIGHT: usize = 256;
const LOADED: Duration = Duration::from_secs(2);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [adapter, role, url, rest @ ..] = &arguments[..] else { panic!("puppet ADAPTER ROLE URL [ROUNDS]") };
    if role != "child" {
        std::thread::spawn(|| {
            for _ in std::io::stdin().lines().map_while(Result::ok) {
                println!("{}", ANSWER.get().map_or_else(String::new, |answer| answer()));
            }
            std::process::exit(0);
        });
    }
    let rounds = rest.first().map_or(0, |rounds| rounds.parse().unwrap());
    let client = || reconnecting(client(adapter, url));
    let play: Pin<Box<dyn Future<Output = ()>>> = match &role[..] {
        "hub" => Box::pin(be_hub(hub(adapter).listen(url))),
        "provider" => Box::pin(be_provider(client().id("provider"))),
        "consumer" => Box::pin(be_consumer(client().id("consumer"), rounds)),
        "caller" => Box::pin(be_caller(self::client(adapter, url).id("caller"))),
        "child" => Box::pin(be_child(self::client(adapter, url).id("child"), adapter)),
        "bench" => Box::pin(bench(client().id("consumer"))),
        other => panic!("no role '{other}'"),
    };
    match &adapter[..] {
        "tokio" => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play),
        "smol" | "async-std" => smol::block_on(play),
        _ => play.wait(),
    }
}

fn hub(adapter: &str) -> HubBuilder {
    let hub = match adapter {
        "tokio" => commipc_tokio::hub(),
        "smol" => commipc_smol::hub(),
        "async-std" => commipc_async_std::hub(),
        "blocking" => commipc_blocking::hub(),
        other => panic!("no adapter '{other}'"),
    };
    // A provider that is away for a moment must not end the channel.
    hub.secret(Secret::key(KEY)).on_owner_leave(OwnerPolicy::Promote)
}

fn client(adapter: &str, url: &str) -> ClientBuilder {
    let client = match adapter {
        "tokio" => commipc_tokio::client(url),
        "smol" => commipc_smol::client(url),
        "async-std" => commipc_async_std::client(url),
        "blocking" => commipc_blocking::client(url),
        other => panic!("no adapter '{other}'"),
    };
    client.secret(Secret::key(KEY))
}

fn reconnecting(client: ClientBuilder) -> ClientBuilder {
    let mut soon = Reconnect::default();
    (soon.first, soon.longest) = (Duration::from_millis(5), Duration::from_millis(50));
    client.reconnect(soon)
}

async fn be_hub(hub: HubBuilder) {
    let hub = hub.await.unwrap();
    let running = hub.clone();
    answers(move || {
        let load = running.load();
        format!(
            "links {} clients {} calls {} routes {} streams {} joins {} buffered {}",
            load.links, load.clients, load.calls, load.routes, load.streams, load.joins, load.buffered
        )
    });
    println!("{}", hub.urls()[0]);
    hub.stopped().await;
}

fn answers(answer: impl Fn() -> String + Send + Sync + 'static) {
    assert!(ANSWER.set(Box::new(answer)).is_ok(), "it has one role");
}

// [readme]
/// Standard input and output as streams of tokio's.
fn standard_of_tokio() -> Connection {
    commipc_tokio::stream(tokio::io::join(tokio::io::stdin(), tokio::io::stdout()))
}

/// The same with any other adapter, and without async: `smol::Unblock`, which alone is the crate `blocking`, reads and writes in threads.
fn standard() -> Connection {
    Connection::over_halves(smol::Unblock::new(std::io::stdin()), smol::Unblock::new(std::io::stdout()))
}
// [readme]

/// Doubles numbers, for whoever has started it.
async fn be_child(client: ClientBuilder, adapter: &str) {
    let standard = if adapter == "tokio" { standard_of_tokio() } else { standard() };
    let client = client.over(standard).await.unwrap();
    let math = client.open("math").await.unwrap();
    let _double = math.provide("double", async |number: Request<u64>| Ok::<_, Fault>(2 * *number)).await.unwrap();
    client.closed().await;
}

/// What a provider has done.
#[derive(Default)]
struct Done {
    /// The numbers that `once` was asked with.
    numbers: Mutex<BTreeSet<u64>>,
    /// How often with one it had been asked with before.
    repeated: AtomicU64,
    /// Streams that are being made.
    streams: AtomicU64,
}

/// A stream that is being made.
struct Making(Arc<Done>);

impl Drop for Making {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, SeqCst);
    }
}

async fn be_provider(client: ClientBuilder) {
    let client = client.await.unwrap();
    let play = client.open("play").await.unwrap();
    let done = Arc::new(Done::default());
    let (told, held) = (Arc::clone(&done), under_way(&client));
    answers(move || {
        let (streams, repeated) = (told.streams.load(SeqCst), told.repeated.load(SeqCst));
        let done = listed(&*told.numbers.lock().unwrap());
        format!("streams {streams}{}, repeated {repeated}, done{done}", held())
    });
    let once = async |done: Arc<Done>, number: Request<u64>| {
        let is_new = done.numbers.lock().unwrap().insert(*number);
        if !is_new {
            done.repeated.fetch_add(1, SeqCst);
        }
        Ok::<_, Fault>(*number)
    };
    let _once = play.provide_with(Arc::clone(&done), "once", once).running(1_024).await.unwrap();
    let count = move |from: Request<u64>| {
        done.streams.fetch_add(1, SeqCst);
        let making = Making(Arc::clone(&done));
        smol::stream::iter((*from..*from + ITEMS).map(move |item| {
            let _making = &making;
            Ok::<_, Fault>(item)
        }))
    };
    let _count = play.provide_stream("count", count).await.unwrap();
    let echo = async |payload: Request<Bytes>| Ok::<_, Fault>((*payload).clone());
    let _echo = play.provide_raw("echo", echo).running(1_024).await.unwrap();
    println!("ready");
    client.closed().await;
}

/// What a client holds of requests, said when it is asked, each as ` kind number`; nothing where it holds none.
fn under_way(client: &Client) -> impl Fn() -> String + Send + Sync + 'static {
    let client = client.clone();
    // What stands for as long as its connection and its handles do.
    let stands = ["standing tickets", "channels"];
    move || {
        let held = client.held().into_iter().filter(|(kind, count)| *count > 0 && !stands.contains(kind));
        held.map(|(kind, count)| format!(" {kind} {count}")).collect()
    }
}

fn listed<'a>(numbers: impl IntoIterator<Item = &'a u64>) -> String {
    numbers.into_iter().map(|number| format!(" {number}")).collect()
}

/// Asks for a call, a stream and an exchange that never end, and is there until it is killed.
async fn be_caller(client: ClientBuilder) {
    let client = client.await.unwrap();
    let math = client.open("math").await.unwrap();
    let mut call = pin!(math.call::<u8>("never", &()).into_future());
    let asked = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
    let mut stream = math.stream::<u8>("feed", &()).await.unwrap();
    let mut exchange = math.exchange::<u8, u8>("trade", &(), smol::stream::pending::<u8>()).await.unwrap();
    for items in [&mut stream, &mut exchange] {
        assert_eq!((items.try_next().await, items.try_next().await), (Ok(Some(1)), Ok(Some(2))));
    }
    assert!(asked, "nobody answers");
    println!("ready");
    panic!("it ended: {:?}", call.await);
}

/// What became of a consumer's calls.
#[derive(Default)]
struct Ends {
    answered: u64,
    failed: u64,
    wrong: u64,
    /// Numbers of the calls that failed without having been carried out.
    unexecuted: Vec<u64>,
}

/// Calls and streams, round by round. Each ends before the next begins.
async fn be_consumer(client: ClientBuilder, rounds: u64) {
    let client = client.while_away(Away::Wait).await.unwrap();
    let play = client.open("play").await.unwrap();
    answers(under_way(&client));
    // What timers need is there before its holdings are counted.
    smol::Timer::after(PAUSE).await;
    println!("ready");
    let mut ends = Ends::default();
    for round in 0..rounds {
        let numbers: Vec<u64> = (round * CALLS..(round + 1) * CALLS).collect();
        let answered = ends.answered;
        let calls: Vec<_> = numbers.iter().map(|number| call(&play, *number)).collect();
        for (number, answer) in numbers.into_iter().zip(together(calls).await) {
            match answer {
                Ok(answer) if answer == number => ends.answered += 1,
                Err(CallError::Failed { maybe_executed, .. }) => {
                    ends.failed += 1;
                    ends.unexecuted.extend((!maybe_executed).then_some(number));
                }
                Ok(_) | Err(_) => ends.wrong += 1,
            }
        }
        stream(&play, round, &mut ends).await;
        // Whoever is away has time to come back.
        smol::Timer::after(if ends.answered > answered { PAUSE } else { LONG_PAUSE }).await;
        println!("round {round} is over");
    }
    let Ends { answered, failed, wrong, unexecuted } = ends;
    println!("answered {answered} failed {failed} wrong {wrong} unexecuted{}", listed(&unexecuted));
    client.closed().await;
}

async fn call(play: &Channel, number: u64) -> Result<u64, CallError> {
    play.call("once", &number).deadline(Duration::from_secs(2)).await
}

/// A stream brings its items in order, and if it is cut short it says so.
async fn stream(play: &Channel, round: u64, ends: &mut Ends) {
    let asked = play.stream::<u64>("count", &round).deadline(Duration::from_secs(2)).await;
    let Ok(mut items) = asked else {
        ends.failed += 1;
        return;
    };
    let mut expected = round;
    loop {
        match items.try_next().await {
            Ok(Some(item)) if item == expected => expected += 1,
            Ok(None) if expected == round + ITEMS => return ends.answered += 1,
            Err(CallError::Failed { .. }) => return ends.failed += 1,
            Ok(_) | Err(_) => return ends.wrong += 1,
        }
    }
}

/// All results, of futures that run at the same time.
async fn together<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Some(Box::pin(future)), None)).collect();
    poll_fn(|cx| {
        for (slot, output) in &mut futures {
            if let Some(future) = slot
                && let Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                (*slot, *output) = (None, Some(ready));
            }
        }
        if futures.iter().all(|(future, _)| future.is_none()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

/// Says how long a call took that was alone (its median, in nanoseconds), and how many a second were answered of many.
async fn bench(client: ClientBuilder) {
    let play = client.await.unwrap().open("play").await.unwrap();
    println!("ready");
    let payload = Bytes::from_static(&[1; 64]);
    let mut times = Vec::with_capacity(ALONE);
    for _ in 0..ALONE {
        let started = Instant::now();
        play.call_raw("echo", payload.clone()).await.unwrap();
        times.push(started.elapsed().as_nanos());
    }
    times.sort_unstable();
    let (started, answered) = (Instant::now(), Cell::new(0_u64));
    let lanes = smol::LocalExecutor::new();
    let lane = async || {
        while started.elapsed() < LOADED {
            play.call_raw("echo", payload.clone()).await.unwrap();
            answered.set(answered.get() + 1);
        }
    };
    let lanes_over: Vec<_> = (0..IN_FLIGHT).map(|_| lanes.spawn(lane())).collect();
    lanes
        .run(async {
            for lane in lanes_over {
                lane.await
            }
        })
        .await;
    let answered = answered.get();
    println!("{} {:.0}", times[ALONE / 2], answered as f64 / started.elapsed().as_secs_f64());
}
