//! Clients, providers and hubs that come to their end in good order, in the middle of a storm.
//!
//! In about a third of the runs some clients and providers do, in an eighth the hub. What is decided here shifts nothing that is decided elsewhere, so that recorded runs
//! without it go on as they were.

use commipc_protocol::client::{Command, DrainCommand};
use commipc_protocol::hub;
use core::time::Duration;

use super::Swarm;
use super::actor::Actor;
use crate::decisions::{Chooser, Stream};
use crate::plans::Plan;
use crate::world::World;

/// The longest that one may take, in milliseconds.
const LONGEST: u64 = 20_000;

#[derive(Debug)]
pub(super) struct Draining {
    /// Of 128 operations, how many are drains of somebody who has nothing to finish.
    often: u64,
    /// The hub drains when so many operations are left, if it does, and has so much time.
    hub: Option<(u64, Duration)>,
}

impl Draining {
    pub(super) fn drawn(world: &mut World, operations: u64) -> Self {
        let run = world.engine().decisions().stream("drains");
        let mut choose = world.engine().decisions().on(run);
        let often = if choose.chance(1, 3) { 1 + choose.below(4) } else { 0 };
        let own = world.engine().decisions().stream("drains/hub");
        let mut choose = world.engine().decisions().on(own);
        let drains = choose.chance(1, 8);
        // Rather late: what comes after it meets a hub that is gone.
        let hub = drains.then(|| {
            let left = choose.below(operations / 2 + 1);
            (left, Duration::from_millis(choose.log_uniform(1, LONGEST)))
        });
        Self { often, hub }
    }
}

impl Swarm {
    /// Whether this actor's next operation is a drain: rather if it has something to finish. Who says what it likes drains
    /// nothing.
    pub(super) fn drains(&self, world: &mut World, actor: usize) -> bool {
        let Actor { provided, requests, .. } = &self.actors[actor];
        let more = if provided.is_empty() { 1 } else { 4 } * if requests.is_empty() { 1 } else { 2 };
        let (often, rogue) = (more * self.draining.often, actor == 0 && self.rogue.is_some());
        !rogue && often > 0 && choose(world, actor).chance(often, 128)
    }

    /// The hub drains, if it is its time.
    pub(super) fn drain_hub(&mut self, world: &mut World) {
        let due = self.draining.hub.filter(|(left, _)| self.operations <= *left && !self.malicious);
        if let (Some((_, time)), Some(hub)) = (due, world.hubs().first().copied()) {
            self.draining.hub = None;
            world.ask_hub(hub, hub::Command::Drain { time });
        }
    }

    /// A client, or one of its providers, has so much time to finish what runs.
    pub(super) fn drain(&mut self, world: &mut World, actor: usize) {
        let Some(node) = self.actors[actor].node else { return };
        let provided: Vec<_> = self.actors[actor].provided.iter().map(|(token, ..)| *token).collect();
        let mut choose = choose(world, actor);
        let time = Duration::from_millis(choose.log_uniform(1, LONGEST));
        let provider = if choose.chance(7, 8) { choose.pick(&provided).copied() } else { None };
        let busy = provider.is_none() && choose.chance(1, 4);
        let works = Duration::from_millis(choose.log_uniform(1, LONGEST));
        let drains = match provider {
            Some(provider) => DrainCommand::Provider { provider, time },
            None => DrainCommand::Client { time, busy },
        };
        self.actors[actor].provided.retain(|(token, ..)| provider.is_some_and(|provider| *token != provider));
        self.ask(world, actor, Command::Drain(drains));
        if busy {
            world.plan_own(works, Plan::Finished(node));
        }
    }
}

/// Each actor decides about its drains by itself.
fn choose(world: &mut World, actor: usize) -> Chooser<'_> {
    let own: Stream = world.engine().decisions().stream(&format!("drains/c{actor}"));
    world.engine().decisions().on(own)
}
