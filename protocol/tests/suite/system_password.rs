//! The hub's own channels with a password: who gets in, that nobody can change it, and that it never goes.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use commipc_protocol::auth::{ChannelMaster, Kdf, Secret};
use commipc_protocol::client::{Access, Command, Event, Outgoing, Payload, Token};
use commipc_protocol::hub::{self, ERRORS_CHANNEL, LOGS_CHANNEL, SYSTEM_CHANNEL, SystemPassword};
use commipc_protocol::wire::{Control, Done, FrameType, Message, Open, Protect, Record, Terminate, Unprotect};
use commipc_protocol::{Input, Name, Refusal};
use support::{World, name, outgoing};

const SALT: [u8; 16] = [8; 16];

fn key() -> Secret {
    Secret::key([5; 32])
}

fn guarded(names: &[&str]) -> World {
    let mut world = World::new(names);
    let master = ChannelMaster::new(&key().derive(&SALT, 0).unwrap()).unwrap();
    let password = SystemPassword::new(Kdf::Key, SALT, 0, &master);
    world.feed_hub(Input::Command(hub::Command::SetSystemPassword(password)));
    world.connect_all();
    world
}

fn ask(world: &mut World, client: usize) -> Result<(), String> {
    let outgoing = Outgoing {
        payload: Payload { bytes: bytes::Bytes::from_static(&[0xf6]), raw: false },
        ..outgoing(SYSTEM_CHANNEL, "channels", b"")
    };
    world.command(client, Command::Call { token: Token(9), outgoing, time_left: Duration::from_secs(1) });
    world.expect_answered(client).1.map(drop).map_err(|failure| failure.to_string())
}

#[test]
fn s34_d6_a_monitor_with_the_password_hears_the_hub_and_others_do_not() {
    for channel in [SYSTEM_CHANNEL, LOGS_CHANNEL, ERRORS_CHANNEL] {
        let mut world = guarded(&["monitor", "stranger", "worker"]);
        world.command(1, Command::Open { token: Token(2), channel: name(channel), access: Access::default() });
        assert_eq!(world.expect_refused(1), Refusal::PasswordRequired);
        world.try_to_join(1, 3, channel, &Secret::key([6; 32]));
        assert_eq!(world.expect_refused(1), Refusal::PasswordWrong);
        world.join(0, channel, &key());
        world.listen(0, 7, channel, None);
        world.command(1, Command::Listen { token: Token(4), channel: name(channel), event: None });
        assert_eq!(world.expect_refused(1), Refusal::NotMember);
        // Something of each kind: a registration, a log line, an error.
        world.open(2, "math");
        world.inject(2, &[0, 0, 0, 2, 16, 0xff]);
        assert!(world.events[0].iter().any(|event| matches!(event, Event::Message(_))), "{channel}");
        for event in &world.events[0] {
            let Event::Message(heard) = event else { panic!("{event:?}") };
            assert_eq!(heard.message.sender.to_string(), "system@hub-a");
        }
        assert!(world.events[1].is_empty());
    }
}

#[test]
fn what_the_hub_holds_is_told_to_those_who_know_the_password() {
    let mut world = guarded(&["monitor", "stranger"]);
    assert!(ask(&mut world, 1).unwrap_err().contains("needs a password"));
    world.join(0, SYSTEM_CHANNEL, &key());
    ask(&mut world, 0).unwrap();
    // Opened twice with the password is as good as once.
    world.join(0, SYSTEM_CHANNEL, &key());
    ask(&mut world, 0).unwrap();
}

#[test]
fn v33_d6_what_it_hears_is_unsigned_and_the_hubs_and_a_password_makes_no_key() {
    let mut world = guarded(&["monitor", "worker"]);
    world.join(0, SYSTEM_CHANNEL, &key());
    world.listen(0, 7, SYSTEM_CHANNEL, None);
    world.open(1, "math");
    let (_, (_, to_monitor)) = world.wire.iter().next().unwrap();
    let heard = frames(to_monitor).filter(|(kind, _)| *kind == FrameType::Broadcast.number());
    let mut count = 0;
    for (_, body) in heard {
        let (_, message) = commipc_protocol::wire::Hop::split(body).unwrap();
        let message = Message::parse(message).unwrap();
        assert_eq!((message.header.epoch, message.tag.len()), (0, 0));
        count += 1;
    }
    assert!(count > 0);
    world.events[0].clear();
    world.command(0, Command::Broadcast { token: Token(3), outgoing: outgoing(SYSTEM_CHANNEL, "x", b"") });
    assert_eq!(world.expect_refused(0), Refusal::HubOwned);
}

fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        bytes = rest;
        Some((frame[0], &frame[1..]))
    })
}

/// What the hub says to a request that no client of ours makes.
fn said(world: &mut World, kind: FrameType, body: &[u8]) -> Refusal {
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(body.len()).unwrap() + 1);
    frame.put_u8(kind.number());
    frame.put_slice(body);
    world.inject(0, &frame);
    let (_, (_, said)) = world.wire.iter().next().unwrap();
    let dones = frames(said).filter(|(kind, _)| *kind == FrameType::Done.number());
    let done = Done::parse(dones.last().unwrap().1).unwrap();
    assert_eq!(done.id, 77);
    Refusal::from_code(done.code).unwrap()
}

#[test]
fn d4_v11_nobody_can_change_the_password_or_own_the_channel() {
    let record = Record { epoch: 2, kdf: 2, salt: &[1; 16], iterations: 0, stored_key: &[2; 32], server_key: &[3; 32] };
    for channel in [SYSTEM_CHANNEL, LOGS_CHANNEL, ERRORS_CHANNEL] {
        for kind in 0..4 {
            for password in [true, false] {
                let mut world = if password { guarded(&["a", "b"]) } else { World::ready(&["a", "b"]) };
                if password {
                    world.join(0, channel, &key());
                } else if kind != 3 {
                    world.open(0, channel);
                }
                let (of, proof) = (Name::new(channel).unwrap(), &[4; 32]);
                let mut body = BytesMut::new();
                let frame = match kind {
                    0 => {
                        Protect { id: 77, channel: of, stored: 1, n: 1, record, proof }.encode(&mut body);
                        FrameType::Protect
                    }
                    1 => {
                        Unprotect { id: 77, channel: of, stored: 1, n: 1, epoch: 2, proof }.encode(&mut body);
                        FrameType::Unprotect
                    }
                    2 => {
                        Terminate { id: 77, channel: of, stored: 1, n: 1, proof }.encode(&mut body);
                        FrameType::Terminate
                    }
                    _ => {
                        let owner = Some(&[5; 32]);
                        Open { id: 77, channel: of, owner, record: Some(record), policy: None, guarded: None }
                            .encode(&mut body);
                        FrameType::Open
                    }
                };
                // A member is one already; nobody else claims by opening.
                if kind == 3 && password {
                    continue;
                }
                assert_eq!(said(&mut world, frame, &body), Refusal::HubOwned, "{channel} {frame:?} {password}");
                if password {
                    world.join(1, channel, &key());
                }
            }
        }
    }
    let mut world = guarded(&["a"]);
    world.join(0, SYSTEM_CHANNEL, &key());
    world.try_to_protect(0, 5, SYSTEM_CHANNEL, &Secret::key([1; 32]), 1);
    assert_eq!(world.expect_refused(0), Refusal::NotOwner, "a client of ours does not even ask");
}

#[test]
fn v12_s34_the_password_stays_when_nobody_is_a_member() {
    let mut world = guarded(&["a", "b"]);
    world.join(0, SYSTEM_CHANNEL, &key());
    world.command(0, Command::Leave { token: Token(3), channel: name(SYSTEM_CHANNEL) });
    world.expect_done(0, 3);
    world.pass(Duration::from_secs(50 * 3_600));
    world.command(1, Command::Open { token: Token(2), channel: name(SYSTEM_CHANNEL), access: Access::default() });
    assert_eq!(world.expect_refused(1), Refusal::PasswordRequired);
    world.join(1, SYSTEM_CHANNEL, &key());
    world.cut(1);
    world.command(0, Command::Open { token: Token(4), channel: name(SYSTEM_CHANNEL), access: Access::default() });
    assert_eq!(world.expect_refused(0), Refusal::PasswordRequired);
}

#[test]
fn guesses_of_it_wait_like_all_guesses() {
    let mut world = guarded(&["a"]);
    for token in 0..5 {
        world.try_to_join(0, token, LOGS_CHANNEL, &Secret::key([6; 32]));
        assert_eq!(world.expect_refused(0), Refusal::PasswordWrong);
    }
    world.try_to_join(0, 9, LOGS_CHANNEL, &Secret::key([6; 32]));
    assert!(world.events[0].is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.expect_refused(0), Refusal::PasswordWrong);
}
