//! How an event is asked for, as providers, callers and hubs say it.

/// How an event is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// One request, one answer.
    Call,
    /// One request, any number of items.
    Stream,
    /// One request, and any number of items in both directions.
    Exchange,
}

impl EventKind {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Call => 0,
            Self::Stream => 1,
            Self::Exchange => 2,
        }
    }

    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Call),
            1 => Some(Self::Stream),
            2 => Some(Self::Exchange),
            _ => None,
        }
    }

    /// Whether it is answered with a stream.
    #[must_use]
    pub const fn streams(self) -> bool {
        match self {
            Self::Call => false,
            Self::Stream | Self::Exchange => true,
        }
    }
}
