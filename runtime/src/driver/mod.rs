//! The one driver: moves bytes and time between a machine and a runtime, for every kind of machine.
//!
//! ```text
//!            ┌── locked ──────────────┐   ┌── unlocked ──────────────────────┐
//!  bytes ──► │ feed, drain: bytes to  │──►│ tell the application, write to   │──► sockets
//!  time  ──► │ the links' queues,     │   │ each touched link once, wake,    │
//!  asks  ──► │ events to one queue    │◄──│ dial, close; what is left        │
//!            └────────────────────────┘   └──────────────────────────────────┘
//! ```
//!
//! Whoever brings an input (the task that reads a link, a caller, the timer) runs this loop itself, so that a message
//! crosses a hub without a wake-up. A link's queue is written by one task at a time: bytes never overtake each other.
//! What a socket refuses waits for that link's own task. Events are delivered by one task at a time, in order.

mod accept;
mod core;
mod link;
mod round;
mod service;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::time::Duration;

use commipc_protocol::{Input, Instant, LinkEnd, LinkId, Machine, Now, Peer};

use self::core::Core;
use self::link::LinkTask;
use self::round::Round;
use crate::endpoint::Endpoint;
use crate::inside::Inside;
use crate::local;
use crate::runtime::{Acceptor, Connection, Runtime};
use crate::sync::lock;

/// Where a machine's events go.
pub(crate) trait Sink<M: Machine>: Sized + Send + Sync + 'static {
    /// Whether application tasks wait for events: their next commands are then worth collecting into one write.
    const HAS_CALLERS: bool;

    /// Takes every event, in order, without any lock held. `replies` are fed back at once.
    ///
    /// Returns how many waiting callers were served.
    fn deliver(driver: &Arc<Driver<M, Self>>, events: &mut VecDeque<M::Event>, replies: &mut Vec<M::Command>) -> usize;

    /// Until when nothing more is to be read, unless `waker` is woken before.
    fn held(&self, _runtime: &dyn Runtime, _waker: &Waker) -> Option<Instant> {
        None
    }

    /// Keeps the system's own words on a failed dial, which the machine does not carry.
    fn dial_failed(&self, error: io::Error);
}

/// A machine with its links, timer and commands.
pub(crate) struct Driver<M: Machine, S> {
    me: Weak<Self>,
    runtime: Arc<dyn Runtime>,
    sink: S,
    core: Mutex<Core<M>>,
    inbox: Mutex<Inbox<M::Command>>,
    inbox_left: AtomicBool,
    accepting: accept::Accepting,
}

/// Commands on their way into the machine. While `busy`, somebody has promised to feed what is added.
struct Inbox<C> {
    list: Vec<C>,
    busy: bool,
}

/// Between two attempts to find a place in a listener's queue.
const REDIAL: Duration = Duration::from_millis(5);
/// How often one caller goes round before it leaves the rest to the tasks concerned.
const TURNS: usize = 16;

/// What came of running the loop.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// Callers that were served.
    served: usize,
    /// Events that wait for another task to deliver them.
    backlog: usize,
}

impl<M, S> Driver<M, S>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    S: Sink<M>,
{
    /// Drives a machine from now on, until [`Driver::stop`].
    pub(crate) fn start(runtime: Arc<dyn Runtime>, machine: M, sink: S) -> Arc<Self> {
        let driver = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            runtime,
            sink,
            core: Mutex::new(Core::new(machine)),
            inbox: Mutex::new(Inbox { list: Vec::new(), busy: false }),
            inbox_left: AtomicBool::new(false),
            accepting: accept::Accepting::default(),
        });
        driver.runtime.spawn(Box::pin(service::Service::new(Arc::clone(&driver))));
        driver
    }

    /// Shows itself to the runtime.
    pub(crate) fn told(&self)
    where
        Self: Inside,
    {
        self.runtime.begun(Weak::clone(&self.me) as Weak<dyn Inside>);
    }

    pub(crate) fn sink(&self) -> &S {
        &self.sink
    }

    /// Looks at the machine.
    pub(crate) fn with_machine<R>(&self, look: impl FnOnce(&M) -> R) -> R {
        look(&lock(&self.core).machine)
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// Hands a command to the machine; returns without waiting for anything but other tasks' turns at it.
    ///
    /// Events that follow are delivered by another task, so that no handler runs inside a caller.
    pub(crate) fn issue(&self, command: M::Command) {
        {
            let mut inbox = lock(&self.inbox);
            inbox.list.push(command);
            if mem::replace(&mut inbox.busy, true) {
                return;
            }
        }
        self.work_inbox(false);
    }

    /// Hands over several commands at once, which the machine has carried out before anything is written.
    pub(crate) fn issue_all(&self, commands: &mut Vec<M::Command>) {
        if commands.is_empty() {
            return;
        }
        {
            let mut inbox = lock(&self.inbox);
            inbox.list.append(commands);
            if mem::replace(&mut inbox.busy, true) {
                return;
            }
        }
        self.work_inbox(false);
    }

    /// Takes connections from a listener until [`Driver::stop_accepting`].
    pub(crate) fn accept_from(self: &Arc<Self>, acceptor: Box<dyn Acceptor>) {
        self.runtime.spawn(Box::pin(accept::AcceptLoop::new(Arc::clone(self), acceptor)));
    }

    /// Closes every listener.
    pub(crate) fn stop_accepting(&self) {
        self.accepting.stop();
    }

    /// Asks the machine something.
    pub(crate) fn look<T>(&self, ask: impl FnOnce(&M) -> T) -> T {
        ask(&lock(&self.core).machine)
    }

    /// Waits until every listener is closed: another hub may have its place.
    pub(crate) async fn listeners_closed(&self) {
        poll_fn(|cx| self.accepting.poll_closed(cx)).await;
    }

    /// Ends the timer's task. The machine still answers commands.
    pub(crate) fn stop(&self) {
        let waker = lock(&self.core).stop();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until no link is left: what was transmitted before they were closed is written, or cannot be.
    pub(crate) async fn links_over(&self) {
        poll_fn(|cx| lock(&self.core).poll_empty(cx.waker())).await;
    }

    fn now(&self) -> Now {
        Now { mono: self.runtime.now(), wall: self.runtime.wall() }
    }

    /// The loop of the picture above. Only a task that may run handlers sets `may_deliver`.
    fn pump(&self, may_deliver: bool, feed: impl FnOnce(&mut Core<M>, &mut Round<M>, Now)) -> Progress {
        let now = self.now();
        let mut progress = Progress::default();
        let mut round = {
            let mut core = lock(&self.core);
            let mut round = core.take_round();
            feed(&mut core, &mut round, now);
            core.drain(&mut round, may_deliver);
            progress.backlog = core.backlog();
            if round.is_idle() {
                core.keep_round(round);
                return progress;
            }
            round
        };
        for _ in 0..TURNS {
            progress.served += self.carry_out(&mut round);
            let mut core = lock(&self.core);
            core.settle(&mut round, now);
            core.drain(&mut round, may_deliver);
            progress.backlog = core.backlog();
            if round.is_idle() {
                core.keep_round(round);
                return progress;
            }
        }
        lock(&self.core).hand_over(&mut round);
        self.carry_out(&mut round);
        lock(&self.core).keep_round(round);
        progress
    }

    /// The unlocked half: user code, wakers, system calls.
    fn carry_out(&self, round: &mut Round<M>) -> usize {
        let mut served = 0;
        if !round.events.is_empty()
            && let Some(me) = self.me.upgrade()
        {
            served = S::deliver(&me, &mut round.events, &mut round.commands);
        }
        for (link, to) in round.dials.drain(..) {
            self.dial(link, &to);
        }
        for flight in &mut round.flights {
            flight.write();
        }
        for waker in round.wakes.drain(..) {
            waker.wake();
        }
        round.garbage.clear();
        round.dead.clear();
        served
    }

    /// Feeds commands until none is left, having set `busy`.
    fn work_inbox(&self, may_deliver: bool) {
        for _ in 0..TURNS {
            self.pump(may_deliver, |core, _, now| self.feed_inbox(core, now));
            if self.release_inbox() {
                return;
            }
        }
        // Others keep adding: a caller has its own work to do.
        self.inbox_left.store(true, Ordering::Release);
        let waker = lock(&self.core).service_waker();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn feed_inbox(&self, core: &mut Core<M>, now: Now) {
        let mut list = mem::take(&mut core.spare_commands);
        mem::swap(&mut list, &mut lock(&self.inbox).list);
        for command in list.drain(..) {
            core.machine.handle_input(now, Input::Command(command));
        }
        core.spare_commands = list;
    }

    /// Promises to feed commands that come from now on, unless somebody else has.
    fn claim_inbox(&self) -> bool {
        S::HAS_CALLERS && !mem::replace(&mut lock(&self.inbox).busy, true)
    }

    /// Takes the promise back, which only works while nothing was added.
    fn release_inbox(&self) -> bool {
        let mut inbox = lock(&self.inbox);
        inbox.busy = !inbox.list.is_empty();
        !inbox.busy
    }

    fn dial(&self, link: LinkId, to: &str) {
        let Some(me) = self.me.upgrade() else { return };
        let endpoint = to.parse::<Endpoint>().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e));
        self.runtime.spawn(Box::pin(async move {
            let dialled = match endpoint {
                Ok(endpoint) => me.dial_endpoint(link, endpoint).await,
                Err(error) => Err(error),
            };
            match dialled.and_then(refuse_foreign) {
                Ok(connection) => {
                    if let Some(task) = me.attach_dialled(link, connection) {
                        task.await;
                    }
                }
                Err(error) => {
                    let how = link_end(&error);
                    me.sink.dial_failed(error);
                    me.pump(true, |core, round, now| core.ended(link, Some(how), round, now));
                }
            }
        }));
    }

    /// Dials until the listener has room for one more, or the machine wants the link no longer.
    async fn dial_endpoint(&self, link: LinkId, to: Endpoint) -> io::Result<Connection> {
        loop {
            let dialled = self.runtime.dial(to.clone()).await;
            // Of Unix sockets the system says so at once instead of waiting.
            let is_full = dialled.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if !is_full || !lock(&self.core).is_wanted(link) {
                return dialled;
            }
            self.runtime.sleep_until(self.runtime.now() + REDIAL).await;
        }
    }

    fn attach_dialled(self: &Arc<Self>, link: LinkId, connection: Connection) -> Option<LinkTask<M, S>> {
        let mut wire = None;
        self.pump(true, |core, _, now| wire = core.dialled(link, connection, now));
        wire.map(|wire| LinkTask::new(Arc::clone(self), wire))
    }

    /// Takes a connection, unless it is another user's.
    pub(crate) fn attach(self: &Arc<Self>, connection: Connection) {
        match refuse_foreign(connection) {
            Ok(connection) => self.accepted(connection),
            Err(error) => tracing::warn!(%error, "refused a connection"),
        }
    }

    fn accepted(self: &Arc<Self>, connection: Connection) {
        let mut wire = None;
        self.pump(true, |core, _, now| wire = Some(core.accepted(connection, now)));
        if let Some(wire) = wire {
            self.runtime.spawn(Box::pin(LinkTask::new(Arc::clone(self), wire)));
        }
    }

    fn register(&self, link: LinkId, waker: &Waker) {
        lock(&self.core).register(link, waker);
    }
}

/// A Unix peer of another user is no peer, whatever it can prove.
fn refuse_foreign(connection: Connection) -> io::Result<Connection> {
    if local::is_foreign(&connection.peer) {
        let Peer { uid, .. } = connection.peer;
        let text = format!("the other side runs as user {}, not as this one", uid.unwrap_or_default());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(connection)
}

fn link_end(error: &io::Error) -> LinkEnd {
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) {
        LinkEnd::Refused
    } else if kind == io::ErrorKind::PermissionDenied {
        LinkEnd::Denied
    } else {
        LinkEnd::Unreachable
    }
}
