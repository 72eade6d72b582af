//! Nobody has influence who has not proved a secret: no client is ready that its hub did not admit, no hub admits who
//! does not hold a secret of it, and nobody acts under a name that was not admitted.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::client::{Event, Welcome};
use commipc_protocol::hub;
use commipc_protocol::{ClientId, Instant, LinkId, Output};

use super::{Oracle, Resident, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::Told;

/// Holds that there is no influence without a proof.
#[derive(Debug, Default)]
pub struct Authentication {
    honest: BTreeSet<NodeId>,
    /// Of each client, the hub's end of its latest connection.
    latest: BTreeMap<NodeId, (NodeId, LinkId)>,
    /// Of each hub's end, the client's node.
    dialled_by: BTreeMap<(NodeId, LinkId), NodeId>,
    /// Who was admitted, at all and now.
    admitted: BTreeMap<(NodeId, LinkId), ClientId>,
    present: BTreeSet<(NodeId, ClientId)>,
}

impl Oracle for Authentication {
    fn name(&self) -> &'static str {
        "authentication"
    }

    fn joined(&mut self, node: NodeId, who: &Resident) {
        if who.honest {
            self.honest.insert(node);
        }
    }

    fn died(&mut self, node: NodeId) {
        self.present.retain(|(hub, _)| *hub != node);
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Linked { with, as_link, .. } => {
                self.latest.insert(node, (*with, *as_link));
                self.dialled_by.insert((*with, *as_link), node);
                Ok(())
            }
            Sight::Gave(Output::Event(Told::Client(Event::Ready(welcome)))) => self.ready(node, welcome),
            Sight::Gave(Output::Event(Told::Hub(event))) => self.claims(node, event),
            Sight::Fed(_) | Sight::Gave(_) | Sight::Drained | Sight::Broke(_) => Ok(()),
        }
    }
}

impl Authentication {
    fn ready(&self, node: NodeId, welcome: &Welcome) -> Verdict {
        let admitted = self.latest.get(&node).and_then(|end| self.admitted.get(end));
        ensure(admitted == Some(&welcome.client), || {
            format!("{node:?} is ready as {:?}, its hub admitted {admitted:?}", welcome.client)
        })
    }

    fn claims(&mut self, hub: NodeId, event: &hub::Event) -> Verdict {
        match event {
            hub::Event::Connected { link, client, .. } => {
                let by = self.dialled_by.get(&(hub, *link));
                ensure(by.is_some_and(|node| self.honest.contains(node)), || {
                    format!("{hub:?} admitted {client:?} on {link:?}, where {by:?} knows no secret")
                })?;
                self.admitted.insert((hub, *link), client.clone());
                let first = self.present.insert((hub, client.clone()));
                ensure(first, || format!("{hub:?} admitted {client:?} twice at a time"))
            }
            hub::Event::Disconnected { link, client, .. } => {
                let admitted = self.admitted.get(&(hub, *link));
                ensure(admitted == Some(client), || {
                    format!("{client:?} is disconnected from {link:?} of {admitted:?}")
                })?;
                let was_there = self.present.remove(&(hub, client.clone()));
                ensure(was_there, || format!("{client:?} is disconnected twice"))
            }
            hub::Event::Rejected { link, .. } => {
                let admitted = self.admitted.get(&(hub, *link));
                ensure(admitted.is_none(), || format!("{admitted:?} was admitted and rejected on {link:?}"))
            }
            hub::Event::Joined { client, .. } | hub::Event::Provided { client, .. } => {
                let present = self.present.contains(&(hub, client.clone()));
                ensure(present, || format!("{event:?} without being connected"))
            }
            hub::Event::OwnerChanged { owner, .. } => {
                let absent = owner.as_ref().is_some_and(|owner| !self.present.contains(&(hub, owner.clone())));
                ensure(!absent, || format!("{event:?} without being connected"))
            }
            hub::Event::Left { .. }
            | hub::Event::Withdrawn { .. }
            | hub::Event::ProtectionChanged { .. }
            | hub::Event::Terminated { .. }
            | hub::Event::Cleared { .. }
            | hub::Event::Looped { .. }
            | hub::Event::BridgeUp { .. }
            | hub::Event::BridgeDown { .. }
            | hub::Event::BridgeFull { .. }
            | hub::Event::ProtectionConflict { .. }
            | hub::Event::Store { .. }
            | hub::Event::SlowConsumer { .. }
            | hub::Event::Draining { .. }
            | hub::Event::Drained { .. }
            | hub::Event::Stopped => Ok(()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Scene, channel, connected, hub_link, id, welcome};
    use super::*;

    fn scene() -> Scene<Authentication> {
        Scene::new(Authentication::default())
    }

    #[test]
    fn a_proved_client_is_fine() {
        let mut scene = scene();
        scene.connects(1).unwrap();
        scene.hub_tells(hub::Event::Joined { channel: channel(), client: id(1) }).unwrap();
        let why = hub::DisconnectReason::Goodbye;
        scene.hub_tells(hub::Event::Disconnected { link: hub_link(1), client: id(1), why }).unwrap();
        assert!(scene.hub_tells(hub::Event::Joined { channel: channel(), client: id(1) }).is_err(), "gone");
    }

    #[test]
    fn bites_on_ready_without_admission() {
        let mut scene = scene();
        scene.links(1).unwrap();
        assert!(scene.tells(1, Event::Ready(welcome(1))).is_err());
        scene.hub_tells(connected(1)).unwrap();
        assert!(scene.tells(1, Event::Ready(welcome(2))).is_err(), "as somebody else");
    }

    #[test]
    fn bites_on_admission_without_a_secret_and_on_two_of_one_name() {
        let mut stranger = scene();
        stranger.links(3).unwrap();
        assert!(stranger.hub_tells(connected(3)).is_err());
        let mut twice = scene();
        twice.connects(1).unwrap();
        assert!(twice.hub_tells(connected(1)).is_err());
    }

    #[test]
    fn bites_on_influence_before_admission() {
        let joined = hub::Event::Joined { channel: channel(), client: id(1) };
        assert!(scene().hub_tells(joined).is_err());
        let owns = hub::Event::OwnerChanged { channel: channel(), owner: Some(id(1)) };
        assert!(scene().hub_tells(owns).is_err());
    }
}
