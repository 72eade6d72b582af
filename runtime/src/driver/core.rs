//! What the driver's lock guards: the machine and the links' queues.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Poll, Waker};

use bytes::Bytes;
use commipc_protocol::{Flush, Input, Instant, LinkEnd, LinkId, Machine, Now, Output};

use super::round::{Flight, FlightEnd, Round};
use crate::runtime::{Connection, Transport};

/// The socket has refused bytes: the link's task waits until it takes some again.
pub(super) const BLOCKED: u8 = 1;
/// The machine has closed the link; what is queued is still to be written.
pub(super) const CLOSING: u8 = 2;
/// Of a closing link everything is written.
pub(super) const FLUSHED: u8 = 4;
/// The machine has closed the link and nothing more is to be written.
pub(super) const KILLED: u8 = 8;
/// Nothing can be written any more; what came in before may still be read.
pub(super) const BROKEN: u8 = 16;
/// A closing link ends with its last byte, whatever its peer does.
pub(super) const BRIEF: u8 = 32;

/// What tasks need of a link without the lock.
pub(super) struct Wire {
    pub(super) id: LinkId,
    pub(super) transport: Arc<dyn Transport>,
    /// Set under the lock, after which the link's task is woken.
    pub(super) flags: AtomicU8,
}

/// One link, from its dial or accept until its task ends.
pub(super) struct Link {
    id: LinkId,
    /// `None` while it is dialled.
    wire: Option<Arc<Wire>>,
    queue: VecDeque<Bytes>,
    /// How much of the queue's first piece is written already.
    offset: usize,
    /// Its queue is, or is about to be, in somebody's hands.
    writing: bool,
    blocked: bool,
    /// The machine has forgotten it.
    closed: bool,
    waker: Option<Waker>,
}

struct Slot {
    generation: u32,
    link: Option<Link>,
}

/// The machine and everything that changes together with it.
pub(super) struct Core<M: Machine> {
    pub(super) machine: M,
    pub(super) spare_commands: Vec<M::Command>,
    accepted: Vec<Slot>,
    free: Vec<u32>,
    /// A machine dials few links, and may reuse an index while the old link is still flushing.
    dialled: Vec<Link>,
    /// Links that the machine has closed and that are not over, in the order in which they have to go.
    lingering: VecDeque<LinkId>,
    events: VecDeque<M::Event>,
    delivering: bool,
    /// Tasks that stopped reading because too many events wait.
    paused: Vec<Waker>,
    armed: Option<Instant>,
    service: Option<Waker>,
    /// Who waits until no link is left.
    emptied: Vec<Waker>,
    stopped: bool,
    rounds: Vec<Round<M>>,
    spare_queues: Vec<VecDeque<Bytes>>,
}

/// How many links may be closing at a time. Each may hold what its outbox held: all of them less than a hub may hold.
const LINGERING: usize = 64;
/// How many empty queues are kept for links that have something to write.
const SPARE_QUEUES: usize = 64;
/// How many scratch objects are kept: one for each task that is likely to be at work.
const SPARE_ROUNDS: usize = 8;

impl<M: Machine> Core<M> {
    pub(super) fn new(machine: M) -> Self {
        Self {
            machine,
            spare_commands: Vec::new(),
            accepted: Vec::new(),
            free: Vec::new(),
            dialled: Vec::new(),
            lingering: VecDeque::new(),
            events: VecDeque::new(),
            delivering: false,
            paused: Vec::new(),
            armed: None,
            service: None,
            emptied: Vec::new(),
            stopped: false,
            rounds: Vec::new(),
            spare_queues: Vec::new(),
        }
    }

    pub(super) fn take_round(&mut self) -> Round<M> {
        self.rounds.pop().unwrap_or_default()
    }

    pub(super) fn keep_round(&mut self, round: Round<M>) {
        if self.rounds.len() < SPARE_ROUNDS {
            self.rounds.push(round);
        }
    }

    /// Events that another task is to deliver.
    pub(super) fn backlog(&self) -> usize {
        if self.delivering { self.events.len() } else { 0 }
    }

    /// Takes everything out of the machine and hands out what is to be done without the lock.
    pub(super) fn drain(&mut self, round: &mut Round<M>, may_deliver: bool) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Transmit { link, data } => self.transmit(link, data, round),
                Output::Dial { link, to } => {
                    self.dialled.push(Link::new(link, None));
                    round.dials.push((link, to));
                }
                Output::Close { link, flush } => self.close(link, flush, round),
                Output::Event(event) => self.events.push_back(event),
            }
        }
        self.launch(round);
        self.hand_out_events(round, may_deliver);
        if let Some(deadline) = self.machine.poll_timeout()
            && self.armed.is_none_or(|armed| deadline.at < armed)
        {
            self.armed = Some(deadline.at);
            round.wakes.extend(self.service.clone());
        }
    }

    /// Takes back what was done without the lock, and feeds what came of it.
    pub(super) fn settle(&mut self, round: &mut Round<M>, now: Now) {
        let mut flights = mem::take(&mut round.flights);
        for flight in flights.drain(..) {
            self.land(flight, round, now);
        }
        round.flights = flights;
        for command in round.commands.drain(..) {
            self.machine.handle_input(now, Input::Command(command));
        }
    }

    /// Leaves what a round could not finish to the tasks concerned.
    pub(super) fn hand_over(&mut self, round: &mut Round<M>) {
        for flight in &mut round.flights {
            // As if the socket had refused: the link's task finds it ready and goes on.
            flight.end = FlightEnd::Blocked;
        }
        let mut flights = mem::take(&mut round.flights);
        for flight in flights.drain(..) {
            self.put_back(flight, round);
        }
        round.flights = flights;
        while let Some(event) = round.events.pop_back() {
            self.events.push_front(event);
        }
        if mem::take(&mut round.delivering) {
            self.delivering = false;
            round.wakes.append(&mut self.paused);
        }
        round.wakes.extend(self.service.clone());
    }

    fn transmit(&mut self, id: LinkId, data: Bytes, round: &mut Round<M>) {
        let spare = &mut self.spare_queues;
        let Some(link) = find(&mut self.accepted, &mut self.dialled, id) else {
            round.garbage.push(data);
            return;
        };
        if link.wire.is_none() || link.is_broken() {
            round.garbage.push(data);
            return;
        }
        if link.queue.capacity() == 0
            && let Some(queue) = spare.pop()
        {
            link.queue = queue;
        }
        link.queue.push_back(data);
        if !link.writing && !link.blocked {
            link.writing = true;
            round.ready.push(id);
        }
    }

    /// Takes the queues of links that are ready, to be written without the lock.
    fn launch(&mut self, round: &mut Round<M>) {
        for id in round.ready.drain(..) {
            let Some(link) = find(&mut self.accepted, &mut self.dialled, id) else { continue };
            let Some(wire) = &link.wire else { continue };
            let (queue, offset) = (mem::take(&mut link.queue), mem::take(&mut link.offset));
            round.flights.push(Flight::new(Arc::clone(wire), queue, offset));
        }
    }

    fn land(&mut self, mut flight: Flight, round: &mut Round<M>, now: Now) {
        let (id, written) = (flight.wire.id, mem::take(&mut flight.written));
        let closed = self.put_back(flight, round);
        if written > 0 && closed == Some(false) {
            self.machine.handle_input(now, Input::Written { link: id, bytes: written });
        }
    }

    /// Ends a flight; tells whether the link is closed, if it still exists.
    fn put_back(&mut self, mut flight: Flight, round: &mut Round<M>) -> Option<bool> {
        let link = find(&mut self.accepted, &mut self.dialled, flight.wire.id);
        let Some(link) = link else {
            round.garbage.extend(flight.queue.drain(..));
            return None;
        };
        link.writing = false;
        match flight.end {
            FlightEnd::Done => {}
            FlightEnd::Blocked => {
                flight.queue.append(&mut link.queue);
                mem::swap(&mut link.queue, &mut flight.queue);
                link.offset = flight.offset;
                link.blocked = true;
                link.raise(BLOCKED, round);
            }
            FlightEnd::Broken => {
                round.garbage.extend(flight.queue.drain(..));
                round.garbage.extend(link.queue.drain(..));
                link.raise(BROKEN, round);
            }
        }
        if self.spare_queues.len() < SPARE_QUEUES && flight.queue.capacity() > 0 {
            self.spare_queues.push(flight.queue);
        }
        if link.queue.is_empty() {
            if link.closed {
                link.raise(FLUSHED, round);
            }
        } else if !link.blocked {
            link.writing = true;
            round.ready.push(link.id);
        }
        Some(link.closed)
    }

    fn close(&mut self, id: LinkId, flush: Flush, round: &mut Round<M>) {
        let Some(link) = find(&mut self.accepted, &mut self.dialled, id) else { return };
        link.closed = true;
        let rest = if link.queue.is_empty() && !link.writing { FLUSHED } else { 0 };
        match flush {
            Flush::Nothing => {
                round.garbage.extend(link.queue.drain(..));
                return link.raise(CLOSING | KILLED, round);
            }
            Flush::Written => {
                link.raise(CLOSING | BRIEF | rest, round);
                self.lingering.push_front(id);
            }
            Flush::Read => {
                link.raise(CLOSING | rest, round);
                self.lingering.push_back(id);
            }
        }
        self.end_lingering(LINGERING, round);
    }

    /// Ends closing links until at most so many are left: first those that are not to wait for their peers, then those
    /// that have waited longest. What is about to be written still is.
    pub(super) fn end_lingering(&mut self, most: usize, round: &mut Round<M>) {
        while self.lingering.len() > most
            && let Some(oldest) = self.lingering.pop_front()
        {
            if let Some(link) = find(&mut self.accepted, &mut self.dialled, oldest) {
                link.raise(KILLED, round);
            }
        }
    }

    fn hand_out_events(&mut self, round: &mut Round<M>, may_deliver: bool) {
        if round.delivering || ((may_deliver || self.stopped) && !self.delivering) {
            let some = !self.events.is_empty();
            if self.delivering && !some {
                round.wakes.append(&mut self.paused);
            }
            (self.delivering, round.delivering) = (some, some);
            if some {
                mem::swap(&mut self.events, &mut round.events);
            }
        } else if !self.events.is_empty() && !self.delivering {
            round.wakes.extend(self.service.clone());
        }
    }

    /// A listener took a connection.
    pub(super) fn accepted(&mut self, connection: Connection, now: Now) -> Arc<Wire> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.accepted.push(Slot { generation: 0, link: None });
            u32::try_from(self.accepted.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.accepted[index as usize];
        let id = LinkId::accepted(index, slot.generation);
        let wire = Arc::new(Wire { id, transport: connection.transport, flags: AtomicU8::new(0) });
        slot.link = Some(Link::new(id, Some(Arc::clone(&wire))));
        self.machine.handle_input(now, Input::Accepted { link: id, peer: connection.peer });
        wire
    }

    /// Whether a link that is being dialled is still asked for.
    pub(super) fn is_wanted(&self, id: LinkId) -> bool {
        self.dialled.iter().any(|link| link.id == id && !link.closed)
    }

    /// A dial succeeded. `None` when the machine has closed the link meanwhile.
    pub(super) fn dialled(&mut self, id: LinkId, connection: Connection, now: Now) -> Option<Arc<Wire>> {
        let position = self.dialled.iter().position(|link| link.id == id)?;
        if self.dialled[position].closed {
            self.lingering.retain(|lingering| *lingering != id);
            self.dialled.swap_remove(position);
            return None;
        }
        let wire = Arc::new(Wire { id, transport: connection.transport, flags: AtomicU8::new(0) });
        self.dialled[position].wire = Some(Arc::clone(&wire));
        self.machine.handle_input(now, Input::Dialled { link: id, peer: connection.peer });
        Some(wire)
    }

    /// A link's task or dial is over.
    pub(super) fn ended(&mut self, id: LinkId, how: Option<LinkEnd>, round: &mut Round<M>, now: Now) {
        let gone = if id.is_dialled() {
            let position = self.dialled.iter().position(|link| link.id == id);
            position.map(|position| self.dialled.swap_remove(position))
        } else {
            self.accepted.get_mut(id.index()).filter(|slot| slot.generation == id.generation()).and_then(|slot| {
                slot.generation = slot.generation.wrapping_add(1);
                slot.link.take()
            })
        };
        let Some(link) = gone else { return };
        if link.closed {
            self.lingering.retain(|lingering| *lingering != id);
        }
        if !id.is_dialled() {
            self.free.push(u32::try_from(id.index()).unwrap_or(u32::MAX));
        }
        let closed = link.closed;
        round.dead.push(link);
        if self.is_empty() {
            round.wakes.append(&mut self.emptied);
        }
        if let (Some(how), false) = (how, closed) {
            self.machine.handle_input(now, Input::Closed { link: id, how });
        }
    }

    fn is_empty(&self) -> bool {
        self.dialled.is_empty() && self.free.len() == self.accepted.len()
    }

    /// Waits until no link is left.
    pub(super) fn poll_empty(&mut self, waker: &Waker) -> Poll<()> {
        if self.is_empty() {
            return Poll::Ready(());
        }
        if !self.emptied.iter().any(|known| known.will_wake(waker)) {
            self.emptied.push(waker.clone());
        }
        Poll::Pending
    }

    /// A socket takes bytes again.
    pub(super) fn unblock(&mut self, id: LinkId, round: &mut Round<M>) {
        let Some(link) = find(&mut self.accepted, &mut self.dialled, id) else { return };
        if let Some(wire) = &link.wire {
            wire.flags.fetch_and(!BLOCKED, Ordering::AcqRel);
        }
        if mem::take(&mut link.blocked) && !link.queue.is_empty() {
            link.writing = true;
            round.ready.push(id);
        }
    }

    /// Keeps the waker of a link's task.
    pub(super) fn register(&mut self, id: LinkId, waker: &Waker) {
        if let Some(link) = find(&mut self.accepted, &mut self.dialled, id) {
            link.waker = Some(waker.clone());
        }
    }

    /// Wakes a reading task once the events that wait are delivered; `false` when none wait any more.
    pub(super) fn pause(&mut self, waker: &Waker) -> bool {
        if self.delivering {
            self.paused.push(waker.clone());
        }
        self.delivering
    }

    /// Keeps the waker of the timer's task; tells when it is due, whether events wait for it, and whether it is over.
    pub(super) fn serve(&mut self, waker: &Waker) -> (Option<Instant>, bool, bool) {
        if !self.service.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.service = Some(waker.clone());
        }
        (self.armed, !self.events.is_empty() && !self.delivering, self.stopped)
    }

    /// The armed deadline has come.
    pub(super) fn fired(&mut self) {
        self.armed = None;
    }

    pub(super) fn service_waker(&self) -> Option<Waker> {
        self.service.clone()
    }

    pub(super) fn stop(&mut self) -> Option<Waker> {
        self.stopped = true;
        self.service.take()
    }
}

impl Link {
    fn new(id: LinkId, wire: Option<Arc<Wire>>) -> Self {
        Self { id, wire, queue: VecDeque::new(), offset: 0, writing: false, blocked: false, closed: false, waker: None }
    }

    fn is_broken(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.flags.load(Ordering::Acquire) & (BROKEN | KILLED) != 0)
    }

    /// Sets a flag and has the link's task look at it.
    fn raise<M: Machine>(&mut self, flags: u8, round: &mut Round<M>) {
        if let Some(wire) = &self.wire {
            wire.flags.fetch_or(flags, Ordering::AcqRel);
        }
        round.wakes.extend(self.waker.clone());
    }
}

fn find<'a>(accepted: &'a mut [Slot], dialled: &'a mut [Link], id: LinkId) -> Option<&'a mut Link> {
    if id.is_dialled() {
        dialled.iter_mut().find(|link| link.id == id)
    } else {
        accepted.get_mut(id.index()).and_then(|slot| slot.link.as_mut()).filter(|link| link.id == id)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};
    use std::task::{Context, Poll};

    use commipc_protocol::{Deadline, Peer, Transport as Kind};

    use super::*;

    /// Gives the outputs it holds.
    struct Says(VecDeque<Output<()>>);

    impl Machine for Says {
        type Command = ();
        type Event = ();

        fn handle_input(&mut self, _: Now, _: Input<()>) {}

        fn poll_output(&mut self) -> Option<Output<()>> {
            self.0.pop_front()
        }

        fn poll_timeout(&self) -> Option<Deadline> {
            None
        }
    }

    /// A peer that neither says nor reads anything.
    struct Silence;

    impl Transport for Silence {
        fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn try_write_vectored(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn shutdown(&self) {}
    }

    fn take(core: &mut Core<Says>, count: usize) -> Vec<Arc<Wire>> {
        let connection = || Connection { transport: Arc::new(Silence), peer: Peer::unknown(Kind::Unix) };
        (0..count).map(|_| core.accepted(connection(), Now::default())).collect()
    }

    fn close(core: &mut Core<Says>, round: &mut Round<Says>, wires: &[Arc<Wire>], flush: Flush) {
        core.machine.0.extend(wires.iter().map(|wire| Output::Close { link: wire.id, flush }));
        core.drain(round, true);
    }

    fn killed(wires: &[Arc<Wire>]) -> Vec<usize> {
        let flags = wires.iter().map(|wire| wire.flags.load(Ordering::Acquire));
        flags.enumerate().filter(|(_, flags)| flags & KILLED != 0).map(|(index, _)| index).collect()
    }

    #[test]
    fn closing_links_are_few_and_strangers_go_first_then_the_oldest() {
        let (mut core, mut round) = (Core::new(Says(VecDeque::new())), Round::default());
        let members = take(&mut core, LINGERING);
        let strangers = take(&mut core, 100);
        close(&mut core, &mut round, &members[..LINGERING - 10], Flush::Read);
        close(&mut core, &mut round, &strangers, Flush::Written);
        assert_eq!((killed(&members), killed(&strangers).len()), (vec![], 90));
        // Who is over makes room.
        core.ended(members[0].id, None, &mut round, Now::default());
        close(&mut core, &mut round, &members[LINGERING - 10..], Flush::Read);
        assert_eq!((killed(&members), killed(&strangers).len()), (vec![], 99));
        let late = take(&mut core, 4);
        close(&mut core, &mut round, &late, Flush::Read);
        assert_eq!((killed(&members), killed(&strangers).len()), (vec![1, 2, 3], 100));
        core.end_lingering(0, &mut round);
        assert_eq!((killed(&members).len(), killed(&late).len()), (LINGERING - 1, 4));
    }
}
