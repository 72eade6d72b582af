//! What a client asks its hub to register: members, providers and listeners, and the undoing of each.

use core::time::Duration;

use super::channels::{ChannelIx, Control, Late, Provided, Standing, State};
use super::owning::Owned;
use super::{Access, Client, Due, Event, EventKind, Failure, Token};
use crate::error::{Misuse, Refusal, Violation};
use crate::names::{ChannelName, EventName};
use crate::time::TimerReason;
use crate::wire::{self, Control as _, Done, Frame, FrameType};

impl Client {
    pub(super) fn handle_open(&mut self, token: Token, name: ChannelName, access: Access) {
        let away = self.is_away();
        if let Err(misuse) = self.check_ready()
            && !away
        {
            return self.done(token, Err(Failure::Local(misuse)));
        }
        let (ix, opening) = (self.channels.index(&name), self.channels.next_opening());
        let Some(channel) = self.channels.get_mut(ix) else { return };
        match &mut channel.state {
            State::Lost { times: 1.., .. } if access.secret.is_some() && !channel.guarded.is_proved() => {
                self.done(token, Err(Failure::Refused(Refusal::NotProtected)));
            }
            // Whoever waits for it to be opened for the first time wants it as they asked.
            State::Lost { times: 0, .. } if channel.access.secret != access.secret => {
                self.done(token, Err(Failure::Local(Misuse::TooMany)));
            }
            State::Lost { waiting, .. } => waiting.push(token),
            State::Closed if away => {
                (channel.access, channel.opening) = (access, opening);
                channel.state = State::Lost { times: 0, waiting: alloc::vec![token] };
            }
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
                (channel.access, channel.opening) = (access, opening);
                channel.state = State::Opening { waiting: alloc::vec![token], times: 0, access, joining: None };
                let keys = if access.plain { None } else { self.owner_keys_for(ix, &name, false) };
                let id = self.control(Control::Open(ix));
                let open = wire::Open {
                    id,
                    channel: name.as_name(),
                    owner: keys.as_ref().map(|keys| &keys.owner),
                    record: None,
                    policy: access.policy.map(wire::Policy::from),
                    guarded: access.secret.is_some().then_some(true),
                };
                self.outbox.push(&mut self.pool, FrameType::Open, |out| open.encode(out));
            }
        }
    }

    pub(super) fn handle_leave(&mut self, token: Token, name: &ChannelName) {
        let (ix, channel) = match self.channels.held(name) {
            Ok(open) => open,
            Err(failure) => return self.done(token, Err(failure)),
        };
        match &mut channel.state {
            State::Open(times) if *times > 1 => {
                *times -= 1;
                return self.done(token, Ok(()));
            }
            // The hub knows nothing of it, or hears of it when it has answered.
            State::Lost { times, .. } | State::Opening { times, .. } if *times > 0 => {
                *times -= 1;
                match &channel.state {
                    State::Lost { times: 0, waiting } if waiting.is_empty() => self.forget_lost(ix),
                    State::Opening { times: 0, waiting, .. } if waiting.is_empty() => self.left_opening(ix),
                    State::Closed | State::Lost { .. } | State::Opening { .. } | State::Open(_) => {}
                }
                return self.done(token, Ok(()));
            }
            State::Open(_) | State::Lost { .. } | State::Opening { .. } | State::Closed => {}
        }
        let running = core::mem::take(&mut channel.coming_back.running);
        if channel.guarded.seal.is_some() {
            self.give_up_calls(name);
            self.abandon_requests(name);
        }
        self.close_channel(ix);
        if running {
            self.forget_lost(ix);
        }
        let id = self.control(Control::Undo(token));
        let leave = wire::Leave { id, channel: name.as_name() };
        self.outbox.push(&mut self.pool, FrameType::Leave, |out| leave.encode(out));
    }

    pub(super) fn handle_provide(&mut self, token: Token, name: &ChannelName, event: EventName, kind: EventKind) {
        let (ix, channel) = match self.channels.held(name) {
            Ok(open) => open,
            Err(failure) => return self.done(token, Err(self.or_not_ready(failure))),
        };
        let open = matches!(channel.state, State::Open(_));
        let older = channel.providers.remove(&event);
        let provided = Provided { event: event.clone(), token, kind, replaces: older.is_some() };
        channel.providers.insert(event.clone(), provided);
        if !open {
            channel.coming_back.asked.push((token, Standing::Provider(ix, event.clone())));
        }
        if let Some(older) = older {
            self.channels.standing.remove(&older.token);
        }
        self.channels.standing.insert(token, Standing::Provider(ix, event.clone()));
        if !open {
            return;
        }
        // Also where it is provided already: the hub may have ended that, and the news of it be on its way.
        let id = self.control(Control::Stand(token));
        let provide = wire::Provide { id, channel: name.as_name(), event: event.as_name(), kind: kind.number() };
        self.outbox.push(&mut self.pool, FrameType::Provide, |out| provide.encode(out));
    }

    pub(super) fn handle_listen(&mut self, token: Token, name: &ChannelName, event: Option<EventName>) {
        let (ix, channel) = match self.channels.held(name) {
            Ok(open) => open,
            Err(failure) => return self.done(token, Err(self.or_not_ready(failure))),
        };
        let open = matches!(channel.state, State::Open(_));
        if !open {
            channel.coming_back.asked.push((token, Standing::Listener(ix, event.clone())));
        }
        match &event {
            Some(event) => channel.listeners.entry(event.clone()).or_default().push(token),
            None => channel.all_events.push(token),
        }
        self.channels.standing.insert(token, Standing::Listener(ix, event.clone()));
        if !open {
            return;
        }
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

    /// Undoes what a token stands for, unless that is done already; nobody waits for it.
    pub(super) fn take_back(&mut self, standing: Token) {
        let Some((standing, tell_hub)) = self.channels.remove(standing) else { return };
        self.channels.forget_numbers(&standing);
        if tell_hub && self.is_open(&standing) {
            self.tell_undone(Control::Late(None), standing);
        }
    }

    fn undo(&mut self, token: Token, undone: Token) {
        let Some((standing, tell_hub)) = self.channels.remove(undone) else {
            return self.done(token, Err(self.or_not_ready(Failure::Local(Misuse::UnknownToken))));
        };
        self.channels.forget_numbers(&standing);
        self.give_up_asked(&standing, undone);
        if !tell_hub || !self.is_open(&standing) {
            return self.done(token, Ok(()));
        }
        self.tell_undone(Control::Undo(token), standing);
    }

    /// Whether the channel is open that something stands in.
    fn is_open(&self, standing: &Standing) -> bool {
        let (Standing::Provider(ix, _) | Standing::Listener(ix, _)) = standing;
        self.channels.get(*ix).is_some_and(|channel| matches!(channel.state, State::Open(_)))
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
            // Our hub passes on what it is told: somebody on the way to the home is not honest.
            (Control::Afar(_, _, afar) | Control::Late(Some(Late::Afar(_, afar))), Ok(())) if !afar.is_done(&done) => {
                Err(Failure::Refused(Refusal::HomeGone))
            }
            (_, result) => result,
        };
        self.control_ended(control, result);
        Ok(())
    }

    pub(super) fn control_ended(&mut self, control: Control, result: Result<(), Failure>) {
        match control {
            Control::Open(ix) => {
                let Some(channel) = self.channels.get_mut(ix) else { return };
                if !matches!(channel.state, State::Opening { .. }) {
                    return;
                }
                let State::Opening { waiting, times, joining, .. } =
                    core::mem::replace(&mut channel.state, State::Closed)
                else {
                    return;
                };
                let total = times + waiting.len();
                if result.is_ok() && total > 0 {
                    channel.state = State::Open(total);
                }
                let returns = channel.coming_back.running;
                if result.is_ok() && total > 0 && !returns {
                    self.claim_back(ix);
                }
                for token in waiting {
                    self.done(token, result);
                }
                match result {
                    _ if !returns => {}
                    Ok(()) if total > 0 => self.reopened(ix),
                    // Everybody has left while it came back.
                    Ok(()) => {
                        self.leave_again(ix);
                        self.forget_lost(ix);
                    }
                    Err(_) if times == 0 => self.forget_lost(ix),
                    Err(why) => self.not_reopened(ix, times, why, joining.is_some()),
                }
            }
            Control::Stand(token) => {
                self.stood(token, result.is_ok());
                self.done(token, result);
            }
            Control::Undo(token) => self.done(token, result),
            Control::Owned(token, ix, owned) => {
                let result = result.and_then(|()| self.owner_did(ix, owned));
                self.done(token, result);
            }
            Control::Afar(token, ix, afar) => {
                let result = result.and_then(|()| self.did_afar(ix, afar));
                self.done(token, result);
            }
            Control::Reclaim(ix) => self.reclaimed(ix, result),
            Control::Standing(ix, standing, tokens) => self.standing_restored(ix, &standing, tokens, result),
            Control::Late(Some(late)) if result.is_ok() => self.granted_late(late),
            // Whatever else has happened, it may be ours.
            Control::Late(Some(Late::Owned(ix, Owned::Reclaim))) if !matches!(result, Err(Failure::Local(_))) => {
                if let Some(channel) = self.channels.get_mut(ix) {
                    channel.guarded.owned_last = false;
                }
            }
            Control::Late(_) => {}
        }
    }

    /// The hub has granted, or not, what a token is to stand for.
    pub(super) fn stood(&mut self, token: Token, granted: bool) {
        let mut replaces = false;
        if let Some(Standing::Provider(ix, event)) = self.channels.standing.get(&token).cloned()
            && let Some(provided) = self.channels.get(ix).and_then(|channel| channel.providers.get(&event))
        {
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

    /// The hub takes too long: whoever waits is told so.
    pub(super) fn control_expired(&mut self, id: u64) {
        let Some((control, _)) = self.controls.remove(&id) else { return };
        let deadline = Failure::Local(Misuse::Deadline);
        let late = match &control {
            Control::Open(ix) => Some(Late::Open(*ix)),
            Control::Stand(token) => self.channels.standing.get(token).cloned().map(Late::Stand),
            Control::Owned(..) | Control::Afar(..) | Control::Undo(_) | Control::Late(_) => None,
            // They have no time.
            Control::Reclaim(_) | Control::Standing(..) => None,
        };
        if let Control::Owned(token, ix, owned) = control {
            self.controls.insert(id, (Control::Late(Some(Late::Owned(ix, owned))), None));
            return self.done(token, Err(deadline));
        }
        if let Control::Afar(token, ix, afar) = control {
            self.controls.insert(id, (Control::Late(Some(Late::Afar(ix, afar))), None));
            return self.done(token, Err(deadline));
        }
        self.controls.insert(id, (Control::Late(late), None));
        self.control_ended(control, Err(deadline));
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

    /// Its answer may be kept back for so long beyond the time that the hub has for it.
    pub(super) fn resume_control(&mut self, id: u64, kept_back: Duration) {
        let due = self.now.mono + self.config.limits.registration + kept_back;
        if let Some((_, timer)) = self.controls.get_mut(&id) {
            *timer = Some(self.timers.insert(due, TimerReason::Registration, Due::Control(id)));
        }
    }

    /// Undoes what the hub granted too late, unless it was asked for anew. What an owner has changed is changed.
    fn granted_late(&mut self, late: Late) {
        match late {
            Late::Open(ix) => {
                let closed = |it: &super::channels::Channel| matches!(it.state, State::Closed | State::Lost { .. });
                if self.channels.get(ix).is_some_and(closed) {
                    self.leave_again(ix);
                }
            }
            // Nobody is left to be told that something newer is in force.
            Late::Owned(ix, owned) => drop(self.owner_did(ix, owned)),
            Late::Afar(ix, afar) => drop(self.did_afar(ix, afar)),
            Late::Stand(standing) => {
                if !self.channels.is_wanted(&standing) {
                    self.tell_undone(Control::Late(None), standing);
                }
            }
        }
    }

    /// The last one leaves a channel that comes back: whoever opens it before it is back finds nothing of theirs there.
    fn left_opening(&mut self, ix: ChannelIx) {
        let Some(channel) = self.channels.get_mut(ix) else { return };
        channel.guarded.was_owner = false;
        channel.guarded.unseal();
        let asked = core::mem::take(&mut channel.coming_back.asked);
        self.channels.forget_standing(ix);
        self.refuse_asked(asked);
    }

    fn refuse_asked(&mut self, asked: alloc::vec::Vec<(Token, Standing)>) {
        for (token, _) in asked {
            self.done(token, Err(Failure::Refused(Refusal::NotMember)));
        }
    }

    /// Closes a channel; nobody is left who could miss what we said there.
    pub(super) fn close_channel(&mut self, ix: ChannelIx) {
        let Some(channel) = self.channels.get_mut(ix) else { return };
        let (beacon, retry) = (channel.said.forget(), channel.coming_back.stop());
        let asked = core::mem::take(&mut channel.coming_back.asked);
        for timer in [beacon, retry].into_iter().flatten() {
            self.timers.cancel(timer);
        }
        self.refuse_asked(asked);
        self.channels.clear(ix);
    }

    /// Ends every request to the hub and forgets what the link stood for.
    pub(super) fn lose_channels(&mut self, gone: Misuse) {
        self.lose_controls(gone);
        for ix in self.channels.indices() {
            let Some(channel) = self.channels.get_mut(ix) else { continue };
            channel.guarded.lose();
            let asked = core::mem::take(&mut channel.coming_back.asked).into_iter();
            let mut waiting: alloc::vec::Vec<Token> = asked.map(|(token, _)| token).collect();
            if let State::Lost { waiting: opening, .. } = &mut channel.state {
                waiting.append(opening);
            }
            for token in waiting {
                self.done(token, Err(Failure::Local(gone)));
            }
            self.close_channel(ix);
        }
    }

    pub(super) fn done(&mut self, token: Token, result: Result<(), Failure>) {
        self.event(Event::Done { token, result });
    }

    pub(super) fn control(&mut self, control: Control) -> u64 {
        self.control_ids += 1;
        let due = self.now.mono + self.config.limits.registration;
        // Silence does not refuse what comes back: the hub says so in the end, or the link is found to be dead.
        let waits = !matches!(control, Control::Standing(..) | Control::Reclaim(_));
        let timer = waits.then(|| self.timers.insert(due, TimerReason::Registration, Due::Control(self.control_ids)));
        self.controls.insert(self.control_ids, (control, timer));
        self.control_ids
    }

    pub(super) fn check_ready(&self) -> Result<(), Misuse> {
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
