//! Networks as users simulate them: what befalls them, and what is said of a seed that fails.

#![allow(missing_docs, reason = "a test binary")]

use std::env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use commipc_runtime::{CallError, Client, ClientBuilder, Fault, Request};
use commipc_sim::{SimNet, Storm, Weather};

#[allow(dead_code, clippy::print_stdout, reason = "an example, with its main")]
#[path = "../examples/till.rs"]
mod till;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A user's program.
async fn adder(hub: ClientBuilder) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let client = hub.connect().await?;
    let sum = async |numbers: Request<(i64, i64)>| Ok::<_, Fault>(numbers.0 + numbers.1);
    client.open("math").await?.provide("sum", sum).await?.detach();
    client.closed().await;
    Ok(())
}

async fn sum(client: &Client, deadline: Duration) -> Result<i64, CallError> {
    client.call("math", "sum", &(15, 25)).deadline(deadline).await
}

/// A hub `a` and the program `adder`; the scenario has a client `till`.
fn network() -> commipc_sim::SimNetBuilder {
    SimNet::builder().hub("a").program("adder", async |net: SimNet| {
        while adder(net.client("adder", "a")).await.is_err() {
            net.sleep(SECOND).await;
        }
    })
}

async fn at_the_till(net: &SimNet) -> Client {
    let client = net.client("till", "a").connect().await.expect("a hub");
    net.sleep(SECOND).await;
    assert_eq!(sum(&client, SECOND).await, Ok(40));
    client
}

#[test]
fn a_program_that_is_cut_off_or_killed_comes_back() {
    network().seeds(0..20).run(async |net| {
        let client = at_the_till(&net).await;
        net.cut("adder", "a");
        net.sleep(MINUTE).await;
        assert_eq!(sum(&client, SECOND).await, Ok(40), "cut off and back");
        net.crash("adder");
        net.sleep(SECOND).await;
        assert!(sum(&client, SECOND).await.is_err(), "nobody is there");
        net.restart("adder").await;
        net.sleep(SECOND).await;
        assert_eq!(sum(&client, SECOND).await, Ok(40), "killed and started again");
        net.restart("a").await;
        net.sleep(2 * MINUTE).await;
        assert_eq!(sum(&client, SECOND).await, Ok(40), "the hub was replaced");
    });
}

#[test]
fn a_partition_holds_back_what_is_said_and_heals() {
    network().seeds(0..20).run(async |net| {
        let client = at_the_till(&net).await;
        net.partition(&["till"], &["a", "adder"]);
        assert!(sum(&client, SECOND).await.is_err(), "nothing arrives");
        net.heal();
        net.sleep(SECOND).await;
        assert_eq!(sum(&client, SECOND).await, Ok(40), "the connection stood");
    });
}

/// The hub hears nothing of the till any more, and the till nothing of that.
#[test]
fn s68_a_half_open_connection_is_found_out_and_made_anew() {
    network().seeds(0..20).run(async |net| {
        let client = at_the_till(&net).await;
        net.mute("till", "a");
        assert!(sum(&client, SECOND).await.is_err(), "it does not arrive");
        net.sleep(3 * MINUTE).await;
        assert_eq!(sum(&client, SECOND).await, Ok(40), "silence was noticed");
    });
}

#[test]
fn a_paused_program_goes_on_where_it_was() {
    network().seeds(0..20).run(async |net| {
        let client = at_the_till(&net).await;
        net.pause("adder");
        let before = net.elapsed();
        assert!(sum(&client, SECOND).await.is_err(), "it sleeps");
        assert!(net.elapsed() - before >= SECOND);
        net.resume("adder");
        assert_eq!(sum(&client, SECOND).await, Ok(40));
    });
}

#[test]
fn a_line_takes_its_time() {
    let slow = Weather::still().delayed(100 * Duration::from_millis(1), 100 * Duration::from_millis(1));
    network().weather(Weather::still()).line("till", "a", slow).run(async |net| {
        let client = at_the_till(&net).await;
        let before = net.elapsed();
        assert_eq!(sum(&client, SECOND).await, Ok(40));
        let took = net.elapsed() - before;
        assert!((200..210).contains(&took.as_millis()), "{took:?}");
    });
    let narrow = Weather::still().carrying(1_000).in_pieces();
    network().weather(Weather::still()).line("till", "a", narrow).run(async |net| {
        let client = net.client("till", "a").connect().await.expect("a hub");
        let before = net.elapsed();
        client.broadcast("math", "up", &vec![7_u8; 10_000]).await.expect("it is taken");
        assert!(net.elapsed() - before >= 10 * SECOND, "{:?}", net.elapsed() - before);
    });
}

#[test]
fn whatever_befalls_a_network_it_recovers() {
    let report = network().any_weather().storm(Storm::lasting(20 * SECOND)).seeds(0..20).run(async |net| {
        let client = loop {
            match net.client("till", "a").connect().await {
                Ok(client) => break client,
                Err(_) => net.sleep(SECOND).await,
            }
        };
        net.calm().await;
        net.sleep(5 * MINUTE).await;
        for _ in 0..20 {
            if sum(&client, 10 * SECOND).await == Ok(40) {
                return;
            }
            net.sleep(10 * SECOND).await;
        }
        panic!("nobody answers any more");
    });
    assert_eq!(report.seeds, 20);
}

/// Two hubs and the bridge between them, which is a program as any.
#[test]
fn programs_at_bridged_hubs_find_each_other_again() {
    let bridged = network().hub("b").program("link", async |net: SimNet| {
        let bridge = net.bridge("link", "a", "b").await.expect("both hubs take it");
        bridge.closed().await;
    });
    bridged.seeds(0..20).run(async |net| {
        let client = net.client("till", "b").connect().await.expect("a hub");
        net.sleep(SECOND).await;
        assert_eq!(sum(&client, SECOND).await, Ok(40), "over the bridge");
        net.cut("link", "a");
        net.sleep(MINUTE).await;
        assert_eq!(sum(&client, SECOND).await, Ok(40), "its connection came back");
        net.crash("link");
        net.sleep(SECOND).await;
        assert!(sum(&client, SECOND).await.is_err(), "there is no way");
        net.restart("link").await;
        net.sleep(SECOND).await;
        assert_eq!(sum(&client, SECOND).await, Ok(40), "the bridge was started again");
        net.restart("a").await;
        net.sleep(3 * MINUTE).await;
        assert_eq!(sum(&client, SECOND).await, Ok(40), "the other hub was replaced");
    });
}

#[test]
fn the_same_seed_makes_the_same_run_and_another_does_not() {
    let trace = |seed| {
        let storm = Storm::lasting(10 * SECOND);
        network().any_weather().storm(storm).seed(seed).run(async |net| net.calm().await).trace
    };
    for seed in 0..10 {
        assert_eq!(trace(seed), trace(seed));
        assert_ne!(trace(seed), trace(seed + 1));
    }
}

/// The example of the guide.
#[test]
fn the_bug_of_the_example_is_found_replayed_and_gone_when_mended() {
    let found = till::search(false, 0..500).expect_err("it pays in twice");
    assert!(found.why.contains("what the bank has booked"), "{found}");
    assert!(found.again, "{found}");
    assert!(found.to_string().contains(&format!("COMMIPC_SIM_SEED={} ", found.seed)), "{found}");
    assert!(found.replay.contains("cargo test -p commipc-sim --test simnet -- --exact"), "{}", found.replay);
    let replayed = till::search(false, found.seed..found.seed + 1).expect_err("the same again");
    assert_eq!((replayed.trace, &replayed.why), (found.trace, &found.why));
    // What the guide shows of it is what is found.
    let guide = include_str!("../../docs/simulating.md");
    let (_, shown) = guide.split_once("breaks\n    …\n").expect("the guide shows how a seed fails");
    let (shown, _) = shown.split_once("; replay it with:").expect("the guide shows the trace");
    let unnumbered = |text: &str| text.replace(|it: char| it.is_ascii_hexdigit() || it == '.', "");
    let told = unnumbered(&found.to_string());
    assert!(told.contains(&unnumbered(shown)), "the guide shows:\n{shown}\nand found is:\n{found}");
    let mended = till::search(true, 0..100).expect("a receipt is booked once");
    assert_eq!(mended.seeds, 100);
}

/// What is printed is run, as somebody would who reads it; cargo itself is left out.
#[test]
fn the_command_that_is_printed_runs_that_seed_and_no_other() {
    const OTHER_HALF: &str = "COMMIPC_TEST_IS_REPLAYED";
    if env::var_os(OTHER_HALF).is_some() {
        let broken = till::search(false, 0..500).expect_err("it pays in twice");
        return println!("seed {} trace {}", broken.seed, broken.trace);
    }
    let first = till::search(false, 0..500).expect_err("it pays in twice").seed;
    let found = till::search(false, first + 1..500).expect_err("and again");
    let (seed, command) = found.replay.split_once(' ').expect("a variable and a command");
    let (cargo, arguments) = command.split_once(" -- ").expect("what the test is given");
    assert_eq!(cargo.replace(" --release", ""), "cargo test -p commipc-sim --test simnet");
    let (variable, seed) = seed.split_once('=').expect("a variable");
    let mut replay = std::process::Command::new(env::current_exe().expect("this program"));
    replay.args(arguments.split(' ')).env(variable, seed).env(OTHER_HALF, "");
    let output = replay.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    assert!(told.contains(&format!("seed {seed} trace {}", found.trace)), "{told}");
}

/// A program that is different each time is told so.
#[test]
fn what_does_not_follow_from_the_seed_is_told() {
    let runs = AtomicU64::new(0);
    let broken = SimNet::builder().search(async |net: SimNet| {
        let run = runs.fetch_add(1, Ordering::Relaxed);
        net.sleep(Duration::from_millis(run)).await;
        panic!("in its own time");
    });
    let broken = broken.expect_err("it panics");
    assert!(!broken.again && broken.to_string().contains("went another way"), "{broken}");
}

/// As a timer or a socket of a real runtime does: they have a thread that wakes.
#[test]
fn who_waits_for_another_thread_is_told() {
    let broken = network().search(async |net| {
        let _client = at_the_till(&net).await;
        let woken = Arc::new(AtomicBool::new(false));
        std::future::poll_fn(|cx: &mut Context<'_>| {
            let waker: Waker = cx.waker().clone();
            if woken.swap(true, Ordering::Relaxed) {
                return Poll::Ready(());
            }
            std::thread::Builder::new().name("a reactor".into()).spawn(move || waker.wake()).unwrap().join().unwrap();
            Poll::Pending
        })
        .await;
    });
    let why = broken.expect_err("there is no other thread").why;
    assert!(why.contains("'a reactor'") && why.contains("Request::sleep"), "{why}");
}

#[test]
fn who_waits_for_nothing_is_told() {
    let broken = network().search(async |net| {
        net.crash("adder");
        net.crash("a");
        std::future::pending::<()>().await;
    });
    let why = broken.expect_err("nothing will ever happen").why;
    assert!(why.contains("deadlock") && why.contains("Request::sleep"), "{why}");
}

/// What a handler does with tasks of its client's runtime is simulated as well.
#[test]
fn a_client_has_time_and_tasks() {
    let noted = Arc::new(Mutex::new(false));
    let note = Arc::clone(&noted);
    SimNet::builder().hub("a").run(move |net| {
        let note = Arc::clone(&note);
        async move {
            let client = net.client("till", "a").connect().await.expect("a hub");
            let later = client.sleep(MINUTE);
            let inner = Arc::clone(&note);
            client.spawn(async move {
                later.await;
                *inner.lock().unwrap() = true;
            });
            client.sleep(MINUTE / 2).await;
            assert!(!*note.lock().unwrap());
            client.sleep(MINUTE).await;
        }
    });
    assert!(*noted.lock().unwrap());
}
