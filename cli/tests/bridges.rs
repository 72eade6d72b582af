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

#[test]
fn s74_a_bridge_proves_to_each_hub_the_secret_that_was_named_for_it() {
    let scene = support::Scene::new();
    let [a, b] = ["a", "b"].map(|name| format!("unix:{}", scene.path(&format!("{name}.sock")).display()));
    let key_a = scene.file("bridge-a.key", &format!("key:{}\n", "a7".repeat(32)));
    let key_b = scene.file("bridge-b.key", &format!("key:{}\n", "b7".repeat(32)));
    let _hubs = [(&a, "hub-a", &key_a), (&b, "hub-b", &key_b)].map(|(url, id, key)| {
        let mut hub = scene.start(&["hub", "--listen", url, "--id", id, "--bridge-secret-file", key]);
        assert_eq!(hub.line(), format!("listening on {url}"));
        hub
    });
    let bridge = |secrets: &[&str]| scene.start(&[&["bridge", &a, &b], secrets].concat());
    // Each side alone, and where only one is named the common one for the other.
    for secrets in [
        ["--secret-file-a", &key_a, "--secret-file-b", &key_b],
        ["--secret-file", &key_a, "--secret-file-b", &key_b],
        ["--secret-file-a", &key_a, "--secret-file", &key_b],
    ] {
        let mut joined = bridge(&secrets);
        assert_eq!(joined.line(), "bridged", "{secrets:?}");
        joined.signal(Signal::TERM);
        assert_eq!(joined.end().code, Some(0));
    }
    bridge(&["--secret-file-a", &key_b, "--secret-file-b", &key_a]).end().failed(6, &["code 100"]);
    bridge(&["--secret-file-a", &key_a]).end().failed(6, &["secret of their own", &b]);
}

#[test]
fn s75_what_is_at_other_hubs_is_listed_with_the_hub_and_the_way_there() {
    let ring = Ring::new();
    let provide = ["provide", "math", "twice", "--reply", "42", "--id", "doubler", "--hub", &ring.url(2)];
    let mut provider = ring.scene.start(&provide);
    assert_eq!(provider.line(), "providing math/twice");
    let _bridges = [(0, 1), (1, 2)].map(|between| ring.bridge(between, &[]));
    let member = serde_json::json!({
        "client": "doubler", "owner": false, "provides": ["twice"], "hub": "hub-c", "path": ["hub-b", "hub-c"],
    });
    // Word of it takes a moment to every hub.
    wait_until(|| ring.run(0, &["call", "math", "twice", "21"]).code == Some(0));
    let listed = ring.run(0, &["members", "math", "--json"]).json_lines();
    assert_eq!(listed, [member]);
    let listed = ring.run(0, &["channels", "--json"]).json_lines();
    let channel = serde_json::json!({
        "name": "math", "owner": null, "protected": false, "members": 1, "providers": 1, "hub": "hub-c",
        "path": ["hub-b", "hub-c"],
    });
    assert_eq!(listed.iter().filter(|entry| entry["name"] == "math").collect::<Vec<_>>(), [&channel]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for (what, head, row) in [
        (&["channels"][..], "CHANNEL OWNER PASSWORD MEMBERS PROVIDERS PATH", "math - - 1 1 hub-b > hub-c"),
        (&["members", "math"], "CLIENT OWNER PROVIDES PATH", "doubler - twice hub-b > hub-c"),
    ] {
        let table = ring.run(0, what).stdout;
        assert_eq!(words(table.lines().next().unwrap()), words(head), "{table}");
        assert!(table.lines().any(|line| words(line) == words(row)), "{table}");
    }
    // Where it is, it is on no way.
    let here = ring.run(2, &["members", "math"]).stdout;
    assert_eq!(words(&here), words("CLIENT OWNER PROVIDES doubler - twice"));
}

#[test]
fn s74_s75_the_bridges_of_the_readme_join_two_hubs() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Hubs joined by bridges\n").unwrap();
    let script = section.split("```").find_map(|block| block.strip_prefix("sh\n")).unwrap();
    let scene = support::Scene::new();
    let [here, key] = ["", "bridge.key"].map(|name| scene.path(name).display().to_string());
    let (mut running, mut traced) = (Vec::new(), None);
    for line in script.lines() {
        let line =
            line.split(" #").next().unwrap().replace("$PWD", here.trim_end_matches('/')).replace("bridge.key", &key);
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            // It is waited for until it says so.
            ["commipc", ref args @ .., "&"] => {
                let mut process = scene.start(args);
                process.line();
                running.push(process);
            }
            ["commipc", "keygen", ..] => drop(scene.run(&line.split_whitespace().skip(1).collect::<Vec<_>>())),
            ["commipc", ref args @ ..] => wait_until(|| {
                let done = scene.run(args);
                (done.code == Some(0)).then(|| traced = Some(done)).is_some()
            }),
            ["sleep", _] => {}
            ref other => panic!("{other:?}"),
        }
    }
    let traced = traced.unwrap();
    assert_eq!((traced.stdout.trim(), running.len()), ("42", 4));
    let told = traced.stderr.trim_end();
    assert!(told.starts_with("answered by ") && told.contains("@b over b > a in ") && told.ends_with(" ms"), "{told}");
}
