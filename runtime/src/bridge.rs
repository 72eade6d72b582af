//! A bridge: its builder, its handle, and its events as log lines.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use commipc_protocol::auth::Secret;
use commipc_protocol::bridge::{self, BridgeConfig, BridgeEnd, Command, Event};
use commipc_protocol::client::Reconnect;
use commipc_protocol::{ClientId, CloseReason, CredentialId, HubId, Limits, Misuse, NameError, Seed};

pub use commipc_protocol::bridge::{Allow, AllowError, BridgeClosed, Counters as BridgeCounters, Side};

use crate::driver::{Driver, Sink};
use crate::endpoint::Endpoint;
use crate::error::BridgeError;
use crate::hub::HubBuilder;
use crate::runtime::{BoxFuture, Runtime, random};
use crate::secret::{SecretSource, read_secret_file};
use crate::sync::lock;

impl HubBuilder {
    /// What bridges to other hubs must prove: the entry `bridge` of the credentials. Without one, and without an entry that has
    /// the capability, nobody can join this hub with another.
    pub fn bridge_secret(mut self, secret: Secret) -> Self {
        self.bridge_secret = Some(Ok(secret));
        self
    }

    /// The file with what [`HubBuilder::bridge_secret`] takes: `key:` and 64 hex digits, or else a password.
    pub fn bridge_secret_file(mut self, path: &Path) -> Self {
        self.bridge_secret = Some(read_secret_file(path));
        self
    }
}

/// A bridge that joins nothing yet: await it, or call [`BridgeBuilder::start`].
#[must_use = "nothing is joined before this is awaited"]
pub struct BridgeBuilder {
    runtime: Arc<dyn Runtime>,
    ends: [(String, SecretSource); 2],
    id: Option<Result<ClientId, NameError>>,
    credential: Option<Result<CredentialId, NameError>>,
    allow: Vec<Result<Allow, AllowError>>,
    one_way: bool,
    rate: Option<NonZeroU32>,
    limits: Limits,
    reconnect: Reconnect,
}

impl BridgeBuilder {
    /// A bridge between the hubs at two URLs (`unix:/path` or `tcp://host:port`), on the given runtime.
    pub fn new(runtime: Arc<dyn Runtime>, a: &str, b: &str) -> Self {
        let mut reconnect = Reconnect::default();
        // Whichever hub is there first waits for the other.
        reconnect.initial = true;
        Self {
            runtime,
            ends: [a, b].map(|url| (url.to_owned(), SecretSource::default())),
            id: None,
            credential: None,
            allow: Vec::new(),
            one_way: false,
            rate: None,
            limits: Limits::default(),
            reconnect,
        }
    }

    /// The same, on another runtime.
    pub(crate) fn on(mut self, change: impl FnOnce(Arc<dyn Runtime>) -> Arc<dyn Runtime>) -> Self {
        self.runtime = change(self.runtime);
        self
    }

    /// The bridge's id: its clients are called so, with `-c1` and `-c2` behind it. One is made up when absent.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(ClientId::new(id));
        self
    }

    /// Which credential is proved to both hubs: `bridge` when absent. It needs the capability `bridge`.
    pub fn credential(mut self, id: &str) -> Self {
        self.credential = Some(CredentialId::new(id));
        self
    }

    /// What is proved to one of the hubs: what that hub has for bridges ([`HubBuilder::bridge_secret`](crate::HubBuilder::bridge_secret)).
    pub fn secret(mut self, side: Side, secret: Secret) -> Self {
        self.ends[side as usize].1.set(secret);
        self
    }

    /// The file with what is proved to one of the hubs: `key:` and 64 hex digits, or else a password.
    pub fn secret_file(mut self, side: Side, path: impl Into<PathBuf>) -> Self {
        self.ends[side as usize].1.set_file(path.into());
        self
    }

    /// Lets these pass and nothing else: `CHANNEL` or `CHANNEL@EVENT`, where `*` stands for any text. May be said several
    /// times; when it is not, everything passes but for the hubs' own channels, which never do.
    pub fn allow(mut self, pattern: &str) -> Self {
        self.allow.push(pattern.parse());
        self
    }

    /// Only what the first hub offers can be reached from the second: its providers are called and its broadcasts are heard
    /// there, and nothing the other way.
    pub fn one_way(mut self) -> Self {
        self.one_way = true;
        self
    }

    /// How many calls, sends and broadcasts together pass in a second, each way, after at most as many at once. Of more,
    /// calls are refused as [`Overloaded`](crate::Refusal::Overloaded), and others are dropped and counted.
    pub fn rate(mut self, a_second: NonZeroU32) -> Self {
        self.rate = Some(a_second);
        self
    }

    /// Bounds other than the default ones.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How a connection that is lost, or was never made, is made again.
    pub fn reconnect(mut self, how: Reconnect) -> Self {
        self.reconnect = how;
        self
    }

    /// Starts the bridge. When it returns, each hub knows what the other has; a hub that is not there is waited for.
    ///
    /// # Errors
    /// When a URL, a name or a pattern is none, there is no secret to prove, a hub refuses, both are the same, or the
    /// credential is no bridge's.
    ///
    /// # Cancel safety
    /// Dropped midway, both connections are closed again.
    pub async fn start(self) -> Result<Bridge, BridgeError> {
        let Self { runtime, ends, id, credential, allow, one_way, rate, limits, reconnect } = self;
        let id = id.transpose()?;
        if let Some(id) = &id {
            ClientId::new(&format!("{id}-c1"))?;
        }
        let credential = credential.transpose()?.unwrap_or_else(CredentialId::bridges);
        let allow = allow.into_iter().collect::<Result<_, _>>()?;
        let [a, b] = ends.map(|(url, source)| {
            let endpoint: Endpoint = url.parse()?;
            let secret = source.clone().explicit()?.ok_or(BridgeError::NoSecret(url))?;
            let end = BridgeEnd { hub: Arc::from(endpoint.to_string()), credential: credential.clone(), secret };
            Ok::<_, BridgeError>((end, (source, endpoint)))
        });
        let ((a, source_a), (b, source_b)) = (a?, b?);
        let seed = random(&*runtime).map_err(BridgeError::Seed)?;
        let secrets = Mutex::new([a.secret.clone(), b.secret.clone()]);
        let reconnect = Some(reconnect);
        let machine = BridgeConfig { a, b, id, allow, one_way, rate, limits, reconnect };
        let machine = bridge::Bridge::new(machine, &Seed::new(*seed));
        let id = machine.id().clone();
        let desk =
            Desk { state: Mutex::default(), secrets, sources: [source_a, source_b], dial_error: Mutex::default() };
        let driver = Driver::start(runtime, machine, desk);
        driver.told();
        // From here on dropping the handle closes the bridge.
        let bridge = Bridge { handle: Arc::new(BridgeHandle { driver, id }) };
        bridge.handle.driver.issue(Command::Connect);
        bridge.bridged().await?;
        Ok(bridge)
    }
}

impl IntoFuture for BridgeBuilder {
    type Output = Result<Bridge, BridgeError>;
    type IntoFuture = Bridging;

    fn into_future(self) -> Bridging {
        Bridging(Box::pin(self.start()))
    }
}

impl fmt::Debug for BridgeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(a, _), (b, _)] = &self.ends;
        f.debug_struct("BridgeBuilder").field("a", a).field("b", b).finish_non_exhaustive()
    }
}

/// A bridge that is starting. Dropped midway, both connections are closed again.
#[must_use = "a bridge starts only while this is polled"]
pub struct Bridging(BoxFuture<'static, Result<Bridge, BridgeError>>);

impl Future for Bridging {
    type Output = Result<Bridge, BridgeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Bridging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bridging(..)")
    }
}

/// A bridge between two hubs. Clones are the same bridge; it is closed when the last one is dropped.
///
/// What one hub's clients provide, say and ask reaches the other's as it is, with the names of those who said it. A
/// connection that is lost is made again; meanwhile nothing of one hub is there at the other.
#[derive(Clone)]
#[must_use = "the bridge is closed when its last handle is dropped"]
pub struct Bridge {
    handle: Arc<BridgeHandle>,
}

struct BridgeHandle {
    driver: Arc<Driver<bridge::Bridge, Desk>>,
    id: ClientId,
}

impl Bridge {
    /// The bridge's id, without `-c1` and `-c2`.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.handle.id
    }

    /// The hubs that are joined now, if they are.
    #[must_use]
    pub fn hubs(&self) -> Option<(HubId, HubId)> {
        match &lock(&self.handle.driver.sink().state).now {
            Now::Bridged(a, b) => Some((a.clone(), b.clone())),
            Now::Parted | Now::Closed(_) => None,
        }
    }

    /// Running totals since the bridge started.
    #[must_use]
    pub fn counters(&self) -> BridgeCounters {
        self.handle.driver.with_machine(bridge::Bridge::counters)
    }

    /// Waits until each hub knows what the other has.
    ///
    /// # Errors
    /// When the bridge is over.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    pub async fn bridged(&self) -> Result<(HubId, HubId), BridgeError> {
        let state = poll_fn(|cx| self.handle.driver.sink().poll(cx, |now| !matches!(now, Now::Parted))).await;
        match state {
            Now::Bridged(a, b) => Ok((a, b)),
            Now::Closed(why) => Err(self.handle.driver.sink().closed(why)),
            // Not what was waited for.
            Now::Parted => Err(BridgeError::Closed(BridgeClosed::Local)),
        }
    }

    /// Waits until a connection is lost; at once if one is away now.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    pub async fn parted(&self) {
        poll_fn(|cx| self.handle.driver.sink().poll(cx, |now| !matches!(now, Now::Bridged(..)))).await;
    }

    /// Waits until the bridge is over, and says why.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    pub async fn closed(&self) -> BridgeError {
        match poll_fn(|cx| self.handle.driver.sink().poll(cx, |now| matches!(now, Now::Closed(_)))).await {
            Now::Closed(why) => self.handle.driver.sink().closed(why),
            // Not what was waited for.
            Now::Parted | Now::Bridged(..) => BridgeError::Closed(BridgeClosed::Local),
        }
    }

    /// Says goodbye to both hubs and closes.
    ///
    /// # Cancel safety
    /// The bridge closes from the first poll on, also if this is dropped.
    pub async fn close(&self) {
        self.handle.driver.issue(Command::Close);
        self.closed().await;
    }
}

impl Drop for BridgeHandle {
    fn drop(&mut self) {
        self.driver.issue(Command::Close);
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("id", self.id()).field("hubs", &self.hubs()).finish_non_exhaustive()
    }
}

/// How a bridge is.
#[derive(Clone, Default)]
enum Now {
    #[default]
    Parted,
    Bridged(HubId, HubId),
    Closed(BridgeClosed),
}

#[derive(Default)]
struct State {
    now: Now,
    wakers: Vec<Waker>,
}

/// Turns a bridge's events into log lines and answers to those who wait.
pub(crate) struct Desk {
    state: Mutex<State>,
    /// What is proved to each hub.
    secrets: Mutex<[Secret; 2]>,
    sources: [(SecretSource, Endpoint); 2],
    /// The system's own words on the dial that failed last.
    dial_error: Mutex<Option<io::Error>>,
}

impl Desk {
    fn set(&self, now: Now) {
        let wakers = {
            let mut state = lock(&self.state);
            state.now = now;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>, wanted: impl Fn(&Now) -> bool) -> Poll<Now> {
        let mut state = lock(&self.state);
        if wanted(&state.now) || matches!(state.now, Now::Closed(_)) {
            return Poll::Ready(state.now.clone());
        }
        if !state.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn closed(&self, why: BridgeClosed) -> BridgeError {
        let BridgeClosed::Lost { side, reason: CloseReason::Unreachable(how) } = &why else {
            return BridgeError::Closed(why);
        };
        let error = lock(&self.dial_error).take();
        let detail = error.map_or_else(|| format!("{how:?}"), |error| error.to_string());
        BridgeError::Unreachable { url: self.sources[*side as usize].1.to_string(), detail }
    }

    /// Derives what a hub asks for, where it holds up nobody.
    fn derive(driver: &Arc<Driver<bridge::Bridge, Self>>, side: Side, salt: [u8; 16], iterations: u32) {
        let me = Arc::clone(driver);
        let secret = lock(&driver.sink().secrets)[side as usize].clone();
        driver.runtime().spawn_blocking(Box::new(move || match secret.derive(&salt, iterations) {
            Ok(salted) => me.issue(Command::KeyDerived(side, salted)),
            Err(error) => tracing::warn!(%error, ?side, "the key could not be derived"),
        }));
    }

    /// What is to be proved at the next try is read anew, where it comes from a file.
    fn lost(driver: &Arc<Driver<bridge::Bridge, Self>>, side: Side) {
        let (source, endpoint) = driver.sink().sources[side as usize].clone();
        if !source.is_file(&endpoint) {
            return;
        }
        let me = Arc::clone(driver);
        driver.runtime().spawn_blocking(Box::new(move || match source.explicit() {
            Ok(Some(secret)) => {
                lock(&me.sink().secrets)[side as usize] = secret.clone();
                me.issue(Command::SetSecret(side, secret));
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, ?side, "the secret could not be read again"),
        }));
    }
}

impl Sink<bridge::Bridge> for Desk {
    const HAS_CALLERS: bool = false;

    fn deliver(
        driver: &Arc<Driver<bridge::Bridge, Self>>,
        events: &mut VecDeque<Event>,
        _: &mut Vec<Command>,
    ) -> usize {
        for event in events.drain(..) {
            match event {
                Event::DeriveKey { side, salt, iterations } => Self::derive(driver, side, salt, iterations),
                Event::Connected { side, hub } => tracing::debug!(?side, %hub, "connected"),
                Event::Bridged { a, b } => {
                    tracing::info!(%a, %b, "bridged");
                    driver.sink().set(Now::Bridged(a, b));
                }
                Event::Lost { side, reason, retry } => {
                    tracing::info!(?side, %reason, ?retry, "lost");
                    driver.sink().set(Now::Parted);
                    Self::lost(driver, side);
                }
                Event::Closed(why) => {
                    tracing::debug!(%why, "closed");
                    driver.sink().set(Now::Closed(why));
                    driver.stop();
                }
                other => tracing::debug!(?other, "event"),
            }
        }
        0
    }

    fn dial_failed(&self, error: io::Error) {
        *lock(&self.dial_error) = Some(error);
    }
}

impl BridgeError {
    /// The stable number.
    #[must_use]
    pub const fn code(&self) -> crate::Code {
        use commipc_protocol::Refusal;

        crate::Code(match self {
            Self::Url(_) | Self::Seed(_) | Self::Unreachable { .. } => Misuse::Unreachable.code(),
            Self::BadName(_) | Self::Allow(_) => Misuse::BadName.code(),
            Self::Secret(_) | Self::NoSecret(_) => Refusal::AuthFailed.code(),
            Self::Closed(BridgeClosed::SameHub(_)) => Refusal::SameHub.code(),
            Self::Closed(BridgeClosed::NoBridge { .. }) => Refusal::NotAllowed.code(),
            Self::Closed(BridgeClosed::Refused { refusal, .. })
            | Self::Closed(BridgeClosed::Lost { reason: CloseReason::Refused(refusal), .. }) => refusal.code(),
            Self::Closed(_) => Misuse::Closed.code(),
        })
    }
}
