//! A call ends once: with its answer, a fault, a refusal or its deadline.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use commipc_runtime::{CallError, DEFAULT_DEADLINE, Failure, Fault, FaultCode, Misuse, Refusal, Request};
use serde::{Deserialize, Serialize};

use smol::stream::{self, StreamExt as _};

use crate::scene::{Scene, Watched, make, over_all, watch};

over_all! {
    s36_s37_a_call_is_answered_by_a_handler_with_state,
    s36_a_handler_is_told_all_that_is_known_of_its_request,
    s37_a_call_waits_thirty_seconds_unless_it_says_otherwise,
    s38_without_a_provider_a_call_fails_at_once,
    s37_a_deadline_ends_the_call_and_its_handler,
    s37_a_dropped_call_ends_its_handler,
    s39_a_fault_arrives_as_the_handler_made_it,
    s39_v36_the_private_text_of_a_failing_handler_stays_with_it,
    a_panicking_handler_is_a_fault_and_harms_nothing_else,
    d7_nothing_that_is_asked_hangs_whatever_goes_wrong,
}

#[derive(Deserialize, Serialize)]
struct Sum {
    a: i64,
    b: i64,
}

async fn s36_s37_a_call_is_answered_by_a_handler_with_state(scene: Scene) {
    let cast = scene.cast().await;
    let answered = Arc::new(Mutex::new(Vec::new()));
    let add = async |answered: Arc<Mutex<Vec<i64>>>, sum: Request<Sum>| {
        let total = sum.a + sum.b;
        answered.lock().unwrap().push(total);
        Ok::<_, Fault>(total)
    };
    let _sum = cast.provided.provide_with(Arc::clone(&answered), "sum", add).await.unwrap();
    let total: i64 = cast.math.call("sum", &Sum { a: 15, b: 25 }).await.unwrap();
    assert_eq!(total, 40);
    // A client may call its own provider, and a channel that it has not opened.
    let own: i64 = cast.provided.call("sum", &Sum { a: 1, b: 2 }).await.unwrap();
    let unopened: i64 = cast.provider.call("math", "sum", &Sum { a: -1, b: 0 }).await.unwrap();
    assert_eq!((own, unopened), (3, -1));
    assert_eq!(*answered.lock().unwrap(), [40, 3, -1]);
}

async fn s36_a_handler_is_told_all_that_is_known_of_its_request(scene: Scene) {
    let cast = scene.cast().await;
    let tell = async |request: Request<()>| {
        let left = request.remaining().unwrap();
        assert!(left > Duration::ZERO && left <= Duration::from_secs(7), "{left:?}");
        assert_eq!(&request.metadata()[..], [0xa0]);
        assert!(request.sent_at().0 > 1_700_000_000_000, "in milliseconds");
        let names = [request.caller().to_string(), request.channel().to_string(), request.event().to_string()];
        Ok::<_, Fault>((names, request.hops(), request.is_idempotent()))
    };
    let _tell = cast.provided.provide("tell", tell).await.unwrap();
    let call = cast.math.call("tell", &()).deadline(Duration::from_secs(7));
    let told: ([String; 3], u8, bool) = call.idempotent(true).metadata(Bytes::from_static(&[0xa0])).await.unwrap();
    let caller = format!("consumer@{}", cast.hub.id());
    assert_eq!(told, ([caller, "math".to_owned(), "tell".to_owned()], 1, true));
}

async fn s37_a_call_waits_thirty_seconds_unless_it_says_otherwise(scene: Scene) {
    let cast = scene.cast().await;
    let left = async |request: Request<()>| Ok::<_, Fault>(request.remaining().unwrap().as_millis());
    let _left = cast.provided.provide("left", left).await.unwrap();
    let left: u64 = cast.math.call("left", &()).await.unwrap();
    assert_eq!(DEFAULT_DEADLINE, Duration::from_secs(30));
    assert!((25_000..=30_000).contains(&left), "{left} ms");
}

async fn s38_without_a_provider_a_call_fails_at_once(scene: Scene) {
    let cast = scene.cast().await;
    let error = cast.math.call::<()>("nothing", &()).await.unwrap_err();
    let failure = Failure::Refused(Refusal::NoProvider);
    assert_eq!(error, CallError::Failed { failure, maybe_executed: false });
    assert!(error.is_retryable() && error.code().0 == 300, "{error:?}");
}

async fn s37_a_deadline_ends_the_call_and_its_handler(scene: Scene) {
    let cast = scene.cast().await;
    let (watched, dropped) = watch();
    let _slow = cast.provided.provide_with(watched, "slow", never).await.unwrap();
    let (started, deadline) = (Instant::now(), Duration::from_millis(80));
    let error = cast.math.call::<()>("slow", &()).deadline(deadline).await.unwrap_err();
    assert!(started.elapsed() >= deadline, "{:?}", started.elapsed());
    // Hub and caller both watch the time; that of the caller decides for it.
    assert_eq!(error, CallError::Failed { failure: Failure::Local(Misuse::Deadline), maybe_executed: true });
    dropped.recv().await.unwrap();
}

async fn s37_a_dropped_call_ends_its_handler(scene: Scene) {
    let cast = scene.cast().await;
    let (watched, dropped) = watch();
    let (running, runs) = smol::channel::unbounded();
    let wait = async |(watched, running): (Watched, smol::channel::Sender<()>), request: Request<()>| {
        running.send(()).await.unwrap();
        never(watched, request).await
    };
    let _slow = cast.provided.provide_with((watched, running), "slow", wait).await.unwrap();
    let call = async {
        let answer: Result<(), _> = cast.math.call("slow", &()).await;
        panic!("nobody answers: {answer:?}");
    };
    smol::future::or(call, async { runs.recv().await.unwrap() }).await;
    let given_up = Instant::now();
    dropped.recv().await.unwrap();
    assert!(given_up.elapsed() < DEFAULT_DEADLINE / 2, "not by its deadline: {:?}", given_up.elapsed());
}

/// Waits until it is dropped.
async fn never(_watched: Watched, _request: Request<()>) -> Result<(), Fault> {
    pending().await
}

async fn s39_a_fault_arrives_as_the_handler_made_it(scene: Scene) {
    let cast = scene.cast().await;
    let details = Bytes::from_static(&[0xa1, 0x01, 0x02]);
    let fault = Fault { code: 1_234, message: "no such account".to_owned(), details, retryable: true };
    let fail = async |fault: Fault, _: Request<()>| Err::<(), _>(fault);
    let _fail = cast.provided.provide_with(fault.clone(), "fail", fail).await.unwrap();
    let error = cast.math.call::<()>("fail", &()).await.unwrap_err();
    assert!(error.is_retryable() && error.maybe_executed());
    assert_eq!(error, CallError::Fault(fault));
}

/// What a handler fails with, of which nobody else may read a word.
struct DatabaseError(&'static str);

impl From<DatabaseError> for Fault {
    fn from(DatabaseError(reason): DatabaseError) -> Self {
        assert!(!reason.is_empty(), "it is known here");
        FaultCode::HandlerFailed.into()
    }
}

async fn s39_v36_the_private_text_of_a_failing_handler_stays_with_it(scene: Scene) {
    const PRIVATE: &str = "10.0.0.7 rejected user root";
    let cast = scene.cast().await;
    let fail = async |_: Request<()>| Err::<(), _>(DatabaseError(PRIVATE));
    let panic = async |_: Request<()>| -> Result<(), Fault> { panic!("{PRIVATE}") };
    let _fail = cast.provided.provide("fail", fail).await.unwrap();
    let _panic = cast.provided.provide("panic", panic).await.unwrap();
    for (event, code) in [("fail", FaultCode::HandlerFailed), ("panic", FaultCode::HandlerPanicked)] {
        let error = cast.math.call::<()>(event, &()).await.unwrap_err();
        assert_eq!(error, CallError::Fault(code.into()), "the code and its own text, and nothing else");
        assert!(!format!("{error} {error:?}").contains("root"), "{error:?}");
    }
}

async fn a_panicking_handler_is_a_fault_and_harms_nothing_else(scene: Scene) {
    let cast = scene.cast().await;
    let at_once = async |_: Request<()>| -> Result<(), Fault> { panic!("this panic is part of the test") };
    let later = async |request: Request<()>| -> Result<(), Fault> {
        request.sleep(Duration::from_millis(1)).await;
        panic!("this panic is part of the test")
    };
    let _at_once = cast.provided.provide("at once", at_once).await.unwrap();
    let _later = cast.provided.provide("later", later).await.unwrap();
    let _fine = cast.provided.provide("fine", async |n: Request<u8>| Ok::<_, Fault>(*n + 1)).await.unwrap();
    for event in ["at once", "later", "at once"] {
        let error = cast.math.call::<()>(event, &()).await.unwrap_err();
        assert_eq!(error.code().0, FaultCode::HandlerPanicked.code(), "{error:?}");
    }
    let fine: u8 = cast.math.call("fine", &1).await.unwrap();
    assert_eq!(fine, 2);
}

/// What cannot be encoded.
struct Unspeakable;

impl Serialize for Unspeakable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not to be said"))
    }
}

async fn d7_nothing_that_is_asked_hangs_whatever_goes_wrong(scene: Scene) {
    const SOON: Duration = Duration::from_millis(300);
    let cast = scene.cast().await;
    let _one = cast.provided.provide("one", async |_: Request<()>| Ok::<_, Fault>(1_u8)).await.unwrap();
    let hang = async |_: Request<()>| pending::<Result<u8, Fault>>().await;
    let _hang = cast.provided.provide("hang", hang).await.unwrap();
    let endless = |_: Request<()>| stream::iter([Ok::<_, Fault>(1_u8)]).chain(stream::pending());
    let _endless = cast.provided.provide_stream("endless", endless).await.unwrap();
    let began = Instant::now();
    let code = |error: CallError| error.code().0;
    let call = |event: &str| cast.math.call::<u8>(event, &());
    let ask = |event: &str| cast.math.stream::<u8>(event, &());
    // Nobody provides it, or it is of another kind, or it cannot be said at all.
    assert_eq!(code(call("nobody").await.unwrap_err()), Refusal::NoProvider.code());
    assert_eq!(code(ask("nobody").await.unwrap_err()), Refusal::NoProvider.code());
    assert_eq!(code(ask("one").await.unwrap_err()), Refusal::WrongKind.code());
    assert_eq!(code(call("endless").await.unwrap_err()), Refusal::WrongKind.code());
    assert_eq!(code(cast.math.call::<u8>("one", &Unspeakable).await.unwrap_err()), Misuse::Encode.code());
    assert_eq!(code(cast.math.stream::<u8>("endless", &Unspeakable).await.unwrap_err()), Misuse::Encode.code());
    // Nobody answers.
    assert_eq!(code(call("hang").deadline(SOON).await.unwrap_err()), Misuse::Deadline.code());
    // Its provider goes: while it works, and in the middle of a stream.
    let mut waits = [call("hang").into_future()];
    make(&mut waits).await;
    let mut items = ask("endless").await.unwrap();
    assert_eq!(items.next().await, Some(Ok(1)));
    cast.provider.close().await;
    let [waits] = waits;
    assert_eq!(code(waits.await.unwrap_err()), Refusal::ProviderGone.code());
    assert_eq!(items.next().await.map(|item| item.map_err(code)), Some(Err(Refusal::ProviderGone.code())));
    assert!(began.elapsed() < DEFAULT_DEADLINE / 2, "none of it waits for a deadline but one: {:?}", began.elapsed());
}
