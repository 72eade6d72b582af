//! That passwords are stretched once: what was derived of one is kept for as long as the same is asked for, however often a
//! connection comes back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use commipc_protocol::Instant;
use commipc_runtime::{
    Acceptor, BoxFuture, Client, ClientBuilder, Connection, ConnectionState, Endpoint, Reconnect, Runtime, Secret,
};
use tokio::runtime::Handle;

use crate::scene::{Scene, TOKIO, Transport, run};

/// A runtime on tokio that counts the work handed to it that takes long: nothing of a client's does but deriving keys.
struct Counting {
    tokio: Handle,
    derived: AtomicU64,
}

impl Runtime for Counting {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tokio.spawn(task);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.derived.fetch_add(1, Ordering::Relaxed);
        self.tokio.spawn_blocking(work);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let _inside = self.tokio.enter();
        let wait = Duration::from_nanos(at.as_nanos().saturating_sub(self.now().as_nanos()));
        Box::pin(tokio::time::sleep(wait))
    }

    fn dial(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move {
            let Endpoint::Unix(path) = to else { return Err(io::ErrorKind::Unsupported.into()) };
            Ok(commipc_tokio::stream(tokio::net::UnixStream::connect(path).await?))
        })
    }

    fn listen(&self, _: Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

#[test]
fn s71_what_was_derived_of_passwords_is_not_derived_again_when_a_connection_comes_back() {
    run(TOKIO, Transport::Unix, derives_once);
}

async fn derives_once(scene: Scene) {
    let shared = || Secret::password("of all clients");
    // It remembers its salts, and the channel's.
    let begin = async || scene.hub().secret(shared()).state_dir(scene.path("state")).await.unwrap();
    let mut hub = begin().await;
    let url = hub.urls()[0].to_string();
    let mut soon = Reconnect::default();
    (soon.first, soon.longest) = (Duration::from_millis(20), Duration::from_millis(100));
    let owner = scene.bare_client(&url).id("owner").secret(shared()).reconnect(soon).await.unwrap();
    let vault = owner.open("vault").await.unwrap();
    vault.protect("of the vault").await.unwrap();

    let counting = Arc::new(Counting { tokio: Handle::current(), derived: AtomicU64::new(0) });
    let derived = || counting.derived.load(Ordering::Relaxed);
    let runtime: Arc<dyn Runtime> = Arc::<Counting>::clone(&counting);
    let member = ClientBuilder::new(runtime, &url).id("member").secret(shared()).reconnect(soon).await.unwrap();
    let joined = member.open("vault").password("of the vault").await.unwrap();
    let mut news = joined.listen::<u32>("news").await.unwrap();
    assert_eq!(derived(), 2, "one of each password");
    for round in 0..3 {
        let mut states = [&owner, &member].map(Client::states);
        for states in &mut states {
            assert_eq!(states.next().await, Some(ConnectionState::Ready));
        }
        hub.shutdown().await;
        drop(hub);
        hub = begin().await;
        for states in &mut states {
            while states.next().await != Some(ConnectionState::Ready) {}
        }
        vault.broadcast("news", &round).await.unwrap();
        assert_eq!(*news.next().await.unwrap(), round);
        assert_eq!(derived(), 2, "round {round}");
    }
    // Another password is another derivation, or the count would prove nothing.
    vault.protect("of the vault, and new").await.unwrap();
    joined.closed().await;
    let _again = member.open("vault").password("of the vault, and new").await.unwrap();
    assert_eq!(derived(), 3);
}
