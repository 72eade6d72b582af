//! Key schedule, proofs and signatures: formulas only, no state of a conversation.
//!
//! ```text
//!   Secret ──derive──► Salted ──► ConnectionKeys ──client_proof──►  Verifier (hub)
//!                        │             ▲                               │ verify_client
//!                        │             └────────server_proof──── ProvenClient ──► RecordKeys
//!                        └──► ChannelMaster ──► JoinKeys, SenderKey
//! ```
//!
//! Everything is built from SHA-256, HMAC (RFC 2104), HKDF (RFC 5869), PBKDF2 (RFC 8018) and the proof of SCRAM
//! (RFC 5802, 7677). In the formulas `lp(x)` is a big-endian u32 length and then the bytes; integers are big-endian.
//! Salts, nonces and secrets are arguments: nothing here draws a random number. Nothing here prints a secret.

mod channel;
mod connection;
mod credentials;
mod message;
mod owner;
mod primitives;
mod record;
mod secret;
mod takeover;

pub use channel::{ChannelKeys, ChannelMaster, JoinKeys, JoinTranscript, JoinVerifier, ProvenMember};
pub use connection::{ConnectionKeys, ProvenClient, TranscriptHash, Verifier};
pub use credentials::{Authenticated, Capabilities, Credential, Credentials, IdPattern, IdPatternError, Lookup};
pub use message::{SenderKey, duplicate_digest, message_ref};
pub use owner::{OwnerKey, OwnerKeys, OwnerTranscript, OwnerVerifier};
pub(crate) use primitives::checksum;
pub use record::{MaskKey, RECORD_TAG_LEN, RecordKeys, RecordTagger};
pub use secret::{DEFAULT_ITERATIONS, Kdf, MAX_ITERATIONS, MIN_ITERATIONS, Salted, Secret, SecretError};
pub use takeover::TakeoverSecret;
