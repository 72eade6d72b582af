//! What befalls clients beside what connections do by themselves: processes that die and begin anew, or stand still, a
//! network that is parted for a while, and somebody who says what is no frame at all.
//!
//! What is decided here shifts nothing that is decided elsewhere, so that recorded runs without it go on as they were.

use bytes::{BufMut as _, BytesMut};
use commipc_protocol::Limits;
use core::time::Duration;

use super::Swarm;
use crate::decisions::{Chooser, Stream};
use crate::node::NodeId;
use crate::station::Station;
use crate::world::World;

/// The longest that somebody stands still, and that nothing gets to it, in milliseconds: shorter than news may take.
const LONGEST: u64 = 20_000;
/// The most clients of a crowd, and the fewest.
const CROWD: (u64, u64) = (8, 64);
/// The longest rubbish, in bytes.
const RUBBISH: u64 = 4_096;

#[derive(Debug)]
pub(super) struct Troubles {
    /// Of 128 operations, before how many somebody stands still or is parted from its hub.
    pauses: u64,
    parts: u64,
    /// Of 32 operations of a client that nobody should trust, before how many it says rubbish.
    rubbish: u64,
    crash: Option<Crash>,
}

/// A client's process dies, and another with its id takes its place.
#[derive(Debug)]
struct Crash {
    actor: usize,
    /// When so many operations are left.
    left: u64,
    silently: bool,
    successor: Option<NodeId>,
}

/// Now and then there are many more clients than usual.
pub(super) fn crowd(world: &mut World, usual: u64) -> u64 {
    let own = world.engine().decisions().stream("crowd");
    let mut choose = world.engine().decisions().on(own);
    if !choose.chance(1, 64) {
        return usual;
    }
    world.watch.milestones.meets("a crowd");
    choose_on(world, own).log_uniform(CROWD.0, CROWD.1)
}

fn choose_on(world: &mut World, stream: Stream) -> Chooser<'_> {
    world.engine().decisions().on(stream)
}

impl Troubles {
    /// Nothing of it befalls those who have a hub that nobody should trust: they are judged by their own clocks.
    pub(super) fn drawn(world: &mut World, operations: u64, count: u64, malicious: bool) -> Self {
        let own = world.engine().decisions().stream("troubles");
        let mut choose = world.engine().decisions().on(own);
        let mut often = |of: u64| if !malicious && choose.chance(1, of) { 1 + choose.below(4) } else { 0 };
        let (pauses, parts, rubbish) = (often(4), often(4), often(3));
        let crash = (!malicious && choose.chance(1, 5)).then(|| Crash {
            // The first one may be somebody who says what it likes.
            actor: 1 + usize::try_from(choose.below(count - 1)).unwrap_or(0),
            left: choose.below(operations) + 1,
            silently: choose.chance(1, 3),
            successor: None,
        });
        Self { pauses, parts, rubbish, crash }
    }

    /// Adds the process that takes the place of one that dies.
    pub(super) fn succeeds(&mut self, world: World, ids: impl Fn(usize) -> (String, Limits, bool)) -> World {
        let Some(crash) = &mut self.crash else { return world };
        let ((id, limits, honest), name) = (ids(crash.actor), format!("c{}b", crash.actor));
        let world = world.client_of(&name, &id, limits, honest, Station::client);
        crash.successor = world.clients().last().copied();
        world
    }
}

impl Swarm {
    /// What befalls somebody before this actor does something.
    pub(super) fn befall(&mut self, world: &mut World, actor: usize) {
        let Troubles { pauses, parts, .. } = self.troubles;
        let Some(node) = self.actors[actor].node else { return };
        if pauses > 0 && choose(world, actor).chance(pauses, 128) {
            let time = choose(world, actor).log_uniform(1, LONGEST);
            world.pause(node, Duration::from_millis(time));
            world.watch.milestones.meets("fault: a client stands still");
        }
        if parts > 0 && choose(world, actor).chance(parts, 128) {
            let time = choose(world, actor).log_uniform(1, LONGEST);
            if world.engine().part(node, Duration::from_millis(time)) > 0 {
                world.watch.milestones.meets("fault: a client is parted from its hub");
            }
        }
        if self.troubles.crash.as_ref().is_some_and(|crash| self.operations <= crash.left) {
            self.crash(world);
        }
    }

    fn crash(&mut self, world: &mut World) {
        let Some(Crash { actor, silently, successor: Some(successor), .. }) = self.troubles.crash.take() else {
            return;
        };
        let Some(node) = self.actors[actor].node.replace(successor) else { return };
        world.crash(node, silently);
        self.streaming.lose(node);
        self.lost_all(actor);
        let what = if silently { "fault: a client vanishes" } else { "fault: a client crashes" };
        world.watch.milestones.meets(what);
    }

    /// Now and then somebody whom nobody should trust says what is no frame, or is too long for one.
    pub(super) fn babble(&mut self, world: &mut World) {
        let (Some(name), rubbish) = (self.rogue.clone(), self.troubles.rubbish) else { return };
        if rubbish == 0 || !choose(world, 0).chance(rubbish, 32) {
            return;
        }
        let mut choose = choose(world, 0);
        let length = usize::try_from(choose.log_uniform(1, RUBBISH)).unwrap_or(1);
        let mut said = BytesMut::new();
        let oversize = choose.chance(1, 2);
        if oversize {
            // Little more than may be, or much.
            let limit = u64::from(Limits::default().frame);
            let much = limit + choose.log_uniform(1, u64::from(u32::MAX) - limit);
            said.put_u32(u32::try_from(much).unwrap_or(u32::MAX));
        }
        said.extend(choose.seed().iter().cycle().take(length));
        let (ready, before) = (self.actors[0].ready, world.rogue_called(&name).spoken());
        world.says(&name, &said);
        if world.rogue_called(&name).spoken() > before {
            world.watch.milestones.meets(match (oversize, ready) {
                (true, true) => "a client says a frame that is too long",
                (true, false) => "a stranger says a frame that is too long",
                (false, true) => "a client says rubbish",
                (false, false) => "a stranger says rubbish",
            });
        }
    }
}

/// Each actor decides about its troubles by itself.
fn choose(world: &mut World, actor: usize) -> Chooser<'_> {
    let own: Stream = world.engine().decisions().stream(&format!("troubles/c{actor}"));
    world.engine().decisions().on(own)
}
