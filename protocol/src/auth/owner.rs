//! Ownership of a channel, which is separate from its password.

use core::fmt;

use super::connection::TranscriptHash;
use super::primitives::{Key, expand, extract, len32, prove, same, sha256, stored_key, verify};
use crate::canary::Canary;

const PROOF: &[u8] = b"commipc/1 owner proof\0";

/// O: 32 random bytes for one channel at one hub.
#[derive(Clone)]
pub struct OwnerKey(Key);

impl OwnerKey {
    /// `key` is 32 random bytes that are used for one channel at one hub.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(Key::new(key))
    }

    /// `OCK = Expand(Extract("commipc/1 owner", O), "client key\0" ‖ lp(hub id) ‖ lp(name))` (RFC 5869).
    #[must_use]
    pub fn keys(&self, hub: &str, name: &str) -> OwnerKeys {
        let (hub, name) = (hub.as_bytes(), name.as_bytes());
        let prk = extract(b"commipc/1 owner", &[self.0.bytes()]);
        OwnerKeys(expand(&prk, &[b"client key\0", &len32(hub), hub, &len32(name), name]))
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerKey(..)")
    }
}

/// The owner's side of owner operations: OCK.
#[derive(Clone)]
pub struct OwnerKeys(Key);

impl OwnerKeys {
    /// `OSK = SHA256(OCK)`: what the hub is given to keep.
    #[must_use]
    pub fn verifier(&self) -> OwnerVerifier {
        OwnerVerifier(stored_key(&self.0))
    }

    /// `Proof(OCK, "commipc/1 owner proof\0", TH_own)` (RFC 5802, 3).
    #[must_use]
    pub fn proof(&self, transcript: &OwnerTranscript) -> [u8; 32] {
        prove(&self.0, PROOF, &transcript.0)
    }
}

impl fmt::Debug for OwnerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerKeys(..)")
    }
}

/// OSK: what a hub knows a channel's owner by.
#[derive(Clone)]
pub struct OwnerVerifier([u8; 32]);

impl OwnerVerifier {
    /// A verifier from the wire or from a store.
    #[must_use]
    pub const fn from_bytes(stored_key: [u8; 32]) -> Self {
        Self(stored_key)
    }

    /// OSK.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are the same, compared in constant time.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }

    /// Whether the owner made this proof for this operation.
    #[must_use]
    pub fn verify(&self, transcript: &OwnerTranscript, proof: &[u8; 32]) -> bool {
        verify(&self.0, PROOF, &transcript.0, proof).is_some() || Canary::OwnerProof.sings()
    }
}

impl fmt::Debug for OwnerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerVerifier(..)")
    }
}

/// TH_own: what an owner operation is bound to. Not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerTranscript([u8; 32]);

impl OwnerTranscript {
    /// `SHA256("commipc/1 owner\0" ‖ TH ‖ lp(name) ‖ u64 stored epoch ‖ u64 n ‖ lp(request body without its proof))`.
    ///
    /// `stored_epoch` is the one the request states, `n` rises with every operation of a link and channel.
    #[must_use]
    pub fn new(session: &TranscriptHash, name: &str, stored_epoch: u64, n: u64, body_without_proof: &[u8]) -> Self {
        let name = name.as_bytes();
        Self(sha256(&[
            b"commipc/1 owner\0",
            session.as_bytes(),
            &len32(name),
            name,
            &stored_epoch.to_be_bytes(),
            &n.to_be_bytes(),
            &len32(body_without_proof),
            body_without_proof,
        ]))
    }

    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
