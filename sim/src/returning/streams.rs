//! Streams and exchanges of applications whose connections come back: cut by whatever befalls these, and whole again after it.

use commipc_protocol::client::{Away, CallFailure, Event, EventKind, ReconnectEvent, RequestId, StreamEvent, Token};
use commipc_protocol::{CloseReason, Violation};
use core::time::Duration;

use super::beliefs::Place;
use super::{Returning, Streaming};
use crate::streaming::{LONGEST_CALL, Speaker};
use crate::world::World;

/// What is told of a link on which a frame takes too long, by its hub or of it.
const TOO_SLOW: [CloseReason; 2] =
    [CloseReason::GoodbyeCode(Violation::PartialFrame.code()), CloseReason::Violation(Violation::PartialFrame)];

/// How long all items of a stream may take, when everything is repaired.
const WHOLE: Duration = Duration::from_millis(LONGEST_CALL);

impl Returning {
    fn speaker(&mut self, actor: usize) -> (&mut Streaming, Speaker<'_>) {
        let node = self.beliefs[actor].node;
        (&mut self.streaming, Speaker { node, actor, said: &mut self.said })
    }

    pub(super) fn ask_stream(&mut self, world: &mut World, actor: usize) {
        let mut outgoing = self.outgoing(world, actor);
        let provided = self.beliefs.iter().flat_map(|belief| &belief.provided);
        let provided = provided.map(|((channel, event), token)| (*token, channel, event));
        let target = self.streaming.target(world, provided, true);
        let target = target.map(|(kind, channel, event)| (kind, channel.clone(), event.clone()));
        let kind = target.map(|(kind, channel, event)| {
            let guarded = self.beliefs[actor].rooms.get(&channel).is_some_and(|room| room.guarded);
            outgoing.guarded &= guarded;
            (outgoing.channel, outgoing.event) = (channel, event);
            kind
        });
        let (streaming, by) = self.speaker(actor);
        streaming.ask(world, by, (outgoing, kind), None);
    }

    pub(super) fn serve(&mut self, world: &mut World, actor: usize, request: RequestId, kind: EventKind) {
        let (streaming, by) = self.speaker(actor);
        streaming.serve(world, by, request, kind);
    }

    pub(super) fn streamed(&mut self, world: &mut World, actor: usize, event: &StreamEvent) {
        if let StreamEvent::Ended { token, result } = event
            && let Some(ended) = self.whole.get_mut(token)
        {
            *ended = Some(result.clone());
        }
        let (streaming, by) = self.speaker(actor);
        streaming.told(world, by, event);
    }

    /// When everything is repaired whoever believes to provide a stream gives it to whoever asks, to its end.
    pub(super) fn judge_streams(&mut self, world: &mut World) {
        let mut asked: Vec<(usize, Token, Place)> = Vec::new();
        for (provider, channel, event, token) in self.all_provided() {
            let kind = self.streaming.provided(token);
            if !kind.streams() {
                continue;
            }
            let caller = self.one_member(world, provider, &channel);
            let guarded = self.beliefs[caller].rooms.get(&channel).is_some_and(|room| room.guarded);
            let outgoing = self.says(world, caller, channel.clone(), event.clone(), guarded, Away::Fail);
            let (streaming, by) = self.speaker(caller);
            let token = streaming.ask(world, by, (outgoing, Some(kind)), None);
            self.whole.insert(token, None);
            asked.push((caller, token, (channel, event)));
        }
        if asked.is_empty() {
            return;
        }
        let told: Vec<usize> = self.beliefs.iter().map(|belief| world.told_at(belief.node).len()).collect();
        self.pass(world, WHOLE);
        // A piece of a long item takes longer on some lines than a frame may.
        let slow = |event: &Event| matches!(event, Event::Reconnect(ReconnectEvent::Lost { reason, .. }) if TOO_SLOW.contains(reason));
        let mut since = self.beliefs.iter().zip(told).flat_map(|(belief, from)| &world.told_at(belief.node)[from..]);
        if since.any(slow) {
            return self.marks.met("quiet: a line is too slow for a stream");
        }
        for (caller, token, place) in asked {
            let ended: Option<Result<(), CallFailure>> = self.whole.get(&token).cloned().flatten();
            if ended != Some(Ok(())) {
                let what = format!("its stream of {place:?} ended with {ended:?}");
                return world.fails("returning", self.beliefs[caller].node, what);
            }
            self.marks.met("quiet: a stream is whole");
        }
    }
}
