//! One client that provides an event more than once.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use commipc_protocol::client::{Command, Event, EventKind, Failure, Token};
use commipc_protocol::{EventName, Input, Machine as _, Misuse, Refusal, hub};
use support::{World, name, payload};

fn provide(token: u64) -> Command {
    Command::Provide {
        token: Token(token),
        channel: name("ch"),
        event: EventName::new("ev").unwrap(),
        kind: EventKind::Call,
    }
}

fn withdraw(world: &mut World, provider: u64) -> Result<(), Failure> {
    world.command(0, Command::Withdraw { token: Token(99), provider: Token(provider) });
    match world.next(0) {
        Event::Done { token: Token(99), result } => result,
        other => panic!("{other:?}"),
    }
}

/// How often the hub says that somebody began, and ceased, to provide.
fn told(world: &World) -> (usize, usize) {
    let count = |fits: fn(&&hub::Event) -> bool| world.hub_events.iter().filter(fits).count();
    (
        count(|event| matches!(event, hub::Event::Provided { .. })),
        count(|event| matches!(event, hub::Event::Withdrawn { .. })),
    )
}

#[test]
fn s35_the_newer_provider_takes_the_place_of_the_older_and_the_hub_sees_no_change() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "ch");
    world.provide(0, 5, "ch", "ev");
    world.call(1, 1, "ch", "ev", b"");
    let first = world.expect_request(0);
    world.provide(0, 6, "ch", "ev");
    world.call(1, 2, "ch", "ev", b"");
    let second = world.expect_request(0);
    assert_eq!((first.provider, second.provider), (Token(5), Token(6)));
    assert_eq!(told(&world), (1, 0));
    assert_eq!(withdraw(&mut world, 5), Err(Failure::Local(Misuse::UnknownToken)), "it stands for nothing");
    // What the older one has begun it can finish.
    world.command(0, Command::Answer { request: first.id, result: Ok(payload(b"older")) });
    assert_eq!(world.expect_answered(1).1.unwrap().payload.bytes, "older");
    assert_eq!(withdraw(&mut world, 6), Ok(()));
    assert_eq!(told(&world), (1, 1));
}

#[test]
fn s35_providing_twice_at_once_ends_as_the_hub_says() {
    for taken in [false, true] {
        let mut world = World::ready(&["provider", "other"]);
        world.open(0, "ch");
        world.open(1, "ch");
        if taken {
            world.provide(1, 1, "ch", "ev");
        }
        let now = world.now;
        for token in [5, 6] {
            world.clients[0].handle_input(now, Input::Command(provide(token)));
        }
        world.run();
        let expected = if taken { Err(Failure::Refused(Refusal::ProviderExists)) } else { Ok(()) };
        for expected_token in [5, 6] {
            let Event::Done { token, result } = world.next(0) else { panic!("not done") };
            assert_eq!((token, result), (Token(expected_token), expected));
        }
        world.call(1, 9, "ch", "ev", b"");
        if taken {
            assert_eq!(world.expect_request(1).provider, Token(1), "nothing is taken from who has it");
            world.command(1, Command::Withdraw { token: Token(2), provider: Token(1) });
            world.expect_done(1, 2);
            world.provide(0, 7, "ch", "ev");
        } else {
            assert_eq!(world.expect_request(0).provider, Token(6));
            assert_eq!(told(&world), (1, 0));
        }
    }
}

#[test]
fn s35_provided_again_as_another_kind_it_is_of_that_kind() {
    let mut world = World::ready(&["provider", "caller"]);
    world.open(0, "ch");
    world.provide(0, 5, "ch", "ev");
    let event = EventName::new("ev").unwrap();
    let stream = Command::Provide { token: Token(6), channel: name("ch"), event, kind: EventKind::Stream };
    world.command(0, stream);
    world.expect_done(0, 6);
    world.call(1, 1, "ch", "ev", b"");
    assert!(format!("{:?}", world.expect_answered(1).1).contains("WrongKind"));
    world.provide(0, 7, "ch", "ev");
    world.call(1, 2, "ch", "ev", b"");
    assert_eq!(world.expect_request(0).provider, Token(7));
    assert_eq!(told(&world), (3, 0), "how it is asked for is told anew");
}

#[test]
fn s35_whoever_provides_again_is_confirmed_by_the_hub_which_may_have_ended_the_channel() {
    let mut world = World::ready(&["owner", "provider"]);
    world.open(0, "ch");
    world.open(1, "ch");
    world.provide(1, 5, "ch", "ev");
    let now = world.now;
    // The news is on its way when it provides once more.
    let ends = Command::Terminate { token: Token(3), channel: name("ch") };
    world.clients[0].handle_input(now, Input::Command(ends));
    world.clients[1].handle_input(now, Input::Command(provide(6)));
    world.run();
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated);
    let Event::Done { token: Token(6), result } = world.next(1) else { panic!("not done") };
    assert_eq!(result, Err(Failure::Refused(Refusal::NotMember)));
}
