//! A client that connects when it is first needed, and again when it is needed after that.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use super::desk::State as Connection;
use super::{Channel, Client, ClientBuilder, IntoChannel};
use crate::error::{ConnectError, LazyOpenError};
use crate::sync::lock;

/// A client that is not connected before it is used. Clones share one connection.
///
/// Connecting is done once, whoever asks: others wait for it. When the connection is over, the next use makes a new one
/// from the same settings; what was open on the old one is not opened again.
#[derive(Clone)]
pub struct LazyClient {
    shared: Arc<Shared>,
}

struct Shared {
    builder: ClientBuilder,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    connecting: bool,
    wakers: Vec<Waker>,
}

impl LazyClient {
    pub(super) fn new(builder: ClientBuilder) -> Self {
        Self { shared: Arc::new(Shared { builder, state: Mutex::default() }) }
    }

    /// The connected client; connects if there is none, or if its connection is over.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`]. The next use tries again.
    ///
    /// # Cancel safety
    /// Dropped midway, another caller that waits takes over.
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        let turn = poll_fn(|cx| {
            let mut state = lock(&self.shared.state);
            let known = state.client.clone().filter(|client| !client.is_closed());
            if let Some(client) = known {
                return Poll::Ready(Err(client));
            }
            if mem::replace(&mut state.connecting, true) {
                if !state.wakers.iter().any(|known| known.will_wake(cx.waker())) {
                    state.wakers.push(cx.waker().clone());
                }
                return Poll::Pending;
            }
            Poll::Ready(Ok(Turn(&self.shared)))
        });
        let turn = match turn.await {
            Ok(turn) => turn,
            Err(client) => return Ok(client),
        };
        let client = self.shared.builder.clone().connect().await?;
        let old = lock(&turn.0.state).client.replace(client.clone());
        drop((old, turn));
        Ok(client)
    }

    /// Becomes a member of a channel, connecting first if need be.
    ///
    /// # Errors
    /// As [`LazyClient::connect`] and [`Client::open`].
    ///
    /// # Cancel safety
    /// Dropped midway, it leaves the channel again.
    pub async fn open(&self, channel: impl IntoChannel) -> Result<Channel, LazyOpenError> {
        let channel = channel.into_channel().map_err(crate::error::OpenError::from)?;
        Ok(self.connect().await?.open(channel).await?)
    }
}

/// The right to connect for all. However it ends, the next caller has its turn.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let wakers = {
            let mut state = lock(&self.0.state);
            state.connecting = false;
            mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Client {
    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.handle.driver.sink().state(), Connection::Closed(_))
    }
}

impl fmt::Debug for LazyClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyClient").field("builder", &self.shared.builder).finish_non_exhaustive()
    }
}
