//! What is protected when everything is repaired, by the word of somebody without a password: the hub asks for the password
//! that the owner gave last, and nobody who has one is a member of a channel without.

use std::collections::BTreeMap;

use commipc_protocol::auth::Kdf;
use commipc_protocol::client::{Access, Command, Event, Failure, Token};
use commipc_protocol::{ChannelName, Refusal};
use core::time::Duration;

use super::Returning;
use crate::world::World;

/// How long the hub may take to say what it asks for.
const SAYS: Duration = Duration::from_secs(15);

impl Returning {
    /// The salt of the owner's password of each channel of which a member knows that it has one; nothing where no owner knows.
    fn protected(&self) -> BTreeMap<ChannelName, Option<[u8; 16]>> {
        let mut protected: BTreeMap<ChannelName, Option<[u8; 16]>> = BTreeMap::new();
        for belief in &self.beliefs {
            for (channel, room) in belief.rooms.iter().filter(|(_, room)| room.guarded && !room.late) {
                let salt = protected.entry(channel.clone()).or_default();
                *salt = salt.or(room.salt.filter(|_| room.owns));
            }
        }
        protected
    }

    pub(super) fn judge_protection(&mut self, world: &mut World) {
        let (mut protected, Some(probe)) = (self.protected(), self.probe) else { return };
        if protected.is_empty() {
            return;
        }
        let heard = world.told.get(&probe).map_or(0, Vec::len);
        world.ask(probe, Command::Connect);
        self.pass(world, SAYS);
        let mut asked: Vec<(ChannelName, Token)> = Vec::new();
        for channel in protected.keys() {
            // Bare first, and then with some password.
            for secret in [None, Some(Kdf::Key)] {
                let (token, channel) = (world.token(), channel.clone());
                asked.extend(secret.is_none().then(|| (channel.clone(), token)));
                let access = Access { secret, policy: None, plain: true };
                world.ask(probe, Command::Open { token, channel, access });
                self.pass(world, SAYS);
            }
        }
        // One that was held for its owner may end meanwhile.
        let still = self.protected();
        protected.retain(|channel, salt| still.get(channel) == Some(salt));
        let told = world.told.get(&probe).and_then(|told| told.get(heard..)).unwrap_or_default();
        let refused = Err(Failure::Refused(Refusal::PasswordRequired));
        let is_refused = |token: &Token| {
            told.iter()
                .any(|event| matches!(event, Event::Done { token: of, result } if of == token && *result == refused))
        };
        let mut wrong: Vec<String> = Vec::new();
        for (channel, token) in &asked {
            if protected.contains_key(channel) && !is_refused(token) {
                wrong.push(format!("{channel} is open to everybody, and has members with a password"));
            }
        }
        for (channel, salt) in &protected {
            let asks = told.iter().find_map(|event| {
                let Event::DeriveChannelKey { channel: of, salt } = event else { return None };
                (of == channel).then_some(salt.salt)
            });
            if asks.is_none() || salt.is_some() && *salt != asks {
                wrong.push(format!("{channel} is protected by {asks:?}, and its owner gave it {salt:?}"));
            }
        }
        for what in wrong {
            world.fails("returning", self.hub, what);
        }
        self.marks.met("the password of a channel is looked at");
        world.ask(probe, Command::Close);
        self.pass(world, SAYS);
    }
}
