//! What actors do: each an operation that a storm draws.

use commipc_protocol::client::{Command, EventKind, Outgoing, RequestId, StreamEvent, Token};
use core::time::Duration;

use super::{LONGEST_CALL, Swarm};
use crate::streaming::{Speaker, Streaming};
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

    pub(super) fn ask_stream(&mut self, world: &mut World, actor: usize) {
        let mut outgoing = self.outgoing(world, actor);
        let kind = self.retarget(world, &mut outgoing, true);
        let whole = total(world, actor);
        let Some((streaming, by)) = self.speaker(actor) else { return };
        let token = streaming.ask(world, by, (outgoing, kind), whole);
        self.actors[actor].calls.push(token);
    }

    pub(super) fn requested(&mut self, world: &mut World, actor: usize, request: RequestId, kind: EventKind) {
        if !kind.streams() {
            self.actors[actor].requests.push(request);
            return self.answer(world, actor, request);
        }
        if let Some((streaming, by)) = self.speaker(actor) {
            streaming.serve(world, by, request, kind);
        }
    }

    pub(super) fn streamed(&mut self, world: &mut World, actor: usize, event: &StreamEvent) {
        if let StreamEvent::Ended { token, .. } = event {
            self.actors[actor].calls.retain(|call| call != token);
        }
        if let Some((streaming, by)) = self.speaker(actor) {
            streaming.told(world, by, event);
        }
    }

    fn speaker(&mut self, actor: usize) -> Option<(&mut Streaming, Speaker<'_>)> {
        let node = self.actors[actor].node?;
        Some((&mut self.streaming, Speaker { node, actor, said: &mut self.said }))
    }

    /// Most often, something is asked for as it is provided; gives how the event is.
    fn retarget(&self, world: &mut World, outgoing: &mut Outgoing, streams: bool) -> Option<EventKind> {
        let provided = self.actors.iter().flat_map(|actor| &actor.provided);
        let provided = provided.map(|(token, channel, event)| (*token, channel, event));
        let (kind, channel, event) = self.streaming.target(world, provided, streams)?;
        (outgoing.channel, outgoing.event) = (channel.clone(), event.clone());
        // Where the password is not known nothing could be signed.
        outgoing.guarded &= self.owning.passwords.contains_key(channel);
        Some(kind)
    }
}

/// In some runs some streams have a total deadline. Each actor decides about its own by itself, so that recorded runs without
/// them go on as they were.
fn total(world: &mut World, actor: usize) -> Option<Duration> {
    let decisions = world.engine().decisions();
    let own = decisions.stream(&format!("totals/c{actor}"));
    let mut choose = decisions.on(own);
    choose.chance(1, 4).then(|| Duration::from_millis(choose.log_uniform(1, 4 * LONGEST_CALL)))
}
