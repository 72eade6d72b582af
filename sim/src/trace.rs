//! What was seen, as a hash that tells two runs apart and as a conversation that people can read.

use std::fmt;

use commipc_protocol::{Flush, Input, Instant, Output, client};
use sha2::{Digest as _, Sha256};

use crate::canon::Canon;
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// The SHA-256 over every input and output of a run. Equal runs have equal hashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceHash([u8; 32]);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What goes into a hash, gathered before the hash takes it.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    hash: Sha256,
    buffer: Vec<u8>,
}

impl Tape {
    pub(crate) fn number(&mut self, number: u64) {
        self.buffer.extend_from_slice(&number.to_le_bytes());
    }

    /// Bytes and how many they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
    }

    /// To be called now and then, behind a whole entry.
    pub(crate) fn wind(&mut self) {
        if self.buffer.len() >= GATHERED {
            self.hash.update(&self.buffer);
            self.buffer.clear();
        }
    }

    pub(crate) fn hash(&self) -> TraceHash {
        let mut hash = self.hash.clone();
        hash.update(&self.buffer);
        TraceHash(hash.finalize().into())
    }
}

/// Records what is seen.
#[derive(Debug, Default)]
pub struct Trace {
    tape: Tape,
    events: u64,
    lines: Option<Vec<String>>,
}

/// Bytes gathered before the hash takes them.
const GATHERED: usize = 16 << 10;
/// The longest line of a conversation, in characters.
const LINE: usize = 200;

impl Trace {
    /// Keeps a readable line of each entry from now on.
    pub fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// How many inputs and outputs there were.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The readable lines, where they are kept.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// The hash over all so far.
    #[must_use]
    pub fn hash(&self) -> TraceHash {
        self.tape.hash()
    }

    /// Records one sight at a node called `name`.
    pub fn record(&mut self, at: Instant, node: NodeId, name: &str, sight: &Sight<'_, Asked, Told>) {
        self.tape.number(at.as_nanos());
        self.tape.number(u64::from(node.0));
        match sight {
            Sight::Fed(input) => input.canon(&mut self.tape.buffer),
            Sight::Gave(output) => output.canon(&mut self.tape.buffer),
            Sight::Linked { .. } | Sight::Drained | Sight::Broke(_) => {}
        }
        self.events += u64::from(matches!(sight, Sight::Fed(_) | Sight::Gave(_)));
        self.tape.wind();
        if let (Some(lines), Some(text)) = (&mut self.lines, describe(sight)) {
            let text: String = text.chars().take(LINE).collect();
            let (millis, micros) = (at.as_nanos() / 1_000_000, at.as_nanos() / 1_000 % 1_000);
            lines.push(format!("{millis:>8}.{micros:03} ms  {name:<10} {text}"));
        }
    }
}

fn describe(sight: &Sight<'_, Asked, Told>) -> Option<String> {
    Some(match sight {
        Sight::Linked { link, as_link, .. } => format!("-- {link:?} leads to {as_link:?}"),
        Sight::Fed(input) => format!("<- {}", describe_input(input)),
        Sight::Gave(output) => format!("-> {}", describe_output(output)),
        Sight::Drained => return None,
        Sight::Broke(what) => format!("!! {what}"),
    })
}

fn describe_input(input: &Input<Asked>) -> String {
    match input {
        Input::Accepted { link, peer } => format!("accepted {link:?} over {:?}", peer.transport),
        Input::Dialled { link, peer } => format!("dialled {link:?} over {:?}", peer.transport),
        Input::Received { link, data } => format!("{} bytes on {link:?}", data.len()),
        Input::Written { link, bytes } => format!("{bytes} bytes written on {link:?}"),
        Input::Closed { link, how } => format!("{link:?} is over: {how:?}"),
        Input::Command(Asked::Client(client::Command::KeyDerived(_))) => "KeyDerived".to_owned(),
        Input::Command(Asked::Client(command)) => format!("{command:?}"),
        Input::Command(Asked::Hub(command)) => format!("{command:?}"),
        Input::Command(Asked::Malice(order)) => format!("{order:?}"),
        Input::Shortage => "the system is short of files".to_owned(),
        Input::Timeout => "timeout".to_owned(),
    }
}

fn describe_output(output: &Output<Told>) -> String {
    match output {
        Output::Transmit { link, data } => format!("{} bytes for {link:?}", data.len()),
        Output::Dial { link, to } => format!("dial {to} as {link:?}"),
        Output::Close { link, flush: Flush::Written | Flush::Read } => {
            format!("close {link:?} after what is unwritten")
        }
        Output::Close { link, flush: Flush::Nothing } => format!("close {link:?}"),
        Output::Event(Told::Client(event)) => format!("{event:?}"),
        Output::Event(Told::Hub(event)) => format!("{event:?}"),
        Output::Event(Told::Withheld { from, what }) => format!("{what:?} is kept from {from}"),
    }
}
