//! Relaxed counters that one thread writes and snapshots read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Bitrate, Time};

/// A number with one writing thread and any number of readers. Writing costs a plain load and store.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `by`. Only the owning thread may call this: two adders at once would lose counts.
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value as last written.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Bit rate over the last full window of about a second, without any timer: the writer closes a window when it
/// passes by, the reader takes a silent writer for silence.
#[derive(Debug, Default)]
pub struct RateMeter {
    window_start_ns: Counter,
    window_bytes: Counter,
    rate_bps: Counter,
}

impl RateMeter {
    const WINDOW: Duration = Duration::from_secs(1);
    /// Less than this says nothing yet.
    const SHORTEST: Duration = Duration::from_millis(100);
    /// A writer silent for this long counts as stopped.
    const STALE: Duration = Duration::from_millis(2_500);

    /// Counts `bytes` that moved at `now`. One writing thread only.
    pub fn add(&self, now: Time, bytes: u64) {
        let start = Time::from_ns(self.window_start_ns.value());
        let span = now.since(start);
        if span < Self::WINDOW {
            self.window_bytes.add(bytes);
            return;
        }
        let rate = if span < Self::STALE {
            u128::from(self.window_bytes.value()) * 8_000_000_000 / span.as_nanos()
        } else {
            0
        };
        self.rate_bps.set(u64::try_from(rate).unwrap_or(u64::MAX));
        self.window_start_ns.set(now.as_ns());
        self.window_bytes.set(bytes);
    }

    /// The rate of the last full window; of the running one while it is the first, or longer than a full one because
    /// little or nothing comes any more.
    #[must_use]
    pub fn rate(&self, now: Time) -> Bitrate {
        let span = now.since(Time::from_ns(self.window_start_ns.value()));
        if span >= Self::STALE {
            return Bitrate::ZERO;
        }
        let closed = self.rate_bps.value();
        if span < Self::SHORTEST || (span < Self::WINDOW && closed > 0) {
            return Bitrate::from_bps(closed);
        }
        let running = u128::from(self.window_bytes.value()) * 8_000_000_000 / span.as_nanos();
        Bitrate::from_bps(u64::try_from(running).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_traffic_shows_its_rate_and_silence_shows_zero() {
        let meter = RateMeter::default();
        let mut now = Time::from_ns(5_000_000_000);
        for _ in 0..3_000 {
            meter.add(now, 1_250);
            now += Duration::from_millis(1);
        }
        let bps = meter.rate(now).as_bps();
        assert!((9_900_000..=10_100_000).contains(&bps), "{bps}");
        let later = meter.rate(now + Duration::from_millis(1_500)).as_bps();
        assert!(later < 7_000_000, "{later}");
        assert_eq!(meter.rate(now + Duration::from_secs(3)), Bitrate::ZERO);
    }
}
