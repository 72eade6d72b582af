//! Connections that come back: a hub goes and another takes its place, and programs go on.

use std::time::{Duration, Instant};

use commipc_runtime::{
    Away, CallError, ChannelName, Client, ClientError, CloseReason, ConnectionState, Failure, Fault, Hub, Limits,
    Misuse, Reconnect, Refusal, Request, Secret, States, Unrestored,
};

use crate::relay::Relay;
use crate::scene::{KEY, Scene, over_adapters, over_all};

over_all! {
    s71_programs_go_on_when_their_hub_is_replaced,
    s72_d14_a_protected_channel_is_protected_by_its_owner_again,
    s73_calls_made_while_away_wait_or_fail_as_wanted,
    the_states_of_a_connection_are_told,
    s71_s72_v28_what_does_not_come_back_is_told_and_everything_else_is_ready,
    a_connection_that_must_not_come_back_is_over,
    s70_a_client_may_be_started_before_its_hub,
}

over_adapters! {
    Unix;
    s68_s69_a_connection_that_stands_and_is_dead_is_given_up_at_both_ends,
    s35_s71_a_provider_whose_place_was_taken_meanwhile_is_told_and_the_others_are_back,
}

/// Short waits, so that no script takes long.
fn soon() -> Reconnect {
    let mut reconnect = Reconnect::default();
    (reconnect.first, reconnect.longest) = (Duration::from_millis(20), Duration::from_millis(100));
    reconnect
}

/// Waits until each of these connections has been away and is back.
async fn back(states: &mut [States]) {
    for states in states {
        while states.next().await != Some(ConnectionState::Ready) {}
    }
}

/// The states of connections that stand, after this one.
async fn states<const N: usize>(clients: [&Client; N]) -> [States; N] {
    let mut all = clients.map(Client::states);
    for states in &mut all {
        assert_eq!(states.next().await, Some(ConnectionState::Ready));
    }
    all
}

/// Ends the hub, and starts another at the same place.
async fn replace(scene: &Scene, hub: Hub) -> Hub {
    let url = hub.urls()[0].clone();
    hub.shutdown().await;
    drop(hub);
    scene.hub_at(&url).await.unwrap()
}

async fn s71_programs_go_on_when_their_hub_is_replaced(scene: Scene) {
    let mut hub = scene.hub().await.unwrap();
    let provider = scene.client(&hub, "provider").reconnect(soon()).await.unwrap();
    let consumer = scene.client(&hub, "consumer").reconnect(soon()).await.unwrap();
    let (provided, math) = (provider.open("math").await.unwrap(), consumer.open("math").await.unwrap());
    let double = async |r: Request<u32>| Ok::<_, Fault>(2 * *r);
    let _double = provided.provide("double", double).await.unwrap();
    let mut news = math.listen::<u32>("news").await.unwrap();
    for round in 1..=3 {
        let mut both = states([&provider, &consumer]).await;
        hub = replace(&scene, hub).await;
        back(&mut both).await;
        assert_eq!(math.call::<u32>("double", &round).while_away(Away::Wait).await.unwrap(), 2 * round);
        provided.broadcast("news", &round).while_away(Away::Wait).await.unwrap();
        assert_eq!(*news.next().await.unwrap(), round);
    }
    drop(hub);
}

async fn s72_d14_a_protected_channel_is_protected_by_its_owner_again(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let owner = scene.client(&hub, "owner").reconnect(soon()).await.unwrap();
    let member = scene.client(&hub, "member").reconnect(soon()).await.unwrap();
    let owned = owner.open("vault").await.unwrap();
    owned.protect("correct horse").await.unwrap();
    let vault = member.open("vault").password("correct horse").await.unwrap();
    let mut heard = vault.listen::<u32>("up").await.unwrap();
    let mut both = states([&owner, &member]).await;
    let hub = replace(&scene, hub).await;
    back(&mut both).await;
    owned.broadcast("up", &1).await.unwrap();
    assert_eq!(*heard.next().await.unwrap(), 1);
    let stranger = scene.client(&hub, "stranger").await.unwrap();
    assert!(stranger.open("vault").await.is_err(), "nobody joins without the password");
    owned.protect("battery staple").await.unwrap();
    assert!(heard.next().await.is_none(), "whose password is the old one is no member any more");
}

async fn s73_calls_made_while_away_wait_or_fail_as_wanted(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let provider = scene.client(&hub, "provider").reconnect(soon()).await.unwrap();
    let consumer = scene.client(&hub, "consumer").reconnect(soon()).await.unwrap();
    let (provided, math) = (provider.open("math").await.unwrap(), consumer.open("math").await.unwrap());
    let _double = provided.provide("double", async |r: Request<u32>| Ok::<_, Fault>(2 * *r)).await.unwrap();
    let url = hub.urls()[0].clone();
    let mut both = states([&provider, &consumer]).await;
    hub.shutdown().await;
    drop(hub);
    for states in &mut both {
        assert_ne!(states.next().await, Some(ConnectionState::Ready));
    }
    let failure = Failure::Local(Misuse::NotConnected);
    let failed = math.call::<u32>("double", &1).await.unwrap_err();
    assert_eq!(failed, CallError::Failed { failure, maybe_executed: false });
    let started = Instant::now();
    let late = math.call::<u32>("double", &1).while_away(Away::Wait).deadline(Duration::from_millis(200)).await;
    assert_eq!(late.unwrap_err().code().0, Misuse::Deadline.code());
    assert!(started.elapsed() >= Duration::from_millis(200));
    let waits = math.call::<u32>("double", &4).while_away(Away::Wait);
    let _hub = scene.hub_at(&url).await.unwrap();
    back(&mut both[..1]).await;
    assert_eq!(waits.await.unwrap(), 8);
}

async fn the_states_of_a_connection_are_told(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let client = scene.client(&hub, "client").reconnect(soon()).await.unwrap();
    let _channel = client.open("ch").await.unwrap();
    let mut states = client.states();
    assert_eq!((client.state(), states.next().await), (ConnectionState::Ready, Some(ConnectionState::Ready)));
    let url = hub.urls()[0].clone();
    hub.shutdown().await;
    drop(hub);
    // Before another hub is there: states that pass before anybody looks are left out.
    let lost = states.next().await;
    assert!(matches!(lost, Some(ConnectionState::Lost { .. })), "{lost:?}");
    let _hub = scene.hub_at(&url).await.unwrap();
    back(std::slice::from_mut(&mut states)).await;
    client.close().await;
    assert_eq!(states.next().await, Some(ConnectionState::Closed(commipc_runtime::CloseReason::Local)));
    assert_eq!(states.next().await, None);
}

/// A member of two channels, one of which has a password that its hub has forgotten, and an owner who is gone for good.
async fn s71_s72_v28_what_does_not_come_back_is_told_and_everything_else_is_ready(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let owner = scene.client(&hub, "owner").await.unwrap();
    let owned = owner.open("vault").await.unwrap();
    owned.protect("correct horse").await.unwrap();
    let mut policy = soon();
    (policy.settle, policy.missing) = (Duration::from_secs(1), Duration::from_secs(3));
    let member = scene.client(&hub, "member").reconnect(policy).await.unwrap();
    let (news, vault) =
        (member.open("news").await.unwrap(), member.open("vault").password("correct horse").await.unwrap());
    let _double = news.provide("double", async |r: Request<u32>| Ok::<_, Fault>(2 * *r)).await.unwrap();
    let (mut states, mut errors) = (states([&member]).await, member.errors());
    let hub = replace(&scene, hub).await;
    let mut told = Vec::new();
    while told.last() != Some(&ConnectionState::Ready) {
        told.extend(states[0].next().await);
    }
    let [.., ConnectionState::Restoring { done: 1, of: 2 }, ConnectionState::Ready] = told[..] else {
        panic!("{told:?}");
    };
    let mut error = errors.next().await.unwrap();
    while let ClientError::Lost(_) = error {
        error = errors.next().await.unwrap();
    }
    let (channel, why) = (ChannelName::new("vault").unwrap(), Failure::Refused(Refusal::NotProtected));
    assert_eq!(error, ClientError::Unrestored { what: Unrestored::Channel(channel.clone()), why });
    assert_eq!(error.code().0, Refusal::NotProtected.code());
    assert_eq!(error.to_string(), format!("not restored: the channel vault, so far: {why}"));
    assert_eq!(news.call::<u32>("double", &3).await.unwrap(), 6, "everything else is as it was");
    assert_eq!(errors.next().await, Some(ClientError::Channel { channel, why }), "and in the end it is over");
    assert_eq!(vault.closed().await, why);
    assert_eq!(member.state(), ConnectionState::Ready);
    drop(hub);
}

async fn a_connection_that_must_not_come_back_is_over(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let client = scene.client(&hub, "client").await.unwrap();
    let few = {
        let mut few = soon();
        few.tries = 2;
        few
    };
    let other = scene.client(&hub, "other").reconnect(few).await.unwrap();
    hub.shutdown().await;
    drop(hub);
    client.closed().await;
    let reason = other.closed().await;
    assert!(matches!(reason, CloseReason::Unreachable(_)), "{reason:?}");
}

async fn s70_a_client_may_be_started_before_its_hub(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let url = hub.urls()[0].clone();
    let early = || scene.client(&hub, "early");
    let (patient, impatient) = {
        let mut initial = soon();
        initial.initial = true;
        (early().reconnect(initial), early().reconnect(soon()))
    };
    hub.shutdown().await;
    drop(hub);
    impatient.await.expect_err("nobody is there, and it was not to wait");
    let elsewhere = scene.again();
    let clock = elsewhere.client(&elsewhere.hub().await.unwrap(), "clock").await.unwrap();
    let starts = async {
        clock.sleep(Duration::from_millis(300)).await;
        scene.hub_at(&url).await.unwrap()
    };
    let (hub, client) = smol::future::zip(starts, patient.into_future()).await;
    let client = client.unwrap();
    let math = client.open("math").await.unwrap();
    math.broadcast("news", &1).await.unwrap();
    drop(hub);
}

/// A line on which nothing gets through, and no end either, as when a machine in between is gone.
async fn s68_s69_a_connection_that_stands_and_is_dead_is_given_up_at_both_ends(scene: Scene) {
    let mut limits = Limits::default();
    (limits.heartbeat, limits.idle) = (Duration::from_millis(300), Duration::from_millis(1_500));
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).secret(Secret::key(KEY)).limits(limits.clone());
    let hub = hub.await.unwrap();
    let relay = Relay::start(&hub.urls()[0], &scene.path("relay.sock"));
    let client = |url: &str, id| scene.bare_client(url).id(id).secret(Secret::key(KEY)).limits(limits.clone());
    let (cut_off, other) =
        (client(relay.url(), "cut-off").await.unwrap(), client(&hub.urls()[0], "other").await.unwrap());
    let math = cut_off.open("math").await.unwrap();
    // Both live by the questions that each side asks.
    other.sleep(limits.idle + limits.heartbeat).await;
    assert_eq!((hub.load().links, math.broadcast("news", &1).await), (2, Ok(())));
    relay.hush();
    let dead = Instant::now();
    assert_eq!(cut_off.closed().await, CloseReason::Silent);
    assert!(dead.elapsed() >= limits.idle - limits.heartbeat, "{:?}", dead.elapsed());
    while hub.load().links > 1 {
        other.sleep(Duration::from_millis(20)).await;
    }
    assert!(dead.elapsed() < limits.idle * 10, "both in bounded time: {:?}", dead.elapsed());
    let math = other.open("math").await.expect("whose line is not dead stays");
    math.broadcast("news", &1).await.unwrap();
}

async fn s35_s71_a_provider_whose_place_was_taken_meanwhile_is_told_and_the_others_are_back(scene: Scene) {
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).secret(Secret::key(KEY)).await.unwrap();
    let (line, path) = (hub.urls()[0].clone(), scene.path("relay.sock"));
    let relay = Relay::start(&line, &path);
    let client = |url: &str, id| scene.bare_client(url).id(id).secret(Secret::key(KEY));
    let first = client(relay.url(), "first").reconnect(soon()).await.unwrap();
    let second = client(&line, "second").await.unwrap();
    let (math, taken) = (second.open("math").await.unwrap(), first.open("math").await.unwrap());
    let _sum = taken.provide("sum", async |_: Request<u32>| Ok::<_, Fault>(1)).await.unwrap();
    let _mine = taken.provide("mine", async |_: Request<u32>| Ok::<_, Fault>(1)).await.unwrap();
    let (mut states, mut errors) = (states([&first]).await, first.errors());
    relay.cut();
    std::fs::remove_file(&path).unwrap();
    let _theirs = loop {
        // Until the hub has seen that the first one is gone.
        match math.provide("sum", async |_: Request<u32>| Ok::<_, Fault>(2)).await {
            Ok(provider) => break provider,
            Err(error) => assert_eq!(error.code().0, Refusal::ProviderExists.code(), "{error}"),
        }
        second.sleep(Duration::from_millis(10)).await;
    };
    let _relay = Relay::start(&line, &path);
    back(&mut states).await;
    let mut error = errors.next().await.unwrap();
    while let ClientError::Lost(_) = error {
        error = errors.next().await.unwrap();
    }
    let ClientError::Unrestored { what, why } = error else { panic!("{error:?}") };
    assert_eq!(why, Failure::Refused(Refusal::ProviderExists));
    assert!(matches!(&what, Unrestored::Provider { event, .. } if &**event == "sum"), "{what:?}");
    assert_eq!(math.call::<u32>("sum", &0).await.unwrap(), 2);
    assert_eq!(math.call::<u32>("mine", &0).await.unwrap(), 1, "everything else is as it was");
}
