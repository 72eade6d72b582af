#![doc = include_str!("../README.md")]

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_std::io::{Read, Write};
use async_std::net::{TcpListener, TcpStream};
use async_std::os::unix::net::{UnixListener, UnixStream};
use async_std::task;
use commipc_runtime::local::{deepen_backlog, tcp_endpoint, tcp_peer, unix_peer};
pub use commipc_runtime::*;

/// A client of the hub at `url` (`unix:/path` or `tcp://host:port`), on async-std's global executor.
pub fn client(url: &str) -> ClientBuilder {
    ClientBuilder::new(Arc::new(AsyncStd), url)
}

/// A hub on async-std's global executor.
pub fn hub() -> HubBuilder {
    HubBuilder::new(Arc::new(AsyncStd))
}

/// A bridge between the hubs at two URLs, where a client would be.
pub fn bridge(a: &str, b: &str) -> BridgeBuilder {
    BridgeBuilder::new(Arc::new(AsyncStd), a, b)
}

/// A connection over any stream of bytes: for [`Hub::attach`] and [`ClientBuilder::dialer`].
pub fn stream<S: Read + Write + Send + 'static>(stream: S) -> Connection {
    Connection::over(stream)
}

/// Async-std's global executor. Its sockets are streams like any others: it tells nobody when they are ready.
#[derive(Clone, Copy, Debug, Default)]
struct AsyncStd;

impl Runtime for AsyncStd {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        task::spawn(task);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        task::spawn_blocking(work);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(task::sleep(at.saturating_since(self.now())))
    }

    fn dial(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move {
            match &to {
                Endpoint::Unix(path) => Ok(unix_connection(UnixStream::connect(path).await?)),
                Endpoint::Tcp { host, port } => tcp_connection(TcpStream::connect((host.as_str(), *port)).await?),
                Endpoint::Memory(_) => Err(to.unsupported()),
            }
        })
    }

    fn listen(&self, at: Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async move {
            let acceptor: Box<dyn Acceptor> = match &at {
                Endpoint::Unix(path) => Box::new(Accepting::new(UnixListener::bind(path).await?, at, accept_unix)),
                Endpoint::Tcp { host, port } => {
                    let listener = TcpListener::bind((host.as_str(), *port)).await?;
                    deepen_backlog(&listener)?;
                    let local = tcp_endpoint(listener.local_addr());
                    Box::new(Accepting::new(listener, local, accept_tcp))
                }
                Endpoint::Memory(_) => return Err(at.unsupported()),
            };
            Ok(acceptor)
        })
    }
}

fn unix_connection(stream: UnixStream) -> Connection {
    Connection { peer: unix_peer(&stream), ..Connection::over(stream) }
}

fn tcp_connection(stream: TcpStream) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    Ok(Connection { peer: tcp_peer(stream.peer_addr()?), ..Connection::over(stream) })
}

type Accepted = BoxFuture<'static, io::Result<Connection>>;

fn accept_unix(listener: Arc<UnixListener>) -> Accepted {
    Box::pin(async move { Ok(unix_connection(listener.accept().await?.0)) })
}

fn accept_tcp(listener: Arc<TcpListener>) -> Accepted {
    Box::pin(async move { tcp_connection(listener.accept().await?.0) })
}

/// A listener, which async-std lets wait for one connection after the other only.
struct Accepting<L> {
    listener: Arc<L>,
    accept: fn(Arc<L>) -> Accepted,
    next: Accepted,
    local: Endpoint,
}

impl<L> Accepting<L> {
    fn new(listener: L, local: Endpoint, accept: fn(Arc<L>) -> Accepted) -> Self {
        let listener = Arc::new(listener);
        Self { next: accept(Arc::clone(&listener)), listener, accept, local }
    }
}

impl<L: Send + Sync + 'static> Acceptor for Accepting<L> {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        let accepted = ready!(self.next.as_mut().poll(cx));
        self.next = (self.accept)(Arc::clone(&self.listener));
        Poll::Ready(accepted)
    }

    fn local(&self) -> Endpoint {
        self.local.clone()
    }
}
