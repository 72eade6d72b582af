//! A1 and A8, who are on the path of connections, and A2, who knows no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use commipc_protocol::auth::{ConnectionKeys, OwnerTranscript, OwnerVerifier, Secret, TranscriptHash};
use commipc_protocol::client::{Command, Event};
use commipc_protocol::wire::{Control as _, FrameType, Open, Reclaim, TAG_LEN, Terminate, Unprotect};
use commipc_protocol::{ChannelName, CloseReason, Name, OwnerPolicy, Violation, hub};
use commipc_sim::{Assault, Feed, Malice, NodeId, Reply, Tampering, Trick, Weather, World};
use sha2::{Digest as _, Sha256};

use crate::scene::{MOMENT, ONE, Words, claim, control, demands, is_ready, parts, refused_login, unnoticed, world};

/// The proof at the end of an owner's request: key, type and length, then its bytes.
const PROOF_LEN: usize = 35;
const SECOND: Duration = Duration::from_secs(1);
const TCP: [u64; 3] = [0, 1, 0];
const MEMORY: [u64; 3] = [0, 0, 1];

/// Whoever knows no secret says everything that can be said, before and instead of the proof.
#[test]
pub(crate) fn a2_whoever_knows_no_secret_changes_nothing_and_hears_nothing() {
    for seed in 0..4 {
        let mut world = world(seed, false);
        let heard_before = world.rogue_called("x").heard().len();
        let others = ["o", "m"].map(|other| world.rogue_called(other).said().to_vec()).concat();
        let mut frames: Vec<Vec<u8>> = others.iter().map(|frame| frame.to_vec()).collect();
        for sender in ["x", "o", "m"] {
            frames.extend(
                [("open", 0), ("ch", 1)]
                    .iter()
                    .flat_map(|(channel, epoch)| Words::of(sender, channel, *epoch).every_kind(&world)),
            );
        }
        frames.extend(["open", "ch", "free"].iter().flat_map(|channel| demands(channel)));
        frames.extend(["ch", "free"].map(claim));
        world.mutes("x", FrameType::Proof);
        let census = world.census(world.hubs()[0]);
        unnoticed(&mut world, |world| {
            for frame in &frames {
                let _ = world.at("x").connects();
                world.run_for(MOMENT);
                world.says("x", frame);
                world.run_for(6 * SECOND);
            }
        });
        assert_eq!(world.census(world.hubs()[0]), census, "nothing is left of it");
        assert!(!is_ready(&world, "x"));
        let heard = &world.rogue_called("x").heard()[heard_before..];
        let told: BTreeSet<FrameType> = heard.iter().map(|frame| parts(frame).0).collect();
        let refusals = [FrameType::Challenge, FrameType::AuthFailed];
        assert!(told.iter().all(|kind| refusals.contains(kind)), "{told:?}");
    }
}

/// It repeats another's login: the greeting to the byte, and then the proof.
#[test]
pub(crate) fn a2_anothers_login_opens_nothing_when_it_is_repeated() {
    let mut world = world(1, false);
    let said = world.rogue_called("o").said();
    let (hello, proof) = (said[0].to_vec(), said[1].to_vec());
    assert_eq!(parts(&proof).0, FrameType::Proof);
    world.mutes("x", FrameType::Hello);
    unnoticed(&mut world, |world| {
        let _ = world.at("x").connects();
        world.run_for(MOMENT);
        world.says("x", &hello);
        world.run_for(MOMENT);
        world.says("x", &proof);
        world.run_for(MOMENT);
    });
    assert!(matches!(world.hub_told("h").last(), Some(hub::Event::Rejected { .. })));
}

/// It listens where a hub is expected, and welcomes everybody.
#[test]
pub(crate) fn a2_whoever_knows_no_secret_is_nobodys_hub() {
    for seed in 0..50 {
        let world = World::seeded(seed).malicious_hub("h", Malice::always(Trick::Admit), OwnerPolicy::Terminate);
        let mut world = world.client_with("c", "c", commipc_protocol::Limits::default(), false);
        for _ in 0..5 {
            let _ = world.at("c").connects();
            world.run_for(6 * SECOND);
        }
        let told = world.told("c");
        assert!(told.iter().all(|event| !matches!(event, Event::Ready(_))), "{told:?}");
        // A tag would have to be made with the secret, too.
        let unproved = [Violation::BadServerProof, Violation::BadRecordTag].map(CloseReason::Violation);
        let closed = |event: &Event| matches!(event, Event::Closed(why) if unproved.contains(why));
        assert!(told.iter().any(closed), "{told:?}");
        assert!(world.mallory(world.hubs()[0]).unwrap().played().contains_key(Trick::Admit.name()));
    }
}

/// Applications that go on whatever happens to their connections.
struct Talk {
    rounds: BTreeMap<NodeId, u32>,
}

impl Talk {
    /// Everybody talks for half a minute over connections with somebody on their path; nobody judges yet.
    fn among(seed: u64, transports: [u64; 3], assault: Assault) -> World {
        let weather = Weather { transports, assault: Some(assault), ..Weather::fair() };
        let mut world = World::seeded(seed).weather(weather).hub("h").client("o").client("m").client("n");
        world.serves("o", |_| Reply::text("an answer that is long enough"));
        world.feeds("o", |request| Feed::of((0..4).map(|number| format!("item {number} of {:?}", request.id))));
        let mut talk = Self { rounds: BTreeMap::new() };
        for _ in 0..60 {
            for name in ["o", "m", "n"] {
                talk.goes_on(&mut world, name);
            }
            passes(&mut world, SECOND / 2);
        }
        world
    }

    fn goes_on(&mut self, world: &mut World, name: &str) {
        let node = world.at(name).id();
        let round = self.rounds.entry(node).or_default();
        if !is_ready(world, name) {
            *round = 0;
            let _ = world.at(name).connects();
            return;
        }
        *round += 1;
        match *round {
            1 => {
                world.at(name).tries_to_open("open");
                if name == "o" {
                    world.at(name).tries_to_open("ch")
                } else {
                    world.at(name).tries_to_join("ch", ONE)
                };
            }
            2 if name == "o" => {
                world.at(name).tries_to_protect("ch", ONE);
                world.at(name).tries_to_provide("open", "ev");
                world.at(name).tries_to_provide_streams("open", "count");
            }
            3 => {
                world.at(name).tries_to_provide("ch", "ev");
                world.at(name).tries_to_provide_streams("ch", "count");
                for channel in ["open", "ch"] {
                    world.at(name).tries_to_listen(channel, None);
                }
            }
            _ => {
                for channel in ["open", "ch"] {
                    let text = format!("{name} says this as number {round} on {channel}");
                    world.at(name).broadcasts(channel, "news", &text);
                    world.at(name).calls(channel, "ev", &text, 2 * SECOND);
                    world.at(name).sends(channel, "ev", &text);
                    world.at(name).streams(channel, "count", &text, 2 * SECOND);
                }
            }
        }
    }
}

/// Lets so much time pass, and nobody complain.
fn passes(world: &mut World, time: Duration) {
    let end = world.now() + time;
    while world.engine().next_at().is_some_and(|at| at <= end) {
        world.step();
    }
    world.engine().advance(end);
}

fn only(what: Tampering, often: u64) -> Assault {
    Tampering::ALL.map(|other| if other == what { often } else { 0 })
}

#[test]
pub(crate) fn a1_a8_nobody_on_the_path_of_a_connection_is_believed() {
    for what in Tampering::ALL {
        let (mut heard, mut played) = (0, 0);
        for seed in 0..12 {
            let mut world = Talk::among(seed, TCP, only(what, 25));
            assert_eq!(world.failures(), [], "{what:?}, seed {seed}");
            heard += ["o", "m", "n"].map(|name| world.heard(name).len()).iter().sum::<usize>();
            played += world.engine().attacker().played().values().sum::<u64>();
        }
        assert!(heard > 200 && played > 20, "{what:?}: {heard} heard, {played} played");
    }
}

/// The same attack where frames carry no tags: what keeps it off is the tags.
#[test]
fn where_frames_are_not_tagged_somebody_on_the_path_is_believed() {
    for what in [Tampering::Flip, Tampering::Duplicate, Tampering::Replay, Tampering::Splice] {
        let fooled = (0..40).filter(|seed| !Talk::among(*seed, MEMORY, only(what, 25)).failures().is_empty()).count();
        assert!(fooled > 0, "{what:?} fools nobody, so that it fails elsewhere proves nothing");
    }
}

#[test]
pub(crate) fn a1_a8_what_is_taken_out_of_a_connection_ends_it() {
    let weather = Weather { transports: TCP, assault: Some(Assault::default()), ..Weather::fair() };
    let mut world = World::seeded(1).weather(weather).hub("h").client("o").client("m").connected();
    let _ = world.at("o").opens("ch").protects("ch", ONE);
    let _ = world.at("m").joins("ch", ONE).listens("ch", None);
    for (text, taken) in [("one", false), ("two", true), ("three", false)] {
        let said = world.at("o").broadcasts("ch", "news", text);
        // The hub has it; what is on its way to the listener can be taken.
        assert_eq!(world.done(said), Ok(()));
        if taken {
            world.engine().weather().assault = Some(only(Tampering::Drop, 1_000));
        }
        world.run_for(MOMENT);
        world.engine().weather().assault = Some(Assault::default());
    }
    let told = world.told("m");
    assert_eq!(world.heard("m").len(), 1, "{told:?}");
    assert!(told.iter().any(|event| matches!(event, Event::Violation(Violation::BadRecordTag))), "{told:?}");
}

/// With the beacons goes every hint of what is missing.
#[test]
fn a8_a_network_that_lets_nothing_through_hides_what_it_likes() {
    let weather = Weather { transports: TCP, assault: Some(Assault::default()), ..Weather::fair() };
    let mut world = World::seeded(1).weather(weather).hub("h").client("o").client("m").connected();
    let _ = world.at("o").opens("ch").protects("ch", ONE);
    let _ = world.at("m").joins("ch", ONE).listens("ch", None);
    let said = world.at("o").broadcasts("ch", "news", "one");
    assert_eq!(world.done(said), Ok(()));
    world.run_for(MOMENT);
    world.engine().weather().assault = Some(only(Tampering::Drop, 1_000));
    world.at("o").broadcasts("ch", "news", "two");
    world.run_for(60 * SECOND);
    assert_eq!(world.heard("m").len(), 1);
    assert!(world.told("m").iter().all(|event| !matches!(event, Event::Gap(_))));
}

#[test]
fn a8_without_tls_the_network_reads_along() {
    let weather = Weather { transports: TCP, assault: Some(Assault::default()), ..Weather::fair() };
    let mut world = World::seeded(1).weather(weather).hub("h").client("o").client("m").connected();
    let _ = world.at("o").opens("ch").protects("ch", ONE);
    let _ = world.at("m").joins("ch", ONE).listens("ch", None);
    let said = world.at("o").broadcasts("ch", "news", "for members only");
    assert_eq!(world.done(said), Ok(()));
    let reads = |frame: &bytes::Bytes| frame.windows(16).any(|window| window == b"for members only");
    assert!(world.engine().attacker().overheard().any(reads));
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let padded = |with: u8| std::array::from_fn::<u8, 64, _>(|at| key.get(at).copied().unwrap_or(0) ^ with);
    let inner = parts.iter().fold(Sha256::new().chain_update(padded(0x36)), |hash, part| hash.chain_update(part));
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner.finalize()).finalize().into()
}

/// What turns an owner's key into a proof, and a proof into the key.
fn turned(verifier: &[u8; 32], owned: &OwnerTranscript, what: [u8; 32]) -> [u8; 32] {
    let mask = hmac(verifier, &[b"commipc/1 owner proof\0", owned.as_bytes()]);
    std::array::from_fn(|at| what[at] ^ mask[at])
}

/// Of whoever has it: what its link began with.
fn transcript_of(world: &World, name: &str) -> TranscriptHash {
    let rogue = world.rogue_called(name);
    TranscriptHash::connection(&rogue.said()[0], &rogue.heard()[0], &[])
}

/// Takes a channel from its owner by one of its proofs, and by its verifier or a guess.
fn take_over(knows_the_verifier: bool) -> World {
    let mut world = world(1, true);
    let _ = world.at("o").protects("open", ONE);
    let (node, token) = (world.at("o").id(), world.token());
    world.ask(node, Command::Unprotect { token, channel: ChannelName::new("open").unwrap() });
    world.run_for(MOMENT);
    let said = world.rogue_called("o").said();
    let bodies = |kind: FrameType| said.iter().map(|frame| parts(frame)).filter(move |it| it.0 == kind);
    let opened =
        bodies(FrameType::Open).map(|it| Open::parse(it.1).unwrap()).find(|open| open.channel.as_str() == "open");
    let verifier = if knows_the_verifier { *opened.unwrap().owner.unwrap() } else { [0x5a; 32] };
    let asked = bodies(FrameType::Unprotect).last().unwrap().1;
    let Unprotect { stored, n, proof, .. } = Unprotect::parse(asked).unwrap();
    let owned = OwnerTranscript::new(&transcript_of(&world, "o"), "open", stored, n, &asked[..asked.len() - PROOF_LEN]);
    let key = turned(&verifier, &owned, *proof);
    let entered = world.at("x").tries_to_open("open");
    assert_eq!(world.done(entered), Ok(()));
    let (channel, stored) = (Name::new("open").unwrap(), stored + 1);
    let reclaim = |proof: &[u8; 32]| control(&Reclaim { id: 1 << 20, channel, stored, n: 1, proof });
    let terminate = |proof: &[u8; 32]| control(&Terminate { id: 1 << 21, channel, stored, n: 2, proof });
    let request = |n, proof: &[u8; 32]| if n == 1 { reclaim(proof) } else { terminate(proof) };
    for n in [1, 2] {
        let unproved = request(n, &[0; 32]);
        let body = parts(&unproved).1;
        let body = &body[..body.len() - PROOF_LEN];
        let owned = OwnerTranscript::new(&transcript_of(&world, "x"), "open", stored, n, body);
        world.says("x", &request(n, &turned(&verifier, &owned, key)));
        world.run_for(MOMENT);
    }
    world
}

/// The judge of this simulator does not expect it.
#[test]
#[should_panic(expected = "x became the owner of open without a reason")]
fn a8_whoever_has_an_owners_verifier_and_one_of_its_proofs_owns_the_channel() {
    let _ = take_over(true);
}

#[test]
fn whoever_has_an_owners_proof_and_no_verifier_owns_nothing() {
    let world = take_over(false);
    let owns =
        |event: &hub::Event| matches!(event, hub::Event::OwnerChanged { owner: Some(owner), .. } if &**owner == "x");
    assert!(!world.hub_told("h").iter().any(owns));
}

/// Who listens on the network and knows the shared secret takes the mask off an owner's verifier; with that and one
/// proof of the owner's it makes others. Who does not know the secret cannot.
#[test]
fn a8_whoever_shares_the_secret_unmasks_what_owners_are_known_by() {
    let weather = Weather { transports: TCP, assault: Some(Assault::default()), ..Weather::fair() };
    let mut world = World::seeded(1).weather(weather).hub("h").client("o").connected();
    let _ = world.at("o").opens("ch").protects("ch", ONE);
    let unprotect = |token| Command::Unprotect { token, channel: ChannelName::new("ch").unwrap() };
    let (node, token) = (world.at("o").id(), world.token());
    world.ask(node, unprotect(token));
    world.run_for(MOMENT);
    let frames: Vec<_> = world.engine().attacker().overheard().cloned().collect();
    let of = |wanted: FrameType| frames.iter().position(|frame| parts(frame).0 == wanted).unwrap();
    let transcript = TranscriptHash::connection(&frames[of(FrameType::Hello)], &frames[of(FrameType::Challenge)], &[]);
    let (open, unprotect) = (parts(&frames[of(FrameType::Open)]).1, parts(&frames[of(FrameType::Unprotect)]).1);
    let masked = *Open::parse(&open[..open.len() - TAG_LEN]).unwrap().owner.unwrap();
    let asked = &unprotect[..unprotect.len() - TAG_LEN];
    let Unprotect { stored, n, proof, .. } = Unprotect::parse(asked).unwrap();
    let without_proof = &asked[..asked.len() - PROOF_LEN];
    let owned = OwnerTranscript::new(&transcript, "ch", stored, n, without_proof);
    let verifies = |verifier: [u8; 32]| OwnerVerifier::from_bytes(verifier).verify(&owned, proof);
    let unmasked = |secret: [u8; 32]| {
        let keys = ConnectionKeys::new(&Secret::key(secret).derive(&[9; 16], 0).unwrap()).record_keys(&transcript);
        let mask = keys.mask.mask(0);
        let mut verifier = masked;
        verifier.iter_mut().zip(mask.iter()).for_each(|(byte, mask)| *byte ^= mask);
        verifier
    };
    assert!(verifies(unmasked([0; 32])), "the secret of this world's hub");
    assert!(!verifies(unmasked([1; 32])) && !verifies(masked));
}

/// Of the many things that a stranger may try, guesses of ids are one: who is there is told to nobody.
#[test]
fn a2_a_wrong_secret_is_refused_alike_whoever_is_asked_for() {
    let mut told = BTreeSet::new();
    for id in ["o", "nobody"] {
        let world = World::seeded(3).hub("h").client("o").rogue("x", id, false).connected();
        told.insert(format!("{:?}", refused_login(&world, "x")));
    }
    assert_eq!(told.len(), 1, "{told:?}");
}
