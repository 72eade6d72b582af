//! From the library's errors to exit codes and advice. The stable numbers decide; the texts are the library's own.

use std::fmt::Display;
use std::time::Duration;

use commipc_tokio::{
    CallError, ChannelName, Client, CloseReason, Code, EventName, Failure as ChannelEnd, FaultCode, Misuse, NameError,
    Refusal, Violation,
};

use crate::failure::{Exit, Failure, Outcome};

/// What a command is about, for texts and advice.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// The hub's URL.
    pub(crate) hub: String,
    pub(crate) channel: ChannelName,
    pub(crate) event: EventName,
}

impl About {
    /// Checks the names, before anything is connected.
    pub(crate) fn new(hub: String, channel: &str, event: &str) -> Outcome<Self> {
        Ok(Self { hub, channel: channel_name(channel)?, event: event_name(event)? })
    }

    /// The same for programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "channel": self.channel.to_string(), "event": self.event.to_string() })
    }

    /// An operation on the event that did not succeed.
    pub(crate) fn failed(&self, code: Code, error: &impl Display) -> Failure {
        operation(&self.hub, &self.channel, Some(&self.event), code, &error.to_string())
    }

    /// A call that was not even made: there was no connection, or no channel, in time.
    pub(crate) fn late(&self, deadline: Duration) -> Failure {
        let text = format!("{}: not connected within the deadline of {deadline:?}, and nothing was called", self.hub);
        Failure::new(Exit::Deadline, text).code(Misuse::Deadline.code()).hint("give it more time with --deadline")
    }

    /// A call that has no result.
    pub(crate) fn call_failed(&self, error: &CallError) -> Failure {
        // The number stands beside the text anyway.
        if let CallError::Fault(fault) = error {
            return self
                .failed(Code(fault.code), &format_args!("the provider answered with a fault: {}", fault.message));
        }
        self.failed(error.code(), error)
    }
}

/// Checks a channel's name.
pub(crate) fn channel_name(name: &str) -> Outcome<ChannelName> {
    ChannelName::new(name).map_err(|error| bad_name("channel", name, error))
}

/// Checks an event's name.
pub(crate) fn event_name(name: &str) -> Outcome<EventName> {
    EventName::new(name).map_err(|error| bad_name("event", name, error))
}

fn bad_name(what: &str, name: &str, error: NameError) -> Failure {
    Failure::usage(format!("the {what} '{name}' cannot be: {error}")).code(Misuse::BadName.code())
}

/// A connection that stood and is over.
pub(crate) fn lost(hub: &str, reason: CloseReason) -> Failure {
    let (code, hint) = if reason == CloseReason::Goodbye(Refusal::SlowConsumer) {
        (Refusal::SlowConsumer.code(), "run this command again, with what reads its output keeping up")
    } else {
        (Misuse::Disconnected.code(), "run this command again when the hub is back")
    };
    Failure::new(Exit::Unreachable, format!("the connection to the hub at {hub} is over: {reason}"))
        .code(code)
        .hint(hint)
}

/// A channel that the hub has closed for us, or the connection went.
pub(crate) async fn closed(hub: &str, channel: &ChannelName, client: &Client, why: ChannelEnd) -> Failure {
    match why {
        ChannelEnd::Refused(_) | ChannelEnd::RefusedCode(_) => {
            operation(hub, channel, None, why.code(), &format!("the channel was closed: {why}"))
        }
        ChannelEnd::Local(_) => lost(hub, client.closed().await),
    }
}

/// A connection that was not made, for whatever reason.
pub(crate) fn connection(hub: &str, code: u16, text: &str) -> Failure {
    let failure = Failure::new(exit(code), format!("{hub}: {text}")).code(code);
    match connection_hint(hub, code) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// An operation on a channel, or an event of it, that did not succeed.
pub(crate) fn operation(
    hub: &str,
    channel: &ChannelName,
    event: Option<&EventName>,
    Code(code): Code,
    text: &str,
) -> Failure {
    let subject = event.map_or_else(|| channel.to_string(), |event| format!("{channel}/{event}"));
    let failure = Failure::new(exit(code), format!("{subject}: {text}")).code(code);
    let known = Refusal::from_code(code);
    let hint = if let (Some(Refusal::NoProvider), Some(event)) = (known, event) {
        Some(format!("start a provider, for example: commipc provide {channel} {event} --echo"))
    } else if let (Some(Refusal::WrongKind), Some(event)) = (known, event) {
        Some(format!(
            "an answer is asked for with 'commipc call {channel} {event}', a stream with 'commipc stream {channel} {event}'"
        ))
    } else if known == Some(Refusal::NoSuchChannel) {
        Some("see which there are with 'commipc channels'".into())
    } else if known == Some(Refusal::Rekeyed) && event.is_none() {
        Some("run this command again with the new password: --password-file".into())
    } else if known == Some(Refusal::PasswordRequired) {
        Some("name a file with the channel's password with --password-file".into())
    } else if known == Some(Refusal::PasswordWrong) || known == Some(Refusal::KdfUnsupported) {
        Some("check --password-file: the channel's owner may have changed the password".into())
    } else if known == Some(Refusal::NotProtected) {
        Some(format!("leave --password-file out, or protect it first: commipc protect {channel} --password-file FILE"))
    } else if known == Some(Refusal::NotOwner) {
        Some(
            "only who opened the channel first owns it: stop the others that have it open, or take another name".into(),
        )
    } else if known == Some(Refusal::ProviderExists) {
        Some(format!("see who does with 'commipc members {channel}': stop it, or provide under another name"))
    } else if exit(code) == Exit::Deadline {
        Some("it may have been executed all the same; give it more time with --deadline".into())
    } else if known.is_some_and(Refusal::maybe_executed) {
        Some("find out what the call did before you repeat it".into())
    } else if code == FaultCode::HandlerFailed.code() {
        Some("the provider's own output tells why".into())
    } else if code == Misuse::Disconnected.code() {
        Some(format!("it may have been executed; see whether the hub at {hub} still runs"))
    } else if known.is_some_and(Refusal::is_retryable) {
        Some("try again later".into())
    } else {
        connection_hint(hub, code)
    };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The exit code that a stable number stands for: some by themselves, the others by their range.
pub(crate) fn exit(code: u16) -> Exit {
    // Not here: `ProviderGone`. A script that repeats a call after 3 must not repeat one that may have been executed.
    let by_itself = [
        (Violation::HandshakeTimeout.code(), Exit::Unreachable),
        (Violation::BadServerProof.code(), Exit::Refused),
        (Violation::NotOffered.code(), Exit::Refused),
        (Refusal::ShuttingDown.code(), Exit::Unreachable),
        (Refusal::Draining.code(), Exit::Unreachable),
        (Refusal::NoSuchChannel.code(), Exit::Other),
        (Refusal::Rekeyed.code(), Exit::Refused),
        (Refusal::NoProvider.code(), Exit::NoProvider),
        (Refusal::Deadline.code(), Exit::Deadline),
        (Misuse::Deadline.code(), Exit::Deadline),
        (Misuse::NotConnected.code(), Exit::Unreachable),
        (Misuse::Disconnected.code(), Exit::Unreachable),
        (Misuse::Unreachable.code(), Exit::Unreachable),
        (Misuse::BadName.code(), Exit::Usage),
        (Misuse::Encode.code(), Exit::Usage),
    ];
    if let Some((_, exit)) = by_itself.iter().find(|(known, _)| *known == code) {
        return *exit;
    }
    match code {
        100..300 => Exit::Refused,
        ..100 | 300..400 | 500..600 => Exit::Other,
        400..500 | 600.. => Exit::Fault,
    }
}

/// What speaks something else.
const NO_HUB: &str = "what answers there does not speak like a hub: check --hub";

fn connection_hint(hub: &str, code: u16) -> Option<String> {
    if code == Misuse::Unreachable.code() {
        return Some(format!("start a hub with 'commipc hub --listen {hub}', or name another one with --hub"));
    }
    let hints = [
        (
            Violation::BadServerProof.code(),
            "it does not know your secret, so it may not be your hub: check --hub and --secret-file",
        ),
        (
            Refusal::AuthFailed.code(),
            "check --secret-file and --credential: they must be those the hub was started with",
        ),
        (
            Refusal::KdfUnsupported.code(),
            "give the same kind of secret as the hub has, key or password, with --secret-file",
        ),
        (Refusal::IdInUse.code(), "choose another --id, or leave it out"),
        (Refusal::IdNotAllowed.code(), "choose another --id, or prove another --credential"),
        (
            Refusal::NotAllowed.code(),
            "prove a credential that has can=observer at the hub with --credential, or the hub's own secret",
        ),
        (
            Violation::HandshakeTimeout.code(),
            "something listens there and does not answer: see whether the hub still runs",
        ),
        (Violation::BadMagic.code(), NO_HUB),
        (Violation::FrameTooLarge.code(), NO_HUB),
        (Violation::EmptyFrame.code(), NO_HUB),
        (Violation::UnknownFrame.code(), NO_HUB),
        (Violation::UnexpectedFrame.code(), NO_HUB),
        (Violation::BadControl.code(), NO_HUB),
        (Refusal::VersionUnsupported.code(), "use a hub and a commipc of the same release"),
    ];
    let by_itself = hints.iter().find(|(known, _)| *known == code).map(|(_, hint)| *hint);
    let later = Refusal::from_code(code).filter(|refusal| refusal.is_retryable()).map(|_| "try again later");
    by_itself.or(later).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_map_to_exit_codes() {
        for (code, expected) in [
            (300, Exit::NoProvider),
            (301, Exit::Other),
            (302, Exit::Deadline),
            (509, Exit::Deadline),
            (400, Exit::Fault),
            (1_000, Exit::Fault),
            (100, Exit::Refused),
            (103, Exit::Refused),
            (201, Exit::Refused),
            (15, Exit::Refused),
            (1, Exit::Other),
            (303, Exit::Other),
            (106, Exit::Unreachable),
            (311, Exit::Unreachable),
            (501, Exit::Unreachable),
            (512, Exit::Unreachable),
            (506, Exit::Usage),
        ] {
            assert_eq!(exit(code), expected, "{code}");
        }
    }

    #[test]
    fn advice_names_what_to_type() {
        let (math, sum) = (channel_name("math").unwrap(), event_name("sum").unwrap());
        let text = format!("{:?}", operation("unix:/h", &math, Some(&sum), Code(300), "nobody provides this event"));
        assert!(text.contains("commipc provide math sum --echo"), "{text}");
        let text = format!("{:?}", connection("unix:/h", 512, "unreachable"));
        assert!(text.contains("commipc hub --listen unix:/h"), "{text}");
    }
}
