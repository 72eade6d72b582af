//! How a hub comes to its end: nothing new is taken on, what runs is finished, then everybody is said goodbye to.
//!
//! ```text
//!            Drain                  no request runs any more
//!  serving ────────► draining ───────────────────────────────► Shutdown: goodbye, flush, close ──► Stopped
//!                       │  the time is over                        ▲
//!                       └── what still runs ends on both sides ────┘
//! ```
//! Hubs that bridges join with this one hear at once that nobody can be asked here, or beyond, any more; broadcasts go on.
//! Whoever works on a request may still ask and say what it needs to finish: the hub cannot know what belongs to it.

use core::time::Duration;

use super::registry::LinkIx;
use super::session::Session;
use super::{DisconnectReason, Due, Event, Hub};
use crate::error::Refusal;
use crate::slots::Key;
use crate::time::TimerReason;
use crate::timers::TimerId;

/// A hub on its way to its end.
#[derive(Debug)]
pub(super) struct Drain {
    timer: TimerId,
    /// How much ran when that was told last.
    told: Option<usize>,
}

impl Hub {
    pub(super) fn handle_drain(&mut self, time: Duration) {
        if self.stopping {
            return;
        }
        let timer = self.timers.insert(self.now.mono + time, TimerReason::Drain, Due::Drain);
        let told = match self.drain.replace(Drain { timer, told: None }) {
            // Another time was given meanwhile.
            Some(older) => {
                self.timers.cancel(older.timer);
                older.told
            }
            None => None,
        };
        if let Some(drain) = &mut self.drain {
            drain.told = told;
        }
        self.withdraw_providers();
        let strangers = self.links.indices().filter(|ix| self.links.get(*ix).and_then(Session::member).is_none());
        self.doomed.extend(strangers.map(|ix| (ix, DisconnectReason::Refused(Refusal::ShuttingDown))));
    }

    /// Whether no more links are taken.
    pub(super) const fn is_closing(&self) -> bool {
        self.stopping || self.drain.is_some()
    }

    /// Whether it finishes what runs and takes nothing more on.
    pub(super) const fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Why nothing more may be taken on from a link, if so.
    pub(super) fn turns_down(&self, ix: LinkIx) -> Option<Refusal> {
        let serves = || self.links.get(ix).and_then(Session::member).is_some_and(|member| member.serving.is_some());
        if self.drain.is_some() && !serves() {
            Some(Refusal::Draining)
        } else if self.is_full() {
            Some(Refusal::Overloaded)
        } else {
            None
        }
    }

    /// Tells how much still runs, and goes on to the end when nothing does.
    pub(super) fn watch_drain(&mut self) {
        let running = self.calls.len() + self.changes.len();
        let Some(drain) = self.drain.as_mut() else { return };
        if drain.told.replace(running) != Some(running) {
            self.event(Event::Draining { running });
        }
        if running == 0 {
            self.handle_shutdown();
        }
    }

    /// The drain is over, one way or the other.
    pub(super) fn end_drain(&mut self) {
        let Some(drain) = self.drain.take() else { return };
        self.timers.cancel(drain.timer);
        self.event(Event::Drained { cut: self.calls.len() });
    }

    /// What still runs ends, and both sides are told so.
    pub(super) fn cut_calls(&mut self) {
        let running: alloc::vec::Vec<Key> = self.calls.iter().map(|(key, _)| key).collect();
        for key in running {
            self.end_call_with(key, Refusal::ShuttingDown);
        }
    }
}
