//! A6: the hub itself. No member of a protected channel falls for anything that it makes of messages; what it does to
//! everything else, and what it keeps back, it does.

use std::time::Duration;

use commipc_protocol::client::{CallFailure, Command, Event, Failure};
use commipc_protocol::wire::{Channel, Kind};
use commipc_protocol::{ChannelName, Misuse, OwnerPolicy, Refusal};
use commipc_sim::{Feed, Field, Malice, NodeId, Reply, Ticket, Trick, World, is_malicious, run_seed};

use crate::scene::{MOMENT, SOON, Words, control, name, settled, untagged};

const SECOND: Duration = Duration::from_secs(1);

/// Owner and member behind a hub that begins to misbehave when both are in place.
fn behind(seed: u64, malice: Malice) -> World {
    let world = World::seeded(seed).weather(untagged()).malicious_hub("h", Malice::none(), OwnerPolicy::Terminate);
    let mut world = settled(world.rogue("o", "o", true).rogue("m", "m", true).rogue("x", "x", true).connected());
    let _ = world.at("o").listens("ch", None).listens("open", None);
    // What is kept back is told by its words, so that no two answers are alike.
    for who in ["o", "m"] {
        world.serves(who, move |request| Reply::text(&format!("{who} has answered {:?}", request.id)));
        world.feeds(who, move |request| Feed::of(items(&format!("{who} gives {:?}", request.id))));
    }
    let _ = world.at("o").provides_streams("ch", "flow").provides_exchanges("ch", "talk");
    let _ = world.at("m").provides_streams("ch", "mine-flow");
    world.turns("h", malice);
    world
}

/// Items of which no two are alike, one of them of several pieces.
fn items(stamp: &str) -> Vec<Vec<u8>> {
    let item = |number: usize| {
        let mut item = format!("{stamp} as number {number}").into_bytes();
        item.resize(if number == 4 { 50_000 } else { 40 }, b'.');
        item
    };
    (0..8).map(item).collect()
}

fn hub(world: &World) -> NodeId {
    world.hubs()[0]
}

/// Both talk for a while, a third joins and leaves, and the oracles judge what is believed.
fn talk(world: &mut World, channel: &str, rounds: u32) {
    for round in 0..rounds {
        for who in ["o", "m"] {
            let (event, text) =
                (if who == "m" { "ev" } else { "mine" }, |what| format!("{who} {what} as number {round}"));
            world.at(who).broadcasts(channel, "news", &text("says this"));
            world.at(who).calls(channel, event, &text("asks this"), SOON);
            world.at(who).calls(channel, event, &text("asks that"), SOON);
            world.at(who).sends(channel, event, &text("tells this"));
            let flow = if who == "m" { "flow" } else { "mine-flow" };
            world.at(who).streams(channel, flow, &text("wants this"), SOON);
            world.at(who).streams(channel, flow, &text("wants that"), SOON);
        }
        let text = format!("m gives and takes as number {round}");
        world.at("m").exchanges(channel, "talk", &text, SOON, Feed::of(items(&text)));
        world.run_for(MOMENT);
    }
    world.run_for(3 * SECOND);
}

fn played(world: &World, trick: &str) -> u64 {
    world.mallory(hub(world)).and_then(|hub| hub.played().get(trick)).copied().unwrap_or_default()
}

#[test]
pub(crate) fn a6_no_member_takes_a_message_of_which_any_field_was_changed() {
    for field in Field::ALL {
        let mut changed = 0;
        for seed in 0..4 {
            let mut world = behind(seed, Malice::altering(field, 500));
            talk(&mut world, "ch", 6);
            changed += played(&world, field.name());
        }
        assert!(changed >= 3, "{field:?} was changed {changed} times only");
    }
}

#[test]
pub(crate) fn a6_no_member_takes_what_its_hub_made_up_repeated_returned_swapped_or_stripped() {
    for trick in [Trick::Forge, Trick::Replay, Trick::Return, Trick::Swap, Trick::Strip, Trick::Deny] {
        let mut tried = 0;
        for seed in 0..8 {
            let mut world = behind(seed, Malice::none().and(trick, 600));
            talk(&mut world, "ch", 6);
            tried += played(&world, trick.name());
        }
        assert!(tried >= 20, "{trick:?} was tried {tried} times only");
    }
}

/// Two streams of one provider at a time, behind a hub that plays this trick now and then.
fn two_streams(seed: u64, malice: Malice) -> (World, [Ticket; 2]) {
    let mut world = behind(seed, malice);
    let asked = ["this", "that"].map(|text| world.at("m").streams("ch", "flow", text, SOON));
    world.run_for(10 * SECOND);
    (world, asked)
}

/// Everything but the last word passes. A total deadline is each one's own to keep.
#[test]
pub(crate) fn a6_v27_a_stream_whose_end_its_hub_keeps_back_ends_at_its_total_deadline() {
    const TOTAL: Duration = Duration::from_secs(20);
    for (event, gives) in [("flow", None), ("talk", Some(Feed::of(items("m"))))] {
        let mut world = behind(1, Malice::always(Trick::KeepEnd));
        let asked = world.at("m").streams_within("ch", event, "all of it", TOTAL, gives);
        world.run_for(TOTAL - MOMENT);
        assert_eq!((world.items(asked).len(), world.has_ended(asked)), (8, None), "{event}");
        world.run_for(2 * MOMENT);
        let failure = Failure::Local(Misuse::Deadline);
        assert_eq!(
            world.has_ended(asked),
            Some(&Err(CallFailure::Failed { failure, maybe_executed: true })),
            "{event}"
        );
        assert!(played(&world, Trick::KeepEnd.name()) > 0);
    }
}

#[test]
pub(crate) fn a6_without_a_total_deadline_a_hub_can_keep_a_stream_from_ever_ending() {
    let mut world = behind(1, Malice::always(Trick::KeepEnd));
    let asked = world.at("m").streams("ch", "flow", "all of it", SOON);
    world.run_for(3_600 * SECOND);
    assert_eq!((world.items(asked).len(), world.has_ended(asked)), (8, None));
    // Which is up to its caller then.
    world.ask(asked.node, Command::Cancel { call: asked.token });
    assert!(world.end_of(asked).is_err());
}

/// What is accepted is judged by the oracles; here, that no stream which misses something is a whole one.
#[test]
pub(crate) fn a6_a_stream_that_its_hub_cuts_or_mixes_up_is_an_error_and_never_a_success() {
    let whole = |stream: &Ticket, world: &World| world.items(*stream).len() == 8;
    let (world, asked) = two_streams(0, Malice::none());
    assert!(asked.iter().all(|stream| whole(stream, &world) && world.has_ended(*stream) == Some(&Ok(()))));
    for trick in [Trick::Cut, Trick::Skip, Trick::Double, Trick::Reorder, Trick::Switch] {
        let (mut tried, mut broken) = (0, 0);
        for seed in 0..6 {
            let (world, asked) = two_streams(seed, Malice::none().and(trick, 150));
            for stream in asked {
                match world.has_ended(stream) {
                    Some(Ok(())) => assert!(whole(&stream, &world), "{trick:?}, seed {seed}"),
                    Some(Err(_)) => broken += 1,
                    None => panic!("{trick:?}, seed {seed}: it has no end"),
                }
            }
            tried += played(&world, trick.name());
        }
        assert!(tried >= 3, "{trick:?} was tried {tried} times only");
        // What comes twice is dropped.
        assert!(broken > 0 || trick == Trick::Double, "{trick:?} breaks nothing");
    }
}

/// A provider gives all at once of which its hub says that it is wanted. Where it comes so slowly that its member has wanted it
/// by then, it is a whole one.
#[test]
pub(crate) fn a6_a_stream_of_which_a_hub_grants_more_than_was_granted_is_whole_or_an_error() {
    let ended = |seed: u64, malice: Malice| {
        let mut world = behind(seed, malice);
        world.feeds("o", |_| Feed::of((0..200_u8).map(|number| vec![number; 8])));
        let asked = world.at("m").streams("ch", "flow", "all of it", SOON);
        world.run_for(10 * SECOND);
        let ended = world.has_ended(asked).cloned().expect("it has no end");
        assert!(ended.is_err() || world.items(asked).len() == 200, "seed {seed}");
        ended
    };
    let exceeds = Failure::Refused(Refusal::FlowControl);
    let mut broken = 0;
    for seed in 0..6 {
        assert_eq!(ended(seed, Malice::none()), Ok(()));
        match ended(seed, Malice::always(Trick::Grant)) {
            Ok(()) => {}
            Err(CallFailure::Failed { failure, .. }) if failure == exceeds => broken += 1,
            Err(other) => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(broken > 0, "nothing was given that was not wanted");
}

#[test]
pub(crate) fn a6_no_member_joins_a_channel_that_its_hub_cannot_prove_to_be_the_protected_one() {
    for trick in [Trick::Downgrade, Trick::RollBack] {
        for seed in 0..20 {
            let mut world = behind(seed, Malice::none());
            // A protection to roll back to, which the member has left behind.
            let _ = world.at("o").protects("ch", crate::scene::TWO);
            world.run_for(MOMENT);
            let _ = world.at("m").joins("ch", crate::scene::TWO);
            let left = world.at("m").leaves("ch");
            assert_eq!(world.done(left), Ok(()));
            world.turns("h", Malice::always(trick));
            let joining = world.at("m").tries_to_join("ch", crate::scene::TWO);
            let joined = world.done(joining);
            // Of an older password its hub knows what to check it with, so that nothing else keeps a member from going back.
            let why = if trick == Trick::Downgrade { Refusal::NotProtected } else { Refusal::RolledBack };
            assert_eq!(joined, Err(Failure::Refused(why)), "{trick:?}");
            assert!(played(&world, trick.name()) > 0);
        }
    }
}

/// What it keeps from the channel and says to be done when something newer is: that there is another password, or none.
#[test]
pub(crate) fn a6_v13_an_owner_takes_no_older_word_of_its_hub_for_the_latest() {
    for (bares, waits) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = behind(1, Malice::always(Trick::Late));
        let (owner, token) = (world.clients()[0], world.token());
        let older = if bares {
            world.ask(owner, Command::Unprotect { token, channel: ChannelName::new("ch").unwrap() });
            None
        } else {
            Some(world.at("o").tries_to_protect("ch", crate::scene::TWO))
        };
        world.run_for(if waits { 11 * SECOND } else { MOMENT });
        world.turns("h", Malice::none());
        let _ = world.at("o").protects("ch", crate::scene::ONE);
        world.run_for(MOMENT);
        assert_eq!(played(&world, Trick::Late.name()), 1);
        let why = if waits { Failure::Local(Misuse::Deadline) } else { Failure::Refused(Refusal::EpochMismatch) };
        match older {
            Some(older) => assert_eq!(world.done(older), Err(why)),
            None => assert!(world.told("o").iter().any(
                |told| matches!(told, Event::Done { token: ended, result } if *ended == token && *result == Err(why))
            )),
        }
        let _ = world.at("m").joins("ch", crate::scene::ONE).listens("ch", None);
        let said = world.at("o").broadcasts("ch", "news", "under the newer one");
        assert_eq!(world.done(said), Ok(()));
        world.run_for(MOMENT);
        let heard = world.heard("m");
        assert_eq!(&heard.last().unwrap().message.payload.bytes[..], b"under the newer one");
    }
}

/// Whole runs with everything at once. What each trick comes to is counted over all of them.
#[test]
fn a6_in_storms_with_every_trick_nobody_is_fooled() {
    let seeds = (0..2_000).filter(|seed| is_malicious(*seed));
    let mut played = std::collections::BTreeMap::new();
    for seed in seeds {
        let outcome = run_seed(seed);
        assert_eq!(outcome.failures, [], "seed {seed}");
        for (trick, times) in outcome.malice {
            *played.entry(trick).or_insert(0) += times;
        }
    }
    let told = [Trick::Forge, Trick::Replay, Trick::Return, Trick::Swap, Trick::Strip, Trick::Deny];
    for trick in told.into_iter().chain([Trick::Downgrade, Trick::Late]) {
        assert!(played.get(trick.name()).is_some_and(|times| *times >= 3), "{trick:?}: {played:?}");
    }
}

#[test]
pub(crate) fn a6_what_a_hub_hides_shows_within_ten_seconds_where_beacons_pass() {
    let mut world = behind(1, Malice::none());
    talk(&mut world, "ch", 1);
    world.turns("h", Malice::always(Trick::Hide));
    let hidden = world.at("o").broadcasts("ch", "news", "this is kept from you");
    assert_eq!(world.done(hidden), Ok(()));
    let gaps = |world: &World| world.told("m").iter().filter(|event| matches!(event, Event::Gap(_))).count();
    assert_eq!(gaps(&world), 0);
    world.run_for(10 * SECOND + MOMENT);
    assert_eq!(gaps(&world), 1);
}

#[test]
fn a6_what_a_hub_hides_with_all_beacons_stays_hidden() {
    let mut world = behind(1, Malice::none());
    talk(&mut world, "ch", 1);
    world.turns("h", Malice::always(Trick::Hide).and(Trick::HideBeacons, 1_000));
    let hidden = world.at("o").broadcasts("ch", "news", "this is kept from you");
    assert_eq!(world.done(hidden), Ok(()));
    world.run_for(120 * SECOND);
    assert!(world.told("m").iter().all(|event| !matches!(event, Event::Gap(_))));
}

/// It changes, makes up and reads as it likes, in the name of whom it likes.
#[test]
fn a6_on_an_open_channel_a_hub_is_believed_whatever_it_says() {
    let mut world = behind(1, Malice::altering(Field::Payload, 1_000).everywhere());
    let said = world.at("o").broadcasts("open", "news", "genuine");
    assert_eq!(world.done(said), Ok(()));
    world.run_for(MOMENT);
    let heard = world.heard("m");
    let last = heard.last().unwrap();
    assert_eq!((&*last.message.sender.client, &last.message.payload.bytes[..]), ("o", &b"genuind"[..]));
    let forged = Words::of("o", "open", 0).frame(&world, Kind::Broadcast, &[0; 32], "the owner never said this");
    world.injects("h", "m", &forged);
    world.run_for(MOMENT);
    let heard = world.heard("m");
    let last = heard.last().unwrap();
    assert_eq!(
        (&*last.message.sender.client, &last.message.payload.bytes[..]),
        ("o", &b"the owner never said this"[..])
    );
}

#[test]
fn a6_a_hub_reads_what_members_say() {
    let mut world = behind(1, Malice::none());
    let said = world.at("o").broadcasts("ch", "news", "for members only");
    assert_eq!(world.done(said), Ok(()));
    let mut overheard = world.mallory(hub(&world)).unwrap().overheard();
    assert!(overheard.any(|frame| frame.windows(16).any(|window| window == b"for members only")));
}

#[test]
fn a6_a_hub_says_who_owns_a_channel_and_who_may_stay() {
    let mut world = behind(1, Malice::none());
    let (channel, epoch) = (name("ch"), None);
    world.injects("h", "m", &control(&Channel { channel, code: 0, epoch, owner: Some(name("x")) }));
    world.run_for(MOMENT);
    let told = |world: &World, wanted: fn(&Event) -> bool| world.told("m").iter().any(wanted);
    assert!(told(&world, |event| matches!(event, Event::OwnerChanged { owner: Some(who), .. } if &**who == "x")));
    let code = Refusal::Terminated.code();
    world.injects("h", "m", &control(&Channel { channel, code, epoch, owner: None }));
    world.run_for(MOMENT);
    assert!(told(&world, |event| matches!(event, Event::ChannelClosed { .. })));
}

#[test]
fn a6_a_hub_can_keep_everybody_waiting_until_their_deadlines() {
    let mut world = behind(1, Malice::always(Trick::Swap));
    let call = world.at("m").calls("ch", "ev", "are you there?", SOON);
    let failure = Failure::Local(Misuse::Deadline);
    assert_eq!(world.answer(call), Err(CallFailure::Failed { failure, maybe_executed: true }));
}
