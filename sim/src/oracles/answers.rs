//! Calls: every request stands for a call, every accepted answer was given by the called provider for that call, and
//! what "was not executed" was not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use commipc_protocol::client::{
    Answer, Away, CallFailure, Command, Event, EventKind, Incoming, Payload, Request, RequestId, Token,
};
use commipc_protocol::{ChannelName, ClientId, EventName, Fault, FaultCode, Input, Instant, Output};

use super::{Content, Oracle, Resident, SYSTEM, Seen, Verdict, ensure, is_hubs_own};
use crate::engine::Sight;
use crate::mallory::Order;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds that answers are true. `R` names a request at its provider.
#[derive(Debug)]
pub struct Answers<R = RequestId> {
    /// The ids clients ask for: a hub gives no other.
    ids: BTreeMap<NodeId, ClientId>,
    /// Who says things past its own machine: what it provides it may answer so.
    rogues: BTreeSet<NodeId>,
    calls: BTreeMap<(NodeId, Token), Content>,
    provided: BTreeMap<(NodeId, Token), (ChannelName, EventName, EventKind)>,
    /// Of each caller and content: how often it was called and may have been executed, and how often requested.
    counts: BTreeMap<(ClientId, Content), Count>,
    requests: BTreeMap<(NodeId, R), (ClientId, Content)>,
    /// Requests on a channel that their provider has left meanwhile: they go on without it.
    detached: BTreeSet<(NodeId, R)>,
    given: Vec<Given>,
    /// Requests for streams, which are judged elsewhere.
    streams: BTreeSet<(NodeId, R)>,
    /// Answered since all outputs were taken: the end of such a request may have been on its way.
    fresh: BTreeSet<(NodeId, R)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    called: u32,
    /// It may be asked again where a connection goes before its answer.
    repeats: bool,
    unexecuted: u32,
    requested: u32,
}

impl Count {
    const fn is_fine(self) -> bool {
        self.repeats || self.requested + self.unexecuted <= self.called
    }
}

#[derive(Debug)]
struct Given {
    to: ClientId,
    call: Content,
    by: ClientId,
    result: Result<Payload, Fault>,
}

impl<R> Default for Answers<R> {
    fn default() -> Self {
        Self {
            ids: BTreeMap::new(),
            calls: BTreeMap::new(),
            rogues: BTreeSet::new(),
            provided: BTreeMap::new(),
            counts: BTreeMap::new(),
            requests: BTreeMap::new(),
            detached: BTreeSet::new(),
            given: Vec::new(),
            streams: BTreeSet::new(),
            fresh: BTreeSet::new(),
        }
    }
}

impl Oracle for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn joined(&mut self, node: NodeId, who: &Resident) {
        self.ids.extend(who.id.clone().map(|id| (node, id)));
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Fed(Input::Command(Asked::Client(Command::Answer { request, result }))) => {
                self.gave(node, *request, result);
            }
            Sight::Fed(Input::Command(Asked::Client(command))) => self.asked(node, command),
            Sight::Fed(Input::Command(Asked::Malice(Order::Say(_)))) => {
                self.rogues.insert(node);
            }
            Sight::Gave(Output::Event(Told::Client(Event::Request(request)))) => {
                let Request { id, provider, message, .. } = request;
                return self.requested(node, *id, *provider, message);
            }
            Sight::Gave(Output::Event(Told::Client(Event::RequestEnded { request, .. }))) => {
                return self.request_ended(node, *request);
            }
            Sight::Gave(Output::Event(Told::Client(event))) => return self.told(node, event),
            Sight::Drained => self.fresh.retain(|(other, _)| *other != node),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

impl<R: Copy + Ord + Debug> Answers<R> {
    fn asked(&mut self, node: NodeId, command: &Command) {
        match command {
            Command::Provide { token, channel, event, kind } => {
                self.provided.insert((node, *token), (channel.clone(), event.clone(), *kind));
            }
            Command::Call { token, outgoing, .. } => {
                let content = Content::said(outgoing);
                if let Some(id) = self.ids.get(&node) {
                    let count = self.counts.entry((id.clone(), content.clone())).or_default();
                    count.called += 1;
                    count.repeats |= outgoing.idempotent && outgoing.away == Away::Repeat;
                }
                self.calls.insert((node, *token), content);
            }
            Command::Leave { channel, .. } => {
                let here =
                    self.requests.iter().filter(|((other, _), (_, asked))| *other == node && asked.channel == *channel);
                self.detached.extend(here.map(|(key, _)| *key));
            }
            Command::Connect
            | Command::KeyDerived(_)
            | Command::Stream(_)
            | Command::SetSecret(_)
            | Command::SetOwnerKey(_)
            | Command::Open { .. }
            | Command::ChannelKeyDerived { .. }
            | Command::ChannelKeyFailed { .. }
            | Command::Protect { .. }
            | Command::Unprotect { .. }
            | Command::Reclaim { .. }
            | Command::Terminate { .. }
            | Command::Withdraw { .. }
            | Command::Listen { .. }
            | Command::Unlisten { .. }
            | Command::Cancel { .. }
            | Command::Answer { .. }
            | Command::Send { .. }
            | Command::Broadcast { .. }
            | Command::Drain(_)
            | Command::Close => {}
        }
    }

    fn told(&mut self, node: NodeId, event: &Event) -> Verdict {
        match event {
            Event::Answered { token, result } => self.answered(node, *token, result),
            Event::Closed(_) => {
                let left = self.requests.keys().find(|(other, _)| *other == node);
                ensure(left.is_none(), || format!("{node:?} was told Closed while {left:?} was not told to have ended"))
            }
            Event::ChannelClosed { channel, .. } => {
                let here = |(other, _): &(NodeId, R), asked: &Content| *other == node && asked.channel == *channel;
                let detached = &self.detached;
                let left = self.requests.iter().find(|(key, (_, asked))| here(key, asked) && !detached.contains(key));
                // Its hub has had answers of it that its own machine knows nothing of.
                ensure(left.is_none() || self.rogues.contains(&node), || {
                    format!("{node:?} was told the end of {channel} while {left:?} was not told to have ended")
                })
            }
            Event::DeriveKey { .. }
            | Event::Stream(_)
            | Event::Reconnect(_)
            | Event::DeriveChannelKey { .. }
            | Event::OwnerChanged { .. }
            | Event::PasswordChanged { .. }
            | Event::Gap(_)
            | Event::Draining { .. }
            | Event::Ready(_)
            | Event::Done { .. }
            | Event::Sent { .. }
            | Event::Request(_)
            | Event::RequestEnded { .. }
            | Event::Message(_)
            | Event::Violation(_)
            | Event::Dropped(_) => Ok(()),
        }
    }

    fn gave(&mut self, node: NodeId, request: R, result: &Result<Payload, Fault>) {
        // A request that has ended is gone here too; then the answer has no effect.
        let (Some((to, call)), Some(by)) = (self.requests.remove(&(node, request)), self.ids.get(&node)) else {
            return;
        };
        self.fresh.insert((node, request));
        self.given.push(Given { to, call, by: by.clone(), result: result.clone() });
    }

    fn request_ended(&mut self, node: NodeId, request: R) -> Verdict {
        let known = self.requests.remove(&(node, request)).is_some()
            || self.fresh.remove(&(node, request))
            || self.streams.contains(&(node, request));
        ensure(known, || format!("{node:?} was told the end of {request:?}, which it did not have"))
    }

    fn requested(&mut self, node: NodeId, request: R, provider: Token, heard: &Incoming) -> Verdict {
        let wanted = self.provided.get(&(node, provider));
        let fits = wanted.is_some_and(|(channel, event, _)| *channel == heard.channel && *event == heard.event);
        ensure(fits, || format!("{node:?} was asked {heard:?} as {provider:?}, which is {wanted:?}"))?;
        if wanted.is_some_and(|(_, _, kind)| kind.streams()) {
            self.streams.insert((node, request));
            return Ok(());
        }
        let key = (heard.sender.client.clone(), Content::heard(heard));
        let count = self.counts.entry(key.clone()).or_default();
        count.requested += 1;
        ensure(count.is_fine(), || {
            format!("{node:?} was asked twice, in vain or what nobody called: {heard:?} ({count:?})")
        })?;
        let before = self.requests.insert((node, request), key);
        ensure(before.is_none(), || format!("{request:?} of {node:?} stands for two requests"))
    }

    fn answered(&mut self, node: NodeId, token: Token, result: &Result<Answer, CallFailure>) -> Verdict {
        let Some(call) = self.calls.remove(&(node, token)) else { return Ok(()) };
        // The hub answers on its own channels, and nobody else does there.
        if is_hubs_own(&call.channel) {
            let by = result.as_ref().map_or(SYSTEM, |answer| answer.provider.client.as_str());
            return ensure(by == SYSTEM, || format!("{node:?} was answered {call:?} by {by:?}"));
        }
        let by = |given: &Given, provider: &ClientId| given.by == *provider;
        match result {
            Ok(Answer { provider, .. }) if self.may_make_up(&call, Some(&provider.client)) => Ok(()),
            Err(CallFailure::Fault(_)) if self.may_make_up(&call, None) => Ok(()),
            Ok(Answer { payload, provider, .. }) => {
                self.was_given(node, &call, |given| by(given, &provider.client) && given.result.as_ref() == Ok(payload))
            }
            Err(CallFailure::Fault(fault)) if fault.code == FaultCode::Stale.code() => Ok(()),
            Err(CallFailure::Fault(fault)) => self.was_given(node, &call, |given| given.result.as_ref() == Err(fault)),
            Err(CallFailure::Failed { maybe_executed: false, failure }) => {
                let Some(id) = self.ids.get(&node) else { return Ok(()) };
                let Some(count) = self.counts.get_mut(&(id.clone(), call)) else { return Ok(()) };
                count.unexecuted += 1;
                ensure(count.is_fine(), || {
                    format!("{token:?} of {node:?} ended unexecuted ({failure}), but its provider was asked")
                })
            }
            Err(CallFailure::Failed { maybe_executed: true, .. }) => Ok(()),
        }
    }

    /// Whether this client, or any, provides what was called and says things past its own machine.
    fn may_make_up(&self, call: &Content, who: Option<&ClientId>) -> bool {
        self.provided.iter().any(|((node, _), (channel, event, _))| {
            let named = who.is_none_or(|who| self.ids.get(node) == Some(who));
            named && self.rogues.contains(node) && (channel, event) == (&call.channel, &call.event)
        })
    }

    /// Somebody gave this answer for this call; it is used up.
    fn was_given(&mut self, node: NodeId, call: &Content, fits: impl Fn(&Given) -> bool) -> Verdict {
        let caller = self.ids.get(&node);
        let index = self.given.iter().position(|given| caller == Some(&given.to) && given.call == *call && fits(given));
        match index {
            Some(index) => {
                self.given.swap_remove(index);
                Ok(())
            }
            None => Err(format!("{node:?} got an answer to {call:?} that its provider did not give, or gave once")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{address, call, channel, event, id, incoming, payload};
    use super::*;
    use bytes::Bytes;
    use commipc_protocol::Refusal;
    use commipc_protocol::client::Failure;

    const CALLER: NodeId = NodeId::new(1);
    const PROVIDER: NodeId = NodeId::new(2);

    fn scene() -> Answers<u8> {
        let mut answers = Answers::default();
        answers.ids.extend((1..4).map(|node| (NodeId::new(node), id(node))));
        let provide = Command::Provide { token: Token(5), channel: channel(), event: event(), kind: EventKind::Call };
        answers.asked(PROVIDER, &provide);
        answers.asked(CALLER, &call(1, "q"));
        answers
    }

    fn request(answers: &mut Answers<u8>, id: u8, text: &'static str) -> Verdict {
        answers.requested(PROVIDER, id, Token(5), &incoming(1, text))
    }

    fn answer(answers: &mut Answers<u8>, by: u32, text: &'static str) -> Verdict {
        let answer =
            Answer { payload: payload(text), provider: address(by), metadata: Bytes::new(), hops: 1, path: Vec::new() };
        answers.told(CALLER, &Event::Answered { token: Token(1), result: Ok(answer) })
    }

    fn fail(answers: &mut Answers<u8>, maybe_executed: bool) -> Verdict {
        let failure = Failure::Refused(Refusal::NoProvider);
        let result = Err(CallFailure::Failed { failure, maybe_executed });
        answers.told(CALLER, &Event::Answered { token: Token(1), result })
    }

    #[test]
    fn bites_on_forged_answers() {
        let forged = |by, text| {
            let mut answers = scene();
            request(&mut answers, 1, "q").unwrap();
            answers.gave(PROVIDER, 1, &Ok(payload("a")));
            answer(&mut answers, by, text)
        };
        assert!(forged(2, "a").is_ok());
        assert!(forged(2, "b").is_err(), "other words");
        assert!(forged(3, "a").is_err(), "another provider");
        assert!(answer(&mut scene(), 2, "a").is_err(), "never asked");
    }

    #[test]
    fn bites_on_requests_without_a_call() {
        let mut twice = scene();
        request(&mut twice, 1, "q").unwrap();
        assert!(request(&mut twice, 2, "q").is_err());
        assert!(request(&mut scene(), 1, "x").is_err());
        assert!(scene().request_ended(PROVIDER, 1).is_err());
        assert!(twice.told(PROVIDER, &Event::Closed(commipc_protocol::CloseReason::Lost)).is_err());
        let mut ended = scene();
        request(&mut ended, 1, "q").unwrap();
        ended.gave(PROVIDER, 1, &Ok(payload("a")));
        ended.request_ended(PROVIDER, 1).unwrap();
        assert!(ended.request_ended(PROVIDER, 1).is_err(), "ended twice");
    }

    #[test]
    fn s20_bites_on_a_request_that_outlives_its_channel() {
        let mut scene = scene();
        request(&mut scene, 1, "q").unwrap();
        let closed = |channel| Event::ChannelClosed { channel, why: Failure::Refused(Refusal::Terminated) };
        scene.told(PROVIDER, &closed(ChannelName::new("other").unwrap())).unwrap();
        scene.told(CALLER, &closed(channel())).unwrap();
        assert!(scene.told(PROVIDER, &closed(channel())).is_err());
        scene.request_ended(PROVIDER, 1).unwrap();
        assert!(scene.told(PROVIDER, &closed(channel())).is_ok());
    }

    #[test]
    fn bites_on_a_false_claim_that_nothing_was_executed() {
        let mut after = scene();
        request(&mut after, 1, "q").unwrap();
        assert!(fail(&mut after, false).is_err());
        let mut before = scene();
        fail(&mut before, false).unwrap();
        assert!(request(&mut before, 1, "q").is_err());
        let mut honest = scene();
        request(&mut honest, 1, "q").unwrap();
        assert!(fail(&mut honest, true).is_ok());
    }
}
