//! What owners may do, and what becomes of a channel when its owner goes.

use alloc::vec::Vec;
use core::time::Duration;

use super::guard::{Guard, Owner, Protection};
use super::joining::name_of;
use super::registry::{ChannelIx, Leaving, LinkIx};
use super::session::Session;
use super::{DisconnectReason, Due, Event, Hub};
use crate::auth::{OwnerTranscript, OwnerVerifier};
use crate::canary::Canary;
use crate::error::Refusal;
use crate::names::{ClientId, CredentialId, Name};
use crate::policy::{AfterGrace, EPOCH_MAX, OwnerPolicy};
use crate::slots::Key;
use crate::time::TimerReason;
use crate::wire::{
    Accept, Channel, Control, Frame, FrameType, Offer, PROOF_ENTRY_LEN, Protect, ROUTE_BY_HUB, Reclaim, Record,
    Terminate, Unprotect,
};

/// How long a member may think about an offer.
const OFFER: Duration = Duration::from_secs(5);
/// How long a channel is held whose owner has taken over its own id, so that it can open the channel again.
const TAKEOVER: Duration = Duration::from_secs(10);
/// How many members are asked.
const OFFERS_MAX: u8 = 8;
/// How long a record is kept that nobody asks for.
const RECORD: Duration = Duration::from_secs(24 * 3_600);

/// An owner operation, as far as all of them are alike.
struct Operation<'a> {
    channel: Name<'a>,
    stored: u64,
    n: u64,
    proof: &'a [u8; 32],
}

impl Hub {
    pub(super) fn handle_protect(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let Protect { id, channel, stored, n, record, proof } = super::conversation::parse(frame)?;
        let result = self.protect(ix, frame, &Operation { channel, stored, n, proof }, &record);
        self.done(ix, id, result);
        Ok(())
    }

    fn protect(
        &mut self,
        ix: LinkIx,
        frame: &Frame,
        operation: &Operation<'_>,
        record: &Record<'_>,
    ) -> Result<(), Refusal> {
        let channel = self.owner_operation(ix, frame, operation)?;
        let session = self.links.get(ix).ok_or(Refusal::NotOwner)?;
        let keys = session.unmasked([record.stored_key, record.server_key]);
        let credential = session.member().map(|member| member.credential.clone()).ok_or(Refusal::NotOwner)?;
        let protection = Protection::of(record, keys, &credential).ok_or(Refusal::EpochMismatch)?;
        let guard = self.guard_mut(channel).ok_or(Refusal::NotOwner)?;
        let again = guard.epoch() == record.epoch;
        if again && guard.protection.as_ref().is_some_and(|stored| stored.same(&protection)) {
            return Ok(());
        }
        if operation.stored != guard.last_epoch || record.epoch != guard.last_epoch + 1 {
            return Err(Refusal::EpochMismatch);
        }
        if guard.protection.is_none() {
            self.has_record_room(&credential)?;
        }
        self.has_name_room(Some(channel), &credential)?;
        self.rotate(ix, channel, record.epoch, Some(protection));
        Ok(())
    }

    pub(super) fn handle_unprotect(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let Unprotect { id, channel, stored, n, epoch, proof } = super::conversation::parse(frame)?;
        let result = self.owner_operation(ix, frame, &Operation { channel, stored, n, proof }).and_then(|channel| {
            let guard = self.guard_mut(channel).ok_or(Refusal::NotOwner)?;
            if guard.protection.is_none() && guard.last_epoch == epoch {
                return Ok(());
            }
            let rises = stored == guard.last_epoch && epoch == guard.last_epoch + 1 && epoch <= EPOCH_MAX;
            if guard.protection.is_none() || !rises {
                return Err(Refusal::EpochMismatch);
            }
            self.rotate(ix, channel, epoch, None);
            Ok(())
        });
        self.done(ix, id, result);
        Ok(())
    }

    pub(super) fn handle_reclaim(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let Reclaim { id, channel, stored, n, proof } = super::conversation::parse(frame)?;
        let result = self.owner_operation(ix, frame, &Operation { channel, stored, n, proof }).map(|channel| {
            let mut timer = None;
            if let Some(guard) = self.guard_mut(channel)
                && let Owner::Away { key, .. } = &guard.owner
            {
                guard.owner = Owner::Present { key: key.clone(), link: ix };
                timer = guard.timer.take();
            }
            if let Some(timer) = timer {
                self.timers.cancel(timer);
            }
            self.waits_no_more(channel);
            self.owner_changed(channel);
        });
        self.done(ix, id, result);
        Ok(())
    }

    /// Whether a member that has joined is the owner, who has taken over from the link that was.
    pub(super) fn returns(&mut self, ix: LinkIx, channel: ChannelIx) -> bool {
        let lineage = self.links.get(ix).and_then(Session::member).map(|member| member.lineage);
        let key = match self.guard_mut(channel).map(|guard| &guard.owner) {
            Some(Owner::Away { key, heir, .. }) if heir.is_some() && *heir == lineage => key.clone(),
            Some(Owner::Nobody | Owner::Present { .. } | Owner::Away { .. } | Owner::Offered { .. }) | None => {
                return false;
            }
        };
        self.set_owner(channel, Owner::Present { key, link: ix }, None);
        self.waits_no_more(channel);
        true
    }

    pub(super) fn handle_terminate(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let Terminate { id, channel, stored, n, proof } = super::conversation::parse(frame)?;
        let result = self.owner_operation(ix, frame, &Operation { channel, stored, n, proof });
        let ended = result.map(|channel| {
            self.abandon(channel);
            self.terminate(channel);
        });
        self.done(ix, id, ended);
        Ok(())
    }

    /// Checks an operation's proof; the channel it is about, if this member owns it or may take it back.
    fn owner_operation(&mut self, ix: LinkIx, frame: &Frame, operation: &Operation<'_>) -> Result<ChannelIx, Refusal> {
        let Operation { channel, stored, n, proof } = *operation;
        let place = self.registry.find(channel).ok_or(Refusal::NotMember)?;
        let member = self.links.get_mut(ix).and_then(Session::member_mut).ok_or(Refusal::NotMember)?;
        if !member.memberships.has(place) {
            return Err(Refusal::NotMember);
        }
        let guard = self.registry.channel(place).map(|channel| &channel.guard).ok_or(Refusal::NotOwner)?;
        let reclaims = frame.number() == FrameType::Reclaim.number();
        let key = match &guard.owner {
            Owner::Present { key, link } if *link == ix => key,
            Owner::Away { key, .. } if reclaims => key,
            Owner::Nobody | Owner::Present { .. } | Owner::Away { .. } | Owner::Offered { .. } => {
                return Err(Refusal::NotOwner);
            }
        };
        let body = frame.body();
        let unproved = body.get(..body.len().saturating_sub(PROOF_ENTRY_LEN)).unwrap_or_default();
        let transcript = OwnerTranscript::new(&member.transcript, channel.as_str(), stored, n, unproved);
        if !key.verify(&transcript, proof) || !member.memberships.raise_owner_n(place, n) {
            return Err(Refusal::NotOwner);
        }
        // Only now: who has no proof learns nothing of the epoch.
        if reclaims && stored != guard.last_epoch { Err(Refusal::EpochMismatch) } else { Ok(place) }
    }

    /// Changes a channel's protection: one step, after which nobody but the owner is a member.
    fn rotate(&mut self, owner: LinkIx, channel: ChannelIx, epoch: u64, protection: Option<Protection>) {
        self.set_protection(channel, epoch, protection);
        self.evict(channel, Some(owner), Refusal::Rekeyed);
        self.protection_changed(channel, epoch);
    }

    /// Ends every call on a channel and every membership but one.
    fn evict(&mut self, channel: ChannelIx, but: Option<LinkIx>, why: Refusal) {
        let on_channel: Vec<Key> =
            self.calls.iter().filter(|(_, call)| call.is_on(channel)).map(|(key, _)| key).collect();
        for key in on_channel {
            self.end_call_with(key, why);
        }
        let Some(entry) = self.registry.channel(channel) else { return };
        let (name, epoch) = (entry.name().clone(), entry.guard.epoch());
        let mut members: Vec<LinkIx> =
            entry.members_after(0).map(|(_, link)| link).filter(|link| Some(*link) != but).collect();
        if Canary::Eviction.sings() {
            members.pop();
        }
        for link in members {
            let Some(session) = self.links.get_mut(link) else { continue };
            let told = Channel { channel: name.as_name(), code: why.code(), epoch: Some(epoch), owner: None };
            session.outbox.push(&mut self.pool, FrameType::Channel, |out| told.encode(out));
            let Some(member) = session.member_mut() else { continue };
            let departure = self.registry.evict(&mut member.memberships, link, channel);
            let client = member.client.clone();
            self.check_outbox(link);
            if let Some(departure) = departure {
                self.tell_departure(&client, &departure);
            }
        }
    }

    /// Ends a channel for all its members. What is to be remembered of it stays for a while.
    fn terminate(&mut self, channel: ChannelIx) {
        self.evict(channel, None, Refusal::Terminated);
        if let Some(channel) = name_of(self, channel) {
            self.event(Event::Terminated { channel });
        }
        self.forget_or_keep(channel);
    }

    /// A member has gone: what becomes of the channel if it was the owner, or the last.
    pub(super) fn member_left(&mut self, ix: LinkIx, channel: ChannelIx, leaving: Leaving) {
        let Some(guard) = self.guard_mut(channel) else { return };
        match &guard.owner {
            Owner::Present { key, link } if *link == ix => {
                let (key, policy) = (key.clone(), guard.policy);
                self.owner_left(channel, key, policy, leaving);
            }
            Owner::Offered { to, joined, refused, .. } if *to == ix => {
                let (joined, refused) = (*joined, *refused);
                self.offer(channel, joined, refused + 1);
            }
            Owner::Nobody | Owner::Present { .. } | Owner::Away { .. } | Owner::Offered { .. } => {}
        }
        self.forget_or_keep(channel);
    }

    fn owner_left(&mut self, channel: ChannelIx, key: OwnerVerifier, policy: OwnerPolicy, leaving: Leaving) {
        let (grace, after) = match policy {
            OwnerPolicy::Hold { grace, then } => (Some(grace), then),
            OwnerPolicy::Terminate => (None, AfterGrace::Terminate),
            OwnerPolicy::Promote => (None, AfterGrace::Promote),
        };
        let is_kept = self.guard_mut(channel).is_some_and(|guard| guard.keeper.is_some());
        let (held, heir) = match leaving {
            Leaving::Willing => (None, None),
            Leaving::Superseded { lineage } if is_kept => {
                (Some(grace.unwrap_or_default().max(TAKEOVER)), Some(lineage))
            }
            Leaving::Lost | Leaving::Superseded { .. } => (grace, None),
        };
        if let Some(time) = held {
            let due = self.now.mono + time;
            let timer = self.timers.insert(due, TimerReason::Ownership, Due::Ownership(channel));
            self.set_owner(channel, Owner::Away { key, held: Some(after), heir }, Some(timer));
            self.owner_changed(channel);
            return;
        }
        match (after, leaving) {
            (AfterGrace::Promote, _) => self.offer(channel, 0, 0),
            // By its own will: there is nobody any more who could come back to it.
            (AfterGrace::Terminate, Leaving::Willing) => {
                self.abandon(channel);
                self.terminate(channel);
            }
            (AfterGrace::Terminate, Leaving::Lost | Leaving::Superseded { .. }) => self.lose_owner(channel, key),
        }
    }

    /// The channel ends with its owner, who may come back to what is protected.
    fn lose_owner(&mut self, channel: ChannelIx, key: OwnerVerifier) {
        let protected = self.guard_mut(channel).is_some_and(|guard| guard.protection.is_some());
        let owner = if protected { Owner::Away { key, held: None, heir: None } } else { Owner::Nobody };
        self.set_owner(channel, owner, None);
        self.terminate(channel);
    }

    /// Asks the next member in the order of joining whether it wants to own the channel. The old owner's key is gone.
    fn offer(&mut self, channel: ChannelIx, after: u64, refused: u8) {
        let next = self.registry.channel(channel).and_then(|channel| channel.members_after(after).next());
        let Some((joined, to)) = next.filter(|_| refused < OFFERS_MAX) else {
            self.set_owner(channel, Owner::Nobody, None);
            return self.terminate(channel);
        };
        let offer: [u8; 16] = self.channel_nonces.bytes();
        let timer = self.timers.insert(self.now.mono + OFFER, TimerReason::Ownership, Due::Ownership(channel));
        self.set_owner(channel, Owner::Offered { offer, to, joined, refused }, Some(timer));
        let Some(name) = name_of(self, channel) else { return };
        if let Some(session) = self.links.get_mut(to) {
            let offer = Offer { offer: &offer, channel: name.as_name() };
            session.outbox.push(&mut self.pool, FrameType::Offer, |out| offer.encode(out));
        }
        self.check_outbox(to);
    }

    pub(super) fn handle_accept(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let accept = super::conversation::parse::<Accept<'_>>(frame)?;
        let Some(channel) = self.registry.find(accept.channel) else { return Ok(()) };
        let key = self.links.get(ix).map(|session| session.unmasked([accept.owner]));
        let guard = self.guard_mut(channel);
        let fits = guard.is_some_and(|guard| match &guard.owner {
            Owner::Offered { offer, to, .. } => *to == ix && offer == accept.offer,
            Owner::Nobody | Owner::Present { .. } | Owner::Away { .. } => false,
        });
        // Too late: it was offered to the next, who may have taken it.
        if let Some([key]) = key.filter(|_| fits) {
            self.set_owner(channel, Owner::Present { key: OwnerVerifier::from_bytes(key), link: ix }, None);
            self.owner_changed(channel);
        }
        Ok(())
    }

    /// A grace, an offer or a record has had its time.
    pub(super) fn ownership_due(&mut self, channel: ChannelIx) {
        let Some(guard) = self.guard_mut(channel) else { return };
        guard.timer = None;
        match &guard.owner {
            Owner::Away { key, held: Some(then), .. } => {
                let (key, then) = (key.clone(), *then);
                self.waits_no_more(channel);
                match then {
                    AfterGrace::Terminate => self.lose_owner(channel, key),
                    AfterGrace::Promote => self.offer(channel, 0, 0),
                }
            }
            Owner::Offered { joined, refused, .. } => {
                let (joined, refused) = (*joined, *refused);
                self.offer(channel, joined, refused + 1);
            }
            Owner::Nobody | Owner::Present { .. } | Owner::Away { held: None, .. } => self.forget_channel(channel),
        }
    }

    /// Without members a channel is forgotten: at once, or after a day if there is something to remember.
    fn forget_or_keep(&mut self, channel: ChannelIx) {
        let Some(entry) = self.registry.channel(channel).filter(|entry| entry.members() == 0) else { return };
        if !entry.guard.is_kept() {
            return self.forget_channel(channel);
        }
        if entry.guard.timer.is_none() {
            let due = Due::Ownership(channel);
            let timer = self.timers.insert(self.now.mono + RECORD, TimerReason::Ownership, due);
            if let Some(guard) = self.guard_mut(channel) {
                guard.timer = Some(timer);
            }
        }
    }

    /// The owner gives a channel up: nobody owns it, and it needs no password any more.
    fn abandon(&mut self, channel: ChannelIx) {
        let epoch = self.guard_mut(channel).map_or(0, |guard| guard.last_epoch);
        self.set_owner(channel, Owner::Nobody, None);
        self.set_protection(channel, epoch, None);
    }

    fn forget_channel(&mut self, channel: ChannelIx) {
        let epoch = self.guard_mut(channel).map_or(0, |guard| guard.last_epoch);
        self.set_protection(channel, epoch, None);
        self.release_name(channel);
        self.registry.forget(channel);
    }

    /// Whether a credential may protect one more channel.
    pub(super) fn has_record_room(&self, credential: &CredentialId) -> Result<(), Refusal> {
        let held = self.records.get(credential).copied().unwrap_or(0);
        if held < self.limits.records { Ok(()) } else { Err(Refusal::TooManyRecords) }
    }

    /// Changes what is kept of a channel's password, and the count of those who keep one.
    pub(super) fn set_protection(&mut self, channel: ChannelIx, epoch: u64, protection: Option<Protection>) {
        if let Some(new) = &protection {
            self.keep_name(channel, &new.credential);
        }
        let Some(entry) = self.registry.channel_mut(channel) else { return };
        entry.guard.last_epoch = epoch;
        if let Some(new) = &protection {
            *self.records.entry(new.credential.clone()).or_default() += 1;
        }
        let old = core::mem::replace(&mut entry.guard.protection, protection);
        if let Some(old) = old
            && let Some(count) = self.records.get_mut(&old.credential)
        {
            *count -= 1;
            if *count == 0 {
                self.records.remove(&old.credential);
            }
        }
    }

    fn set_owner(&mut self, channel: ChannelIx, owner: Owner, timer: Option<crate::timers::TimerId>) {
        let Some(guard) = self.guard_mut(channel) else { return };
        guard.owner = owner;
        if let Some(old) = core::mem::replace(&mut guard.timer, timer) {
            self.timers.cancel(old);
        }
    }

    fn guard_mut(&mut self, channel: ChannelIx) -> Option<&mut Guard> {
        self.registry.channel_mut(channel).map(|channel| &mut channel.guard)
    }

    pub(super) fn protection_changed(&mut self, channel: ChannelIx, epoch: u64) {
        let Some(entry) = self.registry.channel(channel) else { return };
        let (channel, protected) = (entry.name().clone(), entry.guard.protection.is_some());
        self.event(Event::ProtectionChanged { channel, epoch, protected });
    }

    /// Tells every member, and the application, who owns a channel.
    pub(super) fn owner_changed(&mut self, channel: ChannelIx) {
        let Some(entry) = self.registry.channel(channel) else { return };
        let (name, epoch) = (entry.name().clone(), entry.guard.epoch());
        let owner = match &entry.guard.owner {
            Owner::Present { link, .. } => self.links.get(*link).and_then(Session::member).map(|it| it.client.clone()),
            Owner::Nobody | Owner::Away { .. } | Owner::Offered { .. } => None,
        };
        let members: Vec<LinkIx> = entry.members_after(0).map(|(_, link)| link).collect();
        let told = Channel {
            channel: name.as_name(),
            code: 0,
            epoch: Some(epoch),
            owner: owner.as_ref().map(ClientId::as_name),
        };
        for link in members {
            if let Some(session) = self.links.get_mut(link) {
                session.outbox.push(&mut self.pool, FrameType::Channel, |out| told.encode(out));
            }
            self.check_outbox(link);
        }
        self.event(Event::OwnerChanged { channel: name, owner });
    }

    /// Ends a call for both sides with the hub's own word.
    pub(super) fn end_call_with(&mut self, key: Key, why: Refusal) {
        let Some((caller, provider)) = self.take_call(key) else { return };
        self.fail(caller.0, caller.1, why);
        self.fail(provider, key.bits() | ROUTE_BY_HUB, why);
    }
}
