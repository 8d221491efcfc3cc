//! One leg: how its numbers map to the common ones, what it brought, and what waits while it is not merged.

use std::collections::VecDeque;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::Mismatch;
use super::histogram::Histogram;
use super::trace::Look;
use crate::bus::Packet;
use crate::units::Time;

/// Counters of one leg since it was added, in packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegStats {
    /// Came on this leg, whatever became of them.
    pub received: u64,
    /// Came here first.
    pub first: u64,
    /// Came here first while later ones had come on other legs: gaps filled.
    pub filled: u64,
    /// Came on no other leg, though there was one. Known once they are a ring's length old.
    pub unique: u64,
    /// Had come before, here or on another leg.
    pub duplicate: u64,
    /// Came after they were given up; no leg had brought them in time.
    pub late: u64,
    /// Older than anything known: from before the start, or further behind than the ring is long.
    pub stale: u64,
    /// Missing on this leg, from its first packet to its latest, while it was merged.
    pub lost: u64,
    /// Came after a later one of this leg.
    pub reordered: u64,
    /// Differ from what another leg brought with the same number; dropped.
    pub mismatched: u64,
    /// Came with a number or timestamp out of the blue that the next ones did not confirm; dropped.
    pub unexpected: u64,
    /// Came while the leg was not merged, and were not needed; dropped.
    pub unmerged: u64,
    /// Had no sequence number; dropped.
    pub unnumbered: u64,
    /// Whether something came within the leg timeout.
    pub is_alive: bool,
    /// Whether its packets are merged now.
    pub is_merged: bool,
    /// How long after the first copy of a packet this leg brought its own; zero where it was the first.
    pub skew: Histogram,
    /// How long after they were given up late packets came: what the window was too short by.
    pub late_by: Histogram,
    /// The recovery window that this leg's copies of late would have needed: all but one in a thousand come within it,
    /// with 10 ms to spare. `None` while nothing is known.
    pub advised_window: Option<Duration>,
}

impl LegStats {
    /// Every count of packets with the name that metrics use.
    #[must_use]
    pub const fn by_name(&self) -> [(&'static str, u64); 13] {
        [
            ("received", self.received),
            ("first", self.first),
            ("filled", self.filled),
            ("unique", self.unique),
            ("duplicate", self.duplicate),
            ("late", self.late),
            ("stale", self.stale),
            ("lost", self.lost),
            ("reordered", self.reordered),
            ("mismatched", self.mismatched),
            ("unexpected", self.unexpected),
            ("unmerged", self.unmerged),
            ("unnumbered", self.unnumbered),
        ]
    }
}

/// State of one leg.
#[derive(Debug, Default)]
pub(super) struct Leg {
    pub(super) state: State,
    pub(super) is_alive: bool,
    /// Was silent for the leg timeout since anything was told of it.
    pub(super) was_lost: bool,
    /// Its own core may have lost count of the wraps.
    pub(super) must_reanchor: bool,
    /// What added to its numbers makes them the common ones, wrapping.
    pub(super) offset: u64,
    /// When its latest packet came.
    pub(super) last: Time,
    /// When its latest packet that was merged came, and its timestamp.
    pub(super) last_merged: Option<(Time, u32)>,
    /// Packets since the last that was as expected.
    pub(super) mismatches_row: u32,
    pub(super) span: Span,
    pub(super) stats: LegStats,
    /// The skews until the last period and until the one before.
    skew_before: [Histogram; 2],
    pub(super) waiting: Waiting,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// No such leg.
    #[default]
    Absent,
    /// Not merged, or not yet.
    Waiting,
    /// Merged.
    Member,
}

/// Numbers that a leg should have brought, and how many of them it did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    numbers: Option<(u64, u64)>,
    came: u64,
}

impl Span {
    /// A number came for the first time on this leg; says whether that was after a later one.
    #[inline]
    pub(super) const fn count(&mut self, number: u64) -> bool {
        self.came += 1;
        match &mut self.numbers {
            Some((_, highest)) if number > *highest => {
                *highest = number;
                false
            }
            Some((lowest, _)) => {
                if number < *lowest {
                    *lowest = number;
                }
                true
            }
            None => {
                self.numbers = Some((number, number));
                false
            }
        }
    }

    pub(super) fn is_before_highest(&self, number: u64) -> bool {
        self.numbers.is_some_and(|(_, highest)| number < highest)
    }

    fn lost(&self) -> u64 {
        self.numbers.map_or(0, |(lowest, highest)| (highest - lowest + 1).saturating_sub(self.came))
    }
}

/// What is known of a leg that is not merged.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Its packets, in case that they turn out to be needed.
    pub(super) queue: VecDeque<(Time, Packet)>,
    /// The first of this period that no other leg had brought: others may follow.
    pub(super) samples: ArrayVec<Sample, SAMPLES>,
    /// What would map its numbers, and how many packets agree that it does.
    candidate: Option<u64>,
    pub(super) matches: u32,
    /// Packets of this period.
    pub(super) packets: u32,
    pub(super) since: Time,
    /// Whether it was merged before and has moved away, rather than never having belonged.
    pub(super) has_moved: bool,
    /// What was wrong with the latest packet that had a counterpart.
    pub(super) blame: Option<Mismatch>,
    /// What it was told to be wrong.
    pub(super) named: Option<Mismatch>,
}

/// A packet of a waiting leg that others may bring later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) sequence: u64,
    pub(super) look: Look,
}

impl Waiting {
    /// A packet was the same as another leg's if `offset` maps its number; says whether that is certain by now.
    pub(super) fn matched(&mut self, offset: u64) -> bool {
        if self.candidate != Some(offset) {
            (self.candidate, self.matches) = (Some(offset), 0);
        }
        self.matches += 1;
        self.matches >= MATCHES
    }

    /// A packet differed from another leg's with its number.
    pub(super) const fn differed(&mut self, how: Mismatch) {
        self.matches = 0;
        self.blame = Some(how);
    }

    /// The offset that the matches agree on.
    pub(super) fn offset(&self) -> Option<u64> {
        self.candidate.filter(|_| self.matches > 0)
    }

    /// Begins to watch anew.
    pub(super) fn restart_period(&mut self, now: Time) {
        self.samples.clear();
        (self.matches, self.packets, self.blame, self.since) = (0, 0, None, now);
    }
}

impl Leg {
    /// Leaves the merged ones; what is queued stays.
    pub(super) fn leave(&mut self, now: Time, has_moved: bool) {
        self.stats.lost += self.span.lost();
        self.span = Span::default();
        self.state = State::Waiting;
        self.mismatches_row = 0;
        self.must_reanchor = false;
        self.last_merged = None;
        self.waiting.has_moved = has_moved;
        self.waiting.named = None;
        self.waiting.restart_period(now);
    }

    /// Joins the merged ones.
    pub(super) fn join(&mut self, offset: u64) {
        self.state = State::Member;
        self.offset = offset;
        self.waiting.named = None;
        self.waiting.has_moved = false;
        self.waiting.restart_period(Time::ZERO);
    }

    /// Drops what is queued and counts it.
    pub(super) fn drop_queue(&mut self) -> u64 {
        let dropped = self.waiting.queue.len() as u64;
        self.waiting.queue.clear();
        dropped
    }

    /// The window that this leg's skew of late asks for.
    pub(super) fn advised_window(&self) -> Option<Duration> {
        let skew = self.stats.skew.all_but_per_mille(1, &self.skew_before[1])?;
        Some(skew + SPARE)
    }

    /// Forgets the skews of the period before the last one.
    pub(super) fn age_skew(&mut self) {
        self.skew_before.swap(0, 1);
        self.skew_before[0].clone_from(&self.stats.skew);
    }

    pub(super) fn stats(&self) -> LegStats {
        LegStats {
            lost: self.stats.lost + self.span.lost(),
            is_alive: self.is_alive,
            is_merged: self.state == State::Member,
            advised_window: self.advised_window(),
            ..self.stats.clone()
        }
    }
}

/// Packets that must be the same on a leg and the others before it is merged. Judgement: number, timestamp and payload
/// of one are hardly the same by chance, except for stuffing.
const MATCHES: u32 = 4;

/// Packets kept for comparison of a leg that may be ahead of the others: four times [`MATCHES`], as others may lose some.
pub(super) const SAMPLES: usize = 16;

/// What the window has beyond the skew. Judgement: the jitter of an ordinary path.
const SPARE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_leg_should_have_brought_spans_its_first_and_latest() {
        let mut span = Span::default();
        assert_eq!([7, 10, 8, 6, 12].map(|number| span.count(number)), [false, false, true, true, false]);
        assert_eq!(span.lost(), 2);
        assert!(span.is_before_highest(11) && !span.is_before_highest(12));
    }

    #[test]
    fn matches_count_only_while_they_agree() {
        let mut waiting = Waiting::default();
        assert_eq!([3, 3, 3, 5, 5, 5].map(|offset| waiting.matched(offset)), [false; 6]);
        assert_eq!(waiting.offset(), Some(5));
        waiting.differed(Mismatch::Payload);
        assert_eq!(waiting.offset(), None);
        assert_eq!([5, 5, 5, 5].map(|offset| waiting.matched(offset)), [false, false, false, true]);
    }

    #[test]
    fn old_skews_are_forgotten_after_two_periods() {
        let mut leg = Leg::default();
        leg.stats.skew.record(Duration::from_millis(100));
        leg.age_skew();
        assert!(leg.advised_window().is_some_and(|window| window >= Duration::from_millis(110)));
        leg.stats.skew.record(Duration::from_millis(1));
        leg.age_skew();
        assert!(leg.advised_window().is_some_and(|window| window < Duration::from_millis(12)));
    }
}
