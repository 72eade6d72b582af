//! What owners may do, and what becomes of a channel when its owner goes.

use alloc::vec::Vec;
use core::time::Duration;

use super::changes::{Asked, Change, Wanted};
use super::guard::{Guard, Owner, Protection};
use super::joining::name_of;
use super::registry::{ChannelIx, Leaving, LinkIx};
use super::session::Session;
use super::{DisconnectReason, Due, Event, Hub};
use crate::auth::{OwnerTranscript, OwnerVerifier};
use crate::canary::Canary;
use crate::error::Refusal;
use crate::names::{ClientId, CredentialId, Name};
use crate::policy::{AfterGrace, OwnerPolicy};
use crate::slots::Key;
use crate::time::TimerReason;
use crate::wire::{
    Accept, Channel, Control, Frame, FrameType, Offer, PROOF_ENTRY_LEN, Protect, ROUTE_BY_HUB, Reclaim, Record,
    Terminate, Unprotect,
};

/// How long a member may think about an offer.
const OFFER: Duration = Duration::from_secs(5);
/// How many members are asked.
const OFFERS_MAX: u8 = 8;
/// How long a channel is held whose owner has taken over its own id, so that it can open the channel again.
const TAKEOVER: Duration = Duration::from_secs(10);
/// How long a record is kept that nobody asks for.
const RECORD: Duration = Duration::from_secs(24 * 3_600);

/// An owner operation, as far as all of them are alike.
pub(super) struct Operation<'a> {
    pub(super) channel: Name<'a>,
    pub(super) stored: u64,
    pub(super) n: u64,
    pub(super) proof: &'a [u8; 32],
}

impl Hub {
    pub(super) fn handle_protect(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let Protect { id, channel, stored, n, record, proof } = super::conversation::parse(frame)?;
        if self.waits(ix, id, channel, frame) {
            return Ok(());
        }
        let wanted = self.protect(ix, id, frame, &Operation { channel, stored, n, proof }, &record);
        self.carry_out(ix, id, channel, wanted)
    }

    fn protect(
        &mut self,
        ix: LinkIx,
        id: u64,
        frame: &Frame,
        operation: &Operation<'_>,
        record: &Record<'_>,
    ) -> Wanted {
        let channel = self.owner_operation(ix, frame, operation)?;
        let session = self.links.get(ix).ok_or(Refusal::NotOwner)?;
        let keys = session.unmasked([record.stored_key, record.server_key]);
        let credential = session.member().map(|member| member.credential.clone()).ok_or(Refusal::NotOwner)?;
        let protection = Protection::of(record, keys, &credential).ok_or(Refusal::EpochMismatch)?;
        let guard = self.guard_mut(channel).ok_or(Refusal::NotOwner)?;
        if !guard.takes(operation.stored, record.epoch, &protection)? {
            return Ok(None);
        }
        if guard.protection.as_ref().is_none_or(|stored| stored.credential != credential) {
            self.has_record_room(&credential)?;
        }
        self.has_name_room(Some(channel), &credential)?;
        let asked = self.asked(ix, id);
        Ok(asked.map(|asked| Change::Rotate { asked, epoch: record.epoch, protection: Some(protection) }))
    }

    pub(super) fn handle_unprotect(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let Unprotect { id, channel, stored, n, epoch, proof } = super::conversation::parse(frame)?;
        if self.waits(ix, id, channel, frame) {
            return Ok(());
        }
        let operation = self.owner_operation(ix, frame, &Operation { channel, stored, n, proof });
        let wanted = operation.and_then(|channel| {
            let guard = self.guard_mut(channel).ok_or(Refusal::NotOwner)?;
            let asked = if guard.gives_up(stored, epoch)? { self.asked(ix, id) } else { None };
            Ok(asked.map(|asked| Change::Rotate { asked, epoch, protection: None }))
        });
        self.carry_out(ix, id, channel, wanted)
    }

    pub(super) fn handle_reclaim(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let Reclaim { id, channel, stored, n, proof } = super::conversation::parse(frame)?;
        if self.waits(ix, id, channel, frame) {
            return Ok(());
        }
        let result = self.owner_operation(ix, frame, &Operation { channel, stored, n, proof }).map(|channel| {
            let owner = self.guard_mut(channel).map(|guard| &guard.owner);
            if let Some(Owner::Away { key, .. } | Owner::Present { key, .. }) = owner {
                let key = key.clone();
                self.set_owner(channel, Owner::Present { key, link: ix }, None);
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
        // Too late where it is being stored that the owner has gone.
        let late = self.is_changing(channel);
        let key = match self.guard_mut(channel).map(|guard| &guard.owner) {
            Some(Owner::Away { key, heir, .. }) if heir.is_some() && *heir == lineage && !late => key.clone(),
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
        if self.waits(ix, id, channel, frame) {
            return Ok(());
        }
        let operation = self.owner_operation(ix, frame, &Operation { channel, stored, n, proof });
        let wanted = operation.map(|_| Some(Change::Abandon { asked: self.asked(ix, id) }));
        self.carry_out(ix, id, channel, wanted)
    }

    /// Checks an operation's proof; the channel it is about, if this member owns it or may take it back.
    fn owner_operation(&mut self, ix: LinkIx, frame: &Frame, operation: &Operation<'_>) -> Result<ChannelIx, Refusal> {
        let Operation { channel, stored, n, proof } = *operation;
        if channel.is_reserved() {
            return Err(Refusal::HubOwned);
        }
        let place = self.registry.find(channel).ok_or(Refusal::NotMember)?;
        let member = self.links.get_mut(ix).and_then(Session::member_mut).ok_or(Refusal::NotMember)?;
        if !member.memberships.has(place) {
            return Err(Refusal::NotMember);
        }
        let guard = self.registry.channel(place).map(|channel| &channel.guard).ok_or(Refusal::NotOwner)?;
        let reclaims = frame.number() == FrameType::Reclaim.number();
        let key = match &guard.owner {
            Owner::Present { key, link } if *link == ix => key,
            // Whoever has the key is the owner, also of what another link of its own still holds.
            Owner::Away { key, .. } | Owner::Present { key, .. } if reclaims => key,
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

    /// Changes a channel's protection: one step, after which nobody but the owner is a member, who is at another hub if it
    /// has asked from afar.
    pub(super) fn rotate(&mut self, channel: ChannelIx, epoch: u64, protection: Option<Protection>, afar: bool) {
        self.set_protection(channel, epoch, protection);
        if afar {
            self.owner_is_elsewhere(channel);
        }
        let owner = self.guard_mut(channel).and_then(|guard| guard.owner());
        self.evict(channel, owner, Refusal::Rekeyed);
        self.protection_changed(channel, epoch);
        if afar {
            self.forget_or_keep(channel);
        }
    }

    /// Ends every call on a channel and every membership but one.
    pub(super) fn evict(&mut self, channel: ChannelIx, but: Option<LinkIx>, why: Refusal) {
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
    pub(super) fn terminate(&mut self, channel: ChannelIx) {
        let now = self.now.wall.0;
        if let Some(guard) = self.guard_mut(channel) {
            guard.ended = Some(guard.ended.map_or(now, |last| now.max(last + 1)));
        }
        self.registry.note(channel);
        self.evict(channel, None, Refusal::Terminated);
        if let Some(channel) = name_of(self, channel) {
            self.event(Event::Terminated { channel });
        }
        self.forget_or_keep(channel);
    }

    /// A member has gone: what becomes of the channel if it was the owner, or the last.
    ///
    /// The member's request, if it was one, is answered here or later.
    pub(super) fn member_left(&mut self, ix: LinkIx, channel: ChannelIx, leaving: Leaving, asked: Option<Asked>) {
        let changing = self.is_changing(channel);
        let Some(guard) = self.guard_mut(channel) else { return self.answer(asked, Ok(())) };
        match &guard.owner {
            Owner::Present { key, link } if *link == ix => {
                let key = key.clone();
                self.set_owner(channel, Owner::Away { key, held: None, heir: None }, None);
                self.owner_left(channel, leaving, asked);
            }
            Owner::Offered { to, .. } if *to == ix => {
                // One that has taken the offer and is gone by now is judged when its change is stored.
                if !changing {
                    self.offer_to_next(channel);
                }
                self.answer(asked, Ok(()));
            }
            Owner::Nobody | Owner::Present { .. } | Owner::Away { .. } | Owner::Offered { .. } => {
                self.answer(asked, Ok(()));
            }
        }
        self.forget_or_keep(channel);
    }

    /// The owner is gone, and its key is kept: what the channel's policy makes of that.
    pub(super) fn owner_gone(&mut self, channel: ChannelIx, leaving: Leaving, asked: Option<Asked>) {
        let stops = self.stopping;
        let Some(guard) = self.guard_mut(channel) else { return self.answer(asked, Ok(())) };
        let away = matches!(guard.owner, Owner::Away { .. });
        // Everybody goes with the hub; what it has stored is found as it was.
        if !away || stops {
            return self.answer(asked, Ok(()));
        }
        let (grace, then) = match guard.policy {
            OwnerPolicy::Hold { grace, then } => (Some(grace), then),
            OwnerPolicy::Terminate => (None, AfterGrace::Terminate),
            OwnerPolicy::Promote => (None, AfterGrace::Promote),
        };
        let (held, heir) = match leaving {
            Leaving::Willing => (None, None),
            Leaving::Superseded { lineage } if guard.keeper.is_some() => {
                (Some(grace.unwrap_or_default().max(TAKEOVER)), Some(lineage))
            }
            Leaving::Lost | Leaving::Superseded { .. } => (grace, None),
        };
        if let Some(time) = held {
            return self.hold(channel, time, then, heir);
        }
        match (then, leaving) {
            (AfterGrace::Promote, _) => self.change(channel, Change::Disown { then, asked }),
            // By its own will: there is nobody any more who could come back to it.
            (AfterGrace::Terminate, Leaving::Willing) => self.change(channel, Change::Abandon { asked }),
            (AfterGrace::Terminate, Leaving::Lost | Leaving::Superseded { .. }) => self.lose_owner(channel),
        }
    }

    pub(super) fn hold(&mut self, channel: ChannelIx, grace: Duration, then: AfterGrace, heir: Option<u64>) {
        let key = match self.guard_mut(channel).map(|guard| &guard.owner) {
            Some(Owner::Away { key, .. }) => key.clone(),
            Some(Owner::Nobody | Owner::Present { .. } | Owner::Offered { .. }) | None => return,
        };
        let due = self.now.mono + grace;
        let timer = self.timers.insert(due, TimerReason::Ownership, Due::Ownership(channel));
        self.set_owner(channel, Owner::Away { key, held: Some(then), heir }, Some(timer));
        self.owner_changed(channel);
    }

    /// The channel ends with its owner, who may come back to what is protected.
    fn lose_owner(&mut self, channel: ChannelIx) {
        let Some(guard) = self.guard_mut(channel) else { return };
        if guard.protection.is_none() {
            return self.change(channel, Change::Disown { then: AfterGrace::Terminate, asked: None });
        }
        if let Owner::Away { held, heir, .. } = &mut guard.owner {
            (*held, *heir) = (None, None);
        }
        self.terminate(channel);
    }

    /// Asks the next member in the order of joining whether it wants to own the channel. The old owner's key is gone.
    pub(super) fn offer(&mut self, channel: ChannelIx, after: u64, refused: u8) {
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

    pub(super) fn offer_to_next(&mut self, channel: ChannelIx) {
        if let Some(guard) = self.guard_mut(channel)
            && let Owner::Offered { joined, refused, .. } = &guard.owner
        {
            let (joined, refused) = (*joined, *refused);
            self.offer(channel, joined, refused + 1);
        }
    }

    pub(super) fn handle_accept(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let accept = super::conversation::parse::<Accept<'_>>(frame)?;
        let Some(channel) = self.registry.find(accept.channel) else { return Ok(()) };
        let taken = self.links.get(ix).map(|session| (session.link, session.unmasked([accept.owner])));
        let changing = self.is_changing(channel);
        let guard = self.guard_mut(channel);
        let fits = guard.is_some_and(|guard| match &guard.owner {
            Owner::Offered { offer, to, .. } => *to == ix && offer == accept.offer,
            Owner::Nobody | Owner::Present { .. } | Owner::Away { .. } => false,
        });
        // Too late: it was offered to the next, who may have taken it.
        if let Some((link, [key])) = taken.filter(|_| fits && !changing) {
            self.change(channel, Change::Accept { link, key: OwnerVerifier::from_bytes(key) });
        }
        Ok(())
    }

    /// A grace, an offer or a record has had its time.
    pub(super) fn ownership_due(&mut self, channel: ChannelIx) {
        let Some(guard) = self.guard_mut(channel) else { return };
        guard.timer = None;
        if guard.pending.is_some() {
            return self.look_again(channel);
        }
        let restarted = core::mem::take(&mut guard.restarted);
        match &guard.owner {
            Owner::Away { held: Some(AfterGrace::Terminate), .. } => {
                self.waits_no_more(channel);
                self.lose_owner(channel);
            }
            Owner::Away { held: Some(AfterGrace::Promote), .. } => {
                self.waits_no_more(channel);
                self.change(channel, Change::Disown { then: AfterGrace::Promote, asked: None });
            }
            Owner::Offered { .. } => self.offer_to_next(channel),
            // It has not come back, and its members go on without it.
            Owner::Away { held: None, .. } if restarted => {
                self.tell_owner(channel);
                self.forget_or_keep(channel);
            }
            Owner::Nobody | Owner::Present { .. } | Owner::Away { held: None, .. } => {
                if guard.is_kept() {
                    self.store_nothing(channel);
                }
                self.forget_channel(channel);
            }
        }
    }

    /// Without members a channel is forgotten: at once, or after a day if there is something to remember.
    pub(super) fn forget_or_keep(&mut self, channel: ChannelIx) {
        let unused = |entry: &&super::registry::Channel| {
            entry.members() == 0 && entry.guard.pending.is_none() && !entry.is_permanent()
        };
        let Some(entry) = self.registry.channel(channel).filter(unused) else { return };
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
    pub(super) fn abandon(&mut self, channel: ChannelIx) {
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
        let counts = |channel: &ChannelIx| {
            let protection = self.registry.channel(*channel).and_then(|channel| channel.guard.protection.as_ref());
            protection.is_some_and(|protection| protection.credential == *credential)
        };
        let soon = self.changes.protects(credential).filter(|channel| !counts(channel));
        let held = self.records.get(credential).copied().unwrap_or(0) + soon.count();
        if held < self.limits.records { Ok(()) } else { Err(Refusal::TooManyRecords) }
    }

    /// Changes what is kept of a channel's password, and the count of those who keep one.
    pub(super) fn set_protection(&mut self, channel: ChannelIx, epoch: u64, protection: Option<Protection>) {
        if let Some(new) = &protection {
            self.keep_name(channel, &new.credential);
        }
        self.registry.note(channel);
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

    pub(super) fn set_owner(&mut self, channel: ChannelIx, owner: Owner, timer: Option<crate::timers::TimerId>) {
        let Some(guard) = self.guard_mut(channel) else { return };
        (guard.owner, guard.restarted) = (owner, false);
        if let Some(old) = core::mem::replace(&mut guard.timer, timer) {
            self.timers.cancel(old);
        }
    }

    pub(super) fn guard_mut(&mut self, channel: ChannelIx) -> Option<&mut Guard> {
        self.registry.channel_mut(channel).map(|channel| &mut channel.guard)
    }

    pub(super) fn protection_changed(&mut self, channel: ChannelIx, epoch: u64) {
        let Some(entry) = self.registry.channel(channel) else { return };
        let (channel, protected) = (entry.name().clone(), entry.guard.protection.is_some());
        self.event(Event::ProtectionChanged { channel, epoch, protected });
    }

    /// Tells every member, and the application, who owns a channel.
    pub(super) fn owner_changed(&mut self, channel: ChannelIx) {
        let owner = self.tell_owner(channel);
        if let Some(channel) = name_of(self, channel) {
            self.event(Event::OwnerChanged { channel, owner });
        }
    }

    /// Tells every member who owns a channel.
    fn tell_owner(&mut self, channel: ChannelIx) -> Option<ClientId> {
        let entry = self.registry.channel(channel)?;
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
        owner
    }

    /// Ends a call for both sides with the hub's own word.
    pub(super) fn end_call_with(&mut self, key: Key, why: Refusal) {
        let Some((caller, provider)) = self.take_call(key) else { return };
        self.fail(caller.0, caller.1, why);
        self.fail(provider, key.bits() | ROUTE_BY_HUB, why);
    }
}
