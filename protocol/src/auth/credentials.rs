//! A hub's table of credentials, which answers for unknown ones as it does for known ones.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::BitOr;

use thiserror::Error;

use super::connection::{ProvenClient, TranscriptHash, Verifier};
use super::primitives::{Key, Prf, half, len32};
use super::secret::Kdf;
use crate::canary::Canary;
use crate::names::{CredentialId, Name, NameError};

/// Who may connect: credential ids with what they prove and what they may.
#[derive(Clone)]
pub struct Credentials {
    hub_key: Key,
    table: BTreeMap<CredentialId, Arc<Credential>>,
}

impl Credentials {
    /// A table without entries: nobody gets in.
    ///
    /// `hub_key` is 32 random bytes that the hub keeps over restarts. They make up the salts of credentials that do not
    /// exist: with new ones at each start, a salt that changes would tell that its credential is made up.
    #[must_use]
    pub fn new(hub_key: [u8; 32]) -> Self {
        Self { hub_key: Key::new(hub_key), table: BTreeMap::new() }
    }

    /// The same table with this entry, which takes the place of one with the same id.
    #[must_use]
    pub fn with(mut self, id: CredentialId, credential: Credential) -> Self {
        self.table.insert(id, Arc::new(credential));
        self
    }

    /// The ids in the table, in order.
    pub fn ids(&self) -> impl Iterator<Item = &CredentialId> {
        self.table.keys()
    }

    /// The salt for a credential's secret: `HMAC(hub key, "fake\0" ‖ lp(id))[..16]`, like that of one that does not exist.
    ///
    /// So a credential that comes or goes, or a hub that starts again, changes no salt that a stranger can see.
    #[must_use]
    pub fn salt(&self, id: &str) -> [u8; 16] {
        let id = id.as_bytes();
        half(&Prf::new(self.hub_key.bytes()).mac(&[b"fake\0", &len32(id), id]))
    }

    /// What a client that names this credential is challenged with.
    ///
    /// An unknown id gets `salt = HMAC(hub key, "fake\0" ‖ lp(id))[..16]` with kdf and rounds of `default`, and then
    /// fails like a wrong proof. The salt and key are made up in either case, so that time tells as little as the answer.
    #[must_use]
    pub fn lookup(&self, id: &str) -> Lookup {
        let prf = Prf::new(self.hub_key.bytes());
        let bytes = id.as_bytes();
        let salt = half(&prf.mac(&[b"fake\0", &len32(bytes), bytes]));
        let stored_key = prf.mac(&[b"fake stored key\0", &len32(bytes), bytes]);
        let default = self.table.get("default").map(|credential| &credential.verifier);
        let fake = Verifier::fake(default, salt, stored_key);
        match self.table.get_key_value(id) {
            Some((id, credential)) => Lookup {
                verifier: credential.verifier.clone(),
                entry: Some(Entry { id: id.clone(), credential: Arc::clone(credential) }),
            },
            None => Lookup { verifier: fake, entry: None },
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.table).finish()
    }
}

/// One credential as one handshake uses it, whether it exists or not.
///
/// Owned by the handshake, so that a table replaced meanwhile does not change the question after it was asked.
#[derive(Clone)]
pub struct Lookup {
    verifier: Verifier,
    entry: Option<Entry>,
}

#[derive(Clone)]
struct Entry {
    id: CredentialId,
    credential: Arc<Credential>,
}

impl Lookup {
    /// How the client has to derive.
    #[must_use]
    pub const fn kdf(&self) -> Kdf {
        self.verifier.kdf()
    }

    /// The salt as it stands in the CHALLENGE: 16 bytes, or none where there is no secret.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        self.verifier.salt()
    }

    /// PBKDF2 rounds; 0 where there are none.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.verifier.iterations()
    }

    /// Checks the client's proof. Fails for every proof, after the same work, when the credential does not exist.
    #[must_use]
    pub fn verify_client(&self, transcript: &TranscriptHash, proof: &[u8; 32]) -> Option<Authenticated> {
        let client = self.verifier.verify_client(transcript, proof);
        let Entry { id, credential } = self.entry.clone()?;
        client.map(|client| Authenticated { client, id, credential })
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not whether the credential exists: this may end up where the answer may not.
        f.debug_struct("Lookup").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

/// A client that proved a credential. Only [`Lookup::verify_client`] makes one.
#[derive(Clone, Debug)]
pub struct Authenticated {
    client: ProvenClient,
    id: CredentialId,
    credential: Arc<Credential>,
}

impl Authenticated {
    /// For the hub's own proof and the record keys.
    #[must_use]
    pub const fn client(&self) -> &ProvenClient {
        &self.client
    }

    /// Which credential was proved.
    #[must_use]
    pub const fn credential_id(&self) -> &CredentialId {
        &self.id
    }

    /// What it may.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }
}

/// An entry of the table.
#[derive(Clone, Debug)]
pub struct Credential {
    verifier: Verifier,
    capabilities: Capabilities,
    ids: Vec<IdPattern>,
}

impl Credential {
    /// A credential for clients with these ids.
    #[must_use]
    pub const fn new(verifier: Verifier, capabilities: Capabilities, ids: Vec<IdPattern>) -> Self {
        Self { verifier, capabilities, ids }
    }

    /// A credential that many share: every id, and they see the hub's own events. Its holders can pose as one another.
    #[must_use]
    pub fn shared(verifier: Verifier) -> Self {
        Self::new(verifier, Capabilities::OBSERVER, vec![IdPattern::any()])
    }

    /// What is checked.
    #[must_use]
    pub const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// What its holders may do beyond what everybody may.
    #[must_use]
    pub const fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Whether its holders may use this client id.
    #[must_use]
    pub fn allows(&self, client: &str) -> bool {
        self.ids.iter().any(|pattern| pattern.matches(client)) || Canary::AnyId.sings()
    }
}

/// What a credential allows beyond what everybody may do: a set of bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Nothing more.
    pub const NONE: Self = Self(0);
    /// Forward for clients of other hubs.
    pub const BRIDGE: Self = Self(1);
    /// See the hub's own events.
    pub const OBSERVER: Self = Self(1 << 1);
    /// Clear what others left behind.
    pub const ADMIN: Self = Self(1 << 2);

    const NAMED: [(Self, &'static str); 3] =
        [(Self::BRIDGE, "BRIDGE"), (Self::OBSERVER, "OBSERVER"), (Self::ADMIN, "ADMIN")];

    /// The capability of this name, in small letters.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|(_, known)| known.to_ascii_lowercase() == name).map(|(bit, _)| bit)
    }

    /// The set as it stands in a WELCOME. Bits without a name are kept and mean nothing.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The set as a number.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether everything in `other` is in this set too.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMED.iter().filter(|(bit, _)| self.contains(*bit));
        f.debug_set().entries(named.map(|(_, name)| name)).finish()
    }
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum IdPatternError {
    /// A `*` that is not the last character.
    #[error("a pattern may hold '*' only as its last character")]
    Star,
    /// What is left without the `*` can start no name.
    #[error("{0}")]
    Name(NameError),
}

/// Client ids: one, or with `*` at the end all that start so.
#[derive(Clone, PartialEq, Eq)]
pub struct IdPattern {
    start: String,
    open: bool,
}

impl IdPattern {
    /// Reads a pattern: `worker-1`, `worker-*` or `*`.
    ///
    /// # Errors
    /// When there is a `*` elsewhere, or what is before it could not be a name or the start of one.
    pub fn new(pattern: &str) -> Result<Self, IdPatternError> {
        let (start, open) = match pattern.strip_suffix('*') {
            Some(start) => (start, true),
            None => (pattern, false),
        };
        if start.contains('*') {
            return Err(IdPatternError::Star);
        }
        if !(open && start.is_empty()) {
            Name::new(start).map_err(IdPatternError::Name)?;
        }
        Ok(Self { start: String::from(start), open })
    }

    /// `*`.
    #[must_use]
    pub const fn any() -> Self {
        Self { start: String::new(), open: true }
    }

    /// Whether this id is one of them.
    #[must_use]
    pub fn matches(&self, client: &str) -> bool {
        if self.open { client.starts_with(&self.start) } else { client == self.start }
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.start)?;
        f.write_str(if self.open { "*" } else { "" })
    }
}

impl fmt::Debug for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn patterns_are_exact_or_open_at_the_end() {
        let matches = |pattern: &str, id: &str| IdPattern::new(pattern).unwrap().matches(id);
        assert!(matches("worker-*", "worker-7") && matches("worker-*", "worker-") && matches("*", "anybody"));
        assert!(!matches("worker-*", "worker") && !matches("worker", "worker-7"));
        assert!(matches("worker", "worker"));
        assert_eq!(IdPattern::new("a*b"), Err(IdPatternError::Star));
        assert_eq!(IdPattern::new("**"), Err(IdPatternError::Star));
        assert_eq!(IdPattern::new(""), Err(IdPatternError::Name(NameError::Empty)));
        assert_eq!(IdPattern::new("a@*"), Err(IdPatternError::Name(NameError::ForbiddenCharacter)));
        assert_eq!(format!("{:?}", IdPattern::new("w-*").unwrap()), "\"w-*\"");
    }

    #[test]
    fn capabilities_are_a_set() {
        let both = Capabilities::BRIDGE | Capabilities::ADMIN;
        assert!(both.contains(Capabilities::ADMIN) && !both.contains(Capabilities::OBSERVER));
        assert!(!Capabilities::ADMIN.contains(both) && both.contains(Capabilities::NONE));
        assert_eq!(Capabilities::from_bits(both.bits()), both);
        assert_eq!(format!("{both:?}"), "{\"BRIDGE\", \"ADMIN\"}");
        assert_eq!(Capabilities::named("bridge"), Some(Capabilities::BRIDGE));
        assert!(["BRIDGE", "fly"].into_iter().all(|name| Capabilities::named(name).is_none()));
    }
}
