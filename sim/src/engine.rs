//! One thread that drives machines through virtual time, as a driver on real sockets would.
//!
//! ```text
//!              ┌────────────── agenda: what happens when ───────────────┐
//!              ▼                                                        │
//!   take ──► Input ──► machine ──► Output ──► wires, dials, timers ─────┘
//!                │                    │
//!                └──── witness ◄──────┘   sees every input and output: trace, oracles, scripts
//! ```

mod faults;

use std::collections::VecDeque;

use bytes::Bytes;
use commipc_protocol::{Flush, Input, Instant, LinkEnd, LinkId, Machine, Output, Peer, Transport};
use core::time::Duration;

use crate::agenda::Agenda;
use crate::attacker::Attacker;
use crate::decisions::{Chooser, Decisions, Stream};
use crate::liar::Liar;
use crate::node::{Clocks, Habits, Node, NodeId};
use crate::weather::Weather;
use crate::wire::{Arrival, End, Nature, Pipe, Wire};

/// Sees all that goes on.
pub trait Witness<M: Machine> {
    /// Something was seen at `node`; `at` is the world's time.
    fn saw(&mut self, at: Instant, node: NodeId, sight: Sight<'_, M::Command, M::Event>);
}

/// What there is to be seen at a node.
#[derive(Debug)]
pub enum Sight<'a, C, E> {
    /// A connection came to be; this node dialled it. Neither end has been told yet.
    Linked {
        /// This end.
        link: LinkId,
        /// The other end's node.
        with: NodeId,
        /// The other end.
        as_link: LinkId,
    },
    /// An input, about to be fed.
    Fed(&'a Input<C>),
    /// An output, about to be carried out.
    Gave(&'a Output<E>),
    /// All outputs were drained.
    Drained,
    /// The machine broke the contract between machine and driver.
    Broke(&'a str),
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is planned any more.
    Idle,
    /// Something happened.
    Ran,
    /// It is time for what was asked for with [`Engine::wake`].
    Woke(u64),
}

#[derive(Debug)]
enum Happening {
    Wake(u64),
    Timer { node: usize, serial: u64 },
    Drain { node: usize },
    Refuse { node: usize, link: LinkId, how: LinkEnd },
    Stand { wire: usize, side: usize },
    Arrive { wire: usize, side: usize },
    Written { wire: usize, side: usize },
    Over { wire: usize, side: usize, how: LinkEnd },
    Stray { node: usize, link: LinkId },
}

/// Machines, the wires between them and what is to happen.
pub struct Engine<M: Machine> {
    agenda: Agenda<Happening>,
    decisions: Decisions,
    order: Stream,
    net: Stream,
    fault: Stream,
    attack: Stream,
    weather: Weather,
    attacker: Attacker,
    /// A node whose words to others are not its own, what is made of them, and where that is drawn.
    liar: Option<(usize, Liar, Stream)>,
    nodes: Vec<Node<M>>,
    wires: Vec<Wire>,
    told: VecDeque<(NodeId, M::Event)>,
}

/// More timeouts than this for one deadline are a machine that spins, whether or not time passes between them.
const SPINS: u32 = 64;

impl<M: Machine> Engine<M> {
    /// An empty world.
    #[must_use]
    pub fn new(mut decisions: Decisions, weather: Weather) -> Self {
        let (order, net, fault) = (decisions.stream("order"), decisions.stream("net"), decisions.stream("fault"));
        let (agenda, attack) = (Agenda::new(), decisions.stream("attack"));
        Self {
            agenda,
            decisions,
            order,
            net,
            fault,
            attack,
            weather,
            attacker: Attacker::default(),
            liar: None,
            nodes: Vec::new(),
            wires: Vec::new(),
            told: VecDeque::new(),
        }
    }

    /// The world's time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.agenda.now()
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.agenda.next_at()
    }

    /// The source of decisions.
    pub const fn decisions(&mut self) -> &mut Decisions {
        &mut self.decisions
    }

    /// What was decided so far.
    #[must_use]
    pub const fn decided(&self) -> &Decisions {
        &self.decisions
    }

    /// What new connections are like.
    pub const fn weather(&mut self) -> &mut Weather {
        &mut self.weather
    }

    /// Who is on the path of connections, where the weather says that somebody is.
    #[must_use]
    pub const fn attacker(&self) -> &Attacker {
        &self.attacker
    }

    /// A machine.
    #[must_use]
    pub fn machine(&self, node: NodeId) -> Option<&M> {
        self.nodes.get(node.index()).map(|node| &node.machine)
    }

    /// A node's name.
    #[must_use]
    pub fn name(&self, node: NodeId) -> &str {
        self.nodes.get(node.index()).map_or("?", |node| node.name.as_str())
    }

    /// The node of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<NodeId> {
        let index = self.nodes.iter().position(|node| node.name == name)?;
        u32::try_from(index).ok().map(NodeId)
    }

    /// Adds a machine, to be dialled as `sim:` and its name.
    pub fn add(&mut self, name: &str, machine: M) -> NodeId {
        let stream = self.decisions.stream(&format!("node/{name}"));
        self.nodes.push(Node::new(name, machine, stream));
        NodeId(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX))
    }

    /// Gives a node habits and clocks of its own.
    pub fn place(&mut self, node: NodeId, habits: Habits, clocks: Clocks) {
        if let Some(node) = self.nodes.get_mut(node.index()) {
            (node.habits, node.clocks) = (habits, clocks);
        }
    }

    /// Takes decisions from a node's own stream.
    pub fn choose(&mut self, node: NodeId) -> Chooser<'_> {
        let stream = self.nodes.get(node.index()).map_or(self.net, |node| node.stream);
        self.decisions.on(stream)
    }

    /// Plans a [`Step::Woke`].
    pub fn wake(&mut self, at: Instant, key: u64) {
        self.agenda.plan(at, Happening::Wake(key));
    }

    /// The next event of any machine, for whoever plays its application.
    pub fn told(&mut self) -> Option<(NodeId, M::Event)> {
        self.told.pop_front()
    }

    /// Hands a machine a command.
    pub fn command(&mut self, node: NodeId, command: M::Command, witness: &mut impl Witness<M>) {
        self.feed(node.index(), Input::Command(command), witness);
    }

    /// Lets time pass up to `to`, where nothing is planned before it.
    pub fn advance(&mut self, to: Instant) {
        self.agenda.advance(to);
    }

    /// Lets the next thing happen.
    pub fn step(&mut self, witness: &mut impl Witness<M>) -> Step {
        let Some((now, happening)) = self.agenda.take(self.decisions.on(self.order)) else { return Step::Idle };
        if let Some(until) = self.at_of(&happening).map(|node| node.still).filter(|until| *until > now) {
            self.agenda.plan(until, happening);
            return Step::Ran;
        }
        match happening {
            Happening::Wake(key) => return Step::Woke(key),
            Happening::Timer { node, serial } => self.timer(node, serial, witness),
            Happening::Drain { node } => self.drain(node, witness),
            Happening::Refuse { node, link, how } => self.refuse(node, link, how, witness),
            Happening::Stand { wire, side } => self.stand(wire, side, witness),
            Happening::Arrive { wire, side } => self.arrive(wire, side, witness),
            Happening::Written { wire, side } => self.written(wire, side, witness),
            Happening::Over { wire, side, how } => self.over(wire, side, how, witness),
            Happening::Stray { node, link } => self.stray(node, link, witness),
        }
        Step::Ran
    }

    fn id(node: usize) -> NodeId {
        NodeId(u32::try_from(node).unwrap_or(u32::MAX))
    }

    /// Feeds one input and carries out what comes of it, now or, with a lazy driver, later.
    fn feed(&mut self, index: usize, input: Input<M::Command>, witness: &mut impl Witness<M>) {
        let at = self.now();
        let Some(node) = self.nodes.get_mut(index) else { return };
        let mut choose = self.decisions.on(node.stream);
        let is_timeout = matches!(input, Input::Timeout);
        let age = if is_timeout || node.habits.stale == 0 { 0 } else { choose.below(node.habits.stale) };
        let lazy = choose.chance(node.habits.lazy, 256);
        let hasty = !is_timeout && choose.chance(node.habits.hasty, 256);
        witness.saw(at, Self::id(index), Sight::Fed(&input));
        let mut now = node.now(at);
        now.mono = Instant::from_nanos(now.mono.as_nanos().saturating_sub(age));
        node.machine.handle_input(now, input);
        node.undrained += 1;
        if !lazy {
            self.drain(index, witness);
        } else if !node.draining {
            node.draining = true;
            let later = choose.log_uniform(1, 10_000_000);
            self.agenda.plan(at + Duration::from_nanos(self.weather.coarse(later)), Happening::Drain { node: index });
            self.replan(index);
        }
        if hasty {
            self.timeout_early(index, witness);
        }
    }

    fn drain(&mut self, index: usize, witness: &mut impl Witness<M>) {
        let at = self.now();
        let Some(node) = self.nodes.get_mut(index) else { return };
        node.draining = false;
        while let Some(output) = self.nodes.get_mut(index).and_then(|node| node.machine.poll_output()) {
            witness.saw(at, Self::id(index), Sight::Gave(&output));
            self.carry_out(index, output, witness);
        }
        witness.saw(at, Self::id(index), Sight::Drained);
        if let Some(node) = self.nodes.get_mut(index) {
            node.undrained = 0;
        }
        self.replan(index);
    }

    fn carry_out(&mut self, index: usize, output: Output<M::Event>, witness: &mut impl Witness<M>) {
        match output {
            Output::Transmit { link, data } => self.transmit(index, link, data, witness),
            Output::Dial { link, to } => self.dial(index, link, &to, witness),
            Output::Close { link, flush } => self.close(index, link, flush, witness),
            Output::Event(event) => self.told.push_back((Self::id(index), event)),
        }
    }

    /// Complains, unless the output may have been made before an input that the lazy driver fed meanwhile.
    fn complain(&self, index: usize, what: &str, witness: &mut impl Witness<M>) {
        if self.nodes.get(index).is_some_and(|node| node.undrained <= 1) {
            witness.saw(self.now(), Self::id(index), Sight::Broke(what));
        }
    }

    fn transmit(&mut self, index: usize, link: LinkId, data: Bytes, witness: &mut impl Witness<M>) {
        if data.is_empty() {
            self.complain(index, "a transmit without bytes", witness);
        }
        let Some((wire, side)) = self.ends(index, link) else {
            return self.complain(index, "a transmit on a link that is over or never was", witness);
        };
        if !self.wires[wire].ends[side].standing {
            return self.complain(index, "a transmit on a link that was not dialled yet", witness);
        }
        self.wires[wire].pipes[side].transmit(data);
        self.pump(wire, side);
    }

    fn ends(&self, index: usize, link: LinkId) -> Option<(usize, usize)> {
        self.nodes.get(index)?.links.get(&link).copied()
    }

    /// Moves bytes on and plans the news of it.
    fn pump(&mut self, wire: usize, side: usize) {
        let now = self.now();
        let pipe = &mut self.wires[wire].pipes[side];
        pipe.pump(now, self.decisions.on(self.net));
        if pipe.untold > 0 && !pipe.telling {
            pipe.telling = true;
            self.agenda.plan(now, Happening::Written { wire, side });
        }
        self.plan_arrival(wire, 1 - side);
    }

    /// Plans the next read at an end.
    fn plan_arrival(&mut self, wire: usize, reader: usize) {
        let now = self.now();
        let Wire { ends, pipes, broken, .. } = &mut self.wires[wire];
        let pipe = &mut pipes[1 - reader];
        if pipe.arriving || *broken || !ends[reader].standing || !ends[reader].open {
            return;
        }
        if let Some(at) = pipe.next_arrival(now) {
            pipe.arriving = true;
            self.agenda.plan(at.max(now), Happening::Arrive { wire, side: reader });
        }
    }

    fn dial(&mut self, index: usize, link: LinkId, to: &str, witness: &mut impl Witness<M>) {
        if !link.is_dialled() || self.ends(index, link).is_some() {
            return self.complain(index, "a dial for a link that is not free", witness);
        }
        let now = self.now();
        let target = to.strip_prefix("sim:").and_then(|name| self.find(name));
        let ends = [Some(Self::id(index)), target].into_iter().flatten();
        let silent = ends.map(|end| self.nodes[end.index()].silent).fold(now, Instant::max);
        let mut choose = self.decisions.on(self.net);
        let delay = choose.log_uniform(self.weather.latency.0, self.weather.latency.1);
        let delays = [choose.below(delay + 1), choose.below(delay + 1)]
            .map(|more| silent + Duration::from_nanos(self.weather.coarse(delay + more)));
        let refused = self.decisions.on(self.fault).chance(self.weather.refused, 1_000);
        let Some(target) = target.filter(|target| !refused && !self.nodes[target.index()].down) else {
            let mut choose = self.decisions.on(self.fault);
            let hows = [LinkEnd::Refused, LinkEnd::Unreachable, LinkEnd::Denied];
            let how = choose.pick(&hows).copied().unwrap_or(LinkEnd::Refused);
            self.nodes[index].dialling.push(link);
            return self.agenda.plan(delays[0], Happening::Refuse { node: index, link, how });
        };
        let as_link = self.nodes[target.index()].accepted.take();
        witness.saw(now, Self::id(index), Sight::Linked { link, with: target, as_link });
        self.lay_wire([(index, link), (target.index(), as_link)], delays);
    }

    fn lay_wire(&mut self, ends: [(usize, LinkId); 2], delays: [Instant; 2]) {
        let natures = [(); 2].map(|()| Nature::drawn(&self.weather, self.decisions.on(self.net)));
        let wire = self.wires.len();
        let ends = ends.map(|(node, link)| {
            self.nodes[node].links.insert(link, (wire, usize::from(!link.is_dialled())));
            End { node, link, standing: false, open: true }
        });
        let (peer, attacked) = (self.peer(), self.weather.assault.is_some());
        self.wires.push(Wire { ends, pipes: natures.map(Pipe::new), broken: false, attacked, peer });
        for (side, at) in delays.into_iter().enumerate() {
            self.agenda.plan(at, Happening::Stand { wire, side });
        }
    }

    /// What both ends know of each other on a new wire.
    fn peer(&mut self) -> Peer {
        let drawn = self.decisions.on(self.net).weighted(&self.weather.transports);
        let unix = Peer { uid: Some(1_000), uid_checked: true, ..Peer::unknown(Transport::Unix) };
        match drawn {
            Some(0) => unix,
            Some(1) => Peer::unknown(Transport::Tcp),
            Some(_) | None => Peer::unknown(Transport::Memory),
        }
    }

    fn refuse(&mut self, node: usize, link: LinkId, how: LinkEnd, witness: &mut impl Witness<M>) {
        let Some(dialling) = self.nodes.get_mut(node).map(|node| &mut node.dialling) else { return };
        if let Some(index) = dialling.iter().position(|other| *other == link) {
            dialling.remove(index);
            self.feed(node, Input::Closed { link, how }, witness);
        }
    }

    fn stand(&mut self, wire: usize, side: usize, witness: &mut impl Witness<M>) {
        let Wire { ends, peer, .. } = &mut self.wires[wire];
        let end = &mut ends[side];
        if !end.open {
            return;
        }
        end.standing = true;
        let (node, link, peer) = (end.node, end.link, peer.clone());
        let input = if side == 0 { Input::Dialled { link, peer } } else { Input::Accepted { link, peer } };
        self.feed(node, input, witness);
        self.plan_arrival(wire, side);
    }

    fn arrive(&mut self, wire: usize, side: usize, witness: &mut impl Witness<M>) {
        let now = self.now();
        let Wire { ends, pipes, broken, .. } = &mut self.wires[wire];
        let pipe = &mut pipes[1 - side];
        pipe.arriving = false;
        if !ends[side].open || *broken {
            return;
        }
        let (node, link) = (ends[side].node, ends[side].link);
        match pipe.arrive(now, self.decisions.on(self.net)) {
            Arrival::Nothing => {}
            Arrival::Bytes(data) => {
                // There is room again: the writer goes on before the reader's machine answers.
                self.pump(wire, 1 - side);
                if let Some(data) = self.passed(wire, side, data) {
                    self.feed(node, Input::Received { link, data }, witness);
                }
            }
            Arrival::End(how) => {
                let delay = self.decisions.on(self.net).below(self.weather.end_delay + 1);
                let at = now + Duration::from_nanos(self.weather.coarse(delay));
                pipe.leads_nowhere();
                return self.agenda.plan(at, Happening::Over { wire, side, how });
            }
            Arrival::Cut => return self.break_wire(wire, LinkEnd::Reset),
        }
        self.plan_arrival(wire, side);
    }
}

/// How connections end, and how time presses.
impl<M: Machine> Engine<M> {
    fn written(&mut self, wire: usize, side: usize, witness: &mut impl Witness<M>) {
        let Wire { ends, pipes, .. } = &mut self.wires[wire];
        pipes[side].telling = false;
        let bytes = std::mem::take(&mut pipes[side].untold);
        let (node, link) = (ends[side].node, ends[side].link);
        if ends[side].open && bytes > 0 {
            self.feed(node, Input::Written { link, bytes }, witness);
        }
    }

    /// The machine is told that its link is over.
    fn over(&mut self, wire: usize, side: usize, how: LinkEnd, witness: &mut impl Witness<M>) {
        let end = &self.wires[wire].ends[side];
        let (node, link) = (end.node, end.link);
        let knows = end.standing || side == 0;
        if !end.open {
            return;
        }
        self.forget(wire, side);
        self.wires[wire].pipes[side].clear();
        if knows {
            self.feed(node, Input::Closed { link, how }, witness);
        }
    }

    fn forget(&mut self, wire: usize, side: usize) {
        let end = &mut self.wires[wire].ends[side];
        end.open = false;
        if let Some(node) = self.nodes.get_mut(end.node) {
            node.links.remove(&end.link);
            node.accepted.give_back(end.link);
        }
    }

    /// Both ends learn of the break in their own time; what is on the way is lost.
    fn break_wire(&mut self, wire: usize, how: LinkEnd) {
        let now = self.now();
        let Wire { pipes, broken, .. } = &mut self.wires[wire];
        if std::mem::replace(broken, true) {
            return;
        }
        pipes.iter_mut().for_each(Pipe::leads_nowhere);
        for side in [0, 1] {
            let delay = self.decisions.on(self.net).below(self.weather.end_delay + 1);
            let at = now + Duration::from_nanos(self.weather.coarse(delay));
            self.agenda.plan(at, Happening::Over { wire, side, how });
        }
    }

    /// The machine ends a link.
    fn close(&mut self, index: usize, link: LinkId, flush: Flush, witness: &mut impl Witness<M>) {
        let Some((wire, side)) = self.ends(index, link) else {
            let Some(node) = self.nodes.get_mut(index) else { return };
            let dialling = node.dialling.len();
            node.dialling.retain(|other| *other != link);
            if node.dialling.len() == dialling {
                self.complain(index, "a close of a link that is over or never was", witness);
            }
            return;
        };
        self.forget(wire, side);
        let rude = flush == Flush::Nothing && self.decisions.on(self.fault).chance(self.weather.rude, 1_000);
        let Wire { pipes, .. } = &mut self.wires[wire];
        pipes[1 - side].leads_nowhere();
        pipes[side].close(flush != Flush::Nothing, if rude { LinkEnd::Reset } else { LinkEnd::Eof });
        self.pump(wire, side);
        let Some(node) = self.nodes.get(index) else { return };
        let mut choose = self.decisions.on(node.stream);
        if choose.chance(node.habits.stray, 256) {
            let later = choose.log_uniform(1, 10_000_000);
            let at = self.now() + Duration::from_nanos(later);
            self.agenda.plan(at, Happening::Stray { node: index, link });
        }
    }

    /// The driver still had something in hand for a link that the machine has closed.
    fn stray(&mut self, index: usize, link: LinkId, witness: &mut impl Witness<M>) {
        let Some(node) = self.nodes.get(index) else { return };
        let input = match self.decisions.on(node.stream).below(4) {
            0 => Input::Closed { link, how: LinkEnd::Eof },
            1 => Input::Closed { link, how: LinkEnd::Reset },
            2 => Input::Received { link, data: Bytes::from_static(&[0, 0, 0, 2, 1, 0xa0]) },
            _ => Input::Written { link, bytes: 1 },
        };
        self.feed_quietly(index, input, "an output for a link that the machine had closed", witness);
    }

    fn timeout_early(&mut self, index: usize, witness: &mut impl Witness<M>) {
        self.feed_quietly(index, Input::Timeout, "an output of a timeout before its deadline", witness);
    }

    /// Feeds what must have no effect, where nothing else can have one at the same time.
    fn feed_quietly(&mut self, index: usize, input: Input<M::Command>, why: &str, witness: &mut impl Witness<M>) {
        let at = self.now();
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.undrained > 0 || node.is_due(at) {
            return;
        }
        witness.saw(at, Self::id(index), Sight::Fed(&input));
        let now = node.now(at);
        node.machine.handle_input(now, input);
        node.undrained = 1;
        if let Some(output) = node.machine.poll_output() {
            witness.saw(at, Self::id(index), Sight::Gave(&output));
            witness.saw(at, Self::id(index), Sight::Broke(why));
            self.carry_out(index, output, witness);
        }
        self.drain(index, witness);
    }

    fn timer(&mut self, index: usize, serial: u64, witness: &mut impl Witness<M>) {
        let at = self.now();
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.timer_serial != serial {
            return;
        }
        node.timer = None;
        let Some(deadline) = node.deadline().filter(|deadline| *deadline <= at) else { return self.replan(index) };
        node.spins = if node.fed_for.is_some_and(|before| deadline <= before) { node.spins + 1 } else { 0 };
        node.fed_for = Some(deadline);
        if node.spins > SPINS {
            // It gets no timeout any more, or the run would never end.
            node.spinning = true;
            return witness.saw(at, Self::id(index), Sight::Broke("a deadline that its timeout does not move"));
        }
        self.feed(index, Input::Timeout, witness);
    }

    /// Plans the timeout that the machine asks for now, if the planned one comes too late.
    fn replan(&mut self, index: usize) {
        let at = self.now();
        let Some(node) = self.nodes.get_mut(index) else { return };
        let Some(deadline) = node.deadline().filter(|_| !node.spinning) else { return };
        if node.timer.is_some_and(|planned| planned <= deadline) {
            return;
        }
        node.timer = Some(deadline);
        node.timer_serial += 1;
        let late = self.decisions.on(node.stream).below(node.habits.drowsy + 1);
        let due = deadline.max(at) + Duration::from_nanos(late);
        self.agenda.plan(due, Happening::Timer { node: index, serial: node.timer_serial });
    }
}
