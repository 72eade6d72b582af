//! Channels that do not come back with their connection, since their owner is away: the member is told which, and is ready
//! with everything else; and in the end it is told that such a channel is over.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Event, Failure, Reconnect, ReconnectEvent, Token, Unrestored};
use commipc_protocol::{Limits, Refusal};
use support::{World, hub, lasting, name};

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
    let mut world = World::with(hub(Limits::default()), clients.into());
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
    world.replace_hub(hub(Limits::default()));
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
