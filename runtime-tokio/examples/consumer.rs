//! Calls and streams what the example `provider` provides.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::time::Duration;

use commipc_tokio as commipc;

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let client = commipc::client(&commipc::default_url()).await?;
    let math = client.open("math").await?;
    let total: i64 = math.call("sum", &(15, 25)).deadline(Duration::from_secs(2)).await?;
    println!("15 + 25 = {total}");
    let mut count = math.stream::<u32>("count", &5).await?;
    while let Some(number) = count.try_next().await? {
        println!("{number}");
    }
    let asked: u64 = math.call("asked", &1).await?;
    println!("the provider was asked {asked} time(s)");
    Ok(())
}
