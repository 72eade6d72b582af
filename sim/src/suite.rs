//! The part of a world that suites speak: who does what, what comes of it, and that a failing test prints its seed.

use commipc_protocol::auth::Kdf;
use commipc_protocol::client::{
    Access, Answer, CallFailure, Command, Event, EventKind, Failure, Message, Outgoing, Payload, Request, Token,
};
use commipc_protocol::{ChannelName, EventName, Fault};
use core::time::Duration;

use bytes::Bytes;

use crate::node::NodeId;
use crate::oracles::Password;
use crate::world::{Moment, World};

/// How a provider's script answers requests.
pub(crate) type Answering = Box<dyn FnMut(&Request) -> Reply>;

/// What a scripted provider does with a request.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) after: Duration,
    /// Nothing when it never answers.
    pub(crate) result: Option<Result<Payload, Fault>>,
}

impl Reply {
    /// Answers with raw bytes, at once.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::of(Ok(raw(text)))
    }

    /// Answers so, at once.
    #[must_use]
    pub const fn of(result: Result<Payload, Fault>) -> Self {
        Self { after: Duration::ZERO, result: Some(result) }
    }

    /// Never answers.
    #[must_use]
    pub const fn silence() -> Self {
        Self { after: Duration::ZERO, result: None }
    }

    /// The same, later.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

/// Something a client asked for, to be looked up when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whose.
    pub node: NodeId,
    /// Its token.
    pub token: Token,
}

/// One client of a world, to be told what to do.
pub struct At<'a> {
    world: &'a mut World,
    node: NodeId,
    last: Token,
}

/// Longer than any suite takes, in virtual time.
const EVER: Duration = Duration::from_secs(100_000);

impl World {
    /// The client of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn at(&mut self, name: &str) -> At<'_> {
        let node = self.node(name);
        At { world: self, node, last: Token(0) }
    }

    fn node(&self, name: &str) -> NodeId {
        self.engine.find(name).unwrap_or_else(|| panic!("no node is called {name}"))
    }

    /// Connects every client and waits until each is ready or refused.
    #[must_use]
    pub fn connected(mut self) -> Self {
        for node in self.clients() {
            self.ask(node, Command::Connect);
        }
        self.run_until(|world| {
            world.clients().iter().all(|node| {
                let told = world.told.get(node).map_or(&[][..], Vec::as_slice);
                told.iter().any(|event| matches!(event, Event::Ready(_) | Event::Closed(_)))
            })
        });
        self
    }

    /// Lets a client's providers answer by a script; without one they never answer.
    pub fn serves(&mut self, name: &str, script: impl FnMut(&Request) -> Reply + 'static) {
        let node = self.node(name);
        self.serving.insert(node, Box::new(script));
    }

    /// Runs until `holds`.
    ///
    /// # Panics
    /// When it never will, or when an oracle finds something.
    pub fn run_until(&mut self, mut holds: impl FnMut(&Self) -> bool) {
        let latest = self.now() + EVER;
        while !holds(self) {
            let moment = self.step();
            self.assert_sound();
            assert!(moment != Moment::Idle && self.now() < latest, "what the test waits for never comes");
        }
    }

    /// Runs until nothing is planned any more but that connections ask each other whether they are there: for so long that
    /// everything else must have come.
    ///
    /// # Panics
    /// When an oracle finds something.
    pub fn run_to_end(&mut self) {
        self.run_for(Duration::from_secs(300));
    }

    /// Lets so much time pass.
    ///
    /// # Panics
    /// When an oracle finds something.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.engine.next_at().is_some_and(|at| at <= end) {
            self.step();
            self.assert_sound();
        }
        self.engine.advance(end);
    }

    fn assert_sound(&self) {
        if let Some(failure) = self.failures().first() {
            panic!("{failure}");
        }
    }

    /// Everything a client was told so far.
    #[must_use]
    pub fn told(&self, name: &str) -> &[Event] {
        self.told.get(&self.node(name)).map_or(&[], Vec::as_slice)
    }

    /// The same of the client at this node.
    #[must_use]
    pub fn told_at(&self, node: NodeId) -> &[Event] {
        self.told.get(&node).map_or(&[], Vec::as_slice)
    }

    /// Everything a hub told so far.
    #[must_use]
    pub fn hub_told(&self, name: &str) -> &[commipc_protocol::hub::Event] {
        self.hub_told.get(&self.node(name)).map_or(&[], Vec::as_slice)
    }

    /// The messages a client heard so far.
    #[must_use]
    pub fn heard(&self, name: &str) -> Vec<&Message> {
        let mut heard = Vec::new();
        for event in self.told(name) {
            if let Event::Message(message) = event {
                heard.push(message);
            }
        }
        heard
    }

    /// How an open, leave, provide, withdraw, listen, unlisten, send or broadcast ended; waits for it.
    ///
    /// # Errors
    /// As the client was told.
    pub fn done(&mut self, ticket: Ticket) -> Result<(), Failure> {
        self.ended(ticket, |event| {
            let (Event::Done { token, result } | Event::Sent { token, result }) = event else { return None };
            (*token == ticket.token).then_some(*result)
        })
    }

    /// How a call ended; waits for it.
    ///
    /// # Errors
    /// As the client was told.
    pub fn answer(&mut self, ticket: Ticket) -> Result<Answer, CallFailure> {
        self.ended(ticket, |event| {
            let Event::Answered { token, result } = event else { return None };
            (*token == ticket.token).then(|| result.clone())
        })
    }

    fn ended<T>(&mut self, ticket: Ticket, find: impl Fn(&Event) -> Option<T>) -> T {
        let look = |world: &Self| world.told.get(&ticket.node)?.iter().find_map(&find);
        self.run_until(|world| look(world).is_some());
        look(self).unwrap_or_else(|| unreachable!("run_until has just found it"))
    }
}

impl At<'_> {
    /// The node.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.node
    }

    /// What was asked for last.
    #[must_use]
    pub const fn ticket(&self) -> Ticket {
        Ticket { node: self.node, token: self.last }
    }

    /// Connects; [`World::told`] shows what comes of it.
    pub fn connects(self) -> Self {
        self.world.ask(self.node, Command::Connect);
        self
    }

    /// Says goodbye.
    pub fn closes(self) -> Self {
        self.world.ask(self.node, Command::Close);
        self
    }

    /// Loses every connection, now.
    pub fn is_cut(self) -> Self {
        self.world.engine.cut(self.node);
        self
    }

    pub(crate) const fn world(&mut self) -> &mut World {
        self.world
    }

    pub(crate) fn asks(&mut self, command: impl FnOnce(Token) -> Command) -> Ticket {
        self.last = self.world.token();
        self.world.ask(self.node, command(self.last));
        self.ticket()
    }

    /// Opens a channel and waits for the confirmation.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn opens(mut self, channel: &str) -> Self {
        let ticket = self.tries_to_open(channel);
        self.confirmed(ticket)
    }

    /// Asks to open a channel.
    pub fn tries_to_open(&mut self, channel: &str) -> Ticket {
        let (channel, access) = (channel_name(channel), Access::default());
        self.asks(|token| Command::Open { token, channel, access })
    }

    /// Opens a channel with a password and waits for the confirmation.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn joins(mut self, channel: &str, password: Password) -> Self {
        let ticket = self.tries_to_join(channel, password);
        self.confirmed(ticket)
    }

    /// Asks to open a channel with a password.
    pub fn tries_to_join(&mut self, channel: &str, password: Password) -> Ticket {
        let channel = channel_name(channel);
        self.world.keyring.insert((self.node, channel.clone()), password);
        let access = Access { secret: Some(Kdf::Key), ..Access::default() };
        self.asks(|token| Command::Open { token, channel, access })
    }

    /// Gives a channel a password and waits for the confirmation.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn protects(mut self, channel: &str, password: Password) -> Self {
        let ticket = self.tries_to_protect(channel, password);
        self.confirmed(ticket)
    }

    /// Asks to give a channel a password.
    pub fn tries_to_protect(&mut self, channel: &str, password: Password) -> Ticket {
        self.world.keyring.insert((self.node, channel_name(channel)), password);
        self.last = self.world.token();
        self.world.protect(self.node, self.last, channel_name(channel), password);
        self.ticket()
    }

    /// Provides an event and waits for the confirmation.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn provides(mut self, channel: &str, event: &str) -> Self {
        let ticket = self.tries_to_provide(channel, event);
        self.confirmed(ticket)
    }

    /// Listens to one event of a channel, or to all, and waits for the confirmation.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn listens(mut self, channel: &str, event: Option<&str>) -> Self {
        let ticket = self.tries_to_listen(channel, event);
        self.confirmed(ticket)
    }

    /// Asks to listen to one event of a channel, or to all.
    pub fn tries_to_listen(&mut self, channel: &str, event: Option<&str>) -> Ticket {
        let (channel, event) = (channel_name(channel), event.map(event_name));
        self.asks(|token| Command::Listen { token, channel, event })
    }

    pub(crate) fn confirmed(self, ticket: Ticket) -> Self {
        let ended = self.world.done(ticket);
        assert_eq!(ended, Ok(()), "{} is refused what it asks for", self.world.engine.name(self.node));
        self
    }

    /// Asks to provide an event.
    pub fn tries_to_provide(&mut self, channel: &str, event: &str) -> Ticket {
        let (channel, event) = (channel_name(channel), event_name(event));
        self.asks(|token| Command::Provide { token, channel, event, kind: EventKind::Call })
    }

    /// Asks to withdraw what an earlier ticket provides.
    pub fn withdraws(mut self, provider: Ticket) -> Ticket {
        self.asks(|token| Command::Withdraw { token, provider: provider.token })
    }

    /// Asks to leave a channel.
    pub fn leaves(mut self, channel: &str) -> Ticket {
        self.asks(|token| Command::Leave { token, channel: channel_name(channel) })
    }

    /// Calls an event with raw bytes.
    pub fn calls(mut self, channel: &str, event: &str, text: &str, time_left: Duration) -> Ticket {
        let outgoing = outgoing(channel, event, text);
        self.asks(|token| Command::Call { token, outgoing, time_left })
    }

    /// Gives up a call.
    pub fn cancels(self, call: Ticket) -> Self {
        self.world.ask(self.node, Command::Cancel { call: call.token });
        self
    }

    /// Sends raw bytes to an event's provider.
    pub fn sends(mut self, channel: &str, event: &str, text: &str) -> Ticket {
        let outgoing = outgoing(channel, event, text);
        self.asks(|token| Command::Send { token, outgoing })
    }

    /// Broadcasts raw bytes.
    pub fn broadcasts(mut self, channel: &str, event: &str, text: &str) -> Ticket {
        let outgoing = outgoing(channel, event, text);
        self.asks(|token| Command::Broadcast { token, outgoing })
    }
}

fn channel_name(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn event_name(name: &str) -> EventName {
    EventName::new(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn raw(text: &str) -> Payload {
    Payload { bytes: Bytes::copy_from_slice(text.as_bytes()), raw: true }
}

pub(crate) fn outgoing(channel: &str, event: &str, text: &str) -> Outgoing {
    let (channel, event) = (channel_name(channel), event_name(event));
    Outgoing {
        channel,
        event,
        payload: raw(text),
        metadata: Bytes::new(),
        idempotent: false,
        guarded: false,
        away: commipc_protocol::client::Away::Fail,
    }
}
