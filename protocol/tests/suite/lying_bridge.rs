//! A bridge that makes up what homes say: whoever joins or owns over it is refused, and nobody's connection ends by it. And one
//! that floods: hubs nearer than it lose nothing at those behind them.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use bytes::BytesMut;
use commipc_protocol::auth::Secret;
use commipc_protocol::bridge::Side;
use commipc_protocol::client::{Access, ChannelSalt, Command, Event, Failure, Token};
use commipc_protocol::hub;
use commipc_protocol::wire::{Announce, Control as _, FrameType, Terms, Told};
use commipc_protocol::{Limits, Misuse, Name, Refusal};
use support::name;
use support::net::{Evil, Net, Node};

const HOME: usize = 0;
/// Its hub is the one that the lying bridge talks to.
const NEAR: usize = 1;
/// There is an honest hub between that and its own.
const FAR: usize = 2;

fn password(number: u8) -> Secret {
    Secret::key([number; 32])
}

/// `vault` lives at the first hub, and the bridge from there to the second one lies.
fn scene(seed: u64) -> Net {
    let mut limits = Limits::default();
    (limits.free_failures, limits.free_failures_per_source) = (10_000, 10_000);
    let mut net = Net::with(seed, 3, &[("home", 0), ("near", 1), ("far", 2)], limits);
    net.bridge(0, 1);
    net.bridge(1, 2);
    net.run();
    net.open(HOME, "vault");
    net.protect(HOME, "vault", &password(1), 1);
    net
}

/// What may be said in place of one TOLD.
type Lie = fn(Told<'static>) -> Vec<Told<'static>>;

/// What is said of a challenge that no home gives.
const CHALLENGES: &[(&str, Lie)] = &[
    ("no kdf has this number", |told| vec![Told { kdf: Some(9), ..told }]),
    ("nor this", |told| vec![Told { kdf: Some(u64::MAX), ..told }]),
    ("protected by nothing", |told| vec![Told { kdf: Some(3), ..told }]),
    ("no kdf", |told| vec![Told { kdf: None, ..told }]),
    ("rounds for a key", |told| vec![Told { iterations: Some(1), ..told }]),
    ("more rounds than fit a number", |told| vec![Told { iterations: Some(1 << 32), ..told }]),
    ("too few rounds", |told| vec![Told { kdf: Some(1), iterations: Some(99_999), ..told }]),
    ("too many rounds", |told| vec![Told { kdf: Some(1), iterations: Some(10_000_001), ..told }]),
    ("no rounds", |told| vec![Told { iterations: None, ..told }]),
    ("epoch 0", |told| vec![Told { epoch: Some(0), ..told }]),
    ("an epoch behind the last", |told| vec![Told { epoch: Some((1 << 53) + 1), ..told }]),
    ("no epoch", |told| vec![Told { epoch: None, ..told }]),
    ("a nonce of zeros", |told| vec![Told { nonce: Some(&[0; 32]), ..told }]),
    ("no salt", |told| vec![Told { salt: None, ..told }]),
    ("no boot id", |told| vec![Told { boot: None, ..told }]),
    ("no challenge at all: yes", |told| vec![Told { proof: Some(&[1; 32]), ..Told::bare(told.id, 0) }]),
    ("a bare yes", |told| vec![Told::bare(told.id, 0)]),
    ("a code of nobody", |told| vec![Told::bare(told.id, 4_711)]),
    ("twice", |told| vec![told.clone(), told]),
    ("twice, differently", |told| vec![told.clone(), Told { nonce: Some(&[3; 32]), ..told }]),
    ("and yes", |told| vec![told.clone(), Told { proof: Some(&[1; 32]), ..Told::bare(told.id, 0) }]),
    ("and no", |told| vec![told.clone(), Told::bare(told.id, Refusal::HomeGone.code())]),
    ("of another run of the home", |told| vec![Told { boot: Some(&[3; 16]), ..told }]),
    ("of another password", |told| vec![Told { salt: Some(&[3; 16]), ..told }]),
    ("of a later epoch", |told| vec![Told { epoch: Some(7), ..told }]),
    ("another nonce", |told| vec![Told { nonce: Some(&[3; 32]), ..told }]),
];

/// What is said in place of a home's yes to a proof.
const ANSWERS: &[(&str, Lie)] = &[
    ("a proof of nothing", |told| vec![Told { proof: Some(&[1; 32]), ..told }]),
    ("no proof", |told| vec![Told { proof: None, ..told }]),
    ("another challenge", |told| {
        let (epoch, kdf, iterations) = (Some(1), Some(2), Some(0));
        let (salt, nonce, boot) = (Some(&[1; 16]), Some(&[3; 32]), Some(&[4; 16]));
        vec![Told { epoch, kdf, iterations, salt, nonce, boot, ..Told::bare(told.id, 0) }]
    }),
    ("a code of nobody", |told| vec![Told::bare(told.id, 4_711)]),
];

/// Says something else in place of challenges, or of what homes say to proofs.
fn lies(lie: Lie, of_challenges: bool) -> Evil {
    Box::new(move |kind, body| {
        let leaked: &'static [u8] = Box::leak(body.to_vec().into_boxed_slice());
        match Told::parse(leaked) {
            Ok(told) if kind == FrameType::Told.number() && told.nonce.is_some() == of_challenges => {
                let say = |told: Told<'_>| {
                    let mut out = BytesMut::new();
                    told.encode(&mut out);
                    (kind, out.to_vec())
                };
                lie(told).into_iter().map(say).collect()
            }
            _ => vec![(kind, body.to_vec())],
        }
    })
}

/// Every lie, with what it is about.
fn all() -> impl Iterator<Item = (&'static str, Lie, bool)> {
    let challenges = CHALLENGES.iter().map(|(what, lie)| (*what, *lie, true));
    challenges.chain(ANSWERS.iter().map(|(what, lie)| (*what, *lie, false)))
}

/// Nobody's link has ended: not even the bridge's.
fn expect_all_connected(net: &Net, what: &str) {
    for told in &net.hub_events {
        let ended = told.iter().find(|event| matches!(event, hub::Event::Disconnected { .. }));
        assert!(ended.is_none(), "{what}: {ended:?}");
    }
}

#[test]
fn s82_a7_no_word_that_a_bridge_makes_up_in_a_homes_place_ends_the_link_of_who_joins() {
    for client in [NEAR, FAR] {
        for (seed, (what, lie, of_challenges)) in (0..).zip(all()) {
            let mut net = scene(seed);
            net.evil = Some((0, lies(lie, of_challenges)));
            net.try_to_join(client, 1, "vault", &password(1));
            expect_all_connected(&net, what);
            net.pass(Duration::from_secs(90));
            expect_all_connected(&net, what);
            // What was asked for was refused, and that was told once.
            let told: Vec<Event> = net.events[client].drain(..).collect();
            let [Event::Done { token: Token(1), result: Err(why) }] = &told[..] else { panic!("{what}: {told:?}") };
            let refused = [Refusal::HomeGone, Refusal::NotAllowed, Refusal::PasswordWrong, Refusal::KdfUnsupported];
            let refused = refused.map(Failure::Refused);
            assert!(refused.contains(why) || *why == Failure::Local(Misuse::Deadline), "{what}: {why:?}");
            // Who believes nothing of it is not a member for the hub either.
            net.evil = None;
            assert!(net.hubs.iter().flatten().all(|hub| hub.load().errands == 0), "{what}");
            net.open(client, "other");
            net.join(client, "vault", &password(1));
        }
    }
}

#[test]
fn s82_a7_no_word_that_a_bridge_makes_up_in_a_homes_place_ends_the_link_of_an_owner() {
    for client in [NEAR, FAR] {
        for (seed, (what, lie, of_challenges)) in (0..).zip(all()) {
            let mut net = scene(seed);
            net.join(client, "vault", &password(1));
            let key = net.clients[HOME].owner_key(&name("vault")).unwrap();
            net.command(client, Command::SetOwnerKey(key));
            net.evil = Some((0, lies(lie, of_challenges)));
            let salt = ChannelSalt { kdf: password(2).kdf(), salt: [2; 16], iterations: 0 };
            let master = support::master(&password(2), salt);
            net.command(client, Command::Protect { token: Token(2), channel: name("vault"), salt, master });
            expect_all_connected(&net, what);
            net.pass(Duration::from_secs(90));
            expect_all_connected(&net, what);
            let mut done = net.events[client].drain(..).filter(|event| matches!(event, Event::Done { .. }));
            let told = done.next();
            assert!(matches!(told, Some(Event::Done { result: Err(_), .. })), "{what}: {told:?}");
            assert!(done.next().is_none(), "{what}");
        }
    }
}

#[test]
fn s82_who_answers_a_homes_challenge_while_the_way_there_is_lost_is_told_once_and_stays_connected() {
    for seed in 0..10 {
        for owns in [false, true] {
            let mut net = scene(seed);
            net.join(NEAR, "vault", &password(1));
            if owns {
                let key = net.clients[HOME].owner_key(&name("vault")).unwrap();
                net.command(NEAR, Command::SetOwnerKey(key));
                net.held.push(Node::Bridge(0));
                net.command(NEAR, Command::Terminate { token: Token(1), channel: name("vault") });
                net.held.clear();
                // The challenge is there and the answer is not: the line moves by single steps.
                while !net.is_speaking(NEAR) {
                    assert!(net.step());
                }
            } else {
                net.command(NEAR, Command::Leave { token: Token(2), channel: name("vault") });
                net.expect_done(NEAR, 2);
                let access = Access { secret: Some(password(1).kdf()), policy: None, plain: false };
                net.command(NEAR, Command::Open { token: Token(1), channel: name("vault"), access });
                net.held.push(Node::Client(NEAR));
                net.derive(NEAR, &password(1));
            }
            net.held.push(Node::Client(NEAR));
            net.cut(0, Side::B);
            net.held.clear();
            net.run();
            assert_eq!(net.expect_not_done(NEAR), Refusal::HomeGone, "seed {seed}");
            net.open(NEAR, "other");
            net.pass(Duration::from_secs(90));
            assert!(net.hubs.iter().flatten().all(|hub| hub.load().errands == 0));
            net.open(NEAR, "another");
        }
    }
}

#[test]
fn s26_s82_a7_listeners_of_an_epoch_that_no_home_announces_hide_no_new_password() {
    let mut net = Net::new(8, 2, &[("owner", 0), ("far", 1)]);
    let old = net.bridge(0, 1);
    net.run();
    net.open(0, "vault");
    net.protect(0, "vault", &password(1), 1);
    net.join(1, "vault", &password(1));
    // The way to the home says nothing any more, and the next one says the new password, and something that cannot be.
    net.held.push(Node::Bridge(old));
    net.protect(0, "vault", &password(2), 2);
    let next = net.bridge(0, 1);
    net.run();
    let named = |text| Name::new(text).unwrap();
    let listens = Announce {
        goal: 1,
        channel: named("vault"),
        event: None,
        path: vec![named("hub-a")],
        client: None,
        kind: None,
        epoch: Some(9),
        home: Some(named("hub-a")),
        terms: None,
        ended: None,
    };
    let mut body = BytesMut::new();
    listens.encode(&mut body);
    net.forge(next, Side::B, FrameType::Announce.number(), &body);
    net.pass(Duration::from_secs(120));
    let rekeyed = Failure::Refused(Refusal::Rekeyed);
    let told = |event: &Event| matches!(event, Event::ChannelClosed { why, .. } if *why == rekeyed);
    assert!(net.events[1].iter().any(told), "{:?}", net.events[1]);
}

fn named(text: &str) -> Name<'_> {
    Name::new(text).unwrap()
}

/// Four hubs in a line, of which the first bridge lies, and somebody at each who listens.
fn line(seed: u64, limits: Limits) -> Net {
    let mut net = Net::with(seed, 4, &[("behind", 0), ("near", 1), ("next", 2), ("last", 3)], limits);
    for hub in 0..3 {
        net.bridge(hub, hub + 1);
    }
    net.run();
    for client in 0..4 {
        net.open(client, "open");
        net.listen(client, 8, "open", None);
    }
    net
}

/// Which of what was said each of these has heard since this was asked last.
fn heard(net: &mut Net, clients: [usize; 2]) -> [Vec<u8>; 2] {
    clients.map(|client| {
        let mut heard = Vec::new();
        for event in net.events[client].drain(..) {
            if let Event::Message(message) = event {
                heard.extend(message.message.payload.bytes.first());
            }
        }
        heard
    })
}

#[test]
fn d15_v31_a7_a_flood_of_messages_keeps_out_none_of_hubs_nearer_than_the_bridge_that_makes_them_up() {
    let mut limits = Limits::default();
    limits.bridge_doubles = 40;
    let mut net = line(20, limits);
    net.evil = Some((
        0,
        Box::new(|kind, body| {
            let is_broadcast = kind == FrameType::Broadcast.number();
            // The payload ends the message, before an empty tag.
            let copy = |number: u8| {
                let mut body = body.to_vec();
                let at = body.len() - 2;
                body[at] = number;
                (kind, body)
            };
            if is_broadcast { (100..200).map(copy).collect() } else { vec![(kind, body.to_vec())] }
        }),
    ));
    net.say(0, "open", "up", b"\0");
    net.events.iter_mut().for_each(|told| told.clear());
    for said in [b"\x01", b"\x02", b"\x03", b"\x04"] {
        net.say(1, "open", "up", said);
    }
    assert_eq!(heard(&mut net, [2, 3]), [vec![1, 2, 3, 4], vec![1, 2, 3, 4]]);
    net.say(2, "open", "up", &[5]);
    assert_eq!(heard(&mut net, [1, 3]), [vec![5], vec![5]]);
    // All places that were for whatever comes from there are taken.
    let lost = |hub: usize| net.hubs[hub].as_ref().unwrap().counters().unremembered;
    assert_eq!([1, 2, 3].map(lost), [60, 5, 5]);
}

#[test]
fn a7_a_flood_of_announcements_keeps_out_nobody_of_hubs_nearer_than_the_bridge_that_makes_them_up() {
    let mut limits = Limits::default();
    limits.bridge_routes = 40;
    let mut net = line(21, limits);
    for number in 0..100 {
        let client = format!("nobody-{number}");
        let announced = Announce {
            goal: 2,
            channel: named("open"),
            event: None,
            path: vec![named("hub-a")],
            client: Some(named(&client)),
            kind: None,
            epoch: None,
            home: None,
            terms: None,
            ended: None,
        };
        net.announce(0, Side::B, &announced);
    }
    // Whoever comes now is found from everywhere, and so is a channel with a password.
    net.provide(1, 9, "open", "sum");
    net.open(1, "vault");
    net.protect(1, "vault", &password(1), 1);
    for client in [2, 3] {
        net.call(client, 5, "open", "sum", b"");
        let request = net.expect_request(1).id;
        net.command(1, Command::Answer { request, result: Ok(support::payload(b"4")) });
        assert!(net.expect_answered(client).is_ok(), "{client}");
        net.join(client, "vault", &password(1));
    }
    let full = |event: &hub::Event| matches!(event, hub::Event::BridgeFull { .. });
    assert_eq!([1, 2, 3].map(|hub| net.hub_events[hub].iter().any(full)), [true, true, false], "nobody is told more");
}

/// ```text
///   hub-a ──(liar)── hub-b ───── hub-c ───── hub-d
///   behind           near        next        last: the only provider, and the home
/// ```
/// Who believes that something is near goes there: calls, sends and first joins are drawn to a liar that is nearer than the
/// truth, of its own hub and of those for which the way through that is the shorter one. It has no more of them than that
/// they fail, or an answer where nothing is signed; and all of it ends with the liar.
#[test]
fn a7_a_way_that_a_bridge_makes_up_draws_away_from_longer_ones_alone_and_as_long_as_it_lasts() {
    let mut net = line(22, Limits::default());
    net.provide(3, 9, "open", "sum");
    net.provide(1, 9, "open", "own");
    net.open(3, "vault");
    net.protect(3, "vault", &password(1), 1);
    let of = |goal, event: Option<&'static str>| Announce {
        goal,
        channel: named(if event.is_some() { "open" } else { "vault" }),
        event: event.map(named),
        path: vec![named("hub-a")],
        client: event.map(|_| named("thief")),
        kind: event.map(|_| 0),
        epoch: event.is_none().then_some(1),
        home: event.is_none().then(|| named("hub-a")),
        terms: event.is_none().then_some(Terms { kdf: 2, salt: &[9; 16], iterations: 0 }),
        ended: None,
    };
    for announced in [of(0, Some("sum")), of(0, Some("own")), of(3, None)] {
        net.announce(0, Side::B, &announced);
    }
    let answered = |net: &mut Net, caller: usize, event: &str, provider: usize| {
        net.call(caller, 5, "open", event, b"");
        let asked = net.events[provider].iter().position(|event| matches!(event, Event::Request(_)));
        if let Some(Event::Request(request)) = asked.and_then(|at| net.events[provider].remove(at)) {
            net.command(provider, Command::Answer { request: request.id, result: Ok(support::payload(b"4")) });
        }
        net.expect_answered(caller).is_ok()
    };
    assert!(answered(&mut net, 1, "own", 1), "what is at the hub itself is nearer");
    assert!(answered(&mut net, 2, "own", 1), "and so is it from there");
    assert!(answered(&mut net, 2, "sum", 3), "whoever is nearer to the truth goes there");
    net.join(2, "vault", &password(1));
    assert!(!answered(&mut net, 1, "sum", 3), "the others are drawn away");
    net.try_to_join(1, 6, "vault", &password(1));
    net.pass(Duration::from_secs(11));
    assert!(matches!(net.events[1].pop_front(), Some(Event::Done { token: Token(6), result: Err(_) })));
    // Nothing of it is left when the liar is gone.
    net.kill_bridge(0);
    net.run();
    net.events[1].clear();
    assert!(answered(&mut net, 1, "sum", 3));
    net.join(1, "vault", &password(1));
}
