//! What the hub says and answers on its own channels, and who may hear it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use ciborium::Value;
use commipc_protocol::auth::{Capabilities, Credential, Credentials, IdPattern, Secret, Verifier};
use commipc_protocol::client::{Command, Dropped, Event, Failure, Message, Outgoing, Payload, Token};
use commipc_protocol::hub::{ERRORS_CHANNEL, LOGS_CHANNEL, SYSTEM_CHANNEL};
use commipc_protocol::wire::{Flags, FrameType, Header, Hop, Kind, Target};
use commipc_protocol::{
    CloseReason, CredentialId, EventName, Input, Limits, LinkId, Machine as _, Name, Refusal, Violation,
};
use support::{KEY, World, client, hub, name, outgoing};

fn heard(world: &mut World, client: usize) -> Vec<(String, Value)> {
    let mut heard = Vec::new();
    while let Some(event) = world.events[client].pop_front() {
        let Event::Message(Message { message, .. }) = event else { panic!("{event:?}") };
        assert_eq!(message.sender.to_string(), "system@hub-a", "nobody else speaks here");
        heard.push((message.event.to_string(), value(&message.payload.bytes)));
    }
    heard
}

fn value(bytes: &[u8]) -> Value {
    ciborium::from_reader(bytes).unwrap()
}

/// A field of a message's map.
fn field(value: &Value, name: &str) -> Value {
    let map = value.as_map().unwrap();
    map.iter()
        .find(|(key, _)| key.as_text() == Some(name))
        .unwrap_or_else(|| panic!("no {name} in {value:?}"))
        .1
        .clone()
}

fn text(value: &Value, name: &str) -> String {
    field(value, name).into_text().unwrap_or_default()
}

/// A monitor of one of the hub's channels, and two others.
fn monitored(channel: &str) -> World {
    let mut world = World::ready(&["monitor", "a", "b"]);
    world.open(0, channel);
    world.listen(0, 7, channel, None);
    world
}

#[test]
fn s64_every_registration_is_told_and_every_end_of_one() {
    let mut world = monitored(SYSTEM_CHANNEL);
    world.open(1, "math");
    world.provide(1, 5, "math", "sum");
    world.cut(1);
    let heard = heard(&mut world, 0);
    let told = |(event, value): &(String, Value)| match event.as_str() {
        "client_disconnected" => format!("{event} {}", text(value, "client_id")),
        "owner_changed" => format!("{event} {} {}", text(value, "channel"), text(value, "owner")),
        "channel_terminated" => format!("{event} {}", text(value, "channel")),
        _ => format!("{event} {} {}", text(value, "channel"), text(value, "event")),
    };
    let expected = [
        "new_registration math ",
        "owner_changed math a",
        "new_registration math sum",
        "registration_ended math sum",
        "registration_ended math ",
        "channel_terminated math",
        "client_disconnected a",
    ];
    assert_eq!(heard.iter().map(told).collect::<Vec<_>>(), expected);
    let (_, provided) = &heard[2];
    assert_eq!(field(provided, "is_provider"), Value::Bool(true));
    assert_eq!(field(provided, "is_stream"), Value::Bool(false));
    assert_eq!(text(provided, "client_id"), "a");
    assert_eq!(field(&heard[0].1, "event"), Value::Null);
}

#[test]
fn s64_a_stream_is_told_as_one_and_so_is_an_event_that_becomes_one() {
    use commipc_protocol::client::EventKind;
    let mut world = monitored(SYSTEM_CHANNEL);
    world.open(1, "math");
    let event = commipc_protocol::EventName::new("sum").unwrap();
    for (token, kind) in [(5, EventKind::Call), (6, EventKind::Stream), (7, EventKind::Exchange)] {
        let (channel, event) = (support::name("math"), event.clone());
        world.command(1, Command::Provide { token: Token(token), channel, event, kind });
        world.expect_done(1, token);
    }
    let heard = heard(&mut world, 0);
    let streams = heard.iter().filter(|(event, value)| event == "new_registration" && text(value, "event") == "sum");
    let streams: Vec<_> = streams.map(|(_, value)| field(value, "is_stream")).collect();
    assert_eq!(streams, [Value::Bool(false), Value::Bool(true), Value::Bool(true)]);
}

#[test]
fn s63_logs_say_who_came_and_went() {
    let mut world = monitored(LOGS_CHANNEL);
    world.cut(1);
    world.clients[1] = client("a", Secret::key(KEY));
    world.events[1].clear();
    world.command(1, Command::Connect);
    let heard = heard(&mut world, 0);
    assert_eq!(heard.len(), 2);
    for (event, value) in &heard {
        assert_eq!((event.as_str(), text(value, "level").as_str()), ("server_log", "info"));
        assert_eq!((text(value, "client_id"), text(value, "server_id")), ("a".to_owned(), "hub-a".to_owned()));
    }
    assert!(text(&heard[0].1, "message").contains("disconnected"));
    assert!(text(&heard[1].1, "message").contains("connected"));
}

#[test]
fn s63_a_password_that_is_set_or_changed_is_told_and_logged() {
    let mut world = monitored(LOGS_CHANNEL);
    world.open(0, SYSTEM_CHANNEL);
    world.listen(0, 8, SYSTEM_CHANNEL, None);
    world.open(1, "vault");
    for epoch in 1..=2 {
        world.events[0].clear();
        world.protect(1, "vault", &Secret::key([9; 32]), epoch);
        let heard = heard(&mut world, 0);
        let [(told, change), (logged, line)] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!((told.as_str(), logged.as_str()), ("protection_changed", "server_log"));
        assert_eq!(text(change, "channel"), "vault");
        assert_eq!((field(change, "epoch"), field(change, "protected")), (Value::from(epoch), Value::Bool(true)));
        assert_eq!(text(line, "level"), "info");
        assert_eq!(text(line, "message"), "the password of channel vault was changed");
    }
}

#[test]
fn v25_who_reads_too_slowly_is_in_the_log_once() {
    let mut limits = Limits::default();
    (limits.outbox, limits.in_flight) = (40_000, 1_000);
    let clients = ["monitor", "slow", "speaker"].map(|id| client(id, Secret::key(KEY))).into();
    let mut world = World::with(hub(limits), clients);
    world.connect_all();
    world.open(0, LOGS_CHANNEL);
    world.listen(0, 7, LOGS_CHANNEL, None);
    world.open(1, "ch");
    world.listen(1, 8, "ch", None);
    world.stalled = Some(1);
    (0..50).for_each(|_| world.say(2, "ch", "ev", &[0; 500]));
    let heard = heard(&mut world, 0);
    let [(event, line)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((event.as_str(), text(line, "level").as_str()), ("server_log", "warning"));
    assert_eq!(text(line, "client_id"), "slow");
    assert!(text(line, "message").starts_with("client slow reads too slowly: "), "{line:?}");
}

/// What is told of an error on the two channels it goes to, to the letter: its number, its name, and whose it is.
#[track_caller]
fn told_on_both_channels(world: &mut World, code: u16, client: Option<&str>) {
    let heard = heard(world, 0);
    let [(error, told), (log, line)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((error.as_str(), log.as_str()), ("server_error", "server_log"));
    assert_eq!(field(told, "code"), Value::from(code));
    assert_eq!(text(line, "level"), "error");
    assert!(!text(told, "error").is_empty() && text(told, "error") == text(line, "message"), "{told:?} {line:?}");
    for value in [told, line] {
        assert_eq!(field(value, "client_id"), client.map_or(Value::Null, Value::from));
        assert_eq!(text(value, "server_id"), "hub-a");
    }
}

#[test]
fn s62_an_error_is_told_on_the_channel_of_errors_on_that_of_logs_and_to_whose_it_is() {
    let mut world = monitored(ERRORS_CHANNEL);
    world.open(0, LOGS_CHANNEL);
    world.listen(0, 8, LOGS_CHANNEL, None);
    let broken = Violation::BadControl.code();
    assert_eq!((broken, Refusal::AuthFailed.code()), (6, 100), "numbers stay");
    world.inject(1, &[0, 0, 0, 2, 16, 0xff]);
    told_on_both_channels(&mut world, broken, Some("a"));
    let Event::Closed(CloseReason::GoodbyeCode(told)) = world.next(1) else { panic!("it is not told why") };
    assert_eq!(told, broken);
    // Whoever knows no secret is nobody yet.
    world.clients[1] = client("a", Secret::key([0; 32]));
    world.command(1, Command::Connect);
    told_on_both_channels(&mut world, Refusal::AuthFailed.code(), None);
    let Event::Closed(CloseReason::Refused(told)) = world.next(1) else { panic!("it is not told why") };
    assert_eq!(told, Refusal::AuthFailed);
    assert!(world.events.iter().all(std::collections::VecDeque::is_empty), "nobody else is told anything");
}

/// Fails to log in so often.
fn fail(world: &mut World, times: usize) {
    for _ in 0..times {
        world.clients[2] = client("b", Secret::key([8; 32]));
        world.command(2, Command::Connect);
        world.cut(2);
    }
}

#[test]
fn v20_failed_logins_do_not_flood_those_who_watch_and_none_is_dropped_in_silence() {
    let mut limits = Limits::default();
    (limits.failures_told, limits.failures_told_in) = (3, Duration::from_secs(20));
    limits.free_failures = 1_000;
    let clients = ["monitor", "a", "b"].map(|id| client(id, Secret::key(KEY))).into();
    let mut world = World::with(hub(limits), clients);
    world.command(0, Command::Connect);
    world.next(0);
    fail(&mut world, 50);
    for channel in [ERRORS_CHANNEL, LOGS_CHANNEL] {
        world.open(0, channel);
        world.listen(0, 7, channel, None);
    }
    let told = |world: &mut World| -> Vec<(String, Option<u64>)> {
        let left_out = |value: &Value| {
            let entry = value.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some("left_out"));
            entry.map(|(_, number)| u64::try_from(number.as_integer().unwrap()).unwrap())
        };
        heard(world, 0).into_iter().map(|(event, value)| (event, left_out(&value))).collect()
    };
    fail(&mut world, 3);
    let one = [("server_error".to_owned(), None), ("server_log".to_owned(), None)];
    assert_eq!(told(&mut world), vec![one; 3].concat(), "the first few are told");
    fail(&mut world, 200);
    assert_eq!(told(&mut world), []);
    world.pass(Duration::from_secs(19));
    assert_eq!(told(&mut world), []);
    world.pass(Duration::from_secs(1));
    let summary = [("server_error".to_owned(), Some(200)), ("server_log".to_owned(), None)];
    assert_eq!(told(&mut world), summary, "and the number of the others");
    fail(&mut world, 4);
    assert_eq!(told(&mut world).len(), 6, "a new period begins");
    world.pass(Duration::from_secs(20));
    assert_eq!(told(&mut world)[0].1, Some(1));
    world.pass(Duration::from_secs(60));
    assert_eq!(told(&mut world), [], "nothing is said of nothing");
}

#[test]
fn s61_an_error_ends_nobody_elses_link_and_is_told_to_those_who_listen_and_no_one_else() {
    let mut world = World::ready(&["monitor", "a", "b"]);
    let forwarded = |world: &World| world.hub.counters().forwarded;
    world.inject(1, &[0, 0, 0, 2, 16, 0xff]);
    assert!(!world.is_linked(1) && world.is_linked(2));
    assert_eq!(forwarded(&world), 0, "nobody listens, so nothing is said");
    world.open(0, ERRORS_CHANNEL);
    world.listen(0, 7, ERRORS_CHANNEL, None);
    world.inject(2, &[0, 0, 0, 2, 16, 0xff]);
    assert_eq!((heard(&mut world, 0).len(), forwarded(&world)), (1, 1));
}

#[test]
fn s65_what_the_hub_says_reaches_only_those_who_listen_and_is_numbered() {
    let mut world = monitored(SYSTEM_CHANNEL);
    world.open(2, SYSTEM_CHANNEL);
    for number in 0..5 {
        world.open(1, &format!("channel {number}"));
    }
    let numbers: Vec<u64> = world.events[0]
        .iter()
        .filter_map(|event| match event {
            Event::Message(message) if &*message.message.event == "new_registration" => Some(message.number),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6], "dense from one: the other monitor's own opening is the first");
    assert!(world.events[2].is_empty(), "opened and not listened");
}

#[test]
fn v17_s66_d17_reserved_names_are_nobodys() {
    let mut world = World::ready(&["a", "b"]);
    world.open(0, SYSTEM_CHANNEL);
    let provide = Command::Provide {
        token: Token(1),
        channel: name(SYSTEM_CHANNEL),
        event: EventName::new("channels").unwrap(),
        kind: commipc_protocol::client::EventKind::Call,
    };
    world.command(0, provide);
    assert!(matches!(world.next(0), Event::Done { result: Err(Failure::Refused(Refusal::HubOwned)), .. }));
    for command in [
        Command::Broadcast { token: Token(2), outgoing: outgoing(SYSTEM_CHANNEL, "new_registration", b"") },
        Command::Send { token: Token(3), outgoing: outgoing(SYSTEM_CHANNEL, "channels", b"") },
    ] {
        world.command(0, command);
        assert!(matches!(world.next(0), Event::Sent { result: Err(Failure::Refused(Refusal::HubOwned)), .. }));
    }
    world.command(
        0,
        Command::Open {
            token: Token(4),
            channel: name("__comm_ipc_of_mine"),
            access: commipc_protocol::client::Access::default(),
        },
    );
    assert!(matches!(world.next(0), Event::Done { result: Err(Failure::Refused(Refusal::NameReserved)), .. }));
    for id in ["system", "server", "__comm_ipc_x"] {
        assert!(commipc_protocol::ClientId::new(id).is_err());
    }
}

#[test]
fn v33_d12_a_monitor_that_leaves_takes_nothing_from_the_others() {
    let mut world = monitored(SYSTEM_CHANNEL);
    world.open(1, SYSTEM_CHANNEL);
    world.listen(1, 7, SYSTEM_CHANNEL, None);
    world.cut(0);
    assert!(heard(&mut world, 1).iter().any(|(event, _)| event == "client_disconnected"));
}

/// A frame with a broadcast as a hub would forward it.
fn broadcast(channel: &'static str, sender: &'static str, origin: &'static str) -> Bytes {
    let header = Header {
        kind: Kind::Broadcast,
        flags: Flags::RAW,
        channel: Name::new(channel).unwrap(),
        event: Name::new("server_log").unwrap(),
        epoch: 0,
        sender: Name::new(sender).unwrap(),
        origin: Name::new(origin).unwrap(),
        instance: &[1; 16],
        seq: 1,
        bseq: 1,
        sent_at: 1,
        time_left: 1,
        request: 0,
        reference: &[],
        index: 0,
        target: Target::NONE,
        metadata: &[],
    };
    let mut protected = BytesMut::new();
    header.encode(&mut protected);
    let len = u8::try_from(protected.len()).unwrap();
    let mut body = BytesMut::new();
    Hop::direct(0, 1).put(&mut body);
    body.put_slice(&[0x84, 0x58, len]);
    body.put_slice(&protected);
    body.put_slice(&[0xa0, 0x40, 0x40]);
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(body.len()).unwrap() + 1);
    frame.put_u8(FrameType::Broadcast.number());
    frame.put_slice(&body);
    frame.freeze()
}

#[test]
fn v33_a_client_takes_the_hubs_words_only_from_its_hub_and_only_on_its_channels() {
    let mut world = monitored(LOGS_CHANNEL);
    world.open(0, "news");
    world.listen(0, 8, "news", None);
    let dialled = LinkId::dialled(0, 1);
    for (channel, sender, origin, taken) in [
        (LOGS_CHANNEL, "system", "hub-a", true),
        (LOGS_CHANNEL, "system", "hub-b", false),
        (LOGS_CHANNEL, "a", "hub-a", false),
        ("news", "system", "hub-a", false),
        ("news", "a", "hub-b", true),
    ] {
        let data = broadcast(channel, sender, origin);
        world.clients[0].handle_input(world.now, Input::Received { link: dialled, data });
        world.run();
        let event = world.next(0);
        let fits = matches!(event, Event::Message(_)) == taken && matches!(event, Event::Dropped(_)) != taken;
        assert!(fits, "{channel} {sender}@{origin}: {event:?}");
        assert!(!matches!(event, Event::Dropped(Dropped::EndedRoute)));
    }
}

/// Asks the hub.
fn ask(world: &mut World, client: usize, event: &str, question: &Value) -> Result<Value, String> {
    let mut bytes = Vec::new();
    ciborium::into_writer(question, &mut bytes).unwrap();
    let payload = Payload { bytes: bytes.into(), raw: false };
    let outgoing = Outgoing { payload, ..outgoing(SYSTEM_CHANNEL, event, b"") };
    world.command(client, Command::Call { token: Token(99), outgoing, time_left: std::time::Duration::from_secs(1) });
    match world.expect_answered(client).1 {
        Ok(answer) => {
            assert_eq!(answer.provider.to_string(), "system@hub-a");
            Ok(value(&answer.payload.bytes))
        }
        Err(failure) => Err(failure.to_string()),
    }
}

fn question(channel: &str) -> Value {
    Value::Map(vec![("channel".into(), channel.into())])
}

#[test]
fn the_hub_lists_channels_and_members() {
    let mut world = World::ready(&["a", "b"]);
    world.open(0, "math");
    world.open(1, "math");
    world.open(1, "news");
    world.protect(1, "news", &Secret::key([1; 32]), 1);
    world.provide(1, 1, "math", "sum");
    world.provide(1, 2, "math", "difference");
    let channels = field(&ask(&mut world, 0, "channels", &Value::Null).unwrap(), "channels").into_array().unwrap();
    let facts = |info: &Value| {
        let [name, owner] = ["name", "owner"].map(|of| text(info, of));
        (name, owner, ["protected", "members", "providers"].map(|of| field(info, of)))
    };
    let expected =
        [("math", "a", [false.into(), 2.into(), 2.into()]), ("news", "b", [true.into(), 1.into(), 0.into()])];
    let expected = expected.map(|(name, owner, rest)| (name.to_owned(), owner.to_owned(), rest));
    assert_eq!(channels.iter().map(facts).collect::<Vec<_>>(), expected);
    let members = ask(&mut world, 0, "members", &question("math")).unwrap();
    assert_eq!(field(&members, "next"), Value::Null);
    let members = field(&members, "members").into_array().unwrap();
    assert_eq!(members.iter().map(|member| text(member, "client")).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!([0, 1].map(|member| field(&members[member], "owner")), [true.into(), false.into()]);
    assert_eq!(field(&members[1], "provides"), Value::Array(vec!["difference".into(), "sum".into()]));
    world.cut(1);
    let channels = field(&ask(&mut world, 0, "channels", &Value::Null).unwrap(), "channels").into_array().unwrap();
    let facts = |info: &Value| (text(info, "name"), field(info, "owner"), field(info, "protected"));
    assert_eq!(facts(&channels[1]), ("news".to_owned(), Value::Null, true.into()), "a password waits for its owner");
    assert!(ask(&mut world, 0, "members", &question("nowhere")).unwrap_err().contains("no such channel"));
    assert!(ask(&mut world, 0, "members", &Value::Null).unwrap_err().contains("does not fit"));
    assert!(ask(&mut world, 0, "channels", &"all".into()).unwrap_err().contains("does not fit"));
    assert!(ask(&mut world, 0, "colours", &Value::Null).unwrap_err().contains("nobody provides"));
    assert_eq!(world.hub.load().calls, 0);
}

#[test]
fn long_lists_come_in_pages() {
    let mut world = World::ready(&["a", "b"]);
    for number in 0..1_024 {
        world.open(0, &format!("one {number}"));
        world.open(1, &format!("two {number}"));
    }
    let pages = pages(&mut world, "channels", None);
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 48]);
    each_once(&pages, "name", 2_048);
}

#[test]
fn members_come_in_pages_too() {
    let ids: Vec<String> = (0..1_100).map(|number| format!("client {number}")).collect();
    let mut world = World::ready(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    (0..1_100).for_each(|client| world.open(client, "math"));
    let pages = pages(&mut world, "members", Some("math"));
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 100]);
    each_once(&pages, "client", 1_100);
}

#[test]
fn no_page_is_longer_than_a_frame() {
    let mut limits = Limits::default();
    limits.frame = 40_000;
    let mut world = World::with(hub(limits), ["a", "b"].map(|id| client(id, Secret::key(KEY))).into());
    world.connect_all();
    let long = |number: u32| format!("{number:0>120}");
    (0..200).for_each(|number| world.open(0, &long(number)));
    let pages = pages(&mut world, "channels", None);
    assert!(pages.len() > 2, "{} pages", pages.len());
    each_once(&pages, "name", 200);
    (0..2).for_each(|client| world.open(client, "math"));
    for number in 0..200 {
        (0..2).for_each(|client| world.provide(client, number.into(), "math", &format!("{client}{}", long(number))));
    }
    let members = self::pages(&mut world, "members", Some("math"));
    assert_eq!(
        members.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 1, 0],
        "each of them is half as long as a frame, and more"
    );
    (200..400).for_each(|number| world.provide(1, number.into(), "math", &long(number)));
    let next = field(&ask(&mut world, 0, "members", &question("math")).unwrap(), "next");
    let question = Value::Map(vec![("channel".into(), "math".into()), ("after".into(), next)]);
    let refused = ask(&mut world, 0, "members", &question).unwrap_err();
    assert!(refused.contains("larger than a frame"), "one member alone is longer: {refused}");
    assert_eq!(pages.len(), self::pages(&mut world, "channels", None).len(), "and whoever asked for it goes on");
}

/// All pages of a list.
fn pages(world: &mut World, list: &str, channel: Option<&str>) -> Vec<Vec<Value>> {
    let (mut pages, mut after) = (Vec::new(), Value::Null);
    loop {
        let mut question = vec![("after".into(), after)];
        question.extend(channel.map(|channel| ("channel".into(), channel.into())));
        let answer = ask(world, 0, list, &Value::Map(question)).unwrap();
        pages.push(field(&answer, list).into_array().unwrap());
        after = field(&answer, "next");
        if after == Value::Null {
            return pages;
        }
    }
}

fn each_once(pages: &[Vec<Value>], named: &str, count: usize) {
    let names: BTreeSet<String> = pages.iter().flatten().map(|entry| text(entry, named)).collect();
    assert_eq!((names.len(), pages.iter().map(Vec::len).sum::<usize>()), (count, count));
}

#[test]
fn what_the_hub_sees_is_for_observers() {
    let credential = |key, capabilities, pattern| {
        let verifier = Verifier::new(&Secret::key(key), [3; 16], 100_000).unwrap();
        Credential::new(verifier, capabilities, vec![IdPattern::new(pattern).unwrap()])
    };
    let id = |text| CredentialId::new(text).unwrap();
    let table = Credentials::new([9; 32])
        .with(id("default"), credential(KEY, Capabilities::NONE, "*"))
        .with(id("eyes"), credential([6; 32], Capabilities::OBSERVER, "monitor-*"));
    let mut world = World::new(&["worker"]);
    world.feed_hub(Input::Command(commipc_protocol::hub::Command::SetCredentials(table)));
    world.connect_all();
    world.command(
        0,
        Command::Open {
            token: Token(1),
            channel: name(SYSTEM_CHANNEL),
            access: commipc_protocol::client::Access::default(),
        },
    );
    assert!(matches!(world.next(0), Event::Done { result: Err(Failure::Refused(Refusal::NotAllowed)), .. }));
    assert!(ask(&mut world, 0, "channels", &Value::Null).unwrap_err().contains("does not allow"));
}
