//! Members of a protected channel, and a hub that does not keep to the rules.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use core::time::Duration;

use commipc_protocol::auth::{Kdf, MAX_ITERATIONS, MIN_ITERATIONS, Secret};
use commipc_protocol::client::{Access, CallFailure, ChannelSalt, Command, Event, Failure, Token};
use commipc_protocol::hub::{self, DisconnectReason};
use commipc_protocol::wire::{Channel, Control as _, Done, FrameType, JoinChallenge, Open};
use commipc_protocol::{Input, Machine as _, Misuse, Output, Refusal, Violation};
use support::{World, name, payload};

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

/// Everybody is a member of a channel that the first one has protected.
fn protected(names: &[&str]) -> World {
    let mut world = World::ready(names);
    world.open(0, "ch");
    world.protect(0, "ch", &key(1), 1);
    (1..names.len()).for_each(|member| world.join(member, "ch", &key(1)));
    world
}

#[test]
fn who_leaves_a_protected_channel_ends_its_exchanges_there() {
    let mut world = protected(&["owner", "member"]);
    world.provide(0, 5, "ch", "ev");
    world.call(1, 9, "ch", "ev", b"");
    world.expect_request(0);
    world.command(1, Command::Leave { token: Token(3), channel: name("ch") });
    let failure = Failure::Refused(Refusal::NotMember);
    assert_eq!(world.expect_answered(1).1, Err(CallFailure::Failed { failure, maybe_executed: true }));
    world.expect_done(1, 3);
    let Event::RequestEnded { why, .. } = world.next(0) else { panic!("the provider is not told") };
    assert_eq!(why, Failure::Local(Misuse::Cancelled));
    world.join(1, "ch", &key(1));
    world.call(1, 10, "ch", "ev", b"");
    let request = world.expect_request(0);
    world.command(0, Command::Leave { token: Token(4), channel: name("ch") });
    assert!(matches!(world.next(0), Event::RequestEnded { why, .. } if why == failure));
    let gone = Failure::Refused(Refusal::ProviderGone);
    let ended = Err(CallFailure::Failed { failure: gone, maybe_executed: true });
    assert_eq!(world.expect_answered(1).1, ended, "nobody waits for somebody who is gone");
    world.command(0, Command::Answer { request: request.id, result: Ok(payload(b"late")) });
    assert!(world.is_linked(0) && world.is_linked(1));
}

#[test]
fn a_call_that_its_hub_hands_to_others_as_well_may_have_been_executed() {
    let mut world = protected(&["provider", "caller", "other"]);
    world.provide(0, 5, "ch", "ev");
    world.call(1, 9, "ch", "ev", b"");
    world.expect_request(0);
    let call = world.last_said(1, FrameType::Call);
    let by_hub = [&0x8000_0777_u32.to_be_bytes()[..], &call[4..]].concat();
    assert!(world.show(2, FrameType::Call, &by_hub).is_empty());
    world.command(2, Command::Leave { token: Token(3), channel: name("ch") });
    let fault = world.last_said(2, FrameType::Fault);
    let routed = [&call[..4], &fault[4..]].concat();
    let told = world.show(1, FrameType::Fault, &routed);
    let [Event::Answered { result: Err(CallFailure::Failed { failure, maybe_executed }), .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(*failure, Failure::Refused(Refusal::NoProvider), "a member said so, but not the provider");
    assert!(maybe_executed);
}

#[test]
fn what_outlives_a_membership_is_not_said_without_a_signature() {
    let mut world = protected(&["owner", "member"]);
    world.provide(1, 5, "ch", "ev");
    world.call(0, 9, "ch", "ev", b"");
    let request = world.expect_request(1);
    // A hub that ends the membership and not the call.
    let mut body = bytes::BytesMut::new();
    let rekeyed = Refusal::Rekeyed.code();
    Channel { channel: name("ch").as_name(), code: rekeyed, epoch: Some(2), owner: None }.encode(&mut body);
    assert!(matches!(&world.show(1, FrameType::Channel, &body)[..], [Event::ChannelClosed { .. }]));
    world.command(1, Command::Answer { request: request.id, result: Ok(payload(b"late")) });
    assert!(world.is_linked(1), "it is no violation, since it is not said at all");
    assert!(world.events[0].is_empty());
}

#[test]
fn keys_that_come_after_the_membership_are_not_kept() {
    let mut world = World::ready(&["owner"]);
    world.open(0, "ch");
    let salt = ChannelSalt { kdf: Kdf::Key, salt: [1; 16], iterations: 0 };
    let master = support::master(&key(1), salt);
    for command in [
        Command::Protect { token: Token(2), channel: name("ch"), salt, master },
        Command::Leave { token: Token(3), channel: name("ch") },
    ] {
        world.clients[0].handle_input(world.now, Input::Command(command));
    }
    world.run();
    world.expect_done(0, 2);
    world.expect_done(0, 3);
    world.call(0, 9, "ch", "ev", b"");
    let failure = Failure::Refused(Refusal::NoProvider);
    let unsigned = Err(CallFailure::Failed { failure, maybe_executed: false });
    assert_eq!(world.expect_answered(0).1, unsigned);
}

#[test]
fn v14_an_opening_whose_hub_proves_nothing_ends_with_the_link() {
    let mut world = World::ready(&["owner", "member", "late"]);
    let access = Access { secret: Some(Kdf::Key), ..Access::default() };
    let mut ids = Vec::new();
    for token in [4, 5] {
        world.clients[2].handle_input(
            world.now,
            Input::Command(Command::Open { token: Token(token), channel: name("ch"), access }),
        );
    }
    while let Some(output) = world.clients[2].poll_output() {
        let Output::Transmit { data, .. } = output else { panic!("{output:?}") };
        ids.push(Open::parse(&data[5..]).unwrap().id);
    }
    let mut body = bytes::BytesMut::new();
    let salt = ChannelSalt { kdf: Kdf::Key, salt: [1; 16], iterations: 0 };
    JoinChallenge {
        id: ids[0],
        epoch: 1,
        kdf: 2,
        salt: &salt.salt,
        iterations: 0,
        nonce: &[9; 32],
        home: None,
        boot: None,
    }
    .encode(&mut body);
    assert!(matches!(&world.show(2, FrameType::JoinChallenge, &body)[..], [Event::DeriveChannelKey { .. }]));
    let master = support::master(&key(1), salt);
    let derived = Command::ChannelKeyDerived { channel: name("ch"), salt, master };
    world.clients[2].handle_input(world.now, Input::Command(derived));
    let mut body = bytes::BytesMut::new();
    Done { id: ids[0], code: 0, epoch: Some(1), owner: Some(false), last_epoch: None, owned_by: None, proof: None }
        .encode(&mut body);
    let told = world.show(2, FrameType::Done, &body);
    let [Event::Violation(violation), rest @ .., Event::Closed(_)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*violation, Violation::BadServerProof);
    let lost = Err(Failure::Local(Misuse::Disconnected));
    let ended = rest.iter().map(|event| match event {
        Event::Done { token, result } => (token.0, *result),
        other => panic!("{other:?}"),
    });
    assert_eq!(ended.collect::<Vec<_>>(), [(4, lost), (5, lost)], "everything that was asked for has its end");
}

/// A hub that does not know the password cannot make up the proof that it does, nor use its own for another epoch.
#[test]
fn v14_a_join_whose_hub_proves_something_else_ends_with_the_link() {
    type Lie = fn(&mut [u8; 32], &mut Option<u64>) -> bool;
    let lies: [Lie; 6] = [
        |_, _| true,
        |_, _| false,
        |proof, _| {
            *proof = [1; 32];
            true
        },
        |proof, _| {
            proof[31] ^= 1;
            true
        },
        |_, epoch| {
            *epoch = epoch.map(|epoch| epoch + 1);
            true
        },
        |_, epoch| {
            *epoch = None;
            true
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut world = World::ready(&["owner", "member"]);
        world.open(0, "ch");
        world.protect(0, "ch", &key(1), 1);
        world.try_to_join(1, 4, "ch", &key(1));
        world.events[1].clear();
        world.cut(1);
        world.connect_again(1);
        let access = Access { secret: Some(Kdf::Key), ..Access::default() };
        world.command(1, Command::Open { token: Token(5), channel: name("ch"), access });
        world.deceived = Some(1);
        world.derive(1, &key(1));
        let heard = world.last_heard(1, FrameType::Done);
        let mut done = Done::parse(&heard).unwrap();
        let mut proof = *done.proof.unwrap();
        done.proof = lie(&mut proof, &mut done.epoch).then_some(&proof);
        let mut body = bytes::BytesMut::new();
        done.encode(&mut body);
        let told = world.show(1, FrameType::Done, &body);
        if number == 0 {
            assert!(matches!(&told[..], [Event::Done { token: Token(5), result: Ok(()) }]), "the truth: {told:?}");
            continue;
        }
        let [Event::Violation(violation), rest @ .., Event::Closed(_)] = &told[..] else {
            panic!("{number}: {told:?}")
        };
        assert_eq!(*violation, Violation::BadServerProof, "{number}");
        assert!(matches!(rest, [Event::Done { token: Token(5), result: Err(_) }]), "{number}: {rest:?}");
    }
}

/// What a client that was asked for a channel's password like this is told; it must prove nothing.
fn asked_for(secret: Kdf, (kdf, iterations): (u64, u64)) -> Vec<Event> {
    let mut world = World::ready(&["member"]);
    world.deceived = Some(0);
    let access = Access { secret: Some(secret), ..Access::default() };
    world.command(0, Command::Open { token: Token(4), channel: name("ch"), access });
    let id = Open::parse(&world.last_said(0, FrameType::Open)).unwrap().id;
    let mut body = bytes::BytesMut::new();
    let (salt, nonce) = (&[1; 16], &[9; 32]);
    JoinChallenge { id, epoch: 1, kdf, salt, iterations, nonce, home: None, boot: None }.encode(&mut body);
    let told = world.show(0, FrameType::JoinChallenge, &body);
    world.run();
    let proved = world.last_said(0, FrameType::Join);
    assert_eq!(proved, [0; 0], "{secret:?} is proved when asked for kdf {kdf}, {iterations} rounds");
    told
}

/// A hub that takes part in a join could otherwise harvest a proof that is cheap to guess the password from.
#[test]
fn v18_v19_a_channels_password_is_proved_as_its_kind_is_derived_and_within_bounds_or_not_at_all() {
    let (least, most) = (u64::from(MIN_ITERATIONS), u64::from(MAX_ITERATIONS));
    assert_eq!((least, most), (100_000, 10_000_000));
    let cheap = [0, 1, least - 1, most + 1, u64::from(u32::MAX), (1 << 32) + least, u64::MAX].map(|rounds| (1, rounds));
    let none = [(0, 0), (0, least), (2, 1), (2, least), (3, 0), (3, 1), (3, least), (4, 0), (4, least)];
    for secret in [Kdf::Pbkdf2, Kdf::Key] {
        for asked in cheap.into_iter().chain(none) {
            let told = asked_for(secret, asked);
            let [Event::Violation(Violation::NotOffered), rest @ .., Event::Closed(_)] = &told[..] else {
                panic!("{secret:?}, asked for {asked:?}: {told:?}")
            };
            assert!(matches!(rest, [Event::Done { token: Token(4), result: Err(_) }]), "{asked:?}: {rest:?}");
        }
        // What would be in order for a secret of another kind.
        for kdf in [Kdf::Pbkdf2, Kdf::Key].into_iter().filter(|kdf| *kdf != secret) {
            let told = asked_for(secret, (kdf.id(), if kdf == Kdf::Pbkdf2 { least } else { 0 }));
            let refused = Err(Failure::Refused(Refusal::KdfUnsupported));
            let [Event::Done { token: Token(4), result }] = &told[..] else { panic!("{kdf:?}: {told:?}") };
            assert_eq!(*result, refused, "{kdf:?}");
        }
    }
    for rounds in [least, least + 1, most - 1, most] {
        let told = asked_for(Kdf::Pbkdf2, (1, rounds));
        let [Event::DeriveChannelKey { salt, .. }] = &told[..] else { panic!("{rounds}: {told:?}") };
        assert_eq!((salt.kdf, u64::from(salt.iterations)), (Kdf::Pbkdf2, rounds));
    }
}

/// Nothing of what the hub made up is remembered: not an epoch above those that the channel has, nor how to derive.
#[test]
fn v18_v19_a_downgraded_join_that_is_refused_leaves_no_trace() {
    for (was_member, kdf) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let mut world = World::ready(&["owner", "member"]);
        world.open(0, "ch");
        world.protect(0, "ch", &key(1), 1);
        world.listen(0, 6, "ch", None);
        if was_member {
            world.join(1, "ch", &key(1));
            world.command(1, Command::Leave { token: Token(2), channel: name("ch") });
            world.expect_done(1, 2);
        }
        let before = (world.clients[1].load(), world.hub.load());
        world.deceived = Some(1);
        let access = Access { secret: Some(Kdf::Key), ..Access::default() };
        world.command(1, Command::Open { token: Token(4), channel: name("ch"), access });
        let id = Open::parse(&world.last_said(1, FrameType::Open)).unwrap().id;
        let mut body = bytes::BytesMut::new();
        let iterations = if kdf == 1 { u64::from(MIN_ITERATIONS) } else { 0 };
        let (epoch, salt, nonce) = (9, &[9; 16], &[9; 32]);
        JoinChallenge { id, epoch, kdf, salt, iterations, nonce, home: None, boot: None }.encode(&mut body);
        let told = world.show(1, FrameType::JoinChallenge, &body);
        let asked = |event: &Event| matches!(event, Event::DeriveChannelKey { .. });
        assert!(!told.is_empty() && !told.iter().any(asked), "{told:?}");
        world.run();
        world.deceived = None;
        if world.is_linked(1) {
            assert_eq!(kdf, 1, "of a hub that is certain to lie nothing more is heard");
            assert_eq!(world.clients[1].load(), before.0);
        } else {
            world.connect_again(1);
        }
        // Whoever is asked honestly proves what it would have proved, and is understood.
        world.join(1, "ch", &key(1));
        world.say(1, "ch", "news", b"as ever");
        assert_eq!(world.expect_message(0), &b"as ever"[..]);
        world.command(1, Command::Leave { token: Token(5), channel: name("ch") });
        world.expect_done(1, 5);
        let (now, then) = (world.hub.load(), before.1);
        assert_eq!((now.clients, now.channels, now.joins), (then.clients, then.channels, then.joins));
    }
}

#[test]
fn what_is_no_message_is_one_neither_to_a_hub_nor_to_a_client() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../vectors/vectors.json")).unwrap();
    for case in vectors["envelope_refused"].as_array().unwrap() {
        let hex = case[1].as_str().unwrap();
        let digits = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        let message: Vec<u8> = digits.collect();
        for (kind, route) in (33_u8..=41).flat_map(|kind| [0_u32, 1, 0x8000_0001].map(|route| (kind, route))) {
            let body = [&route.to_be_bytes()[..], &[0, 0], &message].concat();
            let length = u32::try_from(body.len() + 1).unwrap();
            let mut world = World::ready(&["client"]);
            world.inject(0, &[&length.to_be_bytes()[..], &[kind], &body].concat());
            let bad = DisconnectReason::Violation(Violation::BadMessage);
            let ended =
                world.hub_events.iter().any(|it| matches!(it, hub::Event::Disconnected { why, .. } if *why == bad));
            assert!(ended, "a hub takes {} as frame {kind}: {:?}", case[0], world.hub_events.last());
            let mut world = World::ready(&["client"]);
            let told = world.show(0, FrameType::from_number(kind).unwrap(), &body);
            let bad = |event: &Event| matches!(event, Event::Violation(Violation::BadMessage));
            assert!(told.iter().any(bad), "a client takes {} as frame {kind}: {told:?}", case[0]);
        }
    }
}

#[test]
fn v13_what_an_ex_member_answers_is_no_answer() {
    let mut world = protected(&["owner", "provider", "caller"]);
    world.provide(1, 5, "ch", "ev");
    world.call(2, 9, "ch", "ev", b"");
    let request = world.expect_request(1);
    let route = world.last_said(2, FrameType::Call)[..4].to_vec();
    // Its answer is on its way when the password changes.
    let answer = Command::Answer { request: request.id, result: Ok(payload(b"mine")) };
    world.clients[1].handle_input(world.now, Input::Command(answer));
    let mut said = Vec::new();
    while let Some(output) = world.clients[1].poll_output() {
        if let Output::Transmit { data, .. } = output {
            said.extend_from_slice(&data);
        }
    }
    world.protect(0, "ch", &key(2), 2);
    let failure = Failure::Refused(Refusal::Rekeyed);
    assert_eq!(world.expect_answered(2).1, Err(CallFailure::Failed { failure, maybe_executed: true }));
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world.inject(1, &said);
    assert!(world.is_linked(1) && world.events[2].is_empty(), "the hub passes it to nobody");
    // A hub that does convinces nobody, whether the caller knows the new password or not.
    let frame = said.windows(5).position(|head| head[4] == FrameType::Answer.number()).unwrap();
    let body = [&route, &said[frame + 9..]].concat();
    for _ in 0..2 {
        let told = world.show(2, FrameType::Answer, &body);
        assert!(told.iter().all(|event| matches!(event, Event::Dropped(_))) && !told.is_empty(), "{told:?}");
        world.join(2, "ch", &key(2));
    }
}

/// The clock of a hub that runs ahead, or lies.
#[test]
fn s37_how_long_a_caller_waits_is_not_for_its_hub_to_say() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "ch");
    world.provide(0, 5, "ch", "ev");
    let late = |world: &mut World| {
        let call = world.last_said(1, FrameType::Call);
        let [high, low] = Refusal::Deadline.code().to_be_bytes();
        let body = [&call[..4], &[0xa1, 0, 0x19, high, low]].concat();
        world.show(1, FrameType::Fail, &body)
    };
    world.call(1, 9, "ch", "ev", b"");
    assert!(late(&mut world).is_empty(), "it waits as long as it said");
    let request = world.expect_request(0).id;
    world.command(0, Command::Answer { request, result: Ok(payload(b"in time")) });
    assert_eq!(&world.expect_answered(1).1.unwrap().payload.bytes[..], b"in time");

    world.call(1, 10, "ch", "ev", b"");
    assert!(late(&mut world).is_empty());
    world.pass(Duration::from_secs(31));
    let failure = Failure::Local(Misuse::Deadline);
    assert_eq!(world.expect_answered(1).1, Err(CallFailure::Failed { failure, maybe_executed: true }));
    assert_eq!(world.clients[1].load().calls, 0);
}
