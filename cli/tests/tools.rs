//! Commands that need nobody else: keys, the demonstration, benchmarks.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use support::Scene;

#[test]
fn keygen_prints_a_new_key_each_time() {
    let scene = Scene::new();
    let keys = [(); 2].map(|()| scene.run(&["keygen"]).stdout);
    assert_ne!(keys[0], keys[1]);
    for key in keys {
        let digits = key.strip_prefix("key:").unwrap().trim_end();
        assert_eq!(digits.len(), 64);
        assert!(digits.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()), "{digits}");
    }
    let json = scene.run(&["keygen", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(line["key"].as_str().unwrap().starts_with("key:"));
}

#[test]
fn keygen_writes_a_private_file_and_replaces_none() {
    let scene = Scene::new();
    let path = scene.path("key");
    let name = path.display().to_string();
    scene.run(&["keygen", "--out", &name]).printed("");
    let first = std::fs::read_to_string(&path).unwrap();
    assert_eq!((first.len(), &first[..4]), (4 + 64 + 1, "key:"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    scene.run(&["keygen", "--out", &name]).failed(1, &[&name, "never replaces"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
}

#[test]
fn the_demonstration_succeeds() {
    let scene = Scene::new();
    let demo = scene.run(&["demo"]);
    assert_eq!((demo.code, demo.stderr.as_str()), (Some(0), ""), "{demo:?}");
    for step in ["15 + 25 = 40", "[0, 1, 4, 9, 16]", "to \"meet at nine\": the member refuses it"] {
        assert!(demo.stdout.contains(step), "{step}: {}", demo.stdout);
    }
    let json = scene.run(&["demo", "--json"]);
    assert_eq!(json.code, Some(0), "{json:?}");
    let lines: Vec<serde_json::Value> = json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 3 && lines.iter().all(|line| line["ok"] == true), "{json:?}");
}

#[test]
fn a_benchmark_carries_its_own_floor() {
    let scene = Scene::new();
    for (raw, beside) in
        [(&[][..], ["commipc", "raw"]), (&["--raw"], ["commipc", "raw"]), (&["--protected"], ["signed", "unsigned"])]
    {
        let short = ["bench", "rpc", "--seconds", "0.05", "--rounds", "1", "--in-flight", "8", "--clients", "2"];
        let json = scene.run(&[&short[..], &["--json"], raw].concat());
        assert_eq!(json.code, Some(0), "{json:?}");
        let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        for section in ["latency", "load"] {
            for target in beside {
                assert!(report[section]["calls_per_s"][target].as_f64().unwrap() > 0.0, "{report}");
                assert!(report[section]["p50_us"][target].as_f64().unwrap() > 0.0, "{report}");
            }
        }
    }
}

#[test]
fn a_benchmark_of_streams_tells_items_and_bytes() {
    let scene = Scene::new();
    for (raw, clients) in [(&[][..], "1"), (&["--raw"], "2")] {
        let short = ["bench", "stream", "--seconds", "0.05", "--rounds", "1", "--clients", clients, "--json"];
        let done = scene.run(&[&short[..], raw].concat());
        let [report] = &done.json_lines()[..] else { panic!("{done:?}") };
        for (section, size) in [("items_of_64", 64.0), ("items_of_65536", 65_536.0)] {
            for target in ["commipc", "raw"] {
                let figure = |key: &str| report[section][key][target].as_f64().unwrap();
                assert!(figure("items_per_s") > 0.0, "{report}");
                assert!((figure("mb_per_s") / figure("items_per_s") - size / 1e6).abs() < 1e-9, "{report}");
                for key in ["hub_cpu_us", "provider_cpu_us", "consumer_cpu_us"] {
                    assert!(figure(key) > 0.0, "{key}: {report}");
                }
            }
        }
    }
}

#[test]
fn a_benchmark_of_broadcasts_loses_none() {
    let scene = Scene::new();
    for (raw, size, members) in
        [(&[][..], "256", "--members"), (&["--raw"], "1", "--clients"), (&[], "262144", "--members")]
    {
        let short = ["bench", "fanout", "--seconds", "0.1", "--rounds", "1", members, "5", "--size", size, "--json"];
        let done = scene.run(&[&short[..], raw].concat());
        let [report] = &done.json_lines()[..] else { panic!("{done:?}") };
        let figure = |key: &str, target: &str| report["fanout"][key][target].as_f64().unwrap();
        for target in ["commipc", "raw"] {
            assert!(figure("broadcasts_per_s", target) > 0.0, "{report}");
            let members = figure("deliveries_per_s", target) / figure("broadcasts_per_s", target);
            assert!((members - 5.0).abs() < 1e-6, "{report}");
            assert_eq!(figure("lost", target), 0.0, "{report}");
            assert!(figure("hub_cpu_us", target) > 0.0 && figure("member_cpu_us", target) > 0.0, "{report}");
        }
    }
}

#[test]
fn a_benchmark_of_hops_measures_each_number_of_bridges_beside_none() {
    let scene = Scene::new();
    let short = ["bench", "hops", "--seconds", "0.05", "--rounds", "1", "--in-flight", "8"];
    let report = &scene.run(&[&short[..], &["--json"]].concat()).json_lines()[0];
    for hops in [1, 2, 4] {
        for target in ["bridged", "one_hub"] {
            for key in ["calls_per_s", "p50_us", "way_cpu_us"] {
                for what in ["latency", "load"] {
                    let figure = &report[format!("{what}_{hops}")][key][target];
                    assert!(figure.as_f64().unwrap() > 0.0, "{what}_{hops} {key} {target}: {report}");
                }
            }
        }
    }
    let table = scene.run(&short);
    assert!(table.stdout.contains("4 bridges, 8 in flight"), "{table:?}");
}

#[test]
fn a_benchmark_of_connections_counts_those_that_come_and_those_that_stay() {
    let scene = Scene::new();
    let come = scene.run(&["bench", "connect", "--seconds", "0.1", "--rounds", "1", "--clients", "3", "--json"]);
    let report = &come.json_lines()[0];
    let stay = scene.run(&["bench", "idle", "--rounds", "1", "--clients", "200", "--json"]);
    let memory = &stay.json_lines()[0];
    for target in ["commipc", "raw"] {
        for key in ["connections_per_s", "p50_us", "hub_cpu_us", "client_cpu_us"] {
            assert!(report["connect"][key][target].as_f64().unwrap() > 0.0, "{key}: {report}");
        }
        let figure = |key: &str| memory["idle"][key][target].as_f64().unwrap();
        let grown = figure("after_kib") - figure("before_kib");
        assert!((figure("kib_per_connection") - grown / 200.0).abs() < 1e-6, "{memory}");
        assert!(grown > 0.0 && figure("before_kib") > 500.0, "{memory}");
    }
    // Of few connections those after the first hundreds cost less; a read buffer of its own for each would be sixty-four.
    assert!(memory["idle"]["kib_per_connection"]["commipc"].as_f64().unwrap() < 6.0, "{memory}");
    // Each process takes as many files as it may have.
    let few =
        format!("ulimit -Sn 100; exec {} bench idle --rounds 1 --clients 300 --json", env!("CARGO_BIN_EXE_commipc"));
    let few = std::process::Command::new("sh").args(["-c", &few]).output().unwrap();
    assert!(few.status.success(), "{}", String::from_utf8_lossy(&few.stderr));
    let table = scene.run(&["bench", "idle", "--rounds", "1", "--clients", "20"]);
    assert!(table.stdout.contains("memory per connection") && table.stdout.contains("raw relay"), "{table:?}");
}

#[test]
fn a_benchmark_runs_through_a_hub_that_is_there() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let url = scene.url();
    let bench = ["bench", "rpc", "--seconds", "0.05", "--rounds", "1", "--in-flight", "8", "--hub-url", &url];
    let table = scene.run(&bench);
    assert_eq!(table.code, Some(0), "{table:?}");
    for part in ["1 in flight", "calls/s", "raw relay", "ratio"] {
        assert!(table.stdout.contains(part), "{part}: {table:?}");
    }
    let table =
        scene.run(&["bench", "fanout", "--seconds", "0.05", "--rounds", "1", "--members", "3", "--hub-url", &url]);
    assert!(table.code == Some(0) && table.stdout.contains("lost deliveries"), "{table:?}");
    let connect = ["bench", "connect", "--seconds", "0.05", "--rounds", "1", "--hub-url", &url, "--json"];
    let report = &scene.run(&connect).json_lines()[0]["connect"];
    assert!(report["connections_per_s"]["commipc"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["hub_cpu_us"]["commipc"], serde_json::Value::Null, "another process' figures: {report}");
    let stream =
        ["bench", "stream", "--seconds", "0.05", "--rounds", "1", "--size", "100", "--hub-url", &url, "--json"];
    let report = &scene.run(&stream).json_lines()[0];
    assert!(report["items_of_100"]["items_per_s"]["commipc"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["items_of_64"], serde_json::Value::Null, "{report}");
    for bench in ["rpc", "stream", "fanout", "connect"] {
        scene.run(&["bench", bench, "--hub-url", "unix:/no/such/hub"]).failed(7, &["/no/such/hub"]);
    }
}

#[test]
fn a_simulation_finds_nothing_and_says_how_much_it_did() {
    let scene = Scene::new();
    let text = scene.run(&["sim", "run", "--seeds", "30", "--from", "5"]);
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""), "{text:?}");
    assert!(text.stdout.starts_with("30 seeds, ") && text.stdout.contains(" events, 0 failed; "), "{text:?}");
    let json = scene.run(&["sim", "run", "--seeds", "30", "--from", "5", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&line["seeds"], &line["failed"]), (&30.into(), &0.into()), "{json:?}");
    assert!(line["events"].as_u64().unwrap() > 1_000, "{json:?}");
    assert!(
        text.stdout.contains(&format!("{} events", line["events"])),
        "the same seeds do the same: {text:?} {json:?}"
    );
}

#[test]
fn a_simulated_world_is_replayed_from_its_seed_and_from_its_choices() {
    let scene = Scene::new();
    let file = scene.path("choices").display().to_string();
    let seed = scene.run(&["sim", "replay", "--seed", "3", "--save", &file]);
    assert_eq!((seed.code, seed.stderr.as_str()), (Some(0), ""), "{seed:?}");
    assert!(seed.stdout.contains(" ms  h ") && seed.stdout.contains("Connect"), "{seed:?}");
    let choices = scene.run(&["sim", "replay", "--choices", &file]);
    assert_eq!((choices.code, &choices.stdout), (Some(0), &seed.stdout));
    let json = scene.run(&["sim", "replay", "--seed", "3", "--json"]);
    let run: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(run["failures"], serde_json::json!([]));
    assert!(seed.stdout.ends_with(&format!("{} events, trace {}\n", run["events"], run["trace"].as_str().unwrap())));
}

#[test]
fn a_simulation_that_cannot_be_says_why() {
    let scene = Scene::new();
    scene.run(&["sim", "replay", "--choices", "/no/such/file"]).failed(2, &["/no/such/file"]);
    let file = scene.file("choices", "net: 1 2\nwork 3\n");
    scene.run(&["sim", "replay", "--choices", &file]).failed(2, &["line 2"]);
    scene.run(&["sim", "replay", "--seed", "1", "--save", &file]).failed(1, &[&file, "exists"]);
    for args in
        [&["sim", "replay"][..], &["sim", "run", "--seeds", "0"], &["sim", "replay", "--seed", "1", "--choices", "x"]]
    {
        assert_eq!(scene.run(args).code, Some(2), "{args:?}");
    }
    let help = scene.run(&["sim", "--help"]);
    assert!(help.stdout.starts_with("Examples:\n  commipc sim run"), "{help:?}");
}

/// The page of figures: each is of a command that is there, beside a floor, a gate, and what the original was able to do.
#[test]
fn d19_every_figure_of_the_page_of_performance_can_be_measured_again() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md")).unwrap();
    assert!(page.contains("CommIPC for Python makes about 1,100 calls a second"));
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() >= 8, "{rows:?}");
    let scene = Scene::new();
    let mut commands = std::collections::BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [what, command, measured, floor, ratio, gate, goal] = cells[..] else { panic!("{row}") };
        let figure = |cell: &str| cell.starts_with(|first: char| first.is_ascii_digit());
        assert!([measured, floor, ratio].into_iter().all(figure), "{row}");
        // What nothing was aimed at is marked, and said to be so.
        let aimed = if what.ends_with('*') { [gate, goal] == ["–"; 2] } else { figure(gate) && figure(goal) };
        assert!(aimed, "{row}");
        commands.insert(command.trim_matches('`').strip_prefix("commipc ").unwrap());
    }
    for command in commands {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = scene.run(&words);
        assert!(help.stdout.contains(&format!("Examples:\n  commipc {command}")), "{help:?}");
    }
}
