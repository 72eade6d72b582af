//! Streams on the command line: items as lines, from whatever a shell command prints, at the pace of whoever reads them.

mod support;

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Done, Scene, peak, wait_for_file, wait_until_dead};

/// Failed with this code after these lines.
#[track_caller]
fn failed_after(done: &Done, lines: &str, code: i32, parts: &[&str]) {
    assert_eq!((done.code, done.stdout.trim_end()), (Some(code), lines), "{done:?}");
    for part in parts {
        assert!(done.stderr.contains(part), "{part:?} is not in {done:?}");
    }
}

#[test]
fn s45_items_are_lines_in_their_order_whoever_provides_them() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _echo = scene.provider("echo", &["--stream", "--echo"]);
    let _array = scene.provider("array", &["--stream", "--reply", r#"[1,"two",{"three":[3]},"a\nb"]"#]);
    let _single = scene.provider("single", &["--reply", r#"{"no":"array"}"#, "--stream"]);
    let _none = scene.provider("none", &["--stream", "--reply", "[]"]);
    let _lines = scene.provider("lines", &["--stream", "--exec", "read n; seq $n"]);
    scene.run(&["stream", "math", "echo", r#"{"a":[1,null]}"#]).printed(r#"{"a":[1,null]}"#);
    scene.run(&["stream", "math", "array"]).printed("1\n\"two\"\n{\"three\":[3]}\n\"a\\nb\"");
    scene.run(&["stream", "math", "array", "--take", "2", "--json"]).printed("1\n\"two\"");
    scene.run(&["stream", "math", "single"]).printed(r#"{"no":"array"}"#);
    scene.run(&["stream", "math", "none"]).printed("");
    let numbers: Vec<_> = (1..=20_000).map(|n| n.to_string()).collect();
    scene.run(&["stream", "math", "lines", "20000"]).printed(&numbers.join("\n"));
    scene.run_with_stdin(&["stream", "math", "lines", "-", "--take", "3"], "1000000").printed("1\n2\n3");
}

#[test]
fn an_item_is_told_as_it_comes() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _provider = scene.provider("slow", &["--stream", "--exec", "echo 1; echo two words; sleep 600"]);
    let mut stream = scene.start(&["stream", "math", "slow"]);
    assert_eq!([stream.line(), stream.line()], ["1", "\"two words\""]);
    assert!(stream.child.try_wait().unwrap().is_none(), "it goes on");
}

#[test]
fn s46_s47_nothing_is_an_item_and_a_failure_comes_after_the_items_before_it() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let mut provider = scene.provider("fail", &["--stream", "--exec", "echo 0; echo; echo null; printf 2; exit 3"]);
    let done = scene.run(&["stream", "math", "fail"]);
    failed_after(&done, "0\nnull\nnull\n2", 5, &["math/fail", "code 400"]);
    assert!(!done.stderr.contains("status"), "its reasons are the provider's: {done:?}");
    assert!(provider.line_beside().contains("exit status: 3"));
    let json = scene.run(&["stream", "math", "fail", "--json"]);
    assert_eq!((json.stdout.lines().count(), &json.json_error()["exit"]), (4, &5.into()), "{json:?}");
}

#[test]
fn s49_whoever_stops_reading_stops_the_command_with_its_children() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let [leader, child] = ["leader", "child"].map(|name| scene.path(name));
    let command = format!(
        "sleep 600 & echo $! > {}; echo $$ > {}; while echo again; do :; done",
        child.display(),
        leader.display()
    );
    let provider = scene.provider("endless", &["--stream", "--exec", &command]);
    for way in ["INT", "TERM", "KILL", "take", "closed", "provider"] {
        [&leader, &child].into_iter().for_each(|path| drop(std::fs::remove_file(path)));
        let mut stream = scene.start(match way {
            "take" => &["stream", "math", "endless", "--take", "500"],
            _ => &["stream", "math", "endless"],
        });
        assert_eq!(stream.line(), "\"again\"");
        let pids = [&leader, &child].map(|path| wait_for_file(path));
        match way {
            "INT" => stream.signal(Signal::INT),
            "TERM" => stream.signal(Signal::TERM),
            "KILL" => stream.signal(Signal::KILL),
            "closed" => stream.stop_reading(),
            "provider" => provider.signal(Signal::TERM),
            _ => {}
        }
        pids.iter().for_each(|pid| wait_until_dead(pid));
        let done = stream.end();
        let expected = match way {
            "KILL" => None,
            "provider" => Some(1),
            _ => Some(0),
        };
        assert_eq!((done.code, done.stderr.is_empty()), (expected, way != "provider"), "{way}: {}", done.stderr);
    }
}

#[test]
fn a_stream_whose_lines_nobody_reads_can_be_interrupted() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _provider = scene.provider("endless", &["--stream", "--exec", "yes"]);
    let fifo = scene.path("fifo").display().to_string();
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let line = format!("exec {} stream math endless >{fifo}", env!("CARGO_BIN_EXE_commipc"));
    let mut shell =
        std::process::Command::new("sh").args(["-c", &line]).env("COMMIPC_HUB", scene.url()).spawn().unwrap();
    // Open, and never read from.
    let reader = std::fs::File::open(&fifo).unwrap();
    let fill = || rustix::io::ioctl_fionread(&reader).unwrap();
    // How many bytes it holds depends on the sizes of the writes. It is full when no more come.
    support::wait_until(|| {
        let before = fill();
        std::thread::sleep(Duration::from_millis(200));
        before >= 32 << 10 && fill() == before
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&shell), Signal::TERM).unwrap();
    support::wait_until(|| shell.try_wait().unwrap().is_some());
    assert_eq!(shell.wait().unwrap().code(), Some(0));
}

#[test]
fn s50_a_command_is_read_no_faster_than_its_items_are_wanted() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let count = scene.path("count").display().to_string();
    // A thousand bytes a line: the pipe to the provider holds 64 of them.
    let command = format!(
        "pad=$(printf %0992d 0); n=0; while n=$((n+1)); do echo \"\\\"$n:$pad\\\"\"; echo $n >{count}; [ $n -lt 4000 ] || exit 0; done"
    );
    let _provider = scene.provider("count", &["--stream", "--exec", &command]);
    let mut stream = scene.start(&["stream", "math", "count"]);
    let number = |line: &str| line[1..].split(':').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(number(&stream.line()), 1);
    stream.signal(Signal::STOP);
    let made = || wait_for_file(std::path::Path::new(&count)).parse::<u64>().unwrap();
    let mut last = (made(), Instant::now());
    while last.1.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(20));
        if made() != last.0 {
            last = (made(), Instant::now());
        }
    }
    assert!(last.0 < 2_000, "half a window is granted anew for what was read before, and {} were made", last.0);
    stream.signal(Signal::CONT);
    for n in 2..=4_000 {
        assert_eq!(number(&stream.line()), n);
    }
    let done = stream.end();
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
}

/// A million items, or as many as `COMMIPC_ITEMS` says, to somebody who first takes one a second and then all.
#[test]
fn s50_the_length_of_a_stream_costs_nobody_memory_and_nothing_of_it_is_lost() {
    const SLOW: u64 = 4;
    const WARM: u64 = 100_000;
    let count: u64 = std::env::var("COMMIPC_ITEMS").map_or(1_000_000, |text| text.parse().unwrap());
    let scene = Scene::new();
    let hub = scene.hub();
    let provider = scene.provider("count", &["--stream", "--exec", &format!("seq {count}")]);
    let mut stream = std::process::Command::new(env!("CARGO_BIN_EXE_commipc"))
        .args(["stream", "math", "count"])
        .env("COMMIPC_HUB", scene.url())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = stream.stdout.take().unwrap();
    let peaks = || [hub.child.id(), provider.child.id(), stream.id()].map(peak);
    let grew = |most: u64, before: [u64; 3], after: [u64; 3]| {
        for ((who, before), after) in ["hub", "provider", "consumer"].into_iter().zip(before).zip(after) {
            assert!(0 < before && after <= before + most, "the {who} grew from {before} to {after} KiB");
        }
    };
    let mut first = [0; 3];
    for n in 1..=SLOW {
        // Byte by byte, or more than one line would be taken.
        let mut line = String::new();
        BufReader::with_capacity(1, &mut lines).read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), n.to_string());
        if n == 1 {
            first = peaks();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    // What is granted and what pipes hold is there by now, and nothing more comes: all of it would be many times that.
    grew(4 << 10, first, peaks());
    let (mut next, mut before, mut after) = (SLOW + 1, [0; 3], [0; 3]);
    for line in BufReader::new(lines).lines() {
        assert_eq!(line.unwrap(), next.to_string());
        // What everybody needs at full speed.
        if next == WARM {
            before = peaks();
        }
        // Before the end: what is in pipes then is less than these.
        if next == count - count / 10 {
            after = peaks();
        }
        next += 1;
    }
    assert_eq!((next, stream.wait().unwrap().code()), (count + 1, Some(0)));
    grew(2 << 10, before, after);
}

#[test]
fn s51_a_stream_ends_when_its_provider_or_its_hub_goes() {
    let scene = Scene::new();
    let hub = scene.hub();
    let pid_file = scene.path("pid");
    let command = format!("echo 1; echo $$ > {}; exec sleep 600", pid_file.display());
    for (provider_goes, code, parts) in
        [(true, 1, &["provider is gone", "may have been executed", "code 301"][..]), (false, 7, &["connection"])]
    {
        let provider = scene.provider("slow", &["--stream", "--exec", &command]);
        let mut stream = scene.start(&["stream", "math", "slow"]);
        assert_eq!(stream.line(), "1");
        let orphan = wait_for_file(&pid_file);
        (if provider_goes { &provider } else { &hub }).signal(Signal::KILL);
        failed_after(&stream.end(), "", code, parts);
        std::fs::remove_file(&pid_file).unwrap();
        if provider_goes {
            // Nobody was left to end what the killed provider had started.
            let orphan = rustix::process::Pid::from_raw(orphan.parse().unwrap()).unwrap();
            let _ = rustix::process::kill_process(orphan, Signal::KILL);
        } else {
            wait_until_dead(&orphan);
        }
    }
}

#[test]
fn s42_a_stream_is_no_call_and_what_is_wrong_is_told_at_once() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let _stream = scene.provider("stream", &["--stream", "--reply", "[1]"]);
    let _call = scene.provider("call", &["--reply", "1"]);
    let _hangs = scene.provider("hangs", &["--exec", "sleep 600", "--stream"]);
    scene.run(&["call", "math", "stream"]).failed(1, &["math/stream", "commipc stream math stream"]);
    scene.run(&["send", "math", "stream"]).failed(1, &["math/stream"]);
    scene.run(&["stream", "math", "call"]).failed(1, &["math/call", "commipc call math call"]);
    scene.run(&["stream", "math", "nobody"]).failed(3, &["math/nobody", "commipc provide math nobody"]);
    // The deadline is for the beginning.
    let mut begun = scene.start(&["stream", "math", "hangs", "--deadline", "200ms"]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(begun.child.try_wait().unwrap().is_none());
}
