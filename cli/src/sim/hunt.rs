//! `commipc sim hunt` and `shrink`: worlds that fail are looked for until somebody stops it, made small and kept.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use commipc_sim::{Case, Failure as Finding, Profile, Shrunk, Source, run_seed_checked, shrink};
use serde_json::json;

use super::{PROGRESS, per_second};
use crate::args::{SimHunt, SimShrink};
use crate::failure::{Exit, Failure, Outcome};

/// What all jobs know.
struct Hunt<'a> {
    args: &'a SimHunt,
    json: bool,
    started: Instant,
    stop: Arc<AtomicBool>,
    next: AtomicU64,
    seeds: AtomicU64,
    events: AtomicU64,
    failed: AtomicU64,
    /// What was found already: the same again is counted and not looked at.
    known: Mutex<BTreeSet<String>>,
    kept: Mutex<Vec<PathBuf>>,
    /// The first that failed.
    first: Mutex<Option<u64>>,
}

pub(super) fn hunt(args: &SimHunt, json: bool) -> Outcome {
    super::plants(args.worlds.plant)?;
    quietly();
    fs::create_dir_all(&args.keep)
        .map_err(|error| Failure::io(format_args!("making {}", args.keep.display()), &error))?;
    let jobs = super::jobs(args.jobs);
    let from = args.from.unwrap_or_else(|| getrandom::u64().unwrap_or(0) >> 1);
    let stop = Arc::new(AtomicBool::new(false));
    stops_with_ctrl_c(Arc::clone(&stop));
    let hunt = Hunt {
        args,
        json,
        started: Instant::now(),
        stop,
        next: AtomicU64::new(from),
        seeds: AtomicU64::new(0),
        events: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        known: Mutex::default(),
        kept: Mutex::default(),
        first: Mutex::default(),
    };
    if !json {
        crate::say(format_args!(
            "hunting from seed {from} on, {jobs} at a time; what fails is kept in {}",
            args.keep.display()
        ));
    }
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| hunt.work());
        }
        scope.spawn(|| hunt.tells());
    });
    hunt.ends()
}

impl Hunt<'_> {
    fn goes_on(&self) -> bool {
        let in_time = self.args.time.is_none_or(|time| self.started.elapsed() < time);
        let wanted = self.args.enough.is_none_or(|enough| self.kept().len() < enough);
        in_time && wanted && !self.stop.load(Ordering::Relaxed)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while self.goes_on() {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            let run = run_seed_checked(seed, self.args.worlds.profile.into());
            self.seeds.fetch_add(1, Ordering::Relaxed);
            self.events.fetch_add(run.events, Ordering::Relaxed);
            let Some(finding) = run.failures.first() else { continue };
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(seed);
            let kind = kind(finding);
            if self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(kind) {
                self.catches(seed, Source::Choices(run.choices));
            }
        }
    }

    fn catches(&self, seed: u64, source: Source) {
        let started = Instant::now();
        let goes_on = |_: &Shrunk| started.elapsed() < self.args.patience && !self.stop.load(Ordering::Relaxed);
        let Some(shrunk) = shrink(source, goes_on) else {
            return crate::say_beside(format_args!(
                "seed {seed} failed, and its choices alone do not fail again: it does not go the same way each time"
            ));
        };
        match keeps_beside(&self.args.keep, seed, &shrunk, self.args.worlds.plant) {
            Ok(path) => {
                tells_shrunk(Some(seed), &shrunk, started.elapsed(), Some(&path), self.json);
                self.kept().push(path);
            }
            Err(failure) => {
                tells_shrunk(Some(seed), &shrunk, started.elapsed(), None, self.json);
                crate::say_beside(format_args!("{failure:?}"));
            }
        }
    }

    fn tells(&self) {
        let mut told = Instant::now();
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(50));
            if !self.json && told.elapsed() > PROGRESS {
                told = Instant::now();
                crate::say_beside(self.summary());
            }
        }
    }

    fn summary(&self) -> String {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (seeds, events, failed) = (count(&self.seeds), count(&self.events), count(&self.failed));
        let took = self.started.elapsed();
        let (rate, event_rate) = (per_second(seeds, took), per_second(events, took));
        let kept = self.kept().len();
        format!(
            "{seeds} seeds, {events} events, {failed} failed, {kept} kept; {rate:.0} seeds/s, {event_rate:.0} events/s"
        )
    }

    fn ends(&self) -> Outcome {
        let kept = self.kept().clone();
        if self.json {
            let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
            let (seeds, events, failed) = (count(&self.seeds), count(&self.events), count(&self.failed));
            let seconds = self.started.elapsed().as_secs_f64();
            crate::say(json!({ "seeds": seeds, "events": events, "failed": failed, "kept": kept, "seconds": seconds }));
        } else {
            crate::say(self.summary());
        }
        let Some(seed) = *self.first.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        let look = match kept.first() {
            Some(first) => format!("commipc sim replay --choices {}", first.display()),
            None => super::replay_command(seed, self.args.worlds.profile.into()),
        };
        Err(Failure::new(Exit::Other, format!("{} kinds of failure were found", kept.len().max(1)))
            .hint(format!("look at the first: {look}")))
    }
}

/// What a finding is, whatever the numbers in it.
fn kind(finding: &Finding) -> String {
    let words = finding.what.split(|letter: char| !letter.is_alphabetic()).filter(|word| word.len() > 2);
    let words: Vec<&str> = words.take(12).collect();
    format!("{} {}", finding.oracle, words.join(" "))
}

pub(super) fn shrinks(args: &SimShrink, json: bool) -> Outcome {
    super::plants(args.worlds.plant)?;
    quietly();
    let started = Instant::now();
    let mut told = started;
    let goes_on = |so_far: &Shrunk| {
        if !json && told.elapsed() > PROGRESS {
            told = Instant::now();
            let Shrunk { size, runs, .. } = so_far;
            crate::say_beside(format_args!("{} steps and {} choices after {runs} runs", size.steps, size.choices));
        }
        started.elapsed() < args.patience
    };
    let source = super::recorded(&args.what, Profile::from(args.worlds.profile))?;
    let shrunk = shrink(source, goes_on).ok_or_else(|| Failure::usage("nothing is found in this run"))?;
    if let Some(path) = &args.save {
        keeps(path, &shrunk, args.worlds.plant)?;
    }
    tells_shrunk(None, &shrunk, started.elapsed(), args.save.as_deref(), json);
    if args.save.is_none() && !json {
        crate::say_raw(&Case::of(&shrunk, super::planted(args.worlds.plant)).to_string());
    }
    super::found_nothing(&[shrunk.failure])
}

/// Keeps it in a folder, beside what earlier hunts have kept there of the same seed; what is there already needs no other file.
fn keeps_beside(folder: &Path, seed: u64, shrunk: &Shrunk, plant: Option<u32>) -> Outcome<PathBuf> {
    let case = Case::of(shrunk, super::planted(plant)).to_string();
    let names = (1..).map(|number: u32| if number == 1 { String::new() } else { format!("-{number}") });
    for name in names {
        let path = folder.join(format!("{}-{seed}{name}.txt", shrunk.failure.oracle));
        if fs::read_to_string(&path).is_ok_and(|kept| kept == case) {
            return Ok(path);
        }
        if !path.exists() {
            return keeps(&path, shrunk, plant).map(|()| path);
        }
    }
    Err(Failure::usage("every name is taken"))
}

fn keeps(path: &Path, shrunk: &Shrunk, plant: Option<u32>) -> Outcome {
    let opened = fs::OpenOptions::new().write(true).create_new(true).open(path);
    opened
        .and_then(|mut file| write!(file, "{}", Case::of(shrunk, super::planted(plant))))
        .map_err(|error| Failure::io(format_args!("writing {}", path.display()), &error))
}

fn tells_shrunk(seed: Option<u64>, shrunk: &Shrunk, took: Duration, path: Option<&Path>, json: bool) {
    let Shrunk { failure, size, before, runs, .. } = shrunk;
    if json {
        crate::say(json!({
            "seed": seed, "oracle": failure.oracle, "what": failure.what, "steps": size.steps, "events": size.events,
            "choices": size.choices, "before": { "steps": before.steps, "events": before.events, "choices": before.choices },
            "runs": runs, "seconds": took.as_secs_f64(), "file": path,
        }));
        return;
    }
    let seed = seed.map_or_else(String::new, |seed| format!("seed {seed}: "));
    crate::say(format_args!("{seed}{failure}"));
    crate::say(format_args!(
        "  {} steps and {} choices, which were {} and {}; {runs} runs in {:.1} s",
        size.steps,
        size.choices,
        before.steps,
        before.choices,
        took.as_secs_f64()
    ));
    if let Some(path) = path {
        crate::say(format_args!("  replay it with: commipc sim replay --choices {}", path.display()));
    }
}

/// A panic of the product is a finding, and told as one.
fn quietly() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// The first Ctrl-C lets everybody finish; what was found is told.
fn stops_with_ctrl_c(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_finding_elsewhere_is_of_one_kind() {
        let finding = |what: &str| Finding {
            oracle: "requests",
            at: commipc_tokio::Instant::from_nanos(1),
            node: "c1".to_owned(),
            what: what.to_owned(),
        };
        assert_eq!(kind(&finding("never ended: t3 of n1")), kind(&finding("never ended: t71 of n4")));
        assert_ne!(kind(&finding("never ended: t3")), kind(&finding("ended twice: t3")));
    }
}
