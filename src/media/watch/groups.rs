//! `Groups`: the coded pictures that came last, in case it has to be proven when exactly something began or ended.

use std::collections::VecDeque;
use std::sync::Arc;

use super::job::JOB_UNITS_MAX;
use crate::media::boundary::BYTES_MAX;
use crate::proto::mpegts::demux::AccessUnit;
use crate::units::Ticks90k;

/// Whole groups of pictures, the last one growing: as many as a proof may still need, never more than [`BYTES_MAX`] and
/// [`SPAN_MAX_90K`]. Others may have it give up groups before that.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Each begins with a picture that can be decoded alone.
    units: VecDeque<Unit>,
    bytes: usize,
}

#[derive(Debug)]
struct Unit {
    unit: Arc<AccessUnit>,
    pts: Ticks90k,
    is_key: bool,
}

impl Groups {
    pub(super) const fn new() -> Self {
        Self { units: VecDeque::new(), bytes: 0 }
    }

    /// The next picture. How many groups had to be given up because they were too long.
    pub(super) fn push(&mut self, unit: &Arc<AccessUnit>, pts: Ticks90k, is_key: bool) -> u64 {
        while self.units.front().is_some_and(|first| pts.0.saturating_sub(first.pts.0) > SPAN_MAX_90K) {
            self.drop_group();
        }
        if self.units.is_empty() && !is_key {
            return 0;
        }
        self.bytes += unit.bytes.len();
        self.units.push_back(Unit { unit: Arc::clone(unit), pts, is_key });
        let mut dropped = 0;
        while self.bytes > BYTES_MAX || self.units.len() > JOB_UNITS_MAX {
            self.drop_group();
            dropped += 1;
        }
        dropped
    }

    /// Nothing will have to be proven that was shown before this picture, which can be decoded alone.
    pub(super) fn forget_before(&mut self, pts: Ticks90k) {
        while self.units.iter().skip(1).find(|unit| unit.is_key).is_some_and(|second| second.pts <= pts) {
            self.drop_group();
        }
    }

    /// Something is missing: what came does not go on.
    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.bytes = 0;
    }

    /// What has to be decoded to know all that was shown from one picture that can be decoded alone to another, and so many
    /// behind it, up to the next of this kind; `None` if it is not there any more. And whether it is whole: others may follow
    /// that are shown before the second.
    pub(super) fn between(&self, from: Ticks90k, to: Ticks90k, behind: usize) -> Option<(Vec<Arc<AccessUnit>>, bool)> {
        let is_at = |unit: &Unit, pts| unit.is_key && unit.pts == pts;
        let first = self.units.iter().position(|unit| is_at(unit, from))?;
        let last = self.units.iter().position(|unit| is_at(unit, to)).filter(|last| *last > first)?;
        let rest = self.units.range(last + 1..);
        let leading = rest.clone().take_while(|unit| is_leading(unit.pts, unit.is_key, to)).count();
        let until_key = rest.skip(leading).position(|unit| unit.is_key).map_or(usize::MAX, |at| at + 1);
        let end = (last + 1 + leading + behind.min(until_key)).min(self.units.len());
        let units = self.units.range(first..end).map(|unit| Arc::clone(&unit.unit));
        Some((units.collect(), end < self.units.len()))
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn bytes_held(&self) -> usize {
        assert_eq!(self.bytes, self.units.iter().map(|unit| unit.unit.bytes.len()).sum::<usize>());
        assert!(self.bytes <= BYTES_MAX && self.units.len() <= JOB_UNITS_MAX);
        self.bytes
    }

    /// Gives up the oldest.
    pub(super) fn drop_group(&mut self) {
        let mut is_first = true;
        while self.units.front().is_some_and(|unit| is_first || !unit.is_key) {
            is_first = false;
            if let Some(dropped) = self.units.pop_front() {
                self.bytes -= dropped.unit.bytes.len();
            }
        }
    }
}

/// Whether a picture that came behind the key frame shown at `key` is shown before it. All of them come at once.
pub(super) fn is_leading(pts: Ticks90k, is_key: bool, key: Ticks90k) -> bool {
    pts < key && !is_key
}

/// Judgement: twice as long as what can be proven of 1080 lines, or three groups of the longest that are usual.
const SPAN_MAX_90K: u64 = 20 * 90_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mpegts::demux::Codec;

    #[test]
    fn what_lies_between_two_key_frames_has_the_pictures_shown_before_the_second() {
        let mut groups = Groups::new();
        // In the order of coding; keys at 0, 40 and 80, each followed by two that are shown before it.
        for (pts, is_key) in [
            (9, false),
            (10, true),
            (20, false),
            (40, true),
            (25, false),
            (30, false),
            (60, false),
            (80, true),
            (70, false),
        ] {
            groups.push(&unit(pts, 10), Ticks90k(pts), is_key);
        }
        let between = |from, to| groups.between(Ticks90k(from), Ticks90k(to), 0);
        let times = |from, to| -> Option<Vec<u64>> {
            Some(between(from, to)?.0.iter().map(|unit| unit.pts.unwrap().0).collect())
        };
        assert_eq!(times(10, 40), Some(vec![10, 20, 40, 25, 30]));
        assert_eq!(times(40, 80), Some(vec![40, 25, 30, 60, 80, 70]));
        assert_eq!(times(10, 80).map(|times| times.len()), Some(8));
        assert_eq!((times(20, 80), times(80, 40), times(9, 40)), (None, None, None));
        let behind = |count| groups.between(Ticks90k(10), Ticks90k(40), count).unwrap().0.len();
        assert_eq!([0, 1, 2, 3].map(behind), [5, 6, 7, 7]);
        assert!(
            between(10, 40).unwrap().1 && !between(40, 80).unwrap().1,
            "others may follow that are shown before 80"
        );
    }

    #[test]
    fn no_more_is_kept_than_may_be_decoded() {
        let mut groups = Groups::new();
        for n in 0..400 {
            groups.push(&unit(n, 100_000), Ticks90k(n), n % 25 == 0);
            // Two groups and the one that grows.
            groups.forget_before(Ticks90k((n / 25).saturating_sub(2) * 25));
            assert!(groups.bytes_held() <= 3 * 25 * 100_000);
            assert_eq!(groups.between(Ticks90k(0), Ticks90k(25), 0).is_some(), (25..75).contains(&n), "{n}");
        }
        // A group without an end.
        for n in 400..800 {
            groups.push(&unit(n, 100_000), Ticks90k(n), false);
            groups.bytes_held();
        }
        groups.push(&unit(800, 8 << 20), Ticks90k(800), true);
        groups.push(&unit(801, 8 << 20), Ticks90k(801), true);
        groups.push(&unit(802, 1), Ticks90k(802), true);
        assert_eq!(groups.bytes_held(), (8 << 20) + 1);
        // Nobody looks at them.
        for second in 0..100 {
            let pts = Ticks90k(1_000 + second * 90_000);
            groups.push(&unit(pts.0, 1), pts, second % 2 == 0);
        }
        assert!((20..=22).contains(&groups.bytes_held()), "{}", groups.bytes_held());
        groups.clear();
        assert_eq!(groups.bytes_held(), 0);
    }

    fn unit(pts: u64, bytes: usize) -> Arc<AccessUnit> {
        let bytes = vec![0; bytes];
        Arc::new(AccessUnit { pid: Default::default(), codec: Codec::H264, pts: Some(Ticks90k(pts)), dts: None, bytes })
    }
}
