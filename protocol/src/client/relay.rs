//! What a bridge needs of its client at a hub: the frames of others, as they are.

use alloc::collections::VecDeque;

use bytes::{BufMut as _, BytesMut};

use super::{Client, ClientConfig, Event, Phase};
use crate::error::Violation;
use crate::machine::Output;
use crate::seed::Seed;
use crate::wire::{Frame, FrameType, Hop};

/// Frames that a bridge has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Relay(VecDeque<(FrameType, Frame)>);

impl Client {
    /// A client whose messages are a bridge's business.
    pub(crate) fn relaying(config: ClientConfig, seed: &Seed) -> Self {
        let mut client = Self::new(config, seed);
        client.relay = Some(Relay::default());
        client
    }

    /// Keeps a frame for the bridge; gives it back if it is the client's own.
    pub(super) fn relay(&mut self, kind: FrameType, frame: &Frame) -> Option<Result<(), Violation>> {
        let Relay(frames) = self.relay.as_mut()?;
        let own = matches!(kind, FrameType::Ping | FrameType::Pong | FrameType::Goodbye);
        let control = matches!(
            kind,
            FrameType::Done
                | FrameType::Announce
                | FrameType::Forget
                | FrameType::Remote
                | FrameType::Told
                | FrameType::Fail
                | FrameType::Credit
        );
        if own {
            return None;
        }
        if !control && kind.message_kind().is_none() {
            return Some(Err(Violation::UnexpectedFrame));
        }
        frames.push_back((kind, frame.clone()));
        Some(Ok(()))
    }

    /// The next frame for the bridge.
    pub(crate) fn next_relayed(&mut self) -> Option<(FrameType, Frame)> {
        self.relay.as_mut()?.0.pop_front()
    }

    /// The next output that is not bytes for the driver to come and take.
    pub(crate) fn poll_told(&mut self) -> Option<Output<Event>> {
        self.outputs.pop_front()
    }

    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.outbox.waiting()
    }

    /// Bytes of a frame's type and body that the hub takes.
    pub(crate) fn frame_limit(&self) -> usize {
        self.ready_frame()
    }

    /// Whether there is a hub to say something to. What a bridge says when its link has just gone is said to nobody.
    const fn is_there(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    /// Says something to the hub.
    pub(crate) fn say_frame(&mut self, kind: FrameType, fill: impl FnOnce(&mut BytesMut)) {
        if !self.is_there() {
            return;
        }
        self.outbox.push(&mut self.pool, kind, fill);
    }

    /// Passes a message on that came from another hub.
    pub(crate) fn pass_message(&mut self, kind: FrameType, hop: Hop<'_>, frame: &Frame, message: &[u8]) {
        if !self.is_there() {
            return;
        }
        let shared = frame.share_counted(&self.pool, message);
        self.outbox.push_message(&mut self.pool, kind, |out| hop.put(out), message, shared);
        self.frames_sent += 1;
    }

    /// Bytes that have not left the driver's hands.
    pub(crate) fn left(&self) -> usize {
        self.outbox.in_flight() + self.outbox.waiting()
    }

    /// Passes a control frame of an exchange on, under another number.
    pub(crate) fn pass_control(&mut self, kind: FrameType, route: u32, body: &[u8]) {
        if !self.is_there() {
            return;
        }
        self.outbox.push(&mut self.pool, kind, |out| {
            out.put_u32(route);
            out.put_slice(body);
        });
    }

    /// Ends the link because of what the hub said.
    pub(crate) fn end_for(&mut self, violation: Violation) {
        self.violated(violation);
    }
}
