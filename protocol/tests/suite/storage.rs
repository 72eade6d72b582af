//! A hub that stores who owns and protects its channels: what survives a restart, and what a disk that fails means.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::sync::OnceLock;
use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Access, Command, Event, Token};
use commipc_protocol::hub::{self, StateError, StoredChannel, StoredHub};
use commipc_protocol::{AfterGrace, HubId, OwnerPolicy, Refusal, Transport};
use proptest::prelude::*;
use support::{Works, World, name};

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

fn open_with(world: &mut World, client: usize, channel: &str, policy: OwnerPolicy) {
    let access = Access { secret: None, policy: Some(policy), plain: false };
    world.command(client, Command::Open { token: Token(1), channel: name(channel), access });
    world.expect_done(client, 1);
}

fn hold(then: AfterGrace) -> OwnerPolicy {
    OwnerPolicy::Hold { grace: Duration::from_secs(30), then }
}

fn owns(world: &mut World, client: usize, channel: &str) -> bool {
    world.command(client, Command::Reclaim { token: Token(4), channel: name(channel) });
    match world.next(client) {
        Event::OwnerChanged { owner, .. } => {
            world.expect_done(client, 4);
            owner.is_some()
        }
        // Without more it is as it was told to be.
        Event::Done { result, .. } => result.is_ok(),
        other => panic!("{other:?}"),
    }
}

fn try_to_open(world: &mut World, client: usize, token: u64, channel: &str) {
    let (channel, access) = (name(channel), Access::default());
    world.command(client, Command::Open { token: Token(token), channel, access });
}

#[test]
fn v28_d14_s72_a_password_and_its_owner_survive_a_restart() {
    for transport in [Transport::Memory, Transport::Tcp] {
        let mut world = World::storing(&["owner", "member", "stranger"]);
        world.transport = transport;
        world.open(0, "ch");
        world.protect(0, "ch", &key(1), 1);
        world.restart();
        // Who comes first owns nothing, and gets in only with the password.
        try_to_open(&mut world, 2, 7, "ch");
        assert_eq!(world.expect_refused(2), Refusal::PasswordRequired);
        world.try_to_join(2, 7, "ch", &key(2));
        assert_eq!(world.expect_refused(2), Refusal::PasswordWrong);
        world.join(1, "ch", &key(1));
        assert!(!owns(&mut world, 1, "ch"));
        world.join(0, "ch", &key(1));
        world.reclaim(0, "ch");
        assert_eq!(world.expect_owner(1).as_deref(), Some("owner"));
        world.protect(0, "ch", &key(3), 3);
        assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
        world.try_to_join(1, 8, "ch", &key(1));
        assert_eq!(world.expect_refused(1), Refusal::PasswordWrong, "and the epoch goes on rising");
    }
}

#[test]
fn d14_s72_without_a_password_the_owner_stays_the_same_too() {
    let mut world = World::storing(&["owner", "member"]);
    world.open(0, "ch");
    world.restart();
    world.open(1, "ch");
    assert!(!owns(&mut world, 1, "ch"), "though it came first");
    world.open(0, "ch");
    world.reclaim(0, "ch");
    assert_eq!(world.expect_owner(1).as_deref(), Some("owner"));
    world.cut(0);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated);
    assert!(world.disk().files.is_empty(), "nothing is left of it");
    world.open(1, "ch");
    assert!(owns(&mut world, 1, "ch"));
}

#[test]
fn an_owner_that_does_not_come_back_after_a_restart_is_waited_for_a_minute() {
    for (policy, ends) in [(OwnerPolicy::Terminate, true), (OwnerPolicy::Promote, false)] {
        let mut world = World::storing(&["owner", "member"]);
        open_with(&mut world, 0, "ch", policy);
        world.restart();
        world.open(1, "ch");
        world.pass(Duration::from_secs(59));
        assert!(world.events[1].is_empty());
        world.pass(Duration::from_secs(1));
        if ends {
            assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated);
        } else {
            assert_eq!(world.expect_owner(1).as_deref(), Some("member"));
        }
        world.open(0, "ch");
        assert!(!owns(&mut world, 0, "ch") || ends, "who was too late owns it only as a newcomer");
    }
}

#[test]
fn a_grace_counts_from_the_start_of_the_hub() {
    for then in [AfterGrace::Terminate, AfterGrace::Promote] {
        let mut world = World::storing(&["owner", "member"]);
        open_with(&mut world, 0, "ch", hold(then));
        world.cut(0);
        world.pass(Duration::from_secs(29));
        world.restart();
        world.open(1, "ch");
        world.pass(Duration::from_secs(29));
        world.open(0, "ch");
        world.reclaim(0, "ch");
        assert_eq!(world.expect_owner(1).as_deref(), Some("owner"));
    }
}

#[test]
fn a_promotion_in_progress_ends_as_a_termination_with_the_hub() {
    let mut world = World::storing(&["owner", "silent", "other"]);
    open_with(&mut world, 0, "ch", OwnerPolicy::Promote);
    world.protect(0, "ch", &key(1), 1);
    world.join(1, "ch", &key(1));
    world.stalled = Some(1);
    world.cut(0);
    world.stalled = None;
    world.restart();
    world.join(0, "ch", &key(1));
    assert!(!owns(&mut world, 0, "ch"), "its key was forgotten before anybody was asked");
    world.join(2, "ch", &key(1));
    assert!(!owns(&mut world, 2, "ch"));
    try_to_open(&mut world, 1, 9, "ch");
    assert_eq!(world.expect_refused(1), Refusal::PasswordRequired, "the password stays");
}

#[test]
fn who_was_promoted_owns_the_channel_after_a_restart_too() {
    let mut world = World::storing(&["owner", "heir"]);
    open_with(&mut world, 0, "ch", OwnerPolicy::Promote);
    world.open(1, "ch");
    world.cut(0);
    assert_eq!(world.expect_owner(1).as_deref(), Some("heir"));
    world.restart();
    world.open(0, "ch");
    assert!(!owns(&mut world, 0, "ch"));
    world.open(1, "ch");
    world.reclaim(1, "ch");
}

#[test]
fn an_epoch_is_remembered_when_its_channel_is_given_up() {
    let mut world = World::storing(&["owner", "next"]);
    world.open(0, "ch");
    world.protect(0, "ch", &key(1), 1);
    world.command(0, Command::Leave { token: Token(2), channel: name("ch") });
    world.expect_done(0, 2);
    let stored = StoredChannel::decode(&world.disk().files["ch"]).unwrap();
    assert_eq!((stored.epoch(), stored.is_owned(), stored.is_protected()), (1, false, false));
    world.restart();
    assert_eq!(world.hub.load().channels, 1);
    world.pass(Duration::from_secs(24 * 3_600));
    assert_eq!(world.hub.load().channels, 0);
    assert!(world.disk().files.is_empty());
}

#[test]
fn nobody_is_answered_or_evicted_before_it_is_stored() {
    for transport in [Transport::Memory, Transport::Tcp] {
        let mut world = World::storing(&["owner", "member", "late"]);
        world.transport = transport;
        world.open(0, "ch");
        world.open(1, "ch");
        world.disk().works = Works::Later;
        world.try_to_protect(0, 5, "ch", &key(1), 1);
        try_to_open(&mut world, 2, 6, "other");
        assert!(world.events.iter().all(std::collections::VecDeque::is_empty));
        // Who asks meanwhile is answered when that is decided: the owner's next change, and a second opener.
        world.command(0, Command::Unprotect { token: Token(7), channel: name("ch") });
        try_to_open(&mut world, 1, 8, "other");
        assert!(world.events.iter().all(std::collections::VecDeque::is_empty));
        world.catch_up();
        world.expect_done(0, 5);
        assert_eq!(world.expect_refused(0), Refusal::EpochMismatch, "it was asked for in ignorance of the first");
        assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
        world.expect_done(1, 8);
        world.expect_done(2, 6);
        assert!(!owns(&mut world, 1, "other") && owns(&mut world, 2, "other"));
    }
}

#[test]
fn what_cannot_be_stored_is_refused_and_changes_nothing() {
    let mut world = World::storing(&["owner", "member"]);
    world.open(0, "ch");
    world.protect(0, "ch", &key(1), 1);
    world.join(1, "ch", &key(1));
    let files = world.disk().files.clone();
    world.disk().works = Works::Never;
    world.try_to_protect(0, 5, "ch", &key(2), 2);
    assert_eq!(world.expect_refused(0), Refusal::StorageFailed);
    world.command(0, Command::Unprotect { token: Token(6), channel: name("ch") });
    assert_eq!(world.expect_refused(0), Refusal::StorageFailed);
    world.command(0, Command::Terminate { token: Token(7), channel: name("ch") });
    assert_eq!(world.expect_refused(0), Refusal::StorageFailed);
    try_to_open(&mut world, 1, 8, "new");
    assert_eq!(world.expect_refused(1), Refusal::StorageFailed);
    assert_eq!(world.hub.load().channels, 1);
    assert!(world.events[1].is_empty(), "the member notices nothing");
    assert_eq!(world.disk().files, files);
    world.disk().works = Works::AtOnce;
    world.protect(0, "ch", &key(3), 3);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed, "the owner was none the worse for it");
}

#[test]
fn an_owner_that_is_gone_is_kept_until_that_can_be_stored() {
    let mut world = World::storing(&["owner", "member"]);
    open_with(&mut world, 0, "ch", OwnerPolicy::Promote);
    world.open(1, "ch");
    world.disk().works = Works::Never;
    world.cut(0);
    world.pass(Duration::from_secs(60));
    assert!(world.events[1].is_empty(), "no promotion that a restart would undo");
    world.disk().works = Works::AtOnce;
    world.pass(Duration::from_secs(5));
    assert_eq!(world.expect_owner(1).as_deref(), Some("member"));
    // And the one that was promoted gives it up while the disk fails: it is told, and can still come back.
    world.disk().works = Works::Never;
    world.command(1, Command::Leave { token: Token(2), channel: name("ch") });
    assert_eq!(world.expect_refused(1), Refusal::StorageFailed);
}

#[test]
fn a_link_that_ends_while_its_change_is_stored_leaves_the_change_in_force() {
    let mut world = World::storing(&["owner", "member"]);
    world.disk().works = Works::Later;
    try_to_open(&mut world, 0, 5, "ch");
    world.catch_up();
    world.expect_done(0, 5);
    world.try_to_protect(0, 6, "ch", &key(1), 1);
    world.cut(0);
    world.command(0, Command::Connect);
    world.catch_up();
    let stored = StoredChannel::decode(&world.disk().files["ch"]).unwrap();
    assert!(stored.is_protected() && stored.is_owned());
    world.events[0].clear();
    world.disk().works = Works::AtOnce;
    world.join(0, "ch", &key(1));
    world.restart();
    // A claim whose claimant goes before it is stored: another link in its place owns nothing.
    world.disk().works = Works::Later;
    try_to_open(&mut world, 0, 7, "fresh");
    world.cut(0);
    world.catch_up();
    assert!(!world.disk().files.contains_key("fresh"), "as if the owner had left a moment later");
    assert_eq!(world.hub.load().channels, 1);
}

#[test]
fn a_hub_that_is_shut_down_finds_everything_as_it_was() {
    let mut world = World::storing(&["owner", "member"]);
    open_with(&mut world, 0, "plain", OwnerPolicy::Terminate);
    open_with(&mut world, 0, "heirs", OwnerPolicy::Promote);
    world.open(1, "heirs");
    let files = world.disk().files.clone();
    world.feed_hub(commipc_protocol::Input::Command(hub::Command::Shutdown));
    world.run();
    assert_eq!(world.disk().files, files);
    world.restart();
    for channel in ["plain", "heirs"] {
        world.open(0, channel);
        world.reclaim(0, channel);
    }
}

#[test]
fn requests_that_wait_for_the_disk_are_bounded() {
    let mut world = World::storing(&["owner", "flood"]);
    world.disk().works = Works::Later;
    try_to_open(&mut world, 0, 5, "ch");
    for token in 0..100 {
        let (channel, access) = (name("ch"), Access::default());
        world.command(0, Command::Leave { token: Token(1_000 + token), channel: channel.clone() });
        world.command(1, Command::Open { token: Token(token), channel, access });
    }
    world.catch_up();
    world.expect_done(1, 0);
    let before = world.hub.load().memory;
    world.try_to_protect(0, 6, "ch", &key(1), 1);
    let retained = world.hub.load().memory - before;
    assert!(retained < 1 << 10, "{retained}");
}

fn stored(world: &mut World) -> Vec<Vec<u8>> {
    world.disk().files.values().cloned().collect()
}

/// One of every shape: with and without owner, password, epoch, of every policy.
fn samples() -> Vec<Vec<u8>> {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(make_samples).clone()
}

fn make_samples() -> Vec<Vec<u8>> {
    let mut world = World::storing(&["owner", "other"]);
    open_with(&mut world, 0, "terminate", OwnerPolicy::Terminate);
    open_with(&mut world, 0, "promote", OwnerPolicy::Promote);
    open_with(&mut world, 0, "hold", hold(AfterGrace::Promote));
    world.protect(0, "hold", &key(1), 1);
    world.open(0, "left");
    world.protect(0, "left", &Secret::password("p"), 1);
    world.command(0, Command::Leave { token: Token(2), channel: name("left") });
    world.expect_done(0, 2);
    world.open(0, "words");
    world.protect(0, "words", &Secret::password("p"), 1);
    let mut files = stored(&mut world);
    assert_eq!(files.len(), 5);
    let id = HubId::new("hub-a").unwrap();
    files.push(StoredHub { id, key: zeroize::Zeroizing::new([7; 32]) }.encode().to_vec());
    files
}

fn is_refused(file: &[u8]) -> bool {
    StoredChannel::decode(file).is_err() && StoredHub::decode(file).is_err()
}

#[test]
fn a_file_that_is_cut_lengthened_or_changed_in_any_bit_is_refused() {
    for file in samples() {
        assert!(!is_refused(&file));
        for cut in 0..file.len() {
            assert!(is_refused(&file[..cut]), "cut at {cut}");
        }
        for place in 0..file.len() {
            for bit in 0..8 {
                let mut torn = file.clone();
                torn[place] ^= 1 << bit;
                assert!(is_refused(&torn), "byte {place}, bit {bit}");
            }
            // A block that was never written.
            let mut torn = file.clone();
            torn[place..].fill(0);
            assert!(is_refused(&torn) || torn == file, "zero from {place}");
        }
        for more in [&[0][..], &[0; 64], &file.clone()] {
            assert!(is_refused(&[&file[..], more].concat()));
        }
    }
    assert_eq!(StoredChannel::decode(b""), Err(StateError::Foreign));
    assert_eq!(StoredChannel::decode(b"CIPCSTA\x02").unwrap_err(), StateError::Version(2));
    assert_eq!(StoredChannel::decode(b"CIPCSTA\x01").unwrap_err(), StateError::Torn);
}

#[test]
fn a_file_says_what_was_stored_and_prints_no_secret() {
    for file in samples().iter().take(5) {
        let read = StoredChannel::decode(file).unwrap();
        assert_eq!(read.encode().as_slice(), &file[..]);
        let printed = format!("{read:?}");
        assert!(printed.len() < 200 && printed.contains(read.channel().as_str()), "{printed}");
    }
}

proptest! {
    #[test]
    fn whatever_is_read_is_written_back_to_the_byte(
        sample in 0_usize..6,
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        sealed in any::<bool>(),
    ) {
        let mut file = samples().swap_remove(sample);
        for (place, value) in edits {
            let place = place.index(file.len());
            file[place] = value;
        }
        if sealed {
            // As if a hub had written it: then the strict reading alone decides.
            let end = file.len() - 32;
            let sum = <sha2::Sha256 as sha2::Digest>::digest(&file[..end]);
            file[end..].copy_from_slice(&sum);
        }
        if let Ok(channel) = StoredChannel::decode(&file) {
            prop_assert_eq!(channel.encode().to_vec(), file.clone());
        }
        if let Ok(hub) = StoredHub::decode(&file) {
            prop_assert_eq!(hub.encode().to_vec(), file.clone());
        }
    }
}

#[test]
fn who_leaves_while_the_channel_ends_is_answered_too() {
    for alone in [false, true] {
        let mut world = World::storing(&["owner", "member"]);
        world.open(0, "ch");
        if !alone {
            world.open(1, "ch");
        }
        world.disk().works = Works::Later;
        world.command(0, Command::Terminate { token: Token(5), channel: name("ch") });
        world.command(0, Command::Leave { token: Token(6), channel: name("ch") });
        world.catch_up();
        for token in [5, 6] {
            let done = |event: &&Event| matches!(event, Event::Done { token: of, .. } if *of == Token(token));
            assert_eq!(world.events[0].iter().filter(done).count(), 1, "{token}: {:?}", world.events[0]);
        }
    }
}
