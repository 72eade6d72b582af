//! A Rust file as the rules see it: code without comments and literals, with or without what only tests build.
//!
//! A scanner and not a parser: it must never miss a comment, a string or a brace, and need know nothing else.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::workspace;

/// A Rust file whose comments and literals are blanks in `code`, and whose tests are blanks too in `shipped`.
///
/// All three texts have the same length, so a position in one is the same position in the others.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
    pub(super) code: String,
    pub(super) shipped: String,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let mut shipped = code.clone();
        for range in test_items(&code) {
            fill(&mut shipped, range);
        }
        Self { path: path.to_owned(), text: text.to_owned(), code, shipped }
    }

    /// `path:line: what`, for a finding at this position.
    pub(super) fn at(&self, offset: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line(&self.text, offset))
    }

    /// The text of everything that only tests build, literals included.
    pub(super) fn tested(&self) -> String {
        test_items(&self.code).into_iter().map(|range| &self.text[range]).collect()
    }
}

/// All Rust files of the project. Files that only tests build ship nothing.
pub(super) fn all() -> Vec<Source> {
    let load = |path: &String| Source::new(path, &workspace::read(path, "it was there a moment ago"));
    let mut sources: Vec<_> = workspace::files(&["rs"]).iter().map(load).collect();
    let hidden: BTreeSet<String> = sources.iter().flat_map(test_files).collect();
    for source in &mut sources {
        let outside = ["tests/", "benches/", "fuzz/"].iter().any(|folder| source.path.contains(folder));
        if outside || hidden.iter().any(|module| is_of_module(&source.path, module)) {
            let whole = 0..source.shipped.len();
            fill(&mut source.shipped, whole);
        }
    }
    sources
}

/// The sources below one folder.
pub(super) fn below(folder: &str) -> Vec<Source> {
    let sources: Vec<_> = all().into_iter().filter(|source| source.path.starts_with(folder)).collect();
    assert!(!sources.is_empty(), "there is no Rust file below {folder}: has it moved?");
    sources
}

/// Where this word stands alone.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The position behind the bracket that closes the one at `open`.
pub(super) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

/// The first `{` or `;` from `start` on that is in no bracket.
pub(super) fn body(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code[start..].char_indices() {
        match c {
            '{' | ';' if depth == 0 => return Some(start + at),
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The attributes `#[name…]` and `#![name…]`: the position of each and what stands in its brackets.
pub(super) fn attributes<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = (usize, &'a str)> + 'a {
    words(code, name).filter_map(move |at| {
        let hash = code[..at].trim_end().strip_suffix('[')?.trim_end_matches('!').strip_suffix('#')?.len();
        let open = hash + code[hash..].find('[')?;
        Some((hash, &code[open + 1..closing(code, open) - 1]))
    })
}

fn line(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

fn fill(text: &mut String, range: Range<usize>) {
    let blanks: String = text[range.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
    text.replace_range(range, &blanks);
}

fn blank(text: &str) -> String {
    let mut code = text.to_owned();
    let mut at = 0;
    while at < text.len() {
        match literal(text, at) {
            Some(end) => {
                fill(&mut code, at..end);
                at = end;
            }
            None => at += text[at..].chars().next().unwrap().len_utf8(),
        }
    }
    code
}

/// The end of the comment, string or character that starts here, if one does.
fn literal(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let length = if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        block_comment(rest)
    } else if rest.starts_with('"') {
        quoted(rest, '"')
    } else if let Some(inside) = rest.strip_prefix('\'') {
        let mut chars = inside.chars();
        let character = chars.next() == Some('\\') || chars.next() == Some('\'');
        if !character {
            return None; // a lifetime
        }
        quoted(rest, '\'')
    } else if rest.starts_with('r') && !text[..at].ends_with(|c| is_word(c) && !"bc".contains(c)) {
        let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
        if !rest[1 + hashes..].starts_with('"') {
            return None; // a name
        }
        let end = format!("\"{}", "#".repeat(hashes));
        let start = hashes + 2;
        rest[start..].find(&end).map_or(rest.len(), |found| start + found + end.len())
    } else {
        return None;
    };
    Some(at + length)
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let step = &rest.as_bytes()[at..];
        if step.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if step.starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// Items behind `#[cfg(test)]` and the like, from the attribute on.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let for_tests = |inside: &str| has(inside, "test") && !inside.contains("not(test");
    attributes(code, "cfg").filter(|(_, inside)| for_tests(inside)).map(|(at, _)| at..item_end(code, at)).collect()
}

fn has(code: &str, word: &str) -> bool {
    words(code, word).next().is_some()
}

/// The end of the item whose attributes start here; for an inner attribute that of the file.
fn item_end(code: &str, start: usize) -> usize {
    let mut at = start;
    while code[at..].trim_start().starts_with('#') {
        let Some(open) = code[at..].find('[').filter(|_| !code[at..].trim_start().starts_with("#!")) else {
            return code.len();
        };
        at = closing(code, at + open);
    }
    match body(code, at) {
        Some(body) if code[body..].starts_with('{') => closing(code, body),
        Some(semicolon) => semicolon + 1,
        None => code.len(),
    }
}

/// The modules in files of their own that only tests build, as the path without extension.
fn test_files(source: &Source) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let base = match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => source.path.trim_end_matches(".rs").to_owned(),
    };
    let module = |range: Range<usize>| {
        let item = source.code[range].strip_suffix(';')?;
        let (_, name) = item.rsplit_once("mod ")?;
        Some(format!("{base}/{}", name.trim()))
    };
    test_items(&source.code).into_iter().filter_map(module).collect()
}

fn is_of_module(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[test]
fn comments_and_literals_are_blanked() {
    let text = r####"
        let a = "x { \" {"; // }
        let b = r#"{ " {"#; /* { /* } */ { */
        let c = '{'; let d = '\''; let e = b"{"; let f = br##"{"##;
        fn g<'a>(h: &'a str) -> char { '"' }
    "####;
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(
        code.split_whitespace().collect::<Vec<_>>().join(" "),
        concat!("let a = ; let b = ; let c = ; let d = ; let e = b ; let f = b ; ", "fn g<'a>(h: &'a str) -> char { }")
    );
}

#[test]
fn tests_are_not_shipped() {
    let text = "fn a() {}\n#[cfg(test)]\n#[path = \"x\"]\nmod b { fn c(\"d\") {} }\nfn e() {}\n#[cfg(all(test, unix))]\nuse f;\n#[cfg(not(test))]\nfn g() {}";
    let source = Source::new("protocol/src/lib.rs", text);
    assert_eq!(source.shipped.split_whitespace().collect::<String>(), "fna(){}fne(){}#[cfg(not(test))]fng(){}");
    assert!(source.tested().contains("fn c(\"d\")"), "{}", source.tested());
    assert!(!source.tested().contains("fn e"), "{}", source.tested());
    let whole = Source::new("x/src/a.rs", "#![cfg(test)]\nfn a() {}");
    assert_eq!(whole.shipped.trim(), "");
}

#[test]
fn test_modules_in_files_of_their_own_are_found() {
    let source = Source::new("x/src/hub/mod.rs", "mod a;\n#[cfg(test)]\nmod tests;\n");
    assert_eq!(test_files(&source), ["x/src/hub/tests"]);
    assert!(
        is_of_module("x/src/hub/tests/calls.rs", "x/src/hub/tests")
            && is_of_module("x/src/hub/tests.rs", "x/src/hub/tests")
    );
    assert!(!is_of_module("x/src/hub/tests_of.rs", "x/src/hub/tests"));
}
