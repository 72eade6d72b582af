//! Somebody between a hub and its clients, on Unix sockets, where frames carry no tags: it sees every frame whole, and
//! decides what goes on. To its clients it is their hub, and a hostile one if it likes.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Bytes before a client's first frame.
const MAGIC_LEN: usize = 8;

/// One frame on one client's line.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Counted in the order of connecting.
    pub(crate) line: usize,
    pub(crate) to_client: bool,
    /// Length, type, body.
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn kind(&self) -> u8 {
        self.bytes[4]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[5..]
    }

    /// The same with another body.
    pub(crate) fn with_body(&self, body: &[u8]) -> Self {
        self.with(self.kind(), body)
    }

    /// The same line and direction, with another type and body.
    pub(crate) fn with(&self, kind: u8, body: &[u8]) -> Self {
        let length = u32::try_from(body.len() + 1).unwrap();
        let bytes = [&length.to_be_bytes()[..], &[kind], body].concat();
        Self { bytes, ..*self }
    }
}

/// What becomes of a frame: these go on in its place.
pub(crate) type Rule = Box<dyn FnMut(Frame) -> Vec<Frame> + Send>;

/// The line. Connections end with it.
pub(crate) struct Wiretap {
    path: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    rule: Mutex<Rule>,
    /// To the client and to the hub.
    lines: Mutex<Vec<(UnixStream, UnixStream)>>,
}

impl Wiretap {
    /// Listens at `path` in front of the hub at `hub`.
    pub(crate) fn start(path: PathBuf, hub: &Path, rule: Rule) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let shared = Arc::new(Shared { rule: Mutex::new(rule), lines: Mutex::default() });
        let (hub, accepting) = (hub.to_owned(), Arc::clone(&shared));
        thread::spawn(move || {
            // Ends when the test's process does.
            for (line, client) in listener.incoming().flatten().enumerate() {
                accepting.connect(line, client, &hub);
            }
        });
        Self { path, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("unix:{}", self.path.display())
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        for (client, hub) in &*self.shared.lines() {
            let _ = (client.shutdown(Shutdown::Both), hub.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<(UnixStream, UnixStream)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, line: usize, client: UnixStream, hub: &Path) {
        let hub = UnixStream::connect(hub).unwrap();
        self.lines().push((client.try_clone().unwrap(), hub.try_clone().unwrap()));
        for (from, to_client) in [(client, false), (hub, true)] {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.carry(line, from, to_client));
        }
    }

    fn carry(&self, line: usize, mut from: UnixStream, to_client: bool) {
        if !to_client {
            let mut magic = [0; MAGIC_LEN];
            if from.read_exact(&mut magic).is_ok() {
                self.send(&Frame { line, to_client, bytes: magic.to_vec() });
            }
        }
        while let Some(bytes) = read_frame(&mut from) {
            let rule = &mut *self.rule.lock().unwrap_or_else(PoisonError::into_inner);
            for frame in rule(Frame { line, to_client, bytes }) {
                self.send(&frame);
            }
        }
        let lines = self.lines();
        let (client, hub) = &lines[line];
        let _ = if to_client { client } else { hub }.shutdown(Shutdown::Both);
    }

    fn send(&self, frame: &Frame) {
        let mut lines = self.lines();
        if let Some((client, hub)) = lines.get_mut(frame.line) {
            // Who is gone hears nothing.
            let _ = if frame.to_client { client } else { hub }.write_all(&frame.bytes);
        }
    }
}

fn read_frame(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut bytes = length.to_vec();
    bytes.resize(4 + usize::try_from(u32::from_be_bytes(length)).ok()?, 0);
    from.read_exact(&mut bytes[4..]).ok()?;
    Some(bytes)
}
