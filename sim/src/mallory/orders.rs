//! Worlds whose hub is malicious, and what a suite tells it to do.

use bytes::Bytes;
use commipc_protocol::ClientId;
use commipc_protocol::wire::FrameType;

use super::{Malice, Mallory};
use crate::node::NodeId;
use crate::station::{Asked, Station};
use crate::twin::Twins;
use crate::world::World;

/// What a suite tells a malicious hub, or a client that nobody should trust.
#[derive(Clone, Debug)]
pub enum Order {
    /// The hub: to behave so from now on.
    Turn(Malice),
    /// The hub: to give a client a frame as if it had passed.
    Inject {
        /// Whom.
        to: ClientId,
        /// The whole frame.
        frame: Bytes,
    },
    /// The client: to send no frame of this type by itself.
    Mute(FrameType),
    /// The client: to send this on the link that it has.
    Say(Bytes),
}

impl World {
    /// Lets a malicious hub behave so from now on.
    pub fn turns(&mut self, hub: &str, malice: Malice) {
        self.orders(hub, Order::Turn(malice));
    }

    /// Lets a malicious hub give a client a frame as if it had passed.
    ///
    /// # Panics
    /// When no client can be called so.
    pub fn injects(&mut self, hub: &str, to: &str, frame: &[u8]) {
        let to = ClientId::new(to).unwrap_or_else(|error| panic!("{to}: {error}"));
        self.orders(hub, Order::Inject { to, frame: Bytes::copy_from_slice(frame) });
    }

    fn orders(&mut self, hub: &str, order: Order) {
        if let Some(node) = self.engine.find(hub) {
            self.engine.command(node, Asked::Malice(order), &mut self.watch);
            self.listen();
        }
    }

    /// A hub of this world, if it is malicious.
    #[must_use]
    pub fn mallory(&self, node: NodeId) -> Option<&Mallory> {
        match self.engine.machine(node).map(Twins::shown) {
            Some(Station::Mallory(mallory)) => Some(mallory),
            Some(Station::Client(_) | Station::Hub(_) | Station::Bridge(_) | Station::Rogue(_)) | None => None,
        }
    }
}
