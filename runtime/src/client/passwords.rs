//! Passwords of channels, and what was derived of them.

use std::collections::HashMap;
use std::mem;
use std::sync::Mutex;

use commipc_protocol::ChannelName;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::ChannelSalt;

use super::life::Derived;
use crate::sync::lock;

/// What this client knows of each channel's password.
#[derive(Default)]
pub(super) struct Passwords(Mutex<HashMap<ChannelName, Known>>);

#[derive(Default)]
struct Known {
    current: Option<Password>,
    /// Given to the channel as its owner, perhaps: nobody has said yet whether they were taken.
    attempts: Vec<Derived>,
}

enum Password {
    Given(Secret),
    Derived(Derived),
}

/// As many as the machine remembers.
const ATTEMPTS: usize = 4;

impl Passwords {
    /// Keeps what a channel is to be opened with; what was derived of the same stays. Tells whether it did: not if the channel
    /// is `open` with another password, which was proved, and is what the channel comes back with.
    pub(super) fn give(&self, name: &ChannelName, secret: Secret, open: bool) -> bool {
        let mut all = lock(&self.0);
        let known = all.entry(name.clone()).or_default();
        match &known.current {
            Some(Password::Derived(derived)) if derived.secret.same(&secret) => true,
            Some(Password::Derived(_)) if open => false,
            Some(_) | None => {
                known.current = Some(Password::Given(secret));
                true
            }
        }
    }

    /// What a channel is opened with.
    pub(super) fn secret(&self, name: &ChannelName) -> Option<Secret> {
        lock(&self.0).get(name)?.current.as_ref().map(|password| match password {
            Password::Given(secret) | Password::Derived(Derived { secret, .. }) => secret.clone(),
        })
    }

    /// Looks at what was derived for a channel last.
    pub(super) fn derived<T>(&self, name: &ChannelName, look: impl FnOnce(&Derived) -> T) -> Option<T> {
        match &lock(&self.0).get(name)?.current {
            Some(Password::Derived(derived)) => Some(look(derived)),
            Some(Password::Given(_)) | None => None,
        }
    }

    pub(super) fn remember(&self, name: &ChannelName, derived: Derived) {
        lock(&self.0).entry(name.clone()).or_default().current = Some(Password::Derived(derived));
    }

    /// What a channel is being protected with.
    pub(super) fn attempt(&self, name: &ChannelName, derived: Derived) {
        let mut all = lock(&self.0);
        let attempts = &mut all.entry(name.clone()).or_default().attempts;
        attempts.drain(..attempts.len().saturating_sub(ATTEMPTS - 1));
        attempts.push(derived);
    }

    /// A channel is protected with something that was attempted, or with nothing any more.
    pub(super) fn changed(&self, name: &ChannelName, salt: Option<ChannelSalt>) {
        let mut all = lock(&self.0);
        let Some(known) = all.get_mut(name) else { return };
        let attempt = mem::take(&mut known.attempts).into_iter().find(|it| Some(it.salt) == salt);
        match (salt, attempt) {
            (Some(_), Some(derived)) => known.current = Some(Password::Derived(derived)),
            // Of more attempts than are remembered, an early one: what is known does not open it.
            (Some(_) | None, _) => {
                all.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commipc_protocol::auth::{ChannelMaster, Kdf};

    fn derived(number: u8) -> Derived {
        let salt = ChannelSalt { kdf: Kdf::Key, salt: [number; 16], iterations: 0 };
        let secret = Secret::key([number; 32]);
        let master = ChannelMaster::new(&secret.derive(&salt.salt, 0).unwrap()).unwrap();
        Derived { secret, salt, master }
    }

    #[test]
    fn s23_the_attempt_that_came_into_force_is_the_password() {
        let (passwords, name) = (Passwords::default(), ChannelName::new("ch").unwrap());
        passwords.remember(&name, derived(1));
        (2..6).for_each(|number| passwords.attempt(&name, derived(number)));
        passwords.changed(&name, Some(derived(3).salt));
        assert!(passwords.secret(&name).unwrap().same(&Secret::key([3; 32])));
        assert!(!passwords.give(&name, Secret::key([4; 32]), true), "it is open with another one");
        passwords.attempt(&name, derived(7));
        passwords.changed(&name, None);
        assert!(passwords.secret(&name).is_none());
    }
}
