//! Maps whose keys peers choose: SipHash-1-3, keyed from the machine's seed, so that nobody can aim at a bucket.

use core::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher13;

use crate::seed::Stream;

/// A map keyed by what peers choose. Its order must never be seen.
pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, Keyed>;

/// The key of a machine's maps.
#[derive(Clone, Copy)]
pub(crate) struct Keyed(u64, u64);

impl Keyed {
    pub(crate) fn new(rng: &mut Stream) -> Self {
        Self(rng.u64(), rng.u64())
    }

    pub(crate) fn map<K, V>(self) -> Map<K, V> {
        Map::with_hasher(self)
    }
}

impl BuildHasher for Keyed {
    type Hasher = Sip;

    fn build_hasher(&self) -> Sip {
        Sip(SipHasher13::new_with_keys(self.0, self.1))
    }
}

impl core::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keyed(..)")
    }
}

/// A hash in the making.
pub(crate) struct Sip(SipHasher13);

impl Hasher for Sip {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}
