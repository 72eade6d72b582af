//! Streams on their way: pieces and grants pass in both directions until one end says that it is over.
//!
//! A hub counts what was granted and what was used, so that nobody fills another's outbox with more than it has asked for.

use alloc::boxed::Box;

use super::calls::{Call, Passing};
use super::registry::LinkIx;
use super::session::Session;
use super::{DisconnectReason, Hub};
use crate::canary::Canary;
use crate::error::{Refusal, Violation};
use crate::slots::Key;
use crate::wire::{Control as _, Credit, Flags, Frame, FrameType, Hop, Kind, Known, ROUTE_BY_HUB};

/// What a stream has beside a call.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// From the provider to the caller.
    down: Meter,
    /// From the caller to the provider.
    up: Meter,
    /// The provider has taken the request.
    begun: bool,
    /// Its deadline is for all of it, and not only until then.
    whole: bool,
}

#[derive(Debug, Default)]
struct Meter {
    granted: Credit,
    used: Credit,
    /// What the pieces have in common, once one was passed on.
    known: Option<Known>,
}

impl Meter {
    /// Counts a piece; tells why it may not pass.
    fn use_up(&mut self, payload: usize, flags: Flags, full: bool) -> Result<(), Refusal> {
        self.used = self.used.plus(Credit::of_piece(payload, !flags.has(Flags::CONTINUED)));
        match (self.used.is_within(self.granted), full) {
            (true, false) => Ok(()),
            (false, _) => Err(Refusal::FlowControl),
            (true, true) => Err(Refusal::Overloaded),
        }
    }
}

impl Call {
    /// The link and number under which the end opposite to this one knows a call.
    const fn other_end(&self, key: Key, end: End) -> (LinkIx, u32) {
        match end {
            End::Caller => (self.provider, key.bits() | ROUTE_BY_HUB),
            End::Provider => (self.caller, self.route),
        }
    }
}

/// Which end of a call a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Caller,
    Provider,
}

impl Stream {
    pub(super) fn asked(flags: Flags) -> Box<Self> {
        Box::new(Self { whole: flags.has(Flags::WHOLE), ..Self::default() })
    }

    /// What counts what this end sends.
    const fn sent_by(&mut self, end: End) -> &mut Meter {
        match end {
            End::Caller => &mut self.up,
            End::Provider => &mut self.down,
        }
    }

    /// What counts what this end receives.
    const fn received_by(&mut self, end: End) -> &mut Meter {
        match end {
            End::Caller => &mut self.down,
            End::Provider => &mut self.up,
        }
    }
}

impl Hub {
    /// A piece of a stream of which one before was passed on, and which it is like: what was checked of that one holds for
    /// it as well. Tells whether it is one, and is done with.
    pub(super) fn goes_on(&mut self, ix: LinkIx, frame: &Frame, hop: Hop<'_>, bytes: &[u8]) -> bool {
        let Some((key, end)) = self.stream_of(ix, hop.route).filter(|_| hop.is_direct()) else { return false };
        let full = self.is_full();
        let Some(call) = self.calls.get_mut(key) else { return false };
        let (to, route) = call.other_end(key, end);
        let Some(meter) = call.stream.as_mut().map(|stream| stream.sent_by(end)) else { return false };
        let Some(piece) = meter.known.as_ref().and_then(|known| known.piece(bytes)) else { return false };
        let refusal = meter.use_up(piece.payload.len(), piece.flags, full).err();
        if let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) {
            member.taken += 1;
        }
        match refusal {
            None if self.carry(to, FrameType::Item, frame, hop.forward(route), bytes) => {}
            None => self.end_call_with(key, Refusal::TooLarge),
            Some(refusal) => self.end_call_with(key, refusal),
        }
        true
    }

    /// An item, a part of one, or the end of all.
    pub(super) fn route_piece(&mut self, ix: LinkIx, piece: Passing<'_>) {
        let from_caller = piece.header.flags.has(Flags::FROM_CALLER);
        let found = self.stream_of(ix, piece.hop.route).filter(|(_, end)| from_caller == (*end == End::Caller));
        let Some((key, end)) = found else {
            self.counters.ended_route += 1;
            return;
        };
        let Some(call) = self.calls.get(key) else { return };
        if !self.is_piece_of(call, end, piece) {
            self.counters.mismatched += 1;
            return;
        }
        let (to, route) = call.other_end(key, end);
        if piece.header.kind == Kind::Item {
            let full = self.is_full();
            let meter = self.calls.get_mut(key).and_then(|call| call.stream.as_mut()).map(|it| it.sent_by(end));
            let Some(meter) = meter else { return };
            if let Err(refusal) = meter.use_up(piece.payload.len(), piece.header.flags, full) {
                return self.end_call_with(key, refusal);
            }
            if meter.known.is_none() && piece.hop.is_direct() {
                meter.known = Known::of(piece.bytes);
            }
        }
        match (end, piece.header.kind) {
            (End::Provider, Kind::End) => drop(self.take_call(key)),
            (End::Provider, _) => self.begun(key),
            (End::Caller, _) => {}
        }
        if !self.forward(to, route, piece) {
            self.too_long_for(key, end, (to, route));
        }
    }

    /// A piece is too long for where it goes on; the stream ends, if that was not its end.
    fn too_long_for(&mut self, key: Key, end: End, (to, route): (LinkIx, u32)) {
        match end {
            End::Provider if self.calls.get(key).is_none() => self.fail(to, route, Refusal::TooLarge),
            End::Provider | End::Caller => self.end_call_with(key, Refusal::TooLarge),
        }
    }

    /// What one end grants the other. Only what is more than before is passed on.
    pub(super) fn route_credit(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let (route, body) = frame.body().split_first_chunk::<4>().ok_or(Violation::BadControl)?;
        let total = Credit::parse(body).map_err(|_| Violation::BadControl)?;
        let Some((key, end)) = self.stream_of(ix, u32::from_be_bytes(*route)) else {
            self.counters.ended_route += 1;
            return Ok(());
        };
        let Some(call) = self.calls.get_mut(key) else { return Ok(()) };
        let (to, route) = call.other_end(key, end);
        // The provider's first word says that it has taken the request, and counts though it grants nothing.
        let Some(stream) = call.stream.as_mut() else { return Ok(()) };
        let first = end == End::Provider && !stream.begun;
        let meter = stream.received_by(end);
        let granted = meter.granted.max(total);
        let again = meter.granted != Credit::NONE && Canary::GrantOnce.sings();
        if (granted == meter.granted && !first) || again {
            return Ok(());
        }
        meter.granted = granted;
        if first {
            self.begun(key);
        }
        if let Some(session) = self.links.get_mut(to) {
            session.outbox.push(&mut self.pool, FrameType::Credit, |out| {
                bytes::BufMut::put_u32(out, route);
                granted.encode(out);
            });
            self.check_outbox(to);
        }
        Ok(())
    }

    /// The stream that a link knows by this number, and which end of it the link is.
    fn stream_of(&self, ix: LinkIx, route: u32) -> Option<(Key, End)> {
        let (key, end) = if route & ROUTE_BY_HUB == 0 {
            let member = self.links.get(ix).and_then(Session::member)?;
            (*member.calls.get(&route)?, End::Caller)
        } else {
            (Key::from_bits(route & !ROUTE_BY_HUB), End::Provider)
        };
        let call = self.calls.get(key).filter(|call| call.stream.is_some())?;
        (end == End::Caller || call.provider == ix || Canary::ForeignPiece.sings()).then_some((key, end))
    }

    fn is_piece_of(&self, call: &Call, end: End, piece: Passing<'_>) -> bool {
        let header = piece.header;
        call.request == header.request
            && call.epoch == header.epoch
            && (end == End::Caller || self.is_caller(call, header.target))
    }

    /// The provider has taken a request: it has no deadline any more, unless that is for the whole stream.
    fn begun(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(stream) = call.stream.as_mut() else { return };
        stream.begun = true;
        if stream.whole || Canary::Begun.sings() {
            return;
        }
        if let Some(deadline) = call.deadline.take() {
            self.timers.cancel(deadline);
        }
    }
}
