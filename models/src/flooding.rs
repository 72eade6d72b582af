//! One broadcast over hubs and bridges: every order in which its copies can arrive, and be lost.
//!
//! ```text
//!   said ─► hub ─┬─► its member, once
//!                └─► each bridge but the one it came by:  skipped if the far hub was visited, or it went too far
//!                                                         suppressed if a copy went there before
//! ```

use stateright::{Model, Property};

use crate::graphs::{Graph, HUBS_MAX, Hubs};

/// What hubs do with copies.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What a hub remembers of a message.
    pub memory: Memory,
    /// A copy tells which hubs it was at, and goes to none of them again.
    pub visited: bool,
    /// Over how many bridges a copy goes.
    pub hops: u8,
}

/// What a hub remembers of a message that it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing.
    Nothing,
    /// That it was here.
    Message,
    /// To which members and bridges it went.
    Receivers,
}

impl Rules {
    /// As specified.
    pub const WRITTEN: Self = Self { memory: Memory::Receivers, visited: true, hops: 8 };
    /// The Python library's: a path, and nothing else.
    pub const PYTHON: Self = Self { memory: Memory::Nothing, visited: true, hops: u8::MAX };
}

/// Hubs with a member each, and somebody at one of them who says something.
#[derive(Clone, Debug)]
pub struct Flooding {
    /// Who is joined to whom.
    pub graph: Graph,
    /// Where it is said.
    pub origin: u8,
    /// What hubs do.
    pub rules: Rules,
    /// How many copies may be lost.
    pub losses: u8,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// To which neighbours each hub has sent a copy, and whether it has had one.
    sent: [Hubs; HUBS_MAX],
    here: Hubs,
    /// How often each hub's member has heard it.
    heard: [u8; HUBS_MAX],
    /// On the way, sorted.
    copies: Vec<Copy>,
    lost: u8,
    sends: u8,
}

/// A copy on a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Copy {
    from: u8,
    to: u8,
    visited: Hubs,
    hops: u8,
}

/// What can happen next, to the copy of this place in [`State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It arrives.
    Arrive(usize),
    /// It never will.
    Lose(usize),
}

/// No member hears anything twice.
pub const ONCE: &str = "at most once";
/// When nothing is under way any more and nothing was lost, every member has heard it.
pub const ALL: &str = "everybody hears it";
/// Copies do not go on for ever.
pub const ENDS: &str = "ends";

impl Flooding {
    /// A hub takes a copy that has gone over so many bridges.
    fn take(&self, state: &mut State, hub: u8, copy: Option<&Copy>) {
        let Rules { memory, visited: lists, hops: most } = self.rules;
        let at = usize::from(hub);
        let (came_by, before, hops) = copy.map_or((None, 0, 0), |copy| (Some(copy.from), copy.visited, copy.hops));
        let comes_back = copy.is_some() && lists && (hub == self.origin || before >> hub & 1 == 1);
        let known = state.here >> hub & 1 == 1;
        if comes_back || (memory == Memory::Message && known) {
            return;
        }
        if !(memory == Memory::Receivers && known) {
            state.heard[at] += 1;
        }
        state.here |= 1 << hub;
        let visited = if lists { before | 1 << hub } else { 0 };
        for to in self.graph.beside(hub).filter(|to| Some(*to) != came_by) {
            let skipped = hops >= most || visited >> to & 1 == 1;
            let suppressed = memory == Memory::Receivers && state.sent[at] >> to & 1 == 1;
            if !skipped && !suppressed {
                state.sent[at] |= 1 << to;
                state.sends = state.sends.saturating_add(1);
                state.copies.push(Copy { from: hub, to, visited, hops: hops.saturating_add(1) });
            }
        }
        state.copies.sort_unstable();
    }

    /// More copies than any rules need that end.
    fn too_many(&self) -> usize {
        4 * self.graph.bridges() * usize::from(self.graph.hubs())
    }
}

impl Model for Flooding {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state =
            State { sent: [0; HUBS_MAX], here: 0, heard: [0; HUBS_MAX], copies: Vec::new(), lost: 0, sends: 0 };
        self.take(&mut state, self.origin, None);
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps.extend((0..state.copies.len()).map(Step::Arrive));
        if state.lost < self.losses {
            steps.extend((0..state.copies.len()).map(Step::Lose));
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut state = state.clone();
        match step {
            Step::Arrive(place) => {
                let copy = state.copies.remove(place);
                self.take(&mut state, copy.to, Some(&copy));
            }
            Step::Lose(place) => {
                state.copies.remove(place);
                state.lost += 1;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, state: &State| state.heard.iter().all(|times| *times <= 1)),
            Property::always(ALL, |model: &Self, state: &State| {
                let over = state.copies.is_empty() && state.lost == 0;
                !over || state.heard.iter().take(usize::from(model.graph.hubs())).all(|times| *times >= 1)
            }),
            Property::always(ENDS, |model: &Self, state: &State| usize::from(state.sends) <= model.too_many()),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        usize::from(state.sends) <= self.too_many() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bound, search};

    fn broken(graph: &Graph, origin: u8, rules: Rules, losses: u8) -> Vec<&'static str> {
        let (broken, _) = search(Flooding { graph: graph.clone(), origin, rules, losses });
        broken.into_iter().map(|(name, _)| name).collect()
    }

    /// All 30 with two to five hubs; with six, those of at most ten bridges as well.
    #[test]
    fn v31_in_every_graph_of_hubs_everybody_hears_everything_once() {
        let (mut graphs, mut states) = (0, 0);
        for graph in (2..=bound(5)).flat_map(Graph::connected).filter(|graph| graph.bridges() <= 10) {
            graphs += 1;
            for origin in graph.distinct_hubs() {
                let (broken, found) =
                    search(Flooding { graph: graph.clone(), origin, rules: Rules::WRITTEN, losses: 0 });
                assert!(broken.is_empty(), "{graph:?}, said at {origin}: {broken:?}");
                states += found;
            }
        }
        assert!(graphs >= 30, "{graphs} graphs");
        println!("{graphs} graphs, {states} states");
    }

    /// Whatever is lost, and however much.
    #[test]
    fn v31_where_copies_are_lost_nobody_hears_anything_twice() {
        for graph in (2..=bound(5) - 1).flat_map(Graph::connected) {
            for origin in graph.distinct_hubs() {
                assert_eq!(broken(&graph, origin, Rules::WRITTEN, u8::MAX), [""; 0], "{graph:?}, said at {origin}");
            }
        }
    }

    #[test]
    fn d15_v31_with_a_path_alone_a_triangle_hears_twice() {
        assert_eq!(broken(&Graph::ring(3), 0, Rules::PYTHON, 0), [ONCE]);
        let tree = Graph::new(5, &[(0, 1), (1, 2), (1, 3), (3, 4)]);
        assert_eq!(broken(&tree, 0, Rules::PYTHON, 0), [""; 0], "where there is no ring it did well");
    }

    /// Visited hubs and the limit of hops are the cheaper check, and not what keeps doubles away.
    #[test]
    fn the_memory_alone_is_enough() {
        let rules = Rules { visited: false, hops: u8::MAX, ..Rules::WRITTEN };
        for graph in (2..=4).flat_map(Graph::connected) {
            assert_eq!(broken(&graph, 0, rules, 0), [""; 0], "{graph:?}");
        }
        let nothing = Rules { memory: Memory::Nothing, ..rules };
        assert!(broken(&Graph::ring(3), 0, nothing, 0).contains(&ENDS));
    }

    /// A copy that came the long way is too tired to go on; one that comes the short way afterwards is not.
    #[test]
    fn a_bridge_that_was_skipped_still_gets_the_next_copy() {
        let long_and_short = Graph::new(4, &[(0, 1), (1, 2), (0, 2), (2, 3)]);
        let tight = |memory| Rules { memory, visited: true, hops: 2 };
        assert_eq!(broken(&long_and_short, 0, tight(Memory::Receivers), 0), [""; 0]);
        assert_eq!(broken(&long_and_short, 0, tight(Memory::Message), 0), [ALL]);
    }

    /// What a limit of hops promises: as many hubs as it has in any path, not in the shortest.
    #[test]
    fn a_limit_below_the_longest_path_may_lose() {
        let longer = Graph::new(5, &[(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)]);
        assert_eq!(longer.distances(0)[4], 3);
        assert_eq!(broken(&longer, 0, Rules { hops: 3, ..Rules::WRITTEN }, 0), [ALL]);
        assert_eq!(broken(&longer, 0, Rules { hops: 4, ..Rules::WRITTEN }, 0), [""; 0]);
    }
}
