//! A hub in memory, for the unit tests of programs.

use std::fmt;
use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex, Weak};

use commipc_protocol::auth::Secret;

use crate::client::ClientBuilder;
use crate::error::HubError;
use crate::hub::{Hub, HubBuilder};
use crate::memory::memory_pair;
use crate::runtime::{Connection, Runtime, Transport, random};
use crate::sync::lock;

/// A hub of the own process that listens nowhere, with clients whose connections are memory. Everything else is as with
/// any hub: handshakes, limits, passwords, deadlines. It is shut down when it is dropped.
///
/// Made by [`HubBuilder::loopback`].
#[must_use = "the hub is shut down when this is dropped"]
pub struct Loopback {
    hub: Hub,
    runtime: Arc<dyn Runtime>,
    secret: Option<Secret>,
    connections: Arc<Connections>,
}

/// The ends of the connections that stand.
type Connections = Mutex<Vec<Weak<dyn Transport>>>;

impl HubBuilder {
    /// Starts the hub in memory: it listens nowhere, and asks for a secret that its [clients](Loopback::client) have, unless it
    /// was given one or a table of credentials.
    ///
    /// ```
    /// # use commipc_runtime::{Fault, HubBuilder, Request};
    /// # async fn test(hub: fn() -> HubBuilder) -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = hub().loopback().await?; // `commipc::hub()`, of the adapter that the program uses
    /// let provider = hub.client("provider").await?;
    /// let math = provider.open("math").await?;
    /// let _sum = math.provide("sum", async |numbers: Request<(i64, i64)>| Ok::<_, Fault>(numbers.0 + numbers.1)).await?;
    ///
    /// let consumer = hub.client("consumer").await?;
    /// let total: i64 = consumer.call("math", "sum", &(15, 25)).await?;
    /// assert_eq!(total, 40);
    ///
    /// hub.cut(); // every connection is lost, and comes back
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`HubBuilder::start`].
    ///
    /// # Cancel safety
    /// Dropped midway, no hub runs.
    pub async fn loopback(mut self) -> Result<Loopback, HubError> {
        let runtime = Arc::clone(&self.runtime);
        if !self.secret.is_said() && self.credentials.is_none() {
            let key = random(&*runtime).map_err(HubError::Seed)?;
            self = self.secret(Secret::key(*key));
        }
        let secret = self.secret.clone().explicit()?;
        let hub = self.listen_nowhere().start().await?;
        Ok(Loopback { hub, runtime, secret, connections: Arc::default() })
    }
}

impl Loopback {
    /// A client of this hub, on the hub's runtime. Its connection comes back when it is lost, as any other's.
    pub fn client(&self, id: &str) -> ClientBuilder {
        let (hub, connections) = (self.hub.downgrade(), Arc::clone(&self.connections));
        let dial = move |_| {
            let connected = hub.upgrade().map(|hub| connect(&hub, &connections));
            ready(connected.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()))
        };
        let client = ClientBuilder::new(Arc::clone(&self.runtime), "memory:loopback").id(id).dialer(dial);
        match &self.secret {
            Some(secret) => client.secret(secret.clone()),
            None => client,
        }
    }

    /// The hub.
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Cuts all connections, as a network does that goes. The hub goes on, and clients come back as far as they do that.
    pub fn cut(&self) {
        let connections = std::mem::take(&mut *lock(&self.connections));
        connections.iter().filter_map(Weak::upgrade).for_each(|end| end.shutdown());
    }
}

fn connect(hub: &Hub, connections: &Connections) -> Connection {
    let (ours, theirs) = memory_pair();
    {
        let mut connections = lock(connections);
        connections.retain(|end| end.strong_count() > 0);
        connections.extend([&ours, &theirs].map(|end| Arc::downgrade(&end.transport)));
    }
    hub.attach(theirs);
    ours
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loopback").field("hub", &self.hub).finish_non_exhaustive()
    }
}
