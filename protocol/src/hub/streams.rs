//! Streams on their way: pieces and grants pass in both directions until one end says that it is over.
//!
//! A hub counts what was granted and what was used, so that nobody fills another's outbox with more than it has asked for.

use super::calls::{Call, Passing};
use super::registry::LinkIx;
use super::session::Session;
use super::{DisconnectReason, Hub};
use crate::error::{Refusal, Violation};
use crate::slots::Key;
use crate::wire::{Control as _, Credit, Flags, Frame, FrameType, Kind, Known, ROUTE_BY_HUB};

/// What a stream has beside a call.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// From the provider to the caller.
    down: Meter,
    /// From the caller to the provider.
    up: Meter,
}

#[derive(Debug, Default)]
struct Meter {
    granted: Credit,
    used: Credit,
    /// What the pieces begin with.
    known: Option<Known>,
}

/// Which end of a call a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Caller,
    Provider,
}

impl Stream {
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
        if piece.header.kind == Kind::Item {
            let last = !piece.header.flags.has(Flags::CONTINUED);
            let cost = Credit::of_piece(piece.payload.len(), last);
            let meter = self.calls.get_mut(key).and_then(|call| call.stream.as_mut()).map(|it| it.sent_by(end));
            let fits = meter.is_some_and(|meter| {
                meter.used = meter.used.plus(cost);
                meter.used.is_within(meter.granted)
            });
            match (fits, self.is_full()) {
                (true, false) => {}
                (false, _) => return self.end_call_with(key, Refusal::FlowControl),
                (true, true) => return self.end_call_with(key, Refusal::Overloaded),
            }
        }
        let Some((to, route)) = self.other_end(key, end) else { return };
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

    /// What the pieces begin with that this link sends with this number.
    pub(super) fn known(&mut self, ix: LinkIx, route: u32) -> Option<&mut Option<Known>> {
        let (key, end) = self.stream_of(ix, route)?;
        let stream = self.calls.get_mut(key)?.stream.as_mut()?;
        Some(&mut stream.sent_by(end).known)
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
        // The provider's first word says that it has taken the request, and counts though it grants nothing.
        let first = end == End::Provider && call.deadline.is_some();
        let Some(meter) = call.stream.as_mut().map(|stream| stream.received_by(end)) else { return Ok(()) };
        let granted = meter.granted.max(total);
        if granted == meter.granted && !first {
            return Ok(());
        }
        meter.granted = granted;
        if first {
            self.begun(key);
        }
        if let Some((to, route)) = self.other_end(key, end)
            && let Some(session) = self.links.get_mut(to)
        {
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
        (end == End::Caller || call.provider == ix).then_some((key, end))
    }

    fn is_piece_of(&self, call: &Call, end: End, piece: Passing<'_>) -> bool {
        let header = piece.header;
        call.request == header.request
            && call.epoch == header.epoch
            && (end == End::Caller || self.is_caller(call, header.target))
    }

    /// The link and number under which the end opposite to this one knows a call.
    fn other_end(&self, key: Key, end: End) -> Option<(LinkIx, u32)> {
        let call = self.calls.get(key)?;
        Some(match end {
            End::Caller => (call.provider, key.bits() | ROUTE_BY_HUB),
            End::Provider => (call.caller, call.route),
        })
    }

    /// The provider has taken a request: it has no deadline any more.
    fn begun(&mut self, key: Key) {
        if let Some(deadline) = self.calls.get_mut(key).and_then(|call| call.deadline.take()) {
            self.timers.cancel(deadline);
        }
    }
}
