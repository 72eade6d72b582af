//! What some worlds have and others have not: hubs that come late, hubs that die beside a channel with a password, and the key of
//! its owner in the hands of others.

use commipc_protocol::auth::OwnerKey;
use commipc_protocol::client::{Client, Command};
use core::time::Duration;

use super::work::{KEPT, channel_name};
use super::{Bridging, HUB, Phase};
use crate::decisions::{Decisions, Stream};
use crate::lives::DiskHabits;
use crate::node::NodeId;
use crate::station::Station;
use crate::twin::Twins;
use crate::world::World;

/// The choice that means yes, of so many. No world that was recorded before there were such has any.
const YES: u64 = 3;
const OF: u64 = 4;

/// The latest that a hub comes, the first and the last of the warm-up left alone, in nanoseconds.
const LATEST: (u64, u64) = (1 << 20, 6_000_000_000);
/// The slowest that a disk of a world is, in nanoseconds.
const SLOWEST_DISK: u64 = 200_000_000;

/// What a world has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    /// Hubs come in any order, beside bridges and clients.
    pub(super) late: bool,
    /// Hubs die though there is a channel with a password, and have stored it.
    pub(super) mortal: bool,
    /// Whoever has the key of the channel with a password owns it, at whichever hub.
    pub(super) keyed: bool,
    stream: Stream,
}

fn is_drawn(decisions: &mut Decisions, what: &str) -> bool {
    let stream = decisions.stream(what);
    decisions.on(stream).below(OF) == YES
}

impl Drawn {
    pub(super) fn of(decisions: &mut Decisions) -> Self {
        let [late, mortal, keyed] = NAMES.map(|what| is_drawn(decisions, what));
        Self { late, mortal, keyed, stream: decisions.stream("drawn") }
    }

    /// How hubs store, where they do.
    pub(super) fn disk(self, world: &mut World) -> Option<DiskHabits> {
        let mut choose = world.engine().decisions().on(self.stream);
        self.mortal.then(|| DiskHabits { slowest: choose.log_uniform(1, SLOWEST_DISK), fails: 0 })
    }
}

/// By which these are drawn.
const NAMES: [&str; 3] = ["hub births", "hub deaths", "handed keys"];

impl Bridging {
    /// Some hubs are not there yet.
    pub(super) fn begin_hubs(&mut self, world: &mut World) {
        for hub in 0..self.hubs.len() {
            let mut choose = world.engine().decisions().on(self.drawn.stream);
            if self.drawn.late && choose.chance(1, 2) {
                let late = Duration::from_nanos(choose.log_uniform(LATEST.0, LATEST.1));
                self.hub_dies(world, hub);
                world.plan(late, HUB + hub as u64);
                self.marks.met("fault: a hub comes late");
            }
        }
    }

    fn client<'w>(&self, world: &'w World, node: NodeId) -> Option<&'w Client> {
        match world.engine.machine(node).map(Twins::shown) {
            Some(Station::Client(client)) => Some(client),
            Some(Station::Hub(_) | Station::Bridge(_) | Station::Mallory(_) | Station::Rogue(_)) | None => None,
        }
    }

    /// Whoever owns the channel with a password gives its key out, once.
    fn key(&mut self, world: &World) -> Option<OwnerKey> {
        if self.key.is_none() {
            let kept = channel_name(KEPT);
            let mut clients = self.beliefs.iter().filter_map(|belief| self.client(world, belief.node));
            self.key = clients.find_map(|client| client.owner_key(&kept));
        }
        self.key.clone()
    }

    /// A member that does not own the channel is given the key; whether it owns it by that, from here or from afar.
    pub(super) fn takes_key(&mut self, world: &mut World, actor: usize) -> bool {
        if !self.drawn.keyed
            || self.phase != Phase::Storm
            || !self.beliefs[actor].rooms.contains_key(&channel_name(KEPT))
        {
            return false;
        }
        let Some(key) = self.key(world) else { return false };
        self.ask(world, actor, Command::SetOwnerKey(key));
        let far = self.at[actor] != self.at[0];
        self.marks.met(if far { "an owner's key is used from afar" } else { "an owner's key is used at home" });
        true
    }

    /// Whether it is time for somebody to use the key.
    pub(super) fn turns_to_key(&self, world: &mut World) -> bool {
        self.drawn.keyed && self.guards && world.engine().decisions().on(self.drawn.stream).chance(1, 6)
    }

    /// Whether one who uses the key ends the channel by it.
    pub(super) fn ends_by_key(&self, world: &mut World) -> bool {
        world.engine().decisions().on(self.drawn.stream).chance(1, 6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds of which something was recorded: tests/bridging.rs, and what is said of them in CHANGELOG.md.
    const RECORDED: [u64; 8] = [3, 32, 42, 116, 1092, 1126, 1241, 1411];

    #[test]
    fn recorded_worlds_have_none_of_it_and_some_others_have() {
        for name in NAMES {
            let drawn = RECORDED.map(|seed| is_drawn(&mut Decisions::seeded(seed), name));
            assert_eq!(drawn, [false; 8], "{name}");
            let yes = (0..800).filter(|seed| is_drawn(&mut Decisions::seeded(*seed), name)).count();
            assert!((120..280).contains(&yes), "{name}: {yes}");
        }
    }
}
