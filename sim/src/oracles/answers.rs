//! Calls: every request stands for a call, every accepted answer was given by the called provider for that call, and
//! what "was not executed" was not.

use std::collections::BTreeMap;

use commipc_protocol::client::{Answer, CallFailure, Command, Event, Payload, Request, RequestId, Token};
use commipc_protocol::{ChannelName, ClientId, EventName, Fault, FaultCode, Input, Instant, Output};

use super::{Content, Oracle, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds that answers are true.
#[derive(Debug, Default)]
pub struct Answers {
    ids: BTreeMap<NodeId, ClientId>,
    calls: BTreeMap<(NodeId, Token), Content>,
    provided: BTreeMap<(NodeId, Token), (ChannelName, EventName)>,
    /// Of each caller and content: how often it was called and may have been executed, and how often requested.
    counts: BTreeMap<(ClientId, Content), Count>,
    requests: BTreeMap<(NodeId, RequestId), (ClientId, Content)>,
    given: Vec<Given>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    called: u32,
    unexecuted: u32,
    requested: u32,
}

#[derive(Debug)]
struct Given {
    to: ClientId,
    call: Content,
    by: ClientId,
    result: Result<Payload, Fault>,
}

impl Oracle for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Fed(Input::Command(Asked::Client(command))) => self.asked(node, command),
            Sight::Gave(Output::Event(Told::Client(event))) => return self.told(node, event),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Drained | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

impl Answers {
    fn asked(&mut self, node: NodeId, command: &Command) {
        match command {
            Command::Provide { token, channel, event, .. } => {
                self.provided.insert((node, *token), (channel.clone(), event.clone()));
            }
            Command::Call { token, outgoing, .. } => {
                let content = Content::said(outgoing);
                if let Some(id) = self.ids.get(&node) {
                    self.counts.entry((id.clone(), content.clone())).or_default().called += 1;
                }
                self.calls.insert((node, *token), content);
            }
            Command::Answer { request, result } => {
                // A request that has ended is gone here too; then the answer has no effect.
                let (Some((to, call)), Some(by)) = (self.requests.remove(&(node, *request)), self.ids.get(&node)) else {
                    return;
                };
                self.given.push(Given { to, call, by: by.clone(), result: result.clone() });
            }
            Command::Connect
            | Command::KeyDerived(_)
            | Command::Open { .. }
            | Command::Leave { .. }
            | Command::Withdraw { .. }
            | Command::Listen { .. }
            | Command::Unlisten { .. }
            | Command::Cancel { .. }
            | Command::Send { .. }
            | Command::Broadcast { .. }
            | Command::Close => {}
        }
    }

    fn told(&mut self, node: NodeId, event: &Event) -> Verdict {
        match event {
            Event::Ready(welcome) => {
                self.ids.insert(node, welcome.client.clone());
                Ok(())
            }
            Event::Request(request) => self.requested(node, request),
            Event::RequestEnded { request, .. } => {
                let known = self.requests.remove(&(node, *request));
                ensure(known.is_some(), || format!("{node:?} was told the end of {request:?}, which it did not have"))
            }
            Event::Answered { token, result } => self.answered(node, *token, result),
            Event::Closed(_) => {
                let left = self.requests.keys().find(|(other, _)| *other == node);
                ensure(left.is_none(), || format!("{node:?} was told Closed while {left:?} was not told to have ended"))
            }
            Event::DeriveKey { .. }
            | Event::Done { .. }
            | Event::Sent { .. }
            | Event::Message(_)
            | Event::Violation(_)
            | Event::Dropped(_) => Ok(()),
        }
    }

    fn requested(&mut self, node: NodeId, request: &Request) -> Verdict {
        let heard = &request.message;
        let wanted = self.provided.get(&(node, request.provider));
        let fits = wanted.is_some_and(|(channel, event)| *channel == heard.channel && *event == heard.event);
        ensure(fits, || format!("{node:?} was asked {heard:?} as {:?}, which is {wanted:?}", request.provider))?;
        let key = (heard.sender.client.clone(), Content::heard(heard));
        let count = self.counts.entry(key.clone()).or_default();
        count.requested += 1;
        ensure(count.requested + count.unexecuted <= count.called, || {
            format!("{node:?} was asked twice, in vain or what nobody called: {heard:?} ({count:?})")
        })?;
        let before = self.requests.insert((node, request.id), key);
        ensure(before.is_none(), || format!("{:?} of {node:?} stands for two requests", request.id))
    }

    fn answered(&mut self, node: NodeId, token: Token, result: &Result<Answer, CallFailure>) -> Verdict {
        let Some(call) = self.calls.remove(&(node, token)) else { return Ok(()) };
        let by = |given: &Given, provider: &ClientId| given.by == *provider;
        match result {
            Ok(Answer { payload, provider, .. }) => self.was_given(node, &call, |given| {
                by(given, &provider.client) && given.result.as_ref() == Ok(payload)
            }),
            Err(CallFailure::Fault(fault)) if fault.code == FaultCode::Stale.code() => Ok(()),
            Err(CallFailure::Fault(fault)) => self.was_given(node, &call, |given| given.result.as_ref() == Err(fault)),
            Err(CallFailure::Failed { maybe_executed: false, failure }) => {
                let Some(id) = self.ids.get(&node) else { return Ok(()) };
                let Some(count) = self.counts.get_mut(&(id.clone(), call)) else { return Ok(()) };
                count.unexecuted += 1;
                ensure(count.requested + count.unexecuted <= count.called, || {
                    format!("{token:?} of {node:?} ended unexecuted ({failure}), but its provider was asked")
                })
            }
            Err(CallFailure::Failed { maybe_executed: true, .. }) => Ok(()),
        }
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
    use super::super::scene::{Scene, address, call, channel, event, incoming, payload};
    use super::*;
    use bytes::Bytes;
    use commipc_protocol::client::{EventKind, Failure};
    use commipc_protocol::{Misuse, Refusal};

    /// The only request id that can be had without a machine.
    fn request_id() -> RequestId {
        RequestId::from_raw(0)
    }

    fn request(text: &'static str) -> Event {
        Event::Request(Request {
            id: request_id(),
            provider: Token(5),
            message: incoming(1, text),
            deadline: Instant::ZERO,
            idempotent: false,
        })
    }

    fn answer(by: u32, text: &'static str) -> Event {
        let answer = Answer { payload: payload(text), provider: address(by), metadata: Bytes::new(), hops: 1 };
        Event::Answered { token: Token(1), result: Ok(answer) }
    }

    fn failed(maybe_executed: bool) -> Event {
        let failure = Failure::Refused(Refusal::NoProvider);
        Event::Answered { token: Token(1), result: Err(CallFailure::Failed { failure, maybe_executed }) }
    }

    fn scene() -> Scene<Answers> {
        let mut scene = Scene::new(Answers::default());
        (1..3).for_each(|node| scene.connects(node).unwrap());
        let provide = Command::Provide { token: Token(5), channel: channel(), event: event(), kind: EventKind::Call };
        scene.asks(2, provide).unwrap();
        scene.asks(1, call(1, "q")).unwrap();
        scene
    }

    #[test]
    fn a_given_answer_is_fine() {
        let mut scene = scene();
        scene.tells(2, request("q")).unwrap();
        scene.asks(2, Command::Answer { request: request_id(), result: Ok(payload("a")) }).unwrap();
        scene.tells(1, answer(2, "a")).unwrap();
    }

    #[test]
    fn bites_on_forged_answers() {
        let forged = |by, text| {
            let mut scene = scene();
            scene.tells(2, request("q")).unwrap();
            scene.asks(2, Command::Answer { request: request_id(), result: Ok(payload("a")) }).unwrap();
            scene.tells(1, answer(by, text))
        };
        assert!(forged(2, "a").is_ok());
        assert!(forged(2, "b").is_err(), "other words");
        assert!(forged(3, "a").is_err(), "another provider");
        assert!(scene().tells(1, answer(2, "a")).is_err(), "never asked");
    }

    #[test]
    fn bites_on_requests_without_a_call() {
        let mut twice = scene();
        twice.tells(2, request("q")).unwrap();
        assert!(twice.tells(2, request("q")).is_err());
        assert!(scene().tells(2, request("x")).is_err());
        let ended = Event::RequestEnded { request: request_id(), why: Failure::Local(Misuse::Cancelled) };
        assert!(scene().tells(2, ended).is_err());
    }

    #[test]
    fn bites_on_a_false_claim_that_nothing_was_executed() {
        let mut after = scene();
        after.tells(2, request("q")).unwrap();
        assert!(after.tells(1, failed(false)).is_err());
        let mut before = scene();
        before.tells(1, failed(false)).unwrap();
        assert!(before.tells(2, request("q")).is_err());
        let mut honest = scene();
        honest.tells(2, request("q")).unwrap();
        assert!(honest.tells(1, failed(true)).is_ok());
    }
}
