//! Much at once.

use std::sync::Arc;
use std::time::Duration;

use commipc_runtime::{CallError, Failure, Fault, Provider, RUNNING_MAX, Refusal, Request, WAITING_MAX};
use smol::lock::{Barrier, Semaphore};

use crate::scene::{Cast, Scene, make, over_all};

over_all! {
    two_hundred_and_fifty_six_calls_are_in_flight_at_once,
    more_than_a_provider_may_queue_is_refused_and_the_rest_is_answered,
    many_clients_call_each_other_at_once,
}

/// Four events of one client, since one runs no more than [`RUNNING_MAX`] handlers.
const EVENTS: [&str; 4] = ["north", "east", "south", "west"];

async fn two_hundred_and_fifty_six_calls_are_in_flight_at_once(scene: Scene) {
    let cast = scene.cast().await;
    let in_flight = EVENTS.len() * RUNNING_MAX;
    assert_eq!(in_flight, 256);
    // No handler answers before all of them run.
    let all_run = Arc::new(Barrier::new(in_flight));
    let meet = async |all_run: Arc<Barrier>, number: Request<usize>| {
        all_run.wait().await;
        Ok::<_, Fault>(*number)
    };
    let mut providers: Vec<Provider> = Vec::new();
    for event in EVENTS {
        providers.push(cast.provided.provide_with(Arc::clone(&all_run), event, meet).await.unwrap());
    }
    let call = |number: usize| cast.math.call::<usize>(EVENTS[number % EVENTS.len()], &number).into_future();
    let mut calls: Vec<_> = (0..in_flight).map(call).collect();
    make(&mut calls).await;
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), number);
    }
}

async fn more_than_a_provider_may_queue_is_refused_and_the_rest_is_answered(scene: Scene) {
    let cast = scene.cast().await;
    let gate = Arc::new(Semaphore::new(0));
    let wait = async |gate: Arc<Semaphore>, number: Request<usize>| {
        gate.acquire().await.forget();
        Ok::<_, Fault>(*number)
    };
    let _wait = cast.provided.provide_with(Arc::clone(&gate), "wait", wait).await.unwrap();
    let fits = RUNNING_MAX + WAITING_MAX;
    let mut calls: Vec<_> = (0..fits).map(|number| cast.math.call::<usize>("wait", &number).into_future()).collect();
    make(&mut calls).await;
    let error = cast.math.call::<usize>("wait", &fits).await.unwrap_err();
    let failure = Failure::Refused(Refusal::Overloaded);
    assert_eq!(error, CallError::Failed { failure, maybe_executed: false });
    assert!(error.is_retryable());
    gate.add_permits(fits);
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), number);
    }
}

async fn many_clients_call_each_other_at_once(scene: Scene) {
    const CLIENTS: usize = 24;
    let Cast { hub, .. } = scene.cast().await;
    let mut held = Vec::new();
    let mut channels = Vec::new();
    for number in 0..CLIENTS {
        let channel = scene.client(&hub, &format!("client-{number}")).await.unwrap().open("ring").await.unwrap();
        let add = async |number: usize, value: Request<usize>| {
            value.sleep(Duration::from_millis(1)).await;
            Ok::<_, Fault>(*value + number)
        };
        held.push(channel.provide_with(number, &number.to_string(), add).await.unwrap());
        channels.push(channel);
    }
    let mut calls = Vec::new();
    for (from, channel) in channels.iter().enumerate() {
        for to in 0..CLIENTS {
            calls.push((from + to, channel.call::<usize>(&to.to_string(), &from).into_future()));
        }
    }
    let (expected, mut calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    make(&mut calls).await;
    for (expected, call) in expected.into_iter().zip(calls) {
        assert_eq!(call.await.unwrap(), expected);
    }
}
