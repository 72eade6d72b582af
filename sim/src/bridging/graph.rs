//! Which hubs are joined.

use crate::decisions::Chooser;

/// Hubs by their numbers, and the bridges between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Graph {
    pub(super) hubs: usize,
    pub(super) edges: Vec<[usize; 2]>,
}

/// The most hubs of a world, and of one that is larger than usual.
const MOST: u64 = 4;
const MANY: u64 = 8;

impl Graph {
    /// Any connected graph: a tree and some more, now and then a ring, or two bridges side by side.
    pub(super) fn drawn(mut choose: Chooser<'_>, large: bool) -> Self {
        let hubs = if large { MANY - choose.below(MANY - MOST) } else { 2 + choose.below(MOST - 1) } as usize;
        let mut edges: Vec<[usize; 2]> = (1..hubs).map(|hub| [choose.index(hub), hub]).collect();
        if hubs > 2 && choose.chance(1, 3) {
            edges = (0..hubs).map(|hub| [hub, (hub + 1) % hubs]).collect();
        } else {
            for (a, b) in (0..hubs).flat_map(|b| (0..b).map(move |a| (a, b))) {
                if !edges.contains(&[a, b]) && choose.chance(1, 3) {
                    edges.push([a, b]);
                }
            }
        }
        if choose.chance(1, 6) {
            edges.extend(choose.pick(&edges).copied());
        }
        for edge in &mut edges {
            if choose.chance(1, 2) {
                edge.reverse();
            }
        }
        Self { hubs, edges }
    }

    /// How many bridges lie between a hub and each.
    pub(super) fn distances(&self, from: usize) -> Vec<usize> {
        let mut found = vec![usize::MAX; self.hubs];
        found[from] = 0;
        for distance in 1..self.hubs {
            for [a, b] in &self.edges {
                for (near, far) in [(*a, *b), (*b, *a)] {
                    if found[near] == distance - 1 && found[far] > distance {
                        found[far] = distance;
                    }
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::Decisions;

    #[test]
    fn every_graph_is_connected_and_many_have_rings() {
        let (mut sizes, mut rings) = (std::collections::BTreeSet::new(), 0);
        for seed in 0..300 {
            let mut decisions = Decisions::seeded(seed);
            let stream = decisions.stream("graph");
            let graph = Graph::drawn(decisions.on(stream), seed % 10 == 0);
            assert!(graph.edges.iter().all(|[a, b]| a != b), "{graph:?}");
            assert!((0..graph.hubs).all(|hub| graph.distances(hub).iter().all(|far| *far < graph.hubs)), "{graph:?}");
            sizes.insert(graph.hubs);
            rings += usize::from(graph.edges.len() >= graph.hubs);
        }
        assert!(sizes.into_iter().eq(2..=8) && (60..240).contains(&rings), "{rings}");
    }

    #[test]
    fn distances_are_those_of_the_shortest_ways() {
        let graph = Graph { hubs: 4, edges: vec![[0, 1], [2, 1], [2, 3], [1, 0]] };
        assert_eq!(graph.distances(0), [0, 1, 2, 3]);
        assert_eq!(graph.distances(2), [2, 1, 0, 1]);
    }
}
