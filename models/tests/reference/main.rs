//! The real hub beside one of sets and lists: whatever clients do, both do the same.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what is unexpected fails it")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what is of no interest is passed over")]

mod model;
#[path = "../../../protocol/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Access, Command, Event, EventKind, Token};
use commipc_protocol::{EventName, hub};
use model::{Act, CLIENTS, Hub, Outcome, View};
use proptest::prelude::*;
use proptest_state_machine::{StateMachineTest, prop_state_machine};
use support::{World, name, outgoing, payload};

/// The real hub with its clients, and what it has told of its channels.
struct Real {
    world: World,
    view: View,
}

/// The token of what was asked last.
const LAST: Token = Token(1);
const SAID: &[&[u8]] = &[b"0", b"1", b"2", b"3"];

fn client_name(client: usize) -> String {
    format!("client-{client}")
}

fn number(name: &str) -> usize {
    name.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a name with a number")
}

fn event_name(event: usize) -> EventName {
    EventName::new(&format!("event-{event}")).unwrap()
}

fn channel_name(channel: usize) -> String {
    format!("channel-{channel}")
}

/// A provider's or listener's own token.
fn token(channel: usize, event: Option<usize>, provides: bool) -> Token {
    let event = event.map_or(0, |event| event + 1);
    Token(10 + 100 * channel as u64 + 2 * event as u64 + u64::from(provides))
}

fn key(password: u8) -> Secret {
    Secret::key([password; 32])
}

impl Real {
    fn ask(&mut self, act: &Act, model: &Hub) {
        let world = &mut self.world;
        let channel_of = |channel: usize| name(&channel_name(channel));
        match *act {
            Act::Connect { client } => world.command(client, Command::Connect),
            Act::Drop { client } => world.cut(client),
            Act::Open { client, channel, .. } => {
                let secret = model.tried.map(key);
                let access = Access { secret: secret.as_ref().map(Secret::kdf), policy: None, plain: false };
                world.command(client, Command::Open { token: LAST, channel: channel_of(channel), access });
                if let Some(secret) = secret {
                    world.derive(client, &secret);
                }
            }
            Act::Leave { client, channel } => {
                world.command(client, Command::Leave { token: LAST, channel: channel_of(channel) });
            }
            Act::Protect { client, channel } => {
                world.try_to_protect(client, LAST.0, &channel_name(channel), &key(model.passwords), model.passwords);
            }
            Act::Reclaim { client, channel } => {
                world.command(client, Command::Reclaim { token: LAST, channel: channel_of(channel) });
            }
            Act::Provide { client, channel, event } => {
                let (token, event) = (token(channel, Some(event), true), event_name(event));
                let kind = EventKind::Call;
                world.command(client, Command::Provide { token, channel: channel_of(channel), event, kind });
            }
            Act::Withdraw { client, channel, event } => {
                let provider = token(channel, Some(event), true);
                world.command(client, Command::Withdraw { token: LAST, provider });
            }
            Act::Listen { client, channel, event } => {
                let (token, event) = (token(channel, event, false), event.map(event_name));
                world.command(client, Command::Listen { token, channel: channel_of(channel), event });
            }
            Act::Unlisten { client, channel, event } => {
                let listener = token(channel, event, false);
                world.command(client, Command::Unlisten { token: LAST, listener });
            }
            Act::Call { client, channel, event } => {
                let outgoing = outgoing(&channel_name(channel), event_name(event).as_str(), SAID[client]);
                let time_left = Duration::from_secs(30);
                world.command(client, Command::Call { token: LAST, outgoing, time_left });
            }
            Act::Broadcast { client, channel, event } => {
                let outgoing = outgoing(&channel_name(channel), event_name(event).as_str(), SAID[client]);
                world.command(client, Command::Broadcast { token: LAST, outgoing });
            }
        }
    }

    /// What clients were told of it.
    fn outcome(&mut self, act: &Act) -> Outcome {
        let mut outcome = Outcome { done: matches!(act, Act::Drop { .. }), ..Outcome::default() };
        for _ in 0..2 {
            for client in 0..CLIENTS {
                while let Some(event) = self.world.events[client].pop_front() {
                    self.told(client, event, &mut outcome);
                }
            }
        }
        outcome.heard_by.sort_unstable();
        outcome
    }

    fn told(&mut self, client: usize, event: Event, outcome: &mut Outcome) {
        match event {
            Event::Ready(_) => outcome.done = true,
            Event::Done { result, .. } | Event::Sent { result, .. } => outcome.done = result.is_ok(),
            Event::Request(request) => {
                let answer = payload(SAID[client]);
                self.world.command(client, Command::Answer { request: request.id, result: Ok(answer) });
            }
            Event::Answered { result, .. } => {
                outcome.done = result.is_ok();
                let said = |bytes: &[u8]| SAID.iter().position(|said| *said == bytes);
                outcome.answered_by = result.ok().and_then(|answer| said(&answer.payload.bytes));
            }
            Event::Message(_) => outcome.heard_by.push(client),
            Event::ChannelClosed { .. } => {
                outcome.put_out.insert(client);
            }
            Event::Violation(violation) => panic!("client {client}: {violation}"),
            Event::Gap(gap) => panic!("client {client}: {gap:?}"),
            _ => {}
        }
    }

    /// What the hub has told of its channels.
    fn look(&mut self) {
        for event in std::mem::take(&mut self.world.hub_events) {
            match event {
                hub::Event::Joined { channel, client } => {
                    self.channel(&channel).0.insert(number(&client));
                }
                hub::Event::Left { channel, client } => {
                    self.channel(&channel).0.remove(&number(&client));
                }
                hub::Event::Provided { channel, event, client, .. } => {
                    self.channel(&channel).2.insert(number(&event), number(&client));
                }
                hub::Event::Withdrawn { channel, event, .. } => {
                    self.channel(&channel).2.remove(&number(&event));
                }
                hub::Event::OwnerChanged { channel, owner } => {
                    self.channel(&channel).1 = owner.as_ref().map(|owner| number(owner));
                }
                hub::Event::Terminated { channel } => {
                    self.view.remove(&number(&channel));
                }
                _ => {}
            }
        }
        self.view.retain(|_, (members, ..)| !members.is_empty());
    }

    fn channel(
        &mut self,
        name: &str,
    ) -> &mut (std::collections::BTreeSet<usize>, Option<usize>, BTreeMap<usize, usize>) {
        self.view.entry(number(name)).or_default()
    }
}

struct Beside;

impl StateMachineTest for Beside {
    type SystemUnderTest = Real;
    type Reference = Hub;

    fn init_test(_: &Hub) -> Real {
        let names: Vec<_> = (0..CLIENTS).map(client_name).collect();
        let world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        Real { world, view: View::new() }
    }

    fn apply(mut real: Real, model: &Hub, act: Act) -> Real {
        real.ask(&act, model);
        let outcome = real.outcome(&act);
        real.look();
        assert_eq!(outcome, model.last, "what the hub did, and what it should do, for {act:?}");
        real
    }

    fn check_invariants(real: &Real, model: &Hub) {
        assert_eq!(real.view, model.view(), "what the hub says of its channels, and what it should");
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, max_local_rejects: u32::MAX, ..ProptestConfig::default() })]

    #[test]
    fn the_hub_does_as_one_of_sets_and_lists(sequential 1..80 => Beside);
}
