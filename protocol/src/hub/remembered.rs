//! How many names of channels a credential makes the hub remember beyond their last member.
//!
//! What is protected, was protected or waits for its owner outlives those who opened it, so it is counted for one
//! credential from when it may until the name is forgotten. A client could fill a hub with names otherwise, leaving each.

use super::Hub;
use super::registry::ChannelIx;
use crate::error::Refusal;
use crate::names::CredentialId;

impl Hub {
    /// Whether a credential may make the hub remember this name as well.
    pub(super) fn has_name_room(&self, channel: Option<ChannelIx>, credential: &CredentialId) -> Result<(), Refusal> {
        let counts = |channel: ChannelIx| {
            self.registry.channel(channel).is_some_and(|it| it.guard.keeper.as_ref() == Some(credential))
        };
        if channel.is_some_and(counts) {
            return Ok(());
        }
        // Those that will count once they are stored count already.
        let soon = self.changes.protects(credential).filter(|it| Some(*it) != channel && !counts(*it));
        let names = self.names.get(credential).copied().unwrap_or(0) + soon.count();
        if names < self.limits.names { Ok(()) } else { Err(Refusal::TooManyNames) }
    }

    /// From now on the name counts for this credential, and for nobody else; there must be room.
    pub(super) fn keep_name(&mut self, channel: ChannelIx, credential: &CredentialId) {
        let Some(entry) = self.registry.channel_mut(channel) else { return };
        let former = entry.guard.keeper.replace(credential.clone());
        *self.names.entry(credential.clone()).or_default() += 1;
        self.name_released(former);
    }

    /// The name is about to be forgotten, or as good as any other.
    pub(super) fn release_name(&mut self, channel: ChannelIx) {
        let keeper = self.registry.channel_mut(channel).and_then(|entry| entry.guard.keeper.take());
        self.name_released(keeper);
    }

    fn name_released(&mut self, keeper: Option<CredentialId>) {
        if let Some(keeper) = keeper
            && let Some(names) = self.names.get_mut(&keeper)
        {
            *names -= 1;
            if *names == 0 {
                self.names.remove(&keeper);
            }
        }
    }
}
