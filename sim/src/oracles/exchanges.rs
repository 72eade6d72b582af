//! Signed calls: an answer was given by a member, for this call, under the same protection; and that nothing was executed
//! is nothing that a hub can say.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::client::{Answer, CallFailure, Failure, Payload, RequestId, Token};
use commipc_protocol::{ChannelName, ClientId, Fault, FaultCode};

use super::{Content, Salt, Verdict, ensure};
use crate::node::NodeId;

/// Calls, requests and answers as applications see them. `R` names a request at its provider.
#[derive(Debug)]
pub(super) struct Exchanges<R = RequestId> {
    calls: BTreeMap<(NodeId, Token), Call>,
    requests: BTreeMap<(NodeId, R), (ClientId, Content)>,
    given: Vec<Given>,
    /// What was said since a node's outputs were drained: a change that is told now may be older than it.
    fresh_calls: BTreeSet<(NodeId, Token)>,
    fresh_answers: BTreeSet<(NodeId, usize)>,
    /// Calls that may wait for a connection, and so be made under whatever holds then.
    waiting: BTreeSet<(NodeId, Token)>,
}

/// Under which protection something was said, or none. More than one where that changed at the same time.
type Under = Vec<Option<Salt>>;

#[derive(Debug)]
struct Call {
    content: Content,
    under: Under,
}

#[derive(Debug)]
struct Given {
    to: ClientId,
    call: Content,
    by: NodeId,
    result: Result<Payload, Fault>,
    under: Under,
    used: bool,
}

impl<R> Default for Exchanges<R> {
    fn default() -> Self {
        Self {
            calls: BTreeMap::new(),
            requests: BTreeMap::new(),
            given: Vec::new(),
            fresh_calls: BTreeSet::new(),
            fresh_answers: BTreeSet::new(),
            waiting: BTreeSet::new(),
        }
    }
}

impl<R: Copy + Ord> Exchanges<R> {
    pub(super) fn called(&mut self, node: NodeId, token: Token, content: Content, sealed: Option<Salt>) {
        self.calls.insert((node, token), Call { content, under: vec![sealed] });
        self.fresh_calls.insert((node, token));
    }

    pub(super) fn waits(&mut self, node: NodeId, token: Token) {
        self.waiting.insert((node, token));
    }

    pub(super) fn requested(&mut self, node: NodeId, request: R, caller: ClientId, content: Content) {
        self.requests.insert((node, request), (caller, content));
    }

    pub(super) fn channel_of(&self, node: NodeId, request: R) -> Option<ChannelName> {
        self.requests.get(&(node, request)).map(|(_, content)| content.channel.clone())
    }

    pub(super) fn gave(&mut self, node: NodeId, request: R, result: &Result<Payload, Fault>, sealed: Option<Salt>) {
        let Some((to, call)) = self.requests.remove(&(node, request)) else { return };
        self.fresh_answers.insert((node, self.given.len()));
        self.given.push(Given { to, call, by: node, result: result.clone(), under: vec![sealed], used: false });
    }

    /// What a node signs under changes; what was said just now may have been said after it.
    pub(super) fn sealed(&mut self, node: NodeId, channel: &ChannelName, sealed: Option<Salt>) {
        for key in self.fresh_calls.union(&self.waiting).filter(|(caller, _)| *caller == node) {
            if let Some(call) = self.calls.get_mut(key).filter(|call| call.content.channel == *channel) {
                call.under.push(sealed);
            }
        }
        for (_, index) in self.fresh_answers.iter().filter(|(provider, _)| *provider == node) {
            if let Some(given) = self.given.get_mut(*index).filter(|given| given.call.channel == *channel) {
                given.under.push(sealed);
            }
        }
    }

    pub(super) fn drained(&mut self, node: NodeId) {
        self.fresh_calls.retain(|(caller, _)| *caller != node);
        self.fresh_answers.retain(|(provider, _)| *provider != node);
    }

    pub(super) fn answered(
        &mut self,
        node: NodeId,
        token: Token,
        result: &Result<Answer, CallFailure>,
        ids: &BTreeMap<NodeId, ClientId>,
    ) -> Verdict {
        let Some(call) = self.calls.remove(&(node, token)) else { return Ok(()) };
        if call.under.contains(&None) {
            return Ok(());
        }
        let fits = |given: &Given| match result {
            Ok(answer) => {
                given.result.as_ref() == Ok(&answer.payload) && ids.get(&given.by) == Some(&answer.provider.client)
            }
            Err(CallFailure::Fault(fault)) => given.result.as_ref() == Err(fault),
            Err(CallFailure::Failed { .. }) => false,
        };
        match result {
            Err(
                CallFailure::Failed { failure: Failure::Local(_), .. }
                | CallFailure::Failed { maybe_executed: true, .. },
            ) => Ok(()),
            Err(CallFailure::Failed { failure, .. }) => {
                Err(format!("{token:?} of {node:?} is said not to be executed ({failure}), which nobody can know"))
            }
            Err(CallFailure::Fault(fault)) if fault.code == FaultCode::Stale.code() => Ok(()),
            Ok(_) | Err(CallFailure::Fault(_)) => {
                let to = ids.get(&node);
                let mut given = self.given.iter_mut().filter(|given| {
                    let same = given.under.iter().any(|salt| call.under.contains(salt));
                    !given.used && same && Some(&given.to) == to && given.call == call.content
                });
                let found = given.find(|given| fits(given)).map(|given| given.used = true);
                ensure(found.is_some(), || {
                    format!("{node:?} accepted an answer to {call:?} that no member gave: {result:?}")
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{address, id, outgoing, payload};
    use super::*;
    use bytes::Bytes;
    use commipc_protocol::Refusal;

    const CALLER: NodeId = NodeId::new(1);
    const PROVIDER: NodeId = NodeId::new(2);
    const SALT: Option<Salt> = Some([1; 16]);

    fn scene(call: Option<Salt>, answer: Option<Salt>) -> Exchanges<u8> {
        let mut exchanges = Exchanges::default();
        let content = Content::said(&outgoing("q"));
        exchanges.called(CALLER, Token(1), content.clone(), call);
        exchanges.drained(CALLER);
        exchanges.requested(PROVIDER, 1, id(1), content);
        exchanges.gave(PROVIDER, 1, &Ok(payload("a")), answer);
        exchanges.drained(PROVIDER);
        exchanges
    }

    fn ended(exchanges: &mut Exchanges<u8>, token: u64, result: &Result<Answer, CallFailure>) -> Verdict {
        let ids = (1..4).map(|node| (NodeId::new(node), id(node))).collect();
        exchanges.answered(CALLER, Token(token), result, &ids)
    }

    fn answer(by: u32, text: &'static str) -> Result<Answer, CallFailure> {
        Ok(Answer { payload: payload(text), provider: address(by), metadata: Bytes::new(), hops: 1, path: Vec::new() })
    }

    #[test]
    fn v4_bites_on_an_answer_that_no_member_gave() {
        assert!(ended(&mut scene(SALT, SALT), 1, &answer(2, "a")).is_ok());
        assert!(ended(&mut scene(SALT, SALT), 1, &answer(2, "b")).is_err(), "other words");
        assert!(ended(&mut scene(SALT, SALT), 1, &answer(3, "a")).is_err(), "of another member");
        assert!(ended(&mut scene(SALT, None), 1, &answer(2, "a")).is_err(), "unsigned");
        assert!(ended(&mut scene(SALT, Some([2; 16])), 1, &answer(2, "a")).is_err(), "of another time");
        let fault = Err(CallFailure::Fault(FaultCode::HandlerFailed.into()));
        assert!(ended(&mut scene(SALT, SALT), 1, &fault).is_err());
        assert!(ended(&mut scene(None, None), 1, &answer(2, "b")).is_ok(), "nothing holds where nothing is signed");
    }

    #[test]
    fn v7_bites_on_an_answer_to_another_call() {
        let mut swapped = scene(SALT, SALT);
        swapped.called(CALLER, Token(2), Content::said(&outgoing("other")), SALT);
        assert!(ended(&mut swapped, 2, &answer(2, "a")).is_err());
        let mut twice = scene(SALT, SALT);
        twice.called(CALLER, Token(2), Content::said(&outgoing("q")), SALT);
        ended(&mut twice, 1, &answer(2, "a")).unwrap();
        assert!(ended(&mut twice, 2, &answer(2, "a")).is_err(), "given once");
    }

    #[test]
    fn bites_on_a_claim_that_nothing_was_executed() {
        let failure = Failure::Refused(Refusal::NoProvider);
        let failed = |maybe_executed| Err(CallFailure::Failed { failure, maybe_executed });
        assert!(ended(&mut scene(SALT, SALT), 1, &failed(true)).is_ok());
        assert!(ended(&mut scene(SALT, SALT), 1, &failed(false)).is_err());
    }
}
