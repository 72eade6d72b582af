//! A connection whose tries to come back are refused, and how it tells that it is back.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::{Capabilities, Credential, Credentials, IdPattern, Secret, Verifier};
use commipc_protocol::client::{
    Access, CallFailure, Command, Event, Failure, Reconnect, ReconnectEvent, Token, Unrestored,
};
use commipc_protocol::wire::{Control as _, FrameType, Open};
use commipc_protocol::{AfterGrace, CloseReason, CredentialId, Input, Limits, Misuse, OwnerPolicy, Refusal, hub};
use support::{World, lasting, name, payload};

/// Whatever refuses a try, and however often: the connection is away, says so, is tried again, and comes back with all that
/// hung on it. Meanwhile nothing hangs, and nobody believes that it stands.
#[test]
fn v29_a_refused_try_leaves_no_zombie() {
    let id_taken = |world: &mut World| {
        // Somebody else got the id while we were away.
        world.command(1, Command::Connect);
        assert!(matches!(world.next(1), Event::Ready(_)));
    };
    let id_free = |world: &mut World| world.command(1, Command::Close);
    let full = |world: &mut World| {
        let mut limits = Limits::default();
        limits.connections = 0;
        world.replace_hub(support::hub(limits));
    };
    let other_secret = |world: &mut World| {
        let mut config = commipc_protocol::hub::HubConfig {
            id: None,
            credentials: support::credentials(&Secret::key([8; 32])),
            limits: Limits::default(),
            owner_policy: commipc_protocol::OwnerPolicy::default(),
        };
        config.id = Some(commipc_protocol::HubId::new("hub-a").unwrap());
        world.replace_hub(commipc_protocol::hub::Hub::new(config, &commipc_protocol::Seed::new([4; 32])));
    };
    let fresh = |world: &mut World| world.replace_hub(support::hub(Limits::default()));
    let cases: [(&str, Turn<'_>, Turn<'_>, CloseReason); 3] = [
        ("its id is taken", &id_taken, &id_free, CloseReason::Refused(Refusal::IdInUse)),
        // A full hub has no room for words either.
        ("no room", &full, &fresh, CloseReason::Lost),
        ("another secret", &other_secret, &fresh, CloseReason::Refused(Refusal::AuthFailed)),
    ];
    for (case, refuse, relent, reason) in cases {
        let mut world = zombie();
        refuse(&mut world);
        world.events[0].clear();
        let mut refused = Vec::new();
        for _ in 0..100 {
            world.pass(Duration::from_millis(100));
            refused.extend(std::mem::take(&mut world.events[0]).iter().filter_map(lost_for));
            if !refused.is_empty() {
                break;
            }
        }
        assert_eq!(refused, [reason], "{case}");
        // A call fails at once, and does not wait for an answer that cannot come.
        world.call(0, 9, "math", "else", b"");
        let failure = world.expect_answered(0).1.unwrap_err();
        let away = CallFailure::Failed { failure: Failure::Local(Misuse::NotConnected), maybe_executed: false };
        assert_eq!(failure, away, "{case}");
        relent(&mut world);
        let told = world.restored(0);
        assert!(told.iter().any(|event| matches!(event, Event::Ready(_))), "{case}: {told:?}");
        world.pass(Duration::from_secs(60));
        world.events.iter_mut().for_each(std::collections::VecDeque::clear);
        world.call(2, 10, "math", "sum", b"");
        let request = world.expect_request(0).id;
        world.command(0, Command::Answer { request, result: Ok(payload(b"3")) });
        assert_eq!(world.expect_answered(2).1.unwrap().payload, payload(b"3"), "{case}");
    }
}

/// Something that happens in a world.
type Turn<'a> = &'a dyn Fn(&mut World);

/// A provider that has lost its connection, another that wants its id, and a caller.
fn zombie() -> World {
    let clients = vec![
        lasting("zombie", Reconnect::default()),
        support::stranger_to("zombie"),
        lasting("caller", Reconnect::default()),
    ];
    let mut world = World::with(support::hub(Limits::default()), clients);
    for client in [0, 2] {
        world.command(client, Command::Connect);
        assert!(matches!(world.next(client), Event::Ready(_)));
    }
    world.open(0, "math");
    world.provide(0, 5, "math", "sum");
    world.hold_dials = true;
    world.cut(0);
    world.refuse_dials();
    world.hold_dials = false;
    world
}

const fn lost_for(event: &Event) -> Option<CloseReason> {
    match event {
        Event::Reconnect(ReconnectEvent::Lost { reason, .. }) => Some(*reason),
        _ => None,
    }
}

#[test]
fn s71_how_far_restoring_is_is_told_channel_by_channel() {
    let mut world = lasting_world(&["member"]);
    ["a", "b", "c"].into_iter().for_each(|channel| world.open(0, channel));
    world.cut(0);
    assert!(matches!(world.next(0), Event::Reconnect(ReconnectEvent::Lost { .. })));
    let told = world.restored(0);
    assert!(matches!(told[0], Event::Ready(_)), "{told:?}");
    let steps: Vec<_> = told[1..]
        .iter()
        .map(|event| match event {
            Event::Reconnect(step) => step.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ReconnectEvent::Restoring { done: 0, of: 3 },
        ReconnectEvent::Restoring { done: 1, of: 3 },
        ReconnectEvent::Restoring { done: 2, of: 3 },
        ReconnectEvent::Restored { channels: 3 },
    ];
    assert_eq!(steps, expected);
}

/// Who came first to each channel comes back first, whatever it had been called before.
#[test]
fn s71_channels_come_back_in_the_order_in_which_they_were_opened() {
    let mut world = lasting_world(&["member"]);
    ["c", "a", "b", "d"].into_iter().for_each(|channel| world.open(0, channel));
    for again in ["a", "c"] {
        world.command(0, Command::Leave { token: Token(2), channel: support::name(again) });
        world.expect_done(0, 2);
        world.open(0, again);
    }
    // Once more is no other opening.
    world.open(0, "b");
    world.hub_events.clear();
    world.cut(0);
    world.restored(0);
    let joined = |event: &hub::Event| match event {
        hub::Event::Joined { channel, .. } => Some(channel.to_string()),
        _ => None,
    };
    assert_eq!(world.hub_events.iter().filter_map(joined).collect::<Vec<_>>(), ["b", "d", "a", "c"]);
}

/// It is asked for in its place, and what comes behind it does not wait until its password is proved.
#[test]
fn s71_a_channel_with_a_password_is_asked_for_in_its_place_and_keeps_no_other_waiting() {
    let mut world = lasting_world(&["member", "owner"]);
    let secret = Secret::key([1; 32]);
    world.open(1, "b");
    world.protect(1, "b", &secret, 1);
    world.open(0, "c");
    world.join(0, "b", &secret);
    world.open(0, "a");
    world.listen(0, 6, "b", None);
    let mut over = false;
    world.hub_events.clear();
    world.cut(0);
    let restored = |event: &Event| matches!(event, Event::Reconnect(ReconnectEvent::Restored { channels: 3 }));
    for _ in 0..100 {
        world.pass(Duration::from_millis(50));
        while !world.events[0].is_empty() {
            world.derive(0, &secret);
            over |= world.events[0].pop_front().is_some_and(|event| restored(&event));
        }
    }
    assert!(over);
    let opens = world.all_said(0, FrameType::Open);
    let opened = opens.iter().map(|body| Open::parse(body).unwrap().channel.as_str().to_owned());
    assert_eq!(opened.collect::<Vec<_>>(), ["c", "b", "a"]);
    let joined = |event: &hub::Event| match event {
        hub::Event::Joined { channel, .. } => Some(channel.to_string()),
        _ => None,
    };
    assert_eq!(world.hub_events.iter().filter_map(joined).collect::<Vec<_>>(), ["c", "a", "b"]);
    world.say(1, "b", "up", b"signed");
    assert_eq!(world.expect_message(0), "signed");
}

/// Tries in a row are counted, and one that stands is not one of them, unless it is lost at once.
#[test]
fn s70_a_connection_that_stood_may_be_tried_as_often_again_and_one_that_is_lost_at_once_may_not() {
    let mut few = Reconnect::default();
    few.tries = 3;
    for (stands, ends) in [(Duration::from_secs(2), false), (Duration::ZERO, true)] {
        let mut world = World::with(support::hub(Limits::default()), vec![support::lasting("member", few)]);
        world.connect_all();
        let (mut waits, mut over) = (Vec::new(), false);
        for _ in 0..12 {
            // As soon as it is proved, or after it has stood for a while.
            world.pass(stands);
            world.events[0].clear();
            world.cut(0);
            let lost = |event: &Event| match event {
                Event::Reconnect(ReconnectEvent::Lost { retry, .. }) => Some(*retry),
                _ => None,
            };
            waits.extend(world.events[0].iter().find_map(lost));
            over |= world.events[0].iter().any(|event| matches!(event, Event::Closed(_)));
            for _ in 0..100 {
                if world.is_linked(0) {
                    break;
                }
                world.pass(Duration::from_millis(100));
            }
        }
        let first = waits.iter().filter(|wait| wait.is_zero()).count();
        assert_eq!(
            (over, waits.len(), first),
            if ends { (true, 3, 1) } else { (false, 12, 12) },
            "{stands:?}: {waits:?}"
        );
    }
}

/// A hub that takes less than the one before says what it does not take, and that alone is told.
#[test]
fn s71_a_listener_that_the_next_hub_refuses_is_told_and_the_others_hear() {
    let mut world = lasting_world(&["member", "speaker"]);
    world.open(0, "news");
    world.listen(0, 6, "news", Some("down"));
    world.listen(0, 7, "news", Some("up"));
    let mut limits = Limits::default();
    limits.listeners = 1;
    world.replace_hub(support::hub(limits));
    let told = world.restored(0);
    let channel = support::name("news");
    let refused = ReconnectEvent::Unrestored {
        what: Unrestored::Listener { token: Token(7), channel },
        why: Failure::Refused(Refusal::TooManyListeners),
    };
    assert_eq!(steps(&told), [refused, ReconnectEvent::Restored { channels: 1 }]);
    world.restored(1);
    world.say(1, "news", "up", b"missed");
    world.say(1, "news", "down", b"heard");
    assert_eq!(world.expect_message(0), "heard");
    world.command(0, Command::Unlisten { token: Token(8), listener: Token(7) });
    let unknown = Failure::Local(Misuse::UnknownToken);
    assert!(matches!(world.next(0), Event::Done { token: Token(8), result: Err(why) } if why == unknown));
}

/// A hub that has forgotten who owned a channel without a password, and a member comes back first: it takes nothing, and the
/// owner is told that it owns nothing any more.
#[test]
fn s72_who_owns_no_more_what_the_hub_has_forgotten_is_told_so() {
    let mut world = lasting_world(&["member", "owner"]);
    world.open(1, "math");
    world.open(0, "math");
    world.replace_hub(support::hub(Limits::default()));
    let told = world.restored(1);
    let disowned = ReconnectEvent::Unrestored {
        what: Unrestored::Ownership(support::name("math")),
        why: Failure::Refused(Refusal::NotOwner),
    };
    assert_eq!(steps(&told), [disowned, ReconnectEvent::Restored { channels: 1 }]);
    assert_eq!(steps(&world.restored(0)), [ReconnectEvent::Restored { channels: 1 }]);
    for client in [0, 1] {
        world.events[client].clear();
        world.try_to_protect(client, 9, "math", &Secret::key([1; 32]), 1);
        assert_eq!(world.expect_refused(client), Refusal::NotOwner, "client {client}");
    }
    world.listen(0, 6, "math", None);
    world.say(1, "math", "up", b"still a member");
    assert_eq!(world.expect_message(0), "still a member");
}

/// What was told of the way back, after the connection stood and it had begun.
fn steps(told: &[Event]) -> Vec<ReconnectEvent> {
    let step = |event: &Event| match event {
        Event::Reconnect(ReconnectEvent::Lost { .. } | ReconnectEvent::Restoring { done: 0, .. }) => None,
        Event::Reconnect(step) => Some(step.clone()),
        _ => None,
    };
    told.iter().filter_map(step).collect()
}

/// A refusal of a hub that has proved itself is believed at once, where it will be the same the next time.
#[test]
fn s70_a_definite_refusal_of_a_proved_hub_ends_the_tries_with_its_reason() {
    let mut world = lasting_world(&["worker-1"]);
    let verifier = Verifier::new(&Secret::key(support::KEY), [3; 16], 100_000).unwrap();
    let only = Credential::new(verifier, Capabilities::NONE, vec![IdPattern::new("other-*").unwrap()]);
    let table = Credentials::new([9; 32]).with(CredentialId::shared(), only);
    world.feed_hub(Input::Command(hub::Command::SetCredentials(table)));
    world.events[0].clear();
    world.cut(0);
    for _ in 0..100 {
        world.pass(Duration::from_secs(1));
    }
    let told = std::mem::take(&mut world.events[0]);
    let refused = CloseReason::Refused(Refusal::IdNotAllowed);
    assert!(matches!(&told[0], Event::Reconnect(ReconnectEvent::Lost { reason: CloseReason::Lost, .. })), "{told:?}");
    assert!(matches!(&told[1], Event::Closed(reason) if *reason == refused), "{told:?}");
    assert_eq!(told.len(), 2);
}

/// Silence is no refusal.
#[test]
fn s71_what_comes_back_while_the_link_dies_comes_back_over_the_next_one() {
    let mut world = lasting_world(&["member", "owner"]);
    world.open(1, "math");
    world.open(0, "math");
    world.provide(1, 5, "math", "sum");
    world.listen(1, 6, "math", Some("news"));
    world.replace_hub(support::hub(Limits::default()));
    // From here on nothing that it says arrives: it has asked for its channel and not yet for what stood there.
    world.mute_on = Some((1, |event| matches!(event, Event::Reconnect(ReconnectEvent::Unrestored { .. }))));
    let mut told = Vec::new();
    for second in 0..180 {
        world.pass(Duration::from_secs(1));
        told.extend(world.events[1].drain(..));
        // Longer than a request to the hub may take.
        if second == 15 {
            assert!(world.mute_on.is_none() && world.mute == Some(1), "{told:?}");
        }
        if second == 100 {
            world.mute = None;
        }
    }
    let lost = |event: &&Event| {
        let what = matches!(event, Event::Reconnect(ReconnectEvent::Unrestored { what, .. })
            if !matches!(what, Unrestored::Ownership(_) | Unrestored::Channel(_)));
        what || matches!(event, Event::ChannelClosed { .. })
    };
    assert_eq!(told.iter().filter(lost).count(), 0, "{told:?}");
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world.call(0, 9, "math", "sum", b"");
    world.expect_request(1);
    world.say(0, "math", "news", b"heard");
    assert_eq!(world.expect_message(1), "heard");
}

/// A proof is good once.
#[test]
fn v13_what_an_owner_has_proved_is_not_proved_by_saying_it_again() {
    let mut world = lasting_world(&["owner", "other"]);
    let policy = OwnerPolicy::Hold { grace: Duration::from_secs(60), then: AfterGrace::Terminate };
    let access = Access { policy: Some(policy), ..Access::default() };
    world.command(0, Command::Open { token: Token(1), channel: name("ch"), access });
    world.expect_done(0, 1);
    world.cut(0);
    world.restored(0);
    let reclaimed = world.last_said(0, FrameType::Reclaim);
    assert_eq!(world.answer_to(0, FrameType::Reclaim, &reclaimed), Refusal::NotOwner.code());
    world.protect(0, "ch", &Secret::key([1; 32]), 1);
}

/// What was provided and listened to there is over with leaving, also where the channel has not come back by then.
#[test]
fn s35_who_leaves_a_channel_that_comes_back_and_opens_it_again_finds_nothing_of_its_own_there() {
    let mut world = lasting_world(&["owner", "member"]);
    let secret = Secret::key([1; 32]);
    world.open(0, "ch");
    world.protect(0, "ch", &secret, 1);
    world.join(1, "ch", &secret);
    world.provide(1, 5, "ch", "asked");
    world.listen(1, 6, "ch", Some("heard"));
    world.cut(1);
    world.pass(Duration::from_secs(2));
    while !matches!(world.events[1].front().expect("it is on its way back"), Event::DeriveChannelKey { .. }) {
        world.events[1].pop_front();
    }
    world.command(1, Command::Leave { token: Token(7), channel: name("ch") });
    let access = Access { secret: Some(secret.kdf()), ..Access::default() };
    world.command(1, Command::Open { token: Token(8), channel: name("ch"), access });
    world.derive(1, &secret);
    let done = |event: &&Event| matches!(event, Event::Done { result: Ok(()), .. });
    assert_eq!(world.events[1].iter().filter(done).count(), 2, "{:?}", world.events[1]);
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world.call(0, 9, "ch", "asked", b"");
    let (_, result) = world.expect_answered(0);
    let nobody = |failure: &CallFailure| {
        matches!(failure, CallFailure::Failed { failure: Failure::Refused(Refusal::NoProvider), .. })
    };
    assert!(result.as_ref().is_err_and(nobody), "{result:?}");
    world.say(0, "ch", "heard", b"");
    assert!(world.events[1].is_empty(), "{:?}", world.events[1]);
}

/// Clients whose connections come back, connected.
fn lasting_world(names: &[&str]) -> World {
    let clients = names.iter().map(|name| lasting(name, Reconnect::default())).collect();
    let mut world = World::with(support::hub(Limits::default()), clients);
    world.connect_all();
    world
}
