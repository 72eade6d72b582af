//! Channels as this client sees them: what is open, provided and listened to, and the requests to the hub about it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::beacons::Said;
use super::guarding::{Guarded, Joining, Owned};
use super::{Access, Client, Due, Event, EventKind, Failure, Token};
use crate::error::{Misuse, Refusal, Violation};
use crate::hash::{Keyed, Map};
use crate::names::{ChannelName, EventName, Name};
use crate::time::TimerReason;
use crate::wire::{self, Control as _, Done, Frame, FrameType};

/// A channel's place in the client's table. Channels stay there, closed or not: their numbers go on rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChannelIx(usize);

/// All channels this client ever named.
#[derive(Debug)]
pub(super) struct Channels {
    all: Vec<Channel>,
    by_name: Map<ChannelName, ChannelIx>,
    /// Where each lasting token of a provider or listener belongs.
    standing: Map<Token, Standing>,
    hash: Keyed,
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: ChannelName,
    pub(super) state: State,
    /// Its owner and password.
    pub(super) guarded: Guarded,
    /// What we said lately on it while it was protected.
    pub(super) said: Said,
    /// The last `seq` given to a message.
    pub(super) seq: u64,
    /// The last `bseq` given to a broadcast, by event.
    pub(super) bseqs: Map<EventName, u64>,
    pub(super) providers: Map<EventName, Provided>,
    listeners: Map<EventName, Vec<Token>>,
    all_events: Vec<Token>,
}

impl Channel {
    /// The name of an event as it stands in our own tables, if we provide it or listen to it.
    pub(super) fn event(&self, name: Name<'_>) -> Option<&EventName> {
        let heard = || self.listeners.get_key_value(name.as_str()).map(|(event, _)| event);
        self.providers.get(name.as_str()).map(|provided| &provided.event).or_else(heard)
    }
}

/// One of our providers.
#[derive(Clone, Debug)]
pub(super) struct Provided {
    pub(super) event: EventName,
    pub(super) token: Token,
    pub(super) kind: EventKind,
    /// Whether the hub has said yes to this kind, whichever provider asked it.
    granted: bool,
    /// Whether it took another's place, to whom the hub may have said yes.
    replaces: bool,
}

/// How far a channel is.
#[derive(Debug)]
pub(super) enum State {
    Closed,
    Opening {
        /// Who waits for the hub.
        waiting: Vec<Token>,
        access: Access,
        /// How far the proof of its password is.
        joining: Option<Joining>,
    },
    /// How often it was opened.
    Open(usize),
}

/// What a lasting token stands for.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    Provider(ChannelIx, EventName),
    Listener(ChannelIx, Option<EventName>),
}

/// A request to the hub that it has not answered yet.
#[derive(Debug)]
pub(super) enum Control {
    /// Answers everybody who waits in [`State::Opening`].
    Open(ChannelIx),
    /// What an owner asked for.
    Owned(Token, ChannelIx, Owned),
    /// Becomes a standing provider or listener, or is forgotten.
    Stand(Token),
    /// Undoes something that is forgotten already.
    Undo(Token),
    /// Was given up: what is granted all the same is given back.
    Late(Option<Late>),
}

/// What the hub was asked for and nobody waits for any more.
#[derive(Debug)]
pub(super) enum Late {
    Open(ChannelIx),
    Stand(Standing),
}

impl Channels {
    pub(super) fn new(hash: Keyed) -> Self {
        Self { all: Vec::new(), by_name: hash.map(), standing: hash.map(), hash }
    }

    pub(super) fn find(&self, name: Name<'_>) -> Option<&Channel> {
        self.all.get(self.by_name.get(name.as_str())?.0)
    }

    /// The channel's entry, made where there is none.
    pub(super) fn entry(&mut self, name: &ChannelName) -> Option<&mut Channel> {
        let ix = self.index(name);
        self.all.get_mut(ix.0)
    }

    /// Who listens to an event: those of the event first, then those of all events.
    pub(super) fn listeners(&self, channel: Name<'_>, event: Name<'_>) -> impl Iterator<Item = Token> {
        let channel = self.find(channel);
        let one = channel.and_then(|channel| channel.listeners.get(event.as_str())).into_iter().flatten();
        one.chain(channel.map(|channel| &channel.all_events).into_iter().flatten()).copied()
    }

    pub(super) fn get_mut(&mut self, ix: ChannelIx) -> Option<&mut Channel> {
        self.all.get_mut(ix.0)
    }

    pub(super) fn index_of(&self, name: &ChannelName) -> Option<ChannelIx> {
        self.by_name.get(name).copied()
    }

    pub(super) fn find_mut(&mut self, name: Name<'_>) -> Option<&mut Channel> {
        let ix = self.index_of_name(name)?;
        self.get_mut(ix)
    }

    pub(super) fn index_of_name(&self, name: Name<'_>) -> Option<ChannelIx> {
        self.by_name.get(name.as_str()).copied()
    }

    pub(super) const fn hash(&self) -> Keyed {
        self.hash
    }

    fn index(&mut self, name: &ChannelName) -> ChannelIx {
        if let Some(&ix) = self.by_name.get(name) {
            return ix;
        }
        let ix = ChannelIx(self.all.len());
        self.all.push(Channel {
            name: name.clone(),
            state: State::Closed,
            guarded: Guarded::default(),
            said: Said::new(self.hash),
            seq: 0,
            bseqs: self.hash.map(),
            providers: self.hash.map(),
            listeners: self.hash.map(),
            all_events: Vec::new(),
        });
        self.by_name.insert(name.clone(), ix);
        ix
    }

    /// A channel that is open.
    pub(super) fn open(&mut self, name: &ChannelName) -> Result<(ChannelIx, &mut Channel), Failure> {
        let not_open = Failure::Refused(Refusal::NotMember);
        let ix = self.by_name.get(name).copied().ok_or(not_open)?;
        match self.all.get_mut(ix.0) {
            Some(channel) if matches!(channel.state, State::Open(_)) => Ok((ix, channel)),
            Some(_) | None => Err(not_open),
        }
    }

    /// Forgets a provider or listener; true if the hub has to hear of it.
    fn remove(&mut self, token: Token) -> Option<(Standing, bool)> {
        let standing = self.standing.remove(&token)?;
        let last = match &standing {
            Standing::Provider(ix, event) => {
                let channel = self.all.get_mut(ix.0)?;
                channel.providers.remove(event);
                true
            }
            Standing::Listener(ix, None) => {
                let channel = self.all.get_mut(ix.0)?;
                channel.all_events.retain(|&listener| listener != token);
                channel.all_events.is_empty()
            }
            Standing::Listener(ix, Some(event)) => {
                let channel = self.all.get_mut(ix.0)?;
                let tokens = channel.listeners.get_mut(event)?;
                tokens.retain(|&listener| listener != token);
                let last = tokens.is_empty();
                if last {
                    channel.listeners.remove(event);
                }
                last
            }
        };
        Some((standing, last))
    }

    /// Closes a channel and forgets every provider and listener of it.
    fn clear(&mut self, ix: ChannelIx) {
        let Some(channel) = self.all.get_mut(ix.0) else { return };
        channel.state = State::Closed;
        channel.guarded.close();
        let tokens: BTreeSet<Token> = channel
            .providers
            .values()
            .map(|provided| provided.token)
            .chain(channel.listeners.values().flatten().copied())
            .chain(channel.all_events.iter().copied())
            .collect();
        channel.providers.clear();
        channel.listeners.clear();
        channel.all_events.clear();
        for token in tokens {
            self.standing.remove(&token);
        }
    }

    /// Whether something stands for the same, or is about to.
    fn is_wanted(&self, standing: &Standing) -> bool {
        let at = |ix: &ChannelIx| self.all.get(ix.0);
        match standing {
            Standing::Provider(ix, event) => at(ix).is_some_and(|it| it.providers.contains_key(event)),
            Standing::Listener(ix, Some(event)) => at(ix).is_some_and(|it| it.listeners.contains_key(event)),
            Standing::Listener(ix, None) => at(ix).is_some_and(|it| !it.all_events.is_empty()),
        }
    }

    /// Numbers of broadcasts begin anew with the next listener, where the last one is gone.
    fn forget_numbers(&mut self, gone: &Standing) {
        let (Standing::Listener(ix, _) | Standing::Provider(ix, _)) = gone;
        let Some(channel) = self.all.get_mut(ix.0).filter(|channel| channel.all_events.is_empty()) else { return };
        let Some(seal) = &mut channel.guarded.seal else { return };
        match gone {
            Standing::Listener(_, Some(event)) if !channel.listeners.contains_key(event) => {
                seal.forget_event(event.as_name());
            }
            Standing::Listener(_, None) => seal.keep_events(channel.listeners.keys().map(|event| event.as_str())),
            Standing::Listener(_, Some(_)) | Standing::Provider(..) => {}
        }
    }

    fn name(&self, ix: ChannelIx) -> Option<ChannelName> {
        self.all.get(ix.0).map(|channel| channel.name.clone())
    }
}

impl Client {
    pub(super) fn handle_open(&mut self, token: Token, name: ChannelName, access: Access) {
        if let Err(misuse) = self.check_ready() {
            return self.done(token, Err(Failure::Local(misuse)));
        }
        let ix = self.channels.index(&name);
        let Some(channel) = self.channels.all.get_mut(ix.0) else { return };
        match &mut channel.state {
            State::Open(_) if access.secret.is_some() && !channel.guarded.is_proved() => {
                self.done(token, Err(Failure::Refused(Refusal::NotProtected)));
            }
            State::Open(times) => {
                *times += 1;
                self.done(token, Ok(()));
            }
            State::Opening { access: other, .. } if other.secret != access.secret => {
                self.done(token, Err(Failure::Local(Misuse::TooMany)));
            }
            State::Opening { waiting, .. } => waiting.push(token),
            State::Closed => {
                channel.state = State::Opening { waiting: alloc::vec![token], access, joining: None };
                let owner = if access.plain { None } else { self.owner_key_for(ix, &name) };
                let id = self.control(Control::Open(ix));
                let open = wire::Open {
                    id,
                    channel: name.as_name(),
                    owner: owner.as_ref(),
                    record: None,
                    policy: access.policy.map(wire::Policy::from),
                    guarded: access.secret.is_some().then_some(true),
                };
                self.outbox.push(&mut self.pool, FrameType::Open, |out| open.encode(out));
            }
        }
    }

    pub(super) fn handle_leave(&mut self, token: Token, name: &ChannelName) {
        let (ix, channel) = match self.channels.open(name) {
            Ok(open) => open,
            Err(failure) => return self.done(token, Err(failure)),
        };
        if let State::Open(times) = &mut channel.state
            && *times > 1
        {
            *times -= 1;
            return self.done(token, Ok(()));
        }
        if channel.guarded.seal.is_some() {
            self.give_up_calls(name);
            self.abandon_requests(name);
        }
        self.close_channel(ix);
        let id = self.control(Control::Undo(token));
        let leave = wire::Leave { id, channel: name.as_name() };
        self.outbox.push(&mut self.pool, FrameType::Leave, |out| leave.encode(out));
    }

    pub(super) fn handle_provide(&mut self, token: Token, name: &ChannelName, event: EventName, kind: EventKind) {
        let (ix, channel) = match self.channels.open(name) {
            Ok(open) => open,
            Err(failure) => return self.done(token, Err(self.or_not_ready(failure))),
        };
        let older = channel.providers.remove(&event);
        // To the hub nothing changes then.
        let granted = older.as_ref().is_some_and(|older| older.granted && older.kind == kind);
        let provided = Provided { event: event.clone(), token, kind, granted, replaces: older.is_some() };
        channel.providers.insert(event.clone(), provided);
        if let Some(older) = older {
            self.channels.standing.remove(&older.token);
        }
        self.channels.standing.insert(token, Standing::Provider(ix, event.clone()));
        if granted {
            return self.done(token, Ok(()));
        }
        let id = self.control(Control::Stand(token));
        let provide = wire::Provide { id, channel: name.as_name(), event: event.as_name(), kind: kind.number() };
        self.outbox.push(&mut self.pool, FrameType::Provide, |out| provide.encode(out));
    }

    pub(super) fn handle_listen(&mut self, token: Token, name: &ChannelName, event: Option<EventName>) {
        let (ix, channel) = match self.channels.open(name) {
            Ok(open) => open,
            Err(failure) => return self.done(token, Err(self.or_not_ready(failure))),
        };
        match &event {
            Some(event) => channel.listeners.entry(event.clone()).or_default().push(token),
            None => channel.all_events.push(token),
        }
        self.channels.standing.insert(token, Standing::Listener(ix, event.clone()));
        let id = self.control(Control::Stand(token));
        let event = event.as_ref().map(EventName::as_name);
        let listen = wire::Listen { id, channel: name.as_name(), event };
        self.outbox.push(&mut self.pool, FrameType::Listen, |out| listen.encode(out));
    }

    pub(super) fn handle_withdraw(&mut self, token: Token, provider: Token) {
        self.undo(token, provider);
    }

    pub(super) fn handle_unlisten(&mut self, token: Token, listener: Token) {
        self.undo(token, listener);
    }

    fn undo(&mut self, token: Token, standing: Token) {
        let Some((standing, tell_hub)) = self.channels.remove(standing) else {
            return self.done(token, Err(self.or_not_ready(Failure::Local(Misuse::UnknownToken))));
        };
        self.channels.forget_numbers(&standing);
        if !tell_hub {
            return self.done(token, Ok(()));
        }
        self.tell_undone(Control::Undo(token), standing);
    }

    fn tell_undone(&mut self, control: Control, standing: Standing) {
        let id = self.control(control);
        match standing {
            Standing::Provider(ix, event) => {
                let Some(name) = self.channels.name(ix) else { return };
                let withdraw = wire::Withdraw { id, channel: name.as_name(), event: event.as_name() };
                self.outbox.push(&mut self.pool, FrameType::Withdraw, |out| withdraw.encode(out));
            }
            Standing::Listener(ix, event) => {
                let Some(name) = self.channels.name(ix) else { return };
                let event = event.as_ref().map(EventName::as_name);
                let unlisten = wire::Unlisten { id, channel: name.as_name(), event };
                self.outbox.push(&mut self.pool, FrameType::Unlisten, |out| unlisten.encode(out));
            }
        }
    }

    pub(super) fn handle_done(&mut self, frame: &Frame) -> Result<(), Violation> {
        let done = Done::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        let (id, code) = (done.id, done.code);
        let (control, timer) = self.controls.remove(&id).ok_or(Violation::UnexpectedFrame)?;
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        let result = match (code, Refusal::from_code(code)) {
            (0, _) => Ok(()),
            (_, Some(refusal)) => Err(Failure::Refused(refusal)),
            (code, None) => Err(Failure::RefusedCode(code)),
        };
        let result = match (&control, result) {
            (&Control::Open(ix), Ok(())) => match self.judge_opened(ix, &done) {
                Ok(judged) => {
                    if judged.is_err() {
                        self.leave_again(ix);
                    }
                    judged.map_err(Failure::Refused)
                }
                Err(violation) => {
                    // Whoever waits is told with the link's end.
                    self.controls.insert(id, (control, None));
                    return Err(violation);
                }
            },
            (_, result) => result,
        };
        self.control_ended(control, result);
        Ok(())
    }

    fn control_ended(&mut self, control: Control, result: Result<(), Failure>) {
        match control {
            Control::Open(ix) => {
                let Some(channel) = self.channels.all.get_mut(ix.0) else { return };
                if !matches!(channel.state, State::Opening { .. }) {
                    return;
                }
                let State::Opening { waiting, .. } = core::mem::replace(&mut channel.state, State::Closed) else {
                    return;
                };
                if result.is_ok() {
                    channel.state = State::Open(waiting.len());
                }
                for token in waiting {
                    self.done(token, result);
                }
            }
            Control::Stand(token) => {
                self.stood(token, result.is_ok());
                self.done(token, result);
            }
            Control::Undo(token) => self.done(token, result),
            Control::Owned(token, ix, owned) => self.owned_ended(token, ix, owned, result),
            Control::Late(Some(late)) if result.is_ok() => self.give_back(late),
            Control::Late(_) => {}
        }
    }

    /// The hub takes too long: whoever waits is told so.
    /// The hub has granted, or not, what a token is to stand for.
    fn stood(&mut self, token: Token, granted: bool) {
        let mut replaces = false;
        if let Some(Standing::Provider(ix, event)) = self.channels.standing.get(&token)
            && let Some(provided) = self.channels.all.get_mut(ix.0).and_then(|channel| channel.providers.get_mut(event))
        {
            provided.granted = granted;
            replaces = provided.replaces;
        }
        if !granted
            && let Some((standing, _)) = self.channels.remove(token)
            && replaces
            && self.check_ready().is_ok()
        {
            // What the hub granted to the one that was replaced nobody stands for any more.
            self.tell_undone(Control::Late(None), standing);
        }
    }

    pub(super) fn control_expired(&mut self, id: u64) {
        let Some((control, _)) = self.controls.remove(&id) else { return };
        let late = match &control {
            Control::Open(ix) => Some(Late::Open(*ix)),
            Control::Stand(token) => self.channels.standing.get(token).cloned().map(Late::Stand),
            // Whether an owner's change took place shows when the channel is opened again.
            Control::Owned(..) | Control::Undo(_) | Control::Late(_) => None,
        };
        self.controls.insert(id, (Control::Late(late), None));
        self.control_ended(control, Err(Failure::Local(Misuse::Deadline)));
    }

    /// Leaves a channel that the application does not get to see.
    fn leave_again(&mut self, ix: ChannelIx) {
        let Some(name) = self.channels.name(ix) else { return };
        let id = self.control(Control::Late(None));
        let leave = wire::Leave { id, channel: name.as_name() };
        self.outbox.push(&mut self.pool, FrameType::Leave, |out| leave.encode(out));
    }

    /// Ends an opening before the hub does: it waits for a proof that will not come, and may be told so.
    pub(super) fn give_up_opening(&mut self, id: u64, why: Failure) {
        let Some((control, timer)) = self.controls.remove(&id) else { return };
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        self.control_ended(control, Err(why));
    }

    /// The hub waits for us: its time to answer begins anew with [`Client::resume_control`].
    pub(super) fn pause_control(&mut self, id: u64) {
        if let Some((_, timer)) = self.controls.get_mut(&id)
            && let Some(timer) = timer.take()
        {
            self.timers.cancel(timer);
        }
    }

    pub(super) fn resume_control(&mut self, id: u64) {
        let due = self.now.mono + self.config.limits.registration;
        if let Some((_, timer)) = self.controls.get_mut(&id) {
            *timer = Some(self.timers.insert(due, TimerReason::Registration, Due::Control(id)));
        }
    }

    /// Undoes what the hub granted too late, unless it was asked for anew.
    fn give_back(&mut self, late: Late) {
        match late {
            Late::Open(ix) => {
                let Some(channel) = self.channels.all.get(ix.0).filter(|it| matches!(it.state, State::Closed)) else {
                    return;
                };
                let _ = channel;
                self.leave_again(ix);
            }
            Late::Stand(standing) => {
                if !self.channels.is_wanted(&standing) {
                    self.tell_undone(Control::Late(None), standing);
                }
            }
        }
    }

    /// Closes a channel; nobody is left who could miss what we said there.
    pub(super) fn close_channel(&mut self, ix: ChannelIx) {
        let timer = self.channels.get_mut(ix).and_then(|channel| channel.said.forget());
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        self.channels.clear(ix);
    }

    /// Ends every request to the hub and forgets what the link stood for.
    pub(super) fn lose_channels(&mut self, gone: Misuse) {
        for (control, timer) in core::mem::take(&mut self.controls).into_values() {
            if let Some(timer) = timer {
                self.timers.cancel(timer);
            }
            self.control_ended(control, Err(Failure::Local(gone)));
        }
        for ix in 0..self.channels.all.len() {
            self.close_channel(ChannelIx(ix));
            if let Some(channel) = self.channels.all.get_mut(ix) {
                channel.guarded.lose();
            }
        }
    }

    pub(super) fn done(&mut self, token: Token, result: Result<(), Failure>) {
        self.event(Event::Done { token, result });
    }

    pub(super) fn control(&mut self, control: Control) -> u64 {
        self.control_ids += 1;
        let due = self.now.mono + self.config.limits.registration;
        let timer = self.timers.insert(due, TimerReason::Registration, Due::Control(self.control_ids));
        self.controls.insert(self.control_ids, (control, Some(timer)));
        self.control_ids
    }

    fn check_ready(&self) -> Result<(), Misuse> {
        match &self.phase {
            super::Phase::Ready(_) => Ok(()),
            super::Phase::Idle
            | super::Phase::Dialling
            | super::Phase::Greeted(_)
            | super::Phase::Deriving(_)
            | super::Phase::Proving(_) => Err(Misuse::NotConnected),
        }
    }

    /// Without a connection nothing is open: then that is the reason to tell.
    pub(super) fn or_not_ready(&self, failure: Failure) -> Failure {
        self.check_ready().map_or_else(Failure::Local, |()| failure)
    }
}
