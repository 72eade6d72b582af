//! Points at which protocols go wrong, and which long runs must have reached, or they show little: seen from outside.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::client::{Command, Event, Token};
use commipc_protocol::hub::DisconnectReason;
use commipc_protocol::wire::{LENGTH_LEN, MAGIC};
use commipc_protocol::{ChannelName, Input, LinkId, Output, Refusal, hub};

use crate::engine::Sight;
use crate::marks::Marks;
use crate::node::NodeId;
use crate::oracles::Seen;
use crate::station::{Asked, Told};

/// Knows just enough of a world to see them.
#[derive(Debug, Default)]
pub(crate) struct Milestones {
    marks: Marks,
    /// What clients asked and were not told the end of.
    opening: BTreeSet<(NodeId, Token)>,
    calls: BTreeMap<(NodeId, Token), ChannelName>,
    /// Of each hub's end, the client's node.
    dialled_by: BTreeMap<(NodeId, LinkId), NodeId>,
    /// Clients that were joining when their connection ended.
    interrupted: BTreeSet<NodeId>,
    /// Where readers of connections without tags are.
    reading: BTreeMap<(NodeId, LinkId), Reading>,
}

/// How far a connection was read.
#[derive(Debug)]
struct Reading {
    /// What is left of the frame, or of what stands before the first.
    rest: usize,
    /// Bytes of the next length.
    length: Vec<u8>,
}

impl Milestones {
    pub(crate) fn met(&self) -> &BTreeMap<&'static str, u64> {
        &self.marks.0
    }

    pub(crate) fn meets(&mut self, what: &'static str) {
        self.marks.met(what);
    }

    pub(crate) fn saw(&mut self, node: NodeId, sight: &Seen<'_>) {
        match sight {
            Sight::Linked { with, as_link, .. } => {
                self.dialled_by.insert((*with, *as_link), node);
            }
            Sight::Fed(Input::Dialled { link, peer }) if peer.is_private() => self.reads(node, *link, 0),
            Sight::Fed(Input::Accepted { link, peer }) if peer.is_private() => self.reads(node, *link, MAGIC.len()),
            Sight::Fed(Input::Received { link, data }) => {
                if let Some(reading) = self.reading.get_mut(&(node, *link)) {
                    reading.takes(data);
                }
            }
            Sight::Fed(Input::Closed { link, .. }) => {
                let reading = self.reading.remove(&(node, *link));
                if reading.is_some_and(|reading| reading.rest == 0 && !reading.length.is_empty()) {
                    self.meets("a connection ends inside of a length");
                }
                self.ended(node);
            }
            Sight::Gave(Output::Close { link, .. }) => {
                self.reading.remove(&(node, *link));
                self.ended(node);
            }
            Sight::Fed(Input::Command(Asked::Client(command))) => self.asked(node, command),
            Sight::Gave(Output::Event(Told::Client(event))) => self.told(node, event),
            Sight::Gave(Output::Event(Told::Hub(event))) => self.hub_told(node, event),
            Sight::Fed(_) | Sight::Gave(_) | Sight::Drained | Sight::Broke(_) => {}
        }
    }

    fn reads(&mut self, node: NodeId, link: LinkId, rest: usize) {
        self.reading.insert((node, link), Reading { rest, length: Vec::new() });
    }

    /// A connection of this node has ended; a hub joins nothing.
    fn ended(&mut self, node: NodeId) {
        if self.opening.range((node, Token(0))..=(node, Token(u64::MAX))).next().is_some() {
            self.interrupted.insert(node);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only what can be interrupted matters here")]
    fn asked(&mut self, node: NodeId, command: &Command) {
        match command {
            Command::Open { token, .. } => {
                self.opening.insert((node, *token));
            }
            Command::Call { token, outgoing, .. } => {
                self.calls.insert((node, *token), outgoing.channel.clone());
            }
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only what can be interrupted matters here")]
    fn told(&mut self, node: NodeId, event: &Event) {
        match event {
            Event::Done { token, .. } => {
                self.opening.remove(&(node, *token));
            }
            Event::Answered { token, .. } => {
                self.calls.remove(&(node, *token));
            }
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only what interrupts matters here")]
    fn hub_told(&mut self, node: NodeId, event: &hub::Event) {
        match event {
            hub::Event::Disconnected { link, why, .. } => {
                let client = self.dialled_by.get(&(node, *link)).copied();
                let joined = client.is_some_and(|client| self.interrupted.remove(&client));
                if joined && *why == DisconnectReason::Refused(Refusal::Superseded) {
                    self.meets("an id is taken over from a connection that was joining");
                }
            }
            hub::Event::ProtectionChanged { channel, .. } if self.calls.values().any(|of| of == channel) => {
                self.meets("a password changes while a call is on its way");
            }
            _ => {}
        }
    }
}

impl Reading {
    fn takes(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let (rest, behind) = data.split_at(self.rest.min(data.len()));
            self.rest -= rest.len();
            let (head, behind) = behind.split_at((LENGTH_LEN - self.length.len()).min(behind.len()));
            self.length.extend_from_slice(head);
            if let Some(length) = self.length.first_chunk::<LENGTH_LEN>() {
                self.rest = u32::from_be_bytes(*length) as usize;
                self.length.clear();
            }
            data = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use commipc_protocol::{LinkEnd, Peer, Transport};

    /// How often a connection that ends after so many bytes of two frames ends inside of a length.
    fn cut_after(bytes: usize, transport: Transport) -> u64 {
        let (mut seen, node, link) = (Milestones::default(), NodeId::new(0), LinkId::accepted(1, 1));
        let mut sees = |input: &Input<Asked>| seen.saw(node, &Sight::Fed(input));
        sees(&Input::Accepted { link, peer: Peer::unknown(transport) });
        let said = [&MAGIC[..], &[0, 0, 0, 2, 6, 0xa0], &[0, 0, 0, 2, 7, 0xa0]].concat();
        for byte in &said[..bytes] {
            sees(&Input::Received { link, data: Bytes::copy_from_slice(&[*byte]) });
        }
        sees(&Input::Closed { link, how: LinkEnd::Reset });
        seen.met().values().sum()
    }

    #[test]
    fn a_length_that_is_cut_is_seen_and_nothing_else() {
        let inside: Vec<usize> = (0..=20).filter(|bytes| cut_after(*bytes, Transport::Memory) > 0).collect();
        assert_eq!(inside, [9, 10, 11, 15, 16, 17]);
        assert_eq!(cut_after(9, Transport::Tcp), 0, "behind tags nobody can tell");
    }
}
