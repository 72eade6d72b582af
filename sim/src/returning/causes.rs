//! What has happened to channels, by the word of their hub and of those who break things: nobody may be told that something
//! is over, or has not come back, without it.
//!
//! Each thing that is told needs one of its causes since the channel was known to be as it was ([`super::beliefs::Room`]).

use commipc_protocol::client::{Event, Failure, ReconnectEvent, Unrestored};
use commipc_protocol::hub;
use commipc_protocol::{ChannelName, ClientId, Instant, Misuse, OwnerPolicy, Refusal};
use core::time::Duration;

use super::beliefs::Place;
use crate::lives::DiskHabits;

/// How long a hub that was started again waits for the owners of what it has stored, where no channel says it.
const RESTARTED: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum What {
    Rekeyed {
        channel: ChannelName,
        protected: bool,
    },
    /// The hub stores that it has a password, and nobody has heard so yet.
    Stored(ChannelName),
    Terminated(ChannelName),
    Owned(ChannelName, Option<ClientId>),
    Joined(ChannelName, ClientId),
    Left(ChannelName, ClientId),
    /// It has lost its link: from then on its hub may wait for it, though it may say later that it has left.
    Lost(ClientId),
    Provided(Place, ClientId),
    /// The hub died, with what it had not stored.
    Died,
    /// Something makes the hub's word come later than the client waits for it.
    Slowed,
}

/// What has happened, in order.
#[derive(Debug)]
pub(super) struct Past {
    happened: Vec<(Instant, What)>,
    /// What becomes of channels without their owners.
    policy: OwnerPolicy,
    /// Whether the hub stores what it has confirmed, and knows it after its death.
    stores: bool,
    /// Whether its disk refuses something now and then.
    refuses: bool,
}

/// What one client has heard of a channel, up to when.
pub(super) struct Heard<'a> {
    pub(super) by: &'a ClientId,
    pub(super) since: Instant,
    pub(super) now: Instant,
}

impl Past {
    pub(super) fn new(policy: OwnerPolicy, disk: Option<DiskHabits>) -> Self {
        let refuses = disk.is_some_and(|disk| disk.fails > 0);
        Self { happened: Vec::new(), policy, stores: disk.is_some(), refuses }
    }

    pub(super) fn died(&mut self, now: Instant) {
        self.happened.push((now, What::Died));
    }

    pub(super) fn lost(&mut self, now: Instant, who: &ClientId) {
        self.happened.push((now, What::Lost(who.clone())));
    }

    pub(super) fn slowed(&mut self, now: Instant) {
        self.happened.push((now, What::Slowed));
    }

    pub(super) fn hear(&mut self, now: Instant, event: &hub::Event) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else ends anything")]
        let what = match event {
            hub::Event::ProtectionChanged { channel, protected, .. } => {
                What::Rekeyed { channel: channel.clone(), protected: *protected }
            }
            hub::Event::Store { channel, record: Some(record), .. } if record.is_protected() => {
                What::Stored(channel.clone())
            }
            hub::Event::Terminated { channel } => What::Terminated(channel.clone()),
            hub::Event::OwnerChanged { channel, owner } => What::Owned(channel.clone(), owner.clone()),
            hub::Event::Joined { channel, client } => What::Joined(channel.clone(), client.clone()),
            hub::Event::Left { channel, client } => What::Left(channel.clone(), client.clone()),
            hub::Event::Provided { channel, event, client, .. } => {
                What::Provided((channel.clone(), event.clone()), client.clone())
            }
            _ => return,
        };
        self.happened.push((now, what));
    }

    fn any(&self, since: Instant, fits: impl Fn(Instant, &What) -> bool) -> bool {
        self.happened.iter().any(|(at, what)| *at >= since && fits(*at, what))
    }

    /// Whether what a client is told is over has one of its causes; true for everything else.
    pub(super) fn explains(&self, heard: &Heard<'_>, event: &Event) -> bool {
        match event {
            Event::ChannelClosed { channel, why } => self.explains_closed(heard.since, channel, *why),
            Event::Reconnect(ReconnectEvent::Unrestored { what, why }) => match what {
                Unrestored::Channel(channel) => {
                    self.explains_closed(heard.since, channel, *why) || self.is_late(heard.since, *why)
                }
                Unrestored::Provider { channel, event, .. } => {
                    let taken = |_, what: &What| matches!(what, What::Provided((of, which), by) if of == channel && which == event && by != heard.by);
                    *why == Failure::Refused(Refusal::ProviderExists) && self.any(heard.since, taken)
                }
                Unrestored::Listener { .. } => false,
                Unrestored::Ownership(channel) => {
                    *why == Failure::Refused(Refusal::NotOwner) && self.explains_disowned(heard, channel)
                }
            },
            Event::Ready(_)
            | Event::Closed(_)
            | Event::Reconnect(_)
            | Event::DeriveKey { .. }
            | Event::DeriveChannelKey { .. }
            | Event::OwnerChanged { .. }
            | Event::Done { .. }
            | Event::Sent { .. }
            | Event::Answered { .. }
            | Event::Stream(_)
            | Event::Request(_)
            | Event::RequestEnded { .. }
            | Event::Message(_)
            | Event::Gap(_)
            | Event::Draining { .. }
            | Event::PasswordChanged { .. }
            | Event::Violation(_)
            | Event::Dropped(_) => true,
        }
    }

    fn is_late(&self, since: Instant, why: Failure) -> bool {
        why == Failure::Local(Misuse::Deadline) && self.any(since, |_, what| matches!(what, What::Slowed))
    }

    fn explains_closed(&self, since: Instant, channel: &ChannelName, why: Failure) -> bool {
        // What a hub has stored holds when it is started again, also if it died before it could say so.
        let stored = |at: Instant, what: &What| matches!(what, What::Stored(of) if of == channel && self.any(at, |_, what| matches!(what, What::Died)));
        let rekeyed = |at: Instant, what: &What| {
            matches!(what, What::Rekeyed { channel: of, .. } if of == channel) || stored(at, what)
        };
        let rekeyed = || self.any(since, rekeyed);
        let protected = |at: Instant, what: &What| {
            matches!(what, What::Rekeyed { channel: of, protected: true } if of == channel) || stored(at, what)
        };
        let ended = |_, what: &What| matches!(what, What::Terminated(of) if of == channel);
        let Failure::Refused(why) = why else { return false };
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other refusal ends what was open")]
        match why {
            Refusal::Rekeyed | Refusal::PasswordWrong => rekeyed(),
            Refusal::PasswordRequired => self.any(since, protected),
            Refusal::Terminated => self.any(since, ended),
            // Its last protection is over, or not the last any more.
            Refusal::EpochMismatch => rekeyed() || self.any(since, ended),
            // It is somebody else's by now: it has ended meanwhile, or the hub has forgotten it.
            Refusal::NotOwner => {
                self.any(since, ended)
                    || self.has_forgotten(since) && self.any(since, |_, what| is_owned(what, channel))
            }
            // Its owner has not come back to a hub that has forgotten its password; or somebody else has made it anew.
            Refusal::NotProtected => self.has_forgotten(since) || self.any(since, ended) || rekeyed(),
            Refusal::RolledBack => self.has_forgotten(since),
            Refusal::StorageFailed => self.refuses,
            _ => false,
        }
    }

    /// How long a hub that was started again waits for owners.
    const fn waits(&self) -> Duration {
        if let OwnerPolicy::Hold { grace, .. } = self.policy { grace } else { RESTARTED }
    }

    /// Whether the hub may still wait for owners to come back to it, and believe meanwhile that they are there.
    pub(super) fn awaits_owners(&self, now: Instant) -> bool {
        let most = self.waits() + Duration::from_nanos(super::faults::LONGEST_DOWN);
        let lately = |at: Instant, what: &What| matches!(what, What::Died) && now.saturating_since(at) <= most;
        self.stores && self.any(Instant::ZERO, lately)
    }

    const fn may_forget(&self) -> bool {
        !self.stores || self.refuses
    }

    fn has_forgotten(&self, since: Instant) -> bool {
        self.may_forget() && self.any(since, |_, what| matches!(what, What::Died))
    }

    /// Somebody else owns the channel, or nobody may any more who did.
    fn explains_disowned(&self, heard: &Heard<'_>, channel: &ChannelName) -> bool {
        let Heard { by, since, now } = *heard;
        let passed_on = |_, what: &What| match what {
            What::Terminated(of) => of == channel,
            What::Owned(of, Some(owner)) => of == channel && owner != by,
            What::Rekeyed { .. }
            | What::Stored(_)
            | What::Owned(..)
            | What::Joined(..)
            | What::Left(..)
            | What::Lost(_)
            | What::Provided(..)
            | What::Died
            | What::Slowed => false,
        };
        let left = |what: &What| matches!(what, What::Left(of, who) if of == channel && who == by);
        let over = |at: Instant, grace: Duration| now.saturating_since(at) >= grace;
        let gone = |at: Instant, what: &What| match self.policy {
            OwnerPolicy::Terminate | OwnerPolicy::Promote => left(what),
            OwnerPolicy::Hold { grace, .. } => left(what) && over(self.gone_since(by, at), grace),
        };
        let restarted = |at: Instant, what: &What| matches!(what, What::Died) && over(at, self.waits());
        // A member has come first to a hub that has forgotten who owned it.
        let came_first = |at: Instant, what: &What| matches!(what, What::Joined(of, who) if of == channel && who != by && self.has_died(since, at));
        self.any(since, passed_on)
            || self.any(since, gone)
            || self.stores && self.any(since, restarted)
            || self.may_forget() && self.any(since, came_first)
    }

    /// Since when a client is waited for that its hub says to have left at a time.
    fn gone_since(&self, who: &ClientId, left: Instant) -> Instant {
        let lost = |(at, what): &&(Instant, What)| *at <= left && matches!(what, What::Lost(of) if of == who);
        self.happened.iter().rev().find(lost).map_or(left, |(at, _)| *at)
    }

    fn has_died(&self, since: Instant, until: Instant) -> bool {
        self.any(since, |at, what| at <= until && matches!(what, What::Died))
    }
}

fn is_owned(what: &What, channel: &ChannelName) -> bool {
    matches!(what, What::Owned(of, Some(_)) if of == channel)
}
