//! What an admin may do with channels that are others', and that nobody else may.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use ciborium::Value;
use commipc_protocol::auth::{Capabilities, Credential, IdPattern, Secret, Verifier};
use commipc_protocol::client::{Access, CallFailure, Command, Event, Failure, Message, Outgoing, Payload, Token};
use commipc_protocol::hub::{self, SYSTEM_CHANNEL, StoredChannel};
use commipc_protocol::{AfterGrace, CredentialId, FaultCode, Input, Limits, OwnerPolicy, Refusal};
use support::{KEY, Works, World, client, client_as, name, outgoing};

const OWNER: usize = 0;
const MEMBER: usize = 1;
const MONITOR: usize = 2;
const BOSS: usize = 3;

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

/// An owner, a member and a monitor of the shared secret, and one who can do `what`, but see nothing.
fn world(what: Capabilities, policy: OwnerPolicy, stores: bool) -> World {
    let boss = CredentialId::new("boss").unwrap();
    let verifier = Verifier::new(&key(6), [4; 16], 100_000).unwrap();
    let credential = Credential::new(verifier, what, vec![IdPattern::any()]);
    let table = support::credentials(&Secret::key(KEY)).with(boss.clone(), credential);
    let mut clients: Vec<_> = ["owner", "member", "monitor"].map(|id| client(id, Secret::key(KEY))).into();
    clients.push(client_as("boss", boss, key(6), Limits::default()));
    let mut world = World::with(support::hub(Limits::default()), clients);
    if stores {
        world.disk = Some(support::Disk::default());
        world.feed_hub(Input::Command(hub::Command::Restore(Vec::new())));
    }
    world.feed_hub(Input::Command(hub::Command::SetCredentials(table)));
    world.connect_all();
    let access = Access { secret: None, policy: Some(policy), plain: false };
    world.command(OWNER, Command::Open { token: Token(1), channel: name("vault"), access });
    world.expect_done(OWNER, 1);
    world.protect(OWNER, "vault", &key(1), 1);
    world.join(MEMBER, "vault", &key(1));
    world.open(MONITOR, SYSTEM_CHANNEL);
    world.listen(MONITOR, 7, SYSTEM_CHANNEL, None);
    world
}

fn ask_to_clear(world: &mut World, who: usize, question: &Value) {
    let mut bytes = Vec::new();
    ciborium::into_writer(question, &mut bytes).unwrap();
    let payload = Payload { bytes: bytes.into(), raw: false };
    let outgoing = Outgoing { payload, ..outgoing(SYSTEM_CHANNEL, "clear", b"") };
    world.command(who, Command::Call { token: Token(99), outgoing, time_left: Duration::from_secs(30) });
}

fn of(channel: &str) -> Value {
    Value::Map(vec![("channel".into(), channel.into())])
}

fn answered(world: &mut World, who: usize) -> Result<(), Refusal> {
    match world.expect_answered(who).1 {
        Ok(answer) => {
            assert_eq!(
                (answer.provider.to_string().as_str(), &answer.payload.bytes[..]),
                ("system@hub-a", &[0xf6][..])
            );
            Ok(())
        }
        Err(CallFailure::Failed { failure: Failure::Refused(refusal), .. }) => Err(refusal),
        Err(other) => panic!("{other:?}"),
    }
}

fn clear(world: &mut World, who: usize, channel: &str) -> Result<(), Refusal> {
    ask_to_clear(world, who, &of(channel));
    answered(world, who)
}

/// What the monitor has heard of channels that ended.
fn ends(world: &mut World) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(event) = world.events[MONITOR].pop_front() {
        let Event::Message(Message { message, .. }) = event else { panic!("{event:?}") };
        let fields: Value = ciborium::from_reader(&message.payload.bytes[..]).unwrap();
        let field = |name: &str| {
            let found = fields.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some(name));
            found.and_then(|(_, value)| value.as_text()).unwrap_or("-").to_owned()
        };
        if ["channel_terminated", "channel_cleared"].contains(&&*message.event) {
            told.push(format!("{} {} {}", &*message.event, field("channel"), field("client_id")));
        }
    }
    told
}

const TOLD: [&str; 2] = ["channel_terminated vault -", "channel_cleared vault boss"];

#[test]
fn an_admin_ends_a_channel_for_all_its_members_and_its_password_with_it() {
    let mut world = world(Capabilities::ADMIN, OwnerPolicy::Promote, false);
    world.provide(OWNER, 5, "vault", "ev");
    world.call(MEMBER, 9, "vault", "ev", b"");
    world.expect_request(OWNER);
    assert_eq!(clear(&mut world, BOSS, "vault"), Ok(()));
    let failed = world.expect_answered(MEMBER).1.unwrap_err().to_string();
    assert!(failed.contains("ended"), "calls that are on their way end with it: {failed}");
    assert_eq!(world.expect_closed(MEMBER, "vault"), Refusal::Terminated);
    assert!(matches!(world.next(OWNER), Event::RequestEnded { .. }));
    assert_eq!(world.expect_closed(OWNER, "vault"), Refusal::Terminated, "its owner too");
    assert_eq!(ends(&mut world), TOLD);
    // Nobody is promoted: it is whoever's that opens it next, without the old password, and with the next epoch.
    world.open(MEMBER, "vault");
    world.open(OWNER, "vault");
    world.command(OWNER, Command::Reclaim { token: Token(4), channel: name("vault") });
    assert_eq!(world.expect_refused(OWNER), Refusal::NotOwner);
    world.protect(MEMBER, "vault", &key(2), 2);
    assert_eq!(world.expect_closed(OWNER, "vault"), Refusal::Rekeyed);
    world.try_to_join(OWNER, 8, "vault", &key(1));
    assert_eq!(world.expect_refused(OWNER), Refusal::PasswordWrong, "and its old keys fit nothing any more");
}

#[test]
fn an_admin_clears_what_nobody_is_left_to_unlock() {
    for policy in [OwnerPolicy::Terminate, OwnerPolicy::Hold { grace: Duration::MAX, then: AfterGrace::Promote }] {
        let mut world = world(Capabilities::ADMIN, policy, false);
        world.cut(MEMBER);
        world.cut(OWNER);
        ends(&mut world);
        world.command(BOSS, Command::Open { token: Token(1), channel: name("vault"), access: Access::default() });
        assert_eq!(world.expect_refused(BOSS), Refusal::PasswordRequired, "an admin knows no password");
        assert_eq!(clear(&mut world, BOSS, "vault"), Ok(()));
        assert_eq!(ends(&mut world), TOLD);
        // Who knew it is not taken in, and who owned it is told.
        world.connect_again(OWNER);
        world.try_to_join(OWNER, 2, "vault", &key(1));
        assert_eq!(world.expect_refused(OWNER), Refusal::NotProtected);
        world.open(BOSS, "vault");
        world.protect(BOSS, "vault", &key(2), 2);
        // After a day without members it is as if it had never been.
        world.command(BOSS, Command::Leave { token: Token(3), channel: name("vault") });
        world.expect_done(BOSS, 3);
        world.pass(Duration::from_secs(24 * 3_600));
        assert_eq!(clear(&mut world, BOSS, "vault"), Err(Refusal::NoSuchChannel));
    }
}

#[test]
fn nobody_else_clears_anything() {
    let all_others = Capabilities::OBSERVER | Capabilities::BRIDGE;
    for others in [Capabilities::NONE, Capabilities::OBSERVER, Capabilities::BRIDGE, all_others] {
        let mut world = world(others, OwnerPolicy::Terminate, false);
        for who in [OWNER, MEMBER, MONITOR, BOSS] {
            ends(&mut world);
            for channel in ["vault", "nowhere"] {
                assert_eq!(clear(&mut world, who, channel), Err(Refusal::NotAllowed), "{others:?}");
            }
        }
        assert!(world.events.iter().all(std::collections::VecDeque::is_empty), "nobody notices");
        world.protect(OWNER, "vault", &key(2), 2);
    }
}

#[test]
fn v17_an_admin_clears_no_channel_of_the_hubs_own_and_nothing_without_a_name() {
    let mut world = world(Capabilities::ADMIN, OwnerPolicy::Terminate, false);
    for channel in [SYSTEM_CHANNEL, "__comm_ipc_logs", "__comm_ipc_anything"] {
        assert_eq!(clear(&mut world, BOSS, channel), Err(Refusal::HubOwned));
    }
    for question in [Value::Null, Value::Map(Vec::new()), "vault".into()] {
        ask_to_clear(&mut world, BOSS, &question);
        let Err(CallFailure::Fault(fault)) = world.expect_answered(BOSS).1 else { panic!("{question:?}") };
        assert_eq!(fault.code, FaultCode::BadPayload.code());
    }
    assert!(ends(&mut world).is_empty() && world.events[MEMBER].is_empty());
}

#[test]
fn what_is_cleared_is_stored_first() {
    let mut world = world(Capabilities::ADMIN, OwnerPolicy::Terminate, true);
    world.disk().works = Works::Later;
    ask_to_clear(&mut world, BOSS, &of("vault"));
    assert!([BOSS, MEMBER, OWNER].iter().all(|who| world.events[*who].is_empty()), "nobody is told before");
    assert_eq!(clear(&mut world, BOSS, "vault"), Err(Refusal::Overloaded), "one change at a time");
    // What its owner asks meanwhile is too late.
    world.try_to_protect(OWNER, 5, "vault", &key(2), 2);
    world.settle(true);
    assert_eq!(answered(&mut world, BOSS), Ok(()));
    assert_eq!(world.expect_closed(MEMBER, "vault"), Refusal::Terminated);
    assert_eq!(world.expect_closed(OWNER, "vault"), Refusal::Terminated);
    assert_eq!(world.expect_refused(OWNER), Refusal::NotMember);
    let stored = StoredChannel::decode(&world.disk().files["vault"]).unwrap();
    assert_eq!((stored.epoch(), stored.is_owned(), stored.is_protected()), (1, false, false));
    // An admin that goes meanwhile has asked all the same.
    world.open(OWNER, "other");
    world.disk().works = Works::Later;
    ask_to_clear(&mut world, BOSS, &of("other"));
    world.cut(BOSS);
    world.settle(true);
    assert_eq!(world.expect_closed(OWNER, "other"), Refusal::Terminated);
    assert!(!world.disk().files.contains_key("other"));
}

#[test]
fn what_cannot_be_stored_is_not_cleared() {
    let mut world = world(Capabilities::ADMIN, OwnerPolicy::Terminate, true);
    let files = world.disk().files.clone();
    ends(&mut world);
    world.disk().works = Works::Never;
    assert_eq!(clear(&mut world, BOSS, "vault"), Err(Refusal::StorageFailed));
    assert_eq!(world.disk().files, files);
    assert!(world.events.iter().all(std::collections::VecDeque::is_empty));
    world.disk().works = Works::AtOnce;
    world.protect(OWNER, "vault", &key(2), 2);
    assert_eq!(world.expect_closed(MEMBER, "vault"), Refusal::Rekeyed, "the owner owns it as before");
}

#[test]
fn a_channel_that_waits_for_an_owner_is_cleared_as_well() {
    let hold = OwnerPolicy::Hold { grace: Duration::from_secs(60), then: AfterGrace::Promote };
    for policy in [OwnerPolicy::Promote, hold] {
        let mut world = world(Capabilities::ADMIN, policy, false);
        // The member is asked whether it wants to own the channel, and does not hear it.
        world.deceived = Some(MEMBER);
        world.cut(OWNER);
        world.deceived = None;
        ends(&mut world);
        assert_eq!(clear(&mut world, BOSS, "vault"), Ok(()));
        assert_eq!(ends(&mut world), TOLD);
        world.pass(Duration::from_secs(600));
        assert!(ends(&mut world).is_empty(), "no timer of before ends it once more");
        world.open(BOSS, "vault");
        world.protect(BOSS, "vault", &key(2), 2);
    }
}
