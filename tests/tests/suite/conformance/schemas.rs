//! What a request must look like: checked at the provider, for calls, streams and sends, before any handler runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ciborium::Value;
use commipc_runtime::{
    CallError, Channel, ClientError, Fault, FaultCode, Items, Provider, Providing, Request, Schema, Type, Types,
};
use smol::stream;

use crate::scene::{Cast, Scene, over_all};

over_all! {
    s91_without_parameters_anything_goes,
    s92_parameters_come_in_a_map,
    s93_a_parameter_must_be_there_unless_it_may_be_null,
    s94_a_parameter_is_not_null_unless_it_may_be,
    s95_one_of_several_types_is_enough,
    s96_a_parameter_is_of_its_type,
    s97_a_bool_is_an_int_an_int_is_no_float_and_more_keys_pass,
    s98_what_is_returned_is_kept_and_not_checked,
    s99_a_schema_is_checked_at_the_provider_for_calls_streams_and_sends,
    s99_a_schema_is_checked_at_the_provider_for_the_opening_request_of_an_exchange,
}

type Map = BTreeMap<&'static str, Value>;

fn map<const N: usize>(entries: [(&'static str, Value); N]) -> Map {
    Map::from(entries)
}

/// An event that answers with what it was asked, if the schema lets it through.
fn echo(channel: &Channel) -> Providing {
    channel.provide("echo", async |value: Request<Value>| Ok::<_, Fault>(value.into_inner()))
}

async fn provided(cast: &Cast, schema: Schema) -> Provider {
    echo(&cast.provided).schema(schema).await.unwrap()
}

async fn passes(cast: &Cast, value: impl serde::Serialize) {
    cast.math.call::<Value>("echo", &value).await.expect("it fits");
}

/// The message with which a request is refused.
async fn refused(cast: &Cast, value: impl serde::Serialize) -> String {
    message(cast.math.call::<Value>("echo", &value).await.expect_err("it does not fit"))
}

fn message(error: CallError) -> String {
    let CallError::Fault(fault) = error else { panic!("{error:?}") };
    assert_eq!((fault.code, fault.retryable), (FaultCode::BadPayload.code(), false));
    fault.message
}

async fn s91_without_parameters_anything_goes(scene: Scene) {
    let cast = scene.cast().await;
    for schema in [None, Some(Schema::new()), Some(Schema::new().returns(Type::Text))] {
        let provided = echo(&cast.provided);
        let _echo = match schema {
            Some(schema) => provided.schema(schema).await.unwrap(),
            None => provided.await.unwrap(),
        };
        passes(&cast, 5).await;
        passes(&cast, "text").await;
        passes(&cast, ()).await;
        passes(&cast, [1, 2]).await;
        passes(&cast, map([("a", Value::Null)])).await;
    }
}

async fn s92_parameters_come_in_a_map(scene: Scene) {
    let cast = scene.cast().await;
    let _echo = provided(&cast, Schema::new().parameter("a", Type::Int | Type::Null)).await;
    assert_eq!(refused(&cast, 5).await, "expected a map of parameters, got int");
    assert_eq!(refused(&cast, [5]).await, "expected a map of parameters, got list");
    assert_eq!(refused(&cast, ()).await, "expected a map of parameters, got null");
    passes(&cast, map([])).await;
    let raw = cast.math.call_raw("echo", &b"bytes"[..]).await.unwrap_err();
    assert_eq!(raw.code().0, FaultCode::WrongContent.code());
}

async fn s93_a_parameter_must_be_there_unless_it_may_be_null(scene: Scene) {
    let cast = scene.cast().await;
    let schema = Schema::new()
        .parameter("needed", Type::Int)
        .parameter("optional", Type::Text | Type::Null)
        .parameter("whatever", Types::ANY);
    let _echo = provided(&cast, schema).await;
    assert_eq!(refused(&cast, map([])).await, "missing required parameter: needed");
    let needed = ("needed", Value::from(1));
    assert_eq!(refused(&cast, map([needed.clone()])).await, "missing required parameter: whatever");
    for whatever in [Value::from(1), Value::from("text"), Value::Array(vec![])] {
        passes(&cast, map([needed.clone(), ("whatever", whatever)])).await;
    }
}

async fn s94_a_parameter_is_not_null_unless_it_may_be(scene: Scene) {
    let cast = scene.cast().await;
    let schema = Schema::new().parameter("a", Type::Int).parameter("b", Type::Int | Type::Null);
    let _echo = provided(&cast, schema).await;
    let refusal = refused(&cast, map([("a", Value::Null), ("b", Value::from(1))])).await;
    assert_eq!(refusal, "parameter a cannot be null");
    passes(&cast, map([("a", Value::from(1)), ("b", Value::Null)])).await;
    passes(&cast, map([("a", Value::from(1))])).await;
    let _any = provided(&cast, Schema::new().parameter("a", Types::ANY)).await;
    assert_eq!(refused(&cast, map([("a", Value::Null)])).await, "parameter a cannot be null");
}

async fn s95_one_of_several_types_is_enough(scene: Scene) {
    let cast = scene.cast().await;
    let _echo = provided(&cast, Schema::new().parameter("a", Type::Int | Type::Text | Type::Null)).await;
    for fits in [Value::from(1), Value::from("text"), Value::Null] {
        passes(&cast, map([("a", fits)])).await;
    }
    let refusal = refused(&cast, map([("a", Value::from(1.5))])).await;
    assert_eq!(refusal, "parameter a expected null or int or text, got float");
}

async fn s96_a_parameter_is_of_its_type(scene: Scene) {
    let cast = scene.cast().await;
    let values = [
        (Type::Bool, Value::from(true)),
        (Type::Int, Value::from(i64::MIN)),
        (Type::Float, Value::from(1.5)),
        (Type::Text, Value::from("text")),
        (Type::Bytes, Value::Bytes(vec![1])),
        (Type::List, Value::Array(vec![Value::from(1), Value::from("mixed")])),
        (Type::Map, Value::Map(vec![(Value::from("key"), Value::Null)])),
    ];
    for (wanted, _) in &values {
        let _echo = provided(&cast, Schema::new().parameter("a", *wanted)).await;
        for (given, value) in &values {
            let fits = given == wanted || (*wanted, *given) == (Type::Int, Type::Bool);
            if fits {
                passes(&cast, map([("a", value.clone())])).await;
            } else {
                let refusal = refused(&cast, map([("a", value.clone())])).await;
                assert_eq!(refusal, format!("parameter a expected {wanted}, got {given}"));
            }
        }
    }
}

async fn s97_a_bool_is_an_int_an_int_is_no_float_and_more_keys_pass(scene: Scene) {
    let cast = scene.cast().await;
    let _echo = provided(&cast, Schema::new().parameter("i", Type::Int).parameter("f", Type::Float)).await;
    let fits = map([("i", Value::from(true)), ("f", Value::from(1.0)), ("more", Value::Null)]);
    passes(&cast, &fits).await;
    // A number of more than 64 bits is still one.
    let long = Value::from(i128::MAX);
    passes(&cast, map([("i", long), ("f", Value::from(f64::NAN))])).await;
    let refusal = refused(&cast, map([("i", Value::from(1)), ("f", Value::from(1))])).await;
    assert_eq!(refusal, "parameter f expected float, got int");
    let refusal = refused(&cast, map([("i", Value::from(1)), ("f", Value::from(true))])).await;
    assert_eq!(refusal, "parameter f expected float, got bool");
    // Keys that are no text are more keys; one that comes twice fits only if both do.
    let key = |key: &str| Value::from(key);
    let entries = vec![(Value::from(7), Value::Null), (key("i"), Value::from(1)), (key("f"), Value::from(1.5))];
    passes(&cast, Value::Map(entries.clone())).await;
    let twice = [entries, vec![(key("i"), Value::from("text"))]].concat();
    assert_eq!(refused(&cast, Value::Map(twice)).await, "parameter i expected int, got text");
}

async fn s98_what_is_returned_is_kept_and_not_checked(scene: Scene) {
    let cast = scene.cast().await;
    let schema = Schema::new().parameter("a", Type::Int).returns(Type::Text);
    assert_eq!(schema.returned(), Some(Type::Text.into()));
    assert_eq!(schema.parameters().collect::<Vec<_>>(), [("a", Type::Int.into())]);
    let _echo = provided(&cast, schema).await;
    // A map comes back.
    passes(&cast, map([("a", Value::from(1))])).await;
}

async fn s99_a_schema_is_checked_at_the_provider_for_calls_streams_and_sends(scene: Scene) {
    let cast = scene.cast().await;
    let runs = Arc::new(AtomicU32::new(0));
    let schema = Schema::new().parameter("a", Type::Int);
    let count = async |runs: Arc<AtomicU32>, _: Request<Value>| Ok::<_, Fault>(runs.fetch_add(1, Ordering::SeqCst));
    let _count = cast.provided.provide_with(Arc::clone(&runs), "count", count).schema(schema.clone()).await.unwrap();
    let counted = Arc::clone(&runs);
    let counts = move |_: Request<Value>| {
        counted.fetch_add(1, Ordering::SeqCst);
        stream::iter([Ok::<_, Fault>(1)])
    };
    let _counts = cast.provided.provide_stream("counts", counts).schema(schema).await.unwrap();
    let mut errors = cast.provider.errors();
    let bad = map([("b", Value::from(1))]);
    let expected = "missing required parameter: a";
    assert_eq!(message(cast.math.call::<Value>("count", &bad).await.unwrap_err()), expected);
    assert_eq!(message(cast.math.stream::<u8>("counts", &bad).await.unwrap_err()), expected);
    cast.math.send("count", &bad).await.unwrap();
    for event in ["count", "counts", "count"] {
        let told = errors.next().await.unwrap();
        let ClientError::Handler { event: of, fault, .. } = told else { panic!("{told:?}") };
        assert_eq!((of.as_str(), fault.message.as_str()), (event, expected));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0, "no handler has seen any of it");
    let good = map([("a", Value::from(1))]);
    assert_eq!(cast.math.call::<u32>("count", &good).await.unwrap(), 0);
    assert_eq!(cast.math.stream::<u8>("counts", &good).await.unwrap().next().await, Some(Ok(1)));
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

/// What opens an exchange is checked, and the items that follow are not: they are no parameters.
async fn s99_a_schema_is_checked_at_the_provider_for_the_opening_request_of_an_exchange(scene: Scene) {
    let cast = scene.cast().await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let echoes = move |_: Request<Value>, items: Items<u8>| {
        counted.fetch_add(1, Ordering::SeqCst);
        stream::StreamExt::filter_map(items, |item| item.ok().map(Ok::<_, Fault>))
    };
    let schema = Schema::new().parameter("a", Type::Int);
    let _echoes = cast.provided.provide_exchange("echoes", echoes).schema(schema).await.unwrap();
    let mut errors = cast.provider.errors();
    let (expected, items) = ("missing required parameter: a", || stream::iter([1_u8, 2]));
    let bad = map([("b", Value::from(1))]);
    assert_eq!(message(cast.math.exchange::<u8, u8>("echoes", &bad, items()).await.unwrap_err()), expected);
    let told = errors.next().await.unwrap();
    let ClientError::Handler { event, fault, .. } = told else { panic!("{told:?}") };
    assert_eq!((event.as_str(), fault.message.as_str()), ("echoes", expected));
    assert_eq!(runs.load(Ordering::SeqCst), 0, "no handler has seen any of it");
    let good = map([("a", Value::from(1))]);
    let mut back = cast.math.exchange::<u8, u8>("echoes", &good, items()).await.unwrap();
    assert_eq!([back.next().await, back.next().await, back.next().await], [Some(Ok(1)), Some(Ok(2)), None]);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}
