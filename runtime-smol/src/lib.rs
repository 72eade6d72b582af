#![doc = include_str!("../README.md")]

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use commipc_runtime::local::{deepen_backlog, shutdown_write, tcp_endpoint, tcp_peer, unix_peer};
pub use commipc_runtime::*;
use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};

/// A client of the hub at `url` (`unix:/path` or `tcp://host:port`), on smol's global executor.
pub fn client(url: &str) -> ClientBuilder {
    ClientBuilder::new(Arc::new(Smol), url)
}

/// A hub on smol's global executor.
pub fn hub() -> HubBuilder {
    HubBuilder::new(Arc::new(Smol))
}

/// A bridge between the hubs at two URLs, where a client would be.
pub fn bridge(a: &str, b: &str) -> BridgeBuilder {
    BridgeBuilder::new(Arc::new(Smol), a, b)
}

/// A connection over any stream of bytes: for [`Hub::attach`] and [`ClientBuilder::dialer`].
pub fn stream<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> Connection {
    Connection::over(stream)
}

/// Smol's global executor.
#[derive(Clone, Copy, Debug, Default)]
struct Smol;

impl Runtime for Smol {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        smol::spawn(task).detach();
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        smol::unblock(work).detach();
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            smol::Timer::at(clock::to_system(at)).await;
        })
    }

    fn dial(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move {
            match &to {
                Endpoint::Unix(path) => unix_connection(Async::<UnixStream>::connect(path).await?),
                Endpoint::Tcp { host, port } => dial_tcp(host, *port).await,
                Endpoint::Memory(_) => Err(to.unsupported()),
            }
        })
    }

    fn listen(&self, at: Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async move {
            let acceptor: Box<dyn Acceptor> = match &at {
                Endpoint::Unix(path) => Box::new(UnixAcceptor(Async::<UnixListener>::bind(path)?, at)),
                Endpoint::Tcp { host, port } => {
                    let address = (host.clone(), *port);
                    // Looking a name up blocks.
                    let listener = smol::unblock(move || TcpListener::bind(address)).await?;
                    deepen_backlog(&listener)?;
                    Box::new(TcpAcceptor(Async::new(listener)?))
                }
                Endpoint::Memory(_) => return Err(at.unsupported()),
            };
            Ok(acceptor)
        })
    }
}

async fn dial_tcp(host: &str, port: u16) -> io::Result<Connection> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in smol::net::resolve((host, port)).await? {
        match Async::<TcpStream>::connect(address).await {
            Ok(stream) => return tcp_connection(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unix_connection(stream: Async<UnixStream>) -> io::Result<Connection> {
    Ok(Connection { peer: unix_peer(&stream), transport: Arc::new(Stream(stream)) })
}

fn tcp_connection(stream: Async<TcpStream>) -> io::Result<Connection> {
    stream.get_ref().set_nodelay(true)?;
    Ok(Connection { peer: tcp_peer(stream.get_ref().peer_addr()?), transport: Arc::new(Stream(stream)) })
}

struct UnixAcceptor(Async<UnixListener>, Endpoint);
struct TcpAcceptor(Async<TcpListener>);

macro_rules! accept {
    ($listener:expr, $cx:expr) => {
        loop {
            // Tried first: waiting tells of connections that come, not of those that are there.
            match $listener.get_ref().accept() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!($listener.poll_readable($cx))?,
                Err(e) => return Poll::Ready(Err(e)),
                Ok((stream, _)) => break Async::new(stream)?,
            }
        }
    };
}

impl Acceptor for UnixAcceptor {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        Poll::Ready(unix_connection(accept!(self.0, cx)))
    }

    fn local(&self) -> Endpoint {
        self.1.clone()
    }
}

impl Acceptor for TcpAcceptor {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        Poll::Ready(tcp_connection(accept!(self.0, cx)))
    }

    fn local(&self) -> Endpoint {
        tcp_endpoint(self.0.get_ref().local_addr())
    }
}

struct Stream<S>(Async<S>);

macro_rules! transport {
    ($stream:ty) => {
        impl Transport for Stream<$stream> {
            fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
                self.0.get_ref().read(into)
            }

            fn try_write_vectored(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
                self.0.get_ref().write_vectored(from)
            }

            fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.0.poll_readable(cx)
            }

            fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.0.poll_writable(cx)
            }

            fn shutdown(&self) {
                shutdown_write(&self.0);
            }
        }
    };
}

transport!(UnixStream);
transport!(TcpStream);
