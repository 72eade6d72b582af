//! The work an input causes is bounded: by the bytes it brought, and by what was asked for in the whole world before.

use std::collections::BTreeMap;

use commipc_protocol::{Input, Instant, LinkId, Output};

use super::{Oracle, Resident, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;

/// Holds that outputs per input are bounded, and that what is ready for a link comes in one piece.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Nodes and commands so far: nothing else makes state that an input could touch.
    size: u64,
    at: BTreeMap<NodeId, Budget>,
}

#[derive(Debug, Default)]
struct Budget {
    inputs: u64,
    /// Bytes that came since the outputs were drained; what they ask for may touch every node.
    received: u64,
    outputs: u64,
    transmits: BTreeMap<LinkId, Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    pieces: u64,
    bytes: u64,
}

/// Length, type and a tiny body.
const SMALLEST_FRAME: u64 = 6;
/// A link's outbox may hold a message too large to be copied, then small ones, before and behind it.
const PIECES: u64 = 16;

impl Oracle for Outputs {
    fn name(&self) -> &'static str {
        "outputs"
    }

    fn joined(&mut self, _: NodeId, _: &Resident) {
        self.size += 1;
    }

    fn died(&mut self, node: NodeId) {
        self.at.remove(&node);
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        let size = self.size;
        let budget = self.at.entry(node).or_default();
        match sight {
            Sight::Fed(input) => {
                budget.inputs += 1;
                if let Input::Received { data, .. } = input {
                    budget.received += data.len() as u64;
                }
                self.size += u64::from(matches!(input, Input::Command(_)));
            }
            Sight::Gave(output) => {
                budget.outputs += 1;
                if let Output::Transmit { link, data } = output {
                    let sent = budget.transmits.entry(*link).or_default();
                    (sent.pieces, sent.bytes) = (sent.pieces + 1, sent.bytes + data.len() as u64);
                }
                return budget.judge(size);
            }
            Sight::Drained => *budget = Budget::default(),
            Sight::Linked { .. } | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

impl Budget {
    fn judge(&self, size: u64) -> Verdict {
        let frames = self.inputs + self.received / SMALLEST_FRAME;
        let most = frames * (4 + size) + 2 * size;
        ensure(self.outputs <= most, || format!("{} outputs of {} inputs", self.outputs, self.inputs))?;
        // Every message of at least 4 KiB may stand alone, between smaller ones that are gathered. What has waited long may be
        // let go all at once, however little comes in.
        let most = |sent: &Sent| self.inputs * PIECES + 2 * sent.bytes / 4_096;
        let worst = self.transmits.iter().find(|(_, sent)| sent.pieces > most(sent));
        ensure(worst.is_none(), || format!("{worst:?} transmits of {} inputs", self.inputs))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{HUB, Scene, hub_link};
    use super::*;
    use bytes::Bytes;
    use commipc_protocol::client::Command;
    use commipc_protocol::hub;

    #[test]
    fn bites_on_a_flood_of_events_and_of_pieces() {
        let mut flood = Scene::new(Outputs::default());
        flood.fed(HUB, Input::Timeout).unwrap();
        let told = (0..100).try_for_each(|_| flood.hub_tells(hub::Event::Stopped));
        assert!(told.is_err());
        let mut pieces = Scene::new(Outputs::default());
        pieces.fed(HUB, Input::Received { link: hub_link(1), data: Bytes::from_static(&[0; 600]) }).unwrap();
        let piece = || Output::Transmit { link: hub_link(1), data: Bytes::from_static(b"x") };
        assert!((0..40).try_for_each(|_| pieces.gives(HUB, piece())).is_err());
    }

    #[test]
    fn what_has_waited_may_go_at_once_in_pieces_as_long_as_they_must_be() {
        let mut scene = Scene::new(Outputs::default());
        (0..20).for_each(|_| scene.asks(1, Command::Connect).unwrap());
        scene.fed(HUB, Input::Timeout).unwrap();
        let piece = |size| Output::Transmit { link: hub_link(1), data: Bytes::from(vec![7; size]) };
        (0..40).for_each(|turn| scene.gives(HUB, piece([5_000, 10][turn % 2])).unwrap());
    }

    #[test]
    fn draining_begins_anew() {
        let mut scene = Scene::new(Outputs::default());
        for _ in 0..100 {
            scene.fed(HUB, Input::Timeout).unwrap();
            scene.hub_tells(hub::Event::Stopped).unwrap();
            scene.drained(HUB).unwrap();
        }
    }
}
