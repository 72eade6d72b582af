//! Record tags and masks: what holds a connection together after the handshake.

use core::fmt;

use zeroize::Zeroizing;

use super::connection::TranscriptHash;
use super::primitives::{Key, Prf, expand, expand_96, extract, half, same};

/// Bytes of a record tag.
pub const RECORD_TAG_LEN: usize = 16;

/// The keys of one connection, one for each direction and one for masks.
#[derive(Debug)]
pub struct RecordKeys {
    /// From the client to the hub.
    pub c2h: RecordTagger,
    /// From the hub to the client.
    pub h2c: RecordTagger,
    /// For what must not be read on a plain TCP link.
    pub mask: MaskKey,
}

impl RecordKeys {
    /// `ms = Extract(salt = TH, CK ‖ VK)`, `c2h = Expand(ms, "commipc/1 c2h")`, `h2c = Expand(ms, "commipc/1 h2c")`
    /// (RFC 5869).
    pub(super) fn new(client_key: &Key, server_key: &Key, transcript: &TranscriptHash) -> Self {
        let master = extract(transcript.as_bytes(), &[client_key.bytes(), server_key.bytes()]);
        Self {
            c2h: RecordTagger::new(&expand(&master, &[b"commipc/1 c2h"])),
            h2c: RecordTagger::new(&expand(&master, &[b"commipc/1 h2c"])),
            mask: MaskKey(master),
        }
    }
}

/// Tags the frames of one direction, or checks them, in order.
///
/// `tag = HMAC-SHA256(k, u64 counter ‖ u32 length ‖ type ‖ body)[..16]`. The counter starts at 0 and is never sent, so
/// a frame that is missing, repeated or moved does not verify, nor does anything after it.
///
/// Not `Clone`: two of them would use a counter twice.
pub struct RecordTagger {
    prf: Prf,
    counter: u64,
    broken: bool,
}

impl RecordTagger {
    fn new(key: &Key) -> Self {
        Self { prf: Prf::new(key.bytes()), counter: 0, broken: false }
    }

    /// The tag of the next frame. `length` is that of the frame's header, `body` the frame's body in pieces.
    #[must_use = "the counter moved on: a frame without its tag breaks the link"]
    pub fn next_tag(&mut self, length: u32, ftype: u8, body: &[&[u8]]) -> [u8; RECORD_TAG_LEN] {
        let tag = self.tag(length, ftype, body);
        self.skip();
        tag
    }

    /// Whether `tag` is that of the next frame.
    ///
    /// After a tag that is not, none verifies any more: the link is not to be used, even by one who forgets to close it.
    #[must_use]
    pub fn verify_next(&mut self, length: u32, ftype: u8, body: &[&[u8]], tag: &[u8]) -> bool {
        self.broken |= !same(&self.tag(length, ftype, body), tag);
        self.skip();
        !self.broken
    }

    /// Counts a frame that goes untagged, because this connection does without tags.
    pub const fn skip(&mut self) {
        self.counter = self.counter.wrapping_add(1);
    }

    /// The number of the next frame.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    fn tag(&self, length: u32, ftype: u8, body: &[&[u8]]) -> [u8; RECORD_TAG_LEN] {
        let mut running = self.prf.start();
        running.update(&self.counter.to_be_bytes());
        running.update(&length.to_be_bytes());
        running.update(&[ftype]);
        body.iter().for_each(|part| running.update(part));
        half(&running.finish())
    }
}

impl fmt::Debug for RecordTagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordTagger").field("counter", &self.counter).finish_non_exhaustive()
    }
}

/// Makes the masks of one connection.
#[derive(Clone, Debug)]
pub struct MaskKey(Key);

impl MaskKey {
    /// Masks keys, or takes the mask off again: xor with the first bytes of [`MaskKey::mask`], in their order. There are
    /// at most three.
    pub(crate) fn apply(&self, counter: u64, keys: &mut [[u8; 32]]) {
        let mask = self.mask(counter);
        for (byte, mask) in keys.as_flattened_mut().iter_mut().zip(mask.iter()) {
            *byte ^= mask;
        }
    }

    /// `Expand(ms, "commipc/1 mask\0" ‖ u64 counter, 96)` (RFC 5869), where `counter` is the number of the client's
    /// frame that holds what is masked, counted also where tags are skipped.
    #[must_use]
    pub fn mask(&self, counter: u64) -> Zeroizing<[u8; 96]> {
        expand_96(&self.0, &[b"commipc/1 mask\0", &counter.to_be_bytes()])
    }
}
