//! `Slew`: follows the clock of the source, which never goes quite like ours.
//!
//! ```text
//!  source against ours ─► earliest of each 10 s ─► slope of 10 min ─► rate of the stream's clock, at most 29 ppm
//!                                       │
//!                                       └─► what is left of it ────► times of access units move, at most 200 ppm
//! ```
//!
//! A receiver follows PCR, and PCR may be wrong by 30 ppm and change its rate by 75 mHz in a second (13818-1 2.4.2.2):
//! from one edge to the other takes it hours. Until then, and for sources that are further off, the times of access units
//! are moved by a tick of 90 kHz here and there, so that they neither come too late nor pile up.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::units::Time;

/// Looks at when access units come and says what to do about it.
#[derive(Debug, Default)]
pub(super) struct Slew {
    /// Access units come at random later than they could; the earliest of a window tells about clocks.
    window: Option<Window>,
    /// The earliest of the last whole windows: when, and what the source was ahead of the caller's clock.
    points: ArrayVec<(Time, i64), POINTS_MAX>,
    /// What access units were ahead of the stream's clock at first, and shall be.
    level_90k: Option<i64>,
    wanted_ppb: i64,
    rate_ppb: i64,
    stepped_at: Option<Time>,
    move_ppb: i64,
    moved_at: Option<Time>,
    /// Billionths of a tick that times are to be moved by.
    rest: i64,
    /// All that times have been moved by.
    moved_90k: i64,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    ends: Time,
    level_90k: i64,
    source_90k: i64,
}

impl Slew {
    /// An access unit came. It is decoded `ahead_90k` after what the stream's clock shows, which itself is `gained_90k`
    /// ahead of the caller's clock.
    pub(super) fn handle_unit(&mut self, now: Time, ahead_90k: i64, gained_90k: i64) {
        let source_90k = ahead_90k + gained_90k - self.moved_90k;
        let window = Window { ends: now + WINDOW, level_90k: ahead_90k, source_90k };
        let current = self.window.get_or_insert(window);
        if now < current.ends {
            current.level_90k = current.level_90k.max(ahead_90k);
            current.source_90k = current.source_90k.max(source_90k);
            return;
        }
        let whole = std::mem::replace(current, window);
        self.close(whole);
    }

    /// The source's times jumped: what was known of them is void. Its clock still has its rate.
    pub(super) fn restart(&mut self) {
        *self = Self {
            rate_ppb: self.rate_ppb,
            wanted_ppb: self.wanted_ppb,
            stepped_at: self.stepped_at,
            ..Self::default()
        };
    }

    /// How much faster than the caller's the stream's clock shall go, in billionths.
    pub(super) fn rate_ppb(&mut self, now: Time) -> i64 {
        let stepped_at = *self.stepped_at.get_or_insert(now);
        let seconds = now.since(stepped_at).as_secs();
        if seconds > 0 && self.wanted_ppb != self.rate_ppb {
            // After a pause, too, not more than a second's share at once.
            let step = self.wanted_ppb - self.rate_ppb;
            self.rate_ppb += step.clamp(-STEP_PPB, STEP_PPB);
        }
        if seconds > 0 {
            self.stepped_at = Some(now);
        }
        self.rate_ppb
    }

    /// By how many ticks of 90 kHz times shall be moved from here on, for good.
    pub(super) fn take_move(&mut self, now: Time) -> i64 {
        let span = now.since(self.moved_at.replace(now).unwrap_or(now)).min(WINDOW);
        if self.move_ppb == 0 {
            return 0;
        }
        // 90,000 ticks in a billion nanoseconds.
        self.rest += span.as_nanos() as i64 * self.move_ppb / 100_000 * 9;
        let ticks = self.rest / BILLION;
        self.rest -= ticks * BILLION;
        self.moved_90k += ticks;
        ticks
    }

    fn close(&mut self, window: Window) {
        if self.points.is_full() {
            self.points.remove(0);
        }
        self.points.push((window.ends, window.source_90k));
        if self.points.len() >= POINTS_MIN {
            let slope_ppb = slope_ppb(&self.points).clamp(-RATE_MAX_PPB, RATE_MAX_PPB);
            self.wanted_ppb = if slope_ppb.abs() < RATE_MIN_PPB { 0 } else { slope_ppb };
        }
        let off_90k = window.level_90k - *self.level_90k.get_or_insert(window.level_90k);
        let beyond_90k = off_90k.signum() * (off_90k.abs() - LEVEL_TOLERANCE_90K).max(0);
        // In a minute, as far as that is allowed. What comes too late must be decoded later.
        self.move_ppb = -(beyond_90k * BILLION / (90_000 * 60)).clamp(-MOVE_MAX_PPB, MOVE_MAX_PPB);
    }
}

/// By least squares, in billionths.
fn slope_ppb(points: &[(Time, i64)]) -> i64 {
    let Some((first, _)) = points.first() else { return 0 };
    let n = points.len() as f64;
    let seconds = |at: &Time| at.since(*first).as_secs_f64();
    let mean_x = points.iter().map(|(at, _)| seconds(at)).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, ticks)| *ticks as f64).sum::<f64>() / n;
    let (mut xx, mut xy) = (0.0, 0.0);
    for (at, ticks) in points {
        let x = seconds(at) - mean_x;
        xx += x * x;
        xy += x * (*ticks as f64 - mean_y);
    }
    if xx > 0.0 { (xy / xx * 1e9 / 90_000.0) as i64 } else { 0 }
}

/// Judgement: longer than most stalls, and a drift of 100 ppm is a millisecond in it.
const WINDOW: Duration = Duration::from_secs(10);
/// Ten minutes: times in milliseconds tell the rate to 1 ppm in it.
const POINTS_MAX: usize = 60;
/// Judgement: a minute.
const POINTS_MIN: usize = 6;
/// 13818-1 2.4.2.2: 27 MHz may be 810 Hz off, which is 30 ppm; the rest is for the caller's clock.
const RATE_MAX_PPB: i64 = 29_000;
/// Below it nothing is worth leaving the caller's clock. Judgement: 43 ms in 12 h.
const RATE_MIN_PPB: i64 = 1_000;
/// In a second; 13818-1 2.4.2.2 allows 75 mHz, 2.7 billionths.
const STEP_PPB: i64 = 2;
/// 5 ms. Judgement: what a network makes of it in ten seconds.
const LEVEL_TOLERANCE_90K: i64 = 450;
/// Judgement: twice the worst clock in use; pictures of 40 ms are 8 us longer, and nobody sees that.
const MOVE_MAX_PPB: i64 = 200_000;
const BILLION: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::*;

    #[test]
    fn a_day_of_a_clock_that_is_off_neither_runs_out_nor_piles_up() {
        for ppm in [0, 1, 30, -30, 100, -100] {
            let day = Day::new(ppm, 86_400);
            let (least, most) = day.levels;
            assert!(least > DELAY_90K - 20 * 90 && most < DELAY_90K + 20 * 90, "{ppm} ppm: {least} to {most}");
            assert!(day.rate_most_ppb <= 30_000, "{ppm} ppm: {} ppb", day.rate_most_ppb);
            // A tone that is in its clock's hands is what a receiver of the last hour gets, as far as 30 ppm go.
            let expected = i64::from(ppm).clamp(-29, 29) * 1_000;
            let tolerance = if ppm.abs() == 1 { 1_000 } else { 1_000.max(expected.abs() / 20) };
            assert!((day.rate_ppb - expected).abs() <= tolerance, "{ppm} ppm: {} ppb", day.rate_ppb);
            assert!(
                ppm.abs() != 30 || day.moved_in_last_hour_90k.abs() <= 10 * 90,
                "{ppm}: {}",
                day.moved_in_last_hour_90k
            );
        }
    }

    #[test]
    fn without_drift_nothing_moves() {
        let day = Day::new(0, 7_200);
        assert_eq!((day.rate_most_ppb, day.moved_90k), (0, 0));
    }

    const DELAY_90K: i64 = 63_000;

    /// What came of some time with an access unit each 400 ms.
    struct Day {
        /// Of all that came as early as it could.
        levels: (i64, i64),
        rate_ppb: i64,
        rate_most_ppb: i64,
        moved_90k: i64,
        moved_in_last_hour_90k: i64,
    }

    impl Day {
        fn new(ppm: i32, seconds: u64) -> Self {
            let (mut slew, mut clock) = (Slew::default(), Clock::new(Time::ZERO, 0));
            let mut day = Self {
                levels: (i64::MAX, i64::MIN),
                rate_ppb: 0,
                rate_most_ppb: 0,
                moved_90k: 0,
                moved_in_last_hour_90k: 0,
            };
            let (mut random, mut now, mut second) = (7_u64, Time::ZERO, 0);
            for n in 0..seconds * 5 / 2 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Up to 3 ms late, one in 64 up to 200 ms, one in 2,048 up to 2 s.
                let late_ms = match random >> 40 & 0x7ff {
                    0 => 2_000,
                    n if n % 64 == 0 => 200,
                    _ => 3,
                };
                let late_ns = if ppm == 0 { 0 } else { (random >> 16 & 0xffff) * late_ms * 1_000_000 / 65_536 };
                let sent_ns = (n as f64 * 4e8 / (1.0 + f64::from(ppm) * 1e-6)) as u64;
                now = now.max(Time::from_ns(sent_ns + late_ns));
                let before = slew.rate_ppb;
                clock.set_rate(now, slew.rate_ppb(now));
                assert!((slew.rate_ppb - before).abs() <= 2 && slew.rate_ppb.abs() <= 30_000);
                assert!(before == slew.rate_ppb || now.as_ns() / 1_000_000_000 >= second);
                second = if before == slew.rate_ppb { second } else { now.as_ns() / 1_000_000_000 };
                let moved = slew.take_move(now);
                day.moved_90k += moved;
                if n >= seconds * 5 / 2 - 9_000 {
                    day.moved_in_last_hour_90k += moved;
                }
                let dts_90k = n as i64 * 36_000 + DELAY_90K + day.moved_90k;
                let ahead_90k = dts_90k - (clock.stc_27m(now) / 300) as i64;
                slew.handle_unit(now, ahead_90k, clock.gained_27m(now) / 300);
                if late_ms == 3 && now.as_ns() == sent_ns + late_ns {
                    day.levels = (day.levels.0.min(ahead_90k), day.levels.1.max(ahead_90k));
                }
                day.rate_most_ppb = day.rate_most_ppb.max(slew.rate_ppb.abs());
            }
            day.rate_ppb = slew.rate_ppb;
            day
        }
    }
}
