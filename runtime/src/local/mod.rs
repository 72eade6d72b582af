//! The rules for sockets and keys in the file system. Nothing here waits for a peer.
//!
//! ```text
//! directory   0700 when it is made here
//! x.sock.lock held (flock) for the hub's life: one hub a path
//! x.sock.key  the key local clients prove when nobody gave a secret; 0600, kept over restarts
//! x.sock      bound under another name, made 0600, then renamed: never open to others, never absent
//! ```

mod claim;
mod key;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use commipc_protocol::{Peer, Transport};

pub use claim::Claim;
pub(crate) use key::key_path;
pub use key::read_key_file;

use crate::endpoint::Endpoint;

/// Why a socket or a key in the file system cannot be used. Each text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// Another hub lives there.
    #[error("a hub is already listening at {}; stop it or choose another path", .0.display())]
    AlreadyListening(PathBuf),
    /// Something else than a socket lies there.
    #[error("{} exists and is not a socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// Others could replace what lies in the directory.
    #[error("the directory {} must belong to user {uid} and be writable by no one else (chmod 700 it, or choose another directory)", .path.display())]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// Who must own it.
        uid: u32,
    },
    /// No key was ever made there.
    #[error("there is no key at {}: start the hub without a secret on this socket, or name the hub's secret (--secret-file)", .0.display())]
    KeyMissing(PathBuf),
    /// The system does not let this user read it.
    #[error("the key {} cannot be read: run as the user who started the hub, or name the hub's secret (--secret-file)", .0.display())]
    KeyUnreadable(PathBuf),
    /// Somebody else could read or replace the key.
    #[error("the key {} is not safe: {what}; it must be a regular file of user {uid} with mode 0600 (if nobody else could read it, chmod 600 it; else remove it and restart the hub)", .path.display())]
    KeyUnsafe {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// Who must own it.
        uid: u32,
    },
    /// The file holds something else.
    #[error("the key {} is not `key:` and 64 hex digits; remove it and restart the hub", .0.display())]
    KeyMalformed(PathBuf),
    /// Two sockets of one hub have keys of their own.
    #[error("the key {} differs from that of the hub's other socket; remove one of them", .0.display())]
    KeyConflict(PathBuf),
    /// Any other trouble with the file system.
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

/// The user this process acts as.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Who is at the other end of a Unix socket, where the system tells it, compared with the own user.
pub fn unix_peer(socket: impl AsFd) -> Peer {
    #[cfg(target_os = "linux")]
    let uid = rustix::net::sockopt::socket_peercred(socket).ok().map(|cred| cred.uid.as_raw());
    #[cfg(not(target_os = "linux"))]
    let uid = {
        let _ = socket;
        None
    };
    Peer { uid, uid_checked: uid == Some(own_uid()), ..Peer::unknown(Transport::Unix) }
}

/// Who is at the other end of a TCP connection from this address.
#[must_use]
pub fn tcp_peer(address: std::net::SocketAddr) -> Peer {
    Peer { source: Some(address.ip()), ..Peer::unknown(Transport::Tcp) }
}

/// Where a listener of TCP is, as an endpoint.
#[must_use]
pub fn tcp_endpoint(address: std::io::Result<std::net::SocketAddr>) -> Endpoint {
    let (host, port) = address.map_or((String::new(), 0), |address| (address.ip().to_string(), address.port()));
    Endpoint::Tcp { host, port }
}

/// Tells the peer of a socket that no more bytes will come; for transports whose own shutdown wants `&mut self`.
pub fn shutdown_write(socket: impl AsFd) {
    // A peer that is gone already needs no telling.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
}

/// Lets as many connections wait to be accepted as the system allows: one that finds no place is tried again only after a
/// second or more.
///
/// # Errors
/// When the socket is not one that listens.
pub fn deepen_backlog(listener: impl AsFd) -> std::io::Result<()> {
    Ok(rustix::net::listen(listener, i32::MAX)?)
}

/// Whether a Unix peer is known to be another user, whom neither hub nor client deals with.
pub(crate) fn is_foreign(peer: &Peer) -> bool {
    peer.transport == Transport::Unix && peer.uid.is_some() && !peer.uid_checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_of_a_unix_socket_is_foreign_and_nobody_else() {
        let own = own_uid();
        let of = |transport, uid: Option<u32>| {
            let uid_checked = uid == Some(own);
            Peer { uid, uid_checked, ..Peer::unknown(transport) }
        };
        assert!(!is_foreign(&of(Transport::Unix, Some(own))));
        // Root is another user as well, unless this is root.
        for other in [0, 1, own.wrapping_add(1), own.wrapping_sub(1), u32::MAX] {
            assert_eq!(is_foreign(&of(Transport::Unix, Some(other))), other != own, "{other}");
        }
        // Of whom the system says nothing the secret has to tell, on a link that is not private.
        let unknown = of(Transport::Unix, None);
        assert!(!is_foreign(&unknown) && !unknown.is_private());
        for transport in [Transport::Tcp, Transport::Memory, Transport::Stream] {
            assert!(!is_foreign(&of(transport, None)), "{transport:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_other_end_of_ones_own_socket_is_oneself() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = unix_peer(&one);
        assert_eq!((peer.uid, peer.uid_checked, peer.is_private()), (Some(own_uid()), true, true));
        assert!(!is_foreign(&peer));
    }
}
