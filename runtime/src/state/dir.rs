//! A state directory: 0700, with files 0600, locked itself while a hub uses it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::{Disk, StateError};
use crate::local::own_uid;

/// The longest file that is read: no hub writes one of a tenth of that.
const FILE_MAX: u64 = 64 << 10;

/// A directory that one hub holds.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    /// For making names safe, and locked until it is closed. No file could be removed that is the lock.
    dir: File,
}

impl Dir {
    /// Takes a directory, made when absent, and its lock.
    pub(crate) fn take(path: &Path) -> Result<Self, StateError> {
        let io = |doing, source| StateError::Io { doing, path: path.to_owned(), source };
        if !path.exists() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            // The directory's own name is to survive a crash, like those of the files in it.
            let made = made.and_then(|()| File::open(path.join(".."))?.sync_all());
            made.map_err(|e| io("cannot make the directory", e))?;
        }
        let dir = File::open(path).map_err(|e| io("cannot open", e))?;
        let meta = dir.metadata().map_err(|e| io("cannot look at", e))?;
        let uid = own_uid();
        if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
            return Err(StateError::Unsafe { path: path.to_owned(), uid });
        }
        loop {
            match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(StateError::InUse(path.to_owned())),
                Err(errno) => return Err(io("cannot lock", errno.into())),
            }
        }
        Ok(Self { path: path.to_owned(), dir })
    }
}

/// For files that only this user reads.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

impl Disk for Dir {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name of other bytes is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // Not to wait for a pipe that lies there.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.place(name))?;
        file.take(FILE_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = options().open(self.place(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.place(from), self.place(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.place(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;
    use std::sync::Arc;

    use commipc_protocol::HubId;
    use commipc_protocol::hub::StoredHub;
    use zeroize::Zeroizing;

    use crate::state::Store;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_directory_is_private_and_one_hubs() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("made/state");
        let held = Dir::take(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        held.write("hub", b"text").unwrap();
        assert_eq!(mode(&path.join("hub")), 0o600);
        let error = Dir::take(&path).unwrap_err();
        assert!(error.to_string().contains("another hub uses"), "{error}");
        drop(held);
        drop(Dir::take(&path).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let error = Dir::take(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
        fs::write(parent.path().join("file"), "").unwrap();
        assert!(Dir::take(&parent.path().join("file")).is_err());
    }

    /// Tells this program that it is the process that stores, and where.
    const STORES: &str = "COMMIPC_TEST_STORES";
    const NAME: &str = "state::dir::tests::v28_a_file_is_made_safe_before_its_name_and_its_name_before_that_is_told";

    /// Looked at from outside, in the calls to the system: nothing inside could tell.
    #[test]
    fn v28_a_file_is_made_safe_before_its_name_and_its_name_before_that_is_told() {
        if let Some(path) = std::env::var_os(STORES) {
            let store = Store::new(Arc::new(Dir::take(Path::new(&path)).unwrap()));
            let id = HubId::new("hub").unwrap();
            store.load(None, StoredHub { id, key: Zeroizing::new([1; 32]) }).unwrap();
            return fs::write(Path::new(&path).with_extension("told"), "").unwrap();
        }
        let parent = tempfile::tempdir().unwrap();
        let (path, trace) = (parent.path().join("state"), parent.path().join("trace"));
        let calls = "trace=fsync,fdatasync,?rename,renameat,renameat2,?open,openat";
        let traced = Command::new("strace")
            .args(["-f", "-y", "-e", calls, "-o"])
            .args([trace.as_os_str(), std::env::current_exe().unwrap().as_os_str()])
            .args(["--exact", NAME, "--test-threads=1"])
            .env(STORES, &path)
            .output();
        let text = fs::read_to_string(&trace).unwrap_or_default();
        if !text.contains("state.told") {
            // Past the test harness, which shows nothing of a test that passes.
            let why =
                traced.map_or_else(|error| error.to_string(), |it| String::from_utf8_lossy(&it.stderr).into_owned());
            let why =
                format!("\n!! That state is made safe was not seen: strace cannot be used here: {}\n", why.trim());
            return io::stderr().write_all(why.as_bytes()).unwrap();
        }
        let place = |call: &str, path: &str| {
            let made = |line: &&str| line.contains(call) && line.contains(path);
            let (at, _) =
                text.lines().enumerate().find(|(_, line)| made(line)).unwrap_or_else(|| panic!("{call}: {text}"));
            at
        };
        let directory = format!("{}>)", path.display());
        let order = [
            place("sync(", "state/hub.new>)"),
            place("rename", "state/hub.new"),
            place("sync(", &directory),
            place("open", "state.told"),
        ];
        assert!(order.is_sorted(), "{order:?}: {text}");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_links_are_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let dir = Dir::take(&path).unwrap();
        dir.write("a.new", b"old and long").unwrap();
        dir.rename("a.new", "a").unwrap();
        dir.write("a.new", b"new").unwrap();
        assert_eq!(dir.read("a").unwrap(), b"old and long");
        dir.rename("a.new", "a").unwrap();
        dir.sync().unwrap();
        assert_eq!((dir.read("a").unwrap(), dir.names().unwrap()), (b"new".to_vec(), vec!["a".to_owned()]));
        symlink(path.join("a"), path.join("b")).unwrap();
        assert!(dir.write("b", b"").is_err() && dir.read("b").is_err());
        assert_eq!(dir.read("a").unwrap(), b"new");
        dir.remove("a").unwrap();
        dir.remove("a").unwrap();
        assert!(dir.read("a").is_err());
    }
}
