//! Hub and clients together, in the order of the conversation.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

mod support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{self, CallFailure, Command, Event, Failure, Token};
use commipc_protocol::{CloseReason, Fault, Limits, Misuse, Refusal, Transport, Violation};
use support::{KEY, World, client, hub, name, outgoing, payload};

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
fn the_handshake_works_with_every_kind_of_secret_and_transport() {
    for transport in [Transport::Memory, Transport::Tcp] {
        for secret in [Secret::key(KEY), Secret::password("correct horse"), Secret::insecure()] {
            let mut world = World::with(hub(Limits::default()), vec![client("a", secret.clone())]);
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
fn v14_a_client_accepts_no_hub_that_cannot_prove_itself() {
    // The hub lets everybody in but does not know the secret: kdf 3 is not what the client offers.
    let mut world = World::with(hub(Limits::default()), vec![client("a", Secret::key([8; 32]))]);
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
fn v26_a_call_ends_when_its_provider_dies() {
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
fn a_provider_is_told_when_its_caller_goes_or_gives_up() {
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
fn a_deadline_ends_a_call_everywhere() {
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
fn v7_only_the_called_provider_can_answer_and_once() {
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
fn s57_a_broadcast_never_runs_a_handler() {
    let mut world = World::ready(&["provider", "b"]);
    world.open(0, "ch");
    world.provide(0, 5, "ch", "ev");
    world.command(1, Command::Broadcast { token: Token(1), outgoing: outgoing("ch", "ev", b"x") });
    assert!(world.events[0].is_empty());
}

#[test]
fn v9_v11_no_stranger_has_influence_and_reserved_channels_are_nobodys() {
    let mut world = World::new(&["a", "b"]);
    world.command(0, Command::Connect);
    world.next(0);
    world.command(0, Command::Open { token: Token(1), channel: name("__comm_ipc_other") });
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
fn garbage_ends_its_own_link_and_no_other() {
    let mut world = World::ready(&["a", "b"]);
    world.inject(0, &[0, 0, 0, 2, 16, 0xff]);
    assert!(
        matches!(world.next(0), Event::Closed(CloseReason::GoodbyeCode(code)) if code == Violation::BadControl.code())
    );
    assert!(!world.is_linked(0));
    world.open(1, "fine");
}

#[test]
fn v24_a_length_beyond_the_limit_is_refused_before_anything_is_kept() {
    let mut world = World::ready(&["a"]);
    world.inject(0, &[0xff, 0xff, 0xff, 0xff]);
    assert!(
        matches!(world.next(0), Event::Closed(CloseReason::GoodbyeCode(code)) if code == Violation::FrameTooLarge.code())
    );
}

#[test]
fn v23_a_silent_connection_and_a_half_frame_are_closed_in_time() {
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
    let mut world = World::with(hub(limits), ["a", "b"].map(|id| client(id, Secret::key(KEY))).into());
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
