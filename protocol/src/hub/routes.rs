//! What can be reached over bridges, and on which ways: plain data, one way for each link and thing, the shortest one used.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::registry::LinkIx;
use super::shares::{Places, Quota};
use crate::client::EventKind;
use crate::hash::{Keyed, Map};
use crate::names::{Address, ChannelName, EventName, HubId, Name};

/// Which channel of a name is meant: only what agrees in this is the same channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Realm {
    /// Where it was protected; nowhere for one that needs no password.
    pub(crate) home: Option<HubId>,
    pub(crate) epoch: u64,
}

/// What there is to reach in a channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Goal {
    Provider(EventName, Address),
    /// Somebody at a hub who listens to an event, or to all.
    Listener(Option<EventName>, HubId),
    Member(Address),
    /// The hub where the channel is protected.
    Home(HubId),
}

/// One thing to reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) channel: ChannelName,
    pub(crate) realm: Realm,
    pub(crate) goal: Goal,
}

/// How the members of a protected channel derive its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) kdf: u64,
    pub(crate) salt: [u8; 16],
    pub(crate) iterations: u64,
}

/// How something is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The hubs to pass, the nearest first; the last one is where it is.
    pub(crate) path: Arc<[HubId]>,
    /// How a provider is asked.
    pub(crate) kind: EventKind,
    /// Of a home.
    pub(crate) terms: Option<Terms>,
    /// When the channel ended last, by the home's word.
    pub(crate) ended: Option<u64>,
}

impl Way {
    pub(crate) fn passes(&self, hub: Name<'_>) -> bool {
        self.path.iter().any(|on| on.as_name() == hub)
    }
}

/// The best way to something, and the link it begins with.
pub(crate) type Best = Option<(LinkIx, Way)>;

/// What was best before a change, and what is after it.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) before: Best,
    pub(crate) after: Best,
}

/// All ways to one thing, at most one for each link.
#[derive(Debug, Default)]
pub(crate) struct Ways(Vec<(LinkIx, Way)>);

impl Ways {
    /// The shortest; of several, the first in the order of the hubs' ids; of parallel bridges, the one that came first.
    pub(crate) fn best(&self) -> Option<&(LinkIx, Way)> {
        self.best_but(|_, _| false)
    }

    fn best_but(&self, not: impl Fn(LinkIx, &Way) -> bool) -> Option<&(LinkIx, Way)> {
        let usable = self.0.iter().filter(|(link, way)| !not(*link, way));
        usable.min_by(|(a, x), (b, y)| (x.path.len(), &x.path, a).cmp(&(y.path.len(), &y.path, b)))
    }

    fn set(&mut self, link: LinkIx, way: Way) {
        match self.0.iter_mut().find(|(of, _)| *of == link) {
            Some((_, old)) => *old = way,
            None => self.0.push((link, way)),
        }
    }

    fn unset(&mut self, link: LinkIx) {
        self.0.retain(|(of, _)| *of != link);
    }
}

/// What can be reached of one channel.
#[derive(Debug, Default)]
struct Far {
    providers: BTreeMap<EventName, BTreeMap<Address, Ways>>,
    listeners: BTreeMap<EventName, BTreeMap<HubId, Ways>>,
    /// Hubs where somebody listens to all events.
    all_events: BTreeMap<HubId, Ways>,
    members: BTreeMap<Address, Ways>,
    home: BTreeMap<HubId, Ways>,
}

/// Everything that bridges have announced.
#[derive(Debug)]
pub(crate) struct Routes {
    channels: Map<ChannelName, BTreeMap<Realm, Far>>,
    /// What each link has announced.
    learned: BTreeMap<LinkIx, Places>,
}

/// What an announced thing takes: its names in two tables, and its way. Estimated, and rounded up.
const PLACE_SIZE: usize = 512;

impl Routes {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self { channels: hash.map(), learned: BTreeMap::new() }
    }

    /// How much all links have announced.
    pub(crate) fn len(&self) -> usize {
        self.learned.values().map(Places::len).sum()
    }

    /// An estimate of the memory that everything here takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.len() * PLACE_SIZE
    }

    /// Whether a link may announce one thing more, which is so many hubs away.
    pub(crate) fn has_room(&self, link: LinkIx, quota: Quota, hubs: usize) -> bool {
        let none = Places::default();
        self.learned.get(&link).unwrap_or(&none).has_room(quota, hubs)
    }

    pub(crate) fn has(&self, link: LinkIx, place: &Place) -> bool {
        self.learned.get(&link).is_some_and(|places| places.contains(place))
    }

    /// Takes what a link announces, in place of what it has announced of it before.
    pub(crate) fn learn(&mut self, link: LinkIx, place: &Place, way: Way) -> Turn {
        self.learned.entry(link).or_default().put(place.clone(), way.path.len());
        self.turn(place, |ways| ways.set(link, way))
    }

    /// Forgets what a link has announced of something.
    pub(crate) fn unlearn(&mut self, link: LinkIx, place: &Place) -> Option<Turn> {
        let places = self.learned.get_mut(&link)?;
        if !places.remove(place) {
            return None;
        }
        if places.len() == 0 {
            self.learned.remove(&link);
        }
        Some(self.turn(place, |ways| ways.unset(link)))
    }

    /// All that a link has announced.
    pub(crate) fn of(&self, link: LinkIx) -> Vec<Place> {
        self.learned.get(&link).into_iter().flat_map(Places::iter).cloned().collect()
    }

    fn turn(&mut self, place: &Place, change: impl FnOnce(&mut Ways)) -> Turn {
        if !self.channels.contains_key(&*place.channel) {
            self.channels.insert(place.channel.clone(), BTreeMap::new());
        }
        let Some(realms) = self.channels.get_mut(&*place.channel) else { return Turn { before: None, after: None } };
        let far = realms.entry(place.realm.clone()).or_default();
        let turn = far.with(&place.goal, |ways| {
            let before = ways.best().cloned();
            change(ways);
            Turn { before, after: ways.best().cloned() }
        });
        if far.is_empty() {
            realms.remove(&place.realm);
        }
        if realms.is_empty() {
            self.channels.remove(&*place.channel);
        }
        turn
    }

    /// The best way to something.
    pub(crate) fn best(&self, place: &Place) -> Option<&(LinkIx, Way)> {
        let far = self.channels.get(&*place.channel)?.get(&place.realm)?;
        far.ways(&place.goal)?.best()
    }

    /// Everything that can be reached, on its best way, in an order that depends on nothing but what it is.
    pub(crate) fn all(&self) -> Vec<(Place, LinkIx, Way)> {
        let places: BTreeSet<&Place> = self.learned.values().flat_map(Places::iter).collect();
        let best = |place: &Place| self.best(place).map(|(link, way)| (place.clone(), *link, way.clone()));
        places.into_iter().filter_map(best).collect()
    }

    /// Everything that can be reached of one channel, on its best way.
    pub(crate) fn of_channel(&self, channel: &ChannelName) -> Vec<(Place, LinkIx, Way)> {
        let realms = self.channels.get(&**channel).into_iter().flatten();
        let places = realms.flat_map(|(realm, far)| {
            let place = |goal| Place { channel: channel.clone(), realm: realm.clone(), goal };
            far.goals().into_iter().map(place)
        });
        let best = |place: Place| self.best(&place).map(|(link, way)| (place.clone(), *link, way.clone()));
        places.filter_map(best).collect()
    }

    /// The nearest hub where a channel of this name has a password, and which channel that is.
    pub(crate) fn nearest_home(&self, channel: Name<'_>) -> Option<(Realm, Terms)> {
        let realms = self.channels.get(channel.as_str())?.iter();
        let homes = realms.filter_map(|(realm, far)| {
            let (link, way) = far.home.values().next()?.best()?;
            Some((realm, link, way, way.terms?))
        });
        let nearest = homes.min_by(|(a, at, x, _), (b, bt, y, _)| {
            // Of one home the latest.
            (x.path.len(), &x.path, b.epoch, at).cmp(&(y.path.len(), &y.path, a.epoch, bt))
        });
        nearest.map(|(realm, _, _, terms)| (realm.clone(), terms))
    }

    /// The latest channel of a name that a hub is known to be the home of, and the best way there.
    pub(crate) fn latest_home(&self, channel: Name<'_>, home: &HubId) -> Option<(&Realm, &(LinkIx, Way))> {
        let realms = self.channels.get(channel.as_str())?.iter().rev();
        let mut homes = realms.filter_map(|(realm, far)| Some((realm, far.home.get(home)?.best()?)));
        // In the order of epochs, of each home.
        homes.find(|(realm, _)| realm.home.as_ref() == Some(home))
    }

    /// The channels of a name that are known to be somewhere.
    pub(crate) fn realms(&self, channel: Name<'_>) -> impl Iterator<Item = &Realm> {
        self.channels.get(channel.as_str()).into_iter().flat_map(BTreeMap::keys)
    }

    /// Those of them that are more than a home's word that it protects none any more.
    pub(crate) fn inhabited(&self, channel: Name<'_>) -> impl Iterator<Item = &Realm> {
        let all = self.channels.get(channel.as_str()).into_iter().flatten();
        all.filter(|(_, far)| !far.is_bygone()).map(|(realm, _)| realm)
    }

    /// The nearest provider of an event, among the ways that are not to be gone.
    pub(crate) fn provider(
        &self,
        channel: Name<'_>,
        realm: &Realm,
        event: Name<'_>,
        not: impl Fn(LinkIx, &Way) -> bool,
    ) -> Option<(LinkIx, EventKind)> {
        let far = self.channels.get(channel.as_str())?.get(realm)?;
        let all = far.providers.get(event.as_str())?.iter();
        let usable = all.filter_map(|(provider, ways)| ways.best_but(&not).map(|best| (provider, best)));
        let (_, (link, way)) = usable
            .min_by(|(p, (a, x)), (q, (b, y))| (x.path.len(), &x.path, a, p).cmp(&(y.path.len(), &y.path, b, q)))?;
        Some((*link, way.kind))
    }

    /// The links behind which somebody listens to an event, each once, but for hubs that are `passed` already.
    pub(crate) fn listening(
        &self,
        channel: Name<'_>,
        realm: &Realm,
        event: Name<'_>,
        passed: impl Fn(&HubId) -> bool,
        links: &mut BTreeSet<LinkIx>,
    ) {
        let Some(far) = self.channels.get(channel.as_str()).and_then(|realms| realms.get(realm)) else { return };
        let one = far.listeners.get(event.as_str()).into_iter().flatten();
        for (hub, ways) in one.chain(&far.all_events) {
            if !passed(hub) {
                links.extend(
                    ways.0.iter().filter(|(_, way)| !way.path.first().is_some_and(&passed)).map(|(link, _)| *link),
                );
            }
        }
    }
}

impl Far {
    fn is_empty(&self) -> bool {
        self.providers.is_empty()
            && self.listeners.is_empty()
            && self.all_events.is_empty()
            && self.members.is_empty()
            && self.home.is_empty()
    }

    /// Whether nothing is left but homes that protect it no more.
    fn is_bygone(&self) -> bool {
        let protects = |ways: &Ways| ways.best().is_some_and(|(_, way)| way.terms.is_some());
        self.providers.is_empty()
            && self.listeners.is_empty()
            && self.all_events.is_empty()
            && self.members.is_empty()
            && !self.home.values().any(protects)
    }

    fn goals(&self) -> Vec<Goal> {
        let providers = self
            .providers
            .iter()
            .flat_map(|(event, all)| all.keys().map(|provider| Goal::Provider(event.clone(), provider.clone())));
        let listeners = self
            .listeners
            .iter()
            .flat_map(|(event, all)| all.keys().map(|hub| Goal::Listener(Some(event.clone()), hub.clone())));
        let all_events = self.all_events.keys().map(|hub| Goal::Listener(None, hub.clone()));
        let members = self.members.keys().map(|member| Goal::Member(member.clone()));
        let home = self.home.keys().map(|hub| Goal::Home(hub.clone()));
        providers.chain(listeners).chain(all_events).chain(members).chain(home).collect()
    }

    fn ways(&self, goal: &Goal) -> Option<&Ways> {
        match goal {
            Goal::Provider(event, provider) => self.providers.get(event)?.get(provider),
            Goal::Listener(Some(event), hub) => self.listeners.get(event)?.get(hub),
            Goal::Listener(None, hub) => self.all_events.get(hub),
            Goal::Member(member) => self.members.get(member),
            Goal::Home(hub) => self.home.get(hub),
        }
    }

    /// Changes the ways to something, which is in no table without any.
    fn with<R>(&mut self, goal: &Goal, change: impl FnOnce(&mut Ways) -> R) -> R {
        match goal {
            Goal::Provider(event, provider) => nested(&mut self.providers, event, provider, change),
            Goal::Listener(Some(event), hub) => nested(&mut self.listeners, event, hub, change),
            Goal::Listener(None, hub) => entry(&mut self.all_events, hub, change),
            Goal::Member(member) => entry(&mut self.members, member, change),
            Goal::Home(hub) => entry(&mut self.home, hub, change),
        }
    }
}

fn entry<K: Ord + Clone, R>(table: &mut BTreeMap<K, Ways>, key: &K, change: impl FnOnce(&mut Ways) -> R) -> R {
    let ways = table.entry(key.clone()).or_default();
    let result = change(ways);
    if ways.0.is_empty() {
        table.remove(key);
    }
    result
}

fn nested<E: Ord + Clone, K: Ord + Clone, R>(
    table: &mut BTreeMap<E, BTreeMap<K, Ways>>,
    event: &E,
    key: &K,
    change: impl FnOnce(&mut Ways) -> R,
) -> R {
    let inner = table.entry(event.clone()).or_default();
    let result = entry(inner, key, change);
    if inner.is_empty() {
        table.remove(event);
    }
    result
}
