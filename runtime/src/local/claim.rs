//! One hub's hold on one socket path.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::{LocalError, key, own_uid};

/// The right to serve a socket path, held until dropped: no other hub gets it, and a dead hub's socket may be replaced.
///
/// Dropping it removes the socket, if it is still the one this hub made.
#[derive(Debug)]
#[must_use = "the path is given up at once when the claim is dropped"]
pub struct Claim {
    path: PathBuf,
    published: Option<(u64, u64)>,
    /// The lock file's number, which no other file of the directory has.
    number: u64,
    // Unlocked by closing; the file stays, since removing it would let two hubs hold two locks of the same name.
    _lock: File,
}

impl Claim {
    /// Claims a path: makes its directory when absent, takes the lock and makes sure that no hub answers there.
    ///
    /// # Errors
    /// When another hub holds or serves the path, something else than a socket lies there, or the system says no.
    pub fn take(path: &Path) -> Result<Self, LocalError> {
        make_directory(parent(path))?;
        let lock = take_lock(path)?;
        probe(path)?;
        let io = |source| LocalError::Io { doing: "cannot look at the lock of", path: path.to_owned(), source };
        let number = lock.metadata().map_err(io)?.ino();
        Ok(Self { path: path.to_owned(), published: None, number, _lock: lock })
    }

    /// Where to bind before [`Claim::publish`] moves the socket to its place.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        // Shorter than most socket names, since a socket's whole path is limited, and another for every claim.
        let path = parent(&self.path).join(format!(".{:x}", self.number));
        // Left over by a hub of this path that died in between.
        let _ = fs::remove_file(&path);
        path
    }

    /// Makes the socket bound at `staging` this user's own and moves it to the claimed path, in place of a dead one.
    ///
    /// # Errors
    /// When the system says no.
    pub fn publish(&mut self, staging: &Path) -> Result<(), LocalError> {
        let io = |doing, source| LocalError::Io { doing, path: self.path.clone(), source };
        fs::set_permissions(staging, Permissions::from_mode(0o600)).map_err(|e| io("cannot set the mode of", e))?;
        let meta = fs::symlink_metadata(staging).map_err(|e| io("cannot look at", e))?;
        fs::rename(staging, &self.path).map_err(|e| io("cannot put the socket at", e))?;
        self.published = Some((meta.dev(), meta.ino()));
        Ok(())
    }

    /// The key beside the socket: the one that is there, else a new one with the given bytes.
    ///
    /// # Errors
    /// When the directory or the key there is not safe, or the system says no.
    pub fn key(&self, fresh: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, LocalError> {
        key::read_or_make(&self.path, fresh)
    }

    /// The path that is held.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(own) = self.published else { return };
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == own) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

/// Whether only `uid` can add, remove or replace what lies in a directory.
pub(super) fn is_private_directory(meta: &Metadata, uid: u32) -> bool {
    meta.is_dir() && meta.uid() == uid && meta.mode() & 0o022 == 0
}

fn make_directory(path: &Path) -> Result<(), LocalError> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(source) => Err(LocalError::Io { doing: "cannot make the directory", path: path.to_owned(), source }),
    }
}

fn take_lock(path: &Path) -> Result<File, LocalError> {
    let lock_path = with_suffix(path, ".lock");
    let io = |source| LocalError::Io { doing: "cannot lock", path: lock_path.clone(), source };
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&lock_path)
            .map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LocalError::AlreadyListening(path.to_owned())),
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(io(errno.into())),
        }
        // Somebody may have removed the name between opening and locking: then another hub can lock a new file.
        let held = file.metadata().map_err(io)?;
        if fs::symlink_metadata(&lock_path).is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino())) {
            return Ok(file);
        }
    }
}

/// Makes sure that nobody serves the path, who may not know of locks.
fn probe(path: &Path) -> Result<(), LocalError> {
    let io = |source| LocalError::Io { doing: "cannot look at", path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(LocalError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(io(e)),
        // Whoever answers, or is too busy to, lives.
        Ok(_) | Err(_) => Err(LocalError::AlreadyListening(path.to_owned())),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Fails unless only this user can change what lies beside the socket.
pub(super) fn check_directory(path: &Path) -> Result<(), LocalError> {
    let uid = own_uid();
    let meta = fs::metadata(path).map_err(|source| LocalError::Io {
        doing: "cannot look at",
        path: path.to_owned(),
        source,
    })?;
    if is_private_directory(&meta, uid) {
        Ok(())
    } else {
        Err(LocalError::UnsafeDirectory { path: path.to_owned(), uid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    fn serve(claim: &mut Claim) -> UnixListener {
        let staging = claim.staging();
        let listener = UnixListener::bind(&staging).unwrap();
        claim.publish(&staging).unwrap();
        listener
    }

    #[test]
    fn a_live_hubs_path_is_refused_by_its_lock_and_by_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.sock");
        let mut claim = Claim::take(&path).unwrap();
        assert!(matches!(Claim::take(&path), Err(LocalError::AlreadyListening(_))), "held by its lock");
        let _listener = serve(&mut claim);
        fs::remove_file(dir.path().join("hub.sock.lock")).unwrap();
        let text = Claim::take(&path).unwrap_err().to_string();
        assert!(text.contains("stop it or choose another path"), "{text}");
        assert!(UnixStream::connect(&path).is_ok(), "the first hub goes on");
    }

    #[test]
    fn a_dead_hubs_socket_is_replaced_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.sock");
        drop(UnixListener::bind(&path).unwrap());
        let mut claim = Claim::take(&path).unwrap();
        let _listener = serve(&mut claim);
        assert!(UnixStream::connect(&path).is_ok());
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(Claim::take(&file), Err(LocalError::NotASocket(_))));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn made_private_and_removed_only_if_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/hub.sock");
        let mut claim = Claim::take(&path).unwrap();
        let listener = serve(&mut claim);
        assert_eq!((mode(parent(&path)), mode(&path)), (0o700, 0o600));
        assert_eq!(mode(&with_suffix(&path, ".lock")), 0o600);
        drop((claim, listener));
        assert!(!path.exists());

        let mut claim = Claim::take(&path).unwrap();
        let listener = serve(&mut claim);
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop((claim, listener));
        assert!(path.exists(), "somebody else's socket stays");
    }
}
