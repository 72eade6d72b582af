//! A disk that forgets in a crash whatever was not made safe, and fails when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use commipc_runtime::state::Disk;

use crate::decisions::{Decisions, Stream};

/// A disk for [`HubBuilder::state_disk`](commipc_runtime::HubBuilder::state_disk). Clones are the same disk.
///
/// What was written is safe when [`Disk::write`] has returned; names given and removed since the last [`Disk::sync`] survive
/// a crash or not, each for itself.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    decisions: Decisions,
    stream: Stream,
    /// What survives in any case.
    safe: Files,
    /// What a running program sees.
    seen: Files,
    /// What was done to names since they were last made safe.
    unsafe_names: Vec<Change>,
    /// Of 256 operations, how many fail.
    failing: u64,
    /// After how many more operations the power goes.
    left: Option<u64>,
}

type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug)]
enum Change {
    Put(String, Vec<u8>),
    Rename(String, String, Vec<u8>),
    Remove(String),
}

impl SimDisk {
    /// An empty disk whose accidents follow from a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut decisions = Decisions::seeded(seed);
        let stream = decisions.stream("disk");
        Self(Arc::new(Mutex::new(State {
            decisions,
            stream,
            safe: Files::new(),
            seen: Files::new(),
            unsafe_names: Vec::new(),
            failing: 0,
            left: None,
        })))
    }

    /// Of 256 operations, so many fail from now on, with or without effect.
    pub fn fail(&self, of_256: u64) {
        self.state().failing = of_256;
    }

    /// The power goes in the midst of the operation after so many more; nothing works from then on.
    pub fn lose_power_after(&self, operations: u64) {
        self.state().left = Some(operations);
    }

    /// The computer starts again, with what has survived.
    pub fn restart(&self) {
        let mut state = self.state();
        let mut files = state.safe.clone();
        for change in std::mem::take(&mut state.unsafe_names) {
            if state.draw(2) == 1 {
                change.apply(&mut files);
            }
        }
        (state.safe, state.seen) = (files.clone(), files);
        (state.left, state.failing) = (None, 0);
    }

    /// What a running program sees.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().seen.clone()
    }

    /// Replaces a file by hand.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        state.safe.insert(name.to_owned(), bytes.clone());
        state.seen.insert(name.to_owned(), bytes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change {
    fn apply(self, files: &mut Files) {
        match self {
            Self::Put(name, bytes) => {
                files.insert(name, bytes);
            }
            Self::Rename(from, to, bytes) => {
                files.remove(&from);
                files.insert(to, bytes);
            }
            Self::Remove(name) => {
                files.remove(&name);
            }
        }
    }
}

/// How an operation goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    Well,
    /// It fails, having done something or not.
    Badly {
        done: bool,
    },
}

impl State {
    fn draw(&mut self, n: u64) -> u64 {
        self.decisions.on(self.stream).below(n)
    }

    fn begin(&mut self) -> io::Result<Goes> {
        if self.left == Some(u64::MAX) {
            return Err(io::Error::other("the power is gone"));
        }
        let power_goes = match &mut self.left {
            Some(0) => {
                self.left = Some(u64::MAX);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if power_goes || self.draw(256) < self.failing {
            let done = self.draw(2) == 1;
            return Ok(Goes::Badly { done });
        }
        Ok(Goes::Well)
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let goes = self.begin()?;
        if goes != (Goes::Badly { done: false }) {
            change.clone().apply(&mut self.seen);
            self.unsafe_names.push(change);
        }
        if goes == Goes::Well { Ok(()) } else { Err(io::Error::other("a bad block")) }
    }
}

impl Disk for SimDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().seen.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.state().seen.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let goes = state.begin()?;
        let written = match goes {
            Goes::Well => bytes.len(),
            Goes::Badly { .. } => {
                let most = bytes.len() as u64 + 1;
                usize::try_from(state.draw(most)).unwrap_or(0)
            }
        };
        let mut bytes = bytes.get(..written).unwrap_or_default().to_vec();
        // Blocks that were given to a file and never written.
        if goes == (Goes::Badly { done: true }) {
            bytes.resize(bytes.len() + 64, 0);
        }
        let change = Change::Put(name.to_owned(), bytes);
        change.clone().apply(&mut state.seen);
        state.unsafe_names.push(change);
        if goes == Goes::Well { Ok(()) } else { Err(io::Error::other("no space left")) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let bytes = state.seen.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned(), bytes))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.seen.contains_key(name) {
            return Ok(());
        }
        state.change(Change::Remove(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        match state.begin()? {
            Goes::Well => {
                state.unsafe_names.clear();
                state.safe = state.seen.clone();
                Ok(())
            }
            Goes::Badly { .. } => Err(io::Error::other("a bad block")),
        }
    }
}
