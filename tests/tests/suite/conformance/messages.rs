//! Broadcasts and sends: who hears them, in which order, and what is told about what was not heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use commipc_runtime::{Failure, Fault, Message, QUEUE_MAX, Refusal, Request, SendError};
use smol::channel::unbounded;

use crate::scene::{Scene, over_all, watch};

over_all! {
    s53_s58_v37_a_broadcast_reaches_all_others_in_order_and_never_its_sender,
    s54_a_send_reaches_the_provider_alone_and_says_if_there_is_none,
    s55_listeners_of_an_event_and_of_a_channel_hear_alike,
    s55_a_function_is_called_for_each_message_in_order_and_one_at_a_time,
    s55_s56_a_function_that_panics_stops_neither_itself_nor_others,
    s55_a_function_is_called_until_its_handle_is_dropped_and_a_detached_one_goes_on,
    s56_a_listener_that_cannot_read_a_message_stops_no_other,
    s57_v8_a_broadcast_never_runs_a_handler,
    s60_a_broadcast_tells_who_said_it_and_when,
    a_slow_listener_is_told_how_many_it_missed,
    a_listener_ends_with_the_connection,
}

async fn s53_s58_v37_a_broadcast_reaches_all_others_in_order_and_never_its_sender(scene: Scene) {
    const COUNT: u32 = 300;
    let cast = scene.cast().await;
    let third = scene.client(&cast.hub, "third").await.unwrap().open("math").await.unwrap();
    let mut own = cast.provided.listen::<u32>("news").await.unwrap();
    let mut others = [cast.math.listen::<u32>("news").await.unwrap(), third.listen::<u32>("news").await.unwrap()];
    let mut elsewhere = third.listen::<u32>("sport").await.unwrap();
    for number in 0..COUNT {
        cast.provided.broadcast("news", &number).await.unwrap();
    }
    for listener in &mut others {
        for number in 0..COUNT {
            let message = listener.next().await.unwrap();
            assert_eq!((*message, message.number(), message.missed()), (number, u64::from(number) + 1, 0));
        }
    }
    // The first that the sender hears is another's, and the first of another event is that event's.
    cast.math.broadcast("news", &9_999_u32).await.unwrap();
    cast.math.broadcast("sport", &7_u32).await.unwrap();
    assert_eq!(*own.next().await.unwrap(), 9_999);
    assert_eq!(*elsewhere.next().await.unwrap(), 7);
}

async fn s54_a_send_reaches_the_provider_alone_and_says_if_there_is_none(scene: Scene) {
    let cast = scene.cast().await;
    let (heard, hears) = smol::channel::unbounded();
    let note = async |heard: smol::channel::Sender<(u32, bool)>, number: Request<u32>| {
        heard.send((*number, number.deadline().is_none())).await.unwrap();
        Ok::<_, Fault>(())
    };
    let _note = cast.provided.provide_with(heard, "note", note).await.unwrap();
    let mut listener = cast.provided.listen::<u32>("note").await.unwrap();
    for number in 0..50 {
        cast.math.send("note", &number).await.unwrap();
    }
    for number in 0..50 {
        assert_eq!(hears.recv().await.unwrap(), (number, true), "nobody waits for an answer");
    }
    cast.math.broadcast("note", &99_u32).await.unwrap();
    assert_eq!(*listener.next().await.unwrap(), 99, "listeners hear no sends");
    let error = cast.math.send("nobody", &1).await.unwrap_err();
    assert_eq!(error, SendError::Failed(Failure::Refused(Refusal::NoProvider)));
}

async fn s55_listeners_of_an_event_and_of_a_channel_hear_alike(scene: Scene) {
    let cast = scene.cast().await;
    let mut one = cast.math.listen::<u32>("a").await.unwrap();
    let mut again = cast.math.listen::<u32>("a").await.unwrap();
    let mut all = cast.math.listen_all::<u32>().await.unwrap();
    for number in 0..20 {
        cast.provided.broadcast(if number % 2 == 0 { "a" } else { "b" }, &number).await.unwrap();
    }
    for number in 0..20 {
        let message = all.next().await.unwrap();
        let event = if number % 2 == 0 { "a" } else { "b" };
        assert_eq!((*message, message.event().as_str()), (number, event));
    }
    for number in (0..20).step_by(2) {
        assert_eq!(*one.next().await.unwrap(), number);
        assert_eq!(*again.next().await.unwrap(), number);
    }
    // One that is dropped takes nothing from the others.
    drop(one);
    cast.provided.broadcast("a", &100_u32).await.unwrap();
    assert_eq!(*again.next().await.unwrap(), 100);
    assert_eq!(*all.next().await.unwrap(), 100);
}

async fn s55_a_function_is_called_for_each_message_in_order_and_one_at_a_time(scene: Scene) {
    const COUNT: u32 = 300;
    let cast = scene.cast().await;
    let (heard, hears) = unbounded();
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let one = {
        let (heard, running, most) = (heard.clone(), running.clone(), most.clone());
        move |number: Message<u32>| {
            let (heard, running, most) = (heard.clone(), running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // As long as it takes others to overtake it, if they could.
                smol::future::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                heard.send(("one", *number)).await.unwrap();
            }
        }
    };
    let _one = cast.math.on("a", one).await.unwrap();
    let all = move |number: Message<u32>| {
        let heard = heard.clone();
        async move { heard.send(("all", *number)).await.unwrap() }
    };
    let _all = cast.math.on_all(all).await.unwrap();
    for number in 0..COUNT {
        cast.provided.broadcast(if number % 3 == 0 { "b" } else { "a" }, &number).await.unwrap();
    }
    let (mut ones, mut alls) = (Vec::new(), Vec::new());
    while alls.len() < COUNT as usize || ones.len() < COUNT as usize / 3 * 2 {
        match hears.recv().await.unwrap() {
            ("one", number) => ones.push(number),
            (_, number) => alls.push(number),
        }
    }
    assert_eq!(alls, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(ones, (0..COUNT).filter(|number| number % 3 != 0).collect::<Vec<_>>());
    assert_eq!(most.load(Ordering::SeqCst), 1, "two ran at once");
}

async fn s55_s56_a_function_that_panics_stops_neither_itself_nor_others(scene: Scene) {
    let cast = scene.cast().await;
    let (heard, hears) = unbounded();
    let clumsy = move |number: Message<u32>| {
        assert_ne!(*number, 1, "before there is anything to wait for");
        let heard = heard.clone();
        async move {
            smol::future::yield_now().await;
            assert_ne!(*number, 2, "while it waits");
            heard.send(*number).await.unwrap();
        }
    };
    let _clumsy = cast.math.on("a", clumsy).await.unwrap();
    let mut other = cast.math.listen::<u32>("a").await.unwrap();
    for number in 0..5 {
        cast.provided.broadcast("a", &number).await.unwrap();
        assert_eq!(*other.next().await.unwrap(), number);
    }
    for number in [0, 3, 4] {
        assert_eq!(hears.recv().await.unwrap(), number);
    }
}

async fn s55_a_function_is_called_until_its_handle_is_dropped_and_a_detached_one_goes_on(scene: Scene) {
    let cast = scene.cast().await;
    let (heard, hears) = unbounded();
    let (open_gate, gate) = unbounded::<()>();
    let (watched, dropped) = watch();
    let slow = {
        let heard = heard.clone();
        move |number: Message<u32>| {
            let (heard, gate, _watched) = (heard.clone(), gate.clone(), &watched);
            async move {
                heard.send(("begins", *number)).await.unwrap();
                gate.recv().await.unwrap();
                heard.send(("ends", *number)).await.unwrap();
            }
        }
    };
    let subscription = cast.math.on("a", slow).await.unwrap();
    for number in [1_u32, 2] {
        cast.provided.broadcast("a", &number).await.unwrap();
    }
    assert_eq!(hears.recv().await.unwrap(), ("begins", 1));
    drop(subscription);
    open_gate.send(()).await.unwrap();
    assert_eq!(hears.recv().await.unwrap(), ("ends", 1), "what it is at it finishes");
    dropped.recv().await.unwrap();
    assert!(hears.is_empty(), "and no more");
    let kept = move |number: Message<u32>| {
        let heard = heard.clone();
        async move {
            // The second may still have been on its way.
            if *number > 2 {
                heard.send(("kept", *number)).await.unwrap();
            }
        }
    };
    cast.math.on("a", kept).await.unwrap().detach();
    drop((cast.math, cast.consumer));
    for number in [3_u32, 4] {
        cast.provided.broadcast("a", &number).await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), ("kept", number));
    }
    cast.hub.shutdown().await;
    assert!(hears.recv().await.is_err(), "its end is the connection's");
}

async fn s56_a_listener_that_cannot_read_a_message_stops_no_other(scene: Scene) {
    let cast = scene.cast().await;
    let mut numbers = cast.math.listen::<u32>("mixed").await.unwrap();
    let mut texts = cast.math.listen::<String>("mixed").await.unwrap();
    let mut bytes = cast.math.listen_raw(Some("mixed")).await.unwrap();
    cast.provided.broadcast("mixed", &1_u32).await.unwrap();
    cast.provided.broadcast("mixed", "two").await.unwrap();
    cast.provided.broadcast_raw("mixed", &b"three"[..]).await.unwrap();
    cast.provided.broadcast("mixed", &4_u32).await.unwrap();
    assert_eq!(*numbers.next().await.unwrap(), 1);
    let four = numbers.next().await.unwrap();
    assert_eq!((*four, four.unreadable()), (4, 2), "what was skipped is told");
    assert_eq!(texts.next().await.unwrap().as_str(), "two");
    assert_eq!(&bytes.next().await.unwrap()[..], b"three");
}

async fn s57_v8_a_broadcast_never_runs_a_handler(scene: Scene) {
    let cast = scene.cast().await;
    let runs = Arc::new(AtomicU32::new(0));
    let count = async |runs: Arc<AtomicU32>, _: Request<u32>| Ok::<_, Fault>(runs.fetch_add(1, Ordering::Relaxed) + 1);
    let _count = cast.provided.provide_with(runs, "count", count).await.unwrap();
    for _ in 0..10 {
        cast.math.broadcast("count", &1_u32).await.unwrap();
    }
    // It comes behind the broadcasts on both links.
    let runs: u32 = cast.math.call("count", &1_u32).await.unwrap();
    assert_eq!(runs, 1);
}

async fn s60_a_broadcast_tells_who_said_it_and_when(scene: Scene) {
    let cast = scene.cast().await;
    let mut listener = cast.math.listen::<u32>("news").await.unwrap();
    let before = millis();
    cast.provided.broadcast("news", &1_u32).await.unwrap();
    let message = listener.next().await.unwrap();
    let (sender, hub) = (&message.sender().client, &message.sender().hub);
    assert_eq!((sender.as_str(), hub, message.hops()), ("provider", cast.hub.id(), 1));
    assert!((before..=millis()).contains(&message.sent_at().0), "milliseconds since 1970: {:?}", message.sent_at());
}

fn millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

async fn a_slow_listener_is_told_how_many_it_missed(scene: Scene) {
    let cast = scene.cast().await;
    let mut slow = cast.math.listen::<usize>("news").await.unwrap();
    let mut quick = cast.math.listen::<usize>("news").await.unwrap();
    for number in 0..QUEUE_MAX + 5 {
        cast.provided.broadcast("news", &number).await.unwrap();
        assert_eq!(*quick.next().await.unwrap(), number);
    }
    let first = slow.next().await.unwrap();
    assert_eq!((*first, first.missed()), (5, 5), "the oldest went");
    let second = slow.next().await.unwrap();
    assert_eq!((*second, second.missed()), (6, 0));
}

async fn a_listener_ends_with_the_connection(scene: Scene) {
    let cast = scene.cast().await;
    let mut listener = cast.math.listen::<u32>("news").await.unwrap();
    cast.provided.broadcast("news", &1_u32).await.unwrap();
    assert_eq!(*listener.next().await.unwrap(), 1);
    cast.hub.shutdown().await;
    assert!(listener.next().await.is_none());
}
