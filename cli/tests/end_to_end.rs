//! Hub, provider and caller as processes of their own, as people run them.

mod support;

use rustix::process::Signal;
use support::{Scene, wait_for_file, wait_until_dead};

#[test]
fn a_call_over_a_unix_socket() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _echo = scene.provider("echo", &["--echo"]);
    let _reply = scene.provider("reply", &["--reply", r#"{"sum":40}"#]);
    scene
        .run(&["call", "math", "echo", r#"{"a":[1,null,1.5,"ü"],"b":{"$bytes":"00ff"}}"#])
        .printed(r#"{"a":[1,null,1.5,"ü"],"b":{"$bytes":"00ff"}}"#);
    scene.run(&["call", "math", "echo", "-18446744073709551616"]).printed("-18446744073709551616");
    scene.run(&["call", "math", "echo"]).printed("null");
    scene.run(&["call", "math", "reply", "1"]).printed(r#"{"sum":40}"#);
}

#[test]
fn a_call_over_tcp_with_a_key_file() {
    let scene = Scene::new();
    let key = scene.path("key").display().to_string();
    scene.run(&["keygen", "--out", &key]).printed("");
    let mut hub = scene.start(&["hub", "--listen", "tcp://127.0.0.1:0", "--secret-file", &key]);
    let line = hub.line();
    let url = line.strip_prefix("listening on ").unwrap();
    let port: u16 = url.strip_prefix("tcp://127.0.0.1:").unwrap().parse().unwrap();
    assert_ne!(port, 0);
    let common = ["--hub", url, "--secret-file", &key];
    let _provider = scene.provider("echo", &[&["--echo"][..], &common].concat());
    scene.run(&[&["call", "math", "echo", "[1,2]"][..], &common].concat()).printed("[1,2]");
    scene.run(&[&common[..], &["call", "math", "echo", "3", "--id", "me"]].concat()).printed("3");
}

#[test]
fn a_password_and_no_authentication_work_too() {
    let scene = Scene::new();
    let password = scene.file("password", "correct horse battery staple\n");
    for common in [&["--secret-file", &password][..], &["--insecure-no-auth"]] {
        let mut hub = scene.start(&[&["hub"], common].concat());
        hub.line();
        let _provider = scene.provider("echo", &[&["--echo"], common].concat());
        scene.run(&[&["call", "math", "echo", "5"], common].concat()).printed("5");
        hub.signal(Signal::TERM);
        assert_eq!(hub.end().code, Some(0));
    }
}

#[test]
fn payloads_come_from_files_and_stdin() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _provider = scene.provider("echo", &["--echo"]);
    let file = scene.file("payload", "{\"a\":\n1}\n");
    scene.run(&["call", "math", "echo", &format!("@{file}")]).printed(r#"{"a":1}"#);
    scene.run_with_stdin(&["call", "math", "echo", "-"], " [7]\n").printed("[7]");
}

#[test]
fn a_shell_command_answers() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _json = scene.provider("json", &["--exec", "cat"]);
    let _text = scene.provider("text", &["--exec", "echo no json; echo two lines"]);
    let _nothing = scene.provider("nothing", &["--exec", "true"]);
    scene.run(&["call", "math", "json", r#"{"n":[1,2]}"#]).printed(r#"{"n":[1,2]}"#);
    scene.run(&["call", "math", "text"]).printed(r#""no json\ntwo lines""#);
    scene.run(&["call", "math", "nothing", "5"]).printed("null");
}

#[test]
fn a_shell_command_dies_with_its_request_and_takes_its_children_along() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let [leader, child] = ["leader", "child"].map(|name| scene.path(name));
    let command = format!("sleep 600 & echo $! > {}; echo $$ > {}; wait", child.display(), leader.display());
    let mut provider = scene.provider("slow", &["--exec", &command, "--drain", "0s"]);
    let call = scene.run(&["call", "math", "slow", "--deadline", "700ms"]);
    call.failed(4, &["deadline"]);
    [&leader, &child].into_iter().for_each(|path| wait_until_dead(&wait_for_file(path)));

    // A caller that is interrupted, and a provider that is told to stop, end it as well.
    for stop_provider in [false, true] {
        [&leader, &child].into_iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let call = scene.start(&["call", "math", "slow"]);
        let pids = [&leader, &child].map(|path| wait_for_file(path));
        (if stop_provider { &provider } else { &call }).signal(Signal::TERM);
        pids.iter().for_each(|pid| wait_until_dead(pid));
        if stop_provider {
            assert_eq!(call.end().code, Some(1));
        }
    }
    assert_eq!(provider.child.wait().unwrap().code(), Some(0));
}

#[test]
fn repeated_calls_give_a_latency_table() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _provider = scene.provider("echo", &["--echo"]);
    let table = scene.run(&["call", "math", "echo", "1", "-n", "20"]);
    assert_eq!(table.code, Some(0), "{table:?}");
    for part in ["20 calls", "p50", "p99", "max"] {
        assert!(table.stdout.contains(part), "{part}: {table:?}");
    }
    let json = scene.run(&["call", "math", "echo", "1", "-n", "20", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(line["calls"], 20);
    assert!(line["p50_us"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_hub_stops_cleanly_and_tells_its_clients() {
    for signal in [Signal::TERM, Signal::INT] {
        let scene = Scene::new();
        let hub = scene.hub();
        let provider = scene.provider("echo", &["--echo"]);
        hub.signal(signal);
        let done = hub.end();
        done.printed("");
        assert_eq!(done.stderr, "", "silent unless asked");
        let lost = provider.end();
        lost.failed(7, &["hub"]);
    }
}

#[test]
fn a_provider_stops_cleanly() {
    let scene = Scene::new();
    let _hub = scene.hub();
    for signal in [Signal::TERM, Signal::INT] {
        // The second shows that the first has withdrawn its event.
        let provider = scene.provider("echo", &["--echo"]);
        provider.signal(signal);
        assert_eq!(provider.end().code, Some(0));
    }
}

#[test]
fn the_default_socket_is_in_the_runtime_directory() {
    let scene = Scene::new();
    // An empty URL counts as none, in the environment and as an option.
    let mut hub = scene.start_at("", &["hub"]);
    assert_eq!(hub.line(), format!("listening on unix:{}", scene.path("commipc.sock").display()));
    scene.start_at("", &["call", "math", "none"]).end().failed(3, &["math/none"]);
}

#[test]
fn the_log_is_written_on_request() {
    let scene = Scene::new();
    let mut hub = scene.start(&["hub", "-vv"]);
    hub.line();
    scene.run(&["call", "math", "none", "--id", "curious"]).failed(3, &[]);
    hub.signal(Signal::TERM);
    let done = hub.end();
    assert!(done.stderr.contains("curious"), "{done:?}");
    assert!(!done.stderr.contains('\u{1b}'), "no colours off a terminal: {done:?}");
}
