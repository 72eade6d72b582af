//! Changes of ownership and protection: stored first where a hub has a store, then made, then told.
//!
//! ```text
//!   request ──► Change ──► Event::Store ──► (disk) ──► Command::Stored ──► made: evictions, answer
//!                  │                                       └─ not durable: refused, as if it had not been asked for
//!                  └── without a store: made at once
//! ```
//! One change of a channel is under way at a time. What concerns the same channel meanwhile waits, in order; what
//! concerns others does not.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::clearing::Clearing;
use super::guard::{Guard, Owner, Protection};
use super::joining::name_of;
use super::registry::{ChannelIx, Leaving, LinkIx};
use super::session::Session;
use super::state::StoredChannel;
use super::{DisconnectReason, Due, Event, Hub};
use crate::auth::OwnerVerifier;
use crate::error::Refusal;
use crate::machine::{LinkId, Output};
use crate::names::{CredentialId, Name};
use crate::policy::{AfterGrace, OwnerPolicy};
use crate::time::TimerReason;
use crate::wire::{Frame, Told};

/// How long the owner of an open or promoted channel has after a restart of the hub to come back: as long as clients wait
/// between two attempts to reach a hub, at most.
const RETURN: Duration = Duration::from_secs(60);
/// How long until a change that nobody asked for is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Requests of one link that may wait for changes.
const WAITING_MAX: usize = 64;
/// The longest request that may wait, in bytes.
const WAITING_LEN: usize = 2 << 10;
/// What a waiting request takes beside its bytes.
const WAITING_SIZE: usize = 128;

/// What is being stored, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Whether there is a store.
    on: bool,
    last: u64,
    pending: BTreeMap<u64, Pending>,
    /// Bytes of memory that waiting requests take.
    waiting: usize,
}

#[derive(Debug)]
struct Pending {
    channel: ChannelIx,
    change: Change,
    waiting: Vec<Waiting>,
}

/// What goes on when a change is done with.
#[derive(Debug)]
enum Waiting {
    Request { link: LinkId, frame: Frame, counter: u64 },
    OwnerLeft { leaving: Leaving, asked: Option<Asked> },
}

/// Who asked for something, and under which number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) link: LinkId,
    pub(super) id: u64,
    /// Of an owner at another hub, behind a bridge: this hub's own proof, for when it is done.
    pub(super) afar: Option<[u8; 32]>,
}

/// Whether a request waits for a change of its channel.
pub(super) enum Postponed {
    /// There is none.
    No,
    /// It comes again when that is done.
    Yes,
    /// No more may wait.
    Full,
}

/// A change of what is remembered of a channel.
#[derive(Debug)]
pub(super) enum Change {
    /// The first to open a channel owns it, and may protect it at once.
    Claim { asked: Asked, key: OwnerVerifier, policy: OwnerPolicy, protection: Option<(u64, Protection)> },
    /// The owner gives the channel another password, or none.
    Rotate { asked: Asked, epoch: u64, protection: Option<Protection> },
    /// The owner gives the channel up: no owner, no password, and the end for everybody.
    Abandon { asked: Option<Asked> },
    /// An admin ends the channel, whoever owns it.
    Clear(Clearing),
    /// The owner is gone for good. Its key is forgotten before anybody else can own the channel.
    Disown { then: AfterGrace, asked: Option<Asked> },
    /// A member takes the ownership that it was offered.
    Accept { link: LinkId, key: OwnerVerifier },
}

impl Changes {
    pub(super) const fn retained(&self) -> usize {
        self.waiting
    }

    /// Channels that a credential protects with what is being stored.
    pub(super) fn protects(&self, credential: &CredentialId) -> impl Iterator<Item = ChannelIx> {
        let protects = |pending: &&Pending| match &pending.change {
            Change::Claim { protection: Some((_, new)), .. } | Change::Rotate { protection: Some(new), .. } => {
                new.credential == *credential
            }
            Change::Claim { .. }
            | Change::Rotate { .. }
            | Change::Abandon { .. }
            | Change::Clear(_)
            | Change::Disown { .. }
            | Change::Accept { .. } => false,
        };
        self.pending.values().filter(protects).map(|pending| pending.channel)
    }
}

impl Changes {
    /// How many are being stored.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}

impl Hub {
    pub(super) fn handle_restore(&mut self, channels: Vec<StoredChannel>) {
        self.changes.on = true;
        for stored in channels {
            self.restore(stored);
        }
    }

    /// A channel as it is after a restart: without members, its owner away.
    fn restore(&mut self, stored: StoredChannel) {
        let StoredChannel { channel, epoch, policy, owner, protection, keeper } = stored;
        if self.registry.find(channel.as_name()).is_some() {
            return;
        }
        let Ok(channel) = self.registry.create(channel.as_name(), Guard::new(Owner::Nobody, policy)) else { return };
        let protected = protection.is_some();
        self.set_protection(channel, epoch, protection);
        if let Some(keeper) = keeper {
            self.keep_name(channel, &keeper);
        }
        let (held, grace) = match (policy, protected) {
            (OwnerPolicy::Hold { grace, then }, _) => (Some(then), grace),
            (OwnerPolicy::Promote, _) => (Some(AfterGrace::Promote), RETURN),
            (OwnerPolicy::Terminate, false) => (Some(AfterGrace::Terminate), RETURN),
            // Without its owner it may have ended for its members, who are only told if that does not come back. Its record
            // waits for the owner, or for a day.
            (OwnerPolicy::Terminate, true) => (None, RETURN),
        };
        if let Some(key) = owner {
            let timer = self.ownership_timer(channel, grace);
            self.set_owner(channel, Owner::Away { key, held, heir: None }, Some(timer));
            if let Some(guard) = self.guard_mut(channel) {
                guard.restarted = true;
            }
        }
        self.forget_or_keep(channel);
    }

    fn ownership_timer(&mut self, channel: ChannelIx, time: Duration) -> crate::timers::TimerId {
        self.timers.insert(self.now.mono + time, TimerReason::Ownership, Due::Ownership(channel))
    }

    /// Looks at a channel again when a change of it should be done with.
    pub(super) fn look_again(&mut self, channel: ChannelIx) {
        let timer = self.ownership_timer(channel, RETRY);
        if let Some(guard) = self.guard_mut(channel) {
            guard.timer = Some(timer);
        }
    }

    /// Whether a change of the channel is being stored.
    pub(super) fn is_changing(&self, channel: ChannelIx) -> bool {
        self.registry.channel(channel).is_some_and(|channel| channel.guard.pending.is_some())
    }

    /// Who sends the frame that is being handled.
    pub(super) fn asked(&self, ix: LinkIx, id: u64) -> Option<Asked> {
        self.links.get(ix).map(|session| Asked { link: session.link, id, afar: None })
    }

    /// Keeps a request until the change of its channel is done with, if there is one. Then it is as if it came only now.
    pub(super) fn waits(&mut self, ix: LinkIx, id: u64, channel: Name<'_>, frame: &Frame) -> bool {
        match self.postpone(ix, channel, frame) {
            Postponed::No => return false,
            Postponed::Yes => {}
            Postponed::Full => self.done(ix, id, Err(Refusal::Overloaded)),
        }
        true
    }

    pub(super) fn postpone(&mut self, ix: LinkIx, channel: Name<'_>, frame: &Frame) -> Postponed {
        let found = self.registry.by_name(channel).and_then(|(_, channel)| channel.guard.pending);
        let Some(pending) = found else { return Postponed::No };
        let full = self.is_full() || frame.raw().len() > WAITING_LEN;
        let Some(session) = self.links.get_mut(ix) else { return Postponed::Yes };
        let (link, counter) = (session.link, session.frame_counter());
        let Some(member) = session.member_mut().filter(|member| !full && member.waiting < WAITING_MAX) else {
            return Postponed::Full;
        };
        member.waiting += 1;
        if let Some(pending) = self.changes.pending.get_mut(&pending) {
            self.changes.waiting += WAITING_SIZE + frame.raw().len();
            pending.waiting.push(Waiting::Request { link, frame: frame.copied(), counter });
        }
        Postponed::Yes
    }

    /// The owner is no member any more; its key still is the owner's.
    pub(super) fn owner_left(&mut self, channel: ChannelIx, leaving: Leaving, asked: Option<Asked>) {
        let pending = self.guard_mut(channel).and_then(|guard| guard.pending);
        match pending.and_then(|pending| self.changes.pending.get_mut(&pending)) {
            Some(pending) => pending.waiting.push(Waiting::OwnerLeft { leaving, asked }),
            None => self.owner_gone(channel, leaving, asked),
        }
    }

    /// Makes a change, once it is stored.
    pub(super) fn change(&mut self, channel: ChannelIx, change: Change) {
        if let Change::Claim { asked, .. } = &change {
            self.count_claim(*asked, 1);
        }
        if !self.changes.on {
            return self.make(channel, change);
        }
        self.changes.last += 1;
        let ticket = self.changes.last;
        let Some(entry) = self.registry.channel_mut(channel) else { return };
        entry.guard.pending = Some(ticket);
        let record = record(entry.name(), &entry.guard, Some(&change));
        let name = entry.name().clone();
        self.changes.pending.insert(ticket, Pending { channel, change, waiting: Vec::new() });
        self.outputs.push_back(Output::Event(Event::Store { ticket, channel: name, record }));
    }

    pub(super) fn handle_stored(&mut self, ticket: u64, durable: bool) {
        let Some(Pending { channel, change, waiting }) = self.changes.pending.remove(&ticket) else { return };
        if let Some(guard) = self.guard_mut(channel) {
            guard.pending = None;
        }
        if durable {
            self.make(channel, change);
        } else {
            self.store_as_it_is(channel);
            self.refuse(channel, change);
        }
        for waiting in waiting {
            match waiting {
                Waiting::Request { link, frame, counter } => self.handle_waiting(link, &frame, counter),
                Waiting::OwnerLeft { leaving, asked } => self.owner_left(channel, leaving, asked),
            }
        }
        self.forget_or_keep(channel);
    }

    fn handle_waiting(&mut self, link: LinkId, frame: &Frame, counter: u64) {
        self.changes.waiting -= WAITING_SIZE + frame.raw().len();
        let Some(ix) = self.links.find(link) else { return };
        if let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) {
            member.recalled = Some(counter);
            member.waiting -= 1;
        }
        let handled = self.handle_frame(ix, frame);
        if let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) {
            member.recalled = None;
        }
        if let Err(why) = handled {
            self.doomed.push((ix, why));
        }
    }

    /// Nobody knows how much of a change that failed was stored. What holds instead is stored again; if that fails as
    /// well, a restarted hub may know a change that it has refused.
    fn store_as_it_is(&mut self, channel: ChannelIx) {
        let Some(entry) = self.registry.channel(channel) else { return };
        let (name, record) = (entry.name().clone(), record(entry.name(), &entry.guard, None));
        self.store_unanswered(name, record);
    }

    /// There is nothing to remember of a channel any more.
    pub(super) fn store_nothing(&mut self, channel: ChannelIx) {
        if let Some(name) = name_of(self, channel).filter(|_| self.changes.on) {
            self.store_unanswered(name, None);
        }
    }

    fn store_unanswered(&mut self, channel: crate::ChannelName, record: Option<StoredChannel>) {
        self.changes.last += 1;
        let ticket = self.changes.last;
        self.outputs.push_back(Output::Event(Event::Store { ticket, channel, record }));
    }

    fn make(&mut self, channel: ChannelIx, change: Change) {
        match change {
            Change::Claim { asked, key, policy, protection } => self.claimed(channel, asked, key, policy, protection),
            Change::Rotate { asked, epoch, protection } => {
                self.rotate(channel, epoch, protection, asked.afar.is_some());
                self.answer(Some(asked), Ok(()));
            }
            Change::Abandon { asked } => {
                self.abandon(channel);
                self.terminate(channel);
                self.answer(asked, Ok(()));
            }
            Change::Clear(clearing) => self.cleared(channel, clearing),
            Change::Disown { then, asked } => {
                self.set_owner(channel, Owner::Nobody, None);
                match then {
                    AfterGrace::Terminate => self.terminate(channel),
                    AfterGrace::Promote => self.offer(channel, 0, 0),
                }
                self.answer(asked, Ok(()));
            }
            Change::Accept { link, key } => self.accepted(channel, link, key),
        }
    }

    /// The change could not be stored: everything stays as it was. What nobody can be refused is tried again later.
    fn refuse(&mut self, channel: ChannelIx, change: Change) {
        let failed = Err(Refusal::StorageFailed);
        match change {
            Change::Claim { asked, .. } => {
                self.count_claim(asked, -1);
                self.answer(Some(asked), failed);
            }
            Change::Rotate { asked, .. } => self.answer(Some(asked), failed),
            Change::Abandon { asked } => {
                // One that asks from elsewhere has not gone.
                if asked.is_none_or(|asked| asked.afar.is_none()) {
                    self.disown_later(channel, AfterGrace::Terminate);
                }
                self.answer(asked, failed);
            }
            Change::Clear(clearing) => self.not_cleared(&clearing),
            Change::Disown { then, asked } => {
                self.disown_later(channel, then);
                self.answer(asked, failed);
            }
            Change::Accept { .. } => self.offer_to_next(channel),
        }
    }

    /// An owner that is gone is waited for a little longer.
    fn disown_later(&mut self, channel: ChannelIx, then: AfterGrace) {
        let away = self.guard_mut(channel).and_then(|guard| match &guard.owner {
            Owner::Away { key, .. } => Some(key.clone()),
            Owner::Nobody | Owner::Present { .. } | Owner::Offered { .. } => None,
        });
        if let Some(key) = away {
            let timer = self.ownership_timer(channel, RETRY);
            self.set_owner(channel, Owner::Away { key, held: Some(then), heir: None }, Some(timer));
        }
    }

    fn claimed(
        &mut self,
        channel: ChannelIx,
        asked: Asked,
        key: OwnerVerifier,
        policy: OwnerPolicy,
        protection: Option<(u64, Protection)>,
    ) {
        self.count_claim(asked, -1);
        let epoch = protection.as_ref().map(|(epoch, _)| *epoch);
        if let Some((epoch, protection)) = protection {
            self.set_protection(channel, epoch, Some(protection));
        }
        if let Some(guard) = self.guard_mut(channel) {
            guard.policy = policy;
        }
        let Some(ix) = self.links.find(asked.link).filter(|ix| self.links.get(*ix).is_some_and(is_client)) else {
            self.set_owner(channel, Owner::Away { key, held: None, heir: None }, None);
            return self.owner_gone(channel, Leaving::Lost, None);
        };
        self.set_owner(channel, Owner::Present { key, link: ix }, None);
        self.join(ix, channel);
        // It is the only member, and learns it from the answer.
        if let (Some(channel), Some(member)) = (name_of(self, channel), self.links.get(ix).and_then(Session::member)) {
            let owner = Some(member.client.clone());
            self.event(Event::OwnerChanged { channel, owner });
        }
        if let Some(epoch) = epoch {
            self.protection_changed(channel, epoch);
        }
        self.opened(ix, asked.id, channel, None);
    }

    fn accepted(&mut self, channel: ChannelIx, link: LinkId, key: OwnerVerifier) {
        let ix = self.links.find(link);
        let member = |ix: &LinkIx| {
            let member = self.links.get(*ix).and_then(Session::member);
            member.is_some_and(|member| member.memberships.has(channel))
        };
        match ix.filter(member) {
            Some(ix) => {
                self.set_owner(channel, Owner::Present { key, link: ix }, None);
                self.owner_changed(channel);
            }
            None => {
                self.set_owner(channel, Owner::Away { key, held: None, heir: None }, None);
                self.owner_gone(channel, Leaving::Lost, None);
            }
        }
    }

    pub(super) fn answer(&mut self, asked: Option<Asked>, result: Result<(), Refusal>) {
        if let Some(Asked { link, id, afar }) = asked
            && let Some(ix) = self.links.find(link)
        {
            match (afar, result) {
                (None, result) => self.done(ix, id, result),
                (Some(proof), Ok(())) => self.tell_afar(ix, &Told { proof: Some(&proof), ..Told::bare(id, 0) }),
                (Some(_), Err(refusal)) => self.tell_afar(ix, &Told::bare(id, refusal.code())),
            }
        }
    }

    fn count_claim(&mut self, asked: Asked, by: isize) {
        let ix = self.links.find(asked.link);
        if let Some(member) = ix.and_then(|ix| self.links.get_mut(ix)).and_then(Session::member_mut) {
            member.memberships.claims = member.memberships.claims.saturating_add_signed(by);
        }
    }
}

const fn is_client(session: &Session) -> bool {
    matches!(session.state, super::session::State::Ready(_))
}

/// What is to be remembered of a channel after a change, or as it is.
fn record(name: &crate::ChannelName, guard: &Guard, change: Option<&Change>) -> Option<StoredChannel> {
    let owner = match &guard.owner {
        Owner::Present { key, .. } | Owner::Away { key, .. } => Some(key.clone()),
        Owner::Nobody | Owner::Offered { .. } => None,
    };
    let (epoch, policy, protection) = (guard.last_epoch, guard.policy, guard.protection.clone());
    let keeper = guard.keeper.clone();
    let mut stored = StoredChannel { channel: name.clone(), epoch, policy, owner, protection, keeper };
    match change {
        Some(Change::Claim { key, policy, protection, .. }) => {
            (stored.owner, stored.policy) = (Some(key.clone()), *policy);
            if let Some((epoch, protection)) = protection {
                (stored.epoch, stored.protection) = (*epoch, Some(protection.clone()));
            }
        }
        Some(Change::Rotate { epoch, protection, asked }) => {
            (stored.epoch, stored.protection) = (*epoch, protection.clone());
            if protection.is_none() && asked.afar.is_some() {
                stored.owner = None;
            }
            if let Some(protection) = protection {
                stored.keeper = Some(protection.credential.clone());
            }
        }
        Some(Change::Abandon { .. } | Change::Clear(_)) => (stored.owner, stored.protection) = (None, None),
        Some(Change::Disown { .. }) => stored.owner = None,
        Some(Change::Accept { key, .. }) => stored.owner = Some(key.clone()),
        None => {}
    }
    (stored.owner.is_some() || stored.epoch > 0).then_some(stored)
}

/// How a request of an owner went that may have to be stored.
pub(super) type Wanted = Result<Option<Change>, Refusal>;

impl Hub {
    /// Answers a request at once, or when its change is stored.
    pub(super) fn carry_out(
        &mut self,
        ix: LinkIx,
        id: u64,
        channel: Name<'_>,
        wanted: Wanted,
    ) -> Result<(), DisconnectReason> {
        match (wanted, self.registry.find(channel)) {
            (Ok(Some(change)), Some(channel)) => self.change(channel, change),
            (Ok(_), _) => self.done(ix, id, Ok(())),
            (Err(refusal), _) => self.done(ix, id, Err(refusal)),
        }
        Ok(())
    }
}
