//! What is seen of a request's end, in the words of `docs/endings.md`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use commipc_protocol::client::{
    CallFailure, Command, Credit, Event, EventKind, Failure, Outgoing, ReconnectEvent, RequestId, StreamCommand,
    StreamEvent, StreamId, Token,
};

pub const KINDS: [EventKind; 3] = [EventKind::Call, EventKind::Stream, EventKind::Exchange];

/// How long a request may take until it is taken, and until it has ended, if that is said. Of a call both are one.
pub type Times = (Duration, Option<Duration>);

/// What asks for a request of this kind; `window` is what the caller of a stream takes at once.
pub fn asks(kind: EventKind, token: Token, outgoing: Outgoing, (time, whole): Times, window: Credit) -> Command {
    let (exchange, time_left) = (kind == EventKind::Exchange, time);
    match kind {
        EventKind::Call => Command::Call { token, outgoing, time_left: whole.unwrap_or(time) },
        _ => Command::Stream(StreamCommand::Ask { token, outgoing, time_left, whole, window, exchange }),
    }
}

/// All items of a stream: the first has come while it runs, the others are given when it is to end.
const ITEMS: [&[u8]; 3] = [b"1", b"2", b"3"];

/// What a stream gives at first.
pub fn gives(stream: StreamId) -> Command {
    Command::Stream(StreamCommand::Items { stream, payloads: vec![super::payload(ITEMS[0])] })
}

/// With what the caller of an exchange ends what it gives.
pub const fn caller_finishes(request: Token) -> Command {
    Command::Stream(StreamCommand::Finish { stream: StreamId::Call(request) })
}

/// With what a provider ends it well.
pub fn finishes(kind: EventKind, request: RequestId) -> Vec<Command> {
    let stream = StreamId::Request(request);
    let payloads = ITEMS[1..].iter().map(|item| super::payload(item)).collect();
    match kind {
        EventKind::Call => vec![Command::Answer { request, result: Ok(super::payload(b"3")) }],
        _ => [StreamCommand::Items { stream, payloads }, StreamCommand::Finish { stream }].map(Command::Stream).into(),
    }
}

/// What was seen before something happens, but for items that came.
pub fn forget(events: &mut VecDeque<Event>) {
    events.retain(|event| matches!(event, Event::Stream(StreamEvent::Item { .. })));
}

pub fn caller_sees(events: &VecDeque<Event>, request: Token) -> String {
    seen(events, |event| match event {
        Event::Answered { token, result } if *token == request => {
            Some(result.as_ref().map_or_else(failed, |_| "its answer".to_owned()))
        }
        Event::Stream(StreamEvent::Ended { token, result }) if *token == request => {
            Some(result.as_ref().map_or_else(failed, |()| format!("{}, then the end", items(events, request))))
        }
        _ => None,
    })
}

/// Which items have come.
fn items(events: &VecDeque<Event>, request: Token) -> String {
    let come = events.iter().filter_map(|event| match event {
        Event::Stream(StreamEvent::Item { stream, payload, .. }) if *stream == StreamId::Call(request) => {
            Some(&payload.bytes[..])
        }
        _ => None,
    });
    let come: Vec<&[u8]> = come.collect();
    if come == ITEMS { "all items".to_owned() } else { format!("items {come:?} of {ITEMS:?}") }
}

/// What the provider sees; any request at all, where it should get none.
pub fn provider_sees(events: &VecDeque<Event>, request: Option<RequestId>) -> String {
    seen(events, |event| match event {
        Event::Stream(StreamEvent::Finished { request: finished, result }) if Some(*finished) == request => {
            let come = events.iter().filter(|event| match event {
                Event::Stream(StreamEvent::Item { stream, payload, .. }) => {
                    *stream == StreamId::Request(*finished) && payload.bytes == ITEMS[0]
                }
                _ => false,
            });
            assert_eq!(come.count(), 1, "{events:?}");
            Some(
                result
                    .map_or_else(|why| coded(Failure::Local(why)), |()| "the caller's items and their end".to_owned()),
            )
        }
        Event::RequestEnded { request: ended, why } if Some(*ended) == request => Some(coded(*why)),
        Event::Request(_) => Some("the request".to_owned()),
        _ => None,
    })
}

fn seen(events: &VecDeque<Event>, of_request: impl Fn(&Event) -> Option<String>) -> String {
    let mut seen = Vec::new();
    for event in events {
        seen.extend(of_request(event));
        match event {
            Event::Closed(reason) => seen.push(format!("`Closed({reason:?})`")),
            // What is told of tries to come back is no end of the request's.
            Event::Reconnect(ReconnectEvent::Lost { reason, .. }) => {
                seen.push(format!("`Lost({reason:?})`"));
                break;
            }
            Event::ChannelClosed { why, .. } => seen.push(format!("`ChannelClosed`: {}", coded(*why))),
            _ => {}
        }
    }
    if seen.is_empty() { "nothing".to_owned() } else { seen.join(", then ") }
}

fn coded(failure: Failure) -> String {
    let code = failure.code().0;
    match failure {
        Failure::Refused(refusal) => format!("`Refusal::{refusal:?}` ({code})"),
        Failure::Local(misuse) => format!("`Misuse::{misuse:?}` ({code})"),
        Failure::RefusedCode(_) => panic!("{failure:?}"),
    }
}

fn failed(failure: &CallFailure) -> String {
    match failure {
        CallFailure::Failed { failure, maybe_executed } => {
            format!("{}, {}", coded(*failure), if *maybe_executed { "may have run" } else { "has not run" })
        }
        CallFailure::Fault(fault) => panic!("{fault}"),
    }
}

const fn plural(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Call => "call",
        EventKind::Stream => "stream",
        _ => "exchange",
    }
}

/// The lines of the table: for each cause what caller and provider see of each kind. Kinds that end alike share a line.
pub fn table<'a>(causes: impl IntoIterator<Item = (&'a str, [(String, String); 3])>) -> String {
    let mut table = "| what happens | to a | its caller sees | its provider sees |\n|---|---|---|---|\n".to_owned();
    for (cause, seen) in causes {
        let mut rows: Vec<((String, String), Vec<&str>)> = Vec::new();
        for (kind, seen) in KINDS.into_iter().zip(seen) {
            match rows.iter_mut().find(|row| row.0 == seen) {
                Some(row) => row.1.push(plural(kind)),
                None => rows.push((seen, vec![plural(kind)])),
            }
        }
        for ((caller, provider), kinds) in rows {
            let kinds = if kinds.len() == KINDS.len() { "each".to_owned() } else { kinds.join(", ") };
            writeln!(table, "| {cause} | {kinds} | {caller} | {provider} |").unwrap();
        }
    }
    table
}

/// The document's first or second table is what was observed.
pub fn is_in_the_document(number: usize, observed: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/endings.md");
    let document = std::fs::read_to_string(path).unwrap();
    let part = document.split("\n## Over bridges\n").nth(number).unwrap();
    let table: String = part.lines().filter(|line| line.starts_with('|')).map(|line| format!("{line}\n")).collect();
    assert!(table == observed, "the table of docs/endings.md is not what happens, which is:\n{observed}");
}
