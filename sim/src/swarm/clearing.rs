//! Channels that somebody wants to end who does not own them: an admin, who may, and others, who may not.
//!
//! In a quarter of the runs somebody does.

use bytes::{BufMut as _, Bytes, BytesMut};
use commipc_protocol::client::{Away, Command, Outgoing, Payload};
use commipc_protocol::hub::SYSTEM_CHANNEL;
use commipc_protocol::{ChannelName, EventName};
use core::time::Duration;

use super::{LONGEST_CALL, Swarm};
use crate::world::World;

/// Who is an admin, and how often anybody asks for what an admin may.
#[derive(Debug, Default)]
pub(super) struct Clearing {
    /// An actor, by its number.
    admin: Option<u64>,
    /// Of 64 operations of others; an admin asks four times as often.
    often: u64,
}

impl Clearing {
    pub(super) fn drawn(world: &mut World, actors: u64) -> Self {
        let decisions = world.engine().decisions().stream("admin");
        let mut choose = world.engine().decisions().on(decisions);
        if !choose.chance(1, 4) {
            return Self::default();
        }
        Self { admin: choose.below(actors + 1).checked_sub(1), often: choose.log_uniform(1, 12) }
    }

    pub(super) fn is_admin(&self, actor: u64) -> bool {
        self.admin == Some(actor)
    }
}

impl Swarm {
    /// Whether the next operation of an actor is to end a channel that is anybody's.
    pub(super) fn clears(&self, world: &mut World, actor: usize) -> bool {
        let Clearing { often, .. } = self.clearing;
        let times = if self.clearing.is_admin(actor as u64) { 4 } else { 1 };
        often > 0 && self.choose(world).chance(often * times, 64)
    }

    pub(super) fn clear(&mut self, world: &mut World, actor: usize) {
        let (token, which) = (world.token(), self.channel(world));
        let name = which.as_str();
        let mut question = BytesMut::new();
        // A map of one text to another.
        question.put_slice(b"\xa1\x67channel");
        question.put_u8(0x60 + u8::try_from(name.len()).unwrap_or(0));
        question.put_slice(name.as_bytes());
        let (Ok(channel), Ok(event)) = (ChannelName::new(SYSTEM_CHANNEL), EventName::new("clear")) else { return };
        let outgoing = Outgoing {
            channel,
            event,
            payload: Payload { bytes: question.freeze(), raw: false },
            metadata: Bytes::new(),
            idempotent: false,
            guarded: false,
            away: Away::Fail,
        };
        let time_left = Duration::from_millis(self.choose(world).log_uniform(1, LONGEST_CALL));
        self.actors[actor].calls.push(token);
        self.ask(world, actor, Command::Call { token, outgoing, time_left });
    }
}
