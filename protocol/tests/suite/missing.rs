//! Channels that do not come back with their connection, since their owner is away: the member is told which, and is ready
//! with everything else; and in the end it is told that such a channel is over.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    CallFailure, Command, Event, Failure, Outgoing, Reconnect, ReconnectEvent, Token, Unrestored,
};
use commipc_protocol::{Limits, Refusal, hub};
use support::{World, lasting, name, outgoing};

const OWNER: usize = 0;
const MEMBER: usize = 1;
const OTHER: usize = 2;

fn secret() -> Secret {
    Secret::key([1; 32])
}

/// A vault with its owner and a member, who is somewhere else as well; and a hub that has forgotten everything, where the
/// owner is not.
fn without_owner(policy: Reconnect) -> World {
    let clients = ["owner", "member", "other"].map(|name| lasting(name, policy));
    let mut world = World::with(support::hub(Limits::default()), clients.into());
    world.connect_all();
    world.open(OWNER, "vault");
    world.protect(OWNER, "vault", &secret(), 1);
    world.open(OTHER, "news");
    world.join(MEMBER, "vault", &secret());
    world.open(MEMBER, "news");
    world.listen(MEMBER, 6, "news", None);
    world.listen(MEMBER, 7, "vault", Some("up"));
    world.absent = vec![OWNER];
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world.replace_hub(support::hub(Limits::default()));
    world
}

/// What a member is told of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// The vault is missing, since it is not protected.
    Missing,
    /// Both channels have been told of.
    Ready,
    /// The vault is back.
    Returned,
    /// The vault is over, since it is not protected.
    Over,
    Other,
}

impl News {
    fn of(event: &Event) -> Option<Self> {
        let unprotected = Failure::Refused(Refusal::NotProtected);
        Some(match event {
            Event::Reconnect(ReconnectEvent::Lost { .. } | ReconnectEvent::Restoring { .. })
            | Event::Ready(_)
            | Event::OwnerChanged { .. } => return None,
            Event::Reconnect(ReconnectEvent::Unrestored { what: Unrestored::Channel(channel), why })
                if *channel == name("vault") && *why == unprotected =>
            {
                Self::Missing
            }
            Event::Reconnect(ReconnectEvent::Restored { channels: 2 }) => Self::Ready,
            Event::Reconnect(ReconnectEvent::Returned { channel }) if *channel == name("vault") => Self::Returned,
            Event::ChannelClosed { channel, why } if *channel == name("vault") && *why == unprotected => Self::Over,
            _ => Self::Other,
        })
    }
}

/// Lets so much time pass, and gives what the member is told of its channels, and after how many seconds.
fn told(world: &mut World, time: Duration) -> Vec<(u64, News)> {
    let (begin, mut told) = (world.now.mono, Vec::new());
    while world.now.mono < begin + time {
        world.pass(Duration::from_millis(100));
        let after = world.now.mono.saturating_since(begin).as_secs();
        while let Some(event) = world.events[MEMBER].pop_front() {
            if let Event::DeriveChannelKey { .. } = event {
                world.events[MEMBER].push_front(event);
                world.derive(MEMBER, &secret());
            } else {
                told.extend(News::of(&event).map(|news| (after, news)));
            }
        }
    }
    told
}

#[test]
fn s72_v28_what_waits_for_its_owner_is_told_and_everything_else_is_ready() {
    let mut world = without_owner(Reconnect::default());
    let told = told(&mut world, Duration::from_secs(60));
    assert_eq!(told, [(30, News::Missing), (30, News::Ready)]);
    world.events[OTHER].clear();
    world.say(OTHER, "news", "up", b"here");
    assert_eq!(world.expect_message(MEMBER), "here");
}

#[test]
fn s72_v28_a_member_whose_owner_is_gone_for_good_is_told_so_in_the_end() {
    let mut world = without_owner(Reconnect::default());
    let policy = Reconnect::default();
    assert_eq!((policy.settle, policy.missing), (Duration::from_secs(30), Duration::from_secs(600)));
    let told = told(&mut world, Duration::from_secs(700));
    assert_eq!(told, [(30, News::Missing), (30, News::Ready), (600, News::Over)]);
    assert_eq!(world.hub.load().channels, 1, "nothing is left of its attempts");
    let listener = Command::Unlisten { token: Token(9), listener: Token(7) };
    world.command(MEMBER, listener);
    assert!(matches!(world.next(MEMBER), Event::Done { token: Token(9), result: Err(_) }), "it went with the channel");
    // The owner comes too late for it, and all that may be said there is under the password.
    world.absent.clear();
    assert_eq!(self::told(&mut world, Duration::from_secs(120)), []);
    world.join(MEMBER, "vault", &secret());
}

#[test]
fn s72_what_was_missing_is_told_when_its_owner_brings_it_back() {
    let mut world = without_owner(Reconnect::default());
    assert_eq!(told(&mut world, Duration::from_secs(300)), [(30, News::Missing), (30, News::Ready)]);
    world.absent.clear();
    let told = told(&mut world, Duration::from_secs(120));
    assert!(matches!(told[..], [(_, News::Returned)]), "{told:?}");
    world.events[OWNER].clear();
    world.say(OWNER, "vault", "up", b"signed");
    assert_eq!(world.expect_message(MEMBER), "signed");
}

/// Nobody is told anything of what comes in time.
#[test]
fn s72_an_owner_that_comes_soon_is_waited_for() {
    let mut world = without_owner(Reconnect::default());
    assert_eq!(told(&mut world, Duration::from_secs(10)), []);
    world.absent.clear();
    let told = told(&mut world, Duration::from_secs(15));
    assert!(matches!(told[..], [(_, News::Ready)]), "{told:?}");
}

/// Time without a connection is nobody's fault, and a connection that goes again and again is no way to wait for ever.
#[test]
fn s72_only_time_with_the_hub_counts_and_all_of_it_does() {
    let mut policy = Reconnect::default();
    (policy.settle, policy.missing) = (Duration::from_secs(5), Duration::from_secs(60));
    let mut world = without_owner(policy);
    assert_eq!(told(&mut world, Duration::from_secs(40)), [(5, News::Missing), (5, News::Ready)]);
    world.absent = vec![OWNER, MEMBER];
    world.cut(MEMBER);
    let away = told(&mut world, Duration::from_secs(4_000));
    assert_eq!(away, [], "nobody says anything about it");
    world.absent = vec![OWNER];
    let told = told(&mut world, Duration::from_secs(200));
    let [(missing, News::Missing), (ready, News::Ready), (over, News::Over)] = told[..] else { panic!("{told:?}") };
    assert_eq!(missing, ready);
    // Five seconds after it is back; and some twenty were left.
    assert!((14..=25).contains(&(over - missing)), "{told:?}");
}

/// A hub without state gives a name to whoever comes first. A stranger who does has the name alone: its owner is told that it is
/// another's, nobody who knows the password comes to it, and when the stranger has gone the owner opens and protects it anew.
#[test]
fn s72_v28_a_stranger_that_comes_before_the_owner_gets_the_name_and_nobody_with_it() {
    let mut world = without_owner(Reconnect::default());
    world.restored(OTHER);
    world.open(OTHER, "vault");
    world.listen(OTHER, 8, "vault", None);
    world.hub_events.clear();
    world.absent.clear();
    assert_eq!(told(&mut world, Duration::from_secs(60)), [(30, News::Missing), (30, News::Ready)]);
    let taken = |event: &Event| {
        let anothers = Failure::Refused(Refusal::NotOwner);
        matches!(event, Event::ChannelClosed { channel, why } if *channel == name("vault") && *why == anothers)
    };
    assert!(world.events[OWNER].iter().any(taken), "{:?}", world.events[OWNER]);
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    // Whatever is said there is not heard on the other side, and the name is not the owner's to protect.
    for client in [OWNER, MEMBER] {
        // As a handle says it that knows the channel with its password.
        let outgoing = Outgoing { guarded: true, ..outgoing("vault", "up", b"under the password") };
        world.command(client, Command::Broadcast { token: Token(9), outgoing });
        let told = world.next(client);
        assert!(matches!(told, Event::Sent { token: Token(9), result: Err(_) }), "{told:?}");
    }
    world.say(OTHER, "vault", "up", b"to anybody");
    world.try_to_protect(OWNER, 10, "vault", &Secret::key([2; 32]), 2);
    assert!(matches!(world.next(OWNER), Event::Done { token: Token(10), result: Err(_) }));
    assert_eq!(told(&mut world, Duration::from_secs(60)), []);
    assert!(world.events[OTHER].is_empty() && world.events[OWNER].is_empty());
    let joined = |event: &hub::Event| matches!(event, hub::Event::Joined { channel, .. } if *channel == name("vault"));
    assert!(!world.hub_events.iter().any(joined));
    world.command(OTHER, Command::Leave { token: Token(11), channel: name("vault") });
    world.expect_done(OTHER, 11);
    world.open(OWNER, "vault");
    world.protect(OWNER, "vault", &secret(), 2);
    let told = told(&mut world, Duration::from_secs(120));
    assert!(matches!(told[..], [(_, News::Returned)]), "{told:?}");
    world.events[OWNER].clear();
    world.say(OWNER, "vault", "up", b"signed");
    assert_eq!(world.expect_message(MEMBER), "signed");
}

/// A member who waits for its channel at a hub that has forgotten everything, and somebody who was its owner and forgets it too.
fn forgotten() -> World {
    let clients = ["owner", "member"].map(|name| lasting(name, Reconnect::default()));
    let mut world = World::with(support::hub(Limits::default()), clients.into());
    world.connect_all();
    let secret = secret();
    world.open(0, "vault");
    world.protect(0, "vault", &secret, 1);
    world.join(1, "vault", &secret);
    world.listen(1, 5, "vault", None);
    world.provide(1, 4, "vault", "sum");
    world.hold_dials = true;
    world.replace_hub(support::hub(Limits::default()));
    world.command(0, Command::Close);
    world.release_dials();
    world.events[1].clear();
    for _ in 0..200 {
        world.pass(Duration::from_secs(1));
    }
    let returned = |event: &Event| {
        matches!(event, Event::Reconnect(ReconnectEvent::Returned { .. }) | Event::ChannelClosed { .. })
    };
    assert!(!world.events[1].iter().any(returned));
    world.events[1].clear();
    assert_eq!(world.hub.load().channels, 0, "nothing is left of its attempts");
    world
}

#[test]
fn s72_v28_a_member_with_a_password_takes_no_channel_without() {
    let mut world = forgotten();
    // The name is somebody else's now, and what is said there is not heard.
    world.command(0, Command::Connect);
    assert!(world.events[0].iter().any(|event| matches!(event, Event::Ready(_))));
    world.events[0].clear();
    world.hub_events.clear();
    world.open(0, "vault");
    world.listen(0, 6, "vault", None);
    world.command(1, Command::Broadcast { token: Token(9), outgoing: outgoing("vault", "up", b"secret") });
    let mut told = Vec::new();
    for _ in 0..90 {
        world.pass(Duration::from_secs(1));
        told.extend(world.events[1].drain(..));
    }
    assert!(world.events[0].is_empty(), "what the member says is not heard: {:?}", world.events[0]);
    let sent = |event: &Event| match event {
        Event::Sent { token: Token(9), result } => Some(*result),
        _ => None,
    };
    let sent: Vec<_> = told.iter().filter_map(sent).collect();
    assert_eq!(sent, [Err(Failure::Refused(Refusal::Rekeyed))], "and it is told so");
    // Nor does it hear or answer there, since it is no member.
    world.say(0, "vault", "up", b"for anybody");
    world.call(0, 10, "vault", "sum", b"");
    let (_, answer) = world.expect_answered(0);
    let nobody = CallFailure::Failed { failure: Failure::Refused(Refusal::NoProvider), maybe_executed: false };
    assert_eq!(answer, Err(nobody));
    let heard = |event: &Event| matches!(event, Event::Message(_) | Event::Request(_));
    assert!(!told.iter().chain(&world.events[1]).any(heard));
    let joined = |event: &hub::Event| match event {
        hub::Event::Joined { client, .. } => Some(client.to_string()),
        _ => None,
    };
    assert_eq!(world.hub_events.iter().filter_map(joined).collect::<Vec<_>>(), ["owner"]);
    // In the end it is told that the channel is over.
    let over = |event: &Event| {
        let unprotected = Failure::Refused(Refusal::NotProtected);
        matches!(event, Event::ChannelClosed { channel, why } if *channel == name("vault") && *why == unprotected)
    };
    assert!(!told.iter().any(over));
    for _ in 0..400 {
        world.pass(Duration::from_secs(1));
    }
    assert!(world.events[1].iter().any(over), "{:?}", world.events[1]);
}
