//! What one application believes it has: what it was told, and nothing else.

use std::collections::BTreeMap;

use commipc_protocol::auth::Kdf;
use commipc_protocol::client::{Access, Command, Event, Message, ReconnectEvent, RequestId, Token, Unrestored};
use commipc_protocol::{ChannelName, ClientId, EventName, Instant};

use crate::node::NodeId;

/// An event of a channel.
pub(crate) type Place = (ChannelName, EventName);

/// One application.
#[derive(Debug)]
pub(crate) struct Belief {
    pub(crate) node: NodeId,
    pub(crate) id: ClientId,
    pub(crate) link: Link,
    /// Since it was asked for, the connection stood once.
    pub(crate) stood: bool,
    /// Since when the connection stands.
    ready: Instant,
    pub(crate) rooms: BTreeMap<ChannelName, Room>,
    pub(crate) provided: BTreeMap<Place, Token>,
    pub(crate) listening: BTreeMap<Token, (ChannelName, Option<EventName>)>,
    pub(crate) asked: BTreeMap<Token, Asked>,
    pub(crate) calls: Vec<Token>,
    pub(crate) requests: Vec<RequestId>,
    /// Channels opened so far: an answer that concerns an earlier opening does not concern this one.
    openings: u64,
    /// How calls ended, until somebody asks.
    pub(crate) answers: BTreeMap<Token, Result<ClientId, String>>,
    pub(crate) heard: Vec<Message>,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// There is none, and none is on its way.
    None,
    /// It is on its way for the first time, or again.
    Away {
        /// It was there before.
        lost: bool,
    },
    /// It stands, and what hung on an earlier one comes back.
    Restoring,
    /// It stands, and everything is as it was.
    Whole,
}

/// A channel that is open.
#[derive(Debug)]
pub(crate) struct Room {
    opening: u64,
    pub(crate) owns: bool,
    /// Who owns it or that nobody does, if it was told since the channel was opened.
    pub(crate) owner: Option<Option<ClientId>>,
    /// It is known to have a password.
    pub(crate) guarded: bool,
    /// When the hub was asked for what it is known to have granted.
    pub(crate) since: Instant,
    /// How the password is derived that it has got since.
    pub(crate) salt: Option<[u8; 16]>,
    /// It is told to be missing, and not to be over.
    pub(crate) late: bool,
}

/// What was asked for and has no answer.
#[derive(Debug)]
pub(crate) enum Asked {
    Open { channel: ChannelName, guarded: bool, at: Instant },
    Provide { place: Place, opening: u64 },
    Listen { channel: ChannelName, event: Option<EventName>, opening: u64 },
    Protect { channel: ChannelName, opening: u64 },
}

impl Asked {
    pub(crate) const fn channel(&self) -> &ChannelName {
        match self {
            Self::Open { channel, .. }
            | Self::Provide { place: (channel, _), .. }
            | Self::Listen { channel, .. }
            | Self::Protect { channel, .. } => channel,
        }
    }
}

impl Belief {
    pub(crate) fn new(node: NodeId, id: ClientId) -> Self {
        Self {
            node,
            id,
            link: Link::None,
            stood: false,
            ready: Instant::ZERO,
            rooms: BTreeMap::new(),
            provided: BTreeMap::new(),
            listening: BTreeMap::new(),
            asked: BTreeMap::new(),
            calls: Vec::new(),
            requests: Vec::new(),
            openings: 0,
            answers: BTreeMap::new(),
            heard: Vec::new(),
        }
    }

    /// Whether a channel is open or about to be.
    pub(crate) fn wants(&self, channel: &ChannelName) -> bool {
        let opens = |asked: &Asked| matches!(asked, Asked::Open { channel: other, .. } if other == channel);
        self.rooms.contains_key(channel) || self.asked.values().any(opens)
    }

    pub(crate) fn owned(&self) -> Vec<ChannelName> {
        self.rooms.iter().filter(|(_, room)| room.owns).map(|(channel, _)| channel.clone()).collect()
    }

    /// The tokens that hear an event of a channel.
    pub(crate) fn hearers(&self, channel: &ChannelName, event: &EventName) -> Vec<Token> {
        let hears = |(of, what): &(ChannelName, Option<EventName>)| {
            of == channel && what.as_ref().is_none_or(|what| what == event)
        };
        self.listening.iter().filter(|(_, what)| hears(what)).map(|(token, _)| *token).collect()
    }

    fn opening(&self, channel: &ChannelName) -> u64 {
        self.rooms.get(channel).map_or(0, |room| room.opening)
    }

    fn is_of(&self, channel: &ChannelName, opening: u64) -> bool {
        self.rooms.get(channel).is_some_and(|room| room.opening == opening)
    }

    fn closed(&mut self, channel: &ChannelName) {
        self.rooms.remove(channel);
        self.provided.retain(|(of, _), _| of != channel);
        self.listening.retain(|_, (of, _)| of != channel);
    }

    /// The application is about to ask for this.
    pub(crate) fn asks(&mut self, command: &Command, at: Instant) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else changes what it has")]
        match command {
            Command::Connect => (self.link, self.stood) = (Link::Away { lost: false }, false),
            Command::Open { token, channel, access } => {
                let guarded = access.secret.is_some();
                self.asked.insert(*token, Asked::Open { channel: channel.clone(), guarded, at });
            }
            Command::Leave { channel, .. } => self.closed(channel),
            Command::Provide { token, channel, event, .. } => {
                let (place, opening) = ((channel.clone(), event.clone()), self.opening(channel));
                self.provided.remove(&place);
                // Whatever becomes of this one, it has taken their place.
                self.asked.retain(|_, asked| !matches!(asked, Asked::Provide { place: other, .. } if *other == place));
                self.asked.insert(*token, Asked::Provide { place, opening });
            }
            Command::Withdraw { provider, .. } => {
                self.provided.retain(|_, token| token != provider);
                self.asked.remove(provider);
            }
            Command::Listen { token, channel, event } => {
                let (channel, event, opening) = (channel.clone(), event.clone(), self.opening(channel));
                self.asked.insert(*token, Asked::Listen { channel, event, opening });
            }
            Command::Unlisten { listener, .. } => {
                self.listening.remove(listener);
                self.asked.remove(listener);
            }
            Command::Call { token, .. } => self.calls.push(*token),
            _ => {}
        }
    }

    /// The same for a protection, whose command the world makes.
    pub(crate) fn protects(&mut self, token: Token, channel: &ChannelName) {
        self.asked.insert(token, Asked::Protect { channel: channel.clone(), opening: self.opening(channel) });
    }

    /// It owns a channel that is open.
    pub(crate) fn owns(&mut self, channel: &ChannelName) {
        if let Some(room) = self.rooms.get_mut(channel) {
            room.owns = true;
        }
    }

    /// Takes an event in; gives the channel that it has opened.
    pub(crate) fn told(&mut self, event: &Event, now: Instant) -> Option<ChannelName> {
        match event {
            Event::Ready(_) => {
                (self.stood, self.ready) = (true, now);
                let back = self.link == Link::Away { lost: true };
                self.link = if back { Link::Restoring } else { Link::Whole };
            }
            Event::Reconnect(event) => self.returns(event),
            Event::Closed(_) => {
                self.link = Link::None;
                self.rooms.clear();
                self.provided.clear();
                self.listening.clear();
                self.asked.clear();
            }
            Event::ChannelClosed { channel, .. } => self.closed(channel),
            Event::OwnerChanged { channel, owner } => {
                let own = owner.as_ref() == Some(&self.id);
                if let Some(room) = self.rooms.get_mut(channel) {
                    (room.owns, room.owner) = (own, Some(owner.clone()));
                }
            }
            Event::PasswordChanged { channel, salt } => {
                if let Some(room) = self.rooms.get_mut(channel) {
                    (room.guarded, room.salt) = (salt.is_some(), salt.map(|salt| salt.salt));
                }
            }
            Event::Done { token, result } => {
                if let Some(asked) = self.asked.remove(token)
                    && result.is_ok()
                {
                    return self.has(*token, asked);
                }
            }
            Event::Answered { token, result } => {
                self.calls.retain(|call| call != token);
                let by = result.as_ref().map(|answer| answer.provider.client.clone());
                self.answers.insert(*token, by.map_err(|failure| format!("{failure:?}")));
            }
            Event::Request(request) => self.requests.push(request.id),
            Event::RequestEnded { request, .. } => self.requests.retain(|other| other != request),
            Event::Message(message) => self.heard.push(message.clone()),
            Event::DeriveKey { .. }
            | Event::DeriveChannelKey { .. }
            | Event::Stream(_)
            | Event::Draining { .. }
            | Event::Gap(_)
            | Event::Sent { .. }
            | Event::Violation(_)
            | Event::Dropped(_) => {}
        }
        None
    }

    fn returns(&mut self, event: &ReconnectEvent) {
        match event {
            ReconnectEvent::Lost { .. } => {
                self.link = Link::Away { lost: true };
                self.rooms.values_mut().for_each(|room| room.late = false);
            }
            ReconnectEvent::Restoring { .. } => {}
            ReconnectEvent::Restored { .. } => {
                self.link = Link::Whole;
                let there = self.rooms.values_mut().filter(|room| !room.late);
                there.for_each(|room| room.since = room.since.max(self.ready));
            }
            ReconnectEvent::Returned { channel } => {
                if let Some(room) = self.rooms.get_mut(channel) {
                    (room.late, room.since) = (false, self.ready);
                }
            }
            ReconnectEvent::Unrestored { what: Unrestored::Channel(channel), .. } => {
                if let Some(room) = self.rooms.get_mut(channel) {
                    room.late = true;
                }
            }
            ReconnectEvent::Unrestored { what: Unrestored::Provider { token, .. }, .. } => {
                self.provided.retain(|_, provider| provider != token);
            }
            ReconnectEvent::Unrestored { what: Unrestored::Listener { token, .. }, .. } => {
                self.listening.remove(token);
            }
            ReconnectEvent::Unrestored { what: Unrestored::Ownership(channel), .. } => {
                if let Some(room) = self.rooms.get_mut(channel) {
                    room.owns = false;
                }
            }
        }
    }

    /// What was asked for is granted.
    fn has(&mut self, token: Token, asked: Asked) -> Option<ChannelName> {
        match asked {
            Asked::Open { channel, guarded, at } => {
                self.openings += 1;
                let opening = self.openings;
                let since = at.max(self.ready);
                self.rooms.insert(
                    channel.clone(),
                    Room { opening, owns: false, owner: None, guarded, since, salt: None, late: false },
                );
                return Some(channel);
            }
            Asked::Provide { place, opening } => {
                if self.is_of(&place.0, opening) {
                    self.provided.insert(place, token);
                }
            }
            Asked::Listen { channel, event, opening } => {
                if self.is_of(&channel, opening) {
                    self.listening.insert(token, (channel, event));
                }
            }
            Asked::Protect { channel, opening } => {
                if self.is_of(&channel, opening)
                    && let Some(room) = self.rooms.get_mut(&channel)
                {
                    room.guarded = true;
                }
            }
        }
        None
    }
}

pub(crate) const fn opens(token: Token, channel: ChannelName, guarded: bool) -> Command {
    let secret = if guarded { Some(Kdf::Key) } else { None };
    Command::Open { token, channel, access: Access { secret, policy: None, plain: false } }
}
