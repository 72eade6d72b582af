//! How a malicious hub says late what an owner is to believe: something newer is in force by then.
//!
//! ```text
//!   owner ──► PROTECT 1 ──► (kept)         ──► PROTECT 2 ──► the real hub
//!   owner ◄── DONE 2 ◄── then DONE 1, as if it were the latest ◄──┘
//! ```

use std::collections::BTreeMap;

use bytes::BytesMut;
use commipc_protocol::wire::{Control as _, Done, FrameType, Protect, Unprotect};
use commipc_protocol::{ChannelName, LinkId};

use super::{Mallory, Trick, forgery};

/// What an owner on a link asked for.
#[derive(Default)]
pub(super) struct Words {
    /// What the hub is asked, by its number.
    asked: BTreeMap<u64, ChannelName>,
    /// What it never hears of.
    kept: BTreeMap<u64, ChannelName>,
}

impl Mallory {
    /// Keeps what an owner asks for from the hub, and so its answer from the owner.
    pub(super) fn keeps_word(&mut self, link: LinkId, kind: FrameType, body: &[u8]) -> bool {
        let asked = if kind == FrameType::Protect {
            Protect::parse(body).ok().map(|asked| (asked.id, asked.channel))
        } else if kind == FrameType::Unprotect {
            Unprotect::parse(body).ok().map(|asked| (asked.id, asked.channel))
        } else {
            None
        };
        let Some((id, Ok(channel))) = asked.map(|(id, channel)| (id, ChannelName::new(channel.as_str()))) else {
            return false;
        };
        let keeps = self.draws(Trick::Late);
        if let Some(Words { asked, kept }) = self.wires.get_mut(&link).map(|wire| &mut wire.words) {
            if keeps {
                kept.insert(id, channel)
            } else {
                asked.insert(id, channel)
            };
        }
        keeps
    }

    /// Something is done for an owner: now it is told that what it had asked for before is.
    pub(super) fn says_late(&mut self, link: LinkId, done: &Done<'_>) {
        let Some(Words { asked, kept }) = self.wires.get_mut(&link).map(|wire| &mut wire.words) else { return };
        let Some(channel) = asked.remove(&done.id).filter(|_| done.code == 0) else { return };
        let mut earlier = Vec::new();
        kept.retain(|id, of| {
            let older = *id < done.id && *of == channel;
            earlier.extend(older.then_some(*id));
            !older
        });
        for id in earlier {
            let mut body = BytesMut::new();
            Done { id, code: 0, epoch: None, owner: None, owned_by: None, last_epoch: None, proof: None }
                .encode(&mut body);
            if let Some(frame) = forgery::frame(FrameType::Done, &body) {
                self.play(Trick::Late.name());
                self.emit(link, &frame);
            }
        }
    }
}
