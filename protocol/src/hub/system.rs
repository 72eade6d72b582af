//! The hub's own channels: what happens at the hub, told to those who may see it, and what it holds, on request.
//!
//! Nobody else speaks there. Messages carry the sender `system`, which no client can have, and are not signed: a client
//! takes them only from the hub it authenticated.

use alloc::string::{String, ToString as _};

use bytes::{BufMut as _, BytesMut};

use super::calls::Passing;
use super::clearing::CLEAR;
use super::guard::{Guard, Owner, Protection};
use super::registry::LinkIx;
use super::session::Session;
use super::{DisconnectReason, Due, Event, Hub};
use crate::auth::{Capabilities, ChannelMaster, JoinVerifier, Kdf};
use crate::canary::Canary;
use crate::client::EventKind;
use crate::error::{FaultCode, Refusal};
use crate::names::{ClientId, CredentialId, EventName, HubId, Name, SYSTEM_SENDER};
use crate::time::{Instant, TimerReason};
use crate::wire::cbor::{self, Malformed, Reader};
use crate::wire::{
    Flags, FrameType, Header, Hop, Kind, Message, Target, encoded_len_max, put_fault, put_image, put_message,
};

/// Joining, leaving, providing; and the events `channels` and `members`, which answer calls.
pub const SYSTEM_CHANNEL: &str = "__comm_ipc_system";
/// What is worth a line in a log.
pub const LOGS_CHANNEL: &str = "__comm_ipc_logs";
/// What went wrong.
pub const ERRORS_CHANNEL: &str = "__comm_ipc_errors";

/// How long a message without an answer is worth delivering, in milliseconds.
const TIME_LEFT: u64 = 30_000;
/// Entries of one answer at most.
const PAGE: usize = 1_000;

/// What the hub tells.
#[derive(Clone, Copy, Debug)]
enum Told {
    NewRegistration,
    RegistrationEnded,
    ClientConnected,
    ClientDisconnected,
    OwnerChanged,
    ProtectionChanged,
    ChannelTerminated,
    BridgeUp,
    BridgeDown,
    ProtectionConflict,
    ChannelCleared,
    Log,
    Error,
}

impl Told {
    const COUNT: usize = 13;

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::NewRegistration => (SYSTEM_CHANNEL, "new_registration"),
            Self::RegistrationEnded => (SYSTEM_CHANNEL, "registration_ended"),
            Self::ClientConnected => (SYSTEM_CHANNEL, "client_connected"),
            Self::ClientDisconnected => (SYSTEM_CHANNEL, "client_disconnected"),
            Self::OwnerChanged => (SYSTEM_CHANNEL, "owner_changed"),
            Self::ProtectionChanged => (SYSTEM_CHANNEL, "protection_changed"),
            Self::ChannelTerminated => (SYSTEM_CHANNEL, "channel_terminated"),
            Self::BridgeUp => (SYSTEM_CHANNEL, "bridge_up"),
            Self::BridgeDown => (SYSTEM_CHANNEL, "bridge_down"),
            Self::ProtectionConflict => (SYSTEM_CHANNEL, "protection_conflict"),
            Self::ChannelCleared => (SYSTEM_CHANNEL, "channel_cleared"),
            Self::Log => (LOGS_CHANNEL, "server_log"),
            Self::Error => (ERRORS_CHANNEL, "server_error"),
        }
    }
}

/// One entry of a message's map.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Bool(bool),
    Null,
}

/// The hub's own numbers for what it says.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    seq: u64,
    bseqs: [u64; Told::COUNT],
    failed_logins: FailedLogins,
}

/// Failed logins of the period at hand.
#[derive(Debug, Default)]
struct FailedLogins {
    since: Instant,
    told: u32,
    /// Those that are told as a number when the period is over.
    left_out: u64,
}

/// The password of a hub's own channels, as far as a hub knows it: enough to check who joins, and not to join. Nobody signs
/// there, so there is no other key, and nobody can change it.
#[derive(Clone, Debug)]
pub struct SystemPassword {
    kdf: Kdf,
    salt: [u8; 16],
    iterations: u32,
    /// In the order of [`SYSTEM_CHANNELS`].
    verifiers: [JoinVerifier; SYSTEM_CHANNELS.len()],
}

impl SystemPassword {
    /// `master` is the secret derived with this salt and so many rounds. It is not kept.
    #[must_use]
    pub fn new(kdf: Kdf, salt: [u8; 16], iterations: u32, master: &ChannelMaster) -> Self {
        let verifiers = SYSTEM_CHANNELS.map(|channel| master.join_keys(channel, &salt, SYSTEM_EPOCH).verifier());
        Self { kdf, salt, iterations, verifiers }
    }

    fn protections(&self) -> impl Iterator<Item = (Name<'static>, Protection)> {
        SYSTEM_CHANNELS.map(Name::known).into_iter().zip(&self.verifiers).map(|(channel, verifier)| {
            let Self { kdf, salt, iterations, .. } = *self;
            let (verifier, credential) = (verifier.clone(), CredentialId::shared());
            (channel, Protection { kdf, salt, iterations, verifier, credential })
        })
    }
}

/// The one epoch that a password of the hub's own channels has.
const SYSTEM_EPOCH: u64 = 1;

/// Whether these are the hub's own channels that exist, rather than names kept for later.
pub(super) fn is_system_channel(name: Name<'_>) -> bool {
    SYSTEM_CHANNELS.contains(&name.as_str())
}

const SYSTEM_CHANNELS: [&str; 3] = [SYSTEM_CHANNEL, LOGS_CHANNEL, ERRORS_CHANNEL];

impl Hub {
    /// From now on the hub's own channels, which then exist as long as it does, are for those who know the password.
    pub(super) fn handle_system_password(&mut self, password: &SystemPassword) {
        for (name, protection) in password.protections() {
            let found = self.registry.find(name);
            let made =
                found.map_or_else(|| self.registry.create(name, Guard::new(Owner::Nobody, self.owner_policy)), Ok);
            let Ok(channel) = made else { continue };
            self.evict(channel, None, Refusal::Rekeyed);
            if let Some(guard) = self.guard_mut(channel) {
                (guard.last_epoch, guard.protection) = (SYSTEM_EPOCH, Some(protection));
            }
        }
    }

    /// Tells the application, and whoever listens to the hub's own channels.
    pub(super) fn event(&mut self, event: Event) {
        self.tell(&event);
        self.tell_bridges(&event);
        self.outputs.push_back(crate::Output::Event(event));
    }

    fn tell(&mut self, event: &Event) {
        match event {
            Event::Joined { channel, client } => self.tell_registration(channel, None, client),
            Event::Left { channel, client } => self.tell_registration_ended(channel, None, client),
            Event::Provided { channel, event, client, kind } => {
                self.tell_registration(channel, Some((event, *kind)), client);
            }
            Event::Withdrawn { channel, event, client } => self.tell_registration_ended(channel, Some(event), client),
            Event::Connected { client, credential, .. } => {
                let fields = [("client_id", Value::Text(client)), ("credential", Value::Text(credential))];
                self.announce(Told::ClientConnected, &fields);
                self.log("info", Some(client), || alloc::format!("client {client} connected"));
            }
            Event::Disconnected { client, why, .. } => self.tell_disconnected(client, *why),
            Event::Rejected { why: why @ DisconnectReason::Refused(Refusal::AuthFailed), .. } => {
                self.tell_failed_login(*why);
            }
            Event::OwnerChanged { channel, owner } => {
                let owner = owner.as_ref().map_or(Value::Null, |owner| Value::Text(owner));
                self.announce(Told::OwnerChanged, &[("channel", Value::Text(channel)), ("owner", owner)]);
            }
            Event::ProtectionChanged { channel, epoch, protected } => {
                let fields = [
                    ("channel", Value::Text(channel)),
                    ("epoch", Value::Number(*epoch)),
                    ("protected", Value::Bool(*protected)),
                ];
                self.announce(Told::ProtectionChanged, &fields);
                self.log("info", None, || alloc::format!("the password of channel {channel} was changed"));
            }
            Event::Terminated { channel } => {
                self.announce(Told::ChannelTerminated, &[("channel", Value::Text(channel))]);
            }
            Event::BridgeUp { client, hub } => self.tell_bridged(Told::BridgeUp, client, hub, "leads to"),
            Event::BridgeDown { client, hub } => self.tell_bridged(Told::BridgeDown, client, hub, "leads no more to"),
            Event::ProtectionConflict { channel, home } => self.tell_conflict(channel, home.as_ref()),
            Event::BridgeFull { client } => {
                self.log("error", Some(client), || alloc::format!("bridge {client} announces more than it may"));
            }
            Event::SlowConsumer { client, waiting, .. } => {
                let waiting = *waiting;
                self.log("warning", Some(client), || {
                    alloc::format!("client {client} reads too slowly: {waiting} bytes wait for it")
                });
            }
            Event::Cleared { channel, client } => {
                let fields = [("channel", Value::Text(channel)), ("client_id", Value::Text(client))];
                self.announce(Told::ChannelCleared, &fields);
                self.log("info", Some(client), || alloc::format!("client {client} cleared channel {channel}"));
            }
            // Strangers in numbers would flood those who listen, and so would what goes in circles.
            Event::Rejected { .. }
            | Event::Looped { .. }
            | Event::Store { .. }
            | Event::Draining { .. }
            | Event::Drained { .. }
            | Event::Stopped => {}
        }
    }

    fn tell_bridged(&mut self, told: Told, client: &ClientId, hub: &HubId, how: &str) {
        self.announce(told, &[("client_id", Value::Text(client)), ("hub", Value::Text(hub))]);
        self.log("info", Some(client), || alloc::format!("bridge {client} {how} hub {hub}"));
    }

    fn tell_conflict(&mut self, channel: &str, home: Option<&HubId>) {
        let home = home.map_or(Value::Null, |home| Value::Text(home));
        self.announce(Told::ProtectionConflict, &[("channel", Value::Text(channel)), ("home", home)]);
        self.log("error", None, || alloc::format!("channel {channel} is protected differently at another hub"));
    }

    fn tell_registration(&mut self, channel: &str, event: Option<(&EventName, EventKind)>, client: &ClientId) {
        let fields = [
            ("channel", Value::Text(channel)),
            ("event", event.map_or(Value::Null, |(event, _)| Value::Text(event))),
            ("is_provider", Value::Bool(event.is_some())),
            ("is_stream", Value::Bool(event.is_some_and(|(_, kind)| kind.streams()))),
            ("client_id", Value::Text(client)),
        ];
        self.announce(Told::NewRegistration, &fields);
    }

    fn tell_registration_ended(&mut self, channel: &str, event: Option<&str>, client: &ClientId) {
        let fields = [
            ("channel", Value::Text(channel)),
            ("event", event.map_or(Value::Null, Value::Text)),
            ("is_provider", Value::Bool(event.is_some())),
            ("client_id", Value::Text(client)),
        ];
        self.announce(Told::RegistrationEnded, &fields);
    }

    fn tell_disconnected(&mut self, client: &ClientId, why: DisconnectReason) {
        let text = why.to_string();
        let code = why.code().map_or(Value::Null, |code| Value::Number(u64::from(code)));
        let fields = [("client_id", Value::Text(client)), ("reason", Value::Text(&text)), ("code", code)];
        self.announce(Told::ClientDisconnected, &fields);
        match why {
            DisconnectReason::Goodbye
            | DisconnectReason::Lost
            | DisconnectReason::Refused(Refusal::ShuttingDown | Refusal::Superseded) => {
                self.log("info", Some(client), || alloc::format!("client {client} disconnected: {why}"));
            }
            DisconnectReason::Refused(_) | DisconnectReason::Violation(_) => self.tell_error(Some(client), why),
        }
    }

    fn tell_error(&mut self, client: Option<&ClientId>, why: DisconnectReason) {
        let (text, hub) = (why.to_string(), self.id.clone());
        let fields = [
            ("error", Value::Text(&text)),
            ("code", why.code().map_or(Value::Null, |code| Value::Number(u64::from(code)))),
            ("client_id", client.map_or(Value::Null, |client| Value::Text(client))),
            ("server_id", Value::Text(&hub)),
        ];
        self.announce(Told::Error, &fields);
        self.log("error", client, || text.clone());
    }

    /// Strangers decide how often this happens, so only the first few are told one by one.
    fn tell_failed_login(&mut self, why: DisconnectReason) {
        if !self.is_heard(Told::Error) && !self.is_heard(Told::Log) {
            return;
        }
        let (now, period) = (self.now.mono, self.limits.failures_told_in);
        let failed = &mut self.spoken.failed_logins;
        if failed.told == 0 || failed.since + period <= now {
            (failed.since, failed.told) = (now, 0);
        }
        if failed.told < self.limits.failures_told {
            failed.told += 1;
            return self.tell_error(None, why);
        }
        failed.left_out += 1;
        if failed.left_out == 1 {
            self.timers.insert(failed.since + period, TimerReason::Summary, Due::Summary);
        }
    }

    /// Says how many failed logins were not told one by one.
    pub(super) fn summarise(&mut self) {
        let left_out = core::mem::take(&mut self.spoken.failed_logins).left_out;
        let (why, hub) = (Refusal::AuthFailed, self.id.clone());
        let text = why.to_string();
        let fields = [
            ("error", Value::Text(&text)),
            ("code", Value::Number(u64::from(why.code()))),
            ("client_id", Value::Null),
            ("server_id", Value::Text(&hub)),
            ("left_out", Value::Number(left_out)),
        ];
        self.announce(Told::Error, &fields);
        self.log("error", None, || alloc::format!("{left_out} more: {text}"));
    }

    fn log(&mut self, level: &str, client: Option<&ClientId>, message: impl FnOnce() -> String) {
        if !self.is_heard(Told::Log) {
            return;
        }
        let (message, hub) = (message(), self.id.clone());
        let fields = [
            ("message", Value::Text(&message)),
            ("level", Value::Text(level)),
            ("client_id", client.map_or(Value::Null, |client| Value::Text(client))),
            ("server_id", Value::Text(&hub)),
        ];
        self.announce(Told::Log, &fields);
    }

    fn is_heard(&self, told: Told) -> bool {
        let (channel, event) = told.names();
        self.registry.listeners(Name::known(channel), Name::known(event)).next().is_some()
    }

    /// Says something to everybody who listens, encoded once.
    fn announce(&mut self, told: Told, fields: &[(&str, Value<'_>)]) {
        if !self.is_heard(told) {
            return;
        }
        let (channel, event) = told.names();
        let (channel, event) = (Name::known(channel), Name::known(event));
        let mut payload = BytesMut::new();
        put_fields(&mut payload, fields);
        let bseq = self.spoken.bseqs.get_mut(told as usize).map_or(1, |number| {
            *number += 1;
            *number
        });
        let message = self.message(|header| Header { kind: Kind::Broadcast, channel, event, bseq, ..header }, &payload);
        let mut image = core::mem::take(&mut self.image);
        let fill = |out: &mut BytesMut| {
            Hop::direct(0, 1).put(out);
            out.put_slice(&message);
        };
        put_image(&mut image, FrameType::Broadcast, fill, 0);
        self.deliver((channel, event), None, &image, None);
        self.image = image;
    }

    /// A message of the hub's own: `fill` sets what differs from a broadcast's header.
    fn message<'a>(&mut self, fill: impl FnOnce(Header<'a>) -> Header<'a>, payload: &[u8]) -> BytesMut {
        self.spoken.seq += 1;
        let (hub, boot) = (self.id.clone(), self.boot);
        let header = fill(Header {
            kind: Kind::Broadcast,
            flags: Flags::NONE,
            channel: Name::known(SYSTEM_CHANNEL),
            event: Name::known(SYSTEM_SENDER),
            epoch: 0,
            sender: Name::known(SYSTEM_SENDER),
            origin: Name::known(SYSTEM_SENDER),
            instance: &[0; 16],
            seq: self.spoken.seq,
            bseq: 0,
            sent_at: self.now.wall.0,
            time_left: TIME_LEFT,
            request: 0,
            reference: &[],
            index: 0,
            target: Target::NONE,
            metadata: &[],
        });
        let header = Header { origin: hub.as_name(), instance: &boot, ..header };
        let mut protected = BytesMut::new();
        header.encode(&mut protected);
        let mut message = BytesMut::with_capacity(encoded_len_max(protected.len(), payload.len()));
        put_message(&mut message, &protected, payload, &[]);
        message
    }
}

/// Questions that the hub answers itself.
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
        if let Some(session) = self.links.get_mut(ix) {
            let hop = Hop::direct(route, 1);
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
    most: usize,
}

impl Page {
    fn new(frame: u32) -> Self {
        Self { entries: BytesMut::new(), count: 0, last: 0, most: frame as usize / 4 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= PAGE as u64 || self.entries.len() >= self.most
    }

    pub(super) fn entry(&mut self, number: u64, put: impl FnOnce(&mut BytesMut)) {
        put(&mut self.entries);
        (self.count, self.last) = (self.count + 1, number);
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

fn put_fields(out: &mut BytesMut, fields: &[(&str, Value<'_>)]) {
    cbor::put_map(out, fields.len() as u64);
    for (name, value) in fields {
        cbor::put_text(out, name);
        put_value(out, *value);
    }
}

fn put_value(out: &mut BytesMut, value: Value<'_>) {
    match value {
        Value::Text(text) => cbor::put_text(out, text),
        Value::Number(number) => cbor::put_uint(out, number),
        Value::Bool(value) => cbor::put_bool(out, value),
        Value::Null => cbor::put_null(out),
    }
}
