//! `commipc sim`: hunting, shrinking and the self-test, and what a run is told as. Where a bug can be planted (`.ci/long canaries`)
//! one is, and found; in a usual build nothing may be.

mod support;

use rustix::process::Signal;
use support::Scene;

/// A planted bug that few worlds are needed for.
const EASY: &str = "9";

#[test]
fn a_hunt_that_finds_nothing_ends_when_its_time_is_over_and_keeps_nothing() {
    let scene = Scene::new();
    let folder = scene.path("found");
    let keep = folder.display().to_string();
    let hunt = ["sim", "hunt", "--jobs", "2", "--time", "300ms", "--from", "5", "--keep", &keep];
    let text = scene.run(&hunt);
    let lines: Vec<&str> = text.stdout.lines().collect();
    assert_eq!((text.code, lines.len()), (Some(0), 2), "{text:?}");
    assert_eq!(lines[0], format!("hunting from seed 5 on, 2 at a time; what fails is kept in {keep}"));
    assert!(!lines[1].starts_with("0 seeds") && lines[1].contains(" events, 0 failed, 0 kept; "), "{text:?}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    let json = &scene.run(&[&hunt[..], &["--json"]].concat()).json_lines();
    assert_eq!((json.len(), &json[0]["failed"], &json[0]["kept"]), (1, &0.into(), &serde_json::json!([])));
    assert!(json[0]["seeds"].as_u64().unwrap() > 0 && json[0]["events"].as_u64().unwrap() > 1_000, "{json:?}");
}

#[test]
fn a_hunt_without_a_time_goes_on_until_it_is_interrupted_and_then_says_what_it_did() {
    let scene = Scene::new();
    let keep = scene.path("found").display().to_string();
    let mut hunt = scene.start(&["sim", "hunt", "--jobs", "1", "--keep", &keep]);
    assert!(hunt.line().starts_with("hunting from seed "));
    // It tells how far it is every few seconds: by then it listens to signals.
    assert!(hunt.line_beside().contains(" 0 failed, 0 kept; "));
    hunt.signal(Signal::INT);
    let done = hunt.end();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains(" events, 0 failed, 0 kept; "), "{done:?}");
}

#[test]
fn what_cannot_be_hunted_or_shrunk_says_why() {
    let scene = Scene::new();
    let file = scene.file("no-folder", "");
    scene.run(&["sim", "hunt", "--time", "1s", "--keep", &file]).failed(1, &["making", &file]);
    for command in [&["sim", "hunt", "--keep", "x"][..], &["sim", "shrink", "--seed", "3"]] {
        scene.run(&[command, &["--plant", "9999"]].concat()).failed(2, &["no planted bug has this number"]);
    }
    let small = scene.path("small").display().to_string();
    scene.run(&["sim", "shrink", "--seed", "3", "--save", &small]).failed(2, &["nothing is found in this run"]);
    assert!(!scene.path("small").exists());
    for jobs in ["0", "1025", "many"] {
        for command in ["run", "hunt"] {
            let done = scene.run(&["sim", command, "--jobs", jobs]);
            assert!(done.code == Some(2) && done.stderr.contains("not a number from 1 to 1024"), "{done:?}");
        }
    }
}

#[test]
fn as_many_jobs_as_there_may_be_run_the_same_seeds() {
    let scene = Scene::new();
    let run = |jobs| {
        let lines = scene.run(&["sim", "run", "--seeds", "120", "--jobs", jobs, "--json"]).json_lines();
        (lines[0]["seeds"].clone(), lines[0]["events"].clone(), lines[0]["failed"].clone())
    };
    let one = run("1");
    assert_eq!((&one.0, &one.2), (&120.into(), &0.into()));
    assert_eq!(one, run("3"));
}

#[test]
fn a_fuzzers_bytes_are_a_world_that_can_be_replayed_and_kept() {
    let scene = Scene::new();
    let bytes = [scene.file("one", &"\u{7f}3aZ".repeat(200)), scene.file("other", &"Q".repeat(800))];
    let kept = scene.path("choices").display().to_string();
    let one = scene.run(&["sim", "replay", "--bytes", &bytes[0], "--save", &kept]);
    assert_eq!((one.code, one.stderr.as_str()), (Some(0), ""), "{one:?}");
    assert!(one.stdout.contains("is asked: Connect") && one.stdout.contains(" events, trace "), "{one:?}");
    assert_eq!(scene.run(&["sim", "replay", "--choices", &kept]).stdout, one.stdout, "kept as choices it is the same");
    let other = scene.run(&["sim", "replay", "--bytes", &bytes[1]]);
    assert!(other.code == Some(0) && other.stdout.lines().last() != one.stdout.lines().last(), "{other:?}");
    scene.run(&["sim", "replay", "--bytes", "/no/such/file"]).failed(2, &["/no/such/file"]);
}

#[test]
fn a_world_is_drawn_as_a_sequence_diagram() {
    let scene = Scene::new();
    let drawn = scene.run(&["sim", "replay", "--seed", "1", "--mermaid"]);
    assert_eq!((drawn.code, drawn.stderr.as_str()), (Some(0), ""), "{drawn:?}");
    let lines: Vec<&str> = drawn.stdout.lines().map(str::trim).collect();
    assert_eq!(lines[0], "sequenceDiagram");
    for part in ["participant h", "participant c0"] {
        assert!(lines.contains(&part), "{part}: {drawn:?}");
    }
    assert!(lines.iter().any(|line| line.contains("->>h: Hello")), "{drawn:?}");
    assert_ne!(drawn.stdout, scene.run(&["sim", "replay", "--seed", "1"]).stdout);
}

#[cfg(not(commipc_canary))]
#[test]
fn a_usual_build_has_no_planted_bugs_and_says_how_to_make_one_that_has() {
    let scene = Scene::new();
    let commands = [&["sim", "selftest"][..], &["sim", "hunt", "--plant", EASY, "--keep", "x"]];
    for command in commands.into_iter().chain([&["sim", "replay", "--seed", "1", "--plant", EASY][..]]) {
        scene.run(command).failed(1, &["this build has no planted bugs", "--cfg commipc_canary"]);
    }
    scene.run(&["sim", "selftest", "--only", "9999"]).failed(2, &["no planted bug has this number"]);
    assert_eq!(scene.run(&["sim", "selftest", "--within", "0"]).code, Some(2));
}

#[cfg(commipc_canary)]
#[test]
fn a_planted_bug_is_found_by_the_self_test_and_one_that_is_not_is_named() {
    let scene = Scene::new();
    let found = scene.run(&["sim", "selftest", "--only", EASY, "--within", "400"]);
    assert!(found.code == Some(0) && found.stdout.contains("  9  found in "), "{found:?}");
    assert!(found.stdout.contains("1 of 1 found, in a median of ") && found.stdout.contains(" seeds/s"), "{found:?}");
    let missed = scene.run(&["sim", "selftest", "--only", EASY, "--within", "1"]);
    assert!(missed.code == Some(1) && missed.stdout.contains("NOT FOUND in 1 seeds"), "{missed:?}");
    assert!(missed.stderr.contains("not found: [9]"), "{missed:?}");
}

#[cfg(commipc_canary)]
#[test]
fn what_a_hunt_finds_of_a_planted_bug_is_made_small_kept_and_replayed_from_there() {
    let scene = Scene::new();
    let keep = scene.path("found").display().to_string();
    let hunt = ["sim", "hunt", "--jobs", "2", "--from", "0", "--plant", EASY, "--enough", "1", "--patience", "5s"];
    let found = scene.run(&[&hunt[..], &["--keep", &keep]].concat());
    assert!(found.code == Some(1) && found.stderr.contains("were found"), "{found:?}");
    assert!(found.stdout.contains("replay it with: commipc sim replay --choices "), "{found:?}");
    let kept = std::fs::read_dir(&keep).unwrap().next().unwrap().unwrap().path().display().to_string();
    // What is there from before is no reason to find nothing.
    let again = scene.run(&[&hunt[..], &["--keep", &keep]].concat());
    assert!(again.code == Some(1) && again.stderr.contains("were found"), "{again:?}");
    let replayed = scene.run(&["sim", "replay", "--choices", &kept, "--plant", EASY]);
    assert!(replayed.code == Some(1) && replayed.stdout.contains("FAILED "), "{replayed:?}");
    let small = scene.path("small").display().to_string();
    let shrink = ["sim", "shrink", "--choices", &kept, "--plant", EASY, "--patience", "1s", "--save", &small];
    let shrunk = scene.run(&shrink);
    assert!(shrunk.code == Some(1) && shrunk.stdout.contains(" choices, which were "), "{shrunk:?}");
    assert!(std::fs::read_to_string(&small).unwrap().lines().count() > 1);
}
