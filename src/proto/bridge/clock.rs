//! Times of 33 bits put on one clock that never runs back.

/// One clock for all tracks: goes on where the 33 bits wrap, and where the source's clock jumps.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// What is added to the source's times, modulo 2^33; the one before is for tracks that jump a little later.
    offset_90k: Option<u64>,
    previous_90k: Option<u64>,
    /// Highest time given out.
    newest_90k: u64,
    /// Times that the source's clock jumped.
    pub(super) jumps: u64,
}

impl Clock {
    /// Where `dts_90k` lies.
    pub(super) fn place(&mut self, dts_90k: u64) -> u64 {
        let newest = self.newest_90k;
        let ahead = [self.offset_90k, self.previous_90k]
            .into_iter()
            .flatten()
            .map(|offset| difference(newest, dts_90k.wrapping_add(offset)))
            .find(|ahead| ahead.abs() <= JUMP_90K);
        let placed = if let Some(ahead) = ahead {
            newest.saturating_add_signed(ahead)
        } else {
            let from = if self.offset_90k.is_some() { newest + AFTER_JUMP_90K } else { START_90K };
            self.jumps += u64::from(self.offset_90k.is_some());
            self.previous_90k = self.offset_90k.replace(from.wrapping_sub(dts_90k));
            from
        };
        self.newest_90k = newest.max(placed);
        placed
    }
}

/// From `from` to `to` by the shorter way round 2^33.
pub(super) const fn difference(from: u64, to: u64) -> i64 {
    const UNUSED_BITS: u32 = 64 - 33;
    (to.wrapping_sub(from) << UNUSED_BITS) as i64 >> UNUSED_BITS
}

/// Where the clock begins, so that tracks that begin a little earlier have room.
pub(super) const START_90K: u64 = 90_000;
/// More than that is no gap, but another clock. Judgement: longer than any outage that a source bridges itself.
const JUMP_90K: i64 = 10 * 90_000;
/// From the last unit before a jump to the first one behind it. Judgement: a picture.
const AFTER_JUMP_90K: u64 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_over_wraps_and_jumps() {
        let mut clock = Clock::default();
        let wrap = 1 << 33;
        assert_eq!(clock.place(wrap - 3_600), START_90K);
        assert_eq!(clock.place(wrap - 7_200), START_90K - 3_600, "a track that begins earlier");
        assert_eq!(clock.place(0), START_90K + 3_600);
        assert_eq!(clock.place(40_000_000), START_90K + 3_600 + AFTER_JUMP_90K);
        assert_eq!(clock.place(3_600), START_90K + 7_200, "a track that jumps a little later");
        assert_eq!(clock.place(40_003_600), START_90K + 10_800);
        assert_eq!(clock.jumps, 1);
    }
}
