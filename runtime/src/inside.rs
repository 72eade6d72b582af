//! What a simulation sees of the hubs, clients and bridges that run in it, whoever holds their handles.

use commipc_protocol::bridge::{self, Bridge};
use commipc_protocol::client::{self, Client};
use commipc_protocol::hub::{self, Hub};

use crate::client::Desk;
use crate::driver::{Driver, Sink};

/// Something that runs on a runtime.
#[doc(hidden)]
pub trait Inside: Send + Sync {
    /// Ends its connections as if its last handle were dropped. Without effect on a hub, whose clients end theirs.
    fn close(&self);

    /// Whether handles are left, which may stand for something ([`STANDING`]).
    fn has_handles(&self) -> bool;

    /// How much it holds of what is under way, by kind. Once its connections are closed that must be nothing.
    fn held(&self) -> Vec<(&'static str, usize)>;
}

/// What is held for handles.
#[doc(hidden)]
pub const STANDING: &str = "standing tickets";

impl Inside for Driver<Client, Desk> {
    fn close(&self) {
        self.issue(client::Command::Close);
    }

    fn has_handles(&self) -> bool {
        self.sink().has_handles()
    }

    fn held(&self) -> Vec<(&'static str, usize)> {
        let load = self.look(Client::load);
        let client::Load {
            calls,
            serving,
            controls,
            sends,
            parked,
            parked_bytes,
            streams,
            windows,
            flowing,
            unwritten,
            deadlines,
        } = load;
        let machine = [
            ("calls", calls),
            ("requests", serving),
            ("controls", controls),
            ("sends", sends),
            ("streams", streams),
            ("parked", parked),
            ("parked bytes", parked_bytes),
            ("windows", windows),
            ("flowing", flowing),
            ("unwritten bytes", unwritten),
            ("deadlines", deadlines),
        ];
        machine.into_iter().chain(self.sink().held_here()).collect()
    }
}

impl<S: Sink<Hub>> Inside for Driver<Hub, S> {
    fn close(&self) {}

    fn has_handles(&self) -> bool {
        false
    }

    /// Channels, and with them memory, may outlive their members, and failed joins those who tried.
    fn held(&self) -> Vec<(&'static str, usize)> {
        let hub::Load {
            links,
            clients,
            channels: _,
            calls,
            routes,
            streams,
            deadlines,
            joins: _,
            bridged,
            errands,
            announced: _,
            buffered,
            memory: _,
        } = self.look(Hub::load);
        vec![
            ("links", links),
            ("clients", clients),
            ("calls", calls),
            ("routes", routes),
            ("streams", streams),
            ("deadlines", deadlines),
            ("calls over bridges", bridged),
            ("errands", errands),
            ("buffered bytes", buffered),
        ]
    }
}

impl<S: Sink<Bridge>> Inside for Driver<Bridge, S> {
    fn close(&self) {
        self.issue(bridge::Command::Close);
    }

    fn has_handles(&self) -> bool {
        false
    }

    /// Its hubs hold what goes over it.
    fn held(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }
}
