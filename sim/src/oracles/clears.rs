//! Channels that an admin ends, whoever owns them: nobody else can, and an admin only those that it asked for.
//!
//! ```text
//!   asked ──► Left, for everybody ──► Terminated ──► Cleared ──► answered
//! ```

use std::collections::BTreeSet;

use commipc_protocol::client::{Answer, CallFailure, Failure, Outgoing, Token};
use commipc_protocol::{ChannelName, Misuse, Refusal};

use super::owners::End;
use super::{Verdict, ensure};
use crate::node::NodeId;

/// A channel that ended, and on which connection its owner had asked for that.
pub(super) type Ended = (NodeId, ChannelName, Option<End>);

/// What admins ask, and others that are none, and what the hub says of it.
#[derive(Debug, Default)]
pub(super) struct Clears {
    pub(super) admins: BTreeSet<NodeId>,
    asked: Vec<Clear>,
    /// What the hub said last, if that was an end.
    pub(super) ended: Option<Ended>,
    /// Whose request an end is taken for that is about to be told.
    pub(super) blamed: Option<End>,
    /// An end that has no other reason than an admin, which the hub must say.
    unexplained: Option<(NodeId, ChannelName)>,
}

#[derive(Debug)]
struct Clear {
    node: NodeId,
    token: Token,
    hub: Option<NodeId>,
    end: End,
    channel: ChannelName,
    /// The hub says that it was done.
    done: bool,
}

impl Clear {
    fn is_like(&self, other: &Self) -> bool {
        (self.hub, self.end, &self.channel) == (other.hub, other.end, &other.channel)
    }
}

impl Clears {
    pub(super) fn asks(&mut self, node: NodeId, token: Token, (hub, end): (Option<NodeId>, End), said: &Outgoing) {
        if let Some(channel) = asked_of(said) {
            self.asked.push(Clear { node, token, hub, end, channel, done: false });
        }
    }

    /// Whether an end may be an admin's doing. Then the hub has to say so.
    pub(super) fn explain(&mut self, hub: NodeId, channel: &ChannelName) -> bool {
        let may = |it: &Clear| self.admins.contains(&it.node) && it.hub == Some(hub) && it.channel == *channel;
        let may = self.asked.iter().any(|it| !it.done && may(it));
        if may {
            self.unexplained = Some((hub, channel.clone()));
        }
        may
    }

    /// The hub says that a client has ended a channel.
    pub(super) fn claimed(&mut self, hub: NodeId, channel: &ChannelName, by: Option<NodeId>, end: End) -> Verdict {
        self.unexplained = None;
        let may = by.is_some_and(|by| self.admins.contains(&by));
        ensure(may, || format!("{by:?} has cleared {channel}, and is no admin"))?;
        let asked = self
            .asked
            .iter_mut()
            .find(|it| !it.done && Some(it.node) == by && (it.hub, it.end, &it.channel) == (Some(hub), end, channel));
        match asked {
            Some(asked) => asked.done = true,
            None => return Err(format!("{by:?} has cleared {channel}, which it did not ask")),
        }
        Ok(())
    }

    pub(super) fn answered(&mut self, node: NodeId, token: Token, result: &Result<Answer, CallFailure>) -> Verdict {
        let Some(index) = self.asked.iter().position(|it| (it.node, it.token) == (node, token)) else { return Ok(()) };
        let (done, refusal) = match result {
            Ok(_) => (true, None),
            Err(CallFailure::Fault(_)) => (false, None),
            Err(CallFailure::Failed { failure: Failure::Refused(refusal), .. }) => (false, Some(*refusal)),
            Err(CallFailure::Failed { failure: Failure::RefusedCode(_), .. }) => (false, None),
            Err(CallFailure::Failed { failure: Failure::Local(misuse), .. }) => {
                if !matches!(misuse, Misuse::Deadline | Misuse::Cancelled | Misuse::Disconnected | Misuse::Closed) {
                    self.asked.remove(index);
                }
                // Otherwise the hub may do it all the same.
                return Ok(());
            }
        };
        let asked = self.asked.remove(index);
        ensure(refusal != Some(Refusal::NotAllowed) || !self.admins.contains(&node), || {
            format!("{node:?} is an admin, and may not clear {}", asked.channel)
        })?;
        if asked.done == done {
            return Ok(());
        }
        // Of several alike, which one was done cannot be told.
        match self.asked.iter_mut().find(|it| it.is_like(&asked) && it.done == done) {
            Some(other) => other.done = !done,
            None => return Err(format!("{asked:?} is answered with {result:?}")),
        }
        Ok(())
    }

    pub(super) fn gone(&mut self, hub: NodeId, end: End) {
        self.asked.retain(|it| (it.hub, it.end) != (Some(hub), end));
    }

    pub(super) fn drained(&mut self, hub: NodeId) -> Verdict {
        self.blamed = None;
        let left = self.unexplained.take_if(|it| it.0 == hub);
        ensure(left.is_none(), || format!("{left:?} ended without a reason, and no admin has cleared it"))
    }
}

/// The channel that somebody asks to be cleared: a map of one entry.
fn asked_of(said: &Outgoing) -> Option<ChannelName> {
    if (said.channel.as_str(), said.event.as_str()) != ("__comm_ipc_system", "clear") {
        return None;
    }
    let (head, name) = said.payload.bytes.strip_prefix(b"\xa1\x67channel")?.split_first()?;
    let name = std::str::from_utf8(name).ok().filter(|name| usize::from(*head) == 0x60 + name.len())?;
    ChannelName::new(name).ok()
}
