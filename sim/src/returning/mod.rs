//! Worlds in which connections come back: whatever befalls clients, their hub and what is between them, after the storm
//! every client is as it was, or was told what is not.
//!
//! ```text
//!   warm-up ────────► storm ─────────────────► heal ───────────────► settle ──────────────► end
//!   connect, open,    work; cuts, half-open    hub up, clocks set,   within a computed time  everybody leaves:
//!   provide, listen   links, hubs that die,    impostors gone        everything is back      nothing may be left
//!                     impostors, clocks
//! ```
//! What an application believes follows from what it was told alone ([`beliefs`]). At the end what the hub says
//! ([`hub`]) must be just that, and what members say must reach those who believe that they hear it ([`judge`]).

pub(crate) mod beliefs;
mod causes;
mod faults;
mod hub;
pub(crate) mod judge;
mod probing;
mod streams;
pub(crate) mod work;

use bytes::Bytes;
use commipc_protocol::client::{
    CallFailure, ChannelSalt, Command, Event, EventKind, Failure, Payload, Reconnect, ReconnectEvent, RequestId,
    StreamEvent, StreamId, Token, Unrestored,
};
use commipc_protocol::{AfterGrace, ChannelName, ClientId, CloseReason, Instant, Limits, Misuse, OwnerPolicy, Refusal};
use core::time::Duration;
use std::collections::BTreeMap;

use beliefs::{Belief, Link};
use causes::{Heard, Past};
use faults::Faults;
use hub::Claims;

use crate::decisions::{Chooser, Decisions, Stream};
use crate::lives::DiskHabits;
use crate::marks::Marks;
use crate::node::NodeId;
use crate::plans::Plan;
use crate::streaming::Streaming;
use crate::weather::Weather;
use crate::world::{Moment, World};

/// Inputs and outputs after which a storm ends.
const EVENTS_OF_A_STORM: u64 = 1_000;
/// How long the warm-up waits for anything.
const WARM: Duration = Duration::from_secs(20);
/// How long an application waits that has no connection and wants one.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest that anybody takes to derive a key, in nanoseconds.
const LONGEST_DERIVATION: u64 = 1_000_000_000;
/// The longest that a provider thinks, in nanoseconds.
const LONGEST_THOUGHT: u64 = 5_000_000_000;
/// After which a hub has forgotten channels that nobody asks for.
const FORGOTTEN: Duration = Duration::from_secs(25 * 3_600);

/// Wakes an application when less.
const FAULT: u64 = 1 << 32;
const START: u64 = FAULT + 1;
const DIES: u64 = FAULT + 2;
/// And an application number: it has no connection and wants one.
const CONNECT: u64 = 1 << 33;
const OVER: u64 = 1 << 34;

/// Plays the applications of one run, and what befalls them.
pub(crate) struct Returning {
    /// Where decisions come from: a stream for the run, and of each application one for its work and one for its reactions.
    work: Stream,
    streams: Vec<[Stream; 2]>,
    /// How many applications have nothing more to do.
    resting: usize,
    beliefs: Vec<Belief>,
    /// Somebody else who wants the first one's id, until the storm is over.
    impostor: Option<NodeId>,
    /// Somebody who knows no password and looks what is protected, when everything is repaired.
    probe: Option<NodeId>,
    hub: NodeId,
    claims: Claims,
    past: Past,
    faults: Faults,
    marks: Marks,
    weights: Vec<u64>,
    streaming: Streaming,
    /// Streams that were asked for when everything was repaired, and how they ended.
    whole: BTreeMap<Token, Option<Result<(), CallFailure>>>,
    limits: Limits,
    policy: Reconnect,
    operations: u64,
    longest_pause: u64,
    said: u64,
    /// Which wait is the present one: an earlier one that ended early is not over twice.
    waits: u64,
    phase: Phase,
}

/// What an application does about what it was told.
enum Owed {
    Answer(RequestId),
    /// A request for a stream.
    Items(RequestId, EventKind),
    /// A request is over.
    Nothing(RequestId),
    Stream(StreamEvent),
    Key(ChannelName, ChannelSalt),
    Connection(CloseReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Warm,
    Storm,
    Healed,
    Over,
}

/// The choice of [`is_drawn`] that means yes.
pub(crate) const DRAWN: u64 = 7;

/// Whether a run is about connections that come back: one of eight.
pub(crate) fn is_drawn(decisions: &mut Decisions) -> bool {
    let stream = decisions.stream("returning");
    decisions.on(stream).below(8) == DRAWN
}

/// Some worlds run each machine twice.
pub(crate) fn drawn_twins(mut world: World) -> World {
    let own = world.engine().decisions().stream("twins");
    if world.engine().decisions().on(own).chance(1, 8) { world.with_twins() } else { world }
}

impl Returning {
    /// A world of one hub and some clients that come back, all drawn.
    pub(crate) fn drawn(decisions: Decisions, origin: String, talking: bool) -> (World, Self) {
        let mut world = World::new(decisions, origin).with_habits();
        world = drawn_twins(if talking { world.talking() } else { world });
        let (work, net) = (world.engine().decisions().stream("work"), world.engine().decisions().stream("net"));
        let weather = Weather::drawn(world.engine().decisions().on(net));
        let mut choose = world.engine().decisions().on(work);
        let limits = Limits::default();
        let mut policy = Reconnect::default();
        policy.initial = choose.chance(3, 4);
        let owners = drawn_policy(&mut choose);
        let stores = choose.chance(1, 2).then(|| DiskHabits {
            slowest: choose.log_uniform(1, 50_000_000),
            fails: if choose.chance(1, 4) { choose.below(100) } else { 0 },
        });
        let weights = work::drawn_weights(&mut choose);
        let past = Past::new(owners, stores);
        let (operations, longest_pause) = (choose.log_uniform(8, 120), choose.log_uniform(1_000_000, 20_000_000_000));
        let (count, impostor) = (2 + choose.below(5), choose.chance(1, 3));
        world = world.weather(weather).reconnecting(policy).hub_with_policy("h", limits.clone(), owners);
        if let Some(habits) = stores {
            world = world.storing(habits);
        }
        let hub = world.hubs()[0];
        let (mut world, beliefs) = with_clients(world, count);
        if impostor {
            world = world.client_with("impostor", "c0", limits.clone(), true);
        }
        let (faults, streaming) = (Faults::drawn(&mut world), Streaming::drawn(&mut world, false));
        let impostor = world.clients().get(beliefs.len()).copied();
        world = world.client("probe");
        let kinds = |number| ["work", "mind"].map(|kind| format!("{kind}/c{number}"));
        let mut stream = |name: String| world.engine().decisions().stream(&name);
        let streams = (0..count).map(|number| kinds(number).map(&mut stream)).collect();
        let (claims, marks) = (Claims::default(), Marks::default());
        let returning = Self {
            work,
            streams,
            resting: 0,
            beliefs,
            impostor,
            probe: world.clients().last().copied(),
            hub,
            claims,
            past,
            faults,
            marks,
            weights,
            streaming,
            whole: BTreeMap::new(),
            limits,
            policy,
            operations,
            longest_pause,
            said: 0,
            waits: 0,
            phase: Phase::Warm,
        };
        (world, returning)
    }

    /// What was met, and how often.
    pub(crate) fn marks(&self) -> BTreeMap<&'static str, u64> {
        self.marks.0.clone()
    }

    /// Runs all phases, up to the first failure.
    pub(crate) fn play(&mut self, world: &mut World) {
        let phases = [Self::warm_up, Self::storm, Self::heal, Self::settle, Self::end];
        for phase in phases {
            phase(self, world);
            if world.has_failed() {
                return;
            }
        }
    }

    /// From now on this application decides about a piece of work; whether there is any left.
    fn works(&mut self, world: &mut World, actor: usize) -> bool {
        self.decides(actor, 0);
        world.engine().decisions().begin(self.work)
    }

    /// From now on this application decides about what it was told.
    fn minds(&mut self, world: &mut World, actor: usize) {
        self.decides(actor, 1);
        world.engine().decisions().piece(self.work);
    }

    fn decides(&mut self, actor: usize, about: usize) {
        self.work = self.streams.get(actor).map_or(self.work, |streams| streams[about]);
        self.streaming.decides(self.work);
    }

    fn warm_up(&mut self, world: &mut World) {
        self.ask_all(world, |_, _, _| Some(Command::Connect));
        self.wait(world, |belief| belief.link == Link::Whole);
        for op in [Self::open, Self::open, Self::protect, Self::open, Self::provide, Self::provide, Self::listen] {
            for actor in 0..self.beliefs.len() {
                if self.works(world, actor) && self.choose(world).chance(1, 2) {
                    op(self, world, actor);
                }
            }
            self.wait(world, |belief| belief.asked.is_empty());
        }
    }

    fn ask_all(&mut self, world: &mut World, command: fn(&mut Self, &mut World, usize) -> Option<Command>) {
        for actor in 0..self.beliefs.len() {
            if let Some(command) = command(self, world, actor) {
                self.ask(world, actor, command);
            }
        }
    }

    /// Lets things happen until it `holds` for every application, but not for ever.
    fn wait(&mut self, world: &mut World, holds: fn(&Belief) -> bool) {
        self.limit(world, WARM);
        while !self.beliefs.iter().all(holds) {
            if !self.step(world) {
                return;
            }
        }
    }

    /// Lets so much time pass.
    fn pass(&mut self, world: &mut World, time: Duration) {
        self.limit(world, time);
        while self.step(world) {}
    }

    fn limit(&mut self, world: &mut World, time: Duration) {
        self.waits += 1;
        world.plan(time, OVER + self.waits);
    }

    /// Lets the next thing happen; false once it is over.
    fn step(&mut self, world: &mut World) -> bool {
        match world.step() {
            Moment::Idle => return false,
            _ if world.has_failed() => return false,
            Moment::Woke(key) if key >= OVER => return key - OVER != self.waits,
            Moment::Ran => {}
            Moment::Woke(FAULT) => self.strike(world),
            Moment::Woke(START) => self.start_hub(world),
            Moment::Woke(DIES) => self.ends_as_asked(world),
            Moment::Woke(key) if key >= CONNECT => self.connect(world, key - CONNECT),
            Moment::Woke(actor) => self.work(world, actor),
        }
        self.react(world);
        true
    }

    fn storm(&mut self, world: &mut World) {
        self.phase = Phase::Storm;
        for actor in 0..self.beliefs.len() {
            self.decides(actor, 0);
            let pause = self.pause(world);
            world.plan(pause, actor as u64);
        }
        self.next_fault(world);
        // Whoever waits in the warm-up may be woken by its end.
        let most = world.trace().events() + EVENTS_OF_A_STORM;
        while (self.operations > 0 || self.faults.left > 0) && world.trace().events() < most {
            if !self.step(world) && world.has_failed() {
                return;
            }
        }
    }

    fn end(&mut self, world: &mut World) {
        self.phase = Phase::Over;
        for node in world.clients() {
            world.ask(node, Command::Close);
        }
        self.pass(world, FORGOTTEN);
        world.judge_empty(self.hub);
        world.ask_hub(self.hub, commipc_protocol::hub::Command::Shutdown);
        for node in world.clients() {
            world.judge_empty(node);
        }
        world.judge_settled();
    }

    fn choose<'w>(&self, world: &'w mut World) -> Chooser<'w> {
        world.engine().decisions().on(self.work)
    }

    fn pause(&self, world: &mut World) -> Duration {
        Duration::from_nanos(self.choose(world).log_uniform(1, self.longest_pause))
    }

    fn ask(&mut self, world: &mut World, actor: usize, command: Command) {
        let Some(belief) = self.beliefs.get_mut(actor) else { return };
        belief.asks(&command, world.now());
        world.ask(belief.node, command);
    }

    fn connect(&mut self, world: &mut World, actor: u64) {
        let actor = usize::try_from(actor).unwrap_or(usize::MAX);
        let alone = self.beliefs.get(actor).is_some_and(|belief| belief.link == Link::None);
        if alone && self.phase != Phase::Over {
            self.ask(world, actor, Command::Connect);
        }
    }

    /// Keeps beliefs and lets applications answer.
    fn react(&mut self, world: &mut World) {
        let told = world.hub_told.get(&self.hub).map_or(&[][..], Vec::as_slice);
        self.claims.listen(world.now(), told, &mut self.marks, &mut self.past);
        while let Some((node, index)) = world.fresh.pop_front() {
            let Some(actor) = self.beliefs.iter().position(|belief| belief.node == node) else { continue };
            self.look_for_cause(world, actor, index);
            let Some(event) = world.told.get(&node).and_then(|told| told.get(index)) else { continue };
            let owed = self.hear(actor, event, world.now());
            self.give(world, actor, owed);
        }
    }

    /// Nobody is told without a reason that something is over.
    fn look_for_cause(&self, world: &mut World, actor: usize, index: usize) {
        let Belief { node, id, rooms, .. } = &self.beliefs[actor];
        let Some(event) = world.told.get(node).and_then(|told| told.get(index)) else { return };
        let Some(room) = ended(event).and_then(|channel| rooms.get(channel)) else { return };
        // Who has left and opened it again may be told of what it owned before.
        let owned = |what: &Unrestored| matches!(what, Unrestored::Ownership(_)) && !room.owns;
        let older = matches!(event, Event::Reconnect(ReconnectEvent::Unrestored { what, .. }) if owned(what));
        let since = if older { Instant::ZERO } else { room.since };
        let heard = Heard { by: id, since, now: world.now() };
        if !self.past.explains(&heard, event) {
            let what = format!("nothing has happened since {since:?} that explains {event:?}");
            world.fails("returning", *node, what);
        }
    }

    fn hear(&mut self, actor: usize, event: &Event, now: Instant) -> Option<Owed> {
        let belief = &mut self.beliefs[actor];
        if let Some(channel) = belief.told(event, now)
            && self.claims.owners.get(&channel) == Some(&belief.id)
        {
            belief.owns(&channel);
        }
        if let Event::Reconnect(ReconnectEvent::Lost { reason, .. }) = event
            && !matches!(reason, CloseReason::Unreachable(_) | CloseReason::Refused(_))
        {
            self.past.lost(now, &belief.id);
        }
        self.mark(event);
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else has to be answered")]
        match event {
            Event::Request(request) => Some(match self.streaming.provided(request.provider) {
                kind if kind.streams() => Owed::Items(request.id, kind),
                _ => Owed::Answer(request.id),
            }),
            Event::RequestEnded { request, .. } => Some(Owed::Nothing(*request)),
            Event::Stream(event) => Some(Owed::Stream(event.clone())),
            Event::DeriveChannelKey { channel, salt } => Some(Owed::Key(channel.clone(), *salt)),
            Event::Closed(why) => Some(Owed::Connection(*why)),
            _ => None,
        }
    }

    fn give(&mut self, world: &mut World, actor: usize, owed: Option<Owed>) {
        self.minds(world, actor);
        match owed {
            Some(Owed::Answer(request)) => self.answer(world, actor, request),
            Some(Owed::Items(request, kind)) => self.serve(world, actor, request, kind),
            Some(Owed::Nothing(request)) => self.streaming.request_over(self.beliefs[actor].node, request),
            Some(Owed::Stream(event)) => self.streamed(world, actor, &event),
            Some(Owed::Key(channel, salt)) => {
                let Some(password) = world.passwords.get(&salt.salt).copied() else { return };
                let takes = self.choose(world).log_uniform(1, LONGEST_DERIVATION);
                let node = self.beliefs[actor].node;
                let plan = Plan::Derive { node, channel, salt: salt.salt, password };
                world.plan_own(Duration::from_nanos(takes), plan);
            }
            Some(Owed::Connection(why)) => self.closed(world, actor, why),
            None => {}
        }
    }

    /// A connection is over for good, which only its own application may want, or who never had one.
    fn closed(&mut self, world: &mut World, actor: usize, why: CloseReason) {
        world.plan(PAUSE, CONNECT + actor as u64);
        let fine = why == CloseReason::Local || !self.policy.initial && !self.beliefs[actor].stood;
        if !fine {
            world.fails("returning", self.beliefs[actor].node, format!("its connection does not come back: {why:?}"));
        }
    }

    fn answer(&mut self, world: &mut World, actor: usize, request: RequestId) {
        let healed = self.phase != Phase::Storm;
        let mut choose = self.choose(world);
        let thinks = choose.log_uniform(1, LONGEST_THOUGHT);
        let after = match choose.weighted(&[4, 4, 1]) {
            Some(2) if !healed => return,
            Some(1) if !healed => Duration::from_nanos(thinks),
            Some(_) | None => Duration::ZERO,
        };
        let (node, payload) = (self.beliefs[actor].node, self.payload(actor));
        world.plan_own(after, Plan::Answer { node, request, result: Ok(payload) });
    }

    fn payload(&mut self, actor: usize) -> Payload {
        self.said += 1;
        let stamp = [self.said.to_le_bytes(), (actor as u64).to_le_bytes()].concat();
        Payload { bytes: Bytes::from(stamp), raw: true }
    }

    fn mark(&mut self, event: &Event) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only what is counted")]
        match event {
            Event::Reconnect(ReconnectEvent::Lost { reason, .. }) => self.marks.met(match reason {
                CloseReason::Silent => "a client gives up a silent link",
                CloseReason::Lost => "a link is lost",
                CloseReason::Goodbye(_) | CloseReason::GoodbyeCode(_) => "a hub says goodbye",
                CloseReason::Unreachable(_) => "a hub is not reached",
                CloseReason::Refused(Refusal::IdInUse) => "an id is held by another link",
                CloseReason::Refused(_) | CloseReason::Violation(_) | CloseReason::Local | _ => "a link ends otherwise",
            }),
            Event::Reconnect(ReconnectEvent::Restored { channels: 1.. }) => self.marks.met("channels are restored"),
            Event::Reconnect(ReconnectEvent::Returned { .. }) => self.marks.met("a channel returns late"),
            Event::Reconnect(ReconnectEvent::Unrestored { what: Unrestored::Channel(_), .. }) => {
                self.marks.met("a channel is told to be missing")
            }
            Event::Reconnect(ReconnectEvent::Unrestored { .. }) => {
                self.marks.met("something is told not to be restored")
            }
            Event::ChannelClosed { why: Failure::Refused(Refusal::NotProtected), .. } => {
                self.marks.met("a channel is told not to come back without its owner")
            }
            Event::ChannelClosed { .. } => self.marks.met("a channel is told to be closed"),
            Event::Answered { result: Ok(_), .. } => self.marks.met("a call is answered"),
            Event::Answered {
                result: Err(CallFailure::Failed { failure: Failure::Local(Misuse::Disconnected), .. }),
                ..
            } => self.marks.met("a call ends with its link"),
            Event::Stream(StreamEvent::Accepted { .. }) => self.marks.met("a stream is taken"),
            Event::Stream(StreamEvent::Item { stream, .. }) => self.marks.met(match stream {
                StreamId::Call(_) => "an item comes from a provider",
                StreamId::Request(_) => "an item comes from a caller",
            }),
            Event::Stream(StreamEvent::Ended { result: Ok(()), .. }) => self.marks.met("a stream is whole"),
            Event::Stream(StreamEvent::Ended { result: Err(CallFailure::Failed { failure, .. }), .. }) => {
                self.marks.met(match failure {
                    Failure::Local(Misuse::Disconnected) => "a stream ends with its link",
                    Failure::Refused(Refusal::ProviderGone) => "a stream ends with its provider's link",
                    _ => "a stream ends otherwise",
                })
            }
            _ => {}
        }
    }
}

/// The channel of which something is told to be over.
const fn ended(event: &Event) -> Option<&ChannelName> {
    if let Event::ChannelClosed { channel, .. } = event {
        return Some(channel);
    }
    let Event::Reconnect(ReconnectEvent::Unrestored { what, .. }) = event else { return None };
    let (Unrestored::Channel(channel)
    | Unrestored::Provider { channel, .. }
    | Unrestored::Listener { channel, .. }
    | Unrestored::Ownership(channel)) = what;
    Some(channel)
}

/// So many clients, and what each believes before it was told anything.
fn with_clients(mut world: World, count: u64) -> (World, Vec<Belief>) {
    let names: Vec<String> = (0..count).map(|number| format!("c{number}")).collect();
    for name in &names {
        world = world.client(name);
    }
    let mut beliefs = Vec::new();
    for (name, node) in names.iter().zip(world.clients()) {
        beliefs.extend(ClientId::new(name).ok().map(|id| Belief::new(node, id)));
    }
    (world, beliefs)
}

pub(crate) fn drawn_policy(choose: &mut Chooser<'_>) -> OwnerPolicy {
    let then = if choose.chance(1, 2) { AfterGrace::Promote } else { AfterGrace::Terminate };
    match choose.below(4) {
        0 => OwnerPolicy::Terminate,
        1 => OwnerPolicy::Promote,
        _ => OwnerPolicy::Hold { grace: Duration::from_millis(choose.log_uniform(1, 600_000)), then },
    }
}
