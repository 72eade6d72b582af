//! Programs that reach for a real runtime in a simulation are told so.

use std::time::Duration;

use commipc_runtime::{Fault, Request};
use commipc_sim::{Broken, SimNet};

/// What becomes of a network with a handler that waits like that.
fn with_a_handler_that<Fut>(waits: fn() -> Fut) -> Box<Broken>
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let found = SimNet::builder().hub("a").search(async |net: SimNet| {
        let provider = net.client("p", "a").connect().await.expect("a hub");
        let channel = provider.open("math").await.expect("a channel");
        let sum = move |numbers: Request<(i64, i64)>| async move {
            waits().await;
            Ok::<_, Fault>(numbers.0 + numbers.1)
        };
        let _sum = channel.provide("sum", sum).await.expect("an event");
        let caller = net.client("c", "a").connect().await.expect("a hub");
        let total: i64 = caller.call("math", "sum", &(15, 25)).await.expect("an answer");
        assert_eq!(total, 40);
    });
    found.expect_err("it cannot work")
}

#[test]
fn a_handler_that_sleeps_with_tokio_is_told() {
    let broken = with_a_handler_that(|| tokio::time::sleep(Duration::from_millis(1)));
    assert!(broken.why.contains("real runtime") && broken.why.contains("Request::sleep"), "{broken}");
    assert!(broken.why.contains("Tokio"), "it is told which: {broken}");
}

#[test]
fn a_handler_that_sleeps_with_smol_is_told() {
    let broken = with_a_handler_that(|| async {
        smol::Timer::after(Duration::from_secs(3_600)).await;
    });
    assert!(broken.to_string().contains("async-io") && broken.to_string().contains("Request::sleep"), "{broken}");
}
