//! Bits of a header, most significant first, with Exp-Golomb codes (14496-10 9.1).

use super::headers::HeaderError;

/// Reads bits and never beyond the end.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Index of the next bit.
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits that are left.
    pub(super) const fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    pub(super) fn flag(&mut self) -> Result<bool, HeaderError> {
        let byte = self.bytes.get(self.at / 8).ok_or(HeaderError::Truncated)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// The next `count` bits, at most 32.
    pub(super) fn take(&mut self, count: u32) -> Result<u32, HeaderError> {
        debug_assert!(count <= 32);
        if self.left() < count as usize {
            return Err(HeaderError::Truncated);
        }
        let mut value = 0_u64;
        let mut missing = count as usize;
        while missing > 0 {
            let byte = self.bytes.get(self.at / 8).ok_or(HeaderError::Truncated)?;
            let free = 8 - self.at % 8;
            let now = free.min(missing);
            let bits = u64::from(*byte) >> (free - now) & ((1 << now) - 1);
            value = value << now | bits;
            self.at += now;
            missing -= now;
        }
        Ok(value as u32)
    }

    /// The same for what fits into a byte.
    pub(super) fn byte(&mut self, count: u32) -> Result<u8, HeaderError> {
        debug_assert!(count <= 8);
        Ok(self.take(count)? as u8)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), HeaderError> {
        if self.left() < count {
            return Err(HeaderError::Truncated);
        }
        self.at += count;
        Ok(())
    }

    /// `ue(v)`: at most 2^32 - 2, as the standards allow.
    pub(super) fn ue(&mut self) -> Result<u32, HeaderError> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(HeaderError::Value);
            }
        }
        let rest = self.take(zeros)?;
        Ok((1_u32 << zeros) - 1 + rest)
    }

    /// `ue(v)` that the standard limits to `max`.
    pub(super) fn ue_max(&mut self, max: u32) -> Result<u32, HeaderError> {
        let value = self.ue()?;
        if value > max { Err(HeaderError::Value) } else { Ok(value) }
    }

    /// `se(v)`.
    pub(super) fn se(&mut self) -> Result<i32, HeaderError> {
        let code = i64::from(self.ue()?);
        let magnitude = (code + 1) / 2;
        Ok(if code % 2 == 1 { magnitude } else { -magnitude } as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_are_those_of_table_9_2() {
        // 1 010 011 00100 00101 00110
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1001_1000]);
        let codes: Vec<u32> = (0..6).map(|_| bits.ue().unwrap()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5]);
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1001_1000]);
        let codes: Vec<i32> = (0..6).map(|_| bits.se().unwrap()).collect();
        assert_eq!(codes, [0, 1, -1, 2, -2, 3]);
    }

    #[test]
    fn the_end_is_an_error_and_moves_nothing() {
        let mut bits = Bits::new(&[0xff]);
        assert_eq!(bits.take(9), Err(HeaderError::Truncated));
        assert_eq!(bits.take(8), Ok(0xff));
        assert_eq!(bits.flag(), Err(HeaderError::Truncated));
        assert_eq!(Bits::new(&[0; 8]).ue(), Err(HeaderError::Value));
        assert_eq!(Bits::new(&[0; 3]).ue(), Err(HeaderError::Truncated));
    }
}
