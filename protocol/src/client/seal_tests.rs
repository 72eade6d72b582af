//! The seal against members and hubs that do not keep to the rules.

use alloc::format;

use bytes::BytesMut;

use super::numbers::Heard;
use super::seal::{Past, Rejected, Seal};
use crate::auth::{ChannelKeys, ChannelMaster, Secret, SenderKey};
use crate::hash::Keyed;
use crate::names::{ClientId, Name};
use crate::seed::{Purpose, Seed};
use crate::time::UnixMillis;
use crate::wire::{Flags, Header, Kind, Message, Target};

pub(super) const EPOCH: u64 = 3;
/// When everything happens, unless a test says otherwise.
pub(super) const NOW: u64 = 1_800_000_000_000;
const OWN: [u8; 16] = [0xee; 16];
const TIMED: [Kind; 2] = [Kind::Send, Kind::Call];
pub(super) const NUMBERED: [Kind; 3] = [Kind::Broadcast, Kind::Send, Kind::Call];
pub(super) const OF_A_CALL: [Kind; 5] = [Kind::Answer, Kind::Fault, Kind::Item, Kind::End, Kind::Cancel];

pub(super) fn keys(secret: u8, channel: &str, epoch: u64) -> ChannelKeys {
    let salted = Secret::key([secret; 32]).derive(&[1; 16], 0).unwrap();
    ChannelMaster::new(&salted).unwrap().keys(channel, &[1; 16], epoch)
}

pub(super) fn seal() -> Seal {
    let hash = Keyed::new(&mut Seed::new([9; 32]).stream(Purpose::HashKeys));
    Seal::new(EPOCH, keys(1, "ch", EPOCH), (&ClientId::new("me").unwrap(), &OWN), hash)
}

pub(super) fn name(text: &str) -> Name<'_> {
    Name::new(text).unwrap()
}

/// A message of alice's, sent now and for one second.
pub(super) fn header(kind: Kind, instance: &[u8; 16], seq: u64) -> Header<'_> {
    let numbered = matches!(kind, Kind::Broadcast | Kind::Beacon);
    let of_a_call = OF_A_CALL.contains(&kind);
    Header {
        kind,
        flags: Flags::NONE,
        channel: name("ch"),
        event: name("ev"),
        epoch: EPOCH,
        sender: name("alice"),
        origin: name("hub"),
        instance,
        seq,
        bseq: if numbered { seq } else { 0 },
        sent_at: NOW,
        time_left: 1_000,
        request: u64::from(of_a_call || kind == Kind::Call),
        reference: if of_a_call { &[5; 32] } else { &[] },
        index: 0,
        target: if of_a_call { Target::new(name("me"), name("hub")) } else { Target::NONE },
        metadata: &[],
    }
}

/// What a member who has these keys can sign, in its own name or in another's.
pub(super) fn key_of(header: &Header<'_>) -> SenderKey {
    keys(1, "ch", EPOCH).sender(header.instance, header.sender.as_str())
}

/// Feeds a message as it would come from the wire.
pub(super) fn feed(seal: &mut Seal, header: &Header<'_>, key: &SenderKey, wall: u64) -> Result<(), Rejected> {
    let mut protected = BytesMut::new();
    header.encode(&mut protected);
    let tag = key.tag(&protected, b"payload");
    feed_parts(seal, &protected, b"payload", &tag, wall)
}

fn feed_parts(seal: &mut Seal, protected: &[u8], payload: &[u8], tag: &[u8], wall: u64) -> Result<(), Rejected> {
    let header = Header::parse(protected).unwrap();
    seal.accept(&Message { header, protected, payload, tag }, UnixMillis(wall))
}

fn accept(seal: &mut Seal, header: &Header<'_>) -> Result<(), Rejected> {
    feed(seal, header, &key_of(header), NOW)
}

fn at(header: Header<'_>, sent_at: u64) -> Header<'_> {
    Header { sent_at, ..header }
}

#[test]
fn v1_only_the_senders_own_key_of_this_channel_and_epoch_signs() {
    let mut seal = seal();
    let a = [1; 16];
    let message = header(Kind::Call, &a, 1);
    for other in [
        keys(2, "ch", EPOCH).sender(&a, "alice"),
        keys(1, "hc", EPOCH).sender(&a, "alice"),
        keys(1, "ch", EPOCH + 1).sender(&a, "alice"),
        keys(1, "ch", EPOCH).sender(&a, "bob"),
        keys(1, "ch", EPOCH).sender(&OWN, "alice"),
        SenderKey::new([0; 32]),
    ] {
        assert_eq!(feed(&mut seal, &message, &other, NOW), Err(Rejected::Signature));
    }
    assert_eq!(accept(&mut seal, &message), Ok(()));
    for epoch in [EPOCH - 1, EPOCH + 1] {
        let message = Header { epoch, ..header(Kind::Call, &a, 2) };
        assert_eq!(accept(&mut seal, &message), Err(Rejected::Epoch));
    }
    for (sender, origin) in [("system", "hub"), ("server", "hub"), ("alice", "system"), ("__comm_ipc", "hub")] {
        let message = Header { sender: name(sender), origin: name(origin), ..header(Kind::Call, &a, 3) };
        assert_eq!(accept(&mut seal, &message), Err(Rejected::Signature), "nobody is {sender} of {origin}");
    }
}

#[test]
fn v1_no_kind_passes_without_its_whole_tag() {
    let mut seal = seal();
    let a = [1; 16];
    for (seq, kind) in (1..).zip(NUMBERED.into_iter().chain(OF_A_CALL).chain([Kind::Beacon])) {
        let mut protected = BytesMut::new();
        header(kind, &a, seq).encode(&mut protected);
        let tag = key_of(&header(kind, &a, seq)).tag(&protected, b"payload");
        for bad in [&[][..], &[0; 32], &tag[..31], &tag[..16], &[&tag[..], &[0]].concat()] {
            assert_eq!(feed_parts(&mut seal, &protected, b"payload", bad, NOW), Err(Rejected::Signature), "{kind:?}");
        }
        assert_eq!(feed_parts(&mut seal, &protected, b"Payload", &tag, NOW), Err(Rejected::Signature), "{kind:?}");
        assert_eq!(feed_parts(&mut seal, &protected, b"payload", &tag, NOW), Ok(()), "{kind:?}");
    }
}

#[test]
fn v3_kind_metadata_and_every_other_field_are_covered() {
    let mut seal = seal();
    let (a, b) = ([1; 16], [2; 16]);
    let call = header(Kind::Call, &a, 5);
    let tag = {
        let mut protected = BytesMut::new();
        call.encode(&mut protected);
        key_of(&call).tag(&protected, b"payload")
    };
    let target = Target::new(name("x"), name("y"));
    let altered = [
        Header { kind: Kind::Send, ..call },
        Header { kind: Kind::Broadcast, bseq: 1, ..call },
        Header { flags: Flags::IDEMPOTENT, ..call },
        Header { channel: name("hc"), ..call },
        Header { event: name("ve"), ..call },
        Header { sender: name("alicia"), ..call },
        Header { origin: name("hub2"), ..call },
        Header { instance: &b, ..call },
        Header { seq: 6, ..call },
        Header { sent_at: NOW + 1, ..call },
        Header { time_left: 999, ..call },
        Header { request: 2, ..call },
        Header { target, ..call },
        Header { metadata: &[0xa0], ..call },
    ];
    for header in altered {
        let mut protected = BytesMut::new();
        header.encode(&mut protected);
        let result = feed_parts(&mut seal, &protected, b"payload", &tag, NOW);
        assert_eq!(result, Err(Rejected::Signature), "{header:?}");
    }
    assert_eq!(accept(&mut seal, &call), Ok(()), "what was refused left nothing behind");
}

#[test]
fn v2_what_has_a_number_is_accepted_once() {
    for kind in NUMBERED {
        let mut seal = seal();
        let a = [1; 16];
        for seq in [5, 3, 4, 1_028] {
            assert_eq!(accept(&mut seal, &header(kind, &a, seq)), Ok(()));
            assert_eq!(accept(&mut seal, &header(kind, &a, seq)), Err(Rejected::Replayed));
        }
        assert_eq!(accept(&mut seal, &header(kind, &a, 4)), Err(Rejected::Replayed), "too far behind to be told");
        assert_eq!(accept(&mut seal, &header(kind, &a, 6)), Ok(()));
        for other in NUMBERED {
            assert_eq!(accept(&mut seal, &header(other, &a, 6)), Err(Rejected::Replayed), "all kinds share a window");
        }
        for (sender, origin, instance) in
            [("bob", "hub", [1; 16]), ("alice", "hub2", [1; 16]), ("alice", "hub", [2; 16])]
        {
            let other = Header { sender: name(sender), origin: name(origin), ..header(kind, &instance, 5) };
            assert_eq!(accept(&mut seal, &other), Ok(()), "{sender} of {origin} has its own");
        }
    }
}

#[test]
fn answers_and_cancels_are_judged_by_what_they_belong_to() {
    let mut seal = seal();
    let a = [1; 16];
    for kind in OF_A_CALL {
        for sent_at in [NOW, 0, u64::MAX] {
            assert_eq!(accept(&mut seal, &at(header(kind, &a, 7), sent_at)), Ok(()));
            assert_eq!(accept(&mut seal, &at(header(kind, &a, 7), sent_at)), Ok(()));
        }
    }
    assert_eq!(accept(&mut seal, &header(Kind::Call, &a, 7)), Ok(()), "they have not touched the window");
}

#[test]
fn v2_requests_are_in_time_or_stale() {
    let early = 120_000;
    let late = 120_000 + 1_000;
    for kind in TIMED {
        let mut seal = seal();
        let a = [1; 16];
        for (seq, known) in [(1, false), (2, true)] {
            let message = header(kind, &a, seq);
            for wall in [NOW - early - 1, NOW + late + 1, 0, u64::MAX] {
                assert_eq!(feed(&mut seal, &message, &key_of(&message), wall), Err(Rejected::Stale), "{known}");
            }
            let wall = if known { NOW + late } else { NOW - early };
            assert_eq!(feed(&mut seal, &message, &key_of(&message), wall), Ok(()));
        }
        let seen = header(kind, &a, 2);
        assert_eq!(feed(&mut seal, &seen, &key_of(&seen), NOW + late + 1), Err(Rejected::Replayed), "not `Stale`");
    }
}

#[test]
fn v2_broadcasts_of_unknown_instances_are_fresh_and_later_ones_need_not_be() {
    let mut seal = seal();
    let a = [1; 16];
    let old = at(header(Kind::Broadcast, &a, 1), NOW - 121_001);
    let early = at(header(Kind::Broadcast, &a, 1), NOW + 120_001);
    assert_eq!(accept(&mut seal, &old), Err(Rejected::Stale));
    assert_eq!(accept(&mut seal, &early), Err(Rejected::Stale));
    assert_eq!(accept(&mut seal, &at(old, NOW - 121_000)), Ok(()));
    for (seq, sent_at) in [(2, 0), (3, NOW - 200_000), (4, u64::MAX)] {
        let message = at(header(Kind::Broadcast, &a, seq), sent_at);
        assert_eq!(accept(&mut seal, &message), Ok(()), "its clock may jump");
    }
}

#[test]
fn v2_beacons_count_within_two_minutes() {
    let mut seal = seal();
    let a = [1; 16];
    for sent_at in [NOW - 120_001, NOW + 120_001, 0, u64::MAX] {
        assert_eq!(accept(&mut seal, &at(header(Kind::Beacon, &a, 9), sent_at)), Err(Rejected::Stale));
    }
    for sent_at in [NOW - 120_000, NOW + 120_000, NOW] {
        assert_eq!(accept(&mut seal, &at(header(Kind::Beacon, &a, 9), sent_at)), Ok(()));
    }
    assert_eq!(accept(&mut seal, &at(header(Kind::Beacon, &a, 9), 0)), Err(Rejected::Stale));
    assert_eq!(accept(&mut seal, &header(Kind::Call, &a, 9)), Ok(()), "a beacon has not touched the window");
}

#[test]
fn a_clients_own_messages_come_back_as_requests_only() {
    let mut seal = seal();
    let own = |kind, seq| Header { sender: name("me"), ..header(kind, &OWN, seq) };
    for kind in [Kind::Broadcast, Kind::Beacon] {
        assert_eq!(accept(&mut seal, &own(kind, 1)), Err(Rejected::Own));
        assert_eq!(accept(&mut seal, &header(kind, &OWN, 1)), Err(Rejected::Own), "under whatever name");
    }
    for (seq, kind) in [(2, Kind::Send), (3, Kind::Call)] {
        assert_eq!(accept(&mut seal, &own(kind, seq)), Ok(()), "it may be for the own provider");
        assert_eq!(accept(&mut seal, &own(kind, seq)), Err(Rejected::Replayed));
    }
    for kind in OF_A_CALL {
        assert_eq!(accept(&mut seal, &own(kind, 4)), Ok(()));
    }
    let forged = own(Kind::Broadcast, 9);
    assert_eq!(feed(&mut seal, &forged, &SenderKey::new([0; 32]), NOW), Err(Rejected::Signature));
}

#[test]
fn a_seal_signs_with_its_own_key() {
    let seal = seal();
    let expected = keys(1, "ch", EPOCH).sender(&OWN, "me").tag(b"protected", b"payload");
    assert_eq!((seal.tag(b"protected", b"payload"), seal.epoch()), (expected, EPOCH));
}

#[test]
fn no_key_is_printed() {
    let mut seal = seal();
    accept(&mut seal, &header(Kind::Call, &[1; 16], 1)).unwrap();
    let printed = format!("{seal:?}");
    for part in ["own: SenderKey(..)", "key: Some(SenderKey(..))", "end_to_end: Key(..)", "join: JoinKeys(..)"] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
}

/// Eight instances after the first, each with one message a second after the one before.
fn crowd_out(seal: &mut Seal, first: &[u8; 16]) {
    accept(seal, &header(Kind::Call, first, 1)).unwrap();
    for (instance, sent_at) in (10..18).zip((NOW + 1_000..).step_by(1_000)) {
        accept(seal, &at(header(Kind::Call, &[instance; 16], 1), sent_at)).unwrap();
    }
}

#[test]
fn v2_an_instance_that_lost_its_place_brings_back_nothing_old() {
    let mut seal = seal();
    let a = [1; 16];
    for seq in 2..20 {
        accept(&mut seal, &at(header(Kind::Call, &a, seq), NOW - seq)).unwrap();
    }
    crowd_out(&mut seal, &a);
    let old = |seal: &mut Seal, seq| accept(seal, &at(header(Kind::Call, &a, seq), NOW - seq));
    for seq in 2..20 {
        assert_eq!(old(&mut seal, seq), Err(Rejected::Replayed), "unknown and at or below the floor");
    }
    assert_eq!(accept(&mut seal, &at(header(Kind::Beacon, &a, 30), NOW)), Err(Rejected::Replayed));
    assert_eq!(accept(&mut seal, &at(header(Kind::Call, &a, 30), NOW + 1)), Ok(()), "later than all that went");
    for seq in 2..20 {
        assert_eq!(old(&mut seal, seq), Err(Rejected::Replayed), "its window is empty now, its floor is not");
    }
    assert_eq!(accept(&mut seal, &at(header(Kind::Beacon, &a, 30), NOW)), Err(Rejected::Replayed));
    assert_eq!(accept(&mut seal, &at(header(Kind::Broadcast, &a, 20), NOW)), Err(Rejected::Replayed));
}

#[test]
fn v2_what_is_bound_to_a_call_pushes_nobody_out_unless_it_is_fresh() {
    let mut seal = seal();
    let (a, lost) = ([1; 16], [10; 16]);
    crowd_out(&mut seal, &a);
    // Back in, so that [10; 16], the oldest now, goes.
    accept(&mut seal, &at(header(Kind::Call, &a, 2), NOW + 50_000)).unwrap();
    for kind in OF_A_CALL {
        assert_eq!(accept(&mut seal, &at(header(kind, &lost, 1), NOW)), Ok(()), "{kind:?}");
    }
    for (instance, sent_at) in (11..18).zip((NOW + 2_000..).step_by(1_000)) {
        let id = [instance; 16];
        let again = at(header(Kind::Call, &id, 1), sent_at);
        assert_eq!(accept(&mut seal, &again), Err(Rejected::Replayed), "{instance} has kept its window");
        let more = at(header(Kind::Call, &id, 2), NOW);
        assert_eq!(accept(&mut seal, &more), Ok(()), "{instance} has kept its place");
    }
}

#[test]
fn a_clock_that_was_wrong_once_shuts_nobody_out() {
    let mut seal = seal();
    let wrong = [1; 16];
    accept(&mut seal, &header(Kind::Broadcast, &wrong, 1)).unwrap();
    accept(&mut seal, &at(header(Kind::Broadcast, &wrong, 2), u64::MAX)).unwrap();
    for instance in 2..100 {
        let id = [instance; 16];
        let message = at(header(Kind::Call, &id, 1), NOW + u64::from(instance));
        assert_eq!(accept(&mut seal, &message), Ok(()), "{instance}");
    }
    assert_eq!(accept(&mut seal, &at(header(Kind::Broadcast, &wrong, 2), u64::MAX)), Err(Rejected::Replayed));
}

/// Fills the table: a thousand and twenty-four clients with one message each.
fn full() -> Seal {
    let mut seal = seal();
    for client in 0..1_024 {
        let sender = format!("client {client}");
        assert_eq!(accept(&mut seal, &Header { sender: name(&sender), ..header(Kind::Call, &[1; 16], 1) }), Ok(()));
    }
    seal
}

#[test]
fn a_full_table_hears_nobody_new_and_pushes_nobody_out() {
    let mut seal = full();
    for kind in NUMBERED.into_iter().chain([Kind::Beacon]) {
        let newcomer = header(kind, &[1; 16], 1);
        let last_moment = NOW + 120_000;
        assert_eq!(accept(&mut seal, &newcomer), Err(Rejected::TooManySenders), "{kind:?}");
        let newcomer = at(newcomer, last_moment);
        let result = feed(&mut seal, &newcomer, &key_of(&newcomer), last_moment);
        assert_eq!(result, Err(Rejected::TooManySenders), "{kind:?}");
    }
    for kind in OF_A_CALL {
        assert_eq!(accept(&mut seal, &header(kind, &[1; 16], 1)), Ok(()), "it needs no place");
    }
    for client in 0..1_024 {
        let sender = format!("client {client}");
        let known = |seq| Header { sender: name(&sender), ..header(Kind::Call, &[1; 16], seq) };
        assert_eq!(accept(&mut seal, &known(1)), Err(Rejected::Replayed));
        assert_eq!(accept(&mut seal, &known(2)), Ok(()));
    }
    let (a, later) = ([1; 16], NOW + 120_001);
    let newcomer = at(header(Kind::Call, &a, 1), later);
    assert_eq!(feed(&mut seal, &newcomer, &key_of(&newcomer), later), Ok(()), "all are silent");
}

#[test]
fn v2_who_is_silent_makes_room_and_is_not_replayed_when_the_clock_goes_back() {
    let mut seal = full();
    let later = NOW + 120_001;
    let lasting = Header { sender: name("client 7"), ..at(header(Kind::Call, &[1; 16], 2), later - 1) };
    accept(&mut seal, &lasting).unwrap();
    for client in 0..1_023 {
        let sender = format!("newcomer {client}");
        let newcomer = Header { sender: name(&sender), ..at(header(Kind::Call, &[1; 16], 1), later - 60_000) };
        assert_eq!(feed(&mut seal, &newcomer, &key_of(&newcomer), later), Ok(()), "{client}");
    }
    let newcomer = at(header(Kind::Call, &[1; 16], 1), later);
    assert_eq!(feed(&mut seal, &newcomer, &key_of(&newcomer), later), Err(Rejected::TooManySenders));
    assert_eq!(feed(&mut seal, &lasting, &key_of(&lasting), later), Err(Rejected::Replayed), "it has kept its place");

    let last = later + 60_001;
    let newcomer = at(header(Kind::Call, &[1; 16], 1), last);
    assert_eq!(feed(&mut seal, &newcomer, &key_of(&newcomer), last), Ok(()));
    for sender in ["client 0", "client 7", "client 1023", "newcomer 0", "somebody else"] {
        let old = Header { sender: name(sender), ..header(Kind::Call, &[1; 16], 1) };
        assert_eq!(accept(&mut seal, &old), Err(Rejected::Replayed), "{sender}");
    }
}

pub(super) fn come_back(left: Seal) -> Seal {
    let past: Past = left.leave();
    seal().after(past)
}

#[test]
fn v2_leaving_and_coming_back_in_the_same_epoch_replays_nothing() {
    let (a, b) = ([1; 16], [2; 16]);
    let mut seal = seal();
    accept(&mut seal, &header(Kind::Call, &a, 1)).unwrap();
    let mut seal = come_back(come_back(seal));
    for kind in NUMBERED {
        assert_eq!(accept(&mut seal, &header(kind, &a, 1)), Err(Rejected::Replayed));
    }
    assert_eq!(accept(&mut seal, &header(Kind::Call, &a, 2)), Ok(()), "in the same millisecond");
    assert_eq!(accept(&mut seal, &header(Kind::Call, &a, 1)), Err(Rejected::Replayed));
    assert_eq!(accept(&mut seal, &header(Kind::Call, &b, 1)), Ok(()));
    let forged = header(Kind::Call, &a, 3);
    assert_eq!(feed(&mut come_back(seal), &forged, &SenderKey::new([0; 32]), NOW), Err(Rejected::Signature));
}

#[test]
fn leaving_erases_the_keys_and_begins_new_numbers() {
    let mut seal = seal();
    let a = [1; 16];
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 4)), all(None));
    assert!(format!("{seal:?}").contains("Key(..)"));
    let left = seal.leave();
    let printed = format!("{left:?}");
    assert!(!printed.contains("Key(..)") && printed.contains("alice"), "no key stays: {printed}");
    let mut seal = self::seal().after(left);
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 9)), all(None));
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 11)), all(Some((10, 10))));
}

#[test]
fn another_epoch_remembers_nothing_of_the_one_before() {
    let mut old = seal();
    accept(&mut old, &header(Kind::Call, &[1; 16], 1)).unwrap();
    let hash = Keyed::new(&mut Seed::new([9; 32]).stream(Purpose::HashKeys));
    let new = Seal::new(EPOCH + 1, keys(1, "ch", EPOCH + 1), (&ClientId::new("me").unwrap(), &OWN), hash);
    let printed = format!("{:?}", new.after(old.leave()));
    assert!(!printed.contains("alice"), "{printed}");
}

fn hear(seal: &mut Seal, header: &Header<'_>) -> Heard {
    accept(seal, header).unwrap();
    seal.heard(header)
}

const fn all(missing: Option<(u64, u64)>) -> Heard {
    Heard::Deliver { missing }
}

#[test]
fn numbers_begin_with_the_first_listener_of_an_event() {
    let mut seal = seal();
    let a = [1; 16];
    let other = |seq| Header { event: name("other"), ..header(Kind::Broadcast, &a, seq) };
    accept(&mut seal, &header(Kind::Broadcast, &a, 1)).unwrap();
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 4)), all(None));
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 7)), all(Some((5, 6))));
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 5)), Heard::Old);
    assert_eq!(hear(&mut seal, &other(10)), all(None));
    assert_eq!(hear(&mut seal, &header(Kind::Beacon, &a, 12)), Heard::Missing(8, 12));
    assert_eq!(hear(&mut seal, &header(Kind::Beacon, &a, 12)), Heard::Nothing);
    assert_eq!(hear(&mut seal, &header(Kind::Call, &a, 13)), Heard::Nothing);

    seal.forget_event(name("ev"));
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 20)), all(None));
    assert_eq!(hear(&mut seal, &other(22)), all(Some((11, 21))));
    seal.keep_events(["ev", "and more"].into_iter());
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 30)), all(Some((21, 29))));
    assert_eq!(hear(&mut seal, &other(32)), all(None));
}

#[test]
fn a_client_whose_hub_came_back_under_another_name_goes_on_with_its_numbers() {
    let mut seal = seal();
    let (a, b) = ([1; 16], [2; 16]);
    let moved = |instance, seq| Header { origin: name("hub2"), ..header(Kind::Broadcast, instance, seq) };
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 4)), all(None));
    assert_eq!(hear(&mut seal, &moved(&a, 7)), all(Some((5, 6))));
    assert_eq!(hear(&mut seal, &moved(&b, 9)), all(None), "another instance counts for itself");

    // A namesake at another hub who takes over instance and numbers gets nowhere with them.
    assert_eq!(hear(&mut seal, &moved(&a, u64::MAX)), all(Some((8, u64::MAX - 1))));
    assert_eq!(hear(&mut seal, &header(Kind::Broadcast, &a, 5)), all(None));
    let third = Header { origin: name("hub3"), ..header(Kind::Broadcast, &a, 8) };
    assert_eq!(hear(&mut seal, &third), all(Some((6, 7))));
}

#[test]
fn nothing_is_heard_of_whom_nothing_was_accepted() {
    let mut seal = seal();
    assert_eq!(seal.heard(&header(Kind::Broadcast, &[1; 16], 1)), Heard::Nothing);
    accept(&mut seal, &header(Kind::Call, &[1; 16], 1)).unwrap();
    assert_eq!(seal.heard(&header(Kind::Broadcast, &[2; 16], 1)), Heard::Nothing);
}
