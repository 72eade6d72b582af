//! From frames to bytes: what waits for one link, and how much of it the driver may hold.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::frame::{FrameType, LENGTH_LEN, TAG_LEN};
use crate::auth::RecordTagger;

/// A buffer is handed on when it has grown so far.
const CHUNK: usize = 64 << 10;
/// Buffers kept for the next link that has something to say, so that idle links own none.
const POOLED: usize = 16;
/// The first size of a buffer.
const FIRST: usize = 2 << 10;

/// Empty buffers, shared by all links of a machine.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    buffers: Vec<BytesMut>,
}

impl Pool {
    fn take(&mut self) -> BytesMut {
        self.buffers.pop().unwrap_or_else(|| BytesMut::with_capacity(FIRST))
    }

    fn give(&mut self, buffer: BytesMut) {
        if buffer.capacity() > 0 && self.buffers.len() < POOLED {
            self.buffers.push(buffer);
        }
    }
}

/// One link's output.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    queued: usize,
    tail: BytesMut,
    in_flight: usize,
    tagger: Option<RecordTagger>,
}

impl Outbox {
    /// From the next frame on, each carries a tag.
    pub(crate) fn set_tagger(&mut self, tagger: RecordTagger) {
        self.tagger = Some(tagger);
    }

    /// Writes bytes that are no frame.
    pub(crate) fn push_raw(&mut self, pool: &mut Pool, bytes: &[u8]) {
        self.open(pool);
        self.tail.put_slice(bytes);
    }

    /// Writes one frame whose body `fill` appends; gives the frame as it was written, without a tag.
    pub(crate) fn push(&mut self, pool: &mut Pool, frame: FrameType, fill: impl FnOnce(&mut BytesMut)) -> &[u8] {
        self.open(pool);
        let start = self.begin(frame);
        fill(&mut self.tail);
        let end = self.tail.len();
        let tag = self.finish(start, &[]);
        self.tail.put_slice(tag.as_ref().map_or(&[], |tag| tag));
        self.tail.get(start..end).unwrap_or_default()
    }

    /// Writes one frame whose body is what `fill` appends and then `message`, copied unless there is a share of it.
    pub(crate) fn push_message(
        &mut self,
        pool: &mut Pool,
        frame: FrameType,
        fill: impl FnOnce(&mut BytesMut),
        message: &[u8],
        shared: Option<Bytes>,
    ) {
        self.open(pool);
        let start = self.begin(frame);
        fill(&mut self.tail);
        let tag = if let Some(shared) = shared {
            let tag = self.finish(start, &shared);
            self.flush_tail();
            self.queued += shared.len();
            self.queue.push_back(shared);
            tag
        } else {
            self.tail.put_slice(message);
            self.finish(start, &[])
        };
        self.tail.put_slice(tag.as_ref().map_or(&[], |tag| tag));
        if self.tail.len() >= CHUNK {
            self.flush_tail();
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
        let chunk = self.queue.pop_front()?;
        let chunk = if chunk.len() > credit {
            let mut rest = chunk;
            let part = rest.split_to(credit);
            self.queue.push_front(rest);
            part
        } else {
            chunk
        };
        self.queued -= chunk.len();
        self.in_flight += chunk.len();
        Some(chunk)
    }

    /// The driver has written so much; an idle outbox gives its buffer back.
    pub(crate) fn written(&mut self, pool: &mut Pool, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        if self.in_flight == 0 && self.waiting() == 0 {
            pool.give(core::mem::take(&mut self.tail));
        }
    }

    /// Everything that waits, whatever the driver holds: for a link that is being closed.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Bytes> {
        self.flush_tail();
        self.queued = 0;
        core::mem::take(&mut self.queue).into_iter()
    }

    /// Bytes the driver holds.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queued + self.tail.len()
    }

    fn open(&mut self, pool: &mut Pool) {
        if self.tail.capacity() == 0 {
            self.tail = pool.take();
        }
    }

    fn begin(&mut self, frame: FrameType) -> usize {
        let start = self.tail.len();
        self.tail.put_slice(&[0, 0, 0, 0, frame.number()]);
        start
    }

    /// Sets the length of the frame that begins at `start` and whose body ends in `rest`; makes its tag.
    fn finish(&mut self, start: usize, rest: &[u8]) -> Option<[u8; TAG_LEN]> {
        let end = self.tail.len();
        let length = end - start - LENGTH_LEN + rest.len();
        if let Some(place) = self.tail.get_mut(start..start + LENGTH_LEN) {
            // Frames are limited to 64 MiB before they come here.
            place.copy_from_slice(&(length as u32).to_be_bytes());
        }
        // A length, a type, then the body.
        let (Some(tagger), Some([number, body @ ..])) = (&mut self.tagger, self.tail.get(start + LENGTH_LEN..end))
        else {
            return None;
        };
        Some(tagger.next_tag(length as u32, *number, &[body, rest]))
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            let chunk = self.tail.split().freeze();
            self.queued += chunk.len();
            self.queue.push_back(chunk);
        }
    }
}
