//! Connections that the program makes itself, in the place of those by URL.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};

use commipc_protocol::{Instant, UnixMillis};

use crate::bridge::BridgeBuilder;
use crate::client::ClientBuilder;
use crate::endpoint::Endpoint;
use crate::runtime::{Acceptor, BoxFuture, Connection, Runtime};
use crate::sync::lock;

impl ClientBuilder {
    /// Connections are made by this function, the first one and each that replaces one that was lost. It is given what the
    /// URL names; for what no URL names write `memory:` and any word.
    ///
    /// Its errors are those of a dial: the client tries again as it does where nobody listens. A connection that takes
    /// longer than [`Limits::dial`](crate::Limits::dial) is given up by dropping the future.
    ///
    /// ```
    /// use commipc_runtime::{ClientBuilder, Connection, Endpoint};
    /// use std::io;
    ///
    /// # fn open_pipes(to: &Endpoint) -> io::Result<(&'static [u8], Vec<u8>)> { Err(to.unsupported()) }
    /// fn over_pipes(client: ClientBuilder) -> ClientBuilder {
    ///     client.dialer(async |to: Endpoint| {
    ///         let (reader, writer) = open_pipes(&to)?;
    ///         Ok(Connection::over_halves(reader, writer)) // or `over(stream)`, of what is `AsyncRead + AsyncWrite`
    ///     })
    /// }
    /// ```
    pub fn dialer<F, Fut>(self, dial: F) -> Self
    where
        F: Fn(Endpoint) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Connection>> + Send + 'static,
    {
        self.on(|runtime| dialling(runtime, dial))
    }

    /// Connects over this connection, and never over another: when it is lost, the client is closed.
    pub fn over(self, connection: Connection) -> Self {
        let connection = Mutex::new(Some(connection));
        self.no_reconnect().dialer(move |_| {
            let connection = lock(&connection).take();
            async move { connection.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()) }
        })
    }
}

impl BridgeBuilder {
    /// Connections to both hubs are made by this function, as those of a client are by [`ClientBuilder::dialer`]: over TLS, for
    /// instance. It is given what the URL of the hub names.
    pub fn dialer<F, Fut>(self, dial: F) -> Self
    where
        F: Fn(Endpoint) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Connection>> + Send + 'static,
    {
        self.on(|runtime| dialling(runtime, dial))
    }
}

fn dialling<F, Fut>(runtime: Arc<dyn Runtime>, dial: F) -> Arc<dyn Runtime>
where
    F: Fn(Endpoint) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<Connection>> + Send + 'static,
{
    Arc::new(Dialling { runtime, dial: Box::new(move |to| Box::pin(dial(to))) })
}

type Dial = dyn Fn(Endpoint) -> BoxFuture<'static, io::Result<Connection>> + Send + Sync;

/// A runtime, but for its dials.
struct Dialling {
    runtime: Arc<dyn Runtime>,
    dial: Box<Dial>,
}

impl Runtime for Dialling {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.runtime.spawn_blocking(work);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.runtime.sleep_until(at)
    }

    fn dial(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>> {
        (self.dial)(to)
    }

    fn listen(&self, at: Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>> {
        self.runtime.listen(at)
    }

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn wall(&self) -> UnixMillis {
        self.runtime.wall()
    }

    fn fill_seed(&self, seed: &mut [u8; 32]) -> io::Result<()> {
        self.runtime.fill_seed(seed)
    }
}
