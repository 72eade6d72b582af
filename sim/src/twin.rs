//! A machine beside its twin: both get the same, but what one reads at once the other reads in pieces. They must say
//! the same, or the chunking of a stream shows.

use std::collections::BTreeMap;

use bytes::Bytes;
use commipc_protocol::{Deadline, Flush, Input, Instant, LinkId, Machine, Now, Output};

use crate::canon::Canon;

/// A machine, and perhaps its twin.
#[derive(Debug)]
pub struct Twins<M: Machine> {
    shown: M,
    other: Option<Other<M>>,
}

#[derive(Debug)]
struct Other<M> {
    machine: M,
    /// What the shown machine has said since both were last drained.
    said: Said,
    now: Instant,
    differs: Option<String>,
}

/// What a machine says between two moments in which nothing is left to say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    events: Vec<u8>,
    /// The bytes of each link and its end; between links there is no order.
    links: BTreeMap<LinkId, Vec<u8>>,
}

/// The first bytes of a read come one by one, for heads and lengths; the rest in pieces.
const SINGLE: usize = 48;
const PIECE: usize = 61;

impl<M: Machine> Twins<M> {
    /// A machine without a twin.
    pub const fn single(machine: M) -> Self {
        Self { shown: machine, other: None }
    }

    /// Two machines, which must be the same.
    pub fn of(shown: M, machine: M) -> Self {
        Self { shown, other: Some(Other { machine, said: Said::default(), now: Instant::ZERO, differs: None }) }
    }

    /// The one that is seen.
    pub const fn shown(&self) -> &M {
        &self.shown
    }

    /// Where the twin said something else for the first time.
    pub fn differs(&self) -> Option<&str> {
        self.other.as_ref()?.differs.as_deref()
    }
}

impl<M: Machine<Command: Clone, Event: Canon>> Machine for Twins<M> {
    type Command = M::Command;
    type Event = M::Event;

    fn handle_input(&mut self, now: Now, input: Input<M::Command>) {
        if let Some(other) = &mut self.other {
            other.now = now.mono;
            match &input {
                Input::Received { link, data } => {
                    let link = *link;
                    pieces(data).for_each(|data| other.machine.handle_input(now, Input::Received { link, data }));
                }
                Input::Accepted { .. }
                | Input::Dialled { .. }
                | Input::Written { .. }
                | Input::Closed { .. }
                | Input::Shortage
                | Input::Command(_)
                | Input::Timeout => other.machine.handle_input(now, input.clone()),
            }
        }
        self.shown.handle_input(now, input);
    }

    fn poll_output(&mut self) -> Option<Output<M::Event>> {
        let output = self.shown.poll_output();
        if let Some(other) = &mut self.other {
            match &output {
                Some(output) => other.said.add(output),
                None => other.compare(),
            }
        }
        output
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.shown.poll_timeout()
    }
}

fn pieces(data: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = data.clone();
    let single = rest.len().saturating_sub(SINGLE);
    std::iter::from_fn(move || {
        let width = if rest.len() > single { 1 } else { PIECE.min(rest.len()) };
        (!rest.is_empty()).then(|| rest.split_to(width))
    })
}

impl<M: Machine<Event: Canon>> Other<M> {
    fn compare(&mut self) {
        let mut said = Said::default();
        while let Some(output) = self.machine.poll_output() {
            said.add(&output);
        }
        let shown = std::mem::take(&mut self.said);
        if self.differs.is_none() && said != shown {
            let lengths = |said: &Said| (said.events.len(), said.links.values().map(Vec::len).sum::<usize>());
            let (now, whole, cut) = (self.now.as_nanos(), lengths(&shown), lengths(&said));
            self.differs = Some(format!(
                "at {now} ns of its clock it says {whole:?} bytes of events and to links, its twin, which reads in pieces, {cut:?}"
            ));
        }
    }
}

impl Said {
    fn add<E: Canon>(&mut self, output: &Output<E>) {
        match output {
            Output::Transmit { link, data } => self.links.entry(*link).or_default().extend_from_slice(data),
            Output::Close { link, flush } => {
                // Longer than any mistake it could be taken for.
                let end =
                    if *flush != Flush::Nothing { "<closed after the rest>" } else { "<closed without the rest>" };
                self.links.entry(*link).or_default().extend_from_slice(end.as_bytes());
            }
            Output::Dial { .. } | Output::Event(_) => output.canon(&mut self.events),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commipc_protocol::UnixMillis;

    /// Tells how many bytes it has read; the flawed one how many of the last read.
    #[derive(Default)]
    struct Counter {
        read: usize,
        flawed: bool,
        told: bool,
    }

    impl Canon for usize {
        fn canon(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.to_le_bytes());
        }
    }

    impl Machine for Counter {
        type Command = ();
        type Event = usize;

        fn handle_input(&mut self, _: Now, input: Input<()>) {
            let Input::Received { data, .. } = input else { return };
            self.read = if self.flawed { data.len() } else { self.read + data.len() };
            self.told = false;
        }

        fn poll_output(&mut self) -> Option<Output<usize>> {
            (!std::mem::replace(&mut self.told, true)).then(|| Output::Event(self.read))
        }

        fn poll_timeout(&self) -> Option<Deadline> {
            None
        }
    }

    fn read_twice(flawed: bool) -> Option<String> {
        let counter = || Counter { flawed, ..Counter::default() };
        let mut twins = Twins::of(counter(), counter());
        let now = Now { mono: Instant::from_nanos(7), wall: UnixMillis(0) };
        for length in [1, 300] {
            let data = vec![0; length].into();
            twins.handle_input(now, Input::Received { link: LinkId::accepted(0, 1), data });
            while twins.poll_output().is_some() {}
        }
        twins.differs().map(str::to_owned)
    }

    #[test]
    fn a_machine_that_counts_reads_instead_of_bytes_is_found() {
        assert_eq!(read_twice(false), None);
        assert!(read_twice(true).is_some_and(|text| text.contains("at 7 ns")));
    }

    #[test]
    fn pieces_are_all_of_it() {
        for length in [0, 1, 48, 49, 500] {
            let data: Bytes = (0..length).map(|n| n as u8).collect::<Vec<u8>>().into();
            let parts: Vec<Bytes> = pieces(&data).collect();
            assert_eq!(parts.concat(), data);
            assert!(length < 2 || parts.len() > 1);
        }
    }
}
