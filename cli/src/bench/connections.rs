//! `commipc bench connect` and `commipc bench idle`: connections that come and go, and such that stay.

use std::path::Path;
use std::time::{Duration, Instant};

use super::args::{BenchConnect, BenchIdle, Load, Role};
use super::load::{self, Samples, Summary};
use super::report::{Figure, Report, Row, Section, Unit};
use super::target::{Target, rounds};
use super::usage::{self, Usage};
use crate::args::Common;
use crate::connect;
use crate::failure::{Failure, Outcome};

/// What a hub or relay needs to come to rest.
const REST: Duration = Duration::from_millis(500);

struct SetUps {
    summary: Summary,
    hub: Option<Usage>,
    client: Option<Usage>,
}

pub(super) fn connect(args: &BenchConnect, common: &Common, dir: &Path) -> Outcome<Report> {
    let BenchConnect { clients, time, hub_url } = args;
    let targets = [Target::hub(common, dir, hub_url.as_deref())?, Target::raw(dir)?];
    let load = Load { size: 0, raw: false, protected: false, in_flight: 1, clients: *clients, seconds: time.seconds };
    let rounds = rounds(&targets, time.rounds, |target| {
        let mut client = target.start(Role::Connector, load)?;
        let before = [target.usage(), client.usage()];
        client.go()?;
        let summary = client.result()?;
        let [hub, client] = usage::between(before, [target.usage(), client.usage()]);
        Ok(SetUps { summary, hub, client })
    })?;
    let what = format!("Connections set up and closed, {} s each", time.seconds);
    let setup = serde_json::json!({
        "clients": clients, "seconds": time.seconds, "rounds": time.rounds, "hub_url": hub_url,
    });
    let title = format!("{clients} at the same time");
    let section = Section { key: "connect".into(), title, rows: Row::all(&SET_UPS, &rounds) };
    Ok(Report::new("connect", &what, rounds.len(), setup, vec![section]))
}

const SET_UPS: [Figure<SetUps>; 6] = [
    ("connections_per_s", "connections/s", Unit::PerSecond, |round| Some(round.summary.rate())),
    ("p50_us", "p50", Unit::Micros, |round| Some(f64::from(round.summary.p50_ns) / 1e3)),
    ("p99_us", "p99", Unit::Micros, |round| Some(f64::from(round.summary.p99_ns) / 1e3)),
    ("hub_cpu_us", "hub CPU per connection", Unit::Micros, |round| Some(round.hub?.cpu_us(round.summary.calls))),
    ("hub_switches", "hub switches per connection", Unit::Fraction, |round| {
        Some(round.hub?.switches(round.summary.calls))
    }),
    ("client_cpu_us", "client CPU per connection", Unit::Micros, |round| {
        Some(round.client?.cpu_us(round.summary.calls))
    }),
];

struct Memory {
    clients: u32,
    before: Option<u64>,
    after: Option<u64>,
}

pub(super) fn idle(args: &BenchIdle, common: &Common) -> Outcome<Report> {
    let BenchIdle { clients, rounds } = args;
    let load = Load { size: 0, raw: false, protected: false, in_flight: 1, clients: *clients, seconds: 0.0 };
    let mut measured = Vec::new();
    for _ in 0..*rounds {
        // Fresh ones each time: memory that was used once is used again.
        let dir = tempfile::tempdir().map_err(|error| Failure::io("making a temporary directory", &error))?;
        let one = |target: Target| {
            std::thread::sleep(REST);
            let before = target.memory();
            let clients = target.start(Role::Idle, load)?;
            std::thread::sleep(REST);
            let after = target.memory();
            drop(clients);
            Ok(Memory { clients: load.clients, before, after })
        };
        measured.push([one(Target::hub(common, dir.path(), None)?)?, one(Target::raw(dir.path())?)?]);
    }
    let setup = serde_json::json!({ "clients": clients, "rounds": rounds });
    let title = format!("{clients} connections");
    let section = Section { key: "idle".into(), title, rows: Row::all(&MEMORY, &measured) };
    Ok(Report::new("idle", "Connections that do nothing", measured.len(), setup, vec![section]))
}

const MEMORY: [Figure<Memory>; 3] = [
    ("kib_per_connection", "memory per connection", Unit::Kibibytes, |round| {
        Some(kib(round.after?.saturating_sub(round.before?)) / f64::from(round.clients))
    }),
    ("before_kib", "memory without any", Unit::Kibibytes, |round| Some(kib(round.before?))),
    ("after_kib", "memory with all", Unit::Kibibytes, |round| Some(kib(round.after?))),
];

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

/// Warms up, waits for the word, connects again and again, tells how it went.
pub(super) async fn connector(common: &Common, load: Load) -> Outcome {
    let io = |error| Failure::io("a connecting client", &error);
    drive(common, load, load::WARM_UP).await?;
    load::wait_for_go().map_err(io)?;
    let started = Instant::now();
    let samples = drive(common, load, Duration::from_secs_f64(load.seconds)).await?;
    load::tell(&samples.summary(started.elapsed())).map_err(io)
}

async fn drive(common: &Common, load: Load, time: Duration) -> Outcome<Samples> {
    let end = Instant::now() + time;
    load::together((0..load.clients).map(|_| connect_until(end, common.clone()))).await.map(Samples::of_all)
}

async fn connect_until(end: Instant, common: Common) -> Outcome<Samples> {
    let mut samples = Samples::default();
    let mut started = Instant::now();
    while started < end {
        connect::client(&common).await?.close().await;
        let now = Instant::now();
        samples.push(now - started);
        started = now;
    }
    Ok(samples)
}

/// Connects and stays until it is told to stop.
pub(super) async fn idle_clients(common: &Common, load: Load) -> Outcome {
    let mut clients = Vec::new();
    for _ in 0..load.clients {
        clients.push(connect::client(common).await?);
    }
    load::until_told().await.map_err(|error| Failure::io("the idle clients", &error))
}
