//! What a program that uses CommIPC builds, and what the core must never depend on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::workspace;

/// The most packages that a client on tokio may build, its own and ours included.
const CLIENT_MAX: usize = 60;

/// What does I/O, tells the time, makes randomness or logs.
const OUTSIDE_WORLD: &[&str] =
    &["async-io", "getrandom", "libc", "log", "mio", "polling", "rustix", "smol", "socket2", "tokio", "tracing"];

#[test]
fn a_client_on_tokio_builds_few_packages() {
    let packages = client("tokio", r#"tokio = { version = "1", features = ["macros", "rt-multi-thread"] }"#);
    assert!(packages.contains("commipc-tokio"), "{packages:?}");
    let count = packages.len();
    assert!(count <= CLIENT_MAX, "{count} packages, of which {CLIENT_MAX} are allowed: {packages:#?}");
    assert!(!packages.contains("async-io"), "the tokio adapter brings a second reactor along: {packages:#?}");
}

#[test]
fn a_client_on_smol_builds_no_tokio() {
    let packages = client("smol", r#"smol = "2""#);
    assert!(packages.contains("commipc-smol"), "{packages:?}");
    assert!(!packages.contains("tokio"), "the smol adapter brings tokio along: {packages:#?}");
}

#[test]
fn the_core_depends_on_nothing_that_does_io() {
    let packages = tree(workspace::root(), "commipc-protocol", "normal");
    let found = outside_world(&packages);
    assert!(found.is_empty(), "commipc-protocol depends on {found:?}");
}

#[test]
fn the_check_of_the_core_bites() {
    let packages = tree(workspace::root(), "commipc-runtime", "normal");
    assert!(outside_world(&packages).contains(&"rustix"), "the runtime does I/O, and this must be seen: {packages:?}");
}

fn outside_world(packages: &BTreeSet<String>) -> Vec<&'static str> {
    OUTSIDE_WORLD.iter().copied().filter(|name| packages.contains(*name)).collect()
}

/// The packages of a user's program: a workspace of its own, so that no feature of ours is switched on for it.
fn client(runtime: &str, runtime_dependency: &str) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let adapter = workspace::root().join(format!("runtime-{runtime}"));
    let manifest = format!(
        "[package]\nname = \"client\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         commipc-{runtime} = {{ path = {adapter:?} }}\n{runtime_dependency}\nserde = {{ version = \"1\", features = [\"derive\"] }}\n"
    );
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/main.rs"), "fn main() {}\n").unwrap();
    // The versions that this workspace has resolved, so that nothing need be fetched.
    fs::copy(workspace::root().join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    tree(folder.path(), "client", "normal,build")
}

fn tree(folder: &Path, package: &str, edges: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(folder)
        .args(["tree", "--offline", "--prefix", "none", "--format", "{p}", "-p", package, "-e", edges])
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let package = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    // Two versions of one crate are two packages: the second is kept with its version.
    let mut packages = BTreeSet::new();
    for (name, version) in text.lines().filter_map(package).collect::<BTreeSet<_>>() {
        if !packages.insert(name.clone()) {
            packages.insert(format!("{name} {version}"));
        }
    }
    packages
}
