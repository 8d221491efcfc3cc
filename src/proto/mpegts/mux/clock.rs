//! The stream's own clock: the caller's time, at a rate of its own.

use std::time::Duration;

use crate::units::{Ticks27M, Time};

/// How much of the stream has passed, and when so much will have. It begins at the pace of the caller's clock, and may go
/// faster or slower by parts of a billion; it never jumps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// What it shows at its beginning.
    pub(super) start_27m: u64,
    start: Time,
    /// When the rate changed last, and what of the stream had passed by then.
    changed_at: Time,
    passed: Duration,
    rate_ppb: i64,
}

impl Clock {
    /// It begins at `now`.
    pub(super) const fn new(now: Time, start_27m: u64) -> Self {
        Self { start_27m, start: now, changed_at: now, passed: Duration::ZERO, rate_ppb: 0 }
    }

    /// From now on it is faster than the caller's by so many billionths.
    pub(super) fn set_rate(&mut self, now: Time, rate_ppb: i64) {
        if rate_ppb != self.rate_ppb {
            self.passed = self.elapsed(now);
            self.changed_at = now.max(self.changed_at);
            self.rate_ppb = rate_ppb;
        }
    }

    /// What of the stream has passed at `now`; at a moment before the last change what had passed then.
    pub(super) fn elapsed(self, now: Time) -> Duration {
        let since = now.since(self.changed_at);
        if self.rate_ppb == 0 {
            return self.passed + since;
        }
        let ns = since.as_nanos() * u128::from(self.scaled_billion()) / BILLION;
        self.passed + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// The first moment at which so much of it has passed, for what is yet to come; about that moment for what is past.
    pub(super) fn moment(self, elapsed: Duration) -> Time {
        let to_come = elapsed.saturating_sub(self.passed);
        let past = self.passed.saturating_sub(elapsed);
        if self.rate_ppb == 0 {
            return self.changed_at + to_come - past;
        }
        let ns = (to_come.as_nanos() * BILLION).div_ceil(u128::from(self.scaled_billion()));
        self.changed_at + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)) - past
    }

    pub(super) fn elapsed_27m(self, now: Time) -> u64 {
        Ticks27M::from_span(self.elapsed(now)).0
    }

    /// What it is ahead of the caller's clock since its beginning.
    pub(super) fn gained_27m(self, now: Time) -> i64 {
        let passed = now.since(self.start);
        Ticks27M::from_span(self.elapsed(now)).0 as i64 - Ticks27M::from_span(passed).0 as i64
    }

    /// What it shows, unwrapped.
    pub(super) fn stc_27m(self, now: Time) -> u64 {
        self.start_27m + self.elapsed_27m(now)
    }

    /// The first moment at which so many ticks have passed.
    pub(super) fn time_of(self, elapsed_27m: u64) -> Time {
        let ns = (u128::from(elapsed_27m) * 1_000).div_ceil(27);
        self.moment(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }

    const fn scaled_billion(self) -> u64 {
        (BILLION as u64).saturating_add_signed(self.rate_ppb)
    }
}

const BILLION: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_moment_is_the_first_at_which_so_much_has_passed(
            changes in proptest::collection::vec((0_u64..2_000_000_000, -30_000_i64..30_000), 0..20), ahead in 0_u64..1 << 40
        ) {
            let mut now = Time::from_ns(77);
            let mut clock = Clock::new(now, 0);
            for (span, rate_ppb) in changes {
                let before = clock.elapsed(now);
                now += Duration::from_nanos(span);
                let after = clock.elapsed(now);
                prop_assert!(after >= before);
                clock.set_rate(now, rate_ppb);
                prop_assert_eq!(clock.elapsed(now), after);
            }
            let elapsed = clock.elapsed(now) + Duration::from_nanos(ahead);
            let moment = clock.moment(elapsed);
            prop_assert!(clock.elapsed(moment) >= elapsed);
            prop_assert!(ahead == 0 || clock.elapsed(moment - Duration::from_nanos(1)) < elapsed);
        }
    }
}
