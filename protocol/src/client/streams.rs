//! Streams, as the one who asks for them and as the one who is asked: their conversation, and their turns at the link.
//!
//! ```text
//!  caller                                                 provider
//!    │──── CALL (stream wanted), CREDIT ─────────────────────►│ Request
//!    │◄─── CREDIT: what it grants for items of the caller's ──│ Accept
//!    │◄─── ITEM, ITEM, … within the caller's CREDIT ──────────│
//!    │──── CREDIT, as they are consumed ─────────────────────►│
//!    │◄─── END with the number of pieces, or FAULT ───────────│
//! ```
//! In an exchange items and an END go up in the same way. The provider's first CREDIT tells the caller that its request is
//! taken, and by a grant of nothing that the event takes no items.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::familiar::Familiar;
use super::flow::{Ending, Inflow, Outflow, Outgoing as Out, Rejected, Whole};
use super::places::{Context, Place, stream};
use super::{
    Client, Credit, Dropped, Due, Event, Failure, Outgoing, Payload, RequestId, StreamCommand, StreamEvent, StreamId,
    Token,
};
use crate::TIME_LEFT_MAX;
use crate::canary::Canary;
use crate::error::{Misuse, Refusal, Violation};
use crate::names::Address;
use crate::slots::Key;
use crate::time::{Instant, TimerReason};
use crate::wire::{Control as _, Flags, Frame, FrameType, Header, Hop, Kind, Known, Message, Piece, Target};

/// What a stream has beside a call.
#[derive(Debug)]
pub(super) struct Stream {
    /// The provider has taken the request.
    pub(super) begun: bool,
    /// Items go both ways.
    pub(super) exchange: bool,
    /// When all of it must be over, where its caller has said so.
    pub(super) until: Option<Instant>,
    /// What comes; at a provider nothing before it has accepted an exchange, and none after its end.
    pub(super) inflow: Option<Inflow>,
    /// What goes; at a caller only in an exchange.
    pub(super) outflow: Option<Outflow>,
    /// Who answers a caller: the first accepted piece tells.
    provider: Option<(Address, [u8; 16])>,
    /// How its pieces begin, once one of them was accepted.
    pub(super) familiar: Option<Familiar>,
    /// What they have in common, once an unsigned one was accepted.
    pub(super) known: Option<Known>,
}

/// Bytes of a link that streams keep outstanding: more would only make other messages wait.
const OUTSTANDING: usize = 128 << 10;
/// Bytes that one stream sends before the next has its turn.
const TURN: usize = 64 << 10;

impl Stream {
    /// The caller's end.
    pub(super) fn asked(inflow: Inflow, exchange: bool, until: Option<Instant>) -> Box<Self> {
        let outflow = exchange.then(Outflow::default);
        Box::new(Self {
            begun: false,
            exchange,
            until,
            inflow: Some(inflow),
            outflow,
            provider: None,
            familiar: None,
            known: None,
        })
    }

    /// The provider's end.
    pub(super) fn served(exchange: bool, until: Option<Instant>) -> Box<Self> {
        let outflow = Some(Outflow::default());
        Box::new(Self {
            begun: false,
            exchange,
            until,
            inflow: None,
            outflow,
            provider: None,
            familiar: None,
            known: None,
        })
    }
}

impl Client {
    pub(super) fn handle_stream(&mut self, command: StreamCommand) {
        let Some(command) = self.park_given(command) else { return };
        match command {
            StreamCommand::Ask { token, outgoing, time_left, whole, window, exchange } => {
                self.handle_ask(token, &outgoing, (time_left, whole), (window, exchange));
            }
            StreamCommand::Accept { request, window } => self.handle_accept(request, window),
            StreamCommand::Items { stream, payloads } => self.handle_items(stream, payloads),
            StreamCommand::Finish { stream } => self.finish(stream, Ending::End),
            StreamCommand::Consumed { stream, amount } => self.handle_consumed(stream, amount),
        }
    }

    fn handle_ask(
        &mut self,
        token: Token,
        outgoing: &Outgoing,
        time: (Duration, Option<Duration>),
        (window, exchange): (Credit, bool),
    ) {
        if let Err(misuse) = self.start_stream(token, outgoing, time, (window, exchange)) {
            self.event(Event::Stream(StreamEvent::Ended { token, result: Err(super::calls::never_sent(misuse)) }));
        }
    }

    fn start_stream(
        &mut self,
        token: Token,
        outgoing: &Outgoing,
        time: (Duration, Option<Duration>),
        (window, exchange): (Credit, bool),
    ) -> Result<(), Misuse> {
        if self.streams.len() >= self.config.limits.streams {
            return Err(Misuse::TooMany);
        }
        // The hub may have to hold all that is on its way, for all streams together. Half of what is left, so that many get some.
        let share = (self.config.limits.outbox as u64 / 4).saturating_sub(self.windows) / 2;
        let mut inflow = Inflow::new(window, share);
        let (bytes, first) = (inflow.window(), inflow.grant());
        let (time_left, whole) = time;
        let until = whole.map(|whole| self.now.mono + whole.min(TIME_LEFT_MAX));
        let key = self.start_call(token, outgoing, time_left, Some(Stream::asked(inflow, exchange, until)))?;
        self.windows += bytes;
        self.streams.insert(token, key);
        if let Some(total) = first {
            self.write_credit(key.bits(), total);
        }
        Ok(())
    }

    /// Forgets what the tables hold of a stream of ours.
    pub(super) fn forget_stream(&mut self, token: Token, stream: &Stream) {
        if !Canary::StreamKept.sings() {
            self.streams.remove(&token);
        }
        self.windows -= stream.inflow.as_ref().map_or(0, Inflow::window);
    }

    fn handle_accept(&mut self, request: RequestId, window: Credit) {
        let Some(serving) = self.serving.get_mut(&request.route).filter(|it| it.serial == request.serial) else {
            return;
        };
        let Some(stream) = serving.stream.as_mut().filter(|stream| !stream.begun) else { return };
        stream.begun = true;
        let deadline = serving.deadline.take_if(|_| stream.until.is_none());
        let mut total = Credit::NONE;
        if stream.exchange {
            let window = Credit { items: window.items.max(1), ..window };
            let inflow = stream.inflow.insert(Inflow::new(window, window.bytes));
            total = inflow.grant().unwrap_or_default();
        }
        if let Some(deadline) = deadline {
            self.timers.cancel(deadline);
        }
        self.write_credit(request.route, total);
        self.ask(Place::Request(request));
    }

    fn handle_items(&mut self, id: StreamId, payloads: Vec<Payload>) {
        let limit = self.config.limits.item;
        let Some(place) = self.place(id) else { return };
        let Some(outflow) = self.outflow(place) else { return };
        for payload in payloads {
            if payload.bytes.len() <= limit {
                outflow.push(payload);
                continue;
            }
            match place {
                Place::Call(key) => return self.give_up(key, Failure::Local(Misuse::TooLarge)),
                Place::Request(_) => {
                    outflow.finish(Ending::Fault(super::serving::refusal_as_fault(Refusal::TooLarge)));
                    break;
                }
            }
        }
        self.flow(place);
    }

    pub(super) fn finish(&mut self, id: StreamId, ending: Ending) {
        let Some(place) = self.place(id) else { return };
        if let Some(outflow) = self.outflow(place) {
            outflow.finish(ending);
            self.flow(place);
        }
    }

    fn handle_consumed(&mut self, id: StreamId, amount: Credit) {
        let Some(place) = self.place(id) else { return };
        let Some(inflow) = self.stream(place).and_then(|stream| stream.inflow.as_mut()) else { return };
        inflow.consume(amount);
        let more = inflow.grant();
        self.grant(place, more);
    }

    /// What may be sent in an exchange, or the first word of the one who takes it.
    pub(super) fn handle_credit(&mut self, frame: &Frame) -> Result<(), Violation> {
        let (route, body) = frame.body().split_first_chunk::<4>().ok_or(Violation::BadControl)?;
        let route = u32::from_be_bytes(*route);
        let total = Credit::parse(body).map_err(|_| Violation::BadControl)?;
        let Some(place) = self.place_of(route) else {
            self.event(Event::Dropped(Dropped::EndedRoute));
            return Ok(());
        };
        if let Place::Call(key) = place
            && !self.begin(key, total)
        {
            return Ok(());
        }
        if let Some(outflow) = self.outflow(place) {
            outflow.grant(total);
            self.flow(place);
            self.ask(place);
        }
        Ok(())
    }

    /// A provider has taken our request, and takes so many items for a start. Tells whether the stream goes on.
    fn begin(&mut self, key: Key, takes: Credit) -> bool {
        let Some(pending) = self.calls.get_mut(key) else { return false };
        let token = pending.token;
        let Some(stream) = pending.stream.as_mut() else { return false };
        if mem::replace(&mut stream.begun, true) {
            return true;
        }
        let (exchange, until) = (stream.exchange, stream.until);
        if let Some(deadline) = pending.deadline.take() {
            self.timers.cancel(deadline);
        }
        pending.deadline = until.map(|until| self.timers.insert(until, TimerReason::Call, Due::Call(key)));
        match (exchange, takes.items) {
            (true, 0) => {
                self.give_up(key, Failure::Refused(Refusal::WrongKind));
                return false;
            }
            // It waits for items, and there are none.
            (false, 1..) => {
                let place = Place::Call(key);
                if let Some(mut context) = self.context(place) {
                    self.write_out(place, &mut context, Out::End(0));
                }
            }
            (true, 1..) | (false, 0) => {}
        }
        self.event(Event::Stream(StreamEvent::Accepted { token }));
        true
    }

    /// A piece of a stream, or its end.
    pub(super) fn handle_piece(&mut self, kind: FrameType, frame: &Frame) -> Result<(), Violation> {
        let (hop, bytes) = Hop::split(frame.body()).map_err(|_| Violation::BadMessage)?;
        let place = self.place_of(hop.route);
        if let Some(place) = place.filter(|_| kind == FrameType::Item)
            && let Some(piece) = self.known_piece(place, bytes)
        {
            self.take_piece(place, frame, piece);
            return Ok(());
        }
        // Taken out, since the message borrows from it.
        let familiar = place.and_then(|place| self.stream(place)?.familiar.take());
        let (message, opening) =
            Message::read(bytes, |header| familiar.as_ref().and_then(|familiar| familiar.header(header)))
                .map_err(|_| Violation::BadMessage)?;
        let Some(place) = place else {
            self.event(Event::Dropped(Dropped::EndedRoute));
            return Ok(());
        };
        let fits = kind.message_kind() == Some(message.header.kind);
        let known = familiar.as_ref().filter(|_| opening.is_none());
        let accepted = if fits { self.accept_piece(place, &message, known) } else { Err(Dropped::Mismatch) };
        let opening = opening.filter(|_| familiar.is_none() && accepted == Ok(true));
        let met = opening.and_then(|opening| self.meet(&message.header, hop, opening));
        match (accepted, message.header.kind == Kind::Item) {
            (Err(why), _) => self.event(Event::Dropped(why)),
            (Ok(false), _) => {}
            (Ok(true), true) => {
                let Message { header: Header { index, flags, .. }, payload, .. } = message;
                self.take_piece(place, frame, Piece { index, flags, payload });
            }
            (Ok(true), false) => self.take_end(place, &message.header),
        }
        let unsigned = fits && accepted == Ok(true) && message.tag.is_empty();
        if let Some(stream) = self.stream(place) {
            stream.familiar = familiar.or(met);
            if unsigned && kind == FrameType::Item && stream.known.is_none() {
                stream.known = Known::of(bytes);
            }
        }
        Ok(())
    }

    /// Whether a piece counts. If so, its stream has begun; tells whether it goes on.
    fn accept_piece(&mut self, place: Place, message: &Message<'_>, known: Option<&Familiar>) -> Result<bool, Dropped> {
        let header = &message.header;
        if let Some(known) = known {
            if !self.goes_on(place, header) {
                return Err(Dropped::Mismatch);
            }
            return self.accept_on(Some(known.channel), message).map(|()| true);
        }
        let sender = self.sender(header).filter(|sender| self.belongs(place, header, sender));
        let sender = sender.ok_or(Dropped::Mismatch)?;
        self.accept(message)?;
        let Place::Call(key) = place else { return Ok(true) };
        if let Some(stream) = self.stream(place) {
            stream.provider.get_or_insert((sender, *header.instance));
        }
        Ok(self.begin(key, Credit::NONE))
    }

    /// Whether a piece that begins as one before it, from the other end of this stream, is of this stream as well.
    fn goes_on(&self, place: Place, header: &Header<'_>) -> bool {
        match place {
            Place::Call(key) => self.calls.get(key).is_some_and(|pending| self.is_reply_to(pending, header)),
            Place::Request(id) => self.serving.get(&id.route).is_some_and(|serving| {
                header.request == serving.request
                    && header.reference == serving.reference.as_ref().map_or(&[][..], |reference| reference)
            }),
        }
    }

    /// Whether a piece is of this stream, from the other end of it.
    fn belongs(&self, place: Place, header: &Header<'_>, sender: &Address) -> bool {
        let from_caller = header.flags.has(Flags::FROM_CALLER);
        match place {
            Place::Call(key) => self.calls.get(key).is_some_and(|pending| {
                let provider = pending.stream.as_ref().and_then(|stream| stream.provider.as_ref());
                let known = provider.is_none_or(|(who, instance)| who == sender && instance == header.instance);
                !from_caller && known && self.is_reply_to(pending, header)
            }),
            Place::Request(id) => self.serving.get(&id.route).is_some_and(|serving| {
                from_caller
                    && header.request == serving.request
                    && header.reference == serving.reference.as_ref().map_or(&[][..], |reference| reference)
                    && *sender == serving.caller
                    && header.channel == serving.channel.as_name()
                    && header.event == serving.event.as_name()
            }),
        }
    }

    fn take_piece(&mut self, place: Place, frame: &Frame, piece: Piece<'_>) {
        let limit = self.config.limits.item;
        let Self { calls, serving, scraps, .. } = self;
        let Some(inflow) = stream(calls, serving, place).and_then(|stream| stream.inflow.as_mut()) else {
            return self.event(Event::Dropped(Dropped::Mismatch));
        };
        let Piece { index, flags, payload } = piece;
        let (last, raw) = (!flags.has(Flags::CONTINUED) || Canary::Continued.sings(), flags.has(Flags::RAW));
        // Raw bytes are what the application gets and may keep for long; a value is decoded and its bytes are let go of.
        let keep = || if raw { frame.keep(payload) } else { scraps.keep(frame, payload) };
        let taken = inflow.take(index, last, payload, limit, keep);
        let why = match taken {
            Ok(item) => {
                let more = inflow.grant();
                if let (Some(Whole { bytes, cost }), Some(stream)) = (item, self.id_of(place)) {
                    let payload = Payload { bytes, raw };
                    self.event(Event::Stream(StreamEvent::Item { stream, payload, cost }));
                }
                return self.grant(place, more);
            }
            Err(Rejected::Repeated) => return self.event(Event::Dropped(Dropped::Replayed)),
            Err(Rejected::Missing) => Failure::Local(Misuse::Truncated),
            Err(Rejected::Exceeds) => Failure::Refused(Refusal::FlowControl),
            Err(Rejected::TooLong) => Failure::Refused(Refusal::TooLarge),
        };
        self.break_off(place, why);
    }

    fn take_end(&mut self, place: Place, header: &Header<'_>) {
        let Some(stream) = self.stream(place) else { return };
        let whole = stream.inflow.as_ref().is_some_and(|inflow| inflow.is_whole(header.index));
        match (place, whole) {
            (Place::Call(key), true) => self.stream_over(key, Ok(())),
            (Place::Call(key), false) => {
                self.stream_over(key, Err(super::calls::lost(Failure::Local(Misuse::Truncated))));
            }
            (Place::Request(request), _) => {
                if Canary::CallerEnd.sings() {
                    return;
                }
                if stream.inflow.take().is_none() {
                    return self.event(Event::Dropped(Dropped::Mismatch));
                }
                let result = if whole { Ok(()) } else { Err(Misuse::Truncated) };
                self.event(Event::Stream(StreamEvent::Finished { request, result }));
            }
        }
    }

    /// Ends a stream whose other end does what it must not, or cannot be understood.
    fn break_off(&mut self, place: Place, why: Failure) {
        match place {
            Place::Call(key) => self.give_up(key, why),
            Place::Request(id) => {
                let refusal = match why {
                    Failure::Refused(refusal) => refusal,
                    Failure::RefusedCode(_) | Failure::Local(_) => Refusal::FlowControl,
                };
                self.break_request(id, refusal, why);
            }
        }
    }

    /// Gives everybody with something to send a turn, until enough is outstanding.
    pub(super) fn pump(&mut self) {
        while self.outbox.outstanding() < OUTSTANDING
            && let Some(place) = self.flowing.pop_front()
        {
            self.turn(place);
        }
    }

    fn turn(&mut self, place: Place) {
        let (fits, context) = (self.piece_max(), self.context(place));
        let (Some(outflow), Some(mut context)) = (self.outflow(place), context) else { return };
        // Taken out, so that it need not be found again for every piece.
        let mut outflow = mem::take(outflow);
        outflow.flowing = false;
        let before = self.outbox.waiting();
        let (mut over, mut more) = (false, false);
        while !over
            && !more
            && let Some(out) = outflow.next(fits)
        {
            over = matches!(out, Out::End(_) | Out::Fault(_));
            self.write_out(place, &mut context, out);
            more = self.outbox.waiting() - before >= TURN;
        }
        if let Some(place) = self.outflow(place) {
            *place = outflow;
        }
        if over {
            return self.said_all(place);
        }
        if more {
            self.flow(place);
        }
        self.ask(place);
    }

    /// Our own items are all out: for a provider that is the end of the request.
    fn said_all(&mut self, place: Place) {
        match place {
            Place::Call(_) => {}
            Place::Request(id) => {
                if let Some(serving) = self.serving.remove(&id.route)
                    && let Some(deadline) = serving.deadline
                {
                    self.timers.cancel(deadline);
                }
            }
        }
    }

    /// Puts a stream that may have something to send in the list for it.
    fn flow(&mut self, place: Place) {
        let Some(stream) = self.stream(place) else { return };
        let may = match place {
            Place::Call(_) => stream.begun,
            // A fault may come before the request is taken.
            Place::Request(_) => true,
        };
        let waiting = stream.outflow.as_mut().filter(|outflow| may && !outflow.flowing && outflow.has_more());
        if let Some(outflow) = waiting {
            outflow.flowing = true;
            self.flowing.push_back(place);
        }
    }

    /// Asks the application for more, where that is worth it.
    fn ask(&mut self, place: Place) {
        let begun = self.stream(place).filter(|stream| stream.begun);
        let amount = begun.and_then(|stream| stream.outflow.as_mut()).and_then(Outflow::demand);
        if let (Some(amount), Some(stream)) = (amount, self.id_of(place)) {
            self.event(Event::Stream(StreamEvent::Demand { stream, amount }));
        }
    }

    fn grant(&mut self, place: Place, total: Option<Credit>) {
        let route = match place {
            Place::Call(key) => key.bits(),
            Place::Request(id) => id.route,
        };
        if let Some(total) = total {
            self.write_credit(route, total);
        }
    }

    fn write_credit(&mut self, route: u32, total: Credit) {
        self.outbox.push(&mut self.pool, FrameType::Credit, |out| {
            bytes::BufMut::put_u32(out, route);
            total.encode(out);
        });
    }

    fn write_out(&mut self, place: Place, context: &mut Context, out: Out) {
        let (kind, payload, index, continued) = match out {
            Out::Piece { payload, index, last } => (Kind::Item, payload, index, !last),
            Out::End(pieces) => (Kind::End, Payload::default(), pieces, false),
            Out::Fault(fault) => (Kind::Fault, super::serving::fault_payload(&fault), 0, false),
        };
        let from_caller = matches!(place, Place::Call(_));
        let seq = self.seq_on(context.known);
        let (id, instance) = (self.id.clone(), self.instance);
        let caller = context.caller.as_ref();
        let header = Header {
            kind,
            flags: Flags::NONE
                .with_if(Flags::FROM_CALLER, from_caller)
                .with_if(Flags::RAW, payload.raw)
                .with_if(Flags::CONTINUED, continued),
            channel: context.channel.as_name(),
            event: context.event.as_name(),
            epoch: 0,
            sender: id.as_name(),
            origin: context.hub.as_name(),
            instance: &instance,
            seq,
            bseq: 0,
            sent_at: self.now.wall.0,
            time_left: 0,
            request: context.request,
            reference: context.reference.as_ref().map_or(&[], |reference| reference),
            index,
            target: caller.map_or(Target::NONE, |it| Target::new(it.client.as_name(), it.hub.as_name())),
            metadata: &[],
        };
        let route = match place {
            Place::Call(key) => key.bits(),
            Place::Request(id) => id.route,
        };
        let alike = (kind, header.flags);
        let begun = context.begun.filter(|(like, _)| *like == alike).map_or(0, |(_, len)| len);
        let (begun, _) = self.write_message_after(begun, context.known, route, &header, &payload.bytes);
        context.begun = Some((alike, begun));
    }

    /// The longest piece that fits a frame of this hub's.
    fn piece_max(&self) -> usize {
        let frame = self.ready_frame();
        frame.saturating_sub(super::frame_len(0)).max(1)
    }
}
