//! The rules for sockets and keys in the file system, with hubs and clients on real sockets.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use commipc_runtime::local::LocalError;
use commipc_runtime::{
    ConnectError, Connection, Fault, Hub, HubError, LinkEnd, Peer, Refusal, Request, Secret, SecretSourceError,
    TransportKind,
};

use crate::scene::{KEY, Scene};

crate::scene::over_adapters! {
    Unix;
    s13_without_a_secret_the_challenge_is_made_all_the_same,
    s14_a_key_that_others_could_read_or_replace_is_refused,
    s14_a_directory_that_others_can_write_to_is_refused,
    s16_no_key_and_no_secret_is_an_error,
    s83_v30_a_live_hubs_socket_is_never_stolen,
    s83_a_dead_hubs_socket_is_replaced,
    s83_socket_key_and_directory_are_private,
    s83_another_user_at_the_other_end_of_a_socket_is_nobody,
    s83_a_hub_removes_its_own_socket_and_no_other,
    s83_hubs_that_start_at_once_in_one_directory_keep_apart,
    s83_v30_of_hubs_that_start_at_once_on_one_socket_one_runs,
    the_key_is_kept_over_restarts,
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// What a client that has nothing but the hub's URL is told.
async fn refusal(scene: &Scene, url: &str) -> LocalError {
    match scene.bare_client(url).await.unwrap_err() {
        ConnectError::Secret(SecretSourceError::Local(error)) => error,
        other => panic!("{other:?}"),
    }
}

async fn s13_without_a_secret_the_challenge_is_made_all_the_same(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let url = &hub.urls()[0];
    let client = scene.bare_client(url).await.unwrap();
    assert!(!client.welcome().insecure);
    let error = scene.bare_client(url).secret(Secret::key([0x5a; 32])).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(Refusal::AuthFailed)), "{error:?}");
    let error = scene.bare_client(url).insecure_no_auth().await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(Refusal::KdfUnsupported)), "{error:?}");
}

/// Hub and client at the two ends of a socket, and as whose process the system shows each the other.
async fn s83_another_user_at_the_other_end_of_a_socket_is_nobody(scene: Scene) {
    let own = fs::metadata(scene.path("")).unwrap().uid();
    let hub = scene.bare_hub().listen_nowhere().secret(Secret::key(KEY)).await.unwrap();
    let of = |connection: Connection, uid: Option<u32>| {
        let uid_checked = uid == Some(own);
        Connection { peer: Peer { uid, uid_checked, ..Peer::unknown(TransportKind::Unix) }, ..connection }
    };
    let connect = async |seen_by_hub: Option<u32>, seen_by_client: Option<u32>| {
        let (ours, theirs) = scene.streams();
        hub.attach(of(ours, seen_by_hub));
        scene.bare_client("memory:socket").secret(Secret::key(KEY)).over(of(theirs, seen_by_client)).await
    };
    // Whoever it is of whom the system does not say, it proves the secret, and frames are tagged as on TCP.
    for (at_hub, at_client) in [(Some(own), Some(own)), (None, None), (Some(own), None), (None, Some(own))] {
        let client = connect(at_hub, at_client).await.unwrap();
        client.close().await;
        // The hub hears of it a moment later.
        let begun = std::time::Instant::now();
        while hub.load().clients > 0 && begun.elapsed() < std::time::Duration::from_secs(10) {
            client.sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    for other in [0, own + 1, u32::MAX].into_iter().filter(|other| *other != own) {
        // It knows the secret, which makes no difference.
        let error = connect(Some(other), Some(own)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Closed(_) | ConnectError::Unreachable { .. }), "{error:?}");
        let error = connect(Some(own), Some(other)).await.unwrap_err();
        let ConnectError::Unreachable { how: LinkEnd::Denied, detail, .. } = &error else { panic!("{error:?}") };
        assert!(detail.contains(&format!("as user {other}")) && !error.is_retryable(), "{error}");
    }
    assert_eq!(hub.load().clients, 0, "nobody of them got in");
}

async fn s14_a_key_that_others_could_read_or_replace_is_refused(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let url = &hub.urls()[0];
    let key = scene.path("hub.sock.key");
    for bad in [0o640, 0o604, 0o620, 0o700] {
        chmod(&key, bad);
        let error = refusal(&scene, url).await;
        let text = error.to_string();
        assert!(matches!(error, LocalError::KeyUnsafe { .. }), "{bad:o}: {error:?}");
        assert!(text.contains("hub.sock.key") && text.contains("chmod 600"), "{text}");
    }
    chmod(&key, 0o600);
    let _client = scene.bare_client(url).await.unwrap();
    // Whoever can write to the place a link points at could replace the key.
    let elsewhere = scene.path("elsewhere");
    fs::rename(&key, &elsewhere).unwrap();
    symlink(&elsewhere, &key).unwrap();
    let text = refusal(&scene, url).await.to_string();
    assert!(text.contains("symbolic link"), "{text}");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    let text = refusal(&scene, url).await.to_string();
    assert!(text.contains("not a regular file"), "{text}");
    fs::remove_dir(&key).unwrap();
    for torn in ["", "key:00\n", "correct horse\n"] {
        fs::write(&key, torn).unwrap();
        chmod(&key, 0o600);
        assert!(matches!(refusal(&scene, url).await, LocalError::KeyMalformed(_)), "{torn:?}");
    }
}

async fn s14_a_directory_that_others_can_write_to_is_refused(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let url = &hub.urls()[0];
    let directory = scene.path("");
    for bad in [0o770, 0o702, 0o1777] {
        chmod(&directory, bad);
        let error = refusal(&scene, url).await;
        let text = error.to_string();
        assert!(matches!(error, LocalError::UnsafeDirectory { .. }), "{bad:o}: {error:?}");
        assert!(text.contains("chmod 700"), "{text}");
        // A hub lays no key there either.
        let error = scene.bare_hub().listen(&scene.url("other.sock")).await.unwrap_err();
        assert!(matches!(error, HubError::Local(LocalError::UnsafeDirectory { .. })), "{bad:o}: {error:?}");
        assert!(!scene.path("other.sock.key").exists() && !scene.path("other.sock").exists());
    }
    // Reading is harmless: the key itself is closed to others.
    chmod(&directory, 0o755);
    let _client = scene.bare_client(url).await.unwrap();
}

async fn s16_no_key_and_no_secret_is_an_error(scene: Scene) {
    for (name, insecure) in [("given.sock", false), ("open.sock", true)] {
        let hub = scene.bare_hub().listen(&scene.url(name));
        let hub = if insecure { hub.insecure_no_auth() } else { hub.secret(Secret::key(KEY)) };
        let hub = hub.await.unwrap();
        let error = refusal(&scene, &hub.urls()[0]).await;
        let text = error.to_string();
        assert!(matches!(error, LocalError::KeyMissing(_)), "{error:?}");
        assert!(text.contains(name) && text.contains("--secret-file"), "{text}");
    }
    let error = refusal(&scene, &scene.url("no/such/directory.sock")).await;
    assert!(matches!(error, LocalError::KeyMissing(_)), "{error:?}");
}

async fn s83_v30_a_live_hubs_socket_is_never_stolen(scene: Scene) {
    let cast = scene.cast().await;
    let _one = cast.provided.provide("one", async |_: Request<()>| Ok::<_, Fault>(1)).await.unwrap();
    let stolen = async || {
        let error = scene.hub().await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, HubError::Local(LocalError::AlreadyListening(_))), "{error:?}");
        assert!(text.contains("hub.sock") && text.contains("stop it or choose another path"), "{text}");
        assert!(error.is_retryable());
    };
    stolen().await;
    // Without the lock that hubs hold, it is the socket's own answer that tells.
    fs::remove_file(scene.path("hub.sock.lock")).unwrap();
    stolen().await;
    let one: u8 = cast.math.call("one", &()).await.unwrap();
    assert_eq!(one, 1);
    let _client = scene.client(&cast.hub, "newcomer").await.unwrap();
    // Servers that know nothing of locks are left alone as well, and so are files.
    let _other = UnixListener::bind(scene.path("other.sock")).unwrap();
    let error = scene.bare_hub().listen(&scene.url("other.sock")).await.unwrap_err();
    assert!(matches!(error, HubError::Local(LocalError::AlreadyListening(_))), "{error:?}");
    fs::write(scene.path("file"), "mine").unwrap();
    let error = scene.bare_hub().listen(&scene.url("file")).await.unwrap_err();
    assert!(matches!(error, HubError::Local(LocalError::NotASocket(_))), "{error:?}");
    assert_eq!(fs::read(scene.path("file")).unwrap(), b"mine");
}

async fn s83_a_dead_hubs_socket_is_replaced(scene: Scene) {
    let socket = scene.path("hub.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(UnixStream::connect(&socket).is_err() && socket.exists(), "left behind, and nobody answers");
    let hub = scene.hub().await.unwrap();
    let _client = scene.client(&hub, "client").await.unwrap();
}

async fn s83_socket_key_and_directory_are_private(scene: Scene) {
    let hub = scene.bare_hub().listen(&scene.url("made/for/it/hub.sock")).await.unwrap();
    for directory in ["made", "made/for", "made/for/it"] {
        assert_eq!(mode(&scene.path(directory)), 0o700, "{directory}");
    }
    for file in ["hub.sock", "hub.sock.key", "hub.sock.lock"] {
        assert_eq!(mode(&scene.path("made/for/it").join(file)), 0o600, "{file}");
    }
    let left: Vec<_> = fs::read_dir(scene.path("made/for/it")).unwrap().collect();
    assert_eq!(left.len(), 3, "nothing else lies there: {left:?}");
    let _client = scene.client(&hub, "client").await.unwrap();
}

async fn s83_a_hub_removes_its_own_socket_and_no_other(scene: Scene) {
    let socket = scene.path("hub.sock");
    let hub = scene.hub().await.unwrap();
    hub.shutdown().await;
    assert!(!socket.exists());
    let hub = scene.hub().await.unwrap();
    fs::remove_file(&socket).unwrap();
    let _other = UnixListener::bind(&socket).unwrap();
    hub.shutdown().await;
    assert!(UnixStream::connect(&socket).is_ok(), "somebody else's by now");
}

async fn s83_hubs_that_start_at_once_in_one_directory_keep_apart(scene: Scene) {
    for round in 0..20 {
        let builder = |number| scene.bare_hub().listen(&scene.url(&format!("{round}-{number}.sock")));
        let hubs = scene.start_at_once((0..4).map(builder).collect()).await;
        let hubs: Vec<Hub> = hubs.into_iter().map(Result::unwrap).collect();
        for hub in &hubs {
            let client = scene.bare_client(&hub.urls()[0]).await.unwrap();
            assert_eq!(client.hub_id(), hub.id(), "{} leads to another hub", hub.urls()[0]);
        }
    }
}

async fn s83_v30_of_hubs_that_start_at_once_on_one_socket_one_runs(scene: Scene) {
    for round in 0..20 {
        let builder = |_| scene.bare_hub().listen(&scene.url(&format!("{round}.sock")));
        let mut hubs = scene.start_at_once((0..4).map(builder).collect()).await;
        hubs.sort_by_key(Result::is_err);
        let hub = hubs[0].as_ref().unwrap();
        for error in hubs[1..].iter().map(|hub| hub.as_ref().unwrap_err()) {
            assert!(matches!(error, HubError::Local(LocalError::AlreadyListening(_))), "{error:?}");
        }
        assert_eq!(scene.bare_client(&hub.urls()[0]).await.unwrap().hub_id(), hub.id());
    }
}

async fn the_key_is_kept_over_restarts(scene: Scene) {
    let key = scene.path("hub.sock.key");
    let hub = scene.hub().await.unwrap();
    let made = fs::read_to_string(&key).unwrap();
    assert!(made.starts_with("key:") && made.len() == 4 + 64 + 1, "{}", made.len());
    hub.shutdown().await;
    assert_eq!(fs::read_to_string(&key).unwrap(), made);
    let hub = scene.hub().await.unwrap();
    assert_eq!(fs::read_to_string(&key).unwrap(), made);
    let _client = scene.bare_client(&hub.urls()[0]).secret(Secret::parse(made.as_bytes()).unwrap()).await.unwrap();
    // A key that is not safe is not used by the hub either.
    hub.shutdown().await;
    chmod(&key, 0o644);
    let error = scene.hub().await.unwrap_err();
    assert!(matches!(error, HubError::Local(LocalError::KeyUnsafe { .. })), "{error:?}");
}
