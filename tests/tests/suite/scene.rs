//! A place where a script runs: an adapter with its runtime, a transport, and a directory of its own.
//!
//! Scripts are written once, against handles that are the same for every runtime; `over_all!` makes a test of each for
//! every adapter and transport.

use std::future::{Future, poll_fn};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use commipc_blocking::Wait as _;
use commipc_runtime::{
    BoxFuture, BridgeBuilder, Channel, Client, ClientBuilder, Connection, Hub, HubBuilder, HubError, PendingCall,
    Secret,
};
use smol::channel::{Receiver, Sender, unbounded};

/// Longer than any script takes on a busy machine. One that waits so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// What hubs on TCP are started with: they have no socket to lay a key beside.
pub(crate) const KEY: [u8; 32] = [7; 32];

/// What an adapter adds to the common handles, and how its runtime runs a script.
#[derive(Clone, Copy)]
pub(crate) struct Adapter {
    pub(crate) name: &'static str,
    hub: fn() -> HubBuilder,
    client: fn(&str) -> ClientBuilder,
    bridge: fn(&str, &str) -> BridgeBuilder,
    /// Of a socket, once it is a stream of the runtime.
    stream: fn(UnixStream) -> Connection,
    run: fn(BoxFuture<'static, ()>),
    thread: fn(BoxFuture<'static, ()>),
}

pub(crate) const TOKIO: Adapter = Adapter {
    name: "tokio",
    hub: commipc_tokio::hub,
    client: commipc_tokio::client,
    bridge: commipc_tokio::bridge,
    stream: |socket| commipc_tokio::stream(tokios(socket)),
    run: on_tokio,
    thread: tokio_thread,
};
pub(crate) const SMOL: Adapter = Adapter {
    name: "smol",
    hub: commipc_smol::hub,
    client: commipc_smol::client,
    bridge: commipc_smol::bridge,
    stream: |socket| commipc_smol::stream(smol::Async::new(socket).unwrap()),
    run: on_smol,
    thread: smol_thread,
};

/// Only its adapter may depend on async-std, whose tasks can be awaited from anywhere.
pub(crate) const ASYNC_STD: Adapter = Adapter {
    name: "async-std",
    hub: commipc_async_std::hub,
    client: commipc_async_std::client,
    bridge: commipc_async_std::bridge,
    stream: |socket| commipc_async_std::stream(smol::Async::new(socket).unwrap()),
    run: on_smol,
    thread: smol_thread,
};

/// Without async, but for the scripts, which are the same.
pub(crate) const BLOCKING: Adapter = Adapter {
    name: "blocking",
    hub: commipc_blocking::hub,
    client: commipc_blocking::client,
    bridge: commipc_blocking::bridge,
    stream: |socket| commipc_blocking::stream(smol::Async::new(socket).unwrap()),
    run: on_threads,
    thread: plain_thread,
};

pub(crate) const ADAPTERS: [Adapter; 4] = [TOKIO, SMOL, ASYNC_STD, BLOCKING];

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Unix,
    Tcp,
}

/// One test for each script, adapter and transport. A script that is not listed is dead code, which no build allows.
macro_rules! over_all {
    ($($script:ident,)+) => {
        $crate::scene::over!(tokio_unix, TOKIO, Unix; $($script,)+);
        $crate::scene::over!(tokio_tcp, TOKIO, Tcp; $($script,)+);
        $crate::scene::over!(smol_unix, SMOL, Unix; $($script,)+);
        $crate::scene::over!(smol_tcp, SMOL, Tcp; $($script,)+);
        $crate::scene::over!(async_std_unix, ASYNC_STD, Unix; $($script,)+);
        $crate::scene::over!(async_std_tcp, ASYNC_STD, Tcp; $($script,)+);
        $crate::scene::over!(blocking_unix, BLOCKING, Unix; $($script,)+);
        $crate::scene::over!(blocking_tcp, BLOCKING, Tcp; $($script,)+);
    };
}

macro_rules! over {
    ($name:ident, $adapter:ident, $transport:ident; $($script:ident,)+) => {
        mod $name {
            $(
                #[test]
                fn $script() {
                    use $crate::scene::{$adapter, Transport, run};
                    run($adapter, Transport::$transport, super::$script);
                }
            )+
        }
    };
}

/// One test for each script and adapter, where one transport will do or the script brings its own.
macro_rules! over_adapters {
    ($transport:ident; $($script:ident,)+) => {
        $crate::scene::over!(on_tokio, TOKIO, $transport; $($script,)+);
        $crate::scene::over!(on_smol, SMOL, $transport; $($script,)+);
        $crate::scene::over!(on_async_std, ASYNC_STD, $transport; $($script,)+);
        $crate::scene::over!(on_threads, BLOCKING, $transport; $($script,)+);
    };
}
pub(crate) use {over, over_adapters, over_all};

/// Runs a script to its end.
pub(crate) fn run<F: Future<Output = ()> + Send + 'static>(
    adapter: Adapter,
    transport: Transport,
    script: impl FnOnce(Scene) -> F,
) {
    let scene = Scene { adapter, transport, dir: Arc::new(tempfile::tempdir().unwrap()), host: Arc::default() };
    (adapter.run)(Box::pin(script(scene)));
}

fn on_tokio(script: BoxFuture<'static, ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, tokio::spawn(script)).await });
    match done.expect("the script hangs") {
        Ok(()) => {}
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn on_smol(script: BoxFuture<'static, ()>) {
    smol::block_on(smol::future::or(script, async {
        smol::Timer::after(PATIENCE).await;
        panic!("the script hangs");
    }));
}

fn on_threads(script: BoxFuture<'static, ()>) {
    script.wait_for(PATIENCE).expect("the script hangs");
}

fn tokios(socket: UnixStream) -> tokio::net::UnixStream {
    socket.set_nonblocking(true).unwrap();
    tokio::net::UnixStream::from_std(socket).unwrap()
}

fn tokio_thread(task: BoxFuture<'static, ()>) {
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || runtime.block_on(task));
}

fn smol_thread(task: BoxFuture<'static, ()>) {
    std::thread::spawn(move || smol::block_on(task));
}

fn plain_thread(task: BoxFuture<'static, ()>) {
    std::thread::spawn(move || task.wait());
}

/// Where one script runs.
pub(crate) struct Scene {
    adapter: Adapter,
    pub(crate) transport: Transport,
    dir: Arc<tempfile::TempDir>,
    host: Arc<std::sync::OnceLock<u16>>,
}

impl Scene {
    /// Another scene of the same kind.
    pub(crate) fn again(&self) -> Self {
        Self {
            adapter: self.adapter,
            transport: self.transport,
            dir: Arc::new(tempfile::tempdir().unwrap()),
            host: Arc::default(),
        }
    }

    /// The same place on another adapter.
    pub(crate) fn on(&self, adapter: Adapter) -> Self {
        Self { adapter, transport: self.transport, dir: Arc::clone(&self.dir), host: Arc::clone(&self.host) }
    }

    /// The adapter it is on.
    pub(crate) fn adapter(&self) -> &'static str {
        self.adapter.name
    }

    /// Both ends of a stream of this scene's runtime.
    pub(crate) fn streams(&self) -> (Connection, Connection) {
        let (one, other) = UnixStream::pair().unwrap();
        ((self.adapter.stream)(one), (self.adapter.stream)(other))
    }

    /// A file of this scene.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where a hub of this scene listens; on TCP any port, of an address that no client takes one of.
    pub(crate) fn url(&self, name: &str) -> String {
        match self.transport {
            Transport::Unix => format!("unix:{}", self.path(name).display()),
            Transport::Tcp => format!("tcp://{}:0", self.host()),
        }
    }

    /// An address of this machine that no other scene uses, so that a port which was ours is still free.
    fn host(&self) -> std::net::Ipv4Addr {
        static SCENES: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1);
        let number = *self.host.get_or_init(|| SCENES.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let [high, low] = number.to_be_bytes();
        std::net::Ipv4Addr::new(127, 77, high, low)
    }

    /// A hub without URL and secret.
    pub(crate) fn bare_hub(&self) -> HubBuilder {
        (self.adapter.hub)()
    }

    /// A client without a secret, whose connection does not come back.
    pub(crate) fn bare_client(&self, url: &str) -> ClientBuilder {
        (self.adapter.client)(url).no_reconnect()
    }

    /// A hub that listens, with the least that has to be configured: a key on TCP, nothing on a Unix socket.
    pub(crate) fn hub(&self) -> HubBuilder {
        let hub = self.bare_hub().listen(&self.url("hub.sock"));
        match self.transport {
            Transport::Unix => hub,
            Transport::Tcp => hub.secret(Secret::key(KEY)),
        }
    }

    /// A hub where another was.
    pub(crate) fn hub_at(&self, url: &str) -> HubBuilder {
        let hub = self.bare_hub().listen(url);
        match self.transport {
            Transport::Unix => hub,
            Transport::Tcp => hub.secret(Secret::key(KEY)),
        }
    }

    /// A bridge without secrets.
    pub(crate) fn bridge(&self, a: &str, b: &str) -> BridgeBuilder {
        (self.adapter.bridge)(a, b)
    }

    /// A client of a hub that was made by [`Scene::hub`].
    pub(crate) fn client(&self, hub: &Hub, id: &str) -> ClientBuilder {
        let client = self.bare_client(&hub.urls()[0]).id(id);
        match self.transport {
            Transport::Unix => client,
            Transport::Tcp => client.secret(Secret::key(KEY)),
        }
    }

    /// Starts hubs on threads of their own, all at the same moment.
    pub(crate) async fn start_at_once(&self, builders: Vec<HubBuilder>) -> Vec<Result<Hub, HubError>> {
        let (started, starts) = unbounded();
        let count = builders.len();
        let together = Arc::new(std::sync::Barrier::new(count));
        for builder in builders {
            let (started, together) = (started.clone(), Arc::clone(&together));
            (self.adapter.thread)(Box::pin(async move {
                together.wait();
                started.send(builder.await).await.unwrap();
            }));
        }
        let mut hubs = Vec::new();
        for _ in 0..count {
            hubs.push(starts.recv().await.unwrap());
        }
        hubs
    }

    /// A hub that runs, with a provider's and a consumer's channel named `math`.
    pub(crate) async fn cast(&self) -> Cast {
        let hub = self.hub().await.unwrap();
        let provider = self.client(&hub, "provider").await.unwrap();
        let consumer = self.client(&hub, "consumer").await.unwrap();
        let (provided, math) = (provider.open("math").await.unwrap(), consumer.open("math").await.unwrap());
        Cast { hub, provider, consumer, provided, math }
    }
}

/// Who takes part in most scripts.
pub(crate) struct Cast {
    pub(crate) hub: Hub,
    pub(crate) provider: Client,
    pub(crate) consumer: Client,
    /// The provider's handle of the channel.
    pub(crate) provided: Channel,
    /// The consumer's.
    pub(crate) math: Channel,
}

/// Tells when it is dropped, so that a script can wait for the end of a handler's future.
pub(crate) struct Watched(Sender<()>);

/// Hears of dropped [`Watched`]s.
pub(crate) fn watch() -> (Watched, Receiver<()>) {
    let (sender, receiver) = unbounded();
    (Watched(sender), receiver)
}

impl Clone for Watched {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

/// Polls calls once, which makes them, and no more: their answers wait.
pub(crate) async fn make<R>(calls: &mut [PendingCall<R>]) {
    poll_fn(|cx| {
        for call in calls.iter_mut() {
            assert!(Pin::new(call).poll(cx).is_pending(), "an answer cannot be there yet");
        }
        Poll::Ready(())
    })
    .await;
}
