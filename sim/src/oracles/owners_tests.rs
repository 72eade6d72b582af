//! In which [`super::Owners`] bites.

use bytes::Bytes;
use commipc_protocol::client::{
    Access, Answer, CallFailure, ChannelSalt, Command, Event, Failure, Outgoing, Payload, Token,
};
use commipc_protocol::{
    AfterGrace, ChannelName, EventName, Input, Instant, LinkEnd, Output, OwnerPolicy, Refusal, hub,
};
use core::time::Duration;

use super::owners::{Owners, What};
use super::scene::{HUB, Scene, address, channel, hub_link, id, outgoing, payload};
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

fn asks_to_clear(scene: &mut Scene<Owners>, node: u32, token: u64) {
    let (system, clear) = (ChannelName::new("__comm_ipc_system").unwrap(), EventName::new("clear").unwrap());
    let question = Payload { bytes: Bytes::from_static(b"\xa1\x67channel\x62ch"), raw: false };
    let outgoing = Outgoing { channel: system, event: clear, payload: question, ..outgoing("") };
    scene.asks(node, Command::Call { token: Token(token), outgoing, time_left: Duration::from_secs(1) }).unwrap();
}

fn cleared(node: u32) -> hub::Event {
    hub::Event::Cleared { channel: channel(), client: id(node) }
}

fn answered(scene: &mut Scene<Owners>, node: u32, token: u64, refusal: Option<Refusal>) -> Verdict {
    let answer =
        Answer { payload: payload(""), provider: address(0), metadata: Bytes::new(), hops: 1, path: Vec::new() };
    let result = refusal.map_or(Ok(answer), |refusal| {
        Err(CallFailure::Failed { failure: Failure::Refused(refusal), maybe_executed: false })
    });
    scene.tells(node, Event::Answered { token: Token(token), result })
}

/// It ends for both, and the hub says that this was by one of them.
fn ends_by(scene: &mut Scene<Owners>, node: u32) -> Verdict {
    for event in [left(1), left(2), ended(), cleared(node)] {
        scene.hub_tells(event)?;
    }
    scene.drained(HUB)
}

#[test]
fn bites_on_who_ends_anothers_channel_and_is_no_admin_or_did_not_ask() {
    let by = |node: u32, asks: bool| {
        let mut scene = scene(OwnerPolicy::Promote);
        if asks {
            asks_to_clear(&mut scene, node, 7);
        }
        ends_by(&mut scene, node)
    };
    assert!(by(2, true).is_ok());
    assert!(by(2, false).is_err(), "an admin that did not ask");
    assert!(by(1, true).is_err(), "no admin, though it owns the channel");
    for events in [&[left(1), left(2), ended()][..], &[left(1), ended()], &[left(1), cleared(2)], &[cleared(2)]] {
        let mut scene = scene(OwnerPolicy::Promote);
        asks_to_clear(&mut scene, 2, 7);
        let fine = events.iter().all(|event| scene.hub_tells(event.clone()).is_ok());
        assert!(!fine || scene.drained(HUB).is_err(), "half of it: {events:?}");
    }
}

#[test]
fn bites_on_an_admin_that_is_told_something_else_than_what_was_done() {
    let told = |done: bool, refusal| {
        let mut scene = scene(OwnerPolicy::Promote);
        asks_to_clear(&mut scene, 2, 7);
        if done {
            ends_by(&mut scene, 2).unwrap();
        }
        answered(&mut scene, 2, 7, refusal)
    };
    assert!(told(true, None).is_ok() && told(false, Some(Refusal::NoSuchChannel)).is_ok());
    assert!(told(false, None).is_err() && told(true, Some(Refusal::NoSuchChannel)).is_err());
    assert!(told(false, Some(Refusal::NotAllowed)).is_err(), "it may");
    let mut others = scene(OwnerPolicy::Promote);
    asks_to_clear(&mut others, 1, 7);
    answered(&mut others, 1, 7, Some(Refusal::NotAllowed)).unwrap();
    asks_to_clear(&mut others, 1, 8);
    assert!(answered(&mut others, 1, 8, None).is_err());
}

#[test]
fn who_opens_a_channel_that_an_admin_has_ended_owns_it_and_its_former_owner_does_not() {
    let mut scene = scene(hold(AfterGrace::Promote));
    asks(&mut scene, 1, 6, What::Terminate);
    asks_to_clear(&mut scene, 2, 7);
    ends_by(&mut scene, 2).unwrap();
    let late = Err(Failure::Refused(Refusal::NotMember));
    scene.tells(1, Event::Done { token: Token(6), result: late }).unwrap();
    asks(&mut scene, 1, 8, What::Reclaim);
    assert!(scene.hub_tells(owns(1)).is_err());
    joins(&mut scene, 2, None).unwrap();
    scene.hub_tells(owns(2)).unwrap();
}

#[test]
fn s86_what_becomes_of_channels_is_owed_up_to_the_end_of_a_hub_and_not_beyond() {
    let mut ends = scene(OwnerPolicy::Terminate);
    ends.hub_tells(hub::Event::Drained { cut: 0 }).unwrap();
    cut(&mut ends).unwrap();
    ends.drained(HUB).unwrap();
    let mut before = scene(OwnerPolicy::Terminate);
    cut(&mut before).unwrap();
    before.hub_tells(hub::Event::Drained { cut: 0 }).unwrap();
    assert!(before.drained(HUB).is_err());
}
