//! Those who may end channels that are others': every hub of a world knows a credential for them.

use commipc_protocol::CredentialId;
use commipc_protocol::auth::{Capabilities, Credential, Credentials, IdPattern, Secret, Verifier};

use crate::world::World;

/// What admins prove, by what everybody else at their hub does.
fn key(shared: [u8; 32]) -> [u8; 32] {
    shared.map(|byte| byte ^ 0x5a)
}

pub(crate) fn credential() -> CredentialId {
    CredentialId::new("admin").unwrap_or_else(|error| unreachable!("a constant: {error}"))
}

/// The table of a hub, and in it what admins prove.
pub(crate) fn with(table: Credentials, shared: [u8; 32]) -> Credentials {
    match Verifier::new(&Secret::key(key(shared)), [8; 16], 0) {
        Ok(verifier) => {
            let admin = Credential::new(verifier, Capabilities::ADMIN, vec![IdPattern::any()]);
            table.with(credential(), admin)
        }
        Err(_) => table,
    }
}

impl World {
    /// The client added next says that it is an admin, who may end channels that are others', with a secret that is right or not.
    #[must_use]
    pub fn admin(mut self, honest: bool) -> Self {
        let key = key(self.shared_secret());
        self.login = Some((credential(), if honest { key } else { key.map(|byte| !byte) }));
        self
    }
}
