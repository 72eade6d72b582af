//! One seed fixes everything that is random.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng as _};
use zeroize::Zeroizing;

/// Where all of a machine's randomness comes from: 32 bytes that the driver takes from the system, or a simulation from its seed.
///
/// Every purpose draws from a ChaCha stream of its own, so a new draw in one place shifts nothing in another.
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// Wraps the bytes. In production they must be unpredictable.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The stream for one purpose.
    pub(crate) fn stream(&self, purpose: Purpose) -> Stream {
        let mut rng = ChaCha12Rng::from_seed(*self.0);
        rng.set_stream(purpose as u64);
        Stream(rng)
    }
}

impl core::fmt::Debug for Seed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// What randomness is for. Numbers are never reused: a stream's numbers belong to its purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Identity = 1,
    Handshake = 2,
    HashKeys = 3,
    Takeover = 4,
    Channels = 5,
    Reconnect = 6,
    BridgeA = 7,
    BridgeB = 8,
}

/// The random numbers of one purpose.
pub(crate) struct Stream(ChaCha12Rng);

impl Stream {
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

impl core::fmt::Debug for Stream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Stream(..)")
    }
}
