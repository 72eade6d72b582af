//! Control bodies: CBOR maps with small, rising integer labels, each declared once for both directions.
//!
//! Unknown labels are passed over, so that a later version can say more; a proof is always the last entry (label 23), so
//! that "the body without its proof" is a prefix.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::cbor::{self, Malformed};
use super::field::{Field, Policy, Record, Terms, each_entry};
use super::frame::FrameType;
use crate::names::Name;

/// A body that a frame type carries.
pub trait Control<'a>: Sized {
    /// The type of its frame.
    const TYPE: FrameType;

    /// Parses the whole body.
    ///
    /// # Errors
    /// When an entry is missing, malformed, repeated or out of order, or bytes follow the map.
    fn parse(body: &'a [u8]) -> Result<Self, Malformed>;

    /// Writes the body.
    fn encode(&self, out: &mut BytesMut);
}

/// The label of a proof.
pub(super) const PROOF_LABEL: u64 = 23;
/// Bytes of a proof's entry: label, head, 32 bytes.
pub(crate) const PROOF_ENTRY_LEN: usize = 1 + 2 + 32;

macro_rules! controls {
    ($($(#[$meta:meta])* $name:ident $(<$life:lifetime>)? { $($(#[doc = $doc:literal])+ $label:literal $field:ident: $type:ty,)* })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name $(<$life>)? { $($(#[doc = $doc])+ pub $field: $type,)* }

        impl<'a> Control<'a> for $name $(<$life>)? {
            const TYPE: FrameType = FrameType::$name;

            fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
                $(let mut $field: Option<$type> = None;)*
                each_entry(body, |label, reader| {
                    match label {
                        $($label => $field = Some(<$type as Field>::read(reader)?),)*
                        _ => reader.skip()?,
                    }
                    Ok(())
                })?;
                Ok(Self { $($field: $field.or_else(<$type as Field>::absent).ok_or(Malformed)?,)* })
            }

            fn encode(&self, out: &mut BytesMut) {
                cbor::put_map(out, 0 $(+ u64::from(self.$field.is_present()))*);
                $(if self.$field.is_present() {
                    cbor::put_uint(out, $label);
                    self.$field.put(out);
                })*
            }
        }
    )+};
}

controls! {
    /// The client's opening: who it is and what it offers.
    Hello<'a> {
        /// Protocol versions, best first.
        0 versions: Vec<u64>,
        /// Key derivations ([`crate::auth::Kdf`]).
        1 kdfs: Vec<u64>,
        /// Which credential will be proved.
        2 credential: Name<'a>,
        /// The id it wants.
        3 client: Name<'a>,
        /// Random per client machine, public.
        4 instance: &'a [u8; 16],
        /// Fresh randomness.
        5 nonce: &'a [u8; 32],
        /// Whether it needs record tags.
        6 records: bool,
        /// 0 none, 1 TLS exporter (RFC 9266).
        7 binding: u64,
        /// Verifier of the secret that a take-over of this login will have to prove.
        8 takeover: &'a [u8; 32],
        /// A set of optional features, as bits.
        9 features: u64,
    }
    /// The hub's question.
    Challenge<'a> {
        /// The version chosen.
        0 version: u64,
        /// The key derivation of the credential.
        1 kdf: u64,
        /// The hub's id.
        2 hub: Name<'a>,
        /// Random per hub process.
        3 boot: &'a [u8; 16],
        /// Fresh randomness.
        4 nonce: &'a [u8; 32],
        /// The credential's salt; empty for kdf 3.
        5 salt: &'a [u8],
        /// The credential's iterations.
        6 iterations: u64,
        /// Whether the hub needs record tags.
        7 records: bool,
        /// The largest frame after the handshake, in bytes of type and body.
        8 frame: u64,
        /// The features both sides have.
        9 features: u64,
    }
    /// The client's answer.
    Proof<'a> {
        /// Up to four, for take-over secrets the hub may know.
        0 takeover: Option<Vec<&'a [u8; 32]>>,
        /// Proof of the credential's secret.
        23 proof: &'a [u8; 32],
    }
    /// The hub's own proof, and what this connection is.
    Welcome<'a> {
        /// The hub's number for the connection.
        0 session: u64,
        /// The id the client has.
        1 client: Name<'a>,
        /// The credential's capabilities, as bits.
        2 capabilities: u64,
        /// The largest frame, in bytes of type and body.
        3 frame: u64,
        /// The hub asks nobody for a secret.
        4 insecure: bool,
        /// The connection is refused all the same: a [`crate::Refusal`].
        5 refused: Option<u16>,
        /// Proof that the hub knows the credential's verifier.
        23 proof: &'a [u8; 32],
    }
    /// A refusal that the hub has not proved to be its own.
    AuthFailed {
        /// A [`crate::Refusal`].
        0 code: u16,
    }
    /// Are you there?
    Ping {
        /// Comes back.
        0 number: u64,
    }
    /// I am.
    Pong {
        /// The number asked with.
        0 number: u64,
    }
    /// The connection ends.
    Goodbye {
        /// Why; 0 for no particular reason.
        0 code: u16,
    }
    /// How many message frames the hub has taken from this link since it stands.
    Ack {
        /// The cumulative count.
        0 taken: u64,
        /// Those of them, since the last ACK, that it refused.
        1 refused: Option<Vec<Refused>>,
    }
    /// How a control request ended.
    Done<'a> {
        /// The request's number.
        0 id: u64,
        /// 0, or a [`crate::Refusal`].
        1 code: u16,
        /// Of a channel that was opened: its epoch, 0 while it is unprotected.
        2 epoch: Option<u64>,
        /// Of a channel that was opened: whether this client owns it. Absent where the hub cannot say yet who does.
        3 owner: Option<bool>,
        /// Of an unprotected channel that was opened: the last epoch there was, where there was one.
        4 last_epoch: Option<u64>,
        /// Of a channel that was opened: who else owns it.
        5 owned_by: Option<Name<'a>>,
        /// Of a join, and of an operation at another hub: the hub's own proof.
        23 proof: Option<&'a [u8; 32]>,
    }
    /// Make me a member.
    Open<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// OSK, to own the channel if nobody does; masked where frames are tagged.
        2 owner: Option<&'a [u8; 32]>,
        /// Protect it in the same step; only with an owner key, and only if nobody owns it.
        3 record: Option<Record<'a>>,
        /// What becomes of it when its owner goes; read when the channel comes to be.
        4 policy: Option<Policy>,
        /// A password was given: an unprotected channel is refused.
        5 guarded: Option<bool>,
    }
    /// The channel is protected: prove that you know its password.
    JoinChallenge<'a> {
        /// The number of the OPEN.
        0 id: u64,
        /// The epoch of the protection.
        1 epoch: u64,
        /// How to derive ([`crate::auth::Kdf`]).
        2 kdf: u64,
        /// The channel's salt.
        3 salt: &'a [u8; 16],
        /// PBKDF2 rounds; 0 for a key.
        4 iterations: u64,
        /// Fresh randomness.
        5 nonce: &'a [u8; 32],
        /// The hub where the channel is protected, if it is another one.
        6 home: Option<Name<'a>>,
        /// That hub's boot id.
        7 boot: Option<&'a [u8; 16]>,
    }
    /// The proof.
    Join<'a> {
        /// The number of the OPEN.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// The epoch that is proved.
        2 epoch: u64,
        /// Fresh randomness.
        3 nonce: &'a [u8; 32],
        /// `Proof(JCK, "commipc/1 client proof\0", TH_join)`.
        23 proof: &'a [u8; 32],
    }
    /// The owner protects a channel anew.
    Protect<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// The epoch that the owner believes is stored.
        2 stored: u64,
        /// Rises with every owner operation of this link and channel.
        3 n: u64,
        /// The new protection.
        4 record: Record<'a>,
        /// `Proof(OCK, "commipc/1 owner proof\0", TH_own)`.
        23 proof: &'a [u8; 32],
    }
    /// The owner takes a channel's protection away.
    Unprotect<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// The epoch that the owner believes is stored.
        2 stored: u64,
        /// Rises with every owner operation of this link and channel.
        3 n: u64,
        /// The stored one plus one.
        4 epoch: u64,
        /// `Proof(OCK, "commipc/1 owner proof\0", TH_own)`.
        23 proof: &'a [u8; 32],
    }
    /// The owner is back.
    Reclaim<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// The epoch that the owner believes is stored.
        2 stored: u64,
        /// Rises with every owner operation of this link and channel.
        3 n: u64,
        /// `Proof(OCK, "commipc/1 owner proof\0", TH_own)`.
        23 proof: &'a [u8; 32],
    }
    /// Ownership is free: take it with a key of your own.
    Offer<'a> {
        /// Comes back.
        0 offer: &'a [u8; 16],
        /// Which channel.
        1 channel: Name<'a>,
    }
    /// I take it.
    Accept<'a> {
        /// The offer's.
        0 offer: &'a [u8; 16],
        /// Which channel.
        1 channel: Name<'a>,
        /// OSK, masked where frames are tagged.
        2 owner: &'a [u8; 32],
    }
    /// The owner ends a channel.
    Terminate<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// The epoch that the owner believes is stored.
        2 stored: u64,
        /// Rises with every owner operation of this link and channel.
        3 n: u64,
        /// `Proof(OCK, "commipc/1 owner proof\0", TH_own)`.
        23 proof: &'a [u8; 32],
    }
    /// The owner of a channel that is protected at another hub: without more, ask the home for a challenge; with all of it, have
    /// it do this. Answered by JOIN_CHALLENGE, and by DONE.
    Operate<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// The owner's fresh randomness.
        2 nonce: Option<&'a [u8; 32]>,
        /// The type of the frame that would say it at home: PROTECT, UNPROTECT or TERMINATE.
        3 kind: Option<u64>,
        /// That frame's body, with n = 0 and TH over both nonces.
        4 body: Option<&'a [u8]>,
    }
    /// What happened to a channel this client is, or was, a member of.
    Channel<'a> {
        /// Which channel.
        0 channel: Name<'a>,
        /// Why the membership is over: a [`crate::Refusal`]; 0 if it is not, and the owner changed.
        1 code: u16,
        /// The epoch from now on.
        2 epoch: Option<u64>,
        /// Who owns it from now on.
        3 owner: Option<Name<'a>>,
    }
    /// I am no longer a member.
    Leave<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
    }
    /// Requests for this event come to me.
    Provide<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// Which event.
        2 event: Name<'a>,
        /// How it is asked for: 0 call, 1 stream, 2 exchange.
        3 kind: u64,
    }
    /// No longer.
    Withdraw<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// Which event.
        2 event: Name<'a>,
    }
    /// Broadcasts come to me.
    Listen<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// Which event; all of them when absent.
        2 event: Option<Name<'a>>,
    }
    /// No longer.
    Unlisten<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
        /// Which event; the subscription to all of them when absent.
        2 event: Option<Name<'a>>,
    }
    /// An exchange ended without its peer's word. Preceded by the route in its frame.
    Fail {
        /// A [`crate::Refusal`].
        0 code: u16,
    }
    /// An amount of a stream: on the wire what may be sent in all, granted by the end that receives. Preceded by the
    /// route in its frame.
    Credit {
        /// Whole items.
        0 items: u64,
        /// Bytes of payload, and [`PIECE_OVERHEAD`] for each piece.
        1 bytes: u64,
    }
    /// Which hub is at a bridge's other end. Answered when all that can be reached through the hub was announced.
    Attach<'a> {
        /// The request's number.
        0 id: u64,
        /// The hub; none while the other end is not connected.
        1 far: Option<Name<'a>>,
    }
    /// Something can be reached on this way, instead of any that was announced before.
    Announce<'a> {
        /// What: 0 a provider, 1 listeners, 2 a member, 3 a channel's home.
        0 goal: u64,
        /// In which channel.
        1 channel: Name<'a>,
        /// The event that is provided, or listened to; all of them when absent.
        2 event: Option<Name<'a>>,
        /// The hubs on the way, the nearest first; the last one is where it is.
        3 path: Vec<Name<'a>>,
        /// The provider or member.
        4 client: Option<Name<'a>>,
        /// How a provider is asked: 0 call, 1 stream, 2 exchange.
        5 kind: Option<u64>,
        /// The channel's epoch, where it is protected.
        6 epoch: Option<u64>,
        /// The hub where it was protected.
        7 home: Option<Name<'a>>,
        /// How its members derive, where that is what is announced.
        8 terms: Option<Terms<'a>>,
        /// When the channel ended last for all who were members, in the home's unix ms; another one than before says that it
        /// has ended since.
        9 ended: Option<u64>,
    }
    /// Somebody at another hub wants to join a channel that is protected at its home, or owns it.
    Remote<'a> {
        /// The number of this request on this link.
        0 id: u64,
        /// The home.
        1 home: Name<'a>,
        /// Which channel.
        2 channel: Name<'a>,
        /// What is asked: 0 for a challenge, 1 whether the proof is right, 2 to do what an owner wants.
        3 asks: u64,
        /// The hub of who asks.
        4 hub: Name<'a>,
        /// Who that is.
        5 client: Name<'a>,
        /// The epoch that is known there, or proved.
        6 epoch: u64,
        /// With a proof: the client's fresh randomness.
        7 nonce: Option<&'a [u8; 32]>,
        /// What an owner wants: a frame's type.
        8 kind: Option<u64>,
        /// And its body, as the owner wrote it.
        9 body: Option<&'a [u8]>,
        /// `Proof(JCK, "commipc/1 client proof\0", TH_join)`.
        23 proof: Option<&'a [u8; 32]>,
    }
    /// What the home says.
    Told<'a> {
        /// The number of the request.
        0 id: u64,
        /// 0, or a [`crate::Refusal`].
        1 code: u16,
        /// Of a challenge: the epoch of the protection.
        2 epoch: Option<u64>,
        /// How to derive ([`crate::auth::Kdf`]).
        3 kdf: Option<u64>,
        /// The channel's salt.
        4 salt: Option<&'a [u8; 16]>,
        /// PBKDF2 rounds; 0 for a key.
        5 iterations: Option<u64>,
        /// The home's fresh randomness.
        6 nonce: Option<&'a [u8; 32]>,
        /// The home's boot id.
        7 boot: Option<&'a [u8; 16]>,
        /// Of what was proved: when the channel ended last, as it is announced.
        8 ended: Option<u64>,
        /// Of what was proved: the home's own proof.
        23 proof: Option<&'a [u8; 32]>,
    }
    /// It cannot be reached on this link any more.
    Forget<'a> {
        /// What: 0 a provider, 1 listeners, 2 a member, 3 a channel's home.
        0 goal: u64,
        /// In which channel.
        1 channel: Name<'a>,
        /// The event.
        2 event: Option<Name<'a>>,
        /// The hub where it is.
        3 hub: Name<'a>,
        /// The provider or member.
        4 client: Option<Name<'a>>,
        /// The channel's epoch, where it is protected.
        6 epoch: Option<u64>,
        /// The hub where it was protected.
        7 home: Option<Name<'a>>,
    }
}

impl Told<'_> {
    /// Nothing but how a request ended.
    #[must_use]
    pub const fn bare(id: u64, code: u16) -> Self {
        let (epoch, kdf, salt, iterations) = (None, None, None, None);
        Self { id, code, epoch, kdf, salt, iterations, nonce: None, boot: None, ended: None, proof: None }
    }
}

/// What a piece of a stream costs beside its payload, in bytes: about what its header takes.
pub const PIECE_OVERHEAD: u64 = 256;

impl Copy for Credit {}

impl Default for Credit {
    fn default() -> Self {
        Self::NONE
    }
}

impl Credit {
    /// Nothing.
    pub const NONE: Self = Self { items: 0, bytes: 0 };

    /// The cost of a piece with a payload of so many bytes; the last piece of an item also costs an item.
    #[must_use]
    pub const fn of_piece(payload: usize, last: bool) -> Self {
        Self { items: last as u64, bytes: (payload as u64).saturating_add(PIECE_OVERHEAD) }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// What is left of this when the other is taken away, and nothing where that is more.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self { items: self.items.saturating_sub(other.items), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    /// The larger amount of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { items: self.items.max(other.items), bytes: self.bytes.max(other.bytes) }
    }

    /// The smaller amount of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self { items: self.items.min(other.items), bytes: self.bytes.min(other.bytes) }
    }

    /// Whether neither amount exceeds the other's.
    #[must_use]
    pub const fn is_within(self, other: Self) -> bool {
        self.items <= other.items && self.bytes <= other.bytes
    }
}

/// A message frame the hub did not pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its position among the link's message frames, from 1.
    pub position: u64,
    /// A [`crate::Refusal`].
    pub code: u16,
}
