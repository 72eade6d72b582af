//! Listeners that are too slow: what is dropped, what waits, and what is told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use commipc_runtime::{
    Channel, CloseReason, Failure, Limits, ListenError, Listener, Message, Misuse, Overflow, Refusal,
};

use crate::scene::{Cast, Scene, over_all};

over_all! {
    a_slow_listener_loses_what_its_policy_says_and_is_told_how_much,
    what_is_missed_is_told_where_it_is_missing,
    a_listener_that_disconnects_hears_what_waited_and_why_no_more_comes,
    a_listener_that_blocks_loses_nothing_and_neither_does_any_other,
    a_dropped_listener_holds_nobody_up,
    v25_who_stops_reading_is_closed_and_told_so_and_others_hear_everything,
    a_listener_tells_what_ended_it,
    v37_functions_run_beside_each_other_only_where_that_is_said,
    s56_functions_that_fail_give_their_places_back,
}

/// Says the numbers, and waits until the consumer has heard all of them.
async fn say(cast: &Cast, witness: &mut Listener<u32>, numbers: std::ops::Range<u32>) {
    for number in numbers {
        cast.provided.broadcast("news", &number).await.unwrap();
        assert_eq!(*witness.next().await.unwrap(), number);
    }
}

fn heard(message: Option<Message<u32>>) -> (u32, u64) {
    let message = message.expect("a message waits");
    (*message, message.missed())
}

async fn listens(channel: &Channel, overflow: Overflow) -> Listener<u32> {
    channel.listen("news").overflow(overflow).queue(4).await.unwrap()
}

async fn a_slow_listener_loses_what_its_policy_says_and_is_told_how_much(scene: Scene) {
    let cast = scene.cast().await;
    let mut oldest = listens(&cast.math, Overflow::DropOldest).await;
    let mut newest = listens(&cast.math, Overflow::DropNewest).await;
    let mut latest = listens(&cast.math, Overflow::Latest).await;
    // The last to be told of each message.
    let mut witness = cast.math.listen("news").await.unwrap();
    say(&cast, &mut witness, 0..10).await;
    assert_eq!((oldest.missed(), newest.missed(), latest.missed()), (6, 6, 9));
    for expected in [(6, 6), (7, 0), (8, 0), (9, 0)] {
        assert_eq!(heard(oldest.next().await), expected);
    }
    for expected in 0..4 {
        assert_eq!(heard(newest.next().await), (expected, 0));
    }
    assert_eq!(heard(latest.next().await), (9, 9));
    assert_eq!((oldest.missed(), newest.missed(), latest.missed()), (0, 6, 0), "what is not told is still to be told");
    say(&cast, &mut witness, 10..11).await;
    assert_eq!(heard(oldest.next().await), (10, 0));
    assert_eq!(heard(newest.next().await), (10, 6), "behind what was dropped");
    assert_eq!(heard(latest.next().await), (10, 0));
}

async fn what_is_missed_is_told_where_it_is_missing(scene: Scene) {
    let cast = scene.cast().await;
    let mut newest = listens(&cast.math, Overflow::DropNewest).await;
    let mut witness = cast.math.listen("news").await.unwrap();
    say(&cast, &mut witness, 0..6).await;
    assert_eq!(heard(newest.next().await), (0, 0));
    say(&cast, &mut witness, 6..9).await;
    let mut come = Vec::new();
    for _ in 0..4 {
        come.push(heard(newest.next().await));
    }
    say(&cast, &mut witness, 9..10).await;
    come.push(heard(newest.next().await));
    assert_eq!(come, [(1, 0), (2, 0), (3, 0), (6, 2), (9, 2)]);
}

async fn a_listener_that_disconnects_hears_what_waited_and_why_no_more_comes(scene: Scene) {
    let cast = scene.cast().await;
    let mut strict = listens(&cast.math, Overflow::Disconnect).await;
    let mut witness = cast.math.listen("news").await.unwrap();
    say(&cast, &mut witness, 0..4).await;
    assert_eq!(strict.ended(), None, "as many as may wait");
    say(&cast, &mut witness, 4..9).await;
    for number in 0..4 {
        assert_eq!(heard(strict.next().await), (number, 0));
    }
    assert!(strict.next().await.is_none());
    let why = strict.ended().unwrap();
    assert_eq!((why.code().0, &why), (Misuse::TooMany.code(), &ListenError::TooSlow(4)));
    assert_eq!(strict.missed(), 5);
    assert_eq!(heard(listens_again(&cast, &mut witness).await.next().await), (9, 0));
}

/// A new listener, and something for it to hear.
async fn listens_again(cast: &Cast, witness: &mut Listener<u32>) -> Listener<u32> {
    let again = listens(&cast.math, Overflow::Disconnect).await;
    say(cast, witness, 9..10).await;
    again
}

async fn a_listener_that_blocks_loses_nothing_and_neither_does_any_other(scene: Scene) {
    const COUNT: u32 = 2_000;
    let cast = scene.cast().await;
    let mut patient = listens(&cast.math, Overflow::Block).await;
    let mut other = cast.math.listen::<u32>("news").queue(COUNT as usize).await.unwrap();
    let mut elsewhere = cast.provider.open("math").await.unwrap().listen::<u32>("done").await.unwrap();
    for number in 0..COUNT {
        cast.provided.broadcast("news", &number).await.unwrap();
    }
    for number in 0..COUNT {
        if number % 500 == 0 {
            smol::Timer::after(Duration::from_millis(20)).await;
        }
        assert_eq!(heard(patient.next().await), (number, 0));
    }
    for number in 0..COUNT {
        assert_eq!(heard(other.next().await), (number, 0));
    }
    // The connection goes on as before.
    cast.math.broadcast("done", &1_u32).await.unwrap();
    assert_eq!(*elsewhere.next().await.unwrap(), 1);
}

async fn a_dropped_listener_holds_nobody_up(scene: Scene) {
    let cast = scene.cast().await;
    let blocks = listens(&cast.math, Overflow::Block).await;
    let mut other = cast.math.listen::<u32>("news").await.unwrap();
    for number in 0..4 {
        cast.provided.broadcast("news", &number).await.unwrap();
    }
    for number in 0..4 {
        assert_eq!(heard(other.next().await), (number, 0));
    }
    // Full now, so that nothing more is read, until it goes.
    cast.provided.broadcast("news", &4_u32).await.unwrap();
    smol::Timer::after(Duration::from_millis(100)).await;
    let nothing_yet = smol::future::poll_once(other.next()).await.is_none();
    assert!(nothing_yet, "the connection waits");
    let dropped = std::time::Instant::now();
    drop(blocks);
    assert_eq!(heard(other.next().await), (4, 0));
    assert!(dropped.elapsed() < commipc_runtime::BLOCK_MAX / 2, "not by its end: {:?}", dropped.elapsed());
}

/// The connection of a listener with [`Overflow::Block`] reads nothing while its queue is full, as if its process were stopped.
async fn v25_who_stops_reading_is_closed_and_told_so_and_others_hear_everything(scene: Scene) {
    let mut limits = Limits::default();
    limits.outbox = 256 << 10;
    let hub = scene.hub().limits(limits).await.unwrap();
    let client = async |id: &str| scene.client(&hub, id).await.unwrap();
    let (speaker, witness, slow) = (client("speaker").await, client("witness").await, client("slow").await);
    let said = speaker.open("math").await.unwrap();
    let (heard, unread) = (witness.open("math").await.unwrap(), slow.open("math").await.unwrap());
    let mut heard = heard.listen::<(u32, String)>("news").await.unwrap();
    let mut unread = unread.listen::<(u32, String)>("news").overflow(Overflow::Block).queue(1).await.unwrap();
    let text = "x".repeat(128 << 10);
    let mut count = 0;
    while hub.load().clients == 3 {
        assert!(count < 1_000, "more than any system keeps for a socket is left unread, and the hub keeps it");
        said.broadcast("news", &(count, &text)).await.unwrap();
        let message = heard.next().await.unwrap();
        assert_eq!((message.0, message.1 == text, message.missed()), (count, true, 0));
        count += 1;
    }
    // Reads again: what was sent before, in order, and then why no more comes.
    let mut read = 0;
    while let Some(message) = unread.next().await {
        assert_eq!((message.0, message.1 == text, message.missed()), (read, true, 0));
        read += 1;
    }
    assert!(read > 0);
    assert_eq!(slow.closed().await, CloseReason::Goodbye(Refusal::SlowConsumer));
    let members: Vec<_> = speaker.members("math").await.unwrap().into_iter().map(|member| member.client).collect();
    assert!(!members.contains(&"slow".to_owned()), "{members:?}");
    said.broadcast("news", &(count, "the end")).await.unwrap();
    let last = heard.next().await.unwrap();
    assert_eq!((last.0, &*last.1, last.missed()), (count, "the end", 0));
}

async fn a_listener_tells_what_ended_it(scene: Scene) {
    let cast = scene.cast().await;
    let mut listener = listens(&cast.math, Overflow::DropOldest).await;
    assert_eq!(listener.ended(), None);
    cast.hub.shutdown().await;
    assert!(listener.next().await.is_none());
    assert_eq!(listener.ended(), Some(ListenError::Failed(Failure::Local(Misuse::NotConnected))));
}

async fn v37_functions_run_beside_each_other_only_where_that_is_said(scene: Scene) {
    const COUNT: u32 = 40;
    let cast = scene.cast().await;
    for at_once in [1, 3] {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begun, begins) = smol::channel::unbounded();
        let (ended, ends) = smol::channel::unbounded();
        let measured = Arc::clone(&most);
        let handler = move |number: Message<u32>| {
            // In order, since it is called before anything runs beside it.
            begun.try_send(*number).unwrap();
            let (now, most, ended) = (Arc::clone(&now), Arc::clone(&measured), ended.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                smol::Timer::after(Duration::from_millis(2)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                ended.send(()).await.unwrap();
            }
        };
        let _handled = cast.math.on("news", handler).concurrency(at_once).queue(COUNT as usize).await.unwrap();
        for number in 0..COUNT {
            cast.provided.broadcast("news", &number).await.unwrap();
        }
        for number in 0..COUNT {
            assert_eq!(begins.recv().await, Ok(number));
            ends.recv().await.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), at_once, "as many as may, and no more");
    }
}

async fn s56_functions_that_fail_give_their_places_back(scene: Scene) {
    let cast = scene.cast().await;
    let (ended, ends) = smol::channel::unbounded();
    let handler = move |number: Message<u32>| {
        let ended = ended.clone();
        async move {
            smol::future::yield_now().await;
            assert_eq!(*number % 2, 1, "asked for");
            ended.send(*number).await.unwrap();
        }
    };
    let _handled = cast.math.on("news", handler).concurrency(2).await.unwrap();
    for number in 0..10_u32 {
        cast.provided.broadcast("news", &number).await.unwrap();
    }
    let mut come = Vec::new();
    for _ in 0..5 {
        come.push(ends.recv().await.unwrap());
    }
    come.sort_unstable();
    assert_eq!(come, [1, 3, 5, 7, 9]);
}
