//! One provider an event: by what the hub claims, and by what clients were confirmed and had not given back.
//!
//! A client holds an event for certain from the confirmation it was told until it asks to give it back, or until either
//! end of its connection is gone. Two certain holders at a time cannot be.

use std::collections::BTreeMap;

use commipc_protocol::client::{Command, Event, Token};
use commipc_protocol::{ChannelName, ClientId, EventName, Input, Instant, LinkId, Output, hub};

use super::{Oracle, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

type Place = (ChannelName, EventName);

/// Holds that an event has one provider at most.
#[derive(Debug, Default)]
pub struct Providers {
    /// By the hub's word.
    claimed: BTreeMap<(NodeId, Place), ClientId>,
    asked: BTreeMap<(NodeId, Token), Place>,
    /// By the clients' confirmations.
    certain: BTreeMap<(NodeId, Token), Place>,
    /// The hub's end of each connection, and the client's node.
    links: BTreeMap<(NodeId, LinkId), NodeId>,
    hub_of: BTreeMap<NodeId, NodeId>,
    /// Confirmed on a connection that the hub no longer has: certain of nothing.
    cut_off: BTreeMap<NodeId, bool>,
}

impl Oracle for Providers {
    fn name(&self) -> &'static str {
        "providers"
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Linked { with, as_link, .. } => {
                self.links.insert((*with, *as_link), node);
                self.hub_of.insert(node, *with);
                self.cut_off.insert(node, false);
            }
            Sight::Fed(Input::Closed { link, .. }) => self.lost(node, *link),
            Sight::Fed(Input::Command(Asked::Client(command))) => self.asks(node, command),
            Sight::Gave(Output::Close { link, .. }) => self.lost(node, *link),
            Sight::Gave(Output::Event(Told::Client(event))) => return self.told(node, event),
            Sight::Gave(Output::Event(Told::Hub(event))) => return self.claims(node, event),
            Sight::Fed(_) | Sight::Gave(_) | Sight::Drained | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

impl Providers {
    /// One end of a connection is gone: nothing that hung on it is certain any more.
    fn lost(&mut self, node: NodeId, link: LinkId) {
        let client = self.links.remove(&(node, link)).unwrap_or(node);
        self.cut_off.insert(client, true);
        self.certain.retain(|(holder, _), _| *holder != client);
    }

    fn asks(&mut self, node: NodeId, command: &Command) {
        match command {
            Command::Provide { token, channel, event, .. } => {
                self.asked.insert((node, *token), (channel.clone(), event.clone()));
            }
            Command::Withdraw { provider, .. } => {
                self.certain.remove(&(node, *provider));
                self.asked.remove(&(node, *provider));
            }
            Command::Leave { channel, .. } => {
                self.certain.retain(|(holder, _), (held, _)| *holder != node || held != channel);
                self.asked.retain(|(asker, _), (asked, _)| *asker != node || asked != channel);
            }
            Command::Close => self.certain.retain(|(holder, _), _| *holder != node),
            Command::Connect
            | Command::KeyDerived(_)
            | Command::Open { .. }
            | Command::Listen { .. }
            | Command::Unlisten { .. }
            | Command::Call { .. }
            | Command::Cancel { .. }
            | Command::Send { .. }
            | Command::Broadcast { .. }
            | Command::Answer { .. } => {}
        }
    }

    fn told(&mut self, node: NodeId, event: &Event) -> Verdict {
        let Event::Done { token, result } = event else { return Ok(()) };
        let Some(place) = self.asked.remove(&(node, *token)) else { return Ok(()) };
        if result.is_err() || self.cut_off.get(&node) == Some(&true) {
            return Ok(());
        }
        let hub = self.hub_of.get(&node);
        let other = self
            .certain
            .iter()
            .find(|((holder, _), held)| **held == place && *holder != node && self.hub_of.get(holder) == hub);
        ensure(other.is_none(), || format!("{node:?} and {other:?} were both confirmed as providers of {place:?}"))?;
        self.certain.insert((node, *token), place);
        Ok(())
    }

    fn claims(&mut self, node: NodeId, event: &hub::Event) -> Verdict {
        match event {
            hub::Event::Provided { channel, event, client } => {
                let before = self.claimed.insert((node, (channel.clone(), event.clone())), client.clone());
                ensure(before.is_none(), || format!("{client:?} and {before:?} both provide {channel}/{event}"))
            }
            hub::Event::Withdrawn { channel, event, client } => {
                let before = self.claimed.remove(&(node, (channel.clone(), event.clone())));
                ensure(before.as_ref() == Some(client), || {
                    format!("{channel}/{event} of {client:?} was withdrawn, but was of {before:?}")
                })
            }
            hub::Event::Disconnected { client, .. } => {
                let left = self.claimed.iter().find(|((hub, _), holder)| *hub == node && *holder == client);
                ensure(left.is_none(), || format!("{client:?} is disconnected and still provides {left:?}"))
            }
            hub::Event::Connected { .. }
            | hub::Event::Rejected { .. }
            | hub::Event::Joined { .. }
            | hub::Event::Left { .. }
            | hub::Event::Stopped => Ok(()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{HUB, Scene, channel, event, hub_link, id};
    use super::*;
    use commipc_protocol::LinkEnd;
    use commipc_protocol::client::EventKind;

    fn confirmed(scene: &mut Scene<Providers>, node: u32, token: u64) -> Verdict {
        let token = Token(token);
        scene.asks(node, Command::Provide { token, channel: channel(), event: event(), kind: EventKind::Call })?;
        scene.tells(node, Event::Done { token, result: Ok(()) })
    }

    fn scene() -> Scene<Providers> {
        let mut scene = Scene::new(Providers::default());
        (1..3).for_each(|node| scene.connects(node).unwrap());
        confirmed(&mut scene, 1, 1).unwrap();
        scene
    }

    #[test]
    fn one_after_the_other_is_fine() {
        let mut withdrawn = scene();
        withdrawn.asks(1, Command::Withdraw { token: Token(2), provider: Token(1) }).unwrap();
        confirmed(&mut withdrawn, 2, 1).unwrap();
        let mut left = scene();
        left.asks(1, Command::Leave { token: Token(2), channel: channel() }).unwrap();
        confirmed(&mut left, 2, 1).unwrap();
        let mut lost = scene();
        lost.fed(HUB, Input::Closed { link: hub_link(1), how: LinkEnd::Reset }).unwrap();
        confirmed(&mut lost, 2, 1).unwrap();
    }

    #[test]
    fn bites_on_two_confirmed_providers() {
        assert!(confirmed(&mut scene(), 2, 1).is_err());
    }

    #[test]
    fn bites_on_what_the_hub_claims() {
        let provided = |node| hub::Event::Provided { channel: channel(), event: event(), client: id(node) };
        let withdrawn = |node| hub::Event::Withdrawn { channel: channel(), event: event(), client: id(node) };
        let mut scene = scene();
        scene.hub_tells(provided(1)).unwrap();
        assert!(scene.hub_tells(provided(2)).is_err());
        assert!(scene.hub_tells(withdrawn(1)).is_err(), "of another client by now");
        let gone = hub::DisconnectReason::Lost;
        assert!(scene.hub_tells(hub::Event::Disconnected { link: hub_link(2), client: id(2), why: gone }).is_ok());
        scene.hub_tells(provided(2)).unwrap();
        assert!(scene.hub_tells(hub::Event::Disconnected { link: hub_link(2), client: id(2), why: gone }).is_err());
    }
}
