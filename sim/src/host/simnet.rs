//! A network of named hubs and programs, and everything that can befall it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use commipc_runtime::{BoxFuture, BridgeBuilder, ClientBuilder, HubBuilder, Secret, Side};
use core::time::Duration;

use super::process::{KEY, Process};
use super::state::{Shared, lock};
use super::storm::Storm;
use super::tasks::{Joining, promise};
use super::{Sim, SimDisk};
use crate::weather::Weather;

/// A simulated network, as a scenario sees it: names, and what can be done to them. Clones are the same network.
///
/// ```
/// use commipc_runtime::{ClientBuilder, Fault, Request};
/// use commipc_sim::SimNet;
/// use std::time::Duration;
///
/// // A user's program: on a real runtime it is given `commipc_tokio::client(url)`.
/// async fn adder(hub: ClientBuilder) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     let client = hub.connect().await?;
///     let sum = async |numbers: Request<(i64, i64)>| Ok::<_, Fault>(numbers.0 + numbers.1);
///     client.open("math").await?.provide("sum", sum).await?.detach();
///     client.closed().await;
///     Ok(())
/// }
///
/// SimNet::builder()
///     .seeds(0..20)
///     .hub("a")
///     .program("adder", async |net: SimNet| adder(net.client("adder", "a")).await.expect("it serves"))
///     .run(async |net| {
///         let client = net.client("till", "a").connect().await.unwrap();
///         net.sleep(Duration::from_secs(1)).await;
///         net.cut("adder", "a");
///         net.sleep(Duration::from_secs(10)).await;
///         let total: i64 = client.call("math", "sum", &(15, 25)).await.unwrap();
///         assert_eq!(total, 40, "it came back");
///     });
/// ```
#[derive(Clone)]
pub struct SimNet {
    shared: Weak<Shared>,
    plan: Arc<Plan>,
    disks: Arc<Mutex<BTreeMap<String, SimDisk>>>,
    seed: u64,
}

/// What a network is made of.
pub(super) struct Plan {
    hubs: Vec<(String, HubPlan)>,
    programs: Vec<(String, Program)>,
    lines: Vec<(String, String, Weather)>,
    weather: WeatherPlan,
    pub(super) storm: Option<Storm>,
}

struct HubPlan {
    shape: Box<dyn Fn(HubBuilder) -> HubBuilder + Send + Sync>,
    stores: bool,
}

type Program = Box<dyn Fn(SimNet) -> BoxFuture<'static, ()> + Send + Sync>;

enum WeatherPlan {
    Given(Box<Weather>),
    /// Another one for each seed.
    Any,
}

/// Says what a network is made of, and then runs it.
#[must_use = "nothing is simulated before run() or search()"]
pub struct SimNetBuilder {
    pub(super) plan: Plan,
    pub(super) seeds: Range<u64>,
    pub(super) replay: Option<String>,
}

impl SimNet {
    /// A network to be described.
    pub fn builder() -> SimNetBuilder {
        let plan = Plan {
            hubs: Vec::new(),
            programs: Vec::new(),
            lines: Vec::new(),
            weather: WeatherPlan::Given(Box::new(Weather::fair())),
            storm: None,
        };
        SimNetBuilder { plan, seeds: 0..1, replay: None }
    }
}

impl SimNetBuilder {
    /// Runs this seed alone.
    pub fn seed(self, seed: u64) -> Self {
        self.seeds(seed..seed.saturating_add(1))
    }

    /// Runs these seeds, one after the other. `COMMIPC_SIM_SEED` in the environment goes before: so a failure is replayed.
    pub const fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// A hub at `memory:` and this name, which forgets everything when it crashes.
    pub fn hub(self, name: &str) -> Self {
        self.hub_with(name, |hub| hub)
    }

    /// A hub with options of its own.
    pub fn hub_with(mut self, name: &str, shape: impl Fn(HubBuilder) -> HubBuilder + Send + Sync + 'static) -> Self {
        self.plan.hubs.push((name.to_owned(), HubPlan { shape: Box::new(shape), stores: false }));
        self
    }

    /// A hub with a state directory, on a disk that outlives its crashes.
    pub fn stored_hub(mut self, name: &str) -> Self {
        self.plan.hubs.push((name.to_owned(), HubPlan { shape: Box::new(|hub| hub), stores: true }));
        self
    }

    /// A program that runs at the node of this name from the beginning, and again after [`SimNet::restart`].
    pub fn program<F, Fut>(mut self, name: &str, program: F) -> Self
    where
        F: Fn(SimNet) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.plan.programs.push((name.to_owned(), Box::new(move |net| Box::pin(program(net)))));
        self
    }

    /// What connections are like; without it the weather is fair: they vary in speed and in how reads are cut, and never fail.
    pub fn weather(mut self, weather: Weather) -> Self {
        self.plan.weather = WeatherPlan::Given(Box::new(weather));
        self
    }

    /// Another weather for each seed, with about half of all troubles: slow lines, refused dials, connections that break
    /// at any byte.
    pub fn any_weather(mut self) -> Self {
        self.plan.weather = WeatherPlan::Any;
        self
    }

    /// What connections between two nodes are like.
    pub fn line(mut self, one: &str, other: &str, weather: Weather) -> Self {
        self.plan.lines.push((one.to_owned(), other.to_owned(), weather));
        self
    }

    /// Faults drawn from the seed, from the beginning on. [`SimNet::calm`] waits until they are over.
    pub const fn storm(mut self, storm: Storm) -> Self {
        self.plan.storm = Some(storm);
        self
    }

    /// The command that is printed when a seed fails, with `{seed}` where the seed belongs; without it the one that runs this
    /// test or program again.
    pub fn replay_with(mut self, command: &str) -> Self {
        self.replay = Some(command.to_owned());
        self
    }
}

/// Names.
impl SimNet {
    /// A client of a hub, at a node: with the node's name as its id and what the hub asks for, and otherwise as programs
    /// have it, so that its connection comes back.
    pub fn client(&self, node: &str, hub: &str) -> ClientBuilder {
        let url = format!("memory:{hub}");
        ClientBuilder::new(self.node(node).runtime(), &url).id(node).secret(Self::secret())
    }

    /// A bridge between two hubs, at a node, with the node's name as its id and what both hubs ask for. It is there as long
    /// as what it starts is held.
    pub fn bridge(&self, node: &str, a: &str, b: &str) -> BridgeBuilder {
        let [a, b] = [a, b].map(|hub| format!("memory:{hub}"));
        let bridge = BridgeBuilder::new(self.node(node).runtime(), &a, &b).id(node);
        bridge.secret(Side::A, Self::secret()).secret(Side::B, Self::secret())
    }

    /// What clients and bridges prove to the network's hubs.
    #[must_use]
    pub fn secret() -> Secret {
        Secret::key(KEY)
    }

    /// The node of this name: one computer's clocks, tasks and connections.
    #[must_use]
    pub fn node(&self, name: &str) -> Process {
        let index = self.with(usize::MAX, |shared| shared.with(|state| state.process(name)));
        Process::new(Weak::clone(&self.shared), index)
    }

    /// The seed of this run.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `n` that follows from the seed, for what a scenario leaves open; 0 for an `n` of 0.
    #[must_use]
    pub fn draw(&self, n: u64) -> u64 {
        self.with(0, |shared| shared.with(|state| state.decisions.on(state.work).below(n)))
    }

    /// Adds a line to what is printed of a run that fails.
    pub fn note(&self, line: &str) {
        self.with((), |shared| shared.with(|state| state.tell(|_| line.to_owned())));
    }
}

/// Time.
impl SimNet {
    /// Lets so much time pass.
    pub fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.node(OUTSIDE).sleep(time)
    }

    /// How much time has passed since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.with(Duration::ZERO, |shared| shared.with(|state| Duration::from_nanos(state.agenda.now().as_nanos())))
    }
}

/// Faults.
impl SimNet {
    /// Ends a hub or program as `kill -9` does: connections break, nothing is flushed or said.
    pub fn crash(&self, name: &str) {
        if self.living().iter().any(|living| living == name) {
            self.node(name).kill();
        }
        let disk = lock(&self.disks).get(name).cloned();
        if let Some(disk) = disk {
            disk.restart();
        }
    }

    /// Starts a hub or program again, after a crash if it still runs. A hub takes connections when this is ready.
    ///
    /// # Panics
    /// When the hub does not start.
    pub async fn restart(&self, name: &str) {
        self.crash(name);
        self.start_one(name).await;
    }

    /// Breaks the connections between two nodes, at once. They may make others.
    pub fn cut(&self, one: &str, other: &str) {
        self.with((), |shared| shared.with(|state| state.cut_between(one, other)));
    }

    /// What `from` says to `to` on connections that stand now never arrives, and nobody is told: they are half open. New
    /// connections are not concerned.
    pub fn mute(&self, from: &str, to: &str) {
        self.with((), |shared| shared.with(|state| state.mute(from, to)));
    }

    /// From now on nothing arrives between nodes of the two groups, in either direction; it waits for [`SimNet::heal`]. Dials
    /// wait as well, for two minutes at most.
    pub fn partition(&self, some: &[&str], others: &[&str]) {
        self.with((), |shared| shared.with(|state| state.part(some, others)));
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        self.with((), |shared| shared.with(super::State::heal));
    }

    /// Stops a node, as a computer that sleeps: its tasks wait, its clocks go on, its connections stand.
    pub fn pause(&self, name: &str) {
        self.with((), |shared| {
            shared.with(|state| {
                let process = state.process(name);
                state.pause(process);
            });
        });
    }

    /// Lets a paused node go on.
    pub fn resume(&self, name: &str) {
        self.with((), |shared| {
            shared.with(|state| {
                let process = state.process(name);
                state.resume(process);
            });
        });
    }

    /// Waits until the storm is over and everything runs again.
    pub async fn calm(&self) {
        if let Some(storm) = &self.plan.storm {
            let left = storm.lasts().saturating_sub(self.elapsed());
            self.sleep(left + Storm::AFTER).await;
        }
    }
}

/// How it begins.
impl SimNet {
    pub(super) fn new(sim: &Sim, plan: &Arc<Plan>, seed: u64) -> Self {
        sim.shared.with(|state| {
            state.weather = match &plan.weather {
                WeatherPlan::Given(weather) => (**weather).clone(),
                WeatherPlan::Any => Weather::drawn(state.decisions.on(state.fault)),
            };
            for (one, other, weather) in &plan.lines {
                state.set_weather_between(one, other, weather);
            }
        });
        let storing = plan.hubs.iter().filter(|(_, hub)| hub.stores);
        let disks = storing.map(|(name, _)| (name.clone(), SimDisk::seeded(seed))).collect();
        let shared = Arc::downgrade(&sim.shared);
        Self { shared, plan: Arc::clone(plan), disks: Arc::new(Mutex::new(disks)), seed }
    }

    /// Starts hubs, then programs, then the storm.
    pub(super) async fn start(&self) {
        for name in self.names() {
            self.start_one(&name).await;
        }
        if let Some(storm) = self.plan.storm.clone() {
            drop(self.node(OUTSIDE).spawn(storm.rage(self.clone())));
        }
    }

    /// Drawn for a storm.
    pub(super) fn hurt(&self, n: u64) -> u64 {
        self.with(0, |shared| shared.with(|state| state.decisions.on(state.fault).below(n)))
    }

    pub(super) fn kind(&self, weights: &[u64]) -> Option<usize> {
        self.with(None, |shared| shared.with(|state| state.decisions.on(state.fault).weighted(weights)))
    }

    /// Everybody that runs but the scenario itself.
    pub(super) fn living(&self) -> Vec<String> {
        self.with(Vec::new(), |shared| {
            shared.with(|state| {
                let living = state.processes.iter().filter(|process| process.alive && process.name != OUTSIDE);
                living.map(|process| process.name.clone()).collect()
            })
        })
    }

    /// Hubs and programs.
    pub(super) fn names(&self) -> Vec<String> {
        let Plan { hubs, programs, .. } = &*self.plan;
        hubs.iter().map(|(name, _)| name.clone()).chain(programs.iter().map(|(name, _)| name.clone())).collect()
    }

    pub(super) fn is_hub(&self, name: &str) -> bool {
        self.plan.hubs.iter().any(|(hub, _)| hub == name)
    }

    async fn start_one(&self, name: &str) {
        let hub = self.plan.hubs.iter().find(|(hub, _)| hub == name);
        if let Some((_, hub)) = hub
            && let Some(Err(why)) = self.start_hub(name, hub).await
        {
            panic!("the hub {name} does not start: {why}");
        }
        let programs = self.plan.programs.iter().filter(|(program, _)| program == name);
        programs.for_each(|(_, program)| drop(self.node(name).spawn(program(self.clone()))));
    }

    fn start_hub(&self, name: &str, hub: &HubPlan) -> Joining<Result<(), String>> {
        let node = self.node(name);
        let mut builder = (hub.shape)(node.hub());
        if let Some(disk) = lock(&self.disks).get(name) {
            builder = builder.state_disk(Arc::new(disk.clone()));
        }
        let (promise, started) = promise();
        // No program of the user's: it goes on until the simulation is over.
        node.runtime().spawn(Box::pin(async move {
            match builder.await {
                Ok(hub) => {
                    promise.keep(Ok(()));
                    hub.stopped().await;
                }
                Err(why) => promise.keep(Err(why.to_string())),
            }
        }));
        started
    }

    /// `otherwise` when the simulation is over.
    fn with<T>(&self, otherwise: T, act: impl FnOnce(&Arc<Shared>) -> T) -> T {
        self.shared.upgrade().map_or(otherwise, |shared| act(&shared))
    }
}

/// The node that scenarios and storms wait at.
const OUTSIDE: &str = "the scenario";

impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNet").field("seed", &self.seed).field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimNetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNetBuilder").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}
