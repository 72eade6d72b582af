//! Streams in the client's tables: found by what the application calls them, and by their numbers on the link.

use super::calls::Pending;
use super::channels::ChannelIx;
use super::flow::Outflow;
use super::serving::Serving;
use super::streams::Stream;
use super::{Client, RequestId, StreamId};
use crate::hash::Map;
use crate::names::{Address, ChannelName, EventName, HubId};
use crate::slots::{Key, Slots};
use crate::wire::{Flags, Kind, Piece, ROUTE_BY_HUB};

/// A stream's place in the client's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Call(Key),
    Request(RequestId),
}

/// What every message of one end of a stream says, and where.
pub(super) struct Context {
    pub(super) hub: HubId,
    pub(super) known: Option<ChannelIx>,
    pub(super) channel: ChannelName,
    pub(super) event: EventName,
    pub(super) request: u64,
    pub(super) reference: Option<[u8; 32]>,
    /// Who asked; nobody where that is this client.
    pub(super) caller: Option<Address>,
    /// Of which kind the last message was, and how much of it the next of the kind has in common with it.
    pub(super) begun: Option<((Kind, Flags), usize)>,
}

impl Client {
    /// What every message of this end says.
    pub(super) fn context(&self, place: Place) -> Option<Context> {
        let hub = self.ready_hub().ok()?;
        let (channel, event, request, reference, caller) = match place {
            Place::Call(key) => {
                let Pending { channel, event, request, reference, .. } = self.calls.get(key)?;
                (channel, event, request, reference, None)
            }
            Place::Request(id) => {
                let Serving { channel, event, request, reference, caller, .. } = self.serving.get(&id.route)?;
                (channel, event, request, reference, Some(caller.clone()))
            }
        };
        let known = self.channels.index_of(channel);
        let (channel, event) = (channel.clone(), event.clone());
        Some(Context { hub, known, channel, event, request: *request, reference: *reference, caller, begun: None })
    }

    pub(super) fn place(&self, id: StreamId) -> Option<Place> {
        match id {
            StreamId::Call(token) => self.streams.get(&token).copied().map(Place::Call),
            StreamId::Request(id) => Some(Place::Request(id)),
        }
    }

    pub(super) fn id_of(&self, place: Place) -> Option<StreamId> {
        match place {
            Place::Call(key) => self.calls.get(key).map(|pending| StreamId::Call(pending.token)),
            Place::Request(id) => Some(StreamId::Request(id)),
        }
    }

    pub(super) fn place_of(&self, route: u32) -> Option<Place> {
        if route & ROUTE_BY_HUB == 0 {
            let key = Key::from_bits(route);
            return self.calls.get(key).and_then(|pending| pending.stream.as_ref()).map(|_| Place::Call(key));
        }
        let serving = self.serving.get(&route).filter(|serving| serving.stream.is_some())?;
        Some(Place::Request(RequestId { route, serial: serving.serial }))
    }

    pub(super) fn stream(&mut self, place: Place) -> Option<&mut Stream> {
        stream(&mut self.calls, &mut self.serving, place)
    }

    pub(super) fn outflow(&mut self, place: Place) -> Option<&mut Outflow> {
        self.stream(place)?.outflow.as_mut()
    }

    /// A piece that is like one that was accepted, where nothing is signed: what was checked of that one holds for it.
    pub(super) fn known_piece<'a>(&mut self, place: Place, message: &'a [u8]) -> Option<Piece<'a>> {
        let stream = self.stream(place)?;
        let piece = stream.known.as_ref()?.piece(message)?;
        let channel = stream.familiar.as_ref()?.channel;
        self.channels.get(channel)?.guarded.seal.is_none().then_some(piece)
    }
}

/// The stream there, where the tables are all that is at hand.
pub(super) fn stream<'a>(
    calls: &'a mut Slots<Pending>,
    serving: &'a mut Map<u32, Serving>,
    place: Place,
) -> Option<&'a mut Stream> {
    match place {
        Place::Call(key) => calls.get_mut(key)?.stream.as_deref_mut(),
        Place::Request(id) => {
            let serving = serving.get_mut(&id.route).filter(|serving| serving.serial == id.serial)?;
            serving.stream.as_deref_mut()
        }
    }
}
