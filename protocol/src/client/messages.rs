//! Messages without an answer: sends and broadcasts, out and in.

use alloc::sync::Arc;

use super::familiar::Familiar;
use super::{Client, Dropped, Event, Failure, Incoming, Message, Outgoing, Payload, Source, Token};
use crate::canary::Canary;
use crate::error::{Misuse, Refusal, Violation};
use crate::time::UnixMillis;
use crate::wire::{self, Ack, Control as _, Flags, Frame, FrameType, Header, Hop, Kind, Target};

/// How long a message without an answer is worth delivering, in milliseconds.
const TIME_LEFT: u64 = 30_000;

impl Client {
    pub(super) fn handle_send(&mut self, token: Token, outgoing: &Outgoing) {
        self.say(token, Kind::Send, outgoing);
    }

    pub(super) fn handle_broadcast(&mut self, token: Token, outgoing: &Outgoing) {
        self.say(token, Kind::Broadcast, outgoing);
    }

    fn say(&mut self, token: Token, kind: Kind, outgoing: &Outgoing) {
        let hub = match self.check_room(outgoing) {
            Ok(hub) => hub.clone(),
            Err(misuse) => return self.event(Event::Sent { token, result: Err(Failure::Local(misuse)) }),
        };
        let seq = self.next_seq(&outgoing.channel);
        let bseq = if kind == Kind::Broadcast { self.next_bseq(outgoing) } else { 0 };
        let (id, instance) = (self.id.clone(), self.instance);
        let header = Header {
            kind,
            flags: Flags::NONE.with_if(Flags::RAW, outgoing.payload.raw),
            channel: outgoing.channel.as_name(),
            event: outgoing.event.as_name(),
            epoch: 0,
            sender: id.as_name(),
            origin: hub.as_name(),
            instance: &instance,
            seq,
            bseq,
            sent_at: self.now.wall.0,
            time_left: TIME_LEFT,
            request: 0,
            reference: &[],
            index: 0,
            target: Target::NONE,
            metadata: &outgoing.metadata,
        };
        let _ = self.write_message(0, &header, &outgoing.payload.bytes);
        if bseq > 0 && self.signs_on(&outgoing.channel) {
            self.remember_said(&outgoing.channel, &outgoing.event, bseq);
        }
        self.sends.push_back((self.frames_sent, token));
    }

    fn next_bseq(&mut self, outgoing: &Outgoing) -> u64 {
        let Some(channel) = self.channels.entry(&outgoing.channel) else { return 1 };
        if let Some(number) = channel.bseqs.get_mut(&outgoing.event) {
            *number += 1;
            return *number;
        }
        channel.bseqs.insert(outgoing.event.clone(), 1);
        1
    }

    /// The hub has taken what it has read, and refused some of it.
    pub(super) fn handle_ack(&mut self, frame: &Frame) -> Result<(), Violation> {
        let Ack { taken, refused } = Ack::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        if taken > self.frames_sent {
            return Err(Violation::UnexpectedFrame);
        }
        let mut refused = refused.unwrap_or_default().into_iter().peekable();
        while let Some(&(position, token)) = self.sends.front().filter(|(position, _)| *position <= taken) {
            self.sends.pop_front();
            while refused.next_if(|refused| refused.position < position).is_some() {}
            let refused = refused.next_if(|refused| refused.position == position);
            let result = refused.map_or(Ok(()), |refused| {
                Err(Refusal::from_code(refused.code).map_or(Failure::RefusedCode(refused.code), Failure::Refused))
            });
            self.event(Event::Sent { token, result });
        }
        Ok(())
    }

    /// A broadcast for our listeners, or a send for one of our providers.
    pub(super) fn handle_heard(&mut self, kind: FrameType, frame: &Frame) -> Result<(), Violation> {
        // Taken out, since the message borrows from it.
        let familiar = self.familiar.take();
        let met = self.hear(kind, frame, familiar.as_ref())?;
        // What the hub says on its own channels depends on which hub that is.
        self.familiar = met.filter(|met| !met.source.channel.as_name().is_reserved()).or(familiar);
        Ok(())
    }

    /// Gives those who said it, if it was not who spoke last.
    fn hear(
        &mut self,
        kind: FrameType,
        frame: &Frame,
        familiar: Option<&Familiar>,
    ) -> Result<Option<Familiar>, Violation> {
        let (hop, bytes) = Hop::split(frame.body()).map_err(|_| Violation::BadMessage)?;
        let familiar = familiar.filter(|familiar| hop.is_path(&familiar.source.path));
        let (message, opening) =
            wire::Message::read(bytes, |header| familiar.and_then(|familiar| familiar.header(header)))
                .map_err(|_| Violation::BadMessage)?;
        let fits = kind.message_kind() == Some(message.header.kind);
        let met = opening.and_then(|opening| self.meet(&message.header, hop, opening));
        let known = familiar.filter(|_| opening.is_none());
        match known.or(met.as_ref()).filter(|_| fits) {
            Some(from) => self.tell(frame, hop, &message, from),
            None => self.event(Event::Dropped(if fits { Dropped::NoListener } else { Dropped::Mismatch })),
        }
        Ok(met)
    }

    /// Hands on a message that came from those we know, if it counts.
    fn tell(&mut self, frame: &Frame, hop: Hop<'_>, message: &wire::Message<'_>, from: &Familiar) {
        let header = &message.header;
        if let Err(why) = self.accept_on(Some(from.channel), message) {
            return self.event(Event::Dropped(why));
        }
        if header.kind == Kind::Broadcast && self.is_overtaken(&from.source, header) {
            return self.event(Event::Dropped(Dropped::Replayed));
        }
        let incoming = self.arrived(frame, hop, message, Arc::clone(&from.source));
        // Accepted, so the epoch tells whether the channel is protected: only then do numbers count.
        if header.kind == Kind::Broadcast && header.epoch > 0 && !self.is_next(message, &incoming) {
            return;
        }
        let Self { channels, outputs, .. } = self;
        let Some(channel) = channels.get(from.channel) else { return };
        let mut tell = |to, message| {
            let message = Message { to, message, number: header.bseq };
            outputs.push_back(crate::Output::Event(Event::Message(message)));
        };
        let heard = match header.kind {
            Kind::Broadcast => tell_all(channel.listeners(header.event), incoming, tell),
            Kind::Send => {
                let provided = channel.providers.get(header.event.as_str());
                provided
                    .filter(|provided| !provided.kind.streams())
                    .map(|provided| tell(provided.token, incoming))
                    .is_some()
            }
            // The frame's type is one of these two, and so is the message's kind.
            Kind::Call | Kind::Answer | Kind::Fault | Kind::Item | Kind::End | Kind::Cancel | Kind::Beacon => false,
        };
        if !heard {
            self.event(Event::Dropped(Dropped::NoListener));
        }
    }

    /// What came in, with the names of our own table; `None` if nobody here knows the channel.
    pub(super) fn incoming(&mut self, frame: &Frame, hop: Hop<'_>, message: &wire::Message<'_>) -> Option<Incoming> {
        let channel = self.channels.index_of_name(message.header.channel)?;
        let source = self.source(&message.header, hop, channel)?;
        Some(self.arrived(frame, hop, message, Arc::new(source)))
    }

    fn arrived(&mut self, frame: &Frame, hop: Hop<'_>, message: &wire::Message<'_>, source: Arc<Source>) -> Incoming {
        let header = &message.header;
        let raw = header.flags.has(Flags::RAW);
        // Raw bytes are what the application gets and may keep for long; a value is decoded and its bytes are let go of.
        let bytes = if raw { frame.keep(message.payload) } else { self.scraps.keep(frame, message.payload) };
        Incoming {
            source,
            payload: Payload { bytes, raw },
            metadata: frame.keep(header.metadata),
            sent_at: UnixMillis(header.sent_at),
            hops: hop.hops,
        }
    }

    pub(super) fn lose_sends(&mut self, gone: Misuse) {
        for (_, token) in core::mem::take(&mut self.sends) {
            if Canary::SendsLost.sings() {
                continue;
            }
            self.event(Event::Sent { token, result: Err(Failure::Local(gone)) });
        }
    }
}

/// Tells each of them, and whether there was any. The last one takes the message itself, so that one listener costs no copy.
fn tell_all(mut all: impl Iterator<Item = Token>, message: Incoming, mut tell: impl FnMut(Token, Incoming)) -> bool {
    let Some(mut last) = all.next() else { return false };
    for next in all {
        tell(last, message.clone());
        last = next;
    }
    tell(last, message);
    true
}
