//! Hubs that cannot be reached for a while, or are replaced by others.

use std::sync::Arc;
use std::time::Duration;

use commipc_protocol::client::{Event, ReconnectEvent};
use commipc_protocol::hub::Hub;
use commipc_protocol::{Input, LinkEnd, Machine as _, Output};

use super::World;

/// Connections that are away.
impl World {
    /// The hub can be reached again.
    pub fn release_dials(&mut self) {
        self.hold_dials = false;
        for (client, link) in std::mem::take(&mut self.held_dials) {
            self.client_output(client, Output::Dial { link, to: Arc::from("memory:") });
        }
        self.run();
    }

    /// A client's process dies.
    pub fn dies(&mut self, client: usize) {
        self.dead = Some(client);
        self.cut(client);
        self.events[client].clear();
    }

    /// Whoever had stopped reading reads everything.
    pub fn release_stalled(&mut self) {
        self.stalled = None;
        for (link, data) in std::mem::take(&mut self.held_back) {
            self.hub_output(Output::Transmit { link, data });
        }
        self.run();
    }

    /// A stalled client's driver reads once. Tells whether there was anything.
    pub fn read_once(&mut self) -> bool {
        if self.held_back.is_empty() {
            return false;
        }
        let (link, data) = self.held_back.remove(0);
        let stalled = self.stalled.take();
        self.hub_output(Output::Transmit { link, data });
        self.stalled = stalled;
        self.run();
        true
    }

    /// Nobody listens at the hub's address.
    pub fn refuse_dials(&mut self) {
        for (client, link) in std::mem::take(&mut self.held_dials) {
            self.clients[client].handle_input(self.now, Input::Closed { link, how: LinkEnd::Refused });
        }
        self.run();
    }

    /// The hub's process dies, and another takes its place.
    pub fn replace_hub(&mut self, hub: Hub) {
        self.hub = hub;
        self.kept.clear();
        for client in 0..self.clients.len() {
            self.links[client] = None;
            if let Some(link) = self.dialled[client].take() {
                self.clients[client].handle_input(self.now, Input::Closed { link, how: LinkEnd::Reset });
            }
        }
        self.run();
    }

    /// Lets time pass in small steps until a client is as it was, and forgets what it was told meanwhile.
    pub fn restored(&mut self, client: usize) -> Vec<Event> {
        let mut told = Vec::new();
        for _ in 0..10_000 {
            while let Some(event) = self.events[client].pop_front() {
                let over = matches!(event, Event::Reconnect(ReconnectEvent::Restored { .. }));
                told.push(event);
                if over {
                    return told;
                }
            }
            self.pass(Duration::from_millis(50));
        }
        panic!("client {client} is not restored: {told:?}");
    }
}
