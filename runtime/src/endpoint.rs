//! Where hubs listen: parsed once from the URLs people write.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a hub listens or is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `unix:/path`: a Unix socket in the file system.
    Unix(PathBuf),
    /// `tcp://host:port`: plain TCP. Record tags guard every byte; secrecy needs TLS.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port; 0 to listen on any.
        port: u16,
    },
    /// `memory:name`: inside the process. Served by simulators and tests, not by sockets.
    Memory(String),
}

/// Why a text is not a URL of a hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Neither of the known kinds.
    #[error("'{0}' is no hub URL: write unix:/path/to/socket or tcp://host:port")]
    UnknownKind(String),
    /// A Unix URL without an absolute path.
    #[error("'{0}' needs an absolute path: write unix:/path/to/socket")]
    RelativePath(String),
    /// The system limits the path of a socket.
    #[error("the socket path '{0}' is too long: {max} bytes are allowed", max = SOCKET_PATH_MAX)]
    LongPath(String),
    /// A TCP URL without host or port.
    #[error("'{0}' needs a host and a port: write tcp://host:port")]
    NoPort(String),
}

/// The longest path of a Unix socket, in bytes: 108 with the final zero on Linux, 104 elsewhere.
const SOCKET_PATH_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, EndpointError> {
        if let Some(path) = url.strip_prefix("unix:") {
            // unix:///path is what people used to other URLs write.
            let path = if path.starts_with("///") { &path[2..] } else { path };
            return Self::unix(Path::new(path), url);
        }
        if let Some(authority) = url.strip_prefix("tcp://") {
            return parse_authority(authority.strip_suffix('/').unwrap_or(authority))
                .ok_or_else(|| EndpointError::NoPort(url.to_owned()));
        }
        match url.strip_prefix("memory:") {
            Some(name) if !name.is_empty() => Ok(Self::Memory(name.to_owned())),
            Some(_) | None => Err(EndpointError::UnknownKind(url.to_owned())),
        }
    }
}

impl Endpoint {
    /// What a runtime says that cannot dial it or listen there.
    #[must_use]
    pub fn unsupported(&self) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::Unsupported, format!("{self} is not for sockets"))
    }

    fn unix(path: &Path, url: &str) -> Result<Self, EndpointError> {
        if !path.is_absolute() || path.file_name().is_none() {
            return Err(EndpointError::RelativePath(url.to_owned()));
        }
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(EndpointError::LongPath(path.display().to_string()));
        }
        Ok(Self::Unix(path.to_owned()))
    }
}

fn parse_authority(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    // An address of IPv6 without brackets would lose its last group to the port.
    if bracketed.is_none() && host.contains(':') {
        return None;
    }
    let host = bracketed.unwrap_or(host);
    if host.is_empty() { None } else { Some(Endpoint::Tcp { host: host.to_owned(), port: port.parse().ok()? }) }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Memory(name) => write!(f, "memory:{name}"),
        }
    }
}

/// The hub to use when none is named: `$COMMIPC_HUB`, else `commipc.sock` in `$XDG_RUNTIME_DIR`, else in `/tmp/commipc-<uid>`.
#[must_use]
pub fn default_url() -> String {
    let uid = rustix::process::geteuid().as_raw();
    choose_url(std::env::var_os("COMMIPC_HUB"), std::env::var_os("XDG_RUNTIME_DIR"), uid)
}

fn choose_url(hub: Option<OsString>, runtime_dir: Option<OsString>, uid: u32) -> String {
    if let Some(url) = hub.and_then(|url| url.into_string().ok()).filter(|url| !url.is_empty()) {
        return url;
    }
    match runtime_dir.and_then(|dir| dir.into_string().ok()).filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => format!("unix:{}/commipc.sock", dir.trim_end_matches('/')),
        None => format!("unix:/tmp/commipc-{uid}/commipc.sock"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_and_printed_alike() {
        for url in ["unix:/run/a.sock", "tcp://localhost:7", "tcp://[::1]:80", "tcp://127.0.0.1:0", "memory:hub"] {
            assert_eq!(url.parse::<Endpoint>().unwrap().to_string(), url);
        }
        assert_eq!("unix:///run/a".parse::<Endpoint>().unwrap().to_string(), "unix:/run/a");
    }

    #[test]
    fn what_is_no_url_says_what_to_write() {
        for url in ["", "unix:", "unix:a.sock", "unix:/", "tcp://", "tcp://host", "tcp://::1:80", "tcp://h:99999", "x"]
        {
            let text = url.parse::<Endpoint>().unwrap_err().to_string();
            assert!(text.contains("write "), "{url}: {text}");
        }
        let long = format!("unix:/{}", "x".repeat(108));
        assert!(matches!(long.parse::<Endpoint>(), Err(EndpointError::LongPath(_))));
    }

    #[test]
    fn the_default_follows_the_environment() {
        let some = |s: &str| Some(OsString::from(s));
        assert_eq!(choose_url(some("tcp://h:1"), some("/run/user/7"), 7), "tcp://h:1");
        assert_eq!(choose_url(None, some("/run/user/7"), 7), "unix:/run/user/7/commipc.sock");
        assert_eq!(choose_url(some(""), None, 7), "unix:/tmp/commipc-7/commipc.sock");
    }
}
