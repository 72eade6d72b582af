//! Channels with owners and passwords, as users of handles see them.

use std::future::IntoFuture as _;
use std::time::Duration;

use commipc_runtime::{
    AfterGrace, CallError, Failure, Fault, OpenError, OwnerPolicy, ProtectError, Refusal, Request, SYSTEM_CHANNEL,
    Secret,
};

use crate::scene::{Scene, over_all};

over_all! {
    s26_s28_a_protected_channel_works_for_who_knows_the_password,
    s29_s30_passwords_are_refused_where_they_do_not_fit,
    s17_what_is_open_with_one_password_is_not_opened_with_another,
    s20_handles_of_a_channel_that_ended_say_why,
    s26_after_a_rotation_old_handles_stay_closed,
    a_keyed_handle_never_turns_into_an_unkeyed_one,
    s21_the_next_member_is_promoted_and_told,
    an_owner_that_leaves_its_handle_gives_the_channel_up,
    the_same_password_is_no_new_one,
    v28_s72_owners_and_passwords_survive_a_restart_of_the_hub,
    s34_d6_the_hubs_own_channels_open_with_their_password,
}

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

fn refused<T>(result: Result<T, OpenError>) -> Refusal {
    match result {
        Err(OpenError::Failed(Failure::Refused(refusal))) => refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

async fn s26_s28_a_protected_channel_works_for_who_knows_the_password(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let owner = scene.client(&hub, "owner").await.unwrap();
    let member = scene.client(&hub, "member").await.unwrap();
    let channel = owner.open("vault").await.unwrap();
    channel.protect("open sesame").await.unwrap();
    let _sum = channel.provide("sum", async |r: Request<(i64, i64)>| Ok::<_, Fault>(r.0 + r.1)).await.unwrap();
    let mut news = channel.listen::<String>("news").await.unwrap();
    assert_eq!(refused(member.open("vault").password("open barley").await), Refusal::PasswordWrong);
    let vault = member.open("vault").password("open sesame").await.unwrap();
    assert_eq!(vault.call::<i64>("sum", &(15, 25)).await.unwrap(), 40);
    vault.broadcast("news", "signed").await.unwrap();
    let message = news.next().await.unwrap();
    assert_eq!((message.as_str(), message.lost()), ("signed", 0));
    // Nobody else gets in by the channel's name alone.
    let stranger = scene.client(&hub, "stranger").await.unwrap();
    let error = stranger.call::<i64>("vault", "sum", &(1, 1)).await.unwrap_err();
    assert_eq!(error.code().0, Refusal::PasswordRequired.code());
    assert!(stranger.broadcast("vault", "news", "unsigned").await.is_err());
}

async fn s17_what_is_open_with_one_password_is_not_opened_with_another(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let (owner, member) = (scene.client(&hub, "owner").await.unwrap(), scene.client(&hub, "member").await.unwrap());
    let channel = owner.open("vault").await.unwrap();
    channel.protect_with(key(1)).await.unwrap();
    let vault = member.open("vault").secret(key(1)).await.unwrap();
    assert_eq!(refused(member.open("vault").secret(key(2)).await), Refusal::PasswordWrong);
    // The first one is what counts, and what a new one replaces.
    let again = member.open("vault").secret(key(1)).await.unwrap();
    channel.protect_with(key(2)).await.unwrap();
    vault.closed().await;
    again.closed().await;
    let vault = member.open("vault").secret(key(2)).await.unwrap();
    let mut news = vault.listen::<u8>("news").await.unwrap();
    channel.broadcast("news", &1).await.unwrap();
    assert_eq!(*news.next().await.unwrap(), 1);
}

async fn s29_s30_passwords_are_refused_where_they_do_not_fit(scene: Scene) {
    let cast = scene.cast().await;
    assert_eq!(refused(cast.consumer.open("math").secret(key(1)).await), Refusal::NotProtected);
    assert_eq!(refused(cast.consumer.open("nowhere").secret(key(1)).await), Refusal::NotProtected);
    assert_eq!(cast.consumer.channels().await.unwrap().len(), 1, "no trace is left");
    let error = cast.math.protect_with(key(2)).await.unwrap_err();
    assert!(matches!(error, ProtectError::Failed(Failure::Refused(Refusal::NotOwner))), "{error}");
    cast.provided.protect_with(key(1)).await.unwrap();
    cast.math.closed().await;
    assert_eq!(refused(cast.consumer.open("math").await), Refusal::PasswordRequired);
}

async fn s20_handles_of_a_channel_that_ended_say_why(scene: Scene) {
    let cast = scene.cast().await;
    let mut news = cast.math.listen::<u32>("news").await.unwrap();
    let _provider = cast.math.provide("ev", async |_: Request<()>| Ok::<_, Fault>(())).await.unwrap();
    assert_eq!(cast.math.ended(), None);
    cast.provider.close().await;
    let terminated = Failure::Refused(Refusal::Terminated);
    assert_eq!(cast.math.closed().await, terminated);
    assert!(news.next().await.is_none());
    let error = cast.math.call::<()>("ev", &()).await.unwrap_err();
    assert_eq!(error, CallError::Failed { failure: terminated, maybe_executed: false });
    assert!(cast.math.listen::<u32>("news").await.is_err());
    let again = cast.consumer.open("math").await.unwrap();
    assert_eq!((again.ended(), cast.math.ended()), (None, Some(terminated)), "a new opening is a new handle");
    // The old handle's end does not undo the new opening.
    drop(cast.math);
    let _provider = again.provide("ev", async |_: Request<()>| Ok::<_, Fault>(())).await.unwrap();
    again.call::<()>("ev", &()).await.unwrap();
}

async fn s26_after_a_rotation_old_handles_stay_closed(scene: Scene) {
    let cast = scene.cast().await;
    cast.provided.protect_with(key(1)).await.unwrap();
    cast.math.closed().await;
    let old = cast.consumer.open("math").secret(key(1)).await.unwrap();
    assert_eq!(cast.math.ended(), Some(Failure::Refused(Refusal::Rekeyed)), "from before there was a password");
    let (begins, begun) = smol::channel::bounded(1);
    let takes_long = async |begins: smol::channel::Sender<()>, r: Request<()>| {
        begins.send(()).await.unwrap();
        r.sleep(Duration::from_secs(3_600)).await;
        Ok::<_, Fault>(())
    };
    let _slow = cast.provided.provide_with(begins, "slow", takes_long).await.unwrap();
    let slow = old.call::<()>("slow", &()).into_future();
    let protects = async {
        begun.recv().await.unwrap();
        cast.provided.protect_with(key(2)).await
    };
    let (ended, protected) = smol::future::zip(slow, protects).await;
    protected.unwrap();
    let error = ended.unwrap_err();
    assert_eq!((error.code().0, error.maybe_executed()), (Refusal::Rekeyed.code(), true));
    assert_eq!(old.closed().await, Failure::Refused(Refusal::Rekeyed));
    assert_eq!(refused(cast.consumer.open("math").secret(key(1)).await), Refusal::PasswordWrong);
    let new = cast.consumer.open("math").secret(key(2)).await.unwrap();
    let _echo = cast.provided.provide("echo", async |r: Request<u32>| Ok::<_, Fault>(*r)).await.unwrap();
    assert_eq!(new.call::<u32>("echo", &7).await.unwrap(), 7);
}

async fn a_keyed_handle_never_turns_into_an_unkeyed_one(scene: Scene) {
    let cast = scene.cast().await;
    cast.provided.protect_with(key(1)).await.unwrap();
    cast.math.closed().await;
    let keyed = cast.consumer.open("math").secret(key(1)).await.unwrap();
    let _echo = cast.provided.provide("echo", async |r: Request<u32>| Ok::<_, Fault>(*r)).await.unwrap();
    let prepared = keyed.call::<u32>("echo", &1);
    cast.provided.unprotect().await.unwrap();
    keyed.closed().await;
    let open = cast.consumer.open("math").await.unwrap();
    assert_eq!(open.call::<u32>("echo", &2).await.unwrap(), 2);
    assert!(keyed.call::<u32>("echo", &3).await.is_err());
    assert!(prepared.await.is_err(), "made before, sent after: it would have gone out unsigned");
    assert_eq!(cast.provided.call::<u32>("echo", &4).await.unwrap(), 4, "the owner's own handle follows its own doing");
}

async fn s21_the_next_member_is_promoted_and_told(scene: Scene) {
    let hub = scene.hub().on_owner_leave(OwnerPolicy::Promote).await.unwrap();
    let owner = scene.client(&hub, "owner").await.unwrap();
    let member = scene.client(&hub, "member").await.unwrap();
    let _owned = owner.open("ch").await.unwrap();
    let channel = member.open("ch").await.unwrap();
    let (changed, ()) = smol::future::zip(channel.owner_changed(), owner.close()).await;
    assert_eq!(changed.unwrap().unwrap().as_str(), "member");
    channel.protect_with(key(1)).await.unwrap();
    assert_eq!(channel.ended(), None);
}

async fn an_owner_that_leaves_its_handle_gives_the_channel_up(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let owner = scene.client(&hub, "owner").await.unwrap();
    let member = scene.client(&hub, "member").await.unwrap();
    let hold = OwnerPolicy::Hold { grace: Duration::from_secs(60), then: AfterGrace::Promote };
    let owned = owner.open("ch").on_owner_leave(hold).await.unwrap();
    let channel = member.open("ch").await.unwrap();
    let (changed, ()) = smol::future::zip(channel.owner_changed(), async { drop(owned) }).await;
    assert_eq!(changed.unwrap().unwrap().as_str(), "member", "nobody is waited for who left by its own will");
}

async fn the_same_password_is_no_new_one(scene: Scene) {
    let cast = scene.cast().await;
    cast.provided.protect_with(key(1)).await.unwrap();
    let error = cast.provided.protect_with(key(1)).await.unwrap_err();
    assert!(matches!(error, ProtectError::Reused(_)), "{error}");
    cast.provided.protect_with(key(2)).await.unwrap();
}

async fn v28_s72_owners_and_passwords_survive_a_restart_of_the_hub(scene: Scene) {
    let state = scene.path("state");
    let first = scene.hub().state_dir(&state).await.unwrap();
    let id = first.id().clone();
    let owner = scene.client(&first, "owner").await.unwrap();
    let (vault, open) = (owner.open("vault").await.unwrap(), owner.open("open").await.unwrap());
    vault.protect_with(key(1)).await.unwrap();
    let second = scene.bare_hub().listen(&scene.url("other.sock")).secret(key(9)).state_dir(&state).await;
    assert!(second.unwrap_err().is_retryable(), "two hubs do not share what they remember");
    first.shutdown().await;
    drop((vault, open));
    let again = scene.hub().state_dir(&state).await.unwrap();
    assert_eq!(*again.id(), id);
    let member = scene.client(&again, "member").await.unwrap();
    assert_eq!(refused(member.open("vault").await), Refusal::PasswordRequired);
    assert_eq!(refused(member.open("vault").secret(key(2)).await), Refusal::PasswordWrong);
    let vault = member.open("vault").secret(key(1)).await.unwrap();
    for channel in [vault, member.open("open").await.unwrap()] {
        let error = channel.protect_with(key(3)).await.unwrap_err();
        assert_eq!(error.code().0, Refusal::NotOwner.code(), "the owner is another");
    }
    again.shutdown().await;
}

async fn s34_d6_the_hubs_own_channels_open_with_their_password(scene: Scene) {
    let hub = scene.hub().system_password(key(5)).await.unwrap();
    let monitor = scene.client(&hub, "monitor").await.unwrap();
    assert_eq!(refused(monitor.open(SYSTEM_CHANNEL).await), Refusal::PasswordRequired);
    assert_eq!(monitor.channels().await.unwrap_err().code().0, Refusal::PasswordRequired.code());
    let own = monitor.open(SYSTEM_CHANNEL).secret(key(5)).await.unwrap();
    let mut events = own.listen_all::<serde_json::Value>().await.unwrap();
    let worker = scene.client(&hub, "worker").await.unwrap();
    let _math = worker.open("math").await.unwrap();
    let told = events.next().await.unwrap();
    assert_eq!((told.sender().client.as_str(), &told["client_id"]), ("system", &"worker".into()));
    assert!(monitor.channels().await.unwrap().iter().any(|channel| channel.name == "math"));
    let error = own.protect_with(key(6)).await.unwrap_err();
    assert_eq!(error.code().0, Refusal::NotOwner.code());
}
