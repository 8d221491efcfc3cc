//! `Groups`: the coded pictures that came last, in case it has to be proven when exactly something began or ended.

use std::collections::VecDeque;
use std::sync::Arc;

use super::job::JOB_UNITS_MAX;
use crate::media::boundary::{BYTES_MAX, GROUPS_MAX};
use crate::proto::mpegts::demux::AccessUnit;
use crate::units::Ticks90k;

/// Whole groups of pictures, the last one growing. Never more than [`BYTES_MAX`] and one group more than are decoded at
/// once: a freeze is seen one picture after the one that it began with.
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

    /// The next picture.
    pub(super) fn push(&mut self, unit: &Arc<AccessUnit>, pts: Ticks90k, is_key: bool) {
        if self.units.is_empty() && !is_key {
            return;
        }
        if is_key {
            while self.units.iter().filter(|unit| unit.is_key).count() > GROUPS_MAX {
                self.drop_group();
            }
        }
        self.bytes += unit.bytes.len();
        self.units.push_back(Unit { unit: Arc::clone(unit), pts, is_key });
        while self.bytes > BYTES_MAX || self.units.len() > JOB_UNITS_MAX {
            self.drop_group();
        }
    }

    /// Something is missing: what came does not go on.
    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.bytes = 0;
    }

    /// What has to be decoded to know all that was shown from one picture that can be decoded alone to another; `None` if it
    /// is not there any more, or too much.
    pub(super) fn between(&self, from: Ticks90k, to: Ticks90k) -> Option<Vec<Arc<AccessUnit>>> {
        let is_at = |unit: &Unit, pts| unit.is_key && unit.pts == pts;
        let first = self.units.iter().position(|unit| is_at(unit, from))?;
        let last = self.units.iter().position(|unit| is_at(unit, to)).filter(|last| *last > first)?;
        let keys = self.units.range(first..last).filter(|unit| unit.is_key).count();
        // Behind it come pictures that are shown before it.
        let leading = self.units.range(last + 1..).take_while(|unit| unit.pts < to && !unit.is_key).count();
        let units = self.units.range(first..=last + leading).map(|unit| Arc::clone(&unit.unit));
        (keys <= GROUPS_MAX).then(|| units.collect())
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn bytes_held(&self) -> usize {
        assert_eq!(self.bytes, self.units.iter().map(|unit| unit.unit.bytes.len()).sum::<usize>());
        assert!(self.bytes <= BYTES_MAX && self.units.len() <= JOB_UNITS_MAX);
        self.bytes
    }

    fn drop_group(&mut self) {
        let mut is_first = true;
        while self.units.front().is_some_and(|unit| is_first || !unit.is_key) {
            is_first = false;
            if let Some(dropped) = self.units.pop_front() {
                self.bytes -= dropped.unit.bytes.len();
            }
        }
    }
}

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
        let times = |from, to| -> Option<Vec<u64>> {
            let units = groups.between(Ticks90k(from), Ticks90k(to))?;
            Some(units.iter().map(|unit| unit.pts.unwrap().0).collect())
        };
        assert_eq!(times(10, 40), Some(vec![10, 20, 40, 25, 30]));
        assert_eq!(times(40, 80), Some(vec![40, 25, 30, 60, 80, 70]));
        assert_eq!(times(10, 80).map(|times| times.len()), Some(8));
        assert_eq!((times(20, 80), times(80, 40), times(9, 40)), (None, None, None));
    }

    #[test]
    fn no_more_is_kept_than_may_be_decoded() {
        let mut groups = Groups::new();
        for n in 0..400 {
            groups.push(&unit(n, 100_000), Ticks90k(n), n % 25 == 0);
            assert!(groups.bytes_held() <= 3 * 25 * 100_000);
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
        groups.clear();
        assert_eq!(groups.bytes_held(), 0);
    }

    fn unit(pts: u64, bytes: usize) -> Arc<AccessUnit> {
        let bytes = vec![0; bytes];
        Arc::new(AccessUnit { pid: Default::default(), codec: Codec::H264, pts: Some(Ticks90k(pts)), dts: None, bytes })
    }
}
