//! What the hub of a world says of itself, in its present life.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::hub::{DisconnectReason, Event};
use commipc_protocol::{ChannelName, ClientId, Instant, Refusal};

use super::beliefs::Place;
use super::causes::Past;
use crate::marks::Marks;

/// Who is there, by the hub's word.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// How much of what it has told is known, or belongs to an earlier life.
    heard: usize,
    pub(super) connected: BTreeSet<ClientId>,
    pub(super) members: BTreeMap<ChannelName, BTreeSet<ClientId>>,
    pub(super) provided: BTreeMap<Place, ClientId>,
    pub(super) owners: BTreeMap<ChannelName, ClientId>,
    /// Channels that got a password in this life, which may have known of more.
    pub(super) guarded: BTreeSet<ChannelName>,
}

impl Claims {
    /// The hub died: it says nothing of the past any more.
    pub(super) fn die(&mut self, told: &[Event]) {
        *self = Self { heard: told.len(), ..Self::default() };
    }

    /// Hears what the hub has told since.
    pub(super) fn listen(&mut self, now: Instant, told: &[Event], marks: &mut Marks, past: &mut Past) {
        for event in told.get(self.heard..).unwrap_or_default() {
            self.hear(event, marks);
            past.hear(now, event);
        }
        self.heard = told.len();
    }

    fn hear(&mut self, event: &Event, marks: &mut Marks) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else says who is there")]
        match event {
            Event::Connected { client, .. } => {
                self.connected.insert(client.clone());
            }
            Event::Disconnected { client, why, .. } => {
                self.connected.remove(client);
                match why {
                    DisconnectReason::Refused(Refusal::Superseded) => marks.met("an old link is taken over from"),
                    DisconnectReason::Refused(Refusal::Idle) => marks.met("a hub gives up a silent link"),
                    DisconnectReason::Goodbye
                    | DisconnectReason::Lost
                    | DisconnectReason::Refused(_)
                    | DisconnectReason::Violation(_) => {}
                }
            }
            Event::Joined { channel, client } => {
                self.members.entry(channel.clone()).or_default().insert(client.clone());
            }
            Event::Left { channel, client } => {
                if let Some(members) = self.members.get_mut(channel) {
                    members.remove(client);
                }
                if self.owners.get(channel) == Some(client) {
                    self.owners.remove(channel);
                }
            }
            Event::Provided { channel, event, client, .. } => {
                self.provided.insert((channel.clone(), event.clone()), client.clone());
            }
            Event::Withdrawn { channel, event, .. } => {
                self.provided.remove(&(channel.clone(), event.clone()));
            }
            Event::OwnerChanged { channel, owner: Some(owner) } => {
                self.owners.insert(channel.clone(), owner.clone());
            }
            Event::OwnerChanged { channel, owner: None } => {
                self.owners.remove(channel);
            }
            Event::Terminated { channel } => {
                self.owners.remove(channel);
            }
            Event::ProtectionChanged { channel, protected: true, .. } => {
                self.guarded.insert(channel.clone());
            }
            Event::ProtectionChanged { channel, protected: false, .. } => {
                self.guarded.remove(channel);
            }
            _ => {}
        }
    }
}
