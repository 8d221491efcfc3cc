//! NTP time as RTCP carries it (RFC 3550 4): the only wall-clock time in a core.

use std::time::Duration;

use crate::units::Time;

/// NTP time at `now`: seconds since 1900 in the upper half, wrapping in 2036, their fraction in the lower.
pub(in crate::proto) const fn ntp_at(unix_ns_at_zero: u64, now: Time) -> u64 {
    let unix_ns = unix_ns_at_zero.saturating_add(now.as_ns());
    let seconds = unix_ns / NS_PER_SECOND + UNIX_EPOCH_SECONDS;
    let fraction = ((unix_ns % NS_PER_SECOND) << 32) / NS_PER_SECOND;
    seconds << 32 | fraction
}

/// The middle 32 bits: seconds modulo 65,536 in units of 1/65,536 s.
pub(in crate::proto) const fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A span in units of 1/65,536 s; 18 hours if it is longer.
pub(in crate::proto) fn short_from_span(span: Duration) -> u32 {
    u32::try_from(span.as_nanos() * 65_536 / u128::from(NS_PER_SECOND)).unwrap_or(u32::MAX)
}

/// The span of so many units of 1/65,536 s.
pub(in crate::proto) const fn span_from_short(short: u32) -> Duration {
    Duration::from_nanos(short as u64 * NS_PER_SECOND / 65_536)
}

/// From 1900 to 1970 (RFC 868).
const UNIX_EPOCH_SECONDS: u64 = 2_208_988_800;
const NS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unix_epoch_has_its_known_ntp_time() {
        assert_eq!(ntp_at(0, Time::ZERO), 0x83aa_7e80_0000_0000);
        assert_eq!(ntp_at(1_000_000_000, Time::from_ns(500_000_000)), 0x83aa_7e81_8000_0000);
        assert_eq!(middle(0x83aa_7e81_8000_0000), 0x7e81_8000);
    }

    #[test]
    fn short_spans_survive_within_a_unit() {
        for ms in [0, 1, 20, 999, 60_000] {
            let span = Duration::from_millis(ms);
            let error = span - span_from_short(short_from_span(span));
            assert!(error < Duration::from_micros(16), "{ms}: {error:?}");
        }
        assert_eq!(short_from_span(Duration::from_secs(1 << 20)), u32::MAX);
    }
}
