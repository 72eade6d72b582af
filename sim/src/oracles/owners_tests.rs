//! In which [`super::Owners`] bites.

use commipc_protocol::client::{Access, ChannelSalt, Command, Event, Failure, Token};
use commipc_protocol::{AfterGrace, Input, Instant, LinkEnd, Output, OwnerPolicy, Refusal, hub};
use core::time::Duration;

use super::owners::{Owners, What};
use super::scene::{HUB, Scene, channel, hub_link, id};
use super::{Oracle as _, Verdict};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::Told;

fn owns(node: u32) -> hub::Event {
    hub::Event::OwnerChanged { channel: channel(), owner: Some(id(node)) }
}

fn left(node: u32) -> hub::Event {
    hub::Event::Left { channel: channel(), client: id(node) }
}

fn ended() -> hub::Event {
    hub::Event::Terminated { channel: channel() }
}

fn rekeyed(epoch: u64) -> hub::Event {
    hub::Event::ProtectionChanged { channel: channel(), epoch, protected: false }
}

fn joins(scene: &mut Scene<Owners>, node: u32, policy: Option<OwnerPolicy>) -> Verdict {
    let access = Access { policy, ..Access::default() };
    scene.asks(node, Command::Open { token: Token(1), channel: channel(), access })?;
    scene.hub_tells(hub::Event::Joined { channel: channel(), client: id(node) })
}

/// Node 1 owns the channel, and node 2 is a member.
fn scene(policy: OwnerPolicy) -> Scene<Owners> {
    let mut scene = Scene::new(Owners::default());
    (1..3).for_each(|node| scene.connects(node).unwrap());
    joins(&mut scene, 1, Some(policy)).unwrap();
    scene.hub_tells(owns(1)).unwrap();
    joins(&mut scene, 2, None).unwrap();
    scene.drained(HUB).unwrap();
    scene
}

fn cut(scene: &mut Scene<Owners>) -> Verdict {
    scene.fed(HUB, Input::Closed { link: hub_link(1), how: LinkEnd::Reset })?;
    scene.hub_tells(left(1))
}

fn asks(scene: &mut Scene<Owners>, node: u32, token: u64, what: What) {
    let (token, channel) = (Token(token), channel());
    let command = match what {
        What::Protect => unreachable!("it needs keys"),
        What::Unprotect => Command::Unprotect { token, channel },
        What::Reclaim => Command::Reclaim { token, channel },
        What::Terminate => Command::Terminate { token, channel },
        What::Leave => Command::Leave { token, channel },
    };
    scene.asks(node, command).unwrap();
}

fn hold(then: AfterGrace) -> OwnerPolicy {
    OwnerPolicy::Hold { grace: Duration::from_secs(30), then }
}

#[test]
fn s19_bites_on_a_second_owner() {
    assert!(scene(OwnerPolicy::Terminate).hub_tells(owns(2)).is_err(), "by the hub's word");
    let mut stranger = Scene::new(Owners::default());
    stranger.connects(1).unwrap();
    assert!(stranger.hub_tells(owns(1)).is_err(), "not a member");
    assert!(stranger.hub_tells(hub::Event::Joined { channel: channel(), client: id(1) }).is_err(), "did not ask");
    // By what clients were confirmed.
    let mut both = scene(OwnerPolicy::Promote);
    for (node, fine) in [(1, true), (2, false)] {
        asks(&mut both, node, 7, What::Reclaim);
        both.0.claimed.insert((Some(hub_link(node)), channel(), What::Reclaim), 1);
        assert_eq!(both.tells(node, Event::Done { token: Token(7), result: Ok(()) }).is_ok(), fine);
    }
}

#[test]
fn s20_bites_on_an_owner_that_goes_unnoticed_and_on_an_end_without_a_reason() {
    assert!(scene(OwnerPolicy::Terminate).hub_tells(ended()).is_err());
    assert!(scene(OwnerPolicy::Promote).hub_tells(left(1)).is_err(), "thrown out");
    let mut silent = scene(OwnerPolicy::Terminate);
    cut(&mut silent).unwrap();
    assert!(silent.drained(HUB).is_err());
    let mut rest = scene(OwnerPolicy::Terminate);
    cut(&mut rest).unwrap();
    assert!(rest.hub_tells(ended()).is_err(), "not for the other member");
    let mut fine = scene(OwnerPolicy::Terminate);
    cut(&mut fine).unwrap();
    fine.hub_tells(left(2)).unwrap();
    fine.hub_tells(ended()).unwrap();
    fine.drained(HUB).unwrap();
}

#[test]
fn s21_who_is_promoted_is_a_member_of_a_channel_whose_owner_is_gone() {
    let mut promoted = scene(OwnerPolicy::Promote);
    cut(&mut promoted).unwrap();
    promoted.drained(HUB).unwrap();
    promoted.hub_tells(owns(2)).unwrap();
    assert!(promoted.hub_tells(ended()).is_err());
    let mut evicted = scene(OwnerPolicy::Promote);
    evicted.hub_tells(left(2)).unwrap();
    cut(&mut evicted).unwrap();
    assert!(evicted.hub_tells(owns(2)).is_err());
}

#[test]
fn bites_on_a_held_channel_that_somebody_else_gets() {
    for (then, next) in [(AfterGrace::Promote, owns(2)), (AfterGrace::Terminate, ended())] {
        let nobody = || hub::Event::OwnerChanged { channel: channel(), owner: None };
        let mut held = scene(hold(then));
        cut(&mut held).unwrap();
        assert!(held.drained(HUB).is_err(), "nobody was told");
        let mut held = scene(hold(then));
        cut(&mut held).unwrap();
        held.hub_tells(nobody()).unwrap();
        if next == ended() {
            held.hub_tells(left(2)).unwrap();
        }
        let event = Output::Event(Told::Hub(next.clone()));
        let at = |second| Instant::from_nanos(second * 1_000_000_000_u64);
        assert!(held.0.saw(at(29), NodeId::new(HUB), &Sight::Gave(&event)).is_err());
        assert!(held.0.saw(at(30), NodeId::new(HUB), &Sight::Gave(&event)).is_ok());
    }
}

#[test]
fn v11_only_the_owner_comes_back() {
    let mut back = scene(hold(AfterGrace::Promote));
    cut(&mut back).unwrap();
    back.hub_tells(hub::Event::OwnerChanged { channel: channel(), owner: None }).unwrap();
    asks(&mut back, 2, 8, What::Reclaim);
    assert!(back.hub_tells(owns(2)).is_err());
    back.connects(1).unwrap();
    joins(&mut back, 1, None).unwrap();
    assert!(back.hub_tells(owns(1)).is_err(), "not by its name alone");
    asks(&mut back, 1, 9, What::Reclaim);
    back.hub_tells(owns(1)).unwrap();
    back.tells(1, Event::Done { token: Token(9), result: Ok(()) }).unwrap();
    let other = Event::OwnerChanged { channel: channel(), owner: Some(id(2)) };
    assert!(back.tells(1, other).is_err(), "it owns the channel for certain");
}

/// Whether it came back by asking or by being asked cannot be told, and it has asked once more by then.
#[test]
fn who_may_have_come_back_in_two_ways_is_confirmed_once_without_the_hubs_word() {
    let mut back = scene(hold(AfterGrace::Promote));
    cut(&mut back).unwrap();
    back.hub_tells(hub::Event::OwnerChanged { channel: channel(), owner: None }).unwrap();
    back.connects(1).unwrap();
    joins(&mut back, 1, None).unwrap();
    asks(&mut back, 1, 9, What::Reclaim);
    let event = Output::Event(Told::Hub(owns(1)));
    back.0.saw(Instant::from_nanos(30_000_000_000), NodeId::new(HUB), &Sight::Gave(&event)).unwrap();
    asks(&mut back, 1, 10, What::Reclaim);
    back.hub_tells(owns(1)).unwrap();
    for token in [9, 10] {
        back.tells(1, Event::Done { token: Token(token), result: Ok(()) }).unwrap();
    }
    asks(&mut back, 1, 11, What::Reclaim);
    assert!(back.tells(1, Event::Done { token: Token(11), result: Ok(()) }).is_err(), "the hub said nothing of it");
}

#[test]
fn d9_who_takes_over_inherits_and_nobody_else() {
    let ends = |why| hub::Event::Disconnected { link: hub_link(1), client: id(1), why };
    let superseded = hub::DisconnectReason::Refused(Refusal::Superseded);
    let held = |why| {
        let mut held = scene(OwnerPolicy::Terminate);
        cut(&mut held).unwrap();
        held.hub_tells(hub::Event::OwnerChanged { channel: channel(), owner: None }).unwrap();
        held.hub_tells(ends(why)).unwrap();
        held
    };
    assert!(held(hub::DisconnectReason::Lost).drained(HUB).is_err(), "it was to end");
    assert!(held(superseded).hub_tells(owns(2)).is_err());
    let mut back = held(superseded);
    back.drained(HUB).unwrap();
    back.connects(1).unwrap();
    joins(&mut back, 1, None).unwrap();
    back.hub_tells(owns(1)).unwrap();
    let mut later = held(superseded);
    later.drained(HUB).unwrap();
    later.connects(1).unwrap();
    later.hub_tells(ends(hub::DisconnectReason::Lost)).unwrap();
    later.connects(1).unwrap();
    joins(&mut later, 1, None).unwrap();
    assert!(later.hub_tells(owns(1)).is_err(), "another of the same name");
    let mut waits = held(superseded);
    waits.hub_tells(left(2)).unwrap();
    let event = Output::Event(Told::Hub(ended()));
    let at = |second| Instant::from_nanos(second * 1_000_000_000_u64);
    assert!(waits.0.saw(at(9), NodeId::new(HUB), &Sight::Gave(&event)).is_err());
    assert!(waits.0.saw(at(10), NodeId::new(HUB), &Sight::Gave(&event)).is_ok());
}

#[test]
fn bites_on_a_change_that_the_owner_did_not_ask_and_on_one_that_was_not_made() {
    assert!(scene(OwnerPolicy::Terminate).hub_tells(rekeyed(1)).is_err());
    let mut members = scene(OwnerPolicy::Terminate);
    asks(&mut members, 1, 7, What::Unprotect);
    assert!(members.hub_tells(rekeyed(1)).is_err(), "the other one is still a member");
    members.hub_tells(left(2)).unwrap();
    assert!(members.hub_tells(rekeyed(2)).is_err(), "an epoch is left out");
    members.hub_tells(rekeyed(1)).unwrap();
    assert!(members.hub_tells(rekeyed(2)).is_err(), "asked once");
    let refused = Err(Failure::Refused(Refusal::NotOwner));
    assert!(members.tells(1, Event::Done { token: Token(7), result: refused }).is_err(), "it was done");
    let mut unmade = scene(OwnerPolicy::Terminate);
    let salt = ChannelSalt { kdf: commipc_protocol::auth::Kdf::Key, salt: [1; 16], iterations: 0 };
    let master = crate::passwords::master(super::Password(1), &salt.salt).unwrap();
    unmade.asks(1, Command::Protect { token: Token(7), channel: channel(), salt, master }).unwrap();
    assert!(unmade.tells(1, Event::Done { token: Token(7), result: Ok(()) }).is_err());
}

#[test]
fn an_owner_may_end_its_channel() {
    let mut ends = scene(OwnerPolicy::Promote);
    asks(&mut ends, 1, 7, What::Terminate);
    ends.hub_tells(left(1)).unwrap();
    ends.hub_tells(left(2)).unwrap();
    ends.hub_tells(ended()).unwrap();
    ends.drained(HUB).unwrap();
    ends.tells(1, Event::Done { token: Token(7), result: Ok(()) }).unwrap();
    joins(&mut ends, 2, None).unwrap();
    ends.hub_tells(owns(2)).unwrap();
}
