//! Calls through a hub: the processes of the measured side.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commipc_tokio::{CallError, Channel, EventName, Fault, Request};
use serde_bytes::ByteBuf;

use super::args::{BenchRpc, Load, PartCli};
use super::load::{self, Samples};
use super::{Part, Target};
use crate::args::Common;
use crate::connect;
use crate::errors::{self, About};
use crate::failure::{Failure, Outcome};

const CHANNEL: &str = "bench";
const EVENT: &str = "echo";

/// Starts the hub, unless one is named, and the provider.
pub(super) fn target(args: &BenchRpc, common: &Common, dir: &Path) -> Outcome<Target> {
    let url = args.hub_url.clone().unwrap_or_else(|| format!("unix:{}", dir.join("hub").display()));
    let mut options = secrets(common);
    options.extend(["--hub".into(), url]);
    let hub = if args.hub_url.is_none() {
        let mut hub = Part::start("hub", &[vec!["hub".into()], options.clone()].concat())?;
        hub.line()?;
        Some(hub)
    } else {
        None
    };
    let client = |part: &str| {
        let mut line = vec![PartCli::COMMAND.to_owned(), part.to_owned()];
        line.extend(args.raw.then(|| "--raw".to_owned()));
        line.extend(options.clone());
        line
    };
    let mut provider = Part::start("provider", &client("provider"))?;
    provider.line()?;
    Ok(Target { hub, provider, consumer: client("consumer") })
}

/// Echoes until it is killed or the hub goes.
pub(super) async fn provider(common: &Common, raw: bool) -> Outcome {
    let about = About::new(connect::url(common), CHANNEL, EVENT)?;
    let client = connect::client(common).await?;
    let channel = client.open(&about.channel).await.map_err(|error| about.failed(error.code(), &error))?;
    let provider = if raw {
        channel.provide_raw(&about.event, async |request: Request<Bytes>| Ok::<_, Fault>(request.into_inner())).await
    } else {
        channel.provide(&about.event, async |request: Request<ByteBuf>| Ok::<_, Fault>(request.into_inner())).await
    };
    let _provider = provider.map_err(|error| about.failed(error.code(), &error))?;
    crate::say("ready");
    let reason = client.closed().await;
    Err(errors::lost(&about.hub, &reason.to_string()))
}

/// Warms up, waits for the word, keeps calls in flight, tells how it went.
pub(super) async fn consumer(common: &Common, raw: bool, load: Load) -> Outcome {
    let about = About::new(connect::url(common), CHANNEL, EVENT)?;
    let mut channels = Vec::new();
    for _ in 0..load.clients {
        let client = connect::client(common).await?;
        channels.push(client.open(&about.channel).await.map_err(|error| about.failed(error.code(), &error))?);
    }
    let failed = |error: std::io::Error| Failure::io("a consumer", &error);
    let calls_failed = |error: CallError| about.call_failed(&error);
    drive(&channels, &about.event, raw, load, load::WARM_UP).await.map_err(calls_failed)?;
    load::wait_for_go().map_err(failed)?;
    let started = Instant::now();
    let samples =
        drive(&channels, &about.event, raw, load, Duration::from_secs_f64(load.seconds)).await.map_err(calls_failed)?;
    load::tell(&samples.summary(started.elapsed())).map_err(failed)
}

/// One task for each call in flight: on this runtime's only thread a wake-up is a push to a queue.
async fn drive(
    channels: &[Channel],
    event: &EventName,
    raw: bool,
    load: Load,
    time: Duration,
) -> Result<Samples, CallError> {
    let end = Instant::now() + time;
    let mut running = Vec::new();
    for channel in channels {
        for _ in 0..load.in_flight {
            running.push(tokio::spawn(call_until(end, channel.clone(), event.clone(), raw, load.size as usize)));
        }
    }
    let mut all = Samples::default();
    for task in running {
        match task.await {
            Ok(samples) => all.merge(samples?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    Ok(all)
}

async fn call_until(
    end: Instant,
    channel: Channel,
    event: EventName,
    raw: bool,
    size: usize,
) -> Result<Samples, CallError> {
    let mut samples = Samples::default();
    let bytes = Bytes::from(vec![0u8; size]);
    let value = ByteBuf::from(vec![0u8; size]);
    let mut sent = Instant::now();
    while sent < end {
        if raw {
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

/// The options that say how to authenticate, for all processes alike.
fn secrets(common: &Common) -> Vec<String> {
    let mut options = Vec::new();
    if let Some(file) = &common.secret_file {
        options.extend(["--secret-file".into(), file.display().to_string()]);
    }
    if let Some(credential) = &common.credential {
        options.extend(["--credential".into(), credential.clone()]);
    }
    options.extend(common.insecure_no_auth.then(|| "--insecure-no-auth".into()));
    options
}
