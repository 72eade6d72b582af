//! The signed message against vectors made by code that shares nothing with this crate.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use commipc_protocol::Violation;
use commipc_protocol::auth::{ChannelMaster, Kdf, Secret, SenderKey, duplicate_digest, message_ref};
use commipc_protocol::client::{Access, ChannelSalt, Command, Dropped, Event, Token};
use commipc_protocol::hub::{self, DisconnectReason};
use commipc_protocol::wire::{FrameType, Header, Message};
use serde_json::Value;
use support::{World, name};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/vectors.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_message_is_read_as_it_was_made_and_written_back_to_the_byte() {
    let vectors = vectors();
    let cases = vectors["message"].as_array().unwrap();
    assert_eq!(cases.len(), 14);
    for case in cases {
        let title = case["title"].as_str().unwrap();
        let encoded = bytes(&case["encoded"]);
        let message = Message::parse(&encoded).unwrap_or_else(|_| panic!("{title}"));
        assert_eq!(message.protected, bytes(&case["protected"]), "{title}");
        assert_eq!(message.payload, bytes(&case["payload"]), "{title}");
        assert_eq!(message.tag, bytes(&case["tag"]), "{title}");
        assert_eq!(message_ref(message.protected, message.tag)[..], bytes(&case["ref"]), "{title}");
        let digest = duplicate_digest(message.protected, message.payload, message.tag);
        assert_eq!(digest[..], bytes(&case["duplicate_digest"]), "{title}");
        if let Ok(key) = <[u8; 32]>::try_from(bytes(&case["key"])) {
            assert!(SenderKey::new(key).verify(message.protected, message.payload, message.tag), "{title}");
        }
        assert_eq!(written(&message.header), message.protected, "{title}");
        for end in 0..encoded.len() {
            assert!(Message::parse(&encoded[..end]).is_err(), "{title} cut at {end}");
        }
    }
}

fn written(header: &Header<'_>) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    header.encode(&mut out);
    out.to_vec()
}

#[test]
fn every_refused_encoding_is_refused() {
    let vectors = vectors();
    let cases = vectors["envelope_refused"].as_array().unwrap();
    assert!(cases.len() >= 34);
    for case in cases {
        assert!(Message::parse(&bytes(&case[1])).is_err(), "{}", case[0]);
    }
}

#[test]
fn what_only_the_key_can_tell_is_refused_with_the_key() {
    let vectors = vectors();
    let refused = &vectors["envelope_refused_with_the_senders_key"];
    let key = SenderKey::new(bytes(&refused["key"]).try_into().unwrap());
    for case in refused["cases"].as_array().unwrap() {
        let encoded = bytes(&case[1]);
        let accepted =
            Message::parse(&encoded).is_ok_and(|message| key.verify(message.protected, message.payload, message.tag));
        assert!(!accepted, "{}", case[0]);
    }
}

const OWNER: usize = 0;
const SENDER: usize = 1;
const PROVIDER: usize = 2;

/// The channel of the vectors, in their epoch and with their password, its sender and somebody who provides what it calls.
fn payments(salt: ChannelSalt, master: &ChannelMaster) -> World {
    let mut world = World::ready(&["owner", "alice", "provider"]);
    world.open(OWNER, "payments");
    for earlier in 1..3 {
        world.protect(OWNER, "payments", &Secret::key([earlier; 32]), earlier);
    }
    let (channel, master) = (name("payments"), || master.clone());
    world.command(OWNER, Command::Protect { token: Token(2), channel: channel.clone(), salt, master: master() });
    world.expect_done(OWNER, 2);
    for member in [SENDER, PROVIDER] {
        let access = Access { secret: Some(salt.kdf), ..Access::default() };
        world.command(member, Command::Open { token: Token(3), channel: channel.clone(), access });
        assert!(matches!(world.next(member), Event::DeriveChannelKey { salt: asked, .. } if asked == salt));
        world.command(member, Command::ChannelKeyDerived { channel: channel.clone(), salt, master: master() });
        world.expect_done(member, 3);
    }
    world.provide(PROVIDER, 5, "payments", "pay");
    world.hub_events.clear();
    world
}

/// What cannot be parsed ends the link it comes on, at the hub and at the client. What the key alone can tell a hub, which
/// has none, passes on, and no client believes it.
#[test]
fn v1_v3_what_only_the_key_can_tell_is_refused_by_both_machines() {
    let vectors = vectors();
    let known = &vectors["channel"][0];
    let secret = Secret::password(bytes(&known["secret"]));
    let iterations = u32::try_from(known["iterations"].as_u64().unwrap()).unwrap();
    let salt = ChannelSalt { kdf: Kdf::Pbkdf2, salt: bytes(&known["salt"]).try_into().unwrap(), iterations };
    let master = support::master(&secret, salt);
    let framed = |route: u32, message: &[u8]| [&route.to_be_bytes()[..], &[0, 0], message].concat();
    let by_sender = |world: &mut World, message: &[u8]| {
        let body = framed(1, message);
        let length = u32::try_from(body.len() + 1).unwrap();
        world.inject(SENDER, &[&length.to_be_bytes()[..], &[FrameType::Call.number()], &body].concat());
        world.events[PROVIDER].drain(..).collect::<Vec<_>>()
    };
    let by_hub =
        |world: &mut World, message: &[u8]| world.show(PROVIDER, FrameType::Call, &framed(0x8000_0001, message));
    let asked = |told: &[Event]| told.iter().any(|event| matches!(event, Event::Request(_)));
    // As it was signed, it is taken: it is the key that the vectors are made with.
    let call = bytes(&vectors["message"][0]["encoded"]);
    for says in [&by_sender as &dyn Fn(&mut World, &[u8]) -> Vec<Event>, &by_hub] {
        let told = says(&mut payments(salt, &master), &call);
        assert!(asked(&told), "{told:?}");
    }
    let cases = vectors["envelope_refused_with_the_senders_key"]["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 7);
    let (mut parsed, bad) = (0, Violation::BadMessage);
    for case in cases {
        let (title, message) = (&case[0], bytes(&case[1]));
        let parses = Message::parse(&message).is_ok();
        parsed += usize::from(parses);
        let mut world = payments(salt, &master);
        let told = by_sender(&mut world, &message);
        let ended = world.hub_events.iter().any(
            |event| matches!(event, hub::Event::Disconnected { why, .. } if *why == DisconnectReason::Violation(bad)),
        );
        assert_eq!(ended, !parses, "at the hub, {title}: {:?}", world.hub_events);
        let dropped = |told: &[Event]| matches!(told, [Event::Dropped(Dropped::BadSignature)]);
        assert_eq!((asked(&told), dropped(&told)), (false, parses), "behind the hub, {title}: {told:?}");
        let told = by_hub(&mut payments(salt, &master), &message);
        let violated = told.iter().any(|event| matches!(event, Event::Violation(violation) if *violation == bad));
        assert_eq!(
            (asked(&told), dropped(&told), violated),
            (false, parses, !parses),
            "at the client, {title}: {told:?}"
        );
    }
    assert_eq!(parsed, 4);
}

#[test]
fn any_flipped_bit_of_a_signed_message_is_noticed() {
    let vectors = vectors();
    for case in vectors["message"].as_array().unwrap() {
        let Ok(key) = <[u8; 32]>::try_from(bytes(&case["key"])) else { continue };
        let key = SenderKey::new(key);
        let encoded = bytes(&case["encoded"]);
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let accepted = Message::parse(&flipped)
                .is_ok_and(|message| key.verify(message.protected, message.payload, message.tag));
            assert!(!accepted, "{} bit {bit}", case["title"]);
        }
    }
}
