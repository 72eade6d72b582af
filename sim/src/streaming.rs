//! Streams and exchanges of drawn applications: who asks for them, how those who are asked give, and how everybody takes.
//!
//! In about half of the runs there are some.

use std::collections::BTreeMap;

use bytes::{BufMut as _, BytesMut};
use commipc_protocol::client::{
    Command, Credit, EventKind, Outgoing, Payload, RequestId, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::{ChannelName, EventName, Fault, Instant};
use core::time::Duration;

use crate::decisions::{Chooser, Stream};
use crate::node::NodeId;
use crate::plans::Plan;
use crate::world::World;

/// What all actors know of streams.
#[derive(Debug)]
pub(crate) struct Streaming {
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
    /// What is asked for from now on is taken at once, and given to its end.
    whole: bool,
    /// Whether all that is given must be told apart, because somebody is there whom nobody should trust.
    distinct: bool,
}

/// One who asks, gives and takes.
#[derive(Debug)]
pub(crate) struct Speaker<'a> {
    pub(crate) node: NodeId,
    pub(crate) actor: usize,
    /// The number of what was said last, by anybody.
    pub(crate) said: &'a mut u64,
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

/// Bytes by which payloads are told apart.
pub(crate) const STAMP: usize = 16;
/// The longest a call may take, in milliseconds.
pub(crate) const LONGEST_CALL: u64 = 60_000;
/// The longest a provider thinks before it answers, in nanoseconds.
pub(crate) const LONGEST_THOUGHT: u64 = 5_000_000_000;
/// How long anybody waits for a hub that nobody should trust.
const PATIENCE: Duration = Duration::from_secs(70);
/// Items of more than one piece are so long at most, and so many.
const LONG: (u64, u64) = (200_000, 3);
const KINDS: [EventKind; 3] = [EventKind::Call, EventKind::Stream, EventKind::Exchange];

impl Streaming {
    pub(crate) fn drawn(world: &mut World, distinct: bool) -> Self {
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
        let (calm, whole) = (false, false);
        Self {
            decisions,
            often,
            kinds,
            temper,
            manners,
            most,
            widest,
            longest,
            provided,
            gives,
            takes,
            calm,
            whole,
            distinct,
        }
    }

    /// Decisions are taken from here from now on.
    pub(crate) const fn decides(&mut self, stream: Stream) {
        self.decisions = stream;
    }

    fn choose<'w>(&self, world: &'w mut World) -> Chooser<'w> {
        world.engine().decisions().on(self.decisions)
    }

    /// Whether the next operation is about streams.
    pub(crate) fn is_due(&self, world: &mut World) -> bool {
        self.often > 0 && self.choose(world).chance(self.often, 64)
    }

    /// How the event is provided that is asked to be with this token.
    pub(crate) fn kind(&mut self, world: &mut World, token: Token) -> EventKind {
        if self.often == 0 {
            return EventKind::Call;
        }
        let drawn = self.choose(world).weighted(&self.kinds).unwrap_or(0);
        let kind = KINDS.get(drawn).copied().unwrap_or(EventKind::Call);
        self.provided.insert(token, kind);
        kind
    }

    /// How requests come that carry this token.
    pub(crate) fn provided(&self, provider: Token) -> EventKind {
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
        let ends = choose.pick(ends).copied().filter(|_| !self.whole).unwrap_or(Ends::All);
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
impl Streaming {
    /// Asks for what is provided so, most often as that. A payload of its own is put into it.
    pub(crate) fn ask(
        &mut self,
        world: &mut World,
        mut by: Speaker<'_>,
        (mut outgoing, kind): (Outgoing, Option<EventKind>),
        whole: Option<Duration>,
    ) -> Token {
        let (token, node) = (world.token(), by.node);
        outgoing.payload = self.stamped(world, &mut by, STAMP);
        let mut choose = self.choose(world);
        let other = choose.chance(1, 12) && !self.whole;
        let exchange = if other { choose.chance(1, 2) } else { kind == Some(EventKind::Exchange) };
        let drawn = Duration::from_millis(choose.log_uniform(1, LONGEST_CALL));
        let time_left = if self.whole { Duration::from_millis(LONGEST_CALL) } else { drawn };
        let gives_up = choose.chance(1, 4) && !self.whole;
        let window = self.window(world);
        let stream = StreamId::Call(token);
        if exchange {
            let giver = self.giver(world, &[Ends::All, Ends::All, Ends::Late]);
            self.gives.insert((node, stream), giver);
        }
        let taker = self.taker(world);
        self.takes.insert((node, stream), taker);
        if gives_up {
            let after = self.pause(world) * 4;
            world.plan_own(after, Plan::Cancel { node, call: token });
        }
        world.ask(node, Command::Stream(StreamCommand::Ask { token, outgoing, time_left, whole, window, exchange }));
        token
    }

    /// Which of what is provided is to be asked for, as a stream or not: most often one that is so.
    pub(crate) fn target<'p>(
        &self,
        world: &mut World,
        provided: impl Iterator<Item = (Token, &'p ChannelName, &'p EventName)>,
        streams: bool,
    ) -> Option<(EventKind, &'p ChannelName, &'p EventName)> {
        if self.often == 0 {
            return None;
        }
        let fitting = provided.map(|(token, channel, event)| (self.provided(token), channel, event));
        let fitting: Vec<_> = fitting.filter(|(kind, ..)| kind.streams() == streams).collect();
        let mut choose = self.choose(world);
        if choose.chance(7, 8) { choose.pick(&fitting).copied() } else { None }
    }

    /// Bytes that are unique, and begin with what makes them so.
    fn stamped(&self, world: &mut World, by: &mut Speaker<'_>, size: usize) -> Payload {
        *by.said += 1;
        let mut bytes = BytesMut::with_capacity(size);
        let raw = self.choose(world).chance(1, 2);
        if !raw {
            bytes.put_u8(0x5a);
            bytes.put_u32(u32::try_from(size).unwrap_or(0));
        }
        let stamp = [by.said.to_le_bytes(), (by.actor as u64).to_le_bytes()].concat();
        bytes.extend(stamp.iter().copied().chain(std::iter::repeat(0x5e)).take(size));
        Payload { bytes: bytes.freeze(), raw }
    }
}

/// Being asked, giving and taking.
impl Streaming {
    pub(crate) fn serve(&mut self, world: &mut World, by: Speaker<'_>, request: RequestId, kind: EventKind) {
        let (node, stream) = (by.node, StreamId::Request(request));
        let drawn = self.choose(world).weighted(&self.temper).filter(|_| !self.whole);
        let ends = [Ends::All, Ends::All, Ends::All, Ends::Fault, Ends::Late, Ends::WithCaller];
        let ends = if kind == EventKind::Exchange { &ends[..] } else { &ends[..5] };
        let giver = self.giver(world, ends);
        let (empty, ends) = (giver.left == 0, giver.ends);
        let (taker, window) = (self.taker(world), self.window(world));
        let pause = if drawn == Some(1) { self.pause(world) } else { Duration::ZERO };
        self.gives.insert((node, stream), giver);
        self.takes.insert((node, stream), taker);
        match drawn {
            Some(2) => self.then(world, node, stream, pause, fault(node, request)),
            // Its caller's patience is what ends it.
            Some(3) => self.forget(node, stream),
            Some(_) | None => {
                let accept = StreamCommand::Accept { request, window };
                self.then(world, node, stream, pause, Plan::Stream { node, command: accept });
                if empty && ends != Ends::WithCaller {
                    self.give(world, by, stream, Credit::NONE);
                }
            }
        }
    }

    pub(crate) fn told(&mut self, world: &mut World, by: Speaker<'_>, event: &StreamEvent) {
        let node = by.node;
        match event {
            StreamEvent::Accepted { token } => {
                let stream = StreamId::Call(*token);
                if self.gives.get(&(node, stream)).is_some_and(|giver| giver.left == 0) {
                    self.give(world, by, stream, Credit::NONE);
                }
            }
            StreamEvent::Item { stream, cost, .. } => self.take(world, node, *stream, *cost),
            StreamEvent::Demand { stream, amount } => self.give(world, by, *stream, *amount),
            StreamEvent::Finished { request, .. } => {
                let stream = StreamId::Request(*request);
                if let Some(giver) = self.gives.get_mut(&(node, stream))
                    && giver.ends == Ends::WithCaller
                {
                    (giver.ends, giver.left) = (Ends::All, 0);
                    self.give(world, by, stream, Credit::NONE);
                }
            }
            StreamEvent::Ended { token, .. } => self.forget(node, StreamId::Call(*token)),
        }
    }

    pub(crate) fn request_over(&mut self, node: NodeId, request: RequestId) {
        self.forget(node, StreamId::Request(request));
    }

    /// As many items as are wanted, now and then some more, at once or in two parts; and the end after the last.
    fn give(&mut self, world: &mut World, mut by: Speaker<'_>, stream: StreamId, wanted: Credit) {
        let node = by.node;
        let Some(giver) = self.gives.get_mut(&(node, stream)) else { return };
        giver.wanted = giver.wanted.plus(wanted);
        let (mut left, mut wanted, largest) = (giver.left, giver.wanted, giver.largest);
        let mut more = if self.choose(world).chance(1, 16) { 3 } else { 0 };
        let mut payloads = Vec::new();
        while left > 0 && (wanted.items > 0 && wanted.bytes > 0 || more > 0 && !payloads.is_empty()) {
            let size = match self.choose(world).below(16) {
                // Nothing, and too little to be told apart.
                1 if !self.distinct => self.choose(world).below(2),
                _ => self.choose(world).log_uniform(STAMP as u64, largest),
            };
            more -= u64::from(wanted.items == 0 || wanted.bytes == 0);
            let item = self.stamped(world, &mut by, usize::try_from(size).unwrap_or(STAMP));
            wanted = wanted.minus(Credit::of_piece(item.bytes.len(), true));
            left -= 1;
            payloads.push(item);
        }
        if let Some(giver) = self.gives.get_mut(&(node, stream)) {
            (giver.left, giver.wanted) = (left, wanted);
        }
        let split = self.choose(world).below(payloads.len() as u64 + 1) as usize;
        let split = if self.choose(world).chance(1, 4) { split } else { 0 };
        let later = payloads.split_off(split);
        for (payloads, pauses) in [(payloads, false), (later, split > 0)] {
            if !payloads.is_empty() {
                let pause = if pauses { self.pause(world) } else { Duration::ZERO };
                let command = StreamCommand::Items { stream, payloads };
                self.then(world, node, stream, pause, Plan::Stream { node, command });
            }
        }
        if left == 0 {
            self.end_stream(world, node, stream);
        }
    }

    fn end_stream(&mut self, world: &mut World, node: NodeId, stream: StreamId) {
        let ends = self.gives.get(&(node, stream)).map(|giver| giver.ends);
        let calm = self.calm;
        let plan = match (ends, stream) {
            (Some(Ends::Fault), StreamId::Request(request)) => fault(node, request),
            (Some(Ends::Late), _) if !calm => return,
            (Some(Ends::WithCaller), _) => return,
            (Some(_), _) => Plan::Stream { node, command: StreamCommand::Finish { stream } },
            (None, _) => return,
        };
        let pause = if self.choose(world).chance(1, 4) { self.pause(world) } else { Duration::ZERO };
        self.then(world, node, stream, pause, plan);
        self.gives.remove(&(node, stream));
    }

    fn take(&mut self, world: &mut World, node: NodeId, stream: StreamId, cost: u64) {
        let Some(taker) = self.takes.get_mut(&(node, stream)) else { return };
        taker.having = taker.having.plus(Credit { items: 1, bytes: cost });
        let (manner, having) = (taker.manner, taker.having);
        let pause = match manner {
            Manner::AtOnce => Duration::ZERO,
            Manner::Later => self.pause(world),
            Manner::Heaps(heap) if having.items >= heap => Duration::ZERO,
            Manner::Some(left) if left > 0 => Duration::ZERO,
            Manner::Heaps(_) | Manner::Some(_) => return,
        };
        if let Some(taker) = self.takes.get_mut(&(node, stream)) {
            taker.having = Credit::NONE;
            if let Manner::Some(left) = &mut taker.manner {
                *left -= 1;
            }
        }
        let command = StreamCommand::Consumed { stream, amount: having };
        world.plan_own(pause, Plan::Stream { node, command });
    }

    /// The storm is over: what was put off is done now, so that everything ends by itself. And if so, what is asked for from
    /// now on is taken at once, and given to its end.
    pub(crate) fn calm(&mut self, world: &mut World, whole: bool) {
        (self.calm, self.whole) = (true, whole);
        // What a malicious hub keeps back is waited for in vain.
        for (node, stream) in self.takes.keys().filter(|_| self.distinct) {
            if let StreamId::Call(call) = *stream {
                world.plan_own(PATIENCE, Plan::Cancel { node: *node, call });
            }
        }
        for ((node, stream), taker) in &mut self.takes {
            taker.manner = Manner::AtOnce;
            let amount = std::mem::take(&mut taker.having);
            if amount != Credit::NONE {
                let command = StreamCommand::Consumed { stream: *stream, amount };
                world.plan_own(Duration::ZERO, Plan::Stream { node: *node, command });
            }
        }
        let gives = self.gives.iter();
        let done: Vec<_> = gives.filter(|(_, giver)| giver.left == 0).map(|(key, _)| *key).collect();
        for (node, stream) in done {
            self.end_stream(world, node, stream);
        }
    }
}

fn fault(node: NodeId, request: RequestId) -> Plan {
    let (message, details) = ("as drawn".to_owned(), bytes::Bytes::new());
    Plan::Answer { node, request, result: Err(Fault { code: 1_000, message, details, retryable: false }) }
}
