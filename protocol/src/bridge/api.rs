//! What an application may ask of a bridge, and what it is told.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::time::Duration;

use super::Allow;
use crate::auth::{Salted, Secret};
use crate::client::Reconnect;
use crate::error::{CloseReason, Refusal};
use crate::limits::Limits;
use crate::names::{ClientId, CredentialId, HubId};

/// One of the two hubs that a bridge joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The first one.
    A,
    /// The second one.
    B,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How a bridge reaches one of its hubs.
#[derive(Clone, Debug)]
pub struct BridgeEnd {
    /// The hub's URL, handed to the driver as it is.
    pub hub: Arc<str>,
    /// Which entry of the hub's credentials is proved. It must have the capability `bridge`.
    pub credential: CredentialId,
    /// What is proved.
    pub secret: Secret,
}

/// How a bridge is set up.
#[derive(Debug)]
pub struct BridgeConfig {
    /// The first hub.
    pub a: BridgeEnd,
    /// The second hub.
    pub b: BridgeEnd,
    /// What the bridge's client is called at each hub, with `-c1` or `-c2` behind it, so that it has at most 125 bytes; one is
    /// made up when absent (`bridge-` and 8 hex digits).
    pub id: Option<ClientId>,
    /// What passes: everything when empty. The hubs' own channels never do.
    pub allow: Vec<Allow>,
    /// Whether only what the first hub offers can be reached from the second, and nothing the other way: its providers are
    /// called and its broadcasts are heard there.
    pub one_way: bool,
    /// How many calls, sends and broadcasts together pass in a second, each way. Of more, calls end with
    /// [`Refusal::Overloaded`] and others are dropped and counted.
    pub rate: Option<NonZeroU32>,
    /// Bounds, as for a client.
    pub limits: Limits,
    /// Whether and how a connection that is lost is made again.
    pub reconnect: Option<Reconnect>,
}

/// What an application may ask.
#[derive(Clone, Debug)]
pub enum Command {
    /// Dial both hubs. Ends with [`Event::Bridged`] or [`Event::Closed`].
    Connect,
    /// What to prove to a hub from the next dial on.
    SetSecret(Side, Secret),
    /// The answer to [`Event::DeriveKey`].
    KeyDerived(Side, Salted),
    /// Say goodbye to both hubs and close.
    Close,
}

/// What an application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A secret is a password: run PBKDF2 off the loop ([`Secret::derive`]) and bring [`Command::KeyDerived`].
    DeriveKey {
        /// Whose.
        side: Side,
        /// The hub's salt for the credential.
        salt: [u8; 16],
        /// PBKDF2 rounds.
        iterations: u32,
    },
    /// A hub has proved itself.
    Connected {
        /// Which side.
        side: Side,
        /// The hub.
        hub: HubId,
    },
    /// Each hub knows what can be reached at the other.
    Bridged {
        /// The first hub.
        a: HubId,
        /// The second hub.
        b: HubId,
    },
    /// A connection is away, and is made again by itself. Meanwhile nothing passes.
    Lost {
        /// Which side.
        side: Side,
        /// Why.
        reason: CloseReason,
        /// When the next try is made.
        retry: Duration,
    },
    /// The bridge is over. Nothing comes after this.
    Closed(BridgeClosed),
}

/// Why a bridge is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeClosed {
    /// It was closed.
    #[error("closed by this side")]
    Local,
    /// Both ends are the same hub.
    #[error("both ends are the hub {0}: a bridge joins two")]
    SameHub(HubId),
    /// The credential at a hub has no such capability.
    #[error("the credential at hub {hub} is not a bridge's: name the secret of `--bridge-secret-file` of that hub")]
    NoBridge {
        /// Which side.
        side: Side,
        /// The hub.
        hub: HubId,
    },
    /// A hub would not have it.
    #[error("{refusal}")]
    Refused {
        /// Which side.
        side: Side,
        /// Why.
        refusal: Refusal,
    },
    /// A connection is over, and does not come back.
    #[error("{reason}")]
    Lost {
        /// Which side.
        side: Side,
        /// Why.
        reason: CloseReason,
    },
}

/// Running totals since the bridge started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages passed on.
    pub passed: u64,
    /// Messages dropped, or calls refused, because they are not allowed here.
    pub forbidden: u64,
    /// The same, because of the rate.
    pub throttled: u64,
    /// The same, because the other hub does not take what waits for it.
    pub crowded: u64,
    /// The same, because the other hub's frames are shorter.
    pub too_large: u64,
    /// The same, because the other hub is away.
    pub parted: u64,
}
