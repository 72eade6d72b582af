//! After the connection has come back: every channel as it was, in the order in which they were opened.
//!
//! ```text
//!  Lost ──OPEN, with key and password──► Open ──RECLAIM──► owned again ──PROVIDE, LISTEN──► as it was
//!   ▲                 │ not protected (yet), the hub is full, or cannot store it just now: later
//!   └─────────────────┤
//!                     └ another password, a name that is taken, or later for too long: ChannelClosed
//! ```
//! The connection does not wait for ever: what is missing after a while is told, and comes after everything else.
//!
//! A member with a password never joins without it. An owner whose hub has forgotten everything claims the channel and
//! protects it as it was, in one step.

use alloc::vec::Vec;
use core::time::Duration;

use super::channels::{ChannelIx, Control, Standing, State};
use super::{Client, Due, Event, Failure, ReconnectEvent, Token, Unrestored};
use crate::canary::Canary;
use crate::error::{Misuse, Refusal};
use crate::names::{ChannelName, EventName};
use crate::time::{Instant, TimerReason};
use crate::timers::TimerId;
use crate::wire::{self, Control as _, FrameType};

/// What a channel needs to come back.
#[derive(Debug, Default)]
pub(super) struct Return {
    /// Requests that are out.
    pending: usize,
    /// Whether it is on its way, from the first OPEN to the last answer.
    pub(super) running: bool,
    /// Who provides or listens since the link went and waits to be told, each with what it asked for: also a provider that
    /// another one has replaced by now.
    pub(super) asked: Vec<(Token, Standing)>,
    tries: u32,
    /// How often in a row the hub could not store what our opening changes.
    unstored: u32,
    timer: Option<TimerId>,
    /// The hub's last word, where it will not open the channel yet, and since when it says so on this connection.
    refused: Option<(Failure, Instant)>,
    /// How long it said so on earlier ones.
    waited: Duration,
    /// It is told to be missing.
    late: bool,
}

/// How often in a row a hub may fail to store that a channel comes back, until it is over: with waits that double from a
/// second on, some ten of them.
const STORED_IN: u32 = 5;

/// How many of the channels that were lost are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    done: usize,
    of: usize,
}

impl Return {
    /// Nothing comes back any more.
    pub(super) const fn stop(&mut self) -> Option<TimerId> {
        (self.pending, self.running, self.tries, self.unstored) = (0, false, 0, 0);
        (self.refused, self.waited, self.late) = (None, Duration::ZERO, false);
        self.timer.take()
    }

    /// The link is gone. What is missing will be told anew.
    fn suspend(&mut self, now: Instant) -> Option<TimerId> {
        (self.pending, self.running, self.late) = (0, false, false);
        if let Some((_, since)) = self.refused.take() {
            self.waited += now.saturating_since(since);
        }
        self.timer.take()
    }

    /// The hub will not open the channel yet; gives how long it has said so.
    fn is_refused(&mut self, why: Failure, now: Instant) -> Duration {
        let since = self.refused.map_or(now, |(_, since)| since);
        self.refused = Some((why, since));
        self.waited + now.saturating_since(since)
    }

    /// Whether a refusal to open the channel may be another answer soon.
    fn may_change(&mut self, why: Failure, challenged: bool) -> bool {
        let unstored = why == Failure::Refused(Refusal::StorageFailed);
        self.unstored = if unstored { self.unstored + 1 } else { 0 };
        if unstored { self.unstored < STORED_IN } else { is_for_now(why, challenged) }
    }
}

impl Client {
    /// The link is gone and another will come: what hung on it waits, and what was only asked for ends.
    pub(super) fn suspend_channels(&mut self, gone: Misuse) {
        self.lose_controls(gone);
        for ix in self.channels.indices() {
            self.suspend_channel(ix);
        }
    }

    /// Nothing is answered any more on a link that is gone. Of what was coming back nothing is told: it is neither here nor
    /// refused.
    pub(super) fn lose_controls(&mut self, gone: Misuse) {
        self.progress = None;
        self.settles();
        for (control, timer) in core::mem::take(&mut self.controls).into_values() {
            if let Some(timer) = timer {
                self.timers.cancel(timer);
            }
            self.attempted(&control);
            match control {
                // They begin anew with their channels, or end with them.
                Control::Reclaim(_) | Control::Standing(..) => {}
                Control::Open(ix) if self.channels.is_coming_back(ix) => self.lose_waiting(ix, gone),
                Control::Open(_)
                | Control::Owned(..)
                | Control::Afar(..)
                | Control::Stand(_)
                | Control::Undo(_)
                | Control::Late(_) => self.control_ended(control, Err(Failure::Local(gone))),
            }
        }
    }

    /// What is open waits until it comes back.
    fn suspend_channel(&mut self, ix: ChannelIx) {
        let Some(channel) = self.channels.get_mut(ix) else { return };
        let beacon = channel.said.forget();
        let retry = channel.coming_back.suspend(self.now.mono);
        channel.guarded.suspend();
        match core::mem::replace(&mut channel.state, State::Closed) {
            State::Open(times) => channel.state = State::Lost { times, waiting: Vec::new() },
            State::Opening { times, waiting, .. } if times > 0 => {
                channel.state = State::Lost { times, waiting };
            }
            State::Lost { times, waiting } => channel.state = State::Lost { times, waiting },
            State::Closed | State::Opening { .. } => {}
        }
        for timer in [beacon, retry].into_iter().flatten() {
            self.timers.cancel(timer);
        }
    }

    /// A membership is over because of the password that we gave the channel ourselves: it comes back with that.
    pub(super) fn rejoin(&mut self, ix: ChannelIx) {
        self.suspend_channel(ix);
        self.restore_channel(ix);
        self.settling();
    }

    fn lose_waiting(&mut self, ix: ChannelIx, gone: Misuse) {
        let Some(State::Opening { waiting, .. }) = self.channels.get_mut(ix).map(|channel| &mut channel.state) else {
            return;
        };
        for token in core::mem::take(waiting) {
            self.done(token, Err(Failure::Local(gone)));
        }
    }

    /// The connection stands: again, or for the first time, and then only what was asked for meanwhile is opened.
    pub(super) fn restore_channels(&mut self, again: bool) {
        let lost = self.channels.lost();
        self.progress = again.then_some(Progress { done: 0, of: lost.len() });
        if again {
            self.settling();
        }
        self.progressed(0);
        for ix in lost {
            self.restore_channel(ix);
        }
    }

    pub(super) fn restore_channel(&mut self, ix: ChannelIx) {
        let Some(channel) = self.channels.get_mut(ix) else { return };
        channel.coming_back.timer = None;
        let State::Lost { times, waiting } = core::mem::replace(&mut channel.state, State::Closed) else { return };
        channel.coming_back.running = true;
        let owned = channel.guarded.was_owner;
        let mut access = channel.access;
        if times > 0 {
            access.secret = channel.guarded.kdf();
            // Who did not own it does not take it now.
            access.plain |= !owned;
        }
        channel.state = State::Opening { waiting, times, access, joining: None };
        let name = channel.name.clone();
        let keys = if access.plain { None } else { self.owner_keys_for(ix, &name, times > 0 && owned) };
        let id = self.control(Control::Open(ix));
        let open = wire::Open {
            id,
            channel: name.as_name(),
            owner: keys.as_ref().map(|keys| &keys.owner),
            record: keys.as_ref().and_then(super::guarding::MaskedKeys::record),
            policy: access.policy.map(wire::Policy::from),
            guarded: access.secret.is_some().then_some(true),
        };
        self.outbox.push(&mut self.pool, FrameType::Open, |out| open.encode(out));
    }

    /// A channel that was lost is open again.
    pub(super) fn reopened(&mut self, ix: ChannelIx) {
        let given = self.is_given_here(ix);
        let Some(channel) = self.channels.get_mut(ix) else { return };
        (channel.coming_back.tries, channel.coming_back.unstored) = (0, 0);
        (channel.coming_back.refused, channel.coming_back.waited) = (None, Duration::ZERO);
        let lacks_owner = (channel.guarded.was_owner || given) && !channel.guarded.owns();
        // What was not confirmed when a link goes is asked for on the next one.
        channel.guarded.was_owner = lacks_owner;
        channel.guarded.anew &= lacks_owner;
        let name = channel.name.clone();
        if lacks_owner && !Canary::Unclaimed.sings() {
            self.reclaim(ix, &name);
        } else {
            self.restore_standing(ix);
        }
    }

    /// The hub has said whether a channel is ours again.
    pub(super) fn reclaimed(&mut self, ix: ChannelIx, result: Result<(), Failure>) {
        let own = self.id.clone();
        // It has ended meanwhile, and that was told; or everything ends with the connection.
        let ended = |channel: &super::channels::Channel| !channel.coming_back.running;
        if self.channels.get(ix).is_none_or(ended) || self.check_ready().is_err() {
            return;
        }
        if let Some(channel) = self.channels.get_mut(ix) {
            channel.guarded.was_owner = false;
            channel.guarded.set_owns(result.is_ok());
            let name = channel.name.clone();
            let anew = core::mem::take(&mut channel.guarded.anew);
            let owner = result.is_ok().then(|| own.clone());
            // Another one may have been heard of meanwhile.
            let news = result.is_ok() || channel.guarded.is_owned_by(&own);
            if let Err(why) = result
                && !anew
            {
                self.event(Event::Reconnect(ReconnectEvent::Unrestored { what: Unrestored::Ownership(name), why }));
            }
            if news {
                self.owner_is(ix, owner);
            }
        }
        self.restore_standing(ix);
    }

    fn restore_standing(&mut self, ix: ChannelIx) {
        let Some(channel) = self.channels.get(ix) else { return };
        let name = channel.name.clone();
        let mut providers: Vec<_> = channel.providers.values().cloned().collect();
        providers.sort_unstable_by_key(|provided| provided.token);
        let mut events = channel.listened();
        events.sort_unstable();
        if Canary::Unheard.sings() {
            events.clear();
        }
        for provided in providers {
            let standing = Standing::Provider(ix, provided.event.clone());
            let tokens = self.waiting_for(ix, &standing);
            let id = self.control(Control::Standing(ix, standing, tokens));
            let (event, kind) = (provided.event.as_name(), provided.kind.number());
            let provide = wire::Provide { id, channel: name.as_name(), event, kind };
            self.outbox.push(&mut self.pool, FrameType::Provide, |out| provide.encode(out));
            self.expects(ix);
        }
        for event in events {
            let standing = Standing::Listener(ix, event.clone());
            let tokens = self.waiting_for(ix, &standing);
            let id = self.control(Control::Standing(ix, standing, tokens));
            let listen = wire::Listen { id, channel: name.as_name(), event: event.as_ref().map(EventName::as_name) };
            self.outbox.push(&mut self.pool, FrameType::Listen, |out| listen.encode(out));
            self.expects(ix);
        }
        self.check_restored(ix);
    }

    fn expects(&mut self, ix: ChannelIx) {
        if let Some(channel) = self.channels.get_mut(ix) {
            channel.coming_back.pending += 1;
        }
    }

    /// Everybody whom the hub's word on one thing concerns.
    fn waiting_for(&self, ix: ChannelIx, standing: &Standing) -> Vec<Token> {
        let mut tokens = self.channels.tokens_of(standing);
        if let Some(channel) = self.channels.get(ix) {
            let replaced = channel.coming_back.asked.iter().filter(|(_, asked)| asked == standing);
            tokens.extend(replaced.map(|(token, _)| *token));
        }
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// The hub has granted, or not, one thing that a channel had.
    pub(super) fn standing_restored(
        &mut self,
        ix: ChannelIx,
        standing: &Standing,
        tokens: Vec<Token>,
        result: Result<(), Failure>,
    ) {
        let lies = Canary::Unprovided.sings() && matches!(standing, Standing::Provider(..));
        let result = if lies { Err(Failure::Refused(Refusal::ProviderExists)) } else { result };
        // The membership ended meanwhile, and the channel comes back once more, with all that stood there.
        let again = self.channels.get(ix).is_some_and(|channel| matches!(channel.state, State::Opening { .. }));
        if again && result == Err(Failure::Refused(Refusal::NotMember)) {
            return;
        }
        for token in tokens {
            let Some(channel) = self.channels.get_mut(ix) else { return };
            let place = channel.coming_back.asked.iter().position(|(asked, _)| *asked == token);
            let asked = place.map(|place| channel.coming_back.asked.swap_remove(place)).is_some();
            let stands = self.channels.standing.contains_key(&token);
            self.stood(token, result.is_ok());
            match result {
                result if asked => self.done(token, result),
                Err(why) if stands => self.tell_unrestored(ix, standing, token, why),
                Ok(()) | Err(_) => {}
            }
        }
        if let Some(channel) = self.channels.get_mut(ix) {
            channel.coming_back.pending = channel.coming_back.pending.saturating_sub(1);
        }
        self.check_restored(ix);
    }

    /// Something is undone before the hub was asked for it: whoever waits to be told is told that it is given up, and with
    /// the last one those that it had replaced.
    pub(super) fn give_up_asked(&mut self, standing: &Standing, undone: Token) {
        let (Standing::Provider(ix, _) | Standing::Listener(ix, _)) = standing;
        let wanted = self.channels.is_wanted(standing);
        let Some(channel) = self.channels.get_mut(*ix) else { return };
        let gone = |(token, asked): &mut (Token, Standing)| *token == undone || asked == standing && !wanted;
        let given_up: Vec<Token> = channel.coming_back.asked.extract_if(.., gone).map(|(token, _)| token).collect();
        for token in given_up {
            self.done(token, Err(Failure::Local(Misuse::Cancelled)));
        }
    }

    fn tell_unrestored(&mut self, ix: ChannelIx, standing: &Standing, token: Token, why: Failure) {
        let Some(channel) = self.channels.name(ix) else { return };
        let what = match standing {
            Standing::Provider(_, event) => Unrestored::Provider { token, channel, event: event.clone() },
            Standing::Listener(..) => Unrestored::Listener { token, channel },
        };
        self.event(Event::Reconnect(ReconnectEvent::Unrestored { what, why }));
    }

    fn check_restored(&mut self, ix: ChannelIx) {
        let Some(channel) = self.channels.get_mut(ix) else { return };
        if channel.coming_back.pending > 0 || !core::mem::take(&mut channel.coming_back.running) {
            return;
        }
        if core::mem::take(&mut channel.coming_back.late) {
            let channel = channel.name.clone();
            self.event(Event::Reconnect(ReconnectEvent::Returned { channel }));
        } else {
            self.progressed(1);
        }
        self.unpark();
    }

    /// A channel could not be opened again: it is tried later, or it is over. `challenged` is whether its password was asked.
    pub(super) fn not_reopened(&mut self, ix: ChannelIx, times: usize, why: Failure, challenged: bool) {
        let (most, now) = (self.config.reconnect.unwrap_or_default(), self.now.mono);
        let Some(channel) = self.channels.get_mut(ix) else { return };
        channel.coming_back.running = false;
        let may_change = channel.coming_back.may_change(why, challenged);
        let left = most.missing.saturating_sub(channel.coming_back.is_refused(why, now));
        if may_change && !left.is_zero() {
            channel.state = State::Lost { times, waiting: Vec::new() };
            channel.coming_back.tries = channel.coming_back.tries.saturating_add(1);
            let doublings = channel.coming_back.tries.min(20) - 1;
            let wait = self.jitter(most.first.saturating_mul(1 << doublings).min(most.longest)).min(left);
            let timer = self.timers.insert(self.now.mono + wait, TimerReason::Reconnect, Due::Restore(ix));
            if let Some(channel) = self.channels.get_mut(ix) {
                channel.coming_back.timer = Some(timer);
            }
            return;
        }
        let name = channel.name.clone();
        channel.coming_back.running = true;
        self.channel_over(ix, name, why);
    }

    /// A membership is over. Where the channel was coming back there is nothing more to come.
    pub(super) fn channel_over(&mut self, ix: ChannelIx, name: ChannelName, why: Failure) {
        let Some(channel) = self.channels.get(ix) else { return };
        let returned = channel.coming_back.running;
        let owned = channel.guarded.owns() || channel.guarded.was_owner;
        self.close_channel(ix);
        if let Some(channel) = self.channels.get_mut(ix) {
            channel.guarded.owned_last = owned;
        }
        self.event(Event::ChannelClosed { channel: name, why });
        if returned {
            self.progressed(1);
            self.unpark();
        }
    }

    /// Nobody wants a lost channel any more.
    pub(super) fn forget_lost(&mut self, ix: ChannelIx) {
        self.close_channel(ix);
        self.progressed(1);
        self.unpark();
    }

    fn progressed(&mut self, by: usize) {
        let Some(progress) = &mut self.progress else { return };
        progress.done += by;
        let Progress { done, of } = *progress;
        if done < of {
            return self.event(Event::Reconnect(ReconnectEvent::Restoring { done, of }));
        }
        self.progress = None;
        self.settles();
        self.event(Event::Reconnect(ReconnectEvent::Restored { channels: of }));
    }

    /// What comes back is waited for, and not for ever.
    fn settling(&mut self) {
        if self.tries.settles.is_none() {
            let settle = self.config.reconnect.unwrap_or_default().settle.min(crate::TIME_LEFT_MAX);
            self.tries.settles = Some(self.timers.insert(self.now.mono + settle, TimerReason::Reconnect, Due::Settled));
        }
    }

    /// Nothing is waited for any more.
    fn settles(&mut self) {
        if let Some(timer) = self.tries.settles.take() {
            self.timers.cancel(timer);
        }
    }

    /// Everything has had its time to come back.
    pub(super) fn settled(&mut self) {
        self.tries.settles = None;
        let mut missing: Vec<ChannelIx> = self.channels.indices().collect();
        missing.retain(|ix| self.channels.is_coming_back(*ix));
        missing.sort_by_key(|ix| self.channels.get(*ix).map(|channel| channel.opening));
        for ix in missing {
            self.is_late(ix);
        }
        if let Some(Progress { of, .. }) = self.progress.take() {
            self.event(Event::Reconnect(ReconnectEvent::Restored { channels: of }));
        }
    }

    /// Tells that a channel is missing, if it was open before the connection went and nobody has told so.
    fn is_late(&mut self, ix: ChannelIx) {
        let Some(channel) = self.channels.get_mut(ix) else { return };
        let was_open = match &channel.state {
            State::Lost { times, .. } | State::Opening { times, .. } | State::Open(times) => *times > 0,
            State::Closed => false,
        };
        if !was_open || core::mem::replace(&mut channel.coming_back.late, true) {
            return;
        }
        let why = channel.coming_back.refused.map_or(Failure::Local(Misuse::Deadline), |(why, _)| why);
        let what = Unrestored::Channel(channel.name.clone());
        self.event(Event::Reconnect(ReconnectEvent::Unrestored { what, why }));
    }
}

/// Whether a refusal to open a channel may be another answer soon: its owner comes back, or the hub has room.
const fn is_for_now(why: Failure, challenged: bool) -> bool {
    match why {
        // The hub remembers a later protection than the one that we would give it: ours is over.
        Failure::Refused(Refusal::EpochMismatch) => challenged,
        Failure::Refused(refusal) => refusal.is_retryable() || matches!(refusal, Refusal::Deadline),
        Failure::Local(Misuse::Deadline) => true,
        Failure::RefusedCode(_) | Failure::Local(_) => false,
    }
}
