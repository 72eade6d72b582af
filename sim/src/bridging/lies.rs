//! A bridge more, which lies for as long as the storm lasts: whom it harms, and how.
//!
//! Nothing it makes of messages is accepted on the channel with a password ([`crate::oracles`] see to that), it ends nobody's
//! connection but its own, and when it is gone all heals as if it had never been.

use commipc_protocol::client::{Event, Reconnect, ReconnectEvent};
use commipc_protocol::hub::{self, DisconnectReason};
use commipc_protocol::{CloseReason, Limits};

use super::{Bridging, Graph};
use crate::decisions::Decisions;
use crate::node::NodeId;
use crate::returning::drawn_twins;
use crate::weather::Weather;
use crate::world::World;

/// The choice that means that a bridge lies, of so many. No world that was recorded before there were liars has one.
const LIES: u64 = 7;
const OF: u64 = 8;

/// Whether a world has a bridge that lies.
fn is_drawn(decisions: &mut Decisions) -> bool {
    let stream = decisions.stream("liars");
    decisions.on(stream).below(OF) == LIES
}

/// Whether a bridge lies here; where none does, and nobody is on the path of connections, machines may have twins.
///
/// What a bridge says for a frame it says when it has read what came with that, which may end the link: cuts show there.
pub(super) fn drawn(mut world: World, weather: &mut Weather, besieged: bool) -> (World, bool) {
    if besieged {
        return (world, false);
    }
    if is_drawn(world.engine().decisions()) {
        // Nobody can tag what another says.
        weather.transports = [0, 0, 1];
        return (world, true);
    }
    (drawn_twins(world), false)
}

/// Adds it, beside an honest one.
pub(super) fn add(mut world: World, graph: &Graph, limits: &Limits, policy: Reconnect) -> (World, Option<NodeId>) {
    let stream = world.engine().decisions().stream("liars");
    let edge = world.engine().decisions().on(stream).index(graph.edges.len());
    let [a, b] = graph.edges[edge].map(|hub| format!("h{hub}"));
    world = world.bridge("liar", [&a, &b], limits.clone(), policy);
    world.lies("liar");
    let liar = world.bridges().last().copied();
    (world, liar)
}

impl Bridging {
    pub(super) fn begin_lies(&self, world: &mut World) {
        if let Some(liar) = self.liar {
            world.start_bridge(liar);
        }
    }

    /// Somebody finds out about it.
    pub(super) fn end_lies(&mut self, world: &mut World) {
        let Some(liar) = self.liar else { return };
        world.kill_bridge(liar, false);
        for (lie, count) in world.engine().lied() {
            *self.marks.0.entry(lie).or_default() += count;
        }
        self.judge_blame(world);
    }

    /// No connection has ended but its own because of what somebody said on it.
    fn judge_blame(&self, world: &mut World) {
        let mut blamed = Vec::new();
        for hub in &self.hubs {
            for event in world.hub_told.get(hub).into_iter().flatten() {
                if let hub::Event::Disconnected { client, why: DisconnectReason::Violation(why), .. } = event
                    && self.beliefs.iter().any(|belief| belief.id == *client)
                {
                    blamed.push((*hub, format!("{client} was blamed for what a bridge said: {why}")));
                }
            }
        }
        for belief in &self.beliefs {
            for event in world.told.get(&belief.node).into_iter().flatten() {
                if let Event::Reconnect(ReconnectEvent::Lost { reason: CloseReason::Violation(why), .. })
                | Event::Closed(CloseReason::Violation(why)) = event
                {
                    blamed.push((belief.node, format!("its hub was blamed for what a bridge said: {why}")));
                }
            }
        }
        if let Some((node, what)) = blamed.into_iter().next() {
            world.fails("bridges", node, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds of which something was recorded: tests/bridging.rs, and what is said of them in CHANGELOG.md.
    const RECORDED: [u64; 8] = [3, 32, 42, 116, 1092, 1126, 1241, 1411];

    #[test]
    fn recorded_worlds_have_no_liar_and_some_others_do() {
        let drawn = |seed: u64| {
            let mut decisions = Decisions::seeded(seed);
            let stream = decisions.stream("liars");
            decisions.on(stream).below(OF)
        };
        let recorded = RECORDED.map(drawn);
        assert!(!recorded.contains(&LIES), "{recorded:?}");
        let lying = (0..800).filter(|seed| is_drawn(&mut Decisions::seeded(*seed))).count();
        assert!((50..150).contains(&lying), "{lying}");
    }
}
