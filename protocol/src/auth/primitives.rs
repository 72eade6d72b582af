//! The few operations everything else is written in. None of them can fail.

use core::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// 32 secret bytes: wiped when dropped, never printed.
#[derive(Clone)]
pub(super) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// HMAC-SHA256 with the key already absorbed, so that each tag costs a copy of the state instead of two compressions.
#[derive(Clone)]
pub(super) struct Prf(Hmac<Sha256>);

impl Prf {
    /// RFC 2104: a key shorter than a block is padded with zeros, a longer one is hashed first.
    ///
    /// Padding here rather than in `new_from_slice` leaves no error that could not happen.
    pub(super) fn new(key: &[u8]) -> Self {
        let mut block = Zeroizing::new([0; 64]);
        if key.len() > block.len() {
            let hashed = Zeroizing::new(sha256(&[key]));
            copy(&mut *block, &*hashed);
        } else {
            copy(&mut *block, key);
        }
        Self(Hmac::new((&*block).into()))
    }

    /// The same key with these bytes already at the start of every input.
    pub(super) fn with_prefix(mut self, prefix: &[u8]) -> Self {
        self.0.update(prefix);
        self
    }

    /// An input that is fed piece by piece.
    pub(super) fn start(&self) -> Running {
        Running(self.0.clone())
    }

    /// The code of the concatenated parts.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut running = self.start();
        parts.iter().for_each(|part| running.update(part));
        running.finish()
    }
}

/// An HMAC under way.
pub(super) struct Running(Hmac<Sha256>);

impl Running {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }
}

fn copy(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// SHA-256 of the concatenated parts.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// What finds accidents in stored bytes.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 32] {
    sha256(&[bytes])
}

/// The first half, where 128 bits are enough.
pub(super) fn half(full: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    copy(&mut out, full);
    out
}

/// The length of `lp(bytes)`. Nothing that is hashed here comes near 4 GiB: frames end at 64 MiB.
pub(super) fn len32(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// HKDF-Extract (RFC 5869, 2.2).
pub(super) fn extract(salt: &[u8], input: &[&[u8]]) -> Key {
    Key::new(Prf::new(salt).mac(input))
}

/// HKDF-Expand (RFC 5869, 2.3) to 32 bytes, which is its first block.
pub(super) fn expand(prk: &Key, info: &[&[u8]]) -> Key {
    Key::new(expand_block(&Prf::new(prk.bytes()), &[], info, 1))
}

/// HKDF-Expand (RFC 5869, 2.3) to 96 bytes.
pub(super) fn expand_96(prk: &Key, info: &[&[u8]]) -> Zeroizing<[u8; 96]> {
    let prf = Prf::new(prk.bytes());
    let first = Key::new(expand_block(&prf, &[], info, 1));
    let second = Key::new(expand_block(&prf, first.bytes(), info, 2));
    let third = Key::new(expand_block(&prf, second.bytes(), info, 3));
    let mut out = Zeroizing::new([0; 96]);
    let blocks = first.bytes().iter().chain(second.bytes()).chain(third.bytes());
    out.iter_mut().zip(blocks).for_each(|(to, from)| *to = *from);
    out
}

fn expand_block(prf: &Prf, previous: &[u8], info: &[&[u8]], number: u8) -> [u8; 32] {
    let mut running = prf.start();
    running.update(previous);
    info.iter().for_each(|part| running.update(part));
    running.update(&[number]);
    running.finish()
}

/// What a verifier keeps of a client key: `SHA256(client key)` (RFC 5802, 3).
pub(super) fn stored_key(client_key: &Key) -> [u8; 32] {
    sha256(&[client_key.bytes()])
}

/// `Proof(K, label, TH) = K xor HMAC(SHA256(K), label ‖ TH)` (RFC 5802, 3).
pub(super) fn prove(client_key: &Key, label: &[u8], transcript: &[u8; 32]) -> [u8; 32] {
    xor(client_key.bytes(), &Prf::new(&stored_key(client_key)).mac(&[label, transcript]))
}

/// The client key inside a proof, if the proof is one for this stored key, label and transcript.
///
/// The same work is done whether it is or not.
pub(super) fn verify(stored: &[u8; 32], label: &[u8], transcript: &[u8; 32], proof: &[u8; 32]) -> Option<Key> {
    let client_key = Key::new(xor(proof, &Prf::new(stored).mac(&[label, transcript])));
    same(&stored_key(&client_key), stored).then_some(client_key)
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut out = *a;
    out.iter_mut().zip(b).for_each(|(out, b)| *out ^= b);
    out
}

/// Compares in a time that depends on the lengths only.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hkdf::Hkdf;

    #[test]
    fn key_schedule_is_rfc_5869() {
        for (salt, input) in [(&b"commipc/1 conn"[..], &b"salted"[..]), (&[7; 64], b""), (&[7; 65], &[1; 200])] {
            let ours = extract(salt, &[input]);
            let (prk, theirs) = Hkdf::<Sha256>::extract(Some(salt), input);
            assert_eq!(ours.bytes()[..], prk[..]);
            let mut out = [0; 96];
            theirs.expand(b"info, in two parts", &mut out).unwrap();
            assert_eq!(expand_96(&ours, &[b"info, ", b"in two parts"])[..], out[..]);
            assert_eq!(expand(&ours, &[b"info, in two", b" parts"]).bytes()[..], out[..32]);
        }
    }

    #[test]
    fn proofs_verify_under_their_own_label_and_transcript_only() {
        let (key, transcript) = (Key::new([3; 32]), [4; 32]);
        let proof = prove(&key, b"a\0", &transcript);
        let stored = stored_key(&key);
        assert_eq!(verify(&stored, b"a\0", &transcript, &proof).unwrap().bytes(), key.bytes());
        assert!(verify(&stored, b"b\0", &transcript, &proof).is_none());
        assert!(verify(&stored, b"a\0", &[5; 32], &proof).is_none());
        assert!(verify(&[6; 32], b"a\0", &transcript, &proof).is_none());
    }
}
