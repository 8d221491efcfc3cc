//! Wrapping sequence numbers: 16, 31 and 32 bit, compare and extend.

use std::cmp::Ordering;

/// A sequence number of `BITS` bits (1 to 32) that compares modulo its width (RFC 1982 for `BITS` 32 and 16).
///
/// Two numbers half the range apart have no order; [`Seq::distance`] then says the other is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq<const BITS: u32>(u32);

impl<const BITS: u32> Seq<BITS> {
    const MASK: u32 = u32::MAX >> (32 - BITS);

    /// The number `value` modulo the width.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value & Self::MASK)
    }

    /// The bare number.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The number `by` steps further, wrapping.
    #[must_use]
    pub const fn add(self, by: u32) -> Self {
        Self::new(self.0.wrapping_add(by))
    }

    /// Steps from `self` to `other`, negative if `other` is behind.
    #[must_use]
    pub const fn distance(self, other: Self) -> i32 {
        let shift = 32 - BITS;
        ((other.0.wrapping_sub(self.0) << shift) as i32) >> shift
    }
}

impl<const BITS: u32> PartialOrd for Seq<BITS> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(0.cmp(&self.distance(*other)))
    }
}

/// Turns wrapping numbers into ones that never wrap, following each new number by the shorter way round.
#[derive(Clone, Copy, Debug)]
pub struct Extender<const BITS: u32> {
    last: u64,
}

impl<const BITS: u32> Extender<BITS> {
    /// Starts at `first`, one full cycle above zero so that slightly older numbers stay positive.
    #[must_use]
    pub const fn new(first: Seq<BITS>) -> Self {
        Self { last: (1 << BITS) | first.0 as u64 }
    }

    /// The extended number nearest to the highest one seen; moves that forward if `seq` is ahead.
    pub const fn extend(&mut self, seq: Seq<BITS>) -> u64 {
        let extended = self.peek(seq);
        if extended > self.last {
            self.last = extended;
        }
        extended
    }

    /// The same without moving.
    #[must_use]
    pub const fn peek(&self, seq: Seq<BITS>) -> u64 {
        let behind_or_ahead = Seq::<BITS>::new(self.last as u32).distance(seq);
        self.last.saturating_add_signed(behind_or_ahead as i64)
    }

    /// The highest extended number so far.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        assert!(Seq::<16>::new(65_535) < Seq::new(0));
        assert!(Seq::<16>::new(0) > Seq::new(65_535));
        assert_eq!(Seq::<31>::new(0x7fff_ffff).add(1), Seq::new(0));
        assert_eq!(Seq::<31>::new(0x7fff_ffff).distance(Seq::new(4)), 5);
        assert_eq!(Seq::<32>::new(3).distance(Seq::new(u32::MAX)), -4);
    }

    #[test]
    fn extended_numbers_grow_through_the_wrap() {
        let mut extender = Extender::<16>::new(Seq::new(65_534));
        let numbers: Vec<u64> = [65_534, 65_535, 1, 0, 2].map(|n| extender.extend(Seq::new(n))).into();
        assert_eq!(numbers, [131_070, 131_071, 131_073, 131_072, 131_074]);
    }
}
