//! What must be met again and again, or nothing is shown: counted in every run.

use std::collections::BTreeMap;

/// How often each thing was met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(pub(crate) BTreeMap<&'static str, u64>);

impl Marks {
    pub(crate) fn met(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}
