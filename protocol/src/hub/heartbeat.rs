//! Whether clients are still there: a silent one is asked, and one that goes on saying nothing is gone.

use super::registry::LinkIx;
use super::session::Session;
use super::{DisconnectReason, Due, Hub};
use crate::error::Refusal;
use crate::machine::LinkId;
use crate::time::{Instant, TimerReason};
use crate::wire::{Control as _, FrameType, Ping};

impl Hub {
    /// A client is admitted: from now on its silence counts.
    pub(super) fn start_heartbeat(&mut self, ix: LinkIx) {
        if let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) {
            member.heard = self.now.mono;
        }
        self.beat_at(ix, self.now.mono + self.patience());
    }

    /// Armed once for many frames: what was heard meanwhile is looked at when it fires.
    pub(super) fn heartbeat_due(&mut self, link: LinkId) {
        let patience = self.patience();
        let Some(ix) = self.links.find(link) else { return };
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return };
        member.heartbeat_timer = None;
        let (heard, idle) = (member.heard, self.limits.idle);
        let quiet = self.now.mono.saturating_since(heard);
        if quiet < patience {
            return self.beat_at(ix, heard + patience);
        }
        // Only who was asked can fail to answer: time may have jumped since.
        if member.asked {
            return self.end_late(link, DisconnectReason::Refused(Refusal::Idle));
        }
        member.asked = true;
        self.pings += 1;
        let ping = Ping { number: self.pings };
        let Some(session) = self.links.get_mut(ix) else { return };
        session.outbox.push(&mut self.pool, FrameType::Ping, |out| ping.encode(out));
        self.check_outbox(ix);
        self.beat_at(ix, self.now.mono + idle.saturating_sub(patience));
    }

    /// How long a client may be silent before it is asked: longer than it takes a client to ask.
    fn patience(&self) -> core::time::Duration {
        (self.limits.heartbeat + self.limits.heartbeat / 2).min(self.limits.idle)
    }

    fn beat_at(&mut self, ix: LinkIx, at: Instant) {
        let Some(session) = self.links.get_mut(ix) else { return };
        let due = Due::Heartbeat(session.link);
        if let Some(member) = session.member_mut() {
            member.heartbeat_timer = Some(self.timers.insert(at, TimerReason::Heartbeat, due));
        }
    }
}
