//! What applications, disks and suites do later.

use commipc_protocol::ChannelName;
use commipc_protocol::client::{self, RequestId};
use core::time::Duration;

use crate::lives::Writing;
use crate::node::NodeId;
use crate::oracles::{Password, Salt};
use crate::world::World;

/// What the world does when it wakes.
#[derive(Debug)]
pub(crate) enum Plan {
    Answer { node: NodeId, request: RequestId, result: Result<client::Payload, commipc_protocol::Fault> },
    Derive { node: NodeId, channel: ChannelName, salt: Salt, password: Password },
    DeriveNothing { node: NodeId, channel: ChannelName },
    Stream { node: NodeId, command: client::StreamCommand },
    Cancel { node: NodeId, call: client::Token },
    Finished(NodeId),
    Store(NodeId, Writing),
    Own(u64),
}

impl Plan {
    /// Whose application does it; nobody's if it is a disk or a suite.
    pub(crate) const fn whose(&self) -> Option<NodeId> {
        match self {
            Self::Answer { node, .. }
            | Self::Derive { node, .. }
            | Self::DeriveNothing { node, .. }
            | Self::Stream { node, .. }
            | Self::Cancel { node, .. }
            | Self::Finished(node) => Some(*node),
            Self::Store(..) | Self::Own(_) => None,
        }
    }
}

impl World {
    /// Plans a [`Moment::Woke`](crate::world::Moment::Woke) with this key.
    pub fn plan(&mut self, after: Duration, key: u64) {
        self.plan_own(after, Plan::Own(key));
    }

    pub(crate) fn plan_own(&mut self, after: Duration, plan: Plan) {
        self.plan_serial += 1;
        self.plans.insert(self.plan_serial, plan);
        self.engine.wake(self.engine.now() + after, self.plan_serial);
    }

    /// An application that stands still does what it plans afterwards; whether it does.
    pub(crate) fn put_off(&mut self, key: u64) -> bool {
        let until = self.plans.get(&key).and_then(Plan::whose).and_then(|node| self.engine.paused(node));
        until.is_some_and(|until| {
            self.engine.wake(until, key);
            true
        })
    }
}
