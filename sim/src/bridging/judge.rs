//! What must hold when everything is repaired and the time is over in which everything must be back.

use commipc_protocol::client::{Command, Token};
use commipc_protocol::{ChannelName, ClientId};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::work::{CALLED, KEPT, STREAMED, channel_name, event_name};
use super::{Bridging, NEWS, Phase, items_of};
use crate::leaving::FORGOTTEN;
use crate::node::NodeId;
use crate::returning::beliefs::{Link, Place};
use crate::returning::judge::back_within;
use crate::station::Station;
use crate::twin::Twins;
use crate::world::World;

/// How long what is said then may take.
const SOON: Duration = Duration::from_secs(20);
/// Longer than anything is remembered of what has gone, or said of it: copies, and what senders remind listeners of.
const OVER: Duration = Duration::from_secs(130);
/// What goes on between two ends that have nothing to say, for each time that one asks whether the other is there: inputs and
/// outputs, where reads are cut small.
const IDLE_EVENTS: u64 = 200;

impl Bridging {
    pub(super) fn settle(&mut self, world: &mut World) {
        // A client that has its connection again may wait for what a bridge leads to.
        let mut bound = back_within(&self.limits, &self.policy) + 2 * self.policy.longest;
        if self.besieged {
            // Who seems to guess waits.
            bound += self.limits.failure_delay_max;
        }
        self.pass(world, bound);
        let rest = [
            Self::judge_links,
            Self::judge_kept,
            Self::judge_words,
            Self::judge_calls,
            Self::judge_streams,
            Self::judge_nothing,
            Self::judge_quiet,
        ];
        for judge in rest {
            // What comes after a failure follows from it.
            if world.has_failed() {
                return;
            }
            judge(self, world);
        }
    }

    /// Whether an application waits for a channel that nobody can give back its password: its owner is gone for good.
    fn waits_for_owner(&self, actor: usize) -> bool {
        let (belief, kept) = (&self.beliefs[actor], channel_name(KEPT));
        let owned = self.beliefs.iter().any(|belief| belief.rooms.get(&kept).is_some_and(|room| room.owns));
        let missing = belief.link == Link::Restoring || belief.rooms.get(&kept).is_some_and(|room| room.late);
        missing && belief.rooms.contains_key(&kept) && !owned
    }

    fn judge_links(&mut self, world: &mut World) {
        for (edge, node) in self.bridges.clone().into_iter().enumerate() {
            if !world.is_bridged(node) {
                let what = format!("{:?} are not joined: {:?}", self.graph.edges[edge], world.bridge_told(node));
                world.fails("bridges", node, what);
            }
        }
        for actor in 0..self.beliefs.len() {
            let belief = &self.beliefs[actor];
            if self.waits_for_owner(actor) {
                self.marks.met("a channel whose owner is gone for good is waited for");
            } else if belief.link != Link::Whole {
                let what = format!("it is {:?}: {:?}", belief.link, belief.rooms);
                world.fails("bridges", belief.node, what);
            }
        }
    }

    /// The channels that an application has and can speak on.
    fn rooms(&self, actor: usize) -> Vec<(ChannelName, bool)> {
        let waits = self.waits_for_owner(actor);
        let rooms = self.beliefs[actor]
            .rooms
            .iter()
            .filter(|(channel, room)| !(room.late || waits && channel.as_str() == KEPT));
        rooms.map(|(channel, room)| (channel.clone(), room.guarded)).collect()
    }

    fn has(&self, actor: usize, channel: &ChannelName) -> bool {
        self.rooms(actor).iter().any(|(other, _)| other == channel)
    }

    /// What every member says reaches all who believe that they hear it, at whichever hub, once.
    fn judge_words(&mut self, world: &mut World) {
        let mut said = Vec::new();
        for (actor, event) in (0..self.beliefs.len()).zip(CALLED.iter().cycle()) {
            for (channel, guarded) in self.rooms(actor) {
                let outgoing = self.outgoing_of(world, actor, (channel.clone(), *event), guarded);
                let hear: Vec<_> = self.beliefs.iter().map(|it| it.hearers(&channel, &event_name(event))).collect();
                said.push((actor, channel, *event, hear, outgoing.payload.bytes.clone()));
                let token = world.token();
                self.ask(world, actor, Command::Broadcast { token, outgoing });
            }
        }
        self.beliefs.iter_mut().for_each(|belief| belief.heard.clear());
        self.copies = 0;
        self.pass(world, SOON);
        if self.copies > 0 {
            let what = format!("{} copies reached somebody who had heard it: {self:?}", self.copies);
            return world.fails("bridges", self.hubs[0], what);
        }
        for (speaker, channel, event, hear, bytes) in said {
            for (hearer, mut wants) in hear.into_iter().enumerate().filter(|(hearer, _)| *hearer != speaker) {
                // A channel that was held for its owner may end meanwhile.
                let stays = self.beliefs[hearer].hearers(&channel, &event_name(event)) == wants;
                if !stays || !self.has(hearer, &channel) || !self.has(speaker, &channel) {
                    continue;
                }
                let heard = self.beliefs[hearer].heard.iter().filter(|heard| heard.message.payload.bytes == bytes);
                let mut heard: Vec<Token> = heard.map(|heard| heard.to).collect();
                wants.sort_unstable();
                heard.sort_unstable();
                if wants != heard {
                    let what =
                        format!("{wants:?} hear {channel}@{event}, and {heard:?} heard what c{speaker} said: {self:?}");
                    return world.fails("bridges", self.beliefs[hearer].node, what);
                }
                let (from, to) = (self.at[speaker], self.at[hearer]);
                self.marks.met(if from == to { "quiet: heard at one hub" } else { "quiet: heard at another hub" });
            }
        }
    }

    /// What can be asked for, by what applications believe.
    fn provided(&self, streams: bool) -> BTreeMap<Place, Vec<usize>> {
        let mut provided: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
        for actor in 0..self.beliefs.len() {
            for place in self.beliefs[actor].provided.keys() {
                if (place.1.as_str() == STREAMED) == streams && self.has(actor, &place.0) {
                    provided.entry(place.clone()).or_default().push(actor);
                }
            }
        }
        provided
    }

    /// Of all who provide something, those that are nearest to a hub.
    fn nearest(&self, from: usize, providers: &[usize]) -> BTreeSet<ClientId> {
        let distances = self.graph.distances(from);
        let far = |actor: &usize| distances[self.at[*actor]];
        let least = providers.iter().map(far).min();
        let nearest = providers.iter().filter(|actor| Some(far(actor)) == least);
        nearest.map(|actor| self.beliefs[*actor].id.clone()).collect()
    }

    /// A call of every member is answered by the nearest of those who believe to provide it, over the fewest hubs.
    fn judge_calls(&mut self, world: &mut World) {
        let mut asked = Vec::new();
        for (place, providers) in self.provided(false) {
            for caller in (0..self.beliefs.len()).filter(|caller| self.has(*caller, &place.0)).collect::<Vec<_>>() {
                let guarded = self.beliefs[caller].rooms.get(&place.0).is_some_and(|room| room.guarded);
                let outgoing = self.outgoing_of(world, caller, (place.0.clone(), place.1.as_str()), guarded);
                let token = world.token();
                let by = self.nearest(self.at[caller], &providers);
                asked.push((caller, token, by, place.clone()));
                self.ask(world, caller, Command::Call { token, outgoing, time_left: SOON });
            }
        }
        self.pass(world, SOON + NEWS);
        for (caller, token, by, place) in asked {
            let answer = self.beliefs[caller].answers.get(&token).cloned();
            if !matches!(&answer, Some(Ok(provider)) if by.contains(provider)) && self.has(caller, &place.0) {
                let what = format!("its call to {place:?} of {by:?} ended with {answer:?}: {self:?}");
                return world.fails("bridges", self.beliefs[caller].node, what);
            }
            self.marks.met("quiet: a call is answered");
        }
    }

    /// The same for streams, which are whole.
    fn judge_streams(&mut self, world: &mut World) {
        let mut asked = Vec::new();
        for (place, _) in self.provided(true) {
            for caller in (0..self.beliefs.len()).filter(|caller| self.has(*caller, &place.0)).collect::<Vec<_>>() {
                let guarded = self.beliefs[caller].rooms.get(&place.0).is_some_and(|room| room.guarded);
                let outgoing = self.outgoing_of(world, caller, (place.0.clone(), place.1.as_str()), guarded);
                let number = self.said;
                let token = self.asks_stream(world, caller, outgoing, SOON);
                asked.push((caller, token, number, place.clone()));
            }
        }
        self.pass(world, SOON + NEWS);
        for (caller, token, number, place) in asked {
            let ended = self.streamed.get(&token);
            let whole = ended.is_some_and(|(items, result)| *items == items_of(number) && *result == Some(Ok(())));
            if !whole && self.has(caller, &place.0) {
                let what = format!("its stream of {place:?} ended with {ended:?}: {self:?}");
                return world.fails("bridges", self.beliefs[caller].node, what);
            }
            self.marks.met("quiet: a stream is whole");
        }
    }

    /// Nobody is believed to provide what nobody provides.
    fn judge_nothing(&mut self, world: &mut World) {
        let (provided, mut asked) = (self.provided(false), Vec::new());
        for caller in 0..self.beliefs.len() {
            for (channel, guarded) in self.rooms(caller) {
                for event in CALLED {
                    let place = (channel.clone(), event_name(event));
                    if provided.contains_key(&place) {
                        continue;
                    }
                    let outgoing = self.outgoing_of(world, caller, (channel.clone(), event), guarded);
                    let token = world.token();
                    self.ask(world, caller, Command::Call { token, outgoing, time_left: SOON });
                    asked.push((caller, token, place));
                }
            }
        }
        self.pass(world, SOON + NEWS);
        for (caller, token, place) in asked {
            let answer = self.beliefs[caller].answers.get(&token);
            let nobody = matches!(answer, Some(Err(failure)) if failure.contains("NoProvider"));
            if !nobody && self.has(caller, &place.0) {
                let what = format!("nobody provides {place:?}, and its call ended with {answer:?}: {self:?}");
                return world.fails("bridges", self.beliefs[caller].node, what);
            }
            self.marks.met("quiet: nobody provides it");
        }
    }

    /// Messages that hubs and bridges have passed on.
    fn passed(&self, world: &World) -> Vec<(NodeId, u64)> {
        let by = |node: &NodeId| match world.engine.machine(*node).map(Twins::shown) {
            Some(Station::Hub(hub)) => (*node, hub.counters().forwarded),
            Some(Station::Bridge(bridge)) => (*node, bridge.counters().passed),
            Some(Station::Client(_) | Station::Mallory(_) | Station::Rogue(_)) | None => (*node, 0),
        };
        self.hubs.iter().chain(&self.bridges).map(by).collect()
    }

    /// Once nobody says anything nothing goes on, but that both ends of lines ask whether the other is there.
    fn judge_quiet(&mut self, world: &mut World) {
        self.pass(world, OVER);
        let (passed, events) = (self.passed(world), world.trace().events());
        let quiet = self.limits.idle;
        self.pass(world, quiet);
        let now = self.passed(world);
        if now != passed {
            return world.fails("bridges", self.hubs[0], format!("messages go round: {passed:?}, later {now:?}"));
        }
        let lines = 2 * (self.beliefs.len() + 2 * self.bridges.len()) as u64;
        let most = lines * (quiet.as_secs() / self.limits.heartbeat.as_secs().max(1) + 1) * IDLE_EVENTS;
        let events = world.trace().events() - events;
        if events > most {
            world.fails("bridges", self.hubs[0], format!("{events} inputs and outputs while nobody says anything"));
        }
        self.judge_rested(world);
    }

    fn judge_rested(&self, world: &mut World) {
        let waiting = |(actor, belief): (usize, &super::Belief)| self.waits_for_owner(actor).then_some(belief.node);
        let waiting: Vec<NodeId> = self.beliefs.iter().enumerate().filter_map(waiting).collect();
        for node in world.clients().into_iter().chain(self.hubs.clone()).chain(self.bridges.clone()) {
            if waiting.is_empty() || !waiting.contains(&node) {
                world.judge_rested(node);
            }
        }
    }

    /// Everybody leaves, and is forgotten everywhere; then bridges leave.
    pub(super) fn end(&mut self, world: &mut World) {
        for actor in 0..self.beliefs.len() {
            self.ask(world, actor, Command::Close);
        }
        self.phase = Phase::Over;
        self.pass(world, OVER);
        for (node, hub) in self.hubs.clone().into_iter().zip(0..) {
            let joined = self.graph.edges.iter().filter(|edge| edge.contains(&hub)).count();
            // For a day, where a channel had its password: its own, and what was told to a bridge and by one.
            let most = if self.guards { 1 + 2 * joined } else { 0 };
            let known = match world.engine.machine(node).map(Twins::shown) {
                Some(Station::Hub(hub)) => hub.load().announced,
                Some(Station::Client(_) | Station::Bridge(_) | Station::Mallory(_) | Station::Rogue(_)) | None => 0,
            };
            if known > most {
                let what = format!("everybody has left, and hub {hub} knows of {known} things: {self:?}");
                return world.fails("bridges", node, what);
            }
        }
        world.ended = true;
        for node in self.bridges.clone() {
            world.ask_bridge(node, commipc_protocol::bridge::Command::Close);
        }
        self.pass(world, FORGOTTEN);
        for node in self.hubs.clone() {
            world.judge_empty(node);
            world.ask_hub(node, commipc_protocol::hub::Command::Shutdown);
        }
        for node in world.clients().into_iter().chain(self.bridges.clone()) {
            world.judge_empty(node);
        }
        world.judge_settled();
    }
}

/// Who is where, and has what.
impl std::fmt::Debug for Bridging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bridges {:?}", self.graph.edges)?;
        for (belief, at) in self.beliefs.iter().zip(&self.at) {
            let rooms: Vec<&str> = belief.rooms.keys().map(|channel| channel.as_str()).collect();
            let provided: Vec<String> =
                belief.provided.keys().map(|(channel, event)| format!("{channel}@{event}")).collect();
            write!(f, "; {} at h{at} in {rooms:?} provides {provided:?}", belief.id)?;
        }
        Ok(())
    }
}
