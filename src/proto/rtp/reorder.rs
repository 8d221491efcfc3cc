//! Puts packets back in order within a bounded window.
//!
//! A packet that comes in order is released at once. One that comes early is held until what is missing before it has
//! come, or until it has been held for the window, or until it no longer fits the slots; then what is missing is lost.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::Time;

/// Holds packets of type `T` by their extended sequence number, and remembers which of the latest it has released.
///
/// Memory is taken at the start and while the queues warm up, never for each packet.
#[derive(Debug)]
pub struct Reorder<T> {
    window: Duration,
    /// A power of two; the packet with number `n` lies in slot `n` modulo their count.
    slots: Box<[Option<T>]>,
    /// One bit for each slot: whether the number that last used it and is below `next` was released or came late.
    seen: Box<[u64]>,
    /// The lowest number not released and not lost.
    next: u64,
    /// One more than the highest number held or released.
    end: u64,
    held: usize,
    /// When the held packets came, oldest first; also names some that were released meanwhile. Each number stands here
    /// at most once and those in it span less than twice the slots, which bounds it.
    arrivals: VecDeque<(Time, u64)>,
    lost: u64,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The expected one, or one beyond a gap.
    Ahead,
    /// Came after a later one and filled a gap.
    Reordered,
    /// Came before: dropped.
    Duplicate,
    /// Came after it was given up: dropped.
    Late,
}

impl<T> Reorder<T> {
    /// An empty window that expects `next`. It holds a packet for at most `window`, and at most `packets_max` packets
    /// (rounded up to a power of two, at least 64, at most 32,768) lie between the one expected and the latest.
    #[must_use]
    pub fn new(window: Duration, packets_max: usize, next: u64) -> Self {
        let slots = packets_max.clamp(SLOTS_MIN, SLOTS_MAX).next_power_of_two();
        Self {
            window,
            slots: std::iter::repeat_with(|| None).take(slots).collect(),
            seen: vec![0; slots / 64].into(),
            next,
            end: next,
            held: 0,
            arrivals: VecDeque::new(),
            lost: 0,
        }
    }

    /// Takes in a packet and appends to `out` what is in order now.
    pub fn insert(&mut self, now: Time, sequence: u64, packet: T, out: &mut VecDeque<T>) -> Insertion {
        if sequence == self.next && self.held == 0 {
            self.release(packet, out);
            self.end = self.next;
            return Insertion::Ahead;
        }
        if sequence < self.next {
            return self.insert_behind(sequence);
        }
        let slots = self.slots.len() as u64;
        if sequence - self.next >= slots {
            self.give_up_before(sequence - slots + 1, out);
        }
        let slot = self.slot(sequence);
        if self.slots[slot].is_some() {
            return Insertion::Duplicate;
        }
        self.slots[slot] = Some(packet);
        self.held += 1;
        let insertion = if sequence < self.end { Insertion::Reordered } else { Insertion::Ahead };
        self.end = self.end.max(sequence + 1);
        if sequence == self.next {
            self.release_ready(out);
        } else {
            self.arrivals.push_back((now, sequence));
        }
        insertion
    }

    /// Gives up what is missing before packets that have been held for the window.
    pub fn expire(&mut self, now: Time, out: &mut VecDeque<T>) {
        while let Some(&(arrival, sequence)) = self.arrivals.front() {
            if arrival + self.window > now {
                break;
            }
            self.give_up_before(sequence, out);
        }
    }

    /// Holds packets, those held already as well, for at most `window` from now on.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Gives up all that is missing, and expects `next` from now on.
    pub fn restart(&mut self, next: u64, out: &mut VecDeque<T>) {
        self.give_up_before(self.end, out);
        self.seen.fill(0);
        self.next = next;
        self.end = next;
    }

    /// How long packets are held at most.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// When [`Reorder::expire`] has something to do; `None` while nothing is held.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.arrivals.front().map(|(arrival, _)| *arrival + self.window)
    }

    /// Packets given up since the start.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    fn insert_behind(&mut self, sequence: u64) -> Insertion {
        if self.next - sequence > self.slots.len() as u64 {
            // Too old to know.
            return Insertion::Late;
        }
        let was_seen = self.is_seen(sequence);
        self.set_seen(sequence, true);
        if was_seen { Insertion::Duplicate } else { Insertion::Late }
    }

    /// Moves on to `target` and then past all that follows without a gap.
    fn give_up_before(&mut self, target: u64, out: &mut VecDeque<T>) {
        let slots = self.slots.len() as u64;
        // Nothing is held beyond the slots.
        let held_before = target.min(self.next.saturating_add(slots));
        while self.next < held_before {
            let slot = self.slot(self.next);
            if let Some(packet) = self.slots[slot].take() {
                self.held -= 1;
                self.release(packet, out);
            } else {
                self.set_seen(self.next, false);
                self.lost += 1;
                self.next += 1;
            }
        }
        if self.next < target {
            for sequence in self.next.max(target.saturating_sub(slots))..target {
                self.set_seen(sequence, false);
            }
            self.lost += target - self.next;
            self.next = target;
        }
        self.end = self.end.max(self.next);
        self.release_ready(out);
    }

    /// Releases packets up to the next gap.
    fn release_ready(&mut self, out: &mut VecDeque<T>) {
        while self.held > 0 {
            let slot = self.slot(self.next);
            let Some(packet) = self.slots[slot].take() else {
                break;
            };
            self.held -= 1;
            self.release(packet, out);
        }
        while self.arrivals.front().is_some_and(|(_, sequence)| *sequence < self.next) {
            self.arrivals.pop_front();
        }
    }

    fn release(&mut self, packet: T, out: &mut VecDeque<T>) {
        self.set_seen(self.next, true);
        self.next += 1;
        out.push_back(packet);
    }

    const fn slot(&self, sequence: u64) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }

    const fn is_seen(&self, sequence: u64) -> bool {
        let slot = self.slot(sequence);
        self.seen[slot / 64] & 1 << (slot % 64) != 0
    }

    fn set_seen(&mut self, sequence: u64, seen: bool) {
        let slot = self.slot(sequence);
        let (word, bit) = (&mut self.seen[slot / 64], 1 << (slot % 64));
        if seen {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }
}

/// Fewest slots: one word of the bits beside them.
const SLOTS_MIN: usize = 64;

/// Most slots: further apart, numbers of 16 bits have no order.
const SLOTS_MAX: usize = 32_768;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::proto::rtp::random::Random;

    const WINDOW: Duration = Duration::from_millis(25);

    #[test]
    fn packets_in_order_are_never_held() {
        let mut run = Run::new(100);
        for sequence in 100..1_000 {
            assert_eq!(run.insert(sequence, sequence), (Insertion::Ahead, vec![sequence]));
            assert_eq!(run.reorder.deadline(), None);
        }
        assert_eq!(run.reorder.arrivals.capacity(), 0);
    }

    #[test]
    fn a_gap_that_is_filled_in_time_costs_nothing() {
        let mut run = Run::new(10);
        assert_eq!(run.insert(0, 11), (Insertion::Ahead, vec![]));
        assert_eq!(run.insert(1, 13), (Insertion::Ahead, vec![]));
        assert_eq!(run.insert(2, 10), (Insertion::Reordered, vec![10, 11]));
        assert_eq!(run.insert(3, 12), (Insertion::Reordered, vec![12, 13]));
        assert_eq!((run.reorder.lost(), run.reorder.deadline()), (0, None));
    }

    #[test]
    fn a_gap_is_given_up_when_the_packet_behind_it_has_waited_for_the_window() {
        let mut run = Run::new(10);
        run.insert(0, 12);
        run.insert(20, 15);
        assert_eq!(run.reorder.deadline(), Some(ms(25)));
        assert!(run.expire(24).is_empty());
        assert_eq!(run.expire(25), [12]);
        assert_eq!(run.reorder.deadline(), Some(ms(45)));
        assert_eq!(run.expire(45), [15]);
        assert_eq!(run.reorder.lost(), 4);
    }

    #[test]
    fn a_packet_that_fills_part_of_a_gap_does_not_prolong_the_wait() {
        let mut run = Run::new(10);
        run.insert(0, 15);
        run.insert(20, 12);
        assert_eq!(run.reorder.deadline(), Some(ms(25)));
        assert_eq!(run.expire(25), [12, 15]);
    }

    #[test]
    fn a_late_packet_is_told_from_a_duplicate() {
        let mut run = Run::new(10);
        run.insert(0, 11);
        assert_eq!(run.insert(1, 11), (Insertion::Duplicate, vec![]));
        run.expire(25);
        assert_eq!(run.insert(26, 11), (Insertion::Duplicate, vec![]));
        assert_eq!(run.insert(26, 10), (Insertion::Late, vec![]));
        assert_eq!(run.insert(27, 10), (Insertion::Duplicate, vec![]));
    }

    #[test]
    fn what_does_not_fit_the_slots_pushes_the_oldest_out() {
        let mut run = Run::new(0);
        run.insert(0, 1);
        assert_eq!(run.insert(0, 63), (Insertion::Ahead, vec![]));
        assert_eq!(run.insert(0, 64), (Insertion::Ahead, vec![1]));
        assert_eq!(run.insert(0, 10_000), (Insertion::Ahead, vec![63, 64]));
        assert_eq!(run.expire(25), [10_000]);
        assert_eq!(run.reorder.lost(), 10_001 - 4);
    }

    #[test]
    fn a_restart_releases_what_is_held_and_forgets_what_was_seen() {
        let mut run = Run::new(10);
        run.insert(0, 12);
        let mut out = VecDeque::new();
        run.reorder.restart(1_000, &mut out);
        assert_eq!((out, run.reorder.lost()), (VecDeque::from([12]), 2));
        assert_eq!(run.insert(1, 999), (Insertion::Late, vec![]));
        assert_eq!(run.insert(1, 1_000), (Insertion::Ahead, vec![1_000]));
    }

    #[test]
    fn random_arrivals_match_the_slow_model() {
        for seed in 0..400 {
            let mut random = Random::new(seed);
            let mut run = Run::new(1_000);
            let mut model = Model { slots: 64, next: 1_000, end: 1_000, ..Model::default() };
            let (mut now, mut head) = (0, 1_000);
            for step in 0..600 {
                now += random.below(8);
                let back = [0, 0, 3, 30, 90][random.below(5) as usize];
                head += [0, 1, 1, 1, 2, 2, 5, 40, 150][random.below(if step % 50 == 0 { 9 } else { 7 }) as usize];
                let sequence = head - random.below(back + 1);
                let context = format!("seed {seed} step {step} sequence {sequence}");
                assert_eq!(run.expire(now), model.expire(ms(now)), "{context}");
                assert_eq!(run.insert(now, sequence), model.insert(ms(now), sequence), "{context}");
                assert_eq!(run.reorder.lost(), model.lost, "{context}");
                assert_eq!(run.reorder.deadline(), model.deadline(), "{context}");
                assert!(run.reorder.arrivals.len() <= 128, "{context}");
                if random.below(200) == 0 {
                    head += 70_000;
                    let mut out = VecDeque::new();
                    run.reorder.restart(head, &mut out);
                    assert_eq!(Vec::from(out), model.restart(head), "{context}");
                }
            }
        }
    }

    struct Run {
        reorder: Reorder<u64>,
    }

    impl Run {
        fn new(next: u64) -> Self {
            Self { reorder: Reorder::new(WINDOW, 64, next) }
        }

        fn insert(&mut self, now_ms: u64, sequence: u64) -> (Insertion, Vec<u64>) {
            let mut out = VecDeque::new();
            let insertion = self.reorder.insert(ms(now_ms), sequence, sequence, &mut out);
            (insertion, out.into())
        }

        fn expire(&mut self, now_ms: u64) -> Vec<u64> {
            let mut out = VecDeque::new();
            self.reorder.expire(ms(now_ms), &mut out);
            out.into()
        }
    }

    /// The same rules on sets that remember everything.
    #[derive(Default)]
    struct Model {
        slots: u64,
        next: u64,
        end: u64,
        held: BTreeMap<u64, Time>,
        seen: BTreeSet<u64>,
        lost: u64,
    }

    impl Model {
        fn insert(&mut self, now: Time, sequence: u64) -> (Insertion, Vec<u64>) {
            if sequence < self.next {
                let is_new = self.seen.insert(sequence);
                let too_old = self.next - sequence > self.slots;
                let late = is_new || too_old;
                return (if late { Insertion::Late } else { Insertion::Duplicate }, Vec::new());
            }
            let mut out = self.advance((sequence + 1).saturating_sub(self.slots));
            if self.held.contains_key(&sequence) {
                return (Insertion::Duplicate, out);
            }
            self.held.insert(sequence, now);
            let insertion = if sequence < self.end { Insertion::Reordered } else { Insertion::Ahead };
            self.end = self.end.max(sequence + 1);
            out.extend(self.advance(0));
            (insertion, out)
        }

        fn expire(&mut self, now: Time) -> Vec<u64> {
            let expired =
                self.held.iter().filter(|(_, arrival)| **arrival + WINDOW <= now).map(|(sequence, _)| *sequence);
            let target = expired.max().unwrap_or(0);
            self.advance(target)
        }

        fn restart(&mut self, next: u64) -> Vec<u64> {
            let out = self.advance(self.end);
            self.seen.clear();
            (self.next, self.end) = (next, next);
            out
        }

        fn deadline(&self) -> Option<Time> {
            self.held.values().min().map(|arrival| *arrival + WINDOW)
        }

        fn advance(&mut self, target: u64) -> Vec<u64> {
            let mut out = Vec::new();
            while self.next < target || self.held.contains_key(&self.next) {
                if self.held.remove(&self.next).is_some() {
                    self.seen.insert(self.next);
                    out.push(self.next);
                } else {
                    self.lost += 1;
                }
                self.next += 1;
            }
            self.end = self.end.max(self.next);
            out
        }
    }

    fn ms(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }
}
