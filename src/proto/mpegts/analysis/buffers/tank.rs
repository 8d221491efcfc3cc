//! `Tank`: a buffer of a decoder that empties itself at a constant rate while there is anything in it.

use super::clock::{Moment, SECOND_27M};
use crate::units::{Bitrate, DataSize};

/// How full it is. It counts in parts of a byte, so that leaking for a tick leaves something behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tank {
    level: u64,
    size: u64,
    /// For each tick of 27 MHz.
    leak: u64,
    /// As of when.
    at: i64,
    /// When it was empty last.
    empty_at: i64,
}

impl Tank {
    /// An empty one.
    pub(super) fn new(size: DataSize, leak: Bitrate, at: i64) -> Self {
        Self { level: 0, size: size.as_bytes() << PART_BITS, leak: leak_of(leak), at, empty_at: at }
    }

    /// `bytes` flow in from a moment on, for as long as a TS packet lasts. True if that is too much; then what is too much is
    /// lost.
    #[inline]
    pub(super) fn fill(&mut self, moment: Moment, bytes: usize) -> bool {
        let gap = moment.at.saturating_sub(self.at).clamp(0, SECOND_27M) as u64;
        let left = self.level.saturating_sub(self.leak * gap);
        if left == 0 {
            self.empty_at = moment.at;
        }
        let leaked = self.leak * moment.packet_27m;
        self.level = (left + ((bytes as u64) << PART_BITS)).saturating_sub(leaked);
        self.at = moment.at.saturating_add(moment.packet_27m as i64);
        let is_over = self.level > self.size;
        self.level = self.level.min(self.size);
        is_over
    }

    /// Whether it has not been empty for a second; the next one begins then.
    #[inline]
    pub(super) const fn is_never_empty(&mut self) -> bool {
        let is_never_empty = self.at - self.empty_at > SECOND_27M;
        if is_never_empty {
            self.empty_at = self.at;
        }
        is_never_empty
    }

    /// It leaks as fast as that from now on.
    pub(super) fn set_leak(&mut self, leak: Bitrate) {
        self.leak = leak_of(leak);
    }

    /// Whole bytes in it, as of the last time.
    #[inline]
    pub(super) const fn bytes(&self) -> u64 {
        self.level >> PART_BITS
    }
}

fn leak_of(rate: Bitrate) -> u64 {
    let parts = (u128::from(rate.as_bps()) << PART_BITS) / (8 * SECOND_27M as u128);
    u64::try_from(parts).unwrap_or(u64::MAX).min(LEAK_MAX)
}

const PART_BITS: u32 = 32;
/// 10 Gb/s: more than any decoder takes, and what a second of it makes is a number.
const LEAK_MAX: u64 = 1 << 38;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_fills_up_by_what_comes_faster_than_it_leaks() {
        // 188 bytes in 1 ms are 1.504 Mb/s, of which 0.752 Mb/s leak.
        let moment = |n: i64| Moment { at: n * 27_000, packet_27m: 27_000 };
        let mut tank = Tank::new(DataSize::from_bytes(512), Bitrate::from_bps(752_000), 0);
        let overflows: Vec<bool> = (0..7).map(|n| tank.fill(moment(n), 188)).collect();
        assert_eq!(overflows, [false, false, false, false, false, true, true]);
        assert_eq!(tank.bytes(), 512);
        assert!(!tank.fill(moment(20), 188) && tank.bytes() == 94);
    }

    #[test]
    fn it_is_to_be_empty_once_a_second() {
        let mut tank = Tank::new(DataSize::from_bytes(512), Bitrate::from_bps(1_504_000), 0);
        let mut at = |n: i64| {
            tank.fill(Moment { at: n * 27_000, packet_27m: 2_700 }, 188);
            tank.is_never_empty()
        };
        // One more, and what leaks in 1 ms is never all.
        assert!(!at(0) && (0..1_000).all(|n| !at(n)));
        assert!(at(1_000) && (1_001..=2_000).all(|n| !at(n)) && at(2_001));
        assert!((2_010..2_900).all(|n| !at(n)));
    }

    proptest! {
        /// Against bits that come and go tick by tick.
        #[test]
        fn it_is_what_one_gets_tick_by_tick(gaps in proptest::collection::vec(0_i64..3_000, 1..40)) {
            // 8 bytes a tick come for a packet of 23.5, 3 bytes a tick leak.
            let (mut at, mut tank) = (0, Tank::new(DataSize::from_bytes(512), Bitrate::from_bps(648_000_000), 0));
            let (mut level, mut now) = (0_i64, 0_i64);
            for gap in gaps {
                at += gap / 40;
                let is_over = tank.fill(Moment { at, packet_27m: 24 }, 192);
                level = (level - 3 * (at - now)).max(0);
                (0..24).for_each(|_| level += 5);
                now = at + 24;
                prop_assert_eq!(is_over, level > 512);
                level = level.min(512);
                prop_assert_eq!(tank.bytes() as i64, level);
                at = now;
            }
        }
    }
}
