//! What a malicious hub does to what passes, and how often.

use bytes::{Bytes, BytesMut};
use commipc_protocol::wire::{
    Control as _, Done, Fail, FrameType, JoinChallenge, Kind, ROUTE_BY_HUB, TAG_LEN, Welcome,
};
use commipc_protocol::{ClientId, LinkId, Refusal};
use rand_core::Rng as _;

use super::forgery::{self, Field};
use super::{Mallory, SEEN, Seen};
use crate::station::{Told, Withheld};

/// Something that a hub can try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trick {
    /// Changes one field of a message.
    Alter,
    /// Takes a message's signature away.
    Strip,
    /// Makes a message up in a member's name.
    Forge,
    /// Gives a message once more.
    Replay,
    /// Gives a member its own message.
    Return,
    /// Exchanges the answers of two calls.
    Swap,
    /// Says that a call was not executed whose answer it holds.
    Deny,
    /// Keeps the pieces of a stream back from one on, and lets its end pass.
    Cut,
    /// Keeps a stream's end back, and nothing else of it.
    KeepEnd,
    /// Keeps one piece of a stream back.
    Skip,
    /// Gives a piece of a stream twice.
    Double,
    /// Gives a piece of a stream after the next one.
    Reorder,
    /// Exchanges pieces of two streams.
    Switch,
    /// Grants more of a stream than is wanted.
    Grant,
    /// Keeps broadcasts back.
    Hide,
    /// Keeps beacons back.
    HideBeacons,
    /// Answers an opening with a password as if the channel were unprotected, or without the hub's own proof.
    Downgrade,
    /// Asks for the proof of an earlier protection.
    RollBack,
    /// Confirms a new password to the owner that nobody else hears of.
    HideRotation,
    /// Keeps its word on what an owner asked for back, and says it after its word on something newer.
    Late,
    /// Welcomes whom it cannot prove anything to.
    Admit,
}

impl Trick {
    /// As it is told.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alter => "alters",
            Self::Strip => "strips a signature",
            Self::Forge => "forges a message",
            Self::Replay => "replays a message",
            Self::Return => "returns a member's own message",
            Self::Swap => "swaps two answers",
            Self::Deny => "denies that a call was executed",
            Self::Cut => "cuts a stream",
            Self::KeepEnd => "keeps a stream's end back",
            Self::Skip => "skips a piece of a stream",
            Self::Double => "doubles a piece of a stream",
            Self::Reorder => "reorders the pieces of a stream",
            Self::Switch => "switches pieces of two streams",
            Self::Grant => "grants more than is wanted",
            Self::Hide => "hides a broadcast",
            Self::HideBeacons => "hides a beacon",
            Self::Downgrade => "downgrades a protected channel",
            Self::RollBack => "rolls a protection back",
            Self::HideRotation => "hides a rotation",
            Self::Late => "says an older word after a newer",
            Self::Admit => "welcomes without a proof",
        }
    }
}

/// How often each trick is played, of a thousand occasions.
#[derive(Clone, Debug, Default)]
pub struct Malice {
    often: Vec<(Trick, u64)>,
    /// On unprotected channels as well.
    unsigned: bool,
    /// The only field that it alters.
    field: Option<Field>,
}

impl Malice {
    /// None at all.
    #[must_use]
    pub const fn none() -> Self {
        Self { often: Vec::new(), unsigned: false, field: None }
    }

    /// Plays a trick on every occasion.
    #[must_use]
    pub fn always(trick: Trick) -> Self {
        Self::none().and(trick, 1_000)
    }

    /// Alters this field on so many of a thousand occasions, and nothing else.
    #[must_use]
    pub fn altering(field: Field, of_a_thousand: u64) -> Self {
        Self { field: Some(field), ..Self::none().and(Trick::Alter, of_a_thousand) }
    }

    /// Plays a trick on so many of a thousand occasions.
    #[must_use]
    pub fn and(mut self, trick: Trick, of_a_thousand: u64) -> Self {
        self.often.push((trick, of_a_thousand));
        self
    }

    /// On unprotected channels as well, where nobody claims that it fails.
    #[must_use]
    pub const fn everywhere(mut self) -> Self {
        self.unsigned = true;
        self
    }

    /// Everything that no member may fall for, now and then.
    #[must_use]
    pub fn all() -> Self {
        [
            (Trick::Alter, 150),
            (Trick::Strip, 30),
            (Trick::Forge, 60),
            (Trick::Replay, 120),
            (Trick::Return, 60),
            (Trick::Swap, 150),
            (Trick::Deny, 30),
            (Trick::Cut, 10),
            (Trick::Skip, 10),
            (Trick::Double, 60),
            (Trick::Reorder, 20),
            (Trick::Switch, 60),
            (Trick::Grant, 100),
            (Trick::Hide, 60),
            (Trick::Downgrade, 60),
            (Trick::RollBack, 500),
            (Trick::Admit, 300),
        ]
        .into_iter()
        .fold(Self::none(), |malice, (trick, often)| malice.and(trick, often))
    }

    pub(super) fn of_a_thousand(&self, trick: Trick) -> u64 {
        self.often.iter().find(|(known, _)| *known == trick).map_or(0, |(_, often)| *often)
    }
}

/// What goes to a client.
impl Mallory {
    pub(super) fn passes_to_client(&mut self, link: LinkId, frame: Bytes) {
        let kind = frame.get(4).copied().and_then(FrameType::from_number);
        if kind == Some(FrameType::Challenge) {
            self.keeps_challenge(link, &frame);
        }
        if kind == Some(FrameType::JoinChallenge) && self.challenges(link, &frame) {
            return;
        }
        if kind == Some(FrameType::Done)
            && let Some(Ok(done)) = frame.get(5..).map(Done::parse)
        {
            if !self.proves(link, &done) {
                self.emit(link, &frame);
                self.says_late(link, &done);
            }
            return;
        }
        if kind == Some(FrameType::AuthFailed) && self.draws(Trick::Admit) {
            return self.welcomes(link);
        }
        let Some((_, _, message)) = forgery::parts(&frame) else { return self.emit(link, &frame) };
        if message.header.epoch == 0 && !self.malice.unsigned {
            return self.emit(link, &frame);
        }
        let by = message.header.sender.as_str().to_owned();
        let Some(to) = self.wires.get(&link).and_then(|wire| wire.client.clone()) else {
            return self.emit(link, &frame);
        };
        if !self.keeps_back(link, &to, &by, &frame) {
            self.emit(link, &frame);
            self.remember(Seen { to: to.clone(), by, frame: frame.clone() });
        }
        self.adds(link, &to, &frame);
    }

    fn remember(&mut self, seen: Seen) {
        if self.seen.len() >= SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }

    /// Gives something else instead of a message, or nothing.
    fn keeps_back(&mut self, link: LinkId, to: &ClientId, by: &str, frame: &Bytes) -> bool {
        let Some((kind, _, message)) = forgery::parts(frame) else { return false };
        let is_reply = matches!(message.header.kind, Kind::Answer | Kind::Fault);
        if self.breaks_stream(link, to, by, frame) {
            return true;
        }
        if kind == FrameType::Broadcast && self.draws(Trick::Hide)
            || kind == FrameType::Beacon && self.draws(Trick::HideBeacons)
        {
            let trick = if kind == FrameType::Broadcast { Trick::Hide } else { Trick::HideBeacons };
            self.instead(link, to, by, frame, None, trick.name());
        } else if self.draws(Trick::Alter) {
            let drawn = Field::ALL[(self.rng.next_u64() % Field::ALL.len() as u64) as usize];
            let field = self.malice.field.unwrap_or(drawn);
            let Some(changed) = forgery::altered(frame, field) else { return false };
            self.instead(link, to, by, frame, Some(&changed), field.name());
        } else if self.draws(Trick::Strip)
            && let Some(stripped) = forgery::stripped(frame)
        {
            self.instead(link, to, by, frame, Some(&stripped), Trick::Strip.name());
        } else if is_reply && self.draws(Trick::Deny) {
            let Some(fail) = denial(frame) else { return false };
            self.instead(link, to, by, frame, Some(&fail), Trick::Deny.name());
        } else if is_reply {
            return self.swaps(link, to, by, frame);
        } else {
            return false;
        }
        true
    }

    pub(super) fn instead(
        &mut self,
        link: LinkId,
        to: &ClientId,
        by: &str,
        frame: &[u8],
        what: Option<&[u8]>,
        trick: &'static str,
    ) {
        self.play(trick);
        self.withhold(to, by, frame);
        if let Some(what) = what {
            self.emit(link, what);
        }
    }

    /// Tells that somebody will never be given this.
    pub(super) fn withhold(&mut self, from: &ClientId, by: &str, frame: &[u8]) {
        let Some((_, _, message)) = forgery::parts(frame).filter(|(_, _, message)| message.payload.len() >= UNIQUE)
        else {
            return;
        };
        let Ok(sender) = ClientId::new(by) else { return };
        let what = Withheld { sender, payload: Bytes::copy_from_slice(message.payload) };
        if message.header.epoch > 0 && self.withheld.insert((from.clone(), what.clone())) {
            self.outputs.push_back(commipc_protocol::Output::Event(Told::Withheld { from: from.clone(), what }));
        }
    }

    /// Holds an answer until there is another one for the same caller, and gives each to the other's call.
    fn swaps(&mut self, link: LinkId, to: &ClientId, by: &str, frame: &Bytes) -> bool {
        let held = self.wires.get_mut(&link).and_then(|wire| wire.held.take());
        if let Some(held) = held {
            let (one, two) = (forgery::route(&held), forgery::route(frame));
            let first = two.and_then(|route| forgery::rerouted(&held, route));
            let second = one.and_then(|route| forgery::rerouted(frame, route));
            if let (Some(first), Some(second)) = (first, second) {
                self.instead(link, to, by, frame, Some(&second), Trick::Swap.name());
                self.emit(link, &first);
                return true;
            }
        } else if self.draws(Trick::Swap)
            && let Some(wire) = self.wires.get_mut(&link)
        {
            wire.held = Some(frame.clone());
            self.withhold(to, by, frame);
            return true;
        }
        false
    }

    /// Gives something besides.
    fn adds(&mut self, link: LinkId, to: &ClientId, frame: &Bytes) {
        if self.draws(Trick::Forge) {
            self.serial += 1;
            let mut made_up = [0; 32];
            self.rng.fill_bytes(&mut made_up);
            if let Some(forged) = forgery::forged(frame, self.serial, &made_up) {
                self.play(Trick::Forge.name());
                self.emit(link, &forged);
            }
        }
        if self.draws(Trick::Replay) {
            let again: Vec<Seen> = self.seen.iter().filter(|seen| seen.to == *to).cloned().collect();
            self.gives_again(link, to, &again, Trick::Replay);
        }
        if self.draws(Trick::Return) {
            let own: Vec<Seen> = self.seen.iter().filter(|seen| seen.by == to.as_str()).cloned().collect();
            self.gives_again(link, to, &own, Trick::Return);
        }
    }

    fn gives_again(&mut self, link: LinkId, to: &ClientId, from: &[Seen], trick: Trick) {
        let drawn = self.rng.next_u64() as usize;
        let Some(seen) = from.get(drawn % from.len().max(1)) else { return };
        let Some((kind, _, message)) = forgery::parts(&seen.frame) else { return };
        let known = ClientId::new(&seen.by)
            .ok()
            .map(|sender| Withheld { sender, payload: Bytes::copy_from_slice(message.payload) });
        if known.is_some_and(|what| self.withheld.contains(&(to.clone(), what))) {
            return;
        }
        // A call needs a route that nobody uses.
        self.serial += 1;
        let route = ROUTE_BY_HUB | (0x3f00_0000 + (self.serial as u32 & 0xffff));
        let frame =
            if kind == FrameType::Call { forgery::rerouted(&seen.frame, route) } else { Some(seen.frame.to_vec()) };
        if let Some(frame) = frame {
            self.play(trick.name());
            self.emit(link, &frame);
        }
    }
}

/// What openings are answered with.
impl Mallory {
    /// Answers an opening that should be challenged; or asks for the proof of an earlier protection.
    fn challenges(&mut self, link: LinkId, frame: &[u8]) -> bool {
        let Some(Ok(challenge)) = frame.get(5..).map(JoinChallenge::parse) else { return false };
        let Some(channel) = self.wires.get(&link).and_then(|wire| wire.opens.get(&challenge.id)).cloned() else {
            return false;
        };
        let records = self.records.entry(channel.clone()).or_default();
        if !records.contains(&(challenge.epoch, *challenge.salt)) {
            records.push((challenge.epoch, *challenge.salt));
        }
        let earlier: Vec<_> = records.iter().copied().filter(|(epoch, _)| *epoch < challenge.epoch).collect();
        let mut body = BytesMut::new();
        if self.draws(Trick::Downgrade) {
            let made_up = [7; 32];
            let (epoch, proof) = match self.rng.next_u64() % 3 {
                0 => (None, None),
                1 => (Some(0), None),
                _ => (Some(challenge.epoch), Some(&made_up)),
            };
            Done { id: challenge.id, code: 0, epoch, owner: Some(false), last_epoch: None, owned_by: None, proof }
                .encode(&mut body);
            return self.answers(link, FrameType::Done, &body, Trick::Downgrade);
        }
        let drawn = self.rng.next_u64() as usize;
        if let Some((epoch, salt)) = earlier.get(drawn % earlier.len().max(1))
            && self.draws(Trick::RollBack)
        {
            self.asks_back(link, channel, &challenge, *epoch);
            JoinChallenge { epoch: *epoch, salt, ..challenge }.encode(&mut body);
            return self.answers(link, FrameType::JoinChallenge, &body, Trick::RollBack);
        }
        false
    }

    /// Takes the hub's own proof out of the answer to a join.
    fn proves(&mut self, link: LinkId, done: &Done<'_>) -> bool {
        if done.proof.is_none() || !self.draws(Trick::Downgrade) {
            return false;
        }
        let mut body = BytesMut::new();
        Done { proof: None, ..*done }.encode(&mut body);
        self.answers(link, FrameType::Done, &body, Trick::Downgrade)
    }

    fn welcomes(&mut self, link: LinkId) {
        let Some(asked) = self.wires.get(&link).and_then(|wire| wire.asked.clone()) else { return };
        let mut proof = [0; 32];
        self.rng.fill_bytes(&mut proof);
        let mut body = BytesMut::new();
        let (session, client, capabilities, frame, insecure) = (1, asked.as_name(), 0, 1 << 20, false);
        Welcome { session, client, capabilities, frame, insecure, refused: None, proof: &proof }.encode(&mut body);
        self.answers(link, FrameType::Welcome, &body, Trick::Admit);
        // Where frames are tagged a tag belongs to it, and where they are not it comes too late to matter.
        self.emit(link, &[0; TAG_LEN]);
    }

    fn answers(&mut self, link: LinkId, kind: FrameType, body: &[u8], trick: Trick) -> bool {
        let frame = forgery::frame(kind, body);
        if let Some(frame) = &frame {
            self.play(trick.name());
            self.emit(link, frame);
        }
        frame.is_some()
    }
}

/// Payloads of this length are as good as unique.
const UNIQUE: usize = 16;

/// Says that the call which a reply belongs to was not executed.
fn denial(frame: &[u8]) -> Option<Vec<u8>> {
    let mut body = BytesMut::new();
    body.extend_from_slice(&forgery::route(frame)?.to_be_bytes());
    Fail { code: Refusal::NoProvider.code() }.encode(&mut body);
    forgery::frame(FrameType::Fail, &body)
}
