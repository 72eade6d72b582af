//! The part of a world that suites speak to have streams: scripts that give items as they are wanted, and take them.
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else is said is no matter of streams")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use commipc_protocol::client::{
    CallFailure, Command, Credit, Event, EventKind, Payload, Request, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::{ChannelName, EventName, Fault, Instant};
use core::time::Duration;

use crate::node::NodeId;
use crate::plans::Plan;
use crate::suite::{At, Ticket, outgoing};
use crate::world::World;

/// What a scripted provider gives to one who asks for a stream.
#[derive(Clone, Debug)]
pub struct Feed {
    items: VecDeque<Payload>,
    /// Nothing when it never ends by itself.
    ends: Option<Result<(), Fault>>,
    /// When the next thing may be done: one after the other.
    due: Instant,
}

/// How a provider's script answers requests for streams.
type Script = Box<dyn FnMut(&Request) -> Feed>;

/// Scripts, and the streams that they are at.
#[derive(Default)]
pub(crate) struct Feeding {
    scripts: BTreeMap<NodeId, Script>,
    provided: BTreeSet<Token>,
    gives: BTreeMap<(NodeId, StreamId), Feed>,
    takes: BTreeSet<(NodeId, StreamId)>,
}

/// What may be on its way of a scripted stream.
const WINDOW: Credit = Credit { items: 16, bytes: 64 << 10 };

impl Feeding {
    /// What is asked of the provider with this token is asked as a stream.
    pub(crate) fn provides(&mut self, provider: Token) {
        self.provided.insert(provider);
    }

    pub(crate) fn is_provided(&self, provider: Token) -> bool {
        self.provided.contains(&provider)
    }

    /// The items of a stream are taken as they come.
    pub(crate) fn takes(&mut self, node: NodeId, stream: StreamId) {
        self.takes.insert((node, stream));
    }
}

impl Feed {
    /// These items, as raw bytes, and then the end.
    #[must_use]
    pub fn of(items: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let items = items.into_iter().map(|bytes| Payload { bytes: bytes.into(), raw: true }).collect();
        Self { items, ends: Some(Ok(())), due: Instant::ZERO }
    }

    /// The same items, and a fault after them.
    #[must_use]
    pub fn failing(self, fault: Fault) -> Self {
        Self { ends: Some(Err(fault)), ..self }
    }

    /// The same items, and no end after them.
    #[must_use]
    pub fn endless(self) -> Self {
        Self { ends: None, ..self }
    }
}

impl World {
    /// Lets a client's providers give streams by a script; without one they never take a request.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn feeds(&mut self, name: &str, script: impl FnMut(&Request) -> Feed + 'static) {
        let node = self.at(name).id();
        self.feeding.scripts.insert(node, Box::new(script));
    }

    /// The items that have come of a stream.
    #[must_use]
    pub fn items(&self, stream: Ticket) -> Vec<&Payload> {
        let told = self.told.get(&stream.node).map_or(&[][..], Vec::as_slice);
        let of_it = |event| match event {
            &Event::Stream(StreamEvent::Item { stream: of, ref payload, .. }) => {
                (of == StreamId::Call(stream.token)).then_some(payload)
            }
            _ => None,
        };
        told.iter().filter_map(of_it).collect()
    }

    /// How a stream ended, if it has.
    #[must_use]
    pub fn has_ended(&self, stream: Ticket) -> Option<&Result<(), CallFailure>> {
        self.told.get(&stream.node)?.iter().find_map(|event| match event {
            Event::Stream(StreamEvent::Ended { token, result }) => (*token == stream.token).then_some(result),
            _ => None,
        })
    }

    /// How a stream ended; waits for it.
    ///
    /// # Errors
    /// As the client was told.
    ///
    /// # Panics
    /// When it never ends.
    pub fn end_of(&mut self, stream: Ticket) -> Result<(), CallFailure> {
        self.run_until(|world| world.has_ended(stream).is_some());
        self.has_ended(stream).cloned().unwrap_or_else(|| unreachable!("run_until has just found it"))
    }

    /// Lets scripts go on with their streams. Tells whether a request is one of theirs.
    pub(crate) fn feed(&mut self, node: NodeId, event: &Event) -> bool {
        match event {
            Event::Request(request) if self.feeding.provided.contains(&request.provider) => {
                let Some(script) = self.feeding.scripts.get_mut(&node) else { return true };
                let (mut feed, stream) = (script(request), StreamId::Request(request.id));
                feed.due = self.engine.now() + Duration::from_nanos(1);
                self.feeding.gives.insert((node, stream), feed);
                self.feeding.takes.insert((node, stream));
                let accept = StreamCommand::Accept { request: request.id, window: WINDOW };
                self.streams_on(node, accept);
                self.gives(node, stream, 0);
                return true;
            }
            Event::Stream(StreamEvent::Demand { stream, amount }) => self.gives(node, *stream, amount.items),
            Event::Stream(StreamEvent::Accepted { token }) => self.gives(node, StreamId::Call(*token), 0),
            Event::Stream(StreamEvent::Item { stream, cost, .. }) if self.feeding.takes.contains(&(node, *stream)) => {
                let amount = Credit { items: 1, bytes: *cost };
                self.streams_on(node, StreamCommand::Consumed { stream: *stream, amount });
            }
            Event::Stream(StreamEvent::Ended { token, .. }) => self.forgets(node, StreamId::Call(*token)),
            Event::RequestEnded { request, .. } => self.forgets(node, StreamId::Request(*request)),
            _ => {}
        }
        false
    }

    fn streams_on(&mut self, node: NodeId, command: StreamCommand) {
        self.plan_own(Duration::ZERO, Plan::Stream { node, command });
    }

    fn gives(&mut self, node: NodeId, stream: StreamId, wanted: u64) {
        let Some(feed) = self.feeding.gives.get_mut(&(node, stream)) else { return };
        let most = usize::try_from(wanted).unwrap_or(usize::MAX).min(feed.items.len());
        let payloads: Vec<Payload> = feed.items.drain(..most).collect();
        let mut plans = Vec::new();
        if !payloads.is_empty() {
            plans.push(Plan::Stream { node, command: StreamCommand::Items { stream, payloads } });
        }
        let ends = if feed.items.is_empty() { feed.ends.take() } else { None };
        match (ends, stream) {
            (Some(Err(fault)), StreamId::Request(request)) => {
                plans.push(Plan::Answer { node, request, result: Err(fault) });
            }
            (Some(_), _) => plans.push(Plan::Stream { node, command: StreamCommand::Finish { stream } }),
            (None, _) => {}
        }
        let now = self.engine.now();
        for plan in plans {
            let Some(feed) = self.feeding.gives.get_mut(&(node, stream)) else { return };
            let at = feed.due.max(now);
            feed.due = at + Duration::from_nanos(1);
            self.plan_own(at.saturating_since(now), plan);
        }
    }

    fn forgets(&mut self, node: NodeId, stream: StreamId) {
        self.feeding.gives.remove(&(node, stream));
        self.feeding.takes.remove(&(node, stream));
    }
}

impl At<'_> {
    /// Provides streams of an event and waits for the confirmation.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn provides_streams(self, channel: &str, event: &str) -> Self {
        self.provides_as(channel, event, EventKind::Stream)
    }

    /// Provides exchanges of an event and waits for the confirmation.
    ///
    /// # Panics
    /// When the hub refuses.
    pub fn provides_exchanges(self, channel: &str, event: &str) -> Self {
        self.provides_as(channel, event, EventKind::Exchange)
    }

    /// Asks to provide streams of an event.
    pub fn tries_to_provide_streams(&mut self, channel: &str, event: &str) -> Ticket {
        self.tries_to_provide_as(channel, event, EventKind::Stream)
    }

    fn provides_as(mut self, channel: &str, event: &str, kind: EventKind) -> Self {
        let ticket = self.tries_to_provide_as(channel, event, kind);
        self.confirmed(ticket)
    }

    fn tries_to_provide_as(&mut self, channel: &str, event: &str, kind: EventKind) -> Ticket {
        let channel = ChannelName::new(channel).unwrap_or_else(|error| panic!("{channel}: {error}"));
        let event = EventName::new(event).unwrap_or_else(|error| panic!("{event}: {error}"));
        let ticket = self.asks(|token| Command::Provide { token, channel, event, kind });
        self.world().feeding.provides(ticket.token);
        ticket
    }

    /// Asks for a stream, whose items are taken as they come.
    pub fn streams(self, channel: &str, event: &str, text: &str, time_left: Duration) -> Ticket {
        self.asks_stream(channel, event, text, (time_left, None), None)
    }

    /// Asks for a stream that is to be over by then, or with items to give for an exchange.
    pub fn streams_within(self, channel: &str, event: &str, text: &str, total: Duration, feed: Option<Feed>) -> Ticket {
        self.asks_stream(channel, event, text, (total, Some(total)), feed)
    }

    /// Asks for an exchange and gives these items.
    pub fn exchanges(self, channel: &str, event: &str, text: &str, time_left: Duration, feed: Feed) -> Ticket {
        self.asks_stream(channel, event, text, (time_left, None), Some(feed))
    }

    fn asks_stream(
        mut self,
        channel: &str,
        event: &str,
        text: &str,
        (time_left, whole): (Duration, Option<Duration>),
        feed: Option<Feed>,
    ) -> Ticket {
        let (outgoing, window, exchange) = (outgoing(channel, event, text), WINDOW, feed.is_some());
        let (node, token) = (self.id(), self.world().token());
        let stream = StreamId::Call(token);
        self.world().feeding.takes(node, stream);
        self.world().feeding.gives.extend(feed.map(|feed| ((node, stream), feed)));
        let ask = StreamCommand::Ask { token, outgoing, time_left, whole, window, exchange };
        self.world().ask(node, Command::Stream(ask));
        Ticket { node, token }
    }
}
