//! Somebody on the path of connections: sees every byte, changes what passes, and knows no secret.
//!
//! ```text
//!   writer ──► pipe ──► frames ──► (flipped, dropped, doubled, repeated, moved, made up) ──► reader
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use commipc_protocol::wire::{FrameType, MAGIC, TAG_LEN};

use crate::decisions::Chooser;

/// Something that can be done to a frame on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tampering {
    /// One bit of it is changed, its length and tag included.
    Flip,
    /// Something made up goes before it.
    Insert,
    /// It does not arrive.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// One that went the same way earlier goes before it.
    Replay,
    /// One of another connection, or of the other direction, goes before it.
    Splice,
}

impl Tampering {
    /// Every kind, in the order of [`Assault`].
    pub const ALL: [Self; 6] = [Self::Flip, Self::Insert, Self::Drop, Self::Duplicate, Self::Replay, Self::Splice];

    const fn name(self) -> &'static str {
        match self {
            Self::Flip => "flips a bit on the wire",
            Self::Insert => "inserts on the wire",
            Self::Drop => "drops a frame on the wire",
            Self::Duplicate => "doubles a frame on the wire",
            Self::Replay => "repeats a frame on the wire",
            Self::Splice => "moves a frame to another wire",
        }
    }
}

/// To how many of a thousand frames each is done, in the order of [`Tampering::ALL`]. Who does nothing still listens.
pub type Assault = [u64; Tampering::ALL.len()];

/// Frames that are remembered.
const SEEN: usize = 4_096;

/// Who is on the path of all connections of a world.
#[derive(Debug, Default)]
pub struct Attacker {
    /// The beginnings of frames, by wire and by the side that writes.
    flows: BTreeMap<(usize, usize), Flow>,
    seen: VecDeque<Seen>,
    played: BTreeMap<&'static str, u64>,
    /// Wires from which something was taken.
    robbed: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Flow {
    partial: BytesMut,
    /// The client's first bytes have passed.
    greeted: bool,
}

#[derive(Debug)]
struct Seen {
    flow: (usize, usize),
    frame: Bytes,
}

impl Attacker {
    /// How often each kind of tampering was done.
    #[must_use]
    pub const fn played(&self) -> &BTreeMap<&'static str, u64> {
        &self.played
    }

    /// What passed, as it was.
    pub fn overheard(&self) -> impl Iterator<Item = &Bytes> {
        self.seen.iter().map(|seen| &seen.frame)
    }

    /// Wires from which something was taken since this was asked last: with its next frame the reader ends each of them,
    /// and there may be none.
    pub(crate) fn robbed(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.robbed)
    }

    /// What the reader gets instead of what has arrived from a side of a wire, whose frames are tagged or not, if anything.
    pub(crate) fn pass(
        &mut self,
        flow: (usize, usize),
        tagged: bool,
        data: &Bytes,
        assault: Assault,
        mut choose: Chooser<'_>,
    ) -> Option<Bytes> {
        let Flow { partial, greeted } = self.flows.entry(flow).or_default();
        partial.extend_from_slice(data);
        let mut frames = Vec::new();
        while let Some(frame) = next(partial, flow.1 == 0 && !*greeted, tagged) {
            *greeted = true;
            frames.push(frame);
        }
        let mut passing = BytesMut::new();
        for frame in frames {
            self.tamper(flow, &frame, assault, &mut choose, &mut passing);
            if self.seen.len() >= SEEN {
                self.seen.pop_front();
            }
            self.seen.push_back(Seen { flow, frame });
        }
        Some(passing.freeze()).filter(|passing| !passing.is_empty())
    }

    fn tamper(
        &mut self,
        flow: (usize, usize),
        frame: &Bytes,
        assault: Assault,
        choose: &mut Chooser<'_>,
        out: &mut BytesMut,
    ) {
        for (what, often) in Tampering::ALL.into_iter().zip(assault) {
            if !choose.chance(often, 1_000) {
                continue;
            }
            let before = match what {
                Tampering::Flip => flipped(frame, choose),
                Tampering::Insert => made_up(frame, choose),
                Tampering::Drop => Bytes::new(),
                Tampering::Duplicate => [&frame[..], frame].concat().into(),
                Tampering::Replay => self.earlier(choose, |of| of == flow),
                Tampering::Splice => self.earlier(choose, |of| of != flow),
            };
            if what == Tampering::Drop {
                self.robbed.insert(flow.0);
            }
            out.extend_from_slice(&before);
            if matches!(what, Tampering::Insert | Tampering::Replay | Tampering::Splice) {
                if before.is_empty() {
                    continue;
                }
                out.extend_from_slice(frame);
            }
            *self.played.entry(what.name()).or_default() += 1;
            return;
        }
        out.extend_from_slice(frame);
    }

    fn earlier(&self, choose: &mut Chooser<'_>, from: impl Fn((usize, usize)) -> bool) -> Bytes {
        let known: Vec<&Bytes> = self.seen.iter().filter(|seen| from(seen.flow)).map(|seen| &seen.frame).collect();
        choose.pick(&known).map_or_else(Bytes::new, |frame| Bytes::clone(frame))
    }
}

/// The next whole frame, with what comes before the first one.
pub(crate) fn next(partial: &mut BytesMut, first: bool, tagged: bool) -> Option<Bytes> {
    let head = if first { MAGIC.len() } else { 0 };
    let length = u32::from_be_bytes(*partial.get(head..)?.first_chunk::<4>()?);
    let tag = if tagged && is_tagged(*partial.get(head + 4)?) { TAG_LEN } else { 0 };
    let whole = usize::try_from(length).ok()?.checked_add(head + 4 + tag)?;
    (partial.len() >= whole).then(|| partial.split_to(whole).freeze())
}

/// Every frame but those that both sides are proved by.
fn is_tagged(kind: u8) -> bool {
    let proving = [FrameType::Hello, FrameType::Challenge, FrameType::Proof, FrameType::AuthFailed];
    !proving.iter().any(|proving| proving.number() == kind)
}

fn flipped(frame: &Bytes, choose: &mut Chooser<'_>) -> Bytes {
    let mut changed = frame.to_vec();
    let bit = choose.index(changed.len() * 8);
    if let Some(byte) = changed.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    changed.into()
}

/// A frame of another type with the same body, one without a body, or bytes that are no frame.
fn made_up(frame: &Bytes, choose: &mut Chooser<'_>) -> Bytes {
    let kind = u8::try_from(choose.below(256)).unwrap_or(u8::MAX);
    match choose.below(3) {
        0 => {
            let mut other = frame.to_vec();
            if let Some(byte) = other.get_mut(4) {
                *byte = kind;
            }
            other.into()
        }
        1 => vec![0, 0, 0, 1, kind].into(),
        _ => vec![kind; 1 + choose.index(16)].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::Decisions;

    const LISTENS: Assault = [0; 6];

    fn framed(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes()[..], text].concat()
    }

    fn passed(attacker: &mut Attacker, flow: (usize, usize), data: &[u8], assault: Assault) -> Vec<u8> {
        let mut decisions = Decisions::seeded(1);
        let stream = decisions.stream("attack");
        attacker
            .pass(flow, false, &Bytes::copy_from_slice(data), assault, decisions.on(stream))
            .unwrap_or_default()
            .to_vec()
    }

    fn only(what: Tampering) -> Assault {
        Tampering::ALL.map(|other| if other == what { 1_000 } else { 0 })
    }

    #[test]
    fn who_only_listens_changes_nothing() {
        let mut attacker = Attacker::default();
        let said = [&MAGIC[..], &framed(b"one"), &framed(b"two")].concat();
        let mut heard = Vec::new();
        said.iter().for_each(|byte| heard.extend(passed(&mut attacker, (0, 0), &[*byte], LISTENS)));
        assert_eq!((heard, attacker.overheard().count()), (said, 2));
    }

    #[test]
    fn each_kind_does_what_it_says() {
        let (one, two, three) = (framed(b"one"), framed(b"two"), framed(b"three"));
        let after = |what| {
            let mut attacker = Attacker::default();
            passed(&mut attacker, (0, 1), &one, LISTENS);
            passed(&mut attacker, (1, 1), &two, LISTENS);
            let passed = passed(&mut attacker, (0, 1), &three, only(what));
            assert_eq!(attacker.played().values().sum::<u64>(), 1);
            passed
        };
        let differing = after(Tampering::Flip).iter().zip(&three).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        assert_eq!(differing, 1);
        assert!(after(Tampering::Insert).ends_with(&three) && after(Tampering::Insert).len() > three.len());
        assert_eq!(after(Tampering::Drop), b"");
        assert_eq!(after(Tampering::Duplicate), [&three[..], &three].concat());
        assert_eq!(after(Tampering::Replay), [&one[..], &three].concat());
        assert_eq!(after(Tampering::Splice), [&two[..], &three].concat());
    }
}
