//! Where the project's files are.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A file of the project; the message says what it is for when it is not there.
pub(crate) fn read(path: &str, purpose: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path} cannot be read ({e}): {purpose}"))
}

/// All files of the project with one of these extensions, relative to the root and sorted; all of them for no extension.
pub(crate) fn files(extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    walk(root(), &mut found);
    let wanted = |path: &PathBuf| {
        extensions.is_empty() || path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted))
    };
    let relative = |path: PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let mut found: Vec<_> = found.into_iter().filter(wanted).map(relative).collect();
    found.sort();
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !GENERATED.contains(&name) {
            walk(&path, found);
        } else if path.is_file() && name != ".git" {
            found.push(path);
        }
    }
}

const GENERATED: &[&str] = &[".git", "target", "artifacts", "coverage"];
