//! The async driver of CommIPC's machines and the handles users hold, for any executor.
//!
//! Applications use an adapter (`commipc_tokio`, `commipc_smol`), which re-exports all of this and adds `client(url)`
//! and `hub()`. Here is what an adapter, or a simulator, implements: [`Runtime`], [`Transport`] and [`Acceptor`].

mod attach;
mod bridge;
mod buffers;
mod client;
pub mod clock;
mod credentials;
mod dialer;
mod drain;
mod driver;
mod endpoint;
mod error;
mod hub;
mod inside;
pub mod local;
mod loopback;
pub mod memory;
mod payload;
mod runtime;
mod schema;
mod secret;
pub mod state;
mod stream;
mod sync;

pub use bridge::{Allow, AllowError, Bridge, BridgeBuilder, BridgeClosed, BridgeCounters, Bridging, Side};
pub use client::{
    BLOCK_MAX, Call, Channel, ChannelInfo, Client, ClientBuilder, ClientError, Connecting, ConnectionState,
    DEFAULT_CREDIT, DEFAULT_CREDIT_BYTES, DEFAULT_DEADLINE, Errors, Handling, IntoChannel, IntoEvent, Items,
    LazyClient, Listen, Listener, MemberInfo, Message, Opening, Overflow, PendingCall, PendingHandling, PendingListen,
    PendingOpen, PendingProvide, PendingStream, Provider, Providing, QUEUE_MAX, RUNNING_MAX, RefusedMessages, Request,
    Sending, States, StreamCall, Subscription, Tap, TapKind, Tapped, Trace, TracedCall, WAITING_MAX,
};
pub use commipc_protocol::auth::{Capabilities, IdPattern, IdPatternError, OwnerKey, Secret};
pub use commipc_protocol::client::{Away, Failure, Payload, Reconnect, Unrestored, Welcome};
pub use commipc_protocol::hub::{
    Counters as HubCounters, ERRORS_CHANNEL, LOGS_CHANNEL, Load as HubLoad, SYSTEM_CHANNEL,
};
pub use commipc_protocol::{
    Address, AfterGrace, ChannelName, ClientId, CloseReason, Code, CredentialId, EventName, Fault, FaultCode, HubId,
    Instant, Limits, LinkEnd, Misuse, NameError, OwnerPolicy, Peer, Refusal, Transport as TransportKind, UnixMillis,
    Violation,
};
pub use credentials::{CredentialTable, CredentialsError, LineError};
pub use drain::DrainError;
pub use endpoint::{Endpoint, EndpointError, default_url};
pub use error::{
    BridgeError, CallError, ConnectError, HubError, LazyOpenError, ListenError, OpenError, ProtectError, ProvideError,
    SecretSourceError, SendError,
};
pub use hub::{Hub, HubBuilder, Starting};
#[doc(hidden)]
pub use inside::{Inside, STANDING};
pub use loopback::Loopback;
pub use runtime::{Acceptor, BoxFuture, Connection, Runtime, Transport};
pub use schema::{Schema, Type, Types};
pub use secret::{read_owner_key_file, read_secret_file};
pub use state::StateError;
pub use sync::offload;
