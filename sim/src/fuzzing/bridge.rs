//! The target around a bridge: what its two hubs say to it, whatever that is.

use bytes::{Bytes, BytesMut};
use commipc_protocol::auth::{Capabilities, Credential, Credentials, IdPattern, Secret, Verifier};
use commipc_protocol::bridge::{Bridge, BridgeConfig, BridgeEnd, Command, Event};
use commipc_protocol::hub::{Hub, HubConfig};
use commipc_protocol::wire::{
    Announce, Attach, Control, Credit, Done, Fail, Flags, Forget, FrameType, Header, Hop, Kind, MAGIC, Message,
    ROUTE_BY_HUB, Remote, Target, Terms, Told,
};
use commipc_protocol::{
    CredentialId, HubId, Input, Limits, LinkEnd, LinkId, Machine as _, Name, Output, OwnerPolicy, Peer, Seed, Transport,
};

use super::pair::NOW;
use super::resigning::{named, split};

const KEY: [u8; 32] = [8; 32];
/// No more frames than this are taken from one input: longer ones tell nothing new.
const FRAMES: usize = 64;
/// More often nothing goes to and fro for one frame.
const ROUNDS: usize = 64;
/// What one side is told for a byte of the other: the hubs say at most so often to each other what comes of it.
const ECHO: usize = 64;

/// A bridge that stands, and its hubs.
struct Joined {
    bridge: Bridge,
    hubs: [Hub; 2],
    /// The bridge's links to them, while they stand.
    links: [Option<LinkId>; 2],
    /// What the bridge has said to each since somebody looked.
    said: [Vec<u8>; 2],
    bridged: bool,
}

fn hub(number: u8) -> Hub {
    let none = Credentials::new([9; 32]);
    let credentials = match Verifier::new(&Secret::key(KEY), [3; 16], 0) {
        Ok(verifier) => {
            let entry = Credential::new(verifier, Capabilities::BRIDGE, vec![IdPattern::any()]);
            none.with(CredentialId::shared(), entry)
        }
        Err(_) => none,
    };
    let (id, owner_policy) = (HubId::new(&format!("h{number}")).ok(), OwnerPolicy::default());
    Hub::new(HubConfig { id, credentials, limits: Limits::default(), owner_policy }, &Seed::new([number + 1; 32]))
}

impl Joined {
    fn new() -> Self {
        let end =
            |hub: &str| BridgeEnd { hub: hub.into(), credential: CredentialId::shared(), secret: Secret::key(KEY) };
        let (a, b, limits) = (end("memory:h0"), end("memory:h1"), Limits::default());
        let (id, allow, one_way, rate, reconnect) = (None, Vec::new(), false, None, None);
        let bridge =
            Bridge::new(BridgeConfig { a, b, id, allow, one_way, rate, limits, reconnect }, &Seed::new([7; 32]));
        let (hubs, said) = ([hub(0), hub(1)], [Vec::new(), Vec::new()]);
        let mut joined = Self { bridge, hubs, links: [None; 2], said, bridged: false };
        joined.bridge.handle_input(NOW, Input::Command(Command::Connect));
        joined.run();
        assert!(joined.bridged, "two hubs are joined");
        joined.said = [Vec::new(), Vec::new()];
        joined
    }

    /// Everything that comes of what was said.
    fn run(&mut self) {
        for _ in 0..ROUNDS {
            let mut moved = false;
            while let Some(output) = self.bridge.poll_output() {
                moved = true;
                self.carry_out(output);
            }
            for side in 0..2 {
                while let Some(output) = self.hubs[side].poll_output() {
                    moved |= self.carry(side, output);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("what one frame brings about does not end");
    }

    fn carry_out(&mut self, output: Output<Event>) {
        let at_hub = LinkId::accepted(0, 1);
        match output {
            Output::Dial { link, .. } => {
                let (side, peer) = (link.index() % 2, Peer::unknown(Transport::Memory));
                self.links[side] = Some(link);
                self.hubs[side].handle_input(NOW, Input::Accepted { link: at_hub, peer: peer.clone() });
                self.bridge.handle_input(NOW, Input::Dialled { link, peer });
            }
            Output::Transmit { link, data } => {
                let side = link.index() % 2;
                self.said[side].extend_from_slice(&data);
                self.bridge.handle_input(NOW, Input::Written { link, bytes: data.len() });
                self.hubs[side].handle_input(NOW, Input::Received { link: at_hub, data });
            }
            Output::Close { link, .. } => {
                let side = link.index() % 2;
                self.links[side] = None;
                self.hubs[side].handle_input(NOW, Input::Closed { link: at_hub, how: LinkEnd::Eof });
            }
            Output::Event(event) => self.bridged |= matches!(event, Event::Bridged { .. }),
        }
    }

    /// What a hub says, on its only link; whether anybody hears it.
    fn carry<E>(&mut self, side: usize, output: Output<E>) -> bool {
        let link = self.links[side];
        match (output, link) {
            (Output::Transmit { data, link: at_hub }, Some(link)) => {
                self.hubs[side].handle_input(NOW, Input::Written { link: at_hub, bytes: data.len() });
                self.bridge.handle_input(NOW, Input::Received { link, data });
                true
            }
            (Output::Close { .. }, Some(link)) => {
                self.links[side] = None;
                self.bridge.handle_input(NOW, Input::Closed { link, how: LinkEnd::Eof });
                true
            }
            (Output::Transmit { .. } | Output::Close { .. } | Output::Dial { .. } | Output::Event(_), _) => false,
        }
    }
}

/// Frames of two hubs to the bridge between them: behind each length a byte that says whose. What the bridge makes of them goes
/// to the real hubs, and what these say comes back.
///
/// # Panics
/// When the bridge changes a message, makes one up or passes what it may not, what comes of a frame does not end or grows, or
/// anything is left of it in the end.
pub fn bridge(data: &[u8]) {
    let mut joined = Joined::new();
    for frame in split(data).into_iter().take(FRAMES) {
        let Some((side, frame)) = frame.split_first() else { continue };
        let side = usize::from(side % 2);
        let Some(link) = joined.links[side] else { break };
        let whole = framed(frame);
        joined.bridge.handle_input(NOW, Input::Received { link, data: Bytes::copy_from_slice(&whole) });
        joined.run();
        let said = std::mem::take(&mut joined.said);
        check(frame, &said[1 - side], &said[side]);
    }
    joined.bridge.handle_input(NOW, Input::Command(Command::Close));
    joined.run();
    for load in joined.bridge.load() {
        let unwritten = load.unwritten;
        assert_eq!(
            load,
            commipc_protocol::client::Load { unwritten, ..Default::default() },
            "what is left of a bridge"
        );
    }
    for hub in &mut joined.hubs {
        hub.handle_input(NOW, Input::Closed { link: LinkId::accepted(0, 1), how: LinkEnd::Reset });
        while hub.poll_output().is_some() {}
        let load = hub.load();
        assert_eq!((load.links, load.announced, load.errands, load.calls), (0, 0, 0, 0), "what is left at a hub");
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes()[..], frame].concat()
}

/// What a bridge has said to the other hub, and back, for one frame.
fn check(frame: &[u8], beyond: &[u8], back: &[u8]) {
    let told = beyond.len() + back.len();
    assert!(told <= ECHO * (frame.len() + 64), "{told} bytes are said for one frame of {}", frame.len());
    assert!(messages(back).is_empty(), "a message comes back");
    for (kind, body) in messages(beyond) {
        let (before, after) = (frame.split_first(), Hop::split(body));
        let (Some((was, carried)), Ok((hop, message))) = (before, after) else { panic!("a message is made up") };
        let Ok((old, old_message)) = Hop::split(carried) else { panic!("a message is made of nothing") };
        assert_eq!((kind, message), (*was, old_message), "a message is passed on as it came");
        let route = if old.route == 0 { 0 } else { old.route ^ ROUTE_BY_HUB };
        assert_eq!(
            (hop.route, hop.hops, hop.path()),
            (route, old.hops, old.path()),
            "only the number's bit is another"
        );
        let Ok(parsed) = Message::parse(message) else { panic!("what is no message passes") };
        assert!(!parsed.header.channel.as_str().starts_with("__comm_ipc"), "a hub's own channel passes");
    }
}

/// The messages among frames: their types and bodies.
fn messages(stream: &[u8]) -> Vec<(u8, &[u8])> {
    let stream = stream.strip_prefix(&MAGIC).unwrap_or(stream);
    let typed = split(stream).into_iter().filter_map(|frame| frame.split_first().map(|(kind, body)| (*kind, body)));
    typed.filter(|(kind, _)| FrameType::from_number(*kind).is_some_and(|it| it.message_kind().is_some())).collect()
}

fn control<'a, C: Control<'a>>(control: &C) -> Vec<u8> {
    of_exchange(&[], control)
}

/// A frame that belongs to an exchange has its number in front.
fn of_exchange<'a, C: Control<'a>>(route: &[u8], control: &C) -> Vec<u8> {
    let mut body = BytesMut::new();
    control.encode(&mut body);
    [&[C::TYPE.number()], route, &body[..]].concat()
}

/// A message of `c@h0` that has visited its hub, without a tag.
fn message(frame: FrameType, route: u32, bseq: u64, request: u64) -> Option<Vec<u8>> {
    let kind = frame.message_kind()?;
    let header = Header {
        kind,
        flags: Flags::NONE.with_if(Flags::RAW, true),
        channel: named("a")?,
        event: named("x")?,
        epoch: 0,
        sender: named("c")?,
        origin: named("h0")?,
        instance: &[0x77; 16],
        seq: 1,
        bseq,
        sent_at: 1_800_000_000_000,
        time_left: 30_000,
        request,
        reference: &[],
        index: 0,
        target: if kind == Kind::Answer { Target::new(named("c")?, named("h1")?) } else { Target::NONE },
        metadata: &[],
    };
    let (mut protected, mut body) = (BytesMut::new(), BytesMut::new());
    header.encode(&mut protected);
    Hop::direct(route, 1).put_past(named("h0")?, &mut body);
    Message { header, protected: &protected, payload: b"said", tag: &[] }.encode(&mut body);
    Some([&[frame.number()], &body[..]].concat())
}

/// Somebody asks the home of a channel how it is joined.
const fn asking<'a>(home: Name<'a>, channel: Name<'a>, hub: Name<'a>, client: Name<'a>) -> Remote<'a> {
    let (nonce, kind, body, proof) = (None, None, None, None);
    Remote { id: 1, home, channel, asks: 0, hub, client, epoch: 0, nonce, kind, body, proof }
}

/// What hubs say to each other over a bridge, one frame of each kind: whose it is, what it is called, and the frame.
fn frames() -> Vec<(u8, &'static str, Vec<u8>)> {
    let (Some(a), Some(x), Some(c), Some(h0), Some(h1)) =
        (named("a"), named("x"), named("c"), named("h0"), named("h1"))
    else {
        return Vec::new();
    };
    let announce = Announce {
        goal: 0,
        channel: a,
        event: Some(x),
        path: vec![h0],
        client: Some(c),
        kind: Some(0),
        epoch: None,
        home: None,
        terms: None,
        ended: None,
    };
    let listens = Announce { goal: 1, client: None, kind: None, path: vec![h1], ..announce.clone() };
    let terms = Terms { kdf: 1, salt: &[5; 16], iterations: 0 };
    let home = Announce {
        goal: 3,
        event: None,
        client: None,
        kind: None,
        epoch: Some(1),
        home: Some(h0),
        terms: Some(terms),
        ..announce.clone()
    };
    let forget = Forget { goal: 0, channel: a, event: Some(x), hub: h0, client: Some(c), epoch: None, home: None };
    let told = Told::bare(1, 200);
    let route = (ROUTE_BY_HUB | 1).to_be_bytes();
    let mut all = vec![
        (1, "listens", control(&listens)),
        (0, "provider", control(&announce)),
        (0, "home", control(&home)),
        (1, "remote", control(&asking(h0, a, h1, c))),
        (0, "told", control(&told)),
        (0, "forget", control(&forget)),
        (0, "attach", control(&Attach { id: 9, far: Some(h1) })),
        (
            0,
            "done",
            control(&Done { id: 1, code: 0, epoch: None, owner: None, owned_by: None, last_epoch: None, proof: None }),
        ),
        (0, "fail", of_exchange(&route, &Fail { code: 300 })),
        (0, "credit", of_exchange(&route, &Credit { items: 4, bytes: 4_096 })),
    ];
    all.extend(message(FrameType::Broadcast, 0, 1, 0).map(|frame| (0, "broadcast", frame)));
    all.extend(message(FrameType::Send, 0, 0, 0).map(|frame| (0, "send", frame)));
    all.extend(message(FrameType::Call, ROUTE_BY_HUB | 1, 0, 1).map(|frame| (0, "call", frame)));
    all.extend(message(FrameType::Answer, 1, 0, 1).map(|frame| (0, "answer", frame)));
    all
}

/// The same, each by its name.
pub(super) fn bodies() -> impl Iterator<Item = (String, Vec<u8>)> {
    frames().into_iter().map(|(_, name, frame)| (format!("bridge-{name}"), frame))
}

/// What the corpora begin with.
pub(super) fn beginnings() -> Vec<(String, Vec<u8>)> {
    let whole = |(side, _, frame): &(u8, &str, Vec<u8>)| framed(&[&[*side][..], frame].concat());
    let mut all: Vec<(String, Vec<u8>)> =
        frames().iter().map(|it| (format!("from-h{}-{}", it.0, it.1), whole(it))).collect();
    all.push(("all".to_owned(), frames().iter().flat_map(whole).collect()));
    all
}
