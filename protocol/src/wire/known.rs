//! Pieces of a stream say the same but for three numbers: what one of them was found to be, the next are as well.

use alloc::vec::Vec;

use super::cbor::{Malformed, Reader};
use super::message::{Flags, Message, Opening};

/// What an accepted piece has in common with those that follow it.
#[derive(Debug)]
pub(crate) struct Known {
    /// The fields that are the same, as they are encoded: up to `opening` those before the numbers, up to `request` the
    /// request and the digest of its call, then who it goes to.
    bytes: Vec<u8>,
    opening: usize,
    request: usize,
    flags: Flags,
    tag: usize,
}

/// A further piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// Which one.
    pub(crate) index: u64,
    pub(crate) flags: Flags,
    pub(crate) payload: &'a [u8],
}

impl Known {
    /// What will be known of the pieces that follow this one, which was accepted.
    pub(crate) fn of(message: &[u8]) -> Option<Self> {
        let message = Message::parse(message).ok()?;
        let (_, rest) = Opening::split(message.protected).ok()?;
        let mut reader = Reader::new(rest);
        let mut bytes = message.protected.strip_suffix(rest)?.to_vec();
        let opening = bytes.len();
        numbers(&mut reader).ok()?;
        let (belongs, mut reader) = (reader.rest(), reader);
        reader.uint().ok()?;
        reader.bytes().ok()?;
        bytes.extend_from_slice(belongs.strip_suffix(reader.rest())?);
        let request = bytes.len();
        reader.uint().ok()?;
        bytes.extend_from_slice(reader.rest());
        bytes.shrink_to_fit();
        Some(Self { bytes, opening, request, flags: message.header.flags, tag: message.tag.len() })
    }

    /// A whole message, if it is a further piece of the same stream: all but its index, its number and its time is as in the
    /// first one, so that it is well-formed and what that one was. `None` says nothing about it.
    pub(crate) fn piece<'a>(&self, message: &'a [u8]) -> Option<Piece<'a>> {
        let (protected, payload, tag) = Message::split(message).ok()?;
        let (opening, rest) = self.bytes.split_at_checked(self.opening)?;
        let (request, target) = rest.split_at_checked(self.request - self.opening)?;
        let mut reader = Reader::new(protected.strip_prefix(opening)?);
        let (seq, bseq) = numbers(&mut reader).ok()?;
        reader.literal(request).ok()?;
        let index = reader.uint().ok()?;
        let same = reader.rest() == target && tag.len() == self.tag && seq != 0 && bseq == 0;
        same.then_some(Piece { index, flags: self.flags, payload })
    }
}

/// The fields between those that are known: `seq` and `bseq`, and the times, which may be anything in a piece.
fn numbers(reader: &mut Reader<'_>) -> Result<(u64, u64), Malformed> {
    let numbers = (reader.uint()?, reader.uint()?);
    reader.uint()?;
    reader.uint()?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::message::{Header, Kind, Target, put_message};
    use super::*;
    use crate::names::Name;

    fn encoded(header: &Header<'_>, tag: &[u8]) -> BytesMut {
        let (mut protected, mut out) = (BytesMut::new(), BytesMut::new());
        header.encode(&mut protected);
        put_message(&mut out, &protected, b"item", tag);
        out
    }

    fn name(text: &str) -> Name<'_> {
        Name::new(text).unwrap()
    }

    fn open() -> Header<'static> {
        Header {
            kind: Kind::Item,
            flags: Flags::RAW,
            channel: name("math"),
            event: name("feed"),
            epoch: 0,
            sender: name("me"),
            origin: name("hub"),
            instance: &[7; 16],
            seq: 1,
            bseq: 0,
            sent_at: 1_800_000_000_000,
            time_left: 0,
            request: 1,
            reference: &[],
            index: 0,
            target: Target::new(name("you"), name("hub")),
            metadata: &[],
        }
    }

    #[test]
    fn what_is_known_is_read_as_if_it_were_not() {
        let open = open();
        let signed = Header { epoch: 300, reference: &[5; 32], ..open };
        for (first, tag) in [(open, &[][..]), (signed, &[9; 32])] {
            let known = Known::of(&encoded(&first, tag)).unwrap();
            let later = Header { seq: u64::MAX, sent_at: 23, index: 300, ..first };
            for header in [first, later] {
                let bytes = encoded(&header, tag);
                let piece = Piece { index: header.index, flags: header.flags, payload: b"item" };
                assert_eq!(known.piece(&bytes), Some(piece));
                // Every other byte anywhere, every beginning, and something behind it.
                let mut seen = 0;
                for at in 0..bytes.len() {
                    for change in 1..=255 {
                        let mut other = bytes.clone();
                        other[at] ^= change;
                        let Some(piece) = known.piece(&other) else { continue };
                        seen += 1;
                        let Message { header: read, payload, .. } = Message::parse(&other).unwrap();
                        let Header { seq, sent_at, time_left, index, .. } = read;
                        assert_eq!(read, Header { seq, sent_at, time_left, index, ..first }, "{at} {change}");
                        assert_eq!(piece, Piece { index, flags: first.flags, payload }, "{at} {change}");
                    }
                    assert_eq!(known.piece(&bytes[..at]), None);
                }
                assert!(seen > 500, "{seen} were known");
                assert_eq!(known.piece(&[&bytes[..], &[0]].concat()), None);
            }
            for other in [
                Header { flags: Flags::NONE, ..first },
                Header { channel: name("maths"), ..first },
                Header { event: name("fee"), ..first },
                Header { sender: name("he"), ..first },
                Header { origin: name("hub2"), ..first },
                Header { instance: &[8; 16], ..first },
                Header { request: 2, ..first },
                Header { target: Target::new(name("she"), name("hub")), ..first },
                Header { metadata: &[0xa0], ..first },
            ] {
                assert_eq!(known.piece(&encoded(&other, tag)), None, "{other:?}");
            }
            // Numbers that no piece has.
            for bad in [Header { seq: 0, ..first }, Header { bseq: 1, ..first }] {
                assert_eq!(known.piece(&encoded(&bad, tag)), None, "{bad:?}");
            }
            assert_eq!(known.piece(&encoded(&first, &[9; 31])), None);
        }
    }
}
