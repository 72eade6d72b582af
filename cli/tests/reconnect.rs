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
use support::history::{History, Outcomes, keep_calling};
use support::{Process, Scene};

fn hub(scene: &Scene, key: &str) -> Process {
    let state = scene.path("state").display().to_string();
    let mut hub = scene.start(&["hub", "--state-dir", &state, "--secret-file", key]);
    hub.line();
    hub
}

/// Kills a hub and starts it again, on a thread of its own: clients go on meanwhile.
async fn replaced(running: Process, scene: &Arc<Scene>, key: &str) -> Process {
    let (scene, key) = (Arc::clone(scene), key.to_owned());
    let replace = move || {
        running.signal(Signal::KILL);
        running.end();
        hub(&scene, &key)
    };
    tokio::task::spawn_blocking(replace).await.unwrap()
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
    _providers: [Provider; 2],
    /// Another one of the same owner, whose password changes with every kill.
    diary: Channel,
    /// Of somebody who is told so.
    reader: Channel,
}

/// How long a call takes that is under way when its hub is killed.
const SLOW: Duration = Duration::from_millis(700);

/// The password of a diary after so many kills.
fn page(round: u64) -> Secret {
    Secret::key([u8::try_from(round).unwrap(); 32])
}

impl House {
    async fn built(
        (channel, byte): (&'static str, &str),
        scene: &Scene,
        key: &str,
        history: &Arc<History>,
        reader: &Client,
    ) -> Self {
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
        let slow = async move |history: Arc<History>, r: Request<u64>| {
            *history.executed.lock().unwrap().entry(*r).or_default() += 1;
            history.slow.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(SLOW).await;
            Ok::<_, Fault>(*r)
        };
        let count = provided.provide_with(Arc::clone(history), "count", count).await.unwrap();
        let slow = provided.provide_with(Arc::clone(history), "slow", slow).await.unwrap();
        let name = format!("diary-of-{channel}");
        let diary = owner.open(&name).await.unwrap();
        diary.protect_with(page(0)).await.unwrap();
        let reader = reader.open(&name).secret(page(0)).await.unwrap();
        Self { channel, secret, owner, owned, provider, _providers: [count, slow], diary, reader }
    }

    /// The owner gives its diary another password: who had the old one is out, and nobody comes in with that.
    async fn owner_owns(&mut self, reader: &Client, round: u64) {
        self.diary.protect_with(page(round)).await.unwrap();
        assert_eq!(self.reader.closed().await.code().0, Refusal::Rekeyed.code());
        is_refused(reader, &self.diary.name().to_string(), page(round - 1)).await;
        self.reader = reader.open(&self.diary.name().to_string()).secret(page(round)).await.unwrap();
    }

    /// The channel is protected as before, and its owner is there.
    fn is_protected(&self, scene: &Scene, key: &str) {
        scene.run(&["call", self.channel, "count", "1", "--secret-file", key]).failed(6, &["code 209"]);
        let members = scene.run(&["members", self.channel, "--json", "--secret-file", key]).json_lines();
        let owners: Vec<_> = members.iter().filter(|member| member["owner"] == true).collect();
        let owner = format!("owner-of-{}", self.channel);
        assert!(matches!(owners[..], [it] if it["client"] == owner), "{members:?}");
    }

    /// It is protected, and its owner owns.
    async fn is_as_it_was(&mut self, scene: &Scene, key: &str, reader: &Client, round: u64) {
        self.is_protected(scene, key);
        is_refused(reader, self.channel, page(round)).await;
        self.owner_owns(reader, round).await;
    }

    /// The owner owns: nobody else could change the password, which ends what others had with it.
    async fn is_owned(&self, member: &Channel) {
        self.owned.protect("battery staple").await.unwrap();
        assert_eq!(member.closed().await.code().0, Refusal::Rekeyed.code());
    }
}

type UnderWay = tokio::task::JoinHandle<(Away, Result<(), bool>)>;

/// Calls that wait for their answer in every channel, half of which may be made again: executed, and not answered yet.
async fn under_way(opened: &[Channel], history: &Arc<History>) -> Vec<UnderWay> {
    let before = history.slow.load(Ordering::Relaxed);
    let mut calls = Vec::new();
    for channel in opened {
        for away in [Away::Wait, Away::Repeat] {
            let (channel, history) = (channel.clone(), Arc::clone(history));
            calls.push(tokio::spawn(async move { (away, history.call(&channel, "slow", away).await) }));
        }
    }
    while history.slow.load(Ordering::Relaxed) < before + calls.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    calls
}

/// What was under way when the hub was killed has ended, and all goes on.
async fn calls_succeed(calls: Vec<UnderWay>, opened: &[Channel], history: &History) {
    for call in calls {
        // One that is made again may come before its provider is back.
        let (away, outcome) = call.await.unwrap();
        assert!(matches!(outcome, Ok(()) | Err(true)), "{away:?}: it was executed, and ended with {outcome:?}");
    }
    for channel in opened {
        assert_eq!(history.call(channel, "count", Away::Wait).await, Ok(()), "calls succeed again");
    }
}

/// Nobody comes in with a wrong password.
async fn is_refused(stranger: &Client, channel: &str, wrong: Secret) {
    let refused = stranger.open(channel).secret(wrong).await.unwrap_err();
    assert_eq!(refused.code().0, Refusal::PasswordWrong.code(), "{channel}: {refused}");
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

/// No call has two outcomes, most are answered, and with the kills some were cut and some made again.
fn judge(history: &History, kills: u64) {
    let outcomes = history.check();
    let Outcomes { calls, answered, cut, made_again } = outcomes;
    assert!(answered * 2 > calls, "most of {calls} calls are answered, not {answered}");
    // Of six of each with every kill. Not all, where it comes late.
    let kills = usize::try_from(kills).unwrap();
    assert!(cut >= kills && made_again > 0, "{cut} calls were cut, and {made_again} made again");
}

#[test]
fn s71_s72_d9_programs_go_on_when_their_hub_is_killed_under_load() {
    let rounds = std::env::var("COMMIPC_KILLS").map_or(5, |rounds| rounds.parse().unwrap());
    let scene = Arc::new(Scene::new());
    let key = scene.file("hub.key", &format!("key:{}\n", "1a".repeat(32)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut running = hub(&scene, &key);
        let history = Arc::<History>::default();
        let (mut houses, reader) = (Vec::new(), client(&scene, &key, "reader").await);
        for channel in CHANNELS {
            houses.push(House::built(channel, &scene, &key, &history, &reader).await);
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
            let away = [Away::Wait, Away::Repeat, Away::Wait][number];
            tasks.push(tokio::spawn(keep_calling(busy, "count", away, Arc::clone(&history))));
            callers.push(caller);
        }
        for round in 1..=rounds {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let hosts = houses.iter().flat_map(|house| [&house.owner, &house.provider]);
            let mut states: Vec<_> = hosts.chain(&callers).chain([&reader]).map(Client::states).collect();
            for states in &mut states {
                states.next().await;
            }
            let calls = under_way(&opened, &history).await;
            running = replaced(running, &scene, &key).await;
            println!("round {round}: everybody is back after {:?}", back(&mut states).await);
            calls_succeed(calls, &opened, &history).await;
            for house in &mut houses {
                house.is_as_it_was(&scene, &key, &reader, round).await;
            }
            everybody_hears(&houses, &mut heard, round).await;
        }
        history.over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        judge(&history, rounds);
        for (house, member) in houses.iter().zip(&opened) {
            house.is_owned(member).await;
        }
        running.signal(Signal::TERM);
        running.end();
    });
}
