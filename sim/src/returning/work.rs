//! What applications do in a storm.

use bytes::Bytes;
use commipc_protocol::client::{Away, Command, Outgoing, Token};
use commipc_protocol::{ChannelName, EventName};
use core::time::Duration;

use super::beliefs::{Link, opens};
use super::{PAUSE, Phase, Returning};
use crate::decisions::Chooser;
use crate::oracles::Password;
use crate::world::World;

/// In the order of the weights.
const OPS: [fn(&mut Returning, &mut World, usize); 13] = [
    Returning::open,
    Returning::leave,
    Returning::provide,
    Returning::withdraw,
    Returning::listen,
    Returning::unlisten,
    Returning::call,
    Returning::cancel,
    Returning::send,
    Returning::broadcast,
    Returning::protect,
    Returning::terminate,
    Returning::close,
];

/// The most each may weigh.
const HEAVIEST: [u64; OPS.len()] = [6, 2, 6, 2, 6, 2, 32, 3, 8, 12, 3, 1, 1];

pub(super) const CHANNELS: [&str; 3] = ["a", "b", "c"];
pub(super) const EVENTS: [&str; 2] = ["x", "y"];
/// Passwords that anybody may choose.
const PASSWORDS: u64 = 3;
/// The longest a call may take, in milliseconds.
const LONGEST_CALL: u64 = 120_000;

pub(super) fn drawn_weights(choose: &mut Chooser<'_>) -> Vec<u64> {
    HEAVIEST.iter().map(|most| if choose.chance(3, 4) { 1 + choose.below(*most) } else { 0 }).collect()
}

pub(crate) fn channel_name(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap_or_else(|_| unreachable!("a constant"))
}

pub(crate) fn event_name(name: &str) -> EventName {
    EventName::new(name).unwrap_or_else(|_| unreachable!("a constant"))
}

impl Returning {
    pub(super) fn work(&mut self, world: &mut World, actor: u64) {
        let Some(actor) = usize::try_from(actor).ok().filter(|actor| *actor < self.beliefs.len()) else { return };
        if self.operations == 0 || self.phase != Phase::Storm {
            return;
        }
        if !self.works(world, actor) {
            self.resting += 1;
            self.operations = if self.resting < self.beliefs.len() { self.operations } else { 0 };
            return;
        }
        self.operations -= 1;
        let drawn = world.engine.decisions().on(self.work).weighted(&self.weights);
        match drawn.and_then(|index| OPS.get(index)) {
            Some(_) if self.streaming.is_due(world) => self.ask_stream(world, actor),
            Some(op) => op(self, world, actor),
            None => {}
        }
        let pause = self.pause(world);
        world.plan(pause, actor as u64);
    }

    pub(super) fn open(&mut self, world: &mut World, actor: usize) {
        let mut choose = world.engine.decisions().on(self.work);
        let channel = channel_name(CHANNELS[choose.weighted(&[3, 2, 1]).unwrap_or(0)]);
        let known = self.claims.guarded.contains(&channel);
        let guarded = known != choose.chance(1, 16);
        if !self.beliefs[actor].wants(&channel) {
            let token = world.token();
            self.ask(world, actor, opens(token, channel, guarded));
        }
    }

    fn leave(&mut self, world: &mut World, actor: usize) {
        let Some(channel) = self.open_channel(world, actor) else { return };
        // Who owns something stays, most often.
        if self.beliefs[actor].owned().contains(&channel) && !self.choose(world).chance(1, 4) {
            return;
        }
        let token = world.token();
        self.ask(world, actor, Command::Leave { token, channel });
    }

    pub(super) fn provide(&mut self, world: &mut World, actor: usize) {
        let Some(channel) = self.open_channel(world, actor) else { return };
        let (token, event) = (world.token(), self.event(world));
        let kind = self.streaming.kind(world, token);
        self.ask(world, actor, Command::Provide { token, channel, event, kind });
    }

    fn withdraw(&mut self, world: &mut World, actor: usize) {
        let provided: Vec<Token> = self.beliefs[actor].provided.values().copied().collect();
        let Some(provider) = self.choose(world).pick(&provided).copied() else { return };
        let token = world.token();
        self.ask(world, actor, Command::Withdraw { token, provider });
    }

    pub(super) fn listen(&mut self, world: &mut World, actor: usize) {
        let Some(channel) = self.open_channel(world, actor) else { return };
        let (token, event) = (world.token(), self.event(world));
        let event = self.choose(world).chance(1, 2).then_some(event);
        self.ask(world, actor, Command::Listen { token, channel, event });
    }

    fn unlisten(&mut self, world: &mut World, actor: usize) {
        let listening: Vec<Token> = self.beliefs[actor].listening.keys().copied().collect();
        let Some(listener) = self.choose(world).pick(&listening).copied() else { return };
        let token = world.token();
        self.ask(world, actor, Command::Unlisten { token, listener });
    }

    fn call(&mut self, world: &mut World, actor: usize) {
        let (token, outgoing) = (world.token(), self.outgoing(world, actor));
        let time_left = Duration::from_millis(self.choose(world).log_uniform(1, LONGEST_CALL));
        self.ask(world, actor, Command::Call { token, outgoing, time_left });
    }

    fn cancel(&mut self, world: &mut World, actor: usize) {
        let calls = self.beliefs[actor].calls.clone();
        let Some(call) = self.choose(world).pick(&calls).copied() else { return };
        self.ask(world, actor, Command::Cancel { call });
    }

    fn send(&mut self, world: &mut World, actor: usize) {
        let (token, outgoing) = (world.token(), self.outgoing(world, actor));
        self.ask(world, actor, Command::Send { token, outgoing });
    }

    fn broadcast(&mut self, world: &mut World, actor: usize) {
        let (token, outgoing) = (world.token(), self.outgoing(world, actor));
        self.ask(world, actor, Command::Broadcast { token, outgoing });
    }

    pub(super) fn protect(&mut self, world: &mut World, actor: usize) {
        let owned = self.beliefs[actor].owned();
        let password = Password(self.choose(world).below(PASSWORDS) as u8);
        let Some(channel) = self.choose(world).pick(&owned).cloned() else { return };
        self.protects(world, actor, channel, password);
    }

    pub(super) fn protects(
        &mut self,
        world: &mut World,
        actor: usize,
        channel: ChannelName,
        password: Password,
    ) -> Token {
        let token = world.token();
        self.beliefs[actor].protects(token, &channel);
        world.protect(self.beliefs[actor].node, token, channel, password);
        token
    }

    fn terminate(&mut self, world: &mut World, actor: usize) {
        let owned = self.beliefs[actor].owned();
        let Some(channel) = self.choose(world).pick(&owned).cloned() else { return };
        let token = world.token();
        self.ask(world, actor, Command::Terminate { token, channel });
    }

    /// Ends the connection for good, and wants another one after a while.
    fn close(&mut self, world: &mut World, actor: usize) {
        if self.beliefs[actor].link == Link::None {
            return world.plan(PAUSE, super::CONNECT + actor as u64);
        }
        self.ask(world, actor, Command::Close);
    }

    fn open_channel(&self, world: &mut World, actor: usize) -> Option<ChannelName> {
        let open: Vec<ChannelName> = self.beliefs[actor].rooms.keys().cloned().collect();
        self.choose(world).pick(&open).cloned()
    }

    fn event(&self, world: &mut World) -> EventName {
        let index = self.choose(world).index(EVENTS.len());
        event_name(EVENTS[index])
    }

    /// Most often to something that somebody provides.
    pub(super) fn outgoing(&mut self, world: &mut World, actor: usize) -> Outgoing {
        let provided: Vec<_> = self.beliefs.iter().flat_map(|belief| belief.provided.keys().cloned()).collect();
        let known = if self.choose(world).chance(3, 4) { self.choose(world).pick(&provided).cloned() } else { None };
        let drawn = self.choose(world).index(CHANNELS.len());
        let event = self.event(world);
        let (channel, event) = known.unwrap_or_else(|| (channel_name(CHANNELS[drawn]), event));
        let away = [Away::Fail, Away::Wait, Away::Repeat][self.choose(world).index(3)];
        let guarded = self.beliefs[actor].rooms.get(&channel).is_some_and(|room| room.guarded);
        let guarded = guarded && self.choose(world).chance(1, 2);
        self.says(world, actor, channel, event, guarded, away)
    }

    pub(super) fn says(
        &mut self,
        world: &mut World,
        actor: usize,
        channel: ChannelName,
        event: EventName,
        guarded: bool,
        away: Away,
    ) -> Outgoing {
        let (payload, idempotent) = (self.payload(actor), self.choose(world).chance(1, 2));
        Outgoing { channel, event, payload, metadata: Bytes::new(), idempotent, guarded, away }
    }
}
