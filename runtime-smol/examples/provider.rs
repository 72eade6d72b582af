//! Provides calls and a stream, until its hub goes. A hub must be running: the example `hub`.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use commipc::{Fault, Request};
use commipc_smol as commipc;
use futures_lite::stream;

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let client = commipc::client(&commipc::default_url()).id("provider").no_reconnect().await?;
    let math = client.open("math").await?;
    let asked = Arc::new(AtomicU64::new(0)); // state: every request gets a clone of it
    let sum = async |asked: Arc<AtomicU64>, numbers: Request<(i64, i64)>| {
        asked.fetch_add(1, Relaxed);
        Ok::<_, Fault>(numbers.0 + numbers.1)
    };
    let _sum = math.provide_with(Arc::clone(&asked), "sum", sum).await?;
    let count = |limit: Request<u32>| stream::iter((0..*limit).map(Ok::<_, Fault>));
    let _count = math.provide_stream("count", count).await?;
    let tell = async |asked: Arc<AtomicU64>, seconds: Request<u64>| {
        seconds.sleep(Duration::from_secs(*seconds)).await;
        Ok::<_, Fault>(asked.load(Relaxed))
    };
    let _tell = math.provide_with(asked, "asked", tell).await?;
    println!("providing");
    println!("over: {}", client.closed().await);
    Ok(())
}
