//! House rules: what can be checked without running anything. Each rule is a test, and a second one proves that it bites.

mod adapters;
mod code;
mod core;
mod docs;
mod fuzzing;
mod limits;
mod migration;
mod numbers;
mod shape;
mod source;

/// Fails with all findings at once, so that nobody has to mend them one run at a time.
fn report(rule: &str, findings: impl IntoIterator<Item = String>) {
    let findings: Vec<_> = findings.into_iter().collect();
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}
