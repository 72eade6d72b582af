//! Nobody waits for somebody who is gone: a call ends when its provider's connection does, and a handler is told when
//! its caller's does, or when the caller gives up. Deadlines are for the silent, not for the dead; and they are kept.

use std::collections::BTreeMap;
use std::fmt::Debug;

use commipc_protocol::client::{CallFailure, Command, Event, Failure, Incoming, Request, RequestId, Token};
use commipc_protocol::{ClientId, Input, Instant, LinkId, Misuse, Output, Refusal, hub};
use core::time::Duration;

use super::{Content, Oracle, Resident, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds that what hangs on a lost connection ends with it. `R` names a request at its provider.
#[derive(Debug)]
pub struct Endings<R = RequestId> {
    ids: BTreeMap<NodeId, ClientId>,
    /// Of each hub's end, the client's node.
    dialled_by: BTreeMap<(NodeId, LinkId), NodeId>,
    calls: BTreeMap<(NodeId, Token), Call>,
    requests: BTreeMap<(NodeId, R), Asking>,
}

#[derive(Debug)]
struct Call {
    content: Content,
    asked: Instant,
    deadline: Instant,
    provider_gone: Option<Instant>,
}

#[derive(Debug)]
struct Asking {
    caller: ClientId,
    content: Content,
    since: Instant,
    caller_gone: Option<Instant>,
}

/// Longer than the news takes on the slowest line behind the fullest outbox, twice.
const NEWS: Duration = Duration::from_secs(40);
/// How old the time may be that a driver hands in.
const OLDEST_READING: Duration = Duration::from_millis(1);
/// How late drivers may be with a timeout and with what comes of it, and more.
const LATE: Duration = Duration::from_secs(1);

impl<R> Default for Endings<R> {
    fn default() -> Self {
        let (ids, dialled_by) = (BTreeMap::new(), BTreeMap::new());
        Self { ids, dialled_by, calls: BTreeMap::new(), requests: BTreeMap::new() }
    }
}

impl Oracle for Endings {
    fn name(&self) -> &'static str {
        "endings"
    }

    fn joined(&mut self, node: NodeId, who: &Resident) {
        self.ids.extend(who.id.clone().map(|id| (node, id)));
    }

    fn stands_still(&mut self, node: NodeId, by: Duration) {
        let of_it = self.calls.range_mut((node, Token(0))..=(node, Token(u64::MAX)));
        of_it.for_each(|(_, call)| call.deadline = call.deadline + by);
    }

    fn saw(&mut self, at: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Linked { with, as_link, .. } => {
                self.dialled_by.insert((*with, *as_link), node);
            }
            Sight::Fed(Input::Command(Asked::Client(Command::Answer { request, .. }))) => {
                self.requests.remove(&(node, *request));
            }
            Sight::Fed(Input::Command(Asked::Client(command))) => self.asked(at, node, command),
            Sight::Gave(Output::Event(Told::Client(Event::Request(request)))) => {
                let Request { id, message, .. } = request;
                self.requested(at, node, *id, message);
            }
            Sight::Gave(Output::Event(Told::Client(Event::RequestEnded { request, why }))) => {
                return self.request_ended(at, node, *request, *why);
            }
            Sight::Gave(Output::Event(Told::Client(event))) => return self.told(at, node, event),
            Sight::Gave(Output::Event(Told::Hub(hub::Event::Disconnected { link, .. }))) => {
                if let Some(client) = self.dialled_by.get(&(node, *link)).copied() {
                    self.lost(at, client);
                }
            }
            Sight::Fed(_) | Sight::Gave(_) | Sight::Drained | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

impl<R: Copy + Ord + Debug> Endings<R> {
    fn asked(&mut self, at: Instant, node: NodeId, command: &Command) {
        if let Command::Call { token, outgoing, time_left } = command {
            let (content, deadline) = (Content::said(outgoing), at + *time_left);
            self.calls.insert((node, *token), Call { content, asked: at, deadline, provider_gone: None });
        }
        if let Command::Cancel { call } = command
            && let Some(given_up) = self.calls.get(&(node, *call))
            && let Some(id) = self.ids.get(&node)
        {
            let same = |((caller, _), call): &(&(NodeId, Token), &Call)| {
                self.ids.get(caller) == Some(id) && call.content == given_up.content
            };
            // Of two calls that say the same, either may be meant.
            let alone = self.calls.iter().filter(same).count() == 1;
            let mut meant: Vec<_> = self.requests.values_mut().filter(|asking| asking.is_of(id, given_up)).collect();
            if let [only] = meant.as_mut_slice()
                && alone
            {
                only.caller_gone.get_or_insert(at);
            }
        }
    }

    fn requested(&mut self, at: Instant, node: NodeId, request: R, heard: &Incoming) {
        let (caller, content) = (heard.sender.client.clone(), Content::heard(heard));
        self.requests.insert((node, request), Asking { caller, content, since: at, caller_gone: None });
    }

    /// A hub has told that a client's connection is over.
    fn lost(&mut self, at: Instant, client: NodeId) {
        let Self { ids, calls, requests, .. } = self;
        for ((provider, _), asking) in requests {
            if ids.get(&client) == Some(&asking.caller) {
                asking.caller_gone.get_or_insert(at);
            }
            if *provider == client {
                let of_it = |node: &NodeId, call: &Call| ids.get(node).is_some_and(|id| asking.is_of(id, call));
                let mut meant: Vec<_> = calls.iter_mut().filter(|((node, _), call)| of_it(node, call)).collect();
                if let [(_, only)] = meant.as_mut_slice() {
                    only.provider_gone.get_or_insert(at);
                }
            }
        }
    }

    fn request_ended(&mut self, at: Instant, node: NodeId, request: R, why: Failure) -> Verdict {
        let Some(asking) = self.requests.remove(&(node, request)) else { return Ok(()) };
        let late = why == Failure::Refused(Refusal::Deadline) && is_late(at, asking.caller_gone);
        ensure(!late, || format!("{request:?} of {node:?} ended only at its deadline; its caller: {asking:?}"))
    }

    fn told(&mut self, at: Instant, node: NodeId, event: &Event) -> Verdict {
        let Event::Answered { token, result } = event else { return Ok(()) };
        let Some(call) = self.calls.remove(&(node, *token)) else { return Ok(()) };
        ensure(at <= call.deadline + LATE, || format!("{token:?} of {node:?} outlived its deadline: {call:?}"))?;
        let Err(CallFailure::Failed { failure, .. }) = result else { return Ok(()) };
        ensure(*failure != Failure::Refused(Refusal::Deadline), || {
            format!("{token:?} of {node:?} was ended by the clock of its hub: {call:?}")
        })?;
        if *failure != Failure::Local(Misuse::Deadline) {
            return Ok(());
        }
        let early = at + OLDEST_READING < call.deadline;
        ensure(!early, || format!("{token:?} of {node:?} was told its deadline too early: {call:?}"))?;
        let late = is_late(at, call.provider_gone);
        ensure(!late, || format!("{token:?} of {node:?} ended only at its deadline; its provider: {call:?}"))
    }
}

impl Asking {
    /// Whether it may be this call of this client: nothing is heard before it was asked.
    fn is_of(&self, caller: &ClientId, call: &Call) -> bool {
        self.caller == *caller && self.content == call.content && call.asked <= self.since
    }
}

fn is_late(at: Instant, gone: Option<Instant>) -> bool {
    gone.is_some_and(|gone| at.saturating_since(gone) > NEWS)
}

#[cfg(test)]
mod tests {
    use super::super::scene::{id, incoming, outgoing};
    use super::*;

    const CALLER: NodeId = NodeId::new(1);
    const PROVIDER: NodeId = NodeId::new(2);

    fn second(second: u64) -> Instant {
        Instant::from_nanos(second * 1_000_000_000)
    }

    /// A call of the caller, for a minute, that the provider works on.
    fn scene() -> Endings<u8> {
        let mut endings = Endings::default();
        endings.ids.extend((1..4).map(|node| (NodeId::new(node), id(node))));
        let time_left = Duration::from_secs(60);
        let call = Command::Call { token: Token(1), outgoing: outgoing("q"), time_left };
        endings.asked(second(0), CALLER, &call);
        endings.requested(second(1), PROVIDER, 7, &incoming(1, "q"));
        endings
    }

    /// Another call of the same words, which its provider has not heard of.
    fn asked_again(endings: &mut Endings<u8>) {
        let again = Command::Call { token: Token(2), outgoing: outgoing("q"), time_left: Duration::from_secs(60) };
        endings.asked(second(2), CALLER, &again);
    }

    fn expires(endings: &mut Endings<u8>, at: u64) -> Verdict {
        let failed = CallFailure::Failed { failure: Failure::Local(Misuse::Deadline), maybe_executed: true };
        endings.told(second(at), CALLER, &Event::Answered { token: Token(1), result: Err(failed) })
    }

    #[test]
    fn v26_bites_on_a_call_that_waits_for_a_dead_provider() {
        assert!(expires(&mut scene(), 60).is_ok(), "the provider is there");
        for (lost, fine) in [(50, true), (2, false)] {
            let mut endings = scene();
            endings.lost(second(lost), PROVIDER);
            assert_eq!(expires(&mut endings, 60).is_ok(), fine);
        }
        let mut other = scene();
        other.lost(second(2), NodeId::new(3));
        assert!(expires(&mut other, 60).is_ok(), "somebody else was lost");
    }

    #[test]
    fn bites_on_a_deadline_that_is_not_kept() {
        assert!(expires(&mut scene(), 59).is_err(), "too early");
        assert!(expires(&mut scene(), 60).is_ok());
        assert!(expires(&mut scene(), 62).is_err(), "too late");
    }

    #[test]
    fn s49_bites_on_a_handler_that_is_not_told() {
        let deadline = Failure::Refused(Refusal::Deadline);
        let mut lost = scene();
        lost.lost(second(2), CALLER);
        assert!(lost.request_ended(second(60), PROVIDER, 7, deadline).is_err());
        let mut cancelled = scene();
        cancelled.asked(second(2), CALLER, &Command::Cancel { call: Token(1) });
        assert!(cancelled.request_ended(second(60), PROVIDER, 7, deadline).is_err());
        assert!(scene().request_ended(second(60), PROVIDER, 7, deadline).is_ok());
        let mut told = scene();
        told.lost(second(2), CALLER);
        assert!(told.request_ended(second(3), PROVIDER, 7, Failure::Refused(Refusal::CallerGone)).is_ok());
    }

    #[test]
    fn one_call_given_up_is_not_another_of_the_same_words() {
        let deadline = Failure::Refused(Refusal::Deadline);
        let mut other = scene();
        asked_again(&mut other);
        other.asked(second(3), CALLER, &Command::Cancel { call: Token(2) });
        assert!(other.request_ended(second(60), PROVIDER, 7, deadline).is_ok(), "it was the other one");
        let mut answered = scene();
        asked_again(&mut answered);
        let done = CallFailure::Failed { failure: Failure::Local(Misuse::Cancelled), maybe_executed: true };
        answered.told(second(3), CALLER, &Event::Answered { token: Token(1), result: Err(done) }).unwrap();
        answered.lost(second(4), PROVIDER);
        let late = CallFailure::Failed { failure: Failure::Local(Misuse::Deadline), maybe_executed: true };
        let told = Event::Answered { token: Token(2), result: Err(late) };
        assert!(answered.told(second(62), CALLER, &told).is_ok(), "that provider never heard of it");
    }
}
