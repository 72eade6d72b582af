//! Every kind of message, and every field of it: what a hub has changed of it nobody on a protected channel takes, and what it
//! has not is taken after all.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::time::Duration;

use ciborium::Value;
use commipc_protocol::client::{
    CallFailure, Command, Event, EventKind, Payload, StreamCommand, StreamEvent, StreamId, Token,
};
use commipc_protocol::wire::{FrameType, Hop};
use commipc_protocol::{Fault, FaultCode};
use support::streaming::{CALL, CALLER, PROVIDER, WINDOW, begun, number, protected};
use support::{World, outgoing, payload};

/// One kind: up to where its receiver, from whom the hub keeps everything back by then, would have got it.
struct Kind {
    frame: FrameType,
    receiver: usize,
    says: fn() -> World,
    /// That the receiver believes it.
    takes: fn(&Event) -> bool,
}

const KINDS: [Kind; 10] = [
    Kind { frame: FrameType::Broadcast, receiver: CALLER, says: broadcast, takes: is_message },
    Kind { frame: FrameType::Send, receiver: PROVIDER, says: send, takes: is_message },
    Kind { frame: FrameType::Call, receiver: PROVIDER, says: call, takes: |event| matches!(event, Event::Request(_)) },
    Kind {
        frame: FrameType::Answer,
        receiver: CALLER,
        says: || answered(Ok(payload(b"4"))),
        takes: |event| matches!(event, Event::Answered { result: Ok(_), .. }),
    },
    Kind {
        frame: FrameType::Fault,
        receiver: CALLER,
        says: || answered(Err(Fault::from(FaultCode::BadPayload))),
        takes: |event| matches!(event, Event::Answered { result: Err(CallFailure::Fault(_)), .. }),
    },
    Kind { frame: FrameType::Item, receiver: CALLER, says: item, takes: is_item },
    Kind { frame: FrameType::Item, receiver: PROVIDER, says: item_back, takes: is_item },
    Kind {
        frame: FrameType::End,
        receiver: CALLER,
        says: end,
        takes: |event| matches!(event, Event::Stream(StreamEvent::Ended { result: Ok(()), .. })),
    },
    Kind {
        frame: FrameType::Cancel,
        receiver: PROVIDER,
        says: cancel,
        takes: |event| matches!(event, Event::RequestEnded { .. }),
    },
    Kind { frame: FrameType::Beacon, receiver: CALLER, says: beacon, takes: |event| matches!(event, Event::Gap(_)) },
];

fn is_message(event: &Event) -> bool {
    matches!(event, Event::Message(_))
}

fn is_item(event: &Event) -> bool {
    matches!(event, Event::Stream(StreamEvent::Item { .. }))
}

fn deceived(kind: EventKind, client: usize) -> World {
    let mut world = protected(kind);
    world.deceived = Some(client);
    world
}

fn listened() -> World {
    let mut world = protected(EventKind::Call);
    world.listen(CALLER, 7, "ch", None);
    // From here on numbers are known.
    world.say(PROVIDER, "ch", "news", b"first");
    world.expect_message(CALLER);
    world.deceived = Some(CALLER);
    world.say(PROVIDER, "ch", "news", b"second");
    world
}

fn broadcast() -> World {
    listened()
}

fn beacon() -> World {
    let mut world = listened();
    world.pass(Duration::from_secs(10));
    world
}

fn send() -> World {
    let mut world = deceived(EventKind::Call, PROVIDER);
    world.command(CALLER, Command::Send { token: Token(8), outgoing: outgoing("ch", "ev", b"1") });
    world
}

fn call() -> World {
    let mut world = deceived(EventKind::Call, PROVIDER);
    world.call(CALLER, 9, "ch", "ev", b"1");
    world
}

fn answered(result: Result<Payload, Fault>) -> World {
    let mut world = protected(EventKind::Call);
    world.call(CALLER, 9, "ch", "ev", b"1");
    let request = world.expect_request(PROVIDER).id;
    world.deceived = Some(CALLER);
    world.command(PROVIDER, Command::Answer { request, result });
    world
}

fn cancel() -> World {
    let mut world = protected(EventKind::Call);
    world.call(CALLER, 9, "ch", "ev", b"1");
    world.expect_request(PROVIDER);
    world.deceived = Some(PROVIDER);
    world.command(CALLER, Command::Cancel { call: Token(9) });
    world
}

/// An exchange of which both sides may give, and what a side gives from then on does not arrive.
fn given(receiver: usize, by: impl FnOnce(StreamId) -> Vec<StreamCommand>) -> World {
    let mut world = protected(EventKind::Exchange);
    let stream = begun(&mut world, WINDOW, true);
    world.events.iter_mut().for_each(std::collections::VecDeque::clear);
    world.deceived = Some(receiver);
    for command in by(stream) {
        world.command(PROVIDER + CALLER - receiver, Command::Stream(command));
    }
    world
}

fn items(stream: StreamId) -> StreamCommand {
    StreamCommand::Items { stream, payloads: vec![Payload { bytes: number(1), raw: true }] }
}

fn item() -> World {
    given(CALLER, |stream| vec![items(stream)])
}

fn item_back() -> World {
    given(PROVIDER, |_| vec![items(CALL)])
}

fn end() -> World {
    given(CALLER, |stream| vec![StreamCommand::Finish { stream }])
}

/// The signed part in the middle of a frame's body: its fields, payload and tag, each as something that can be changed.
struct Parts {
    hop: Vec<u8>,
    protected: Value,
    payload: Vec<u8>,
    tag: Vec<u8>,
}

impl Parts {
    fn of(body: &[u8]) -> Self {
        let (_, message) = Hop::split(body).unwrap();
        let hop = body[..body.len() - message.len()].to_vec();
        let parts: Value = ciborium::from_reader(message).unwrap();
        let [Value::Bytes(protected), _, Value::Bytes(payload), Value::Bytes(tag)] = &parts.as_array().unwrap()[..]
        else {
            panic!("{parts:?}")
        };
        let protected = ciborium::from_reader(&protected[..]).unwrap();
        Self { hop, protected, payload: payload.clone(), tag: tag.clone() }
    }

    fn fields(&mut self) -> &mut Vec<Value> {
        self.protected.as_map_mut().unwrap()[1].1.as_array_mut().unwrap()
    }

    fn body(&self) -> Vec<u8> {
        let mut protected = Vec::new();
        ciborium::into_writer(&self.protected, &mut protected).unwrap();
        let parts = [protected, self.payload.clone(), self.tag.clone()].map(Value::Bytes);
        let [protected, payload, tag] = parts;
        let mut body = self.hop.clone();
        let whole = Value::Array(vec![protected, Value::Map(Vec::new()), payload, tag]);
        ciborium::into_writer(&whole, &mut body).unwrap();
        body
    }

    /// The kind that the fields say, as a type of frame: so that only the signature can tell.
    fn frame(&mut self) -> Option<FrameType> {
        let kind = u8::try_from(self.fields()[1].as_integer()?).ok()?;
        FrameType::from_number(32 + kind)
    }
}

/// Another value, which could as well be there.
fn other(value: &Value) -> Value {
    match value {
        Value::Integer(number) => Value::from(i128::from(*number) as u64 + 1),
        Value::Text(text) if text.is_empty() => Value::from("caller@hub-a"),
        Value::Text(text) => Value::from(format!("{text}x")),
        Value::Bytes(bytes) if bytes.is_empty() => Value::Bytes(vec![0xa0]),
        Value::Bytes(bytes) => Value::Bytes(bytes.iter().map(|byte| byte ^ 1).collect()),
        other => panic!("{other:?}"),
    }
}

type Change = Box<dyn Fn(&mut Parts)>;

/// What can be changed of a message, by name.
fn changes() -> Vec<(String, Change)> {
    let mut changes: Vec<(String, Change)> = Vec::new();
    for field in 0..18 {
        let change = move |parts: &mut Parts| {
            let fields = parts.fields();
            fields[field] = other(&fields[field]);
        };
        changes.push((format!("field {field}"), Box::new(change)));
    }
    changes.push(("the payload".to_owned(), Box::new(|parts| parts.payload.push(0))));
    changes.push(("a bit of the tag".to_owned(), Box::new(|parts| parts.tag[31] ^= 1)));
    changes.push(("the tag, to none".to_owned(), Box::new(|parts| parts.tag.clear())));
    let unprotected = |parts: &mut Parts| {
        parts.tag.clear();
        parts.fields()[5] = Value::from(0);
        parts.fields()[14] = Value::Bytes(Vec::new());
    };
    changes.push(("all, to one of no password".to_owned(), Box::new(unprotected)));
    changes
}

#[test]
fn v1_v3_v4_no_field_of_any_kind_of_message_can_be_changed() {
    for Kind { frame, receiver, says, takes } in KINDS {
        let (mut refused, mut dropped) = (0, 0);
        for (what, change) in changes() {
            let mut world = says();
            let genuine = world.last_heard(receiver, frame);
            assert!(!genuine.is_empty(), "{frame:?} is not said");
            world.deceived = None;
            world.events[receiver].clear();
            let mut parts = Parts::of(&genuine);
            assert_eq!(parts.body(), genuine, "{frame:?}: rebuilt to the byte");
            change(&mut parts);
            let as_frame = parts.frame().unwrap_or(frame);
            let told = world.show(receiver, as_frame, &parts.body());
            if told.iter().any(|event| matches!(event, Event::Closed(_))) {
                // It is none at all: the hub is not one to speak with. What was asked has ended without an answer.
                refused += 1;
                let taken = told.iter().filter(|event| takes(event) && !matches!(event, Event::RequestEnded { .. }));
                assert_eq!(taken.count(), 0, "{frame:?}, {what}: {told:?}");
                continue;
            }
            dropped += 1;
            assert!(!told.iter().any(takes), "{frame:?}, {what}: {told:?}");
            let told = world.show(receiver, frame, &genuine);
            assert!(told.iter().any(takes), "{frame:?}, after {what}: the genuine one is lost: {told:?}");
        }
        assert!(dropped > 4 && refused + dropped == 22, "{frame:?}: {refused}, {dropped}");
    }
}

#[test]
fn what_is_not_changed_is_taken_and_once() {
    for Kind { frame, receiver, says, takes } in KINDS {
        let mut world = says();
        let genuine = world.last_heard(receiver, frame);
        world.deceived = None;
        world.events[receiver].clear();
        for takes_it in [true, false] {
            let told = world.show(receiver, frame, &genuine);
            assert_eq!(told.iter().any(takes), takes_it, "{frame:?}: {told:?}");
        }
    }
}
