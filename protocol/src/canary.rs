//! Bugs that are planted on purpose, to know that the simulator finds such ones.
//!
//! They are there only in builds with `--cfg commipc_canary`, which no feature of Cargo turns on; in all others
//! `Canary::sings` is the constant `false`. Which one is planted is said at run time, for the whole process.

macro_rules! canaries {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal,)+) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Canary { $($(#[doc = $doc])+ $variant = $number,)+ }

        impl Canary {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// What is wrong, in a few words.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

canaries! {
    /// The tags of frames are not looked at.
    RecordTag = 1,
    /// The signatures of messages are not looked at.
    Signature = 2,
    /// A client believes any hub.
    ServerProof = 3,
    /// A hub believes anybody to be a channel's owner.
    OwnerProof = 4,
    /// A hub believes anybody to know a channel's password.
    JoinProof = 5,
    /// A hub does not ask who says what it forwards.
    ForeignSender = 6,
    /// A receiver forgets which numbers it has accepted.
    Window = 7,
    /// A receiver does not tell what is missing.
    Gap = 8,
    /// A broadcast comes back to its sender.
    Echo = 9,
    /// Whoever answers a call is believed by the hub.
    ForeignReply = 10,
    /// A hub forwards what is said on a protected channel by others than members.
    NotMember = 11,
    /// A new password leaves one member in.
    Eviction = 12,
    /// A client proves an older password than it has proved before.
    RolledBack = 13,
    /// A caller waits twice as long as it was told to.
    CallDeadline = 14,
    /// A caller is not told that its provider is gone.
    ProviderGone = 15,
    /// What is refused is not acknowledged.
    Refusal = 16,
    /// Whoever opens a channel while its owner is away owns it.
    Away = 17,
    /// An answer counts for any call.
    Reference = 18,
    /// A provider goes on working for a caller that gave up.
    Cancel = 19,
    /// A provider that withdraws is not forgotten.
    Withdraw = 20,
    /// The order of a stream's pieces is not looked at.
    PieceIndex = 21,
    /// A stream that was cut counts as a whole one.
    PieceCount = 22,
    /// A piece of an item counts as all of it.
    Continued = 23,
    /// A receiver takes more of a stream than it has granted.
    Exceeds = 24,
    /// A stream is granted anew before anything of it is consumed.
    GrantEarly = 25,
    /// A hub passes the first grant of a stream on and no other.
    GrantOnce = 26,
    /// A provider is asked for more of a stream than is wanted.
    Demand = 27,
    /// A fault overtakes the items before it.
    FaultFirst = 28,
    /// A stream that has begun still ends at its deadline.
    Begun = 29,
    /// A caller does not forget its streams.
    StreamKept = 30,
    /// A hub counts streams that have ended.
    StreamCounted = 31,
    /// A hub lets nobody give up a stream.
    StreamCancel = 32,
    /// A hub lets a provider work for a caller that is gone.
    CallerGone = 33,
    /// Whoever loses its connection is not told what becomes of its streams.
    StreamLost = 34,
    /// Whoever loses its connection is not told what becomes of its requests.
    ServingLost = 35,
    /// Whoever loses its connection is not told what becomes of its broadcasts.
    SendsLost = 36,
    /// Nobody looks at how an event is provided.
    Kind = 37,
    /// A deadline that was called off comes all the same.
    TimerCancel = 38,
    /// A deadline comes a second late.
    TimerLate = 39,
    /// An exchange goes on when its caller has no more items.
    CallerEnd = 40,
    /// A hub believes anybody to know the secret.
    ClientProof = 41,
    /// Whoever proves a credential has whichever id it likes.
    AnyId = 42,
    /// Whoever gives pieces of a stream is believed by the hub.
    ForeignPiece = 43,
    /// A member goes on believing what is said under an older password.
    OldEpoch = 44,
    /// A client whose connection comes back does not listen again, and does not tell.
    Unheard = 45,
    /// A client whose connection comes back tells that it provides less than it does.
    Unprovided = 46,
    /// An owner whose connection comes back does not say that it owns.
    Unclaimed = 47,
    /// An owner takes its hub's word on an older request for the latest.
    OlderWord = 48,
    /// A drain does not wait for what is worked on.
    DrainCut = 49,
    /// Hubs tell each other ways that lead over the one who is told, and believe them.
    OwnHub = 50,
    /// A hub forgets at once what bridges have brought.
    Doubles = 51,
    /// A hub tells no bridge that something cannot be reached any more.
    Unforgotten = 52,
    /// A hub lets anybody end a channel that is somebody else's.
    Clears = 53,
}

impl Canary {
    /// Those that matter only where each has a credential of its own, which no run of the simulator's swarm is about:
    /// adversaries of their own find them.
    pub const WITH_OWN_CREDENTIALS: &'static [Self] = &[Self::AnyId];

    /// Its number, to be planted by.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The one with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|canary| canary.number() == number)
    }

    /// Whether this is a build in which bugs can be planted.
    #[must_use]
    pub const fn can_be_planted() -> bool {
        cfg!(commipc_canary)
    }

    /// Whether this bug is planted.
    #[cfg(not(commipc_canary))]
    pub(crate) const fn sings(self) -> bool {
        false
    }

    /// Whether this bug is planted.
    #[cfg(commipc_canary)]
    pub(crate) fn sings(self) -> bool {
        PLANTED.load(core::sync::atomic::Ordering::Relaxed) == self.number()
    }
}

/// The number of the bug that is planted; 0 for none.
#[cfg(commipc_canary)]
static PLANTED: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// Plants a bug in all machines of this process, or takes it out again. False where bugs cannot be planted, as in every
/// build that is shipped.
#[cfg(not(commipc_canary))]
#[must_use]
pub const fn plant(_: Option<Canary>) -> bool {
    false
}

/// Plants a bug in all machines of this process, or takes it out again. False where bugs cannot be planted, as in every
/// build that is shipped.
#[cfg(commipc_canary)]
#[must_use]
pub fn plant(canary: Option<Canary>) -> bool {
    PLANTED.store(canary.map_or(0, Canary::number), core::sync::atomic::Ordering::Relaxed);
    true
}
