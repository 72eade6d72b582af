//! A hub that is restarted with what it has stored: its members are told what they would have been told without, at another
//! time.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Access, Command, Event, Reconnect, ReconnectEvent, Token};
use commipc_protocol::{AfterGrace, Input, Limits, OwnerPolicy, hub};
use support::{Disk, World, lasting, name, outgoing, payload};

/// Two members, each of whom owns, provides and hears something, and the owner of their vault.
const ADA: usize = 0;
const BEN: usize = 1;
const OWNER: usize = 2;

/// What is told apart from the connection itself, without what only means something to the present connection.
fn told(event: &Event) -> Option<String> {
    match event {
        // Who joins anew derives the key anew: the application's own work, for its connection.
        Event::Ready(_) | Event::DeriveChannelKey { .. } => None,
        Event::Reconnect(
            ReconnectEvent::Lost { .. } | ReconnectEvent::Restoring { .. } | ReconnectEvent::Restored { .. },
        ) => None,
        Event::Request(request) => {
            Some(format!("asked by {:?}: {:?}, {:?}", request.provider, request.message, request.idempotent))
        }
        other => Some(format!("{other:?}")),
    }
}

struct Play {
    world: World,
    log: [Vec<String>; 3],
    secrets: [Secret; 2],
    tokens: u64,
}

impl Play {
    fn new() -> Self {
        let clients = ["ada", "ben", "owner"].map(|name| lasting(name, Reconnect::default()));
        let mut world = World::with(support::hub(Limits::default()), clients.into());
        world.disk = Some(Disk::default());
        world.feed_hub(Input::Command(hub::Command::Restore(Vec::new())));
        world.connect_all();
        let secrets = [Secret::key([1; 32]), Secret::key([2; 32])];
        Self { world, log: Default::default(), secrets, tokens: 100 }
    }

    fn asks(&mut self, client: usize, command: impl FnOnce(Token) -> Command) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.world.command(client, command(token));
        self.listen();
        token
    }

    /// Writes down what everybody was told, and answers what was asked.
    fn listen(&mut self) {
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for client in [ADA, BEN, OWNER] {
                while let Some(event) = self.world.events[client].pop_front() {
                    busy = true;
                    self.log[client].extend(told(&event));
                    if let Event::Request(request) = &event {
                        let (request, result) = (request.id, Ok(payload(b"answer")));
                        self.world.command(client, Command::Answer { request, result });
                    }
                    if let Event::DeriveChannelKey { salt, .. } = &event {
                        let secret = self.secrets[usize::from(salt.salt[0]) - 1].clone();
                        self.world.events[client].push_front(event);
                        self.world.derive(client, &secret);
                    }
                }
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..20 * seconds {
            self.world.pass(Duration::from_millis(50));
            self.listen();
        }
    }

    fn opens(&mut self, client: usize, channel: &str, secret: Option<usize>, policy: Option<OwnerPolicy>) {
        let secret = secret.map(|secret| self.secrets[secret].kdf());
        let channel = name(channel);
        self.asks(client, |token| Command::Open { token, channel, access: Access { secret, policy, plain: false } });
    }

    fn provides(&mut self, client: usize, channel: &str, event: &str) {
        let (channel, event) = (name(channel), commipc_protocol::EventName::new(event).unwrap());
        let kind = commipc_protocol::client::EventKind::Call;
        self.asks(client, |token| Command::Provide { token, channel, event, kind });
    }

    fn listens(&mut self, client: usize, channel: &str, event: Option<&str>) -> Token {
        let (channel, event) = (name(channel), event.map(|event| commipc_protocol::EventName::new(event).unwrap()));
        self.asks(client, |token| Command::Listen { token, channel, event })
    }

    fn protects(&mut self, secret: usize) {
        let (of, salt) = (self.secrets[secret].clone(), u8::try_from(secret).unwrap() + 1);
        self.tokens += 1;
        self.world.try_to_protect(OWNER, self.tokens, "vault", &of, salt);
        self.listen();
    }

    /// Everybody says something to everybody, on both channels.
    fn everybody_speaks(&mut self) {
        let time_left = Duration::from_secs(5);
        for client in [ADA, BEN, OWNER] {
            for channel in ["vault", "room"] {
                for event in ["of-ada", "of-ben", "news"] {
                    let says = || outgoing(channel, event, b"said");
                    self.asks(client, |token| Command::Call { token, outgoing: says(), time_left });
                    self.asks(client, |token| Command::Send { token, outgoing: says() });
                    self.asks(client, |token| Command::Broadcast { token, outgoing: says() });
                }
            }
        }
    }

    /// All of it, with or without a restart in the middle.
    fn played(restarts: bool) -> Self {
        let mut play = Self::new();
        let hold = OwnerPolicy::Hold { grace: Duration::from_secs(30), then: AfterGrace::Promote };
        play.opens(OWNER, "vault", None, Some(hold));
        play.protects(0);
        play.opens(BEN, "room", None, None);
        play.opens(ADA, "room", None, None);
        for member in [ADA, BEN] {
            play.opens(member, "vault", Some(0), None);
            play.listens(member, "vault", Some("news"));
        }
        play.provides(ADA, "vault", "of-ada");
        play.provides(BEN, "room", "of-ben");
        play.listens(ADA, "room", None);
        let given_up = play.listens(BEN, "vault", Some("of-ada"));
        play.everybody_speaks();
        play.pass(1);
        if restarts {
            play.world.start_again();
        }
        play.pass(10);
        play.everybody_speaks();
        // Whoever may do something before may do it after, and nobody else.
        play.asks(BEN, |token| Command::Unlisten { token, listener: given_up });
        play.asks(ADA, |token| Command::Terminate { token, channel: name("vault") });
        play.asks(ADA, |token| Command::Terminate { token, channel: name("room") });
        play.protects(1);
        play.opens(ADA, "vault", Some(1), None);
        play.everybody_speaks();
        play.asks(BEN, |token| Command::Leave { token, channel: name("room") });
        play.asks(OWNER, |token| Command::Terminate { token, channel: name("vault") });
        play.everybody_speaks();
        play.pass(120);
        play
    }
}

#[test]
fn s72_d14_v28_members_are_told_the_same_with_a_restart_of_a_hub_that_stores_as_without() {
    let (without, with) = (Play::played(false), Play::played(true));
    for (client, (without, with)) in without.log.iter().zip(&with.log).enumerate() {
        let differs = without.iter().zip(with).position(|(without, with)| without != with);
        let at = differs.unwrap_or_else(|| without.len().min(with.len()));
        assert_eq!(without.get(at), with.get(at), "client {client} is told at {at} of {}", without.len());
        assert!(without.len() > 50, "{} are told to client {client}", without.len());
    }
}
