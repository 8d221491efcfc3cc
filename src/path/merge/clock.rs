//! When a packet is due if all are to have the same delay: the sender's clock as seen from here.
//!
//! A packet is due the recovery window after the moment at which the fastest way would have brought it, which its RTP
//! timestamp tells. The fastest way is measured all the time; what changes of it after a while of learning is drift of
//! the two clocks, or ways that come and go, and is followed slowly so that the delay stays constant.

use std::time::Duration;

use crate::units::Time;

/// Maps RTP timestamps of 90 kHz to moments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReleaseClock {
    mapped: Option<Mapped>,
    learning_until: Time,
}

#[derive(Clone, Copy, Debug)]
struct Mapped {
    /// The latest timestamp, and the same without wraps since the first.
    timestamp: u32,
    ticks: i64,
    /// Arrival less media time, for a packet that takes the fastest way.
    base_ns: i64,
    /// The least of that in this period.
    least_ns: i64,
    period_end: Time,
}

impl ReleaseClock {
    /// From now on whatever is faster than known counts at once, for a while.
    pub(super) fn learn(&mut self, now: Time) {
        self.learning_until = now + LEARNING;
    }

    /// Forgets everything.
    pub(super) fn restart(&mut self, now: Time) {
        self.mapped = None;
        self.learn(now);
    }

    /// When a packet is due that came at `now` before any copy of it. Without a timestamp, or with one that is beyond
    /// belief, that is the window after it came.
    pub(super) fn due(&mut self, now: Time, timestamp: Option<u32>, window: Duration) -> Time {
        let Some(timestamp) = timestamp else {
            return now + window;
        };
        let now_ns = i64::try_from(now.as_ns()).unwrap_or(i64::MAX);
        let Some(mapped) = &mut self.mapped else {
            self.mapped =
                Some(Mapped { timestamp, ticks: 0, base_ns: now_ns, least_ns: i64::MAX, period_end: now + PERIOD });
            return now + window;
        };
        let ticks = mapped.ticks + i64::from(timestamp.wrapping_sub(mapped.timestamp).cast_signed());
        let media_ns = ticks.saturating_mul(100_000) / 9;
        let taken_ns = now_ns.saturating_sub(media_ns);
        let tolerance = (window * 2).max(TOLERANCE_MIN);
        if u128::from(taken_ns.abs_diff(mapped.base_ns)) > tolerance.as_nanos() {
            self.restart(now);
            return self.due(now, Some(timestamp), window);
        }
        if ticks > mapped.ticks {
            (mapped.timestamp, mapped.ticks) = (timestamp, ticks);
        }
        if now < self.learning_until {
            mapped.base_ns = mapped.base_ns.min(taken_ns);
        }
        mapped.least_ns = mapped.least_ns.min(taken_ns);
        if now >= mapped.period_end {
            mapped.base_ns += (mapped.least_ns - mapped.base_ns).clamp(-STEP_NS, STEP_NS);
            (mapped.least_ns, mapped.period_end) = (i64::MAX, now + PERIOD);
        }
        let due_ns = mapped.base_ns.saturating_add(media_ns);
        (Time::from_ns(u64::try_from(due_ns).unwrap_or(0)) + window).min(now + window * 2)
    }
}

/// Judgement: the ways of one programme have shown by then which is the fastest.
const LEARNING: Duration = Duration::from_secs(2);

/// After each the mapping moves by at most [`STEP_NS`], which together are 100 ppm: twice what crystal clocks differ by.
const PERIOD: Duration = Duration::from_secs(10);
const STEP_NS: i64 = 1_000_000;

/// Further off, or off by two windows, a timestamp says nothing. Judgement: more than senders burst.
const TOLERANCE_MIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(200);

    #[test]
    fn the_delay_is_that_of_the_fastest_way_and_the_window() {
        let mut clock = ReleaseClock::default();
        clock.restart(ms(1_000));
        let mut first = u32::MAX - 500;
        for n in 0..10_000_u64 {
            // Every tenth packet comes at once, others up to 45 ms later.
            let due = clock.due(ms(1_000 + n + n % 10 * 5), Some(first.wrapping_add(n as u32 * 90)), WINDOW);
            assert_eq!(due, ms(1_200 + n), "{n}");
        }
        first = 7;
        assert_eq!(clock.due(ms(11_000), Some(first), WINDOW), ms(11_200), "a clock that jumps");
        assert_eq!(clock.due(ms(11_000), None, WINDOW), ms(11_200));
    }

    #[test]
    fn a_faster_way_counts_at_once_while_learning_and_slowly_later() {
        let mut clock = ReleaseClock::default();
        clock.restart(ms(0));
        let mut due = |at_ms: u64, sent_ms: u64| clock.due(ms(at_ms), Some((sent_ms * 90) as u32), WINDOW);
        assert_eq!(due(150, 0), ms(350));
        assert_eq!(due(152, 100), ms(352), "50 ms on the way");
        assert_eq!(due(250, 101), ms(353));
        for sent in (2_000..60_000).step_by(100) {
            let delay_ms = due(sent + 20, sent).since(ms(sent)).as_millis();
            assert_eq!(delay_ms, 252 - u128::from((sent + 20 - 150) / 10_000), "sent at {sent}");
        }
    }

    #[test]
    fn a_clock_that_drifts_is_followed() {
        let mut clock = ReleaseClock::default();
        clock.restart(ms(0));
        for n in 0..3_600_000_u64 {
            // 50 ppm slow.
            let ticks = n * 90 - n * 90 / 20_000;
            let due = clock.due(ms(n), Some(ticks as u32), WINDOW);
            let off_us = due.as_ns().abs_diff(ms(n + 200).as_ns()) / 1_000;
            assert!(off_us < 1_600, "{off_us} us at {n}");
        }
    }

    #[test]
    fn nonsense_does_not_overflow() {
        for at in [0, u64::MAX] {
            let mut clock = ReleaseClock::default();
            for timestamp in [0, 1, i32::MAX as u32, 1 << 31, u32::MAX, 0] {
                for _ in 0..3 {
                    let _ = clock.due(Time::from_ns(at), Some(timestamp), Duration::from_secs(15));
                }
            }
        }
    }

    fn ms(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }
}
