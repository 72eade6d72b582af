//! Mutual proof of a connection, bound to the whole handshake.

use core::fmt;

use super::primitives::{Key, Prf, expand, extract, len32, prove, same, sha256, stored_key, verify};
use super::record::RecordKeys;
use super::secret::{Kdf, Salted, Secret, SecretError};
use crate::canary::Canary;

const CLIENT_PROOF: &[u8] = b"commipc/1 client proof\0";
const SERVER_PROOF: &[u8] = b"commipc/1 server proof\0";

/// The hash of everything both sides said before they proved anything. Not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TranscriptHash([u8; 32]);

impl TranscriptHash {
    /// `SHA256("commipc/1 transcript\0" ‖ lp(magic ‖ HELLO) ‖ lp(CHALLENGE) ‖ lp(binding))`, whole frames as sent, in
    /// the manner of RFC 8446, 4.4.1. `binding` is the TLS exporter value (RFC 9266), or empty.
    #[must_use]
    pub fn connection(magic_and_hello: &[u8], challenge: &[u8], binding: &[u8]) -> Self {
        Self(sha256(&[
            b"commipc/1 transcript\0",
            &len32(magic_and_hello),
            magic_and_hello,
            &len32(challenge),
            challenge,
            &len32(binding),
            binding,
        ]))
    }

    /// What stands for the transcript in joins and owner operations that a home hub answers over bridges:
    /// `SHA256("commipc/1 remote\0" ‖ lp(home hub id) ‖ home boot id ‖ nonce_c ‖ nonce_h)`.
    #[must_use]
    pub fn remote(home: &str, boot: &[u8; 16], nonce_client: &[u8; 32], nonce_hub: &[u8; 32]) -> Self {
        let home = home.as_bytes();
        Self(sha256(&[b"commipc/1 remote\0", &len32(home), home, boot, nonce_client, nonce_hub]))
    }

    /// A transcript hash that was made elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The client's side of the proofs: CK and VK.
#[derive(Clone)]
pub struct ConnectionKeys {
    client_key: Key,
    server_key: Key,
}

impl ConnectionKeys {
    /// `prk = Extract("commipc/1 conn", salted)`, `CK = Expand(prk, "client key")`, `VK = Expand(prk, "server key")`
    /// (RFC 5869).
    #[must_use]
    pub fn new(salted: &Salted) -> Self {
        let prk = extract(b"commipc/1 conn", &[salted.key().bytes()]);
        Self { client_key: expand(&prk, &[b"client key"]), server_key: expand(&prk, &[b"server key"]) }
    }

    /// `Proof(CK, "commipc/1 client proof\0", TH)` (RFC 5802, 3).
    #[must_use]
    pub fn client_proof(&self, transcript: &TranscriptHash) -> [u8; 32] {
        prove(&self.client_key, CLIENT_PROOF, &transcript.0)
    }

    /// Whether the hub knows the verifier of this secret and saw the same handshake.
    ///
    /// `welcome_without_proof` are the bytes of the WELCOME body up to, not including, the proof's label.
    #[must_use]
    pub fn verify_server_proof(
        &self,
        transcript: &TranscriptHash,
        client_proof: &[u8; 32],
        welcome_without_proof: &[u8],
        proof: &[u8; 32],
    ) -> bool {
        same(&server_proof(&self.server_key, transcript, client_proof, welcome_without_proof), proof)
    }

    /// The keys of the record tags and masks of this connection.
    #[must_use]
    pub fn record_keys(&self, transcript: &TranscriptHash) -> RecordKeys {
        RecordKeys::new(&self.client_key, &self.server_key, transcript)
    }
}

impl fmt::Debug for ConnectionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionKeys(..)")
    }
}

/// `HMAC(VK, "commipc/1 server proof\0" ‖ TH ‖ client_proof ‖ lp(WELCOME body without the proof))`.
fn server_proof(server_key: &Key, transcript: &TranscriptHash, client_proof: &[u8; 32], welcome: &[u8]) -> [u8; 32] {
    Prf::new(server_key.bytes()).mac(&[SERVER_PROOF, &transcript.0, client_proof, &len32(welcome), welcome])
}

/// What a hub keeps of a secret: enough to check proofs and to prove itself, useless for logging in anywhere.
#[derive(Clone)]
pub struct Verifier {
    kdf: Kdf,
    salt: [u8; 16],
    iterations: u32,
    stored_key: [u8; 32],
    server_key: Key,
}

impl Verifier {
    /// Derives the verifier of a secret; the secret can be forgotten then. Slow for passwords, like [`Secret::derive`].
    ///
    /// `salt` is 16 random bytes of this hub and credential alone; it is not read without a secret. `iterations` is
    /// read for passwords only.
    ///
    /// # Errors
    /// When the rounds are out of bounds.
    pub fn new(secret: &Secret, salt: [u8; 16], iterations: u32) -> Result<Self, SecretError> {
        let kdf = secret.kdf();
        let (salt, iterations) = match kdf {
            Kdf::Pbkdf2 => (salt, iterations),
            Kdf::Key => (salt, 0),
            Kdf::Insecure => ([0; 16], 0),
        };
        let keys = ConnectionKeys::new(&secret.derive(&salt, iterations)?);
        let stored_key = stored_key(&keys.client_key);
        Ok(Self { kdf, salt, iterations, stored_key, server_key: keys.server_key })
    }

    /// A verifier that was kept somewhere.
    ///
    /// # Errors
    /// When the rounds do not fit the kdf.
    pub fn from_parts(
        kdf: Kdf,
        salt: [u8; 16],
        iterations: u32,
        stored_key: [u8; 32],
        server_key: [u8; 32],
    ) -> Result<Self, SecretError> {
        if !kdf.allows(iterations) {
            return Err(SecretError::Iterations);
        }
        Ok(Self { kdf, salt, iterations, stored_key, server_key: Key::new(server_key) })
    }

    /// How the client has to derive.
    #[must_use]
    pub const fn kdf(&self) -> Kdf {
        self.kdf
    }

    /// The salt as it stands in a CHALLENGE: empty where there is no secret.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        match self.kdf {
            Kdf::Pbkdf2 | Kdf::Key => &self.salt,
            Kdf::Insecure => &[],
        }
    }

    /// PBKDF2 rounds; 0 where there are none.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// SK, `SHA256(CK)`. Who has it can check guesses of a password.
    #[must_use]
    pub const fn stored_key(&self) -> &[u8; 32] {
        &self.stored_key
    }

    /// VK. Who has it can pose as this hub.
    #[must_use]
    pub fn server_key(&self) -> &[u8; 32] {
        self.server_key.bytes()
    }

    /// Checks `SHA256(proof xor HMAC(SK, "commipc/1 client proof\0" ‖ TH)) = SK` (RFC 5802, 3) in constant time.
    #[must_use]
    pub fn verify_client(&self, transcript: &TranscriptHash, proof: &[u8; 32]) -> Option<ProvenClient> {
        let proved = verify(&self.stored_key, CLIENT_PROOF, &transcript.0, proof);
        let client_key = proved.or_else(|| Canary::ClientProof.sings().then(|| Key::new([0; 32])))?;
        let keys = ConnectionKeys { client_key, server_key: self.server_key.clone() };
        Some(ProvenClient { keys, transcript: *transcript, proof: *proof })
    }

    /// A verifier that no proof is known for, looking like `like`.
    pub(super) fn fake(like: Option<&Self>, salt: [u8; 16], stored_key: [u8; 32]) -> Self {
        let (kdf, iterations) =
            like.map_or((Kdf::Pbkdf2, super::DEFAULT_ITERATIONS), |like| (like.kdf, like.iterations));
        Self { kdf, salt, iterations, stored_key, server_key: Key::new([0; 32]) }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("kdf", &self.kdf).field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// A client that proved itself in one handshake. Only [`Verifier::verify_client`] makes one.
#[derive(Clone)]
pub struct ProvenClient {
    keys: ConnectionKeys,
    transcript: TranscriptHash,
    proof: [u8; 32],
}

impl ProvenClient {
    /// The hub's own proof: `HMAC(VK, "commipc/1 server proof\0" ‖ TH ‖ client_proof ‖ lp(WELCOME without the proof))`.
    ///
    /// `welcome_without_proof` are the bytes of the WELCOME body up to, not including, the proof's label.
    #[must_use]
    pub fn server_proof(&self, welcome_without_proof: &[u8]) -> [u8; 32] {
        server_proof(&self.keys.server_key, &self.transcript, &self.proof, welcome_without_proof)
    }

    /// The keys of the record tags and masks of this connection.
    #[must_use]
    pub fn record_keys(&self) -> RecordKeys {
        self.keys.record_keys(&self.transcript)
    }

    /// The handshake that was proved.
    #[must_use]
    pub const fn transcript(&self) -> &TranscriptHash {
        &self.transcript
    }
}

impl fmt::Debug for ProvenClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProvenClient(..)")
    }
}
