//! `commipc bench rpc`: calls through a hub.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commipc_tokio::{CallError, Channel, EventName, Fault, Request};
use serde_bytes::ByteBuf;

use super::args::{BenchRpc, Load, Role};
use super::load::{self, Samples, Summary};
use super::part::Part;
use super::report::{Figure, Report, Row, Section, Unit};
use super::target::{self, CHANNEL, Target, rounds};
use super::usage::{self, Usage};
use crate::args::Common;
use crate::connect;
use crate::errors::{self, About};
use crate::failure::{Failure, Outcome};

const EVENT: &str = "echo";

/// One consumer's result and what the processes used for it.
struct Phase {
    summary: Summary,
    hub: Option<Usage>,
    provider: Option<Usage>,
    consumer: Option<Usage>,
}

pub(super) fn run(args: &BenchRpc, common: &Common, dir: &Path) -> Outcome<Report> {
    let BenchRpc { size, in_flight, clients, time, raw, protected, hub_url } = args;
    let targets = Target::pair(common, dir, *protected, hub_url.as_deref())?;
    let load = Load { size: *size, raw: *raw, protected: false, in_flight: 1, clients: 1, seconds: time.seconds };
    let [hub, relay] = &targets;
    let providers = [hub.start(Role::Provider, load)?, relay.start(Role::Provider, load)?];
    let (mut latencies, mut loads) = (Vec::new(), Vec::new());
    let all = rounds(&targets, time.rounds, |target| {
        let provider = &providers[usize::from(std::ptr::eq(target, relay))];
        let latency = phase(target, provider, load)?;
        Ok((latency, phase(target, provider, Load { in_flight: *in_flight, clients: *clients, ..load })?))
    })?;
    for [hub, raw] in all {
        latencies.push([hub.0, raw.0]);
        loads.push([hub.1, raw.1]);
    }
    let content = if *raw { "raw bytes" } else { "CBOR" };
    let what = format!("RPC, {size} B as {content}, {} s each", time.seconds);
    let setup = serde_json::json!({
        "size": size, "raw_payload": raw, "in_flight": in_flight, "clients": clients,
        "protected": protected, "seconds": time.seconds, "rounds": time.rounds, "hub_url": hub_url,
    });
    let under = format!("{in_flight} in flight on each of {clients} connections");
    let section = |key: &str, title: &str, phases: &[[Phase; 2]]| Section {
        key: key.to_owned(),
        title: title.to_owned(),
        rows: Row::all(&FIGURES, phases),
    };
    let sections = vec![section("latency", "1 in flight", &latencies), section("load", &under, &loads)];
    Ok(Report::new("rpc", &what, latencies.len(), setup, sections).comparing(Target::columns(*protected)))
}

/// Runs one consumer and counts what all three used meanwhile.
fn phase(target: &Target, provider: &Part, load: Load) -> Outcome<Phase> {
    let mut consumer = target.start(Role::Consumer, load)?;
    let usage = |consumer: &Part| [target.usage(), provider.usage(), consumer.usage()];
    let before = usage(&consumer);
    consumer.go()?;
    let summary = consumer.result()?;
    let [hub, provider, consumer] = usage::between(before, usage(&consumer));
    Ok(Phase { summary, hub, provider, consumer })
}

const FIGURES: [Figure<Phase>; 9] = [
    ("calls_per_s", "calls/s", Unit::PerSecond, |phase| Some(phase.summary.rate())),
    ("p50_us", "p50", Unit::Micros, |phase| Some(f64::from(phase.summary.p50_ns) / 1e3)),
    ("p90_us", "p90", Unit::Micros, |phase| Some(f64::from(phase.summary.p90_ns) / 1e3)),
    ("p99_us", "p99", Unit::Micros, |phase| Some(f64::from(phase.summary.p99_ns) / 1e3)),
    ("max_us", "max", Unit::Micros, |phase| Some(f64::from(phase.summary.max_ns) / 1e3)),
    ("hub_cpu_us", "hub CPU per call", Unit::Micros, |phase| Some(phase.hub?.cpu_us(phase.summary.calls))),
    ("hub_switches", "hub switches per call", Unit::Fraction, |phase| Some(phase.hub?.switches(phase.summary.calls))),
    ("provider_cpu_us", "provider CPU per call", Unit::Micros, |phase| {
        Some(phase.provider?.cpu_us(phase.summary.calls))
    }),
    ("consumer_cpu_us", "consumer CPU per call", Unit::Micros, |phase| {
        Some(phase.consumer?.cpu_us(phase.summary.calls))
    }),
];

/// Echoes until it is killed or the hub goes.
pub(super) async fn provider(common: &Common, load: Load) -> Outcome {
    let about = About::new(connect::url(common), CHANNEL, EVENT)?;
    let client = connect::client(common).await?;
    let channel = target::open(&client, &about, load).await?;
    let provider = if load.raw {
        channel.provide_raw(&about.event, async |request: Request<Bytes>| Ok::<_, Fault>(request.into_inner())).await
    } else {
        channel.provide(&about.event, async |request: Request<ByteBuf>| Ok::<_, Fault>(request.into_inner())).await
    };
    let _provider = provider.map_err(|error| about.failed(error.code(), &error))?;
    crate::say("ready");
    let reason = client.closed().await;
    Err(errors::lost(&about.hub, reason))
}

/// Warms up, waits for the word, keeps calls in flight, tells how it went.
pub(super) async fn consumer(common: &Common, load: Load) -> Outcome {
    let about = About::new(connect::url(common), CHANNEL, EVENT)?;
    let mut channels = Vec::new();
    for _ in 0..load.clients {
        let client = connect::client(common).await?;
        channels.push(target::open(&client, &about, load).await?);
    }
    let failed = |error: std::io::Error| Failure::io("a consumer", &error);
    let calls_failed = |error: CallError| about.call_failed(&error);
    drive(&channels, &about.event, load, load::WARM_UP).await.map_err(calls_failed)?;
    load::wait_for_go().map_err(failed)?;
    let started = Instant::now();
    let samples =
        drive(&channels, &about.event, load, Duration::from_secs_f64(load.seconds)).await.map_err(calls_failed)?;
    load::tell(&samples.summary(started.elapsed())).map_err(failed)
}

/// One task for each call in flight: on this runtime's only thread a wake-up is a push to a queue.
async fn drive(channels: &[Channel], event: &EventName, load: Load, time: Duration) -> Result<Samples, CallError> {
    let end = Instant::now() + time;
    let calls = channels.iter().flat_map(|channel| (0..load.in_flight).map(move |_| channel));
    let calls = calls.map(|channel| call_until(end, channel.clone(), event.clone(), load));
    load::together(calls).await.map(Samples::of_all)
}

async fn call_until(end: Instant, channel: Channel, event: EventName, load: Load) -> Result<Samples, CallError> {
    let mut samples = Samples::default();
    let bytes = Bytes::from(vec![0u8; load.size as usize]);
    let value = ByteBuf::from(vec![0u8; load.size as usize]);
    let mut sent = Instant::now();
    while sent < end {
        if load.raw {
            channel.call_raw(&event, bytes.clone()).await?;
        } else {
            channel.call::<ByteBuf>(&event, &value).await?;
        }
        let now = Instant::now();
        samples.push(now - sent);
        sent = now;
    }
    Ok(samples)
}
