//! Bridges as a hub knows them: links behind which there is another hub, and what each tells the other of what it can reach.
//!
//! ```text
//!   clients of this hub ──► own ──┐                   ┌──► each bridge but the one it came from: ANNOUNCE, FORGET
//!                                 ├──► best ways ─────┤
//!   ANNOUNCE from bridges ► routes┘  (shortest path)  └──► calls, sends and broadcasts go there
//! ```
//! Each thing is announced with the hubs on the way to it. A hub takes no way that it is on itself, so nothing is kept alive
//! by going in circles; a way that is gone is taken back everywhere it was told.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::announced::{all_differ, read_announced, read_place};
use super::doubles::Doubles;
use super::homes::Errands;
use super::registry::LinkIx;
use super::routes::{Best, Goal, Place, Realm, Routes, Terms, Turn, Way};
use super::session::Session;
use super::shares::{Places, Quota};
use super::{DisconnectReason, Event, Hub};
use crate::auth::Capabilities;
use crate::canary::Canary;
use crate::client::EventKind;
use crate::error::{Refusal, Violation};
use crate::hash::Keyed;
use crate::names::{Address, ChannelName, ClientId, HubId, Name};
use crate::slots::Key;
use crate::wire::{Announce, Attach, Forget, Frame, FrameType, Marks};

/// All bridges of a hub, and what is known through them.
#[derive(Debug)]
pub(super) struct Bridges {
    ports: BTreeMap<LinkIx, Port>,
    pub(super) routes: Routes,
    /// What this hub has itself, kept while there is a bridge: in which realm it was announced, and how it is asked.
    own: BTreeMap<ChannelName, BTreeMap<Goal, Own>>,
    /// How much that is.
    owned: usize,
    /// Channels that another hub protects differently.
    conflicts: BTreeSet<ChannelName>,
    /// Joins of channels that are protected elsewhere, or here by members elsewhere.
    pub(super) errands: Errands,
    pub(super) doubles: Doubles,
    /// Whether something will look when the oldest double is to be forgotten.
    pub(super) forgets: bool,
    /// The calls that came over bridges, by who calls.
    pub(super) running: BTreeMap<Caller, Key>,
    serial: u64,
}

/// By what two calls are the same: caller, instance and number.
pub(super) type Caller = (Address, [u8; 16], u64);

/// A link behind which there is another hub.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) far: HubId,
    /// Of all bridges there were, which one this is.
    pub(super) serial: u64,
    /// Whether it was told that there is more than may be announced.
    full: bool,
    /// What it was told of.
    told: Places,
    /// What it is told of when something that it was told of is gone.
    waits: Places,
    /// Since when messages without an answer wait for it.
    pub(super) marks: Marks,
}

/// How something of this hub was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) realm: Realm,
    pub(super) kind: EventKind,
    pub(super) terms: Option<Terms>,
    pub(super) ended: Option<u64>,
}

impl Bridges {
    pub(super) fn new(hash: Keyed) -> Self {
        Self {
            ports: BTreeMap::new(),
            routes: Routes::new(hash),
            own: BTreeMap::new(),
            owned: 0,
            conflicts: BTreeSet::new(),
            errands: Errands::default(),
            doubles: Doubles::new(hash),
            forgets: false,
            running: BTreeMap::new(),
            serial: 0,
        }
    }

    pub(super) fn port(&self, ix: LinkIx) -> Option<&Port> {
        self.ports.get(&ix)
    }

    pub(super) fn port_mut(&mut self, ix: LinkIx) -> Option<&mut Port> {
        self.ports.get_mut(&ix)
    }

    pub(super) fn is_port(&self, ix: LinkIx) -> bool {
        self.ports.contains_key(&ix)
    }

    /// Whether there is any.
    pub(super) fn exist(&self) -> bool {
        !self.ports.is_empty()
    }

    /// What bridges have told, and what they were told or are to be.
    pub(super) fn announced(&self) -> usize {
        self.routes.len()
            + self.ports.values().map(|port| port.told.len() + port.waits.len()).sum::<usize>()
            + self.owned
    }

    /// An estimate of the memory that everything here takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let told = self.announced() - self.routes.len();
        self.routes.size() + self.doubles.size() + told * TOLD_SIZE + self.errands.len() * ERRAND_SIZE
    }

    /// Whether nothing passes of a channel because another hub protects it differently.
    pub(super) fn is_conflict(&self, channel: Name<'_>) -> bool {
        self.conflicts.contains(channel.as_str())
    }
}

/// What a thing takes that was announced to a bridge. Estimated, and rounded up.
const TOLD_SIZE: usize = 256;
/// What a join from or to another hub takes. Estimated, and rounded up.
const ERRAND_SIZE: usize = 512;

/// What bridges say of themselves.
impl Hub {
    /// What only bridges may say.
    pub(super) fn handle_bridge_frame(
        &mut self,
        ix: LinkIx,
        kind: FrameType,
        frame: &Frame,
    ) -> Result<(), DisconnectReason> {
        let member = self.links.get(ix).and_then(Session::member);
        if !member.is_some_and(|member| member.capabilities.contains(Capabilities::BRIDGE)) {
            return Err(Violation::UnexpectedFrame.into());
        }
        if kind == FrameType::Attach {
            self.handle_attach(ix, frame)
        } else if kind == FrameType::Announce {
            self.handle_announce(ix, frame)
        } else if kind == FrameType::Forget {
            self.handle_forget(ix, frame)
        } else if kind == FrameType::Remote {
            self.handle_remote(ix, frame)
        } else if kind == FrameType::Told {
            self.handle_told(ix, frame)
        } else {
            self.route_fail(ix, frame)
        }
    }

    /// The bridge's other end is a hub, or nothing any more.
    fn handle_attach(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let Attach { id, far } = super::conversation::parse(frame)?;
        let far = far.map(|far| HubId::new(far.as_str())).transpose().map_err(|_| Violation::BadName)?;
        let Some(client) = self.links.get(ix).and_then(Session::member).map(|member| member.client.clone()) else {
            return Ok(());
        };
        if far.as_ref() == Some(&self.id) {
            self.detach(ix, &client);
            self.done(ix, id, Err(Refusal::SameHub));
            return Ok(());
        }
        if self.bridges.port(ix).map(|port| &port.far) != far.as_ref() {
            self.detach(ix, &client);
            if let Some(far) = far {
                self.attach(ix, client, far);
            }
        }
        self.done(ix, id, Ok(()));
        Ok(())
    }

    fn attach(&mut self, ix: LinkIx, client: ClientId, far: HubId) {
        if !self.bridges.exist() {
            self.registry.watch(true);
            self.take_stock();
        }
        self.bridges.serial += 1;
        let port = Port {
            far: far.clone(),
            serial: self.bridges.serial,
            full: false,
            told: Places::default(),
            waits: Places::default(),
            marks: Marks::default(),
        };
        self.bridges.ports.insert(ix, port);
        let of_channel = |(channel, goals): (&ChannelName, &BTreeMap<Goal, Own>)| {
            goals.iter().map(|(goal, own)| (own.placed(channel, goal), own.way())).collect::<Vec<_>>()
        };
        let own: Vec<_> = self.bridges.own.iter().flat_map(of_channel).collect();
        for (place, way) in own {
            self.announce_to(ix, &place, &way);
        }
        for (place, link, way) in self.bridges.routes.all() {
            self.tell_bridge(ix, &place, &Some((link, way)), true);
        }
        self.event(Event::BridgeUp { client, hub: far });
    }

    /// Nothing comes over this link from another hub any more: what it led to is gone.
    pub(super) fn detach(&mut self, ix: LinkIx, client: &ClientId) {
        let Some(port) = self.bridges.ports.remove(&ix) else { return };
        self.bridges.doubles.leave(port.serial, self.limits.bridge_doubles);
        for place in self.bridges.routes.of(ix) {
            self.unlearn(ix, &place);
        }
        if !self.bridges.exist() {
            self.registry.watch(false);
            self.bridges.own.clear();
            self.bridges.owned = 0;
            self.bridges.conflicts.clear();
        }
        self.abandon_far_calls(ix);
        self.end_errands(ix);
        self.event(Event::BridgeDown { client: client.clone(), hub: port.far });
    }

    fn handle_announce(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let announced = super::conversation::parse::<Announce<'_>>(frame)?;
        let Some(port) = self.bridges.port(ix) else { return Ok(()) };
        let Some((place, way)) = read_announced(&announced) else {
            self.counters.misannounced += 1;
            return Ok(());
        };
        let from_there = way.path.first() == Some(&port.far) && !place.channel.as_name().is_reserved();
        if !from_there || !all_differ(&way.path) {
            self.counters.misannounced += 1;
            return Ok(());
        }
        // Ours already, or further than a message may go: what was announced before holds no more.
        let ours = way.passes(self.id.as_name()) && !Canary::OwnHub.sings();
        if ours || way.path.len() >= usize::from(self.limits.hops) {
            self.unlearn(ix, &place);
            return Ok(());
        }
        let quota = Quota::of_routes(&self.limits);
        let fits = self.bridges.routes.has_room(ix, quota, way.path.len()) && !self.is_full();
        if !fits && !self.bridges.routes.has(ix, &place) {
            self.counters.unlearned += 1;
            self.tell_full(ix);
            return Ok(());
        }
        // Whether this is the way to the home is judged by what was known before.
        self.home_announced(ix, &place, &way);
        let turn = self.bridges.routes.learn(ix, &place, way);
        self.turned(&place, &turn);
        self.look_for_conflict(&place.channel);
        Ok(())
    }

    fn handle_forget(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let forget = super::conversation::parse::<Forget<'_>>(frame)?;
        let Forget { goal, channel, event, hub, client, epoch, home } = forget;
        match read_place((goal, channel, event), hub, client, (epoch, home)) {
            Some(place) => self.unlearn(ix, &place),
            None => self.counters.misannounced += 1,
        }
        Ok(())
    }

    fn unlearn(&mut self, ix: LinkIx, place: &Place) {
        if let Some(turn) = self.bridges.routes.unlearn(ix, place) {
            self.turned(place, &turn);
            self.home_forgotten(place);
            if self.bridges.is_conflict(place.channel.as_name()) {
                self.look_for_conflict(&place.channel);
            }
        }
    }

    fn tell_full(&mut self, ix: LinkIx) {
        let client = self.links.get(ix).and_then(Session::member).map(|member| member.client.clone());
        if let Some(port) = self.bridges.ports.get_mut(&ix)
            && !core::mem::replace(&mut port.full, true)
            && let Some(client) = client
        {
            self.event(Event::BridgeFull { client });
        }
    }
}

/// What is told to bridges.
impl Hub {
    /// Something has another best way, or none: every bridge for which that makes a difference is told.
    fn turned(&mut self, place: &Place, turn: &Turn) {
        if turn.before == turn.after || turn.after.is_none() && Canary::Unforgotten.sings() {
            return;
        }
        for port in self.ports() {
            self.tell_bridge(port, place, &turn.after, true);
        }
    }

    /// Whether nobody is told of something because this hub drains: requests are to go elsewhere.
    fn is_withheld(&self, place: &Place) -> bool {
        self.is_draining() && matches!(place.goal, Goal::Provider(..))
    }

    /// Takes back that anybody can be asked here or beyond.
    pub(super) fn withdraw_providers(&mut self) {
        for ix in self.ports() {
            let told = self.bridges.port(ix).map(|port| &port.told);
            let providers: Vec<Place> =
                told.into_iter().flat_map(Places::iter).filter(|it| self.is_withheld(it)).cloned().collect();
            for place in providers {
                self.tell_bridge(ix, &place, &None, false);
            }
        }
    }

    fn ports(&self) -> Vec<LinkIx> {
        self.bridges.ports.keys().copied().collect()
    }

    /// Tells a bridge of the best way to something if it is to know it, `again` even if it does, and that there is none if
    /// it believes that there is.
    fn tell_bridge(&mut self, ix: LinkIx, place: &Place, best: &Best, again: bool) {
        let wanted = self.is_told(ix, place, best);
        let Some(port) = self.bridges.ports.get_mut(&ix) else { return };
        match (wanted, best) {
            (true, Some((_, way))) => {
                if again || !port.told.contains(place) {
                    self.announce_to(ix, place, way);
                }
            }
            (true | false, _) => self.untell(ix, place),
        }
    }

    /// Takes back what a bridge was told.
    fn untell(&mut self, ix: LinkIx, place: &Place) {
        let Some(port) = self.bridges.ports.get_mut(&ix) else { return };
        port.waits.remove(place);
        if !port.told.remove(place) {
            return;
        }
        self.say_forgotten(ix, place);
        self.tell_waiting(ix);
    }

    /// Tells a bridge of what there was no room for, the nearest first.
    fn tell_waiting(&mut self, ix: LinkIx) {
        let quota = Quota::of_routes(&self.limits);
        while let Some(Port { told, waits, .. }) = self.bridges.ports.get_mut(&ix)
            && let Some(place) = waits.take_nearest(|hubs| told.has_room(quota, hubs))
        {
            let own = self.bridges.own.get(&place.channel).and_then(|goals| goals.get(&place.goal));
            match own.filter(|own| own.realm == place.realm).map(Own::way) {
                Some(way) => self.announce_to(ix, &place, &way),
                None => self.tell_bridge(ix, &place, &self.bridges.routes.best(&place).cloned(), true),
            }
        }
    }

    /// Tells a bridge of something, as long as it is told of no more than a hub may know.
    fn announce_to(&mut self, ix: LinkIx, place: &Place, way: &Way) {
        if self.is_withheld(place) {
            return;
        }
        let quota = Quota::of_routes(&self.limits);
        let Some(port) = self.bridges.ports.get_mut(&ix) else { return };
        // There, this hub is on the way.
        let hubs = way.path.len() + 1;
        if !port.told.contains(place) && !port.told.has_room(quota, hubs) {
            port.waits.put(place.clone(), hubs);
            self.counters.unlearned += 1;
            return self.tell_full(ix);
        }
        port.waits.remove(place);
        let makes_room = port.told.put(place.clone(), hubs);
        self.say_announced(ix, place, way);
        if makes_room {
            self.tell_waiting(ix);
        }
    }

    /// A channel of this hub has come to be, is protected in another way, or is gone: what is announced of it follows.
    fn channel_changed(&mut self, channel: &ChannelName) {
        let home = Goal::Home(self.id.clone());
        let terms = self.home_of(channel);
        let had = self.bridges.own.get(channel).and_then(|goals| goals.get(&home)).cloned();
        if had != terms {
            // The same place in another state is never gone in between.
            if had.map(|had| had.realm) != terms.as_ref().map(|own| own.realm.clone()) {
                self.have_not(channel.clone(), home.clone());
            }
            if let Some(own) = terms {
                self.have_as(channel.clone(), home.clone(), own);
            }
        }
        let now = self.registry.by_name(channel.as_name()).map(|(_, here)| self.realm_of(here)).unwrap_or_default();
        let moved =
            |(goal, own): (&Goal, &Own)| (*goal != home && own.realm != now).then(|| (goal.clone(), own.clone()));
        let moved: Vec<_> = self.bridges.own.get(channel).into_iter().flatten().filter_map(moved).collect();
        for (goal, own) in moved {
            self.have_not(channel.clone(), goal.clone());
            self.have_as(channel.clone(), goal, Own { realm: now.clone(), ..own });
        }
        for (place, link, way) in self.bridges.routes.of_channel(channel) {
            let best = Some((link, way));
            for port in self.ports() {
                self.tell_bridge(port, &place, &best, false);
            }
        }
        self.look_for_conflict(channel);
    }

    /// Whether another hub has a channel of this name that is another channel; told once.
    fn look_for_conflict(&mut self, channel: &ChannelName) {
        let here =
            self.registry.by_name(channel.as_name()).map(|(_, here)| (self.realm_of(here), here.guard.last_epoch));
        // Of one home, there may be two epochs for the time it takes to tell everybody, and one that is no more.
        let other = |(here, last): (Realm, u64)| {
            let was_ours = |there: &Realm| there.home.as_ref() == Some(&self.id) && there.epoch <= last;
            let mut realms = self.bridges.routes.inhabited(channel.as_name());
            realms.find(|there| there.home != here.home && !was_ours(there)).map(|there| there.home.clone())
        };
        match here.and_then(other) {
            Some(home) => {
                if self.bridges.conflicts.insert(channel.clone()) {
                    self.event(Event::ProtectionConflict { channel: channel.clone(), home });
                }
            }
            None => {
                self.bridges.conflicts.remove(channel);
            }
        }
    }

    /// Whether a bridge is told of this way: not where it comes from, and not who is on it.
    fn is_told(&self, port: LinkIx, place: &Place, best: &Best) -> bool {
        let (Some((link, way)), Some(port_)) = (best, self.bridges.port(port)) else { return false };
        *link != port
            && (!way.passes(port_.far.as_name()) || Canary::OwnHub.sings())
            && way.path.len() + 1 < usize::from(self.limits.hops)
            && self.is_same_channel(place)
            && !self.is_withheld(place)
    }

    /// Whether a channel elsewhere is the one of this hub, if there is one here.
    pub(super) fn is_same_channel(&self, place: &Place) -> bool {
        self.registry.by_name(place.channel.as_name()).is_none_or(|(_, here)| self.realm_of(here) == place.realm)
    }

    /// Which channel of its name a channel of this hub is.
    pub(super) fn realm_of(&self, channel: &super::registry::Channel) -> Realm {
        if let Some(mirror) = &channel.guard.mirror {
            return mirror.clone();
        }
        match channel.guard.epoch() {
            0 => Realm::default(),
            epoch => Realm { home: Some(self.id.clone()), epoch },
        }
    }

    /// Notes what this hub has, before the first bridge is told of it.
    fn take_stock(&mut self) {
        let (mut stock, mut names) = (Vec::new(), Vec::new());
        for (_, channel) in self.registry.channels_from(0) {
            let name = channel.name().clone();
            names.push(name.clone());
            for (_, link) in channel.members_after(0) {
                if let Some(member) = self.links.get(link).and_then(Session::member) {
                    stock.push((name.clone(), Goal::Member(self.address(&member.client)), EventKind::Call));
                }
            }
            for (event, provider) in channel.all_providers() {
                if let Some(member) = self.links.get(provider.link).and_then(Session::member) {
                    let goal = Goal::Provider(event.clone(), self.address(&member.client));
                    stock.push((name.clone(), goal, provider.kind));
                }
            }
            for event in channel.listened() {
                stock.push((name.clone(), Goal::Listener(event.cloned(), self.id.clone()), EventKind::Call));
            }
        }
        for (channel, goal, kind) in stock {
            self.have(channel, goal, kind);
        }
        for channel in names.into_iter().filter(|name| !name.as_name().is_reserved()) {
            self.channel_changed(&channel);
        }
    }

    fn address(&self, client: &ClientId) -> Address {
        Address { client: client.clone(), hub: self.id.clone() }
    }

    /// This hub has something that can be reached here.
    fn have(&mut self, channel: ChannelName, goal: Goal, kind: EventKind) {
        if channel.as_name().is_reserved() {
            return;
        }
        let realm = self.registry.by_name(channel.as_name()).map(|(_, channel)| self.realm_of(channel));
        self.have_as(channel, goal, Own { realm: realm.unwrap_or_default(), kind, terms: None, ended: None });
    }

    pub(super) fn have_as(&mut self, channel: ChannelName, goal: Goal, own: Own) {
        let (place, way) = (own.placed(&channel, &goal), own.way());
        let before = self.bridges.own.entry(channel).or_default().insert(goal, own);
        self.bridges.owned += usize::from(before.is_none());
        for port in self.ports() {
            self.announce_to(port, &place, &way);
        }
    }

    /// It has it no more.
    fn have_not(&mut self, channel: ChannelName, goal: Goal) {
        let Some(goals) = self.bridges.own.get_mut(&channel) else { return };
        let own = goals.remove(&goal);
        if goals.is_empty() {
            self.bridges.own.remove(&channel);
        }
        let Some(place) = own.map(|own| own.placed(&channel, &goal)) else { return };
        self.bridges.owned -= 1;
        for ix in self.ports() {
            self.untell(ix, &place);
        }
    }

    /// What happens here, as far as it concerns bridges.
    pub(super) fn tell_bridges(&mut self, event: &Event) {
        if !self.bridges.exist() {
            return;
        }
        match event {
            Event::Joined { channel, client } => {
                self.have(channel.clone(), Goal::Member(self.address(client)), EventKind::Call);
            }
            Event::Left { channel, client } => self.have_not(channel.clone(), Goal::Member(self.address(client))),
            Event::Provided { channel, event, client, kind } => {
                self.have(channel.clone(), Goal::Provider(event.clone(), self.address(client)), *kind);
            }
            Event::Withdrawn { channel, event, client } => {
                self.have_not(channel.clone(), Goal::Provider(event.clone(), self.address(client)));
            }
            Event::Connected { .. }
            | Event::Terminated { .. }
            | Event::Disconnected { .. }
            | Event::Rejected { .. }
            | Event::OwnerChanged { .. }
            | Event::ProtectionChanged { .. }
            | Event::Looped { .. }
            | Event::BridgeUp { .. }
            | Event::BridgeDown { .. }
            | Event::BridgeFull { .. }
            | Event::ProtectionConflict { .. }
            | Event::SlowConsumer { .. }
            | Event::Cleared { .. }
            | Event::Store { .. }
            | Event::Draining { .. }
            | Event::Drained { .. }
            | Event::Stopped => {}
        }
    }

    /// Tells bridges which events have a first listener here now, or none any more, and which channels have changed.
    pub(super) fn tell_changes(&mut self) {
        for (channel, event, listened) in self.registry.take_turned() {
            let goal = Goal::Listener(event, self.id.clone());
            if listened {
                self.have(channel, goal, EventKind::Call);
            } else {
                self.have_not(channel, goal);
            }
        }
        // Of a channel that is gone nothing is left by now that would seem to be of another one.
        for channel in self.registry.take_changed() {
            if !channel.as_name().is_reserved() {
                self.channel_changed(&channel);
            }
        }
    }
}

impl Own {
    fn placed(&self, channel: &ChannelName, goal: &Goal) -> Place {
        Place { channel: channel.clone(), realm: self.realm.clone(), goal: goal.clone() }
    }

    fn way(&self) -> Way {
        Way { path: Arc::from([]), kind: self.kind, terms: self.terms, ended: self.ended }
    }
}
