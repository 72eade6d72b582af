//! Opening a channel, with or without a password, and what its owner may do.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use commipc_protocol::auth::{ChannelMaster, DEFAULT_ITERATIONS, Kdf, OwnerKey, Secret};
use commipc_protocol::client::{Access, ChannelSalt, Command, Failure};
use commipc_protocol::{ChannelName, ClientId, NameError, OwnerPolicy};

use super::ClientHandle;
use super::channel::{Channel, ask};
use super::life::{Derived, Life};
use super::tickets::Undo;
use crate::error::{OpenError, ProtectError};
use crate::runtime::{BoxFuture, random};
use crate::sync::blocking;

/// A channel that is not open yet: await it.
#[must_use = "nothing is opened before this is awaited"]
pub struct Opening {
    client: Arc<ClientHandle>,
    name: Result<ChannelName, NameError>,
    secret: Option<Secret>,
    policy: Option<OwnerPolicy>,
    plain: bool,
    key: Option<OwnerKey>,
}

impl Opening {
    pub(super) fn new(client: Arc<ClientHandle>, name: Result<ChannelName, NameError>) -> Self {
        Self { client, name, secret: None, policy: None, plain: false, key: None }
    }

    /// The channel's password. A channel without one is refused then, and opening leaves no trace there.
    ///
    /// The hub never hears it: hub and client prove to each other what they know of it, and every message is signed.
    pub fn password(self, password: impl AsRef<[u8]>) -> Self {
        self.secret(Secret::password(password))
    }

    /// The channel's password or key, as [`Opening::password`].
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// What becomes of the channel when we go, if we are its first member and so its owner. The hub's choice when absent.
    pub const fn on_owner_leave(mut self, policy: OwnerPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// To own the channel by the key of whoever made it, from [`Channel::owner_key`]: also after that process has ended, and
    /// also where the channel lives at another hub, from which bridges lead here. With its password, which is asked of
    /// everybody.
    ///
    /// ```no_run
    /// # use commipc_runtime::{Client, OwnerKey};
    /// # async fn rotate(client: Client, text: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let key = OwnerKey::parse(text.as_bytes())?; // written by `OwnerKey::to_text`, to a file that only its owner can read
    /// let vault = client.open("vault").password("as it is").owner_key(key).await?;
    /// vault.protect("from now on").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn owner_key(mut self, key: OwnerKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Not to own the channel, though we may be the first to open it: for who comes and goes. If nobody owns it, nobody's
    /// going ends it.
    pub const fn as_member(mut self) -> Self {
        self.plain = true;
        self
    }

    async fn open(self) -> Result<Channel, OpenError> {
        let Self { client, name, secret, policy, plain, key } = self;
        let name = name?;
        if let Some(key) = key {
            if *key.channel() != name {
                return Err(OpenError::ForeignKey(key.channel().clone()));
            }
            client.driver.issue(Command::SetOwnerKey(key));
        }
        let access = Access { secret: secret.as_ref().map(Secret::kdf), policy, plain };
        // On the hub's own channels nobody signs: their password only opens them.
        let guarded = secret.is_some() && !name.as_name().is_reserved();
        let desk = client.driver.sink();
        if let Some(secret) = secret {
            desk.give_secret(&name, secret)?;
        }
        let life = desk.life(&name);
        let undo = Undo::Leave(name.clone());
        let channel = name.clone();
        ask(&client.driver, None, undo, |token| Command::Open { token, channel, access }).await?;
        if guarded {
            life.set_guarded(true);
        }
        Ok(Channel::new(client, name, life))
    }
}

impl IntoFuture for Opening {
    type Output = Result<Channel, OpenError>;
    type IntoFuture = PendingOpen;

    fn into_future(self) -> PendingOpen {
        PendingOpen(Box::pin(self.open()))
    }
}

/// A channel that is being opened. Dropped midway, it is left again.
#[must_use = "a channel is opened only while this is polled"]
pub struct PendingOpen(BoxFuture<'static, Result<Channel, OpenError>>);

impl Future for PendingOpen {
    type Output = Result<Channel, OpenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for PendingOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingOpen(..)")
    }
}

/// What the owner of a channel may do: whoever opened it first, or has the key of who did.
///
/// An owner at another hub than its channel's does the same. It has to be reached for that, over bridges; what is changed
/// there is in force at every hub. A new password leaves the owner a member, also at another hub; with
/// [`Channel::unprotect`] there is no channel of that hub any more that could be reached from another, and every membership
/// ends.
impl Channel {
    /// The key by which this client owns the channel, if it does: for another process that is to own it too, here or at
    /// another hub ([`Opening::owner_key`]). It owns the channel for as long as that has this owner, so that it is to be kept
    /// as secret as the channel's password, and longer.
    ///
    /// ```no_run
    /// # use commipc_runtime::Client;
    /// # async fn keep(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let vault = client.open("vault").await?;
    /// vault.protect("a long password").await?;
    /// let text = vault.owner_key().ok_or("somebody else owns it")?.to_text(); // for a file that only its owner can read
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn owner_key(&self) -> Option<OwnerKey> {
        self.driver().with_machine(|client| client.owner_key(self.name()))
    }

    /// Gives the channel a new password. Everybody else stops being a member, and everything they provide, call and listen
    /// to there ends; with the new password they can open it again. From now on every message is signed.
    ///
    /// # Errors
    /// When this client does not own the channel, the password is the one it has, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, the password may have changed or not, as after a deadline or with a lost connection. If it has, this
    /// client is a member by it all the same; doing it again is safe.
    pub async fn protect(&self, password: impl AsRef<[u8]>) -> Result<(), ProtectError> {
        self.protect_with(Secret::password(password)).await
    }

    /// As [`Channel::protect`], with a password or a key.
    ///
    /// # Errors
    /// As [`Channel::protect`].
    ///
    /// # Cancel safety
    /// As [`Channel::protect`].
    pub async fn protect_with(&self, secret: Secret) -> Result<(), ProtectError> {
        let (driver, name) = (self.driver(), self.name().clone());
        if driver.sink().passwords().derived(&name, |derived| derived.secret.same(&secret)) == Some(true) {
            return Err(ProtectError::Reused(name));
        }
        let random = random(&**driver.runtime()).map_err(|error| ProtectError::System(error.to_string()))?;
        let mut salt = [0; 16];
        salt.copy_from_slice(&random[..16]);
        let iterations = if secret.kdf() == Kdf::Pbkdf2 { DEFAULT_ITERATIONS } else { 0 };
        let salt = ChannelSalt { kdf: secret.kdf(), salt, iterations };
        let copy = secret.clone();
        let master = blocking(&**driver.runtime(), move || derive(&copy, salt)).await;
        let master = master.ok_or_else(|| ProtectError::System("the runtime is shutting down".to_owned()))??;
        // It is what the channel comes back with, whenever and however it turns out to be in force.
        driver.sink().passwords().attempt(&name, Derived { secret, salt, master: master.clone() });
        ask(driver, None, Undo::Nothing, |token| Command::Protect { token, channel: name, salt, master }).await?;
        Ok(())
    }

    /// Takes the channel's password away. Everybody else stops being a member, and can open it without one.
    ///
    /// # Errors
    /// When this client does not own the channel, it has no password, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, the password may be gone or not; doing it again is safe, and refused as
    /// [`NotProtected`](commipc_protocol::Refusal::NotProtected) if it is.
    pub async fn unprotect(&self) -> Result<(), ProtectError> {
        let channel = self.name().clone();
        ask(self.driver(), None, Undo::Nothing, |token| Command::Unprotect { token, channel }).await?;
        Ok(())
    }

    /// Ends the channel for all its members, this client included.
    ///
    /// # Errors
    /// When this client does not own the channel, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, the channel may have ended or not.
    pub async fn terminate(&self) -> Result<(), ProtectError> {
        let channel = self.name().clone();
        ask(self.driver(), None, Undo::Nothing, |token| Command::Terminate { token, channel }).await?;
        Ok(())
    }

    /// Why the hub has ended this membership, if it has: the owner went, or there is a new password. A handle that is
    /// closed stays so; open the channel again.
    #[must_use]
    pub fn ended(&self) -> Option<Failure> {
        self.life().ended()
    }

    /// Waits until the hub ends this membership, or the connection is gone.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    pub async fn closed(&self) -> Failure {
        self.life().closed().await
    }

    /// Waits until the channel has another owner, or, for the moment, none. The hub alone tells so.
    ///
    /// # Errors
    /// When the membership ends.
    ///
    /// # Cancel safety
    /// Changes between two calls are not seen by the second.
    pub async fn owner_changed(&self) -> Result<Option<ClientId>, Failure> {
        self.life().owner_changed().await
    }
}

/// Derives a channel's keys; slow for passwords.
pub(super) fn derive(secret: &Secret, salt: ChannelSalt) -> Result<ChannelMaster, commipc_protocol::auth::SecretError> {
    ChannelMaster::new(&secret.derive(&salt.salt, salt.iterations)?)
}

impl super::desk::Desk {
    /// The life of a channel's opening: the one that goes on, or a new one.
    pub(super) fn life(&self, name: &ChannelName) -> Arc<Life> {
        let mut lives = crate::sync::lock(self.lives());
        if let Some(life) = lives.get(name).and_then(Weak::upgrade) {
            return life;
        }
        lives.retain(|_, life| life.strong_count() > 0);
        let life = Arc::default();
        lives.insert(name.clone(), Arc::downgrade(&life));
        life
    }
}
