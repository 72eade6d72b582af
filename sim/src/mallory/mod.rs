//! A malicious hub: a real one, and between it and its clients somebody who changes what passes.
//!
//! ```text
//!   client ──► frames ──► (kept back, answered in the hub's name) ──► the real hub
//!   client ◄── frames ◄── (changed, repeated, swapped, hidden, made up) ◄──┘
//! ```
//! It knows all that a hub knows, and none of the members' keys. What it keeps from somebody for good it tells, so that
//! an oracle can notice when it arrives all the same.

pub(crate) mod forgery;
mod late;
mod orders;
mod rollback;
mod streams;
mod tricks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf as _, Bytes, BytesMut};
use commipc_protocol::auth::JoinVerifier;
use commipc_protocol::hub::{self, Hub};
use commipc_protocol::wire::{Control as _, Done, FrameType, Hello, MAGIC, Open, Protect};
use commipc_protocol::{ChannelName, ClientId, Deadline, Input, LinkId, Machine, Now, Output};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::oracles::Salt;
use crate::station::{Told, Withheld};
pub use forgery::Field;
pub use orders::Order;
pub use tricks::{Malice, Trick};

/// A hub that its clients should not trust.
pub struct Mallory {
    hub: Hub,
    malice: Malice,
    rng: ChaCha8Rng,
    wires: BTreeMap<LinkId, Wire>,
    outputs: VecDeque<Output<Told>>,
    /// What goes out on each link in the end.
    going: BTreeMap<LinkId, BytesMut>,
    /// Signed frames that passed.
    seen: VecDeque<Seen>,
    /// What somebody was kept from, which must not be repeated to them.
    withheld: BTreeSet<(ClientId, Withheld)>,
    /// Protections of each channel, as members were challenged.
    records: BTreeMap<ChannelName, Vec<(u64, Salt)>>,
    /// What to check proofs of a channel's protections with.
    verifiers: BTreeMap<(ChannelName, u64), JoinVerifier>,
    played: BTreeMap<&'static str, u64>,
    serial: u64,
}

/// One link.
#[derive(Default)]
struct Wire {
    from_client: BytesMut,
    from_hub: BytesMut,
    greeted: bool,
    client: Option<ClientId>,
    /// Who it wants to be.
    asked: Option<ClientId>,
    /// Which channels its openings are for.
    opens: BTreeMap<u64, ChannelName>,
    /// An answer that waits for another one to be swapped with.
    held: Option<Bytes>,
    broken: streams::Broken,
    greeting: rollback::Greeting,
    words: late::Words,
    /// Openings that are to prove an earlier protection.
    asked_back: BTreeMap<u64, rollback::Asked>,
}

/// A signed frame that passed.
#[derive(Clone)]
struct Seen {
    to: ClientId,
    by: String,
    frame: Bytes,
}

/// Frames that are remembered.
const SEEN: usize = 256;

impl Mallory {
    /// A malicious hub around an honest one; `seed` decides what it does when.
    #[must_use]
    pub fn new(hub: Hub, malice: Malice, seed: [u8; 32]) -> Self {
        Self {
            hub,
            malice,
            rng: ChaCha8Rng::from_seed(seed),
            wires: BTreeMap::new(),
            outputs: VecDeque::new(),
            going: BTreeMap::new(),
            seen: VecDeque::new(),
            withheld: BTreeSet::new(),
            records: BTreeMap::new(),
            verifiers: BTreeMap::new(),
            played: BTreeMap::new(),
            serial: 0,
        }
    }

    /// The hub inside.
    #[must_use]
    pub const fn inside(&self) -> &Hub {
        &self.hub
    }

    /// How often each trick was played.
    #[must_use]
    pub const fn played(&self) -> &BTreeMap<&'static str, u64> {
        &self.played
    }

    /// Signed frames that passed lately, as they were.
    pub fn overheard(&self) -> impl Iterator<Item = &Bytes> {
        self.seen.iter().map(|seen| &seen.frame)
    }

    /// Does what it is told.
    pub(crate) fn obey(&mut self, order: Order) {
        match order {
            Order::Turn(malice) => self.malice = malice,
            Order::Inject { to, frame } => {
                let link = self.wires.iter().find(|(_, wire)| wire.client.as_ref() == Some(&to)).map(|(link, _)| *link);
                if let Some(link) = link {
                    self.emit(link, &frame);
                    self.flush(link);
                }
            }
            // Meant for a client.
            Order::Mute(_) | Order::Say(_) => {}
        }
    }
}

impl Machine for Mallory {
    type Command = hub::Command;
    type Event = Told;

    fn handle_input(&mut self, now: Now, input: Input<hub::Command>) {
        match input {
            Input::Received { link, data } if self.wires.contains_key(&link) => self.handle_received(now, link, &data),
            // The hub was told at once.
            Input::Written { .. } => {}
            Input::Accepted { link, peer } => {
                self.wires.insert(link, Wire::default());
                self.hub.handle_input(now, Input::Accepted { link, peer });
            }
            Input::Closed { link, how } => {
                self.wires.remove(&link);
                self.hub.handle_input(now, Input::Closed { link, how });
            }
            Input::Received { .. } | Input::Dialled { .. } | Input::Shortage | Input::Command(_) | Input::Timeout => {
                self.hub.handle_input(now, input);
            }
        }
        self.drain(now);
    }

    fn poll_output(&mut self) -> Option<Output<Told>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.hub.poll_timeout()
    }
}

/// What passes.
impl Mallory {
    fn handle_received(&mut self, now: Now, link: LinkId, data: &[u8]) {
        let Some(wire) = self.wires.get_mut(&link) else { return };
        wire.from_client.extend_from_slice(data);
        if !wire.greeted && wire.from_client.len() >= MAGIC.len() {
            wire.greeted = true;
            let magic = wire.from_client.split_to(MAGIC.len()).freeze();
            self.hub.handle_input(now, Input::Received { link, data: magic });
        }
        while let Some(frame) =
            self.wires.get_mut(&link).filter(|wire| wire.greeted).and_then(|wire| next(&mut wire.from_client))
        {
            if self.passes_to_hub(link, &frame) {
                let frame = self.grants(&frame).unwrap_or(frame);
                self.hub.handle_input(now, Input::Received { link, data: frame });
            }
        }
    }

    fn passes_to_hub(&mut self, link: LinkId, frame: &Bytes) -> bool {
        let (Some(kind), Some(body)) = (frame.get(4).copied().and_then(FrameType::from_number), frame.get(5..)) else {
            return true;
        };
        self.keeps(link, kind, frame, body);
        if kind == FrameType::Join && self.admits_back(link, body) || self.keeps_word(link, kind, body) {
            return false;
        }
        if kind == FrameType::Hello
            && let Ok(hello) = Hello::parse(body)
            && let Some(wire) = self.wires.get_mut(&link)
        {
            wire.asked = ClientId::new(hello.client.as_str()).ok();
        }
        if kind == FrameType::Open
            && let Ok(open) = Open::parse(body)
            && let (Some(wire), Ok(channel)) = (self.wires.get_mut(&link), ChannelName::new(open.channel.as_str()))
        {
            wire.opens.insert(open.id, channel);
        }
        if kind == FrameType::Protect
            && let Ok(protect) = Protect::parse(body)
            && self.draws(Trick::HideRotation)
        {
            let mut done = BytesMut::new();
            Done { id: protect.id, code: 0, epoch: None, owner: None, last_epoch: None, owned_by: None, proof: None }
                .encode(&mut done);
            if let Some(done) = forgery::frame(FrameType::Done, &done) {
                self.play(Trick::HideRotation.name());
                self.emit(link, &done);
                return false;
            }
        }
        true
    }

    fn drain(&mut self, now: Now) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Transmit { link, data } => {
                    self.hub.handle_input(now, Input::Written { link, bytes: data.len() });
                    self.handle_transmit(link, data);
                }
                Output::Close { link, flush } => {
                    self.flush(link);
                    self.wires.remove(&link);
                    self.outputs.push_back(Output::Close { link, flush });
                }
                Output::Dial { link, to } => self.outputs.push_back(Output::Dial { link, to }),
                Output::Event(event) => {
                    if let hub::Event::Connected { link, client, .. } = &event
                        && let Some(wire) = self.wires.get_mut(link)
                    {
                        wire.client = Some(client.clone());
                    }
                    self.outputs.push_back(Output::Event(Told::Hub(event)));
                }
            }
        }
        let links: Vec<LinkId> = self.going.keys().copied().collect();
        links.into_iter().for_each(|link| self.flush(link));
    }

    fn handle_transmit(&mut self, link: LinkId, data: Bytes) {
        match self.wires.get_mut(&link) {
            Some(wire) => wire.from_hub.extend_from_slice(&data),
            // The link is over; its driver knows.
            None => return self.outputs.push_back(Output::Transmit { link, data }),
        }
        while let Some(frame) = self.wires.get_mut(&link).and_then(|wire| next(&mut wire.from_hub)) {
            self.passes_to_client(link, frame);
        }
    }

    fn emit(&mut self, link: LinkId, frame: &[u8]) {
        self.going.entry(link).or_default().extend_from_slice(frame);
    }

    fn flush(&mut self, link: LinkId) {
        let Some(data) = self.going.remove(&link).filter(|data| !data.is_empty()) else { return };
        if self.wires.contains_key(&link) {
            self.outputs.push_back(Output::Transmit { link, data: data.freeze() });
        }
    }

    fn play(&mut self, trick: &'static str) {
        *self.played.entry(trick).or_default() += 1;
    }

    /// Whether a trick is played this time.
    fn draws(&mut self, trick: Trick) -> bool {
        let often = self.malice.of_a_thousand(trick);
        often > 0 && self.rng.next_u64() % 1_000 < often
    }
}

/// The next whole frame of a stream.
pub(crate) fn next(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(*buffer.first_chunk::<4>()?);
    let whole = usize::try_from(length).ok()?.checked_add(4)?;
    (buffer.remaining() >= whole).then(|| buffer.split_to(whole).freeze())
}

impl std::fmt::Debug for Mallory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mallory").field("hub", &self.hub).field("played", &self.played).finish_non_exhaustive()
    }
}
