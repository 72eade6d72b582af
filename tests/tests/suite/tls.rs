//! Connections that a program makes itself: TLS with certificates of both sides, pipes, whatever is a stream of bytes.
//!
//! ```text
//!   client ──► dialer ──► TLS ══════ TCP ══════ TLS ──► attach ──► hub
//! ```

use std::collections::VecDeque;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use commipc_runtime::{
    Away, Channel, Client, ClientBuilder, ConnectError, ConnectionState, Fault, Limits, Reconnect, Request, Secret,
    Side,
};
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use futures_rustls::rustls::server::WebPkiClientVerifier;
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use smol::net::TcpListener;

use crate::scene::{KEY, Scene};

// [readme]
use std::io;
use std::time::Duration;

use commipc_smol::{Connection, Endpoint, Hub};
use futures_rustls::rustls::pki_types::ServerName;
use futures_rustls::{TlsAcceptor, TlsConnector};
use smol::future::FutureExt as _;
use smol::net::TcpStream;
// [readme]

crate::scene::over_adapters! {
    Tcp;
    s84_hub_and_client_talk_over_tls,
    s84_who_ends_two_tls_sessions_in_between_passes_no_login_on,
    s84_a_client_over_tls_comes_back,
    s74_s84_a_bridge_joins_hubs_over_tls,
    pipes_of_memory_carry_a_connection,
    streams_of_the_runtime_carry_a_connection,
    a_connection_that_was_handed_over_is_the_only_one,
    v23_strangers_are_bounded_by_the_source_that_a_connection_is_said_to_have,
}

/// One certificate for everybody, which is the only one that is believed: for `hub.test`, until 2120.
const CERTIFICATE: &[u8] = include_bytes!("../tls/cert.der");
const PRIVATE_KEY: &[u8] = include_bytes!("../tls/key.der");

fn certificate() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    (vec![CertificateDer::from(CERTIFICATE)], PrivatePkcs8KeyDer::from(PRIVATE_KEY).into())
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(CERTIFICATE)).unwrap();
    roots
}

fn acceptor() -> TlsAcceptor {
    let (chain, key) = certificate();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots())).build().unwrap();
    let versions = ServerConfig::builder_with_protocol_versions(&[&version::TLS13]);
    let config = versions.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn connector() -> TlsConnector {
    let (chain, key) = certificate();
    let versions = ClientConfig::builder_with_protocol_versions(&[&version::TLS13]);
    let config = versions.with_root_certificates(roots()).with_client_auth_cert(chain, key).unwrap();
    TlsConnector::from(Arc::new(config))
}

// [readme]
/// What RFC 9266 binds a login to.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";
/// How long the other side may take for its part of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The hub's side: TLS on what was accepted, then it is the hub's. Call it in a task for each connection.
async fn serve(hub: &Hub, tls: &TlsAcceptor, tcp: TcpStream) -> io::Result<()> {
    let source = tcp.peer_addr()?.ip();
    // The hub has limits of its own for strangers, and they begin behind this one.
    let late = async {
        smol::Timer::after(HANDSHAKE).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let stream = tls.accept(tcp).or(late).await?;
    let binding = stream.get_ref().1.export_keying_material([0; 32], EXPORTER, Some(b"")).map_err(io::Error::other)?;
    hub.attach(Connection::over(stream).bound_to(binding).from_source(source));
    Ok(())
}

/// The client's side: how each of its connections is made, with `client(url).dialer(…)`.
async fn dial(tls: TlsConnector, to: Endpoint) -> io::Result<Connection> {
    let Endpoint::Tcp { host, port } = &to else { return Err(to.unsupported()) };
    let tcp = TcpStream::connect((host.as_str(), *port)).await?;
    let name = ServerName::try_from("hub.test").map_err(io::Error::other)?;
    let stream = tls.connect(name, tcp).await?;
    let binding = stream.get_ref().1.export_keying_material([0; 32], EXPORTER, Some(b"")).map_err(io::Error::other)?;
    Ok(Connection::over(stream).bound_to(binding))
}
// [readme]

/// A hub that listens nowhere, and the URL where TLS in front of it does.
async fn hub_over_tls(scene: &Scene) -> (Hub, String) {
    let hub = scene.bare_hub().listen_nowhere().secret(Secret::key(KEY)).bridge_secret(Secret::key(BRIDGE));
    let hub = hub.await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let served = hub.clone();
    smol::spawn(async move {
        let tls = acceptor();
        while let Ok((tcp, _)) = listener.accept().await {
            let (served, tls) = (served.clone(), tls.clone());
            // A stranger without a certificate is none of the hub's business.
            smol::spawn(async move { serve(&served, &tls, tcp).await }).detach();
        }
    })
    .detach();
    (hub, url)
}

/// What bridges know.
const BRIDGE: [u8; 32] = [9; 32];

async fn s74_s84_a_bridge_joins_hubs_over_tls(scene: Scene) {
    let ((a, a_url), (b, b_url)) = (hub_over_tls(&scene).await, hub_over_tls(&scene).await);
    let (provider, consumer) =
        (over_tls(&scene, &a_url, "provider").await.unwrap(), over_tls(&scene, &b_url, "consumer").await.unwrap());
    let provided = provider.open("math").await.unwrap();
    let _double = provided.provide("double", async |r: Request<u32>| Ok::<_, Fault>(2 * *r)).await.unwrap();
    let (tls, dials) = (connector(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&dials);
    let bridge = scene.bridge(&a_url, &b_url).dialer(move |to| {
        counted.fetch_add(1, Ordering::Relaxed);
        dial(tls.clone(), to)
    });
    let bridge = bridge.secret(Side::A, Secret::key(BRIDGE)).secret(Side::B, Secret::key(BRIDGE)).await.unwrap();
    let (hub_a, hub_b) = bridge.hubs().unwrap();
    assert_eq!((&hub_a, &hub_b, dials.load(Ordering::Relaxed)), (a.id(), b.id(), 2));
    let math = consumer.open("math").await.unwrap();
    assert_eq!(math.call::<u32>("double", &21).await.unwrap(), 42);
}

fn over_tls(scene: &Scene, url: &str, id: &str) -> ClientBuilder {
    let tls = connector();
    scene.bare_client(url).id(id).secret(Secret::key(KEY)).dialer(move |to| dial(tls.clone(), to))
}

/// Something of every kind: small and large calls, a stream, a broadcast.
async fn converse(provider: &Client, consumer: &Client) {
    let (provided, math) = (provider.open("math").await.unwrap(), consumer.open("math").await.unwrap());
    let _double = provided.provide("double", async |r: Request<u32>| Ok::<_, Fault>(2 * *r)).await.unwrap();
    let _echo = provided.provide_raw("echo", async |r: Request<Bytes>| Ok::<_, Fault>((*r).clone())).await.unwrap();
    let items = |limit: Request<u32>| smol::stream::iter((0..*limit).map(Ok::<_, Fault>));
    let _count = provided.provide_stream("count", items).await.unwrap();
    assert_eq!(math.call::<u32>("double", &21).await.unwrap(), 42);
    let large = Bytes::from((0..900_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    let echoes: Vec<_> = (0..4).map(|_| math.call_raw("echo", large.clone()).into_future()).collect();
    for echo in echoes {
        assert!(echo.await.unwrap() == large, "what comes back is what was sent");
    }
    let mut count = math.stream::<u32>("count", &2_000).await.unwrap();
    let mut expected = 0;
    while let Some(number) = count.try_next().await.unwrap() {
        assert_eq!(number, expected);
        expected += 1;
    }
    assert_eq!(expected, 2_000);
    let mut news = math.listen::<u32>("news").await.unwrap();
    provided.broadcast("news", &3).await.unwrap();
    assert_eq!(*news.next().await.unwrap(), 3);
}

async fn s84_hub_and_client_talk_over_tls(scene: Scene) {
    let (hub, url) = hub_over_tls(&scene).await;
    let provider = over_tls(&scene, &url, "provider").await.unwrap();
    let (_, address) = url.split_once("//").unwrap();
    let _silent = TcpStream::connect(address).await.unwrap();
    let consumer = over_tls(&scene, &url, "consumer").await.unwrap();
    converse(&provider, &consumer).await;
    // Without TLS nobody is heard: this one waits for an answer until its handshake is over.
    let plain = scene.bare_client(&url).secret(Secret::key(KEY)).await;
    assert!(plain.is_err(), "a client without TLS is let in: {plain:?}");
    hub.shutdown().await;
}

async fn s84_who_ends_two_tls_sessions_in_between_passes_no_login_on(scene: Scene) {
    let (_hub, url) = hub_over_tls(&scene).await;
    // It has the hub's certificate and its key: the worst there is.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = format!("tcp://{}", listener.local_addr().unwrap());
    let (_, address) = url.split_once("//").unwrap();
    let address = address.to_owned();
    smol::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let heard = acceptor().accept(tcp).await.unwrap();
            let onward = TcpStream::connect(&address).await.unwrap();
            let spoken = connector().connect(ServerName::try_from("hub.test").unwrap(), onward).await.unwrap();
            let ((from, to), (back_from, back_to)) = (smol::io::split(heard), smol::io::split(spoken));
            smol::spawn(async move { drop(smol::io::copy(from, back_to).await) }).detach();
            smol::spawn(async move { drop(smol::io::copy(back_from, to).await) }).detach();
        }
    })
    .detach();
    let deceived = over_tls(&scene, &between, "deceived").await;
    assert!(matches!(deceived, Err(ConnectError::Refused(_) | ConnectError::Violation(_))), "{deceived:?}");
    let _direct = over_tls(&scene, &url, "direct").await.unwrap();
}

async fn s84_a_client_over_tls_comes_back(scene: Scene) {
    let (hub, url) = hub_over_tls(&scene).await;
    let dials = Arc::new(AtomicUsize::new(0));
    let (counted, tls) = (Arc::clone(&dials), connector());
    let last: Arc<Mutex<Option<TcpStream>>> = Arc::default();
    let kept = Arc::clone(&last);
    let mut soon = Reconnect::default();
    (soon.first, soon.longest) = (Duration::from_millis(20), Duration::from_millis(100));
    let client = over_tls(&scene, &url, "provider").reconnect(soon).dialer(move |to| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (tls, kept) = (tls.clone(), Arc::clone(&kept));
        async move {
            let Endpoint::Tcp { host, port } = &to else { return Err(to.unsupported()) };
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            *kept.lock().unwrap() = Some(tcp.clone());
            let stream = tls.connect(ServerName::try_from("hub.test").unwrap(), tcp).await?;
            let binding = stream.get_ref().1.export_keying_material([0; 32], EXPORTER, Some(b"")).unwrap();
            Ok(Connection::over(stream).bound_to(binding))
        }
    });
    let provider = client.await.unwrap();
    let provided: Channel = provider.open("math").await.unwrap();
    let _double = provided.provide("double", async |r: Request<u32>| Ok::<_, Fault>(2 * *r)).await.unwrap();
    let consumer = over_tls(&scene, &url, "consumer").await.unwrap();
    let mut states = provider.states();
    assert_eq!(states.next().await, Some(ConnectionState::Ready));
    for round in 1..=3 {
        let cut = last.lock().unwrap().take().unwrap();
        cut.shutdown(std::net::Shutdown::Both).unwrap();
        while states.next().await != Some(ConnectionState::Ready) {}
        let answer = consumer.call::<u32>("math", "double", &round).while_away(Away::Wait).await;
        assert_eq!(answer.unwrap(), 2 * round);
    }
    assert_eq!(dials.load(Ordering::SeqCst), 4, "each connection is made by the program's function");
    hub.shutdown().await;
}

async fn pipes_of_memory_carry_a_connection(scene: Scene) {
    let hub = scene.bare_hub().listen_nowhere().secret(Secret::key(KEY)).await.unwrap();
    let connect = |id: &str| {
        let (ours, theirs) = pipes();
        hub.attach(theirs);
        scene.bare_client("memory:pipes").id(id).secret(Secret::key(KEY)).over(ours)
    };
    let (provider, consumer) = (connect("provider").await.unwrap(), connect("consumer").await.unwrap());
    converse(&provider, &consumer).await;
    provider.close().await;
}

async fn a_connection_that_was_handed_over_is_the_only_one(scene: Scene) {
    let hub = scene.bare_hub().listen_nowhere().secret(Secret::key(KEY)).await.unwrap();
    let (ours, theirs) = pipes();
    hub.attach(theirs);
    let client = scene.bare_client("memory:pipes").secret(Secret::key(KEY)).over(ours).await.unwrap();
    hub.shutdown().await;
    client.closed().await;
    assert!(client.is_closed());
    let unknown = scene.bare_client("memory:nowhere").secret(Secret::key(KEY)).await.unwrap_err();
    assert!(matches!(unknown, ConnectError::Unreachable { .. }), "{unknown:?}");
}

async fn v23_strangers_are_bounded_by_the_source_that_a_connection_is_said_to_have(scene: Scene) {
    let mut limits = Limits::default();
    limits.unauthenticated_per_source = 2;
    let hub = scene.bare_hub().listen_nowhere().limits(limits).secret(Secret::key(KEY)).await.unwrap();
    let stranger = |source: &str| {
        let ((to_hub, from_stranger), (to_stranger, from_hub)) = (pipe(), pipe());
        hub.attach(Connection::over_halves(from_stranger, to_stranger).from_source(source.parse().unwrap()));
        (to_hub, from_hub)
    };
    let _other = stranger("192.0.2.2");
    let (_to_hub, mut from_hub) = stranger("192.0.2.1");
    let _more = [stranger("192.0.2.1"), stranger("192.0.2.1")];
    from_hub.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(hub.load().links, 3, "one of three of the same source has to go");
    hub.shutdown().await;
}

async fn streams_of_the_runtime_carry_a_connection(scene: Scene) {
    let hub = scene.bare_hub().listen_nowhere().secret(Secret::key(KEY)).await.unwrap();
    let connect = |id: &str| {
        let (ours, theirs) = scene.streams();
        hub.attach(theirs);
        scene.bare_client("memory:stream").id(id).secret(Secret::key(KEY)).over(ours)
    };
    let (provider, consumer) = (connect("provider").await.unwrap(), connect("consumer").await.unwrap());
    converse(&provider, &consumer).await;
    hub.shutdown().await;
    consumer.closed().await;
}

/// Two ends of a pair of pipes of small pieces, each of which is flushed late: a stream that is as awkward as it may be.
fn pipes() -> (Connection, Connection) {
    let ((to_other, from_one), (to_one, from_other)) = (pipe(), pipe());
    (Connection::over_halves(from_other, to_other), Connection::over_halves(from_one, to_one))
}

fn pipe() -> (Out, In) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    (Out(Arc::clone(&pipe)), In(pipe))
}

#[derive(Default)]
struct Pipe {
    /// Written, and not flushed.
    held: Vec<u8>,
    bytes: VecDeque<u8>,
    over: bool,
    /// It was asked to flush once, and said later.
    asked: bool,
    wakers: Vec<Waker>,
}

/// A pipe takes few bytes at a time, and holds few.
const PIECE: usize = 1_000;
const HOLDS: usize = 3_000;

struct Out(Arc<Mutex<Pipe>>);
struct In(Arc<Mutex<Pipe>>);

impl Pipe {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncRead for In {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.lock().unwrap();
        if pipe.bytes.is_empty() && !pipe.over {
            return pipe.wait(cx);
        }
        pipe.wake();
        Poll::Ready(pipe.bytes.read(into))
    }
}

impl AsyncWrite for Out {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.lock().unwrap();
        if !pipe.held.is_empty() {
            return pipe.wait(cx);
        }
        let count = from.len().min(PIECE);
        pipe.held.extend_from_slice(&from[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.0.lock().unwrap();
        if pipe.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if !std::mem::replace(&mut pipe.asked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if pipe.bytes.len() >= HOLDS {
            return pipe.wait(cx);
        }
        let held = std::mem::take(&mut pipe.held);
        pipe.bytes.extend(held);
        pipe.asked = false;
        pipe.wake();
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.0.lock().unwrap();
        pipe.over = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let mut pipe = self.0.lock().unwrap();
        pipe.over = true;
        pipe.wake();
    }
}
