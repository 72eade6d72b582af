//! A stream between two clients, as tests play it.

use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::EventName;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    CallFailure, Command, Credit, Event, EventKind, Failure, Payload, StreamCommand, StreamEvent, StreamId, Token,
};

use super::{World, name, outgoing};

pub const CALLER: usize = 1;
pub const PROVIDER: usize = 0;
pub const WINDOW: Credit = Credit { items: 32, bytes: 64 << 10 };
pub const CALL: StreamId = StreamId::Call(Token(9));

/// A provider of `ev` and somebody to ask for it.
pub fn pair(kind: EventKind) -> World {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(PROVIDER, "ch");
    provide(&mut world, kind);
    world
}

/// The same on a channel with a password.
pub fn protected(kind: EventKind) -> World {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(PROVIDER, "ch");
    world.protect(PROVIDER, "ch", &Secret::key([1; 32]), 1);
    world.join(CALLER, "ch", &Secret::key([1; 32]));
    provide(&mut world, kind);
    world
}

pub fn provide(world: &mut World, kind: EventKind) {
    let (channel, event) = (name("ch"), EventName::new("ev").unwrap());
    world.command(PROVIDER, Command::Provide { token: Token(5), channel, event, kind });
    world.expect_done(PROVIDER, 5);
}

pub fn ask(world: &mut World, window: Credit, exchange: bool) {
    let (outgoing, time_left) = (outgoing("ch", "ev", b""), Duration::from_secs(30));
    world.command(
        CALLER,
        Command::Stream(StreamCommand::Ask { token: Token(9), outgoing, time_left, whole: None, window, exchange }),
    );
}

/// Asks, and has the provider take the request.
pub fn begun(world: &mut World, window: Credit, exchange: bool) -> StreamId {
    ask(world, window, exchange);
    let request = world.expect_request(PROVIDER).id;
    world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window }));
    assert!(matches!(world.next(CALLER), Event::Stream(StreamEvent::Accepted { token: Token(9) })));
    StreamId::Request(request)
}

/// Gives items for as long as they are asked for; what is not asked for stays.
pub fn give(world: &mut World, client: usize, stream: StreamId, items: &mut dyn Iterator<Item = Bytes>) {
    while let Some(position) =
        world.events[client].iter().position(|event| matches!(event, Event::Stream(StreamEvent::Demand { .. })))
    {
        let Some(Event::Stream(StreamEvent::Demand { stream: of, amount })) = world.events[client].remove(position)
        else {
            return;
        };
        assert_eq!(of, stream);
        for bytes in items.take(usize::try_from(amount.items).unwrap()) {
            world.command(
                client,
                Command::Stream(StreamCommand::Items { stream, payloads: vec![Payload { bytes, raw: true }] }),
            );
        }
    }
}

/// Takes the items that have come, and says so.
pub fn take(world: &mut World, client: usize, stream: StreamId) -> Vec<Bytes> {
    let mut items = Vec::new();
    while let Some(Event::Stream(StreamEvent::Item { .. })) = world.events[client].front() {
        let Event::Stream(StreamEvent::Item { stream: of, payload, cost }) = world.next(client) else { unreachable!() };
        assert_eq!(of, stream);
        items.push(payload.bytes);
        world.command(
            client,
            Command::Stream(StreamCommand::Consumed { stream, amount: Credit { items: 1, bytes: cost } }),
        );
    }
    items
}

pub fn ended(world: &mut World) -> Result<(), CallFailure> {
    match world.next(CALLER) {
        Event::Stream(StreamEvent::Ended { token: Token(9), result }) => result,
        other => panic!("{other:?}"),
    }
}

pub fn failed(failure: Failure) -> Result<(), CallFailure> {
    Err(CallFailure::Failed { failure, maybe_executed: true })
}

pub fn nothing_is_left(world: &World) {
    for client in &world.clients {
        let load = client.load();
        assert_eq!((load.calls, load.serving, load.streams, load.deadlines), (0, 0, 0, 0));
    }
    let load = world.hub.load();
    assert_eq!((load.calls, load.streams, load.deadlines), (0, 0, 0));
}

pub fn number(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}
