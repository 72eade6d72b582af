//! Every exit code, with what is said about it.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Scene, wait_for_file};

#[test]
fn usage_is_2() {
    let scene = Scene::new();
    for args in [
        &["no-such-command"][..],
        &["call"],
        &["call", "math"],
        &["provide", "math", "x"],
        &["provide", "math", "x", "--echo", "--reply", "1"],
        &["call", "math", "x", "--deadline", "soon"],
        &["call", "math", "x", "-n", "0"],
        &["send", "math"],
        &["broadcast", "math", "x", "--count", "0"],
        &["listen"],
        &["members"],
        &["hub", "--insecure-no-auth", "--secret-file", "x"],
    ] {
        let done = scene.run(args);
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{args:?}: {done:?}");
        let json = scene.run(&[args, &["--json"]].concat());
        assert_eq!(json.code, Some(2), "{json:?}");
        assert_eq!(json.json_error()["exit"], 2, "{json:?}");
    }
    scene.run(&["call", "math", "x", "{"]).failed(2, &["payload", "not JSON"]);
    scene.run(&["call", "math", "x", "@/no/such/file"]).failed(2, &["/no/such/file"]);
    scene.run(&["provide", "math", "x", "--reply", "nope"]).failed(2, &["--reply", "not JSON"]);
    scene.run(&["call", "math", "x", "--hub", "http://x"]).failed(2, &["http://x", "unix:/path"]);
    for command in ["call", "send", "broadcast", "listen"] {
        scene.run(&[command, "a@b", "x"]).failed(2, &["the channel 'a@b'", "'@'"]);
    }
    scene.run(&["listen", "math", "a@b"]).failed(2, &["the event 'a@b'", "'@'"]);
    scene.run(&["members", "a@b"]).failed(2, &["a@b", "'@'"]);
    scene.run(&["call", "math", "x", "--id", "system"]).failed(2, &["system", "reserved"]);
}

#[test]
fn help_and_version_are_0_and_help_starts_with_examples() {
    let scene = Scene::new();
    let help = scene.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.starts_with("Examples:\n  commipc demo"), "{}", help.stdout);
    assert_eq!(scene.run(&["--version"]).code, Some(0));
}

#[test]
fn no_provider_is_3() {
    let scene = Scene::new();
    let _hub = scene.hub();
    scene.run(&["call", "math", "none", "1"]).failed(3, &["math/none", "code 300", "commipc provide math none"]);
}

#[test]
fn a_deadline_is_4() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _provider = scene.provider("slow", &["--exec", "sleep 600"]);
    let started = Instant::now();
    scene.run(&["call", "math", "slow", "--deadline", "300ms"]).failed(4, &["deadline", "executed", "--deadline"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn a_deadline_bounds_connecting_too() {
    let scene = Scene::new();
    // It takes connections and says nothing.
    let _mute = std::os::unix::net::UnixListener::bind(scene.path("hub.sock")).unwrap();
    let key = scene.file("hub.key", &format!("key:{}\n", "5a".repeat(32)));
    let started = Instant::now();
    let done = scene.run(&["call", "math", "slow", "--deadline", "300ms", "--secret-file", &key]);
    done.failed(4, &["not connected within", "300ms", "code 509", "--deadline"]);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn a_failing_handler_is_5_and_keeps_its_reasons() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let provider = scene.provider("fail", &["--exec", "echo private-out; echo private-err >&2; exit 3"]);
    let done = scene.run(&["call", "math", "fail", "1"]);
    done.failed(5, &["math/fail", "fail", "code 400"]);
    let json = scene.run(&["call", "math", "fail", "1", "--json"]);
    assert_eq!((json.code, &json.json_error()["code"]), (Some(5), &400.into()));
    for said in [done.stderr, json.stderr] {
        assert!(!said.contains("private"), "{said}");
        assert!(!said.contains("status"), "{said}");
    }
    provider.signal(Signal::TERM);
    let provider = provider.end();
    assert!(provider.stderr.contains("private-err"), "its own stderr tells: {provider:?}");
    assert!(provider.stderr.contains("exit status: 3"), "and why it failed: {provider:?}");
}

#[test]
fn a_wrong_secret_is_6() {
    let scene = Scene::new();
    let [right, wrong] = ["right", "wrong"].map(|name| {
        let path = scene.path(name).display().to_string();
        scene.run(&["keygen", "--out", &path]).printed("");
        path
    });
    let mut hub = scene.start(&["hub", "--secret-file", &right]);
    hub.line();
    let call = |args: &[&str]| scene.run(&[&["call", "math", "x"], args].concat());
    call(&["--secret-file", &right]).failed(3, &[]);
    call(&["--secret-file", &wrong]).failed(6, &["authentication failed", "--secret-file"]);
    call(&["--secret-file", &right, "--credential", "nobody"]).failed(6, &["authentication failed"]);
    let password = scene.file("password", "guess");
    call(&["--secret-file", &password]).failed(6, &["--secret-file"]);
    call(&["--insecure-no-auth"]).failed(6, &[]);
    let json = call(&["--secret-file", &wrong, "--json"]);
    assert_eq!(json.json_error()["code"], 100, "{json:?}");
    assert!(json.json_error()["hint"].is_string(), "{json:?}");
}

#[test]
fn a_key_file_that_cannot_be_trusted_is_6() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let key = scene.path("hub.sock.key");
    let call = || scene.run(&["call", "math", "x"]);
    call().failed(3, &[]);
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    call().failed(6, &["hub.sock.key", "0600"]);
    std::fs::remove_file(&key).unwrap();
    call().failed(6, &["hub.sock.key", "--secret-file"]);
    scene.run(&["call", "math", "x", "--secret-file", "/no/such/secret"]).failed(6, &["/no/such/secret"]);
}

#[test]
fn a_secret_that_others_may_read_is_6() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let file = scene.file("secret", &format!("key:{}\n", "5a".repeat(32)));
    let advice = format!("chmod 600 {file}");
    for mode in [0o640, 0o604, 0o620, 0o602] {
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        scene.run(&["call", "math", "x", "--secret-file", &file]).failed(6, &[&advice]);
        scene.run(&["hub", "--listen", "tcp://127.0.0.1:0", "--secret-file", &file]).failed(6, &[&advice]);
        scene.run(&["call", "math", "x", "--password-file", &file]).failed(6, &["password file", &advice]);
        scene.run(&["protect", "vault", "--password-file", &file]).failed(6, &[&advice]);
    }
    std::fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    scene.run(&["call", "math", "x", "--password-file", &file]).failed(6, &["code 211"]);
    // A pipe is nobody else's, whatever its mode.
    let piped = "exec \"$0\" call math x --password-file /dev/fd/3 3<<'END'\nany text\nEND";
    assert!(scene.in_shell(piped, &[]).end().stderr.contains("code 211"));
}

#[test]
fn an_id_in_use_is_6() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _provider = scene.provider("x", &["--echo", "--id", "me"]);
    scene.run(&["call", "math", "x", "--id", "me"]).failed(6, &["id", "--id"]);
    scene.run(&["provide", "math", "x", "--echo"]).failed(6, &["math/x", "another client"]);
}

#[test]
fn no_hub_is_7() {
    let scene = Scene::new();
    for args in [&["call", "math", "x"][..], &["provide", "math", "x", "--echo"]] {
        let done = scene.run(args);
        done.failed(7, &[&scene.url(), "commipc hub"]);
        let json = scene.run(&[args, &["--json"]].concat());
        let error = json.json_error();
        assert_eq!((json.code, &error["code"]), (Some(7), &512.into()), "{json:?}");
        assert!(error["hint"].as_str().unwrap().contains("commipc hub"), "{json:?}");
    }
    scene
        .run(&["call", "math", "x", "--hub", "tcp://127.0.0.1:1", "--insecure-no-auth"])
        .failed(7, &["tcp://127.0.0.1:1"]);
}

#[test]
fn a_second_hub_on_the_same_socket_is_1() {
    let scene = Scene::new();
    let _hub = scene.hub();
    scene.run(&["hub"]).failed(1, &["already listening"]);
    let _provider = scene.provider("echo", &["--echo"]);
    scene.run(&["call", "math", "echo", "1"]).printed("1");
}

#[test]
fn a_provider_that_dies_during_a_call_is_told_at_once() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let pid_file = scene.path("pid");
    let command = format!("echo $$ > {}; exec sleep 600", pid_file.display());
    let provider = scene.provider("slow", &["--exec", &command]);
    let call = scene.start(&["call", "math", "slow", "--deadline", "60s"]);
    let orphan = wait_for_file(&pid_file);
    let started = Instant::now();
    provider.signal(Signal::KILL);
    let done = call.end();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    done.failed(1, &["provider is gone", "may have been executed", "code 301"]);
    // Nobody was left to end what the killed provider had started.
    let orphan = rustix::process::Pid::from_raw(orphan.parse().unwrap()).unwrap();
    let _ = rustix::process::kill_process(orphan, Signal::KILL);
}

#[test]
fn a_hub_that_dies_during_a_call_is_told_at_once() {
    let scene = Scene::new();
    let hub = scene.hub();
    let started = scene.path("started");
    let command = format!("echo > {}; sleep 600", started.display());
    let provider = scene.provider("slow", &["--exec", &command]);
    let call = scene.start(&["call", "math", "slow", "--deadline", "60s"]);
    wait_for_file(&started);
    hub.signal(Signal::KILL);
    call.end().failed(7, &["connection", "may have been executed"]);
    provider.end().failed(7, &[]);
}
