//! Hubs and the bridges between them: every connected graph, each once.

use std::fmt;

/// Hubs, numbered from 0, and which of them a bridge joins. At most [`HUBS_MAX`].
#[derive(Clone, PartialEq, Eq)]
pub struct Graph {
    hubs: u8,
    /// For each hub a bit for each neighbour.
    beside: [u8; HUBS_MAX],
}

/// More hubs than this have no room in a set of hubs.
pub const HUBS_MAX: usize = 8;

/// A set of hubs, a bit for each.
pub type Hubs = u8;

impl Graph {
    /// Hubs joined by these bridges.
    ///
    /// # Panics
    /// When a bridge ends at no hub, or there are too many.
    #[must_use]
    pub fn new(hubs: u8, bridges: &[(u8, u8)]) -> Self {
        assert!(usize::from(hubs) <= HUBS_MAX, "at most {HUBS_MAX} hubs");
        let mut beside = [0; HUBS_MAX];
        for &(one, other) in bridges {
            assert!(one < hubs && other < hubs && one != other, "a bridge joins two hubs");
            beside[usize::from(one)] |= 1 << other;
            beside[usize::from(other)] |= 1 << one;
        }
        Self { hubs, beside }
    }

    /// Hubs in a ring.
    #[must_use]
    pub fn ring(hubs: u8) -> Self {
        let bridges: Vec<_> = (0..hubs).map(|hub| (hub, (hub + 1) % hubs)).collect();
        Self::new(hubs, &bridges)
    }

    /// Every connected graph of so many hubs, one of all that differ in the numbers of their hubs only.
    #[must_use]
    pub fn connected(hubs: u8) -> Vec<Self> {
        let pairs: Vec<_> = (0..hubs).flat_map(|one| (one + 1..hubs).map(move |other| (one, other))).collect();
        let orders = permutations(hubs);
        let mut found = Vec::new();
        for set in 0_u32..1 << pairs.len() {
            let bridges: Vec<_> = (0..pairs.len()).filter(|bit| set >> bit & 1 == 1).map(|bit| pairs[bit]).collect();
            let graph = Self::new(hubs, &bridges);
            let first = || orders.iter().all(|order| graph.code() <= graph.renumbered(order).code());
            if graph.is_connected() && first() {
                found.push(graph);
            }
        }
        found
    }

    /// How many hubs.
    #[must_use]
    pub const fn hubs(&self) -> u8 {
        self.hubs
    }

    /// Whom a hub is joined to.
    pub fn beside(&self, hub: u8) -> impl Iterator<Item = u8> + use<> {
        let set = self.beside[usize::from(hub)];
        (0..self.hubs).filter(move |other| set >> other & 1 == 1)
    }

    /// How many bridges.
    #[must_use]
    pub fn bridges(&self) -> usize {
        self.beside.iter().map(|set| set.count_ones() as usize).sum::<usize>() / 2
    }

    /// How many bridges lie between a hub and each other one at least.
    #[must_use]
    pub fn distances(&self, from: u8) -> Vec<usize> {
        let mut distances = vec![usize::MAX; usize::from(self.hubs)];
        let mut reached = vec![from];
        distances[usize::from(from)] = 0;
        for step in 1.. {
            let next: Vec<u8> = reached.iter().flat_map(|hub| self.beside(*hub)).collect();
            reached = next.into_iter().filter(|hub| distances[usize::from(*hub)] == usize::MAX).collect();
            reached.iter().for_each(|hub| distances[usize::from(*hub)] = step);
            if reached.is_empty() {
                break;
            }
        }
        distances
    }

    /// One hub of all that look the same from every other.
    #[must_use]
    pub fn distinct_hubs(&self) -> Vec<u8> {
        let orders: Vec<_> =
            permutations(self.hubs).into_iter().filter(|order| self.renumbered(order) == *self).collect();
        (0..self.hubs).filter(|hub| orders.iter().all(|order| *hub <= order[usize::from(*hub)])).collect()
    }

    fn is_connected(&self) -> bool {
        self.hubs > 0 && self.distances(0).iter().all(|distance| *distance != usize::MAX)
    }

    fn renumbered(&self, order: &[u8]) -> Self {
        let bridges: Vec<_> = (0..self.hubs).flat_map(|one| self.beside(one).map(move |other| (one, other))).collect();
        let bridges: Vec<_> =
            bridges.iter().map(|(one, other)| (order[usize::from(*one)], order[usize::from(*other)])).collect();
        Self::new(self.hubs, &bridges)
    }

    fn code(&self) -> u64 {
        u64::from_be_bytes(self.beside)
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = (0..self.hubs).flat_map(|one| self.beside(one).map(move |other| (one, other)));
        let bridges: Vec<_> = pairs.filter(|(one, other)| one < other).map(|(a, b)| format!("{a}-{b}")).collect();
        write!(f, "{} hubs, {}", self.hubs, bridges.join(" "))
    }
}

fn permutations(length: u8) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    for item in 0..length {
        let insert = |order: &Vec<u8>, at: usize| {
            let mut order = order.clone();
            order.insert(at, item);
            order
        };
        found = found.iter().flat_map(|order| (0..=order.len()).map(move |at| insert(order, at))).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As counted by others: OEIS A001349.
    #[test]
    fn every_connected_graph_is_there_once() {
        let counts: Vec<_> = (1..=6).map(|hubs| Graph::connected(hubs).len()).collect();
        assert_eq!(counts, [1, 1, 2, 6, 21, 112]);
    }

    #[test]
    fn hubs_that_look_the_same_are_taken_once() {
        assert_eq!(Graph::ring(5).distinct_hubs(), [0]);
        assert_eq!(Graph::new(4, &[(0, 1), (1, 2), (2, 3)]).distinct_hubs(), [0, 1]);
        assert_eq!(Graph::new(4, &[(0, 1), (1, 2), (2, 3)]).distances(1), [1, 0, 1, 2]);
    }
}
