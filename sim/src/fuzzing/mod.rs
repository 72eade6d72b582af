//! The bodies of the fuzz targets: any bytes in, a panic when a property does not hold.
//!
//! `fuzz/README.md` says what the bytes of each target mean; the suite replays the corpora on stable.

use bytes::{Bytes, BytesMut};
use commipc_protocol::wire::{
    Ack, Announce, Attach, AuthFailed, Challenge, Control, Done, Fail, Forget, FrameType, Goodbye, Hello, Hop, Inbox,
    LENGTH_LEN, Leave, Listen, Message, Open, Operate, Ping, Pong, Proof, Provide, Remote, Told, Unlisten, Welcome,
    Withdraw,
};
use commipc_protocol::{Limits, Violation};

mod bridge;
mod machines;
mod pair;
mod resigning;

pub use bridge::bridge;
pub use machines::{chunking, client_bytes, hub_after_handshake, hub_bytes, member, replay_window, simulator};
pub(crate) use resigning::split;
pub use resigning::{resign, resigned};

/// Starting points for each target that has no vectors, with names: what committed corpora begin with.
#[must_use]
pub fn beginnings(target: &str) -> Vec<(String, Vec<u8>)> {
    machines::beginnings(target)
}

/// There is one encoding of a signed message, and no part of one is another.
///
/// # Panics
/// When something that was parsed is not written back to the byte.
pub fn envelope(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let (mut whole, mut protected) = (BytesMut::new(), BytesMut::new());
    message.encode(&mut whole);
    message.header.encode(&mut protected);
    assert_eq!(&whole[..], bytes, "a message is written back to the byte");
    assert_eq!(&protected[..], message.protected, "a header is written back to the byte");
    let head = bytes.len().min(256);
    assert!((0..head).all(|end| Message::parse(&bytes[..end]).is_err()), "a part of a message is a message");
    whole.extend_from_slice(&[0]);
    assert!(Message::parse(&whole).is_err(), "a byte behind a message is not noticed");
}

/// What a reader made of a stream: frames, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    frames: Vec<Vec<u8>>,
    end: Result<Rest, Violation>,
}

/// Whether the last frame is whole.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    Partial,
}

/// A limit that short streams reach as well.
const SMALL_FRAME: u32 = 64;

/// Reads a stream of frames, cut in many ways; limits short and long.
///
/// # Panics
/// When the cuts show, or a frame's body is not written back.
pub fn frame(bytes: &[u8]) {
    for limit in [Limits::default().frame, SMALL_FRAME] {
        let whole = read(bytes, limit, std::iter::repeat(bytes.len()));
        check_against(bytes, limit, &whole);
        for widths in [&[1][..], &[LENGTH_LEN], &[LENGTH_LEN + 1, 1], &[3, 64, 2, 17]] {
            let pieces = read(bytes, limit, widths.iter().copied().cycle());
            assert_eq!(pieces, whole, "cut into pieces of {widths:?} bytes");
        }
        // The fuzzer steers the cuts as well.
        let drawn = bytes.iter().rev().map(|byte| usize::from(*byte) + 1);
        assert_eq!(read(bytes, limit, drawn.cycle()), whole, "cut as the bytes say, from the last");
    }
    for frame in read(bytes, Limits::default().frame, std::iter::repeat(bytes.len())).frames {
        control_body(frame.get(LENGTH_LEN..).unwrap_or_default());
    }
}

fn read(bytes: &[u8], limit: u32, mut widths: impl Iterator<Item = usize>) -> Reading {
    let mut inbox = Inbox::new(limit);
    let mut stream = Bytes::copy_from_slice(bytes);
    let mut frames = Vec::new();
    while !stream.is_empty() {
        let width = widths.next().unwrap_or(usize::MAX).clamp(1, stream.len());
        let mut piece = stream.split_to(width);
        loop {
            match inbox.next(&mut piece) {
                Ok(Some(frame)) => frames.push(frame.raw().to_vec()),
                Ok(None) => break,
                Err(violation) => return Reading { frames, end: Err(violation) },
            }
        }
        assert!(piece.is_empty(), "bytes are left behind");
    }
    let rest = if inbox.is_partial() { Rest::Partial } else { Rest::Nothing };
    Reading { frames, end: Ok(rest) }
}

/// Compares with what the layout says, read in the plainest way.
fn check_against(bytes: &[u8], limit: u32, reading: &Reading) {
    let mut rest = bytes;
    for frame in &reading.frames {
        let (head, after) = rest.split_at(frame.len());
        assert_eq!(head, frame, "a frame is its bytes");
        rest = after;
        assert_eq!(announced(head), Some(head.len() as u64 - LENGTH_LEN as u64), "a frame is as long as it says");
    }
    let expected = match announced(rest) {
        Some(0) => Err(Violation::EmptyFrame),
        Some(length) if length > u64::from(limit) => Err(Violation::FrameTooLarge),
        Some(_) | None if rest.is_empty() => Ok(Rest::Nothing),
        Some(length) => {
            assert!((rest.len() as u64) < LENGTH_LEN as u64 + length, "a whole frame is not taken");
            Ok(Rest::Partial)
        }
        None => Ok(Rest::Partial),
    };
    assert_eq!(reading.end, expected, "how the stream ends");
}

/// What a frame says of its own length.
fn announced(frame: &[u8]) -> Option<u64> {
    let (length, _) = frame.split_first_chunk::<LENGTH_LEN>()?;
    Some(u64::from(u32::from_be_bytes(*length)))
}

/// What is known of a control body survives writing and reading.
macro_rules! control {
    ($type:ident, $body:expr) => {
        if let Ok(parsed) = $type::parse($body) {
            let mut written = BytesMut::new();
            parsed.encode(&mut written);
            assert!(written.len() <= $body.len(), "{parsed:?} takes more bytes than it came in");
            assert_eq!($type::parse(&written).as_ref(), Ok(&parsed), "a control body does not come back as it went");
        }
    };
}

/// One frame's body, behind the number of its type.
///
/// # Panics
/// When what is known of it does not survive writing and reading.
pub fn control_body(bytes: &[u8]) {
    let Some((number, body)) = bytes.split_first() else { return };
    let number = *number;
    let Some(frame) = FrameType::from_number(number) else { return };
    assert_eq!(frame.number(), number, "a type has one number");
    match frame {
        FrameType::Hello => control!(Hello, body),
        FrameType::Challenge => control!(Challenge, body),
        FrameType::Proof => control!(Proof, body),
        FrameType::Welcome => control!(Welcome, body),
        FrameType::AuthFailed => control!(AuthFailed, body),
        FrameType::Ping => control!(Ping, body),
        FrameType::Pong => control!(Pong, body),
        FrameType::Goodbye => control!(Goodbye, body),
        FrameType::Ack => control!(Ack, body),
        FrameType::Done => control!(Done, body),
        FrameType::Open => control!(Open, body),
        FrameType::Leave => control!(Leave, body),
        FrameType::Provide => control!(Provide, body),
        FrameType::Withdraw => control!(Withdraw, body),
        FrameType::Listen => control!(Listen, body),
        FrameType::Unlisten => control!(Unlisten, body),
        FrameType::Operate => control!(Operate, body),
        FrameType::Attach => control!(Attach, body),
        FrameType::Announce => control!(Announce, body),
        FrameType::Forget => control!(Forget, body),
        FrameType::Remote => control!(Remote, body),
        FrameType::Told => control!(Told, body),
        FrameType::Fail => control!(Fail, body.get(4..).unwrap_or_default()),
        FrameType::Broadcast
        | FrameType::Send
        | FrameType::Call
        | FrameType::Answer
        | FrameType::Fault
        | FrameType::Item
        | FrameType::End
        | FrameType::Cancel
        | FrameType::Beacon => hop(body),
        // No body that this version reads.
        FrameType::Credit | _ => {}
    }
}

/// A hop header is what it was read from, and a forwarded one differs in route and count alone.
fn hop(body: &[u8]) {
    let Ok((hop, carried)) = Hop::split(body) else { return };
    let mut written = BytesMut::new();
    hop.put(&mut written);
    assert_eq!(written.len(), hop.encoded_len());
    written.extend_from_slice(carried);
    assert_eq!(&written[..], body, "a hop header and what it carries are written back to the byte");
    let further = hop.forward(!hop.route);
    assert_eq!(further.hops, hop.hops.saturating_add(1));
    assert!(further.visited().eq(hop.visited()), "a step without a bridge changes who was visited");
    envelope(carried);
}
