//! Times of 33 bits to such that only grow (13818-1 2.4.3.7).

use crate::units::Ticks90k;

/// Unwraps the times of one stream.
#[derive(Debug)]
pub(super) struct Unwrap {
    last: Option<u64>,
}

impl Unwrap {
    pub(super) const fn new() -> Self {
        Self { last: None }
    }

    /// The time unwrapped, and whether it is so far from the last one that both have nothing to do with each other.
    pub(super) fn unwrap(&mut self, time: Ticks90k) -> (Ticks90k, bool) {
        // One round is left in front, for times before the first.
        let last = self.last.unwrap_or(MODULUS + time.0 % MODULUS);
        let ahead = (time.0 % MODULUS).wrapping_sub(last % MODULUS) % MODULUS;
        let back = MODULUS - ahead;
        let now = if ahead <= MODULUS / 2 { last + ahead } else { last.saturating_sub(back) };
        self.last = Some(now);
        (Ticks90k(now), now.abs_diff(last) > JUMP_MIN_90K)
    }
}

const MODULUS: u64 = 1 << 33;
/// Judgement: a break of ten seconds or more, or a step back that no reordering makes.
const JUMP_MIN_90K: u64 = 10 * 90_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_on_over_the_wrap_and_jumps_are_seen() {
        let mut clock = Unwrap::new();
        let (first, jumped) = clock.unwrap(Ticks90k(MODULUS - 10));
        assert!(!jumped);
        assert_eq!(clock.unwrap(Ticks90k(20)), (Ticks90k(first.0 + 30), false));
        assert_eq!(clock.unwrap(Ticks90k(MODULUS - 10)), (first, false));
        assert!(clock.unwrap(Ticks90k(1_000_000)).1);
        // Against the clock for ever: it ends at zero and goes on.
        let mut time = 1 << 32;
        for _ in 0..100 {
            time = (time + MODULUS - MODULUS / 2 + 1) % MODULUS;
            clock.unwrap(Ticks90k(time));
        }
    }
}
