//! Control bodies: CBOR maps with small, rising integer labels, each declared once for both directions.
//!
//! Unknown labels are passed over, so that a later version can say more; a proof is always the last entry (label 23), so
//! that "the body without its proof" is a prefix.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::cbor::{self, Malformed, Reader};
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
const PROOF_LABEL: u64 = 23;
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
    Done {
        /// The request's number.
        0 id: u64,
        /// 0, or a [`crate::Refusal`].
        1 code: u16,
    }
    /// Make me a member.
    Open<'a> {
        /// The request's number.
        0 id: u64,
        /// Which channel.
        1 channel: Name<'a>,
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
        /// How it is asked for: 0 call.
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
}

/// A message frame the hub did not pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its position among the link's message frames, from 1.
    pub position: u64,
    /// A [`crate::Refusal`].
    pub code: u16,
}

/// A value that an entry can have.
trait Field<'a>: Sized {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed>;
    fn put(&self, out: &mut BytesMut);

    /// The value of an entry that is not there, if that is allowed.
    fn absent() -> Option<Self> {
        None
    }

    fn is_present(&self) -> bool {
        true
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        T::read(reader).map(Some)
    }

    fn put(&self, out: &mut BytesMut) {
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn is_present(&self) -> bool {
        self.is_some()
    }
}

impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        // Grows with what is read, never by what a length claims.
        let mut list = Self::new();
        for _ in 0..reader.array()? {
            list.push(T::read(reader)?);
        }
        Ok(list)
    }

    fn put(&self, out: &mut BytesMut) {
        cbor::put_array(out, self.len() as u64);
        self.iter().for_each(|value| value.put(out));
    }
}

impl Field<'_> for u64 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.uint()
    }

    fn put(&self, out: &mut BytesMut) {
        cbor::put_uint(out, *self);
    }
}

impl Field<'_> for u16 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::try_from(reader.uint()?).map_err(|_| Malformed)
    }

    fn put(&self, out: &mut BytesMut) {
        cbor::put_uint(out, u64::from(*self));
    }
}

impl Field<'_> for bool {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.bool()
    }

    fn put(&self, out: &mut BytesMut) {
        cbor::put_bool(out, *self);
    }
}

impl<'a> Field<'a> for Name<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Self::new(reader.text()?).map_err(|_| Malformed)
    }

    fn put(&self, out: &mut BytesMut) {
        cbor::put_text(out, self.as_str());
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.bytes()
    }

    fn put(&self, out: &mut BytesMut) {
        cbor::put_bytes(out, self);
    }
}

impl<'a, const N: usize> Field<'a> for &'a [u8; N] {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.bytes()?.try_into().map_err(|_| Malformed)
    }

    fn put(&self, out: &mut BytesMut) {
        cbor::put_bytes(out, *self);
    }
}

impl Field<'_> for Refused {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.array()? != 2 {
            return Err(Malformed);
        }
        Ok(Self { position: u64::read(reader)?, code: u16::read(reader)? })
    }

    fn put(&self, out: &mut BytesMut) {
        cbor::put_array(out, 2);
        self.position.put(out);
        self.code.put(out);
    }
}

/// Calls `entry` for each label, which must rise; a proof's label is never followed by another.
fn each_entry<'a>(
    body: &'a [u8],
    mut entry: impl FnMut(u64, &mut Reader<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    let mut least = 0;
    for _ in 0..reader.map()? {
        let label = reader.uint()?;
        if label < least || least > PROOF_LABEL {
            return Err(Malformed);
        }
        least = label.checked_add(1).ok_or(Malformed)?;
        entry(label, &mut reader)?;
    }
    reader.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<'a>(body: &impl Control<'a>) -> BytesMut {
        let mut out = BytesMut::new();
        body.encode(&mut out);
        out
    }

    #[test]
    fn bodies_come_back_as_they_went() {
        let name = Name::new("sum").unwrap();
        let provide = Provide { id: 7, channel: Name::new("math").unwrap(), event: name, kind: 0 };
        assert_eq!(Provide::parse(&encoded(&provide)), Ok(provide));
        for event in [None, Some(name)] {
            let listen = Listen { id: 1 << 40, channel: name, event };
            assert_eq!(Listen::parse(&encoded(&listen)), Ok(listen));
        }
        let ack = Ack { taken: 3, refused: Some(vec![Refused { position: 2, code: 300 }]) };
        assert_eq!(Ack::parse(&encoded(&ack)), Ok(ack));
    }

    #[test]
    fn unknown_entries_are_passed_over_and_bad_ones_are_not() {
        assert_eq!(Ping::parse(&[0xa2, 0, 5, 9, 0x81, 0xf6]), Ok(Ping { number: 5 }));
        for (what, body) in [
            ("label twice", &[0xa2, 0, 5, 0, 5][..]),
            ("labels falling", &[0xa2, 9, 1, 0, 5]),
            ("entry missing", &[0xa0]),
            ("trailing byte", &[0xa1, 0, 5, 0]),
            ("long integer", &[0xa1, 0, 0x18, 5]),
            ("indefinite map", &[0xbf, 0, 5, 0xff]),
            ("entry behind the proof's label", &[0xa3, 0, 5, 23, 0, 0x18, 24, 0]),
            ("unknown entry malformed", &[0xa2, 0, 5, 9, 0xf9, 0, 0]),
        ] {
            assert_eq!(Ping::parse(body), Err(Malformed), "{what}");
        }
    }

    #[test]
    fn a_proof_is_a_suffix_of_known_length() {
        let proof = [7; 32];
        let body = Proof { takeover: None, proof: &proof };
        let bytes = encoded(&body);
        assert_eq!(bytes.len(), 1 + PROOF_ENTRY_LEN);
        assert!(bytes.ends_with(&proof));
    }
}
