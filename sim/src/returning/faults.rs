//! What befalls clients, their hub and what is between them, until everything is repaired.

use commipc_protocol::client::Command;
use commipc_protocol::hub;
use core::time::Duration;

use super::{Phase, Returning, START};
use crate::decisions::Stream;
use crate::node::NodeId;
use crate::world::World;

/// In the order of the weights.
const FAULTS: [fn(&mut Returning, &mut World); 12] = [
    Returning::cut_one,
    Returning::cut_all,
    Returning::strand_both_ways,
    Returning::strand_one_way,
    Returning::kill_hub,
    Returning::kill_hub_silently,
    Returning::shut_hub_down,
    Returning::jump_wall,
    Returning::jump_ahead,
    Returning::jump_back,
    Returning::impose,
    Returning::double,
];

/// The most each may weigh.
const HEAVIEST: [u64; FAULTS.len() - 1] = [8, 2, 6, 4, 4, 3, 3, 3, 3, 3, 6];
const HEAVIEST_DOUBLE: u64 = 6;

/// The longest from one fault to the next, and the longest that a hub is down, in nanoseconds.
const LONGEST_PAUSE: u64 = 60_000_000_000;
pub(super) const LONGEST_DOWN: u64 = 120_000_000_000;
/// After which the process of a hub ends that was asked to.
const DRAINED: Duration = Duration::from_millis(500);
/// How far wall clocks jump, in milliseconds, and how far others go ahead and back, in nanoseconds.
const WALL: u64 = 600_000;
const AHEAD: u64 = 3_600_000_000_000;
const BACK: u64 = 20_000_000_000;

/// What is still to come, and what is to be repaired.
#[derive(Debug)]
pub(super) struct Faults {
    stream: Stream,
    weights: Vec<u64>,
    pub(super) left: u64,
    /// The hub's process is dead.
    down: bool,
    /// It was asked to end.
    ending: bool,
    /// How far clocks were turned back in all.
    pub(super) turned_back: Duration,
    /// How far each wall clock is off.
    walls: Vec<(NodeId, i64)>,
}

impl Faults {
    pub(super) fn drawn(world: &mut World) -> Self {
        let stream = world.engine().decisions().stream("faults");
        let mut choose = world.engine().decisions().on(stream);
        let weights = HEAVIEST.iter().map(|most| if choose.chance(1, 2) { 1 + choose.below(*most) } else { 0 });
        let (mut weights, left): (Vec<u64>, u64) = (weights.collect(), choose.log_uniform(1, 24));
        // From a stream of its own: worlds without it are what they were before there was such a fault.
        let doubles = world.engine().decisions().stream("doubles");
        let mut choose = world.engine().decisions().on(doubles);
        weights.push(if choose.chance(1, 2) { 1 + choose.below(HEAVIEST_DOUBLE) } else { 0 });
        Self { stream, weights, left, down: false, ending: false, turned_back: Duration::ZERO, walls: Vec::new() }
    }
}

impl Returning {
    pub(super) fn next_fault(&self, world: &mut World) {
        if self.faults.left > 0 {
            let pause = world.engine().decisions().on(self.faults.stream).log_uniform(1, LONGEST_PAUSE);
            world.plan(Duration::from_nanos(pause), super::FAULT);
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

    /// Everything is repaired: nothing breaks any more, the hub is up, clocks are right, impostors are gone. What is
    /// half-open nobody repairs.
    pub(super) fn heal(&mut self, world: &mut World) {
        self.phase = Phase::Healed;
        world.engine().heal();
        if std::mem::take(&mut self.faults.ending) {
            self.hub_dies(world, false);
        }
        self.start_hub(world);
        for (node, ahead) in std::mem::take(&mut self.faults.walls) {
            world.engine().turn_clocks(node, 0, -ahead);
        }
        if let Some(impostor) = self.impostor {
            world.ask(impostor, Command::Close);
        }
        self.streaming.calm(world, true);
        self.react(world);
    }

    pub(super) fn start_hub(&mut self, world: &mut World) {
        if std::mem::take(&mut self.faults.down) {
            world.start_hub(self.hub);
        }
    }

    fn draw(&self, world: &mut World, most: u64) -> u64 {
        world.engine().decisions().on(self.faults.stream).log_uniform(1, most)
    }

    fn one(&self, world: &mut World) -> NodeId {
        let index = world.engine().decisions().on(self.faults.stream).index(self.beliefs.len());
        self.beliefs[index].node
    }

    fn anybody(&self, world: &mut World) -> NodeId {
        if world.engine().decisions().on(self.faults.stream).chance(1, 3) { self.hub } else { self.one(world) }
    }

    fn cut_one(&mut self, world: &mut World) {
        let node = self.one(world);
        world.engine().cut(node);
        self.marks.met("fault: a link is cut");
    }

    fn cut_all(&mut self, world: &mut World) {
        world.engine().cut(self.hub);
        self.marks.met("fault: all links are cut");
    }

    /// A client dials again, and its hub still has the connection that it has lost.
    fn double(&mut self, world: &mut World) {
        let node = self.one(world);
        if world.engine().sever(node) > 0 {
            self.marks.met("fault: a client has two connections");
        }
    }

    fn strand_both_ways(&mut self, world: &mut World) {
        let node = self.one(world);
        if world.engine().strand(node, false) > 0 {
            self.past.slowed(world.now());
            self.marks.met("fault: a link is half-open");
        }
    }

    fn strand_one_way(&mut self, world: &mut World) {
        let node = self.anybody(world);
        if world.engine().strand(node, true) > 0 {
            self.past.slowed(world.now());
            self.marks.met("fault: a link loses one direction");
        }
    }

    fn kill_hub(&mut self, world: &mut World) {
        self.hub_dies(world, false);
    }

    fn kill_hub_silently(&mut self, world: &mut World) {
        self.hub_dies(world, true);
    }

    pub(super) fn hub_dies(&mut self, world: &mut World, silently: bool) {
        self.faults.ending = false;
        if std::mem::replace(&mut self.faults.down, true) {
            return;
        }
        world.kill_hub(self.hub, silently);
        let told = world.hub_told.get(&self.hub).map_or(&[][..], Vec::as_slice);
        self.claims.die(told);
        self.past.died(world.now());
        if silently {
            self.past.slowed(world.now());
        }
        self.marks.met(match (world.disks.contains_key(&self.hub), silently) {
            (true, false) => "fault: a hub with stored state is killed",
            (true, true) => "fault: a hub with stored state vanishes",
            (false, false) => "fault: a hub without state is killed",
            (false, true) => "fault: a hub without state vanishes",
        });
        let down = self.draw(world, LONGEST_DOWN);
        world.plan(Duration::from_nanos(down), START);
    }

    fn shut_hub_down(&mut self, world: &mut World) {
        if !self.faults.down {
            world.ask_hub(self.hub, hub::Command::Shutdown);
            self.marks.met("fault: a hub is shut down and replaced");
            self.faults.ending = true;
            world.plan(DRAINED, super::DIES);
        }
    }

    /// The process of a hub that was shut down ends, unless it has ended otherwise.
    pub(super) fn ends_as_asked(&mut self, world: &mut World) {
        if self.faults.ending {
            self.hub_dies(world, false);
        }
    }

    fn jump_wall(&mut self, world: &mut World) {
        let (node, by) = (self.anybody(world), self.draw(world, WALL));
        let back = world.engine().decisions().on(self.faults.stream).chance(1, 2);
        let by = i64::try_from(by).unwrap_or(0) * if back { -1 } else { 1 };
        world.engine().turn_clocks(node, 0, by);
        self.faults.walls.push((node, by));
        self.marks.met("fault: a wall clock jumps");
    }

    fn jump_ahead(&mut self, world: &mut World) {
        let (node, by) = (self.anybody(world), self.draw(world, AHEAD));
        world.engine().turn_clocks(node, i64::try_from(by).unwrap_or(0), 0);
        self.past.slowed(world.now());
        self.marks.met("fault: a monotonic clock jumps ahead");
    }

    fn jump_back(&mut self, world: &mut World) {
        let (node, by) = (self.anybody(world), self.draw(world, BACK));
        world.engine().turn_clocks(node, -i64::try_from(by).unwrap_or(0), 0);
        self.faults.turned_back += Duration::from_nanos(by);
        self.past.slowed(world.now());
        self.marks.met("fault: a monotonic clock runs backwards");
    }

    /// Somebody else takes the first one's id, or wants it, or gives it up again.
    fn impose(&mut self, world: &mut World) {
        let Some(impostor) = self.impostor else { return };
        let gives_up = world.engine().decisions().on(self.faults.stream).chance(1, 3);
        if gives_up {
            return world.ask(impostor, Command::Close);
        }
        // Whoever is first has it.
        world.engine().cut(self.beliefs[0].node);
        world.ask(impostor, Command::Connect);
        self.marks.met("fault: somebody else wants an id");
    }
}
