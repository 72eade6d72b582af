//! What an application holds: a client, its channels, and what hangs on them.

mod brake;
mod builder;
mod call;
mod channel;
mod desk;
mod drain;
mod errors;
mod feed;
mod handlers;
mod items;
mod lazy;
mod life;
mod listen;
mod names;
mod observe;
mod opening;
mod outlet;
mod passwords;
mod provide;
mod providing;
mod queue;
mod refused;
mod request;
mod states;
mod streaming;
mod subscription;
mod tap;
mod tickets;
mod trace;

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::client::{Away, Command, Failure, Outgoing, Payload, Welcome};
use commipc_protocol::{ChannelName, ClientId, CloseReason, EventName, HubId, NameError};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use brake::BLOCK_MAX;
pub use builder::{ClientBuilder, Connecting};
pub use call::{Call, DEFAULT_DEADLINE, PendingCall, Sending};
pub use channel::Channel;
pub use errors::{ClientError, Errors};
pub use items::{DEFAULT_CREDIT, DEFAULT_CREDIT_BYTES, Items, PendingStream, StreamCall};
pub use lazy::LazyClient;
pub use listen::{Listen, Listener, Message, PendingListen};
pub use names::{IntoChannel, IntoEvent};
pub use observe::{ChannelInfo, MemberInfo};
pub use opening::{Opening, PendingOpen};
pub use provide::{RUNNING_MAX, WAITING_MAX};
pub use providing::{PendingProvide, Provider, Providing};
pub use queue::{Overflow, QUEUE_MAX};
pub use refused::RefusedMessages;
pub use request::Request;
pub use states::{ConnectionState, States};
pub use subscription::{Handling, PendingHandling, Subscription};
pub use tap::{Tap, TapKind, Tapped};
pub use trace::{Trace, TracedCall};

pub(crate) use self::desk::Desk;
use self::desk::{ClientDriver, State};
use crate::error::{CallError, SendError};
use crate::inside::Inside as _;
use crate::payload;
use crate::runtime::BoxFuture;
use crate::sync::lock;

/// A connection to a hub. Clones are the same connection; it is closed when the last handle that needs it is gone.
#[derive(Clone)]
#[must_use = "the connection is closed when its last handle is dropped"]
pub struct Client {
    handle: Arc<ClientHandle>,
    welcome: Arc<Welcome>,
}

/// Where a message goes, and what must hold there.
pub(crate) struct Place {
    channel: Result<ChannelName, NameError>,
    /// It must be signed.
    guarded: bool,
    /// Why nothing goes there any more.
    ended: Option<Failure>,
}

impl Place {
    /// A channel that need not be open, and is not protected.
    const fn anywhere(channel: Result<ChannelName, NameError>) -> Self {
        Self { channel, guarded: false, ended: None }
    }
}

/// What every handle holds on to.
pub(crate) struct ClientHandle {
    pub(crate) driver: Arc<ClientDriver>,
    /// What becomes of messages while the connection is away.
    away: Away,
    /// Detached providers, until the connection is over.
    kept: Mutex<Vec<Provider>>,
}

impl ClientHandle {
    fn new(driver: Arc<ClientDriver>, away: Away) -> Arc<Self> {
        Arc::new(Self { driver, away, kept: Mutex::default() })
    }

    /// Provides for as long as the connection stands, whatever becomes of the handles.
    fn keep(self: &Arc<Self>, provider: Provider) {
        lock(&self.kept).push(provider);
        // The circle of handles that keep each other is opened when the connection is over.
        let me = Arc::clone(self);
        self.driver.runtime().spawn(Box::pin(async move {
            closed(&me.driver).await;
            let kept = std::mem::take(&mut *lock(&me.kept));
            drop(kept);
        }));
    }

    fn call<R: DeserializeOwned>(
        self: &Arc<Self>,
        place: Place,
        event: Result<EventName, NameError>,
        argument: &(impl Serialize + ?Sized),
    ) -> Call<R> {
        let outgoing = message(place, event, || payload::encode(argument).map_err(CallError::Encode));
        Call::new(Arc::clone(self), outgoing, call::decode_value)
    }

    fn call_raw(self: &Arc<Self>, place: Place, event: Result<EventName, NameError>, bytes: Bytes) -> Call<Bytes> {
        let outgoing = message(place, event, || Ok(Payload { bytes, raw: true }));
        Call::new(Arc::clone(self), outgoing, payload::raw)
    }

    fn say(
        self: &Arc<Self>,
        place: Place,
        event: Result<EventName, NameError>,
        value: &(impl Serialize + ?Sized),
        broadcast: bool,
    ) -> Sending {
        let outgoing = message(place, event, || payload::encode(value).map_err(SendError::Encode));
        Sending::new(Arc::clone(self), outgoing, broadcast)
    }

    fn say_raw(
        self: &Arc<Self>,
        place: Place,
        event: Result<EventName, NameError>,
        bytes: Bytes,
        broadcast: bool,
    ) -> Sending {
        Sending::new(Arc::clone(self), message(place, event, || Ok(Payload { bytes, raw: true })), broadcast)
    }
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        self.driver.sink().let_go();
        self.driver.issue(Command::Close);
    }
}

impl Client {
    /// The own id, as the hub knows it.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.welcome.client
    }

    /// The hub's id.
    #[must_use]
    pub fn hub_id(&self) -> &HubId {
        &self.welcome.hub
    }

    /// What the hub told of itself and of this connection.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// How much it holds of what is under way, by kind. For tests, which look at it at the end.
    #[doc(hidden)]
    #[must_use]
    pub fn held(&self) -> Vec<(&'static str, usize)> {
        self.handle.driver.held()
    }

    /// Becomes a member of a channel: of its first opener's making, who owns it. Await it.
    ///
    /// # Errors
    /// When the name is none, the hub refuses, the password is wrong or missing, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it leaves the channel again.
    pub fn open(&self, channel: impl IntoChannel) -> Opening {
        Opening::new(Arc::clone(&self.handle), channel.into_channel())
    }

    /// Calls an event of a channel that need not be open. Await it.
    pub fn call<R: DeserializeOwned>(
        &self,
        channel: impl IntoChannel,
        event: impl IntoEvent,
        argument: &(impl Serialize + ?Sized),
    ) -> Call<R> {
        self.handle.call(Place::anywhere(channel.into_channel()), event.into_event(), argument)
    }

    /// Calls an event with raw bytes on a channel that need not be open. Await it.
    pub fn call_raw(
        &self,
        channel: impl IntoChannel,
        event: impl IntoEvent,
        argument: impl Into<Bytes>,
    ) -> Call<Bytes> {
        self.handle.call_raw(Place::anywhere(channel.into_channel()), event.into_event(), argument.into())
    }

    /// Says something to an event's provider on a channel that need not be open. Await it.
    pub fn send(&self, channel: impl IntoChannel, event: impl IntoEvent, value: &(impl Serialize + ?Sized)) -> Sending {
        self.handle.say(Place::anywhere(channel.into_channel()), event.into_event(), value, false)
    }

    /// Says something to every listener of a channel that need not be open. Await it.
    pub fn broadcast(
        &self,
        channel: impl IntoChannel,
        event: impl IntoEvent,
        value: &(impl Serialize + ?Sized),
    ) -> Sending {
        self.handle.say(Place::anywhere(channel.into_channel()), event.into_event(), value, true)
    }

    /// Waits, on the runtime that the client uses: in a simulation in virtual time. Dropping the future gives the wait up.
    pub fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let runtime = self.handle.driver.runtime();
        runtime.sleep_until(runtime.now() + time)
    }

    /// Starts a task on the runtime that the client uses. It goes on whatever becomes of the client.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.driver.runtime().spawn(Box::pin(task));
    }

    /// Says goodbye, writes what is queued and closes. Everything open ends. Returns when it is closed.
    ///
    /// # Cancel safety
    /// The connection is closed from the first poll on, also if this is dropped.
    pub async fn close(&self) {
        self.handle.driver.issue(Command::Close);
        self.closed().await;
    }

    /// Waits until the connection is over, and tells why.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    pub async fn closed(&self) -> CloseReason {
        closed(&self.handle.driver).await
    }
}

async fn closed(driver: &ClientDriver) -> CloseReason {
    poll_fn(|cx| {
        driver.sink().poll_state(cx, true).map(|state| match state {
            State::Closed(reason) => reason,
            // `poll_state` waits for `Closed` here.
            State::Connecting | State::Ready(_) | State::Lost(..) | State::Restoring(..) => CloseReason::Lost,
        })
    })
    .await
}

fn message<E: From<NameError> + From<Failure>>(
    place: Place,
    event: Result<EventName, NameError>,
    payload: impl FnOnce() -> Result<Payload, E>,
) -> Result<Outgoing, E> {
    let Place { channel, guarded, ended } = place;
    match ended {
        Some(why) => Err(why.into()),
        None => Ok(call::outgoing(channel?, event?, payload()?, guarded)),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", self.id()).field("hub", self.hub_id()).finish_non_exhaustive()
    }
}
