//! How hubs learn over bridges where something is provided, and that it no longer is: a path vector.
//!
//! ```text
//!   provided here, or the shortest of what neighbours announce (none through this hub)
//!        └─► changed? ─► announced to each neighbour but the one it came from, which is told that there is none
//! ```

use stateright::{Model, Property};

use crate::graphs::{Graph, Hubs};

/// What hubs do with routes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A path through the hub itself is as good as none.
    pub refuses_itself: bool,
    /// To whom a route is not announced.
    pub horizon: Horizon,
    /// That a route is gone is told.
    pub withdraws: bool,
    /// A call tells which hubs it was at, and is answered by one that it comes back to.
    pub visited: bool,
}

/// What the neighbour hears from whom a route came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Horizon {
    /// The route.
    None,
    /// Nothing: what it was told before stands.
    Silent,
    /// That there is no route.
    Split,
}

impl Rules {
    /// As specified.
    pub const WRITTEN: Self = Self { refuses_itself: true, horizon: Horizon::Split, withdraws: true, visited: true };
}

/// Hubs, one of which provides something, or does not any more.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Who is joined to whom.
    pub graph: Graph,
    /// Where it is provided.
    pub provider: u8,
    /// What hubs do.
    pub rules: Rules,
    /// How often it begins or ceases to be provided.
    pub changes: u8,
    /// How many bridges may end.
    pub cuts: u8,
    /// Whether somebody calls.
    pub calls: bool,
}

/// The hubs between, the next one first and the provider's last.
type Path = Vec<u8>;

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    changed: u8,
    cut: Vec<(u8, u8)>,
    /// In both directions of every bridge, in the order of [`Routes::lines`].
    lines: Vec<Line>,
    call: Call,
}

/// One direction of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Line {
    /// What its beginning announced last.
    announced: Option<Path>,
    /// On the way.
    carries: Vec<Option<Path>>,
    /// What its end has heard last.
    heard: Option<Path>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Call {
    Unmade,
    At { hub: u8, visited: Hubs, hops: u8 },
    Over,
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is provided from now on, or no longer.
    Change,
    /// The next word of this line arrives.
    Hear(usize),
    /// A bridge ends; both of its hubs see that.
    Cut(u8, u8),
    /// Somebody calls, at this hub.
    Call(u8),
    /// The call goes on.
    Forward,
}

/// When all is said, nobody believes in what is no longer there.
pub const STALE: &str = "no stale route";
/// When all is said, everybody knows the shortest way.
pub const SHORTEST: &str = "the shortest route";
/// No path comes through a hub twice, so that none grows for ever.
pub const SIMPLE: &str = "paths are simple";
/// A call is at every hub once at most.
pub const CALLS: &str = "calls end";
/// While news is on its way, a call can come back to where it was.
pub const BACK: &str = "a call comes back";

impl Routes {
    /// Every bridge, in both directions.
    fn lines(&self) -> Vec<(u8, u8)> {
        let hubs = 0..self.graph.hubs();
        hubs.flat_map(|from| self.graph.beside(from).map(move |to| (from, to))).collect()
    }

    fn provided(state: &State) -> bool {
        state.changed % 2 == 1
    }

    /// The route that a hub takes: the shortest, of several the one of the neighbour with the lowest number.
    fn best(&self, state: &State, hub: u8) -> Option<Path> {
        if hub == self.provider && Self::provided(state) {
            return Some(Path::new());
        }
        let to_it = self.lines().into_iter().zip(&state.lines).filter(|((_, to), _)| *to == hub);
        to_it.filter_map(|(_, line)| line.heard.clone()).min_by_key(Vec::len)
    }

    /// A hub tells its neighbours what has changed.
    fn announce(&self, state: &mut State, hub: u8) {
        let best = self.best(state, hub);
        for (index, (from, to)) in self.lines().into_iter().enumerate() {
            if from != hub || is_cut(state, from, to) {
                continue;
            }
            let came_from_there = best.as_ref().is_some_and(|path| path.first() == Some(&to));
            let says = match self.rules.horizon {
                Horizon::Silent if came_from_there => continue,
                Horizon::Split if came_from_there => None,
                Horizon::None | Horizon::Silent | Horizon::Split => {
                    best.as_ref().map(|path| [&[hub], &path[..]].concat())
                }
            };
            let line = &mut state.lines[index];
            if line.announced != says && (says.is_some() || self.rules.withdraws) {
                line.announced.clone_from(&says);
                line.carries.push(says);
            }
        }
    }

    fn hear(&self, state: &mut State, index: usize) {
        let (_, to) = self.lines()[index];
        let line = &mut state.lines[index];
        let path = line.carries.remove(0);
        line.heard = path.filter(|path| !(self.rules.refuses_itself && path.contains(&to)));
        self.announce(state, to);
    }

    fn cut(&self, state: &mut State, one: u8, other: u8) {
        state.cut.push((one, other));
        for (index, (from, to)) in self.lines().into_iter().enumerate() {
            if is_cut(state, from, to) {
                state.lines[index] = Line::default();
            }
        }
        self.announce(state, one);
        self.announce(state, other);
    }

    fn forward(&self, state: &State, hub: u8, visited: Hubs, hops: u8) -> Call {
        let back = self.rules.visited && visited >> hub & 1 == 1;
        match self.best(state, hub) {
            Some(path) if !back && !path.is_empty() => {
                Call::At { hub: path[0], visited: visited | 1 << hub, hops: hops + 1 }
            }
            Some(_) | None => Call::Over,
        }
    }

    /// All that has begun is over.
    fn quiet(state: &State) -> bool {
        state.lines.iter().all(|line| line.carries.is_empty())
    }

    /// The graph without what was cut.
    fn left(&self, state: &State) -> Graph {
        let kept = self.lines().into_iter().filter(|(from, to)| from < to && !is_cut(state, *from, *to));
        Graph::new(self.graph.hubs(), &kept.collect::<Vec<_>>())
    }

    fn is_shortest_everywhere(&self, state: &State) -> bool {
        let left = self.left(state);
        let distances = left.distances(self.provider);
        (0..self.graph.hubs()).all(|hub| match self.best(state, hub) {
            None => distances[usize::from(hub)] == usize::MAX,
            Some(path) => {
                let steps = [&[hub], &path[..]].concat();
                path.len() == distances[usize::from(hub)]
                    && steps.windows(2).all(|step| left.beside(step[0]).any(|to| to == step[1]))
                    && steps.last() == Some(&self.provider)
            }
        })
    }
}

fn is_cut(state: &State, from: u8, to: u8) -> bool {
    state.cut.contains(&(from, to)) || state.cut.contains(&(to, from))
}

impl Model for Routes {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let lines = vec![Line::default(); self.lines().len()];
        vec![State { changed: 0, cut: Vec::new(), lines, call: Call::Unmade }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.changed < self.changes {
            steps.push(Step::Change);
        }
        let carrying = state.lines.iter().enumerate().filter(|(_, line)| !line.carries.is_empty());
        steps.extend(carrying.map(|(index, _)| Step::Hear(index)));
        if state.cut.len() < usize::from(self.cuts) {
            let standing = self.lines().into_iter().filter(|(from, to)| from < to && !is_cut(state, *from, *to));
            steps.extend(standing.map(|(one, other)| Step::Cut(one, other)));
        }
        match state.call {
            Call::Unmade if self.calls => steps.extend((0..self.graph.hubs()).map(Step::Call)),
            Call::At { .. } => steps.push(Step::Forward),
            Call::Unmade | Call::Over => {}
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut state = state.clone();
        match step {
            Step::Change => {
                state.changed += 1;
                self.announce(&mut state, self.provider);
            }
            Step::Hear(index) => self.hear(&mut state, index),
            Step::Cut(one, other) => self.cut(&mut state, one, other),
            Step::Call(hub) => state.call = Call::At { hub, visited: 0, hops: 0 },
            Step::Forward => {
                let Call::At { hub, visited, hops } = state.call else { return None };
                state.call = self.forward(&state, hub, visited, hops);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(STALE, |model: &Self, state: &State| {
                let gone = Self::quiet(state) && !Self::provided(state);
                !gone || (0..model.graph.hubs()).all(|hub| model.best(state, hub).is_none())
            }),
            Property::always(SHORTEST, |model: &Self, state: &State| {
                let settled = Self::quiet(state) && Self::provided(state);
                !settled || model.is_shortest_everywhere(state)
            }),
            Property::always(SIMPLE, |model: &Self, state: &State| {
                let heard = state.lines.iter().flat_map(|line| line.heard.iter().chain(line.carries.iter().flatten()));
                heard.into_iter().all(|path| path.len() <= usize::from(model.graph.hubs()))
            }),
            Property::always(
                CALLS,
                |model: &Self, state: &State| !matches!(state.call, Call::At { hops, .. } if hops > model.graph.hubs()),
            ),
        ];
        if self.calls && self.rules.visited {
            properties.push(Property::sometimes(
                BACK,
                |_, state: &State| matches!(state.call, Call::At { hub, visited, .. } if visited >> hub & 1 == 1),
            ));
        }
        properties
    }

    fn within_boundary(&self, state: &State) -> bool {
        let longest = usize::from(self.graph.hubs()) + 1;
        state.lines.iter().all(|line| line.heard.as_ref().is_none_or(|path| path.len() <= longest))
            && !matches!(state.call, Call::At { hops, .. } if hops > self.graph.hubs() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bound, ever_ends, mishap, search};

    fn routes(graph: &Graph, provider: u8, rules: Rules) -> Routes {
        Routes { graph: graph.clone(), provider, rules, changes: 2, cuts: 0, calls: false }
    }

    fn broken(model: Routes) -> Vec<&'static str> {
        search(model).0.into_iter().map(|(name, _)| name).collect()
    }

    /// Every graph of so many hubs with few enough bridges to be searched, and each place in it for a provider: all with three
    /// hubs, of those with more the trees and those with one ring; with a higher bound four hubs with two rings as well.
    fn networks(hubs: std::ops::RangeInclusive<u8>) -> Vec<Routes> {
        let most = |graph: &Graph| usize::from(graph.hubs()) + usize::from(bound(5) > 5 && graph.hubs() == 4);
        let few = hubs.flat_map(Graph::connected).filter(|graph| graph.bridges() <= most(graph));
        let places = few.flat_map(|graph| graph.distinct_hubs().into_iter().map(move |hub| (graph.clone(), hub)));
        places.map(|(graph, hub)| routes(&graph, hub, Rules::WRITTEN)).collect()
    }

    /// Also what changes while news of the change before is on its way.
    #[test]
    fn v34_what_is_withdrawn_is_gone_everywhere_and_what_is_provided_is_found_the_shortest_way() {
        let mut states = 0;
        for model in networks(2..=5) {
            let (broken, found) = search(model.clone());
            assert!(broken.is_empty(), "{model:?}: {broken:?}");
            states += found;
        }
        println!("{states} states");
    }

    #[test]
    fn v34_routes_settle_where_bridges_end_and_what_was_withdrawn_comes_back() {
        for model in networks(2..=3) {
            let model = Routes { cuts: 1, changes: 2, ..model };
            assert!(ever_ends(&model), "{model:?}: news goes round for ever");
            assert_eq!(broken(model.clone()), [""; 0], "{model:?}");
        }
        let line = Graph::new(3, &[(0, 1), (1, 2)]);
        assert_eq!(broken(Routes { changes: 3, cuts: 1, ..routes(&line, 0, Rules::WRITTEN) }), [""; 0]);
    }

    /// While news is on its way two hubs may point at each other: it is the list of visited hubs that ends a call.
    #[test]
    fn v34_v38_a_call_ends_wherever_news_is() {
        let ring = Graph::ring(3);
        let model = |visited| Routes { calls: true, ..routes(&ring, 0, Rules { visited, ..Rules::WRITTEN }) };
        assert_eq!(broken(model(true)), [""; 0]);
        assert!(ever_ends(&model(true)));
        assert!(mishap(model(false), CALLS).is_some(), "without the list a call goes round as long as the news takes");
    }

    #[test]
    fn a_hub_that_takes_routes_through_itself_believes_in_them_for_ever() {
        let rules = Rules { refuses_itself: false, horizon: Horizon::None, ..Rules::WRITTEN };
        assert!(mishap(routes(&Graph::ring(3), 0, rules), SIMPLE).is_some());
    }

    #[test]
    fn routes_that_are_not_withdrawn_stay() {
        let rules = Rules { withdraws: false, ..Rules::WRITTEN };
        assert_eq!(broken(routes(&Graph::new(2, &[(0, 1)]), 0, rules)), [STALE]);
    }

    /// The route came from elsewhere first, and was announced: now that it comes from there, that must be taken back.
    #[test]
    fn a_horizon_that_says_nothing_leaves_what_it_said_before() {
        let rules = Rules { horizon: Horizon::Silent, ..Rules::WRITTEN };
        let found = mishap(routes(&Graph::ring(4), 0, rules), STALE);
        println!("{found:?}");
        assert!(found.is_some());
    }
}
