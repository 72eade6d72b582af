//! What a command ends with when it does not succeed: an exit code, one line that says what happened, one that says
//! what to do next.

use std::fmt::Display;
use std::process::ExitCode;

/// The exit codes, the same for every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Whatever has no code of its own.
    Other = 1,
    /// The command line or the payload cannot be understood.
    Usage = 2,
    /// Nobody provides the event.
    NoProvider = 3,
    /// The deadline passed.
    Deadline = 4,
    /// The provider answered with a fault.
    Fault = 5,
    /// Refused, by the hub or by our own checks of secrets and key files.
    Refused = 6,
    /// No hub there, or the connection to it was lost.
    Unreachable = 7,
}

impl Exit {
    /// What another process of this program ended with.
    pub(crate) fn of(code: Option<i32>) -> Self {
        let known = [Self::Usage, Self::NoProvider, Self::Deadline, Self::Fault, Self::Refused, Self::Unreachable];
        known.into_iter().find(|exit| Some(*exit as i32) == code).unwrap_or(Self::Other)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    code: Option<u16>,
    message: String,
    hint: Option<String>,
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure without a stable number and without advice.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: None, message: message.into(), hint: None }
    }

    /// The payload or another argument makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something of the system failed: `doing` reads like "writing the key to F".
    pub(crate) fn io(doing: impl Display, error: &std::io::Error) -> Self {
        Self::new(Exit::Other, format!("{doing} failed: {error}"))
    }

    /// Adds the stable number of the protocol.
    pub(crate) fn code(mut self, code: u16) -> Self {
        self.code = Some(code);
        self
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says it on stderr, for people or as one line of JSON, and turns it into the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        self.tell(json);
        ExitCode::from(self.exit as u8)
    }

    /// Says it on stderr without ending anything.
    pub(crate) fn tell(&self, json: bool) {
        crate::say_beside(if json { self.to_json() } else { self.to_text() });
    }

    fn to_text(&self) -> String {
        let code = self.code.map(|code| format!(" (code {code})")).unwrap_or_default();
        let hint = self.hint.as_ref().map(|hint| format!("\n  → {hint}")).unwrap_or_default();
        format!("commipc: {}{code}{hint}", self.message)
    }

    fn to_json(&self) -> String {
        let mut line = serde_json::json!({ "error": self.message, "code": self.code, "exit": self.exit as u8 });
        if let Some(hint) = &self.hint {
            line["hint"] = hint.as_str().into();
        }
        line.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_happened_and_what_to_do_next() {
        let failure = Failure::new(Exit::NoProvider, "nobody provides math/sum").code(300).hint("start a provider");
        assert_eq!(failure.to_text(), "commipc: nobody provides math/sum (code 300)\n  → start a provider");
        let json: serde_json::Value = serde_json::from_str(&failure.to_json()).unwrap();
        assert_eq!(json["error"], "nobody provides math/sum");
        assert_eq!(json["code"], 300);
        assert_eq!(json["exit"], 3);
        assert_eq!(json["hint"], "start a provider");
    }
}
