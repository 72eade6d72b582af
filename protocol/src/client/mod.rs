//! The client: one link to one hub, and everything an application has open over it.
//!
//! ```text
//!  Idle ──Connect──► Dialling ──HELLO──► Challenged ──PROOF──► Proving ──server proof──► Ready
//!   ▲                                        │ password: KeyDerived                        │
//!   └───────────────────────── Closed ◄──────┴──────────── link lost, refusal, violation ◄─┘
//! ```
//! Every command with a token ends in exactly one event with that token, whatever becomes of the link.

mod api;
mod beacons;
mod calls;
mod channels;
mod flow;
mod guarding;
mod handshake;
mod messages;
mod numbers;
mod seal;
#[cfg(test)]
mod seal_model;
#[cfg(test)]
mod seal_tests;
mod serving;
mod stream_api;
mod streams;
mod window;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;

use bytes::{Bytes, BytesMut};

pub use api::*;
use calls::Pending;
use channels::{ChannelIx, Channels, Control};
pub use guarding::{Access, ChannelSalt};
use handshake::{Cached, Phase};
use seal::Seal;
use serving::Serving;
pub use stream_api::{Credit, StreamCommand, StreamEvent, StreamId};
use streams::Place;

use crate::auth::message_ref;
use crate::error::{CloseReason, Misuse, Refusal, Violation};
use crate::hash::{Keyed, Map};
use crate::machine::{Flush, Input, LinkEnd, LinkId, Machine, Output};
use crate::names::{Address, ClientId, HubId};
use crate::seed::{Purpose, Seed, Stream};
use crate::slots::{Key, Slots};
use crate::time::{Deadline, Instant, Now, TimerReason};
use crate::timers::{TimerId, Timers};
use crate::wire::{
    self, Control as _, Frame, FrameType, Goodbye, Header, Hop, Inbox, Outbox, Ping, Pong, Pool, encoded_len_max,
    put_message,
};

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
    cached: Option<Cached>,
    scratch: BytesMut,
    nonces: Stream,
    takeovers: Stream,
    /// For owner keys and joins.
    channel_keys: Stream,
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
}

impl Client {
    /// A client that has not dialled yet.
    #[must_use]
    pub fn new(config: ClientConfig, seed: &Seed) -> Self {
        let mut identity = seed.stream(Purpose::Identity);
        let made_up = identity.u64() as u32;
        let instance = identity.bytes();
        let hash = Keyed::new(&mut seed.stream(Purpose::HashKeys));
        let limit = config.limits.handshake_frame;
        Self {
            id: config.id.clone().unwrap_or_else(|| ClientId::made_up(&format!("cli-{made_up:08x}"))),
            config,
            instance,
            now: Now::default(),
            phase: Phase::Idle,
            link: None,
            dials: 0,
            handshake_timer: None,
            inbox: Inbox::new(limit),
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
            cached: None,
            scratch: BytesMut::new(),
            nonces: seed.stream(Purpose::Handshake),
            takeovers: seed.stream(Purpose::Takeover),
            channel_keys: seed.stream(Purpose::Channels),
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
                self.handle_command(command);
                self.pump();
            }
            Input::Timeout => self.handle_timeout(),
        }
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
        match command {
            Command::Connect => self.handle_connect(),
            Command::KeyDerived(salted) => self.handle_key_derived(salted),
            Command::Open { token, channel, access } => self.handle_open(token, channel, access),
            Command::ChannelKeyDerived { channel, salt, master } => self.handle_channel_key(&channel, salt, &master),
            Command::ChannelKeyFailed { channel } => self.handle_channel_key_failed(&channel),
            Command::Protect { token, channel, salt, master } => self.handle_protect(token, &channel, salt, &master),
            Command::Unprotect { token, channel } => self.handle_unprotect(token, &channel),
            Command::Reclaim { token, channel } => self.handle_reclaim(token, &channel),
            Command::Terminate { token, channel } => self.handle_terminate(token, &channel),
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
            Command::Close => self.handle_close(),
        }
    }

    fn handle_received(&mut self, link: LinkId, mut data: Bytes) {
        let mut whole = false;
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
        }
    }

    fn handle_frame(&mut self, frame: &Frame) -> Result<(), Violation> {
        let Some(kind) = FrameType::from_number(frame.number()) else {
            let ready = matches!(self.phase, Phase::Ready(_));
            return if ready && frame.number() >= 128 { Ok(()) } else { Err(Violation::UnknownFrame) };
        };
        let Phase::Ready(_) = &self.phase else { return self.handle_handshake_frame(kind, frame) };
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
            | FrameType::Leave
            | FrameType::Provide
            | FrameType::Withdraw
            | FrameType::Listen
            | FrameType::Unlisten => Err(Violation::UnexpectedFrame),
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
                Due::Handshake => self.violated(Violation::HandshakeTimeout),
                Due::PartialFrame => self.check_partial(),
                Due::Control(id) => self.control_expired(id),
                Due::Beacon(channel) => self.beacons_due(channel),
                Due::Call(key) => self.call_expired(key),
                Due::Serving(request) => {
                    self.end_request(request.route, Some(request.serial), Failure::Refused(Refusal::Deadline));
                }
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

    fn handle_ping(&mut self, frame: &Frame) -> Result<(), Violation> {
        let ping = Ping::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        self.outbox.push(&mut self.pool, FrameType::Pong, |out| Pong { number: ping.number }.encode(out));
        Ok(())
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
            | CloseReason::Refused(_)
            | CloseReason::Violation(_) => Misuse::Disconnected,
        };
        self.phase = Phase::Idle;
        self.link = None;
        self.stop_handshake_timer();
        self.stop_partial_timer();
        self.inbox = Inbox::new(self.config.limits.handshake_frame);
        core::mem::take(&mut self.outbox).discard(&mut self.pool);
        self.frames_sent = 0;
        self.lose_calls(gone);
        self.lose_sends(gone);
        self.lose_serving(gone);
        self.lose_channels(gone);
        self.event(Event::Closed(reason));
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Whether what we say on a channel is signed.
    fn signs_on(&self, channel: &crate::ChannelName) -> bool {
        self.channels.find(channel.as_name()).is_some_and(|channel| channel.guarded.seal.is_some())
    }

    /// Whether one more message of this size may be queued now.
    fn check_room(&self, outgoing: &Outgoing) -> Result<&HubId, Misuse> {
        let Phase::Ready(ready) = &self.phase else { return Err(Misuse::NotConnected) };
        if outgoing.guarded && !self.signs_on(&outgoing.channel) {
            return Err(Misuse::UnknownToken);
        }
        if outgoing.metadata.len() > self.config.limits.metadata {
            return Err(Misuse::TooLarge);
        }
        let len = frame_len(outgoing.payload.bytes.len() + outgoing.metadata.len());
        if len > ready.frame as usize {
            return Err(Misuse::TooLarge);
        }
        if self.outbox.waiting() + len > self.config.limits.outbox {
            return Err(Misuse::Busy);
        }
        Ok(&ready.hub)
    }

    /// Writes one message, signed if its channel is protected. Number and time are those of the moment it enters the
    /// outbox. Gives what an answer must name, to a call on a protected channel.
    ///
    /// What belongs to a signed call cannot be said any more when the keys are gone; whoever took them has ended the call.
    fn write_message(&mut self, route: u32, header: &Header<'_>, payload: &Bytes) -> Option<[u8; 32]> {
        let Self { scratch, outbox, pool, channels, .. } = self;
        let seal = channels.find(header.channel).and_then(|channel| channel.guarded.seal.as_ref());
        if seal.is_none() && !header.reference.is_empty() {
            return None;
        }
        scratch.clear();
        Header { epoch: seal.map_or(0, Seal::epoch), ..*header }.encode(scratch);
        let tag = seal.map(|seal| seal.tag(scratch, payload));
        let tag = tag.as_ref().map_or(&[][..], |tag| tag);
        let hop = Hop::direct(route, 0);
        outbox.push(pool, header.kind.into(), |out| {
            out.reserve(hop.encoded_len() + encoded_len_max(scratch.len(), payload.len()));
            hop.put(out);
            put_message(out, scratch, payload, tag);
        });
        self.frames_sent += 1;
        // Only calls are answered, and a digest costs two thirds of a signature.
        (header.kind == wire::Kind::Call && !tag.is_empty()).then(|| message_ref(scratch, tag))
    }

    /// Whether a message may count: of the epoch we are a member of, and signed under it; unsigned only where nothing is.
    fn accept(&mut self, message: &wire::Message<'_>) -> Result<(), Dropped> {
        let wall = self.now.wall;
        let seal = self.channels.find_mut(message.header.channel).and_then(|it| it.guarded.seal.as_mut());
        match seal {
            Some(seal) => seal.accept(message, wall).map_err(Dropped::from),
            None if message.header.epoch == 0 => Ok(()),
            None => Err(Dropped::WrongEpoch),
        }
    }

    /// Who said something. On the hub's own channels that is the hub we authenticated, and elsewhere it never is.
    fn sender(&mut self, header: &Header<'_>) -> Option<Address> {
        let (client, hub) = (header.sender, header.origin);
        if header.channel.is_reserved() {
            let own = self.ready_hub().ok().filter(|own| own.as_name() == hub)?;
            return (client == ClientId::system().as_name()).then(|| Address { client: ClientId::system(), hub: own });
        }
        if let Some(last) = &self.last_sender
            && last.client.as_name() == client
            && last.hub.as_name() == hub
        {
            return Some(last.clone());
        }
        let address = Address { client: ClientId::new(client.as_str()).ok()?, hub: HubId::new(hub.as_str()).ok()? };
        self.last_sender = Some(address.clone());
        Some(address)
    }
}

/// An upper bound of the frame around a payload and metadata of so many bytes together.
const fn frame_len(content: usize) -> usize {
    // The type, a hop header without visited hubs, and a header with six names of full length and all numbers at their
    // largest.
    1 + 6 + encoded_len_max(8 + 16 * 9 + 6 * (2 + crate::names::NAME_MAX) + 64, content)
}
