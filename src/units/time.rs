//! `Time` (monotonic ns) and the media clocks `Ticks90k` and `Ticks27M`.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment on the monotonic clock, in nanoseconds since an epoch that only the clock's owner knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The epoch itself.
    pub const ZERO: Self = Self(0);

    /// The moment `ns` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// The span from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(saturating_ns(span)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_ns(span)))
    }
}

/// A span longer than 584 years ends at the end of time.
fn saturating_ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Unwrapped ticks of the 90 kHz clock: PTS, DTS, and RTP timestamps of transport streams (RFC 2250).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks90k(pub u64);

impl Ticks90k {
    /// Ticks in `span`, the fraction of a tick cut off.
    #[must_use]
    pub const fn from_span(span: Duration) -> Self {
        // By parts, as a division of 128 bits is slow and this runs for every packet.
        Self(span.as_secs().wrapping_mul(90_000).wrapping_add(span.subsec_nanos() as u64 * 9 / 100_000))
    }
}

/// Unwrapped ticks of the 27 MHz clock: PCR (ISO/IEC 13818-1 2.4.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks27M(pub u64);

impl Ticks27M {
    /// Ticks in `span`, the fraction of a tick cut off.
    #[must_use]
    pub const fn from_span(span: Duration) -> Self {
        Self((span.as_nanos() * 27 / 1_000) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_before_the_epoch_is_the_epoch() {
        assert_eq!(Time::from_ns(5) - Duration::from_secs(1), Time::ZERO);
        assert_eq!(Time::ZERO.since(Time::from_ns(9)), Duration::ZERO);
    }

    #[test]
    fn one_second_is_the_clock_rate() {
        assert_eq!(Ticks90k::from_span(Duration::from_secs(1)), Ticks90k(90_000));
        assert_eq!(Ticks90k::from_span(Duration::new(3, 999_999_999)), Ticks90k(4 * 90_000 - 1));
        assert_eq!(Ticks27M::from_span(Duration::from_secs(1)), Ticks27M(27_000_000));
    }
}
