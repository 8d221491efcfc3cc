//! The difference between a source's clock and the stream's own, which changes when the source's jumps.

use std::time::Duration;

use super::stats::Stats;
use crate::units::Time;

/// What is added to the source's times, modulo 2^33. The one before is kept for tracks that jump a little later.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    current_90k: Option<u64>,
    previous_90k: Option<u64>,
    late_since: Option<Time>,
}

impl Offsets {
    /// What comes from now on is decoded so much later.
    pub(super) const fn move_by(&mut self, ticks_90k: i64) {
        if let Some(current) = self.current_90k.as_mut() {
            *current = current.wrapping_add_signed(ticks_90k);
        }
    }

    /// Where `dts` lies on the stream's unwrapped clock, which shows `stc`. When that is nowhere near, what comes from
    /// now on is moved so that this one is decoded at `from`.
    pub(super) fn place(&mut self, now: Time, dts: u64, (stc, delay, from): (u64, u64, u64), stats: &mut Stats) -> u64 {
        let near = -TOO_LATE_90K..=TOO_EARLY_90K.saturating_add_unsigned(delay);
        let ahead = [self.current_90k, self.previous_90k]
            .into_iter()
            .flatten()
            .map(|offset| difference(stc, dts.wrapping_add(offset)))
            .find(|ahead| near.contains(ahead));
        let Some(ahead) = ahead.filter(|ahead| !self.is_late_for_long(now, *ahead)) else {
            stats.rebased += u64::from(self.current_90k.is_some());
            self.previous_90k = self.current_90k.replace(from.wrapping_sub(dts));
            self.late_since = None;
            return from;
        };
        stc.saturating_add_signed(ahead)
    }

    fn is_late_for_long(&mut self, now: Time, ahead: i64) -> bool {
        if ahead >= 0 {
            self.late_since = None;
            return false;
        }
        now.since(*self.late_since.get_or_insert(now)) >= LATE_FOR_LONG
    }
}

/// From `from` to `to` by the shorter way round 2^33.
pub(super) const fn difference(from: u64, to: u64) -> i64 {
    const UNUSED_BITS: u32 = 64 - 33;
    (to.wrapping_sub(from) << UNUSED_BITS) as i64 >> UNUSED_BITS
}

/// An access unit that is so late or so early comes from a clock that jumped. Judgement: longer than a sender over TCP
/// stalls or bursts.
const TOO_LATE_90K: i64 = 3 * 90_000;
const TOO_EARLY_90K: i64 = 10 * 90_000;
/// What is late for longer will not catch up. Judgement: longer than a stall that ends in a burst.
const LATE_FOR_LONG: Duration = Duration::from_secs(2);
