//! Values to bytes and back: one CBOR item (RFC 8949) a payload.

use std::cell::Cell;

use bytes::Bytes;
use commipc_protocol::client::Payload;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a payload is not a value of the wanted type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// It is raw bytes where a value is wanted, or the other way round.
    WrongContent,
    /// It is another value, or none.
    Malformed(String),
}

/// Larger encodings are handed on as they are; smaller ones are copied to memory of exactly their size.
const COPY_MAX: usize = 16 << 10;

/// What decoding has for texts that are looked at and not kept, such as the names of fields.
const NAMES_MAX: usize = 4 << 10;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static NAMES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encodes a value.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload, String> {
    // Taken out, since a value may encode other values while it is encoded.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let result = ciborium::into_writer(value, &mut scratch);
    let encoded = match result {
        Ok(()) if scratch.len() > COPY_MAX => return Ok(Payload { bytes: Bytes::from(scratch), raw: false }),
        Ok(()) => Ok(Payload { bytes: Bytes::copy_from_slice(&scratch), raw: false }),
        Err(error) => Err(error.to_string()),
    };
    SCRATCH.set(scratch);
    encoded
}

/// Decodes a value that fills the payload.
pub(crate) fn decode<T: DeserializeOwned>(payload: &Payload) -> Result<T, DecodeError> {
    if payload.raw {
        return Err(DecodeError::WrongContent);
    }
    let mut rest = &payload.bytes[..];
    // Taken out as above. One that is made anew each time costs more to clear than most values take to decode.
    let mut names = NAMES.take();
    names.resize(NAMES_MAX, 0);
    let result = ciborium::de::from_reader_with_buffer(&mut rest, &mut names);
    NAMES.set(names);
    let value = result.map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Malformed("bytes follow the value".to_owned())) }
}

/// Takes the bytes of a raw payload.
pub(crate) fn raw(payload: Payload) -> Result<Bytes, DecodeError> {
    if payload.raw { Ok(payload.bytes) } else { Err(DecodeError::WrongContent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_and_kinds_are_told_apart() {
        let payload = encode(&("text", 7, vec![1.5])).unwrap();
        assert_eq!(decode::<(String, u8, Vec<f64>)>(&payload).unwrap(), ("text".to_owned(), 7, vec![1.5]));
        assert_eq!(raw(payload), Err(DecodeError::WrongContent));
        let bytes = Payload { bytes: Bytes::from_static(b"\x01"), raw: true };
        assert_eq!(decode::<u8>(&bytes), Err(DecodeError::WrongContent));
        let two = Payload { bytes: Bytes::from_static(b"\x01\x02"), raw: false };
        assert!(matches!(decode::<u8>(&two), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode::<u8>(&encode("x").unwrap()), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn large_values_survive() {
        let long = "x".repeat(100_000);
        assert_eq!(decode::<String>(&encode(&long).unwrap()).unwrap(), long);
        assert_eq!(decode::<u8>(&encode(&5_u8).unwrap()).unwrap(), 5);
    }
}
