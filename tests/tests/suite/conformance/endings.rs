//! What the lines of `docs/endings.md` say of connections that drop and of programs that die, with a call, a stream and an
//! exchange under way at a time.

use std::future::pending;
use std::pin::Pin;

use commipc_runtime::{
    CallError, Channel, Client, CloseReason, Failure, Fault, Hub, Items, Misuse, PendingCall, Provider, Refusal,
    Request, Secret, Tap, TapKind,
};
use smol::channel::Receiver;
use smol::stream::{self, Stream, StreamExt as _};

use crate::relay::Relay;
use crate::scene::{KEY, Scene, Watched, make, over_all, watch};

over_all! {
    d7_s51_endings_of_what_runs_when_its_providers_link_drops,
    d7_s51_endings_of_what_runs_when_its_provider_dies,
    d7_s51_endings_of_what_runs_when_its_callers_link_drops,
}

/// ```text
///   caller ──relay──► hub ◄──relay── provider
/// ```
struct Running {
    hub: Hub,
    caller: (Client, Relay),
    provider: (Client, Relay),
    /// What is asked, and how the handlers hear that it is over.
    asked: Asked,
    dropped: Receiver<()>,
    tap: Tap,
    _provided: (Channel, [Provider; 3]),
}

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

impl Running {
    async fn new(scene: &Scene) -> Self {
        let hub = scene.bare_hub().listen(&scene.url("hub.sock")).secret(Secret::key(KEY)).await.unwrap();
        let caller = through_relay(scene, &hub, "caller").await;
        let provider = through_relay(scene, &hub, "provider").await;
        let provided = provider.0.open("math").await.unwrap();
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
        let mut tap = provider.0.tap();
        let math = caller.0.open("math").await.unwrap();
        let mut call = [math.call::<u8>("never", &()).into_future()];
        make(&mut call).await;
        let [call] = call;
        let mut stream = math.stream::<u8>("feed", &()).await.unwrap();
        let mut exchange = math.exchange::<u8, u8>("trade", &(), stream::pending::<u8>()).await.unwrap();
        for items in [&mut stream, &mut exchange] {
            assert_eq!((items.next().await, items.next().await), (Some(Ok(1)), Some(Ok(2))));
        }
        for kind in [TapKind::Call, TapKind::Stream, TapKind::Exchange] {
            assert_eq!(tap.next().await.unwrap().kind(), kind);
        }
        let asked = Asked { call, stream, exchange };
        Self { hub, caller, provider, asked, dropped, tap, _provided: (provided, provides) }
    }

    /// The provider is told of each of the three why it ended, and its handlers are dropped.
    async fn provider_sees(&mut self, why: Failure) {
        for _ in 0..3 {
            let copy = self.tap.next().await.unwrap();
            assert_eq!((copy.kind(), copy.error()), (TapKind::Cancel, Some(&failed(why))));
            self.dropped.recv().await.unwrap();
        }
    }
}

impl Asked {
    async fn end_with(self, why: Failure) {
        let Self { call, mut stream, mut exchange } = self;
        assert_eq!(call.await, Err(failed(why)));
        for items in [&mut stream, &mut exchange] {
            assert_eq!((items.next().await, items.next().await), (Some(Err(failed(why))), None));
        }
    }
}

async fn through_relay(scene: &Scene, hub: &Hub, id: &str) -> (Client, Relay) {
    let relay = Relay::start(&hub.urls()[0], &scene.path(&format!("{id}.sock")));
    let client = scene.bare_client(relay.url()).id(id).secret(Secret::key(KEY)).await.unwrap();
    (client, relay)
}

/// It may have been carried out.
const fn failed(failure: Failure) -> CallError {
    CallError::Failed { failure, maybe_executed: true }
}

async fn d7_s51_endings_of_what_runs_when_its_providers_link_drops(scene: Scene) {
    let mut running = Running::new(&scene).await;
    running.provider.1.cut();
    running.provider_sees(Failure::Local(Misuse::Disconnected)).await;
    assert_eq!(running.provider.0.closed().await, CloseReason::Lost);
    running.asked.end_with(Failure::Refused(Refusal::ProviderGone)).await;
    assert_eq!(running.caller.0.hub_id(), running.hub.id(), "its own connection stands");
    running.caller.0.broadcast("math", "news", &1).await.unwrap();
}

/// It says nothing any more, and hears nothing: only the system tells the hub.
async fn d7_s51_endings_of_what_runs_when_its_provider_dies(scene: Scene) {
    let running = Running::new(&scene).await;
    running.provider.1.cut_from_hub();
    running.asked.end_with(Failure::Refused(Refusal::ProviderGone)).await;
    assert!(running.dropped.try_recv().is_err(), "who is dead does nothing");
    let again = running.caller.0.call::<u8>("math", "never", &()).await;
    let failure = Failure::Refused(Refusal::NoProvider);
    assert_eq!(again, Err(CallError::Failed { failure, maybe_executed: false }));
}

async fn d7_s51_endings_of_what_runs_when_its_callers_link_drops(scene: Scene) {
    let mut running = Running::new(&scene).await;
    running.caller.1.cut();
    running.provider_sees(Failure::Refused(Refusal::CallerGone)).await;
    assert_eq!(running.caller.0.closed().await, CloseReason::Lost);
    running.asked.end_with(Failure::Local(Misuse::Disconnected)).await;
    running.provider.0.broadcast("math", "news", &1).await.expect("its own connection stands");
}
