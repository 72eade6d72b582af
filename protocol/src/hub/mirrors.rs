//! Channels of other hubs as their members here have them, and how their homes say what becomes of them.
//!
//! ```text
//!   home: protected, epoch 1 ──► epoch 2: Rekeyed        announced, with when the channel ended last; a hub that was cut off
//!              │ ended, and kept                         learns it when it hears of the home again
//!              └──────────────► ended later than before: Terminated
//! ```

use super::Hub;
use super::bridging::Own;
use super::guard::{Guard, Owner};
use super::homes::Errand;
use super::registry::{ChannelIx, LinkIx};
use super::routes::{Goal, Place, Realm, Terms, Way};
use super::session::Session;
use crate::client::EventKind;
use crate::error::Refusal;
use crate::names::{ChannelName, Name};

impl Hub {
    /// The home has let a client of this hub in, where the channel ended last then, or never.
    pub(super) fn join_mirror(&mut self, number: u64, ended: Option<u64>, proof: Option<&[u8; 32]>) {
        let Some(Errand { from, id, channel, realm, .. }) = self.drop_errand(number) else { return };
        let here = self.registry.by_name(channel.as_name());
        if let Some((place, here)) = here
            && here.guard.mirror.as_ref() == Some(&realm)
            && has_ended(&here.guard, ended)
        {
            self.evict_mirror(place, Refusal::Terminated);
        }
        let place = match self.registry.by_name(channel.as_name()) {
            Some((place, here)) if here.guard.mirror.as_ref() == Some(&realm) => place,
            Some(_) => return self.done(from, id, Err(Refusal::EpochMismatch)),
            None => {
                let mut guard = Guard::new(Owner::Nobody, self.owner_policy);
                (guard.mirror, guard.ended) = (Some(realm), ended);
                match self.registry.create(channel.as_name(), guard) {
                    Ok(place) => place,
                    Err(refusal) => return self.done(from, id, Err(refusal)),
                }
            }
        };
        let Some(member) = self.links.get(from).and_then(Session::member) else { return };
        if let Err(refusal) = self.registry.has_room(&member.memberships, Some(place), &self.limits) {
            self.done(from, id, Err(refusal));
            return self.forget_or_keep(place);
        }
        self.join(from, place);
        self.opened(from, id, place, proof);
    }

    /// A home announces a channel: members here of an earlier epoch have to join again, and of one that has ended since they
    /// are none any more, if it is the way to the home that says so.
    pub(super) fn home_announced(&mut self, ix: LinkIx, place: &Place, way: &Way) {
        let Goal::Home(home) = &place.goal else { return };
        let Some((channel, here)) = self.registry.by_name(place.channel.as_name()) else { return };
        let Some(mirror) = here.guard.mirror.as_ref().filter(|mirror| mirror.home.as_ref() == Some(home)) else {
            return;
        };
        let before = Place { realm: mirror.clone(), ..place.clone() };
        let known = self.bridges.routes.best(&before).map(|(link, _)| *link);
        if known.is_some_and(|link| link != ix) {
            return;
        }
        if place.realm.epoch > mirror.epoch {
            self.move_mirror(channel, place.realm.epoch, None);
        } else if place.realm == *mirror && (way.terms.is_none() || has_ended(&here.guard, way.ended)) {
            self.evict_mirror(channel, Refusal::Terminated);
        }
    }

    /// A way to a home is gone: what is announced on the next one counts from now on, also if that came before.
    pub(super) fn home_forgotten(&mut self, place: &Place) {
        let Goal::Home(home) = &place.goal else { return };
        let Some((realm, (link, way))) = self.bridges.routes.latest_home(place.channel.as_name(), home) else { return };
        let (latest, link, way) = (Place { realm: realm.clone(), ..place.clone() }, *link, way.clone());
        self.home_announced(link, &latest, &way);
    }

    /// A channel elsewhere has a new password, or none any more, and its owner may be here.
    pub(super) fn move_mirror(&mut self, place: ChannelIx, epoch: u64, owner: Option<LinkIx>) {
        self.registry.note(place);
        if let Some(mirror) = self.guard_mut(place).and_then(|guard| guard.mirror.as_mut()) {
            mirror.epoch = epoch;
        }
        self.evict(place, owner, Refusal::Rekeyed);
        self.forget_or_keep(place);
    }

    pub(super) fn evict_mirror(&mut self, channel: ChannelIx, why: Refusal) {
        self.evict(channel, None, why);
        self.forget_or_keep(channel);
    }

    /// How a channel of this hub is protected, for those who want to join from elsewhere; nothing if it never was.
    pub(super) fn home_of(&self, channel: &ChannelName) -> Option<Own> {
        let (_, here) = self.registry.by_name(Name::new(channel).ok()?)?;
        let guard = &here.guard;
        if guard.mirror.is_some() || guard.last_epoch == 0 {
            return None;
        }
        let terms = guard.protection.as_ref().map(|protection| Terms {
            kdf: protection.kdf.id(),
            salt: protection.salt,
            iterations: u64::from(protection.iterations),
        });
        let realm = Realm { home: Some(self.id.clone()), epoch: guard.last_epoch };
        Some(Own { realm, kind: EventKind::Call, terms, ended: guard.ended })
    }
}

/// Whether a channel of another hub has ended since its members here joined. A home that began anew knows of no end, and tells
/// its own members of none either.
fn has_ended(guard: &Guard, ended: Option<u64>) -> bool {
    ended.is_some() && ended != guard.ended
}
