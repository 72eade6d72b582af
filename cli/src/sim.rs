//! `commipc sim`: seeds, and one of them told as a conversation.

mod hunt;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use commipc_sim::decisions::Choices;
use commipc_sim::{
    Canary, Failure as Finding, Found, Outcome as Run, Profile, Source, Tally, find_canary, replay_command,
    report_seed, run_seeds_as,
};
use serde_json::json;

use crate::args::{Replayed, Sim, SimReplay, SimRun, SimSelftest};
use crate::failure::{Exit, Failure, Outcome};

pub(crate) fn run(args: &Sim, json: bool) -> Outcome {
    match args {
        Sim::Run(args) => run_many(args, json),
        Sim::Hunt(args) => hunt::hunt(args, json),
        Sim::Replay(args) => replay(args, json),
        Sim::Shrink(args) => hunt::shrinks(args, json),
        Sim::Selftest(args) => selftest(args, json),
    }
}

/// So many seeds are run in one go.
const BLOCK: u64 = 50;
/// A run that takes longer than this tells how far it is.
const PROGRESS: Duration = Duration::from_secs(3);

/// What all jobs know.
struct Running<'a> {
    args: &'a SimRun,
    json: bool,
    started: Instant,
    /// How many seeds somebody has taken on.
    taken: AtomicU64,
    so_far: Mutex<SoFar>,
}

struct SoFar {
    total: Tally,
    told: Instant,
}

fn run_many(args: &SimRun, json: bool) -> Outcome {
    let started = Instant::now();
    let total = Tally { profile: Profile::from(args.profile), ..Tally::default() };
    let so_far = Mutex::new(SoFar { total, told: started });
    let running = Running { args, json, started, taken: AtomicU64::new(0), so_far };
    std::thread::scope(|scope| {
        for _ in 0..jobs(args.jobs) {
            scope.spawn(|| running.work());
        }
    });
    let SoFar { total, .. } = running.so_far.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary(&total, started.elapsed(), json);
    verdict(&total)
}

/// As many as asked for, or as there are cores.
fn jobs(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

impl Running<'_> {
    fn work(&self) {
        loop {
            let taken = self.taken.fetch_add(BLOCK, Ordering::Relaxed);
            let missing = self.args.enough.saturating_sub(self.so_far().total.failed.len() as u64);
            if taken >= self.args.seeds || missing == 0 {
                return;
            }
            let (from, count) = (self.args.from.saturating_add(taken), BLOCK.min(self.args.seeds - taken));
            let enough = usize::try_from(missing).unwrap_or(usize::MAX);
            self.adds(run_seeds_as(from, count, enough, self.args.profile.into()));
        }
    }

    fn adds(&self, block: Tally) {
        for (seed, findings) in &block.failed {
            if self.json {
                crate::say(found(*seed, block.profile, findings));
            } else {
                crate::say_raw(&report_seed(*seed, block.profile, findings));
            }
        }
        let mut so_far = self.so_far();
        so_far.total.add(block);
        if !self.json && so_far.told.elapsed() > PROGRESS {
            so_far.told = Instant::now();
            progress(&so_far.total, self.args.seeds, self.started.elapsed());
        }
    }

    fn so_far(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn found(seed: u64, profile: Profile, findings: &[Finding]) -> serde_json::Value {
    json!({ "seed": seed, "failures": findings_json(findings), "replay": replay_command(seed, profile) })
}

fn findings_json(findings: &[Finding]) -> serde_json::Value {
    let one = |finding: &Finding| {
        let Finding { oracle, at, node, what } = finding;
        json!({ "oracle": oracle, "at_ns": at.as_nanos(), "node": node, "what": what })
    };
    findings.iter().map(one).collect()
}

fn progress(total: &Tally, of: u64, took: Duration) {
    let rate = per_second(total.seeds, took);
    let (seeds, failed) = (total.seeds, total.failed.len());
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{seeds} of {of} seeds, {failed} failed, {rate:.0} seeds/s");
}

fn summary(total: &Tally, took: Duration, json: bool) {
    let Tally { seeds, events, failed, marks, profile } = total;
    let (rate, event_rate) = (per_second(*seeds, took), per_second(*events, took));
    let failed = failed.len();
    if json {
        let seconds = took.as_secs_f64();
        crate::say(
            json!({ "seeds": seeds, "events": events, "failed": failed, "seconds": seconds, "seeds_per_s": rate, "marks": marks }),
        );
    } else {
        if *profile != Profile::Any {
            marks.iter().for_each(|(mark, count)| crate::say(format_args!("{count:>9}  {mark}")));
        }
        crate::say(format_args!(
            "{seeds} seeds, {events} events, {failed} failed; {rate:.0} seeds/s, {event_rate:.0} events/s"
        ));
    }
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-6)
}

fn verdict(total: &Tally) -> Outcome {
    let Some((seed, _)) = total.failed.first() else { return Ok(()) };
    let message = format!("{} of {} seeds failed", total.failed.len(), total.seeds);
    Err(Failure::new(Exit::Other, message).hint(format!("look at the first: {}", replay_command(*seed, total.profile))))
}

fn replay(args: &SimReplay, json: bool) -> Outcome {
    plants(args.worlds.plant)?;
    let run = commipc_sim::run_as(source(&args.what)?, args.worlds.profile.into(), true);
    if let Some(path) = &args.save {
        save(path, &run.choices)?;
    }
    if json {
        let Run { trace_hash, events, failures, conversation, .. } = &run;
        let (trace, failures) = (trace_hash.to_string(), findings_json(failures));
        let conversation = conversation.text();
        let conversation: Vec<&str> = conversation.lines().collect();
        crate::say(json!({ "events": events, "trace": trace, "failures": failures, "conversation": conversation }));
    } else if args.mermaid {
        let findings: Vec<String> = run.failures.iter().map(ToString::to_string).collect();
        crate::say_raw(&run.conversation.mermaid(&findings));
    } else {
        crate::say(&run);
    }
    found_nothing(&run.failures)
}

fn selftest(args: &SimSelftest, json: bool) -> Outcome {
    let planted: Vec<Canary> = match args.only {
        None => Canary::ALL.iter().filter(|it| !Canary::WITH_OWN_CREDENTIALS.contains(it)).copied().collect(),
        Some(number) => Canary::from_number(number).into_iter().collect(),
    };
    if planted.is_empty() {
        return Err(Failure::usage("no planted bug has this number"));
    }
    if !Canary::can_be_planted() {
        return Err(no_bugs());
    }
    let (mut missed, mut took, started) = (Vec::new(), Vec::new(), Instant::now());
    for canary in planted {
        let found = find_canary(canary, args.from, args.within);
        let (number, what) = (canary.number(), canary.what());
        if json {
            let (seeds, by) = (found.as_ref().map(|it| it.seeds), found.as_ref().map(|it| it.failure.oracle));
            crate::say(json!({ "canary": number, "what": what, "seeds": seeds, "oracle": by }));
        } else if let Some(Found { seeds, seed, failure }) = &found {
            crate::say(format_args!("{number:>3}  found in {seeds:>5} seeds ({seed}), by {}: {what}", failure.oracle));
        } else {
            crate::say(format_args!("{number:>3}  NOT FOUND in {} seeds: {what}", args.within));
        }
        missed.extend(found.is_none().then_some(number));
        took.push((found.map_or(args.within, |found| found.seeds), number));
    }
    if !json {
        crate::say(of_selftest(&mut took, missed.len(), started.elapsed()));
    }
    if missed.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Other, format!("not found: {missed:?}"))) }
}

/// How many were found, and in how many seeds.
fn of_selftest(took: &mut [(u64, u32)], missed: usize, time: Duration) -> String {
    took.sort_unstable();
    let median = match took {
        [] => 0,
        _ => u64::midpoint(took[(took.len() - 1) / 2].0, took[took.len() / 2].0),
    };
    let (most, number) = took.last().copied().unwrap_or_default();
    let seeds: u64 = took.iter().map(|(seeds, _)| seeds).sum();
    format!(
        "{} of {} found, in a median of {median} seeds and at most {most} (number {number}); {:.0} seeds/s",
        took.len() - missed,
        took.len(),
        per_second(seeds, time)
    )
}

/// Plants a bug, where that is asked for and can be done.
fn plants(number: Option<u32>) -> Outcome {
    if number.is_none() {
        return Ok(());
    }
    let canary = planted(number).ok_or_else(|| Failure::usage("no planted bug has this number"))?;
    if commipc_sim::plant(Some(canary)) { Ok(()) } else { Err(no_bugs()) }
}

fn planted(number: Option<u32>) -> Option<Canary> {
    number.and_then(Canary::from_number)
}

fn no_bugs() -> Failure {
    Failure::new(Exit::Other, "this build has no planted bugs")
        .hint("RUSTFLAGS='--cfg commipc_canary' cargo run --release --target-dir target/canary -p commipc-cli -- sim selftest")
}

/// The record of a run in a profile, which a record says by itself.
fn recorded(what: &Replayed, profile: Profile) -> Outcome<Source> {
    let source = source(what)?;
    Ok(if profile == Profile::Any {
        source
    } else {
        Source::Choices(commipc_sim::run_as(source, profile, false).choices)
    })
}

fn source(what: &Replayed) -> Outcome<Source> {
    if let Some(path) = &what.bytes {
        let bytes =
            fs::read(path).map_err(|error| Failure::usage(format!("reading {} failed: {error}", path.display())))?;
        return Ok(Source::Bytes(bytes));
    }
    if let Some(path) = &what.choices {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("reading {} failed: {error}", path.display())))?;
        let choices = text.parse().map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        return Ok(Source::Choices(choices));
    }
    // One of the two is there: the command line was checked.
    Ok(Source::Seed(what.seed.unwrap_or_default()))
}

fn save(path: &Path, choices: &Choices) -> Outcome {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    opened
        .and_then(|mut file| write!(file, "{choices}"))
        .map_err(|error| Failure::io(format_args!("writing {}", path.display()), &error))
}

fn found_nothing(findings: &[Finding]) -> Outcome {
    let Some(first) = findings.first() else { return Ok(()) };
    Err(Failure::new(Exit::Other, format!("{} findings, the first: {first}", findings.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        let at = commipc_tokio::Instant::from_nanos(1_500_000);
        Finding { oracle: "requests", at, node: "c1".to_owned(), what: "never ended: t3".to_owned() }
    }

    #[test]
    fn a_failing_seed_is_a_failure_with_the_command_that_replays_it() {
        let total = Tally { seeds: 9, events: 90, failed: vec![(4, vec![finding()])], ..Tally::default() };
        let failure = format!("{:?}", verdict(&total).unwrap_err());
        assert!(failure.contains("exit: Other") && failure.contains("1 of 9 seeds failed"), "{failure}");
        assert!(failure.contains("commipc sim replay --seed 4"), "{failure}");
        assert!(verdict(&Tally { failed: Vec::new(), ..total }).is_ok());
        assert!(found_nothing(&[finding()]).is_err() && found_nothing(&[]).is_ok());
    }

    #[test]
    fn a_selftest_is_told_in_a_line() {
        let mut took = vec![(30, 1), (10_000, 42), (20, 3), (5, 4)];
        let line = of_selftest(&mut took, 1, Duration::from_secs(5));
        assert_eq!(line, "3 of 4 found, in a median of 25 seeds and at most 10000 (number 42); 2011 seeds/s");
        assert!(of_selftest(&mut [], 0, Duration::from_secs(1)).starts_with("0 of 0 found"));
    }

    #[test]
    fn a_finding_is_told_in_full() {
        let line = found(4, Profile::Any, &[finding()]).to_string();
        for part in ["\"seed\":4", "requests", "1500000", "c1", "never ended: t3", "sim replay --seed 4"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(report_seed(4, Profile::Reconnect, &[finding()]).lines().count(), 2);
    }
}
