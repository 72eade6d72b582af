//! A4, who is a member, and A5, who was one until the password changed.

use bytes::Bytes;
use commipc_protocol::auth::{ChannelKeys, SenderKey, message_ref};
use commipc_protocol::client::{CallFailure, Dropped, Event, Failure};
use commipc_protocol::wire::{Control as _, FrameType, Hop, Kind, Message, Open, Reclaim};
use commipc_protocol::{Misuse, OwnerPolicy, Refusal, hub};
use commipc_sim::{Feed, Malice, Reply, Trick, World};

use crate::scene::{
    MOMENT, ONE, SOON, TWO, Words, all_is_well, claim, control, counted, demands, is_ready, member_keys, name, parts,
    says_all, settled, unnoticed, untagged, world,
};

/// `x` has joined both channels and listens.
fn world_with_a_member(seed: u64) -> World {
    let mut world = world(seed, true);
    let _ = world.at("x").opens("open").joins("ch", ONE).listens("ch", None);
    all_is_well(&mut world);
    world
}

/// What others have said or heard, to the byte, but for what anybody may say.
fn words_of_others(world: &World) -> Vec<Vec<u8>> {
    let links = |who| [world.rogue_called(who).said(), world.rogue_called(who).heard()].concat();
    let may = |frame: &&Bytes| {
        let (kind, body) = parts(frame);
        kind == FrameType::Open && Open::parse(body).is_ok()
    };
    let theirs = ["o", "m"].map(links).concat();
    theirs.iter().filter(|frame| !may(frame)).map(|frame| frame.to_vec()).collect()
}

fn heard(world: &World, who: &str, sender: &str, words: &str) -> bool {
    world
        .heard(who)
        .iter()
        .any(|heard| &*heard.message.sender.client == sender && heard.message.payload.bytes == words.as_bytes())
}

fn dropped(world: &World, who: &str, why: Dropped) -> bool {
    world.told(who).iter().any(|event| matches!(event, Event::Dropped(dropped) if *dropped == why))
}

/// Of a member's demands, those that are the owner's alone.
fn owners_demands(channel: &str) -> Vec<Vec<u8>> {
    let owners =
        [FrameType::Protect, FrameType::Unprotect, FrameType::Reclaim, FrameType::Terminate, FrameType::Accept];
    demands(channel).into_iter().filter(|frame| owners.contains(&parts(frame).0)).collect()
}

#[test]
pub(crate) fn a4_a_member_speaks_for_nobody_else_past_an_honest_hub_and_owns_nothing() {
    for seed in 0..4 {
        let mut world = world_with_a_member(seed);
        let (keys, epoch) = member_keys(&world, "x", ONE);
        let mut frames = Vec::new();
        for other in ["o", "m"] {
            // Signed as that member would sign.
            let key = keys.sender(&[0x77; 16], other);
            let words = Words { key: Some(&key), ..Words::of(other, "ch", epoch) };
            frames.extend(words.every_kind(&world));
            frames.extend(Words::of(other, "open", 0).every_kind(&world));
        }
        frames.extend(words_of_others(&world));
        frames.extend(["open", "ch"].iter().flat_map(|channel| owners_demands(channel)));
        frames.extend(["open", "ch"].map(claim));
        let told = |world: &World| ["o", "m"].map(|name| world.told(name).len());
        let before = told(&world);
        for frame in &frames {
            if !is_ready(&world, "x") {
                let _ = world.at("x").connects();
                world.run_for(MOMENT);
                let _ = world.at("x").opens("open").joins("ch", ONE).listens("ch", None);
            }
            world.says("x", frame);
            world.run_for(MOMENT);
        }
        assert_eq!(told(&world), before, "nobody is told anything");
        all_is_well(&mut world);
    }
}

/// Who attacks what is under way between others: in which world, and with which keys.
type Attacker = fn() -> (World, Option<ChannelKeys>);

fn a_stranger() -> (World, Option<ChannelKeys>) {
    (world(1, true), None)
}

fn a_member() -> (World, Option<ChannelKeys>) {
    let world = world_with_a_member(1);
    let (keys, _) = member_keys(&world, "x", ONE);
    (world, Some(keys))
}

/// With the keys of before.
fn a_former_member() -> (World, Option<ChannelKeys>) {
    let world = world_after_a_rotation(1);
    let (keys, _) = member_keys(&world, "x", ONE);
    (world, Some(keys))
}

#[test]
pub(crate) fn a3_a_stranger_answers_no_call_of_others_and_gives_and_ends_no_stream() {
    answers_nothing(a_stranger);
    gives_nothing(a_stranger);
}

#[test]
pub(crate) fn a4_nobody_answers_a_call_but_who_was_called() {
    answers_nothing(a_member);
}

#[test]
pub(crate) fn a4_nobody_gives_or_ends_a_stream_but_its_two_ends() {
    gives_nothing(a_member);
}

#[test]
pub(crate) fn a5_a_former_member_answers_no_call_and_gives_and_ends_no_stream() {
    answers_nothing(a_former_member);
    gives_nothing(a_former_member);
}

/// Somebody sees a call, signs an answer to it as well as it can and says that on every route that may be the call's.
fn answers_nothing(attacker: Attacker) {
    for channel in ["open", "ch"] {
        let (mut world, keys) = attacker();
        world.serves("o", |_| Reply::text("yes").after(SOON / 2));
        let call = world.at("m").calls(channel, "ev", "is it?", SOON);
        world.run_for(MOMENT);
        let said = world.rogue_called("m").said().last().unwrap().clone();
        let (route, message) = (Hop::split(parts(&said).1).unwrap().0.route, Hop::split(parts(&said).1).unwrap().1);
        let Message { header, protected, tag, .. } = Message::parse(message).unwrap();
        let reference = message_ref(protected, tag);
        let asked = world.rogue_called("o").heard().last().unwrap().clone();
        let handed_on = Hop::split(parts(&asked).1).unwrap().0.route;
        for sender in ["x", "o"] {
            let key = keys.as_ref().map(|keys| keys.sender(&[0x77; 16], sender));
            for route in [1, 2, route, handed_on] {
                let words = Words {
                    key: key.as_ref(),
                    request: header.request,
                    route,
                    ..Words::of(sender, channel, header.epoch)
                };
                for kind in [Kind::Answer, Kind::Fault] {
                    if !is_ready(&world, "x") {
                        let _ = world.at("x").connects();
                        world.run_for(MOMENT / 50);
                    }
                    world.says("x", &words.frame(&world, kind, &reference, "no"));
                    world.run_for(MOMENT / 50);
                }
            }
        }
        assert_eq!(&world.answer(call).unwrap().payload.bytes[..], b"yes", "{channel}");
    }
}

/// Somebody sees that somebody asks for a stream, and says pieces of it, its end, a fault and that it is given up, as either
/// end and signed as either end, on every route that may be the stream's.
fn gives_nothing(attacker: Attacker) {
    for channel in ["open", "ch"] {
        let (mut world, keys) = attacker();
        world.feeds("o", |_| Feed::of(["one"]).endless());
        let _ = world.at("o").provides_exchanges(channel, "both");
        let stream = world.at("m").exchanges(channel, "both", "", SOON, Feed::of(["up"]).endless());
        world.run_for(MOMENT);
        assert_eq!(counted(&world, stream), ["one"]);
        let calls = |frame: &&Bytes| parts(frame).0 == FrameType::Call;
        let said = world.rogue_called("m").said().iter().rfind(calls).unwrap().clone();
        let asked = world.rogue_called("o").heard().iter().rfind(calls).unwrap().clone();
        let (hop, message) = Hop::split(parts(&said).1).unwrap();
        let handed_on = Hop::split(parts(&asked).1).unwrap().0.route;
        let Message { header, protected, tag, .. } = Message::parse(message).unwrap();
        let reference = message_ref(protected, tag);
        let told = |world: &World| ["o", "m"].map(|name| world.told(name).len());
        let before = told(&world);
        let pieces = [(Kind::Item, false), (Kind::Item, true), (Kind::End, false), (Kind::End, true)];
        let kinds = pieces.into_iter().chain([(Kind::Fault, false), (Kind::Cancel, false)]);
        for sender in ["x", "o", "m"] {
            let key = keys.as_ref().map(|keys| keys.sender(&[0x77; 16], sender));
            for route in [1, 2, hop.route, handed_on] {
                for (kind, as_caller) in kinds.clone() {
                    let (key, request, event, index) = (key.as_ref(), header.request, "both", 1);
                    let of = Words::of(sender, channel, header.epoch);
                    let words = Words { key, request, route, event, index, as_caller, ..of };
                    if !is_ready(&world, "x") {
                        let _ = world.at("x").connects();
                        world.run_for(MOMENT / 50);
                    }
                    world.says("x", &words.frame(&world, kind, &reference, "two"));
                    world.run_for(MOMENT / 50);
                }
            }
        }
        assert_eq!(told(&world), before, "nobody is told anything");
        let _ = world.at("m").cancels(stream);
        let cancelled = CallFailure::Failed { failure: Failure::Local(Misuse::Cancelled), maybe_executed: true };
        assert_eq!(world.end_of(stream), Err(cancelled));
        world.run_for(MOMENT);
        assert!(matches!(world.told("o").last(), Some(Event::RequestEnded { .. })), "its provider is told");
    }
}

/// The owner is gone and its channel is kept: a member says that it is the owner.
#[test]
pub(crate) fn a4_nobody_comes_back_to_a_channel_but_its_owner() {
    let mut world = world_with_a_member(1);
    let _ = world.at("o").is_cut();
    world.run_for(MOMENT);
    let _ = world.at("x").joins("ch", ONE);
    world.run_for(MOMENT);
    let known = world.hub_told("h").len();
    let (channel, proof) = (name("ch"), &[0x5a; 32]);
    for (stored, n) in [(1, 1), (1, 2), (0, 3)] {
        world.says("x", &control(&Reclaim { id: 1 << 40, channel, stored, n, proof }));
        world.run_for(MOMENT);
    }
    let told = &world.hub_told("h")[known..];
    assert!(told.iter().all(|event| !matches!(event, hub::Event::OwnerChanged { .. })), "{told:?}");
}

#[test]
fn a4_a_member_may_sign_and_reads_what_is_said() {
    let mut world = world_with_a_member(1);
    let said = world.at("x").broadcasts("ch", "news", "I may");
    assert_eq!(world.done(said), Ok(()));
    world.run_for(MOMENT);
    assert!(heard(&world, "m", "x", "I may") && heard(&world, "x", "o", "it is as it was"));
}

/// On a channel without a password nothing tells an owner's answer from that of whoever provides the event.
#[test]
fn a4_on_an_open_channel_whoever_provides_answers_as_it_likes() {
    let mut world = world_with_a_member(1);
    let _ = world.at("x").provides("open", "price");
    world.serves("x", |_| Reply::text("as I like"));
    let call = world.at("m").calls("open", "price", "?", SOON);
    assert_eq!(&world.answer(call).unwrap().payload.bytes[..], b"as I like");
}

/// A hub that forwards under another's name what a member has signed under it.
#[test]
fn a4_a6_a_member_and_a_bad_hub_together_speak_for_another() {
    let mut world = behind_a_bad_hub(Malice::none());
    let (keys, epoch) = member_keys(&world, "x", ONE);
    let words = "the owner never said this";
    let frame = signed_by("o", &keys.sender(&[0x77; 16], "o"), epoch).frame(&world, Kind::Broadcast, &[0; 32], words);
    gives(&mut world, "m", &frame);
    assert!(heard(&world, "m", "o", words), "{:?}", world.told("m").last());
}

/// `x` was a member until the owner changed the password.
fn world_after_a_rotation(seed: u64) -> World {
    let mut world = world_with_a_member(seed);
    rotate(&mut world);
    let left = world.at("x").leaves("open");
    assert_eq!(world.done(left), Ok(()));
    world
}

fn rotate(world: &mut World) {
    let _ = world.at("o").protects("ch", TWO);
    world.run_for(MOMENT);
    let _ = world.at("m").joins("ch", TWO).listens("ch", None).provides("ch", "mine");
    world.run_for(MOMENT);
}

#[test]
pub(crate) fn a5_after_a_rotation_a_former_member_neither_speaks_nor_hears_nor_owns() {
    for seed in 0..4 {
        let mut world = world_after_a_rotation(seed);
        let heard_before = world.rogue_called("x").heard().len();
        let mut frames = with_the_old_key(&world);
        frames.extend(words_of_others(&world));
        frames.extend(demands("ch"));
        frames.push(claim("ch"));
        unnoticed(&mut world, |world| says_all(world, "x", &frames));
        if !is_ready(&world, "x") {
            let _ = world.at("x").connects();
            world.run_for(MOMENT);
        }
        let joining = world.at("x").tries_to_join("ch", ONE);
        assert_eq!(world.done(joining), Err(Failure::Refused(Refusal::PasswordWrong)));
        all_is_well(&mut world);
        let heard = world.rogue_called("x").heard()[heard_before..].concat();
        assert!(!heard.windows(15).any(|window| window == b"it is as it was"));
        let joining = world.at("x").tries_to_join("ch", TWO);
        assert_eq!(world.done(joining), Ok(()), "nothing else is in its way than the password");
    }
}

/// Everything that a former member can sign: with the key it had, said to be of then or of now.
fn with_the_old_key(world: &World) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let (keys, epoch) = member_keys(world, "x", ONE);
    for sender in ["x", "o", "m"] {
        let key = keys.sender(&[0x77; 16], sender);
        for epoch in [epoch, epoch + 1, 0] {
            frames.extend(Words { key: Some(&key), ..Words::of(sender, "ch", epoch) }.every_kind(world));
        }
    }
    frames
}

/// Even if the hub helps: a member that was told of the new password takes nothing under the old one.
#[test]
pub(crate) fn a5_a_member_that_was_told_takes_nothing_of_a_former_one_from_any_hub() {
    let mut world = behind_a_bad_hub(Malice::none());
    all_is_well(&mut world);
    rotate(&mut world);
    let mut frames = with_the_old_key(&world);
    let recorded = ["o", "m", "x"].map(|who| world.rogue_called(who).heard().to_vec()).concat();
    let is_message = |frame: &&Bytes| {
        let (kind, body) = parts(frame);
        // An ended exchange's or an unsigned one's proves nothing.
        let signed =
            |body| Hop::split(body).is_ok_and(|(_, message)| Message::parse(message).unwrap().header.epoch > 0);
        kind.message_kind().is_some() && signed(body)
    };
    frames.extend(recorded.iter().filter(is_message).map(|frame| frame.to_vec()));
    let before = world.told("m").len();
    for frame in &frames {
        gives(&mut world, "m", frame);
    }
    let told = &world.told("m")[before..];
    assert!(told.iter().all(|event| matches!(event, Event::Dropped(_))), "{told:?}");
    assert!(told.len() >= frames.len() / 2 && dropped(&world, "m", Dropped::WrongEpoch));
}

/// The owner is told that the password has changed, and nobody else is.
#[test]
fn a5_a6_a_member_that_its_hub_does_not_tell_believes_the_old_key() {
    let mut world = behind_a_bad_hub(Malice::always(Trick::HideRotation));
    let _ = world.at("o").protects("ch", TWO);
    let (keys, epoch) = member_keys(&world, "x", ONE);
    let words = "nobody who knows the new password said this";
    let frame = signed_by("o", &keys.sender(&[0x77; 16], "o"), epoch).frame(&world, Kind::Broadcast, &[0; 32], words);
    gives(&mut world, "m", &frame);
    assert!(heard(&world, "m", "o", words), "{:?}", world.told("m").last());
}

/// All are members; the hub begins to misbehave when they are.
fn behind_a_bad_hub(malice: Malice) -> World {
    let world = World::seeded(1).weather(untagged()).malicious_hub("h", Malice::none(), OwnerPolicy::Terminate);
    let world = world.rogue("o", "o", true).rogue("m", "m", true).rogue("x", "x", true).connected();
    let mut world = settled(world);
    let _ = world.at("x").joins("ch", ONE);
    world.turns("h", malice);
    world
}

fn signed_by<'a>(sender: &'a str, key: &'a SenderKey, epoch: u64) -> Words<'a> {
    Words { key: Some(key), ..Words::of(sender, "ch", epoch) }
}

/// Lets the hub give somebody a frame, whatever oracles say of what comes of it.
fn gives(world: &mut World, to: &str, frame: &[u8]) {
    let (kind, _) = parts(frame);
    let mut frame = frame.to_vec();
    if kind == FrameType::Call {
        // A call needs a route of the hub's.
        let route = 0xbf00_0000 + u32::try_from(world.told(to).len()).unwrap();
        frame[5..9].copy_from_slice(&route.to_be_bytes());
    }
    world.injects("h", to, &frame);
    let end = world.now() + MOMENT;
    while world.engine().next_at().is_some_and(|at| at <= end) {
        world.step();
    }
    world.engine().advance(end);
}
