//! What the lines of `docs/endings.md` say of callers that give up, deadlines and new passwords, of connections that drop and of
//! programs that die, with a call, a stream and an exchange under way at a time.

use std::future::pending;
use std::pin::Pin;
use std::time::{Duration, Instant};

use commipc_runtime::{
    CallError, Channel, Client, CloseReason, Failure, Fault, Hub, Items, Misuse, PendingCall, Provider, Refusal,
    Request, Secret, Tap, TapKind,
};
use smol::channel::Receiver;
use smol::stream::{self, Stream, StreamExt as _};

use crate::puppets::Puppet;
use crate::relay::Relay;
use crate::scene::{KEY, Scene, Watched, make, over_all, watch};

over_all! {
    d7_s49_endings_of_what_its_caller_gives_up,
    d7_s37_s51_endings_of_what_takes_longer_than_its_deadline,
    s26_s51_endings_of_what_runs_when_its_channels_password_changes,
    d7_s51_endings_of_what_runs_when_its_providers_link_drops,
    d7_s51_endings_of_what_runs_when_its_provider_dies,
    d7_s51_endings_of_what_runs_when_its_callers_link_drops,
    d7_s51_endings_of_what_runs_when_its_caller_is_killed,
    d7_s51_endings_of_what_runs_when_its_hub_is_killed,
}

/// How soon everybody knows who cannot be told by a deadline, nor by silence.
const PROMPTLY: Duration = Duration::from_secs(10);

/// A provider of something of each kind that never ends.
struct Providing {
    client: Client,
    /// What comes in, and how handlers end.
    tap: Tap,
    dropped: Receiver<()>,
    _provided: (Channel, [Provider; 3]),
}

/// What a caller asks for: one of each.
struct Asked {
    call: PendingCall<u8>,
    stream: Items<u8>,
    exchange: Items<u8>,
}

/// Two items and no end.
fn endless(watched: Watched) -> Pin<Box<dyn Stream<Item = Result<u8, Fault>> + Send>> {
    let more = stream::once_future(async move {
        let _watched = watched;
        pending().await
    });
    Box::pin(stream::iter([Ok(1), Ok(2)]).chain(more))
}

impl Providing {
    async fn new(client: Client) -> Self {
        let provided = client.open("math").await.unwrap();
        Self::on(client, provided).await
    }

    async fn on(client: Client, provided: Channel) -> Self {
        let (watched, dropped) = watch();
        let never = async |_watched: Watched, _: Request<()>| pending::<Result<u8, Fault>>().await;
        let feed = {
            let watched = watched.clone();
            move |_: Request<()>| endless(watched.clone())
        };
        let trade = {
            let watched = watched.clone();
            move |_: Request<()>, _: Items<u8>| endless(watched.clone())
        };
        let provides = [
            provided.provide_with(watched, "never", never).await.unwrap(),
            provided.provide_stream("feed", feed).await.unwrap(),
            provided.provide_exchange("trade", trade).await.unwrap(),
        ];
        let tap = client.tap();
        Self { client, tap, dropped, _provided: (provided, provides) }
    }

    /// One of each is worked on.
    async fn is_asked(&mut self) {
        for kind in [TapKind::Call, TapKind::Stream, TapKind::Exchange] {
            assert_eq!(self.tap.next().await.unwrap().kind(), kind);
        }
    }

    /// It is told of each of the three why it ended, and its handlers are dropped.
    async fn sees(&mut self, why: Failure) {
        self.sees_one_of(&[why]).await;
    }

    /// The same, where it depends on who is first.
    async fn sees_one_of(&mut self, why: &[Failure]) {
        for _ in 0..3 {
            let copy = self.tap.next().await.unwrap();
            assert_eq!(copy.kind(), TapKind::Cancel);
            assert!(why.iter().any(|why| copy.error() == Some(&failed(*why))), "{:?}", copy.error());
            self.dropped.recv().await.unwrap();
        }
    }
}

impl Asked {
    async fn by(client: &Client) -> Self {
        let math = client.open("math").await.unwrap();
        Self::on(&math, None).await
    }

    /// With this long for the whole of each.
    async fn on(math: &Channel, total: Option<Duration>) -> Self {
        let (call, stream) = (math.call::<u8>("never", &()), math.stream::<u8>("feed", &()));
        let exchange = math.exchange::<u8, u8>("trade", &(), stream::pending::<u8>());
        let (call, stream, exchange) = match total {
            Some(total) => (call.deadline(total), stream.total_deadline(total), exchange.total_deadline(total)),
            None => (call, stream, exchange),
        };
        let mut call = [call.into_future()];
        make(&mut call).await;
        let [call] = call;
        let (mut stream, mut exchange) = (stream.await.unwrap(), exchange.await.unwrap());
        for items in [&mut stream, &mut exchange] {
            assert_eq!((items.next().await, items.next().await), (Some(Ok(1)), Some(Ok(2))));
        }
        Self { call, stream, exchange }
    }

    async fn end_with(self, why: Failure) {
        let Self { call, mut stream, mut exchange } = self;
        assert_eq!(call.await, Err(failed(why)));
        for items in [&mut stream, &mut exchange] {
            assert_eq!((items.next().await, items.next().await), (Some(Err(failed(why))), None));
        }
    }
}

/// ```text
///   caller ──relay──► hub ◄──relay── provider
/// ```
struct Running {
    hub: Hub,
    caller: (Client, Relay),
    provider: (Providing, Relay),
    asked: Asked,
}

impl Running {
    async fn new(scene: &Scene) -> Self {
        let hub = scene.bare_hub().listen(&scene.url("hub.sock")).secret(Secret::key(KEY)).await.unwrap();
        let caller = through_relay(scene, &hub, "caller").await;
        let (provider, relay) = through_relay(scene, &hub, "provider").await;
        let mut provider = Providing::new(provider).await;
        let asked = Asked::by(&caller.0).await;
        provider.is_asked().await;
        Self { hub, caller, provider: (provider, relay), asked }
    }
}

async fn through_relay(scene: &Scene, hub: &Hub, id: &str) -> (Client, Relay) {
    let relay = Relay::start(&hub.urls()[0], &scene.path(&format!("{id}.sock")));
    let client = client(scene, relay.url(), id).await;
    (client, relay)
}

async fn client(scene: &Scene, url: &str, id: &str) -> Client {
    scene.bare_client(url).id(id).secret(Secret::key(KEY)).await.unwrap()
}

/// It may have been carried out.
const fn failed(failure: Failure) -> CallError {
    CallError::Failed { failure, maybe_executed: true }
}

async fn d7_s49_endings_of_what_its_caller_gives_up(scene: Scene) {
    let Running { hub: _hub, caller, provider: (mut provider, _), asked } = Running::new(&scene).await;
    let given_up = Instant::now();
    drop(asked);
    provider.sees(Failure::Local(Misuse::Cancelled)).await;
    assert!(given_up.elapsed() < PROMPTLY, "its handlers went on for {:?}", given_up.elapsed());
    caller.0.broadcast("math", "news", &1).await.expect("the connection stands");
}

/// The caller says when it is tired of waiting; the others know the time as well, and may be first to see that it is over.
async fn d7_s37_s51_endings_of_what_takes_longer_than_its_deadline(scene: Scene) {
    const TOTAL: Duration = Duration::from_secs(3);
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).secret(Secret::key(KEY)).await.unwrap();
    let mut provider = Providing::new(client(&scene, &hub.urls()[0], "provider").await).await;
    let caller = client(&scene, &hub.urls()[0], "caller").await;
    let (math, begun) = (caller.open("math").await.unwrap(), Instant::now());
    let asked = Asked::on(&math, Some(TOTAL)).await;
    provider.is_asked().await;
    asked.end_with(Failure::Local(Misuse::Deadline)).await;
    assert!(begun.elapsed() >= TOTAL, "they ended after {:?}", begun.elapsed());
    provider.sees_one_of(&[Failure::Local(Misuse::Cancelled), Failure::Refused(Refusal::Deadline)]).await;
    assert!(begun.elapsed() < TOTAL + PROMPTLY, "its handlers went on for {:?}", begun.elapsed());
}

async fn s26_s51_endings_of_what_runs_when_its_channels_password_changes(scene: Scene) {
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).secret(Secret::key(KEY)).await.unwrap();
    let [owner, provider, caller] = ["owner", "provider", "caller"].map(|id| client(&scene, &hub.urls()[0], id));
    let (owner, provider, caller) = (owner.await, provider.await, caller.await);
    let [old, new] = [1, 2].map(|number| Secret::key([number; 32]));
    let owned = owner.open("math").await.unwrap();
    owned.protect_with(old.clone()).await.unwrap();
    let provided = provider.open("math").secret(old.clone()).await.unwrap();
    let mut provider = Providing::on(provider, provided).await;
    let math = caller.open("math").secret(old).await.unwrap();
    let asked = Asked::on(&math, None).await;
    provider.is_asked().await;
    owned.protect_with(new.clone()).await.unwrap();
    let rekeyed = Failure::Refused(Refusal::Rekeyed);
    provider.sees(rekeyed).await;
    asked.end_with(rekeyed).await;
    assert_eq!(math.closed().await, rekeyed);
    // With the new one it goes on.
    let math = caller.open("math").secret(new).await.unwrap();
    math.broadcast("news", &1).await.unwrap();
}

async fn d7_s51_endings_of_what_runs_when_its_providers_link_drops(scene: Scene) {
    let Running { hub, caller, provider: (mut provider, link), asked } = Running::new(&scene).await;
    link.cut();
    provider.sees(Failure::Local(Misuse::Disconnected)).await;
    assert_eq!(provider.client.closed().await, CloseReason::Lost);
    asked.end_with(Failure::Refused(Refusal::ProviderGone)).await;
    assert_eq!(caller.0.hub_id(), hub.id(), "its own connection stands");
    caller.0.broadcast("math", "news", &1).await.unwrap();
}

/// It says nothing any more, and hears nothing: only the system tells the hub.
async fn d7_s51_endings_of_what_runs_when_its_provider_dies(scene: Scene) {
    let Running { hub: _hub, caller, provider: (provider, link), asked } = Running::new(&scene).await;
    link.cut_from_hub();
    asked.end_with(Failure::Refused(Refusal::ProviderGone)).await;
    assert!(provider.dropped.try_recv().is_err(), "who is dead does nothing");
    let again = caller.0.call::<u8>("math", "never", &()).await;
    let failure = Failure::Refused(Refusal::NoProvider);
    assert_eq!(again, Err(CallError::Failed { failure, maybe_executed: false }));
}

async fn d7_s51_endings_of_what_runs_when_its_callers_link_drops(scene: Scene) {
    let Running { hub: _hub, caller: (caller, link), provider: (mut provider, _), asked } = Running::new(&scene).await;
    link.cut();
    provider.sees(Failure::Refused(Refusal::CallerGone)).await;
    assert_eq!(caller.closed().await, CloseReason::Lost);
    asked.end_with(Failure::Local(Misuse::Disconnected)).await;
    provider.client.broadcast("math", "news", &1).await.expect("its own connection stands");
}

/// ```text
///   caller, a process that is killed ──► hub ◄── provider
/// ```
async fn d7_s51_endings_of_what_runs_when_its_caller_is_killed(scene: Scene) {
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).secret(Secret::key(KEY)).await.unwrap();
    let url = hub.urls()[0].clone();
    let mut provider = Providing::new(client(&scene, &url, "provider").await).await;
    let adapter = scene.adapter();
    // The hub has this thread meanwhile.
    let (caller, _) = smol::unblock(move || Puppet::start(adapter, "caller", &url, None)).await;
    provider.is_asked().await;
    let killed = Instant::now();
    drop(caller);
    provider.sees(Failure::Refused(Refusal::CallerGone)).await;
    assert!(killed.elapsed() < PROMPTLY, "its handlers went on for {:?}", killed.elapsed());
    provider.client.broadcast("math", "news", &1).await.expect("its own connection stands");
}

/// ```text
///   caller ──► hub, a process that is killed ◄── provider
/// ```
async fn d7_s51_endings_of_what_runs_when_its_hub_is_killed(scene: Scene) {
    let (hub, url) = Puppet::start(scene.adapter(), "hub", &scene.url("hub.sock"), None);
    let mut provider = Providing::new(client(&scene, &url, "provider").await).await;
    let caller = client(&scene, &url, "caller").await;
    let asked = Asked::by(&caller).await;
    provider.is_asked().await;
    let killed = Instant::now();
    drop(hub);
    provider.sees(Failure::Local(Misuse::Disconnected)).await;
    asked.end_with(Failure::Local(Misuse::Disconnected)).await;
    assert!(killed.elapsed() < PROMPTLY, "they waited for {:?}", killed.elapsed());
    for client in [&provider.client, &caller] {
        assert_eq!(client.closed().await, CloseReason::Lost);
    }
}
