//! What the README shows is what runs: its program, its commands and their exit codes.

use std::collections::BTreeMap;
use std::process::Command;

use crate::workspace;

const PURPOSE: &str = "it is what a new user reads first";

#[test]
fn the_program_of_the_readme_runs() {
    let readme = workspace::read("README.md", PURPOSE);
    let shown = program(&readme).expect("the README shows a program");
    let run = workspace::read("tests/src/quick_start.rs", "it is the program of the README");
    let (_, run) = run.split_once("\n\n").expect("a head of its own, then the program");
    assert_eq!(shown, run, "the README (left) shows tests/src/quick_start.rs (right)");

    let place = tempfile::tempdir().unwrap();
    let url = format!("unix:{}", place.path().join("hub.sock").display());
    let output = Command::new(env!("CARGO_BIN_EXE_quick_start")).env("COMMIPC_HUB", url).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.starts_with("15 + 25 = 40"), "{output:?}");
}

/// It is compiled and run as it stands, with the crates that the guide names.
#[test]
fn the_program_of_the_guide_to_simulating_runs() {
    let guide = workspace::read("docs/simulating.md", PURPOSE);
    let run = workspace::read("tests/tests/suite/guide.rs", "it is the program of the guide");
    let (_, run) = run.split_once("\n\n").expect("a head of its own, then the program");
    assert_eq!(program(&guide), Some(run), "docs/simulating.md (left) shows tests/tests/suite/guide.rs (right)");
    let (_, manifest) = guide.split_once("```toml\n").expect("the guide says what a program takes");
    let (manifest, _) = manifest.split_once("```").expect("a block ends");
    let taken: Vec<_> = manifest.lines().filter_map(|line| line.split_once(" = { path = \"commipc/")).collect();
    assert_eq!(taken.len(), 2, "{manifest}");
    for (package, path) in taken {
        let there = workspace::read(&format!("{}/Cargo.toml", path.trim_end_matches("\" }")), "the guide names it");
        assert!(there.contains(&format!("name = \"{package}\"")), "{package} is not at {path}");
        assert!(run.contains(&package.replace('-', "_")), "the program does without {package}");
    }
}

#[test]
fn s84_the_streams_of_the_readme_are_tested() {
    let readme = workspace::read("README.md", PURPOSE);
    for path in ["tests/tests/suite/tls.rs", "tests/src/puppet.rs"] {
        let shown = marked(&workspace::read(path, "the README shows a part of it"));
        assert!(readme.contains(&format!("```rust\n{shown}```")), "the README shows this of {path}:\n{shown}");
    }
}

/// What is marked to be shown, an empty line between one part and the next.
fn marked(source: &str) -> String {
    let parts: Vec<_> = source.split("// [readme]\n").collect();
    assert!(parts.len() > 2 && parts.len() % 2 == 1, "what the README shows begins with a mark and ends with one");
    parts.into_iter().skip(1).step_by(2).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_exit_codes_of_the_readme_are_those_of_the_program() {
    let coded = workspace::read("cli/src/failure.rs", "the exit codes stand there");
    let readme = workspace::read("README.md", PURPOSE);
    let shown = exit_codes(&readme);
    let codes: Vec<_> = std::iter::once(0).chain(variants(&coded)).collect();
    assert_eq!(shown.keys().copied().collect::<Vec<_>>(), codes, "README.md (left) and cli/src/failure.rs (right)");
}

/// The first block of Rust.
fn program(readme: &str) -> Option<&str> {
    let (_, from) = readme.split_once("```rust\n")?;
    from.split_once("```").map(|(program, _)| program)
}

/// The rows of the table of exit codes.
fn exit_codes(readme: &str) -> BTreeMap<u8, &str> {
    let table = readme.split_once("| exit code |").map_or("", |(_, rest)| rest);
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        Some((cells.next()?.parse().ok()?, cells.next()?))
    })
    .collect()
}

/// The numbers of `enum Exit`.
fn variants(source: &str) -> Vec<u8> {
    let body = source.split_once("enum Exit {").and_then(|(_, rest)| rest.split_once('}')).map_or("", |(body, _)| body);
    body.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = ")?.1.parse().ok()).collect()
}

#[test]
fn the_rule_on_exit_codes_bites() {
    let readme = "| exit code | |\n|---|---|\n| 0 | ok |\n| 7 | gone |\n\n| 8 | another table |\n";
    assert_eq!(exit_codes(readme), BTreeMap::from([(0, "ok"), (7, "gone")]));
    assert_eq!(variants("enum Exit {\n    /// One.\n    Other = 1,\n    Usage = 2,\n}\nconst A: u8 = 3;"), [1, 2]);
}
