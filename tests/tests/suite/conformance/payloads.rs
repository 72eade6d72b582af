//! What is said: values and raw bytes, small and large, and what fits nowhere.

use bytes::Bytes;
use ciborium::Value;
use commipc_runtime::{CallError, Failure, Fault, FaultCode, Misuse, Refusal, Request, SendError};
use serde::{Serialize, Serializer};

use crate::scene::{Scene, over_all};

over_all! {
    s5_values_keep_bytes_integer_keys_and_numbers_that_are_none,
    s5_what_cannot_be_encoded_is_told_to_whoever_said_it,
    values_and_raw_bytes_are_told_apart,
    a_value_of_another_type_is_told_to_the_caller,
    large_payloads_pass_whole,
    what_fits_no_frame_is_refused_where_it_was_made,
}

async fn s5_values_keep_bytes_integer_keys_and_numbers_that_are_none(scene: Scene) {
    let cast = scene.cast().await;
    let echo = async |value: Request<Value>| Ok::<_, Fault>(value.into_inner());
    let _echo = cast.provided.provide("echo", echo).await.unwrap();
    let pair = |key: i64, value: Value| (Value::from(key), value);
    let value = Value::Map(vec![
        pair(1, Value::Bytes(vec![0, 0xff])),
        pair(-2, Value::from(u64::MAX)),
        pair(3, Value::Null),
        pair(4, Value::Float(-0.0)),
        pair(5, Value::Text("ü".repeat(1_000))),
    ]);
    let answer: Value = cast.math.call("echo", &value).await.unwrap();
    assert_eq!(answer, value);
    let answer: Value = cast.math.call("echo", &f64::NAN).await.unwrap();
    assert!(answer.as_float().unwrap().is_nan());
}

/// A value without an encoding.
struct Unencodable;

impl Serialize for Unencodable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this has no encoding"))
    }
}

async fn s5_what_cannot_be_encoded_is_told_to_whoever_said_it(scene: Scene) {
    let cast = scene.cast().await;
    let _sink = cast.provided.provide("sink", async |_: Request<Value>| Ok::<_, Fault>(())).await.unwrap();
    let error = cast.math.call::<()>("sink", &Unencodable).await.unwrap_err();
    assert!(matches!(&error, CallError::Encode(text) if text.contains("no encoding")), "{error:?}");
    assert!(!error.maybe_executed());
    let error = cast.math.broadcast("news", &Unencodable).await.unwrap_err();
    assert!(matches!(error, SendError::Encode(_)), "{error:?}");
    // An answer without an encoding is its provider's failure, and no secret of it leaves.
    let _bad = cast.provided.provide("bad", async |_: Request<()>| Ok::<_, Fault>(Unencodable)).await.unwrap();
    let error = cast.math.call::<Value>("bad", &()).await.unwrap_err();
    assert_eq!(error, CallError::Fault(FaultCode::HandlerFailed.into()));
}

async fn values_and_raw_bytes_are_told_apart(scene: Scene) {
    let cast = scene.cast().await;
    let double = async |bytes: Request<Bytes>| Ok::<_, Fault>(Bytes::from(bytes.repeat(2)));
    let _raw = cast.provided.provide_raw("raw", double).await.unwrap();
    let _value = cast.provided.provide("value", async |n: Request<u8>| Ok::<_, Fault>(*n)).await.unwrap();
    assert_eq!(&cast.math.call_raw("raw", &b"\xff\x00"[..]).await.unwrap()[..], b"\xff\x00\xff\x00");
    let wrong = CallError::Fault(FaultCode::WrongContent.into());
    assert_eq!(cast.math.call::<u8>("raw", &1_u8).await.unwrap_err(), wrong);
    // 1 is the CBOR of 1 as well: it is the kind that decides, not the look.
    assert_eq!(cast.math.call_raw("value", &b"\x01"[..]).await.unwrap_err(), wrong);
    assert_eq!(cast.math.call::<u8>("value", &1_u8).await.unwrap(), 1);
}

async fn a_value_of_another_type_is_told_to_the_caller(scene: Scene) {
    let cast = scene.cast().await;
    let _text = cast.provided.provide("text", async |n: Request<u8>| Ok::<_, Fault>(n.to_string())).await.unwrap();
    let error = cast.math.call::<String>("text", "not a number").await.unwrap_err();
    assert_eq!(error, CallError::Fault(FaultCode::BadPayload.into()));
    let error = cast.math.call::<u8>("text", &1_u8).await.unwrap_err();
    assert!(matches!(error, CallError::Decode(_)) && error.maybe_executed(), "{error:?}");
}

async fn large_payloads_pass_whole(scene: Scene) {
    let cast = scene.cast().await;
    let turn = async |bytes: Request<Bytes>| Ok::<_, Fault>(bytes.iter().rev().copied().collect::<Bytes>());
    let _turn = cast.provided.provide_raw("turn", turn).await.unwrap();
    let large: Vec<u8> = (0..900_u32 << 10).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..3 {
        let answer = cast.math.call_raw("turn", large.clone()).await.unwrap();
        assert!(answer.iter().eq(large.iter().rev()), "900 KiB come back turned round");
    }
    let mut listener = cast.math.listen_raw(None).await.unwrap();
    cast.provided.broadcast_raw("large", large.clone()).await.unwrap();
    assert!(listener.next().await.unwrap().into_inner() == large);
}

async fn what_fits_no_frame_is_refused_where_it_was_made(scene: Scene) {
    const LARGE: usize = 1 << 20;
    let cast = scene.cast().await;
    let blow_up = async |len: Request<usize>| Ok::<_, Fault>("x".repeat(*len));
    let _blow_up = cast.provided.provide("blow up", blow_up).await.unwrap();
    let too_large = Failure::Local(Misuse::TooLarge);
    let error = cast.math.call::<String>("blow up", &"x".repeat(LARGE)).await.unwrap_err();
    assert_eq!(error, CallError::Failed { failure: too_large, maybe_executed: false });
    let error = cast.math.broadcast("news", &"x".repeat(LARGE)).await.unwrap_err();
    assert_eq!(error, SendError::Failed(too_large));
    // An answer that is too large was made by a handler that has run.
    let error = cast.math.call::<String>("blow up", &LARGE).await.unwrap_err();
    let failure = Failure::Refused(Refusal::TooLarge);
    assert_eq!(error, CallError::Failed { failure, maybe_executed: true });
    let fits: String = cast.math.call("blow up", &(LARGE / 2)).await.unwrap();
    assert_eq!(fits.len(), LARGE / 2);
}
