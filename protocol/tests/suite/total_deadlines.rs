//! Deadlines for the whole of a stream: whoever falls silent, or keeps its end back, it ends at that time.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::client::{
    Away, Command, Event, EventKind, Failure, Payload, RequestId, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::{Misuse, Refusal};
use support::streaming::{CALL, CALLER, PROVIDER, WINDOW, ended, failed, nothing_is_left, number, pair, take};
use support::{World, outgoing};

const TAKEN: Duration = Duration::from_secs(5);
const TOTAL: Duration = Duration::from_secs(60);
const LAST: Duration = Duration::from_millis(1);
const STREAMS: [EventKind; 2] = [EventKind::Stream, EventKind::Exchange];

fn ask(world: &mut World, kind: EventKind, time_left: Duration, whole: Option<Duration>, away: Away) {
    let (outgoing, exchange) = (outgoing("ch", "ev", b""), kind == EventKind::Exchange);
    let outgoing = commipc_protocol::client::Outgoing { away, ..outgoing };
    let ask = StreamCommand::Ask { token: Token(9), outgoing, time_left, whole, window: WINDOW, exchange };
    world.command(CALLER, Command::Stream(ask));
}

/// A stream that was taken after a second, and has brought three items.
fn running(kind: EventKind) -> (World, RequestId) {
    let mut world = pair(kind);
    ask(&mut world, kind, TAKEN, Some(TOTAL), Away::Fail);
    let request = world.expect_request(PROVIDER);
    assert!(request.whole, "its deadline is for all of it");
    assert_eq!(request.deadline.saturating_since(world.now.mono), TOTAL);
    let request = request.id;
    world.pass(Duration::from_secs(1));
    world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
    assert!(matches!(world.next(CALLER), Event::Stream(StreamEvent::Accepted { .. })));
    let payloads = (0..3).map(|n| Payload { bytes: number(n), raw: true }).collect();
    world.command(PROVIDER, Command::Stream(StreamCommand::Items { stream: StreamId::Request(request), payloads }));
    world.events[CALLER].retain(|event| !matches!(event, Event::Stream(StreamEvent::Demand { .. })));
    assert_eq!(take(&mut world, CALLER, CALL).len(), 3);
    (world, request)
}

/// What a provider was told of the end of a request.
fn told(world: &World) -> Vec<Failure> {
    let why = |event: &Event| match event {
        Event::RequestEnded { why, .. } => Some(*why),
        _ => None,
    };
    world.events[PROVIDER].iter().filter_map(why).collect()
}

fn is_over(world: &mut World, failure: Failure) {
    // What its hub says of it crosses with what is said to the hub.
    let crossed = |event: &Event| matches!(event, Event::Dropped(_) | Event::Stream(StreamEvent::Demand { .. }));
    world.events[CALLER].retain(|event| !crossed(event));
    assert_eq!(ended(world), failed(failure));
    assert!(world.events[CALLER].is_empty(), "{:?}", world.events[CALLER]);
    nothing_is_left(world);
}

/// ```text
/// caller ──ask, in all a minute──► hub ──► provider   takes it, gives three items, says nothing more
/// ```
#[test]
fn v27_s51_a_stream_whose_provider_falls_silent_ends_at_its_total_deadline_at_both_ends() {
    for kind in STREAMS {
        let (mut world, _) = running(kind);
        world.pass(TOTAL - Duration::from_secs(1) - LAST);
        assert!(told(&world).is_empty(), "{kind:?}");
        assert!(!world.events[CALLER].iter().any(|event| matches!(event, Event::Stream(StreamEvent::Ended { .. }))));
        world.pass(LAST);
        assert_eq!(told(&world), [Failure::Refused(Refusal::Deadline)], "{kind:?}");
        is_over(&mut world, Failure::Local(Misuse::Deadline));
    }
}

/// The provider has given all and said so; the hub passes on everything but that.
#[test]
fn v27_s51_a_stream_whose_end_is_kept_back_ends_at_its_total_deadline() {
    for kind in STREAMS {
        let (mut world, request) = running(kind);
        world.deceived = Some(CALLER);
        world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream: StreamId::Request(request) }));
        assert!(world.events[CALLER].iter().all(|event| matches!(event, Event::Stream(StreamEvent::Demand { .. }))));
        world.pass(TOTAL - Duration::from_secs(1));
        assert_eq!(told(&world), [], "its own part was over");
        is_over(&mut world, Failure::Local(Misuse::Deadline));
    }
}

/// Nothing of what a caller says arrives any more, though its link stands: hub and provider know the time themselves.
#[test]
fn hub_and_provider_end_a_stream_at_its_total_deadline_by_themselves() {
    for kind in STREAMS {
        for hub_keeps_silent in [false, true] {
            let (mut world, _) = running(kind);
            world.mute = Some(CALLER);
            world.deceived = hub_keeps_silent.then_some(PROVIDER);
            world.pass(TOTAL - Duration::from_secs(1));
            assert_eq!(told(&world), [Failure::Refused(Refusal::Deadline)], "{kind:?}, {hub_keeps_silent}");
            is_over(&mut world, Failure::Local(Misuse::Deadline));
        }
    }
}

/// Only its caller bounds how long it waits to be taken: to the others its deadline is that of the whole.
#[test]
fn a_stream_with_a_total_deadline_waits_no_longer_to_be_taken_than_it_says() {
    for (waits, total) in [(TAKEN, TOTAL), (TOTAL, TAKEN)] {
        let mut world = pair(EventKind::Stream);
        ask(&mut world, EventKind::Stream, waits, Some(total), Away::Fail);
        let request = world.expect_request(PROVIDER);
        assert_eq!(request.deadline.saturating_since(world.now.mono), total);
        world.pass(TAKEN - LAST);
        assert!(world.events[CALLER].is_empty() && told(&world).is_empty());
        world.pass(LAST);
        assert_eq!(told(&world).len(), 1);
        is_over(&mut world, Failure::Local(Misuse::Deadline));
    }
}

/// Without one, what bounds it is its caller.
#[test]
fn a_stream_without_a_total_deadline_lasts_until_its_caller_gives_it_up() {
    for kind in STREAMS {
        let mut world = pair(kind);
        ask(&mut world, kind, TAKEN, None, Away::Fail);
        let request = world.expect_request(PROVIDER);
        assert!(!request.whole, "its deadline is over when it is taken");
        world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request: request.id, window: WINDOW }));
        assert!(matches!(world.next(CALLER), Event::Stream(StreamEvent::Accepted { .. })));
        world.pass(Duration::from_secs(7 * 86_400));
        assert_eq!((told(&world).len(), world.clients[CALLER].load().streams), (0, 1));
        world.command(CALLER, Command::Cancel { call: Token(9) });
        assert_eq!(told(&world), [Failure::Local(Misuse::Cancelled)]);
        is_over(&mut world, Failure::Local(Misuse::Cancelled));
    }
}

/// What a stream waits for its connection counts.
#[test]
fn s73_a_total_deadline_runs_while_a_stream_waits_for_its_connection() {
    let reconnect = commipc_protocol::client::Reconnect::default();
    let clients = vec![
        support::client("provider", commipc_protocol::auth::Secret::key(support::KEY)),
        support::lasting("caller", reconnect),
    ];
    let mut world = World::with(support::hub(commipc_protocol::Limits::default()), clients);
    world.connect_all();
    world.open(PROVIDER, "ch");
    support::streaming::provide(&mut world, EventKind::Stream);
    world.hold_dials = true;
    world.cut(CALLER);
    ask(&mut world, EventKind::Stream, TOTAL, Some(TOTAL), Away::Wait);
    let waited = Duration::from_secs(20);
    world.pass(waited);
    world.release_dials();
    world.events[CALLER].retain(|event| matches!(event, Event::Stream(_)));
    let request = world.expect_request(PROVIDER);
    assert_eq!(request.deadline.saturating_since(world.now.mono), TOTAL - waited);
    world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request: request.id, window: WINDOW }));
    assert!(matches!(world.next(CALLER), Event::Stream(StreamEvent::Accepted { .. })));
    world.pass(TOTAL - waited);
    is_over(&mut world, Failure::Local(Misuse::Deadline));
}
