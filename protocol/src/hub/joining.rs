//! Opening channels: who becomes a member at once, who has to prove the channel's password, and who owns what it opened.

use core::hash::BuildHasher as _;

use super::changes::Change;
use super::guard::{Guard, Owner, Protection};
use super::registry::{ChannelIx, LinkIx};
use super::session::{Joining, Member, Session};
use super::system::is_system_channel;
use super::{DisconnectReason, Due, Event, Hub};
use crate::auth::{Capabilities, JoinTranscript, OwnerVerifier};
use crate::error::{Refusal, Violation};
use crate::names::{ChannelName, ClientId, Name};
use crate::policy::OwnerPolicy;
use crate::time::TimerReason;
use crate::wire::{Control, Done, Frame, FrameType, Join, JoinChallenge, Malformed, Open, Record};

/// What opening came to.
enum Opened {
    /// A member now, or already.
    Member(ChannelIx),
    /// The password has to be proved.
    Challenged,
    /// Once that is stored, or at once where nothing is.
    Claimed,
}

impl Hub {
    pub(super) fn handle_open(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let open = super::conversation::parse::<Open<'_>>(frame)?;
        let policy = open.policy.map(OwnerPolicy::try_from).transpose().map_err(|Malformed| Violation::BadControl)?;
        if self.waits(ix, open.id, open.channel, frame) {
            return Ok(());
        }
        match self.open(ix, &open, policy) {
            Ok(Opened::Member(channel)) => self.opened(ix, open.id, channel, None),
            Ok(Opened::Challenged | Opened::Claimed) => {}
            Err(refusal) => self.done(ix, open.id, Err(refusal)),
        }
        Ok(())
    }

    fn open(&mut self, ix: LinkIx, open: &Open<'_>, policy: Option<OwnerPolicy>) -> Result<Opened, Refusal> {
        let refused = self.turns_down(ix);
        let Some(member) = self.links.get(ix).and_then(Session::member) else { return Err(Refusal::NotMember) };
        may_open(member, open.channel)?;
        let found = self.registry.find(open.channel);
        if let Some(channel) = found.filter(|channel| member.memberships.has(*channel)) {
            return Ok(Opened::Member(channel));
        }
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        self.registry.has_room(&member.memberships, found, &self.limits)?;
        if let Some(realm) = self.realm_elsewhere(open.channel) {
            return self.open_elsewhere(ix, open, realm).map(|()| Opened::Challenged);
        }
        let guard = found.and_then(|channel| self.registry.channel(channel)).map(|channel| &channel.guard);
        if guard.is_some_and(|guard| guard.protection.is_some()) {
            return self.challenge(ix, open).map(|()| Opened::Challenged);
        }
        if open.guarded == Some(true) && open.record.is_none() {
            return Err(Refusal::NotProtected);
        }
        self.open_unprotected(ix, open, policy, found)
    }

    /// Joins a channel without a password: owns it if nobody does, and protects it if that was asked for.
    fn open_unprotected(
        &mut self,
        ix: LinkIx,
        open: &Open<'_>,
        policy: Option<OwnerPolicy>,
        found: Option<ChannelIx>,
    ) -> Result<Opened, Refusal> {
        let channel = found.and_then(|channel| self.registry.channel(channel));
        let free = channel.is_none_or(|channel| channel.guard.is_free() && channel.members() == 0);
        let last_epoch = channel.map_or(0, |channel| channel.guard.last_epoch);
        let claims = open.owner.filter(|_| free && !open.channel.is_reserved());
        let protection = match (open.record, claims) {
            (None, _) => None,
            (Some(_), None) if open.channel.is_reserved() => return Err(Refusal::HubOwned),
            (Some(_), None) => return Err(Refusal::NotOwner),
            (Some(record), Some(_)) => Some(self.first_protection(ix, open.owner, &record, last_epoch)?),
        };
        let key = claims.and_then(|key| self.links.get(ix).map(|session| session.unmasked([key])));
        let policy = policy.unwrap_or(self.owner_policy);
        let outlives = last_epoch > 0 || protection.is_some() || matches!(policy, OwnerPolicy::Hold { .. });
        let keeper = self.links.get(ix).and_then(Session::member).map(|member| member.credential.clone());
        let keeper = keeper.filter(|_| outlives && claims.is_some());
        if let Some(keeper) = &keeper {
            self.has_name_room(found, keeper)?;
        }
        let channel = match found {
            Some(channel) => channel,
            None => self.registry.create(open.channel, Guard::new(Owner::Nobody, policy))?,
        };
        if let Some(keeper) = keeper {
            self.keep_name(channel, &keeper);
        }
        if let (Some([key]), Some(asked)) = (key, self.asked(ix, open.id)) {
            let key = OwnerVerifier::from_bytes(key);
            self.change(channel, Change::Claim { asked, key, policy, protection });
            return Ok(Opened::Claimed);
        }
        self.join(ix, channel);
        Ok(Opened::Member(channel))
    }

    /// The protection that comes with a claim.
    fn first_protection(
        &self,
        ix: LinkIx,
        owner: Option<&[u8; 32]>,
        record: &Record<'_>,
        last_epoch: u64,
    ) -> Result<(u64, Protection), Refusal> {
        if last_epoch > 0 && record.epoch != last_epoch + 1 {
            return Err(Refusal::EpochMismatch);
        }
        let session = self.links.get(ix).ok_or(Refusal::NotOwner)?;
        let owner = owner.ok_or(Refusal::NotOwner)?;
        let [_, stored_key, server_key] = session.unmasked([owner, record.stored_key, record.server_key]);
        let credential = session.member().map(|member| &member.credential).ok_or(Refusal::NotOwner)?;
        self.has_record_room(credential)?;
        let protection = Protection::of(record, [stored_key, server_key], credential).ok_or(Refusal::EpochMismatch)?;
        Ok((record.epoch, protection))
    }

    /// Asks for a proof of the password.
    fn challenge(&mut self, ix: LinkIx, open: &Open<'_>) -> Result<(), Refusal> {
        let nonce: [u8; 32] = self.channel_nonces.bytes();
        let (_, channel) = self.registry.by_name(open.channel).ok_or(Refusal::NotMember)?;
        let guard = &channel.guard;
        let (epoch, name) = (guard.epoch(), channel.name().clone());
        let Some(protection) = &guard.protection else { return Err(Refusal::NotProtected) };
        let Some(session) = self.links.get_mut(ix) else { return Ok(()) };
        let link = session.link;
        let Some(member) = session.member_mut() else { return Ok(()) };
        // One at a time for each channel, and a guess whose refusal waits is one.
        let waits = |joining: &Joining| joining.channel == name && joining.nonce.is_none();
        if member.joins.values().any(waits) || member.joins.contains_key(&open.id) {
            return Err(Refusal::Overloaded);
        }
        let earlier = member.joins.iter().find(|(_, joining)| joining.channel == name).map(|(id, _)| *id);
        let earlier = earlier.and_then(|id| member.joins.remove(&id));
        if let Some(timer) = earlier.and_then(|earlier| earlier.timer) {
            self.timers.cancel(timer);
        }
        if member.joins.len() >= self.limits.joins {
            return Err(Refusal::Overloaded);
        }
        let due = Due::Join(link, open.id);
        let timer = Some(self.timers.insert(self.now.mono + self.limits.join, TimerReason::Join, due));
        member.joins.insert(open.id, Joining { channel: name, epoch, nonce: Some(nonce), timer });
        let challenge = JoinChallenge {
            id: open.id,
            epoch,
            kdf: protection.kdf.id(),
            salt: &protection.salt,
            iterations: u64::from(protection.iterations),
            nonce: &nonce,
            home: None,
            boot: None,
        };
        session.outbox.push(&mut self.pool, FrameType::JoinChallenge, |out| challenge.encode(out));
        self.check_outbox(ix);
        Ok(())
    }

    pub(super) fn handle_join(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let join = super::conversation::parse::<Join<'_>>(frame)?;
        if self.join_elsewhere(ix, &join) {
            return Ok(());
        }
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return Ok(()) };
        let Some(Joining { channel, epoch: asked, nonce, timer }) = member.joins.remove(&join.id) else {
            // It took longer than the challenge is kept.
            self.done(ix, join.id, Err(Refusal::Deadline));
            return Ok(());
        };
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        let Some(nonce) = nonce.filter(|_| channel.as_name() == join.channel) else {
            return Err(Violation::UnexpectedFrame.into());
        };
        let transcript = (member.transcript, member.client.clone());
        let (transcript, client) = &transcript;
        let transcript = JoinTranscript::new(transcript, join.channel.as_str(), join.epoch, join.nonce, &nonce, client)
            .ok_or(Violation::BadNonce)?;
        let found = self.registry.by_name(join.channel);
        let current = found.filter(|(_, channel)| channel.guard.epoch() == join.epoch && join.epoch == asked);
        let Some((channel, protection)) = current
            .and_then(|(channel, entry)| entry.guard.protection.as_ref().map(|protection| (channel, protection)))
        else {
            self.done(ix, join.id, Err(Refusal::EpochMismatch));
            return Ok(());
        };
        match protection.verifier.verify(&transcript, join.proof) {
            Some(proven) => self.joined_by_proof(ix, join.id, channel, proven.hub_proof()),
            None => self.join_failed(ix, join.id, join.channel, asked),
        }
        Ok(())
    }

    fn joined_by_proof(&mut self, ix: LinkIx, id: u64, channel: ChannelIx, proof: &[u8; 32]) {
        let guesser = self.join_guesser(ix, channel);
        self.throttle.succeeded(guesser);
        let Some(member) = self.links.get(ix).and_then(Session::member) else { return };
        if let Err(refusal) = self.registry.has_room(&member.memberships, Some(channel), &self.limits) {
            return self.done(ix, id, Err(refusal));
        }
        self.join(ix, channel);
        self.opened(ix, id, channel, Some(proof));
    }

    /// A wrong password: told at once the first few times, then later and later.
    fn join_failed(&mut self, ix: LinkIx, id: u64, channel: Name<'_>, epoch: u64) {
        let Some((place, name)) = self.registry.by_name(channel).map(|(place, it)| (place, it.name().clone())) else {
            return;
        };
        let guesser = self.join_guesser(ix, place);
        let wait = self.throttle.failed(guesser, self.now.mono, &self.limits);
        let Some(session) = self.links.get_mut(ix).filter(|_| !wait.is_zero()) else {
            return self.done(ix, id, Err(Refusal::PasswordWrong));
        };
        let due = Due::JoinFailed(session.link, id);
        let timer = Some(self.timers.insert(self.now.mono + wait, TimerReason::JoinFailed, due));
        if let Some(member) = session.member_mut() {
            member.joins.insert(id, Joining { channel: name, epoch, nonce: None, timer });
        }
    }

    /// Nobody has proved anything for so long: who does later has to ask again.
    pub(super) fn join_expired(&mut self, link: crate::LinkId, id: u64) {
        let ix = self.links.find(link);
        if let Some(member) = ix.and_then(|ix| self.links.get_mut(ix)).and_then(Session::member_mut) {
            member.joins.remove(&id);
        }
    }

    pub(super) fn join_refused(&mut self, link: crate::LinkId, id: u64) {
        let Some(ix) = self.links.find(link) else { return };
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return };
        if member.joins.remove(&id).is_some() {
            self.done(ix, id, Err(Refusal::PasswordWrong));
        }
    }

    fn join_guesser(&self, ix: LinkIx, channel: ChannelIx) -> super::throttle::Guesser {
        let session = self.links.get(ix);
        let credential = session.and_then(Session::member).map(|member| member.credential.as_str());
        let channel = self.registry.channel(channel).map(|channel| channel.name().as_str());
        let source = session.map_or(super::Source::Local, |session| session.source);
        (source, self.hash.hash_one(("join", credential, channel)))
    }

    pub(super) fn join(&mut self, ix: LinkIx, channel: ChannelIx) {
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return };
        self.registry.join(&mut member.memberships, ix, channel);
        let client = member.client.clone();
        let Some(entry) = self.registry.channel_mut(channel) else { return };
        // A record that nobody asked for has been asked for.
        let record =
            matches!(entry.guard.owner, Owner::Nobody | Owner::Away { held: None, .. }) && !entry.guard.restarted;
        if record && let Some(timer) = entry.guard.timer.take() {
            self.timers.cancel(timer);
        }
        let channel = entry.name().clone();
        self.event(Event::Joined { channel, client });
    }

    pub(super) fn opened(&mut self, ix: LinkIx, id: u64, channel: ChannelIx, proof: Option<&[u8; 32]>) {
        let returns = self.returns(ix, channel);
        let guard = self.registry.channel(channel).map(|channel| &channel.guard);
        let epoch = Some(guard.map_or(0, Guard::epoch));
        let owner = guard.and_then(Guard::settled_owner);
        let name_of = |owner: LinkIx| self.links.get(owner).and_then(Session::member).map(|owner| owner.client.clone());
        let owned_by = owner.flatten().filter(|owner| *owner != ix).and_then(name_of);
        let owner = owner.map(|owner| owner == Some(ix));
        // Its owner, now or later, goes on from there.
        let last_epoch =
            guard.filter(|guard| guard.protection.is_none() && guard.last_epoch > 0).map(|it| it.last_epoch);
        let owned_by = owned_by.as_ref().map(ClientId::as_name);
        let done = Done { id, code: 0, epoch, owner, last_epoch, owned_by, proof };
        if let Some(session) = self.links.get_mut(ix) {
            session.outbox.push(&mut self.pool, FrameType::Done, |out| done.encode(out));
        }
        self.check_outbox(ix);
        if returns {
            self.owner_changed(channel);
        }
    }
}

/// The hub's own channels are for those who may see what it sees; other reserved names are nobody's.
fn may_open(member: &Member, channel: Name<'_>) -> Result<(), Refusal> {
    if !channel.is_reserved() {
        Ok(())
    } else if !is_system_channel(channel) {
        Err(Refusal::NameReserved)
    } else if member.capabilities.contains(Capabilities::OBSERVER) {
        Ok(())
    } else {
        Err(Refusal::NotAllowed)
    }
}

/// The name of a channel for an event.
pub(super) fn name_of(hub: &Hub, channel: ChannelIx) -> Option<ChannelName> {
    hub.registry.channel(channel).map(|channel| channel.name().clone())
}
