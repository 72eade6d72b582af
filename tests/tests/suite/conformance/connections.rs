//! Who is let in, under which name, and through which door.

use commipc_runtime::{ConnectError, Fault, LinkEnd, NameError, Refusal, Request, Secret, SecretSourceError};

use crate::scene::{KEY, Scene, Transport, over_all};

over_all! {
    s8_ids_are_made_up_where_none_is_given,
    s9_a_taken_id_is_refused_and_its_holder_undisturbed,
    v17_s66_d17_reserved_names_are_nobodys,
    s14_a_wrong_secret_is_refused,
    s14_a_hub_on_tcp_needs_a_secret_that_is_named,
    s16_a_client_with_a_secret_refuses_a_hub_that_asks_for_none,
    a_password_and_no_authentication_work_too,
    one_hub_listens_in_several_places,
    a_hub_that_has_stopped_leaves_its_place_to_the_next,
    nobody_listens,
}

async fn s8_ids_are_made_up_where_none_is_given(scene: Scene) {
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).secret(Secret::key(KEY)).await.unwrap();
    assert_hex(hub.id(), "hub-", 16);
    let client = || scene.bare_client(&hub.urls()[0]).secret(Secret::key(KEY));
    let (one, other) = (client().await.unwrap(), client().await.unwrap());
    assert_hex(one.id(), "cli-", 8);
    assert_ne!(one.id(), other.id());
    assert_eq!(one.hub_id(), hub.id());
}

#[track_caller]
fn assert_hex(id: &str, prefix: &str, digits: usize) {
    let hex = id.strip_prefix(prefix).unwrap_or_else(|| panic!("{id}"));
    assert!(hex.len() == digits && hex.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
}

async fn s9_a_taken_id_is_refused_and_its_holder_undisturbed(scene: Scene) {
    let cast = scene.cast().await;
    let _one = cast.provided.provide("one", async |_: Request<()>| Ok::<_, Fault>(1)).await.unwrap();
    let error = scene.client(&cast.hub, "provider").await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(Refusal::IdInUse)), "{error:?}");
    assert!(error.is_retryable() && error.code().0 == 103);
    let one: u8 = cast.math.call("one", &()).await.unwrap();
    assert_eq!(one, 1);
    cast.provider.close().await;
    // The hub may hear of the end a moment after this side.
    let again = loop {
        match scene.client(&cast.hub, "provider").await {
            Err(ConnectError::Refused(Refusal::IdInUse)) => smol::future::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(again.id().as_str(), "provider");
}

async fn v17_s66_d17_reserved_names_are_nobodys(scene: Scene) {
    let cast = scene.cast().await;
    for id in ["system", "server", "__comm_ipc_bridge"] {
        let error = scene.client(&cast.hub, id).await.unwrap_err();
        assert!(matches!(error, ConnectError::BadName(NameError::Reserved)), "{id}: {error:?}");
    }
    for id in ["", "a@b", "a\nb", &"x".repeat(129)] {
        let error = scene.client(&cast.hub, id).await.unwrap_err();
        assert!(matches!(error, ConnectError::BadName(_)), "{id}: {error:?}");
    }
    let error = cast.consumer.open("__comm_ipc_of_mine").await.unwrap_err();
    assert_eq!(error.code().0, Refusal::NameReserved.code(), "{error:?}");
    // The hub's own channel may be listened to, and nobody else speaks there.
    let system = cast.consumer.open("__comm_ipc_system").await.unwrap();
    let error = system.broadcast("new_registration", &1).await.unwrap_err();
    assert_eq!(error.code().0, Refusal::HubOwned.code(), "{error:?}");
    let error = system.provide("channels", async |_: Request<()>| Ok::<_, Fault>(())).await.unwrap_err();
    assert_eq!(error.code().0, Refusal::HubOwned.code(), "{error:?}");
}

async fn s14_a_wrong_secret_is_refused(scene: Scene) {
    let cast = scene.cast().await;
    let stranger = |secret| scene.bare_client(&cast.hub.urls()[0]).id("stranger").secret(secret);
    let error = stranger(Secret::key([8; 32])).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(Refusal::AuthFailed)), "{error:?}");
    assert!(!error.is_retryable());
    // Another kind of secret, and a credential that does not exist.
    let error = stranger(Secret::password("guess")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(Refusal::KdfUnsupported)), "{error:?}");
    let error = scene.client(&cast.hub, "stranger").credential("nobody").await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(Refusal::AuthFailed)), "{error:?}");
    let error = scene.bare_client(&cast.hub.urls()[0]).insecure_no_auth().await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(Refusal::KdfUnsupported)), "{error:?}");
}

async fn s14_a_hub_on_tcp_needs_a_secret_that_is_named(scene: Scene) {
    let url = "tcp://127.0.0.1:0";
    let error = scene.bare_hub().listen(url).await.unwrap_err().to_string();
    assert!(error.contains(url) && error.contains("--secret-file"), "{error}");
    let hub = scene.bare_hub().listen(url).secret(Secret::key(KEY)).await.unwrap();
    let error = scene.bare_client(&hub.urls()[0]).await.unwrap_err();
    assert!(matches!(error, ConnectError::Secret(SecretSourceError::Needed(_))), "{error:?}");
    let error = scene.bare_client(&hub.urls()[0]).secret(Secret::key(KEY)).insecure_no_auth().await.unwrap_err();
    assert!(matches!(error, ConnectError::Secret(SecretSourceError::Contradiction)), "{error:?}");
}

async fn s16_a_client_with_a_secret_refuses_a_hub_that_asks_for_none(scene: Scene) {
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).insecure_no_auth().await.unwrap();
    for secret in [Secret::key(KEY), Secret::password("correct horse")] {
        let error = scene.bare_client(&hub.urls()[0]).secret(secret).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(Refusal::KdfUnsupported)), "{error:?}");
    }
}

async fn a_password_and_no_authentication_work_too(scene: Scene) {
    let password = || Secret::password("correct horse battery staple");
    let hub = scene.bare_hub().listen(&scene.url("hub.sock")).secret(password()).await.unwrap();
    let client = scene.bare_client(&hub.urls()[0]).secret(password()).await.unwrap();
    assert!(!client.welcome().insecure);
    let _channel = client.open("math").await.unwrap();
    let open = scene.bare_hub().listen(&scene.url("open.sock")).insecure_no_auth().await.unwrap();
    let client = scene.bare_client(&open.urls()[0]).insecure_no_auth().await.unwrap();
    assert!(client.welcome().insecure, "it is announced");
}

async fn one_hub_listens_in_several_places(scene: Scene) {
    let [first, second] = ["a/hub.sock", "b/hub.sock"].map(|name| format!("unix:{}", scene.path(name).display()));
    let tcp = "tcp://127.0.0.1:0";
    let hub = scene.bare_hub().listen(&first).listen(tcp).listen(tcp).listen(&second).await.unwrap();
    let urls = hub.urls().to_vec();
    assert_eq!((&urls[0], &urls[3]), (&first, &second));
    let ports = [&urls[1], &urls[2]].map(|url| url.strip_prefix("tcp://127.0.0.1:").unwrap().parse::<u16>().unwrap());
    assert!(ports[0] != ports[1] && !ports.contains(&0), "port 0 becomes a real one: {ports:?}");
    // The key beside each socket is the same, and it is what the TCP listeners ask for.
    let key = scene.path("a/hub.sock.key");
    let mut channels = Vec::new();
    for (number, url) in urls.iter().enumerate() {
        let client = scene.bare_client(url).id(&format!("client-{number}"));
        let client = if url.starts_with("tcp") { client.secret_file(&key) } else { client };
        channels.push(client.await.unwrap().open("math").await.unwrap());
    }
    let _who = channels[0].provide("who", async |r: Request<()>| Ok::<_, Fault>(r.caller().to_string())).await.unwrap();
    for (number, channel) in channels.iter().enumerate() {
        let who: String = channel.call("who", &()).await.unwrap();
        assert_eq!(who, format!("client-{number}@{}", hub.id()));
    }
}

async fn nobody_listens(scene: Scene) {
    let url = match scene.transport {
        Transport::Unix => scene.url("nobody.sock"),
        Transport::Tcp => {
            let hub = scene.hub().await.unwrap();
            hub.shutdown().await;
            hub.urls()[0].clone()
        }
    };
    let error = scene.bare_client(&url).secret(Secret::key(KEY)).await.unwrap_err();
    assert!(error.is_retryable() && error.code().0 == 512, "{error:?}");
    let ConnectError::Unreachable { url: told, how, .. } = error else { panic!("{error:?}") };
    assert_eq!(told, url);
    assert!(matches!(how, LinkEnd::Refused | LinkEnd::Unreachable), "{how:?}");
    let error = scene.bare_client("http://localhost").await.unwrap_err().to_string();
    assert!(error.contains("unix:/path"), "{error}");
}

async fn a_hub_that_has_stopped_leaves_its_place_to_the_next(scene: Scene) {
    let mut hub = scene.hub().await.unwrap();
    let url = hub.urls()[0].clone();
    for round in 0..30 {
        let client = scene.client(&hub, "client").await.unwrap();
        // With a connection and without, and by either way to end.
        if round % 2 == 0 {
            client.close().await;
        }
        if round % 3 == 0 {
            hub.drain(std::time::Duration::from_secs(10)).await.unwrap();
        } else {
            hub.shutdown().await;
        }
        hub = scene.hub_at(&url).await.unwrap();
    }
}
