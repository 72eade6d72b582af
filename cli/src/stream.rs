//! `commipc stream`: items as lines.

use std::future::ready;
use std::time::Instant;

use ciborium::Value;
use commipc_tokio::{DEFAULT_CREDIT, Items};
use tokio::io::{AsyncWriteExt as _, Stdout};

use crate::args::{Common, Stream};
use crate::connect;
use crate::errors::About;
use crate::failure::Outcome;
use crate::json;
use crate::stop::Stop;

/// Lines are written at this many bytes at the latest, while more items are there.
const BATCH: usize = 64 << 10;

pub(crate) async fn run(args: &Stream, payload: Value, common: &Common) -> Outcome {
    let mut stop = Stop::new()?;
    let about = About::new(connect::url(common), &args.topic.channel, &args.topic.event)?;
    tokio::select! {
        outcome = stream(args, &payload, &about, common) => outcome,
        // What is dropped with that future cancels the stream.
        () = stop.requested() => Ok(()),
    }
}

async fn stream(args: &Stream, payload: &Value, about: &About, common: &Common) -> Outcome {
    let until = Instant::now() + args.deadline;
    let ready = tokio::time::timeout_at(until.into(), connect::channel(about, common)).await;
    let (client, channel) = ready.map_err(|_| about.late(args.deadline))??;
    let wanted = args.take.unwrap_or(u64::MAX);
    let asking = channel.stream::<Value>(&about.event, payload).credit(wanted.min(DEFAULT_CREDIT));
    let left = until.saturating_duration_since(Instant::now());
    let items = asking.deadline(left).await.map_err(|error| about.call_failed(&error))?;
    print(items, wanted, about).await?;
    client.close().await;
    Ok(())
}

/// Prints so many items at most. No item is taken while stdout takes no lines, and its end ends the stream.
async fn print(mut items: Items<Value>, mut wanted: u64, about: &About) -> Outcome {
    let mut out = Lines { stdout: tokio::io::stdout(), waiting: String::new() };
    while wanted > 0 {
        let next = tokio::select! {
            biased;
            item = items.next() => item,
            // Nothing is there yet: what waits must not wait for it.
            () = ready(()), if !out.waiting.is_empty() => {
                if out.flush().await.is_err() {
                    return Ok(());
                }
                continue;
            }
        };
        let item = match next {
            Some(Ok(item)) => item,
            Some(Err(error)) => {
                // Nobody is left to tell of the items before when it is closed.
                let _ = out.flush().await;
                return Err(about.call_failed(&error));
            }
            None => break,
        };
        wanted -= 1;
        out.waiting.push_str(&json::print(&item));
        out.waiting.push('\n');
        // Whoever reads this has seen enough, as `head` has.
        if out.waiting.len() >= BATCH && out.flush().await.is_err() {
            return Ok(());
        }
    }
    let _ = out.flush().await;
    Ok(())
}

/// Lines on their way to stdout, which may be a pipe that nobody reads: a signal must end the command all the same.
struct Lines {
    stdout: Stdout,
    waiting: String,
}

impl Lines {
    async fn flush(&mut self) -> std::io::Result<()> {
        self.stdout.write_all(self.waiting.as_bytes()).await?;
        self.waiting.clear();
        self.stdout.flush().await
    }
}
