//! Hubs and providers that are told to stop while something runs.

#![allow(missing_docs, clippy::unwrap_used, reason = "what is unexpected fails it")]

mod support;

use rustix::process::Signal;
use support::{Process, Scene, json, wait_for_file, wait_until_dead};

/// A hub with these options, and a command of a provider's that runs until the file `go` is there.
fn scene(hub: &[&str]) -> (Scene, Process, Process, Process) {
    let scene = Scene::new();
    let mut hub = scene.start(&[&["hub"], hub].concat());
    hub.line();
    let [started, go] = ["started", "go"].map(|name| scene.path(name).display().to_string());
    let command = format!("echo $$ > {started}; until [ -e {go} ]; do sleep 0.05; done; echo 7");
    let provider = scene.provider("slow", &["--exec", &command]);
    let call = scene.start(&["call", "math", "slow"]);
    wait_for_file(&scene.path("started"));
    (scene, hub, provider, call)
}

impl Process {
    fn expect_draining(&mut self) {
        let line = self.line_beside();
        assert!(line.contains("draining: 1 still running") && line.contains("second signal"), "{line}");
    }
}

#[test]
fn s86_a_hub_that_is_told_to_stop_finishes_what_runs() {
    for signal in [Signal::TERM, Signal::INT] {
        let (scene, mut hub, provider, call) = scene(&[]);
        hub.signal(signal);
        hub.expect_draining();
        scene.run(&["call", "math", "slow"]).failed(7, &["hub"]);
        scene.file("go", "");
        call.end().printed("7");
        assert_eq!(hub.end().code, Some(0));
        provider.end().failed(7, &["shutting down"]);
    }
}

#[test]
fn s86_a_hub_that_is_told_to_stop_lets_a_stream_come_to_its_end() {
    let scene = Scene::new();
    let mut hub = scene.start(&["hub"]);
    hub.line();
    let go = scene.path("go").display().to_string();
    let command = format!("seq 3; until [ -e {go} ]; do sleep 0.05; done; seq 4 6");
    let provider = scene.provider("slow", &["--stream", "--exec", &command]);
    let mut stream = scene.start(&["stream", "math", "slow"]);
    assert_eq!([stream.line(), stream.line(), stream.line()], ["1", "2", "3"]);
    hub.signal(Signal::TERM);
    hub.expect_draining();
    scene.file("go", "");
    stream.end().printed("4\n5\n6");
    assert_eq!(hub.end().code, Some(0));
    provider.end().failed(7, &["shutting down"]);
}

#[test]
fn s86_a_hub_that_is_not_finished_in_time_cuts_off_what_runs() {
    let (scene, mut hub, provider, call) = scene(&["--drain", "300ms", "--json"]);
    hub.signal(Signal::TERM);
    let line = json(&hub.line_beside());
    assert_eq!((line["draining"].as_u64(), line["at_most_ms"].as_u64()), (Some(1), Some(300)), "{line}");
    let done = hub.end();
    assert_eq!((done.code, done.json_error()["code"].as_u64()), (Some(4), Some(509)), "{done:?}");
    let call = call.end();
    assert!(call.code == Some(7) && call.stderr.contains("shutting down"), "{call:?}");
    // The command has ended with its request.
    wait_until_dead(&wait_for_file(&scene.path("started")));
    provider.end().failed(7, &["shutting down"]);
}

#[test]
fn s86_a_second_signal_stops_a_hub_at_once() {
    let (scene, mut hub, _provider, call) = scene(&["--drain", "1h"]);
    hub.signal(Signal::TERM);
    hub.expect_draining();
    hub.signal(Signal::INT);
    let done = hub.end();
    assert!(done.code == Some(1) && done.stderr.contains("1 request was cut off"), "{done:?}");
    assert_eq!(call.end().code, Some(7));
    wait_until_dead(&wait_for_file(&scene.path("started")));
}

#[test]
fn s86_a_provider_that_is_told_to_stop_finishes_what_runs() {
    let (scene, _hub, mut provider, call) = scene(&[]);
    provider.signal(Signal::TERM);
    provider.expect_draining();
    scene.run(&["call", "math", "slow"]).failed(3, &["math/slow"]);
    scene.file("go", "");
    call.end().printed("7");
    assert_eq!(provider.end().code, Some(0));
}

/// What is sent has no caller who waits, and is finished all the same.
#[test]
fn s86_a_provider_finishes_what_was_sent_to_it() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let [started, go, done] = ["started", "go", "done"].map(|name| scene.path(name).display().to_string());
    let command = format!("echo $$ > {started}; until [ -e {go} ]; do sleep 0.05; done; echo 7 > {done}");
    let mut provider = scene.provider("slow", &["--exec", &command]);
    scene.run(&["send", "math", "slow"]).printed("");
    wait_for_file(&scene.path("started"));
    provider.signal(Signal::TERM);
    provider.expect_draining();
    scene.file("go", "");
    assert_eq!(provider.end().code, Some(0));
    assert_eq!(wait_for_file(&scene.path("done")), "7");
}
