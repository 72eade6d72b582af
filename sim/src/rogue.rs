//! A client that nobody should trust: a real one, and between it and its hub somebody who says what it does not.
//!
//! ```text
//!   client ──► frames ──► (kept back, made up) ──► hub
//!   client ◄── frames ◄── (written down) ◄──────────┘
//! ```
//! It has whatever its client has: no secret, a secret, or a channel's password. On links whose frames are tagged it
//! says nothing of its own, since only its client can tag.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use commipc_protocol::client::{Client, Command, Event};
use commipc_protocol::wire::{FrameType, MAGIC};
use commipc_protocol::{Deadline, Input, Limits, LinkId, Machine, Now, Output};

use crate::mallory::{Order, next};
use crate::node::NodeId;
use crate::station::{Asked, Station};
use crate::twin::Twins;
use crate::world::World;

/// A client that nobody should trust.
pub struct Rogue {
    client: Client,
    link: Option<LinkId>,
    from_client: BytesMut,
    from_hub: BytesMut,
    muted: BTreeSet<FrameType>,
    said: Vec<Bytes>,
    heard: Vec<Bytes>,
    outputs: VecDeque<Output<Event>>,
    spoken: u64,
    now: Now,
}

impl Rogue {
    pub(crate) fn new(client: Client) -> Self {
        let (from_client, from_hub) = (BytesMut::new(), BytesMut::new());
        let (muted, said, heard, outputs) = (BTreeSet::new(), Vec::new(), Vec::new(), VecDeque::new());
        Self { client, link: None, from_client, from_hub, muted, said, heard, outputs, spoken: 0, now: Now::default() }
    }

    /// The client inside.
    #[must_use]
    pub const fn inside(&self) -> &Client {
        &self.client
    }

    /// The frames that its client made, also those that did not go out; the first of a link with what stands before it.
    #[must_use]
    pub fn said(&self) -> &[Bytes] {
        &self.said
    }

    /// The frames that its hubs gave it.
    #[must_use]
    pub fn heard(&self) -> &[Bytes] {
        &self.heard
    }

    /// How often it said what its client did not.
    #[must_use]
    pub const fn spoken(&self) -> u64 {
        self.spoken
    }

    pub(crate) fn obey(&mut self, order: Order) {
        match order {
            Order::Mute(kind) => {
                self.muted.insert(kind);
            }
            Order::Say(data) => {
                self.spoken += u64::from(self.link.is_some());
                self.outputs.extend(self.link.map(|link| Output::Transmit { link, data }));
            }
            // Meant for a hub.
            Order::Turn(_) | Order::Inject { .. } => {}
        }
    }

    /// Takes what its client has to say: not before it is asked itself, or how its reads are cut would show.
    fn drain(&mut self) {
        let now = self.now;
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Transmit { link, data } => {
                    self.client.handle_input(now, Input::Written { link, bytes: data.len() });
                    self.from_client.extend_from_slice(&data);
                    self.pass(link);
                }
                Output::Close { link, flush } => {
                    self.link = self.link.filter(|open| *open != link);
                    self.outputs.push_back(Output::Close { link, flush });
                }
                output @ (Output::Dial { .. } | Output::Event(_)) => self.outputs.push_back(output),
            }
        }
    }

    /// Says what is ready for a link in one piece.
    fn say(&mut self, link: LinkId, data: &Bytes) {
        match self.outputs.back_mut() {
            Some(Output::Transmit { link: last, data: before }) if *last == link => {
                *before = Bytes::from([&before[..], data].concat());
            }
            Some(_) | None => self.outputs.push_back(Output::Transmit { link, data: data.clone() }),
        }
    }

    /// Lets whole frames go out.
    fn pass(&mut self, link: LinkId) {
        loop {
            let first = self.from_client.starts_with(&MAGIC);
            let mut rest = if first { self.from_client.split_off(MAGIC.len()) } else { self.from_client.split() };
            let Some(frame) = next(&mut rest) else {
                self.from_client.unsplit(rest);
                return;
            };
            let head = self.from_client.split();
            self.from_client = rest;
            let kind = frame.get(4).copied().and_then(FrameType::from_number);
            let data = Bytes::from([&head[..], &frame].concat());
            self.said.push(data.clone());
            if !kind.is_some_and(|kind| self.muted.contains(&kind)) {
                self.say(link, &data);
            }
        }
    }
}

impl Machine for Rogue {
    type Command = Command;
    type Event = Event;

    fn handle_input(&mut self, now: Now, input: Input<Command>) {
        match &input {
            Input::Dialled { link, .. } => {
                self.link = Some(*link);
                self.from_client.clear();
                self.from_hub.clear();
            }
            Input::Received { link, data } if self.link == Some(*link) => {
                self.from_hub.extend_from_slice(data);
                self.heard.extend(std::iter::from_fn(|| next(&mut self.from_hub)));
            }
            Input::Closed { link, .. } => self.link = self.link.filter(|open| open != link),
            // The client was told at once.
            Input::Written { .. } => return,
            Input::Accepted { .. } | Input::Received { .. } | Input::Command(_) | Input::Shortage | Input::Timeout => {}
        }
        self.client.handle_input(now, input);
        self.now = now;
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        if self.outputs.is_empty() {
            self.drain();
        }
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.client.poll_timeout()
    }
}

impl std::fmt::Debug for Rogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rogue").field("client", &self.client).field("muted", &self.muted).finish_non_exhaustive()
    }
}

impl World {
    /// Adds a client that nobody should trust, with an id, and with the secret of the hub added last or with a wrong one.
    #[must_use]
    pub fn rogue(self, name: &str, id: &str, honest: bool) -> Self {
        self.client_of(name, id, Limits::default(), honest, Station::rogue)
    }

    /// Lets such a client send no frame of this type by itself.
    pub fn mutes(&mut self, name: &str, kind: FrameType) {
        self.tells(name, Order::Mute(kind));
    }

    /// Lets such a client send this.
    pub fn says(&mut self, name: &str, data: &[u8]) {
        self.tells(name, Order::Say(Bytes::copy_from_slice(data)));
    }

    fn tells(&mut self, name: &str, order: Order) {
        if let Some(node) = self.engine.find(name) {
            self.engine.command(node, Asked::Malice(order), &mut self.watch);
            self.listen();
        }
    }

    /// A client that nobody should trust, by its name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn rogue_called(&self, name: &str) -> &Rogue {
        self.engine.find(name).and_then(|node| self.rogue_at(node)).unwrap_or_else(|| panic!("{name} is no rogue"))
    }

    pub(crate) fn rogue_at(&self, node: NodeId) -> Option<&Rogue> {
        match self.engine.machine(node).map(Twins::shown) {
            Some(Station::Rogue(rogue)) => Some(rogue),
            Some(Station::Client(_) | Station::Hub(_) | Station::Bridge(_) | Station::Mallory(_)) | None => None,
        }
    }
}
