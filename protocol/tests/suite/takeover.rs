//! A client whose old link lingers at the hub comes back, and nobody comes back in its name.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use commipc_protocol::auth::{
    Capabilities, ConnectionKeys, Credential, IdPattern, Secret, TakeoverSecret, TranscriptHash, Verifier,
};
use commipc_protocol::client::{Access, Command, Event, Token};
use commipc_protocol::hub::{self, DisconnectReason};
use commipc_protocol::wire::{
    AuthFailed, Challenge, Control, FrameType, Goodbye, Hello, MAGIC, Proof, VERSION, Welcome,
};
use commipc_protocol::{
    AfterGrace, CloseReason, CredentialId, Input, Limits, LinkEnd, LinkId, Machine as _, Name, Output, OwnerPolicy,
    Peer, Refusal, Transport,
};
use support::{KEY, World, client, name, outgoing};

const SECOND: Duration = Duration::from_secs(1);
const SUPERSEDED: DisconnectReason = DisconnectReason::Refused(Refusal::Superseded);

fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((length, _)) = bytes.split_first_chunk::<4>() {
        let (frame, rest) = bytes.split_at(4 + u32::from_be_bytes(*length) as usize);
        frames.push(frame);
        bytes = rest;
    }
    frames
}

fn framed<'a>(kind: FrameType, body: &impl Control<'a>) -> Vec<u8> {
    let mut out = BytesMut::new();
    body.encode(&mut out);
    let length = u32::try_from(1 + out.len()).unwrap().to_be_bytes();
    [&length[..], &[kind.number()], &out].concat()
}

/// Why links of a client ended, in order, as the hub tells.
fn ends(world: &World, id: &str) -> Vec<DisconnectReason> {
    let of = |event: &hub::Event| match event {
        hub::Event::Disconnected { client, why, .. } if **client == *id => Some(*why),
        _ => None,
    };
    world.hub_events.iter().filter_map(of).collect()
}

#[test]
fn s9_d9_a_client_whose_old_link_lingers_takes_its_id_over() {
    let mut world = World::ready(&["back", "other"]);
    world.open(0, "ch");
    world.provide(0, 5, "ch", "ev");
    for round in 1..=3 {
        world.call(1, round, "ch", "ev", b"");
        world.expect_request(0);
        let lingering = world.sever(0);
        assert!(matches!(world.events[0].back(), Some(Event::Closed(CloseReason::Lost))));
        world.connect_again(0);
        assert_eq!(world.hub.load().clients, 2);
        // The old link ends as any other does, and is told why.
        assert_eq!(ends(&world, "back"), vec![SUPERSEDED; round as usize]);
        let told = world.wire[&lingering].1.clone();
        let goodbye = frames(&told).last().copied().unwrap().to_vec();
        assert_eq!(goodbye[4], FrameType::Goodbye.number());
        assert_eq!(Goodbye::parse(&goodbye[5..]).unwrap().code, Refusal::Superseded.code());
        let failed = world.events[1].iter().any(|event| format!("{event:?}").contains("ProviderGone"));
        assert!(failed, "{:?}", world.events[1]);
        world.events[1].clear();
        world.feed_hub(Input::Closed { link: lingering, how: LinkEnd::Reset });
        world.open(0, "ch");
        let owner = |event: &hub::Event| match event {
            hub::Event::OwnerChanged { owner, .. } => Some(owner.as_ref().map(ToString::to_string)),
            _ => None,
        };
        assert_eq!(world.hub_events.iter().rev().find_map(owner), Some(Some("back".to_owned())));
        world.provide(0, 5, "ch", "ev");
    }
    let connected = |event: &&hub::Event| matches!(event, hub::Event::Connected { client, .. } if **client == *"back");
    assert_eq!(world.hub_events.iter().filter(connected).count(), 4);
    assert_eq!(world.hub.load().links, 2);
}

/// Logs a client in up to the hub's welcome, which it never hears.
fn lose_welcome(world: &mut World, client: usize, number: u32) {
    let (link, now) = (LinkId::accepted(500 + number, 1), world.now);
    let mut dialled = None;
    world.clients[client].handle_input(now, Input::Command(Command::Connect));
    let mut to_hub = VecDeque::new();
    loop {
        while let Some(output) = world.clients[client].poll_output() {
            match output {
                Output::Dial { link: asked, .. } => {
                    dialled = Some(asked);
                    let peer = Peer::unknown(Transport::Memory);
                    world.hub.handle_input(now, Input::Accepted { link, peer: peer.clone() });
                    world.clients[client].handle_input(now, Input::Dialled { link: asked, peer });
                }
                Output::Transmit { data, .. } => to_hub.push_back(data),
                _ => {}
            }
        }
        let Some(data) = to_hub.pop_front() else { break };
        world.hub.handle_input(now, Input::Received { link, data });
        while let Some(output) = world.hub.poll_output() {
            match output {
                Output::Transmit { link: to, data } if to == link && data[4] == FrameType::Challenge.number() => {
                    world.clients[client].handle_input(now, Input::Received { link: dialled.unwrap(), data });
                }
                Output::Event(event) => world.hub_events.push(event),
                _ => {}
            }
        }
    }
    world.clients[client].handle_input(now, Input::Closed { link: dialled.unwrap(), how: LinkEnd::Reset });
    world.run();
}

#[test]
fn d9_a_login_whose_welcome_was_lost_is_taken_over_too() {
    for lost in 1..=6 {
        for known_before in [false, true] {
            let mut world = World::new(&["back"]);
            if known_before {
                world.connect_again(0);
                world.sever(0);
            }
            for number in 0..lost {
                lose_welcome(&mut world, 0, number);
                assert_eq!(world.hub.load().clients, 1, "the hub has let it in");
            }
            world.connect_again(0);
            assert_eq!(ends(&world, "back").len(), lost as usize + usize::from(known_before));
            assert!(ends(&world, "back").iter().all(|why| *why == SUPERSEDED));
        }
    }
}

#[test]
fn s9_another_machine_of_the_same_name_is_refused_as_ever() {
    // The second one even has the same instance and the same random numbers, but no login behind it.
    let mut world = World::new(&["same", "same"]);
    world.connect_again(0);
    for _ in 0..3 {
        world.command(1, Command::Connect);
        assert!(matches!(world.next(1), Event::Closed(CloseReason::Refused(Refusal::IdInUse))));
    }
    world.sever(0);
    world.connect_again(0);
}

/// One who speaks for itself, by hand.
#[derive(Clone)]
struct Stranger {
    secret: Secret,
    credential: &'static str,
    instance: [u8; 16],
    /// Of this login.
    takeover: [u8; 32],
}

const VICTIM: [u8; 16] = [1; 16];

impl Stranger {
    fn new(takeover: u8) -> Self {
        let takeover = [takeover; 32];
        Self { secret: Secret::key(KEY), credential: "default", instance: VICTIM, takeover }
    }

    /// Logs in as `victim`. `proofs` makes take-over proofs. Gives the refusal, if it is one, and the proofs.
    fn log_in(
        &self,
        world: &mut World,
        number: u32,
        proofs: impl Fn(&TranscriptHash) -> Vec<[u8; 32]>,
    ) -> (Option<Refusal>, Vec<[u8; 32]>) {
        let link = LinkId::accepted(100 + number, 1);
        let hello = Hello {
            versions: vec![VERSION],
            kdfs: vec![2],
            credential: Name::new(self.credential).unwrap(),
            client: Name::new("victim").unwrap(),
            instance: &self.instance,
            nonce: &[u8::try_from(number + 1).unwrap(); 32],
            records: false,
            binding: 0,
            takeover: &TakeoverSecret::new(self.takeover).stored_key(),
            features: 0,
        };
        let opening = [&MAGIC[..], &framed(FrameType::Hello, &hello)].concat();
        world.feed_hub(Input::Accepted { link, peer: Peer::unknown(Transport::Memory) });
        let challenge = say(world, link, &opening);
        let asked = Challenge::parse(&challenge[5..]).unwrap();
        let salted = self.secret.derive(asked.salt.try_into().unwrap(), 0).unwrap();
        let transcript = TranscriptHash::connection(&opening, &challenge, &[]);
        let proof = ConnectionKeys::new(&salted).client_proof(&transcript);
        let takeovers = proofs(&transcript);
        let body = Proof { takeover: (!takeovers.is_empty()).then(|| takeovers.iter().collect()), proof: &proof };
        let answer = say(world, link, &framed(FrameType::Proof, &body));
        let refused = if answer[4] == FrameType::Welcome.number() {
            Welcome::parse(&answer[5..]).unwrap().refused
        } else {
            Some(AuthFailed::parse(&answer[5..]).unwrap().code)
        };
        (refused.map(|code| Refusal::from_code(code).unwrap()), takeovers)
    }
}

/// Says something on a link of no client; the frame the hub answers with.
fn say(world: &mut World, link: LinkId, bytes: &[u8]) -> Vec<u8> {
    let before = world.wire.get(&link).map_or(0, |wire| wire.1.len());
    world.feed_hub(Input::Received { link, data: bytes.to_vec().into() });
    world.run();
    frames(&world.wire[&link].1[before..])[0].to_vec()
}

/// A hub with a second credential, and the victim connected by its first login.
fn besieged() -> World {
    let mut world = World::with(support::hub(Limits::default()), Vec::new());
    let (secret, id) = (Secret::key([8; 32]), CredentialId::new("second").unwrap());
    let verifier = Verifier::new(&secret, [4; 16], 100_000).unwrap();
    let second = Credential::new(verifier, Capabilities::NONE, vec![IdPattern::any()]);
    let table = support::credentials(&Secret::key(KEY)).with(id, second);
    world.feed_hub(Input::Command(hub::Command::SetCredentials(table)));
    assert_eq!(Stranger::new(1).log_in(&mut world, 0, |_| vec![]).0, None);
    world
}

fn proof_of(secret: u8) -> impl Fn(&TranscriptHash) -> Vec<[u8; 32]> {
    move |transcript| vec![TakeoverSecret::new([secret; 32]).proof(transcript)]
}

#[test]
fn s9_d9_only_the_same_client_takes_over() {
    let mut world = besieged();
    let in_use = Some(Refusal::IdInUse);
    let wrong_instance = Stranger { instance: [2; 16], ..Stranger::new(20) };
    let other_credential = Stranger { secret: Secret::key([8; 32]), credential: "second", ..Stranger::new(20) };
    assert_eq!(Stranger::new(20).log_in(&mut world, 1, |_| vec![]).0, in_use, "without a proof");
    assert_eq!(Stranger::new(20).log_in(&mut world, 2, proof_of(20)).0, in_use, "with a proof of its own secret");
    assert_eq!(wrong_instance.log_in(&mut world, 3, proof_of(1)).0, in_use, "from another instance");
    assert_eq!(other_credential.log_in(&mut world, 4, proof_of(1)).0, in_use, "by another credential");
    let four = |transcript: &TranscriptHash| [2, 3, 4, 5].map(|it| proof_of(it)(transcript)[0]).to_vec();
    assert_eq!(Stranger::new(20).log_in(&mut world, 5, four).0, in_use, "with four guesses");
    assert!(ends(&world, "victim").is_empty(), "nobody has disturbed it");
    // The victim itself, which brings the next secret. What it says is of no use to who hears it.
    let (admitted, overheard) = Stranger::new(2).log_in(&mut world, 6, proof_of(1));
    assert_eq!(admitted, None);
    assert_eq!(ends(&world, "victim"), [SUPERSEDED]);
    assert_eq!(Stranger::new(20).log_in(&mut world, 7, |_| overheard.clone()).0, in_use, "with a proof replayed");
    assert_eq!(Stranger::new(20).log_in(&mut world, 8, proof_of(1)).0, in_use, "with a secret that was used");
    assert_eq!(ends(&world, "victim"), [SUPERSEDED]);
    // A refused login has changed nothing of what the hub knows its client by.
    let last = |transcript: &TranscriptHash| [9, 1, 2].map(|it| proof_of(it)(transcript)[0]).to_vec();
    assert_eq!(Stranger::new(3).log_in(&mut world, 9, last).0, None);
    assert_eq!((ends(&world, "victim").len(), world.hub.load().clients), (2, 1));
}

#[test]
fn v9_without_the_secret_nobody_ends_anybodys_link() {
    let mut world = besieged();
    let guesser = Stranger { secret: Secret::key([9; 32]), ..Stranger::new(20) };
    for number in 1..4 {
        // Even with what only the client can know.
        assert_eq!(guesser.log_in(&mut world, number, proof_of(1)).0, Some(Refusal::AuthFailed));
    }
    assert!(ends(&world, "victim").is_empty());
    assert_eq!(Stranger::new(2).log_in(&mut world, 9, proof_of(1)).0, None);
}

/// An owner and a member of `ch`.
fn owned(policy: OwnerPolicy) -> World {
    let mut world = World::ready(&["owner", "member", "late"]);
    world.command(
        0,
        Command::Open {
            token: Token(1),
            channel: name("ch"),
            access: Access { secret: None, policy: Some(policy), plain: false },
        },
    );
    world.expect_done(0, 1);
    world.open(1, "ch");
    world
}

fn back(world: &mut World) {
    world.sever(0);
    world.connect_again(0);
}

const HELD_SHORTLY: OwnerPolicy = OwnerPolicy::Hold { grace: Duration::from_secs(1), then: AfterGrace::Terminate };

#[test]
fn d9_taking_over_counts_as_the_owners_return() {
    for policy in [OwnerPolicy::Terminate, OwnerPolicy::Promote, HELD_SHORTLY] {
        for takeovers in 1..=2 {
            let mut world = owned(policy);
            for _ in 0..takeovers {
                back(&mut world);
            }
            assert_eq!(world.expect_owner(1), None, "it is held");
            world.pass(SECOND * 9);
            world.open(2, "ch");
            assert!(world.events[1].is_empty(), "for ten seconds, against whoever comes: {:?}", world.events[1]);
            world.open(0, "ch");
            // Itself it has only opened the channel, which it owns as it did the first time.
            assert!(world.events[0].is_empty());
            for told in [1, 2] {
                assert_eq!(world.expect_owner(told).as_deref(), Some("owner"), "{policy:?}");
            }
            world.pass(SECOND * 60);
            assert!(world.events[1].is_empty(), "and that is that");
            // It can do what an owner can.
            world.protect(0, "ch", &Secret::key([1; 32]), 1);
            assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
        }
    }
}

#[test]
fn d9_an_owner_that_takes_over_and_does_not_open_its_channel_is_gone_after_ten_seconds() {
    let long = OwnerPolicy::Hold { grace: SECOND * 60, then: AfterGrace::Terminate };
    for (policy, seconds) in [(OwnerPolicy::Terminate, 10), (HELD_SHORTLY, 10), (long, 60)] {
        let mut world = owned(policy);
        back(&mut world);
        assert_eq!(world.expect_owner(1), None);
        world.pass(SECOND * seconds - Duration::from_millis(1));
        assert!(world.events[1].is_empty());
        world.pass(Duration::from_millis(1));
        assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated);
        assert_eq!(world.hub.load().channels, 0);
    }
    let mut world = owned(OwnerPolicy::Promote);
    back(&mut world);
    assert_eq!(world.expect_owner(1), None);
    world.pass(SECOND * 10);
    assert_eq!(world.expect_owner(1).as_deref(), Some("member"));
    world.open(0, "ch");
    assert!(world.events[0].is_empty(), "too late");
}

#[test]
fn d9_joins_are_proved_again() {
    let mut world = owned(OwnerPolicy::Terminate);
    let password = Secret::key([1; 32]);
    world.protect(0, "ch", &password, 1);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Rekeyed);
    world.join(1, "ch", &password);
    back(&mut world);
    assert_eq!(world.expect_owner(1), None);
    world.command(0, Command::Broadcast { token: Token(3), outgoing: outgoing("ch", "ev", b"") });
    assert_eq!(world.expect_refused(0), Refusal::PasswordRequired, "no membership was taken over");
    world.try_to_join(0, 2, "ch", &Secret::key([2; 32]));
    assert_eq!(world.expect_refused(0), Refusal::PasswordWrong);
    assert!(world.events[1].is_empty(), "nor is ownership given back for nothing");
    world.join(0, "ch", &password);
    assert_eq!(world.expect_owner(1).as_deref(), Some("owner"));
}

#[test]
fn d9_whoever_has_the_id_later_inherits_nothing() {
    let mut world = owned(OwnerPolicy::Terminate);
    back(&mut world);
    assert_eq!(world.expect_owner(1), None);
    world.cut(0);
    // Another machine, which the hub has every reason to let in: the id is free.
    world.clients[0] = support::client_as("owner", CredentialId::shared(), Secret::key(KEY), Limits::default());
    world.connect_again(0);
    world.open(0, "ch");
    assert!(world.events[1].is_empty());
    world.pass(SECOND * 10);
    assert_eq!(world.expect_closed(1, "ch"), Refusal::Terminated);
}

#[test]
fn d9_taking_over_fills_no_hub_with_names() {
    let mut limits = Limits::default();
    limits.names = 2;
    let clients = vec![client("owner", Secret::key(KEY)), client("member", Secret::key(KEY))];
    let mut world = World::with(support::hub(limits), clients);
    world.connect_all();
    for round in 0..5 {
        for number in 0..5 {
            world.open(0, &format!("round {round} number {number}"));
            world.events[0].clear();
        }
        back(&mut world);
        assert_eq!(world.hub.load().channels, 2, "the others end with their owner");
    }
    for number in 0..2 {
        world.open(0, &format!("round 0 number {number}"));
        world.events[0].clear();
    }
    world.open(0, "more");
    back(&mut world);
    assert_eq!(world.hub.load().channels, 2);
    world.pass(SECOND * 10);
    assert_eq!(world.hub.load().channels, 0);
    // Nothing is counted any more.
    world.open(0, "kept");
    world.protect(0, "kept", &Secret::key([1; 32]), 1);
    world.open(0, "kept too");
    world.protect(0, "kept too", &Secret::key([1; 32]), 2);
}

#[test]
fn d9_an_owner_that_comes_back_while_its_going_is_stored_is_too_late() {
    let mut world = World::storing(&["owner", "member"]);
    let access = Access { secret: None, policy: Some(OwnerPolicy::Promote), plain: false };
    world.command(0, Command::Open { token: Token(1), channel: name("ch"), access });
    world.expect_done(0, 1);
    let key = Secret::key([1; 32]);
    world.protect(0, "ch", &key, 1);
    world.join(1, "ch", &key);
    back(&mut world);
    assert_eq!(world.expect_owner(1), None, "held");
    // It asks to open, and derives for so long that its time is over.
    let access = Access { secret: Some(key.kdf()), policy: None, plain: false };
    world.command(0, Command::Open { token: Token(2), channel: name("ch"), access });
    world.disk.as_mut().unwrap().works = support::Works::Later;
    world.pass(SECOND * 10);
    world.derive(0, &key);
    world.catch_up();
    assert_eq!(world.expect_owner(1).as_deref(), Some("member"), "nobody is told that the owner is back");
    let backs = |event: &Event| matches!(event, Event::OwnerChanged { owner: Some(owner), .. } if **owner == *"owner");
    assert!(!world.events.iter().flatten().any(backs));
}
