//! What members of the channel of [`member`](super::member) would sign, for mutators: a change that is not signed anew dies
//! at its tag.

use bytes::BytesMut;
use commipc_protocol::auth::SenderKey;
use commipc_protocol::wire::{FrameType, Header, Hop, LENGTH_LEN, Message};
use commipc_protocol::{ChannelName, Name};

use crate::oracles::{Password, Salt};
use crate::passwords::master;

/// Whose words they are: the owner's.
pub(super) const SENDER: &str = "o";
pub(super) const CHANNEL: &str = "a";
pub(super) const PASSWORD: Password = Password(1);
/// The first protection of a world.
pub(super) const SALT: Salt = [0, 0, 0, 0, 0, 0, 0, 1, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a];
pub(super) const EPOCH: u64 = 1;

pub(super) fn key(instance: &[u8; 16], sender: &str) -> Option<SenderKey> {
    let channel = ChannelName::new(CHANNEL).ok()?;
    Some(master(PASSWORD, &SALT)?.keys(channel.as_str(), &SALT, EPOCH).sender(instance, sender))
}

/// What a mutator hands to its target: what is changed is framed and signed anew in place, or it would die at a length or a
/// tag; one of four is left as it is. Returns the new size, at most `max_size`.
pub fn resign(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    if seed.is_multiple_of(4) {
        return size;
    }
    let mended = resigned(&data[..size]);
    let size = mended.len().min(max_size);
    data[..size].copy_from_slice(&mended[..size]);
    size
}

/// A stream of frames in which every length fits and every message is signed by whom it names, whatever they were.
#[must_use]
pub fn resigned(bytes: &[u8]) -> Vec<u8> {
    let mut mended = Vec::with_capacity(bytes.len() + 64);
    for frame in split(bytes) {
        let Some((kind, body)) = frame.split_first() else { continue };
        let body = signed(*kind, body).unwrap_or_else(|| body.to_vec());
        mended.extend_from_slice(&u32::try_from(body.len() + 1).unwrap_or(u32::MAX).to_be_bytes());
        mended.push(*kind);
        mended.extend_from_slice(&body);
    }
    mended
}

/// The frames of a stream, without their lengths; the last one is what is left.
pub(crate) fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_LEN>() {
        let length = (u32::from_be_bytes(*length) as usize).min(behind.len());
        let (frame, after) = behind.split_at(length);
        frames.push(frame);
        rest = after;
    }
    frames
}

/// A message's body, signed by whom it names.
fn signed(kind: u8, body: &[u8]) -> Option<Vec<u8>> {
    FrameType::from_number(kind)?.message_kind()?;
    let (hop, carried) = Hop::split(body).ok()?;
    let message = Message::parse(carried).ok()?;
    let sender = key(message.header.instance, message.header.sender.as_str())?;
    Some(written(hop, &message.header, message.payload, &sender))
}

/// A body around a message that this key signs.
pub(super) fn written(hop: Hop<'_>, header: &Header<'_>, payload: &[u8], key: &SenderKey) -> Vec<u8> {
    let (mut protected, mut body) = (BytesMut::new(), BytesMut::new());
    header.encode(&mut protected);
    let tag = key.tag(&protected, payload);
    hop.put(&mut body);
    Message { header: *header, protected: &protected, payload, tag: &tag }.encode(&mut body);
    body.to_vec()
}

pub(super) fn named(name: &str) -> Option<Name<'_>> {
    Name::new(name).ok()
}
