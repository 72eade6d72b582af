//! The hub as sets and lists: what it does to whom, and nothing of how.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

pub(crate) const CLIENTS: usize = 4;
pub(crate) const CHANNELS: usize = 2;
pub(crate) const EVENTS: usize = 2;

/// What a client is told to do, or what befalls it. Channels and events are numbers.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Connect { client: usize },
    Drop { client: usize },
    Open { client: usize, channel: usize, with: Key },
    Leave { client: usize, channel: usize },
    Protect { client: usize, channel: usize },
    Reclaim { client: usize, channel: usize },
    Provide { client: usize, channel: usize, event: usize },
    Withdraw { client: usize, channel: usize, event: usize },
    Listen { client: usize, channel: usize, event: Option<usize> },
    Unlisten { client: usize, channel: usize, event: Option<usize> },
    Call { client: usize, channel: usize, event: usize },
    Broadcast { client: usize, channel: usize, event: usize },
}

/// What a channel is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Nothing,
    Right,
    Wrong,
}

/// What came of an act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) done: bool,
    /// Who answered a call.
    pub(crate) answered_by: Option<usize>,
    /// Who heard a broadcast, once for each of its listeners.
    pub(crate) heard_by: Vec<usize>,
    /// Whose membership the hub has ended.
    pub(crate) put_out: BTreeSet<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Hub {
    connected: BTreeSet<usize>,
    channels: BTreeMap<usize, Channel>,
    /// What outlives the members of a protected channel: its password, and who owned it last.
    records: BTreeMap<usize, Record>,
    /// Passwords are numbers, and none is used twice.
    pub(crate) passwords: u8,
    pub(crate) last: Outcome,
    /// What the channel was opened with last.
    pub(crate) tried: Option<u8>,
    /// Wrong passwords so far: more than [`WRONG_MAX`] are answered later, and time stands still here.
    wrong: usize,
}

const WRONG_MAX: usize = 4;

#[derive(Clone, Debug, Default)]
struct Channel {
    /// In the order of their joins.
    members: Vec<usize>,
    owner: Option<usize>,
    providers: BTreeMap<usize, usize>,
    listeners: BTreeSet<(usize, Option<usize>)>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    password: u8,
    owner: usize,
}

/// A channel as others see it: members, owner, and who provides which event.
pub(crate) type View = BTreeMap<usize, (BTreeSet<usize>, Option<usize>, BTreeMap<usize, usize>)>;

impl Hub {
    pub(crate) fn view(&self) -> View {
        let view =
            |channel: &Channel| (channel.members.iter().copied().collect(), channel.owner, channel.providers.clone());
        self.channels.iter().map(|(name, channel)| (*name, view(channel))).collect()
    }

    /// The password that a key stands for.
    fn password(&self, channel: usize, with: Key) -> Option<u8> {
        let right = self.records.get(&channel).map_or(200, |record| record.password);
        match with {
            Key::Nothing => None,
            Key::Right => Some(right),
            Key::Wrong => Some(201),
        }
    }

    fn is_member(&self, client: usize, channel: usize) -> bool {
        self.channels.get(&channel).is_some_and(|channel| channel.members.contains(&client))
    }

    /// On channels without a password whoever is connected may speak; on others members.
    fn may_speak(&self, client: usize, channel: usize) -> bool {
        !self.records.contains_key(&channel) || self.is_member(client, channel)
    }

    fn open(&mut self, client: usize, channel: usize, with: Key) -> bool {
        let record = self.records.get(&channel).copied();
        let fits = if record.is_some() { with == Key::Right } else { with == Key::Nothing };
        if !fits {
            return false;
        }
        let known = self.channels.entry(channel).or_default();
        if known.members.is_empty() && record.is_none() {
            known.owner = Some(client);
        }
        known.members.push(client);
        true
    }

    /// A client is no member any more, because it wants that or because its link is gone.
    fn go(&mut self, client: usize, name: usize, wants: bool) -> bool {
        let Some(channel) = self.channels.get_mut(&name) else { return false };
        if channel.owner == Some(client) {
            self.last.put_out.extend(channel.members.iter().copied().filter(|member| *member != client));
            self.channels.remove(&name);
            if wants {
                self.records.remove(&name);
            }
            return true;
        }
        channel.put_out(client);
        if channel.members.is_empty() {
            self.channels.remove(&name);
        }
        true
    }

    fn protect(&mut self, client: usize, name: usize) -> bool {
        self.passwords += 1;
        let Some(channel) = self.channels.get_mut(&name).filter(|channel| channel.owner == Some(client)) else {
            return false;
        };
        self.records.insert(name, Record { password: self.passwords, owner: client });
        let others: Vec<usize> = channel.members.iter().copied().filter(|member| *member != client).collect();
        others.iter().for_each(|other| channel.put_out(*other));
        self.last.put_out.extend(others);
        true
    }

    /// An owner that comes back is a plain member until it proves that it is the owner.
    fn reclaim(&mut self, client: usize, name: usize) -> bool {
        let owner = self.records.get(&name).map(|record| record.owner);
        let channel = self.channels.get_mut(&name).filter(|_| owner == Some(client));
        channel.is_some_and(|channel| channel.owner.replace(client).is_none())
    }

    fn provide(&mut self, client: usize, channel: usize, event: usize) -> bool {
        if !self.is_member(client, channel) {
            return false;
        }
        let providers = self.channels.get_mut(&channel).map(|channel| &mut channel.providers);
        providers.is_some_and(|providers| *providers.entry(event).or_insert(client) == client)
    }

    fn listen(&mut self, client: usize, channel: usize, event: Option<usize>) -> bool {
        let member = self.is_member(client, channel);
        let known = self.channels.get_mut(&channel).filter(|_| member);
        known.is_some_and(|channel| channel.listeners.insert((client, event)))
    }

    fn call(&mut self, client: usize, channel: usize, event: usize) -> bool {
        let provider = self.channels.get(&channel).and_then(|channel| channel.providers.get(&event)).copied();
        self.last.answered_by = provider.filter(|_| self.may_speak(client, channel));
        self.last.answered_by.is_some()
    }

    fn broadcast(&mut self, client: usize, name: usize, event: usize) -> bool {
        if !self.may_speak(client, name) {
            return false;
        }
        let listeners = self.channels.get(&name).into_iter().flat_map(|channel| &channel.listeners);
        let hears = listeners.filter(|(who, what)| *who != client && what.is_none_or(|what| what == event));
        self.last.heard_by = hears.map(|(who, _)| *who).collect();
        true
    }

    fn act(&mut self, act: &Act) -> bool {
        match *act {
            Act::Connect { client } => self.connected.insert(client),
            Act::Drop { client } => {
                for channel in 0..CHANNELS {
                    if self.is_member(client, channel) {
                        self.go(client, channel, false);
                    }
                }
                self.connected.remove(&client)
            }
            Act::Open { client, channel, with } => {
                self.tried = self.password(channel, with);
                self.wrong += usize::from(with == Key::Wrong);
                self.open(client, channel, with)
            }
            Act::Leave { client, channel } => self.go(client, channel, true),
            Act::Protect { client, channel } => self.protect(client, channel),
            Act::Reclaim { client, channel } => self.reclaim(client, channel),
            Act::Provide { client, channel, event } => self.provide(client, channel, event),
            Act::Withdraw { channel, event, .. } => {
                self.channels.get_mut(&channel).is_some_and(|channel| channel.providers.remove(&event).is_some())
            }
            Act::Listen { client, channel, event } => self.listen(client, channel, event),
            Act::Unlisten { client, channel, event } => {
                self.channels.get_mut(&channel).is_some_and(|channel| channel.listeners.remove(&(client, event)))
            }
            Act::Call { client, channel, event } => self.call(client, channel, event),
            Act::Broadcast { client, channel, event } => self.broadcast(client, channel, event),
        }
    }
}

impl Channel {
    fn put_out(&mut self, client: usize) {
        self.members.retain(|member| *member != client);
        self.providers.retain(|_, provider| *provider != client);
        self.listeners.retain(|(listener, _)| *listener != client);
    }
}

impl ReferenceStateMachine for Hub {
    type State = Self;
    type Transition = Act;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Act> {
        let who = 0..CLIENTS;
        let what = (0..CLIENTS, 0..CHANNELS, 0..EVENTS);
        let keys = prop_oneof![2 => Just(Key::Nothing), 4 => Just(Key::Right), 1 => Just(Key::Wrong)];
        let some = (0..CLIENTS, 0..CHANNELS, prop::option::of(0..EVENTS));
        prop_oneof![
            3 => who.clone().prop_map(|client| Act::Connect { client }),
            1 => who.prop_map(|client| Act::Drop { client }),
            6 => (what.clone(), keys).prop_map(|((client, channel, _), with)| Act::Open { client, channel, with }),
            1 => what.clone().prop_map(|(client, channel, _)| Act::Leave { client, channel }),
            2 => what.clone().prop_map(|(client, channel, _)| Act::Protect { client, channel }),
            1 => what.clone().prop_map(|(client, channel, _)| Act::Reclaim { client, channel }),
            4 => what.clone().prop_map(|(client, channel, event)| Act::Provide { client, channel, event }),
            1 => what.clone().prop_map(|(client, channel, event)| Act::Withdraw { client, channel, event }),
            4 => some.clone().prop_map(|(client, channel, event)| Act::Listen { client, channel, event }),
            1 => some.prop_map(|(client, channel, event)| Act::Unlisten { client, channel, event }),
            4 => what.clone().prop_map(|(client, channel, event)| Act::Call { client, channel, event }),
            4 => what.prop_map(|(client, channel, event)| Act::Broadcast { client, channel, event }),
        ]
        .boxed()
    }

    /// Only what the hub gets to hear: a client keeps the rest to itself.
    fn preconditions(hub: &Self, act: &Act) -> bool {
        let of = |channel: usize| hub.channels.get(&channel);
        match *act {
            Act::Connect { client } => !hub.connected.contains(&client),
            Act::Drop { client } => hub.connected.contains(&client),
            Act::Open { client, channel, with } => {
                let waits = with == Key::Wrong && hub.wrong == WRONG_MAX;
                hub.connected.contains(&client) && !hub.is_member(client, channel) && !waits
            }
            Act::Leave { client, channel } | Act::Protect { client, channel } => hub.is_member(client, channel),
            Act::Reclaim { client, channel } => {
                hub.is_member(client, channel) && of(channel).is_some_and(|channel| channel.owner != Some(client))
            }
            Act::Provide { client, channel, event } => {
                let own = of(channel).and_then(|channel| channel.providers.get(&event)) == Some(&client);
                hub.connected.contains(&client) && !own
            }
            Act::Withdraw { client, channel, event } => {
                of(channel).and_then(|channel| channel.providers.get(&event)) == Some(&client)
            }
            Act::Listen { client, channel, event } => {
                let own = of(channel).is_some_and(|channel| channel.listeners.contains(&(client, event)));
                hub.connected.contains(&client) && !own
            }
            Act::Unlisten { client, channel, event } => {
                of(channel).is_some_and(|channel| channel.listeners.contains(&(client, event)))
            }
            Act::Call { client, .. } | Act::Broadcast { client, .. } => hub.connected.contains(&client),
        }
    }

    fn apply(mut hub: Self, act: &Act) -> Self {
        hub.last = Outcome::default();
        hub.last.done = hub.act(act);
        hub
    }
}
