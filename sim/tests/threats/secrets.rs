//! What a hub never has: a channel's password, and whatever its members' signatures are made with. All that a simulated
//! hub is ever fed and all that it gives is looked through. It has nothing else to know from: its own seed apart, its
//! state follows from what it was fed.

use bytes::Bytes;
use commipc_protocol::wire::{Control as _, FrameType, Hop, JoinChallenge, Message};
use commipc_sim::World;
use sha2::{Digest as _, Sha256};

use crate::scene::{MOMENT, ONE, TWO, all_is_well, member_keys, parts, world};

/// HMAC-SHA256 (RFC 2104), by the letter: what is looked for is not made by the code that could hide it.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = parts.iter().fold(Sha256::new().chain_update(padded(0x36)), |hash, part| hash.chain_update(part));
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner.finalize()).finalize().into()
}

/// The first 32 bytes of HKDF-Expand (RFC 5869).
fn expand(key: &[u8; 32], info: &[&[u8]]) -> [u8; 32] {
    hmac(key, &[&info.concat(), &[1]])
}

fn lp(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

/// Everything from which a member's signatures follow, from the password to the key of one member.
struct Secrets {
    named: Vec<(&'static str, [u8; 32])>,
    of_owner: [u8; 32],
    /// What the hub is told: the key to check a proof with.
    stored: [u8; 32],
}

fn secrets(password: [u8; 32], salt: &[u8; 16], epoch: u64, instance: &[u8]) -> Secrets {
    let master = hmac(salt, &[&password]);
    let channel = hmac(b"commipc/1 channel", &[&master]);
    let context = [&lp(b"ch")[..], salt, &epoch.to_be_bytes()].concat();
    let end_to_end = expand(&channel, &[b"e2e\0", &context]);
    let join = expand(&channel, &[b"join\0", &context]);
    let client_key = expand(&join, &[b"client key"]);
    let of_owner = expand(&end_to_end, &[b"sender\0", instance, &lp(b"o")]);
    let named = vec![
        ("the password", password),
        ("the master", master),
        ("what everything of the channel is derived from", channel),
        ("the key of all signatures", end_to_end),
        ("the key of the owner's signatures", of_owner),
        ("the key of all joins", join),
    ];
    Secrets { named, of_owner, stored: Sha256::digest(client_key).into() }
}

/// All frames that went into a hub and came out of it.
fn everything(world: &World) -> Vec<Bytes> {
    ["o", "m", "x"]
        .map(|who| {
            let rogue = world.rogue_called(who);
            [rogue.said(), rogue.heard()].concat()
        })
        .concat()
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_hub_is_never_told_a_password_or_anything_that_signs() {
    for seed in 0..10 {
        let mut world = world(seed, true);
        all_is_well(&mut world);
        let _ = world.at("o").protects("ch", TWO);
        world.run_for(MOMENT);
        let _ = world.at("m").joins("ch", TWO).listens("ch", None);
        let wrong = world.at("x").tries_to_join("ch", ONE);
        assert!(world.done(wrong).is_err());
        let said = world.at("o").broadcasts("ch", "news", "signed under the second password");
        assert_eq!(world.done(said), Ok(()));
        world.run_for(MOMENT);
        let seen = everything(&world);
        let challenges = seen.iter().filter(|frame| parts(frame).0 == FrameType::JoinChallenge);
        let salts: Vec<(u64, [u8; 16])> = challenges
            .map(|frame| JoinChallenge::parse(parts(frame).1).unwrap())
            .map(|challenge| (challenge.epoch, *challenge.salt))
            .collect();
        let mut checked = 0;
        for message in seen.iter().filter(|frame| parts(frame).0 == FrameType::Broadcast) {
            let message = Message::parse(Hop::split(parts(message).1).unwrap().1).unwrap();
            let Some((epoch, salt)) = salts.iter().find(|(epoch, _)| *epoch == message.header.epoch) else { continue };
            let password = if *epoch == 1 { ONE } else { TWO };
            let secrets = secrets(password.bytes(), salt, *epoch, message.header.instance);
            // They are what they are taken for.
            let signed = hmac(&secrets.of_owner, &[&mac_structure(&message)]);
            assert_eq!(message.tag, signed);
            for (what, secret) in &secrets.named {
                assert!(!seen.iter().any(|frame| holds(frame, secret)), "{what} was told to the hub, or by it");
            }
            assert!(seen.iter().any(|frame| holds(frame, &secrets.stored)), "what it is told is found");
            checked += 1;
        }
        assert!(checked >= 3, "signed messages under both passwords were looked at: {checked}");
        assert_eq!(member_keys(&world, "m", TWO).1, 2);
    }
}

/// MAC_structure of RFC 9052, 6.3, with every part shorter than 256 bytes.
fn mac_structure(message: &Message<'_>) -> Vec<u8> {
    let head = |major: u8, length: usize| match length {
        0..24 => vec![major | length as u8],
        _ => vec![major | 24, length as u8],
    };
    let mut bytes = [&[0x84][..], &head(0x60, 4), b"MAC0"].concat();
    for part in [message.protected, &b"commipc/1 message"[..], message.payload] {
        bytes.extend([&head(0x40, part.len())[..], part].concat());
    }
    bytes
}
