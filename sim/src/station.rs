//! Client, hub and bridge as one kind of machine, so that one engine drives a world of all.

use bytes::Bytes;
use commipc_protocol::bridge::{self, Bridge};
use commipc_protocol::client::{self, Client};
use commipc_protocol::hub::{self, Hub};
use commipc_protocol::{ClientId, Deadline, Input, Machine, Now, Output};

use crate::mallory::{Mallory, Order};
use crate::rogue::Rogue;

/// A product machine.
#[derive(Debug)]
pub enum Station {
    /// A client.
    Client(Box<Client>),
    /// A hub.
    Hub(Box<Hub>),
    /// A bridge between two hubs.
    Bridge(Box<Bridge>),
    /// A hub that its clients should not trust.
    Mallory(Box<Mallory>),
    /// A client that nobody should trust.
    Rogue(Box<Rogue>),
}

/// What an application asks of a station. What is meant for the other kind has no effect.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Of a client.
    Client(client::Command),
    /// Of a hub.
    Hub(hub::Command),
    /// Of a bridge.
    Bridge(bridge::Command),
    /// Of a malicious hub, or of a client that nobody should trust.
    Malice(Order),
}

/// A message that a malicious hub keeps from somebody for good: who said it and what, which is as good as unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withheld {
    pub(crate) sender: ClientId,
    pub(crate) payload: Bytes,
}

/// What a station tells.
#[derive(Debug)]
pub enum Told {
    /// By a client.
    Client(client::Event),
    /// By a hub.
    Hub(hub::Event),
    /// By a bridge.
    Bridge(bridge::Event),
    /// By a malicious hub, whose word about itself is taken.
    Withheld {
        /// Whom it keeps it from.
        from: ClientId,
        /// What.
        what: Withheld,
    },
}

impl Station {
    pub(crate) fn client(client: Client) -> Self {
        Self::Client(Box::new(client))
    }

    pub(crate) fn rogue(client: Client) -> Self {
        Self::Rogue(Box::new(Rogue::new(client)))
    }

    fn obey(&mut self, order: Order) {
        match self {
            Self::Mallory(mallory) => mallory.obey(order),
            Self::Rogue(rogue) => rogue.obey(order),
            Self::Client(_) | Self::Hub(_) | Self::Bridge(_) => {}
        }
    }
}

impl Machine for Station {
    type Command = Asked;
    type Event = Told;

    fn handle_input(&mut self, now: Now, input: Input<Asked>) {
        if let Input::Command(Asked::Malice(order)) = &input {
            return self.obey(order.clone());
        }
        match self {
            Self::Client(client) => feed(client.as_mut(), now, input, of_client),
            Self::Hub(hub) => feed(hub.as_mut(), now, input, of_hub),
            Self::Bridge(bridge) => feed(bridge.as_mut(), now, input, of_bridge),
            Self::Mallory(mallory) => feed(mallory.as_mut(), now, input, of_hub),
            Self::Rogue(rogue) => feed(rogue.as_mut(), now, input, of_client),
        }
    }

    fn poll_output(&mut self) -> Option<Output<Told>> {
        match self {
            Self::Client(client) => client.poll_output().map(|output| told(output, Told::Client)),
            Self::Hub(hub) => hub.poll_output().map(|output| told(output, Told::Hub)),
            Self::Bridge(bridge) => bridge.poll_output().map(|output| told(output, Told::Bridge)),
            Self::Mallory(mallory) => mallory.poll_output(),
            Self::Rogue(rogue) => rogue.poll_output().map(|output| told(output, Told::Client)),
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        match self {
            Self::Client(client) => client.poll_timeout(),
            Self::Hub(hub) => hub.poll_timeout(),
            Self::Bridge(bridge) => bridge.poll_timeout(),
            Self::Mallory(mallory) => mallory.poll_timeout(),
            Self::Rogue(rogue) => rogue.poll_timeout(),
        }
    }
}

fn of_client(asked: Asked) -> Option<client::Command> {
    match asked {
        Asked::Client(command) => Some(command),
        Asked::Hub(_) | Asked::Bridge(_) | Asked::Malice(_) => None,
    }
}

fn of_hub(asked: Asked) -> Option<hub::Command> {
    match asked {
        Asked::Hub(command) => Some(command),
        Asked::Client(_) | Asked::Bridge(_) | Asked::Malice(_) => None,
    }
}

fn of_bridge(asked: Asked) -> Option<bridge::Command> {
    match asked {
        Asked::Bridge(command) => Some(command),
        Asked::Client(_) | Asked::Hub(_) | Asked::Malice(_) => None,
    }
}

fn feed<M: Machine>(machine: &mut M, now: Now, input: Input<Asked>, meant: fn(Asked) -> Option<M::Command>) {
    let input = match input {
        Input::Accepted { link, peer } => Input::Accepted { link, peer },
        Input::Dialled { link, peer } => Input::Dialled { link, peer },
        Input::Received { link, data } => Input::Received { link, data },
        Input::Written { link, bytes } => Input::Written { link, bytes },
        Input::Closed { link, how } => Input::Closed { link, how },
        Input::Shortage => Input::Shortage,
        Input::Timeout => Input::Timeout,
        Input::Command(asked) => match meant(asked) {
            Some(command) => Input::Command(command),
            None => return,
        },
    };
    machine.handle_input(now, input);
}

fn told<E>(output: Output<E>, wrap: fn(E) -> Told) -> Output<Told> {
    match output {
        Output::Transmit { link, data } => Output::Transmit { link, data },
        Output::Dial { link, to } => Output::Dial { link, to },
        Output::Close { link, flush } => Output::Close { link, flush },
        Output::Event(event) => Output::Event(wrap(event)),
    }
}
