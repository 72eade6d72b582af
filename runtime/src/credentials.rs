//! Who may connect to a hub, when that is more than one shared secret.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use commipc_protocol::auth::{
    Capabilities, Credential, Credentials, DEFAULT_ITERATIONS, IdPattern, IdPatternError, Secret, SecretError, Verifier,
};
use commipc_protocol::{CredentialId, NameError};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::error::{HubError, SecretSourceError};
use crate::runtime::Runtime;
use crate::secret::{self, Unread};
use crate::sync::blocking;

/// A table of credentials: each with its secret, the client ids it is for, and what it may beyond the usual.
///
/// As a file, one line for each, `#` for comments:
///
/// ```text
/// # credential  secret               for which client ids       what it may
/// alice         file:alice.key       ids=alice,alice-*
/// monitor       key:<64 hex digits>  ids=monitor-*              can=observer
/// default       password:<no spaces> ids=*
/// ```
///
/// A `file:` holds a secret as in [`HubBuilder::secret_file`](crate::HubBuilder::secret_file); a relative path starts where
/// the table lies. Clients name their credential; those that name none prove `default`.
#[derive(Clone, Debug, Default)]
pub struct CredentialTable {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: CredentialId,
    secret: Secret,
    capabilities: Capabilities,
    ids: Vec<IdPattern>,
}

/// Why a table of credentials cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that others may read.
    #[error("{} can be read by other users: run 'chmod 600 {}'", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// A line that makes no sense.
    #[error("{}, line {line}: {what}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong with it, and what to write.
        what: LineError,
    },
    /// A secret that is none.
    #[error("the secret of credential '{id}': {what}")]
    Secret {
        /// Whose.
        id: CredentialId,
        /// Why.
        what: SecretError,
    },
    /// Nobody could connect.
    #[error("the table of credentials has no entries: nobody could connect")]
    Empty,
}

/// What is wrong with a line of a table of credentials.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LineError {
    /// The credential is no name.
    #[error("the credential: {0}")]
    Name(#[from] NameError),
    /// A credential has two lines.
    #[error("credential '{0}' has a line already")]
    Twice(CredentialId),
    /// The secret is of no known form.
    #[error("the secret must be file:PATH, key:<64 hex digits> or password:TEXT")]
    SecretForm,
    /// The secret is none.
    #[error("the secret: {0}")]
    Secret(#[from] SecretError),
    /// The secret's file cannot be used.
    #[error(transparent)]
    SecretFile(Box<CredentialsError>),
    /// An option nobody knows.
    #[error("'{0}' is not understood: write ids=PATTERN,… or can=bridge,observer,admin")]
    Option(String),
    /// A pattern that is none.
    #[error("the pattern '{0}': {1}")]
    Pattern(String, IdPatternError),
    /// Nothing says which client ids it is for.
    #[error("say which client ids it is for: ids=alice,alice-* or ids=* for any")]
    NoIds,
}

impl CredentialTable {
    /// A table without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same table with one more entry, which takes the place of one with the same id.
    #[must_use]
    pub fn with(mut self, id: CredentialId, secret: Secret, capabilities: Capabilities, ids: Vec<IdPattern>) -> Self {
        self.entries.retain(|entry| entry.id != id);
        self.entries.push(Entry { id, secret, capabilities, ids });
        self
    }

    /// The same table with one secret more, for everybody who names no credential: the entry `default`, for any client
    /// id, with the capability `observer`. A hub's shared secret is this.
    #[must_use]
    pub fn with_shared(self, secret: Secret) -> Self {
        self.with(CredentialId::shared(), secret, Capabilities::OBSERVER, vec![IdPattern::any()])
    }

    /// The same table with the secret in a file, as [`HubBuilder::secret_file`](crate::HubBuilder::secret_file) adds it.
    ///
    /// # Errors
    /// When the file holds no secret, or the table has an entry `default` already.
    pub fn with_shared_file(self, path: &Path) -> Result<Self, SecretSourceError> {
        if self.has(&CredentialId::shared()) {
            return Err(SecretSourceError::TwoDefaults);
        }
        Ok(self.with_shared(secret::read_secret_file(path)?))
    }

    /// The same table with the secret of bridges: the entry `bridge`, for any client id, with that capability.
    #[must_use]
    pub fn with_bridges(self, secret: Secret) -> Self {
        self.with(CredentialId::bridges(), secret, Capabilities::BRIDGE, vec![IdPattern::any()])
    }

    /// The same table with the secret of bridges in a file, as
    /// [`HubBuilder::bridge_secret_file`](crate::HubBuilder::bridge_secret_file) adds it.
    ///
    /// # Errors
    /// When the file holds no secret, or the table has an entry `bridge` already.
    pub fn with_bridges_file(self, path: &Path) -> Result<Self, SecretSourceError> {
        if self.has(&CredentialId::bridges()) {
            return Err(SecretSourceError::TwoBridges);
        }
        Ok(self.with_bridges(secret::read_secret_file(path)?))
    }

    /// Whether a credential is in the table.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.entries.iter().any(|entry| entry.id.as_str() == id)
    }

    /// Reads a table and the files it names.
    ///
    /// # Errors
    /// When a file cannot be read or is open to other users, and for the first line that makes no sense.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let bytes = read_private(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| CredentialsError::File {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        let mut table = Self::new();
        for (line, number) in text.lines().zip(1..) {
            let line_error = |what| CredentialsError::Line { path: path.to_owned(), line: number, what };
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            if let [id, secret, options @ ..] = &words[..] {
                let entry = parse(id, secret, options, path).map_err(line_error)?;
                if table.has(&entry.id) {
                    return Err(line_error(LineError::Twice(entry.id)));
                }
                table.entries.push(entry);
            } else if !words.is_empty() {
                return Err(line_error(LineError::SecretForm));
            }
        }
        if table.entries.is_empty() { Err(CredentialsError::Empty) } else { Ok(table) }
    }

    /// What a hub keeps of it. The secrets are forgotten.
    pub(crate) async fn derive(self, runtime: &Arc<dyn Runtime>, hub_key: &[u8; 32]) -> Result<Credentials, HubError> {
        if self.entries.is_empty() {
            return Err(CredentialsError::Empty.into());
        }
        let mut credentials = Credentials::new(*hub_key);
        for Entry { id, secret, capabilities, ids } in self.entries {
            let salt = credentials.salt(&id);
            let derive = move || Verifier::new(&secret, salt, DEFAULT_ITERATIONS);
            let derived = blocking(&**runtime, || secret::leaving_nothing(derive)).await;
            let verifier = derived
                .ok_or(HubError::RuntimeGone)?
                .map_err(|what| CredentialsError::Secret { id: id.clone(), what })?;
            credentials = credentials.with(id, Credential::new(verifier, capabilities, ids));
        }
        Ok(credentials)
    }
}

fn parse(id: &str, secret: &str, options: &[&str], table: &Path) -> Result<Entry, LineError> {
    let id = CredentialId::new(id)?;
    let secret = if let Some(path) = secret.strip_prefix("file:") {
        let path = table.parent().unwrap_or_else(|| Path::new("")).join(path);
        let bytes = read_private(&path).map_err(|error| LineError::SecretFile(Box::new(error)))?;
        secret::leaving_nothing(|| Secret::parse(&bytes))?
    } else if let Some(password) = secret.strip_prefix("password:") {
        Secret::password(password)
    } else if secret.starts_with("key:") {
        secret::leaving_nothing(|| Secret::parse(secret.as_bytes()))?
    } else {
        return Err(LineError::SecretForm);
    };
    let (mut capabilities, mut ids) = (Capabilities::NONE, Vec::new());
    for option in options {
        let unknown = || LineError::Option((*option).to_owned());
        let (name, values) = option.split_once('=').ok_or_else(unknown)?;
        for value in values.split(',') {
            match name {
                "ids" => {
                    let pattern = IdPattern::new(value);
                    ids.push(pattern.map_err(|error| LineError::Pattern(value.to_owned(), error))?);
                }
                "can" => capabilities = capabilities | Capabilities::named(value).ok_or_else(unknown)?,
                _ => return Err(unknown()),
            }
        }
    }
    if ids.is_empty() { Err(LineError::NoIds) } else { Ok(Entry { id, secret, capabilities, ids }) }
}

/// Reads a file that holds secrets.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    secret::read_private(path).map_err(|why| match why {
        Unread::Exposed => CredentialsError::Exposed(path.to_owned()),
        Unread::Failed(source) => CredentialsError::File { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        use std::io::Write as _;
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read(text: &str) -> Result<CredentialTable, CredentialsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        write(&folder.path().join("alice.key"), &format!("key:{}\n", "ab".repeat(32)), 0o600);
        write(&path, text, 0o600);
        CredentialTable::read(&path)
    }

    #[test]
    fn a_table_is_read_with_the_files_it_names() {
        let table = read(
            "# who may connect\n\nalice file:alice.key ids=alice,alice-*   # two of them\nmonitor password:p ids=m-* \
             can=observer,admin\n",
        )
        .unwrap();
        let [alice, monitor] = &table.entries[..] else { panic!("{table:?}") };
        assert_eq!(alice.secret.to_key_text().unwrap()[4..], "ab".repeat(32));
        assert_eq!(alice.ids.iter().map(ToString::to_string).collect::<Vec<_>>(), ["alice", "alice-*"]);
        assert_eq!(monitor.capabilities, Capabilities::OBSERVER | Capabilities::ADMIN);
        assert!(!format!("{table:?}").contains("abab"), "no secret is printed");
    }

    #[test]
    fn what_makes_no_sense_says_where_and_what_to_write() {
        for (text, words) in [
            ("", "no entries"),
            ("alice\n", "line 1: the secret must be file:PATH"),
            ("a@b key: ids=*", "line 1: the credential"),
            ("alice key:12 ids=*", "64 hex digits"),
            ("\nalice secret ids=*", "line 2"),
            ("alice password:x", "ids=*"),
            ("alice password:x ids=a*b", "the pattern 'a*b'"),
            ("alice password:x ids=* can=fly", "'can=fly' is not understood"),
            ("alice password:x ids=* quick", "'quick' is not understood"),
            ("alice password:x ids=*\nalice password:y ids=*", "has a line already"),
            ("alice file:nowhere.key ids=*", "nowhere.key"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_table_that_others_can_read_is_refused() {
        let path = std::env::temp_dir().join(format!("commipc-open-table-{}", std::process::id()));
        write(&path, "alice password:x ids=*", 0o644);
        let error = CredentialTable::read(&path).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(matches!(error, CredentialsError::Exposed(_)) && error.to_string().contains("chmod 600"), "{error}");
    }
}
