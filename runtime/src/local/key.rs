//! The key beside a socket: who may read it is who may connect.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::claim::{check_directory, parent, with_suffix};
use super::{LocalError, own_uid};

/// `key:`, 64 hex digits and a line end.
const TEXT_LEN: usize = 4 + 64 + 1;

/// Where the key of a socket lies.
pub(crate) fn key_path(socket: &Path) -> PathBuf {
    with_suffix(socket, ".key")
}

/// Reads the key of the hub that serves `socket`, in the text form secrets have in files.
///
/// The file must be a regular one of the own user with mode 0600, in a directory of that user that nobody else may
/// write to; symbolic links are not followed.
///
/// # Errors
/// One for each thing that can be wrong; the texts say what to do.
pub fn read_key_file(socket: &Path) -> Result<Zeroizing<Vec<u8>>, LocalError> {
    let path = key_path(socket);
    if !parent(&path).exists() {
        return Err(LocalError::KeyMissing(path));
    }
    check_directory(parent(&path))?;
    let file = open(&path)?;
    check_file(&file, &path)?;
    read(file, path)
}

/// The key of a hub's own socket: read and checked if it is there, else made of `fresh`.
pub(super) fn read_or_make(socket: &Path, fresh: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, LocalError> {
    let path = key_path(socket);
    check_directory(parent(&path))?;
    match read_key_file(socket) {
        Err(LocalError::KeyMissing(_)) => make(path, fresh),
        found => found,
    }
}

fn open(path: &Path) -> Result<File, LocalError> {
    // Non-blocking, or a pipe that lies there would hold us up.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    opened.map_err(|source| {
        let is_link = source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        match source.kind() {
            io::ErrorKind::NotFound => LocalError::KeyMissing(path.to_owned()),
            io::ErrorKind::PermissionDenied => LocalError::KeyUnreadable(path.to_owned()),
            _ if is_link => unsafe_key(path, "it is a symbolic link"),
            _ => LocalError::Io { doing: "cannot open", path: path.to_owned(), source },
        }
    })
}

fn check_file(file: &File, path: &Path) -> Result<(), LocalError> {
    let meta = file
        .metadata()
        .map_err(|source| LocalError::Io { doing: "cannot look at", path: path.to_owned(), source })?;
    if !meta.is_file() {
        return Err(unsafe_key(path, "it is not a regular file"));
    }
    if meta.uid() != own_uid() {
        return Err(unsafe_key(path, "it belongs to another user"));
    }
    if meta.mode() & 0o7777 != 0o600 {
        return Err(unsafe_key(path, "others may have access to it"));
    }
    Ok(())
}

fn unsafe_key(path: &Path, what: &'static str) -> LocalError {
    LocalError::KeyUnsafe { path: path.to_owned(), what, uid: own_uid() }
}

fn read(file: File, path: PathBuf) -> Result<Zeroizing<Vec<u8>>, LocalError> {
    // One byte more than fits, to see what is too long; reserved at once, since growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(TEXT_LEN + 1));
    if let Err(source) = file.take(TEXT_LEN as u64 + 1).read_to_end(&mut text) {
        return Err(LocalError::Io { doing: "cannot read", path, source });
    }
    let digits = text.strip_suffix(b"\n").unwrap_or(&text).strip_prefix(b"key:");
    if digits.is_some_and(|hex| hex.len() == 64 && hex.iter().all(u8::is_ascii_hexdigit)) {
        Ok(text)
    } else {
        Err(LocalError::KeyMalformed(path))
    }
}

fn make(path: PathBuf, fresh: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, LocalError> {
    let mut text = Zeroizing::new(Vec::with_capacity(TEXT_LEN));
    text.extend_from_slice(b"key:");
    for byte in fresh {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        text.push(HEX[usize::from(byte >> 4)]);
        text.push(HEX[usize::from(byte & 15)]);
    }
    text.push(b'\n');
    // Written under the final name: only the holder of the lock makes keys, and a torn one must not pass for whole.
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
    match written {
        Ok(()) => {
            let file = open(&path)?;
            check_file(&file, &path)?;
            Ok(text)
        }
        Err(source) => {
            if source.kind() != io::ErrorKind::AlreadyExists {
                let _ = fs::remove_file(&path);
            }
            Err(LocalError::Io { doing: "cannot write", path, source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn socket(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("hub.sock")
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let socket = socket(&dir);
        assert!(matches!(read_key_file(&socket), Err(LocalError::KeyMissing(_))));
        let made = read_or_make(&socket, &[0xab; 32]).unwrap();
        assert_eq!(&made[..8], b"key:abab");
        assert_eq!(fs::metadata(key_path(&socket)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_or_make(&socket, &[1; 32]).unwrap(), made, "kept over a restart");
        assert_eq!(read_key_file(&socket).unwrap(), made);
    }

    #[test]
    fn what_is_unsafe_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let socket = socket(&dir);
        read_or_make(&socket, &[7; 32]).unwrap();
        let key = key_path(&socket);
        for mode in [0o640, 0o604, 0o660, 0o700] {
            chmod(&key, mode);
            assert!(matches!(read_key_file(&socket), Err(LocalError::KeyUnsafe { .. })), "{mode:o}");
        }
        chmod(&key, 0o600);
        chmod(dir.path(), 0o770);
        assert!(matches!(read_key_file(&socket), Err(LocalError::UnsafeDirectory { .. })));
        chmod(dir.path(), 0o700);

        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&key, &elsewhere).unwrap();
        symlink(&elsewhere, &key).unwrap();
        let text = read_key_file(&socket).unwrap_err().to_string();
        assert!(text.contains("symbolic link"), "{text}");
        fs::remove_file(&key).unwrap();
        fs::create_dir(&key).unwrap();
        assert!(matches!(read_key_file(&socket), Err(LocalError::KeyUnsafe { .. })));
    }

    #[test]
    fn a_torn_or_foreign_key_is_refused_by_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let socket = socket(&dir);
        for text in ["", "key:12\n", "password\n", &format!("key:{}\n\n", "a".repeat(64))] {
            fs::write(key_path(&socket), text).unwrap();
            chmod(&key_path(&socket), 0o600);
            assert!(matches!(read_key_file(&socket), Err(LocalError::KeyMalformed(_))), "{text:?}");
            assert!(matches!(read_or_make(&socket, &[1; 32]), Err(LocalError::KeyMalformed(_))), "{text:?}");
        }
    }
}
