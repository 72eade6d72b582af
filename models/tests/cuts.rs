//! Every position of every frame of a long conversation, as the place where a read ends.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what is unexpected fails it")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what is of no interest is passed over")]

#[path = "../../protocol/tests/support/mod.rs"]
mod support;

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Token};
use commipc_protocol::{Input, Instant, Limits, LinkId, Machine, Now, Output, Peer, Transport, UnixMillis};
use support::{KEY, World, client, hub, outgoing, payload};

const NOW: Now = Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) };
/// What a client says first, once.
const MAGIC: usize = 8;
/// Frames of each side before records are tagged.
const CLIENT_UNTAGGED: usize = 2;
const HUB_UNTAGGED: usize = 1;
const TAG: usize = 16;
const LARGE: &[u8] = &[7; 700];

/// What a client said to a hub and heard from it: two hundred messages each way, and what opens, provides and listens. The
/// client provides for itself, so that a fresh hub can follow.
fn conversation(transport: Transport) -> (Vec<u8>, Vec<u8>) {
    let mut world = World::new(&["a", "b"]);
    world.transport = transport;
    world.connect_all();
    for client in 0..2 {
        world.open(client, "ch");
        world.listen(client, 20, "ch", None);
    }
    world.provide(0, 5, "ch", "ev");
    for token in 0..40 {
        world.call(0, token, "ch", "ev", &[b'x'; 30]);
        let request = world.expect_request(0).id;
        world.command(0, Command::Answer { request, result: Ok(payload(b"answer")) });
        world.command(0, Command::Broadcast { token: Token(100 + token), outgoing: outgoing("ch", "up", b"hello") });
        world.command(1, Command::Broadcast { token: Token(100 + token), outgoing: outgoing("ch", "up", b"hello") });
        world.command(0, Command::Send { token: Token(200 + token), outgoing: outgoing("ch", "ev", b"hello") });
        let body = if token % 10 == 0 { LARGE } else { b"small" };
        let (given_up, time_left) = (outgoing("ch", "ev", body), Duration::from_secs(1));
        world.command(0, Command::Call { token: Token(300 + token), outgoing: given_up, time_left });
        world.command(0, Command::Cancel { call: Token(300 + token) });
        world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    }
    world.wire.into_values().next().unwrap()
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
    let (mut events, mut bytes) = (String::new(), Vec::new());
    while let Some(output) = machine.poll_output() {
        match output {
            Output::Transmit { link, data } => {
                bytes.extend_from_slice(&data);
                machine.handle_input(NOW, Input::Written { link, bytes: data.len() });
            }
            Output::Event(event) => events += &format!("{event:?}\n"),
            Output::Close { link, flush } => events += &format!("close {link:?} {flush:?}\n"),
            Output::Dial { link, to } => events += &format!("dial {link:?} {to}\n"),
        }
    }
    (events, bytes)
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
