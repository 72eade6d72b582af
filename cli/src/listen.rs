//! `commipc listen`: broadcasts as lines.

use ciborium::Value;
use commipc_tokio::{HubId, Message, Payload};
use serde::Serialize;

use crate::args::{Common, Listen};
use crate::connect;
use crate::errors::{self, channel_name, event_name};
use crate::failure::Outcome;
use crate::json::{self, Printed};
use crate::payload;
use crate::stop::Stop;

pub(crate) async fn run(args: &Listen, common: &Common) -> Outcome {
    let mut stop = Stop::new()?;
    let hub = connect::url(common);
    let name = channel_name(&args.channel)?;
    let event = args.event.as_deref().map(event_name).transpose()?;
    let failed = |code, text: String| errors::operation(&hub, &name, event.as_ref(), code, &text);
    let client = connect::client(common).await?;
    let channel =
        connect::opening(&client, &name, common)?.await.map_err(|error| failed(error.code(), error.to_string()))?;
    let listening = channel.listen_payloads(args.event.as_deref()).await;
    let mut listener = listening.map_err(|error| failed(error.code(), error.to_string()))?;
    ready(args, common.json);
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let message = tokio::select! {
            () = stop.requested() => break,
            message = listener.next() => message,
        };
        let Some(message) = message else {
            return Err(errors::closed(&hub, &name, &client, channel.closed().await).await);
        };
        let line = if common.json { to_json(&message) } else { to_text(&message, client.hub_id()) };
        // Whoever reads this has seen enough, as `head` has.
        if crate::try_say(&format!("{line}\n")).is_err() {
            break;
        }
        left -= 1;
    }
    client.close().await;
    Ok(())
}

/// On stderr, since stdout carries the messages and nothing else.
fn ready(args: &Listen, json: bool) {
    let Listen { channel, event, .. } = args;
    if json {
        crate::say_beside(serde_json::json!({ "listening": { "channel": channel, "event": event } }));
    } else if let Some(event) = event {
        crate::say_beside(format_args!("listening to {channel}/{event}"));
    } else {
        crate::say_beside(format_args!("listening to {channel}"));
    }
}

/// The sender's hub is told where it is another one than ours.
fn to_text(message: &Message<Payload>, own_hub: &HubId) -> String {
    let sender = message.sender();
    let from = if sender.hub == *own_hub { sender.client.to_string() } else { sender.to_string() };
    let gaps = gaps(message.missed(), message.lost());
    format!("{from} {} {}{gaps}", message.event(), json::print(&payload::shown(message)))
}

/// What stands behind a message before which others are missing.
fn gaps(missed: u64, lost: u64) -> String {
    match (missed, lost) {
        (0, 0) => String::new(),
        (missed, 0) => format!(" ({missed} missed)"),
        (0, lost) => format!(" ({lost} lost)"),
        (missed, lost) => format!(" ({missed} missed, {lost} lost)"),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    sender: &'a str,
    hub: &'a str,
    channel: &'a str,
    event: &'a str,
    data: Printed<'a>,
    number: u64,
    sent_at: u64,
    hops: u8,
    metadata: Option<Printed<'a>>,
    missed: u64,
    lost: u64,
}

fn to_json(message: &Message<Payload>) -> String {
    let data = payload::shown(message);
    let metadata = match &message.metadata()[..] {
        [] => None,
        bytes => Some(payload::value(bytes).unwrap_or_else(|| Value::Bytes(bytes.to_vec()))),
    };
    let line = Line {
        sender: &message.sender().client,
        hub: &message.sender().hub,
        channel: message.channel(),
        event: message.event(),
        data: Printed(&data),
        number: message.number(),
        sent_at: message.sent_at().0,
        hops: message.hops(),
        metadata: metadata.as_ref().map(Printed),
        missed: message.missed(),
        lost: message.lost(),
    };
    json::line(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_told_with_their_reason() {
        let told = [(0, 0), (3, 0), (0, 2), (3, 2)].map(|(missed, lost)| gaps(missed, lost));
        assert_eq!(told, ["", " (3 missed)", " (2 lost)", " (3 missed, 2 lost)"]);
    }
}
