//! Errors by blame: the peer ([`Violation`]), the remote's decision ([`Refusal`]), our own caller ([`Misuse`]).
//!
//! Every error has one stable number, the same on the wire and in the CLI. Ranges tell the blame and numbers are never
//! reused: 1–99 violations, 100–199 connections, 200–299 channels, 300–399 requests, 400–499 faults made by this
//! library, 500–599 made locally and never sent, from 1,000 on whatever an application's faults mean. `wire.cddl` holds
//! the same table; a test compares them.

use alloc::string::String;
use core::fmt;

use bytes::Bytes;
use thiserror::Error;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[doc = $doc])+ #[error($text)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable number.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The value with this number, if it is one of ours.
            #[must_use]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    /// The peer broke the protocol. The link closes; the application is told by an event.
    Violation {
        /// The first bytes are not this protocol's.
        BadMagic = 1, "the first bytes are not those of this protocol";
        /// A length beyond the limit of the link's state.
        FrameTooLarge = 2, "a frame is longer than the limit";
        /// A frame without a type.
        EmptyFrame = 3, "a frame has no type";
        /// A frame type below 128 that nobody defined.
        UnknownFrame = 4, "a frame has an unknown type";
        /// A frame that does not fit the conversation.
        UnexpectedFrame = 5, "a frame came that does not fit the conversation";
        /// A control body that is not the exact encoding.
        BadControl = 6, "a control body is not encoded as the protocol demands";
        /// A message that is not the exact encoding.
        BadMessage = 7, "a message is not encoded as the protocol demands";
        /// A record tag does not verify.
        BadRecordTag = 8, "a record tag does not verify";
        /// A name that no name may be.
        BadName = 9, "a name is empty, too long or holds a forbidden character";
        /// A nonce or key that is all zero or repeats its partner's.
        BadNonce = 10, "a nonce is degenerate";
        /// A route number in use, or from the other side's half.
        BadRoute = 11, "a route number is not free";
        /// A message names a sender or origin that the link has not proved.
        ForeignSender = 12, "a message names a sender that this link has not proved";
        /// The handshake took too long.
        HandshakeTimeout = 13, "the handshake was not finished in time";
        /// The rest of a started frame did not come.
        PartialFrame = 14, "a started frame was not finished in time";
        /// The hub's proof is wrong or missing: it does not know the secret.
        BadServerProof = 15, "the hub could not prove that it knows the secret";
        /// The hub chose a version, derivation or parameter that was not offered.
        NotOffered = 16, "the hub chose something that was not offered";
        /// More frames of a kind that must be answered than may be outstanding.
        Flood = 17, "too many unanswered frames";
        /// A message claims to have passed hubs, on a link that is no bridge's.
        BadHop = 18, "a message claims to have passed hubs, and its link is no bridge's";
    }
}

codes! {
    /// The remote said no.
    Refusal {
        /// The proof does not fit, or the credential does not exist: which of them is not told.
        AuthFailed = 100, "authentication failed: the secret or the credential is wrong";
        /// No common protocol version.
        VersionUnsupported = 101, "the hub speaks no version of the protocol that was offered";
        /// The secret's kind is not the one the hub knows for the credential.
        KdfUnsupported = 102, "the hub knows this credential by another kind of secret";
        /// Another live link has the client id. Worth a retry.
        IdInUse = 103, "the client id is in use by another connection";
        /// The id is reserved, or the credential may not use it.
        IdNotAllowed = 104, "the credential may not use this client id";
        /// The hub takes no more connections. Worth a retry.
        TooManyConnections = 105, "the hub takes no more connections at the moment";
        /// The hub is shutting down. Worth a retry.
        ShuttingDown = 106, "the hub is shutting down";
        /// A later connection of the same client took over.
        Superseded = 107, "a newer connection of the same client took over";
        /// The other side is silent for too long.
        Idle = 108, "nothing was heard for too long";
        /// Too much unread output.
        SlowConsumer = 109, "too much output was left unread";
        /// The channel was not opened.
        NotMember = 200, "the channel is not open";
        /// Somebody else provides the event.
        ProviderExists = 201, "another client provides this event";
        /// The name is reserved for the hub.
        NameReserved = 202, "the name is reserved";
        /// A limit on open channels.
        TooManyChannels = 203, "too many channels";
        /// A limit on members.
        TooManyMembers = 204, "the channel has too many members";
        /// A limit on providers.
        TooManyProviders = 205, "too many providers";
        /// The event is not provided by the one who withdraws it.
        NotProvider = 206, "the event is not provided by this client";
        /// A limit on listened events.
        TooManyListeners = 207, "too many listeners";
        /// Only the owner may do this.
        NotOwner = 208, "only the channel's owner may do this";
        /// The channel is protected and no password was given.
        PasswordRequired = 209, "the channel is protected and needs a password";
        /// The join proof does not fit.
        PasswordWrong = 210, "the channel's password is wrong";
        /// A password was given and the channel is not protected.
        NotProtected = 211, "the channel is not protected though a password was given";
        /// An epoch or salt older than the one proved before.
        RolledBack = 212, "the channel's protection was rolled back";
        /// Two sides of a bridge protect the channel differently.
        ProtectionConflict = 213, "the channel is protected differently on the other side";
        /// The epoch is not the stored one plus one.
        EpochMismatch = 214, "the channel's protection changed meanwhile";
        /// Protection on something that cannot be protected.
        HubOwned = 215, "the channel belongs to the hub";
        /// The owner is gone and the channel with it.
        Terminated = 216, "the channel's owner left and the channel ended";
        /// Stored state could not be written.
        StorageFailed = 217, "the hub could not store the change";
        /// The credential lacks a capability.
        NotAllowed = 218, "the credential does not allow this";
        /// A question about a channel that nobody has opened.
        NoSuchChannel = 219, "there is no such channel";
        /// A limit on protected channels.
        TooManyRecords = 220, "too many protected channels of this credential";
        /// A limit on names that are remembered without members.
        TooManyNames = 221, "too many channel names are remembered for this credential";
        /// A bridge would join a hub with itself.
        SameHub = 222, "both ends of the bridge are the same hub";
        /// A channel's home is out of reach: who is a member stays one, and nobody can join. Worth a retry.
        HomeGone = 223, "the hub where the channel is protected cannot be reached";
        /// Nobody provides the event.
        NoProvider = 300, "nobody provides this event";
        /// The provider went while it worked.
        ProviderGone = 301, "the provider is gone; the call may have been executed";
        /// The deadline passed.
        Deadline = 302, "the deadline passed";
        /// A limit on work in progress. Worth a retry.
        Overloaded = 303, "too much is in progress";
        /// A call to a stream, or a stream from a plain event.
        WrongKind = 304, "the event is of another kind than the request";
        /// The channel's password changed during the request.
        Rekeyed = 305, "the channel's password changed during the request";
        /// The request came back to a hub that it had passed.
        Loop = 306, "the request came back to a hub it had passed";
        /// Told to a provider: the caller is gone.
        CallerGone = 307, "the caller is gone";
        /// The same request is already running.
        Duplicate = 308, "the same request is already running";
        /// More was sent than was granted.
        FlowControl = 309, "more was sent than was granted";
        /// The message is larger than a frame may be.
        TooLarge = 310, "the message is larger than a frame may be";
        /// The receiver drains and takes no new work. Worth a retry.
        Draining = 311, "the receiver takes no new work";
    }
}

impl Refusal {
    /// Whether the same request may succeed later, unchanged.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::IdInUse
                | Self::TooManyConnections
                | Self::ShuttingDown
                | Self::Idle
                | Self::SlowConsumer
                | Self::NotProtected
                | Self::EpochMismatch
                | Self::HomeGone
                | Self::NoProvider
                | Self::ProviderGone
                | Self::Overloaded
                | Self::Draining
        )
    }

    /// Whether a call that ended so may have been executed by its provider.
    #[must_use]
    pub const fn maybe_executed(self) -> bool {
        matches!(
            self,
            Self::ShuttingDown
                | Self::ProviderGone
                | Self::Deadline
                | Self::Terminated
                | Self::Rekeyed
                | Self::FlowControl
                | Self::Duplicate
        )
    }
}

codes! {
    /// Faults that this library makes on a provider's behalf.
    FaultCode {
        /// The handler returned an error that it did not choose to describe.
        HandlerFailed = 400, "the handler failed";
        /// The handler panicked.
        HandlerPanicked = 401, "the handler panicked";
        /// The payload is raw where a value is expected, or the other way round.
        WrongContent = 402, "the payload is of another content kind";
        /// The payload is not what the handler takes.
        BadPayload = 403, "the payload does not fit what the handler takes";
        /// The call is too old or too far in the future.
        Stale = 404, "the call's time is too far from the receiver's";
    }
}

codes! {
    /// Our own caller asked for what cannot be, or the connection went. Never on the wire.
    Misuse {
        /// Not connected, and not allowed to wait.
        NotConnected = 500, "not connected";
        /// The connection was lost before the outcome was known.
        Disconnected = 501, "the connection was lost before the outcome was known";
        /// The caller gave up.
        Cancelled = 502, "cancelled";
        /// The client was closed.
        Closed = 503, "the client is closed";
        /// Too much output waits for the hub to read it. Worth a retry.
        Busy = 504, "too much output waits for the hub";
        /// The token is not one that stands for something open.
        UnknownToken = 505, "the handle stands for nothing that is open";
        /// A name that no name may be.
        BadName = 506, "a name is empty, too long or holds a forbidden character";
        /// The value cannot be encoded.
        Encode = 507, "the value cannot be encoded";
        /// The answer is not of the expected type.
        Decode = 508, "the answer is not of the expected type";
        /// The local deadline passed.
        Deadline = 509, "the deadline passed";
        /// The message is larger than a frame may be.
        TooLarge = 510, "the message is larger than a frame may be";
        /// A local limit.
        TooMany = 511, "a local limit is reached";
        /// The hub could not be reached.
        Unreachable = 512, "the hub could not be reached";
        /// The answer is raw where a value is expected, or the other way round.
        WrongContent = 514, "the answer is of another content kind";
        /// A stream's end came before all of its items.
        Truncated = 515, "the stream ended before all of it had come";
        /// The client drains and asks for nothing new. Worth a retry on another connection.
        Draining = 516, "the client drains and takes nothing new on";
    }
}

/// A stable error number of any blame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

impl Code {
    /// What the number means, where it is one of this library's.
    #[must_use]
    pub fn text(self) -> Option<String> {
        use alloc::string::ToString as _;
        Violation::from_code(self.0)
            .map(|e| e.to_string())
            .or_else(|| Refusal::from_code(self.0).map(|e| e.to_string()))
            .or_else(|| FaultCode::from_code(self.0).map(|e| e.to_string()))
            .or_else(|| Misuse::from_code(self.0).map(|e| e.to_string()))
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({})", self.0)
    }
}

/// What a provider answers instead of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1,000 on the application's own; 400–499 as in [`FaultCode`].
    pub code: u16,
    /// For people. Leaves the provider as it stands here, so it must be fit for strangers.
    pub message: String,
    /// For programs: CBOR of the application's choice, or empty.
    pub details: Bytes,
    /// Whether the same call may succeed later.
    pub retryable: bool,
}

impl From<FaultCode> for Fault {
    fn from(code: FaultCode) -> Self {
        use alloc::string::ToString as _;
        Self { code: code.code(), message: code.to_string(), details: Bytes::new(), retryable: false }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (fault {})", self.message, self.code)
    }
}

impl core::error::Error for Fault {}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// The other side said goodbye with a reason.
    #[error("closed by the other side: {0}")]
    Goodbye(Refusal),
    /// The other side said goodbye with a number this version does not know.
    #[error("closed by the other side with code {0}")]
    GoodbyeCode(u16),
    /// The connection was never made.
    #[error("the hub could not be reached ({0:?})")]
    Unreachable(crate::LinkEnd),
    /// The connection broke or ended without a goodbye.
    #[error("the connection was lost")]
    Lost,
    /// The other side said nothing for so long that it counts as lost.
    #[error("nothing was heard from the other side for too long")]
    Silent,
    /// The hub refused the connection. Before the hub's own proof this is a claim, not a fact.
    #[error("{0}")]
    Refused(Refusal),
    /// The peer broke the protocol, or failed to prove itself.
    #[error("the peer broke the protocol: {0}")]
    Violation(Violation),
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_in_their_ranges() {
        let mut seen = BTreeSet::new();
        let mut check = |code: u16, range: core::ops::Range<u16>| {
            assert!(range.contains(&code), "{code} outside {range:?}");
            assert!(seen.insert(code), "{code} twice");
        };
        Violation::ALL.iter().for_each(|e| check(e.code(), 1..100));
        Refusal::ALL.iter().for_each(|e| check(e.code(), 100..400));
        FaultCode::ALL.iter().for_each(|e| check(e.code(), 400..500));
        Misuse::ALL.iter().for_each(|e| check(e.code(), 500..600));
        assert!(Refusal::ALL.iter().all(|e| Refusal::from_code(e.code()) == Some(*e)));
    }
}
