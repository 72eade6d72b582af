//! What the judge of owners knows of one channel, and what its policy makes of an owner that goes.

use std::collections::BTreeSet;

use commipc_protocol::{AfterGrace, Instant, OwnerPolicy};
use core::time::Duration;

use crate::node::NodeId;

/// One channel of one hub.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) members: BTreeSet<NodeId>,
    pub(super) owner: Option<NodeId>,
    /// Who may come back to it, and until when it is waited for.
    pub(super) away: Option<(NodeId, Option<Instant>)>,
    /// The same, if its joining is enough.
    pub(super) heir: Option<NodeId>,
    pub(super) policy: OwnerPolicy,
    /// Which of several openings made the channel, and so its policy, cannot be told from outside.
    pub(super) unknown: bool,
    /// Its owner went, and so what follows cannot be told either.
    pub(super) adrift: bool,
    /// Who went so, and may come back or not.
    pub(super) drifted: Option<NodeId>,
    /// It may be protected even where `protected` says no.
    pub(super) blurred: bool,
    /// Whoever opened it does not want it.
    pub(super) plain: bool,
    pub(super) epoch: u64,
    pub(super) protected: bool,
    /// Members are asked whether they want it.
    pub(super) offered: bool,
    pub(super) due: Option<Due>,
    pub(super) empty_since: Option<Instant>,
}

/// What the hub must say at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// That the channel ended; and whether its owner may come back to it.
    Terminated { returns: Option<NodeId> },
    /// That nobody owns it.
    Unowned,
}

/// How long before it was said something may have happened: the driver reads clocks early and drains late.
const SLACK: Duration = Duration::from_millis(12);

impl Room {
    /// Whether this member, the only one, owns the channel by opening it.
    pub(super) fn is_free(&self, node: NodeId) -> bool {
        // Whose name it stays only if it had a password, which is not certain.
        let kept = self.away.is_some_and(|(_, until)| until.is_some() || !self.blurred);
        let nobodys = self.owner.is_none() && !(kept || self.offered || self.adrift || self.protected);
        nobodys && self.members.len() == 1 && self.members.contains(&node)
    }

    /// Whether members may have been asked, or the grace is over and this follows.
    pub(super) fn is_offered(&self, at: Instant, follows: AfterGrace) -> bool {
        let over = self.away.is_some_and(|(_, until)| until.is_some_and(|until| at + SLACK >= until));
        let then = match self.policy {
            OwnerPolicy::Hold { then, .. } => then == follows,
            OwnerPolicy::Terminate => follows == AfterGrace::Terminate,
            OwnerPolicy::Promote => follows == AfterGrace::Promote,
        };
        self.offered && follows == AfterGrace::Promote || over && then
    }

    pub(super) const fn drifts(&mut self, owner: NodeId) {
        (self.adrift, self.drifted) = (true, Some(owner));
    }

    pub(super) fn owner_went(&mut self, at: Instant, owner: NodeId, lost: bool) {
        let after = match (self.policy, lost) {
            _ if self.unknown => {
                self.drifts(owner);
                return;
            }
            (OwnerPolicy::Hold { grace, .. }, true) => {
                self.away = Some((owner, Some(at + grace)));
                self.due = Some(Due::Unowned);
                return;
            }
            (OwnerPolicy::Hold { then, .. }, false) => then,
            (OwnerPolicy::Terminate, _) => AfterGrace::Terminate,
            (OwnerPolicy::Promote, _) => AfterGrace::Promote,
        };
        match after {
            AfterGrace::Terminate => self.due = Some(Due::Terminated { returns: lost.then_some(owner) }),
            AfterGrace::Promote => self.offered = true,
        }
    }

    /// It has ended for everybody, and nothing is remembered of its owner and its password.
    pub(super) const fn cleared(&mut self) {
        (self.owner, self.away, self.heir, self.drifted, self.due) = (None, None, None, None, None);
        (self.protected, self.blurred, self.offered, self.adrift) = (false, false, false, false);
    }
}
