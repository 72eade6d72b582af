//! A stranger on the line between a hub and one client, for the demonstration: it changes what it is told to.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Carries one connection to a hub, and changes one text once on its way to the client.
pub(crate) struct Tamper {
    done: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Tamper {
    /// Listens at `at` in place of the hub at `hub`; replaces the first `from` by `to`, which is as long.
    pub(crate) fn start(at: &Path, hub: &Path, from: &'static str, to: &'static str) -> io::Result<Self> {
        let listener = UnixListener::bind(at)?;
        let (hub, done) = (hub.to_owned(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&done);
        let task = tokio::spawn(async move {
            // Any trouble shows as the end of the connection.
            if let Ok((client, _)) = listener.accept().await
                && let Ok(hub) = UnixStream::connect(hub).await
            {
                let ((from_client, to_client), (from_hub, to_hub)) = (client.into_split(), hub.into_split());
                let change = |bytes: &mut [u8]| {
                    if !told.load(Ordering::Relaxed) && replace(bytes, from.as_bytes(), to.as_bytes()) {
                        told.store(true, Ordering::Relaxed);
                    }
                };
                tokio::join!(carry(from_client, to_hub, |_| ()), carry(from_hub, to_client, change));
            }
        });
        Ok(Self { done, task })
    }

    /// Whether the text came by and was changed.
    pub(crate) fn has_changed(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Tamper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut change: impl FnMut(&mut [u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        change(&mut buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

/// Replaces the first occurrence in place. One that two reads split is missed, which the demonstration would notice.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) -> bool {
    let Some(at) = bytes.windows(from.len()).position(|window| window == from) else { return false };
    bytes[at..at + from.len()].copy_from_slice(to);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_is_replaced() {
        let mut bytes = *b"noon, noon";
        assert!(replace(&mut bytes, b"noon", b"nine"));
        assert_eq!(&bytes, b"nine, noon");
        assert!(!replace(&mut bytes, b"dusk", b"dawn"));
    }
}
