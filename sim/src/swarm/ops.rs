//! What actors do: each an operation that a storm draws.

use commipc_protocol::client::{Command, Token};
use core::time::Duration;

use super::{LONGEST_CALL, Swarm};
use crate::world::World;

impl Swarm {
    pub(super) fn connect(&mut self, world: &mut World, actor: usize) {
        self.actors[actor].closed = false;
        self.ask(world, actor, Command::Connect);
    }

    pub(super) fn leave(&mut self, world: &mut World, actor: usize) {
        let (token, channel) = (world.token(), self.open_channel(world, actor));
        self.actors[actor].open.retain(|open| *open != channel);
        self.ask(world, actor, Command::Leave { token, channel });
    }

    pub(super) fn provide(&mut self, world: &mut World, actor: usize) {
        let (token, channel, event) = (world.token(), self.open_channel(world, actor), self.event(world));
        self.actors[actor].providing.push((token, channel.clone(), event.clone()));
        let kind = self.streaming.kind(world, token);
        self.ask(world, actor, Command::Provide { token, channel, event, kind });
    }

    pub(super) fn withdraw(&mut self, world: &mut World, actor: usize) {
        let (token, provider) = (world.token(), self.one_provided(world, actor));
        self.ask(world, actor, Command::Withdraw { token, provider });
    }

    pub(super) fn listen(&mut self, world: &mut World, actor: usize) {
        let (token, channel, event) = (world.token(), self.open_channel(world, actor), self.event(world));
        let event = self.choose(world).chance(1, 2).then_some(event);
        self.actors[actor].listening.push((token, channel.clone()));
        self.ask(world, actor, Command::Listen { token, channel, event });
    }

    pub(super) fn unlisten(&mut self, world: &mut World, actor: usize) {
        let (token, listener) = (world.token(), self.one_listening(world, actor));
        self.ask(world, actor, Command::Unlisten { token, listener });
    }

    pub(super) fn call(&mut self, world: &mut World, actor: usize) {
        let (token, mut outgoing) = (world.token(), self.outgoing(world, actor));
        self.retarget(world, &mut outgoing, false);
        let time_left = Duration::from_millis(self.choose(world).log_uniform(1, LONGEST_CALL));
        self.actors[actor].calls.push(token);
        self.ask(world, actor, Command::Call { token, outgoing, time_left });
    }

    pub(super) fn cancel(&mut self, world: &mut World, actor: usize) {
        let call = self.one_call(world, actor);
        self.ask(world, actor, Command::Cancel { call });
    }

    pub(super) fn send(&mut self, world: &mut World, actor: usize) {
        let (token, outgoing) = (world.token(), self.outgoing(world, actor));
        self.ask(world, actor, Command::Send { token, outgoing });
    }

    pub(super) fn broadcast(&mut self, world: &mut World, actor: usize) {
        let (token, outgoing) = (world.token(), self.outgoing(world, actor));
        self.ask(world, actor, Command::Broadcast { token, outgoing });
    }

    pub(super) fn close(&mut self, world: &mut World, actor: usize) {
        self.ask(world, actor, Command::Close);
    }

    pub(super) fn cut(&mut self, world: &mut World, actor: usize) {
        if let Some(node) = self.actors[actor].node {
            world.engine().cut(node);
        }
    }

    pub(super) fn one_provided(&mut self, world: &mut World, actor: usize) -> Token {
        let mut tokens = self.actors[actor].provided.iter().map(|(token, ..)| *token).collect();
        let drawn = self.drawn_from(world, &mut tokens);
        self.actors[actor].provided.retain(|(token, ..)| *token != drawn);
        drawn
    }

    pub(super) fn one_listening(&mut self, world: &mut World, actor: usize) -> Token {
        let mut tokens = self.actors[actor].listening.iter().map(|(token, _)| *token).collect();
        let drawn = self.drawn_from(world, &mut tokens);
        self.actors[actor].listening.retain(|(token, _)| *token != drawn);
        drawn
    }

    pub(super) fn one_call(&mut self, world: &mut World, actor: usize) -> Token {
        let mut calls = std::mem::take(&mut self.actors[actor].calls);
        let drawn = self.drawn_from(world, &mut calls);
        self.actors[actor].calls = calls;
        drawn
    }

    /// Something the actor has; now and then, and if it has nothing, what nobody has.
    pub(super) fn drawn_from(&self, world: &mut World, having: &mut Vec<Token>) -> Token {
        let mut choose = world.engine.decisions().on(self.work);
        if having.is_empty() || choose.chance(1, 16) {
            return Token(u64::MAX);
        }
        let index = choose.index(having.len());
        having.swap_remove(index)
    }
}
