//! What a receiver misses: which numbers, and for how long reordered ones are waited for.
//!
//! Numbers are extended sequence numbers. All that is asked about lies in one window no longer than the bits, whose
//! lower end the receiver keeps; a number lies at itself modulo their count.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

/// One bit for each number of a window.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    words: Box<[u64]>,
}

impl Bits {
    /// `len` bits, none set; a power of two of at least 64.
    pub(super) fn new(len: usize) -> Self {
        debug_assert!(len.is_power_of_two() && len >= 64, "{len} bits");
        Self { words: vec![0; len / 64].into() }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        self.words[word] & bit != 0
    }

    /// Sets one; says whether it was not.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        let was = self.words[word];
        self.words[word] = was | bit;
        was & bit == 0
    }

    /// Clears one; says whether it was set.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        let was = self.words[word];
        self.words[word] = was & !bit;
        was & bit != 0
    }

    /// Sets all of a range; says how many were not.
    pub(super) fn insert_range(&mut self, range: Range<u64>) -> usize {
        let mut changed = 0;
        for (word, bits) in self.pieces(range) {
            changed += (bits & !self.words[word]).count_ones() as usize;
            self.words[word] |= bits;
        }
        changed
    }

    /// Clears all of a range; says how many were set.
    pub(super) fn remove_range(&mut self, range: Range<u64>) -> usize {
        let mut changed = 0;
        for (word, bits) in self.pieces(range) {
            changed += (bits & self.words[word]).count_ones() as usize;
            self.words[word] &= !bits;
        }
        changed
    }

    pub(super) fn count_range(&self, range: Range<u64>) -> usize {
        self.pieces(range).map(|(word, bits)| (self.words[word] & bits).count_ones() as usize).sum()
    }

    /// The lowest number of the range that is set.
    pub(super) fn next_set(&self, range: Range<u64>) -> Option<u64> {
        self.next(range, 0)
    }

    /// The lowest number of the range that is not set.
    pub(super) fn next_unset(&self, range: Range<u64>) -> Option<u64> {
        self.next(range, u64::MAX)
    }

    /// The highest number of the range that is set.
    pub(super) fn last_set(&self, range: Range<u64>) -> Option<u64> {
        let mut end = range.end;
        while end > range.start {
            let len = ((end - 1) % 64 + 1).min(end - range.start);
            let (word, bits) = self.pieces(end - len..end).next()?;
            let set = self.words[word] & bits;
            if set != 0 {
                return Some((end - 1) / 64 * 64 + 63 - u64::from(set.leading_zeros()));
            }
            end -= len;
        }
        None
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    fn next(&self, range: Range<u64>, flip: u64) -> Option<u64> {
        let mut from = range.start;
        for (word, bits) in self.pieces(range) {
            let found = (self.words[word] ^ flip) & bits;
            if found != 0 {
                return Some(from / 64 * 64 + u64::from(found.trailing_zeros()));
            }
            from += u64::from(bits.count_ones());
        }
        None
    }

    const fn place(&self, number: u64) -> (usize, u64) {
        ((number / 64) as usize & (self.words.len() - 1), 1 << (number % 64))
    }

    /// The words that hold a range, and which bits of them.
    fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = (usize, u64)> + use<> {
        let words = self.words.len();
        debug_assert!(range.end.saturating_sub(range.start) <= words as u64 * 64, "{range:?} is longer than the bits");
        let Range { start: mut from, end } = range;
        std::iter::from_fn(move || {
            if from >= end {
                return None;
            }
            let bit = from % 64;
            let len = (64 - bit).min(end - from);
            let word = (from / 64) as usize & (words - 1);
            from += len;
            Some((word, (u64::MAX >> (64 - len)) << bit))
        })
    }
}

/// The loss list: numbers that are missing, and those of them that the next NAK names.
#[derive(Debug)]
pub(super) struct Missing {
    missing: Bits,
    missing_count: usize,
    /// Always missing, too.
    urgent: Bits,
    urgent_count: usize,
}

impl Missing {
    /// For windows of at most `len` numbers, a power of two of at least 64.
    pub(super) fn new(len: usize) -> Self {
        Self { missing: Bits::new(len), missing_count: 0, urgent: Bits::new(len), urgent_count: 0 }
    }

    /// How many are missing.
    pub(super) const fn len(&self) -> usize {
        self.missing_count
    }

    /// Whether the next NAK has something to name.
    pub(super) const fn is_urgent(&self) -> bool {
        self.urgent_count > 0
    }

    /// These turned out to be missing.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        self.missing_count += self.missing.insert_range(range);
    }

    /// This one came.
    pub(super) fn remove(&mut self, number: u64) {
        if self.missing_count > 0 {
            self.missing_count -= usize::from(self.missing.remove(number));
            self.urgent_count -= usize::from(self.urgent.remove(number));
        }
    }

    /// These are no longer waited for.
    pub(super) fn remove_range(&mut self, range: Range<u64>) {
        if self.missing_count > 0 {
            self.missing_count -= self.missing.remove_range(range.clone());
            self.urgent_count -= self.urgent.remove_range(range);
        }
    }

    /// The next NAK shall name what is missing of these.
    pub(super) fn urge(&mut self, range: Range<u64>) {
        for (word, bits) in self.missing.pieces(range) {
            let added = self.missing.words[word] & bits & !self.urgent.words[word];
            self.urgent.words[word] |= added;
            self.urgent_count += added.count_ones() as usize;
        }
    }

    /// Appends to `out` what is urgent in the window, lowest first, as far as `words_max` words of a NAK hold it: one
    /// for a single number and two for a range (draft appendix A). The rest stays urgent.
    pub(super) fn take_urgent(&mut self, window: Range<u64>, words_max: usize, out: &mut Vec<RangeInclusive<u64>>) {
        let mut words_left = words_max;
        let mut from = window.start;
        while let Some(first) = self.urgent.next_set(from..window.end) {
            from = self.urgent.next_unset(first..window.end).unwrap_or(window.end);
            let words = if from - first == 1 { 1 } else { 2 };
            if words > words_left {
                return;
            }
            words_left -= words;
            out.push(first..=from - 1);
            self.urgent_count -= self.urgent.remove_range(first..from);
        }
    }

    pub(super) fn clear(&mut self) {
        self.missing.clear();
        self.urgent.clear();
        (self.missing_count, self.urgent_count) = (0, 0);
    }
}

/// How many packets after a gap it is reported, in the hope that it is mere reordering: starts at none, grows with
/// originals that come late, and shrinks while all is well (libsrt 1.5, `SRTO_LOSSMAXTTL`).
#[derive(Debug)]
pub(super) struct Tolerance {
    packets: u32,
    packets_max: u32,
    /// The greatest distance that an original came late by.
    distance_max: u64,
    in_order_row: u32,
    early_row: u32,
    arrivals: u64,
    /// Gaps not reported yet, oldest first, and the arrival to report them at. Each arrival adds at most one and the
    /// first leaves after at most `packets_max` of them, which bounds it.
    waiting: VecDeque<(Range<u64>, u64)>,
}

impl Tolerance {
    /// Never more than `packets_max`, which is at most [`TOLERANCE_MAX`].
    pub(super) fn new(packets_max: u32) -> Self {
        let packets_max = packets_max.min(TOLERANCE_MAX);
        Self {
            packets: 0,
            packets_max,
            distance_max: 0,
            in_order_row: 0,
            early_row: 0,
            arrivals: 0,
            waiting: VecDeque::with_capacity(if packets_max == 0 { 0 } else { packets_max as usize + 2 }),
        }
    }

    /// Changes the most; what waits for longer than that is reported sooner.
    pub(super) fn set_max(&mut self, packets_max: u32) {
        self.packets_max = packets_max.min(TOLERANCE_MAX);
        self.packets = self.packets.min(self.packets_max);
        let latest = self.arrivals + 1 + u64::from(self.packets_max);
        self.waiting.iter_mut().for_each(|(_, report_at)| *report_at = latest.min(*report_at));
    }

    /// In packets.
    pub(super) const fn packets(&self) -> u32 {
        self.packets
    }

    pub(super) const fn distance_max(&self) -> u64 {
        self.distance_max
    }

    /// A packet came that shows a gap; says whether to report it at once.
    pub(super) fn gap(&mut self, gap: &Range<u64>) -> bool {
        if self.packets > 0 {
            self.waiting.push_back((gap.clone(), self.arrivals + 1 + u64::from(self.packets)));
        }
        self.packets == 0
    }

    /// An original came that is `distance` behind the highest.
    pub(super) fn belated(&mut self, number: u64, distance: u64) {
        self.distance_max = self.distance_max.max(distance);
        if self.packets_max == 0 {
            return;
        }
        self.in_order_row = 0;
        if distance > u64::from(self.packets) {
            self.packets = u32::try_from(distance).unwrap_or(u32::MAX).min(self.packets_max);
            self.early_row = 0;
            return;
        }
        let waiting = self.waiting.iter().find(|(gap, _)| gap.contains(&number));
        if waiting.is_some_and(|(_, report_at)| report_at.saturating_sub(self.arrivals + 1) > EARLY) {
            self.early_row += 1;
            if self.early_row == EARLY_ROW {
                self.early_row = 0;
                self.packets = self.packets.saturating_sub(1);
            }
        }
    }

    /// A packet came that is no belated original.
    pub(super) const fn in_order(&mut self) {
        self.in_order_row += 1;
        if self.in_order_row == IN_ORDER_ROW {
            self.in_order_row = 0;
            self.packets = self.packets.saturating_sub(1);
        }
    }

    /// A packet was taken in, after all else that it meant.
    pub(super) const fn arrived(&mut self) {
        self.arrivals += 1;
    }

    /// A gap that has waited long enough; `None` when there is none left.
    pub(super) fn poll_report(&mut self) -> Option<Range<u64>> {
        let (gap, _) = self.waiting.pop_front_if(|(_, report_at)| *report_at <= self.arrivals)?;
        Some(gap)
    }
}

/// Most packets to wait for reordering. Judgement: a path that mixes more is no path for live media.
pub(super) const TOLERANCE_MAX: u32 = 4_096;

/// Packets without reordering after which the tolerance shrinks by one (libsrt 1.5).
const IN_ORDER_ROW: u32 = 50;

/// An original that came while its gap would have waited for more packets than this was early (libsrt 1.5).
const EARLY: u64 = 2;

/// Early originals in a row after which the tolerance shrinks by one (libsrt 1.5).
const EARLY_ROW: u32 = 10;

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_number_goes_in_and_out() {
        let mut missing = Missing::new(64);
        missing.insert(7..8);
        assert_eq!((missing.len(), missing.is_urgent()), (1, false));
        missing.urge(0..64);
        assert_eq!(take(&mut missing, 0..64, 10), [7..=7]);
        assert_eq!((missing.len(), missing.is_urgent()), (1, false));
        missing.remove(7);
        missing.remove(7);
        assert_eq!(missing.len(), 0);
    }

    #[test]
    fn ranges_join_and_split() {
        let mut missing = Missing::new(128);
        missing.insert(100..110);
        missing.insert(110..140);
        missing.urge(100..140);
        missing.remove(120);
        missing.remove_range(130..140);
        assert_eq!(take(&mut missing, 90..218, 10), [100..=119, 121..=129]);
        assert_eq!(missing.len(), 29);
    }

    #[test]
    fn a_report_stops_at_its_words_and_the_next_goes_on() {
        let mut missing = Missing::new(64);
        for first in [3, 5, 7, 20] {
            missing.insert(first..first + 1);
        }
        missing.insert(10..13);
        missing.urge(0..64);
        assert_eq!(take(&mut missing, 0..64, 4), [3..=3, 5..=5, 7..=7]);
        assert_eq!(take(&mut missing, 0..64, 2), [10..=12]);
        assert_eq!(take(&mut missing, 0..64, 2), [20..=20]);
        assert_eq!(take(&mut missing, 0..64, 2), []);
    }

    #[test]
    fn only_what_is_missing_becomes_urgent() {
        let mut missing = Missing::new(64);
        missing.insert(10..20);
        missing.remove(15);
        missing.urge(14..17);
        missing.remove(16);
        assert_eq!(take(&mut missing, 0..64, 10), [14..=14]);
    }

    #[test]
    fn random_operations_match_a_set() {
        for seed in 0..200 {
            let mut random = Random(seed);
            let (mut missing, mut model) = (Missing::new(256), Model::default());
            let mut start = (1 << 31) - 100;
            for step in 0..400 {
                let first = start + random.below(256);
                let range = first..first + random.below(start + 257 - first);
                match random.below(8) {
                    0 | 1 => {
                        missing.insert(range.clone());
                        model.missing.extend(range);
                    }
                    2 | 3 => {
                        missing.remove(first);
                        model.remove(first..first + 1);
                    }
                    4 => {
                        missing.remove_range(range.clone());
                        model.remove(range);
                    }
                    5 => {
                        missing.urge(range.clone());
                        model.urgent.extend(model.missing.range(range));
                    }
                    6 => {
                        let words = random.below(20) as usize;
                        let context = format!("seed {seed} step {step}");
                        assert_eq!(take(&mut missing, start..start + 256, words), model.take(words), "{context}");
                    }
                    _ => {
                        let moved = random.below(100);
                        missing.remove_range(start..start + moved);
                        model.remove(start..start + moved);
                        start += moved;
                    }
                }
                assert_eq!(missing.len(), model.missing.len(), "seed {seed} step {step}");
                assert_eq!(missing.is_urgent(), !model.urgent.is_empty(), "seed {seed} step {step}");
            }
        }
    }

    #[test]
    fn searching_finds_what_a_scan_finds() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let mut bits = Bits::new(128);
            let start = 1_000 + random.below(200);
            for _ in 0..random.below(6) {
                let first = start + random.below(128);
                bits.insert_range(first..first + random.below(start + 129 - first));
            }
            for _ in 0..50 {
                let first = start + random.below(128);
                let range = first..first + random.below(start + 129 - first);
                let context = format!("seed {seed} {range:?}");
                let mut numbers = range.clone();
                assert_eq!(bits.next_set(range.clone()), numbers.find(|number| bits.contains(*number)), "{context}");
                let mut numbers = range.clone();
                assert_eq!(bits.next_unset(range.clone()), numbers.find(|number| !bits.contains(*number)), "{context}");
                let mut numbers = range.clone().rev();
                assert_eq!(bits.last_set(range.clone()), numbers.find(|number| bits.contains(*number)), "{context}");
                let count = range.clone().filter(|number| bits.contains(*number)).count();
                assert_eq!(bits.count_range(range), count, "{context}");
            }
        }
    }

    #[test]
    fn tolerance_grows_with_belated_originals_up_to_its_limit() {
        let mut tolerance = Tolerance::new(5);
        assert!(tolerance.gap(&(10..13)));
        tolerance.belated(10, 3);
        assert_eq!((tolerance.packets(), tolerance.distance_max()), (3, 3));
        tolerance.belated(11, 40);
        tolerance.belated(12, 2);
        assert_eq!((tolerance.packets(), tolerance.distance_max()), (5, 40));
        for _ in 0..5 * IN_ORDER_ROW {
            tolerance.in_order();
        }
        assert_eq!(tolerance.packets(), 0);
    }

    #[test]
    fn less_tolerance_is_for_gaps_that_wait_too() {
        let mut tolerance = Tolerance::new(20);
        tolerance.belated(1, 15);
        assert!(!tolerance.gap(&(10..12)));
        tolerance.set_max(2);
        assert_eq!(tolerance.packets(), 2);
        tolerance.arrived();
        tolerance.arrived();
        assert_eq!(tolerance.poll_report(), None);
        tolerance.arrived();
        assert_eq!(tolerance.poll_report(), Some(10..12));
        tolerance.set_max(0);
        assert!(tolerance.gap(&(20..21)));
        tolerance.set_max(9);
        tolerance.belated(2, 7);
        assert_eq!(tolerance.packets(), 7, "and it may grow again");
    }

    #[test]
    fn without_a_limit_there_is_no_tolerance() {
        let mut tolerance = Tolerance::new(0);
        tolerance.belated(10, 3);
        assert_eq!((tolerance.packets(), tolerance.distance_max()), (0, 3));
        assert!(tolerance.gap(&(11..12)));
        assert_eq!(tolerance.waiting.capacity(), 0);
    }

    #[test]
    fn a_gap_is_reported_after_as_many_packets_as_are_tolerated() {
        let mut tolerance = Tolerance::new(3);
        tolerance.belated(1, 3);
        assert!(!tolerance.gap(&(10..12)));
        for _ in 0..3 {
            tolerance.arrived();
            assert_eq!(tolerance.poll_report(), None);
        }
        tolerance.arrived();
        assert_eq!(tolerance.poll_report(), Some(10..12));
        assert_eq!(tolerance.poll_report(), None);
    }

    #[test]
    fn originals_that_come_early_in_their_gaps_shrink_the_tolerance() {
        let mut tolerance = Tolerance::new(8);
        tolerance.belated(1, 8);
        for round in 0..u64::from(EARLY_ROW) {
            assert_eq!(tolerance.packets(), 8);
            let missed = 100 + round * 10;
            assert!(!tolerance.gap(&(missed..missed + 1)));
            tolerance.arrived();
            tolerance.belated(missed, 1);
            tolerance.arrived();
            while tolerance.poll_report().is_some() {}
        }
        assert_eq!(tolerance.packets(), 7);
        assert!(tolerance.waiting.len() <= 9);
    }

    #[derive(Default)]
    struct Model {
        missing: BTreeSet<u64>,
        urgent: BTreeSet<u64>,
    }

    impl Model {
        fn remove(&mut self, range: Range<u64>) {
            self.missing.retain(|number| !range.contains(number));
            self.urgent.retain(|number| !range.contains(number));
        }

        fn take(&mut self, mut words: usize) -> Vec<RangeInclusive<u64>> {
            let mut out = Vec::new();
            while let Some(first) = self.urgent.first().copied() {
                let last = (first..).take_while(|number| self.urgent.contains(number)).last().unwrap();
                let needed = if last == first { 1 } else { 2 };
                if needed > words {
                    break;
                }
                words -= needed;
                out.push(first..=last);
                self.urgent.retain(|number| *number > last);
            }
            out
        }
    }

    fn take(missing: &mut Missing, window: Range<u64>, words: usize) -> Vec<RangeInclusive<u64>> {
        let mut out = Vec::new();
        missing.take_urgent(window, words, &mut out);
        out
    }

    /// SplitMix64: the same tests from the same seed.
    pub(in crate::proto::srt) struct Random(pub(in crate::proto::srt) u64);

    impl Random {
        pub(in crate::proto::srt) fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }

        pub(in crate::proto::srt) fn below(&mut self, limit: u64) -> u64 {
            self.next() % limit
        }
    }
}
