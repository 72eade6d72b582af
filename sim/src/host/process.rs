//! One process of a simulation, which is the runtime of its clients and hubs.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Weak};

use commipc_protocol::{Instant, UnixMillis};
use commipc_runtime::{Acceptor, BoxFuture, ClientBuilder, Connection, Endpoint, HubBuilder, Inside, Runtime, Secret};
use core::time::Duration;

use super::net::Delays;
use super::state::Shared;
use super::tasks::{Joining, Sleep, promise};

/// One computer of a simulation: its clocks, its tasks, its connections. Clones are the same process.
#[derive(Clone)]
pub struct Process {
    shared: Weak<Shared>,
    index: usize,
}

/// How often a dial is tried where nothing arrives, and when again: as long as Linux does with its defaults.
const DIAL_TRIES: u32 = 127;
const DIAL_AGAIN: Duration = Duration::from_secs(1);
/// What every hub and client of a simulation proves unless told otherwise.
pub(super) const KEY: [u8; 32] = *b"the key of a simulated commipc  ";

impl Process {
    pub(super) const fn new(shared: Weak<Shared>, index: usize) -> Self {
        Self { shared, index }
    }

    /// A hub that listens at `memory:` and this process's name, and is called the same.
    pub fn hub(&self) -> HubBuilder {
        let name = self.name();
        let secret = || Secret::key(KEY);
        let hub = HubBuilder::new(self.runtime()).listen(&format!("memory:{name}")).id(&name);
        hub.secret(secret()).bridge_secret(secret())
    }

    /// A client of the hub that a process runs, with this process's name as its id.
    pub fn client(&self, hub: &str) -> ClientBuilder {
        let secret = Secret::key(KEY);
        ClientBuilder::new(self.runtime(), &format!("memory:{hub}")).id(&self.name()).secret(secret).no_reconnect()
    }

    /// For builders of one's own.
    #[must_use]
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.clone())
    }

    /// Runs a task of this process, until it ends or the process is killed. What it comes to can be waited for.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Joining<T> {
        let (promise, joining) = promise();
        self.start(true, Box::pin(async move { promise.keep(task.await) }));
        joining
    }

    fn start(&self, program: bool, task: BoxFuture<'static, ()>) {
        let left = match self.shared.upgrade() {
            Some(shared) => shared.spawn(self.index, program, task),
            None => Some(task),
        };
        drop(left);
    }

    /// Waits, in virtual time.
    pub fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now() + time)
    }

    /// Breaks every connection of this process, now. It may make others.
    pub fn cut(&self) {
        self.with((), |shared| shared.with(|state| state.cut(self.index)));
    }

    /// Ends this process as `kill -9` does: no task goes on, connections break, nothing is flushed or said.
    /// [`Sim::process`](super::Sim::process) starts another one of the name.
    pub fn kill(&self) {
        let remains = self.with(None, |shared| Some(shared.with(|state| state.kill(self.index))));
        drop(remains);
    }

    /// Waits until nothing parts this process from whoever listens, but not for ever.
    async fn reach(&self, name: &str) -> io::Result<()> {
        let parted = || self.with(false, |shared| shared.with(|state| state.is_parted_from(self.index, name)));
        for _ in 0..DIAL_TRIES {
            if !parted() {
                return Ok(());
            }
            self.sleep(DIAL_AGAIN).await;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing comes back from {name}")))
    }

    fn name(&self) -> String {
        self.with(String::new(), |shared| shared.with(|state| state.name(self.index).to_owned()))
    }

    /// `otherwise` when the simulation is over.
    fn with<T>(&self, otherwise: T, act: impl FnOnce(&Arc<Shared>) -> T) -> T {
        self.shared.upgrade().map_or(otherwise, |shared| act(&shared))
    }
}

impl Runtime for Process {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.start(false, task);
    }

    fn begun(&self, what: Weak<dyn Inside>) {
        self.with((), |shared| shared.with(|state| state.begun(self.index, what)));
    }

    /// Runs the work as one step, a drawn while later: nothing else goes on meanwhile but time.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        let left = match self.shared.upgrade() {
            Some(shared) => shared.with(|state| state.work_later(self.index, work)),
            None => Some(work),
        };
        drop(left);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let at = self.with(at, |shared| shared.with(|state| state.world_time(self.index, at)));
        Box::pin(Sleep::new(Weak::clone(&self.shared), at))
    }

    fn dial(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>> {
        let me = self.clone();
        Box::pin(async move {
            let name = memory_name(to)?;
            let Delays { there, back } =
                me.with(None, |shared| Some(shared.with(|state| state.delays(me.index, &name)))).ok_or_else(over)?;
            me.sleep(there).await;
            me.reach(&name).await?;
            let connected = me.with(Err(over()), |shared| shared.with(|state| state.connect(me.index, &name, shared)));
            me.sleep(back).await;
            connected
        })
    }

    fn listen(&self, at: Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>> {
        let me = self.clone();
        Box::pin(async move {
            let name = memory_name(at)?;
            me.with(Err(over()), |shared| shared.with(|state| state.listen(me.index, &name, shared)))
        })
    }

    fn now(&self) -> Instant {
        self.with(Instant::ZERO, |shared| shared.with(|state| state.mono(self.index)))
    }

    fn wall(&self) -> UnixMillis {
        self.with(UnixMillis(0), |shared| shared.with(|state| state.wall(self.index)))
    }

    fn fill_seed(&self, seed: &mut [u8; 32]) -> io::Result<()> {
        *seed = self.with(None, |shared| Some(shared.with(|state| state.seed(self.index)))).ok_or_else(over)?;
        Ok(())
    }
}

fn memory_name(endpoint: Endpoint) -> io::Result<String> {
    match endpoint {
        Endpoint::Memory(name) => Ok(name),
        Endpoint::Unix(_) | Endpoint::Tcp { .. } => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("a simulation has no sockets like {endpoint}: write memory:name"),
        )),
    }
}

fn over() -> io::Error {
    io::Error::other("the simulation is over")
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.name()).finish()
    }
}
