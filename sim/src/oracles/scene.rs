//! Fabricated sights, for the tests in which oracles bite.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::auth::Capabilities;
use commipc_protocol::client::{Command, Event, Incoming, Message, Outgoing, Payload, Source, Token, Welcome};
use commipc_protocol::{
    Address, ChannelName, ClientId, EventName, HubId, Input, Instant, LinkId, Output, OwnerPolicy, UnixMillis, hub,
};

use super::{Oracle, Resident, Seen, Verdict};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Shows sights to one oracle. Node 0 is the hub `h`; node `n` is the client `cn`.
pub(crate) struct Scene<O>(pub(crate) O);

pub(crate) const HUB: u32 = 0;

impl<O: Oracle> Scene<O> {
    pub(crate) fn new(mut oracle: O) -> Self {
        (0..4).for_each(|node| oracle.joined(NodeId::new(node), &resident(node)));
        Self(oracle)
    }

    pub(crate) fn sees(&mut self, node: u32, sight: &Seen<'_>) -> Verdict {
        self.0.saw(Instant::ZERO, NodeId::new(node), sight)
    }

    pub(crate) fn fed(&mut self, node: u32, input: Input<Asked>) -> Verdict {
        self.sees(node, &Sight::Fed(&input))
    }

    pub(crate) fn asks(&mut self, node: u32, command: Command) -> Verdict {
        self.fed(node, Input::Command(Asked::Client(command)))
    }

    pub(crate) fn gives(&mut self, node: u32, output: Output<Told>) -> Verdict {
        self.sees(node, &Sight::Gave(&output))
    }

    pub(crate) fn tells(&mut self, node: u32, event: Event) -> Verdict {
        self.gives(node, Output::Event(Told::Client(event)))
    }

    pub(crate) fn hub_tells(&mut self, event: hub::Event) -> Verdict {
        self.gives(HUB, Output::Event(Told::Hub(event)))
    }

    pub(crate) fn drained(&mut self, node: u32) -> Verdict {
        self.sees(node, &Sight::Drained)
    }

    /// Node `n` is connected: linked, accepted and told so.
    pub(crate) fn connects(&mut self, node: u32) -> Verdict {
        self.links(node)?;
        self.hub_tells(connected(node))?;
        self.tells(node, Event::Ready(welcome(node)))
    }

    pub(crate) fn links(&mut self, node: u32) -> Verdict {
        let link = LinkId::dialled(0, 1);
        self.sees(node, &Sight::Linked { link, with: NodeId::new(HUB), as_link: hub_link(node) })
    }
}

/// Node 2 is an admin, and node 3 knows no secret.
pub(crate) fn resident(node: u32) -> Resident {
    let policy = (node == HUB).then(OwnerPolicy::default);
    Resident { id: (node != HUB).then(|| id(node)), honest: node < 3, admin: node == 2, policy, limits: None }
}

pub(crate) fn hub_link(node: u32) -> LinkId {
    LinkId::accepted(node, 1)
}

pub(crate) fn connected(node: u32) -> hub::Event {
    let credential = commipc_protocol::CredentialId::shared();
    hub::Event::Connected { link: hub_link(node), client: id(node), credential }
}

pub(crate) fn welcome(node: u32) -> Welcome {
    Welcome {
        hub: hub_id(),
        client: id(node),
        session: 1,
        capabilities: Capabilities::NONE,
        frame: 1 << 20,
        insecure: false,
    }
}

pub(crate) fn id(node: u32) -> ClientId {
    ClientId::new(&format!("c{node}")).unwrap()
}

fn hub_id() -> HubId {
    HubId::new("h").unwrap()
}

pub(crate) fn address(node: u32) -> Address {
    Address { client: id(node), hub: hub_id() }
}

pub(crate) fn channel() -> ChannelName {
    ChannelName::new("ch").unwrap()
}

pub(crate) fn event() -> EventName {
    EventName::new("ev").unwrap()
}

pub(crate) fn payload(text: &'static str) -> Payload {
    Payload { bytes: Bytes::from_static(text.as_bytes()), raw: true }
}

pub(crate) fn outgoing(text: &'static str) -> Outgoing {
    let payload = payload(text);
    Outgoing {
        channel: channel(),
        event: event(),
        payload,
        metadata: Bytes::new(),
        idempotent: false,
        guarded: false,
        away: commipc_protocol::client::Away::Fail,
    }
}

pub(crate) fn incoming(from: u32, text: &'static str) -> Incoming {
    Incoming {
        source: Arc::new(Source { channel: channel(), event: event(), sender: address(from), path: Vec::new() }),
        payload: payload(text),
        metadata: Bytes::new(),
        sent_at: UnixMillis(0),
        hops: 1,
    }
}

pub(crate) fn call(token: u64, text: &'static str) -> Command {
    Command::Call { token: Token(token), outgoing: outgoing(text), time_left: Duration::from_secs(1) }
}

pub(crate) fn broadcast(token: u64, text: &'static str) -> Command {
    Command::Broadcast { token: Token(token), outgoing: outgoing(text) }
}

pub(crate) fn message(to: u64, from: u32, text: &'static str, number: u64) -> Event {
    Event::Message(Message { to: Token(to), message: incoming(from, text), number })
}
