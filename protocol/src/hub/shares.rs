//! How the places of a bridge's link are shared, by distance: however much comes from far away, what is nearer finds some.
//!
//! ```text
//!   from 1 hub away    ████████  all places      (with a limit of 8 hops)
//!        2 or more     ███████
//!        3 or more     ██████
//!        …
//! ```
//! An honest hub adds itself to every path. So what a lying bridge makes up seems no nearer than that bridge is, and all that is
//! said by hubs between it and here keeps places of its own.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::routes::Place;
use crate::limits::Limits;

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    most: usize,
    /// The longest way.
    hops: usize,
}

impl Quota {
    pub(crate) fn of_routes(limits: &Limits) -> Self {
        Self { most: limits.bridge_routes, hops: usize::from(limits.hops) }
    }

    pub(crate) fn of_doubles(limits: &Limits) -> Self {
        Self { most: limits.bridge_doubles, hops: usize::from(limits.hops) }
    }

    /// Whether there is a place for something that is so many hubs away, beside so many that are one hub away, two, and so on.
    pub(super) fn has_room(self, held: impl Iterator<Item = usize> + Clone, hubs: usize) -> bool {
        let hops = self.hops.max(1);
        let mut further: usize = held.clone().sum();
        for (nearer, held) in (0..hubs.clamp(1, hops)).zip(held.chain(core::iter::repeat(0))) {
            if further >= self.most - self.most / hops * nearer {
                return false;
            }
            further -= held;
        }
        true
    }
}

/// Things that have places, by how many hubs away they are.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<BTreeSet<Place>>);

impl Places {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(BTreeSet::len).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().flatten()
    }

    pub(crate) fn contains(&self, place: &Place) -> bool {
        self.0.iter().any(|places| places.contains(place))
    }

    /// Puts something so many hubs away; whether it has come nearer.
    pub(crate) fn put(&mut self, place: Place, hubs: usize) -> bool {
        let at = hubs.saturating_sub(1);
        let before = self.0.iter_mut().position(|places| places.remove(&place));
        if self.0.len() <= at {
            self.0.resize_with(at + 1, BTreeSet::new);
        }
        if let Some(places) = self.0.get_mut(at) {
            places.insert(place);
        }
        before.is_some_and(|before| at < before)
    }

    pub(crate) fn remove(&mut self, place: &Place) -> bool {
        self.0.iter_mut().any(|places| places.remove(place))
    }

    pub(crate) fn has_room(&self, quota: Quota, hubs: usize) -> bool {
        quota.has_room(self.0.iter().map(BTreeSet::len), hubs)
    }

    /// Takes the nearest out, the first of several, if `fits` says so of its distance.
    pub(crate) fn take_nearest(&mut self, fits: impl Fn(usize) -> bool) -> Option<Place> {
        let (at, places) = self.0.iter_mut().enumerate().find(|(_, places)| !places.is_empty())?;
        if fits(at + 1) { places.pop_first() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a7_whatever_comes_from_afar_what_is_nearer_finds_places_and_all_together_no_more_than_there_are() {
        for most in [0, 3, 40, 262_144, usize::MAX] {
            for hops in [0, 1, 8, 255] {
                let quota = Quota { most, hops };
                // As many as fit from the furthest on, each distance in turn.
                let mut held = alloc::vec![0; hops.max(1)];
                for at in (0..held.len()).rev() {
                    let fits = |held: &[usize]| quota.has_room(held.iter().copied(), at + 1);
                    let share = most - most / hops.max(1) * at;
                    let so_far: usize = held.iter().sum();
                    held[at] = (share - so_far).saturating_sub(1);
                    assert_eq!(fits(&held), share > so_far, "{quota:?} {at}");
                    held[at] = share - so_far;
                    assert!(!fits(&held), "{quota:?} {at}");
                }
                assert_eq!(held.iter().sum::<usize>(), most);
                // What is nearest may have all, and then the others have none.
                let all = core::iter::once(most);
                assert!((1..10).all(|hubs| !quota.has_room(all.clone(), hubs)));
            }
        }
    }
}
