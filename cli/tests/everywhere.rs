//! What holds for every command that there is, whoever adds one: its help, its JSON, its manual page.

mod support;

use rustix::process::Signal;
use support::{Done, Scene, json};

/// All commands with the commands below them, as help tells them.
fn commands(scene: &Scene) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = vec![Vec::new()];
    let mut at = 0;
    while let Some(command) = found.get(at).cloned() {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = scene.run(&words);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{command:?}");
        let listed = help.stdout.lines().skip_while(|line| *line != "Commands:").skip(1);
        let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
        found.extend(names.filter(|name| *name != "help").map(|name| [&command[..], &[name.to_owned()]].concat()));
        at += 1;
    }
    assert!([&["hub"][..], &["bench", "rpc"]].iter().all(|known| found.iter().any(|one| one == known)), "{found:?}");
    found
}

/// Those that do something themselves.
fn leaves(scene: &Scene) -> Vec<String> {
    let all = commands(scene);
    let below = |one: &[String], other: &[String]| other.len() > one.len() && other.starts_with(one);
    let leaf = |one: &&Vec<String>| !all.iter().any(|other| below(one, other));
    all.iter().filter(leaf).map(|command| command.join(" ")).collect()
}

#[test]
fn every_help_starts_with_examples() {
    let scene = Scene::new();
    for command in commands(&scene) {
        for option in ["-h", "--help"] {
            let help = scene.run(&[&command.iter().map(String::as_str).collect::<Vec<_>>()[..], &[option]].concat());
            let example = format!("Examples:\n  {}", ["commipc", &command.join(" ")].join(" ").trim_end());
            assert!(help.stdout.starts_with(&example), "{command:?}: {}", help.stdout);
        }
    }
}

/// How a command is run so that it ends, beside its name and `--json`: its arguments, whether it needs a hub, and
/// whether it has to be told to stop. A new command needs a line here.
fn runs(command: &str, scene: &Scene) -> (Vec<String>, bool, bool) {
    const BENCH: &str = "--seconds 0.05 --rounds 1";
    let (arguments, hub, stop) = match command {
        "hub" => ("", false, true),
        "provide" => ("math twice --echo", true, true),
        "listen" => ("math", true, true),
        "protect" => ("vault --password-file PASSWORD", true, true),
        "call" => ("math none", true, false),
        "stream" => ("math none", true, false),
        "send" => ("math none", true, false),
        "broadcast" => ("math news", true, false),
        "channels" => ("", true, false),
        "members" | "clear" => ("none", true, false),
        "keygen" | "demo" | "man" => ("", false, false),
        "completions" => ("zsh", false, false),
        "bench rpc" | "bench connect" => (BENCH, false, false),
        "bench stream" => (BENCH, false, false),
        "bench fanout" => ("--seconds 0.05 --rounds 1 --members 3", false, false),
        "bench idle" => ("--rounds 1 --clients 10", false, false),
        "bench hops" => (BENCH, false, false),
        // It would wait for hubs; without a secret it does not begin.
        "bridge" => ("unix:/nowhere/a.sock unix:/nowhere/b.sock --secret-file /nowhere/key", false, false),
        "sim hunt" => ("--time 100ms --jobs 1 --keep KEPT", false, false),
        "sim shrink" => ("--seed 3", false, false),
        "sim run" => ("--seeds 20", false, false),
        "sim replay" => ("--seed 3", false, false),
        // It says that no bugs are planted here.
        "sim selftest" => ("", false, false),
        other => panic!("say here how 'commipc {other} --json' is run"),
    };
    let word = |word: &str| match word {
        "PASSWORD" => scene.file("password", "any text"),
        "KEPT" => scene.path("kept").display().to_string(),
        word => word.to_owned(),
    };
    (arguments.split_whitespace().map(word).collect(), hub, stop)
}

#[test]
fn every_command_speaks_json_and_nothing_else_when_asked() {
    for command in leaves(&Scene::new()) {
        let scene = Scene::new();
        let (arguments, hub, stop) = runs(&command, &scene);
        let words: Vec<&str> =
            command.split(' ').chain(arguments.iter().map(String::as_str)).chain(["--json"]).collect();
        let _hub = hub.then(|| scene.hub());
        let done = if stop { until_ready(&scene, &words) } else { scene.run(&words) };
        assert!(!done.stdout.is_empty() || !done.stderr.is_empty(), "{command} says nothing");
        only_json(&command, &done);
    }
}

/// Runs a command until it says that it is ready, and then stops it.
fn until_ready(scene: &Scene, words: &[&str]) -> Done {
    let mut process = scene.start(words);
    let ready = process.line_anywhere();
    process.signal(Signal::TERM);
    let mut done = process.end();
    assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
    done.stdout.insert_str(0, &ready);
    done
}

#[test]
fn every_error_is_json_when_asked() {
    for command in leaves(&Scene::new()) {
        let scene = Scene::new();
        let words = |more: &[&'static str]| -> Vec<String> {
            command.split(' ').chain(more.iter().copied()).chain(["--json"]).map(str::to_owned).collect()
        };
        let run = |words: &[String]| scene.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let done = run(&words(&["--no-such-option"]));
        assert_eq!((done.code, &done.json_error()["exit"]), (Some(2), &2.into()), "{command}: {done:?}");
        // No hub is there.
        let (arguments, hub, _) = runs(&command, &scene);
        if hub {
            let done = run(&[words(&[]), arguments].concat());
            assert_eq!((done.code, &done.json_error()["exit"]), (Some(7), &7.into()), "{command}: {done:?}");
            assert!(done.json_error()["hint"].is_string(), "{command}: {done:?}");
        }
    }
}

fn only_json(command: &str, done: &Done) {
    // An answer and an item may be any JSON; all else are objects.
    for line in done.stdout.lines().chain(done.stderr.lines()) {
        assert!(json(line).is_object() || ["call", "stream"].contains(&command), "{command}: {line}");
    }
}

#[test]
fn a_request_that_fails_at_its_provider_is_json_too() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let mut provider = scene.start(&["provide", "math", "fail", "--exec", "exit 3", "--json"]);
    assert_eq!(json(&provider.line()), serde_json::json!({ "providing": { "channel": "math", "event": "fail" } }));
    scene.run(&["call", "math", "fail"]).failed(5, &[]);
    let note = json(&provider.line_beside());
    assert!(note["note"].as_str().unwrap().contains("exit status: 3"), "{note}");
}

#[test]
fn every_command_has_a_manual_page() {
    let scene = Scene::new();
    let folder = scene.path("man/man1");
    scene.run(&["man", "--out", &folder.display().to_string()]).printed("");
    let mut written: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let name = |command: Vec<String>| [vec!["commipc".to_owned()], command].concat().join("-") + ".1";
    let mut expected: Vec<_> = commands(&scene).into_iter().map(name).collect();
    written.sort();
    expected.sort();
    assert_eq!(written, expected);
    for page in &written {
        let text = std::fs::read_to_string(folder.join(page)).unwrap();
        for part in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXAMPLES", "\\-\\-json"] {
            assert!(text.contains(part), "{page}: {part}: {text}");
        }
    }
    let main = scene.run(&["man"]).stdout;
    assert_eq!(main, std::fs::read_to_string(folder.join("commipc.1")).unwrap());
    let json = scene.run(&["man", "--json"]).json_lines();
    assert_eq!(json, [serde_json::json!({ "page": "commipc.1", "roff": main })]);
    scene.run(&["man", "--out", "/proc/none"]).failed(1, &["/proc/none"]);
}

#[test]
fn every_command_is_completed_in_every_shell() {
    let scene = Scene::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = scene.run(&["completions", shell]);
        assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""), "{shell}");
        for word in commands(&scene).iter().filter_map(|command| command.last()) {
            assert!(script.stdout.contains(word.as_str()), "{shell}: {word}");
        }
        assert!(script.stdout.contains("insecure-no-auth"), "{shell}");
        assert!(!script.stdout.contains("bench-part"), "{shell}: what is hidden stays hidden");
        let json = scene.run(&["completions", shell, "--json"]).json_lines();
        assert_eq!(json, [serde_json::json!({ "shell": shell, "script": script.stdout })]);
    }
    scene.run(&["completions", "tcsh"]).failed_at_usage();
}

#[test]
fn bash_completes_what_is_typed() {
    let scene = Scene::new();
    let file = scene.path("completions");
    std::fs::write(&file, scene.run(&["completions", "bash"]).stdout).unwrap();
    let complete = |words: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _commipc commipc \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        let output = std::process::Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("commipc bro"), "broadcast");
    assert_eq!(complete("commipc broadcast --cou"), "--count");
    assert_eq!(complete("commipc completions z"), "zsh");
}
