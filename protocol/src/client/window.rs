//! Which numbers of one sender were accepted: a sliding window after RFC 6479.
//!
//! ```text
//!              never again │◄──────────── 1,024 numbers ────────────►│ not seen yet
//!  … ┼───────────────┼─────┼─────────┼─ … ─┼───────────────┼─────────┼─────┼ …
//!      older blocks          a bit for each number                  top
//! ```
//! Its blocks are a ring: moving forward clears whole blocks and shifts nothing.

use crate::canary::Canary;

/// The numbers of one sender that were accepted. Starts with none.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// The highest accepted number; 0 if there is none.
    top: u64,
    blocks: [u64; BLOCKS],
}

impl Window {
    /// The highest accepted number; 0 if there is none.
    pub(super) const fn top(&self) -> u64 {
        self.top
    }

    /// Whether this number may be accepted: it never was, and is not so far behind that nobody could tell.
    pub(super) fn is_new(&self, number: u64) -> bool {
        if number > self.top || Canary::Window.sings() {
            return true;
        }
        let seen = self.blocks.get(place(number >> BLOCK_BITS)).is_none_or(|block| block & bit(number) != 0);
        number != 0 && self.top - number < WIDTH && !seen
    }

    /// Accepts a number that is new.
    pub(super) fn mark(&mut self, number: u64) {
        let (from, to) = (self.top >> BLOCK_BITS, number >> BLOCK_BITS);
        for block in (from..to).take(BLOCKS) {
            self.set(block + 1, 0);
        }
        self.top = self.top.max(number);
        let block = self.blocks.get(place(to)).copied().unwrap_or_default();
        self.set(to, block | bit(number));
    }

    fn set(&mut self, block: u64, value: u64) {
        if let Some(slot) = self.blocks.get_mut(place(block)) {
            *slot = value;
        }
    }
}

const fn place(block: u64) -> usize {
    (block % BLOCKS as u64) as usize
}

const fn bit(number: u64) -> u64 {
    1 << (number % u64::BITS as u64)
}

/// How far behind the highest number one may be, and is still told from those before it.
const WIDTH: u64 = 1_024;
const BLOCK_BITS: u32 = u64::BITS.trailing_zeros();
/// One more than the window is wide, since its ends share a block with what is outside (RFC 6479, 3).
const BLOCKS: usize = (WIDTH >> BLOCK_BITS) as usize + 1;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn accept(window: &mut Window, number: u64) -> bool {
        let new = window.is_new(number);
        if new {
            window.mark(number);
        }
        new
    }

    #[test]
    fn v2_the_window_is_that_of_the_vectors() {
        // `"replay_window_1024": [["0", false], ["1", true], …]`, spread over lines.
        let vectors = include_str!("../../tests/vectors/vectors.json");
        let (_, steps) = vectors.split_once("\"replay_window_1024\": [").unwrap();
        let words: Vec<_> = steps.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        assert_eq!(words.len(), 2 * 26, "it is the last in the file");
        let mut window = Window::default();
        for step in words.chunks_exact(2) {
            let (number, accepted) = (step[0].parse().unwrap(), step[1].parse().unwrap());
            assert_eq!(accept(&mut window, number), accepted, "{number}");
        }
    }

    #[test]
    fn looking_changes_nothing() {
        let mut window = Window::default();
        assert!(window.is_new(5_000) && window.is_new(5_000) && window.is_new(1));
        window.mark(5_000);
        assert!(window.is_new(4_000) && window.is_new(4_000) && window.is_new(u64::MAX));
        assert_eq!(window.top(), 5_000);
    }

    /// What the window promises, said with a set of everything.
    #[derive(Default)]
    struct Naive {
        accepted: BTreeSet<u64>,
    }

    impl Naive {
        fn accept(&mut self, number: u64) -> bool {
            let top = self.accepted.last().copied().unwrap_or(0);
            let lost = top.checked_sub(number).is_some_and(|behind| behind >= 1_024);
            number != 0 && !lost && self.accepted.insert(number)
        }
    }

    /// Steps from where the window is: mostly near its ends and the ends of blocks.
    fn step() -> impl Strategy<Value = (bool, u64)> {
        let near = prop_oneof![0..4_u64, 60..70_u64, 1_000..1_100_u64, 0..2_200_u64, any::<u64>()];
        (any::<bool>(), near)
    }

    proptest! {
        #[test]
        fn v2_the_window_agrees_with_a_set(start in prop_oneof![Just(0), any::<u64>(), Just(u64::MAX - 3_000)],
                                           steps in proptest::collection::vec(step(), 0..600)) {
            let (mut window, mut naive) = (Window::default(), Naive::default());
            prop_assert_eq!(accept(&mut window, start), naive.accept(start));
            for (forward, by) in steps {
                let top = window.top();
                let number = if forward { top.saturating_add(by) } else { top.saturating_sub(by) };
                prop_assert_eq!(accept(&mut window, number), naive.accept(number), "{} at {}", number, top);
            }
        }
    }
}
