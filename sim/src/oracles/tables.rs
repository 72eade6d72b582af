//! Nothing grows beyond its limit: what a machine holds is looked at again and again while the world goes on, and what a
//! hub tells of members and providers is counted.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::{ChannelName, ClientId, EventName, Instant, Limits, Output, hub};

use super::{Census, Oracle, Resident, Seen, Verdict, ensure, is_hubs_own};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::Told;

/// Holds that tables stay within limits.
#[derive(Debug, Default)]
pub struct Tables {
    hubs: BTreeMap<NodeId, Limits>,
    clients: BTreeMap<NodeId, Limits>,
    members: BTreeSet<(NodeId, ChannelName, ClientId)>,
    providers: BTreeMap<(NodeId, ChannelName, EventName), ClientId>,
}

/// What any stream may have on its way, in bytes, however many there are: two pieces and what they cost.
const WINDOW_MIN: usize = 2 * ((8 << 10) + 256);
/// Links that are over and whose last bytes are still with the driver.
const CLOSING: usize = 64;

impl Oracle for Tables {
    fn name(&self) -> &'static str {
        "tables"
    }

    fn joined(&mut self, node: NodeId, who: &Resident) {
        let kind = if who.policy.is_some() { &mut self.hubs } else { &mut self.clients };
        kind.extend(who.limits.clone().map(|limits| (node, limits)));
    }

    fn died(&mut self, node: NodeId) {
        self.members.retain(|(hub, ..)| *hub != node);
        self.providers.retain(|(hub, ..), _| *hub != node);
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Gave(Output::Event(Told::Hub(event))) => self.counts(node, event),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Drained | Sight::Broke(_) => Ok(()),
        }
    }

    fn holds(&mut self, node: NodeId, census: &Census) -> Verdict {
        let of = |what: &str| census.0.iter().find(|(held, _)| *held == what).map_or(0, |(_, count)| *count);
        let most = match (self.hubs.get(&node), self.clients.get(&node)) {
            (Some(limits), _) => of_hub(limits, of("links"), of("clients")),
            (None, Some(limits)) => of_client(limits, of("streams")),
            (None, None) => return Ok(()),
        };
        let over = most.into_iter().find(|(what, most)| of(what) > *most);
        ensure(over.is_none(), || format!("{node:?} may hold {over:?} and holds {:?}", census.0))
    }
}

impl Tables {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only what fills tables matters here")]
    fn counts(&mut self, hub: NodeId, event: &hub::Event) -> Verdict {
        let Some(limits) = self.hubs.get(&hub) else { return Ok(()) };
        match event {
            hub::Event::Joined { channel, client } if !is_hubs_own(channel) => {
                self.members.insert((hub, channel.clone(), client.clone()));
                let here = self.members.iter().filter(|member| member.0 == hub);
                let (members, channels) = here.fold((0, 0), |(members, channels), (_, in_it, who)| {
                    (members + usize::from(in_it == channel), channels + usize::from(who == client))
                });
                ensure(members <= limits.members, || format!("{channel} has {members} members"))?;
                ensure(channels <= limits.channels, || format!("{client} is a member of {channels} channels"))
            }
            hub::Event::Left { channel, client } => {
                self.members.remove(&(hub, channel.clone(), client.clone()));
                Ok(())
            }
            hub::Event::Provided { channel, event, client, .. } => {
                self.providers.insert((hub, channel.clone(), event.clone()), client.clone());
                let provided = self.providers.iter().filter(|((at, ..), who)| *at == hub && *who == client).count();
                ensure(provided <= limits.providers, || format!("{client} provides {provided} events"))
            }
            hub::Event::Withdrawn { channel, event, client } => {
                let place = (hub, channel.clone(), event.clone());
                if self.providers.get(&place) == Some(client) {
                    self.providers.remove(&place);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn of_client(limits: &Limits, open: usize) -> Vec<(&'static str, usize)> {
    let Limits { pending_calls, streams, parked, outbox, in_flight, .. } = *limits;
    // Answers may fill an outbox twice before the link ends.
    let unwritten = outbox.saturating_mul(2).saturating_add(in_flight);
    vec![
        ("calls", pending_calls),
        ("streams", streams),
        ("parked", parked),
        ("parked bytes", outbox),
        ("windows", (outbox / 4).saturating_add(open.saturating_mul(WINDOW_MIN))),
        ("unwritten", unwritten),
    ]
}

fn of_hub(limits: &Limits, links: usize, clients: usize) -> Vec<(&'static str, usize)> {
    let Limits { connections, unauthenticated, pending_calls, streams, joins, outbox, in_flight, frame, .. } = *limits;
    let frame = usize::try_from(frame).unwrap_or(usize::MAX);
    // Bridges are clients with limits of their own.
    let calls = pending_calls.max(limits.bridge_calls.min(clients.saturating_mul(pending_calls)));
    // In part, waiting and with the driver.
    let buffered = outbox.saturating_add(in_flight).saturating_add(2 * frame);
    vec![
        // As many again may wait to be told that they failed.
        ("links", connections.min(clients.saturating_add(unauthenticated.saturating_mul(2)))),
        ("clients", links),
        ("calls", clients.saturating_mul(calls)),
        ("streams", clients.saturating_mul(streams)),
        ("joins", clients.saturating_mul(joins)),
        ("buffered", links.saturating_add(CLOSING).saturating_mul(buffered)),
        ("memory", limits.memory.saturating_add(buffered)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::scene::{HUB, channel, id};
    use super::*;
    use commipc_protocol::OwnerPolicy;

    fn scene() -> Tables {
        let mut tables = Tables::default();
        let mut limits = Limits::default();
        (limits.connections, limits.pending_calls, limits.members) = (2, 3, 1);
        for node in 0..3 {
            let policy = (node == HUB).then(OwnerPolicy::default);
            let limits = Some(limits.clone());
            let who = Resident { id: policy.is_none().then(|| id(node)), honest: true, admin: false, policy, limits };
            tables.joined(NodeId::new(node), &who);
        }
        tables
    }

    #[test]
    fn bites_on_a_table_that_grows_beyond_its_limit() {
        let (client, hub) = (NodeId::new(1), NodeId::new(HUB));
        scene().holds(client, &Census(vec![("calls", 3)])).unwrap();
        assert!(scene().holds(client, &Census(vec![("calls", 4)])).is_err());
        scene().holds(hub, &Census(vec![("links", 2), ("clients", 2), ("calls", 6)])).unwrap();
        assert!(scene().holds(hub, &Census(vec![("links", 3), ("clients", 2)])).is_err());
        assert!(scene().holds(hub, &Census(vec![("links", 1), ("clients", 1), ("joins", 65)])).is_err());
        scene().holds(NodeId::new(9), &Census(vec![("calls", 4)])).unwrap();
    }

    #[test]
    fn bites_on_a_member_too_many() {
        let hub = NodeId::new(HUB);
        let joined = |node| hub::Event::Joined { channel: channel(), client: id(node) };
        let mut tables = scene();
        tables.counts(hub, &joined(1)).unwrap();
        assert!(tables.counts(hub, &joined(2)).is_err());
        let mut tables = scene();
        tables.counts(hub, &joined(1)).unwrap();
        tables.counts(hub, &hub::Event::Left { channel: channel(), client: id(1) }).unwrap();
        tables.counts(hub, &joined(2)).unwrap();
    }
}
