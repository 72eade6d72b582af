//! Programs whose hub is killed under load, again and again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use commipc_tokio::{Away, Client, ConnectionState, Fault, Reconnect, Request, States};
use rustix::process::Signal;
use support::history::{History, keep_calling};
use support::{Process, Scene};

fn hub(scene: &Scene, key: &str) -> Process {
    let state = scene.path("state").display().to_string();
    let mut hub = scene.start(&["hub", "--state-dir", &state, "--secret-file", key]);
    hub.line();
    hub
}

async fn client(scene: &Scene, key: &str, id: &str) -> Client {
    let mut soon = Reconnect::default();
    (soon.first, soon.longest) = (Duration::from_millis(20), Duration::from_millis(200));
    commipc_tokio::client(&scene.url()).id(id).secret_file(key).reconnect(soon).await.unwrap()
}

/// Waits until everybody was away and is back.
async fn back(states: &mut [States]) -> Duration {
    let started = Instant::now();
    for states in states {
        while states.next().await.unwrap() != ConnectionState::Ready {}
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    started.elapsed()
}

/// The channel is protected as before, and its owner is there.
fn is_protected(scene: &Scene, key: &str) {
    scene.run(&["call", "vault", "count", "1", "--secret-file", key]).failed(6, &["code 209"]);
    let members = scene.run(&["members", "vault", "--json", "--secret-file", key]).json_lines();
    let owners: Vec<_> = members.iter().filter(|member| member["owner"] == true).collect();
    assert!(matches!(owners[..], [owner] if owner["client"] == "owner"), "{members:?}");
}

#[test]
fn s71_s72_d9_programs_go_on_when_their_hub_is_killed_under_load() {
    let rounds = std::env::var("COMMIPC_KILLS").map_or(5, |rounds| rounds.parse().unwrap());
    let scene = Scene::new();
    let key = scene.file("hub.key", &format!("key:{}\n", "1a".repeat(32)));
    let secret = commipc_tokio::Secret::parse(format!("key:{}", "5a".repeat(32)).as_bytes()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut running = hub(&scene, &key);
        let (owner, provider) = (client(&scene, &key, "owner").await, client(&scene, &key, "provider").await);
        let owned = owner.open("vault").await.unwrap();
        owned.protect_with(secret.clone()).await.unwrap();
        let history = Arc::<History>::default();
        let provided = provider.open("vault").secret(secret.clone()).await.unwrap();
        let executed = Arc::clone(&history);
        let count = async move |history: Arc<History>, r: Request<u64>| {
            *history.executed.lock().unwrap().entry(*r).or_default() += 1;
            Ok::<_, Fault>(*r)
        };
        let _count = provided.provide_with(executed, "count", count).await.unwrap();
        let (mut callers, mut tasks) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let caller = client(&scene, &key, &format!("caller-{number}")).await;
            let vault = caller.open("vault").secret(secret.clone()).await.unwrap();
            tasks.push(tokio::spawn(keep_calling(vault.clone(), "count", Arc::clone(&history))));
            callers.push((caller, vault));
        }
        for round in 1..=rounds {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let clients = [&owner, &provider].into_iter().chain(callers.iter().map(|(it, _)| it));
            let mut states: Vec<_> = clients.map(Client::states).collect();
            for states in &mut states {
                states.next().await;
            }
            running.signal(Signal::KILL);
            running.end();
            running = hub(&scene, &key);
            println!("round {round}: everybody is back after {:?}", back(&mut states).await);
            for (_, vault) in &callers {
                let number = history.last.fetch_add(1, Ordering::Relaxed) + 1;
                let answer = vault.call::<u64>("count", &number).while_away(Away::Wait).await;
                assert_eq!(answer, Ok(number), "calls succeed again");
                history.ended.lock().unwrap().insert(number, Ok(()));
            }
            is_protected(&scene, &key);
        }
        history.over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        let (calls, answered) = history.check();
        println!("{calls} calls over {rounds} kills, {answered} answered");
        assert!(answered * 2 > calls, "most of {calls} calls are answered, not {answered}");
        // The owner owns: nobody else could change the password.
        owned.protect("battery staple").await.unwrap();
        assert!(callers[0].1.closed().await.code().0 > 0);
        running.signal(Signal::TERM);
        running.end();
    });
}
