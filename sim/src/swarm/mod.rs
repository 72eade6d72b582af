//! Random work for a world: every run draws its own weights, about half of them zero, and few names, so that what
//! clients do collides.
//!
//! ```text
//!   warm-up ─────────► storm ─────────────► settle ──────────────► end
//!   connect, open,     work, cuts, refusals  no more work, healed   everybody leaves: nothing may be left
//!   provide, listen
//! ```

mod actor;
mod clearing;
mod draining;
mod drawing;
mod ops;
mod owning;
mod rogues;
mod troubles;

use bytes::{BufMut as _, Bytes, BytesMut};
use commipc_protocol::client::{Command, Event, Outgoing, Payload, RequestId};
use commipc_protocol::{ChannelName, ClientId, CloseReason, EventName, Fault, Limits, hub};
use core::time::Duration;

use actor::Actor;
use clearing::Clearing;
use draining::Draining;
pub(crate) use drawing::{assault, is_malicious};
use drawing::{besiege, malice, tight, weights};
use owning::Owning;
use troubles::{Troubles, crowd};

use crate::decisions::{Chooser, Decisions, Stream};
use crate::leaving::FORGOTTEN;
use crate::overheard::Overheard;
use crate::plans::Plan;
use crate::station::Station;
use crate::streaming::{LONGEST_CALL, LONGEST_THOUGHT, STAMP, Streaming};
use crate::weather::Weather;
use crate::world::{Moment, World};

/// What clients do, in the order of the weights.
const OPS: [fn(&mut Swarm, &mut World, usize); 17] = [
    Swarm::open,
    Swarm::leave,
    Swarm::provide,
    Swarm::withdraw,
    Swarm::listen,
    Swarm::unlisten,
    Swarm::call,
    Swarm::cancel,
    Swarm::send,
    Swarm::broadcast,
    Swarm::close,
    Swarm::cut,
    Swarm::connect,
    Swarm::protect,
    Swarm::unprotect,
    Swarm::reclaim,
    Swarm::terminate,
];

const CHANNELS: [&str; 4] = ["a", "b", "__comm_ipc_logs", "__comm_ipc_system"];
/// The last one is the hub's own, on its system channel.
const EVENTS: [&str; 3] = ["x", "y", "channels"];

/// Inputs and outputs after which the storm ends.
const EVENTS_OF_A_STORM: u64 = 1_200;
/// After which anything must have ended that was asked for: the longest wait of one who guesses passwords and some.
const SETTLED: Duration = Duration::from_secs(360);
/// How long the warm-up waits for anything.
const WARM: Duration = Duration::from_secs(20);
/// How often an actor connects again by itself.
const RECONNECTS: u32 = 3;
/// How long an actor that connects is left alone.
const PATIENCE: Duration = Duration::from_millis(20);
/// Wakes an actor when less; these end a wait.
const GIVE_UP: u64 = u64::MAX;
const WARMED: u64 = u64::MAX - 1;

/// Plays the applications of one run.
pub(crate) struct Swarm {
    /// Where decisions come from: a stream for the run, and of each actor one for its work and one for its reactions, so
    /// that what one does can be left out and all others do what they did.
    work: Stream,
    weights: Vec<u64>,
    /// How providers take requests: the weights of at once, later, never and a fault.
    temper: [u64; 4],
    /// The most a payload and a pause may be, in bytes and nanoseconds.
    largest: u64,
    longest_pause: u64,
    actors: Vec<Actor>,
    /// How many actors have nothing more to do.
    resting: usize,
    operations: u64,
    said: u64,
    owning: Owning,
    clearing: Clearing,
    streaming: Streaming,
    draining: Draining,
    troubles: Troubles,
    /// Whether whoever loses its connection makes another.
    persistent: bool,
    storming: bool,
    /// Whether the hub is one that nobody should trust.
    malicious: bool,
    /// The name of a client that nobody should trust, if there is one: that of the first actor.
    rogue: Option<String>,
}

impl Swarm {
    /// A world of one hub and some clients, all drawn, and its swarm.
    pub(crate) fn drawn(decisions: Decisions, origin: String, talking: bool) -> (World, Self) {
        let mut world = World::new(decisions, origin).with_habits();
        if talking {
            world = world.talking();
        }
        let (own, hostile) = (world.engine().decisions().stream("twins"), world.engine().decisions().stream("malice"));
        let malicious = is_malicious(world.engine().decisions().on(hostile));
        if !malicious && world.engine().decisions().on(own).chance(1, 4) {
            world = world.with_twins();
        }
        let (work, net) = (world.engine().decisions().stream("work"), world.engine().decisions().stream("net"));
        let mut weather = Weather::drawn(world.engine().decisions().on(net));
        let mut limits = tight(world.engine().decisions().on(work));
        let mut owning = Owning::drawn(world.engine().decisions().on(work));
        let (mut rogue, mut late) = (false, false);
        if malicious {
            // Nothing that keeps it from what it is up to: no tags that it would have to make anew, no full tables.
            (weather.transports, limits, owning.early) = ([0, 0, 1], Limits::default(), true);
            let (tricks, keeps_its_word) = malice(&mut world);
            late = keeps_its_word;
            world = world.weather(weather).malicious_hub("h", tricks, owning.hub);
        } else {
            rogue = besiege(&mut weather, &mut world);
            world = world.weather(weather).hub_with_policy("h", limits.clone(), owning.hub);
        }
        let mut choose = world.engine().decisions().on(work);
        let weights = weights(&mut choose, malicious, late);
        let temper = [4, 6, 2, 1].map(|most| choose.below(most + 1));
        let (largest, longest_pause) = (choose.log_uniform(1, 1 << 14), choose.log_uniform(1_000, 1_000_000_000));
        let operations = choose.log_uniform(16, 400);
        let count = 2 + choose.below(6);
        let persistent = choose.chance(3, 4);
        let count = if malicious { count } else { crowd(&mut world, count) };
        let (actors, resting, said, storming) = (Vec::new(), 0, 0, false);
        let (streaming, clearing) = (Streaming::drawn(&mut world, malicious), Clearing::drawn(&mut world, count));
        let draining = Draining::drawn(&mut world, operations);
        let troubles = Troubles::drawn(&mut world, operations, count, malicious);
        let mut swarm = Self {
            work,
            weights,
            temper,
            largest,
            longest_pause,
            actors,
            resting,
            operations,
            said,
            owning,
            clearing,
            streaming,
            draining,
            troubles,
            persistent,
            storming,
            malicious,
            rogue: None,
        };
        let world = swarm.add_actors(world, count, &limits, rogue);
        (world, swarm)
    }

    fn add_actors(&mut self, mut world: World, count: u64, limits: &Limits, rogue: bool) -> World {
        let mut proofs = Vec::new();
        for number in 0..count {
            let name = format!("c{number}");
            let streams = ["work", "mind"].map(|kind| world.engine().decisions().stream(&format!("{kind}/{name}")));
            let mut choose = world.engine().decisions().on(streams[0]);
            let honest = !choose.chance(1, 12);
            let id = if choose.chance(1, 12) { 0 } else { number };
            let id = format!("c{id}");
            let rogue = rogue && number == 0;
            if self.clearing.is_admin(number) && !rogue {
                world = world.admin(honest);
            }
            let station = if rogue { Station::rogue } else { Station::client };
            world = world.client_of(&name, &id, limits.clone(), honest, station);
            proofs.push((id.clone(), limits.clone(), honest));
            self.actors.push(Actor { id: ClientId::new(&id).ok(), streams: Some(streams), ..Actor::default() });
            if rogue {
                world.watch.overheard = Some(Overheard::default());
                self.rogue = Some(name);
            }
        }
        for (actor, node) in self.actors.iter_mut().zip(world.clients()) {
            actor.node = Some(node);
        }
        self.troubles.succeeds(world, |actor| proofs[actor].clone())
    }

    /// Runs all phases, up to the first failure.
    pub(crate) fn play(&mut self, world: &mut World) {
        let phases = [Self::warm_up, Self::storm, Self::settle, Self::end];
        for phase in phases {
            phase(self, world);
            if world.has_failed() {
                return;
            }
        }
    }

    /// From now on this actor decides about a piece of work; whether there is any left.
    fn works(&mut self, world: &mut World, actor: usize) -> bool {
        self.decides(actor, 0);
        world.engine().decisions().begin(self.work)
    }

    /// From now on this actor decides about what it was told.
    fn minds(&mut self, world: &mut World, actor: usize) {
        self.decides(actor, 1);
        world.engine().decisions().piece(self.work);
    }

    fn decides(&mut self, actor: usize, about: usize) {
        let streams = self.actors.get(actor).and_then(|actor| actor.streams);
        self.work = streams.map_or(self.work, |streams| streams[about]);
        self.streaming.decides(self.work);
    }

    fn warm_up(&mut self, world: &mut World) {
        let run = self.work;
        for actor in 0..self.actors.len() {
            // Who is not there from the beginning comes with its first work, or never.
            if self.works(world, actor) && self.choose(world).below(16) > 0 {
                self.connect(world, actor);
            } else {
                self.actors[actor].closed = true;
            }
        }
        // Now and then work begins before anybody is connected.
        if world.engine().decisions().on(run).below(8) < 7 {
            self.wait(world, |actor| actor.ready || actor.closed);
        }
        // Something to collide with.
        self.all_may(world, Self::open);
        if self.owning.early {
            for actor in 0..self.actors.len() {
                if self.owns(actor) && self.works(world, actor) {
                    self.protect(world, actor);
                }
            }
            self.wait(world, |actor| actor.protecting.is_empty());
        }
        for op in [Self::open, Self::open, Self::provide, Self::provide, Self::listen] {
            self.all_may(world, op);
        }
    }

    /// About half of the actors do it; waits until their channels are open.
    fn all_may(&mut self, world: &mut World, op: fn(&mut Self, &mut World, usize)) {
        for actor in 0..self.actors.len() {
            let often = if self.malicious { 7 } else { 4 };
            if self.works(world, actor) && self.choose(world).chance(often, 8) {
                op(self, world, actor);
            }
        }
        self.wait(world, |actor| actor.opening.is_empty());
    }

    /// Lets things happen until it `holds` for every actor, but not for ever.
    fn wait(&mut self, world: &mut World, holds: fn(&Actor) -> bool) {
        world.plan(WARM, WARMED);
        while !self.actors.iter().all(holds) && !world.has_failed() {
            match world.step() {
                Moment::Idle | Moment::Woke(WARMED) => return,
                Moment::Ran | Moment::Woke(_) => self.react(world),
            }
        }
    }

    fn storm(&mut self, world: &mut World) {
        for actor in 0..self.actors.len() {
            self.decides(actor, 0);
            let pause = self.pause(world);
            world.plan(pause, actor as u64);
        }
        self.storming = true;
        let most = if self.malicious { EVENTS_OF_A_STORM * 3 / 4 } else { EVENTS_OF_A_STORM };
        while self.operations > 0 && world.trace().events() < most && !world.has_failed() {
            match world.step() {
                Moment::Idle => return,
                Moment::Ran => {}
                Moment::Woke(actor) => self.work(world, actor),
            }
            self.react(world);
        }
    }

    fn work(&mut self, world: &mut World, key: u64) {
        let Some(actor) = usize::try_from(key).ok().filter(|actor| *actor < self.actors.len()) else { return };
        if let Some(until) = self.actors[actor].node.and_then(|node| world.engine().paused(node)) {
            return world.plan(until.saturating_since(world.now()), key);
        }
        if !self.works(world, actor) {
            self.resting += 1;
            self.operations = if self.resting < self.actors.len() { self.operations } else { 0 };
            return;
        }
        if actor == 0 {
            self.babble(world);
        }
        // What nobody can do yet would fill the storm with refusals.
        let sensible = world.engine.decisions().on(self.work).chance(7, 8);
        let Actor { ready, closed, opening, open, .. } = &self.actors[actor];
        let (waits, ready, open) = (!*ready && !*closed, *ready, !open.is_empty());
        if sensible && (waits || ready && !open && !opening.is_empty()) {
            return world.plan(PATIENCE, key);
        }
        self.operations -= 1;
        self.drain_hub(world);
        if actor == 0 && self.rogue.is_some() {
            self.mutter(world);
        }
        let drawn = world.engine.decisions().on(self.work).weighted(&self.weights);
        match drawn.and_then(|index| OPS.get(index)) {
            Some(_) if !ready && sensible => self.connect(world, actor),
            Some(_) if ready && !open && sensible => self.open(world, actor),
            Some(_) if self.streaming.is_due(world) => self.ask_stream(world, actor),
            Some(_) if self.clears(world, actor) => self.clear(world, actor),
            Some(_) if ready && self.drains(world, actor) => self.drain(world, actor),
            Some(op) => op(self, world, actor),
            None => {}
        }
        self.befall(world, actor);
        let pause = self.pause(world);
        world.plan(pause, key);
    }

    /// Waits until everything must have ended.
    fn settle(&mut self, world: &mut World) {
        world.engine().heal();
        self.storming = false;
        self.streaming.calm(world, false);
        world.plan(SETTLED, GIVE_UP);
        self.run_out(world);
        world.judge_settled();
        // A malicious hub keeps from a provider what it likes, the end of a stream as well; and who says things past its own
        // machine has ended what that goes on with.
        let rogue = self.actors.first().filter(|_| self.rogue.is_some()).and_then(|actor| actor.node);
        let all = world.clients().into_iter().chain(world.hubs());
        for node in all.filter(|node| !self.malicious && rogue != Some(*node)) {
            world.judge_rested(node);
        }
    }

    fn end(&mut self, world: &mut World) {
        world.ended = true;
        for node in world.clients() {
            if !world.engine().is_down(node) {
                world.ask(node, Command::Close);
            }
        }
        world.plan(FORGOTTEN, GIVE_UP);
        self.run_out(world);
        for node in world.hubs() {
            world.judge_empty(node);
            world.ask_hub(node, hub::Command::Shutdown);
        }
        for node in world.clients() {
            world.judge_empty(node);
        }
        world.judge_settled();
    }

    fn run_out(&mut self, world: &mut World) {
        while !world.has_failed() {
            match world.step() {
                Moment::Idle | Moment::Woke(GIVE_UP) => return,
                Moment::Ran | Moment::Woke(_) => self.react(world),
            }
        }
    }

    fn choose<'w>(&self, world: &'w mut World) -> Chooser<'w> {
        world.engine().decisions().on(self.work)
    }

    fn pause(&self, world: &mut World) -> Duration {
        Duration::from_nanos(self.choose(world).log_uniform(1, self.longest_pause))
    }

    /// Keeps the actors' beliefs and lets them answer.
    fn react(&mut self, world: &mut World) {
        self.owning.listen(world);
        while let Some((node, index)) = world.fresh.pop_front() {
            let Some(actor) = self.actors.iter().position(|actor| actor.node == Some(node)) else { continue };
            self.minds(world, actor);
            let Some(event) = world.told.get(&node).and_then(|told| told.get(index)) else { continue };
            let believes = &mut self.actors[actor];
            match event {
                Event::Ready(_) => believes.ready = true,
                Event::Closed(why) => {
                    let why = *why;
                    self.lost_all(actor);
                    if !matches!(why, CloseReason::Refused(_)) {
                        self.reconnect(world, actor);
                    }
                }
                Event::Request(request) => {
                    let (id, kind) = (request.id, self.streaming.provided(request.provider));
                    self.requested(world, actor, id, kind);
                }
                Event::Answered { token, .. } => believes.calls.retain(|call| call != token),
                Event::Done { token, result } => {
                    let (token, fine) = (*token, result.is_ok());
                    if let Some(channel) = believes.done(token, fine) {
                        self.opened(world, actor, &channel);
                    }
                }
                Event::DeriveChannelKey { channel, salt } => {
                    let (channel, salt) = (channel.clone(), *salt);
                    self.derive(world, actor, channel, salt);
                }
                Event::RequestEnded { request, .. } => {
                    let request = *request;
                    believes.requests.retain(|other| *other != request);
                    self.streaming.request_over(node, request);
                }
                Event::Stream(event) => {
                    let event = event.clone();
                    self.streamed(world, actor, &event);
                }
                Event::ChannelClosed { channel, .. } => believes.channel_closed(channel),
                Event::DeriveKey { .. }
                | Event::Reconnect(_)
                | Event::OwnerChanged { .. }
                | Event::Gap(_)
                | Event::Draining { .. }
                | Event::PasswordChanged { .. }
                | Event::Sent { .. }
                | Event::Message(_)
                | Event::Violation(_)
                | Event::Dropped(_) => {}
            }
        }
    }

    fn lost_all(&mut self, actor: usize) {
        let believes = &mut self.actors[actor];
        let Actor { reconnects, node, id, streams, open, mut lost, .. } = std::mem::take(believes);
        lost.extend(self.owning.owned_by(id.as_ref(), &open));
        *believes = Actor { node, id, streams, reconnects, lost, closed: true, ..Actor::default() };
    }

    fn reconnect(&mut self, world: &mut World, actor: usize) {
        let believes = &mut self.actors[actor];
        if self.storming && self.persistent && believes.reconnects < RECONNECTS {
            believes.reconnects += 1;
            self.connect(world, actor);
        }
    }

    fn answer(&mut self, world: &mut World, actor: usize, request: RequestId) {
        let temper = self.temper;
        let drawn = self.choose(world).weighted(&temper);
        let Some(node) = self.actors[actor].node else { return };
        let result = match drawn {
            Some(2) => return,
            Some(3) => Err(Fault {
                code: 1_000,
                message: "as drawn".to_owned(),
                details: self.payload(world, actor).bytes,
                retryable: self.choose(world).chance(1, 2),
            }),
            Some(_) | None => Ok(self.payload(world, actor)),
        };
        let thinks = Duration::from_nanos(self.choose(world).log_uniform(1, LONGEST_THOUGHT));
        let after = if drawn == Some(1) { thinks } else { Duration::ZERO };
        world.plan_own(after, Plan::Answer { node, request, result });
    }

    fn ask(&mut self, world: &mut World, actor: usize, command: Command) {
        if let Some(node) = self.actors[actor].node {
            world.ask(node, command);
        }
    }

    fn channel(&self, world: &mut World) -> ChannelName {
        let index = self.choose(world).weighted(&[16, 8, 1, 1]).unwrap_or(0);
        ChannelName::new(CHANNELS[index]).unwrap_or_else(|_| unreachable!("a constant"))
    }

    /// Most often one that the actor has open.
    fn open_channel(&self, world: &mut World, actor: usize) -> ChannelName {
        let open = &self.actors[actor].open;
        let mut choose = world.engine.decisions().on(self.work);
        let known = if choose.chance(7, 8) { choose.pick(open).cloned() } else { None };
        known.unwrap_or_else(|| self.channel(world))
    }

    fn event(&self, world: &mut World) -> EventName {
        let index = self.choose(world).weighted(&[8, 8, 1]).unwrap_or(0);
        EventName::new(EVENTS[index]).unwrap_or_else(|_| unreachable!("a constant"))
    }

    /// Bytes that are as good as unique, unless they are few: the number of the saying stands in front.
    fn payload(&mut self, world: &mut World, actor: usize) -> Payload {
        self.said += 1;
        let size = self.choose(world).log_uniform(1, self.largest) - 1;
        // Where what is said is not to be believed, it must be told apart.
        let size = usize::try_from(size).unwrap_or(0).max(if self.malicious { STAMP } else { 0 });
        let raw = self.choose(world).chance(1, 2);
        let mut bytes = BytesMut::new();
        if !raw {
            bytes.put_u8(0x5a);
            bytes.put_u32(u32::try_from(size).unwrap_or(0));
        }
        let stamp = [self.said.to_le_bytes(), (actor as u64).to_le_bytes()].concat();
        bytes.extend(stamp.iter().copied().chain(std::iter::repeat(0x5e)).take(size));
        Payload { bytes: bytes.freeze(), raw }
    }

    /// Most often an event that somebody provides.
    fn target(&self, world: &mut World) -> (ChannelName, EventName) {
        let provided: Vec<_> = self.actors.iter().flat_map(|actor| &actor.provided).collect();
        let mut choose = world.engine.decisions().on(self.work);
        let known = if choose.chance(3, 4) { choose.pick(&provided) } else { None };
        match known {
            Some((_, channel, event)) => (channel.clone(), event.clone()),
            None => (self.channel(world), self.event(world)),
        }
    }

    fn outgoing(&mut self, world: &mut World, actor: usize) -> Outgoing {
        let (channel, event) = self.target(world);
        let payload = self.payload(world, actor);
        // A map of one number to one number, now and then.
        let metadata = if self.choose(world).chance(1, 4) { Bytes::from_static(&[0xa1, 1, 2]) } else { Bytes::new() };
        let guarded = self.guards(world, &channel);
        Outgoing {
            channel,
            event,
            payload,
            metadata,
            idempotent: self.choose(world).chance(1, 2),
            guarded,
            away: commipc_protocol::client::Away::Fail,
        }
    }
}
