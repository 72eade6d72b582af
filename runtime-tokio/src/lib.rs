#![doc = include_str!("../README.md")]

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use commipc_runtime::local::{deepen_backlog, shutdown_write, tcp_endpoint, tcp_peer, unix_peer};
pub use commipc_runtime::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;

/// A client of the hub at `url` (`unix:/path` or `tcp://host:port`), on the tokio runtime it is awaited in.
pub fn client(url: &str) -> ClientBuilder {
    ClientBuilder::new(Arc::new(Tokio::default()), url)
}

/// A hub on the tokio runtime it is awaited in.
pub fn hub() -> HubBuilder {
    HubBuilder::new(Arc::new(Tokio::default()))
}

/// A bridge between the hubs at two URLs, where a client would be.
pub fn bridge(a: &str, b: &str) -> BridgeBuilder {
    BridgeBuilder::new(Arc::new(Tokio::default()), a, b)
}

/// A connection over a stream of tokio's: for [`Hub::attach`] and [`ClientBuilder::dialer`].
pub fn stream<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> Connection {
    Connection::over(Compat(Box::pin(stream)))
}

/// The tokio runtime in which it is first used. That runtime's I/O and time drivers must be enabled.
///
/// # Panics
/// When it is first used outside a runtime, with tokio's own words.
#[derive(Debug, Default)]
struct Tokio(OnceLock<Handle>);

impl Tokio {
    /// Kept, so that handles can be used and dropped on any thread.
    fn handle(&self) -> &Handle {
        self.0.get_or_init(Handle::current)
    }
}

impl Runtime for Tokio {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle().spawn(task);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.handle().spawn_blocking(work);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let _inside = self.handle().enter();
        Box::pin(tokio::time::sleep_until(clock::to_system(at).into()))
    }

    fn dial(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move {
            match &to {
                Endpoint::Unix(path) => unix_connection(UnixStream::connect(path).await?),
                Endpoint::Tcp { host, port } => tcp_connection(TcpStream::connect((host.as_str(), *port)).await?),
                Endpoint::Memory(_) => Err(to.unsupported()),
            }
        })
    }

    fn listen(&self, at: Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async move {
            let acceptor: Box<dyn Acceptor> = match &at {
                Endpoint::Unix(path) => Box::new(UnixAcceptor(UnixListener::bind(path)?, at)),
                Endpoint::Tcp { host, port } => {
                    let listener = TcpListener::bind((host.as_str(), *port)).await?;
                    deepen_backlog(&listener)?;
                    Box::new(TcpAcceptor(listener))
                }
                Endpoint::Memory(_) => return Err(at.unsupported()),
            };
            Ok(acceptor)
        })
    }
}

fn unix_connection(stream: UnixStream) -> io::Result<Connection> {
    Ok(Connection { peer: unix_peer(&stream), transport: Arc::new(Stream(stream)) })
}

fn tcp_connection(stream: TcpStream) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    Ok(Connection { peer: tcp_peer(stream.peer_addr()?), transport: Arc::new(Stream(stream)) })
}

struct UnixAcceptor(UnixListener, Endpoint);
struct TcpAcceptor(TcpListener);

impl Acceptor for UnixAcceptor {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        Poll::Ready(unix_connection(ready!(self.0.poll_accept(cx))?.0))
    }

    fn local(&self) -> Endpoint {
        self.1.clone()
    }
}

impl Acceptor for TcpAcceptor {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        Poll::Ready(tcp_connection(ready!(self.0.poll_accept(cx))?.0))
    }

    fn local(&self) -> Endpoint {
        tcp_endpoint(self.0.local_addr())
    }
}

struct Stream<S>(S);

macro_rules! transport {
    ($stream:ty) => {
        impl Transport for Stream<$stream> {
            fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
                self.0.try_read(into)
            }

            fn try_write_vectored(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
                self.0.try_write_vectored(from)
            }

            fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.0.poll_read_ready(cx)
            }

            fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.0.poll_write_ready(cx)
            }

            fn shutdown(&self) {
                shutdown_write(&self.0);
            }
        }
    };
}

transport!(UnixStream);
transport!(TcpStream);

/// A stream of tokio's with the traits that all runtimes share.
struct Compat<S>(Pin<Box<S>>);

impl<S: AsyncRead> futures_io::AsyncRead for Compat<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        ready!(self.0.as_mut().poll_read(cx, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }
}

impl<S: AsyncWrite> futures_io::AsyncWrite for Compat<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}
