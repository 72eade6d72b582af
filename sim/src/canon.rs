//! One byte form of everything that goes in and out of a machine, for the trace's hash.
//!
//! Lengths stand before what varies, so that no two traces share a form. Secrets have no form: of a derived key only
//! that it came.

use bytes::Bytes;
use commipc_protocol::bridge;
use commipc_protocol::client::{
    self, Answer, CallFailure, Credit, Failure, Incoming, Outgoing, Payload, ReconnectEvent, Source, StreamCommand,
    StreamEvent, Token,
};
use commipc_protocol::{ChannelName, CloseReason, Fault, Flush, Input, LinkEnd, LinkId, Output, Peer, UnixMillis, hub};
use std::io::Write as _;

use crate::station::{Asked, Told};

/// Has a byte form.
pub trait Canon {
    /// Appends it.
    fn canon(&self, out: &mut Vec<u8>);
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    number(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn texts(out: &mut Vec<u8>, texts: &[&[u8]]) {
    texts.iter().for_each(|one| text(out, one));
}

/// For small plain enums whose debug form is their name.
fn name(out: &mut Vec<u8>, name: impl std::fmt::Debug) {
    // Writing to a vector does not fail.
    let _ = write!(out, "{name:?};");
}

impl Canon for LinkId {
    fn canon(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_dialled()));
        number(out, self.index() as u64);
        number(out, u64::from(self.generation()));
    }
}

fn peer(out: &mut Vec<u8>, peer: &Peer) {
    name(out, (peer.transport, peer.uid, peer.uid_checked, peer.source));
}

fn end(out: &mut Vec<u8>, how: LinkEnd) {
    name(out, how);
}

impl<C: Canon> Canon for Input<C> {
    fn canon(&self, out: &mut Vec<u8>) {
        let (tag, link) = match self {
            Self::Accepted { link, .. } => (1, Some(link)),
            Self::Dialled { link, .. } => (2, Some(link)),
            Self::Received { link, .. } => (3, Some(link)),
            Self::Written { link, .. } => (4, Some(link)),
            Self::Closed { link, .. } => (5, Some(link)),
            Self::Command(_) => (6, None),
            Self::Timeout => (7, None),
            Self::Shortage => (12, None),
        };
        out.push(tag);
        if let Some(link) = link {
            link.canon(out);
        }
        match self {
            Self::Accepted { peer: who, .. } | Self::Dialled { peer: who, .. } => peer(out, who),
            Self::Received { data, .. } => text(out, data),
            Self::Written { bytes, .. } => number(out, *bytes as u64),
            Self::Closed { how, .. } => end(out, *how),
            Self::Command(command) => command.canon(out),
            Self::Shortage | Self::Timeout => {}
        }
    }
}

impl<E: Canon> Canon for Output<E> {
    fn canon(&self, out: &mut Vec<u8>) {
        match self {
            Self::Transmit { link, data } => {
                out.push(8);
                link.canon(out);
                text(out, data);
            }
            Self::Dial { link, to } => {
                out.push(9);
                link.canon(out);
                text(out, to.as_bytes());
            }
            Self::Close { link, flush } => {
                out.push(10);
                link.canon(out);
                out.push(match flush {
                    Flush::Nothing => 0,
                    Flush::Written => 1,
                    Flush::Read => 2,
                });
            }
            Self::Event(event) => {
                out.push(11);
                event.canon(out);
            }
        }
    }
}

impl Canon for Asked {
    fn canon(&self, out: &mut Vec<u8>) {
        match self {
            Self::Client(command) => command.canon(out),
            Self::Hub(hub::Command::SetCredentials(_)) => out.extend_from_slice(b"credentials"),
            Self::Hub(hub::Command::SetSystemPassword(_)) => out.extend_from_slice(b"system password"),
            Self::Hub(hub::Command::Restore(channels)) => {
                out.extend_from_slice(b"restore");
                channels.iter().for_each(|channel| text(out, &channel.encode()));
            }
            Self::Hub(hub::Command::Stored { ticket, durable }) => {
                out.extend_from_slice(b"stored");
                number(out, *ticket);
                out.push(u8::from(*durable));
            }
            Self::Hub(hub::Command::Drain { time }) => {
                out.extend_from_slice(b"drain");
                number(out, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            }
            Self::Hub(hub::Command::Shutdown) => out.extend_from_slice(b"shutdown"),
            Self::Bridge(bridge::Command::SetSecret(side, _)) => name(out, ("secret", side)),
            Self::Bridge(bridge::Command::KeyDerived(side, _)) => name(out, ("key", side)),
            Self::Bridge(bridge::Command::Connect) => out.extend_from_slice(b"bridge"),
            Self::Bridge(bridge::Command::Close) => out.extend_from_slice(b"part"),
            Self::Malice(order) => name(out, order),
        }
    }
}

impl Canon for Told {
    fn canon(&self, out: &mut Vec<u8>) {
        match self {
            Self::Client(event) => event.canon(out),
            Self::Hub(event) => name(out, event),
            Self::Bridge(event) => name(out, event),
            Self::Withheld { from, what } => {
                texts(out, &[b"withheld", from.as_bytes(), what.sender.as_bytes(), &what.payload])
            }
        }
    }
}

fn payload(out: &mut Vec<u8>, payload: &Payload) {
    out.push(u8::from(payload.raw));
    text(out, &payload.bytes);
}

fn outgoing(out: &mut Vec<u8>, said: &Outgoing) {
    texts(out, &[said.channel.as_bytes(), said.event.as_bytes(), &said.metadata]);
    out.push(u8::from(said.idempotent));
    out.push(u8::from(said.guarded));
    payload(out, &said.payload);
}

fn fault(out: &mut Vec<u8>, fault: &Fault) {
    number(out, u64::from(fault.code));
    texts(out, &[fault.message.as_bytes(), &fault.details]);
    out.push(u8::from(fault.retryable));
}

fn head(out: &mut Vec<u8>, tag: u8, token: u64) {
    out.push(tag);
    number(out, token);
}

fn on(out: &mut Vec<u8>, tag: u8, token: u64, channel: &ChannelName) {
    head(out, tag, token);
    text(out, channel.as_bytes());
}

fn undoing(out: &mut Vec<u8>, tag: u8, token: Token, undone: Token) {
    head(out, tag, token.0);
    number(out, undone.0);
}

fn saying(out: &mut Vec<u8>, tag: u8, token: Token, said: &Outgoing) {
    head(out, tag, token.0);
    outgoing(out, said);
}

impl Canon for client::Command {
    fn canon(&self, out: &mut Vec<u8>) {
        match self {
            Self::Connect => head(out, 1, 0),
            Self::KeyDerived(_) => head(out, 2, 0),
            Self::Open { token, channel, access } => {
                head(out, 3, token.0);
                text(out, channel.as_bytes());
                name(out, access);
            }
            Self::ChannelKeyDerived { channel, salt, .. } => {
                head(out, 15, 0);
                text(out, channel.as_bytes());
                name(out, salt);
            }
            Self::ChannelKeyFailed { channel } => on(out, 16, 0, channel),
            Self::Protect { token, channel, salt, .. } => {
                head(out, 17, token.0);
                text(out, channel.as_bytes());
                name(out, salt);
            }
            Self::Unprotect { token, channel } => on(out, 18, token.0, channel),
            Self::Reclaim { token, channel } => on(out, 19, token.0, channel),
            Self::Terminate { token, channel } => on(out, 20, token.0, channel),
            Self::Leave { token, channel } => on(out, 4, token.0, channel),
            Self::Provide { token, channel, event, kind } => {
                head(out, 5, token.0);
                texts(out, &[channel.as_bytes(), event.as_bytes()]);
                name(out, kind);
            }
            Self::Withdraw { token, provider } => undoing(out, 6, *token, *provider),
            Self::Listen { token, channel, event } => {
                head(out, 7, token.0);
                texts(out, &[channel.as_bytes(), event.as_ref().map_or(&[], |event| event.as_bytes())]);
            }
            Self::Unlisten { token, listener } => undoing(out, 8, *token, *listener),
            Self::Call { token, outgoing: said, time_left } => {
                head(out, 9, token.0);
                number(out, u64::try_from(time_left.as_nanos()).unwrap_or(u64::MAX));
                outgoing(out, said);
            }
            Self::Cancel { call } => head(out, 10, call.0),
            Self::Send { token, outgoing: said } => saying(out, 11, *token, said),
            Self::Broadcast { token, outgoing: said } => saying(out, 12, *token, said),
            Self::Answer { request, result } => {
                head(out, 13, 0);
                name(out, request);
                match result {
                    Ok(result) => payload(out, result),
                    Err(what) => fault(out, what),
                }
            }
            Self::Close => head(out, 14, 0),
            Self::Stream(command) => command.canon(out),
            Self::SetSecret(_) => head(out, 26, 0),
            Self::Drain(command) => named(out, 27, command),
            Self::SetOwnerKey(key) => named(out, 28, key),
        }
    }
}

impl Canon for StreamCommand {
    fn canon(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ask { token, outgoing: said, time_left, whole, window, exchange } => {
                head(out, 21, token.0);
                number(out, u64::try_from(time_left.as_nanos()).unwrap_or(u64::MAX));
                amount(out, *window);
                out.push(u8::from(*exchange));
                whole.iter().for_each(|whole| number(out, u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX)));
                outgoing(out, said);
            }
            Self::Accept { request, window } => {
                named(out, 22, request);
                amount(out, *window);
            }
            Self::Items { stream, payloads } => {
                named(out, 23, stream);
                number(out, payloads.len() as u64);
                payloads.iter().for_each(|said| payload(out, said));
            }
            Self::Finish { stream } => named(out, 24, stream),
            Self::Consumed { stream, amount: consumed } => {
                named(out, 25, stream);
                amount(out, *consumed);
            }
        }
    }
}

impl Canon for StreamEvent {
    fn canon(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted { token } => head(out, 35, token.0),
            Self::Item { stream, payload: said, cost } => {
                named(out, 36, stream);
                payload(out, said);
                number(out, *cost);
            }
            Self::Finished { request, result } => {
                named(out, 37, request);
                name(out, result);
            }
            Self::Demand { stream, amount: wanted } => {
                named(out, 38, stream);
                amount(out, *wanted);
            }
            Self::Ended { token, result } => {
                head(out, 39, token.0);
                match result {
                    Ok(()) => out.push(0),
                    Err(failed) => failure(out, failed),
                }
            }
        }
    }
}

fn amount(out: &mut Vec<u8>, credit: Credit) {
    number(out, credit.items);
    number(out, credit.bytes);
}

fn failure(out: &mut Vec<u8>, failure: &CallFailure) {
    match failure {
        CallFailure::Fault(what) => {
            out.push(1);
            fault(out, what);
        }
        CallFailure::Failed { failure, maybe_executed } => {
            out.push(2 + u8::from(*maybe_executed));
            number(out, u64::from(failure.code().0));
        }
    }
}

fn outcome(out: &mut Vec<u8>, token: u64, result: Result<(), Failure>) {
    number(out, token);
    number(out, result.map_or_else(|failure| u64::from(failure.code().0), |()| 0));
}

fn answered(out: &mut Vec<u8>, result: &Result<Answer, CallFailure>) {
    match result {
        Ok(answer) => {
            out.push(0);
            payload(out, &answer.payload);
            texts(out, &[answer.provider.client.as_bytes(), answer.provider.hub.as_bytes(), &answer.metadata]);
            out.push(answer.hops);
        }
        Err(failed) => failure(out, failed),
    }
}

fn incoming(out: &mut Vec<u8>, message: &Incoming) {
    let Incoming { source, payload: said, metadata, sent_at: UnixMillis(sent_at), hops } = message;
    let Source { channel, event, sender, path } = &**source;
    let sender = [sender.client.as_bytes(), sender.hub.as_bytes()];
    texts(out, &[channel.as_bytes(), event.as_bytes(), sender[0], sender[1], metadata]);
    payload(out, said);
    number(out, *sent_at);
    out.push(*hops);
    path.iter().for_each(|hub| texts(out, &[hub.as_bytes()]));
}

fn ended(out: &mut Vec<u8>, tag: u8, token: Token, result: Result<(), Failure>) {
    out.push(tag);
    outcome(out, token.0, result);
}

fn named(out: &mut Vec<u8>, tag: u8, what: &impl std::fmt::Debug) {
    out.push(tag);
    name(out, what);
}

impl Canon for client::Event {
    fn canon(&self, out: &mut Vec<u8>) {
        match self {
            Self::DeriveKey { salt, iterations } => {
                out.push(20);
                out.extend_from_slice(salt);
                number(out, u64::from(*iterations));
            }
            Self::Ready(welcome) => {
                out.push(21);
                texts(out, &[welcome.hub.as_bytes(), welcome.client.as_bytes()]);
                number(out, welcome.session);
                number(out, u64::from(welcome.frame));
                out.push(u8::from(welcome.insecure));
            }
            Self::Closed(reason) => closed(out, 22, reason),
            Self::Done { token, result } => ended(out, 23, *token, *result),
            Self::Sent { token, result } => ended(out, 24, *token, *result),
            Self::Answered { token, result } => {
                out.push(25);
                number(out, token.0);
                answered(out, result);
            }
            Self::Request(request) => {
                out.push(26);
                name(out, request.id);
                number(out, request.provider.0);
                number(out, request.deadline.as_nanos());
                out.push(u8::from(request.idempotent));
                incoming(out, &request.message);
            }
            Self::RequestEnded { request, why } => {
                named(out, 27, request);
                outcome(out, 0, Err(*why));
            }
            Self::Message(message) => {
                out.push(28);
                number(out, message.to.0);
                number(out, message.number);
                incoming(out, &message.message);
            }
            Self::Violation(violation) => head(out, 29, u64::from(violation.code())),
            Self::Dropped(dropped) => named(out, 30, dropped),
            Self::DeriveChannelKey { channel, salt } => {
                on(out, 31, 0, channel);
                name(out, salt);
            }
            Self::ChannelClosed { channel, why } => {
                out.push(32);
                text(out, channel.as_bytes());
                outcome(out, 0, Err(*why));
            }
            Self::OwnerChanged { channel, owner } => {
                out.push(33);
                texts(out, &[channel.as_bytes(), owner.as_ref().map_or(&[], |owner| owner.as_bytes())]);
            }
            Self::Gap(_) | Self::Draining { .. } | Self::PasswordChanged { .. } => named(out, 34, self),
            Self::Stream(event) => event.canon(out),
            Self::Reconnect(event) => event.canon(out),
        }
    }
}

impl Canon for ReconnectEvent {
    fn canon(&self, out: &mut Vec<u8>) {
        match self {
            Self::Lost { reason, retry } => {
                closed(out, 40, reason);
                number(out, u64::try_from(retry.as_nanos()).unwrap_or(u64::MAX));
            }
            Self::Restoring { done, of } => {
                head(out, 41, *done as u64);
                number(out, *of as u64);
            }
            Self::Restored { channels } => head(out, 42, *channels as u64),
            Self::Returned { channel } => named(out, 44, channel),
            Self::Unrestored { what, why } => {
                named(out, 43, what);
                outcome(out, 0, Err(*why));
            }
        }
    }
}

fn closed(out: &mut Vec<u8>, tag: u8, reason: &CloseReason) {
    out.push(tag);
    name(out, reason);
}

impl Canon for Bytes {
    fn canon(&self, out: &mut Vec<u8>) {
        text(out, self);
    }
}
