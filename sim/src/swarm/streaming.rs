//! Streams and exchanges: who asks for them, how those who are asked give, and how everybody takes.
//!
//! In about half of the runs there are some.

use std::collections::BTreeMap;

use bytes::{BufMut as _, BytesMut};
use commipc_protocol::client::{
    Command, Credit, EventKind, Outgoing, Payload, RequestId, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::{Fault, Instant};
use core::time::Duration;

use super::{LONGEST_CALL, LONGEST_THOUGHT, STAMP, Swarm};
use crate::decisions::{Chooser, Stream};
use crate::node::NodeId;
use crate::plans::Plan;
use crate::world::World;

/// What all actors know of streams.
#[derive(Debug)]
pub(super) struct Streaming {
    decisions: Stream,
    /// Of 64 operations, how many ask for a stream.
    often: u64,
    /// How events are provided: the weights of calls, streams and exchanges.
    kinds: [u64; 3],
    /// How requests are taken: the weights of at once, later, with a fault and never.
    temper: [u64; 4],
    /// How items are taken: the weights of at once, later, in heaps and only some of them.
    manners: [u64; 4],
    /// The most that a stream has, and the most that is wanted of it at a time.
    most: u64,
    widest: Credit,
    /// The longest that anybody waits before it gives or takes, in nanoseconds.
    longest: u64,
    provided: BTreeMap<Token, EventKind>,
    gives: BTreeMap<(NodeId, StreamId), Giver>,
    takes: BTreeMap<(NodeId, StreamId), Taker>,
    /// The storm is over: everybody does what is left to do.
    calm: bool,
}

/// One who has items to give.
#[derive(Debug)]
struct Giver {
    left: u64,
    /// What it was asked for and has not given.
    wanted: Credit,
    /// Items are at most so long.
    largest: u64,
    ends: Ends,
    /// When the last thing is done that is planned already.
    due: Instant,
}

/// What comes after the last item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    All,
    Fault,
    /// Nothing while the storm lasts.
    Late,
    /// The same as the caller's items, after them.
    WithCaller,
}

/// One who takes items.
#[derive(Debug)]
struct Taker {
    manner: Manner,
    /// What it has and is not through with.
    having: Credit,
}

#[derive(Clone, Copy, Debug)]
enum Manner {
    AtOnce,
    Later,
    Heaps(u64),
    /// So many, and no more while the storm lasts.
    Some(u64),
}

/// How long anybody waits for a hub that nobody should trust.
const PATIENCE: Duration = Duration::from_secs(70);
/// Items of more than one piece are so long at most, and so many.
const LONG: (u64, u64) = (200_000, 3);
const KINDS: [EventKind; 3] = [EventKind::Call, EventKind::Stream, EventKind::Exchange];

impl Streaming {
    pub(super) fn drawn(world: &mut World) -> Self {
        let decisions = world.engine().decisions().stream("streams");
        let mut choose = world.engine().decisions().on(decisions);
        let some = choose.chance(1, 2);
        let often = if some { choose.log_uniform(4, 48) } else { 0 };
        let mut weights = |most: [u64; 4]| if some { most.map(|most| choose.below(most + 1)) } else { most };
        let [calls, streams, exchanges, _] = weights([3, 6, 4, 0]);
        let (temper, manners) = (weights([8, 6, 1, 1]), weights([8, 4, 4, 2]));
        let (most, longest) =
            if some { (choose.log_uniform(1, 128), choose.log_uniform(1_000, LONGEST_THOUGHT)) } else { (0, 1) };
        let widest = Credit { items: if some { choose.log_uniform(1, 64) } else { 1 }, bytes: 1 << 18 };
        let (provided, gives, takes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let kinds = [calls, streams + 1, exchanges];
        Self { decisions, often, kinds, temper, manners, most, widest, longest, provided, gives, takes, calm: false }
    }

    /// Decisions are taken from here from now on.
    pub(super) const fn decides(&mut self, stream: Stream) {
        self.decisions = stream;
    }

    fn choose<'w>(&self, world: &'w mut World) -> Chooser<'w> {
        world.engine().decisions().on(self.decisions)
    }

    /// Whether the next operation is about streams.
    pub(super) fn is_due(&self, world: &mut World) -> bool {
        self.often > 0 && self.choose(world).chance(self.often, 64)
    }

    /// How the event is provided that is asked to be with this token.
    pub(super) fn kind(&mut self, world: &mut World, token: Token) -> EventKind {
        if self.often == 0 {
            return EventKind::Call;
        }
        let drawn = self.choose(world).weighted(&self.kinds).unwrap_or(0);
        let kind = KINDS.get(drawn).copied().unwrap_or(EventKind::Call);
        self.provided.insert(token, kind);
        kind
    }

    /// How requests come that carry this token.
    pub(super) fn provided(&self, provider: Token) -> EventKind {
        self.provided.get(&provider).copied().unwrap_or(EventKind::Call)
    }

    fn pause(&self, world: &mut World) -> Duration {
        if self.calm { Duration::ZERO } else { Duration::from_nanos(self.choose(world).log_uniform(1, self.longest)) }
    }

    fn giver(&self, world: &mut World, ends: &[Ends]) -> Giver {
        let mut choose = self.choose(world);
        let mut left = choose.log_uniform(1, self.most + 1) - 1;
        let mut largest = choose.log_uniform(STAMP as u64, 4_096);
        if choose.chance(1, 12) {
            (largest, left) = (LONG.0, left.min(LONG.1));
        }
        let ends = choose.pick(ends).copied().unwrap_or(Ends::All);
        Giver { left, wanted: Credit::NONE, largest, ends, due: Instant::ZERO }
    }

    fn taker(&self, world: &mut World) -> Taker {
        let mut choose = self.choose(world);
        let manner = match choose.weighted(&self.manners) {
            Some(1) => Manner::Later,
            Some(2) => Manner::Heaps(choose.log_uniform(1, self.widest.items)),
            Some(3) => Manner::Some(choose.log_uniform(1, self.most + 1)),
            Some(_) | None => Manner::AtOnce,
        };
        Taker { manner: if self.calm { Manner::AtOnce } else { manner }, having: Credit::NONE }
    }

    /// Nobody plays the application of a process that is no more.
    pub(super) fn lose(&mut self, node: NodeId) {
        self.gives.retain(|(of, _), _| *of != node);
        self.takes.retain(|(of, _), _| *of != node);
    }

    fn window(&self, world: &mut World) -> Credit {
        let mut choose = self.choose(world);
        Credit { items: choose.log_uniform(1, self.widest.items), bytes: choose.log_uniform(1, self.widest.bytes) }
    }

    /// Nothing is held of a stream that has ended.
    fn forget(&mut self, node: NodeId, stream: StreamId) {
        self.gives.remove(&(node, stream));
        self.takes.remove(&(node, stream));
    }

    /// Does something after whatever is planned for this giver.
    fn then(&mut self, world: &mut World, node: NodeId, stream: StreamId, pause: Duration, plan: Plan) {
        let Some(giver) = self.gives.get_mut(&(node, stream)) else { return };
        let now = world.now();
        let at =
            if giver.due < now && pause.is_zero() { now } else { now.max(giver.due) + pause + Duration::from_nanos(1) };
        giver.due = at;
        world.plan_own(at.saturating_since(now), plan);
    }
}

/// Asking.
impl Swarm {
    pub(super) fn ask_stream(&mut self, world: &mut World, actor: usize) {
        let (token, mut outgoing) = (world.token(), self.outgoing(world, actor));
        let kind = self.retarget(world, &mut outgoing, true);
        outgoing.payload = self.stamped(world, actor, STAMP);
        let mut choose = self.streaming.choose(world);
        let exchange = if choose.chance(1, 12) { choose.chance(1, 2) } else { kind == Some(EventKind::Exchange) };
        let time_left = Duration::from_millis(choose.log_uniform(1, LONGEST_CALL));
        let gives_up = choose.chance(1, 4);
        let whole = total(world, actor);
        let window = self.streaming.window(world);
        let Some(node) = self.actors[actor].node else { return };
        let stream = StreamId::Call(token);
        if exchange {
            let giver = self.streaming.giver(world, &[Ends::All, Ends::All, Ends::Late]);
            self.streaming.gives.insert((node, stream), giver);
        }
        let taker = self.streaming.taker(world);
        self.streaming.takes.insert((node, stream), taker);
        if gives_up {
            let after = self.streaming.pause(world) * 4;
            world.plan_own(after, Plan::Cancel { node, call: token });
        }
        self.actors[actor].calls.push(token);
        world.ask(node, Command::Stream(StreamCommand::Ask { token, outgoing, time_left, whole, window, exchange }));
    }

    /// Most often, something is asked for as it is provided; gives how the event is.
    pub(super) fn retarget(&self, world: &mut World, outgoing: &mut Outgoing, streams: bool) -> Option<EventKind> {
        if self.streaming.often == 0 {
            return None;
        }
        let provided = self.actors.iter().flat_map(|actor| &actor.provided);
        let fitting = provided.map(|(token, channel, event)| (self.streaming.provided(*token), channel, event));
        let fitting: Vec<_> = fitting.filter(|(kind, ..)| kind.streams() == streams).collect();
        let mut choose = self.streaming.choose(world);
        let chosen = if choose.chance(7, 8) { choose.pick(&fitting).copied() } else { None };
        let (kind, channel, event) = chosen?;
        (outgoing.channel, outgoing.event) = (channel.clone(), event.clone());
        // Where the password is not known nothing could be signed.
        outgoing.guarded &= self.owning.passwords.contains_key(channel);
        Some(kind)
    }

    /// Bytes that are unique, and begin with what makes them so.
    fn stamped(&mut self, world: &mut World, actor: usize, size: usize) -> Payload {
        self.said += 1;
        let mut bytes = BytesMut::with_capacity(size);
        let raw = self.streaming.choose(world).chance(1, 2);
        if !raw {
            bytes.put_u8(0x5a);
            bytes.put_u32(u32::try_from(size).unwrap_or(0));
        }
        let stamp = [self.said.to_le_bytes(), (actor as u64).to_le_bytes()].concat();
        bytes.extend(stamp.iter().copied().chain(std::iter::repeat(0x5e)).take(size));
        Payload { bytes: bytes.freeze(), raw }
    }
}

/// Being asked, giving and taking.
impl Swarm {
    pub(super) fn serve_stream(&mut self, world: &mut World, actor: usize, request: RequestId, kind: EventKind) {
        let Some(node) = self.actors[actor].node else { return };
        let (stream, temper) = (StreamId::Request(request), self.streaming.temper);
        let drawn = self.streaming.choose(world).weighted(&temper);
        let ends = [Ends::All, Ends::All, Ends::All, Ends::Fault, Ends::Late, Ends::WithCaller];
        let ends = if kind == EventKind::Exchange { &ends[..] } else { &ends[..5] };
        let giver = self.streaming.giver(world, ends);
        let (empty, ends) = (giver.left == 0, giver.ends);
        let (taker, window) = (self.streaming.taker(world), self.streaming.window(world));
        let pause = if drawn == Some(1) { self.streaming.pause(world) } else { Duration::ZERO };
        self.streaming.gives.insert((node, stream), giver);
        self.streaming.takes.insert((node, stream), taker);
        match drawn {
            Some(2) => self.streaming.then(world, node, stream, pause, fault(node, request)),
            // Its caller's patience is what ends it.
            Some(3) => self.streaming.forget(node, stream),
            Some(_) | None => {
                let accept = StreamCommand::Accept { request, window };
                self.streaming.then(world, node, stream, pause, Plan::Stream { node, command: accept });
                if empty && ends != Ends::WithCaller {
                    self.give(world, actor, stream, Credit::NONE);
                }
            }
        }
    }

    pub(super) fn streamed(&mut self, world: &mut World, actor: usize, event: &StreamEvent) {
        let Some(node) = self.actors[actor].node else { return };
        match event {
            StreamEvent::Accepted { token } => {
                let stream = StreamId::Call(*token);
                if self.streaming.gives.get(&(node, stream)).is_some_and(|giver| giver.left == 0) {
                    self.give(world, actor, stream, Credit::NONE);
                }
            }
            StreamEvent::Item { stream, cost, .. } => self.take(world, node, *stream, *cost),
            StreamEvent::Demand { stream, amount } => self.give(world, actor, *stream, *amount),
            StreamEvent::Finished { request, .. } => {
                let stream = StreamId::Request(*request);
                if let Some(giver) = self.streaming.gives.get_mut(&(node, stream))
                    && giver.ends == Ends::WithCaller
                {
                    (giver.ends, giver.left) = (Ends::All, 0);
                    self.give(world, actor, stream, Credit::NONE);
                }
            }
            StreamEvent::Ended { token, .. } => {
                self.actors[actor].calls.retain(|call| call != token);
                self.streaming.forget(node, StreamId::Call(*token));
            }
        }
    }

    pub(super) fn request_over(&mut self, actor: usize, request: RequestId) {
        if let Some(node) = self.actors[actor].node {
            self.streaming.forget(node, StreamId::Request(request));
        }
    }

    /// As many items as are wanted, now and then some more, at once or in two parts; and the end after the last.
    fn give(&mut self, world: &mut World, actor: usize, stream: StreamId, wanted: Credit) {
        let Some(node) = self.actors[actor].node else { return };
        let Some(giver) = self.streaming.gives.get_mut(&(node, stream)) else { return };
        giver.wanted = giver.wanted.plus(wanted);
        let (mut left, mut wanted, largest) = (giver.left, giver.wanted, giver.largest);
        let mut more = if self.streaming.choose(world).chance(1, 16) { 3 } else { 0 };
        let mut payloads = Vec::new();
        while left > 0 && (wanted.items > 0 && wanted.bytes > 0 || more > 0 && !payloads.is_empty()) {
            let size = match self.streaming.choose(world).below(16) {
                // Nothing, and too little to be told apart.
                1 if !self.malicious => self.streaming.choose(world).below(2),
                _ => self.streaming.choose(world).log_uniform(STAMP as u64, largest),
            };
            more -= u64::from(wanted.items == 0 || wanted.bytes == 0);
            let item = self.stamped(world, actor, usize::try_from(size).unwrap_or(STAMP));
            wanted = wanted.minus(Credit::of_piece(item.bytes.len(), true));
            left -= 1;
            payloads.push(item);
        }
        if let Some(giver) = self.streaming.gives.get_mut(&(node, stream)) {
            (giver.left, giver.wanted) = (left, wanted);
        }
        let split = self.streaming.choose(world).below(payloads.len() as u64 + 1) as usize;
        let split = if self.streaming.choose(world).chance(1, 4) { split } else { 0 };
        let later = payloads.split_off(split);
        for (payloads, pauses) in [(payloads, false), (later, split > 0)] {
            if !payloads.is_empty() {
                let pause = if pauses { self.streaming.pause(world) } else { Duration::ZERO };
                let command = StreamCommand::Items { stream, payloads };
                self.streaming.then(world, node, stream, pause, Plan::Stream { node, command });
            }
        }
        if left == 0 {
            self.end_stream(world, node, stream);
        }
    }

    fn end_stream(&mut self, world: &mut World, node: NodeId, stream: StreamId) {
        let ends = self.streaming.gives.get(&(node, stream)).map(|giver| giver.ends);
        let calm = self.streaming.calm;
        let plan = match (ends, stream) {
            (Some(Ends::Fault), StreamId::Request(request)) => fault(node, request),
            (Some(Ends::Late), _) if !calm => return,
            (Some(Ends::WithCaller), _) => return,
            (Some(_), _) => Plan::Stream { node, command: StreamCommand::Finish { stream } },
            (None, _) => return,
        };
        let pause =
            if self.streaming.choose(world).chance(1, 4) { self.streaming.pause(world) } else { Duration::ZERO };
        self.streaming.then(world, node, stream, pause, plan);
        self.streaming.gives.remove(&(node, stream));
    }

    fn take(&mut self, world: &mut World, node: NodeId, stream: StreamId, cost: u64) {
        let Some(taker) = self.streaming.takes.get_mut(&(node, stream)) else { return };
        taker.having = taker.having.plus(Credit { items: 1, bytes: cost });
        let (manner, having) = (taker.manner, taker.having);
        let pause = match manner {
            Manner::AtOnce => Duration::ZERO,
            Manner::Later => self.streaming.pause(world),
            Manner::Heaps(heap) if having.items >= heap => Duration::ZERO,
            Manner::Some(left) if left > 0 => Duration::ZERO,
            Manner::Heaps(_) | Manner::Some(_) => return,
        };
        if let Some(taker) = self.streaming.takes.get_mut(&(node, stream)) {
            taker.having = Credit::NONE;
            if let Manner::Some(left) = &mut taker.manner {
                *left -= 1;
            }
        }
        let command = StreamCommand::Consumed { stream, amount: having };
        world.plan_own(pause, Plan::Stream { node, command });
    }

    /// The storm is over: what was put off is done now, so that everything ends by itself.
    pub(super) fn calm_streams(&mut self, world: &mut World) {
        self.streaming.calm = true;
        // What a malicious hub keeps back is waited for in vain.
        for (node, stream) in self.streaming.takes.keys().filter(|_| self.malicious) {
            if let StreamId::Call(call) = *stream {
                world.plan_own(PATIENCE, Plan::Cancel { node: *node, call });
            }
        }
        for ((node, stream), taker) in &mut self.streaming.takes {
            taker.manner = Manner::AtOnce;
            let amount = std::mem::take(&mut taker.having);
            if amount != Credit::NONE {
                let command = StreamCommand::Consumed { stream: *stream, amount };
                world.plan_own(Duration::ZERO, Plan::Stream { node: *node, command });
            }
        }
        let gives = self.streaming.gives.iter();
        let done: Vec<_> = gives.filter(|(_, giver)| giver.left == 0).map(|(key, _)| *key).collect();
        for (node, stream) in done {
            self.end_stream(world, node, stream);
        }
    }
}

/// In some runs some streams have a total deadline. Each actor decides about its own by itself, so that recorded runs without
/// them go on as they were.
fn total(world: &mut World, actor: usize) -> Option<Duration> {
    let decisions = world.engine().decisions();
    let own = decisions.stream(&format!("totals/c{actor}"));
    let mut choose = decisions.on(own);
    choose.chance(1, 4).then(|| Duration::from_millis(choose.log_uniform(1, 4 * LONGEST_CALL)))
}

fn fault(node: NodeId, request: RequestId) -> Plan {
    let (message, details) = ("as drawn".to_owned(), bytes::Bytes::new());
    Plan::Answer { node, request, result: Err(Fault { code: 1_000, message, details, retryable: false }) }
}
