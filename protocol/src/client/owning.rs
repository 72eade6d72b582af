//! What the owner of a channel does at the hub where it lives, and what it knows of that when its answer comes late or never.
//!
//! ```text
//!   PROTECT, UNPROTECT ──► DONE: in force
//!      │        └ too late: told so, and in force when DONE comes after all, unless something newer is by then
//!      └ the link goes first: what may be in force is an attempt, by which the channel comes back if it is
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::BytesMut;

use super::afar::Wants;
use super::channels::{self, ChannelIx, Late, State};
use super::guarding::{ChannelSalt, Guarded, OwnRecord};
use super::seal::Seal;
use super::{Client, Event, Failure, Token};
use crate::auth::{ChannelKeys, ChannelMaster, OwnerTranscript};
use crate::canary::Canary;
use crate::error::{Misuse, Refusal};
use crate::names::ChannelName;
use crate::wire::{Control, FrameType, PROOF_ENTRY_LEN, Protect, Reclaim, Record, Terminate, Unprotect};

/// What an owner asked for.
#[derive(Debug)]
pub(super) enum Owned {
    Protect { epoch: u64, salt: ChannelSalt, keys: Box<ChannelKeys> },
    Unprotect { epoch: u64 },
    Reclaim,
    Terminate,
}

/// How many passwords of a channel may wait for the hub's answer: with each the channel comes back if it is the one in force.
const ATTEMPTS: usize = 4;

/// Passwords that we gave a channel and that may be in force, for all that we were told.
#[derive(Debug, Default)]
pub(super) struct Attempts(Vec<Attempt>);

#[derive(Debug)]
struct Attempt {
    epoch: u64,
    salt: ChannelSalt,
    keys: ChannelKeys,
}

impl Attempts {
    pub(super) fn add(&mut self, owned: &Owned) {
        let Owned::Protect { epoch, salt, keys } = owned else { return };
        self.0.retain(|it| (it.epoch, it.salt) != (*epoch, *salt));
        self.0.drain(..self.0.len().saturating_sub(ATTEMPTS - 1));
        self.0.push(Attempt { epoch: *epoch, salt: *salt, keys: (**keys).clone() });
    }

    /// The keys of a password that we gave it.
    pub(super) fn keys(&self, epoch: u64, salt: ChannelSalt) -> Option<ChannelKeys> {
        self.0.iter().find(|it| (it.epoch, it.salt) == (epoch, salt)).map(|it| it.keys.clone())
    }

    /// Whether this epoch would be that of one.
    pub(super) fn has(&self, epoch: Option<u64>) -> bool {
        self.0.iter().any(|it| Some(it.epoch) == epoch)
    }
}

impl Client {
    pub(super) fn handle_protect(
        &mut self,
        token: Token,
        name: &ChannelName,
        salt: ChannelSalt,
        master: &ChannelMaster,
    ) {
        let (ix, stored) = match self.owned(name) {
            Ok(owned) => owned,
            Err(failure) => return self.done(token, Err(failure)),
        };
        // The hub takes the first of several: none that it may have taken is forgotten for a later one.
        if self.controls.values().filter(|(control, _)| control.gives_password(ix)).count() >= ATTEMPTS {
            return self.done(token, Err(Failure::Local(Misuse::TooMany)));
        }
        if self.is_elsewhere(ix) {
            return self.operate_afar(token, ix, Wants::Protect { salt, master: Box::new(master.clone()) });
        }
        // Where the hub knows of none, above what we have proved: whoever knows that one takes no lower one.
        let proved = self.channels.get(ix).and_then(|channel| channel.guarded.proved).map_or(0, |(epoch, _)| epoch);
        let epoch = if stored == 0 { proved } else { stored } + 1;
        let keys = master.keys(name, &salt.salt, epoch);
        let verifier = keys.join().verifier();
        let mut masked = [*verifier.stored_key(), *verifier.server_key()];
        self.mask(&mut masked);
        let [stored_key, server_key] = masked;
        let record = Record {
            epoch,
            kdf: salt.kdf.id(),
            salt: &salt.salt,
            iterations: u64::from(salt.iterations),
            stored_key: &stored_key,
            server_key: &server_key,
        };
        let owned = Owned::Protect { epoch, salt, keys: Box::new(keys) };
        self.owner_request(channels::Control::Owned(token, ix, owned), ix, |id, n, proof| {
            encoded(&Protect { id, channel: name.as_name(), stored, n, record, proof })
        });
    }

    pub(super) fn handle_unprotect(&mut self, token: Token, name: &ChannelName) {
        let (ix, stored) = match self.owned(name) {
            Ok(owned) => owned,
            Err(failure) => return self.done(token, Err(failure)),
        };
        if self.is_elsewhere(ix) {
            return self.operate_afar(token, ix, Wants::Unprotect);
        }
        // While something is asked for, the hub alone knows what it will be by then.
        let settled = !self.controls.values().any(|(control, _)| control.is_owned(ix));
        if settled && self.channels.get(ix).is_some_and(|channel| channel.guarded.seal.is_none()) {
            return self.done(token, Err(Failure::Refused(Refusal::NotProtected)));
        }
        let epoch = stored + 1;
        self.owner_request(channels::Control::Owned(token, ix, Owned::Unprotect { epoch }), ix, |id, n, proof| {
            encoded(&Unprotect { id, channel: name.as_name(), stored, n, epoch, proof })
        });
    }

    pub(super) fn handle_terminate(&mut self, token: Token, name: &ChannelName) {
        let (ix, stored) = match self.owned(name) {
            Ok(owned) => owned,
            Err(failure) => return self.done(token, Err(failure)),
        };
        if self.is_elsewhere(ix) {
            return self.operate_afar(token, ix, Wants::Terminate);
        }
        self.owner_request(channels::Control::Owned(token, ix, Owned::Terminate), ix, |id, n, proof| {
            encoded(&Terminate { id, channel: name.as_name(), stored, n, proof })
        });
    }

    pub(super) fn handle_reclaim(&mut self, token: Token, name: &ChannelName) {
        let open = self.channels.open(name).map(|(ix, channel)| (ix, channel.guarded.last_epoch));
        let (ix, stored) = match open {
            Ok(open) => open,
            Err(failure) => return self.done(token, Err(self.or_not_ready(failure))),
        };
        self.write_reclaim(channels::Control::Owned(token, ix, Owned::Reclaim), ix, name, stored);
    }

    /// Takes a channel back that we owned when the connection went, or that we have been given the key of.
    pub(super) fn reclaim(&mut self, ix: ChannelIx, name: &ChannelName) {
        let stored = self.channels.get(ix).map_or(0, |channel| channel.guarded.last_epoch);
        self.write_reclaim(channels::Control::Reclaim(ix), ix, name, stored);
    }

    pub(super) fn write_reclaim(&mut self, control: channels::Control, ix: ChannelIx, name: &ChannelName, stored: u64) {
        self.owner_request(control, ix, |id, n, proof| {
            encoded(&Reclaim { id, channel: name.as_name(), stored, n, proof })
        });
    }

    /// A channel that we own, or have been given the key of, and its stored epoch.
    fn owned(&mut self, name: &ChannelName) -> Result<(ChannelIx, u64), Failure> {
        let hub = self.ready_hub().map_err(Failure::Local)?;
        let owns = |guarded: &Guarded| guarded.owns || guarded.owned_last || guarded.is_given(&hub);
        let open = self.channels.open(name).map(|(ix, it)| (ix, owns(&it.guarded), it.guarded.last_epoch));
        match open {
            Ok((ix, true, last_epoch)) => Ok((ix, last_epoch)),
            Ok(_) => Err(Failure::Refused(Refusal::NotOwner)),
            Err(failure) => Err(self.or_not_ready(failure)),
        }
    }

    /// Sends an owner operation: `body` is made twice, the first time for what is proved.
    fn owner_request(
        &mut self,
        control: channels::Control,
        ix: ChannelIx,
        body: impl Fn(u64, u64, &[u8; 32]) -> (FrameType, BytesMut),
    ) {
        let Ok(hub) = self.ready_hub() else {
            return self.control_ended(control, Err(Failure::Local(Misuse::NotConnected)));
        };
        let stored = self.channels.get_mut(ix).map_or(0, |channel| channel.guarded.last_epoch);
        let id = self.control(control);
        let (super::Phase::Ready(ready), Some(channel)) = (&self.phase, self.channels.get_mut(ix)) else { return };
        let guarded = &mut channel.guarded;
        guarded.owner_n += 1;
        let n = guarded.owner_n;
        let (_, unproved) = body(id, n, &[0; 32]);
        let unproved = unproved.get(..unproved.len().saturating_sub(PROOF_ENTRY_LEN)).unwrap_or_default();
        let transcript = OwnerTranscript::new(&ready.transcript, &channel.name, stored, n, unproved);
        let proof = guarded.key_at(&hub).map(|key| key.keys().proof(&transcript));
        let (kind, out) = body(id, n, &proof.unwrap_or([0; 32]));
        self.outbox.push(&mut self.pool, kind, |to| bytes::BufMut::put_slice(to, &out));
    }

    /// The hub has done what an owner asked for. A hub does one thing after the other, so that nothing older than what is in
    /// force can come into force: whoever says so puts an owner back to an older password, or to none.
    pub(super) fn owner_did(&mut self, ix: ChannelIx, owned: Owned) -> Result<(), Failure> {
        let own = (self.id.clone(), self.instance);
        let hash = self.channels.hash();
        let Some(channel) = self.channels.get_mut(ix) else { return Ok(()) };
        // Left meanwhile: what the hub has done stays known, but keys are for members.
        let is_open = matches!(channel.state, State::Open(_));
        let guarded = &mut channel.guarded;
        let (epoch, salt) = match &owned {
            Owned::Protect { epoch, salt, .. } => (*epoch, Some(*salt)),
            Owned::Unprotect { epoch } => (*epoch, None),
            Owned::Reclaim => {
                (guarded.owns, guarded.owned_last) = (is_open, false);
                return Ok(());
            }
            // Our own membership ended with everybody's, and was told.
            Owned::Terminate => return Ok(()),
        };
        if epoch <= guarded.last_epoch && !Canary::OlderWord.sings() {
            // Asked for twice and done once.
            let in_force = guarded.last_epoch == epoch && guarded.kept() == salt;
            return if in_force { Ok(()) } else { Err(Failure::Refused(Refusal::EpochMismatch)) };
        }
        (guarded.last_epoch, guarded.attempts) = (epoch, Attempts::default());
        if let Owned::Protect { epoch, salt, keys } = owned {
            guarded.proved = Some((epoch, salt));
            if is_open {
                guarded.record = Some(OwnRecord::of(epoch, salt, keys.join()));
                guarded.enter(Seal::new(epoch, *keys, (&own.0, &own.1), hash));
            }
        } else {
            (guarded.seal, guarded.record) = (None, None);
        }
        if is_open {
            let channel = channel.name.clone();
            self.event(Event::PasswordChanged { channel, salt });
        }
        Ok(())
    }

    /// The link goes before an owner has its answer: the password may be in force.
    pub(super) fn attempted(&mut self, control: &channels::Control) {
        let (channels::Control::Owned(_, ix, owned) | channels::Control::Late(Some(Late::Owned(ix, owned)))) = control
        else {
            return;
        };
        if let Some(channel) = self.channels.get_mut(*ix) {
            channel.guarded.attempts.add(owned);
        }
    }
}

fn encoded<'a, C: Control<'a>>(body: &C) -> (FrameType, BytesMut) {
    let mut out = BytesMut::new();
    body.encode(&mut out);
    (C::TYPE, out)
}
