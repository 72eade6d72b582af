//! Bodies of frames: as they went, and what is none.

use alloc::vec;

use bytes::BytesMut;

use super::cbor::Malformed;
use super::control::*;
use crate::names::Name;

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
    assert_eq!(Ping::parse(&[0xa3, 0, 5, 0x18, 24, 0, 0x18, 25, 0]), Ok(Ping { number: 5 }));
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
