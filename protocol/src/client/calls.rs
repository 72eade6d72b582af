//! Our own calls: each ends exactly once, with its answer, a fault, a refusal, its deadline or the link.

use alloc::boxed::Box;
use core::time::Duration;

use super::channels::ChannelIx;
use super::streams::Stream;
use super::{Answer, Away, CallFailure, Client, Due, Event, Failure, Outgoing, StreamEvent, Token};
use crate::TIME_LEFT_MAX;
use crate::canary::Canary;
use crate::client::{Dropped, Payload};
use crate::error::{CloseReason, FaultCode, Misuse, Refusal, Violation};
use crate::names::{ChannelName, EventName, HubId};
use crate::slots::Key;
use crate::time::TimerReason;
use crate::timers::TimerId;
use crate::wire::{
    Control as _, Fail, Flags, Frame, FrameType, Header, Hop, Kind, Message, ROUTE_BY_HUB, Target, parse_fault,
};

/// A call without an answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) token: Token,
    pub(super) request: u64,
    pub(super) channel: ChannelName,
    pub(super) event: EventName,
    pub(super) deadline: Option<TimerId>,
    /// The hub has spoken of it, and does not know it any more.
    pub(super) reached: bool,
    /// What an answer must name, on a protected channel.
    pub(super) reference: Option<[u8; 32]>,
    /// Where items are wanted instead of an answer.
    pub(super) stream: Option<Box<Stream>>,
    again: Option<Box<Again>>,
    /// It was made on an earlier link, and may have been executed then, whatever becomes of it now.
    repeated: bool,
}

impl Pending {
    /// Whether it may be running whatever is said of it: its provider has begun with a stream, or the word against it is the
    /// hub's, which is no proof on a protected channel.
    fn may_run(&self) -> bool {
        self.reference.is_some() || self.stream.as_ref().is_some_and(|stream| stream.begun)
    }
}

/// What to say again on the next link, and until when.
#[derive(Debug)]
struct Again {
    outgoing: Outgoing,
    due: crate::Instant,
    /// Also if it may have been executed.
    repeats: bool,
}

impl Client {
    pub(super) fn handle_call(&mut self, token: Token, outgoing: &Outgoing, time_left: Duration) {
        if let Err(misuse) = self.start_call(token, outgoing, time_left, None) {
            self.answered(token, Err(never_sent(misuse)));
        }
    }

    /// Makes a call again that was made on a link that is gone.
    pub(super) fn repeat_call(&mut self, token: Token, outgoing: &Outgoing, time_left: Duration) {
        match self.start_call(token, outgoing, time_left, None) {
            Ok(key) => {
                if let Some(pending) = self.calls.get_mut(key) {
                    pending.repeated = true;
                }
            }
            Err(misuse) => self.answered(token, Err(lost(Failure::Local(misuse)))),
        }
    }

    pub(super) fn start_call(
        &mut self,
        token: Token,
        outgoing: &Outgoing,
        time_left: Duration,
        stream: Option<Box<Stream>>,
    ) -> Result<Key, Misuse> {
        let hub = self.check_room(outgoing)?.clone();
        if self.calls.len() >= self.config.limits.pending_calls {
            return Err(Misuse::TooMany);
        }
        let until = stream.as_ref().and_then(|stream| stream.until);
        let (time_left, millis) = self.times(time_left, until).ok_or(Misuse::Deadline)?;
        self.requests += 1;
        let request = self.requests;
        let (channel, event) = (outgoing.channel.clone(), outgoing.event.clone());
        let streams = stream.is_some();
        let again = self.again(outgoing, self.now.mono + time_left).filter(|_| !streams);
        let (deadline, reached, reference, repeated) = (None, false, None, false);
        let pending = Pending { token, request, channel, event, deadline, reached, reference, stream, again, repeated };
        let key = self.calls.insert(pending).map_err(|_| Misuse::TooMany)?;
        let waits = if Canary::CallDeadline.sings() { time_left * 2 } else { time_left };
        let deadline = self.timers.insert(self.now.mono + waits, TimerReason::Call, Due::Call(key));
        if let Some(pending) = self.calls.get_mut(key) {
            pending.deadline = Some(deadline);
        }
        let seq = self.next_seq(&outgoing.channel);
        let (id, instance) = (self.id.clone(), self.instance);
        let header = Header {
            kind: Kind::Call,
            flags: Flags::NONE
                .with_if(Flags::IDEMPOTENT, outgoing.idempotent)
                .with_if(Flags::STREAM, streams)
                .with_if(Flags::RAW, outgoing.payload.raw)
                .with_if(Flags::WHOLE, until.is_some()),
            channel: outgoing.channel.as_name(),
            event: outgoing.event.as_name(),
            epoch: 0,
            sender: id.as_name(),
            origin: hub.as_name(),
            instance: &instance,
            seq,
            bseq: 0,
            sent_at: self.now.wall.0,
            time_left: millis,
            request,
            reference: &[],
            index: 0,
            target: Target::NONE,
            metadata: &outgoing.metadata,
        };
        let reference = self.write_message(key.bits(), &header, &outgoing.payload.bytes);
        if let Some(pending) = self.calls.get_mut(key) {
            pending.reference = reference;
        }
        Ok(key)
    }

    /// How long we wait, and the milliseconds that the others are told: a stream that they bound as a whole only we bound until
    /// it is taken. Nothing if the time is over.
    fn times(&self, time_left: Duration, until: Option<crate::Instant>) -> Option<(Duration, u64)> {
        let whole = until.map(|until| until.saturating_since(self.now.mono));
        let time_left = time_left.min(TIME_LEFT_MAX).min(whole.unwrap_or(TIME_LEFT_MAX));
        // At most a day, so it fits.
        let millis = whole.unwrap_or(time_left).as_micros().div_ceil(1_000) as u64;
        (time_left.as_micros() > 0).then_some((time_left, millis))
    }

    /// What is kept of a call that may be made again.
    fn again(&self, outgoing: &Outgoing, due: crate::Instant) -> Option<Box<Again>> {
        let repeats = outgoing.away == Away::Repeat && outgoing.idempotent;
        let comes_back = outgoing.away != Away::Fail && self.config.reconnect.is_some();
        comes_back.then(|| Box::new(Again { outgoing: outgoing.clone(), due, repeats }))
    }

    pub(super) fn handle_cancel(&mut self, call: Token) {
        if self.cancel_parked(call) {
            return;
        }
        // Giving up is rare and calls are bounded: a map from tokens would cost every call to make this one faster.
        let key = self.calls.iter().find(|(_, pending)| pending.token == call).map(|(key, _)| key);
        if let Some(key) = key {
            self.give_up(key, Failure::Local(Misuse::Cancelled));
        }
    }

    /// Gives up every call on a channel while the keys are there to say so with.
    pub(super) fn give_up_calls(&mut self, channel: &ChannelName) {
        let on_channel = self.calls.iter().filter(|(_, pending)| pending.channel == *channel);
        let keys: alloc::vec::Vec<Key> = on_channel.map(|(key, _)| key).collect();
        for key in keys {
            self.give_up(key, Failure::Refused(Refusal::NotMember));
        }
    }

    pub(super) fn call_expired(&mut self, key: Key) {
        self.give_up(key, Failure::Local(Misuse::Deadline));
    }

    /// Ends a call from this side and tells the provider.
    pub(super) fn give_up(&mut self, key: Key, why: Failure) {
        let Some(pending) = self.end_call(key) else { return };
        if let Ok(hub) = self.ready_hub() {
            self.write_cancel(key, &pending, &hub);
        }
        self.over(&pending, lost(why));
    }

    fn write_cancel(&mut self, key: Key, pending: &Pending, hub: &HubId) {
        let seq = self.next_seq(&pending.channel);
        let (id, instance) = (self.id.clone(), self.instance);
        let header = Header {
            kind: Kind::Cancel,
            flags: Flags::NONE,
            channel: pending.channel.as_name(),
            event: pending.event.as_name(),
            epoch: 0,
            sender: id.as_name(),
            origin: hub.as_name(),
            instance: &instance,
            seq,
            bseq: 0,
            sent_at: self.now.wall.0,
            time_left: 0,
            request: pending.request,
            reference: pending.reference.as_ref().map_or(&[], |reference| reference),
            index: 0,
            target: Target::NONE,
            metadata: &[],
        };
        let _ = self.write_message(key.bits(), &header, &bytes::Bytes::new());
    }

    /// An answer or a fault.
    pub(super) fn handle_reply(&mut self, kind: FrameType, frame: &Frame) -> Result<(), Violation> {
        let (hop, bytes) = Hop::split(frame.body()).map_err(|_| Violation::BadMessage)?;
        self.read_message(bytes, |client, message| client.take_reply(kind, frame, hop, message))
    }

    fn take_reply(
        &mut self,
        kind: FrameType,
        frame: &Frame,
        hop: Hop<'_>,
        message: &Message<'_>,
    ) -> Result<(), Violation> {
        let header = message.header;
        let key = Key::from_bits(hop.route);
        let Some(pending) = self.calls.get(key).filter(|_| hop.route & ROUTE_BY_HUB == 0) else {
            self.event(Event::Dropped(Dropped::EndedRoute));
            return Ok(());
        };
        let may_run = pending.may_run();
        // A stream is answered with items.
        let fits = kind.message_kind() == Some(header.kind)
            && (header.kind == Kind::Fault || pending.stream.is_none())
            && self.is_reply_to(pending, &header);
        let Some(provider) = self.sender(&header).filter(|_| fits) else {
            self.event(Event::Dropped(Dropped::Mismatch));
            return Ok(());
        };
        if let Err(why) = self.accept(message) {
            self.event(Event::Dropped(why));
            return Ok(());
        }
        let result = if header.kind == Kind::Answer {
            Ok(Answer {
                payload: Payload { bytes: frame.keep(message.payload), raw: header.flags.has(Flags::RAW) },
                provider,
                metadata: frame.keep(header.metadata),
                hops: hop.hops,
                path: hop.path(),
            })
        } else {
            // What cannot be read is the provider's mistake and no reason to leave the hub: its handler failed.
            Err(parse_fault(message.payload).map_or_else(
                |_| CallFailure::Fault(FaultCode::HandlerFailed.into()),
                |fault| failure_of(fault, may_run),
            ))
        };
        if let Some(pending) = self.end_call(key) {
            match result {
                Ok(answer) => self.answered(pending.token, Ok(answer)),
                Err(failure) => self.over(&pending, failure),
            }
        }
        Ok(())
    }

    /// Whether what came names a call as what answers it must.
    pub(super) fn is_reply_to(&self, pending: &Pending, header: &Header<'_>) -> bool {
        let super::Phase::Ready(ready) = &self.phase else { return false };
        (header.request == pending.request || Canary::Reference.sings())
            && (header.reference == pending.reference.as_ref().map_or(&[][..], |reference| reference)
                || Canary::Reference.sings())
            && header.channel == pending.channel.as_name()
            && header.event == pending.event.as_name()
            && header.target == Target::new(self.id.as_name(), ready.hub.as_name())
    }

    /// An exchange that the hub has ended: one of our calls, or a request to one of our providers.
    pub(super) fn handle_fail(&mut self, frame: &Frame) -> Result<(), Violation> {
        let (route, body) = frame.body().split_first_chunk::<4>().ok_or(Violation::BadControl)?;
        let route = u32::from_be_bytes(*route);
        let Fail { code } = Fail::parse(body).map_err(|_| Violation::BadControl)?;
        let refusal = Refusal::from_code(code);
        let failure = refusal.map_or(Failure::RefusedCode(code), Failure::Refused);
        if route & ROUTE_BY_HUB != 0 {
            self.end_request(route, None, failure);
        } else if refusal == Some(Refusal::Deadline)
            && let Some(pending) = self.calls.get_mut(Key::from_bits(route))
            && pending.deadline.is_some()
        {
            // How long a caller waits its own clock decides: that of the hub may have begun a little earlier.
            pending.reached = true;
        } else if let Some(mut pending) = self.end_call(Key::from_bits(route)) {
            let maybe_executed = refusal.is_none_or(Refusal::maybe_executed) || pending.may_run();
            let leaves = matches!(refusal, Some(Refusal::Draining | Refusal::ShuttingDown));
            match pending.again.take() {
                // The hub goes, and the call waits for the next one.
                Some(again) if leaves && (again.repeats || !maybe_executed) => {
                    self.make_again(pending.token, *again, maybe_executed || pending.repeated);
                }
                _ => self.over(&pending, CallFailure::Failed { failure, maybe_executed }),
            }
        } else {
            self.event(Event::Dropped(Dropped::EndedRoute));
        }
        Ok(())
    }

    /// The link is gone. With `comes_back`, calls that may be made again wait for the next one.
    ///
    /// A hub that shuts down ends all that it has taken before it says so: what is left then has not reached it.
    pub(super) fn lose_calls(&mut self, gone: Misuse, reason: CloseReason, comes_back: bool) {
        let left = reason == CloseReason::Goodbye(Refusal::ShuttingDown);
        let mut calls = core::mem::take(&mut self.calls);
        for mut pending in calls.drain() {
            if let Some(deadline) = pending.deadline {
                self.timers.cancel(deadline);
            }
            if let Some(stream) = &pending.stream {
                self.forget_stream(pending.token, stream);
            }
            let maybe_executed = !left || pending.reached || pending.may_run();
            match pending.again.take() {
                Some(again) if comes_back && (again.repeats || !maybe_executed) => {
                    self.make_again(pending.token, *again, maybe_executed || pending.repeated);
                }
                Some(_) | None if pending.stream.is_some() && Canary::StreamLost.sings() => {}
                Some(_) | None => {
                    self.over(&pending, CallFailure::Failed { failure: Failure::Local(gone), maybe_executed });
                }
            }
        }
        self.flowing.clear();
        // The table goes on, so that the next link's routes differ from this one's.
        self.calls = calls;
    }

    fn make_again(&mut self, token: Token, again: Again, repeated: bool) {
        let Again { outgoing, due, repeats: _ } = again;
        self.park_again(token, outgoing, due.saturating_since(self.now.mono), repeated);
    }

    /// The next number of a message in a channel.
    pub(super) fn next_seq(&mut self, channel: &ChannelName) -> u64 {
        let Some(channel) = self.channels.entry(channel) else { return 1 };
        channel.seq += 1;
        channel.seq
    }

    /// The next number of a reply: requests for channels that we know nothing of leave no trace.
    pub(super) fn reply_seq(&mut self, channel: &ChannelName) -> u64 {
        self.seq_on(self.channels.index_of(channel))
    }

    /// The next number in a channel that was found, or of what is said about others.
    pub(super) fn seq_on(&mut self, channel: Option<ChannelIx>) -> u64 {
        let Some(channel) = channel.and_then(|ix| self.channels.get_mut(ix)) else {
            self.strays += 1;
            return self.strays;
        };
        channel.seq += 1;
        channel.seq
    }

    pub(super) fn ready_hub(&self) -> Result<HubId, Misuse> {
        match &self.phase {
            super::Phase::Ready(ready) => Ok(ready.hub.clone()),
            super::Phase::Idle
            | super::Phase::Dialling
            | super::Phase::Greeted(_)
            | super::Phase::Deriving(_)
            | super::Phase::Proving(_) => Err(Misuse::NotConnected),
        }
    }

    fn end_call(&mut self, key: Key) -> Option<Pending> {
        let pending = self.calls.remove(key)?;
        if let Some(deadline) = pending.deadline {
            self.timers.cancel(deadline);
        }
        if let Some(stream) = &pending.stream {
            self.forget_stream(pending.token, stream);
        }
        Some(pending)
    }

    /// The other end says that this was all of a stream, or it was not.
    pub(super) fn stream_over(&mut self, key: Key, result: Result<(), CallFailure>) {
        if let Some(pending) = self.end_call(key) {
            self.event(Event::Stream(StreamEvent::Ended { token: pending.token, result }));
        }
    }

    /// Tells that a call or stream has failed.
    fn over(&mut self, pending: &Pending, failure: CallFailure) {
        let token = pending.token;
        let failure = match failure {
            CallFailure::Failed { failure, .. } if pending.repeated => lost(failure),
            CallFailure::Failed { .. } | CallFailure::Fault(_) => failure,
        };
        self.event(match pending.stream {
            None => Event::Answered { token, result: Err(failure) },
            Some(_) => Event::Stream(StreamEvent::Ended { token, result: Err(failure) }),
        });
    }

    fn answered(&mut self, token: Token, result: Result<Answer, CallFailure>) {
        self.event(Event::Answered { token, result });
    }
}

/// A fault by this library that says the provider did not take the call is no statement of a handler. Where calls are
/// signed, whoever says so may not be the only one whom the hub has asked.
fn failure_of(fault: crate::Fault, may_run: bool) -> CallFailure {
    match Refusal::from_code(fault.code) {
        Some(refusal) => CallFailure::Failed {
            failure: Failure::Refused(refusal),
            maybe_executed: refusal.maybe_executed() || refusal == Refusal::TooLarge || may_run,
        },
        None => CallFailure::Fault(fault),
    }
}

pub(super) const fn never_sent(misuse: Misuse) -> CallFailure {
    CallFailure::Failed { failure: Failure::Local(misuse), maybe_executed: false }
}

pub(super) const fn lost(failure: Failure) -> CallFailure {
    CallFailure::Failed { failure, maybe_executed: true }
}
