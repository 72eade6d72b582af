//! `commipc bench stream`: items through a hub, at the credit that streams have unless they say otherwise.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commipc_tokio::{CallError, Fault, Items, Request};
use futures_lite::stream;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::args::{BenchStream, Load, Role};
use super::load;
use super::part::Part;
use super::report::{Figure, Report, Row, Section, Unit};
use super::target::{Target, rounds};
use super::usage::{self, Usage};
use crate::args::Common;
use crate::connect;
use crate::errors::{self, About};
use crate::failure::{Exit, Failure, Outcome};

const CHANNEL: &str = "bench";
const EVENT: &str = "feed";

/// What a consumer has taken.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Taken {
    pub(super) items: u64,
    pub(super) seconds: f64,
}

/// What one round measured.
struct Round {
    size: u32,
    taken: Taken,
    hub: Option<Usage>,
    provider: Option<Usage>,
    consumer: Option<Usage>,
}

impl Round {
    fn items_per_s(&self) -> f64 {
        self.taken.items as f64 / self.taken.seconds
    }
}

pub(super) fn run(args: &BenchStream, common: &Common, dir: &Path) -> Outcome<Report> {
    let BenchStream { size: sizes, clients, time, raw, hub_url } = args;
    let targets = [Target::hub(common, dir, hub_url.as_deref())?, Target::raw(dir)?];
    let mut sections = Vec::new();
    for &size in sizes {
        let load = Load { size, raw: *raw, in_flight: 1, clients: *clients, seconds: time.seconds, protected: false };
        let [hub, relay] = &targets;
        let providers = [hub.start(Role::Streamer, load)?, relay.start(Role::Streamer, load)?];
        let rounds = rounds(&targets, time.rounds, |target| {
            round(target, &providers[usize::from(std::ptr::eq(target, relay))], load)
        })?;
        let title = format!("items of {size} B on each of {clients} connections");
        sections.push(Section { key: format!("items_of_{size}"), title, rows: Row::all(&FIGURES, &rounds) });
    }
    let content = if *raw { "raw bytes" } else { "CBOR" };
    let what = format!("Streams, items as {content}, {} s each", time.seconds);
    let setup = serde_json::json!({
        "sizes": sizes, "raw_payload": raw, "clients": clients,
        "seconds": time.seconds, "rounds": time.rounds, "hub_url": hub_url,
    });
    Ok(Report::new("stream", &what, time.rounds as usize, setup, sections))
}

/// Runs one consumer and counts what all three used meanwhile.
fn round(target: &Target, provider: &Part, load: Load) -> Outcome<Round> {
    let mut consumer = target.start(Role::Taker, load)?;
    let usage = |consumer: &Part| [target.usage(), provider.usage(), consumer.usage()];
    let before = usage(&consumer);
    consumer.go()?;
    let taken = consumer.result()?;
    let [hub, provider, consumer] = usage::between(before, usage(&consumer));
    Ok(Round { size: load.size, taken, hub, provider, consumer })
}

const FIGURES: [Figure<Round>; 6] = [
    ("items_per_s", "items/s", Unit::PerSecond, |round| Some(round.items_per_s())),
    ("mb_per_s", "MB/s", Unit::PerSecond, |round| Some(round.items_per_s() * f64::from(round.size) / 1e6)),
    ("hub_cpu_us", "hub CPU per item", Unit::Micros, |round| Some(round.hub?.cpu_us(round.taken.items))),
    ("hub_switches", "hub switches per item", Unit::Fraction, |round| Some(round.hub?.switches(round.taken.items))),
    ("provider_cpu_us", "provider CPU per item", Unit::Micros, |round| Some(round.provider?.cpu_us(round.taken.items))),
    ("consumer_cpu_us", "consumer CPU per item", Unit::Micros, |round| Some(round.consumer?.cpu_us(round.taken.items))),
];

/// Gives endless streams until it is killed or the hub goes.
pub(super) async fn provider(common: &Common, load: Load) -> Outcome {
    let about = About::new(connect::url(common), CHANNEL, EVENT)?;
    let client = connect::client(common).await?;
    let channel = client.open(&about.channel).await.map_err(|error| about.failed(error.code(), &error))?;
    let provider = if load.raw {
        let item = Bytes::from(vec![0u8; load.size as usize]);
        let endless = move |_: Request<Bytes>| stream::repeat(Ok::<_, Fault>(item.clone()));
        channel.provide_stream_raw(&about.event, endless).await
    } else {
        // Encoded anew for each item, and not copied before that.
        let item: &'static ByteBuf = Box::leak(Box::new(ByteBuf::from(vec![0u8; load.size as usize])));
        channel.provide_stream(&about.event, move |_: Request<()>| stream::repeat(Ok::<_, Fault>(item))).await
    };
    let _provider = provider.map_err(|error| about.failed(error.code(), &error))?;
    crate::say("ready");
    let reason = client.closed().await;
    Err(errors::lost(&about.hub, reason))
}

/// Warms up, waits for the word, takes items as fast as they come, tells how many.
pub(super) async fn consumer(common: &Common, load: Load) -> Outcome {
    let about = About::new(connect::url(common), CHANNEL, EVENT)?;
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..load.clients {
        let client = connect::client(common).await?;
        let channel = client.open(&about.channel).await.map_err(|error| about.failed(error.code(), &error))?;
        if load.raw {
            bytes.push(channel.stream_raw(&about.event, "").await.map_err(|error| about.call_failed(&error))?);
        } else {
            values.push(channel.stream(&about.event, &()).await.map_err(|error| about.call_failed(&error))?);
        }
    }
    let taken = if load.raw {
        take_all::<Bytes>(bytes, load, &about).await
    } else {
        take_all::<ByteBuf>(values, load, &about).await
    };
    load::tell(&taken?).map_err(|error| Failure::io("a consumer", &error))
}

async fn take_all<T>(streams: Vec<Items<T>>, load: Load, about: &About) -> Outcome<Taken>
where
    T: AsRef<[u8]> + Send + 'static,
{
    let (streams, _) = drive(streams, load, load::WARM_UP, about).await?;
    load::wait_for_go().map_err(|error| Failure::io("a consumer", &error))?;
    let started = Instant::now();
    let (_streams, items) = drive(streams, load, Duration::from_secs_f64(load.seconds), about).await?;
    Ok(Taken { items, seconds: started.elapsed().as_secs_f64() })
}

/// Takes items of all streams at once for some time, and tells how many there were.
async fn drive<T>(streams: Vec<Items<T>>, load: Load, time: Duration, about: &About) -> Outcome<(Vec<Items<T>>, u64)>
where
    T: AsRef<[u8]> + Send + 'static,
{
    let end = Instant::now() + time;
    let taking = streams.into_iter().map(|stream| take_until(end, stream, load.size as usize));
    let taken = load::together(taking).await.map_err(|error| match error {
        Some(error) => about.call_failed(&error),
        None => Failure::new(Exit::Other, "an item came altered, or an endless stream ended"),
    })?;
    let items = taken.iter().map(|(_, items)| items).sum();
    Ok((taken.into_iter().map(|(stream, _)| stream).collect(), items))
}

async fn take_until<T: AsRef<[u8]>>(
    end: Instant,
    mut stream: Items<T>,
    size: usize,
) -> Result<(Items<T>, u64), Option<CallError>> {
    /// Items between two looks at the clock: not many, since long items take their time.
    const LOOK: u64 = 16;
    let mut items: u64 = 0;
    while !items.is_multiple_of(LOOK) || Instant::now() < end {
        let item = stream.try_next().await?.ok_or(None)?;
        if item.as_ref().len() != size {
            return Err(None);
        }
        items += 1;
    }
    Ok((stream, items))
}
