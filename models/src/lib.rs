//! The protocol's rules as models, small enough that every order of events is tried.
//!
//! ```text
//!   rules (as written, or with one left out) ─► Model ─► every state ─► properties hold, or a way to break one
//! ```
//!
//! A model shares no code with what it is a model of. Each is searched twice: as the rules stand, where nothing may be
//! found, and with a rule left out or as the Python library had it, where the mishap must be found: a search that finds nothing
//! proves something only if it would find something.

pub mod flooding;
pub mod graphs;
pub mod owners;
pub mod relays;
pub mod routes;

use std::collections::HashMap;

use stateright::{Checker, HasDiscoveries, Model};

/// Tries everything, and gives the names of the properties that do not hold, with the ways there, and how many states there were.
///
/// # Panics
/// When what should be possible sometimes never is.
pub fn search<M>(model: M) -> (Vec<(&'static str, String)>, usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Send + Sync + std::hash::Hash + Clone + std::fmt::Debug + PartialEq,
    M::Action: Send + Sync + Clone + std::fmt::Debug + PartialEq,
{
    let checker = model.checker().spawn_bfs().join();
    let mut broken = Vec::new();
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        if property.expectation.discovery_is_failure() {
            broken.extend(found.map(|path| (property.name, format!("{:?}", path.into_actions()))));
        } else {
            assert!(found.is_some(), "'{}' never happens: the model is too small", property.name);
        }
    }
    (broken, checker.unique_state_count())
}

/// A shortest way to break a property, if there is one.
pub fn mishap<M>(model: M, property: &'static str) -> Option<String>
where
    M: Model + Send + Sync + 'static,
    M::State: Send + Sync + std::hash::Hash + Clone + std::fmt::Debug + PartialEq,
    M::Action: Send + Sync + Clone + std::fmt::Debug + PartialEq,
{
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    checker.discovery(property).map(|path| format!("{:?}", path.into_actions()))
}

/// Whether every run comes to an end: no state is reached again from itself.
pub fn ever_ends<M>(model: &M) -> bool
where
    M: Model,
    M::State: Clone + Eq + std::hash::Hash,
{
    let within = |state: &M::State| model.within_boundary(state);
    let mut finished: HashMap<M::State, bool> = HashMap::new();
    let mut ways: Vec<(M::State, Vec<M::State>)> = Vec::new();
    for state in model.init_states() {
        let next = model.next_states(&state);
        finished.insert(state.clone(), false);
        ways.push((state, next));
        while let Some((state, next)) = ways.last_mut() {
            match next.pop() {
                Some(next) if !within(&next) => {}
                Some(next) => match finished.get(&next) {
                    Some(true) => {}
                    Some(false) => return false,
                    None => {
                        let after = model.next_states(&next);
                        finished.insert(next.clone(), false);
                        ways.push((next, after));
                    }
                },
                None => {
                    finished.insert(state.clone(), true);
                    ways.pop();
                }
            }
        }
    }
    true
}

/// How far a search goes: `usual`, or what `COMMIPC_MODELS` says.
#[must_use]
pub fn bound(usual: u8) -> u8 {
    std::env::var("COMMIPC_MODELS").ok().and_then(|bound| bound.parse().ok()).unwrap_or(usual)
}
