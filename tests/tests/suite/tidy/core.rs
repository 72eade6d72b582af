//! The core: it cannot panic, says nothing, and lives without the standard library.

use super::report;
use super::source::{self, Source};
use crate::workspace;

const MACROS: &[&str] =
    &["panic", "unreachable", "todo", "unimplemented", "print", "println", "eprint", "eprintln", "dbg"];
const METHODS: &[&str] = &["unwrap", "unwrap_err", "expect", "expect_err"];
const CRATES: &[&str] = &["std", "log", "tracing"];
/// What the compiler knows better than a scan of the text, which cannot tell an array from a slice.
const LINTS: &[&str] = &["clippy::expect_used", "clippy::indexing_slicing", "clippy::panic", "clippy::unwrap_used"];

#[test]
fn the_core_cannot_panic_or_log() {
    let rule = "A hostile peer can only cause outputs, so nothing in protocol/src may panic; whatever is worth logging is \
                an event; nothing there needs `std`.";
    report(rule, source::below("protocol/src/").iter().flat_map(forbidden));
}

#[test]
fn the_core_does_not_index() {
    let rule = "An index that is computed may be wrong: use `get`, `split_at_checked`, `first_chunk` or an iterator.";
    report(rule, source::below("protocol/src/").iter().flat_map(indexed));
}

#[test]
fn the_core_denies_what_may_panic() {
    let purpose = "the core's lints stand there";
    report(
        "protocol/src/lib.rs denies these lints for all but tests, and no file there lifts them.",
        missing_lints(&workspace::read("protocol/src/lib.rs", purpose))
            .into_iter()
            .chain(source::below("protocol/src/").iter().flat_map(lifted_lints)),
    );
}

fn forbidden(source: &Source) -> Vec<String> {
    let code = &source.shipped;
    let follows = |at: usize, word: &str, next: &str| code[at + word.len()..].trim_start().starts_with(next);
    let mut found = Vec::new();
    for name in MACROS {
        let calls = source::words(code, name).filter(|at| follows(*at, name, "!"));
        found.extend(calls.map(|at| source.at(at, &format!("`{name}!`"))));
    }
    for name in METHODS {
        let calls = source::words(code, name).filter(|at| {
            let text = source.text[at + name.len()..].trim_start();
            // A parser's own `expect(kind)` is another method; that of the standard library takes a text.
            let called = if name.starts_with("expect") {
                text.strip_prefix('(').is_some_and(|argument| argument.trim_start().starts_with(['"', '&']))
            } else {
                text.starts_with('(')
            };
            code[..*at].ends_with("::") || (code[..*at].ends_with('.') && called)
        });
        found.extend(calls.map(|at| source.at(at, &format!("`{name}`"))));
    }
    for name in CRATES {
        let paths = source::words(code, name)
            .filter(|at| follows(*at, name, "::") || code[..*at].ends_with("use ") || code[..*at].ends_with("crate "));
        found.extend(paths.map(|at| source.at(at, &format!("`{name}`"))));
    }
    found
}

/// Indexing by something that is neither a literal nor a constant; the lints see to those.
fn indexed(source: &Source) -> Vec<String> {
    let code = &source.shipped;
    let mut found = Vec::new();
    for (open, _) in code.match_indices('[') {
        let index = &code[open + 1..source::closing(code, open) - 1];
        let fixed = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase() || " _.=+-*\n".contains(c);
        if is_indexed(&code[..open])
            && !(index.trim() == ".." || (!index.trim().is_empty() && index.chars().all(fixed)))
        {
            found.push(source.at(open, &format!("`[{}]`", index.trim())));
        }
    }
    found
}

/// Whether what stands before a bracket is a value: not a keyword, a macro, a lifetime or the start of a type.
fn is_indexed(before: &str) -> bool {
    let before = before.trim_end();
    if before.ends_with([')', ']', '?']) {
        // An attribute's bracket before an array is no value.
        return !before.ends_with(']') || !before.rsplit('\n').next().unwrap().trim_start().starts_with("#[");
    }
    let start =
        before.rfind(|c| !source::is_word(c)).map_or(0, |at| at + before[at..].chars().next().unwrap().len_utf8());
    let word = &before[start..];
    !word.is_empty() && !before[..start].ends_with('\'') && !KEYWORDS.contains(&word)
}

const KEYWORDS: &[&str] = &[
    "as", "box", "break", "const", "dyn", "else", "for", "if", "impl", "in", "let", "match", "move", "mut", "ref",
    "return", "static", "where", "while",
];

fn missing_lints(text: &str) -> Vec<String> {
    let code = &Source::new("protocol/src/lib.rs", text).code;
    // `#![cfg_attr(not(test), deny(…))]` or `#![deny(…)]`; clippy.toml spares the tests in either case.
    let denied: String = ["deny", "forbid"]
        .iter()
        .flat_map(|level| source::words(code, level))
        .map(|at| {
            let open = at + code[at..].find('(').unwrap_or(0);
            &code[open..source::closing(code, open)]
        })
        .collect();
    LINTS.iter().filter(|lint| !denied.contains(**lint)).map(|lint| format!("{lint} is not denied")).collect()
}

fn lifted_lints(source: &Source) -> Vec<String> {
    let lifts = |level: &'static str| {
        source::attributes(&source.shipped, level).filter_map(move |(at, inside)| {
            let lint = LINTS.iter().find(|lint| inside.contains(**lint))?;
            Some(source.at(at, &format!("`{level}({lint})`")))
        })
    };
    ["allow", "expect", "warn"].into_iter().flat_map(lifts).collect()
}

#[test]
fn the_rule_on_panics_and_logging_bites() {
    let findings = |text: &str| forbidden(&Source::new("protocol/src/a.rs", text)).len();
    for bad in
        ["a.unwrap();", "a\n    .expect(\"b\");", "map(Option::unwrap)", "panic!()", "todo! ()", "unreachable!(\"a\")"]
    {
        assert_eq!(findings(bad), 1, "{bad}");
    }
    for bad in [
        "use std::fmt;",
        "extern crate std;",
        "::std::mem::swap()",
        "tracing::info!(\"a\")",
        "use log::info;",
        "dbg!(a)",
    ] {
        assert_eq!(findings(bad), 1, "{bad}");
    }
    for good in [
        "a.unwrap_or(b)",
        "// panic!()",
        "\"std::fmt\"",
        "self.expect = 3",
        "self.expect(Kind::Map)?",
        "#[cfg(test)]\nmod tests { fn a() { b.unwrap() } }",
        "log: u8",
        "my_std::x",
    ] {
        assert_eq!(findings(good), 0, "{good}");
    }
}

#[test]
fn the_rule_on_indexing_bites() {
    let findings = |text: &str| indexed(&Source::new("protocol/src/a.rs", text)).len();
    for bad in ["a[i]", "a.b()[..n]", "a[0][i]", "a?[i + 1]", "self.0[x.y()]", "a [\"b\"]"] {
        assert_eq!(findings(bad), 1, "{bad}");
    }
    for good in [
        "a[..]",
        "a[0]",
        "a[..SIZE]",
        "let [a, b] = c;",
        "&'a [u8]",
        "&mut [u8]",
        "vec![a; b]",
        "#[derive(A)]",
        "[0; n]",
        "for i in [a, b] {}",
        "x: [u8; n]",
    ] {
        assert_eq!(findings(good), 0, "{good}");
    }
}

#[test]
fn the_rule_on_lints_bites() {
    assert_eq!(missing_lints("#![no_std]\n// #![deny(clippy::panic)]").len(), LINTS.len());
    let denied = format!("#![deny({})]", LINTS.join(", "));
    assert_eq!(missing_lints(&denied), Vec::<String>::new());
    let lifted = Source::new("protocol/src/a.rs", "#[expect(clippy::panic, reason = \"a\")]\nfn a() {}");
    assert_eq!(lifted_lints(&lifted), ["protocol/src/a.rs:1: `expect(clippy::panic)`"]);
}
