//! Channels: who is a member, who provides what, who listens. Plain data; knows no bytes and no links but their numbers.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::guard::Guard;
use crate::canary::Canary;
use crate::client::EventKind;
use crate::error::Refusal;
use crate::hash::{Keyed, Map};
use crate::limits::Limits;
use crate::names::{ChannelName, EventName, Name};

/// A link's place in the hub's table.
pub(crate) type LinkIx = usize;

/// A channel's place in the registry while it exists, and which channel of this place it is: calls outlive channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChannelIx {
    place: u32,
    generation: u32,
}

/// Why a membership is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// The member wants so.
    Willing,
    /// Its link is gone.
    Lost,
    /// A newer link of the same client has taken over, and will be known by this.
    Superseded { lineage: u64 },
}

/// What one client is in its channels.
#[derive(Debug, Default)]
pub(crate) struct Memberships {
    of: BTreeMap<ChannelIx, Membership>,
    /// Over all channels.
    provides: usize,
    /// Over all channels.
    listens: usize,
    /// Channels that it will be a member of once that is stored.
    pub(crate) claims: usize,
}

impl Memberships {
    pub(crate) fn has(&self, channel: ChannelIx) -> bool {
        self.of.contains_key(&channel)
    }

    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelIx> {
        self.of.keys().copied()
    }

    /// Whether the number of an owner operation is above the last one, and so was never used.
    pub(crate) fn raise_owner_n(&mut self, channel: ChannelIx, n: u64) -> bool {
        let Some(membership) = self.of.get_mut(&channel) else { return false };
        let rises = membership.owner_n.is_none_or(|last| n > last);
        if rises {
            membership.owner_n = Some(n);
        }
        rises
    }
}

/// What one client is in one channel.
#[derive(Debug, Default)]
struct Membership {
    /// Its place in the order of joining.
    joined: u64,
    /// The number of its last owner operation.
    owner_n: Option<u64>,
    provides: BTreeSet<EventName>,
    /// `None` stands for all events.
    listens: BTreeSet<Option<EventName>>,
}

/// Who answers an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    pub(crate) link: LinkIx,
    pub(crate) kind: EventKind,
}

/// What a departure undid.
#[derive(Debug)]
pub(crate) struct Departure {
    pub(crate) ix: ChannelIx,
    pub(crate) channel: ChannelName,
    pub(crate) withdrawn: BTreeSet<EventName>,
}

/// All channels of a hub. A channel exists as long as it has a member.
#[derive(Debug)]
pub(crate) struct Registry {
    channels: Vec<Option<Channel>>,
    free: Vec<u32>,
    /// Of the channel that was created last.
    generation: u32,
    by_name: Map<ChannelName, ChannelIx>,
    joins: u64,
    /// Entries of all members together, for estimating memory: memberships, providers, listeners.
    entries: usize,
    hash: Keyed,
    /// Whether somebody wants to know when an event gets its first listener, or loses its last.
    watched: bool,
    turned: Vec<Turned>,
    /// Channels that have come to be, or have changed as a whole, or are gone.
    changed: Vec<ChannelName>,
}

/// An event, or all of a channel's, and whether anybody listens from now on.
pub(crate) type Turned = (ChannelName, Option<EventName>, bool);

/// What an entry takes: two names of usual length, and places in two tables. Measured, and rounded up.
const ENTRY_SIZE: usize = 384;
/// What a channel takes before it has a member.
const CHANNEL_SIZE: usize = 768;

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    name: ChannelName,
    generation: u32,
    /// In the order of joining; the first one is the oldest.
    members: BTreeMap<u64, LinkIx>,
    providers: Map<EventName, Provider>,
    listeners: Map<EventName, BTreeSet<LinkIx>>,
    /// Those who listen to all events.
    all_events: BTreeSet<LinkIx>,
    pub(crate) guard: Guard,
}

impl Registry {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self {
            channels: Vec::new(),
            free: Vec::new(),
            generation: 0,
            by_name: hash.map(),
            joins: 0,
            entries: 0,
            hash,
            watched: false,
            turned: Vec::new(),
            changed: Vec::new(),
        }
    }

    /// Whether first and last listeners are to be noted.
    pub(crate) fn watch(&mut self, watched: bool) {
        self.watched = watched;
        self.turned.clear();
        self.changed.clear();
    }

    /// The channels that were noted since.
    pub(crate) fn take_changed(&mut self) -> Vec<ChannelName> {
        core::mem::take(&mut self.changed)
    }

    /// Notes that a channel is not what it was.
    pub(crate) fn note(&mut self, ix: ChannelIx) {
        let name = self.channel(ix).filter(|_| self.watched).map(|channel| channel.name.clone());
        self.changed.extend(name);
    }

    /// What was noted since.
    pub(crate) fn take_turned(&mut self) -> Vec<Turned> {
        core::mem::take(&mut self.turned)
    }

    /// How many channels exist.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// An estimate of the memory that everything here takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.len() * CHANNEL_SIZE + self.entries * ENTRY_SIZE
    }

    /// Channels by their number, from this one on.
    pub(crate) fn channels_from(&self, number: usize) -> impl Iterator<Item = (usize, &Channel)> {
        let channels = self.channels.iter().enumerate().skip(number);
        channels.filter_map(|(number, channel)| channel.as_ref().map(|channel| (number, channel)))
    }

    /// Members of a channel in the order of joining, from this place in the order on.
    pub(crate) fn members_from(&self, channel: Name<'_>, joined: u64) -> Option<impl Iterator<Item = (u64, LinkIx)>> {
        let (_, channel) = self.by_name(channel)?;
        Some(channel.members.range(joined..).map(|(joined, link)| (*joined, *link)))
    }

    /// What a member provides in a channel, in alphabetical order.
    pub(crate) fn provided_by<'a>(
        &self,
        channel: Name<'_>,
        memberships: &'a Memberships,
    ) -> impl Iterator<Item = &'a EventName> + Clone {
        let ix = self.by_name.get(channel.as_str());
        ix.and_then(|ix| memberships.of.get(ix)).into_iter().flat_map(|membership| &membership.provides)
    }

    /// The channel of this name, with or without members.
    pub(crate) fn find(&self, name: Name<'_>) -> Option<ChannelIx> {
        self.by_name.get(name.as_str()).copied()
    }

    /// Whether one more member may come.
    pub(crate) fn has_room(
        &self,
        memberships: &Memberships,
        channel: Option<ChannelIx>,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        if memberships.of.len() + memberships.claims >= limits.channels {
            return Err(Refusal::TooManyChannels);
        }
        let present = channel.and_then(|ix| self.channel(ix)).map_or(0, |channel| channel.members.len());
        if present >= limits.members { Err(Refusal::TooManyMembers) } else { Ok(()) }
    }

    /// Makes a client a member; there must be room.
    pub(crate) fn join(&mut self, memberships: &mut Memberships, link: LinkIx, ix: ChannelIx) {
        if memberships.of.contains_key(&ix) {
            return;
        }
        self.entries += 1;
        self.joins += 1;
        let joined = self.joins;
        if let Some(channel) = self.channel_mut(ix) {
            channel.members.insert(joined, link);
        }
        memberships.of.insert(ix, Membership { joined, ..Membership::default() });
    }

    /// Forgets a channel that has no members.
    pub(crate) fn forget(&mut self, ix: ChannelIx) {
        let Some(channel) = self.channel(ix).filter(|channel| channel.members.is_empty()) else { return };
        let name = channel.name.clone();
        self.note(ix);
        self.by_name.remove(&name);
        if let Some(place) = self.channels.get_mut(ix.place as usize) {
            *place = None;
            self.free.push(ix.place);
        }
    }

    /// Ends a membership and everything that hangs on it.
    pub(crate) fn leave(
        &mut self,
        memberships: &mut Memberships,
        link: LinkIx,
        name: Name<'_>,
    ) -> Result<Departure, Refusal> {
        let ix = self.by_name.get(name.as_str()).copied().ok_or(Refusal::NotMember)?;
        let membership = memberships.of.remove(&ix).ok_or(Refusal::NotMember)?;
        memberships.provides -= membership.provides.len();
        memberships.listens -= membership.listens.len();
        self.depart(ix, membership, link).ok_or(Refusal::NotMember)
    }

    /// Ends a membership that the member did not end.
    pub(crate) fn evict(&mut self, memberships: &mut Memberships, link: LinkIx, ix: ChannelIx) -> Option<Departure> {
        let membership = memberships.of.remove(&ix)?;
        memberships.provides -= membership.provides.len();
        memberships.listens -= membership.listens.len();
        self.depart(ix, membership, link)
    }

    /// Ends all memberships of a client.
    pub(crate) fn leave_all(&mut self, memberships: Memberships, link: LinkIx) -> Vec<Departure> {
        memberships.of.into_iter().filter_map(|(ix, membership)| self.depart(ix, membership, link)).collect()
    }

    /// Makes a member the event's only provider. Gives the event, unless it was that already.
    pub(crate) fn provide(
        &mut self,
        memberships: &mut Memberships,
        link: LinkIx,
        (channel, event): (Name<'_>, Name<'_>),
        kind: EventKind,
        limits: &Limits,
    ) -> Result<Option<EventName>, Refusal> {
        let event = EventName::new(event.as_str()).map_err(|_| Refusal::NameReserved)?;
        let provided = memberships.provides;
        let (channel, membership) = self.joined(memberships, channel)?;
        match channel.providers.get(&event) {
            Some(provider) if provider.link != link => return Err(Refusal::ProviderExists),
            None if provided >= limits.providers => return Err(Refusal::TooManyProviders),
            Some(_) | None => {}
        }
        let before = channel.providers.insert(event.clone(), Provider { link, kind });
        let new = membership.provides.insert(event.clone());
        memberships.provides += usize::from(new);
        self.entries += usize::from(new);
        // What is asked for in another way from now on is worth telling.
        let other = before.is_none_or(|before| before.kind != kind);
        Ok(other.then_some(event))
    }

    /// Whether a member provides an event already.
    pub(crate) fn provides(&self, memberships: &Memberships, (channel, event): (Name<'_>, Name<'_>)) -> bool {
        self.provided_by(channel, memberships).any(|provided| provided.as_name() == event)
    }

    /// Undoes `provide`.
    pub(crate) fn withdraw(
        &mut self,
        memberships: &mut Memberships,
        channel: Name<'_>,
        event: Name<'_>,
    ) -> Result<EventName, Refusal> {
        let (channel, membership) = self.joined(memberships, channel)?;
        let event = membership.provides.take(event.as_str()).ok_or(Refusal::NotProvider)?;
        if !Canary::Withdraw.sings() {
            channel.providers.remove(&event);
        }
        memberships.provides -= 1;
        self.entries -= 1;
        Ok(event)
    }

    /// Subscribes a member to one event or to all.
    pub(crate) fn listen(
        &mut self,
        memberships: &mut Memberships,
        link: LinkIx,
        channel: Name<'_>,
        event: Option<Name<'_>>,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let event = event_name(event)?;
        let (listening, watched) = (memberships.listens, self.watched);
        let (channel, membership) = self.joined(memberships, channel)?;
        if listening >= limits.listeners && !membership.listens.contains(&event) {
            return Err(Refusal::TooManyListeners);
        }
        let turned =
            (watched && !channel.is_listened(event.as_ref())).then(|| (channel.name.clone(), event.clone(), true));
        match &event {
            Some(event) => channel.listeners.entry(event.clone()).or_default().insert(link),
            None => channel.all_events.insert(link),
        };
        let new = membership.listens.insert(event);
        memberships.listens += usize::from(new);
        self.entries += usize::from(new);
        self.turned.extend(turned);
        Ok(())
    }

    /// Undoes `listen`; nothing to undo is no error.
    pub(crate) fn unlisten(
        &mut self,
        memberships: &mut Memberships,
        link: LinkIx,
        channel: Name<'_>,
        event: Option<Name<'_>>,
    ) -> Result<(), Refusal> {
        let (event, watched) = (event_name(event)?, self.watched);
        let (channel, membership) = self.joined(memberships, channel)?;
        if membership.listens.remove(&event) {
            let last = channel.unlisten(link, event.as_ref()) && watched;
            let turned = last.then(|| (channel.name.clone(), event, false));
            memberships.listens -= 1;
            self.entries -= 1;
            self.turned.extend(turned);
        }
        Ok(())
    }

    /// Who listens to an event, each once, in the order of the links.
    pub(crate) fn listeners(&self, channel: Name<'_>, event: Name<'_>) -> impl Iterator<Item = LinkIx> {
        let channel = self.by_name(channel).map(|(_, channel)| channel);
        let one = channel.and_then(|channel| channel.listeners.get(event.as_str())).into_iter().flatten();
        let all = channel.map(|channel| &channel.all_events).into_iter().flatten();
        merge(one.copied(), all.copied())
    }

    /// Makes a channel without members.
    pub(crate) fn create(&mut self, name: Name<'_>, guard: Guard) -> Result<ChannelIx, Refusal> {
        let name = ChannelName::new(name.as_str()).map_err(|_| Refusal::NameReserved)?;
        self.generation = self.generation.wrapping_add(1);
        let channel = Channel {
            name: name.clone(),
            generation: self.generation,
            members: BTreeMap::new(),
            providers: self.hash.map(),
            listeners: self.hash.map(),
            all_events: BTreeSet::new(),
            guard,
        };
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.channels.push(None);
                u32::try_from(self.channels.len() - 1).map_err(|_| Refusal::TooManyChannels)?
            }
        };
        if let Some(free) = self.channels.get_mut(place as usize) {
            *free = Some(channel);
        }
        let ix = ChannelIx { place, generation: self.generation };
        self.by_name.insert(name, ix);
        self.note(ix);
        Ok(ix)
    }

    fn depart(&mut self, ix: ChannelIx, membership: Membership, link: LinkIx) -> Option<Departure> {
        self.entries -= 1 + membership.provides.len() + membership.listens.len();
        let watched = self.watched;
        let mut turned = Vec::new();
        let channel = self.channel_mut(ix)?;
        channel.members.remove(&membership.joined);
        for event in &membership.provides {
            channel.providers.remove(event);
        }
        for event in &membership.listens {
            if channel.unlisten(link, event.as_ref()) && watched {
                turned.push((channel.name.clone(), event.clone(), false));
            }
        }
        let channel = channel.name.clone();
        self.turned.append(&mut turned);
        Some(Departure { ix, channel, withdrawn: membership.provides })
    }

    fn joined<'r, 'm>(
        &'r mut self,
        memberships: &'m mut Memberships,
        name: Name<'_>,
    ) -> Result<(&'r mut Channel, &'m mut Membership), Refusal> {
        let ix = self.by_name.get(name.as_str()).copied().ok_or(Refusal::NotMember)?;
        let membership = memberships.of.get_mut(&ix).ok_or(Refusal::NotMember)?;
        let channel = self.channel_mut(ix).ok_or(Refusal::NotMember)?;
        Ok((channel, membership))
    }

    /// The channel of this name and its place.
    pub(crate) fn by_name(&self, name: Name<'_>) -> Option<(ChannelIx, &Channel)> {
        let ix = self.find(name)?;
        Some((ix, self.channel(ix)?))
    }

    pub(crate) fn channel(&self, ix: ChannelIx) -> Option<&Channel> {
        self.channels.get(ix.place as usize)?.as_ref().filter(|channel| channel.generation == ix.generation)
    }

    pub(crate) fn channel_mut(&mut self, ix: ChannelIx) -> Option<&mut Channel> {
        self.channels.get_mut(ix.place as usize)?.as_mut().filter(|channel| channel.generation == ix.generation)
    }
}

impl Channel {
    pub(crate) fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Whether it is one of the hub's own with a password, which is not forgotten when nobody is a member.
    pub(crate) fn is_permanent(&self) -> bool {
        self.guard.protection.is_some() && self.name.as_name().is_reserved()
    }

    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// Members in the order of joining, those who joined after this place in the order.
    pub(crate) fn members_after(&self, joined: u64) -> impl Iterator<Item = (u64, LinkIx)> {
        self.members.range(joined.saturating_add(1)..).map(|(joined, link)| (*joined, *link))
    }

    /// Who answers an event.
    pub(crate) fn provider(&self, event: Name<'_>) -> Option<Provider> {
        self.providers.get(event.as_str()).copied()
    }

    pub(crate) fn providers(&self) -> usize {
        self.providers.len()
    }

    /// Everything that is provided, in alphabetical order.
    pub(crate) fn all_providers(&self) -> BTreeMap<&EventName, Provider> {
        self.providers.iter().map(|(event, provider)| (event, *provider)).collect()
    }

    /// Every event that is listened to, in alphabetical order after the one that stands for all.
    pub(crate) fn listened(&self) -> BTreeSet<Option<&EventName>> {
        let all = (!self.all_events.is_empty()).then_some(None);
        self.listeners.keys().map(Some).chain(all).collect()
    }

    fn is_listened(&self, event: Option<&EventName>) -> bool {
        match event {
            None => !self.all_events.is_empty(),
            Some(event) => self.listeners.contains_key(event),
        }
    }

    /// Whether that was the last one.
    fn unlisten(&mut self, link: LinkIx, event: Option<&EventName>) -> bool {
        match event {
            None => {
                self.all_events.remove(&link);
            }
            Some(event) => {
                if let Some(links) = self.listeners.get_mut(event) {
                    links.remove(&link);
                    if links.is_empty() {
                        self.listeners.remove(event);
                    }
                }
            }
        }
        !self.is_listened(event)
    }
}

fn event_name(event: Option<Name<'_>>) -> Result<Option<EventName>, Refusal> {
    event.map(|event| EventName::new(event.as_str()).map_err(|_| Refusal::NameReserved)).transpose()
}

/// Two rising sequences as one, without repeats.
fn merge(a: impl Iterator<Item = LinkIx>, b: impl Iterator<Item = LinkIx>) -> impl Iterator<Item = LinkIx> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    core::iter::from_fn(move || match (a.peek().copied(), b.peek().copied()) {
        (Some(x), Some(y)) if x == y => {
            b.next();
            a.next()
        }
        (Some(x), Some(y)) if y < x => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_sequences_hold_everybody_once() {
        let merged: Vec<_> = merge([1, 3, 5, 9].into_iter(), [2, 3, 4, 9, 11].into_iter()).collect();
        assert_eq!(merged, [1, 2, 3, 4, 5, 9, 11]);
    }
}
