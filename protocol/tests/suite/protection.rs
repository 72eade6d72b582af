//! Channels with a password: who gets in, what a rotation ends, and what a hub cannot do.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::{Kdf, Secret};
use commipc_protocol::client::{Access, CallFailure, ChannelSalt, Command, Dropped, Event, Failure, Token};
use commipc_protocol::hub::DisconnectReason;
use commipc_protocol::wire::{Control as _, FrameType, Hop, Join, JoinChallenge, Message, Open};
use commipc_protocol::{
    FaultCode, Input, Limits, Machine as _, Misuse, Output, Refusal, TimerReason, Transport, Violation, hub,
};
use support::{World, name, outgoing, payload};

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

/// An owner, a member and a stranger at a protected channel.
fn protected(names: &[&str]) -> World {
    protected_over(names, Transport::Memory)
}

fn protected_over(names: &[&str], transport: Transport) -> World {
    let mut world = World::new(names);
    world.transport = transport;
    world.connect_all();
    world.open(0, "ch");
    world.protect(0, "ch", &key(1), 1);
    world.join(1, "ch", &key(1));
    world
}

fn call(world: &mut World, from: usize, to: usize, body: &'static [u8]) -> Result<Vec<u8>, CallFailure> {
    world.call(from, 9, "ch", "ev", body);
    let request = world.expect_request(to);
    let echo = payload(request.message.payload.bytes.to_vec().leak());
    world.command(to, Command::Answer { request: request.id, result: Ok(echo) });
    world.expect_answered(from).1.map(|answer| answer.payload.bytes.to_vec())
}

#[test]
fn s26_s28_members_prove_the_password_and_talk() {
    for transport in [Transport::Memory, Transport::Tcp] {
        let mut world = protected_over(&["owner", "member"], transport);
        world.provide(0, 5, "ch", "ev");
        assert_eq!(call(&mut world, 1, 0, b"hello").unwrap(), b"hello");
        world.listen(0, 6, "ch", None);
        world.say(1, "ch", "news", b"one");
        assert_eq!(&world.expect_message(0)[..], b"one");
        world.command(1, Command::Send { token: Token(3), outgoing: outgoing("ch", "ev", b"two") });
        assert!(matches!(world.next(1), Event::Sent { result: Ok(()), .. }));
        assert_eq!(&world.expect_message(0)[..], b"two");
    }
}

#[test]
fn s28_passwords_of_people_work_too() {
    let mut world = World::ready(&["owner", "member"]);
    let password = Secret::password("correct horse");
    world.open(0, "ch");
    world.protect(0, "ch", &password, 7);
    world.try_to_join(1, 2, "ch", &Secret::password("wrong horse"));
    assert_eq!(world.expect_refused(1), Refusal::PasswordWrong);
    world.join(1, "ch", &password);
}

#[test]
fn s29_d11_a_password_for_an_open_channel_is_refused_and_leaves_no_trace() {
    let mut world = World::ready(&["a", "b"]);
    world.try_to_join(0, 2, "nowhere", &key(1));
    assert_eq!(world.expect_refused(0), Refusal::NotProtected);
    assert_eq!(world.hub.load().channels, 0, "it did not even come to be");
    world.open(1, "ch");
    world.try_to_join(0, 3, "ch", &key(1));
    assert_eq!(world.expect_refused(0), Refusal::NotProtected);
    let joined = world.hub_events.iter().filter(|event| matches!(event, hub::Event::Joined { .. })).count();
    assert_eq!(joined, 1);
    assert!(world.events[1].is_empty());
}

#[test]
fn s30_without_a_password_a_protected_channel_says_that_it_needs_one() {
    let mut world = protected(&["owner", "member", "stranger"]);
    world.command(2, Command::Open { token: Token(2), channel: name("ch"), access: Access::default() });
    assert_eq!(world.expect_refused(2), Refusal::PasswordRequired);
    world.try_to_join(2, 3, "ch", &Secret::password("x"));
    assert_eq!(world.expect_refused(2), Refusal::KdfUnsupported, "the kind of the secret fixes how it is derived");
    world.try_to_join(2, 4, "ch", &key(2));
    assert_eq!(world.expect_refused(2), Refusal::PasswordWrong);
    world.join(2, "ch", &key(1));
}

#[test]
fn s25_v5_v8_strangers_do_nothing_on_a_protected_channel() {
    let mut world = protected(&["owner", "member", "stranger"]);
    world.provide(0, 5, "ch", "ev");
    world.listen(0, 6, "ch", None);
    world.call(2, 9, "ch", "ev", b"");
    let failure = Failure::Refused(Refusal::PasswordRequired);
    assert_eq!(world.expect_answered(2).1, Err(CallFailure::Failed { failure, maybe_executed: false }));
    for command in [
        Command::Send { token: Token(2), outgoing: outgoing("ch", "ev", b"") },
        Command::Broadcast { token: Token(3), outgoing: outgoing("ch", "ev", b"") },
    ] {
        world.command(2, command);
        assert_eq!(world.expect_refused(2), Refusal::PasswordRequired);
    }
    world.command(2, Command::Listen { token: Token(4), channel: name("ch"), event: None });
    assert_eq!(world.expect_refused(2), Refusal::NotMember);
    assert!(world.events[0].is_empty());
}

#[test]
fn s26_v13_a_rotation_ends_every_membership_but_the_owners() {
    let mut world = protected(&["owner", "old", "new"]);
    world.provide(0, 5, "ch", "own");
    world.provide(1, 6, "ch", "theirs");
    world.call(0, 8, "ch", "theirs", b"");
    world.expect_request(1);
    world.call(1, 9, "ch", "own", b"");
    world.expect_request(0);
    world.try_to_protect(0, 2, "ch", &key(2), 2);
    let rekeyed = Failure::Refused(Refusal::Rekeyed);
    let ended = Err(CallFailure::Failed { failure: rekeyed, maybe_executed: true });
    assert_eq!(world.expect_answered(0).1, ended);
    assert!(matches!(world.next(0), Event::RequestEnded { .. }));
    world.expect_done(0, 2);
    assert!(matches!(world.next(1), Event::RequestEnded { .. }));
    assert_eq!(world.expect_answered(1).1, ended);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
    world.try_to_join(1, 3, "ch", &key(1));
    assert_eq!(world.expect_refused(1), Refusal::PasswordWrong);
    world.call(1, 10, "ch", "own", b"");
    assert!(format!("{:?}", world.expect_answered(1).1).contains("PasswordRequired"));
    world.join(2, "ch", &key(2));
    world.call(2, 11, "ch", "own", b"");
    world.expect_request(0);
    world.call(2, 12, "ch", "theirs", b"");
    assert!(format!("{:?}", world.expect_answered(2).1).contains("NoProvider"), "its providers are gone");
}

#[test]
fn v13_who_was_evicted_is_not_promoted() {
    let mut world = World::ready(&["owner", "old", "new"]);
    let access = Access { secret: None, policy: Some(commipc_protocol::OwnerPolicy::Promote), plain: false };
    world.command(0, Command::Open { token: Token(1), channel: name("ch"), access });
    world.expect_done(0, 1);
    world.open(1, "ch");
    world.protect(0, "ch", &key(1), 1);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
    world.join(2, "ch", &key(1));
    world.cut(0);
    assert_eq!(world.expect_owner(2).as_deref(), Some("new"));
    assert!(world.events[1].is_empty());
}

#[test]
fn d10_v39_a_password_is_taken_away_explicitly_and_nobody_is_bricked() {
    let mut world = protected(&["owner", "member"]);
    world.command(1, Command::Unprotect { token: Token(2), channel: name("ch") });
    assert_eq!(world.expect_refused(1), Refusal::NotOwner);
    world.command(0, Command::Unprotect { token: Token(3), channel: name("ch") });
    world.expect_done(0, 3);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
    world.try_to_join(1, 4, "ch", &key(1));
    assert_eq!(world.expect_refused(1), Refusal::NotProtected);
    world.open(1, "ch");
    world.provide(0, 5, "ch", "ev");
    assert_eq!(call(&mut world, 1, 0, b"open").unwrap(), b"open");
    // Secrets need be no text.
    let bytes = Secret::password([0xff, 0, 0xfe]);
    world.protect(0, "ch", &bytes, 9);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
    world.join(1, "ch", &bytes);
}

#[test]
fn s23_s34_v12_the_password_stays_when_the_members_go_for_a_day() {
    let mut world = protected(&["owner", "member", "late"]);
    world.cut(0);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated);
    world.pass(Duration::from_secs(23 * 3_600));
    world.command(2, Command::Open { token: Token(2), channel: name("ch"), access: Access::default() });
    assert_eq!(world.expect_refused(2), Refusal::PasswordRequired, "nobody can take the name");
    world.join(2, "ch", &key(1));
    world.try_to_protect(2, 3, "ch", &key(9), 9);
    assert_eq!(world.expect_refused(2), Refusal::NotOwner);
    world.cut(2);
    world.pass(Duration::from_secs(23 * 3_600));
    assert_eq!(world.hub.load().channels, 1, "counted from when the last one left");
    world.pass(Duration::from_secs(3_600));
    assert_eq!(world.hub.load().channels, 0);
    let next = world.hub.poll_timeout().map(|deadline| deadline.reason);
    assert_ne!(next, Some(TimerReason::Ownership));
}

#[test]
fn v11_an_owner_that_comes_back_proves_itself() {
    let mut world = protected(&["owner", "member"]);
    world.cut(0);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated);
    world.join(1, "ch", &key(1));
    world.events[0].clear();
    world.command(0, Command::Connect);
    world.next(0);
    world.join(0, "ch", &key(1));
    world.command(0, Command::Reclaim { token: Token(2), channel: name("ch") });
    assert_eq!(world.expect_owner(0).as_deref(), Some("owner"));
    world.expect_done(0, 2);
    assert_eq!(world.expect_owner(1).as_deref(), Some("owner"));
    world.command(1, Command::Reclaim { token: Token(3), channel: name("ch") });
    assert_eq!(world.expect_refused(1), Refusal::NotOwner);
}

#[test]
fn v20_guesses_of_a_channels_password_wait() {
    let mut world = protected(&["owner", "member", "guesser"]);
    let free = u64::from(Limits::default().free_failures);
    for guess in 0..free {
        world.try_to_join(2, guess, "ch", &key(100));
        assert_eq!(world.expect_refused(2), Refusal::PasswordWrong);
    }
    world.try_to_join(2, 50, "ch", &key(101));
    assert!(world.events[2].is_empty(), "no answer yet");
    // Nor is another guess of the same password taken, on the same link, before that.
    let mut open = bytes::BytesMut::new();
    Open { id: 1 << 20, channel: name("ch").as_name(), owner: None, record: None, policy: None, guarded: None }
        .encode(&mut open);
    assert_eq!(world.answer_to(2, FrameType::Open, &open), Refusal::Overloaded.code());
    world.pass(Duration::from_millis(999));
    assert!(world.events[2].is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.expect_refused(2), Refusal::PasswordWrong);
    // Who comes again on another link has guessed as often, and waits twice as long for each further one.
    world.cut(2);
    world.connect_again(2);
    world.try_to_join(2, 51, "ch", &key(102));
    world.pass(Duration::from_millis(1_999));
    assert!(world.events[2].is_empty(), "no answer yet");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.expect_refused(2), Refusal::PasswordWrong);
    // Of another channel's password it has not guessed yet.
    world.open(0, "other");
    world.protect(0, "other", &key(1), 1);
    world.try_to_join(2, 52, "other", &key(102));
    assert_eq!(world.expect_refused(2), Refusal::PasswordWrong);
    world.join(2, "ch", &key(1));
}

#[test]
fn v18_v19_d3_s27_the_hub_never_hears_the_password_or_the_key_that_signs() {
    let secret = Secret::key([0x5a; 32]);
    for transport in [Transport::Memory, Transport::Tcp] {
        let mut world = World::new(&["owner", "member"]);
        world.transport = transport;
        world.connect_all();
        world.open(0, "ch");
        world.protect(0, "ch", &secret, 3);
        world.join(1, "ch", &secret);
        world.listen(1, 4, "ch", None);
        world.say(0, "ch", "news", b"x");
        let salt = commipc_protocol::client::ChannelSalt { kdf: Kdf::Key, salt: [3; 16], iterations: 0 };
        let keys = support::master(&secret, salt).keys("ch", &[3; 16], 1);
        let verifier = keys.join().verifier();
        let seen: Vec<&[u8]> = world.wire.values().flat_map(|(to, from)| [&to[..], &from[..]]).collect();
        let holds = |needle: &[u8]| seen.iter().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle));
        assert!(!holds(&[0x5a; 32]), "the secret");
        // All that a machine can know comes from its inputs and its seed: what neither holds is not in its state.
        let (master, _) = hkdf::Hkdf::<sha2::Sha256>::extract(Some(&[3; 16]), &[0x5a; 32]);
        let channel = hkdf::Hkdf::<sha2::Sha256>::new(Some(b"commipc/1 channel"), &master);
        let mut end_to_end = [0; 32];
        let context = [&b"e2e\0"[..], &[0, 0, 0, 2], b"ch", &[3; 16], &1_u64.to_be_bytes()];
        channel.expand_multi_info(&context, &mut end_to_end).unwrap();
        assert!(!holds(&master) && !holds(&end_to_end), "what is made of it");
        assert_eq!(holds(verifier.server_key()), transport == Transport::Memory, "masked on the network");
        assert_eq!(holds(verifier.stored_key()), transport == Transport::Memory);
    }
}

fn dropped(events: &[Event]) -> Option<Dropped> {
    match events {
        [Event::Dropped(why)] => Some(*why),
        _ => None,
    }
}

#[test]
fn v1_v3_a_hub_can_change_no_bit_of_a_message() {
    let mut world = protected(&["owner", "member"]);
    world.listen(1, 4, "ch", None);
    world.say(0, "ch", "news", b"genuine");
    world.expect_message(1);
    // A copy that the hub has kept back, so that it is new to the member: another epoch of the same would do as well.
    let body = world.last_heard(1, FrameType::Broadcast);
    let (_, message) = Hop::split(&body).unwrap();
    let head = body.len() - message.len();
    let mut refused = 0;
    for bit in 8 * head..8 * body.len() {
        let mut changed = body.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let (_, message) = Hop::split(&changed).unwrap();
        // What is no message any more ends the link, which proves nothing about signatures.
        if Message::parse(message).is_ok() {
            let events = world.show(1, FrameType::Broadcast, &changed);
            assert!(matches!(dropped(&events), Some(why) if why != Dropped::Replayed), "bit {bit}: {events:?}");
            refused += 1;
        }
    }
    assert!(refused > 500, "{refused}");
    assert_eq!(dropped(&world.show(1, FrameType::Broadcast, &body)), Some(Dropped::Replayed));
}

#[test]
fn v2_a_message_is_accepted_once() {
    let mut world = protected(&["owner", "member"]);
    world.provide(1, 5, "ch", "ev");
    world.listen(1, 4, "ch", None);
    world.say(0, "ch", "news", b"x");
    world.expect_message(1);
    world.command(0, Command::Send { token: Token(3), outgoing: outgoing("ch", "ev", b"y") });
    world.next(0);
    world.expect_message(1);
    world.call(0, 9, "ch", "ev", b"z");
    let request = world.expect_request(1);
    for kind in [FrameType::Broadcast, FrameType::Send] {
        let body = world.last_heard(1, kind);
        assert_eq!(dropped(&world.show(1, kind, &body)), Some(Dropped::Replayed), "{kind:?}");
    }
    // A call again, under a route of its own.
    let mut body = world.last_heard(1, FrameType::Call);
    body[..4].copy_from_slice(&0x8000_0777_u32.to_be_bytes());
    assert_eq!(dropped(&world.show(1, FrameType::Call, &body)), Some(Dropped::Replayed));
    // The answer of one call is none for another.
    world.command(1, Command::Answer { request: request.id, result: Ok(payload(b"1")) });
    assert!(world.expect_answered(0).1.is_ok());
    let answer = world.last_heard(0, FrameType::Answer);
    world.call(0, 10, "ch", "ev", b"again");
    let next = u32::from_be_bytes(answer[..4].try_into().unwrap()) + (1 << 20);
    let swapped = [&next.to_be_bytes()[..], &answer[4..]].concat();
    assert!(matches!(dropped(&world.show(0, FrameType::Answer, &swapped)), Some(Dropped::Mismatch)));
}

#[test]
fn v1_a_stripped_message_and_one_of_a_strangers_making_are_refused() {
    let mut world = protected(&["owner", "member", "stranger"]);
    world.listen(1, 4, "ch", None);
    world.open(2, "other");
    world.open(1, "other");
    world.listen(1, 5, "other", None);
    world.say(2, "other", "news", b"unsigned");
    world.expect_message(1);
    // The same message, but said to be of the protected channel.
    let body = world.last_heard(1, FrameType::Broadcast);
    let at = body.windows(6).position(|window| window == b"\x65other").unwrap();
    let mut forged = body.clone();
    forged.splice(at..at + 6, *b"\x62ch");
    // The protected header's length stands before it.
    let head = body.len() - Hop::split(&body).unwrap().1.len();
    assert_eq!(forged[head + 1], 0x58);
    forged[head + 2] -= 3;
    assert!(Message::parse(Hop::split(&forged).unwrap().1).is_ok());
    assert_eq!(dropped(&world.show(1, FrameType::Broadcast, &forged)), Some(Dropped::WrongEpoch));
}

#[test]
fn v4_answers_are_signed_and_a_hubs_word_is_no_proof_that_nothing_happened() {
    let mut world = protected(&["owner", "member"]);
    world.provide(0, 5, "ch", "ev");
    world.call(1, 9, "ch", "ev", b"");
    let request = world.expect_request(0);
    world.command(0, Command::Answer { request: request.id, result: Ok(payload(b"yes")) });
    assert!(world.expect_answered(1).1.is_ok());
    let answer = world.last_heard(1, FrameType::Answer);
    let message = Message::parse(Hop::split(&answer).unwrap().1).unwrap();
    assert_eq!((message.tag.len(), message.header.reference.len()), (32, 32));
    world.call(1, 10, "ch", "nothing", b"");
    let failure = Failure::Refused(Refusal::NoProvider);
    assert_eq!(world.expect_answered(1).1, Err(CallFailure::Failed { failure, maybe_executed: true }));
    world.call(1, 11, "ch", "ev", b"");
    let request = world.expect_request(0);
    let fault = FaultCode::HandlerFailed.into();
    world.command(0, Command::Answer { request: request.id, result: Err(fault) });
    assert!(matches!(world.expect_answered(1).1, Err(CallFailure::Fault(_))));
}

#[test]
fn a_call_from_another_time_is_answered_with_the_receivers_time() {
    let mut world = protected(&["owner", "member"]);
    world.provide(0, 5, "ch", "ev");
    world.command(
        1,
        Command::Call { token: Token(9), outgoing: outgoing("ch", "ev", b""), time_left: Duration::from_secs(1_000) },
    );
    world.expect_request(0);
    let call = world.last_heard(0, FrameType::Call);
    assert!(!call.is_empty());
    // A member whose clock is ten minutes ahead.
    world.now.wall.0 += 600_000;
    world.clients[1].handle_input(world.now, Input::Timeout);
    let outgoing = outgoing("ch", "ev", b"");
    let command = Command::Call { token: Token(10), outgoing, time_left: Duration::from_secs(10) };
    world.clients[1].handle_input(world.now, Input::Command(command));
    world.now.wall.0 -= 600_000;
    world.run();
    match world.expect_answered(1).1 {
        Err(CallFailure::Fault(fault)) => {
            assert_eq!(fault.code, FaultCode::Stale.code());
            assert_eq!(fault.details[..2], [0x1b, 0], "an unsigned integer of 8 bytes: {:?}", fault.details);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(world.next(0), Event::Dropped(Dropped::Stale)));
}

#[test]
fn what_a_hub_hides_shows_with_the_next_broadcast_or_beacon() {
    let mut world = protected(&["owner", "member"]);
    world.listen(1, 4, "ch", Some("news"));
    world.say(0, "ch", "news", b"one");
    world.expect_message(1);
    world.deceived = Some(1);
    world.say(0, "ch", "news", b"two");
    world.say(0, "ch", "news", b"three");
    world.deceived = None;
    world.say(0, "ch", "news", b"four");
    let Event::Gap(gap) = world.next(1) else { panic!("no gap") };
    assert_eq!((gap.first, gap.last, &*gap.event, &*gap.sender.client), (2, 3, "news", "owner"));
    assert_eq!(&world.expect_message(1)[..], b"four");
    world.deceived = Some(1);
    world.say(0, "ch", "news", b"five");
    world.deceived = None;
    world.pass(Duration::from_secs(10));
    let Event::Gap(gap) = world.next(1) else { panic!("no gap") };
    assert_eq!((gap.first, gap.last), (5, 5), "told within ten seconds");
    for _ in 0..7 {
        world.pass(Duration::from_secs(10));
    }
    assert!(world.events[1].is_empty());
    let next = world.clients[0].poll_timeout().map(|deadline| deadline.reason);
    assert_ne!(next, Some(TimerReason::Beacon), "after a minute it is told no more");
}

/// Also where nothing has been said for so long that nobody tells any numbers.
#[test]
fn a6_a_hidden_broadcast_shows_within_ten_seconds_whenever_it_was_said() {
    for after in (0..=75).map(|seconds| Duration::from_secs(seconds) + Duration::from_millis(300)) {
        let mut world = protected(&["owner", "member"]);
        world.listen(1, 4, "ch", Some("news"));
        world.say(0, "ch", "news", b"heard");
        world.expect_message(1);
        world.pass(after);
        world.deceived = Some(1);
        world.say(0, "ch", "news", b"hidden");
        world.deceived = None;
        let said = world.now.mono;
        while world.events[1].is_empty() {
            world.pass(Duration::from_millis(500));
            assert!(world.now.mono <= said + Duration::from_secs(10), "said after {after:?} of silence");
        }
        let Event::Gap(gap) = world.next(1) else { panic!("no gap") };
        assert_eq!((gap.first, gap.last), (2, 2));
    }
}

/// Numbers begin with the first message that is heard.
#[test]
fn a6_what_a_hub_hides_of_a_sender_that_was_never_heard_stays_hidden() {
    let mut world = protected(&["owner", "member"]);
    world.listen(1, 4, "ch", Some("news"));
    world.deceived = Some(1);
    world.say(0, "ch", "news", b"hidden");
    world.deceived = None;
    world.pass(Duration::from_secs(30));
    world.say(0, "ch", "news", b"heard");
    assert_eq!(&world.expect_message(1)[..], b"heard");
    assert!(world.events[1].is_empty(), "{:?}", world.events[1]);
}

/// An older password, and another one in the place of the same.
#[test]
fn v28_a_rolled_back_protection_is_refused() {
    for (epoch, salt) in [(1, 1), (2, 9), (1, 9)] {
        let mut world = protected(&["owner", "member"]);
        world.protect(0, "ch", &key(2), 2);
        assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
        world.join(1, "ch", &key(2));
        world.command(1, Command::Leave { token: Token(3), channel: name("ch") });
        world.expect_done(1, 3);
        let access = Access { secret: Some(Kdf::Key), policy: None, plain: false };
        let open = Command::Open { token: Token(4), channel: name("ch"), access };
        world.clients[1].handle_input(world.now, Input::Command(open));
        // The hub's answer is another's.
        let Some(Output::Transmit { data, .. }) = world.clients[1].poll_output() else { panic!("nothing is asked") };
        let id = Open::parse(&data[5..]).unwrap().id;
        let mut body = bytes::BytesMut::new();
        let (salt, nonce) = (&[salt; 16], &[9; 32]);
        JoinChallenge { id, epoch, kdf: 2, salt, iterations: 0, nonce, home: None, boot: None }.encode(&mut body);
        let told = world.show(1, FrameType::JoinChallenge, &body);
        let [Event::Done { result: Err(Failure::Refused(refusal)), .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(*refusal, Refusal::RolledBack);
    }
}

/// A nonce that is none, or the other side's own, would make a proof that was seen before.
#[test]
fn v14_joins_with_nonces_that_are_not_fresh_end_the_link() {
    let mut world = World::ready(&["owner", "x", "y"]);
    world.open(0, "ch");
    world.protect(0, "ch", &key(1), 1);
    for (client, own) in [(1, false), (2, true)] {
        let access = Access { secret: Some(Kdf::Key), policy: None, plain: false };
        world.command(client, Command::Open { token: Token(4), channel: name("ch"), access });
        let heard = world.last_heard(client, FrameType::JoinChallenge);
        let challenge = JoinChallenge::parse(&heard).unwrap();
        let nonce = if own { *challenge.nonce } else { [0; 32] };
        let mut body = bytes::BytesMut::new();
        let (id, channel) = (challenge.id, name("ch"));
        Join { id, channel: channel.as_name(), epoch: 1, nonce: &nonce, proof: &[1; 32] }.encode(&mut body);
        world.hub_events.clear();
        world.says(client, FrameType::Join, &body);
        let bad = |event: &hub::Event| {
            matches!(event, hub::Event::Disconnected { why: DisconnectReason::Violation(Violation::BadNonce), .. })
        };
        assert!(world.hub_events.iter().any(bad), "{:?}", world.hub_events);
        assert!(!world.is_linked(client));
    }
}

#[test]
fn a_credential_protects_so_many_channels() {
    let mut limits = Limits::default();
    limits.records = 2;
    let clients = ["a", "b"].map(|id| support::client(id, Secret::key(support::KEY))).into();
    let mut world = World::with(support::hub(limits), clients);
    world.connect_all();
    for channel in ["x", "y", "z"] {
        world.open(0, channel);
    }
    world.protect(0, "x", &key(1), 1);
    world.protect(0, "y", &key(1), 2);
    world.try_to_protect(0, 3, "z", &key(1), 3);
    assert_eq!(world.expect_refused(0), Refusal::TooManyRecords);
    world.protect(0, "y", &key(2), 4);
    world.command(0, Command::Unprotect { token: Token(4), channel: name("x") });
    world.expect_done(0, 4);
    world.protect(0, "z", &key(1), 5);
}

/// The owner is told that its time is over; the hub has done it, and says so later.
#[test]
fn s23_d10_what_an_owner_is_told_too_late_holds_all_the_same() {
    let mut world = World::ready(&["owner", "member"]);
    world.open(0, "ch");
    world.provide(0, 5, "ch", "ev");
    let asked_in_vain = |world: &mut World, token: u64, command: Command| {
        let mut now = world.now;
        world.clients[0].handle_input(now, Input::Command(command));
        now.mono = now.mono + Limits::default().registration;
        world.clients[0].handle_input(now, Input::Timeout);
        world.now = now;
        world.take_events(0);
        let late = Failure::Local(Misuse::Deadline);
        let told = world.next(0);
        assert!(matches!(told, Event::Done { token: got, result: Err(why) } if got == Token(token) && why == late));
        world.run();
        assert!(world.events[0].is_empty(), "it ends once");
    };
    let salt = ChannelSalt { kdf: Kdf::Key, salt: [1; 16], iterations: 0 };
    let master = support::master(&key(1), salt);
    asked_in_vain(&mut world, 7, Command::Protect { token: Token(7), channel: name("ch"), salt, master });
    world.join(1, "ch", &key(1));
    assert_eq!(call(&mut world, 1, 0, b"signed").unwrap(), b"signed");
    assert_eq!(call(&mut world, 0, 0, b"its own").unwrap(), b"its own");
    asked_in_vain(&mut world, 8, Command::Unprotect { token: Token(8), channel: name("ch") });
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
    world.open(1, "ch");
    assert_eq!(call(&mut world, 1, 0, b"open").unwrap(), b"open");
    assert_eq!(call(&mut world, 0, 0, b"its own").unwrap(), b"its own");
    world.protect(0, "ch", &key(2), 2);
}
