//! What an application may ask of a client, and what it is told.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::time::Duration;

use bytes::Bytes;

use super::drain::DrainCommand;
use super::guarding::{Access, ChannelSalt};
use super::kind::EventKind;
use super::reconnect::{Reconnect, ReconnectEvent};
use super::seal::Rejected;
use super::stream_api::{StreamCommand, StreamEvent};
use crate::auth::{Capabilities, ChannelMaster, OwnerKey, Salted, Secret};
use crate::error::{CloseReason, Code, Fault, Misuse, Refusal, Violation};
use crate::limits::Limits;
use crate::names::{Address, ChannelName, ClientId, CredentialId, EventName, HubId};
use crate::time::{Instant, UnixMillis};

/// The caller's own number for something it asked for. Answers carry it; it must not be in use twice at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// Names a request that a provider is working on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The hub's number for the exchange, which it uses again one day.
    pub(crate) route: u32,
    /// Ours, which is not.
    pub(crate) serial: u64,
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.serial)
    }
}

/// How a client is set up.
#[derive(Debug)]
pub struct ClientConfig {
    /// The hub's URL, handed to the driver as it is.
    pub hub: Arc<str>,
    /// The own id; one is made up when absent (`cli-` and 8 hex digits).
    pub id: Option<ClientId>,
    /// Which entry of the hub's credentials is proved.
    pub credential: CredentialId,
    /// What is proved.
    pub secret: Secret,
    /// Bounds.
    pub limits: Limits,
    /// Whether and how a connection that is lost is made again.
    pub reconnect: Option<Reconnect>,
}

/// What an application may ask.
///
/// Everything with a token ends with exactly one event that carries it: `Done`, `Sent`, `Answered` or `Ended`.
#[derive(Clone, Debug)]
pub enum Command {
    /// Dial the hub and prove each other. Ends with [`Event::Ready`] or [`Event::Closed`].
    ///
    /// May be given again after that, in which the client is the same to its hub: it takes over from a link of its own that
    /// lingers there, and joining a channel that it owned makes it the owner again.
    Connect,
    /// What to prove from the next dial on.
    SetSecret(Secret),
    /// The answer to [`Event::DeriveKey`].
    KeyDerived(Salted),
    /// Become a member of a channel. Opening again counts; the channel is left with the last [`Command::Leave`].
    Open {
        /// For `Done`.
        token: Token,
        /// Which channel.
        channel: ChannelName,
        /// With which kind of password, if any, and what is to become of the channel without us.
        access: Access,
    },
    /// The answer to [`Event::DeriveChannelKey`].
    ChannelKeyDerived {
        /// Which channel.
        channel: ChannelName,
        /// What it was derived with.
        salt: ChannelSalt,
        /// What came of it.
        master: ChannelMaster,
    },
    /// There is nothing to derive a channel's keys from: the opening that waits for them ends.
    ChannelKeyFailed {
        /// Which channel.
        channel: ChannelName,
    },
    /// Give a channel that we own a new password. Everybody else stops being a member. Ends with `Done`.
    Protect {
        /// For `Done`.
        token: Token,
        /// Which channel.
        channel: ChannelName,
        /// A fresh salt, and what the password was derived with.
        salt: ChannelSalt,
        /// What came of it.
        master: ChannelMaster,
    },
    /// Take the password of a channel that we own away. Everybody else stops being a member. Ends with `Done`.
    Unprotect {
        /// For `Done`.
        token: Token,
        /// Which channel.
        channel: ChannelName,
    },
    /// Own a channel again that we owned before the link was lost. It must be open. Ends with `Done`.
    Reclaim {
        /// For `Done`.
        token: Token,
        /// Which channel.
        channel: ChannelName,
    },
    /// Own a channel by the key of whoever made it, when it is opened or at once: one that lives at the own hub is reclaimed,
    /// one that lives at another hub is owned from afar, with the same commands.
    SetOwnerKey(OwnerKey),
    /// End a channel that we own, for all its members. Ends with `Done`.
    Terminate {
        /// For `Done`.
        token: Token,
        /// Which channel.
        channel: ChannelName,
    },
    /// Undo one `Open`. Withdraws nothing by itself unless it is the last.
    Leave {
        /// For `Done`.
        token: Token,
        /// Which channel.
        channel: ChannelName,
    },
    /// Provide an event: requests for it come as [`Event::Request`] with this token until it is withdrawn.
    Provide {
        /// For `Done`, and for every request.
        token: Token,
        /// Which channel.
        channel: ChannelName,
        /// Which event.
        event: EventName,
        /// How it is asked for.
        kind: EventKind,
    },
    /// Stop providing. Running requests go on.
    Withdraw {
        /// For `Done`.
        token: Token,
        /// The token of the `Provide`.
        provider: Token,
    },
    /// Listen to broadcasts of one event or, without one, of all events of the channel.
    Listen {
        /// For `Done`, and for every message.
        token: Token,
        /// Which channel.
        channel: ChannelName,
        /// Which event.
        event: Option<EventName>,
    },
    /// Stop listening.
    Unlisten {
        /// For `Done`.
        token: Token,
        /// The token of the `Listen`.
        listener: Token,
    },
    /// Call an event. Ends with [`Event::Answered`].
    Call {
        /// For `Answered`.
        token: Token,
        /// What is said.
        outgoing: Outgoing,
        /// How long the answer may take, at most a day.
        time_left: Duration,
    },
    /// Give up a call or stream: `Answered` or `Ended` comes with [`Misuse::Cancelled`] unless it came before, and the
    /// provider is told.
    Cancel {
        /// The token of the `Call` or `Stream`.
        call: Token,
    },
    /// Say something to an event's provider without wanting an answer. Ends with [`Event::Sent`] when the hub took it.
    Send {
        /// For `Sent`.
        token: Token,
        /// What is said.
        outgoing: Outgoing,
    },
    /// Say something to every listener but oneself. Ends with [`Event::Sent`] when the hub took it.
    Broadcast {
        /// For `Sent`.
        token: Token,
        /// What is said.
        outgoing: Outgoing,
    },
    /// Answer a request. Without effect if the request has ended meanwhile. A stream is answered with its items and
    /// [`StreamCommand::Finish`], or with a fault here that comes after them.
    Answer {
        /// Which request.
        request: RequestId,
        /// The result or the fault.
        result: Result<Payload, Fault>,
    },
    /// Ask for a stream, or go on with one.
    Stream(StreamCommand),
    /// Come to an end, or have a provider come to its end, in good order.
    Drain(DrainCommand),
    /// Say goodbye, flush and close. Everything open ends.
    Close,
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Which channel. Need not be open for calls, sends and broadcasts while it is unprotected.
    pub channel: ChannelName,
    /// Which event.
    pub event: EventName,
    /// What is said.
    pub payload: Payload,
    /// A CBOR map as bytes, or empty.
    pub metadata: Bytes,
    /// Whether repeating the call does no harm. Read only in calls.
    pub idempotent: bool,
    /// Whether it must be signed: it goes to a channel that we are a member of by its password, or nowhere.
    pub guarded: bool,
    /// What becomes of it while the connection is away.
    pub away: Away,
}

/// What becomes of a message while the connection is away and comes back by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Away {
    /// It fails at once with [`Misuse::NotConnected`].
    #[default]
    Fail,
    /// It waits, until its deadline or for half a minute where it has none. So does a call that a hub which drains has turned
    /// down.
    Wait,
    /// It waits, and a call that may be repeated without harm is made again if the connection goes before its answer.
    Repeat,
}

/// The content of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether they are the application's own rather than one CBOR value.
    pub raw: bool,
}

/// What an application is told.
#[derive(Debug)]
pub enum Event {
    /// The secret is a password: run PBKDF2 off the loop ([`Secret::derive`]) and bring [`Command::KeyDerived`].
    DeriveKey {
        /// The hub's salt for this credential.
        salt: [u8; 16],
        /// PBKDF2 rounds.
        iterations: u32,
    },
    /// A channel's password is needed: derive off the loop and bring [`Command::ChannelKeyDerived`].
    DeriveChannelKey {
        /// Which channel.
        channel: ChannelName,
        /// How.
        salt: ChannelSalt,
    },
    /// The hub has ended our membership of a channel. What was provided and listened to there is gone.
    ChannelClosed {
        /// Which channel.
        channel: ChannelName,
        /// Why: [`Refusal::Terminated`], [`Refusal::Rekeyed`] or a later version's reason.
        why: Failure,
    },
    /// A channel that we are a member of has another owner, or none, since we opened it or were told last: also where that came
    /// about while the connection was away. Told by the hub alone.
    OwnerChanged {
        /// Which channel.
        channel: ChannelName,
        /// Who owns it.
        owner: Option<ClientId>,
    },
    /// A password that this client gave a channel that it has open is in force, or there is none any more, as it asked for.
    /// Told before whoever asked has the answer, and also where that came too late or went with the connection.
    PasswordChanged {
        /// Which channel.
        channel: ChannelName,
        /// How the password's keys are derived; `None` where there is none any more.
        salt: Option<ChannelSalt>,
    },
    /// Broadcasts on a protected channel are missing that the sender has made.
    Gap(Gap),
    /// Both sides are proved.
    Ready(Welcome),
    /// What concerns a connection that comes back by itself.
    Reconnect(ReconnectEvent),
    /// The connection is over. Everything that was open or pending has had its event before this one.
    Closed(CloseReason),
    /// An open, leave, provide, withdraw, listen or unlisten ended.
    Done {
        /// Its token.
        token: Token,
        /// How.
        result: Result<(), Failure>,
    },
    /// A send or broadcast was taken by the hub, or not.
    Sent {
        /// Its token.
        token: Token,
        /// How.
        result: Result<(), Failure>,
    },
    /// A call ended.
    Answered {
        /// Its token.
        token: Token,
        /// How.
        result: Result<Answer, CallFailure>,
    },
    /// What concerns a stream.
    Stream(StreamEvent),
    /// Somebody asks one of our providers.
    Request(Request),
    /// The caller of a request gave up or went, or its time is over: drop the work. No answer is needed or sent.
    RequestEnded {
        /// Which request.
        request: RequestId,
        /// Why: [`Misuse::Cancelled`], or as the hub tells.
        why: Failure,
    },
    /// So much still runs of what is drained. With nothing running it is the last such event of a provider; of the whole
    /// client [`Event::Closed`] follows.
    Draining {
        /// Which provider, or the whole client.
        provider: Option<Token>,
        /// Requests and whatever else waits for its end.
        running: usize,
        /// How many were ended because the time was over.
        cut: usize,
    },
    /// A message for one of our listeners, or a send for one of our providers.
    Message(Message),
    /// The peer broke the protocol; the link is closed and `Closed` follows.
    Violation(Violation),
    /// A frame was dropped because it belongs to nothing any more, or does not fit: counted, told, harmless.
    Dropped(Dropped),
}

/// What a hub told of itself and of this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The hub.
    pub hub: HubId,
    /// The own id.
    pub client: ClientId,
    /// The hub's number for this connection.
    pub session: u64,
    /// What the credential allows beyond what everybody may do.
    pub capabilities: Capabilities,
    /// Largest frame the hub takes, in bytes of type and body.
    pub frame: u32,
    /// Whether the hub asks for no secret at all.
    pub insecure: bool,
}

/// A call's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the provider said.
    pub payload: Payload,
    /// Who answered.
    pub provider: Address,
    /// The provider's metadata, or empty.
    pub metadata: Bytes,
    /// Hubs passed.
    pub hops: u8,
    /// The hubs it has come through before the own one, the provider's first; empty if the provider is at the own one.
    pub path: Vec<HubId>,
}

/// A request for one of our providers.
#[derive(Clone, Debug)]
pub struct Request {
    /// For [`Command::Answer`].
    pub id: RequestId,
    /// The token of the `Provide`.
    pub provider: Token,
    /// What is asked.
    pub message: Incoming,
    /// When the caller will have given up.
    pub deadline: Instant,
    /// Whether it will although a stream was accepted before: true for everything else.
    pub whole: bool,
    /// Whether repeating it does no harm, as the caller says.
    pub idempotent: bool,
}

/// A broadcast for one of our listeners, or a send for one of our providers.
#[derive(Clone, Debug)]
pub struct Message {
    /// The token of the `Listen` or `Provide`.
    pub to: Token,
    /// What is said.
    pub message: Incoming,
    /// Dense per sender and event, for broadcasts; 0 for a send.
    pub number: u64,
}

/// What came in. Dereferences to where it comes from.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Where it comes from: mostly shared with what came before.
    pub source: Arc<Source>,
    /// What is said.
    pub payload: Payload,
    /// A CBOR map as bytes, or empty.
    pub metadata: Bytes,
    /// When it was said, by the sender's wall clock.
    pub sent_at: UnixMillis,
    /// Hubs passed.
    pub hops: u8,
}

/// Where a message comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Which channel.
    pub channel: ChannelName,
    /// Which event.
    pub event: EventName,
    /// Who says it.
    pub sender: Address,
    /// The hubs it has come through before the own one, the sender's first; empty if the sender is at the own one.
    pub path: Vec<HubId>,
}

impl Deref for Incoming {
    type Target = Source;

    fn deref(&self) -> &Source {
        &self.source
    }
}

/// Broadcasts that did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The token of the `Listen`.
    pub to: Token,
    /// Which channel.
    pub channel: ChannelName,
    /// Which event.
    pub event: EventName,
    /// Whose broadcasts.
    pub sender: Address,
    /// The number of the first that is missing.
    pub first: u64,
    /// The number of the last that is missing.
    pub last: u64,
}

/// Why something other than a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// The hub said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The hub said no, with a number this version does not know.
    #[error("refused with code {0}")]
    RefusedCode(u16),
    /// It never went out, or the connection was lost.
    #[error("{0}")]
    Local(Misuse),
}

impl Failure {
    /// The stable number.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Refused(refusal) => Code(refusal.code()),
            Self::RefusedCode(code) => Code(code),
            Self::Local(misuse) => Code(misuse.code()),
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// The provider answered with a fault.
    #[error("{0}")]
    Fault(Fault),
    /// The hub or this side ended it.
    #[error("{failure}")]
    Failed {
        /// Why.
        failure: Failure,
        /// Whether the provider may have executed it all the same.
        maybe_executed: bool,
    },
}

/// Frames that lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dropped {
    /// The exchange has ended.
    EndedRoute,
    /// An answer that does not fit the call it claims to answer.
    Mismatch,
    /// A broadcast or send nobody here wants any more.
    NoListener,
    /// A message of another epoch than ours, or signed where nothing is, or unsigned where everything is.
    WrongEpoch,
    /// A signature does not verify.
    BadSignature,
    /// A message that was accepted before, or is older than one that was.
    Replayed,
    /// A message whose time is too far from ours.
    Stale,
    /// A message of our own that came back.
    Own,
    /// One more sender than are remembered on a channel.
    TooManySenders,
}

impl From<Rejected> for Dropped {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Epoch => Self::WrongEpoch,
            Rejected::Signature => Self::BadSignature,
            Rejected::Replayed => Self::Replayed,
            Rejected::Stale => Self::Stale,
            Rejected::Own => Self::Own,
            Rejected::TooManySenders => Self::TooManySenders,
        }
    }
}

/// What a client holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls that wait for their answer, and streams.
    pub calls: usize,
    /// Requests that our providers work on.
    pub serving: usize,
    /// Opens, provides and the like that wait for the hub.
    pub controls: usize,
    /// Sends and broadcasts that the hub has not taken yet.
    pub sends: usize,
    /// Messages that wait for a connection that is away.
    pub parked: usize,
    /// Their bytes, and those of what was given to exchanges among them.
    pub parked_bytes: usize,
    /// Streams that we asked for.
    pub streams: usize,
    /// Bytes that may be on their way to us in them.
    pub windows: usize,
    /// Streams with something to send.
    pub flowing: usize,
    /// Bytes that wait for the link or are with its driver.
    pub unwritten: usize,
    /// Deadlines of calls, of streams, of requests that our providers work on, and of what waits for a connection.
    pub deadlines: usize,
}
