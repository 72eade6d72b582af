//! A hub on the default socket, until it is stopped. Then run the examples `provider` and `consumer`.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;

use commipc_async_std as commipc;

fn main() -> Result<(), Box<dyn Error>> {
    async_std::task::block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let hub = commipc::hub().await?;
    println!("listening on {}", hub.urls()[0]);
    hub.stopped().await;
    Ok(())
}
