//! Hubs, clients and providers that come to their end: nothing new, all that runs finished, then goodbye.

#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what is unexpected fails it")]

use crate::support;

use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    self, CallFailure, Client, Command, Credit, DrainCommand, Event, EventKind, Failure, Reconnect, ReconnectEvent,
    RequestId, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::hub;
use commipc_protocol::wire::{Control as _, FrameType, Goodbye};
use commipc_protocol::{CloseReason, EventName, Input, Limits, Machine as _, Misuse, Refusal, TimerReason};
use support::{KEY, World, lasting, name, outgoing, payload};

const PROVIDER: usize = 0;
const CALLER: usize = 1;
const TEN: Duration = Duration::from_secs(10);

/// A provider of math/sum, a caller, and a third.
fn math() -> World {
    let mut world = World::ready(&["provider", "caller", "third"]);
    world.open(PROVIDER, "math");
    world.provide(PROVIDER, 5, "math", "sum");
    world
}

impl World {
    fn drain_hub(&mut self, time: Duration) {
        self.hub.handle_input(self.now, Input::Command(hub::Command::Drain { time }));
        self.run();
    }

    fn drain_client(&mut self, client: usize, time: Duration) {
        self.command(client, Command::Drain(DrainCommand::Client { time, busy: false }));
    }

    /// A call that the provider works on.
    fn running(&mut self, token: u64) -> RequestId {
        self.call(CALLER, token, "math", "sum", b"");
        self.expect_request(PROVIDER).id
    }

    fn answer(&mut self, client: usize, request: RequestId) {
        self.command(client, Command::Answer { request, result: Ok(payload(b"3")) });
    }

    fn expect_failed(&mut self, client: usize) -> (Failure, bool) {
        match self.expect_answered(client).1 {
            Err(CallFailure::Failed { failure, maybe_executed }) => (failure, maybe_executed),
            other => panic!("{other:?}"),
        }
    }

    fn expect_end(&mut self, client: usize) -> (RequestId, Failure) {
        match self.next(client) {
            Event::RequestEnded { request, why } => (request, why),
            other => panic!("client {client}: {other:?}"),
        }
    }

    fn expect_draining(&mut self, client: usize) -> (Option<Token>, usize, usize) {
        match self.next(client) {
            Event::Draining { provider, running, cut } => (provider, running, cut),
            other => panic!("client {client}: {other:?}"),
        }
    }

    fn expect_over(&mut self, client: usize) -> CloseReason {
        match self.next(client) {
            Event::Closed(reason) => reason,
            other => panic!("client {client}: {other:?}"),
        }
    }

    /// What a hub that drains has told of it since this was asked.
    fn drain_events(&mut self) -> Vec<hub::Event> {
        let told = std::mem::take(&mut self.hub_events);
        let of_drain = |event: &hub::Event| {
            matches!(event, hub::Event::Draining { .. } | hub::Event::Drained { .. } | hub::Event::Stopped)
        };
        told.into_iter().filter(of_drain).collect()
    }
}

const SHUTTING_DOWN: CloseReason = CloseReason::Goodbye(Refusal::ShuttingDown);

#[test]
fn a_hub_that_drains_finishes_what_runs_then_says_goodbye() {
    let mut world = math();
    let (one, two) = (world.running(1), world.running(2));
    world.drain_hub(TEN);
    assert_eq!(world.drain_events(), [hub::Event::Draining { running: 2 }]);
    world.answer(PROVIDER, one);
    assert!(world.expect_answered(CALLER).1.is_ok());
    assert_eq!(world.drain_events(), [hub::Event::Draining { running: 1 }]);
    assert!(world.is_linked(CALLER) && world.is_linked(2), "one call still runs");
    world.answer(PROVIDER, two);
    assert!(world.expect_answered(CALLER).1.is_ok(), "the answer comes before the goodbye");
    for client in 0..3 {
        assert_eq!(world.expect_over(client), SHUTTING_DOWN);
    }
    let over = [hub::Event::Draining { running: 0 }, hub::Event::Drained { cut: 0 }, hub::Event::Stopped];
    assert_eq!(world.drain_events(), over);
    let due = world.hub.poll_timeout().map(|deadline| deadline.reason);
    assert_ne!(due, Some(TimerReason::Drain), "the time that was given is of no meaning any more");
}

#[test]
fn a_hub_with_nothing_to_finish_drains_at_once() {
    let mut world = math();
    world.drain_hub(TEN);
    for client in 0..3 {
        assert_eq!(world.expect_over(client), SHUTTING_DOWN);
    }
    assert_eq!(world.drain_events().last(), Some(&hub::Event::Stopped));
}

#[test]
fn what_is_new_is_refused_by_a_hub_that_drains_and_may_be_tried_again() {
    let mut world = math();
    world.open(CALLER, "news");
    let running = world.running(1);
    world.drain_hub(TEN);
    let refused = Failure::Refused(Refusal::Draining);
    assert!(Refusal::Draining.is_retryable() && !Refusal::Draining.maybe_executed());
    world.call(CALLER, 2, "math", "sum", b"");
    assert_eq!(world.expect_failed(CALLER), (refused, false));
    world.command(2, Command::Open { token: Token(3), channel: name("new"), access: client::Access::default() });
    assert_eq!(world.expect_refused(2), Refusal::Draining);
    let (channel, event) = (name("news"), EventName::new("up").unwrap());
    let (provided, listened) = ((channel.clone(), event.clone()), (channel, Some(event)));
    let provide = Command::Provide { token: Token(4), channel: provided.0, event: provided.1, kind: EventKind::Call };
    world.command(CALLER, provide);
    assert_eq!(world.expect_refused(CALLER), Refusal::Draining);
    world.command(CALLER, Command::Listen { token: Token(5), channel: listened.0, event: listened.1 });
    assert_eq!(world.expect_refused(CALLER), Refusal::Draining);
    for say in [
        Command::Send { token: Token(6), outgoing: outgoing("math", "sum", b"") },
        Command::Broadcast { token: Token(6), outgoing: outgoing("math", "up", b"") },
    ] {
        world.command(2, say);
        assert_eq!(world.expect_refused(2), Refusal::Draining);
    }
    // What is given back is taken.
    world.command(CALLER, Command::Leave { token: Token(7), channel: name("news") });
    world.expect_done(CALLER, 7);
    // What runs is not touched by any of this.
    world.answer(PROVIDER, running);
    assert!(world.expect_answered(CALLER).1.is_ok());
}

#[test]
fn nobody_new_gets_into_a_hub_that_drains() {
    let clients = ["provider", "caller", "late"].map(|id| support::client(id, Secret::key(KEY)));
    let mut world = World::with(support::hub(Limits::default()), clients.into());
    for client in [PROVIDER, CALLER] {
        world.command(client, Command::Connect);
        assert!(matches!(world.next(client), Event::Ready(_)));
    }
    world.open(PROVIDER, "math");
    world.provide(PROVIDER, 5, "math", "sum");
    let running = world.running(1);
    world.drain_hub(TEN);
    world.command(2, Command::Connect);
    assert_eq!(world.expect_over(2), CloseReason::Refused(Refusal::ShuttingDown));
    world.answer(PROVIDER, running);
    assert!(world.expect_answered(CALLER).1.is_ok());
}

#[test]
fn whoever_works_on_a_request_may_ask_others_for_it_while_its_hub_drains() {
    let mut world = math();
    world.open(2, "math");
    world.provide(2, 6, "math", "double");
    let running = world.running(1);
    world.drain_hub(TEN);
    world.call(PROVIDER, 7, "math", "double", b"");
    let nested = world.expect_request(2).id;
    world.answer(2, nested);
    assert!(world.expect_answered(PROVIDER).1.is_ok(), "what a running request needs is not new");
    world.say(PROVIDER, "math", "done", b"");
    world.answer(PROVIDER, running);
    assert!(world.expect_answered(CALLER).1.is_ok());
    assert_eq!(world.expect_over(CALLER), SHUTTING_DOWN);
}

#[test]
fn what_a_hub_has_not_finished_in_time_ends_on_both_sides() {
    let mut world = math();
    let call = world.running(1);
    let (channel, event) = (name("math"), EventName::new("feed").unwrap());
    world.command(PROVIDER, Command::Provide { token: Token(6), channel, event, kind: EventKind::Stream });
    world.expect_done(PROVIDER, 6);
    let stream = world.streaming(9);
    world.drain_hub(TEN);
    world.pass(TEN - Duration::from_millis(1));
    assert!(world.is_linked(CALLER) && world.events[CALLER].is_empty(), "the time is not over");
    world.pass(Duration::from_millis(1));
    let cut = Failure::Refused(Refusal::ShuttingDown);
    assert_eq!(world.expect_failed(CALLER), (cut, true), "typed, and it may have been executed");
    match world.next(CALLER) {
        Event::Stream(StreamEvent::Ended { token: Token(9), result: Err(CallFailure::Failed { failure, .. }) }) => {
            assert_eq!(failure, cut);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!([world.expect_end(PROVIDER), world.expect_end(PROVIDER)], [(call, cut), (stream, cut)]);
    assert_eq!([world.expect_over(PROVIDER), world.expect_over(CALLER)], [SHUTTING_DOWN; 2]);
    assert_eq!(world.drain_events()[1..], [hub::Event::Drained { cut: 2 }, hub::Event::Stopped]);
}

impl World {
    /// A stream that the provider has taken.
    fn streaming(&mut self, token: u64) -> RequestId {
        let window = Credit { items: 4, bytes: 4_096 };
        let (outgoing, time_left) = (outgoing("math", "feed", b""), Duration::from_secs(30));
        let ask = StreamCommand::Ask { token: Token(token), outgoing, time_left, whole: None, window, exchange: false };
        self.command(CALLER, Command::Stream(ask));
        let request = self.expect_request(PROVIDER).id;
        self.command(PROVIDER, Command::Stream(StreamCommand::Accept { request, window }));
        assert!(matches!(self.next(CALLER), Event::Stream(StreamEvent::Accepted { .. })));
        assert!(matches!(self.next(PROVIDER), Event::Stream(StreamEvent::Demand { .. })));
        request
    }
}

#[test]
fn a_hub_that_drains_stops_at_once_when_told_to() {
    let mut world = math();
    let request = world.running(1);
    world.drain_hub(TEN);
    world.hub.handle_input(world.now, Input::Command(hub::Command::Shutdown));
    world.run();
    let cut = Failure::Refused(Refusal::ShuttingDown);
    assert_eq!(world.expect_failed(CALLER), (cut, true));
    assert_eq!(world.expect_end(PROVIDER), (request, cut));
    assert_eq!(world.drain_events()[1..], [hub::Event::Drained { cut: 1 }, hub::Event::Stopped]);
}

/// A hub that goes ends all that it has taken, so that what it has not taken is known not to have run.
#[test]
fn what_crosses_with_the_goodbye_of_a_hub_has_not_run() {
    let mut world = math();
    world.mute = Some(CALLER);
    world.call(CALLER, 2, "math", "sum", b"");
    world.drain_hub(TEN);
    assert_eq!(world.expect_failed(CALLER), (Failure::Local(Misuse::Disconnected), false));
    assert_eq!(world.expect_over(CALLER), SHUTTING_DOWN);
}

/// But what is known to have begun may have run, though a hub says nothing of it.
#[test]
fn a_stream_that_had_begun_may_have_run_whatever_its_hub_says_last() {
    let mut world = support::streaming::pair(EventKind::Stream);
    support::streaming::begun(&mut world, support::streaming::WINDOW, false);
    let mut body = bytes::BytesMut::new();
    Goodbye { code: Refusal::ShuttingDown.code() }.encode(&mut body);
    let told = world.show(support::streaming::CALLER, FrameType::Goodbye, &body);
    let lost = support::streaming::failed(Failure::Local(Misuse::Disconnected));
    assert!(
        matches!(&told[..], [Event::Stream(StreamEvent::Ended { result, .. }), Event::Closed(_)] if *result == lost),
        "{told:?}"
    );
}

#[test]
fn a_client_that_comes_back_by_itself_waits_for_the_next_hub() {
    let names = ["provider", "caller"];
    let clients: Vec<Client> = names.iter().map(|name| lasting(name, Reconnect::default())).collect();
    let mut world = World::with(support::hub(Limits::default()), clients);
    world.connect_all();
    world.open(PROVIDER, "math");
    world.provide(PROVIDER, 5, "math", "sum");
    let running = world.running(1);
    world.drain_hub(TEN);
    world.answer(PROVIDER, running);
    assert!(world.expect_answered(CALLER).1.is_ok());
    // Its listener is still there, and refuses for now, for as long as it takes.
    for _ in 0..50 {
        world.pass(Duration::from_secs(10));
    }
    let told = std::mem::take(&mut world.events[CALLER]);
    let lost = |event: &Event| matches!(event, Event::Reconnect(ReconnectEvent::Lost { .. }));
    assert!(told.len() > 6 && told.iter().all(lost), "{told:?}");
    world.replace_hub(support::hub(Limits::default()));
    let mut back = false;
    for _ in 0..100 {
        world.pass(Duration::from_secs(1));
        back |= world.events.iter().all(|told| told.iter().any(is_restored));
    }
    assert!(back, "{:?}", world.events);
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    let request = world.running(2);
    world.answer(PROVIDER, request);
    assert!(world.expect_answered(CALLER).1.is_ok());
}

/// Who says that a call may wait while the connection is away is not told of a hub that is replaced in good order.
#[test]
fn calls_that_may_wait_are_made_at_the_next_hub() {
    let clients = vec![support::client("provider", Secret::key(KEY)), lasting("caller", Reconnect::default())];
    let mut world = World::with(support::hub(Limits::default()), clients);
    world.connect_all();
    world.open(PROVIDER, "math");
    world.provide(PROVIDER, 5, "math", "sum");
    let running = world.running(1);
    let call = |token, away, idempotent| Command::Call {
        token: Token(token),
        outgoing: client::Outgoing { away, idempotent, ..outgoing("math", "sum", b"") },
        time_left: Duration::from_secs(600),
    };
    world.command(CALLER, call(2, client::Away::Repeat, true));
    let _never_answered = world.expect_request(PROVIDER);
    world.drain_hub(TEN);
    world.command(CALLER, call(3, client::Away::Wait, false));
    world.command(CALLER, call(4, client::Away::Repeat, false));
    world.answer(PROVIDER, running);
    assert_eq!(world.expect_answered(CALLER).0, Token(1));
    world.pass(TEN);
    assert!(!world.is_linked(CALLER));
    world.replace_hub(support::hub(Limits::default()));
    // Who provides is there before who calls: otherwise nobody would provide it.
    world.events[PROVIDER].clear();
    world.command(PROVIDER, Command::Connect);
    assert!(matches!(world.next(PROVIDER), Event::Ready(_)));
    world.open(PROVIDER, "math");
    world.provide(PROVIDER, 5, "math", "sum");
    for _ in 0..100 {
        world.pass(Duration::from_secs(1));
    }
    let mut asked = Vec::new();
    while let Some(event) = world.events[PROVIDER].pop_front() {
        if let Event::Request(request) = event {
            asked.push(request.id);
        }
    }
    assert_eq!(asked.len(), 3, "each is made at the next hub");
    world.events[CALLER].clear();
    for request in asked {
        world.answer(PROVIDER, request);
    }
    let mut answered: Vec<_> =
        (0..3).map(|_| world.expect_answered(CALLER)).map(|(token, it)| (token, it.is_ok())).collect();
    answered.sort_unstable();
    assert_eq!(answered, [2, 3, 4].map(|token| (Token(token), true)));
}

fn is_restored(event: &Event) -> bool {
    matches!(event, Event::Reconnect(ReconnectEvent::Restored { .. }))
}

#[test]
fn a_client_that_drains_finishes_what_it_asked_and_what_it_works_on() {
    let mut world = math();
    world.open(CALLER, "math");
    world.provide(CALLER, 6, "math", "double");
    world.listen(CALLER, 7, "math", None);
    let asked = world.running(1);
    world.call(2, 2, "math", "double", b"");
    let working = world.expect_request(CALLER).id;
    world.drain_client(CALLER, TEN);
    let (_, running, _) = world.expect_draining(CALLER);
    // The call, the request, and the hub's word on what was withdrawn.
    assert!(running >= 2, "{running}");
    world.call(2, 3, "math", "double", b"");
    assert_eq!(world.expect_failed(2), (Failure::Refused(Refusal::NoProvider), false), "it is withdrawn");
    world.answer(CALLER, working);
    assert!(world.expect_answered(2).1.is_ok());
    world.say(2, "math", "up", b"");
    world.answer(PROVIDER, asked);
    let mut rest = Vec::new();
    while let Some(event) = world.events[CALLER].pop_front() {
        rest.push(event);
    }
    let heard = rest.iter().any(|event| matches!(event, Event::Message(_)));
    let answered = rest.iter().any(|event| matches!(event, Event::Answered { result: Ok(_), .. }));
    assert!(answered && !heard, "{rest:?}");
    let last = &rest[rest.len() - 2..];
    assert!(
        matches!(last, [Event::Draining { provider: None, running: 0, cut: 0 }, Event::Closed(CloseReason::Local)]),
        "{rest:?}"
    );
    assert!(!world.is_linked(CALLER));
    let left = world.hub_events.iter().find_map(|event| match event {
        hub::Event::Disconnected { client, why, .. } if &**client == "caller" => Some(*why),
        _ => None,
    });
    assert_eq!(left, Some(hub::DisconnectReason::Goodbye));
    assert_eq!(world.clients[CALLER].load(), client::Load::default());
}

#[test]
fn what_is_new_is_turned_down_by_a_client_that_drains() {
    let mut world = math();
    let request = world.running(1);
    world.drain_client(CALLER, TEN);
    world.events[CALLER].clear();
    let refused = Failure::Local(Misuse::Draining);
    world.call(CALLER, 2, "math", "sum", b"");
    assert_eq!(world.expect_failed(CALLER), (refused, false));
    let (channel, access) = (name("new"), client::Access::default());
    world.command(CALLER, Command::Open { token: Token(3), channel, access });
    assert!(matches!(world.next(CALLER), Event::Done { result: Err(why), .. } if why == refused));
    world.command(CALLER, Command::Broadcast { token: Token(4), outgoing: outgoing("math", "up", b"") });
    assert!(matches!(world.next(CALLER), Event::Sent { result: Err(why), .. } if why == refused));
    world.answer(PROVIDER, request);
    assert!(world.expect_answered(CALLER).1.is_ok());
}

#[test]
fn a_client_that_drains_may_ask_and_say_what_its_requests_need() {
    let mut world = math();
    world.open(2, "math");
    world.provide(2, 6, "math", "double");
    let running = world.running(1);
    world.drain_client(PROVIDER, TEN);
    world.events[PROVIDER].clear();
    world.call(PROVIDER, 7, "math", "double", b"");
    let nested = world.expect_request(2).id;
    world.answer(2, nested);
    while !matches!(world.next(PROVIDER), Event::Answered { result: Ok(_), .. }) {}
    world.answer(PROVIDER, running);
    assert!(world.expect_answered(CALLER).1.is_ok());
    assert!(!world.is_linked(PROVIDER));
}

#[test]
fn a_client_waits_for_what_its_application_works_on_beside_requests() {
    let mut world = math();
    world.command(PROVIDER, Command::Drain(DrainCommand::Client { time: TEN, busy: true }));
    assert!(world.is_linked(PROVIDER));
    world.events[PROVIDER].clear();
    world.command(PROVIDER, Command::Broadcast { token: Token(9), outgoing: outgoing("math", "up", b"") });
    assert!(world.events[PROVIDER].iter().any(|event| matches!(event, Event::Sent { result: Ok(()), .. })));
    world.command(PROVIDER, Command::Drain(DrainCommand::Finished));
    assert!(!world.is_linked(PROVIDER));
}

#[test]
fn what_a_client_has_not_finished_in_time_ends_on_both_sides() {
    let mut world = math();
    world.open(CALLER, "math");
    world.provide(CALLER, 6, "math", "double");
    let asked = world.running(1);
    world.call(2, 2, "math", "double", b"");
    let working = world.expect_request(CALLER).id;
    world.drain_client(CALLER, TEN);
    world.events[CALLER].clear();
    world.pass(TEN);
    assert_eq!(world.expect_failed(CALLER), (Failure::Local(Misuse::Closed), true));
    assert_eq!(world.expect_end(CALLER), (working, Failure::Local(Misuse::Closed)));
    assert_eq!(world.expect_draining(CALLER), (None, 0, 2));
    assert_eq!(world.expect_over(CALLER), CloseReason::Local);
    assert_eq!(world.expect_end(PROVIDER), (asked, Failure::Local(Misuse::Cancelled)));
    assert_eq!(world.expect_failed(2), (Failure::Refused(Refusal::ProviderGone), true));
}

#[test]
fn a_provider_that_drains_finishes_its_requests_and_the_client_stays() {
    let mut world = math();
    let (one, two) = (world.running(1), world.running(2));
    let drain = DrainCommand::Provider { provider: Token(5), time: TEN };
    world.command(PROVIDER, Command::Drain(drain));
    assert_eq!(world.expect_draining(PROVIDER), (Some(Token(5)), 2, 0));
    world.call(CALLER, 3, "math", "sum", b"");
    assert_eq!(world.expect_failed(CALLER), (Failure::Refused(Refusal::NoProvider), false));
    world.answer(PROVIDER, one);
    assert!(world.expect_answered(CALLER).1.is_ok());
    assert_eq!(world.expect_draining(PROVIDER), (Some(Token(5)), 1, 0));
    world.pass(TEN);
    assert_eq!(world.expect_end(PROVIDER), (two, Failure::Local(Misuse::Closed)));
    assert_eq!(world.expect_draining(PROVIDER), (Some(Token(5)), 0, 1));
    assert_eq!(world.expect_failed(CALLER), (Failure::Refused(Refusal::ProviderGone), true));
    // The event may be provided anew, and that is another provider.
    world.provide(PROVIDER, 8, "math", "sum");
    let request = world.running(4);
    world.answer(PROVIDER, request);
    assert!(world.expect_answered(CALLER).1.is_ok());
}

/// Three answers come in one read, or byte by byte.
#[test]
fn how_a_drain_goes_is_told_alike_however_reads_are_cut() {
    let answered = |chunk, drain: fn(&mut World)| {
        let mut world = math();
        world.chunk = chunk;
        let requests = [1, 2, 3].map(|token| world.running(token));
        drain(&mut world);
        for request in requests {
            let answer = Command::Answer { request, result: Ok(payload(b"3")) };
            world.clients[PROVIDER].handle_input(world.now, Input::Command(answer));
        }
        world.run();
        world
    };
    for chunk in [1, usize::MAX] {
        let client = answered(chunk, |world| world.drain_client(CALLER, TEN));
        let hub = answered(chunk, |world| world.drain_hub(TEN));
        let of_client = client.events[CALLER].iter().filter_map(|event| match event {
            Event::Draining { running, .. } => Some(*running),
            _ => None,
        });
        let of_hub = hub.hub_events.iter().filter_map(|event| match event {
            hub::Event::Draining { running } => Some(*running),
            _ => None,
        });
        assert_eq!((of_client.collect(), of_hub.collect()), (vec![3, 2, 1, 0], vec![3, 2, 1, 0]), "{chunk}");
    }
}

/// Otherwise it would end the next connection, which nobody drains.
#[test]
fn a_drain_without_a_connection_is_over_at_once() {
    let mut world = math();
    world.command(PROVIDER, Command::Close);
    world.events[PROVIDER].clear();
    world.command(PROVIDER, Command::Drain(DrainCommand::Client { time: TEN, busy: true }));
    assert_eq!(world.expect_draining(PROVIDER), (None, 0, 0));
    assert_eq!(world.expect_over(PROVIDER), CloseReason::Local);
    world.command(PROVIDER, Command::Connect);
    assert!(matches!(world.next(PROVIDER), Event::Ready(_)));
    world.pass(TEN);
    assert!(world.is_linked(PROVIDER));
}

#[test]
fn a_drain_ends_with_a_connection_that_does_not_come_back() {
    let mut world = math();
    let request = world.running(1);
    world.drain_client(PROVIDER, TEN);
    world.events[PROVIDER].clear();
    world.cut(PROVIDER);
    assert_eq!(world.expect_end(PROVIDER), (request, Failure::Local(Misuse::Disconnected)));
    let mut last = world.next(PROVIDER);
    while let Some(event) = world.events[PROVIDER].pop_front() {
        last = event;
    }
    assert!(matches!(last, Event::Draining { .. } | Event::Closed(_)), "{last:?}");
    assert_eq!(world.clients[PROVIDER].poll_timeout(), None, "no timer is left");
}

#[test]
fn an_item_that_was_sent_before_the_end_still_comes() {
    let mut world = math();
    let (channel, event) = (name("math"), EventName::new("feed").unwrap());
    world.command(PROVIDER, Command::Provide { token: Token(6), channel, event, kind: EventKind::Stream });
    world.expect_done(PROVIDER, 6);
    let request = world.streaming(9);
    world.drain_client(PROVIDER, TEN);
    let stream = StreamId::Request(request);
    world.command(PROVIDER, Command::Stream(StreamCommand::Items { stream, payloads: vec![payload(b"1")] }));
    assert!(matches!(world.next(CALLER), Event::Stream(StreamEvent::Item { .. })));
    world.command(PROVIDER, Command::Stream(StreamCommand::Finish { stream }));
    assert!(matches!(world.next(CALLER), Event::Stream(StreamEvent::Ended { result: Ok(()), .. })));
    assert!(!world.is_linked(PROVIDER), "with its last stream the client is through");
}

/// Told once when it begins, however much follows; and again only after the client had caught up.
#[test]
fn a_slow_consumer_is_told_of_once_each_time_it_falls_behind() {
    let mut limits = Limits::default();
    (limits.outbox, limits.in_flight) = (40_000, 1_000);
    let clients = ["speaker", "slow"].map(|id| support::client(id, Secret::key(KEY)));
    let mut world = World::with(support::hub(limits), clients.into());
    world.connect_all();
    world.open(0, "ch");
    world.open(1, "ch");
    world.listen(1, 7, "ch", None);
    world.hub_events.clear();
    for _ in 0..3 {
        world.stalled = Some(1);
        for _ in 0..50 {
            world.say(0, "ch", "ev", &[0; 500]);
        }
        let slow = |event: &hub::Event| match event {
            hub::Event::SlowConsumer { client, waiting, .. } => {
                assert!(&**client == "slow" && (20_000..21_000).contains(waiting), "{event:?}");
                true
            }
            _ => false,
        };
        assert_eq!(std::mem::take(&mut world.hub_events).iter().filter(|event| slow(event)).count(), 1);
        world.release_stalled();
        assert!(world.is_linked(1));
    }
}
