//! Calls and streams what the example `provider` provides.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::time::Duration;

use commipc::{Iterate as _, Wait as _};
use commipc_blocking as commipc;

fn main() -> Result<(), Box<dyn Error>> {
    let client = commipc::client(&commipc::default_url()).wait()?;
    let math = client.open("math").wait()?;
    let total: i64 = math.call("sum", &(15, 25)).deadline(Duration::from_secs(2)).wait()?;
    println!("15 + 25 = {total}");
    for number in math.stream::<u32>("count", &5).wait()?.into_iter() {
        println!("{}", number?);
    }
    let asked: u64 = math.call("asked", &1).wait()?;
    println!("the provider was asked {asked} time(s)");
    Ok(())
}
