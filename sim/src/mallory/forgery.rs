//! Changed and made-up messages: everything a hub can do to bytes without the members' keys.

use bytes::{BufMut as _, BytesMut};
use commipc_protocol::Name;
use commipc_protocol::wire::{Flags, FrameType, Header, Hop, Kind, Message, Target};

/// A part of a message that a forger changes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// What it is: broadcast, call, answer.
    Kind,
    /// What is special about it.
    Flags,
    /// Where.
    Channel,
    /// What about.
    Event,
    /// Under which protection.
    Epoch,
    /// Who says it.
    Sender,
    /// At which hub the sender is.
    Origin,
    /// Which run of the sender.
    Instance,
    /// Its number among all of the sender's.
    Seq,
    /// Its number among the broadcasts of the event.
    Bseq,
    /// When.
    SentAt,
    /// For how long.
    TimeLeft,
    /// The number of the request.
    Request,
    /// Which call it belongs to.
    Reference,
    /// Its number among the pieces of a stream, or how many there are.
    Index,
    /// Whether it is the last piece of an item.
    Continued,
    /// To whom.
    Target,
    /// What is said about it.
    Metadata,
    /// What is said.
    Payload,
    /// The signature.
    Tag,
}

impl Field {
    /// Every part but the layout's version: another version is no message.
    pub const ALL: [Self; 20] = [
        Self::Kind,
        Self::Flags,
        Self::Channel,
        Self::Event,
        Self::Epoch,
        Self::Sender,
        Self::Origin,
        Self::Instance,
        Self::Seq,
        Self::Bseq,
        Self::SentAt,
        Self::TimeLeft,
        Self::Request,
        Self::Reference,
        Self::Index,
        Self::Continued,
        Self::Target,
        Self::Metadata,
        Self::Payload,
        Self::Tag,
    ];

    /// The trick of changing it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kind => "alters the kind",
            Self::Flags => "alters the flags",
            Self::Channel => "alters the channel",
            Self::Event => "alters the event",
            Self::Epoch => "alters the epoch",
            Self::Sender => "alters the sender",
            Self::Origin => "alters the origin",
            Self::Instance => "alters the instance",
            Self::Seq => "alters the sequence number",
            Self::Bseq => "alters the broadcast number",
            Self::SentAt => "alters the time",
            Self::TimeLeft => "alters the time left",
            Self::Request => "alters the request id",
            Self::Reference => "alters the reference",
            Self::Index => "alters the index",
            Self::Continued => "alters whether more follows",
            Self::Target => "alters the target",
            Self::Metadata => "alters the metadata",
            Self::Payload => "alters the payload",
            Self::Tag => "alters the tag",
        }
    }
}

/// The frame with one field changed, if it is a frame still and its message one that can be parsed.
pub(crate) fn altered(frame: &[u8], field: Field) -> Option<Vec<u8>> {
    let (kind, hop, message) = parts(frame)?;
    let header = message.header;
    let (mut instance, mut reference) = (*header.instance, header.reference.to_vec());
    let (mut payload, mut tag) = (message.payload.to_vec(), message.tag.to_vec());
    let mut changed = header;
    let mut frame_type = kind;
    match field {
        Field::Kind => {
            changed.kind = other_kind(&header)?;
            frame_type = changed.kind.into();
        }
        Field::Flags => changed.flags = with(header.flags, Flags::RAW),
        Field::Channel => changed.channel = other(header.channel, "a", "b")?,
        Field::Event => changed.event = other(header.event, "x", "y")?,
        Field::Epoch => changed.epoch += 1,
        Field::Sender => changed.sender = other(header.sender, "c0", "c1")?,
        Field::Origin => changed.origin = other(header.origin, "h", "g")?,
        Field::Instance => {
            instance[0] ^= 1;
            changed.instance = &instance;
        }
        Field::Seq => changed.seq += 1,
        Field::Bseq => changed.bseq += 1,
        Field::SentAt => changed.sent_at += 1,
        Field::TimeLeft => changed.time_left += 1,
        Field::Request => changed.request += 1,
        Field::Reference => {
            *reference.first_mut()? ^= 1;
            changed.reference = &reference;
        }
        Field::Index => changed.index = piece(&header)?.index + 1,
        Field::Continued => {
            changed.flags = with(piece(&header).filter(|it| it.kind == Kind::Item)?.flags, Flags::CONTINUED);
        }
        Field::Target => {
            let (client, hub) = header.target.get()?;
            changed.target = Target::new(other(client, "c0", "c1")?, hub);
        }
        Field::Metadata => changed.metadata = if header.metadata.is_empty() { &[0xa1, 1, 3] } else { &[] },
        Field::Payload => match payload.last_mut() {
            Some(last) => *last ^= 1,
            None => payload.push(7),
        },
        Field::Tag => *tag.last_mut()? ^= 1,
    }
    framed(frame_type, hop, &changed, &payload, &tag)
}

/// The message without its signature, as if its channel were unprotected.
pub(crate) fn stripped(frame: &[u8]) -> Option<Vec<u8>> {
    let (kind, hop, message) = parts(frame)?;
    let header = Header { epoch: 0, reference: &[], ..message.header };
    framed(kind, hop, &header, message.payload, &[])
}

/// A new message in a member's name, signed with what a hub can make up.
pub(crate) fn forged(frame: &[u8], serial: u64, made_up: &[u8; 32]) -> Option<Vec<u8>> {
    let (kind, hop, message) = parts(frame)?;
    let header = message.header;
    let (seq, bseq) = (header.seq + serial, if header.bseq == 0 { 0 } else { header.bseq + 1 });
    let payload = [&b"forged by a hub "[..], &serial.to_be_bytes()].concat();
    framed(kind, hop, &Header { seq, bseq, ..header }, &payload, made_up)
}

/// An answer to a call, or the end of the stream that is asked for, by somebody who was not called, unsigned.
pub(crate) fn answered(call: &[u8], by: Name<'_>) -> Option<Vec<u8>> {
    let (_, hop, message) = parts(call)?;
    let asked = message.header;
    let kind = if asked.flags.has(Flags::STREAM) { Kind::End } else { Kind::Answer };
    let header = Header {
        kind,
        flags: Flags::NONE.with_if(Flags::RAW, true),
        sender: by,
        instance: &[0x77; 16],
        time_left: 0,
        epoch: 0,
        target: Target::new(asked.sender, asked.origin),
        metadata: &[],
        ..asked
    };
    framed(kind.into(), hop, &header, b"nobody asked me", &[])
}

/// What somebody said, as if another had said it later, with the same signature.
pub(crate) fn as_own(frame: &[u8], by: Name<'_>, serial: u64) -> Option<Vec<u8>> {
    let (kind, hop, message) = parts(frame)?;
    let said = message.header;
    let bseq = if said.bseq > 0 { serial } else { 0 };
    let header = Header { sender: by, instance: &[0x77; 16], seq: serial, bseq, ..said };
    let frame = framed(kind, hop, &header, message.payload, message.tag)?;
    // Beyond the numbers that its own client uses.
    if kind == FrameType::Call { rerouted(&frame, 0x3f00_0000 | (serial as u32 & 0xffff)) } else { Some(frame) }
}

/// The same message on another route.
pub(crate) fn rerouted(frame: &[u8], route: u32) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    frame.get_mut(5..9)?.copy_from_slice(&route.to_be_bytes());
    Some(frame)
}

/// The same frame as it comes from whoever made its message: one that carries none is as it was.
pub(crate) fn direct(frame: Vec<u8>) -> Option<Vec<u8>> {
    let Some((kind, hop, message)) = parts(&frame) else { return Some(frame) };
    framed(kind, Hop::direct(hop.route, 0), &message.header, message.payload, message.tag)
}

/// The route that a frame belongs to.
pub(crate) fn route(frame: &[u8]) -> Option<u32> {
    frame.get(5..9)?.try_into().ok().map(u32::from_be_bytes)
}

/// A frame's type, hop header and message.
pub(crate) fn parts(frame: &[u8]) -> Option<(FrameType, Hop<'_>, Message<'_>)> {
    let kind = FrameType::from_number(*frame.get(4)?)?;
    kind.message_kind()?;
    let (hop, message) = Hop::split(frame.get(5..)?).ok()?;
    Some((kind, hop, Message::parse(message).ok()?))
}

fn framed(kind: FrameType, hop: Hop<'_>, header: &Header<'_>, payload: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
    let (mut protected, mut message) = (BytesMut::new(), BytesMut::new());
    header.encode(&mut protected);
    Message { header: *header, protected: &protected, payload, tag }.encode(&mut message);
    // What is no message ends the link, which proves nothing about signatures.
    Message::parse(&message).ok()?;
    let mut body = BytesMut::new();
    hop.put(&mut body);
    body.put_slice(&message);
    frame(kind, &body)
}

/// A frame around a body.
pub(crate) fn frame(kind: FrameType, body: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(body.len() + 1).ok()?;
    Some([&length.to_be_bytes()[..], &[kind.number()], body].concat())
}

/// A kind that a message can have instead without any other change.
const fn other_kind(header: &Header<'_>) -> Option<Kind> {
    match header.kind {
        Kind::Broadcast => Some(Kind::Beacon),
        Kind::Call => Some(Kind::Send),
        Kind::Answer => Some(Kind::Fault),
        Kind::Fault => Some(Kind::Answer),
        Kind::Item if header.flags.has(Flags::CONTINUED) => None,
        Kind::Item => Some(Kind::End),
        Kind::End => Some(Kind::Item),
        Kind::Send | Kind::Cancel | Kind::Beacon => None,
    }
}

/// A header, if it is that of a piece of a stream or of a stream's end.
fn piece<'a, 'b>(header: &'a Header<'b>) -> Option<&'a Header<'b>> {
    matches!(header.kind, Kind::Item | Kind::End).then_some(header)
}

/// The same flags but for this one.
fn with(flags: Flags, changed: Flags) -> Flags {
    let all = [Flags::IDEMPOTENT, Flags::STREAM, Flags::FROM_CALLER, Flags::RAW, Flags::CONTINUED];
    let is_set = |flag| flags.has(flag) != (flag == changed);
    all.into_iter().fold(Flags::NONE, |kept, flag| kept.with_if(flag, is_set(flag)))
}

fn other<'a>(name: Name<'_>, one: &'a str, another: &'a str) -> Option<Name<'a>> {
    Name::new(if name.as_str() == one { another } else { one }).ok()
}
