//! Payloads on the command line, and those that came in.

use std::io::Read as _;

use ciborium::Value;

use crate::failure::{Failure, Outcome};
use crate::json;

/// Reads a payload, before anything else is started: it may come from a slow stdin.
pub(crate) fn read(text: &str) -> Outcome<Value> {
    let read;
    let text = if text == "-" {
        let mut stdin = String::new();
        std::io::stdin()
            .read_to_string(&mut stdin)
            .map_err(|error| Failure::usage(format!("the payload on stdin cannot be read: {error}")))?;
        read = stdin;
        read.as_str()
    } else if let Some(path) = text.strip_prefix('@') {
        read = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("the payload file {path} cannot be read: {error}")))?;
        read.as_str()
    } else {
        text
    };
    json::parse(text).map_err(|error| {
        Failure::usage(format!("the payload is {error}"))
            .hint(r#"write JSON, such as '{"a": 15}' or '"text"', @FILE, or - for stdin"#)
    })
}

/// The value that a payload holds. Raw bytes are themselves, and so is what should be a value and is none.
pub(crate) fn shown(payload: &commipc_tokio::Payload) -> Value {
    let value = || value(&payload.bytes);
    (!payload.raw).then(value).flatten().unwrap_or_else(|| Value::Bytes(payload.bytes.to_vec()))
}

/// The one value that fills the bytes.
pub(crate) fn value(mut bytes: &[u8]) -> Option<Value> {
    let value = ciborium::from_reader(&mut bytes).ok()?;
    bytes.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use commipc_tokio::Payload;

    #[test]
    fn every_payload_can_be_shown() {
        let show = |bytes: &'static [u8], raw| json::print(&shown(&Payload { bytes: Bytes::from_static(bytes), raw }));
        assert_eq!(show(&[0x18, 42], false), "42");
        assert_eq!(show(&[0x18, 42], true), r#"{"$bytes":"182a"}"#);
        for no_value in [&[0x18][..], &[1, 2], &[], &[0xff]] {
            assert_eq!(show(no_value, false), format!(r#"{{"$bytes":"{}"}}"#, json::hex(no_value)));
        }
    }
}
