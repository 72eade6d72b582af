//! Every fuzz target starts from examples: from nothing it would take hours to find the first valid frame.

use std::fs;

use super::report;
use crate::workspace;

#[test]
fn every_fuzz_target_has_a_corpus() {
    let files = workspace::files(&["rs"]);
    let targets: Vec<_> =
        files.iter().filter_map(|path| path.strip_prefix("fuzz/fuzz_targets/")?.strip_suffix(".rs")).collect();
    assert!(!targets.is_empty(), "fuzz/fuzz_targets holds no target");
    let rule = "Every fuzz target has a folder fuzz/corpus/<target> with at least one file.";
    report(
        rule,
        without_corpus(&targets, |target| {
            fs::read_dir(workspace::root().join("fuzz/corpus").join(target)).map_or(0, Iterator::count)
        }),
    );
}

fn without_corpus(targets: &[&str], count: impl Fn(&str) -> usize) -> Vec<String> {
    targets.iter().filter(|target| count(target) == 0).map(|target| format!("{target} has no corpus")).collect()
}

#[test]
fn the_rule_on_corpora_bites() {
    assert_eq!(without_corpus(&["a", "b"], |target| usize::from(target == "a")), ["b has no corpus"]);
}
