//! Who comes to its end in good order: nothing new is taken on, what runs is waited for, and what has not ended when the
//! time is over is ended then, and no sooner.
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else is said is no matter of drains")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use commipc_protocol::client::{
    CallFailure, Command, DrainCommand, Event, Failure, Incoming, Request, RequestId, StreamCommand, StreamEvent,
    StreamId, Token,
};
use commipc_protocol::{ChannelName, ClientId, Input, Instant, Misuse, Output, Refusal, hub};
use core::time::Duration;

use super::people::People;
use super::{Content, Oracle, Resident, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds that a drain loses nothing and ends. `R` names a request at its provider.
#[derive(Debug)]
pub struct Drains<R = RequestId> {
    ids: BTreeMap<NodeId, ClientId>,
    clients: BTreeMap<NodeId, Drainer<R>>,
    people: People,
    /// How often each caller said the same.
    said: BTreeMap<(ClientId, Content), u32>,
    calls: BTreeMap<(NodeId, Token), Content>,
    /// Whether what hubs tell is true.
    trusting: bool,
}

/// A client that may drain.
#[derive(Debug)]
struct Drainer<R> {
    /// The whole client comes to its end.
    whole: Option<Drain>,
    /// Some of its providers do.
    providers: BTreeMap<Token, Drain>,
    standing: BTreeSet<Token>,
    /// What a drain has taken back, and whether outputs from before that may still come.
    given_back: BTreeMap<Token, bool>,
    open: BTreeMap<Token, Open>,
    working: BTreeMap<R, Work>,
    /// Worked on no more by the application, but it may not all be out.
    lingering: BTreeSet<R>,
    /// It was told to close.
    closing: bool,
    /// It was told to drain once more, and what was to be told of the time before may still come.
    again: bool,
}

#[derive(Clone, Copy, Debug)]
struct Drain {
    due: Instant,
    busy: bool,
    /// It was told that it has begun: what comes from then on is no older.
    begun: bool,
    /// A connection was asked for meanwhile, and there may be another one already.
    dials: bool,
}

/// Something that was asked and has not ended.
#[derive(Debug)]
struct Open {
    fresh: bool,
    /// Openings of one channel are one question to the hub.
    opens: Option<ChannelName>,
    /// Nothing new was taken on any more.
    refused: bool,
}

#[derive(Debug)]
struct Work {
    provider: Token,
    caller: ClientId,
    content: Content,
    /// Its hub may have ended it meanwhile for a reason of its own.
    excused: bool,
}

/// How something ended that was asked.
#[derive(Clone, Copy, Debug)]
struct End {
    /// It was done, or may have been.
    done: bool,
    why: Option<Failure>,
}

/// How old the time may be that a driver hands in.
const OLDEST_READING: Duration = Duration::from_millis(1);
/// How late drivers may be with a timeout and with what comes of it, and more.
const LATE: Duration = Duration::from_secs(1);

impl<R> Default for Drains<R> {
    fn default() -> Self {
        let (ids, clients, people) = (BTreeMap::new(), BTreeMap::new(), People::default());
        Self { ids, clients, people, said: BTreeMap::new(), calls: BTreeMap::new(), trusting: true }
    }
}

impl<R> Default for Drainer<R> {
    fn default() -> Self {
        Self {
            whole: None,
            providers: BTreeMap::new(),
            standing: BTreeSet::new(),
            given_back: BTreeMap::new(),
            open: BTreeMap::new(),
            working: BTreeMap::new(),
            lingering: BTreeSet::new(),
            closing: false,
            again: false,
        }
    }
}

impl Oracle for Drains {
    fn name(&self) -> &'static str {
        "drains"
    }

    fn joined(&mut self, node: NodeId, who: &Resident) {
        self.ids.extend(who.id.clone().map(|id| (node, id)));
    }

    fn saw(&mut self, at: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        self.people.saw(node, sight);
        match sight {
            Sight::Fed(Input::Command(Asked::Client(command))) => match command {
                Command::Answer { request, .. } => self.at(node).finishes(*request),
                Command::Stream(StreamCommand::Finish { stream: StreamId::Request(request) }) => {
                    self.at(node).finishes(*request);
                }
                _ => self.asked(at, node, command),
            },
            Sight::Gave(Output::Event(Told::Client(event))) => match event {
                Event::Request(Request { id, provider, message, .. }) => {
                    return self.at(node).requested(*id, *provider, message);
                }
                Event::RequestEnded { request, why } => return self.at(node).request_ended(at, *request, *why),
                _ => {
                    self.kept(node, event)?;
                    return self.at(node).told(at, event);
                }
            },
            Sight::Gave(Output::Event(Told::Hub(event))) => self.hub_told(event),
            Sight::Drained => self.at(node).drained(),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Broke(_) => {}
        }
        Ok(())
    }

    fn died(&mut self, node: NodeId) {
        self.clients.remove(&node);
    }

    fn stands_still(&mut self, node: NodeId, by: Duration) {
        let Drainer { whole, providers, .. } = self.at(node);
        whole.iter_mut().chain(providers.values_mut()).for_each(|drain| drain.due = drain.due + by);
    }

    fn settled(&mut self) -> Verdict {
        let drains = |drainer: &Drainer<RequestId>| drainer.whole.is_some() || !drainer.providers.is_empty();
        let left = self.clients.iter().find(|(_, drainer)| drains(drainer));
        ensure(left.is_none(), || format!("never came to its end: {left:?}"))
    }
}

impl<R: Copy + Ord + Debug> Drains<R> {
    /// The same where a hub may end what it likes.
    #[must_use]
    pub fn of_clients() -> Self {
        Self { trusting: false, ..Self::default() }
    }

    fn at(&mut self, node: NodeId) -> &mut Drainer<R> {
        self.clients.entry(node).or_default()
    }

    fn asked(&mut self, at: Instant, node: NodeId, command: &Command) {
        if let Command::Call { token, outgoing, .. } | Command::Stream(StreamCommand::Ask { token, outgoing, .. }) =
            command
            && let Some(id) = self.ids.get(&node)
        {
            let content = Content::said(outgoing);
            *self.said.entry((id.clone(), content.clone())).or_default() += 1;
            self.calls.insert((node, *token), content);
        }
        self.at(node).asks(at, command);
    }

    /// What a provider works on that drains, and has time to, is not taken from its caller.
    fn kept(&mut self, node: NodeId, event: &Event) -> Verdict {
        let (Event::Answered { token, .. } | Event::Stream(StreamEvent::Ended { token, .. })) = event else {
            return Ok(());
        };
        let Some((id, content)) = self.ids.get(&node).cloned().zip(self.calls.remove(&(node, *token))) else {
            return Ok(());
        };
        let (Event::Answered { result: Err(CallFailure::Failed { failure, .. }), .. }
        | Event::Stream(StreamEvent::Ended { result: Err(CallFailure::Failed { failure, .. }), .. })) = event
        else {
            return Ok(());
        };
        let said = self.said.get(&(id.clone(), content.clone())).copied().unwrap_or(0);
        if *failure != Failure::Refused(Refusal::ProviderGone) || said != 1 || !self.trusting {
            return Ok(());
        }
        let people = &self.people;
        let there = self.clients.iter().filter(|(node, _)| !people.is_cut_off(**node));
        let mut kept = there.filter_map(|(provider, drainer)| {
            let meant = drainer.working.values().find(|work| work.caller == id && work.content == content)?;
            (!meant.excused && drainer.providers.contains_key(&meant.provider)).then_some(provider)
        });
        let provider = kept.next();
        ensure(provider.is_none(), || {
            format!("{token:?} of {node:?} lost its provider {provider:?}, which only drains")
        })
    }

    /// Of what is done on a channel the hub has the last word.
    fn hub_told(&mut self, event: &hub::Event) {
        let (channel, client) = match event {
            hub::Event::Terminated { channel } | hub::Event::ProtectionChanged { channel, .. } => (channel, None),
            hub::Event::Left { channel, client, .. } => (channel, Some(client)),
            _ => return,
        };
        let concerns = |node: &NodeId| client.is_none_or(|client| self.ids.get(node) == Some(client));
        for (_, drainer) in self.clients.iter_mut().filter(|(node, _)| concerns(node)) {
            drainer.excuses(channel);
        }
    }
}

impl<R: Copy + Ord + Debug> Drainer<R> {
    fn asks(&mut self, at: Instant, command: &Command) {
        match command {
            Command::Drain(command) => return self.drains(at, command),
            Command::Close => self.closing = true,
            Command::Connect => self.whole.iter_mut().for_each(|drain| drain.dials = true),
            Command::Provide { token, .. } | Command::Listen { token, .. } => {
                self.standing.insert(*token);
            }
            _ => {}
        }
        let Some((token, new)) = token_of(command) else { return };
        let idle = self.working.is_empty() && self.lingering.is_empty();
        let drains = self.whole.is_some_and(|drain| !drain.busy && !drain.dials);
        let opens = if let Command::Open { channel, .. } = command { Some(channel.clone()) } else { None };
        self.open.insert(token, Open { fresh: true, opens, refused: new && idle && drains });
    }

    fn drains(&mut self, at: Instant, command: &DrainCommand) {
        let drain = |time, busy| Drain { due: at + time, busy, begun: false, dials: false };
        match command {
            DrainCommand::Client { time, busy } => {
                self.again |= self.whole.replace(drain(*time, *busy)).is_some();
                let standing = std::mem::take(&mut self.standing);
                self.given_back.extend(standing.into_iter().map(|token| (token, true)));
            }
            DrainCommand::Provider { provider, time } => {
                self.providers.insert(*provider, drain(*time, false));
                self.given_back.extend(self.standing.take(provider).map(|token| (token, true)));
            }
            DrainCommand::Finished => self.whole.iter_mut().for_each(|drain| drain.busy = false),
        }
    }

    /// All that was to be told before has been.
    fn drained(&mut self) {
        self.given_back.values_mut().for_each(|fresh| *fresh = false);
        self.open.values_mut().for_each(|open| open.fresh = false);
        self.again = false;
    }

    fn requested(&mut self, request: R, provider: Token, heard: &Incoming) -> Verdict {
        self.takes(provider)?;
        // It was worked on already when something was asked that has not been answered.
        self.open.values_mut().filter(|open| open.fresh).for_each(|open| open.refused = false);
        let (caller, content) = (heard.sender.client.clone(), Content::heard(heard));
        self.working.insert(request, Work { provider, caller, content, excused: false });
        Ok(())
    }

    /// Nothing comes any more to what a drain has taken back.
    fn takes(&self, standing: Token) -> Verdict {
        ensure(self.given_back.get(&standing) != Some(&false), || {
            format!("something new came to {standing:?}, which drains")
        })
    }

    /// The application has said its last word.
    fn finishes(&mut self, request: R) {
        if self.working.remove(&request).is_some() {
            self.lingering.insert(request);
        }
    }

    fn request_ended(&mut self, at: Instant, request: R, why: Failure) -> Verdict {
        self.lingering.remove(&request);
        let Some(work) = self.working.remove(&request) else { return Ok(()) };
        let drains = [self.whole.as_ref(), self.providers.get(&work.provider)];
        self.not_early(at, why, drains, || format!("{request:?}, {work:?}"))
    }

    fn told(&mut self, at: Instant, event: &Event) -> Verdict {
        match event {
            Event::Draining { provider, running, cut } => self.told_draining(at, *provider, *running, *cut),
            Event::Message(message) => self.takes(message.to),
            Event::Done { token, result } | Event::Sent { token, result } => {
                self.ended(at, *token, End { done: result.is_ok(), why: result.err() })
            }
            Event::Answered { token, result } => self.ended(at, *token, end_of(result.as_ref().err())),
            Event::Stream(StreamEvent::Ended { token, result }) => {
                self.ended(at, *token, end_of(result.as_ref().err()))
            }
            Event::Stream(StreamEvent::Accepted { token }) => {
                let refused = self.open.get(token).is_some_and(|open| open.refused);
                ensure(!refused, || format!("{token:?} was asked by a client that drains, and was taken"))
            }
            Event::Closed(_) => self.closed(at),
            _ => Ok(()),
        }
    }

    fn told_draining(&mut self, at: Instant, provider: Option<Token>, running: usize, cut: usize) -> Verdict {
        let drain = match provider {
            Some(provider) => self.providers.get_mut(&provider),
            None => self.whole.as_mut(),
        };
        let Some(drain) = drain else {
            return ensure(self.again, || format!("told of a drain of {provider:?}, which does not drain"));
        };
        drain.begun = true;
        let drain = *drain;
        if let Some(provider) = provider.filter(|_| running == 0) {
            self.providers.remove(&provider);
        }
        ensure(at <= drain.due + LATE, || format!("{provider:?} drained beyond its time: {drain:?}"))?;
        let due = at + OLDEST_READING >= drain.due || self.closing;
        ensure(cut == 0 || due, || format!("{cut} of {provider:?} were cut before their time: {drain:?}"))?;
        let works = self.working.values().filter(|work| provider.is_none_or(|provider| work.provider == provider));
        let asked = || self.open.values().filter(|open| !open.fresh && provider.is_none());
        let opens: BTreeSet<_> = asked().filter_map(|open| open.opens.as_ref()).collect();
        let known = works.count() + opens.len() + asked().filter(|open| open.opens.is_none()).count();
        ensure(cut > 0 || known <= running, || format!("{known} run of {provider:?}, told was {running}: {self:?}"))
    }

    fn ended(&mut self, at: Instant, token: Token, end: End) -> Verdict {
        let Some(Open { fresh, refused, .. }) = self.open.remove(&token) else { return Ok(()) };
        ensure(!refused || !end.done, || format!("{token:?} was asked by a client that drains, and was done"))?;
        match end.why {
            Some(why) if !fresh => self.not_early(at, why, [self.whole.as_ref(), None], || format!("{token:?}")),
            Some(_) | None => Ok(()),
        }
    }

    /// What ends because this client goes has had the time that a drain gave it.
    fn not_early(
        &self,
        at: Instant,
        why: Failure,
        drains: [Option<&Drain>; 2],
        what: impl FnOnce() -> String,
    ) -> Verdict {
        let mut drains = drains.into_iter().flatten().peekable();
        if why != Failure::Local(Misuse::Closed) || self.closing || drains.peek().is_none() {
            return Ok(());
        }
        ensure(drains.any(|drain| at + OLDEST_READING >= drain.due), || {
            format!("{} was ended before the time of its drain was over: {self:?}", what())
        })
    }

    /// The connection is over, and with it all that hung on it but for what is asked of the next one.
    fn closed(&mut self, at: Instant) -> Verdict {
        let whole = self.whole;
        self.closing = false;
        self.open.retain(|_, open| open.fresh);
        self.working.clear();
        self.lingering.clear();
        self.whole = whole.filter(|drain| !drain.begun);
        self.providers.retain(|_, drain| !drain.begun);
        ensure(whole.is_none_or(|drain| at <= drain.due + LATE), || format!("closed beyond the time of {whole:?}"))
    }

    fn excuses(&mut self, channel: &ChannelName) {
        let here = self.working.values_mut().filter(|work| work.content.channel == *channel);
        here.for_each(|work| work.excused = true);
    }
}

const fn end_of(failure: Option<&CallFailure>) -> End {
    match failure {
        Some(CallFailure::Failed { failure, maybe_executed }) => End { done: *maybe_executed, why: Some(*failure) },
        Some(CallFailure::Fault(_)) | None => End { done: true, why: None },
    }
}

/// What a command asks for, and whether that is something new.
fn token_of(command: &Command) -> Option<(Token, bool)> {
    match command {
        Command::Call { token, .. }
        | Command::Send { token, .. }
        | Command::Broadcast { token, .. }
        | Command::Open { token, .. }
        | Command::Provide { token, .. }
        | Command::Listen { token, .. }
        | Command::Stream(StreamCommand::Ask { token, .. }) => Some((*token, true)),
        Command::Protect { token, .. }
        | Command::Unprotect { token, .. }
        | Command::Reclaim { token, .. }
        | Command::Terminate { token, .. }
        | Command::Leave { token, .. }
        | Command::Withdraw { token, .. }
        | Command::Unlisten { token, .. } => Some((*token, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{broadcast, call, channel, event, id, incoming, message};
    use super::*;
    use commipc_protocol::CloseReason;
    use commipc_protocol::client::EventKind;

    const CALLER: NodeId = NodeId::new(1);
    const PROVIDER: NodeId = NodeId::new(2);
    const PROVIDED: Token = Token(5);

    fn second(second: u64) -> Instant {
        Instant::from_nanos(second * 1_000_000_000)
    }

    /// A provider that works on a call and has asked something itself; all outputs were taken.
    fn scene() -> Drains<u8> {
        let mut drains = Drains::default();
        drains.ids.extend((1..4).map(|node| (NodeId::new(node), id(node))));
        drains.asked(second(0), CALLER, &call(1, "q"));
        let provide = Command::Provide { token: PROVIDED, channel: channel(), event: event(), kind: EventKind::Call };
        drains.asked(second(0), PROVIDER, &provide);
        drains.at(PROVIDER).told(second(0), &Event::Done { token: PROVIDED, result: Ok(()) }).unwrap();
        drains.at(PROVIDER).requested(7, PROVIDED, &incoming(1, "q")).unwrap();
        drains.at(PROVIDER).drained();
        drains
    }

    /// The whole client, or its provider, drains for ten seconds from the first on.
    fn draining(whole: bool) -> Drains<u8> {
        let (mut drains, time) = (scene(), Duration::from_secs(10));
        let command = match whole {
            true => DrainCommand::Client { time, busy: false },
            false => DrainCommand::Provider { provider: PROVIDED, time },
        };
        drains.asked(second(1), PROVIDER, &Command::Drain(command));
        tells(&mut drains, 1, whole, 1, 0).unwrap();
        drains.at(PROVIDER).drained();
        drains
    }

    fn tells(drains: &mut Drains<u8>, at: u64, whole: bool, running: usize, cut: usize) -> Verdict {
        let provider = (!whole).then_some(PROVIDED);
        drains.at(PROVIDER).told(second(at), &Event::Draining { provider, running, cut })
    }

    fn ends(drains: &mut Drains<u8>, at: u64) -> Verdict {
        drains.at(PROVIDER).request_ended(second(at), 7, Failure::Local(Misuse::Closed))
    }

    #[test]
    fn what_is_finished_or_ended_in_time_is_fine() {
        for whole in [true, false] {
            let mut finished = draining(whole);
            finished.at(PROVIDER).finishes(7);
            tells(&mut finished, 2, whole, 0, 0).unwrap();
            finished.at(PROVIDER).told(second(2), &Event::Closed(CloseReason::Local)).unwrap();
            let mut cut = draining(whole);
            ends(&mut cut, 11).unwrap();
            tells(&mut cut, 11, whole, 0, 1).unwrap();
            cut.at(PROVIDER).told(second(11), &Event::Closed(CloseReason::Local)).unwrap();
            for drains in [finished, cut] {
                assert!(drains.clients.values().all(|drainer| drainer.whole.is_none() && drainer.providers.is_empty()));
            }
        }
    }

    #[test]
    fn bites_on_a_drain_that_does_not_wait() {
        for whole in [true, false] {
            assert!(ends(&mut draining(whole), 2).is_err(), "ended too early");
            assert!(tells(&mut draining(whole), 2, whole, 0, 0).is_err(), "believed to be over");
            assert!(tells(&mut draining(whole), 2, whole, 0, 1).is_err(), "cut too early");
            let mut closing = draining(whole);
            closing.asked(second(2), PROVIDER, &Command::Close);
            assert!(ends(&mut closing, 2).is_ok(), "its application does not wait either");
        }
    }

    #[test]
    fn bites_on_a_drain_that_does_not_end() {
        for whole in [true, false] {
            let mut late = draining(whole);
            ends(&mut late, 13).unwrap();
            assert!(tells(&mut late, 13, whole, 0, 1).is_err());
        }
        let mut closed = draining(true);
        assert!(closed.at(PROVIDER).told(second(13), &Event::Closed(CloseReason::Local)).is_err());
        assert!(tells(&mut scene(), 2, true, 0, 0).is_err(), "nothing drains");
    }

    #[test]
    fn bites_on_what_is_taken_on_while_it_drains() {
        for whole in [true, false] {
            assert!(draining(whole).at(PROVIDER).requested(8, PROVIDED, &incoming(1, "r")).is_err());
            assert!(draining(whole).at(PROVIDER).told(second(2), &message(5, 1, "s", 1)).is_err());
        }
        let asks = |finished: bool| {
            let mut drains = draining(true);
            if finished {
                drains.at(PROVIDER).working.clear();
            }
            drains.asked(second(2), PROVIDER, &broadcast(9, "b"));
            drains.at(PROVIDER).drained();
            drains.at(PROVIDER).told(second(2), &Event::Sent { token: Token(9), result: Ok(()) })
        };
        assert!(asks(false).is_ok(), "what is worked on may need it");
        assert!(asks(true).is_err());
    }

    #[test]
    fn bites_on_a_caller_that_loses_a_provider_which_only_drains() {
        let gone = |drains: &mut Drains<u8>| {
            let failure = Failure::Refused(Refusal::ProviderGone);
            let result = Err(CallFailure::Failed { failure, maybe_executed: true });
            drains.kept(CALLER, &Event::Answered { token: Token(1), result })
        };
        let there = |mut drains: Drains<u8>| {
            let link = |node| Sight::Linked {
                link: commipc_protocol::LinkId::dialled(0, 1),
                with: NodeId::new(0),
                as_link: super::super::scene::hub_link(node),
            };
            drains.people.saw(PROVIDER, &link(2));
            drains
        };
        assert!(gone(&mut there(draining(false))).is_err());
        assert!(gone(&mut there(scene())).is_ok(), "nothing drains");
        assert!(gone(&mut draining(false)).is_ok(), "its connection is gone");
        let mut ended = there(draining(false));
        ended.hub_told(&hub::Event::Terminated { channel: channel() });
        assert!(gone(&mut ended).is_ok(), "the channel has ended");
    }
}
