//! Hubs that bridges join: what is at one can be reached from the others, once, and goes when it goes.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::time::Duration;

use bytes::BytesMut;
use commipc_protocol::bridge::{self, BridgeClosed, Side};
use commipc_protocol::client::{Command, Event, Token};
use commipc_protocol::hub;
use commipc_protocol::wire::{Announce, Control as _, FrameType};
use commipc_protocol::{HubId, Input, Limits, Name, Refusal};
use support::net::{Between, Net, address, hub_name};
use support::{outgoing, payload};

/// Answers the request that a client is told of next.
fn answer(net: &mut Net, client: usize, with: &'static [u8]) {
    let request = net.expect_request(client).id;
    net.command(client, Command::Answer { request, result: Ok(payload(with)) });
}

#[test]
fn s75_s79_s80_a_provider_from_before_the_bridge_is_called_from_afar_and_knows_who_calls() {
    for seed in 0..20 {
        let mut net = Net::new(seed, 3, &[("caller", 0), ("provider", 2)]);
        net.open(1, "math");
        net.provide(1, 5, "math", "sum");
        net.call(0, 1, "math", "sum", b"early");
        assert_eq!(net.expect_refused(0), Refusal::NoProvider, "nobody leads there");
        let (near, far) = (net.bridge(0, 1), net.bridge(2, 1));
        net.run();
        assert!(net.is_bridged(near) && net.is_bridged(far), "{:?}", net.bridge_events);
        net.call(0, 2, "math", "sum", b"2+2");
        let request = net.expect_request(1);
        assert_eq!(request.message.sender, address("caller", 0), "its own name, not the bridge's");
        assert_eq!((request.message.hops, &request.message.payload.bytes[..]), (3, &b"2+2"[..]));
        let bridged = |net: &Net| net.hubs.iter().flatten().map(|hub| hub.load().bridged).collect::<Vec<_>>();
        assert_eq!(bridged(&net), [0, 1, 1], "who calls from afar is known as long as it does");
        let result = Ok(payload(b"4"));
        net.command(1, Command::Answer { request: request.id, result });
        let answer = net.expect_answered(0).unwrap();
        assert_eq!((answer.provider, &answer.payload.bytes[..]), (address("provider", 2), &b"4"[..]));
        assert!(net.hubs.iter().flatten().all(|hub| hub.load().calls == 0));
        assert_eq!(bridged(&net), [0; 3]);
    }
}

#[test]
fn d15_s76_v31_in_a_triangle_everybody_hears_a_broadcast_once() {
    for seed in 0..50 {
        let mut net = Net::new(seed, 3, &[("a", 0), ("b", 1), ("c", 2), ("c2", 2)]);
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            net.bridge(a, b);
        }
        for client in 0..4 {
            net.open(client, "news");
            net.listen(client, 7, "news", if client == 3 { None } else { Some("up") });
        }
        net.run();
        for (round, text) in [&b"one"[..], b"two", b"three"].into_iter().enumerate() {
            let said_by = round % 3;
            net.say(said_by, "news", "up", text);
            for client in (0..4).filter(|client| *client != said_by) {
                let heard = net.expect_message(client).message;
                assert_eq!(&heard.payload.bytes[..], text, "seed {seed}");
                assert_eq!(heard.sender, address(["a", "b", "c"][said_by], said_by));
            }
        }
        assert!(net.events.iter().all(std::collections::VecDeque::is_empty), "seed {seed}: {:?}", net.events);
    }
}

#[test]
fn s76_nothing_is_carried_to_where_nobody_listens() {
    let mut net = Net::new(1, 2, &[("a", 0), ("b", 1)]);
    net.bridge(0, 1);
    net.open(0, "news");
    net.open(1, "news");
    net.listen(1, 7, "news", Some("up"));
    net.run();
    net.say(0, "news", "up", b"heard");
    assert_eq!(net.expect_message(1).message.payload.bytes, &b"heard"[..]);
    let before = net.crossed;
    net.say(0, "news", "down", b"another event");
    net.say(0, "weather", "up", b"another channel");
    assert_eq!(net.crossed, before);
    net.command(1, Command::Unlisten { token: Token(8), listener: Token(7) });
    net.expect_done(1, 8);
    let before = net.crossed;
    net.say(0, "news", "up", b"nobody listens any more");
    assert_eq!(net.crossed, before);
}

#[test]
fn d16_v34_a_withdrawn_provider_vanishes_everywhere() {
    for seed in 0..20 {
        let mut net = Net::new(seed, 4, &[("caller", 0), ("provider", 3)]);
        // A ring, so that there is a second way on which the route could live on.
        for (a, b) in [(0, 1), (1, 3), (3, 2), (2, 0)] {
            net.bridge(a, b);
        }
        net.open(1, "math");
        net.provide(1, 5, "math", "sum");
        net.call(0, 1, "math", "sum", b"");
        answer(&mut net, 1, b"yes");
        assert!(net.expect_answered(0).is_ok());
        net.command(1, Command::Withdraw { token: Token(6), provider: Token(5) });
        net.expect_done(1, 6);
        net.call(0, 2, "math", "sum", b"");
        assert_eq!(net.expect_refused(0), Refusal::NoProvider, "seed {seed}");
        // The same if the provider just goes.
        net.provide(1, 7, "math", "sum");
        net.command(1, Command::Close);
        net.run();
        net.call(0, 3, "math", "sum", b"");
        assert_eq!(net.expect_refused(0), Refusal::NoProvider, "seed {seed}");
    }
}

#[test]
fn s78_v34_a_call_goes_in_no_circle_though_every_hub_believes_in_another() {
    for seed in 0..20 {
        let mut net = Net::new(seed, 3, &[("caller", 0), ("provider", 2)]);
        let bridges = [net.bridge(0, 1), net.bridge(1, 2), net.bridge(2, 0)];
        net.open(1, "math");
        net.provide(1, 5, "math", "sum");
        // Word of the end does not spread: hub c is gone before it can say so, and nothing moves to or from one bridge.
        net.held.push(support::net::Node::Bridge(bridges[0]));
        net.kill_hub(2);
        net.call(0, 1, "math", "sum", b"");
        net.held.clear();
        net.run();
        assert!(matches!(net.expect_refused(0), Refusal::NoProvider | Refusal::Loop | Refusal::ProviderGone));
        assert!(net.hubs.iter().flatten().all(|hub| hub.load().calls == 0), "seed {seed}");
    }
}

#[test]
fn s75_the_nearest_provider_is_asked_and_another_when_it_is_gone() {
    let mut net = Net::new(3, 3, &[("caller", 0), ("near", 1), ("far", 2), ("here", 0)]);
    net.bridge(0, 1);
    net.bridge(1, 2);
    for client in [2, 1] {
        net.open(client, "math");
        net.provide(client, 5, "math", "sum");
    }
    net.call(0, 1, "math", "sum", b"");
    answer(&mut net, 1, b"near");
    assert_eq!(net.expect_answered(0).unwrap().payload.bytes, &b"near"[..]);
    net.open(3, "math");
    net.provide(3, 5, "math", "sum");
    net.call(0, 2, "math", "sum", b"");
    answer(&mut net, 3, b"here");
    assert_eq!(net.expect_answered(0).unwrap().provider, address("here", 0));
    net.command(3, Command::Close);
    net.command(1, Command::Close);
    net.call(0, 3, "math", "sum", b"");
    answer(&mut net, 2, b"far");
    assert_eq!(net.expect_answered(0).unwrap().provider, address("far", 2));
}

#[test]
fn s80_a_lost_hop_ends_its_calls_and_comes_back_with_all_that_is_there_by_then() {
    for side in [Side::A, Side::B] {
        let mut net = Net::new(4, 2, &[("caller", 0), ("provider", 1)]);
        let bridge = net.bridge(0, 1);
        net.open(1, "math");
        net.provide(1, 5, "math", "sum");
        net.call(0, 1, "math", "sum", b"");
        let request = net.expect_request(1).id;
        net.cut(bridge, side);
        net.run();
        assert_eq!(net.expect_refused(0), Refusal::ProviderGone);
        assert!(matches!(net.next(1), Event::RequestEnded { request: ended, .. } if ended == request));
        net.provide(1, 6, "math", "product");
        net.pass(Duration::from_secs(5));
        assert!(net.is_bridged(bridge), "{:?}", net.bridge_events);
        for (token, event) in [(2, "sum"), (3, "product")] {
            net.call(0, token, "math", event, b"");
            answer(&mut net, 1, b"back");
            assert!(net.expect_answered(0).is_ok());
        }
    }
}

#[test]
fn d16_a_hub_that_is_gone_takes_its_providers_with_it_and_brings_them_back() {
    let mut net = Net::new(5, 3, &[("caller", 0), ("provider", 2)]);
    net.bridge(0, 1);
    let far = net.bridge(1, 2);
    net.open(1, "math");
    net.provide(1, 5, "math", "sum");
    net.kill_hub(2);
    net.run();
    net.call(0, 1, "math", "sum", b"");
    assert_eq!(net.expect_refused(0), Refusal::NoProvider);
    assert!(!net.is_bridged(far));
    net.start_hub(2);
    net.pass(Duration::from_secs(30));
    assert!(net.is_bridged(far));
    net.events[1].clear();
    net.call(0, 2, "math", "sum", b"");
    answer(&mut net, 1, b"");
    assert!(net.expect_answered(0).is_ok());
}

#[test]
fn s81_a_send_reaches_a_provider_elsewhere_once_and_stays_a_send() {
    let mut net = Net::new(6, 3, &[("sender", 0), ("provider", 1)]);
    for (a, b) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
        net.bridge(a, b);
    }
    net.open(1, "jobs");
    net.provide(1, 5, "jobs", "run");
    net.command(0, Command::Send { token: Token(9), outgoing: outgoing("jobs", "run", b"now") });
    assert!(matches!(net.next(0), Event::Sent { token: Token(9), result: Ok(()) }));
    let heard = net.expect_message(1);
    assert_eq!((heard.to, &heard.message.payload.bytes[..]), (Token(5), &b"now"[..]));
    assert!(net.events[1].is_empty());
}

#[test]
fn s77_only_what_is_allowed_passes_and_one_way_is_one_way() {
    let mut net = Net::new(7, 2, &[("a", 0), ("b", 1)]);
    net.bridge_with(0, 1, &Between { allow: vec!["open*", "shared@up"], one_way: true, rate: None });
    for client in 0..2 {
        for channel in ["open-1", "shared", "secret"] {
            net.open(client, channel);
            net.listen(client, 7, channel, None);
        }
    }
    for (channel, event, passes) in
        [("open-1", "any", true), ("shared", "up", true), ("shared", "down", false), ("secret", "up", false)]
    {
        net.say(0, channel, event, b"from a");
        assert_eq!(net.events[1].pop_front().is_some(), passes, "{channel} {event}");
        net.say(1, channel, event, b"from b");
        assert!(net.events[0].is_empty(), "{channel} {event}");
    }
    net.provide(0, 8, "open-1", "sum");
    net.call(1, 1, "open-1", "sum", b"");
    answer(&mut net, 0, b"");
    assert!(net.expect_answered(1).is_ok());
    net.provide(1, 8, "open-1", "other");
    net.call(0, 1, "open-1", "other", b"");
    assert_eq!(net.expect_refused(0), Refusal::NoProvider);
}

#[test]
fn s77_a_bridge_lets_only_so_much_through() {
    let mut net = Net::new(8, 2, &[("a", 0), ("b", 1)]);
    let bridge = net.bridge_with(0, 1, &Between { rate: Some(5), ..Between::default() });
    net.open(1, "news");
    net.listen(1, 7, "news", None);
    net.provide(1, 8, "news", "sum");
    for _ in 0..20 {
        net.say(0, "news", "up", b"");
    }
    assert_eq!(net.events[1].len(), 5);
    assert_eq!(net.bridges[bridge].as_ref().unwrap().counters().throttled, 15);
    net.call(0, 1, "news", "sum", b"");
    assert_eq!(net.expect_refused(0), Refusal::Overloaded);
    net.pass(Duration::from_secs(1));
    net.call(0, 1, "news", "sum", b"");
    net.events[1].drain(..5);
    answer(&mut net, 1, b"");
    assert!(net.expect_answered(0).is_ok(), "answers are no new work");
}

#[test]
fn s74_a_bridge_needs_two_hubs() {
    let mut net = Net::new(9, 2, &[]);
    let bridge = net.bridge(0, 0);
    net.run();
    let hub = HubId::new(&hub_name(0)).unwrap();
    let closed = net.bridge_events[bridge].last();
    assert_eq!(closed, Some(&bridge::Event::Closed(BridgeClosed::SameHub(hub))));
}

#[test]
fn s78_d16_bridges_hide_no_clients_however_those_are_called() {
    let mut net = Net::new(10, 2, &[("caller", 1)]);
    // Two between the same hubs.
    let bridges = [net.bridge(0, 1), net.bridge(0, 1)];
    net.run();
    assert!(bridges.iter().all(|bridge| net.is_bridged(*bridge)));
    let id = net.bridges[bridges[0]].as_ref().unwrap().id().to_string();
    // Called as the bridge, and as what begins like the bridge and its clients.
    let clients = [(id.clone(), 0), (format!("{id}-service"), 1), (format!("{id}-c1-service"), 0)];
    let clients = clients.map(|(name, hub)| net.add_client(&name, hub));
    net.run();
    assert!(clients.iter().all(|client| matches!(net.next(*client), Event::Ready(_))));
    for (client, other) in [(clients[0], 0), (clients[1], clients[0]), (clients[2], clients[1])] {
        let channel = ["zero", "one", "two", "three"][client];
        net.open(client, channel);
        net.provide(client, 5, channel, "sum");
        net.call(other, 1, channel, "sum", b"");
        answer(&mut net, client, b"");
        assert!(net.expect_answered(other).is_ok());
    }
    net.open(0, "news");
    net.listen(0, 7, "news", None);
    net.say(clients[0], "news", "up", b"once");
    assert_eq!(net.events[0].len(), 1, "two ways are one message");
}

#[test]
fn s78_nothing_goes_further_than_messages_may() {
    let mut limits = Limits::default();
    limits.hops = 3;
    let mut net = Net::with(11, 5, &[("caller", 0), ("near", 2), ("far", 3)], limits);
    for hub in 0..4 {
        net.bridge(hub, hub + 1);
    }
    for (client, channel) in [(1, "near"), (2, "far")] {
        net.open(client, channel);
        net.provide(client, 5, channel, "sum");
        net.listen(client, 7, channel, None);
    }
    net.call(0, 1, "near", "sum", b"");
    answer(&mut net, 1, b"");
    assert!(net.expect_answered(0).is_ok());
    net.call(0, 2, "far", "sum", b"");
    assert_eq!(net.expect_refused(0), Refusal::NoProvider);
    let before = net.crossed;
    net.say(0, "far", "up", b"");
    assert_eq!(net.crossed, before, "there is no way");
}

#[test]
fn what_passes_after_a_long_silence_passes() {
    let mut net = Net::new(15, 2, &[("a", 0), ("b", 1)]);
    let bridge = net.bridge(0, 1);
    net.open(1, "news");
    net.listen(1, 7, "news", None);
    for _ in 0..3 {
        net.pass(Duration::from_secs(20));
        net.say(0, "news", "up", b"");
        net.expect_message(1);
        assert!(net.is_bridged(bridge), "{:?}", net.bridge_events);
    }
}

#[test]
fn calls_that_come_over_one_bridge_are_so_many() {
    let mut limits = Limits::default();
    limits.bridge_calls = 3;
    let mut net = Net::with(13, 2, &[("a", 0), ("b", 1), ("a2", 0)], limits);
    net.bridge(0, 1);
    net.open(1, "math");
    net.provide(1, 5, "math", "sum");
    for (client, token) in [(0, 1), (2, 1), (0, 2)] {
        net.call(client, token, "math", "sum", b"");
    }
    net.call(2, 2, "math", "sum", b"");
    assert_eq!(net.expect_refused(2), Refusal::Overloaded);
    answer(&mut net, 1, b"");
    assert!(net.expect_answered(0).is_ok());
    net.call(2, 3, "math", "sum", b"");
    assert!(net.events[2].is_empty());
}

#[test]
fn what_has_come_on_which_way_is_told_with_it_and_listed() {
    let mut net = Net::new(14, 3, &[("a", 0), ("b", 2)]);
    net.bridge(0, 1);
    net.bridge(1, 2);
    net.open(1, "math");
    net.provide(1, 5, "math", "sum");
    net.listen(1, 7, "math", None);
    net.open(0, "math");
    let path = |hubs: &[usize]| hubs.iter().map(|hub| HubId::new(&hub_name(*hub)).unwrap()).collect::<Vec<_>>();
    net.say(0, "math", "up", b"");
    assert_eq!(net.expect_message(1).message.path, path(&[0, 1]));
    net.call(0, 1, "math", "sum", b"");
    answer(&mut net, 1, b"");
    assert_eq!(net.expect_answered(0).unwrap().path, path(&[2, 1]));
    net.call(0, 2, "__comm_ipc_system", "members", b"\xa1\x67channel\x64math");
    let listed = net.expect_answered(0).unwrap().payload.bytes;
    let text = String::from_utf8_lossy(&listed).into_owned();
    for part in ["hub-c", "hub-b", "sum"] {
        assert!(text.contains(part), "{part} is not in {text:?}");
    }
    net.call(0, 3, "__comm_ipc_system", "channels", b"\xf6");
    let listed = net.expect_answered(0).unwrap().payload.bytes;
    assert!(String::from_utf8_lossy(&listed).contains("hub-c"));
}

#[test]
fn a_bridge_announces_only_so_much_and_the_hub_says_so_once() {
    let mut limits = Limits::default();
    limits.bridge_routes = 3;
    let mut net = Net::with(12, 2, &[("a", 0), ("b", 1)], limits);
    net.open(1, "math");
    for (token, event) in [(5, "one"), (6, "two"), (7, "three"), (8, "four")] {
        net.provide(1, token, "math", event);
    }
    net.bridge(0, 1);
    net.run();
    let full = |net: &Net, hub: usize| {
        let told = net.hub_events[hub].iter();
        let events = told.filter(|event| matches!(event, hub::Event::BridgeFull { .. })).count();
        (events, net.hubs[hub].as_ref().unwrap().counters().unlearned)
    };
    assert_eq!((full(&net, 1), full(&net, 0)), ((1, 2), (0, 0)), "a hub says no more than the other takes");
    // One that does is not listened to.
    let mut body = BytesMut::new();
    let name = |text| Name::new(text).unwrap();
    let announce = Announce {
        goal: 2,
        channel: name("math"),
        event: None,
        path: vec![name("hub-b")],
        client: Some(name("more")),
        kind: None,
        epoch: None,
        home: None,
        terms: None,
        ended: None,
    };
    announce.encode(&mut body);
    for _ in 0..2 {
        net.forge(0, Side::A, FrameType::Announce.number(), &body);
    }
    assert_eq!(full(&net, 0), (1, 2));
    // What is forgotten makes room for what could not be told before.
    net.call(0, 1, "math", "two", b"");
    assert_eq!(net.expect_refused(0), Refusal::NoProvider);
    net.command(1, Command::Withdraw { token: Token(9), provider: Token(5) });
    net.expect_done(1, 9);
    net.run();
    for (token, event) in [(2, "two"), (3, "three"), (4, "four")] {
        net.call(0, token, "math", event, b"");
        answer(&mut net, 1, b"");
        net.expect_answered(0).unwrap();
    }
    net.call(0, 5, "math", "one", b"");
    assert_eq!(net.expect_refused(0), Refusal::NoProvider);
    net.command(1, Command::Close);
    net.run();
    assert_eq!([0, 1].map(|hub| net.hubs[hub].as_ref().unwrap().load().announced), [0, 0]);
}

#[test]
fn s86_a_hub_that_drains_finishes_what_came_over_bridges_and_takes_no_more_of_it() {
    for seed in 0..20 {
        let clients = [("caller", 0), ("middle", 1), ("far", 2), ("listener", 1)];
        let mut net = Net::new(seed, 3, &clients);
        net.bridge(0, 1);
        net.bridge(1, 2);
        for (client, event) in [(1, "near"), (2, "beyond")] {
            net.open(client, "math");
            net.provide(client, 5, "math", event);
        }
        for listener in [0, 3] {
            net.open(listener, "math");
            net.listen(listener, 7, "math", Some("news"));
        }
        // One that ends at the hub, and one that passes it.
        net.call(0, 1, "math", "near", b"");
        net.call(0, 2, "math", "beyond", b"");
        let [near, beyond] = [1, 2].map(|client| net.expect_request(client).id);
        let drain = hub::Command::Drain { time: Duration::from_secs(30) };
        net.feed_hub(1, Input::Command(drain));
        net.run();
        for event in ["near", "beyond"] {
            net.call(0, 3, "math", event, b"");
            assert_eq!(net.expect_refused(0), Refusal::NoProvider, "{event}, seed {seed}");
        }
        // A provider that comes now is not announced either.
        net.provide(2, 6, "math", "late");
        net.call(0, 3, "math", "late", b"");
        assert_eq!(net.expect_refused(0), Refusal::NoProvider, "seed {seed}");
        net.say(2, "math", "news", b"still heard");
        for listener in [0, 3] {
            assert_eq!(net.expect_message(listener).message.payload.bytes, &b"still heard"[..]);
        }
        for (client, request) in [(1, near), (2, beyond)] {
            net.command(client, Command::Answer { request, result: Ok(payload(b"done")) });
            assert_eq!(net.expect_answered(0).unwrap().payload.bytes, &b"done"[..], "seed {seed}");
        }
        net.run();
        let told = &net.hub_events[1];
        assert!(told.contains(&hub::Event::Drained { cut: 0 }) && told.ends_with(&[hub::Event::Stopped]), "{told:?}");
    }
}

#[test]
fn s86_while_a_hub_drains_calls_go_where_its_bridges_do_not_lead() {
    // A ring of four: the way over the hub that drains is the first in order.
    let mut net = Net::new(1, 4, &[("caller", 0), ("provider", 3)]);
    for (a, b) in [(0, 1), (1, 3), (3, 2), (2, 0)] {
        net.bridge(a, b);
    }
    net.open(1, "math");
    net.provide(1, 5, "math", "sum");
    net.call(0, 1, "math", "sum", b"");
    let request = net.expect_request(1);
    let by_way_of = |request: &commipc_protocol::client::Request| request.message.source.path[1].to_string();
    let before = by_way_of(&request);
    let drains = if before == hub_name(1) { 1 } else { 2 };
    net.feed_hub(drains, Input::Command(hub::Command::Drain { time: Duration::from_secs(30) }));
    net.run();
    net.call(0, 2, "math", "sum", b"");
    let other = net.expect_request(1);
    assert_ne!(by_way_of(&other), before);
    for request in [request.id, other.id] {
        net.command(1, Command::Answer { request, result: Ok(payload(b"4")) });
        assert!(net.expect_answered(0).is_ok());
    }
}

/// All orders of so many things.
fn orders(of: usize) -> Vec<Vec<usize>> {
    if of == 0 {
        return vec![Vec::new()];
    }
    let longer = |order: Vec<usize>| {
        (0..of).map(move |place| {
            let mut order = order.clone();
            order.insert(place, of - 1);
            order
        })
    };
    orders(of - 1).into_iter().flat_map(longer).collect()
}

#[test]
fn s75_of_ways_as_long_the_one_over_the_first_hub_by_its_id_is_taken_whoever_came_first() {
    const RING: [(usize, usize); 4] = [(0, 1), (1, 3), (3, 2), (2, 0)];
    let path = |hubs: [usize; 2]| hubs.map(|hub| HubId::new(&hub_name(hub)).unwrap()).to_vec();
    let mut played = 0;
    for (seed, order) in (1..).zip(orders(4)) {
        for settles in [false, true] {
            let mut net = Net::new(seed, 4, &[("a", 0), ("b", 1), ("c", 2), ("d", 3)]);
            for (client, event) in ["at-a", "at-b", "at-c", "at-d"].into_iter().enumerate() {
                net.open(client, "math");
                net.provide(client, 5, "math", event);
            }
            for edge in &order {
                net.bridge(RING[*edge].0, RING[*edge].1);
                if settles {
                    net.run();
                }
            }
            net.run();
            // Each to the one opposite, over the first of the two between.
            for (caller, provider, between, event) in
                [(0, 3, 1, "at-d"), (3, 0, 1, "at-a"), (1, 2, 0, "at-c"), (2, 1, 0, "at-b")]
            {
                net.call(caller, 1, "math", event, b"");
                let request = net.expect_request(provider);
                assert_eq!(request.message.source.path, path([caller, between]), "{order:?}, {settles}");
                net.command(provider, Command::Answer { request: request.id, result: Ok(payload(b"")) });
                assert_eq!(net.expect_answered(caller).unwrap().path, path([provider, between]), "{order:?}");
                played += 1;
            }
        }
    }
    assert_eq!(played, 24 * 2 * 4);
}
