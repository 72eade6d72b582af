//! Broadcasts and sends: what a listener hears from one sender on one channel is a subsequence of what that sender
//! said there. So nothing comes twice, nothing comes before what was said earlier, and nothing comes that nobody said.

use std::collections::BTreeMap;

use commipc_protocol::client::{Command, Event, Message, Token};
use commipc_protocol::{ChannelName, ClientId, EventName, Input, Instant, Output};

use super::{Content, Oracle, Resident, SYSTEM, Seen, Verdict, ensure, is_hubs_own};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds at most one delivery of each message to each member, never to its sender, in the sender's order.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// The ids clients ask for: a hub gives no other.
    ids: BTreeMap<NodeId, ClientId>,
    /// Only what is said of one event has an order: ways may change.
    by_event: bool,
    broadcasts: BTreeMap<(ClientId, Line), Vec<Content>>,
    sends: BTreeMap<(ClientId, ChannelName), Vec<(Content, bool)>>,
    takers: BTreeMap<(NodeId, Token), Taker>,
    /// How far each listener has come in what a sender said on a channel.
    heard: BTreeMap<(NodeId, Token, ClientId, Line), usize>,
    /// The last number a listener saw of a sender and event.
    numbers: BTreeMap<(NodeId, Token, ClientId, EventName), u64>,
    /// The same for what the hub itself tells.
    hub_numbers: BTreeMap<((NodeId, Token), EventName), u64>,
}

/// What has an order: all that is said on a channel, or what is said there of an event.
type Line = (ChannelName, Option<EventName>);

/// Who asked for messages: a listener, or a provider that takes sends.
#[derive(Debug)]
struct Taker {
    channel: ChannelName,
    event: Option<EventName>,
    provides: bool,
    /// Its end was confirmed.
    over: bool,
}

impl Oracle for Deliveries {
    fn name(&self) -> &'static str {
        "deliveries"
    }

    fn joined(&mut self, node: NodeId, who: &Resident) {
        self.ids.extend(who.id.clone().map(|id| (node, id)));
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Fed(Input::Command(Asked::Client(command))) => self.asked(node, command),
            Sight::Gave(Output::Event(Told::Client(event))) => return self.told(node, event),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Drained | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

impl Deliveries {
    /// The same between hubs, where what is said on a channel comes on one way and on another, each event in its order.
    #[must_use]
    pub fn over_bridges() -> Self {
        Self { by_event: true, ..Self::default() }
    }

    fn line(&self, channel: &ChannelName, event: &EventName) -> Line {
        (channel.clone(), self.by_event.then(|| event.clone()))
    }

    fn asked(&mut self, node: NodeId, command: &Command) {
        let taker = |channel: &ChannelName, event: Option<&EventName>, provides| Taker {
            channel: channel.clone(),
            event: event.cloned(),
            provides,
            over: false,
        };
        match command {
            Command::Listen { token, channel, event } => {
                self.takers.insert((node, *token), taker(channel, event.as_ref(), false));
            }
            Command::Provide { token, channel, event, .. } => {
                self.takers.insert((node, *token), taker(channel, Some(event), true));
            }
            Command::Broadcast { outgoing, .. } => {
                let line = self.line(&outgoing.channel, &outgoing.event);
                if let Some(id) = self.ids.get(&node) {
                    let said = self.broadcasts.entry((id.clone(), line)).or_default();
                    said.push(Content::said(outgoing));
                }
            }
            Command::Send { outgoing, .. } => {
                if let Some(id) = self.ids.get(&node) {
                    let said = self.sends.entry((id.clone(), outgoing.channel.clone())).or_default();
                    said.push((Content::said(outgoing), false));
                }
            }
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
            | Command::Leave { .. }
            | Command::Withdraw { .. }
            | Command::Unlisten { .. }
            | Command::Call { .. }
            | Command::Cancel { .. }
            | Command::Answer { .. }
            | Command::Drain(_)
            | Command::Close => {}
        }
    }

    fn told(&mut self, node: NodeId, event: &Event) -> Verdict {
        match event {
            Event::Closed(_) => {
                // What a new connection listens to has new tokens.
                self.takers
                    .range_mut((node, Token(0))..=(node, Token(u64::MAX)))
                    .for_each(|(_, taker)| taker.over = true);
                Ok(())
            }
            Event::ChannelClosed { channel, .. } => {
                let own = self.takers.range_mut((node, Token(0))..=(node, Token(u64::MAX)));
                own.filter(|(_, taker)| taker.channel == *channel).for_each(|(_, taker)| taker.over = true);
                Ok(())
            }
            Event::Done { token, result: Err(_) } => {
                self.takers.remove(&(node, *token));
                Ok(())
            }
            Event::Message(message) => self.delivered(node, message),
            Event::DeriveKey { .. }
            | Event::Stream(_)
            | Event::Reconnect(_)
            | Event::DeriveChannelKey { .. }
            | Event::OwnerChanged { .. }
            | Event::PasswordChanged { .. }
            | Event::Gap(_)
            | Event::Draining { .. }
            | Event::Ready(_)
            | Event::Done { .. }
            | Event::Sent { .. }
            | Event::Answered { .. }
            | Event::Request(_)
            | Event::RequestEnded { .. }
            | Event::Violation(_)
            | Event::Dropped(_) => Ok(()),
        }
    }

    fn delivered(&mut self, node: NodeId, message: &Message) -> Verdict {
        let (to, heard) = (message.to, &message.message);
        let sender = &heard.sender.client;
        let Some(taker) = self.takers.get(&(node, to)) else {
            return Err(format!("{node:?} heard a message for {to:?}, which asked for none"));
        };
        let fits = taker.channel == heard.channel && taker.event.as_ref().is_none_or(|event| *event == heard.event);
        ensure(fits && !taker.over, || format!("{node:?} heard {heard:?} for {to:?}, which is {taker:?}"))?;
        if is_hubs_own(&heard.channel) {
            return self.told_by_hub((node, to), sender.as_str(), &heard.event, message.number);
        }
        if taker.provides {
            return self.sent(node, message);
        }
        ensure(self.ids.get(&node) != Some(sender), || format!("{node:?} heard its own broadcast {heard:?}"))?;
        let (content, line) = (Content::heard(heard), self.line(&heard.channel, &heard.event));
        let place = self.heard.entry((node, to, sender.clone(), line.clone())).or_default();
        let said = self.broadcasts.get(&(sender.clone(), line)).map_or(&[][..], Vec::as_slice);
        let ahead = said.get(*place..).unwrap_or_default().iter().position(|said| *said == content);
        let Some(ahead) = ahead else {
            return Err(format!("{node:?} heard twice, out of order or unsaid: {heard:?} for {to:?}"));
        };
        *place += ahead + 1;
        self.numbered(node, message)
    }

    /// On its own channels the hub speaks, and nobody else.
    fn told_by_hub(&mut self, to: (NodeId, Token), sender: &str, event: &EventName, number: u64) -> Verdict {
        ensure(sender == SYSTEM, || format!("{to:?} heard {sender} say {event:?} on the hub's own channel"))?;
        let before = self.hub_numbers.insert((to, event.clone()), number);
        ensure(before.is_none_or(|before| before < number), || {
            format!("{to:?} heard the hub's {event:?} number {number} after {before:?}")
        })
    }

    fn numbered(&mut self, node: NodeId, message: &Message) -> Verdict {
        let key = (node, message.to, message.message.sender.client.clone(), message.message.event.clone());
        let before = self.numbers.insert(key, message.number);
        // Clients that share an id come one after the other, and each counts from 1.
        let shared = self.ids.values().filter(|id| **id == message.message.sender.client).count() > 1;
        ensure(shared || before != Some(message.number), || {
            format!("{node:?} heard number {before:?} again: {message:?}")
        })
    }

    /// A send reaches one provider once, whoever provides when.
    fn sent(&mut self, node: NodeId, message: &Message) -> Verdict {
        let heard = &message.message;
        let content = Content::heard(heard);
        let key = (heard.sender.client.clone(), heard.channel.clone());
        let said =
            self.sends.get_mut(&key).and_then(|said| said.iter_mut().find(|(said, taken)| *said == content && !taken));
        match said {
            Some((_, taken)) => *taken = true,
            None => return Err(format!("{node:?} was sent what nobody sent, or twice: {heard:?}")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Scene, broadcast, channel, event, incoming, message, outgoing};
    use super::*;
    use commipc_protocol::Refusal;
    use commipc_protocol::client::{EventKind, Failure};

    fn scene() -> Scene<Deliveries> {
        let mut scene = Scene::new(Deliveries::default());
        (1..3).for_each(|node| scene.connects(node).unwrap());
        scene.asks(2, Command::Listen { token: Token(9), channel: channel(), event: None }).unwrap();
        scene.asks(1, Command::Listen { token: Token(8), channel: channel(), event: None }).unwrap();
        for (token, text) in [(1, "a"), (2, "b"), (3, "c")] {
            scene.asks(1, broadcast(token, text)).unwrap();
        }
        scene
    }

    #[test]
    fn a_subsequence_is_fine() {
        let mut scene = scene();
        scene.tells(2, message(9, 1, "a", 0)).unwrap();
        scene.tells(2, message(9, 1, "c", 2)).unwrap();
    }

    #[test]
    fn bites_on_twice_out_of_order_unsaid_and_own() {
        let mut twice = scene();
        twice.tells(2, message(9, 1, "b", 1)).unwrap();
        assert!(twice.tells(2, message(9, 1, "b", 1)).is_err());
        assert!(twice.tells(2, message(9, 1, "a", 0)).is_err(), "said earlier");
        assert!(scene().tells(2, message(9, 1, "z", 0)).is_err(), "never said");
        let mut counted = scene();
        counted.tells(2, message(9, 1, "a", 5)).unwrap();
        assert!(counted.tells(2, message(9, 1, "b", 5)).is_err(), "another with the same number");
        assert!(scene().tells(1, message(8, 1, "a", 0)).is_err(), "to its sender");
        assert!(scene().tells(2, message(7, 1, "a", 0)).is_err(), "no such listener");
    }

    #[test]
    fn between_hubs_events_overtake_each_other_and_nothing_comes_twice() {
        let mut scene = Scene::new(Deliveries::over_bridges());
        (1..3).for_each(|node| scene.connects(node).unwrap());
        scene.asks(2, Command::Listen { token: Token(9), channel: channel(), event: None }).unwrap();
        let other = |token| Command::Broadcast {
            token: Token(token),
            outgoing: commipc_protocol::client::Outgoing { event: EventName::new("other").unwrap(), ..outgoing("a") },
        };
        scene.asks(1, other(1)).unwrap();
        scene.asks(1, broadcast(2, "b")).unwrap();
        scene.asks(1, broadcast(3, "c")).unwrap();
        scene.tells(2, message(9, 1, "b", 1)).unwrap();
        let mut late = incoming(1, "a");
        std::sync::Arc::make_mut(&mut late.source).event = EventName::new("other").unwrap();
        let mut hears =
            |number| scene.tells(2, Event::Message(Message { to: Token(9), message: late.clone(), number }));
        hears(1).unwrap();
        assert!(hears(2).is_err(), "twice");
        scene.tells(2, message(9, 1, "c", 2)).unwrap();
        assert!(scene.tells(2, message(9, 1, "b", 3)).is_err(), "of one event, what was said earlier");
    }

    #[test]
    fn s20_bites_on_what_is_heard_after_the_channel_has_ended() {
        let mut scene = scene();
        let why = Failure::Refused(Refusal::Terminated);
        let other = ChannelName::new("other").unwrap();
        scene.tells(2, Event::ChannelClosed { channel: other, why }).unwrap();
        scene.tells(2, message(9, 1, "a", 0)).unwrap();
        scene.tells(2, Event::ChannelClosed { channel: channel(), why }).unwrap();
        assert!(scene.tells(2, message(9, 1, "b", 1)).is_err());
    }

    #[test]
    fn v33_bites_on_a_forged_system_event_and_on_one_heard_again() {
        let mut forged = incoming(1, "s");
        std::sync::Arc::make_mut(&mut forged.source).channel = ChannelName::new("__comm_ipc_logs").unwrap();
        let mut scene = Scene::new(Deliveries::default());
        let listen = Command::Listen { token: Token(9), channel: forged.channel.clone(), event: None };
        scene.asks(2, listen).unwrap();
        assert!(scene.tells(2, Event::Message(Message { to: Token(9), message: forged, number: 1 })).is_err());
        let mut heard = |number| scene.0.told_by_hub((NodeId::new(2), Token(9)), "system", &event(), number);
        heard(1).unwrap();
        heard(3).unwrap();
        assert!(heard(3).is_err(), "twice");
    }

    #[test]
    fn bites_on_a_send_delivered_twice() {
        let mut scene = scene();
        let provide = Command::Provide { token: Token(7), channel: channel(), event: event(), kind: EventKind::Call };
        scene.asks(2, provide).unwrap();
        scene.asks(1, Command::Send { token: Token(4), outgoing: outgoing("s") }).unwrap();
        scene.tells(2, message(7, 1, "s", 0)).unwrap();
        assert!(scene.tells(2, message(7, 1, "s", 0)).is_err());
    }
}
