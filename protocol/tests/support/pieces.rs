//! A long conversation as the bytes of one link, and what a machine makes of such bytes.

use std::fmt::Debug;
use std::time::Duration;

use commipc_protocol::client::{Command, Token};
use commipc_protocol::{Input, Machine, Now, Output, Transport};

use super::{World, outgoing, payload};

/// What a client said to a hub and heard from it: ten messages a round, and what opens, provides and listens. Every tenth of
/// the calls that are given up has the body `large`, the others `small`. The client provides for itself, so that a fresh hub
/// can follow.
pub fn conversation(
    transport: Transport,
    rounds: u64,
    small: &'static [u8],
    large: &'static [u8],
) -> (Vec<u8>, Vec<u8>) {
    let mut world = World::new(&["a", "b"]);
    world.transport = transport;
    world.connect_all();
    for client in 0..2 {
        world.open(client, "ch");
        world.listen(client, 20, "ch", None);
    }
    world.provide(0, 5, "ch", "ev");
    for token in 0..rounds {
        world.call(0, token, "ch", "ev", &[b'x'; 100]);
        let request = world.expect_request(0).id;
        world.command(0, Command::Answer { request, result: Ok(payload(b"answer")) });
        world.command(0, Command::Broadcast { token: Token(100 + token), outgoing: outgoing("ch", "up", b"hello") });
        world.command(1, Command::Broadcast { token: Token(100 + token), outgoing: outgoing("ch", "up", b"hello") });
        world.command(0, Command::Send { token: Token(200 + token), outgoing: outgoing("ch", "ev", b"hello") });
        let body = if token % 10 == 0 { large } else { small };
        let (given_up, time_left) = (outgoing("ch", "ev", body), Duration::from_secs(1));
        world.command(0, Command::Call { token: Token(300 + token), outgoing: given_up, time_left });
        world.command(0, Command::Cancel { call: Token(300 + token) });
        world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    }
    world.wire.into_values().next().unwrap()
}

/// What a machine has to say: its events as text, and its bytes.
pub fn drained<M: Machine<Event: Debug>>(machine: &mut M, now: Now) -> (String, Vec<u8>) {
    let (mut events, mut bytes) = (String::new(), Vec::new());
    while let Some(output) = machine.poll_output() {
        match output {
            Output::Transmit { link, data } => {
                bytes.extend_from_slice(&data);
                machine.handle_input(now, Input::Written { link, bytes: data.len() });
            }
            Output::Event(event) => events += &format!("{event:?}\n"),
            Output::Close { link, flush } => events += &format!("close {link:?} {flush:?}\n"),
            Output::Dial { link, to } => events += &format!("dial {link:?} {to}\n"),
        }
    }
    (events, bytes)
}
