//! What a channel is beyond its members: who owns it, how it is protected, and what becomes of it when its owner goes.
//!
//! ```text
//!              first to open                    link lost, or left
//!   Nobody ──────────────────► Present ──────────────────────────────► terminate: Away, if there is a record to keep
//!      ▲                        ▲    ▲                      │
//!      │ nobody takes it        │    └───── Reclaim ────────┼────────► hold: Away until the grace is over
//!      └──────── Offered ───────┘ Accept                    │
//!                   ▲                                       │
//!                   └───────────────── promote ◄────────────┘
//! ```

use super::registry::LinkIx;
use super::routes::Realm;
use crate::auth::{JoinVerifier, Kdf, OwnerVerifier};
use crate::canary::Canary;
use crate::error::Refusal;
use crate::names::CredentialId;
use crate::policy::{AfterGrace, EPOCH_MAX, OwnerPolicy};
use crate::timers::TimerId;
use crate::wire::Record;

/// Ownership and protection of one channel.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The last epoch there was, rising for as long as the name is remembered.
    pub(crate) last_epoch: u64,
    pub(crate) protection: Option<Protection>,
    pub(crate) owner: Owner,
    pub(crate) policy: OwnerPolicy,
    /// For whom the name counts among those that may outlive their members.
    pub(crate) keeper: Option<CredentialId>,
    /// Of an offer, of a grace, or of a record that nobody has asked for.
    pub(crate) timer: Option<TimerId>,
    /// The change that is being stored: until that is done there is no other.
    pub(crate) pending: Option<u64>,
    /// Which channel of another hub it is, whose members prove themselves there.
    pub(crate) mirror: Option<Realm>,
    /// When it ended last for all who were members, in unix ms, since this hub began; of a channel of another hub, what its
    /// home said of that to those who are members here.
    pub(crate) ended: Option<u64>,
    /// The hub has started again, and the owner has had no time yet to come back: members believe that it is there.
    pub(crate) restarted: bool,
}

/// What the hub keeps of a channel's password: enough to check that a member knows it.
#[derive(Clone, Debug)]
pub(crate) struct Protection {
    pub(crate) kdf: Kdf,
    pub(crate) salt: [u8; 16],
    pub(crate) iterations: u32,
    pub(crate) verifier: JoinVerifier,
    /// Who protected the channel: bounded for each.
    pub(crate) credential: CredentialId,
}

/// Who owns a channel.
#[derive(Debug)]
pub(crate) enum Owner {
    /// Nobody.
    Nobody,
    /// A member.
    Present { key: OwnerVerifier, link: LinkIx },
    /// Somebody whose link is gone, and who is known by the key.
    Away {
        key: OwnerVerifier,
        /// While a grace runs: what then.
        held: Option<AfterGrace>,
        /// Whose joining is the owner's return: a client that has taken over from the link that owned the channel.
        heir: Option<u64>,
    },
    /// Nobody yet: a member was asked.
    Offered {
        offer: [u8; 16],
        to: LinkIx,
        /// Its place in the order of joining.
        joined: u64,
        /// How many were asked before.
        refused: u8,
    },
}

impl Guard {
    pub(crate) const fn new(owner: Owner, policy: OwnerPolicy) -> Self {
        Self {
            last_epoch: 0,
            protection: None,
            owner,
            policy,
            keeper: None,
            timer: None,
            pending: None,
            mirror: None,
            ended: None,
            restarted: false,
        }
    }

    /// The epoch that messages must carry: 0 while the channel is unprotected.
    pub(crate) const fn epoch(&self) -> u64 {
        match &self.mirror {
            Some(mirror) => mirror.epoch,
            None if self.protection.is_some() => self.last_epoch,
            None => 0,
        }
    }

    /// The member that owns the channel.
    pub(crate) const fn owner(&self) -> Option<LinkIx> {
        match &self.owner {
            Owner::Present { link, .. } => Some(*link),
            Owner::Nobody | Owner::Away { .. } | Owner::Offered { .. } => None,
        }
    }

    /// The same for somebody who joins now, or `None` where that cannot be said: the home knows, or it is being decided.
    pub(crate) const fn settled_owner(&self) -> Option<Option<LinkIx>> {
        match &self.owner {
            Owner::Offered { .. } => None,
            Owner::Away { .. } if self.restarted => None,
            Owner::Nobody if self.mirror.is_some() => None,
            Owner::Present { .. } | Owner::Away { .. } | Owner::Nobody => Some(self.owner()),
        }
    }

    /// Whether this link owns the channel.
    pub(crate) fn is_owned_by(&self, ix: LinkIx) -> bool {
        self.owner() == Some(ix)
    }

    /// Whether there is anything to remember when nobody is a member.
    pub(crate) const fn is_kept(&self) -> bool {
        self.last_epoch > 0 || matches!(self.owner, Owner::Away { .. })
    }

    /// Whether the owner's new protection is one to be stored; `false` if it is the stored one, asked for again.
    pub(crate) fn takes(&self, stored: u64, epoch: u64, protection: &Protection) -> Result<bool, Refusal> {
        if self.epoch() == epoch && self.protection.as_ref().is_some_and(|own| own.same(protection)) {
            return Ok(false);
        }
        // A hub that knows nothing of the name takes any: members may know of later ones than it.
        let rises = self.last_epoch == 0 || epoch == self.last_epoch + 1;
        if stored == self.last_epoch && rises { Ok(true) } else { Err(Refusal::EpochMismatch) }
    }

    /// Whether the protection is to go; `false` if it has gone already.
    pub(crate) fn gives_up(&self, stored: u64, epoch: u64) -> Result<bool, Refusal> {
        if self.protection.is_none() && self.last_epoch == epoch {
            return Ok(false);
        }
        let rises = stored == self.last_epoch && epoch == self.last_epoch + 1 && epoch <= EPOCH_MAX;
        if self.protection.is_some() && rises { Ok(true) } else { Err(Refusal::EpochMismatch) }
    }

    /// Whether whoever opens the channel now, being its first member, owns it.
    pub(crate) fn is_free(&self) -> bool {
        let nobodys = match self.owner {
            Owner::Nobody => true,
            Owner::Away { .. } => Canary::Away.sings(),
            Owner::Present { .. } | Owner::Offered { .. } => false,
        };
        nobodys && self.protection.is_none() && self.mirror.is_none()
    }
}

impl Protection {
    /// Reads a record, if it is one that can be kept; `keys` are its unmasked JSK and JVK.
    pub(crate) fn of(
        record: &Record<'_>,
        [stored_key, server_key]: [[u8; 32]; 2],
        credential: &CredentialId,
    ) -> Option<Self> {
        let kdf = Kdf::from_id(record.kdf).filter(|kdf| *kdf != Kdf::Insecure)?;
        let iterations = u32::try_from(record.iterations).ok().filter(|iterations| kdf.allows(*iterations))?;
        if !(1..=EPOCH_MAX).contains(&record.epoch) {
            return None;
        }
        let verifier = JoinVerifier::from_parts(stored_key, server_key);
        Some(Self { kdf, salt: *record.salt, iterations, verifier, credential: credential.clone() })
    }

    /// Whether both are the same to the byte.
    pub(crate) fn same(&self, other: &Self) -> bool {
        (self.kdf, self.salt, self.iterations) == (other.kdf, other.salt, other.iterations)
            && self.verifier.same(&other.verifier)
    }
}
