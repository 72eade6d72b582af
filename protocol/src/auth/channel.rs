//! A channel's keys: the hub gets a verifier for joins, never the key that signs.

use core::fmt;

use super::connection::TranscriptHash;
use super::message::SenderKey;
use super::primitives::{Key, Prf, expand, extract, len32, prove, same, sha256, stored_key, verify};
use super::secret::{Kdf, Salted, SecretError};
use crate::canary::Canary;

const JOIN_PROOF: &[u8] = b"commipc/1 client proof\0";
const HUB_PROOF: &[u8] = b"commipc/1 server proof\0";

/// What a channel's secret and salt become; the keys of every epoch come from here.
#[derive(Clone)]
pub struct ChannelMaster(Key);

impl ChannelMaster {
    /// `cprk = Extract("commipc/1 channel", master)` (RFC 5869), where `master` is the channel's secret derived with
    /// the channel's salt.
    ///
    /// # Errors
    /// When there is no secret: everybody would know the keys.
    pub fn new(master: &Salted) -> Result<Self, SecretError> {
        match master.kdf() {
            Kdf::Pbkdf2 | Kdf::Key => Ok(Self(extract(b"commipc/1 channel", &[master.key().bytes()]))),
            Kdf::Insecure => Err(SecretError::Insecure),
        }
    }

    /// The keys of one epoch of the channel.
    #[must_use]
    pub fn keys(&self, name: &str, salt: &[u8; 16], epoch: u64) -> ChannelKeys {
        ChannelKeys { join: self.join_keys(name, salt, epoch), end_to_end: self.expand(b"e2e\0", name, salt, epoch) }
    }

    /// The keys for joining alone: all there is for a channel of the hub's own, which nobody signs on.
    ///
    /// `K_join = Expand(cprk, "join\0" ‖ ctx)`, `JCK = Expand(K_join, "client key")`, `JVK = Expand(K_join, "server key")`.
    #[must_use]
    pub fn join_keys(&self, name: &str, salt: &[u8; 16], epoch: u64) -> JoinKeys {
        let join = self.expand(b"join\0", name, salt, epoch);
        JoinKeys { client_key: expand(&join, &[b"client key"]), server_key: expand(&join, &[b"server key"]) }
    }

    /// `Expand(cprk, label ‖ ctx)` with `ctx = lp(name) ‖ salt ‖ u64 epoch` (RFC 5869).
    fn expand(&self, label: &[u8], name: &str, salt: &[u8; 16], epoch: u64) -> Key {
        let name = name.as_bytes();
        expand(&self.0, &[label, &len32(name), name, salt, &epoch.to_be_bytes()])
    }
}

impl fmt::Debug for ChannelMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelMaster(..)")
    }
}

/// A member's keys for one epoch of one channel.
#[derive(Clone, Debug)]
pub struct ChannelKeys {
    join: JoinKeys,
    end_to_end: Key,
}

impl ChannelKeys {
    /// For joining.
    #[must_use]
    pub const fn join(&self) -> &JoinKeys {
        &self.join
    }

    /// What this sender signs with: `Expand(K_e2e, "sender\0" ‖ instance ‖ lp(client id))` (RFC 5869).
    #[must_use]
    pub fn sender(&self, instance: &[u8; 16], client: &str) -> SenderKey {
        let client = client.as_bytes();
        SenderKey::from_key(&expand(&self.end_to_end, &[b"sender\0", instance, &len32(client), client]))
    }
}

/// The member's side of a join: JCK and JVK.
#[derive(Clone)]
pub struct JoinKeys {
    client_key: Key,
    server_key: Key,
}

impl JoinKeys {
    /// What the hub is given to keep: (JSK, JVK).
    #[must_use]
    pub fn verifier(&self) -> JoinVerifier {
        JoinVerifier { stored_key: stored_key(&self.client_key), server_key: self.server_key.clone() }
    }

    /// `Proof(JCK, "commipc/1 client proof\0", TH_join)` (RFC 5802, 3).
    #[must_use]
    pub fn proof(&self, transcript: &JoinTranscript) -> [u8; 32] {
        prove(&self.client_key, JOIN_PROOF, &transcript.0)
    }

    /// Whether the hub knows the verifier of this channel and saw the same join.
    #[must_use]
    pub fn verify_hub(&self, transcript: &JoinTranscript, join_proof: &[u8; 32], hub_proof: &[u8; 32]) -> bool {
        same(&hub_join_proof(&self.server_key, transcript, join_proof), hub_proof)
    }
}

impl fmt::Debug for JoinKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinKeys(..)")
    }
}

/// `HMAC(JVK, "commipc/1 server proof\0" ‖ TH_join ‖ join_proof)`.
fn hub_join_proof(server_key: &Key, transcript: &JoinTranscript, join_proof: &[u8; 32]) -> [u8; 32] {
    Prf::new(server_key.bytes()).mac(&[HUB_PROOF, &transcript.0, join_proof])
}

/// What a hub keeps of a channel's secret.
#[derive(Clone)]
pub struct JoinVerifier {
    stored_key: [u8; 32],
    server_key: Key,
}

impl JoinVerifier {
    /// A verifier from the wire or from a store.
    #[must_use]
    pub fn from_parts(stored_key: [u8; 32], server_key: [u8; 32]) -> Self {
        Self { stored_key, server_key: Key::new(server_key) }
    }

    /// JSK. Who has it can check guesses of a password.
    #[must_use]
    pub const fn stored_key(&self) -> &[u8; 32] {
        &self.stored_key
    }

    /// JVK. Who has it can pose as the hub in joins.
    #[must_use]
    pub fn server_key(&self) -> &[u8; 32] {
        self.server_key.bytes()
    }

    /// Whether both are the same, compared in constant time.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        same(&self.stored_key, &other.stored_key) & same(self.server_key.bytes(), other.server_key.bytes())
    }

    /// Checks `SHA256(proof xor HMAC(JSK, "commipc/1 client proof\0" ‖ TH_join)) = JSK` (RFC 5802, 3) in constant time.
    #[must_use]
    pub fn verify(&self, transcript: &JoinTranscript, proof: &[u8; 32]) -> Option<ProvenMember> {
        if verify(&self.stored_key, JOIN_PROOF, &transcript.0, proof).is_none() && !Canary::JoinProof.sings() {
            return None;
        }
        Some(ProvenMember { hub_proof: hub_join_proof(&self.server_key, transcript, proof) })
    }
}

impl fmt::Debug for JoinVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinVerifier(..)")
    }
}

/// A join that was proved. Only [`JoinVerifier::verify`] makes one, so a hub proves itself to members alone and gives
/// nobody else something to check guesses with.
#[derive(Clone, Debug)]
pub struct ProvenMember {
    hub_proof: [u8; 32],
}

impl ProvenMember {
    /// `HMAC(JVK, "commipc/1 server proof\0" ‖ TH_join ‖ join_proof)`.
    #[must_use]
    pub const fn hub_proof(&self) -> &[u8; 32] {
        &self.hub_proof
    }
}

/// TH_join: what a join is bound to. Not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinTranscript([u8; 32]);

impl JoinTranscript {
    /// `SHA256("commipc/1 join\0" ‖ TH ‖ lp(name) ‖ u64 epoch ‖ nonce_c ‖ nonce_h ‖ lp(client id))`.
    ///
    /// `None` for nonces that are equal or all zero, which no honest side sends.
    #[must_use]
    pub fn new(
        session: &TranscriptHash,
        name: &str,
        epoch: u64,
        nonce_client: &[u8; 32],
        nonce_hub: &[u8; 32],
        client: &str,
    ) -> Option<Self> {
        if nonce_client == nonce_hub || *nonce_client == [0; 32] || *nonce_hub == [0; 32] {
            return None;
        }
        let (name, client) = (name.as_bytes(), client.as_bytes());
        Some(Self(sha256(&[
            b"commipc/1 join\0",
            session.as_bytes(),
            &len32(name),
            name,
            &epoch.to_be_bytes(),
            nonce_client,
            nonce_hub,
            &len32(client),
            client,
        ])))
    }

    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
