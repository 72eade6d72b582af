//! Requests to our providers: from the hub's hands to the answer, or to whatever ends them before.

use alloc::boxed::Box;
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::flow::{Ending, Outflow};
use super::streams::Stream;
use super::{Client, Dropped, Due, Event, EventKind, Failure, Payload, Request, RequestId, StreamId, Token};
use crate::auth::message_ref;
use crate::canary::Canary;
use crate::error::{Fault, FaultCode, Misuse, Refusal, Violation};
use crate::names::{Address, ChannelName, EventName};
use crate::time::TimerReason;
use crate::timers::TimerId;
use crate::wire::cbor;
use crate::wire::{Flags, Frame, Header, Hop, Kind, Message, ROUTE_BY_HUB, Target, encoded_len_max, put_fault};

/// A request that one of our providers works on.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) serial: u64,
    /// Whose it is, if anybody's.
    pub(super) provider: Option<Token>,
    pub(super) request: u64,
    pub(super) channel: ChannelName,
    pub(super) event: EventName,
    pub(super) caller: Address,
    /// None for a stream that is accepted, unless it is for all of it.
    pub(super) deadline: Option<TimerId>,
    /// What the answer must name, on a protected channel.
    pub(super) reference: Option<[u8; 32]>,
    /// Where items are wanted instead of an answer.
    pub(super) stream: Option<Box<Stream>>,
}

impl Client {
    pub(super) fn handle_request(&mut self, frame: &Frame) -> Result<(), Violation> {
        let (hop, bytes) = Hop::split(frame.body()).map_err(|_| Violation::BadMessage)?;
        self.read_message(bytes, |client, message| client.take_request(frame, hop, message))
    }

    fn take_request(&mut self, frame: &Frame, hop: Hop<'_>, message: &Message<'_>) -> Result<(), Violation> {
        let header = message.header;
        if hop.route & ROUTE_BY_HUB == 0 || self.serving.contains_key(&hop.route) {
            return Err(Violation::BadRoute);
        }
        let Some(caller) = self.sender(&header).filter(|_| header.kind == Kind::Call) else {
            self.event(Event::Dropped(Dropped::Mismatch));
            return Ok(());
        };
        let accepted = self.accept(message);
        if let Err(why) = accepted
            && why != Dropped::Stale
        {
            self.event(Event::Dropped(why));
            return Ok(());
        }
        self.served += 1;
        let id = RequestId { route: hop.route, serial: self.served };
        let deadline = self.now.mono + Duration::from_millis(header.time_left);
        let streams = header.flags.has(Flags::STREAM);
        let provided = self.provided(&header, streams);
        let channel = self.channel_name(&header)?;
        let incoming = self.incoming(frame, hop, message);
        let known = incoming.as_ref().map(|incoming| Ok(incoming.event.clone()));
        let event = known.unwrap_or_else(|| EventName::new(header.event.as_str()).map_err(|_| Violation::BadName))?;
        let timer = self.timers.insert(deadline, TimerReason::Call, Due::Serving(id));
        let reference = (header.epoch > 0).then(|| message_ref(message.protected, message.tag));
        let exchange = provided.is_ok_and(|(_, kind)| kind == EventKind::Exchange);
        let whole = header.flags.has(Flags::WHOLE) || !streams;
        let stream = streams.then(|| Stream::served(exchange, whole.then_some(deadline)));
        let serving = Serving {
            serial: id.serial,
            provider: provided.ok().map(|(token, _)| token),
            request: header.request,
            channel,
            event,
            caller,
            deadline: Some(timer),
            reference,
            stream,
        };
        self.serving.insert(hop.route, serving);
        if accepted.is_err() {
            self.event(Event::Dropped(Dropped::Stale));
            self.refuse_unheard(id, &stale(self.now.wall));
            return Ok(());
        }
        match (provided, incoming) {
            (Ok((provider, _)), Some(message)) => {
                let idempotent = header.flags.has(Flags::IDEMPOTENT);
                self.event(Event::Request(Request { id, provider, message, deadline, whole, idempotent }));
            }
            // Withdrawn while the request was on its way.
            (provided, _) => {
                let refusal = provided.err().unwrap_or(Refusal::NoProvider);
                self.refuse_unheard(id, &refusal_as_fault(refusal));
            }
        }
        Ok(())
    }

    /// Who provides what is asked for, and how.
    fn provided(&self, header: &Header<'_>, streams: bool) -> Result<(Token, EventKind), Refusal> {
        let provided = self.channels.find(header.channel).and_then(|it| it.providers.get(header.event.as_str()));
        let provided = provided.ok_or(Refusal::NoProvider)?;
        // The hub has looked at the kind; another may have been provided meanwhile.
        let fits = provided.kind.streams() == streams || Canary::Kind.sings();
        if fits { Ok((provided.token, provided.kind)) } else { Err(Refusal::WrongKind) }
    }

    fn channel_name(&self, header: &Header<'_>) -> Result<ChannelName, Violation> {
        match self.channels.find(header.channel) {
            Some(channel) => Ok(channel.name.clone()),
            None => ChannelName::new(header.channel.as_str()).map_err(|_| Violation::BadName),
        }
    }

    pub(super) fn handle_answer(&mut self, id: RequestId, result: Result<Payload, Fault>) {
        let Some(serving) = self.serving.get(&id.route).filter(|serving| serving.serial == id.serial) else { return };
        if serving.stream.is_some() {
            let fault = result.err().unwrap_or_else(|| FaultCode::HandlerFailed.into());
            return self.finish(StreamId::Request(id), Ending::Fault(fault));
        }
        let Some(serving) = self.serving.remove(&id.route) else { return };
        if let Some(deadline) = serving.deadline {
            self.timers.cancel(deadline);
        }
        let (kind, payload) = match result {
            Ok(payload) => (Kind::Answer, payload),
            Err(fault) => (Kind::Fault, fault_payload(&fault)),
        };
        if self.fits_frame(&payload.bytes) {
            self.write_reply(id.route, &serving, kind, &payload);
        } else {
            self.write_reply(id.route, &serving, Kind::Fault, &fault_payload(&refusal_as_fault(Refusal::TooLarge)));
        }
    }

    fn write_reply(&mut self, route: u32, serving: &Serving, kind: Kind, payload: &Payload) {
        let Ok(hub) = self.ready_hub() else { return };
        let seq = self.reply_seq(&serving.channel);
        let (id, instance) = (self.id.clone(), self.instance);
        let header = Header {
            kind,
            flags: Flags::NONE.with_if(Flags::RAW, payload.raw),
            channel: serving.channel.as_name(),
            event: serving.event.as_name(),
            epoch: 0,
            sender: id.as_name(),
            origin: hub.as_name(),
            instance: &instance,
            seq,
            bseq: 0,
            sent_at: self.now.wall.0,
            time_left: 0,
            request: serving.request,
            reference: serving.reference.as_ref().map_or(&[], |reference| reference),
            index: 0,
            target: Target::new(serving.caller.client.as_name(), serving.caller.hub.as_name()),
            metadata: &[],
        };
        let _ = self.write_message(route, &header, &payload.bytes);
    }

    /// The caller gives up.
    pub(super) fn handle_request_cancelled(&mut self, frame: &Frame) -> Result<(), Violation> {
        let (hop, bytes) = Hop::split(frame.body()).map_err(|_| Violation::BadMessage)?;
        let message = Message::parse(bytes).map_err(|_| Violation::BadMessage)?;
        let header = message.header;
        let fits = |serving: &Serving| {
            header.kind == Kind::Cancel
                && serving.request == header.request
                && serving.caller.client.as_name() == header.sender
                && serving.caller.hub.as_name() == header.origin
                && header.reference == serving.reference.as_ref().map_or(&[][..], |reference| reference)
        };
        if Canary::Cancel.sings() {
            return Ok(());
        }
        if self.serving.get(&hop.route).is_some_and(fits)
            && let Err(why) = self.accept(&message)
        {
            self.event(Event::Dropped(why));
            return Ok(());
        }
        match self.serving.get(&hop.route) {
            Some(serving) if fits(serving) => {
                self.end_request(hop.route, None, Failure::Local(Misuse::Cancelled));
            }
            Some(_) => self.event(Event::Dropped(Dropped::Mismatch)),
            None => self.event(Event::Dropped(Dropped::EndedRoute)),
        }
        Ok(())
    }

    /// The time of a request is over. Who has got something of a stream already waits for more without a deadline, unless
    /// there is one for all of it: it is told.
    pub(super) fn request_expired(&mut self, request: RequestId) {
        let (refusal, serial) = (Refusal::Deadline, Some(request.serial));
        let stream = self.serving.get(&request.route).and_then(|serving| serving.stream.as_ref());
        let endless = stream.filter(|stream| stream.until.is_none());
        let begun = endless.and_then(|stream| stream.outflow.as_ref()).is_some_and(Outflow::has_begun);
        if begun {
            return self.break_request(request, refusal, Failure::Refused(refusal));
        }
        self.end_request(request.route, serial, Failure::Refused(refusal));
    }

    /// Ends a request without an answer, if it is still the one meant.
    pub(super) fn end_request(&mut self, route: u32, serial: Option<u64>, why: Failure) {
        let live = self.serving.get(&route).filter(|serving| serial.is_none_or(|serial| serial == serving.serial));
        if live.is_none() {
            return;
        }
        if let Some(serving) = self.serving.remove(&route) {
            if let Some(deadline) = serving.deadline {
                self.timers.cancel(deadline);
            }
            let request = RequestId { route, serial: serving.serial };
            self.event(Event::RequestEnded { request, why });
        }
    }

    /// Ends every request on a channel, and tells the callers while the keys are there to say so with.
    pub(super) fn abandon_requests(&mut self, channel: &ChannelName) {
        let on_channel = self.serving.iter().filter(|(_, serving)| serving.channel == *channel);
        let mut requests: alloc::vec::Vec<(u32, u64)> =
            on_channel.map(|(route, serving)| (*route, serving.serial)).collect();
        requests.sort_unstable();
        for (route, serial) in requests {
            let request = RequestId { route, serial };
            self.break_request(request, Refusal::ProviderGone, Failure::Refused(Refusal::NotMember));
        }
    }

    /// Ends a request from this side, at once and whatever of it waits to be sent: the caller is told a refusal, and the
    /// application why.
    pub(super) fn break_request(&mut self, request: RequestId, refusal: Refusal, why: Failure) {
        if self.refuse_unheard(request, &refusal_as_fault(refusal)) {
            self.event(Event::RequestEnded { request, why });
        }
    }

    /// The same of a request that the application has not heard of; whether there is one.
    fn refuse_unheard(&mut self, request: RequestId, fault: &Fault) -> bool {
        let fits = self.serving.get(&request.route).is_some_and(|serving| serving.serial == request.serial);
        let Some(serving) = fits.then(|| self.serving.remove(&request.route)).flatten() else { return false };
        if let Some(deadline) = serving.deadline {
            self.timers.cancel(deadline);
        }
        self.write_reply(request.route, &serving, Kind::Fault, &fault_payload(fault));
        true
    }

    pub(super) fn lose_serving(&mut self, gone: Misuse) {
        let mut routes: alloc::vec::Vec<u32> = self.serving.keys().copied().collect();
        routes.sort_unstable();
        if Canary::ServingLost.sings() {
            return self.serving.clear();
        }
        for route in routes {
            self.end_request(route, None, Failure::Local(gone));
        }
    }

    fn fits_frame(&self, payload: &Bytes) -> bool {
        super::frame_len(payload.len()) <= self.ready_frame()
    }

    /// The longest frame the hub takes; nothing while there is none.
    pub(super) fn ready_frame(&self) -> usize {
        match &self.phase {
            super::Phase::Ready(ready) => ready.frame as usize,
            super::Phase::Idle
            | super::Phase::Dialling
            | super::Phase::Greeted(_)
            | super::Phase::Deriving(_)
            | super::Phase::Proving(_) => 0,
        }
    }
}

/// A call's time is too far from ours; the details tell what time it is here, in unix milliseconds.
fn stale(wall: crate::UnixMillis) -> Fault {
    let mut details = BytesMut::new();
    cbor::put_uint(&mut details, wall.0);
    Fault { details: details.freeze(), ..FaultCode::Stale.into() }
}

/// What this library says for a provider that did not get to see the request.
pub(super) fn refusal_as_fault(refusal: Refusal) -> Fault {
    use alloc::string::ToString as _;
    let retryable = refusal.is_retryable();
    Fault { code: refusal.code(), message: refusal.to_string(), details: Bytes::new(), retryable }
}

/// A fault as a message carries it.
pub(super) fn fault_payload(fault: &Fault) -> Payload {
    let mut out = BytesMut::with_capacity(encoded_len_max(fault.message.len(), fault.details.len()));
    put_fault(&mut out, fault);
    Payload { bytes: out.freeze(), raw: false }
}
