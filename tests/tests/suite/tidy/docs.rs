//! Words for people: links lead somewhere, commands exist, and nothing names the place where the project is built.

use std::fs;

use super::report;
use super::source;
use crate::workspace;

/// Hosts of registries and places of one machine; in two halves each, so that this file may hold them.
const FORBIDDEN: &[(&str, &str)] = &[
    ("crates", ".io"),
    ("pypi", ".org"),
    ("npmjs", ".com"),
    ("npmjs", ".org"),
    ("deb.debian", ".org"),
    ("proxy.golang", ".org"),
    ("/work", "/shared"),
    ("/work", "/wt"),
];

#[test]
fn no_file_names_a_registry_or_a_machine() {
    let own = |path: &String| !path.ends_with("Cargo.lock") && !path.starts_with("fuzz/corpus/");
    let found = workspace::files(&[]).into_iter().filter(own).flat_map(|path| {
        let text = String::from_utf8_lossy(&fs::read(workspace::root().join(&path)).unwrap()).into_owned();
        forbidden_words(&path, &text)
    });
    report("No file names a registry's host or a place on somebody's machine.", found);
}

#[test]
fn relative_links_lead_somewhere() {
    let found = documents().into_iter().flat_map(|(path, text)| {
        let folder = workspace::root().join(&path).parent().unwrap().to_owned();
        broken_links(&path, &text, |target| folder.join(target).exists())
    });
    report("Every relative link in the documents leads to a file.", found);
}

#[test]
fn the_readme_gives_the_command_that_tests() {
    let readme = workspace::read("README.md", "it is what a new user reads first");
    assert!(readme.contains("cargo test --workspace"), "the README gives the command that runs all tests");
}

#[test]
fn documented_commands_exist() {
    let known = Known::load();
    let found = documents().into_iter().flat_map(|(path, text)| unknown_commands(&path, &text, &known));
    report("Every command in a document's code blocks exists.", found);
}

#[test]
fn architecture_names_what_exists() {
    let page = workspace::read("ARCHITECTURE.md", "it says what holds, and what holds it");
    let code = source::all();
    let lints = workspace::read("Cargo.toml", "the lints stand there");
    let found = unknown_names(&page, |name| {
        let function = format!("fn {name}");
        lints.contains(&format!("{name} = ")) || code.iter().any(|source| source.code.contains(&function))
    });
    report("Every test and lint that ARCHITECTURE.md names exists.", found);
}

fn documents() -> Vec<(String, String)> {
    let read = |path: String| (path.clone(), workspace::read(&path, "it was there a moment ago"));
    workspace::files(&["md"]).into_iter().map(read).collect()
}

fn forbidden_words(path: &str, text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words =
        FORBIDDEN.iter().map(|(start, end)| format!("{start}{end}")).filter(|word| text.contains(word.as_str()));
    words.map(|word| format!("{path}: {word}")).collect()
}

fn broken_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '\n']).next());
    let files = targets
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty() && !target.contains(':'));
    files.filter(|target| !exists(target)).map(|target| format!("{path}: ({target}) leads nowhere")).collect()
}

/// Names in backticks that look like those of tests and lints, and are none.
fn unknown_names(page: &str, known: impl Fn(&str) -> bool) -> Vec<String> {
    let quoted = page.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2));
    let name = |text: &&str| {
        text.contains('_') && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    quoted.filter(name).filter(|name| !known(name)).map(|name| format!("`{name}`")).collect()
}

/// What a documented command may name.
struct Known {
    files: Vec<String>,
    packages: String,
    cli: String,
}

impl Known {
    fn load() -> Self {
        let manifests = workspace::files(&["toml"]);
        let packages = manifests.iter().map(|path| workspace::read(path, "a manifest")).collect();
        let cli = source::below("cli/src/").into_iter().map(|source| source.text).collect();
        Self { files: workspace::files(&[]), packages, cli }
    }

    fn package(&self, name: &str) -> bool {
        self.packages.contains(&format!("name = \"{name}\""))
    }

    /// A subcommand is a variant of a `clap` enum, or a name given to one.
    fn subcommand(&self, name: &str) -> bool {
        let capital = |part: &str| part[..1].to_uppercase() + &part[1..];
        let variant: String = name.split('-').filter(|part| !part.is_empty()).map(capital).collect();
        source::words(&self.cli, &variant).next().is_some() || self.cli.contains(&format!("\"{name}\""))
    }
}

fn unknown_commands(path: &str, text: &str, known: &Known) -> Vec<String> {
    let blocks = text.split("```").skip(1).step_by(2).filter(|block| {
        ["sh", "bash", "console", "shell", "text", ""].contains(&block.lines().next().unwrap_or("").trim())
    });
    let lines = blocks.flat_map(|block| block.lines().skip(1));
    lines.filter_map(|line| Some(format!("{path}: {}: `{}`", unknown(line, known)?, line.trim()))).collect()
}

/// What is wrong with one line of a code block, if it is one of our commands.
fn unknown(line: &str, known: &Known) -> Option<String> {
    let line = line.trim().trim_start_matches("$ ");
    let words: Vec<_> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
    let after = |option: &str| words.iter().position(|w| *w == option).and_then(|at| words.get(at + 1)).copied();
    let name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    match *words.first()? {
        "cargo" => {
            if let Some(package) = after("-p").filter(|package| !known.package(package)) {
                return Some(format!("there is no package {package}"));
            }
            let runs = words.get(1) == Some(&"run") && after("-p") == Some("commipc-cli");
            after("--")
                .filter(|_| runs)
                .filter(name)
                .filter(|sub| !known.subcommand(sub))
                .map(|sub| format!("no subcommand {sub}"))
        }
        "bash" => words
            .get(1)
            .filter(|file| !known.files.iter().any(|known| known == **file))
            .map(|file| format!("no file {file}")),
        "commipc" => words
            .get(1)
            .copied()
            .filter(name)
            .filter(|sub| !known.subcommand(sub))
            .map(|sub| format!("no subcommand {sub}")),
        _ => None,
    }
}

#[test]
fn the_rule_on_words_bites() {
    let host = format!("https://index.{}{}", FORBIDDEN[0].0, FORBIDDEN[0].1.to_uppercase());
    assert_eq!(forbidden_words("a.md", &host).len(), 1);
    assert_eq!(forbidden_words("a.md", "crates and boxes"), Vec::<String>::new());
}

#[test]
fn the_rule_on_links_bites() {
    let text = "[a](B.md#c) [d](https://e) [f](#g) [h](I.md)";
    assert_eq!(broken_links("a.md", text, |target| target == "B.md"), ["a.md: (I.md) leads nowhere"]);
}

#[test]
fn the_rule_on_names_bites() {
    let page = "`a_test` ```\n`b_test`\n``` and `C_d`, `crate::e_f`, `gone_test`, `word`";
    assert_eq!(unknown_names(page, |name| name == "a_test"), ["`gone_test`"]);
}

#[test]
fn the_rule_on_commands_bites() {
    let known = Known {
        files: vec![".ci/run".to_owned()],
        packages: "name = \"commipc-cli\"".to_owned(),
        cli: "enum Command { Demo, Sim(Sim) }".to_owned(),
    };
    let text = "```sh\ncargo run -p commipc-cli -- demo\n$ commipc sim\nbash .ci/run   # all\ncargo test --workspace\n```\n\
                ```rust\nbash nothing\n```\n```\ncargo run -p commipc-cli -- dance\ncommipc dance\nbash .ci/walk\ncargo test -p x\n```\n";
    let found = unknown_commands("a.md", text, &known);
    assert_eq!(found.len(), 4, "{found:#?}");
}
