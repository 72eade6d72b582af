//! The signed message against vectors made by code that shares nothing with this crate.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use commipc_protocol::auth::{SenderKey, duplicate_digest, message_ref};
use commipc_protocol::wire::{Header, Message};
use serde_json::Value;

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
