//! Messages that wait for a connection that is away, in their order, each until its own deadline.

use alloc::vec::Vec;
use core::time::Duration;

use super::calls::{lost, never_sent};
use super::{Away, Client, Command, Due, Event, Failure, Outgoing, StreamCommand, StreamEvent, StreamId, Token};
use crate::TIME_LEFT_MAX;
use crate::error::Misuse;
use crate::names::ChannelName;
use crate::time::{Instant, TimerReason};
use crate::timers::TimerId;

/// How long a send or broadcast waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// What an item that waits takes beside its bytes.
const PIECE: usize = crate::wire::PIECE_OVERHEAD as usize;

/// A message that waits.
#[derive(Debug)]
pub(super) struct Parked {
    serial: u64,
    command: Command,
    since: Instant,
    timer: TimerId,
    /// It was sent on a link that is gone, and may have been executed.
    repeated: bool,
    /// What the caller of an exchange has given by now.
    given: Vec<StreamCommand>,
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

    /// Whether so many bytes more may wait.
    const fn may_keep(&self, bytes: usize) -> bool {
        self.parked_bytes.saturating_add(bytes) <= self.config.limits.outbox
    }

    fn keep(&mut self, command: Command, time_left: Duration, repeated: bool) {
        if self.parked.len() >= self.config.limits.parked || !self.may_keep(size(&command)) {
            return self.turn_down(command, Misuse::Busy, repeated);
        }
        self.parks += 1;
        let (serial, since) = (self.parks, self.now.mono);
        let timer = self.timers.insert(since + time_left.min(TIME_LEFT_MAX), TimerReason::Call, Due::Parked(serial));
        self.parked_bytes += size(&command);
        self.parked.push_back(Parked { serial, command, since, timer, repeated, given: Vec::new() });
    }

    /// The items of an exchange that waits to be asked for wait behind it. Gives the command back if it is about another one.
    pub(super) fn park_given(&mut self, command: StreamCommand) -> Option<StreamCommand> {
        let (StreamCommand::Items { stream: StreamId::Call(token), .. }
        | StreamCommand::Finish { stream: StreamId::Call(token) }) = &command
        else {
            return Some(command);
        };
        let place = self.parked.iter().position(|parked| asked(&parked.command) == Some(*token));
        let Some(place) = place else { return Some(command) };
        if !self.may_keep(given_size(&command)) {
            self.drop_parked(place, Misuse::Busy);
        } else if let Some(parked) = self.parked.get_mut(place) {
            self.parked_bytes += given_size(&command);
            parked.given.push(command);
        }
        None
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
            self.parked_bytes -= parked.size();
            self.timers.cancel(parked.timer);
            let command = waited(parked.command, self.now.mono.saturating_since(parked.since));
            if let Command::Call { token, outgoing, time_left } = &command
                && parked.repeated
            {
                self.repeat_call(*token, outgoing, *time_left);
            } else {
                self.handle_command(command);
                parked.given.into_iter().for_each(|given| self.handle_stream(given));
            }
        }
    }

    pub(super) fn parked_expired(&mut self, serial: u64) {
        let place = self.parked.iter().position(|parked| parked.serial == serial);
        if let Some(parked) = place.and_then(|place| self.parked.remove(place)) {
            self.parked_bytes -= parked.size();
            self.turn_down(parked.command, Misuse::Deadline, parked.repeated);
        }
    }

    /// The caller gives up something that waits. Tells whether it does.
    pub(super) fn cancel_parked(&mut self, call: Token) -> bool {
        let place = self.parked.iter().position(|parked| asked(&parked.command) == Some(call));
        place.inspect(|place| self.drop_parked(*place, Misuse::Cancelled)).is_some()
    }

    fn drop_parked(&mut self, place: usize, why: Misuse) {
        if let Some(parked) = self.parked.remove(place) {
            self.parked_bytes -= parked.size();
            self.timers.cancel(parked.timer);
            self.turn_down(parked.command, why, parked.repeated);
        }
    }

    /// The connection will not come back.
    pub(super) fn lose_parked(&mut self, gone: Misuse) {
        self.parked_bytes = 0;
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

impl Parked {
    fn size(&self) -> usize {
        self.given.iter().map(given_size).fold(size(&self.command), usize::saturating_add)
    }
}

fn size(command: &Command) -> usize {
    message(command).map_or(0, |(outgoing, _)| outgoing.payload.bytes.len())
}

fn given_size(given: &StreamCommand) -> usize {
    let StreamCommand::Items { payloads, .. } = given else { return PIECE };
    payloads.iter().map(|payload| payload.bytes.len().saturating_add(PIECE)).fold(PIECE, usize::saturating_add)
}

/// What is said by a command, and how long it may take, if it says something.
fn message(command: &Command) -> Option<(&Outgoing, Duration)> {
    if let Command::Call { outgoing, time_left, .. } = command {
        Some((outgoing, *time_left))
    } else if let Command::Stream(StreamCommand::Ask { outgoing, time_left, whole, .. }) = command {
        Some((outgoing, whole.map_or(*time_left, |whole| whole.min(*time_left))))
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

/// The same after it has waited, with the time that is left.
fn waited(mut command: Command, waited: Duration) -> Command {
    if let Command::Call { time_left, .. } = &mut command {
        *time_left = (*time_left).min(TIME_LEFT_MAX).saturating_sub(waited);
    } else if let Command::Stream(StreamCommand::Ask { time_left, whole, .. }) = &mut command {
        *time_left = (*time_left).min(TIME_LEFT_MAX).saturating_sub(waited);
        *whole = whole.map(|whole| whole.min(TIME_LEFT_MAX).saturating_sub(waited));
    }
    command
}
