//! What applications do in a storm.

use commipc_protocol::client::{Away, Command, Credit, EventKind, Outgoing, StreamCommand, StreamId, Token};
use commipc_protocol::{ChannelName, EventName};
use core::time::Duration;

use super::{Bridging, CONNECT, PAUSE, Phase};
use crate::decisions::Chooser;
use crate::oracles::Password;
use crate::plans::Plan;
use crate::returning::beliefs::{Link, opens};
pub(super) use crate::returning::work::{channel_name, event_name};
use crate::world::World;

/// In the order of the weights.
const OPS: [fn(&mut Bridging, &mut World, usize); 14] = [
    Bridging::open,
    Bridging::leave,
    Bridging::provide,
    Bridging::withdraw,
    Bridging::listen,
    Bridging::unlisten,
    Bridging::call,
    Bridging::stream,
    Bridging::cancel,
    Bridging::send,
    Bridging::broadcast,
    Bridging::protect,
    Bridging::terminate,
    Bridging::close,
];

/// The most each may weigh.
const HEAVIEST: [u64; OPS.len()] = [6, 2, 6, 2, 6, 2, 24, 8, 3, 8, 24, 2, 1, 1];

/// Channels that never have a password, and one that always has, where there is one.
pub(super) const OPEN: [&str; 2] = ["a", "b"];
pub(super) const KEPT: &str = "k";
/// What is called, and what is asked for as a stream.
pub(super) const CALLED: [&str; 2] = ["x", "y"];
pub(super) const STREAMED: &str = "s";

/// Passwords that the owner may choose.
const PASSWORDS: u64 = 3;
/// The longest a call may take, in milliseconds.
const LONGEST_CALL: u64 = 120_000;
/// What may be on its way of a stream.
const WINDOW: Credit = Credit { items: 4, bytes: 4 << 10 };

pub(super) fn drawn_weights(choose: &mut Chooser<'_>) -> Vec<u64> {
    HEAVIEST.iter().map(|most| if choose.chance(3, 4) { 1 + choose.below(*most) } else { 0 }).collect()
}

impl Bridging {
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
        if self.turns_to_key(world) {
            self.protect(world, actor);
        } else if let Some(op) = drawn.and_then(|index| OPS.get(index)) {
            op(self, world, actor);
        }
        let pause = self.pause(world);
        world.plan(pause, actor as u64);
    }

    pub(super) fn open(&mut self, world: &mut World, actor: usize) {
        let kept = u64::from(self.guards) * 2;
        let drawn = self.choose(world).weighted(&[3, 1, kept]).unwrap_or(0);
        let name = OPEN.get(drawn).copied().unwrap_or(KEPT);
        let channel = channel_name(name);
        if !self.beliefs[actor].wants(&channel) {
            let token = world.token();
            self.ask(world, actor, opens(token, channel, name == KEPT));
        }
    }

    /// The channel that is to have a password, without one.
    pub(super) fn open_kept(&mut self, world: &mut World, actor: usize) {
        let token = world.token();
        self.ask(world, actor, opens(token, channel_name(KEPT), false));
    }

    /// Whether an application owns the channel that has a password.
    fn keeps(&self, actor: usize) -> bool {
        self.beliefs[actor].owned().contains(&channel_name(KEPT))
    }

    fn leave(&mut self, world: &mut World, actor: usize) {
        let Some(channel) = self.open_channel(world, actor) else { return };
        if channel.as_str() != KEPT || !self.keeps(actor) {
            let token = world.token();
            self.ask(world, actor, Command::Leave { token, channel });
        }
    }

    pub(super) fn provide(&mut self, world: &mut World, actor: usize) {
        let Some(channel) = self.open_channel(world, actor) else { return };
        let token = world.token();
        let drawn = self.choose(world).index(CALLED.len() + 1);
        let (name, kind) = CALLED.get(drawn).map_or((STREAMED, EventKind::Stream), |name| (*name, EventKind::Call));
        if kind == EventKind::Stream {
            world.feeding.provides(token);
        }
        let event = event_name(name);
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
        let (token, outgoing) = (world.token(), self.outgoing(world, actor, false));
        let time_left = Duration::from_millis(self.choose(world).log_uniform(1, LONGEST_CALL));
        self.ask(world, actor, Command::Call { token, outgoing, time_left });
    }

    fn stream(&mut self, world: &mut World, actor: usize) {
        let outgoing = Outgoing { away: Away::Fail, ..self.outgoing(world, actor, true) };
        let time_left = Duration::from_millis(self.choose(world).log_uniform(1, LONGEST_CALL));
        let gives_up = self.choose(world).chance(1, 6);
        let token = self.asks_stream(world, actor, outgoing, time_left);
        if gives_up {
            let (node, after) = (self.beliefs[actor].node, self.pause(world));
            world.plan_own(after, Plan::Cancel { node, call: token });
        }
    }

    pub(super) fn asks_stream(
        &mut self,
        world: &mut World,
        actor: usize,
        outgoing: Outgoing,
        time_left: Duration,
    ) -> Token {
        let (token, node) = (world.token(), self.beliefs[actor].node);
        world.feeding.takes(node, StreamId::Call(token));
        let ask = StreamCommand::Ask { token, outgoing, time_left, whole: None, window: WINDOW, exchange: false };
        self.ask(world, actor, Command::Stream(ask));
        token
    }

    fn cancel(&mut self, world: &mut World, actor: usize) {
        let calls = self.beliefs[actor].calls.clone();
        let Some(call) = self.choose(world).pick(&calls).copied() else { return };
        self.ask(world, actor, Command::Cancel { call });
    }

    fn send(&mut self, world: &mut World, actor: usize) {
        let (token, outgoing) = (world.token(), self.outgoing(world, actor, false));
        self.ask(world, actor, Command::Send { token, outgoing });
    }

    fn broadcast(&mut self, world: &mut World, actor: usize) {
        let (token, outgoing) = (world.token(), self.outgoing(world, actor, false));
        self.ask(world, actor, Command::Broadcast { token, outgoing });
    }

    /// Another password, for the one channel that has any.
    pub(super) fn protect(&mut self, world: &mut World, actor: usize) {
        let password = Password(self.choose(world).below(PASSWORDS) as u8);
        // Before it has one, its owner has asked for it alone.
        if !self.guards {
            return;
        }
        if !self.keeps(actor) && self.phase != Phase::Warm {
            if !self.takes_key(world, actor) {
                return;
            }
            if self.ends_by_key(world) {
                let token = world.token();
                return self.ask(world, actor, Command::Terminate { token, channel: channel_name(KEPT) });
            }
        }
        let (token, channel) = (world.token(), channel_name(KEPT));
        self.beliefs[actor].protects(token, &channel);
        world.protect(self.beliefs[actor].node, token, channel, password);
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
            return world.plan(PAUSE, CONNECT + actor as u64);
        }
        self.ask(world, actor, Command::Close);
    }

    fn open_channel(&self, world: &mut World, actor: usize) -> Option<ChannelName> {
        let open: Vec<ChannelName> = self.beliefs[actor].rooms.keys().cloned().collect();
        self.choose(world).pick(&open).cloned()
    }

    fn event(&self, world: &mut World) -> EventName {
        let index = self.choose(world).index(CALLED.len());
        event_name(CALLED[index])
    }

    /// Most often to something that somebody provides, at whichever hub.
    fn outgoing(&mut self, world: &mut World, actor: usize, streams: bool) -> Outgoing {
        let provided = self.beliefs.iter().flat_map(|belief| belief.provided.keys().cloned());
        let provided: Vec<_> = provided.filter(|(_, event)| (event.as_str() == STREAMED) == streams).collect();
        let known = if self.choose(world).chance(7, 8) { self.choose(world).pick(&provided).cloned() } else { None };
        let drawn = self.choose(world).index(OPEN.len());
        let event = if streams { event_name(STREAMED) } else { self.event(world) };
        let (channel, event) = known.unwrap_or_else(|| (channel_name(OPEN[drawn]), event));
        let away = [Away::Fail, Away::Wait, Away::Repeat][self.choose(world).index(3)];
        let guarded = self.beliefs[actor].rooms.get(&channel).is_some_and(|room| room.guarded);
        let guarded = guarded && self.choose(world).chance(1, 2);
        Outgoing { away, ..self.outgoing_of(world, actor, (channel, event.as_str()), guarded) }
    }
}
