//! Bits of a header, most significant first.

/// Reads bits and never beyond the end.
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    /// From bit `at` on.
    pub(crate) const fn from(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(crate) fn bit(&mut self) -> Option<u8> {
        let bit = self.bytes.get(self.at / 8)? >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit)
    }

    pub(crate) const fn skip(&mut self, count: usize) {
        self.at += count;
    }

    /// The next `count` bits, at most 32.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |value, _| Some(value << 1 | u32::from(self.bit()?)))
    }

    /// The same for what fits into a byte.
    pub(crate) fn byte(&mut self, count: u32) -> Option<u8> {
        self.take(count).and_then(|value| u8::try_from(value).ok())
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        self.bit().map(|bit| bit == 1)
    }

    /// `ue(v)` of H.264 9.1, which AV1 4.10.3 calls `uvlc()`.
    pub(crate) fn number(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.take(zeros)?;
        Some(((1_u64 << zeros) - 1) as u32 + rest)
    }

    pub(crate) fn number_up_to(&mut self, max: u8) -> Option<u8> {
        self.number().and_then(|number| u8::try_from(number).ok()).filter(|number| *number <= max)
    }
}
