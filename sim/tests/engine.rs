//! The engine drives any machine: here a toy that counts bytes, and some that break the contract.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::{Deadline, Flush, Input, Instant, LinkId, Machine, Now, Output, TimerReason};
use commipc_sim::decisions::Decisions;
use commipc_sim::{Clocks, Engine, Habits, NodeId, Sight, Step, Weather, Witness};

/// Dials when told, says so many bytes, closes with a flush; the other side counts and tells when it is over.
#[derive(Default)]
struct Toy {
    says: usize,
    heard: usize,
    link: Option<LinkId>,
    outputs: VecDeque<Output<usize>>,
    deadline: Option<Instant>,
    flaw: Flaw,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Flaw {
    #[default]
    None,
    AnswersEarlyTimeouts,
    Spins,
    SpeaksAfterTheEnd,
    SaysNothing,
    DialsTwice,
    ClosesTwice,
    SpeaksTooEarly,
    HearsStrays,
}

impl Toy {
    fn transmit(&mut self, link: LinkId, data: &'static [u8]) {
        self.outputs.push_back(Output::Transmit { link, data: Bytes::from_static(data) });
    }
}

impl Machine for Toy {
    type Command = usize;
    type Event = usize;

    fn handle_input(&mut self, now: Now, input: Input<usize>) {
        match input {
            Input::Command(says) => {
                self.says = says;
                self.link = Some(LinkId::dialled(0, 1));
                let link = LinkId::dialled(0, 1);
                self.outputs.push_back(Output::Dial { link, to: Arc::from("sim:hub") });
                match self.flaw {
                    Flaw::DialsTwice => self.outputs.push_back(Output::Dial { link, to: Arc::from("sim:hub") }),
                    Flaw::SpeaksTooEarly => self.transmit(link, b"x"),
                    Flaw::None
                    | Flaw::AnswersEarlyTimeouts
                    | Flaw::Spins
                    | Flaw::SpeaksAfterTheEnd
                    | Flaw::SaysNothing
                    | Flaw::ClosesTwice
                    | Flaw::HearsStrays => {}
                }
                self.deadline = Some(now.mono + Duration::from_secs(5));
            }
            Input::Dialled { link, .. } => {
                let data: Bytes = (0..self.says).map(|n| n as u8).collect::<Vec<u8>>().into();
                self.outputs.push_back(Output::Transmit { link, data });
                if self.flaw == Flaw::SaysNothing {
                    self.transmit(link, b"");
                }
                self.outputs.push_back(Output::Close { link, flush: Flush::Written });
                if self.flaw == Flaw::ClosesTwice {
                    self.outputs.push_back(Output::Close { link, flush: Flush::Written });
                }
                self.link = None;
            }
            Input::Accepted { link, .. } => self.link = Some(link),
            Input::Received { link, .. } if self.link != Some(link) && self.flaw == Flaw::HearsStrays => {
                self.outputs.push_back(Output::Event(2));
            }
            Input::Received { link, .. } | Input::Closed { link, .. } if self.link != Some(link) => {}
            Input::Received { data, .. } => {
                assert!(data.iter().enumerate().all(|(at, byte)| *byte == (self.heard + at) as u8));
                self.heard += data.len();
            }
            Input::Closed { link, .. } => {
                self.link = None;
                self.outputs.push_back(Output::Event(self.heard));
                if self.flaw == Flaw::SpeaksAfterTheEnd {
                    self.transmit(link, b"x");
                }
            }
            Input::Timeout if self.deadline.is_some_and(|at| at <= now.mono) => {
                self.deadline = self.deadline.filter(|_| self.flaw == Flaw::Spins);
                self.outputs.push_back(Output::Event(0));
            }
            Input::Timeout if self.flaw == Flaw::AnswersEarlyTimeouts => self.outputs.push_back(Output::Event(1)),
            Input::Shortage | Input::Timeout | Input::Written { .. } => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output<usize>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.deadline.map(|at| Deadline { at, reason: TimerReason::Call })
    }
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    broke: Vec<String>,
    received: usize,
}

impl Witness<Toy> for Log {
    fn saw(&mut self, at: Instant, node: NodeId, sight: Sight<'_, usize, usize>) {
        if let Sight::Broke(why) = sight {
            self.broke.push(why.to_owned());
        }
        self.received += usize::from(matches!(sight, Sight::Fed(Input::Received { .. })));
        self.lines.push(format!("{} {node:?} {sight:?}", at.as_nanos()));
    }
}

fn run(mut decisions: Decisions, flaw: Flaw, says: usize) -> (Log, Vec<usize>, Instant) {
    let stream = decisions.stream("net");
    let mut weather = Weather::drawn(decisions.on(stream)).healed();
    weather.cut = if flaw == Flaw::SpeaksAfterTheEnd { 500 } else { 0 };
    let mut engine = Engine::new(decisions, weather);
    let hub = engine.add("hub", Toy { flaw, ..Toy::default() });
    let client = engine.add("client", Toy { flaw, ..Toy::default() });
    for node in [hub, client] {
        let habits = Habits::drawn(engine.choose(node));
        engine.place(node, habits, Clocks { mono: 77, wall: -5 });
    }
    let mut log = Log::default();
    engine.command(client, says, &mut log);
    while engine.step(&mut log) != Step::Idle {}
    let told = std::iter::from_fn(|| engine.told()).map(|(_, told)| told).collect();
    (log, told, engine.now())
}

/// How old the time may be that a driver hands in.
const OLDEST_READING: Duration = Duration::from_millis(1);

#[test]
fn every_byte_arrives_in_order_under_any_weather() {
    let mut reads = 0;
    for seed in 0..300 {
        let says = 1 + (seed as usize * 37) % 5_000;
        let (log, told, end) = run(Decisions::seeded(seed), Flaw::None, says);
        assert_eq!(log.broke, [""; 0], "seed {seed}");
        assert_eq!(told.iter().filter(|heard| **heard == says).count(), 1, "seed {seed}: {told:?}");
        // Five seconds from what the driver's clock showed when it was read, which may have been a while before.
        assert!(end + OLDEST_READING >= Instant::from_nanos(5_000_000_000), "the timeout falls due: {end:?}");
        reads += log.received;
    }
    assert!(reads > 1_000, "chunks: {reads}");
}

#[test]
fn the_same_decisions_make_the_same_run() {
    for seed in 0..20 {
        let first = run(Decisions::seeded(seed), Flaw::None, 900).0.lines;
        assert_eq!(first, run(Decisions::seeded(seed), Flaw::None, 900).0.lines);
        assert_ne!(first, run(Decisions::seeded(seed + 1), Flaw::None, 900).0.lines);
    }
    let any = Decisions::from_bytes(&[3; 40]);
    assert_eq!(run(any, Flaw::None, 50).1.iter().max(), Some(&50), "a fuzzer's bytes steer a run as well");
}

#[test]
fn a_machine_that_breaks_the_contract_is_found() {
    let found = |flaw, why: &str| {
        let hits =
            (0..100).filter(|seed| run(Decisions::seeded(*seed), flaw, 99).0.broke.iter().any(|what| what == why));
        hits.count()
    };
    assert!(found(Flaw::AnswersEarlyTimeouts, "an output of a timeout before its deadline") > 10);
    assert!(found(Flaw::Spins, "a deadline that its timeout does not move") == 100);
    assert!(found(Flaw::SpeaksAfterTheEnd, "a transmit on a link that is over or never was") > 10);
    assert!(found(Flaw::SaysNothing, "a transmit without bytes") > 10);
    assert!(found(Flaw::DialsTwice, "a dial for a link that is not free") > 10);
    assert!(found(Flaw::ClosesTwice, "a close of a link that is over or never was") > 10);
    assert!(found(Flaw::SpeaksTooEarly, "a transmit on a link that was not dialled yet") > 10);
    assert!(found(Flaw::HearsStrays, "an output for a link that the machine had closed") > 0);
}
