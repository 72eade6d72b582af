//! What becomes of what is said while the connection is away, or on its way when it goes: each ends exactly once, and nothing
//! that was lost has succeeded.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::slice;
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    Access, Away, CallFailure, Command, Credit, Event, EventKind, Failure, Outgoing, Payload, Reconnect,
    ReconnectEvent, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::{EventName, Limits, Misuse, Refusal};
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

/// A connection that goes gives no call more time, and the provider is told how much is left.
#[test]
fn s73_s37_a_call_that_is_repeated_keeps_its_deadline() {
    let seconds = Duration::from_secs;
    for (before, away) in [(20, 0), (0, 20), (10, 10)] {
        let mut world = world();
        world.command(SPEAKER, call(Away::Repeat, true));
        world.pass(seconds(before));
        goes(&mut world);
        world.pass(seconds(away));
        comes_back(&mut world);
        let asked = world.events[PROVIDER].iter().rev().find_map(|event| match event {
            Event::Request(request) => Some(request.deadline),
            _ => None,
        });
        let left = asked.unwrap().saturating_since(world.now.mono);
        assert!(left > seconds(9) && left <= seconds(10), "{before}, {away}: {left:?}");
        world.pass(seconds(9));
        assert_eq!(answers(&world), [], "{before}, {away}: too early");
        world.pass(seconds(1));
        let failure = Failure::Local(Misuse::Deadline);
        assert_eq!(answers(&world), [Err(CallFailure::Failed { failure, maybe_executed: true })], "{before}, {away}");
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

const WINDOW: Credit = Credit { items: 8, bytes: 64 << 10 };
const ASKED: StreamId = StreamId::Call(Token(9));

/// What the provider of the two has on offer beside sums.
fn with_streams(exchange: bool) -> World {
    let mut world = world();
    let kind = if exchange { EventKind::Exchange } else { EventKind::Stream };
    let (channel, event) = (name("math"), EventName::new("feed").unwrap());
    world.command(PROVIDER, Command::Provide { token: Token(8), channel, event, kind });
    world.expect_done(PROVIDER, 8);
    world
}

fn ask(world: &mut World, away: Away, exchange: bool) {
    // That it may be repeated changes nothing: a call alone is.
    let outgoing = Outgoing { away, idempotent: true, ..outgoing("math", "feed", b"") };
    let (token, time_left, window) = (Token(9), Duration::from_secs(30), WINDOW);
    world.command(
        SPEAKER,
        Command::Stream(StreamCommand::Ask { token, outgoing, time_left, whole: None, window, exchange }),
    );
}

fn gives(world: &mut World, client: usize, stream: StreamId, items: &[&'static [u8]]) {
    let payloads = items.iter().map(|item| Payload { bytes: Bytes::from_static(item), raw: true }).collect();
    world.command(client, Command::Stream(StreamCommand::Items { stream, payloads }));
    world.command(client, Command::Stream(StreamCommand::Finish { stream }));
}

/// The provider takes whatever it is asked for, and gives two items.
fn serves(world: &mut World) {
    for request in requests(world) {
        world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
        gives(world, PROVIDER, StreamId::Request(request), &[b"1", b"2"]);
    }
}

/// The items that somebody has got.
fn items(world: &World, client: usize) -> Vec<Bytes> {
    let item = |event: &Event| match event {
        Event::Stream(StreamEvent::Item { payload, .. }) => Some(payload.bytes.clone()),
        _ => None,
    };
    world.events[client].iter().filter_map(item).collect()
}

/// Every end of the stream.
fn ends(world: &World) -> Vec<Result<(), CallFailure>> {
    let ended = |event: &Event| match event {
        Event::Stream(StreamEvent::Ended { token: Token(9), result }) => Some(result.clone()),
        _ => None,
    };
    world.events[SPEAKER].iter().filter_map(ended).collect()
}

/// What a stream or an exchange meets: the turn that it takes, after it was asked for on a connection that stands, or while it
/// is away.
const STREAMS: [(&str, bool, Turn); 8] = [
    ("the connection comes back", true, |world| {
        world.pass(Duration::from_secs(29));
        comes_back(world);
    }),
    ("the connection comes back too late", true, |world| {
        world.pass(Duration::from_secs(31));
        comes_back(world);
    }),
    ("it is given up", true, |world| world.command(SPEAKER, Command::Cancel { call: Token(9) })),
    ("the client is closed", true, |world| world.command(SPEAKER, Command::Close)),
    ("nobody provides it any more", true, |world| {
        world.command(PROVIDER, Command::Close);
        comes_back(world);
    }),
    ("nobody takes it", true, |world| {
        comes_back(world);
        world.pass(Duration::from_secs(31));
    }),
    ("the connection goes before its provider takes it", false, |world| {
        goes(world);
        comes_back(world);
    }),
    ("the connection goes while items come", false, |world| {
        let request = requests(world)[0];
        world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
        let payloads = vec![payload(b"1")];
        let stream = StreamId::Request(request);
        world.command(PROVIDER, Command::Stream(StreamCommand::Items { stream, payloads }));
        goes(world);
        comes_back(world);
    }),
];

#[test]
fn s73_a_stream_or_exchange_ends_once_as_its_policy_says_and_is_never_asked_for_twice() {
    let failed = |failure, maybe_executed| Err(CallFailure::Failed { failure, maybe_executed });
    let local = |misuse, maybe_executed| failed(Failure::Local(misuse), maybe_executed);
    for (row, away, turn) in STREAMS {
        for (policy, exchange) in
            [Away::Fail, Away::Wait, Away::Repeat].into_iter().flat_map(|away| [false, true].map(|it| (away, it)))
        {
            let at = format!("{row}, {policy:?}, exchange: {exchange}");
            let mut world = with_streams(exchange);
            if away {
                goes(&mut world);
            }
            ask(&mut world, policy, exchange);
            assert_eq!(ends(&world).len(), usize::from(away && policy == Away::Fail), "{at}");
            assert_eq!(requests(&world).len(), usize::from(!away), "{at}");
            turn(&mut world);
            let (end, asked) = match (row, policy) {
                (_, Away::Fail) if away => (local(Misuse::NotConnected, false), 0),
                ("the connection comes back", _) => {
                    serves(&mut world);
                    (Ok(()), 1)
                }
                ("the connection comes back too late", _) => (local(Misuse::Deadline, false), 0),
                ("it is given up", _) => (local(Misuse::Cancelled, false), 0),
                ("the client is closed", _) => (local(Misuse::Closed, false), 0),
                ("nobody provides it any more", _) => (failed(Failure::Refused(Refusal::NoProvider), false), 0),
                ("nobody takes it", _) => (local(Misuse::Deadline, true), 1),
                _ => (local(Misuse::Disconnected, true), 1),
            };
            assert_eq!(ends(&world), slice::from_ref(&end), "{at}");
            world.hold_dials = false;
            world.pass(Duration::from_secs(60));
            assert_eq!(ends(&world), slice::from_ref(&end), "{at}: once");
            assert_eq!(requests(&world).len(), asked, "{at}");
            let came = match (row, end) {
                (_, Ok(())) => 2,
                ("the connection goes while items come", _) => 1,
                _ => 0,
            };
            assert_eq!(items(&world, SPEAKER).len(), came, "{at}");
            let is_over = |event: &&Event| matches!(event, Event::RequestEnded { .. });
            let told = world.events[PROVIDER].iter().filter(is_over).count();
            assert_eq!(told, if came == 2 { 0 } else { asked }, "{at}: nobody works for who is gone");
            for load in [PROVIDER, SPEAKER].map(|client| world.clients[client].load()) {
                assert_eq!((load.parked, load.calls, load.serving, load.streams), (0, 0, 0, 0), "{at}");
            }
            assert_eq!(world.hub.load().calls, 0, "{at}");
        }
    }
}

#[test]
fn s73_what_a_caller_gives_to_an_exchange_that_waits_arrives_in_order_or_not_at_all() {
    let mut world = with_streams(true);
    goes(&mut world);
    ask(&mut world, Away::Wait, true);
    gives(&mut world, SPEAKER, ASKED, &[b"a", b"b", b"c"]);
    comes_back(&mut world);
    assert_eq!(requests(&world).len(), 1);
    serves(&mut world);
    assert_eq!(items(&world, PROVIDER), ["a", "b", "c"]);
    let finished = |event: &Event| match event {
        Event::Stream(StreamEvent::Finished { result, .. }) => Some(*result),
        _ => None,
    };
    assert_eq!(world.events[PROVIDER].iter().filter_map(finished).collect::<Vec<_>>(), [Ok(())]);
    assert_eq!(items(&world, SPEAKER), ["1", "2"]);
    assert_eq!(ends(&world), [Ok(())]);
    // More than may wait ends it: what it would then lack nobody could tell.
    let mut world = with_streams(true);
    goes(&mut world);
    ask(&mut world, Away::Wait, true);
    let most = Limits::default().outbox;
    for _ in 0..3 {
        let payloads = vec![Payload { bytes: Bytes::from(vec![0; most / 2 - 1_000]), raw: true }];
        world.command(SPEAKER, Command::Stream(StreamCommand::Items { stream: ASKED, payloads }));
    }
    let busy = CallFailure::Failed { failure: Failure::Local(Misuse::Busy), maybe_executed: false };
    assert_eq!(ends(&world), [Err(busy)]);
    comes_back(&mut world);
    assert_eq!((requests(&world).len(), ends(&world).len(), world.clients[SPEAKER].load().parked), (0, 1, 0));
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
