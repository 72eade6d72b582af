//! The truth about streams: who asked for what, what was given for it in each direction, and what came of that.
//!
//! ```text
//!   Ask ── up: what the caller gives ──────────► Served ── what came of it
//!    └──── what came of it ◄── down: what the provider gives ──┘
//! ```
//! What comes is the beginning of what one other end gave, in order, and only all of it is a success. The other end is
//! known by who asked and what: where more than one may be meant, each is as long as it fits.
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else is said is no matter of streams")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use commipc_protocol::client::{
    CallFailure, Command, Credit, Event, EventKind, Failure, Payload, Request, RequestId, StreamCommand, StreamEvent,
    StreamId, Token,
};
use commipc_protocol::{ChannelName, ClientId, Fault, FaultCode, Instant, Misuse};
use core::time::Duration;

use super::{Content, Salt, Verdict, ensure};
use crate::node::NodeId;

/// Streams as applications see them. `R` names a request at its provider.
#[derive(Debug)]
pub(super) struct Flows<R = RequestId> {
    pub(super) ids: BTreeMap<NodeId, ClientId>,
    /// Whether a hub's word that nobody was asked is taken.
    trusting: bool,
    /// Somebody says past its own machine what it likes, also that its streams are over.
    pub(super) wild: bool,
    kinds: BTreeMap<(NodeId, Token), EventKind>,
    pub(super) asks: BTreeMap<(NodeId, Token), Ask>,
    pub(super) served: BTreeMap<(NodeId, R), Served>,
    /// By who asked and what.
    asked_so: BTreeMap<(ClientId, Content), Vec<(NodeId, Token)>>,
    served_so: BTreeMap<(ClientId, Content), Vec<(NodeId, R)>>,
    /// What began since a node's outputs were drained: a change that is told now may be older than it.
    fresh: BTreeSet<(NodeId, End<R>)>,
    /// What may wait for a connection, and so be asked under whatever holds then.
    waiting: BTreeSet<(NodeId, Token)>,
}

/// An end of a stream, at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End<R> {
    Caller(Token),
    Provider(R),
}

/// A stream as the one who asked for it knows it.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) content: Content,
    pub(super) exchange: bool,
    /// Under which protection, or none. More than one where that changed at the same time.
    pub(super) under: Vec<Option<Salt>>,
    pub(super) deadline: Instant,
    /// When all of it must be over, if that was said.
    pub(super) until: Option<Instant>,
    pub(super) accepted: bool,
    /// When it ended.
    pub(super) over: Option<Instant>,
    pub(super) said: Said,
    pub(super) heard: Heard,
}

/// A stream as the one who was asked knows it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) caller: ClientId,
    pub(super) content: Content,
    pub(super) kind: EventKind,
    pub(super) under: Vec<Option<Salt>>,
    /// When it was taken.
    pub(super) accepted: Option<Instant>,
    /// Its provider was told that it has ended.
    pub(super) over: bool,
    pub(super) said: Said,
    pub(super) heard: Heard,
}

/// What one end gives.
#[derive(Debug, Default)]
pub(super) struct Said {
    items: Vec<Payload>,
    pub(super) ending: Option<Ending>,
    /// How many items it was asked for.
    pub(super) demanded: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    All,
    Fault(Fault),
}

/// What came to one end.
#[derive(Debug, Default)]
pub(super) struct Heard {
    count: usize,
    /// Which other ends gave that, where something came.
    from: Option<Vec<usize>>,
    pub(super) window: Credit,
    came: Credit,
    /// What the largest item has cost.
    largest: u64,
    pub(super) consumed: Credit,
}

/// How late drivers may be with a timeout and with what comes of it, and more.
pub(super) const LATE: Duration = Duration::from_secs(1);
/// The least that may be on its way, in bytes, whatever is asked for.
const LEAST_WINDOW: u64 = 17_000;

impl<R> Default for Flows<R> {
    fn default() -> Self {
        Self {
            ids: BTreeMap::new(),
            trusting: false,
            wild: false,
            kinds: BTreeMap::new(),
            asks: BTreeMap::new(),
            served: BTreeMap::new(),
            asked_so: BTreeMap::new(),
            served_so: BTreeMap::new(),
            fresh: BTreeSet::new(),
            waiting: BTreeSet::new(),
        }
    }
}

/// From what applications say and hear.
impl Flows {
    /// Behind a hub whose word is taken.
    pub(super) fn trusting() -> Self {
        Self { trusting: true, ..Self::default() }
    }

    /// The clock of one who asks stands still.
    pub(super) fn stands_still(&mut self, node: NodeId, by: Duration) {
        for (_, ask) in self.asks.range_mut((node, Token(0))..=(node, Token(u64::MAX))) {
            ask.deadline = ask.deadline + by;
            ask.until = ask.until.map(|until| until + by);
        }
    }

    pub(super) fn asks(
        &mut self,
        at: Instant,
        node: NodeId,
        command: &Command,
        sealed: impl Fn(&ChannelName) -> Option<Salt>,
    ) {
        match command {
            Command::Provide { token, kind, .. } => self.provides(node, *token, *kind),
            Command::Stream(StreamCommand::Ask { token, outgoing, time_left, whole, window, exchange }) => {
                let (content, sealed) = (Content::said(outgoing), sealed(&outgoing.channel));
                let times =
                    (at + whole.map_or(*time_left, |whole| whole.min(*time_left)), whole.map(|whole| at + whole));
                self.asked(node, *token, Ask::new(content, *exchange, sealed, times, *window));
            }
            Command::Stream(StreamCommand::Accept { request, window }) => self.accepted(at, node, *request, *window),
            Command::Stream(StreamCommand::Items { stream, payloads }) => {
                self.said(node, end(*stream), |said| said.give(payloads));
            }
            Command::Stream(StreamCommand::Finish { stream }) => {
                self.said(node, end(*stream), |said| said.end(Ending::All));
            }
            Command::Stream(StreamCommand::Consumed { stream, amount }) => self.consumed(node, end(*stream), *amount),
            Command::Answer { request, result } => {
                let fault = result.clone().err().unwrap_or_else(|| FaultCode::HandlerFailed.into());
                self.said(node, End::Provider(*request), |said| said.end(Ending::Fault(fault)));
            }
            _ => {}
        }
    }

    pub(super) fn told(
        &mut self,
        at: Instant,
        node: NodeId,
        event: &Event,
        sealed: impl Fn(&ChannelName) -> Option<Salt>,
    ) -> Verdict {
        match event {
            Event::Request(Request { id, provider, message, .. }) => {
                let (caller, content) = (message.sender.client.clone(), Content::heard(message));
                self.requested(node, *id, *provider, caller, content, sealed(&message.channel));
                Ok(())
            }
            Event::RequestEnded { request, .. } => {
                self.request_ended(node, *request);
                Ok(())
            }
            Event::Stream(StreamEvent::Accepted { token }) => {
                if let Some(ask) = self.asks.get_mut(&(node, *token)) {
                    ask.accepted = true;
                }
                Ok(())
            }
            Event::Stream(StreamEvent::Item { stream, payload, cost }) => self.came(node, end(*stream), payload, *cost),
            Event::Stream(StreamEvent::Demand { stream, amount }) => {
                self.said(node, end(*stream), |said| said.demanded += amount.items);
                Ok(())
            }
            Event::Stream(StreamEvent::Finished { request, result }) => self.finished(node, *request, *result),
            Event::Stream(StreamEvent::Ended { token, result }) => self.ended(at, node, *token, result),
            _ => Ok(()),
        }
    }
}

const fn end(id: StreamId) -> End<RequestId> {
    match id {
        StreamId::Call(token) => End::Caller(token),
        StreamId::Request(request) => End::Provider(request),
    }
}

impl<R: Copy + Ord + Debug> Flows<R> {
    pub(super) fn provides(&mut self, node: NodeId, token: Token, kind: EventKind) {
        self.kinds.insert((node, token), kind);
    }

    pub(super) fn asked(&mut self, node: NodeId, token: Token, ask: Ask) {
        let Some(id) = self.ids.get(&node) else { return };
        self.asked_so.entry((id.clone(), ask.content.clone())).or_default().push((node, token));
        self.fresh.insert((node, End::Caller(token)));
        self.asks.insert((node, token), ask);
    }

    pub(super) fn waits(&mut self, node: NodeId, token: Token) {
        self.waiting.insert((node, token));
    }

    /// Whether somebody asks for something that is answered with a stream.
    pub(super) fn streams(&self, node: NodeId, provider: Token) -> bool {
        self.kinds.get(&(node, provider)).is_some_and(|kind| kind.streams())
    }

    pub(super) fn requested(
        &mut self,
        node: NodeId,
        request: R,
        provider: Token,
        caller: ClientId,
        content: Content,
        sealed: Option<Salt>,
    ) {
        let Some(kind) = self.kinds.get(&(node, provider)).copied().filter(|kind| kind.streams()) else { return };
        self.served_so.entry((caller.clone(), content.clone())).or_default().push((node, request));
        self.fresh.insert((node, End::Provider(request)));
        let (said, heard, under) = (Said::default(), Heard::default(), vec![sealed]);
        let served = Served { caller, content, kind, under, accepted: None, over: false, said, heard };
        self.served.insert((node, request), served);
    }

    pub(super) fn accepted(&mut self, at: Instant, node: NodeId, request: R, window: Credit) {
        if let Some(served) = self.served.get_mut(&(node, request)) {
            served.accepted.get_or_insert(at);
            served.heard.window = Credit { items: window.items.max(1), ..window };
        }
    }

    pub(super) fn said(&mut self, node: NodeId, end: End<R>, say: impl FnOnce(&mut Said)) {
        let said = match end {
            End::Caller(token) => self.asks.get_mut(&(node, token)).map(|ask| &mut ask.said),
            End::Provider(request) => self.served.get_mut(&(node, request)).map(|served| &mut served.said),
        };
        if let Some(said) = said {
            say(said);
        }
    }

    fn heard(&mut self, node: NodeId, end: End<R>) -> Option<&mut Heard> {
        match end {
            End::Caller(token) => self.asks.get_mut(&(node, token)).map(|ask| &mut ask.heard),
            End::Provider(request) => self.served.get_mut(&(node, request)).map(|served| &mut served.heard),
        }
    }

    pub(super) fn consumed(&mut self, node: NodeId, end: End<R>, amount: Credit) {
        if let Some(heard) = self.heard(node, end) {
            heard.consumed = heard.consumed.plus(amount).min(heard.came);
        }
    }

    /// The other ends that may be meant, by their places, with what each said; nothing where anybody may have said anything.
    fn others(&self, node: NodeId, end: End<R>) -> Option<Vec<(usize, &Said)>> {
        let meet = |one: &[Option<Salt>], other: &[Option<Salt>]| one.iter().any(|salt| other.contains(salt));
        match end {
            End::Caller(token) => {
                let ask = self.asks.get(&(node, token)).filter(|ask| !ask.under.contains(&None))?;
                let key = (self.ids.get(&node)?.clone(), ask.content.clone());
                let served = self.served_so.get(&key).into_iter().flatten().enumerate();
                let served = served.filter_map(|(place, key)| Some((place, self.served.get(key)?)));
                let meant = served.filter(|(_, served)| meet(&served.under, &ask.under));
                Some(meant.map(|(place, served)| (place, &served.said)).collect())
            }
            End::Provider(request) => {
                let served = self.served.get(&(node, request)).filter(|served| !served.under.contains(&None))?;
                let key = (served.caller.clone(), served.content.clone());
                let asks = self.asked_so.get(&key).into_iter().flatten().enumerate();
                let asks = asks.filter_map(|(place, key)| Some((place, self.asks.get(key)?)));
                let meant = asks.filter(|(_, ask)| meet(&served.under, &ask.under));
                Some(meant.map(|(place, ask)| (place, &ask.said)).collect())
            }
        }
    }

    /// An item comes, and with it the question who gave it.
    pub(super) fn came(&mut self, node: NodeId, end: End<R>, payload: &Payload, cost: u64) -> Verdict {
        let Some(heard) = self.heard(node, end) else {
            return Err(format!("{node:?} was told an item of {end:?}, which is no stream"));
        };
        let (index, from) = (heard.count, heard.from.clone());
        let (ahead, window) = (heard.came.minus(heard.consumed), heard.window);
        heard.count += 1;
        heard.came = heard.came.plus(Credit { items: 1, bytes: cost });
        heard.largest = heard.largest.max(cost);
        // While the pieces of an item are joined, they make room for more.
        let most = window.bytes.max(LEAST_WINDOW) + heard.largest;
        let fits = ahead.items < window.items && ahead.bytes <= most;
        ensure(fits, || format!("{node:?} got more of {end:?} than it wanted: {ahead:?} of {window:?}, and more"))?;
        if self.is_over(node, end) {
            return Err(format!("{node:?} was told an item of {end:?}, which had ended"));
        }
        let Some(others) = self.others(node, end) else { return Ok(()) };
        let known = |place: &usize| from.as_ref().is_none_or(|from| from.contains(place));
        let gave = |(place, said): &&(usize, &Said)| known(place) && said.items.get(index) == Some(payload);
        let from: Vec<usize> = others.iter().filter(gave).map(|(place, _)| *place).collect();
        ensure(!from.is_empty(), || {
            format!("{node:?} got as item {index} of {end:?} what nobody gave as that: {payload:?}")
        })?;
        if let Some(heard) = self.heard(node, end) {
            heard.from = Some(from);
        }
        Ok(())
    }

    fn is_over(&self, node: NodeId, end: End<R>) -> bool {
        match end {
            End::Caller(token) => self.asks.get(&(node, token)).is_some_and(|ask| ask.over.is_some()),
            End::Provider(request) => self.served.get(&(node, request)).is_some_and(|served| served.over),
        }
    }

    /// Whether one of those that gave what came has ended so, after as much as `fits`.
    fn has_ended(
        &self,
        node: NodeId,
        end: End<R>,
        heard: &Heard,
        ending: &Ending,
        fits: fn(usize, usize) -> bool,
    ) -> bool {
        let Some(others) = self.others(node, end).filter(|_| !self.wild) else { return true };
        let known = |place: &usize| heard.from.as_ref().is_none_or(|from| from.contains(place));
        let mut meant = others.iter().filter(|(place, _)| known(place)).map(|(_, said)| said);
        meant.any(|said| said.ending.as_ref() == Some(ending) && fits(heard.count, said.items.len()))
    }

    pub(super) fn ended(
        &mut self,
        at: Instant,
        node: NodeId,
        token: Token,
        result: &Result<(), CallFailure>,
    ) -> Verdict {
        self.waiting.remove(&(node, token));
        let Some(ask) = self.asks.get_mut(&(node, token)) else { return Ok(()) };
        ask.over = Some(at);
        let late = ask.until.is_some_and(|until| at > until + LATE);
        ensure(!late, || format!("{token:?} of {node:?} outlived its total deadline: {ask:?}"))?;
        let Some(ask) = self.asks.get(&(node, token)) else { return Ok(()) };
        let end = End::Caller(token);
        let true_end = match result {
            Ok(()) => self.has_ended(node, end, &ask.heard, &Ending::All, |came, given| came == given),
            Err(CallFailure::Fault(fault)) if fault.code == FaultCode::Stale.code() => true,
            Err(CallFailure::Fault(fault)) => {
                let fault = Ending::Fault(fault.clone());
                self.has_ended(node, end, &ask.heard, &fault, |came, given| came <= given)
            }
            Err(
                CallFailure::Failed { failure: Failure::Local(_), .. }
                | CallFailure::Failed { maybe_executed: true, .. },
            ) => true,
            // Nobody can know that nothing was executed where calls are signed.
            Err(CallFailure::Failed { .. }) => self.trusting || ask.under.contains(&None),
        };
        ensure(true_end, || {
            format!("{end:?} of {node:?} ended after {} items with {result:?}, which is not so", ask.heard.count)
        })
    }

    pub(super) fn finished(&mut self, node: NodeId, request: R, result: Result<(), Misuse>) -> Verdict {
        let Some(served) = self.served.get(&(node, request)) else { return Ok(()) };
        let end = End::Provider(request);
        // Who asks for a stream alone gives no items, and its client says so for it.
        let key = (served.caller.clone(), served.content.clone());
        let asks = self.asked_so.get(&key).into_iter().flatten().filter_map(|key| self.asks.get(key));
        let alone = asks.filter(|ask| !ask.exchange).count() > 0 && served.heard.count == 0;
        let all = alone || self.has_ended(node, end, &served.heard, &Ending::All, |came, given| came == given);
        ensure(result.is_err() || all, || {
            format!("{end:?} of {node:?} was told after {} items that this was all", served.heard.count)
        })
    }

    pub(super) fn request_ended(&mut self, node: NodeId, request: R) {
        if let Some(served) = self.served.get_mut(&(node, request)) {
            served.over = true;
        }
    }

    /// What a node signs under changes; what began just now may have begun after it.
    pub(super) fn sealed(&mut self, node: NodeId, channel: &ChannelName, sealed: Option<Salt>) {
        let waiting = self.waiting.iter().map(|(node, token)| (*node, End::Caller(*token)));
        let changing: BTreeSet<(NodeId, End<R>)> = self.fresh.iter().copied().chain(waiting).collect();
        for (_, end) in changing.iter().filter(|(of, _)| *of == node) {
            let changed = match end {
                End::Caller(token) => self.asks.get_mut(&(node, *token)).map(|ask| (&ask.content, &mut ask.under)),
                End::Provider(request) => {
                    self.served.get_mut(&(node, *request)).map(|served| (&served.content, &mut served.under))
                }
            };
            if let Some((_, under)) = changed.filter(|(content, _)| content.channel == *channel) {
                under.push(sealed);
            }
        }
    }

    pub(super) fn drained(&mut self, node: NodeId) {
        self.fresh.retain(|(fresh, _)| *fresh != node);
    }

    /// What the callers of a request may take, by what they have said.
    pub(super) fn wanted(&self, node: NodeId, end: End<R>) -> u64 {
        let most = |heard: &Heard| heard.window.items.saturating_add(heard.consumed.items);
        match end {
            End::Caller(token) => {
                let Some((id, ask)) = self.ids.get(&node).zip(self.asks.get(&(node, token))) else { return 0 };
                let served = self.served_so.get(&(id.clone(), ask.content.clone())).into_iter().flatten();
                served.filter_map(|key| self.served.get(key)).map(|served| most(&served.heard)).max().unwrap_or(0)
            }
            End::Provider(_) => self.callers(node, end).map(|ask| most(&ask.heard)).max().unwrap_or(0),
        }
    }

    /// The asks that a request may stand for.
    pub(super) fn callers(&self, node: NodeId, end: End<R>) -> impl Iterator<Item = &Ask> {
        let served = match end {
            End::Caller(_) => None,
            End::Provider(request) => self.served.get(&(node, request)),
        };
        let asks = served.and_then(|it| self.asked_so.get(&(it.caller.clone(), it.content.clone())));
        asks.into_iter().flatten().filter_map(|key| self.asks.get(key))
    }

    /// The requests that an ask may have become.
    pub(super) fn providers(&self, node: NodeId, token: Token) -> impl Iterator<Item = &Served> {
        let known = self.ids.get(&node).zip(self.asks.get(&(node, token)));
        let served = known.and_then(|(id, ask)| self.served_so.get(&(id.clone(), ask.content.clone())));
        served.into_iter().flatten().filter_map(|key| self.served.get(key))
    }
}

impl Ask {
    pub(super) fn new(
        content: Content,
        exchange: bool,
        sealed: Option<Salt>,
        (deadline, until): (Instant, Option<Instant>),
        window: Credit,
    ) -> Self {
        let heard = Heard { window, ..Heard::default() };
        let (under, said) = (vec![sealed], Said::default());
        Self { content, exchange, under, deadline, until, accepted: false, over: None, said, heard }
    }
}

impl Said {
    pub(super) fn give(&mut self, payloads: &[Payload]) {
        // What comes after the end is ignored.
        if self.ending.is_none() {
            self.items.extend_from_slice(payloads);
        }
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    pub(super) const fn given(&self) -> usize {
        self.items.len()
    }
}

impl Heard {
    pub(super) const fn count(&self) -> usize {
        self.count
    }
}
