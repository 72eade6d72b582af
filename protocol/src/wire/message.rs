//! The signed message: a COSE_Mac0 (RFC 9052) in the one encoding the protocol allows.
//!
//! ```text
//! 84  protected: bstr            a2 01 05 3a00010000 92 ‹18 fields›
//!     unprotected: a0
//!     payload: bstr              opaque
//!     tag: bstr                  32 bytes, or none while the channel is unprotected
//! ```
//! One parser serves hub, client and bridge. What it accepts is exactly what [`Header::encode`] can have written.

use bytes::{BufMut as _, BytesMut};

use super::cbor::{self, Malformed, Reader};
use crate::names::Name;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// To every listener of the event but the sender.
    Broadcast = 1,
    /// To the event's provider, without an answer.
    Send = 2,
    /// To the event's provider.
    Call = 3,
    /// The provider's result.
    Answer = 4,
    /// The provider's failure.
    Fault = 5,
    /// A piece of a stream.
    Item = 6,
    /// A stream's end.
    End = 7,
    /// The caller gives up.
    Cancel = 8,
    /// The number of the last broadcast.
    Beacon = 9,
}

impl Kind {
    const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Broadcast,
            2 => Self::Send,
            3 => Self::Call,
            4 => Self::Answer,
            5 => Self::Fault,
            6 => Self::Item,
            7 => Self::End,
            8 => Self::Cancel,
            9 => Self::Beacon,
            _ => return None,
        })
    }
}

/// Flags of a message: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// A call that may be repeated without harm.
    pub const IDEMPOTENT: Self = Self(1);
    /// A call that wants a stream.
    pub const STREAM: Self = Self(2);
    /// An item or end that the caller of an exchange sends.
    pub const FROM_CALLER: Self = Self(4);
    /// The payload is the application's own bytes.
    pub const RAW: Self = Self(8);
    /// More pieces of this item follow.
    pub const CONTINUED: Self = Self(16);
    /// The time that is left is for the whole stream that a call wants, and not only until it is taken.
    pub const WHOLE: Self = Self(32);

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets, or only this one where `condition` fails.
    #[must_use]
    pub const fn with_if(self, other: Self, condition: bool) -> Self {
        if condition { Self(self.0 | other.0) } else { self }
    }

    const fn from_bits(bits: u64) -> Option<Self> {
        if bits < 64 { Some(Self(bits as u8)) } else { None }
    }
}

/// The caller an answer goes to: `client@hub`, or nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target<'a>(Option<(Name<'a>, Name<'a>)>);

impl<'a> Target<'a> {
    /// Nobody in particular.
    pub const NONE: Self = Self(None);

    /// One client of one hub.
    #[must_use]
    pub const fn new(client: Name<'a>, hub: Name<'a>) -> Self {
        Self(Some((client, hub)))
    }

    /// The client and its hub.
    #[must_use]
    pub const fn get(self) -> Option<(Name<'a>, Name<'a>)> {
        self.0
    }

    fn parse(text: &'a str) -> Result<Self, Malformed> {
        if text.is_empty() {
            return Ok(Self::NONE);
        }
        let (client, hub) = text.split_once('@').ok_or(Malformed)?;
        Ok(Self::new(name(client)?, name(hub)?))
    }

    fn put(self, out: &mut BytesMut) {
        let Some((client, hub)) = self.0 else { return cbor::put_text(out, "") };
        let (client, hub) = (client.as_str(), hub.as_str());
        cbor::put_text_head(out, client.len() + 1 + hub.len());
        out.put_slice(client.as_bytes());
        out.put_u8(b'@');
        out.put_slice(hub.as_bytes());
    }
}

/// The signed header: the 18 fields, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// What the message is.
    pub kind: Kind,
    /// Its flags.
    pub flags: Flags,
    /// Which channel.
    pub channel: Name<'a>,
    /// Which event.
    pub event: Name<'a>,
    /// The channel's protection epoch; 0 while unprotected.
    pub epoch: u64,
    /// The sender's client id.
    pub sender: Name<'a>,
    /// The hub the sender is connected to.
    pub origin: Name<'a>,
    /// The sender's instance: random per client machine.
    pub instance: &'a [u8; 16],
    /// Rising per (channel, epoch, sender, instance), from 1.
    pub seq: u64,
    /// Dense from 1 per (channel, epoch, event, sender, instance) in broadcasts; the last one in beacons; else 0.
    pub bseq: u64,
    /// Unix milliseconds.
    pub sent_at: u64,
    /// Milliseconds that remain.
    pub time_left: u64,
    /// A counter per instance; 0 if none.
    pub request: u64,
    /// The digest of the call this belongs to: 32 bytes or empty.
    pub reference: &'a [u8],
    /// Item index from 0; the count in `End`.
    pub index: u64,
    /// The caller, in what goes to a caller.
    pub target: Target<'a>,
    /// A CBOR map as bytes, or empty.
    pub metadata: &'a [u8],
}

/// A message, borrowed from the frame it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The parsed header.
    pub header: Header<'a>,
    /// The header's bytes, as signed.
    pub protected: &'a [u8],
    /// The content.
    pub payload: &'a [u8],
    /// 32 bytes on a protected channel, else empty.
    pub tag: &'a [u8],
}

/// A message's header, payload and tag, as bytes.
type Parts<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// The label and value of HMAC 256/256 and the label of our fields; `alg` is a constant, never read to choose anything.
const PREFIX: [u8; 8] = [0xa2, 0x01, 0x05, 0x3a, 0x00, 0x01, 0x00, 0x00];
const LAYOUT: u64 = 1;
const FIELDS: u64 = 18;
/// The longest encoded metadata.
pub const METADATA_MAX: usize = 4 << 10;
/// A day, the most a request may ask for.
const TIME_LEFT_MAX_MILLIS: u64 = 86_400_000;
/// Room for the message's bytes beside protected header, payload and tag: the array, the empty map, three heads.
const AROUND: usize = 2 + 3 + 5 + 2;

impl<'a> Message<'a> {
    /// Parses a whole message.
    ///
    /// # Errors
    /// At any deviation from the one encoding, and at any field that its kind forbids.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::parse_with(bytes, Header::parse)
    }

    /// As [`Message::parse`], where somebody may know the header already. If not, gives what it begins with as well.
    pub(crate) fn read(
        bytes: &'a [u8],
        known: impl FnOnce(&'a [u8]) -> Option<Result<Header<'a>, Malformed>>,
    ) -> Result<(Self, Option<&'a [u8]>), Malformed> {
        let mut opening = None;
        let message = Self::parse_with(bytes, |protected| {
            if let Some(header) = known(protected) {
                return header;
            }
            let (start, rest) = Opening::split(protected)?;
            opening = protected.strip_suffix(rest);
            Header::after(start, rest)
        })?;
        Ok((message, opening))
    }

    fn parse_with(
        bytes: &'a [u8],
        parse: impl FnOnce(&'a [u8]) -> Result<Header<'a>, Malformed>,
    ) -> Result<Self, Malformed> {
        let (protected, payload, tag) = Self::split(bytes)?;
        let header = parse(protected)?;
        let tag_len = if header.epoch == 0 { 0 } else { 32 };
        if tag.len() == tag_len { Ok(Self { header, protected, payload, tag }) } else { Err(Malformed) }
    }

    /// The header, the payload and the tag, not looked into.
    pub(crate) fn split(bytes: &'a [u8]) -> Result<Parts<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        reader.literal(&[0x84])?;
        let protected = reader.bytes()?;
        reader.literal(&[0xa0])?;
        let parts = (protected, reader.bytes()?, reader.bytes()?);
        reader.finish()?;
        Ok(parts)
    }

    /// Writes the whole message: the bytes it was parsed from.
    pub fn encode(&self, out: &mut BytesMut) {
        put_message(out, self.protected, self.payload, self.tag);
    }
}

/// An upper bound of an encoded message's length.
pub(crate) const fn encoded_len_max(protected: usize, payload: usize) -> usize {
    protected + payload + 32 + AROUND
}

/// Writes a message around a protected header that [`Header::encode`] made.
pub(crate) fn put_message(out: &mut BytesMut, protected: &[u8], payload: &[u8], tag: &[u8]) {
    put_message_head(out, protected, payload.len());
    out.put_slice(payload);
    put_message_end(out, tag);
}

/// Writes what comes before a payload of this length.
pub(crate) fn put_message_head(out: &mut BytesMut, protected: &[u8], payload: usize) {
    cbor::put_array(out, 4);
    cbor::put_bytes(out, protected);
    cbor::put_map(out, 0);
    cbor::put_bytes_head(out, payload);
}

/// Writes what comes behind the payload.
pub(crate) fn put_message_end(out: &mut BytesMut, tag: &[u8]) {
    cbor::put_bytes(out, tag);
}

impl<'a> Header<'a> {
    /// Parses a protected header.
    ///
    /// # Errors
    /// At any deviation from the one encoding, and at any field that its kind forbids.
    pub fn parse(protected: &'a [u8]) -> Result<Self, Malformed> {
        let (opening, rest) = Opening::split(protected)?;
        Self::after(opening, rest)
    }

    /// The header that begins so and goes on with these bytes.
    pub(crate) fn after(opening: Opening<'a>, rest: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(rest);
        let Opening { kind, flags, channel, event, epoch, sender, origin, instance } = opening;
        let header = Self {
            kind,
            flags,
            channel,
            event,
            epoch,
            sender,
            origin,
            instance,
            seq: reader.uint()?,
            bseq: reader.uint()?,
            sent_at: reader.uint()?,
            time_left: reader.uint()?,
            request: reader.uint()?,
            reference: reader.bytes()?,
            index: reader.uint()?,
            target: Target::parse(reader.text()?)?,
            metadata: reader.bytes()?,
        };
        reader.finish()?;
        if header.is_consistent() { Ok(header) } else { Err(Malformed) }
    }

    /// Writes the protected header.
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_opening(out);
        self.encode_rest(out);
    }

    /// Writes the fields before the numbers, which messages of one sender about one event have in common.
    pub(crate) fn encode_opening(&self, out: &mut BytesMut) {
        out.put_slice(&PREFIX);
        cbor::put_array(out, FIELDS);
        cbor::put_uint(out, LAYOUT);
        cbor::put_uint(out, self.kind as u64);
        cbor::put_uint(out, u64::from(self.flags.0));
        cbor::put_text(out, self.channel.as_str());
        cbor::put_text(out, self.event.as_str());
        cbor::put_uint(out, self.epoch);
        cbor::put_text(out, self.sender.as_str());
        cbor::put_text(out, self.origin.as_str());
        cbor::put_bytes(out, self.instance);
    }

    /// Writes the fields behind [`Header::encode_opening`].
    pub(crate) fn encode_rest(&self, out: &mut BytesMut) {
        cbor::put_uint(out, self.seq);
        cbor::put_uint(out, self.bseq);
        cbor::put_uint(out, self.sent_at);
        cbor::put_uint(out, self.time_left);
        cbor::put_uint(out, self.request);
        cbor::put_bytes(out, self.reference);
        cbor::put_uint(out, self.index);
        self.target.put(out);
        cbor::put_bytes(out, self.metadata);
    }

    /// Whether every field is one its kind allows.
    fn is_consistent(&self) -> bool {
        let request = matches!(self.kind, Kind::Call);
        let reply = matches!(self.kind, Kind::Answer | Kind::Fault | Kind::Item | Kind::End);
        let numbered = matches!(self.kind, Kind::Broadcast | Kind::Beacon);
        let piece = matches!(self.kind, Kind::Item | Kind::End);
        let timed = request || matches!(self.kind, Kind::Broadcast | Kind::Send);
        let belongs = reply || matches!(self.kind, Kind::Cancel);
        let from_caller = self.flags.has(Flags::FROM_CALLER);
        let reference_len = if belongs && self.epoch > 0 { 32 } else { 0 };

        self.seq != 0
            && numbered == (self.bseq != 0)
            && (self.request != 0 || !(request || belongs))
            && self.reference.len() == reference_len
            && (self.index == 0 || piece)
            && (self.target != Target::NONE || !reply || from_caller)
            && (request || !(self.flags.has(Flags::IDEMPOTENT) || self.flags.has(Flags::STREAM)))
            && (self.flags.has(Flags::STREAM) || !self.flags.has(Flags::WHOLE))
            && (piece || !from_caller)
            && (self.kind == Kind::Item || !self.flags.has(Flags::CONTINUED))
            && (!timed || (1..=TIME_LEFT_MAX_MILLIS).contains(&self.time_left))
            && self.metadata.len() <= METADATA_MAX
    }
}

/// The fields before the numbers: in all that one client says about one event they are the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) kind: Kind,
    pub(crate) flags: Flags,
    pub(crate) channel: Name<'a>,
    pub(crate) event: Name<'a>,
    pub(crate) epoch: u64,
    pub(crate) sender: Name<'a>,
    pub(crate) origin: Name<'a>,
    pub(crate) instance: &'a [u8; 16],
}

impl<'a> Opening<'a> {
    /// Parses the beginning of a protected header; gives what is left of it.
    pub(crate) fn split(protected: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let mut reader = Reader::new(protected);
        reader.literal(&PREFIX)?;
        if reader.array()? != FIELDS || reader.uint()? != LAYOUT {
            return Err(Malformed);
        }
        let opening = Self {
            kind: Kind::from_number(reader.uint()?).ok_or(Malformed)?,
            flags: Flags::from_bits(reader.uint()?).ok_or(Malformed)?,
            channel: name(reader.text()?)?,
            event: name(reader.text()?)?,
            epoch: reader.uint()?,
            sender: name(reader.text()?)?,
            origin: name(reader.text()?)?,
            instance: reader.bytes()?.try_into().map_err(|_| Malformed)?,
        };
        Ok((opening, reader.rest()))
    }
}

fn name(text: &str) -> Result<Name<'_>, Malformed> {
    Name::new(text).map_err(|_| Malformed)
}
