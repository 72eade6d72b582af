//! Messages that come back: what they say of their way is believed of bridges alone, and checked before anything else.

use super::calls::Passing;
use super::registry::LinkIx;
use super::session::Session;
use super::{Event, Hub};
use crate::error::{Refusal, Violation};
use crate::names::ChannelName;
use crate::wire::Kind;

impl Hub {
    /// Whether a message has been here before, or further than messages may go.
    ///
    /// Everybody but a bridge speaks for itself, and cannot have passed a hub.
    pub(super) fn is_looped(&self, ix: LinkIx, passing: &Passing<'_>) -> Result<bool, Violation> {
        let Passing { hop, header, .. } = passing;
        if !self.bridges.is_port(ix) {
            return if hop.is_direct() { Ok(false) } else { Err(Violation::BadHop) };
        }
        // What somebody of this hub said, and a bridge brings.
        let is_returned = header.origin == self.id.as_name();
        let is_known_here = hop.visited().any(|hub| hub == self.id.as_name());
        Ok(hop.hops >= self.limits.hops || is_known_here || is_returned)
    }

    /// Lets a message that came back go no further. Whoever waits for something hears so.
    pub(super) fn turn_back(&mut self, ix: LinkIx, passing: Passing<'_>) -> Result<(), Violation> {
        let Passing { kind, hop, header, .. } = passing;
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return Ok(()) };
        member.taken += 1;
        if kind.message_kind() != Some(header.kind) {
            self.counters.mismatched += 1;
            return Ok(());
        }
        let client = member.client.clone();
        match header.kind {
            Kind::Call if !member.may_call_on(hop.route) => return Err(Violation::BadRoute),
            Kind::Call => self.fail(ix, hop.route, Refusal::Loop),
            Kind::Send | Kind::Broadcast => self.taken(ix, Some(Refusal::Loop)),
            // They follow the way of a call that was let through, or nobody waits for them.
            Kind::Answer | Kind::Fault | Kind::Item | Kind::End | Kind::Cancel | Kind::Beacon => {}
        }
        self.counters.looped += 1;
        if let Ok(channel) = ChannelName::new(header.channel.as_str()) {
            self.event(Event::Looped { client, channel });
        }
        Ok(())
    }
}
