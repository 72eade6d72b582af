//! Real processes in a temporary directory of their own, which end with the test.

#![allow(dead_code, reason = "every suite compiles this and none uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]
#![allow(unreachable_pub, reason = "shared between the suites")]

pub mod history;
pub mod ring;

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine. A test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A place for one test: socket, keys and files.
pub struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.path(name);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path.display().to_string()
    }

    /// The URL that every command here uses unless told otherwise.
    pub fn url(&self) -> String {
        format!("unix:{}", self.path("hub.sock").display())
    }

    /// Starts a command without waiting for it.
    pub fn start(&self, args: &[&str]) -> Process {
        Process::start(self.command(args))
    }

    /// Starts a command that may have so many files open.
    pub fn start_with_files(&self, files: u32, args: &[&str]) -> Process {
        self.in_shell(&format!("ulimit -n {files}; exec \"$0\" \"$@\""), args)
    }

    /// Starts what a shell makes of a script whose `$0` is the program.
    pub fn in_shell(&self, script: &str, args: &[&str]) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_commipc")]).args(args);
        Process::start(self.at_home(command))
    }

    /// Starts a command with another `$COMMIPC_HUB`.
    pub fn start_at(&self, hub: &str, args: &[&str]) -> Process {
        let mut command = self.command(args);
        command.env("COMMIPC_HUB", hub);
        Process::start(command)
    }

    /// Starts a hub on the default URL and waits until it listens.
    pub fn hub(&self) -> Process {
        let mut hub = self.start(&["hub"]);
        assert_eq!(hub.line(), format!("listening on {}", self.url()));
        hub
    }

    /// Starts a provider of `math/EVENT` and waits until it provides.
    pub fn provider(&self, event: &str, args: &[&str]) -> Process {
        let mut provider = self.start(&[&["provide", "math", event], args].concat());
        assert_eq!(provider.line(), format!("providing math/{event}"));
        provider
    }

    /// Starts `listen` and waits until it listens.
    pub fn listener(&self, args: &[&str]) -> Process {
        let mut listener = self.start(&[&["listen"], args].concat());
        let line = listener.line_beside();
        assert!(line.contains("listening"), "{line}");
        listener
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        self.start(args).end()
    }

    /// Runs a command to its end with this on its stdin.
    pub fn run_with_stdin(&self, args: &[&str], input: &str) -> Done {
        let mut process = self.start(args);
        process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        process.end()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_commipc"));
        command.args(args);
        self.at_home(command)
    }

    fn at_home(&self, mut command: Command) -> Command {
        command.env("COMMIPC_HUB", self.url()).env("XDG_RUNTIME_DIR", self.dir.path());
        command
    }
}

/// A running process.
pub struct Process {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

/// What a process left behind.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdin, stdout, stderr }
    }

    /// The next line on stdout.
    pub fn line(&mut self) -> String {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => line.trim_end().to_owned(),
            Err(_) => panic!("no line came; stderr: {}", self.stderr.try_iter().collect::<String>()),
        }
    }

    /// The next line on stderr.
    pub fn line_beside(&mut self) -> String {
        match self.stderr.recv_timeout(PATIENCE) {
            Ok(line) => line.trim_end().to_owned(),
            Err(_) => panic!("no line came on stderr; stdout: {}", self.stdout.try_iter().collect::<String>()),
        }
    }

    /// The next line on either.
    pub fn line_anywhere(&mut self) -> String {
        let started = Instant::now();
        loop {
            if let Ok(line) = self.stdout.try_recv().or_else(|_| self.stderr.try_recv()) {
                return line;
            }
            assert!(started.elapsed() < PATIENCE, "it said nothing");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Closes its stdout's reading end.
    pub fn stop_reading(&mut self) {
        self.stdout = channel().1;
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub fn end(mut self) -> Done {
        drop(self.stdin.take());
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "still running");
            thread::sleep(Duration::from_millis(2));
        };
        let rest = |lines: &Receiver<String>| lines.iter().collect::<String>();
        Done { code: status.code(), stdout: rest(&self.stdout), stderr: rest(&self.stderr) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Done {
    /// Succeeded, with exactly this on stdout.
    #[track_caller]
    pub fn printed(&self, stdout: &str) {
        assert_eq!((self.code, self.stdout.trim_end()), (Some(0), stdout), "{self:?}");
    }

    /// Failed with this code, nothing on stdout, and all of these in what it says on stderr.
    #[track_caller]
    pub fn failed(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {self:?}");
        }
        let lines = self.stderr.lines().count();
        assert!((1..=2).contains(&lines), "one or two lines, not {lines}: {self:?}");
    }

    /// Failed because the command line makes no sense.
    #[track_caller]
    pub fn failed_at_usage(&self) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
    }

    /// What `--json` said on stdout, line by line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.lines().map(json).collect()
    }

    /// What `--json` said on stderr: exactly one line.
    #[track_caller]
    pub fn json_error(&self) -> serde_json::Value {
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        json(self.stderr.trim_end())
    }
}

/// One line of what `--json` says.
#[track_caller]
pub fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Waits until a file holds something.
pub fn wait_for_file(path: &Path) -> String {
    let started = Instant::now();
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim_end().to_owned(),
            _ => assert!(started.elapsed() < PATIENCE, "{} was never written", path.display()),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The most memory a process has had so far, in KiB.
pub fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim_end().parse().unwrap()
}

/// Waits until something is so.
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "it never came to be");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a process is gone, or is a zombie that nobody has reaped yet.
pub fn wait_until_dead(pid: &str) {
    let started = Instant::now();
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(started.elapsed() < PATIENCE, "process {pid} is still alive");
        thread::sleep(Duration::from_millis(2));
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = String::new();
        while from.read_line(&mut line).is_ok_and(|n| n > 0) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    receiver
}
