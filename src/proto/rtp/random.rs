//! Random numbers from a seed, for identifiers and for spreading reports.

/// SplitMix64 (Steele, Lea, Flood 2014): enough to keep two senders apart, nothing secret.
#[derive(Clone, Debug)]
pub(in crate::proto) struct Random(u64);

impl Random {
    pub(in crate::proto) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in crate::proto) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`, which is not zero; the bias of 2^-64 times `limit` does no harm here.
    pub(in crate::proto) const fn below(&mut self, limit: u64) -> u64 {
        ((self.next() as u128 * limit as u128) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert!((0..1_000).all(|_| random.below(7) < 7));
    }
}
