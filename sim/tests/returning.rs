//! Connections that come back: worlds of any faults, and a thousand clients whose hub is replaced.

#![allow(missing_docs, reason = "a test binary")]

use std::collections::BTreeSet;
use std::time::Duration;

use commipc_protocol::client::{Access, Command, Event, Failure, Reconnect, ReconnectEvent, Token, Unrestored};
use commipc_protocol::{ChannelName, Instant, Refusal};
use commipc_sim::oracles::Password;
use commipc_sim::{DiskHabits, NodeId, Profile, Reply, Source, World, run_as, run_seeds_as};

fn amount(of: &str, otherwise: u64) -> u64 {
    std::env::var(of).ok().and_then(|amount| amount.parse().ok()).unwrap_or(otherwise)
}

/// What must befall connections again and again, and what must come of it, or nothing is shown: in how many of a hundred
/// worlds' counts at least.
const MARKS: [(&str, u64); 36] = [
    ("fault: a link is cut", 20),
    ("fault: all links are cut", 5),
    ("fault: a link is half-open", 15),
    ("fault: a link loses one direction", 10),
    ("fault: a hub with stored state is killed", 5),
    ("fault: a hub with stored state vanishes", 3),
    ("fault: a hub without state is killed", 5),
    ("fault: a hub without state vanishes", 3),
    ("fault: a hub is shut down and replaced", 5),
    ("fault: a wall clock jumps", 5),
    ("fault: a monotonic clock jumps ahead", 5),
    ("fault: a monotonic clock runs backwards", 5),
    ("fault: somebody else wants an id", 2),
    ("fault: a client has two connections", 10),
    ("the password of a channel is looked at", 20),
    ("a client gives up a silent link", 10),
    ("a hub gives up a silent link", 3),
    ("a hub is not reached", 30),
    ("a hub says goodbye", 5),
    ("an id is held by another link", 1),
    ("an old link is taken over from", 2),
    ("channels are restored", 50),
    ("something is told not to be restored", 5),
    ("a call is answered", 50),
    ("a call ends with its link", 5),
    ("a link is lost", 50),
    ("a channel is told to be missing", 1),
    ("a channel is told not to come back without its owner", 1),
    ("a stream is taken", 50),
    ("an item comes from a provider", 100),
    ("an item comes from a caller", 10),
    ("a stream is whole", 20),
    ("a stream ends with its link", 5),
    ("quiet: a stream is whole", 20),
    ("quiet: x is heard by a listener to it alone", 20),
    ("quiet: y is heard by a listener to it alone", 20),
];

#[test]
fn s71_whatever_befalls_connections_they_come_back_with_everything_or_say_what_not() {
    let seeds = amount("COMMIPC_RETURNS", 60);
    let tally = run_seeds_as(0, seeds, 3, Profile::Reconnect);
    assert!(tally.is_fine(), "{tally}");
    let rare = MARKS.iter().filter(|(mark, least)| tally.marks.get(mark).copied().unwrap_or(0) * 100 < least * seeds);
    let rare: Vec<&(&str, u64)> = rare.collect();
    assert!(rare.is_empty(), "too rare in {seeds} worlds: {rare:?} of {:?}", tally.marks);
}

const CHANGES: &str = include_str!("../CHANGELOG.md");

/// Worlds in which something was found once: sim/CHANGELOG.md says what.
const FOUND: [u64; 29] = [
    22, 38, 92, 96, 111, 185, 383, 395, 673, 726, 745, 1147, 1173, 2371, 4483, 6215, 6621, 6644, 7622, 8332, 9234,
    9402, 8468, 11748, 11882, 13555, 17576, 213_984, 252_408,
];

#[test]
fn what_was_found_once_is_not_found_again() {
    for seed in FOUND {
        assert!(CHANGES.contains(&format!("{seed} R")), "what did {seed} find?");
        let tally = run_seeds_as(seed, 1, 1, Profile::Reconnect);
        assert!(tally.is_fine(), "{tally}");
    }
}

#[test]
fn a_world_that_returns_is_replayed_by_its_choices() {
    let first = run_as(Source::Seed(3), Profile::Reconnect, false);
    let again = run_as(Source::Choices(first.choices), Profile::Any, false);
    assert_eq!(first.trace_hash, again.trace_hash);
}

const CLIENTS: usize = 1_000;
const ROOMS: usize = 50;

/// When each client was as it was, since its hub went: with its one channel, and nothing was told to be missing. Only to own a
/// room is told to be over, where the hub does not know any more who did and a member came back first. Before it when each was
/// connected.
fn restored(world: &mut World, gone: Instant, remembers: bool, in_step: bool) -> [Vec<Duration>; 2] {
    let mut away: Vec<(NodeId, usize)> =
        world.clients().iter().map(|node| (*node, world.told_at(*node).len())).collect();
    let (mut connected, mut took) = (Vec::new(), Vec::new());
    while !away.is_empty() {
        world.run_for(Duration::from_millis(20));
        let now = world.now().saturating_since(gone);
        assert!(now < Duration::from_secs(600), "{} are missing", away.len());
        away.retain_mut(|(node, heard)| {
            let fresh = world.told_at(*node).get(*heard..).unwrap_or_default();
            *heard += fresh.len();
            let missing = fresh.iter().any(|event| is_missing(event) && (remembers || !is_forgotten(event, in_step)));
            assert!(!missing, "{fresh:?}");
            connected.extend(fresh.iter().any(|event| matches!(event, Event::Ready(_))).then_some(now));
            let back = |event: &Event| matches!(event, Event::Reconnect(ReconnectEvent::Restored { channels: 1 }));
            let back = fresh.iter().any(back);
            took.extend(back.then_some(now));
            !back
        });
    }
    [connected, took]
}

/// Something is told not to have come back, or not all of it.
const fn is_missing(event: &Event) -> bool {
    let lost = matches!(event, Event::ChannelClosed { .. } | Event::Closed(_));
    let Event::Reconnect(event) = event else { return lost };
    match event {
        ReconnectEvent::Unrestored { .. } => true,
        ReconnectEvent::Restored { channels } => *channels != 1,
        ReconnectEvent::Lost { .. } | ReconnectEvent::Restoring { .. } | ReconnectEvent::Returned { .. } => false,
    }
}

/// A hub that had forgotten who owned a room has let members in before its owner came.
fn is_forgotten(event: &Event, in_step: bool) -> bool {
    let Event::Reconnect(ReconnectEvent::Unrestored { what: Unrestored::Ownership(room), why }) = event else {
        return false;
    };
    let number = room.strip_prefix("room-").and_then(|number| number.parse().ok()).expect("a room");
    *why == Failure::Refused(Refusal::NotOwner) && (in_step || !has_password(number))
}

fn room(number: usize) -> String {
    format!("room-{}", number % ROOMS)
}

/// Every second room has a password, which its owner brings back where the hub does not remember it.
const fn has_password(number: usize) -> bool {
    number % ROOMS % 2 == 1
}

/// Every provider answers, each for itself, and every listener hears, once, what two members of its room say.
fn all_is_as_it_was(world: &mut World) {
    let clients = world.clients();
    let before: Vec<usize> = clients.iter().map(|node| world.told_at(*node).len()).collect();
    let mut calls = Vec::new();
    for number in 0..CLIENTS {
        let caller = format!("c{}", (number + ROOMS) % CLIENTS);
        calls.push(world.at(&caller).calls(&room(number), &format!("ask-{number}"), "?", Duration::from_secs(5)));
    }
    for (number, call) in calls.into_iter().enumerate() {
        let answer = world.answer(call).unwrap_or_else(|failure| panic!("ask-{number}: {failure:?}"));
        assert_eq!(answer.payload.bytes, format!("c{number}"));
    }
    let speakers = 2 * ROOMS;
    for number in 0..speakers {
        let said = world.at(&format!("c{number}")).broadcasts(&room(number), "said", &format!("c{number}"));
        assert_eq!(world.done(said), Ok(()));
    }
    world.run_for(Duration::from_secs(1));
    for (number, (node, before)) in clients.iter().zip(before).enumerate() {
        let mut heard = Vec::new();
        for event in &world.told_at(*node)[before..] {
            if let Event::Message(message) = event {
                heard.push(String::from_utf8_lossy(&message.message.payload.bytes).into_owned());
            }
        }
        heard.sort_unstable();
        let mut expected: Vec<String> = (0..speakers)
            .filter(|speaker| *speaker != number && room(*speaker) == room(number))
            .map(|speaker| format!("c{speaker}"))
            .collect();
        expected.sort_unstable();
        assert_eq!(heard, expected, "c{number}");
    }
}

/// Nobody comes in without the password, and each owner may change it.
fn passwords_hold(world: &mut World) {
    for number in (0..ROOMS).filter(|number| has_password(*number)) {
        let without = world.at(&format!("c{}", number + 1)).tries_to_open(&room(number));
        assert_eq!(world.done(without), Err(Failure::Refused(Refusal::PasswordRequired)), "{number}");
        let changed = world.at(&format!("c{number}")).tries_to_protect(&room(number), Password(2));
        assert_eq!(world.done(changed), Ok(()), "{number}");
    }
}

/// How a thousand clients came back.
#[derive(Debug)]
struct Crowd {
    /// How long it took until 99 of 100 were as they were, since the hub was there again.
    p99: Duration,
    /// And until the last one was.
    last: Duration,
    /// How many times as many tries as in the mean there were, in the busiest window, while 99 of 100 were connected again. Nothing
    /// where all came back by their first try, which is made at once.
    peak: Option<f64>,
}

/// A second, or a tenth of the time in which clients try, if that is less: in all of a short time no peak can be seen.
fn busiest(mut tries: Vec<Duration>, time: Duration) -> Option<f64> {
    tries.retain(|at| *at <= time);
    tries.sort_unstable();
    let window = Duration::from_secs(1).min(time / 10);
    let until = |at: &Duration| tries.partition_point(|other| *other <= *at + window);
    let peak = tries.iter().enumerate().map(|(index, at)| until(at) - index).max()?;
    let mean = tries.len() as f64 * window.as_secs_f64() / time.as_secs_f64();
    Some(peak as f64 / mean)
}

/// The longest that a wait may be which has begun when a hub comes back that was away for so long: no client has had more
/// tries by then than with the shortest waits there are.
fn longest_wait(policy: &Reconnect, down: Duration) -> Duration {
    let (mut longest, mut shortest, mut begins) = (policy.first, Duration::ZERO, Duration::ZERO);
    while begins + shortest <= down && longest < policy.longest {
        begins += shortest;
        longest = (2 * longest).min(policy.longest);
        shortest = longest / 2;
    }
    longest
}

/// ```text
/// h ── dies, and is there again after a while
/// c0 … c999 ── each at another time ──► h, each with its channel, its provider and its listener, half of them by a password
/// ```
fn a_hub_is_replaced(down: Duration, remembers: bool, in_step: bool) -> Crowd {
    let mut policy = Reconnect::default();
    policy.initial = true;
    let mut world = World::seeded(down.as_millis() as u64).reconnecting(policy).hub("h");
    if in_step {
        world = world.in_step();
    }
    if remembers {
        world = world.storing(DiskHabits { slowest: 1_000_000, fails: 0 });
    }
    for number in 0..CLIENTS {
        world = world.client(&format!("c{number}"));
    }
    for node in world.clients() {
        world.ask(node, Command::Connect);
    }
    world.run_for(Duration::from_secs(60));
    for number in 0..CLIENTS {
        let client = format!("c{number}");
        // Those in step draw the same keys: no two of them could speak to each other under a password.
        let asked = match (has_password(number) && !in_step, number < ROOMS) {
            (true, false) => world.at(&client).tries_to_join(&room(number), Password(1)),
            (true, true) => world.at(&client).opens(&room(number)).tries_to_protect(&room(number), Password(1)),
            (false, _) => world.at(&client).tries_to_open(&room(number)),
        };
        assert_eq!(world.done(asked), Ok(()));
        let provided = world.at(&client).tries_to_provide(&room(number), &format!("ask-{number}"));
        let heard = world.at(&client).tries_to_listen(&room(number), None);
        assert_eq!([world.done(provided), world.done(heard)], [Ok(()); 2]);
        world.serves(&client.clone(), move |_| Reply::text(&client));
    }
    world.run_for(Duration::from_secs(5));
    let (hub, gone, before) = (world.hubs()[0], world.now(), world.dials().len());
    world.kill_hub(hub, false);
    world.run_for(down);
    world.start_hub(hub);
    let times = restored(&mut world, gone, remembers, in_step);
    let [connected, took] = times.map(|mut times| {
        times.sort_unstable();
        assert_eq!(times.len(), CLIENTS, "each once");
        times.into_iter().map(|time| time - down).collect::<Vec<Duration>>()
    });
    let (p99, last) = (took[CLIENTS * 99 / 100 - 1], took[CLIENTS - 1]);
    // Those that the hub hears of, but for everybody's first, which is made at once.
    let (mut first, up) = (BTreeSet::new(), gone + down);
    let tries = world.dials()[before..].iter().filter(|(at, node)| !first.insert(*node) && *at >= up);
    let tries: Vec<Duration> = tries.map(|(at, _)| at.saturating_since(up)).collect();
    let crowd = Crowd { p99, last, peak: busiest(tries, connected[CLIENTS * 99 / 100 - 1]) };
    assert!(world.census(hub).0.contains(&("clients", CLIENTS)));
    all_is_as_it_was(&mut world);
    if !in_step {
        passwords_hold(&mut world);
    }
    crowd
}

/// The most that there may be at a time, in means.
const PEAK: f64 = 3.0;
/// The same for who was away for longer than a restart takes: the later of two waits draw from a window twice as long.
const PEAK_LATER: f64 = 5.0;
/// What it takes a connection to be as it was, a thousand of them at a time.
const STANDS: Duration = Duration::from_secs(2);

#[test]
fn s70_a_thousand_clients_whose_hub_is_replaced_are_back_in_five_seconds_and_not_all_at_once() {
    let downs: &[u64] = if amount("COMMIPC_RETURNS", 0) > 0 { &[0, 200, 500, 1_000] } else { &[500] };
    for (down, remembers) in downs.iter().flat_map(|down| [(*down, false), (*down, true)]) {
        let down = Duration::from_millis(down);
        let crowd = a_hub_is_replaced(down, remembers, false);
        assert!(down + crowd.p99 <= Duration::from_secs(5), "since it went: {crowd:?}");
        assert!(crowd.peak.map_or_else(|| down.is_zero(), |peak| peak <= PEAK), "{crowd:?}");
    }
}

/// Whoever has tried for so long waits for its next try, and no longer: half a minute's clients for half a minute at most.
#[test]
fn s70_a_thousand_clients_whose_hub_was_long_away_are_back_by_their_next_try() {
    let downs: &[u64] = if amount("COMMIPC_RETURNS", 0) > 0 { &[10, 30, 60] } else { &[30, 60] };
    for down in downs.iter().map(|down| Duration::from_secs(*down)) {
        let crowd = a_hub_is_replaced(down, true, false);
        let wait = longest_wait(&Reconnect::default(), down);
        assert!(crowd.last <= wait + STANDS, "{crowd:?}, and the longest wait is {wait:?}");
        assert!(crowd.peak.is_some_and(|peak| peak <= PEAK_LATER), "{crowd:?}");
    }
}

/// So that the measure is one: those who leave nothing to chance exceed it by far.
#[test]
fn s70_a_thousand_clients_without_chance_are_back_all_at_once() {
    for (down, most) in [(Duration::from_millis(500), PEAK), (Duration::from_secs(30), PEAK_LATER)] {
        let crowd = a_hub_is_replaced(down, true, true);
        assert!(crowd.peak.is_some_and(|peak| peak > 2.0 * most), "{crowd:?}");
    }
}

#[test]
fn the_longest_wait_follows_from_the_policy() {
    let wait = |seconds| longest_wait(&Reconnect::default(), Duration::from_secs(seconds)).as_secs();
    assert_eq!([0, 1, 3, 7, 30, 31, 60, 600].map(wait), [2, 4, 8, 16, 32, 60, 60, 60]);
}

/// Everything that waits for a connection has its end, and nothing is tried that nobody wants any more.
#[test]
fn s70_who_closes_while_its_hub_is_away_dials_no_more() {
    let mut world = World::seeded(1).reconnecting(Reconnect::default()).hub("h").client("c").connected();
    let (hub, node) = (world.hubs()[0], world.clients()[0]);
    world.kill_hub(hub, false);
    world.run_for(Duration::from_secs(60));
    let channel = ChannelName::new("a").unwrap();
    world.ask(node, Command::Open { token: Token(7), channel, access: Access::default() });
    world.at("c").closes();
    let dials = world.dials().len();
    assert!(dials > 3, "it tried: {dials}");
    world.run_for(Duration::from_secs(3_600));
    assert_eq!(world.dials().len(), dials);
    assert!(world.told("c").iter().any(|event| matches!(event, Event::Done { token: Token(7), result: Err(_) })));
}
