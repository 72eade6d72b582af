//! Frames: `u32 length ‖ u8 type ‖ body [‖ 16-byte record tag]`, and what their types mean.

use super::message::Kind;

/// The first bytes of a client: "CIPC", line-ending bytes that text modes would spoil, and the version of the framing.
pub const MAGIC: [u8; 8] = *b"CIPC\r\n\x1a\x01";
/// Bytes of the length before a frame.
pub const LENGTH_LEN: usize = 4;
/// Bytes of a record tag behind a frame.
pub const TAG_LEN: usize = 16;
/// The version of the protocol this crate speaks.
pub const VERSION: u64 = 1;

macro_rules! frame_types {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal,)+) => {
        /// What a frame is. Below 128 an unknown type closes the link; from 128 on it is skipped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum FrameType { $($(#[doc = $doc])+ $variant = $number,)+ }

        impl FrameType {
            /// Every type this version reads or writes, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The type with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

frame_types! {
    /// Client: who I am and what I offer.
    Hello = 1,
    /// Hub: what to prove.
    Challenge = 2,
    /// Client: the proof.
    Proof = 3,
    /// Hub: its own proof, and what this connection is.
    Welcome = 4,
    /// Hub: a refusal it has not proved to be its own.
    AuthFailed = 5,
    /// Are you there?
    Ping = 6,
    /// I am.
    Pong = 7,
    /// The connection ends, and why.
    Goodbye = 8,
    /// Hub: how many message frames were taken, and which were refused.
    Ack = 9,
    /// Hub: how a control request ended.
    Done = 10,
    /// Client: make me a member.
    Open = 16,
    /// Hub: prove that you know the channel's password.
    JoinChallenge = 17,
    /// Client: the proof.
    Join = 18,
    /// Client: I am no longer a member.
    Leave = 19,
    /// Client: requests for this event come to me.
    Provide = 20,
    /// Client: no longer.
    Withdraw = 21,
    /// Client: broadcasts of this event, or of all, come to me.
    Listen = 22,
    /// Client: no longer.
    Unlisten = 23,
    /// Owner: a channel's protection from now on.
    Protect = 24,
    /// Owner: no protection any more.
    Unprotect = 25,
    /// Owner: I am back.
    Reclaim = 26,
    /// Hub: ownership is free.
    Offer = 27,
    /// Client: I take it.
    Accept = 28,
    /// Owner: the channel ends.
    Terminate = 29,
    /// Hub: what happened to a channel.
    Channel = 30,
    /// Owner: what is to be done at the channel's home, which is another hub.
    Operate = 31,
    /// A message to every listener.
    Broadcast = 33,
    /// A message to a provider, without an answer.
    Send = 34,
    /// A request.
    Call = 35,
    /// Its result.
    Answer = 36,
    /// Its failure, told by the provider.
    Fault = 37,
    /// One piece of a stream.
    Item = 38,
    /// A stream's end.
    End = 39,
    /// The caller gives up.
    Cancel = 40,
    /// The number of a sender's last broadcast.
    Beacon = 41,
    /// Hub: an exchange ended without its peer's word.
    Fail = 48,
    /// More may be sent in an exchange.
    Credit = 49,
    /// Something can be reached on this way.
    Announce = 64,
    /// It cannot any more.
    Forget = 65,
    /// What the home of a channel is asked by a hub whose client wants to join it, or owns it.
    Remote = 67,
    /// Bridge: which hub is at the other end.
    Attach = 68,
    /// What it answers.
    Told = 69,
}

impl FrameType {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind of message such a frame carries, if it carries one.
    #[must_use]
    pub const fn message_kind(self) -> Option<Kind> {
        Some(match self {
            Self::Broadcast => Kind::Broadcast,
            Self::Send => Kind::Send,
            Self::Call => Kind::Call,
            Self::Answer => Kind::Answer,
            Self::Fault => Kind::Fault,
            Self::Item => Kind::Item,
            Self::End => Kind::End,
            Self::Cancel => Kind::Cancel,
            Self::Beacon => Kind::Beacon,
            Self::Hello
            | Self::Challenge
            | Self::Proof
            | Self::Welcome
            | Self::AuthFailed
            | Self::Ping
            | Self::Pong
            | Self::Goodbye
            | Self::Ack
            | Self::Done
            | Self::Open
            | Self::JoinChallenge
            | Self::Join
            | Self::Protect
            | Self::Unprotect
            | Self::Reclaim
            | Self::Offer
            | Self::Accept
            | Self::Terminate
            | Self::Operate
            | Self::Channel
            | Self::Leave
            | Self::Provide
            | Self::Withdraw
            | Self::Listen
            | Self::Unlisten
            | Self::Fail
            | Self::Credit
            | Self::Announce
            | Self::Forget
            | Self::Remote
            | Self::Told
            | Self::Attach => return None,
        })
    }
}

impl From<Kind> for FrameType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Broadcast => Self::Broadcast,
            Kind::Send => Self::Send,
            Kind::Call => Self::Call,
            Kind::Answer => Self::Answer,
            Kind::Fault => Self::Fault,
            Kind::Item => Self::Item,
            Kind::End => Self::End,
            Kind::Cancel => Self::Cancel,
            Kind::Beacon => Self::Beacon,
        }
    }
}
