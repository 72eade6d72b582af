//! The handshake with somebody in between who changes what he likes.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use bytes::Bytes;
use commipc_protocol::auth::{Credential, Credentials, Kdf, MAX_ITERATIONS, MIN_ITERATIONS, Secret, Verifier};
use commipc_protocol::client::{Client, Command, Event};
use commipc_protocol::hub::{self, Hub};
use commipc_protocol::wire::{Challenge, Control, FrameType, MAGIC, Proof, VERSION, Welcome};
use commipc_protocol::{
    CloseReason, CredentialId, HubId, Input, Instant, Limits, LinkId, Machine, Name, Now, Output, Peer, Refusal,
    Transport, UnixMillis, Violation,
};
use support::{KEY, World, client, hub};

const NOW: Now = Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) };
const ACCEPTED: LinkId = LinkId::accepted(0, 1);
const DIALLED: LinkId = LinkId::dialled(0, 1);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToHub,
    ToClient,
}

/// One hub, one client, and how many bytes went each way.
struct Between {
    hub: Hub,
    client: Client,
    passed: [usize; 2],
    /// The byte to be changed, and the bits of it.
    change: Option<(Way, usize, u8)>,
    client_is_ready: bool,
    hub_is_convinced: bool,
}

impl Between {
    /// Lets the two meet.
    fn met(transport: Transport, change: Option<(Way, usize, u8)>) -> Self {
        let (hub, client) = (hub(Limits::default()), client("me", Secret::key(KEY)));
        let mut between = Self { hub, client, passed: [0, 0], change, client_is_ready: false, hub_is_convinced: false };
        let peer = Peer::unknown(transport);
        between.client.handle_input(NOW, Input::Command(Command::Connect));
        between.hub.handle_input(NOW, Input::Accepted { link: ACCEPTED, peer: peer.clone() });
        between.client.handle_input(NOW, Input::Dialled { link: DIALLED, peer });
        while between.client_speaks() || between.hub_speaks() {}
        between
    }

    fn client_speaks(&mut self) -> bool {
        let Some(output) = self.client.poll_output() else { return false };
        match output {
            Output::Transmit { data, .. } => {
                let data = self.pass(Way::ToHub, &data);
                self.hub.handle_input(NOW, Input::Received { link: ACCEPTED, data });
            }
            Output::Event(event) => self.client_is_ready |= matches!(event, Event::Ready(_)),
            Output::Close { .. } | Output::Dial { .. } => {}
        }
        true
    }

    fn hub_speaks(&mut self) -> bool {
        let Some(output) = self.hub.poll_output() else { return false };
        match output {
            Output::Transmit { data, .. } => {
                let data = self.pass(Way::ToClient, &data);
                self.client.handle_input(NOW, Input::Received { link: DIALLED, data });
            }
            Output::Event(event) => self.hub_is_convinced |= matches!(event, hub::Event::Connected { .. }),
            Output::Close { .. } | Output::Dial { .. } => {}
        }
        true
    }

    fn pass(&mut self, way: Way, data: &[u8]) -> Bytes {
        let passed = &mut self.passed[way as usize];
        let mut data = data.to_vec();
        if let Some((changed, at, bits)) = self.change
            && changed == way
            && let Some(byte) = at.checked_sub(*passed).and_then(|at| data.get_mut(at))
        {
            *byte ^= bits;
        }
        *passed += data.len();
        Bytes::from(data)
    }
}

#[test]
fn s12_no_bit_of_the_handshake_can_be_changed() {
    // With record tags, and without them, where the proofs alone have to tell.
    for transport in [Transport::Tcp, Transport::Memory] {
        let whole = Between::met(transport, None);
        assert!(whole.client_is_ready && whole.hub_is_convinced);
        let [to_hub, to_client] = whole.passed;
        assert!(to_hub > 150 && to_client > 130, "{:?}", whole.passed);
        let changes = |way, length| (0..8 * length).map(move |bit| (way, bit / 8, 1 << (bit % 8)));
        for change in changes(Way::ToHub, to_hub).chain(changes(Way::ToClient, to_client)) {
            let met = Between::met(transport, Some(change));
            assert!(!met.client_is_ready, "the client was deceived: {transport:?} {change:?}");
            // The hub's last word comes after it was convinced, rightly.
            assert!(
                change.0 == Way::ToClient || !met.hub_is_convinced,
                "the hub was deceived: {transport:?} {change:?}"
            );
        }
    }
}

/// A hub with a password, and a client that was challenged and derives.
fn deriving() -> (Hub, Client) {
    let secret = Secret::password("correct horse");
    let config = hub::HubConfig {
        id: None,
        credentials: support::credentials(&secret),
        limits: Limits::default(),
        owner_policy: commipc_protocol::OwnerPolicy::default(),
    };
    let (mut hub, mut client) = (Hub::new(config, &commipc_protocol::Seed::new([1; 32])), client("me", secret));
    let peer = Peer::unknown(Transport::Memory);
    client.handle_input(NOW, Input::Command(Command::Connect));
    hub.handle_input(NOW, Input::Accepted { link: ACCEPTED, peer: peer.clone() });
    client.handle_input(NOW, Input::Dialled { link: DIALLED, peer });
    hand_over(&mut client, &mut hub);
    hand_back(&mut hub, &mut client);
    assert!(matches!(client.poll_output(), Some(Output::Event(Event::DeriveKey { .. }))));
    (hub, client)
}

fn hand_over(client: &mut Client, hub: &mut Hub) {
    while let Some(output) = client.poll_output() {
        let Output::Transmit { data, .. } = output else { continue };
        hub.handle_input(NOW, Input::Received { link: ACCEPTED, data });
    }
}

fn hand_back(hub: &mut Hub, client: &mut Client) {
    while let Some(output) = hub.poll_output() {
        let Output::Transmit { data, .. } = output else { continue };
        client.handle_input(NOW, Input::Received { link: DIALLED, data });
    }
}

#[test]
fn a_refusal_while_the_client_derives_is_a_refusal() {
    let (mut hub, mut client) = deriving();
    hub.handle_input(NOW, Input::Command(hub::Command::Shutdown));
    hand_back(&mut hub, &mut client);
    let outputs: Vec<_> = std::iter::from_fn(|| client.poll_output()).collect();
    let refused = CloseReason::Refused(Refusal::ShuttingDown);
    let told = |output: &Output<Event>| matches!(output, Output::Event(Event::Closed(why)) if *why == refused);
    assert!(outputs.iter().any(told), "{outputs:?}");
}

#[test]
fn a_proof_carries_one_to_four_take_over_proofs_or_none_at_all() {
    for (count, fits) in [(0, false), (1, true), (4, true), (5, false)] {
        let (mut hub, mut client) = (hub(Limits::default()), client("me", Secret::key(KEY)));
        let peer = Peer::unknown(Transport::Memory);
        client.handle_input(NOW, Input::Command(Command::Connect));
        hub.handle_input(NOW, Input::Accepted { link: ACCEPTED, peer: peer.clone() });
        client.handle_input(NOW, Input::Dialled { link: DIALLED, peer });
        hand_over(&mut client, &mut hub);
        hand_back(&mut hub, &mut client);
        let Some(Output::Transmit { data, .. }) = client.poll_output() else { panic!("no proof") };
        let genuine = Proof::parse(&data[5..]).unwrap();
        let takeover = Some(vec![&[1; 32]; count]);
        let mut body = bytes::BytesMut::new();
        Proof { takeover, ..genuine }.encode(&mut body);
        let length = u32::try_from(body.len() + 1).unwrap();
        let frame = [&length.to_be_bytes()[..], &[3], &body].concat();
        hub.handle_input(NOW, Input::Received { link: ACCEPTED, data: frame.into() });
        assert_eq!(hub.load().clients == 1, fits, "{count}");
    }
}

/// A client whose HELLO is out, and what a hub does then that knows no secret but the bytes of this protocol.
struct Deceived {
    client: Client,
    /// Types of the frames that the client sent.
    said: Vec<u8>,
    told: Vec<Event>,
    /// Whether it expects a tag behind each frame.
    tagged: bool,
}

impl Deceived {
    fn dialled(transport: Transport) -> Self {
        Self::dialled_with(transport, Secret::key(KEY))
    }

    fn dialled_with(transport: Transport, secret: Secret) -> Self {
        let mut deceived = Self { client: client("me", secret), said: Vec::new(), told: Vec::new(), tagged: false };
        deceived.feed(Input::Command(Command::Connect));
        deceived.feed(Input::Dialled { link: DIALLED, peer: Peer::unknown(transport) });
        assert_eq!(deceived.said, [FrameType::Hello.number()]);
        deceived
    }

    /// The same, and challenged.
    fn challenged(transport: Transport) -> Self {
        let mut deceived = Self::dialled(transport);
        deceived.hear(FrameType::Challenge.number(), &challenge(transport));
        assert_eq!(deceived.said, [FrameType::Hello.number(), FrameType::Proof.number()]);
        assert!(deceived.told.is_empty(), "nothing is wrong yet: {:?}", deceived.told);
        deceived.tagged = transport == Transport::Tcp;
        deceived
    }

    fn feed(&mut self, input: Input<Command>) {
        self.client.handle_input(NOW, input);
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Event(event) => self.told.push(event),
                Output::Transmit { data, .. } if data[..] == MAGIC => {}
                Output::Transmit { data, .. } => {
                    let data = data.strip_prefix(&MAGIC[..]).unwrap_or(&data);
                    self.said.push(data[4]);
                }
                Output::Close { .. } | Output::Dial { .. } => {}
            }
        }
    }

    fn hear(&mut self, kind: u8, body: &[u8]) {
        let length = u32::try_from(body.len() + 1).unwrap();
        let tag: &[u8] = if self.tagged { &[0; 16] } else { &[] };
        let data = [&length.to_be_bytes()[..], &[kind], body, tag].concat();
        self.feed(Input::Received { link: DIALLED, data: data.into() });
    }

    /// It has left without believing, doing or saying anything.
    #[track_caller]
    fn left(&self, said: &[FrameType], what: &str) {
        let [Event::Violation(_), Event::Closed(CloseReason::Violation(_))] = &self.told[..] else {
            panic!("{what}: {:?}", self.told);
        };
        let said: Vec<u8> = said.iter().map(|kind| kind.number()).collect();
        assert_eq!(self.said, said, "{what}");
    }
}

fn challenge(transport: Transport) -> Vec<u8> {
    challenge_of(transport, Kdf::Key.id(), 0)
}

fn challenge_of(transport: Transport, kdf: u64, iterations: u64) -> Vec<u8> {
    let challenge = Challenge {
        version: VERSION,
        kdf,
        hub: Name::new("hub-a").unwrap(),
        boot: &[5; 16],
        nonce: &[6; 32],
        salt: if kdf == Kdf::Insecure.id() { &[] } else { &[3; 16] },
        iterations,
        records: transport == Transport::Tcp,
        frame: 1 << 20,
        features: 0,
    };
    encoded(&challenge)
}

fn encoded<'a>(body: &impl Control<'a>) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    body.encode(&mut out);
    out.to_vec()
}

/// The proof with which the true hub has welcomed the client on another connection.
fn proof_of_another_day() -> [u8; 32] {
    let (mut hub, mut client) = (hub(Limits::default()), client("me", Secret::key(KEY)));
    let peer = Peer::unknown(Transport::Memory);
    client.handle_input(NOW, Input::Command(Command::Connect));
    hub.handle_input(NOW, Input::Accepted { link: ACCEPTED, peer: peer.clone() });
    client.handle_input(NOW, Input::Dialled { link: DIALLED, peer });
    hand_over(&mut client, &mut hub);
    hand_back(&mut hub, &mut client);
    hand_over(&mut client, &mut hub);
    let said: Vec<u8> = std::iter::from_fn(|| hub.poll_output())
        .filter_map(|output| if let Output::Transmit { data, .. } = output { Some(data) } else { None })
        .flatten()
        .collect();
    assert_eq!(said[4], FrameType::Welcome.number());
    let length = u32::from_be_bytes(said[..4].try_into().unwrap()) as usize;
    *Welcome::parse(&said[5..4 + length]).unwrap().proof
}

#[test]
fn v14_a_client_accepts_no_hub_that_cannot_prove_itself() {
    let (hello, proof) = (FrameType::Hello, FrameType::Proof);
    let proofs = [[0; 32], [1; 32], proof_of_another_day()];
    for (transport, foreign) in [Transport::Memory, Transport::Tcp].into_iter().flat_map(|it| proofs.map(|of| (it, of)))
    {
        for (insecure, refused) in [(false, None), (true, None), (false, Some(Refusal::IdInUse.code()))] {
            let welcome = Welcome {
                session: 1,
                client: Name::new("me").unwrap(),
                capabilities: 7,
                frame: 1 << 20,
                insecure,
                refused,
                proof: &foreign,
            };
            let mut deceived = Deceived::challenged(transport);
            deceived.hear(FrameType::Welcome.number(), &encoded(&welcome));
            deceived.left(&[hello, proof], &format!("{transport:?} {welcome:?}"));
            let mut deceived = Deceived::dialled(transport);
            deceived.hear(FrameType::Welcome.number(), &encoded(&welcome));
            deceived.left(&[hello], "a welcome without a challenge");
        }
    }
}

#[test]
fn v14_s15_without_a_welcome_a_client_hears_nothing_else() {
    let handshake = [FrameType::Challenge, FrameType::Welcome, FrameType::AuthFailed].map(FrameType::number);
    let others = (0..=u8::MAX).filter(|kind| !handshake.contains(kind));
    for kind in others {
        // As bare as can be, and as a body that is whole for many.
        for body in [&[0xa0][..], b"\xa2\x00\x01\x01\x00", &[0; 40]] {
            for transport in [Transport::Memory, Transport::Tcp] {
                let mut deceived = Deceived::dialled(transport);
                deceived.hear(kind, body);
                deceived.left(&[FrameType::Hello], &format!("{kind} first"));
                let mut deceived = Deceived::challenged(transport);
                deceived.hear(kind, body);
                deceived.left(&[FrameType::Hello, FrameType::Proof], &format!("{kind} instead of a welcome"));
            }
        }
    }
}

/// Whoever makes itself the hub could otherwise ask for a proof that is cheap to guess from, or for work without end.
#[test]
fn v14_v18_a_client_proves_its_secret_as_its_kind_is_derived_and_within_bounds_or_not_at_all() {
    let (least, most) = (u64::from(MIN_ITERATIONS), u64::from(MAX_ITERATIONS));
    assert_eq!((least, most), (100_000, 10_000_000));
    let password = || Secret::password("correct horse");
    let cheap = [0, 1, least - 1, most + 1, u64::from(u32::MAX), (1 << 32) + least, u64::MAX].map(|rounds| (1, rounds));
    let others = [(0, 0), (2, 0), (2, least), (3, 0), (3, least), (4, 0), (4, least)];
    let to_passwords = cheap.into_iter().chain(others).map(|asked| (password(), asked));
    let keys = [(1, least), (1, 0), (2, 1), (2, least), (2, 1 << 32), (3, 0), (0, 0), (4, 0)];
    let to_keys = keys.into_iter().map(|asked| (Secret::key(KEY), asked));
    for (secret, (kdf, rounds)) in to_passwords.chain(to_keys) {
        for transport in [Transport::Memory, Transport::Tcp] {
            let mut deceived = Deceived::dialled_with(transport, secret.clone());
            deceived.hear(FrameType::Challenge.number(), &challenge_of(transport, kdf, rounds));
            let what = format!("{transport:?}, {:?}: kdf {kdf}, {rounds} rounds", secret.kdf());
            deceived.left(&[FrameType::Hello], &what);
            assert!(matches!(deceived.told[0], Event::Violation(Violation::NotOffered)), "{what}: {:?}", deceived.told);
        }
    }
    for rounds in [least, least + 1, most - 1, most] {
        let mut asked = Deceived::dialled_with(Transport::Memory, password());
        asked.hear(FrameType::Challenge.number(), &challenge_of(Transport::Memory, 1, rounds));
        let [Event::DeriveKey { iterations, .. }] = &asked.told[..] else { panic!("{rounds}: {:?}", asked.told) };
        assert_eq!(u64::from(*iterations), rounds);
    }
}

/// A password costs its half second once, and again where the hub, its salt or its iterations are others.
#[test]
fn a_client_derives_the_key_of_each_hub_once() {
    let secret = Secret::password("correct horse");
    let of = |id: &str, salt: u8, iterations: u32| {
        let verifier = Verifier::new(&secret, [salt; 16], iterations).unwrap();
        let credentials = Credentials::new([9; 32]).with(CredentialId::shared(), Credential::shared(verifier));
        let (id, owner_policy) = (Some(HubId::new(id).unwrap()), commipc_protocol::OwnerPolicy::default());
        let config = hub::HubConfig { id, credentials, limits: Limits::default(), owner_policy };
        hub::Hub::new(config, &commipc_protocol::Seed::new([1; 32]))
    };
    let mut world = World::with(of("hub-a", 3, 100_000), vec![client("me", secret.clone())]);
    let changes = [
        (("hub-a", 3, 100_000), true),
        (("hub-a", 3, 100_000), false),
        (("hub-b", 3, 100_000), true),
        (("hub-b", 4, 100_000), true),
        (("hub-b", 4, 100_001), true),
        (("hub-b", 4, 100_001), false),
    ];
    for (number, ((id, salt, iterations), derives)) in changes.into_iter().enumerate() {
        world.replace_hub(of(id, salt, iterations));
        world.events[0].clear();
        world.command(0, Command::Connect);
        if let Some(Event::DeriveKey { salt, iterations }) = world.events[0].front() {
            assert!(derives, "{number}: it is known");
            let salted = secret.derive(salt, *iterations).unwrap();
            world.events[0].clear();
            world.command(0, Command::KeyDerived(salted));
        } else {
            assert!(!derives, "{number}: {:?}", world.events[0]);
        }
        assert!(matches!(world.next(0), Event::Ready(_)), "{number}");
    }
}
