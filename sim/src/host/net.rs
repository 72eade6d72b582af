//! Connections between processes, as sockets that a driver polls: the pipes of [`crate::wire`], drawn from the weather.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use commipc_protocol::{Instant, LinkEnd, Peer, Transport as Kind};
use commipc_runtime::{Acceptor, Connection, Endpoint, Transport};
use core::time::Duration;

use super::state::{Happening, Shared, State};
use crate::wire::{Arrival, Nature, Pipe};

/// A connection. Side 0 dialled, side 1 accepted; pipe `i` flows away from side `i`.
pub(super) struct Link {
    pub(super) pipes: [Pipe; 2],
    pub(super) ends: [End; 2],
    /// It breaks, or has: what is on the way is lost.
    breaking: bool,
}

/// Where a connection meets a process.
pub(super) struct End {
    pub(super) process: usize,
    reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// When its reader will be woken, if that is planned.
    wakes_at: Option<Instant>,
    /// The news of the other side's end is that late.
    over_at: Option<Instant>,
    /// Nothing more will be written.
    shut: bool,
    /// The break was noticed.
    broken: bool,
    /// A driver has it.
    held: bool,
}

/// Takes connections for a name.
pub(super) struct Listener {
    pub(super) process: usize,
    pub(super) queue: VecDeque<Connection>,
    number: u64,
    waker: Option<Waker>,
}

/// How long a dial takes to be heard, and its answer to come back.
pub(super) struct Delays {
    pub(super) there: Duration,
    pub(super) back: Duration,
}

impl End {
    const fn new(process: usize) -> Self {
        let (reader, writer, wakes_at, over_at) = (None, None, None, None);
        Self { process, reader, writer, wakes_at, over_at, shut: false, broken: false, held: true }
    }
}

/// Connections come to be.
impl State {
    /// Drawn for one dial.
    pub(super) fn delays(&mut self, process: usize, name: &str) -> Delays {
        let weather = self.weather_to(process, name);
        let mut choose = self.decisions.on(self.net);
        let most = choose.log_uniform(weather.latency.0, weather.latency.1);
        let [there, back] = [choose.below(most + 1), choose.below(most + 1)]
            .map(|more| Duration::from_nanos(weather.coarse(most + more)));
        Delays { there, back }
    }

    /// Lays a connection to whoever listens.
    pub(super) fn connect(&mut self, process: usize, name: &str, me: &Arc<Shared>) -> io::Result<Connection> {
        let weather = self.weather_to(process, name);
        let refused = self.decisions.on(self.fault).chance(weather.refused, 1_000);
        let to = self.listeners.get(name).filter(|_| !refused && !self.is_over()).map(|listener| listener.process);
        self.tell(|state| {
            let end = if to.is_some() { "" } else { ", in vain" };
            format!("{} dials {name}{end}", state.name(process))
        });
        let Some(to) = to else {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                format!("nobody takes connections at {name}"),
            ));
        };
        let pipes = [(); 2].map(|()| Pipe::new(Nature::drawn(&weather, self.decisions.on(self.net))));
        let link = usize::try_from(self.serial()).unwrap_or(usize::MAX);
        self.links.insert(link, Link { pipes, ends: [End::new(process), End::new(to)], breaking: false });
        let end = |side| Connection {
            transport: Arc::new(Socket { shared: Arc::downgrade(me), link, side }),
            peer: Peer::unknown(Kind::Memory),
        };
        if let Some(listener) = self.listeners.get_mut(name) {
            listener.queue.push_back(end(1));
            self.wakes.extend(listener.waker.take());
        }
        Ok(end(0))
    }

    /// Takes connections for a name from now on.
    pub(super) fn listen(&mut self, process: usize, name: &str, me: &Arc<Shared>) -> io::Result<Box<dyn Acceptor>> {
        if self.listeners.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("somebody listens at memory:{name} already")));
        }
        let number = self.serial();
        let listener = Listener { process, queue: VecDeque::new(), number, waker: None };
        self.listeners.insert(name.to_owned(), listener);
        Ok(Box::new(Door { shared: Arc::downgrade(me), name: name.to_owned(), number }))
    }
}

/// Bytes move.
impl State {
    fn read(&mut self, link: usize, side: usize, into: &mut [u8]) -> io::Result<usize> {
        let (now, parted) = (self.agenda.now(), self.is_parted(link));
        let Some(Link { pipes, ends, .. }) = self.links.get_mut(&link) else { return Ok(0) };
        if ends[side].broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let pipe = &mut pipes[1 - side];
        let due = pipe.next_arrival(now).is_some_and(|at| at <= now);
        if !due || parted || ends[side].over_at.is_some_and(|at| at > now) || into.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match pipe.arrive_within(into.len(), now, self.decisions.on(self.net)) {
            Arrival::Bytes(bytes) => {
                into.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
                self.wakes.extend(ends[1 - side].writer.take());
                self.moved(1, link, side, &bytes);
                Ok(bytes.len())
            }
            Arrival::End(how) if ends[side].over_at.is_some() => match how {
                LinkEnd::Reset => Err(io::ErrorKind::ConnectionReset.into()),
                LinkEnd::Eof | LinkEnd::Refused | LinkEnd::Unreachable | LinkEnd::Denied => Ok(0),
            },
            Arrival::End(_) => {
                let delay = self.decisions.on(self.net).below(self.weather.end_delay + 1);
                ends[side].over_at = Some(now + Duration::from_nanos(self.weather.coarse(delay)));
                self.plan_reading(link, side);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Arrival::Cut => {
                self.break_link(link);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Arrival::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write(&mut self, link: usize, side: usize, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let now = self.agenda.now();
        let Some(Link { pipes, ends, .. }) = self.links.get_mut(&link) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        if ends[side].broken || ends[side].shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let pipe = &mut pipes[side];
        let offered: usize = from.iter().map(|slice| slice.len()).sum();
        if pipe.hole {
            // Nobody reads; this side hears of that when it reads.
            return Ok(offered);
        }
        let mut left = offered.min(pipe.room());
        if left == 0 && offered > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = BytesMut::with_capacity(left);
        for slice in from {
            let taken = slice.len().min(left);
            bytes.extend_from_slice(slice.get(..taken).unwrap_or_default());
            left -= taken;
        }
        let bytes = bytes.freeze();
        pipe.transmit(bytes.clone());
        pipe.pump(now, self.decisions.on(self.net));
        pipe.untold = 0;
        self.plan_reading(link, 1 - side);
        self.moved(0, link, side, &bytes);
        Ok(bytes.len())
    }

    fn moved(&mut self, kind: u64, link: usize, side: usize, bytes: &[u8]) {
        [kind, self.agenda.now().as_nanos(), link as u64, side as u64]
            .iter()
            .for_each(|number| self.tape.number(*number));
        self.tape.bytes(bytes);
        self.tape.wind();
        if kind == 0 {
            self.tell(|state| {
                let [from, to] = [side, 1 - side].map(|side| state.end_name(link, side));
                format!("{from} -> {to}  {} bytes on connection {link}", bytes.len())
            });
        }
    }

    fn end_name(&self, link: usize, side: usize) -> &str {
        self.links.get(&link).map_or("?", |link| self.name(link.ends[side].process))
    }

    /// Plans when the reader of an end is woken.
    pub(super) fn plan_reading(&mut self, link: usize, side: usize) {
        let now = self.agenda.now();
        if self.is_parted(link) {
            return;
        }
        let Some(Link { pipes, ends, .. }) = self.links.get_mut(&link) else { return };
        let end = &mut ends[side];
        let Some(at) = pipes[1 - side].next_arrival(now).map(|at| end.over_at.map_or(at, |over| at.max(over))) else {
            return;
        };
        if end.wakes_at.is_none_or(|planned| at < planned) {
            end.wakes_at = Some(at);
            self.agenda.plan(at, Happening::Readable { link, side });
        }
    }

    pub(super) fn readable(&mut self, link: usize, side: usize) {
        let Some(Link { ends, .. }) = self.links.get_mut(&link) else { return };
        ends[side].wakes_at = None;
        self.wakes.extend(ends[side].reader.take());
    }

    fn poll_readable(&mut self, link: usize, side: usize, waker: &Waker) -> Poll<io::Result<()>> {
        let (now, parted) = (self.agenda.now(), self.is_parted(link));
        let Some(Link { pipes, ends, .. }) = self.links.get_mut(&link) else { return Poll::Ready(Ok(())) };
        let end = &mut ends[side];
        let due = pipes[1 - side].next_arrival(now).is_some_and(|at| at <= now);
        if end.broken || (due && !parted && end.over_at.is_none_or(|at| at <= now)) {
            return Poll::Ready(Ok(()));
        }
        end.reader = Some(waker.clone());
        self.plan_reading(link, side);
        Poll::Pending
    }

    fn poll_writable(&mut self, link: usize, side: usize, waker: &Waker) -> Poll<io::Result<()>> {
        let Some(Link { pipes, ends, .. }) = self.links.get_mut(&link) else { return Poll::Ready(Ok(())) };
        if ends[side].broken || ends[side].shut || pipes[side].room() > 0 {
            return Poll::Ready(Ok(()));
        }
        ends[side].writer = Some(waker.clone());
        Poll::Pending
    }
}

/// Connections end.
impl State {
    fn shut(&mut self, link: usize, side: usize, flush: bool) {
        let now = self.agenda.now();
        let Some(Link { pipes, ends, .. }) = self.links.get_mut(&link) else { return };
        if std::mem::replace(&mut ends[side].shut, true) {
            return;
        }
        pipes[side].close(flush, if flush { LinkEnd::Eof } else { LinkEnd::Reset });
        pipes[side].pump(now, self.decisions.on(self.net));
        self.plan_reading(link, 1 - side);
    }

    /// A process has dropped its end.
    fn hang_up(&mut self, link: usize, side: usize) {
        let rude = self.decisions.on(self.fault).chance(self.weather.rude, 1_000);
        self.shut(link, side, !rude);
        let Some(Link { pipes, ends, .. }) = self.links.get_mut(&link) else { return };
        pipes[1 - side].leads_nowhere();
        self.wakes.extend(ends[1 - side].writer.take());
        ends[side].held = false;
        if ends.iter().all(|end| !end.held) {
            self.links.remove(&link);
        }
    }

    /// Breaks every connection of a process.
    pub(super) fn cut(&mut self, process: usize) {
        let of_it = |link: &&Link| link.ends.iter().any(|end| end.process == process);
        let links: Vec<usize> = self.links.iter().filter(|(_, link)| of_it(link)).map(|(number, _)| *number).collect();
        links.into_iter().for_each(|link| self.break_link(link));
    }

    /// Both ends learn of the break in their own time; what is on the way is lost.
    pub(super) fn break_link(&mut self, link: usize) {
        let Some(Link { pipes, breaking, .. }) = self.links.get_mut(&link) else { return };
        if std::mem::replace(breaking, true) {
            return;
        }
        pipes.iter_mut().for_each(Pipe::leads_nowhere);
        self.tell(|state| {
            let [dialled, accepted] = [0, 1].map(|side| state.end_name(link, side));
            format!("{dialled} -- {accepted}  connection {link} breaks")
        });
        for side in [0, 1] {
            let delay = self.decisions.on(self.net).below(self.weather.end_delay + 1);
            let at = self.agenda.now() + Duration::from_nanos(self.weather.coarse(delay));
            self.agenda.plan(at, Happening::Break { link, side });
        }
    }

    pub(super) fn broken(&mut self, link: usize, side: usize) {
        let Some(Link { ends, .. }) = self.links.get_mut(&link) else { return };
        ends[side].broken = true;
        self.wakes.extend(ends[side].reader.take());
        self.wakes.extend(ends[side].writer.take());
    }
}

/// One end of a connection, in a driver's hands.
struct Socket {
    shared: Weak<Shared>,
    link: usize,
    side: usize,
}

impl Socket {
    /// `otherwise` when the simulation is over.
    fn with<T>(&self, otherwise: T, act: impl FnOnce(&mut State, usize, usize) -> T) -> T {
        let shared = self.shared.upgrade();
        shared.map_or(otherwise, |shared| shared.with(|state| act(state, self.link, self.side)))
    }
}

impl Transport for Socket {
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.with(Ok(0), |state, link, side| state.read(link, side, into))
    }

    fn try_write_vectored(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let over = Err(io::ErrorKind::BrokenPipe.into());
        self.with(over, |state, link, side| state.write(link, side, from))
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(Poll::Ready(Ok(())), |state, link, side| state.poll_readable(link, side, cx.waker()))
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(Poll::Ready(Ok(())), |state, link, side| state.poll_writable(link, side, cx.waker()))
    }

    fn shutdown(&self) {
        self.with((), |state, link, side| state.shut(link, side, true));
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.with((), State::hang_up);
    }
}

/// A listener, in a driver's hands.
struct Door {
    shared: Weak<Shared>,
    name: String,
    number: u64,
}

impl State {
    fn listener(&mut self, door: &Door) -> Option<&mut Listener> {
        self.listeners.get_mut(&door.name).filter(|listener| listener.number == door.number)
    }
}

impl Acceptor for Door {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        let Some(shared) = self.shared.upgrade() else { return Poll::Pending };
        shared.with(|state| {
            let Some(listener) = state.listener(self) else { return Poll::Pending };
            let Some(connection) = listener.queue.pop_front() else {
                listener.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            Poll::Ready(Ok(connection))
        })
    }

    fn local(&self) -> Endpoint {
        Endpoint::Memory(self.name.clone())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let closed = shared.with(|state| state.listener(self).is_some().then(|| state.listeners.remove(&self.name)));
        // Connections that nobody took hang up, which takes the lock again.
        drop(closed);
    }
}
