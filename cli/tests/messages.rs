//! Messages that nobody answers, and what a hub tells of itself.

mod support;

use std::time::Instant;

use bytes::Bytes;
use rustix::process::Signal;
use serde_json::json as value;
use support::{Done, Process, Scene, json};

#[test]
fn s53_a_broadcast_reaches_all_who_listen_and_is_no_error_where_nobody_does() {
    let scene = Scene::new();
    let _hub = scene.hub();
    scene.run(&["broadcast", "math", "news", "0"]).printed("");
    let listeners = [(); 2].map(|()| scene.listener(&["math", "news", "--count", "3"]));
    scene.run(&["broadcast", "math", "other", "1", "--id", "speaker"]).printed("");
    scene.run(&["broadcast", "math", "news", r#"{"a":[1]}"#, "--id", "speaker"]).printed("");
    scene.run(&["broadcast", "math", "news", "--count", "2", "--id", "speaker"]).printed("");
    for listener in listeners {
        let done = listener.end();
        done.printed("speaker news {\"a\":[1]}\nspeaker news null\nspeaker news null");
        assert_eq!(done.stderr, "", "nothing but the line that was read");
    }
    // In their order. A listener has room for these even if it does not come to read them.
    let many = scene.listener(&["math", "tick", "--json", "--count", "1000"]);
    let said = scene.run(&["broadcast", "math", "tick", "--count", "1000", "--json"]).json_lines();
    assert_eq!(said, [value!({ "broadcast": { "channel": "math", "event": "tick", "count": 1000 } })]);
    let heard: Vec<_> = many.end().json_lines().iter().map(|line| line["number"].as_u64().unwrap()).collect();
    assert_eq!(heard, (1..=1000).collect::<Vec<_>>());
}

#[test]
fn s54_a_send_reaches_the_provider_alone_and_says_when_there_is_none() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let nobody = scene.run(&["send", "math", "note", "1"]);
    nobody.failed(3, &["math/note", "code 300", "commipc provide math note"]);
    assert_eq!(scene.run(&["send", "math", "note", "1", "--json"]).json_error()["exit"], 3);

    let taken = scene.path("taken");
    let _provider = scene.provider("note", &["--exec", &format!("cat >>{0}; echo >>{0}", taken.display())]);
    let mut listener = scene.listener(&["math"]);
    scene.run(&["send", "math", "note", r#"{"pages":3}"#]).printed("");
    assert_eq!(support::wait_for_file(&taken), r#"{"pages":3}"#);
    let sent = scene.run(&["send", "math", "note", "7", "--json"]).json_lines();
    assert_eq!(sent, [value!({ "sent": { "channel": "math", "event": "note" } })]);
    scene.run(&["broadcast", "math", "end", "--id", "me"]).printed("");
    assert_eq!(listener.line(), "me end null", "the first that a listener hears");
}

#[test]
fn s55_a_listener_hears_one_event_or_all_of_them() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let mut one = scene.listener(&["math", "b"]);
    let mut all = scene.listener(&["math"]);
    for event in ["a", "b", "c"] {
        scene.run(&["broadcast", "math", event, "--id", "me"]).printed("");
    }
    assert_eq!(one.line(), "me b null");
    assert_eq!([(); 3].map(|()| all.line()), ["me a null", "me b null", "me c null"]);
    for listener in [one, all] {
        listener.signal(Signal::TERM);
        listener.end().printed("");
    }
}

#[test]
fn s89_a_message_comes_with_all_that_is_known_of_it() {
    let scene = Scene::new();
    let mut hub = scene.start(&["hub", "--id", "here"]);
    hub.line();
    let listener = scene.listener(&["math", "--json", "--count", "3"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    runtime.block_on(async {
        let client = commipc_tokio::client(&scene.url()).id("me").connect().await.unwrap();
        let math = client.open("math").await.unwrap();
        // {"trace": h'ff'}
        let metadata = Bytes::from_static(b"\xa1\x65trace\x41\xff");
        math.broadcast("news", &("ü", 1.5)).metadata(metadata).await.unwrap();
        math.broadcast_raw("raw", Bytes::from_static(b"\x00\xff")).await.unwrap();
        math.broadcast("news", &()).await.unwrap();
        client.close().await;
    });
    let mut lines = listener.end().json_lines();
    for line in &mut lines {
        let sent_at = u128::from(line["sent_at"].take().as_u64().unwrap());
        assert!((before..before + 60_000).contains(&sent_at), "milliseconds since 1970: {sent_at}");
    }
    let line = |event: &str, data: serde_json::Value, number: u64, metadata: serde_json::Value| {
        value!({
            "sender": "me", "hub": "here", "channel": "math", "event": event, "data": data, "number": number,
            "sent_at": null, "hops": 1, "metadata": metadata, "missed": 0, "lost": 0,
        })
    };
    let expected = [
        line("news", value!(["ü", 1.5]), 1, value!({ "trace": { "$bytes": "ff" } })),
        line("raw", value!({ "$bytes": "00ff" }), 1, value!(null)),
        line("news", value!(null), 2, value!(null)),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_listener_that_was_too_slow_tells_how_many_it_missed() {
    let scene = Scene::new();
    let _hub = scene.hub();
    for json_wanted in [false, true] {
        let mut listener = scene.listener(if json_wanted { &["math", "--json"] } else { &["math"] });
        // Stopped, it reads nothing; what comes meanwhile waits at the hub and in the socket.
        listener.signal(Signal::STOP);
        scene.run(&["broadcast", "math", "tick", "--count", "5000", "--id", "me"]).printed("");
        scene.run(&["broadcast", "math", "end", "--id", "me"]).printed("");
        listener.signal(Signal::CONT);
        let (mut heard, mut missed) = (0, 0);
        loop {
            let line = listener.line();
            if json_wanted {
                missed += json(&line)["missed"].as_u64().unwrap();
            } else if let Some((_, number)) = line.split_once(" (") {
                missed += number.strip_suffix(" missed)").unwrap().parse::<u64>().unwrap();
            }
            heard += 1;
            if line.contains(if json_wanted { r#""event":"end""# } else { "me end" }) {
                break;
            }
        }
        assert_eq!(heard + missed, 5001, "nothing is lost in silence");
        assert!(missed > 0, "more than a listener's queue came at once");
    }
}

#[test]
fn a_listener_ends_with_its_hub_or_its_reader() {
    let scene = Scene::new();
    let hub = scene.hub();
    let with_hub = [&["math"][..], &["math", "x", "--json"]].map(|args| scene.listener(args));
    let mut without_reader = scene.start(&["listen", "math"]);
    without_reader.line_beside();
    without_reader.stop_reading();
    // What is written after the reader has gone shows that it has.
    let started = Instant::now();
    while without_reader.child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < support::PATIENCE, "it writes for nobody");
        scene.run(&["broadcast", "math", "x"]).printed("");
    }
    assert_eq!(without_reader.child.wait().unwrap().code(), Some(0), "as `head` wants it");
    let interrupted = scene.listener(&["math"]);
    interrupted.signal(Signal::INT);
    assert_eq!(interrupted.end().code, Some(0));
    hub.signal(Signal::TERM);
    for listener in with_hub {
        let done: Done = listener.end();
        assert_eq!(done.code, Some(7), "{done:?}");
        assert!(done.stderr.contains("the connection to the hub"), "{done:?}");
    }
}

#[test]
fn a_hub_tells_its_channels_and_their_members() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let empty = scene.run(&["channels"]);
    empty.printed("");
    assert_eq!(empty.stderr, "commipc: the hub has no channels\n");
    let empty = scene.run(&["channels", "--json"]);
    assert_eq!((empty.stdout.as_str(), empty.json_error()), ("", value!({ "note": "the hub has no channels" })));

    let _long = scene.provider("twice", &["--echo", "--id", "a-provider-with-a-long-name"]);
    let _listener = scene.listener(&["math", "--id", "ear"]);
    let _other = scene.listener(&["news", "--id", "other"]);
    scene.run(&["channels"]).printed(
        "CHANNEL  OWNER  PASSWORD  MEMBERS  PROVIDERS\n\
         math     -      -         2        1\n\
         news     -      -         1        0",
    );
    assert_eq!(
        scene.run(&["channels", "--json"]).json_lines(),
        [
            value!({ "name": "math", "owner": null, "protected": false, "members": 2, "providers": 1 }),
            value!({ "name": "news", "owner": null, "protected": false, "members": 1, "providers": 0 })
        ]
    );
    scene.run(&["members", "math"]).printed(
        "CLIENT                       OWNER  PROVIDES\n\
         a-provider-with-a-long-name  -      twice\n\
         ear                          -",
    );
    assert_eq!(
        scene.run(&["members", "math", "--json"]).json_lines(),
        [
            value!({ "client": "a-provider-with-a-long-name", "owner": false, "provides": ["twice"] }),
            value!({ "client": "ear", "owner": false, "provides": [] })
        ]
    );
    scene.run(&["members", "none"]).failed(1, &["none: there is no such channel", "commipc channels"]);
}

#[test]
fn s64_the_system_channel_tells_who_comes_opens_provides_and_goes() {
    let scene = Scene::new();
    let _hub = scene.hub();
    let mut observer = scene.listener(&["__comm_ipc_system", "--json", "--id", "observer"]);
    let provider = scene.provider("twice", &["--echo", "--id", "p"]);
    let [connected, opened, provided] = [(); 3].map(|()| json(&observer.line()));
    assert_eq!(connected["event"], "client_connected", "{connected}");
    assert_eq!(connected["data"], value!({ "client_id": "p", "credential": "default" }));
    let registration = |event: Option<&str>| value!({ "channel": "math", "event": event, "is_provider": event.is_some(), "is_stream": false, "client_id": "p" });
    for (told, event) in [(&opened, None), (&provided, Some("twice"))] {
        assert_eq!((&told["event"], &told["data"]), (&value!("new_registration"), &registration(event)), "{told}");
    }
    provider.signal(Signal::TERM);
    let mut told: Vec<_> = [(); 3].map(|()| json(&observer.line())).into();
    let gone = told.pop().unwrap();
    assert_eq!((&gone["event"], &gone["data"]["client_id"]), (&value!("client_disconnected"), &value!("p")), "{gone}");
    assert!(told.iter().all(|told| told["event"] == "registration_ended"), "{told:?}");
    let ended: Vec<_> = told.iter().map(|told| &told["data"]).collect();
    let over = |event: Option<&str>| value!({ "channel": "math", "event": event, "is_provider": event.is_some(), "client_id": "p" });
    assert_eq!(ended, [&over(Some("twice")), &over(None)]);
}

#[test]
fn s65_what_the_hub_says_comes_from_system_and_nobody_else_says_it() {
    let scene = Scene::new();
    let mut hub = scene.start(&["hub", "--id", "here"]);
    hub.line();
    let mut observer = scene.listener(&["__comm_ipc_system", "--json"]);
    scene.run(&["broadcast", "__comm_ipc_system", "new_registration"]).failed(6, &["belongs to the hub"]);
    scene.run(&["provide", "__comm_ipc_system", "channels", "--echo"]).failed(6, &["__comm_ipc_system/channels"]);
    scene.run(&["channels", "--id", "last"]);
    loop {
        let told = json(&observer.line());
        assert_eq!((&told["sender"], &told["hub"]), (&value!("system"), &value!("here")), "{told}");
        assert_ne!(told["data"], value!(null), "{told}");
        if told["data"]["client_id"] == "last" {
            break;
        }
    }
}

#[test]
fn s63_the_log_channel_tells_what_is_worth_a_line() {
    let scene = Scene::new();
    let mut hub = scene.start(&["hub", "--id", "here"]);
    hub.line();
    let mut log = scene.listener(&["__comm_ipc_logs", "server_log", "--json"]);
    let mut errors = scene.listener(&["__comm_ipc_errors", "--json"]);
    scene.run(&["channels", "--id", "visitor"]);
    let line = |message: &str, client: Option<&str>, level: &str| value!({ "message": message, "level": level, "client_id": client, "server_id": "here" });
    let mut next = || json(&log.line())["data"].take();
    while next()["message"] != "client visitor connected" {}
    assert_eq!(next(), line("client visitor disconnected: said goodbye", Some("visitor"), "info"));
    let wrong = scene.file("wrong", &format!("key:{}\n", "00".repeat(32)));
    scene.run(&["channels", "--secret-file", &wrong]).failed(6, &[]);
    let refused = next();
    assert_eq!((&refused["level"], &refused["client_id"]), (&value!("error"), &value!(null)), "{refused}");
    let error = json(&errors.line());
    assert_eq!((&error["event"], &error["data"]["code"]), (&value!("server_error"), &value!(100)), "{error}");
    assert_eq!((&error["data"]["error"], &error["data"]["server_id"]), (&refused["message"], &value!("here")));
}

#[test]
fn s67_nothing_is_said_unless_asked() {
    let scene = Scene::new();
    let hub = scene.hub();
    let provider = scene.provider("echo", &["--echo"]);
    let mut listener: Process = scene.listener(&["math"]);
    for args in [&["call", "math", "echo"][..], &["send", "math", "echo"], &["broadcast", "math", "x"], &["channels"]] {
        let done = scene.run(args);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{args:?}: {done:?}");
    }
    listener.line();
    // Each to its end before the next, so that none is told of another's.
    for process in [listener, provider, hub] {
        process.signal(Signal::TERM);
        let done = process.end();
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    }
    let asked = scene.run(&["demo", "--json", "-vv"]);
    assert!(!asked.stderr.is_empty() && asked.stderr.lines().all(|line| json(line)["level"].is_string()), "{asked:?}");
    let said: Vec<_> = asked.stderr.lines().map(|line| json(line)["fields"]["message"].clone()).collect();
    for happened in ["joined", "provided", "disconnected"] {
        assert!(said.iter().any(|message| message == happened), "{happened}: {asked:?}");
    }
}
