//! Every way in which a request can end that goes over bridges: the second table of `docs/endings.md`, observed.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::bridge::Side;
use commipc_protocol::client::{
    Command, Credit, Event, EventKind, RequestId, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::{Input, hub};
use support::ended::{self, KINDS};
use support::net::Net;
use support::outgoing;

const CALLER: usize = 0;
const PROVIDER: usize = 1;
const REQUEST: Token = Token(9);
const LATER: Token = Token(10);
const WINDOW: Credit = Credit { items: 4, bytes: 4_096 };
const DEADLINE: Duration = Duration::from_secs(30);
const TOTAL: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(10);

/// The hubs on the way, of which the caller is at the first and the provider at the last.
const FIRST: usize = 0;
const BETWEEN: usize = 1;
const LAST: usize = 2;

type Play = fn(EventKind) -> Scene;

const CAUSES: [(&str, Play); 17] = [
    ("the caller gives it up", |kind| {
        Scene::running(kind).with(|net| net.command(CALLER, Command::Cancel { call: REQUEST }))
    }),
    ("its deadline passes", |kind| Scene::asked(kind).with(|net| net.pass(DEADLINE))),
    ("its total deadline passes", |kind| Scene::running_for(kind, Some(TOTAL)).with(|net| net.pass(TOTAL))),
    ("the provider closes its connection", |kind| {
        Scene::running(kind).with(|net| net.command(PROVIDER, Command::Close))
    }),
    ("the caller closes its connection", |kind| Scene::running(kind).with(|net| net.command(CALLER, Command::Close))),
    ("a bridge on the way dies", |kind| Scene::running(kind).with(|net| net.kill_bridge(1))),
    ("a link of a bridge on the way drops", |kind| Scene::running(kind).with(|net| net.cut(1, Side::A))),
    ("a bridge on the way is closed", |kind| {
        Scene::running(kind).with(|net| net.feed_bridge(1, Input::Command(commipc_protocol::bridge::Command::Close)))
    }),
    ("a hub on the way dies", |kind| Scene::running(kind).with(|net| net.kill_hub(BETWEEN))),
    ("the caller's hub dies", |kind| Scene::running(kind).with(|net| net.kill_hub(FIRST))),
    ("the provider's hub dies", |kind| Scene::running(kind).with(|net| net.kill_hub(LAST))),
    ("a hub on the way drains, and it is finished in time", |kind| Scene::running(kind).drained(BETWEEN, true)),
    ("a hub on the way drains, and it is not", |kind| Scene::running(kind).drained(BETWEEN, false)),
    ("it is asked while a hub on the way drains", |kind| Scene::running(kind).asked_while_drained(BETWEEN)),
    ("the provider's hub drains, and it is finished in time", |kind| Scene::running(kind).drained(LAST, true)),
    ("the provider's hub drains, and it is not", |kind| Scene::running(kind).drained(LAST, false)),
    ("it is asked while the provider's hub drains", |kind| Scene::running(kind).asked_while_drained(LAST)),
];

/// A request over two bridges.
struct Scene {
    net: Net,
    kind: EventKind,
    total: Option<Duration>,
    request: Option<RequestId>,
    watched: Token,
}

impl Scene {
    /// The provider has got the request.
    fn asked(kind: EventKind) -> Self {
        Self::asked_for(kind, None)
    }

    fn asked_for(kind: EventKind, total: Option<Duration>) -> Self {
        let mut net = Net::new(1, 3, &[("caller", FIRST), ("provider", LAST)]);
        net.bridge(FIRST, BETWEEN);
        net.bridge(BETWEEN, LAST);
        net.open(PROVIDER, "ch");
        net.provide_kind(PROVIDER, 5, ("ch", "ev"), kind);
        let mut scene = Self { net, kind, total, request: None, watched: REQUEST };
        scene.ask(REQUEST);
        scene.request = Some(scene.net.expect_request(PROVIDER).id);
        scene
    }

    /// The provider works on it; of a stream each side has sent an item that it may send.
    fn running(kind: EventKind) -> Self {
        Self::running_for(kind, None)
    }

    /// The same, with a deadline for all of it.
    fn running_for(kind: EventKind, total: Option<Duration>) -> Self {
        let mut scene = Self::asked_for(kind, total);
        let request = scene.request.unwrap();
        if kind != EventKind::Call {
            scene.net.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
            scene.net.command(PROVIDER, ended::gives(StreamId::Request(request)));
            let item = |event: &Event| matches!(event, Event::Stream(StreamEvent::Item { .. }));
            assert!(scene.net.events[CALLER].iter().any(item), "{:?}", scene.net.events);
            if kind == EventKind::Exchange {
                scene.net.command(CALLER, ended::gives(StreamId::Call(REQUEST)));
                assert!(scene.net.events[PROVIDER].iter().any(item), "{:?}", scene.net.events);
            }
        }
        scene.net.events.iter_mut().for_each(ended::forget);
        scene
    }

    fn with(mut self, happens: impl FnOnce(&mut Net)) -> Self {
        happens(&mut self.net);
        self.net.run();
        self
    }

    fn ask(&mut self, token: Token) {
        let asks = ended::asks(self.kind, token, outgoing("ch", "ev", b""), (DEADLINE, self.total), WINDOW);
        self.net.command(CALLER, asks);
    }

    fn drained(self, hub: usize, in_time: bool) -> Self {
        let finish = ended::finishes(self.kind, self.request.unwrap());
        let exchange = self.kind == EventKind::Exchange;
        self.with(|net| {
            net.feed_hub(hub, Input::Command(hub::Command::Drain { time: DRAIN }));
            net.run();
            if in_time {
                if exchange {
                    net.command(CALLER, ended::caller_finishes(REQUEST));
                }
                finish.into_iter().for_each(|command| net.command(PROVIDER, command));
            } else {
                net.pass(DRAIN);
            }
        })
    }

    /// One more is asked while the first still runs.
    fn asked_while_drained(self, hub: usize) -> Self {
        let mut scene = self.with(|net| net.feed_hub(hub, Input::Command(hub::Command::Drain { time: DRAIN })));
        (scene.watched, scene.request) = (LATER, None);
        scene.ask(LATER);
        scene
    }

    fn sees(&self) -> (String, String) {
        let [caller, provider] = [CALLER, PROVIDER].map(|client| &self.net.events[client]);
        (ended::caller_sees(caller, self.watched), ended::provider_sees(provider, self.request))
    }
}

#[test]
fn s80_v34_every_ending_over_bridges_is_as_the_document_says() {
    let observed = ended::table(CAUSES.map(|(cause, happens)| (cause, KINDS.map(|kind| happens(kind).sees()))));
    ended::is_in_the_document(1, &observed);
}

/// Nobody waits for ever: in each case the caller was told something, and so was a provider that works in vain.
#[test]
fn d7_v34_every_request_over_bridges_ends() {
    for (cause, happens) in CAUSES {
        for kind in KINDS {
            let (caller, provider) = happens(kind).sees();
            assert_ne!(caller, "nothing", "{cause}, {kind:?}");
            if !cause.contains("finished in time") && !cause.contains("asked while") {
                assert_ne!(provider, "nothing", "{cause}, {kind:?}");
            }
        }
    }
}
