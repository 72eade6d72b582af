//! The values that entries of control bodies can have, and the rule that all bodies keep.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::cbor::{self, Malformed, Reader};
use super::control::{PROOF_LABEL, Refused};
use crate::names::Name;

/// A value that an entry can have.
pub(super) trait Field<'a>: Sized {
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
pub(super) fn each_entry<'a>(
    body: &'a [u8],
    mut entry: impl FnMut(u64, &mut Reader<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    let mut last = None;
    for _ in 0..reader.map()? {
        let label = reader.uint()?;
        if Some(label) <= last || last == Some(PROOF_LABEL) {
            return Err(Malformed);
        }
        last = Some(label);
        entry(label, &mut reader)?;
    }
    reader.finish()
}

/// A nested body: all its entries, and no others.
macro_rules! nested {
    ($($(#[$meta:meta])* $name:ident $(<$life:lifetime>)? { $($(#[doc = $doc:literal])+ $label:literal $field:ident: $type:ty,)* })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name $(<$life>)? { $($(#[doc = $doc])+ pub $field: $type,)* }

        impl<'a> Field<'a> for $name $(<$life>)? {
            fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
                if reader.map()? != 0 $(+ { let _ = $label; 1 })* {
                    return Err(Malformed);
                }
                Ok(Self { $($field: {
                    if reader.uint()? != $label {
                        return Err(Malformed);
                    }
                    <$type as Field>::read(reader)?
                },)* })
            }

            fn put(&self, out: &mut BytesMut) {
                cbor::put_map(out, 0 $(+ { let _ = $label; 1 })*);
                $(cbor::put_uint(out, $label);
                self.$field.put(out);)*
            }
        }
    )+};
}

nested! {
    /// How a channel is protected: what its hub keeps.
    Record<'a> {
        /// From 1, rising with every change.
        0 epoch: u64,
        /// How members derive ([`crate::auth::Kdf`]).
        1 kdf: u64,
        /// Random, new with every change.
        2 salt: &'a [u8; 16],
        /// PBKDF2 rounds; 0 for a key.
        3 iterations: u64,
        /// JSK, masked where frames are tagged.
        4 stored_key: &'a [u8; 32],
        /// JVK, masked where frames are tagged.
        5 server_key: &'a [u8; 32],
    }
    /// How members of a channel derive its keys: all that others than its home know of its protection.
    Terms<'a> {
        /// How members derive ([`crate::auth::Kdf`]).
        0 kdf: u64,
        /// Random, new with every change.
        1 salt: &'a [u8; 16],
        /// PBKDF2 rounds; 0 for a key.
        2 iterations: u64,
    }
    /// What becomes of a channel whose owner goes.
    Policy {
        /// 0 terminate, 1 promote, 2 hold.
        0 kind: u64,
        /// How long an owner who goes is waited for, in milliseconds.
        1 grace: u64,
        /// What then: 0 terminate, 1 promote.
        2 then: u64,
    }
}
