//! `commipc keygen`: 32 random bytes as a secret.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::args::Keygen;
use crate::failure::{Exit, Failure, Outcome};
use crate::json::hex;

pub(crate) fn run(args: &Keygen, json: bool) -> Outcome {
    let key = generate()?;
    match &args.out {
        Some(path) => {
            write_new(path, &key)?;
            if json {
                crate::say(serde_json::json!({ "written": path }));
            }
        }
        None if json => crate::say(serde_json::json!({ "key": key })),
        None => crate::say(key),
    }
    Ok(())
}

/// A fresh secret in the form that key files hold.
pub(crate) fn generate() -> Outcome<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Exit::Other, format!("the system gives no random bytes: {error}")))?;
    Ok(format!("key:{}", hex(&bytes)))
}

/// Writes a file that did not exist, readable by its owner alone from its first moment on.
pub(crate) fn write_new(path: &Path, key: &str) -> Outcome {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
        let failure = Failure::io(format_args!("writing {}", path.display()), &error);
        if error.kind() == ErrorKind::AlreadyExists {
            return failure.hint("keygen never replaces a key; name a new file, or remove that one");
        }
        failure
    })?;
    writeln!(file, "{key}")
        .and_then(|()| file.sync_all())
        .map_err(|error| Failure::io(format_args!("writing {}", path.display()), &error))
}
