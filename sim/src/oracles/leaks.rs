//! When everything asked has ended, a machine holds nothing of it; and when all peers are gone, what it held before the
//! first came.

use std::collections::BTreeSet;

use commipc_protocol::{Input, Instant};

use super::{Oracle, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::mallory::Order;
use crate::node::NodeId;
use crate::station::Asked;

/// What a machine holds at a moment, counted by kind: whatever it can tell of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census(pub Vec<(&'static str, usize)>);

impl Census {
    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, count)| *count == 0)
    }

    /// What is held that does not stay for as long as peers do.
    pub(crate) fn left(&self) -> Vec<(&'static str, usize)> {
        self.0.iter().filter(|(what, count)| *count > 0 && !STAYS.contains(what)).copied().collect()
    }
}

/// Holds that nothing is left behind. Fed by the world when nothing is under way, and after the last peer has gone.
#[derive(Debug, Default)]
pub struct Leaks {
    /// Who says things past its own machine, which then goes on with requests that are over for everybody else.
    rogues: BTreeSet<NodeId>,
}

/// What stays for as long as peers do; who asks whether they are there has something to send.
const STAYS: [&str; 8] = ["links", "clients", "channels", "announced", "memory", "timers", "buffered", "unwritten"];

/// Requests that a machine believes to be answering.
const SERVED: &str = "serving";

impl Oracle for Leaks {
    fn name(&self) -> &'static str {
        "leaks"
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        if let Sight::Fed(Input::Command(Asked::Malice(Order::Say(_)))) = sight {
            self.rogues.insert(node);
        }
        Ok(())
    }

    fn rested(&mut self, node: NodeId, census: &Census) -> Verdict {
        let rogue = self.rogues.contains(&node);
        let mut left = census.left();
        left.retain(|(what, _)| !(rogue && *what == SERVED));
        ensure(left.is_empty(), || format!("{node:?} is asked for nothing and holds {left:?}"))
    }

    fn emptied(&mut self, node: NodeId, census: &Census) -> Verdict {
        ensure(census.is_empty(), || format!("{node:?} still holds {:?}", census.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bites_on_anything_left() {
        let mut leaks = Leaks::default();
        leaks.emptied(NodeId::new(0), &Census(vec![("links", 0), ("calls", 0)])).unwrap();
        assert!(leaks.emptied(NodeId::new(0), &Census(vec![("links", 0), ("calls", 1)])).is_err());
        assert!(leaks.emptied(NodeId::new(0), &Census(vec![("links", 0), ("timers", 1)])).is_err());
        leaks.rested(NodeId::new(0), &Census(vec![("links", 1), ("calls", 0), ("timers", 1)])).unwrap();
        assert!(leaks.rested(NodeId::new(0), &Census(vec![("links", 1), ("streams", 1)])).is_err());
        assert!(leaks.rested(NodeId::new(0), &Census(vec![(SERVED, 1)])).is_err());
        assert!(leaks.rested(NodeId::new(0), &Census(vec![("deadlines", 1)])).is_err());
        leaks.rogues.insert(NodeId::new(0));
        leaks.rested(NodeId::new(0), &Census(vec![(SERVED, 1)])).unwrap();
        assert!(leaks.rested(NodeId::new(0), &Census(vec![("streams", 1)])).is_err());
    }
}
