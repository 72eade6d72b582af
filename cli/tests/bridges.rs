//! Hubs and bridges as processes of their own: a ring of four hubs with a bridge across.

mod support;

use rustix::process::Signal;
use support::ring::Ring;
use support::wait_until;

#[test]
fn d15_s74_s75_s76_v31_a_ring_of_hubs_is_one_to_clients() {
    let mut ring = Ring::new();
    let provider = ring.provider(2, &["--reply", "42"]);
    ring.join_all();
    for hub in 0..4 {
        ring.run(hub, &["call", "math", "twice", "21"]).printed("42");
    }
    let mut listeners: Vec<_> = (0..4).map(|hub| ring.listener(hub)).collect();
    for hub in 0..4 {
        // Word of a listener takes a moment to every hub; a second broadcast shows that the first came once.
        ring.run(hub, &["broadcast", "math", "first", &hub.to_string()]).printed("");
    }
    let mut seen = vec![std::collections::BTreeMap::<String, usize>::new(); 4];
    for (hub, listener) in listeners.iter_mut().enumerate() {
        for _ in 0..4 {
            let line = support::json(&listener.line());
            let said = format!("{} from {}", line["event"], line["data"]);
            *seen[hub].entry(said).or_default() += 1;
        }
    }
    ring.run(0, &["broadcast", "math", "last"]).printed("");
    for (hub, listener) in listeners.iter_mut().enumerate() {
        assert_eq!(support::json(&listener.line())["event"], "last", "nothing came twice at {hub}");
        assert_eq!(seen[hub].len(), 4, "{:?}", seen[hub]);
    }
    drop(provider);
}

#[test]
fn d16_s80_bridges_and_hubs_that_are_killed_come_back_with_what_is_there_by_then() {
    let mut ring = Ring::new();
    ring.join_all();
    let provider = ring.provider(2, &["--reply", "42"]);
    let calls = |ring: &Ring, hub: usize| {
        wait_until(|| ring.run(hub, &["call", "math", "twice", "21", "--deadline", "5s"]).code == Some(0));
    };
    calls(&ring, 0);
    // The bridge across is gone, and then the hub on one of the ways around.
    let across = ring.bridges.pop().unwrap();
    across.signal(Signal::KILL);
    across.end();
    calls(&ring, 0);
    ring.hubs[1].take().unwrap().signal(Signal::KILL);
    calls(&ring, 0);
    let mut restarted = ring.start_hub(1);
    assert_eq!(restarted.line(), format!("listening on {}", ring.url(1)));
    ring.hubs[1] = Some(restarted);
    assert!(ring.bridges[0].line_beside().contains("lost"));
    assert_eq!(ring.bridges[0].line(), "bridged");
    calls(&ring, 1);
    // A provider that is gone is gone everywhere.
    drop(provider);
    wait_until(|| ring.run(0, &["call", "math", "twice", "21"]).code == Some(3));
    for bridge in &ring.bridges {
        bridge.signal(Signal::TERM);
    }
    for bridge in std::mem::take(&mut ring.bridges) {
        assert_eq!(bridge.end().code, Some(0));
    }
}

#[test]
fn s82_v32_a_password_of_one_hub_opens_the_channel_from_another() {
    let mut ring = Ring::new();
    ring.join_all();
    let key = ring.scene.file("vault.key", &format!("key:{}\n", "5a".repeat(32)));
    let mut owner = ring.scene.start(&["protect", "vault", "--password-file", &key, "--hub", &ring.url(0)]);
    assert_eq!(owner.line(), "protecting vault");
    let provide = ["provide", "vault", "open", "--echo", "--password-file", &key, "--hub", &ring.url(2)];
    wait_until(|| {
        let mut provider = ring.scene.start(&provide);
        let said = provider.line_anywhere();
        if !said.contains("providing") {
            return false;
        }
        ring.bridges.push(provider);
        true
    });
    wait_until(|| ring.run(1, &["call", "vault", "open", "7", "--password-file", &key]).stdout.trim() == "7");
    let wrong = ring.scene.file("wrong.key", &format!("key:{}\n", "5b".repeat(32)));
    ring.run(1, &["call", "vault", "open", "7", "--password-file", &wrong]).failed(6, &["code 210"]);
}

#[test]
fn s74_s77_what_a_bridge_is_told_to_pass_and_what_it_needs() {
    let ring = Ring::new();
    let (a, b) = (ring.url(0), ring.url(1));
    ring.scene.run(&["bridge", &a, &b]).failed(6, &["secret of their own", "--bridge-secret-file"]);
    ring.scene.run(&["bridge", &a, &a, "--secret-file", &ring.key]).failed(6, &["both ends are the hub hub-a"]);
    ring.scene.run(&["bridge", &a, &b, "--secret-file", &ring.key, "--allow", "@x"]).failed(2, &["CHANNEL@EVENT"]);
    let hub_key = format!("{}.key", ring.scene.path("a.sock").display());
    let shared = ["bridge", &a, &b, "--credential", "default", "--secret-file", &hub_key];
    ring.scene.run(&shared).failed(6, &["not a bridge's"]);
    let _bridge = ring.bridge((0, 1), &["--one-way", "--allow", "math@twice", "--rate", "1000"]);
    let _there = ring.provider(0, &["--reply", "42"]);
    wait_until(|| ring.run(1, &["call", "math", "twice", "21"]).stdout.trim() == "42");
    let mut other = ring.scene.start(&["provide", "math", "other", "--reply", "1", "--hub", &b]);
    assert_eq!(other.line(), "providing math/other");
    ring.run(0, &["call", "math", "other"]).failed(3, &["code 300"]);
}
