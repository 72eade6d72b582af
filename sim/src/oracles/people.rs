//! Who is behind the links and names of a hub, as oracles see it: from connections and from the hub's own word.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::{ClientId, Input, LinkId, Output, hub};

use super::Seen;
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::Told;

/// Connections, and who was admitted on them.
#[derive(Debug, Default)]
pub(crate) struct People {
    /// Of each hub's end that stands, the client's node.
    ends: BTreeMap<(NodeId, LinkId), NodeId>,
    /// Of each client, its own end and the hub's end of its latest connection.
    latest: BTreeMap<NodeId, (LinkId, NodeId, LinkId)>,
    admitted: BTreeMap<(NodeId, ClientId), (LinkId, NodeId)>,
    /// One end of their latest connection is over.
    cut_off: BTreeSet<NodeId>,
}

impl People {
    /// Notes what a sight tells. Gives the client that has just lost an end of its latest connection.
    pub(crate) fn saw(&mut self, node: NodeId, sight: &Seen<'_>) -> Option<NodeId> {
        match sight {
            Sight::Linked { link, with, as_link } => {
                self.ends.insert((*with, *as_link), node);
                self.latest.insert(node, (*link, *with, *as_link));
                self.cut_off.remove(&node);
            }
            Sight::Fed(Input::Closed { link, .. }) | Sight::Gave(Output::Close { link, .. }) => {
                return self.lost(node, *link);
            }
            Sight::Gave(Output::Event(Told::Hub(hub::Event::Connected { link, client, .. }))) => {
                if let Some(who) = self.ends.get(&(node, *link)) {
                    self.admitted.insert((node, client.clone()), (*link, *who));
                }
            }
            Sight::Fed(_) | Sight::Gave(_) | Sight::Drained | Sight::Broke(_) => {}
        }
        None
    }

    fn lost(&mut self, node: NodeId, link: LinkId) -> Option<NodeId> {
        let client = match self.ends.remove(&(node, link)) {
            Some(client) => {
                self.latest.get(&client).filter(|latest| (latest.1, latest.2) == (node, link)).map(|_| client)
            }
            None => self.latest.get(&node).filter(|latest| latest.0 == link).map(|_| node),
        };
        client.filter(|client| self.cut_off.insert(*client))
    }

    /// Who is admitted under a name, or was last.
    pub(crate) fn named(&self, hub: NodeId, client: &ClientId) -> Option<NodeId> {
        self.admitted.get(&(hub, client.clone())).map(|(_, node)| *node)
    }

    /// Whether the hub's end of the connection on which a name was admitted is over.
    pub(crate) fn is_over(&self, hub: NodeId, client: &ClientId) -> bool {
        self.admitted.get(&(hub, client.clone())).is_none_or(|(link, _)| !self.ends.contains_key(&(hub, *link)))
    }

    /// The hub's end of a client's latest connection: what is asked now goes there, or nowhere.
    pub(crate) fn end_of(&self, client: NodeId) -> Option<LinkId> {
        self.latest.get(&client).map(|latest| latest.2)
    }

    /// The hub's end of the connection on which a client was admitted last.
    pub(crate) fn admitted_end(&self, hub: NodeId, client: NodeId) -> Option<LinkId> {
        let mut admitted = self.admitted.iter().filter(|((at, _), (_, node))| *at == hub && *node == client);
        admitted.next().map(|(_, (link, _))| *link)
    }

    /// The hub's end of the connection on which a name was admitted.
    pub(crate) fn link_of(&self, hub: NodeId, client: &ClientId) -> Option<LinkId> {
        self.admitted.get(&(hub, client.clone())).map(|(link, _)| *link)
    }

    /// The hub of a client's latest connection.
    pub(crate) fn hub_of(&self, client: NodeId) -> Option<NodeId> {
        self.latest.get(&client).map(|latest| latest.1)
    }

    /// Whether one end of a client's latest connection is over, or it has none.
    pub(crate) fn is_cut_off(&self, client: NodeId) -> bool {
        self.cut_off.contains(&client) || !self.latest.contains_key(&client)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{HUB, connected, hub_link, id};
    use super::*;
    use commipc_protocol::LinkEnd;

    const CLIENT: NodeId = NodeId::new(1);

    #[test]
    fn the_end_of_an_old_connection_is_not_that_of_the_new_one() {
        let (mut people, hub) = (People::default(), NodeId::new(HUB));
        let linked = |as_link| Sight::Linked { link: LinkId::dialled(0, 1), with: hub, as_link };
        people.saw(CLIENT, &linked(hub_link(1)));
        people.saw(hub, &Sight::Gave(&Output::Event(Told::Hub(connected(1)))));
        assert_eq!((people.named(hub, &id(1)), people.is_over(hub, &id(1))), (Some(CLIENT), false));
        people.saw(CLIENT, &linked(hub_link(2)));
        let ends = |link| Input::Closed { link, how: LinkEnd::Reset };
        assert_eq!(people.saw(hub, &Sight::Fed(&ends(hub_link(1)))), None);
        assert!(people.is_over(hub, &id(1)) && !people.is_cut_off(CLIENT));
        assert_eq!(people.saw(hub, &Sight::Fed(&ends(hub_link(2)))), Some(CLIENT));
        assert!(people.is_cut_off(CLIENT));
        assert_eq!(people.saw(CLIENT, &Sight::Fed(&ends(LinkId::dialled(0, 1)))), None, "told once");
    }
}
