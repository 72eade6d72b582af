//! Several hubs, their clients and the bridges between them, in memory: what is under way on each line stays in order, and
//! which line moves next is drawn from a seed.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::{Capabilities, Credential, IdPattern, Secret, Verifier};
use commipc_protocol::bridge::{self, Bridge, BridgeConfig, BridgeEnd, Side};
use commipc_protocol::client::{self, Client, ClientConfig, Command, Event, EventKind, Reconnect, Token};
use commipc_protocol::hub::{self, Hub, HubConfig};
use commipc_protocol::{
    Address, ClientId, CredentialId, EventName, HubId, Input, Instant, Limits, LinkEnd, LinkId, Machine, Now, Output,
    OwnerPolicy, Peer, Seed, Transport, UnixMillis,
};

use super::{KEY, credentials, name, outgoing};

pub const BRIDGE_KEY: [u8; 32] = [8; 32];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Hub(usize),
    Client(usize),
    Bridge(usize),
}

#[derive(Debug)]
enum Moving {
    Data(Bytes),
    End,
}

/// A line between the node that dialled and a hub.
struct Pipe {
    ends: [(Node, LinkId); 2],
    moving: [VecDeque<Moving>; 2],
}

pub struct Net {
    pub hubs: Vec<Option<Hub>>,
    pub clients: Vec<Client>,
    pub bridges: Vec<Option<Bridge>>,
    /// What each client was told and no test has looked at yet.
    pub events: Vec<VecDeque<Event>>,
    pub bridge_events: Vec<Vec<bridge::Event>>,
    pub hub_events: Vec<Vec<hub::Event>>,
    pub now: Now,
    pub limits: Limits,
    pipes: BTreeMap<u32, Pipe>,
    serial: u32,
    boots: u8,
    random: u64,
    /// Bytes that crossed bridges so far.
    pub crossed: usize,
    /// Lines on which nothing moves.
    pub held: Vec<Node>,
    /// Nodes that take nothing: what others transmit to them stays with the others' drivers.
    pub deaf: Vec<Node>,
    /// What a bridge that is not honest makes of each frame that it says to a hub: the frames in its place.
    pub evil: Option<(usize, Evil)>,
}

/// From the type and body of a frame to those that are said instead of it.
pub type Evil = Box<dyn FnMut(u8, &[u8]) -> Vec<(u8, Vec<u8>)>>;

/// What a bridge is made of beside its ends.
#[derive(Default)]
pub struct Between {
    pub allow: Vec<&'static str>,
    pub one_way: bool,
    pub rate: Option<u32>,
}

pub fn hub_name(hub: usize) -> String {
    format!("hub-{}", char::from(b'a' + u8::try_from(hub).unwrap()))
}

pub fn address(client: &str, hub: usize) -> Address {
    Address { client: ClientId::new(client).unwrap(), hub: HubId::new(&hub_name(hub)).unwrap() }
}

impl Net {
    /// So many hubs, and clients with the hubs they are at.
    pub fn new(seed: u64, hubs: usize, clients: &[(&str, usize)]) -> Self {
        Self::with(seed, hubs, clients, Limits::default())
    }

    pub fn with(seed: u64, hubs: usize, clients: &[(&str, usize)], limits: Limits) -> Self {
        let mut net = Self {
            hubs: Vec::new(),
            clients: Vec::new(),
            bridges: Vec::new(),
            events: Vec::new(),
            bridge_events: Vec::new(),
            hub_events: Vec::new(),
            now: Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) },
            limits,
            pipes: BTreeMap::new(),
            serial: 0,
            boots: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            crossed: 0,
            held: Vec::new(),
            deaf: Vec::new(),
            evil: None,
        };
        for hub in 0..hubs {
            net.hubs.push(None);
            net.hub_events.push(Vec::new());
            net.start_hub(hub);
        }
        for (name, hub) in clients {
            net.add_client(name, *hub);
        }
        net.run();
        for client in 0..net.clients.len() {
            assert!(matches!(net.next(client), Event::Ready(_)));
        }
        net
    }

    pub fn add_client(&mut self, name: &str, hub: usize) -> usize {
        let mut seed = [2; 32];
        seed[..name.len()].copy_from_slice(name.as_bytes());
        seed[31] = u8::try_from(hub).unwrap();
        let config = ClientConfig {
            hub: Arc::from(hub.to_string()),
            id: Some(ClientId::new(name).unwrap()),
            credential: CredentialId::shared(),
            secret: Secret::key(KEY),
            limits: self.limits.clone(),
            reconnect: Some(Reconnect::default()),
        };
        self.clients.push(Client::new(config, &Seed::new(seed)));
        self.events.push(VecDeque::new());
        let client = self.clients.len() - 1;
        self.feed_client(client, Input::Command(Command::Connect));
        client
    }

    /// A hub without memory of what was before.
    pub fn start_hub(&mut self, hub: usize) {
        self.boots += 1;
        let secret = Secret::key(BRIDGE_KEY);
        let verifier = Verifier::new(&secret, [4; 16], 100_000).unwrap();
        let entry = Credential::new(verifier, Capabilities::BRIDGE, vec![IdPattern::any()]);
        let credentials = credentials(&Secret::key(KEY)).with(CredentialId::new("bridge").unwrap(), entry);
        let id = Some(HubId::new(&hub_name(hub)).unwrap());
        let config = HubConfig { id, credentials, limits: self.limits.clone(), owner_policy: OwnerPolicy::default() };
        let mut seed = [5; 32];
        (seed[0], seed[1]) = (u8::try_from(hub).unwrap(), self.boots);
        self.hubs[hub] = Some(Hub::new(config, &Seed::new(seed)));
    }

    /// The hub's process ends; nobody is told but by the ends of their links.
    pub fn kill_hub(&mut self, hub: usize) {
        self.hubs[hub] = None;
        self.cut_all(Node::Hub(hub));
    }

    pub fn bridge(&mut self, a: usize, b: usize) -> usize {
        self.bridge_with(a, b, &Between::default())
    }

    pub fn bridge_with(&mut self, a: usize, b: usize, between: &Between) -> usize {
        let number = self.bridges.len();
        self.bridges.push(None);
        self.bridge_events.push(Vec::new());
        self.start_bridge(number, a, b, between);
        number
    }

    pub fn start_bridge(&mut self, number: usize, a: usize, b: usize, between: &Between) {
        self.boots += 1;
        let end = |hub: usize| BridgeEnd {
            hub: Arc::from(hub.to_string()),
            credential: CredentialId::new("bridge").unwrap(),
            secret: Secret::key(BRIDGE_KEY),
        };
        let mut reconnect = Reconnect::default();
        reconnect.initial = true;
        let config = BridgeConfig {
            a: end(a),
            b: end(b),
            id: None,
            allow: between.allow.iter().map(|pattern| pattern.parse().unwrap()).collect(),
            one_way: between.one_way,
            rate: between.rate.and_then(NonZeroU32::new),
            limits: self.limits.clone(),
            reconnect: Some(reconnect),
        };
        let mut seed = [6; 32];
        (seed[0], seed[1]) = (u8::try_from(number).unwrap(), self.boots);
        self.bridges[number] = Some(Bridge::new(config, &Seed::new(seed)));
        self.bridge_events[number].clear();
        self.feed_bridge(number, Input::Command(bridge::Command::Connect));
    }

    /// A bridge's process ends.
    pub fn kill_bridge(&mut self, number: usize) {
        self.bridges[number] = None;
        self.cut_all(Node::Bridge(number));
    }

    /// Breaks one of a bridge's links without a word.
    pub fn cut(&mut self, bridge: usize, side: Side) {
        let of = |pipe: &Pipe| pipe.ends[0].0 == Node::Bridge(bridge) && pipe.ends[0].1.index() == side as usize;
        let serial = self.pipes.iter().find(|(_, pipe)| of(pipe)).map(|(serial, _)| *serial);
        if let Some(serial) = serial {
            self.break_pipe(serial);
        }
    }

    pub fn cut_all(&mut self, node: Node) {
        let of = |pipe: &Pipe| pipe.ends.iter().any(|(end, _)| *end == node);
        let serials: Vec<u32> = self.pipes.iter().filter(|(_, pipe)| of(pipe)).map(|(serial, _)| *serial).collect();
        serials.into_iter().for_each(|serial| self.break_pipe(serial));
    }

    fn break_pipe(&mut self, serial: u32) {
        let Some(pipe) = self.pipes.remove(&serial) else { return };
        for (node, link) in pipe.ends {
            self.feed(node, Fed::Closed(link, LinkEnd::Reset));
        }
    }

    // Moving things.

    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below as u64) as usize
    }

    /// Moves one thing on one line; `false` when nothing is under way.
    pub fn step(&mut self) -> bool {
        let held = |pipe: &Pipe| pipe.ends.iter().any(|(node, _)| self.held.contains(node));
        let busy: Vec<(u32, usize)> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| !held(pipe))
            .flat_map(|(serial, pipe)| {
                (0..2).filter(|way| !pipe.moving[*way].is_empty()).map(|way| (*serial, way)).collect::<Vec<_>>()
            })
            .collect();
        if busy.is_empty() {
            return false;
        }
        let (serial, way) = busy[self.draw(busy.len())];
        let pipe = self.pipes.get_mut(&serial).unwrap();
        let moving = pipe.moving[way].pop_front().unwrap();
        let (to, link) = pipe.ends[1 - way];
        match moving {
            Moving::Data(data) => {
                if pipe.ends.iter().any(|(node, _)| matches!(node, Node::Bridge(_))) {
                    self.crossed += data.len();
                }
                let from = pipe.ends[way].0;
                let data = match &mut self.evil {
                    Some((bridge, evil)) if from == Node::Bridge(*bridge) => spoil(&data, evil),
                    _ => data,
                };
                self.feed(to, Fed::Data(link, data));
            }
            Moving::End => {
                self.pipes.remove(&serial);
                self.feed(to, Fed::Closed(link, LinkEnd::Eof));
            }
        }
        true
    }

    /// Whether something that a client says is under way.
    pub fn is_speaking(&self, client: usize) -> bool {
        let says = |pipe: &Pipe| pipe.ends[0].0 == Node::Client(client) && !pipe.moving[0].is_empty();
        self.pipes.values().any(says)
    }

    /// Everything that can happen without time passing.
    pub fn run(&mut self) {
        while self.step() {}
    }

    /// Lets time pass, with everything that falls due in it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        self.run();
        while let Some(due) = self.deadlines().into_iter().filter(|(at, _)| *at <= end).min() {
            self.advance(due.0.max(self.now.mono));
            self.feed(due.1, Fed::Timeout);
            self.run();
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Instant) {
        let passed = to.as_nanos() - self.now.mono.as_nanos();
        self.now = Now { mono: to, wall: UnixMillis(self.now.wall.0 + passed / 1_000_000) };
    }

    fn deadlines(&self) -> Vec<(Instant, Node)> {
        let hubs =
            self.hubs.iter().enumerate().filter_map(|(ix, it)| Some((it.as_ref()?.poll_timeout()?.at, Node::Hub(ix))));
        let clients =
            self.clients.iter().enumerate().filter_map(|(ix, it)| Some((it.poll_timeout()?.at, Node::Client(ix))));
        let bridges = self
            .bridges
            .iter()
            .enumerate()
            .filter_map(|(ix, it)| Some((it.as_ref()?.poll_timeout()?.at, Node::Bridge(ix))));
        hubs.chain(clients).chain(bridges).collect()
    }

    fn feed(&mut self, node: Node, fed: Fed) {
        match node {
            Node::Hub(hub) => self.feed_hub(hub, fed.into()),
            Node::Client(client) => self.feed_client(client, fed.into()),
            Node::Bridge(bridge) => self.feed_bridge(bridge, fed.into()),
        }
    }

    pub fn feed_hub(&mut self, hub: usize, input: Input<hub::Command>) {
        let now = self.now;
        let Some(machine) = &mut self.hubs[hub] else { return };
        machine.handle_input(now, input);
        while let Some(output) = self.hubs[hub].as_mut().and_then(Machine::poll_output) {
            if let Some(event) = self.carry_out(Node::Hub(hub), output) {
                self.hub_events[hub].push(event);
            }
        }
    }

    pub fn feed_client(&mut self, client: usize, input: Input<Command>) {
        self.clients[client].handle_input(self.now, input);
        while let Some(output) = self.clients[client].poll_output() {
            match self.carry_out(Node::Client(client), output) {
                None | Some(Event::PasswordChanged { .. }) => {}
                Some(event) => self.events[client].push_back(event),
            }
        }
    }

    pub fn feed_bridge(&mut self, bridge: usize, input: Input<bridge::Command>) {
        let now = self.now;
        let Some(machine) = &mut self.bridges[bridge] else { return };
        machine.handle_input(now, input);
        while let Some(output) = self.bridges[bridge].as_mut().and_then(Machine::poll_output) {
            if let Some(event) = self.carry_out(Node::Bridge(bridge), output) {
                self.bridge_events[bridge].push(event);
            }
        }
    }

    fn carry_out<E>(&mut self, node: Node, output: Output<E>) -> Option<E> {
        match output {
            Output::Event(event) => return Some(event),
            Output::Transmit { link, .. } if self.is_deaf(node, link) => {}
            Output::Transmit { link, data } => {
                let bytes = data.len();
                self.push(node, link, Moving::Data(data));
                self.feed(node, Fed::Written(link, bytes));
            }
            Output::Close { link, .. } => self.push(node, link, Moving::End),
            Output::Dial { link, to } => self.dial(node, link, to.parse().unwrap()),
        }
        None
    }

    fn is_deaf(&self, node: Node, link: LinkId) -> bool {
        let other = |pipe: &Pipe| {
            let way = pipe.ends.iter().position(|end| *end == (node, link))?;
            Some(pipe.ends[1 - way].0)
        };
        self.pipes.values().find_map(other).is_some_and(|other| self.deaf.contains(&other))
    }

    fn push(&mut self, node: Node, link: LinkId, moving: Moving) {
        for pipe in self.pipes.values_mut() {
            if let Some(way) = pipe.ends.iter().position(|end| *end == (node, link)) {
                pipe.moving[way].push_back(moving);
                return;
            }
        }
    }

    fn dial(&mut self, node: Node, link: LinkId, hub: usize) {
        if self.hubs[hub].is_none() {
            return self.feed(node, Fed::Closed(link, LinkEnd::Refused));
        }
        self.serial += 1;
        // Dense, and used again: the first that none of the hub's links has.
        let taken: Vec<usize> = self
            .pipes
            .values()
            .flat_map(|pipe| pipe.ends)
            .filter(|end| end.0 == Node::Hub(hub))
            .map(|end| end.1.index())
            .collect();
        let index = (0..).find(|index| !taken.contains(&(*index as usize))).unwrap();
        let accepted = LinkId::accepted(index, self.serial);
        let ends = [(node, link), (Node::Hub(hub), accepted)];
        self.pipes.insert(self.serial, Pipe { ends, moving: [VecDeque::new(), VecDeque::new()] });
        let peer = Peer::unknown(Transport::Memory);
        self.feed_hub(hub, Input::Accepted { link: accepted, peer });
        self.feed(node, Fed::Dialled(link));
    }

    // The verbs, each expected to succeed.

    pub fn next(&mut self, client: usize) -> Event {
        self.events[client].pop_front().unwrap_or_else(|| panic!("client {client} was told nothing"))
    }

    pub fn command(&mut self, client: usize, command: Command) {
        self.feed_client(client, Input::Command(command));
        self.run();
    }

    pub fn open(&mut self, client: usize, channel: &str) {
        let access = client::Access::default();
        self.command(client, Command::Open { token: Token(1), channel: name(channel), access });
        self.expect_done(client, 1);
    }

    pub fn provide(&mut self, client: usize, token: u64, channel: &str, event: &str) {
        self.provide_kind(client, token, (channel, event), EventKind::Call);
    }

    pub fn provide_kind(&mut self, client: usize, token: u64, (channel, event): (&str, &str), kind: EventKind) {
        let (channel, event) = (name(channel), EventName::new(event).unwrap());
        self.command(client, Command::Provide { token: Token(token), channel, event, kind });
        self.expect_done(client, token);
    }

    pub fn listen(&mut self, client: usize, token: u64, channel: &str, event: Option<&str>) {
        let event = event.map(|event| EventName::new(event).unwrap());
        self.command(client, Command::Listen { token: Token(token), channel: name(channel), event });
        self.expect_done(client, token);
    }

    pub fn say(&mut self, client: usize, channel: &str, event: &str, payload: &'static [u8]) {
        self.command(client, Command::Broadcast { token: Token(77), outgoing: outgoing(channel, event, payload) });
        match self.next(client) {
            Event::Sent { token: Token(77), result: Ok(()) } => {}
            other => panic!("client {client}: {other:?}"),
        }
    }

    pub fn call(&mut self, client: usize, token: u64, channel: &str, event: &str, payload: &'static [u8]) {
        let (outgoing, time_left) = (outgoing(channel, event, payload), Duration::from_secs(30));
        self.command(client, Command::Call { token: Token(token), outgoing, time_left });
    }

    /// A call that must be signed.
    pub fn call_guarded(&mut self, client: usize, token: u64, channel: &str, event: &str) {
        let (mut outgoing, time_left) = (outgoing(channel, event, b""), Duration::from_secs(30));
        outgoing.guarded = true;
        self.command(client, Command::Call { token: Token(token), outgoing, time_left });
    }

    pub fn open_plain(&mut self, client: usize, token: u64, channel: &str) {
        let access = client::Access::default();
        self.command(client, Command::Open { token: Token(token), channel: name(channel), access });
    }

    /// Asks to open a channel with a password; derives when asked to.
    pub fn try_to_join(&mut self, client: usize, token: u64, channel: &str, secret: &Secret) {
        let access = client::Access { secret: Some(secret.kdf()), policy: None, plain: false };
        self.command(client, Command::Open { token: Token(token), channel: name(channel), access });
        self.derive(client, secret);
    }

    pub fn derive(&mut self, client: usize, secret: &Secret) {
        let derives = |event: &Event| matches!(event, Event::DeriveChannelKey { .. });
        if let Some(position) = self.events[client].iter().position(derives)
            && let Some(Event::DeriveChannelKey { channel, salt }) = self.events[client].remove(position)
        {
            let master = super::master(secret, salt);
            self.command(client, Command::ChannelKeyDerived { channel, salt, master });
        }
    }

    pub fn join(&mut self, client: usize, channel: &str, secret: &Secret) {
        self.try_to_join(client, 1, channel, secret);
        self.expect_done(client, 1);
    }

    /// Gives a channel a new password.
    pub fn protect(&mut self, client: usize, channel: &str, secret: &Secret, salt: u8) {
        let salt = client::ChannelSalt { kdf: secret.kdf(), salt: [salt; 16], iterations: 0 };
        let master = super::master(secret, salt);
        self.command(client, Command::Protect { token: Token(1), channel: name(channel), salt, master });
        self.expect_done(client, 1);
    }

    /// Why what a client asked for was not done.
    pub fn expect_not_done(&mut self, client: usize) -> commipc_protocol::Refusal {
        match self.next(client) {
            Event::Done { result: Err(client::Failure::Refused(refusal)), .. } => refusal,
            other => panic!("client {client} is not refused: {other:?}"),
        }
    }

    pub fn expect_done(&mut self, client: usize, expected: u64) {
        match self.next(client) {
            Event::Done { token, result } => assert_eq!((token, result), (Token(expected), Ok(()))),
            other => panic!("client {client}: {other:?}"),
        }
    }

    pub fn expect_request(&mut self, client: usize) -> client::Request {
        match self.next(client) {
            Event::Request(request) => request,
            other => panic!("client {client}: {other:?}"),
        }
    }

    pub fn expect_answered(&mut self, client: usize) -> Result<client::Answer, client::CallFailure> {
        match self.next(client) {
            Event::Answered { result, .. } => result,
            other => panic!("client {client}: {other:?}"),
        }
    }

    pub fn expect_message(&mut self, client: usize) -> client::Message {
        match self.next(client) {
            Event::Message(message) => message,
            other => panic!("client {client} hears no message: {other:?}"),
        }
    }

    pub fn expect_refused(&mut self, client: usize) -> commipc_protocol::Refusal {
        match self.expect_answered(client) {
            Err(client::CallFailure::Failed { failure: client::Failure::Refused(refusal), .. }) => refusal,
            other => panic!("client {client} is not refused: {other:?}"),
        }
    }

    /// Says a frame to a hub in a bridge's name.
    pub fn forge(&mut self, bridge: usize, side: Side, kind: u8, body: &[u8]) {
        let of = |pipe: &&Pipe| pipe.ends[0].0 == Node::Bridge(bridge) && pipe.ends[0].1.index() == side as usize;
        let (to, link) = self.pipes.values().find(of).unwrap().ends[1];
        let mut frame = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
        frame.push(kind);
        frame.extend_from_slice(body);
        self.feed(to, Fed::Data(link, Bytes::from(frame)));
        self.run();
    }

    /// Whether a bridge has said that both its sides know of each other, since it was lost last.
    pub fn is_bridged(&self, bridge: usize) -> bool {
        let told = self.bridge_events[bridge].iter().rev();
        let mut told = told.filter(|event| !matches!(event, bridge::Event::Connected { .. }));
        matches!(told.next(), Some(bridge::Event::Bridged { .. }))
    }
}

/// The frames of a piece of a line, as somebody evil passes them on. Machines here say whole frames at a time.
fn spoil(data: &Bytes, evil: &mut Evil) -> Bytes {
    let (mut out, mut rest) = (Vec::new(), &data[..]);
    if let Some(after) = rest.strip_prefix(&commipc_protocol::wire::MAGIC) {
        out.extend_from_slice(&commipc_protocol::wire::MAGIC);
        rest = after;
    }
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (frame, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        for (kind, body) in evil(frame[0], &frame[1..]) {
            out.extend_from_slice(&u32::try_from(body.len() + 1).unwrap().to_be_bytes());
            out.push(kind);
            out.extend_from_slice(&body);
        }
        rest = after;
    }
    Bytes::from(out)
}

/// What any machine can be fed.
enum Fed {
    Data(LinkId, Bytes),
    Written(LinkId, usize),
    Dialled(LinkId),
    Closed(LinkId, LinkEnd),
    Timeout,
}

impl<C> From<Fed> for Input<C> {
    fn from(fed: Fed) -> Self {
        match fed {
            Fed::Data(link, data) => Self::Received { link, data },
            Fed::Written(link, bytes) => Self::Written { link, bytes },
            Fed::Dialled(link) => Self::Dialled { link, peer: Peer::unknown(Transport::Memory) },
            Fed::Closed(link, how) => Self::Closed { link, how },
            Fed::Timeout => Self::Timeout,
        }
    }
}
