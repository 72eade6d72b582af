//! Who provides an event, and what becomes of its callers when it goes.

use std::future::pending;
use std::time::Instant;

use commipc_runtime::{
    CallError, CloseReason, DEFAULT_DEADLINE, Failure, Fault, Misuse, ProvideError, Refusal, Request,
};

use crate::scene::{Scene, make, over_all, watch};

over_all! {
    s35_an_event_has_one_provider,
    s35_the_same_client_provides_again_and_the_newer_handler_answers,
    s24_a_dropped_provider_is_withdrawn_and_finishes_what_it_began,
    a_detached_provider_stays_as_long_as_the_hub,
    s41_v26_calls_end_at_once_when_their_provider_goes,
    s43_calls_end_with_a_typed_error_when_the_hub_shuts_down,
}

/// Answers with the name it was given.
async fn name(name: &'static str, _: Request<()>) -> Result<&'static str, Fault> {
    Ok(name)
}

async fn s35_an_event_has_one_provider(scene: Scene) {
    let cast = scene.cast().await;
    let first = cast.provided.provide_with("first", "who", name).await.unwrap();
    let refused = cast.math.provide_with("second", "who", name).await.unwrap_err();
    assert_eq!(refused, ProvideError::Failed(Failure::Refused(Refusal::ProviderExists)));
    // What was refused has left nothing behind, neither here nor there.
    for channel in [&cast.math, &cast.provided] {
        let who: String = channel.call("who", &()).await.unwrap();
        assert_eq!(who, "first");
    }
    first.withdraw();
    settled(&cast.provided).await;
    let _second = cast.math.provide_with("second", "who", name).await.unwrap();
    let who: String = cast.provided.call("who", &()).await.unwrap();
    assert_eq!(who, "second");
}

async fn s35_the_same_client_provides_again_and_the_newer_handler_answers(scene: Scene) {
    let cast = scene.cast().await;
    let (open_gate, gate) = smol::channel::bounded::<()>(1);
    let (running, runs) = smol::channel::unbounded();
    let slow = async |(gate, running): (smol::channel::Receiver<()>, smol::channel::Sender<()>), _: Request<()>| {
        running.send(()).await.unwrap();
        gate.recv().await.unwrap();
        Ok::<_, Fault>("older")
    };
    let older = cast.provided.provide_with((gate, running), "who", slow).await.unwrap();
    let mut call = [cast.math.call::<String>("who", &()).into_future()];
    make(&mut call).await;
    runs.recv().await.unwrap();
    let newer = cast.provided.provide_with("newer", "who", name).await.unwrap();
    let asked = async || cast.math.call::<String>("who", &()).await;
    assert_eq!(asked().await.unwrap(), "newer");
    // What the older one has begun is its own; its handle stands for nothing.
    open_gate.send(()).await.unwrap();
    let [call] = call;
    assert_eq!(call.await.unwrap(), "older");
    drop(older);
    settled(&cast.provided).await;
    assert_eq!(asked().await.unwrap(), "newer");
    // To others the event is taken as before, and free when the newer one goes.
    let refused = cast.math.provide_with("other", "who", name).await.unwrap_err();
    assert_eq!(refused, ProvideError::Failed(Failure::Refused(Refusal::ProviderExists)));
    newer.withdraw();
    settled(&cast.provided).await;
    assert_eq!(asked().await.unwrap_err().code().0, Refusal::NoProvider.code());
}

async fn s24_a_dropped_provider_is_withdrawn_and_finishes_what_it_began(scene: Scene) {
    let cast = scene.cast().await;
    let (open_gate, gate) = smol::channel::bounded::<()>(1);
    let (running, runs) = smol::channel::unbounded();
    let wait = async |(gate, running): (smol::channel::Receiver<()>, smol::channel::Sender<()>), _: Request<()>| {
        running.send(()).await.unwrap();
        gate.recv().await.unwrap();
        Ok::<_, Fault>("finished")
    };
    let provider = cast.provided.provide_with((gate, running), "wait", wait).await.unwrap();
    let mut call = [cast.math.call::<String>("wait", &()).into_future()];
    make(&mut call).await;
    runs.recv().await.unwrap();
    drop(provider);
    settled(&cast.provided).await;
    let error = cast.math.call::<String>("wait", &()).await.unwrap_err();
    assert_eq!(error.code().0, Refusal::NoProvider.code());
    open_gate.send(()).await.unwrap();
    let [call] = call;
    assert_eq!(call.await.unwrap(), "finished");
}

async fn a_detached_provider_stays_as_long_as_the_hub(scene: Scene) {
    let cast = scene.cast().await;
    cast.provided.provide_with("kept", "who", name).await.unwrap().detach();
    drop((cast.provided, cast.provider));
    for _ in 0..3 {
        let who: String = cast.math.call("who", &()).await.unwrap();
        assert_eq!(who, "kept");
    }
}

async fn s41_v26_calls_end_at_once_when_their_provider_goes(scene: Scene) {
    let cast = scene.cast().await;
    let (running, runs) = smol::channel::unbounded();
    let hang = async |running: smol::channel::Sender<()>, _: Request<()>| -> Result<(), Fault> {
        running.send(()).await.unwrap();
        pending().await
    };
    let _hang = cast.provided.provide_with(running, "hang", hang).await.unwrap();
    let mut calls = [(); 3].map(|()| cast.math.call::<()>("hang", &()).into_future());
    make(&mut calls).await;
    for _ in 0..3 {
        runs.recv().await.unwrap();
    }
    let started = Instant::now();
    cast.provider.close().await;
    for call in calls {
        let failure = Failure::Refused(Refusal::ProviderGone);
        assert_eq!(call.await.unwrap_err(), CallError::Failed { failure, maybe_executed: true });
    }
    assert!(started.elapsed() < DEFAULT_DEADLINE / 2, "not by their deadline: {:?}", started.elapsed());
}

async fn s43_calls_end_with_a_typed_error_when_the_hub_shuts_down(scene: Scene) {
    let cast = scene.cast().await;
    let (watched, dropped) = watch();
    let (running, runs) = smol::channel::unbounded();
    let hang = async |(_watched, running): (crate::scene::Watched, smol::channel::Sender<()>), _: Request<()>| {
        running.send(()).await.unwrap();
        pending::<Result<(), Fault>>().await
    };
    let provider = cast.provided.provide_with((watched, running), "hang", hang).await.unwrap();
    let mut call = [cast.math.call::<()>("hang", &()).into_future()];
    make(&mut call).await;
    runs.recv().await.unwrap();
    let started = Instant::now();
    cast.hub.shutdown().await;
    let [call] = call;
    let failure = Failure::Refused(Refusal::ShuttingDown);
    assert_eq!(call.await.unwrap_err(), CallError::Failed { failure, maybe_executed: true });
    for client in [&cast.consumer, &cast.provider] {
        assert_eq!(client.closed().await, CloseReason::Goodbye(Refusal::ShuttingDown));
    }
    dropped.recv().await.unwrap();
    assert!(started.elapsed() < DEFAULT_DEADLINE / 2, "not by its deadline: {:?}", started.elapsed());
    drop(provider);
    let late = cast.math.call::<()>("hang", &()).await.unwrap_err();
    assert_eq!(late.code().0, Misuse::NotConnected.code(), "{late:?}");
    assert!(!late.maybe_executed());
}

/// Waits until the hub has seen everything this client has said so far.
async fn settled(channel: &commipc_runtime::Channel) {
    let _ = channel.call::<()>("nobody provides this", &()).await;
}
