//! What an executor must offer: tasks, time, randomness and sockets. Adapters implement it, and so may a simulator.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};

use commipc_protocol::{Instant, Peer, UnixMillis};
use zeroize::Zeroizing;

use crate::clock;
use crate::endpoint::Endpoint;
use crate::inside::Inside;

/// A boxed future that can be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An executor with its timers and sockets, as a value. The only source of time, randomness, tasks and connections.
///
/// Nothing here may block, and nothing may call back into a client or hub before it returns.
pub trait Runtime: Send + Sync + 'static {
    /// Runs a future to its end, whoever waits for it.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Runs work that takes milliseconds or more (key derivation) where it holds up no task.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);

    /// Is ready once [`Runtime::now`] has reached `at`.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;

    /// Makes a connection.
    ///
    /// Dropping the future gives the attempt up. Its errors are those of the system, and
    /// [`io::ErrorKind::Unsupported`] for an endpoint the runtime does not know.
    fn dial(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>>;

    /// Starts to listen. A Unix path is bound as it is: the rules for sockets in the file system
    /// ([`crate::local`]) are kept by the caller.
    fn listen(&self, at: Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>>;

    /// The monotonic clock.
    fn now(&self) -> Instant {
        clock::monotonic()
    }

    /// The wall clock.
    fn wall(&self) -> UnixMillis {
        clock::wall()
    }

    /// A hub, client or bridge runs here from now on. For simulations, which look at it at the end.
    #[doc(hidden)]
    fn begun(&self, _what: Weak<dyn Inside>) {}

    /// Fills the seed of a machine with bytes nobody can predict.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    fn fill_seed(&self, seed: &mut [u8; 32]) -> io::Result<()> {
        getrandom::fill(seed).map_err(io::Error::other)
    }
}

/// 32 bytes nobody can predict.
pub(crate) fn random(runtime: &dyn Runtime) -> io::Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    runtime.fill_seed(&mut bytes)?;
    Ok(bytes)
}

/// A connection that stands.
pub struct Connection {
    /// Moves the bytes.
    pub transport: std::sync::Arc<dyn Transport>,
    /// Who is there.
    pub peer: Peer,
}

/// Moves the bytes of one connection, from any task at any time.
///
/// One task at a time waits for readability and for writability; reads come from that task only, writes from any, one
/// at a time.
pub trait Transport: Send + Sync + 'static {
    /// Reads what is there; zero means that nothing will come any more.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is there; any other error ends the connection.
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits now.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing fits; any other error means that nothing can be written any more.
    fn try_write_vectored(&self, from: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Waits until reading is worth trying. May be ready too often, never too rarely.
    ///
    /// # Errors
    /// When the connection cannot be waited for any more.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Waits until writing is worth trying. May be ready too often, never too rarely.
    ///
    /// # Errors
    /// When the connection cannot be waited for any more.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the peer that no more bytes will come. What was written before still arrives.
    fn shutdown(&self);
}

/// Takes connections.
pub trait Acceptor: Send + 'static {
    /// Takes the next connection.
    ///
    /// # Errors
    /// As the system tells. The listener stays usable: the next poll tries again.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>>;

    /// Where it listens, with the port that was got for port 0.
    fn local(&self) -> Endpoint;
}
