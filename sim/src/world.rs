//! The standard world: hubs and clients on one engine, watched by the trace and by every oracle.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use commipc_protocol::auth::{Credential, Credentials, Secret, Verifier};
use commipc_protocol::bridge;
use commipc_protocol::client::{self, Client, ClientConfig, Reconnect, Request};
use commipc_protocol::hub::{self, Hub, HubConfig};
use commipc_protocol::{ChannelName, ClientId, CredentialId, HubId, Instant, Limits, Output, OwnerPolicy, Seed};
use core::time::Duration;

use crate::admins;
use crate::decisions::{Choices, Decisions};
use crate::engine::{Engine, Sight, Step, Witness};
use crate::feeding::Feeding;
use crate::lives::Disk;
use crate::mallory::{Malice, Mallory};
use crate::milestones::Milestones;
use crate::node::{Clocks, Habits, NodeId};
use crate::oracles::{self, Oracle, Password, Resident, Salt, Seen, Verdict};
use crate::overheard::Overheard;
use crate::plans::Plan;
use crate::station::{Asked, Station, Told};
use crate::suite::{Answering, Reply};
use crate::trace::Trace;
use crate::twin::Twins;
use crate::weather::Weather;

/// Something that cannot be, seen in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Who says so.
    pub oracle: &'static str,
    /// When, by the world's clock.
    pub at: Instant,
    /// At which node.
    pub node: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at.as_nanos() / 1_000;
        write!(f, "{} at {micros} µs, {}: {}", self.oracle, self.node, self.what)
    }
}

/// Sees everything: records it and lets the oracles judge it.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) trace: Trace,
    pub(crate) oracles: Vec<Box<dyn Oracle>>,
    pub(crate) names: Vec<String>,
    pub(crate) failures: Vec<Failure>,
    /// Where somebody listens who should not.
    pub(crate) overheard: Option<Overheard>,
    /// Who dialled when.
    pub(crate) dials: Vec<(Instant, NodeId)>,
    pub(crate) milestones: Milestones,
}

/// After so many steps each machine is asked what it holds.
const LOOKED_AT_EVERY: u64 = 256;
/// More failures than this of one run are the same failure again.
const FAILURES: usize = 16;

impl Watch {
    pub(crate) fn judge(&mut self, at: Instant, node: NodeId, mut ask: impl FnMut(&mut dyn Oracle) -> Verdict) {
        for oracle in &mut self.oracles {
            if let Err(what) = ask(oracle.as_mut())
                && self.failures.len() < FAILURES
            {
                let node = self.names.get(node.index()).cloned().unwrap_or_default();
                self.failures.push(Failure { oracle: oracle.name(), at, node, what });
            }
        }
    }
}

impl Witness<Twins<Station>> for Watch {
    fn saw(&mut self, at: Instant, node: NodeId, sight: Seen<'_>) {
        let name = self.names.get(node.index()).map_or("?", String::as_str);
        self.trace.record(at, node, name, &sight);
        self.milestones.saw(node, &sight);
        if let Sight::Gave(Output::Dial { .. }) = sight {
            self.dials.push((at, node));
        }
        if let Sight::Broke(what) = sight
            && self.failures.len() < FAILURES
        {
            let (node, what) = (name.to_owned(), what.to_owned());
            self.failures.push(Failure { oracle: "contract", at, node, what });
        }
        if let (Some(overheard), Sight::Gave(Output::Transmit { link, data })) = (&mut self.overheard, &sight)
            && !link.is_dialled()
        {
            overheard.hear(node, *link, data);
        }
        self.judge(at, node, |oracle| oracle.saw(at, node, &sight));
    }
}

/// A world of hubs and clients in virtual time.
///
/// ```
/// use commipc_sim::World;
/// use std::time::Duration;
///
/// let mut world = World::seeded(7).hub("h").client("provider").client("consumer").connected();
/// world.at("provider").opens("math").provides("math", "sum");
/// world.serves("provider", |_| commipc_sim::Reply::text("40"));
/// let call = world.at("consumer").calls("math", "sum", "15 25", Duration::from_secs(2));
/// assert_eq!(&world.answer(call).unwrap().payload.bytes[..], b"40");
/// ```
pub struct World {
    pub(crate) engine: Engine<Twins<Station>>,
    pub(crate) watch: Watch,
    pub(crate) origin: String,
    pub(crate) serving: BTreeMap<NodeId, Answering>,
    pub(crate) feeding: Feeding,
    pub(crate) plans: BTreeMap<u64, Plan>,
    pub(crate) plan_serial: u64,
    steps: u64,
    pub(crate) tokens: u64,
    /// Protections so far.
    pub(crate) salts: u64,
    /// Of each protection, its password.
    pub(crate) passwords: BTreeMap<Salt, Password>,
    /// Passwords that clients derive keys from by themselves, where a suite told them.
    pub(crate) keyring: BTreeMap<(NodeId, ChannelName), Password>,
    /// What every client was told, in order.
    pub(crate) told: BTreeMap<NodeId, Vec<client::Event>>,
    pub(crate) hub_told: BTreeMap<NodeId, Vec<hub::Event>>,
    pub(crate) bridge_told: BTreeMap<NodeId, Vec<bridge::Event>>,
    /// Told and not taken by [`World::next_told`] yet, as indexes into `told`.
    pub(crate) fresh: VecDeque<(NodeId, usize)>,
    pub(crate) last_hub: Option<NodeId>,
    /// What the client added next proves, if not the hub's shared secret.
    pub(crate) login: Option<(CredentialId, [u8; 32])>,
    /// Each hub's secret is the bytes of its index.
    pub(crate) verifiers: BTreeMap<NodeId, [u8; 32]>,
    pub(crate) habits: bool,
    twins: bool,
    /// Everybody has left, and what was left was looked at.
    pub(crate) ended: bool,
    /// How clients added from now on come back.
    pub(crate) reconnect: Option<Reconnect>,
    /// All clients added from now on draw the same numbers.
    pub(crate) in_step: bool,
    /// How each node's machine is made, again and again.
    pub(crate) builds: BTreeMap<NodeId, Build>,
    /// What hubs store, where they do.
    pub(crate) disks: BTreeMap<NodeId, Disk>,
}

pub(crate) type Build = Box<dyn Fn(&Seed) -> Station>;

/// What happened in a step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing is planned any more.
    Idle,
    /// Something went on.
    Ran,
    /// What [`World::plan`] asked for.
    Woke(u64),
}

impl World {
    /// A world that follows from a seed: fair weather, drawn anew for each.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::new(Decisions::seeded(seed), format!("seed {seed}"))
    }

    /// A world that follows from recorded choices.
    #[must_use]
    pub fn replaying(choices: Choices) -> Self {
        Self::new(Decisions::replaying(choices), "recorded choices".to_owned())
    }

    pub(crate) fn new(decisions: Decisions, origin: String) -> Self {
        let watch = Watch { oracles: oracles::all(), ..Watch::default() };
        Self {
            engine: Engine::new(decisions, Weather::fair()),
            watch,
            origin,
            serving: BTreeMap::new(),
            feeding: Feeding::default(),
            plans: BTreeMap::new(),
            plan_serial: 0,
            steps: 0,
            tokens: 0,
            salts: 0,
            passwords: BTreeMap::new(),
            keyring: BTreeMap::new(),
            told: BTreeMap::new(),
            hub_told: BTreeMap::new(),
            bridge_told: BTreeMap::new(),
            fresh: VecDeque::new(),
            last_hub: None,
            login: None,
            verifiers: BTreeMap::new(),
            habits: false,
            twins: false,
            ended: false,
            reconnect: None,
            in_step: false,
            builds: BTreeMap::new(),
            disks: BTreeMap::new(),
        }
    }

    /// What connections are like from now on.
    #[must_use]
    pub fn weather(mut self, weather: Weather) -> Self {
        *self.engine.weather() = weather;
        self
    }

    /// Gives nodes added from now on drivers with habits: late timeouts, late draining, clocks of their own.
    #[must_use]
    pub const fn with_habits(mut self) -> Self {
        self.habits = true;
        self
    }

    /// Gives nodes added from now on a twin each, which gets every read in pieces and must say the same.
    #[must_use]
    pub const fn with_twins(mut self) -> Self {
        self.twins = true;
        self
    }

    /// Keeps the conversation readable, and prints it when a test fails.
    #[must_use]
    pub fn talking(mut self) -> Self {
        self.watch.trace.keep_conversation();
        self
    }

    /// Adds a hub. Clients added later dial the hub added last.
    #[must_use]
    pub fn hub(self, name: &str) -> Self {
        self.hub_with(name, Limits::default())
    }

    /// Adds a hub with limits of its own.
    #[must_use]
    pub fn hub_with(self, name: &str, limits: Limits) -> Self {
        self.hub_with_policy(name, limits, OwnerPolicy::default())
    }

    /// Adds a hub with limits of its own, and a word on what becomes of channels whose owners go.
    #[must_use]
    pub fn hub_with_policy(self, name: &str, limits: Limits, policy: OwnerPolicy) -> Self {
        self.add_hub(name, limits, policy, None)
    }

    /// Adds a malicious hub: from now on only those oracles judge that take no hub's word.
    #[must_use]
    pub fn malicious_hub(mut self, name: &str, malice: Malice, policy: OwnerPolicy) -> Self {
        self.watch.oracles = oracles::against_hubs();
        self.add_hub(name, Limits::default(), policy, Some(malice))
    }

    fn add_hub(self, name: &str, limits: Limits, owner_policy: OwnerPolicy, malice: Option<Malice>) -> Self {
        let key = [u8::try_from(self.watch.names.len()).unwrap_or(u8::MAX); 32];
        self.keyed_hub(name, key, credentials(key), move |id, credentials| {
            (HubConfig { id, credentials, limits: limits.clone(), owner_policy }, malice.clone())
        })
    }

    /// Adds a hub whose secret clients added later prove, be it that of another hub.
    #[must_use]
    pub fn hub_with_key(self, name: &str, key: [u8; 32]) -> Self {
        self.hub_with_credentials(name, key, credentials(key))
    }

    /// Adds a hub that admits by a table; clients added later prove this key, unless they have credentials of their own.
    #[must_use]
    pub fn hub_with_credentials(self, name: &str, key: [u8; 32], credentials: Credentials) -> Self {
        self.keyed_hub(name, key, credentials, |id, credentials| {
            (HubConfig { id, credentials, limits: Limits::default(), owner_policy: OwnerPolicy::default() }, None)
        })
    }

    pub(crate) fn keyed_hub(
        mut self,
        name: &str,
        key: [u8; 32],
        credentials: Credentials,
        config: impl Fn(Option<HubId>, Credentials) -> (HubConfig, Option<Malice>) + 'static,
    ) -> Self {
        let id = HubId::new(name).ok();
        let config = move || config(id.clone(), credentials.clone());
        let stream = self.engine.decisions().stream("malice");
        let (HubConfig { owner_policy, limits, .. }, malice) = config();
        let malice = malice.map(|malice| (malice, self.engine.decisions().on(stream).seed()));
        let resident =
            Resident { id: None, honest: true, admin: false, policy: Some(owner_policy), limits: Some(limits) };
        let node = self.add(name, resident, move |seed| {
            let hub = Hub::new(config().0, seed);
            match &malice {
                None => Station::Hub(Box::new(hub)),
                Some((malice, seed)) => Station::Mallory(Box::new(Mallory::new(hub, malice.clone(), *seed))),
            }
        });
        self.verifiers.insert(node, key);
        self.last_hub = Some(node);
        self
    }

    /// Adds a client of the hub added last, under its own name.
    #[must_use]
    pub fn client(self, name: &str) -> Self {
        self.client_with(name, name, Limits::default(), true)
    }

    /// Adds a client that holds a wrong secret.
    #[must_use]
    pub fn stranger(self, name: &str) -> Self {
        self.client_with(name, name, Limits::default(), false)
    }

    /// Adds a client with an id, limits and a secret that is right or not.
    #[must_use]
    pub fn client_with(self, name: &str, id: &str, limits: Limits, honest: bool) -> Self {
        self.client_of(name, id, limits, honest, Station::client)
    }

    /// The client added next proves this instead of its hub's shared secret.
    #[must_use]
    pub fn proving(mut self, credential: CredentialId, key: [u8; 32]) -> Self {
        self.login = Some((credential, key));
        self
    }

    /// Of the hub added last.
    pub(crate) fn shared_secret(&self) -> [u8; 32] {
        self.last_hub.and_then(|hub| self.verifiers.get(&hub)).copied().unwrap_or([0; 32])
    }

    pub(crate) fn client_of(
        mut self,
        name: &str,
        id: &str,
        limits: Limits,
        honest: bool,
        station: fn(Client) -> Station,
    ) -> Self {
        let (hub, shared) = (self.last_hub, self.shared_secret());
        let shared = if honest { shared } else { shared.map(|byte| !byte) };
        let (credential, key) = self.login.take().unwrap_or_else(|| (CredentialId::shared(), shared));
        let hub: Arc<str> = format!("sim:{}", hub.map_or("nowhere", |hub| self.engine.name(hub))).into();
        let admin = honest && credential == admins::credential();
        let resident =
            Resident { id: ClientId::new(id).ok(), honest, admin, policy: None, limits: Some(limits.clone()) };
        let (id, reconnect) = (ClientId::new(id).ok(), self.reconnect);
        let config = move || ClientConfig {
            hub: Arc::clone(&hub),
            id: id.clone(),
            credential: credential.clone(),
            secret: Secret::key(key),
            limits: limits.clone(),
            reconnect,
        };
        let same = self.in_step.then(|| Seed::new([7; 32]));
        self.add(name, resident, move |seed| station(Client::new(config(), same.as_ref().unwrap_or(seed))));
        self
    }

    pub(crate) fn add(&mut self, name: &str, who: Resident, build: impl Fn(&Seed) -> Station + 'static) -> NodeId {
        let stream = self.engine.decisions().stream(&format!("node/{name}"));
        let seed = Seed::new(self.engine.decisions().on(stream).seed());
        let twins = self.machine(&build, &seed);
        let node = self.engine.add(name, twins);
        self.builds.insert(node, Box::new(build));
        if self.habits {
            let habits = Habits::drawn(self.engine.choose(node));
            let mut choose = self.engine.choose(node);
            let mono = choose.log_uniform(1, 1 << 50) - 1;
            let wall = choose.below(4_001) as i64 - 2_000;
            self.engine.place(node, habits, Clocks { mono, wall });
        }
        self.watch.names.push(name.to_owned());
        self.watch.oracles.iter_mut().for_each(|oracle| oracle.joined(node, &who));
        node
    }

    pub(crate) fn machine(&self, build: &dyn Fn(&Seed) -> Station, seed: &Seed) -> Twins<Station> {
        if self.twins { Twins::of(build(seed), build(seed)) } else { Twins::single(build(seed)) }
    }

    /// Every client, in the order of adding.
    #[must_use]
    pub fn clients(&self) -> Vec<NodeId> {
        let ids = (0..self.watch.names.len()).map(|index| NodeId::new(u32::try_from(index).unwrap_or(u32::MAX)));
        ids.filter(|node| {
            matches!(self.engine.machine(*node).map(Twins::shown), Some(Station::Client(_) | Station::Rogue(_)))
        })
        .collect()
    }

    /// Every hub, in the order of adding.
    #[must_use]
    pub fn hubs(&self) -> Vec<NodeId> {
        self.verifiers.keys().copied().collect()
    }

    /// The world's time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.engine.now()
    }

    /// The engine below.
    pub const fn engine(&mut self) -> &mut Engine<Twins<Station>> {
        &mut self.engine
    }

    /// What was recorded so far.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.watch.trace
    }

    /// What oracles found so far.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.watch.failures
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.watch.failures.is_empty()
    }

    /// Who dialled when, all clients together.
    #[must_use]
    pub fn dials(&self) -> &[(Instant, NodeId)] {
        &self.watch.dials
    }

    /// Somebody who plays in this world finds something that cannot be.
    pub(crate) fn fails(&mut self, oracle: &'static str, node: NodeId, what: String) {
        let (at, name) = (self.engine.now(), self.engine.name(node).to_owned());
        if self.watch.failures.len() < FAILURES {
            self.watch.failures.push(Failure { oracle, at, node: name, what });
        }
    }

    /// Hands a client a command.
    pub fn ask(&mut self, node: NodeId, command: client::Command) {
        self.engine.command(node, Asked::Client(command), &mut self.watch);
        self.listen();
    }

    /// Hands a hub a command.
    pub fn ask_hub(&mut self, node: NodeId, command: hub::Command) {
        self.engine.command(node, Asked::Hub(command), &mut self.watch);
        self.listen();
    }

    /// A number no request of this world has had.
    pub const fn token(&mut self) -> client::Token {
        self.tokens += 1;
        client::Token(self.tokens)
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) -> Moment {
        let moment = match self.engine.step(&mut self.watch) {
            Step::Idle => Moment::Idle,
            Step::Ran => Moment::Ran,
            Step::Woke(key) if self.put_off(key) => Moment::Ran,
            Step::Woke(key) => match self.plans.remove(&key) {
                Some(Plan::Own(key)) => Moment::Woke(key),
                Some(Plan::Answer { node, request, result }) => {
                    self.ask(node, client::Command::Answer { request, result });
                    Moment::Ran
                }
                Some(Plan::Stream { node, command }) => {
                    self.ask(node, client::Command::Stream(command));
                    Moment::Ran
                }
                Some(Plan::Cancel { node, call }) => {
                    self.ask(node, client::Command::Cancel { call });
                    Moment::Ran
                }
                Some(Plan::Finished(node)) => {
                    self.ask(node, client::Command::Drain(client::DrainCommand::Finished));
                    Moment::Ran
                }
                Some(Plan::Derive { node, channel, salt, password }) => {
                    self.derive(node, channel, salt, password);
                    Moment::Ran
                }
                Some(Plan::DeriveNothing { node, channel }) => {
                    self.ask(node, client::Command::ChannelKeyFailed { channel });
                    Moment::Ran
                }
                Some(Plan::Store(node, writing)) => {
                    self.write(node, writing);
                    Moment::Ran
                }
                None => Moment::Ran,
            },
        };
        self.listen();
        self.steps += 1;
        if self.steps.is_multiple_of(LOOKED_AT_EVERY) {
            self.judge_held();
        }
        moment
    }

    /// Takes what machines told, and lets the scripts of providers answer.
    pub(crate) fn listen(&mut self) {
        while let Some((node, told)) = self.engine.told() {
            match told {
                Told::Withheld { .. } => {}
                Told::Bridge(event) => self.bridge_told.entry(node).or_default().push(event),
                Told::Hub(event) => {
                    self.store(node, &event);
                    self.hub_told.entry(node).or_default().push(event);
                }
                Told::Client(event) => {
                    let fed = self.feed(node, &event);
                    if let client::Event::Request(request) = &event
                        && !fed
                    {
                        self.serve(node, request);
                    }
                    if let client::Event::DeriveChannelKey { channel, salt } = &event
                        && let Some(password) = self.keyring.get(&(node, channel.clone()))
                    {
                        let (channel, salt, password) = (channel.clone(), salt.salt, *password);
                        self.plan_own(Duration::ZERO, Plan::Derive { node, channel, salt, password });
                    }
                    let list = self.told.entry(node).or_default();
                    list.push(event);
                    self.fresh.push_back((node, list.len() - 1));
                }
            }
        }
    }

    fn serve(&mut self, node: NodeId, request: &Request) {
        let Some(answering) = self.serving.get_mut(&node) else { return };
        let Reply { after, result } = answering(request);
        if let Some(result) = result {
            self.plan_own(after, Plan::Answer { node, request: request.id, result });
        }
    }

    /// Asks every oracle what is missing; to be called when nothing is under way.
    pub fn judge_settled(&mut self) {
        for (node, name) in (0..).map(NodeId::new).zip(self.watch.names.clone()) {
            if let Some(what) = self.engine.machine(node).and_then(Twins::differs) {
                let (at, what) = (self.engine.now(), what.to_owned());
                self.watch.failures.push(Failure { oracle: "chunking", at, node: name, what });
            }
        }
        self.watch.judge(self.engine.now(), NodeId::new(u32::MAX), |oracle| oracle.settled());
    }
}

/// One shared secret, and what admins prove.
pub(crate) fn credentials(key: [u8; 32]) -> Credentials {
    let none = Credentials::new([7; 32]);
    match Verifier::new(&Secret::key(key), [9; 16], 0) {
        Ok(verifier) => admins::with(none.with(CredentialId::shared(), Credential::shared(verifier)), key),
        Err(_) => none,
    }
}
