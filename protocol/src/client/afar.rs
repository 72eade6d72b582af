//! An owner at another hub than its channel: its operations are proved to the channel's home, over bridges.
//!
//! ```text
//!   Asked ──OPERATE──► JOIN_CHALLENGE: nonce_h ──OPERATE, with PROTECT, UNPROTECT or TERMINATE──► DONE with the home's proof
//! ```
//! When a new password is taken and nobody lives to tell us, our membership ends as everybody's does; it comes back by
//! itself, with that password.

use alloc::boxed::Box;

use bytes::BytesMut;

use super::channels::{ChannelIx, Control, Late, State};
use super::guarding::{Challenged, ChannelSalt, Guarded};
use super::owning::Owned;
use super::{Client, Failure, Token};
use crate::auth::{ChannelMaster, OwnerKey, OwnerKeys, OwnerTranscript, OwnerVerifier, TranscriptHash};
use crate::error::{Refusal, Violation};
use crate::names::{ChannelName, HubId};
use crate::policy::EPOCH_MAX;
use crate::wire::{Control as _, Done, FrameType, Operate, PROOF_ENTRY_LEN, Protect, Record, Terminate, Unprotect};

/// An operation on its way.
#[derive(Debug)]
pub(super) enum Afar {
    /// The home was asked for a challenge.
    Asked(Wants),
    /// Our proof is out.
    Proved(Box<Proved>),
}

/// What an owner wants.
#[derive(Debug)]
pub(super) enum Wants {
    Protect { salt: ChannelSalt, master: Box<ChannelMaster> },
    Unprotect,
    Terminate,
}

#[derive(Debug)]
pub(super) struct Proved {
    owned: Owned,
    verifier: OwnerVerifier,
    transcript: OwnerTranscript,
    proof: [u8; 32],
}

impl Afar {
    /// Whether it is the home that says that it is done.
    pub(super) fn is_done(&self, done: &Done<'_>) -> bool {
        match (self, done.proof) {
            (Self::Proved(it), Some(hub)) => it.verifier.verify_hub(&it.transcript, &it.proof, hub),
            (Self::Proved(_), None) | (Self::Asked(_), _) => false,
        }
    }

    /// Whether it gives the channel a password.
    pub(super) fn gives_password(&self) -> bool {
        match self {
            Self::Asked(wants) => matches!(wants, Wants::Protect { .. }),
            Self::Proved(proved) => matches!(proved.owned, Owned::Protect { .. }),
        }
    }
}

impl Client {
    /// The key that a channel is owned by, for another client that is to own it too: of a channel that this client owns, or
    /// was given the key of.
    #[must_use]
    pub fn owner_key(&self, channel: &ChannelName) -> Option<OwnerKey> {
        let hub = self.ready_hub().ok()?;
        let guarded = &self.channels.find(channel.as_name())?.guarded;
        match &guarded.given {
            Some(key) if guarded.is_given(&hub) => Some(key.clone()),
            Some(_) | None if guarded.owns() => guarded.key_at(&hub).cloned(),
            Some(_) | None => None,
        }
    }

    pub(super) fn handle_owner_key(&mut self, key: OwnerKey) {
        let ix = self.channels.index(key.channel());
        if let Some(channel) = self.channels.get_mut(ix) {
            channel.guarded.given = Some(key);
        }
        self.claim_back(ix);
    }

    /// Owns a channel that is open, at the hub where it lives, by the key that we were given, or owned it by when our
    /// membership ended.
    pub(super) fn claim_back(&mut self, ix: ChannelIx) {
        let Some(channel) = self.channels.get(ix).filter(|channel| matches!(channel.state, State::Open(_))) else {
            return;
        };
        let comes_back = channel.guarded.owned_last && !channel.access.plain && channel.guarded.home.is_none();
        if (self.is_given_here(ix) || comes_back) && !channel.guarded.owns() {
            let (name, stored) = (channel.name.clone(), channel.guarded.last_epoch);
            self.write_reclaim(Control::Late(Some(Late::Owned(ix, Owned::Reclaim))), ix, &name, stored);
        }
    }

    /// Whether we have been given the key of a channel that lives at our own hub.
    pub(super) fn is_given_here(&self, ix: ChannelIx) -> bool {
        let (Ok(hub), Some(channel)) = (self.ready_hub(), self.channels.get(ix)) else { return false };
        channel.guarded.home.is_none() && channel.guarded.is_given(&hub)
    }

    pub(super) fn is_elsewhere(&self, ix: ChannelIx) -> bool {
        self.channels.get(ix).is_some_and(|channel| channel.guarded.home.is_some())
    }

    /// Asks the home for a challenge.
    pub(super) fn operate_afar(&mut self, token: Token, ix: ChannelIx, wants: Wants) {
        let Some(channel) = self.channels.name(ix) else { return };
        let id = self.control(Control::Afar(token, ix, Afar::Asked(wants)));
        let operate = Operate { id, channel: channel.as_name(), nonce: None, kind: None, body: None };
        self.outbox.push(&mut self.pool, FrameType::Operate, |out| operate.encode(out));
    }

    /// The home has given its challenge: says what is to be done, and proves that the owner says so.
    pub(super) fn operate(&mut self, challenged: Challenged) -> Result<(), Violation> {
        let Challenged { id, epoch, salt, nonce: nonce_hub, home } = challenged;
        let (home, boot) = home.ok_or(Violation::NotOffered)?;
        let nonce: [u8; 32] = self.channel_keys.bytes();
        if nonce == nonce_hub {
            return Err(Violation::BadNonce);
        }
        // A second challenge: whoever waits is told with the link's end.
        let Some((Control::Afar(_, _, Afar::Asked(_)), _)) = self.controls.get(&id) else {
            return Err(Violation::UnexpectedFrame);
        };
        let Some((Control::Afar(token, ix, Afar::Asked(wants)), timer)) = self.controls.remove(&id) else {
            return Ok(());
        };
        let session = TranscriptHash::remote(&home, &boot, &nonce, &nonce_hub);
        let written = match self.channels.get_mut(ix) {
            Some(channel) => {
                let key = channel.guarded.key_at(&home).filter(|_| channel.guarded.home.as_ref() == Some(&home));
                let keys = key.map(OwnerKey::keys).ok_or(Refusal::NotOwner);
                let told = if channel.guarded.is_rolled_back(epoch, salt) { Err(Refusal::RolledBack) } else { keys };
                told.and_then(|keys| Written::new(id, &channel.name, (epoch, salt), &wants, &keys, &session))
            }
            None => Err(Refusal::NotMember),
        };
        match (written, self.channels.get_mut(ix)) {
            (Ok(Written { kind, body, proved }), Some(channel)) => {
                channel.guarded.attempts.add(&proved.owned);
                let name = channel.name.clone();
                self.controls.insert(id, (Control::Afar(token, ix, Afar::Proved(Box::new(proved))), timer));
                let (kind, body) = (Some(u64::from(kind.number())), Some(&body[..]));
                let operate = Operate { id, channel: name.as_name(), nonce: Some(&nonce), kind, body };
                self.outbox.push(&mut self.pool, FrameType::Operate, |out| operate.encode(out));
            }
            (Err(refusal), _) => {
                // The home's challenge runs out by itself, and that is told.
                self.controls.insert(id, (Control::Late(None), None));
                if let Some(timer) = timer {
                    self.timers.cancel(timer);
                }
                self.done(token, Err(Failure::Refused(refusal)));
            }
            (Ok(_), None) => {}
        }
        Ok(())
    }

    /// The home has done what we asked for.
    pub(super) fn did_afar(&mut self, ix: ChannelIx, afar: Afar) -> Result<(), Failure> {
        match afar {
            Afar::Proved(proved) => self.owner_did(ix, proved.owned),
            Afar::Asked(_) => Ok(()),
        }
    }
}

impl Guarded {
    /// Whether a challenge is older than what was proved to us, or another of the same age.
    pub(super) fn is_rolled_back(&self, epoch: u64, salt: ChannelSalt) -> bool {
        self.proved.is_some_and(|(proved, known)| epoch < proved || epoch == proved && known != salt)
    }

    /// The key that owns the channel, or would, where it lives at this hub.
    pub(super) fn key_at(&self, hub: &HubId) -> Option<&OwnerKey> {
        [&self.given, &self.owner].into_iter().flatten().find(|key| key.hub() == hub)
    }

    /// Whether we have been given the key of the channel, as a client of this hub.
    pub(super) fn is_given(&self, hub: &HubId) -> bool {
        self.given.as_ref().is_some_and(|key| key.hub() == self.home.as_ref().unwrap_or(hub))
    }
}

/// An operation in full.
struct Written {
    kind: FrameType,
    body: BytesMut,
    proved: Proved,
}

impl Written {
    fn new(
        id: u64,
        channel: &ChannelName,
        (stored, stored_salt): (u64, ChannelSalt),
        wants: &Wants,
        owner: &OwnerKeys,
        session: &TranscriptHash,
    ) -> Result<Self, Refusal> {
        let (name, verifier) = (channel.as_name(), owner.verifier());
        let next = if stored < EPOCH_MAX { Ok(stored + 1) } else { Err(Refusal::EpochMismatch) };
        // What is proved is a prefix of the body, so that it is written twice.
        let written = |proof: &[u8; 32]| -> Result<_, Refusal> {
            let mut body = BytesMut::new();
            Ok(match wants {
                Wants::Protect { salt, master } => {
                    // It is stored already: nobody has told us, and the same is said once more.
                    let epoch = if *salt == stored_salt { stored } else { next? };
                    let keys = master.keys(channel, &salt.salt, epoch);
                    let join = keys.join().verifier();
                    let mut masked = [*join.stored_key(), *join.server_key()];
                    verifier.mask(session, &mut masked);
                    let [stored_key, server_key] = &masked;
                    let (kdf, iterations) = (salt.kdf.id(), u64::from(salt.iterations));
                    let record = Record { epoch, kdf, salt: &salt.salt, iterations, stored_key, server_key };
                    Protect { id, channel: name, stored, n: 0, record, proof }.encode(&mut body);
                    (FrameType::Protect, body, Owned::Protect { epoch, salt: *salt, keys: Box::new(keys) })
                }
                Wants::Unprotect => {
                    let epoch = next?;
                    Unprotect { id, channel: name, stored, n: 0, epoch, proof }.encode(&mut body);
                    (FrameType::Unprotect, body, Owned::Unprotect { epoch })
                }
                Wants::Terminate => {
                    Terminate { id, channel: name, stored, n: 0, proof }.encode(&mut body);
                    (FrameType::Terminate, body, Owned::Terminate)
                }
            })
        };
        let (_, unproved, _) = written(&[0; 32])?;
        let unproved = unproved.get(..unproved.len().saturating_sub(PROOF_ENTRY_LEN)).unwrap_or_default();
        let transcript = OwnerTranscript::new(session, channel, stored, 0, unproved);
        let proof = owner.proof(&transcript);
        let (kind, body, owned) = written(&proof)?;
        Ok(Self { kind, body, proved: Proved { owned, verifier, transcript, proof } })
    }
}
