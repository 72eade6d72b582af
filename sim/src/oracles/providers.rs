//! One provider an event: by what the hub claims, and by what clients were confirmed and had not given back.
//!
//! A client holds an event for certain from the confirmation it was told until it asks to give it back, until either
//! end of its connection is gone, or until the hub ends memberships of the channel, which it then must say in the same
//! breath. Two certain holders at a time cannot be.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::client::{Command, DrainCommand, Event, Token};
use commipc_protocol::{ChannelName, ClientId, EventName, Input, Instant, Output, hub};

use super::people::People;
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
    /// What every token stood for, whether or not it still does: a channel that is left may be open once more.
    known: BTreeMap<(NodeId, Token), Place>,
    /// By the clients' confirmations.
    certain: BTreeMap<(NodeId, Token), Place>,
    people: People,
    /// What a client asked to give back, by what it asked with.
    giving: BTreeSet<(NodeId, Token, Place)>,
    /// How many gave things back by a drain, which nobody asks with a token.
    drains: u64,
    /// Asked for before it was taken away, so that a confirmation may be older than that.
    stale: BTreeSet<(NodeId, Token)>,
    /// Taken by the end of a channel that the client has not been told of: it may still confirm that to itself.
    untold: BTreeSet<(NodeId, Place)>,
    /// Taken from somebody who did not give it back, since the hub's outputs were drained.
    taken: BTreeSet<(NodeId, Place)>,
}

impl Oracle for Providers {
    fn name(&self) -> &'static str {
        "providers"
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        if let Some(lost) = self.people.saw(node, sight) {
            self.forget(lost, |_| true);
        }
        match sight {
            Sight::Fed(Input::Command(Asked::Client(command))) => self.asks(node, command),
            Sight::Gave(Output::Event(Told::Client(event))) => return self.told(node, event),
            Sight::Gave(Output::Event(Told::Hub(event))) => return self.claims(node, event),
            Sight::Drained => return self.drained(node),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

impl Providers {
    /// Nothing that a client holds is certain any more.
    fn forget(&mut self, client: NodeId, which: impl Fn(&Place) -> bool) {
        self.certain.retain(|(holder, _), held| *holder != client || !which(held));
    }

    fn asks(&mut self, node: NodeId, command: &Command) {
        match command {
            Command::Provide { token, channel, event, .. } => {
                let place = (channel.clone(), event.clone());
                // The older one stands for nothing any more, whether it was confirmed or not.
                self.certain.retain(|(holder, _), held| *holder != node || *held != place);
                self.asked.retain(|(holder, _), held| *holder != node || *held != place);
                self.asked.insert((node, *token), place.clone());
                self.known.insert((node, *token), place);
            }
            Command::Withdraw { token, provider } => {
                let key = (node, *provider);
                self.certain.remove(&key);
                self.asked.remove(&key);
                self.giving.extend(self.known.get(&key).map(|place| (node, *token, place.clone())));
            }
            Command::Leave { token, channel } => {
                let here = |(holder, _): &(NodeId, Token), (held, _): &Place| *holder == node && held == channel;
                let given = self.known.iter().filter(|(key, place)| here(key, place));
                self.giving.extend(given.map(|(_, place)| (node, *token, place.clone())));
                self.forget(node, |(held, _)| held == channel);
                self.asked.retain(|key, place| !here(key, place));
            }
            Command::Close => self.forget(node, |_| true),
            Command::Drain(DrainCommand::Client { .. }) => self.gives_back(node, |_| true),
            Command::Drain(DrainCommand::Provider { provider, .. }) => {
                self.gives_back(node, |token| token == *provider)
            }
            Command::Drain(DrainCommand::Finished) => {}
            Command::Connect
            | Command::KeyDerived(_)
            | Command::Stream(_)
            | Command::SetSecret(_)
            | Command::SetOwnerKey(_)
            | Command::Open { .. }
            | Command::ChannelKeyDerived { .. }
            | Command::ChannelKeyFailed { .. }
            | Command::Protect { .. }
            | Command::Unprotect { .. }
            | Command::Reclaim { .. }
            | Command::Terminate { .. }
            | Command::Listen { .. }
            | Command::Unlisten { .. }
            | Command::Call { .. }
            | Command::Cancel { .. }
            | Command::Send { .. }
            | Command::Broadcast { .. }
            | Command::Answer { .. } => {}
        }
    }

    /// A drain gives back what it concerns, and nobody is told when that is done.
    fn gives_back(&mut self, node: NodeId, which: impl Fn(Token) -> bool) {
        let here = |(holder, token): &(NodeId, Token)| *holder == node && which(*token);
        let given = self.known.iter().filter(|(key, _)| here(key));
        // Each drain gives back once more what was provided again meanwhile.
        let untold = Token(u64::MAX - self.drains);
        self.drains += 1;
        self.giving.extend(given.map(|(_, place)| (node, untold, place.clone())));
        self.certain.retain(|key, _| !here(key));
        self.asked.retain(|key, _| !here(key));
    }

    fn told(&mut self, node: NodeId, event: &Event) -> Verdict {
        if let Event::ChannelClosed { channel, .. } = event {
            self.forget(node, |(held, _)| held == channel);
            self.untold.retain(|(holder, (held, _))| *holder != node || held != channel);
        }
        if let Event::Closed(_) = event {
            self.untold.retain(|(holder, _)| *holder != node);
        }
        let Event::Done { token, result } = event else { return Ok(()) };
        self.giving.retain(|(giver, asked, _)| (*giver, *asked) != (node, *token));
        let Some(place) = self.asked.remove(&(node, *token)) else { return Ok(()) };
        let stale = self.stale.remove(&(node, *token)) || self.untold.contains(&(node, place.clone()));
        if result.is_err() || stale || self.people.is_cut_off(node) {
            return Ok(());
        }
        let people = &self.people;
        let mut held = self.certain.iter().filter(|(_, held)| **held == place);
        let other = held.find(|((holder, _), _)| *holder != node && people.hub_of(*holder) == people.hub_of(node));
        ensure(other.is_none(), || format!("{node:?} and {other:?} were both confirmed as providers of {place:?}"))?;
        // Who provides it once more has replaced itself.
        self.certain.retain(|(holder, _), held| *holder != node || *held != place);
        self.certain.insert((node, *token), place);
        Ok(())
    }

    fn claims(&mut self, node: NodeId, event: &hub::Event) -> Verdict {
        match event {
            hub::Event::Provided { channel, event, client, kind: _ } => {
                let before = self.claimed.insert((node, (channel.clone(), event.clone())), client.clone());
                // Who provides it in another way than before has replaced itself.
                let other = before.filter(|before| before != client);
                ensure(other.is_none(), || format!("{client:?} and {other:?} both provide {channel}/{event}"))
            }
            hub::Event::Withdrawn { channel, event, client } => {
                let place = (channel.clone(), event.clone());
                let before = self.claimed.remove(&(node, place.clone()));
                self.withdrawn(node, client, place);
                ensure(before.as_ref() == Some(client), || {
                    format!("{channel}/{event} of {client:?} was withdrawn, but was of {before:?}")
                })
            }
            hub::Event::Disconnected { client, .. } => {
                let left = self.claimed.iter().find(|((hub, _), holder)| *hub == node && *holder == client);
                ensure(left.is_none(), || format!("{client:?} is disconnected and still provides {left:?}"))
            }
            hub::Event::Terminated { channel } | hub::Event::ProtectionChanged { channel, .. } => {
                // Which of them may end memberships, and when, is for those to judge who know the owners.
                self.taken.retain(|(hub, (taken, _))| *hub != node || taken != channel);
                Ok(())
            }
            hub::Event::Connected { .. }
            | hub::Event::Rejected { .. }
            | hub::Event::Joined { .. }
            | hub::Event::Left { .. }
            | hub::Event::OwnerChanged { .. }
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

    /// The hub says that somebody provides no longer, who may not have asked for it.
    fn withdrawn(&mut self, hub: NodeId, client: &ClientId, place: Place) {
        let Some(who) = self.people.named(hub, client) else { return };
        if let Some(given) = self.giving.iter().find(|(giver, _, given)| *giver == who && *given == place).cloned() {
            self.giving.remove(&given);
            return;
        }
        self.untold.insert((who, place.clone()));
        let held = self.certain.len();
        self.certain.retain(|(holder, _), held| *holder != who || *held != place);
        let asked = self.asked.iter().filter(|((asker, _), asked)| *asker == who && **asked == place);
        let asked: Vec<_> = asked.map(|(key, _)| *key).collect();
        let stale = !asked.is_empty() && !self.people.is_cut_off(who);
        if stale {
            self.stale.extend(asked);
        }
        if stale || self.certain.len() < held {
            self.taken.insert((hub, place));
        }
    }

    fn drained(&mut self, node: NodeId) -> Verdict {
        let taken = self.taken.iter().find(|(hub, _)| *hub == node).cloned();
        self.taken.retain(|(hub, _)| *hub != node);
        ensure(taken.is_none(), || format!("{taken:?} was taken from its provider, and the channel did not end"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{HUB, Scene, channel, event, hub_link, id};
    use super::*;
    use commipc_protocol::LinkEnd;
    use commipc_protocol::client::EventKind;

    fn asks(scene: &mut Scene<Providers>, node: u32, token: u64) -> Verdict {
        let token = Token(token);
        scene.asks(node, Command::Provide { token, channel: channel(), event: event(), kind: EventKind::Call })
    }

    fn confirmed(scene: &mut Scene<Providers>, node: u32, token: u64) -> Verdict {
        asks(scene, node, token)?;
        scene.tells(node, Event::Done { token: Token(token), result: Ok(()) })
    }

    fn scene() -> Scene<Providers> {
        let mut scene = Scene::new(Providers::default());
        (1..3).for_each(|node| scene.connects(node).unwrap());
        confirmed(&mut scene, 1, 1).unwrap();
        scene
    }

    fn provided(node: u32) -> hub::Event {
        hub::Event::Provided { channel: channel(), event: event(), client: id(node), kind: EventKind::Call }
    }

    fn withdrawn(node: u32) -> hub::Event {
        hub::Event::Withdrawn { channel: channel(), event: event(), client: id(node) }
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
    fn s35_who_provides_again_and_gives_that_back_holds_nothing() {
        let mut again = scene();
        confirmed(&mut again, 1, 2).unwrap();
        assert!(confirmed(&mut again, 2, 1).is_err(), "it provides still");
        let mut back = scene();
        confirmed(&mut back, 1, 2).unwrap();
        back.asks(1, Command::Withdraw { token: Token(3), provider: Token(2) }).unwrap();
        confirmed(&mut back, 2, 1).unwrap();
    }

    #[test]
    fn s20_a_channel_that_ends_frees_its_events() {
        let ends = |scene: &mut Scene<Providers>| {
            scene.hub_tells(provided(1)).unwrap();
            scene.hub_tells(withdrawn(1)).unwrap();
            scene.hub_tells(hub::Event::Terminated { channel: channel() }).unwrap();
            scene.drained(HUB).unwrap();
        };
        let mut told = scene();
        ends(&mut told);
        confirmed(&mut told, 2, 1).unwrap();
        // The confirmation was on its way when the channel ended.
        let mut late = Scene::new(Providers::default());
        (1..3).for_each(|node| late.connects(node).unwrap());
        asks(&mut late, 1, 1).unwrap();
        ends(&mut late);
        confirmed(&mut late, 2, 1).unwrap();
        late.tells(1, Event::Done { token: Token(1), result: Ok(()) }).unwrap();
    }

    #[test]
    fn who_provides_an_event_twice_loses_it_once() {
        let mut scene = scene();
        scene.hub_tells(provided(1)).unwrap();
        confirmed(&mut scene, 1, 2).unwrap();
        asks(&mut scene, 1, 3).unwrap();
        scene.hub_tells(withdrawn(1)).unwrap();
        scene.hub_tells(hub::Event::Terminated { channel: channel() }).unwrap();
        scene.tells(1, Event::Done { token: Token(3), result: Ok(()) }).unwrap();
        confirmed(&mut scene, 2, 1).unwrap();
    }

    #[test]
    fn bites_on_an_event_that_is_taken_away_without_a_reason() {
        let mut scene = scene();
        scene.hub_tells(provided(1)).unwrap();
        scene.hub_tells(withdrawn(1)).unwrap();
        assert!(scene.drained(HUB).is_err());
    }

    #[test]
    fn bites_on_two_confirmed_providers() {
        assert!(confirmed(&mut scene(), 2, 1).is_err());
    }

    #[test]
    fn bites_on_what_the_hub_claims() {
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
