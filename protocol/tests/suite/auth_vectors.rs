//! Every formula of the key schedule against vectors made by an independent implementation.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;

use commipc_protocol::auth::{
    ChannelMaster, ConnectionKeys, JoinTranscript, JoinVerifier, Kdf, OwnerKey, OwnerTranscript, RecordTagger, Salted,
    Secret, SenderKey, TakeoverSecret, TranscriptHash, Verifier, duplicate_digest, message_ref,
};
use commipc_protocol::{ChannelName, HubId};
use serde_json::Value;

fn vectors(section: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../vectors/vectors.json")).unwrap();
    let entries = all[section].as_array().unwrap().clone();
    assert!(!entries.is_empty(), "{section} is empty");
    entries
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap_or_else(|| panic!("no text {field}"))
}

fn number(entry: &Value, field: &str) -> u64 {
    entry[field].as_u64().unwrap_or_else(|| panic!("no number {field}"))
}

fn bytes(entry: &Value, field: &str) -> Vec<u8> {
    let hex = text(entry, field);
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn array<const N: usize>(entry: &Value, field: &str) -> [u8; N] {
    bytes(entry, field).try_into().unwrap()
}

fn utf8(entry: &Value, field: &str) -> String {
    String::from_utf8(bytes(entry, field)).unwrap()
}

fn secret(entry: &Value) -> Secret {
    match Kdf::from_id(number(entry, "kdf")).unwrap() {
        Kdf::Pbkdf2 => Secret::password(bytes(entry, "secret")),
        Kdf::Key => Secret::key(array(entry, "secret")),
        Kdf::Insecure => Secret::insecure(),
    }
}

fn iterations(entry: &Value) -> u32 {
    number(entry, "iterations").try_into().unwrap()
}

fn salted(entry: &Value) -> Salted {
    secret(entry).derive(&array(entry, "salt"), iterations(entry)).unwrap()
}

/// Derives once what several entries share: unoptimised, PBKDF2 takes more than a second.
#[derive(Default)]
struct Derived(BTreeMap<[String; 4], Salted>);

impl Derived {
    fn of(&mut self, entry: &Value) -> Salted {
        let inputs = ["secret", "kdf", "salt", "iterations"].map(|field| entry[field].to_string());
        self.0.entry(inputs).or_insert_with(|| salted(entry)).clone()
    }
}

fn flipped<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    bytes[N / 2] ^= 0x10;
    bytes
}

#[test]
fn connections() {
    for entry in &vectors("connection") {
        let verifier = Verifier::new(&secret(entry), array(entry, "salt"), iterations(entry)).unwrap();
        assert_eq!(verifier.stored_key(), &array::<32>(entry, "stored_key"));
        assert_eq!(verifier.server_key(), &array::<32>(entry, "server_key"));
        assert_eq!(verifier.salt(), array::<16>(entry, "salt"));

        let hello = bytes(entry, "magic_and_hello_frame");
        let challenge = bytes(entry, "challenge_frame");
        let th = TranscriptHash::connection(&hello, &challenge, &bytes(entry, "binding"));
        assert_eq!(th.as_bytes(), &array::<32>(entry, "transcript_hash"));

        let keys = ConnectionKeys::new(&salted(entry));
        let proof = keys.client_proof(&th);
        assert_eq!(proof, array::<32>(entry, "client_proof"));
        let proven = verifier.verify_client(&th, &proof).unwrap();
        assert!(verifier.verify_client(&th, &flipped(proof)).is_none());

        let welcome = bytes(entry, "welcome_body_without_proof");
        let server_proof = proven.server_proof(&welcome);
        assert_eq!(server_proof, array::<32>(entry, "server_proof"));
        assert!(keys.verify_server_proof(&th, &proof, &welcome, &server_proof));
        assert!(!keys.verify_server_proof(&th, &proof, &welcome, &flipped(server_proof)));
        assert!(!keys.verify_server_proof(&th, &flipped(proof), &welcome, &server_proof));
        assert!(!keys.verify_server_proof(&th, &proof, b"another welcome", &server_proof));
    }
}

#[test]
fn record_tags_and_masks() {
    for entry in &vectors("connection") {
        let th = TranscriptHash::from_bytes(array(entry, "transcript_hash"));
        let keys = ConnectionKeys::new(&salted(entry));
        let kdf = Kdf::from_id(number(entry, "kdf")).unwrap();
        let (stored_key, server_key) = (array(entry, "stored_key"), array(entry, "server_key"));
        let verifier = Verifier::from_parts(kdf, array(entry, "salt"), iterations(entry), stored_key, server_key);
        let verifier = verifier.unwrap();
        let mut client = keys.record_keys(&th);
        let mut hub = verifier.verify_client(&th, &keys.client_proof(&th)).unwrap().record_keys();
        for tagged in entry["record_tags"].as_array().unwrap() {
            let (from, to): (&mut RecordTagger, &mut RecordTagger) = match text(tagged, "direction") {
                "c2h" => (&mut client.c2h, &mut hub.c2h),
                "h2c" => (&mut hub.h2c, &mut client.h2c),
                other => panic!("direction {other}"),
            };
            let body = bytes(tagged, "body");
            let (length, ftype) = (1 + body.len() as u32, number(tagged, "type") as u8);
            let (head, tail) = body.split_at(body.len() / 3);
            assert_eq!(from.counter(), number(tagged, "counter"));
            let tag = from.next_tag(length, ftype, &[head, tail]);
            assert_eq!(tag, array::<16>(tagged, "tag"));
            assert!(to.verify_next(length, ftype, &[&body], &tag));
        }
        assert_eq!(*client.mask.mask(5), array::<96>(entry, "mask_counter_5"));
        assert_eq!(*hub.mask.mask(5), array::<96>(entry, "mask_counter_5"));
        assert_ne!(*hub.mask.mask(6), array::<96>(entry, "mask_counter_5"));
    }
}

#[test]
fn takeovers() {
    for entry in &vectors("takeover") {
        let secret = TakeoverSecret::new(array(entry, "secret"));
        let th = TranscriptHash::from_bytes(array(entry, "transcript_hash"));
        let (stored, proof) = (secret.stored_key(), secret.proof(&th));
        assert_eq!(stored, array::<32>(entry, "takeover_stored_key"));
        assert_eq!(proof, array::<32>(entry, "takeover_proof"));
        assert!(TakeoverSecret::verify(&stored, &th, &proof));
        assert!(!TakeoverSecret::verify(&stored, &th, &flipped(proof)));
        assert!(!TakeoverSecret::verify(&stored, &TranscriptHash::from_bytes([0; 32]), &proof));
        assert!(!TakeoverSecret::verify(&flipped(stored), &th, &proof));
    }
}

#[test]
fn channels() {
    let mut derived = Derived::default();
    for entry in &vectors("channel") {
        let (name, salt, epoch) = (utf8(entry, "name"), array(entry, "salt"), number(entry, "epoch"));
        let master = ChannelMaster::new(&derived.of(entry)).unwrap();
        let keys = master.keys(&name, &salt, epoch);
        let verifier = keys.join().verifier();
        assert_eq!(verifier.stored_key(), &array::<32>(entry, "join_stored_key"));
        assert_eq!(verifier.server_key(), &array::<32>(entry, "join_server_key"));
        assert!(verifier.same(&master.join_keys(&name, &salt, epoch).verifier()));
        assert!(!verifier.same(&master.join_keys(&name, &salt, epoch + 1).verifier()));

        let session = TranscriptHash::from_bytes(array(entry, "session_transcript_hash"));
        let (nonce_client, nonce_hub) = (array(entry, "nonce_client"), array(entry, "nonce_hub"));
        let th = JoinTranscript::new(&session, &name, epoch, &nonce_client, &nonce_hub, &utf8(entry, "client_id"));
        let th = th.unwrap();
        assert_eq!(th.as_bytes(), &array::<32>(entry, "join_transcript_hash"));
        let proof = keys.join().proof(&th);
        assert_eq!(proof, array::<32>(entry, "join_client_proof"));

        let kept = JoinVerifier::from_parts(*verifier.stored_key(), *verifier.server_key());
        let hub_proof = *kept.verify(&th, &proof).unwrap().hub_proof();
        assert_eq!(hub_proof, array::<32>(entry, "join_server_proof"));
        assert!(kept.verify(&th, &flipped(proof)).is_none());
        assert!(keys.join().verify_hub(&th, &proof, &hub_proof));
        assert!(!keys.join().verify_hub(&th, &proof, &flipped(hub_proof)));

        // The end-to-end key is not told; a sender's key is equal if and only if its tags are.
        let sender = keys.sender(&array(entry, "instance"), &utf8(entry, "sender"));
        let expected = SenderKey::new(array(entry, "sender_key"));
        assert_eq!(sender.tag(b"protected", b"payload"), expected.tag(b"protected", b"payload"));
    }
}

#[test]
fn joins_over_bridges_are_bound_to_the_home_hub() {
    // The last channel entry was made with this transcript hash.
    let entry = vectors("channel").pop().unwrap();
    let remote = TranscriptHash::remote("hub-home", &[7; 16], &[1; 32], &[2; 32]);
    assert_eq!(remote.as_bytes(), &array::<32>(&entry, "session_transcript_hash"));
}

#[test]
fn owners() {
    for entry in &vectors("owner") {
        let hub = HubId::new(&utf8(entry, "hub_id")).unwrap();
        let channel = ChannelName::new(&utf8(entry, "name")).unwrap();
        let keys = OwnerKey::new(array(entry, "owner_key"), hub, channel).keys();
        let verifier = keys.verifier();
        assert_eq!(verifier.as_bytes(), &array::<32>(entry, "owner_stored_key"));
        let session = TranscriptHash::from_bytes(array(entry, "session_transcript_hash"));
        let (epoch, n, body) = (number(entry, "stored_epoch"), number(entry, "n"), bytes(entry, "body_without_proof"));
        let th = OwnerTranscript::new(&session, &utf8(entry, "name"), epoch, n, &body);
        assert_eq!(th.as_bytes(), &array::<32>(entry, "owner_transcript_hash"));
        let proof = keys.proof(&th);
        assert_eq!(proof, array::<32>(entry, "owner_proof"));
        assert!(verifier.verify(&th, &proof));
        assert!(!verifier.verify(&th, &flipped(proof)));
        let later = OwnerTranscript::new(&session, &utf8(entry, "name"), epoch, n + 1, &body);
        assert!(!verifier.verify(&later, &proof));
    }
}

#[test]
fn messages() {
    for entry in &vectors("message") {
        let (protected, payload, tag) = (bytes(entry, "protected"), bytes(entry, "payload"), bytes(entry, "tag"));
        assert_eq!(message_ref(&protected, &tag), array::<32>(entry, "ref"));
        assert_eq!(duplicate_digest(&protected, &payload, &tag), array::<16>(entry, "duplicate_digest"));
        if text(entry, "key").is_empty() {
            assert!(tag.is_empty());
            continue;
        }
        let key = SenderKey::new(array(entry, "key"));
        assert_eq!(key.tag(&protected, &payload)[..], tag[..], "{}", text(entry, "title"));
        assert!(key.verify(&protected, &payload, &tag));
        for short in 0..tag.len() {
            assert!(!key.verify(&protected, &payload, &tag[..short]));
        }
        assert!(!key.verify(&protected, &[&payload[..], b"x"].concat(), &tag));
    }
}
