//! JSON on the command line, CBOR on the wire, and back without loss.
//!
//! What JSON cannot say is an object with one key that starts with `$`:
//!
//! | CBOR | JSON |
//! |---|---|
//! | byte string | `{"$bytes": "<hex>"}` |
//! | NaN, infinities | `{"$float": "NaN"}`, `"Infinity"`, `"-Infinity"` |
//! | tag | `{"$tag": [number, value]}` |
//! | map with keys that are no texts, or that reads like one of these | `{"$map": [[key, value], …]}` |
//!
//! Integers keep their digits; CBOR's reach from −2⁶⁴ to 2⁶⁴−1. The keys of an object read from JSON are sorted.

use std::fmt::Write as _;

use ciborium::Value;
use ciborium::value::Integer;
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::{Map, Value as Json};

/// Reads a JSON text.
///
/// # Errors
/// When the text is no JSON, or a number or `$` object has no counterpart: a sentence for people.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let json: Json = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    from_json(json)
}

/// Writes one line of JSON.
pub(crate) fn print(value: &Value) -> String {
    line(&Printed(value))
}

/// Writes something that is no CBOR value as one line of JSON.
pub(crate) fn line(of: &impl Serialize) -> String {
    // Only a map key that is no text can make it fail, and what is written here has none.
    serde_json::to_string(of).unwrap_or_else(|_| "null".into())
}

/// Bytes in base 16.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes from base 16, `None` when it is none.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    let complete = pairs.remainder().is_empty();
    complete.then(|| pairs.map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

fn from_json(json: Json) -> Result<Value, String> {
    match json {
        Json::Null => Ok(Value::Null),
        Json::Bool(b) => Ok(Value::Bool(b)),
        Json::Number(number) => from_number(&number),
        Json::String(text) => Ok(Value::Text(text)),
        Json::Array(items) => items.into_iter().map(from_json).collect::<Result<_, _>>().map(Value::Array),
        Json::Object(object) => match special(&object)? {
            Some(value) => Ok(value),
            None => {
                let entry = |(key, value)| Ok((Value::Text(key), from_json(value)?));
                object.into_iter().map(entry).collect::<Result<_, String>>().map(Value::Map)
            }
        },
    }
}

fn from_number(number: &serde_json::Number) -> Result<Value, String> {
    let text = number.as_str();
    if text.contains(['.', 'e', 'E']) {
        let float = number.as_f64().filter(|f| f.is_finite());
        return float.map(Value::Float).ok_or_else(|| format!("the number {text} is too large"));
    }
    text.parse::<i128>()
        .ok()
        .and_then(|n| Integer::try_from(n).ok())
        .map(Value::Integer)
        .ok_or_else(|| format!("the integer {text} is beyond 64 bits; write it as {text}.0 to send a float"))
}

/// The value of an object that stands for what JSON lacks; `None` when it is an ordinary one.
fn special(object: &Map<String, Json>) -> Result<Option<Value>, String> {
    let mut entries = object.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else { return Ok(None) };
    let value = match key.as_str() {
        "$bytes" => value.as_str().and_then(unhex).map(Value::Bytes),
        "$float" => match value.as_str() {
            Some("NaN") => Some(Value::Float(f64::NAN)),
            Some("Infinity") => Some(Value::Float(f64::INFINITY)),
            Some("-Infinity") => Some(Value::Float(f64::NEG_INFINITY)),
            _ => None,
        },
        "$tag" => match value.as_array().map(Vec::as_slice) {
            Some([number, inner]) => match number.as_u64() {
                Some(number) => Some(Value::Tag(number, Box::new(from_json(inner.clone())?))),
                None => None,
            },
            _ => None,
        },
        "$map" => value.as_array().map(|pairs| pairs.iter().map(from_pair).collect()).transpose()?.map(Value::Map),
        _ => return Ok(None),
    };
    let wanted = r#"{"$bytes":"<hex>"}, {"$float":"NaN"}, {"$tag":[number,value]} or {"$map":[[key,value],…]}"#;
    value.map(Some).ok_or_else(|| format!("an object with the key {key} must be one of {wanted}"))
}

fn from_pair(pair: &Json) -> Result<(Value, Value), String> {
    match pair.as_array().map(Vec::as_slice) {
        Some([key, value]) => Ok((from_json(key.clone())?, from_json(value.clone())?)),
        _ => Err("every entry of $map must be [key, value]".into()),
    }
}

/// A CBOR value that serialises as the JSON described above.
pub(crate) struct Printed<'a>(pub(crate) &'a Value);

impl Serialize for Printed<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Integer(integer) => out.serialize_i128(i128::from(*integer)),
            Value::Bytes(bytes) => one(out, "$bytes", &hex(bytes)),
            Value::Float(float) if float.is_nan() => one(out, "$float", &"NaN"),
            Value::Float(float) if float.is_infinite() => {
                one(out, "$float", if *float > 0.0 { &"Infinity" } else { &"-Infinity" })
            }
            Value::Float(float) => out.serialize_f64(*float),
            Value::Text(text) => out.serialize_str(text),
            Value::Bool(b) => out.serialize_bool(*b),
            Value::Null => out.serialize_unit(),
            Value::Tag(number, inner) => one(out, "$tag", &(number, Printed(inner))),
            Value::Array(items) => {
                let mut seq = out.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(&Printed(item)))?;
                seq.end()
            }
            Value::Map(entries) if is_plain(entries) => {
                let mut map = out.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key.as_text().unwrap_or_default(), &Printed(value))?;
                }
                map.end()
            }
            Value::Map(entries) => {
                let pairs: Vec<_> = entries.iter().map(|(key, value)| (Printed(key), Printed(value))).collect();
                one(out, "$map", &pairs)
            }
            // ciborium's enum may grow; what is unknown here is at least not lost in silence.
            other => out.serialize_str(&format!("{other:?}")),
        }
    }
}

fn one<S: Serializer, T: Serialize + ?Sized>(out: S, key: &str, value: &T) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(Some(1))?;
    map.serialize_entry(key, value)?;
    map.end()
}

/// Whether a map can be written as an object and read back as the same map.
fn is_plain(entries: &[(Value, Value)]) -> bool {
    let mut keys: Vec<&str> = Vec::with_capacity(entries.len());
    for (key, _) in entries {
        match key.as_text() {
            Some(key) => keys.push(key),
            None => return false,
        }
    }
    let special = matches!(keys.as_slice(), ["$bytes" | "$float" | "$tag" | "$map"]);
    keys.sort_unstable();
    !special && keys.windows(2).all(|pair| pair[0] != pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON → CBOR bytes → JSON, as a call and its echo do.
    fn round(text: &str) -> String {
        let mut bytes = Vec::new();
        ciborium::into_writer(&parse(text).unwrap(), &mut bytes).unwrap();
        print(&ciborium::from_reader(bytes.as_slice()).unwrap())
    }

    #[test]
    fn json_survives_the_wire() {
        for text in [
            "null",
            "true",
            "0",
            "-1",
            "1.5",
            "\"grüße\\n\"",
            "[]",
            "[1,[2,null],{}]",
            r#"{"a":{"b":[false]},"z":1}"#,
            r#"{"$bytes":"00ff7f"}"#,
            r#"{"$bytes":""}"#,
            r#"{"$float":"NaN"}"#,
            r#"{"$float":"Infinity"}"#,
            r#"{"$float":"-Infinity"}"#,
            r#"{"$tag":[4242,{"$bytes":"aa"}]}"#,
            r#"{"$map":[[1,"one"],[{"$bytes":"02"},"two"]]}"#,
            r#"{"$map":[["$bytes","not bytes"]]}"#,
            r#"{"$price":5}"#,
        ] {
            assert_eq!(round(text), text);
        }
    }

    #[test]
    fn integers_beyond_i64_keep_their_digits() {
        for text in [
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "18446744073709551615",
            "-9223372036854775809",
            "-18446744073709551616",
        ] {
            assert_eq!(round(text), text);
        }
    }

    #[test]
    fn what_has_no_counterpart_is_an_error_not_a_guess() {
        for (text, part) in [
            ("18446744073709551616", "beyond 64 bits"),
            ("-18446744073709551617", "beyond 64 bits"),
            ("1e999", "too large"),
            (r#"{"$bytes":"abc"}"#, "$bytes"),
            (r#"{"$bytes":"zz"}"#, "$bytes"),
            (r#"{"$float":"1"}"#, "$float"),
            (r#"{"$tag":[1]}"#, "$tag"),
            (r#"{"$map":[[1]]}"#, "[key, value]"),
            ("{", "not JSON"),
            ("1 2", "not JSON"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn floats_stay_floats() {
        assert_eq!(parse("1.0").unwrap(), Value::Float(1.0));
        assert_eq!(parse("1").unwrap(), Value::Integer(1.into()));
        assert_eq!(print(&Value::Float(1.0)), "1.0");
        assert_eq!(round("1e300"), "1e+300");
    }

    #[test]
    fn a_repeated_key_is_shown_twice() {
        let twice = Value::Map(vec![("a".into(), 1.into()), ("a".into(), 2.into())]);
        assert_eq!(print(&twice), r#"{"$map":[["a",1],["a",2]]}"#);
    }

    #[test]
    fn base_16() {
        assert_eq!(hex(&[0, 1, 0xfe]), "0001fe");
        assert_eq!(unhex("0001FE"), Some(vec![0, 1, 0xfe]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
    }
}
