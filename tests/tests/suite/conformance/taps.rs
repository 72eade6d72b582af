//! What comes in on a connection, copied, and what goes wrong there, told in one place.

use std::sync::{Arc, Mutex};

use commipc_runtime::{
    CallError, ClientError, CloseReason, Failure, Fault, FaultCode, Misuse, OwnerPolicy, Refusal, Request, Tap,
    TapKind, Tapped,
};
use smol::stream;

use crate::scene::{Scene, make, over_all};

over_all! {
    s59_a_tap_hears_everything_that_comes_in_once,
    s59_a_tap_has_heard_what_a_handler_gets,
    s59_a_tap_hears_how_what_was_asked_here_ends,
    s59_a_tap_hears_who_gives_up_what_is_handled_here,
    s59_a_tap_of_a_channel_hears_that_channel_alone,
    s59_a_slow_tap_is_told_what_it_missed_and_nobody_else_notices,
    s59_a_tap_ends_with_its_connection_and_does_not_keep_it,
    s87_what_goes_wrong_is_told_in_one_place,
    s87_a_function_is_called_for_each_error_and_may_fail_itself,
    s87_errors_that_nobody_takes_are_counted,
    s86_s87_why_a_connection_ended_is_told_to_all_who_ask,
}

async fn next(tap: &mut Tap) -> Tapped {
    tap.next().await.expect("a copy")
}

fn about(copy: &Tapped) -> (TapKind, &str, &str) {
    (copy.kind(), copy.channel().as_str(), copy.event().as_str())
}

async fn s59_a_tap_has_heard_what_a_handler_gets(scene: Scene) {
    let cast = scene.cast().await;
    let early = Arc::new(Mutex::new(cast.provider.tap()));
    let copied = move |_: Request<u32>| {
        let copy = smol::block_on(smol::future::poll_once(early.lock().unwrap().next()));
        let is_there = copy.flatten().is_some_and(|copy| copy.event().as_str() == "copied");
        async move { Ok::<_, Fault>(is_there) }
    };
    let _copied = cast.provided.provide("copied", copied).await.unwrap();
    assert!(cast.math.call::<bool>("copied", &0).await.unwrap());
}

async fn s59_a_tap_hears_everything_that_comes_in_once(scene: Scene) {
    let cast = scene.cast().await;
    let echo = async |number: Request<u32>| Ok::<_, Fault>(*number);
    let _echo = cast.provided.provide("echo", echo).await.unwrap();
    let count = |r: Request<u32>| stream::iter((0..*r).map(Ok::<_, Fault>));
    let _count = cast.provided.provide_stream("count", count).await.unwrap();
    let (mut one, mut two) =
        (cast.provided.listen::<u32>("news").await.unwrap(), cast.provided.listen_all::<u32>().await.unwrap());
    let (mut provider, mut consumer) = (cast.provider.tap(), cast.consumer.tap());
    assert_eq!(cast.math.call::<u32>("echo", &1).await.unwrap(), 1);
    cast.math.send("echo", &2).await.unwrap();
    for number in [3_u32, 4] {
        cast.math.broadcast("news", &number).await.unwrap();
        assert_eq!((*one.next().await.unwrap(), *two.next().await.unwrap()), (number, number));
    }
    let mut items = cast.math.stream::<u32>("count", &2).await.unwrap();
    assert_eq!((items.next().await, items.next().await, items.next().await), (Some(Ok(0)), Some(Ok(1)), None));
    let expected = [
        (TapKind::Call, "echo", 1),
        (TapKind::Send, "echo", 2),
        (TapKind::Broadcast, "news", 3),
        (TapKind::Broadcast, "news", 4),
        (TapKind::Stream, "count", 2),
    ];
    for (kind, event, value) in expected {
        let copy = next(&mut provider).await;
        assert_eq!((about(&copy), copy.value::<u32>().unwrap()), ((kind, "math", event), value));
        assert_eq!(copy.sender().unwrap().client.as_str(), "consumer");
    }
    let (accept, item, end) = (TapKind::Accept, TapKind::Item, TapKind::End);
    for (kind, event, value) in [
        (TapKind::Answer, "echo", Some(1)),
        (accept, "count", None),
        (item, "count", Some(0)),
        (item, "count", Some(1)),
        (end, "count", None),
    ] {
        let copy = next(&mut consumer).await;
        assert_eq!((about(&copy), copy.value::<u32>().ok()), ((kind, "math", event), value));
        assert_eq!(copy.error(), None);
    }
    // The items of a caller come in too.
    let none = |_: Request<()>, items: commipc_runtime::Items<u32>| {
        stream::unfold(items, |mut items| async move {
            let item = items.next().await?.map_err(|_| Fault::from(FaultCode::HandlerFailed));
            Some((item, items))
        })
    };
    let _none = cast.provided.provide_exchange("each", none).await.unwrap();
    let mut items = cast.math.exchange::<u32, u32>("each", &(), stream::iter([5, 6])).await.unwrap();
    while items.try_next().await.unwrap().is_some() {}
    let mut come = Vec::new();
    for _ in 0..4 {
        let copy = next(&mut provider).await;
        come.push((copy.kind(), copy.event().to_string(), copy.value::<u32>().ok()));
    }
    let each = |kind, value| (kind, "each".to_owned(), value);
    assert_eq!(come, [each(TapKind::Exchange, None), each(item, Some(5)), each(item, Some(6)), each(end, None)]);
}

async fn s59_a_tap_hears_how_what_was_asked_here_ends(scene: Scene) {
    let cast = scene.cast().await;
    let fault = || Fault::from(FaultCode::HandlerFailed);
    let fails = async |_: Request<()>| Err::<(), _>(Fault::from(FaultCode::HandlerFailed));
    let _fails = cast.provided.provide("fails", fails).await.unwrap();
    let breaks = |_: Request<()>| stream::iter([Ok(1), Err(Fault::from(FaultCode::HandlerFailed))]);
    let _breaks = cast.provided.provide_stream("breaks", breaks).await.unwrap();
    let (mut tap, mut elsewhere) = (cast.consumer.tap(), cast.consumer.open("other").await.unwrap().tap());
    let mut fails = Vec::new();
    fails.push(cast.math.call::<()>("fails", &()).await.unwrap_err());
    fails.push(cast.math.call::<()>("nobody", &()).await.unwrap_err());
    let mut items = cast.math.stream::<u32>("breaks", &()).await.unwrap();
    assert_eq!(items.next().await, Some(Ok(1)));
    fails.push(items.next().await.unwrap().unwrap_err());
    fails.push(cast.math.stream::<u32>("nobody", &()).await.unwrap_err());
    let no_provider = CallError::Failed { failure: Failure::Refused(Refusal::NoProvider), maybe_executed: false };
    let expected = [
        (TapKind::Fault, "fails", Some(CallError::Fault(fault()))),
        (TapKind::Failure, "nobody", Some(no_provider.clone())),
        (TapKind::Accept, "breaks", None),
        (TapKind::Item, "breaks", None),
        (TapKind::End, "breaks", Some(CallError::Fault(fault()))),
        (TapKind::End, "nobody", Some(no_provider)),
    ];
    assert!(
        fails.iter().eq(expected.iter().filter_map(|(_, _, error)| error.as_ref())),
        "as the caller hears: {fails:?}"
    );
    for (kind, event, error) in expected {
        let copy = next(&mut tap).await;
        assert_eq!((about(&copy), copy.error()), ((kind, "math", event), error.as_ref()));
    }
    // What runs when the connection goes ends as well.
    let never = async |_: Request<()>| std::future::pending::<Result<(), Fault>>().await;
    let _never = cast.provided.provide("never", never).await.unwrap();
    let mut calls = [cast.math.call::<()>("never", &()).into_future()];
    make(&mut calls).await;
    cast.consumer.close().await;
    let copy = next(&mut tap).await;
    assert_eq!(about(&copy), (TapKind::Failure, "math", "never"));
    let [call] = calls;
    assert_eq!(copy.error(), call.await.as_ref().err());
    assert!(tap.next().await.is_none() && elsewhere.next().await.is_none());
}

async fn s59_a_tap_hears_who_gives_up_what_is_handled_here(scene: Scene) {
    let cast = scene.cast().await;
    let never = async |_: Request<u32>| std::future::pending::<Result<(), Fault>>().await;
    let _never = cast.provided.provide("never", never).running(1).await.unwrap();
    let endless = |_: Request<u32>| stream::pending::<Result<u32, Fault>>();
    let _endless = cast.provided.provide_stream("endless", endless).await.unwrap();
    let mut tap = cast.provider.tap();
    // One runs and one waits for it.
    let mut calls = [1, 2].map(|number| cast.math.call::<()>("never", &number).into_future());
    make(&mut calls).await;
    let items = cast.math.stream::<u32>("endless", &3).await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..3 {
        let copy = next(&mut tap).await;
        asked.push((copy.kind(), copy.value::<u32>().unwrap()));
    }
    assert_eq!(asked, [(TapKind::Call, 1), (TapKind::Call, 2), (TapKind::Stream, 3)]);
    drop((calls, items));
    let mut given_up = Vec::new();
    for _ in 0..3 {
        let copy = next(&mut tap).await;
        let (kind, channel, event) = about(&copy);
        assert_eq!((kind, channel, copy.sender().unwrap().client.as_str()), (TapKind::Cancel, "math", "consumer"));
        let failure = Failure::Local(Misuse::Cancelled);
        assert_eq!(copy.error(), Some(&CallError::Failed { failure, maybe_executed: true }));
        given_up.push(event.to_owned());
    }
    assert_eq!(given_up, ["never", "never", "endless"]);
}

async fn s59_a_tap_of_a_channel_hears_that_channel_alone(scene: Scene) {
    let cast = scene.cast().await;
    let (other, told) = (cast.provider.open("other").await.unwrap(), cast.consumer.open("other").await.unwrap());
    let _listeners = (other.listen::<u32>("news").await.unwrap(), cast.provided.listen::<u32>("news").await.unwrap());
    let mut tap = other.tap();
    for number in 0..10_u32 {
        (if number % 2 == 0 { &told } else { &cast.math }).broadcast("news", &number).await.unwrap();
    }
    for number in [0, 2, 4, 6, 8] {
        let copy = next(&mut tap).await;
        assert_eq!((about(&copy), copy.value()), ((TapKind::Broadcast, "other", "news"), Ok(number)));
    }
}

async fn s59_a_slow_tap_is_told_what_it_missed_and_nobody_else_notices(scene: Scene) {
    let cast = scene.cast().await;
    let mut listener = cast.provided.listen::<u32>("news").await.unwrap();
    let mut tap = cast.provider.tap().queue(3);
    for number in 0..10_u32 {
        cast.math.broadcast("news", &number).await.unwrap();
        let message = listener.next().await.unwrap();
        assert_eq!((*message, message.missed()), (number, 0));
    }
    for expected in [(7, 7), (8, 0), (9, 0)] {
        let copy = next(&mut tap).await;
        assert_eq!((copy.value::<u32>().unwrap(), copy.missed()), expected);
    }
}

async fn s59_a_tap_ends_with_its_connection_and_does_not_keep_it(scene: Scene) {
    let cast = scene.cast().await;
    let mut tap = cast.consumer.tap();
    drop((cast.math, cast.consumer));
    assert!(tap.next().await.is_none(), "nothing else held the connection");
    let mut late = cast.provider.tap();
    cast.hub.shutdown().await;
    assert!(late.next().await.is_none());
    assert!(cast.provider.tap().next().await.is_none(), "there is nothing to hear any more");
}

async fn s87_what_goes_wrong_is_told_in_one_place(scene: Scene) {
    let cast = scene.cast().await;
    let (mut here, mut there) = (cast.consumer.errors(), cast.provider.errors());
    let fails = async |number: Request<u32>| -> Result<(), Fault> {
        assert_ne!(*number, 0, "asked for");
        number.sleep(std::time::Duration::from_millis(1)).await;
        assert_ne!(*number, 1, "asked for, later");
        Err(FaultCode::HandlerFailed.into())
    };
    let _fails = cast.provided.provide("fails", fails).await.unwrap();
    let breaks = |_: Request<()>| stream::iter([Ok(1), Err(Fault::from(FaultCode::HandlerFailed))]);
    let _breaks = cast.provided.provide_stream("breaks", breaks).await.unwrap();
    for (number, code) in
        [(0, FaultCode::HandlerPanicked), (1, FaultCode::HandlerPanicked), (2, FaultCode::HandlerFailed)]
    {
        let error = cast.math.call::<()>("fails", &number).await.unwrap_err();
        assert_eq!(error.code().0, code.code());
        let told = there.next().await.unwrap();
        assert_eq!(told.code().0, code.code());
        let ClientError::Handler { channel, event, caller, .. } = told else { panic!("{told:?}") };
        assert_eq!((channel.as_str(), event.as_str(), caller.client.as_str()), ("math", "fails", "consumer"));
    }
    cast.math.call::<()>("fails", "no number").await.unwrap_err();
    assert_eq!(there.next().await.unwrap().code().0, FaultCode::BadPayload.code());
    // Nobody waits for a send to be handled, and it is told all the same.
    cast.math.send("fails", &2).await.unwrap();
    assert_eq!(there.next().await.unwrap().code().0, FaultCode::HandlerFailed.code());
    let mut items = cast.math.stream::<u32>("breaks", &()).await.unwrap();
    while let Ok(Some(_)) = items.try_next().await {}
    let told = there.next().await.unwrap();
    assert!(matches!(&told, ClientError::Handler { event, .. } if event.as_str() == "breaks"), "{told:?}");
    // What the hub refuses is told to who asked, and here: first the one, then each of the others.
    cast.math.call::<()>("nobody", &()).await.unwrap_err();
    cast.math.send("nobody", &()).await.unwrap_err();
    cast.math.stream::<()>("nobody", &()).await.unwrap_err();
    cast.math.provide("fails", fails).await.unwrap_err();
    for refusal in [Refusal::NoProvider, Refusal::NoProvider, Refusal::NoProvider, Refusal::ProviderExists] {
        assert_eq!(here.next().await, Some(ClientError::Refused(Failure::Refused(refusal))));
    }
    let owned = cast.provider.open("owned").on_owner_leave(OwnerPolicy::Terminate).await.unwrap();
    let _member = cast.consumer.open("owned").await.unwrap();
    owned.terminate().await.unwrap();
    let ended = here.next().await.unwrap();
    let why = Failure::Refused(Refusal::Terminated);
    assert_eq!(ended, ClientError::Channel { channel: owned.name().clone(), why });
}

async fn s87_a_function_is_called_for_each_error_and_may_fail_itself(scene: Scene) {
    let cast = scene.cast().await;
    let (told, tells) = smol::channel::unbounded();
    let mut first = true;
    let clumsy = move |error: ClientError| {
        assert!(!std::mem::replace(&mut first, false), "asked for");
        let told = told.clone();
        async move { told.send(error.code().0).await.unwrap() }
    };
    let subscription = cast.consumer.on_error(clumsy);
    let no_provider = Refusal::NoProvider.code();
    for _ in 0..3 {
        assert_eq!(cast.math.call::<()>("nobody", &()).await.unwrap_err().code().0, no_provider);
    }
    assert_eq!((tells.recv().await, tells.recv().await), (Ok(no_provider), Ok(no_provider)));
    subscription.stop();
    assert!(tells.recv().await.is_err(), "it is gone with its handle");
    let (told, tells) = smol::channel::unbounded();
    let kept = move |error: ClientError| {
        let told = told.clone();
        async move { told.send(error).await.unwrap() }
    };
    cast.consumer.on_error(kept).detach();
    cast.hub.shutdown().await;
    let mut all = Vec::new();
    while let Ok(error) = tells.recv().await {
        all.push(error);
    }
    assert_eq!(all, [ClientError::Connection(CloseReason::Goodbye(Refusal::ShuttingDown))]);
}

async fn s87_errors_that_nobody_takes_are_counted(scene: Scene) {
    let cast = scene.cast().await;
    let mut errors = cast.consumer.errors().queue(2);
    for _ in 0..5 {
        cast.math.call::<()>("nobody", &()).await.unwrap_err();
    }
    let refused = || Some(ClientError::Refused(Failure::Refused(Refusal::NoProvider)));
    assert_eq!(errors.next().await, Some(ClientError::Missed(3)));
    assert_eq!((errors.next().await, errors.next().await), (refused(), refused()));
}

async fn s86_s87_why_a_connection_ended_is_told_to_all_who_ask(scene: Scene) {
    let cast = scene.cast().await;
    let mut errors = [cast.consumer.errors(), cast.consumer.errors()];
    let third = scene.client(&cast.hub, "third").await.unwrap();
    let mut closed_here = third.errors();
    third.close().await;
    assert_eq!(third.closed().await, CloseReason::Local);
    assert_eq!(closed_here.next().await, None, "to close is no error");
    let waits = {
        let consumer = cast.consumer.clone();
        smol::spawn(async move { consumer.closed().await })
    };
    // Given up and asked again.
    assert!(smol::future::poll_once(std::pin::pin!(cast.consumer.closed())).await.is_none());
    cast.hub.shutdown().await;
    let reason = CloseReason::Goodbye(Refusal::ShuttingDown);
    assert_eq!((waits.await, cast.consumer.closed().await), (reason, reason));
    for errors in &mut errors {
        assert_eq!(errors.next().await, Some(ClientError::Connection(reason)));
        assert_eq!(errors.next().await, None);
    }
}
