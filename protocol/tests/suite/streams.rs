//! Streams and exchanges between machines: order, completeness, grants, and every way in which they end.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    CallFailure, Command, Credit, Event, EventKind, Failure, Payload, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::wire::FrameType;
use commipc_protocol::{Fault, Input, Limits, Machine as _, Misuse, Output, Refusal};
use support::streaming::*;
use support::{World, outgoing, payload};

fn all_of(mut world: World, count: u32) {
    let stream = begun(&mut world, WINDOW, false);
    let mut items = (0..count).map(number);
    let mut come = Vec::new();
    while come.len() < count as usize {
        give(&mut world, PROVIDER, stream, &mut items);
        let taken = take(&mut world, CALLER, CALL);
        assert!(!taken.is_empty(), "stuck after {}", come.len());
        come.extend(taken);
    }
    world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
    assert_eq!(ended(&mut world), Ok(()));
    assert_eq!(come, (0..count).map(number).collect::<Vec<_>>());
    nothing_is_left(&world);
}

#[test]
fn s45_a_stream_is_all_its_items_in_order() {
    all_of(pair(EventKind::Stream), 3_000);
}

#[test]
fn d1_v6_streams_on_protected_channels_are_signed_and_come() {
    all_of(protected(EventKind::Stream), 500);
}

#[test]
fn d2_v5_nobody_without_the_password_gets_a_stream_from_a_protected_channel() {
    let mut world = World::ready(&["provider", "stranger"]);
    world.open(PROVIDER, "ch");
    world.protect(PROVIDER, "ch", &Secret::key([1; 32]), 1);
    provide(&mut world, EventKind::Stream);
    ask(&mut world, WINDOW, false);
    let failure = Failure::Refused(Refusal::PasswordRequired);
    assert_eq!(ended(&mut world), Err(CallFailure::Failed { failure, maybe_executed: false }));
    assert!(world.events[PROVIDER].is_empty(), "the provider hears nothing of it");
}

#[test]
fn s47_an_empty_item_is_an_item_and_so_is_an_empty_stream_one() {
    let mut world = pair(EventKind::Stream);
    let stream = begun(&mut world, WINDOW, false);
    give(&mut world, PROVIDER, stream, &mut [number(0), Bytes::new(), number(2)].into_iter());
    assert_eq!(take(&mut world, CALLER, CALL), [number(0), Bytes::new(), number(2)]);
    world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
    assert_eq!(ended(&mut world), Ok(()));
    let stream = begun(&mut world, WINDOW, false);
    world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
    assert_eq!(ended(&mut world), Ok(()));
    nothing_is_left(&world);
}

#[test]
fn s46_an_error_comes_after_exactly_the_items_before_it() {
    let mut world = pair(EventKind::Stream);
    let stream = begun(&mut world, Credit { items: 2, ..WINDOW }, false);
    let StreamId::Request(request) = stream else { unreachable!() };
    let fault = Fault { code: 1_001, message: "no more".into(), details: Bytes::new(), retryable: false };
    for n in 0..5 {
        world.command(
            PROVIDER,
            Command::Stream(StreamCommand::Items { stream, payloads: vec![Payload { bytes: number(n), raw: true }] }),
        );
    }
    world.command(PROVIDER, Command::Answer { request, result: Err(fault.clone()) });
    let mut come = Vec::new();
    while matches!(world.events[CALLER].front(), Some(Event::Stream(StreamEvent::Item { .. }))) {
        come.extend(take(&mut world, CALLER, CALL));
    }
    assert_eq!(come, (0..5).map(number).collect::<Vec<_>>());
    assert_eq!(ended(&mut world), Err(CallFailure::Fault(fault)));
    nothing_is_left(&world);
}

#[test]
fn s42_the_kind_is_checked_at_the_hub() {
    for (provided, asked) in [
        (EventKind::Stream, EventKind::Call),
        (EventKind::Exchange, EventKind::Call),
        (EventKind::Call, EventKind::Stream),
        (EventKind::Call, EventKind::Exchange),
    ] {
        let mut world = pair(provided);
        let wrong = CallFailure::Failed { failure: Failure::Refused(Refusal::WrongKind), maybe_executed: false };
        if asked == EventKind::Call {
            world.call(CALLER, 9, "ch", "ev", b"");
            assert_eq!(world.expect_answered(CALLER).1, Err(wrong));
        } else {
            ask(&mut world, WINDOW, asked == EventKind::Exchange);
            assert_eq!(ended(&mut world), Err(wrong));
        }
        assert!(world.events[PROVIDER].is_empty(), "{provided:?}: the provider hears nothing of it");
    }
    let mut world = pair(EventKind::Stream);
    world.command(CALLER, Command::Send { token: Token(3), outgoing: outgoing("ch", "ev", b"") });
    assert_eq!(world.expect_refused(CALLER), Refusal::WrongKind);
}

#[test]
fn an_exchange_with_a_plain_stream_is_of_the_wrong_kind() {
    let mut world = pair(EventKind::Stream);
    ask(&mut world, WINDOW, true);
    let request = world.expect_request(PROVIDER).id;
    world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
    assert_eq!(ended(&mut world), failed(Failure::Refused(Refusal::WrongKind)));
    assert!(matches!(world.events[PROVIDER].back(), Some(Event::RequestEnded { .. })));
    nothing_is_left(&world);
}

#[test]
fn a_stream_of_an_exchange_is_one_without_items_from_the_caller() {
    let mut world = pair(EventKind::Exchange);
    let stream = begun(&mut world, WINDOW, false);
    assert!(
        world.events[PROVIDER]
            .iter()
            .any(|event| matches!(event, Event::Stream(StreamEvent::Finished { result: Ok(()), .. })))
    );
    give(&mut world, PROVIDER, stream, &mut [number(1)].into_iter());
    assert_eq!(take(&mut world, CALLER, CALL), [number(1)]);
    world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
    assert_eq!(ended(&mut world), Ok(()));
}

fn both_ways(mut world: World) {
    let stream = begun(&mut world, WINDOW, true);
    let (mut up, mut down) = ((0..300).map(number), (1_000..1_300).map(number));
    let (mut came_up, mut came_down) = (Vec::new(), Vec::new());
    while came_up.len() < 300 || came_down.len() < 300 {
        give(&mut world, CALLER, CALL, &mut up);
        give(&mut world, PROVIDER, stream, &mut down);
        came_up.extend(take(&mut world, PROVIDER, stream));
        came_down.extend(take(&mut world, CALLER, CALL));
    }
    assert_eq!(came_up, (0..300).map(number).collect::<Vec<_>>());
    assert_eq!(came_down, (1_000..1_300).map(number).collect::<Vec<_>>());
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world.command(CALLER, Command::Stream(StreamCommand::Finish { stream: CALL }));
    assert!(matches!(world.next(PROVIDER), Event::Stream(StreamEvent::Finished { result: Ok(()), .. })));
    world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
    assert_eq!(ended(&mut world), Ok(()));
    nothing_is_left(&world);
}

#[test]
fn an_exchange_is_a_stream_in_each_direction() {
    both_ways(pair(EventKind::Exchange));
    both_ways(protected(EventKind::Exchange));
}

#[test]
fn s49_v27_who_gives_a_stream_up_ends_it_for_its_provider() {
    let mut world = pair(EventKind::Stream);
    let stream = begun(&mut world, WINDOW, false);
    give(&mut world, PROVIDER, stream, &mut (0..3).map(number));
    world.events[PROVIDER].clear();
    world.command(CALLER, Command::Cancel { call: Token(9) });
    let why = Failure::Local(Misuse::Cancelled);
    assert!(matches!(world.next(PROVIDER), Event::RequestEnded { why: told, .. } if told == why));
    world.command(PROVIDER, Command::Stream(StreamCommand::Items { stream, payloads: vec![payload(b"late")] }));
    world.events[CALLER].retain(|event| matches!(event, Event::Stream(StreamEvent::Ended { .. })));
    assert_eq!(ended(&mut world), failed(why));
    nothing_is_left(&world);
}

#[test]
fn s51_v27_a_stream_ends_when_its_provider_or_a_link_goes() {
    for gone in [PROVIDER, CALLER] {
        let mut world = pair(EventKind::Stream);
        let stream = begun(&mut world, WINDOW, false);
        give(&mut world, PROVIDER, stream, &mut (0..3).map(number));
        assert_eq!(take(&mut world, CALLER, CALL).len(), 3);
        world.events[PROVIDER].clear();
        world.cut(gone);
        if gone == PROVIDER {
            assert_eq!(ended(&mut world), failed(Failure::Refused(Refusal::ProviderGone)));
        } else {
            assert_eq!(ended(&mut world), failed(Failure::Local(Misuse::Disconnected)));
            let why = Failure::Refused(Refusal::CallerGone);
            assert!(matches!(world.next(PROVIDER), Event::RequestEnded { why: told, .. } if told == why));
        }
        nothing_is_left(&world);
    }
}

#[test]
fn a_rotation_ends_streams_and_both_are_told() {
    let mut world = World::ready(&["provider", "caller", "owner"]);
    world.open(2, "ch");
    world.protect(2, "ch", &Secret::key([1; 32]), 1);
    [PROVIDER, CALLER].iter().for_each(|&it| world.join(it, "ch", &Secret::key([1; 32])));
    provide(&mut world, EventKind::Stream);
    begun(&mut world, WINDOW, false);
    world.events[PROVIDER].clear();
    world.protect(2, "ch", &Secret::key([2; 32]), 2);
    assert_eq!(ended(&mut world), failed(Failure::Refused(Refusal::Rekeyed)));
    let why = Failure::Refused(Refusal::Rekeyed);
    assert!(
        world.events[PROVIDER].iter().any(|it| matches!(it, Event::RequestEnded { why: told, .. } if *told == why))
    );
    nothing_is_left(&world);
}

/// It gives something and never says that it has taken the request, which so keeps its deadline.
#[test]
fn a_stream_that_is_begun_and_not_taken_ends_at_both_ends() {
    let mut world = pair(EventKind::Stream);
    ask(&mut world, WINDOW, false);
    let stream = StreamId::Request(world.expect_request(PROVIDER).id);
    let payloads = vec![payload(b"one")];
    world.command(PROVIDER, Command::Stream(StreamCommand::Items { stream, payloads }));
    assert!(matches!(world.next(CALLER), Event::Stream(StreamEvent::Accepted { .. })));
    assert_eq!(take(&mut world, CALLER, CALL).len(), 1);
    world.pass(Duration::from_secs(31));
    let deadline = Failure::Refused(Refusal::Deadline);
    assert_eq!(ended(&mut world), failed(deadline));
    assert!(matches!(world.events[PROVIDER].back(), Some(Event::RequestEnded { why, .. }) if *why == deadline));
    nothing_is_left(&world);
}

#[test]
fn the_deadline_bounds_the_wait_for_a_provider_and_not_the_stream() {
    let mut world = pair(EventKind::Stream);
    ask(&mut world, WINDOW, false);
    world.expect_request(PROVIDER);
    world.pass(Duration::from_secs(31));
    assert_eq!(ended(&mut world), failed(Failure::Local(Misuse::Deadline)));
    assert!(matches!(world.events[PROVIDER].back(), Some(Event::RequestEnded { .. })));
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    let stream = begun(&mut world, WINDOW, false);
    world.pass(Duration::from_secs(100_000));
    world.command(PROVIDER, Command::Stream(StreamCommand::Items { stream, payloads: vec![payload(b"at last")] }));
    assert_eq!(take(&mut world, CALLER, CALL), [&b"at last"[..]]);
    world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
    assert_eq!(ended(&mut world), Ok(()));
}

#[test]
fn s50_nothing_is_sent_beyond_what_was_granted() {
    let mut world = pair(EventKind::Stream);
    let stream = begun(&mut world, Credit { items: 4, ..WINDOW }, false);
    let Some(Event::Stream(StreamEvent::Demand { amount, .. })) = world.events[PROVIDER].pop_front() else {
        panic!("nothing is wanted")
    };
    assert_eq!(amount.items, 4);
    for n in 0..100 {
        world.command(
            PROVIDER,
            Command::Stream(StreamCommand::Items { stream, payloads: vec![Payload { bytes: number(n), raw: true }] }),
        );
    }
    assert_eq!(world.events[CALLER].len(), 4);
    let memory = world.hub.load().memory;
    world.pass(Duration::from_secs(600));
    assert_eq!((world.events[CALLER].len(), world.hub.load().memory), (4, memory));
    let mut come = Vec::new();
    while come.len() < 100 {
        come.extend(take(&mut world, CALLER, CALL));
    }
    assert_eq!(come, (0..100).map(number).collect::<Vec<_>>());
}

#[test]
fn s6_a_long_item_goes_in_pieces_and_does_not_keep_a_call_waiting() {
    for mut world in [pair(EventKind::Stream), protected(EventKind::Stream)] {
        let long: Bytes = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let stream = begun(&mut world, WINDOW, false);
        world.command(
            PROVIDER,
            Command::Stream(StreamCommand::Items {
                stream,
                payloads: vec![Payload { bytes: long.clone(), raw: true }],
            }),
        );
        assert!(world.clients[PROVIDER].load().serving == 1);
        assert_eq!(take(&mut world, CALLER, CALL), std::slice::from_ref(&long));
        world.command(PROVIDER, Command::Stream(StreamCommand::Items { stream, payloads: vec![payload(b"short")] }));
        world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
        assert_eq!(take(&mut world, CALLER, CALL), [&b"short"[..]]);
        assert_eq!(ended(&mut world), Ok(()));
        nothing_is_left(&world);
    }
}

/// The types of the frames in what a machine transmits, and how long each is.
fn frames(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        frames.push((rest[0], length));
        bytes = &rest[length.min(rest.len())..];
    }
    frames
}

#[test]
fn s6_a_call_does_not_wait_behind_a_long_item() {
    let window = Credit { items: 8, bytes: 8 << 20 };
    let mut world = pair(EventKind::Stream);
    let stream = begun(&mut world, window, false);
    waits_behind_little(world, PROVIDER, stream);
    let mut world = pair(EventKind::Exchange);
    begun(&mut world, window, true);
    waits_behind_little(world, CALLER, CALL);
}

/// Whoever gives a long item asks for something else.
fn waits_behind_little(mut world: World, giver: usize, stream: StreamId) {
    let long = Payload { bytes: vec![7; 4 << 20].into(), raw: true };
    let call = Command::Call { token: Token(20), outgoing: outgoing("x", "y", b""), time_left: Duration::from_secs(9) };
    for command in [Command::Stream(StreamCommand::Items { stream, payloads: vec![long] }), call] {
        world.clients[giver].handle_input(world.now, Input::Command(command));
    }
    // Nothing is written yet: this is all that the driver gets to hold before.
    let mut held = Vec::new();
    while let Some(output) = world.clients[giver].poll_output() {
        if let Output::Transmit { data, .. } = output {
            held.extend_from_slice(&data);
        }
    }
    let frames = frames(&held);
    let before = frames.iter().take_while(|(kind, _)| *kind != FrameType::Call.number());
    let before: usize = before.map(|(_, length)| length).sum();
    assert_eq!(frames.last().map(|(kind, _)| *kind), Some(FrameType::Call.number()), "{frames:?}");
    assert!(before < 200 << 10, "the call waits behind {before} bytes");
}

/// At the hub it keeps its place behind what is on its way to the same client, and that is what the client has granted.
#[test]
fn s6_an_answer_waits_behind_no_more_items_than_its_caller_has_granted() {
    let mut world = pair(EventKind::Stream);
    world.provide(PROVIDER, 6, "ch", "sum");
    let (first, second) = (Credit { items: 1_000, bytes: 96 << 10 }, Credit { items: 40, bytes: 1 << 20 });
    let streams = [(9, first), (10, second)].map(|(token, window)| {
        let (outgoing, time_left, whole) = (outgoing("ch", "ev", b""), Duration::from_secs(30), None);
        let ask = StreamCommand::Ask { token: Token(token), outgoing, time_left, whole, window, exchange: false };
        world.command(CALLER, Command::Stream(ask));
        let request = world.expect_request(PROVIDER).id;
        world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window }));
        world.events.iter_mut().for_each(std::collections::VecDeque::clear);
        StreamId::Request(request)
    });
    // From here on the caller's link takes nothing, and its providers give all they may, and would give more.
    world.stalled = Some(CALLER);
    for stream in streams {
        let payloads = vec![Payload { bytes: vec![7; 1 << 10].into(), raw: true }; 1_000];
        world.command(PROVIDER, Command::Stream(StreamCommand::Items { stream, payloads }));
    }
    world.call(CALLER, 20, "ch", "sum", b"");
    while !matches!(world.events[PROVIDER].front().expect("it is asked"), Event::Request(_)) {
        world.events[PROVIDER].pop_front();
    }
    let request = world.expect_request(PROVIDER).id;
    world.command(PROVIDER, Command::Answer { request, result: Ok(payload(b"3")) });
    assert!(world.events[CALLER].is_empty(), "{:?}", world.events[CALLER]);
    world.release_stalled();
    let (mut before, mut answered) = ([Credit::NONE; 2], false);
    while let Some(event) = world.events[CALLER].pop_front() {
        match event {
            Event::Stream(StreamEvent::Item { stream, cost, .. }) => {
                let of = usize::from(stream == StreamId::Call(Token(10)));
                before[of] = before[of].plus(Credit { items: 1, bytes: cost });
            }
            Event::Answered { token: Token(20), result } => answered = result.is_ok(),
            other => panic!("{other:?}"),
        }
    }
    assert!(answered);
    assert_eq!(before[1].items, second.items, "all that was granted is on its way");
    assert!(before[0].bytes <= first.bytes && before[0].bytes > first.bytes * 9 / 10, "{before:?}");
}

#[test]
fn s45_a_stream_is_the_same_however_it_is_cut() {
    let told = |chunk| {
        let mut world = pair(EventKind::Stream);
        world.chunk = chunk;
        let stream = begun(&mut world, WINDOW, false);
        let mut items = (0..200_usize).map(|n| Bytes::from(vec![n as u8; n * n]));
        let mut told = Vec::new();
        for _ in 0..200 {
            give(&mut world, PROVIDER, stream, &mut items);
            told.push(take(&mut world, CALLER, CALL));
        }
        world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
        assert_eq!(ended(&mut world), Ok(()));
        (told, world.wire)
    };
    let whole = told(usize::MAX);
    for chunk in [1, 7, 1_000] {
        assert!(told(chunk) == whole, "cut into pieces of {chunk}");
    }
}

#[test]
fn an_item_that_is_too_long_ends_its_stream() {
    let mut limits = Limits::default();
    limits.item = 1_000;
    let clients = ["provider", "caller"].map(|it| support::client_with(it, Secret::key(support::KEY), limits.clone()));
    let mut world = World::with(support::hub(Limits::default()), clients.into());
    world.connect_all();
    world.open(PROVIDER, "ch");
    provide(&mut world, EventKind::Stream);
    let stream = begun(&mut world, WINDOW, false);
    world.command(PROVIDER, Command::Stream(StreamCommand::Items { stream, payloads: vec![payload(b"fits")] }));
    world.command(
        PROVIDER,
        Command::Stream(StreamCommand::Items {
            stream,
            payloads: vec![Payload { bytes: vec![0; 1_001].into(), raw: true }],
        }),
    );
    assert_eq!(take(&mut world, CALLER, CALL).len(), 1);
    assert_eq!(ended(&mut world), failed(Failure::Refused(Refusal::TooLarge)));
}

#[test]
fn open_streams_are_limited_at_the_client_and_at_the_hub() {
    let mut few = Limits::default();
    few.streams = 2;
    for (of_client, of_hub) in [(few.clone(), Limits::default()), (Limits::default(), few)] {
        let clients = ["provider", "caller"];
        let clients = clients.map(|it| support::client_with(it, Secret::key(support::KEY), of_client.clone()));
        let mut world = World::with(support::hub(of_hub), clients.into());
        world.connect_all();
        world.open(PROVIDER, "ch");
        provide(&mut world, EventKind::Stream);
        for token in 10..13 {
            let (outgoing, time_left) = (outgoing("ch", "ev", b""), Duration::from_secs(30));
            let ask = Command::Stream(StreamCommand::Ask {
                token: Token(token),
                outgoing,
                time_left,
                whole: None,
                window: WINDOW,
                exchange: false,
            });
            world.command(CALLER, ask);
        }
        let Event::Stream(StreamEvent::Ended { token, result: Err(CallFailure::Failed { failure, maybe_executed }) }) =
            world.next(CALLER)
        else {
            panic!("the third is one too many")
        };
        let expected = [Failure::Local(Misuse::TooMany), Failure::Refused(Refusal::Overloaded)];
        assert!(token == Token(12) && expected.contains(&failure) && !maybe_executed, "{failure:?}");
        world.command(CALLER, Command::Cancel { call: Token(10) });
        world.events[CALLER].clear();
        ask(&mut world, WINDOW, false);
        assert!(world.events[CALLER].is_empty(), "with one given up there is room again");
    }
}

#[test]
fn a_thousand_streams_with_random_ends_leave_nothing() {
    let mut limits = Limits::default();
    limits.streams = 1_000;
    let clients = ["provider", "caller"].map(|it| support::client_with(it, Secret::key(support::KEY), limits.clone()));
    let mut world = World::with(support::hub(limits), clients.into());
    world.connect_all();
    let before = world.hub.load();
    world.open(PROVIDER, "ch");
    provide(&mut world, EventKind::Stream);
    let empty = world.hub.load();
    let mut streams = Vec::new();
    for token in 0..1_000 {
        let (token, outgoing) = (Token(1_000 + token), outgoing("ch", "ev", b""));
        let time = (Duration::from_secs(30), None);
        world.command(CALLER, support::ended::asks(EventKind::Stream, token, outgoing, time, WINDOW));
        let request = world.expect_request(PROVIDER).id;
        world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
        world.events[PROVIDER].clear();
        streams.push((token, StreamId::Request(request)));
    }
    assert_eq!(world.clients[CALLER].load().streams, 1_000);
    // A small generator: which end ends which stream, and when, is all over the place but the same each time.
    let mut state = 12_345_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    while !streams.is_empty() {
        let at = random(streams.len());
        let (token, stream) = streams[at];
        match random(6) {
            0 => {
                world.command(CALLER, Command::Cancel { call: token });
                streams.swap_remove(at);
            }
            1 => {
                world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
                streams.swap_remove(at);
            }
            _ => world
                .command(PROVIDER, Command::Stream(StreamCommand::Items { stream, payloads: vec![payload(b"item")] })),
        }
    }
    let over =
        world.events[CALLER].iter().filter(|event| matches!(event, Event::Stream(StreamEvent::Ended { .. }))).count();
    assert_eq!(over, 1_000, "each ends once");
    nothing_is_left(&world);
    assert_eq!(world.hub.load(), empty);
    world.cut(PROVIDER);
    world.cut(CALLER);
    assert_eq!(world.hub.load().links, before.links - 2);
}
