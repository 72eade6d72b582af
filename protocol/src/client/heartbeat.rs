//! Whether the hub is still there: asked when nothing was heard for a while, and given up after a while more.

use super::{Client, Due, Phase};
use crate::error::{CloseReason, Refusal, Violation};
use crate::machine::Flush;
use crate::time::TimerReason;
use crate::wire::{Control as _, Frame, FrameType, Goodbye, Ping, Pong};

impl Client {
    /// The link is ready: from now on its silence counts.
    pub(super) fn start_heartbeat(&mut self) {
        (self.heard, self.asked) = (self.now.mono, false);
        self.beat_at(self.now.mono + self.config.limits.heartbeat);
    }

    pub(super) fn stop_heartbeat(&mut self) {
        if let Some(timer) = self.heartbeat.take() {
            self.timers.cancel(timer);
        }
    }

    /// Armed once for many frames: what was heard meanwhile is looked at when it fires.
    pub(super) fn heartbeat_due(&mut self) {
        self.heartbeat = None;
        let Phase::Ready(_) = &self.phase else { return };
        let (heartbeat, idle) = (self.config.limits.heartbeat, self.config.limits.idle);
        let quiet = self.now.mono.saturating_since(self.heard);
        if quiet < heartbeat {
            return self.beat_at(self.heard + heartbeat);
        }
        // Only who was asked can fail to answer: time may have jumped since.
        if self.asked {
            let code = Refusal::Idle.code();
            self.outbox.push(&mut self.pool, FrameType::Goodbye, |out| Goodbye { code }.encode(out));
            self.close_link(Flush::Nothing);
            return self.lose(CloseReason::Silent);
        }
        self.asked = true;
        self.pings += 1;
        let ping = Ping { number: self.pings };
        self.outbox.push(&mut self.pool, FrameType::Ping, |out| ping.encode(out));
        self.beat_at(self.now.mono + idle.saturating_sub(heartbeat));
    }

    fn beat_at(&mut self, at: crate::Instant) {
        self.heartbeat = Some(self.timers.insert(at, TimerReason::Heartbeat, Due::Heartbeat));
    }

    pub(super) fn handle_ping(&mut self, frame: &Frame) -> Result<(), Violation> {
        let ping = Ping::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        self.outbox.push(&mut self.pool, FrameType::Pong, |out| Pong { number: ping.number }.encode(out));
        Ok(())
    }
}
