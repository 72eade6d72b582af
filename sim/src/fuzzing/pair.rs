//! A hub and a client in memory, without delay and without a world around them: what is recorded of them is bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use commipc_protocol::auth::{Credential, Credentials, Secret, Verifier};
use commipc_protocol::client::{
    Access, Away, Client, ClientConfig, Command, Event, EventKind, Outgoing, Payload, Token,
};
use commipc_protocol::hub::{self, Hub, HubConfig};
use commipc_protocol::{
    ChannelName, ClientId, CredentialId, EventName, HubId, Input, Instant, Limits, LinkId, Machine, Now, Output,
    OwnerPolicy, Peer, Seed, Transport, UnixMillis,
};
use core::time::Duration;

/// The moment at which everything happens.
pub(super) const NOW: Now = Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) };
const KEY: [u8; 32] = [7; 32];
/// Whoever has this seed is the one whose words were recorded.
pub(super) const RECORDED: u8 = 1;
/// One whom recorded proofs do not fit.
pub(super) const ANOTHER: u8 = 2;

pub(super) fn hub(seed: u8) -> Hub {
    let secret = Secret::key(KEY);
    let none = Credentials::new([9; 32]);
    let credentials = match Verifier::new(&secret, [3; 16], 0) {
        Ok(verifier) => none.with(CredentialId::shared(), Credential::shared(verifier)),
        Err(_) => none,
    };
    let config = HubConfig {
        id: HubId::new("h").ok(),
        credentials,
        limits: Limits::default(),
        owner_policy: OwnerPolicy::default(),
    };
    Hub::new(config, &Seed::new([seed; 32]))
}

pub(super) fn client(seed: u8) -> Client {
    let config = ClientConfig {
        hub: Arc::from("memory:h"),
        id: ClientId::new("c").ok(),
        credential: CredentialId::shared(),
        secret: Secret::key(KEY),
        limits: Limits::default(),
        reconnect: None,
    };
    // Not the hub's: it would say what the client says.
    Client::new(config, &Seed::new([!seed; 32]))
}

/// A hub's end of its first connection.
pub(super) fn accepted(hub: &mut Hub) -> LinkId {
    let link = LinkId::accepted(0, 1);
    hub.handle_input(NOW, Input::Accepted { link, peer: Peer::unknown(Transport::Memory) });
    link
}

/// A client's end of its first connection.
pub(super) fn dialled(client: &mut Client) -> LinkId {
    client.handle_input(NOW, Input::Command(Command::Connect));
    let mut link = LinkId::dialled(0, 1);
    while let Some(output) = client.poll_output() {
        if let Output::Dial { link: dials, .. } = output {
            link = dials;
        }
    }
    client.handle_input(NOW, Input::Dialled { link, peer: Peer::unknown(Transport::Memory) });
    link
}

/// What one conversation consists of: the client's bytes and the hub's.
pub(super) fn conversation() -> (Vec<u8>, Vec<u8>) {
    let (mut hub, mut client) = (hub(RECORDED), client(RECORDED));
    let ends = (accepted(&mut hub), dialled(&mut client));
    let mut said = (Vec::new(), Vec::new());
    let mut requests = VecDeque::new();
    settle(&mut hub, &mut client, ends, &mut said, &mut requests);
    for command in script() {
        client.handle_input(NOW, Input::Command(command));
        settle(&mut hub, &mut client, ends, &mut said, &mut requests);
        while let Some(request) = requests.pop_front() {
            let result = Ok(Payload { bytes: Bytes::from_static(b"answer"), raw: true });
            client.handle_input(NOW, Input::Command(Command::Answer { request, result }));
            settle(&mut hub, &mut client, ends, &mut said, &mut requests);
        }
    }
    said
}

fn settle(
    hub: &mut Hub,
    client: &mut Client,
    (at_hub, at_client): (LinkId, LinkId),
    said: &mut (Vec<u8>, Vec<u8>),
    requests: &mut VecDeque<commipc_protocol::client::RequestId>,
) {
    loop {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while let Some(output) = client.poll_output() {
            match output {
                Output::Transmit { data, .. } => up.extend_from_slice(&data),
                Output::Event(Event::Request(request)) => requests.push_back(request.id),
                Output::Event(_) | Output::Dial { .. } | Output::Close { .. } => {}
            }
        }
        written(client, at_client, up.len());
        if !up.is_empty() {
            hub.handle_input(NOW, Input::Received { link: at_hub, data: Bytes::copy_from_slice(&up) });
        }
        while let Some(output) = hub.poll_output() {
            if let Output::Transmit { data, .. } = output {
                down.extend_from_slice(&data);
            }
        }
        written(hub, at_hub, down.len());
        if !down.is_empty() {
            client.handle_input(NOW, Input::Received { link: at_client, data: Bytes::copy_from_slice(&down) });
        }
        said.0.extend_from_slice(&up);
        said.1.extend_from_slice(&down);
        if up.is_empty() && down.is_empty() {
            return;
        }
    }
}

fn written<M: Machine>(machine: &mut M, link: LinkId, bytes: usize) {
    if bytes > 0 {
        machine.handle_input(NOW, Input::Written { link, bytes });
    }
}

fn script() -> Vec<Command> {
    let (Ok(channel), Ok(event)) = (ChannelName::new("a"), EventName::new("x")) else { return Vec::new() };
    let outgoing = |text: &'static [u8]| Outgoing {
        channel: channel.clone(),
        event: event.clone(),
        payload: Payload { bytes: Bytes::from_static(text), raw: true },
        metadata: Bytes::new(),
        idempotent: false,
        guarded: false,
        away: Away::Fail,
    };
    let time_left = Duration::from_secs(2);
    vec![
        Command::Open { token: Token(1), channel: channel.clone(), access: Access::default() },
        Command::Provide { token: Token(2), channel: channel.clone(), event: event.clone(), kind: EventKind::Call },
        Command::Listen { token: Token(3), channel: channel.clone(), event: None },
        Command::Call { token: Token(4), outgoing: outgoing(b"15 25"), time_left },
        Command::Broadcast { token: Token(5), outgoing: outgoing(b"news") },
        Command::Send { token: Token(6), outgoing: outgoing(b"sent") },
        Command::Unlisten { token: Token(7), listener: Token(3) },
        Command::Withdraw { token: Token(8), provider: Token(2) },
        Command::Leave { token: Token(9), channel: channel.clone() },
        Command::Close,
    ]
}

/// What a machine says to these pieces when all are read: its bytes, and everything else as it prints itself.
pub(super) fn fed<M: Machine>(machine: &mut M, link: LinkId, pieces: &[&[u8]]) -> (Vec<u8>, Vec<String>)
where
    M::Event: std::fmt::Debug,
{
    let (mut bytes, mut told) = (Vec::new(), Vec::new());
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        machine.handle_input(NOW, Input::Received { link, data: Bytes::copy_from_slice(piece) });
    }
    while let Some(output) = machine.poll_output() {
        match output {
            Output::Transmit { data, .. } => bytes.extend_from_slice(&data),
            Output::Close { .. } => told.push("close".to_owned()),
            Output::Dial { .. } => told.push("dial".to_owned()),
            Output::Event(event) => told.push(format!("{event:?}")),
        }
    }
    (bytes, told)
}

pub(super) const fn is_connected(event: &hub::Event) -> bool {
    matches!(event, hub::Event::Connected { .. })
}
