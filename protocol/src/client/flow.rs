//! The two ends of one direction of a stream, and what keeps them in step.
//!
//! ```text
//!                 Demand                                            Consumed
//!  application ◄───────── Outflow ──pieces──► (hub) ──pieces──► Inflow ◄───────── application
//!              ──Item───►    ▲                                    │    ──Item───►
//!                            └──────────── CREDIT ◄───────────────┘
//! ```
//! The receiving end grants items and bytes in rising totals, and nothing beyond them is sent. Items above
//! [`PIECE_MAX`] bytes go as several pieces, so that none of them keeps other messages of the link waiting for long.

use alloc::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Payload;
use crate::canary::Canary;
use crate::error::Fault;
use crate::wire::{Credit, PIECE_OVERHEAD};

/// The longest piece of an item that has more left, in bytes of payload.
const PIECE_MAX: usize = 64 << 10;
/// Shorter pieces than this are not made of an item that has more left.
const PIECE_MIN: usize = 8 << 10;
/// The least that a receiving end grants at a time: two of the shortest pieces.
const WINDOW_MIN: u64 = 2 * (PIECE_MIN as u64 + PIECE_OVERHEAD);
/// What an application is asked for before the first of it is sent.
const AHEAD: Credit = Credit { items: 512, bytes: 256 << 10 };

/// The sending end.
#[derive(Debug, Default)]
pub(super) struct Outflow {
    granted: Credit,
    used: Credit,
    /// Pieces sent.
    pieces: u64,
    queue: VecDeque<Payload>,
    /// How much of the first item in the queue is sent.
    offset: usize,
    /// Bytes in the queue, with what items cost beside them.
    queued: u64,
    /// What the application was asked for and has not given.
    asked: Credit,
    ending: Option<Ending>,
    /// Whether it is in the list of those with something to send.
    pub(super) flowing: bool,
}

/// How a stream ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// All is said.
    End,
    /// The provider fails after what it has given.
    Fault(Fault),
}

/// What goes out next.
#[derive(Debug)]
pub(super) enum Outgoing {
    Piece {
        payload: Payload,
        index: u64,
        last: bool,
    },
    /// The end, with the number of pieces before it.
    End(u64),
    Fault(Fault),
}

impl Outflow {
    /// The receiving end's totals: they only rise.
    pub(super) fn grant(&mut self, total: Credit) {
        self.granted = self.granted.max(total);
    }

    /// One more item. What comes after the end is ignored.
    pub(super) fn push(&mut self, item: Payload) {
        if self.ending.is_some() {
            return;
        }
        let cost = Credit::of_piece(item.bytes.len(), true);
        self.asked = self.asked.minus(cost);
        self.queued = self.queued.saturating_add(cost.bytes);
        self.queue.push_back(item);
    }

    /// Nothing comes after what was pushed.
    pub(super) fn finish(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    /// Whether something was sent.
    pub(super) const fn has_begun(&self) -> bool {
        self.pieces > 0
    }

    /// Whether anything waits to be sent.
    pub(super) fn has_more(&self) -> bool {
        !self.queue.is_empty() || self.ending.is_some()
    }

    /// What can be sent now: a piece within what is granted and fits a frame, or the end, which needs no grant.
    pub(super) fn next(&mut self, fits: usize) -> Option<Outgoing> {
        if Canary::FaultFirst.sings() && matches!(self.ending, Some(Ending::Fault(_))) {
            self.queue.clear();
        }
        let Some(item) = self.queue.front_mut() else {
            return match self.ending.take()? {
                Ending::End => Some(Outgoing::End(self.pieces)),
                Ending::Fault(fault) => Some(Outgoing::Fault(fault)),
            };
        };
        let left = self.granted.minus(self.used);
        let rest = item.bytes.len() - self.offset;
        let room = left.bytes.checked_sub(PIECE_OVERHEAD)?;
        // Nothing short is left over.
        let whole = if rest < PIECE_MAX + PIECE_MIN { rest } else { PIECE_MAX }.min(fits);
        let len = whole.min(usize::try_from(room).unwrap_or(usize::MAX));
        if left.items == 0 || len < whole.min(PIECE_MIN) {
            return None;
        }
        let (last, raw, index) = (len == rest, item.raw, self.pieces);
        let bytes = if self.offset == 0 && last {
            core::mem::take(&mut item.bytes)
        } else {
            item.bytes.slice(self.offset..self.offset + len)
        };
        self.queued = self.queued.saturating_sub(len as u64);
        self.offset += len;
        if last {
            self.queued = self.queued.saturating_sub(PIECE_OVERHEAD);
            self.offset = 0;
            self.queue.pop_front();
        }
        self.used = self.used.plus(Credit::of_piece(len, last));
        self.pieces += 1;
        Some(Outgoing::Piece { payload: Payload { bytes, raw }, index, last })
    }

    /// What the application is to be asked for in addition, where that is worth telling.
    pub(super) fn demand(&mut self) -> Option<Credit> {
        if self.ending.is_some() {
            return None;
        }
        let granted = if Canary::Demand.sings() { AHEAD } else { self.granted.minus(self.used) };
        let ahead = granted.min(AHEAD);
        let waiting = Credit { items: self.queue.len() as u64, bytes: self.queued };
        let room = ahead.minus(waiting).minus(self.asked);
        let after = self.asked.plus(room);
        // One without the other asks for nothing.
        if room == Credit::NONE || after.items == 0 || after.bytes == 0 {
            return None;
        }
        let idle = self.queue.is_empty() && (self.asked.items == 0 || self.asked.bytes == 0);
        let much = room.items >= ahead.items.div_ceil(2) && room.bytes >= ahead.bytes / 2;
        if !(idle || much) {
            return None;
        }
        self.asked = after;
        Some(room)
    }
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Inflow {
    window: Credit,
    granted: Credit,
    received: Credit,
    /// What the application is through with.
    consumed: Credit,
    /// Pieces received.
    pieces: u64,
    /// The item whose last piece has not come, and what its pieces have cost; nothing without one.
    partial: BytesMut,
    joining: u64,
}

/// An item that is complete.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    /// What it takes of the window's bytes until the application is through with it.
    pub(super) cost: u64,
}

/// Why a piece is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It came before.
    Repeated,
    /// One before it did not come.
    Missing,
    /// It is more than was granted.
    Exceeds,
    /// Its item is longer than items may be.
    TooLong,
}

impl Inflow {
    /// With this much on its way at most; bytes within what is sensible.
    pub(super) fn new(window: Credit, bytes_max: u64) -> Self {
        let bytes = window.bytes.min(bytes_max).max(WINDOW_MIN);
        Self {
            window: Credit { items: window.items, bytes },
            granted: Credit::NONE,
            received: Credit::NONE,
            consumed: Credit::NONE,
            pieces: 0,
            partial: BytesMut::new(),
            joining: 0,
        }
    }

    /// Bytes that may be on their way.
    pub(super) const fn window(&self) -> u64 {
        self.window.bytes
    }

    /// Takes a piece, and gives the item that it completes. `keep` makes what lies in `piece` last.
    pub(super) fn take(
        &mut self,
        index: u64,
        last: bool,
        piece: &[u8],
        limit: usize,
        keep: impl FnOnce() -> Bytes,
    ) -> Result<Option<Whole>, Rejected> {
        if index != self.pieces && !Canary::PieceIndex.sings() {
            return Err(if index < self.pieces { Rejected::Repeated } else { Rejected::Missing });
        }
        let cost = Credit::of_piece(piece.len(), last);
        let received = self.received.plus(cost);
        if !received.is_within(self.granted) && !Canary::Exceeds.sings() {
            return Err(Rejected::Exceeds);
        }
        if self.partial.len().saturating_add(piece.len()) > limit {
            return Err(Rejected::TooLong);
        }
        self.received = received;
        self.pieces += 1;
        if last && self.joining == 0 {
            return Ok(Some(Whole { bytes: keep(), cost: cost.bytes }));
        }
        self.partial.extend_from_slice(piece);
        self.joining = self.joining.saturating_add(cost.bytes);
        if !last {
            return Ok(None);
        }
        Ok(Some(Whole { bytes: self.partial.split().freeze(), cost: core::mem::take(&mut self.joining) }))
    }

    /// The application is through with so much of what it was given.
    pub(super) fn consume(&mut self, items: Credit) {
        self.consumed = self.consumed.plus(items).min(self.received);
    }

    /// The totals to grant from now on, where that is worth telling: at first, then with each half of the window.
    pub(super) fn grant(&mut self) -> Option<Credit> {
        // What is joined waits here and not with the application: no item could be longer than the window otherwise.
        let joined = Credit { items: 0, bytes: self.joining };
        let through = if Canary::GrantEarly.sings() { self.received } else { self.consumed };
        let total = through.plus(joined).plus(self.window);
        let more = total.minus(self.granted);
        if more == Credit::NONE || (more.items < self.window.items.div_ceil(2) && more.bytes < self.window.bytes / 2) {
            return None;
        }
        self.granted = self.granted.max(total);
        Some(self.granted)
    }

    /// Whether a stream with this many pieces is all here.
    pub(super) fn is_whole(&self, pieces: u64) -> bool {
        (self.pieces == pieces && self.joining == 0) || Canary::PieceCount.sings()
    }
}
