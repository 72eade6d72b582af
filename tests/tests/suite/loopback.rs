//! A hub in memory, as the unit tests of programs use it: on every adapter, with everything that real ones have.

use std::time::{Duration, Instant};

use commipc_runtime::{
    Away, CallError, ConnectionState, Failure, Fault, Limits, Misuse, Reconnect, Refusal, Request, Secret,
};

use crate::scene::Scene;

crate::scene::over_adapters! {
    Tcp;
    a_program_is_tested_without_sockets,
    passwords_deadlines_and_limits_hold_in_memory,
    what_is_cut_comes_back,
    a_dropped_loopback_is_a_hub_that_is_gone,
    a_loopback_asks_for_the_secret_it_was_given,
    long_lists_are_told_whole,
}

async fn a_program_is_tested_without_sockets(scene: Scene) {
    let hub = scene.bare_hub().loopback().await.unwrap();
    assert!(hub.hub().urls().is_empty(), "it listens nowhere");
    let provider = hub.client("provider").await.unwrap();
    let consumer = hub.client("consumer").await.unwrap();
    let (provided, math) = (provider.open("math").await.unwrap(), consumer.open("math").await.unwrap());
    let _sum = provided.provide("sum", async |n: Request<(i64, i64)>| Ok::<_, Fault>(n.0 + n.1)).await.unwrap();
    assert_eq!(math.call::<i64>("sum", &(15, 25)).await.unwrap(), 40);
    let mut news = math.listen::<String>("news").await.unwrap();
    provided.broadcast("news", "pi is still 3").await.unwrap();
    assert_eq!(*news.next().await.unwrap(), "pi is still 3");
    provider.close().await;
    assert!(math.call::<i64>("sum", &(1, 2)).await.is_err(), "nobody provides it any more");
}

async fn passwords_deadlines_and_limits_hold_in_memory(scene: Scene) {
    let mut limits = Limits::default();
    limits.channels = 2;
    let hub = scene.bare_hub().limits(limits).loopback().await.unwrap();
    let owner = hub.client("owner").await.unwrap();
    let vault = owner.open("vault").await.unwrap();
    vault.protect("correct horse").await.unwrap();
    let member = hub.client("member").await.unwrap();
    assert!(member.open("vault").password("battery staple").await.is_err());
    let _vault = member.open("vault").password("correct horse").await.unwrap();
    let wait = async |r: Request<u64>| {
        r.sleep(Duration::from_secs(*r)).await;
        Ok::<_, Fault>(())
    };
    let _wait = vault.provide("wait", wait).await.unwrap();
    let started = Instant::now();
    let late = vault.call::<()>("wait", &60).deadline(Duration::from_millis(50)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(matches!(late, CallError::Failed { maybe_executed: true, .. }), "{late:?}");
    let _second = owner.open("second").await.unwrap();
    let third = owner.open("third").await.unwrap_err();
    assert_eq!(third.code().0, Refusal::TooManyChannels.code(), "{third}");
}

async fn what_is_cut_comes_back(scene: Scene) {
    let mut soon = Reconnect::default();
    (soon.first, soon.longest) = (Duration::from_millis(10), Duration::from_millis(50));
    let hub = scene.bare_hub().loopback().await.unwrap();
    let provider = hub.client("provider").reconnect(soon).await.unwrap();
    let consumer = hub.client("consumer").reconnect(soon).await.unwrap();
    let fragile = hub.client("fragile").no_reconnect().await.unwrap();
    let math = provider.open("math").await.unwrap();
    let _double = math.provide("double", async |r: Request<u32>| Ok::<_, Fault>(2 * *r)).await.unwrap();
    let mut both = [provider.states(), consumer.states()];
    for states in &mut both {
        assert_eq!(states.next().await, Some(ConnectionState::Ready));
    }
    for round in 1..=3 {
        hub.cut();
        for states in &mut both {
            while states.next().await != Some(ConnectionState::Ready) {}
        }
        let answer = consumer.call::<u32>("math", "double", &round).while_away(Away::Wait).await;
        assert_eq!(answer.unwrap(), 2 * round);
    }
    fragile.closed().await;
}

async fn a_dropped_loopback_is_a_hub_that_is_gone(scene: Scene) {
    let hub = scene.bare_hub().loopback().await.unwrap();
    let client = hub.client("client").no_reconnect().await.unwrap();
    let late = hub.client("late");
    drop(hub);
    client.closed().await;
    let failure = Failure::Local(Misuse::NotConnected);
    let failed = client.call::<u32>("math", "double", &1).await.unwrap_err();
    assert_eq!(failed, CallError::Failed { failure, maybe_executed: false });
    assert!(late.await.is_err(), "nobody connects to a hub that is gone");
}

async fn a_loopback_asks_for_the_secret_it_was_given(scene: Scene) {
    let secret = Secret::parse(b"correct horse").unwrap();
    let hub = scene.bare_hub().secret(secret).loopback().await.unwrap();
    let _told = hub.client("told").await.unwrap();
    let wrong = hub.client("guessing").secret(Secret::parse(b"battery staple").unwrap()).no_reconnect().await;
    assert!(wrong.is_err(), "{wrong:?}");
}

/// A hub tells at most a thousand entries at a time.
async fn long_lists_are_told_whole(scene: Scene) {
    let hub = scene.bare_hub().loopback().await.unwrap();
    let (one, other) = (hub.client("one").await.unwrap(), hub.client("other").await.unwrap());
    let mut channels = Vec::new();
    for number in 0..1_020 {
        let owner = if number % 2 == 0 { &one } else { &other };
        channels.push(owner.open(&format!("channel {number:0>4}")).await.unwrap());
    }
    let listed: Vec<String> = one.channels().await.unwrap().into_iter().map(|channel| channel.name).collect();
    assert_eq!(listed, channels.iter().map(|channel| channel.name().to_string()).collect::<Vec<_>>());
}
