//! Runtimes side by side: in one process, and with a hub or a provider in another that is killed.

use std::future::IntoFuture as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use commipc_runtime::memory::memory_pair;
use commipc_runtime::{Away, CallError, Connection, ConnectionState, Fault, Reconnect, Request, Secret};

use crate::puppets::Puppet;
use crate::scene::{ADAPTERS, KEY, Scene, TOKIO, Transport, make, run};

/// And a fourth, which is none.
#[test]
fn three_runtimes_one_process() {
    run(TOKIO, Transport::Unix, |scene| async move {
        for adapter in ADAPTERS {
            everybody_calls_everybody(&scene.on(adapter)).await;
        }
    });
}

/// A hub on this scene's adapter serves clients on all of them.
async fn everybody_calls_everybody(scene: &Scene) {
    let hub = scene.bare_hub().listen(&scene.url(scene.adapter())).await.unwrap();
    let mut clients = Vec::new();
    let mut provided = Vec::new();
    for adapter in ADAPTERS {
        let id = adapter.name;
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
    for adapter in ADAPTERS {
        run(adapter, Transport::Tcp, calls_a_child);
    }
}

async fn calls_a_child(scene: Scene) {
    let hub = scene.bare_hub().listen_nowhere().secret(Secret::key(KEY)).await.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_puppet"));
    command.args([scene.adapter(), "child", "tcp://nowhere:1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
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
    let (mut hub, url) = Puppet::start(scene.adapter(), "hub", &scene.url("killed"), None);
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
        hub = Puppet::start(scene.adapter(), "hub", &url, None).0;
        for states in &mut both {
            while states.next().await != Some(ConnectionState::Ready) {}
        }
        assert_eq!(math.call::<u32>("double", &round).while_away(Away::Wait).await.unwrap(), 2 * round);
        provided.broadcast("news", &round).while_away(Away::Wait).await.unwrap();
        assert_eq!(*news.next().await.unwrap(), round);
    }
}
