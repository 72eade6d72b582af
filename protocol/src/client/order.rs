//! Broadcasts from other hubs on channels without a password: each sender's in order, though ways change meanwhile.
//!
//! What is signed is held to its numbers for ever. Here anybody on the way could make numbers up, so that they count no
//! longer than copies of a message can be under way.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::{Client, Source};
use crate::names::{Address, ChannelName, EventName};
use crate::time::Instant;
use crate::wire::Header;

/// How long the number of a broadcast is held against those before it.
const HELD: Duration = Duration::from_secs(60);
/// Events of senders that are kept. With more, the first in the order of names is forgotten.
const KEPT: usize = 4_096;

/// Whose numbers rise: a sender's instance, about one event.
type Speaker = (ChannelName, EventName, Address, [u8; 16]);

/// The last numbers of those who spoke from afar, and when they came.
#[derive(Debug, Default)]
pub(super) struct Order(BTreeMap<Speaker, (u64, Instant)>);

impl Order {
    fn is_late(&mut self, source: &Source, header: &Header<'_>, now: Instant) -> bool {
        let Source { channel, event, sender, path: _ } = source;
        let speaker = (channel.clone(), event.clone(), sender.clone(), *header.instance);
        let last = self.0.get(&speaker).filter(|(_, since)| *since + HELD > now);
        if last.is_some_and(|(number, _)| header.bseq <= *number) {
            return true;
        }
        if self.0.len() >= KEPT && !self.0.contains_key(&speaker) {
            self.0.pop_first();
        }
        self.0.insert(speaker, (header.bseq, now));
        false
    }
}

impl Client {
    /// Whether a broadcast was overtaken by a later one of its sender.
    pub(super) fn is_overtaken(&mut self, source: &Source, header: &Header<'_>) -> bool {
        !source.path.is_empty() && header.epoch == 0 && self.order.is_late(source, header, self.now.mono)
    }
}
