//! A hub on the default socket, until it is stopped. Then run the examples `provider` and `consumer`.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;

use commipc_tokio as commipc;

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let hub = commipc::hub().await?;
    println!("listening on {}", hub.urls()[0]);
    hub.stopped().await;
    Ok(())
}
