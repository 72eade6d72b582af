//! Messages that go to other hubs, or come from them: unchanged, each with the hubs it has visited.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use super::calls::{Call, Passing};
use super::registry::{Channel, LinkIx};
use super::routes::{Realm, Way};
use super::session::Session;
use super::shares::Quota;
use super::{DisconnectReason, Due, Hub};
use crate::auth::duplicate_digest;
use crate::client::EventKind;
use crate::error::{Refusal, Violation};
use crate::names::{Address, ClientId, HubId};
use crate::slots::Key;
use crate::time::TimerReason;
use crate::wire::{Control as _, Fail, Flags, Frame, Header, Hop, Kind, ROUTE_BY_HUB, Target};

/// How long a message without an answer may wait for a bridge: on all its hops together, less than it is remembered.
pub(crate) const LATE: Duration = Duration::from_secs(5);

/// Who called from another hub.
#[derive(Debug)]
pub(super) struct FarCaller {
    pub(super) address: Address,
    pub(super) instance: [u8; 16],
    pub(super) request: u64,
}

impl FarCaller {
    pub(super) fn key(&self) -> super::bridging::Caller {
        (self.address.clone(), self.instance, self.request)
    }
}

impl Hub {
    /// Whether a message has come to a bridge's link as messages of other hubs do: it says where it was, from its origin to
    /// the hub behind the bridge.
    pub(super) fn is_from_afar(&self, ix: LinkIx, passing: &Passing<'_>) -> bool {
        let Passing { hop, header, .. } = passing;
        let Some(port) = self.bridges.port(ix) else { return false };
        let visited: Vec<_> = hop.visited().collect();
        visited.len() == usize::from(hop.hops)
            && visited.first() == Some(&header.origin)
            && visited.last() == Some(&port.far.as_name())
            && visited.iter().collect::<BTreeSet<_>>().len() == visited.len()
            && !header.channel.is_reserved()
            && !header.sender.is_reserved()
    }

    /// Which channels of its name a message can be about: the one of this hub, or those that are elsewhere.
    fn realms_of(&self, here: Option<&Channel>, header: &Header<'_>) -> Vec<Realm> {
        match here {
            Some(channel) => alloc::vec![self.realm_of(channel)],
            None if header.epoch == 0 => alloc::vec![Realm::default()],
            None => self.bridges.routes.realms(header.channel).filter(|it| it.epoch == header.epoch).cloned().collect(),
        }
    }

    /// The way to a provider elsewhere: not back, and not through hubs that the message has visited.
    pub(super) fn far_provider(
        &self,
        ix: LinkIx,
        here: Option<&Channel>,
        (header, hop): (&Header<'_>, Hop<'_>),
    ) -> Option<(LinkIx, EventKind)> {
        if !self.bridges.exist() || hop.hops + 1 >= self.limits.hops {
            return None;
        }
        let gone = |link: LinkIx, way: &Way| link == ix || hop.visited().any(|hub| way.passes(hub));
        let realms = self.realms_of(here, header);
        realms.iter().find_map(|realm| self.bridges.routes.provider(header.channel, realm, header.event, gone))
    }

    /// Who calls, of a call that came over a bridge.
    pub(super) fn far_caller(&self, ix: LinkIx, header: &Header<'_>) -> Option<FarCaller> {
        self.bridges.port(ix)?;
        let client = ClientId::new(header.sender.as_str()).ok()?;
        let hub = HubId::new(header.origin.as_str()).ok()?;
        Some(FarCaller { address: Address { client, hub }, instance: *header.instance, request: header.request })
    }

    /// Whether this names the caller of a call.
    pub(super) fn is_caller(&self, call: &Call, target: Target<'_>) -> bool {
        match &call.far {
            Some(far) => Target::new(far.address.client.as_name(), far.address.hub.as_name()) == target,
            None => {
                let caller = self.links.get(call.caller).and_then(Session::member);
                caller.is_some_and(|member| Target::new(member.client.as_name(), self.id.as_name()) == target)
            }
        }
    }

    /// Gives a broadcast, or the number of the last one, to the hubs where somebody listens. `seen` are those that have it.
    pub(super) fn cross(&mut self, ix: LinkIx, passing: Passing<'_>, seen: &[u64]) -> Vec<u64> {
        let Passing { hop, header, .. } = passing;
        if !self.bridges.exist() || hop.hops + 1 >= self.limits.hops {
            return Vec::new();
        }
        let here = self.registry.by_name(header.channel).map(|(_, channel)| channel);
        let passed = |hub: &HubId| *hub == self.id || hop.visited().any(|visited| visited == hub.as_name());
        let mut links = BTreeSet::new();
        for realm in self.realms_of(here, &header) {
            self.bridges.routes.listening(header.channel, &realm, header.event, passed, &mut links);
        }
        let mut told = Vec::new();
        for link in links {
            let Some(serial) = self.bridges.port(link).map(|port| port.serial) else { continue };
            if link != ix && !seen.contains(&serial) && self.forward(link, 0, passing) {
                told.push(serial);
            }
        }
        told
    }

    /// A broadcast that comes from another hub, perhaps not for the first time.
    pub(super) fn fan_out_from_afar(&mut self, ix: LinkIx, broadcast: Passing<'_>) {
        let admitted = !self.is_full() && self.admit_message(ix, &broadcast.header).is_ok();
        if broadcast.hop.route != 0 || !admitted {
            self.counters.unadmitted += 1;
            return;
        }
        let Some((digest, bridges, here)) = self.look_up_double(ix, broadcast) else { return };
        if !here {
            self.deliver_here(ix, broadcast);
        }
        let told = self.cross(ix, broadcast, &bridges);
        if here && told.is_empty() {
            self.counters.doubled += 1;
        }
        self.note_double(digest, &told);
    }

    /// A send that comes from another hub, perhaps not for the first time.
    pub(super) fn send_from_afar(&mut self, ix: LinkIx, send: Passing<'_>) {
        if send.hop.route != 0 {
            self.counters.unadmitted += 1;
            return;
        }
        let Some((digest, bridges, here)) = self.look_up_double(ix, send) else { return };
        // It goes to one, once.
        if here || bridges.len() > 1 {
            self.counters.doubled += 1;
            return;
        }
        match self.choose_receiver(ix, &send) {
            Ok(to) => {
                let told = self.bridges.port(to).map(|port| port.serial);
                self.forward(to, 0, send);
                self.note_double(digest, told.as_slice());
            }
            Err(_) => self.counters.unadmitted += 1,
        }
    }

    /// What copies of a message are told by, which bridges have it, and whether those here do; nothing where it finds no place.
    fn look_up_double(&mut self, ix: LinkIx, passing: Passing<'_>) -> Option<([u8; 16], Vec<u64>, bool)> {
        let digest = duplicate_digest(passing.protected, passing.payload, passing.tag);
        let (now, quota, serial) = (self.now.mono, Quota::of_doubles(&self.limits), self.bridges.port(ix)?.serial);
        let Some(seen) = self.bridges.doubles.of(digest, (serial, passing.hop.hops), now, quota) else {
            self.counters.unremembered += 1;
            return None;
        };
        let found = (digest, seen.bridges.clone(), seen.here);
        self.watch_doubles();
        Some(found)
    }

    fn note_double(&mut self, digest: [u8; 16], told: &[u64]) {
        if let Some(seen) = self.bridges.doubles.get_mut(digest) {
            seen.here = true;
            seen.bridges.extend_from_slice(told);
        }
    }

    pub(super) fn watch_doubles(&mut self) {
        if !self.bridges.forgets
            && let Some(due) = self.bridges.doubles.due()
        {
            self.timers.insert(due, TimerReason::Doubles, Due::Doubles);
            self.bridges.forgets = true;
        }
    }

    pub(super) fn doubles_due(&mut self) {
        self.bridges.forgets = false;
        self.bridges.doubles.forget(self.now.mono);
        self.watch_doubles();
    }

    /// The hub behind a bridge says that an exchange is over.
    pub(super) fn route_fail(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let (route, body) = frame.body().split_first_chunk::<4>().ok_or(Violation::BadControl)?;
        let Fail { code } = Fail::parse(body).map_err(|_| Violation::BadControl)?;
        let why = Refusal::from_code(code).unwrap_or(Refusal::ProviderGone);
        let route = u32::from_be_bytes(*route);
        let key = if route & ROUTE_BY_HUB == 0 {
            let member = self.links.get(ix).and_then(Session::member);
            member.and_then(|member| member.calls.get(&route).copied())
        } else {
            let key = Key::from_bits(route & !ROUTE_BY_HUB);
            self.calls.get(key).filter(|call| call.provider == ix).map(|_| key)
        };
        let Some(((caller, of_caller), provider)) = key.and_then(|key| self.take_call(key)) else {
            self.counters.ended_route += 1;
            return Ok(());
        };
        if route & ROUTE_BY_HUB == 0 {
            self.fail(provider, key.map_or(0, Key::bits) | ROUTE_BY_HUB, why);
        } else {
            self.fail(caller, of_caller, why);
        }
        Ok(())
    }

    /// Ends every call that goes over a bridge whose other end is gone.
    pub(super) fn abandon_far_calls(&mut self, ix: LinkIx) {
        let mut to: Vec<Key> = Vec::new();
        let Some(member) = self.links.get(ix).and_then(Session::member) else { return };
        let mut next = member.serving;
        while let Some(key) = next {
            to.push(key);
            next = self.calls.get(key).and_then(Call::older);
        }
        let mut from: Vec<Key> = member.calls.values().copied().collect();
        from.sort_unstable();
        for key in to {
            if let Some(((caller, route), _)) = self.take_call(key) {
                self.fail(caller, route, Refusal::ProviderGone);
            }
        }
        for key in from {
            if let Some((_, provider)) = self.take_call(key) {
                self.fail(provider, key.bits() | ROUTE_BY_HUB, Refusal::CallerGone);
            }
        }
    }

    /// Notes when a message without an answer begins to wait for a bridge.
    pub(super) fn mark_late(&mut self, to: LinkIx) {
        let now = self.now.mono;
        let left = self.links.get(to).map_or(0, |session| session.outbox.in_flight() + session.outbox.waiting());
        if let Some(port) = self.bridges.port_mut(to) {
            port.marks.mark(now, left);
        }
        self.check_late(to, 0);
    }

    /// So many bytes have left the driver's hands. Ends a bridge's link on which a message waits so long that its copies
    /// would be forgotten before it arrives.
    pub(super) fn check_late(&mut self, ix: LinkIx, written: usize) {
        let now = self.now.mono;
        let Some(port) = self.bridges.port_mut(ix) else { return };
        let late = port.marks.is_late(now, LATE);
        port.marks.written(written);
        if late {
            self.doomed.push((ix, DisconnectReason::Refused(Refusal::SlowConsumer)));
        }
    }

    /// Whether a message is still short enough for another hop; a hub's limit holds for what it sends as well.
    pub(super) fn fits_hop(&self, to: LinkIx, hop: Hop<'_>, bytes: &[u8]) -> bool {
        let head = if self.bridges.is_port(to) { hop.past_len(self.id.as_name()) } else { hop.encoded_len() };
        1 + head + bytes.len() <= self.limits.frame as usize
    }
}

/// Whether a request wants a stream and its provider gives one, or neither.
pub(super) const fn fits_kind(kind: EventKind, flags: Flags) -> Result<(), Refusal> {
    if kind.streams() == flags.has(Flags::STREAM) { Ok(()) } else { Err(Refusal::WrongKind) }
}

/// Whether a message goes to everybody rather than to somebody.
pub(super) const fn is_for_all(kind: Kind) -> bool {
    matches!(kind, Kind::Broadcast | Kind::Beacon)
}
