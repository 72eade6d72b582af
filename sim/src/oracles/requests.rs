//! Everything asked with a token ends exactly once, with the event that belongs to it, and before the connection's end
//! is told.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::client::{Command, Event, StreamCommand, StreamEvent, Token};
use commipc_protocol::{Input, Instant, Output};

use core::time::Duration;

use super::{Oracle, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds that each request resolves exactly once.
#[derive(Debug, Default)]
pub struct Requests {
    open: BTreeMap<(NodeId, Token), Ending>,
    /// What was asked since all outputs were taken: an end told now may be older than it.
    fresh: BTreeSet<(NodeId, Token)>,
    /// When calls must have ended at the latest, where that is judged.
    latest: Option<BTreeMap<(NodeId, Token), Instant>>,
}

/// How late drivers may be with a timeout and with what comes of it, and more.
const LATE: Duration = Duration::from_secs(1);

/// The event that must end a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Done,
    Sent,
    Answered,
    Ended,
}

impl Oracle for Requests {
    fn name(&self) -> &'static str {
        "requests"
    }

    fn saw(&mut self, at: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        match sight {
            Sight::Fed(Input::Command(Asked::Client(command))) => {
                if let (Some(latest), Command::Call { token, time_left, .. }) = (&mut self.latest, command) {
                    latest.insert((node, *token), at + *time_left + LATE);
                }
                self.asked(node, command)
            }
            Sight::Gave(Output::Event(Told::Client(event))) => {
                if let (Some(latest), Event::Answered { token, .. }) = (&mut self.latest, event) {
                    let latest = latest.remove(&(node, *token));
                    ensure(latest.is_none_or(|latest| at <= latest), || {
                        format!("{token:?} of {node:?} has waited for its hub beyond its deadline")
                    })?;
                }
                self.told(node, event)
            }
            Sight::Drained => {
                self.fresh.retain(|(other, _)| *other != node);
                Ok(())
            }
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Broke(_) => Ok(()),
        }
    }

    /// Whoever asked is no more.
    fn died(&mut self, node: NodeId) {
        self.open.retain(|(asked, _), _| *asked != node);
        self.fresh.retain(|(asked, _)| *asked != node);
    }

    fn settled(&mut self) -> Verdict {
        let open: Vec<String> = self.open.iter().map(|((node, token), _)| format!("{token:?} of {node:?}")).collect();
        ensure(open.is_empty(), || format!("never ended: {}", open.join(", ")))
    }
}

impl Requests {
    /// The same where a hub may keep silent: a call ends at its deadline whatever its hub does. Clocks must not jump there.
    #[must_use]
    pub fn punctual() -> Self {
        Self { latest: Some(BTreeMap::new()), ..Self::default() }
    }

    fn asked(&mut self, node: NodeId, command: &Command) -> Verdict {
        let (token, ending) = match command {
            Command::Open { token, .. }
            | Command::Protect { token, .. }
            | Command::Unprotect { token, .. }
            | Command::Reclaim { token, .. }
            | Command::Terminate { token, .. }
            | Command::Leave { token, .. }
            | Command::Provide { token, .. }
            | Command::Withdraw { token, .. }
            | Command::Listen { token, .. }
            | Command::Unlisten { token, .. } => (*token, Ending::Done),
            Command::Send { token, .. } | Command::Broadcast { token, .. } => (*token, Ending::Sent),
            Command::Call { token, .. } => (*token, Ending::Answered),
            Command::Stream(StreamCommand::Ask { token, .. }) => (*token, Ending::Ended),
            Command::Connect
            | Command::KeyDerived(_)
            | Command::Stream(_)
            | Command::SetSecret(_)
            | Command::SetOwnerKey(_)
            | Command::ChannelKeyDerived { .. }
            | Command::ChannelKeyFailed { .. }
            | Command::Cancel { .. }
            | Command::Answer { .. }
            | Command::Drain(_)
            | Command::Close => return Ok(()),
        };
        let before = self.open.insert((node, token), ending);
        self.fresh.insert((node, token));
        ensure(before.is_none(), || format!("the script used {token:?} of {node:?} twice at a time"))
    }

    fn told(&mut self, node: NodeId, event: &Event) -> Verdict {
        match event {
            Event::Done { token, .. } => self.ended(node, *token, Ending::Done),
            Event::Sent { token, .. } => self.ended(node, *token, Ending::Sent),
            Event::Answered { token, .. } => self.ended(node, *token, Ending::Answered),
            Event::Stream(StreamEvent::Ended { token, .. }) => self.ended(node, *token, Ending::Ended),
            Event::Closed(_) => {
                let mut open = self.open.range((node, Token(0))..=(node, Token(u64::MAX)));
                let left = open.find(|(asked, _)| !self.fresh.contains(*asked));
                ensure(left.is_none(), || format!("{node:?} was told Closed while {left:?} was open"))
            }
            Event::DeriveKey { .. }
            | Event::Stream(_)
            | Event::Reconnect(_)
            | Event::DeriveChannelKey { .. }
            | Event::ChannelClosed { .. }
            | Event::OwnerChanged { .. }
            | Event::PasswordChanged { .. }
            | Event::Gap(_)
            | Event::Draining { .. }
            | Event::Ready(_)
            | Event::Request(_)
            | Event::RequestEnded { .. }
            | Event::Message(_)
            | Event::Violation(_)
            | Event::Dropped(_) => Ok(()),
        }
    }

    fn ended(&mut self, node: NodeId, token: Token, ending: Ending) -> Verdict {
        let expected = self.open.remove(&(node, token));
        ensure(expected == Some(ending), || {
            format!("{token:?} of {node:?} ended with {ending:?}, open was {expected:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Scene, broadcast, call, channel};
    use super::*;
    use commipc_protocol::client::{CallFailure, Failure};
    use commipc_protocol::{CloseReason, Misuse};

    fn scene() -> Scene<Requests> {
        let mut scene = Scene::new(Requests::default());
        scene
            .asks(
                1,
                Command::Open {
                    token: Token(1),
                    channel: channel(),
                    access: commipc_protocol::client::Access::default(),
                },
            )
            .unwrap();
        scene.asks(1, broadcast(2, "x")).unwrap();
        scene.drained(1).unwrap();
        scene
    }

    #[test]
    fn exactly_once_is_fine() {
        let mut scene = scene();
        scene.tells(1, Event::Done { token: Token(1), result: Ok(()) }).unwrap();
        scene.tells(1, Event::Sent { token: Token(2), result: Ok(()) }).unwrap();
        scene.tells(1, Event::Closed(CloseReason::Local)).unwrap();
        scene.0.settled().unwrap();
    }

    #[test]
    fn bites_on_twice_never_and_the_wrong_end() {
        let mut twice = scene();
        twice.tells(1, Event::Done { token: Token(1), result: Ok(()) }).unwrap();
        assert!(twice.tells(1, Event::Done { token: Token(1), result: Ok(()) }).is_err());
        assert!(scene().tells(1, Event::Sent { token: Token(1), result: Ok(()) }).is_err());
        assert!(scene().tells(2, Event::Done { token: Token(1), result: Ok(()) }).is_err(), "another node's token");
        assert!(scene().0.settled().is_err());
    }

    #[test]
    fn bites_on_a_call_that_outlives_its_deadline() {
        let ended = |requests: Requests, nanos| {
            let mut scene = Scene::new(requests);
            scene.asks(1, call(1, "q")).unwrap();
            let failure = Failure::Local(Misuse::Deadline);
            let result = Err(CallFailure::Failed { failure, maybe_executed: true });
            let event = Output::Event(Told::Client(Event::Answered { token: Token(1), result }));
            scene.0.saw(Instant::from_nanos(nanos), NodeId::new(1), &Sight::Gave(&event))
        };
        assert!(ended(Requests::punctual(), 1_500_000_000).is_ok());
        assert!(ended(Requests::punctual(), 2_500_000_000).is_err());
        assert!(ended(Requests::default(), 2_500_000_000).is_ok(), "clocks may have jumped");
    }

    #[test]
    fn bites_on_an_end_told_too_early() {
        assert!(scene().tells(1, Event::Closed(CloseReason::Lost)).is_err());
        let mut late = scene();
        late.tells(1, Event::Done { token: Token(1), result: Ok(()) }).unwrap();
        late.tells(1, Event::Sent { token: Token(2), result: Ok(()) }).unwrap();
        late.asks(1, broadcast(3, "y")).unwrap();
        assert!(late.tells(1, Event::Closed(CloseReason::Lost)).is_ok(), "asked when the end was on its way");
    }
}
