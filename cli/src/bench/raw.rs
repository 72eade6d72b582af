//! The floor of calls: a provider that sends back what it gets, a consumer that keeps calls in flight, and a relay.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_local};

use super::args::Load;
use super::load::{self, Samples};
use super::raw_relay::{HEADER, READ, complete, each, frame};

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
        let frame = frame(0, 0, load.size as usize);
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
            out.clear();
            for (_, call) in each(&self.buffer[..complete]) {
                samples.push(now - sent[call as usize]);
                sent[call as usize] = now;
                if now < end { self.push_call(call, &mut out) } else { running -= 1 }
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
