//! What becomes of what is said while the connection is away, or on its way when it goes: each ends exactly once, and nothing
//! that was lost has succeeded.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

mod support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    Access, Away, CallFailure, Command, Event, Failure, Outgoing, Reconnect, ReconnectEvent, Token,
};
use commipc_protocol::{Limits, Misuse, Refusal};
use support::{World, hub, lasting, name, outgoing, payload};

const PROVIDER: usize = 0;
const SPEAKER: usize = 1;

/// Somebody who provides and listens, and somebody who speaks to it, over connections that come back.
fn world() -> World {
    let clients = ["provider", "speaker"].map(|name| lasting(name, Reconnect::default()));
    let mut world = World::with(hub(Limits::default()), clients.into());
    world.connect_all();
    world.open(PROVIDER, "math");
    world.provide(PROVIDER, 5, "math", "sum");
    world.listen(PROVIDER, 6, "math", Some("sum"));
    world
}

/// The speaker's connection goes, and its hub cannot be reached.
fn goes(world: &mut World) {
    world.hold_dials = true;
    world.cut(SPEAKER);
}

fn comes_back(world: &mut World) {
    let told: Vec<Event> = world.events[SPEAKER].drain(..).collect();
    world.release_dials();
    let meanwhile = world.restored(SPEAKER);
    let later = world.events[SPEAKER].drain(..).collect::<Vec<_>>();
    world.events[SPEAKER].extend(told.into_iter().chain(meanwhile).chain(later));
}

fn says(broadcast: bool, away: Away) -> Command {
    let (token, outgoing) = (Token(9), Outgoing { away, ..outgoing("math", "sum", b"said") });
    if broadcast { Command::Broadcast { token, outgoing } } else { Command::Send { token, outgoing } }
}

/// How something ended, with everything that was told of it.
fn sent(world: &World) -> Vec<Result<(), Failure>> {
    let ended = |event: &Event| match event {
        Event::Sent { token: Token(9), result } => Some(*result),
        _ => None,
    };
    world.events[SPEAKER].iter().filter_map(ended).collect()
}

/// How often it arrived.
fn arrived(world: &World) -> usize {
    let is_it =
        |event: &&Event| matches!(event, Event::Message(message) if message.message.payload == payload(b"said"));
    world.events[PROVIDER].iter().filter(is_it).count()
}

/// What a send or a broadcast meets.
#[derive(Clone, Copy, Debug)]
enum Meets {
    /// It is said while the connection is away, which then comes back.
    Absence,
    /// The same, and it does not come back in the half minute for which it waits.
    LongAbsence,
    /// The same, and the client is closed.
    Closing,
    /// The connection goes before the hub has got it, and comes back.
    Loss,
}

#[test]
fn s73_a_send_or_broadcast_ends_once_as_its_policy_says_and_is_no_success_if_it_was_lost() {
    use Meets::{Absence, Closing, LongAbsence, Loss};
    let not_connected = Err(Failure::Local(Misuse::NotConnected));
    let lost = Err(Failure::Local(Misuse::Disconnected));
    let [late, closed] = [Misuse::Deadline, Misuse::Closed].map(|why| Err(Failure::Local(why)));
    let rows = [
        (Away::Fail, Absence, not_connected, 0),
        (Away::Fail, LongAbsence, not_connected, 0),
        (Away::Fail, Closing, not_connected, 0),
        (Away::Fail, Loss, lost, 0),
        (Away::Wait, Absence, Ok(()), 1),
        (Away::Wait, LongAbsence, late, 0),
        (Away::Wait, Closing, closed, 0),
        (Away::Wait, Loss, lost, 0),
        (Away::Repeat, Absence, Ok(()), 1),
        (Away::Repeat, LongAbsence, late, 0),
        (Away::Repeat, Closing, closed, 0),
        // A call alone is repeated.
        (Away::Repeat, Loss, lost, 0),
    ];
    for (broadcast, (away, meets, result, times)) in [false, true].into_iter().flat_map(|it| rows.map(|row| (it, row)))
    {
        let row = format!("broadcast: {broadcast}, {away:?}, {meets:?}");
        let mut world = world();
        match meets {
            Loss => {
                world.mute = Some(SPEAKER);
                world.command(SPEAKER, says(broadcast, away));
                assert_eq!(sent(&world), [], "{row}");
                world.mute = None;
                goes(&mut world);
                comes_back(&mut world);
            }
            Absence => {
                goes(&mut world);
                world.command(SPEAKER, says(broadcast, away));
                world.pass(Duration::from_secs(29));
                assert_eq!(sent(&world).len(), usize::from(away == Away::Fail), "{row}");
                comes_back(&mut world);
            }
            LongAbsence => {
                goes(&mut world);
                world.command(SPEAKER, says(broadcast, away));
                world.pass(Duration::from_secs(31));
                assert_eq!(sent(&world), [result], "{row}");
                comes_back(&mut world);
            }
            Closing => {
                goes(&mut world);
                world.command(SPEAKER, says(broadcast, away));
                world.command(SPEAKER, Command::Close);
                world.hold_dials = false;
            }
        }
        world.pass(Duration::from_secs(60));
        assert_eq!(sent(&world), [result], "{row}");
        assert_eq!(arrived(&world), times, "{row}");
        assert_eq!(world.clients[SPEAKER].load().parked, 0, "{row}");
    }
}

fn call(away: Away, idempotent: bool) -> Command {
    let outgoing = Outgoing { away, idempotent, ..outgoing("math", "sum", b"again") };
    Command::Call { token: Token(9), outgoing, time_left: Duration::from_secs(30) }
}

/// Every end of the call.
fn answers(world: &World) -> Vec<Result<(), CallFailure>> {
    let ended = |event: &Event| match event {
        Event::Answered { token: Token(9), result } => Some(result.as_ref().map(|_| ()).map_err(Clone::clone)),
        _ => None,
    };
    world.events[SPEAKER].iter().filter_map(ended).collect()
}

/// The requests that the provider has got.
fn requests(world: &World) -> Vec<commipc_protocol::client::RequestId> {
    let asked = |event: &Event| match event {
        Event::Request(request) => Some(request.id),
        _ => None,
    };
    world.events[PROVIDER].iter().filter_map(asked).collect()
}

/// What ends a call that waits.
type Turn = fn(&mut World);

#[test]
fn s73_a_call_that_is_repeated_ends_once_and_never_hides_that_it_may_have_been_executed() {
    let failed = |failure, maybe_executed| Err(CallFailure::Failed { failure, maybe_executed });
    let rows: [(&str, Turn, Failure); 5] = [
        ("late", |world| world.pass(Duration::from_secs(31)), Failure::Local(Misuse::Deadline)),
        (
            "given up",
            |world| world.command(SPEAKER, Command::Cancel { call: Token(9) }),
            Failure::Local(Misuse::Cancelled),
        ),
        ("closed", |world| world.command(SPEAKER, Command::Close), Failure::Local(Misuse::Closed)),
        (
            "nobody provides it any more",
            |world| {
                world.command(PROVIDER, Command::Close);
                comes_back(world);
            },
            Failure::Refused(Refusal::NoProvider),
        ),
        (
            "late on the next connection",
            |world| {
                comes_back(world);
                world.pass(Duration::from_secs(31));
            },
            Failure::Local(Misuse::Deadline),
        ),
    ];
    for (row, turn, failure) in rows {
        // On its way when the connection went, or asked for while it was away.
        for reached in [true, false] {
            let mut world = world();
            if !reached {
                goes(&mut world);
            }
            world.command(SPEAKER, call(Away::Repeat, true));
            if reached {
                goes(&mut world);
            }
            assert_eq!(requests(&world).len(), usize::from(reached));
            assert_eq!(answers(&world), []);
            turn(&mut world);
            let maybe = reached || row == "late on the next connection";
            assert_eq!(answers(&world), [failed(failure, maybe)], "{row}, reached: {reached}");
            world.hold_dials = false;
            world.pass(Duration::from_secs(60));
            assert_eq!(answers(&world).len(), 1, "{row}, reached: {reached}");
            assert_eq!(world.clients[SPEAKER].load().parked, 0);
        }
    }
}

#[test]
fn s73_a_call_is_repeated_as_often_as_its_connection_goes_and_has_one_answer() {
    let mut world = world();
    world.command(SPEAKER, call(Away::Repeat, true));
    for times in 1..4 {
        assert_eq!(requests(&world).len(), times);
        goes(&mut world);
        comes_back(&mut world);
    }
    let last = *requests(&world).last().unwrap();
    world.command(PROVIDER, Command::Answer { request: last, result: Ok(payload(b"3")) });
    for earlier in requests(&world) {
        world.command(PROVIDER, Command::Answer { request: earlier, result: Ok(payload(b"4")) });
    }
    assert_eq!(answers(&world), [Ok(())]);
}

/// The owner of a vault, and the speaker who opens it with its password.
fn with_vault(world: &mut World) -> Secret {
    let secret = Secret::key([1; 32]);
    world.open(PROVIDER, "vault");
    world.protect(PROVIDER, "vault", &secret, 1);
    secret
}

/// What was waiting to be opened when the connection goes once more takes nothing along that waits for the next one.
#[test]
fn a_call_waits_on_while_an_opening_that_has_waited_too_is_lost() {
    let mut world = world();
    let secret = with_vault(&mut world);
    goes(&mut world);
    let access = Access { secret: Some(secret.kdf()), ..Access::default() };
    world.command(SPEAKER, Command::Open { token: Token(3), channel: name("vault"), access });
    world.release_dials();
    let derives = |event: &Event| matches!(event, Event::DeriveChannelKey { .. });
    for _ in 0..100 {
        world.pass(Duration::from_millis(50));
    }
    assert!(world.events[SPEAKER].iter().any(derives), "the vault is being opened");
    world.command(SPEAKER, call(Away::Repeat, true));
    assert_eq!(requests(&world).len(), 1);
    world.events[SPEAKER].clear();
    world.cut(SPEAKER);
    world.restored(SPEAKER);
    let again = requests(&world);
    assert_eq!(again.len(), 2, "it is made again");
    world.command(PROVIDER, Command::Answer { request: again[1], result: Ok(payload(b"3")) });
    assert_eq!(answers(&world), [Ok(())]);
}

/// Who closes is told that it is closed, and not that what was coming back did not, or did.
#[test]
fn s71_closing_while_channels_come_back_tells_nothing_of_them() {
    let mut world = world();
    let secret = with_vault(&mut world);
    world.join(SPEAKER, "vault", &secret);
    world.listen(SPEAKER, 7, "vault", None);
    world.cut(SPEAKER);
    let derives = |event: &Event| matches!(event, Event::DeriveChannelKey { .. });
    for _ in 0..100 {
        world.pass(Duration::from_millis(50));
    }
    assert!(world.events[SPEAKER].iter().any(derives), "the vault comes back");
    world.events[SPEAKER].clear();
    world.command(SPEAKER, Command::Close);
    let told = &world.events[SPEAKER];
    assert!(matches!(told.front(), Some(Event::Closed(_))) && told.len() == 1, "{told:?}");
    world.connect_again(SPEAKER);
    let told = |event: &Event| matches!(event, Event::Reconnect(ReconnectEvent::Restored { .. }));
    assert!(!world.events[SPEAKER].iter().any(told));
}
