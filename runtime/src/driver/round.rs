//! What one trip round the loop carries out of the lock.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::Waker;

use bytes::{Buf as _, Bytes};
use commipc_protocol::{LinkId, Machine};

use super::core::{Link, Wire};

/// Scratch space that is reused, so that the steady state allocates nothing.
pub(super) struct Round<M: Machine> {
    /// Links whose queues are about to be taken.
    pub(super) ready: Vec<LinkId>,
    /// Queues to be written.
    pub(super) flights: Vec<Flight>,
    /// Events to be delivered, and whether this round is the one that delivers.
    pub(super) events: VecDeque<M::Event>,
    pub(super) delivering: bool,
    /// What the application asked for on being told.
    pub(super) commands: Vec<M::Command>,
    pub(super) dials: Vec<(LinkId, Arc<str>)>,
    pub(super) wakes: Vec<Waker>,
    /// Bytes and links whose `Drop` is somebody else's code, to be run without the lock.
    pub(super) garbage: Vec<Bytes>,
    pub(super) dead: Vec<Link>,
}

impl<M: Machine> Default for Round<M> {
    fn default() -> Self {
        Self {
            ready: Vec::new(),
            flights: Vec::new(),
            events: VecDeque::new(),
            delivering: false,
            commands: Vec::new(),
            dials: Vec::new(),
            wakes: Vec::new(),
            garbage: Vec::new(),
            dead: Vec::new(),
        }
    }
}

impl<M: Machine> Round<M> {
    /// Whether nothing is left to be done without the lock.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty()
            && self.events.is_empty()
            && self.commands.is_empty()
            && self.dials.is_empty()
            && self.wakes.is_empty()
            && self.garbage.is_empty()
            && self.dead.is_empty()
    }
}

/// A link's queue in the hands of the one who writes it.
pub(super) struct Flight {
    pub(super) wire: Arc<Wire>,
    pub(super) queue: VecDeque<Bytes>,
    /// How much of the queue's first piece is written.
    pub(super) offset: usize,
    /// Bytes written and not yet told to the machine.
    pub(super) written: usize,
    pub(super) end: FlightEnd,
}

/// How writing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlightEnd {
    /// All is written.
    Done,
    /// The socket takes no more for now.
    Blocked,
    /// The socket takes nothing ever again.
    Broken,
}

/// As many pieces as one system call takes here.
const SLICES: usize = 64;

impl Flight {
    pub(super) fn new(wire: Arc<Wire>, queue: VecDeque<Bytes>, offset: usize) -> Self {
        Self { wire, queue, offset, written: 0, end: FlightEnd::Done }
    }

    /// Writes until the queue is empty or the socket refuses. Written pieces are dropped here, without a lock.
    pub(super) fn write(&mut self) {
        while !self.queue.is_empty() {
            match self.write_some() {
                Ok(0) => return self.end = FlightEnd::Broken,
                Ok(bytes) => self.consume(bytes),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return self.end = FlightEnd::Blocked,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.end = FlightEnd::Broken,
            }
        }
    }

    fn write_some(&self) -> io::Result<usize> {
        let transport = &*self.wire.transport;
        if let (1, Some(only)) = (self.queue.len(), self.queue.front()) {
            return transport.try_write_vectored(&[IoSlice::new(&only[self.offset..])]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut skip = self.offset;
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(&piece[skip..]);
            skip = 0;
            count += 1;
        }
        transport.try_write_vectored(&slices[..count])
    }

    fn consume(&mut self, mut bytes: usize) {
        self.written += bytes;
        bytes += self.offset;
        self.offset = 0;
        while let Some(piece) = self.queue.front() {
            if bytes < piece.remaining() {
                self.offset = bytes;
                return;
            }
            bytes -= piece.remaining();
            self.queue.pop_front();
        }
    }
}
