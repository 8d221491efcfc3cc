//! The one place that reads the time.
#![allow(clippy::disallowed_methods, reason = "this is where the time is read")]

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::units::Time;

/// Monotonic time since the process first asked.
#[must_use]
pub fn now() -> Time {
    let epoch = EPOCH.get_or_init(Instant::now);
    // One second in, so that spans may reach back from the very first moment.
    Time::ZERO + epoch.elapsed() + Duration::from_secs(1)
}

/// Wall-clock time, for events, the store and RTCP.
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Wall-clock nanoseconds since 1970.
#[must_use]
pub fn unix_ns() -> u64 {
    wall().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Wall-clock nanoseconds since 1970 at [`Time::ZERO`].
#[must_use]
pub fn unix_ns_at_zero() -> u64 {
    unix_ns().saturating_sub(now().as_ns())
}

static EPOCH: OnceLock<Instant> = OnceLock::new();
