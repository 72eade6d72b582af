//! Owners whose answers are lost or not waited for, with their handles.

#![allow(missing_docs, reason = "a test binary")]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use commipc_protocol::Refusal;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::Failure;
use commipc_runtime::{AfterGrace, Channel, Client, Fault, OwnerPolicy, ProtectError, Request};
use commipc_sim::SimNet;

const MINUTE: Duration = Duration::from_secs(60);

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

/// An owner that provides `twice` in a channel that is held for it while it is away.
async fn owner(net: &SimNet) -> (Client, Channel) {
    let client = net.client("owner", "a").connect().await.expect("a hub");
    let hold = OwnerPolicy::Hold { grace: 10 * MINUTE, then: AfterGrace::Terminate };
    let vault = client.open("vault").on_owner_leave(hold).await.expect("nobody has it");
    vault.protect_with(key(1)).await.expect("we own it");
    let twice = async |number: Request<i64>| Ok::<_, Fault>(*number * 2);
    vault.provide("twice", twice).await.expect("a member").detach();
    (client, vault)
}

async fn twice(net: &SimNet, name: &str, secret: Option<Secret>) -> Option<i64> {
    let client = net.client(name, "a").connect().await.ok()?;
    let mut opening = client.open("vault");
    if let Some(secret) = secret {
        opening = opening.secret(secret);
    }
    let vault = opening.await.ok()?;
    let answer = vault.call("twice", &21).await.ok();
    client.close().await;
    answer
}

/// Begins something and gives it up at once.
async fn begin(what: impl Future) {
    let mut what = pin!(what);
    poll_fn(|cx| {
        let _ = what.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

#[test]
fn v13_s72_an_owner_whose_answer_is_lost_goes_on_with_the_password_that_it_gave() {
    SimNet::builder().hub("a").seeds(0..10).run(async |net| {
        let (client, vault) = owner(&net).await;
        net.mute("a", "owner");
        assert!(vault.protect_with(key(2)).await.is_err(), "its hub's word is lost");
        // Twice: the second time by what the first has taught.
        for time in 0..2 {
            net.cut("owner", "a");
            net.sleep(2 * MINUTE).await;
            assert_eq!(vault.ended(), None);
            assert_eq!(twice(&net, "member", Some(key(2))).await, Some(42), "{time}");
            assert_eq!(twice(&net, "ex-member", Some(key(1))).await, None);
        }
        assert!(matches!(vault.protect_with(key(2)).await, Err(ProtectError::Reused(_))));
        vault.protect_with(key(3)).await.expect("it owns the channel still");
        assert_eq!(twice(&net, "member", Some(key(3))).await, Some(42));
        client.close().await;
    });
}

#[test]
fn s23_a_password_that_is_taken_away_by_one_who_did_not_wait_is_gone_for_its_handles_too() {
    SimNet::builder().hub("a").seeds(0..10).run(async |net| {
        let (client, vault) = owner(&net).await;
        begin(vault.unprotect()).await;
        net.sleep(MINUTE).await;
        let again = vault.unprotect().await;
        let refused = Failure::Refused(Refusal::NotProtected);
        assert!(matches!(&again, Err(ProtectError::Failed(why)) if *why == refused), "{again:?}");
        assert_eq!(twice(&net, "member", None).await, Some(42));
        assert_eq!(vault.call::<i64>("twice", &4).await, Ok(8), "without a signature");
        vault.protect_with(key(1)).await.expect("it has no password any more");
        begin(vault.protect_with(key(2))).await;
        net.sleep(MINUTE).await;
        net.cut("owner", "a");
        net.sleep(2 * MINUTE).await;
        assert_eq!(vault.ended(), None, "whether it was changed or not");
        let answers = [twice(&net, "old", Some(key(1))).await, twice(&net, "new", Some(key(2))).await];
        assert!(answers == [Some(42), None] || answers == [None, Some(42)], "{answers:?}");
        client.close().await;
    });
}
