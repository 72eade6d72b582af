//! `commipc bench fanout`: broadcasts through a hub.
//!
//! The broadcaster keeps so many broadcasts in flight to the hub, and stays at most [`lag`] ahead of the slowest member:
//! each process with members tells, with a send of its own, how far all of them have come.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use commipc_tokio::{Channel, ClientId, EventName, Fault, ListenError, Listener, QUEUE_MAX, Request, SendError};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tokio::sync::Semaphore;

use super::args::{BenchFanout, Load, Role};
use super::load;
use super::part::Part;
use super::report::{Figure, Report, Row, Section, Unit};
use super::target::{self, CHANNEL, Target, rounds};
use super::usage::{self, Usage};
use crate::args::Common;
use crate::connect;
use crate::errors::About;
use crate::failure::{Exit, Failure, Outcome};

const EVENT: &str = "news";
/// What members tell the broadcaster with.
const HEARD: &str = "heard";
/// Processes with members.
const PROCESSES: u32 = 2;
/// How long a broadcaster waits for members that tell nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often members tell how far they are, while the broadcaster goes ahead by [`lag`].
const TELLINGS: u64 = 8;

/// What a broadcaster has done.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Said {
    /// Broadcasts while time was measured.
    pub(super) measured: u64,
    /// Those for warming up as well.
    pub(super) all: u64,
    /// Until every member had heard the last one.
    pub(super) seconds: f64,
}

/// What one round measured.
struct Round {
    said: Said,
    members: u64,
    lost: u64,
    hub: Option<Usage>,
    broadcaster: Option<Usage>,
    listening: Option<Usage>,
}

impl Round {
    const fn deliveries(&self) -> u64 {
        self.said.measured * self.members
    }
}

pub(super) fn run(args: &BenchFanout, common: &Common, dir: &Path) -> Outcome<Report> {
    let BenchFanout { size, members, in_flight, time, raw, protected, hub_url } = args;
    let targets = Target::pair(common, dir, *protected, hub_url.as_deref())?;
    let load = Load {
        size: *size,
        raw: *raw,
        protected: false,
        in_flight: *in_flight,
        clients: *members,
        seconds: time.seconds,
    };
    let rounds = rounds(&targets, time.rounds, |target| round(target, load))?;
    let content = if *raw { "raw bytes" } else { "CBOR" };
    let what = format!("Fan-out, {size} B as {content} to {members} members, {} s each", time.seconds);
    let setup = serde_json::json!({
        "size": size, "raw_payload": raw, "members": members, "in_flight": in_flight, "ahead": lag(*size),
        "protected": protected, "processes": PROCESSES, "seconds": time.seconds, "rounds": time.rounds, "hub_url": hub_url,
    });
    let title = format!("1 to {members}, {in_flight} in flight");
    let section = Section { key: "fanout".into(), title, rows: Row::all(&FIGURES, &rounds) };
    Ok(Report::new("fanout", &what, rounds.len(), setup, vec![section]).comparing(Target::columns(*protected)))
}

fn round(target: &Target, load: Load) -> Outcome<Round> {
    let members = |process| Load { clients: (load.clients + process) / PROCESSES, ..load };
    let used = (0..PROCESSES).map(members).filter(|load| load.clients > 0);
    let mut listening: Vec<Part> = used.map(|load| target.start(Role::Members, load)).collect::<Outcome<_>>()?;
    let mut broadcaster = target.start(Role::Broadcaster, Load { clients: listening.len() as u32, ..load })?;
    let usage = |broadcaster: &Part, listening: &[Part]| {
        [target.usage(), broadcaster.usage(), listening.iter().map(Part::usage).sum()]
    };
    let before = usage(&broadcaster, &listening);
    broadcaster.go()?;
    let said: Said = broadcaster.result()?;
    let [hub, broadcaster, used] = usage::between(before, usage(&broadcaster, &listening));
    let mut heard = 0;
    for part in &mut listening {
        part.go()?;
        heard += part.result::<u64>()?;
    }
    let members = u64::from(load.clients);
    Ok(Round { said, members, lost: (said.all * members).saturating_sub(heard), hub, broadcaster, listening: used })
}

const FIGURES: [Figure<Round>; 7] = [
    ("deliveries_per_s", "deliveries/s", Unit::PerSecond, |round| Some(round.deliveries() as f64 / round.said.seconds)),
    ("broadcasts_per_s", "broadcasts/s", Unit::PerSecond, |round| {
        Some(round.said.measured as f64 / round.said.seconds)
    }),
    ("lost", "lost deliveries", Unit::Number, |round| Some(round.lost as f64)),
    ("hub_cpu_us", "hub CPU per delivery", Unit::Micros, |round| Some(round.hub?.cpu_us(round.deliveries()))),
    ("hub_switches", "hub switches per delivery", Unit::Fraction, |round| {
        Some(round.hub?.switches(round.deliveries()))
    }),
    ("broadcaster_cpu_us", "broadcaster CPU per broadcast", Unit::Micros, |round| {
        Some(round.broadcaster?.cpu_us(round.said.measured))
    }),
    ("member_cpu_us", "member CPU per delivery", Unit::Micros, |round| {
        Some(round.listening?.cpu_us(round.deliveries()))
    }),
];

/// How far a broadcaster goes ahead of the slowest member: no further than a listener has room for, nor than a quarter
/// of a hub's outbox.
pub(super) fn lag(size: u32) -> u64 {
    const OUTBOX: u64 = 2 << 20;
    let room = OUTBOX / (u64::from(size) + 256);
    (room / TELLINGS * TELLINGS).clamp(TELLINGS, QUEUE_MAX as u64)
}

/// How far the members of one process have come.
pub(super) struct Progress {
    heard: Vec<u64>,
    told: u64,
    step: u64,
}

impl Progress {
    pub(super) fn new(load: Load) -> Self {
        Self { heard: vec![0; load.clients as usize], told: 0, step: lag(load.size) / TELLINGS }
    }

    /// A member has heard this number. Tells what all have heard, when it is time to say so.
    pub(super) fn heard(&mut self, member: usize, number: u64) -> Option<u64> {
        self.heard[member] = number;
        if !number.is_multiple_of(self.step) {
            return None;
        }
        let all = self.heard.iter().copied().min().unwrap_or(0);
        (all >= self.told + self.step).then(|| {
            self.told = all;
            all
        })
    }

    /// A member has gone and keeps nobody waiting any more.
    fn gone(&mut self, member: usize) {
        self.heard[member] = u64::MAX;
    }
}

/// How far the processes have come.
pub(super) struct Slowest<K> {
    heard: BTreeMap<K, u64>,
    processes: usize,
}

impl<K: Ord> Slowest<K> {
    pub(super) const fn of(processes: u32) -> Self {
        Self { heard: BTreeMap::new(), processes: processes as usize }
    }

    /// What all have heard, now that one of them has heard this.
    pub(super) fn heard(&mut self, process: K, number: u64) -> u64 {
        self.heard.insert(process, number);
        if self.heard.len() < self.processes { 0 } else { self.heard.values().copied().min().unwrap_or(0) }
    }
}

/// Whether a broadcaster is done: only at a number that members tell, so that it learns when all is heard.
pub(super) fn is_over(said: u64, size: u32, end: Instant) -> bool {
    said.is_multiple_of(lag(size) / TELLINGS) && Instant::now() >= end
}

/// Warms up, waits for the word, says as much as it can, tells how it went.
pub(super) async fn broadcaster(common: &Common, load: Load) -> Outcome {
    let about = About::new(connect::url(common), CHANNEL, EVENT)?;
    let client = connect::client(common).await?;
    let channel = target::open(&client, &about, load).await?;
    let pace = Arc::new(Pace { ahead: Semaphore::new(lag(load.size) as usize), said: AtomicU64::new(0) });
    let slowest = Arc::new(Mutex::new((Slowest::<ClientId>::of(load.clients), 0)));
    let hear = async |(pace, slowest): Heard, request: Request<u64>| {
        let mut slowest = slowest.lock().unwrap_or_else(PoisonError::into_inner);
        let all = slowest.0.heard(request.caller().client.clone(), *request);
        pace.ahead.add_permits(all.saturating_sub(slowest.1) as usize);
        slowest.1 = all;
        Ok::<_, Fault>(())
    };
    let provided = channel.provide_with((Arc::clone(&pace), slowest), HEARD, hear).await;
    let _provider = provided.map_err(|error| about.failed(error.code(), &error))?;

    drive(&channel, &about, &pace, load, load::WARM_UP).await?;
    let io = |error| Failure::io("a broadcaster", &error);
    load::wait_for_go().map_err(io)?;
    let (before, started) = (pace.said.load(Ordering::Relaxed), Instant::now());
    drive(&channel, &about, &pace, load, Duration::from_secs_f64(load.seconds)).await?;
    let seconds = started.elapsed().as_secs_f64();
    let all = pace.said.load(Ordering::Relaxed);
    load::tell(&Said { measured: all - before, all, seconds }).map_err(io)
}

type Heard = (Arc<Pace>, Arc<Mutex<(Slowest<ClientId>, u64)>>);

/// What keeps a broadcaster from running away.
struct Pace {
    /// A permit for each broadcast that may go ahead of the slowest member.
    ahead: Semaphore,
    said: AtomicU64,
}

impl Pace {
    /// Is ready when nothing has moved for [`PATIENCE`].
    async fn stalled(&self) {
        let moved = || (self.said.load(Ordering::Relaxed), self.ahead.available_permits());
        let mut last = moved();
        loop {
            tokio::time::sleep(PATIENCE).await;
            let now = moved();
            if now == last {
                return;
            }
            last = now;
        }
    }
}

/// One task for each broadcast in flight, until all that was said is heard.
async fn drive(channel: &Channel, about: &About, pace: &Arc<Pace>, load: Load, time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let say = || say_until(end, channel.clone(), about.event.clone(), Arc::clone(pace), load);
    let all = async {
        load::together((0..load.in_flight).map(|_| say())).await.map_err(|error| about.failed(error.code(), &error))?;
        // All permits are back when the slowest member has heard the last one. They are never closed.
        let _ = pace.ahead.acquire_many(lag(load.size) as u32).await;
        Ok(())
    };
    tokio::select! {
        outcome = all => outcome,
        () = pace.stalled() => {
            Err(Failure::new(Exit::Other, format!("the members have told nothing for {PATIENCE:?}: the hub has dropped them")))
        }
    }
}

async fn say_until(
    end: Instant,
    channel: Channel,
    event: EventName,
    pace: Arc<Pace>,
    load: Load,
) -> Result<(), SendError> {
    let bytes = Bytes::from(vec![0u8; load.size as usize]);
    let value = ByteBuf::from(vec![0u8; load.size as usize]);
    loop {
        // Never closed.
        let Ok(permit) = pace.ahead.acquire().await else { return Ok(()) };
        if is_over(pace.said.load(Ordering::Relaxed), load.size, end) {
            return Ok(());
        }
        permit.forget();
        pace.said.fetch_add(1, Ordering::Relaxed);
        if load.raw {
            channel.broadcast_raw(&event, bytes.clone()).await?;
        } else {
            channel.broadcast(&event, &value).await?;
        }
    }
}

/// Listens with so many connections until it is told to stop, and tells how much was heard.
pub(super) async fn members(common: &Common, load: Load) -> Outcome {
    let about = About::new(connect::url(common), CHANNEL, EVENT)?;
    let failed = |error: ListenError| about.failed(error.code(), &error);
    let mut teller = None;
    let hearing = Arc::new(Hearing { progress: Mutex::new(Progress::new(load)), heard: AtomicU64::new(0) });
    for member in 0..load.clients as usize {
        let client = connect::client(common).await?;
        let channel = target::open(&client, &about, load).await?;
        let teller: Channel = teller.get_or_insert_with(|| channel.clone()).clone();
        let hearing = Arc::clone(&hearing);
        if load.raw {
            let listener = channel.listen_raw(Some(EVENT)).await.map_err(failed)?;
            tokio::spawn(hearing.listen(listener, member, teller));
        } else {
            let listener = channel.listen::<ByteBuf>(&about.event).await.map_err(failed)?;
            tokio::spawn(hearing.listen(listener, member, teller));
        }
    }
    let io = |error| Failure::io("the members", &error);
    load::until_told().await.map_err(io)?;
    load::tell(&hearing.heard.load(Ordering::Relaxed)).map_err(io)
}

/// What the members of a process have in common.
struct Hearing {
    progress: Mutex<Progress>,
    heard: AtomicU64,
}

impl Hearing {
    async fn listen<T>(self: Arc<Self>, mut listener: Listener<T>, member: usize, teller: Channel) {
        while let Some(message) = listener.next().await {
            self.heard.fetch_add(1, Ordering::Relaxed);
            if let Some(all) = self.progress().heard(member, message.number()) {
                let teller = teller.clone();
                // Nobody waits for it: at the end the broadcaster may have gone.
                tokio::spawn(async move { drop(teller.send(HEARD, &all).await) });
            }
        }
        self.progress().gone(member);
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcaster_stays_within_reach_and_learns_when_all_is_heard() {
        for size in [1, 256, 4_096, 65_536, 262_144] {
            let ahead = lag(size);
            assert!(ahead >= TELLINGS && ahead.is_multiple_of(TELLINGS), "{size}: {ahead}");
            assert!(ahead <= QUEUE_MAX as u64, "no listener drops anything");
            assert!(ahead * (u64::from(size) + 256) <= 4 << 20, "no outbox overflows");
        }
        let load = Load { size: 256, raw: false, protected: false, in_flight: 64, clients: 2, seconds: 1.0 };
        let step = lag(256) / TELLINGS;
        let mut progress = Progress::new(load);
        let mut slowest = Slowest::of(2);
        assert_eq!((progress.heard(0, step), progress.heard(1, step - 1)), (None, None));
        assert_eq!(progress.heard(1, step), Some(step));
        assert_eq!((slowest.heard('a', step), slowest.heard('b', 2 * step)), (0, step));
        assert!(!is_over(step + 1, 256, Instant::now()) && is_over(step, 256, Instant::now()));
        progress.gone(0);
        assert_eq!(progress.heard(1, 2 * step), Some(2 * step), "who is gone keeps nobody waiting");
    }
}
