//! The table for users of the Python package: what it promises is there, and each of their names is in it.

use super::report;
use super::source::{self, Source};
use crate::workspace;

/// Public names of the Python package, with those of their methods that its own description shows.
const PYTHON: &[&str] = &[
    "CommIPC",
    "CommIPCServer",
    "CommIPCChannel",
    "CommIPCBridge",
    "CommData",
    "security",
    "SOCKET_PATH",
    "DEFAULT_",
    "open",
    "set_password",
    "system_passwords",
    "add_event",
    "add_stream",
    "event",
    "stream",
    "data",
    "connect",
    "verbose",
];

#[test]
fn s88_every_name_of_the_python_package_is_in_the_table() {
    let page = page();
    let missing = PYTHON.iter().filter(|name| !python_names(&page).any(|text| begins(text, name)));
    report("docs/migration.md names what users of the Python package know.", missing.map(|name| (*name).to_owned()));
}

#[test]
fn s88_every_rust_name_of_the_table_exists() {
    let code: Vec<Source> =
        ["protocol/src/", "runtime/src/", "runtime-tokio/src/"].map(source::below).into_iter().flatten().collect();
    let page = page();
    let names: Vec<&str> = rust_names(&page);
    assert!(names.len() > 50, "the table has a second column: {names:?}");
    let gone = names.into_iter().filter(|name| !exists(name, &code)).map(|name| format!("`{name}`"));
    report("Every Rust name in docs/migration.md is public in the libraries.", gone);
}

fn page() -> String {
    workspace::read("docs/migration.md", "it leads users of the Python package here")
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What stands in backticks in the first column of every table, and before the tables.
fn python_names(page: &str) -> impl Iterator<Item = &str> {
    let first = |line: &'_ str| line.starts_with("| ");
    page.lines().flat_map(move |line| quoted(if first(line) { line.split('|').nth(1).unwrap_or(line) } else { line }))
}

/// Whether this is the name, or the name with what it is given.
fn begins(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| name.ends_with('_') || !rest.starts_with(source::is_word))
}

/// What stands in backticks in the second column of every table.
fn rust_names(page: &str) -> Vec<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.split('|').nth(2));
    rows.flat_map(quoted).collect()
}

/// Whether this is public: `name`, `name(…)`, `Type::method` or `Type::Variant`.
fn exists(name: &str, code: &[Source]) -> bool {
    let name = name.split('(').next().unwrap_or(name);
    match name.split_once("::") {
        Some((of, member)) => code.iter().any(|source| is_member(source, of, member)),
        None => code.iter().any(|source| is_item(source, name)),
    }
}

fn is_item(source: &Source, name: &str) -> bool {
    let kinds = ["struct", "enum", "fn", "const", "trait"];
    // Errors are made by macros, which are given the names alone.
    let made = || source.path.ends_with("/error.rs") && source::words(&source.shipped, name).next().is_some();
    kinds.iter().any(|kind| has(&source.shipped, &format!("pub {kind} "), name)) || made()
}

fn is_member(source: &Source, of: &str, member: &str) -> bool {
    let code = &source.shipped;
    let blocks = ["impl", "enum"].into_iter().flat_map(|kind| source::words(code, kind)).filter_map(|at| {
        let open = source::body(code, at).filter(|open| source::words(&code[at..*open], of).next().is_some())?;
        Some((code[at..].starts_with("enum"), &code[open..source::closing(code, open)]))
    });
    blocks.into_iter().any(|(is_enum, body)| {
        let functions = ["pub fn ", "pub const fn ", "pub async fn ", "pub const "];
        functions.iter().any(|kind| has(body, kind, member)) || is_enum && source::words(body, member).next().is_some()
    })
}

/// Whether the word stands right behind this.
fn has(code: &str, before: &str, word: &str) -> bool {
    source::words(code, word).any(|at| code[..at].ends_with(before))
}

#[test]
fn the_rule_on_the_table_bites() {
    let page = "| Python | Rust | |\n|---|---|---|\n| `a` | `A::b`, `c(url)`, `D::E` | `no` |\n| `x` | – | |\n";
    let names = rust_names(page);
    assert_eq!(names, ["A::b", "c(url)", "D::E"]);
    let with = |text: &str| {
        let code = [Source::new("a.rs", text)];
        names.iter().map(|name| exists(name, &code)).collect::<Vec<_>>()
    };
    assert_eq!(with("impl<T> A<T> { pub async fn b() {} }\npub fn c() {}\npub enum D { E, F }"), [true, true, true]);
    assert_eq!(with("impl A { fn b() {} }\nfn c() {}\npub enum D { F }\npub enum G { E }"), [false, false, false]);
    assert_eq!(
        with("impl Z { pub fn b() {} }\npub fn cc() {}\n#[cfg(test)]\nmod tests { pub enum D { E } }"),
        [false; 3]
    );
}
