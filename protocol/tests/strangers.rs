//! What somebody who has proved nothing can do to a hub: be told what to prove, and be shown out.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

mod support;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Event};
use commipc_protocol::hub::{self, DisconnectReason, Hub};
use commipc_protocol::wire::{AuthFailed, Control, FrameType, Hello, MAGIC, Proof, VERSION};
use commipc_protocol::{
    ClientId, CloseReason, Flush, Input, Instant, Limits, LinkEnd, LinkId, Machine, Name, Now, Output, Peer, Refusal,
    Transport, UnixMillis, Violation,
};
use support::{KEY, World, client, hub};

const LINK: LinkId = LinkId::accepted(0, 1);

/// A hub and one link that nobody has proved anything on.
struct Door {
    hub: Hub,
    now: Now,
    events: Vec<hub::Event>,
    heard: Vec<u8>,
    closed: bool,
    /// Who was shown out, and how.
    gone: Vec<(LinkId, Flush)>,
}

impl Door {
    fn knock(limits: Limits) -> Self {
        let now = Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) };
        let mut door =
            Self { hub: hub(limits), now, events: Vec::new(), heard: Vec::new(), closed: false, gone: Vec::new() };
        door.feed(Input::Accepted { link: LINK, peer: Peer::unknown(Transport::Memory) });
        door
    }

    /// What comes of saying this first.
    fn after(bytes: &[u8]) -> Self {
        let mut door = Self::knock(Limits::default());
        door.say(bytes);
        door
    }

    fn say(&mut self, bytes: &[u8]) {
        self.feed(Input::Received { link: LINK, data: Bytes::copy_from_slice(bytes) });
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.feed(Input::Timeout);
    }

    fn feed(&mut self, input: Input<hub::Command>) {
        self.hub.handle_input(self.now, input);
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Transmit { data, .. } => self.heard.extend_from_slice(&data),
                Output::Close { link, flush } => {
                    self.closed = true;
                    self.gone.push((link, flush));
                }
                Output::Dial { .. } => panic!("a hub dials nobody"),
            }
        }
    }

    /// The stranger is outside, for this reason, and nothing of it is left.
    #[track_caller]
    fn shut(&self, why: DisconnectReason) {
        assert_eq!(self.events, [hub::Event::Rejected { link: LINK, why }]);
        assert!(self.closed);
        assert_eq!(self.hub.load(), hub::Load::default());
        assert_eq!(self.hub.poll_timeout(), None, "nothing is left to fall due");
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(1 + body.len()).unwrap().to_be_bytes();
    [&length[..], &[kind], body].concat()
}

fn encoded<'a>(body: &impl Control<'a>) -> Vec<u8> {
    let mut out = BytesMut::new();
    body.encode(&mut out);
    out.to_vec()
}

/// A client's opening as it should be.
fn hello() -> Hello<'static> {
    Hello {
        versions: vec![VERSION],
        kdfs: vec![2],
        credential: Name::new("default").unwrap(),
        client: Name::new("me").unwrap(),
        instance: &[1; 16],
        nonce: &[2; 32],
        records: false,
        binding: 0,
        takeover: &[3; 32],
        features: 0,
    }
}

fn opening(hello: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &frame(FrameType::Hello.number(), hello)].concat()
}

#[test]
fn s1_another_protocol_or_version_is_turned_away() {
    let bad_magic = DisconnectReason::Violation(Violation::BadMagic);
    let next = [&MAGIC[..7], &[MAGIC[7] + 1]].concat();
    for first in [&b"GET / HTTP/1.1\r\n"[..], b"{\"type\":\"identify\"}", &next] {
        let door = Door::after(first);
        door.shut(bad_magic);
        assert!(door.heard.is_empty(), "whoever speaks something else may not understand an answer");
    }
    let later = encoded(&Hello { versions: vec![VERSION + 1, VERSION + 2], ..hello() });
    let door = Door::after(&opening(&later));
    door.shut(DisconnectReason::Refused(Refusal::VersionUnsupported));
    let told = encoded(&AuthFailed { code: Refusal::VersionUnsupported.code() });
    assert_eq!(door.heard, frame(FrameType::AuthFailed.number(), &told), "so that it can say what is wrong");
    let both = encoded(&Hello { versions: vec![VERSION + 1, VERSION], ..hello() });
    assert!(Door::after(&opening(&both)).events.is_empty());
}

#[test]
fn s7_the_client_speaks_first_and_is_told_both_names() {
    assert!(Door::knock(Limits::default()).heard.is_empty());
    let mut world = World::new(&["me"]);
    world.command(0, Command::Connect);
    let Event::Ready(welcome) = world.next(0) else { panic!("not connected") };
    assert_eq!((welcome.client.as_str(), welcome.hub.as_str()), ("me", "hub-a"));
}

#[test]
fn s10_of_two_handshakes_for_one_id_at_once_one_succeeds() {
    let mut world = World::new(&["same", "same"]);
    for client in &mut world.clients {
        client.handle_input(world.now, Input::Command(Command::Connect));
    }
    world.run();
    let ends = [world.next(0), world.next(1)];
    let ready = ends.iter().filter(|event| matches!(event, Event::Ready(_))).count();
    let refused = CloseReason::Refused(Refusal::IdInUse);
    let turned_away = ends.iter().filter(|event| matches!(event, Event::Closed(why) if *why == refused)).count();
    assert_eq!((ready, turned_away, world.hub.load().clients), (1, 1, 1), "{ends:?}");
}

#[test]
fn s11_v10_nobody_comes_in_without_a_name() {
    let genuine = encoded(&hello());
    let name = genuine.windows(4).position(|bytes| bytes == b"\x03\x62me").unwrap();
    let named = |client: &[u8]| [&genuine[..=name], client, &genuine[name + 4..]].concat();
    assert_eq!(named(b"\x62me"), genuine);
    let long = [&[0x78, 129][..], &[b'x'; 129]].concat();
    // null, nothing, a number, bytes, too long, and characters that no name may hold.
    for client in [&b"\xf6"[..], b"\x60", b"\x01", b"\x42me", &long, b"\x62m@", b"\x62m\x00", b"\x62\xff\xfe"] {
        Door::after(&opening(&named(client))).shut(DisconnectReason::Violation(Violation::BadControl));
    }
    let absent = [&[genuine[0] - 1], &genuine[1..name], &genuine[name + 4..]].concat();
    Door::after(&opening(&absent)).shut(DisconnectReason::Violation(Violation::BadControl));
}

#[test]
fn v17_the_hub_itself_refuses_reserved_names() {
    for name in ["system", "server", "__comm_ipc", "__comm_ipc_bridge"] {
        assert!(ClientId::new(name).is_err());
        let door = Door::after(&opening(&encoded(&Hello { client: Name::new(name).unwrap(), ..hello() })));
        door.shut(DisconnectReason::Violation(Violation::BadName));
    }
}

#[test]
fn s15_before_the_proof_nothing_but_the_handshake_is_heard() {
    let challenged = opening(&encoded(&hello()));
    for kind in FrameType::ALL.iter().map(|kind| kind.number()).chain([0, 11, 127, 128, 255]) {
        let unknown = FrameType::from_number(kind).is_none();
        let why = if unknown { Violation::UnknownFrame } else { Violation::UnexpectedFrame };
        if kind != FrameType::Hello.number() {
            let door = Door::after(&[&MAGIC[..], &frame(kind, &[0xa0])].concat());
            door.shut(DisconnectReason::Violation(why));
            assert!(door.heard.is_empty(), "{kind}");
        }
        if kind != FrameType::Proof.number() {
            Door::after(&[&challenged[..], &frame(kind, &[0xa0])].concat()).shut(DisconnectReason::Violation(why));
        }
    }
    // What follows a wrong proof in the same bytes is not heard either.
    let guess = frame(FrameType::Proof.number(), &encoded(&Proof { takeover: None, proof: &[7; 32] }));
    let open = frame(FrameType::Open.number(), b"\xa2\x00\x01\x01\x61x");
    let door = Door::after(&[challenged, guess, open].concat());
    door.shut(DisconnectReason::Refused(Refusal::AuthFailed));
}

#[test]
fn v16_nobody_learns_which_ids_are_alive_without_the_secret() {
    let told = |id: &str| {
        let mut world = World::with(hub(Limits::default()), vec![client("alive", Secret::key(KEY))]);
        world.command(0, Command::Connect);
        let mut stranger = Door {
            hub: world.hub,
            now: world.now,
            events: Vec::new(),
            heard: Vec::new(),
            closed: false,
            gone: Vec::new(),
        };
        let link = LinkId::accepted(1, 9);
        stranger.feed(Input::Accepted { link, peer: Peer::unknown(Transport::Memory) });
        let opening = opening(&encoded(&Hello { client: Name::new(id).unwrap(), ..hello() }));
        let guess = frame(FrameType::Proof.number(), &encoded(&Proof { takeover: None, proof: &[7; 32] }));
        let data = Bytes::from([opening, guess].concat());
        stranger.feed(Input::Received { link, data });
        assert!(stranger.closed && stranger.hub.load().clients == 1);
        stranger.heard
    };
    let alive = told("alive");
    assert!(alive.len() > 100, "a challenge and a refusal");
    assert_eq!(alive, told("nobody"), "to the byte");
}

#[test]
fn v21_challenges_leave_nothing_behind() {
    let mut door = Door::knock(Limits::default());
    door.feed(Input::Closed { link: LINK, how: LinkEnd::Eof });
    let opening = Bytes::from(opening(&encoded(&hello())));
    let mut visit = |generation| {
        let link = LinkId::accepted(0, generation);
        door.feed(Input::Accepted { link, peer: Peer::unknown(Transport::Memory) });
        door.feed(Input::Received { link, data: opening.clone() });
        assert_eq!(door.heard[4], FrameType::Challenge.number());
        door.feed(Input::Closed { link, how: LinkEnd::Eof });
        assert_eq!((door.hub.load(), door.hub.poll_timeout()), (hub::Load::default(), None));
        door.heard.clear();
        door.events.clear();
    };
    (2..100).for_each(&mut visit);
    let more = allocation_counter::measure(|| (100..5_000).for_each(&mut visit));
    assert!(more.count_total > 5_000 && more.bytes_current < 4_096, "what 4,900 challenges left behind: {more:?}");
}

#[test]
fn v23_whoever_proves_nothing_is_shown_out_in_time() {
    let mut limits = Limits::default();
    limits.handshake = Duration::from_millis(3_000);
    let opening = opening(&encoded(&hello()));
    // In silence, after a part of the greeting, and with a challenge in hand; more bytes buy no time.
    for said in [&opening[..0], &opening[..3], &opening[..20], &opening[..]] {
        let mut door = Door::knock(limits.clone());
        door.say(said);
        door.pass(Duration::from_millis(1_500));
        door.say(&opening[said.len()..]);
        door.pass(Duration::from_millis(1_499));
        assert!(!door.closed);
        door.pass(Duration::from_millis(1));
        door.shut(DisconnectReason::Violation(Violation::HandshakeTimeout));
    }
}

#[test]
fn v24_a_long_frame_is_refused_at_its_length() {
    let mut limits = Limits::default();
    limits.handshake_frame = 300;
    for length in [301_u32, 1 << 20, u32::MAX] {
        let mut door = Door::knock(limits.clone());
        door.say(&[&MAGIC[..], &length.to_be_bytes()[..3]].concat());
        assert!(!door.closed);
        door.say(&length.to_be_bytes()[3..]);
        door.shut(DisconnectReason::Violation(Violation::FrameTooLarge));
    }
    let mut door = Door::knock(limits);
    door.say(&[&MAGIC[..], &300_u32.to_be_bytes()].concat());
    assert!(!door.closed);
}

/// A hub with one member and so many strangers, of which the last one has sent something.
fn crowded(strangers: u32) -> Door {
    let mut world = World::with(hub(Limits::default()), vec![client("member", Secret::key(KEY))]);
    world.connect_all();
    let mut door = Door::knock(Limits::default());
    (door.hub, door.now) = (world.hub, world.now);
    for index in 1..=strangers {
        door.feed(Input::Accepted { link: LinkId::accepted(index, 1), peer: Peer::unknown(Transport::Memory) });
    }
    door.feed(Input::Received { link: LinkId::accepted(strangers, 1), data: Bytes::from_static(&MAGIC) });
    door
}

#[test]
fn v24_a_proof_may_be_less_long_than_an_opening() {
    let opening = opening(&encoded(&hello()));
    for (length, allowed) in [(512_u32, true), (513, false)] {
        let mut door = Door::after(&opening);
        door.say(&[&length.to_be_bytes()[..], &[FrameType::Proof.number()]].concat());
        assert_eq!(door.closed, !allowed, "{length}");
    }
}

#[test]
fn where_files_are_short_half_of_the_strangers_go_and_no_member() {
    let mut door = crowded(5);
    door.feed(Input::Shortage);
    let silent = |index| (LinkId::accepted(index, 1), Flush::Written);
    assert_eq!(door.gone, [silent(1), silent(2), silent(3)], "those that have said least, and nobody waits for them");
    for _ in 0..10 {
        door.feed(Input::Shortage);
    }
    assert_eq!((door.gone.len(), door.hub.load().clients), (5, 1));
}

#[test]
fn a_member_that_is_sent_away_has_time_to_read_why_and_a_stranger_is_not_waited_for() {
    let mut door = crowded(1);
    door.feed(Input::Command(hub::Command::Shutdown));
    door.gone.sort_unstable_by_key(|(link, _)| *link);
    assert_eq!(door.gone, [(LINK, Flush::Read), (LinkId::accepted(1, 1), Flush::Written)]);
}
