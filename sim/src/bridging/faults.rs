//! What befalls bridges, hubs and clients, until everything is repaired.

use commipc_protocol::bridge::Command;
use core::time::Duration;

use super::graph::Graph;
use super::{Bridging, FAULT, HUB, Phase, START};
use crate::decisions::Stream;
use crate::node::NodeId;
use crate::world::World;

/// In the order of the weights.
const FAULTS: [fn(&mut Bridging, &mut World); 9] = [
    Bridging::cut_bridge,
    Bridging::cut_side,
    Bridging::strand_both_ways,
    Bridging::strand_one_way,
    Bridging::kill_bridge,
    Bridging::kill_bridge_silently,
    Bridging::close_bridge,
    Bridging::cut_client,
    Bridging::kill_hub,
];

/// The most each may weigh.
const HEAVIEST: [u64; FAULTS.len()] = [6, 8, 4, 3, 6, 3, 3, 4, 4];

/// The longest from one fault to the next, and the shortest and longest that a process is down, in nanoseconds. A driver may
/// have something in hand for a link of a process that has just died.
const LONGEST_PAUSE: u64 = 40_000_000_000;
const DOWN: (u64, u64) = (1 << 25, 60_000_000_000);

/// What is still to come, and what is to be repaired.
#[derive(Debug)]
pub(super) struct Faults {
    stream: Stream,
    weights: Vec<u64>,
    pub(super) left: u64,
    bridges: Vec<State>,
    /// Which hubs are not there.
    hubs: Vec<bool>,
}

/// How it is with a bridge's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// It has said goodbye.
    Closed,
    Down,
}

impl Faults {
    pub(super) fn drawn(world: &mut World, graph: &Graph, immortal: bool) -> Self {
        let stream = world.engine().decisions().stream("faults");
        let mut choose = world.engine().decisions().on(stream);
        let weights = HEAVIEST.iter().map(|most| if choose.chance(1, 2) { 1 + choose.below(*most) } else { 0 });
        let mut weights: Vec<u64> = weights.collect();
        // Without its home, which has stored nothing, nobody can bring a channel with a password back.
        if let Some(last) = weights.last_mut().filter(|_| immortal) {
            *last = 0;
        }
        let left = if choose.chance(1, 6) { 0 } else { choose.log_uniform(1, 24) };
        Self { stream, weights, left, bridges: vec![State::Down; graph.edges.len()], hubs: vec![false; graph.hubs] }
    }
}

impl Bridging {
    /// Most bridges are there from the beginning, some come in the storm.
    pub(super) fn begin_bridges(&mut self, world: &mut World) {
        for bridge in 0..self.bridges.len() {
            let mut choose = world.engine().decisions().on(self.faults.stream);
            if choose.chance(1, 5) {
                let late = choose.log_uniform(DOWN.0, DOWN.1);
                world.plan(Duration::from_nanos(late), START + bridge as u64);
                self.marks.met("fault: a bridge comes late");
            } else {
                self.start_bridge(world, bridge);
            }
        }
    }

    pub(super) fn next_fault(&self, world: &mut World) {
        if self.faults.left > 0 {
            let pause = world.engine().decisions().on(self.faults.stream).log_uniform(1, LONGEST_PAUSE);
            world.plan(Duration::from_nanos(pause), FAULT);
        }
    }

    /// The next fault is due.
    pub(super) fn strike(&mut self, world: &mut World) {
        if self.phase != Phase::Storm || self.faults.left == 0 {
            return;
        }
        if !world.engine().decisions().begin(self.faults.stream) {
            self.faults.left = 0;
            return;
        }
        self.faults.left -= 1;
        let drawn = world.engine().decisions().on(self.faults.stream).weighted(&self.faults.weights);
        match drawn.and_then(|index| FAULTS.get(index)) {
            Some(fault) => fault(self, world),
            None => self.faults.left = 0,
        }
        self.next_fault(world);
    }

    /// Everything is there again, and nothing breaks any more. What is half-open nobody repairs.
    pub(super) fn heal(&mut self, world: &mut World) {
        self.phase = Phase::Healed;
        world.engine().heal();
        self.end_lies(world);
        (0..self.hubs.len()).for_each(|hub| self.start_hub(world, hub));
        for bridge in 0..self.bridges.len() as u64 {
            world.plan(Duration::from_nanos(DOWN.0), START + bridge);
        }
        self.react(world);
    }

    pub(super) fn start_hub(&mut self, world: &mut World, hub: usize) {
        if std::mem::take(&mut self.faults.hubs[hub]) {
            world.start_hub(self.hubs[hub]);
        }
    }

    pub(super) fn start_bridge(&mut self, world: &mut World, bridge: usize) {
        let node = self.bridges[bridge];
        if self.phase == Phase::Over || self.faults.bridges[bridge] == State::Up {
            return;
        }
        if std::mem::replace(&mut self.faults.bridges[bridge], State::Up) == State::Closed {
            world.kill_bridge(node, false);
        }
        world.start_bridge(node);
    }

    fn down(&self, world: &mut World) -> Duration {
        Duration::from_nanos(world.engine().decisions().on(self.faults.stream).log_uniform(DOWN.0, DOWN.1))
    }

    /// Which bridge is struck next.
    fn one(&self, world: &mut World) -> (usize, NodeId) {
        let bridge = world.engine().decisions().on(self.faults.stream).index(self.bridges.len());
        (bridge, self.bridges[bridge])
    }

    fn cut_bridge(&mut self, world: &mut World) {
        let (_, node) = self.one(world);
        world.engine().cut(node);
        self.marks.met("fault: a bridge is cut");
    }

    fn cut_side(&mut self, world: &mut World) {
        let ((_, node), side) = (self.one(world), world.engine().decisions().on(self.faults.stream).index(2));
        world.engine().cut_one(node, side);
        self.marks.met("fault: a bridge is cut on one side");
    }

    fn strand_both_ways(&mut self, world: &mut World) {
        let (_, node) = self.one(world);
        world.engine().strand(node, false);
        self.marks.met("fault: a bridge is half-open");
    }

    fn strand_one_way(&mut self, world: &mut World) {
        let (_, node) = self.one(world);
        world.engine().strand(node, true);
        self.marks.met("fault: a bridge loses one direction");
    }

    fn kill_bridge(&mut self, world: &mut World) {
        self.bridge_dies(world, false);
        self.marks.met("fault: a bridge is killed");
    }

    fn kill_bridge_silently(&mut self, world: &mut World) {
        self.bridge_dies(world, true);
        self.marks.met("fault: a bridge vanishes");
    }

    fn bridge_dies(&mut self, world: &mut World, silently: bool) {
        let (bridge, node) = self.one(world);
        if std::mem::replace(&mut self.faults.bridges[bridge], State::Down) != State::Down {
            world.kill_bridge(node, silently);
        }
        let down = self.down(world);
        world.plan(down, START + bridge as u64);
    }

    /// A bridge says goodbye, and another one comes in its place.
    fn close_bridge(&mut self, world: &mut World) {
        let (bridge, node) = self.one(world);
        if self.faults.bridges[bridge] == State::Up {
            self.faults.bridges[bridge] = State::Closed;
            world.ask_bridge(node, Command::Close);
            self.marks.met("fault: a bridge says goodbye");
            let down = self.down(world);
            world.plan(down, START + bridge as u64);
        }
    }

    /// A bridge has ended by itself: another one comes in its place.
    pub(super) fn is_over(&mut self, world: &mut World, bridge: usize) {
        if self.faults.bridges[bridge] == State::Up {
            self.faults.bridges[bridge] = State::Closed;
            self.marks.met("fault: a bridge is ended by who is on its path");
            world.plan(Duration::from_nanos(DOWN.0), START + bridge as u64);
        }
    }

    fn cut_client(&mut self, world: &mut World) {
        let client = world.engine().decisions().on(self.faults.stream).index(self.beliefs.len());
        world.engine().cut(self.beliefs[client].node);
        self.marks.met("fault: a client is cut");
    }

    fn kill_hub(&mut self, world: &mut World) {
        let hub = world.engine().decisions().on(self.faults.stream).index(self.hubs.len());
        if self.hub_dies(world, hub) {
            self.marks.met(if self.guards {
                "fault: a hub is killed beside a password"
            } else {
                "fault: a hub is killed"
            });
            let down = self.down(world);
            world.plan(down, HUB + hub as u64);
        }
    }

    /// A hub is there no more; whether it was.
    pub(super) fn hub_dies(&mut self, world: &mut World, hub: usize) -> bool {
        let was_there = !std::mem::replace(&mut self.faults.hubs[hub], true);
        if was_there {
            world.kill_hub(self.hubs[hub], false);
            self.forget_end(hub);
        }
        was_there
    }
}
