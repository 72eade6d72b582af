//! Judges of a run. Each keeps a truth of its own from what is seen, and shares no code with the product.
//!
//! An oracle sees every input and output of every machine in order, with the world's time, and says what cannot be.
//! When the world has settled it is asked once more, for what should have come and did not.
//!
//! To add one: a file here with a type that implements [`Oracle`], a line in [`all`], and a unit test in which it bites.

mod answers;
mod authentication;
mod clears;
mod deliveries;
mod drains;
mod endings;
mod exchanges;
mod flows;
#[cfg(test)]
mod flows_tests;
mod gaps;
mod hub_drains;
mod leaks;
mod members;
mod outputs;
mod owners;
#[cfg(test)]
mod owners_tests;
mod people;
mod providers;
mod requests;
mod rooms;
#[cfg(test)]
mod scene;
mod seals;
#[cfg(test)]
mod seals_tests;
mod streams;
mod tables;

use bytes::Bytes;
use commipc_protocol::client::{Incoming, Outgoing, Payload};
use commipc_protocol::{ChannelName, ClientId, EventName, Instant, Limits, OwnerPolicy};
use core::time::Duration;

use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

pub use answers::Answers;
pub use authentication::Authentication;
pub use deliveries::Deliveries;
pub use drains::Drains;
pub use endings::Endings;
pub use hub_drains::HubDrains;
pub use leaks::{Census, Leaks};
pub use members::Members;
pub use outputs::Outputs;
pub use owners::Owners;
pub use providers::Providers;
pub use requests::Requests;
pub use seals::Seals;
pub use streams::Streams;
pub use tables::Tables;

/// Nothing, or what is wrong in one sentence.
pub type Verdict = Result<(), String>;

/// A sight of the standard world.
pub type Seen<'a> = Sight<'a, Asked, Told>;

/// Who a node of the world is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The id it asks for, if it is a client.
    pub id: Option<ClientId>,
    /// Whether it holds a secret that its hub accepts.
    pub honest: bool,
    /// Whether its hub lets it end channels that are others'.
    pub admin: bool,
    /// What becomes of channels whose owners go, if it is a hub.
    pub policy: Option<OwnerPolicy>,
    /// What it allows, where that is judged.
    pub limits: Option<Limits>,
}

/// A password that applications of a world give to channels, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Password(pub u8);

/// The salt of a protection, which no two protections of a world share.
pub type Salt = [u8; 16];

/// Judges a run.
pub trait Oracle {
    /// Names it in a failure; a shrunk run must fail by the same name.
    fn name(&self) -> &'static str;

    /// A node joined the world.
    fn joined(&mut self, _node: NodeId, _who: &Resident) {}

    /// The next command that this node is fed holds a channel's keys: this is what they are derived from.
    fn derived(&mut self, _node: NodeId, _channel: &ChannelName, _salt: Salt, _password: Password) {}

    /// Something was seen.
    ///
    /// # Errors
    /// When it cannot be.
    fn saw(&mut self, at: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict;

    /// Nothing more is asked of a node and all time limits have passed; this is what it still holds.
    ///
    /// # Errors
    /// When it holds something of what was asked before.
    fn rested(&mut self, _node: NodeId, _census: &Census) -> Verdict {
        Ok(())
    }

    /// The process of a node died without a word, and what it held is gone.
    fn died(&mut self, _node: NodeId) {}

    /// A node begins to stand still, and its clock with it: what it has to do by then may come so much later.
    fn stands_still(&mut self, _node: NodeId, _by: Duration) {}

    /// What a node holds at any moment.
    ///
    /// # Errors
    /// When it may not hold so much.
    fn holds(&mut self, _node: NodeId, _census: &Census) -> Verdict {
        Ok(())
    }

    /// Every peer of a node is gone; this is what it still holds.
    ///
    /// # Errors
    /// When that should be gone too.
    fn emptied(&mut self, _node: NodeId, _census: &Census) -> Verdict {
        Ok(())
    }

    /// Nothing more is asked and all time limits have passed.
    ///
    /// # Errors
    /// When something is missing.
    fn settled(&mut self) -> Verdict {
        Ok(())
    }
}

/// Every oracle, fresh.
#[must_use]
pub fn all() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(Requests::default()),
        Box::new(Deliveries::default()),
        Box::new(Answers::default()),
        Box::new(Endings::default()),
        Box::new(Drains::default()),
        Box::new(HubDrains::default()),
        Box::new(Streams::default()),
        Box::new(Providers::default()),
        Box::new(Owners::default()),
        Box::new(Members::default()),
        Box::new(Seals::default()),
        Box::new(Authentication::default()),
        Box::new(Outputs::default()),
        Box::new(Leaks::default()),
        Box::new(Tables::default()),
    ]
}

/// Every oracle whose truth does not depend on what clients ask by themselves when their connections come back.
#[must_use]
pub fn of_returning() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(Requests::default()),
        Box::new(Deliveries::default()),
        Box::new(Answers::default()),
        Box::new(Streams::at_any_time()),
        Box::new(Seals::default()),
        Box::new(Authentication::default()),
        Box::new(Outputs::default()),
        Box::new(Leaks::default()),
        Box::new(Tables::default()),
    ]
}

/// The same where bridges join hubs.
#[must_use]
pub fn of_bridges() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(Requests::default()),
        Box::new(Deliveries::over_bridges()),
        Box::new(Answers::default()),
        Box::new(Streams::at_any_time()),
        Box::new(Seals::default()),
        Box::new(Authentication::default()),
        Box::new(Outputs::default()),
        Box::new(Leaks::default()),
        Box::new(Tables::default()),
    ]
}

/// The same beside a bridge that lies: what is heard and answered where nothing is signed may be its own.
#[must_use]
pub(crate) fn beside_liars() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(Requests::default()),
        Box::new(Seals::default()),
        Box::new(Authentication::default()),
        Box::new(Outputs::default()),
        Box::new(Leaks::default()),
        Box::new(Tables::default()),
    ]
}

/// Every oracle whose truth does not depend on what is asked by a client that says what it likes.
pub(crate) fn beside_anybody() -> Vec<Box<dyn Oracle>> {
    vec![Box::new(Requests::default()), Box::new(Authentication::default()), Box::new(Outputs::default())]
}

/// Every oracle whose truth is that of clients alone, so that it holds whatever their hub does.
#[must_use]
pub fn against_hubs() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(Requests::punctual()),
        Box::new(Drains::of_clients()),
        Box::new(Seals::default()),
        Box::new(Authentication::default()),
        Box::new(Outputs::default()),
        Box::new(Leaks::default()),
        Box::new(Tables::default()),
    ]
}

/// What a message says, whoever says it: by this the saying and the hearing are matched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Content {
    pub(crate) channel: ChannelName,
    pub(crate) event: EventName,
    pub(crate) bytes: Bytes,
    pub(crate) raw: bool,
    pub(crate) metadata: Bytes,
}

impl Content {
    pub(crate) fn said(said: &Outgoing) -> Self {
        let Outgoing { channel, event, payload, metadata, .. } = said;
        Self::new(channel, event, payload, metadata)
    }

    pub(crate) fn heard(heard: &Incoming) -> Self {
        let Incoming { source, payload, metadata, .. } = heard;
        Self::new(&source.channel, &source.event, payload, metadata)
    }

    fn new(channel: &ChannelName, event: &EventName, payload: &Payload, metadata: &Bytes) -> Self {
        let Payload { bytes, raw } = payload.clone();
        Self { channel: channel.clone(), event: event.clone(), bytes, raw, metadata: metadata.clone() }
    }
}

/// The prefix of the hub's own channels, and who speaks there.
const RESERVED: &str = "__comm_ipc";
pub(crate) const SYSTEM: &str = "system";

pub(crate) fn is_hubs_own(channel: &ChannelName) -> bool {
    channel.as_str().starts_with(RESERVED)
}

/// Turns a condition into a verdict.
pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}
