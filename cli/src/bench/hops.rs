//! `commipc bench hops`: calls over hubs that bridges join, beside calls at one hub.

use std::path::Path;

use super::args::{BenchHops, Load, Role};
use super::load::Summary;
use super::part::Part;
use super::report::{Columns, Figure, Report, Row, Section, Unit};
use super::target::{Target, secrets};
use super::usage::{self, Usage};
use crate::args::Common;
use crate::failure::{Failure, Outcome};

/// How many bridges lie between a consumer and the provider.
const DISTANCES: [usize; 4] = [0, 1, 2, 4];

/// A line of hubs, the provider's first, and the bridges between them.
struct Line {
    hubs: Vec<Part>,
    bridges: Vec<Part>,
    /// What ends at each hub are started with.
    ends: Vec<Target>,
}

/// One consumer's result, and what all hubs and bridges used meanwhile.
#[derive(Clone, Copy)]
struct Phase {
    summary: Summary,
    way: Option<Usage>,
}

pub(super) fn run(args: &BenchHops, common: &Common, dir: &Path) -> Outcome<Report> {
    let BenchHops { size, in_flight, time, raw } = args;
    let line = Line::start(common, dir)?;
    let load = Load { size: *size, raw: *raw, protected: false, in_flight: 1, clients: 1, seconds: time.seconds };
    let _provider = line.ends[0].start(Role::Provider, load)?;
    let loads = [load, Load { in_flight: *in_flight, ..load }];
    let mut rounds = Vec::new();
    for _ in 0..time.rounds {
        let at = |hops: &usize| -> Outcome<Vec<Phase>> { loads.iter().map(|load| line.phase(*hops, *load)).collect() };
        rounds.push(DISTANCES.iter().map(at).collect::<Outcome<Vec<_>>>()?);
    }
    let kinds = [("latency", "1 in flight".to_owned()), ("load", format!("{in_flight} in flight"))];
    let mut sections = Vec::new();
    for (place, hops) in DISTANCES.iter().enumerate().skip(1) {
        for (kind, (key, title)) in kinds.iter().enumerate() {
            let pairs: Vec<_> = rounds.iter().map(|round| [round[place][kind], round[0][kind]]).collect();
            let bridges = if *hops == 1 { "1 bridge".to_owned() } else { format!("{hops} bridges") };
            sections.push(Section {
                key: format!("{key}_{hops}"),
                title: format!("{bridges}, {title}"),
                rows: Row::all(&FIGURES, &pairs),
            });
        }
    }
    let content = if *raw { "raw bytes" } else { "CBOR" };
    let what = format!("RPC over bridges, {size} B as {content}, {} s each", time.seconds);
    let setup = serde_json::json!({
        "size": size, "raw_payload": raw, "in_flight": in_flight, "seconds": time.seconds, "rounds": time.rounds,
    });
    Ok(Report::new("hops", &what, rounds.len(), setup, sections).comparing(Columns::Hops))
}

const FIGURES: [Figure<Phase>; 6] = [
    ("calls_per_s", "calls/s", Unit::PerSecond, |phase| Some(phase.summary.rate())),
    ("p50_us", "p50", Unit::Micros, |phase| Some(f64::from(phase.summary.p50_ns) / 1e3)),
    ("p90_us", "p90", Unit::Micros, |phase| Some(f64::from(phase.summary.p90_ns) / 1e3)),
    ("p99_us", "p99", Unit::Micros, |phase| Some(f64::from(phase.summary.p99_ns) / 1e3)),
    ("max_us", "max", Unit::Micros, |phase| Some(f64::from(phase.summary.max_ns) / 1e3)),
    ("way_cpu_us", "CPU of hubs and bridges per call", Unit::Micros, |phase| {
        Some(phase.way?.cpu_us(phase.summary.calls))
    }),
];

impl Line {
    fn start(common: &Common, dir: &Path) -> Outcome<Self> {
        let key = dir.join("bridge.key");
        // What it is makes no difference to what is measured, and nobody but this user reaches the directory.
        let written = std::fs::write(&key, format!("key:{}\n", "b7".repeat(32)))
            .and_then(|()| std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)));
        written.map_err(|error| Failure::io("writing the secret of bridges", &error))?;
        let key = key.display().to_string();
        let mut line = Self { hubs: Vec::new(), bridges: Vec::new(), ends: Vec::new() };
        let mut before: Option<String> = None;
        for number in 0..=DISTANCES[DISTANCES.len() - 1] {
            let url = format!("unix:{}", dir.join(format!("hub-{number}")).display());
            let own = ["hub", "--hub", &url, "--bridge-secret-file", &key].map(str::to_owned);
            let mut hub = Part::start("hub", &[&own[..], &secrets(common)].concat())?;
            hub.line()?;
            line.hubs.push(hub);
            line.ends.push(Target::hub(common, dir, Some(&url))?);
            if let Some(before) = before.replace(url.clone()) {
                let args = ["bridge", &before, &url, "--secret-file", &key].map(str::to_owned);
                let mut bridge = Part::start("bridge", &args)?;
                bridge.line()?;
                line.bridges.push(bridge);
            }
        }
        Ok(line)
    }

    /// Runs one consumer so many bridges away from the provider.
    fn phase(&self, hops: usize, load: Load) -> Outcome<Phase> {
        let mut consumer = self.ends[hops].start(Role::Consumer, load)?;
        let way = || self.hubs[..=hops].iter().chain(&self.bridges[..hops]).map(Part::usage).sum::<Option<Usage>>();
        let before = way();
        consumer.go()?;
        let summary = consumer.result()?;
        let [way] = usage::between([before], [way()]);
        Ok(Phase { summary, way })
    }
}
