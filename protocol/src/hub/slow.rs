//! Clients that read more slowly than they are written to: told when it shows, long before the link ends for it.

use super::registry::LinkIx;
use super::session::Session;
use super::{Event, Hub};
use crate::limits::Limits;

impl Session {
    /// Whether so much waits that it is worth telling, and was not told since it was little.
    pub(super) fn slows(&mut self, limits: &Limits) -> bool {
        !self.slow && self.outbox.waiting() > limits.outbox / 2 && {
            self.slow = true;
            true
        }
    }

    /// Some was written: when little waits, the next time that much does is worth telling again.
    pub(super) fn recovers(&mut self, limits: &Limits) {
        self.slow = self.slow && self.outbox.waiting() > limits.outbox / 4;
    }
}

impl Hub {
    pub(super) fn tell_slow(&mut self) {
        while let Some(ix) = self.slowed.pop() {
            self.is_slow(ix);
        }
    }

    fn is_slow(&mut self, ix: LinkIx) {
        let Some(session) = self.links.get(ix) else { return };
        let (link, waiting) = (session.link, session.outbox.waiting());
        if let Some(client) = session.member().map(|member| member.client.clone()) {
            self.event(Event::SlowConsumer { link, client, waiting });
        }
    }
}
