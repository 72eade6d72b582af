//! What passes from one hub to the other, and what does not.

use core::num::NonZeroU32;

use super::{Bridge, Side, Stage};
use crate::error::{Refusal, Violation};
use crate::names::Name;
use crate::time::Instant;
use crate::wire::{
    Announce, Control as _, Fail, Forget, Frame, FrameType, Header, Hop, Kind, Message, ROUTE_BY_HUB, Remote, Told,
};

/// The goal of an announcement that is about listeners, which are where messages go rather than where they come from.
const LISTENER: u64 = 1;
/// So much may come at once after silence, in nanoseconds of the rate.
const BURST: u64 = 1_000_000_000;

/// How fast new things may come: a generic cell rate algorithm (ITU-T I.371).
#[derive(Debug)]
pub(super) struct Pace {
    /// What one takes, in nanoseconds.
    cost: Option<u64>,
    /// When everything so far is paid for.
    paid: u64,
}

impl Pace {
    pub(super) fn new(rate: Option<NonZeroU32>) -> Self {
        Self { cost: rate.map(|rate| (BURST / u64::from(rate.get())).max(1)), paid: 0 }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let Some(cost) = self.cost else { return true };
        let now = now.as_nanos();
        let paid = self.paid.max(now).saturating_add(cost);
        let allowed = paid <= now.saturating_add(BURST);
        if allowed {
            self.paid = paid;
        }
        allowed
    }
}

impl Bridge {
    pub(super) fn handle_relayed(&mut self, from: Side, kind: FrameType, frame: &Frame) {
        // What a hub has said to another one than is at the other end now is for nobody.
        if self.closed || (self.end_ref(from).deaf_until.is_some() && kind != FrameType::Done) {
            return;
        }
        let result = if kind == FrameType::Done {
            self.handle_done(from, frame);
            Ok(())
        } else if kind == FrameType::Announce {
            let announced = Announce::parse(frame.body()).map(|it| (it.goal, it.channel, it.event));
            announced.map(|what| self.pass_announcement(from, kind, frame, what)).map_err(|_| Violation::BadControl)
        } else if kind == FrameType::Forget {
            let forgotten = Forget::parse(frame.body()).map(|it| (it.goal, it.channel, it.event));
            forgotten.map(|what| self.pass_announcement(from, kind, frame, what)).map_err(|_| Violation::BadControl)
        } else if kind == FrameType::Remote {
            Remote::parse(frame.body())
                .map_err(|_| Violation::BadControl)
                .map(|remote| self.pass_remote(from, frame, &remote))
        } else if kind == FrameType::Told {
            Told::parse(frame.body()).map_err(|_| Violation::BadControl).map(|_| self.pass_told(from, frame))
        } else if kind.message_kind().is_some() {
            self.pass_message(from, kind, frame)
        } else {
            self.pass_control(from, kind, frame)
        };
        if let Err(violation) = result {
            self.end(from).client.end_for(violation);
        }
    }

    /// Whether what a hub offers can be reached at the other.
    fn offers(&self, from: Side) -> bool {
        !self.one_way || from == Side::A
    }

    fn allows(&self, channel: &str, event: Option<&str>) -> bool {
        let own = channel.starts_with(crate::RESERVED_PREFIX);
        !own && (self.allow.is_empty() || self.allow.iter().any(|allow| allow.matches(channel, event)))
    }

    fn pass_announcement(
        &mut self,
        from: Side,
        kind: FrameType,
        frame: &Frame,
        (goal, channel, event): (u64, Name<'_>, Option<Name<'_>>),
    ) {
        let direction = if goal == LISTENER { from.other() } else { from };
        let allowed = self.offers(direction) && self.allows(channel.as_str(), event.map(Name::as_str));
        let most = self.limits.outbox.saturating_mul(2);
        let to = self.end(from.other());
        if !allowed || to.stage == Stage::Parted {
            return;
        }
        if to.client.waiting() > most {
            return to.client.end_for(Violation::Flood);
        }
        to.client.say_frame(kind, |out| out.extend_from_slice(frame.body()));
    }

    /// Somebody there wants to join a channel that is protected beyond.
    fn pass_remote(&mut self, from: Side, frame: &Frame, remote: &Remote<'_>) {
        let allowed = self.offers(from.other()) && self.allows(remote.channel.as_str(), None);
        let (crowded, most) = (self.end_ref(from.other()).client.waiting(), self.limits.outbox);
        let refusal = if !allowed {
            Refusal::NotAllowed
        } else if self.end_ref(from.other()).stage == Stage::Parted {
            Refusal::HomeGone
        } else if crowded > most {
            Refusal::Overloaded
        } else {
            return self
                .end(from.other())
                .client
                .say_frame(FrameType::Remote, |out| out.extend_from_slice(frame.body()));
        };
        let told = Told::bare(remote.id, refusal.code());
        self.end(from).client.say_frame(FrameType::Told, |out| told.encode(out));
    }

    fn pass_told(&mut self, from: Side, frame: &Frame) {
        let to = self.end(from.other());
        if to.stage != Stage::Parted {
            to.client.say_frame(FrameType::Told, |out| out.extend_from_slice(frame.body()));
        }
    }

    fn pass_control(&mut self, from: Side, kind: FrameType, frame: &Frame) -> Result<(), Violation> {
        let (route, body) = frame.body().split_first_chunk::<4>().ok_or(Violation::BadControl)?;
        let to = self.end(from.other());
        if to.stage != Stage::Parted {
            to.client.pass_control(kind, u32::from_be_bytes(*route) ^ ROUTE_BY_HUB, body);
        }
        Ok(())
    }

    fn pass_message(&mut self, from: Side, kind: FrameType, frame: &Frame) -> Result<(), Violation> {
        let (hop, bytes) = Hop::split(frame.body()).map_err(|_| Violation::BadMessage)?;
        let message = Message::parse(bytes).map_err(|_| Violation::BadMessage)?;
        if kind.message_kind() != Some(message.header.kind) {
            return Err(Violation::BadMessage);
        }
        let route = if hop.route == 0 { 0 } else { hop.route ^ ROUTE_BY_HUB };
        if let Err(refusal) = self.check(from, &message.header, frame) {
            self.turn_down(from, hop.route, route, refusal);
            return Ok(());
        }
        self.counters.passed += 1;
        let now = self.now;
        let to = self.end(from.other());
        to.client.pass_message(kind, hop.with_route(route), frame, bytes);
        if route == 0 {
            to.marks.mark(now.mono, to.client.left());
        }
        Ok(())
    }

    /// Whether a message may pass, and can.
    fn check(&mut self, from: Side, header: &Header<'_>, frame: &Frame) -> Result<(), Refusal> {
        let (now, outbox) = (self.now.mono, self.limits.outbox);
        let (direction, is_new) = match header.kind {
            Kind::Broadcast => (from, true),
            Kind::Beacon => (from, false),
            Kind::Call | Kind::Send => (from.other(), true),
            // They belong to what was let through.
            Kind::Answer | Kind::Fault | Kind::Item | Kind::End | Kind::Cancel => (Side::A, false),
        };
        if !self.offers(direction) || !self.allows(header.channel.as_str(), Some(header.event.as_str())) {
            self.counters.forbidden += 1;
            return Err(Refusal::NotAllowed);
        }
        let len = frame.raw().len();
        let end = self.end(from.other());
        if end.stage == Stage::Parted {
            self.counters.parted += 1;
            return Err(Refusal::ProviderGone);
        }
        if len > end.client.frame_limit() {
            self.counters.too_large += 1;
            return Err(Refusal::TooLarge);
        }
        if end.client.waiting() + len > if is_new { outbox } else { outbox.saturating_mul(2) } {
            self.counters.crowded += 1;
            return Err(Refusal::Overloaded);
        }
        if is_new && !self.end(from).pace.allows(now) {
            self.counters.throttled += 1;
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }

    /// What cannot pass ends the exchange it belongs to, for both hubs.
    fn turn_down(&mut self, from: Side, there: u32, beyond: u32, refusal: Refusal) {
        if there == 0 {
            return;
        }
        let mut body = bytes::BytesMut::new();
        Fail { code: refusal.code() }.encode(&mut body);
        self.end(from).client.pass_control(FrameType::Fail, there, &body);
        let end = self.end(from.other());
        if end.stage != Stage::Parted {
            end.client.pass_control(FrameType::Fail, beyond, &body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn s77_a_rate_lets_so_many_pass_in_a_second_after_one_second_at_once() {
        let mut pace = Pace::new(NonZeroU32::new(10));
        let mut now = Instant::from_nanos(7);
        assert_eq!((0..50).filter(|_| pace.allows(now)).count(), 10);
        now = now + Duration::from_millis(350);
        assert_eq!((0..50).filter(|_| pace.allows(now)).count(), 3);
        now = now + Duration::from_secs(100);
        assert_eq!((0..50).filter(|_| pace.allows(now)).count(), 10);
        let mut free = Pace::new(None);
        assert!((0..1_000).all(|_| free.allows(now)));
    }
}
