//! Runs are deterministic, however they are decided, and many of them find nothing.

use commipc_sim::{Canary, Source, Tally, find_canary, run, run_choices, run_seed, run_seeds};

#[test]
fn the_same_seed_makes_the_same_run_and_another_does_not() {
    for seed in 0..10 {
        let first = run_seed(seed);
        assert_eq!(first.trace_hash, run_seed(seed).trace_hash);
        assert_ne!(first.trace_hash, run_seed(seed + 1).trace_hash);
        assert_eq!(first.trace_hash, run(Source::Choices(first.choices), false).trace_hash, "replayed by its choices");
    }
}

#[test]
fn any_bytes_make_a_run_that_its_choices_replay() {
    for byte in [0, 1, 77, 255] {
        let bytes = [byte; 300];
        let outcome = run_choices(&bytes);
        assert_eq!(outcome.failures, []);
        let text = outcome.choices.to_string();
        let again = run(Source::Choices(text.parse().unwrap()), false);
        assert_eq!(again.trace_hash, outcome.trace_hash);
    }
    assert!(run_choices(&[]).failures.is_empty());
}

/// What must befall clients and their hub in storms, and which points long runs must have reached, or they show little: in
/// how many of a thousand worlds' counts at least. What has to do with no storm is judged where it belongs: `returning.rs`,
/// `bridging.rs`.
const REACHED: [(&str, u64); 12] = [
    ("fault: a client stands still", 50),
    ("fault: a client is parted from its hub", 30),
    ("fault: a client crashes", 30),
    ("fault: a client vanishes", 15),
    ("a crowd", 4),
    ("a client says rubbish", 3),
    ("a client says a frame that is too long", 3),
    ("a stranger says rubbish", 1),
    ("a stranger says a frame that is too long", 1),
    ("an id is taken over from a connection that was joining", 1),
    ("a password changes while a call is on its way", 20),
    ("a connection ends inside of a length", 5),
];

#[test]
fn a_thousand_seeds_find_nothing() {
    let seeds = std::env::var("COMMIPC_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1_000);
    let jobs = std::thread::available_parallelism().map_or(1, |jobs| jobs.get() as u64);
    let part = |job: u64| run_seeds(job * seeds / jobs, (job + 1) * seeds / jobs - job * seeds / jobs, 3);
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..jobs).map(|job| scope.spawn(move || part(job))).collect();
        for part in parts {
            total.add(part.join().expect("a run catches what panics"));
        }
    });
    assert!(total.is_fine(), "{total}");
    assert_eq!(total.seeds, seeds);
    assert!(total.events > 200 * seeds, "too little goes on");
    let rare =
        REACHED.iter().filter(|(mark, least)| total.marks.get(mark).copied().unwrap_or(0) * 1_000 < least * seeds);
    let rare: Vec<&(&str, u64)> = rare.collect();
    assert!(rare.is_empty(), "too rare in {seeds} worlds: {rare:?} of {:?}", total.marks);
}

/// Worlds in which something was found once: sim/CHANGELOG.md says what.
#[test]
fn what_was_found_once_is_not_found_again() {
    for seed in [
        2_683, 6_845, 9_516, 14_738, 20_188, 23_131, 25_823, 26_623, 56_317, 56_636, 64_674, 64_820, 71_003, 178_149,
        181_043, 2_002_226, 2_016_019, 2_021_846, 2_082_158, 2_101_792,
    ] {
        let tally = run_seeds(seed, 1, 1);
        assert!(tally.is_fine(), "{tally}");
    }
}

#[test]
fn a_replay_can_be_read() {
    let outcome = run(Source::Seed(1), true);
    let text = outcome.to_string();
    assert!(outcome.is_fine() && text.contains("Connect"), "{text}");
    assert!(text.lines().last().is_some_and(|last| last.contains(&run_seed(1).trace_hash.to_string())));
}

/// What storms must meet again and again, or the oracles judge nothing: what it is, how it reads in a conversation
/// without its digits, and in how many of four hundred runs at least.
const MARKS: [(&str, &str, u32); 13] = [
    ("a call is answered", "tells: Answered { token: t, result: Ok", 40),
    ("a provider gives a fault", "result: Err(Fault(", 10),
    ("a call meets its deadline", "result: Err(Failed { failure: Local(Deadline)", 40),
    ("a provider is gone", "failure: Refused(ProviderGone)", 2),
    ("a caller is gone", "why: Refused(CallerGone)", 1),
    ("a broadcast is heard", "tells: Message(Message", 40),
    ("a client drains", "is asked: Drain(Client", 20),
    ("a provider drains", "is asked: Drain(Provider", 8),
    ("what a client works on is ended as it goes", "why: Local(Closed)", 4),
    ("a connection breaks", "ends: Reset", 100),
    ("a client is admitted", "tells: Ready(Welcome", 300),
    ("an admin ends a channel", "Cleared {", 8),
    ("a stranger is refused", "tells: Closed(Refused(AuthFailed))", 40),
];

#[test]
fn storms_meet_what_they_are_for() {
    let mut met = [0; MARKS.len()];
    for seed in 0..400 {
        let outcome = run(Source::Seed(seed), true);
        let mut text = outcome.conversation.text();
        text.retain(|letter| !letter.is_ascii_digit());
        for (met, (_, mark, _)) in met.iter_mut().zip(&MARKS) {
            *met += u32::from(text.contains(mark));
        }
    }
    for (met, (what, _, least)) in met.iter().zip(&MARKS) {
        assert!(met >= least, "{what} in {met} runs only");
    }
}

/// Bugs are planted only in a build made for that (`.ci/long canaries`), where nothing here is to be believed.
#[test]
fn no_bug_can_be_planted_in_a_usual_build() {
    assert!(!Canary::can_be_planted());
    let numbers: Vec<u32> = Canary::ALL.iter().map(|canary| canary.number()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "numbers are not used again: {numbers:?}");
    assert!(find_canary(Canary::RecordTag, 0, 1).is_none());
}
