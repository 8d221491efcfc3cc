//! `Snap`: gives times that were cut to milliseconds, as those of RTMP are, back what they lost.

use arrayvec::ArrayVec;

/// Finds out how long the access units of a track are, and puts their times onto that grid while they keep to it.
///
/// Only where all of them are whole milliseconds and off the grid by no more than cutting or rounding makes of it. The
/// grid follows a clock that differs a little from that of the milliseconds.
#[derive(Debug, Default)]
pub(super) struct Snap {
    learnt: ArrayVec<u64, UNITS_TO_LEARN>,
    grid: Option<Grid>,
}

#[derive(Clone, Copy, Debug)]
struct Grid {
    origin_90k: u64,
    /// Of the last access unit.
    index: u64,
    period: Period,
    /// Where the origin moves to, a tick with each access unit, until they lie on the other side of it: -1, 0 or 1.
    slew: i64,
}

/// Ticks of 90 kHz as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Period(u64, u64);

impl Snap {
    /// The DTS that the access unit with `dts_90k` really has.
    pub(super) fn dts(&mut self, dts_90k: u64) -> u64 {
        let is_whole = dts_90k.is_multiple_of(MS_90K);
        if let Some(grid) = self.grid.as_mut() {
            if let Some(exact) = grid.place(dts_90k).filter(|_| is_whole) {
                return exact;
            }
            *self = Self::default();
        }
        if !is_whole {
            self.learnt.clear();
            return dts_90k;
        }
        self.learnt.push(dts_90k);
        if self.learnt.is_full() {
            self.grid = learn(&self.learnt);
            self.learnt.clear();
        }
        self.grid.map_or(dts_90k, |grid| grid.at(grid.index))
    }

    /// How long after that it really is shown, `shown_after_90k` being what its times say.
    pub(super) fn shown_after(&self, shown_after_90k: i64) -> i64 {
        let Some(Grid { period, .. }) = self.grid else { return shown_after_90k };
        let Ok(span) = u64::try_from(shown_after_90k) else { return shown_after_90k };
        let exact = period.times(period.fits_into(span));
        if exact.abs_diff(span) <= 2 * TOLERANCE_90K { exact as i64 } else { shown_after_90k }
    }
}

impl Grid {
    const fn at(&self, index: u64) -> u64 {
        self.origin_90k.wrapping_add(self.period.times(index))
    }

    /// Where the next access unit lies, or one after some that are missing; `None` if it is not on the grid.
    fn place(&mut self, dts_90k: u64) -> Option<u64> {
        let since = dts_90k.wrapping_sub(self.at(self.index));
        if since > GAP_MAX_90K {
            return None;
        }
        let index = self.index + self.period.fits_into(since).max(1);
        let off = dts_90k.wrapping_sub(self.at(index)) as i64;
        if off.unsigned_abs() > 2 * TOLERANCE_90K {
            return None;
        }
        self.index = index;
        if off.unsigned_abs() > TOLERANCE_90K {
            self.slew = off.signum();
        } else if off.signum() != self.slew {
            self.slew = 0;
        }
        self.origin_90k = self.origin_90k.wrapping_add_signed(self.slew);
        Some(self.at(index))
    }
}

impl Period {
    const fn times(self, count: u64) -> u64 {
        (count.saturating_mul(self.0) + self.1 / 2) / self.1
    }

    /// How many of it come closest to `span`.
    const fn fits_into(self, span: u64) -> u64 {
        (span.saturating_mul(self.1) + self.0 / 2) / self.0
    }
}

/// The grid that these lie on, if there is one: the usual period that leaves least.
fn learn(units: &[u64]) -> Option<Grid> {
    let first = *units.first()?;
    let off_by = |period: Period| {
        let off = (0..).zip(units).map(|(n, dts)| dts.wrapping_sub(first).wrapping_sub(period.times(n)) as i64);
        let (least, most) = off.fold((i64::MAX, i64::MIN), |(least, most), off| (least.min(off), most.max(off)));
        (most.saturating_sub(least), least, period)
    };
    let (spread, least, period) = PERIODS.into_iter().map(off_by).min_by_key(|(spread, ..)| *spread)?;
    let origin_90k = first.wrapping_add_signed(least + spread / 2);
    let index = units.len() as u64 - 1;
    (spread <= SPREAD_MAX_90K).then_some(Grid { origin_90k, index, period, slew: 0 })
}

const MS_90K: u64 = 90;
/// Half a millisecond.
const TOLERANCE_90K: u64 = 45;
/// A millisecond, and one for the rounding of ours.
const SPREAD_MAX_90K: i64 = 91;
/// Judgement: with more missing the grid may be another.
const GAP_MAX_90K: u64 = 90_000;
/// Enough to tell 59.94 from 60 Hz: 1.05 ms.
const UNITS_TO_LEARN: usize = 64;

/// Pictures of 10 to 60 Hz; frames of 1,024, 1,152, 1,536 and 2,048 samples at the usual rates; Opus.
const PERIODS: [Period; 25] = [
    Period(9_000, 1),
    Period(7_500, 1),
    Period(6_000, 1),
    Period(4_500, 1),
    Period(15_015, 4),
    Period(3_750, 1),
    Period(3_600, 1),
    Period(3_003, 1),
    Period(3_000, 1),
    Period(1_875, 1),
    Period(1_800, 1),
    Period(3_003, 2),
    Period(1_500, 1),
    Period(1_920, 1),
    Period(102_400, 49),
    Period(2_880, 1),
    Period(3_840, 1),
    Period(204_800, 49),
    Period(5_760, 1),
    Period(2_160, 1),
    Period(115_200, 49),
    Period(3_240, 1),
    Period(153_600, 49),
    Period(900, 1),
    Period(5_400, 1),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_milliseconds_become_exact_times() {
        for period in PERIODS {
            for cut in [0, 45, 89] {
                let mut snap = Snap::default();
                let exact = |n: u64| 1_000_000 + period.times(n);
                let times: Vec<u64> = (0..2_000).map(|n| snap.dts((exact(n) + cut) / 90 * 90)).collect();
                let steps: Vec<u64> = times[64..].windows(2).map(|pair| pair[1] - pair[0]).collect();
                let (least, most) = (period.0 / period.1, period.0.div_ceil(period.1));
                // A tick more or less where the first ones did not show all that cutting does.
                let odd: Vec<&u64> = steps.iter().filter(|step| !(least - 1..=most + 1).contains(*step)).collect();
                assert!(odd.is_empty(), "{period:?}: {odd:?}");
                assert!((64..2_000).all(|n| times[n as usize].abs_diff(exact(n)) <= 91), "{period:?}");
            }
        }
    }

    #[test]
    fn a_missing_picture_is_a_gap_and_other_pictures_are_another_grid() {
        let mut snap = Snap::default();
        let ms = |n: u64| n * 1_001 / 30 * 90;
        (0..100).for_each(|n| _ = snap.dts(ms(n)));
        let after = snap.dts(ms(102));
        assert_eq!(after - snap.grid.unwrap().at(99), 3 * 3_003);
        // Pictures shown two later; another period, as a track of 25 Hz would have it.
        assert_eq!(snap.shown_after(67 * 90), 6_006);
        assert_eq!(snap.shown_after(45 * 90), 4_050);
        let from = ms(102);
        let others: Vec<u64> = (1..200).map(|n| snap.dts(from + n * 3_600) - from).collect();
        assert_eq!(others[..2], [3_600, 7_200]);
        assert_eq!(others[150], 151 * 3_600);
    }

    #[test]
    fn a_clock_that_differs_a_little_is_followed() {
        let mut snap = Snap::default();
        // 100 ppm, for an hour of 25 Hz.
        let times: Vec<(u64, u64)> = (0..90_000_u64)
            .map(|n| {
                let real = n * 3_600 + n * 36 / 100;
                (real, snap.dts(real / 90 * 90))
            })
            .collect();
        assert!(times[64..].iter().all(|(real, snapped)| real.abs_diff(*snapped) <= 180));
        let steps = times[64..].windows(2).map(|pair| pair[1].1 - pair[0].1);
        let odd: Vec<(usize, u64)> = steps.enumerate().filter(|(_, step)| !(3_599..=3_601).contains(step)).collect();
        assert!(odd.is_empty(), "{odd:?}");
    }

    proptest! {
        #[test]
        fn times_are_never_moved_by_more_than_a_millisecond(
            start in any::<u64>(), steps in proptest::collection::vec(0_u64..100, 0..300)
        ) {
            let mut snap = Snap::default();
            let mut dts = start / 90 * 90;
            for step in steps {
                dts = dts.wrapping_add((30 + step / 25) * 90);
                prop_assert!((snap.dts(dts).wrapping_sub(dts) as i64).abs() <= 91);
            }
        }
    }
}
