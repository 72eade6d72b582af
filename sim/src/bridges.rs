//! Bridges of a world: between which hubs they are, and what becomes of them.

use std::sync::Arc;

use commipc_protocol::auth::{Capabilities, Credential, IdPattern, Secret, Verifier};
use commipc_protocol::bridge::{Bridge, BridgeConfig, BridgeEnd, Command, Event};
use commipc_protocol::client::Reconnect;
use commipc_protocol::hub::HubConfig;
use commipc_protocol::{CredentialId, Limits, OwnerPolicy};

use crate::node::NodeId;
use crate::oracles::{self, Resident};
use crate::station::{Asked, Station};
use crate::twin::Twins;
use crate::world::{World, credentials};

/// What bridges prove to a hub with this secret of its clients.
fn key_of_bridges(key: [u8; 32]) -> [u8; 32] {
    key.map(|byte| byte ^ 0xb0)
}

fn credential() -> CredentialId {
    CredentialId::new("bridge").unwrap_or_else(|_| unreachable!("a constant"))
}

impl World {
    /// From now on only those oracles judge whose truth is not that of one hub.
    #[must_use]
    pub fn bridged(mut self) -> Self {
        self.watch.oracles = oracles::of_bridges();
        self
    }

    /// Adds a hub that bridges may join to others. Clients added later dial it.
    #[must_use]
    pub fn joined_hub(self, name: &str, limits: Limits, owner_policy: OwnerPolicy) -> Self {
        let key = [u8::try_from(self.watch.names.len()).unwrap_or(u8::MAX); 32];
        let verifier = Verifier::new(&Secret::key(key_of_bridges(key)), [4; 16], 0);
        let verifier = verifier.unwrap_or_else(|_| unreachable!("a key is never too slow"));
        let entry = Credential::new(verifier, Capabilities::BRIDGE, vec![IdPattern::any()]);
        let table = credentials(key).with(credential(), entry);
        self.keyed_hub(name, key, table, move |id, credentials| {
            (HubConfig { id, credentials, limits: limits.clone(), owner_policy }, None)
        })
    }

    /// Clients added later dial this hub.
    ///
    /// # Panics
    /// When there is no such hub.
    #[must_use]
    pub fn beside(mut self, hub: &str) -> Self {
        self.last_hub = Some(self.engine.find(hub).unwrap_or_else(|| panic!("no hub is called {hub}")));
        self
    }

    /// Adds a bridge between two hubs, which comes back by this policy. It begins with [`World::start_bridge`].
    ///
    /// # Panics
    /// When there are no such hubs.
    #[must_use]
    pub fn bridge(mut self, name: &str, hubs: [&str; 2], limits: Limits, policy: Reconnect) -> Self {
        let ends = hubs.map(|hub| {
            let node = self.engine.find(hub).unwrap_or_else(|| panic!("no hub is called {hub}"));
            let key = self.verifiers.get(&node).copied().unwrap_or_default();
            (Arc::<str>::from(format!("sim:{hub}")), key_of_bridges(key))
        });
        let resident = Resident { id: None, honest: true, policy: None, admin: false, limits: None };
        self.add(name, resident, move |seed| {
            let [a, b] =
                ends.clone().map(|(hub, key)| BridgeEnd { hub, credential: credential(), secret: Secret::key(key) });
            let (limits, reconnect) = (limits.clone(), Some(policy));
            let config =
                BridgeConfig { a, b, id: None, allow: Vec::new(), one_way: false, rate: None, limits, reconnect };
            Station::Bridge(Box::new(Bridge::new(config, seed)))
        });
        self
    }

    /// From now on only those oracles judge that a bridge cannot lie to: what is said on channels without a password may be
    /// its own.
    #[must_use]
    pub(crate) fn lied_to(mut self) -> Self {
        self.watch.oracles = oracles::beside_liars();
        self
    }

    /// From now on this bridge says what no honest one says.
    ///
    /// # Panics
    /// When there is no such bridge.
    pub(crate) fn lies(&mut self, name: &str) {
        let node = self.engine.find(name).unwrap_or_else(|| panic!("no bridge is called {name}"));
        self.engine.lies(node);
    }

    /// Every bridge, in the order of adding.
    #[must_use]
    pub fn bridges(&self) -> Vec<NodeId> {
        let all = (0..self.watch.names.len()).map(|index| NodeId::new(u32::try_from(index).unwrap_or(u32::MAX)));
        all.filter(|node| self.bridge_at(*node).is_some()).collect()
    }

    pub(crate) fn bridge_at(&self, node: NodeId) -> Option<&Bridge> {
        match self.engine.machine(node).map(Twins::shown) {
            Some(Station::Bridge(bridge)) => Some(bridge),
            Some(Station::Client(_) | Station::Hub(_) | Station::Mallory(_) | Station::Rogue(_)) | None => None,
        }
    }

    /// Hands a bridge a command.
    pub fn ask_bridge(&mut self, node: NodeId, command: Command) {
        self.engine.command(node, Asked::Bridge(command), &mut self.watch);
        self.listen();
    }

    /// A bridge's process dies. Its hubs notice, or with `silently` they do not.
    pub fn kill_bridge(&mut self, node: NodeId, silently: bool) {
        self.dies(node, silently);
        self.bridge_told.remove(&node);
    }

    /// A bridge that was killed, or never began, begins.
    pub fn start_bridge(&mut self, node: NodeId) {
        self.engine.start(node);
        self.ask_bridge(node, Command::Connect);
    }

    /// Everything a bridge has told in its present life.
    #[must_use]
    pub fn bridge_told(&self, node: NodeId) -> &[Event] {
        self.bridge_told.get(&node).map_or(&[], Vec::as_slice)
    }

    /// Whether a bridge has said that both its hubs know of each other, since it was lost last.
    #[must_use]
    pub fn is_bridged(&self, node: NodeId) -> bool {
        let mut told = self.bridge_told(node).iter().rev().filter(|event| !matches!(event, Event::Connected { .. }));
        matches!(told.next(), Some(Event::Bridged { .. }))
    }
}
