//! Broadcasts on protected channels are numbered, and their last number is told again for a while: what is missing shows.

use core::time::Duration;

use super::channels::ChannelIx;
use super::numbers::Heard;
use super::{Client, Dropped, Due, Event, Gap, Incoming};
use crate::canary::Canary;
use crate::error::Violation;
use crate::hash::{Keyed, Map};
use crate::names::{ChannelName, EventName};
use crate::time::{Instant, TimerReason};
use crate::timers::TimerId;
use crate::wire::{self, Flags, Frame, Header, Hop, Kind, Target};

/// How often the last number is told.
const EVERY: Duration = Duration::from_secs(10);
/// For how long after the last broadcast.
const FOR: Duration = Duration::from_secs(60);

/// What a client said lately on a protected channel.
#[derive(Debug)]
pub(super) struct Said {
    /// By event: the last number, and until when it is told.
    last: Map<EventName, (u64, Instant)>,
    timer: Option<TimerId>,
}

impl Said {
    pub(super) fn new(hash: Keyed) -> Self {
        Self { last: hash.map(), timer: None }
    }

    /// Nobody is left who could miss what was said.
    pub(super) fn forget(&mut self) -> Option<TimerId> {
        self.last.clear();
        self.timer.take()
    }
}

impl Client {
    pub(super) fn remember_said(&mut self, name: &ChannelName, event: &EventName, bseq: u64) {
        let Some(ix) = self.channels.index_of(name) else { return };
        let Some(channel) = self.channels.get_mut(ix) else { return };
        let until = self.now.mono + FOR;
        match channel.said.last.get_mut(event) {
            Some(last) => *last = (bseq, until),
            None => {
                channel.said.last.insert(event.clone(), (bseq, until));
            }
        }
        if channel.said.timer.is_none() {
            let timer = self.timers.insert(self.now.mono + EVERY, TimerReason::Beacon, Due::Beacon(ix));
            channel.said.timer = Some(timer);
        }
    }

    /// Tells the last numbers of a channel's broadcasts, while anybody may care.
    pub(super) fn beacons_due(&mut self, ix: ChannelIx) {
        let now = self.now.mono;
        let Some(channel) = self.channels.get_mut(ix) else { return };
        channel.said.timer = None;
        channel.said.last.retain(|_, (_, until)| *until >= now);
        if channel.guarded.seal.is_none() || channel.said.last.is_empty() {
            return;
        }
        channel.said.timer = Some(self.timers.insert(now + EVERY, TimerReason::Beacon, Due::Beacon(ix)));
        let name = channel.name.clone();
        let mut last: alloc::vec::Vec<(EventName, u64)> =
            channel.said.last.iter().map(|(event, (bseq, _))| (event.clone(), *bseq)).collect();
        last.sort_unstable();
        for (event, bseq) in last {
            self.write_beacon(&name, &event, bseq);
        }
    }

    fn write_beacon(&mut self, channel: &ChannelName, event: &EventName, bseq: u64) {
        let Ok(hub) = self.ready_hub() else { return };
        let seq = self.next_seq(channel);
        let (id, instance) = (self.id.clone(), self.instance);
        let header = Header {
            kind: Kind::Beacon,
            flags: Flags::NONE,
            channel: channel.as_name(),
            event: event.as_name(),
            epoch: 0,
            sender: id.as_name(),
            origin: hub.as_name(),
            instance: &instance,
            seq,
            bseq,
            sent_at: self.now.wall.0,
            time_left: 0,
            request: 0,
            reference: &[],
            index: 0,
            target: Target::NONE,
            metadata: &[],
        };
        let _ = self.write_message(0, &header, &bytes::Bytes::new());
    }

    /// Another member tells the number of its last broadcast.
    pub(super) fn handle_beacon(&mut self, frame: &Frame) -> Result<(), Violation> {
        let (hop, bytes) = Hop::split(frame.body()).map_err(|_| Violation::BadMessage)?;
        let message = wire::Message::parse(bytes).map_err(|_| Violation::BadMessage)?;
        let fits = message.header.kind == Kind::Beacon && message.header.epoch > 0;
        let Some(incoming) = self.incoming(frame, hop, &message).filter(|_| fits) else {
            self.event(Event::Dropped(Dropped::Mismatch));
            return Ok(());
        };
        match self.accept(&message) {
            Ok(()) => {
                self.is_next(&message, &incoming);
            }
            Err(why) => self.event(Event::Dropped(why)),
        }
        Ok(())
    }

    /// Whether a broadcast is to be delivered; tells listeners what is missing before it.
    pub(super) fn is_next(&mut self, message: &wire::Message<'_>, incoming: &Incoming) -> bool {
        let header = &message.header;
        if self.channels.listeners(header.channel, header.event).next().is_none() {
            return true;
        }
        let seal = self.channels.find_mut(header.channel).and_then(|channel| channel.guarded.seal.as_mut());
        let Some(seal) = seal else { return true };
        let (missing, deliver) = match seal.heard(header) {
            Heard::Deliver { missing } => (missing, true),
            Heard::Missing(first, last) => (Some((first, last)), false),
            Heard::Nothing => (None, false),
            Heard::Old => {
                self.event(Event::Dropped(Dropped::Replayed));
                (None, false)
            }
        };
        if let Some((first, last)) = missing.filter(|_| !Canary::Gap.sings()) {
            let Self { channels, outputs, .. } = self;
            for to in channels.listeners(header.channel, header.event) {
                let (channel, event) = (incoming.channel.clone(), incoming.event.clone());
                let gap = Gap { to, channel, event, sender: incoming.sender.clone(), first, last };
                outputs.push_back(crate::Output::Event(Event::Gap(gap)));
            }
        }
        deliver
    }
}
