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
    first.signal(Signal::KILL);
    first.end();
    assert_ne!(owner.end().code, Some(0));
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
