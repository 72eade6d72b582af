//! Where adversaries appear: a hub, an owner and a member of a channel with and of one without a password, and what they say.

use std::time::Duration;

use bytes::BytesMut;
use commipc_protocol::auth::{ChannelKeys, ChannelMaster, Secret, SenderKey};
use commipc_protocol::client::Event;
use commipc_protocol::wire::{
    Accept, Control, Flags, FrameType, Header, Hop, Join, JoinChallenge, Kind, Leave, Listen, Message, Open, Protect,
    Provide, Reclaim, Record, Target, Terminate, Unprotect,
};
use commipc_protocol::{CloseReason, Name, Refusal, hub};
use commipc_sim::oracles::Password;
use commipc_sim::{Feed, Reply, Ticket, Weather, World};

pub(crate) const ONE: Password = Password(1);
pub(crate) const TWO: Password = Password(2);
pub(crate) const SOON: Duration = Duration::from_secs(2);
/// More than anything takes to arrive here.
pub(crate) const MOMENT: Duration = Duration::from_millis(200);
/// What wall clocks show when a world begins.
const WALL_START: u64 = 1_750_000_000_000;

/// Connections whose frames carry no tags, so that whoever has one can say what it likes.
pub(crate) fn untagged() -> Weather {
    Weather { transports: [0, 0, 1], ..Weather::fair() }
}

/// `o` owns both channels and answers, `m` is a member of both and listens, `x` is somebody else.
pub(crate) fn world(seed: u64, knows_the_secret: bool) -> World {
    let world = World::seeded(seed).weather(untagged()).hub("h");
    let world = world.rogue("o", "o", true).rogue("m", "m", true).rogue("x", "x", knows_the_secret);
    settled(world.connected())
}

/// Lets owner and member take their places.
pub(crate) fn settled(mut world: World) -> World {
    world.at("o").opens("open").provides("open", "ev").opens("ch").protects("ch", ONE).provides("ch", "ev");
    world.serves("o", |_| Reply::text("yes"));
    world.at("m").opens("open").listens("open", None).joins("ch", ONE).listens("ch", None).provides("ch", "mine");
    let _ = world.at("o").provides_streams("open", "count").provides_streams("ch", "count");
    world.feeds("o", |_| Feed::of(["one", "two", "three"]));
    world
}

/// Lets each say something everywhere, which arrives.
pub(crate) fn all_is_well(world: &mut World) {
    for channel in ["open", "ch"] {
        let before = world.heard("m").len();
        let said = world.at("o").broadcasts(channel, "news", "it is as it was");
        assert_eq!(world.done(said), Ok(()));
        let call = world.at("m").calls(channel, "ev", "is it?", SOON);
        assert_eq!(&world.answer(call).unwrap().payload.bytes[..], b"yes");
        let stream = world.at("m").streams(channel, "count", "", SOON);
        assert_eq!((world.end_of(stream), counted(world, stream)), (Ok(()), vec!["one", "two", "three"]));
        world.run_for(MOMENT);
        assert_eq!(world.heard("m").len(), before + 1);
    }
}

/// The items of a stream, as text.
pub(crate) fn counted(world: &World, stream: Ticket) -> Vec<&str> {
    world.items(stream).iter().map(|item| str::from_utf8(&item.bytes).unwrap()).collect()
}

/// Whether a client has a connection on which it was admitted.
pub(crate) fn is_ready(world: &World, name: &str) -> bool {
    let last = world.told(name).iter().rev().find(|event| matches!(event, Event::Ready(_) | Event::Closed(_)));
    matches!(last, Some(Event::Ready(_)))
}

/// Lets somebody say each of these, on a new connection where the hub has had enough of it.
pub(crate) fn says_all(world: &mut World, name: &str, frames: &[Vec<u8>]) {
    for frame in frames {
        if !is_ready(world, name) {
            let _ = world.at(name).connects();
            world.run_for(MOMENT);
        }
        world.says(name, frame);
        world.run_for(MOMENT);
    }
}

/// Holds that an attack is not noticed by anybody but whoever makes it.
pub(crate) fn unnoticed(world: &mut World, attack: impl FnOnce(&mut World)) {
    let told = |world: &World| ["o", "m"].map(|name| world.told(name).len());
    let (before, known) = (told(world), world.hub_told("h").len());
    attack(world);
    for (name, from) in ["o", "m"].into_iter().zip(before) {
        let told = &world.told(name)[from..];
        assert!(told.is_empty(), "{name} is told {told:?}");
    }
    for event in &world.hub_told("h")[known..] {
        assert!(is_about_x_alone(event), "{event:?}");
    }
    all_is_well(world);
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is told is too much")]
fn is_about_x_alone(event: &hub::Event) -> bool {
    match event {
        hub::Event::Connected { client, .. } | hub::Event::Disconnected { client, .. } => &**client == "x",
        hub::Event::Rejected { .. } => true,
        _ => false,
    }
}

/// Why the hub did not let a client in, last.
pub(crate) fn refused_login(world: &World, name: &str) -> Option<Refusal> {
    world.told(name).iter().rev().find_map(|event| {
        let Event::Closed(CloseReason::Refused(why)) = event else { return None };
        Some(*why)
    })
}

/// A frame around a control body.
pub(crate) fn control<'a, C: Control<'a>>(body: &C) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    body.encode(&mut bytes);
    frame(C::TYPE, &bytes)
}

/// A frame around a body.
pub(crate) fn frame(kind: FrameType, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[kind.number()], body].concat()
}

/// The body of a frame, behind what stands before the first of a link.
pub(crate) fn parts(frame: &[u8]) -> (FrameType, &[u8]) {
    let frame = frame.strip_prefix(&commipc_protocol::wire::MAGIC).unwrap_or(frame);
    (FrameType::from_number(frame[4]).unwrap(), &frame[5..])
}

pub(crate) fn name(name: &str) -> Name<'_> {
    Name::new(name).unwrap()
}

/// Somebody's words, made up.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    pub(crate) sender: &'a str,
    pub(crate) channel: &'a str,
    pub(crate) event: &'a str,
    pub(crate) epoch: u64,
    /// What it is signed with, if that is known.
    pub(crate) key: Option<&'a SenderKey>,
    /// Which run of its sender says it.
    pub(crate) instance: [u8; 16],
    /// Beyond what its sender has said.
    pub(crate) number: u64,
    /// Which request it asks or answers.
    pub(crate) request: u64,
    /// The number of the exchange on its link.
    pub(crate) route: u32,
    /// Whether items and ends are those of the caller.
    pub(crate) as_caller: bool,
    /// The number of an item, or how many there are said to be.
    pub(crate) index: u64,
}

impl<'a> Words<'a> {
    pub(crate) fn of(sender: &'a str, channel: &'a str, epoch: u64) -> Self {
        let event = "ev";
        Self {
            sender,
            channel,
            event,
            epoch,
            key: None,
            instance: [0x77; 16],
            number: 1_000,
            request: 1,
            route: 1,
            as_caller: false,
            index: 0,
        }
    }

    /// The frame of a message of this kind, said now, by which `target` is answered if it answers.
    pub(crate) fn frame(&self, world: &World, kind: Kind, reference: &[u8; 32], payload: &str) -> Vec<u8> {
        let answers = matches!(kind, Kind::Answer | Kind::Fault | Kind::Item | Kind::End) && !self.as_caller;
        let asks = !matches!(kind, Kind::Broadcast | Kind::Send | Kind::Beacon);
        let numbered = matches!(kind, Kind::Broadcast | Kind::Beacon);
        let timed = matches!(kind, Kind::Broadcast | Kind::Send | Kind::Call);
        let bound = self.epoch > 0 && asks && kind != Kind::Call;
        let header = Header {
            kind,
            flags: Flags::NONE
                .with_if(Flags::RAW, true)
                .with_if(Flags::FROM_CALLER, self.as_caller && matches!(kind, Kind::Item | Kind::End)),
            channel: name(self.channel),
            event: name(self.event),
            epoch: self.epoch,
            sender: name(self.sender),
            origin: name("h"),
            instance: &self.instance,
            seq: self.number,
            bseq: if numbered { self.number } else { 0 },
            sent_at: WALL_START + world.now().as_nanos() / 1_000_000,
            time_left: if timed { 10_000 } else { 0 },
            request: if asks { self.request } else { 0 },
            reference: if bound { reference } else { &[] },
            index: if matches!(kind, Kind::Item | Kind::End) { self.index } else { 0 },
            target: if answers { Target::new(name("m"), name("h")) } else { Target::NONE },
            metadata: &[],
        };
        let (mut protected, mut message, mut body) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        header.encode(&mut protected);
        let made_up = [0x5a; 32];
        let tag = self.key.map_or(made_up, |key| key.tag(&protected, payload.as_bytes()));
        let tag = if self.epoch > 0 { &tag[..] } else { &[] };
        Message { header, protected: &protected, payload: payload.as_bytes(), tag }.encode(&mut message);
        Message::parse(&message).unwrap();
        Hop::direct(if asks { self.route } else { 0 }, 0).put(&mut body);
        body.extend_from_slice(&message);
        frame(kind.into(), &body)
    }

    /// The frames of every kind of message.
    pub(crate) fn every_kind(&self, world: &World) -> Vec<Vec<u8>> {
        let kinds = [Kind::Broadcast, Kind::Send, Kind::Call, Kind::Answer, Kind::Fault, Kind::Cancel, Kind::Beacon];
        let pieces = [(Kind::Item, false), (Kind::Item, true), (Kind::End, false), (Kind::End, true)];
        let said = kinds.into_iter().map(|kind| (kind, false)).chain(pieces);
        said.map(|(kind, as_caller)| Self { as_caller, ..*self }.frame(world, kind, &[9; 32], "made up")).collect()
    }
}

/// What only an owner, or only a member, may ask of a channel, with proofs made up.
pub(crate) fn demands(channel: &str) -> Vec<Vec<u8>> {
    let (channel, made_up, salt) = (name(channel), &[0x5a; 32], &[3; 16]);
    let record = Record { epoch: 2, kdf: 2, salt, iterations: 0, stored_key: made_up, server_key: made_up };
    let (stored, n) = (1, 1 << 40);
    vec![
        control(&Protect { id: 1, channel, stored, n, record, proof: made_up }),
        control(&Unprotect { id: 2, channel, stored, n, epoch: 2, proof: made_up }),
        control(&Reclaim { id: 3, channel, stored, n, proof: made_up }),
        control(&Terminate { id: 4, channel, stored, n, proof: made_up }),
        control(&Accept { offer: &[1; 16], channel, owner: made_up }),
        control(&Join { id: 5, channel, epoch: 1, nonce: made_up, proof: made_up }),
        control(&Provide { id: 6, channel, event: name("ev"), kind: 0 }),
        control(&Listen { id: 7, channel, event: None }),
        control(&Leave { id: 8, channel }),
    ]
}

/// An opening of a channel that would make it the asker's, if it were nobody's.
pub(crate) fn claim(channel: &str) -> Vec<u8> {
    let owner = Some(&[0x5a; 32]);
    control(&Open { id: 9, channel: name(channel), owner, record: None, policy: None, guarded: None })
}

/// A channel's keys as a member has them who was challenged so last.
pub(crate) fn member_keys(world: &World, member: &str, password: Password) -> (ChannelKeys, u64) {
    let heard = world.rogue_called(member).heard().iter().rev();
    let mut challenges = heard.filter_map(|frame| {
        let (kind, body) = parts(frame);
        (kind == FrameType::JoinChallenge).then(|| JoinChallenge::parse(body).unwrap())
    });
    let challenge = challenges.next().expect("a member was challenged");
    let salted = Secret::key(password.bytes()).derive(challenge.salt, 0).unwrap();
    (ChannelMaster::new(&salted).unwrap().keys("ch", challenge.salt, challenge.epoch), challenge.epoch)
}
