//! The hub machine.
mod api;
use crate::{Deadline, Input, Machine, Now, Output, Seed};
pub use api::*;

/// The coordinator all clients connect to.
#[derive(Debug)]
pub struct Hub {
    _config: HubConfig,
}

impl Hub {
    /// A hub without links.
    #[must_use]
    pub fn new(config: HubConfig, _seed: &Seed) -> Self {
        Self { _config: config }
    }
}

impl Machine for Hub {
    type Command = Command;
    type Event = Event;
    fn handle_input(&mut self, _now: Now, _input: Input<Command>) {}
    fn poll_output(&mut self) -> Option<Output<Event>> {
        None
    }
    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }
}
