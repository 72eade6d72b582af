//! Signed messages: COSE_Mac0 (RFC 9052) with one algorithm and one encoding.

use core::fmt;

use super::primitives::{Key, Prf, Running, half, len32, same, sha256};

/// `MAC_structure` (RFC 9052, 6.3) is `["MAC0", protected, external_aad, payload]`; this is the array's head and the
/// context, as CBOR.
const STRUCTURE_START: &[u8] = b"\x84\x64MAC0";
/// The external data as a CBOR byte string of 17 bytes.
const EXTERNAL_AAD: &[u8] = b"\x51commipc/1 message";

/// The key one sender signs with on one channel, at one epoch.
///
/// Every member can derive every sender's key: a tag says "a member", and says which one only to those who trust all.
#[derive(Clone)]
pub struct SenderKey(Prf);

impl SenderKey {
    /// A key that was derived elsewhere; members derive theirs from the channel's.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self::from_key(&Key::new(key))
    }

    pub(super) fn from_key(key: &Key) -> Self {
        Self(Prf::new(key.bytes()).with_prefix(STRUCTURE_START))
    }

    /// `HMAC-SHA256(K_sender, MAC_structure)` (RFC 9052, 6.3). `protected` and `payload` are the byte strings' contents.
    #[must_use]
    pub fn tag(&self, protected: &[u8], payload: &[u8]) -> [u8; 32] {
        let mut running = self.0.start();
        byte_string(&mut running, protected);
        running.update(EXTERNAL_AAD);
        byte_string(&mut running, payload);
        running.finish()
    }

    /// Whether `tag` is the whole tag of this message.
    #[must_use]
    pub fn verify(&self, protected: &[u8], payload: &[u8], tag: &[u8]) -> bool {
        same(&self.tag(protected, payload), tag)
    }
}

impl fmt::Debug for SenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SenderKey(..)")
    }
}

/// Feeds a CBOR byte string (RFC 8949, 3.1, major type 2) with the shortest length.
fn byte_string(running: &mut Running, bytes: &[u8]) {
    let [_, _, _, _, b3, b2, b1, b0] = (bytes.len() as u64).to_be_bytes();
    match bytes.len() {
        0..=23 => running.update(&[0x40 | b0]),
        24..=0xff => running.update(&[0x58, b0]),
        0x100..=0xffff => running.update(&[0x59, b1, b0]),
        0x1_0000..=0xffff_ffff => running.update(&[0x5a, b3, b2, b1, b0]),
        // Frames end at 64 MiB; written out so that the encoding is right for all lengths there are.
        _ => {
            running.update(&[0x5b]);
            running.update(&(bytes.len() as u64).to_be_bytes());
        }
    }
    running.update(bytes);
}

/// What an answer names of its call: `SHA256("commipc/1 ref\0" ‖ lp(protected) ‖ lp(tag))`.
#[must_use]
pub fn message_ref(protected: &[u8], tag: &[u8]) -> [u8; 32] {
    sha256(&[b"commipc/1 ref\0", &len32(protected), protected, &len32(tag), tag])
}

/// What copies of a message are known by: `SHA256("commipc/1 dup\0" ‖ lp(protected) ‖ lp(payload) ‖ lp(tag))[..16]`.
#[must_use]
pub fn duplicate_digest(protected: &[u8], payload: &[u8], tag: &[u8]) -> [u8; 16] {
    half(&sha256(&[b"commipc/1 dup\0", &len32(protected), protected, &len32(payload), payload, &len32(tag), tag]))
}
