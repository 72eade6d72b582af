//! The payload of a fault message: `{0: code, 1: message, 2: details, 3: retryable}`, in exactly that encoding.

use alloc::borrow::ToOwned as _;

use bytes::{Bytes, BytesMut};

use super::cbor::{self, Malformed, Reader};
use crate::error::Fault;

/// Writes a fault as a payload.
pub(crate) fn put_fault(out: &mut BytesMut, fault: &Fault) {
    cbor::put_map(out, 4);
    cbor::put_uint(out, 0);
    cbor::put_uint(out, u64::from(fault.code));
    cbor::put_uint(out, 1);
    cbor::put_text(out, &fault.message);
    cbor::put_uint(out, 2);
    cbor::put_bytes(out, &fault.details);
    cbor::put_uint(out, 3);
    cbor::put_bool(out, fault.retryable);
}

/// Reads a fault from a payload.
pub(crate) fn parse_fault(payload: &[u8]) -> Result<Fault, Malformed> {
    let mut reader = Reader::new(payload);
    if reader.map()? != 4 {
        return Err(Malformed);
    }
    reader.literal(&[0])?;
    let code = u16::try_from(reader.uint()?).map_err(|_| Malformed)?;
    reader.literal(&[1])?;
    let message = reader.text()?.to_owned();
    reader.literal(&[2])?;
    let details = Bytes::copy_from_slice(reader.bytes()?);
    reader.literal(&[3])?;
    let retryable = reader.bool()?;
    reader.finish()?;
    Ok(Fault { code, message, details, retryable })
}
