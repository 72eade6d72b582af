//! Clients beyond one connection and one channel: connecting when needed, credentials of their own, what they are told.

use bytes::Bytes;
use commipc_runtime::{
    CallError, Capabilities, ConnectError, CredentialId, CredentialTable, Failure, Fault, IdPattern, Refusal, Request,
    SYSTEM_CHANNEL, Secret,
};
use serde::Deserialize;

use crate::scene::{Scene, over_all};

over_all! {
    s25_an_open_channel_can_be_called_without_being_a_member,
    s85_a_client_connects_when_it_is_first_used_once_for_all,
    s85_settings_are_remembered_for_the_next_connection,
    s89_a_handler_and_a_listener_are_told_everything,
    s64_who_listens_to_the_hub_hears_who_registers,
    the_hub_lists_its_channels_and_their_members,
    each_credential_has_its_ids_and_capabilities,
    credentials_change_while_the_hub_runs,
}

async fn s25_an_open_channel_can_be_called_without_being_a_member(scene: Scene) {
    let cast = scene.cast().await;
    let _sum = cast.provided.provide("sum", async |r: Request<(i64, i64)>| Ok::<_, Fault>(r.0 + r.1)).await.unwrap();
    let mut news = cast.math.listen::<u32>("news").await.unwrap();
    let stranger = scene.client(&cast.hub, "stranger").await.unwrap();
    assert_eq!(stranger.call::<i64>("math", "sum", &(15, 25)).await.unwrap(), 40);
    stranger.send("math", "sum", &(1, 1)).await.unwrap();
    stranger.broadcast("math", "news", &7_u32).await.unwrap();
    assert_eq!(*news.next().await.unwrap(), 7);
}

async fn s85_a_client_connects_when_it_is_first_used_once_for_all(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let lazy = scene.client(&hub, "lazy").lazy();
    let other = scene.client(&hub, "other").await.unwrap();
    assert_eq!(other.channels().await.unwrap(), [], "nothing has happened yet");
    let (first, second) = smol::future::zip(lazy.connect(), lazy.connect()).await;
    // Were it two connections, the second would find its id taken.
    assert_eq!((first.unwrap().id().as_str(), second.unwrap().id().as_str()), ("lazy", "lazy"));
    let channel = lazy.open("math").await.unwrap();
    assert_eq!(other.members("math").await.unwrap()[0].client, "lazy");
    drop(channel);
}

async fn s85_settings_are_remembered_for_the_next_connection(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let lazy = scene.client(&hub, "lazy").lazy();
    let first = lazy.connect().await.unwrap();
    first.close().await;
    assert!(first.is_closed());
    // The hub may hear of the end a little later than we do.
    let second = loop {
        match lazy.connect().await {
            Ok(client) => break client,
            Err(ConnectError::Refused(Refusal::IdInUse)) => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(second.id().as_str(), "lazy");
    hub.shutdown().await;
    second.closed().await;
    assert!(lazy.connect().await.unwrap_err().is_retryable());
}

async fn s89_a_handler_and_a_listener_are_told_everything(scene: Scene) {
    let cast = scene.cast().await;
    let map = Bytes::from_static(&[0xa1, 0x01, 0x02]);
    let (tells, told) = smol::channel::unbounded();
    let tell = async |tells: smol::channel::Sender<_>, request: Request<u32>| {
        let about = (request.caller().to_string(), request.channel().to_string(), request.event().to_string());
        let sent_at = request.sent_at().0;
        tells.send((about, *request, request.metadata().clone(), request.hops(), sent_at)).await.unwrap();
        Ok::<_, Fault>(())
    };
    let _tell = cast.provided.provide_with(tells, "tell", tell).await.unwrap();
    cast.math.call::<()>("tell", &5_u32).metadata(map.clone()).await.unwrap();
    let sender = format!("consumer@{}", cast.hub.id());
    let (about, value, metadata, hops, sent_at) = told.recv().await.unwrap();
    assert_eq!(about, (sender.clone(), "math".to_owned(), "tell".to_owned()));
    assert_eq!((value, metadata, hops), (5, map.clone(), 1));
    assert!(sent_at > 1_700_000_000_000, "milliseconds, not seconds: {sent_at}");
    let mut news = cast.provided.listen::<u32>("news").await.unwrap();
    cast.math.broadcast("news", &6_u32).metadata(map.clone()).await.unwrap();
    let message = news.next().await.unwrap();
    assert_eq!((message.sender().to_string(), *message, message.hops()), (sender, 6, 1));
    assert_eq!((message.channel().as_str(), message.event().as_str()), ("math", "news"));
    assert_eq!((message.metadata(), message.number()), (&map, 1));
}

#[derive(Debug, Deserialize)]
struct Registration {
    channel: String,
    event: Option<String>,
    is_provider: bool,
    client_id: String,
}

async fn s64_who_listens_to_the_hub_hears_who_registers(scene: Scene) {
    let cast = scene.cast().await;
    let system = cast.consumer.open(SYSTEM_CHANNEL).await.unwrap();
    let mut registrations = system.listen::<Registration>("new_registration").await.unwrap();
    let _sum = cast.provided.provide("sum", async |_: Request<()>| Ok::<_, Fault>(())).await.unwrap();
    let heard = registrations.next().await.unwrap();
    assert_eq!((heard.channel.as_str(), heard.event.as_deref(), heard.is_provider), ("math", Some("sum"), true));
    assert_eq!((heard.client_id.as_str(), heard.sender().client.as_str()), ("provider", "system"));
}

async fn the_hub_lists_its_channels_and_their_members(scene: Scene) {
    let cast = scene.cast().await;
    let _sum = cast.provided.provide("sum", async |_: Request<()>| Ok::<_, Fault>(())).await.unwrap();
    let _news = cast.consumer.open("a channel before math").await.unwrap();
    let channels = cast.consumer.channels().await.unwrap();
    let facts: Vec<_> = channels.iter().map(|it| (it.name.as_str(), it.members, it.providers)).collect();
    assert_eq!(facts, [("a channel before math", 1, 0), ("math", 2, 1)]);
    let members = cast.consumer.members("math").await.unwrap();
    let facts: Vec<_> = members.iter().map(|it| (it.client.as_str(), it.provides.clone())).collect();
    assert_eq!(facts, [("provider", vec!["sum".to_owned()]), ("consumer", vec![])]);
    let missing = cast.consumer.members("nowhere").await.unwrap_err();
    let no_such = Failure::Refused(Refusal::NoSuchChannel);
    assert_eq!(missing, CallError::Failed { failure: no_such, maybe_executed: false });
}

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

fn table(entries: &[(&str, u8, Capabilities, &str)]) -> CredentialTable {
    entries.iter().fold(CredentialTable::new(), |table, (id, secret, capabilities, pattern)| {
        let ids = vec![IdPattern::new(pattern).unwrap()];
        table.with(CredentialId::new(id).unwrap(), key(*secret), *capabilities, ids)
    })
}

async fn each_credential_has_its_ids_and_capabilities(scene: Scene) {
    let credentials =
        table(&[("workers", 1, Capabilities::NONE, "worker-*"), ("eyes", 2, Capabilities::OBSERVER, "monitor")]);
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).credentials(credentials).await.unwrap();
    let client = |id: &str, credential: &str, secret: u8| {
        scene.bare_client(&hub.urls()[0]).id(id).credential(credential).secret(key(secret)).connect()
    };
    let worker = client("worker-1", "workers", 1).await.unwrap();
    assert!(matches!(client("boss", "workers", 1).await, Err(ConnectError::Refused(Refusal::IdNotAllowed))));
    assert!(matches!(client("worker-2", "workers", 2).await, Err(ConnectError::Refused(Refusal::AuthFailed))));
    assert!(matches!(client("x", "nobody", 1).await, Err(ConnectError::Refused(_))));
    let not_allowed = Failure::Refused(Refusal::NotAllowed);
    assert_eq!(worker.channels().await.unwrap_err(), CallError::Failed { failure: not_allowed, maybe_executed: false });
    assert!(worker.open(SYSTEM_CHANNEL).await.is_err());
    let monitor = client("monitor", "eyes", 2).await.unwrap();
    assert!(monitor.open(SYSTEM_CHANNEL).await.is_ok());
    assert!(monitor.welcome().capabilities.contains(Capabilities::OBSERVER));
}

async fn credentials_change_while_the_hub_runs(scene: Scene) {
    let first = table(&[("default", 1, Capabilities::NONE, "*")]);
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).credentials(first).await.unwrap();
    let client = |id: &str, secret: u8| scene.bare_client(&hub.urls()[0]).id(id).secret(key(secret)).connect();
    let old = client("old", 1).await.unwrap();
    hub.set_credentials(table(&[("default", 2, Capabilities::NONE, "*")])).await.unwrap();
    assert!(matches!(client("late", 1).await, Err(ConnectError::Refused(Refusal::AuthFailed))));
    assert!(client("new", 2).await.is_ok());
    assert!(old.open("math").await.is_ok());
    assert!(hub.set_credentials(CredentialTable::new()).await.is_err(), "nobody could connect");
    assert!(client("newer", 2).await.is_ok());
}
