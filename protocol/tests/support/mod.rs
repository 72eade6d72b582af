//! A hub and clients in memory, without delay: outputs of one are inputs of the other.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "shared by several test binaries, each of which uses a part"
)]
#![allow(clippy::wildcard_enum_match_arm, clippy::unwrap_used, reason = "what is unexpected fails the test")]

mod away;
mod deceit;
mod disk;
pub mod ended;
pub mod net;
pub mod pieces;
pub mod recorded;
pub mod streaming;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::{ChannelMaster, Credential, Credentials, Secret, Verifier};
use commipc_protocol::client::{
    self, ChannelSalt, Client, ClientConfig, Command, Event, EventKind, Outgoing, Payload, Token,
};
use commipc_protocol::hub::{self, Hub, HubConfig};
use commipc_protocol::{
    ChannelName, ClientId, CredentialId, EventName, HubId, Input, Instant, Limits, LinkEnd, LinkId, Machine, Now,
    Output, Peer, Seed, Transport, UnixMillis,
};

pub use disk::{Disk, Works};

pub const KEY: [u8; 32] = [7; 32];

/// Whether something is what a test waits for.
pub type When = fn(&Event) -> bool;

/// Everything that happens between one hub and its clients.
pub struct World {
    pub hub: Hub,
    pub clients: Vec<Client>,
    /// The hub's link of each client, while it stands.
    links: Vec<Option<LinkId>>,
    dialled: Vec<Option<LinkId>>,
    /// What each client was told and no test has looked at yet.
    pub events: Vec<VecDeque<Event>>,
    pub hub_events: Vec<hub::Event>,
    /// Which passwords came into force, as their owners were told, or that there is none any more.
    pub passwords: Vec<(usize, ChannelName, Option<ChannelSalt>)>,
    pub now: Now,
    pub transport: Transport,
    /// Where each client comes from, where sources differ.
    pub sources: Vec<Option<IpAddr>>,
    /// What the hub was fed, while it is wanted.
    pub record: Option<Vec<Input<hub::Command>>>,
    /// At most so many bytes are handed over at a time.
    pub chunk: usize,
    /// A client whose driver has stopped reading: what the hub transmits to it stays with the hub's driver.
    pub stalled: Option<usize>,
    held_back: Vec<(LinkId, Bytes)>,
    /// A client that is no more.
    pub dead: Option<usize>,
    /// A client from which the hub keeps everything back.
    pub deceived: Option<usize>,
    /// A client of which nothing arrives at the hub.
    pub mute: Option<usize>,
    /// Frames of this kind, first in what is transmitted, arrive at no hub.
    pub ignores: Option<commipc_protocol::wire::FrameType>,
    /// While it is true nobody reaches the hub: dials wait in `held_dials`.
    pub hold_dials: bool,
    held_dials: Vec<(usize, LinkId)>,
    /// A client that loses its link when it tells this, and cannot dial then.
    pub cut_on: Option<(usize, When)>,
    /// A client of which nothing arrives any more when it tells this.
    pub mute_on: Option<(usize, When)>,
    /// Who does not reach the hub.
    pub absent: Vec<usize>,
    /// What clients gave and nobody has carried out yet.
    kept: Vec<(usize, Output<Event>)>,
    accepted: u32,
    /// What the hub stores, if it stores anything.
    pub disk: Option<Disk>,
    /// All bytes that each link carried, by direction: to the hub, to the client.
    pub wire: BTreeMap<LinkId, (Vec<u8>, Vec<u8>)>,
}

pub fn credentials(secret: &Secret) -> Credentials {
    let verifier = Verifier::new(secret, [3; 16], 100_000).unwrap();
    Credentials::new([9; 32]).with(CredentialId::shared(), Credential::shared(verifier))
}

pub fn hub(limits: Limits) -> Hub {
    let id = Some(HubId::new("hub-a").unwrap());
    Hub::new(
        HubConfig {
            id,
            credentials: credentials(&Secret::key(KEY)),
            limits,
            owner_policy: commipc_protocol::OwnerPolicy::default(),
        },
        &Seed::new([1; 32]),
    )
}

pub fn client(name: &str, secret: Secret) -> Client {
    client_with(name, secret, Limits::default())
}

pub fn client_with(name: &str, secret: Secret, limits: Limits) -> Client {
    client_as(name, CredentialId::shared(), secret, limits)
}

pub fn client_as(name: &str, credential: CredentialId, secret: Secret, limits: Limits) -> Client {
    client_of(name, credential, secret, limits, None)
}

/// A client whose connection comes back by itself.
pub fn lasting(name: &str, reconnect: client::Reconnect) -> Client {
    client_of(name, CredentialId::shared(), Secret::key(KEY), Limits::default(), Some(reconnect))
}

/// The same, with other bounds.
pub fn lasting_with(name: &str, reconnect: client::Reconnect, limits: Limits) -> Client {
    client_of(name, CredentialId::shared(), Secret::key(KEY), limits, Some(reconnect))
}

/// Another client with this id, which cannot take it over and does not come back.
pub fn stranger_to(id: &str) -> Client {
    let (hub, id) = (Arc::from("memory:"), Some(ClientId::new(id).unwrap()));
    let (credential, secret, limits) = (CredentialId::shared(), Secret::key(KEY), Limits::default());
    Client::new(ClientConfig { hub, id, credential, secret, limits, reconnect: None }, &Seed::new([9; 32]))
}

fn client_of(
    name: &str,
    credential: CredentialId,
    secret: Secret,
    limits: Limits,
    reconnect: Option<client::Reconnect>,
) -> Client {
    let (hub, id) = (Arc::from("memory:"), Some(ClientId::new(name).unwrap()));
    let config = ClientConfig { hub, id, credential, secret, limits, reconnect };
    let mut seed = [2; 32];
    seed[..name.len().min(32)].copy_from_slice(&name.as_bytes()[..name.len().min(32)]);
    Client::new(config, &Seed::new(seed))
}

impl World {
    pub fn new(names: &[&str]) -> Self {
        Self::with(hub(Limits::default()), names.iter().map(|name| client(name, Secret::key(KEY))).collect())
    }

    pub fn with(hub: Hub, clients: Vec<Client>) -> Self {
        let count = clients.len();
        Self {
            hub,
            clients,
            links: vec![None; count],
            dialled: vec![None; count],
            events: (0..count).map(|_| VecDeque::new()).collect(),
            hub_events: Vec::new(),
            passwords: Vec::new(),
            now: Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) },
            transport: Transport::Memory,
            sources: vec![None; count],
            record: None,
            chunk: usize::MAX,
            stalled: None,
            held_back: Vec::new(),
            dead: None,
            deceived: None,
            mute: None,
            ignores: None,
            hold_dials: false,
            absent: Vec::new(),
            held_dials: Vec::new(),
            cut_on: None,
            mute_on: None,
            kept: Vec::new(),
            accepted: 0,
            disk: None,
            wire: BTreeMap::new(),
        }
    }

    /// Connected clients.
    pub fn ready(names: &[&str]) -> Self {
        let mut world = Self::new(names);
        world.connect_all();
        world
    }

    pub fn connect_all(&mut self) {
        for client in 0..self.clients.len() {
            self.command(client, Command::Connect);
            assert!(matches!(self.next(client), Event::Ready(_)));
        }
    }

    /// Connects once more; the client must be let in.
    pub fn connect_again(&mut self, client: usize) {
        self.events[client].clear();
        self.command(client, Command::Connect);
        assert!(matches!(self.next(client), Event::Ready(_)));
    }

    pub fn command(&mut self, client: usize, command: Command) {
        self.clients[client].handle_input(self.now, Input::Command(command));
        self.run();
    }

    pub fn next(&mut self, client: usize) -> Event {
        self.events[client].pop_front().unwrap_or_else(|| panic!("client {client} was told nothing"))
    }

    /// Feeds the hub an input of no client.
    pub fn feed_hub(&mut self, input: Input<hub::Command>) {
        if let Some(record) = &mut self.record {
            // Commands hold secrets and are not recorded; no recording uses one.
            match &input {
                Input::Received { link, data } => record.push(Input::Received { link: *link, data: data.clone() }),
                Input::Written { link, bytes } => record.push(Input::Written { link: *link, bytes: *bytes }),
                Input::Accepted { link, peer } => record.push(Input::Accepted { link: *link, peer: peer.clone() }),
                _ => {}
            }
        }
        self.hub.handle_input(self.now, input);
    }

    /// Everything that can happen without time passing.
    pub fn run(&mut self) {
        for (client, output) in std::mem::take(&mut self.kept) {
            self.client_output(client, output);
        }
        loop {
            let mut busy = false;
            while let Some(output) = self.hub.poll_output() {
                busy = true;
                self.hub_output(output);
            }
            for client in 0..self.clients.len() {
                while let Some(output) = self.clients[client].poll_output() {
                    busy = true;
                    self.client_output(client, output);
                }
            }
            if !busy {
                break;
            }
        }
    }

    pub fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall.0 += time.as_millis() as u64;
        self.feed_hub(Input::Timeout);
        for client in &mut self.clients {
            client.handle_input(self.now, Input::Timeout);
        }
        self.run();
    }

    /// Takes what a client tells its application, and keeps back what it transmits.
    pub fn take_events(&mut self, client: usize) {
        while let Some(output) = self.clients[client].poll_output() {
            match output {
                Output::Event(event) => self.hear(client, event),
                kept => self.kept.push((client, kept)),
            }
        }
    }

    fn hear(&mut self, client: usize, event: Event) {
        if self.mute_on.take_if(|(whose, on)| *whose == client && on(&event)).is_some() {
            self.mute = Some(client);
        }
        let cut = self.cut_on.take_if(|(whose, on)| *whose == client && on(&event)).is_some();
        match event {
            Event::PasswordChanged { channel, salt } => self.passwords.push((client, channel, salt)),
            event => self.events[client].push_back(event),
        }
        if cut {
            self.hold_dials = true;
            self.cut(client);
        }
    }

    /// Breaks a client's link without a word.
    pub fn cut(&mut self, client: usize) {
        if let Some(link) = self.links[client].take() {
            self.feed_hub(Input::Closed { link, how: LinkEnd::Reset });
        }
        if let Some(link) = self.dialled[client].take() {
            self.clients[client].handle_input(self.now, Input::Closed { link, how: LinkEnd::Reset });
        }
        self.run();
    }

    /// Breaks a client's link so that its hub does not notice.
    pub fn sever(&mut self, client: usize) -> LinkId {
        let lingering = self.links[client].take().expect("linked");
        let link = self.dialled[client].take().expect("linked");
        self.clients[client].handle_input(self.now, Input::Closed { link, how: LinkEnd::Reset });
        self.run();
        lingering
    }

    /// Feeds bytes to the hub as if a client had sent them.
    pub fn inject(&mut self, client: usize, bytes: &[u8]) {
        let link = self.links[client].expect("linked");
        self.feed_hub(Input::Received { link, data: Bytes::copy_from_slice(bytes) });
        self.run();
    }

    pub fn is_linked(&self, client: usize) -> bool {
        self.links[client].is_some()
    }

    fn hub_output(&mut self, output: Output<hub::Event>) {
        match output {
            Output::Event(hub::Event::Store { ticket, channel, record }) => {
                let disk = self.disk.as_mut().expect("a hub without a store stores nothing");
                disk.asked.push_back((ticket, channel.to_string(), record.map(|record| record.encode().to_vec())));
                if disk.works != Works::Later {
                    self.work_disk();
                }
            }
            Output::Event(event) => self.hub_events.push(event),
            Output::Transmit { link, data } if self.stalled.is_some_and(|client| self.links[client] == Some(link)) => {
                self.held_back.push((link, data));
            }
            Output::Transmit { link, data } => {
                self.feed_hub(Input::Written { link, bytes: data.len() });
                self.wire.entry(link).or_default().1.extend_from_slice(&data);
                if self.deceived.is_some_and(|client| self.links[client] == Some(link)) {
                    return;
                }
                let Some(client) = self.links.iter().position(|it| *it == Some(link)) else { return };
                let Some(dialled) = self.dialled[client] else { return };
                for piece in data.chunks(self.chunk) {
                    let data = Bytes::copy_from_slice(piece);
                    self.clients[client].handle_input(self.now, Input::Received { link: dialled, data });
                }
            }
            Output::Close { link, .. } => {
                let Some(client) = self.links.iter().position(|it| *it == Some(link)) else { return };
                self.links[client] = None;
                if let Some(link) = self.dialled[client].take() {
                    self.clients[client].handle_input(self.now, Input::Closed { link, how: LinkEnd::Eof });
                }
            }
            Output::Dial { .. } => panic!("a hub dials nobody"),
        }
    }

    fn client_output(&mut self, client: usize, output: Output<Event>) {
        match output {
            Output::Event(event) => self.hear(client, event),
            Output::Dial { link, .. } if self.hold_dials => self.held_dials.push((client, link)),
            Output::Dial { link, .. } if self.absent.contains(&client) => {
                self.clients[client].handle_input(self.now, Input::Closed { link, how: LinkEnd::Refused });
            }
            Output::Dial { link: dialled, .. } => {
                let link = LinkId::accepted(self.accepted, self.accepted + 1);
                self.accepted += 1;
                self.links[client] = Some(link);
                self.dialled[client] = Some(dialled);
                let peer = Peer { source: self.sources[client], ..Peer::unknown(self.transport) };
                self.feed_hub(Input::Accepted { link, peer: peer.clone() });
                self.clients[client].handle_input(self.now, Input::Dialled { link: dialled, peer });
            }
            Output::Transmit { link: dialled, data } => {
                self.clients[client].handle_input(self.now, Input::Written { link: dialled, bytes: data.len() });
                let ignored = self.ignores.is_some_and(|kind| data.get(4) == Some(&kind.number()));
                let Some(link) = self.links[client].filter(|_| self.mute != Some(client) && !ignored) else { return };
                self.wire.entry(link).or_default().0.extend_from_slice(&data);
                for piece in data.chunks(self.chunk) {
                    let data = Bytes::copy_from_slice(piece);
                    self.feed_hub(Input::Received { link, data });
                }
            }
            Output::Close { .. } => {
                self.dialled[client] = None;
                if let Some(link) = self.links[client].take() {
                    self.feed_hub(Input::Closed { link, how: LinkEnd::Eof });
                }
            }
        }
    }

    // The verbs, each expected to succeed.

    pub fn open(&mut self, client: usize, channel: &str) {
        self.command(
            client,
            Command::Open {
                token: Token(1),
                channel: name(channel),
                access: commipc_protocol::client::Access::default(),
            },
        );
        self.expect_done(client, 1);
    }

    pub fn provide(&mut self, client: usize, token: u64, channel: &str, event: &str) {
        let (channel, event) = (name(channel), EventName::new(event).unwrap());
        self.command(client, Command::Provide { token: Token(token), channel, event, kind: EventKind::Call });
        self.expect_done(client, token);
    }

    pub fn listen(&mut self, client: usize, token: u64, channel: &str, event: Option<&str>) {
        let event = event.map(|event| EventName::new(event).unwrap());
        self.command(client, Command::Listen { token: Token(token), channel: name(channel), event });
        self.expect_done(client, token);
    }

    pub fn call(&mut self, client: usize, token: u64, channel: &str, event: &str, payload: &'static [u8]) {
        let (outgoing, time_left) = (outgoing(channel, event, payload), Duration::from_secs(30));
        self.command(client, Command::Call { token: Token(token), outgoing, time_left });
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

    pub fn expect_answered(&mut self, client: usize) -> (Token, Result<client::Answer, client::CallFailure>) {
        match self.next(client) {
            Event::Answered { token, result } => (token, result),
            other => panic!("client {client}: {other:?}"),
        }
    }
}

/// A hub that was fed these.
pub fn fed(inputs: Vec<Input<hub::Command>>) -> Hub {
    let mut hub = hub(Limits::default());
    feed(&mut hub, inputs);
    hub
}

/// Feeds a hub and throws away what it says. Never inlined, so that a profiler can count what happens inside.
#[inline(never)]
pub fn feed(hub: &mut Hub, inputs: Vec<Input<hub::Command>>) {
    let now = Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) };
    for input in inputs {
        hub.handle_input(now, input);
        while hub.poll_output().is_some() {}
    }
}

pub fn name(channel: &str) -> ChannelName {
    ChannelName::new(channel).unwrap()
}

pub fn outgoing(channel: &str, event: &str, payload: &'static [u8]) -> Outgoing {
    Outgoing {
        channel: name(channel),
        event: EventName::new(event).unwrap(),
        payload: Payload { bytes: Bytes::from_static(payload), raw: true },
        metadata: Bytes::new(),
        idempotent: false,
        guarded: false,
        away: client::Away::Fail,
    }
}

pub fn payload(bytes: &'static [u8]) -> Payload {
    Payload { bytes: Bytes::from_static(bytes), raw: true }
}

/// Channels with owners and passwords.
impl World {
    /// Asks to open a channel with a password; derives when asked to.
    pub fn try_to_join(&mut self, client: usize, token: u64, channel: &str, secret: &Secret) {
        let access = client::Access { secret: Some(secret.kdf()), policy: None, plain: false };
        self.command(client, Command::Open { token: Token(token), channel: name(channel), access });
        self.derive(client, secret);
    }

    /// Derives a channel's keys if that is what the client waits for.
    pub fn derive(&mut self, client: usize, secret: &Secret) {
        if let Some(Event::DeriveChannelKey { channel, salt }) = self.events[client].front() {
            let (channel, salt) = (channel.clone(), *salt);
            self.events[client].pop_front();
            let master = master(secret, salt);
            self.command(client, Command::ChannelKeyDerived { channel, salt, master });
        }
    }

    /// Joins a protected channel.
    /// The same as often as it is asked for; everything else that was told stays.
    pub fn derive_all(&mut self, client: usize, secret: &Secret) {
        let asks = |event: &Event| matches!(event, Event::DeriveChannelKey { .. });
        while let Some(position) = self.events[client].iter().position(asks) {
            let asked = self.events[client].remove(position).unwrap();
            self.events[client].push_front(asked);
            self.derive(client, secret);
        }
    }

    pub fn join(&mut self, client: usize, channel: &str, secret: &Secret) {
        self.try_to_join(client, 1, channel, secret);
        self.expect_done(client, 1);
    }

    /// Gives a channel a new password.
    pub fn protect(&mut self, client: usize, channel: &str, secret: &Secret, salt: u8) {
        self.try_to_protect(client, 1, channel, secret, salt);
        self.expect_done(client, 1);
    }

    pub fn try_to_protect(&mut self, client: usize, token: u64, channel: &str, secret: &Secret, salt: u8) {
        let salt = client::ChannelSalt { kdf: secret.kdf(), salt: [salt; 16], iterations: iterations(secret) };
        let master = master(secret, salt);
        self.command(client, Command::Protect { token: Token(token), channel: name(channel), salt, master });
    }

    /// What a client is told next that something was refused for.
    pub fn expect_refused(&mut self, client: usize) -> commipc_protocol::Refusal {
        match self.next(client) {
            Event::Done { result: Err(client::Failure::Refused(refusal)), .. }
            | Event::Sent { result: Err(client::Failure::Refused(refusal)), .. } => refusal,
            other => panic!("client {client} is not refused: {other:?}"),
        }
    }

    /// Why the hub ended a membership.
    pub fn expect_closed(&mut self, client: usize, channel: &str) -> commipc_protocol::Refusal {
        match self.next(client) {
            Event::ChannelClosed { channel: closed, why: client::Failure::Refused(why) } if *closed == *channel => why,
            other => panic!("client {client}: {channel} is not closed: {other:?}"),
        }
    }

    /// Who owns a channel now, as a client is told.
    pub fn expect_owner(&mut self, client: usize) -> Option<String> {
        match self.next(client) {
            Event::OwnerChanged { owner, .. } => owner.map(|owner| owner.to_string()),
            other => panic!("client {client} is told of no owner: {other:?}"),
        }
    }

    /// Broadcasts and waits until the hub has taken it.
    pub fn say(&mut self, client: usize, channel: &str, event: &str, payload: &'static [u8]) {
        self.command(client, Command::Broadcast { token: Token(77), outgoing: outgoing(channel, event, payload) });
        match self.next(client) {
            Event::Sent { token: Token(77), result: Ok(()) } => {}
            other => panic!("client {client}: {other:?}"),
        }
    }

    /// The payload of the message a client hears next.
    pub fn expect_message(&mut self, client: usize) -> Bytes {
        match self.next(client) {
            Event::Message(message) => message.message.payload.bytes,
            other => panic!("client {client} hears no message: {other:?}"),
        }
    }
}

const fn iterations(secret: &Secret) -> u32 {
    match secret.kdf() {
        commipc_protocol::auth::Kdf::Pbkdf2 => 100_000,
        commipc_protocol::auth::Kdf::Key | commipc_protocol::auth::Kdf::Insecure => 0,
    }
}

pub fn master(secret: &Secret, salt: client::ChannelSalt) -> ChannelMaster {
    ChannelMaster::new(&secret.derive(&salt.salt, salt.iterations).unwrap()).unwrap()
}
