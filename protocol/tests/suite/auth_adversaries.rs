//! What must not work, and what must not be told.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use commipc_protocol::auth::{
    Capabilities, ChannelMaster, ConnectionKeys, Credential, Credentials, DEFAULT_ITERATIONS, IdPattern,
    JoinTranscript, Kdf, MIN_ITERATIONS, OwnerKey, Secret, SecretError, SenderKey, TakeoverSecret, TranscriptHash,
    Verifier,
};
use commipc_protocol::{ChannelName, CredentialId, HubId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const SALT: [u8; 16] = [9; 16];

fn id(text: &str) -> CredentialId {
    CredentialId::new(text).unwrap()
}

fn transcript(hub: &str) -> TranscriptHash {
    TranscriptHash::connection(b"hello", hub.as_bytes(), b"")
}

fn keys(secret: &Secret, salt: &[u8; 16]) -> ConnectionKeys {
    ConnectionKeys::new(&secret.derive(salt, 0).unwrap())
}

fn hmac(key: &[u8; 32], input: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(input);
    mac.finalize().into_bytes().into()
}

#[test]
fn d5_v15_proof_relayed_to_another_hub_fails() {
    let secret = Secret::key([1; 32]);
    let (honest, other) = (
        Verifier::new(&secret, SALT, 0).unwrap(),
        // Somebody's hub for the same secret: it made its own salt.
        Verifier::new(&secret, [8; 16], 0).unwrap(),
    );
    let proof = keys(&secret, &SALT).client_proof(&transcript("honest"));
    assert!(honest.verify_client(&transcript("honest"), &proof).is_some());
    assert!(honest.verify_client(&transcript("other"), &proof).is_none());
    assert!(other.verify_client(&transcript("honest"), &proof).is_none());
    assert!(other.verify_client(&transcript("other"), &proof).is_none());
}

#[test]
fn v15_what_a_hub_learns_at_a_login_opens_no_other_link() {
    let secret = Secret::key([1; 32]);
    let verifier = Verifier::new(&secret, SALT, 0).unwrap();
    let proof = keys(&secret, &SALT).client_proof(&transcript("first"));
    let first = verifier.verify_client(&transcript("first"), &proof).unwrap();
    let mut records = first.record_keys();
    let tag = records.c2h.next_tag(1, 3, &[]);
    // The same keys on another transcript give other record keys.
    let proof = keys(&secret, &SALT).client_proof(&transcript("second"));
    let mut second = verifier.verify_client(&transcript("second"), &proof).unwrap().record_keys();
    assert!(!second.c2h.verify_next(1, 3, &[], &tag));
}

#[test]
fn v35_stored_hash_is_not_the_login_key() {
    let secret = Secret::key([1; 32]);
    let verifier = Verifier::new(&secret, SALT, 0).unwrap();
    let th = transcript("hub");
    assert!(verifier.verify_client(&th, &keys(&secret, &SALT).client_proof(&th)).is_some());

    let mask = hmac(verifier.stored_key(), &[&b"commipc/1 client proof\0"[..], th.as_bytes()].concat());
    for stolen in [*verifier.stored_key(), *verifier.server_key()] {
        // As the proof, as the key that proofs are made with, and as the secret itself.
        assert!(verifier.verify_client(&th, &stolen).is_none());
        assert!(verifier.verify_client(&th, &std::array::from_fn(|i| stolen[i] ^ mask[i])).is_none());
        assert!(verifier.verify_client(&th, &keys(&Secret::key(stolen), &SALT).client_proof(&th)).is_none());
    }
}

fn table() -> Credentials {
    let verifier = |key| Verifier::new(&Secret::key([key; 32]), [key; 16], 0).unwrap();
    Credentials::new([7; 32])
        .with(CredentialId::shared(), Credential::shared(verifier(1)))
        .with(id("bridge"), Credential::new(verifier(2), Capabilities::BRIDGE, vec![IdPattern::new("br-*").unwrap()]))
}

#[test]
fn a_known_credential_is_proved() {
    let table = table();
    let lookup = table.lookup("bridge");
    assert_eq!((lookup.kdf(), lookup.salt(), lookup.iterations()), (Kdf::Key, &[2; 16][..], 0));
    let th = transcript("hub");
    let proof = keys(&Secret::key([2; 32]), &[2; 16]).client_proof(&th);
    let authenticated = lookup.verify_client(&th, &proof).unwrap();
    assert_eq!(authenticated.credential_id(), &id("bridge"));
    let credential = authenticated.credential();
    assert!(credential.capabilities().contains(Capabilities::BRIDGE) && credential.allows("br-1"));
    assert!(!credential.allows("alice"));
    assert!(keys(&Secret::key([2; 32]), &[2; 16]).verify_server_proof(
        &th,
        &proof,
        b"welcome",
        &authenticated.client().server_proof(b"welcome"),
    ));
    assert!(table.lookup("default").verify_client(&th, &proof).is_none());
}

#[test]
fn an_unknown_credential_is_asked_like_a_known_one_and_never_proved() {
    let lookup = table().lookup("nobody");
    assert_eq!((lookup.kdf(), lookup.iterations(), lookup.salt().len()), (Kdf::Key, 0, 16));
    assert_eq!(lookup.salt(), table().lookup("nobody").salt(), "asked twice, or after a restart");
    assert_ne!(lookup.salt(), table().lookup("nobody2").salt());
    assert_ne!(lookup.salt(), Credentials::new([6; 32]).lookup("nobody").salt());

    let th = transcript("hub");
    let salt: [u8; 16] = lookup.salt().try_into().unwrap();
    for secret in [Secret::key([1; 32]), Secret::key([2; 32]), Secret::key([0; 32]), Secret::key([7; 32])] {
        assert!(lookup.verify_client(&th, &keys(&secret, &salt).client_proof(&th)).is_none());
    }
    assert!(lookup.verify_client(&th, &[0; 32]).is_none());
}

#[test]
fn an_unknown_credential_without_a_default_looks_like_a_password() {
    let lookup = Credentials::new([7; 32]).lookup("default");
    assert_eq!((lookup.kdf(), lookup.iterations()), (Kdf::Pbkdf2, DEFAULT_ITERATIONS));
    let password = Verifier::new(&Secret::password("p"), SALT, MIN_ITERATIONS).unwrap();
    let lookup = Credentials::new([7; 32]).with(id("default"), Credential::shared(password)).lookup("nobody");
    assert_eq!((lookup.kdf(), lookup.iterations()), (Kdf::Pbkdf2, MIN_ITERATIONS));
}

#[test]
fn the_made_up_salt_is_that_of_the_design() {
    assert_eq!(table().lookup("nobody").salt(), &hmac(&[7; 32], b"fake\0\x00\x00\x00\x06nobody")[..16]);
}

#[test]
fn without_a_secret_both_sides_still_prove_each_other() {
    let verifier = Verifier::new(&Secret::insecure(), SALT, DEFAULT_ITERATIONS).unwrap();
    let table = Credentials::new([7; 32]).with(CredentialId::shared(), Credential::shared(verifier));
    let lookup = table.lookup("default");
    assert_eq!((lookup.kdf(), lookup.salt(), lookup.iterations()), (Kdf::Insecure, &[][..], 0));
    let (th, keys) = (transcript("hub"), keys(&Secret::insecure(), &[0; 16]));
    let proof = keys.client_proof(&th);
    let hub = lookup.verify_client(&th, &proof).unwrap();
    assert!(keys.verify_server_proof(&th, &proof, b"", &hub.client().server_proof(b"")));
    // An id that does not exist is no way in even here, and looks the same.
    assert_eq!(table.lookup("nobody").salt(), &[] as &[u8]);
    assert!(table.lookup("nobody").verify_client(&th, &proof).is_none());
}

#[test]
fn a_channel_cannot_be_protected_by_nothing() {
    let nothing = Secret::insecure().derive(&SALT, 0).unwrap();
    assert_eq!(ChannelMaster::new(&nothing).err(), Some(SecretError::Insecure));
}

#[test]
fn join_nonces_are_fresh() {
    let th = transcript("hub");
    let join = |client: [u8; 32], hub: [u8; 32]| JoinTranscript::new(&th, "c", 1, &client, &hub, "a");
    assert!(join([1; 32], [2; 32]).is_some());
    assert!(join([1; 32], [1; 32]).is_none());
    assert!(join([0; 32], [1; 32]).is_none());
    assert!(join([1; 32], [0; 32]).is_none());
}

#[test]
fn verifiers_from_a_store_are_checked() {
    for (kdf, rounds) in [(Kdf::Pbkdf2, MIN_ITERATIONS - 1), (Kdf::Pbkdf2, 0), (Kdf::Key, 1), (Kdf::Insecure, 1)] {
        assert_eq!(Verifier::from_parts(kdf, SALT, rounds, [1; 32], [2; 32]).err(), Some(SecretError::Iterations));
    }
    let made = Verifier::new(&Secret::key([1; 32]), SALT, 0).unwrap();
    let kept = Verifier::from_parts(Kdf::Key, SALT, 0, *made.stored_key(), *made.server_key()).unwrap();
    let th = transcript("hub");
    assert!(kept.verify_client(&th, &keys(&Secret::key([1; 32]), &SALT).client_proof(&th)).is_some());
}

#[test]
fn records_are_held_in_order() {
    let tagger = || keys(&Secret::key([1; 32]), &SALT).record_keys(&transcript("hub")).c2h;
    let mut from = tagger();
    let tags: Vec<_> = (0..3).map(|_| from.next_tag(5, 16, &[b"body"])).collect();
    let first_fails =
        |length: u32, ftype: u8, body: &[u8], tag: &[u8]| !tagger().verify_next(length, ftype, &[body], tag);
    assert!(!first_fails(5, 16, b"body", &tags[0]));
    assert!(first_fails(5, 16, b"body", &tags[1]), "moved");
    assert!(first_fails(6, 16, b"body", &tags[0]), "length");
    assert!(first_fails(5, 17, b"body", &tags[0]), "type");
    assert!(first_fails(5, 16, b"bodY", &tags[0]), "body");
    assert!(first_fails(5, 16, b"body", &tags[0][..15]), "short");
    assert!(first_fails(5, 16, b"body", &[]), "empty");

    let mut to = tagger();
    assert!(to.verify_next(5, 16, &[b"bo", b"dy"], &tags[0]));
    assert!(!to.verify_next(5, 16, &[b"body"], &tags[0]), "repeated");
    assert!(!to.verify_next(5, 16, &[b"body"], &tags[2]), "nothing verifies after a bad tag");
}

#[test]
fn skipped_records_count() {
    let mut tagged = keys(&Secret::key([1; 32]), &SALT).record_keys(&transcript("hub"));
    let mut skipped = keys(&Secret::key([1; 32]), &SALT).record_keys(&transcript("hub"));
    let _ = tagged.c2h.next_tag(1, 1, &[]);
    skipped.c2h.skip();
    assert_eq!((tagged.c2h.counter(), skipped.c2h.counter()), (1, 1));
    assert_eq!(tagged.c2h.next_tag(1, 1, &[]), skipped.c2h.next_tag(1, 1, &[]));
}

/// Nothing that holds a secret prints it, in any of the ways bytes are printed.
#[test]
fn no_secret_is_printed() {
    let canary = *b"canary-canary-canary-canary-cana";
    let secret = Secret::key(canary);
    let password = Secret::password(canary);
    let salted = secret.derive(&SALT, 0).unwrap();
    let connection = ConnectionKeys::new(&salted);
    let th = transcript("hub");
    let verifier = Verifier::from_parts(Kdf::Key, SALT, 0, canary, canary).unwrap();
    let table = Credentials::new(canary).with(id("a"), Credential::shared(verifier.clone()));
    let proven = Verifier::new(&secret, SALT, 0).unwrap().verify_client(&th, &connection.client_proof(&th)).unwrap();
    let master = ChannelMaster::new(&salted).unwrap();
    let channel = master.keys("c", &SALT, 1);
    let owner = OwnerKey::new(canary, HubId::new("h").unwrap(), ChannelName::new("c").unwrap());
    let printed = [
        format!("{secret:?}{secret:#?}{password:?}{password:#?}{salted:?}{connection:?}{verifier:#?}"),
        format!("{table:#?}{:?}{:?}{proven:#?}", table.lookup("a"), table.lookup("b")),
        format!("{:#?}{master:?}{channel:#?}{:?}", proven.record_keys(), channel.join().verifier()),
        format!("{:?}{owner:?}{:?}{:?}", SenderKey::new(canary), owner.keys(), owner.keys().verifier()),
        format!("{:?}", TakeoverSecret::new(canary)),
    ]
    .concat();
    let hex: String = canary[..4].iter().map(|b| format!("{b:02x}")).collect();
    let decimal = format!("{}, {}", canary[0], canary[1]);
    for forbidden in ["canary", &hex, &decimal, &decimal.replace(' ', "\n")] {
        assert!(!printed.contains(forbidden), "{forbidden} in {printed}");
    }
    // Derived values are not known beforehand; that no long row of digits is printed covers them.
    let longest = printed.split(|c: char| !c.is_ascii_hexdigit()).map(str::len).max();
    assert!(longest < Some(16), "{printed}");
    assert!(printed.matches(|c: char| c.is_ascii_digit()).count() < 200, "{printed}");
}
