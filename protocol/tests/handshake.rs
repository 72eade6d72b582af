//! The handshake with somebody in between who changes what he likes.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

mod support;

use bytes::Bytes;
use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Client, Command, Event};
use commipc_protocol::hub::{self, Hub};
use commipc_protocol::wire::{Control as _, Proof};
use commipc_protocol::{
    CloseReason, Input, Instant, Limits, LinkId, Machine, Now, Output, Peer, Refusal, Transport, UnixMillis,
};
use support::{KEY, client, hub};

const NOW: Now = Now { mono: Instant::from_nanos(1), wall: UnixMillis(1_800_000_000_000) };
const ACCEPTED: LinkId = LinkId::accepted(0, 1);
const DIALLED: LinkId = LinkId::dialled(0, 1);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToHub,
    ToClient,
}

/// One hub, one client, and how many bytes went each way.
struct Between {
    hub: Hub,
    client: Client,
    passed: [usize; 2],
    /// The byte to be changed, and the bits of it.
    change: Option<(Way, usize, u8)>,
    client_is_ready: bool,
    hub_is_convinced: bool,
}

impl Between {
    /// Lets the two meet.
    fn met(transport: Transport, change: Option<(Way, usize, u8)>) -> Self {
        let (hub, client) = (hub(Limits::default()), client("me", Secret::key(KEY)));
        let mut between = Self { hub, client, passed: [0, 0], change, client_is_ready: false, hub_is_convinced: false };
        let peer = Peer::unknown(transport);
        between.client.handle_input(NOW, Input::Command(Command::Connect));
        between.hub.handle_input(NOW, Input::Accepted { link: ACCEPTED, peer: peer.clone() });
        between.client.handle_input(NOW, Input::Dialled { link: DIALLED, peer });
        while between.client_speaks() || between.hub_speaks() {}
        between
    }

    fn client_speaks(&mut self) -> bool {
        let Some(output) = self.client.poll_output() else { return false };
        match output {
            Output::Transmit { data, .. } => {
                let data = self.pass(Way::ToHub, &data);
                self.hub.handle_input(NOW, Input::Received { link: ACCEPTED, data });
            }
            Output::Event(event) => self.client_is_ready |= matches!(event, Event::Ready(_)),
            Output::Close { .. } | Output::Dial { .. } => {}
        }
        true
    }

    fn hub_speaks(&mut self) -> bool {
        let Some(output) = self.hub.poll_output() else { return false };
        match output {
            Output::Transmit { data, .. } => {
                let data = self.pass(Way::ToClient, &data);
                self.client.handle_input(NOW, Input::Received { link: DIALLED, data });
            }
            Output::Event(event) => self.hub_is_convinced |= matches!(event, hub::Event::Connected { .. }),
            Output::Close { .. } | Output::Dial { .. } => {}
        }
        true
    }

    fn pass(&mut self, way: Way, data: &[u8]) -> Bytes {
        let passed = &mut self.passed[way as usize];
        let mut data = data.to_vec();
        if let Some((changed, at, bits)) = self.change
            && changed == way
            && let Some(byte) = at.checked_sub(*passed).and_then(|at| data.get_mut(at))
        {
            *byte ^= bits;
        }
        *passed += data.len();
        Bytes::from(data)
    }
}

#[test]
fn s12_no_bit_of_the_handshake_can_be_changed() {
    // With record tags, and without them, where the proofs alone have to tell.
    for transport in [Transport::Tcp, Transport::Memory] {
        let whole = Between::met(transport, None);
        assert!(whole.client_is_ready && whole.hub_is_convinced);
        let [to_hub, to_client] = whole.passed;
        assert!(to_hub > 150 && to_client > 130, "{:?}", whole.passed);
        let changes = |way, length| (0..8 * length).map(move |bit| (way, bit / 8, 1 << (bit % 8)));
        for change in changes(Way::ToHub, to_hub).chain(changes(Way::ToClient, to_client)) {
            let met = Between::met(transport, Some(change));
            assert!(!met.client_is_ready, "the client was deceived: {transport:?} {change:?}");
            // The hub's last word comes after it was convinced, rightly.
            assert!(
                change.0 == Way::ToClient || !met.hub_is_convinced,
                "the hub was deceived: {transport:?} {change:?}"
            );
        }
    }
}

/// A hub with a password, and a client that was challenged and derives.
fn deriving() -> (Hub, Client) {
    let secret = Secret::password("correct horse");
    let config = hub::HubConfig {
        id: None,
        credentials: support::credentials(&secret),
        limits: Limits::default(),
        owner_policy: commipc_protocol::OwnerPolicy::default(),
    };
    let (mut hub, mut client) = (Hub::new(config, &commipc_protocol::Seed::new([1; 32])), client("me", secret));
    let peer = Peer::unknown(Transport::Memory);
    client.handle_input(NOW, Input::Command(Command::Connect));
    hub.handle_input(NOW, Input::Accepted { link: ACCEPTED, peer: peer.clone() });
    client.handle_input(NOW, Input::Dialled { link: DIALLED, peer });
    hand_over(&mut client, &mut hub);
    hand_back(&mut hub, &mut client);
    assert!(matches!(client.poll_output(), Some(Output::Event(Event::DeriveKey { .. }))));
    (hub, client)
}

fn hand_over(client: &mut Client, hub: &mut Hub) {
    while let Some(output) = client.poll_output() {
        let Output::Transmit { data, .. } = output else { continue };
        hub.handle_input(NOW, Input::Received { link: ACCEPTED, data });
    }
}

fn hand_back(hub: &mut Hub, client: &mut Client) {
    while let Some(output) = hub.poll_output() {
        let Output::Transmit { data, .. } = output else { continue };
        client.handle_input(NOW, Input::Received { link: DIALLED, data });
    }
}

#[test]
fn a_refusal_while_the_client_derives_is_a_refusal() {
    let (mut hub, mut client) = deriving();
    hub.handle_input(NOW, Input::Command(hub::Command::Shutdown));
    hand_back(&mut hub, &mut client);
    let outputs: Vec<_> = std::iter::from_fn(|| client.poll_output()).collect();
    let refused = CloseReason::Refused(Refusal::ShuttingDown);
    let told = |output: &Output<Event>| matches!(output, Output::Event(Event::Closed(why)) if *why == refused);
    assert!(outputs.iter().any(told), "{outputs:?}");
}

#[test]
fn a_proof_carries_one_to_four_take_over_proofs_or_none_at_all() {
    for (count, fits) in [(0, false), (1, true), (4, true), (5, false)] {
        let (mut hub, mut client) = (hub(Limits::default()), client("me", Secret::key(KEY)));
        let peer = Peer::unknown(Transport::Memory);
        client.handle_input(NOW, Input::Command(Command::Connect));
        hub.handle_input(NOW, Input::Accepted { link: ACCEPTED, peer: peer.clone() });
        client.handle_input(NOW, Input::Dialled { link: DIALLED, peer });
        hand_over(&mut client, &mut hub);
        hand_back(&mut hub, &mut client);
        let Some(Output::Transmit { data, .. }) = client.poll_output() else { panic!("no proof") };
        let genuine = Proof::parse(&data[5..]).unwrap();
        let takeover = Some(vec![&[1; 32]; count]);
        let mut body = bytes::BytesMut::new();
        Proof { takeover, ..genuine }.encode(&mut body);
        let length = u32::try_from(body.len() + 1).unwrap();
        let frame = [&length.to_be_bytes()[..], &[3], &body].concat();
        hub.handle_input(NOW, Input::Received { link: ACCEPTED, data: frame.into() });
        assert_eq!(hub.load().clients == 1, fits, "{count}");
    }
}
