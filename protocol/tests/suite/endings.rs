//! Every way in which a request can end, and what each side sees of it: the table of `docs/endings.md`, observed.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::collections::VecDeque;
use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    Command, Credit, DrainCommand, Event, EventKind, RequestId, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::{EventName, Input, Limits, Machine as _, hub};
use support::ended::{self, KINDS};
use support::{World, name, outgoing};

const PROVIDER: usize = 0;
const CALLER: usize = 1;
const OWNER: usize = 2;
const PROVIDED: Token = Token(5);
const REQUEST: Token = Token(9);
const WINDOW: Credit = Credit { items: 4, bytes: 4_096 };
const DEADLINE: Duration = Duration::from_secs(30);
const TOTAL: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(10);

/// What ends no stream that was taken.
const TAKEN: &str = "its deadline passes when it was taken";
const KEPT_BACK: &str = "its end is kept back";

/// Plays a case with a request of this kind.
type Play = fn(EventKind) -> Scene;

/// What happens to a request, by the name that the table gives it, and how.
const CAUSES: [(&str, Play); 27] = [
    ("the caller gives it up", |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.command(CALLER, Command::Cancel { call: REQUEST });
        scene
    }),
    ("its deadline passes", |kind| {
        let mut scene = Scene::asked(kind, None);
        scene.world.pass(DEADLINE);
        scene
    }),
    (TAKEN, |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.pass(DEADLINE);
        scene
    }),
    ("its total deadline passes", |kind| {
        let mut scene = Scene::running_for(kind, None, Some(TOTAL));
        scene.world.pass(TOTAL);
        scene
    }),
    (KEPT_BACK, |kind| Scene::running(kind, None).keeping_back_its_end(DEADLINE)),
    ("its end is kept back until its total deadline", |kind| {
        Scene::running_for(kind, None, Some(TOTAL)).keeping_back_its_end(TOTAL)
    }),
    ("the provider dies", |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.dies(PROVIDER);
        scene
    }),
    ("the provider's link drops", |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.cut(PROVIDER);
        scene
    }),
    ("the caller dies", |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.dies(CALLER);
        scene
    }),
    ("the caller's link drops", |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.cut(CALLER);
        scene
    }),
    ("the hub dies", |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.replace_hub(support::hub(Limits::default()));
        scene
    }),
    ("the caller closes its connection", |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.command(CALLER, Command::Close);
        scene
    }),
    ("the provider closes its connection", |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.command(PROVIDER, Command::Close);
        scene
    }),
    ("the hub is shut down", |kind| {
        let mut scene = Scene::running(kind, None);
        scene.world.hub.handle_input(scene.world.now, Input::Command(hub::Command::Shutdown));
        scene.world.run();
        scene
    }),
    ("the channel's password changes", |kind| {
        let mut scene = Scene::running(kind, Some(&Secret::key([1; 32])));
        scene.world.protect(OWNER, "ch", &Secret::key([2; 32]), 2);
        scene
    }),
    ("the caller drains, and it is finished in time", |kind| Scene::running(kind, None).drained(CALLER, true)),
    ("the caller drains, and it is not", |kind| Scene::running(kind, None).drained(CALLER, false)),
    ("it is asked while the caller drains", |kind| Scene::running(kind, None).asked_while_drained(CALLER)),
    ("the provider drains, and it is finished in time", |kind| Scene::running(kind, None).drained(PROVIDER, true)),
    ("the provider drains, and it is not", |kind| Scene::running(kind, None).drained(PROVIDER, false)),
    ("it is asked while the provider drains", |kind| Scene::running(kind, None).asked_while_drained(PROVIDER)),
    ("the provider drains the event, and it is finished in time", |kind| {
        Scene::running(kind, None).drained(EVENT, true)
    }),
    ("the provider drains the event, and it is not", |kind| Scene::running(kind, None).drained(EVENT, false)),
    ("it is asked while the provider drains the event", |kind| Scene::running(kind, None).asked_while_drained(EVENT)),
    ("the hub drains, and it is finished in time", |kind| Scene::running(kind, None).drained(HUB, true)),
    ("the hub drains, and it is not", |kind| Scene::running(kind, None).drained(HUB, false)),
    ("it is asked while the hub drains", |kind| Scene::running(kind, None).asked_while_drained(HUB)),
];

/// In place of a client: the hub, and what the provider provides.
const HUB: usize = usize::MAX;
const EVENT: usize = usize::MAX - 1;

/// A request and those whom it concerns.
struct Scene {
    world: World,
    kind: EventKind,
    total: Option<Duration>,
    request: Option<RequestId>,
    watched: Token,
}

impl Scene {
    /// The provider has got the request.
    fn asked(kind: EventKind, secret: Option<&Secret>) -> Self {
        Self::asked_for(kind, secret, None)
    }

    /// The same, with a deadline for all of it.
    fn asked_for(kind: EventKind, secret: Option<&Secret>, total: Option<Duration>) -> Self {
        let mut world = World::ready(&["provider", "caller", "owner"]);
        world.open(OWNER, "ch");
        match secret {
            Some(secret) => {
                world.protect(OWNER, "ch", secret, 1);
                world.join(PROVIDER, "ch", secret);
                world.join(CALLER, "ch", secret);
            }
            None => world.open(PROVIDER, "ch"),
        }
        let (channel, event) = (name("ch"), EventName::new("ev").unwrap());
        world.command(PROVIDER, Command::Provide { token: PROVIDED, channel, event, kind });
        world.expect_done(PROVIDER, PROVIDED.0);
        let mut scene = Self { world, kind, total, request: None, watched: REQUEST };
        scene.ask(REQUEST);
        scene.request = Some(scene.world.expect_request(PROVIDER).id);
        scene
    }

    /// The provider works on it; of a stream each side has sent an item that it may send.
    fn running(kind: EventKind, secret: Option<&Secret>) -> Self {
        Self::running_for(kind, secret, None)
    }

    /// The same, with a deadline for all of it.
    fn running_for(kind: EventKind, secret: Option<&Secret>, total: Option<Duration>) -> Self {
        let mut scene = Self::asked_for(kind, secret, total);
        let request = scene.request.unwrap();
        let mut ends = vec![];
        match kind {
            EventKind::Call => return scene,
            EventKind::Stream => ends.push((PROVIDER, StreamId::Request(request))),
            _ => ends.extend([(PROVIDER, StreamId::Request(request)), (CALLER, StreamId::Call(REQUEST))]),
        }
        scene.world.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window: WINDOW }));
        for (end, stream) in ends {
            scene.world.command(end, ended::gives(stream));
            let item = |event: &Event| matches!(event, Event::Stream(StreamEvent::Item { .. }));
            assert!(scene.world.events[1 - end].iter().any(item), "{:?}", scene.world.events);
        }
        scene.world.events.iter_mut().for_each(ended::forget);
        scene
    }

    fn ask(&mut self, token: Token) {
        let asks = ended::asks(self.kind, token, outgoing("ch", "ev", b""), (DEADLINE, self.total), WINDOW);
        self.world.command(CALLER, asks);
    }

    fn finish(&mut self) {
        if self.kind == EventKind::Exchange {
            self.world.command(CALLER, ended::caller_finishes(REQUEST));
        }
        for command in ended::finishes(self.kind, self.request.unwrap()) {
            self.world.command(PROVIDER, command);
        }
    }

    /// The provider gives all, the hub keeps its last word to itself, and so much time passes.
    fn keeping_back_its_end(mut self, time: Duration) -> Self {
        let mut commands = ended::finishes(self.kind, self.request.unwrap());
        let end = commands.pop().unwrap();
        commands.into_iter().for_each(|command| self.world.command(PROVIDER, command));
        self.world.deceived = Some(CALLER);
        self.world.command(PROVIDER, end);
        self.world.deceived = None;
        self.world.pass(time);
        self
    }

    fn drain(&mut self, who: usize) {
        if who == HUB {
            let command = Input::Command(hub::Command::Drain { time: DRAIN });
            self.world.hub.handle_input(self.world.now, command);
            self.world.run();
        } else if who == EVENT {
            let command = DrainCommand::Provider { provider: PROVIDED, time: DRAIN };
            self.world.command(PROVIDER, Command::Drain(command));
        } else {
            let command = DrainCommand::Client { time: DRAIN, busy: false };
            self.world.command(who, Command::Drain(command));
        }
    }

    fn drained(mut self, who: usize, in_time: bool) -> Self {
        self.drain(who);
        if in_time {
            self.finish();
        } else {
            self.world.pass(DRAIN);
        }
        self
    }

    /// One more is asked while the first still runs.
    fn asked_while_drained(mut self, who: usize) -> Self {
        self.drain(who);
        self.watched = Token(10);
        self.request = None;
        self.ask(Token(10));
        self
    }

    fn caller_sees(&self) -> String {
        self.see(CALLER, |events| ended::caller_sees(events, self.watched))
    }

    fn provider_sees(&self) -> String {
        self.see(PROVIDER, |events| ended::provider_sees(events, self.request))
    }

    fn see(&self, client: usize, sees: impl Fn(&VecDeque<Event>) -> String) -> String {
        if self.world.dead == Some(client) { "–".to_owned() } else { sees(&self.world.events[client]) }
    }
}

#[test]
fn every_ending_is_as_the_document_says() {
    let observed = ended::table(CAUSES.map(|(cause, happens)| {
        let sees = |kind| {
            let scene = happens(kind);
            (scene.caller_sees(), scene.provider_sees())
        };
        (cause, KINDS.map(sees))
    }));
    ended::is_in_the_document(0, &observed);
}

/// Nobody waits for ever: in each case the caller was told something, and so was a provider that works in vain. But for a
/// stream that was taken, and has no deadline for all of it: it lasts for as long as its caller, and its link.
#[test]
fn d7_s42_s51_every_request_ends() {
    for (cause, happens) in CAUSES {
        for kind in KINDS {
            let mut scene = happens(kind);
            if kind != EventKind::Call && [TAKEN, KEPT_BACK].contains(&cause) {
                assert_eq!(scene.caller_sees(), "nothing", "{cause}, {kind:?}");
                scene.world.pass(Duration::from_secs(3_600));
                assert_eq!(scene.caller_sees(), "nothing", "{cause}, {kind:?}");
                scene.world.command(CALLER, Command::Cancel { call: REQUEST });
            }
            assert_ne!(scene.caller_sees(), "nothing", "{cause}, {kind:?}");
            if !cause.contains("kept back") && !cause.contains("finished in time") && !cause.contains("asked while") {
                assert_ne!(scene.provider_sees(), "nothing", "{cause}, {kind:?}");
            }
        }
    }
}
