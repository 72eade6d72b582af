//! `commipc call`: one call, or many and how long they took.

use std::time::{Duration, Instant};

use ciborium::Value;
use commipc_tokio::{Channel, HubId, Trace};

use crate::args::{Call, Common};
use crate::bench::{Samples, Summary};
use crate::connect;
use crate::errors::About;
use crate::failure::Outcome;
use crate::json;

pub(crate) async fn run(args: &Call, payload: Value, common: &Common) -> Outcome {
    let about = About::new(connect::url(common), &args.topic.channel, &args.topic.event)?;
    let until = Instant::now() + args.deadline;
    let ready = tokio::time::timeout_at(until.into(), connect::channel(&about, common)).await;
    let (client, channel) = ready.map_err(|_| about.late(args.deadline))??;
    if args.repeat == 1 {
        let left = until.saturating_duration_since(Instant::now());
        let answer = channel.call::<Value>(&about.event, &payload).deadline(left).traced().await;
        let (answer, trace) = answer.map_err(|error| about.call_failed(&error))?;
        crate::say(json::print(&answer));
        if args.trace {
            tell(&trace, client.hub_id(), common.json);
        }
    } else {
        let summary = repeat(&channel, args, &payload, &about).await?;
        crate::say(if common.json { to_json(&summary) } else { to_table(&summary) });
    }
    client.close().await;
    Ok(())
}

async fn call(channel: &Channel, deadline: Duration, payload: &Value, about: &About) -> Outcome<Value> {
    let answer = channel.call::<Value>(&about.event, payload).deadline(deadline).await;
    answer.map_err(|error| about.call_failed(&error))
}

/// On which way an answer has come.
fn tell(trace: &Trace, own: &HubId, json: bool) {
    let path: Vec<&str> = trace.path.iter().chain([own]).map(HubId::as_str).collect();
    if json {
        crate::say_beside(serde_json::json!({ "provider": trace.provider.to_string(), "path": path }));
    } else {
        crate::say_beside(format_args!("answered by {} over {}", trace.provider, path.join(" > ")));
    }
}

async fn repeat(channel: &Channel, args: &Call, payload: &Value, about: &About) -> Outcome<Summary> {
    let mut samples = Samples::default();
    let started = Instant::now();
    for _ in 0..args.repeat {
        let sent = Instant::now();
        call(channel, args.deadline, payload, about).await?;
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
