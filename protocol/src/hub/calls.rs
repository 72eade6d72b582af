//! Calls on their way: who called, who works on it, and the two route numbers they know it by.
//!
//! ```text
//!   caller ── route chosen by the caller ──► [Call] ── route chosen by the hub ──► provider
//! ```
//! Only the provider a call was handed to can answer it, once, under the hub's own number; whoever is left when the other
//! goes is told at once.

use alloc::boxed::Box;

use super::crossing::{FarCaller, fits_kind, is_for_all};
use super::registry::{Channel, ChannelIx, LinkIx, Provider};
use super::session::{Member, Session};
use super::streams::Stream;
use super::{Due, Hub};
use crate::canary::Canary;
use crate::error::{Refusal, Violation};
use crate::slots::{Key, Slots};
use crate::time::TimerReason;
use crate::timers::TimerId;
use crate::wire::{Control, Fail, Flags, Frame, FrameType, Header, Hop, Kind, Message, ROUTE_BY_HUB, Recent};

/// The calls of all links.
pub(super) type Calls = Slots<Call>;

/// A call that has no answer yet.
#[derive(Debug)]
pub(super) struct Call {
    /// Nowhere here, where the channel has no members but elsewhere.
    pub(super) channel: Option<ChannelIx>,
    pub(super) epoch: u64,
    pub(super) caller: LinkIx,
    /// Who calls, where the caller's link is a bridge's.
    pub(super) far: Option<Box<FarCaller>>,
    /// The caller's number for it.
    pub(super) route: u32,
    pub(super) request: u64,
    pub(super) provider: LinkIx,
    pub(super) deadline: Option<TimerId>,
    /// Where items are wanted instead of an answer.
    pub(super) stream: Option<Box<Stream>>,
    /// The neighbours in the provider's list of what it works on.
    newer: Option<Key>,
    older: Option<Key>,
}

impl Call {
    pub(super) fn is_on(&self, channel: ChannelIx) -> bool {
        self.channel == Some(channel)
    }

    /// The next in the list of what its provider works on.
    pub(super) const fn older(&self) -> Option<Key> {
        self.older
    }
}

/// A message frame at the hub, parsed.
#[derive(Clone, Copy)]
pub(super) struct Passing<'a> {
    pub(super) kind: FrameType,
    pub(super) frame: &'a Frame,
    pub(super) hop: Hop<'a>,
    /// The signed message as it came.
    pub(super) bytes: &'a [u8],
    pub(super) header: Header<'a>,
    /// The header's bytes.
    pub(super) protected: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) tag: &'a [u8],
}

impl Hub {
    pub(super) fn handle_message(&mut self, ix: LinkIx, kind: FrameType, frame: &Frame) -> Result<(), Violation> {
        let (hop, bytes) = Hop::split(frame.body()).map_err(|_| Violation::BadMessage)?;
        if kind == FrameType::Item && self.goes_on(ix, frame, hop, bytes) {
            return Ok(());
        }
        let Some(recent) = self.recent(ix) else { return Ok(()) };
        // Taken out, since the message borrows from it.
        let (known, mut met) = (recent.take(), None);
        let (Message { header, protected, payload, tag }, opening) =
            known.read(bytes).map_err(|_| Violation::BadMessage)?;
        if let Some(opening) = opening {
            met.insert(recent.take_spare()).set(&header, opening);
        }
        let routed = self.route(ix, Passing { kind, frame, hop, bytes, header, protected, payload, tag });
        if let Some(recent) = self.recent(ix) {
            recent.keep(known, met);
        }
        routed
    }

    fn recent(&mut self, ix: LinkIx) -> Option<&mut Recent> {
        self.links.get_mut(ix).and_then(Session::member_mut).map(|member| &mut member.recent)
    }

    fn route(&mut self, ix: LinkIx, passing: Passing<'_>) -> Result<(), Violation> {
        let Passing { kind, header, .. } = passing;
        if self.is_looped(ix, &passing)? {
            return self.turn_back(ix, passing);
        }
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return Ok(()) };
        let own = header.sender == member.client.as_name() && header.origin == self.id.as_name();
        member.taken += 1;
        let far = self.bridges.is_port(ix);
        if !far && !own && !Canary::ForeignSender.sings() {
            return Err(Violation::ForeignSender);
        }
        if kind.message_kind() != Some(header.kind) || (far && !self.is_from_afar(ix, &passing)) {
            self.counters.mismatched += 1;
            return Ok(());
        }
        if far && is_for_all(header.kind) {
            self.fan_out_from_afar(ix, passing);
            return Ok(());
        }
        match header.kind {
            Kind::Call => self.route_call(ix, passing),
            Kind::Answer | Kind::Fault => {
                self.route_reply(ix, passing);
                Ok(())
            }
            Kind::Cancel => {
                self.route_cancel(ix, passing);
                Ok(())
            }
            Kind::Broadcast | Kind::Beacon => self.fan_out(ix, passing),
            Kind::Send if far => {
                self.send_from_afar(ix, passing);
                Ok(())
            }
            Kind::Send => self.route_send(ix, passing),
            Kind::Item | Kind::End => {
                self.route_piece(ix, passing);
                Ok(())
            }
        }
    }

    fn route_call(&mut self, ix: LinkIx, call: Passing<'_>) -> Result<(), Violation> {
        let route = call.hop.route;
        let Some(member) = self.links.get(ix).and_then(Session::member) else { return Ok(()) };
        if !member.may_call_on(route) {
            return Err(Violation::BadRoute);
        }
        if call.header.channel.is_reserved() {
            self.answer_call(ix, call);
            return Ok(());
        }
        let streams = call.header.flags.has(Flags::STREAM);
        // Behind a bridge there are many clients.
        let far = self.bridges.is_port(ix);
        let (calls, open) = if far {
            (self.limits.bridge_calls, self.limits.bridge_calls)
        } else {
            (self.limits.pending_calls, self.limits.streams)
        };
        let full = member.calls.len() >= calls || (streams && member.streams >= open);
        let refused = if full { Some(Refusal::Overloaded) } else { self.turns_down(ix) };
        match refused.map_or_else(|| self.choose_provider(ix, &call), Err) {
            Ok((channel, provider)) => self.start_call(ix, channel, provider, call),
            Err(refusal) => self.fail(ix, route, refusal),
        }
        Ok(())
    }

    /// Where a call goes: to the provider here, or else to the nearest one elsewhere.
    fn choose_provider(&self, ix: LinkIx, call: &Passing<'_>) -> Result<(Option<ChannelIx>, LinkIx), Refusal> {
        let header = &call.header;
        let found = self.admit_message(ix, header)?;
        let (place, here) = (found.map(|(place, _)| place), found.map(|(_, channel)| channel));
        let own = here.and_then(|channel| channel.provider(header.event));
        let far = || self.far_provider(ix, here, (header, call.hop));
        let (link, kind) = match own {
            Some(Provider { link, kind }) => (link, kind),
            None if self.bridges.is_conflict(header.channel) => far().ok_or(Refusal::ProtectionConflict)?,
            None => far().ok_or(Refusal::NoProvider)?,
        };
        fits_kind(kind, header.flags)?;
        if self.far_caller(ix, header).is_some_and(|caller| self.bridges.running.contains_key(&caller.key())) {
            return Err(Refusal::Duplicate);
        }
        Ok((place, link))
    }

    /// Whether a message may pass: of the channel's epoch, and on a protected channel from a member. Nothing is found
    /// where nobody has opened the channel.
    pub(super) fn admit_message(
        &self,
        ix: LinkIx,
        header: &Header<'_>,
    ) -> Result<Option<(ChannelIx, &Channel)>, Refusal> {
        let far = self.bridges.is_port(ix);
        let Some((place, channel)) = self.registry.by_name(header.channel) else {
            return if header.epoch == 0 || far { Ok(None) } else { Err(Refusal::Rekeyed) };
        };
        let epoch = channel.guard.epoch();
        // Who is a member elsewhere is looked after there.
        if header.epoch == epoch && (epoch == 0 || far) {
            return Ok(Some((place, channel)));
        }
        let member = self.links.get(ix).and_then(Session::member);
        let is_member = member.is_some_and(|member| member.memberships.has(place));
        match (header.epoch, is_member) {
            (0, _) => Err(Refusal::PasswordRequired),
            (of, _) if of != epoch => Err(Refusal::Rekeyed),
            (_, true) => Ok(Some((place, channel))),
            (_, false) if Canary::NotMember.sings() => Ok(Some((place, channel))),
            (_, false) => Err(Refusal::NotMember),
        }
    }

    fn start_call(&mut self, ix: LinkIx, channel: Option<ChannelIx>, provider: LinkIx, passing: Passing<'_>) {
        let route = passing.hop.route;
        let time_left = core::time::Duration::from_millis(passing.header.time_left);
        let older = self.links.get(provider).and_then(Session::member).and_then(|member| member.serving);
        let request = passing.header.request;
        let epoch = passing.header.epoch;
        let flags = passing.header.flags;
        let stream = flags.has(Flags::STREAM).then(|| Stream::asked(flags));
        let streams = usize::from(stream.is_some());
        let far = self.far_caller(ix, &passing.header).map(Box::new);
        let running = far.as_ref().map(|far| far.key());
        let (deadline, newer) = (None, None);
        let call = Call { channel, epoch, caller: ix, far, route, request, provider, deadline, stream, newer, older };
        let Ok(key) = self.calls.insert(call) else {
            return self.fail(ix, route, Refusal::Overloaded);
        };
        if let Some(running) = running {
            self.bridges.running.insert(running, key);
        }
        let deadline = self.timers.insert(self.now.mono + time_left, TimerReason::Call, Due::Call(key));
        if let Some(call) = self.calls.get_mut(key) {
            call.deadline = Some(deadline);
        }
        if let Some(neighbour) = older.and_then(|older| self.calls.get_mut(older)) {
            neighbour.newer = Some(key);
        }
        if let Some(member) = self.links.get_mut(provider).and_then(Session::member_mut) {
            member.serving = Some(key);
        }
        if let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) {
            member.calls.insert(route, key);
            member.streams += streams;
        }
        if !self.forward(provider, key.bits() | ROUTE_BY_HUB, passing) {
            self.end_call(key);
            self.fail(ix, route, Refusal::TooLarge);
        }
    }

    fn route_reply(&mut self, ix: LinkIx, reply: Passing<'_>) {
        let key = Key::from_bits(reply.hop.route & !ROUTE_BY_HUB);
        let ours = |call: &&Call| call.provider == ix || Canary::ForeignReply.sings();
        let live = self.calls.get(key).filter(|call| ours(call) && reply.hop.route & ROUTE_BY_HUB != 0);
        let Some(call) = live else {
            self.counters.ended_route += 1;
            return;
        };
        if call.request != reply.header.request
            || !self.is_caller(call, reply.header.target)
            || reply.header.epoch != call.epoch
            || (reply.header.kind == Kind::Answer && call.stream.is_some())
        {
            self.counters.mismatched += 1;
            return;
        }
        let (caller, route) = (call.caller, call.route);
        self.end_call(key);
        if !self.forward(caller, route, reply) {
            self.fail(caller, route, Refusal::TooLarge);
        }
    }

    fn route_cancel(&mut self, ix: LinkIx, cancel: Passing<'_>) {
        let member = self.links.get(ix).and_then(Session::member);
        let key = member.and_then(|member| member.calls.get(&cancel.hop.route).copied());
        let Some((key, call)) = key.and_then(|key| self.calls.get(key).map(|call| (key, call))) else {
            self.counters.ended_route += 1;
            return;
        };
        if call.request != cancel.header.request || call.epoch != cancel.header.epoch {
            self.counters.mismatched += 1;
            return;
        }
        let provider = call.provider;
        if call.stream.is_some() && Canary::StreamCancel.sings() {
            return;
        }
        self.end_call(key);
        if !self.forward(provider, key.bits() | ROUTE_BY_HUB, cancel) {
            self.fail(provider, key.bits() | ROUTE_BY_HUB, Refusal::CallerGone);
        }
    }

    pub(super) fn call_expired(&mut self, key: Key) {
        let Some(call) = self.end_call(key) else { return };
        self.fail(call.caller, call.route, Refusal::Deadline);
        self.fail(call.provider, key.bits() | ROUTE_BY_HUB, Refusal::Deadline);
    }

    /// Tells everybody who shared a call with a link that is gone.
    pub(super) fn abandon_calls(&mut self, ix: LinkIx, gone: &Member) {
        // The session is out of the table already, so the list is followed from the member at hand.
        let mut next = gone.serving;
        while let Some(key) = next {
            let Some(call) = self.end_call(key) else { break };
            next = call.older;
            if call.caller != ix && !Canary::ProviderGone.sings() {
                self.fail(call.caller, call.route, Refusal::ProviderGone);
            }
        }
        let mut own: alloc::vec::Vec<Key> = gone.calls.values().copied().collect();
        own.sort_unstable();
        for key in own {
            if let Some(call) = self.end_call(key) {
                if Canary::CallerGone.sings() {
                    continue;
                }
                self.fail(call.provider, key.bits() | ROUTE_BY_HUB, Refusal::CallerGone);
            }
        }
    }

    /// Ends a call: the caller and its number for it, and the provider.
    pub(super) fn take_call(&mut self, key: Key) -> Option<((LinkIx, u32), LinkIx)> {
        self.end_call(key).map(|call| ((call.caller, call.route), call.provider))
    }

    /// Takes a call out of every list it is in.
    fn end_call(&mut self, key: Key) -> Option<Call> {
        let call = self.calls.remove(key)?;
        if let Some(deadline) = call.deadline {
            self.timers.cancel(deadline);
        }
        if let Some(far) = &call.far {
            self.bridges.running.remove(&far.key());
        }
        if let Some(older) = call.older.and_then(|older| self.calls.get_mut(older)) {
            older.newer = call.newer;
        }
        if let Some(newer) = call.newer.and_then(|newer| self.calls.get_mut(newer)) {
            newer.older = call.older;
        } else if let Some(member) = self.links.get_mut(call.provider).and_then(Session::member_mut) {
            member.serving = call.older;
        }
        if let Some(member) = self.links.get_mut(call.caller).and_then(Session::member_mut) {
            member.calls.remove(&call.route);
            member.streams -= usize::from(call.stream.is_some() && !Canary::StreamCounted.sings());
        }
        Some(call)
    }

    /// Passes a message on as it came, behind a hop header of its own; not if that makes it too long.
    pub(super) fn forward(&mut self, to: LinkIx, route: u32, passing: Passing<'_>) -> bool {
        let Passing { kind, frame, hop, bytes, .. } = passing;
        self.carry(to, kind, frame, hop.forward(route), bytes)
    }

    /// The same of a message that need not be parsed.
    pub(super) fn carry(&mut self, to: LinkIx, kind: FrameType, frame: &Frame, hop: Hop<'_>, bytes: &[u8]) -> bool {
        if !self.fits_hop(to, hop, bytes) {
            return false;
        }
        let past = self.bridges.is_port(to).then(|| self.id.as_name());
        if let Some(session) = self.links.get_mut(to) {
            let shared = frame.share_counted(&self.pool, bytes);
            let pool = &mut self.pool;
            match (past, shared) {
                (Some(own), shared) => {
                    session.outbox.push_message(pool, kind, |out| hop.put_past(own, out), bytes, shared);
                }
                (None, Some(shared)) => session.outbox.push_shared(pool, kind, |out| hop.put(out), shared, |_| {}),
                // Its length is what it was.
                (None, None) => session.outbox.push_relayed(pool, frame.raw(), hop),
            }
            self.counters.forwarded += 1;
        }
        if past.is_some() && hop.route == 0 {
            self.mark_late(to);
        }
        self.check_outbox(to);
        true
    }

    /// Ends an exchange on one link without its peer's word.
    pub(super) fn fail(&mut self, to: LinkIx, route: u32, refusal: Refusal) {
        let fail = Fail { code: refusal.code() };
        if let Some(session) = self.links.get_mut(to) {
            session.outbox.push(&mut self.pool, FrameType::Fail, |out| {
                bytes::BufMut::put_u32(out, route);
                fail.encode(out);
            });
        }
        self.check_outbox(to);
    }
}
