//! Every way in which up to five hubs can be joined, in any order and weather: nobody gets a message twice, everybody gets
//! it once where nothing was lost, calls end once, and ways are the shortest when all is quiet again.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test binary: what is unexpected fails it"
)]

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use commipc_protocol::bridge::Side;
use commipc_protocol::client::{
    Answer, Away, CallFailure, Command, Dropped, Event, EventKind, Failure, Outgoing, Payload, ReconnectEvent, Token,
};
use commipc_protocol::{EventName, Input, Refusal};
use support::name;
use support::net::{Between, Net, Node};

pub(crate) type Graph = (usize, Vec<(usize, usize)>);

/// All connected graphs of two to `most` hubs, one of each shape.
pub(crate) fn graphs(most: usize) -> Vec<Graph> {
    let mut found = Vec::new();
    for hubs in 2..=most {
        let pairs: Vec<(usize, usize)> = (0..hubs).flat_map(|a| (a + 1..hubs).map(move |b| (a, b))).collect();
        let mut shapes = BTreeSet::new();
        for set in 0_u32..1 << pairs.len() {
            let edges: Vec<_> =
                pairs.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, e)| *e).collect();
            let connected = distances(hubs, &edges, 0).len() == hubs;
            if connected && shapes.insert(shape(hubs, &edges)) {
                found.push((hubs, edges));
            }
        }
    }
    found
}

/// The smallest of all namings of a graph.
fn shape(hubs: usize, edges: &[(usize, usize)]) -> Vec<(usize, usize)> {
    fn named(edges: &[(usize, usize)], names: &[usize]) -> Vec<(usize, usize)> {
        let ordered = |(a, b): &(usize, usize)| (names[*a].min(names[*b]), names[*a].max(names[*b]));
        let mut renamed: Vec<_> = edges.iter().map(ordered).collect();
        renamed.sort_unstable();
        renamed
    }
    fn all(names: &mut Vec<usize>, hubs: usize, edges: &[(usize, usize)], best: &mut Option<Vec<(usize, usize)>>) {
        if names.len() == hubs {
            let candidate = named(edges, names);
            if best.as_ref().is_none_or(|best| candidate < *best) {
                *best = Some(candidate);
            }
            return;
        }
        for next in 0..hubs {
            if !names.contains(&next) {
                names.push(next);
                all(names, hubs, edges, best);
                names.pop();
            }
        }
    }
    let mut best = None;
    all(&mut Vec::new(), hubs, edges, &mut best);
    best.unwrap()
}

/// How many bridges lie between a hub and each that can be reached from it.
fn distances(hubs: usize, edges: &[(usize, usize)], from: usize) -> BTreeMap<usize, usize> {
    let mut found = BTreeMap::from([(from, 0)]);
    for distance in 1..hubs {
        for (a, b) in edges {
            for (near, far) in [(a, b), (b, a)] {
                if found.get(near) == Some(&(distance - 1)) && !found.contains_key(far) {
                    found.insert(*far, distance);
                }
            }
        }
    }
    found
}

type Answers = Vec<Result<Answer, CallFailure>>;

/// What was said, asked and heard.
struct Play {
    net: Net,
    graph: Graph,
    /// Who has heard which message how often, by the message's number.
    heard: BTreeMap<(u32, usize), usize>,
    said: u32,
    /// Members whose connection is away, or is not as it was.
    away: BTreeSet<usize>,
    /// What members were sent and had no use for.
    dropped: Vec<(usize, Dropped)>,
    /// The last that each member heard of each other.
    last: BTreeMap<(usize, String), u32>,
    /// How often each call has ended.
    ended: BTreeMap<u64, usize>,
    asked: u64,
    /// How those ended that ended since this was emptied.
    answers: Answers,
    provider: usize,
    /// The distances of the requests that came since this was emptied.
    hops: Vec<(usize, u8)>,
    seed: u64,
    random: u64,
}

impl Play {
    fn new(graph: &Graph, seed: u64) -> Self {
        let members: Vec<String> = (0..graph.0).map(|hub| format!("m{hub}")).collect();
        let clients: Vec<(&str, usize)> = members.iter().map(String::as_str).zip(0..).collect();
        let net = Net::new(seed, graph.0, &clients);
        let mut play = Self {
            net,
            graph: graph.clone(),
            heard: BTreeMap::new(),
            said: 0,
            away: BTreeSet::new(),
            dropped: Vec::new(),
            last: BTreeMap::new(),
            ended: BTreeMap::new(),
            asked: 0,
            answers: Vec::new(),
            provider: 0,
            hops: Vec::new(),
            seed,
            random: seed.wrapping_mul(0xd134_2543_de82_ef95) | 1,
        };
        play.provider = play.draw(graph.0);
        // Some are there before the bridges, some come after.
        let early = play.draw(graph.0 + 1);
        for member in 0..early {
            play.settle_in(member);
        }
        let mut order: Vec<usize> = (0..graph.1.len()).collect();
        for place in (1..order.len()).rev() {
            order.swap(place, play.draw(place + 1));
        }
        for _ in 0..graph.1.len() {
            play.net.bridges.push(None);
            play.net.bridge_events.push(Vec::new());
        }
        for edge in order {
            let (a, b) = graph.1[edge];
            let (a, b) = if play.draw(2) == 0 { (a, b) } else { (b, a) };
            play.net.start_bridge(edge, a, b, &Between::default());
            for _ in 0..play.draw(60) {
                play.net.step();
            }
        }
        for member in early..graph.0 {
            play.settle_in(member);
        }
        play.run();
        play
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below as u64) as usize
    }

    fn settle_in(&mut self, member: usize) {
        self.net.open(member, "news");
        self.net.listen(member, 7, "news", Some("up"));
        if member == self.provider {
            self.net.provide(member, 8, "news", "sum");
        }
    }

    fn say(&mut self, member: usize) {
        self.said += 1;
        let outgoing = self.outgoing("up", self.said);
        let command = Command::Broadcast { token: Token(1_000_000 + u64::from(self.said)), outgoing };
        self.net.feed_client(member, Input::Command(command));
    }

    /// To the provider, and to nobody else.
    fn send(&mut self, member: usize) {
        self.said += 1;
        let outgoing = self.outgoing("sum", self.said);
        let command = Command::Send { token: Token(1_000_000 + u64::from(self.said)), outgoing };
        self.net.feed_client(member, Input::Command(command));
    }

    /// Each of these asks the provider once: how that ended, and on how long a way each request came.
    fn ask_all(&mut self, members: &[usize]) -> (Answers, Vec<(usize, usize)>) {
        (self.answers, self.hops) = (Vec::new(), Vec::new());
        members.iter().for_each(|member| self.ask(*member));
        self.run();
        assert!(self.ended.values().all(|times| *times == 1), "{}", self.told());
        assert!(self.net.hubs.iter().flatten().all(|hub| hub.load().calls == 0), "{}", self.told());
        let mut hops: Vec<_> = self.hops.drain(..).map(|(from, hops)| (from, usize::from(hops))).collect();
        hops.sort_unstable();
        (std::mem::take(&mut self.answers), hops)
    }

    fn ask(&mut self, member: usize) {
        self.asked += 1;
        let (token, outgoing) = (Token(2_000_000 + self.asked), self.outgoing("sum", 0));
        self.ended.insert(token.0, 0);
        let command = Command::Call { token, outgoing, time_left: Duration::from_secs(20) };
        self.net.feed_client(member, Input::Command(command));
    }

    fn outgoing(&self, event: &str, number: u32) -> Outgoing {
        Outgoing {
            channel: name("news"),
            event: EventName::new(event).unwrap(),
            payload: Payload { bytes: Bytes::copy_from_slice(&number.to_be_bytes()), raw: true },
            metadata: Bytes::new(),
            idempotent: false,
            guarded: false,
            away: Away::Fail,
        }
    }

    /// Looks at what members were told, and answers requests.
    fn look(&mut self) {
        for member in 0..self.net.clients.len() {
            while let Some(event) = self.net.events[member].pop_front() {
                match event {
                    Event::Message(message) => {
                        let number = u32::from_be_bytes(message.message.payload.bytes[..].try_into().unwrap());
                        let before = self.heard.insert((number, member), 1);
                        assert_eq!(before, None, "{number} is heard twice by {member}: {}", self.told());
                        let last = self.last.insert((member, message.message.sender.to_string()), number);
                        assert!(last < Some(number), "{number} after {last:?} at {member}: {}", self.told());
                    }
                    Event::Request(request) => {
                        let from: usize = request.message.sender.client[1..].parse().unwrap();
                        self.hops.push((from, request.message.hops));
                        let payload = Payload { bytes: Bytes::new(), raw: true };
                        let command = Command::Answer { request: request.id, result: Ok(payload) };
                        self.net.feed_client(member, Input::Command(command));
                    }
                    Event::Answered { token, result } => {
                        let before = self.ended.insert(token.0, 1);
                        assert_eq!(before, Some(0), "{token:?} ends twice: {}", self.told());
                        self.answers.push(result);
                    }
                    Event::Dropped(why) => self.dropped.push((member, why)),
                    Event::Reconnect(ReconnectEvent::Lost { .. }) => {
                        self.away.insert(member);
                    }
                    Event::Reconnect(ReconnectEvent::Restored { .. }) => {
                        self.away.remove(&member);
                    }
                    Event::Reconnect(ReconnectEvent::Unrestored { what, why }) => {
                        panic!("{member}: {what:?} {why:?}: {}", self.told())
                    }
                    _ => {}
                }
            }
        }
    }

    fn told(&self) -> String {
        let hubs: Vec<_> = self.net.hubs.iter().flatten().map(|hub| (hub.load(), hub.counters())).collect();
        let bridges: Vec<_> =
            self.net.bridge_events.iter().map(|told| told.iter().rev().take(4).collect::<Vec<_>>()).collect();
        format!("graph {:?}, seed {}; {:?} dropped; {hubs:?} {bridges:#?}", self.graph, self.seed, self.dropped)
    }

    /// Everything that can happen without time passing; how many steps it took.
    fn run(&mut self) -> usize {
        let mut steps = 0;
        loop {
            self.look();
            if !self.net.step() {
                return steps;
            }
            steps += 1;
            assert!(steps < 100_000, "it does not end: {}", self.told());
        }
    }

    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_secs() {
            self.net.pass(Duration::from_secs(1));
            self.run();
        }
    }

    /// With all bridges up and nothing under way: everybody hears everybody once, the provider gets what is sent once, and
    /// calls go the shortest way. Nobody is brought anything that it has to drop.
    fn check_quiet(&mut self) {
        let all: Vec<usize> = (0..self.graph.0).collect();
        self.check_among(&all, &self.graph.1.clone());
    }

    /// The same of these hubs and bridges alone: what is not joined with them is out of reach.
    fn check_among(&mut self, members: &[usize], edges: &[(usize, usize)]) {
        let before = self.looped();
        self.dropped.clear();
        let first = self.said + 1;
        for _ in 0..2 {
            members.iter().for_each(|member| self.say(*member));
        }
        self.run();
        let hubs = self.graph.0;
        for number in first..=self.said {
            let by = members[(number - first) as usize % members.len()];
            let near = distances(hubs, edges, by);
            for member in members.iter().filter(|member| **member != by) {
                let times = self.heard.get(&(number, *member)).copied().unwrap_or(0);
                let wanted = usize::from(near.contains_key(member));
                assert_eq!(times, wanted, "{number} of {by} at {member}: {}", self.told());
            }
        }
        let mut shortest = distances(hubs, edges, self.provider);
        shortest.retain(|hub, _| members.contains(hub) && members.contains(&self.provider));
        let first = self.said + 1;
        members.iter().for_each(|member| self.send(*member));
        self.run();
        for (number, by) in (first..).zip(members) {
            let got: Vec<_> =
                self.heard.range((number, 0)..(number + 1, 0)).map(|((_, at), times)| (*at, *times)).collect();
            let wanted = shortest.contains_key(by).then_some((self.provider, 1));
            assert_eq!(got, Vec::from_iter(wanted), "{number} sent by {by}: {}", self.told());
        }
        let crossed = self.net.crossed;
        let (answers, hops) = self.ask_all(members);
        let wanted: Vec<_> = shortest.iter().map(|(hub, bridges)| (*hub, *bridges + 1)).collect();
        assert_eq!(hops, wanted, "the shortest ways: {}", self.told());
        assert_eq!(
            answers.iter().filter(|answer| answer.is_ok()).count(),
            wanted.len(),
            "{answers:?}: {}",
            self.told()
        );
        let lost = answers.iter().filter(|answer| is_refused(answer)).count();
        assert_eq!(lost, members.len() - wanted.len(), "{answers:?}: {}", self.told());
        if wanted.is_empty() {
            assert_eq!(self.net.crossed, crossed, "a hub asks where nobody is: {}", self.told());
        }
        assert_eq!(self.looped(), before, "something went in circles: {}", self.told());
        assert_eq!(self.dropped, [], "somebody got what it had got before: {}", self.told());
    }

    fn looped(&self) -> u64 {
        self.net.hubs.iter().flatten().map(|hub| hub.counters().looped).sum()
    }

    /// Things go wrong while others are said and asked.
    fn storm(&mut self, length: usize) {
        for _ in 0..length {
            let (hub, edge) = (self.draw(self.graph.0), self.draw(self.graph.1.len()));
            let side = if self.draw(2) == 0 { Side::A } else { Side::B };
            match self.draw(14) {
                0..=3 => self.say(hub),
                4..=6 => self.ask(hub),
                7 => self.net.cut(edge, side),
                8 if self.net.bridges[edge].is_some() => self.net.kill_bridge(edge),
                8 => self.start_bridge(edge),
                9 if self.net.hubs[hub].is_some() => self.net.kill_hub(hub),
                9 | 10 if self.net.hubs[hub].is_none() => self.net.start_hub(hub),
                11 if self.net.held.is_empty() => self.net.held.push(Node::Bridge(edge)),
                11 => self.net.held.clear(),
                12 => self.net.pass(Duration::from_millis(300)),
                _ => {}
            }
            for _ in 0..self.draw(40) {
                self.net.step();
                self.look();
            }
        }
    }

    fn start_bridge(&mut self, edge: usize) {
        let (a, b) = self.graph.1[edge];
        self.net.start_bridge(edge, a, b, &Between::default());
    }

    /// Everything is there again, and has the time to find each other.
    fn heal(&mut self) {
        self.net.held.clear();
        for hub in 0..self.graph.0 {
            if self.net.hubs[hub].is_none() {
                self.net.start_hub(hub);
            }
        }
        for edge in 0..self.graph.1.len() {
            if self.net.bridges[edge].is_none() {
                self.start_bridge(edge);
            }
        }
        // The longest wait before a connection is tried again.
        self.pass(Duration::from_secs(61));
        assert!((0..self.graph.1.len()).all(|edge| self.net.is_bridged(edge)), "{}", self.told());
        assert!(self.away.is_empty(), "{:?} are away: {}", self.away, self.told());
    }

    /// A path vector tries, at worst, every path that was known: each hub tells each bridge of fewer than one for each other
    /// hub, and each telling moves twice. So many steps at most for a change of one thing; a few more are the asker's own.
    const fn bound(&self) -> usize {
        8 + 4 * self.graph.1.len() * self.graph.0 * self.graph.0
    }

    /// What goes is gone everywhere, and soon: nothing circles while the word spreads, and no hub sends a call on a way that
    /// is no more.
    fn check_gone(&mut self) {
        let all: Vec<usize> = (0..self.graph.0).collect();
        let withdraw = Command::Withdraw { token: Token(3), provider: Token(8) };
        self.net.feed_client(self.provider, Input::Command(withdraw));
        let steps = self.run();
        assert!(steps <= self.bound(), "{steps} steps: {}", self.told());
        let before = self.net.crossed;
        let (answers, hops) = self.ask_all(&all);
        assert_eq!(hops, [], "{}", self.told());
        assert!(answers.len() == all.len() && answers.iter().all(is_refused), "{answers:?}: {}", self.told());
        assert_eq!(self.net.crossed, before, "a call goes on a way that is no more: {}", self.told());
        for member in &all {
            let unlisten = Command::Unlisten { token: Token(4), listener: Token(7) };
            self.net.feed_client(*member, Input::Command(unlisten));
        }
        self.run();
        let before = self.net.crossed;
        all.iter().for_each(|member| self.say(*member));
        self.run();
        assert_eq!(self.net.crossed, before, "it goes where nobody listens: {}", self.told());
    }

    /// What comes is known everywhere as soon, on the shortest ways.
    fn check_comes(&mut self) {
        let all: Vec<usize> = (0..self.graph.0).collect();
        self.provider = self.draw(self.graph.0);
        let (channel, event) = (name("news"), EventName::new("sum").unwrap());
        let provide = Command::Provide { token: Token(8), channel, event, kind: EventKind::Call };
        self.net.feed_client(self.provider, Input::Command(provide));
        let steps = self.run();
        assert!(steps <= self.bound(), "{steps} steps: {}", self.told());
        all.iter().for_each(|member| self.net.listen(*member, 7, "news", Some("up")));
        self.check_quiet();
    }

    /// Everybody leaves, or is gone: no hub knows of anybody elsewhere, nor has told of anybody here.
    fn check_left(&mut self) {
        for member in 0..self.graph.0 {
            let leave = Command::Leave { token: Token(5), channel: name("news") };
            let command = if self.draw(2) == 0 { leave } else { Command::Close };
            self.net.feed_client(member, Input::Command(command));
        }
        self.run();
        for hub in self.net.hubs.iter().flatten() {
            assert_eq!(hub.load().announced, 0, "{}", self.told());
        }
    }
}

/// Whether a call ended because nobody leads to a provider.
fn is_refused(answer: &Result<Answer, CallFailure>) -> bool {
    let nobody = Failure::Refused(Refusal::NoProvider);
    matches!(answer, Err(CallFailure::Failed { failure, maybe_executed: false }) if *failure == nobody)
}

/// How often each graph is played.
fn seeds() -> u64 {
    std::env::var("COMMIPC_GRAPH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2)
}

#[test]
fn all_connected_graphs_of_up_to_five_hubs_are_known() {
    let mut sizes = BTreeMap::<usize, usize>::new();
    for (hubs, _) in graphs(5) {
        *sizes.entry(hubs).or_default() += 1;
    }
    assert_eq!(sizes, BTreeMap::from([(2, 1), (3, 2), (4, 6), (5, 21)]));
}

#[test]
fn s78_d15_v31_v34_on_every_graph_messages_come_once_and_go_the_shortest_way() {
    for graph in graphs(5) {
        for seed in 1..=seeds() {
            let mut play = Play::new(&graph, seed);
            play.check_quiet();
            play.check_gone();
            play.check_comes();
            play.check_left();
        }
    }
}

#[test]
fn s78_d15_d16_v31_v34_whatever_breaks_on_any_graph_nothing_comes_twice_and_all_heals() {
    let (mut worlds, mut crossed, mut dead) = (0, 0, 0);
    for graph in graphs(5) {
        for seed in 1..=seeds() {
            let mut play = Play::new(&graph, seed);
            let before = play.net.crossed;
            play.storm(60);
            worlds += 1;
            crossed += play.net.crossed - before;
            dead += play.net.hubs.iter().filter(|hub| hub.is_none()).count();
            play.heal();
            play.check_quiet();
            play.check_gone();
            play.check_comes();
            play.check_left();
        }
    }
    // Otherwise nothing was shown.
    assert!(
        crossed > 5 * worlds && 4 * dead > worlds,
        "in {worlds} worlds {crossed} crossed and {dead} hubs were dead"
    );
}

/// Every bridge of every graph comes last to what has settled. What a hub says of many things at once moves at once, so all
/// take no more steps than one.
#[test]
fn s75_d15_whichever_bridge_comes_last_all_ways_are_the_shortest_within_a_bound_of_steps() {
    /// Both sides prove themselves, and say twice what is behind the other.
    const HANDSHAKES: usize = 24;
    for graph in graphs(5) {
        let mut play = Play::new(&graph, 1);
        for edge in 0..graph.1.len() {
            play.net.kill_bridge(edge);
            let steps = play.run();
            assert!(steps <= play.bound(), "{steps} steps after a cut: {}", play.told());
            let mut edges = graph.1.clone();
            edges.remove(edge);
            let all: Vec<usize> = (0..graph.0).collect();
            play.check_among(&all, &edges);
            play.start_bridge(edge);
            let steps = play.run();
            assert!(steps <= HANDSHAKES + play.bound(), "{steps} steps: {}", play.told());
            assert!(play.net.is_bridged(edge), "{}", play.told());
            play.check_quiet();
        }
    }
}

#[test]
fn d16_v34_nothing_leads_to_a_hub_that_stays_dead_and_it_is_found_again_when_it_comes_back() {
    for graph in graphs(5) {
        for (seed, dead) in (1..).zip((0..graph.0).flat_map(|hub| [hub, hub])) {
            let mut play = Play::new(&graph, seed);
            play.net.kill_hub(dead);
            play.pass(Duration::from_secs(5));
            let living: Vec<usize> = (0..graph.0).filter(|hub| *hub != dead).collect();
            let edges: Vec<_> = graph.1.iter().filter(|(a, b)| *a != dead && *b != dead).copied().collect();
            play.check_among(&living, &edges);
            if seed % 2 == 0 {
                play.check_left();
            } else {
                play.heal();
                play.check_quiet();
            }
        }
    }
}
