//! What a member of a protected channel accepts was said by a member, under the same protection, and is accepted once.
//!
//! The truth is that of clients alone: what their applications asked, and what they derived their keys from. So this
//! holds whatever a hub does. What a hub may do all the same is to keep things back, and to end what it wants.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::client::{
    Away, Command, Event, Failure, Message, Outgoing, Payload, ReconnectEvent, StreamCommand, Token, Unrestored,
};
use commipc_protocol::{ChannelName, ClientId, HubId, Input, Instant, Misuse, Output};
use core::time::Duration;

use super::exchanges::Exchanges;
use super::flows::Flows;
use super::gaps::Gaps;
use super::{Content, Oracle, Password, Resident, Salt, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told, Withheld};

/// Holds that members believe members alone.
#[derive(Debug, Default)]
pub struct Seals {
    ids: BTreeMap<NodeId, ClientId>,
    hubs: BTreeMap<NodeId, HubId>,
    /// Every protection that an owner asked for: its place in their order, its channel and its password.
    made: BTreeMap<Salt, (u64, ChannelName, Password)>,
    /// How many changes of protections owners asked for, and when each asked last for none.
    changes: u64,
    bared: BTreeMap<(NodeId, ChannelName), u64>,
    derived: BTreeSet<(NodeId, ChannelName, Salt, Password)>,
    /// What the next command of a node brings keys for.
    next: Option<(NodeId, ChannelName, Salt, Password)>,
    asked: BTreeMap<(NodeId, Token), (ChannelName, What)>,
    handles: BTreeMap<(NodeId, ChannelName), Handle>,
    said: BTreeMap<(ClientId, Way, Content), Vec<Said>>,
    /// What may wait for a connection, and so be said under whatever holds then.
    waiting: Vec<(NodeId, (ClientId, Way, Content), usize)>,
    /// What was said since its node's outputs were drained: a change that is told now may be older than it.
    fresh: Vec<(NodeId, (ClientId, Way, Content), usize)>,
    /// Of messages that must be signed or go nowhere: those that were said where nothing is signed.
    unsigned: BTreeSet<(NodeId, Token)>,
    /// Whose connection is away, or not yet as it was: what they leave is left at once.
    away: BTreeSet<NodeId>,
    /// Channels that are not as they were on a connection that is.
    late: BTreeSet<(NodeId, ChannelName)>,
    withheld: BTreeSet<(ClientId, Withheld)>,
    exchanges: Exchanges,
    flows: Flows,
    gaps: Gaps,
}

/// A channel as one client has it.
#[derive(Debug, Default)]
struct Handle {
    /// What it was asked to derive with.
    challenged: Option<Salt>,
    /// What it signs and verifies under.
    sealed: Option<Salt>,
    /// The same, perhaps: it was asked to derive with this when its connection came back.
    returns: Option<Salt>,
    /// The place of the latest protection it has proved.
    newest: u64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Open {
        guarded: bool,
    },
    Protect(Salt),
    Unprotect,
    /// With `away` it is left at once, whatever the hub says.
    Leave {
        away: bool,
    },
}

/// How something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Broadcast,
    Send,
    Call,
}

/// Something said.
#[derive(Debug)]
struct Said {
    by: NodeId,
    /// Under which protection, or none. More than one where that changed at the same time.
    under: Vec<Option<Salt>>,
    /// It may be said again where a connection goes before its answer.
    repeats: bool,
    /// When a node accepted it, and for whom.
    accepted: BTreeMap<NodeId, (Instant, BTreeSet<Token>)>,
}

impl Oracle for Seals {
    fn name(&self) -> &'static str {
        "seals"
    }

    fn joined(&mut self, node: NodeId, who: &Resident) {
        self.ids.extend(who.id.clone().map(|id| (node, id)));
        self.flows.ids.extend(who.id.clone().map(|id| (node, id)));
        self.gaps.joined(node, who);
    }

    fn stands_still(&mut self, node: NodeId, by: Duration) {
        self.flows.stands_still(node, by);
    }

    fn derived(&mut self, node: NodeId, channel: &ChannelName, salt: Salt, password: Password) {
        self.next = Some((node, channel.clone(), salt, password));
    }

    fn saw(&mut self, at: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Fed(Input::Command(Asked::Client(command))) => {
                let Self { flows, handles, .. } = self;
                flows.asks(at, node, command, |channel| sealed(handles, node, channel));
                self.asks(node, command);
            }
            Sight::Gave(Output::Event(Told::Client(event))) => return self.told(at, node, event),
            Sight::Gave(Output::Event(Told::Withheld { from, what })) => {
                self.withheld.insert((from.clone(), what.clone()));
            }
            Sight::Drained => self.drained(node),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

/// What clients ask, and how their handles change.
impl Seals {
    fn asks(&mut self, node: NodeId, command: &Command) {
        let brought = self.next.take().filter(|(who, ..)| *who == node);
        let (token, channel, what) = match command {
            Command::ChannelKeyDerived { .. } => return self.derived.extend(brought),
            Command::Open { token, channel, access } => {
                (token, channel, What::Open { guarded: access.secret.is_some() })
            }
            Command::Protect { token, channel, salt, .. } => {
                self.changes += 1;
                let place = self.changes;
                self.derived.extend(brought.clone());
                self.made.extend(brought.map(|(_, channel, salt, password)| (salt, (place, channel, password))));
                (token, channel, What::Protect(salt.salt))
            }
            Command::Unprotect { token, channel } => (token, channel, self.unprotects(node, channel)),
            Command::Leave { token, channel } => (token, channel, self.leaves(node, channel)),
            Command::Broadcast { token, outgoing } => {
                self.gaps.broadcast(node, outgoing);
                return self.says(node, *token, Way::Broadcast, outgoing);
            }
            Command::Send { token, outgoing } => return self.says(node, *token, Way::Send, outgoing),
            Command::Call { token, outgoing, .. } => {
                let sealed = self.sealed(node, &outgoing.channel);
                self.exchanges.called(node, *token, Content::said(outgoing), sealed);
                if outgoing.away != Away::Fail || self.is_away(node, &outgoing.channel) {
                    self.exchanges.waits(node, *token);
                }
                for salt in self.perhaps(node, &outgoing.channel) {
                    self.exchanges.sealed(node, &outgoing.channel, Some(salt));
                }
                return self.says(node, *token, Way::Call, outgoing);
            }
            Command::Stream(StreamCommand::Ask { token, outgoing, .. }) => {
                return self.asks_stream(node, *token, outgoing);
            }
            Command::Answer { request, result } => {
                let channel = self.exchanges.channel_of(node, *request);
                let sealed = channel.and_then(|channel| self.sealed(node, &channel));
                return self.exchanges.gave(node, *request, result, sealed);
            }
            Command::Connect
            | Command::KeyDerived(_)
            | Command::Stream(_)
            | Command::SetSecret(_)
            | Command::SetOwnerKey(_)
            | Command::ChannelKeyFailed { .. }
            | Command::Reclaim { .. }
            | Command::Terminate { .. }
            | Command::Provide { .. }
            | Command::Withdraw { .. }
            | Command::Listen { .. }
            | Command::Unlisten { .. }
            | Command::Cancel { .. }
            | Command::Drain(_)
            | Command::Close => return,
        };
        self.asked.insert((node, *token), (channel.clone(), what));
    }

    fn leaves(&mut self, node: NodeId, channel: &ChannelName) -> What {
        self.forgets_keys(node, channel);
        What::Leave { away: self.is_away(node, channel) }
    }

    fn is_away(&self, node: NodeId, channel: &ChannelName) -> bool {
        self.away.contains(&node) || self.late.contains(&(node, channel.clone()))
    }

    fn unprotects(&mut self, node: NodeId, channel: &ChannelName) -> What {
        self.changes += 1;
        self.bared.insert((node, channel.clone()), self.changes);
        What::Unprotect
    }

    fn sealed(&self, node: NodeId, channel: &ChannelName) -> Option<Salt> {
        sealed(&self.handles, node, channel)
    }

    fn asks_stream(&mut self, node: NodeId, token: Token, outgoing: &Outgoing) {
        if outgoing.away != Away::Fail || self.is_away(node, &outgoing.channel) {
            self.flows.waits(node, token);
        }
        for salt in self.perhaps(node, &outgoing.channel) {
            self.flows.sealed(node, &outgoing.channel, Some(salt));
        }
        self.says(node, token, Way::Call, outgoing);
    }

    /// What a handle may sign and verify under besides.
    fn perhaps(&self, node: NodeId, channel: &ChannelName) -> impl Iterator<Item = Salt> + use<> {
        let handle = self.handles.get(&(node, channel.clone()));
        handle.and_then(|handle| handle.returns).into_iter()
    }

    /// What waits to be said on a channel that comes back may be said under this.
    fn waits_under(&mut self, node: NodeId, channel: &ChannelName, salt: Salt) {
        for (_, key, index) in self.waiting.iter().filter(|(who, key, _)| *who == node && key.2.channel == *channel) {
            if let Some(said) = self.said.get_mut(key).and_then(|list| list.get_mut(*index)) {
                said.under.push(Some(salt));
            }
        }
    }

    fn says(&mut self, node: NodeId, token: Token, way: Way, outgoing: &Outgoing) {
        let Some(id) = self.ids.get(&node) else { return };
        let sealed = self.sealed(node, &outgoing.channel);
        if outgoing.guarded && sealed.is_none() {
            self.unsigned.insert((node, token));
        }
        let key = (id.clone(), way, Content::said(outgoing));
        let (perhaps, accepted) = (self.perhaps(node, &outgoing.channel), BTreeMap::new());
        let repeats = outgoing.idempotent && outgoing.away == Away::Repeat;
        let under = [sealed].into_iter().chain(perhaps.map(Some)).collect();
        let list = self.said.entry(key.clone()).or_default();
        list.push(Said { by: node, under, repeats, accepted });
        if outgoing.away != Away::Fail {
            self.waiting.push((node, key.clone(), list.len() - 1));
        }
        self.fresh.push((node, key, list.len() - 1));
    }

    /// Changes of a password that are under way are for a handle that is gone.
    fn forgets_keys(&mut self, node: NodeId, channel: &ChannelName) {
        let changes = |what: &What| matches!(what, What::Protect(_) | What::Unprotect);
        self.asked.retain(|(who, _), (of, what)| *who != node || of != channel || !changes(what));
    }

    /// A handle changes; what was said just now may have been said after it.
    fn seal(&mut self, node: NodeId, channel: &ChannelName, sealed: Option<Salt>) {
        let handle = self.handles.entry((node, channel.clone())).or_default();
        (handle.sealed, handle.returns) = (sealed, None);
        for (who, key, index) in self.fresh.iter().chain(&self.waiting) {
            if *who == node
                && key.2.channel == *channel
                && let Some(said) = self.said.get_mut(key).and_then(|list| list.get_mut(*index))
            {
                said.under.push(sealed);
                self.unsigned.retain(|(unsigned, _)| *unsigned != node);
            }
        }
        self.exchanges.sealed(node, channel, sealed);
        self.flows.sealed(node, channel, sealed);
        self.gaps.sealed(node, channel);
    }

    fn drained(&mut self, node: NodeId) {
        // A channel that is left once of several times says so at once; otherwise the keys are gone already.
        let mut left = Vec::new();
        for ((_, token), (channel, what)) in self.asked.range((node, Token(0))..=(node, Token(u64::MAX))) {
            if matches!(what, What::Leave { .. }) {
                left.push((*token, channel.clone()));
            }
        }
        for (token, channel) in left {
            self.asked.remove(&(node, token));
            self.forgets_keys(node, &channel);
            self.seal(node, &channel, None);
        }
        self.fresh.retain(|(who, ..)| *who != node);
        self.exchanges.drained(node);
        self.flows.drained(node);
    }
}

/// What clients are told.
impl Seals {
    fn told(&mut self, at: Instant, node: NodeId, event: &Event) -> Verdict {
        let Self { flows, handles, .. } = self;
        flows.told(at, node, event, |channel| sealed(handles, node, channel))?;
        match event {
            Event::Ready(welcome) => {
                self.hubs.insert(node, welcome.hub.clone());
            }
            Event::DeriveChannelKey { channel, salt } => {
                let handle = self.handles.entry((node, channel.clone())).or_default();
                handle.challenged = Some(salt.salt);
                if handle.sealed.is_some() {
                    handle.returns = Some(salt.salt);
                    self.exchanges.sealed(node, channel, Some(salt.salt));
                    self.flows.sealed(node, channel, Some(salt.salt));
                    self.waits_under(node, channel, salt.salt);
                }
            }
            Event::ChannelClosed { channel, .. } => self.closed_channel(node, channel),
            Event::PasswordChanged { channel, salt: None } => return self.is_bare(node, channel),
            Event::PasswordChanged { channel, salt: Some(salt) } => return self.proved(node, channel, salt.salt),
            Event::Closed(_) => self.closed(node),
            Event::Reconnect(event) => self.comes_back(node, event),
            Event::Done { token, result } => return self.done(node, *token, *result),
            Event::Sent { token, result } => {
                let unsigned = self.unsigned.remove(&(node, *token));
                let went = matches!(result, Ok(()) | Err(Failure::Refused(_) | Failure::RefusedCode(_)));
                return ensure(!unsigned || !went, || format!("{token:?} of {node:?} went out unsigned"));
            }
            Event::Answered { token, result } => {
                if let Ok(answer) = result {
                    self.not_withheld(node, &answer.provider.client, &answer.payload)?;
                }
                return self.exchanges.answered(node, *token, result, &self.ids);
            }
            Event::Request(request) => {
                let (content, sealed) = (Content::heard(&request.message), self.sealed(node, &request.message.channel));
                let sender = &request.message.sender;
                if let Some(salt) = sealed {
                    self.not_withheld(node, &sender.client, &request.message.payload)?;
                    let key = (sender.client.clone(), Way::Call, content.clone());
                    self.accepts(at, node, request.provider, key, (salt, &sender.hub))?;
                }
                self.exchanges.requested(node, request.id, sender.client.clone(), content);
            }
            Event::Message(message) => return self.hears(at, node, message),
            Event::Gap(gap) => return self.gaps.gap(node, gap),
            Event::DeriveKey { .. }
            | Event::Draining { .. }
            | Event::Stream(_)
            | Event::OwnerChanged { .. }
            | Event::RequestEnded { .. }
            | Event::Violation(_)
            | Event::Dropped(_) => {}
        }
        Ok(())
    }

    fn comes_back(&mut self, node: NodeId, event: &ReconnectEvent) {
        match event {
            ReconnectEvent::Lost { .. } => {
                self.away.insert(node);
                self.late.retain(|(who, _)| *who != node);
            }
            ReconnectEvent::Unrestored { what: Unrestored::Channel(channel), .. } => {
                self.late.insert((node, channel.clone()));
            }
            ReconnectEvent::Returned { channel } => {
                self.late.remove(&(node, channel.clone()));
                self.restored(node);
            }
            ReconnectEvent::Restored { .. } => self.restored(node),
            ReconnectEvent::Restoring { .. } | ReconnectEvent::Unrestored { .. } => {}
        }
    }

    /// What came back is under what it was asked to derive with.
    fn restored(&mut self, node: NodeId) {
        self.away.remove(&node);
        let late = |of: &ChannelName| self.late.contains(&(node, of.clone()));
        let returned = self.handles.iter().filter(|((who, of), _)| *who == node && !late(of));
        let returned = returned.filter_map(|((_, channel), handle)| Some((channel.clone(), handle.returns?)));
        let returned: Vec<(ChannelName, Salt)> = returned.collect();
        for (channel, salt) in returned {
            self.seal(node, &channel, Some(salt));
            // It was asked for this, and for nothing that is opened later.
            self.handles.entry((node, channel)).or_default().challenged = None;
        }
    }

    fn closed_channel(&mut self, node: NodeId, channel: &ChannelName) {
        self.late.remove(&(node, channel.clone()));
        self.forgets_keys(node, channel);
        self.seal(node, channel, None);
    }

    fn closed(&mut self, node: NodeId) {
        self.away.remove(&node);
        self.late.retain(|(who, _)| *who != node);
        let open = self.handles.iter().filter(|((who, _), handle)| *who == node && handle.sealed.is_some());
        let open: Vec<ChannelName> = open.map(|((_, channel), _)| channel.clone()).collect();
        open.iter().for_each(|channel| self.seal(node, channel, None));
        self.asked.retain(|(who, _), _| *who != node);
    }

    fn done(&mut self, node: NodeId, token: Token, result: Result<(), Failure>) -> Verdict {
        let Some((channel, what)) = self.asked.remove(&(node, token)) else { return Ok(()) };
        let handle = self.handles.entry((node, channel.clone())).or_default();
        match (what, result) {
            (What::Open { guarded }, Ok(())) => {
                if let Some(salt) = handle.challenged.take() {
                    return self.proved(node, &channel, salt);
                }
                ensure(!guarded || handle.sealed.is_some(), || {
                    format!("{node:?} opened {channel} with a password, and nothing was proved")
                })
            }
            // Another opening goes on.
            (What::Open { .. }, Err(Failure::Local(Misuse::TooMany | Misuse::Draining))) => Ok(()),
            (What::Open { .. }, Err(_)) => {
                handle.challenged = None;
                Ok(())
            }
            // It is left at once, or with the connection.
            (What::Leave { away: true }, Ok(())) | (What::Leave { .. }, Err(Failure::Local(Misuse::Disconnected))) => {
                self.seal(node, &channel, None);
                Ok(())
            }
            // It was told before.
            (What::Protect(salt), Ok(())) => {
                let place = self.made.get(&salt).map_or(0, |(place, ..)| *place);
                ensure(handle.newest >= place, || format!("{node:?} has protected {channel} and was not told so"))
            }
            (What::Unprotect, Ok(())) => {
                let sealed = handle.sealed;
                ensure(sealed.is_none(), || format!("{node:?} has taken the password of {channel} away and has it"))
            }
            (What::Leave { .. }, _) | (What::Protect(_) | What::Unprotect, Err(_)) => Ok(()),
        }
    }

    /// A client believes that it has joined under a protection.
    fn proved(&mut self, node: NodeId, channel: &ChannelName, salt: Salt) -> Verdict {
        let made = self.made.get(&salt).filter(|(_, of, _)| of == channel);
        let Some((place, _, password)) = made else {
            return Err(format!("{node:?} joined {channel} under a protection that no owner made"));
        };
        let knows = self.derived.contains(&(node, channel.clone(), salt, *password));
        ensure(knows, || format!("{node:?} joined {channel} without its password"))?;
        let handle = self.handles.entry((node, channel.clone())).or_default();
        let (newest, place) = (handle.newest, *place);
        ensure(place >= newest, || format!("{node:?} went back from protection {newest} of {channel} to {place}"))?;
        handle.newest = place;
        self.seal(node, channel, Some(salt));
        Ok(())
    }

    /// An owner believes that its channel has no password any more: it took it away, and has given none since.
    fn is_bare(&mut self, node: NodeId, channel: &ChannelName) -> Verdict {
        let asked = self.bared.get(&(node, channel.clone())).copied().unwrap_or_default();
        let given = self.sealed(node, channel).and_then(|salt| self.made.get(&salt)).map_or(0, |(place, ..)| *place);
        self.seal(node, channel, None);
        ensure(asked > given, || format!("{node:?} believes that {channel} has no password, which it gave it since"))
    }

    fn hears(&mut self, at: Instant, node: NodeId, message: &Message) -> Verdict {
        let heard = &message.message;
        let Some(salt) = self.sealed(node, &heard.channel) else { return Ok(()) };
        let content = Content::heard(heard);
        self.not_withheld(node, &heard.sender.client, &heard.payload)?;
        let way = if message.number > 0 { Way::Broadcast } else { Way::Send };
        ensure(way == Way::Send || self.ids.get(&node) != Some(&heard.sender.client), || {
            format!("{node:?} heard itself: {heard:?}")
        })?;
        let key = (heard.sender.client.clone(), way, content);
        self.accepts(at, node, message.to, key, (salt, &heard.sender.hub))?;
        if way == Way::Broadcast { self.gaps.heard(node, message) } else { Ok(()) }
    }

    /// Somebody said this under the protection of the one who accepts it, who did not accept it before.
    fn accepts(
        &mut self,
        at: Instant,
        node: NodeId,
        to: Token,
        key: (ClientId, Way, Content),
        (salt, hub): (Salt, &HubId),
    ) -> Verdict {
        let (hubs, under) = (&self.hubs, self.perhaps(node, &key.2.channel).chain([salt]));
        let under: Vec<Option<Salt>> = under.map(Some).collect();
        let new = |said: &&mut Said| {
            let again = said.accepted.get(&node).is_some_and(|(when, tokens)| *when != at || tokens.contains(&to));
            let same = under.iter().any(|under| said.under.contains(under));
            same && (!again || said.repeats) && hubs.get(&said.by) == Some(hub)
        };
        match self.said.get_mut(&key).and_then(|list| list.iter_mut().find(new)) {
            Some(said) => {
                said.accepted.entry(node).or_insert_with(|| (at, BTreeSet::new())).1.insert(to);
                Ok(())
            }
            None => Err(format!("{node:?} accepted for {to:?} what no member said so, or said once: {key:?}")),
        }
    }

    fn not_withheld(&self, node: NodeId, sender: &ClientId, payload: &Payload) -> Verdict {
        let Some(id) = self.ids.get(&node).filter(|_| !self.withheld.is_empty()) else { return Ok(()) };
        let what = Withheld { sender: sender.clone(), payload: payload.bytes.clone() };
        let withheld = self.withheld.contains(&(id.clone(), what));
        ensure(!withheld, || format!("{node:?} got {payload:?} of {sender}, of which it was given a changed copy only"))
    }
}

/// What a client signs and verifies under on a channel.
fn sealed(handles: &BTreeMap<(NodeId, ChannelName), Handle>, node: NodeId, channel: &ChannelName) -> Option<Salt> {
    handles.get(&(node, channel.clone())).and_then(|handle| handle.sealed)
}
