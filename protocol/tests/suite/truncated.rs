//! Streams of which something is missing, how much of one may be on its way or in its hub, and such as come to nobody.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    Command, Credit, Event, EventKind, Failure, Payload, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::wire::FrameType;
use commipc_protocol::{Input, Limits, Machine as _, Misuse, Refusal};
use support::streaming::{
    CALL, CALLER, PROVIDER, WINDOW, begun, ended, failed, nothing_is_left, number, pair, provide, take,
};
use support::{KEY, World, client, hub, outgoing};

fn item(world: &mut World, client: usize, stream: StreamId, bytes: Bytes) {
    let payloads = vec![Payload { bytes, raw: true }];
    world.command(client, stream_command(StreamCommand::Items { stream, payloads }));
}

const fn stream_command(command: StreamCommand) -> Command {
    Command::Stream(command)
}

/// One item of three does not arrive; what comes after it tells.
#[test]
fn s51_v27_a_stream_without_one_of_its_items_is_truncated_and_never_complete() {
    for missing in 0..3 {
        let mut world = pair(EventKind::Stream);
        let stream = begun(&mut world, WINDOW, false);
        for n in 0..3 {
            world.deceived = (n == missing).then_some(CALLER);
            item(&mut world, PROVIDER, stream, number(n));
        }
        world.deceived = None;
        world.command(PROVIDER, stream_command(StreamCommand::Finish { stream }));
        let came = take(&mut world, CALLER, CALL);
        assert_eq!(came, (0..missing).map(number).collect::<Vec<_>>(), "{missing}");
        assert_eq!(ended(&mut world), failed(Failure::Local(Misuse::Truncated)), "{missing}");
        nothing_is_left(&world);
    }
}

#[test]
fn s51_v27_what_a_caller_sends_is_truncated_as_well() {
    let mut world = pair(EventKind::Exchange);
    let stream = begun(&mut world, WINDOW, true);
    let StreamId::Request(request) = stream else { panic!("{stream:?}") };
    world.events[PROVIDER].clear();
    item(&mut world, CALLER, CALL, number(0));
    world.deceived = Some(PROVIDER);
    item(&mut world, CALLER, CALL, number(1));
    world.deceived = None;
    world.command(CALLER, stream_command(StreamCommand::Finish { stream: CALL }));
    assert_eq!(take(&mut world, PROVIDER, stream), [number(0)]);
    match world.next(PROVIDER) {
        Event::Stream(StreamEvent::Finished { request: finished, result: Err(Misuse::Truncated) }) => {
            assert_eq!(finished, request);
        }
        other => panic!("{other:?}"),
    }
}

/// Each item costs its bytes and 256 more.
#[test]
fn s50_no_more_bytes_are_on_their_way_than_were_granted() {
    for (size, window) in [(1_024, 64 << 10), (16 << 10, 256 << 10)] {
        let mut world = pair(EventKind::Stream);
        let stream = begun(&mut world, Credit { items: 1_000, bytes: window }, false);
        for _ in 0..200 {
            item(&mut world, PROVIDER, stream, vec![7; size].into());
        }
        let whole = usize::try_from(window).unwrap() / (size + 256);
        let come = world.events[CALLER].len();
        assert!((whole..=whole + 1).contains(&come), "{come} of {size} bytes are on their way, {whole} were granted");
        let mut all = 0;
        while all < 200 {
            all += take(&mut world, CALLER, CALL).len();
        }
    }
}

/// Who sends more than was asked for fills nobody's place at the hub: the stream ends, and the link of who does not read stays.
#[test]
fn s50_v25_who_sends_beyond_what_was_granted_ends_its_own_stream() {
    let beyond = |sender: usize, reader: usize, window: Credit, size: usize| {
        let mut world = pair(if sender == CALLER { EventKind::Exchange } else { EventKind::Stream });
        let answers = begun(&mut world, window, sender == CALLER);
        let stream = if sender == CALLER { CALL } else { answers };
        item(&mut world, sender, stream, vec![7; size].into());
        let body = world.last_said(sender, FrameType::Item);
        world.stalled = Some(reader);
        let before = world.hub.load().memory;
        for _ in 0..100 {
            world.says(sender, FrameType::Item, &body);
        }
        let held = world.hub.load().memory - before;
        assert!(held <= 16 << 10, "{held} bytes wait for who asked for {window:?}");
        assert_eq!(world.hub.load().streams, 0, "it is over");
        let told = format!("{:?}", world.events[sender].back());
        assert!(told.contains("FlowControl"), "{told}");
        world.stalled = None;
        world.release_stalled();
        assert!(world.is_linked(reader) && world.is_linked(sender));
        let events = format!("{:?}", world.events[reader]);
        assert!(events.contains("FlowControl") || events.contains("Truncated"), "{events}");
    };
    for (sender, reader) in [(PROVIDER, CALLER), (CALLER, PROVIDER)] {
        beyond(sender, reader, Credit { items: 4, bytes: 1 << 20 }, 100);
        beyond(sender, reader, Credit { items: 1_000, bytes: 4_096 }, 1_024);
    }
}

/// What a hub has no room for ends a stream for both sides.
#[test]
fn v25_a_full_hub_ends_a_stream_whose_items_would_fill_it_more() {
    let mut limits = Limits::default();
    limits.memory = 120_000;
    let clients = ["provider", "caller", "talker", "sleeper"].map(|id| client(id, Secret::key(KEY))).into();
    let mut world = World::with(hub(limits), clients);
    world.connect_all();
    (0..4).for_each(|client| world.open(client, "ch"));
    world.listen(3, 7, "ch", None);
    provide(&mut world, EventKind::Stream);
    let stream = begun(&mut world, WINDOW, false);
    item(&mut world, PROVIDER, stream, number(0));
    assert_eq!(take(&mut world, CALLER, CALL), [number(0)]);
    world.stalled = Some(3);
    for token in 0..300 {
        world.command(2, Command::Broadcast { token: Token(token), outgoing: outgoing("ch", "ev", &[0; 700]) });
    }
    let full = world.hub.load().memory;
    item(&mut world, PROVIDER, stream, number(1));
    assert!(world.hub.load().memory <= full, "nothing of it is kept");
    assert_eq!(ended(&mut world), failed(Failure::Refused(Refusal::Overloaded)));
    let told = world.events[PROVIDER].back();
    let overloaded = Failure::Refused(Refusal::Overloaded);
    assert!(matches!(told, Some(Event::RequestEnded { why, .. }) if *why == overloaded), "{told:?}");
    nothing_is_left(&world);
}

/// The provider has withdrawn the event while the request was on its way to it, and its link is busy: its application never
/// hears of the request.
#[test]
fn s51_a_stream_that_came_too_late_to_its_provider_begins_and_ends_for_nobody() {
    let mut world = pair(EventKind::Stream);
    let window = Credit { items: 8, bytes: 8 << 20 };
    let stream = begun(&mut world, window, false);
    world.stalled = Some(PROVIDER);
    let (outgoing, time_left) = (outgoing("ch", "ev", b""), Duration::from_secs(30));
    let late = StreamCommand::Ask { token: Token(10), outgoing, time_left, whole: None, window, exchange: false };
    world.command(CALLER, stream_command(late));
    world.command(CALLER, Command::Cancel { call: Token(10) });
    let long = Payload { bytes: vec![7; 4 << 20].into(), raw: true };
    let withdraw = Command::Withdraw { token: Token(6), provider: Token(5) };
    for command in [withdraw, stream_command(StreamCommand::Items { stream, payloads: vec![long] })] {
        world.clients[PROVIDER].handle_input(world.now, Input::Command(command));
    }
    world.release_stalled();
    let told = |event: &Event| matches!(event, Event::Request(_) | Event::RequestEnded { .. });
    assert!(!world.events[PROVIDER].iter().any(told), "{:?}", world.events[PROVIDER]);
    world.command(PROVIDER, stream_command(StreamCommand::Finish { stream }));
    world.events[CALLER].retain(|event| !matches!(event, Event::Stream(StreamEvent::Ended { token: Token(10), .. })));
    assert_eq!(take(&mut world, CALLER, CALL).len(), 1);
    assert_eq!(ended(&mut world), Ok(()));
    nothing_is_left(&world);
}
