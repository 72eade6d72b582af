//! CommIPC on smol.
//!
//! ```
//! use commipc_smol as commipc;
//! use commipc::{Fault, Request};
//! use std::time::Duration;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     smol::block_on(async {
//!         let dir = tempfile::tempdir()?;
//!         let url = format!("unix:{}/hub.sock", dir.path().display());
//!         let _hub = commipc::hub().listen(&url).start().await?;
//!
//!         // A provider with state: every request gets a clone of it.
//!         let provider = commipc::client(&url).id("math_service").connect().await?;
//!         let math = provider.open("math_operations").await?;
//!         let bias = std::sync::Arc::new(0_i64);
//!         let _sum = math
//!             .provide_with(bias, "sum", async |bias: std::sync::Arc<i64>, numbers: Request<(i64, i64)>| {
//!                 Ok::<_, Fault>(numbers.0 + numbers.1 + *bias)
//!             })
//!             .await?;
//!
//!         // The secret is the key the hub has written beside its socket: nothing to configure.
//!         let consumer = commipc::client(&url).await?;
//!         let math = consumer.open("math_operations").await?;
//!         let total: i64 = math.call("sum", &(15, 25)).deadline(Duration::from_secs(2)).await?;
//!         assert_eq!(total, 40);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Tasks run on smol's global executor.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use commipc_runtime::local::{deepen_backlog, shutdown_write, unix_peer};
pub use commipc_runtime::*;
use smol::Async;

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
                Endpoint::Memory(_) => Err(unsupported(&to)),
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
                Endpoint::Memory(_) => return Err(unsupported(&at)),
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

fn unsupported(endpoint: &Endpoint) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{endpoint} is not for sockets"))
}

fn unix_connection(stream: Async<UnixStream>) -> io::Result<Connection> {
    Ok(Connection { peer: unix_peer(&stream), transport: Arc::new(Stream(stream)) })
}

fn tcp_connection(stream: Async<TcpStream>) -> io::Result<Connection> {
    stream.get_ref().set_nodelay(true)?;
    let source = Some(stream.get_ref().peer_addr()?.ip());
    Ok(Connection { peer: Peer { source, ..Peer::unknown(TransportKind::Tcp) }, transport: Arc::new(Stream(stream)) })
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
        let address = self.0.get_ref().local_addr();
        let (host, port) = address.map_or((String::new(), 0), |address| (address.ip().to_string(), address.port()));
        Endpoint::Tcp { host, port }
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
