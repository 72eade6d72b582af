//! What a program that uses CommIPC builds, and what the core must never depend on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::workspace;

/// The most packages that a client on tokio may build, its own and ours included.
const CLIENT_MAX: usize = 60;

/// What does I/O, tells the time, makes randomness or logs.
const OUTSIDE_WORLD: &[&str] =
    &["async-io", "getrandom", "libc", "log", "mio", "polling", "rustix", "smol", "socket2", "tokio", "tracing"];

/// What a program depends on besides the adapter, by the adapter's directory.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("runtime-tokio", "commipc-tokio", r#"tokio = { version = "1", features = ["macros", "rt-multi-thread"] }"#),
    ("runtime-smol", "commipc-smol", r#"smol = "2""#),
    ("runtime-asyncstd", "commipc-async-std", r#"async-std = "1""#),
    ("runtime-blocking", "commipc-blocking", ""),
];
const RUNTIMES: [&str; 3] = ["tokio", "smol", "async-std"];
/// The adapter, and what tests all adapters.
const ON_ASYNC_STD: [&str; 2] = ["commipc-async-std", "commipc-tests"];

#[test]
fn a_client_on_tokio_builds_few_packages() {
    let packages = client(0);
    let count = packages.len();
    assert!(count <= CLIENT_MAX, "{count} packages, of which {CLIENT_MAX} are allowed: {packages:#?}");
    assert!(!packages.contains("async-io"), "the tokio adapter brings a second reactor along: {packages:#?}");
}

#[test]
fn a_program_builds_its_own_runtime_and_no_other() {
    for (index, (_, adapter, _)) in PROGRAMS.iter().enumerate() {
        let packages = client(index);
        assert!(packages.contains(*adapter), "{packages:?}");
        let runtimes: Vec<_> = RUNTIMES.into_iter().filter(|runtime| packages.contains(*runtime)).collect();
        let own = adapter.trim_start_matches("commipc-");
        let expected: Vec<_> = RUNTIMES.into_iter().filter(|runtime| *runtime == own).collect();
        assert_eq!(runtimes, expected, "of a program with {adapter}: {packages:#?}");
    }
    let blocking = client(3);
    let pieces: Vec<_> =
        blocking.iter().filter(|name| name.starts_with("async-") || name.contains("executor")).collect();
    assert!(pieces.is_empty(), "the blocking client brings pieces of a runtime along: {pieces:?}");
}

/// Of what the project ships, and of what builds or tests it.
#[test]
fn nothing_but_its_adapter_brings_async_std_along() {
    let members = members();
    assert!(members.len() > 6 && members.contains("commipc-cli"), "{members:?}");
    for member in members.iter().filter(|member| !ON_ASYNC_STD.contains(&&***member)) {
        let packages = tree(workspace::root(), member, "normal,build,dev");
        assert!(!packages.contains("async-std"), "{member} brings async-std along: {packages:#?}");
    }
    let adapter = tree(workspace::root(), ON_ASYNC_STD[0], "normal");
    assert!(adapter.contains("async-std"), "it must be seen where it is: {adapter:?}");
}

/// The names of this workspace's packages.
fn members() -> BTreeSet<String> {
    let manifests = workspace::files(&["toml"]).into_iter().filter(|path| path.ends_with("/Cargo.toml"));
    let name = |path: String| {
        let manifest = workspace::read(&path, "it was there a moment ago");
        let name =
            manifest.lines().find_map(|line| line.strip_prefix("name = \"")).map(|rest| rest.trim_end_matches('"'));
        name.unwrap_or_else(|| panic!("{path} names no package")).to_owned()
    };
    manifests.filter(|path| !path.starts_with("fuzz/")).map(name).collect()
}

#[test]
fn the_readme_tells_how_much_each_adapter_is() {
    let readme = workspace::read("README.md", "it has a table of adapters");
    for (index, (folder, adapter, _)) in PROGRAMS.iter().enumerate() {
        let named = format!("| `{adapter}` in");
        let row = readme.lines().find(|line| line.contains(&named)).unwrap_or_else(|| panic!("no row of {adapter}"));
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, _, lines, packages, ..] = cells[..] else { panic!("{row}") };
        assert_eq!(
            lines,
            lines_below(&format!("{folder}/src/")).to_string(),
            "lines of {adapter} in the README (left)"
        );
        assert_eq!(packages, client(index).len().to_string(), "packages with {adapter} in the README (left)");
    }
}

fn lines_below(folder: &str) -> usize {
    let sources = workspace::files(&["rs"]).into_iter().filter(|path| path.starts_with(folder));
    sources.map(|path| workspace::read(&path, "it was there a moment ago").lines().count()).sum()
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
fn client(index: usize) -> &'static BTreeSet<String> {
    static CLIENTS: [OnceLock<BTreeSet<String>>; PROGRAMS.len()] = [const { OnceLock::new() }; PROGRAMS.len()];
    CLIENTS[index].get_or_init(|| resolve(index))
}

fn resolve(index: usize) -> BTreeSet<String> {
    let (directory, name, dependency) = PROGRAMS[index];
    let folder = tempfile::tempdir().unwrap();
    let adapter = workspace::root().join(directory);
    let manifest = format!(
        "[package]\nname = \"client\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         {name} = {{ path = {adapter:?} }}\n{dependency}\nserde = {{ version = \"1\", features = [\"derive\"] }}\n"
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
