//! The key of a channel's owner in a file: the channel outlives the command that made it, and has its owner at any hub.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use support::ring::Ring;
use support::{Scene, wait_until};

fn key(scene: &Scene, name: &str, digits: &str) -> String {
    scene.file(name, &format!("key:{}\n", digits.repeat(32)))
}

#[test]
fn s26_s82_an_owner_changes_a_password_from_another_hub_with_the_file_of_its_key() {
    let ring = Ring::new();
    let _bridges = [ring.bridge((0, 1), &[]), ring.bridge((1, 2), &[])];
    let scene = &ring.scene;
    let (old, new) = (key(scene, "old.key", "5a"), key(scene, "new.key", "77"));
    let file = scene.path("vault.owner").display().to_string();
    let protect = |hub: usize, more: &[&str]| {
        let (url, at) = (ring.url(hub), ["protect", "vault", "--owner-key-file", &file]);
        scene.start(&[&at, more, &["--hub", &url]].concat())
    };
    let mut maker = protect(0, &["--password-file", &old]);
    assert_eq!(maker.line(), "protecting vault");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("owner:") && text.ends_with(":vault@hub-a\n"), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Its maker goes, and its members stay.
    let provide = |password: &str, hub: usize| {
        let provide = ["provide", "vault", "open", "--echo", "--password-file", password, "--hub", &ring.url(hub)];
        let mut provider = scene.start(&provide);
        provider.line_anywhere().contains("providing").then_some(provider)
    };
    let (mut here, mut far) = (None, None);
    wait_until(|| {
        here = provide(&old, 0);
        far = provide(&old, 2);
        here.is_some() && far.is_some()
    });
    maker.signal(Signal::TERM);
    assert_eq!(maker.end().code, Some(0));
    // Word of what is elsewhere takes a moment to the hub between.
    let call = |password: &str| ring.run(1, &["call", "vault", "open", "7", "--password-file", password]);
    wait_until(|| call(&old).stdout.trim() == "7");
    let mut owner = protect(2, &["--password-file", &old, "--new-password-file", &new]);
    assert_eq!(owner.line(), "rekeyed vault");
    assert_eq!(owner.line(), "protecting vault");
    for member in [here, far] {
        let done = member.unwrap().end();
        assert_eq!(done.code, Some(6), "{done:?}");
        assert!(done.stderr.contains("new password"), "{done:?}");
    }
    wait_until(|| call(&old).stderr.contains("code 210"));
    let _provider = provide(&new, 0).unwrap();
    wait_until(|| call(&new).stdout.trim() == "7");
    // Once more, by a hangup; and at home again.
    std::fs::write(&new, format!("key:{}\n", "88".repeat(32))).unwrap();
    owner.signal(Signal::HUP);
    assert_eq!(owner.line(), "rekeyed vault");
    owner.signal(Signal::TERM);
    assert_eq!(owner.end().code, Some(0));
    let mut owner = protect(0, &["--password-file", &new]);
    assert_eq!(owner.line(), "protecting vault");
    wait_until(|| {
        let members = ring.run(0, &["members", "vault", "--json"]).json_lines();
        members.iter().any(|member| member["owner"] == true)
    });
}

#[test]
fn v13_s26_a_file_that_is_no_owners_key_or_anothers_is_refused() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let (password, other) = (key(&scene, "vault.key", "5a"), key(&scene, "other.key", "66"));
    let file = scene.path("vault.owner").display().to_string();
    let owner = ["--password-file", &password, "--owner-key-file", &file];
    let mut maker = scene.start(&[&["protect", "vault"][..], &owner].concat());
    assert_eq!(maker.line(), "protecting vault");
    let protect = |words: &[&str]| scene.run(&[&["protect"], words].concat());
    protect(&[&["elsewhere"][..], &owner].concat()).failed(6, &["code 208", "one of channel vault"]);
    protect(&["vault", "--password-file", &password, "--owner-key-file", &password]).failed(6, &["no owner key"]);
    protect(&["vault", "--password-file", &other, "--owner-key-file", &file])
        .failed(6, &["code 210", "--new-password-file"]);
    let alone = protect(&["vault", "--password-file", &password, "--new-password-file", &other]);
    assert!(alone.code == Some(2) && alone.stderr.contains("--owner-key-file"), "{alone:?}");
    let forged = std::fs::read_to_string(&file).unwrap();
    let (_, names) = forged.split_once(":vault").unwrap();
    let forged = scene.file("forged.owner", &format!("owner:{}:vault{names}", "ab".repeat(32)));
    protect(&["vault", "--password-file", &password, "--owner-key-file", &forged, "--new-password-file", &other])
        .failed(6, &["code 208"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    protect(&[&["vault"][..], &owner].concat()).failed(6, &["chmod 600"]);
    // Killed, it comes back by its key.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    drop(maker);
    let mut maker = scene.start(&[&["protect", "vault"][..], &owner].concat());
    assert_eq!(maker.line(), "protecting vault");
}
