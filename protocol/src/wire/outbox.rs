//! From frames to bytes: what waits for one link, and how much of it the driver may hold.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::frame::{FrameType, LENGTH_LEN, TAG_LEN};
use super::hop::Hop;
use crate::auth::RecordTagger;

/// The first size of a buffer, and the last. Each is twice as large as what is on its way already: what a link says at a time soon
/// fits into one, which is then used again and again.
const FIRST: usize = 2 << 10;
const LAST: usize = 64 << 10;
/// What a buffer has room for when a frame of unknown length is begun in it. What is left of one that is handed on is held in
/// vain, so this is little beside what is on its way, and as much as most frames need.
const ROOM: (usize, usize) = (256, 5 << 10);
/// What is longer, and finds no room behind what is written, gets a buffer of its own: else the room behind it might be lost.
const LONG: usize = LAST / 8;
/// Buffers kept for the next link that has something to say, so that idle links own none.
const POOLED: usize = 16;
/// A length and a type.
const HEAD_LEN: usize = LENGTH_LEN + 1;

/// Empty buffers, shared by all links of a machine, and how much memory their frames take.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    buffers: Vec<BytesMut>,
    /// Bytes that the links' outboxes wrote themselves and that have not left the driver's hands.
    written: usize,
    /// Bytes that outboxes share, each counted once, until the last one has let go.
    shared: Arc<AtomicUsize>,
}

impl Pool {
    fn take(&mut self) -> BytesMut {
        self.buffers.pop().unwrap_or_default()
    }

    fn give(&mut self, buffer: BytesMut) {
        if (1..=LAST).contains(&buffer.capacity()) && self.buffers.len() < POOLED {
            self.buffers.push(buffer);
        }
    }

    /// What the frames on their way out take.
    pub(crate) fn retained(&self) -> usize {
        self.written + self.shared.load(Ordering::Relaxed)
    }

    /// The same bytes, counted for as long as anybody holds them. `pinned` is the size of the buffer they lie in.
    pub(crate) fn counted(&self, bytes: Bytes, pinned: usize) -> Bytes {
        self.shared.fetch_add(pinned, Ordering::Relaxed);
        Bytes::from_owner(Counted { bytes, pinned, total: Arc::clone(&self.shared) })
    }
}

struct Counted {
    bytes: Bytes,
    pinned: usize,
    total: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.fetch_sub(self.pinned, Ordering::Relaxed);
    }
}

/// One link's output.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Piece>,
    queued: usize,
    tail: BytesMut,
    in_flight: usize,
    /// What is in flight, in order: runs of bytes of our own and of shared ones.
    flying: VecDeque<(usize, Ownership)>,
    tagger: Option<RecordTagger>,
}

/// Writes a frame's head and the part of its body that `fill` appends; `rest` more bytes of it lie elsewhere.
pub(crate) fn put_image(image: &mut BytesMut, frame: FrameType, fill: impl FnOnce(&mut BytesMut), rest: usize) {
    image.clear();
    image.put_slice(&[0, 0, 0, 0, frame.number()]);
    fill(image);
    let length = image.len() - LENGTH_LEN + rest;
    if let Some(place) = image.first_chunk_mut() {
        // Frames are limited to 64 MiB before they come here.
        *place = (length as u32).to_be_bytes();
    }
}

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    ownership: Ownership,
}

/// Who wrote bytes, and so who counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    Own,
    Shared,
}

impl Outbox {
    /// From the next frame on, each carries a tag.
    pub(crate) fn set_tagger(&mut self, tagger: RecordTagger) {
        self.tagger = Some(tagger);
    }

    /// The number of the next frame, on a link whose frames are tagged.
    pub(crate) fn next_counter(&self) -> u64 {
        self.tagger.as_ref().map_or(0, RecordTagger::counter)
    }

    /// Writes bytes that are no frame.
    pub(crate) fn push_raw(&mut self, pool: &mut Pool, bytes: &[u8]) {
        self.open(pool, bytes.len());
        self.tail.put_slice(bytes);
        pool.written += bytes.len();
    }

    /// Writes one frame whose body `fill` appends; gives the frame as it was written, without a tag.
    pub(crate) fn push(&mut self, pool: &mut Pool, frame: FrameType, fill: impl FnOnce(&mut BytesMut)) -> &[u8] {
        self.open(pool, self.room());
        let written = self.write(pool, frame, fill);
        self.tail.get(written).unwrap_or_default()
    }

    /// The same of a frame that is about so long.
    pub(crate) fn push_in(&mut self, pool: &mut Pool, room: usize, frame: FrameType, fill: impl FnOnce(&mut BytesMut)) {
        let aside = self.open_for(pool, HEAD_LEN + room);
        self.write(pool, frame, fill);
        self.go_on(aside);
    }

    fn write(&mut self, pool: &mut Pool, frame: FrameType, fill: impl FnOnce(&mut BytesMut)) -> Range<usize> {
        let start = self.begin(frame);
        fill(&mut self.tail);
        let end = self.tail.len();
        let tag = self.finish(start, end, &[]);
        self.tail.put_slice(tag.as_ref().map_or(&[], |tag| tag));
        pool.written += self.tail.len() - start;
        start..end
    }

    /// Writes one frame whose body is what `before` appends, then `shared`, which is not copied, and what `after` appends.
    pub(crate) fn push_shared(
        &mut self,
        pool: &mut Pool,
        frame: FrameType,
        before: impl FnOnce(&mut BytesMut),
        shared: Bytes,
        after: impl FnOnce(&mut BytesMut),
    ) {
        self.open(pool, self.room());
        let start = self.begin(frame);
        before(&mut self.tail);
        let middle = self.tail.len();
        after(&mut self.tail);
        // Written in a row, as it is counted, and parted where the share comes between.
        let tag = self.finish(start, middle, &shared);
        self.tail.put_slice(tag.as_ref().map_or(&[], |tag| tag));
        pool.written += self.tail.len() - start;
        let rest = self.tail.split_off(middle);
        self.flush_tail();
        self.enqueue(shared, Ownership::Shared);
        self.tail = rest;
    }

    /// Writes a message frame as it came, which passes on with another hop header of the same length.
    pub(crate) fn push_relayed(&mut self, pool: &mut Pool, raw: &[u8], hop: Hop<'_>) {
        let aside = self.open_for(pool, raw.len());
        let start = self.tail.len();
        self.tail.extend_from_slice(raw);
        let frame = self.tail.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut());
        let Some((&mut [l0, l1, l2, l3, number], body)) = frame else { return };
        hop.overwrite(body);
        if let Some(tagger) = &mut self.tagger {
            let tag = tagger.next_tag(u32::from_be_bytes([l0, l1, l2, l3]), number, &[body]);
            self.tail.put_slice(&tag);
        }
        pool.written += self.tail.len() - start;
        self.go_on(aside);
    }

    /// Writes a message frame with a hop header of another length: copied, unless there is a share of it.
    pub(crate) fn push_message(
        &mut self,
        pool: &mut Pool,
        frame: FrameType,
        put_hop: impl FnOnce(&mut BytesMut),
        message: &[u8],
        shared: Option<Bytes>,
    ) {
        if let Some(shared) = shared {
            return self.push_shared(pool, frame, put_hop, shared, |_| {});
        }
        self.push_in(pool, message.len() + ROOM.0, frame, |out| {
            put_hop(out);
            out.put_slice(message);
        });
    }

    /// Writes a frame that many links get: made once by [`put_image`], and `shared` where that is not part of it.
    pub(crate) fn push_image(&mut self, pool: &mut Pool, image: &[u8], shared: Option<&Bytes>) {
        self.open(pool, image.len() + TAG_LEN);
        self.tail.put_slice(image);
        pool.written += image.len();
        if let Some(bytes) = shared {
            self.flush_tail();
            self.enqueue(bytes.clone(), Ownership::Shared);
        }
        if let (Some(tagger), Some(([l0, l1, l2, l3, number], body))) = (&mut self.tagger, image.split_first_chunk()) {
            let length = u32::from_be_bytes([*l0, *l1, *l2, *l3]);
            let tag = tagger.next_tag(length, *number, &[body, shared.map_or(&[], |bytes| bytes)]);
            self.tail.put_slice(&tag);
            pool.written += tag.len();
        }
    }

    /// The next bytes for the driver, as far as `in_flight` allows.
    pub(crate) fn pop(&mut self, in_flight: usize) -> Option<Bytes> {
        let credit = in_flight.saturating_sub(self.in_flight);
        if credit == 0 {
            return None;
        }
        if self.queue.is_empty() {
            self.flush_tail();
        }
        let Piece { bytes: mut rest, ownership } = self.queue.pop_front()?;
        let bytes = rest.split_to(credit.min(rest.len()));
        if !rest.is_empty() {
            self.queue.push_front(Piece { bytes: rest, ownership });
        }
        self.queued -= bytes.len();
        self.in_flight += bytes.len();
        match self.flying.back_mut() {
            Some((run, whose)) if *whose == ownership => *run += bytes.len(),
            Some(_) | None => self.flying.push_back((bytes.len(), ownership)),
        }
        Some(bytes)
    }

    /// The driver has written so much; an idle outbox gives its buffer back.
    pub(crate) fn written(&mut self, pool: &mut Pool, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        let mut left = bytes;
        while left > 0
            && let Some((run, ownership)) = self.flying.front_mut()
        {
            let part = left.min(*run);
            (left, *run) = (left - part, *run - part);
            if *ownership == Ownership::Own {
                pool.written = pool.written.saturating_sub(part);
            }
            if *run == 0 {
                self.flying.pop_front();
            }
        }
        if self.in_flight == 0 && self.waiting() == 0 {
            pool.give(core::mem::take(&mut self.tail));
        }
    }

    /// Everything that waits, whatever the driver holds: for a link that is being closed. It counts until it is let go of.
    pub(crate) fn drain(mut self, pool: &mut Pool) -> impl Iterator<Item = Bytes> {
        self.flush_tail();
        let mut queue = core::mem::take(&mut self.queue);
        for piece in queue.iter_mut().filter(|piece| piece.ownership == Ownership::Own) {
            let bytes = core::mem::take(&mut piece.bytes);
            let len = bytes.len();
            pool.written = pool.written.saturating_sub(len);
            piece.bytes = pool.counted(bytes, len);
        }
        // The driver lets go of things in their order: what it holds already, before the last piece.
        let flying = self.discard(pool);
        if let Some(last) = queue.back_mut().filter(|_| flying > 0) {
            last.bytes = pool.counted(core::mem::take(&mut last.bytes), flying);
        }
        queue.into_iter().map(|piece| piece.bytes)
    }

    /// Forgets everything; gives how many bytes of it were written here.
    pub(crate) fn discard(self, pool: &mut Pool) -> usize {
        let queued = self.queue.iter().map(|piece| (piece.bytes.len(), piece.ownership));
        let held = self.flying.iter().copied().chain(queued).chain([(self.tail.len(), Ownership::Own)]);
        let own = held.filter(|(_, ownership)| *ownership == Ownership::Own).map(|(len, _)| len).sum();
        pool.written = pool.written.saturating_sub(own);
        own
    }

    /// Bytes the driver holds.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes that have not left the driver's hands: however late it takes them, the same.
    pub(crate) fn outstanding(&self) -> usize {
        self.in_flight + self.waiting()
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queued + self.tail.len()
    }

    /// Makes room behind what is written. A buffer that has none is handed on, never made larger: what was in it would lie
    /// there twice.
    fn open(&mut self, pool: &mut Pool, needed: usize) {
        if self.tail.capacity() == 0 {
            self.tail = pool.take();
        }
        if self.tail.capacity() - self.tail.len() < needed && !self.tail.try_reclaim(needed) {
            let size = (2 * self.outstanding()).clamp(FIRST, LAST).max(needed + ROOM.0);
            self.flush_tail();
            self.tail = BytesMut::with_capacity(size);
        }
    }

    /// The same for a frame of this length, without its tag. Where it gets a buffer of its own, gives the one to
    /// [`Outbox::go_on`] in.
    fn open_for(&mut self, pool: &mut Pool, length: usize) -> Option<BytesMut> {
        let length = length + self.tagger.as_ref().map_or(0, |_| TAG_LEN);
        if length <= LONG || self.tail.capacity() - self.tail.len() >= length || self.tail.try_reclaim(length) {
            self.open(pool, length);
            return None;
        }
        self.flush_tail();
        Some(core::mem::replace(&mut self.tail, BytesMut::with_capacity(length)))
    }

    fn go_on(&mut self, aside: Option<BytesMut>) {
        if let Some(buffer) = aside {
            let bytes = core::mem::replace(&mut self.tail, buffer).freeze();
            self.enqueue(bytes, Ownership::Own);
        }
    }

    /// For a frame of unknown length.
    fn room(&self) -> usize {
        (self.outstanding() / 8).clamp(ROOM.0, ROOM.1)
    }

    fn begin(&mut self, frame: FrameType) -> usize {
        let start = self.tail.len();
        let head: [u8; HEAD_LEN] = [0, 0, 0, 0, frame.number()];
        self.tail.put_slice(&head);
        start
    }

    /// Sets the length of the frame that begins at `start`, with `shared` between what comes before `middle` and the rest;
    /// makes its tag.
    fn finish(&mut self, start: usize, middle: usize, shared: &[u8]) -> Option<[u8; TAG_LEN]> {
        let length = self.tail.len() - start - LENGTH_LEN + shared.len();
        if let Some(place) = self.tail.get_mut(start..start + LENGTH_LEN) {
            // Frames are limited to 64 MiB before they come here.
            place.copy_from_slice(&(length as u32).to_be_bytes());
        }
        // A length, a type, then the body.
        let (before, after) = self.tail.split_at_checked(middle)?;
        let (Some(tagger), Some([number, before @ ..])) = (&mut self.tagger, before.get(start + LENGTH_LEN..)) else {
            return None;
        };
        Some(tagger.next_tag(length as u32, *number, &[before, shared, after]))
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            let bytes = self.tail.split().freeze();
            self.enqueue(bytes, Ownership::Own);
        }
    }

    fn enqueue(&mut self, bytes: Bytes, ownership: Ownership) {
        self.queued += bytes.len();
        self.queue.push_back(Piece { bytes, ownership });
    }
}
