//! One slot for each thing that was asked and has not ended: no task, no channel and, once warm, no allocation a call.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use commipc_protocol::ChannelName;
use commipc_protocol::client::{Answer, CallFailure, Command, Failure, Token};

use super::items::ItemQueue;
use super::provide::ProviderCell;
use super::queue::Queue;
use super::tap::Place;

/// Slots by the low half of their tokens; the high half counts their uses.
#[derive(Default)]
pub(crate) struct Tickets {
    list: Vec<Ticket>,
    free: Vec<u32>,
}

struct Ticket {
    generation: u32,
    state: State,
    target: Option<Target>,
}

enum State {
    Free,
    /// Asked; the event has not come.
    Waiting(Option<Waker>),
    /// The event has come; nobody has looked yet.
    Over(Outcome),
    /// Asked, and nobody waits any more.
    Abandoned(Undo),
    /// Done, and standing until it is withdrawn.
    Standing,
}

/// How something ended.
pub(super) enum Outcome {
    Done(Result<(), Failure>),
    Answered(Result<Answer, CallFailure>),
}

/// Who takes what comes for a token that stands.
#[derive(Clone)]
pub(super) enum Target {
    Provider(Arc<ProviderCell>),
    Listener(Arc<Queue>),
    Items(Arc<ItemQueue>),
    /// A call, where its answer is copied for a tap.
    Asked(Arc<Place>),
}

/// What has to be undone when whoever asked for something is gone before it is done.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// Nothing.
    Nothing,
    /// Leave the channel that was opened.
    Leave(ChannelName),
    /// Withdraw what was provided.
    Withdraw,
    /// Stop listening.
    Unlisten,
    /// Give the ticket of what was withdrawn to the next.
    Release(Token),
}

/// What is to be done, without the lock, after an event was entered.
#[must_use = "somebody waits, or something nobody wants must be undone"]
#[derive(Default)]
pub(super) struct Completed {
    pub(super) waker: Option<Waker>,
    pub(super) undo: Option<Command>,
    pub(super) unwanted: Option<Outcome>,
}

impl Completed {
    /// Wakes who waits, undoes what nobody wants any more; without the lock.
    pub(super) fn finish(self, replies: &mut Vec<Command>) -> usize {
        replies.extend(self.undo);
        drop(self.unwanted);
        match self.waker {
            Some(waker) => {
                waker.wake();
                1
            }
            None => 0,
        }
    }
}

impl Tickets {
    /// A token for something that `waker` waits for.
    pub(super) fn waiting(&mut self, waker: Option<Waker>, target: Option<Target>) -> Token {
        self.add(State::Waiting(waker), target)
    }

    /// A token for a stream, which stands from the start.
    pub(super) fn standing(&mut self, target: Target) -> Token {
        self.add(State::Standing, Some(target))
    }

    /// A stream is over.
    pub(super) fn ended(&mut self, token: Token) -> Option<Target> {
        let target = self.get(token)?.target.take();
        self.release(token);
        target
    }

    /// A token for something that nobody waits for.
    pub(super) fn abandoned(&mut self, undo: Undo) -> Token {
        self.add(State::Abandoned(undo), None)
    }

    /// What became of it. The ticket stays if something stands behind it now.
    pub(super) fn poll(&mut self, token: Token, cx: &Context<'_>) -> Poll<Outcome> {
        let Some(ticket) = self.get(token) else { return Poll::Pending };
        match mem::replace(&mut ticket.state, State::Free) {
            State::Over(outcome) => {
                if ticket.target.is_some() && matches!(outcome, Outcome::Done(Ok(()))) {
                    ticket.state = State::Standing;
                } else {
                    self.release(token);
                }
                Poll::Ready(outcome)
            }
            State::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => {
                ticket.state = State::Waiting(Some(waker));
                Poll::Pending
            }
            State::Waiting(_) => {
                ticket.state = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
            other @ (State::Free | State::Abandoned(_) | State::Standing) => {
                ticket.state = other;
                Poll::Pending
            }
        }
    }

    /// Nobody waits for it any more. Gives what is to be undone if it has come already, and the target.
    pub(super) fn abandon(&mut self, token: Token, undo: Undo) -> (Completed, Option<Target>) {
        let Some(ticket) = self.get(token) else { return (Completed::default(), None) };
        match mem::replace(&mut ticket.state, State::Abandoned(undo.clone())) {
            State::Waiting(_) => (Completed::default(), ticket.target.take()),
            State::Over(outcome) => {
                let target = ticket.target.take();
                (self.undo(token, undo, outcome), target)
            }
            other @ (State::Free | State::Abandoned(_) | State::Standing) => {
                ticket.state = other;
                (Completed::default(), None)
            }
        }
    }

    /// A call's event has come.
    pub(super) fn answered(&mut self, token: Token, result: Result<Answer, CallFailure>) -> Completed {
        self.over(token, Outcome::Answered(result))
    }

    /// Any other event with a token has come.
    pub(super) fn done(&mut self, token: Token, result: Result<(), Failure>) -> Completed {
        self.over(token, Outcome::Done(result))
    }

    /// Who takes requests for a token.
    pub(super) fn provider(&mut self, token: Token) -> Option<Arc<ProviderCell>> {
        match self.get(token)?.target.as_ref()? {
            Target::Provider(cell) => Some(Arc::clone(cell)),
            Target::Listener(_) | Target::Items(_) | Target::Asked(_) => None,
        }
    }

    /// Who takes messages for a token.
    pub(super) fn target(&mut self, token: Token) -> Option<Target> {
        self.get(token)?.target.clone()
    }

    /// Nothing that comes for the token is wanted any more.
    pub(super) fn disconnect(&mut self, token: Token) -> Option<Target> {
        self.get(token)?.target.take()
    }

    /// All queues of listeners.
    pub(super) fn listeners(&self) -> Vec<Arc<Queue>> {
        let queue = |ticket: &Ticket| match &ticket.target {
            Some(Target::Listener(queue)) => Some(Arc::clone(queue)),
            Some(Target::Provider(_) | Target::Items(_) | Target::Asked(_)) | None => None,
        };
        self.list.iter().filter_map(queue).collect()
    }

    /// What stood for something does not any more.
    pub(super) fn retire(&mut self, token: Token) -> Option<Target> {
        let target = self.disconnect(token);
        self.release(token);
        target
    }

    /// Takes all targets: nothing will come for them.
    pub(super) fn take_targets(&mut self) -> Vec<Target> {
        self.list.iter_mut().filter_map(|ticket| ticket.target.take()).collect()
    }

    /// How many wait for their event, and how many have had it and stand, or wait for somebody to look.
    pub(super) fn count(&self) -> (usize, usize) {
        let of = |wanted: fn(&State) -> bool| self.list.iter().filter(|ticket| wanted(&ticket.state)).count();
        (
            of(|state| matches!(state, State::Waiting(_) | State::Abandoned(_))),
            of(|state| matches!(state, State::Standing | State::Over(_))),
        )
    }

    fn over(&mut self, token: Token, outcome: Outcome) -> Completed {
        let Some(ticket) = self.get(token) else {
            return Completed { unwanted: Some(outcome), ..Completed::default() };
        };
        match mem::replace(&mut ticket.state, State::Free) {
            State::Waiting(waker) => {
                ticket.state = State::Over(outcome);
                Completed { waker, ..Completed::default() }
            }
            State::Abandoned(undo) => self.undo(token, undo, outcome),
            other @ (State::Free | State::Over(_) | State::Standing) => {
                ticket.state = other;
                Completed { unwanted: Some(outcome), ..Completed::default() }
            }
        }
    }

    /// Undoes something done that nobody waited for.
    fn undo(&mut self, token: Token, undo: Undo, outcome: Outcome) -> Completed {
        let succeeded = matches!(outcome, Outcome::Done(Ok(())));
        let command = match undo {
            Undo::Nothing => None,
            Undo::Release(other) => {
                self.release(other);
                None
            }
            Undo::Leave(channel) if succeeded => Some(Command::Leave { token: self.abandoned(Undo::Nothing), channel }),
            Undo::Withdraw if succeeded => {
                let withdraw = self.abandoned(Undo::Release(token));
                self.stand(token);
                return Completed {
                    undo: Some(Command::Withdraw { token: withdraw, provider: token }),
                    unwanted: Some(outcome),
                    waker: None,
                };
            }
            Undo::Unlisten if succeeded => {
                let unlisten = self.abandoned(Undo::Release(token));
                self.stand(token);
                return Completed {
                    undo: Some(Command::Unlisten { token: unlisten, listener: token }),
                    unwanted: Some(outcome),
                    waker: None,
                };
            }
            Undo::Leave(_) | Undo::Withdraw | Undo::Unlisten => None,
        };
        self.release(token);
        Completed { undo: command, unwanted: Some(outcome), waker: None }
    }

    fn stand(&mut self, token: Token) {
        if let Some(ticket) = self.get(token) {
            ticket.state = State::Standing;
        }
    }

    fn add(&mut self, state: State, target: Option<Target>) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.list.push(Ticket { generation: 0, state: State::Free, target: None });
            u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
        });
        let ticket = &mut self.list[index as usize];
        ticket.state = state;
        ticket.target = target;
        Token(u64::from(ticket.generation) << 32 | u64::from(index))
    }

    fn get(&mut self, token: Token) -> Option<&mut Ticket> {
        let generation = u32::try_from(token.0 >> 32).unwrap_or(u32::MAX);
        self.list.get_mut(index(token)).filter(|ticket| ticket.generation == generation)
    }

    fn release(&mut self, token: Token) {
        let Some(ticket) = self.get(token) else { return };
        ticket.generation = ticket.generation.wrapping_add(1);
        ticket.state = State::Free;
        ticket.target = None;
        self.free.push(u32::try_from(index(token)).unwrap_or(u32::MAX));
    }
}

fn index(token: Token) -> usize {
    usize::try_from(token.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}
