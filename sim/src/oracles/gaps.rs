//! A member hears the broadcasts of each sender and event without a hole, or is told of it: whatever its hub keeps back.

use std::collections::BTreeMap;

use commipc_protocol::client::{Gap, Message, Outgoing, Token};
use commipc_protocol::{ChannelName, ClientId, EventName};

use super::{Resident, Verdict, ensure};
use crate::node::NodeId;

/// The number of each sender's last broadcast of an event.
type Numbers = BTreeMap<(ClientId, EventName), u64>;

/// Numbers as listeners on protected channels see them.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    ids: BTreeMap<NodeId, ClientId>,
    /// How often an event was broadcast.
    said: BTreeMap<(ClientId, ChannelName, EventName), u64>,
    /// The last number that a listener heard, or heard of.
    last: BTreeMap<(NodeId, ChannelName, Token), Numbers>,
}

impl Gaps {
    pub(super) fn joined(&mut self, node: NodeId, who: &Resident) {
        self.ids.extend(who.id.clone().map(|id| (node, id)));
    }

    pub(super) fn broadcast(&mut self, node: NodeId, outgoing: &Outgoing) {
        let Some(id) = self.ids.get(&node).cloned() else { return };
        *self.said.entry((id, outgoing.channel.clone(), outgoing.event.clone())).or_default() += 1;
    }

    /// Under other keys, numbers begin where the first is heard.
    pub(super) fn sealed(&mut self, node: NodeId, channel: &ChannelName) {
        self.last.retain(|(who, of, _), _| *who != node || of != channel);
    }

    pub(super) fn heard(&mut self, node: NodeId, message: &Message) -> Verdict {
        let Message { to, message: heard, number } = message;
        self.advance((node, heard.channel.clone(), *to), &heard.sender.client, &heard.event, (*number, *number))
    }

    pub(super) fn gap(&mut self, node: NodeId, gap: &Gap) -> Verdict {
        let Gap { to, channel, event, sender, first, last } = gap;
        let said = self.said.get(&(sender.client.clone(), channel.clone(), event.clone()));
        let fine = first <= last && said.is_some_and(|said| last <= said);
        ensure(fine, || format!("{node:?} is told of {gap:?}, said was {said:?}"))?;
        self.advance((node, channel.clone(), *to), &sender.client, event, (*first, *last))
    }

    fn advance(
        &mut self,
        listener: (NodeId, ChannelName, Token),
        sender: &ClientId,
        event: &EventName,
        (first, last): (u64, u64),
    ) -> Verdict {
        // Clients that share an id come one after the other, and each counts from 1.
        if self.ids.values().filter(|id| *id == sender).count() > 1 {
            return Ok(());
        }
        let heard = self.last.entry(listener.clone()).or_default();
        let before = heard.insert((sender.clone(), event.clone()), last);
        ensure(before.is_none_or(|before| first == before + 1), || {
            format!("{listener:?} came from {before:?} to {first} of {sender}'s {event}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{address, channel, event, incoming, outgoing, resident};
    use super::*;

    const LISTENER: NodeId = NodeId::new(2);

    fn scene() -> Gaps {
        let mut gaps = Gaps::default();
        (0..3).for_each(|node| gaps.joined(NodeId::new(node), &resident(node)));
        (0..9).for_each(|_| gaps.broadcast(NodeId::new(1), &outgoing("x")));
        gaps
    }

    fn heard(gaps: &mut Gaps, number: u64) -> Verdict {
        gaps.heard(LISTENER, &Message { to: Token(1), message: incoming(1, "x"), number })
    }

    fn missing(gaps: &mut Gaps, first: u64, last: u64) -> Verdict {
        let (channel, event, sender) = (channel(), event(), address(1));
        gaps.gap(LISTENER, &Gap { to: Token(1), channel, event, sender, first, last })
    }

    #[test]
    fn what_is_missing_is_told() {
        let mut gaps = scene();
        heard(&mut gaps, 3).unwrap();
        heard(&mut gaps, 4).unwrap();
        missing(&mut gaps, 5, 7).unwrap();
        heard(&mut gaps, 8).unwrap();
        gaps.sealed(LISTENER, &channel());
        heard(&mut gaps, 2).unwrap();
    }

    #[test]
    fn bites_on_a_hole_on_a_step_back_and_on_a_gap_that_is_none() {
        let after = |then: fn(&mut Gaps) -> Verdict| {
            let mut gaps = scene();
            heard(&mut gaps, 3).unwrap();
            then(&mut gaps)
        };
        assert!(after(|gaps| heard(gaps, 5)).is_err());
        assert!(after(|gaps| heard(gaps, 3)).is_err());
        assert!(after(|gaps| missing(gaps, 3, 4)).is_err());
        assert!(after(|gaps| missing(gaps, 5, 6)).is_err());
        assert!(after(|gaps| missing(gaps, 4, 10)).is_err(), "never said");
        assert!(after(|gaps| missing(gaps, 4, 9)).is_ok());
    }
}
