//! Programs whose hub is killed under load, again and again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use commipc_tokio::{
    Away, Channel, Client, ConnectionState, Fault, Listener, Provider, Reconnect, Refusal, Request, Secret, States,
};
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

/// Two channels with passwords of their own, each with somebody who owns it and somebody else who provides what is called.
const CHANNELS: [(&str, &str); 2] = [("vault", "5a"), ("safe", "6b")];

/// What belongs to one channel.
struct House {
    channel: &'static str,
    secret: Secret,
    owner: Client,
    owned: Channel,
    provider: Client,
    _count: Provider,
}

impl House {
    async fn built((channel, byte): (&'static str, &str), scene: &Scene, key: &str, history: &Arc<History>) -> Self {
        let secret = Secret::parse(format!("key:{}", byte.repeat(32)).as_bytes()).unwrap();
        let owner = client(scene, key, &format!("owner-of-{channel}")).await;
        let owned = owner.open(channel).await.unwrap();
        owned.protect_with(secret.clone()).await.unwrap();
        let provider = client(scene, key, &format!("provider-of-{channel}")).await;
        let provided = provider.open(channel).secret(secret.clone()).await.unwrap();
        let count = async move |history: Arc<History>, r: Request<u64>| {
            *history.executed.lock().unwrap().entry(*r).or_default() += 1;
            Ok::<_, Fault>(*r)
        };
        let count = provided.provide_with(Arc::clone(history), "count", count).await.unwrap();
        Self { channel, secret, owner, owned, provider, _count: count }
    }

    /// The channel is protected as before, and its owner is there.
    fn is_protected(&self, scene: &Scene, key: &str) {
        scene.run(&["call", self.channel, "count", "1", "--secret-file", key]).failed(6, &["code 209"]);
        let members = scene.run(&["members", self.channel, "--json", "--secret-file", key]).json_lines();
        let owners: Vec<_> = members.iter().filter(|member| member["owner"] == true).collect();
        let owner = format!("owner-of-{}", self.channel);
        assert!(matches!(owners[..], [it] if it["client"] == owner), "{members:?}");
    }

    /// The owner owns: nobody else could change the password, which ends what others had with it.
    async fn is_owned(&self, member: &Channel) {
        self.owned.protect("battery staple").await.unwrap();
        assert_eq!(member.closed().await.code().0, Refusal::Rekeyed.code());
    }
}

/// Members hear the owner of their channel, once.
async fn everybody_hears(houses: &[House], heard: &mut [Listener<u64>], round: u64) {
    for house in houses {
        house.owned.broadcast("tick", &round).await.unwrap();
    }
    for heard in heard {
        let tick = tokio::time::timeout(Duration::from_secs(10), heard.next()).await;
        assert_eq!(*tick.expect("it listens still").unwrap(), round);
    }
}

#[test]
fn s71_s72_d9_programs_go_on_when_their_hub_is_killed_under_load() {
    let rounds = std::env::var("COMMIPC_KILLS").map_or(5, |rounds| rounds.parse().unwrap());
    let scene = Scene::new();
    let key = scene.file("hub.key", &format!("key:{}\n", "1a".repeat(32)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut running = hub(&scene, &key);
        let history = Arc::<History>::default();
        let mut houses = Vec::new();
        for channel in CHANNELS {
            houses.push(House::built(channel, &scene, &key, &history).await);
        }
        let (mut callers, mut opened, mut heard, mut tasks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for number in 0..3 {
            let caller = client(&scene, &key, &format!("caller-{number}")).await;
            for house in &houses {
                let channel = caller.open(house.channel).secret(house.secret.clone()).await.unwrap();
                heard.push(channel.listen::<u64>("tick").await.unwrap());
                opened.push(channel);
            }
            // One channel has two callers all the time, the other one.
            let busy = opened[2 * number + number % 2].clone();
            tasks.push(tokio::spawn(keep_calling(busy, "count", Arc::clone(&history))));
            callers.push(caller);
        }
        for round in 1..=rounds {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let hosts = houses.iter().flat_map(|house| [&house.owner, &house.provider]);
            let mut states: Vec<_> = hosts.chain(&callers).map(Client::states).collect();
            for states in &mut states {
                states.next().await;
            }
            running.signal(Signal::KILL);
            running.end();
            running = hub(&scene, &key);
            println!("round {round}: everybody is back after {:?}", back(&mut states).await);
            for channel in &opened {
                let number = history.last.fetch_add(1, Ordering::Relaxed) + 1;
                let answer = channel.call::<u64>("count", &number).while_away(Away::Wait).await;
                assert_eq!(answer, Ok(number), "calls succeed again");
                history.ended.lock().unwrap().insert(number, Ok(()));
            }
            houses.iter().for_each(|house| house.is_protected(&scene, &key));
            everybody_hears(&houses, &mut heard, round).await;
        }
        history.over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        let (calls, answered) = history.check();
        println!("{calls} calls over {rounds} kills, {answered} answered");
        assert!(answered * 2 > calls, "most of {calls} calls are answered, not {answered}");
        for (house, member) in houses.iter().zip(&opened) {
            house.is_owned(member).await;
        }
        running.signal(Signal::TERM);
        running.end();
    });
}
