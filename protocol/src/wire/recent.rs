//! Messages of one peer begin alike most of the time: what the last one began with is not read again.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::cbor::Malformed;
use super::message::{Flags, Header, Kind, Message, Opening};
use crate::names::Name;

/// What begins with more bytes, which only long names do, is read each time: what is kept of a link is not counted.
const KEPT: usize = 256;

/// How the last message of a peer began. Its memory is used again for the next that begins otherwise.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    last: Begun,
    spare: Begun,
}

/// The fields before the numbers, as bytes and as what they say.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    bytes: Vec<u8>,
    /// Channel, event, sender and origin, one behind the other.
    names: String,
    /// Where the first three of them end.
    ends: [u16; 3],
    said: Option<(Kind, Flags, u64, [u8; 16])>,
}

impl Recent {
    /// What is known. To be given back with [`Recent::keep`].
    pub(crate) const fn take(&mut self) -> Begun {
        mem::replace(&mut self.last, Begun::new())
    }

    /// Memory for how another message begins. To be given back with [`Recent::keep`].
    pub(crate) const fn take_spare(&mut self) -> Begun {
        mem::replace(&mut self.spare, Begun::new())
    }

    /// Gives back what was known, and how the message at hand begins if that is not the same.
    pub(crate) fn keep(&mut self, known: Begun, met: Option<Begun>) {
        match met {
            Some(met) => (self.last, self.spare) = (met, known),
            None => self.last = known,
        }
    }
}

impl Begun {
    const fn new() -> Self {
        Self { bytes: Vec::new(), names: String::new(), ends: [0; 3], said: None }
    }

    /// Parses a whole message; gives what its header begins with as well, if that is not known.
    ///
    /// # Errors
    /// As [`Message::parse`].
    pub(crate) fn read<'a>(&'a self, message: &'a [u8]) -> Result<(Message<'a>, Option<&'a [u8]>), Malformed> {
        Message::read(message, |protected| self.header(protected))
    }

    /// A header that begins so; `None` for any other.
    fn header<'a>(&'a self, protected: &'a [u8]) -> Option<Result<Header<'a>, Malformed>> {
        let (kind, flags, epoch, instance) = self.said.as_ref()?;
        let rest = protected.strip_prefix(&*self.bytes)?;
        let [channel, event, sender] = self.ends.map(usize::from);
        let name = |from, to| self.names.get(from..to).map(Name::known);
        let opening = Opening {
            kind: *kind,
            flags: *flags,
            channel: name(0, channel)?,
            event: name(channel, event)?,
            epoch: *epoch,
            sender: name(event, sender)?,
            origin: name(sender, self.names.len())?,
            instance,
        };
        Some(Header::after(opening, rest))
    }

    /// Makes this what a header begins with.
    pub(crate) fn set(&mut self, header: &Header<'_>, bytes: &[u8]) {
        self.said = None;
        if bytes.len() > KEPT {
            return;
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.names.clear();
        self.ends = [header.channel, header.event, header.sender].map(|name| {
            self.names.push_str(name.as_str());
            // Three names of at most 128 bytes.
            self.names.len() as u16
        });
        self.names.push_str(header.origin.as_str());
        self.said = Some((header.kind, header.flags, header.epoch, *header.instance));
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::message::{Target, put_message};
    use super::*;

    fn encoded(header: &Header<'_>) -> BytesMut {
        let (mut protected, mut out) = (BytesMut::new(), BytesMut::new());
        header.encode(&mut protected);
        put_message(&mut out, &protected, b"sum", if header.epoch == 0 { &[] } else { &[9; 32] });
        out
    }

    fn name(text: &str) -> Name<'_> {
        Name::new(text).unwrap()
    }

    fn call() -> Header<'static> {
        Header {
            kind: Kind::Call,
            flags: Flags::RAW,
            channel: name("math"),
            event: name("sum"),
            epoch: 300,
            sender: name("me"),
            origin: name("hub"),
            instance: &[7; 16],
            seq: 1,
            bseq: 0,
            sent_at: 1_800_000_000_000,
            time_left: 30_000,
            request: 1,
            reference: &[],
            index: 0,
            target: Target::NONE,
            metadata: &[0xa0],
        }
    }

    #[test]
    fn what_begins_alike_is_read_as_if_nothing_were_known() {
        let first = call();
        let mut recent = Recent::default();
        let others = [
            first,
            Header { seq: 2, sent_at: 23, request: 9, metadata: &[], ..first },
            Header { kind: Kind::Send, ..first },
            Header { flags: Flags::NONE, ..first },
            Header { channel: name("maths"), ..first },
            Header { channel: name("maths"), event: name("um"), ..first },
            Header { epoch: 0, ..first },
            Header { sender: name("you"), ..first },
            Header { origin: name("hub2"), ..first },
            Header { instance: &[8; 16], ..first },
            first,
        ];
        let mut known_before = 0;
        for header in others {
            let bytes = encoded(&header);
            for _ in 0..2 {
                let known = recent.take();
                let (message, opening) = known.read(&bytes).unwrap();
                assert_eq!(message, Message::parse(&bytes).unwrap());
                known_before += usize::from(opening.is_none());
                let met = opening.map(|opening| {
                    let mut spare = recent.take_spare();
                    spare.set(&message.header, opening);
                    spare
                });
                recent.keep(known, met);
            }
            let known = recent.take();
            for at in 0..bytes.len() {
                for change in 1..=255 {
                    let mut other = bytes.clone();
                    other[at] ^= change;
                    assert_eq!(known.read(&other).map(|read| read.0), Message::parse(&other), "{at} {change}");
                }
                assert_eq!(known.read(&bytes[..at]), Err(Malformed));
            }
            recent.keep(known, None);
        }
        assert_eq!(known_before, others.len() + 1, "each at the second time, and the one like the first at once");
    }

    #[test]
    fn what_long_names_begin_with_is_read_each_time_and_not_kept() {
        let long = "n".repeat(128);
        let header = Header { channel: name(&long), event: name(&long), ..call() };
        let bytes = encoded(&header);
        let mut recent = Recent::default();
        for _ in 0..3 {
            let (known, mut spare) = (recent.take(), recent.take_spare());
            let (message, opening) = known.read(&bytes).unwrap();
            assert_eq!(message, Message::parse(&bytes).unwrap());
            spare.set(&message.header, opening.expect("it is not known"));
            recent.keep(known, Some(spare));
        }
        let kept = [&recent.last, &recent.spare].map(|begun| begun.bytes.capacity() + begun.names.capacity());
        assert_eq!(kept, [0, 0]);
    }
}
