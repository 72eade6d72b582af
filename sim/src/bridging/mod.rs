//! Worlds of several hubs that bridges join: whatever befalls bridges, hubs and clients, nothing comes twice, nothing circles,
//! and when all is repaired everybody reaches everybody, once and on the shortest way.
//!
//! ```text
//!   warm-up ──────────► storm ────────────────► heal ─────────► settle ─────────────► end
//!   bridges, some late  work; bridges cut, half- all bridges    within a computed time clients leave: nothing is known of
//!   open, protect, …    open, killed, restarted  and hubs up    all is reached         them anywhere; then bridges leave
//! ```
//! What an application believes follows from what it was told alone ([`Belief`]).

mod drawn;
mod faults;
mod graph;
mod judge;
mod kept;
mod lies;
mod work;

use bytes::Bytes;
use commipc_protocol::auth::OwnerKey;
use commipc_protocol::bridge;
use commipc_protocol::client::{
    Away, CallFailure, ChannelSalt, Command, Dropped, Event, Failure, Outgoing, Payload, Reconnect, ReconnectEvent,
    Request, RequestId, StreamEvent, StreamId, Token,
};
use commipc_protocol::{ChannelName, ClientId, CloseReason, Limits, Misuse, OwnerPolicy, Refusal, hub};
use core::time::Duration;
use std::collections::BTreeMap;

use drawn::Drawn;
use faults::Faults;
use graph::Graph;

use crate::decisions::{Chooser, Decisions, Stream};
use crate::feeding::Feed;
use crate::lives::DiskHabits;
use crate::marks::Marks;
use crate::node::NodeId;
use crate::plans::Plan;
use crate::returning::beliefs::{Belief, Link};
use crate::returning::drawn_policy;
use crate::swarm::assault;
use crate::weather::Weather;
use crate::world::{Moment, World};

/// Inputs and outputs after which a storm ends.
const EVENTS_OF_A_STORM: u64 = 2_000;
/// How long the warm-up waits for anything.
const WARM: Duration = Duration::from_secs(20);
/// How long what is new takes to be known everywhere.
const NEWS: Duration = Duration::from_secs(3);
/// How long an application waits that has no connection and wants one.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest that anybody takes to derive a key, and that a provider thinks, in nanoseconds.
const LONGEST_DERIVATION: u64 = 1_000_000_000;
const LONGEST_THOUGHT: u64 = 5_000_000_000;

/// Wakes an application when less.
const FAULT: u64 = 1 << 32;
/// And a bridge's number: it begins. And a hub's.
const START: u64 = 1 << 33;
const HUB: u64 = 1 << 34;
/// And an application's: it has no connection and wants one.
const CONNECT: u64 = 1 << 35;
const OVER: u64 = 1 << 36;

/// Plays the applications of one run, and what befalls them.
pub(crate) struct Bridging {
    /// Where decisions come from: a stream for the run, and of each application one for its work and one for its reactions.
    work: Stream,
    streams: Vec<[Stream; 2]>,
    /// How many applications have nothing more to do.
    resting: usize,
    beliefs: Vec<Belief>,
    /// The hub of each.
    at: Vec<usize>,
    graph: Graph,
    hubs: Vec<NodeId>,
    bridges: Vec<NodeId>,
    /// One more that is not honest, as long as the storm lasts.
    liar: Option<NodeId>,
    /// Somebody is on the path of all connections, who knows no secret.
    besieged: bool,
    /// Whether there is a channel with a password.
    guards: bool,
    drawn: Drawn,
    /// The key of whoever owned the channel with a password once.
    key: Option<OwnerKey>,
    kept: kept::Kept,
    /// Copies of what was heard before that came since everything is repaired.
    copies: u64,
    /// How streams ended: how many items there were.
    streamed: BTreeMap<Token, (u64, Option<Result<(), CallFailure>>)>,
    faults: Faults,
    marks: Marks,
    weights: Vec<u64>,
    limits: Limits,
    policy: Reconnect,
    operations: u64,
    longest_pause: u64,
    said: u64,
    waits: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Warm,
    Storm,
    Healed,
    Over,
}

/// What an application does about what it was told.
enum Owed {
    Answer(RequestId),
    Key(ChannelName, ChannelSalt),
    Connection(CloseReason),
}

/// The choice of [`is_drawn`] that means yes.
pub(crate) const DRAWN: u64 = 31;

/// Whether a run is about bridges: one of thirty-two.
pub(crate) fn is_drawn(decisions: &mut Decisions) -> bool {
    let stream = decisions.stream("bridging");
    decisions.on(stream).below(DRAWN + 1) == DRAWN
}

/// A stream that is asked for with this number has so many items.
const fn items_of(number: u64) -> u64 {
    number % 7
}

fn number_of(payload: &Payload) -> u64 {
    let head = payload.bytes.first_chunk::<8>();
    head.map_or(0, |head| u64::from_le_bytes(*head))
}

/// Gives the stream that the request's number says.
fn script(request: &Request) -> Feed {
    let asked = &request.message.payload;
    let item = |index: u64| Bytes::from([&asked.bytes[..], &index.to_le_bytes()].concat());
    Feed::of((0..items_of(number_of(asked))).map(item))
}

/// In one run of eight somebody is on the path of all connections, which then are such as know that this can be.
fn besiege(weather: &mut Weather, world: &mut World) -> bool {
    let attack = world.engine().decisions().stream("attack");
    let mut choose = world.engine().decisions().on(attack);
    let besieged = choose.chance(1, 8);
    if besieged {
        (weather.transports, weather.assault) = ([0, 1, 0], Some(assault(&mut choose)));
    }
    besieged
}

/// Hubs, the bridges between them, and clients of this name and at that hub; and what each client believes before it was told
/// anything.
fn with_nodes(
    mut world: World,
    graph: &Graph,
    (names, at): (&[String], &[usize]),
    limits: &Limits,
    (owners, disk): (OwnerPolicy, Option<DiskHabits>),
) -> (World, Vec<Belief>) {
    let hub = |number: usize| format!("h{number}");
    let mut policy = Reconnect::default();
    policy.initial = true;
    for number in 0..graph.hubs {
        world = world.joined_hub(&hub(number), limits.clone(), owners);
        world = if let Some(disk) = disk { world.storing(disk) } else { world };
    }
    for (number, [a, b]) in graph.edges.iter().enumerate() {
        world = world.bridge(&format!("b{number}"), [&hub(*a), &hub(*b)], limits.clone(), policy);
    }
    for (name, at) in names.iter().zip(at) {
        world = world.beside(&hub(*at)).client(name);
    }
    let mut beliefs = Vec::new();
    for (name, node) in names.iter().zip(world.clients()) {
        beliefs.extend(ClientId::new(name).ok().map(|id| Belief::new(node, id)));
        world.feeds(name, script);
    }
    (world, beliefs)
}

impl Bridging {
    /// A world of some hubs, the bridges between them and their clients, all drawn.
    pub(crate) fn drawn(decisions: Decisions, origin: String, talking: bool) -> (World, Self) {
        let mut world = World::new(decisions, origin).with_habits();
        if talking {
            world = world.talking();
        }
        let (work, net) = (world.engine().decisions().stream("work"), world.engine().decisions().stream("net"));
        let mut weather = Weather::drawn(world.engine().decisions().on(net));
        let besieged = besiege(&mut weather, &mut world);
        let (mut world, lies) = lies::drawn(world, &mut weather, besieged);
        let graph = drawn_graph(&mut world, work);
        let mut choose = world.engine().decisions().on(work);
        let limits = Limits::default();
        let mut policy = Reconnect::default();
        policy.initial = true;
        let owners = drawn_policy(&mut choose);
        let weights = work::drawn_weights(&mut choose);
        let guards = choose.chance(1, 2);
        let (operations, longest_pause) = (choose.log_uniform(8, 200), choose.log_uniform(1_000_000, 10_000_000_000));
        let count = 2 + choose.below(6);
        let at: Vec<usize> = (0..count).map(|_| choose.index(graph.hubs)).collect();
        world = world.weather(weather).reconnecting(policy);
        world = if lies { world.lied_to() } else { world.bridged() };
        let names: Vec<String> = (0..count).map(|number| format!("c{number}")).collect();
        let drawn = Drawn::of(world.engine().decisions());
        let disk = drawn.disk(&mut world);
        let (world, beliefs) = with_nodes(world, &graph, (&names, &at), &limits, (owners, disk));
        let (hubs, bridges) = (world.hubs(), world.bridges());
        let (mut world, liar) = if lies { lies::add(world, &graph, &limits, policy) } else { (world, None) };
        let streams = names.iter().map(|name| streams_of(&mut world, name)).collect();
        let faults = Faults::drawn(&mut world, &graph, guards && !drawn.mortal);
        let bridging = Self {
            work,
            streams,
            resting: 0,
            beliefs,
            at,
            graph,
            hubs,
            bridges,
            liar,
            besieged,
            guards,
            drawn,
            key: None,
            kept: kept::Kept::default(),
            copies: 0,
            streamed: BTreeMap::new(),
            faults,
            marks: Marks::default(),
            weights,
            limits,
            policy,
            operations,
            longest_pause,
            said: 0,
            waits: 0,
            phase: Phase::Warm,
        };
        (world, bridging)
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
    }

    fn warm_up(&mut self, world: &mut World) {
        self.begin_lies(world);
        self.begin_hubs(world);
        self.begin_bridges(world);
        for actor in 0..self.beliefs.len() {
            self.ask(world, actor, Command::Connect);
        }
        self.wait(world, |belief| belief.link == Link::Whole);
        if self.guards {
            // Nobody else has it before it has a password, so that there is one such channel and not two.
            self.open_kept(world, 0);
            self.wait(world, |belief| belief.asked.is_empty());
            self.protect(world, 0);
            self.wait(world, |belief| belief.asked.is_empty());
            self.pass(world, NEWS);
        }
        for op in [Self::open, Self::open, Self::open, Self::provide, Self::provide, Self::listen, Self::listen] {
            for actor in 0..self.beliefs.len() {
                if self.works(world, actor) && self.choose(world).chance(2, 3) {
                    op(self, world, actor);
                }
            }
            self.wait(world, |belief| belief.asked.is_empty());
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
            Moment::Woke(key) if key >= CONNECT => self.connect(world, key - CONNECT),
            Moment::Woke(key) if key >= HUB => self.start_hub(world, (key - HUB) as usize),
            Moment::Woke(key) if key >= START => self.start_bridge(world, (key - START) as usize),
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
        while let Some((node, index)) = world.fresh.pop_front() {
            let Some(actor) = self.beliefs.iter().position(|belief| belief.node == node) else { continue };
            let Some(event) = world.told.get(&node).and_then(|told| told.get(index)) else { continue };
            if let Some(channel) = self.beliefs[actor].told(event, world.now())
                && self.is_owner(world, actor, &channel)
            {
                self.beliefs[actor].owns(&channel);
            }
            let owed = self.hear(event, |provider| world.feeding.is_provided(provider));
            self.give(world, actor, owed);
        }
        self.note_kept(world);
        if self.phase != Phase::Over {
            self.look_after_bridges(world);
        }
    }

    /// Whether somebody owns a channel, by the word of the own hub.
    fn is_owner(&self, world: &World, actor: usize, channel: &ChannelName) -> bool {
        let told = world.hub_told.get(&self.hubs[self.at[actor]]).map_or(&[][..], Vec::as_slice);
        let owner = told.iter().rev().find_map(|event| {
            let hub::Event::OwnerChanged { channel: of, owner } = event else { return None };
            (of == channel).then_some(owner.as_ref())
        });
        owner.flatten() == Some(&self.beliefs[actor].id)
    }

    fn hear(&mut self, event: &Event, streams: impl Fn(Token) -> bool) -> Option<Owed> {
        self.mark(event);
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else has to be answered")]
        match event {
            Event::Request(request) if streams(request.provider) => None,
            Event::Request(request) => Some(Owed::Answer(request.id)),
            Event::DeriveChannelKey { channel, salt } => Some(Owed::Key(channel.clone(), *salt)),
            Event::Closed(why) => Some(Owed::Connection(*why)),
            Event::Stream(StreamEvent::Item { stream: StreamId::Call(token), .. }) => {
                self.streamed.entry(*token).or_default().0 += 1;
                None
            }
            Event::Stream(StreamEvent::Ended { token, result }) => {
                self.streamed.entry(*token).or_default().1 = Some(result.clone());
                None
            }
            _ => None,
        }
    }

    fn give(&mut self, world: &mut World, actor: usize, owed: Option<Owed>) {
        self.minds(world, actor);
        match owed {
            Some(Owed::Answer(request)) => self.answer(world, actor, request),
            Some(Owed::Key(channel, salt)) => {
                let Some(password) = world.passwords.get(&salt.salt).copied() else { return };
                let takes = self.choose(world).log_uniform(1, LONGEST_DERIVATION);
                let node = self.beliefs[actor].node;
                let plan = Plan::Derive { node, channel, salt: salt.salt, password };
                world.plan_own(Duration::from_nanos(takes), plan);
            }
            // What somebody has changed may end it for good, so that its application wants another.
            Some(Owed::Connection(why)) if self.besieged || why == CloseReason::Local => {
                world.plan(PAUSE, CONNECT + actor as u64)
            }
            Some(Owed::Connection(why)) => {
                world.fails("bridges", self.beliefs[actor].node, format!("its connection does not come back: {why:?}"));
            }
            None => {}
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
            Event::Message(message) if message.message.hops > 1 => self.marks.met("a message crosses a bridge"),
            Event::Request(request) if request.message.hops > 1 => self.marks.met("a request crosses a bridge"),
            Event::Answered { result: Ok(answer), .. } if answer.hops > 1 => {
                self.marks.met("an answer crosses a bridge")
            }
            Event::Answered { result: Err(CallFailure::Failed { failure, .. }), .. } => self.marks.met(match failure {
                Failure::Refused(Refusal::NoProvider) => "a call finds no provider",
                Failure::Refused(Refusal::ProviderGone) => "a call loses its way",
                Failure::Local(Misuse::Disconnected) => "a call ends with its link",
                Failure::Refused(Refusal::Loop) => "a call is turned back",
                _ => "a call fails otherwise",
            }),
            Event::Dropped(Dropped::Replayed) => self.copies += 1,
            Event::Stream(StreamEvent::Ended { result: Ok(()), .. }) => self.marks.met("a stream is whole"),
            Event::Stream(StreamEvent::Ended { result: Err(_), .. }) => self.marks.met("a stream fails"),
            Event::ChannelClosed { .. } => self.marks.met("a channel is told to be closed"),
            Event::Reconnect(ReconnectEvent::Restored { channels: 1.. }) => self.marks.met("channels are restored"),
            _ => {}
        }
    }

    /// What is said on a channel.
    fn outgoing_of(&mut self, world: &mut World, actor: usize, place: (ChannelName, &str), guarded: bool) -> Outgoing {
        let (payload, idempotent) = (self.payload(actor), self.choose(world).chance(1, 2));
        let (channel, event) = (place.0, work::event_name(place.1));
        let away = Away::Fail;
        Outgoing { channel, event, payload, metadata: Bytes::new(), idempotent, guarded, away }
    }

    /// Bridges come back by themselves, unless somebody was on their path.
    fn look_after_bridges(&mut self, world: &mut World) {
        for (bridge, node) in self.bridges.clone().into_iter().enumerate() {
            let last = world.bridge_told(node).last().cloned();
            if let Some(bridge::Event::Closed(why)) = last
                && why != bridge::BridgeClosed::Local
            {
                if !self.besieged {
                    return world.fails("bridges", node, format!("it is over by itself: {why:?}"));
                }
                self.is_over(world, bridge);
            }
        }
    }
}

/// Now and then more hubs than usual.
fn drawn_graph(world: &mut World, work: Stream) -> Graph {
    let own = world.engine().decisions().stream("crowd");
    let large = world.engine().decisions().on(own).chance(1, 24);
    Graph::drawn(world.engine().decisions().on(work), large)
}

/// What an application does, and what it thinks, each by decisions of its own.
fn streams_of(world: &mut World, name: &str) -> [Stream; 2] {
    ["work", "mind"].map(|kind| world.engine().decisions().stream(&format!("{kind}/{name}")))
}
