//! The hub: every link's session, and the router that everything shared goes through.
//!
//! ```text
//!            bytes                frames                     names, routes
//!  link ──► Session ──► proof? ──► router ──► Registry   who provides, who listens
//!                                    │  └───► Calls      which exchange is whose
//!                                    ▼
//!                                 Outbox of every touched link ──► ready list ──► bytes
//! ```
//! The cost of an input grows with what it touches, never with how many links, channels or members there are.

mod api;
mod calls;
mod conversation;
mod fanout;
mod links;
mod registry;
mod session;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

pub use api::*;
use calls::Calls;
use links::Links;
use registry::{LinkIx, Registry};
use session::{Identity, Session};

use crate::auth::Credentials;
use crate::error::{Refusal, Violation};
use crate::hash::{Keyed, Map};
use crate::limits::Limits;
use crate::machine::{Input, LinkEnd, LinkId, Machine, Output, Peer};
use crate::names::{ClientId, HubId};
use crate::seed::{Purpose, Seed, Stream};
use crate::slots::Key;
use crate::time::{Deadline, Now, TimerReason};
use crate::timers::Timers;
use crate::wire::Pool;

/// The coordinator all clients connect to.
#[derive(Debug)]
pub struct Hub {
    id: HubId,
    boot: [u8; 16],
    credentials: Credentials,
    limits: Limits,
    now: Now,
    links: Links,
    clients: Map<ClientId, LinkIx>,
    registry: Registry,
    calls: Calls,
    timers: Timers<Due>,
    /// Links with something to send, each once.
    ready: VecDeque<LinkIx>,
    /// Links to be ended when the input at hand is done with.
    doomed: Vec<(LinkIx, DisconnectReason)>,
    outputs: VecDeque<Output<Event>>,
    pool: Pool,
    nonces: Stream,
    hash: Keyed,
    sessions: u64,
    counters: Counters,
    stopping: bool,
}

/// What falls due at a hub.
#[derive(Clone, Copy, Debug)]
enum Due {
    Handshake(LinkId),
    PartialFrame(LinkId),
    Call(Key),
}

impl Hub {
    /// A hub without links.
    #[must_use]
    pub fn new(config: HubConfig, seed: &Seed) -> Self {
        let mut identity = seed.stream(Purpose::Identity);
        let made_up = identity.u64();
        let boot = identity.bytes();
        let hash = Keyed::new(&mut seed.stream(Purpose::HashKeys));
        Self {
            id: config.id.unwrap_or_else(|| HubId::made_up(&format!("hub-{made_up:016x}"))),
            boot,
            credentials: config.credentials,
            limits: config.limits,
            now: Now::default(),
            links: Links::default(),
            clients: hash.map(),
            registry: Registry::new(hash),
            calls: Calls::default(),
            timers: Timers::new(),
            ready: VecDeque::new(),
            doomed: Vec::new(),
            outputs: VecDeque::new(),
            pool: Pool::default(),
            nonces: seed.stream(Purpose::Handshake),
            hash,
            sessions: 0,
            counters: Counters::default(),
            stopping: false,
        }
    }

    /// The hub's id.
    #[must_use]
    pub const fn id(&self) -> &HubId {
        &self.id
    }

    /// Running totals.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What the hub holds at the moment.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            links: self.links.len(),
            clients: self.clients.len(),
            channels: self.registry.len(),
            calls: self.calls.len(),
        }
    }
}

impl Machine for Hub {
    type Command = Command;
    type Event = Event;

    fn handle_input(&mut self, now: Now, input: Input<Command>) {
        self.now = Now { mono: self.now.mono.max(now.mono), wall: now.wall };
        match input {
            Input::Accepted { link, peer } => self.handle_accepted(link, peer),
            // A hub dials nobody.
            Input::Dialled { link, .. } => self.outputs.push_back(Output::Close { link, flush: false }),
            Input::Received { link, data } => self.handle_received(link, data),
            Input::Written { link, bytes } => self.handle_written(link, bytes),
            Input::Closed { link, how } => self.handle_closed(link, how),
            Input::Command(Command::SetCredentials(credentials)) => self.credentials = credentials,
            Input::Command(Command::Shutdown) => self.handle_shutdown(),
            Input::Timeout => self.handle_timeout(),
        }
        while let Some((ix, why)) = self.doomed.pop() {
            self.end_link(ix, why);
        }
        if self.stopping && self.links.len() == 0 {
            self.stopping = false;
            self.event(Event::Stopped);
        }
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        while let Some(&ix) = self.ready.front() {
            if let Some(session) = self.links.get_mut(ix) {
                if session.outbox.in_flight() < self.limits.in_flight {
                    fanout::acknowledge(session, &mut self.pool);
                }
                if let Some(data) = session.outbox.pop(self.limits.in_flight) {
                    return Some(Output::Transmit { link: session.link, data });
                }
                session.ready = false;
            }
            self.ready.pop_front();
        }
        None
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.timers.next()
    }
}

impl Hub {
    fn handle_accepted(&mut self, link: LinkId, peer: Peer) {
        if self.links.len() >= self.limits.connections || link.is_dialled() {
            self.outputs.push_back(Output::Close { link, flush: false });
            self.event(Event::Rejected { link, why: DisconnectReason::Refused(Refusal::TooManyConnections) });
            return;
        }
        if self.links.strangers().len() >= self.limits.unauthenticated
            && let Some(least) = self.links.least_deserving_stranger()
        {
            self.end_link(least, DisconnectReason::Refused(Refusal::TooManyConnections));
        }
        let mut session = Session::new(link, peer, &self.limits);
        let due = self.now.mono + self.limits.handshake;
        session.handshake_timer = Some(self.timers.insert(due, TimerReason::Handshake, Due::Handshake(link)));
        if let Some(ix) = self.links.insert(session)
            && self.stopping
        {
            self.doomed.push((ix, DisconnectReason::Refused(Refusal::ShuttingDown)));
        }
    }

    fn handle_received(&mut self, link: LinkId, mut data: Bytes) {
        let Some(ix) = self.links.find(link) else { return };
        if let Some(session) = self.links.get_mut(ix) {
            session.received = session.received.saturating_add(data.len() as u64);
        }
        loop {
            // A frame may have ended the link it came on.
            let Some(session) = self.links.get_mut(ix).filter(|session| session.link == link) else { return };
            let frame = match session.inbox.next(&mut data) {
                Ok(Some(frame)) => frame,
                Ok(None) => return self.watch_partial_frame(ix),
                Err(violation) => return self.end_link(ix, DisconnectReason::Violation(violation)),
            };
            if let Err(why) = self.handle_frame(ix, &frame) {
                return self.end_link(ix, why);
            }
        }
    }

    fn handle_written(&mut self, link: LinkId, bytes: usize) {
        let Some(ix) = self.links.find(link) else { return };
        if let Some(session) = self.links.get_mut(ix) {
            session.outbox.written(&mut self.pool, bytes);
            if session.outbox.waiting() > 0 || session.member().is_some_and(|member| member.ack_due) {
                self.mark_ready(ix);
            }
        }
    }

    fn handle_closed(&mut self, link: LinkId, how: LinkEnd) {
        match how {
            LinkEnd::Eof | LinkEnd::Reset | LinkEnd::Refused | LinkEnd::Denied | LinkEnd::Unreachable => {}
        }
        if let Some(ix) = self.links.find(link)
            && let Some(session) = self.links.remove(ix)
        {
            self.forget(ix, session, DisconnectReason::Lost);
        }
    }

    fn handle_shutdown(&mut self) {
        self.stopping = true;
        let reason = DisconnectReason::Refused(Refusal::ShuttingDown);
        self.doomed.extend(self.links.indices().map(|ix| (ix, reason)));
    }

    fn handle_timeout(&mut self) {
        while let Some(due) = self.timers.expire(self.now.mono) {
            match due {
                Due::Handshake(link) => self.end_late(link, Violation::HandshakeTimeout),
                Due::PartialFrame(link) => self.end_late(link, Violation::PartialFrame),
                Due::Call(key) => self.call_expired(key),
            }
        }
    }

    fn end_late(&mut self, link: LinkId, violation: Violation) {
        if let Some(ix) = self.links.find(link) {
            self.end_link(ix, DisconnectReason::Violation(violation));
        }
    }

    /// Starts or stops the clock for the rest of a frame.
    fn watch_partial_frame(&mut self, ix: LinkIx) {
        let Some(session) = self.links.get_mut(ix) else { return };
        match (session.inbox.is_partial(), session.partial_timer) {
            (true, None) => {
                let due = self.now.mono + self.limits.partial_frame;
                let timer = self.timers.insert(due, TimerReason::PartialFrame, Due::PartialFrame(session.link));
                session.partial_timer = Some(timer);
            }
            (false, Some(timer)) => {
                self.timers.cancel(timer);
                session.partial_timer = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn mark_ready(&mut self, ix: LinkIx) {
        if let Some(session) = self.links.get_mut(ix)
            && !session.ready
        {
            session.ready = true;
            self.ready.push_back(ix);
        }
    }

    /// Ends a link if more waits for it than it may leave unread.
    fn check_outbox(&mut self, ix: LinkIx) {
        self.mark_ready(ix);
        if let Some(session) = self.links.get(ix)
            && session.outbox.waiting() > self.limits.outbox
        {
            self.doomed.push((ix, DisconnectReason::Refused(Refusal::SlowConsumer)));
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
