//! What machines hold, by their own word.

use commipc_protocol::Machine as _;
use commipc_protocol::bridge::Bridge;
use commipc_protocol::client::{self, Client};
use commipc_protocol::hub::{self, Hub};

use crate::node::NodeId;
use crate::oracles::Census;
use crate::station::Station;
use crate::twin::Twins;
use crate::world::World;

fn held_by_client(client: &Client) -> Vec<(&'static str, usize)> {
    held_of(client.load()).chain([("timers", usize::from(client.poll_timeout().is_some()))]).collect()
}

fn held_by_bridge(bridge: &Bridge) -> Vec<(&'static str, usize)> {
    let held = bridge.load().into_iter().flat_map(held_of);
    held.chain([("timers", usize::from(bridge.poll_timeout().is_some()))]).collect()
}

fn held_of(load: client::Load) -> impl Iterator<Item = (&'static str, usize)> {
    let client::Load { calls, serving, controls, sends, parked, parked_bytes, .. } = load;
    let client::Load { streams, windows, flowing, unwritten, deadlines, .. } = load;
    let tables = [("calls", calls), ("serving", serving), ("controls", controls), ("sends", sends), ("parked", parked)];
    let streams = [("streams", streams), ("windows", windows), ("flowing", flowing), ("unwritten", unwritten)];
    tables.into_iter().chain(streams).chain([("parked bytes", parked_bytes), ("deadlines", deadlines)])
}

pub(crate) fn held_by(hub: &Hub) -> Vec<(&'static str, usize)> {
    let load = hub.load();
    let hub::Load { links, clients, channels, calls, routes, streams, .. } = load;
    let hub::Load { deadlines, joins, bridged, errands, announced, buffered, memory, .. } = load;
    let tables = [("links", links), ("clients", clients), ("channels", channels), ("calls", calls), ("routes", routes)];
    let others =
        [("streams", streams), ("joins", joins), ("errands", errands), ("buffered", buffered), ("memory", memory)];
    let bridges = [("announced", announced), ("calls over bridges", bridged), ("deadlines", deadlines)];
    let timers = [("timers", usize::from(hub.poll_timeout().is_some()))];
    tables.into_iter().chain(others).chain(bridges).chain(timers).collect()
}

impl World {
    /// What a machine holds, by its own word.
    #[must_use]
    pub fn census(&self, node: NodeId) -> Census {
        Census(match self.engine.machine(node).map(Twins::shown) {
            Some(Station::Hub(hub)) => held_by(hub),
            Some(Station::Bridge(bridge)) => held_by_bridge(bridge),
            Some(Station::Mallory(mallory)) => held_by(mallory.inside()),
            Some(Station::Client(client)) => held_by_client(client),
            Some(Station::Rogue(rogue)) => held_by_client(rogue.inside()),
            None => Vec::new(),
        })
    }

    /// Asks every oracle whether no machine holds more than it may.
    pub(crate) fn judge_held(&mut self) {
        for node in (0..self.watch.names.len()).map(|index| NodeId::new(u32::try_from(index).unwrap_or(u32::MAX))) {
            let census = self.census(node);
            self.watch.judge(self.engine.now(), node, |oracle| oracle.holds(node, &census));
        }
    }

    /// Asks every oracle whether a machine of which nothing is asked any more holds nothing of what was.
    pub fn judge_rested(&mut self, node: NodeId) {
        let census = self.census(node);
        self.watch.judge(self.engine.now(), node, |oracle| oracle.rested(node, &census));
    }

    /// Asks every oracle whether a machine without peers holds nothing.
    pub fn judge_empty(&mut self, node: NodeId) {
        let census = self.census(node);
        self.watch.judge(self.engine.now(), node, |oracle| oracle.emptied(node, &census));
    }
}
