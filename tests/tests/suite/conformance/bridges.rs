//! Two hubs and a bridge between them: clients of one reach those of the other.

use commipc_runtime::{BridgeClosed, BridgeError, Fault, Hub, Request, Secret, Side};
use smol::stream::Stream;

use crate::scene::{Scene, over_all};

over_all! {
    s74_s75_s76_what_one_hubs_clients_offer_is_there_at_the_other,
    s74_a_bridge_needs_two_hubs_and_their_secret_for_bridges,
}

fn secret() -> Secret {
    Secret::key([8; 32])
}

async fn hubs(scene: &Scene) -> (Hub, Hub) {
    let hub = |name: &str| scene.hub_at(&scene.url(name)).bridge_secret(secret());
    (hub("a.sock").id("hub-a").await.unwrap(), hub("b.sock").id("hub-b").await.unwrap())
}

async fn s74_s75_s76_what_one_hubs_clients_offer_is_there_at_the_other(scene: Scene) {
    let (a, b) = hubs(&scene).await;
    let provider = scene.client(&b, "provider").await.unwrap();
    let provided = provider.open("math").await.unwrap();
    let twice = async |number: Request<u32>| {
        assert_eq!((number.caller().to_string(), number.path().len()), ("consumer@hub-a".to_owned(), 1));
        Ok::<_, Fault>(*number * 2)
    };
    let _twice = provided.provide("twice", twice).await.unwrap();
    let count = |until: Request<u32>| numbers(*until);
    let _count = provided.provide_stream("count", count).await.unwrap();
    let mut listener = provided.listen::<String>("news").await.unwrap();
    let bridge = scene.bridge(&a.urls()[0], &b.urls()[0]).secret(Side::A, secret()).secret(Side::B, secret());
    let bridge = bridge.id("b1").await.unwrap();
    let (left, right) = bridge.hubs().unwrap();
    assert_eq!((left.as_str(), right.as_str(), bridge.id().as_str()), ("hub-a", "hub-b", "b1"));
    let consumer = scene.client(&a, "consumer").await.unwrap();
    let math = consumer.open("math").await.unwrap();
    let (answer, trace) = math.call::<u32>("twice", &21_u32).traced().await.unwrap();
    assert_eq!((answer, trace.provider.to_string()), (42, "provider@hub-b".to_owned()));
    let mut items = math.stream::<u32>("count", &300_u32).await.unwrap();
    let mut sum = 0;
    while let Some(item) = items.next().await {
        sum += item.unwrap();
    }
    assert_eq!(sum, 299 * 300 / 2);
    math.broadcast("news", &"hello").await.unwrap();
    let heard = listener.next().await.unwrap();
    assert_eq!((heard.as_str(), heard.sender().to_string()), ("hello", "consumer@hub-a".to_owned()));
    assert!(bridge.counters().passed > 300);
    // Without the bridge there is nothing of that.
    bridge.close().await;
    let error = math.call::<u32>("twice", &21_u32).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

/// A stream of numbers.
fn numbers(until: u32) -> impl Stream<Item = Result<u32, Fault>> + Send {
    smol::stream::iter((0..until).map(Ok))
}

async fn s74_a_bridge_needs_two_hubs_and_their_secret_for_bridges(scene: Scene) {
    let (a, b) = hubs(&scene).await;
    let (a_url, b_url) = (a.urls()[0].clone(), b.urls()[0].clone());
    let error = scene.bridge(&a_url, &b_url).await.unwrap_err();
    assert!(matches!(error, BridgeError::NoSecret(url) if url == a_url));
    let to_itself = scene.bridge(&a_url, &a_url).secret(Side::A, secret()).secret(Side::B, secret());
    let error = to_itself.await.unwrap_err();
    assert!(matches!(error, BridgeError::Closed(BridgeClosed::SameHub(_))), "{error}");
    let bridge = scene.bridge(&a_url, &b_url).secret(Side::A, secret()).secret(Side::B, secret()).await.unwrap();
    b.shutdown().await;
    bridge.parted().await;
    assert_eq!(bridge.hubs(), None);
    let b = scene.hub_at(&b_url).bridge_secret(secret()).id("hub-b").await.unwrap();
    bridge.bridged().await.unwrap();
    bridge.close().await;
    drop(b);
}
