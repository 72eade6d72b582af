//! Pieces of a stream begin alike: what they begin with is read once.

use alloc::boxed::Box;

use super::cbor::Malformed;
use super::message::{Flags, Header, Kind, Opening};
use crate::names::{ChannelName, ClientId, EventName, HubId};

/// What headers begin with, and what that says.
#[derive(Debug)]
pub(crate) struct Known {
    bytes: Box<[u8]>,
    kind: Kind,
    flags: Flags,
    channel: ChannelName,
    event: EventName,
    epoch: u64,
    sender: ClientId,
    origin: HubId,
    instance: [u8; 16],
}

impl Known {
    /// What this header says at its beginning, which are these bytes; `None` if that is nothing a client says.
    pub(crate) fn of(header: &Header<'_>, bytes: &[u8]) -> Option<Self> {
        Some(Self {
            bytes: bytes.into(),
            kind: header.kind,
            flags: header.flags,
            channel: ChannelName::new(header.channel.as_str()).ok()?,
            event: EventName::new(header.event.as_str()).ok()?,
            epoch: header.epoch,
            sender: ClientId::new(header.sender.as_str()).ok()?,
            origin: HubId::new(header.origin.as_str()).ok()?,
            instance: *header.instance,
        })
    }

    /// A header that begins so; `None` for any other.
    pub(crate) fn header<'a>(&'a self, protected: &'a [u8]) -> Option<Result<Header<'a>, Malformed>> {
        let rest = protected.strip_prefix(&*self.bytes)?;
        let opening = Opening {
            kind: self.kind,
            flags: self.flags,
            channel: self.channel.as_name(),
            event: self.event.as_name(),
            epoch: self.epoch,
            sender: self.sender.as_name(),
            origin: self.origin.as_name(),
            instance: &self.instance,
        };
        Some(Header::after(opening, rest))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::message::Target;
    use super::*;
    use crate::names::Name;

    #[test]
    fn what_is_known_is_read_as_if_it_were_not() {
        let name = |text| Name::new(text).unwrap();
        let first = Header {
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
        };
        let encoded = |header: &Header<'_>| {
            let mut out = BytesMut::new();
            header.encode(&mut out);
            out
        };
        let bytes = encoded(&first);
        let (_, rest) = Opening::split(&bytes).unwrap();
        let known = Known::of(&first, bytes.strip_suffix(rest).unwrap()).unwrap();
        let later = Header { seq: u64::MAX, index: 300, ..first };
        for header in [first, later] {
            let bytes = encoded(&header);
            assert_eq!(known.header(&bytes), Some(Ok(header)));
            for at in 0..bytes.len() {
                for change in 1..=255 {
                    let mut other = bytes.clone();
                    other[at] ^= change;
                    assert!(known.header(&other).is_none_or(|read| read == Header::parse(&other)), "{at} {change}");
                }
                assert!(known.header(&bytes[..at]).is_none_or(|read| read == Err(Malformed)));
            }
        }
        for other in [Header { flags: Flags::NONE, ..first }, Header { sender: name("he"), ..first }] {
            assert_eq!(known.header(&encoded(&other)), None);
        }
    }
}
