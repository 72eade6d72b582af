//! What went over the wire, and what a hub that does not keep to the rules may show a client.

use commipc_protocol::bridge::Side;
use commipc_protocol::client::Event;
use commipc_protocol::wire::{Announce, Control as _, Done, FrameType, MAGIC};
use commipc_protocol::{Input, LinkId, Machine as _};

use super::World;
use super::net::Net;

impl World {
    /// The last frame of a kind that a client said on its link: its body.
    pub fn last_said(&self, client: usize, kind: FrameType) -> Vec<u8> {
        last(&self.wire[&self.link_of(client)].0[MAGIC.len()..], kind)
    }

    /// All frames of a kind that a client said to its hub on its link: their bodies.
    pub fn all_said(&self, client: usize, kind: FrameType) -> Vec<Vec<u8>> {
        all(&self.wire[&self.link_of(client)].0[MAGIC.len()..], kind)
    }

    /// The last frame of a kind that the hub said to a client on its link: its body.
    pub fn last_heard(&self, client: usize, kind: FrameType) -> Vec<u8> {
        last(&self.wire[&self.link_of(client)].1, kind)
    }

    /// What the hub answers to a frame that comes on a client's link, and that the client does not hear of: a code, 0 for yes.
    pub fn answer_to(&mut self, client: usize, kind: FrameType, body: &[u8]) -> u16 {
        self.deceived = Some(client);
        self.says(client, kind, body);
        self.deceived = None;
        Done::parse(&self.last_heard(client, FrameType::Done)).unwrap().code
    }

    /// Feeds the hub a frame as if a client had sent it.
    pub fn says(&mut self, client: usize, kind: FrameType, body: &[u8]) {
        let length = u32::try_from(body.len() + 1).unwrap();
        self.inject(client, &[&length.to_be_bytes()[..], &[kind.number()], body].concat());
    }

    /// Shows a client a frame as if its hub had sent it; what it makes of it.
    pub fn show(&mut self, client: usize, kind: FrameType, body: &[u8]) -> Vec<Event> {
        let length = u32::try_from(body.len() + 1).unwrap();
        let frame = [&length.to_be_bytes()[..], &[kind.number()], body].concat();
        let link = self.dialled[client].unwrap_or(LinkId::dialled(0, 1));
        let input = Input::Received { link, data: frame.into() };
        self.clients[client].handle_input(self.now, input);
        self.take_events(client);
        self.events[client].drain(..).collect()
    }

    /// The link that stands, or else the first: clients connect in their order.
    fn link_of(&self, client: usize) -> LinkId {
        self.links[client].unwrap_or_else(|| LinkId::accepted(client as u32, client as u32 + 1))
    }
}

fn last(bytes: &[u8], kind: FrameType) -> Vec<u8> {
    all(bytes, kind).pop().unwrap_or_default()
}

fn all(mut bytes: &[u8], kind: FrameType) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        if frame[0] == kind.number() {
            found.push(frame[1..].to_vec());
        }
        bytes = rest;
    }
    found
}

impl Net {
    /// Announces something in a bridge's name.
    pub fn announce(&mut self, bridge: usize, side: Side, announced: &Announce<'_>) {
        let mut body = bytes::BytesMut::new();
        announced.encode(&mut body);
        self.forge(bridge, side, FrameType::Announce.number(), &body);
    }
}
