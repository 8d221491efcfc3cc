//! Which sent packets shall go out again: a bitmap over the send buffer's span of sequence numbers.

/// A set of sequence numbers that all lie within one span of `capacity` numbers, taken lowest first.
///
/// A range goes in and out word by word, so that neither a report of the whole buffer nor one of each second packet
/// costs more than a walk over capacity / 64 words.
#[derive(Debug)]
pub(super) struct ResendSet {
    /// Bit `sequence % capacity` says whether `sequence` is a member.
    words: Box<[u64]>,
    /// No member is below, and all are less than `capacity` above.
    cursor: u64,
    len: u64,
}

impl ResendSet {
    /// An empty set for spans of `capacity` numbers, a power of two and at least 64.
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity.is_power_of_two() && capacity >= WORD as usize, "capacity {capacity}");
        Self { words: vec![0; capacity / WORD as usize].into(), cursor: 0, len: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `first` to `last`; how many of them were not in before. The caller keeps all members within the span, with
    /// [`ResendSet::remove_below`].
    pub(super) fn insert(&mut self, first: u64, last: u64) -> u64 {
        assert!(first <= last && last - first < self.capacity(), "{first} to {last}");
        self.cursor = if self.len == 0 { first } else { self.cursor.min(first) };
        let before = self.len;
        for (word, mask) in masks(first, last) {
            let word = self.word(word);
            let added = (mask & !*word).count_ones();
            *word |= mask;
            self.len += u64::from(added);
        }
        self.len - before
    }

    /// Takes out the lowest member.
    pub(super) fn pop_first(&mut self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let start = self.cursor / WORD;
        // The first word comes again at the end: the bits below the cursor belong to the far end of the span.
        for word in start..=start + self.words.len() as u64 {
            let below_cursor = if word == start { (1 << (self.cursor % WORD)) - 1 } else { 0 };
            let bits = *self.word(word) & !below_cursor;
            if bits != 0 {
                let sequence = word * WORD + u64::from(bits.trailing_zeros());
                *self.word(word) &= !(bits & bits.wrapping_neg());
                self.len -= 1;
                self.cursor = sequence + 1;
                return Some(sequence);
            }
        }
        unreachable!("{} members, none found", self.len)
    }

    /// Takes out all members below `sequence`, from where a new span may start.
    pub(super) fn remove_below(&mut self, sequence: u64) {
        if sequence <= self.cursor {
            return;
        }
        if self.len > 0 {
            let last = (sequence - 1).min(self.cursor + self.capacity() - 1);
            for (word, mask) in masks(self.cursor, last) {
                let word = self.word(word);
                let removed = (mask & *word).count_ones();
                *word &= !mask;
                self.len -= u64::from(removed);
            }
        }
        self.cursor = sequence;
    }

    const fn capacity(&self) -> u64 {
        self.words.len() as u64 * WORD
    }

    const fn word(&mut self, index: u64) -> &mut u64 {
        let index = index as usize & (self.words.len() - 1);
        &mut self.words[index]
    }
}

/// Bits in a word.
const WORD: u64 = 64;

/// Number of each word that `first` to `last` touch, before the wrap, with the bits that they have in it.
fn masks(first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
    (first / WORD..=last / WORD).map(move |word| {
        let from = first.saturating_sub(word * WORD);
        let to = (last - word * WORD).min(WORD - 1);
        (word, (u64::MAX >> (WORD - 1 - (to - from))) << from)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Starts where the 31 bits of the wire wrap; the set must not notice.
    const FIRST: u64 = (1 << 32) - 2;

    #[test]
    fn a_new_set_is_empty() {
        let mut set = ResendSet::new(256);
        assert!(set.is_empty());
        assert_eq!(set.pop_first(), None);
    }

    #[test]
    fn members_come_out_lowest_first_whatever_the_order_they_came_in() {
        let mut set = ResendSet::new(256);
        for sequence in [1, 4, 0, 2] {
            assert_eq!(set.insert(FIRST + sequence, FIRST + sequence), 1);
        }
        assert_eq!(drain(&mut set), [0, 1, 2, 4]);
    }

    #[test]
    fn overlapping_ranges_count_only_what_is_new() {
        let mut set = ResendSet::new(256);
        assert_eq!(set.insert(FIRST + 1, FIRST + 5), 5);
        assert_eq!(set.insert(FIRST + 6, FIRST + 8), 3);
        assert_eq!(set.insert(FIRST + 2, FIRST + 10), 2);
        assert_eq!(set.insert(FIRST + 2, FIRST + 7), 0);
        assert_eq!(set.insert(FIRST + 5, FIRST + 5), 0);
        assert_eq!(drain(&mut set), (1..=10).collect::<Vec<_>>());
    }

    #[test]
    fn removing_below_cuts_a_range_and_leaves_what_is_above() {
        let mut set = ResendSet::new(256);
        set.insert(FIRST + 1, FIRST + 2);
        set.insert(FIRST + 4, FIRST + 8);
        set.insert(FIRST + 10, FIRST + 12);
        set.remove_below(FIRST + 6);
        set.remove_below(FIRST);
        assert_eq!(set.len, 6);
        assert_eq!(drain(&mut set), [6, 7, 8, 10, 11, 12]);
        set.insert(FIRST + 20, FIRST + 21);
        set.remove_below(FIRST + 5_000);
        assert!(set.is_empty());
    }

    #[test]
    fn the_whole_span_fits_from_any_start() {
        for start in FIRST..FIRST + 130 {
            let mut set = ResendSet::new(128);
            assert_eq!(set.insert(start, start + 127), 128);
            assert_eq!(set.insert(start, start + 127), 0);
            assert_eq!(std::iter::from_fn(|| set.pop_first()).collect::<Vec<_>>(), Vec::from_iter(start..start + 128));
            assert!(set.words.iter().all(|word| *word == 0));
        }
    }

    #[test]
    fn each_second_packet_reported_again_and_again_stays_in_once() {
        let mut set = ResendSet::new(8_192);
        let first = 1_000_001;
        for round in 0..50 {
            let added: u64 = (0..8_192).step_by(2).map(|offset| set.insert(first + offset, first + offset)).sum();
            assert_eq!(added, if round == 0 { 4_096 } else { 0 });
        }
        let popped: Vec<u64> = std::iter::from_fn(|| set.pop_first()).collect();
        assert_eq!(popped, (first..first + 8_192).step_by(2).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn the_set_behaves_like_a_sorted_set(
            start in 0u64..1_000,
            steps in prop::collection::vec((0u8..10, 0u64..128, 0u64..128), 1..200),
        ) {
            let mut set = ResendSet::new(128);
            let mut model = BTreeSet::new();
            let mut base = start;
            for (what, a, b) in steps {
                let (first, last) = (base + a.min(b), base + a.max(b));
                match what {
                    0..4 => {
                        let before = model.len();
                        model.extend(first..=last);
                        prop_assert_eq!(set.insert(first, last), (model.len() - before) as u64);
                    }
                    4..8 => prop_assert_eq!(set.pop_first(), model.pop_first()),
                    8 => {
                        base += a;
                        set.remove_below(base);
                        model = model.split_off(&base);
                    }
                    _ => {
                        // Far beyond the span.
                        base += a * 37;
                        set.remove_below(base);
                        model = model.split_off(&base);
                    }
                }
                prop_assert_eq!(set.len, model.len() as u64);
                prop_assert_eq!(set.is_empty(), model.is_empty());
            }
        }
    }

    fn drain(set: &mut ResendSet) -> Vec<u64> {
        std::iter::from_fn(|| set.pop_first()).map(|sequence| sequence - FIRST).collect()
    }
}
