//! What goes over a real hub's sockets, verified by two other implementations, which share no code with this one: a script that
//! reads COSE and CBOR with Python's standard library alone, and pycose, where that is installed. CI installs it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use commipc_runtime::{Fault, FaultCode, Request};
use smol::stream;

use crate::scene::{Scene, TOKIO, Transport, run};
use crate::wiretap::{Frame, Wiretap};

const VERIFIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/independent/cose.py");
const PASSWORD: &str = "correct horse battery staple";

/// Where this is set, and nothing judges a change, the other implementation may be missing.
const WAIVED: &str = "COMMIPC_WITHOUT_PYTHON";

#[test]
fn s31_s32_every_message_of_a_running_hub_is_cose_to_another_implementation() {
    match refusal(&python(), std::env::var_os("CI").is_some(), std::env::var_os(WAIVED).is_some()) {
        None => run(TOKIO, Transport::Unix, capture_and_verify),
        Some(Refusal { why, waived: false }) => panic!("{why}"),
        // Past the test harness, which shows nothing of a test that passes.
        Some(Refusal { why, waived: true }) => std::io::stderr().write_all(format!("\n!! {why}\n").as_bytes()).unwrap(),
    }
}

/// The interpreter, which may be one that has more libraries.
fn python() -> String {
    std::env::var("COMMIPC_COSE_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// What the other implementations found.
#[derive(serde::Deserialize)]
struct Found {
    counts: BTreeMap<String, u64>,
    library: Option<String>,
    without: Option<String>,
}

/// That nothing can be verified, and whether that was asked for.
#[derive(Debug)]
struct Refusal {
    why: String,
    waived: bool,
}

/// Why no message can be verified with this interpreter; nothing where it can.
fn refusal(python: &str, judges: bool, waives: bool) -> Option<Refusal> {
    let imports = "import hashlib, hmac, json, sys; sys.exit(sys.version_info < (3, 9))";
    let tried = Command::new(python).args(["-c", imports]).output();
    let found = match tried {
        Ok(Output { status, .. }) if status.success() => return None,
        Ok(Output { status, stderr, .. }) => {
            format!("it ends with {status} {}", String::from_utf8_lossy(&stderr).trim())
        }
        Err(error) => format!("it cannot be started: {error}"),
    };
    let waived = waives && !judges;
    let without =
        if judges { "It is not left out where CI is set." } else { "To leave it out, set COMMIPC_WITHOUT_PYTHON=1." };
    let why = format!(
        "No message was verified by another implementation of COSE: that needs {python}, version 3.9 or later, on the PATH, \
         and {found}. Install it: apt-get install python3 (Debian, Ubuntu), dnf install python3 (Fedora), brew install \
         python3 (macOS). {without}"
    );
    Some(Refusal { why, waived })
}

#[test]
fn without_the_other_implementation_nothing_passes_in_silence() {
    assert!(refusal("true", true, false).is_none(), "whatever can run it will do");
    for missing in ["false", "/nowhere/python3"] {
        for (judges, waives, waived) in
            [(true, true, false), (true, false, false), (false, false, false), (false, true, true)]
        {
            let refused = refusal(missing, judges, waives).unwrap();
            assert_eq!(refused.waived, waived, "{missing}, {judges}, {waives}");
            assert!(
                refused.why.contains(missing) && refused.why.contains("apt-get install python3"),
                "{}",
                refused.why
            );
            assert_eq!(refused.why.contains(WAIVED), !judges);
        }
    }
}

async fn capture_and_verify(scene: Scene) {
    let hub = scene.hub().await.unwrap();
    let owner = scene.client(&hub, "owner").await.unwrap();
    let vault = owner.open("vault").await.unwrap();
    vault.protect(PASSWORD).await.unwrap();
    let fails = async |r: Request<i64>| if *r < 0 { Err(Fault::from(FaultCode::BadPayload)) } else { Ok(*r * 2) };
    let _double = vault.provide("double", fails).await.unwrap();
    let _numbers =
        vault.provide_stream("numbers", |r: Request<u32>| stream::iter((0..*r).map(Ok::<u32, Fault>))).await.unwrap();
    let mut heard = vault.listen::<String>("news").await.unwrap();

    let frames = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&frames);
    let rule = move |frame: Frame| {
        seen.lock().unwrap().push(frame.clone());
        vec![frame]
    };
    let line = Wiretap::start(scene.path("line.sock"), &scene.path("hub.sock"), Box::new(rule));
    let key = Path::new(&scene.path("hub.sock.key")).to_owned();
    let member = scene.bare_client(&line.url()).id("member").secret_file(key).await.unwrap();
    let joined = member.open("vault").password(PASSWORD).await.unwrap();
    let mut news = joined.listen::<String>("news").await.unwrap();
    assert_eq!(joined.call::<i64>("double", &21).await.unwrap(), 42);
    assert!(joined.call::<i64>("double", &-1).await.is_err());
    joined.send("double", &1).await.unwrap();
    let mut items = joined.stream::<u32>("numbers", &3).await.unwrap();
    while let Some(item) = items.next().await {
        item.unwrap();
    }
    // One that is given up in the middle says so.
    drop(joined.stream::<u32>("numbers", &1_000_000).credit(1).await.unwrap());
    joined.broadcast("news", "from the member").await.unwrap();
    assert_eq!(heard.next().await.unwrap().as_str(), "from the member");
    vault.broadcast("news", "from the owner").await.unwrap();
    assert_eq!(news.next().await.unwrap().as_str(), "from the owner");
    // Ten seconds after a broadcast a member tells again how many there were, for those who have missed the last one.
    for _ in 0..300 {
        if frames.lock().unwrap().iter().filter(|frame| frame.kind() == 41).count() >= 2 {
            break;
        }
        smol::Timer::after(Duration::from_millis(100)).await;
    }
    member.close().await;

    let frames = std::mem::take(&mut *frames.lock().unwrap());
    verify_all(&scene.path("capture.json"), frames);
}

fn verify_all(capture: &Path, frames: Vec<Frame>) {
    write(capture, &frames);
    let Found { counts, library, without } = serde_json::from_slice(&verify(capture, PASSWORD).unwrap()).unwrap();
    let missing = without.unwrap_or_default();
    // Whoever names an interpreter means one that has it.
    assert!(library.is_some() || std::env::var_os("COMMIPC_COSE_PYTHON").is_none(), "{missing}");
    if library.is_none() {
        let why = format!("\n!! Messages were verified by cose.py alone and not by pycose: {missing}\n");
        std::io::stderr().write_all(why.as_bytes()).unwrap();
    }
    let count = |kind: &str| counts.get(kind).copied().unwrap_or(0);
    for (kind, least) in [
        ("call", 4),
        ("answer", 1),
        ("fault", 1),
        ("send", 1),
        ("broadcast", 2),
        ("item", 3),
        ("end", 1),
        ("cancel", 1),
        ("beacon", 2),
    ] {
        assert!(count(kind) >= least, "{kind}: {counts:?}");
    }
    let messages = frames.iter().filter(|frame| (33..=41).contains(&frame.kind())).count();
    assert_eq!(counts.values().sum::<u64>(), messages as u64, "every one was verified");

    // It can say no.
    let error = verify(capture, "another password").unwrap_err();
    assert!(error.contains("is wrong"), "{error}");
    let mut altered = frames;
    let answer = altered.iter_mut().find(|frame| frame.kind() == 36).unwrap();
    *answer.bytes.last_mut().unwrap() ^= 1;
    write(capture, &altered);
    assert!(verify(capture, PASSWORD).unwrap_err().contains("the tag of this answer is wrong"));
}

fn write(path: &Path, frames: &[Frame]) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let entries = frames
        .iter()
        .map(|frame| serde_json::json!({ "to_client": frame.to_client, "frame": hex(&frame.bytes) }))
        .collect::<Vec<_>>();
    std::fs::write(path, serde_json::to_vec(&entries).unwrap()).unwrap();
}

fn verify(capture: &Path, password: &str) -> Result<Vec<u8>, String> {
    let Output { status, stdout, stderr } =
        Command::new(python()).arg(VERIFIER).arg(capture).arg(password).output().unwrap();
    if status.success() { Ok(stdout) } else { Err(String::from_utf8_lossy(&stderr).into_owned()) }
}
