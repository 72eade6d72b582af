//! How a client, or one of its providers, comes to its end: nothing new is taken on or asked for, and what runs is finished.
//!
//! ```text
//!            Drain                                       nothing runs any more
//!  Ready ──────────► unlisten, withdraw, then draining ────────────────────────► Close: goodbye, flush, Closed
//!                                       │  the time is over                         ▲
//!                                       └── what still runs ends on both sides ─────┘
//! ```
//! While requests are worked on, the application may still ask and say what it needs to finish them.

use alloc::vec::Vec;
use core::time::Duration;

use super::channels::Standing;
use super::{Client, Command, Due, Event, Failure, Phase, RequestId, StreamCommand, Token};
use crate::canary::Canary;
use crate::error::{Misuse, Refusal};
use crate::slots::Key;
use crate::time::TimerReason;
use crate::timers::TimerId;

/// What an application may ask of what comes to its end.
#[derive(Clone, Debug)]
pub enum DrainCommand {
    /// The client: stop listening, withdraw all providers, finish what runs, then as [`Command::Close`]. New calls, sends,
    /// broadcasts, openings, providers and listeners are turned down with [`Misuse::Draining`], unless requests are worked
    /// on, which may need them. [`Event::Draining`] tells how much still runs. Given again, it counts from then.
    Client {
        /// How long that may take. What still runs then is ended: our own calls with [`Misuse::Closed`], requests to our
        /// providers with [`Refusal::ProviderGone`] for their callers.
        time: Duration,
        /// Whether the application works on something else, such as a send: then it goes on as for requests until
        /// [`DrainCommand::Finished`], as long as there is a connection, or one to come back.
        busy: bool,
    },
    /// The application works on nothing any more that the client has to wait for, but for requests.
    Finished,
    /// One provider: withdraw it and finish its requests. [`Event::Draining`] tells how many still run.
    Provider {
        /// The token of the `Provide`.
        provider: Token,
        /// How long that may take. What still runs then is ended as above.
        time: Duration,
    },
}

/// All that is on its way to its end.
#[derive(Debug, Default)]
pub(super) struct Drains {
    client: Option<Drain>,
    providers: Vec<(Token, Drain)>,
}

#[derive(Debug)]
struct Drain {
    timer: TimerId,
    /// The application works on something that the client knows nothing of.
    busy: bool,
    /// How much ran when that was told last.
    told: Option<usize>,
}

impl Client {
    pub(super) fn handle_drain(&mut self, command: DrainCommand) {
        match command {
            DrainCommand::Client { time, busy } => self.drain(time, busy),
            DrainCommand::Provider { provider, time } => self.drain_provider(provider, time),
            DrainCommand::Finished => {
                if let Some(drain) = &mut self.drains.client {
                    drain.busy = false;
                }
            }
        }
    }

    fn drain(&mut self, time: Duration, busy: bool) {
        let timer = self.timers.insert(self.now.mono + time, TimerReason::Drain, Due::Drain(None));
        if let Some(older) = self.drains.client.replace(Drain { timer, busy, told: None }) {
            self.timers.cancel(older.timer);
        }
        let order = |(token, it): (&Token, &Standing)| (matches!(it, Standing::Provider(..)), *token);
        let mut standing: Vec<(bool, Token)> = self.channels.standing.iter().map(order).collect();
        // Listeners first.
        standing.sort_unstable();
        for (_, token) in standing {
            self.take_back(token);
        }
    }

    fn drain_provider(&mut self, provider: Token, time: Duration) {
        let timer = self.timers.insert(self.now.mono + time, TimerReason::Drain, Due::Drain(Some(provider)));
        self.drains.providers.push((provider, Drain { timer, busy: false, told: None }));
        self.take_back(provider);
    }

    /// Gives a command back, unless it asks for something new of a client that takes nothing new on.
    pub(super) fn turn_down_new(&mut self, command: Command) -> Option<Command> {
        if self.drains.client.as_ref().is_none_or(|drain| drain.busy) || !self.serving.is_empty() {
            return Some(command);
        }
        match command {
            Command::Call { .. }
            | Command::Send { .. }
            | Command::Broadcast { .. }
            | Command::Stream(StreamCommand::Ask { .. }) => {
                self.turn_down(command, Misuse::Draining, false);
                None
            }
            Command::Open { token, .. } | Command::Provide { token, .. } | Command::Listen { token, .. } => {
                self.done(token, Err(Failure::Local(Misuse::Draining)));
                None
            }
            Command::Connect
            | Command::SetSecret(_)
            | Command::KeyDerived(_)
            | Command::ChannelKeyDerived { .. }
            | Command::ChannelKeyFailed { .. }
            | Command::Protect { .. }
            | Command::Unprotect { .. }
            | Command::Reclaim { .. }
            | Command::Terminate { .. }
            | Command::SetOwnerKey(_)
            | Command::Leave { .. }
            | Command::Withdraw { .. }
            | Command::Unlisten { .. }
            | Command::Cancel { .. }
            | Command::Answer { .. }
            | Command::Stream(
                StreamCommand::Accept { .. }
                | StreamCommand::Items { .. }
                | StreamCommand::Consumed { .. }
                | StreamCommand::Finish { .. },
            )
            | Command::Drain(_)
            | Command::Close => Some(command),
        }
    }

    /// Tells how much still runs of what is drained, and goes on to the end when nothing does.
    pub(super) fn watch_drains(&mut self) {
        if self.drains.client.is_none() && self.drains.providers.is_empty() {
            return;
        }
        for place in (0..self.drains.providers.len()).rev() {
            let Some((provider, _)) = self.drains.providers.get(place) else { continue };
            let provider = *provider;
            let of_it = self.serving.values().filter(|serving| serving.provider == Some(provider));
            let running = if Canary::DrainCut.sings() { 0 } else { of_it.count() };
            let Some((_, drain)) = self.drains.providers.get_mut(place) else { continue };
            let told = drain.told.replace(running) == Some(running);
            if running == 0 {
                let (_, drain) = self.drains.providers.remove(place);
                self.timers.cancel(drain.timer);
            }
            if !told {
                self.event(Event::Draining { provider: Some(provider), running, cut: 0 });
            }
        }
        let running = self.running();
        // What an application works on cannot be said any more.
        let gone = matches!(self.phase, Phase::Idle) && self.redial.is_none();
        let Some(drain) = &mut self.drains.client else { return };
        let over = running == 0 && (!drain.busy || gone);
        if drain.told.replace(running) != Some(running) {
            self.event(Event::Draining { provider: None, running, cut: 0 });
        }
        if over {
            self.handle_close();
        }
    }

    /// The time is over: what still runs ends, and both sides are told so.
    pub(super) fn drain_due(&mut self, provider: Option<Token>) {
        let Some(provider) = provider else {
            let cut = self.running();
            let mut calls: Vec<Key> = self.calls.iter().map(|(key, _)| key).collect();
            calls.sort_unstable();
            for key in calls {
                self.give_up(key, Failure::Local(Misuse::Closed));
            }
            self.cut_requests(None);
            self.lose_parked(Misuse::Closed);
            self.end_drain(cut);
            return self.handle_close();
        };
        self.drains.providers.retain(|(draining, _)| *draining != provider);
        let cut = self.cut_requests(Some(provider));
        self.event(Event::Draining { provider: Some(provider), running: 0, cut });
    }

    /// The client is closed before its drain is over, if it is not over.
    pub(super) fn cut_drain(&mut self) {
        self.end_drain(self.running());
    }

    fn end_drain(&mut self, cut: usize) {
        let Some(drain) = self.drains.client.take() else { return };
        self.timers.cancel(drain.timer);
        if drain.told != Some(0) || cut > 0 {
            self.event(Event::Draining { provider: None, running: 0, cut });
        }
    }

    /// The link is gone for good, and with it all that could be finished.
    pub(super) fn end_drains(&mut self) {
        let Drains { client, providers } = core::mem::take(&mut self.drains);
        for (provider, drain) in providers {
            self.timers.cancel(drain.timer);
            self.event(Event::Draining { provider: Some(provider), running: 0, cut: 0 });
        }
        if let Some(drain) = client {
            self.timers.cancel(drain.timer);
        }
    }

    /// What was asked for, or is worked on, and has not ended.
    fn running(&self) -> usize {
        let serving = if Canary::DrainCut.sings() { 0 } else { self.serving.len() };
        self.calls.len() + serving + self.sends.len() + self.controls.len() + self.parked.len()
    }

    /// Ends the requests that are worked on, of one provider or of all. Tells how many there were.
    fn cut_requests(&mut self, provider: Option<Token>) -> usize {
        let of = |it: Option<Token>| provider.is_none() || it == provider;
        let wanted = self.serving.iter().filter(|(_, serving)| of(serving.provider));
        let mut requests: Vec<RequestId> =
            wanted.map(|(route, serving)| RequestId { route: *route, serial: serving.serial }).collect();
        requests.sort_unstable();
        let cut = requests.len();
        for request in requests {
            self.break_request(request, Refusal::ProviderGone, Failure::Local(Misuse::Closed));
        }
        cut
    }
}
