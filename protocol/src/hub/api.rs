//! What an application may ask of a hub, and what it is told.

use alloc::vec::Vec;
use core::time::Duration;

use super::state::StoredChannel;
use super::system::SystemPassword;
use crate::auth::Credentials;
use crate::client::EventKind;
use crate::error::{Refusal, Violation};
use crate::limits::Limits;
use crate::machine::LinkId;
use crate::names::{ChannelName, ClientId, CredentialId, EventName, HubId};
use crate::policy::OwnerPolicy;

/// How a hub is set up.
#[derive(Debug)]
pub struct HubConfig {
    /// The hub's id; one is made up when absent (`hub-` and 16 hex digits).
    pub id: Option<HubId>,
    /// Who may connect.
    pub credentials: Credentials,
    /// Bounds.
    pub limits: Limits,
    /// What becomes of channels whose owners go, unless they say otherwise when they open them.
    pub owner_policy: OwnerPolicy,
}

/// What an application may ask.
#[derive(Clone, Debug)]
pub enum Command {
    /// Replace the table of credentials. Connections that stand are not touched.
    SetCredentials(Credentials),
    /// Let only those listen to the hub's own channels, and ask there, who know this password as well.
    SetSystemPassword(SystemPassword),
    /// Restore the channels that a hub of this id has stored, and store every change of ownership or protection from now on:
    /// see [`Event::Store`]. The first thing a hub is told, if at all.
    Restore(Vec<StoredChannel>),
    /// What [`Event::Store`] asked for was done, or could not be.
    Stored {
        /// The number of the request.
        ticket: u64,
        /// Whether it will be there after a crash.
        durable: bool,
    },
    /// Refuse what is new, let what runs be finished, and then as [`Command::Shutdown`]. Connections are refused with
    /// [`Refusal::ShuttingDown`]; openings, providers, listeners, calls, sends and broadcasts with [`Refusal::Draining`],
    /// unless their client works on a request, which may need them. Given again, it counts from then.
    Drain {
        /// How long that may take. What still runs then is ended with [`Refusal::ShuttingDown`] for both its sides.
        time: Duration,
    },
    /// Refuse new connections, end what runs with [`Refusal::ShuttingDown`] for both its sides, say goodbye to all and close.
    /// Ends with [`Event::Stopped`].
    Shutdown,
}

/// What an application is told. Nothing here is needed to run a hub; all of it is worth logging.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A client has proved itself.
    Connected {
        /// Its link.
        link: LinkId,
        /// Its id.
        client: ClientId,
        /// What it proved.
        credential: CredentialId,
    },
    /// A client's link is over.
    Disconnected {
        /// Its link.
        link: LinkId,
        /// Its id.
        client: ClientId,
        /// Why.
        why: DisconnectReason,
    },
    /// A connection was turned away before it proved anything.
    Rejected {
        /// Its link.
        link: LinkId,
        /// Why.
        why: DisconnectReason,
    },
    /// A client became a member of a channel.
    Joined {
        /// Which channel.
        channel: ChannelName,
        /// Who.
        client: ClientId,
    },
    /// A client is no longer a member of a channel.
    Left {
        /// Which channel.
        channel: ChannelName,
        /// Who.
        client: ClientId,
    },
    /// An event is provided from now on.
    Provided {
        /// Which channel.
        channel: ChannelName,
        /// Which event.
        event: EventName,
        /// By whom.
        client: ClientId,
        /// How it is asked for.
        kind: EventKind,
    },
    /// An event is no longer provided.
    Withdrawn {
        /// Which channel.
        channel: ChannelName,
        /// Which event.
        event: EventName,
        /// By whom it was.
        client: ClientId,
    },
    /// A channel has another owner, or none.
    OwnerChanged {
        /// Which channel.
        channel: ChannelName,
        /// Who owns it.
        owner: Option<ClientId>,
    },
    /// A channel has a new password, or none any more. Nobody but its owner is a member after that.
    ProtectionChanged {
        /// Which channel.
        channel: ChannelName,
        /// The epoch from now on.
        epoch: u64,
        /// Whether it has a password.
        protected: bool,
    },
    /// A message that a bridge brought was here before, or has passed too many hubs, and goes no further. A call is answered
    /// with [`Refusal::Loop`].
    Looped {
        /// Who brought it.
        client: ClientId,
        /// Which channel it is about.
        channel: ChannelName,
    },
    /// A bridge to another hub stands.
    BridgeUp {
        /// The bridge.
        client: ClientId,
        /// The hub at its other end.
        hub: HubId,
    },
    /// A bridge leads nowhere any more; what was reached over it is reached on other ways, or not at all.
    BridgeDown {
        /// The bridge.
        client: ClientId,
        /// The hub that was at its other end.
        hub: HubId,
    },
    /// A channel of this hub and one of its name at another are protected differently: nothing passes between them. The other
    /// hub is told the same.
    ProtectionConflict {
        /// Which channel.
        channel: ChannelName,
        /// Where the other one was protected; nowhere, if that needs no password.
        home: Option<HubId>,
    },
    /// There is more than may be announced over a bridge, in either direction; the rest is not known at the hub that would be
    /// told. Told once for each time it comes up.
    BridgeFull {
        /// The bridge.
        client: ClientId,
    },
    /// A channel ended with its owner.
    Terminated {
        /// Which channel.
        channel: ChannelName,
    },
    /// An admin ended a channel for all its members, and its password with it.
    Cleared {
        /// Which channel.
        channel: ChannelName,
        /// Who did.
        client: ClientId,
    },
    /// Keep this in place of what was kept of the channel, or nothing any more, and say how that went with
    /// [`Command::Stored`]. Requests are carried out in the order of their numbers. Nobody is told of the change before.
    ///
    /// Only after [`Command::Restore`].
    Store {
        /// Names the request.
        ticket: u64,
        /// Which channel.
        channel: ChannelName,
        /// What there is to remember of it.
        record: Option<StoredChannel>,
    },
    /// A client reads more slowly than it is written to: more than half of [`Limits::outbox`] waits for it. Told once, and
    /// again only after it had caught up to a quarter of that. At the whole of it the link ends.
    SlowConsumer {
        /// Its link.
        link: LinkId,
        /// Its id.
        client: ClientId,
        /// Bytes that wait for it.
        waiting: usize,
    },
    /// So many requests still run at a hub that drains. Told when it begins and whenever it changes.
    Draining {
        /// Calls, streams, and changes of channels that are being stored.
        running: usize,
    },
    /// A drain is over: everybody is said goodbye to now.
    Drained {
        /// How many requests were ended before they were finished.
        cut: usize,
    },
    /// Every link is closed after [`Command::Shutdown`].
    Stopped,
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DisconnectReason {
    /// The client said goodbye.
    #[error("said goodbye")]
    Goodbye,
    /// The link broke or ended without a goodbye.
    #[error("the link was lost")]
    Lost,
    /// The hub refused it.
    #[error("{0}")]
    Refused(Refusal),
    /// It broke the protocol.
    #[error("{0}")]
    Violation(Violation),
}

impl DisconnectReason {
    /// The stable number of the refusal or violation, if it was one.
    #[must_use]
    pub const fn code(self) -> Option<u16> {
        match self {
            Self::Goodbye | Self::Lost => None,
            Self::Refused(refusal) => Some(refusal.code()),
            Self::Violation(violation) => Some(violation.code()),
        }
    }
}

/// Running totals since the hub started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Message frames forwarded, one per destination.
    pub forwarded: u64,
    /// Frames for exchanges that had ended.
    pub ended_route: u64,
    /// Frames that did not fit the exchange they named.
    pub mismatched: u64,
    /// Frames of types this version does not know and may skip.
    pub skipped: u64,
    /// Links that ended because their peer broke the protocol.
    pub violations: u64,
    /// Messages that came back to this hub, or had passed too many.
    pub looped: u64,
    /// Copies of messages that had come over another bridge, and went no further.
    pub doubled: u64,
    /// Messages from other hubs for which there was no place among those that are remembered, so that they went no further.
    pub unremembered: u64,
    /// Messages from other hubs that fit no channel here, or came when the hub was full.
    pub unadmitted: u64,
    /// What bridges announced and cannot be so.
    pub misannounced: u64,
    /// What bridges announced beyond their limit.
    pub unlearned: u64,
}

/// What a hub holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Links, proved or not.
    pub links: usize,
    /// Clients.
    pub clients: usize,
    /// Channels.
    pub channels: usize,
    /// Calls on their way.
    pub calls: usize,
    /// What links know calls by: as many as there are calls.
    pub routes: usize,
    /// How many of them are streams.
    pub streams: usize,
    /// Deadlines of calls and of streams that are not taken or have a total one.
    pub deadlines: usize,
    /// Joins that wait for a proof, or that failed and are remembered.
    pub joins: usize,
    /// How many of the calls came over bridges, by who calls.
    pub bridged: usize,
    /// Joins and owner operations on their way from or to other hubs.
    pub errands: usize,
    /// What bridges have announced here, what there is here to be announced to them, and what each was told of.
    pub announced: usize,
    /// Bytes of frames that came in part, or wait to be sent, or are with the driver.
    pub buffered: usize,
    /// Bytes of memory: frames under way as they are, tables as estimated.
    pub memory: usize,
}
