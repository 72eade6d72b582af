//! Hubs whose connections come by no listener.

use std::sync::{Arc, Weak};

use crate::hub::{Hub, HubBuilder, HubHandle};
use crate::runtime::Connection;

impl HubBuilder {
    /// Listens nowhere, unless it is also told where: connections are [attached](Hub::attach). Such a hub must be given
    /// a secret.
    pub fn listen_nowhere(mut self) -> Self {
        self.nowhere = true;
        self
    }
}

impl Hub {
    /// Serves a client over a connection that came by no listener: an end of a pipe, a stream of TLS. Returns at once; the
    /// client has as long for its handshake as any other.
    ///
    /// ```
    /// # use commipc_runtime::{ClientBuilder, Connection, Hub, HubBuilder, Secret};
    /// use commipc_runtime::memory::memory_pair;
    ///
    /// # async fn example(hub: HubBuilder, client: ClientBuilder) -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = hub.listen_nowhere().secret(Secret::parse(b"correct horse")?).await?;
    /// let (ours, theirs) = memory_pair(); // or `Connection::over(stream)`, of anything that is `AsyncRead + AsyncWrite`
    /// hub.attach(theirs);
    /// let client = client.secret(Secret::parse(b"correct horse")?).over(ours).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn attach(&self, connection: Connection) {
        self.handle.driver.attach(connection);
    }

    pub(crate) fn downgrade(&self) -> WeakHub {
        WeakHub(Arc::downgrade(&self.handle))
    }
}

/// A hub that may have been shut down.
pub(crate) struct WeakHub(Weak<HubHandle>);

impl WeakHub {
    pub(crate) fn upgrade(&self) -> Option<Hub> {
        self.0.upgrade().map(|handle| Hub { handle })
    }
}
