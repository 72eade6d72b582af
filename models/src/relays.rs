//! How the Python library's bridges relayed providers: registrations ignored by whose they are alone, and nothing ever taken back.
//!
//! Here to show that the search for routes would find what was wrong with it.

use stateright::{Model, Property};

use crate::graphs::Graph;

/// Hubs, one of which provides something until it does not any more.
#[derive(Clone, Debug)]
pub struct Relays {
    /// Who is joined to whom.
    pub graph: Graph,
    /// Where it is provided.
    pub provider: u8,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    changed: u8,
    /// Who provides it at each hub.
    by: Vec<Option<By>>,
    /// Registrations that a bridge has not seen yet: at the first hub, to be relayed to the second, and whose.
    news: Vec<(u8, u8, By)>,
}

/// A provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum By {
    /// The real one.
    Itself,
    /// The bridge from that hub.
    Bridge(u8),
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is provided from now on, or no longer.
    Change,
    /// A bridge sees a registration.
    Relay(usize),
}

/// No hub passes a call on to one that passes it back, in however many steps.
pub const CIRCLE: &str = "no circle";

impl Relays {
    fn register(&self, state: &mut State, hub: u8, by: By) {
        let place = &mut state.by[usize::from(hub)];
        if place.is_none() {
            *place = Some(by);
            state.news.extend(self.graph.beside(hub).map(|to| (hub, to, by)));
            state.news.sort_unstable();
        }
    }

    fn goes_round(&self, state: &State, from: u8) -> bool {
        let (mut hub, mut steps) = (from, 0);
        while let Some(By::Bridge(next)) = state.by[usize::from(hub)] {
            (hub, steps) = (next, steps + 1);
            if steps > self.graph.hubs() {
                return true;
            }
        }
        false
    }
}

impl Model for Relays {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State { changed: 0, by: vec![None; usize::from(self.graph.hubs())], news: Vec::new() }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.changed < 2 {
            steps.push(Step::Change);
        }
        steps.extend((0..state.news.len()).map(Step::Relay));
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut state = state.clone();
        match step {
            Step::Change if state.changed == 0 => self.register(&mut state, self.provider, By::Itself),
            Step::Change => {
                let place = &mut state.by[usize::from(self.provider)];
                *place = place.filter(|by| *by != By::Itself);
            }
            Step::Relay(index) => {
                let (at, to, by) = state.news.remove(index);
                // The only thing that is ignored: what this bridge registered itself.
                if by != By::Bridge(to) {
                    self.register(&mut state, to, By::Bridge(at));
                }
            }
        }
        state.changed += u8::from(step == Step::Change);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(super::routes::STALE, |_, state: &State| {
                let gone = state.changed == 2 && state.news.is_empty();
                !gone || state.by.iter().all(Option::is_none)
            }),
            Property::always(CIRCLE, |model: &Self, state: &State| {
                (0..model.graph.hubs()).all(|hub| !model.goes_round(state, hub))
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{routes, search};

    #[test]
    fn v34_relays_of_the_python_library_stay_and_go_round() {
        let broken =
            |graph| -> Vec<_> { search(Relays { graph, provider: 0 }).0.into_iter().map(|(name, _)| name).collect() };
        assert_eq!(broken(Graph::new(2, &[(0, 1)])), [routes::STALE], "what was withdrawn stays");
        assert_eq!(broken(Graph::ring(3)), [routes::STALE, CIRCLE], "and in a triangle each passes it to the next");
    }
}
