//! Hub and clients together, in the order of the conversation.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{self, CallFailure, Command, Event, Failure, Token};
use commipc_protocol::hub;
use commipc_protocol::wire::{FrameType, Hop, Kind, Message};
use commipc_protocol::{CloseReason, Fault, Input, Limits, LinkId, Misuse, Refusal, Transport, Violation};
use support::{KEY, World, client, name, outgoing, payload};

#[test]
fn a_call_comes_back_with_its_answer() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    world.call(1, 9, "math", "sum", b"15+25");
    let request = world.expect_request(0);
    assert_eq!(request.provider, Token(5));
    assert_eq!(&request.message.payload.bytes[..], b"15+25");
    assert_eq!(request.message.sender.to_string(), "caller@hub-a");
    assert_eq!(request.message.hops, 1);
    world.command(0, Command::Answer { request: request.id, result: Ok(payload(b"40")) });
    let (token, result) = world.expect_answered(1);
    let answer = result.unwrap();
    assert_eq!((token, &answer.payload.bytes[..]), (Token(9), &b"40"[..]));
    assert_eq!(answer.provider.to_string(), "provider@hub-a");
    assert_eq!((world.hub.load().calls, world.clients[0].load().serving, world.clients[1].load().calls), (0, 0, 0));
}

#[test]
fn s12_the_handshake_works_with_every_kind_of_secret_and_transport() {
    for transport in [Transport::Memory, Transport::Tcp] {
        for secret in [Secret::key(KEY), Secret::password("correct horse"), Secret::insecure()] {
            let mut world = World::with(support::hub(Limits::default()), vec![client("a", secret.clone())]);
            let credentials = support::credentials(&secret);
            world.hub.handle(commipc_protocol::hub::Command::SetCredentials(credentials), world.now);
            world.transport = transport;
            world.chunk = 7;
            world.command(0, Command::Connect);
            if let Event::DeriveKey { salt, iterations } = &world.events[0][0] {
                let salted = secret.derive(salt, *iterations).unwrap();
                world.events[0].clear();
                world.command(0, Command::KeyDerived(salted));
            }
            assert!(matches!(world.next(0), Event::Ready(_)), "{transport:?} {secret:?}");
            world.open(0, "x");
        }
    }
}

#[test]
fn s16_a_client_with_a_secret_takes_no_hub_with_another_or_none() {
    let mut world = World::with(support::hub(Limits::default()), vec![client("a", Secret::key([8; 32]))]);
    world.command(0, Command::Connect);
    assert!(matches!(world.next(0), Event::Closed(CloseReason::Refused(Refusal::AuthFailed))));
    let insecure = support::credentials(&Secret::insecure());
    world.hub.handle(commipc_protocol::hub::Command::SetCredentials(insecure), world.now);
    world.command(0, Command::Connect);
    assert!(matches!(world.next(0), Event::Closed(CloseReason::Refused(Refusal::KdfUnsupported))));
    assert_eq!(world.hub.load().clients, 0);
}

#[test]
fn s9_a_taken_id_is_refused_and_its_owner_undisturbed() {
    let mut world = World::new(&["same", "same"]);
    world.command(0, Command::Connect);
    assert!(matches!(world.next(0), Event::Ready(_)));
    world.command(1, Command::Connect);
    assert!(matches!(world.next(1), Event::Closed(CloseReason::Refused(Refusal::IdInUse))));
    world.open(0, "still-here");
    world.command(0, Command::Close);
    assert!(matches!(world.next(0), Event::Closed(CloseReason::Local)));
    world.command(1, Command::Connect);
    assert!(matches!(world.next(1), Event::Ready(_)));
}

#[test]
fn s17_a_channel_is_open_once_the_hub_says_so_and_until_it_was_left_as_often() {
    let mut world = World::ready(&["a", "b"]);
    let now = world.now;
    world.clients[0].handle(
        Command::Open { token: Token(1), channel: name("ch"), access: commipc_protocol::client::Access::default() },
        now,
    );
    world.clients[0].handle(
        Command::Open { token: Token(2), channel: name("ch"), access: commipc_protocol::client::Access::default() },
        now,
    );
    assert!(world.events[0].is_empty(), "the hub has not answered yet");
    world.run();
    world.expect_done(0, 1);
    world.expect_done(0, 2);
    let joined = |event: &&hub::Event| matches!(event, hub::Event::Joined { .. });
    assert_eq!(world.hub_events.iter().filter(joined).count(), 1);
    for (token, channels) in [(3, 1), (4, 0)] {
        world.command(0, Command::Leave { token: Token(token), channel: name("ch") });
        world.expect_done(0, token);
        assert_eq!(world.hub.load().channels, channels);
    }
    // One that the hub never answers ends with the link.
    let now = world.now;
    world.clients[0].handle(
        Command::Open { token: Token(5), channel: name("ch"), access: commipc_protocol::client::Access::default() },
        now,
    );
    world.cut(0);
    let gone = Failure::Local(Misuse::Disconnected);
    assert!(matches!(world.next(0), Event::Done { token: Token(5), result: Err(failure) } if failure == gone));
}

#[test]
fn s17_what_the_hub_answers_too_late_is_told_and_given_back() {
    let mut limits = Limits::default();
    limits.registration = Duration::from_secs(3);
    let mut world =
        World::with(support::hub(Limits::default()), vec![support::client_with("a", Secret::key(KEY), limits)]);
    world.connect_all();
    let late = |token, result: &Event| {
        let deadline = Failure::Local(Misuse::Deadline);
        assert!(
            matches!(result, Event::Done { token: got, result: Err(why) } if *got == Token(token) && *why == deadline)
        );
    };
    let give_up = |world: &mut World, token: u64, command: Command| {
        let mut now = world.now;
        world.clients[0].handle(command, now);
        for (millis, events) in [(2_999, 0), (1, 1)] {
            now.mono = now.mono + Duration::from_millis(millis);
            commipc_protocol::Machine::handle_input(&mut world.clients[0], now, commipc_protocol::Input::Timeout);
            // What is transmitted stays where it is: only the events are taken.
            world.take_events(0);
            assert_eq!(world.events[0].len(), events);
        }
        world.now = now;
        late(token, &world.next(0));
        world.run();
        assert!(world.events[0].is_empty(), "it ends once");
    };
    give_up(
        &mut world,
        1,
        Command::Open { token: Token(1), channel: name("ch"), access: commipc_protocol::client::Access::default() },
    );
    assert_eq!((world.hub.load().channels, world.clients[0].load().controls), (0, 0), "left again");
    world.open(0, "ch");
    give_up(&mut world, 2, Command::Listen { token: Token(2), channel: name("ch"), event: None });
    let event = commipc_protocol::EventName::new("ev").unwrap();
    let kind = client::EventKind::Call;
    give_up(&mut world, 3, Command::Provide { token: Token(3), channel: name("ch"), event, kind });
    world.call(0, 4, "ch", "ev", b"");
    let nobody = Failure::Refused(Refusal::NoProvider);
    assert!(matches!(world.expect_answered(0).1, Err(CallFailure::Failed { failure, .. }) if failure == nobody));
    world.provide(0, 5, "ch", "ev");
}

#[test]
fn s35_an_event_has_one_provider_until_it_withdraws_or_goes() {
    let mut world = World::ready(&["a", "b"]);
    world.open(0, "ch");
    world.open(1, "ch");
    world.provide(0, 2, "ch", "ev");
    let provide = |token| Command::Provide {
        token: Token(token),
        channel: name("ch"),
        event: commipc_protocol::EventName::new("ev").unwrap(),
        kind: client::EventKind::Call,
    };
    world.command(1, provide(3));
    let refused = Failure::Refused(Refusal::ProviderExists);
    assert!(matches!(world.next(1), Event::Done { token: Token(3), result: Err(failure) } if failure == refused));
    world.command(0, Command::Withdraw { token: Token(4), provider: Token(2) });
    world.expect_done(0, 4);
    world.command(1, provide(5));
    world.expect_done(1, 5);
    world.cut(1);
    world.command(0, provide(6));
    world.expect_done(0, 6);
}

#[test]
fn s38_without_a_provider_a_call_fails_at_once() {
    let mut world = World::ready(&["a"]);
    world.call(0, 1, "nowhere", "nothing", b"");
    let failure = Failure::Refused(Refusal::NoProvider);
    assert_eq!(world.expect_answered(0).1, Err(CallFailure::Failed { failure, maybe_executed: false }));
}

#[test]
fn s41_v26_a_call_ends_when_its_provider_dies() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    for token in 0..3 {
        world.call(1, token, "math", "sum", b"");
    }
    world.cut(0);
    let failure = Failure::Refused(Refusal::ProviderGone);
    for _ in 0..3 {
        assert_eq!(world.expect_answered(1).1, Err(CallFailure::Failed { failure, maybe_executed: true }));
    }
    assert_eq!(world.hub.load().calls, 0);
}

#[test]
fn s43_a_lost_connection_ends_every_call_and_says_what_is_unknown() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    for token in 1..=3 {
        world.call(1, token, "math", "sum", b"");
    }
    world.cut(1);
    for token in 1..=3 {
        let failure = Failure::Local(Misuse::Disconnected);
        let ended = CallFailure::Failed { failure, maybe_executed: true };
        assert_eq!(world.expect_answered(1), (Token(token), Err(ended)));
    }
    assert!(matches!(world.next(1), Event::Closed(CloseReason::Lost)), "each thing ends before the connection does");
    world.call(1, 4, "math", "sum", b"");
    let failure = Failure::Local(Misuse::NotConnected);
    let never_sent = CallFailure::Failed { failure, maybe_executed: false };
    assert_eq!(world.expect_answered(1), (Token(4), Err(never_sent)));
}

#[test]
fn s37_a_provider_is_told_when_its_caller_goes_or_gives_up() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    world.call(1, 1, "math", "sum", b"");
    let request = world.expect_request(0).id;
    world.command(1, Command::Cancel { call: Token(1) });
    let ended = Failure::Local(Misuse::Cancelled);
    assert!(matches!(world.next(0), Event::RequestEnded { request: id, why } if id == request && why == ended));
    assert!(matches!(world.expect_answered(1).1, Err(CallFailure::Failed { maybe_executed: true, .. })));
    world.call(1, 2, "math", "sum", b"");
    let request = world.expect_request(0).id;
    world.cut(1);
    let ended = Failure::Refused(Refusal::CallerGone);
    assert!(matches!(world.next(0), Event::RequestEnded { request: id, why } if id == request && why == ended));
    assert!(matches!(world.expect_answered(1).1, Err(CallFailure::Failed { maybe_executed: true, .. })));
    world.command(0, Command::Answer { request, result: Ok(payload(b"late")) });
    assert_eq!((world.hub.load().calls, world.clients[0].load().serving), (0, 0));
}

#[test]
fn s37_a_deadline_ends_a_call_everywhere() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    world.call(1, 1, "math", "sum", b"");
    world.expect_request(0);
    world.pass(Duration::from_millis(29_999));
    assert!(world.events[1].is_empty());
    world.pass(Duration::from_millis(1));
    assert!(matches!(world.expect_answered(1).1, Err(CallFailure::Failed { maybe_executed: true, .. })));
    assert!(matches!(world.next(0), Event::RequestEnded { .. }));
    assert_eq!((world.hub.load().calls, world.clients[0].load().serving, world.clients[1].load().calls), (0, 0, 0));
}

#[test]
fn s44_v7_only_the_called_provider_can_answer_and_once() {
    let mut world = World::ready(&["provider", "caller", "stranger"]);
    for client in 0..3 {
        world.open(client, "math");
    }
    world.provide(0, 5, "math", "sum");
    world.provide(2, 5, "math", "other");
    world.call(1, 1, "math", "sum", b"");
    world.call(1, 2, "math", "other", b"");
    let (request, other) = (world.expect_request(0).id, world.expect_request(2).id);
    // The stranger answers the other's exchange with a number that is not its own.
    world.command(2, Command::Answer { request: other, result: Ok(payload(b"mine")) });
    assert_eq!(world.expect_answered(1).0, Token(2));
    let (from_stranger, _) = world.wire.values().nth(2).unwrap().clone();
    let answer = last_frame(&from_stranger);
    let mut forged = answer.clone();
    forged[5..9].copy_from_slice(&route_of_first_call(&world));
    world.inject(2, &forged);
    world.inject(2, &answer);
    assert!(world.events[1].is_empty());
    let counters = world.hub.counters();
    assert_eq!(counters.ended_route + counters.mismatched, 2);
    world.command(0, Command::Answer { request, result: Ok(payload(b"genuine")) });
    assert_eq!(&world.expect_answered(1).1.unwrap().payload.bytes[..], b"genuine");
}

#[test]
fn s40_an_answer_names_what_was_called_and_who_answers() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    world.call(1, 1, "math", "sum", b"");
    let request = world.expect_request(0).id;
    world.command(0, Command::Answer { request, result: Ok(payload(b"40")) });
    let heard = world.wire.values().nth(1).unwrap().1.clone();
    let frame = last_frame(&heard);
    let (hop, message) = Hop::split(&frame[5..]).unwrap();
    let header = Message::parse(message).unwrap().header;
    assert_eq!((header.kind, header.channel.as_str(), header.event.as_str()), (Kind::Answer, "math", "sum"));
    assert_eq!((header.sender.as_str(), header.origin.as_str(), hop.hops), ("provider", "hub-a", 1));
    let answer = world.expect_answered(1).1.unwrap();
    assert_eq!((answer.provider.to_string().as_str(), answer.hops), ("provider@hub-a", 1));
}

#[test]
fn s42_another_kind_than_the_provided_one_is_refused_at_the_hub() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    world.call(1, 1, "math", "sum", b"x");
    let request = world.expect_request(0).id;
    world.command(0, Command::Answer { request, result: Ok(payload(b"")) });
    world.expect_answered(1).1.unwrap();
    // The same call again, which wants a stream now.
    let mut call = last_frame(&world.wire.values().nth(1).unwrap().0);
    let flags = 3 + call.windows(4).position(|fields| fields == [0x92, 1, 3, 8]).unwrap();
    call[flags] |= 2;
    world.inject(1, &call);
    let told = last_frame(&world.wire.values().nth(1).unwrap().1);
    let [high, low] = Refusal::WrongKind.code().to_be_bytes();
    assert_eq!(
        (told[4], &told[5..9], &told[9..]),
        (FrameType::Fail.number(), &call[5..9], &[0xa1, 0, 0x19, high, low][..])
    );
    assert!(world.events[0].is_empty(), "the provider is not asked");
    assert!(world.is_linked(1) && world.hub.load().calls == 0);
}

/// The hub's number for the first call it handed to client 0.
fn route_of_first_call(world: &World) -> [u8; 4] {
    let (_, to_provider) = world.wire.values().next().unwrap();
    last_frame(to_provider)[5..9].try_into().unwrap()
}

fn last_frame(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes.strip_prefix(&commipc_protocol::wire::MAGIC[..]).unwrap_or(bytes);
    loop {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        if rest.len() == 4 + length {
            return rest.to_vec();
        }
        rest = &rest[4 + length..];
    }
}

#[test]
fn s39_a_fault_arrives_as_the_handler_made_it() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    world.call(1, 1, "math", "sum", b"");
    let request = world.expect_request(0).id;
    let details = bytes::Bytes::from_static(&[0xa0]);
    let fault = Fault { code: 1_234, message: "no such account".into(), details, retryable: true };
    world.command(0, Command::Answer { request, result: Err(fault.clone()) });
    assert_eq!(world.expect_answered(1).1, Err(CallFailure::Fault(fault)));
}

#[test]
fn s53_a_broadcast_reaches_every_listener_once_and_never_its_sender() {
    let mut world = World::ready(&["a", "b", "c", "d"]);
    for client in 0..4 {
        world.open(client, "news");
    }
    world.listen(0, 10, "news", Some("up"));
    world.listen(1, 10, "news", Some("up"));
    world.listen(1, 11, "news", None);
    world.listen(2, 10, "news", Some("down"));
    world.command(0, Command::Broadcast { token: Token(1), outgoing: outgoing("news", "up", b"hello") });
    assert!(matches!(world.next(0), Event::Sent { token: Token(1), result: Ok(()) }));
    for to in [10, 11] {
        match world.next(1) {
            Event::Message(message) => assert_eq!((message.to, message.number), (Token(to), 1)),
            other => panic!("{other:?}"),
        }
    }
    assert!(world.events.iter().all(std::collections::VecDeque::is_empty));
}

#[test]
fn s54_a_send_reaches_the_provider_alone_and_says_if_there_is_none() {
    let mut world = World::ready(&["provider", "b"]);
    world.open(0, "ch");
    world.provide(0, 5, "ch", "ev");
    world.command(1, Command::Send { token: Token(1), outgoing: outgoing("ch", "ev", b"x") });
    assert!(matches!(world.next(0), Event::Message(message) if message.to == Token(5) && message.number == 0));
    assert!(matches!(world.next(1), Event::Sent { token: Token(1), result: Ok(()) }));
    world.command(1, Command::Send { token: Token(2), outgoing: outgoing("ch", "none", b"x") });
    let none = Failure::Refused(Refusal::NoProvider);
    assert!(matches!(world.next(1), Event::Sent { token: Token(2), result: Err(failure) } if failure == none));
}

#[test]
fn s57_v8_a_broadcast_never_runs_a_handler() {
    let mut world = World::ready(&["provider", "b"]);
    world.open(0, "ch");
    world.provide(0, 5, "ch", "ev");
    world.command(1, Command::Broadcast { token: Token(1), outgoing: outgoing("ch", "ev", b"x") });
    assert!(world.events[0].is_empty());
}

#[test]
fn s60_what_a_message_says_of_its_sender_is_true() {
    let mut world = World::ready(&["honest", "liar", "listener"]);
    world.open(2, "news");
    world.listen(2, 5, "news", None);
    world.command(0, Command::Broadcast { token: Token(1), outgoing: outgoing("news", "up", b"genuine") });
    let Event::Message(message) = world.next(2) else { panic!("not heard") };
    let heard = message.message;
    assert_eq!((heard.sender.to_string().as_str(), heard.hops, heard.sent_at), ("honest@hub-a", 1, world.now.wall));
    // The same frame on another's link.
    let spoken = last_frame(&world.wire.values().next().unwrap().0);
    world.inject(1, &spoken);
    assert!(world.events[2].is_empty(), "nobody hears it");
    let code = Violation::ForeignSender.code();
    assert!(matches!(world.next(1), Event::Closed(CloseReason::GoodbyeCode(told)) if told == code));
    assert!(!world.is_linked(1) && world.is_linked(0));
}

#[test]
fn v9_v11_v17_no_stranger_has_influence_and_reserved_channels_are_nobodys() {
    let mut world = World::new(&["a", "b"]);
    world.command(0, Command::Connect);
    world.next(0);
    world.command(
        0,
        Command::Open {
            token: Token(1),
            channel: name("__comm_ipc_other"),
            access: commipc_protocol::client::Access::default(),
        },
    );
    let reserved = Failure::Refused(Refusal::NameReserved);
    assert!(matches!(world.next(0), Event::Done { result: Err(failure), .. } if failure == reserved));
    let broadcast = outgoing("__comm_ipc_system", "x", b"");
    world.command(0, Command::Broadcast { token: Token(2), outgoing: broadcast });
    assert!(matches!(world.next(0), Event::Sent { result: Err(Failure::Refused(Refusal::HubOwned)), .. }));
    let stranger = client("a", Secret::key([0; 32]));
    world.clients[1] = stranger;
    world.command(1, Command::Connect);
    assert!(matches!(world.next(1), Event::Closed(CloseReason::Refused(Refusal::AuthFailed))));
    assert!(world.is_linked(0));
}

#[test]
fn s4_garbage_ends_its_own_link_and_no_other() {
    let mut world = World::ready(&["a", "b"]);
    world.inject(0, &[0, 0, 0, 2, 16, 0xff]);
    assert!(
        matches!(world.next(0), Event::Closed(CloseReason::GoodbyeCode(code)) if code == Violation::BadControl.code())
    );
    assert!(!world.is_linked(0));
    assert_eq!(world.hub.counters().violations, 1, "and is counted");
    world.open(1, "fine");
    world.cut(1);
    let stranger = LinkId::accepted(7, 1);
    let peer = commipc_protocol::Peer::unknown(Transport::Tcp);
    world.feed_hub(Input::Accepted { link: stranger, peer });
    world.feed_hub(Input::Received { link: stranger, data: b"GET / HTTP/1.1".to_vec().into() });
    assert_eq!(world.hub.counters().violations, 2, "a stranger's too, and no end that is none");
}

#[test]
fn s2_an_unknown_frame_ends_the_link_or_is_skipped_by_its_number() {
    let mut world = World::ready(&["a"]);
    for (skipped, number) in [128, 200, 255].into_iter().enumerate() {
        world.inject(0, &[0, 0, 0, 3, number, 0xff, 0xff]);
        assert!(world.is_linked(0));
        assert_eq!(world.hub.counters().skipped, skipped as u64 + 1);
    }
    // What only the other side may say, and what nobody may.
    for (number, violation) in [(10, Violation::UnexpectedFrame), (127, Violation::UnknownFrame)] {
        let mut world = World::ready(&["a"]);
        world.inject(0, &[0, 0, 0, 2, number, 0xa0]);
        let code = violation.code();
        assert!(matches!(world.next(0), Event::Closed(CloseReason::GoodbyeCode(told)) if told == code), "{number}");
    }
}

#[test]
fn a_length_beyond_the_limit_ends_the_link_before_anything_is_kept() {
    let mut world = World::ready(&["a"]);
    world.inject(0, &[0xff, 0xff, 0xff, 0xff]);
    assert!(
        matches!(world.next(0), Event::Closed(CloseReason::GoodbyeCode(code)) if code == Violation::FrameTooLarge.code())
    );
}

#[test]
fn a_half_frame_ends_the_link_in_time() {
    let mut world = World::ready(&["a"]);
    world.inject(0, &[0, 0, 0, 9, 16]);
    world.pass(Duration::from_millis(9_999));
    assert!(world.is_linked(0));
    world.pass(Duration::from_millis(1));
    assert!(!world.is_linked(0));
}

#[test]
fn a_call_that_fits_no_frame_is_refused_at_its_sender() {
    let mut world = World::ready(&["a"]);
    let big: &'static [u8] = vec![0; 2 << 20].leak();
    world.call(0, 1, "ch", "ev", big);
    let failure = Failure::Local(Misuse::TooLarge);
    assert_eq!(world.expect_answered(0).1, Err(CallFailure::Failed { failure, maybe_executed: false }));
}

#[test]
fn large_messages_pass_and_everything_is_returned() {
    let mut world = World::ready(&["provider", "caller"]);
    world.chunk = 1_000;
    world.open(0, "ch");
    world.provide(0, 5, "ch", "ev");
    let big: &'static [u8] = vec![0xab; 1_000_000].leak();
    world.call(1, 1, "ch", "ev", big);
    let request = world.expect_request(0);
    assert_eq!(&request.message.payload.bytes[..], big);
    world.command(0, Command::Answer { request: request.id, result: Ok(payload(big)) });
    assert_eq!(&world.expect_answered(1).1.unwrap().payload.bytes[..], big);
}

#[test]
fn a_slow_consumer_is_closed_and_others_notice_nothing() {
    let mut limits = Limits::default();
    limits.outbox = 10_000;
    limits.in_flight = 10_000;
    let mut world = World::with(support::hub(limits), ["a", "b"].map(|id| client(id, Secret::key(KEY))).into());
    world.connect_all();
    world.open(0, "ch");
    world.open(1, "ch");
    world.listen(1, 7, "ch", None);
    for token in 0..100 {
        let outgoing = outgoing("ch", "ev", &[0; 500]);
        world.clients[0].handle(Command::Broadcast { token: Token(token), outgoing }, world.now);
    }
    world.run();
    assert!(!world.is_linked(1), "what 100 broadcasts left unread is more than its outbox");
    assert!(world.is_linked(0));
}

#[test]
fn shutdown_says_goodbye_to_all() {
    let mut world = World::ready(&["a", "b"]);
    world.hub.handle(commipc_protocol::hub::Command::Shutdown, world.now);
    world.run();
    for client in 0..2 {
        assert!(matches!(world.next(client), Event::Closed(CloseReason::Goodbye(Refusal::ShuttingDown))));
    }
    assert_eq!(world.hub_events.last(), Some(&commipc_protocol::hub::Event::Stopped));
}

/// Feeds a command.
trait Handle {
    type Command;
    fn handle(&mut self, command: Self::Command, now: commipc_protocol::Now);
}

impl<M: commipc_protocol::Machine> Handle for M {
    type Command = M::Command;

    fn handle(&mut self, command: M::Command, now: commipc_protocol::Now) {
        self.handle_input(now, commipc_protocol::Input::Command(command));
    }
}
