//! What a malicious hub does to the pieces of streams.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use commipc_protocol::client::Credit;
use commipc_protocol::wire::{Control as _, FrameType};
use commipc_protocol::{ClientId, LinkId};

use super::{Mallory, Trick, forgery};

/// What it has begun to do to the streams of one link, by the numbers of their routes.
#[derive(Default)]
pub(super) struct Broken {
    /// Nothing but the end passes any more.
    cut: BTreeSet<u32>,
    /// What comes after the next piece.
    late: BTreeMap<u32, Bytes>,
    /// A piece that waits for one of another stream.
    swapped: Option<Bytes>,
}

impl Mallory {
    /// Gives something else instead of a piece, or nothing.
    pub(super) fn breaks_stream(&mut self, link: LinkId, to: &ClientId, by: &str, frame: &Bytes) -> bool {
        let kind = frame.get(4).copied().and_then(FrameType::from_number);
        let Some(route) = forgery::route(frame) else { return false };
        if !matches!(kind, Some(FrameType::Item | FrameType::End)) {
            return false;
        }
        if let Some(late) = self.wires.get_mut(&link).and_then(|wire| wire.broken.late.remove(&route)) {
            self.play(Trick::Reorder.name());
            self.emit(link, frame);
            self.emit(link, &late);
            return true;
        }
        if kind == Some(FrameType::End) {
            let kept = self.draws(Trick::KeepEnd);
            if kept {
                self.instead(link, to, by, frame, None, Trick::KeepEnd.name());
            }
            return kept;
        }
        let cut = self.wires.get(&link).is_some_and(|wire| wire.broken.cut.contains(&route));
        if cut || self.draws(Trick::Cut) {
            self.broken(link, |broken| broken.cut.extend([route]));
            self.instead(link, to, by, frame, None, Trick::Cut.name());
        } else if self.draws(Trick::Skip) {
            self.instead(link, to, by, frame, None, Trick::Skip.name());
        } else if self.draws(Trick::Double) {
            self.play(Trick::Double.name());
            self.emit(link, frame);
            self.emit(link, frame);
        } else if self.draws(Trick::Reorder) {
            self.broken(link, |broken| broken.late.extend([(route, frame.clone())]));
        } else {
            return self.switches(link, to, by, frame, route);
        }
        true
    }

    fn broken(&mut self, link: LinkId, breaks: impl FnOnce(&mut Broken)) {
        if let Some(wire) = self.wires.get_mut(&link) {
            breaks(&mut wire.broken);
        }
    }

    /// Holds a piece until there is one of another stream, and gives each as one of the other.
    fn switches(&mut self, link: LinkId, to: &ClientId, by: &str, frame: &Bytes, route: u32) -> bool {
        let held = self.wires.get(&link).and_then(|wire| wire.broken.swapped.clone());
        match held.and_then(|held| Some((forgery::route(&held)?, held))) {
            Some((other, held)) if other != route => {
                self.broken(link, |broken| broken.swapped = None);
                let switched = forgery::rerouted(&held, route).zip(forgery::rerouted(frame, other));
                let Some((first, second)) = switched else { return false };
                self.instead(link, to, by, frame, Some(&first), Trick::Switch.name());
                self.emit(link, &second);
                true
            }
            Some(_) => false,
            None if self.draws(Trick::Switch) => {
                self.withhold(to, by, frame);
                self.broken(link, |broken| broken.swapped = Some(frame.clone()));
                true
            }
            None => false,
        }
    }

    /// Grants ten times what a client has granted, in its name.
    pub(super) fn grants(&mut self, frame: &Bytes) -> Option<Bytes> {
        let kind = frame.get(4).copied().and_then(FrameType::from_number);
        let total = frame.get(9..).filter(|_| kind == Some(FrameType::Credit)).map(Credit::parse)?.ok()?;
        if total.items == 0 || !self.draws(Trick::Grant) {
            return None;
        }
        let mut body = BytesMut::from(&forgery::route(frame)?.to_be_bytes()[..]);
        Credit { items: total.items * 10, bytes: total.bytes.saturating_mul(10) }.encode(&mut body);
        self.play(Trick::Grant.name());
        forgery::frame(FrameType::Credit, &body).map(Bytes::from)
    }
}
