//! Replays the fuzz corpora on stable: what was found once stays found.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use commipc_sim::fuzzing;

use crate::workspace;

/// A fuzz target's body: whatever it is given, it returns.
type Body = fn(&[u8]);

const TARGETS: &[(&str, Body)] = &[
    ("frame", fuzzing::frame),
    ("envelope", fuzzing::envelope),
    ("control_body", fuzzing::control_body),
    ("client_bytes", fuzzing::client_bytes),
    ("hub_bytes", fuzzing::hub_bytes),
    ("hub_after_handshake", fuzzing::hub_after_handshake),
    ("member", fuzzing::member),
    ("bridge", fuzzing::bridge),
    ("replay_window", fuzzing::replay_window),
    ("chunking", fuzzing::chunking),
    ("simulator", fuzzing::simulator),
];

#[test]
fn every_corpus_is_replayed() {
    for (target, body) in TARGETS {
        let folder = workspace::root().join("fuzz/corpus").join(target);
        let (replayed, crashes) = replay(&folder, *body);
        assert!(replayed > 0, "{} is empty", folder.display());
        assert!(crashes.is_empty(), "{target} crashes on {crashes:#?}");
    }
}

/// What targets begin with follows from the machines: where that has changed, `COMMIPC_CORPORA=1` writes it anew.
#[test]
fn corpora_begin_with_what_machines_say_now() {
    for (target, body) in TARGETS {
        let folder = workspace::root().join("fuzz/corpus").join(target);
        for (name, bytes) in fuzzing::beginnings(target) {
            body(&bytes);
            if std::env::var_os("COMMIPC_CORPORA").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join(&name), &bytes).unwrap();
            }
            assert_eq!(fs::read(folder.join(&name)).ok().as_ref(), Some(&bytes), "{target}/{name}");
        }
    }
}

#[test]
fn every_target_is_replayed() {
    let files = workspace::files(&["rs"]);
    let name = |path: &String| Some(path.strip_prefix("fuzz/fuzz_targets/")?.strip_suffix(".rs")?.to_owned());
    let targets: BTreeSet<_> = files.iter().filter_map(name).collect();
    let replayed = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(targets, replayed, "the files of fuzz/fuzz_targets (left) are those of TARGETS (right)");
}

#[test]
fn a_crash_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("good"), [0]).unwrap();
    fs::write(folder.path().join("bad"), [1]).unwrap();
    assert_eq!(replay(folder.path(), |data| assert_eq!(data, [0])), (2, vec!["bad".to_owned()]));
}

/// How many files there are, and on which of them the body panics.
fn replay(folder: &Path, body: Body) -> (usize, Vec<String>) {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let crashes = |path: &&PathBuf| {
        let data = fs::read(path).unwrap();
        catch_unwind(|| body(&data)).is_err()
    };
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let crashed = files.iter().filter(crashes).map(name).collect();
    (files.len(), crashed)
}
