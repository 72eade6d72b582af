//! What was seen, as a hash that tells two runs apart and as a conversation that people can read.

use std::fmt;

use commipc_protocol::{Input, Instant, LinkEnd};
use sha2::{Digest as _, Sha256};

use crate::canon::Canon;
use crate::conversation::Conversation;
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
    steps: u64,
    conversation: Option<Conversation>,
}

/// Bytes gathered before the hash takes them.
const GATHERED: usize = 16 << 10;

impl Trace {
    /// Keeps what is said and done from now on, to be read.
    pub fn keep_conversation(&mut self) {
        self.conversation.get_or_insert_default();
    }

    /// How many inputs and outputs there were.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// How often an application asked for something or a connection broke.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// What was said and done, where it is kept.
    #[must_use]
    pub const fn conversation(&self) -> Option<&Conversation> {
        self.conversation.as_ref()
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
        let step = matches!(sight, Sight::Fed(Input::Command(_) | Input::Closed { how: LinkEnd::Reset, .. }));
        self.steps += u64::from(step);
        if let Some(conversation) = &mut self.conversation {
            conversation.hear(at, node, name, sight);
        }
    }
}
