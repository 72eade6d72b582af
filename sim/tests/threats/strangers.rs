//! A3, who is let in by the hub and is no member of the channel.

use bytes::Bytes;
use commipc_protocol::auth::{Capabilities, Credential, Credentials, IdPattern, Secret, Verifier};
use commipc_protocol::client::{Away, CallFailure, Command, Event, Failure, Outgoing, Payload};
use commipc_protocol::wire::{Control as _, Open};
use commipc_protocol::{ChannelName, CredentialId, EventName, Limits, Refusal, hub};
use commipc_sim::World;

use crate::scene::{
    MOMENT, ONE, SOON, TWO, Words, all_is_well, claim, demands, is_ready, name, parts, refused_login, says_all,
    settled, unnoticed, untagged, world,
};

/// What somebody says who wants to be heard in channels that are others'.
fn of_a_stranger(world: &World) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (sender, epoch) in [("x", 0), ("x", 1), ("x", 2), ("o", 1), ("m", 1), ("m", 0)] {
        frames.extend(Words::of(sender, "ch", epoch).every_kind(world));
    }
    // On a channel without a password it may speak, but not as somebody else.
    for sender in ["o", "m"] {
        frames.extend(Words::of(sender, "open", 0).every_kind(world));
    }
    frames.extend(["open", "ch"].iter().flat_map(|channel| demands(channel)));
    frames.push(claim("ch"));
    // And whatever others have said or heard, to the byte.
    let links = |who| [world.rogue_called(who).said(), world.rogue_called(who).heard()].concat();
    let theirs = ["o", "m"].map(links).concat();
    let may = |frame: &&Bytes| matches!(Open::parse(parts(frame).1), Ok(open) if open.channel == name("open"));
    frames.extend(theirs.iter().filter(|frame| !may(frame)).map(|frame| frame.to_vec()));
    frames
}

/// Nothing that a stranger says is noticed by others, and nothing that they say is heard by it.
fn says_and_hears_nothing(world: &mut World) {
    let frames = of_a_stranger(world);
    unnoticed(world, |world| says_all(world, "x", &frames));
    let heard = world.rogue_called("x").heard().concat();
    for words in [&b"it is as it was"[..], b"is it?", b"yes"] {
        assert!(!heard.windows(words.len()).any(|window| window == words));
    }
}

/// Asks for the end of the channel with a password; why it is refused, if it is.
fn clears(world: &mut World, who: &str) -> Option<Failure> {
    if !is_ready(world, who) {
        let _ = world.at(who).connects();
        world.run_for(MOMENT);
    }
    let (node, token) = (world.at(who).id(), world.token());
    let outgoing = Outgoing {
        channel: ChannelName::new(hub::SYSTEM_CHANNEL).unwrap(),
        event: EventName::new("clear").unwrap(),
        payload: Payload { bytes: Bytes::from_static(b"\xa1\x67channel\x62ch"), raw: false },
        metadata: Bytes::new(),
        idempotent: false,
        guarded: false,
        away: Away::Fail,
    };
    world.ask(node, Command::Call { token, outgoing, time_left: SOON });
    world.run_for(MOMENT);
    let answered = world.told(who).iter().find_map(|event| {
        let Event::Answered { token: of, result } = event else { return None };
        (*of == token).then_some(result)
    });
    match answered.unwrap() {
        Ok(_) => None,
        Err(CallFailure::Failed { failure, .. }) => Some(*failure),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
pub(crate) fn a3_a_stranger_to_a_channel_says_nothing_there_and_hears_nothing() {
    for seed in 0..4 {
        let mut world = world(seed, true);
        says_and_hears_nothing(&mut world);
        let not_allowed = Some(Failure::Refused(Refusal::NotAllowed));
        unnoticed(&mut world, |world| assert_eq!(clears(world, "x"), not_allowed));
        // Nor does anybody else end it so, its owner included.
        for who in ["m", "o"] {
            assert_eq!(clears(&mut world, who), not_allowed);
        }
        all_is_well(&mut world);
    }
}

/// That it may end what others own makes it no member: before that it is a stranger there, and afterwards nothing is left of
/// the channel that it could have.
#[test]
pub(crate) fn a3_an_admin_ends_a_channel_and_neither_speaks_there_nor_hears_nor_owns() {
    for seed in 0..4 {
        let world = World::seeded(seed).weather(untagged()).hub("h");
        let world = world.rogue("o", "o", true).rogue("m", "m", true).admin(true).rogue("x", "x", true);
        let mut world = settled(world.connected());
        says_and_hears_nothing(&mut world);
        assert_eq!(clears(&mut world, "x"), None);
        let ended = Failure::Refused(Refusal::Terminated);
        for who in ["o", "m"] {
            let told = |event: &Event| matches!(event, Event::ChannelClosed { why, .. } if *why == ended);
            assert!(world.told(who).iter().any(told), "{who} is told");
        }
        let joining = world.at("x").tries_to_join("ch", ONE);
        assert_eq!(world.done(joining), Err(Failure::Refused(Refusal::NotProtected)), "with its password it is gone");
        // It is whoever's that opens it next, under a password that no admin knows.
        let _ = world.at("o").opens("ch").protects("ch", TWO).provides("ch", "ev");
        let _ = world.at("m").joins("ch", TWO).listens("ch", None);
        let _ = world.at("o").provides_streams("ch", "count");
        says_and_hears_nothing(&mut world);
    }
}

#[test]
fn a3_with_one_shared_secret_a_free_id_is_anybodys() {
    let mut world = World::seeded(1).weather(untagged()).hub("h").client("m").rogue("x", "m", true).connected();
    let of_x = world.told("x").iter().any(|event| matches!(event, Event::Ready(_)));
    assert_ne!(of_x, is_ready(&world, "m"), "one of them");
    let (first, second) = if of_x { ("x", "m") } else { ("m", "x") };
    assert_eq!(refused_login(&world, second), Some(Refusal::IdInUse));
    let _ = world.at(first).closes();
    world.run_for(MOMENT);
    let _ = world.at(second).connects();
    world.run_for(MOMENT);
    assert!(is_ready(&world, second), "nothing tells one from the other");
}

#[test]
fn a3_whoever_shares_the_secret_can_be_the_hub() {
    let world = World::seeded(1).hub_with_key("h", [1; 32]).client("c").connected();
    assert!(is_ready(&world, "c"));
    let world = World::seeded(1).hub_with_key("somebody else's", [1; 32]).client("c").connected();
    assert!(is_ready(&world, "c"), "its hub proves that it knows the secret, and no more");
}

/// A table in which everybody has a secret and ids of their own.
fn each_its_own(keys: &[(&str, [u8; 32])]) -> Credentials {
    keys.iter().fold(Credentials::new([7; 32]), |table, (who, key)| {
        let verifier = Verifier::new(&Secret::key(*key), [9; 16], 0).unwrap();
        let credential = Credential::new(verifier, Capabilities::default(), vec![IdPattern::new(who).unwrap()]);
        table.with(CredentialId::new(who).unwrap(), credential)
    })
}

#[test]
pub(crate) fn a3_with_a_credential_of_ones_own_nobody_poses_as_another() {
    let (of_c, of_x) = ([1; 32], [2; 32]);
    let credential = |who| CredentialId::new(who).unwrap();
    let table = each_its_own(&[("c", of_c), ("x", of_x)]);
    for seed in 0..20 {
        let world = World::seeded(seed).hub_with_credentials("h", [0; 32], table.clone());
        // With its own credential, and with the other's but its own secret.
        let world = world.proving(credential("x"), of_x).client_with("x", "c", Limits::default(), true);
        let world = world.proving(credential("c"), of_x).client_with("y", "c", Limits::default(), false);
        let world = world.proving(credential("x"), of_x).client_with("z", "x", Limits::default(), true);
        let world = world.connected();
        assert!(refused_login(&world, "x").is_some() && refused_login(&world, "y").is_some());
        assert!(is_ready(&world, "z"), "its own id is its own");
        let admitted = world.hub_told("h").iter().filter(|event| matches!(event, hub::Event::Connected { .. }));
        assert_eq!(admitted.count(), 1);
    }
    // A hub that knows its own credential alone.
    let world = World::seeded(1).hub_with_credentials("h", [0; 32], each_its_own(&[("x", of_x)]));
    let world = world.proving(credential("c"), of_c).client_with("c", "c", Limits::default(), false).connected();
    assert!(!is_ready(&world, "c"));
}

/// The hub of a channel with a password dies and starts again, having stored nothing; its clients come back in this order.
fn restarted(order: [&str; 3]) -> World {
    let world = World::seeded(1).forgetful().weather(untagged()).hub("h");
    let mut world = settled(world.client("o").client("m").client("x").connected());
    all_is_well(&mut world);
    let hub = world.hubs()[0];
    world.kill_hub(hub, false);
    world.run_for(MOMENT);
    world.start_hub(hub);
    for who in order {
        assert!(!is_ready(&world, who), "{who} has lost it");
        let _ = world.at(who).connects();
        world.run_for(MOMENT);
        assert!(is_ready(&world, who), "{who} is back");
    }
    world
}

/// A hub that has forgotten everything gives a channel to who opens it first. Its old owner is told that it is no more its
/// own, and nobody who knows the password takes the new channel for the old one.
#[test]
fn a3_after_a_restart_without_state_a_channel_is_the_first_openers() {
    let mut world = restarted(["x", "o", "m"]);
    let _ = world.at("x").opens("ch");
    let owned =
        |event: &hub::Event| matches!(event, hub::Event::OwnerChanged { owner: Some(who), .. } if &**who == "x");
    assert!(world.hub_told("h").iter().any(owned));
    let heard = |world: &World| ["o", "m"].map(|who| world.heard(who).len());
    let before = heard(&world);
    for who in ["o", "m", "o", "m"] {
        let joining = world.at(who).tries_to_join("ch", ONE);
        assert_eq!(world.done(joining), Err(Failure::Refused(Refusal::NotProtected)), "{who} has a password for it");
        let call = world.at(who).calls("ch", "ev", "is it?", SOON);
        assert!(world.answer(call).is_err(), "{who} has nobody to ask there");
    }
    let said = world.at("x").broadcasts("ch", "news", "this is my channel");
    assert_eq!(world.done(said), Ok(()));
    world.run_for(MOMENT);
    assert_eq!(heard(&world), before, "it speaks to itself");
    // Who opens it without a password, as one knows that does not ask for the old channel, is a guest there.
    let _ = world.at("o").opens("ch");
    let protecting = world.at("o").tries_to_protect("ch", ONE);
    assert_eq!(world.done(protecting), Err(Failure::Refused(Refusal::NotOwner)));
    let node = world.at("o").id();
    let token = world.token();
    world.ask(node, Command::Reclaim { token, channel: ChannelName::new("ch").unwrap() });
    world.run_for(MOMENT);
    let refused = Err(Failure::Refused(Refusal::NotOwner));
    let told = |event: &Event| matches!(event, Event::Done { token: of, result } if *of == token && *result == refused);
    assert!(world.told("o").iter().any(told), "{:?}", world.told("o").last());
}

/// If its owner is the first, nothing has changed for anybody.
#[test]
fn a3_after_a_restart_without_state_an_owner_that_comes_first_owns_and_protects_anew() {
    let mut world = restarted(["o", "x", "m"]);
    let _ = world.at("o").opens("ch").protects("ch", ONE).provides("ch", "ev");
    let opening = world.at("x").tries_to_open("ch");
    assert_eq!(world.done(opening), Err(Failure::Refused(Refusal::PasswordRequired)));
    let _ = world.at("m").joins("ch", ONE);
    let call = world.at("m").calls("ch", "ev", "is it?", SOON);
    assert_eq!(&world.answer(call).unwrap().payload.bytes[..], b"yes");
}
