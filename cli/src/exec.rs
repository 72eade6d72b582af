//! Runs a shell command for one request, and ends it with all its children when the request ends.

use std::io::{Error, ErrorKind};
use std::process::Stdio;
use std::sync::Arc;

use futures_lite::stream::{self, Stream};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// What a command, or one line of a stream, may print before it is stopped, in bytes: no frame could carry more.
const OUTPUT_MAX: u64 = 64 << 20;

/// Runs `sh -c command` with `input` on stdin and gives what it printed.
///
/// The command leads a process group of its own. Dropping this future kills the whole group, and so does its end, so
/// nothing that a request started outlives the request. What the command writes to stderr goes to ours.
///
/// # Errors
/// When it cannot be started, exits with anything but 0, or prints too much. The texts are for our own stderr.
pub(crate) async fn run(command: &str, input: &[u8]) -> std::io::Result<Vec<u8>> {
    let Running { mut child, stdin, stdout, group: _group } = Running::start(command)?;
    let mut output = Vec::new();
    let mut limited = stdout.take(OUTPUT_MAX + 1);
    // At once, or a command that prints before it has read everything would block for ever.
    let (read, ()) = tokio::join!(limited.read_to_end(&mut output), feed(stdin, input));
    if read? as u64 > OUTPUT_MAX {
        return Err(too_much());
    }
    ended(&mut child).await?;
    Ok(output)
}

/// Runs a command as [`run`] does, and gives the lines that it prints, each when it is asked for: a command whose lines
/// nobody wants has to wait. Dropping this stream kills the whole group.
///
/// Its errors are the last thing in it, after the lines before.
pub(crate) fn lines(command: Arc<str>, input: Vec<u8>) -> impl Stream<Item = std::io::Result<Vec<u8>>> + Send {
    stream::try_unfold(Lines::NotStarted(command, input), |lines| lines.next())
}

/// A command whose lines are read.
enum Lines {
    NotStarted(Arc<str>, Vec<u8>),
    Started(Box<Reading>),
}

struct Reading {
    child: Child,
    stdout: BufReader<ChildStdout>,
    _group: Group,
}

impl Lines {
    async fn next(self) -> std::io::Result<Option<(Vec<u8>, Self)>> {
        let mut reading = match self {
            Self::NotStarted(command, input) => Box::new(Reading::start(&command, input)?),
            Self::Started(reading) => reading,
        };
        let mut line = Vec::new();
        let read = (&mut reading.stdout).take(OUTPUT_MAX + 1).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return ended(&mut reading.child).await.map(|()| None);
        }
        if read as u64 > OUTPUT_MAX {
            return Err(too_much());
        }
        line.pop_if(|last| *last == b'\n');
        Ok(Some((line, Self::Started(reading))))
    }
}

impl Reading {
    fn start(command: &str, input: Vec<u8>) -> std::io::Result<Self> {
        let Running { child, stdin, stdout, group } = Running::start(command)?;
        // It ends with the group, which closes the other end.
        tokio::spawn(async move { feed(stdin, &input).await });
        Ok(Self { child, stdout: BufReader::new(stdout), _group: group })
    }
}

/// A command in a process group of its own.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    group: Group,
}

impl Running {
    fn start(command: &str) -> std::io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = Group::of(&child);
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
        Ok(Self { child, stdin, stdout, group })
    }
}

async fn ended(child: &mut Child) -> std::io::Result<()> {
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(Error::other(format!("the command ended with {status}"))) }
}

fn too_much() -> Error {
    Error::other("the command printed too much")
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
    use futures_lite::StreamExt as _;
    use std::pin::pin;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn stdout_is_the_answer() {
        assert_eq!(run("cat; printf x", b"in").await.unwrap(), b"inx");
        assert_eq!(run("true", &vec![b'a'; 1 << 20]).await.unwrap(), b"");
        let all = vec![b'b'; 1 << 20];
        assert_eq!(run("cat", &all).await.unwrap(), all);
        assert!(run("echo half; exit 3", b"").await.unwrap_err().to_string().contains("exit status: 3"));
    }

    async fn all(command: &str) -> (Vec<String>, Option<String>) {
        let mut lines = pin!(lines(command.into(), b"in\n".into()));
        let mut read = Vec::new();
        while let Some(line) = lines.next().await {
            match line {
                Ok(line) => read.push(String::from_utf8(line).unwrap()),
                Err(error) => return (read, Some(error.to_string())),
            }
        }
        (read, None)
    }

    #[tokio::test]
    async fn lines_come_one_by_one_and_an_error_after_them() {
        assert_eq!(all("cat; echo; printf last").await, (["in", "", "last"].map(str::to_owned).into(), None));
        assert_eq!(all("true").await, (vec![], None));
        let (read, error) = all("echo half; exit 3").await;
        assert_eq!(read, ["half"]);
        assert!(error.unwrap().contains("exit status: 3"));
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
        let mut lines = Box::pin(lines(format!("{sleeper}; echo started; wait").into(), Vec::new()));
        assert_eq!(lines.next().await.unwrap().unwrap(), b"started");
        drop(lines);
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
