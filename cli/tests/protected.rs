//! Channels with a password on the command line.

mod support;

use rustix::process::Signal;
use support::{Scene, json};

fn vault(scene: &Scene) -> (String, support::Process) {
    let key = scene.file("vault.key", &format!("key:{}\n", "5a".repeat(32)));
    let mut owner = scene.start(&["protect", "vault", "--password-file", &key]);
    assert_eq!(owner.line(), "protecting vault");
    (key, owner)
}

#[test]
fn s26_s28_members_with_the_password_file_get_in_and_others_are_told_what_to_do() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let (key, _owner) = vault(&scene);
    let other = scene.file("other.key", &format!("key:{}\n", "a5".repeat(32)));
    let mut provider = scene.start(&["provide", "vault", "open", "--echo", "--password-file", &key]);
    assert_eq!(provider.line(), "providing vault/open");
    scene.run(&["call", "vault", "open", "7", "--password-file", &key]).printed("7");
    let members = scene.run(&["members", "vault", "--json"]).json_lines();
    assert_eq!(members.iter().map(|member| &member["owner"]).collect::<Vec<_>>(), [true, false]);
    let members = scene.run(&["members", "vault"]).stdout;
    assert_eq!(
        members.lines().map(|line| line.split_whitespace().nth(1)).collect::<Vec<_>>(),
        [Some("OWNER"), Some("yes"), Some("-")]
    );
    let owner = &members.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let channels = scene.run(&["channels", "--json"]).json_lines();
    assert_eq!((channels[0]["owner"].as_str(), &channels[0]["protected"]), (Some(owner.as_str()), &true.into()));
    let channels = scene.run(&["channels"]).stdout;
    let row: Vec<_> = channels.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["vault", owner, "yes", "2", "1"]);
    scene.run(&["call", "vault", "open", "7"]).failed(6, &["code 209", "--password-file"]);
    scene.run(&["call", "vault", "open", "7", "--password-file", &other]).failed(6, &["code 210", "--password-file"]);
    let nowhere = ["call", "other", "open", "--password-file", &key];
    scene.run(&nowhere).failed(6, &["code 211", "commipc protect other"]);
    scene.run(&["protect", "vault", "--password-file", &other]).failed(6, &["code 209"]);
    scene.run(&["protect", "empty"]).failed(2, &["--password-file"]);
}

#[test]
fn s26_d11_a_hangup_changes_the_password_and_shows_the_others_out() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let (key, mut owner) = vault(&scene);
    let mut provider = scene.start(&["provide", "vault", "open", "--echo", "--password-file", &key]);
    assert_eq!(provider.line(), "providing vault/open");
    owner.signal(Signal::HUP);
    assert!(owner.line_beside().contains("has this password already"), "the file has not changed");
    std::fs::write(&key, format!("key:{}\n", "77".repeat(32))).unwrap();
    owner.signal(Signal::HUP);
    assert_eq!(owner.line(), "rekeyed vault");
    assert_eq!(scene.run(&["members", "vault", "--json"]).json_lines().len(), 1, "whoever is out is not a member");
    let done = provider.end();
    assert_eq!(done.code, Some(6), "{done:?}");
    assert!(done.stderr.contains("the channel was closed") && done.stderr.contains("new password"), "{done:?}");
    let mut provider = scene.start(&["provide", "vault", "open", "--echo", "--password-file", &key]);
    assert_eq!(provider.line(), "providing vault/open");
    scene.run(&["call", "vault", "open", "1", "--password-file", &key]).printed("1");
}

#[test]
fn s20_s34_whoever_stops_protecting_gives_the_name_free_and_whoever_is_killed_does_not() {
    let scene = Scene::new();
    let _hub = scene.hub();
    for round in 0..2 {
        let key = scene.file(&format!("key-{round}"), &format!("key:{}\n", format!("5{round}").repeat(32)));
        let mut owner = scene.start(&["protect", "vault", "--password-file", &key]);
        assert_eq!(owner.line(), "protecting vault", "with another password each time");
        owner.signal(if round == 0 { Signal::INT } else { Signal::KILL });
        owner.end();
    }
    let again = scene.run(&["protect", "vault", "--password-file", &scene.path("key-1").display().to_string()]);
    again.failed(6, &["code 209", "for a day", "commipc clear vault"]);
}

#[test]
fn s20_s21_what_becomes_of_the_channel_is_the_hubs_choice() {
    for (policy, survives) in [("terminate", false), ("promote", true)] {
        let scene = Scene::new();
        let mut hub = scene.start(&["hub", "--on-owner-leave", policy]);
        hub.line();
        let (key, owner) = vault(&scene);
        let mut provider = scene.start(&["provide", "vault", "open", "--echo", "--password-file", &key, "--json"]);
        assert!(json(&provider.line()).is_object());
        owner.signal(Signal::TERM);
        assert_eq!(owner.end().code, Some(0));
        let call = scene.run(&["call", "vault", "open", "1", "--password-file", &key]);
        if survives {
            call.printed("1");
        } else {
            assert_ne!(call.code, Some(0), "{call:?}");
            assert_eq!(provider.end().code, Some(6));
        }
    }
    for bad in ["sometimes", "hold:", "hold:2s,sometimes"] {
        assert_eq!(Scene::new().run(&["hub", "--on-owner-leave", bad]).code, Some(2), "{bad}");
    }
}

/// An owner that is killed is waited for; then the channel is somebody else's.
#[test]
fn s22_d14_a_channel_is_held_for_its_owner_and_then_a_members() {
    let scene = Scene::new();
    let mut hub = scene.start(&["hub", "--on-owner-leave", "hold:3s,promote"]);
    hub.line();
    let (key, owner) = vault(&scene);
    let mut provider = scene.start(&["provide", "vault", "open", "--echo", "--password-file", &key]);
    assert_eq!(provider.line(), "providing vault/open");
    let owners = || {
        let members = scene.run(&["members", "vault", "--json"]).json_lines();
        members.iter().map(|member| member["owner"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(owners(), [true, false]);
    owner.signal(Signal::KILL);
    owner.end();
    let call = ["call", "vault", "open", "1", "--password-file", &key];
    scene.run(&call).printed("1");
    assert_eq!(owners(), [false], "it is waited for");
    let mut rounds = 0..300;
    while owners() != [true] {
        assert!(rounds.next().is_some(), "nobody owns it");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    scene.run(&call).printed("1");
}
