//! A3, who is let in by the hub and is no member of the channel.

use bytes::Bytes;
use commipc_protocol::auth::{Capabilities, Credential, Credentials, IdPattern, Secret, Verifier};
use commipc_protocol::client::{Event, Failure};
use commipc_protocol::wire::{Control as _, Open};
use commipc_protocol::{CredentialId, Limits, Refusal, hub};
use commipc_sim::World;

use crate::scene::{
    MOMENT, ONE, Words, all_is_well, claim, demands, is_ready, name, parts, refused_login, says_all, unnoticed,
    untagged, world,
};

#[test]
pub(crate) fn a3_a_stranger_to_a_channel_says_nothing_there_and_hears_nothing() {
    for seed in 0..4 {
        let mut world = world(seed, true);
        let mut frames = Vec::new();
        for (sender, epoch) in [("x", 0), ("x", 1), ("x", 2), ("o", 1), ("m", 1), ("m", 0)] {
            frames.extend(Words::of(sender, "ch", epoch).every_kind(&world));
        }
        // On a channel without a password it may speak, but not as somebody else.
        for sender in ["o", "m"] {
            frames.extend(Words::of(sender, "open", 0).every_kind(&world));
        }
        frames.extend(["open", "ch"].iter().flat_map(|channel| demands(channel)));
        frames.push(claim("ch"));
        // And whatever others have said or heard, to the byte.
        let links = |who| [world.rogue_called(who).said(), world.rogue_called(who).heard()].concat();
        let theirs = ["o", "m"].map(links).concat();
        let may = |frame: &&Bytes| matches!(Open::parse(parts(frame).1), Ok(open) if open.channel == name("open"));
        frames.extend(theirs.iter().filter(|frame| !may(frame)).map(|frame| frame.to_vec()));
        unnoticed(&mut world, |world| says_all(world, "x", &frames));
        let heard = world.rogue_called("x").heard().concat();
        for words in [&b"it is as it was"[..], b"is it?", b"yes"] {
            assert!(!heard.windows(words.len()).any(|window| window == words));
        }
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
fn a3_with_a_credential_of_ones_own_nobody_poses_as_another() {
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

/// A hub that has forgotten everything gives a channel to who opens it first; only members with its password notice.
#[test]
fn a3_after_a_restart_without_state_a_channel_is_the_first_openers() {
    let mut before = world(1, true);
    all_is_well(&mut before);
    let world = World::seeded(2).weather(untagged()).hub("h").client("m").client("x").connected();
    let mut world = world;
    let _ = world.at("x").opens("ch");
    let owned =
        |event: &hub::Event| matches!(event, hub::Event::OwnerChanged { owner: Some(who), .. } if &**who == "x");
    assert!(world.hub_told("h").iter().any(owned));
    let joining = world.at("m").tries_to_join("ch", ONE);
    assert_eq!(world.done(joining), Err(Failure::Refused(Refusal::NotProtected)));
}
