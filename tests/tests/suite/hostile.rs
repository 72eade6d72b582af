//! A hub that its clients should not trust, on real sockets: it alters, repeats, swaps, makes up, cuts and downgrades, and no
//! honest member believes any of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ciborium::Value;
use commipc_runtime::{CallError, Channel, Client, Failure, Fault, Hub, Items, OpenError, Refusal, Request, Secret};
use smol::stream;

use crate::scene::{Scene, TOKIO, Transport, run};
use crate::wiretap::{Frame, Rule, Wiretap};

const DONE: u8 = 10;
const JOIN_CHALLENGE: u8 = 17;
const BROADCAST: u8 = 33;
const CALL: u8 = 35;
const ANSWER: u8 = 36;
const ITEM: u8 = 38;
const END: u8 = 39;

/// How a call that a hub meddles with may end at the latest.
const SOON: Duration = Duration::from_millis(400);

fn password() -> Secret {
    Secret::key([42; 32])
}

/// The hub, its owner's honest line, and the line of whoever is deceived.
struct Stage {
    scene: Scene,
    _hub: Hub,
    _owner: Client,
    vault: Channel,
    line: Wiretap,
    attack: Arc<Mutex<Option<Rule>>>,
    lines: AtomicU64,
}

/// A member behind the hostile hub.
struct Victim {
    client: Client,
    vault: Channel,
}

impl Stage {
    async fn new(scene: Scene) -> Self {
        let hub = scene.hub().await.unwrap();
        let owner = scene.client(&hub, "owner").await.unwrap();
        let vault = owner.open("vault").await.unwrap();
        vault.protect_with(password()).await.unwrap();
        let attack: Arc<Mutex<Option<Rule>>> = Arc::default();
        let on = Arc::clone(&attack);
        let rule = move |frame: Frame| match &mut *on.lock().unwrap() {
            Some(attack) => attack(frame),
            None => vec![frame],
        };
        let line = Wiretap::start(scene.path("line.sock"), &scene.path("hub.sock"), Box::new(rule));
        Self { scene, _hub: hub, _owner: owner, vault, line, attack, lines: AtomicU64::new(0) }
    }

    async fn client(&self) -> Client {
        let number = self.lines.fetch_add(1, Ordering::Relaxed);
        let client = self.scene.bare_client(&self.line.url()).id(&format!("victim-{number}"));
        client.secret_file(self.scene.path("hub.sock.key")).await.unwrap()
    }

    async fn victim(&self) -> Victim {
        self.honest();
        let client = self.client().await;
        let vault = client.open("vault").secret(password()).await.unwrap();
        Victim { client, vault }
    }

    fn attack(&self, attack: impl FnMut(Frame) -> Vec<Frame> + Send + 'static) {
        *self.attack.lock().unwrap() = Some(Box::new(attack));
    }

    fn honest(&self) {
        *self.attack.lock().unwrap() = None;
    }

    /// What a victim hears of a broadcast that the hub meddles with and of one that it does not; `None` if the victim has
    /// broken off.
    async fn heard(&self, attack: impl FnMut(Frame) -> Vec<Frame> + Send + 'static) -> Vec<String> {
        let victim = self.victim().await;
        let mut heard = victim.vault.listen_all::<String>().await.unwrap();
        self.vault.broadcast("news", "before").await.unwrap();
        let mut texts = vec![heard.next().await.unwrap().clone()];
        self.attack(attack);
        self.vault.broadcast("news", "target").await.unwrap();
        self.vault.broadcast("news", "after").await.unwrap();
        while let Some(message) = heard.next().await {
            texts.push(message.clone());
            if *message == "after" {
                break;
            }
        }
        self.honest();
        texts
    }
}

fn hostile<F: Future<Output = ()> + Send + 'static>(script: fn(Stage) -> F) {
    run(TOKIO, Transport::Unix, move |scene| async move { script(Stage::new(scene).await).await });
}

fn contains(frame: &Frame, text: &str) -> bool {
    frame.bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A message frame's hop header, and its signed message: protected map, payload, tag.
fn message(frame: &Frame) -> (Vec<u8>, Value, Vec<u8>, Vec<u8>) {
    let (hop, message) = frame.body().split_at(6);
    let Value::Array(parts) = ciborium::from_reader(message).unwrap() else { panic!("no array") };
    let [Value::Bytes(protected), _, Value::Bytes(payload), Value::Bytes(tag)] = &parts[..] else {
        panic!("{parts:?}")
    };
    (hop.to_vec(), ciborium::from_reader(&protected[..]).unwrap(), payload.clone(), tag.clone())
}

fn rebuilt(frame: &Frame, kind: u8, hop: &[u8], protected: &Value, payload: &[u8], tag: &[u8]) -> Frame {
    let mut bytes = Vec::new();
    ciborium::into_writer(protected, &mut bytes).unwrap();
    let parts = [bytes, payload.to_vec(), tag.to_vec()].map(Value::Bytes);
    let [protected, payload, tag] = parts;
    let mut body = hop.to_vec();
    let whole = Value::Array(vec![protected, Value::Map(Vec::new()), payload, tag]);
    ciborium::into_writer(&whole, &mut body).unwrap();
    frame.with(kind, &body)
}

/// The frame with its signed fields, payload and tag as `change` leaves them.
fn changed(frame: &Frame, change: impl FnOnce(&mut Vec<Value>, &mut Vec<u8>, &mut Vec<u8>)) -> Frame {
    let (hop, mut protected, mut payload, mut tag) = message(frame);
    let Value::Map(entries) = &mut protected else { panic!("no map") };
    let Value::Array(fields) = &mut entries[1].1 else { panic!("no fields") };
    change(fields, &mut payload, &mut tag);
    // The frame's type follows its message, so that only the signature can tell.
    let kind = match fields[1].as_integer().map(i128::from) {
        Some(kind @ 1..=9) => u8::try_from(32 + kind).unwrap(),
        _ => frame.kind(),
    };
    rebuilt(frame, kind, &hop, &protected, &payload, &tag)
}

fn other(value: &Value) -> Value {
    match value {
        Value::Integer(number) => Value::from(i128::from(*number) as u64 + 1),
        Value::Text(text) if text.is_empty() => Value::from("victim-0@hub"),
        Value::Text(text) => Value::from(format!("{text}x")),
        Value::Bytes(bytes) if bytes.is_empty() => Value::Bytes(vec![0xa0]),
        Value::Bytes(bytes) => Value::Bytes(bytes.iter().map(|byte| byte ^ 1).collect()),
        other => panic!("{other:?}"),
    }
}

fn meddling(change: impl Fn(&Frame) -> Vec<Frame> + Send + 'static) -> impl FnMut(Frame) -> Vec<Frame> + Send {
    move |frame| {
        if frame.to_client && frame.kind() == BROADCAST && contains(&frame, "target") {
            change(&frame)
        } else {
            vec![frame]
        }
    }
}

#[test]
fn nothing_is_lost_on_an_honest_line() {
    hostile(|stage| async move {
        assert_eq!(stage.heard(meddling(|frame| vec![frame.clone()])).await, ["before", "target", "after"]);
        let same = meddling(|frame| vec![changed(frame, |_, _, _| {})]);
        assert_eq!(stage.heard(same).await, ["before", "target", "after"], "rebuilt to the byte");
    });
}

#[test]
fn v1_v3_no_field_of_a_message_can_be_altered() {
    hostile(|stage| async move {
        for field in 0..18 {
            let heard = stage.heard(meddling(move |frame| {
                vec![changed(frame, |fields, _, _| fields[field] = other(&fields[field]))]
            }));
            let heard = heard.await;
            assert!(!heard.contains(&"target".to_owned()), "field {field}: {heard:?}");
        }
        let payload = meddling(|frame| vec![changed(frame, |_, payload, _| payload[1] ^= 1)]);
        assert_eq!(stage.heard(payload).await, ["before", "after"]);
        let tag = meddling(|frame| vec![changed(frame, |_, _, tag| tag[31] ^= 1)]);
        assert_eq!(stage.heard(tag).await, ["before", "after"]);
    });
}

#[test]
fn v1_stripped_forged_and_downgraded_messages_are_refused() {
    hostile(|stage| async move {
        let stripped = meddling(|frame| vec![changed(frame, |_, _, tag| tag.clear())]);
        assert!(!stage.heard(stripped).await.contains(&"target".to_owned()));
        let downgraded = meddling(|frame| {
            vec![changed(frame, |fields, _, tag| {
                fields[5] = Value::from(0);
                tag.clear();
            })]
        });
        assert_eq!(stage.heard(downgraded).await, ["before", "after"]);
        // In the name of a member that was never there, beside the true one.
        let forged = meddling(|frame| {
            let forged = changed(frame, |fields, payload, tag| {
                (fields[6], fields[8]) = (Value::from("ghost"), Value::Bytes(vec![9; 16]));
                payload[1..].copy_from_slice(b"forged");
                *tag = vec![7; 32];
            });
            vec![forged, frame.clone()]
        });
        assert_eq!(stage.heard(forged).await, ["before", "target", "after"]);
    });
}

/// Also when nothing is said after it.
#[test]
fn v5_what_the_hub_keeps_back_is_noticed() {
    hostile(|stage| async move {
        let victim = stage.victim().await;
        let mut heard = victim.vault.listen_all::<String>().await.unwrap();
        stage.vault.broadcast("news", "before").await.unwrap();
        assert_eq!(heard.next().await.unwrap().lost(), 0);
        stage.attack(meddling(|_| Vec::new()));
        stage.vault.broadcast("news", "target").await.unwrap();
        stage.vault.broadcast("news", "after").await.unwrap();
        let after = heard.next().await.unwrap();
        assert_eq!((after.as_str(), after.lost(), heard.lost()), ("after", 1, 0));
        stage.vault.broadcast("news", "target").await.unwrap();
        let hidden = Instant::now();
        while heard.lost() == 0 {
            victim.client.sleep(Duration::from_millis(50)).await;
            assert!(hidden.elapsed() < Duration::from_secs(60), "nobody tells of it");
        }
        assert_eq!(heard.lost(), 1);
    });
}

#[test]
fn v2_nothing_is_heard_twice_and_nothing_of_ones_own() {
    hostile(|stage| async move {
        let twice = meddling(|frame| vec![frame.clone(), frame.clone()]);
        assert_eq!(stage.heard(twice).await, ["before", "target", "after"]);
        // Once more, after the next one.
        let mut kept = None;
        let late = move |frame: Frame| {
            if frame.to_client && frame.kind() == BROADCAST && contains(&frame, "target") {
                kept = Some(frame.clone());
            } else if frame.kind() == BROADCAST && contains(&frame, "after") {
                return kept.take().into_iter().chain([frame]).collect();
            }
            vec![frame]
        };
        assert_eq!(stage.heard(late).await, ["before", "target", "after"]);

        let victim = stage.victim().await;
        let mut heard = victim.vault.listen_all::<String>().await.unwrap();
        stage.attack(|frame| {
            let back = Frame { to_client: true, ..frame.clone() };
            if !frame.to_client && frame.kind() == BROADCAST { vec![back, frame] } else { vec![frame] }
        });
        victim.vault.broadcast("news", "my own").await.unwrap();
        stage.vault.broadcast("news", "another's").await.unwrap();
        assert_eq!(heard.next().await.unwrap().as_str(), "another's");
        assert_eq!(victim.client.refused_messages().repeated, 1);
    });
}

async fn doubled(stage: &Stage) -> commipc_runtime::Provider {
    stage.vault.provide("double", async |r: Request<i64>| Ok::<_, Fault>(*r * 2)).await.unwrap()
}

/// A call that is answered right, or not at all.
async fn right_or_nothing(victim: &Victim, number: i64) -> bool {
    match victim.vault.call::<i64>("double", &number).deadline(SOON).await {
        Ok(answer) => {
            assert_eq!(answer, number * 2, "a wrong answer was believed");
            true
        }
        Err(CallError::Failed { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn v4_v7_an_answer_is_the_providers_and_belongs_to_its_call() {
    hostile(|stage| async move {
        let _double = doubled(&stage).await;
        // Altered.
        let victim = stage.victim().await;
        stage.attack(|frame| match (frame.to_client, frame.kind()) {
            (true, ANSWER) => vec![changed(&frame, |_, payload, _| *payload.last_mut().unwrap() ^= 1)],
            _ => vec![frame],
        });
        assert!(!right_or_nothing(&victim, 21).await);
        // Swapped between two calls: each with the other's message under its own route.
        stage.honest();
        let mut held: Option<Frame> = None;
        stage.attack(move |frame| {
            if !(frame.to_client && frame.kind() == ANSWER) {
                return vec![frame];
            }
            let Some(first) = held.take() else {
                held = Some(frame);
                return Vec::new();
            };
            let swap = |of: &Frame, with: &Frame| of.with_body(&[&of.body()[..6], &with.body()[6..]].concat());
            vec![swap(&first, &frame), swap(&frame, &first)]
        });
        let (one, two) = futures(right_or_nothing(&victim, 1), right_or_nothing(&victim, 2)).await;
        assert!(!one && !two);
        // The answer to the last call, once more for the next one.
        stage.honest();
        let mut last: Option<Frame> = None;
        stage.attack(move |frame| {
            if !(frame.to_client && frame.kind() == ANSWER) {
                return vec![frame];
            }
            let replayed = last.as_ref().map(|old| frame.with_body(&[&frame.body()[..6], &old.body()[6..]].concat()));
            last.get_or_insert_with(|| frame.clone());
            vec![replayed.unwrap_or(frame)]
        });
        assert!(right_or_nothing(&victim, 5).await);
        assert!(!right_or_nothing(&victim, 6).await);
    });
}

#[test]
fn s33_v2_v3_a_request_is_carried_out_once_and_as_it_was_asked() {
    hostile(|stage| async move {
        // The deceived one is the provider here.
        let victim = stage.victim().await;
        let sum = Arc::new(AtomicU64::new(0));
        let add =
            async |sum: Arc<AtomicU64>, r: Request<u64>| Ok::<_, Fault>(sum.fetch_add(*r, Ordering::Relaxed) + *r);
        let _adding = victim.vault.provide_with(Arc::clone(&sum), "add", add).await.unwrap();
        let ask = async |number: u64| stage.vault.call::<u64>("add", &number).deadline(SOON).await;
        assert_eq!(ask(1).await.unwrap(), 1);
        // Twice, the second time under another route.
        stage.attack(|frame| {
            if !(frame.to_client && frame.kind() == CALL) {
                return vec![frame];
            }
            let mut body = frame.body().to_vec();
            body[3] ^= 0x40;
            vec![frame.with_body(&body), frame]
        });
        let _ = ask(10).await;
        stage.attack(|frame| match (frame.to_client, frame.kind()) {
            (true, CALL) => vec![changed(&frame, |_, payload, _| *payload.last_mut().unwrap() ^= 2)],
            _ => vec![frame],
        });
        assert!(ask(4).await.is_err());
        stage.honest();
        assert_eq!(ask(100).await.unwrap(), 111, "ten once, and nothing else");
    });
}

/// Items until the end, and whether the end was a good one. A hub can keep an end to itself; then there is none.
async fn all(mut items: Items<u32>) -> (Vec<u32>, bool) {
    let mut come = Vec::new();
    loop {
        match tokio::time::timeout(SOON, items.next()).await {
            Ok(Some(Ok(item))) => come.push(item),
            Ok(None) => return (come, true),
            Ok(Some(Err(_))) | Err(_) => return (come, false),
        }
    }
}

#[test]
fn d1_no_stream_is_cut_reordered_or_repeated_unnoticed() {
    hostile(|stage| async move {
        let numbers = |r: Request<u32>| stream::iter((0..*r).map(Ok::<u32, Fault>));
        let _numbers = stage.vault.provide_stream("numbers", numbers).await.unwrap();
        type Trick = fn(u32, Frame, &mut Vec<Frame>) -> Vec<Frame>;
        let tricks: [(&str, Trick); 4] = [
            ("an item withheld", |number, frame, _| if number == 3 { Vec::new() } else { vec![frame] }),
            ("two items swapped", |number, frame, kept| match number {
                3 => {
                    kept.push(frame);
                    Vec::new()
                }
                4 => [frame].into_iter().chain(kept.drain(..)).collect(),
                _ => vec![frame],
            }),
            ("an item altered", |number, frame, _| match number {
                3 => vec![changed(&frame, |_, payload, _| payload[0] ^= 1)],
                _ => vec![frame],
            }),
            ("an item repeated", |number, frame, _| if number == 3 { vec![frame.clone(), frame] } else { vec![frame] }),
        ];
        for (name, trick) in tricks {
            let victim = stage.victim().await;
            let (mut number, mut kept) = (0, Vec::new());
            stage.attack(move |frame| {
                if !(frame.to_client && frame.kind() == ITEM) {
                    return vec![frame];
                }
                number += 1;
                trick(number, frame, &mut kept)
            });
            let items = victim.vault.stream::<u32>("numbers", &8).deadline(SOON).await.unwrap();
            let (come, whole) = all(items).await;
            let expected: Vec<u32> = (0..u32::try_from(come.len()).unwrap()).collect();
            assert_eq!(come, expected, "{name}: what comes is in order and right");
            assert_eq!(whole, come.len() == 8, "{name}: a good end only after everything");
            assert_eq!(whole, name == "an item repeated", "{name}");
        }
        // The tail is cut off and the end is kept, or made to fit.
        for count in [None, Some(3)] {
            let victim = stage.victim().await;
            let mut number = 0;
            stage.attack(move |frame| {
                if frame.to_client && frame.kind() == ITEM {
                    number += 1;
                    return if number > 3 { Vec::new() } else { vec![frame] };
                }
                match count {
                    Some(count) if frame.to_client && frame.kind() == END => {
                        vec![changed(&frame, |fields, _, _| fields[15] = Value::from(count))]
                    }
                    Some(_) | None => vec![frame],
                }
            });
            let items = victim.vault.stream::<u32>("numbers", &8).deadline(SOON).await.unwrap();
            assert_eq!(all(items).await, (vec![0, 1, 2], false), "an end that is not the provider's is none");
        }
    });
}

#[test]
fn d2_v5_who_is_no_member_gets_no_stream_of_a_protected_channel() {
    hostile(|stage| async move {
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let numbers = move |r: Request<u32>| {
            counted.fetch_add(1, Ordering::Relaxed);
            stream::iter((0..*r).map(Ok::<u32, Fault>))
        };
        let _numbers = stage.vault.provide_stream("numbers", numbers).await.unwrap();
        let stranger = stage.client().await;
        let refused = match stranger.stream::<u32>("vault", "numbers", &8).deadline(SOON).await {
            Ok(mut items) => items.next().await.unwrap().unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(refused.code().0, Refusal::PasswordRequired.code(), "{refused}");
        // A member does.
        let victim = stage.victim().await;
        let mut items = victim.vault.stream::<u32>("numbers", &1).deadline(SOON).await.unwrap();
        assert_eq!(items.next().await.unwrap().unwrap(), 0);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "and the provider is not even asked");
    });
}

#[test]
fn s29_v28_a_channel_that_asks_for_no_password_is_not_the_one() {
    hostile(|stage| async move {
        let client = stage.client().await;
        stage.attack(|frame| {
            if !(frame.to_client && frame.kind() == JOIN_CHALLENGE) {
                return vec![frame];
            }
            // "You are in": the number of the OPEN, code 0, epoch 0.
            let Value::Map(asked) = ciborium::from_reader(frame.body()).unwrap() else { panic!("no map") };
            let entries = [(0_u64, asked[0].1.clone()), (1, Value::from(0)), (2, Value::from(0)), (3, false.into())];
            let told = Value::Map(entries.map(|(label, value)| (Value::from(label), value)).into());
            let mut body = Vec::new();
            ciborium::into_writer(&told, &mut body).unwrap();
            vec![frame.with(DONE, &body)]
        });
        let opened = client.open("vault").secret(password()).await;
        let refused = matches!(opened, Err(OpenError::Failed(Failure::Refused(Refusal::NotProtected))));
        assert!(refused, "{:?}", opened.map(|_| "let in"));
    });
}

/// Both at once.
async fn futures<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    smol::future::zip(a, b).await
}
