//! The floor of streams: a provider that sends as many frames as are wanted, and consumers that want more with every half of
//! what streams have on their way.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use commipc_tokio::{DEFAULT_CREDIT, DEFAULT_CREDIT_BYTES};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::args::Load;
use super::load;
use super::raw_relay::{HEADER, READ, complete, each, frame};
use super::stream::Taken;

/// Bytes in one write, unless an item is longer.
const BATCH: usize = 64 << 10;

/// Sends what is wanted until the relay goes.
pub(super) async fn provider(socket: &Path, load: Load) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"P").await?;
    crate::say("ready");
    let (mut buffer, mut filled) = (vec![0; READ], 0);
    let mut out = Vec::new();
    loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            n => filled += n,
        }
        let complete = complete(&buffer[..filled]);
        for (connection, wanted) in each(&buffer[..complete]) {
            let item = frame(connection, 0, load.size as usize);
            for sent in 1..=wanted {
                out.extend_from_slice(&item);
                if out.len() >= BATCH || sent == wanted {
                    stream.write_all(&out).await?;
                    out.clear();
                }
            }
        }
        buffer.copy_within(complete..filled, 0);
        filled -= complete;
    }
}

/// Warms up, waits for the word, takes items as fast as they come, tells how many.
pub(super) async fn consumer(socket: &Path, load: Load) -> std::io::Result<()> {
    let mut takers = Vec::new();
    for _ in 0..load.clients {
        takers.push(Taker::connect(socket, load).await?);
    }
    let (takers, _) = drive(takers, load::WARM_UP).await?;
    load::wait_for_go()?;
    let started = Instant::now();
    let (_takers, items) = drive(takers, Duration::from_secs_f64(load.seconds)).await?;
    load::tell(&Taken { items, seconds: started.elapsed().as_secs_f64() })
}

async fn drive(takers: Vec<Taker>, time: Duration) -> std::io::Result<(Vec<Taker>, u64)> {
    let end = Instant::now() + time;
    let taken = load::together(takers.into_iter().map(|taker| taker.take_until(end))).await?;
    let items = taken.iter().map(|(_, items)| items).sum();
    Ok((taken.into_iter().map(|(taker, _)| taker).collect(), items))
}

/// One connection of the consumer.
struct Taker {
    stream: UnixStream,
    buffer: Vec<u8>,
    filled: usize,
    window: u32,
    /// Taken since more was wanted last.
    taken: u32,
}

impl Taker {
    async fn connect(socket: &Path, load: Load) -> std::io::Result<Self> {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"C").await?;
        let len = HEADER + load.size as usize;
        let window = (DEFAULT_CREDIT_BYTES / len as u64).clamp(2, DEFAULT_CREDIT) as u32;
        stream.write_all(&frame(0, window, 0)).await?;
        Ok(Self { stream, buffer: vec![0; READ.max(2 * len)], filled: 0, window, taken: 0 })
    }

    async fn take_until(mut self, end: Instant) -> std::io::Result<(Self, u64)> {
        let mut items = 0;
        while Instant::now() < end {
            match self.stream.read(&mut self.buffer[self.filled..]).await? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.filled += n,
            }
            let complete = complete(&self.buffer[..self.filled]);
            let taken = each(&self.buffer[..complete]).count() as u32;
            items += u64::from(taken);
            self.taken += taken;
            if self.taken >= self.window.div_ceil(2) {
                self.stream.write_all(&frame(0, self.taken, 0)).await?;
                self.taken = 0;
            }
            self.buffer.copy_within(complete..self.filled, 0);
            self.filled -= complete;
        }
        Ok((self, items))
    }
}
