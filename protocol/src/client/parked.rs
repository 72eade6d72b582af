//! Messages that wait for a connection that is away, in their order, each until its own deadline.

use core::time::Duration;

use super::calls::{lost, never_sent};
use super::{Away, Client, Command, Due, Event, Failure, Outgoing, StreamCommand, StreamEvent, Token};
use crate::error::Misuse;
use crate::names::ChannelName;
use crate::time::{Instant, TimerReason};
use crate::timers::TimerId;

/// How long a send or broadcast waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message that waits.
#[derive(Debug)]
pub(super) struct Parked {
    serial: u64,
    command: Command,
    due: Instant,
    timer: TimerId,
    /// It was sent on a link that is gone, and may have been executed.
    repeated: bool,
}

impl Client {
    /// Gives the command back, unless it is a message that has to wait, and may.
    pub(super) fn park(&mut self, command: Command) -> Option<Command> {
        let Some((outgoing, time_left)) = message(&command) else { return Some(command) };
        if outgoing.away == Away::Fail || !self.must_wait(&outgoing.channel) {
            return Some(command);
        }
        self.keep(command, time_left, false);
        None
    }

    /// A call that may be made again waits for the next link.
    pub(super) fn park_again(&mut self, token: Token, outgoing: Outgoing, time_left: Duration, repeated: bool) {
        self.keep(Command::Call { token, outgoing, time_left }, time_left, repeated);
    }

    /// Whether what concerns a channel has to wait: for the connection, or until the channel is as it was.
    pub(super) fn must_wait(&self, channel: &ChannelName) -> bool {
        self.is_away() || self.channels.find(channel.as_name()).is_some_and(|it| it.is_coming_back())
    }

    fn keep(&mut self, command: Command, time_left: Duration, repeated: bool) {
        let size = |command: &Command| message(command).map_or(0, |(outgoing, _)| outgoing.payload.bytes.len());
        let waiting: usize = self.parked.iter().map(|parked| size(&parked.command)).sum();
        let limits = &self.config.limits;
        if self.parked.len() >= limits.parked || waiting.saturating_add(size(&command)) > limits.outbox {
            return self.turn_down(command, Misuse::Busy, repeated);
        }
        self.parks += 1;
        let (serial, due) = (self.parks, self.now.mono + time_left.min(crate::TIME_LEFT_MAX));
        let timer = self.timers.insert(due, TimerReason::Call, Due::Parked(serial));
        self.parked.push_back(Parked { serial, command, due, timer, repeated });
    }

    /// Sends what need not wait any longer. Without a connection all of it must.
    pub(super) fn unpark(&mut self) {
        if self.parked.is_empty() || self.check_ready().is_err() {
            return;
        }
        for parked in core::mem::take(&mut self.parked) {
            let waits = message(&parked.command).is_some_and(|(outgoing, _)| self.must_wait(&outgoing.channel));
            if waits {
                self.parked.push_back(parked);
                continue;
            }
            self.timers.cancel(parked.timer);
            let left = parked.due.saturating_since(self.now.mono);
            let command = with_time(parked.command, left);
            if let Command::Call { token, outgoing, time_left } = &command
                && parked.repeated
            {
                self.repeat_call(*token, outgoing, *time_left);
            } else {
                self.handle_command(command);
            }
        }
    }

    pub(super) fn parked_expired(&mut self, serial: u64) {
        let place = self.parked.iter().position(|parked| parked.serial == serial);
        if let Some(parked) = place.and_then(|place| self.parked.remove(place)) {
            self.turn_down(parked.command, Misuse::Deadline, parked.repeated);
        }
    }

    /// The caller gives up something that waits. Tells whether it does.
    pub(super) fn cancel_parked(&mut self, call: Token) -> bool {
        let place = self.parked.iter().position(|parked| asked(&parked.command) == Some(call));
        let Some(parked) = place.and_then(|place| self.parked.remove(place)) else { return false };
        self.timers.cancel(parked.timer);
        self.turn_down(parked.command, Misuse::Cancelled, parked.repeated);
        true
    }

    /// The connection will not come back.
    pub(super) fn lose_parked(&mut self, gone: Misuse) {
        for parked in core::mem::take(&mut self.parked) {
            self.timers.cancel(parked.timer);
            self.turn_down(parked.command, gone, parked.repeated);
        }
    }

    pub(super) fn turn_down(&mut self, command: Command, why: Misuse, repeated: bool) {
        let failure = if repeated { lost(Failure::Local(why)) } else { never_sent(why) };
        if let Command::Call { token, .. } = command {
            self.event(Event::Answered { token, result: Err(failure) });
        } else if let Command::Stream(StreamCommand::Ask { token, .. }) = command {
            self.event(Event::Stream(StreamEvent::Ended { token, result: Err(failure) }));
        } else if let Command::Send { token, .. } | Command::Broadcast { token, .. } = command {
            self.event(Event::Sent { token, result: Err(Failure::Local(why)) });
        }
    }
}

/// What is said by a command, and how long it may take, if it says something.
fn message(command: &Command) -> Option<(&Outgoing, Duration)> {
    if let Command::Call { outgoing, time_left, .. } | Command::Stream(StreamCommand::Ask { outgoing, time_left, .. }) =
        command
    {
        Some((outgoing, *time_left))
    } else if let Command::Send { outgoing, .. } | Command::Broadcast { outgoing, .. } = command {
        Some((outgoing, PATIENCE))
    } else {
        None
    }
}

/// The token of a call or stream.
const fn asked(command: &Command) -> Option<Token> {
    if let Command::Call { token, .. } | Command::Stream(StreamCommand::Ask { token, .. }) = command {
        Some(*token)
    } else {
        None
    }
}

/// The same with the time that is left.
fn with_time(mut command: Command, left: Duration) -> Command {
    if let Command::Call { time_left, .. } | Command::Stream(StreamCommand::Ask { time_left, .. }) = &mut command {
        *time_left = left;
    }
    command
}
