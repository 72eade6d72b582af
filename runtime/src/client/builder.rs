//! From a URL to a connection.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Away, ClientConfig, Command, Reconnect};
use commipc_protocol::{ClientId, CloseReason, CredentialId, Limits, NameError, Refusal, Seed};

use super::desk::{Desk, State};
use super::{Client, ClientHandle, LazyClient};
use crate::driver::Driver;
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::runtime::{BoxFuture, Runtime};
use crate::secret::SecretSource;

/// A client that is not connected yet: await it, or call [`ClientBuilder::connect`].
#[derive(Clone)]
#[must_use = "nothing is dialled before this is awaited"]
pub struct ClientBuilder {
    runtime: Arc<dyn Runtime>,
    url: String,
    id: Option<Result<ClientId, NameError>>,
    credential: Option<Result<CredentialId, NameError>>,
    secret: SecretSource,
    limits: Limits,
    reconnect: Option<Reconnect>,
    away: Away,
}

/// Before the second attempt to get a place; twice as long before each further one, up to the longest.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(40);

impl ClientBuilder {
    /// A client of the hub at `url` (`unix:/path` or `tcp://host:port`), on the given runtime.
    pub fn new(runtime: Arc<dyn Runtime>, url: &str) -> Self {
        Self {
            runtime,
            url: url.to_owned(),
            id: None,
            credential: None,
            secret: SecretSource::default(),
            limits: Limits::default(),
            reconnect: Some(Reconnect::default()),
            away: Away::Fail,
        }
    }

    /// The same, on another runtime.
    pub(crate) fn on(mut self, change: impl FnOnce(Arc<dyn Runtime>) -> Arc<dyn Runtime>) -> Self {
        self.runtime = change(self.runtime);
        self
    }

    /// The own id, unique among the hub's clients. One is made up when absent.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(ClientId::new(id));
        self
    }

    /// Which of the hub's credentials is proved. The shared one when absent.
    pub fn credential(mut self, id: &str) -> Self {
        self.credential = Some(CredentialId::new(id));
        self
    }

    /// What is proved. When absent, the key beside the hub's Unix socket is read anew at every connect.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret.set(secret);
        self
    }

    /// The file with what is proved: `key:` and 64 hex digits, or else a password.
    pub fn secret_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.secret.set_file(path.into());
        self
    }

    /// Connects to a hub that asks for no secret, which it must say as well.
    pub fn insecure_no_auth(mut self) -> Self {
        self.secret.set_insecure();
        self
    }

    /// Bounds other than the default ones.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How a connection that is lost is made again, with everything that was open, provided, heard and owned. By default at
    /// once, then after waits that double from a second to a minute, for ever.
    pub fn reconnect(mut self, how: Reconnect) -> Self {
        self.reconnect = Some(how);
        self
    }

    /// A connection that is lost is over.
    pub fn no_reconnect(mut self) -> Self {
        self.reconnect = None;
        self
    }

    /// What becomes of calls, sends and broadcasts while the connection is away, unless they say otherwise themselves. By
    /// default they fail at once.
    pub fn while_away(mut self, away: Away) -> Self {
        self.away = away;
        self
    }

    /// A client that connects when it is first used, with these settings.
    #[must_use]
    pub fn lazy(self) -> LazyClient {
        LazyClient::new(self)
    }

    /// Connects: dials the hub, and each side proves that it knows the secret. Where the hub has no place free, tries
    /// again for as long as a hub may be dialled ([`Limits::dial`]).
    ///
    /// # Errors
    /// When the URL or a name is none, there is no secret to prove, nobody listens, or either side refuses.
    ///
    /// # Cancel safety
    /// Dropped midway, the connection is closed again.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let runtime = Arc::clone(&self.runtime);
        let until = runtime.now() + self.limits.dial;
        let mut pause = PAUSE;
        loop {
            match self.clone().connect_once().await {
                // Nobody has proved to be the hub and to mean it, and a place that is taken is soon free again.
                Err(ConnectError::Refused(Refusal::TooManyConnections)) if runtime.now() + pause < until => {
                    runtime.sleep_until(runtime.now() + pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                result => return result,
            }
        }
    }

    async fn connect_once(self) -> Result<Client, ConnectError> {
        let Self { runtime, url, id, credential, secret, limits, reconnect, away } = self;
        let endpoint: Endpoint = url.parse()?;
        let (id, credential) = (id.transpose()?, credential.transpose()?.unwrap_or_else(CredentialId::shared));
        let source = (secret.clone(), endpoint.clone());
        let secret = secret.for_client(&endpoint)?;
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        runtime.fill_seed(&mut seed).map_err(ConnectError::Seed)?;
        let hub = Arc::from(endpoint.to_string());
        let config = ClientConfig { hub, id, credential, secret: secret.clone(), limits, reconnect };
        let machine = commipc_protocol::client::Client::new(config, &Seed::new(*seed));
        let driver = Driver::start(runtime, machine, Desk::new(secret, source));
        driver.told();
        // From here on dropping the handle closes the connection.
        let handle = ClientHandle::new(driver, away);
        handle.driver.issue(Command::Connect);
        let state = poll_fn(|cx| handle.driver.sink().poll_state(cx, false)).await;
        match state {
            State::Ready(welcome) => Ok(Client { handle, welcome }),
            State::Closed(reason) => Err(refused(reason, url, &handle)),
            // `poll_state` waits for more.
            State::Connecting | State::Lost(..) | State::Restoring(..) => Err(ConnectError::Closed(CloseReason::Lost)),
        }
    }
}

fn refused(reason: CloseReason, url: String, handle: &ClientHandle) -> ConnectError {
    if let CloseReason::Unreachable(how) = reason {
        let error = handle.driver.sink().take_dial_error();
        let detail = error.map_or_else(|| format!("{how:?}"), |error| error.to_string());
        ConnectError::Unreachable { url, detail, how }
    } else if let CloseReason::Refused(refusal) | CloseReason::Goodbye(refusal) = reason {
        ConnectError::Refused(refusal)
    } else if let CloseReason::Violation(violation) = reason {
        ConnectError::Violation(violation)
    } else {
        ConnectError::Closed(reason)
    }
}

impl IntoFuture for ClientBuilder {
    type Output = Result<Client, ConnectError>;
    type IntoFuture = Connecting;

    fn into_future(self) -> Connecting {
        Connecting(Box::pin(self.connect()))
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A client that is connecting. Dropped midway, the connection is closed again.
#[must_use = "a client connects only while this is polled"]
pub struct Connecting(BoxFuture<'static, Result<Client, ConnectError>>);

impl Future for Connecting {
    type Output = Result<Client, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connecting(..)")
    }
}
