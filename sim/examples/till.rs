//! A till that pays in twice when its connection breaks at the wrong moment: a bug of a program, found by simulating it.
//!
//! ```text
//! cargo run -p commipc-sim --example till            finds it, and prints the command that replays it
//! cargo run -p commipc-sim --example till -- mended  the same program with its mistake mended: nothing is found
//! ```

#![expect(clippy::print_stdout, reason = "a program tells what it found")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use commipc_runtime::{CallError, Client, ClientBuilder, Fault, Request};
use commipc_sim::{Broken, Report, SimNet, Storm};
use serde::{Deserialize, Serialize};

/// What a till pays in.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Deposit {
    receipt: u64,
    cents: u64,
}

/// The bank's books: receipts and what was paid in for them.
type Books = Arc<Mutex<Vec<(u64, u64)>>>;

type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// The bank, a program as it runs anywhere: with `commipc_tokio::client(url)`, say.
async fn bank(hub: ClientBuilder, books: Books, careful: bool) -> Result<(), Trouble> {
    let client = hub.connect().await?;
    let channel = client.open("bank").await?;
    let book = move |deposit: Request<Deposit>| {
        let books = Arc::clone(&books);
        async move {
            // It writes that to a disk, which takes its time.
            deposit.sleep(Duration::from_millis(20)).await;
            let mut books = books.lock().expect("nobody panics over the books");
            let known = books.iter().any(|(receipt, _)| *receipt == deposit.receipt);
            if !(careful && known) {
                books.push((deposit.receipt, deposit.cents));
            }
            Ok::<_, Fault>(())
        }
    };
    channel.provide("deposit", book).await?.detach();
    client.closed().await;
    Ok(())
}

/// The till. The mistake: a call that has failed may have been executed, and asking again then pays in again.
async fn till(client: &Client, deposits: &[Deposit]) {
    for deposit in deposits {
        loop {
            let paid: Result<(), CallError> =
                client.call("bank", "deposit", deposit).deadline(Duration::from_secs(5)).await;
            if paid.is_ok() {
                break;
            }
            client.sleep(Duration::from_millis(500)).await;
        }
    }
}

/// What must hold, and when it is looked at.
async fn scenario(net: SimNet, careful: bool) {
    let books = Books::default();
    let (there, at_the_bank) = (net.clone(), Arc::clone(&books));
    drop(net.node("bank").spawn(async move {
        while bank(there.client("bank", "a"), Arc::clone(&at_the_bank), careful).await.is_err() {
            there.sleep(Duration::from_millis(500)).await;
        }
    }));

    let client = loop {
        match net.client("till", "a").connect().await {
            Ok(client) => break client,
            Err(_) => net.sleep(Duration::from_millis(500)).await,
        }
    };
    let deposits: Vec<_> = (1..=5).map(|receipt| Deposit { receipt, cents: 100 * receipt }).collect();
    till(&client, &deposits).await;

    let mut paid = BTreeMap::<u64, u64>::new();
    for (receipt, cents) in books.lock().expect("nobody panics over the books").iter() {
        *paid.entry(*receipt).or_default() += cents;
    }
    let owed: BTreeMap<_, _> = deposits.iter().map(|deposit| (deposit.receipt, deposit.cents)).collect();
    assert_eq!(paid, owed, "what the bank has booked is what the till has paid in");
}

/// Runs seeds until one fails.
pub(crate) fn search(careful: bool, seeds: std::ops::Range<u64>) -> Result<Report, Box<Broken>> {
    let storm = Storm::lasting(Duration::from_secs(10)).pace(Duration::from_millis(300)).crashes(0).pauses(0);
    SimNet::builder().seeds(seeds).hub("a").storm(storm).search(|net| scenario(net, careful))
}

fn main() -> ExitCode {
    match search(std::env::args().any(|word| word == "mended"), 0..500) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("{broken}");
            ExitCode::FAILURE
        }
    }
}
