//! Who of a listener's callers cannot keep up: looks at all of them once a second, and at none for a single packet.
//!
//! A caller is slow while every second has something that was dropped for it on our side. A second in which it was not
//! heard is no such second: whoever is silent is given up by the idle timeout, and not before.

use std::time::Duration;

use crate::units::Time;

/// When a listener looks at its callers next.
#[derive(Debug)]
pub(super) struct Watch {
    /// Zero never calls anybody slow.
    timeout: Duration,
    last: Time,
}

/// What is known of one caller.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    /// What had been dropped when it was last looked at; `None` if it never was.
    dropped: Option<u64>,
    /// For how long each second has had something dropped.
    slow_for: Duration,
}

impl Watch {
    pub(super) const fn new(timeout: Duration) -> Self {
        Self { timeout, last: Time::ZERO }
    }

    /// How much time has passed, if it is time to look.
    #[inline]
    pub(super) fn due(&mut self, now: Time) -> Option<Duration> {
        let passed = now.since(self.last);
        if passed < SECOND || self.timeout.is_zero() {
            return None;
        }
        self.last = now;
        Some(passed)
    }

    /// Whether a caller has been slow for too long; asked once for each time that [`Watch::due`] gives. `dropped` counts
    /// from when the connection began, `silent_for` from when the caller was last heard.
    pub(super) fn is_slow(&self, passed: Duration, dropped: u64, silent_for: Duration, record: &mut Record) -> bool {
        let dropped_before = record.dropped.replace(dropped);
        let is_slow = dropped_before.is_some_and(|before| before < dropped)
            // A source that paused leaves seconds without any packet.
            && passed < 2 * SECOND
            && silent_for < SILENCE;
        record.slow_for = if is_slow { record.slow_for + passed } else { Duration::ZERO };
        record.slow_for >= self.timeout
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// Whoever has nothing else to say sends a packet a second that keeps the connection alive (draft 3.2.3).
const SILENCE: Duration = Duration::from_millis(1_500);

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many looks, a second apart, a caller is sent away for whom so many packets are dropped in each second.
    fn looks_until_slow(timeout_ms: u64, dropped: impl Fn(u64) -> u64, silent_for: Duration) -> Option<u64> {
        let mut watch = Watch::new(Duration::from_millis(timeout_ms));
        let (mut record, mut sum) = (Record::default(), 0);
        (1..=100).find(|second| {
            sum += dropped(*second);
            let now = Time::ZERO + Duration::from_secs(*second);
            let Some(passed) = watch.due(now) else { return false };
            assert_eq!(watch.due(now + Duration::from_millis(999)), None);
            watch.is_slow(passed, sum, silent_for, &mut record)
        })
    }

    #[test]
    fn whoever_loses_in_every_second_is_slow_after_the_timeout() {
        // The first look only shows where the count begins.
        assert_eq!(looks_until_slow(10_000, |_| 1, Duration::ZERO), Some(11));
        assert_eq!(looks_until_slow(1_000, |_| 1, Duration::ZERO), Some(2));
        assert_eq!(looks_until_slow(0, |_| 1, Duration::ZERO), None);
    }

    #[test]
    fn one_good_second_begins_anew() {
        assert_eq!(looks_until_slow(10_000, |second| u64::from(second % 10 != 0) * 1_000, Duration::ZERO), None);
        assert_eq!(looks_until_slow(10_000, |second| u64::from(second != 8), Duration::ZERO), Some(18));
    }

    #[test]
    fn whoever_is_silent_is_not_slow() {
        assert_eq!(looks_until_slow(10_000, |_| 1, Duration::from_secs(2)), None);
    }

    #[test]
    fn seconds_without_packets_do_not_count() {
        let mut watch = Watch::new(Duration::from_secs(10));
        let mut record = Record::default();
        for n in 1..100_u32 {
            let passed = watch.due(Time::ZERO + n * Duration::from_secs(3)).unwrap();
            assert!(!watch.is_slow(passed, n.into(), Duration::ZERO, &mut record));
        }
    }
}
