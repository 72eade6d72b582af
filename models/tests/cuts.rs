//! Every position of every frame of a long conversation, as the place where a read ends.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what is unexpected fails it")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what is of no interest is passed over")]

#[path = "../../protocol/tests/support/mod.rs"]
mod support;

use std::fmt::Debug;

use bytes::Bytes;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::Command;
use commipc_protocol::{Input, Instant, Limits, LinkId, Machine, Now, Peer, Transport, UnixMillis};
use support::{KEY, client, hub, pieces};

const NOW: Now = Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) };
/// What a client says first, once.
const MAGIC: usize = 8;
/// Frames of each side before records are tagged.
const CLIENT_UNTAGGED: usize = 2;
const HUB_UNTAGGED: usize = 1;
const TAG: usize = 16;
const LARGE: &[u8] = &[7; 700];

fn conversation(transport: Transport) -> (Vec<u8>, Vec<u8>) {
    pieces::conversation(transport, 40, b"small", LARGE)
}

/// Where each frame begins, and where the last one ends.
fn frames(bytes: &[u8], start: usize, untagged: usize, tag: usize) -> Vec<usize> {
    let mut starts = vec![start];
    let mut at = start;
    while at < bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        at += 4 + length + if starts.len() > untagged { tag } else { 0 };
        starts.push(at);
    }
    assert_eq!(at, bytes.len(), "the frames are found");
    starts
}

fn fed_to_hub<'a>(transport: Transport, pieces: impl IntoIterator<Item = &'a [u8]>) -> (String, Vec<u8>) {
    let (mut hub, link) = (hub(Limits::default()), LinkId::accepted(0, 1));
    hub.handle_input(NOW, Input::Accepted { link, peer: Peer::unknown(transport) });
    fed(&mut hub, link, pieces)
}

fn fed_to_client<'a>(transport: Transport, pieces: impl IntoIterator<Item = &'a [u8]>) -> (String, Vec<u8>) {
    let (mut client, link) = (client("a", Secret::key(KEY)), LinkId::dialled(0, 1));
    client.handle_input(NOW, Input::Command(Command::Connect));
    client.handle_input(NOW, Input::Dialled { link, peer: Peer::unknown(transport) });
    fed(&mut client, link, pieces)
}

/// What a machine says to these pieces, drained at the end.
fn fed<'a, M>(machine: &mut M, link: LinkId, pieces: impl IntoIterator<Item = &'a [u8]>) -> (String, Vec<u8>)
where
    M: Machine<Event: Debug>,
{
    for piece in pieces {
        machine.handle_input(NOW, Input::Received { link, data: Bytes::copy_from_slice(piece) });
    }
    pieces::drained(machine, NOW)
}

type Feed = fn(Transport, Vec<&[u8]>) -> (String, Vec<u8>);

/// Each side of the conversation: what it is fed, where the frames of that begin, and how.
fn sides(transport: Transport) -> [(Vec<u8>, Vec<usize>, Feed); 2] {
    let (said, heard) = conversation(transport);
    let tag = if transport == Transport::Tcp { TAG } else { 0 };
    let to_hub = frames(&said, MAGIC, CLIENT_UNTAGGED, tag);
    let to_client = frames(&heard, 0, HUB_UNTAGGED, tag);
    [
        (said, to_hub, |transport, pieces| fed_to_hub(transport, pieces)),
        (heard, to_client, |transport, pieces| fed_to_client(transport, pieces)),
    ]
}

fn split_at(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut begun = 0;
    for cut in cuts {
        pieces.push(&bytes[begun..cut]);
        begun = cut;
    }
    pieces.push(&bytes[begun..]);
    pieces
}

/// In one run every frame is cut at the same offset, so that the longest frame says how many runs that takes.
#[test]
fn every_position_of_every_frame_may_be_where_a_read_ends() {
    for transport in [Transport::Memory, Transport::Tcp] {
        for (bytes, starts, feed) in sides(transport) {
            assert!(starts.len() > 200, "{} frames", starts.len());
            let whole = feed(transport, vec![&bytes]);
            assert!(whole.0.lines().count() > 2, "something came of it: {}", whole.0);
            let longest = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            for offset in 0..longest {
                let cuts = starts.windows(2).map(|pair| (pair[0] + offset).min(pair[1]));
                let pieces = split_at(&bytes, cuts);
                assert!(feed(transport, pieces) == whole, "{transport:?}: every frame cut at its byte {offset}");
            }
        }
    }
}

/// One cut alone, at every so many positions; at every single one with `COMMIPC_CUTS=1`.
#[test]
fn one_cut_anywhere_changes_nothing() {
    let stride = std::env::var("COMMIPC_CUTS").ok().and_then(|stride| stride.parse().ok()).unwrap_or(211);
    for transport in [Transport::Memory, Transport::Tcp] {
        for (bytes, _, feed) in sides(transport) {
            let whole = feed(transport, vec![&bytes]);
            for position in (0..bytes.len()).step_by(stride) {
                assert!(feed(transport, split_at(&bytes, [position])) == whole, "{transport:?}: cut at {position}");
            }
        }
    }
}
