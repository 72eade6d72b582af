//! Channels with a password: joining with proof, and what the hub tells of a channel's owner and password.
//!
//! ```text
//!   OPEN ──► JOIN_CHALLENGE ──► (application derives) ──► JOIN ──► DONE with the hub's own proof: keyed
//!     │            └ no password, another kind, rolled back: refused, and nothing is left
//!     └──► DONE: open and unkeyed; with a password that is a refusal, and the channel is left again
//! ```

use alloc::boxed::Box;
use core::time::Duration;

use super::channels::{ChannelIx, Control, State};
use super::owning::Attempts;
use super::seal::{Past, Seal};
use super::{Client, Event, Failure};
use crate::auth::{ChannelKeys, ChannelMaster, JoinKeys, JoinTranscript, Kdf, OwnerKey, TranscriptHash};
use crate::canary::Canary;
use crate::error::{Misuse, Refusal, Violation};
use crate::names::{ChannelName, ClientId, HubId, Name};
use crate::policy::{EPOCH_MAX, OwnerPolicy};
use crate::wire::{self, Accept, Control as _, Frame, FrameType, JoinChallenge, Offer, Record};

/// What an opening asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The kind of the channel's secret; the channel must be protected by such a one. `None` for a channel without.
    pub secret: Option<Kdf>,
    /// What becomes of the channel when we go, if this opening makes us its owner. The hub's own choice when absent.
    pub policy: Option<OwnerPolicy>,
    /// Not to own the channel, though we may be the first to open it: then nobody does, and it outlives us.
    pub plain: bool,
}

/// How a channel's keys are derived: what its hub tells everybody who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSalt {
    /// The kind of the secret.
    pub kdf: Kdf,
    /// Random, new with every protection.
    pub salt: [u8; 16],
    /// PBKDF2 rounds; 0 for a key.
    pub iterations: u32,
}

/// What this client remembers of a channel's owner and password, also while it is closed.
#[derive(Debug, Default)]
pub(super) struct Guarded {
    /// The keys of the epoch that we are a member of.
    pub(super) seal: Option<Seal>,
    /// We have proved the password of one of the hub's own channels, where nobody signs.
    joined: bool,
    /// What was accepted in the last epoch that we were a member of.
    past: Option<Past>,
    /// The last epoch that was proved to us, and how it was derived.
    pub(super) proved: Option<(u64, ChannelSalt)>,
    /// The last epoch that the hub remembers, by its word to us as a member.
    pub(super) last_epoch: u64,
    pub(super) owner: Option<OwnerKey>,
    /// A key that we were given, to own it by.
    pub(super) given: Option<OwnerKey>,
    /// The hub where we have proved the password, if that is not our own.
    pub(super) home: Option<HubId>,
    /// Passwords that we gave it, perhaps: nobody has told us whether they were taken.
    pub(super) attempts: Attempts,
    pub(super) owner_n: u64,
    pub(super) owns: bool,
    /// Who owns it, as far as the application knows.
    owned_by: Option<ClientId>,
    /// The protection that we gave it or have proved to know: so that, if we own it, it can be given to a hub that has lost it.
    pub(super) record: Option<OwnRecord>,
    /// We owned it when the connection went.
    pub(super) was_owner: bool,
    /// We owned it when our membership ended.
    pub(super) owned_last: bool,
    /// We ask for the ownership that we had before our membership ended. As that was told, and the channel was opened anew,
    /// there is nothing to be taken back if we do not get it.
    pub(super) anew: bool,
}

/// A protection as its owner made it.
#[derive(Debug)]
pub(super) struct OwnRecord {
    epoch: u64,
    salt: ChannelSalt,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl OwnRecord {
    pub(super) fn of(epoch: u64, salt: ChannelSalt, join: &JoinKeys) -> Self {
        let verifier = join.verifier();
        Self { epoch, salt, stored_key: *verifier.stored_key(), server_key: *verifier.server_key() }
    }
}

/// Keys that go with an OPEN, masked where frames are tagged.
pub(super) struct MaskedKeys {
    pub(super) owner: [u8; 32],
    record: Option<OwnRecord>,
}

impl MaskedKeys {
    /// The protection that goes with a claim.
    pub(super) fn record(&self) -> Option<Record<'_>> {
        let OwnRecord { epoch, salt, stored_key, server_key } = self.record.as_ref()?;
        Some(Record {
            epoch: *epoch,
            kdf: salt.kdf.id(),
            salt: &salt.salt,
            iterations: u64::from(salt.iterations),
            stored_key,
            server_key,
        })
    }
}

/// A join on its way.
#[derive(Debug)]
pub(super) enum Joining {
    /// The application derives.
    Deriving(Challenged),
    /// Our proof is out.
    Proving(Box<Proving>),
}

#[derive(Debug)]
pub(super) struct Challenged {
    pub(super) id: u64,
    pub(super) epoch: u64,
    pub(super) salt: ChannelSalt,
    pub(super) nonce: [u8; 32],
    /// The channel's home and its boot id, if that is another hub.
    pub(super) home: Option<(HubId, [u8; 16])>,
}

#[derive(Debug)]
pub(super) struct Proving {
    epoch: u64,
    salt: ChannelSalt,
    join: JoinKeys,
    /// What signs; on the hub's own channels nothing does.
    keys: Option<ChannelKeys>,
    transcript: JoinTranscript,
    proof: [u8; 32],
    home: Option<HubId>,
}

impl Client {
    /// The keys that go with an OPEN: ours to own the channel by and, with `record`, those of the protection we gave it.
    pub(super) fn owner_keys_for(&mut self, ix: ChannelIx, name: &ChannelName, record: bool) -> Option<MaskedKeys> {
        if name.as_name().is_reserved() {
            return None;
        }
        let fresh = self.channel_keys.bytes();
        let hub = self.ready_hub().ok()?;
        let guarded = &mut self.channels.get_mut(ix)?.guarded;
        if guarded.key_at(&hub).is_none() {
            guarded.owner = Some(OwnerKey::new(fresh, hub.clone(), name.clone()));
        }
        let owner = *guarded.key_at(&hub)?.keys().verifier().as_bytes();
        let Some(OwnRecord { epoch, salt, stored_key, server_key }) = guarded.record.as_ref().filter(|_| record) else {
            let mut keys = [owner];
            self.mask(&mut keys);
            let [owner] = keys;
            return Some(MaskedKeys { owner, record: None });
        };
        let (epoch, salt, mut keys) = (*epoch, *salt, [owner, *stored_key, *server_key]);
        self.mask(&mut keys);
        let [owner, stored_key, server_key] = keys;
        Some(MaskedKeys { owner, record: Some(OwnRecord { epoch, salt, stored_key, server_key }) })
    }

    /// Masks keys for the next frame.
    pub(super) fn mask(&self, keys: &mut [[u8; 32]]) {
        if let super::Phase::Ready(ready) = &self.phase
            && let Some(mask) = &ready.mask
        {
            mask.apply(self.outbox.next_counter(), keys);
        }
    }

    pub(super) fn handle_join_challenge(&mut self, frame: &Frame) -> Result<(), Violation> {
        let asked = JoinChallenge::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        let challenged = self.read_challenge(&asked)?;
        match self.controls.get(&asked.id) {
            Some((Control::Open(ix), _)) => self.challenged(*ix, challenged),
            Some((Control::Afar(..), _)) => self.operate(challenged),
            // Given up meanwhile: nobody proves anything. Our own hub forgets the attempt without a word.
            Some((Control::Late(_), _)) if challenged.home.is_none() => {
                self.controls.remove(&asked.id);
                Ok(())
            }
            Some(_) => Ok(()),
            None => Err(Violation::UnexpectedFrame),
        }
    }

    fn read_challenge(&self, asked: &JoinChallenge<'_>) -> Result<Challenged, Violation> {
        // No channel is protected by nothing.
        let kdf = Kdf::from_id(asked.kdf).filter(|kdf| *kdf != Kdf::Insecure).ok_or(Violation::NotOffered)?;
        let iterations = u32::try_from(asked.iterations).map_err(|_| Violation::NotOffered)?;
        if !(1..=EPOCH_MAX).contains(&asked.epoch) || *asked.nonce == [0; 32] || !kdf.allows(iterations) {
            return Err(Violation::NotOffered);
        }
        let salt = ChannelSalt { kdf, salt: *asked.salt, iterations };
        let home = match (asked.home, asked.boot) {
            (Some(home), Some(boot)) => Some((HubId::new(home.as_str()).map_err(|_| Violation::BadName)?, *boot)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(Violation::BadControl),
        };
        // What our own hub protects is proved to it on this link.
        if home.as_ref().is_some_and(|(home, _)| self.ready_hub().is_ok_and(|own| own == *home)) {
            return Err(Violation::NotOffered);
        }
        Ok(Challenged { id: asked.id, epoch: asked.epoch, salt, nonce: *asked.nonce, home })
    }

    /// An opening is asked for the password.
    fn challenged(&mut self, ix: ChannelIx, challenged: Challenged) -> Result<(), Violation> {
        let (id, salt, kdf) = (challenged.id, challenged.salt, challenged.salt.kdf);
        let Some(channel) = self.channels.get_mut(ix) else { return Ok(()) };
        let State::Opening { access, joining, .. } = &mut channel.state else { return Err(Violation::UnexpectedFrame) };
        if joining.is_some() {
            return Err(Violation::UnexpectedFrame);
        }
        let own = channel.name.as_name().is_reserved();
        // It is a password that we gave it ourselves, though nobody has told us that it was taken.
        if let Some(keys) = channel.guarded.attempts.keys(challenged.epoch, salt) {
            *joining = Some(Joining::Deriving(challenged));
            let join = keys.join().clone();
            self.prove_join(ix, Some(keys), join);
            return Ok(());
        }
        let rolled_back = channel.guarded.is_rolled_back(challenged.epoch, salt);
        let refusal = match access.secret {
            None => Some(Refusal::PasswordRequired),
            Some(own) if own != kdf => Some(Refusal::KdfUnsupported),
            // The hub's own passwords are the hub's to change.
            Some(_) => (rolled_back && !own && !Canary::RolledBack.sings()).then_some(Refusal::RolledBack),
        };
        if let Some(refusal) = refusal {
            self.give_up_opening(id, Failure::Refused(refusal));
            return Ok(());
        }
        *joining = Some(Joining::Deriving(challenged));
        let channel = channel.name.clone();
        self.pause_control(id);
        self.event(Event::DeriveChannelKey { channel, salt });
        Ok(())
    }

    pub(super) fn handle_channel_key(&mut self, name: &ChannelName, salt: ChannelSalt, master: &ChannelMaster) {
        let Some(ix) = self.channels.index_of(name) else { return };
        let Some(channel) = self.channels.get_mut(ix) else { return };
        // Otherwise it belongs to an opening that ended meanwhile.
        if let State::Opening { joining: Some(Joining::Deriving(challenged)), .. } = &channel.state
            && challenged.salt == salt
        {
            let own = name.as_name().is_reserved();
            let keys = (!own).then(|| master.keys(name, &salt.salt, challenged.epoch));
            let join = master.join_keys(name, &salt.salt, challenged.epoch);
            self.prove_join(ix, keys, join);
        }
    }

    pub(super) fn handle_channel_key_failed(&mut self, name: &ChannelName) {
        let Some(channel) = self.channels.index_of(name).and_then(|ix| self.channels.get_mut(ix)) else { return };
        if let State::Opening { joining: Some(Joining::Deriving(challenged)), .. } = &channel.state {
            let id = challenged.id;
            self.give_up_opening(id, Failure::Local(Misuse::Cancelled));
        }
    }

    pub(super) fn prove_join(&mut self, ix: ChannelIx, keys: Option<ChannelKeys>, join: JoinKeys) {
        let nonce: [u8; 32] = self.channel_keys.bytes();
        let (super::Phase::Ready(ready), Some(channel)) = (&self.phase, self.channels.get_mut(ix)) else { return };
        let State::Opening { joining, .. } = &mut channel.state else { return };
        let Some(Joining::Deriving(challenged)) = joining.take() else { return };
        let Challenged { id, epoch, salt, nonce: nonce_hub, home } = challenged;
        let handshake = match &home {
            Some((home, boot)) => TranscriptHash::remote(home, boot, &nonce, &nonce_hub),
            None => ready.transcript,
        };
        let transcript = JoinTranscript::new(&handshake, &channel.name, epoch, &nonce, &nonce_hub, &self.id);
        // Our own nonce is fresh, so it equals the hub's only if the hub knew it before.
        let Some(transcript) = transcript else { return self.violated(Violation::BadNonce) };
        let proof = join.proof(&transcript);
        let name = channel.name.clone();
        let home = home.map(|(home, _)| home);
        *joining = Some(Joining::Proving(Box::new(Proving { epoch, salt, join, keys, transcript, proof, home })));
        // A wrong password the hub refuses later and later. What comes back waits for its word: to ask again would be to
        // guess again.
        let kept_back =
            if self.channels.is_coming_back(ix) { self.config.limits.failure_delay_max } else { Duration::ZERO };
        self.resume_control(id, kept_back);
        let join = wire::Join { id, channel: name.as_name(), epoch, nonce: &nonce, proof: &proof };
        self.outbox.push(&mut self.pool, FrameType::Join, |out| join.encode(out));
    }

    /// The hub says that a channel is open. Whether it is as asked decides what that means.
    pub(super) fn judge_opened(
        &mut self,
        ix: ChannelIx,
        done: &wire::Done<'_>,
    ) -> Result<Result<(), Refusal>, Violation> {
        let own = (self.id.clone(), self.instance);
        let hash = self.channels.hash();
        let Some(channel) = self.channels.get_mut(ix) else { return Ok(Ok(())) };
        let State::Opening { access, joining, times, .. } = &mut channel.state else { return Ok(Ok(())) };
        let epoch = done.epoch.unwrap_or(0);
        let (returns, owned_by) = (*times > 0, read_owner(done.owned_by)?);
        let mut ours = None;
        match (joining.take(), access.secret) {
            (Some(Joining::Proving(proving)), _) => {
                let Proving { epoch: asked, salt, join, keys, transcript, proof, home } = *proving;
                let proved = done.proof.is_some_and(|hub| join.verify_hub(&transcript, &proof, hub));
                match (proved && asked == epoch, &home) {
                    (true, _) => {}
                    (false, None) => return Err(Violation::BadServerProof),
                    // Our hub passes on what it is told: somebody on the way to the home is not honest.
                    (false, Some(_)) => return Ok(Err(Refusal::HomeGone)),
                }
                let guarded = &mut channel.guarded;
                ours = guarded.attempts.keys(epoch, salt).map(|_| salt);
                (guarded.proved, guarded.attempts) = (Some((epoch, salt)), Attempts::default());
                (guarded.joined, guarded.home) = (keys.is_none(), home);
                if let Some(keys) = keys {
                    guarded.record = Some(OwnRecord::of(epoch, salt, &join));
                    guarded.enter(Seal::new(epoch, keys, (&own.0, &own.1), hash));
                }
            }
            // It is the one that we claimed just now, and protected as it was.
            (None, Some(_)) if done.owner == Some(true) && channel.guarded.has_claimed(epoch) => {}
            // A channel that asks for nothing is not the one whose password we have.
            (Some(Joining::Deriving(_)) | None, Some(_)) => return Ok(Err(Refusal::NotProtected)),
            (Some(Joining::Deriving(_)) | None, None) if epoch != 0 => return Ok(Err(Refusal::PasswordRequired)),
            (Some(Joining::Deriving(_)) | None, None) => (channel.guarded.seal, channel.guarded.home) = (None, None),
        }
        let last = || done.last_epoch.filter(|last| *last <= EPOCH_MAX).unwrap_or(0);
        channel.guarded.last_epoch = if epoch > 0 { epoch } else { last() };
        channel.guarded.owns = done.owner == Some(true);
        if let Some(salt) = ours {
            let channel = channel.name.clone();
            self.event(Event::PasswordChanged { channel, salt: Some(salt) });
        }
        let owner = done.owner.map(|owns| if owns { Some(own.0) } else { owned_by });
        self.found_owner(ix, returns, owner);
        Ok(Ok(()))
    }

    /// Who owns a channel that has been opened. One that comes back may have another owner since it was lost; where the hub
    /// does not say, or we are about to tell it that we do, what was known before still counts.
    fn found_owner(&mut self, ix: ChannelIx, returns: bool, owner: Option<Option<ClientId>>) {
        let own = self.id.clone();
        let Some(channel) = self.channels.get_mut(ix) else { return };
        match owner {
            owner if !returns => channel.guarded.owned_by = owner.flatten(),
            Some(None) if channel.guarded.was_owner && channel.guarded.is_owned_by(&own) => {}
            Some(owner) => self.owner_is(ix, owner),
            None => {}
        }
    }

    /// Tells who owns a channel, if that is news.
    pub(super) fn owner_is(&mut self, ix: ChannelIx, owner: Option<ClientId>) {
        let Some(channel) = self.channels.get_mut(ix).filter(|channel| channel.guarded.owned_by != owner) else {
            return;
        };
        channel.guarded.owned_by.clone_from(&owner);
        let channel = channel.name.clone();
        self.event(Event::OwnerChanged { channel, owner });
    }

    pub(super) fn handle_offer(&mut self, frame: &Frame) -> Result<(), Violation> {
        let offer = Offer::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        let fresh = self.channel_keys.bytes();
        let hub = self.ready_hub().map_err(|_| Violation::UnexpectedFrame)?;
        // Left meanwhile: the offer passes on by itself. An owner's key is nobody's to replace.
        let Some(ix) = self.channels.index_of_name(offer.channel) else { return Ok(()) };
        let open = |it: &&mut super::channels::Channel| matches!(it.state, State::Open(_)) && !it.guarded.owns;
        let Some(channel) = self.channels.get_mut(ix).filter(open) else { return Ok(()) };
        let name = channel.name.clone();
        let key = OwnerKey::new(fresh, hub, name.clone());
        let mut keys = [*key.keys().verifier().as_bytes()];
        (channel.guarded.owner, channel.guarded.given) = (Some(key), None);
        self.mask(&mut keys);
        let [owner] = &keys;
        let accept = Accept { offer: offer.offer, channel: name.as_name(), owner };
        self.outbox.push(&mut self.pool, FrameType::Accept, |out| accept.encode(out));
        Ok(())
    }

    /// Our membership is over, or the owner is another one.
    pub(super) fn handle_channel(&mut self, frame: &Frame) -> Result<(), Violation> {
        let told = wire::Channel::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        let Some(ix) = self.channels.index_of_name(told.channel) else { return Ok(()) };
        let own = self.id.clone();
        // Left meanwhile: it is nothing to us.
        let open = |it: &&mut super::channels::Channel| matches!(it.state, State::Open(_));
        let Some(channel) = self.channels.get_mut(ix).filter(open) else { return Ok(()) };
        let name = channel.name.clone();
        if told.code == 0 {
            let owner = read_owner(told.owner)?;
            channel.guarded.owns = owner.as_ref() == Some(&own);
            self.owner_is(ix, owner);
            return Ok(());
        }
        if told.code == Refusal::Rekeyed.code() && channel.guarded.attempts.has(told.epoch) {
            self.rejoin(ix);
            return Ok(());
        }
        let why = Refusal::from_code(told.code).map_or(Failure::RefusedCode(told.code), Failure::Refused);
        self.channel_over(ix, name, why);
        Ok(())
    }
}

fn read_owner(owner: Option<Name<'_>>) -> Result<Option<ClientId>, Violation> {
    owner.map(|owner| ClientId::new(owner.as_str())).transpose().map_err(|_| Violation::BadName)
}

impl Guarded {
    /// Takes the keys of an epoch. What was accepted under the same ones before is not accepted again.
    pub(super) fn enter(&mut self, seal: Seal) {
        if let Some(before) = self.seal.take() {
            self.past = Some(before.leave());
        }
        let seal = match self.past.take() {
            Some(past) => seal.after(past),
            None => seal,
        };
        self.seal = Some(seal);
    }

    /// How the password is derived that we have keys of.
    pub(super) fn kept(&self) -> Option<ChannelSalt> {
        self.seal.as_ref().and(self.proved).map(|(_, salt)| salt)
    }

    /// Whether we are a member by having proved a password.
    pub(super) const fn is_proved(&self) -> bool {
        self.seal.is_some() || self.joined
    }

    /// What ends with a membership. The keys of its epoch are erased.
    pub(super) fn close(&mut self) {
        (self.owns, self.joined, self.was_owner, self.record) = (false, false, false, None);
        (self.home, self.attempts, self.owned_last, self.anew) = (None, Attempts::default(), false, false);
        self.unseal();
    }

    /// Erases the keys of the epoch. What was accepted under them is remembered.
    pub(super) fn unseal(&mut self) {
        if let Some(seal) = self.seal.take() {
            self.past = Some(seal.leave());
        }
    }

    /// The kind of the secret of the epoch that we are a member of.
    pub(super) fn kdf(&self) -> Option<Kdf> {
        self.kept().map(|salt| salt.kdf)
    }

    pub(super) const fn owns(&self) -> bool {
        self.owns
    }

    /// Whether the application knows this client as the owner.
    pub(super) fn is_owned_by(&self, client: &ClientId) -> bool {
        self.owned_by.as_ref() == Some(client)
    }

    pub(super) const fn set_owns(&mut self, owns: bool) {
        self.owns = owns;
    }

    /// The link went, and another will come.
    pub(super) const fn suspend(&mut self) {
        self.owner_n = 0;
        self.was_owner |= self.owns || self.owned_last;
        self.anew = !self.owns && (self.anew || self.owned_last);
        (self.owns, self.owned_last) = (false, false);
    }

    /// Whether a protection of this epoch is the one that we gave the channel.
    fn has_claimed(&self, epoch: u64) -> bool {
        let own = self.record.as_ref().is_some_and(|record| record.epoch == epoch);
        own && self.seal.as_ref().is_some_and(|seal| seal.epoch() == epoch)
    }

    /// What ends with a link.
    pub(super) fn lose(&mut self) {
        self.owner_n = 0;
    }
}
