//! Failing runs, kept: each is replayed for ever.
//!
//! `commipc sim hunt` and `shrink` write such files. One without a canary was a real mistake, and must find nothing any more. One
//! with a canary finds something only where that bug is planted: that is seen in a build made for it (`.ci/long canaries`).

#![allow(missing_docs, reason = "a test binary")]
#![expect(clippy::unwrap_used, reason = "what is unexpected fails the test")]

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use commipc_sim::{Canary, Case, Source, find_canary, plant, run, shrink};

/// Bugs are planted for the whole process: one test at a time may do so, or rely on there being none.
static PLANTING: Mutex<()> = Mutex::new(());

fn cases() -> Vec<(String, Case)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/found");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap().parse().unwrap())
    };
    files.iter().map(read).collect()
}

#[test]
fn what_was_found_is_not_found_again() {
    let _alone = PLANTING.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(cases().len() >= 10, "the files are there");
    for (name, case) in cases() {
        let outcome = case.replay(false);
        assert!(outcome.is_fine(), "{name}: {outcome}");
        assert!(!outcome.conversation.is_empty() && outcome.events > 0, "{name} is about nothing");
    }
}

#[test]
fn a_run_without_a_failure_is_not_shrunk() {
    let _alone = PLANTING.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(shrink(Source::Seed(1), |_| true).is_none());
}

#[test]
fn a_run_is_drawn_as_a_diagram() {
    let _alone = PLANTING.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = run(Source::Seed(1), true);
    let drawn = outcome.conversation.mermaid(&["an oracle says: so; it is #1".to_owned()]);
    let lines: Vec<&str> = drawn.lines().collect();
    assert_eq!(lines[0], "sequenceDiagram");
    assert!(lines.iter().any(|line| line.trim() == "participant h"));
    assert!(lines.iter().any(|line| line.contains("->>h: Hello")), "{drawn}");
    assert!(lines.last().unwrap().ends_with("FAILED an oracle says  so  it is  1"), "{drawn}");
    let said = lines.iter().filter_map(|line| line.split_once(": "));
    assert!(said.clone().count() > 20 && said.clone().all(|(_, text)| !text.contains(';') && !text.contains('#')));
}

/// A tenth of the planted bugs, over machines, streams and what a hub cannot be trusted with.
const SHRUNK: [Canary; 4] = [Canary::Echo, Canary::Cancel, Canary::Window, Canary::Signature];
/// How many steps of applications and breaks of connections may be left of any of them.
const STEPS: u64 = 25;

/// In a usual build no bug is planted, and nothing is found to be made small: `.ci/long canaries` is the place.
#[test]
fn planted_bugs_are_found_in_few_steps() {
    if !Canary::can_be_planted() {
        return;
    }
    let _alone = PLANTING.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, case) in cases().into_iter().filter(|(_, case)| case.canary.is_some()) {
        let outcome = case.replay(true);
        assert!(case.is_found_in(&outcome), "{name}: {outcome}");
        assert!(outcome.steps <= STEPS, "{name} takes {} steps", outcome.steps);
    }
    for canary in SHRUNK {
        let found = find_canary(canary, 0, 10_000).unwrap();
        assert!(plant(Some(canary)));
        let shrunk = shrink(Source::Seed(found.seed), |so_far| so_far.runs < 5_000).unwrap();
        assert!(plant(None));
        assert_eq!(shrunk.failure.oracle, found.failure.oracle);
        assert!(shrunk.size < shrunk.before && shrunk.size.steps <= STEPS, "{canary:?}: {:?}", shrunk.size);
    }
}
