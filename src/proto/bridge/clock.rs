//! Times of 33 bits put on one clock that never runs back.

/// One clock for all tracks: goes on where the 33 bits wrap, and where the source's clock jumps.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// What is added to the source's times, modulo 2^33.
    offset_90k: Option<u64>,
    /// The one before, for tracks that jump a little later, and up to where there may be such.
    previous: Option<(u64, u64)>,
    /// Highest time given out.
    newest_90k: u64,
    /// What comes next does not continue what came, and how much has passed since that.
    passed_90k: Option<u64>,
    /// Times that the source's clock jumped.
    pub(super) jumps: u64,
}

impl Clock {
    /// What comes next need not have the same clock; so much has passed since the last unit.
    pub(super) fn disturb(&mut self, passed_90k: u64) {
        self.passed_90k = Some(passed_90k.min(JUMP_90K as u64));
        self.previous = None;
    }

    /// Where `dts_90k` lies, of a track whose last unit lies at `last_90k`. It may be a little before that.
    pub(super) fn place(&mut self, last_90k: Option<u64>, dts_90k: u64) -> u64 {
        let passed_90k = self.passed_90k.take();
        let newest = self.newest_90k;
        let last = last_90k.map_or(0, |last| (last as i64).wrapping_sub(newest as i64));
        let least = if last_90k.is_some() { (last - BACK_90K).max(-JUMP_90K) } else { -JUMP_90K };
        let most = passed_90k.map_or(JUMP_90K, |passed| last.saturating_add_unsigned(passed) + AFTER_BREAK_90K);
        self.previous = self.previous.filter(|(_, until)| newest < *until);
        let ahead = [self.offset_90k, self.previous.map(|(offset, _)| offset)]
            .into_iter()
            .flatten()
            .map(|offset| difference(newest, dts_90k.wrapping_add(offset)))
            .filter(|ahead| (least..=most).contains(ahead))
            .min_by_key(|ahead| ahead.abs_diff(last));
        let placed = if let Some(ahead) = ahead {
            newest.saturating_add_signed(ahead)
        } else {
            self.jump(last_90k, passed_90k.unwrap_or_default(), dts_90k)
        };
        self.newest_90k = newest.max(placed);
        placed
    }

    /// The unit with `dts_90k` is the first of another clock, and follows the one before of its track.
    fn jump(&mut self, last_90k: Option<u64>, passed_90k: u64, dts_90k: u64) -> u64 {
        let newest = self.newest_90k;
        let Some(offset) = self.offset_90k else {
            self.offset_90k = Some(START_90K.wrapping_sub(dts_90k));
            return START_90K;
        };
        let follows = last_90k.unwrap_or(newest) + passed_90k.max(AFTER_JUMP_90K);
        let from = follows.max(newest.saturating_sub(BACK_90K as u64));
        self.jumps += 1;
        self.previous = Some((offset, newest + JUMP_90K as u64));
        self.offset_90k = Some(from.wrapping_sub(dts_90k));
        from
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
/// What a track's times may step back by on the same clock. Judgement: what tracks are apart from each other in a
/// stream, as one that jumps takes the others with it.
const BACK_90K: i64 = 90_000;
/// How much further than time has passed the same clock may be where something is missing. Judgement: as above.
const AFTER_BREAK_90K: i64 = 90_000;
/// From the last unit before a jump to the first one behind it. Judgement: a picture.
const AFTER_JUMP_90K: u64 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_over_wraps_and_jumps() {
        let mut clock = Clock::default();
        let (wrap, mut video, mut audio) = (1 << 33, None, None);
        let mut place = |last: &mut Option<u64>, dts| *last.insert(clock.place(*last, dts));
        assert_eq!(place(&mut video, wrap - 3_600), START_90K);
        assert_eq!(place(&mut audio, wrap - 7_200), START_90K - 3_600, "a track that begins earlier");
        assert_eq!(place(&mut video, 0), START_90K + 3_600);
        assert_eq!(place(&mut video, 40_000_000), START_90K + 3_600 + AFTER_JUMP_90K);
        assert_eq!(place(&mut audio, 3_600), START_90K + 7_200, "a track that jumps a little later");
        assert_eq!(place(&mut audio, 40_003_600), START_90K + 10_800);
        assert_eq!(clock.jumps, 1);
    }

    #[test]
    fn a_step_back_is_another_clock_and_each_track_follows_when_it_comes_to_it() {
        let mut clock = Clock::default();
        let (mut video, mut audio) = (None, None);
        let mut place = |last: &mut Option<u64>, dts| *last.insert(clock.place(*last, dts));
        assert_eq!(place(&mut video, 900_000), START_90K);
        assert_eq!(place(&mut audio, 900_000), START_90K);
        assert_eq!(place(&mut video, 450_000), START_90K + AFTER_JUMP_90K);
        assert_eq!(place(&mut audio, 901_920), START_90K + 1_920, "nearer on the clock before");
        assert_eq!(place(&mut audio, 450_240), START_90K + AFTER_JUMP_90K + 240);
        assert_eq!(place(&mut video, 453_600), START_90K + 2 * AFTER_JUMP_90K);
        assert_eq!(clock.jumps, 1);
    }

    #[test]
    fn after_a_break_the_clock_is_the_same_one_if_it_is_where_it_must_be() {
        for (passed, dts, placed, jumps) in [
            (270_000, 900_000 + 270_000, START_90K + 270_000, 0),
            (0, 900_000 + 270_000, START_90K + AFTER_JUMP_90K, 1),
            (270_000, 5_000_000, START_90K + 270_000, 1),
            (270_000, 700_000, START_90K + 270_000, 1),
            (3_600, 903_600, START_90K + 3_600, 0),
        ] {
            let mut clock = Clock::default();
            let last = clock.place(None, 900_000);
            clock.disturb(passed);
            assert_eq!((clock.place(Some(last), dts), clock.jumps), (placed, jumps), "{passed} {dts}");
        }
    }
}
