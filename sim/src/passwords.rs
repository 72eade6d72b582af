//! Channels' passwords in a world: their keys are derived outside the machines, and oracles know from which.

use commipc_protocol::ChannelName;
use commipc_protocol::auth::{ChannelMaster, Kdf, Secret};
use commipc_protocol::client::{ChannelSalt, Command, Token};

use crate::node::NodeId;
use crate::oracles::{Password, Salt};
use crate::world::World;

impl World {
    /// Derives from a password what a client was asked for.
    pub(crate) fn derive(&mut self, node: NodeId, channel: ChannelName, salt: Salt, password: Password) {
        let Some(master) = master(password, &salt) else { return };
        self.bring(node, &channel, salt, password);
        self.ask(node, Command::ChannelKeyDerived { channel, salt: of_key(salt), master });
    }

    /// Asks to protect a channel with a password, under a salt of its own.
    pub(crate) fn protect(&mut self, node: NodeId, token: Token, channel: ChannelName, password: Password) {
        self.salts += 1;
        let mut salt = [0x5a; 16];
        for (byte, number) in salt.iter_mut().zip(self.salts.to_be_bytes()) {
            *byte = number;
        }
        let Some(master) = master(password, &salt) else { return };
        self.passwords.insert(salt, password);
        self.bring(node, &channel, salt, password);
        self.ask(node, Command::Protect { token, channel, salt: of_key(salt), master });
    }

    fn bring(&mut self, node: NodeId, channel: &ChannelName, salt: Salt, password: Password) {
        self.watch.oracles.iter_mut().for_each(|oracle| oracle.derived(node, channel, salt, password));
    }
}

const fn of_key(salt: Salt) -> ChannelSalt {
    ChannelSalt { kdf: Kdf::Key, salt, iterations: 0 }
}

impl Password {
    /// What it stands for: a key, so that nothing is slow.
    #[must_use]
    pub const fn bytes(self) -> [u8; 32] {
        [0xc0 ^ self.0; 32]
    }
}

/// What a password becomes.
pub(crate) fn master(password: Password, salt: &Salt) -> Option<ChannelMaster> {
    Secret::key(password.bytes()).derive(salt, 0).ok().and_then(|salted| ChannelMaster::new(&salted).ok())
}
