//! Whether who believes in the channel with a password joined it since it ended last, wherever its members are.

use commipc_protocol::{ChannelName, Instant, hub};

use super::Bridging;
use super::work::{KEPT, channel_name};
use crate::returning::beliefs::Link;
use crate::world::World;

/// When the channel ended last at its home, and since when each application has had it without a break.
#[derive(Debug, Default)]
pub(super) struct Kept {
    ended: Option<Instant>,
    /// How much of what the home has told was looked at.
    seen: usize,
    since: Vec<Option<Instant>>,
}

impl Bridging {
    /// Notes what was told just now.
    pub(super) fn note_kept(&mut self, world: &World) {
        if !self.guards {
            return;
        }
        let (now, channel) = (world.now(), channel_name(KEPT));
        let told = world.hub_told.get(&self.hubs[self.at[0]]).map_or(&[][..], Vec::as_slice);
        let ends = |event: &hub::Event| matches!(event, hub::Event::Terminated { channel: of } if *of == channel);
        if told.iter().skip(self.kept.seen).any(ends) {
            self.kept.ended = Some(now);
        }
        self.kept.seen = told.len();
        self.kept.since.resize(self.beliefs.len(), None);
        for (belief, since) in self.beliefs.iter().zip(&mut self.kept.since) {
            let has = belief.link == Link::Whole && belief.rooms.contains_key::<ChannelName>(&channel);
            *since = if has { since.or(Some(now)) } else { None };
        }
    }

    /// A hub dies: a home that starts again knows of no end, and tells nobody who has missed it.
    pub(super) fn forget_end(&mut self, hub: usize) {
        if hub == self.at[0] {
            self.kept.ended = None;
        }
    }

    /// Everybody was told of the last end who had the channel then.
    pub(super) fn judge_kept(&mut self, world: &mut World) {
        let Some(ended) = self.kept.ended else { return };
        self.marks.met("the channel with a password ended");
        for (belief, since) in self.beliefs.iter().zip(&self.kept.since) {
            if let Some(since) = since.filter(|since| *since < ended) {
                let what = format!("it believes since {since:?} in a channel that ended at {ended:?}");
                return world.fails("bridges", belief.node, what);
            }
        }
    }
}
