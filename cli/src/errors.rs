//! From the library's errors to exit codes and advice. The stable numbers decide; the texts are the library's own.

use std::fmt::Display;

use commipc_tokio::{Code, FaultCode, Misuse, Refusal, Violation};

use crate::failure::{Exit, Failure};

/// What a command was about, for texts and advice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) hub: &'a str,
    pub(crate) channel: &'a str,
    pub(crate) event: &'a str,
}

impl About<'_> {
    /// An operation on the event that did not succeed.
    pub(crate) fn failed(self, code: Code, error: &impl Display) -> Failure {
        operation(self, code.0, &error.to_string())
    }
}

/// A connection that stood and is over.
pub(crate) fn lost(hub: &str, reason: &str) -> Failure {
    Failure::new(Exit::Unreachable, format!("the connection to the hub at {hub} is over: {reason}"))
        .code(Misuse::Disconnected.code())
        .hint("run this command again when the hub is back")
}

/// A connection that was not made, for whatever reason.
pub(crate) fn connection(hub: &str, code: u16, text: &str) -> Failure {
    let failure = Failure::new(exit(code), format!("{hub}: {text}")).code(code);
    match connection_hint(hub, code) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn operation(about: About<'_>, code: u16, text: &str) -> Failure {
    let About { hub, channel, event } = about;
    let failure = Failure::new(exit(code), format!("{channel}/{event}: {text}")).code(code);
    let known = Refusal::from_code(code);
    let hint = if known == Some(Refusal::NoProvider) {
        Some(format!("start a provider, for example: commipc provide {channel} {event} --echo"))
    } else if known == Some(Refusal::ProviderExists) || code == Misuse::AlreadyProvided.code() {
        Some("stop the other provider, or provide under another name".into())
    } else if exit(code) == Exit::Deadline {
        Some("it may have been executed all the same; give it more time with --deadline".into())
    } else if known.is_some_and(Refusal::maybe_executed) {
        Some("find out what the call did before you repeat it".into())
    } else if code == FaultCode::HandlerFailed.code() {
        Some("the provider's own output tells why".into())
    } else if code == Misuse::Disconnected.code() {
        Some(format!("the call may have been executed; see whether the hub at {hub} still runs"))
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

/// The exit code that a stable number stands for.
pub(crate) fn exit(code: u16) -> Exit {
    if let Some(refusal) = Refusal::from_code(code) {
        return match refusal {
            Refusal::NoProvider => Exit::NoProvider,
            Refusal::Deadline => Exit::Deadline,
            // A script that repeats a call after 3 must not repeat one that may have been executed.
            Refusal::ProviderGone => Exit::Other,
            _ if code < 300 => Exit::Refused,
            _ => Exit::Other,
        };
    }
    if let Some(misuse) = Misuse::from_code(code) {
        return match misuse {
            Misuse::Deadline => Exit::Deadline,
            Misuse::Unreachable | Misuse::Disconnected | Misuse::NotConnected => Exit::Unreachable,
            Misuse::BadName | Misuse::Encode => Exit::Usage,
            _ => Exit::Other,
        };
    }
    match Violation::from_code(code) {
        Some(Violation::BadServerProof | Violation::NotOffered) => Exit::Refused,
        Some(_) => Exit::Other,
        // 400 to 499 are this library's faults, from 1,000 on the application's.
        None => Exit::Fault,
    }
}

fn connection_hint(hub: &str, code: u16) -> Option<String> {
    if code == Misuse::Unreachable.code() {
        return Some(format!("start a hub with 'commipc hub --listen {hub}', or name another one with --hub"));
    }
    if Violation::from_code(code) == Some(Violation::BadServerProof) {
        return Some("it does not know your secret, so it may not be your hub: check --hub and --secret-file".into());
    }
    let hint = match Refusal::from_code(code)? {
        Refusal::AuthFailed => "check --secret-file and --credential: they must be those the hub was started with",
        Refusal::KdfUnsupported => "give the same kind of secret as the hub has, key or password, with --secret-file",
        Refusal::IdInUse => "choose another --id, or leave it out",
        Refusal::IdNotAllowed => "choose another --id, or prove another --credential",
        Refusal::VersionUnsupported => "use a hub and a commipc of the same release",
        refusal if refusal.is_retryable() => "try again later",
        _ => return None,
    };
    Some(hint.into())
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
            (501, Exit::Unreachable),
            (512, Exit::Unreachable),
            (506, Exit::Usage),
        ] {
            assert_eq!(exit(code), expected, "{code}");
        }
    }

    #[test]
    fn advice_names_what_to_type() {
        let about = About { hub: "unix:/h", channel: "math", event: "sum" };
        let text = format!("{:?}", operation(about, 300, "nobody provides this event"));
        assert!(text.contains("commipc provide math sum --echo"), "{text}");
        let text = format!("{:?}", connection("unix:/h", 512, "unreachable"));
        assert!(text.contains("commipc hub --listen unix:/h"), "{text}");
    }
}
