//! The floor: the same three processes without a protocol. A relay forwards length-prefixed frames between Unix
//! sockets, a provider sends back what it gets, a consumer keeps calls in flight.
//!
//! ```text
//! frame    length (u32) | connection (u32) | call (u32) | payload         little endian; length counts what follows it
//! greeting one byte: P for the provider, C for a consumer
//! ```
//!
//! The relay does what a hub does at least: it finds the frames of a read, notes where a call came from, and sends an
//! answer there. Frames in a row for one destination are forwarded in one write.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use super::args::Load;
use super::load::{self, Samples};

/// A read's worth of bytes; a longer frame makes the buffer grow.
const READ: usize = 256 << 10;
/// Bytes of a frame before its payload.
const HEADER: usize = 12;

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

/// Connects and sends back whatever comes.
pub(super) async fn provider(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"P").await?;
    crate::say("ready");
    let mut buffer = vec![0; READ];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

/// Warms up, waits for the word, keeps calls in flight, tells how it went.
pub(super) async fn consumer(socket: &Path, load: Load) -> std::io::Result<()> {
    let mut callers = Vec::new();
    for _ in 0..load.clients {
        callers.push(Caller::connect(socket, load).await?);
    }
    // The relay may still be reading greetings; a call that comes back shows that the provider is there, too.
    drive(&mut callers, load::WARM_UP).await?;
    load::wait_for_go()?;
    let started = Instant::now();
    let samples = drive(&mut callers, Duration::from_secs_f64(load.seconds)).await?;
    load::tell(&samples.summary(started.elapsed()))
}

async fn drive(callers: &mut Vec<Caller>, time: Duration) -> std::io::Result<Samples> {
    let end = Instant::now() + time;
    LocalSet::new()
        .run_until(async {
            let running: Vec<_> = callers
                .drain(..)
                .map(|mut caller| spawn_local(async move { caller.run(end).await.map(|samples| (caller, samples)) }))
                .collect();
            let mut all = Samples::default();
            for task in running {
                let (caller, samples) = task.await.map_err(std::io::Error::other)??;
                all.merge(samples);
                callers.push(caller);
            }
            Ok(all)
        })
        .await
}

#[derive(Default)]
struct Relay {
    links: RefCell<Vec<Rc<Link>>>,
    provider: RefCell<Option<Rc<Link>>>,
}

impl Relay {
    async fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let role = stream.read_u8().await?;
        let link = Rc::new(Link::new(stream));
        let writer = Rc::clone(&link);
        spawn_local(async move { writer.flush_when_writable().await });
        if role == b'P' {
            *self.provider.borrow_mut() = Some(Rc::clone(&link));
            link.read(|frames| self.to_consumers(frames)).await
        } else {
            let number = self.links.borrow().len() as u32;
            self.links.borrow_mut().push(Rc::clone(&link));
            link.read(|frames| self.to_provider(number, frames)).await
        }
    }

    fn to_provider(&self, from: u32, frames: &mut [u8]) -> std::io::Result<()> {
        let mut at = 0;
        while at < frames.len() {
            frames[at + 4..at + 8].copy_from_slice(&from.to_le_bytes());
            at += 4 + word(frames, at) as usize;
        }
        match &*self.provider.borrow() {
            Some(provider) => provider.send(frames),
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
}

/// One connection. Whoever has bytes for it writes them at once; what the socket refuses waits in `unsent`.
struct Link {
    stream: UnixStream,
    unsent: RefCell<Vec<u8>>,
    refused: Notify,
    closed: Cell<bool>,
}

impl Link {
    fn new(stream: UnixStream) -> Self {
        Self { stream, unsent: RefCell::default(), refused: Notify::new(), closed: Cell::new(false) }
    }

    /// Reads until the end and hands over complete frames.
    async fn read(&self, handle: impl Fn(&mut [u8]) -> std::io::Result<()>) -> std::io::Result<()> {
        let mut buffer = vec![0; READ];
        let mut filled = 0;
        let outcome = loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut buffer[filled..]) {
                Ok(0) => break Ok(()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => break Err(error),
            }
            let complete = complete(&buffer[..filled]);
            handle(&mut buffer[..complete])?;
            buffer.copy_within(complete..filled, 0);
            filled -= complete;
            if filled == buffer.len() {
                buffer.resize(2 * filled, 0);
            }
        };
        self.closed.set(true);
        self.refused.notify_one();
        outcome
    }

    fn send(&self, mut bytes: &[u8]) -> std::io::Result<()> {
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

/// One connection of the consumer.
struct Caller {
    stream: UnixStream,
    load: Load,
    frame: Vec<u8>,
    buffer: Vec<u8>,
}

impl Caller {
    async fn connect(socket: &Path, load: Load) -> std::io::Result<Self> {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"C").await?;
        let body = HEADER - 4 + load.size as usize;
        let mut frame = (body as u32).to_le_bytes().to_vec();
        frame.resize(4 + body, 0);
        Ok(Self { stream, load, buffer: vec![0; READ.max(2 * frame.len())], frame })
    }

    /// Keeps calls in flight until `end`, then waits for the rest. The clock is read once for each batch.
    async fn run(&mut self, end: Instant) -> std::io::Result<Samples> {
        let mut samples = Samples::default();
        let mut sent = vec![Instant::now(); self.load.in_flight as usize];
        let mut out = Vec::new();
        (0..self.load.in_flight).for_each(|call| self.push_call(call, &mut out));
        self.stream.write_all(&out).await?;
        let (mut running, mut filled) = (self.load.in_flight, 0);
        while running > 0 {
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
            let now = Instant::now();
            let complete = complete(&self.buffer[..filled]);
            let mut at = 0;
            out.clear();
            while at < complete {
                let call = word(&self.buffer, at + 8);
                samples.push(now - sent[call as usize]);
                sent[call as usize] = now;
                if now < end {
                    self.push_call(call, &mut out)
                } else {
                    running -= 1
                }
                at += 4 + word(&self.buffer, at) as usize;
            }
            self.buffer.copy_within(complete..filled, 0);
            filled -= complete;
            self.stream.write_all(&out).await?;
        }
        Ok(samples)
    }

    fn push_call(&self, call: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        out[start + 8..start + HEADER].copy_from_slice(&call.to_le_bytes());
    }
}

/// How many of the bytes are complete frames.
fn complete(bytes: &[u8]) -> usize {
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

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
