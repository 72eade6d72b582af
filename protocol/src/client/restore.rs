//! After the connection has come back: every channel as it was, in the order in which they were opened.
//!
//! ```text
//!  Lost ──OPEN, with key and password──► Open ──RECLAIM──► owned again ──PROVIDE, LISTEN──► as it was
//!   ▲                 │ not protected (yet), the hub is full: later
//!   └─────────────────┤
//!                     └ another password, a name that is taken: ChannelClosed
//! ```
//! A member with a password never joins without it. An owner whose hub has forgotten everything claims the channel and
//! protects it as it was, in one step.

use alloc::vec::Vec;

use super::channels::{ChannelIx, Control, Standing, State};
use super::{Client, Due, Event, Failure, ReconnectEvent, Token, Unrestored};
use crate::error::{Misuse, Refusal};
use crate::names::EventName;
use crate::time::TimerReason;
use crate::timers::TimerId;
use crate::wire::{self, Control as _, FrameType};

/// What a channel needs to come back.
#[derive(Debug, Default)]
pub(super) struct Return {
    /// Requests that are out.
    pending: usize,
    /// Whether it is on its way, from the first OPEN to the last answer.
    pub(super) running: bool,
    /// Who provides or listens since the link went, and waits to be told.
    pub(super) asked: Vec<Token>,
    tries: u32,
    timer: Option<TimerId>,
}

/// How many of the channels that were lost are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    done: usize,
    of: usize,
}

impl Return {
    /// Nothing comes back any more.
    pub(super) const fn stop(&mut self) -> Option<TimerId> {
        (self.pending, self.running, self.tries) = (0, false, 0);
        self.timer.take()
    }
}

impl Client {
    /// The link is gone and another will come: what hung on it waits, and what was only asked for ends.
    pub(super) fn suspend_channels(&mut self, gone: Misuse) {
        self.progress = None;
        for (control, timer) in core::mem::take(&mut self.controls).into_values() {
            if let Some(timer) = timer {
                self.timers.cancel(timer);
            }
            match control {
                // They begin anew, with their channels.
                Control::Reclaim(_) | Control::Standing(..) => {}
                Control::Open(ix) if self.channels.is_coming_back(ix) => self.lose_waiting(ix, gone),
                Control::Open(_) | Control::Owned(..) | Control::Stand(_) | Control::Undo(_) | Control::Late(_) => {
                    self.control_ended(control, Err(Failure::Local(gone)))
                }
            }
        }
        for ix in self.channels.indices() {
            let Some(channel) = self.channels.get_mut(ix) else { continue };
            let beacon = channel.said.forget();
            let retry = channel.coming_back.timer.take();
            channel.coming_back.pending = 0;
            channel.coming_back.running = false;
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
    }

    fn lose_waiting(&mut self, ix: ChannelIx, gone: Misuse) {
        let Some(State::Opening { waiting, .. }) = self.channels.get_mut(ix).map(|channel| &mut channel.state) else {
            return;
        };
        for token in core::mem::take(waiting) {
            self.done(token, Err(Failure::Local(gone)));
        }
    }

    /// The connection stands again.
    pub(super) fn restore_channels(&mut self) {
        let lost: Vec<ChannelIx> = self.channels.indices().filter(|ix| self.channels.is_lost(*ix)).collect();
        self.progress = Some(Progress { done: 0, of: lost.len() });
        if lost.is_empty() {
            self.progressed(0);
        }
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
        let Some(channel) = self.channels.get_mut(ix) else { return };
        channel.coming_back.tries = 0;
        let lacks_owner = channel.guarded.was_owner && !channel.guarded.owns();
        channel.guarded.was_owner = false;
        let name = channel.name.clone();
        if lacks_owner {
            self.reclaim(ix, &name);
        } else {
            self.restore_standing(ix);
        }
    }

    /// The hub has said whether a channel is ours again.
    pub(super) fn reclaimed(&mut self, ix: ChannelIx, result: Result<(), Failure>) {
        if let Some(channel) = self.channels.get_mut(ix) {
            channel.guarded.set_owns(result.is_ok());
            let name = channel.name.clone();
            if let Err(why) = result {
                self.event(Event::Reconnect(ReconnectEvent::Unrestored { what: Unrestored::Ownership(name), why }));
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
        for provided in providers {
            let id = self.control(Control::Standing(ix, Standing::Provider(ix, provided.event.clone())));
            let (event, kind) = (provided.event.as_name(), provided.kind.number());
            let provide = wire::Provide { id, channel: name.as_name(), event, kind };
            self.outbox.push(&mut self.pool, FrameType::Provide, |out| provide.encode(out));
            self.expects(ix);
        }
        for event in events {
            let id = self.control(Control::Standing(ix, Standing::Listener(ix, event.clone())));
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

    /// The hub has granted, or not, one thing that a channel had.
    pub(super) fn standing_restored(&mut self, ix: ChannelIx, standing: &Standing, result: Result<(), Failure>) {
        for token in self.channels.tokens_of(standing) {
            let Some(channel) = self.channels.get_mut(ix) else { return };
            let asked = channel.coming_back.asked.iter().position(|asked| *asked == token);
            let asked = asked.map(|place| channel.coming_back.asked.swap_remove(place));
            self.stood(token, result.is_ok());
            match (asked, result) {
                (Some(token), result) => self.done(token, result),
                (None, Err(why)) => self.tell_unrestored(ix, standing, token, why),
                (None, Ok(())) => {}
            }
        }
        if let Some(channel) = self.channels.get_mut(ix) {
            channel.coming_back.pending = channel.coming_back.pending.saturating_sub(1);
        }
        self.check_restored(ix);
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
        self.progressed(1);
        self.unpark();
    }

    /// A channel could not be opened again: it is tried later, or it is over.
    pub(super) fn not_reopened(&mut self, ix: ChannelIx, times: usize, why: Failure) {
        let most = self.config.reconnect.unwrap_or_default();
        let Some(channel) = self.channels.get_mut(ix) else { return };
        channel.coming_back.running = false;
        if is_for_now(why) {
            channel.state = State::Lost { times, waiting: Vec::new() };
            channel.coming_back.tries = channel.coming_back.tries.saturating_add(1);
            let doublings = channel.coming_back.tries.min(20) - 1;
            let wait = self.jitter(most.first.saturating_mul(1 << doublings).min(most.longest));
            let timer = self.timers.insert(self.now.mono + wait, TimerReason::Reconnect, Due::Restore(ix));
            if let Some(channel) = self.channels.get_mut(ix) {
                channel.coming_back.timer = Some(timer);
            }
            return;
        }
        let name = channel.name.clone();
        self.close_channel(ix);
        self.event(Event::ChannelClosed { channel: name, why });
        self.progressed(1);
        self.unpark();
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
        self.event(Event::Reconnect(ReconnectEvent::Restored { channels: of }));
    }
}

/// Whether a refusal to open a channel may be another answer soon: its owner comes back, or the hub has room.
const fn is_for_now(why: Failure) -> bool {
    match why {
        Failure::Refused(refusal) => refusal.is_retryable() || matches!(refusal, Refusal::Deadline),
        Failure::Local(Misuse::Deadline) => true,
        Failure::RefusedCode(_) | Failure::Local(_) => false,
    }
}
