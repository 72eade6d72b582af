//! Adapters are thin and alike, so that changing runtime is changing one `use`.

use std::collections::{BTreeMap, BTreeSet};

use super::report;
use super::source::{self, Source};
use crate::workspace;

const ADAPTER_MAX: usize = 200;
/// What the blocking client has in the place of a runtime: its thread and its sockets. Its verbs that wait are beside it.
const DRIVER: [&str; 2] = ["runtime-blocking/src/reactor.rs", "runtime-blocking/src/sockets.rs"];
const DRIVER_MAX: usize = 450;
const NUMBERS: [&str; 7] = ["no", "one", "two", "three", "four", "five", "six"];
/// What each adapter's README must tell besides its functions.
const MUST_TELL: [(&str, &[&str]); 4] = [
    (
        "runtime-asyncstd",
        &[
            "**async-std is not maintained any more**: [RUSTSEC-2025-0052]",
            "**Choose this adapter** only for a program that runs on async-std today",
            "It exists so that",
            "**Moving to smol is one line**",
            "-use commipc_async_std as commipc;\n+use commipc_smol as commipc;\n",
        ],
    ),
    ("runtime-blocking", &["**Choose it** for a program that has no async runtime"]),
    ("runtime-smol", &["**Choose it** where your program runs on smol"]),
    ("runtime-tokio", &["**Choose it** where your program runs on tokio"]),
];
/// The adapters of async runtimes.
const ASYNC: [&str; 3] = ["runtime-asyncstd", "runtime-smol", "runtime-tokio"];

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

#[test]
fn examples_differ_in_the_runtime_alone() {
    let rule = "The examples of all adapters are the same but for their `use` and the line that enters the runtime.";
    let mut programs = BTreeMap::<String, BTreeMap<String, String>>::new();
    for source in source::all() {
        if let Some((adapter, name)) = source.path.split_once("/examples/").filter(|(a, _)| ASYNC.contains(a)) {
            programs.entry(name.to_owned()).or_default().insert(adapter.to_owned(), source.text);
        }
    }
    assert_eq!(programs.keys().collect::<Vec<_>>(), ["consumer.rs", "hub.rs", "provider.rs"]);
    report(rule, programs.iter().flat_map(|(name, texts)| unlike(name, texts)));
}

/// Where the examples of one name differ from those of the first adapter.
fn unlike(name: &str, texts: &BTreeMap<String, String>) -> Vec<String> {
    let common = |text: &String| {
        let special = |line: &&str| {
            line.starts_with("use commipc_") && line.ends_with(" as commipc;") || line.contains("block_on(run())")
        };
        assert_eq!(text.lines().filter(special).count(), 2, "{name} has both lines once:\n{text}");
        text.lines().filter(|line| !special(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = common(texts.values().next().unwrap());
    let other = |(adapter, text): (&String, &String)| (common(text) != first).then(|| format!("{adapter}: {name}"));
    let missing = ASYNC.iter().filter(|adapter| !texts.contains_key(**adapter)).map(|a| format!("{a} has no {name}"));
    texts.iter().filter_map(other).chain(missing).collect()
}

#[test]
fn the_blocking_client_is_a_small_driver_with_the_same_names() {
    let sources = source::below("runtime-blocking/src/");
    let driver: Vec<_> = sources.iter().filter(|source| DRIVER.contains(&&*source.path)).collect();
    assert_eq!(driver.len(), DRIVER.len(), "a part of the driver has moved");
    let lines: usize = driver.iter().map(|source| source.text.lines().count()).sum();
    assert!(
        lines <= DRIVER_MAX,
        "the driver of the blocking client has {lines} lines, of which {DRIVER_MAX} are allowed"
    );
    let names = public_names(&sources);
    let common = public_names(&adapters()[ASYNC[0]]);
    assert!(names.is_superset(&common), "{names:?} lacks some of {common:?}");
}

#[test]
fn the_readmes_of_adapters_tell_when_to_choose_them_and_all_their_functions() {
    let rule = "The README of each adapter says when to choose it, and names its functions.";
    let findings = MUST_TELL.iter().flat_map(|(adapter, phrases)| {
        let readme = workspace::read(&format!("{adapter}/README.md"), "it tells when to choose the adapter");
        let names = public_names(&source::below(&format!("{adapter}/src/")));
        let found = untold(&readme, phrases, &names, ASYNC.contains(adapter));
        found.into_iter().map(move |what| format!("{adapter}: {what}"))
    });
    report(rule, findings);
}

/// What a README does not tell. Those that count their functions must count right.
fn untold(readme: &str, phrases: &[&str], names: &BTreeSet<String>, counts: bool) -> Vec<String> {
    let functions: Vec<_> = names.iter().filter_map(|name| name.strip_prefix("fn ")).collect();
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (readme, count) = (flat(readme), format!("It adds {} functions: ", NUMBERS[functions.len()]));
    let counted = counts.then_some(&*count).into_iter();
    let unnamed =
        functions.iter().filter(|name| !readme.contains(&format!("`{name}("))).map(|name| format!("`{name}`"));
    let missing = phrases.iter().copied().chain(counted).filter(|phrase| !readme.contains(&flat(phrase)));
    missing.map(|phrase| format!("{phrase:?}")).chain(unnamed).collect()
}

fn adapters() -> BTreeMap<String, Vec<Source>> {
    let mut adapters = BTreeMap::<_, Vec<_>>::new();
    for source in source::all() {
        let (adapter, rest) = source.path.split_once('/').unwrap_or_default();
        if ASYNC.contains(&adapter) && rest.starts_with("src/") {
            adapters.entry(adapter.to_owned()).or_default().push(source);
        }
    }
    assert!(ASYNC.iter().all(|adapter| adapters.contains_key(*adapter)), "{:?}", adapters.keys());
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
    let example = |name: &str, last: &str| format!("use commipc_{name} as commipc;\n{name}::block_on(run())\n{last}\n");
    let texts = |last: &str| {
        ASYNC.map(|adapter| (adapter.to_owned(), example(adapter, if adapter == ASYNC[2] { last } else { "a" }))).into()
    };
    assert_eq!(unlike("hub.rs", &texts("a")), Vec::<String>::new());
    assert_eq!(unlike("hub.rs", &texts("b")), ["runtime-tokio: hub.rs"]);
    let names = |text: &str| public_names(&adapter(text));
    let functions = names("\npub fn hub() -> A {}\npub fn client(url: &str) -> B {}\n");
    let right = "Choose it. It adds\ntwo functions: `hub()` and `client(url)`";
    assert_eq!(untold(right, &["Choose it"], &functions, true), Vec::<String>::new());
    let wrong = untold("It adds\nthree functions: `hub()`", &["Choose it"], &functions, true);
    assert_eq!(wrong, ["\"Choose it\"", "\"It adds two functions: \"", "`client`"]);
    let one = names("\npub use a::*;\npub fn hub() -> A {}\npub struct B<T>(T);\npub(crate) fn c() {}\n");
    assert_eq!(one, ["use a::*", "fn hub", "struct B"].map(str::to_owned).into());
    let other = names("\npub use a::*;\npub fn hub() -> B {}\n");
    let found = differences(&[("one".to_owned(), one), ("other".to_owned(), other)].into());
    assert_eq!(found, ["`pub struct B` is missing in [\"other\"]"]);
}
