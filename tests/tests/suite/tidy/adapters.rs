//! Adapters are thin and alike, so that changing runtime is changing one `use`.

use std::collections::{BTreeMap, BTreeSet};

use super::report;
use super::source::{self, Source};

const ADAPTER_MAX: usize = 200;

#[test]
fn adapters_are_thin() {
    let rule = format!("An adapter has at most {ADAPTER_MAX} lines: whatever they share belongs into commipc-runtime.");
    report(&rule, adapters().iter().filter_map(|(name, sources)| too_thick(name, sources)));
}

#[test]
fn adapters_have_the_same_public_names() {
    let names: BTreeMap<_, _> =
        adapters().iter().map(|(name, sources)| (name.clone(), public_names(sources))).collect();
    report("All adapters have the same public names.", differences(&names));
}

fn adapters() -> BTreeMap<String, Vec<Source>> {
    let mut adapters = BTreeMap::<_, Vec<_>>::new();
    for source in source::all().into_iter().filter(|source| source.path.starts_with("runtime-")) {
        let (adapter, rest) = source.path.split_once('/').unwrap();
        if rest.starts_with("src/") {
            adapters.entry(adapter.to_owned()).or_default().push(source);
        }
    }
    assert!(adapters.len() >= 2, "there are at least two adapters");
    adapters
}

fn too_thick(name: &str, sources: &[Source]) -> Option<String> {
    let lines: usize = sources.iter().map(|source| source.text.lines().count()).sum();
    (lines > ADAPTER_MAX).then(|| format!("{name}: {lines} lines"))
}

/// The public items at the top of the crate and its modules; what is re-exported is named by the whole path.
fn public_names(sources: &[Source]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for item in sources.iter().flat_map(|source| source.shipped.split("\npub ").skip(1)) {
        let end = item.find(['(', '{', '=', ';', '<', ':']).unwrap_or(item.len());
        let end = if item.starts_with("use ") { item.find(';').unwrap_or(item.len()) } else { end };
        let words: Vec<_> = item[..end].split_whitespace().filter(|word| !["async", "const"].contains(word)).collect();
        names.insert(words.join(" "));
    }
    names
}

fn differences(adapters: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let all: BTreeSet<_> = adapters.values().flatten().collect();
    let missing = |name: &String| {
        let without: Vec<_> =
            adapters.iter().filter(|(_, names)| !names.contains(name)).map(|(adapter, _)| adapter).collect();
        (!without.is_empty()).then(|| format!("`pub {name}` is missing in {without:?}"))
    };
    all.into_iter().filter_map(missing).collect()
}

#[test]
fn the_rules_on_adapters_bite() {
    let adapter = |text: &str| vec![Source::new("runtime-x/src/lib.rs", text)];
    assert!(too_thick("a", &adapter(&"\n".repeat(200))).is_none());
    assert!(too_thick("a", &adapter(&"\n".repeat(201))).is_some());
    let names = |text: &str| public_names(&adapter(text));
    let one = names("\npub use a::*;\npub fn hub() -> A {}\npub struct B<T>(T);\npub(crate) fn c() {}\n");
    assert_eq!(one, ["use a::*", "fn hub", "struct B"].map(str::to_owned).into());
    let other = names("\npub use a::*;\npub fn hub() -> B {}\n");
    let found = differences(&[("one".to_owned(), one), ("other".to_owned(), other)].into());
    assert_eq!(found, ["`pub struct B` is missing in [\"other\"]"]);
}
