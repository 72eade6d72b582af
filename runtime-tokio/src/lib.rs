//! CommIPC on tokio.
//!
//! ```
//! use commipc_tokio as commipc;
//! use commipc::{Fault, Request};
//! use std::time::Duration;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let dir = tempfile::tempdir()?;
//!     let url = format!("unix:{}/hub.sock", dir.path().display());
//!     let _hub = commipc::hub().listen(&url).start().await?;
//!
//!     // A provider with state: every request gets a clone of it.
//!     let provider = commipc::client(&url).id("math_service").connect().await?;
//!     let math = provider.open("math_operations").await?;
//!     let bias = std::sync::Arc::new(0_i64);
//!     let _sum = math
//!         .provide_with(bias, "sum", async |bias: std::sync::Arc<i64>, numbers: Request<(i64, i64)>| {
//!             Ok::<_, Fault>(numbers.0 + numbers.1 + *bias)
//!         })
//!         .await?;
//!
//!     // The secret is the key the hub has written beside its socket: nothing to configure.
//!     let consumer = commipc::client(&url).await?;
//!     let math = consumer.open("math_operations").await?;
//!     let total: i64 = math.call("sum", &(15, 25)).deadline(Duration::from_secs(2)).await?;
//!     assert_eq!(total, 40);
//!     Ok(())
//! }
//! ```
//!
//! Hubs are fastest on a current-thread runtime. Builders may be made anywhere and are awaited inside a runtime.

use std::io::{self, IoSlice};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use commipc_runtime::local::{deepen_backlog, shutdown_write, unix_peer};
pub use commipc_runtime::*;
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
                Endpoint::Memory(_) => Err(unsupported(&to)),
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
                Endpoint::Memory(_) => return Err(unsupported(&at)),
            };
            Ok(acceptor)
        })
    }
}

fn unsupported(endpoint: &Endpoint) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{endpoint} is not for sockets"))
}

fn unix_connection(stream: UnixStream) -> io::Result<Connection> {
    Ok(Connection { peer: unix_peer(&stream), transport: Arc::new(Stream(stream)) })
}

fn tcp_connection(stream: TcpStream) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let source = Some(stream.peer_addr()?.ip());
    Ok(Connection { peer: Peer { source, ..Peer::unknown(TransportKind::Tcp) }, transport: Arc::new(Stream(stream)) })
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
        let (host, port) =
            self.0.local_addr().map_or((String::new(), 0), |address| (address.ip().to_string(), address.port()));
        Endpoint::Tcp { host, port }
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
