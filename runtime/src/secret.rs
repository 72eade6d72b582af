//! Where a secret comes from: given, read from a file, or the key beside a Unix socket.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use commipc_protocol::auth::Secret;
use zeroize::Zeroizing;

use crate::endpoint::Endpoint;
use crate::error::SecretSourceError;
use crate::local;

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

    pub(crate) fn set_insecure(&mut self) {
        self.insecure = true;
    }

    /// What was said, read now. `None` if nothing was.
    pub(crate) fn explicit(self) -> Result<Option<Secret>, SecretSourceError> {
        match (self.given, self.insecure) {
            (Some(_), true) => Err(SecretSourceError::Contradiction),
            (None, true) => Ok(Some(Secret::insecure())),
            (Some(Given::Secret(secret)), false) => Ok(Some(secret)),
            (Some(Given::File(path)), false) => read_file(&path).map(Some),
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

/// Reads a file that holds one secret.
pub(crate) fn read_file(path: &Path) -> Result<Secret, SecretSourceError> {
    let failed = |source| SecretSourceError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    Ok(Secret::parse(&read_bounded(file).map_err(failed)?)?)
}

/// Reads a file that holds secrets, into memory that is wiped.
pub(crate) fn read_bounded(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Reserved at once, since growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_MAX + 1));
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long to hold secrets"));
    }
    Ok(text)
}
