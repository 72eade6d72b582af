//! The client: one link to one hub, and everything an application has open over it.
//!
//! ```text
//!  Idle ──Connect──► Dialling ──HELLO──► Challenged ──PROOF──► Proving ──server proof──► Ready
//!   ▲                                        │ password: KeyDerived                        │
//!   └───────────────────────── Closed ◄──────┴──────────── link lost, refusal, violation ◄─┘
//! ```
//! Every command with a token ends in exactly one event with that token, whatever becomes of the link.

mod afar;
mod api;
mod beacons;
mod calls;
mod channels;
mod drain;
mod familiar;
mod flow;
mod guarding;
mod handshake;
mod heartbeat;
mod kind;
mod messages;
mod numbers;
mod order;
mod owning;
mod parked;
mod places;
mod reconnect;
mod registering;
mod relay;
mod restore;
mod seal;
#[cfg(test)]
mod seal_model;
#[cfg(test)]
mod seal_tests;
mod serving;
mod speaking;
mod stream_api;
mod streams;
mod takeover;
mod window;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;

use bytes::{Bytes, BytesMut};

pub use api::*;
use calls::Pending;
use channels::{ChannelIx, Channels, Control};
pub use drain::DrainCommand;
use drain::Drains;
use familiar::Familiar;
pub use guarding::{Access, ChannelSalt};
use handshake::{Cached, Phase};
pub use kind::EventKind;
use order::Order;
use parked::Parked;
use places::Place;
use reconnect::Tries;
pub use reconnect::{Reconnect, ReconnectEvent, Unrestored};
use relay::Relay;
use restore::Progress;
use serving::Serving;
use speaking::frame_len;
pub use stream_api::{Credit, StreamCommand, StreamEvent, StreamId};
use takeover::Takeovers;

use crate::error::{CloseReason, Misuse, Refusal, Violation};
use crate::hash::{Keyed, Map};
use crate::machine::{Flush, Input, LinkEnd, LinkId, Machine, Output};
use crate::names::{Address, ClientId};
use crate::seed::{Purpose, Seed, Stream};
use crate::slots::{Key, Slots};
use crate::time::{Deadline, Instant, Now, TimerReason};
use crate::timers::{TimerId, Timers};
use crate::wire::{Control as _, Frame, FrameType, Goodbye, Inbox, Outbox, Pong, Pool, Recent, Scraps};

/// One client of one hub.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    id: ClientId,
    instance: [u8; 16],
    now: Now,
    phase: Phase,
    /// The link of the phase, if it has one.
    link: Option<LinkId>,
    dials: u32,
    handshake_timer: Option<TimerId>,
    inbox: Inbox,
    /// Since when the rest of a frame is awaited, and what looks whether it came.
    partial_since: Instant,
    partial_timer: Option<TimerId>,
    outbox: Outbox,
    pool: Pool,
    timers: Timers<Due>,
    outputs: VecDeque<Output<Event>>,
    channels: Channels,
    /// Control requests without an answer, by number.
    controls: BTreeMap<u64, (Control, Option<TimerId>)>,
    control_ids: u64,
    calls: Slots<Pending>,
    /// Those of our calls that are streams.
    streams: Map<Token, Key>,
    /// Bytes that may be on their way to us in streams.
    windows: u64,
    /// Streams with something to send, each once, in the order of their turns.
    flowing: VecDeque<Place>,
    requests: u64,
    /// Sends and broadcasts the hub has not taken yet, by the position of their frames.
    sends: VecDeque<(u64, Token)>,
    /// Message frames sent on this link.
    frames_sent: u64,
    /// Requests our providers work on, by the hub's route numbers.
    serving: Map<u32, Serving>,
    served: u64,
    /// The last number of a reply on a channel that we know nothing of.
    strays: u64,
    /// Who spoke last: most often who speaks next.
    last_sender: Option<Address>,
    /// Whose broadcast or send came last.
    familiar: Option<Familiar>,
    order: Order,
    /// How the last call or answer began.
    recent: Recent,
    scraps: Scraps,
    cached: Option<Cached>,
    heard: crate::Instant,
    heartbeat: Option<TimerId>,
    /// Whether nothing was heard since the hub was asked.
    asked: bool,
    pings: u64,
    tries: Tries,
    redial: Option<TimerId>,
    /// How many of the channels that were lost are back.
    progress: Option<Progress>,
    /// Messages that wait for the connection.
    parked: VecDeque<Parked>,
    /// What all of it takes.
    parked_bytes: usize,
    parks: u64,
    drains: Drains,
    /// For the times between tries.
    waits: Stream,
    scratch: BytesMut,
    nonces: Stream,
    takeovers: Takeovers,
    takeover_secrets: Stream,
    /// For owner keys and joins.
    channel_keys: Stream,
    /// Of a bridge's client.
    relay: Option<Relay>,
}

/// What falls due at a client.
#[derive(Clone, Copy, Debug)]
enum Due {
    Handshake,
    PartialFrame,
    Control(u64),
    Beacon(ChannelIx),
    Call(Key),
    Serving(RequestId),
    Heartbeat,
    Redial,
    Restore(ChannelIx),
    /// What is not back by then is missing.
    Settled,
    Parked(u64),
    /// Of one provider, or of all.
    Drain(Option<Token>),
}

impl Client {
    /// A client that has not dialled yet.
    #[must_use]
    pub fn new(config: ClientConfig, seed: &Seed) -> Self {
        let mut identity = seed.stream(Purpose::Identity);
        let made_up = identity.u64() as u32;
        let instance = identity.bytes();
        let hash = Keyed::new(&mut seed.stream(Purpose::HashKeys));
        Self {
            inbox: Inbox::new(config.limits.handshake_frame),
            id: config.id.clone().unwrap_or_else(|| ClientId::made_up(&format!("cli-{made_up:08x}"))),
            config,
            instance,
            now: Now::default(),
            phase: Phase::Idle,
            link: None,
            dials: 0,
            handshake_timer: None,
            partial_since: Instant::ZERO,
            partial_timer: None,
            outbox: Outbox::default(),
            pool: Pool::default(),
            timers: Timers::new(),
            outputs: VecDeque::new(),
            channels: Channels::new(hash),
            controls: BTreeMap::new(),
            control_ids: 0,
            calls: Slots::default(),
            streams: hash.map(),
            windows: 0,
            flowing: VecDeque::new(),
            requests: 0,
            sends: VecDeque::new(),
            frames_sent: 0,
            serving: hash.map(),
            served: 0,
            strays: 0,
            last_sender: None,
            familiar: None,
            order: Order::default(),
            recent: Recent::default(),
            scraps: Scraps::default(),
            cached: None,
            heard: crate::Instant::ZERO,
            heartbeat: None,
            asked: false,
            pings: 0,
            tries: Tries::default(),
            redial: None,
            progress: None,
            parked: VecDeque::new(),
            parked_bytes: 0,
            parks: 0,
            drains: Drains::default(),
            waits: seed.stream(Purpose::Reconnect),
            scratch: BytesMut::new(),
            nonces: seed.stream(Purpose::Handshake),
            takeovers: Takeovers::default(),
            takeover_secrets: seed.stream(Purpose::Takeover),
            channel_keys: seed.stream(Purpose::Channels),
            relay: None,
        }
    }

    /// The own id.
    #[must_use]
    pub const fn id(&self) -> &ClientId {
        &self.id
    }

    /// What the client holds at the moment.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            calls: self.calls.len(),
            serving: self.serving.len(),
            controls: self.controls.len(),
            sends: self.sends.len(),
            streams: self.streams.len(),
            parked: self.parked.len(),
            parked_bytes: self.parked_bytes,
            // Within the limit on outboxes, so it fits.
            windows: self.windows as usize,
            flowing: self.flowing.len(),
            unwritten: self.outbox.outstanding(),
            deadlines: self.timers.count(TimerReason::Call),
        }
    }
}

impl Machine for Client {
    type Command = Command;
    type Event = Event;

    fn handle_input(&mut self, now: Now, input: Input<Command>) {
        self.now = Now { mono: self.now.mono.max(now.mono), wall: now.wall };
        match input {
            // A client listens nowhere.
            Input::Accepted { link, .. } => self.outputs.push_back(Output::Close { link, flush: Flush::Nothing }),
            Input::Dialled { link, peer } if self.link == Some(link) => self.handle_dialled(&peer),
            Input::Received { link, data } if self.link == Some(link) => self.handle_received(link, data),
            Input::Written { link, bytes } if self.link == Some(link) => {
                self.outbox.written(&mut self.pool, bytes);
                self.pump();
            }
            Input::Closed { link, how } if self.link == Some(link) => {
                let dialling = matches!(self.phase, Phase::Dialling);
                self.lose(if dialling { CloseReason::Unreachable(how) } else { CloseReason::Lost });
            }
            // Of a link that is no longer ours.
            Input::Dialled { link, .. } => self.outputs.push_back(Output::Close { link, flush: Flush::Nothing }),
            Input::Received { .. } | Input::Written { .. } | Input::Closed { .. } | Input::Shortage => {}
            Input::Command(command) => {
                if let Some(command) = self.turn_down_new(command) {
                    self.handle_command(command);
                }
                self.pump();
            }
            Input::Timeout => self.handle_timeout(),
        }
        self.watch_drains();
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let link = self.link?;
        let data = self.outbox.pop(self.config.limits.in_flight)?;
        Some(Output::Transmit { link, data })
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.timers.next()
    }
}

impl Client {
    fn handle_command(&mut self, command: Command) {
        let Some(command) = self.park(command) else { return };
        match command {
            Command::Connect => self.handle_connect(),
            Command::SetSecret(secret) => self.config.secret = secret,
            Command::KeyDerived(salted) => self.handle_key_derived(salted),
            Command::Open { token, channel, access } => self.handle_open(token, channel, access),
            Command::ChannelKeyDerived { channel, salt, master } => self.handle_channel_key(&channel, salt, &master),
            Command::ChannelKeyFailed { channel } => self.handle_channel_key_failed(&channel),
            Command::Protect { token, channel, salt, master } => self.handle_protect(token, &channel, salt, &master),
            Command::Unprotect { token, channel } => self.handle_unprotect(token, &channel),
            Command::Reclaim { token, channel } => self.handle_reclaim(token, &channel),
            Command::Terminate { token, channel } => self.handle_terminate(token, &channel),
            Command::SetOwnerKey(key) => self.handle_owner_key(key),
            Command::Leave { token, channel } => self.handle_leave(token, &channel),
            Command::Provide { token, channel, event, kind } => self.handle_provide(token, &channel, event, kind),
            Command::Withdraw { token, provider } => self.handle_withdraw(token, provider),
            Command::Listen { token, channel, event } => self.handle_listen(token, &channel, event),
            Command::Unlisten { token, listener } => self.handle_unlisten(token, listener),
            Command::Call { token, outgoing, time_left } => self.handle_call(token, &outgoing, time_left),
            Command::Cancel { call } => self.handle_cancel(call),
            Command::Send { token, outgoing } => self.handle_send(token, &outgoing),
            Command::Broadcast { token, outgoing } => self.handle_broadcast(token, &outgoing),
            Command::Answer { request, result } => self.handle_answer(request, result),
            Command::Stream(command) => self.handle_stream(command),
            Command::Drain(command) => self.handle_drain(command),
            Command::Close => self.handle_close(),
        }
    }

    fn handle_received(&mut self, link: LinkId, mut data: Bytes) {
        let mut whole = false;
        (self.heard, self.asked) = (self.now.mono, false);
        // A frame may have ended the link it came on.
        while self.link == Some(link) {
            // What we owe it is bounded too: it asks, or its members do, and does not read.
            if self.outbox.waiting() > self.config.limits.outbox.saturating_mul(2) {
                return self.violated(Violation::Flood);
            }
            let handled = match self.inbox.next(&mut data) {
                Ok(Some(frame)) => self.handle_frame(&frame),
                Ok(None) => return self.watch_partial_frame(whole),
                Err(violation) => Err(violation),
            };
            whole = true;
            if let Err(violation) = handled {
                self.violated(violation);
            }
            // After each frame, so that it does not matter which came together.
            self.pump();
            self.watch_drains();
        }
    }

    fn handle_frame(&mut self, frame: &Frame) -> Result<(), Violation> {
        let Some(kind) = FrameType::from_number(frame.number()) else {
            let ready = matches!(self.phase, Phase::Ready(_));
            return if ready && frame.number() >= 128 { Ok(()) } else { Err(Violation::UnknownFrame) };
        };
        let Phase::Ready(_) = &self.phase else { return self.handle_handshake_frame(kind, frame) };
        if let Some(relayed) = self.relay(kind, frame) {
            return relayed;
        }
        match kind {
            FrameType::Done => self.handle_done(frame),
            FrameType::JoinChallenge => self.handle_join_challenge(frame),
            FrameType::Offer => self.handle_offer(frame),
            FrameType::Channel => self.handle_channel(frame),
            FrameType::Beacon => self.handle_beacon(frame),
            FrameType::Ack => self.handle_ack(frame),
            FrameType::Call => self.handle_request(frame),
            FrameType::Answer | FrameType::Fault => self.handle_reply(kind, frame),
            FrameType::Fail => self.handle_fail(frame),
            FrameType::Cancel => self.handle_request_cancelled(frame),
            FrameType::Broadcast | FrameType::Send => self.handle_heard(kind, frame),
            FrameType::Ping => self.handle_ping(frame),
            FrameType::Pong => Pong::parse(frame.body()).map(drop).map_err(|_| Violation::BadControl),
            FrameType::Goodbye => self.handle_goodbye(frame),
            FrameType::Item | FrameType::End => self.handle_piece(kind, frame),
            FrameType::Credit => self.handle_credit(frame),
            FrameType::Hello
            | FrameType::Challenge
            | FrameType::Proof
            | FrameType::Welcome
            | FrameType::AuthFailed
            | FrameType::Open
            | FrameType::Join
            | FrameType::Protect
            | FrameType::Unprotect
            | FrameType::Reclaim
            | FrameType::Accept
            | FrameType::Terminate
            | FrameType::Operate
            | FrameType::Leave
            | FrameType::Provide
            | FrameType::Withdraw
            | FrameType::Listen
            | FrameType::Unlisten
            | FrameType::Announce
            | FrameType::Forget
            | FrameType::Remote
            | FrameType::Told
            | FrameType::Attach => Err(Violation::UnexpectedFrame),
        }
    }

    fn handle_timeout(&mut self) {
        while let Some(due) = self.timers.expire(self.now.mono) {
            match due {
                Due::Handshake if matches!(self.phase, Phase::Dialling) => {
                    self.handshake_timer = None;
                    self.close_link(Flush::Nothing);
                    self.lose(CloseReason::Unreachable(LinkEnd::Unreachable));
                }
                Due::Handshake if matches!(self.phase, Phase::Proving(_)) => self.proof_unanswered(),
                Due::Handshake => self.violated(Violation::HandshakeTimeout),
                Due::PartialFrame => self.check_partial(),
                Due::Control(id) => self.control_expired(id),
                Due::Beacon(channel) => self.beacons_due(channel),
                Due::Call(key) => self.call_expired(key),
                Due::Heartbeat => self.heartbeat_due(),
                Due::Redial => {
                    self.redial = None;
                    self.handle_connect();
                }
                Due::Restore(channel) => self.restore_channel(channel),
                Due::Settled => self.settled(),
                Due::Parked(serial) => self.parked_expired(serial),
                Due::Drain(provider) => self.drain_due(provider),
                Due::Serving(request) => self.request_expired(request),
            }
        }
    }

    /// Starts or stops the clock for the rest of a frame, which began in this read if another was `whole` before it.
    fn watch_partial_frame(&mut self, whole: bool) {
        if whole || self.partial_timer.is_none() {
            self.partial_since = self.now.mono;
        }
        match (self.inbox.is_partial(), self.partial_timer) {
            (true, None) => {
                let due = self.now.mono + self.config.limits.partial_frame;
                self.partial_timer = Some(self.timers.insert(due, TimerReason::PartialFrame, Due::PartialFrame));
            }
            (false, Some(_)) => self.stop_partial_timer(),
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn stop_partial_timer(&mut self) {
        if let Some(timer) = self.partial_timer.take() {
            self.timers.cancel(timer);
        }
    }

    /// Ends a link whose frame does not become whole, or looks again when that could be so.
    fn check_partial(&mut self) {
        let due = self.partial_since + self.config.limits.partial_frame;
        if due > self.now.mono {
            self.partial_timer = Some(self.timers.insert(due, TimerReason::PartialFrame, Due::PartialFrame));
        } else {
            self.partial_timer = None;
            self.violated(Violation::PartialFrame);
        }
    }

    fn handle_goodbye(&mut self, frame: &Frame) -> Result<(), Violation> {
        let Goodbye { code } = Goodbye::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        self.close_link(Flush::Nothing);
        self.lose(match (Refusal::from_code(code), code) {
            (Some(refusal), _) => CloseReason::Goodbye(refusal),
            (None, 0) => CloseReason::Lost,
            (None, code) => CloseReason::GoodbyeCode(code),
        });
        Ok(())
    }

    fn handle_close(&mut self) {
        self.cut_drain();
        if let Phase::Ready(_) = &self.phase {
            self.outbox.push(&mut self.pool, FrameType::Goodbye, |out| Goodbye { code: 0 }.encode(out));
        }
        self.close_link(Flush::Read);
        self.lose(CloseReason::Local);
    }

    fn violated(&mut self, violation: Violation) {
        self.event(Event::Violation(violation));
        if let Phase::Ready(_) = &self.phase {
            let code = violation.code();
            self.outbox.push(&mut self.pool, FrameType::Goodbye, |out| Goodbye { code }.encode(out));
        }
        self.close_link(Flush::Read);
        self.lose(CloseReason::Violation(violation));
    }

    /// Hands what still waits to the driver, if wanted, and closes the link.
    fn close_link(&mut self, flush: Flush) {
        let Some(link) = self.link else { return };
        if flush != Flush::Nothing {
            let rest = core::mem::take(&mut self.outbox).drain(&mut self.pool);
            self.outputs.extend(rest.map(|data| Output::Transmit { link, data }));
        }
        self.outputs.push_back(Output::Close { link, flush });
    }

    /// Ends everything that hung on the link; each thing has its event before the link has its own.
    fn lose(&mut self, reason: CloseReason) {
        let gone = match reason {
            CloseReason::Local => Misuse::Closed,
            CloseReason::Goodbye(_)
            | CloseReason::GoodbyeCode(_)
            | CloseReason::Unreachable(_)
            | CloseReason::Lost
            | CloseReason::Silent
            | CloseReason::Refused(_)
            | CloseReason::Violation(_) => Misuse::Disconnected,
        };
        let comes_back = self.next_try(reason);
        self.phase = Phase::Idle;
        self.link = None;
        self.stop_redialling();
        self.stop_heartbeat();
        self.stop_handshake_timer();
        self.stop_partial_timer();
        self.inbox = Inbox::new(self.config.limits.handshake_frame);
        core::mem::take(&mut self.outbox).discard(&mut self.pool);
        self.frames_sent = 0;
        self.lose_calls(gone, reason, comes_back.is_some());
        self.lose_sends(gone);
        self.lose_serving(gone);
        if let Some(wait) = comes_back {
            self.suspend_channels(gone);
            return self.tell_lost(reason, wait);
        }
        self.lose_parked(gone);
        self.lose_channels(gone);
        self.end_drains();
        self.event(Event::Closed(reason));
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
