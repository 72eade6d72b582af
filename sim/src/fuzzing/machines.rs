//! Targets around whole machines: any bytes to a hub, to a client, to a member, and to the simulator's decisions.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::client::{Dropped, Event};
use commipc_protocol::wire::{Flags, FrameType, Header, Hop, Kind, Target};
use commipc_protocol::{Input, LinkEnd, Machine as _, OwnerPolicy};

use super::bridge;
use super::pair::{self, ANOTHER, NOW, RECORDED, accepted, dialled, fed, is_connected};
use super::resigning::{CHANNEL, EPOCH, PASSWORD, SENDER, key, named, split, written};
use crate::held::held_by;
use crate::mallory::{Malice, Order};
use crate::oracles;
use crate::run::run_choices;
use crate::station::Asked;
use crate::suite::Reply;
use crate::weather::Weather;
use crate::world::World;

/// No more frames than this are taken from one input: longer ones tell nothing new.
const FRAMES: usize = 64;
const SOON: Duration = Duration::from_secs(2);
const MOMENT: Duration = Duration::from_millis(1);

/// Bytes from somebody who has just connected to a hub, and who can prove nothing.
///
/// # Panics
/// When that one is admitted, the hub says more than it may, or anything is left of it.
pub fn client_bytes(data: &[u8]) {
    let mut hub = pair::hub(ANOTHER);
    let link = accepted(&mut hub);
    hub.handle_input(NOW, Input::Received { link, data: Bytes::copy_from_slice(data) });
    let mut said = 0;
    while let Some(output) = hub.poll_output() {
        match output {
            commipc_protocol::Output::Event(event) => assert!(!is_connected(&event), "a stranger is admitted"),
            commipc_protocol::Output::Transmit { data, .. } => said += data.len(),
            commipc_protocol::Output::Close { .. } | commipc_protocol::Output::Dial { .. } => {}
        }
    }
    assert!(said <= 1_024, "a stranger is told {said} bytes");
    hub.handle_input(NOW, Input::Closed { link, how: LinkEnd::Reset });
    while hub.poll_output().is_some() {}
    let left: Vec<_> = held_by(&hub).into_iter().filter(|(what, many)| *many > 0 && !LASTING.contains(what)).collect();
    assert_eq!(left, [], "what is left of a stranger");
}

/// What a hub may hold whether or not anybody is there.
const LASTING: [&str; 2] = ["memory", "timers"];

/// Bytes from whoever a client has dialled, who can prove nothing.
///
/// # Panics
/// When the client takes it for its hub.
pub fn hub_bytes(data: &[u8]) {
    let mut client = pair::client(ANOTHER);
    let link = dialled(&mut client);
    client.handle_input(NOW, Input::Received { link, data: Bytes::copy_from_slice(data) });
    while let Some(output) = client.poll_output() {
        if let commipc_protocol::Output::Event(event) = output {
            assert!(!matches!(event, Event::Ready(_)), "a stranger is taken for a hub");
        }
    }
}

/// The same bytes in one piece and in pieces that they draw themselves: the first byte says whether to a hub or to a client, of
/// which what was recorded is a part.
///
/// # Panics
/// When the pieces show.
pub fn chunking(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let widths = bytes.iter().rev().map(|byte| usize::from(*byte) % 97 + 1).cycle();
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for width in widths {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(width.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    if first % 2 == 0 {
        let say = |pieces: &[&[u8]]| {
            let mut hub = pair::hub(RECORDED);
            let link = accepted(&mut hub);
            fed(&mut hub, link, pieces)
        };
        assert_eq!(say(&[bytes]), say(&pieces), "a hub");
    } else {
        let say = |pieces: &[&[u8]]| {
            let mut client = pair::client(RECORDED);
            let link = dialled(&mut client);
            fed(&mut client, link, pieces)
        };
        assert_eq!(say(&[bytes]), say(&pieces), "a client");
    }
}

/// A world in which bytes are frames at once: `o` owns a channel and answers, `m` is a member and listens.
fn untagged() -> World {
    World::seeded(1).weather(Weather { transports: [0, 0, 1], ..Weather::still() })
}

/// Frames from a client that was admitted, beside two honest ones on a channel with a password.
///
/// # Panics
/// When an oracle finds something that need not know what the first one is asked by its application, or the honest ones are
/// not served any more.
pub fn hub_after_handshake(data: &[u8]) {
    let mut world = untagged();
    world.watch.oracles = oracles::beside_anybody();
    world = world.hub("h").client("o").client("m").rogue("x", "x", true).connected();
    world.at("o").opens(HONEST).protects(HONEST, PASSWORD).provides(HONEST, "x");
    world.at("m").joins(HONEST, PASSWORD).listens(HONEST, None);
    world.serves("o", |_| Reply::text("yes"));
    for frame in split(data).into_iter().take(FRAMES) {
        if !matches!(world.told("x").iter().rfind(|event| is_of_connection(event)), Some(Event::Ready(_))) {
            let _ = world.at("x").connects();
            world.run_for(MOMENT);
        }
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes();
        world.says("x", &[&length[..], frame].concat());
        world.run_for(MOMENT);
    }
    let call = world.at("m").calls(HONEST, "x", "is it?", SOON);
    assert!(world.answer(call).is_ok_and(|answer| &answer.payload.bytes[..] == b"yes"), "honest clients are served");
    world.ended = true;
}

/// Where honest clients are.
const HONEST: &str = "p";

const fn is_of_connection(event: &Event) -> bool {
    matches!(event, Event::Ready(_) | Event::Closed(_))
}

/// A member of a protected channel and its owner, whose hub says what it is told to.
fn protected() -> World {
    let mut world = untagged().malicious_hub("h", Malice::none(), OwnerPolicy::default());
    world = world.client(SENDER).client("m").connected();
    world.at(SENDER).opens(CHANNEL).protects(CHANNEL, PASSWORD);
    world.at("m").joins(CHANNEL, PASSWORD).listens(CHANNEL, None).provides(CHANNEL, "x");
    world
}

/// Hands a member a frame, without its length, in its hub's name; oracles are not asked, as nobody has said it.
fn gives(world: &mut World, frame: &[u8]) {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes();
    let (frame, to) = ([&length[..], frame].concat(), commipc_protocol::ClientId::new("m"));
    let (Some(hub), Ok(to)) = (world.hubs().first().copied(), to) else { return };
    world.engine.command(hub, Asked::Malice(Order::Inject { to, frame: frame.into() }), &mut world.watch);
    let end = world.now() + MOMENT;
    while world.engine.next_at().is_some_and(|at| at <= end) {
        world.step();
    }
    world.engine.advance(end);
}

/// Frames from a hub to a member of a protected channel, signed by members where the mutator has signed them.
///
/// # Panics
/// When the member panics.
pub fn member(data: &[u8]) {
    let mut world = protected();
    for frame in split(data).into_iter().take(FRAMES) {
        gives(&mut world, frame);
    }
    world.ended = true;
}

/// Numbers of signed messages that a member is given, and a set that knows which it may accept. Three bytes each: forward or
/// back from the highest, and how far.
///
/// # Panics
/// When the member and the set differ.
pub fn replay_window(data: &[u8]) {
    let mut world = protected();
    let (mut accepted, mut top) = (BTreeSet::new(), 0_u64);
    let instance = [0x77; 16];
    for step in data.chunks_exact(3).take(FRAMES) {
        let [way, high, low] = step else { continue };
        let by = u64::from(u16::from_be_bytes([*high, *low])) << (way >> 1).min(47);
        let number = if way % 2 == 0 { top.saturating_add(by) } else { top.saturating_sub(by) };
        let Some(frame) = numbered(number, &instance) else { continue };
        let told = world.told("m").len();
        gives(&mut world, &frame);
        let heard = world.told("m").get(told..).unwrap_or_default();
        let is_new = number > 0 && (number > top || top - number < WIDTH) && accepted.insert(number);
        if number == 0 {
            // No message has it: its link ends.
            break;
        }
        let expected = if is_new { "accepts" } else { "refuses" };
        let took = heard.iter().any(|event| matches!(event, Event::Message(_)));
        let refused = heard.iter().any(|event| matches!(event, Event::Dropped(Dropped::Replayed | Dropped::Stale)));
        assert!(took == is_new && refused != is_new, "{number} after {top}: {expected}, and {heard:?}");
        top = top.max(number);
    }
    world.ended = true;
}

/// How far behind the highest number one may be.
const WIDTH: u64 = 1_024;

/// Something that the owner sends with this number.
fn numbered(number: u64, instance: &[u8; 16]) -> Option<Vec<u8>> {
    let header = Header {
        kind: Kind::Send,
        flags: Flags::NONE.with_if(Flags::RAW, true),
        channel: named(CHANNEL)?,
        event: named("x")?,
        epoch: EPOCH,
        sender: named(SENDER)?,
        origin: named("h")?,
        instance,
        seq: number,
        bseq: 0,
        sent_at: 1_750_000_000_000,
        time_left: 30_000,
        request: 0,
        reference: &[],
        index: 0,
        target: Target::NONE,
        metadata: &[],
    };
    let body = written(Hop::direct(0, 1), &header, b"numbered", &key(instance, SENDER)?);
    Some([&[FrameType::Send.number()], &body[..]].concat())
}

/// A whole run of the simulator that bytes decide.
///
/// # Panics
/// When an oracle finds something. `commipc sim replay --bytes` tells the run as a conversation.
pub fn simulator(data: &[u8]) {
    let outcome = run_choices(data);
    assert!(outcome.is_fine(), "{:?}", outcome.failures);
}

/// What the corpora of these targets begin with.
pub(super) fn beginnings(target: &str) -> Vec<(String, Vec<u8>)> {
    let (client, hub) = pair::conversation();
    let behind_magic = client.get(8..).unwrap_or_default();
    let each = |stream: &[u8], from: usize, way: &str, wrap: &dyn Fn(&[u8]) -> Vec<u8>| {
        let name = |index, frame: &[u8]| {
            let kind = frame.first().copied().and_then(FrameType::from_number);
            format!("{way}-{index:02}-{}", kind.map_or_else(String::new, |kind| format!("{kind:?}").to_lowercase()))
        };
        let frames = split(stream).into_iter().enumerate().skip(from);
        frames.map(|(index, frame)| (name(index, frame), wrap(frame))).collect::<Vec<_>>()
    };
    let whole = |frame: &[u8]| [&u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes()[..], frame].concat();
    match target {
        "control_body" => {
            let said = [each(behind_magic, 0, "client", &<[u8]>::to_vec), each(&hub, 0, "hub", &<[u8]>::to_vec)];
            said.into_iter().flatten().chain(bridge::bodies()).collect()
        }
        "bridge" => bridge::beginnings(),
        "client_bytes" => vec![
            ("conversation".to_owned(), client.clone()),
            ("magic".to_owned(), client.get(..8).unwrap_or_default().to_vec()),
            ("without-magic".to_owned(), behind_magic.to_vec()),
        ],
        "hub_bytes" => vec![("conversation".to_owned(), hub)],
        "chunking" => {
            vec![
                ("to-a-hub".to_owned(), [&[0], &client[..]].concat()),
                ("to-a-client".to_owned(), [&[1], &hub[..]].concat()),
            ]
        }
        "hub_after_handshake" => {
            let mut all = each(behind_magic, 2, "client", &whole);
            all.push(("all".to_owned(), all.iter().flat_map(|(_, frame)| frame.clone()).collect()));
            all
        }
        "member" => {
            let mut all = each(&hub, 2, "hub", &whole);
            let signed: Vec<u8> =
                (1..4).filter_map(|number| numbered(number, &[0x77; 16])).flat_map(|it| whole(&it)).collect();
            all.push(("signed-sends".to_owned(), signed));
            all
        }
        "replay_window" => vec![
            ("forward".to_owned(), [0, 0, 1].repeat(8)),
            (
                "back".to_owned(),
                [[0, 8, 0], [1, 4, 0], [1, 3, 255], [1, 3, 255], [1, 0, 1], [0, 0, 64], [1, 4, 1]].concat(),
            ),
            ("leaps".to_owned(), [[94, 255, 255], [1, 0, 3], [1, 0, 3], [0, 255, 255], [0, 255, 255]].concat()),
        ],
        "simulator" => vec![
            ("nothing".to_owned(), Vec::new()),
            ("zeros".to_owned(), vec![0; 64]),
            ("sevens".to_owned(), vec![7; 200]),
            ("counting".to_owned(), (0..=255).cycle().take(600).collect()),
        ],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::resigning::resigned;
    use super::*;

    /// Otherwise everything that a mutator makes would die at its tag, and nothing would be tried behind that.
    #[test]
    fn what_a_mutator_has_changed_is_taken_once_it_is_signed_anew() {
        let mut frame = numbered(1, &[0x77; 16]).unwrap();
        // The payload lies before the tag, and two bytes of CBOR.
        let last = frame.len() - 35;
        frame[last] ^= 1;
        let mut world = protected();
        let before = world.told("m").len();
        gives(&mut world, &frame);
        let heard = &world.told("m")[before..];
        assert!(matches!(heard[..], [Event::Dropped(Dropped::BadSignature)]), "{heard:?}");
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        let stream = resigned(&[&length[..], &frame].concat());
        let [again] = split(&stream)[..] else { panic!("one frame") };
        gives(&mut world, again);
        let heard = &world.told("m")[before + 1..];
        let [Event::Message(message)] = heard else { panic!("{heard:?}") };
        assert_eq!(message.message.payload.bytes, b"numberee"[..]);
        // What is no message is framed as it is.
        assert_eq!(resigned(&[0, 0, 0, 9, 6, 0xa0]), [0, 0, 0, 2, 6, 0xa0]);
        world.ended = true;
    }
}
