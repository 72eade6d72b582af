//! A bridge: a client of two hubs that passes on what one can reach at the other, and what their clients say to each other.
//!
//! ```text
//!   hub A ◄──── client ──┐  Announce, Forget: what may pass      ┌── client ────► hub B
//!                        ├── messages: unchanged ────────────────┤
//!                        └── Fail, Credit: under the same number ┘
//! ```
//! The hubs do the routing; to them a bridge is a line between each other. It has no table of exchanges: a number that one
//! hub chose has bit 31 set on that hub's side and clear on the other's, so it flips the bit. Messages are read, so that
//! nothing malformed passes, and never changed.

mod allow;
mod api;
mod passing;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

pub use allow::{Allow, AllowError};
pub use api::*;
use passing::Pace;

use crate::auth::Capabilities;
use crate::client::{self, Client, ClientConfig, ReconnectEvent};
use crate::error::{Refusal, Violation};
use crate::hub::LATE;
use crate::limits::Limits;
use crate::machine::{Flush, Input, LinkId, Machine, Output};
use crate::names::{ClientId, HubId};
use crate::seed::{Purpose, Seed};
use crate::time::{Deadline, Now};
use crate::wire::{Attach, Control as _, Done, Frame, FrameType, Marks};

/// A bridge between two hubs.
#[derive(Debug)]
pub struct Bridge {
    id: ClientId,
    now: Now,
    a: End,
    b: End,
    allow: Vec<Allow>,
    one_way: bool,
    limits: Limits,
    requests: u64,
    outputs: VecDeque<Output<Event>>,
    counters: Counters,
    /// Whether both sides were told of each other, and have heard everything.
    bridged: bool,
    closed: bool,
}

/// One side of it.
#[derive(Debug)]
struct End {
    client: Client,
    /// The hub there, while it is connected.
    hub: Option<HubId>,
    /// How far it is with what is at the other end.
    stage: Stage,
    /// Until this request is answered, it speaks to what was at the other end before.
    deaf_until: Option<u64>,
    pace: Pace,
    /// Since when messages without an answer wait for the hub there.
    marks: Marks,
}

/// How far a hub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It knows of no hub at the other end.
    Parted,
    /// It was told of it by this request, and announces what it has.
    Telling(u64),
    /// It has announced everything.
    Told,
    /// It was asked whether it has heard everything, by this request.
    Asked(u64),
    /// It has heard everything.
    Settled,
}

impl Bridge {
    /// A bridge that has not dialled yet.
    #[must_use]
    pub fn new(config: BridgeConfig, seed: &Seed) -> Self {
        let BridgeConfig { a, b, id, allow, one_way, rate, limits, reconnect } = config;
        let made_up = seed.stream(Purpose::Identity).u64() as u32;
        let id = id.unwrap_or_else(|| ClientId::made_up(&format!("bridge-{made_up:08x}")));
        let end = |end: BridgeEnd, purpose: Purpose, which: u8| {
            let BridgeEnd { hub, credential, secret } = end;
            let (id, limits) = (Some(ClientId::made_up(&format!("{id}-c{which}"))), limits.clone());
            let config = ClientConfig { hub, id, credential, secret, limits, reconnect };
            let client = Client::relaying(config, &Seed::new(seed.stream(purpose).bytes()));
            End {
                client,
                hub: None,
                stage: Stage::Parted,
                deaf_until: None,
                marks: Marks::default(),
                pace: Pace::new(rate),
            }
        };
        let (a, b) = (end(a, Purpose::BridgeA, 1), end(b, Purpose::BridgeB, 2));
        Self {
            id,
            now: Now::default(),
            a,
            b,
            allow,
            one_way,
            limits,
            requests: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            bridged: false,
            closed: false,
        }
    }

    /// The bridge's id; its clients are called so, with `-c1` and `-c2` behind it.
    #[must_use]
    pub const fn id(&self) -> &ClientId {
        &self.id
    }

    /// Running totals.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What its client at each hub holds, the first hub's first.
    #[must_use]
    pub fn load(&self) -> [client::Load; 2] {
        [self.a.client.load(), self.b.client.load()]
    }

    const fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    const fn end_ref(&self, side: Side) -> &End {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }
}

impl Machine for Bridge {
    type Command = Command;
    type Event = Event;

    fn handle_input(&mut self, now: Now, input: Input<Command>) {
        self.now = Now { mono: self.now.mono.max(now.mono), wall: now.wall };
        match input {
            // A bridge listens nowhere.
            Input::Accepted { link, .. } => self.outputs.push_back(Output::Close { link, flush: Flush::Nothing }),
            Input::Dialled { link, peer } => self.feed(link, |link| Input::Dialled { link, peer }),
            Input::Received { link, data } => self.feed(link, |link| Input::Received { link, data }),
            Input::Written { link, bytes } => self.feed(link, |link| Input::Written { link, bytes }),
            Input::Closed { link, how } => self.feed(link, |link| Input::Closed { link, how }),
            Input::Shortage => {}
            Input::Command(Command::Connect) => self.command_both(&client::Command::Connect),
            Input::Command(Command::SetSecret(side, secret)) => self.command(side, client::Command::SetSecret(secret)),
            Input::Command(Command::KeyDerived(side, salted)) => {
                self.command(side, client::Command::KeyDerived(salted));
            }
            Input::Command(Command::Close) => self.close(BridgeClosed::Local),
            Input::Timeout => {
                for side in Side::BOTH {
                    self.end(side).client.handle_input(now, Input::Timeout);
                }
            }
        }
        self.drain();
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        // Everything but bytes was taken when it came to be.
        Side::BOTH.into_iter().find_map(|side| {
            let output = self.end(side).client.poll_output()?;
            match output {
                Output::Transmit { link, data } => Some(Output::Transmit { link: outer(side, link), data }),
                Output::Dial { .. } | Output::Close { .. } | Output::Event(_) => None,
            }
        })
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let due = |side: &End| side.client.poll_timeout();
        [due(&self.a), due(&self.b)].into_iter().flatten().min_by_key(|deadline| deadline.at)
    }
}

/// The links of both clients in one space: the first client's has an even index.
const fn outer(side: Side, link: LinkId) -> LinkId {
    LinkId::dialled(side as u32, link.generation())
}

impl Bridge {
    fn feed(&mut self, link: LinkId, input: impl FnOnce(LinkId) -> Input<client::Command>) {
        let side = if link.index() == Side::A as usize { Side::A } else { Side::B };
        let now = self.now;
        let input = input(LinkId::dialled(0, link.generation()));
        let end = self.end(side);
        if let Input::Written { bytes, .. } = &input {
            let late = end.marks.is_late(now.mono, LATE);
            end.marks.written(*bytes);
            // A message that has waited for so long would arrive when its copies are forgotten.
            if late {
                return end.client.end_for(Violation::Flood);
            }
        }
        end.client.handle_input(now, input);
    }

    fn command(&mut self, side: Side, command: client::Command) {
        let now = self.now;
        self.end(side).client.handle_input(now, Input::Command(command));
    }

    fn command_both(&mut self, command: &client::Command) {
        if !self.closed {
            Side::BOTH.into_iter().for_each(|side| self.command(side, command.clone()));
        }
    }

    /// Takes what both clients have for the bridge, until there is nothing more.
    fn drain(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for side in Side::BOTH {
                while let Some((kind, frame)) = self.end(side).client.next_relayed() {
                    busy = true;
                    self.handle_relayed(side, kind, &frame);
                }
                while let Some(output) = self.end(side).client.poll_told() {
                    busy = true;
                    match output {
                        Output::Transmit { link, data } => {
                            self.outputs.push_back(Output::Transmit { link: outer(side, link), data });
                        }
                        Output::Dial { link, to } => {
                            self.outputs.push_back(Output::Dial { link: outer(side, link), to })
                        }
                        Output::Close { link, flush } => {
                            self.outputs.push_back(Output::Close { link: outer(side, link), flush });
                        }
                        Output::Event(event) => self.handle_told(side, event),
                    }
                }
            }
        }
    }

    fn handle_told(&mut self, side: Side, event: client::Event) {
        match event {
            client::Event::DeriveKey { salt, iterations } => self.event(Event::DeriveKey { side, salt, iterations }),
            client::Event::Ready(welcome) => {
                if !welcome.capabilities.contains(Capabilities::BRIDGE) {
                    return self.close(BridgeClosed::NoBridge { side, hub: welcome.hub });
                }
                self.end(side).hub = Some(welcome.hub.clone());
                self.event(Event::Connected { side, hub: welcome.hub });
                self.join();
            }
            client::Event::Reconnect(ReconnectEvent::Lost { reason, retry }) => {
                self.part(side);
                self.event(Event::Lost { side, reason, retry });
            }
            client::Event::Closed(reason) => {
                self.part(side);
                self.close(BridgeClosed::Lost { side, reason });
            }
            // What a client tells of what it has opened, and of the link before its end; this one has opened nothing.
            client::Event::DeriveChannelKey { .. }
            | client::Event::ChannelClosed { .. }
            | client::Event::OwnerChanged { .. }
            | client::Event::PasswordChanged { .. }
            | client::Event::Gap(_)
            | client::Event::Reconnect(_)
            | client::Event::Done { .. }
            | client::Event::Sent { .. }
            | client::Event::Answered { .. }
            | client::Event::Stream(_)
            | client::Event::Request(_)
            | client::Event::RequestEnded { .. }
            | client::Event::Message(_)
            | client::Event::Violation(_)
            | client::Event::Draining { .. }
            | client::Event::Dropped(_) => {}
        }
    }

    /// Tells both hubs of each other once both are there.
    fn join(&mut self) {
        let (Some(a), Some(b)) = (self.a.hub.clone(), self.b.hub.clone()) else { return };
        if a == b {
            return self.close(BridgeClosed::SameHub(a));
        }
        for (side, far) in [(Side::A, b), (Side::B, a)] {
            let id = self.attach(side, Some(&far));
            self.end(side).stage = Stage::Telling(id);
        }
    }

    fn attach(&mut self, side: Side, far: Option<&HubId>) -> u64 {
        self.requests += 1;
        let id = self.requests;
        let attach = Attach { id, far: far.map(HubId::as_name) };
        self.end(side).client.say_frame(FrameType::Attach, |out| attach.encode(out));
        id
    }

    /// A hub is gone: the other one is told that nothing can be reached there any more.
    fn part(&mut self, side: Side) {
        self.bridged = false;
        let end = self.end(side);
        (end.hub, end.stage, end.deaf_until, end.marks) = (None, Stage::Parted, None, Marks::default());
        let other = side.other();
        if self.end_ref(other).stage != Stage::Parted {
            let id = self.attach(other, None);
            let end = self.end(other);
            (end.stage, end.deaf_until) = (Stage::Parted, Some(id));
        }
    }

    fn handle_done(&mut self, side: Side, frame: &Frame) {
        let Ok(Done { id, code, .. }) = Done::parse(frame.body()) else {
            return self.end(side).client.end_for(Violation::BadControl);
        };
        let end = self.end(side);
        let stage = end.stage;
        if end.deaf_until == Some(id) {
            end.deaf_until = None;
        }
        let waits = matches!(stage, Stage::Telling(request) | Stage::Asked(request) if request == id);
        if !waits {
            return;
        }
        if code != 0 {
            let refusal = Refusal::from_code(code).unwrap_or(Refusal::NotAllowed);
            return self.close(BridgeClosed::Refused { side, refusal });
        }
        self.end(side).stage = if matches!(stage, Stage::Telling(_)) { Stage::Told } else { Stage::Settled };
        if self.a.stage == Stage::Told && self.b.stage == Stage::Told {
            // All that one has announced is on its way to the other: each says when it has heard it.
            for side in Side::BOTH {
                let far = self.end_ref(side.other()).hub.clone();
                let id = self.attach(side, far.as_ref());
                self.end(side).stage = Stage::Asked(id);
            }
        }
        if self.a.stage == Stage::Settled
            && self.b.stage == Stage::Settled
            && let (Some(a), Some(b), false) = (self.a.hub.clone(), self.b.hub.clone(), self.bridged)
        {
            self.bridged = true;
            self.event(Event::Bridged { a, b });
        }
    }

    fn close(&mut self, why: BridgeClosed) {
        if core::mem::replace(&mut self.closed, true) {
            return;
        }
        for side in Side::BOTH {
            self.command(side, client::Command::Close);
            let end = self.end(side);
            (end.hub, end.stage) = (None, Stage::Parted);
        }
        // What the clients tell of their ends is no news.
        self.drain();
        self.event(Event::Closed(why));
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
