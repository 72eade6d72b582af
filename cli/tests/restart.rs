//! A hub that is killed and started again with its state directory.

mod support;

use std::os::unix::fs::MetadataExt as _;

use rustix::process::Signal;
use support::{Process, Scene};

fn hub(scene: &Scene) -> Process {
    let state = scene.path("state");
    let mut hub = scene.start(&["hub", "--state-dir", &state.display().to_string()]);
    hub.line();
    hub
}

#[test]
fn v28_d14_s72_a_killed_hub_comes_back_with_its_passwords_and_owners() {
    let scene = Scene::new();
    let first = hub(&scene);
    let key = scene.file("vault.key", &format!("key:{}\n", "5a".repeat(32)));
    let mut owner = scene.start(&["protect", "vault", "--password-file", &key]);
    assert_eq!(owner.line(), "protecting vault");
    let members = || scene.run(&["members", "vault", "--json"]).json_lines();
    let id = members()[0]["client"].clone();
    first.signal(Signal::KILL);
    first.end();
    assert!(owner.line_beside().contains("tried again until it is back"));
    let state = scene.path("state");
    assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    for file in std::fs::read_dir(&state).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
    let _second = hub(&scene);
    scene.run(&["call", "vault", "open", "7"]).failed(6, &["code 209"]);
    scene.run(&["protect", "vault", "--password-file", &key]).failed(6, &["code 209"]);
    let mut provider = scene.start(&["provide", "vault", "open", "--echo", "--password-file", &key]);
    assert_eq!(provider.line(), "providing vault/open");
    scene.run(&["call", "vault", "open", "7", "--password-file", &key]).printed("7");
    // The owner comes back by itself, and can do what an owner can.
    assert_eq!(owner.line_beside(), "commipc: the hub is back");
    assert!(members().iter().any(|member| member["client"] == id && member["owner"] == true));
    std::fs::write(&key, format!("key:{}\n", "77".repeat(32))).unwrap();
    owner.signal(Signal::HUP);
    assert_eq!(owner.line(), "rekeyed vault");
    assert_eq!(provider.end().code, Some(6), "everybody else has to join anew");
    owner.signal(Signal::TERM);
    assert_eq!(owner.end().code, Some(0));
}

#[test]
fn a_state_directory_serves_one_hub_and_a_damaged_file_is_named() {
    let scene = Scene::new();
    let first = hub(&scene);
    let state = scene.path("state").display().to_string();
    let other = scene.path("other.sock").display().to_string();
    let second = ["hub", "--state-dir", &state, "--listen", &format!("unix:{other}")];
    scene.run(&second).failed(1, &["another hub uses the state directory", "code 217"]);
    first.signal(Signal::TERM);
    assert_eq!(first.end().code, Some(0));
    let file = scene.path("state").join("hub");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    scene.run(&second).failed(1, &["state/hub: it is damaged", "put a good copy in its place"]);
    bytes[20] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    scene.run(&second).failed(1, &["chmod 700"]);
}

#[test]
fn s34_v12_the_hubs_own_channels_need_their_password_and_keep_it_over_a_restart() {
    let scene = Scene::new();
    let key = scene.file("system.key", &format!("key:{}\n", "3c".repeat(32)));
    let other = scene.file("other.key", &format!("key:{}\n", "c3".repeat(32)));
    let state = scene.path("state").display().to_string();
    let start = || {
        let mut hub = scene.start(&["hub", "--state-dir", &state, "--system-password-file", &key]);
        hub.line();
        hub
    };
    let first = start();
    for _ in 0..2 {
        scene.run(&["channels"]).failed(6, &["code 209", "--password-file"]);
        scene.run(&["channels", "--password-file", &other]).failed(6, &["code 210"]);
        assert!(scene.run(&["channels", "--password-file", &key]).stdout.contains("__comm_ipc_system"));
        scene.run(&["members", "__comm_ipc_system"]).failed(6, &["code 209"]);
        scene.run(&["listen", "__comm_ipc_logs"]).failed(6, &["code 209"]);
    }
    let mut logs = scene.listener(&["__comm_ipc_logs", "--password-file", &key]);
    scene.run(&["channels", "--password-file", &key, "--id", "visitor"]);
    assert!(logs.line().contains("visitor"));
    first.signal(Signal::KILL);
    first.end();
    logs.end();
    let _second = start();
    scene.run(&["channels"]).failed(6, &["code 209"]);
    assert_eq!(scene.run(&["channels", "--password-file", &key]).code, Some(0));
    let unreadable = scene.path("none").display().to_string();
    let failed = scene.run(&["hub", "--listen", "tcp://127.0.0.1:0", "--system-password-file", &unreadable]);
    assert_eq!(failed.code, Some(6), "{failed:?}");
}
