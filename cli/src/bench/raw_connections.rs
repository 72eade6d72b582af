//! The floor of connections: two short exchanges, as many as a handshake has, or none.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::args::Load;
use super::load::{self, Samples};
use super::raw_relay::{HEADER, frame};

/// Warms up, waits for the word, connects again and again, tells how it went.
pub(super) async fn connector(socket: &Path, load: Load) -> std::io::Result<()> {
    drive(socket, load, load::WARM_UP).await?;
    load::wait_for_go()?;
    let started = Instant::now();
    let samples = drive(socket, load, Duration::from_secs_f64(load.seconds)).await?;
    load::tell(&samples.summary(started.elapsed()))
}

async fn drive(socket: &Path, load: Load, time: Duration) -> std::io::Result<Samples> {
    let end = Instant::now() + time;
    load::together((0..load.clients).map(|_| connect_until(end, socket.to_owned()))).await.map(Samples::of_all)
}

async fn connect_until(end: Instant, socket: PathBuf) -> std::io::Result<Samples> {
    let mut samples = Samples::default();
    let mut started = Instant::now();
    while started < end {
        connect(&socket).await?;
        let now = Instant::now();
        samples.push(now - started);
        started = now;
    }
    Ok(samples)
}

/// Connects and stays until it is told to stop.
pub(super) async fn idle(socket: &Path, load: Load) -> std::io::Result<()> {
    let mut connections = Vec::new();
    for _ in 0..load.clients {
        connections.push(connect(socket).await?);
    }
    load::until_told().await
}

async fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"E").await?;
    for _ in 0..2 {
        stream.write_all(&frame(0, 0, 64)).await?;
        stream.read_exact(&mut [0; HEADER + 64]).await?;
    }
    Ok(stream)
}
