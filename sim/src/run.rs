//! Whole runs: from a seed, from recorded choices or from a fuzzer's bytes, to a verdict.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use commipc_protocol::Instant;
use commipc_protocol::canary::{Canary, plant};

use crate::bridging::{self, Bridging};
use crate::conversation::Conversation;
use crate::decisions::{Choices, Decisions};
use crate::returning::{self, Returning};
use crate::rogue::Rogue;
use crate::swarm::{self, Swarm};
use crate::trace::TraceHash;
use crate::world::{Failure, World};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Over every input and output. Equal runs have equal hashes.
    pub trace_hash: TraceHash,
    /// How many inputs and outputs there were.
    pub events: u64,
    /// What oracles found; empty when all is well.
    pub failures: Vec<Failure>,
    /// Everything that was decided, to replay the run whatever it was made from.
    pub choices: Choices,
    /// What a malicious hub, or somebody on the path of connections, did, and how often; empty where nobody is.
    pub malice: BTreeMap<&'static str, u64>,
    /// What befell the world, and what came of it, and how often.
    pub marks: BTreeMap<&'static str, u64>,
    /// What was said and done, when it was asked for.
    pub conversation: Conversation,
    /// How often an application asked for something or a connection broke.
    pub steps: u64,
    /// Of each stream, where its pieces of work begin.
    pub(crate) pieces: BTreeMap<String, Vec<usize>>,
}

/// Which of all runs to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// As the seed says: of sixteen runs two have a malicious hub, and two are about connections that come back; of thirty-two, one
    /// is about bridges.
    #[default]
    Any,
    /// All are about connections that come back.
    Reconnect,
    /// All are about hubs that bridges join.
    Bridges,
}

/// How to make a run.
#[derive(Clone, Debug)]
pub enum Source {
    /// From a seed.
    Seed(u64),
    /// From a record.
    Choices(Choices),
    /// From any bytes.
    Bytes(Vec<u8>),
}

/// Whether the hub of a seed's run is malicious.
#[must_use]
pub fn is_malicious(seed: u64) -> bool {
    let mut decisions = Decisions::seeded(seed);
    let malice = decisions.stream("malice");
    !returning::is_drawn(&mut decisions)
        && !bridging::is_drawn(&mut decisions)
        && swarm::is_malicious(decisions.on(malice))
}

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64) -> Outcome {
    run(Source::Seed(seed), false)
}

/// Runs one seed in this profile.
#[must_use]
pub fn run_seed_as(seed: u64, profile: Profile) -> Outcome {
    run_as(Source::Seed(seed), profile, false)
}

/// Runs what a fuzzer's bytes decide.
#[must_use]
pub fn run_choices(bytes: &[u8]) -> Outcome {
    run(Source::Bytes(bytes.to_vec()), false)
}

/// Runs, and with `talking` keeps the conversation.
#[must_use]
pub fn run(source: Source, talking: bool) -> Outcome {
    run_as(source, Profile::Any, talking)
}

/// The same in a profile.
#[must_use]
pub fn run_as(source: Source, profile: Profile, talking: bool) -> Outcome {
    let (mut decisions, origin) = match source {
        Source::Seed(seed) => (Decisions::seeded(seed), format!("seed {seed}")),
        Source::Choices(choices) => (Decisions::replaying(choices), "recorded choices".to_owned()),
        Source::Bytes(bytes) => (Decisions::from_bytes(&bytes), "a fuzzer's bytes".to_owned()),
    };
    let kind = match profile {
        Profile::Any if returning::is_drawn(&mut decisions) => Profile::Reconnect,
        Profile::Any if bridging::is_drawn(&mut decisions) => Profile::Bridges,
        Profile::Any | Profile::Reconnect | Profile::Bridges => profile,
    };
    if kind == Profile::Bridges {
        let (mut world, mut bridging) = Bridging::drawn(decisions, origin, talking);
        let played = catch_unwind(AssertUnwindSafe(|| bridging.play(&mut world)));
        let mut outcome = outcome(&mut world, played.err());
        outcome.marks.extend(bridging.marks());
        *outcome.choices.stream_mut("bridging") = vec![bridging::DRAWN];
        return outcome;
    }
    if kind == Profile::Reconnect {
        let (mut world, mut returning) = Returning::drawn(decisions, origin, talking);
        let played = catch_unwind(AssertUnwindSafe(|| returning.play(&mut world)));
        let mut outcome = outcome(&mut world, played.err());
        outcome.marks.extend(returning.marks());
        // A record says by itself what it is about.
        *outcome.choices.stream_mut("returning") = vec![returning::DRAWN];
        return outcome;
    }
    let (mut world, mut swarm) = Swarm::drawn(decisions, origin, talking);
    let played = catch_unwind(AssertUnwindSafe(|| swarm.play(&mut world)));
    outcome(&mut world, played.err())
}

/// A panic of the product is a finding like any other; the world is not used again but for its record.
fn outcome(world: &mut World, panic: Option<Box<dyn Any + Send>>) -> Outcome {
    let mut failures = world.failures().to_vec();
    failures.extend(panic.map(|panic| panicked(&*panic, world.now())));
    // A run that failed ends there, with whatever is held at that moment.
    world.ended |= !failures.is_empty();
    Outcome {
        trace_hash: world.trace().hash(),
        events: world.trace().events(),
        failures,
        choices: world.engine().decided().record(),
        malice: malice(world),
        marks: world.watch.milestones.met().clone(),
        conversation: world.trace().conversation().cloned().unwrap_or_default(),
        steps: world.trace().steps(),
        pieces: world.engine().decided().pieces(),
    }
}

fn malice(world: &mut World) -> BTreeMap<&'static str, u64> {
    let mut malice = world.engine().attacker().played().clone();
    let hubs = world.hubs();
    let rogues: u64 = world.clients().iter().filter_map(|node| world.rogue_at(*node)).map(Rogue::spoken).sum();
    malice.extend((rogues > 0).then_some(("says what is not its own", rogues)));
    malice.extend(hubs.iter().filter_map(|hub| world.mallory(*hub)).flat_map(|hub| hub.played().clone()));
    malice
}

fn panicked(panic: &(dyn Any + Send), at: Instant) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let what = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
    Failure { oracle: "panic", at, node: "?".to_owned(), what }
}

fn differing(first: TraceHash, second: TraceHash) -> Option<Failure> {
    let what = format!("two runs of one seed differ: {first} and {second}");
    (first != second).then(|| Failure { oracle: "determinism", at: Instant::ZERO, node: "?".to_owned(), what })
}

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Of which runs.
    pub profile: Profile,
    /// Runs made.
    pub seeds: u64,
    /// Inputs and outputs in all of them.
    pub events: u64,
    /// Seeds that failed, with what was found.
    pub failed: Vec<(u64, Vec<Failure>)>,
    /// What befell the worlds, and what came of it, and how often.
    pub marks: BTreeMap<&'static str, u64>,
}

/// Every so many seeds, one runs twice and must come out the same.
const TWICE_EVERY: u64 = 100;

/// Runs one seed in this profile, and now and then once more: both must come out the same.
#[must_use]
pub fn run_seed_checked(seed: u64, profile: Profile) -> Outcome {
    let mut outcome = run_seed_as(seed, profile);
    if seed.is_multiple_of(TWICE_EVERY) {
        outcome.failures.extend(differing(outcome.trace_hash, run_seed_as(seed, profile).trace_hash));
    }
    outcome
}

/// Runs `count` seeds from `first` on, until `enough` have failed.
#[must_use]
pub fn run_seeds(first: u64, count: u64, enough: usize) -> Tally {
    run_seeds_as(first, count, enough, Profile::Any)
}

/// The same in a profile.
#[must_use]
pub fn run_seeds_as(first: u64, count: u64, enough: usize, profile: Profile) -> Tally {
    let mut tally = Tally { profile, ..Tally::default() };
    for seed in first..first.saturating_add(count) {
        let outcome = run_seed_checked(seed, profile);
        for (mark, count) in outcome.marks {
            *tally.marks.entry(mark).or_default() += count;
        }
        tally.seeds += 1;
        tally.events += outcome.events;
        if !outcome.failures.is_empty() {
            tally.failed.push((seed, outcome.failures));
        }
        if tally.failed.len() >= enough {
            break;
        }
    }
    tally
}

/// How a planted bug was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// In how many seeds, the one that failed included.
    pub seeds: u64,
    /// The seed that failed.
    pub seed: u64,
    /// Who says so.
    pub failure: Failure,
}

/// Plants a bug and runs seeds from `first` on until one fails; nothing when none of so many does. Where bugs cannot be
/// planted nothing is planted and so nothing found.
#[must_use]
pub fn find_canary(canary: Canary, first: u64, within: u64) -> Option<Found> {
    if !plant(Some(canary)) {
        return None;
    }
    let found = (first..first.saturating_add(within)).zip(1..).find_map(|(seed, seeds)| {
        let failure = run_seed(seed).failures.into_iter().next()?;
        Some(Found { seeds, seed, failure })
    });
    // It was planted a moment ago.
    let _ = plant(None);
    found
}

/// The one command that replays a seed.
#[must_use]
pub fn replay_command(seed: u64, profile: Profile) -> String {
    match profile {
        Profile::Any => format!("commipc sim replay --seed {seed}"),
        Profile::Reconnect => format!("commipc sim replay --seed {seed} --profile reconnect"),
        Profile::Bridges => format!("commipc sim replay --seed {seed} --profile bridges"),
    }
}

/// What was found with a seed, and the one command that replays it.
#[must_use]
pub fn report_seed(seed: u64, profile: Profile, failures: &[Failure]) -> String {
    let mut text = format!("seed {seed} failed; replay it with: {}\n", replay_command(seed, profile));
    for failure in failures {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {failure}");
    }
    text
}

impl Tally {
    /// Whether no seed failed.
    #[must_use]
    pub const fn is_fine(&self) -> bool {
        self.failed.is_empty()
    }

    /// What other runs came to beside these; failing seeds stay in their order.
    pub fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.failed.extend(other.failed);
        self.failed.sort_by_key(|(seed, _)| *seed);
        for (mark, count) in other.marks {
            *self.marks.entry(mark).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (seed, failures) in &self.failed {
            f.write_str(&report_seed(*seed, self.profile, failures))?;
        }
        write!(f, "{} seeds, {} events, {} failed", self.seeds, self.events, self.failed.len())
    }
}

impl Outcome {
    /// Whether nothing was found.
    #[must_use]
    pub const fn is_fine(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.conversation.text())?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "FAILED {failure}"))?;
        write!(f, "{} events, trace {}", self.events, self.trace_hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_finding_with_its_text() {
        let what = |play: fn()| panicked(&*catch_unwind(play).unwrap_err(), Instant::ZERO).what;
        assert_eq!(what(|| panic!("boom")), "boom");
        assert_eq!(what(|| panic!("boom {}", 1)), "boom 1");
        assert_eq!(what(|| std::panic::panic_any(1)), "a panic");
    }

    #[test]
    fn runs_that_differ_are_a_finding() {
        let hashes = [1, 2].map(|seed| run_seed(seed).trace_hash);
        assert!(differing(hashes[0], hashes[1]).is_some_and(|failure| failure.oracle == "determinism"));
        assert_eq!(differing(hashes[0], hashes[0]), None);
    }
}
