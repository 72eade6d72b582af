//! The program of the README, which a suite compares with this file and runs.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use commipc::{Fault, Request};
use commipc_tokio as commipc; // or commipc_smol: nothing else changes

#[derive(serde::Deserialize, serde::Serialize)]
struct Sum {
    a: i64,
    b: i64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = commipc::hub().await?; // on the default socket, with its key beside it
    let url = &hub.urls()[0];

    let provider = commipc::client(url).id("math_service").await?;
    let operations = provider.open("math_operations").await?;
    let asked = Arc::new(AtomicU64::new(0)); // state: every request gets a clone of it
    let add = async |asked: Arc<AtomicU64>, sum: Request<Sum>| {
        asked.fetch_add(1, Relaxed);
        Ok::<_, Fault>(sum.a + sum.b)
    };
    let _sum = operations.provide_with(Arc::clone(&asked), "sum", add).await?;

    let consumer = commipc::client(url).await?;
    let math = consumer.open("math_operations").await?;
    let total: i64 = math.call("sum", &Sum { a: 15, b: 25 }).await?;
    println!("15 + 25 = {total}; the provider was asked {} time(s)", asked.load(Relaxed));
    Ok(())
}
