//! The one contract: every machine is fed inputs and time, and is drained of outputs.
//!
//! ```text
//!              Input: bytes, links, commands, time
//!   driver  ─────────────────────────────────────────►  machine
//!     ▲                                                    │
//!     └──────────────────────────────────────────────────  ┘
//!              Output: bytes, dials, closes, events
//! ```

use alloc::sync::Arc;
use core::fmt;
use core::net::IpAddr;

use bytes::Bytes;

use crate::time::{Deadline, Now};

/// A protocol state machine: no I/O, no clock, no randomness of its own.
///
/// Inputs may be fed without draining and outputs may be drained late; undrained output costs memory only.
/// The same seed, configuration and inputs give the same outputs, byte for byte. A hostile peer can only cause outputs.
pub trait Machine {
    /// What the application may ask.
    type Command;
    /// What the application is told.
    type Event;

    /// Feeds one input. Infallible: whatever a peer did wrong comes out as outputs.
    ///
    /// A `now.mono` that runs backwards counts as the latest seen. [`Input::Timeout`] before the deadline does nothing.
    fn handle_input(&mut self, now: Now, input: Input<Self::Command>);

    /// The next output, `None` when all is drained. O(1) when idle.
    fn poll_output(&mut self) -> Option<Output<Self::Event>>;

    /// When to feed [`Input::Timeout`], if at all. May be early, never late; may change with every input.
    fn poll_timeout(&self) -> Option<Deadline>;
}

/// The largest buffer a driver reads into: what a machine keeps of it pins all of it.
pub const READ_BUFFER: usize = 64 << 10;

/// What a driver feeds.
#[derive(Clone, Debug)]
pub enum Input<C> {
    /// A listener took a connection; `link` was allocated by the driver ([`LinkId::accepted`]).
    Accepted {
        /// The new link.
        link: LinkId,
        /// Who is there.
        peer: Peer,
    },
    /// The connection asked for with [`Output::Dial`] stands.
    Dialled {
        /// The link named in the request.
        link: LinkId,
        /// Who is there.
        peer: Peer,
    },
    /// Bytes came in. Any split of the same bytes has the same effect. They lie in a buffer of at most [`READ_BUFFER`] bytes.
    Received {
        /// The link they came on.
        link: LinkId,
        /// The bytes.
        data: Bytes,
    },
    /// So many more bytes of what was transmitted on this link left the driver's hands.
    Written {
        /// The link.
        link: LinkId,
        /// How many bytes, counted since the last such input.
        bytes: usize,
    },
    /// The link is gone, or could not be dialled.
    Closed {
        /// The link.
        link: LinkId,
        /// Why.
        how: LinkEnd,
    },
    /// A listener cannot take the next connection: the system has no files or no memory left for it.
    Shortage,
    /// The application asks for something.
    Command(C),
    /// The deadline of [`Machine::poll_timeout`] has come.
    Timeout,
}

/// What a driver carries out.
#[derive(Clone, Debug)]
#[must_use = "an output that is not carried out is a message or an event lost"]
pub enum Output<E> {
    /// Write these bytes, after those of earlier `Transmit`s for the link. Acknowledged with [`Input::Written`].
    Transmit {
        /// The link.
        link: LinkId,
        /// The bytes.
        data: Bytes,
    },
    /// Connect; answered by [`Input::Dialled`] or [`Input::Closed`].
    Dial {
        /// The link to be, allocated by the machine ([`LinkId::dialled`]).
        link: LinkId,
        /// Where to: the URL given in the machine's configuration.
        to: Arc<str>,
    },
    /// Close the link. The machine has forgotten it; later inputs for it have no effect.
    Close {
        /// The link.
        link: LinkId,
        /// What is to be done first.
        flush: Flush,
    },
    /// Tell the application.
    Event(E),
}

/// What happens to a link between the machine's last word on it and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flush {
    /// Nothing: what is still unwritten is dropped.
    Nothing,
    /// All that was transmitted is written.
    Written,
    /// All that was transmitted is written, and the peer has a while to read it and to close too: a socket that is closed
    /// before everything on it was read may destroy what the peer has not read yet.
    Read,
}

/// Names one connection for one machine: an index that is reused and a generation that is not.
///
/// Links a driver accepted and links a machine dialled come from disjoint halves, so neither has to ask the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    index: u32,
    generation: u32,
}

impl LinkId {
    const DIALLED: u32 = 1 << 31;

    /// A link the driver accepted. `index` is dense and below 2³¹; `generation` differs for each use of the index.
    #[must_use]
    pub const fn accepted(index: u32, generation: u32) -> Self {
        Self { index: index & !Self::DIALLED, generation }
    }

    /// A link the machine asked for. `index` is dense and below 2³¹; `generation` differs for each use of the index.
    #[must_use]
    pub const fn dialled(index: u32, generation: u32) -> Self {
        Self { index: index | Self::DIALLED, generation }
    }

    /// The dense index within its half.
    #[must_use]
    pub const fn index(self) -> usize {
        (self.index & !Self::DIALLED) as usize
    }

    /// Which use of the index this is.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// Whether the machine asked for this link.
    #[must_use]
    pub const fn is_dialled(self) -> bool {
        self.index & Self::DIALLED != 0
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let half = if self.is_dialled() { 'd' } else { 'a' };
        write!(f, "{half}{}.{}", self.index(), self.generation)
    }
}

/// What the driver knows of the other end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What carries the bytes.
    pub transport: Transport,
    /// The peer process's user, where the system tells it.
    pub uid: Option<u32>,
    /// Whether the driver compared `uid` with the user it expected (its own, unless configured otherwise).
    pub uid_checked: bool,
    /// The peer's address, for counting by source where sources differ.
    pub source: Option<IpAddr>,
    /// The TLS exporter value (RFC 9266), where the link runs under TLS.
    pub binding: Option<[u8; 32]>,
}

impl Peer {
    /// A peer of which nothing is known but the transport.
    #[must_use]
    pub const fn unknown(transport: Transport) -> Self {
        Self { transport, uid: None, uid_checked: false, source: None, binding: None }
    }

    /// Whether bytes on this link are safe from strangers without record tags: a Unix socket whose peer's user was
    /// checked, memory of the own process, or TLS with a channel binding.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        match self.transport {
            Transport::Unix => self.uid_checked,
            Transport::Memory => true,
            Transport::Tcp | Transport::Stream => self.binding.is_some(),
        }
    }
}

/// What carries a link's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A Unix stream socket.
    Unix,
    /// TCP, plain unless the peer has a binding.
    Tcp,
    /// Memory of this process.
    Memory,
    /// A stream that the program handed in; plain unless the peer has a binding.
    Stream,
}

/// How a link ended, as far as the driver can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkEnd {
    /// The peer closed in good order.
    Eof,
    /// The connection broke.
    Reset,
    /// It could not be dialled: nobody listens there.
    Refused,
    /// It could not be dialled: not allowed, or the other side is not who it must be.
    Denied,
    /// It could not be dialled for another reason.
    Unreachable,
}
