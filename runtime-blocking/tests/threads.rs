//! Nothing stays behind: this is the only test of its process, so that its threads and files can be counted.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as loudly as tests")]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use commipc_blocking::{Fault, Request, Wait as _, client, hub, on_thread};

const CLIENTS: usize = 5;

#[test]
fn threads_and_files_go_with_the_last_handle() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("unix:{}", place.path().join("hub.sock").display());
    let before = counts();
    for _ in 0..3 {
        let hub = hub().listen(&url).wait().unwrap();
        let clients: Vec<_> = (0..CLIENTS).map(|_| client(&url).wait().unwrap()).collect();
        let math = clients[0].open("math").wait().unwrap();
        let double = on_thread(|n: Request<u32>| Ok::<_, Fault>(2 * *n));
        let _double = math.provide("double", double).wait().unwrap();
        for client in &clients {
            assert_eq!(client.call::<u32>("math", "double", &21).wait().unwrap(), 42);
        }
        settles(|(threads, _)| threads == before.0 + 1 + CLIENTS);
        hub.shutdown().wait();
    }
    settles(|counts| counts == before);
}

fn settles(is_well: impl Fn((usize, usize)) -> bool) {
    let started = Instant::now();
    while !is_well(counts()) {
        assert!(started.elapsed() < Duration::from_secs(20), "threads and files: {:?}", counts());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Threads and files of this process.
fn counts() -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    (count("task"), count("fd"))
}
