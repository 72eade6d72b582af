//! Channels with owners and passwords: who opens them with which, protects them, gives them up and comes back to them.

use std::collections::BTreeMap;

use commipc_protocol::auth::Kdf;
use commipc_protocol::client::{Access, ChannelSalt, Command};
use commipc_protocol::{AfterGrace, ChannelName, ClientId, OwnerPolicy, hub};
use core::time::Duration;

use super::{Actor, CHANNELS, Swarm};
use crate::decisions::Chooser;
use crate::oracles::Password;
use crate::plans::Plan;
use crate::world::World;

/// Passwords that anybody may choose.
const PASSWORDS: u64 = 3;
/// The longest an application derives keys, in nanoseconds: longer than a hub's patience.
const LONGEST_DERIVATION: u64 = 20_000_000_000;
/// The same before the storm.
const LONGEST_BEFORE: u64 = 10_000_000;
/// The longest an owner is waited for, in milliseconds.
const LONGEST_GRACE: u64 = 60_000;

/// What all actors know of owners and passwords.
#[derive(Debug, Default)]
pub(super) struct Owning {
    pub(super) hub: OwnerPolicy,
    /// Whether owners protect their channels before the storm.
    pub(super) early: bool,
    /// The policy that channels are opened with, if not the hub's.
    policies: BTreeMap<&'static str, OwnerPolicy>,
    pub(super) passwords: BTreeMap<ChannelName, Password>,
    /// What owners asked for last, and may have been refused.
    asked: BTreeMap<ChannelName, Password>,
    /// By the hub's word.
    owners: BTreeMap<ChannelName, ClientId>,
    heard: usize,
}

impl Owning {
    pub(super) fn drawn(mut choose: Chooser<'_>) -> Self {
        let hub = policy(&mut choose);
        let mut policies = BTreeMap::new();
        for channel in CHANNELS {
            if choose.chance(1, 2) {
                policies.insert(channel, policy(&mut choose));
            }
        }
        let early = choose.chance(1, 2);
        Self { hub, policies, early, ..Self::default() }
    }

    /// Hears what the hub has told since.
    pub(super) fn listen(&mut self, world: &World) {
        let told = world.hub_told.values().next().map_or(&[][..], Vec::as_slice);
        for event in told.get(self.heard..).unwrap_or_default() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "only what becomes of owners and passwords matters here"
            )]
            match event {
                hub::Event::OwnerChanged { channel, owner: Some(owner) } => {
                    self.owners.insert(channel.clone(), owner.clone());
                }
                hub::Event::OwnerChanged { channel, owner: None } | hub::Event::Terminated { channel } => {
                    self.owners.remove(channel);
                }
                hub::Event::Cleared { channel, .. } => {
                    self.passwords.remove(channel);
                }
                hub::Event::ProtectionChanged { channel, protected, .. } => {
                    let password = self.asked.get(channel).filter(|_| *protected);
                    match password {
                        Some(password) => self.passwords.insert(channel.clone(), *password),
                        None => self.passwords.remove(channel),
                    };
                }
                _ => {}
            }
        }
        self.heard = told.len();
    }

    /// Which of these a client owns.
    pub(super) fn owned_by(&self, id: Option<&ClientId>, open: &[ChannelName]) -> Vec<ChannelName> {
        let owns = |channel: &&ChannelName| id.is_some() && self.owners.get(*channel) == id;
        open.iter().filter(owns).cloned().collect()
    }
}

fn policy(choose: &mut Chooser<'_>) -> OwnerPolicy {
    let then = if choose.chance(1, 2) { AfterGrace::Promote } else { AfterGrace::Terminate };
    match choose.below(3) {
        0 => OwnerPolicy::Terminate,
        1 => OwnerPolicy::Promote,
        _ => OwnerPolicy::Hold { grace: Duration::from_millis(choose.log_uniform(1, LONGEST_GRACE)), then },
    }
}

/// The operations, and what follows from what is told.
impl Swarm {
    pub(super) fn open(&mut self, world: &mut World, actor: usize) {
        let (token, channel) = (world.token(), self.channel(world));
        let known = self.owning.passwords.contains_key(&channel);
        let mut choose = world.engine.decisions().on(self.work);
        let secret = match choose.weighted(&[24, 4, 1]) {
            Some(1) => (!known).then_some(Kdf::Key),
            Some(2) => Some(Kdf::Pbkdf2),
            Some(_) | None => known.then_some(Kdf::Key),
        };
        let plain = choose.chance(1, 16);
        let policy = self.owning.policies.get(channel.as_str()).copied();
        self.actors[actor].opening.push((token, channel.clone()));
        self.ask(world, actor, Command::Open { token, channel, access: Access { secret, policy, plain } });
    }

    /// Who lost a channel with its connection wants it back.
    pub(super) fn opened(&mut self, world: &mut World, actor: usize, channel: &ChannelName) {
        let lost = &mut self.actors[actor].lost;
        if let Some(index) = lost.iter().position(|lost| lost == channel) {
            let channel = lost.swap_remove(index);
            let token = world.token();
            self.ask(world, actor, Command::Reclaim { token, channel });
        }
    }

    /// Takes its time, and does not always know the password; now and then the opening is over when it is done.
    pub(super) fn derive(&mut self, world: &mut World, actor: usize, channel: ChannelName, salt: ChannelSalt) {
        let Some(node) = self.actors[actor].node else { return };
        let known = self.owning.passwords.get(&channel).copied();
        // Where the hub goes back to an older one, whoever remembers that one as well is the one to be fooled.
        let older = world.passwords.get(&salt.salt).copied().filter(|_| self.malicious);
        let known = older.or(known);
        let mut choose = world.engine.decisions().on(self.work);
        let other = Password(choose.below(PASSWORDS) as u8);
        let password = known.filter(|_| choose.chance(7, 8)).unwrap_or(other);
        let fails = choose.chance(1, 16);
        let longest = if self.storming { LONGEST_DERIVATION } else { LONGEST_BEFORE };
        let after = Duration::from_nanos(choose.log_uniform(1, longest));
        let plan = if fails {
            Plan::DeriveNothing { node, channel }
        } else {
            Plan::Derive { node, channel, salt: salt.salt, password }
        };
        world.plan_own(after, plan);
    }

    pub(super) fn protect(&mut self, world: &mut World, actor: usize) {
        let (token, channel) = (world.token(), self.owned_channel(world, actor));
        let password = Password(self.choose(world).below(PASSWORDS) as u8);
        if self.actors[actor].id.as_ref() == self.owning.owners.get(&channel) {
            self.owning.asked.insert(channel.clone(), password);
        }
        if let Some(node) = self.actors[actor].node {
            self.actors[actor].protecting.push(token);
            world.protect(node, token, channel, password);
        }
    }

    pub(super) fn unprotect(&mut self, world: &mut World, actor: usize) {
        let (token, channel) = (world.token(), self.owned_channel(world, actor));
        self.ask(world, actor, Command::Unprotect { token, channel });
    }

    pub(super) fn reclaim(&mut self, world: &mut World, actor: usize) {
        let (token, channel) = (world.token(), self.owned_channel(world, actor));
        self.ask(world, actor, Command::Reclaim { token, channel });
    }

    pub(super) fn terminate(&mut self, world: &mut World, actor: usize) {
        let (token, channel) = (world.token(), self.owned_channel(world, actor));
        self.ask(world, actor, Command::Terminate { token, channel });
    }

    pub(super) fn owns(&self, actor: usize) -> bool {
        let Actor { id, open, .. } = &self.actors[actor];
        !self.owning.owned_by(id.as_ref(), open).is_empty()
    }

    /// Most often one that the actor owns.
    fn owned_channel(&self, world: &mut World, actor: usize) -> ChannelName {
        let Actor { id, open, .. } = &self.actors[actor];
        let owned = self.owning.owned_by(id.as_ref(), open);
        let mut choose = world.engine.decisions().on(self.work);
        let known = if choose.chance(7, 8) { choose.pick(&owned).cloned() } else { None };
        known.unwrap_or_else(|| self.open_channel(world, actor))
    }

    /// Whether something must be signed: most often where it can be.
    pub(super) fn guards(&self, world: &mut World, channel: &ChannelName) -> bool {
        let known = self.owning.passwords.contains_key(channel);
        self.choose(world).chance(if known { 8 } else { 1 }, 32)
    }
}
