//! What must hold when everything is repaired and the time is over in which everything must be back.

use std::collections::BTreeSet;

use commipc_protocol::client::{Away, Command, Reconnect, Token};
use commipc_protocol::{ChannelName, ClientId, EventName, Instant, Limits};
use core::time::Duration;

use super::beliefs::{Link, Place};
use super::work::{CHANNELS, EVENTS, channel_name, event_name};
use super::{LONGEST_DERIVATION, Returning};
use crate::oracles::Password;
use crate::station::Station;
use crate::world::World;

/// How late drivers are with all timers of a way back together, and what lines take, more than twice.
const SLACK: Duration = Duration::from_secs(5);
/// Longer than it takes what is on its way to arrive.
const NEWS: Duration = Duration::from_secs(2);
/// How long what is said then may take.
const SOON: Duration = Duration::from_secs(20);
/// Whoever is offered a channel may think for so long, and so many are asked.
const OFFERS: Duration = Duration::from_secs(5 * 8);

/// How long it takes at most, from when everything is repaired, until every client has its connection again and everything
/// that hung on it.
pub(crate) fn back_within(limits: &Limits, policy: &Reconnect) -> Duration {
    let try_takes = limits.dial + limits.handshake;
    // A half-open link is given up; or a try is under way, and then the longest wait. A hub gives up the link that holds the
    // id as late; then comes one try more.
    let notices = limits.idle.max(try_takes + policy.longest);
    let connected = notices + policy.longest + try_takes;
    // The owner first, which finds its place or hears that it has none. Then members look again.
    let derives = Duration::from_nanos(LONGEST_DERIVATION);
    let owners = OFFERS + 2 * limits.registration + derives;
    connected + owners + policy.longest + 2 * limits.registration + derives + SLACK
}

/// How often a client dials in such a time at most: at once, after waits that double, and then after half the longest wait or
/// more each time; and that anew, if the link that it had leads nowhere.
pub(super) fn dials_within(time: Duration, policy: &Reconnect) -> usize {
    let doublings =
        (policy.longest.as_secs() / policy.first.as_secs().max(1)).checked_ilog2().unwrap_or(0) as usize + 1;
    let waits = time.as_nanos().div_ceil((policy.longest / 2).as_nanos().max(1));
    2 * (1 + doublings) + usize::try_from(waits).unwrap_or(usize::MAX)
}

impl Returning {
    pub(super) fn settle(&mut self, world: &mut World) {
        let healed = world.now();
        let bound = back_within(&self.limits, &self.policy) + self.faults.turned_back;
        self.pass(world, bound);
        self.judge_links(world);
        if self.is_consistent(world).is_err() {
            // What the hub has done a moment ago may be on its way.
            self.pass(world, NEWS);
        }
        self.judge_beliefs(world);
        self.judge_dials(world, healed, dials_within(bound, &self.policy));
        let rest = [
            Self::judge_protection,
            Self::judge_words,
            Self::judge_calls,
            Self::judge_streams,
            Self::judge_quiet,
            Self::judge_missing,
            Self::judge_owners,
        ];
        for judge in rest {
            // What comes after a failure follows from it.
            if world.has_failed() {
                return;
            }
            judge(self, world);
        }
    }

    /// Nothing goes on by itself.
    fn judge_quiet(&mut self, world: &mut World) {
        let quiet = world.now();
        self.pass(world, 3 * self.limits.idle);
        self.judge_links(world);
        self.judge_dials(world, quiet, 0);
    }

    /// Whether a client waits for a channel that nobody can give back its password: its owner is gone for good.
    fn is_orphaned(&self, channel: &ChannelName) -> bool {
        let owned = |belief: &super::Belief| belief.rooms.get(channel).is_some_and(|room| room.owns && room.guarded);
        !self.beliefs.iter().any(owned)
    }

    /// The channels that an application was told to be missing.
    fn missing(&self, actor: usize) -> BTreeSet<ChannelName> {
        let rooms = self.beliefs[actor].rooms.iter();
        rooms.filter(|(_, room)| room.late).map(|(channel, _)| channel.clone()).collect()
    }

    fn judge_links(&mut self, world: &mut World) {
        for actor in 0..self.beliefs.len() {
            let missing = self.missing(actor);
            let belief = &self.beliefs[actor];
            // What is missing nobody can give it.
            let cannot = |channel: &ChannelName| belief.rooms[channel].guarded && self.is_orphaned(channel);
            if belief.link != Link::Whole || !missing.iter().all(cannot) {
                let what = format!("it is {:?}, and misses {missing:?}: {:?}", belief.link, belief.rooms);
                world.fails("returning", belief.node, what);
            }
            if !missing.is_empty() {
                self.marks.met("a channel whose owner is gone for good is waited for");
            }
        }
    }

    /// What applications believe and what the hub says are the same.
    fn judge_beliefs(&mut self, world: &mut World) {
        if let Err(what) = self.is_consistent(world) {
            world.fails("returning", self.hub, what);
        }
    }

    fn is_consistent(&self, world: &World) -> Result<(), String> {
        let ids: BTreeSet<ClientId> = self.beliefs.iter().map(|belief| belief.id.clone()).collect();
        same("connected clients", &self.claims.connected, &ids)?;
        if let Some(Station::Hub(hub)) = world.engine.machine(self.hub).map(crate::twin::Twins::shown) {
            let load = hub.load();
            same("links and clients of the hub", &(load.links, load.clients), &(ids.len(), ids.len()))?;
            same("calls on their way", &load.calls, &0)?;
        }
        for channel in CHANNELS.map(channel_name) {
            let members = self.claims.members.get(&channel).cloned().unwrap_or_default();
            let believed = self.beliefs.iter().enumerate().filter(|(actor, belief)| {
                belief.rooms.contains_key(&channel) && !self.missing(*actor).contains(&channel)
            });
            let believed = believed.map(|(_, belief)| belief.id.clone()).collect();
            same(&format!("members of {channel}"), &members, &believed)?;
            let owners: BTreeSet<ClientId> = self.believed_owners(&channel).into_iter().collect();
            let owner = self.claims.owners.get(&channel).cloned();
            if !owners.is_empty() {
                same(&format!("owners of {channel}"), &owner.iter().cloned().collect(), &owners)?;
            }
            for (actor, belief) in self.beliefs.iter().enumerate() {
                let room = belief.rooms.get(&channel).filter(|_| !self.missing(actor).contains(&channel));
                if let Some(told) = room.and_then(|room| room.owner.as_ref())
                    && !(owner.is_none() && self.past.awaits_owners(world.now()))
                {
                    same(&format!("the owner of {channel}, to {}", belief.id), &owner, told)?;
                }
            }
        }
        let mut believed: Vec<_> = Vec::new();
        for (actor, belief) in self.beliefs.iter().enumerate() {
            let missing = self.missing(actor);
            let provided = belief.provided.keys().filter(|(channel, _)| !missing.contains(channel));
            believed.extend(provided.map(|place| (place.clone(), belief.id.clone())));
            let waits = belief.asked.values().filter(|asked| !missing.contains(asked.channel())).collect::<Vec<_>>();
            if !waits.is_empty() || !belief.calls.is_empty() {
                return Err(format!("{} still waits for {waits:?} and {:?}", belief.id, belief.calls));
            }
            let left = world.census(belief.node).left();
            if missing.is_empty() && !left.is_empty() {
                return Err(format!("{} still holds {left:?}", belief.id));
            }
        }
        believed.sort();
        let provided: Vec<_> = self.claims.provided.iter().map(|(place, id)| (place.clone(), id.clone())).collect();
        same("providers", &provided, &believed)
    }

    fn believed_owners(&self, channel: &ChannelName) -> Vec<ClientId> {
        let owns = |belief: &&super::Belief| belief.rooms.get(channel).is_some_and(|room| room.owns);
        self.beliefs.iter().filter(owns).map(|belief| belief.id.clone()).collect()
    }

    fn judge_dials(&mut self, world: &mut World, since: Instant, most: usize) {
        for belief in &self.beliefs {
            let count = world.dials().iter().filter(|(at, node)| *at > since && *node == belief.node).count();
            if count > most {
                let what = format!("it dialled {count} times where {most} are enough");
                world.fails("returning", belief.node, what);
            }
        }
    }

    /// What every member says reaches all who believe that they hear it, once.
    fn judge_words(&mut self, world: &mut World) {
        let mut said = Vec::new();
        for (actor, event) in (0..self.beliefs.len()).flat_map(|actor| EVENTS.map(|event| (actor, event_name(event)))) {
            for (channel, guarded) in self.whole_rooms(actor) {
                let outgoing = self.says(world, actor, channel.clone(), event.clone(), guarded, Away::Fail);
                let hear = self.beliefs.iter().map(|belief| belief.hearers(&channel, &event)).collect::<Vec<_>>();
                said.push((actor, channel, event.clone(), hear, outgoing.payload.bytes.clone()));
                let token = world.token();
                self.ask(world, actor, Command::Broadcast { token, outgoing });
            }
        }
        self.beliefs.iter_mut().for_each(|belief| belief.heard.clear());
        self.pass(world, SOON);
        for (speaker, channel, event, hear, bytes) in said {
            for (hearer, mut wants) in hear.into_iter().enumerate().filter(|(hearer, _)| *hearer != speaker) {
                // A channel that was held for its owner may end meanwhile.
                let stays = self.beliefs[hearer].hearers(&channel, &event) == wants;
                if !stays || self.missing(hearer).contains(&channel) {
                    continue;
                }
                let heard = self.beliefs[hearer].heard.iter().filter(|heard| heard.message.payload.bytes == bytes);
                let mut heard: Vec<Token> = heard.map(|heard| heard.to).collect();
                wants.sort_unstable();
                heard.sort_unstable();
                for token in &heard {
                    let alone = self.beliefs[hearer].listening.get(token).is_some_and(|(_, event)| event.is_some());
                    self.marks.met(match (alone, event.as_str()) {
                        (true, "x") => "quiet: x is heard by a listener to it alone",
                        (true, _) => "quiet: y is heard by a listener to it alone",
                        (false, _) => "quiet: heard by a listener to all",
                    });
                }
                if wants != heard {
                    let what = format!("{wants:?} hear {channel}@{event}, and {heard:?} heard what {speaker} said");
                    world.fails("returning", self.beliefs[hearer].node, what);
                }
            }
        }
    }

    fn whole_rooms(&self, actor: usize) -> Vec<(ChannelName, bool)> {
        let missing = self.missing(actor);
        let rooms = self.beliefs[actor].rooms.iter().filter(|(channel, _)| !missing.contains(*channel));
        rooms.map(|(channel, room)| (channel.clone(), room.guarded)).collect()
    }

    /// What applications believe to provide, each with the token of its provider.
    pub(super) fn all_provided(&self) -> Vec<(usize, ChannelName, EventName, Token)> {
        let mut all = Vec::new();
        for (actor, belief) in self.beliefs.iter().enumerate() {
            let missing = self.missing(actor);
            let provided = belief.provided.iter().filter(|((channel, _), _)| !missing.contains(channel));
            all.extend(provided.map(|((channel, event), token)| (actor, channel.clone(), event.clone(), *token)));
        }
        all
    }

    /// Somebody who can speak on a channel, if only its provider.
    pub(super) fn one_member(&self, world: &mut World, provider: usize, channel: &ChannelName) -> usize {
        let member = |caller: &usize| self.whole_rooms(*caller).iter().any(|(other, _)| other == channel);
        let callers: Vec<usize> = (0..self.beliefs.len()).filter(member).collect();
        self.choose(world).pick(&callers).copied().unwrap_or(provider)
    }

    /// A call to everybody who believes to provide something is answered by just that one.
    fn judge_calls(&mut self, world: &mut World) {
        let mut asked: Vec<(usize, Token, ClientId, Place)> = Vec::new();
        for (provider, channel, event, token) in self.all_provided() {
            if self.streaming.provided(token).streams() {
                continue;
            }
            let caller = self.one_member(world, provider, &channel);
            let guarded = self.beliefs[caller].rooms.get(&channel).is_some_and(|room| room.guarded);
            let outgoing = self.says(world, caller, channel.clone(), event.clone(), guarded, Away::Fail);
            let token = world.token();
            let by = self.beliefs[provider].id.clone();
            asked.push((caller, token, by, (channel, event)));
            self.ask(world, caller, Command::Call { token, outgoing, time_left: SOON });
        }
        self.pass(world, SOON + NEWS);
        for (caller, token, by, place) in asked {
            let answer = self.beliefs[caller].answers.get(&token).cloned();
            if answer != Some(Ok(by.clone())) {
                let what = format!("its call to {place:?} of {by} ended with {answer:?}");
                world.fails("returning", self.beliefs[caller].node, what);
            }
        }
    }

    /// Nothing is missing for ever.
    fn judge_missing(&mut self, world: &mut World) {
        let misses = |actor: &usize| !self.missing(*actor).is_empty();
        if !(0..self.beliefs.len()).any(|actor| misses(&actor)) {
            return;
        }
        self.pass(world, self.policy.missing + 2 * self.limits.registration);
        for actor in 0..self.beliefs.len() {
            let missing = self.missing(actor);
            if !missing.is_empty() {
                world.fails("returning", self.beliefs[actor].node, format!("it still waits for {missing:?}"));
            }
        }
        if let Err(what) = self.is_consistent(world) {
            world.fails("returning", self.hub, what);
        }
    }

    /// Whoever believes to own a channel can give it another password.
    fn judge_owners(&mut self, world: &mut World) {
        let owned: Vec<(usize, ChannelName)> = (0..self.beliefs.len())
            .flat_map(|actor| self.beliefs[actor].owned().into_iter().map(move |channel| (actor, channel)))
            .collect();
        let mut asked = Vec::new();
        for (actor, channel) in owned {
            let token = self.protects(world, actor, channel.clone(), Password(0));
            asked.push((actor, channel, token));
        }
        self.pass(world, SOON);
        for (actor, channel, token) in asked {
            let told = world.told.get(&self.beliefs[actor].node);
            let done = told.into_iter().flatten().find_map(|event| {
                if let commipc_protocol::client::Event::Done { token: of, result } = event {
                    (*of == token).then_some(*result)
                } else {
                    None
                }
            });
            if done != Some(Ok(())) && !self.faults_of_disk(world) {
                let what = format!("it owns {channel}, and cannot protect it: {done:?}");
                world.fails("returning", self.beliefs[actor].node, what);
            }
        }
    }

    fn faults_of_disk(&self, world: &World) -> bool {
        world.disks.get(&self.hub).is_some_and(|disk| disk.can_fail())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, hub: &T, believed: &T) -> Result<(), String> {
    if hub == believed {
        return Ok(());
    }
    Err(format!("{what}: by its own word {hub:?}, by what they were told {believed:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_follow_from_the_limits() {
        let (limits, policy) = (Limits::default(), Reconnect::default());
        assert_eq!(back_within(&limits, &policy), Duration::from_secs(75 + 60 + 15 + 40 + 21 + 60 + 21 + 5));
        let dials = dials_within(Duration::from_secs(300), &policy);
        assert!((20..40).contains(&dials), "{dials}");
        assert!(dials_within(Duration::from_secs(3_000), &policy) > dials);
    }
}
