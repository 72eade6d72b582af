//! Hubs that die and start again: with what they had stored, or with nothing.
//!
//! ```text
//!   Store ──► waits its turn ──► on the disk ──► Stored          kill: what is not on the disk is lost,
//!                  └─ fails: not durable                               and nobody hears of what is
//! ```

use std::collections::BTreeMap;

use commipc_protocol::client::Reconnect;
use commipc_protocol::hub::{self, StoredChannel};
use commipc_protocol::{ChannelName, Instant, Seed};
use core::time::Duration;

use crate::decisions::Stream;
use crate::node::NodeId;
use crate::oracles;
use crate::plans::Plan;
use crate::world::World;

/// What a hub's process leaves behind when it dies.
#[derive(Debug)]
pub(crate) struct Disk {
    files: BTreeMap<ChannelName, Vec<u8>>,
    habits: DiskHabits,
    choices: Stream,
    /// Which of the hub's lives this is: what an earlier one has asked for nobody answers any more.
    life: u64,
    free_at: Instant,
}

/// How a disk does what it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskHabits {
    /// The longest that a step may take, in nanoseconds.
    pub slowest: u64,
    /// Of a thousand requests, how many fail.
    pub fails: u64,
}

impl Disk {
    pub(crate) const fn can_fail(&self) -> bool {
        self.habits.fails > 0
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Writing {
    life: u64,
    ticket: u64,
    /// Nothing once it is on the disk.
    change: Option<(ChannelName, Option<Vec<u8>>)>,
    durable: bool,
    /// What it takes from there until that is told.
    tells: Duration,
}

impl World {
    /// From now on only those oracles judge that hold when a hub dies and has stored nothing.
    #[must_use]
    pub fn forgetful(mut self) -> Self {
        self.watch.oracles = oracles::of_returning();
        self
    }

    /// Lets connections of clients added from now on come back by themselves. From now on only those oracles judge that
    /// need not know what clients ask without their applications.
    #[must_use]
    pub fn reconnecting(mut self, policy: Reconnect) -> Self {
        self.watch.oracles = oracles::of_returning();
        self.reconnect = Some(policy);
        self
    }

    /// Lets all clients added from now on draw the same numbers, as if nothing were left to chance: to show what chance is
    /// good for.
    #[must_use]
    pub const fn in_step(mut self) -> Self {
        self.in_step = true;
        self
    }

    /// Lets the hub added last store what it confirms.
    ///
    /// # Panics
    /// When there is no hub.
    #[must_use]
    pub fn storing(mut self, habits: DiskHabits) -> Self {
        let node = *self.hubs().last().unwrap_or_else(|| panic!("there is no hub"));
        let choices = self.engine.decisions().stream("disk");
        let disk = Disk { files: BTreeMap::new(), habits, choices, life: 0, free_at: Instant::ZERO };
        self.disks.insert(node, disk);
        self.ask_hub(node, hub::Command::Restore(Vec::new()));
        self
    }

    /// A hub's process dies, with everything it has not stored. Its clients notice, or with `silently` they do not.
    pub fn kill_hub(&mut self, node: NodeId, silently: bool) {
        self.dies(node, silently);
        if let Some(disk) = self.disks.get_mut(&node) {
            disk.life += 1;
            disk.free_at = Instant::ZERO;
        }
    }

    /// A node's process dies, and a machine that knows nothing of it is to take its place.
    pub(crate) fn dies(&mut self, node: NodeId, silently: bool) {
        let stream = self.engine.decisions().stream("lives");
        let seed = Seed::new(self.engine.decisions().on(stream).seed());
        let Some(build) = self.builds.get(&node) else { return };
        let machine = self.machine(build, &seed);
        self.engine.kill(node, machine, silently);
        self.watch.oracles.iter_mut().for_each(|oracle| oracle.died(node));
    }

    /// A client's process dies, and nobody knows any more what its application had planned. Its hub notices, or with
    /// `silently` it does not.
    pub fn crash(&mut self, node: NodeId, silently: bool) {
        self.plans.retain(|_, plan| plan.whose() != Some(node));
        self.dies(node, silently);
    }

    /// A node stands still for so long, and so does its application.
    pub fn pause(&mut self, node: NodeId, time: Duration) {
        let by = self.engine.pause(node, time);
        self.watch.oracles.iter_mut().for_each(|oracle| oracle.stands_still(node, by));
    }

    /// A hub that was killed starts again.
    pub fn start_hub(&mut self, node: NodeId) {
        self.engine.start(node);
        if let Some(disk) = self.disks.get(&node) {
            let stored = disk.files.values().filter_map(|file| StoredChannel::decode(file).ok()).collect();
            self.ask_hub(node, hub::Command::Restore(stored));
        }
    }

    /// A hub tells something: its disk may have to keep it.
    pub(crate) fn store(&mut self, node: NodeId, event: &hub::Event) {
        let (Some(disk), hub::Event::Store { ticket, channel, record }) = (self.disks.get_mut(&node), event) else {
            return;
        };
        let mut choose = self.engine.decisions().on(disk.choices);
        let durable = !choose.chance(disk.habits.fails, 1_000);
        let mut takes = || Duration::from_nanos(choose.log_uniform(1, 1 + disk.habits.slowest));
        let (writes, tells) = (takes(), takes());
        let written = disk.free_at.max(self.engine.now()) + writes;
        disk.free_at = written + tells;
        let after = written.saturating_since(self.engine.now());
        let change = Some((channel.clone(), record.as_ref().map(|record| record.encode().to_vec())));
        let writing = Writing { life: disk.life, ticket: *ticket, change, durable, tells };
        self.plan_own(after, Plan::Store(node, writing));
    }

    /// A step of a request: it is written, or that is told.
    pub(crate) fn write(&mut self, node: NodeId, writing: Writing) {
        let Some(disk) = self.disks.get_mut(&node).filter(|disk| disk.life == writing.life) else { return };
        let Writing { ticket, durable, .. } = writing;
        let Some((channel, file)) = writing.change else {
            return self.ask_hub(node, hub::Command::Stored { ticket, durable });
        };
        if durable {
            match file {
                Some(file) => disk.files.insert(channel, file),
                None => disk.files.remove(&channel),
            };
        }
        let told = Writing { change: None, ..writing };
        self.plan_own(told.tells, Plan::Store(node, told));
    }
}
