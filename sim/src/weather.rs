//! What connections are like: the ranges from which each one draws its own nature.

use core::time::Duration;

use crate::attacker::Assault;
use crate::decisions::Chooser;

/// The ranges and chances from which every new connection draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weather {
    /// One way, in nanoseconds: least and most.
    pub latency: (u64, u64),
    /// What each write may take longer, in nanoseconds at most.
    pub jitter: u64,
    /// Nanoseconds a KiB takes on the line: least and most.
    pub ns_per_kib: (u64, u64),
    /// What the socket takes before its reader has read, in bytes: least and most.
    pub buffer: (u64, u64),
    /// How reads are cut: the weights of whole, halves, pieces and shattered ([`Chunks`]).
    pub chunks: [u64; 4],
    /// What carries new connections: the weights of a Unix socket with a checked user, of TCP and of memory.
    pub transports: [u64; 3],
    /// Of a thousand dials, how many are refused.
    pub refused: u64,
    /// Of a thousand connections, how many are cut at some byte.
    pub cut: u64,
    /// Up to which byte of one direction a cut may fall.
    pub cut_within: u64,
    /// Of a thousand closes, how many let the peer see a reset instead of an end in good order.
    pub rude: u64,
    /// What the news of an end may take longer than data, in nanoseconds at most.
    pub end_delay: u64,
    /// Every duration is a multiple of this many nanoseconds, so that moments coincide.
    pub grain: u64,
    /// What somebody on the path of connections does to frames, if anybody is there.
    pub assault: Option<Assault>,
}

impl Weather {
    /// Connections that vary in speed and in how reads are cut, and never fail.
    #[must_use]
    pub const fn fair() -> Self {
        Self {
            latency: (1_000, 5_000_000),
            jitter: 100_000,
            ns_per_kib: (64, 65_536),
            buffer: (4_096, 1 << 20),
            chunks: [4, 2, 2, 1],
            transports: [1, 1, 0],
            refused: 0,
            cut: 0,
            cut_within: 1,
            rude: 0,
            end_delay: 1_000_000,
            grain: 1,
            assault: None,
        }
    }

    /// Connections without any nature: nothing takes time, everything arrives whole.
    #[must_use]
    pub const fn still() -> Self {
        Self {
            latency: (0, 0),
            jitter: 0,
            ns_per_kib: (0, 0),
            buffer: (1 << 30, 1 << 30),
            chunks: [1, 0, 0, 0],
            transports: [0, 0, 1],
            refused: 0,
            cut: 0,
            cut_within: 1,
            rude: 0,
            end_delay: 0,
            grain: 1,
            assault: None,
        }
    }

    /// The same, with such a delay one way: least and most.
    #[must_use]
    pub const fn delayed(mut self, least: Duration, most: Duration) -> Self {
        self.latency = (nanos(least), nanos(most));
        self
    }

    /// The same, with lines that carry so many bytes in a second.
    #[must_use]
    pub const fn carrying(mut self, bytes_a_second: u64) -> Self {
        let each = 1_024 * 1_000_000_000 / if bytes_a_second == 0 { 1 } else { bytes_a_second };
        self.ns_per_kib = (each, each);
        self
    }

    /// The same, with every read cut in small pieces.
    #[must_use]
    pub const fn in_pieces(mut self) -> Self {
        self.chunks = [0, 0, 1, 1];
        self
    }

    /// Weather drawn for one run, about half of its troubles absent.
    #[must_use]
    pub fn drawn(mut choose: Chooser<'_>) -> Self {
        let grain = *choose.pick(&[1, 1_000, 1_000_000]).unwrap_or(&1);
        let latency = choose.log_uniform(1_000, 50_000_000);
        let mut maybe = |most: u64| if choose.chance(1, 2) { choose.log_uniform(1, most) } else { 0 };
        Self {
            latency: (latency / 8, latency),
            jitter: maybe(20_000_000),
            ns_per_kib: (64, 64 + maybe(2_000_000)),
            buffer: (4_096_u64.saturating_sub(maybe(4_000)), 1 << 18),
            chunks: [1 + maybe(8), maybe(8), maybe(8), maybe(4)],
            transports: [maybe(4), 1 + maybe(4), maybe(4)],
            refused: maybe(400),
            cut: maybe(700),
            cut_within: 1 + maybe(1 << 16),
            rude: maybe(800),
            end_delay: maybe(200_000_000),
            grain,
            assault: None,
        }
    }

    /// The same line with nothing that ends a connection: what is left of the weather when the storm is over.
    #[must_use]
    pub fn healed(&self) -> Self {
        Self { refused: 0, cut: 0, assault: self.assault.map(|_| Assault::default()), ..self.clone() }
    }

    pub(crate) fn coarse(&self, nanos: u64) -> u64 {
        nanos.div_ceil(self.grain.max(1)).saturating_mul(self.grain.max(1))
    }
}

const fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos() as u64)
}

/// How the bytes that have arrived are cut into reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// All that is there at once.
    Whole,
    /// In two, anywhere.
    Halves,
    /// In pieces of at most so many bytes.
    Pieces(u64),
    /// Byte by byte while the position in the stream is within the window, else whole.
    Shattered {
        /// The first position.
        from: u64,
        /// The first position behind.
        to: u64,
    },
}

impl Chunks {
    pub(crate) fn drawn(weather: &Weather, mut choose: Chooser<'_>) -> Self {
        match choose.weighted(&weather.chunks) {
            Some(1) => Self::Halves,
            Some(2) => Self::Pieces(choose.log_uniform(2, 4_096)),
            Some(3) => {
                let from = choose.log_uniform(1, 2_048) - 1;
                Self::Shattered { from, to: from + choose.log_uniform(1, 256) }
            }
            Some(_) | None => Self::Whole,
        }
    }

    /// How much of `available` bytes, not zero, the next read takes.
    pub(crate) fn next(self, position: u64, available: usize, mut choose: Chooser<'_>) -> usize {
        let most = available as u64;
        let taken = match self {
            Self::Whole => most,
            Self::Halves => most - choose.below(most),
            Self::Pieces(most_each) => choose.log_uniform(1, most.min(most_each)),
            Self::Shattered { from, .. } if position < from => most.min(from - position),
            Self::Shattered { to, .. } if position < to => 1,
            Self::Shattered { .. } => most,
        };
        usize::try_from(taken).unwrap_or(available)
    }
}
