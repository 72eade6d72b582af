//! Connections that come back: when they are tried, and that everything is as it was.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    Access, Away, CallFailure, Command, Event, EventKind, Failure, Reconnect, ReconnectEvent, StreamCommand, Token,
    Unrestored,
};
use commipc_protocol::{CloseReason, EventName, Limits, Misuse, OwnerPolicy, Refusal};
use support::streaming::{CALLER, PROVIDER, WINDOW, begun, ended, provide};
use support::{World, hub, lasting, name, outgoing, payload};

/// Clients whose connections come back, connected.
fn world(names: &[&str]) -> World {
    let clients = names.iter().map(|name| lasting(name, Reconnect::default())).collect();
    let mut world = World::with(hub(Limits::default()), clients);
    world.connect_all();
    world
}

fn expect_lost(world: &mut World, client: usize) -> (CloseReason, Duration) {
    match world.next(client) {
        Event::Reconnect(ReconnectEvent::Lost { reason, retry }) => (reason, retry),
        other => panic!("client {client}: {other:?}"),
    }
}

#[test]
fn s71_everything_is_as_it_was_after_a_cut() {
    let mut world = world(&["provider", "caller", "owner"]);
    world.open(2, "math");
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    world.open(1, "math");
    world.open(1, "news");
    world.listen(1, 6, "news", Some("up"));
    world.listen(1, 7, "math", None);
    for cut in [0, 1] {
        world.cut(cut);
        let (reason, retry) = expect_lost(&mut world, cut);
        assert_eq!((reason, retry), (CloseReason::Lost, Duration::ZERO), "the first try is made at once");
        let told = world.restored(cut);
        assert!(matches!(told[0], Event::Ready(_)), "{told:?}");
    }
    world.call(1, 9, "math", "sum", b"");
    let request = world.expect_request(0).id;
    world.command(0, Command::Answer { request, result: Ok(payload(b"3")) });
    assert_eq!(world.expect_answered(1).1.unwrap().payload, payload(b"3"));
    world.say(0, "news", "up", b"new");
    assert_eq!(world.expect_message(1), "new");
    world.say(0, "math", "whatever", b"old");
    assert_eq!(world.expect_message(1), "old");
    assert_eq!(world.hub.load().clients, 3);
}

/// What a provider offers comes back as what it was.
#[test]
fn s71_events_of_each_kind_are_provided_again_as_that_kind() {
    for asked in [EventKind::Call, EventKind::Stream, EventKind::Exchange] {
        let mut world = World::with(
            hub(Limits::default()),
            ["provider", "caller"].map(|name| lasting(name, Reconnect::default())).into(),
        );
        world.connect_all();
        world.open(PROVIDER, "ch");
        provide(&mut world, asked);
        world.cut(PROVIDER);
        world.restored(PROVIDER);
        world.events.iter_mut().for_each(std::collections::VecDeque::clear);
        if asked == EventKind::Call {
            world.call(CALLER, 9, "ch", "ev", b"");
            world.expect_request(PROVIDER);
        } else {
            let stream = begun(&mut world, WINDOW, asked == EventKind::Exchange);
            world.events[CALLER].clear();
            world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
            assert_eq!(ended(&mut world), Ok(()));
        }
    }
}

#[test]
fn s72_d14_a_hub_that_has_forgotten_everything_is_told_again() {
    let mut world = world(&["owner", "member", "provider"]);
    let secret = Secret::key([1; 32]);
    world.open(0, "vault");
    world.protect(0, "vault", &secret, 1);
    world.join(1, "vault", &secret);
    world.listen(1, 6, "vault", Some("up"));
    world.join(2, "vault", &secret);
    world.provide(2, 5, "vault", "sum");
    world.replace_hub(hub(Limits::default()));
    // Members come first, and do not take what is not protected.
    for _ in 0..20_000 {
        world.pass(Duration::from_millis(5));
        for client in 0..3 {
            world.derive_all(client, &secret);
            assert!(!world.events[client].iter().any(|event| matches!(event, Event::ChannelClosed { .. })));
        }
        let back = |client: &usize| {
            world.events[*client].iter().any(|event| matches!(event, Event::Reconnect(ReconnectEvent::Restored { .. })))
        };
        if (0..3).filter(back).count() == 3 {
            break;
        }
    }
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world.say(0, "vault", "up", b"signed");
    assert_eq!(world.expect_message(1), "signed");
    world.call(1, 9, "vault", "sum", b"");
    let request = world.expect_request(2).id;
    world.command(2, Command::Answer { request, result: Ok(payload(b"3")) });
    assert!(world.expect_answered(1).1.is_ok());
    // The owner owns.
    world.protect(0, "vault", &Secret::key([2; 32]), 2);
    assert_eq!(world.expect_closed(1, "vault"), Refusal::Rekeyed);
}

#[test]
fn an_owner_owns_again_what_was_held_for_it() {
    let mut world = world(&["owner", "member"]);
    let policy = commipc_protocol::OwnerPolicy::Hold {
        grace: Duration::from_secs(30),
        then: commipc_protocol::AfterGrace::Terminate,
    };
    let access = commipc_protocol::client::Access { policy: Some(policy), ..Default::default() };
    world.command(0, Command::Open { token: Token(1), channel: name("ch"), access });
    world.expect_done(0, 1);
    world.open(1, "ch");
    world.listen(1, 6, "ch", None);
    world.cut(0);
    world.restored(0);
    let owners = [None, Some("owner".to_owned())];
    assert_eq!([(); 2].map(|()| world.expect_owner(1)), owners, "the channel has not ended meanwhile");
    world.say(0, "ch", "up", b"the same channel");
    assert_eq!(world.expect_message(1), "the same channel");
    world.protect(0, "ch", &Secret::key([1; 32]), 1);
}

#[test]
fn a_password_that_no_longer_fits_ends_the_channel_and_not_the_connection() {
    let mut world = world(&["owner", "member"]);
    world.open(0, "vault");
    world.protect(0, "vault", &Secret::key([1; 32]), 1);
    world.join(1, "vault", &Secret::key([1; 32]));
    world.open(1, "other");
    world.cut(1);
    expect_lost(&mut world, 1);
    // While the member is away the password changes.
    let (mut reached, mut told) = (false, Vec::new());
    world.protect(0, "vault", &Secret::key([2; 32]), 2);
    for _ in 0..1_000 {
        world.derive_all(1, &Secret::key([1; 32]));
        while let Some(event) = world.events[1].pop_front() {
            reached |= matches!(event, Event::Reconnect(ReconnectEvent::Restored { .. }));
            told.push(event);
        }
        if reached {
            break;
        }
        world.pass(Duration::from_millis(50));
    }
    let wrong = |event: &Event| match event {
        Event::ChannelClosed { channel, why } => {
            *channel == name("vault") && *why == Failure::Refused(Refusal::PasswordWrong)
        }
        _ => false,
    };
    assert!(told.iter().any(wrong), "{told:?}");
    world.say(1, "other", "up", b"here");
}

#[test]
fn s35_a_provider_whose_place_was_taken_is_told() {
    let mut world = world(&["first", "second", "owner"]);
    for client in [2, 0, 1] {
        world.open(client, "math");
    }
    world.provide(0, 5, "math", "sum");
    world.hold_dials = true;
    world.cut(0);
    world.provide(1, 6, "math", "sum");
    world.release_dials();
    let told = world.restored(0);
    let refused = Failure::Refused(Refusal::ProviderExists);
    let is_it = |event: &Event| match event {
        Event::Reconnect(ReconnectEvent::Unrestored { what: Unrestored::Provider { token, .. }, why }) => {
            *token == Token(5) && *why == refused
        }
        _ => false,
    };
    assert!(told.iter().any(is_it), "{told:?}");
}

#[test]
fn s70_tries_are_limited_and_a_first_connection_is_not_tried_again_unless_asked() {
    let few = |initial| {
        let mut reconnect = Reconnect::default();
        (reconnect.tries, reconnect.initial) = (3, initial);
        let mut world = World::with(hub(Limits::default()), vec![lasting("a", reconnect)]);
        world.hold_dials = true;
        world.command(0, Command::Connect);
        for _ in 0..10 {
            world.refuse_dials();
            world.pass(Duration::from_secs(61));
        }
        let tries = world.events[0]
            .iter()
            .filter(|event| matches!(event, Event::Reconnect(ReconnectEvent::Lost { .. })))
            .count();
        assert!(matches!(world.events[0].back(), Some(Event::Closed(CloseReason::Unreachable(_)))));
        tries
    };
    assert_eq!((few(false), few(true)), (0, 3));
}

#[test]
fn s70_d18_five_refusals_in_a_row_that_nobody_has_proved_are_believed() {
    let mut world = world(&["a"]);
    let mut other = commipc_protocol::hub::HubConfig {
        id: None,
        credentials: support::credentials(&Secret::key([8; 32])),
        limits: Limits::default(),
        owner_policy: commipc_protocol::OwnerPolicy::default(),
    };
    other.limits.free_failures = 100;
    world.replace_hub(commipc_protocol::hub::Hub::new(other, &commipc_protocol::Seed::new([4; 32])));
    for _ in 0..100 {
        world.pass(Duration::from_secs(5));
    }
    let lost =
        world.events[0].iter().filter(|event| matches!(event, Event::Reconnect(ReconnectEvent::Lost { .. }))).count();
    assert_eq!(lost, 5, "the first for the hub that went, then four refusals");
    let last = world.events[0].back();
    assert!(matches!(last, Some(Event::Closed(CloseReason::Refused(Refusal::AuthFailed)))), "{last:?}");
}

#[test]
fn s73_what_is_said_while_away_fails_or_waits_as_wanted() {
    let mut world = world(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    world.hold_dials = true;
    world.cut(1);
    expect_lost(&mut world, 1);
    world.call(1, 1, "math", "sum", b"");
    let never_sent = |why| CallFailure::Failed { failure: Failure::Local(why), maybe_executed: false };
    assert_eq!(world.expect_answered(1).1, Err(never_sent(Misuse::NotConnected)));
    let waits = |payload| commipc_protocol::client::Outgoing { away: Away::Wait, ..outgoing("math", "sum", payload) };
    let call = |token, payload, seconds| Command::Call {
        token: Token(token),
        outgoing: waits(payload),
        time_left: Duration::from_secs(seconds),
    };
    world.command(1, call(2, b"first", 30));
    world.command(1, call(3, b"short", 1));
    world.command(1, call(4, b"given up", 30));
    world.command(1, Command::Send { token: Token(5), outgoing: waits(b"second") });
    world.command(1, Command::Cancel { call: Token(4) });
    assert_eq!(world.expect_answered(1), (Token(4), Err(never_sent(Misuse::Cancelled))));
    assert_eq!(world.clients[1].load().parked, 3);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.expect_answered(1), (Token(3), Err(never_sent(Misuse::Deadline))));
    world.release_dials();
    world.restored(1);
    let request = world.expect_request(0);
    assert_eq!(request.message.payload, payload(b"first"));
    assert!(matches!(world.next(0), Event::Message(message) if message.message.payload == payload(b"second")));
    world.command(0, Command::Answer { request: request.id, result: Ok(payload(b"3")) });
    assert!(world.events[1].iter().any(|event| matches!(event, Event::Answered { token: Token(2), result: Ok(_) })));
    assert_eq!(world.clients[1].load().parked, 0);
}

#[test]
fn so_many_messages_wait_and_no_more() {
    let mut limits = Limits::default();
    limits.parked = 2;
    let mut world = World::with(hub(Limits::default()), vec![support::lasting_with("a", Reconnect::default(), limits)]);
    world.connect_all();
    world.hold_dials = true;
    world.cut(0);
    expect_lost(&mut world, 0);
    for token in 1..=3 {
        let outgoing = commipc_protocol::client::Outgoing { away: Away::Wait, ..outgoing("math", "sum", b"") };
        world.command(0, Command::Send { token: Token(token), outgoing });
    }
    let busy = Failure::Local(Misuse::Busy);
    assert!(matches!(world.next(0), Event::Sent { token: Token(3), result: Err(why) } if why == busy));
    assert_eq!(world.clients[0].load().parked, 2);
}

#[test]
fn a_call_that_may_be_repeated_is_made_again_and_no_other_is() {
    let mut world = world(&["provider", "caller"]);
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    let call = |token, idempotent| {
        let outgoing =
            commipc_protocol::client::Outgoing { away: Away::Repeat, idempotent, ..outgoing("math", "sum", b"again") };
        Command::Call { token: Token(token), outgoing, time_left: Duration::from_secs(30) }
    };
    world.command(1, call(1, true));
    world.command(1, call(2, false));
    let first = world.expect_request(0).id;
    world.expect_request(0);
    world.cut(1);
    world.events[0].clear();
    let failure = Failure::Local(Misuse::Disconnected);
    assert_eq!(world.expect_answered(1), (Token(2), Err(CallFailure::Failed { failure, maybe_executed: true })));
    world.restored(1);
    let again = world.expect_request(0).id;
    assert_ne!(first, again);
    assert!(world.events[0].is_empty());
    world.command(0, Command::Answer { request: again, result: Ok(payload(b"3")) });
    assert!(matches!(world.expect_answered(1), (Token(1), Ok(_))));
}

#[test]
fn what_is_opened_provided_heard_and_left_while_away_is_so_afterwards() {
    let mut world = world(&["a", "b"]);
    world.open(0, "left");
    world.open(0, "kept");
    world.provide(0, 5, "kept", "old");
    world.listen(0, 6, "kept", Some("gone"));
    world.hold_dials = true;
    world.cut(0);
    expect_lost(&mut world, 0);
    let event = |event| EventName::new(event).unwrap();
    let kind = commipc_protocol::client::EventKind::Call;
    world.command(0, Command::Leave { token: Token(10), channel: name("left") });
    world.expect_done(0, 10);
    world.command(0, Command::Unlisten { token: Token(11), listener: Token(6) });
    world.expect_done(0, 11);
    world.command(0, Command::Provide { token: Token(12), channel: name("kept"), event: event("new"), kind });
    let access = commipc_protocol::client::Access::default();
    world.command(0, Command::Open { token: Token(13), channel: name("opened"), access });
    world.command(0, Command::Open { token: Token(14), channel: name("kept"), access });
    assert!(world.events[0].is_empty(), "the others wait for the hub");
    world.release_dials();
    let told = world.restored(0);
    for token in [12, 13, 14] {
        let done = |event: &&Event| matches!(event, Event::Done { token: of, result: Ok(()) } if *of == Token(token));
        assert_eq!(told.iter().chain(&world.events[0]).filter(done).count(), 1, "{token}");
    }
    assert_eq!(world.hub.load().channels, 2);
    world.events[0].clear();
    for (token, event) in [(1, "old"), (2, "new")] {
        world.call(1, token, "kept", event, b"");
        world.expect_request(0);
    }
    world.say(1, "kept", "gone", b"");
    assert!(world.events[0].is_empty());
}

#[test]
fn s68_s69_silence_is_asked_and_then_given_up_by_both_sides() {
    let mut limits = Limits::default();
    (limits.heartbeat, limits.idle) = (Duration::from_secs(30), Duration::from_secs(60));
    let mut world = World::with(hub(limits.clone()), vec![support::lasting_with("a", Reconnect::default(), limits)]);
    world.connect_all();
    world.open(0, "ch");
    let said = |world: &World| world.wire.values().map(|(up, down)| (up.len(), down.len())).collect::<Vec<_>>();
    let before = said(&world);
    world.pass(Duration::from_secs(29));
    assert_eq!(said(&world), before);
    for _ in 0..100 {
        world.pass(Duration::from_secs(31));
    }
    assert!(said(&world) != before && world.is_linked(0) && world.events[0].is_empty(), "asked, answered, and alive");
    // The hub's words no longer arrive: the client finds out, and the hub when nothing comes any more.
    world.deceived = Some(0);
    for _ in 0..60 {
        world.pass(Duration::from_secs(1));
    }
    world.deceived = None;
    assert_eq!(expect_lost(&mut world, 0).0, CloseReason::Silent);
    world.restored(0);
    world.mute = Some(0);
    for _ in 0..61 {
        world.pass(Duration::from_secs(1));
    }
    let idle = commipc_protocol::hub::DisconnectReason::Refused(Refusal::Idle);
    let ended = |event: &commipc_protocol::hub::Event| match event {
        commipc_protocol::hub::Event::Disconnected { why, .. } => *why == idle,
        _ => false,
    };
    assert!(world.hub_events.iter().any(ended));
}

#[test]
fn d8_a_connection_that_failed_is_none() {
    let mut world = World::with(hub(Limits::default()), vec![support::client("a", Secret::key([9; 32]))]);
    world.command(0, Command::Connect);
    assert!(matches!(world.next(0), Event::Closed(CloseReason::Refused(Refusal::AuthFailed))));
    for _ in 0..3 {
        world.command(0, Command::Connect);
        assert!(matches!(world.next(0), Event::Closed(CloseReason::Refused(Refusal::AuthFailed))));
        let access = commipc_protocol::client::Access::default();
        world.command(0, Command::Open { token: Token(1), channel: name("ch"), access });
        let not_connected = Failure::Local(Misuse::NotConnected);
        assert!(matches!(world.next(0), Event::Done { result: Err(failure), .. } if failure == not_connected));
    }
}

#[test]
fn closing_while_away_ends_everything_once() {
    let mut world = world(&["a"]);
    world.open(0, "ch");
    world.hold_dials = true;
    world.cut(0);
    expect_lost(&mut world, 0);
    let outgoing = commipc_protocol::client::Outgoing { away: Away::Wait, ..outgoing("ch", "ev", b"") };
    world.command(0, Command::Call { token: Token(2), outgoing, time_left: Duration::from_secs(30) });
    let access = commipc_protocol::client::Access::default();
    world.command(0, Command::Open { token: Token(3), channel: name("ch"), access });
    world.command(0, Command::Close);
    let never_sent = CallFailure::Failed { failure: Failure::Local(Misuse::Closed), maybe_executed: false };
    assert_eq!(world.expect_answered(0), (Token(2), Err(never_sent)));
    let closed = Failure::Local(Misuse::Closed);
    assert!(matches!(world.next(0), Event::Done { token: Token(3), result: Err(why) } if why == closed));
    assert!(matches!(world.next(0), Event::Closed(CloseReason::Local)));
    world.release_dials();
    world.pass(Duration::from_secs(100));
    assert!(world.events[0].is_empty());
    assert_eq!((world.clients[0].load().parked, world.clients[0].load().controls), (0, 0));
}

/// A provider that is replaced, or given up, before the hub has heard of it.
#[test]
fn what_is_provided_while_away_has_its_end_also_if_it_is_replaced_or_withdrawn() {
    let mut world = world(&["provider"]);
    world.open(0, "math");
    world.hold_dials = true;
    world.cut(0);
    expect_lost(&mut world, 0);
    let provide = |token, event| Command::Provide {
        token: Token(token),
        channel: name("math"),
        event: EventName::new(event).unwrap(),
        kind: commipc_protocol::client::EventKind::Call,
    };
    for (token, event) in [(5, "sum"), (6, "sum"), (7, "product"), (8, "product")] {
        world.command(0, provide(token, event));
    }
    world.command(0, Command::Withdraw { token: Token(9), provider: Token(8) });
    world.command(0, Command::Listen { token: Token(10), channel: name("math"), event: None });
    world.command(0, Command::Unlisten { token: Token(11), listener: Token(10) });
    world.release_dials();
    let told = world.restored(0);
    let ended = |token| {
        let ends = |event: &&Event| matches!(event, Event::Done { token: Token(of), .. } if *of == token);
        assert_eq!(told.iter().filter(ends).count(), 1, "{token}: {told:?}");
        told.iter().find_map(|event| match event {
            Event::Done { token: Token(of), result } if *of == token => Some(*result),
            _ => None,
        })
    };
    let cancelled = Err(Failure::Local(Misuse::Cancelled));
    assert_eq!([5, 6].map(ended), [Some(Ok(())); 2], "as the hub says");
    assert_eq!([7, 8, 10].map(ended), [Some(cancelled); 3], "nobody asked for it in the end");
    assert_eq!([9, 11].map(ended), [Some(Ok(())); 2]);
}

#[test]
fn what_is_asked_while_the_first_connection_is_made_is_done_when_it_stands() {
    let mut world = World::with(hub(Limits::default()), vec![lasting("early", Reconnect::default())]);
    world.hold_dials = true;
    world.command(0, Command::Connect);
    world.command(0, Command::Open { token: Token(1), channel: name("math"), access: Access::default() });
    world.command(0, Command::Listen { token: Token(2), channel: name("math"), event: None });
    world.release_dials();
    for _ in 0..100 {
        world.pass(Duration::from_millis(50));
    }
    let done = |token| {
        let ends = |event: &&Event| matches!(event, Event::Done { token: Token(of), result: Ok(()) } if *of == token);
        world.events[0].iter().filter(ends).count()
    };
    assert_eq!([1, 2].map(done), [1, 1], "{:?}", world.events[0]);
    let told = |event: &Event| matches!(event, Event::Reconnect(_));
    assert!(!world.events[0].iter().any(told), "nothing was lost");
}

#[test]
fn d14_a_promoted_owner_brings_its_channel_back_to_a_hub_that_has_forgotten_it() {
    let mut world = world(&["owner", "member", "third"]);
    let secret = Secret::key([1; 32]);
    let access = Access { policy: Some(OwnerPolicy::Promote), ..Access::default() };
    world.command(0, Command::Open { token: Token(1), channel: name("vault"), access });
    world.expect_done(0, 1);
    world.protect(0, "vault", &secret, 1);
    world.join(1, "vault", &secret);
    world.join(2, "vault", &secret);
    world.listen(2, 6, "vault", Some("up"));
    world.command(0, Command::Close);
    assert_eq!(world.expect_owner(1).as_deref(), Some("member"));
    world.replace_hub(hub(Limits::default()));
    let mut back = [false; 2];
    for _ in 0..20_000 {
        world.pass(Duration::from_millis(5));
        for client in [1, 2] {
            world.derive_all(client, &secret);
            let restored = |event: &Event| matches!(event, Event::Reconnect(ReconnectEvent::Restored { .. }));
            back[client - 1] |= world.events[client].iter().any(restored);
        }
    }
    assert_eq!(back, [true; 2]);
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world.say(1, "vault", "up", b"signed");
    assert_eq!(world.expect_message(2), "signed");
    world.protect(1, "vault", &Secret::key([2; 32]), 2);
    assert_eq!(world.expect_closed(2, "vault"), Refusal::Rekeyed);
}

/// One that the hub remembers, and one that only its owner and its members do.
#[test]
fn d14_whoever_owns_a_channel_that_had_a_password_can_protect_it() {
    let secret = Secret::key([1; 32]);
    for forgets in [false, true] {
        let mut world = world(&["owner", "next"]);
        world.open(0, "vault");
        world.protect(0, "vault", &secret, 1);
        world.join(1, "vault", &secret);
        world.command(0, Command::Terminate { token: Token(3), channel: name("vault") });
        assert_eq!(world.expect_closed(1, "vault"), Refusal::Terminated);
        if forgets {
            world.replace_hub(hub(Limits::default()));
        }
        world.pass(Duration::from_secs(2));
        world.events.iter_mut().for_each(std::collections::VecDeque::clear);
        world.open(1, "vault");
        world.protect(1, "vault", &Secret::key([2; 32]), 2);
        // Whoever knows the earlier one does not take it for a step back.
        world.join(0, "vault", &Secret::key([2; 32]));
    }
}

/// Nothing was lost before: it is the first connection.
#[test]
fn what_is_opened_while_the_first_connection_is_made_is_opened_when_it_stands() {
    let clients = vec![lasting("early", Reconnect::default())];
    let mut world = World::with(hub(Limits::default()), clients);
    world.hold_dials = true;
    world.command(0, Command::Connect);
    let open = Command::Open { token: Token(1), channel: name("math"), access: Access::default() };
    world.command(0, open);
    world.command(0, Command::Listen { token: Token(2), channel: name("math"), event: None });
    assert!(world.events[0].is_empty());
    world.release_dials();
    assert!(matches!(world.next(0), Event::Ready(_)));
    world.expect_done(0, 1);
    world.expect_done(0, 2);
    assert!(world.events[0].is_empty(), "nothing has come back: {:?}", world.events[0]);
}
