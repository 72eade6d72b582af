//! Channels that are protected at another hub: joining them from here, and being the home of members elsewhere.
//!
//! ```text
//!   client ── OPEN ──► its hub ── REMOTE ──► … ──► home: a nonce        the hubs between keep whose request it is
//!          ◄─ JOIN_CHALLENGE ─┘◄── TOLD ──────────┘
//!          ── JOIN ──► its hub ── REMOTE ──► … ──► home: is the proof right?
//!          ◄─ DONE ───────────┘◄── TOLD ──────────┘
//! ```
//! An owner elsewhere goes the same way, with OPERATE instead of OPEN and JOIN: see [`super::afar`].
//!
//! What checks a password is nowhere but at the channel's home. Other hubs know how its keys are derived, and carry the proof.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::BuildHasher as _;

use super::afar::Aim;
use super::registry::LinkIx;
use super::routes::{Goal, Place, Realm};
use super::session::Session;
use super::throttle::Guesser;
use super::{DisconnectReason, Due, Hub};
use crate::auth::{JoinTranscript, Kdf, TranscriptHash};
use crate::error::{Refusal, Violation};
use crate::names::{Address, ChannelName, ClientId, HubId, Name};
use crate::policy::EPOCH_MAX;
use crate::time::TimerReason;
use crate::timers::TimerId;
use crate::wire::{Control as _, Frame, FrameType, Join, JoinChallenge, Open, Remote, Told};

/// Joins and owner operations on their way from or to other hubs, by this hub's numbers, and by what they are called where
/// they come from.
#[derive(Debug, Default)]
pub(super) struct Errands {
    by_number: BTreeMap<u64, Errand>,
    by_origin: BTreeMap<(LinkIx, u64), u64>,
    /// How many each link has.
    held: BTreeMap<LinkIx, usize>,
    last: u64,
}

/// A join or an operation that is not decided.
#[derive(Debug)]
pub(super) struct Errand {
    /// Where it comes from, and its number there: the request of a client, or that of the hub behind a bridge.
    pub(super) from: LinkIx,
    pub(super) id: u64,
    pub(super) channel: ChannelName,
    pub(super) realm: Realm,
    pub(super) member: Address,
    pub(super) stage: Stage,
    /// Of a client of this hub.
    pub(super) aim: Aim,
    timer: TimerId,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Stage {
    /// The next hub on the way was asked, over this link.
    Sent(LinkIx, Leg),
    /// The home is here, and has given this nonce.
    Challenged([u8; 32]),
    /// The home is here, and says no when the time comes.
    Failing(Refusal),
    /// A client of this hub was told no, and its answer to a challenge may be on its way.
    Ended,
}

/// What has passed between who asks and the home. Each comes once: whoever says it again is no home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// A challenge is asked for.
    Asked,
    /// It was given.
    Challenged,
    /// It was met, or so somebody says.
    Proved,
}

/// What is asked of a home.
pub(super) const CHALLENGE: u64 = 0;
const PROOF: u64 = 1;
pub(super) const OPERATE: u64 = 2;

/// The longest operation, in bytes: a name, a record and a proof are less than half of it.
const OPERATION_MAX: usize = 1 << 10;

impl Errands {
    fn add(&mut self, errand: Errand) -> u64 {
        self.last += 1;
        self.by_origin.insert((errand.from, errand.id), self.last);
        *self.held.entry(errand.from).or_default() += 1;
        self.by_number.insert(self.last, errand);
        self.last
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Errand> {
        self.by_number.get_mut(&number)
    }

    fn remove(&mut self, number: u64) -> Option<Errand> {
        let errand = self.by_number.remove(&number)?;
        self.by_origin.remove(&(errand.from, errand.id));
        if let Some(held) = self.held.get_mut(&errand.from) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&errand.from);
            }
        }
        Some(errand)
    }

    pub(super) fn of(&self, from: LinkIx, id: u64) -> Option<u64> {
        self.by_origin.get(&(from, id)).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }
}

/// What a client of this hub asks.
impl Hub {
    /// The channel elsewhere that a name stands for here: one whose members this hub has already, or else the nearest.
    pub(super) fn realm_elsewhere(&self, channel: Name<'_>) -> Option<Realm> {
        match self.registry.by_name(channel) {
            Some((_, here)) => here.guard.mirror.clone(),
            None => self.bridges.routes.nearest_home(channel).map(|(realm, _)| realm),
        }
    }

    /// Asks the home of a channel for a challenge.
    pub(super) fn open_elsewhere(&mut self, ix: LinkIx, open: &Open<'_>, realm: Realm) -> Result<(), Refusal> {
        if open.record.is_some() {
            return Err(Refusal::ProtectionConflict);
        }
        let channel = ChannelName::new(open.channel.as_str()).map_err(|_| Refusal::NameReserved)?;
        self.ask_challenge(ix, open.id, channel, realm, Aim::Join)
    }

    /// Asks it in the name of a client of this hub, whatever the client then wants.
    pub(super) fn ask_challenge(
        &mut self,
        ix: LinkIx,
        id: u64,
        channel: ChannelName,
        realm: Realm,
        aim: Aim,
    ) -> Result<(), Refusal> {
        let member = self.links.get(ix).and_then(Session::member).ok_or(Refusal::NotMember)?;
        let address = Address { client: member.client.clone(), hub: self.id.clone() };
        if self.bridges.errands.of(ix, id).is_some() {
            return Err(Refusal::Overloaded);
        }
        let (of, by) = (channel.clone(), address.clone());
        let home = realm.home.clone().ok_or(Refusal::HomeGone)?;
        let remote = Remote {
            id,
            home: home.as_name(),
            channel: of.as_name(),
            asks: CHALLENGE,
            hub: by.hub.as_name(),
            client: by.client.as_name(),
            epoch: realm.epoch,
            nonce: None,
            kind: None,
            body: None,
            proof: None,
        };
        self.run_errand(ix, (channel, realm, address), &remote, (aim, self.limits.joins))
    }

    /// A client's proof for a channel elsewhere; `false` if it is for one of this hub's.
    pub(super) fn join_elsewhere(&mut self, ix: LinkIx, join: &Join<'_>) -> bool {
        let Some(number) = self.bridges.errands.of(ix, join.id) else { return false };
        let Some(errand) = self.bridges.errands.by_number.get_mut(&number) else { return false };
        let same = errand.channel.as_name() == join.channel && errand.realm.epoch == join.epoch;
        let same = same && matches!(errand.aim, Aim::Join);
        let (&Stage::Sent(link, Leg::Challenged), true) = (&errand.stage, same) else {
            let told = matches!(errand.stage, Stage::Ended);
            self.drop_errand(number);
            if !told {
                self.done(ix, join.id, Err(Refusal::EpochMismatch));
            }
            return true;
        };
        errand.stage = Stage::Sent(link, Leg::Proved);
        let (realm, member) = (errand.realm.clone(), errand.member.clone());
        let Some(home) = &realm.home else { return true };
        let remote = Remote {
            id: number,
            home: home.as_name(),
            channel: join.channel,
            asks: PROOF,
            hub: member.hub.as_name(),
            client: member.client.as_name(),
            epoch: join.epoch,
            nonce: Some(join.nonce),
            kind: None,
            body: None,
            proof: Some(join.proof),
        };
        self.say_remote(link, &remote);
        true
    }

    /// Sends a request on to the home, under a number of this hub's.
    pub(super) fn run_errand(
        &mut self,
        from: LinkIx,
        (channel, realm, member): (ChannelName, Realm, Address),
        remote: &Remote<'_>,
        (aim, most): (Aim, usize),
    ) -> Result<(), Refusal> {
        if self.bridges.errands.held.get(&from).copied().unwrap_or(0) >= most || self.is_full() {
            return Err(Refusal::Overloaded);
        }
        let home = HubId::new(remote.home.as_str()).map_err(|_| Refusal::HomeGone)?;
        let place = Place { channel: channel.clone(), realm: realm.clone(), goal: Goal::Home(home) };
        let best = self.bridges.routes.best(&place).filter(|(link, _)| *link != from);
        let link = best.map(|(link, _)| *link).ok_or(Refusal::HomeGone)?;
        let number = self.keep_errand(from, remote.id, (channel, realm, member), (aim, Stage::Sent(link, Leg::Asked)));
        self.say_remote(link, &Remote { id: number, ..remote.clone() });
        Ok(())
    }

    fn keep_errand(
        &mut self,
        from: LinkIx,
        id: u64,
        (channel, realm, member): (ChannelName, Realm, Address),
        (aim, stage): (Aim, Stage),
    ) -> u64 {
        let due = Due::Errand(self.bridges.errands.last + 1);
        let timer = self.timers.insert(self.now.mono + self.limits.join, TimerReason::Join, due);
        self.bridges.errands.add(Errand { from, id, channel, realm, member, stage, aim, timer })
    }

    pub(super) fn say_remote(&mut self, link: LinkIx, remote: &Remote<'_>) {
        if let Some(session) = self.links.get_mut(link) {
            session.outbox.push(&mut self.pool, FrameType::Remote, |out| remote.encode(out));
        }
        self.check_outbox(link);
    }
}

/// What a hub behind a bridge asks.
impl Hub {
    pub(super) fn handle_remote(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let remote = super::conversation::parse::<Remote<'_>>(frame)?;
        if !self.bridges.is_port(ix) {
            return Ok(());
        }
        let result = match (remote.asks, self.bridges.errands.of(ix, remote.id)) {
            (CHALLENGE, None) => self.asked_from_afar(ix, &remote),
            (PROOF, Some(number)) => {
                self.proved_from_afar(number, &remote);
                Ok(())
            }
            // Longer than any is: a bridge that is not honest makes the next link's frames too long by it.
            (OPERATE, Some(number)) if remote.body.is_some_and(|body| body.len() > OPERATION_MAX) => {
                self.drop_errand(number);
                Err(Refusal::NotAllowed)
            }
            (OPERATE, Some(number)) => {
                self.operated_from_afar(ix, number, &remote, frame);
                Ok(())
            }
            (CHALLENGE, Some(_)) => return Ok(()),
            (PROOF | OPERATE, None) => Err(Refusal::Deadline),
            (_, _) => return Err(Violation::BadControl.into()),
        };
        if let Err(refusal) = result {
            self.tell_afar(ix, &Told::bare(remote.id, refusal.code()));
        }
        Ok(())
    }

    fn asked_from_afar(&mut self, ix: LinkIx, remote: &Remote<'_>) -> Result<(), Refusal> {
        let channel = ChannelName::new(remote.channel.as_str()).map_err(|_| Refusal::NameReserved)?;
        let client = ClientId::new(remote.client.as_str()).map_err(|_| Refusal::IdNotAllowed)?;
        let hub = HubId::new(remote.hub.as_str()).map_err(|_| Refusal::IdNotAllowed)?;
        let home = HubId::new(remote.home.as_str()).map_err(|_| Refusal::HomeGone)?;
        if hub == self.id || remote.channel.is_reserved() {
            return Err(Refusal::NotAllowed);
        }
        let (realm, member) = (Realm { home: Some(home.clone()), epoch: remote.epoch }, Address { client, hub });
        if home != self.id {
            return self.run_errand(ix, (channel, realm, member), remote, (Aim::Join, self.limits.bridge_calls));
        }
        let full = self.bridges.errands.held.get(&ix).copied().unwrap_or(0) >= self.limits.bridge_calls;
        if full || self.is_full() {
            return Err(Refusal::Overloaded);
        }
        let nonce: [u8; 32] = self.channel_nonces.bytes();
        let guard = self.registry.by_name(remote.channel).map(|(_, here)| &here.guard);
        let guard = guard.filter(|guard| guard.mirror.is_none()).ok_or(Refusal::NoSuchChannel)?;
        let protection = guard.protection.as_ref().ok_or(Refusal::NotProtected)?;
        let (kdf, salt, iterations) = (protection.kdf.id(), protection.salt, u64::from(protection.iterations));
        let epoch = guard.epoch();
        let realm = Realm { epoch, ..realm };
        self.keep_errand(ix, remote.id, (channel, realm, member), (Aim::Join, Stage::Challenged(nonce)));
        let boot = self.boot;
        let told = Told {
            id: remote.id,
            code: 0,
            epoch: Some(epoch),
            kdf: Some(kdf),
            salt: Some(&salt),
            iterations: Some(iterations),
            nonce: Some(&nonce),
            boot: Some(&boot),
            ended: None,
            proof: None,
        };
        self.tell_afar(ix, &told);
        Ok(())
    }

    /// A proof goes on to the home, or is judged here.
    fn proved_from_afar(&mut self, number: u64, remote: &Remote<'_>) {
        let Some(errand) = self.bridges.errands.by_number.get_mut(&number) else { return };
        let nonce = match errand.stage {
            Stage::Sent(link, Leg::Challenged) => {
                errand.stage = Stage::Sent(link, Leg::Proved);
                return self.say_remote(link, &Remote { id: number, ..remote.clone() });
            }
            Stage::Sent(_, Leg::Asked | Leg::Proved) | Stage::Failing(_) | Stage::Ended => return,
            Stage::Challenged(nonce) => nonce,
        };
        let (from, id) = (errand.from, errand.id);
        let (epoch, member, channel) = (errand.realm.epoch, errand.member.clone(), errand.channel.clone());
        let (Some(nonce_client), Some(proof)) = (remote.nonce, remote.proof) else {
            return self.end_errand(number, Err(Refusal::PasswordWrong));
        };
        let transcript = TranscriptHash::remote(&self.id, &self.boot, nonce_client, &nonce);
        let transcript = JoinTranscript::new(&transcript, &channel, epoch, nonce_client, &nonce, &member.client);
        let guard = self.registry.by_name(channel.as_name()).map(|(_, here)| &here.guard);
        let protection = guard.filter(|guard| guard.epoch() == epoch).and_then(|guard| guard.protection.as_ref());
        let (Some(protection), Some(transcript)) = (protection, transcript) else {
            return self.end_errand(number, Err(Refusal::EpochMismatch));
        };
        let guesser = self.far_guesser(from, &member, &channel, "join");
        let ended = guard.and_then(|guard| guard.ended);
        if let Some(proven) = protection.verifier.verify(&transcript, proof) {
            self.throttle.succeeded(guesser);
            self.drop_errand(number);
            self.tell_afar(from, &Told { ended, proof: Some(proven.hub_proof()), ..Told::bare(id, 0) });
            return;
        }
        self.fail_errand(number, guesser, Refusal::PasswordWrong);
    }

    /// Refuses a proof that is wrong: at once the first few times, then later and later.
    pub(super) fn fail_errand(&mut self, number: u64, guesser: Guesser, refusal: Refusal) {
        let wait = self.throttle.failed(guesser, self.now.mono, &self.limits);
        if wait.is_zero() {
            return self.end_errand(number, Err(refusal));
        }
        let timer = self.timers.insert(self.now.mono + wait, TimerReason::JoinFailed, Due::Errand(number));
        if let Some(errand) = self.bridges.errands.by_number.get_mut(&number) {
            errand.stage = Stage::Failing(refusal);
            self.timers.cancel(core::mem::replace(&mut errand.timer, timer));
        }
    }

    /// Whoever guesses from afar is told by its name and by the bridge it comes over: names are made up easily, and all
    /// that come over one bridge together wait when there are many.
    pub(super) fn far_guesser(&self, link: LinkIx, member: &Address, channel: &str, what: &str) -> Guesser {
        let source = self.links.get(link).map_or(super::Source::Local, |session| session.source);
        (source, self.hash.hash_one((what, member.client.as_str(), member.hub.as_str(), channel)))
    }

    pub(super) fn tell_afar(&mut self, link: LinkIx, told: &Told<'_>) {
        if let Some(session) = self.links.get_mut(link) {
            session.outbox.push(&mut self.pool, FrameType::Told, |out| told.encode(out));
        }
        self.check_outbox(link);
    }
}

/// A challenge as homes give it.
struct Given<'a> {
    epoch: u64,
    kdf: u64,
    salt: &'a [u8; 16],
    iterations: u64,
    nonce: &'a [u8; 32],
    boot: &'a [u8; 16],
}

impl<'a> Given<'a> {
    fn read(told: &Told<'a>) -> Option<Self> {
        let (epoch, kdf, iterations) = (told.epoch?, told.kdf?, told.iterations?);
        let protects = Kdf::from_id(kdf).filter(|kdf| *kdf != Kdf::Insecure)?;
        let possible = (1..=EPOCH_MAX).contains(&epoch) && protects.allows(u32::try_from(iterations).ok()?);
        let nonce = told.nonce.filter(|nonce| possible && **nonce != [0; 32])?;
        Some(Self { epoch, kdf, salt: told.salt?, iterations, nonce, boot: told.boot? })
    }
}

/// What homes say.
impl Hub {
    pub(super) fn handle_told(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let told = super::conversation::parse::<Told<'_>>(frame)?;
        let Some(errand) = self.bridges.errands.by_number.get(&told.id) else { return Ok(()) };
        let Stage::Sent(link, leg) = errand.stage else { return Ok(()) };
        if link != ix {
            return Ok(());
        }
        let (number, from, id, aim) = (told.id, errand.from, errand.id, errand.aim);
        let local = !self.bridges.is_port(from);
        match (told.code, told.nonce, leg) {
            (0, Some(_), Leg::Asked) => {
                if let Some(errand) = self.bridges.errands.get_mut(number) {
                    errand.stage = Stage::Sent(link, Leg::Challenged);
                }
                if local {
                    self.challenge_from_afar(number, &told);
                } else {
                    self.tell_afar(from, &Told { id, ..told });
                }
            }
            (0, None, Leg::Proved) if local => match aim {
                Aim::Join => self.join_mirror(number, told.ended, told.proof),
                Aim::Own(step) => self.operated(number, step, told.proof),
            },
            (0, None, Leg::Proved) => {
                self.drop_errand(number);
                self.tell_afar(from, &Told { id, ..told });
            }
            // Not the home's words: that says each once, and yes to nothing but a proof.
            (0, _, _) => self.end_errand(number, Err(Refusal::HomeGone)),
            (code, _, _) => self.end_errand(number, Err(Refusal::from_code(code).unwrap_or(Refusal::NotAllowed))),
        }
        Ok(())
    }

    /// The home's challenge, for a client of this hub. One that no home gives ends here: the client would take it for this
    /// hub's own.
    fn challenge_from_afar(&mut self, number: u64, told: &Told<'_>) {
        let Some(given) = Given::read(told) else { return self.end_errand(number, Err(Refusal::HomeGone)) };
        let Given { epoch, kdf, salt, iterations, nonce, boot } = given;
        let Some(errand) = self.bridges.errands.by_number.get_mut(&number) else { return };
        // Another password by now; word of it may still be on its way here.
        errand.realm.epoch = epoch;
        let (from, id, home) = (errand.from, errand.id, errand.realm.home.clone());
        let home = home.as_ref().map(HubId::as_name);
        let challenge = JoinChallenge { id, epoch, kdf, salt, iterations, nonce, home, boot: Some(boot) };
        if let Some(session) = self.links.get_mut(from) {
            session.outbox.push(&mut self.pool, FrameType::JoinChallenge, |out| challenge.encode(out));
        }
        self.check_outbox(from);
    }

    pub(super) fn drop_errand(&mut self, number: u64) -> Option<Errand> {
        let errand = self.bridges.errands.remove(number)?;
        self.timers.cancel(errand.timer);
        Some(errand)
    }

    /// Ends an errand with a refusal for whoever asked.
    pub(super) fn end_errand(&mut self, number: u64, result: Result<(), Refusal>) {
        let Some(errand) = self.bridges.errands.by_number.get(&number) else { return };
        let (from, id) = (errand.from, errand.id);
        let answered = !matches!(errand.stage, Stage::Sent(_, Leg::Challenged)) || self.bridges.is_port(from);
        if answered || result.is_ok() {
            self.drop_errand(number);
        } else if let Some(errand) = self.bridges.errands.get_mut(number) {
            errand.stage = Stage::Ended;
            let timer = self.timers.insert(self.now.mono + self.limits.join, TimerReason::Join, Due::Errand(number));
            self.timers.cancel(core::mem::replace(&mut errand.timer, timer));
        }
        match result {
            Ok(()) => {}
            Err(refusal) if self.bridges.is_port(from) => self.tell_afar(from, &Told::bare(id, refusal.code())),
            Err(refusal) => self.done(from, id, Err(refusal)),
        }
    }

    /// It was not decided in time, or its refusal has waited long enough.
    pub(super) fn errand_due(&mut self, number: u64) {
        let Some(errand) = self.bridges.errands.by_number.get(&number) else { return };
        match errand.stage {
            Stage::Failing(refusal) => self.end_errand(number, Err(refusal)),
            Stage::Sent(..) | Stage::Challenged(_) => self.end_errand(number, Err(Refusal::Deadline)),
            Stage::Ended => drop(self.drop_errand(number)),
        }
    }

    /// Ends the errands that came over a link or went over it.
    pub(super) fn end_errands(&mut self, ix: LinkIx) {
        let of = |errand: &Errand| errand.from == ix || matches!(errand.stage, Stage::Sent(link, _) if link == ix);
        let errands = self.bridges.errands.by_number.iter().filter(|(_, errand)| of(errand));
        let numbers: Vec<u64> = errands.map(|(number, _)| *number).collect();
        for number in numbers {
            let from_here = self.bridges.errands.by_number.get(&number).is_some_and(|errand| errand.from == ix);
            if from_here {
                self.drop_errand(number);
            } else {
                self.end_errand(number, Err(Refusal::HomeGone));
            }
        }
    }
}
