//! Who spoke last, and about what: most often that is who speaks next. What is known is not looked up again.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::channels::ChannelIx;
use super::{Client, Source};
use crate::names::EventName;
use crate::wire::{Flags, Header, Hop, Kind, Malformed, Opening};

/// Messages whose headers begin with the same bytes: one client's, about one event of a channel we know.
#[derive(Debug)]
pub(super) struct Familiar {
    /// What they begin with.
    bytes: Box<[u8]>,
    kind: Kind,
    flags: Flags,
    epoch: u64,
    instance: [u8; 16],
    pub(super) channel: ChannelIx,
    pub(super) source: Arc<Source>,
}

impl Familiar {
    /// The header of a message that is one of them, without a second look at its names; `None` for any other message.
    pub(super) fn header<'a>(&'a self, protected: &'a [u8]) -> Option<Result<Header<'a>, Malformed>> {
        let rest = protected.strip_prefix(&*self.bytes)?;
        let Source { channel, event, sender, path: _ } = &*self.source;
        let opening = Opening {
            kind: self.kind,
            flags: self.flags,
            channel: channel.as_name(),
            event: event.as_name(),
            epoch: self.epoch,
            sender: sender.client.as_name(),
            origin: sender.hub.as_name(),
            instance: &self.instance,
        };
        Some(Header::after(opening, rest))
    }
}

impl Client {
    /// Gets to know those whose messages have this header, which begins with `bytes`; `None` if nobody here knows the
    /// channel.
    pub(super) fn meet(&mut self, header: &Header<'_>, hop: Hop<'_>, bytes: &[u8]) -> Option<Familiar> {
        let Header { kind, flags, epoch, instance, .. } = *header;
        let channel = self.channels.index_of_name(header.channel)?;
        let source = Arc::new(self.source(header, hop, channel)?);
        Some(Familiar { bytes: bytes.into(), kind, flags, epoch, instance: *instance, channel, source })
    }

    /// Where a message comes from, with the names of our own tables.
    pub(super) fn source(&mut self, header: &Header<'_>, hop: Hop<'_>, channel: ChannelIx) -> Option<Source> {
        let sender = self.sender(header)?;
        let channel = self.channels.get(channel)?;
        let event = match channel.event(header.event) {
            Some(known) => known.clone(),
            None => EventName::new(header.event.as_str()).ok()?,
        };
        Some(Source { channel: channel.name.clone(), event, sender, path: hop.path() })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use bytes::BytesMut;

    use super::*;
    use crate::client::channels::Channels;
    use crate::hash::Keyed;
    use crate::names::{Address, ChannelName, ClientId, HubId};
    use crate::seed::{Purpose, Seed};
    use crate::wire::Target;

    fn encoded(header: &Header<'_>) -> Vec<u8> {
        let mut out = BytesMut::new();
        header.encode(&mut out);
        out.to_vec()
    }

    /// A header, and those it makes known.
    fn said(kind: Kind, then: impl FnOnce(&Header<'_>, &Familiar)) {
        let sender = Address { client: ClientId::new("me").unwrap(), hub: HubId::new("hub").unwrap() };
        let source = Source {
            channel: ChannelName::new("math").unwrap(),
            event: EventName::new("news").unwrap(),
            sender,
            path: Vec::new(),
        };
        let header = Header {
            kind,
            flags: Flags::NONE,
            channel: source.channel.as_name(),
            event: source.event.as_name(),
            epoch: 300,
            sender: source.sender.client.as_name(),
            origin: source.sender.hub.as_name(),
            instance: &[7; 16],
            seq: 1_000,
            bseq: u64::from(kind == Kind::Broadcast) * 500,
            sent_at: 1_800_000_000_000,
            time_left: 30_000,
            request: 0,
            reference: &[],
            index: 0,
            target: Target::NONE,
            metadata: &[0xa0],
        };
        let bytes = encoded(&header);
        let (_, rest) = Opening::split(&bytes).unwrap();
        let mut channels = Channels::new(Keyed::new(&mut Seed::new([1; 32]).stream(Purpose::HashKeys)));
        channels.entry(&source.channel);
        let familiar = Familiar {
            bytes: bytes.strip_suffix(rest).unwrap().into(),
            kind,
            flags: Flags::NONE,
            epoch: 300,
            instance: [7; 16],
            channel: channels.index_of(&source.channel).unwrap(),
            source: Arc::new(source.clone()),
        };
        then(&header, &familiar);
    }

    #[test]
    fn what_is_known_is_read_as_if_it_were_not() {
        for kind in [Kind::Broadcast, Kind::Send] {
            said(kind, |header, familiar| {
                let later = Header { seq: u64::MAX, sent_at: 23, metadata: &[], ..*header };
                for header in [header, &later] {
                    let bytes = encoded(header);
                    assert_eq!(familiar.header(&bytes), Some(Ok(*header)));
                    // Every other byte anywhere, every beginning, and something behind it.
                    let mut seen = 0;
                    for at in 0..bytes.len() {
                        for change in 1..=255 {
                            let mut other = bytes.clone();
                            other[at] ^= change;
                            let read = familiar.header(&other);
                            seen += usize::from(read.is_some());
                            assert!(read.is_none_or(|read| read == Header::parse(&other)), "{at} {change}");
                        }
                        assert!(familiar.header(&bytes[..at]).is_none_or(|read| read == Err(Malformed)));
                    }
                    assert!(seen > 1_000, "some had a header that is known");
                    assert_eq!(familiar.header(&[&bytes[..], &[0]].concat()), Some(Err(Malformed)));
                }
            });
        }
    }

    #[test]
    fn others_are_not_taken_for_those_who_are_known() {
        said(Kind::Broadcast, |header, familiar| {
            let name = |text| crate::names::Name::new(text).unwrap();
            for other in [
                Header { kind: Kind::Beacon, ..*header },
                Header { flags: Flags::RAW, ..*header },
                Header { channel: name("maths"), ..*header },
                Header { event: name("new"), ..*header },
                Header { epoch: 301, ..*header },
                Header { sender: name("you"), ..*header },
                Header { origin: name("hub2"), ..*header },
                Header { instance: &[8; 16], ..*header },
            ] {
                assert_eq!(familiar.header(&encoded(&other)), None, "{other:?}");
            }
        });
    }
}
