//! What the hub is asked and answers itself: which channels there are, and who is in them, page by page.

use bytes::{BufMut as _, BytesMut};

use super::Hub;
use super::calls::Passing;
use super::clearing::CLEAR;
use super::registry::LinkIx;
use super::session::Session;
use super::system::{SYSTEM_CHANNEL, Value, put_fields, put_value};
use crate::auth::Capabilities;
use crate::canary::Canary;
use crate::error::{FaultCode, Refusal};
use crate::names::Name;
use crate::wire::cbor::{self, Malformed, Reader};
use crate::wire::{Flags, Header, Hop, Kind, Message, Target, put_fault};

/// Entries of one answer at most.
const PAGE: usize = 1_000;

impl Hub {
    /// A call to one of the hub's own channels.
    pub(super) fn answer_call(&mut self, ix: LinkIx, call: Passing<'_>) {
        let route = call.hop.route;
        if call.header.flags.has(Flags::STREAM) {
            return self.fail(ix, route, Refusal::WrongKind);
        }
        let Some(member) = self.links.get(ix).and_then(Session::member) else { return };
        let clears = call.header.channel.as_str() == SYSTEM_CHANNEL && call.header.event.as_str() == CLEAR;
        let needed = if clears { Capabilities::ADMIN } else { Capabilities::OBSERVER };
        let may = member.capabilities.contains(needed) || clears && Canary::Clears.sings();
        if !may {
            return self.fail(ix, route, Refusal::NotAllowed);
        }
        let guarded = self.registry.by_name(call.header.channel).filter(|(_, it)| it.guard.protection.is_some());
        if guarded.is_some_and(|(channel, _)| !member.memberships.has(channel)) {
            return self.fail(ix, route, Refusal::PasswordRequired);
        }
        // What must be remembered for it is little, and it makes room.
        if self.is_full() && !clears {
            return self.fail(ix, route, Refusal::Overloaded);
        }
        let asked = Message::parse(call.bytes).ok().and_then(|message| Question::parse(message.payload).ok());
        let header = call.header;
        let answer = match (header.channel.as_str(), header.event.as_str(), asked) {
            (SYSTEM_CHANNEL, "channels", Some(question)) => Ok(self.list_channels(&question)),
            (SYSTEM_CHANNEL, "members", Some(Question { channel: Some(channel), after })) => {
                match self.list_members(channel, after) {
                    Some(members) => Ok(members),
                    None => return self.fail(ix, route, Refusal::NoSuchChannel),
                }
            }
            (SYSTEM_CHANNEL, CLEAR, Some(Question { channel: Some(channel), .. })) => {
                return self.clear(ix, &call, channel);
            }
            (SYSTEM_CHANNEL, "channels" | "members" | CLEAR, _) => Err(FaultCode::BadPayload),
            (_, _, _) => return self.fail(ix, route, Refusal::NoProvider),
        };
        let (kind, payload) = match answer {
            Ok(payload) => (Kind::Answer, payload),
            Err(code) => {
                let mut payload = BytesMut::new();
                put_fault(&mut payload, &code.into());
                (Kind::Fault, payload)
            }
        };
        let reply = Reply { channel: header.channel, event: header.event, route, request: header.request };
        self.reply(ix, kind, reply, &payload);
    }

    /// Answers a call in the hub's own name.
    pub(super) fn reply(&mut self, ix: LinkIx, kind: Kind, reply: Reply<'_>, payload: &[u8]) {
        let Reply { channel, event, route, request } = reply;
        let Some(client) = self.links.get(ix).and_then(Session::member).map(|it| it.client.clone()) else { return };
        let hub = self.id.clone();
        let target = Target::new(client.as_name(), hub.as_name());
        let message = self.message(|own| Header { kind, channel, event, request, target, ..own }, payload);
        let hop = Hop::direct(route, 1);
        if !self.fits_hop(ix, hop, &message) {
            return self.fail(ix, route, Refusal::TooLarge);
        }
        if let Some(session) = self.links.get_mut(ix) {
            session.outbox.push_message(&mut self.pool, kind.into(), |out| hop.put(out), &message, None);
        }
        self.check_outbox(ix);
    }

    fn list_channels(&self, question: &Question<'_>) -> BytesMut {
        let from = question.after.map_or(0, |after| usize::try_from(after).unwrap_or(usize::MAX).saturating_add(1));
        let mut page = Page::new(self.limits.frame);
        for (number, channel) in self.registry.channels_from(from) {
            if page.is_full() {
                break;
            }
            page.entry(number as u64, |out| {
                let owner = channel.guard.owner().and_then(|ix| self.links.get(ix)).and_then(Session::member);
                let fields = [
                    ("name", Value::Text(channel.name())),
                    ("owner", owner.map_or(Value::Null, |owner| Value::Text(&owner.client))),
                    ("protected", Value::Bool(channel.guard.protection.is_some())),
                    ("members", Value::Number(channel.members() as u64)),
                    ("providers", Value::Number(channel.providers() as u64)),
                ];
                put_fields(out, &fields);
            });
        }
        self.list_channels_elsewhere(&mut page, question.after);
        page.finish("channels")
    }

    fn list_members(&self, channel: Name<'_>, after: Option<u64>) -> Option<BytesMut> {
        let mut page = Page::new(self.limits.frame);
        let found = self.registry.members_from(channel, after.map_or(0, |after| after.saturating_add(1)));
        if found.is_none() && !self.is_elsewhere(channel) {
            return None;
        }
        let members = found.into_iter().flatten();
        let guard = self.registry.by_name(channel).map(|(_, channel)| &channel.guard);
        for (joined, ix) in members {
            if page.is_full() {
                break;
            }
            let Some(member) = self.links.get(ix).and_then(Session::member) else { continue };
            page.entry(joined, |out| {
                cbor::put_map(out, 3);
                cbor::put_text(out, "client");
                cbor::put_text(out, &member.client);
                cbor::put_text(out, "owner");
                cbor::put_bool(out, guard.is_some_and(|guard| guard.is_owned_by(ix)));
                cbor::put_text(out, "provides");
                let provides = self.registry.provided_by(channel, &member.memberships);
                cbor::put_array(out, provides.clone().count() as u64);
                provides.for_each(|event| cbor::put_text(out, event));
            });
        }
        self.list_members_elsewhere(&mut page, channel, after);
        Some(page.finish("members"))
    }
}

/// Which call is answered.
pub(super) struct Reply<'a> {
    pub(super) channel: Name<'a>,
    pub(super) event: Name<'a>,
    pub(super) route: u32,
    pub(super) request: u64,
}

/// What is asked: everything optional, `null` for nothing at all.
struct Question<'a> {
    channel: Option<Name<'a>>,
    after: Option<u64>,
}

impl<'a> Question<'a> {
    fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut question = Self { channel: None, after: None };
        if payload == [cbor::NULL_BYTE] {
            return Ok(question);
        }
        let mut reader = Reader::new(payload);
        for _ in 0..reader.map()? {
            match reader.text()? {
                "channel" => question.channel = Some(Name::new(reader.text()?).map_err(|_| Malformed)?),
                "after" => question.after = reader.optional(Reader::uint)?,
                _ => reader.skip()?,
            }
        }
        reader.finish()?;
        Ok(question)
    }
}

/// As many entries as one frame should carry, and where the next page begins.
pub(super) struct Page {
    entries: BytesMut,
    count: u64,
    last: u64,
    /// From here on it is full.
    most: usize,
    /// No entry but the only one makes it longer than this, so that a frame holds it.
    longest: usize,
    full: bool,
}

impl Page {
    fn new(frame: u32) -> Self {
        let most = frame as usize / 4;
        Self { entries: BytesMut::new(), count: 0, last: 0, most, longest: 3 * most, full: false }
    }

    pub(super) fn is_full(&self) -> bool {
        self.full || self.count >= PAGE as u64 || self.entries.len() >= self.most
    }

    pub(super) fn entry(&mut self, number: u64, put: impl FnOnce(&mut BytesMut)) {
        let before = self.entries.len();
        put(&mut self.entries);
        if self.count > 0 && self.entries.len() > self.longest {
            self.entries.truncate(before);
            self.full = true;
        } else {
            (self.count, self.last) = (self.count + 1, number);
        }
    }

    /// `{what: [entries], "next": the last number, or null when there is no more}`
    fn finish(self, what: &str) -> BytesMut {
        let mut out = BytesMut::with_capacity(self.entries.len() + 64);
        cbor::put_map(&mut out, 2);
        cbor::put_text(&mut out, what);
        cbor::put_array(&mut out, self.count);
        out.put_slice(&self.entries);
        let next = if self.is_full() { Value::Number(self.last) } else { Value::Null };
        cbor::put_text(&mut out, "next");
        put_value(&mut out, next);
        out
    }
}
