//! What moves between hubs, link by link: messages only to where somebody listens, announcements only to who is not on their
//! way, and everything only so far.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what is unexpected fails it")]

use crate::support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use commipc_protocol::Input;
use commipc_protocol::bridge::Side;
use commipc_protocol::client::{Command, Token};
use commipc_protocol::wire::{Announce, Control as _, FrameType, Hop, Message};
use support::net::{Between, Net, hub_name};
use support::outgoing;

use crate::graphs::graphs;

/// A triangle, and a leaf at its third hub.
const TRIANGLE_AND_LEAF: [(usize, usize); 4] = [(0, 1), (0, 2), (1, 2), (2, 3)];

/// A member at each hub.
const MEMBERS: [&str; 5] = ["m0", "m1", "m2", "m3", "m4"];

/// Hubs with a member each in one channel, joined.
fn joined(seed: u64, hubs: usize, edges: &[(usize, usize)]) -> Net {
    let clients: Vec<(&str, usize)> = MEMBERS.into_iter().take(hubs).zip(0..).collect();
    let mut net = Net::new(seed, hubs, &clients);
    for (a, b) in edges {
        net.bridge(*a, *b);
    }
    net.run();
    (0..hubs).for_each(|member| net.open(member, "news"));
    net
}

/// How many messages have passed each bridge.
fn passed(net: &Net) -> Vec<u64> {
    net.bridges.iter().flatten().map(|bridge| bridge.counters().passed).collect()
}

/// How many messages pass each bridge while the first hub's member says something.
fn carried(net: &mut Net) -> Vec<u64> {
    let before = passed(net);
    net.say(0, "news", "up", b"");
    passed(net).iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
fn s76_s77_what_is_said_is_carried_over_no_link_behind_which_nobody_listens_to_it() {
    for seed in 0..20 {
        let mut net = joined(seed, 4, &TRIANGLE_AND_LEAF);
        let unlisten = |net: &mut Net, client: usize, token: u64| {
            net.command(client, Command::Unlisten { token: Token(99), listener: Token(token) });
            net.expect_done(client, 99);
        };
        assert_eq!(carried(&mut net), [0, 0, 0, 0], "nobody listens");
        net.listen(0, 7, "news", None);
        assert_eq!(carried(&mut net), [0, 0, 0, 0], "nobody elsewhere");
        for client in 1..4 {
            net.listen(client, 7, "news", Some("down"));
        }
        assert_eq!(carried(&mut net), [0, 0, 0, 0], "nobody to this event");
        // At one corner: on both ways round to it, which the third does not go back, and never to the leaf.
        net.listen(1, 8, "news", Some("up"));
        assert_eq!(carried(&mut net), [1, 1, 1, 0], "seed {seed}");
        assert_eq!(net.events[1].len(), 1);
        unlisten(&mut net, 2, 7);
        unlisten(&mut net, 3, 7);
        assert_eq!(carried(&mut net), [1, 1, 1, 0], "seed {seed}");
        net.events[1].clear();
        unlisten(&mut net, 1, 8);
        assert_eq!(carried(&mut net), [0, 0, 0, 0], "nobody any more");
        // At the leaf: once to it, whichever way round it came first.
        net.listen(3, 8, "news", None);
        assert_eq!(carried(&mut net), [1, 1, 1, 1], "seed {seed}");
        assert_eq!(net.events[3].len(), 1);
        net.events[3].clear();
        net.command(3, Command::Close);
        assert_eq!(carried(&mut net), [0, 0, 0, 0], "it has left");
    }
}

/// The other end of a bridge is on the path of whatever was learnt from it, and of whatever leads through it.
#[test]
fn s75_d16_v34_nothing_is_announced_to_a_hub_that_is_on_the_way_to_it() {
    for (hubs, edges) in graphs(4) {
        // Once more between two of them, so that there is another link to the hub that something was learnt from.
        let edges: Vec<(usize, usize)> = edges.iter().chain(edges.first()).copied().collect();
        for watched in 0..edges.len() {
            let clients: Vec<(&str, usize)> = MEMBERS.into_iter().take(hubs).zip(0..).collect();
            let mut net = Net::new(1, hubs, &clients);
            let told = Rc::new(RefCell::new(BTreeSet::new()));
            let keeps = Rc::clone(&told);
            net.evil = Some((
                watched,
                Box::new(move |kind, body| {
                    if kind == FrameType::Announce.number() {
                        let path = Announce::parse(body).unwrap().path;
                        keeps.borrow_mut().insert(path.iter().map(|hub| hub.as_str().to_owned()).collect::<Vec<_>>());
                    }
                    vec![(kind, body.to_vec())]
                }),
            ));
            for (a, b) in &edges {
                net.bridge(*a, *b);
            }
            for (client, provided) in MEMBERS.into_iter().enumerate().take(hubs) {
                net.open(client, "news");
                net.listen(client, 7, "news", Some("up"));
                net.provide(client, 8, "news", provided);
            }
            // Ways change: every other bridge goes and comes back.
            for other in (0..edges.len()).filter(|other| *other != watched) {
                net.kill_bridge(other);
                net.run();
                net.start_bridge(other, edges[other].0, edges[other].1, &Between::default());
                net.run();
            }
            let (a, b) = (hub_name(edges[watched].0), hub_name(edges[watched].1));
            let told = told.borrow();
            for path in told.iter() {
                assert!(path.contains(&a) != path.contains(&b), "{edges:?}, bridge {watched}: {path:?}");
                assert!(path[0] == a || path[0] == b, "{path:?}");
            }
            let first = |hub: &String| told.iter().any(|path| path[0] == *hub);
            assert!(first(&a) && first(&b), "{edges:?}, bridge {watched}: both say what they have");
        }
    }
}

/// Whatever is under way when a bridge ends comes to rest, and soon: each message passes each link a few times at most.
#[test]
fn s78_v34_what_is_under_way_when_a_bridge_ends_comes_to_rest_within_a_bound_of_steps() {
    for (hubs, edges) in graphs(5) {
        for cut in 0..edges.len() {
            let mut net = joined(cut as u64, hubs, &edges);
            for client in 0..hubs {
                net.listen(client, 7, "news", Some("up"));
            }
            net.provide(0, 8, "news", "sum");
            for client in 0..hubs {
                for outgoing in [outgoing("news", "up", b"1"), outgoing("news", "up", b"2")] {
                    net.feed_client(client, Input::Command(Command::Broadcast { token: Token(77), outgoing }));
                }
                let outgoing = outgoing("news", "sum", b"");
                net.feed_client(client, Input::Command(Command::Send { token: Token(78), outgoing }));
            }
            for _ in 0..hubs + cut {
                net.step();
            }
            net.kill_bridge(cut);
            let mut steps = 0;
            // Three messages of each, once over each link in each direction, to the bridge and from it, and to everybody: as each
            // goes over most links in one direction alone, that leaves room for the word of what is gone.
            let most = 3 * hubs * (4 * edges.len() + hubs + 2);
            while net.step() {
                steps += 1;
                assert!(steps <= most, "{edges:?} without bridge {cut}: it goes on after {steps} steps");
            }
        }
    }
}

/// What a bridge passes on is, byte for byte, what it was given, behind the hubs that were visited.
#[test]
fn v1_v32_what_two_bridges_and_the_hub_between_them_pass_on_are_the_very_bytes() {
    let mut net = joined(9, 3, &[(0, 1), (1, 2)]);
    net.listen(2, 7, "news", None);
    let keeps = |net: &mut Net, bridge: usize| {
        let kept = Rc::new(RefCell::new(Vec::new()));
        let keeps = Rc::clone(&kept);
        net.evil = Some((
            bridge,
            Box::new(move |kind, body| {
                if kind == FrameType::Broadcast.number() {
                    keeps.borrow_mut().push(body.to_vec());
                }
                vec![(kind, body.to_vec())]
            }),
        ));
        kept
    };
    let first = keeps(&mut net, 0);
    net.say(0, "news", "up", b"the very bytes");
    let given = first.borrow()[0].clone();
    assert_eq!(net.expect_message(2).message.payload.bytes, b"the very bytes"[..]);
    // The same once more, when it is forgotten, to see it behind the second bridge.
    net.pass(Duration::from_secs(61));
    let second = keeps(&mut net, 1);
    net.forge(0, Side::B, FrameType::Broadcast.number(), &given);
    let passed = second.borrow()[0].clone();
    let ((before, given), (after, passed)) = (Hop::split(&given).unwrap(), Hop::split(&passed).unwrap());
    assert_eq!(given, passed);
    assert!(Message::parse(passed).is_ok());
    let visited = |hop: Hop<'_>| hop.visited().map(|hub| hub.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!((visited(before), visited(after)), (vec![hub_name(0)], vec![hub_name(0), hub_name(1)]));
}
