//! What a hub remembers over a restart: one file for the hub, one for each channel with an owner or a password.
//!
//! ```text
//! hub               its id, and the key that salts are made of
//! channel-<sha256>  one channel: epoch, owner, policy, password's verifier
//! *.new             a file that was being written when the hub died: removed
//! ```
//! The directory itself is locked (flock) for the hub's life: one hub a directory.
//!
//! A file is written under another name and put in its place when its bytes are on the disk; the change is answered when
//! the new name is on the disk too. So a file is the old one or the new one, whenever the hub dies.

mod dir;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use commipc_protocol::hub::{StateError as FileError, StoredChannel, StoredHub};
use commipc_protocol::{ChannelName, HubId};

pub(crate) use dir::Dir;

use crate::sync::lock;

/// Where a hub's files are, as far as their survival is concerned. A simulator has one that forgets what is not safe yet.
///
/// Names are plain: letters, digits, `-` and `.`.
pub trait Disk: Send + Sync {
    /// All files, in any order.
    ///
    /// # Errors
    /// As the system tells.
    fn names(&self) -> io::Result<Vec<String>>;

    /// A whole file.
    ///
    /// # Errors
    /// As the system tells.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Makes a file, or replaces what is in it. When it returns, the bytes survive a crash, under the name that they get.
    ///
    /// # Errors
    /// As the system tells. Then the file holds anything, or is not there.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Gives a file another name, in place of a file that has it. Others see the old or the new one, never neither.
    ///
    /// # Errors
    /// As the system tells.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// As the system tells.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// When it returns, what was renamed and removed before survives a crash.
    ///
    /// # Errors
    /// As the system tells. Then each of those may have survived or not.
    fn sync(&self) -> io::Result<()>;

    /// How a file is called in an error.
    fn place(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}

/// Why a hub cannot use what it has stored. Each text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another hub uses it.
    #[error("another hub uses the state directory {}; stop it or choose another directory", .0.display())]
    InUse(PathBuf),
    /// Others could see or replace what lies there.
    #[error("the state directory {} must belong to user {uid} and be closed to everybody else (chmod 700 it, or choose another directory)", .path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Who must own it.
        uid: u32,
    },
    /// A file is damaged, or none of ours.
    #[error("{}: {what}; put a good copy in its place, or remove it and with it what it remembers", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: FileError,
    },
    /// A file has the name of another one.
    #[error("{} holds channel {channel}, whose file has another name; put it back, or remove it", .path.display())]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// What it holds.
        channel: ChannelName,
    },
    /// There are channels, and nothing says whose.
    #[error("{} is missing, without which the other files say nothing; put it back, or choose another directory", .0.display())]
    NoHub(PathBuf),
    /// It is another hub's.
    #[error(
        "the stored state is that of hub {stored}, not of {asked}: start the hub without an id, or choose another directory"
    )]
    OtherHub {
        /// Whose it is.
        stored: HubId,
        /// Who wants it.
        asked: HubId,
    },
    /// Trouble with the file system.
    #[error("{} {}: {source}", .doing, .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The hub's own file.
const HUB: &str = "hub";
/// How the files of channels begin.
const CHANNEL: &str = "channel-";
/// How a file ends that is not whole yet.
const NEW: &str = ".new";
/// Changes that are made safe together.
const BATCH: usize = 256;

/// A file to be replaced or removed.
pub(crate) struct Change {
    pub(crate) ticket: u64,
    pub(crate) channel: ChannelName,
    pub(crate) record: Option<StoredChannel>,
}

/// Keeps a hub's files, and its changes in their order.
pub(crate) struct Store {
    disk: Arc<dyn Disk>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    changes: VecDeque<Change>,
    /// Somebody is at work, and takes what is added.
    busy: bool,
    /// Nothing is added any more.
    closing: bool,
}

impl Store {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, queue: Mutex::default() }
    }

    /// What is stored of the hub and its channels; a hub that starts here for the first time is stored first.
    pub(crate) fn load(
        &self,
        asked: Option<HubId>,
        new: StoredHub,
    ) -> Result<(StoredHub, Vec<StoredChannel>), StateError> {
        let mut names = self.disk.names().map_err(|e| self.io("cannot list", "", e))?;
        names.sort_unstable();
        for half in names.iter().filter(|name| name.ends_with(NEW)) {
            self.disk.remove(half).map_err(|e| self.io("cannot remove", half, e))?;
        }
        let files: Vec<&String> =
            names.iter().filter(|name| name.starts_with(CHANNEL) && !name.ends_with(NEW)).collect();
        let hub = if names.iter().any(|name| name == HUB) {
            StoredHub::decode(&self.read(HUB)?).map_err(|what| self.damaged(HUB, what))?
        } else if files.is_empty() {
            let written = self.replace(HUB, &new.encode()).and_then(|()| self.disk.sync());
            written.map_err(|e| self.io("cannot write", HUB, e))?;
            new
        } else {
            return Err(StateError::NoHub(self.disk.place(HUB)));
        };
        if let Some(asked) = asked.filter(|asked| *asked != hub.id) {
            return Err(StateError::OtherHub { stored: hub.id, asked });
        }
        let channels = files.into_iter().map(|name| self.load_channel(name)).collect::<Result<_, _>>()?;
        Ok((hub, channels))
    }

    fn load_channel(&self, name: &str) -> Result<StoredChannel, StateError> {
        let stored = StoredChannel::decode(&self.read(name)?).map_err(|what| self.damaged(name, what))?;
        if StoredChannel::file_name(stored.channel()) == *name {
            Ok(stored)
        } else {
            Err(StateError::Misplaced { path: self.disk.place(name), channel: stored.channel().clone() })
        }
    }

    /// Adds a change; true if the caller has to see that somebody calls [`Store::work`].
    pub(crate) fn add(&self, change: Change) -> bool {
        let mut queue = lock(&self.queue);
        queue.changes.push_back(change);
        !std::mem::replace(&mut queue.busy, true)
    }

    /// Nothing is added any more. True if all is done; otherwise whoever is at work finds it so at the end.
    pub(crate) fn close(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.closing = true;
        !queue.busy
    }

    pub(crate) fn is_closing(&self) -> bool {
        lock(&self.queue).closing
    }

    /// Makes the next changes safe, and tells of each whether it is; `None` when there are none and the work is over.
    pub(crate) fn work(&self) -> Option<Vec<(u64, bool)>> {
        let batch: Vec<Change> = {
            let mut queue = lock(&self.queue);
            let some = queue.changes.len().min(BATCH);
            queue.busy = some > 0;
            queue.changes.drain(..some).collect()
        };
        if batch.is_empty() {
            return None;
        }
        let mut made: Vec<(u64, bool)> = batch.into_iter().map(|change| (change.ticket, self.make(&change))).collect();
        if let Err(error) = self.disk.sync() {
            tracing::error!(%error, "changes of channels could not be stored");
            made.iter_mut().for_each(|(_, durable)| *durable = false);
        }
        Some(made)
    }

    fn make(&self, change: &Change) -> bool {
        let name = StoredChannel::file_name(&change.channel);
        let made = match &change.record {
            Some(record) => self.replace(&name, &record.encode()),
            None => self.disk.remove(&name),
        };
        if let Err(error) = &made {
            tracing::error!(channel = %change.channel, %error, "a change of a channel could not be stored");
        }
        made.is_ok()
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!("{name}{NEW}");
        self.disk.write(&new, bytes)?;
        self.disk.rename(&new, name)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StateError> {
        self.disk.read(name).map_err(|e| self.io("cannot read", name, e))
    }

    fn damaged(&self, name: &str, what: FileError) -> StateError {
        StateError::Damaged { path: self.disk.place(name), what }
    }

    fn io(&self, doing: &'static str, name: &str, source: io::Error) -> StateError {
        StateError::Io { doing, path: self.disk.place(name), source }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store(..)")
    }
}
