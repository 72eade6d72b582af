//! What a hub tells about itself over HTTP.

#![allow(missing_docs, clippy::unwrap_used, reason = "what is unexpected fails it")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Process, Scene, json};

fn hub_with_metrics(scene: &Scene) -> (Process, String) {
    let mut hub = scene.start(&["hub", "--metrics", "127.0.0.1:0"]);
    assert!(hub.line().starts_with("listening on unix:"));
    let line = hub.line();
    let address = line.strip_prefix("metrics on http://").unwrap().strip_suffix("/metrics").unwrap();
    (hub, address.to_owned())
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The number of one line.
fn number(address: &str, name: &str) -> u64 {
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: hub\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("content-type: text/plain; version=0.0.4"),
        "{answer}"
    );
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing: {answer}")).parse().unwrap()
}

#[test]
fn a_hub_tells_what_it_holds_and_has_done() {
    let scene = Scene::new();
    let (_hub, address) = hub_with_metrics(&scene);
    assert_eq!((number(&address, "commipc_clients"), number(&address, "commipc_forwarded_frames_total")), (0, 0));
    let _provider = scene.provider("echo", &["--echo"]);
    assert_eq!((number(&address, "commipc_clients"), number(&address, "commipc_channels")), (1, 1));
    scene.run(&["call", "math", "echo", "7"]).printed("7");
    assert_eq!(number(&address, "commipc_forwarded_frames_total"), 2, "a call and its answer");
    assert_eq!((number(&address, "commipc_requests"), number(&address, "commipc_violations_total")), (0, 0));
    assert!(number(&address, "commipc_memory_bytes") > 0);
}

#[test]
fn who_asks_for_something_else_or_stalls_harms_nobody() {
    let scene = Scene::new();
    let (_hub, address) = hub_with_metrics(&scene);
    // More than are heard at a time, none of which says what it wants.
    let _stalled: Vec<_> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let started = Instant::now();
    let found = ask(&address, "GET / HTTP/1.1\r\nHost: hub\r\n\r\n");
    assert!(found.starts_with("HTTP/1.1 404") && found.contains("at /metrics"), "{found}");
    assert!(started.elapsed() < Duration::from_secs(60), "they go");
    assert!(ask(&address, "POST /metrics HTTP/1.1\r\nHost: hub\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(ask(&address, "\u{0}\u{1}\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(scene.run(&["channels"]).code, Some(0), "the hub is there");
}

#[test]
fn an_address_that_is_taken_is_told() {
    let scene = Scene::new();
    let (_hub, address) = hub_with_metrics(&scene);
    let other = format!("unix:{}", scene.path("other.sock").display());
    scene.run(&["hub", "--listen", &other, "--metrics", &address]).failed(1, &["--metrics", &address]);
    let mut hub = scene.start(&["hub", "--listen", &other, "--metrics", "127.0.0.1:0", "--json"]);
    assert!(json(&hub.line())["listening"].is_string() && json(&hub.line())["metrics"].is_string());
    scene.run(&["hub", "--metrics", "localhost"]).failed_at_usage();
}
