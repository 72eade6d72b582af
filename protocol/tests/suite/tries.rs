//! When a connection that was lost is tried again, and that one whose id is in use is tried for as long as that lasts.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::client::{Command, Event, Reconnect, ReconnectEvent};
use commipc_protocol::{CloseReason, Instant, Limits, Refusal};
use support::{World, hub, lasting};

/// How exactly the tests look.
const STEP: Duration = Duration::from_millis(10);

/// The waits of many clients before each of so many tries, while their hub is away. Each is found to be kept to.
fn waits(policy: Reconnect, tries: usize) -> Vec<Vec<Duration>> {
    let names: Vec<String> = (0..32).map(|number| format!("{number}-client")).collect();
    let clients: Vec<usize> = (0..names.len()).collect();
    let lasting = names.iter().map(|name| lasting(name, policy)).collect();
    let mut world = World::with(hub(Limits::default()), lasting);
    world.connect_all();
    world.absent = clients.clone();
    let mut told: Vec<Vec<(Instant, Duration)>> = vec![Vec::new(); clients.len()];
    for client in &clients {
        world.cut(*client);
    }
    while told.iter().any(|told| told.len() < tries) {
        let now = world.now.mono;
        for client in &clients {
            let lost = |event| match event {
                Event::Reconnect(ReconnectEvent::Lost { retry, .. }) => (now, retry),
                other => panic!("{other:?}"),
            };
            told[*client].extend(world.events[*client].drain(..).map(lost));
        }
        world.pass(STEP);
    }
    for told in &told {
        for two in told.windows(2) {
            let (wait, took) = (two[0].1, two[1].0.saturating_since(two[0].0));
            assert!((wait..=wait + STEP).contains(&took), "it was to wait {wait:?}, and did so for {took:?}");
        }
    }
    let waits = |index: usize| told.iter().map(|told| told[index].1).collect();
    (0..tries).map(waits).collect()
}

/// That all of these lie in here, and over all of it: in its lowest and in its highest quarter there are some.
fn lie_over(waits: &[Duration], least: Duration, most: Duration) {
    let quarter = (most - least) / 4;
    let inside = |wait: &Duration| (least..=most).contains(wait);
    assert!(waits.iter().all(inside), "{least:?} to {most:?}: {waits:?}");
    assert!(waits.iter().any(|wait| *wait <= least + quarter), "{least:?} to {most:?}: {waits:?}");
    assert!(waits.iter().any(|wait| *wait >= most - quarter), "{least:?} to {most:?}: {waits:?}");
}

#[test]
fn s70_the_first_try_is_made_at_once_the_second_within_a_second_and_each_further_one_waits_half_its_doubled_time_at_least()
 {
    let waits = waits(Reconnect::default(), 10);
    let seconds = Duration::from_secs;
    assert!(waits[0].iter().all(Duration::is_zero), "{waits:?}");
    lie_over(&waits[1], Duration::ZERO, seconds(1));
    for (index, most) in [(2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (9, 60)] {
        lie_over(&waits[index], seconds(most) / 2, seconds(most));
    }
}

#[test]
fn s70_the_first_and_the_longest_wait_are_what_is_set() {
    let cases = [
        ((100, 1_000), [100, 200, 400, 800, 1_000, 1_000]),
        ((3_000, 10_000), [3_000, 6_000, 10_000, 10_000, 10_000, 10_000]),
        // No wait is longer than the longest.
        ((5_000, 2_000), [2_000; 6]),
    ];
    let millis = Duration::from_millis;
    for ((first, longest), most) in cases {
        let mut policy = Reconnect::default();
        (policy.first, policy.longest) = (millis(first), millis(longest));
        let waits = waits(policy, 7);
        assert!(waits[0].iter().all(Duration::is_zero));
        lie_over(&waits[1], Duration::ZERO, millis(most[0]));
        for (waits, most) in waits[2..].iter().zip(&most[1..]) {
            lie_over(waits, millis(*most) / 2, millis(*most));
        }
    }
}

/// Hours, with somebody else who has the id all the time.
#[test]
fn v29_d9_an_id_that_is_in_use_is_tried_for_as_long_as_that_lasts() {
    let clients =
        vec![lasting("id", Reconnect::default()), support::stranger_to("id"), lasting("b", Reconnect::default())];
    let mut world = World::with(hub(Limits::default()), clients);
    for client in [0, 2] {
        world.command(client, Command::Connect);
        assert!(matches!(world.next(client), Event::Ready(_)));
        world.open(client, "news");
    }
    world.listen(0, 5, "news", None);
    world.absent = vec![0];
    world.cut(0);
    world.command(1, Command::Connect);
    assert!(matches!(world.next(1), Event::Ready(_)));
    world.events[0].clear();
    world.absent.clear();
    let (mut tries, mut longest) = (0, Duration::ZERO);
    for _ in 0..3 * 3_600 {
        world.pass(Duration::from_secs(1));
        for event in world.events[0].drain(..) {
            match event {
                Event::Reconnect(ReconnectEvent::Lost { reason: CloseReason::Unreachable(_), .. }) if tries == 0 => {}
                Event::Reconnect(ReconnectEvent::Lost { reason, retry }) => {
                    assert_eq!(reason, CloseReason::Refused(Refusal::IdInUse));
                    (tries, longest) = (tries + 1, longest.max(retry));
                }
                other => panic!("after {tries} tries: {other:?}"),
            }
        }
    }
    assert!(tries > 150 && longest <= Duration::from_secs(60), "{tries} tries, {longest:?} at most");
    world.command(1, Command::Close);
    world.events[2].clear();
    let told = world.restored(0);
    assert!(told.iter().any(|event| matches!(event, Event::Ready(_))), "{told:?}");
    world.say(2, "news", "up", b"heard again");
    assert_eq!(world.expect_message(0), "heard again");
}
