//! The rules that every machine keeps, on hub and client, over arbitrary conversations.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use bytes::Bytes;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Event, Token};
use commipc_protocol::hub::Hub;
use commipc_protocol::{Input, Instant, Limits, LinkId, Machine, Now, Peer, Transport, UnixMillis};
use proptest::prelude::*;
use support::{KEY, World, client, hub, outgoing, pieces};

const LINK: LinkId = LinkId::accepted(0, 1);

fn now(nanos: u64) -> Now {
    Now { mono: Instant::from_nanos(nanos), wall: UnixMillis(1_800_000_000_000) }
}

fn conversation(transport: Transport) -> (Vec<u8>, Vec<u8>) {
    pieces::conversation(transport, 20, &[7; 5_000], &[7; 5_000])
}

/// What a fresh hub does with these bytes on one link, drained at the end.
fn fed_to_hub(pieces: &[&[u8]]) -> (String, Vec<u8>) {
    let mut hub = hub(Limits::default());
    hub.handle_input(now(1), Input::Accepted { link: LINK, peer: Peer::unknown(Transport::Memory) });
    for piece in pieces {
        hub.handle_input(now(1), Input::Received { link: LINK, data: Bytes::copy_from_slice(piece) });
    }
    drained(&mut hub)
}

fn drained<M: Machine<Event: std::fmt::Debug>>(machine: &mut M) -> (String, Vec<u8>) {
    pieces::drained(machine, now(1))
}

fn cut<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, rest) = bytes.split_at((*cut).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}

#[test]
fn every_cut_of_a_conversation_gives_the_same_events_and_bytes() {
    let (said, _) = conversation(Transport::Memory);
    let whole = fed_to_hub(&[&said]);
    assert!(whole.0.contains("Connected") && whole.1.len() > 1_000);
    // Every position of the small frames, and a stride through the large ones.
    for position in (0..3_000).chain((3_000..said.len()).step_by(97)) {
        let (left, right) = said.split_at(position);
        assert_eq!(fed_to_hub(&[left, right]), whole, "cut at {position}");
    }
    let single: Vec<&[u8]> = said.chunks(1).collect();
    assert_eq!(fed_to_hub(&single), whole);
}

#[test]
fn the_client_hears_the_same_however_it_is_cut() {
    let (_, heard) = conversation(Transport::Tcp);
    let hear = |chunk: usize| {
        let mut client = client("a", Secret::key(KEY));
        client.handle_input(now(1), Input::Command(Command::Connect));
        let link = LinkId::dialled(0, 1);
        client.handle_input(now(1), Input::Dialled { link, peer: Peer::unknown(Transport::Tcp) });
        for piece in heard.chunks(chunk) {
            client.handle_input(now(1), Input::Received { link, data: Bytes::copy_from_slice(piece) });
        }
        drained(&mut client)
    };
    let whole = hear(usize::MAX);
    assert!(whole.0.contains("Ready"), "the same seed leads to the same handshake: {}", whole.0);
    for chunk in [1, 2, 3, 5, 16, 17, 100, 1_000] {
        assert_eq!(hear(chunk), whole, "pieces of {chunk}");
    }
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let (said, heard) = conversation(Transport::Tcp);
    assert_eq!((said, heard), conversation(Transport::Tcp));
}

#[test]
fn a_timeout_before_its_time_does_nothing_and_clocks_do_not_run_backwards() {
    let mut hub = hub(Limits::default());
    hub.handle_input(now(1_000), Input::Accepted { link: LINK, peer: Peer::unknown(Transport::Memory) });
    let deadline = hub.poll_timeout().expect("the handshake has a deadline").at;
    hub.handle_input(now(deadline.as_nanos() - 1), Input::Timeout);
    assert_eq!(drained(&mut hub).0, "");
    let again = hub.poll_timeout().expect("it still has").at;
    assert!(again > now(deadline.as_nanos() - 1).mono, "no deadline in the past, or a driver would spin");
    hub.handle_input(now(0), Input::Timeout);
    hub.handle_input(now(Instant::ZERO.as_nanos() + 1_000 + 5_000_000_000), Input::Timeout);
    assert!(drained(&mut hub).0.contains("HandshakeTimeout"));
    assert_eq!(hub.poll_timeout(), None);
}

#[test]
fn what_is_not_drained_is_neither_lost_nor_reordered() {
    let mut late = World::ready(&["a", "b"]);
    late.open(0, "ch");
    late.listen(0, 3, "ch", None);
    for token in 0..1_000 {
        let command = Command::Broadcast { token: Token(token), outgoing: outgoing("ch", "up", b"hello") };
        let now = late.now;
        late.clients[1].handle_input(now, Input::Command(command));
    }
    late.run();
    for number in 1..=1_000 {
        assert!(matches!(late.next(0), Event::Message(message) if message.number == number));
        assert!(matches!(late.next(1), Event::Sent { token, result: Ok(()) } if token.0 + 1 == number));
    }
}

#[test]
fn inputs_for_links_that_are_gone_have_no_effect() {
    let mut hub = hub(Limits::default());
    hub.handle_input(now(1), Input::Accepted { link: LINK, peer: Peer::unknown(Transport::Memory) });
    hub.handle_input(now(1), Input::Received { link: LINK, data: Bytes::from_static(b"GET / HTTP/1.1\r\n") });
    assert!(drained(&mut hub).0.contains("BadMagic"));
    let next = LinkId::accepted(0, 2);
    hub.handle_input(now(1), Input::Accepted { link: next, peer: Peer::unknown(Transport::Memory) });
    hub.handle_input(now(1), Input::Received { link: LINK, data: Bytes::from_static(b"GET / HTTP/1.1\r\n") });
    hub.handle_input(now(1), Input::Closed { link: LINK, how: commipc_protocol::LinkEnd::Eof });
    assert_eq!(drained(&mut hub), (String::new(), Vec::new()));
    assert_eq!(hub.load().links, 1);
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let (said, _) = conversation(Transport::Memory);
    let len = said.len();
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(any::<u8>(), 0..300)
            .prop_map(|tail| [&commipc_protocol::wire::MAGIC[..], &tail].concat()),
        // A genuine conversation with bytes replaced: most of it passes authentication.
        proptest::collection::vec((0..len, any::<u8>()), 1..4).prop_map(move |changes| {
            let mut bytes = said.clone();
            changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_only_cause_outputs_and_the_same_in_any_pieces(
        bytes in hostile(),
        cuts in proptest::collection::vec(0_usize..200, 0..20),
    ) {
        prop_assert_eq!(fed_to_hub(&cut(&bytes, &cuts)), fed_to_hub(&[&bytes]));
    }
}

#[test]
fn a_hub_without_links_is_as_it_was() {
    let mut world = World::ready(&["a", "b"]);
    for client in 0..2 {
        world.open(client, "ch");
        world.listen(client, 2, "ch", None);
    }
    world.provide(0, 5, "ch", "ev");
    world.call(1, 1, "ch", "ev", b"");
    world.cut(0);
    world.cut(1);
    assert_eq!(world.hub.load(), Default::default());
    assert_eq!(Hub::poll_timeout(&world.hub), None, "nothing is left to fall due");
    for client in &world.clients {
        assert_eq!((client.load(), client.poll_timeout()), (Default::default(), None));
    }
}
