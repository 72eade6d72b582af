//! What all messages have in common: their room, their writing, and who is believed to have said them.

use bytes::{Bytes, BytesMut};

use super::channels::ChannelIx;
use super::handshake::Phase;
use super::seal::Seal;
use super::{Client, Dropped, Outgoing, channels};
use crate::auth::message_ref;
use crate::error::{Misuse, Violation};
use crate::names::{Address, ClientId, HubId};
use crate::wire::{self, Header, Hop, encoded_len_max, put_message, put_message_end, put_message_head};

impl Client {
    /// Whether what we say on a channel is signed.
    pub(super) fn signs_on(&self, channel: &crate::ChannelName) -> bool {
        self.channels.find(channel.as_name()).is_some_and(|channel| channel.guarded.seal.is_some())
    }

    /// Whether one more message of this size may be queued now.
    pub(super) fn check_room(&self, outgoing: &Outgoing) -> Result<&HubId, Misuse> {
        let Phase::Ready(ready) = &self.phase else { return Err(Misuse::NotConnected) };
        let coming_back =
            || self.channels.find(outgoing.channel.as_name()).is_some_and(channels::Channel::is_coming_back);
        if self.progress.is_some() && coming_back() {
            return Err(Misuse::NotConnected);
        }
        if outgoing.guarded && !self.signs_on(&outgoing.channel) {
            return Err(Misuse::UnknownToken);
        }
        if outgoing.metadata.len() > self.config.limits.metadata {
            return Err(Misuse::TooLarge);
        }
        let len = frame_len(outgoing.payload.bytes.len() + outgoing.metadata.len());
        if len > ready.frame as usize {
            return Err(Misuse::TooLarge);
        }
        if self.outbox.waiting() + len > self.config.limits.outbox {
            return Err(Misuse::Busy);
        }
        Ok(&ready.hub)
    }

    /// Writes one message, signed if its channel is protected. Number and time are those of the moment it enters the
    /// outbox. Gives what an answer must name, to a call on a protected channel.
    ///
    /// What belongs to a signed call cannot be said any more when the keys are gone; whoever took them has ended the call.
    pub(super) fn write_message(&mut self, route: u32, header: &Header<'_>, payload: &Bytes) -> Option<[u8; 32]> {
        self.write_message_on(self.channels.index_of_name(header.channel), route, header, payload)
    }

    /// As [`Client::write_message`], for a channel that was found already.
    pub(super) fn write_message_on(
        &mut self,
        channel: Option<ChannelIx>,
        route: u32,
        header: &Header<'_>,
        payload: &Bytes,
    ) -> Option<[u8; 32]> {
        self.write_message_after(0, channel, route, header, payload).1
    }

    /// As [`Client::write_message_on`], directly after a message whose header begins with the same `begun` bytes. Gives how
    /// many the next may have in common with this one.
    pub(super) fn write_message_after(
        &mut self,
        begun: usize,
        channel: Option<ChannelIx>,
        route: u32,
        header: &Header<'_>,
        payload: &Bytes,
    ) -> (usize, Option<[u8; 32]>) {
        let Self { scratch, outbox, pool, channels, .. } = self;
        let seal = channel.and_then(|ix| channels.get(ix)).and_then(|channel| channel.guarded.seal.as_ref());
        if seal.is_none() && !header.reference.is_empty() {
            return (0, None);
        }
        let header = Header { epoch: seal.map_or(0, Seal::epoch), ..*header };
        scratch.truncate(begun);
        if scratch.is_empty() {
            header.encode_opening(scratch);
        }
        let begun = scratch.len();
        header.encode_rest(scratch);
        let tag = seal.map(|seal| seal.tag(scratch, payload));
        let tag = tag.as_ref().map_or(&[][..], |tag| tag);
        let hop = Hop::direct(route, 0);
        if payload.len() < WORTH_SHARING {
            let room = hop.encoded_len() + encoded_len_max(scratch.len(), payload.len());
            outbox.push_in(pool, room, header.kind.into(), |out| {
                hop.put(out);
                put_message(out, scratch, payload, tag);
            });
        } else {
            let shared = pool.counted(payload.clone(), payload.len());
            let before = |out: &mut BytesMut| {
                hop.put(out);
                put_message_head(out, scratch, payload.len());
            };
            outbox.push_shared(pool, header.kind.into(), before, shared, |out| put_message_end(out, tag));
        }
        self.frames_sent += 1;
        // Only calls are answered, and a digest costs two thirds of a signature.
        (begun, (header.kind == wire::Kind::Call && !tag.is_empty()).then(|| message_ref(scratch, tag)))
    }

    /// Parses a message, for `act`: most often it begins as the last one that was read here.
    pub(super) fn read_message(
        &mut self,
        bytes: &[u8],
        act: impl FnOnce(&mut Self, &wire::Message<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        // Taken out, since the message borrows from it.
        let (known, mut met) = (self.recent.take(), None);
        let (message, opening) = known.read(bytes).map_err(|_| Violation::BadMessage)?;
        if let Some(opening) = opening {
            met.insert(self.recent.take_spare()).set(&message.header, opening);
        }
        let done = act(self, &message);
        self.recent.keep(known, met);
        done
    }

    /// Whether a message may count: of the epoch we are a member of, and signed under it; unsigned only where nothing is.
    pub(super) fn accept(&mut self, message: &wire::Message<'_>) -> Result<(), Dropped> {
        let channel = self.channels.index_of_name(message.header.channel);
        self.accept_on(channel, message)
    }

    /// As [`Client::accept`], of a message whose channel was found already.
    pub(super) fn accept_on(&mut self, channel: Option<ChannelIx>, message: &wire::Message<'_>) -> Result<(), Dropped> {
        let wall = self.now.wall;
        let channel = channel.and_then(|ix| self.channels.get_mut(ix));
        match channel.and_then(|it| it.guarded.seal.as_mut()) {
            Some(seal) => seal.accept(message, wall).map_err(Dropped::from),
            None if message.header.epoch == 0 => Ok(()),
            None => Err(Dropped::WrongEpoch),
        }
    }

    /// Who said something. On the hub's own channels that is the hub we authenticated, and elsewhere it never is.
    pub(super) fn sender(&mut self, header: &Header<'_>) -> Option<Address> {
        let (client, hub) = (header.sender, header.origin);
        if header.channel.is_reserved() {
            let own = self.ready_hub().ok().filter(|own| own.as_name() == hub)?;
            return (client == ClientId::system().as_name()).then(|| Address { client: ClientId::system(), hub: own });
        }
        if let Some(last) = &self.last_sender
            && last.client.as_name() == client
            && last.hub.as_name() == hub
        {
            return Some(last.clone());
        }
        let address = Address { client: ClientId::new(client.as_str()).ok()?, hub: HubId::new(hub.as_str()).ok()? };
        self.last_sender = Some(address.clone());
        Some(address)
    }
}

/// From this length on a payload goes out as it is: shorter ones are cheaper to copy.
const WORTH_SHARING: usize = 16 << 10;

/// An upper bound of the frame around a payload and metadata of so many bytes together.
pub(super) const fn frame_len(content: usize) -> usize {
    // The type, a hop header without visited hubs, and a header with six names of full length and all numbers at their
    // largest.
    1 + 6 + encoded_len_max(8 + 16 * 9 + 6 * (2 + crate::names::NAME_MAX) + 64, content)
}
