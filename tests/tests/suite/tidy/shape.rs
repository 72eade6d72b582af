//! How long and how deep: a file, a function, a tree of modules.

use super::report;
use super::source::{self, Source};

const FILE_MAX: usize = 600;
const FUNCTION_MAX: usize = 60;
const MODULES_MAX: usize = 2;

#[test]
fn files_are_short() {
    let rule = format!("A file has at most {FILE_MAX} lines, tests included: split it by behaviour.");
    report(&rule, source::all().iter().filter_map(too_long));
}

#[test]
fn functions_are_short() {
    let rule = format!("A function has at most {FUNCTION_MAX} lines: give its steps names of their own.");
    report(&rule, source::all().iter().flat_map(long_functions));
}

#[test]
fn modules_are_shallow() {
    let rule =
        format!("A module is at most {MODULES_MAX} levels below its crate: `hub::calls`, not `hub::calls::routes`.");
    report(&rule, source::all().iter().filter_map(too_deep));
}

fn too_long(source: &Source) -> Option<String> {
    let lines = source.text.lines().count();
    (lines > FILE_MAX).then(|| format!("{}: {lines} lines", source.path))
}

fn long_functions(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for at in source::words(&source.code, "fn") {
        let signature = source.code[at + 2..].trim_start();
        let name = signature.split(|c| !source::is_word(c)).next().unwrap();
        let named = !name.is_empty() || signature.starts_with('$'); // and not the type `fn(…)`
        let Some(body) = source::body(&source.code, at).filter(|_| named) else { continue };
        let end = if source.code[body..].starts_with('{') { source::closing(&source.code, body) } else { body };
        let lines = source.code[at..end].matches('\n').count() + 1;
        if lines > FUNCTION_MAX {
            found.push(source.at(at, &format!("`{name}` has {lines} lines")));
        }
    }
    found
}

fn too_deep(source: &Source) -> Option<String> {
    let parts: Vec<_> = source.path.trim_end_matches(".rs").split('/').collect();
    let root = parts.iter().position(|p| ["src", "benches", "examples", "fuzz_targets"].contains(p));
    // `tests/tests/suite/…`: each folder below the second `tests` is a crate.
    let root = root.or_else(|| parts.iter().rposition(|p| *p == "tests").map(|tests| tests + 1))?;
    let modules = parts.iter().skip(root + 1).filter(|p| !["mod", "lib", "main"].contains(p)).count();
    let inline = source::words(&source.shipped, "mod")
        .any(|at| source::body(&source.shipped, at).is_some_and(|body| source.shipped[body..].starts_with('{')));
    let levels = modules + usize::from(inline);
    (levels > MODULES_MAX).then(|| format!("{}: {levels} levels", source.path))
}

#[test]
fn the_rule_on_files_bites() {
    assert!(too_long(&Source::new("a/src/b.rs", &"\n".repeat(600))).is_none());
    assert!(too_long(&Source::new("a/src/b.rs", &"\n".repeat(601))).is_some());
}

#[test]
fn the_rule_on_functions_bites() {
    let function = |lines: usize| {
        format!("struct A; type F = fn(u8) -> u8;\nfn b(c: [u8; 3])\nwhere A: B {{{}}}\n", "\n".repeat(lines - 2))
    };
    assert_eq!(long_functions(&Source::new("a.rs", &function(60))), Vec::<String>::new());
    assert_eq!(long_functions(&Source::new("a.rs", &function(61))), ["a.rs:2: `b` has 61 lines"]);
    let declared = format!("trait A {{ fn b();\n{} fn c() {{}} }}", "\n".repeat(90));
    assert_eq!(long_functions(&Source::new("a.rs", &declared)), Vec::<String>::new());
}

#[test]
fn the_rule_on_modules_bites() {
    let deep = |path: &str, text: &str| too_deep(&Source::new(path, text)).is_some();
    assert!(!deep("protocol/src/hub/calls.rs", "mod x;") && !deep("protocol/src/hub/calls/mod.rs", ""));
    assert!(deep("protocol/src/hub/calls/routes.rs", "") && deep("protocol/src/hub/calls/mod.rs", "mod x { }"));
    assert!(!deep("protocol/src/hub/calls.rs", "#[cfg(test)]\nmod tests { }"));
    assert!(!deep("tests/tests/suite/tidy/shape.rs", "") && deep("tests/tests/suite/tidy/shape/more.rs", ""));
}
