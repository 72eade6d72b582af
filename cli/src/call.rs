//! `commipc call`: one call, or many and how long they took.

use std::io::Read as _;
use std::time::{Duration, Instant};

use ciborium::Value;
use commipc_tokio::Channel;

use crate::args::{Call, Common};
use crate::bench::{Samples, Summary};
use crate::connect;
use crate::errors::About;
use crate::failure::{Failure, Outcome};
use crate::json;

pub(crate) async fn run(args: &Call, payload: Value, common: &Common) -> Outcome {
    let about = About::new(connect::url(common), &args.channel, &args.event)?;
    let client = connect::client(common).await?;
    let channel = client.open(&about.channel).await.map_err(|error| about.failed(error.code(), &error))?;
    if args.repeat == 1 {
        let answer = call(&channel, args, &payload, &about).await?;
        crate::say(json::print(&answer));
    } else {
        let summary = repeat(&channel, args, &payload, &about).await?;
        crate::say(if common.json { to_json(&summary) } else { to_table(&summary) });
    }
    client.close().await;
    Ok(())
}

/// Reads the payload, before anything else is started: it may come from a slow stdin.
pub(crate) fn payload(text: &str) -> Outcome<Value> {
    let read;
    let text = if text == "-" {
        let mut stdin = String::new();
        std::io::stdin()
            .read_to_string(&mut stdin)
            .map_err(|error| Failure::usage(format!("the payload on stdin cannot be read: {error}")))?;
        read = stdin;
        read.as_str()
    } else if let Some(path) = text.strip_prefix('@') {
        read = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("the payload file {path} cannot be read: {error}")))?;
        read.as_str()
    } else {
        text
    };
    json::parse(text).map_err(|error| {
        Failure::usage(format!("the payload is {error}"))
            .hint(r#"write JSON, such as '{"a": 15}' or '"text"', @FILE, or - for stdin"#)
    })
}

async fn call(channel: &Channel, args: &Call, payload: &Value, about: &About) -> Outcome<Value> {
    let answer = channel.call::<Value>(&about.event, payload).deadline(args.deadline).await;
    answer.map_err(|error| about.call_failed(&error))
}

async fn repeat(channel: &Channel, args: &Call, payload: &Value, about: &About) -> Outcome<Summary> {
    let mut samples = Samples::default();
    let started = Instant::now();
    for _ in 0..args.repeat {
        let sent = Instant::now();
        call(channel, args, payload, about).await?;
        samples.push(sent.elapsed());
    }
    Ok(samples.summary(started.elapsed()))
}

fn to_table(summary: &Summary) -> String {
    let time = |ns: u32| format!("{:?}", Duration::from_nanos(u64::from(ns)));
    let rows = [("p50", summary.p50_ns), ("p90", summary.p90_ns), ("p99", summary.p99_ns), ("max", summary.max_ns)];
    let mut table = format!("{} calls in {:.3} s, {:.0} calls/s", summary.calls, summary.seconds, summary.rate());
    rows.into_iter().for_each(|(name, ns)| table += &format!("\n  {name}  {:>12}", time(ns)));
    table
}

fn to_json(summary: &Summary) -> String {
    let micros = |ns: u32| f64::from(ns) / 1e3;
    serde_json::json!({
        "calls": summary.calls, "seconds": summary.seconds, "calls_per_s": summary.rate(),
        "p50_us": micros(summary.p50_ns), "p90_us": micros(summary.p90_ns),
        "p99_us": micros(summary.p99_ns), "max_us": micros(summary.max_ns),
    })
    .to_string()
}
