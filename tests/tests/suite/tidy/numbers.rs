//! The numbers on the wire are the same in the specification and in the code.

use std::collections::BTreeSet;
use std::fmt::Debug;

use commipc_protocol::{FaultCode, Misuse, Refusal, Violation};

use super::report;
use crate::workspace;

#[test]
fn the_table_of_errors_is_that_of_the_code() {
    let specification =
        workspace::read("protocol/wire.cddl", "it holds the table of errors, `; <number> <Name> <text>`");
    let rule =
        "protocol/wire.cddl and protocol/src/error.rs have the same errors: a line `; 201 ProviderExists …` each.";
    report(rule, differences(&table(&specification), &codes()));
}

type Table = BTreeSet<(u16, String)>;

fn codes() -> Table {
    fn rows<T: Copy + Debug>(all: &[T], code: impl Fn(T) -> u16) -> Vec<(u16, String)> {
        all.iter().map(|value| (code(*value), format!("{value:?}"))).collect()
    }
    let all = [
        rows(Violation::ALL, Violation::code),
        rows(Refusal::ALL, Refusal::code),
        rows(FaultCode::ALL, FaultCode::code),
        rows(Misuse::ALL, Misuse::code),
    ];
    all.into_iter().flatten().collect()
}

fn table(specification: &str) -> Table {
    let row = |line: &str| {
        let (code, rest) = line.strip_prefix("; ")?.trim_start().split_once(' ')?;
        let name = rest.split_whitespace().next()?;
        let is_name =
            name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric());
        is_name.then_some((code.parse().ok()?, name.to_owned()))
    };
    specification.lines().filter_map(row).collect()
}

fn differences(specified: &Table, coded: &Table) -> Vec<String> {
    let missing = coded.difference(specified).map(|(code, name)| format!("{code} {name} is not specified"));
    missing.chain(specified.difference(coded).map(|(code, name)| format!("{code} {name} is not in the code"))).collect()
}

#[test]
fn the_rule_on_errors_bites() {
    let specified = table(
        "; A table:\n;   1 BadMagic the first bytes\n; 201 Provider another\n; 0x21 MESSAGE_CALL\nframe = bytes\n",
    );
    assert_eq!(specified, [(1, "BadMagic".to_owned()), (201, "Provider".to_owned())].into());
    let coded = [(1, "BadMagic".to_owned()), (201, "ProviderExists".to_owned())].into();
    assert_eq!(
        differences(&specified, &coded),
        ["201 ProviderExists is not specified", "201 Provider is not in the code"]
    );
    assert!(codes().contains(&(201, "ProviderExists".to_owned())), "{:?}", codes());
}
