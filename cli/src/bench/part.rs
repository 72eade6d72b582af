//! The processes of a benchmark: this program again, with another command.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;

use super::usage::{self, Usage};
use crate::failure::{Exit, Failure, Outcome};

/// A running process that ends with this value.
pub(super) struct Part {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Part {
    /// Starts this program with other arguments.
    pub(super) fn start(name: &'static str, args: &[String]) -> Outcome<Self> {
        let failed = |error| Failure::io(format_args!("starting the {name}"), &error);
        let mut child = std::env::current_exe()
            .and_then(|exe| {
                Command::new(exe).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
            })
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let Some(stdout) = child.stdout.take() else {
            return Err(Failure::new(Exit::Other, format!("the {name} has no stdout")));
        };
        Ok(Self { name, child, stdin, stdout: BufReader::new(stdout) })
    }

    /// The next line it prints.
    pub(super) fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(n) if n > 0 => Ok(line.trim_end().to_owned()),
            _ => Err(self.ended_early()),
        }
    }

    /// Lets it begin, or end, that said it is ready.
    pub(super) fn go(&mut self) -> Outcome {
        let name = self.name;
        let stdin = self.stdin.as_mut();
        stdin
            .map_or(Ok(()), |stdin| stdin.write_all(b"go\n"))
            .map_err(|error| Failure::io(format_args!("telling the {name} to begin"), &error))
    }

    /// What it has measured.
    pub(super) fn result<T: DeserializeOwned>(&mut self) -> Outcome<T> {
        let line = self.line()?;
        serde_json::from_str(&line)
            .map_err(|error| Failure::new(Exit::Other, format!("the {} told no result: {error}", self.name)))
    }

    /// Passes on what the process said, with its exit code.
    fn ended_early(&mut self) -> Failure {
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            // What cannot be read is not passed on; that it ended is still told.
            let _ = stderr.read_to_string(&mut said);
        }
        let code = self.child.wait().ok().and_then(|status| status.code());
        let mut lines = said.lines().map(|line| line.trim_start_matches("commipc: ").trim_start_matches("  → "));
        let what = lines.next().unwrap_or("it said nothing");
        let failure = Failure::new(Exit::of(code), format!("the benchmark's {} ended early: {what}", self.name));
        match lines.next() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        Usage::of(self.child.id())
    }

    pub(super) fn memory(&self) -> Option<u64> {
        usage::memory(self.child.id())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
