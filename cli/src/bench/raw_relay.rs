//! The floor's relay, and its frames.
//!
//! ```text
//! frame    length (u32) | connection (u32) | number (u32) | payload       little endian; length counts what follows it
//! greeting one byte: P provider, C consumer, B broadcaster, M member, E echoed by the relay itself
//! ```
//!
//! The relay does what a hub does at least: it finds the frames of a read and where each of them goes. Frames in a row
//! for one destination are forwarded in one write.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;

use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

/// A read's worth of bytes; a longer frame makes the buffer grow.
pub(super) const READ: usize = 256 << 10;
/// Bytes of a frame before its payload.
pub(super) const HEADER: usize = 12;
/// The connection that stands in a frame of the relay's own: the number it carries was taken.
pub(super) const TAKEN: u32 = u32::MAX;

/// Runs the relay until it is killed.
pub(super) async fn relay(socket: &Path) -> std::io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    crate::say("ready");
    let relay = Rc::new(Relay::default());
    LocalSet::new()
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                let relay = Rc::clone(&relay);
                spawn_local(async move {
                    // The end of a connection is the end of its task; a benchmark's processes come and go.
                    let _ = relay.serve(stream).await;
                });
            }
        })
        .await
}

/// A frame without its payload's content.
pub(super) fn frame(connection: u32, number: u32, payload: usize) -> Vec<u8> {
    let mut frame = ((HEADER - 4 + payload) as u32).to_le_bytes().to_vec();
    frame.extend(connection.to_le_bytes());
    frame.extend(number.to_le_bytes());
    frame.resize(HEADER + payload, 0);
    frame
}

/// How many of the bytes are complete frames.
pub(super) fn complete(bytes: &[u8]) -> usize {
    let mut at = 0;
    while bytes.len() - at >= HEADER {
        let next = at + 4 + word(bytes, at) as usize;
        if next > bytes.len() {
            break;
        }
        at = next;
    }
    at
}

/// The connection and the number of each of these complete frames.
pub(super) fn each(frames: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        at += 4 + (start < frames.len()).then(|| word(frames, start) as usize)?;
        Some((word(frames, start + 4), word(frames, start + 8)))
    })
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[derive(Default)]
struct Relay {
    links: RefCell<Vec<Rc<Link>>>,
    members: RefCell<Vec<Rc<Link>>>,
    /// The provider or broadcaster.
    server: RefCell<Option<Rc<Link>>>,
}

impl Relay {
    async fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let role = stream.read_u8().await?;
        let link = Link::start(stream);
        match role {
            b'P' => {
                *self.server.borrow_mut() = Some(Rc::clone(&link));
                link.read(|frames| self.to_consumers(frames)).await
            }
            b'B' => {
                *self.server.borrow_mut() = Some(Rc::clone(&link));
                link.read(|frames| self.to_members(&link, frames)).await
            }
            b'E' => link.read(|frames| link.send(frames)).await,
            _ => {
                let number = self.links.borrow().len() as u32;
                self.links.borrow_mut().push(Rc::clone(&link));
                if role == b'M' {
                    self.members.borrow_mut().push(Rc::clone(&link));
                    // From here on it hears everything.
                    link.send(&frame(TAKEN, 0, 0))?;
                }
                let outcome = link.read(|frames| self.to_server(number, frames)).await;
                self.members.borrow_mut().retain(|member| !Rc::ptr_eq(member, &link));
                outcome
            }
        }
    }

    fn to_server(&self, from: u32, frames: &mut [u8]) -> std::io::Result<()> {
        let mut at = 0;
        while at < frames.len() {
            frames[at + 4..at + 8].copy_from_slice(&from.to_le_bytes());
            at += 4 + word(frames, at) as usize;
        }
        match &*self.server.borrow() {
            Some(server) => server.send(frames),
            None => Ok(()),
        }
    }

    fn to_consumers(&self, frames: &mut [u8]) -> std::io::Result<()> {
        let links = self.links.borrow();
        let mut start = 0;
        while start < frames.len() {
            let to = word(frames, start + 4);
            let mut end = start;
            while end < frames.len() && word(frames, end + 4) == to {
                end += 4 + word(frames, end) as usize;
            }
            if let Some(link) = links.get(to as usize) {
                // A consumer that is gone loses its answers; the others do not care.
                let _ = link.send(&frames[start..end]);
            }
            start = end;
        }
        Ok(())
    }

    /// Copies the frames of a read to every member, and tells the broadcaster that they were taken.
    fn to_members(&self, from: &Link, frames: &mut [u8]) -> std::io::Result<()> {
        let Some((_, last)) = each(frames).last() else { return Ok(()) };
        for member in self.members.borrow().iter() {
            // One that is gone loses what is said; the others do not care.
            let _ = member.send(frames);
        }
        from.send(&frame(TAKEN, last, 0))
    }
}

/// One connection. Whoever has bytes for it writes them at once; what the socket refuses waits in `unsent`.
pub(super) struct Link {
    stream: UnixStream,
    unsent: RefCell<Vec<u8>>,
    refused: Notify,
    closed: Cell<bool>,
}

impl Link {
    /// A link, and the task that writes what was refused.
    pub(super) fn start(stream: UnixStream) -> Rc<Self> {
        let link =
            Rc::new(Self { stream, unsent: RefCell::default(), refused: Notify::new(), closed: Cell::new(false) });
        let writer = Rc::clone(&link);
        spawn_local(async move { writer.flush_when_writable().await });
        link
    }

    /// Reads until the end and hands over complete frames.
    pub(super) async fn read(&self, handle: impl FnMut(&mut [u8]) -> std::io::Result<()>) -> std::io::Result<()> {
        let outcome = self.read_frames(handle).await;
        self.closed.set(true);
        self.refused.notify_one();
        outcome
    }

    async fn read_frames(&self, mut handle: impl FnMut(&mut [u8]) -> std::io::Result<()>) -> std::io::Result<()> {
        let mut buffer = vec![0; READ];
        let mut filled = 0;
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut buffer[filled..]) {
                Ok(0) => return Ok(()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            let complete = complete(&buffer[..filled]);
            handle(&mut buffer[..complete])?;
            buffer.copy_within(complete..filled, 0);
            filled -= complete;
            if filled == buffer.len() {
                buffer.resize(2 * filled, 0);
            }
        }
    }

    pub(super) fn send(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        let mut unsent = self.unsent.borrow_mut();
        while unsent.is_empty() && !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if !bytes.is_empty() {
            unsent.extend_from_slice(bytes);
            self.refused.notify_one();
        }
        Ok(())
    }

    async fn flush_when_writable(&self) {
        while !self.closed.get() {
            self.refused.notified().await;
            while !self.unsent.borrow().is_empty() {
                if self.stream.writable().await.is_err() {
                    return;
                }
                let mut unsent = self.unsent.borrow_mut();
                match self.stream.try_write(&unsent) {
                    Ok(n) => drop(unsent.drain(..n)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
    }
}
