//! Processes that play a role on an adapter: what they say, what they hold, and that they are heard of in time.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Longer than anything takes that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process, which ends with this one.
pub(crate) struct Puppet {
    pub(crate) name: String,
    child: Child,
    input: ChildStdin,
    said: Receiver<String>,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings {
    /// Sockets, pipes, whatever is open.
    files: usize,
    threads: usize,
    kilobytes: u64,
}

impl Puppet {
    /// Starts it; gives what it says when it is ready.
    pub(crate) fn start(adapter: &str, role: &str, url: &str, rounds: Option<u64>) -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_puppet"));
        command.args([adapter, role, url]).args(rounds.map(|rounds| rounds.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (say, said) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        let puppet = Self { name: format!("the {role} on {adapter}"), child, input, said };
        let line = puppet.line("is not ready");
        (puppet, line)
    }

    /// What it says next. Meanwhile it `is` something, for which there is an end to patience.
    pub(crate) fn line(&self, is: &str) -> String {
        match self.said.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{} {is}, and says nothing for {PATIENCE:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => panic!("{} {is}, and has ended", self.name),
        }
    }

    /// What it has to say when it is asked.
    pub(crate) fn ask(&mut self) -> String {
        writeln!(self.input).unwrap();
        self.line("was asked something")
    }

    pub(crate) fn holdings(&self) -> Holdings {
        let process = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let count = |folder: &str| fs::read_dir(format!("{process}/{folder}")).unwrap().count();
        Holdings {
            files: count("fd"),
            threads: count("task"),
            kilobytes: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }
}

impl Holdings {
    /// Whether this is more than was there before, memory beyond so many KiB more included.
    pub(crate) fn exceed(&self, before: &Self, growth: u64) -> bool {
        self.files > before.files
            || self.threads > before.threads
            || self.kilobytes > before.kilobytes.saturating_add(growth)
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
