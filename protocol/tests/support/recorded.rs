//! What a hub is fed by clients that talk, to be fed to another one and measured.

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Credit, Event, EventKind, StreamCommand, StreamEvent, StreamId, Token};
use commipc_protocol::hub;
use commipc_protocol::{EventName, Input, Machine as _};

use super::{World, name, outgoing, payload};

/// What a hub is fed until a caller and a provider are connected, and then by `rounds` times `in_flight` calls of `size` bytes.
pub fn recorded_calls(
    rounds: usize,
    in_flight: u64,
    size: usize,
) -> (Vec<Input<hub::Command>>, Vec<Input<hub::Command>>) {
    recorded_calls_with(None, rounds, in_flight, size)
}

/// The same on a channel that may have a password.
pub fn recorded_calls_with(
    password: Option<&Secret>,
    rounds: usize,
    in_flight: u64,
    size: usize,
) -> (Vec<Input<hub::Command>>, Vec<Input<hub::Command>>) {
    let mut world = World::new(&["caller", "provider"]);
    world.record = Some(Vec::new());
    world.connect_all();
    world.open(1, "math");
    if let Some(password) = password {
        world.protect(1, "math", password, 1);
        world.join(0, "math", password);
    }
    world.provide(1, 5, "math", "sum");
    let setup = world.record.replace(Vec::new()).unwrap();
    let body: &'static [u8] = vec![1; size].leak();
    for _ in 0..rounds {
        for token in 0..in_flight {
            let command = Command::Call {
                token: Token(token),
                outgoing: outgoing("math", "sum", body),
                time_left: Duration::from_secs(30),
            };
            world.clients[0].handle_input(world.now, Input::Command(command));
        }
        world.run();
        while let Some(event) = world.events[1].pop_front() {
            let Event::Request(request) = event else { panic!("{event:?}") };
            let command = Command::Answer { request: request.id, result: Ok(payload(body)) };
            world.clients[1].handle_input(world.now, Input::Command(command));
        }
        world.run();
        assert_eq!(world.events[0].len() as u64, in_flight);
        world.events[0].clear();
    }
    (setup, world.record.unwrap())
}

/// What a hub is fed until a client is given a stream, and then by at least `count` items of `size` bytes.
pub fn recorded_items(count: usize, size: usize) -> (Vec<Input<hub::Command>>, Vec<Input<hub::Command>>) {
    let mut world = World::new(&["caller", "provider"]);
    world.record = Some(Vec::new());
    world.connect_all();
    world.open(1, "math");
    let (channel, event) = (name("math"), EventName::new("feed").unwrap());
    world.command(1, Command::Provide { token: Token(5), channel, event, kind: EventKind::Stream });
    world.expect_done(1, 5);
    let (token, window) = (Token(9), Credit { items: 256, bytes: 256 << 10 });
    let (outgoing, time_left) = (outgoing("math", "feed", b""), Duration::from_secs(30));
    world.command(
        0,
        Command::Stream(StreamCommand::Ask { token, outgoing, time_left, whole: None, window, exchange: false }),
    );
    let request = world.expect_request(1).id;
    world.command(1, Command::Stream(StreamCommand::Accept { request, window }));
    let setup = world.record.replace(Vec::new()).unwrap();
    let item = payload(vec![1; size].leak());
    let mut taken = 0;
    while taken < count {
        while let Some(event) = world.events[1].pop_front() {
            let Event::Stream(StreamEvent::Demand { stream, amount }) = event else { panic!("{event:?}") };
            let payloads = vec![item.clone(); usize::try_from(amount.items).unwrap()];
            world.command(1, Command::Stream(StreamCommand::Items { stream, payloads }));
        }
        let mut amount = Credit::NONE;
        while let Some(event) = world.events[0].pop_front() {
            match event {
                Event::Stream(StreamEvent::Item { cost, .. }) => amount = amount.plus(Credit { items: 1, bytes: cost }),
                Event::Stream(StreamEvent::Accepted { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_ne!(amount, Credit::NONE, "the stream has stopped");
        taken += usize::try_from(amount.items).unwrap();
        world.command(0, Command::Stream(StreamCommand::Consumed { stream: StreamId::Call(token), amount }));
    }
    (setup, world.record.unwrap())
}

/// What a hub is fed until one client talks to `listeners` others, and then by `count` broadcasts of `size` bytes.
pub fn recorded_broadcasts(
    listeners: usize,
    count: u64,
    size: usize,
) -> (Vec<Input<hub::Command>>, Vec<Input<hub::Command>>) {
    let names: Vec<String> = (0..=listeners).map(|number| format!("client-{number}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    world.record = Some(Vec::new());
    world.connect_all();
    for client in 1..=listeners {
        world.open(client, "news");
        world.listen(client, 5, "news", Some("up"));
    }
    let setup = world.record.replace(Vec::new()).unwrap();
    let body: &'static [u8] = vec![1; size].leak();
    for token in 0..count {
        let command = Command::Broadcast { token: Token(token), outgoing: outgoing("news", "up", body) };
        world.clients[0].handle_input(world.now, Input::Command(command));
    }
    world.run();
    (setup, world.record.unwrap())
}
