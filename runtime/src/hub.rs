//! A hub: its builder, its handle, and its events as log lines.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::hub::{
    self, Command, Counters, Event, HubConfig, Load, StoredChannel, StoredHub, SystemPassword,
};
use commipc_protocol::{CredentialId, HubId, Limits, NameError, OwnerPolicy, Seed};

use crate::credentials::CredentialTable;
use crate::drain::{DrainError, Progress};
use crate::driver::{Driver, Sink};
use crate::endpoint::{self, Endpoint};
use crate::error::{HubError, SecretSourceError};
use crate::local::Claim;
use crate::runtime::{Acceptor, BoxFuture, Runtime, random};
use crate::secret::{SecretSource, derive_system, shared_key};
use crate::state::{Change, Dir, Disk, StateError, Store};
use crate::sync::{blocking, lock};

/// A hub that does not run yet: await it, or call [`HubBuilder::start`].
#[must_use = "no hub runs before this is awaited"]
pub struct HubBuilder {
    pub(crate) runtime: Arc<dyn Runtime>,
    urls: Vec<String>,
    pub(crate) nowhere: bool,
    id: Option<Result<HubId, NameError>>,
    pub(crate) secret: SecretSource,
    pub(crate) credentials: Option<CredentialTable>,
    limits: Limits,
    owner_policy: OwnerPolicy,
    state: Option<StatePlace>,
    system_password: Option<Result<Secret, SecretSourceError>>,
    pub(crate) bridge_secret: Option<Result<Secret, SecretSourceError>>,
}

/// Where a hub stores what it remembers over a restart.
enum StatePlace {
    Dir(PathBuf),
    Disk(Arc<dyn Disk>),
}

impl HubBuilder {
    /// A hub on the given runtime.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self {
            runtime,
            urls: Vec::new(),
            nowhere: false,
            id: None,
            secret: SecretSource::default(),
            credentials: None,
            limits: Limits::default(),
            owner_policy: OwnerPolicy::default(),
            state: None,
            system_password: None,
            bridge_secret: None,
        }
    }

    /// Listens at `unix:/path` or `tcp://host:port` (port 0: any). May be said several times; when it is not, the hub
    /// listens at [`default_url`](crate::default_url).
    pub fn listen(mut self, url: &str) -> Self {
        self.urls.push(url.to_owned());
        self
    }

    /// The hub's id. One is made up when absent.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(HubId::new(id));
        self
    }

    /// What clients must prove. When absent, a key is made and kept beside the hub's Unix socket.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret.set(secret);
        self
    }

    /// The file with what clients must prove: `key:` and 64 hex digits, or else a password.
    pub fn secret_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.secret.set_file(path.into());
        self
    }

    /// Who may connect, each with a secret of its own. Together with a secret, that is the entry `default`; without one no
    /// key is made.
    pub fn credentials(mut self, table: CredentialTable) -> Self {
        self.credentials = Some(table);
        self
    }

    /// Lets in everybody who can reach the hub. Clients must say so as well.
    pub fn insecure_no_auth(mut self) -> Self {
        self.secret.set_insecure();
        self
    }

    /// What becomes of channels whose owners go, unless they say otherwise when they open them: they end, by default.
    pub fn on_owner_leave(mut self, policy: OwnerPolicy) -> Self {
        self.owner_policy = policy;
        self
    }

    /// What those must know, besides the hub's secret, who listen to the hub's own channels
    /// ([`SYSTEM_CHANNEL`](crate::SYSTEM_CHANNEL) and the others) or ask it what it holds. Nobody can change it while the
    /// hub runs. It opens these channels and nothing more: what the hub says there is not signed.
    pub fn system_password(mut self, secret: Secret) -> Self {
        self.system_password = Some(Ok(secret));
        self
    }

    /// The file with what [`HubBuilder::system_password`] takes: `key:` and 64 hex digits, or else a password.
    pub fn system_password_file(mut self, path: &Path) -> Self {
        self.system_password = Some(crate::secret::read_secret_file(path));
        self
    }

    /// A directory where the hub keeps what is to survive its restart: its id, who owns its channels, and what checks their
    /// passwords. It is made when absent, is only for this user (0700), and serves one hub at a time.
    ///
    /// Every change is on the disk before anybody is told of it. Without such a directory, ownership and passwords of
    /// channels last as long as the hub.
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state = Some(StatePlace::Dir(path.into()));
        self
    }

    /// As [`HubBuilder::state_dir`], on a disk of one's own: for simulators.
    pub fn state_disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.state = Some(StatePlace::Disk(disk));
        self
    }

    /// Bounds other than the default ones.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Starts the hub. When it returns, clients can connect.
    ///
    /// # Errors
    /// When a URL or the id is none, another hub serves a path or uses the state directory, what is stored there is
    /// damaged, there is no secret to ask for, or the system says no.
    ///
    /// # Cancel safety
    /// Dropped midway, no hub runs, and its sockets are gone.
    pub async fn start(self) -> Result<Hub, HubError> {
        let Self {
            runtime,
            mut urls,
            nowhere,
            id,
            secret,
            credentials,
            limits,
            owner_policy,
            state,
            system_password,
            bridge_secret,
        } = self;
        let id = id.transpose()?;
        if urls.is_empty() && !nowhere {
            urls.push(endpoint::default_url());
        }
        let endpoints = urls.iter().map(|url| url.parse()).collect::<Result<Vec<Endpoint>, _>>()?;
        let mut claims = Vec::new();
        for endpoint in &endpoints {
            claims.push(claim(endpoint)?);
        }
        if secret.is_insecure() {
            tracing::warn!("this hub asks for no secret: anybody who reaches it gets in");
        }
        let table = match (secret.explicit()?, credentials) {
            (Some(_), Some(table)) if table.has(&CredentialId::shared()) => {
                return Err(SecretSourceError::TwoDefaults.into());
            }
            (Some(secret), table) => table.unwrap_or_default().with_shared(secret),
            (None, Some(table)) => table,
            (None, None) => CredentialTable::new().with_shared(shared_key(&*runtime, &claims, &endpoints)?),
        };
        let table = match bridge_secret.transpose()? {
            Some(_) if table.has(&CredentialId::bridges()) => return Err(SecretSourceError::TwoBridges.into()),
            Some(secret) => table.with_bridges(secret),
            None => table,
        };
        let Memory { hub, channels, store } = Memory::load(&runtime, id, state).await?;
        let credentials = table.derive(&runtime, &hub.key).await?;
        let system_password = match system_password.transpose()? {
            Some(secret) => Some(derive_system(&runtime, secret, &hub.key).await?),
            None => None,
        };
        let acceptors = listen(&*runtime, endpoints, &mut claims).await?;
        let config = HubConfig { id: Some(hub.id.clone()), credentials, limits, owner_policy };
        let journal = Journal::new(claims, store);
        Hub::start(runtime, config, acceptors, journal, (hub, channels, system_password))
    }
}

/// What a hub remembers at its start.
struct Memory {
    hub: StoredHub,
    channels: Vec<StoredChannel>,
    store: Option<Arc<Store>>,
}

impl Memory {
    async fn load(runtime: &Arc<dyn Runtime>, id: Option<HubId>, state: Option<StatePlace>) -> Result<Self, HubError> {
        let key = random(&**runtime).map_err(HubError::Seed)?;
        let new = StoredHub { id: chosen_id(&**runtime, id.clone())?, key };
        let Some(place) = state else { return Ok(Self { hub: new, channels: Vec::new(), store: None }) };
        let load = move || {
            let store = Store::new(match place {
                StatePlace::Dir(path) => Arc::new(Dir::take(&path)?),
                StatePlace::Disk(disk) => disk,
            });
            let (hub, channels) = store.load(id, new)?;
            Ok::<_, StateError>(Self { hub, channels, store: Some(Arc::new(store)) })
        };
        Ok(blocking(&**runtime, load).await.ok_or(HubError::RuntimeGone)??)
    }
}

/// A hub's id has to be known to its handle, so it is made up here and not by the machine.
fn chosen_id(runtime: &dyn Runtime, id: Option<HubId>) -> Result<HubId, HubError> {
    if let Some(id) = id {
        return Ok(id);
    }
    let random = random(runtime).map_err(HubError::Seed)?;
    let number = random[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Ok(HubId::new(&format!("hub-{number:016x}"))?)
}

fn claim(endpoint: &Endpoint) -> Result<Option<Claim>, HubError> {
    match endpoint {
        Endpoint::Unix(path) => Ok(Some(Claim::take(path)?)),
        Endpoint::Tcp { .. } | Endpoint::Memory(_) => Ok(None),
    }
}

/// Listens everywhere, or nowhere: what was started before a failure is dropped.
async fn listen(
    runtime: &dyn Runtime,
    endpoints: Vec<Endpoint>,
    claims: &mut [Option<Claim>],
) -> Result<Vec<(Endpoint, Box<dyn Acceptor>)>, HubError> {
    let mut acceptors = Vec::new();
    for (endpoint, claim) in endpoints.into_iter().zip(claims) {
        let failed = |source: io::Error| HubError::Listen { url: endpoint.to_string(), source };
        let (acceptor, local) = match claim {
            Some(claim) => {
                let staging = claim.staging();
                let acceptor = runtime.listen(Endpoint::Unix(staging.clone())).await.map_err(failed)?;
                claim.publish(&staging)?;
                (acceptor, endpoint)
            }
            None => {
                let acceptor = runtime.listen(endpoint.clone()).await.map_err(failed)?;
                let local = acceptor.local();
                (acceptor, local)
            }
        };
        acceptors.push((local, acceptor));
    }
    Ok(acceptors)
}

impl IntoFuture for HubBuilder {
    type Output = Result<Hub, HubError>;
    type IntoFuture = Starting;

    fn into_future(self) -> Starting {
        Starting(Box::pin(self.start()))
    }
}

impl fmt::Debug for HubBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// A hub that is starting. Dropped midway, no hub runs.
#[must_use = "a hub starts only while this is polled"]
pub struct Starting(BoxFuture<'static, Result<Hub, HubError>>);

impl Future for Starting {
    type Output = Result<Hub, HubError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Starting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Starting(..)")
    }
}

/// A hub that runs. Clones are the same hub; it is shut down when the last one is dropped.
#[derive(Clone)]
#[must_use = "the hub is shut down when its last handle is dropped"]
pub struct Hub {
    pub(crate) handle: Arc<HubHandle>,
}

pub(crate) struct HubHandle {
    pub(crate) driver: Arc<Driver<hub::Hub, Journal>>,
    urls: Vec<String>,
    hub: StoredHub,
}

impl Hub {
    fn start(
        runtime: Arc<dyn Runtime>,
        config: HubConfig,
        acceptors: Vec<(Endpoint, Box<dyn Acceptor>)>,
        journal: Journal,
        (hub, channels, system_password): (StoredHub, Vec<StoredChannel>, Option<SystemPassword>),
    ) -> Result<Self, HubError> {
        let seed = random(&*runtime).map_err(HubError::Seed)?;
        let machine = hub::Hub::new(config, &Seed::new(*seed));
        let stores = lock(&journal.store).is_some();
        let driver = Driver::start(runtime, machine, journal);
        driver.told();
        if stores {
            tracing::info!(hub = %hub.id, channels = channels.len(), "restored");
            driver.issue(Command::Restore(channels));
        }
        if let Some(password) = system_password {
            driver.issue(Command::SetSystemPassword(password));
        }
        let urls = acceptors.iter().map(|(endpoint, _)| endpoint.to_string()).collect();
        for (endpoint, acceptor) in acceptors {
            tracing::info!(hub = %hub.id, listener = %endpoint, "listening");
            driver.accept_from(acceptor);
        }
        Ok(Self { handle: Arc::new(HubHandle { driver, urls, hub }) })
    }

    /// Where clients can dial, in the order of [`HubBuilder::listen`], with the real port where 0 was asked for.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.handle.urls
    }

    /// The hub's id.
    #[must_use]
    pub fn id(&self) -> &HubId {
        &self.handle.hub.id
    }

    /// What the hub holds at the moment.
    #[must_use]
    pub fn load(&self) -> Load {
        self.handle.driver.look(hub::Hub::load)
    }

    /// What the hub has done since it started.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.handle.driver.look(hub::Hub::counters)
    }

    /// Who may connect from now on. Connections that stand are not touched.
    ///
    /// # Errors
    /// When the table is empty or holds a secret that is none; then the old one stays in force.
    ///
    /// # Cancel safety
    /// Dropped midway, the old table stays in force.
    pub async fn set_credentials(&self, table: CredentialTable) -> Result<(), HubError> {
        let credentials = table.derive(self.handle.driver.runtime(), &self.handle.hub.key).await?;
        self.handle.driver.issue(Command::SetCredentials(credentials));
        Ok(())
    }

    /// Takes no more connections, ends what runs with [`Refusal::ShuttingDown`](crate::Refusal::ShuttingDown) for both its
    /// sides, says goodbye to all clients, and waits until all links are closed. [`Hub::drain`] finishes what runs first.
    ///
    /// # Cancel safety
    /// The hub shuts down from the first poll on, also if this is dropped.
    pub async fn shutdown(&self) {
        self.handle.shutdown();
        self.stopped().await;
    }

    /// Comes to an end in good order: takes no more connections, turns down what is new with
    /// [`Refusal::Draining`](crate::Refusal::Draining), lets what runs be finished, then says goodbye to all, writes what is
    /// queued and closes. Returns when that is done. Clients that come back by themselves try until a hub is there again.
    ///
    /// What runs are calls and streams; whoever works on one may still call, send and broadcast. What is not finished
    /// after `within` is cut off: both sides are told [`Refusal::ShuttingDown`](crate::Refusal::ShuttingDown).
    /// [`Hub::shutdown`] meanwhile ends it at once.
    ///
    /// # Errors
    /// When something had to be cut off.
    ///
    /// # Cancel safety
    /// The hub drains from the first poll on, also if this is dropped. Called again, the time counts anew.
    pub async fn drain(&self, within: Duration) -> Result<(), DrainError> {
        let driver = &self.handle.driver;
        driver.stop_accepting();
        driver.issue(Command::Drain { time: within });
        self.stopped().await;
        driver.links_over().await;
        driver.sink().drained.result()
    }

    /// How many requests still run that [`Hub::drain`] waits for; `None` before it was called.
    #[must_use]
    pub fn draining(&self) -> Option<usize> {
        self.handle.driver.sink().drained.left()
    }

    /// Waits until the hub has stopped and its sockets are gone.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    pub async fn stopped(&self) {
        poll_fn(|cx| self.handle.driver.sink().poll_stopped(cx)).await;
        self.handle.driver.listeners_closed().await;
    }
}

impl HubHandle {
    fn shutdown(&self) {
        self.driver.stop_accepting();
        self.driver.issue(Command::Shutdown);
    }
}

impl Drop for HubHandle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("id", self.id()).field("urls", &self.handle.urls).finish_non_exhaustive()
    }
}

/// Turns a hub's events into log lines and files, and keeps its sockets until it has stopped.
pub(crate) struct Journal {
    stopped: Mutex<(bool, Vec<Waker>)>,
    drained: Progress,
    claims: Mutex<Vec<Claim>>,
    store: Mutex<Option<Arc<Store>>>,
}

impl Journal {
    fn new(claims: Vec<Option<Claim>>, store: Option<Arc<Store>>) -> Self {
        let claims = Mutex::new(claims.into_iter().flatten().collect());
        Self { stopped: Mutex::default(), drained: Progress::default(), claims, store: Mutex::new(store) }
    }

    /// Stores a change where it holds up nobody.
    fn store(driver: &Arc<Driver<hub::Hub, Self>>, change: Change) {
        let Some(store) = lock(&driver.sink().store).clone() else { return };
        if store.add(change) {
            let hub = Arc::clone(driver);
            let work = move || {
                while let Some(made) = store.work() {
                    for (ticket, durable) in made {
                        hub.issue(Command::Stored { ticket, durable });
                    }
                }
                let closing = store.is_closing();
                drop(store);
                if closing {
                    Self::stop(&hub);
                }
            };
            driver.runtime().spawn_blocking(Box::new(work));
        }
    }

    /// All links are closed. What is being stored comes to its end first.
    fn stopped(driver: &Arc<Driver<hub::Hub, Self>>) {
        let done = lock(&driver.sink().store).as_ref().is_none_or(|store| store.close());
        if done {
            Self::stop(driver);
        }
    }

    fn poll_stopped(&self, cx: &Context<'_>) -> Poll<()> {
        let mut stopped = lock(&self.stopped);
        if stopped.0 {
            return Poll::Ready(());
        }
        if !stopped.1.iter().any(|known| known.will_wake(cx.waker())) {
            stopped.1.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn stop(driver: &Arc<Driver<hub::Hub, Self>>) {
        tracing::info!("stopped");
        let journal = driver.sink();
        let claims = mem::take(&mut *lock(&journal.claims));
        let store = lock(&journal.store).take();
        drop((claims, store));
        let wakers = {
            let mut stopped = lock(&journal.stopped);
            stopped.0 = true;
            mem::take(&mut stopped.1)
        };
        wakers.into_iter().for_each(Waker::wake);
        driver.stop();
    }
}

impl Sink<hub::Hub> for Journal {
    const HAS_CALLERS: bool = false;

    fn deliver(driver: &Arc<Driver<hub::Hub, Self>>, events: &mut VecDeque<Event>, _: &mut Vec<Command>) -> usize {
        for event in events.drain(..) {
            match event {
                Event::Connected { link, client, credential } => {
                    tracing::debug!(?link, %client, %credential, "connected");
                }
                Event::Disconnected { link, client, why } => tracing::debug!(?link, %client, %why, "disconnected"),
                Event::Rejected { link, why } => tracing::info!(?link, %why, "turned away"),
                Event::Joined { channel, client } => tracing::debug!(%channel, %client, "joined"),
                Event::Left { channel, client } => tracing::debug!(%channel, %client, "left"),
                Event::Provided { channel, event, client, kind } => {
                    tracing::debug!(%channel, %event, %client, ?kind, "provided");
                }
                Event::Withdrawn { channel, event, client } => tracing::debug!(%channel, %event, %client, "withdrawn"),
                Event::OwnerChanged { channel, owner } => tracing::debug!(%channel, ?owner, "owner changed"),
                Event::ProtectionChanged { channel, epoch, protected } => {
                    tracing::info!(%channel, epoch, protected, "protection changed");
                }
                Event::BridgeUp { client, hub } => tracing::info!(%client, %hub, "a bridge is up"),
                Event::BridgeDown { client, hub } => tracing::info!(%client, %hub, "a bridge is down"),
                Event::ProtectionConflict { channel, home } => {
                    tracing::warn!(%channel, ?home, "another hub protects this channel differently");
                }
                Event::BridgeFull { client } => tracing::warn!(%client, "a bridge announces more than it may"),
                Event::Looped { client, channel } => tracing::warn!(%client, %channel, "a message came back"),
                Event::Cleared { channel, client } => tracing::info!(%channel, %client, "channel cleared"),
                Event::Terminated { channel } => tracing::debug!(%channel, "channel terminated"),
                Event::Store { ticket, channel, record } => {
                    Self::store(driver, Change { ticket, channel, record });
                }
                Event::SlowConsumer { link, client, waiting } => {
                    tracing::warn!(?link, %client, waiting, "reads too slowly");
                }
                Event::Draining { running } => {
                    tracing::info!(running, "draining");
                    driver.sink().drained.running(running);
                }
                Event::Drained { cut } => {
                    tracing::info!(cut, "drained");
                    driver.sink().drained.cut(cut);
                }
                Event::Stopped => Self::stopped(driver),
                other => tracing::debug!(?other, "event"),
            }
        }
        0
    }

    fn dial_failed(&self, error: io::Error) {
        // A hub dials nobody.
        tracing::debug!(%error, "dial failed");
    }
}
