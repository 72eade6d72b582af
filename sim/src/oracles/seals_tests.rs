//! In which [`super::Seals`] bites.

use std::sync::Arc;

use bytes::Bytes;
use commipc_protocol::auth::Kdf;
use commipc_protocol::client::{Access, Answer, ChannelSalt, Command, Event, Failure, Message, Token};
use commipc_protocol::{HubId, Output, Refusal};

use super::scene::{HUB, Scene, address, broadcast, call, channel, id, incoming, message, outgoing, payload};
use super::{Oracle as _, Password, Seals, Verdict};
use crate::node::NodeId;
use crate::passwords::master;
use crate::station::{Told, Withheld};

const PASSWORD: Password = Password(1);

fn salt(number: u8) -> ChannelSalt {
    ChannelSalt { kdf: Kdf::Key, salt: [number; 16], iterations: 0 }
}

fn done(scene: &mut Scene<Seals>, node: u32, token: u64) -> Verdict {
    scene.drained(node)?;
    scene.tells(node, Event::Done { token: Token(token), result: Ok(()) })
}

fn protects(scene: &mut Scene<Seals>, number: u8) {
    let (salt, channel, master) = (salt(number), channel(), master(PASSWORD, &[number; 16]).unwrap());
    scene.0.derived(NodeId::new(1), &channel, salt.salt, PASSWORD);
    scene.asks(1, Command::Protect { token: Token(90), channel: channel.clone(), salt, master }).unwrap();
    scene.drained(1).unwrap();
    scene.tells(1, Event::PasswordChanged { channel, salt: Some(salt) }).unwrap();
}

fn opens(scene: &mut Scene<Seals>, node: u32, secret: Option<Kdf>) {
    let access = Access { secret, ..Access::default() };
    scene.asks(node, Command::Open { token: Token(91), channel: channel(), access }).unwrap();
}

fn derives(scene: &mut Scene<Seals>, node: u32, number: u8, password: Password) {
    let (salt, channel) = (salt(number), channel());
    scene.tells(node, Event::DeriveChannelKey { channel: channel.clone(), salt }).unwrap();
    scene.0.derived(NodeId::new(node), &channel, salt.salt, password);
    let master = master(password, &salt.salt).unwrap();
    scene.asks(node, Command::ChannelKeyDerived { channel, salt, master }).unwrap();
}

fn joins(scene: &mut Scene<Seals>, node: u32, number: u8) -> Verdict {
    opens(scene, node, Some(Kdf::Key));
    derives(scene, node, number, PASSWORD);
    done(scene, node, 91)
}

/// Node 1 owns the channel and has protected it; node 2 is a member.
fn scene() -> Scene<Seals> {
    let mut scene = Scene::new(Seals::default());
    (1..4).for_each(|node| scene.connects(node).unwrap());
    protects(&mut scene, 1);
    joins(&mut scene, 2, 1).unwrap();
    scene
}

fn says(scene: &mut Scene<Seals>, node: u32, token: u64, text: &'static str) {
    scene.asks(node, broadcast(token, text)).unwrap();
    scene.drained(node).unwrap();
}

#[test]
fn v1_bites_on_what_no_member_said() {
    let mut heard = scene();
    says(&mut heard, 1, 1, "a");
    heard.tells(2, message(9, 1, "a", 1)).unwrap();
    assert!(heard.tells(2, message(9, 1, "b", 2)).is_err(), "never said");
    let mut stranger = scene();
    says(&mut stranger, 3, 1, "a");
    assert!(stranger.tells(2, message(9, 3, "a", 1)).is_err(), "said without a signature");
    let mut posing = scene();
    says(&mut posing, 2, 1, "a");
    assert!(posing.tells(2, message(9, 1, "a", 1)).is_err(), "said by another");
    assert!(posing.tells(2, message(9, 2, "a", 1)).is_err(), "its own");
    let mut elsewhere = scene();
    says(&mut elsewhere, 1, 1, "a");
    let mut message = incoming(1, "a");
    Arc::make_mut(&mut message.source).sender.hub = HubId::new("other").unwrap();
    assert!(
        elsewhere.tells(2, Event::Message(Message { to: Token(9), message, number: 1 })).is_err(),
        "by another hub"
    );
}

#[test]
fn v2_bites_on_what_is_accepted_again() {
    let mut heard = scene();
    says(&mut heard, 1, 1, "a");
    heard.tells(2, message(9, 1, "a", 1)).unwrap();
    heard.tells(2, message(8, 1, "a", 1)).unwrap();
    assert!(heard.tells(2, message(9, 1, "a", 1)).is_err());
    let mut sent = scene();
    sent.asks(1, Command::Send { token: Token(1), outgoing: outgoing("s") }).unwrap();
    sent.tells(2, message(9, 1, "s", 0)).unwrap();
    assert!(sent.tells(2, message(9, 1, "s", 0)).is_err());
    let mut kind = scene();
    kind.asks(1, Command::Send { token: Token(1), outgoing: outgoing("s") }).unwrap();
    assert!(kind.tells(2, message(9, 1, "s", 1)).is_err(), "v3: a send is no broadcast");
}

#[test]
fn bites_on_what_was_said_at_another_time() {
    let mut before = scene();
    says(&mut before, 1, 1, "a");
    protects(&mut before, 2);
    joins(&mut before, 2, 2).unwrap();
    assert!(before.tells(2, message(9, 1, "a", 1)).is_err());
    says(&mut before, 1, 2, "b");
    before.tells(2, message(9, 1, "b", 2)).unwrap();
    // The owner's application speaks just when its change is confirmed.
    let mut meanwhile = scene();
    meanwhile.asks(1, broadcast(3, "c")).unwrap();
    let (salt, channel, master) = (salt(2), channel(), master(PASSWORD, &[2; 16]).unwrap());
    meanwhile.0.derived(NodeId::new(1), &channel, salt.salt, PASSWORD);
    meanwhile.asks(1, Command::Protect { token: Token(90), channel: channel.clone(), salt, master }).unwrap();
    meanwhile.tells(1, Event::PasswordChanged { channel, salt: Some(salt) }).unwrap();
    meanwhile.tells(2, message(9, 1, "c", 1)).unwrap();
}

#[test]
fn v13_bites_on_an_owner_that_goes_back_to_an_older_password() {
    let mut scene = scene();
    protects(&mut scene, 2);
    protects(&mut scene, 3);
    let back = Event::PasswordChanged { channel: channel(), salt: Some(salt(2)) };
    assert!(scene.tells(1, back).is_err());
}

#[test]
fn v13_bites_on_an_owner_that_believes_a_password_gone_which_it_gave_since() {
    let bare = || Event::PasswordChanged { channel: channel(), salt: None };
    let mut never = scene();
    assert!(never.tells(1, bare()).is_err(), "not asked");
    let unprotects = |scene: &mut Scene<Seals>| {
        scene.asks(1, Command::Unprotect { token: Token(93), channel: channel() }).unwrap();
    };
    let mut gone = scene();
    unprotects(&mut gone);
    gone.tells(1, bare()).unwrap();
    let mut given = scene();
    unprotects(&mut given);
    protects(&mut given, 2);
    assert!(given.tells(1, bare()).is_err());
}

#[test]
fn s23_bites_on_a_change_that_is_confirmed_and_not_made() {
    let mut scene = scene();
    let (salt, channel, master) = (salt(2), channel(), master(PASSWORD, &[2; 16]).unwrap());
    scene.0.derived(NodeId::new(1), &channel, salt.salt, PASSWORD);
    scene.asks(1, Command::Protect { token: Token(90), channel: channel.clone(), salt, master }).unwrap();
    assert!(done(&mut scene, 1, 90).is_err());
    scene.asks(1, Command::Unprotect { token: Token(91), channel }).unwrap();
    assert!(done(&mut scene, 1, 91).is_err());
}

#[test]
fn who_left_is_no_member() {
    let mut left = scene();
    left.asks(1, Command::Leave { token: Token(92), channel: channel() }).unwrap();
    left.drained(1).unwrap();
    says(&mut left, 1, 1, "a");
    assert!(left.tells(2, message(9, 1, "a", 1)).is_err());
    let mut once = scene();
    once.asks(1, Command::Leave { token: Token(92), channel: channel() }).unwrap();
    done(&mut once, 1, 92).unwrap();
    let mut of_two = scene();
    of_two.asks(1, Command::Leave { token: Token(92), channel: channel() }).unwrap();
    of_two.tells(1, Event::Done { token: Token(92), result: Ok(()) }).unwrap();
    of_two.drained(1).unwrap();
    says(&mut of_two, 1, 1, "a");
    of_two.tells(2, message(9, 1, "a", 1)).unwrap();
}

#[test]
fn s29_bites_on_an_opening_that_proves_nothing() {
    let mut downgraded = scene();
    opens(&mut downgraded, 3, Some(Kdf::Key));
    assert!(done(&mut downgraded, 3, 91).is_err());
    let mut made_up = scene();
    assert!(joins(&mut made_up, 3, 7).is_err(), "no owner made this protection");
    let mut ignorant = scene();
    opens(&mut ignorant, 3, Some(Kdf::Key));
    derives(&mut ignorant, 3, 1, Password(2));
    assert!(done(&mut ignorant, 3, 91).is_err());
    let mut back = scene();
    protects(&mut back, 2);
    joins(&mut back, 2, 2).unwrap();
    back.tells(2, Event::ChannelClosed { channel: channel(), why: Failure::Refused(Refusal::Rekeyed) }).unwrap();
    assert!(joins(&mut back, 2, 1).is_err(), "rolled back");
}

#[test]
fn v4_bites_on_an_answer_that_no_member_gave() {
    let mut asked = scene();
    asked.asks(2, call(1, "q")).unwrap();
    asked.drained(2).unwrap();
    let answer =
        Answer { payload: payload("a"), provider: address(1), metadata: Bytes::new(), hops: 1, path: Vec::new() };
    assert!(asked.tells(2, Event::Answered { token: Token(1), result: Ok(answer) }).is_err());
}

#[test]
fn bites_on_what_went_out_unsigned_and_on_what_was_changed_on_its_way() {
    let mut unsigned = scene();
    let outgoing = commipc_protocol::client::Outgoing { guarded: true, ..outgoing("g") };
    unsigned.asks(3, Command::Broadcast { token: Token(5), outgoing }).unwrap();
    unsigned.drained(3).unwrap();
    assert!(unsigned.tells(3, Event::Sent { token: Token(5), result: Ok(()) }).is_err());
    let mut changed = scene();
    says(&mut changed, 1, 1, "a");
    let what = Withheld { sender: id(1), payload: payload("a").bytes };
    changed.gives(HUB, Output::Event(Told::Withheld { from: id(2), what })).unwrap();
    assert!(changed.tells(2, message(9, 1, "a", 1)).is_err());
}
