//! Ownership of a channel, which is separate from its password.

use alloc::string::String;
use core::fmt;

use zeroize::Zeroizing;

use super::connection::TranscriptHash;
use super::primitives::{Key, Prf, expand, expand_96, extract, len32, prove, same, sha256, stored_key, verify};
use super::secret::{SecretError, parse_hex, put_hex};
use crate::canary::Canary;
use crate::names::{ChannelName, HubId};

const PROOF: &[u8] = b"commipc/1 owner proof\0";

const HUB_PROOF: &[u8] = b"commipc/1 owner hub proof\0";
const TEXT: &[u8] = b"owner:";

/// O: 32 random bytes that own one channel at the hub where it lives.
#[derive(Clone)]
pub struct OwnerKey {
    key: Key,
    hub: HubId,
    channel: ChannelName,
}

impl OwnerKey {
    /// `key` is 32 random bytes that are used for nothing else.
    #[must_use]
    pub fn new(key: [u8; 32], hub: HubId, channel: ChannelName) -> Self {
        Self { key: Key::new(key), hub, channel }
    }

    /// The hub where the channel lives.
    #[must_use]
    pub const fn hub(&self) -> &HubId {
        &self.hub
    }

    /// The channel.
    #[must_use]
    pub const fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// Reads what [`OwnerKey::to_text`] has written. One newline at the end is not part of it.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &[u8]) -> Result<Self, SecretError> {
        parse(text).ok_or(SecretError::MalformedOwnerKey)
    }

    /// `owner:`, 64 hex digits, `:`, the channel, `@` and the hub's id, without a newline. As secret as the key: a file of it
    /// is for its owner's eyes alone (mode 0600).
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        // Allocated once at its full size: a string that grows leaves copies behind.
        let size = TEXT.len() + 64 + 2 + self.channel.len() + self.hub.len();
        let mut text = Zeroizing::new(String::with_capacity(size));
        text.push_str("owner:");
        put_hex(&mut text, self.key.bytes());
        text.extend([":", &self.channel, "@", &self.hub]);
        text
    }

    /// `OCK = Expand(Extract("commipc/1 owner", O), "client key\0" ‖ lp(hub id) ‖ lp(name))` (RFC 5869).
    #[must_use]
    pub fn keys(&self) -> OwnerKeys {
        let (hub, name) = (self.hub.as_bytes(), self.channel.as_bytes());
        let prk = extract(b"commipc/1 owner", &[self.key.bytes()]);
        OwnerKeys(expand(&prk, &[b"client key\0", &len32(hub), hub, &len32(name), name]))
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerKey").field("hub", &self.hub).field("channel", &self.channel).finish_non_exhaustive()
    }
}

fn parse(text: &[u8]) -> Option<OwnerKey> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text).strip_prefix(TEXT)?;
    let (digits, rest) = text.split_at_checked(64)?;
    let names = core::str::from_utf8(rest.strip_prefix(b":")?).ok()?;
    // No name holds an `@`.
    let (channel, hub) = names.split_once('@')?;
    // Moved out of its place it would stay behind there.
    let parsed = parse_hex(digits)?;
    let key = Key::clone(&parsed);
    Some(OwnerKey { key, hub: HubId::new(hub).ok()?, channel: ChannelName::new(channel).ok()? })
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

    /// Masks JSK and JVK of a `protect` that crosses bridges, or takes the mask off again: xor with the first bytes of
    /// `Expand(Extract(TH, OSK), "commipc/1 remote mask\0", 96)` (RFC 5869), where TH is that of the operation. Nobody on the
    /// way knows OSK, and no TH is used twice: it holds fresh bytes of the owner's own.
    pub fn mask(&self, remote: &TranscriptHash, keys: &mut [[u8; 32]; 2]) {
        let mask = expand_96(&extract(remote.as_bytes(), &[&self.0]), &[b"commipc/1 remote mask\0"]);
        keys.as_flattened_mut().iter_mut().zip(mask.iter()).for_each(|(byte, mask)| *byte ^= mask);
    }

    /// What the home says to an operation from elsewhere that is done:
    /// `HMAC(OSK, "commipc/1 owner hub proof\0" ‖ TH_own ‖ owner_proof)`.
    #[must_use]
    pub fn hub_proof(&self, transcript: &OwnerTranscript, owner_proof: &[u8; 32]) -> [u8; 32] {
        Prf::new(&self.0).mac(&[HUB_PROOF, &transcript.0, owner_proof])
    }

    /// Whether the home itself has said that an operation is done.
    #[must_use]
    pub fn verify_hub(&self, transcript: &OwnerTranscript, owner_proof: &[u8; 32], hub_proof: &[u8; 32]) -> bool {
        same(&self.hub_proof(transcript, owner_proof), hub_proof)
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn key() -> OwnerKey {
        OwnerKey::new([0x5a; 32], HubId::new("hub-a").unwrap(), ChannelName::new("a vault: of mine").unwrap())
    }

    #[test]
    fn owner_key_text_reads_back_and_nothing_else_does() {
        let text = key().to_text();
        assert_eq!(*text, format!("owner:{}:a vault: of mine@hub-a", "5a".repeat(32)));
        for read in [OwnerKey::parse(text.as_bytes()), OwnerKey::parse(format!("{}\r\n", *text).as_bytes())] {
            let read = read.unwrap();
            assert_eq!((read.to_text(), read.hub(), read.channel()), (text.clone(), key().hub(), key().channel()));
            assert!(read.keys().verifier().same(&key().keys().verifier()));
        }
        for bad in [
            "",
            "owner:",
            "key:00",
            &text[1..],
            &text[..text.len() - 6],
            &text.replace("5a5a", "5a5"),
            &text.replace("5a5a", "5g5a"),
            &text.replace("@hub-a", ""),
            &text.replace("hub-a", "hub@a"),
            &format!("{}\n\n", *text),
        ] {
            assert_eq!(OwnerKey::parse(bad.as_bytes()).err(), Some(SecretError::MalformedOwnerKey), "{bad}");
        }
        assert!(!format!("{:?}", key()).contains("5a5a"));
    }

    /// Figures made with Python's `hmac` and `hashlib` from the formulas.
    #[test]
    fn what_crosses_bridges_is_masked_and_answered_by_the_formulas() {
        let verifier = OwnerVerifier::from_bytes([1; 32]);
        let remote = TranscriptHash::from_bytes([2; 32]);
        let mut keys = [[0; 32]; 2];
        verifier.mask(&remote, &mut keys);
        assert_eq!(hex(keys.as_flattened()), MASK);
        verifier.mask(&remote, &mut keys);
        assert_eq!(keys, [[0; 32]; 2]);
        let transcript = OwnerTranscript([3; 32]);
        let proof = verifier.hub_proof(&transcript, &[4; 32]);
        assert_eq!(hex(&proof), PROOF_OF_HUB);
        assert!(verifier.verify_hub(&transcript, &[4; 32], &proof));
        assert!(!verifier.verify_hub(&transcript, &[5; 32], &proof));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const MASK: &str = concat!(
        "6da4ef6aedc62fe1a002fe83e8c5e1fa9af44d8410b75c38705bf156b8bcb20a",
        "90d2ce984319f812cba52b4b774aa24312b639f97f4413bcc81d4a49e6e53f01"
    );
    const PROOF_OF_HUB: &str = "93b48a38a880e98cbcf7334c251a02d72bf2f7a4edbbc5edd69b79cb3ad536be";
}
