//! The program of `docs/simulating.md`, with what that says a program takes.

use std::time::Duration;

use commipc_sim::SimNet;
use commipc_tokio::{ClientBuilder, Fault, Request};

type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// In production: `adder(commipc_tokio::client(url))`.
async fn adder(hub: ClientBuilder) -> Result<(), Trouble> {
    let client = hub.connect().await?;
    let sum = async |numbers: Request<(i64, i64)>| Ok::<_, Fault>(numbers.0 + numbers.1);
    client.open("math").await?.provide("sum", sum).await?.detach();
    client.closed().await;
    Ok(())
}

/// A hub `a`, the program at a node of its own, and a scenario that says what happens and what must hold.
#[test]
fn both_find_their_way_back() {
    SimNet::builder()
        .seeds(0..50)
        .hub("a")
        .program("adder", async |net: SimNet| adder(net.client("adder", "a")).await.expect("it serves"))
        .run(async |net| {
            let till = net.client("till", "a").connect().await.unwrap();
            net.sleep(Duration::from_secs(1)).await;

            net.restart("a").await; // the hub dies and comes back, having forgotten everything
            net.sleep(Duration::from_secs(120)).await;

            let total: i64 = till.call("math", "sum", &(15, 25)).await.unwrap();
            assert_eq!(total, 40, "both found their way back");
        });
}
