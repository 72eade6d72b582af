//! The floor of broadcasts: a broadcaster and members that keep the same pace as those of [`super::fanout`], and nothing
//! else.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_local};

use super::args::Load;
use super::fanout::{Progress, Said, Slowest, is_over, lag};
use super::load;
use super::raw_relay::{HEADER, Link, READ, TAKEN, complete, each, frame};

/// Warms up, waits for the word, says as much as it can, tells how it went.
pub(super) async fn broadcaster(socket: &Path, load: Load) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"B").await?;
    let mut broadcaster = Broadcaster {
        stream,
        load,
        said: 0,
        taken: 0,
        heard: 0,
        slowest: Slowest::of(load.clients),
        buffer: vec![0; READ],
        filled: 0,
    };
    broadcaster.drive(load::WARM_UP).await?;
    load::wait_for_go()?;
    let (before, started) = (broadcaster.said, Instant::now());
    broadcaster.drive(Duration::from_secs_f64(load.seconds)).await?;
    let all = broadcaster.said;
    load::tell(&Said { measured: all - before, all, seconds: started.elapsed().as_secs_f64() })
}

struct Broadcaster {
    stream: UnixStream,
    load: Load,
    said: u64,
    /// What the relay has taken.
    taken: u64,
    /// What all members have heard.
    heard: u64,
    slowest: Slowest<u32>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Broadcaster {
    /// Says what may be said, in one write, and reads how far the others are, until all that was said is heard.
    async fn drive(&mut self, time: Duration) -> std::io::Result<()> {
        let end = Instant::now() + time;
        let (size, in_flight) = (self.load.size, u64::from(self.load.in_flight));
        let one = frame(0, 0, size as usize);
        let (mut out, mut over) = (Vec::new(), false);
        while !over || self.heard < self.said {
            out.clear();
            let limit = (self.taken + in_flight).min(self.heard + lag(size));
            while !over && self.said < limit {
                over = is_over(self.said, size, end);
                if !over {
                    self.said += 1;
                    let start = out.len();
                    out.extend_from_slice(&one);
                    out[start + 8..start + HEADER].copy_from_slice(&(self.said as u32).to_le_bytes());
                }
            }
            self.stream.write_all(&out).await?;
            if !over || self.heard < self.said {
                self.read().await?;
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> std::io::Result<()> {
        match self.stream.read(&mut self.buffer[self.filled..]).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => self.filled += n,
        }
        let complete = complete(&self.buffer[..self.filled]);
        for (from, number) in each(&self.buffer[..complete]) {
            match from {
                TAKEN => self.taken = u64::from(number),
                from => self.heard = self.slowest.heard(from, u64::from(number)),
            }
        }
        self.buffer.copy_within(complete..self.filled, 0);
        self.filled -= complete;
        Ok(())
    }
}

/// Listens with so many connections until it is told to stop, and tells how much was heard.
pub(super) async fn members(socket: &Path, load: Load) -> std::io::Result<()> {
    let heard = Rc::new(Cell::new(0));
    LocalSet::new()
        .run_until(async {
            let progress = Rc::new(RefCell::new(Progress::new(load)));
            let mut teller: Option<Rc<Link>> = None;
            for member in 0..load.clients as usize {
                let mut stream = UnixStream::connect(socket).await?;
                stream.write_all(b"M").await?;
                // The relay's word that it hears everything from now on.
                stream.read_exact(&mut [0; HEADER]).await?;
                let link = Link::start(stream);
                let teller = Rc::clone(teller.get_or_insert_with(|| Rc::clone(&link)));
                let (progress, heard) = (Rc::clone(&progress), Rc::clone(&heard));
                spawn_local(async move {
                    let listening = link.read(|frames| {
                        for (_, number) in each(frames) {
                            heard.set(heard.get() + 1);
                            if let Some(all) = progress.borrow_mut().heard(member, u64::from(number)) {
                                teller.send(&frame(0, all as u32, 0))?;
                            }
                        }
                        Ok(())
                    });
                    // It ends with the process; a relay that goes has lost what was said.
                    let _ = listening.await;
                });
            }
            load::until_told().await
        })
        .await?;
    load::tell(&heard.get())
}
