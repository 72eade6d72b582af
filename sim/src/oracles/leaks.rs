//! When all peers are gone, a machine holds what it held before the first came.

use commipc_protocol::Instant;

use super::{Oracle, Seen, Verdict, ensure};
use crate::node::NodeId;

/// What a machine holds at a moment, counted by kind: whatever it can tell of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census(pub Vec<(&'static str, usize)>);

impl Census {
    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, count)| *count == 0)
    }
}

/// Holds that nothing is left behind. Fed by the world after the last peer has gone.
#[derive(Debug, Default)]
pub struct Leaks;

impl Oracle for Leaks {
    fn name(&self) -> &'static str {
        "leaks"
    }

    fn saw(&mut self, _: Instant, _: NodeId, _: &Seen<'_>) -> Verdict {
        Ok(())
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
        let mut leaks = Leaks;
        leaks.emptied(NodeId::new(0), &Census(vec![("links", 0), ("calls", 0)])).unwrap();
        assert!(leaks.emptied(NodeId::new(0), &Census(vec![("links", 0), ("calls", 1)])).is_err());
    }
}
