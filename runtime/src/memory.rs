//! A transport in memory: two ends of a pipe in each direction, for tests and simulations.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use commipc_protocol::{Peer, Transport as Kind};

use crate::runtime::{Connection, Transport};
use crate::sync::lock;

/// Bytes that fit in one direction.
const CAPACITY: usize = 64 << 10;

/// Two connected ends. What one writes the other reads; at most 64 KiB are under way in each direction.
#[must_use]
pub fn memory_pair() -> (Connection, Connection) {
    let (there, back) = (Arc::new(Pipe::default()), Arc::new(Pipe::default()));
    let end = |reads: &Arc<Pipe>, writes: &Arc<Pipe>| Connection {
        transport: Arc::new(End { reads: Arc::clone(reads), writes: Arc::clone(writes) }),
        peer: Peer::unknown(Kind::Memory),
    };
    (end(&back, &there), end(&there, &back))
}

#[derive(Default)]
struct Pipe(Mutex<State>);

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    written_off: bool,
    read_off: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct End {
    reads: Arc<Pipe>,
    writes: Arc<Pipe>,
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Pipe {
    fn close(&self, reading: bool) {
        let (reader, writer) = {
            let mut state = lock(&self.0);
            if reading {
                state.read_off = true;
            } else {
                state.written_off = true;
            }
            (state.reader.take(), state.writer.take())
        };
        wake(reader);
        wake(writer);
    }
}

impl Transport for End {
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let (count, writer) = {
            let mut state = lock(&self.reads.0);
            if state.bytes.is_empty() && !state.written_off {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            (state.bytes.read(into)?, state.writer.take())
        };
        wake(writer);
        Ok(count)
    }

    fn try_write_vectored(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let (count, reader) = {
            let mut state = lock(&self.writes.0);
            if state.read_off || state.written_off {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let mut count = 0;
            for slice in from {
                let fits = slice.len().min(CAPACITY - state.bytes.len());
                state.bytes.extend(&slice[..fits]);
                count += fits;
            }
            if count == 0 && from.iter().any(|slice| !slice.is_empty()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            (count, state.reader.take())
        };
        wake(reader);
        Ok(count)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.reads.0);
        if !state.bytes.is_empty() || state.written_off {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.writes.0);
        if state.bytes.len() < CAPACITY || state.read_off || state.written_off {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn shutdown(&self) {
        self.writes.close(false);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.writes.close(false);
        self.reads.close(true);
    }
}
