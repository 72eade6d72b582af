//! Streams past a hub that is honest: each item once and in order, an end for each, and nobody who waits for somebody who
//! is gone.
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else is said is no matter of streams")]

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::client::{CallFailure, Command, Event, EventKind, Failure, StreamCommand, StreamEvent, Token};
use commipc_protocol::client::{Incoming, RequestId, StreamId};
use commipc_protocol::{ClientId, FaultCode, Input, Instant, Misuse, Output, Refusal};
use core::time::Duration;

use super::flows::{End, Ending, Flows, LATE};
use super::{Content, Oracle, Resident, Salt, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::mallory::Order;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds that a stream is what was given, at the pace of whoever takes it.
#[derive(Debug)]
pub struct Streams {
    flows: Flows,
    /// Of each caller and content: how often it was asked and may have been heard, and how often it was.
    counts: BTreeMap<(ClientId, Content), Count>,
    /// Who says things past its own machine, which then knows nothing of what it has ended; and who is no more.
    deaf: BTreeSet<NodeId>,
    /// Whether it is judged when things come.
    timed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    asked: u32,
    unexecuted: u32,
    requested: u32,
}

impl Default for Streams {
    fn default() -> Self {
        Self { flows: Flows::trusting(), counts: BTreeMap::new(), deaf: BTreeSet::new(), timed: true }
    }
}

/// Past an honest hub everything counts as if one key had signed it.
const TRUSTED: Option<Salt> = Some([0; 16]);
/// Longer than the news takes on the slowest line behind the fullest outbox, twice.
const NEWS: Duration = Duration::from_secs(40);
/// How old the time may be that a driver hands in.
const OLDEST_READING: Duration = Duration::from_millis(1);

impl Oracle for Streams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn joined(&mut self, node: NodeId, who: &Resident) {
        self.flows.ids.extend(who.id.clone().map(|id| (node, id)));
    }

    fn saw(&mut self, at: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Fed(Input::Command(Asked::Client(command))) => {
                self.asked(node, command);
                self.flows.asks(at, node, command, |_| TRUSTED);
            }
            Sight::Fed(Input::Command(Asked::Malice(Order::Say(_)))) => {
                self.deaf.insert(node);
                self.flows.wild = true;
            }
            Sight::Gave(Output::Event(Told::Client(event))) => {
                self.told(at, node, event)?;
                self.flows.told(at, node, event, |_| TRUSTED)?;
                return self.heeds(node, event);
            }
            Sight::Drained => self.flows.drained(node),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Broke(_) => {}
        }
        Ok(())
    }

    fn died(&mut self, node: NodeId) {
        self.deaf.insert(node);
    }

    fn stands_still(&mut self, node: NodeId, by: Duration) {
        self.flows.stands_still(node, by);
    }

    /// A request that was taken has no deadline, most often, so that nothing ends it any more.
    fn settled(&mut self) -> Verdict {
        let waits = |(node, request): &(NodeId, RequestId)| {
            let mut callers = self.flows.callers(*node, End::Provider(*request)).peekable();
            callers.peek().is_some() && callers.all(|ask| ask.over.is_some())
        };
        let open = self.flows.served.iter().filter(|(_, served)| !served.over && served.said.ending.is_none());
        let left = open.map(|(key, _)| key).find(|key| !self.deaf.contains(&key.0) && waits(key));
        ensure(left.is_none(), || format!("the provider of {left:?} was never told that its caller is gone"))
    }
}

impl Streams {
    /// The same where clocks may jump, and where it takes long until somebody hears that a connection leads nowhere.
    #[must_use]
    pub fn at_any_time() -> Self {
        Self { timed: false, ..Self::default() }
    }

    fn asked(&mut self, node: NodeId, command: &Command) {
        if let Command::Stream(StreamCommand::Ask { outgoing, .. }) = command
            && let Some(id) = self.flows.ids.get(&node)
        {
            self.counts.entry((id.clone(), Content::said(outgoing))).or_default().asked += 1;
        }
    }

    /// What can be judged before the truth is brought up to it.
    fn told(&mut self, at: Instant, node: NodeId, event: &Event) -> Verdict {
        match event {
            Event::Request(request) if self.flows.streams(node, request.provider) => {
                self.requested(node, &request.message)
            }
            Event::RequestEnded { request, why } => self.request_ended(at, node, *request, *why),
            Event::Stream(StreamEvent::Ended { token, result }) => self.ended(at, node, *token, result),
            Event::Stream(StreamEvent::Finished { request, result }) => {
                ensure(result.is_ok(), || format!("{request:?} of {node:?} lost items of its caller: {result:?}"))
            }
            Event::Closed(_) => {
                let of_it = self.flows.served.iter().filter(|((other, _), _)| *other == node);
                let left = of_it.clone().find(|(_, served)| !served.over && served.said.ending.is_none());
                ensure(left.is_none(), || format!("{node:?} was told Closed while {left:?} was not told to have ended"))
            }
            _ => Ok(()),
        }
    }

    fn requested(&mut self, node: NodeId, heard: &Incoming) -> Verdict {
        let count = self.counts.entry((heard.sender.client.clone(), Content::heard(heard))).or_default();
        count.requested += 1;
        ensure(count.requested + count.unexecuted <= count.asked, || {
            format!("{node:?} was asked twice, in vain or what nobody asks for as a stream: {heard:?} ({count:?})")
        })
    }

    fn request_ended(&self, at: Instant, node: NodeId, request: RequestId, why: Failure) -> Verdict {
        let Some(served) = self.flows.served.get(&(node, request)) else { return Ok(()) };
        ensure(!is_breach(why), || format!("{request:?} of {node:?} was broken off past an honest hub: {why}"))?;
        if why != Failure::Refused(Refusal::Deadline) || !self.timed {
            return Ok(());
        }
        let endless = self.flows.callers(node, End::Provider(request)).all(|ask| ask.until.is_none());
        let begun = served.accepted.is_some_and(|accepted| at.saturating_since(accepted) > NEWS);
        ensure(!begun || !endless, || format!("{request:?} of {node:?} was taken and ended at its deadline"))?;
        let over = |over: Option<Instant>| over.is_some_and(|over| at.saturating_since(over) > NEWS);
        let mut callers = self.flows.callers(node, End::Provider(request)).peekable();
        let late = callers.peek().is_some() && callers.all(|ask| over(ask.over));
        ensure(!late, || format!("{request:?} of {node:?} ended only at its deadline, long after its caller had"))
    }

    fn ended(&mut self, at: Instant, node: NodeId, token: Token, result: &Result<(), CallFailure>) -> Verdict {
        let Some(ask) = self.flows.asks.get(&(node, token)) else { return Ok(()) };
        match result {
            Ok(()) => ensure(ask.accepted, || format!("{token:?} of {node:?} ended well and had not begun")),
            Err(CallFailure::Fault(fault)) if fault.code == FaultCode::Stale.code() => Ok(()),
            Err(CallFailure::Fault(fault)) => {
                let (came, fault) = (ask.heard.count(), Ending::Fault(fault.clone()));
                let ended =
                    |it: &super::flows::Served| it.said.ending.as_ref() == Some(&fault) && it.said.given() == came;
                ensure(self.flows.providers(node, token).any(ended), || {
                    format!("{token:?} of {node:?} ended after {came} items with {fault:?}, which came after others")
                })
            }
            Err(CallFailure::Failed { failure, maybe_executed }) => {
                ensure(!is_breach(*failure), || {
                    format!("{token:?} of {node:?} was broken off past an honest hub: {failure}")
                })?;
                self.in_time(at, node, token, *failure)?;
                if *maybe_executed { Ok(()) } else { self.unexecuted(node, token) }
            }
        }
    }

    fn in_time(&self, at: Instant, node: NodeId, token: Token, failure: Failure) -> Verdict {
        let deadline = [Failure::Local(Misuse::Deadline), Failure::Refused(Refusal::Deadline)].contains(&failure);
        let ask = self.flows.asks.get(&(node, token)).filter(|_| self.timed);
        let Some(ask) = ask else { return Ok(()) };
        let begun = ask.accepted;
        let Some(due) = (if begun { ask.until } else { Some(ask.deadline) }) else {
            return ensure(!deadline, || format!("{token:?} of {node:?} had begun and ended at its deadline"));
        };
        let early = deadline && at + OLDEST_READING < due;
        ensure(!early, || format!("{token:?} of {node:?} was told its deadline too early: {ask:?}"))?;
        let late = !begun && at > due + LATE;
        ensure(!late, || format!("{token:?} of {node:?} had not begun and outlived its deadline: {ask:?}"))
    }

    fn unexecuted(&mut self, node: NodeId, token: Token) -> Verdict {
        let Some((id, ask)) = self.flows.ids.get(&node).zip(self.flows.asks.get(&(node, token))) else { return Ok(()) };
        let Some(count) = self.counts.get_mut(&(id.clone(), ask.content.clone())) else { return Ok(()) };
        count.unexecuted += 1;
        ensure(count.requested + count.unexecuted <= count.asked, || {
            format!("{token:?} of {node:?} ended unexecuted, but its provider was asked")
        })
    }

    /// What can be judged when the truth is up to it: pace and kinds.
    fn heeds(&self, node: NodeId, event: &Event) -> Verdict {
        let Event::Stream(event) = event else { return Ok(()) };
        match event {
            StreamEvent::Demand { stream: StreamId::Call(token), .. } => {
                let said = self.flows.asks.get(&(node, *token)).map(|ask| ask.said.demanded);
                self.at_pace(node, End::Caller(*token), said)
            }
            StreamEvent::Demand { stream: StreamId::Request(request), .. } => {
                let said = self.flows.served.get(&(node, *request)).map(|served| served.said.demanded);
                self.at_pace(node, End::Provider(*request), said)
            }
            StreamEvent::Accepted { token } => {
                let Some(ask) = self.flows.asks.get(&(node, *token)) else { return Ok(()) };
                let fits = |kind| if ask.exchange { kind == EventKind::Exchange } else { kind != EventKind::Call };
                let taken = self
                    .flows
                    .providers(node, *token)
                    .any(|it| it.accepted.is_some() && fits(it.kind) || it.said.given() > 0);
                ensure(taken || self.flows.wild, || {
                    format!("{token:?} of {node:?} was told to be taken, and nobody took it as what it is")
                })
            }
            StreamEvent::Item { .. } | StreamEvent::Finished { .. } | StreamEvent::Ended { .. } => Ok(()),
        }
    }

    fn at_pace(&self, node: NodeId, end: End<RequestId>, demanded: Option<u64>) -> Verdict {
        let (demanded, wanted) = (demanded.unwrap_or(0), self.flows.wanted(node, end));
        ensure(demanded <= wanted, || format!("{node:?} was asked for {demanded} items of {end:?}, of {wanted} wanted"))
    }
}

/// What no end does that keeps the rules, and no hub that forwards all it takes makes of it.
const fn is_breach(why: Failure) -> bool {
    matches!(why, Failure::Local(Misuse::Truncated) | Failure::Refused(Refusal::FlowControl))
}
