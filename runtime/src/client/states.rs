//! How a connection is, as it changes.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use commipc_protocol::CloseReason;
use futures_core::Stream;

use super::desk::{ClientDriver, State};
use super::{Client, ClientHandle};

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// It is made for the first time.
    Connecting,
    /// It stands, and everything is as it should be, but for what [`ClientError::Unrestored`](crate::ClientError::Unrestored) said.
    Ready,
    /// It was lost, or could not be made again, and is tried again.
    Lost {
        /// Why.
        reason: CloseReason,
        /// How long until the next try.
        retry: Duration,
    },
    /// It stands again, and what was open is being opened again.
    Restoring {
        /// Channels that are as they were.
        done: usize,
        /// All that were open.
        of: usize,
    },
    /// It is over for good.
    Closed(CloseReason),
}

impl Client {
    /// How the connection is now.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.handle.driver.sink().state().public()
    }

    /// How the connection is, and then each state that it comes to. States that pass before anybody looks are left out.
    pub fn states(&self) -> States {
        States { driver: Arc::clone(&self.handle.driver), seen: None, over: false }
    }
}

impl ClientHandle {
    /// Waits until the connection stands and everything is as it was; `Err` if it is over.
    pub(super) async fn ready(&self) -> Result<(), CloseReason> {
        let mut states = States { driver: Arc::clone(&self.driver), seen: None, over: false };
        loop {
            match states.next().await {
                Some(ConnectionState::Ready) => return Ok(()),
                Some(ConnectionState::Closed(reason)) => return Err(reason),
                Some(
                    ConnectionState::Connecting | ConnectionState::Lost { .. } | ConnectionState::Restoring { .. },
                ) => {}
                None => return Err(CloseReason::Local),
            }
        }
    }
}

impl Client {
    /// Waits until the connection stands and everything that was open is open again.
    ///
    /// # Errors
    /// The reason, when it is over.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    pub async fn ready(&self) -> Result<(), CloseReason> {
        self.handle.ready().await
    }
}

/// The states of a connection. Ends after [`ConnectionState::Closed`]. It does not keep the connection open.
#[must_use = "states are told only to who looks"]
pub struct States {
    driver: Arc<ClientDriver>,
    /// The number of the state that was told last.
    seen: Option<u64>,
    over: bool,
}

impl States {
    /// Waits for a state other than the one that was told last; `None` after the last one.
    ///
    /// Cancel safe: a state is either returned or still there.
    pub async fn next(&mut self) -> Option<ConnectionState> {
        poll_fn(|cx| self.poll_state(cx)).await
    }

    /// Polls for the next state, for hand-written futures.
    pub fn poll_state(&mut self, cx: &mut Context<'_>) -> Poll<Option<ConnectionState>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Poll::Ready((number, state)) = self.driver.sink().poll_changed(cx, self.seen) else { return Poll::Pending };
        self.seen = Some(number);
        self.over = matches!(state, State::Closed(_));
        Poll::Ready(Some(state.public()))
    }
}

impl Stream for States {
    type Item = ConnectionState;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ConnectionState>> {
        self.get_mut().poll_state(cx)
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("States(..)")
    }
}
