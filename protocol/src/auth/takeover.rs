//! Taking over a client id while its old link lingers.

use core::fmt;

use super::connection::TranscriptHash;
use super::primitives::{Key, expand, extract, prove, stored_key, verify};

const PROOF: &[u8] = b"commipc/1 takeover\0";

/// T: 32 random bytes, fresh for every HELLO, that prove a later connection to come from the same client machine.
#[derive(Clone)]
pub struct TakeoverSecret(Key);

impl TakeoverSecret {
    /// `secret` is 32 random bytes that are used for one HELLO only.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Key::new(secret))
    }

    /// `TSK = SHA256(TCK)`: what the hub is given to keep.
    #[must_use]
    pub fn stored_key(&self) -> [u8; 32] {
        stored_key(&self.client_key())
    }

    /// `Proof(TCK, "commipc/1 takeover\0", TH)` (RFC 5802, 3).
    #[must_use]
    pub fn proof(&self, transcript: &TranscriptHash) -> [u8; 32] {
        prove(&self.client_key(), PROOF, transcript.as_bytes())
    }

    /// Whether `proof` was made, for this handshake, from the secret that `stored` stands for.
    #[must_use]
    pub fn verify(stored: &[u8; 32], transcript: &TranscriptHash, proof: &[u8; 32]) -> bool {
        verify(stored, PROOF, transcript.as_bytes(), proof).is_some()
    }

    /// `TCK = Expand(Extract("commipc/1 takeover", T), "client key")` (RFC 5869).
    fn client_key(&self) -> Key {
        expand(&extract(b"commipc/1 takeover", &[self.0.bytes()]), &[b"client key"])
    }
}

impl fmt::Debug for TakeoverSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TakeoverSecret(..)")
    }
}
