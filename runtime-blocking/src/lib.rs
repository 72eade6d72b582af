#![doc = include_str!("../README.md")]

mod reactor;
mod sockets;
mod waiting;

use std::sync::Arc;

pub use commipc_runtime::*;
use futures_io::{AsyncRead, AsyncWrite};

use self::reactor::Reactor;
pub use self::waiting::{Each, IntoIter, Iterate, OnThread, Wait, each, on_thread};

/// A client of the hub at `url` (`unix:/path` or `tcp://host:port`), with a thread of its own that reads.
pub fn client(url: &str) -> ClientBuilder {
    ClientBuilder::new(Arc::new(Reactor::new()), url)
}

/// A hub on one thread of its own. It looks at all of its connections in every turn: for tens of them, not for thousands.
pub fn hub() -> HubBuilder {
    HubBuilder::new(Arc::new(Reactor::new()))
}

/// A bridge between the hubs at two URLs, on one thread of its own.
pub fn bridge(a: &str, b: &str) -> BridgeBuilder {
    BridgeBuilder::new(Arc::new(Reactor::new()), a, b)
}

/// A connection over any stream of bytes that can be polled: for [`Hub::attach`] and [`ClientBuilder::dialer`]. Whoever wakes the
/// stream, it is polled by the thread that reads.
pub fn stream<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> Connection {
    Connection::over(stream)
}
