//! One connection between two machines: two pipes, each with a speed, a length, a buffer and an end.
//!
//! ```text
//!   Transmit ─► unwritten ─(room in the buffer: Written)─► flight ─(time, chunks: Received)─► reader
//! ```

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};
use commipc_protocol::{Instant, LinkEnd, LinkId, Peer};
use core::time::Duration;

use crate::decisions::Chooser;
use crate::weather::{Chunks, Weather};

/// Both directions and both ends of a connection. Side 0 dialled, side 1 accepted; pipe `i` flows away from side `i`.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) ends: [End; 2],
    pub(crate) pipes: [Pipe; 2],
    pub(crate) broken: bool,
    /// Somebody is on its path.
    pub(crate) attacked: bool,
    /// What each end's driver knows of the other.
    pub(crate) peer: Peer,
}

/// Where a connection meets a machine.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) link: LinkId,
    /// The machine was told of the link.
    pub(crate) standing: bool,
    /// Neither the machine nor the wire has ended it.
    pub(crate) open: bool,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Pipe {
    nature: Nature,
    unwritten: VecDeque<Bytes>,
    flight: BytesMut,
    segments: VecDeque<(Instant, usize)>,
    /// Since when the line is free, and until when what was written last is on its way.
    free_at: Instant,
    last_arrival: Instant,
    delivered: u64,
    /// Written and not told to the writer yet.
    pub(crate) untold: usize,
    /// A happening that tells the writer, or the reader, is planned.
    pub(crate) telling: bool,
    pub(crate) arriving: bool,
    /// The writer is done: what comes after the last byte.
    end: Option<LinkEnd>,
    closing: bool,
    /// What is written vanishes: nobody reads.
    pub(crate) hole: bool,
}

/// What one direction of one connection is like.
#[derive(Clone, Debug)]
pub(crate) struct Nature {
    pub(crate) latency: u64,
    pub(crate) jitter: u64,
    pub(crate) ns_per_kib: u64,
    pub(crate) buffer: usize,
    pub(crate) chunks: Chunks,
    /// After how many delivered bytes the connection breaks.
    pub(crate) cut_at: Option<u64>,
    pub(crate) grain: u64,
}

/// What the reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Nothing yet.
    Nothing,
    Bytes(Bytes),
    /// The writer's end, after its last byte.
    End(LinkEnd),
    /// The wire broke here.
    Cut,
}

impl Nature {
    pub(crate) fn drawn(weather: &Weather, mut choose: Chooser<'_>) -> Self {
        let (slow, fast) = weather.ns_per_kib;
        let buffer = choose.log_uniform(weather.buffer.0, weather.buffer.1);
        let latency = choose.log_uniform(weather.latency.0, weather.latency.1);
        let ns_per_kib = choose.log_uniform(slow, fast);
        let cut_at = choose.chance(weather.cut, 2_000).then(|| choose.log_uniform(1, weather.cut_within.max(1)) - 1);
        Self {
            latency: weather.coarse(latency),
            jitter: weather.jitter,
            ns_per_kib,
            buffer: usize::try_from(buffer.max(1)).unwrap_or(usize::MAX),
            chunks: Chunks::drawn(weather, choose),
            cut_at,
            grain: weather.grain.max(1),
        }
    }
}

impl Pipe {
    pub(crate) fn new(nature: Nature) -> Self {
        Self {
            nature,
            unwritten: VecDeque::new(),
            flight: BytesMut::new(),
            segments: VecDeque::new(),
            free_at: Instant::ZERO,
            last_arrival: Instant::ZERO,
            delivered: 0,
            untold: 0,
            telling: false,
            arriving: false,
            end: None,
            closing: false,
            hole: false,
        }
    }

    /// Lets it never break by itself from now on.
    pub(crate) const fn heal(&mut self) {
        self.nature.cut_at = None;
    }

    /// Takes what the machine transmits.
    pub(crate) fn transmit(&mut self, data: Bytes) {
        self.unwritten.push_back(data);
    }

    /// Writes what the buffer takes.
    pub(crate) fn pump(&mut self, now: Instant, mut choose: Chooser<'_>) {
        let mut written = 0;
        let mut room = self.nature.buffer.saturating_sub(self.flight.len());
        while let Some(front) = self.unwritten.front_mut() {
            let taken = front.len().min(room);
            if taken == 0 && !front.is_empty() {
                break;
            }
            self.flight.extend_from_slice(front.get(..taken).unwrap_or_default());
            front.advance(taken);
            (room, written) = (room - taken, written + taken);
            if front.is_empty() {
                self.unwritten.pop_front();
            }
        }
        if written > 0 {
            self.untold += written;
            let jitter = choose.below(self.nature.jitter / self.nature.grain + 1) * self.nature.grain;
            self.depart(now, written, jitter);
        }
        if self.closing && self.unwritten.is_empty() && self.end.is_none() {
            self.end = Some(LinkEnd::Eof);
        }
    }

    fn depart(&mut self, now: Instant, written: usize, jitter: u64) {
        let line = (written as u64).saturating_mul(self.nature.ns_per_kib) / 1_024;
        let line = line.div_ceil(self.nature.grain) * self.nature.grain;
        self.free_at = self.free_at.max(now) + Duration::from_nanos(line);
        let arrival = self.free_at + Duration::from_nanos(self.nature.latency.saturating_add(jitter));
        self.last_arrival = self.last_arrival.max(arrival);
        self.segments.push_back((self.last_arrival, written));
    }

    /// When there is something for the reader.
    pub(crate) fn next_arrival(&self, now: Instant) -> Option<Instant> {
        if self.hole {
            return None;
        }
        let end = || self.end.map(|_| now.max(self.last_arrival));
        self.segments.front().map(|(at, _)| *at).or_else(end)
    }

    /// How much the writer may write before the reader has read.
    pub(crate) fn room(&self) -> usize {
        if self.hole { usize::MAX } else { self.nature.buffer.saturating_sub(self.flight.len()) }
    }

    /// What the reader gets now, however much it is.
    pub(crate) fn arrive(&mut self, now: Instant, choose: Chooser<'_>) -> Arrival {
        self.arrive_within(usize::MAX, now, choose)
    }

    /// What a reader with room for so many bytes, not zero, gets now.
    pub(crate) fn arrive_within(&mut self, room: usize, now: Instant, choose: Chooser<'_>) -> Arrival {
        let due: usize = self.segments.iter().take_while(|(at, _)| *at <= now).map(|(_, length)| length).sum();
        let before_cut = self.nature.cut_at.map_or(u64::MAX, |cut| cut.saturating_sub(self.delivered));
        if before_cut == 0 {
            return Arrival::Cut;
        }
        if due == 0 {
            return match self.end {
                Some(how) if self.segments.is_empty() => Arrival::End(how),
                Some(_) | None => Arrival::Nothing,
            };
        }
        let length = self.nature.chunks.next(self.delivered, due, choose);
        let length = length.min(usize::try_from(before_cut).unwrap_or(usize::MAX)).min(room);
        self.delivered += length as u64;
        self.forget(length);
        Arrival::Bytes(self.flight.split_to(length).freeze())
    }

    fn forget(&mut self, mut length: usize) {
        while let Some((_, front)) = self.segments.front_mut() {
            if *front > length {
                *front -= length;
                return;
            }
            length -= *front;
            self.segments.pop_front();
        }
    }

    /// The writer's machine closed the link. With `flush` what is unwritten still goes out.
    pub(crate) fn close(&mut self, flush: bool, how: LinkEnd) {
        if flush && how == LinkEnd::Eof && !self.hole {
            self.closing = true;
            return;
        }
        self.unwritten.clear();
        self.end = Some(how);
        if how == LinkEnd::Reset {
            self.flight.clear();
            self.segments.clear();
        }
    }

    /// Nothing arrives before this; what is on its way waits.
    pub(crate) fn waits(&mut self, until: Instant) {
        self.last_arrival = self.last_arrival.max(until);
        self.segments.iter_mut().for_each(|(at, _)| *at = (*at).max(until));
    }

    /// Nobody reads any more.
    pub(crate) fn leads_nowhere(&mut self) {
        self.hole = true;
        self.segments.clear();
        if self.closing {
            // Its writer has let go: what is unwritten would never be asked for again.
            self.unwritten.clear();
        }
    }

    /// Frees what nobody will ask for again.
    pub(crate) fn clear(&mut self) {
        self.leads_nowhere();
        self.unwritten = VecDeque::new();
        self.flight = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::Decisions;

    fn pipe(buffer: usize, chunks: Chunks, cut_at: Option<u64>) -> Pipe {
        Pipe::new(Nature { latency: 10, jitter: 0, ns_per_kib: 1_024, buffer, chunks, cut_at, grain: 1 })
    }

    fn read_all(pipe: &mut Pipe, seed: u64) -> (Vec<Vec<u8>>, Arrival) {
        let mut decisions = Decisions::seeded(seed);
        let stream = decisions.stream("net");
        let mut read = Vec::new();
        let mut now = Instant::ZERO;
        loop {
            pipe.pump(now, decisions.on(stream));
            let Some(at) = pipe.next_arrival(now) else { return (read, Arrival::Nothing) };
            now = now.max(at);
            match pipe.arrive(now, decisions.on(stream)) {
                Arrival::Bytes(bytes) => read.push(bytes.to_vec()),
                other @ (Arrival::Nothing | Arrival::End(_) | Arrival::Cut) => return (read, other),
            }
        }
    }

    #[test]
    fn bytes_arrive_in_order_however_they_are_cut() {
        let said: Vec<u8> = (0..=255).collect();
        let window = Chunks::Shattered { from: 3, to: 9 };
        for chunks in [Chunks::Whole, Chunks::Halves, Chunks::Pieces(3), window] {
            for seed in 0..20 {
                let mut pipe = pipe(64, chunks, None);
                pipe.transmit(said.clone().into());
                pipe.close(true, LinkEnd::Eof);
                let (read, end) = read_all(&mut pipe, seed);
                assert_eq!((read.concat(), end), (said.clone(), Arrival::End(LinkEnd::Eof)));
                let single = read.iter().filter(|read| read.len() == 1).count();
                assert!(chunks != window || single >= 6, "{read:?}");
            }
        }
    }

    #[test]
    fn a_cut_falls_on_its_byte() {
        for cut in 0..20 {
            let mut pipe = pipe(1 << 10, Chunks::Halves, Some(cut));
            pipe.transmit(Bytes::from_static(&[7; 20]));
            let (read, end) = read_all(&mut pipe, cut);
            assert_eq!((read.concat().len() as u64, end), (cut, Arrival::Cut));
        }
    }

    #[test]
    fn what_waits_arrives_afterwards_in_order_and_so_does_the_end() {
        let mut decisions = Decisions::seeded(1);
        let stream = decisions.stream("net");
        let mut pipe = pipe(100, Chunks::Whole, None);
        pipe.transmit(Bytes::from_static(b"one"));
        pipe.pump(Instant::ZERO, decisions.on(stream));
        pipe.waits(Instant::from_nanos(5_000));
        assert_eq!(pipe.next_arrival(Instant::ZERO), Some(Instant::from_nanos(5_000)));
        assert_eq!(pipe.arrive(Instant::from_nanos(4_999), decisions.on(stream)), Arrival::Nothing);
        pipe.transmit(Bytes::from_static(b"two"));
        pipe.close(true, LinkEnd::Eof);
        pipe.pump(Instant::from_nanos(100), decisions.on(stream));
        let (read, end) = read_all(&mut pipe, 1);
        assert_eq!((read.concat(), end), (b"onetwo".to_vec(), Arrival::End(LinkEnd::Eof)));
    }

    #[test]
    fn bytes_take_their_time_and_the_buffer_holds_the_writer_back() {
        let mut decisions = Decisions::seeded(1);
        let stream = decisions.stream("net");
        let mut pipe = pipe(100, Chunks::Whole, None);
        pipe.transmit(Bytes::from_static(&[7; 150]));
        pipe.pump(Instant::ZERO, decisions.on(stream));
        assert_eq!(pipe.untold, 100);
        assert_eq!(pipe.next_arrival(Instant::ZERO), Some(Instant::from_nanos(110)));
        assert_eq!(pipe.arrive(Instant::from_nanos(109), decisions.on(stream)), Arrival::Nothing);
        assert!(
            matches!(pipe.arrive(Instant::from_nanos(110), decisions.on(stream)), Arrival::Bytes(read) if read.len() == 100)
        );
        pipe.pump(Instant::from_nanos(110), decisions.on(stream));
        assert_eq!((pipe.untold, pipe.next_arrival(Instant::ZERO)), (150, Some(Instant::from_nanos(170))));
    }
}
