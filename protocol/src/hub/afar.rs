//! Owners that are at another hub than their channel: what they want done goes to its home and is judged there alone.
//!
//! ```text
//!   owner ── OPERATE ──► its hub ── REMOTE ──► … ──► home: a nonce
//!         ◄─ JOIN_CHALLENGE ────◄── TOLD ──────────────┘
//!         ── OPERATE, with PROTECT, UNPROTECT or TERMINATE in it ──► … ──► home: is the proof right? stored, then made
//!         ◄─ DONE ──────────────◄── TOLD, with the home's own proof ─────────┘
//! ```
//! Hubs on the way pass the operation on as it is: its proof covers every byte of it and the fresh words of both ends, and
//! the verifier in it is masked by what the home alone knows of the owner's key.

use bytes::BytesMut;

use super::changes::{Asked, Change, Postponed, Wanted};
use super::guard::{Owner, Protection};
use super::homes::{Errand, Leg, OPERATE, Stage};
use super::ownership::Operation;
use super::registry::{ChannelIx, LinkIx};
use super::session::Session;
use super::{DisconnectReason, Hub};
use crate::auth::{OwnerTranscript, TranscriptHash};
use crate::error::{Refusal, Violation};
use crate::names::ChannelName;
use crate::policy::OwnerPolicy;
use crate::wire::{
    Control, Done, Frame, FrameType, Operate, PROOF_ENTRY_LEN, Protect, Record, Remote, Terminate, Unprotect,
};

/// What a client of this hub wants of a home.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aim {
    Join,
    /// To act as the owner; how, once it has said so.
    Own(Option<Step>),
}

/// What a home's yes to an owner means here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Protect { epoch: u64 },
    Unprotect,
    Terminate,
}

/// What an owner asks for.
enum Does<'a> {
    Protect(Record<'a>),
    Unprotect { epoch: u64 },
    Terminate,
}

/// Reads an operation in another frame; `None` if it is none.
fn read<'a>(kind: u64, body: &'a [u8]) -> Option<(Operation<'a>, Does<'a>)> {
    let kind = FrameType::from_number(u8::try_from(kind).ok()?)?;
    Some(if kind == FrameType::Protect {
        let Protect { id: _, channel, stored, n, record, proof } = exact(body)?;
        (Operation { channel, stored, n, proof }, Does::Protect(record))
    } else if kind == FrameType::Unprotect {
        let Unprotect { id: _, channel, stored, n, epoch, proof } = exact(body)?;
        (Operation { channel, stored, n, proof }, Does::Unprotect { epoch })
    } else if kind == FrameType::Terminate {
        let Terminate { id: _, channel, stored, n, proof } = exact(body)?;
        (Operation { channel, stored, n, proof }, Does::Terminate)
    } else {
        return None;
    })
}

/// A body with exactly these entries: what its proof covers then says which operation it is, whatever the frame around it
/// says.
fn exact<'a, T: Control<'a>>(body: &'a [u8]) -> Option<T> {
    let read = T::parse(body).ok()?;
    let mut again = BytesMut::with_capacity(body.len());
    read.encode(&mut again);
    (again == body).then_some(read)
}

/// What a client of this hub asks.
impl Hub {
    pub(super) fn handle_operate(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let operate = super::conversation::parse::<Operate<'_>>(frame)?;
        let result = match (operate.nonce, operate.kind, operate.body) {
            (None, None, None) => self.ask_home(ix, &operate),
            (Some(nonce), Some(kind), Some(body)) => {
                let (_, does) = read(kind, body).ok_or(Violation::BadControl)?;
                self.operate_elsewhere(ix, &operate, (nonce, kind, body), &does)
            }
            (_, _, _) => return Err(Violation::BadControl.into()),
        };
        if let Err(refusal) = result {
            self.done(ix, operate.id, Err(refusal));
        }
        Ok(())
    }

    /// Asks the home for a challenge. What is protected here is operated here.
    fn ask_home(&mut self, ix: LinkIx, operate: &Operate<'_>) -> Result<(), Refusal> {
        let (place, here) = self.registry.by_name(operate.channel).ok_or(Refusal::NotMember)?;
        let member = self.links.get(ix).and_then(Session::member).ok_or(Refusal::NotMember)?;
        if !member.memberships.has(place) {
            return Err(Refusal::NotMember);
        }
        let realm = here.guard.mirror.clone().ok_or(Refusal::NotOwner)?;
        let channel = here.name().clone();
        self.ask_challenge(ix, operate.id, channel, realm, Aim::Own(None))
    }

    /// Sends an operation on to the home that has given its challenge.
    fn operate_elsewhere(
        &mut self,
        ix: LinkIx,
        operate: &Operate<'_>,
        (nonce, kind, body): (&[u8; 32], u64, &[u8]),
        does: &Does<'_>,
    ) -> Result<(), Refusal> {
        let number = self.bridges.errands.of(ix, operate.id).ok_or(Refusal::Deadline)?;
        let errand = self.bridges.errands.get_mut(number).ok_or(Refusal::Deadline)?;
        if matches!(errand.stage, Stage::Ended) {
            self.drop_errand(number);
            return Ok(());
        }
        let fits = errand.channel.as_name() == operate.channel && matches!(errand.aim, Aim::Own(None));
        let (&Stage::Sent(link, Leg::Challenged), true) = (&errand.stage, fits) else {
            self.drop_errand(number);
            return Err(Refusal::EpochMismatch);
        };
        errand.stage = Stage::Sent(link, Leg::Proved);
        errand.aim = Aim::Own(Some(match does {
            Does::Protect(record) => Step::Protect { epoch: record.epoch },
            Does::Unprotect { .. } => Step::Unprotect,
            Does::Terminate => Step::Terminate,
        }));
        let (realm, member) = (errand.realm.clone(), errand.member.clone());
        let remote = Remote {
            id: number,
            home: realm.home.as_ref().ok_or(Refusal::HomeGone)?.as_name(),
            channel: operate.channel,
            asks: OPERATE,
            hub: member.hub.as_name(),
            client: member.client.as_name(),
            epoch: realm.epoch,
            nonce: Some(nonce),
            kind: Some(kind),
            body: Some(body),
            proof: None,
        };
        self.say_remote(link, &remote);
        Ok(())
    }

    /// The home has done what a client of this hub wanted: everybody but the owner goes here as well, in the same step.
    pub(super) fn operated(&mut self, number: u64, step: Option<Step>, proof: Option<&[u8; 32]>) {
        let Some(step) = step else { return self.end_errand(number, Err(Refusal::NotAllowed)) };
        let Some(Errand { from, id, channel, realm, .. }) = self.drop_errand(number) else { return };
        let here = self.registry.by_name(channel.as_name());
        let mirror = here.and_then(|(place, here)| Some((place, here.guard.mirror.clone()?)));
        if let Some((place, mirror)) = mirror.filter(|(_, mirror)| mirror.home == realm.home) {
            match step {
                Step::Protect { epoch } if epoch > mirror.epoch => self.move_mirror(place, epoch, Some(from)),
                // What the home announces came first.
                Step::Protect { .. } => {}
                Step::Unprotect => self.evict_mirror(place, Refusal::Rekeyed),
                Step::Terminate => self.evict_mirror(place, Refusal::Terminated),
            }
        }
        let done = Done { id, code: 0, epoch: None, owner: None, last_epoch: None, owned_by: None, proof };
        if let Some(session) = self.links.get_mut(from) {
            session.outbox.push(&mut self.pool, FrameType::Done, |out| done.encode(out));
        }
        self.check_outbox(from);
    }
}

/// What a home makes of it.
impl Hub {
    pub(super) fn operated_from_afar(&mut self, ix: LinkIx, number: u64, remote: &Remote<'_>, frame: &Frame) {
        let Some(errand) = self.bridges.errands.get_mut(number) else { return };
        let nonce = match errand.stage {
            Stage::Sent(link, Leg::Challenged) => {
                errand.stage = Stage::Sent(link, Leg::Proved);
                return self.say_remote(link, &Remote { id: number, ..remote.clone() });
            }
            Stage::Sent(_, Leg::Asked | Leg::Proved) | Stage::Failing(_) | Stage::Ended => return,
            Stage::Challenged(nonce) => nonce,
        };
        let (channel, member) = (errand.channel.clone(), errand.member.clone());
        match self.postpone(ix, channel.as_name(), frame) {
            Postponed::No => {}
            Postponed::Yes => return,
            Postponed::Full => return self.end_errand(number, Err(Refusal::Overloaded)),
        }
        let guesser = self.far_guesser(ix, &member, &channel, "own");
        let Some((place, does, operation, session, proof)) = self.proved_operation(&channel, &nonce, remote) else {
            return self.fail_errand(number, guesser, Refusal::NotOwner);
        };
        self.throttle.succeeded(guesser);
        let asked = self.asked(ix, remote.id).map(|asked| Asked { afar: Some(proof), ..asked });
        let Some(asked) = asked else { return };
        // From here on it is answered whatever comes of it, and to that link alone.
        self.drop_errand(number);
        match self.wanted_from_afar(place, asked, &operation, &does, &session) {
            Ok(Some(change)) => self.change(place, change),
            Ok(None) => self.answer(Some(asked), Ok(())),
            Err(refusal) => self.answer(Some(asked), Err(refusal)),
        }
    }

    /// The operation, if its proof is the owner's, made for this challenge; with what it is bound to, and this hub's own proof.
    fn proved_operation<'a>(
        &self,
        channel: &ChannelName,
        nonce: &[u8; 32],
        remote: &Remote<'a>,
    ) -> Option<(ChannelIx, Does<'a>, Operation<'a>, TranscriptHash, [u8; 32])> {
        let (nonce_client, body) = (remote.nonce?, remote.body?);
        let (operation, does) = read(remote.kind?, body)?;
        let (place, here) = self.registry.by_name(channel.as_name())?;
        let (Owner::Present { key, .. } | Owner::Away { key, .. }) = &here.guard.owner else { return None };
        let degenerate = nonce_client == nonce || *nonce_client == [0; 32];
        if degenerate || here.guard.mirror.is_some() || operation.channel != channel.as_name() || operation.n != 0 {
            return None;
        }
        let session = TranscriptHash::remote(&self.id, &self.boot, nonce_client, nonce);
        let unproved = body.get(..body.len().saturating_sub(PROOF_ENTRY_LEN))?;
        let transcript = OwnerTranscript::new(&session, channel, operation.stored, 0, unproved);
        let proof = key.hub_proof(&transcript, operation.proof);
        key.verify(&transcript, operation.proof).then_some((place, does, operation, session, proof))
    }

    /// What is to be changed. The record stays with the credential that it counts for: there is none more than before.
    fn wanted_from_afar(
        &mut self,
        place: ChannelIx,
        asked: Asked,
        operation: &Operation<'_>,
        does: &Does<'_>,
        session: &TranscriptHash,
    ) -> Wanted {
        let guard = self.guard_mut(place).ok_or(Refusal::NotOwner)?;
        let (Owner::Present { key, .. } | Owner::Away { key, .. }) = &guard.owner else {
            return Err(Refusal::NotOwner);
        };
        match does {
            Does::Protect(record) => {
                let mut keys = [*record.stored_key, *record.server_key];
                key.mask(session, &mut keys);
                // It was protected when the challenge was given.
                let credential = &guard.protection.as_ref().ok_or(Refusal::EpochMismatch)?.credential;
                let protection = Protection::of(record, keys, credential).ok_or(Refusal::EpochMismatch)?;
                let takes = guard.takes(operation.stored, record.epoch, &protection)?;
                let (epoch, protection) = (record.epoch, Some(protection));
                Ok(takes.then_some(Change::Rotate { asked, epoch, protection }))
            }
            Does::Unprotect { epoch } => {
                let gives_up = guard.gives_up(operation.stored, *epoch)?;
                Ok(gives_up.then_some(Change::Rotate { asked, epoch: *epoch, protection: None }))
            }
            Does::Terminate if operation.stored != guard.last_epoch => Err(Refusal::EpochMismatch),
            Does::Terminate => Ok(Some(Change::Abandon { asked: Some(asked) })),
        }
    }

    /// The owner has acted from another hub. Who owned the channel here by the same key is a member like any other, and what
    /// is remembered for the owner is so for as long again; without a password there is nothing left to own from afar.
    pub(super) fn owner_is_elsewhere(&mut self, channel: ChannelIx) {
        let Some(guard) = self.guard_mut(channel) else { return };
        let was_here = guard.owner().is_some();
        match (&guard.owner, guard.policy) {
            _ if guard.protection.is_none() => self.set_owner(channel, Owner::Nobody, None),
            (Owner::Away { held: Some(_), .. }, OwnerPolicy::Hold { grace, then }) => {
                self.hold(channel, grace, then, None)
            }
            (Owner::Present { key, .. }, OwnerPolicy::Hold { grace, then }) => {
                let key = key.clone();
                self.set_owner(channel, Owner::Away { key, held: None, heir: None }, None);
                return self.hold(channel, grace, then, None);
            }
            (Owner::Present { key, .. } | Owner::Away { key, held: None, .. }, _) => {
                let key = key.clone();
                self.set_owner(channel, Owner::Away { key, held: None, heir: None }, None);
            }
            (Owner::Away { held: Some(_), .. } | Owner::Nobody | Owner::Offered { .. }, _) => {}
        }
        if was_here {
            self.owner_changed(channel);
        }
    }
}
