//! Rules on all Rust code.

use super::report;
use super::source::{self, Source};

#[test]
fn nothing_is_left_open() {
    let rule = "Nothing is left open: no ignored test, no `todo!`, no `unimplemented!`.";
    report(rule, source::all().iter().flat_map(left_open));
}

#[test]
fn every_exception_states_its_reason() {
    let rule = "Every exception states its reason: `#[expect(lint, reason = \"…\")]`.";
    report(rule, source::all().iter().flat_map(without_reason));
}

fn left_open(source: &Source) -> Vec<String> {
    let ignored = source::attributes(&source.code, "ignore").map(|(at, _)| source.at(at, "ignored"));
    let macros = ["todo", "unimplemented"].into_iter().flat_map(|name| {
        let calls = source::words(&source.code, name).filter(|at| source.code[at + name.len()..].starts_with('!'));
        calls.map(move |at| source.at(at, &format!("`{name}!`")))
    });
    ignored.chain(macros).collect()
}

fn without_reason(source: &Source) -> Vec<String> {
    let exceptions = |name: &'static str| {
        let without = |(_, inside): &(usize, &str)| !inside.contains("reason");
        source::attributes(&source.code, name)
            .filter(without)
            .map(move |(at, _)| source.at(at, &format!("`{name}` without a reason")))
    };
    ["allow", "expect"].into_iter().flat_map(exceptions).collect()
}

#[test]
fn the_rule_on_open_ends_bites() {
    let source = Source::new("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() { todo!() }\n// todo!()\nfn todo() {}");
    assert_eq!(left_open(&source), ["a.rs:2: ignored", "a.rs:3: `todo!`"]);
}

#[test]
fn the_rule_on_exceptions_bites() {
    let source = Source::new(
        "a.rs",
        "#![allow(dead_code)]\n#[expect(a, reason = \"b\")]\n#[expect(c)]\nfn d() { e.expect(\"f\") }",
    );
    assert_eq!(without_reason(&source), ["a.rs:1: `allow` without a reason", "a.rs:3: `expect` without a reason"]);
}
