//! What holds between the members of a protected channel: who signed a message, whether it is a copy, and what is missing.
//!
//! ```text
//!  message ──► epoch ──► signature ──► own echo? ──► seen before? ──► in time? ──► accepted
//!                            │                            │                           │ event is listened to
//!                  Signature │                   Replayed │              broadcast or beacon ──► Heard
//! ```
//! Every step before the signature costs no memory: the table below is filled by members alone.
//!
//! The replay rule: a message is accepted at most once. For an instance in the table its window tells. A message of an
//! instance that is not there (any longer) must be sent after everything that was accepted of those that went: at or below
//! that floor it may be a copy, and so it stays for that instance when it comes back, whose window is empty then.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hash::BuildHasher as _;

use super::numbers::{Heard, Last, Numbers};
use super::window::Window;
use crate::auth::{ChannelKeys, SenderKey};
use crate::canary::Canary;
use crate::hash::{Keyed, Map};
use crate::names::{ClientId, Name};
use crate::time::UnixMillis;
use crate::wire::{Header, Kind, Message};

/// Why a signed message is not accepted. Each is final for these bytes, but for what is said of `Stale` and `TooManySenders`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It is of another epoch of the channel, or of none.
    Epoch,
    /// No member of the epoch signed this.
    Signature,
    /// It was accepted before, or is so old that nobody can tell whether it was.
    Replayed,
    /// It was not accepted before, but is too old or from the future. What is from the future can still be accepted later.
    Stale,
    /// A broadcast or beacon of our own came back.
    Own,
    /// There is no room to tell whether this sender repeats itself. It was not accepted before, and can still be later.
    TooManySenders,
}

/// The keys of one epoch of a channel, and what was accepted under them.
#[derive(Debug)]
pub(super) struct Seal {
    epoch: u64,
    /// In a place of their own: keys that move leave copies behind that nobody wipes.
    secrets: Box<Secrets>,
    client: ClientId,
    instance: [u8; 16],
    senders: Senders,
    hash: Keyed,
}

#[derive(Debug)]
struct Secrets {
    keys: ChannelKeys,
    own: SenderKey,
}

/// What was accepted under keys that are gone, so that nothing is accepted again when the same keys come back.
#[derive(Debug)]
pub(super) struct Past {
    epoch: u64,
    senders: Senders,
}

impl Seal {
    /// Under these keys, nothing was accepted yet. `own` is who signs here: client and instance.
    pub(super) fn new(epoch: u64, keys: ChannelKeys, own: (&ClientId, &[u8; 16]), hash: Keyed) -> Self {
        let (client, instance) = (own.0.clone(), *own.1);
        let own = keys.sender(&instance, &client);
        let secrets = Box::new(Secrets { keys, own });
        Self { epoch, secrets, client, instance, senders: Senders::new(hash), hash }
    }

    /// The same, remembering what was accepted before the channel was left, if that was in the same epoch.
    pub(super) fn after(mut self, past: Past) -> Self {
        if past.epoch == self.epoch {
            self.senders = past.senders;
        }
        self
    }

    /// Erases the keys.
    pub(super) fn leave(self) -> Past {
        let Self { epoch, mut senders, .. } = self;
        senders.forget_keys();
        Past { epoch, senders }
    }

    /// The epoch these keys are of.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Signs a message of our own.
    pub(super) fn tag(&self, protected: &[u8], payload: &[u8]) -> [u8; 32] {
        self.secrets.own.tag(protected, payload)
    }

    /// Verifies who signed, and that this is no copy. Changes nothing unless the message is accepted.
    ///
    /// Answers, faults, items, ends and cancels name the call they belong to; whether there is one, and whether this is the
    /// first of its index, is for those to judge who know the calls.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub(super) fn accept(&mut self, message: &Message<'_>, wall: UnixMillis) -> Result<(), Rejected> {
        let header = &message.header;
        if header.epoch != self.epoch {
            return if header.epoch < self.epoch && Canary::OldEpoch.sings() { Ok(()) } else { Err(Rejected::Epoch) };
        }
        let echo = *header.instance == self.instance && matches!(header.kind, Kind::Broadcast | Kind::Beacon);
        if let Some(instance) = self.senders.find(header)
            && let Some(key) = &instance.key
        {
            verify(key, message, echo)?;
            return instance.accept(header, wall);
        }
        let key = self.sender_key(header)?;
        verify(&key, message, echo)?;
        self.senders.accept(header, key, wall)
    }

    /// Judges the number of an accepted broadcast or beacon whose event is listened to.
    pub(super) fn heard(&mut self, header: &Header<'_>) -> Heard {
        let event = self.event(header.event.as_str());
        self.senders.heard(header, event)
    }

    /// The last listener of an event is gone: its numbers begin anew with the next one.
    pub(super) fn forget_event(&mut self, event: Name<'_>) {
        let event = self.event(event.as_str());
        self.senders.retain_events(|kept| kept != event);
    }

    /// The last listener of all events is gone: only the numbers of these go on.
    pub(super) fn keep_events<'a>(&mut self, listened: impl Iterator<Item = &'a str>) {
        let mut listened: Vec<u64> = listened.map(|event| self.event(event)).collect();
        listened.sort_unstable();
        self.senders.retain_events(|kept| listened.binary_search(&kept).is_ok());
    }

    fn event(&self, name: &str) -> u64 {
        self.hash.hash_one(name)
    }

    /// What the sender of a message must have signed with. Nobody signs in the name of a hub.
    fn sender_key(&self, header: &Header<'_>) -> Result<SenderKey, Rejected> {
        if header.sender.is_reserved() || header.origin.is_reserved() {
            return Err(Rejected::Signature);
        }
        let own = *header.instance == self.instance && header.sender == self.client.as_name();
        let Secrets { keys, own: own_key } = &*self.secrets;
        Ok(if own { own_key.clone() } else { keys.sender(header.instance, header.sender.as_str()) })
    }
}

fn verify(key: &SenderKey, message: &Message<'_>, echo: bool) -> Result<(), Rejected> {
    let genuine = key.verify(message.protected, message.payload, message.tag) || Canary::Signature.sings();
    match (genuine, echo) {
        (false, _) => Err(Rejected::Signature),
        (true, true) => Err(Rejected::Own),
        (true, false) => Ok(()),
    }
}

/// Everybody of whom something was accepted.
///
/// A sender is a client of one hub. Clients of other hubs that call themselves the same are others, since only their hubs
/// know one from the other. At most [`SENDERS`]: at the cap nobody new is heard, except in the place of those who were
/// silent for longer than two clocks may be apart. Who comes back after that begins with new numbers.
#[derive(Debug)]
struct Senders {
    by_client: Map<Box<str>, Vec<Sender>>,
    /// How many there are.
    len: usize,
    /// Anything sent until then may have been accepted of somebody who has no place any longer.
    floor: Floor,
    /// Until that time nobody gives up a place.
    full_until: u64,
}

#[derive(Debug)]
struct Sender {
    origin: Box<str>,
    /// At most [`INSTANCES`].
    #[expect(clippy::vec_box, reason = "keys that move leave copies behind that nobody wipes")]
    instances: Vec<Box<Instance>>,
    /// Anything sent until then may have been accepted of an instance that has no place any longer.
    floor: Floor,
}

#[derive(Debug)]
struct Instance {
    id: [u8; 16],
    /// None where the channel was left since.
    key: Option<SenderKey>,
    /// Anything of this instance sent until then may have been accepted before it got this place.
    floor: Floor,
    window: Window,
    numbers: Numbers,
    /// When the latest message was sent that was accepted since.
    latest: u64,
}

/// A time in Unix milliseconds, or none.
type Floor = Option<u64>;

impl Senders {
    fn new(hash: Keyed) -> Self {
        Self { by_client: hash.map(), len: 0, floor: None, full_until: 0 }
    }

    fn find(&mut self, header: &Header<'_>) -> Option<&mut Instance> {
        let sender = find_sender(self.by_client.get_mut(header.sender.as_str())?, header.origin)?;
        find_instance(&mut sender.instances, header.instance)
    }

    /// Accepts a message that this key has signed, and keeps the key.
    fn accept(&mut self, header: &Header<'_>, key: SenderKey, wall: UnixMillis) -> Result<(), Rejected> {
        if let Some(instance) = self.find(header) {
            instance.accept(header, wall)?;
            instance.key = Some(key);
            return Ok(());
        }
        let placed = self.place(header, key, wall);
        match header.kind {
            Kind::Broadcast | Kind::Send | Kind::Call | Kind::Beacon => placed,
            // What is bound to a call needs no place. With one, the next of its kind is verified faster.
            Kind::Answer | Kind::Fault | Kind::Item | Kind::End | Kind::Cancel => Ok(()),
        }
    }

    /// A place is earned by a fresh message that cannot have been accepted before: what is replayed pushes nobody out.
    fn place(&mut self, header: &Header<'_>, key: SenderKey, wall: UnixMillis) -> Result<(), Rejected> {
        let (client, origin) = (header.sender.as_str(), header.origin);
        let known = self.by_client.get_mut(client).and_then(|senders| find_sender(senders, origin));
        let floor = known.as_ref().map_or(self.floor, |sender| sender.floor);
        if Some(header.sent_at) <= floor {
            return Err(Rejected::Replayed);
        }
        if !is_in_time(header, wall) {
            return Err(Rejected::Stale);
        }
        let instance = Instance::new(header, key, floor);
        match known {
            Some(sender) => sender.place(instance),
            None => {
                self.make_room(wall)?;
                self.len += 1;
                self.full_until = self.full_until.min(silent_after(instance.latest));
                let sender = Sender::new(origin, floor, instance);
                self.by_client.entry(Box::from(client)).or_default().push(sender);
            }
        }
        Ok(())
    }

    fn make_room(&mut self, wall: UnixMillis) -> Result<(), Rejected> {
        if self.len >= SENDERS && wall.0 > self.full_until {
            self.forget_senders(wall);
        }
        if self.len < SENDERS { Ok(()) } else { Err(Rejected::TooManySenders) }
    }

    /// Forgets everybody who is silent. The floor stands in for their windows, whatever the clock does, and is too low for
    /// what somebody new says now.
    fn forget_senders(&mut self, wall: UnixMillis) {
        let Self { by_client, len, floor, full_until } = self;
        *full_until = u64::MAX;
        by_client.retain(|_, senders| {
            senders.retain(|sender| {
                let latest = sender.instances.iter().map(|instance| instance.latest).max().unwrap_or(0);
                let silent = wall.0 > silent_after(latest);
                if silent {
                    *floor = Some(latest).max(*floor);
                    *len -= 1;
                } else {
                    *full_until = silent_after(latest).min(*full_until);
                }
                !silent
            });
            !senders.is_empty()
        });
    }

    /// Forgets all keys and where the events stand, but not what was accepted.
    fn forget_keys(&mut self) {
        self.instances().for_each(|instance| {
            instance.key = None;
            instance.numbers = Numbers::default();
        });
    }

    fn heard(&mut self, header: &Header<'_>, event: u64) -> Heard {
        let Some(senders) = self.by_client.get_mut(header.sender.as_str()) else { return Heard::Nothing };
        let this = Last { event, bseq: header.bseq, seq: header.seq };
        // A client whose hub comes back as another one goes on with its numbers, and what is lost meanwhile is missing.
        let elsewhere = senders.iter().filter(|sender| *sender.origin != *header.origin.as_str());
        let instances = elsewhere.flat_map(|sender| &sender.instances).filter(|it| it.id == *header.instance);
        let earlier = instances.filter_map(|it| it.numbers.last(event)).filter(|last| *last < this.bseq).max();

        let sender = find_sender(senders, header.origin);
        let instance = sender.and_then(|sender| find_instance(&mut sender.instances, header.instance));
        let Some(instance) = instance else { return Heard::Nothing };
        match header.kind {
            Kind::Broadcast => instance.numbers.broadcast(this, earlier),
            Kind::Beacon => instance.numbers.beacon(this, instance.window.top(), earlier),
            Kind::Send | Kind::Call | Kind::Answer | Kind::Fault | Kind::Item | Kind::End | Kind::Cancel => {
                Heard::Nothing
            }
        }
    }

    fn retain_events(&mut self, keep: impl Fn(u64) -> bool) {
        self.instances().for_each(|instance| instance.numbers.retain(&keep));
    }

    fn instances(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.by_client.values_mut().flatten().flat_map(|sender| &mut sender.instances).map(|instance| &mut **instance)
    }
}

fn find_sender<'a>(senders: &'a mut [Sender], origin: Name<'_>) -> Option<&'a mut Sender> {
    senders.iter_mut().find(|sender| *sender.origin == *origin.as_str())
}

fn find_instance<'a>(instances: &'a mut [Box<Instance>], id: &[u8; 16]) -> Option<&'a mut Instance> {
    instances.iter_mut().find(|instance| instance.id == *id).map(|instance| &mut **instance)
}

impl Sender {
    fn new(origin: Name<'_>, floor: Floor, instance: Instance) -> Self {
        Self { origin: Box::from(origin.as_str()), instances: alloc::vec![Box::new(instance)], floor }
    }

    /// Gives an instance its place, at the cap that of the one that was heard of longest ago by its own clock. So the floor
    /// rises as little as can be, and one whose clock was wrong once shuts nobody out.
    fn place(&mut self, instance: Instance) {
        if self.instances.len() >= INSTANCES {
            let oldest = self.instances.iter().enumerate().min_by_key(|(_, instance)| instance.latest);
            let oldest = oldest.map(|(at, _)| at).map(|at| self.instances.swap_remove(at));
            self.floor = oldest.map(|oldest| oldest.latest).max(self.floor);
        }
        self.instances.reserve_exact(1);
        self.instances.push(Box::new(instance));
    }
}

impl Instance {
    /// With a fresh message, which counts as accepted.
    fn new(header: &Header<'_>, key: SenderKey, floor: Floor) -> Self {
        let (window, numbers, key) = (Window::default(), Numbers::default(), Some(key));
        let mut new = Self { id: *header.instance, key, floor, window, numbers, latest: 0 };
        new.remember(header);
        new
    }

    /// Accepts a message whose signature holds.
    fn accept(&mut self, header: &Header<'_>, wall: UnixMillis) -> Result<(), Rejected> {
        let (numbered, timed) = match header.kind {
            Kind::Broadcast => (true, false),
            Kind::Send | Kind::Call => (true, true),
            Kind::Beacon => (false, true),
            Kind::Answer | Kind::Fault | Kind::Item | Kind::End | Kind::Cancel => return Ok(()),
        };
        if Some(header.sent_at) <= self.floor || (numbered && !self.window.is_new(header.seq)) {
            return Err(Rejected::Replayed);
        }
        if timed && !is_in_time(header, wall) {
            return Err(Rejected::Stale);
        }
        self.remember(header);
        Ok(())
    }

    fn remember(&mut self, header: &Header<'_>) {
        if matches!(header.kind, Kind::Broadcast | Kind::Send | Kind::Call) {
            self.window.mark(header.seq);
        }
        self.latest = self.latest.max(header.sent_at);
    }
}

/// Whether a message may be on its way still, by clocks that differ by no more than [`SKEW`].
fn is_in_time(header: &Header<'_>, wall: UnixMillis) -> bool {
    header.sent_at <= wall.0.saturating_add(SKEW) && wall.0 <= last_moment(header)
}

/// The last moment at which a message is in time. What time is left is said in requests and broadcasts only.
fn last_moment(header: &Header<'_>) -> u64 {
    let time_left = match header.kind {
        Kind::Broadcast | Kind::Send | Kind::Call => header.time_left,
        Kind::Answer | Kind::Fault | Kind::Item | Kind::End | Kind::Cancel | Kind::Beacon => 0,
    };
    header.sent_at.saturating_add(time_left).saturating_add(SKEW)
}

/// When somebody who sent the last message at this time is silent for longer than two clocks may be apart.
const fn silent_after(latest: u64) -> u64 {
    latest.saturating_add(SKEW)
}

/// How far two clocks may be apart, in milliseconds.
const SKEW: u64 = 120_000;
/// Clients that are heard on one channel, so that nobody's names fill our memory. Then [`Rejected::TooManySenders`].
const SENDERS: usize = 1_024;
/// Instances of one sender: one lives, the others are those it had before. Then the oldest gives up its place.
const INSTANCES: usize = 8;
