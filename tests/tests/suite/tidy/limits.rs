//! Every limit is named in some suite: a bound that nothing reaches is a bound nobody knows to hold.

use super::report;
use super::source::{self, Source};

/// Limits whose suites are still to come. Only ever shrinks: a name that is tested must leave the list.
const DUE: &[&str] = &[];

#[test]
fn every_limit_is_tested() {
    let sources = source::all();
    let limits = sources.iter().find(|source| source.path == "protocol/src/limits.rs").expect("the limits' file");
    let suites: String = sources.iter().filter(|source| !source.path.contains("suite/tidy/")).map(suite).collect();
    let rule = "Every field of `Limits` is reached by a suite, which names it as `limits.field` or in a `Limits { … }`; what \
                is still due stands in `DUE` and leaves it with its test.";
    report(rule, findings(&fields(limits), &suites, DUE));
}

/// What of a file is a suite: the whole file, or its tests.
fn suite(source: &Source) -> String {
    if source.shipped.trim().is_empty() { source.text.clone() } else { source.tested() }
}

fn fields(source: &Source) -> Vec<String> {
    let code = &source.code;
    let open = code.find("pub struct Limits").and_then(|at| source::body(code, at)).expect("`pub struct Limits {`");
    let body = &code[open..source::closing(code, open)];
    let name = |line: &str| Some(line.trim().strip_prefix("pub ")?.split_once(':')?.0.to_owned());
    body.lines().filter_map(name).collect()
}

fn findings(fields: &[String], suites: &str, due: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for field in fields {
        match (named(field, suites), due.contains(&field.as_str())) {
            (false, false) => found.push(format!("`{field}` is named in no suite")),
            (true, true) => found.push(format!("`{field}` is tested now: take it off the list")),
            (true, false) | (false, true) => {}
        }
    }
    let gone = due.iter().filter(|name| !fields.iter().any(|field| field == *name));
    found.extend(gone.map(|name| format!("`{name}` is no limit: take it off the list")));
    found
}

fn named(field: &str, suites: &str) -> bool {
    let literal = |(at, _): (usize, &str)| {
        let open = at + "Limits ".len();
        let body = &suites[open..source::closing(suites, open)];
        source::words(body, field).any(|at| body[at + field.len()..].starts_with([':', ',']))
    };
    source::words(suites, field).any(|at| suites[..at].ends_with("limits."))
        || suites.match_indices("Limits {").any(literal)
}

#[test]
fn the_rule_on_limits_bites() {
    let source = Source::new(
        "a.rs",
        "pub struct Limits {\n    /// A: b.\n    pub one: u32,\n    pub two: Duration,\n}\npub struct X { pub y: u8 }",
    );
    let fields = fields(&source);
    assert_eq!(fields, ["one", "two"]);
    assert_eq!(findings(&fields, "limits.one = 3; Limits { two: 3, ..a }", &[]), Vec::<String>::new());
    assert_eq!(findings(&fields, "config.limits.one_more; x.two", &["two"]), ["`one` is named in no suite"]);
    assert_eq!(findings(&fields, "limits.one limits.two", &["two"]), ["`two` is tested now: take it off the list"]);
    assert_eq!(findings(&fields, "limits.one limits.two", &["three"]), ["`three` is no limit: take it off the list"]);
}
