//! A hub on the default socket, until it is stopped. Then run the examples `provider` and `consumer`.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;

use commipc::Wait as _;
use commipc_blocking as commipc;

fn main() -> Result<(), Box<dyn Error>> {
    let hub = commipc::hub().wait()?;
    println!("listening on {}", hub.urls()[0]);
    hub.stopped().wait();
    Ok(())
}
