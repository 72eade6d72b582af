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

mod afar;
mod announced;
mod api;
mod bridging;
mod calls;
mod changes;
mod clearing;
mod conversation;
mod crossing;
mod doubles;
mod drain;
mod fanout;
mod guard;
mod heartbeat;
mod homes;
mod joining;
mod links;
mod listing;
mod loops;
mod mirrors;
mod ownership;
mod questions;
mod registry;
mod remembered;
mod routes;
mod session;
mod shares;
mod slow;
mod state;
mod streams;
mod system;
mod takeover;
mod throttle;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

pub use api::*;
use bridging::Bridges;
use calls::Calls;
use changes::Changes;
pub(crate) use crossing::LATE;
use drain::Drain;
use links::Links;
use registry::{ChannelIx, LinkIx, Registry};
use session::{Identity, Session};
pub use state::{StateError, StoredChannel, StoredHub};
use system::Spoken;
pub use system::{ERRORS_CHANNEL, LOGS_CHANNEL, SYSTEM_CHANNEL, SystemPassword};
use throttle::{Source, Throttle};

use crate::auth::Credentials;
use crate::error::{Refusal, Violation};
use crate::hash::{Keyed, Map};
use crate::limits::{FRAME_CAP, Limits};
use crate::machine::{Flush, Input, LinkEnd, LinkId, Machine, Output, Peer, READ_BUFFER};
use crate::names::{ClientId, CredentialId, HubId};
use crate::policy::OwnerPolicy;
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
    /// How many channels each credential has protected.
    records: BTreeMap<CredentialId, usize>,
    /// How many names each credential makes the hub remember.
    names: BTreeMap<CredentialId, usize>,
    calls: Calls,
    bridges: Bridges,
    changes: Changes,
    timers: Timers<Due>,
    /// Links with something to send, each once.
    ready: VecDeque<LinkIx>,
    /// Links to be ended when the input at hand is done with.
    doomed: Vec<(LinkIx, DisconnectReason)>,
    /// Links that have begun to read too slowly and that nobody was told of.
    slowed: Vec<LinkIx>,
    outputs: VecDeque<Output<Event>>,
    pool: Pool,
    /// Scratch space for a frame that many links get.
    image: BytesMut,
    /// Bytes of memory that the beginnings of frames take.
    partials: usize,
    spoken: Spoken,
    throttle: Throttle,
    nonces: Stream,
    /// For joins and offers.
    channel_nonces: Stream,
    owner_policy: OwnerPolicy,
    hash: Keyed,
    sessions: u64,
    pings: u64,
    counters: Counters,
    drain: Option<Drain>,
    /// No link is taken any more.
    stopping: bool,
    /// All are gone, and that was told.
    stopped: bool,
}

/// What falls due at a hub.
#[derive(Clone, Copy, Debug)]
enum Due {
    Handshake(LinkId),
    LoginFailed(LinkId),
    PartialFrame(LinkId),
    Write(LinkId),
    Heartbeat(LinkId),
    Join(LinkId, u64),
    JoinFailed(LinkId, u64),
    Ownership(ChannelIx),
    Summary,
    Doubles,
    Errand(u64),
    Call(Key),
    Drain,
}

/// What a link takes beside its frames: its session, timers, names and places in tables. Measured, and rounded up.
const LINK_SIZE: usize = 2 << 10;
/// More unread than this costs a link its place when the hub is full.
const MUCH: usize = 16 << 10;
/// What a call takes: its slot, its timer and its place in the caller's table.
const CALL_SIZE: usize = 256;

impl Hub {
    /// A hub without links.
    #[must_use]
    pub fn new(config: HubConfig, seed: &Seed) -> Self {
        let mut identity = seed.stream(Purpose::Identity);
        let made_up = identity.u64();
        let boot = identity.bytes();
        let hash = Keyed::new(&mut seed.stream(Purpose::HashKeys));
        let mut limits = config.limits;
        limits.frame = limits.frame.min(FRAME_CAP);
        Self {
            id: config.id.unwrap_or_else(|| HubId::made_up(&format!("hub-{made_up:016x}"))),
            boot,
            credentials: config.credentials,
            limits,
            now: Now::default(),
            links: Links::default(),
            clients: hash.map(),
            registry: Registry::new(hash),
            records: BTreeMap::new(),
            names: BTreeMap::new(),
            calls: Calls::default(),
            bridges: Bridges::new(hash),
            changes: Changes::default(),
            timers: Timers::new(),
            ready: VecDeque::new(),
            doomed: Vec::new(),
            slowed: Vec::new(),
            outputs: VecDeque::new(),
            pool: Pool::default(),
            image: BytesMut::new(),
            partials: 0,
            spoken: Spoken::default(),
            throttle: Throttle::default(),
            nonces: seed.stream(Purpose::Handshake),
            channel_nonces: seed.stream(Purpose::Channels),
            owner_policy: config.owner_policy,
            hash,
            sessions: 0,
            pings: 0,
            counters: Counters::default(),
            drain: None,
            stopping: false,
            stopped: false,
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
        let members = || self.clients.values().filter_map(|ix| self.links.get(*ix)?.member());
        Load {
            links: self.links.len(),
            clients: self.clients.len(),
            channels: self.registry.len(),
            calls: self.calls.len(),
            routes: members().map(|member| member.calls.len()).sum(),
            streams: members().map(|member| member.streams).sum(),
            deadlines: self.timers.count(TimerReason::Call),
            joins: members().map(|member| member.joins.len()).sum(),
            bridged: self.bridges.running.len(),
            errands: self.bridges.errands.len(),
            announced: self.bridges.announced(),
            buffered: self.buffered(),
            memory: self.memory(),
        }
    }

    /// What the hub holds for its links, in bytes: frames as they are, tables as estimated.
    fn memory(&self) -> usize {
        let tables = self.links.len() * LINK_SIZE + self.calls.len() * CALL_SIZE + self.registry.size();
        self.buffered() + self.changes.retained() + tables + self.bridges.size()
    }

    fn buffered(&self) -> usize {
        self.pool.retained() + self.partials
    }

    /// Whether nothing more may be taken on.
    fn is_full(&self) -> bool {
        self.memory() >= self.limits.memory
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
            Input::Dialled { link, .. } => self.outputs.push_back(Output::Close { link, flush: Flush::Nothing }),
            Input::Received { link, data } => self.handle_received(link, data),
            Input::Written { link, bytes } => self.handle_written(link, bytes),
            Input::Closed { link, how } => self.handle_closed(link, how),
            Input::Shortage => self.handle_shortage(),
            Input::Command(Command::SetCredentials(credentials)) => self.credentials = credentials,
            Input::Command(Command::SetSystemPassword(password)) => self.handle_system_password(&password),
            Input::Command(Command::Restore(channels)) => self.handle_restore(channels),
            Input::Command(Command::Stored { ticket, durable }) => self.handle_stored(ticket, durable),
            Input::Command(Command::Drain { time }) => self.handle_drain(time),
            Input::Command(Command::Shutdown) => self.handle_shutdown(),
            Input::Timeout => self.handle_timeout(),
        }
        self.follow_up();
        if self.stopping && !self.stopped && self.links.len() == 0 {
            self.stopped = true;
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
                let idle = session.outbox.in_flight() == 0;
                if let Some(data) = session.outbox.pop(self.limits.in_flight) {
                    if idle {
                        session.stalled_since = self.now.mono;
                    }
                    // Armed once and looked at when it fires: a link that writes all the time costs no timer a message.
                    if session.write_timer.is_none() {
                        let due = session.stalled_since + self.limits.write;
                        let timer = self.timers.insert(due, TimerReason::Write, Due::Write(session.link));
                        session.write_timer = Some(timer);
                    }
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
        if self.links.len() >= self.limits.connections || self.is_full() || link.is_dialled() {
            self.outputs.push_back(Output::Close { link, flush: Flush::Nothing });
            self.event(Event::Rejected { link, why: DisconnectReason::Refused(Refusal::TooManyConnections) });
            return;
        }
        let mut session = Session::new(link, peer, &self.limits);
        self.make_room(session.source);
        let due = self.now.mono + self.limits.handshake;
        session.handshake_timer = Some(self.timers.insert(due, TimerReason::Handshake, Due::Handshake(link)));
        if let Some(ix) = self.links.insert(session)
            && self.is_closing()
        {
            self.doomed.push((ix, DisconnectReason::Refused(Refusal::ShuttingDown)));
        }
    }

    /// Closes a stranger that says less than others, where there are as many as there may be.
    fn make_room(&mut self, source: Source) {
        let of_source = match source {
            Source::Local => None,
            Source::Network(_) => Some((Some(source), self.limits.unauthenticated_per_source)),
        };
        for (of, most) in of_source.into_iter().chain([(None, self.limits.unauthenticated)]) {
            if self.links.strangers(of) >= most
                && let Some(least) = self.links.least_deserving_stranger(of)
            {
                self.end_link(least, DisconnectReason::Refused(Refusal::TooManyConnections));
            }
        }
    }

    /// Gives up half of the places of strangers for those who wait outside, the silent and the oldest first.
    fn handle_shortage(&mut self) {
        for _ in 0..self.links.strangers(None).div_ceil(2) {
            if let Some(least) = self.links.least_deserving_stranger(None) {
                self.end_link(least, DisconnectReason::Refused(Refusal::TooManyConnections));
            }
        }
    }

    fn handle_received(&mut self, link: LinkId, mut data: Bytes) {
        let Some(ix) = self.links.find(link) else { return };
        if let Some(session) = self.links.get_mut(ix) {
            session.received = session.received.saturating_add(data.len() as u64);
            if let Some(member) = session.member_mut() {
                (member.heard, member.asked) = (self.now.mono, false);
            }
        }
        let mut whole = false;
        loop {
            // A frame may have ended the link it came on.
            let Some(session) = self.links.get_mut(ix).filter(|session| session.link == link) else { return };
            let before = session.inbox.retained();
            let next = session.inbox.next(&mut data);
            self.partials = self.partials + session.inbox.retained() - before;
            let frame = match next {
                Ok(Some(frame)) => frame,
                Ok(None) => return self.watch_partial_frame(ix, whole),
                Err(violation) => return self.end_link(ix, DisconnectReason::Violation(violation)),
            };
            whole = true;
            if let Err(why) = self.handle_frame(ix, &frame) {
                return self.end_link(ix, why);
            }
            // Before the next frame, since that may have come in another read.
            self.follow_up();
        }
    }

    /// What comes of whatever was done.
    fn follow_up(&mut self) {
        self.end_doomed();
        self.tell_changes();
        if self.drain.is_some() {
            self.watch_drain();
            self.end_doomed();
        }
    }

    fn end_doomed(&mut self) {
        self.tell_slow();
        while let Some((ix, why)) = self.doomed.pop() {
            self.end_link(ix, why);
        }
    }

    fn handle_written(&mut self, link: LinkId, bytes: usize) {
        let Some(ix) = self.links.find(link) else { return };
        self.check_late(ix, bytes);
        if let Some(session) = self.links.get_mut(ix) {
            session.outbox.written(&mut self.pool, bytes);
            session.stalled_since = self.now.mono;
            session.recovers(&self.limits);
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
        self.end_drain();
        self.cut_calls();
        self.stopping = true;
        let reason = DisconnectReason::Refused(Refusal::ShuttingDown);
        self.doomed.extend(self.links.indices().map(|ix| (ix, reason)));
    }

    fn handle_timeout(&mut self) {
        while let Some(due) = self.timers.expire(self.now.mono) {
            match due {
                Due::Handshake(link) => self.end_late(link, Violation::HandshakeTimeout.into()),
                Due::LoginFailed(link) => self.end_late(link, DisconnectReason::Refused(Refusal::AuthFailed)),
                Due::PartialFrame(link) => self.check_partial(link),
                Due::Write(link) => self.check_stalled(link),
                Due::Heartbeat(link) => self.heartbeat_due(link),
                Due::Join(link, id) => self.join_expired(link, id),
                Due::JoinFailed(link, id) => self.join_refused(link, id),
                Due::Ownership(channel) => self.ownership_due(channel),
                Due::Summary => self.summarise(),
                Due::Doubles => self.doubles_due(),
                Due::Errand(number) => self.errand_due(number),
                Due::Call(key) => self.call_expired(key),
                Due::Drain => self.handle_shutdown(),
            }
        }
    }

    fn end_late(&mut self, link: LinkId, why: DisconnectReason) {
        if let Some(ix) = self.links.find(link) {
            self.end_link(ix, why);
        }
    }

    /// Ends a link whose driver gets rid of nothing, or looks again when that could be so.
    fn check_stalled(&mut self, link: LinkId) {
        let Some(session) = self.links.find(link).and_then(|ix| self.links.get_mut(ix)) else { return };
        session.write_timer = None;
        if session.outbox.in_flight() == 0 {
            return;
        }
        let due = session.stalled_since + self.limits.write;
        if due > self.now.mono {
            session.write_timer = Some(self.timers.insert(due, TimerReason::Write, Due::Write(link)));
        } else {
            self.end_late(link, DisconnectReason::Refused(Refusal::SlowConsumer));
        }
    }

    /// Ends a link whose frame does not become whole, or looks again when that could be so.
    fn check_partial(&mut self, link: LinkId) {
        let Some(session) = self.links.find(link).and_then(|ix| self.links.get_mut(ix)) else { return };
        let due = session.partial_since + self.limits.partial_frame;
        if due > self.now.mono {
            let timer = self.timers.insert(due, TimerReason::PartialFrame, Due::PartialFrame(link));
            session.partial_timer = Some(timer);
        } else {
            self.end_late(link, Violation::PartialFrame.into());
        }
    }

    /// Starts or stops the clock for the rest of a frame, which began in this read if another was `whole` before it.
    fn watch_partial_frame(&mut self, ix: LinkIx, whole: bool) {
        let full = self.is_full();
        let Some(session) = self.links.get_mut(ix) else { return };
        if full && session.inbox.retained() > READ_BUFFER {
            return self.end_link(ix, DisconnectReason::Refused(Refusal::Overloaded));
        }
        if whole || session.partial_timer.is_none() {
            session.partial_since = self.now.mono;
        }
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
        let Some(session) = self.links.get_mut(ix) else { return };
        if session.slows(&self.limits) {
            self.slowed.push(ix);
        }
        let waiting = session.outbox.waiting();
        if waiting > self.limits.outbox {
            self.doomed.push((ix, DisconnectReason::Refused(Refusal::SlowConsumer)));
        } else if waiting > MUCH && self.is_full() {
            self.doomed.push((ix, DisconnectReason::Refused(Refusal::Overloaded)));
        }
    }
}
