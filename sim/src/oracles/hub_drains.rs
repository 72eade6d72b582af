//! Hubs that come to their end in good order: nobody new is let in and nothing new taken on, what runs is not cut before
//! the time is over, and then it ends.
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else is said is no matter of hubs that drain")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use commipc_protocol::client::{CallFailure, Command, Event, Failure, Outgoing, StreamCommand, StreamEvent, Token};
use commipc_protocol::{Input, Instant, Output, Refusal, hub};
use core::time::Duration;

use super::people::People;
use super::{Oracle, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds that a hub's drain loses nothing that has its time, and ends.
#[derive(Debug, Default)]
pub struct HubDrains {
    people: People,
    hubs: BTreeMap<NodeId, Drain>,
    /// Who was asked for anything on its connection: it may ask in turn while its hub drains.
    serves: BTreeSet<NodeId>,
    /// What was asked of a hub that drains by somebody who works on nothing.
    turned_down: BTreeSet<(NodeId, Token)>,
}

#[derive(Clone, Copy, Debug)]
struct Drain {
    due: Instant,
    /// What it tells from now on is no older.
    begun: bool,
    over: bool,
}

/// How old the time may be that a driver hands in.
const OLDEST_READING: Duration = Duration::from_millis(1);
/// How late drivers may be with a timeout and with what comes of it, and more.
const LATE: Duration = Duration::from_secs(1);

impl Oracle for HubDrains {
    fn name(&self) -> &'static str {
        "hub drains"
    }

    fn saw(&mut self, at: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        self.people.saw(node, sight);
        match sight {
            Sight::Linked { .. } => {
                self.serves.remove(&node);
                Ok(())
            }
            Sight::Fed(Input::Command(Asked::Hub(hub::Command::Drain { time }))) => {
                self.hubs.insert(node, Drain { due: at + *time, begun: false, over: false });
                Ok(())
            }
            Sight::Fed(Input::Command(Asked::Hub(hub::Command::Shutdown))) => {
                self.hubs.remove(&node);
                Ok(())
            }
            Sight::Fed(Input::Command(Asked::Client(command))) => {
                self.asked(node, command);
                Ok(())
            }
            Sight::Drained => {
                self.hubs.get_mut(&node).into_iter().for_each(|drain| drain.begun = true);
                Ok(())
            }
            Sight::Gave(Output::Event(Told::Hub(event))) => self.hub_told(at, node, event),
            Sight::Gave(Output::Event(Told::Client(event))) => self.told(at, node, event),
            _ => Ok(()),
        }
    }

    fn settled(&mut self) -> Verdict {
        let left = self.hubs.iter().find(|(_, drain)| !drain.over);
        ensure(left.is_none(), || format!("a hub never came to its end: {left:?}"))
    }
}

impl HubDrains {
    /// The drain of the hub that a client is connected to.
    fn of(&self, client: NodeId) -> Option<&Drain> {
        self.people.hub_of(client).and_then(|hub| self.hubs.get(&hub))
    }

    fn asked(&mut self, node: NodeId, command: &Command) {
        let drains = self.of(node).is_some() && !self.serves.contains(&node);
        if let Some((token, outgoing)) = said(command)
            && drains
            && !outgoing.channel.as_name().is_reserved()
        {
            self.turned_down.insert((node, token));
        }
    }

    fn hub_told(&mut self, at: Instant, node: NodeId, event: &hub::Event) -> Verdict {
        let Some(drain) = self.hubs.get_mut(&node) else { return Ok(()) };
        match event {
            hub::Event::Connected { client, .. } => {
                ensure(!drain.begun, || format!("{client} was let in by a hub that drains: {drain:?}"))
            }
            hub::Event::Drained { cut } => {
                drain.over = true;
                let early = *cut > 0 && at + OLDEST_READING < drain.due;
                ensure(!early, || format!("{cut} requests were cut before the time was over: {drain:?}"))?;
                ensure(at <= drain.due + LATE, || format!("it drained beyond its time: {drain:?}"))
            }
            _ => Ok(()),
        }
    }

    fn told(&mut self, at: Instant, node: NodeId, event: &Event) -> Verdict {
        match event {
            Event::Request(_) => {
                self.serves.insert(node);
                self.turned_down.retain(|(asker, _)| *asker != node);
                Ok(())
            }
            Event::RequestEnded { request, why } => self.not_early(at, node, Some(*why), request),
            Event::Answered { token, result } => {
                let why = result.as_ref().err().and_then(failure);
                self.done(node, *token, why.is_none())?;
                self.not_early(at, node, why, token)
            }
            Event::Stream(StreamEvent::Ended { token, result }) => {
                let why = result.as_ref().err().and_then(failure);
                self.done(node, *token, why.is_none())?;
                self.not_early(at, node, why, token)
            }
            Event::Stream(StreamEvent::Accepted { token }) => self.done(node, *token, true),
            Event::Sent { token, result } => self.done(node, *token, result.is_ok()),
            _ => Ok(()),
        }
    }

    /// Nothing is done that was asked of a hub that drains.
    fn done(&mut self, node: NodeId, token: Token, done: bool) -> Verdict {
        let turned_down = self.turned_down.remove(&(node, token));
        ensure(!turned_down || !done, || format!("{token:?} of {node:?} was asked of a hub that drains, and was done"))
    }

    /// What ends because a hub goes has had the time that its drain gave it.
    fn not_early(&self, at: Instant, node: NodeId, why: Option<Failure>, what: impl Debug) -> Verdict {
        let Some(drain) = self.of(node).filter(|_| why == Some(Failure::Refused(Refusal::ShuttingDown))) else {
            return Ok(());
        };
        ensure(at + OLDEST_READING >= drain.due, || format!("{what:?} of {node:?} was cut before its time: {drain:?}"))
    }
}

/// What is said by a command, if that is for others.
const fn said(command: &Command) -> Option<(Token, &Outgoing)> {
    match command {
        Command::Call { token, outgoing, .. }
        | Command::Send { token, outgoing }
        | Command::Broadcast { token, outgoing }
        | Command::Stream(StreamCommand::Ask { token, outgoing, .. }) => Some((*token, outgoing)),
        _ => None,
    }
}

/// Why something failed that nobody has worked on to its end.
const fn failure(of: &CallFailure) -> Option<Failure> {
    match of {
        CallFailure::Failed { failure, .. } => Some(*failure),
        CallFailure::Fault(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{HUB, Scene, call, connected, outgoing};
    use super::*;

    const CALLER: u32 = 1;

    /// A caller of a hub that has begun to drain, for a minute.
    fn scene() -> Scene<HubDrains> {
        let mut scene = Scene::new(HubDrains::default());
        scene.connects(CALLER).unwrap();
        let drain = hub::Command::Drain { time: Duration::from_secs(60) };
        scene.fed(HUB, Input::Command(Asked::Hub(drain))).unwrap();
        scene.drained(HUB).unwrap();
        scene
    }

    fn answered(failure: Failure) -> Event {
        Event::Answered { token: Token(1), result: Err(CallFailure::Failed { failure, maybe_executed: true }) }
    }

    #[test]
    fn s86_bites_on_what_a_hub_that_drains_takes_on() {
        let refused = Failure::Refused(Refusal::Draining);
        let sent = |result| Event::Sent { token: Token(1), result };
        let send = || Command::Send { token: Token(1), outgoing: outgoing("q") };
        let mut turns_down = scene();
        turns_down.asks(CALLER, call(1, "q")).unwrap();
        turns_down.tells(CALLER, answered(refused)).unwrap();
        turns_down.asks(CALLER, send()).unwrap();
        turns_down.tells(CALLER, sent(Err(refused))).unwrap();
        let mut takes = scene();
        takes.asks(CALLER, send()).unwrap();
        assert!(takes.tells(CALLER, sent(Ok(()))).is_err());
        let mut before = Scene::new(HubDrains::default());
        before.connects(CALLER).unwrap();
        before.asks(CALLER, send()).unwrap();
        before.tells(CALLER, sent(Ok(()))).unwrap();
        assert!(scene().hub_tells(connected(2)).is_err(), "it lets somebody in");
    }

    #[test]
    fn s86_bites_on_what_is_cut_before_its_time_and_on_a_hub_that_never_ends() {
        let cut = Failure::Refused(Refusal::ShuttingDown);
        assert!(scene().tells(CALLER, answered(cut)).is_err());
        scene().tells(CALLER, answered(Failure::Refused(Refusal::ProviderGone))).unwrap();
        assert!(scene().hub_tells(hub::Event::Drained { cut: 1 }).is_err());
        let mut ends = scene();
        assert!(ends.0.settled().is_err());
        ends.hub_tells(hub::Event::Drained { cut: 0 }).unwrap();
        ends.0.settled().unwrap();
    }
}
