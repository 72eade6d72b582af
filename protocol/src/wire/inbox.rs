//! From bytes to frames: however the bytes were split, the same frames come out.

use bytes::{Buf as _, Bytes, BytesMut};

use super::frame::{FrameType, LENGTH_LEN, MAGIC, TAG_LEN};
use super::outbox::Pool;
use crate::auth::RecordTagger;
use crate::canary::Canary;
use crate::error::Violation;
use crate::machine::READ_BUFFER;

/// One whole frame: `u32 length ‖ u8 type ‖ body`, its record tag verified and cut off.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    /// Whether the bytes lie in a buffer of their own rather than in one of the driver's.
    assembled: bool,
}

/// How much of a frame tells how long it is.
const HEAD_LEN: usize = LENGTH_LEN + 1;
/// Parts up to this size are cheaper to copy than to share.
const SMALL: usize = 4 << 10;
/// A share pins the whole buffer it lies in, and a driver's may be of [`READ_BUFFER`]: smaller parts of it are copied, so that
/// what is retained is little more than what is counted.
const WORTH_PINNING: usize = READ_BUFFER / 8 * 7;

impl Frame {
    /// The type's number.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.bytes.get(LENGTH_LEN).copied().unwrap_or_default()
    }

    /// What the frame carries.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.bytes.get(LENGTH_LEN + 1..).unwrap_or_default()
    }

    /// The frame as it was sent, without its tag.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.bytes
    }

    /// A copy that pins nothing but itself.
    pub(crate) fn copied(&self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes), assembled: true }
    }

    /// A handle on a part of the frame that outlives it, where that is better than one copy.
    pub(crate) fn share(&self, part: &[u8]) -> Option<Bytes> {
        let share = part.len() > if self.assembled { SMALL } else { WORTH_PINNING };
        share.then(|| self.bytes.slice_ref(part))
    }

    /// The same, counted for as long as it is held.
    pub(crate) fn share_counted(&self, pool: &Pool, part: &[u8]) -> Option<Bytes> {
        let pinned = if self.assembled { self.bytes.len() } else { READ_BUFFER };
        self.share(part).map(|bytes| pool.counted(bytes, pinned))
    }

    /// The same for many, who rather share one copy than have one each.
    pub(crate) fn share_among(&self, pool: &Pool, part: &[u8]) -> Option<Bytes> {
        let copy = || (part.len() > SMALL).then(|| pool.counted(Bytes::copy_from_slice(part), part.len()));
        self.share_counted(pool, part).or_else(copy)
    }

    /// A part of the frame to keep, pinning little beside it.
    pub(crate) fn keep(&self, part: &[u8]) -> Bytes {
        self.share(part).unwrap_or_else(|| Bytes::copy_from_slice(part))
    }
}

/// Memory that short parts of frames share: one allocation for many, which lives as long as any of them.
#[derive(Debug, Default)]
pub(crate) struct Scraps(BytesMut);

/// What is allocated at a time.
const SCRAPS: usize = 4 << 10;
/// The longest part that lies beside others.
const SCRAP: usize = 512;

impl Scraps {
    /// A part of a frame to keep for a short while.
    pub(crate) fn keep(&mut self, frame: &Frame, part: &[u8]) -> Bytes {
        if part.is_empty() || part.len() > SCRAP {
            return frame.keep(part);
        }
        if self.0.capacity() < part.len() {
            self.0 = BytesMut::with_capacity(SCRAPS);
        }
        self.0.extend_from_slice(part);
        self.0.split().freeze()
    }
}

/// Collects a link's bytes into frames, bounded by the limit of the link's state.
#[derive(Debug)]
pub struct Inbox {
    /// The beginning of a frame whose rest has not come.
    partial: BytesMut,
    limit: u32,
    tagger: Option<RecordTagger>,
    /// How much of the magic is still to come.
    magic: &'static [u8],
}

impl Inbox {
    /// For the connecting side's peer: no magic is expected. `limit` bounds a frame's type and body, in bytes.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { partial: BytesMut::new(), limit, tagger: None, magic: &[] }
    }

    /// For the accepting side: the magic comes first.
    pub(crate) fn expecting_magic(limit: u32) -> Self {
        Self { magic: &MAGIC, ..Self::new(limit) }
    }

    pub(crate) const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// From the next frame on, each must carry a tag.
    pub(crate) fn set_tagger(&mut self, tagger: RecordTagger) {
        self.tagger = Some(tagger);
    }

    /// Whether a frame has begun whose rest has not come.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// The number of the frame that was read last, on a link whose frames are tagged.
    pub(crate) fn last_counter(&self) -> u64 {
        self.tagger.as_ref().map_or(0, |tagger| tagger.counter().saturating_sub(1))
    }

    /// Bytes of memory that the beginning of a frame takes.
    pub(crate) fn retained(&self) -> usize {
        self.partial.capacity()
    }

    /// Takes the next frame from `data`; `None` when `data` is used up.
    ///
    /// # Errors
    /// When the bytes cannot be frames of this link. It is over then: what follows has no meaning.
    pub fn next(&mut self, data: &mut Bytes) -> Result<Option<Frame>, Violation> {
        self.expect_magic(data)?;
        if self.partial.is_empty() {
            let Some(len) = self.frame_len(data)? else { return Ok(self.keep(data, HEAD_LEN)) };
            if data.len() < len {
                return Ok(self.keep(data, len));
            }
            let whole = data.split_to(len);
            return self.verified(whole, false).map(Some);
        }
        while !data.is_empty() {
            let len = self.frame_len(&self.partial)?.unwrap_or(HEAD_LEN);
            let missing = len.saturating_sub(self.partial.len()).min(data.len());
            let piece = data.split_to(missing);
            self.append(&piece, len);
            match self.frame_len(&self.partial)? {
                Some(len) if self.partial.len() == len => {
                    let whole = core::mem::take(&mut self.partial).freeze();
                    return self.verified(whole, true).map(Some);
                }
                Some(_) | None => {}
            }
        }
        Ok(None)
    }

    fn expect_magic(&mut self, data: &mut Bytes) -> Result<(), Violation> {
        while let (Some((expected, rest)), Some(found)) = (self.magic.split_first(), data.first()) {
            if expected != found {
                return Err(Violation::BadMagic);
            }
            self.magic = rest;
            data.advance(1);
        }
        Ok(())
    }

    /// The length of the whole frame that `bytes` begin, once it can be told.
    fn frame_len(&self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        if length == 0 {
            return Err(Violation::EmptyFrame);
        }
        if length > self.limit {
            return Err(Violation::FrameTooLarge);
        }
        let Some(&number) = rest.first() else { return Ok(None) };
        let tag = if self.is_tagged(number) { TAG_LEN } else { 0 };
        Ok(Some(LENGTH_LEN + length as usize + tag))
    }

    /// Whether a frame carries a tag. A refused handshake has no keys, so its last word never does.
    fn is_tagged(&self, number: u8) -> bool {
        self.tagger.is_some() && number != FrameType::AuthFailed.number()
    }

    fn keep(&mut self, data: &mut Bytes, len: usize) -> Option<Frame> {
        let piece = core::mem::take(data);
        self.append(&piece, len);
        None
    }

    /// Grows with what arrives, at most doubling, never by what a length claims.
    fn append(&mut self, piece: &[u8], len: usize) {
        let needed = self.partial.len() + piece.len();
        if needed > self.partial.capacity() {
            // Not `reserve`, which would take more than that: a share of the frame pins all of it.
            let mut room = BytesMut::with_capacity(len.min(needed.saturating_mul(2)).max(needed));
            room.extend_from_slice(&self.partial);
            self.partial = room;
        }
        self.partial.extend_from_slice(piece);
    }

    fn verified(&mut self, whole: Bytes, assembled: bool) -> Result<Frame, Violation> {
        let frame = Frame { bytes: whole, assembled };
        let tagged = self.is_tagged(frame.number());
        let Some(tagger) = self.tagger.as_mut().filter(|_| tagged) else { return Ok(frame) };
        let mut bytes = frame.bytes;
        let tag = bytes.split_off(bytes.len().saturating_sub(TAG_LEN));
        let frame = Frame { bytes, assembled };
        // The length was checked against the limit, so it fits.
        let length = (frame.bytes.len() - LENGTH_LEN) as u32;
        let genuine = tagger.verify_next(length, frame.number(), &[frame.body()], &tag);
        if genuine || Canary::RecordTag.sings() { Ok(frame) } else { Err(Violation::BadRecordTag) }
    }
}
