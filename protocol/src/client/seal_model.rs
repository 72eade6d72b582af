//! The seal against a naive account of what was accepted, and under a load made to fill memory.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use bytes::BytesMut;
use proptest::prelude::*;

use super::numbers::Heard;
use super::seal::{Rejected, Seal};
use super::seal_tests::{EPOCH, NOW, NUMBERED, OF_A_CALL, come_back, feed, header, key_of, keys, name, seal};
use crate::auth::SenderKey;
use crate::time::UnixMillis;
use crate::wire::{Header, Kind, Message};

/// A sender: a client and its hub.
type Who = usize;
const SENDERS: [(&str, &str); 3] = [("alice", "hub"), ("alice", "hub2"), ("bob", "hub")];

#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    who: Who,
    instance: [u8; 16],
    kind: Kind,
    seq: u64,
    sent_at: u64,
    time_left: u64,
}

impl Said {
    fn header(&self) -> Header<'_> {
        let (sender, origin) = SENDERS[self.who];
        let (sender, origin, sent_at, time_left) = (name(sender), name(origin), self.sent_at, self.time_left);
        Header { sender, origin, sent_at, time_left, ..header(self.kind, &self.instance, self.seq) }
    }

    fn is_numbered(&self) -> bool {
        NUMBERED.contains(&self.kind)
    }

    fn is_in_time(&self, wall: u64) -> bool {
        let time_left = if self.is_numbered() { self.time_left } else { 0 };
        let age = i128::from(wall) - i128::from(self.sent_at);
        (-120_000..=i128::from(time_left) + 120_000).contains(&age)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Something new, sent so long before (or after) now.
    Say(Said, i64),
    /// Something that was said before, accepted or not.
    Again(usize),
    /// The clock moves, mostly forward.
    Wait(i64),
    /// The channel is left and opened again, in the same epoch.
    Return,
}

fn said(instances: u8) -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        6 => proptest::sample::select(&NUMBERED[..]),
        2 => Just(Kind::Beacon),
        1 => proptest::sample::select(&OF_A_CALL[..]),
    ];
    let seq = prop_oneof![4 => 1..40_u64, 1 => 1_000..1_200_u64, 1 => any::<u64>().prop_map(|seq| seq.max(1))];
    let before = prop_oneof![8 => -100..2_000_i64, 1 => 119_990..120_010_i64, 1 => -120_010..-119_990_i64,
                             1 => -400_000..400_000_i64];
    (0..SENDERS.len(), 0..instances, kind, seq, before, 1..3_000_u64).prop_map(
        |(who, instance, kind, seq, before, time_left)| {
            Step::Say(Said { who, instance: [instance; 16], kind, seq, sent_at: 0, time_left }, before)
        },
    )
}

fn steps(instances: u8, with_return: bool) -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![8 => 0..1_000_i64, 1 => 0..200_000_i64, 1 => -200_000..0_i64].prop_map(Step::Wait);
    let step = prop_oneof![
        12 => said(instances),
        6 => any::<usize>().prop_map(Step::Again),
        3 => wait,
        u32::from(with_return) => Just(Step::Return),
    ];
    proptest::collection::vec(step, 0..300)
}

/// Walks the steps; calls `check` with what came, when, and what became of it.
fn walk(
    steps: Vec<Step>,
    mut check: impl FnMut(Said, u64, Result<(), Rejected>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let (mut seal, mut wall, mut all) = (seal(), NOW, Vec::new());
    for step in steps {
        let said = match step {
            Step::Say(said, before) => Said { sent_at: wall.saturating_add_signed(-before), ..said },
            Step::Again(at) if !all.is_empty() => all[at % all.len()],
            Step::Again(_) => continue,
            Step::Wait(by) => {
                wall = wall.saturating_add_signed(by);
                continue;
            }
            Step::Return => {
                seal = come_back(seal);
                continue;
            }
        };
        all.push(said);
        let header = said.header();
        check(said, wall, feed(&mut seal, &header, &key_of(&header), wall))?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// As long as nobody loses a place, the seal is exactly what the rules say, told with sets of all there ever was.
    #[test]
    fn v2_the_seal_agrees_with_sets_of_all_that_was_accepted(steps in steps(8, false)) {
        let mut placed = BTreeMap::<(Who, [u8; 16]), BTreeSet<u64>>::new();
        walk(steps, |said, wall, result| {
            let key = (said.who, said.instance);
            let timed = !matches!(said.kind, Kind::Broadcast) || !placed.contains_key(&key);
            let top = placed.get(&key).and_then(|seen| seen.last()).copied().unwrap_or(0);
            let seen = placed.get(&key).is_some_and(|seen| seen.contains(&said.seq));
            let expected = if OF_A_CALL.contains(&said.kind) {
                Ok(())
            } else if said.is_numbered() && (seen || top.saturating_sub(said.seq) >= 1_024) {
                Err(Rejected::Replayed)
            } else if timed && !said.is_in_time(wall) {
                Err(Rejected::Stale)
            } else {
                Ok(())
            };
            prop_assert_eq!(result, expected, "{:?} at {}", said, wall);
            if result.is_ok() && (said.is_in_time(wall) || placed.contains_key(&key)) {
                let seen = placed.entry(key).or_default();
                if said.is_numbered() {
                    seen.insert(said.seq);
                }
            }
            Ok(())
        })?;
    }

    /// Whoever loses a place and comes back, however the clock moves and however often the channel is left: nothing is
    /// accepted twice, and what is fresh, new and later than all before is accepted. (Two messages to which their sender gave
    /// the same number are two.)
    #[test]
    fn v2_nothing_is_accepted_twice_whoever_loses_a_place(steps in steps(24, true)) {
        let mut accepted = Vec::new();
        let mut latest = BTreeMap::<Who, u64>::new();
        walk(steps, |said, wall, result| {
            let latest = latest.entry(said.who).or_default();
            let here = |other: &&Said| (other.who, other.instance) == (said.who, said.instance);
            let new = accepted.iter().filter(here).all(|other| other.seq < said.seq) || !said.is_numbered();
            if new && said.is_in_time(wall) && said.sent_at > *latest {
                prop_assert_eq!(result, Ok(()), "{:?} at {}", said, wall);
            }
            if result.is_ok() {
                *latest = said.sent_at.max(*latest);
                prop_assert!(!said.is_numbered() || !accepted.contains(&said), "twice: {:?} at {}", said, wall);
                accepted.push(said);
            }
            Ok(())
        })?;
    }
}

/// Messages of a member who makes up what it likes, without an allocation of its own.
struct Forge {
    protected: BytesMut,
    number: u64,
}

impl Forge {
    fn new() -> Self {
        Self { protected: BytesMut::with_capacity(4_096), number: 0 }
    }

    /// One more message, signed by `key`; `change` makes it what it is.
    fn say(
        &mut self,
        seal: &mut Seal,
        key: impl FnOnce(&Header<'_>) -> Option<SenderKey>,
        header: &Header<'_>,
    ) -> Result<(), Rejected> {
        self.number += 1;
        let header = Header { seq: self.number, bseq: self.number, ..*header };
        self.protected.clear();
        header.encode(&mut self.protected);
        let tag = key(&header).map_or([7; 32], |key| key.tag(&self.protected, b"payload"));
        let message = Message { header, protected: &self.protected, payload: b"payload", tag: &tag };
        let result = seal.accept(&message, UnixMillis(NOW));
        if result.is_ok() {
            assert_ne!(seal.heard(&header), Heard::Nothing);
        }
        result
    }
}

const MANY: u64 = 1_000_000;

fn id(number: u64) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

#[test]
fn a_million_messages_that_no_member_signed_leave_nothing() {
    let (mut seal, mut forge) = (seal(), Forge::new());
    let texts: Vec<_> = (0..1_000).map(|n| format!("client {n}")).collect();
    let info = allocation_counter::measure(|| {
        for number in 0..MANY {
            let (instance, sender) = (id(number), name(&texts[number as usize % texts.len()]));
            let header = Header { sender, ..header(Kind::Broadcast, &instance, 1) };
            assert_eq!(forge.say(&mut seal, |_| None, &header), Err(Rejected::Signature));
        }
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn a_hostile_member_fills_eight_places_and_no_more() {
    let (mut seal, mut forge) = (seal(), Forge::new());
    let events: Vec<_> = (0..10_000).map(|n| format!("{n:0128}")).collect();
    let signer = keys(1, "ch", EPOCH);
    let mut accepted = 0;
    let info = allocation_counter::measure(|| {
        for number in 0..MANY {
            // Long stays, so that each instance fills its numbers, and then quick changes.
            let instance = id(if number < MANY / 4 { number / 20_000 } else { number });
            let event = name(&events[number as usize % events.len()]);
            let header = Header { event, sent_at: NOW + number / 10, ..header(Kind::Broadcast, &instance, 1) };
            let key = |header: &Header<'_>| Some(signer.sender(header.instance, header.sender.as_str()));
            accepted += u64::from(forge.say(&mut seal, key, &header).is_ok());
        }
    });
    assert!(accepted > MANY / 4, "{accepted} accepted");
    let bound = 8 * PLACE + 1_024;
    assert!(info.bytes_max <= bound, "{} bytes", info.bytes_max);
}

/// What one instance costs at most: key, window and names.
const PLACE: u64 = 1_024 + 24 * 256;

#[test]
fn a_crowd_of_hostile_members_fills_the_table_and_no_more() {
    let (mut seal, mut forge) = (seal(), Forge::new());
    let texts: Vec<_> = (0..2_000).map(|n| format!("{n:0128}")).collect();
    let signer = keys(1, "ch", EPOCH);
    let mut refused = 0;
    let info = allocation_counter::measure(|| {
        for number in 0..MANY {
            let (who, round) = (number as usize % 1_500, number / 1_500);
            let instance = id(round % 12);
            let (sender, event) = (name(&texts[who]), name(&texts[round as usize]));
            let sent_at = NOW + round;
            let header = Header { sender, event, sent_at, ..header(Kind::Broadcast, &instance, 1) };
            let key = |header: &Header<'_>| Some(signer.sender(header.instance, header.sender.as_str()));
            refused += u64::from(forge.say(&mut seal, key, &header) == Err(Rejected::TooManySenders));
        }
    });
    assert!(refused > MANY / 4, "{refused} messages of who came too late");
    let bound = 1_024 * (8 * PLACE + 1_024);
    assert!(info.bytes_max <= bound, "{} bytes", info.bytes_max);
}
