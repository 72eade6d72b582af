//! Where a secret comes from: given, read from a file, or the key beside a Unix socket.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use commipc_protocol::auth::{ChannelMaster, Credentials, DEFAULT_ITERATIONS, Kdf, OwnerKey, Secret};
use commipc_protocol::hub::SystemPassword;
use zeroize::Zeroizing;

use crate::endpoint::Endpoint;
use crate::error::{HubError, SecretSourceError};
use crate::local::{self, Claim, LocalError, key_path};
use crate::runtime::{Runtime, random};
use crate::sync::blocking;

/// The longest secret file, in bytes.
const FILE_MAX: usize = 64 << 10;

/// What the user said about the secret.
#[derive(Clone, Default)]
pub(crate) struct SecretSource {
    given: Option<Given>,
    insecure: bool,
}

#[derive(Clone)]
enum Given {
    Secret(Secret),
    File(PathBuf),
}

impl SecretSource {
    pub(crate) fn set(&mut self, secret: Secret) {
        self.given = Some(Given::Secret(secret));
    }

    pub(crate) fn set_file(&mut self, path: PathBuf) {
        self.given = Some(Given::File(path));
    }

    pub(crate) const fn is_insecure(&self) -> bool {
        self.insecure
    }

    pub(crate) fn set_insecure(&mut self) {
        self.insecure = true;
    }

    /// Whether anything was said.
    pub(crate) const fn is_said(&self) -> bool {
        self.given.is_some() || self.insecure
    }

    /// Whether what is proved lies in a file, which may change.
    pub(crate) const fn is_file(&self, endpoint: &Endpoint) -> bool {
        match (&self.given, self.insecure, endpoint) {
            (Some(Given::File(_)), ..) | (None, false, Endpoint::Unix(_)) => true,
            (Some(Given::Secret(_)) | None, ..) => false,
        }
    }

    /// What was said, read now. `None` if nothing was.
    pub(crate) fn explicit(self) -> Result<Option<Secret>, SecretSourceError> {
        match (self.given, self.insecure) {
            (Some(_), true) => Err(SecretSourceError::Contradiction),
            (None, true) => Ok(Some(Secret::insecure())),
            (Some(Given::Secret(secret)), false) => Ok(Some(secret)),
            (Some(Given::File(path)), false) => read_secret_file(&path).map(Some),
            (None, false) => Ok(None),
        }
    }

    /// What a client proves to the hub at `endpoint`.
    pub(crate) fn for_client(self, endpoint: &Endpoint) -> Result<Secret, SecretSourceError> {
        if let Some(secret) = self.explicit()? {
            return Ok(secret);
        }
        match endpoint {
            Endpoint::Unix(path) => Ok(Secret::parse(&local::read_key_file(path)?)?),
            Endpoint::Tcp { .. } | Endpoint::Memory(_) => Err(SecretSourceError::Needed(endpoint.to_string())),
        }
    }
}

/// Reads a file that holds one secret: `key:` and 64 hex digits, or else a password.
///
/// # Errors
/// When the file cannot be read, other users can read it too, or it holds no secret.
pub fn read_secret_file(path: &Path) -> Result<Secret, SecretSourceError> {
    let text = read_text(path)?;
    Ok(leaving_nothing(|| Secret::parse(&text))?)
}

/// Reads a file that holds the key of a channel's owner, as [`OwnerKey::to_text`] writes it.
///
/// # Errors
/// When the file cannot be read, other users can read it too, or it holds no owner key.
pub fn read_owner_key_file(path: &Path) -> Result<OwnerKey, SecretSourceError> {
    Ok(OwnerKey::parse(&read_text(path)?)?)
}

fn read_text(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretSourceError> {
    read_private(path).map_err(|why| match why {
        Unread::Exposed => SecretSourceError::Exposed(path.to_owned()),
        Unread::Failed(source) => SecretSourceError::File { path: path.to_owned(), source },
    })
}

/// Why a file with secrets was not read.
pub(crate) enum Unread {
    /// Others could read it as well, or write it.
    Exposed,
    /// What the system said.
    Failed(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Reads a file that holds secrets, if it is its owner's alone. A pipe is nobody else's in any case.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        return Err(Unread::Exposed);
    }
    Ok(read_bounded(file)?)
}

/// Reads into memory that is wiped.
fn read_bounded(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Reserved at once, since growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_MAX + 1));
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long to hold secrets"));
    }
    Ok(text)
}

/// The key of a hub that was given no secret: beside each of its Unix sockets, the same one.
pub(crate) fn shared_key(
    runtime: &dyn Runtime,
    claims: &[Option<Claim>],
    endpoints: &[Endpoint],
) -> Result<Secret, HubError> {
    leaving_nothing(|| found_or_made(runtime, claims, endpoints))
}

fn found_or_made(runtime: &dyn Runtime, claims: &[Option<Claim>], endpoints: &[Endpoint]) -> Result<Secret, HubError> {
    let fresh = random(runtime).map_err(HubError::Seed)?;
    let mut claims = claims.iter().flatten();
    let Some(first) = claims.next() else {
        let what = endpoints.first().map_or_else(|| "a hub that listens nowhere".to_owned(), ToString::to_string);
        return Err(SecretSourceError::Needed(what).into());
    };
    let text = first.key(&fresh)?;
    let bytes = key_bytes(&text);
    for other in claims {
        if other.key(&bytes)?.trim_ascii_end() != text.trim_ascii_end() {
            return Err(LocalError::KeyConflict(key_path(other.path())).into());
        }
    }
    Ok(Secret::parse(&text).map_err(SecretSourceError::Secret)?)
}

/// The bytes of a key in its checked text form.
fn key_bytes(text: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    let digit = |index: usize| text.get(4 + index).and_then(|d| char::from(*d).to_digit(16)).unwrap_or_default();
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(digit(2 * index) << 4 | digit(2 * index + 1)).unwrap_or_default();
    }
    bytes
}

/// What the hub keeps of the password of its own channels.
pub(crate) async fn derive_system(
    runtime: &Arc<dyn Runtime>,
    secret: Secret,
    key: &[u8; 32],
) -> Result<SystemPassword, HubError> {
    let kdf = secret.kdf();
    let iterations = if kdf == Kdf::Pbkdf2 { DEFAULT_ITERATIONS } else { 0 };
    // Of the hub's key, like the salts of credentials, under a name that no credential has.
    let salt = Credentials::new(*key).salt("\0system");
    // What only checks the password leaves the thread; what could join with it does not.
    let derive = move || {
        let master = ChannelMaster::new(&secret.derive(&salt, iterations)?)?;
        Ok(SystemPassword::new(kdf, salt, iterations, &master))
    };
    let password = blocking(&**runtime, || leaving_nothing(derive)).await.ok_or(HubError::RuntimeGone)?;
    Ok(password.map_err(SecretSourceError::Secret)?)
}

/// How much of a stack is wiped: what deriving uses of it, and more.
const WIPED: usize = 16_000;

/// Derives something, and overwrites what is left of it on the stack. What is wiped when it is dropped was copied wherever it
/// was moved before.
pub(crate) fn leaving_nothing<T>(derive: impl FnOnce() -> T) -> T {
    let derived = below(derive);
    wipe();
    derived
}

#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    std::hint::black_box(&mut [0_u8; WIPED]);
}
