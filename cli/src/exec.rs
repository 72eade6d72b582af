//! Runs a shell command for one request, and ends it with all its children when the request ends.

use std::io::{Error, ErrorKind};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};

/// What a command may print before it is stopped, in bytes: no frame could carry more.
const OUTPUT_MAX: u64 = 64 << 20;

/// Runs `sh -c command` with `input` on stdin and gives what it printed.
///
/// The command leads a process group of its own. Dropping this future kills the whole group, and so does its end, so
/// nothing that a request started outlives the request. What the command writes to stderr goes to ours.
///
/// # Errors
/// When it cannot be started, exits with anything but 0, or prints too much. The texts are for our own stderr.
pub(crate) async fn run(command: &str, input: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let _group = Group::of(&child);
    let stdin = child.stdin.take();
    let mut output = Vec::new();
    let stdout = child.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
    let mut limited = stdout.take(OUTPUT_MAX + 1);
    // At once, or a command that prints before it has read everything would block for ever.
    let (read, ()) = tokio::join!(limited.read_to_end(&mut output), feed(stdin, input));
    if read? as u64 > OUTPUT_MAX {
        return Err(Error::other("the command printed too much"));
    }
    let status = child.wait().await?;
    if status.success() { Ok(output) } else { Err(Error::other(format!("the command ended with {status}"))) }
}

/// Writes what the command cares to read: one that ignores its input is no failure.
async fn feed(stdin: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(input).await;
    }
}

/// A process group that dies with this value.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: &Child) -> Self {
        Self(leader.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Its number cannot have gone to another group while a member lives; without one there is nothing to kill.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn stdout_is_the_answer() {
        assert_eq!(run("cat; printf x", b"in").await.unwrap(), b"inx");
        assert_eq!(run("true", &vec![b'a'; 1 << 20]).await.unwrap(), b"");
        let all = vec![b'b'; 1 << 20];
        assert_eq!(run("cat", &all).await.unwrap(), all);
        assert!(run("echo half; exit 3", b"").await.unwrap_err().to_string().contains("exit status: 3"));
    }

    /// Children that outlive the command, or are still running when the request is dropped, die with it.
    #[tokio::test]
    async fn nothing_outlives_the_request() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let sleeper = format!("sleep 600 >/dev/null 2>&1 & echo $! > {}", pid_file.display());
        run(&sleeper, b"").await.unwrap();
        assert_dead(&pid_file).await;
        let waiting = format!("{sleeper}; wait");
        let cancelled = tokio::time::timeout(Duration::from_millis(500), run(&waiting, b"")).await;
        assert!(cancelled.is_err());
        assert_dead(&pid_file).await;
    }

    async fn assert_dead(pid_file: &std::path::Path) {
        let pid = std::fs::read_to_string(pid_file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let started = Instant::now();
        // A zombie that nobody has reaped yet (state Z) is dead, too.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(started.elapsed() < Duration::from_secs(5), "process {pid} is still alive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
