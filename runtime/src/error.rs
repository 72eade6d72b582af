//! Errors by operation. Each has a stable number and says whether trying again may help.

use std::io;
use std::path::PathBuf;

use commipc_protocol::auth::SecretError;
use commipc_protocol::bridge::{AllowError, BridgeClosed};
use commipc_protocol::client::{CallFailure, Failure};
use commipc_protocol::{ChannelName, CloseReason, Code, Fault, LinkEnd, Misuse, NameError, Refusal, Violation};
use thiserror::Error;

use crate::credentials::CredentialsError;
use crate::endpoint::EndpointError;
use crate::local::LocalError;
use crate::payload::DecodeError;
use crate::state::StateError;

macro_rules! operation_error {
    ($(#[$meta:meta])* $name:ident { $($(#[$attr:meta])* $variant:ident($of:ty) => $code:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Error)]
        #[non_exhaustive]
        pub enum $name {
            /// A name that no name may be.
            #[error(transparent)]
            BadName(#[from] NameError),
            $($(#[$attr])* $variant($of),)*
            /// The hub refused it, or it never went out.
            #[error(transparent)]
            Failed(#[from] Failure),
        }

        impl $name {
            /// The stable number, the same on the wire.
            #[must_use]
            pub const fn code(&self) -> Code {
                match self {
                    Self::BadName(_) => Code(Misuse::BadName.code()),
                    $(Self::$variant(_) => $code,)*
                    Self::Failed(failure) => failure.code(),
                }
            }

            /// Whether the same request may succeed later, unchanged.
            #[must_use]
            pub const fn is_retryable(&self) -> bool {
                match self {
                    Self::BadName(_) => false,
                    $(Self::$variant(_) => false,)*
                    Self::Failed(failure) => failure_is_retryable(*failure),
                }
            }
        }
    };
}

operation_error! {
    /// Why a channel could not be opened.
    OpenError {
        /// The owner key that was given is another channel's.
        #[error("the owner key is one of channel {0}")]
        ForeignKey(ChannelName) => Code(Refusal::NotOwner.code()),
    }
}
operation_error! {
    /// Why a channel's password, or the channel itself, could not be changed.
    ProtectError {
        /// The new password is the one that the channel has.
        #[error("channel {0} has this password already: choose another one")]
        Reused(ChannelName) => Code(Misuse::Encode.code()),
        /// The password cannot be used.
        #[error("{0}")]
        Secret(SecretError) => Code(Misuse::Encode.code()),
        /// The system gives no randomness, or shuts down.
        #[error("{0}")]
        System(String) => Code(Misuse::Closed.code()),
    }
}

impl From<SecretError> for ProtectError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Failed { failure, maybe_executed: false }
    }
}

operation_error! {
    /// Why an event cannot be provided.
    ProvideError {}
}
operation_error! {
    /// Why a channel cannot be listened to, or not any more.
    ListenError {
        /// Messages came faster than they were taken, and the listener was not to lose any.
        #[error("the listener was too slow: {0} messages waited, and no more may")]
        TooSlow(usize) => Code(Misuse::TooMany.code()),
    }
}
operation_error! {
    /// Why a message was not taken by the hub.
    SendError {
        /// The value cannot be encoded.
        #[error("the value cannot be encoded: {0}")]
        Encode(String) => Code(Misuse::Encode.code()),
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// A name that no name may be. Nothing was sent.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// The argument cannot be encoded. Nothing was sent.
    #[error("the value cannot be encoded: {0}")]
    Encode(String),
    /// The provider answered with a fault.
    #[error("{0}")]
    Fault(Fault),
    /// The hub or this side ended the call.
    #[error("{failure}")]
    Failed {
        /// Why.
        failure: Failure,
        /// Whether the provider may have executed it all the same.
        maybe_executed: bool,
    },
    /// The call was executed, and the answer is of another type than wanted.
    #[error("the answer is not of the expected type: {0}")]
    Decode(String),
    /// The call was executed, and the answer is raw where a value is wanted, or the other way round.
    #[error("the answer is of another content kind (raw bytes or a value) than wanted")]
    WrongContent,
}

impl CallError {
    /// The stable number, the same on the wire.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::BadName(_) => Code(Misuse::BadName.code()),
            Self::Encode(_) => Code(Misuse::Encode.code()),
            Self::Fault(fault) => Code(fault.code),
            Self::Failed { failure, .. } => failure.code(),
            Self::Decode(_) => Code(Misuse::Decode.code()),
            Self::WrongContent => Code(Misuse::WrongContent.code()),
        }
    }

    /// Whether the same call may succeed later, unchanged. Look at [`CallError::maybe_executed`] too.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Fault(fault) => fault.retryable,
            Self::Failed { failure, .. } => failure_is_retryable(*failure),
            Self::BadName(_) | Self::Encode(_) | Self::Decode(_) | Self::WrongContent => false,
        }
    }

    /// Whether the provider may have executed the call.
    #[must_use]
    pub const fn maybe_executed(&self) -> bool {
        match self {
            Self::BadName(_) | Self::Encode(_) => false,
            Self::Failed { maybe_executed, .. } => *maybe_executed,
            Self::Fault(fault) => fault.code != Refusal::Overloaded.code() && fault.code != Refusal::NoProvider.code(),
            Self::Decode(_) | Self::WrongContent => true,
        }
    }
}

impl From<CallFailure> for CallError {
    fn from(failure: CallFailure) -> Self {
        match failure {
            CallFailure::Fault(fault) => Self::Fault(fault),
            CallFailure::Failed { failure, maybe_executed } => Self::Failed { failure, maybe_executed },
        }
    }
}

impl From<DecodeError> for CallError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::WrongContent => Self::WrongContent,
            DecodeError::Malformed(text) => Self::Decode(text),
        }
    }
}

/// Why there is no secret to prove.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretSourceError {
    /// The key beside the hub's socket, or what lies around it.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A secret file that cannot be read.
    #[error("cannot read the secret file {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A secret file that others may read.
    #[error("{} can be read by other users: run 'chmod 600 {}'", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// What was read is no secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Only a hub on a Unix socket has a key that local clients can read.
    #[error("{0} needs the hub's secret: name its file (--secret-file), or say --insecure-no-auth on both sides")]
    Needed(String),
    /// The shared secret is the entry `default` of the table, which has one already.
    #[error("the table of credentials has an entry 'default', and a secret was given beside it: choose one")]
    TwoDefaults,
    /// The bridges' secret is the entry `bridge` of the table, which has one already.
    #[error("the table of credentials has an entry 'bridge', and a secret for bridges was given beside it: choose one")]
    TwoBridges,
    /// A secret and the wish to do without one.
    #[error("a secret was given together with --insecure-no-auth: choose one")]
    Contradiction,
}

/// Why there is no bridge.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// A hub's URL is none.
    #[error(transparent)]
    Url(#[from] EndpointError),
    /// The bridge's id or credential is no name.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// A pattern of what passes is none.
    #[error(transparent)]
    Allow(#[from] AllowError),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretSourceError),
    /// A hub's shared secret is not its bridges'.
    #[error("the hub at {0} asks bridges for a secret of their own: name it (`commipc hub --bridge-secret-file`)")]
    NoSecret(String),
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Seed(io::Error),
    /// Nobody listens there, or it cannot be reached, and that is not tried any more.
    #[error("cannot reach a hub at {url}: {detail}")]
    Unreachable {
        /// The hub's URL.
        url: String,
        /// What the system said.
        detail: String,
    },
    /// It is over.
    #[error("the bridge ended: {0}")]
    Closed(BridgeClosed),
}

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The hub's URL is none.
    #[error(transparent)]
    Url(#[from] EndpointError),
    /// The client's id or credential is no name.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// There is no secret to prove.
    #[error(transparent)]
    Secret(#[from] SecretSourceError),
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Seed(io::Error),
    /// Nobody listens there, or it cannot be reached.
    #[error("cannot reach a hub at {url}: {detail}; is it running? (start one with `commipc hub`)")]
    Unreachable {
        /// The hub's URL.
        url: String,
        /// What the system said.
        detail: String,
        /// How the link ended.
        how: LinkEnd,
    },
    /// The hub said no.
    #[error("the hub refused the connection: {0}")]
    Refused(Refusal),
    /// Either side broke the protocol, or the hub could not prove itself.
    #[error("the connection failed: {0}")]
    Violation(Violation),
    /// The connection ended before both sides were proved.
    #[error("the connection ended: {0}")]
    Closed(CloseReason),
}

impl ConnectError {
    /// The stable number.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code(match self {
            Self::Url(_) | Self::Seed(_) | Self::Unreachable { .. } => Misuse::Unreachable.code(),
            Self::BadName(_) => Misuse::BadName.code(),
            Self::Secret(_) => Refusal::AuthFailed.code(),
            Self::Refused(refusal) => refusal.code(),
            Self::Violation(violation) => violation.code(),
            Self::Closed(reason) => close_code(*reason).0,
        })
    }

    /// Whether the same attempt may succeed later, unchanged.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { how, .. } => !matches!(how, LinkEnd::Denied),
            Self::Refused(refusal) | Self::Closed(CloseReason::Goodbye(refusal)) => refusal.is_retryable(),
            Self::Closed(reason) => matches!(reason, CloseReason::Lost),
            Self::Url(_) | Self::BadName(_) | Self::Secret(_) | Self::Seed(_) | Self::Violation(_) => false,
        }
    }
}

/// Why a client that connects when it is needed could not open a channel.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LazyOpenError {
    /// It could not connect.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It is connected and could not open the channel.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl LazyOpenError {
    /// The stable number.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Connect(error) => error.code(),
            Self::Open(error) => error.code(),
        }
    }

    /// Whether the same attempt may succeed later, unchanged.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Open(error) => error.is_retryable(),
        }
    }
}

/// Why a hub does not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// A URL to listen on is none.
    #[error(transparent)]
    Url(#[from] EndpointError),
    /// The hub's id is no name.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// A socket path cannot be served.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// There is no secret to ask for.
    #[error(transparent)]
    Secret(#[from] SecretSourceError),
    /// The table of credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// What the hub has stored cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Seed(io::Error),
    /// The system does not let it listen.
    #[error("cannot listen on {url}: {source}")]
    Listen {
        /// Where.
        url: String,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime shut down in between.
    #[error("the runtime is shutting down")]
    RuntimeGone,
}

impl HubError {
    /// The stable number.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code(match self {
            Self::BadName(_) => Misuse::BadName.code(),
            Self::Secret(_) | Self::Credentials(_) => Refusal::AuthFailed.code(),
            Self::State(_) => Refusal::StorageFailed.code(),
            Self::Url(_) | Self::Local(_) | Self::Seed(_) | Self::Listen { .. } | Self::RuntimeGone => {
                Misuse::Unreachable.code()
            }
        })
    }

    /// Whether the same attempt may succeed later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Local(LocalError::AlreadyListening(_)) | Self::State(StateError::InUse(_)) => true,
            Self::Listen { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            Self::Local(_)
            | Self::Url(_)
            | Self::BadName(_)
            | Self::Secret(_)
            | Self::Credentials(_)
            | Self::State(_)
            | Self::Seed(_)
            | Self::RuntimeGone => false,
        }
    }
}

/// The number that says best why a connection is over.
pub(crate) const fn close_code(reason: CloseReason) -> Code {
    Code(if let CloseReason::Goodbye(refusal) | CloseReason::Refused(refusal) = reason {
        refusal.code()
    } else if let CloseReason::Violation(violation) = reason {
        violation.code()
    } else if let CloseReason::GoodbyeCode(code) = reason {
        code
    } else if let CloseReason::Local = reason {
        Misuse::Closed.code()
    } else {
        Misuse::Disconnected.code()
    })
}

const fn failure_is_retryable(failure: Failure) -> bool {
    match failure {
        Failure::Refused(refusal) => refusal.is_retryable(),
        Failure::RefusedCode(_) => false,
        Failure::Local(misuse) => matches!(
            misuse,
            Misuse::NotConnected
                | Misuse::Disconnected
                | Misuse::Busy
                | Misuse::TooMany
                | Misuse::Unreachable
                | Misuse::Draining
        ),
    }
}
