//! `PcrMeter`: how regular and how exact the clock references of one PID are (13818-1 2.4.2, ETSI TR 101 290 5.2.2, 5.3).

use std::time::Duration;

use super::packet::PCR_MODULUS_27M;
use crate::units::{Bitrate, Ticks27M, Time};

/// Follows the PCRs of one PID.
///
/// Accuracy is measured without a clock of our own: where the stream's rate is constant, PCR is a straight line over the
/// bytes, and what a PCR is beside that line of the last [`POINTS_MAX`] is its error. A stream whose rate varies has no such
/// line, and no accuracy.
#[derive(Clone, Debug)]
pub struct PcrMeter {
    last: Option<Point>,
    last_at: Time,
    /// Sum of all regular steps, so that it never wraps.
    ticks: i64,
    fitted_at: Option<Time>,
    line: Line,
}

/// What one PCR showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PcrReading {
    /// The PCR itself.
    pub pcr: Ticks27M,
    /// Where its TS packet begins, in bytes of the stream.
    pub position: u64,
    /// Since the one before, unwrapped and with its sign; `None` for the first one and at an announced discontinuity.
    pub step: Option<i64>,
    /// Since the one before, by PCR or by arrival, whichever is less: neither a jump of the clock nor a burst of the network
    /// makes it long. `None` for the first one.
    pub interval: Option<Duration>,
    /// The step lies outside of 0 to 100 ms and no discontinuity was announced (TR 101 290 2.3b).
    pub is_discontinuity_error: bool,
    /// Error of this PCR against those before it; `None` where the rate is not known to be constant, or not yet.
    pub accuracy_ns: Option<i64>,
    /// What PCR and arrival differ by, up to a constant that holds until PCR jumps.
    pub transit_ns: i64,
    /// PCR jumped: what was known of rate, accuracy and transit begins anew.
    pub is_restart: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Point {
    position: u64,
    ticks: i64,
    is_outlier: bool,
}

impl Default for PcrMeter {
    fn default() -> Self {
        Self { last: None, last_at: Time::ZERO, ticks: 0, fitted_at: None, line: Line::default() }
    }
}

impl PcrMeter {
    /// The PCR of a packet that came at `now` and starts at byte `position` of the stream.
    pub fn handle_pcr(&mut self, now: Time, position: u64, pcr: Ticks27M, discontinuity: bool) -> PcrReading {
        let mut reading = PcrReading { pcr, position, is_restart: true, ..PcrReading::default() };
        if let Some(last) = self.last {
            let step = step(Ticks27M(last.ticks as u64), pcr);
            let waited = now.since(self.last_at);
            let by_pcr = u64::try_from(step).ok().filter(|_| !discontinuity).map(to_span);
            reading.interval = Some(by_pcr.map_or(waited, |span| span.min(waited)));
            if !discontinuity {
                reading.step = Some(step);
                reading.is_discontinuity_error = !(0..=STEP_TICKS_MAX).contains(&step);
                reading.is_restart = !(0..=JUMP_TICKS).contains(&step);
            }
            if reading.is_restart {
                self.disturb();
            } else {
                self.ticks += step;
            }
        }
        self.last = Some(Point { position, ticks: pcr.0 as i64, is_outlier: false });
        self.last_at = now;
        reading.transit_ns = (now.as_ns() as i64).wrapping_sub(ticks_to_ns(self.ticks));
        // A hostile stream has a PCR in each packet; a line takes longer than a packet.
        if self.fitted_at.is_none_or(|fitted_at| now.since(fitted_at) >= FIT_INTERVAL || now < fitted_at) {
            self.fitted_at = Some(now);
            reading.accuracy_ns = self.line.handle_point(position, self.ticks);
        }
        reading
    }

    /// Bytes are missing, or nobody knows how many: the line begins anew.
    pub fn disturb(&mut self) {
        self.line = Line::default();
    }

    /// When the last PCR came.
    #[must_use]
    pub const fn last_at(&self) -> Option<Time> {
        if self.last.is_some() { Some(self.last_at) } else { None }
    }

    /// Rate of the whole transport stream by the last PCRs; `None` with fewer than two of them.
    #[must_use]
    pub fn rate(&self) -> Option<Bitrate> {
        self.line.rate()
    }

    /// Whether that rate is constant; `None` while it is not known.
    #[must_use]
    pub const fn is_constant(&self) -> Option<bool> {
        self.line.is_constant
    }
}

/// The last PCRs over their positions, the oldest at `next` once it is full.
#[derive(Clone, Debug)]
struct Line {
    points: [Point; POINTS_MAX],
    len: usize,
    next: usize,
    is_constant: Option<bool>,
}

impl Default for Line {
    fn default() -> Self {
        Self { points: [Point::default(); POINTS_MAX], len: 0, next: 0, is_constant: None }
    }
}

impl Line {
    /// Takes in one more and gives its error against those before.
    fn handle_point(&mut self, position: u64, ticks: i64) -> Option<i64> {
        let mut point = Point { position, ticks, is_outlier: false };
        self.is_constant = self.judge_rate();
        let outliers = self.points[..self.len].iter().filter(|point| point.is_outlier).count();
        if outliers * 2 > self.len {
            // The line was wrong, not they.
            self.points.iter_mut().for_each(|point| point.is_outlier = false);
        }
        let error = self.expected(position).map(|expected| {
            let beside = ticks as f64 - expected;
            (beside * 1_000.0 / TICKS_PER_US) as i64
        });
        let error = error.filter(|_| self.is_constant == Some(true));
        point.is_outlier = error.is_some_and(|error| error.abs() > ACCURACY_NS);
        self.points[self.next] = point;
        self.next = (self.next + 1) % POINTS_MAX;
        self.len = (self.len + 1).min(POINTS_MAX);
        error
    }

    fn oldest_first(&self) -> impl Iterator<Item = &Point> + Clone {
        let (newer, older) = self.points[..self.len].split_at(if self.len < POINTS_MAX { 0 } else { self.next });
        older.iter().chain(newer)
    }

    fn ends(&self) -> Option<(&Point, &Point)> {
        self.oldest_first().next().zip(self.oldest_first().last())
    }

    /// PCR at `position`, by least squares over all points but outliers.
    fn expected(&self, position: u64) -> Option<f64> {
        let (oldest, _) = self.ends()?;
        let (mut n, mut sum_x, mut sum_y) = (0.0, 0.0, 0.0);
        let relative =
            |point: &Point| (point.position.wrapping_sub(oldest.position) as f64, (point.ticks - oldest.ticks) as f64);
        let good = || self.oldest_first().filter(|point| !point.is_outlier).map(relative);
        for (x, y) in good() {
            n += 1.0;
            sum_x += x;
            sum_y += y;
        }
        if n < f64::from(POINTS_TO_JUDGE) {
            return None;
        }
        let (mean_x, mean_y) = (sum_x / n, sum_y / n);
        let (mut xx, mut xy) = (0.0, 0.0);
        for (x, y) in good() {
            xx += (x - mean_x) * (x - mean_x);
            xy += (x - mean_x) * (y - mean_y);
        }
        let slope = if xx > 0.0 { xy / xx } else { return None };
        let x = position.wrapping_sub(oldest.position) as f64;
        Some(oldest.ticks as f64 + mean_y + slope * (x - mean_x))
    }

    fn rate(&self) -> Option<Bitrate> {
        let (oldest, newest) = self.ends()?;
        let ticks = u64::try_from(newest.ticks - oldest.ticks).ok().filter(|ticks| *ticks > 0)?;
        let bits = u128::from(newest.position.saturating_sub(oldest.position)) * 8;
        u64::try_from(bits * 27_000_000 / u128::from(ticks)).ok().map(Bitrate::from_bps)
    }

    /// Whether all but a tenth of the intervals have the rate of the whole, to a 400th. Judgement: that is 100 us in 40 ms, and
    /// errors of PCR are less; a programme cut out of a multiplex varies by percents.
    fn judge_rate(&self) -> Option<bool> {
        if self.len < POINTS_TO_JUDGE as usize {
            return self.is_constant;
        }
        let (oldest, newest) = self.ends()?;
        let whole = (newest.ticks - oldest.ticks) as f64 / newest.position.saturating_sub(oldest.position) as f64;
        let steps = self.oldest_first().zip(self.oldest_first().skip(1));
        let is_off = |(from, to): &(&Point, &Point)| {
            let expected = to.position.saturating_sub(from.position) as f64 * whole;
            ((to.ticks - from.ticks) as f64 - expected).abs() > RATE_TOLERANCE * expected
        };
        Some(steps.filter(is_off).count() * 10 <= self.len)
    }
}

/// From one PCR to the next by the shorter way round.
fn step(from: Ticks27M, to: Ticks27M) -> i64 {
    let ahead = (to.0 + PCR_MODULUS_27M - from.0 % PCR_MODULUS_27M) % PCR_MODULUS_27M;
    if ahead <= PCR_MODULUS_27M / 2 { ahead as i64 } else { ahead as i64 - PCR_MODULUS_27M as i64 }
}

fn to_span(ticks: u64) -> Duration {
    Duration::from_nanos((u128::from(ticks) * 1_000 / 27) as u64)
}

const fn ticks_to_ns(ticks: i64) -> i64 {
    (ticks / 27_000_000).wrapping_mul(1_000_000_000).wrapping_add(ticks % 27_000_000 * 1_000 / 27)
}

/// PCRs that make a line. Judgement: some two seconds at the usual 25 to 40 a second.
pub const POINTS_MAX: usize = 64;
/// What a PCR may be off by (13818-1 2.4.2.3; TR 101 290 2.4).
pub const ACCURACY_NS: i64 = 500;
/// Fewer tell nothing yet. Judgement.
const POINTS_TO_JUDGE: u32 = 16;
/// TR 101 290 2.3b: 100 ms.
const STEP_TICKS_MAX: i64 = 2_700_000;
/// A longer step is another time, not a gap. Judgement: 1 s, ten times what is allowed.
const JUMP_TICKS: i64 = 27_000_000;
const TICKS_PER_US: f64 = 27.0;
/// See [`Line::judge_rate`].
const RATE_TOLERANCE: f64 = 0.0025;
/// Judgement: PCRs are 10 ms apart and more, except in floods.
const FIT_INTERVAL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exact_references_of_a_constant_stream_are_exact() {
        let mut meter = PcrMeter::default();
        let readings: Vec<PcrReading> = (0..200).map(|n| feed(&mut meter, n, 0, false)).collect();
        assert!(readings[1..].iter().all(|reading| reading.interval == Some(Duration::from_millis(40))));
        assert!(readings.iter().all(|reading| !reading.is_discontinuity_error));
        assert!(readings[20..].iter().all(|reading| reading.accuracy_ns.unwrap().abs() < 60));
        assert_eq!((meter.is_constant(), meter.rate()), (Some(true), Some(Bitrate::from_bps(3_760_000))));
    }

    #[test]
    fn one_wrong_reference_is_one_error_of_its_size() {
        let mut meter = PcrMeter::default();
        let error = |n| if n == 100 { 270 } else { 0 };
        let errors: Vec<i64> = (0..200).filter_map(|n| feed(&mut meter, n, error(n), false).accuracy_ns).collect();
        let wrong: Vec<i64> = errors.into_iter().filter(|error| error.abs() > ACCURACY_NS).collect();
        assert_eq!(wrong.len(), 1);
        assert!((9_900..=10_100).contains(&wrong[0]), "{wrong:?}");
    }

    #[test]
    fn a_stream_of_varying_rate_has_no_accuracy() {
        let mut meter = PcrMeter::default();
        for n in 0..200_u64 {
            let position = n * 18_800 + n % 3 * 5_000;
            let reading = meter.handle_pcr(at(n), position, Ticks27M(n * STEP), false);
            assert_eq!(reading.accuracy_ns, None);
        }
        assert_eq!(meter.is_constant(), Some(false));
    }

    #[test]
    fn a_jump_is_an_error_unless_it_was_announced() {
        let mut meter = PcrMeter::default();
        feed(&mut meter, 0, 0, false);
        let announced = feed(&mut meter, 1, 50_000_000, true);
        assert_eq!((announced.is_discontinuity_error, announced.step, announced.is_restart), (false, None, true));
        let back = feed(&mut meter, 2, 0, false);
        assert!(back.is_discontinuity_error && back.is_restart);
        assert_eq!(back.interval, Some(Duration::from_millis(40)), "by arrival");
    }

    #[test]
    fn the_wrap_is_no_jump() {
        let mut meter = PcrMeter::default();
        for n in 0..100 {
            let pcr = Ticks27M((PCR_MODULUS_27M - 50 * STEP + n * STEP) % PCR_MODULUS_27M);
            let reading = meter.handle_pcr(at(n), n * 18_800, pcr, false);
            assert!(!reading.is_discontinuity_error && reading.accuracy_ns.unwrap_or_default().abs() < 60);
        }
    }

    #[test]
    fn another_rate_is_learnt() {
        let mut meter = PcrMeter::default();
        for n in 0..300_u64 {
            let position = if n < 100 { n * 18_800 } else { 1_880_000 + (n - 100) * 37_600 };
            meter.handle_pcr(at(n), position, Ticks27M(n * STEP), false);
        }
        let reading = meter.handle_pcr(at(300), 1_880_000 + 200 * 37_600, Ticks27M(300 * STEP), false);
        assert!(reading.accuracy_ns.unwrap().abs() < 60, "{reading:?}");
    }

    proptest! {
        #[test]
        fn any_clock_is_survived(steps in proptest::collection::vec((any::<u32>(), any::<u64>(), any::<bool>()), 0..200)) {
            let mut meter = PcrMeter::default();
            let (mut now, mut position) = (Time::ZERO, 0_u64);
            for (span, pcr, discontinuity) in steps {
                now += Duration::from_micros(span.into());
                position += u64::from(span);
                meter.handle_pcr(now, position, Ticks27M(pcr % PCR_MODULUS_27M), discontinuity);
            }
        }
    }

    /// 40 ms.
    const STEP: u64 = 1_080_000;

    fn at(n: u64) -> Time {
        Time::from_ns(1_000_000_000 + n * 40_000_000)
    }

    fn feed(meter: &mut PcrMeter, n: u64, error: i64, discontinuity: bool) -> PcrReading {
        let pcr = Ticks27M((n * STEP).saturating_add_signed(error));
        meter.handle_pcr(at(n), n * 18_800, pcr, discontinuity)
    }
}
