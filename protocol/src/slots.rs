//! A table whose keys fit the 31 bits of a route number, and whose old keys fit nothing.

use alloc::vec::Vec;

/// Names an entry: index in the low 20 bits, generation (never 0) in the 11 above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(u32);

const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const GENERATION_MAX: u32 = (1 << 11) - 1;

impl Key {
    /// The key with these bits; it may name nothing.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Below 2³¹ and never 0.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    const fn index(self) -> usize {
        (self.0 & INDEX_MASK) as usize
    }

    const fn generation(self) -> u32 {
        self.0 >> INDEX_BITS
    }
}

/// At most 2²⁰ entries.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Keeps `value`; gives it back when the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.entries.get_mut(index as usize)
        {
            slot.generation = if slot.generation >= GENERATION_MAX { 1 } else { slot.generation + 1 };
            slot.value = Some(value);
            return Ok(Key(slot.generation << INDEX_BITS | index));
        }
        match u32::try_from(self.entries.len()) {
            Ok(index) if index <= INDEX_MASK => {
                self.entries.push(Slot { generation: 1, value: Some(value) });
                Ok(Key(1 << INDEX_BITS | index))
            }
            Ok(_) | Err(_) => Err(value),
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.entries.get(key.index()).filter(|slot| slot.generation == key.generation())?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entries.get_mut(key.index()).filter(|slot| slot.generation == key.generation())?.value.as_mut()
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.entries.get_mut(key.index()).filter(|slot| slot.generation == key.generation())?;
        let value = slot.value.take()?;
        self.free.push(key.0 & INDEX_MASK);
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// In the order of the indices.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().zip(0_u32..).filter_map(|(slot, index)| {
            slot.value.as_ref().map(|value| (Key(slot.generation << INDEX_BITS | index), value))
        })
    }

    /// Empties the table, in the order of the indices.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        let Self { entries, free } = self;
        entries.iter_mut().zip(0_u32..).filter_map(|(slot, index)| {
            let value = slot.value.take()?;
            free.push(index);
            Some(value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_keys_fit_nothing() {
        let mut slots = Slots::default();
        let first = slots.insert('a').unwrap();
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b').unwrap();
        assert_eq!(first.index(), second.index());
        assert_eq!((slots.get(first), slots.remove(first)), (None, None));
        assert_eq!(slots.get(second), Some(&'b'));
        assert_ne!(second.bits(), 0);
        assert!(second.bits() < 1 << 31);
    }

    #[test]
    fn generations_wrap_without_zero() {
        let mut slots = Slots::default();
        for _ in 0..5_000 {
            let key = slots.insert(()).unwrap();
            assert!(key.generation() >= 1);
            slots.remove(key);
        }
        assert_eq!(slots.len(), 0);
    }
}
