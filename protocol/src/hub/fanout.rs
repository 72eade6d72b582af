//! Messages without an answer: sends to one provider, broadcasts to every listener, and the ACK that says they were taken.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::calls::Passing;
use super::registry::LinkIx;
use super::session::Session;
use super::{DisconnectReason, Hub};
use crate::canary::Canary;
use crate::error::{Refusal, Violation};
use crate::names::Name;
use crate::wire::{Ack, Control, FrameType, Kind, Pool, Refused, put_image};

impl Hub {
    pub(super) fn route_send(&mut self, ix: LinkIx, send: Passing<'_>) -> Result<(), Violation> {
        if send.hop.route != 0 {
            return Err(Violation::BadRoute);
        }
        if send.header.channel.is_reserved() {
            self.taken(ix, Some(Refusal::HubOwned));
            return Ok(());
        }
        let receiver = self.turns_down(ix).map_or_else(|| self.choose_receiver(ix, &send), Err);
        let refused = match receiver {
            Ok(to) if self.forward(to, 0, send) => None,
            Ok(_) => Some(Refusal::TooLarge),
            Err(refusal) => Some(refusal),
        };
        self.taken(ix, refused);
        Ok(())
    }

    /// Where a send goes: to the provider here, or else to the nearest one elsewhere.
    pub(super) fn choose_receiver(&self, ix: LinkIx, send: &Passing<'_>) -> Result<LinkIx, Refusal> {
        if self.is_full() {
            return Err(Refusal::Overloaded);
        }
        let here = self.admit_message(ix, &send.header)?.map(|(_, channel)| channel);
        let own = here.and_then(|channel| channel.provider(send.header.event)).map(|own| (own.link, own.kind));
        let far = || self.far_provider(ix, here, (&send.header, send.hop));
        let (link, kind) = own.or_else(far).ok_or(Refusal::NoProvider)?;
        if kind.streams() { Err(Refusal::WrongKind) } else { Ok(link) }
    }

    /// A broadcast, or the number of the last one, which nobody waits to see taken.
    pub(super) fn fan_out(&mut self, ix: LinkIx, broadcast: Passing<'_>) -> Result<(), Violation> {
        if broadcast.hop.route != 0 {
            return Err(Violation::BadRoute);
        }
        let admitted = if broadcast.header.channel.is_reserved() {
            Err(Refusal::HubOwned)
        } else if let Some(refusal) = self.turns_down(ix) {
            Err(refusal)
        } else {
            self.admit_message(ix, &broadcast.header).map(drop)
        };
        if broadcast.header.kind == Kind::Broadcast {
            self.taken(ix, admitted.err());
        }
        if admitted.is_ok() {
            self.deliver_here(ix, broadcast);
            self.cross(ix, broadcast, &[]);
        }
        Ok(())
    }

    /// Gives a broadcast to those of this hub who listen.
    pub(super) fn deliver_here(&mut self, ix: LinkIx, broadcast: Passing<'_>) {
        let Passing { kind, frame, hop, bytes, header, .. } = broadcast;
        if self.registry.listeners(header.channel, header.event).next().is_none() {
            return;
        }
        let hop = hop.forward(0);
        let shared = frame.share_among(&self.pool, bytes);
        let (body, rest) = shared.as_ref().map_or((bytes, 0), |shared| (&[][..], shared.len()));
        let fill = |out: &mut BytesMut| {
            hop.put(out);
            out.put_slice(body);
        };
        let mut image = core::mem::take(&mut self.image);
        put_image(&mut image, kind, fill, rest);
        self.deliver((header.channel, header.event), Some(ix), &image, shared.as_ref());
        self.image = image;
    }

    /// Gives a frame to everybody who listens, but for the one who said it.
    pub(super) fn deliver(
        &mut self,
        (channel, event): (Name<'_>, Name<'_>),
        said_by: Option<LinkIx>,
        image: &[u8],
        shared: Option<&Bytes>,
    ) {
        for to in self.registry.listeners(channel, event).filter(|to| Some(*to) != said_by || Canary::Echo.sings()) {
            let Some(session) = self.links.get_mut(to) else { continue };
            session.outbox.push_image(&mut self.pool, image, shared);
            self.counters.forwarded += 1;
            if !session.ready {
                session.ready = true;
                self.ready.push_back(to);
            }
            if session.slows(&self.limits) {
                self.slowed.push(to);
            }
            if session.outbox.waiting() > self.limits.outbox {
                self.doomed.push((to, DisconnectReason::Refused(Refusal::SlowConsumer)));
            }
        }
    }

    /// Notes that the sender of the frame at hand waits to hear what became of it.
    pub(super) fn taken(&mut self, ix: LinkIx, refused: Option<Refusal>) {
        // Nobody waits at a bridge.
        if self.bridges.is_port(ix) {
            return;
        }
        if let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) {
            member.ack_due = true;
            if refused.is_some() && Canary::Refusal.sings() {
                return;
            }
            if let Some(refusal) = refused {
                member.refused.push(Refused { position: member.taken, code: refusal.code() });
            }
            if member.refused.len() > REFUSED_MAX {
                self.doomed.push((ix, DisconnectReason::Refused(Refusal::SlowConsumer)));
            }
        }
        self.mark_ready(ix);
    }
}

/// Writes the ACK that is due, if one is: made when the link's output is taken, so one serves everything read before.
pub(super) fn acknowledge(session: &mut Session, pool: &mut Pool) {
    let Some(member) = session.member_mut().filter(|member| member.ack_due) else { return };
    member.ack_due = false;
    let refused = core::mem::take(&mut member.refused);
    let ack = Ack { taken: member.taken, refused: (!refused.is_empty()).then_some(refused) };
    session.outbox.push(pool, FrameType::Ack, |out| ack.encode(out));
}

/// Refusals that one link may leave unread before it ends.
const REFUSED_MAX: usize = 4_096;
