//! The client machine.
mod api;
use crate::{Deadline, Input, Machine, Now, Output, Seed};
pub use api::*;

/// One client of one hub.
#[derive(Debug)]
pub struct Client {
    _config: ClientConfig,
}

impl Client {
    /// A client that has not dialled yet.
    #[must_use]
    pub fn new(config: ClientConfig, _seed: &Seed) -> Self {
        Self { _config: config }
    }
}

impl Machine for Client {
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
