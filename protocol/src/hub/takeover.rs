//! Taking over: a client whose old link lingers comes back on a new one, and the old one ends.
//!
//! Whoever wants a client's id while it is connected needs the same credential and instance, and a proof of the secret
//! whose stored key came with the login that holds the id. The login that takes over brings the next one.

use alloc::vec::Vec;

use super::registry::{ChannelIx, LinkIx};
use super::session::{Applicant, Session};
use super::{DisconnectReason, Hub};
use crate::error::Refusal;
use crate::policy::OwnerPolicy;

impl Hub {
    /// Whether an applicant is the client that is connected already.
    pub(super) fn is_same_client(&self, holder: LinkIx, applicant: &Applicant) -> bool {
        self.links.get(holder).and_then(Session::member).is_some_and(|member| {
            member.credential == *applicant.authenticated.credential_id() && member.identity.is_proved_by(applicant)
        })
    }

    /// Ends a client's old link in favour of its new one; gives what the two have in common.
    pub(super) fn supersede(&mut self, old: LinkIx) -> Option<u64> {
        let member = self.links.get(old).and_then(Session::member)?;
        let (lineage, credential) = (member.lineage, member.credential.clone());
        let owned: Vec<ChannelIx> = member.memberships.channels().filter(|channel| self.owns(old, *channel)).collect();
        for channel in owned {
            // They outlive their members now. Where that is too many, their owner goes as any other does.
            if self.has_name_room(Some(channel), &credential).is_ok() {
                self.keep_name(channel, &credential);
            }
        }
        self.end_link(old, DisconnectReason::Refused(Refusal::Superseded));
        Some(lineage)
    }

    fn owns(&self, ix: LinkIx, channel: ChannelIx) -> bool {
        self.registry.channel(channel).is_some_and(|channel| channel.guard.is_owned_by(ix))
    }

    /// Nobody is waited for any more: a name that was kept for that alone is no longer counted.
    pub(super) fn waits_no_more(&mut self, channel: ChannelIx) {
        let guard = self.registry.channel(channel).map(|channel| &channel.guard);
        let lasts = guard.is_some_and(|guard| guard.last_epoch > 0 || matches!(guard.policy, OwnerPolicy::Hold { .. }));
        if !lasts {
            self.release_name(channel);
        }
    }
}
