//! Provides calls and a stream, until its hub goes. A hub must be running: the example `hub`.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use commipc::{Fault, Request, Wait as _, each, on_thread};
use commipc_blocking as commipc;

fn main() -> Result<(), Box<dyn Error>> {
    let client = commipc::client(&commipc::default_url()).id("provider").no_reconnect().wait()?;
    let math = client.open("math").wait()?;
    let asked = Arc::new(AtomicU64::new(0));
    let sum = {
        let asked = Arc::clone(&asked);
        on_thread(move |numbers: Request<(i64, i64)>| {
            asked.fetch_add(1, Relaxed);
            Ok::<_, Fault>(numbers.0 + numbers.1)
        })
    };
    let _sum = math.provide("sum", sum).wait()?;
    let count = |limit: Request<u32>| each((0..*limit).map(Ok::<_, Fault>));
    let _count = math.provide_stream("count", count).wait()?;
    let tell = on_thread(move |seconds: Request<u64>| {
        thread::sleep(Duration::from_secs(*seconds));
        Ok::<_, Fault>(asked.load(Relaxed))
    });
    let _tell = math.provide("asked", tell).wait()?;
    println!("providing");
    println!("over: {}", client.closed().wait());
    Ok(())
}
