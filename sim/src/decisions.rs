//! Everything a run decides, behind one interface: from a seed, from a recorded list, or from the bytes of a fuzzer.
//!
//! ```text
//!   seed ──► one ChaCha stream a name ─┐
//!   recorded list, a stream a name ────┼──► below(n) ──► the run, and the record of the run
//!   bytes in the order of asking ──────┘
//! ```
//!
//! Every decision is `below(n)`, and 0 is always the dullest choice: so an exhausted list makes a run end soon, and
//! lowering choices makes a failure plainer. A question with one possible answer is not asked, so it is not recorded.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// A named sequence of decisions. Draws in one do not shift those in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stream(u32);

/// The source of all decisions of one run, and their record.
#[derive(Debug)]
pub struct Decisions {
    source: Source,
    streams: Vec<Named>,
}

#[derive(Debug)]
enum Source {
    Seed([u8; 32]),
    List(BTreeMap<String, Vec<u64>>),
    Bytes { bytes: Vec<u8>, at: usize },
}

#[derive(Debug)]
struct Named {
    name: String,
    feed: Feed,
    taken: Vec<u64>,
    /// Where each piece of work begins.
    pieces: Vec<usize>,
}

#[derive(Debug)]
enum Feed {
    Generator(Box<ChaCha8Rng>),
    List(std::vec::IntoIter<u64>),
    /// From the bytes that all streams share.
    Shared,
}

impl Decisions {
    /// Decisions that follow from a seed alone.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let key = Sha256::new().chain_update(b"commipc-sim seed").chain_update(seed.to_le_bytes()).finalize();
        Self::from_source(Source::Seed(key.into()))
    }

    /// Decisions read from a record, stream by stream; 0 where the record has ended.
    #[must_use]
    pub fn replaying(choices: Choices) -> Self {
        Self::from_source(Source::List(choices.0))
    }

    /// Decisions read from any bytes in the order of asking, so that a fuzzer can steer; 0 when they are used up.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::from_source(Source::Bytes { bytes: bytes.to_vec(), at: 0 })
    }

    const fn from_source(source: Source) -> Self {
        Self { source, streams: Vec::new() }
    }

    /// The stream of this name.
    pub fn stream(&mut self, name: &str) -> Stream {
        let known = self.streams.iter().position(|stream| stream.name == name);
        let index = known.unwrap_or_else(|| {
            let feed = self.source.feed(name);
            self.streams.push(Named { name: name.to_owned(), feed, taken: Vec::new(), pieces: Vec::new() });
            self.streams.len() - 1
        });
        Stream(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The next decisions are taken from this stream.
    pub const fn on(&mut self, stream: Stream) -> Chooser<'_> {
        Chooser { decisions: self, stream }
    }

    /// A piece of work begins that could be left out, with all that it decides in this stream. Whether it does: a list
    /// that has ended ends the work, and so does a 0 in it.
    pub fn begin(&mut self, stream: Stream) -> bool {
        self.piece(stream);
        let Some(named) = self.streams.get_mut(stream.0 as usize) else { return false };
        let choice = match &mut named.feed {
            Feed::Generator(_) => 1,
            Feed::List(choices) => choices.next().unwrap_or(0).min(1),
            Feed::Shared => u64::from(self.source.is_left()),
        };
        named.taken.push(choice);
        choice > 0
    }

    /// What is decided in this stream from here on belongs together.
    pub fn piece(&mut self, stream: Stream) {
        if let Some(named) = self.streams.get_mut(stream.0 as usize)
            && named.pieces.last() != Some(&named.taken.len())
        {
            named.pieces.push(named.taken.len());
        }
    }

    /// One decision: a number below `n`.
    pub fn below(&mut self, stream: Stream, n: u64) -> u64 {
        if n <= 1 {
            return 0;
        }
        let Some(named) = self.streams.get_mut(stream.0 as usize) else { return 0 };
        let choice = match &mut named.feed {
            // The product's upper half: the bias is below n / 2⁶⁴.
            Feed::Generator(rng) => ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u64,
            Feed::List(choices) => choices.next().unwrap_or(0).min(n - 1),
            Feed::Shared => self.source.next_below(n),
        };
        named.taken.push(choice);
        choice
    }

    /// What was decided so far. A list without its last zeros decides the same.
    #[must_use]
    pub fn record(&self) -> Choices {
        let mut choices = Choices::default();
        for Named { name, taken, .. } in &self.streams {
            if let Some(last) = taken.iter().rposition(|choice| *choice > 0) {
                *choices.stream_mut(name) = taken.get(..=last).unwrap_or_default().to_vec();
            }
        }
        choices
    }

    /// Of each stream, where its pieces of work begin.
    pub(crate) fn pieces(&self) -> BTreeMap<String, Vec<usize>> {
        self.streams.iter().map(|stream| (stream.name.clone(), stream.pieces.clone())).collect()
    }

    /// How many decisions were taken so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.streams.iter().map(|stream| stream.taken.len()).sum()
    }
}

impl Source {
    fn feed(&mut self, name: &str) -> Feed {
        match self {
            Self::Seed(key) => {
                let mut rng = ChaCha8Rng::from_seed(*key);
                rng.set_stream(number_of(name));
                Feed::Generator(Box::new(rng))
            }
            Self::List(lists) => Feed::List(lists.remove(name).unwrap_or_default().into_iter()),
            Self::Bytes { .. } => Feed::Shared,
        }
    }

    const fn is_left(&self) -> bool {
        matches!(self, Self::Bytes { bytes, at } if *at < bytes.len())
    }

    fn next_below(&mut self, n: u64) -> u64 {
        let Self::Bytes { bytes, at } = self else { return 0 };
        let width = (64 - (n - 1).leading_zeros()).div_ceil(8) as usize;
        let mut word = [0; 8];
        let rest = bytes.get(*at..).unwrap_or_default();
        for (to, from) in word.iter_mut().zip(rest.iter().take(width)) {
            *to = *from;
        }
        *at = at.saturating_add(width);
        u64::from_le_bytes(word) % n
    }
}

/// A stream's number follows from its name, so that the order in which streams are opened does not matter.
fn number_of(name: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(name).into();
    let (head, _) = digest.split_at(8);
    head.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Takes decisions from one stream.
#[derive(Debug)]
pub struct Chooser<'a> {
    decisions: &'a mut Decisions,
    stream: Stream,
}

impl Chooser<'_> {
    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.decisions.below(self.stream, n)
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of a list; `None` when there is none.
    pub fn pick<'t, T>(&mut self, list: &'t [T]) -> Option<&'t T> {
        let index = self.index(list.len());
        list.get(index)
    }

    /// Yes in `yes` of `of` cases.
    pub fn chance(&mut self, yes: u64, of: u64) -> bool {
        // From the top, so that choice 0 means no unless the answer is always yes.
        yes >= of || (yes > 0 && self.below(of) >= of - yes)
    }

    /// A number from `low` to `high`, both possible, each power of two as likely as the next.
    pub fn log_uniform(&mut self, low: u64, high: u64) -> u64 {
        let (first, last) = (bits(low), bits(high));
        let width = first + self.below(u64::from(last.saturating_sub(first)) + 1) as u32;
        let (from, to) = (smallest(width).max(low), largest(width).min(high));
        from + self.below(to.saturating_sub(from).saturating_add(1))
    }

    /// The index of one weight, as likely as the weight says; `None` when all are zero.
    pub fn weighted(&mut self, weights: &[u64]) -> Option<usize> {
        let total: u64 = weights.iter().sum();
        let mut left = self.below(total);
        weights.iter().position(|weight| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit
        })
    }

    /// 32 bytes for a machine's seed: one choice, stretched, so that a list of choices stays short.
    pub fn seed(&mut self) -> [u8; 32] {
        let choice = self.below(1 << 32);
        let name = self.decisions.streams.get(self.stream.0 as usize).map_or("", |stream| stream.name.as_str());
        Sha256::new().chain_update(name).chain_update(choice.to_le_bytes()).finalize().into()
    }
}

const fn bits(number: u64) -> u32 {
    64 - number.leading_zeros()
}

const fn smallest(bits: u32) -> u64 {
    if bits == 0 { 0 } else { 1 << (bits - 1) }
}

const fn largest(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// A recorded run: what was decided, stream by stream. Its text form is fit for a file and for editing by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices(BTreeMap<String, Vec<u64>>);

impl Choices {
    /// The names of the streams and what was decided in each.
    pub fn streams(&self) -> impl Iterator<Item = (&str, &[u64])> {
        self.0.iter().map(|(name, taken)| (name.as_str(), taken.as_slice()))
    }

    /// What was decided in one stream, to be changed; made when absent.
    pub fn stream_mut(&mut self, name: &str) -> &mut Vec<u64> {
        self.0.entry(name.to_owned()).or_default()
    }

    /// How many decisions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Leaves a stream out.
    pub fn drop_stream(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Whether nothing was decided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, taken) in &self.0 {
            write!(f, "{name}:")?;
            taken.iter().try_for_each(|choice| write!(f, " {choice}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Why a text is not a list of choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotChoices {
    /// Which line, from 1.
    pub line: usize,
}

impl fmt::Display for NotChoices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is not a stream's name, a colon and numbers", self.line)
    }
}

impl std::error::Error for NotChoices {}

impl FromStr for Choices {
    type Err = NotChoices;

    fn from_str(text: &str) -> Result<Self, NotChoices> {
        let mut choices = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line_ends = || NotChoices { line: index + 1 };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, numbers) = line.split_once(':').ok_or_else(line_ends)?;
            let taken: Result<Vec<u64>, _> = numbers.split_whitespace().map(str::parse).collect();
            *choices.stream_mut(name) = taken.map_err(|_| line_ends())?;
        }
        Ok(choices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(decisions: &mut Decisions, name: &str, count: usize) -> Vec<u64> {
        let stream = decisions.stream(name);
        (0..count).map(|_| decisions.below(stream, 1_000)).collect()
    }

    #[test]
    fn a_new_draw_in_one_stream_does_not_shift_another() {
        let mut plain = Decisions::seeded(1);
        let mut other = Decisions::seeded(1);
        draw(&mut other, "fault", 17);
        assert_eq!(draw(&mut plain, "net", 20), draw(&mut other, "net", 20));
        assert_ne!(draw(&mut plain, "net", 20), draw(&mut Decisions::seeded(2), "net", 20));
    }

    #[test]
    fn a_record_replays_whatever_it_was_made_from() {
        for mut first in [Decisions::seeded(3), Decisions::from_bytes(&[7; 99])] {
            let (net, work) = (draw(&mut first, "net", 9), draw(&mut first, "work", 30));
            let text = first.record().to_string();
            let mut second = Decisions::replaying(text.parse().unwrap());
            assert_eq!((draw(&mut second, "net", 9), draw(&mut second, "work", 30)), (net, work));
            assert_eq!(draw(&mut second, "net", 3), [0, 0, 0], "an exhausted list gives the dullest choice");
            assert_eq!(first.count(), 39);
        }
    }

    #[test]
    fn shapes_keep_their_bounds() {
        let mut decisions = Decisions::seeded(4);
        let stream = decisions.stream("net");
        let mut small = 0;
        for _ in 0..10_000 {
            let number = decisions.on(stream).log_uniform(3, 70_000);
            assert!((3..=70_000).contains(&number));
            small += u64::from(number < 512);
        }
        assert!((3_500..5_500).contains(&small), "half of the powers of two lie below 512: {small}");
        let mut on = decisions.on(stream);
        assert_eq!(on.weighted(&[0, 0]), None);
        assert_eq!(on.weighted(&[0, 5, 0]), Some(1));
        assert_eq!(on.log_uniform(8, 8), 8);
        assert!(on.chance(1, 1) && !on.chance(0, 9));
        assert_eq!(on.pick::<u8>(&[]), None);
    }

    #[test]
    fn a_text_that_is_no_record_is_refused_with_its_line() {
        assert_eq!("net: 1 2\nwork 3\n".parse::<Choices>(), Err(NotChoices { line: 2 }));
        assert_eq!("net: 1 x".parse::<Choices>(), Err(NotChoices { line: 1 }));
    }
}
